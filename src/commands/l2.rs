//! `crier l2`: who answers for which address on the link, since when and why, and who would be next. Floor 4.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;

use super::table::{Table, dash, printable};
use super::{Exit, Output, ago, answer, ask, join, refused};
use crate::api::readings;
use crate::names::NodeName;
use crate::views::l2::{AddressFilter, AddressReport, LastConflictReport, MoveReport, RankReport};

#[derive(Debug, Args)]
#[command(
    after_help = "Without an address: one line for each. With one: also every node by rank, and why each of the others cannot answer.\n\
                        A \"+\" behind the time: it was so when this node began to look, and may be so for longer.\n\n\
                        Examples:\n  crier l2\n  crier l2 192.168.35.100\n  crier l2 --json"
)]
pub struct L2 {
    /// The address to show in full
    address: Option<IpAddr>,
    #[command(flatten)]
    output: Output,
}

pub fn l2(socket: &Path, L2 { address, output }: L2) -> Exit {
    match ask(socket, &readings::L2, &AddressFilter { address }) {
        Ok(report) => answer(output, &report, |wide| match (address, report.addresses.as_slice()) {
            (Some(_), [only]) => whole(only, &report.node),
            (_, addresses) => table(addresses, wide),
        }),
        Err(error) => refused(&error),
    }
}

fn table(addresses: &[AddressReport], wide: bool) -> String {
    let mut head = vec!["ADDRESS", "SERVICE", "OWNER", "SINCE", "INTERFACE", "NEXT", "LAST MOVE", "CONFLICT"];
    if wide {
        head.extend(["MAC", "NODES", "REASON"]);
    }
    let mut table = Table::with_head(head);
    for it in addresses {
        let mut row = vec![
            it.address.to_string(),
            join(&it.services),
            owner(it),
            since(it),
            dash(join(&it.interfaces)),
            name(next(it).map(|next| &next.node)),
            it.last_move.as_ref().map_or("-".to_owned(), short_move),
            it.last_conflict.as_ref().map_or("-".to_owned(), short_conflict),
        ];
        if wide {
            let may = it.nodes.iter().filter(|node| node.rank.is_some()).count();
            row.extend([dash(join(&it.owner_macs)), format!("{may}/{}", it.nodes.len()), it.summary.clone()]);
        }
        table.cells(row);
    }
    table.to_string()
}

/// The best of the nodes beside the owner.
fn next(it: &AddressReport) -> Option<&RankReport> {
    it.nodes.iter().find(|node| node.rank.is_some() && Some(&node.node) != it.owner.as_ref())
}

/// Of a station that is no known node's, the MAC.
fn owner(it: &AddressReport) -> String {
    match &it.owner {
        None if !it.owner_macs.is_empty() => join(&it.owner_macs),
        owner => name(owner.as_ref()),
    }
}

fn name(node: Option<&NodeName>) -> String {
    node.map_or("-".to_owned(), ToString::to_string)
}

fn since(it: &AddressReport) -> String {
    let longer = if it.since_is_exact { "" } else { "+" };
    it.since.map_or("-".to_owned(), |since| format!("{}{longer}", ago(since)))
}

fn short_move(it: &MoveReport) -> String {
    let silence = it.silent_millis.map_or(String::new(), |millis| format!(" {millis} ms"));
    match &it.from {
        Some(from) => format!("from {from}: {}{silence}", it.cause),
        None => it.cause.clone(),
    }
}

fn short_conflict(it: &LastConflictReport) -> String {
    let who = it.node.as_ref().map_or_else(|| it.mac.clone(), |node| format!("{} ({node})", it.mac));
    let over = it.over.map_or(String::new(), |over| format!(", over {} ago", ago(over)));
    format!("{}: {who}{over}", it.kind.code())
}

/// All that is known of one address.
fn whole(it: &AddressReport, me: &NodeName) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<14} {}", printable(&value));
    };
    line("address", format!("{}, of pool {}", it.address, it.pool));
    line("services", join(&it.services));
    let owner = match &it.owner {
        Some(owner) if owner == me => format!("{owner}, this node"),
        owner => name(owner.as_ref()),
    };
    let owner = if it.owner.is_none() && !it.owner_macs.is_empty() { "no known node".to_owned() } else { owner };
    line("owner", if it.owner_macs.is_empty() { owner } else { format!("{owner}, {}", join(&it.owner_macs)) });
    let longer = if it.since_is_exact { "" } else { ", or longer: so it was when this node began to look" };
    line("since", it.since.map_or("-".to_owned(), |since| format!("{}{longer}", when(since))));
    line("answered here", if it.announced { format!("on {}", join(&it.interfaces)) } else { "no".to_owned() });
    line("reason", it.summary.clone());
    match &it.last_move {
        Some(last) => {
            let nobody = |node: &Option<NodeName>| node.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            line("last move", format!("from {} to {}", nobody(&last.from), nobody(&last.to)));
            line("  when", last.at.map_or("-".to_owned(), when));
            line("  cause", format!("{}: {}", last.cause, last.summary));
        }
        None => line("last move", "none since this node began to look".to_owned()),
    }
    match &it.last_conflict {
        Some(last) => {
            line("last conflict", short_conflict(last));
            line("  link", last.link.to_string());
            line("  when", last.since.map_or("-".to_owned(), when));
            line("  over", last.over.map_or("not yet".to_owned(), when));
        }
        None => line("last conflict", "none".to_owned()),
    }
    let mut nodes = Table::new(["RANK", "NODE", "WEIGHT", "STATE"]);
    for node in &it.nodes {
        nodes.row([
            node.rank.map_or("-".to_owned(), |rank| rank.to_string()),
            node.node.to_string(),
            node.weight.map_or("-".to_owned(), |weight| weight.to_string()),
            state(node, it.owner.as_ref()),
        ]);
    }
    format!("{text}\n{nodes}")
}

fn state(node: &RankReport, owner: Option<&NodeName>) -> String {
    let chosen = if node.chosen { ", chosen by crier.dev/node" } else { "" };
    let near = if node.near { ", has an endpoint" } else { "" };
    let keeps = if node.keeps { ", keeps it (sticky)" } else { "" };
    match &node.summary {
        Some(why) => why.clone(),
        None if Some(&node.node) == owner => format!("owner{chosen}{near}{keeps}"),
        None => format!("candidate{chosen}{near}{keeps}"),
    }
}

fn when(at: Timestamp) -> String {
    format!("{at:.3} ({} ago)", ago(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::ConflictKind;
    use crate::reason::Reason;

    fn report() -> AddressReport {
        let at = Timestamp::from_second(1_700_000_000).ok();
        let refused = Reason::NodeSilent;
        let candidate = |name: &str, place: usize| RankReport {
            node: name.into(),
            rank: Some(place),
            weight: Some(0),
            near: false,
            chosen: false,
            keeps: false,
            reason: None,
            summary: None,
        };
        AddressReport {
            address: "192.168.35.100".parse().unwrap(),
            pool: "lan".into(),
            services: vec![crate::names::ObjectKey::new("shop", "web")],
            owner: Some("node-2".into()),
            owner_macs: vec!["02:00:00:00:00:02".to_owned()],
            announced: true,
            reason: Reason::Announced,
            summary: Reason::Announced.to_string(),
            interfaces: vec!["eth0".into()],
            since: at,
            since_is_exact: true,
            last_move: Some(MoveReport {
                from: Some("node-1".into()),
                to: Some("node-2".into()),
                at,
                cause: "owner-silent".to_owned(),
                silent_millis: Some(303),
                summary: "the previous owner stopped responding".to_owned(),
            }),
            last_conflict: Some(LastConflictReport {
                link: "eth0".into(),
                mac: "02:00:00:00:00:99".to_owned(),
                node: None,
                kind: ConflictKind::Contested,
                since: at,
                over: None,
            }),
            nodes: vec![
                candidate("node-2", 1),
                candidate("node-3", 2),
                RankReport {
                    node: "node-1".into(),
                    rank: None,
                    weight: None,
                    near: false,
                    chosen: false,
                    keeps: false,
                    summary: Some(refused.to_string()),
                    reason: Some(refused),
                },
            ],
        }
    }

    #[test]
    fn one_line_says_who_has_it_who_is_next_and_how_it_came() {
        let mut report = report();
        let text = table(std::slice::from_ref(&report), true);
        for word in ["node-3", "from node-1: owner-silent 303 ms", "contested: 02:00:00:00:00:99", "2/3", "eth0"] {
            assert!(text.contains(word), "\"{word}\" is not in\n{text}");
        }
        report.since_is_exact = false;
        report.last_move = None;
        let text = table(&[report], false);
        assert!(text.contains("+  eth0"), "it may be so for longer:\n{text}");
    }

    #[test]
    fn an_address_in_full_lists_every_node_with_its_reason() {
        let text = whole(&report(), &"node-2".into());
        for line in [
            "owner          node-2, this node, 02:00:00:00:00:02",
            "last move      from node-1 to node-2",
            "  cause        owner-silent: the previous owner stopped responding",
            "last conflict  contested: 02:00:00:00:00:99",
            "1     node-2  0       owner",
            "2     node-3  0       candidate",
            "-     node-1  -       the node is not alive: its pulses stopped",
        ] {
            assert!(text.lines().any(|it| it == line), "\"{line}\" is not in\n{text}");
        }
    }
}
