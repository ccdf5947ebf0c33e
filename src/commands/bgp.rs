//! `crier bgp peers|routes`: the sessions and what is announced over them, in the columns of vtysh and birdc; and what an operator
//! does with a session: `reset|refresh|shutdown|enable`. Floor 4.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::Timestamp;

use super::table::{Table, printable};
use super::{Exit, Output, ago, answer, ask, join, order, refused};
use crate::address::host_prefix;
use crate::agent::order::Wish;
use crate::api::readings;
use crate::clock;
use crate::names::PeerName;
use crate::views::bgp::{PeerReport, PeersFilter, RouteReport, RoutesFilter, Security};
use crate::world::{LastNotification, NegotiatedReport, PeerOrder};

#[derive(Debug, Subcommand)]
pub enum Bgp {
    /// Show the peers of this node, or all that is known of one
    Peers(Peers),
    /// Show what is announced to which peer, and how
    Routes(Routes),
    /// End the session with a peer and begin it anew (Cease, Administrative Reset)
    Reset(Peer),
    /// Send a peer all routes again; the session goes on
    Refresh(Peer),
    /// Hold no session with a peer until it is enabled again, also after a restart of the agent
    Shutdown(Peer),
    /// Allow the session again after `shutdown`
    Enable(Peer),
}

#[derive(Debug, Args)]
pub struct Peer {
    /// The name of the [[bgp.peer]]
    name: String,
}

#[derive(Debug, Args)]
pub struct Peers {
    /// The peer to show in full
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub struct Routes {
    /// A peer, or a prefix or address: then the longest route of each peer that holds it
    #[arg(value_name = "PEER|PREFIX", num_args = 0..=2)]
    wanted: Vec<String>,
    /// Only routes to this peer
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub fn bgp(socket: &Path, verb: Bgp) -> Exit {
    match verb {
        Bgp::Peers(Peers { name, output }) => {
            let filter = PeersFilter { peer: name.as_deref().map(PeerName::from) };
            match ask(socket, &readings::BGP_PEERS, &filter) {
                Ok(report) => answer(output, &report, |wide| match (&name, report.peers.as_slice()) {
                    (Some(_), [peer]) => whole(peer),
                    (_, peers) => peers_table(peers, wide),
                }),
                Err(error) => refused(&error),
            }
        }
        Bgp::Reset(peer) => order_peer(socket, &peer, PeerOrder::Reset),
        Bgp::Refresh(peer) => order_peer(socket, &peer, PeerOrder::Refresh),
        Bgp::Shutdown(peer) => order_peer(socket, &peer, PeerOrder::Shut),
        Bgp::Enable(peer) => order_peer(socket, &peer, PeerOrder::Enable),
        Bgp::Routes(Routes { wanted, peer, output }) => match routes_filter(&wanted, peer.as_deref()) {
            Ok(filter) => match ask(socket, &readings::BGP_ROUTES, &filter) {
                Ok(report) => answer(output, &report, |wide| routes_table(&report.routes, wide)),
                Err(error) => refused(&error),
            },
            Err(why) => {
                tell!("crier: {why}");
                Exit::Usage
            }
        },
    }
}

fn order_peer(socket: &Path, peer: &Peer, wanted: PeerOrder) -> Exit {
    order(socket, &Wish::Peer { peer: PeerName::from(peer.name.as_str()), order: wanted })
}

fn routes_filter(wanted: &[String], peer: Option<&str>) -> Result<RoutesFilter, String> {
    let mut filter = RoutesFilter { peer: peer.map(PeerName::from), prefix: None };
    for text in wanted {
        let prefix = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(host_prefix));
        match prefix {
            Some(_) if filter.prefix.is_some() => return Err(format!("\"{text}\" is a second prefix; ask for one")),
            Some(prefix) => filter.prefix = Some(prefix),
            None if text.contains('/') => return Err(format!("\"{text}\" is not a prefix; write 192.0.2.0/24")),
            None if filter.peer.is_some() => return Err(format!("\"{text}\" is a second peer; ask for one")),
            None => filter.peer = Some(PeerName::from(text.as_str())),
        }
    }
    Ok(filter)
}

fn dash<T: ToString>(value: Option<T>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn asn(peer: &PeerReport) -> String {
    let negotiated = peer.session.negotiated.as_ref().map(|negotiated| negotiated.peer_asn);
    negotiated.or(peer.asn).map_or("external".to_owned(), |asn| asn.to_string())
}

/// The columns of `show bgp summary`. Wide: what else there is room for.
fn peers_table(peers: &[PeerReport], wide: bool) -> String {
    let mut head = vec![
        "PEER",
        "ADDRESS",
        "AS",
        "LOCAL-AS",
        "STATE",
        "UP/DOWN",
        "MSGRCVD",
        "MSGSENT",
        "OUTQ",
        "PFXSNT",
        "LAST ERROR",
    ];
    if wide {
        head.splice(10..10, ["BFD", "WANTED", "UNSENDABLE", "PFXRCD", "ESTABLISHED", "HOLD", "ROUTER-ID", "LOCAL"]);
    }
    let mut table = Table::with_head(head);
    for peer in peers {
        let session = &peer.session;
        let mut row = vec![
            peer.name.to_string(),
            peer.address.to_string(),
            asn(peer),
            peer.local_asn.to_string(),
            format!("{:?}", peer.state),
            dash(peer.since.map(ago)),
            session.messages_received.total().to_string(),
            session.messages_sent.total().to_string(),
            session.prefixes_pending.to_string(),
            peer.prefixes_sent.to_string(),
            dash(peer.last_error.as_deref()),
        ];
        if wide {
            let negotiated = session.negotiated.as_ref();
            let more = [
                dash(peer.bfd),
                peer.prefixes_wanted.to_string(),
                peer.prefixes_unsendable.to_string(),
                peer.prefixes_received.to_string(),
                session.times_established.to_string(),
                dash(peer.hold_time_secs),
                dash(negotiated.map(|negotiated| negotiated.peer_router_id)),
                dash(negotiated.map(|negotiated| negotiated.local)),
            ];
            row.splice(10..10, more);
        }
        table.cells(row);
    }
    table.to_string()
}

fn routes_table(routes: &[RouteReport], wide: bool) -> String {
    let mut head = vec!["PREFIX", "PEER", "NEXT HOP", "AS PATH", "MED", "LOCPRF", "COMMUNITIES", "STATE"];
    if wide {
        head.extend(["ENDPOINTS", "SERVICES", "DISPUTES"]);
    }
    let mut table = Table::with_head(head);
    for route in routes {
        let state = match &route.why {
            Some(why) => format!("{}: {why}", route.state),
            None => route.state.to_string(),
        };
        let mut row = vec![
            route.prefix.to_string(),
            route.peer.to_string(),
            dash(route.next_hop),
            path(route),
            dash(route.med),
            dash(route.local_preference),
            if route.communities.is_empty() { "-".to_owned() } else { join(&route.communities) },
            state,
        ];
        if wide {
            row.extend([dash(route.endpoints), join(&route.services), join(&route.disputes)]);
        }
        table.cells(row);
    }
    table.to_string()
}

/// As vtysh prints it: the numbers, then the origin, which is always IGP.
fn path(route: &RouteReport) -> String {
    match &route.as_path {
        Some(path) => path.iter().map(|asn| format!("{asn} ")).chain(["i".to_owned()]).collect(),
        None => "-".to_owned(),
    }
}

/// All that is known of one peer, in the manner of `show bgp neighbors`.
fn whole(peer: &PeerReport) -> String {
    let session = &peer.session;
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<22} {}", printable(&value));
    };
    line("peer", format!("{} ({})", peer.name, peer.address));
    if let Some(description) = &peer.description {
        line("description", description.clone());
    }
    line("AS", format!("{}, local AS {}", asn(peer), peer.local_asn));
    let since = peer.since.map_or(String::new(), |since| format!(" for {}", ago(since)));
    line("state", format!("{:?}{since}", peer.state));
    let Security { md5, tcp_ao, ttl_security } = peer.security;
    let signed = [(md5, "TCP MD5"), (tcp_ao, "TCP-AO")].into_iter().find_map(|(is_it, name)| is_it.then_some(name));
    line("signed", signed.unwrap_or("no").to_owned());
    line("TTL security (GTSM)", if ttl_security { "yes: packets from the link only" } else { "no" }.to_owned());
    line("BFD", peer.bfd.map_or("does not watch the peer".to_owned(), |state| state.to_string()));
    line("established", times(session.times_established));
    if let Some(former) = &session.former {
        line("session before", former.to_string());
    }
    if let Some(at) = session.next_attempt_at {
        let ahead = at.duration_since(Timestamp::try_from(clock::wall()).unwrap_or(at)).as_secs().max(0);
        line("next attempt", format!("in {ahead} s"));
    }
    if let Some(negotiated) = &session.negotiated {
        let NegotiatedReport {
            local,
            remote,
            local_asn: _,
            peer_asn: _,
            local_router_id,
            peer_router_id,
            hold_time_secs,
            keepalive_time_millis,
            max_message_len,
            graceful_restart,
            families,
            capabilities,
        } = negotiated;
        line("local end", format!("{local}, router id {local_router_id}"));
        line("peer's end", format!("{}, router id {peer_router_id}", dash(*remote)));
        let seconds = |millis: u64| format!("{}.{:03} s", millis / 1000, millis % 1000);
        line("hold time", hold_time_secs.map_or("none".to_owned(), |secs| format!("{secs} s")));
        line("keepalive time", keepalive_time_millis.map_or("none".to_owned(), seconds));
        line("longest message", format!("{max_message_len} octets"));
        line(
            "graceful restart",
            if *graceful_restart { "yes: the peer keeps the routes for a while" } else { "no" }.to_owned(),
        );
        for carried in families {
            let way = match (&carried.next_hop, &carried.unsendable) {
                (_, Some(why)) => format!("not sent: {why}"),
                (next_hop, None) => format!("next hop {}", dash(*next_hop)),
            };
            line(&format!("{} unicast", carried.family), way);
        }
        line("capabilities sent", join(&capabilities.sent));
        line("capabilities received", join(&capabilities.received));
        line("capabilities negotiated", join(&capabilities.negotiated));
    }
    line("prefixes wanted", peer.prefixes_wanted.to_string());
    line("prefixes sent", peer.prefixes_sent.to_string());
    line("prefixes pending", session.prefixes_pending.to_string());
    let reasons = session.unsendable.iter().map(|it| format!(" ({}: {})", it.prefixes, it.reason)).collect::<String>();
    line("prefixes unsendable", format!("{}{reasons}", peer.prefixes_unsendable));
    line("prefixes received", format!("{}, all dropped", peer.prefixes_received));
    if session.updates_malformed > 0 {
        line("malformed UPDATEs", session.updates_malformed.to_string());
    }
    line("last error", dash(peer.last_error.as_deref()));
    if let (Some(at), Some(_)) = (session.last_error_at, &peer.last_error) {
        line("  when", format!("{at} ({} ago)", ago(at)));
    }
    line("last notification", String::new());
    line("  sent", notification(session.last_notification_sent.as_ref()));
    line("  received", notification(session.last_notification_received.as_ref()));
    let mut messages = Table::new(["MESSAGES", "SENT", "RECEIVED"]);
    let both = session.messages_sent.by_type().into_iter().zip(session.messages_received.by_type());
    for ((name, sent), (_, received)) in both {
        messages.row([name.to_owned(), sent.to_string(), received.to_string()]);
    }
    let totals = [session.messages_sent.total(), session.messages_received.total()];
    messages.row(["total".to_owned(), totals[0].to_string(), totals[1].to_string()]);
    format!("{}\n{messages}", without_trailing_spaces(&text))
}

fn without_trailing_spaces(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

fn notification(last: Option<&LastNotification>) -> String {
    let Some(LastNotification { at, code: _, subcode: _, name, text }) = last else { return "none".to_owned() };
    let text = text.as_ref().map_or(String::new(), |text| format!(": \"{text}\""));
    format!("{name}{text}, {at} ({} ago)", ago(*at))
}
