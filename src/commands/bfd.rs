//! `crier bfd`: whether packets pass between this node and its BGP peers, in the words of RFC 5880. Floor 4.

use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::table::{Table, printable};
use super::{Exit, Output, ago, answer, ask, refused};
use crate::api::readings;
use crate::names::PeerName;
use crate::views::bfd::{BfdSessionReport, BfdSessionsReport};
use crate::views::bgp::PeersFilter;

#[derive(Debug, Args)]
#[command(after_help = "Without a peer: one line for each session. With one: all that is known of it.\n\n\
                  Examples:\n  crier bfd\n  crier bfd tor\n  crier bfd --json")]
pub struct Bfd {
    /// The peer to show in full
    peer: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub fn bfd(socket: &Path, Bfd { peer, output }: Bfd) -> Exit {
    let filter = PeersFilter { peer: peer.as_deref().map(PeerName::from) };
    match ask(socket, &readings::BFD, &filter) {
        Ok(report) => answer(output, &report, |wide| match (&peer, report.sessions.as_slice()) {
            (Some(_), [session]) => whole(session),
            (_, _) => table(&report, wide),
        }),
        Err(error) => refused(&error),
    }
}

fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn millis(value: Option<u64>) -> String {
    value.map_or("-".to_owned(), |millis| format!("{millis} ms"))
}

fn table(report: &BfdSessionsReport, wide: bool) -> String {
    let mut head =
        vec!["PEER", "ADDRESS", "INTERFACE", "STATE", "DETECTION", "TX", "RX", "SINCE", "LOST", "LAST DIAGNOSTIC"];
    if wide {
        head.extend(["REMOTE", "HOPS", "PROFILE", "LOCAL", "SENT", "RECEIVED", "UNSENT", "PROBLEM"]);
    }
    let mut table = Table::with_head(head);
    for session in &report.sessions {
        let mut row = vec![
            session.peer.to_string(),
            session.address.clone(),
            dash(session.interface.as_ref()),
            session.state.to_string(),
            millis(session.detection_time_millis),
            millis(session.transmit_interval_millis),
            millis(session.receive_interval_millis),
            dash(session.since.map(ago)),
            session.losses.to_string(),
            session.last_diagnostic.to_string(),
        ];
        if wide {
            row.extend([
                dash(session.remote_state),
                hops(session).to_owned(),
                session.profile.clone(),
                dash(session.local_address),
                session.packets_sent.to_string(),
                session.packets_received.to_string(),
                session.packets_unsent.to_string(),
                dash(session.problem.as_ref()),
            ]);
        }
        table.cells(row);
    }
    let mut text = table.to_string();
    if wide && !report.discarded.is_empty() {
        let _ = writeln!(text);
        for (reason, count) in &report.discarded {
            let _ = writeln!(text, "discarded {reason:<24} {count}");
        }
    }
    text
}

fn hops(session: &BfdSessionReport) -> &'static str {
    if session.multihop { "multi" } else { "single" }
}

/// All that is known of one session.
fn whole(session: &BfdSessionReport) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<18} {}", printable(&value));
    };
    line("peer", format!("{} ({})", session.peer, session.address));
    let since = session.since.map_or(String::new(), |since| format!(" for {}", ago(since)));
    line("state", format!("{}{since}", session.state));
    line("remote state", dash(session.remote_state));
    line("profile", session.profile.clone());
    line("hops", format!("{} (UDP port {})", hops(session), if session.multihop { 4784 } else { 3784 }));
    line("interface", dash(session.interface.as_ref()));
    line("local address", dash(session.local_address));
    let multiplier = session.remote_multiplier.map_or(String::new(), |it| format!(", {it} packets of the peer"));
    line("detection time", format!("{}{multiplier}", millis(session.detection_time_millis)));
    line("transmit interval", millis(session.transmit_interval_millis));
    line("receive interval", millis(session.receive_interval_millis));
    line("last diagnostic", format!("{}, of the peer: {}", session.last_diagnostic, session.remote_diagnostic));
    line(
        "discriminators",
        format!("{}, of the peer: {}", dash(session.local_discriminator), dash(session.remote_discriminator)),
    );
    line("authenticated", if session.authenticated { "yes" } else { "no" }.to_owned());
    line("BGP waits for it", if session.strict { "yes (bfd-strict)" } else { "no" }.to_owned());
    if session.remote_demand {
        line("demand mode", "the peer asks for it, and gets no periodic packets".to_owned());
    }
    line("came up", times(session.times_up));
    line("was lost", times(session.losses));
    if let Some(loss) = &session.last_loss {
        line("  last", format!("{:.3} ({} ago): {}", loss.at, ago(loss.at), loss.why));
    }
    line("packets sent", format!("{}, unsent {}", session.packets_sent, session.packets_unsent));
    line("packets received", session.packets_received.to_string());
    if let Some(problem) = &session.problem {
        line("problem", problem.clone());
    }
    text
}

fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bfd_state::{BfdState, Diagnostic};
    use crate::world::BfdLoss;

    fn session() -> BfdSessionReport {
        BfdSessionReport {
            peer: "tor".into(),
            address: "10.0.0.1".to_owned(),
            interface: None,
            state: BfdState::Up,
            since: None,
            detection_time_millis: Some(150),
            transmit_interval_millis: Some(50),
            receive_interval_millis: Some(50),
            last_diagnostic: Diagnostic::NeighborSignaledDown,
            remote_diagnostic: Diagnostic::None,
            remote_state: Some(BfdState::Up),
            remote_multiplier: Some(3),
            profile: "fast".to_owned(),
            multihop: false,
            authenticated: false,
            strict: true,
            local_address: None,
            local_discriminator: Some(7),
            remote_discriminator: None,
            remote_demand: false,
            times_up: 2,
            losses: 1,
            last_loss: Some(BfdLoss {
                at: jiff::Timestamp::UNIX_EPOCH,
                why: "nothing came for 150 ms".to_owned(),
                heard: None,
            }),
            packets_sent: 10,
            packets_unsent: 0,
            packets_received: 9,
            problem: None,
        }
    }

    #[test]
    fn one_line_has_state_times_and_last_diagnostic_of_a_session() {
        let discarded = BTreeMap::from([("ttl".to_owned(), 4)]);
        let report =
            BfdSessionsReport { schema_version: 1, node: "node-1".into(), sessions: vec![session()], discarded };
        let text = table(&report, false);
        let words: Vec<&str> = text.lines().nth(1).expect("one line").split_whitespace().collect();
        assert_eq!(words.join(" "), "tor 10.0.0.1 - up 150 ms 50 ms 50 ms - 1 neighbor signaled down");
        assert!(!text.contains("discarded") && table(&report, true).contains("discarded ttl "), "{text}");
    }

    #[test]
    fn a_session_in_full_says_why_it_was_lost_and_who_waits_for_it() {
        let text = whole(&session());
        for line in [
            "hops               single (UDP port 3784)",
            "detection time     150 ms, 3 packets of the peer",
            "discriminators     7, of the peer: -",
            "BGP waits for it   yes (bfd-strict)",
            "came up            2 times",
            "was lost           once",
        ] {
            assert!(text.lines().any(|it| it == line), "\"{line}\" is not in\n{text}");
        }
        assert!(text.contains("nothing came for 150 ms"), "{text}");
    }
}
