//! The metrics of MetalLB's controller and speaker, read from the same snapshot as crier's own: served beside them where
//! `[api] metallb-metrics` asks for them. Floor 1. Names, kinds and labels are MetalLB's, whatever Prometheus recommends.

use super::{Metric, Series, count, counter, gauge};
use crate::address::{AddressRange, Family};
use crate::arp::counters::Report;
use crate::bfd::counters::PeerReport;
use crate::bfd_state::BfdState;
use crate::config::Pool;
use crate::names::PeerName;
use crate::plan::allocate::capacity;
use crate::plan::slice::PeerSlice;
use crate::views::{LinkFrames, Snapshot};
use crate::world::{BfdReport, ClusterConfig, Direction, MessageCounts, SessionReport, SessionState};

/// A metric of MetalLB's, and the metrics of crier that tell the same.
pub(super) struct Theirs {
    pub metric: Metric,
    pub ours: &'static [&'static str],
}

const fn theirs(metric: Metric, ours: &'static [&'static str]) -> Theirs {
    Theirs { metric, ours }
}

const POOL: &[&str] = &["pool"];
const LINK: &[&str] = &["interface", "protocol"];
const PEER: &[&str] = &["peer", "vrf"];

pub(super) const METRICS: [Theirs; 31] = [
    theirs(
        gauge("metallb_allocator_addresses_total", POOL, "Addresses of the pool.", |snapshot, series| {
            pools(snapshot, series, capacity);
        }),
        &["crier_pool_addresses"],
    ),
    theirs(
        gauge("metallb_allocator_ipv4_addresses_total", POOL, "IPv4 addresses of the pool.", |snapshot, series| {
            pools(snapshot, series, |pool| capacity(&of_family(pool, Family::V4)));
        }),
        &["crier_pool_addresses"],
    ),
    theirs(
        gauge("metallb_allocator_ipv6_addresses_total", POOL, "IPv6 addresses of the pool.", |snapshot, series| {
            pools(snapshot, series, |pool| capacity(&of_family(pool, Family::V6)));
        }),
        &["crier_pool_addresses"],
    ),
    theirs(
        gauge("metallb_allocator_addresses_in_use_total", POOL, "Addresses in use.", |snapshot, series| {
            pools(snapshot, series, |pool| count(snapshot.held_in(pool)));
        }),
        &["crier_pool_addresses_held"],
    ),
    theirs(
        gauge("metallb_allocator_ipv4_addresses_in_use_total", POOL, "IPv4 addresses in use.", |snapshot, series| {
            pools(snapshot, series, |pool| count(snapshot.held_in(&of_family(pool, Family::V4))));
        }),
        &["crier_pool_addresses_held"],
    ),
    theirs(
        gauge("metallb_allocator_ipv6_addresses_in_use_total", POOL, "IPv6 addresses in use.", |snapshot, series| {
            pools(snapshot, series, |pool| count(snapshot.held_in(&of_family(pool, Family::V6))));
        }),
        &["crier_pool_addresses_held"],
    ),
    theirs(
        // An agent that runs has a configuration.
        gauge("metallb_k8s_client_config_loaded_bool", &[], "1 once a configuration is loaded.", |_, series| {
            series.only(1);
        }),
        &[],
    ),
    theirs(
        gauge(
            "metallb_k8s_client_config_stale_bool",
            &[],
            "1 while the newest configuration is refused and an older one runs.",
            |snapshot, series| {
                let failed = snapshot.reloads.last.as_ref().is_some_and(|last| last.failure.is_some());
                let older = matches!(
                    snapshot.world.cluster_config,
                    ClusterConfig::Refused { .. } | ClusterConfig::Waiting { .. }
                );
                series.only(u64::from(failed || older));
            },
        ),
        &["crier_config_last_reload_successful"],
    ),
    theirs(
        gauge(
            "metallb_speaker_announced",
            &["ip", "node", "protocol", "service"],
            "1 for each address that this node announces, by the protocol.",
            announced,
        ),
        &["crier_l2_addresses", "crier_bgp_prefixes_sent"],
    ),
    theirs(
        // MetalLB counts only requests for addresses of its own: each of these is answered.
        counter(
            "metallb_layer2_requests_received",
            LINK,
            "Requests for addresses of this node.",
            |snapshot, series| {
                frames(snapshot, series, |counts| counts.answers);
            },
        ),
        &["crier_l2_requests_total", "crier_l2_ignored_total"],
    ),
    theirs(
        counter("metallb_layer2_responses_sent", LINK, "Answers sent.", |snapshot, series| {
            frames(snapshot, series, |counts| counts.answers);
        }),
        &["crier_l2_answers_total"],
    ),
    theirs(
        counter("metallb_layer2_gratuitous_sent", LINK, "Gratuitous announcements sent.", |snapshot, series| {
            frames(snapshot, series, |counts| counts.gratuitous);
        }),
        &["crier_l2_gratuitous_total"],
    ),
    theirs(
        gauge("metallb_bgp_session_up", PEER, "1 while the session is Established.", |snapshot, series| {
            sessions(snapshot, series, |session| u64::from(session.state == SessionState::Established));
        }),
        &["crier_bgp_session_up"],
    ),
    theirs(
        gauge("metallb_bgp_announced_prefixes_total", PEER, "Prefixes announced.", |snapshot, series| {
            sessions(snapshot, series, |session| count(session.prefixes_sent));
        }),
        &["crier_bgp_prefixes_sent"],
    ),
    theirs(
        gauge("metallb_bgp_pending_prefixes_total", PEER, "Prefixes still to be announced.", |snapshot, series| {
            sessions(snapshot, series, |session| count(session.detail.prefixes_pending));
        }),
        &["crier_bgp_prefixes_pending"],
    ),
    theirs(
        gauge("metallb_bgp_received_prefixes_total", PEER, "Prefixes received and dropped.", |snapshot, series| {
            sessions(snapshot, series, |session| session.prefixes_received);
        }),
        &["crier_bgp_prefixes_received_total"],
    ),
    theirs(
        counter("metallb_bgp_updates_total", PEER, "UPDATEs sent.", |snapshot, series| {
            messages(snapshot, series, |sent, _| sent.update);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_updates_total_received", PEER, "UPDATEs received.", |snapshot, series| {
            messages(snapshot, series, |_, received| received.update);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_opens_sent", PEER, "OPENs sent.", |snapshot, series| {
            messages(snapshot, series, |sent, _| sent.open);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_opens_received", PEER, "OPENs received.", |snapshot, series| {
            messages(snapshot, series, |_, received| received.open);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_keepalives_sent", PEER, "KEEPALIVEs sent.", |snapshot, series| {
            messages(snapshot, series, |sent, _| sent.keepalive);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_keepalives_received", PEER, "KEEPALIVEs received.", |snapshot, series| {
            messages(snapshot, series, |_, received| received.keepalive);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_route_refresh_sent", PEER, "ROUTE-REFRESHes sent.", |snapshot, series| {
            messages(snapshot, series, |sent, _| sent.route_refresh);
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_total_sent", PEER, "BGP messages sent.", |snapshot, series| {
            messages(snapshot, series, |sent, _| sent.total());
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_total_received", PEER, "BGP messages received.", |snapshot, series| {
            messages(snapshot, series, |_, received| received.total());
        }),
        &["crier_bgp_messages_total"],
    ),
    theirs(
        counter("metallb_bgp_notifications_sent", PEER, "NOTIFICATIONs sent.", |snapshot, series| {
            sessions(snapshot, series, |session| {
                let sent = session.detail.notifications.iter().filter(|it| it.direction == Direction::Sent);
                sent.map(|it| it.count).sum()
            });
        }),
        &["crier_bgp_notifications_total"],
    ),
    theirs(
        gauge("metallb_bfd_session_up", PEER, "1 while the BFD session is Up.", |snapshot, series| {
            bfd(snapshot, series, |report| u64::from(report.state == BfdState::Up));
        }),
        &["crier_bfd_session_up"],
    ),
    theirs(
        counter("metallb_bfd_session_up_events", PEER, "BFD sessions that came up.", |snapshot, series| {
            bfd(snapshot, series, |report| report.times_up);
        }),
        &["crier_bfd_session_up_total"],
    ),
    theirs(
        counter("metallb_bfd_session_down_events", PEER, "BFD sessions that were lost.", |snapshot, series| {
            bfd(snapshot, series, |report| report.losses);
        }),
        &["crier_bfd_session_lost_total"],
    ),
    theirs(
        counter(
            "metallb_bfd_control_packet_input",
            PEER,
            "BFD packets of the peer that were taken.",
            |snapshot, series| {
                bfd_packets(snapshot, series, |counts| counts.received);
            },
        ),
        &["crier_bfd_packets_total"],
    ),
    theirs(
        counter("metallb_bfd_control_packet_output", PEER, "BFD packets sent to the peer.", |snapshot, series| {
            bfd_packets(snapshot, series, |counts| counts.sent);
        }),
        &["crier_bfd_packets_total"],
    ),
];

fn pools(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&Pool) -> u64) {
    for pool in &snapshot.config.pools {
        series.set([pool.name.as_str()], read(pool));
    }
}

/// The part of a pool that is of one family.
fn of_family(pool: &Pool, family: Family) -> Pool {
    let of_family = |ranges: &[AddressRange]| ranges.iter().copied().filter(|it| it.family() == family).collect();
    Pool { addresses: of_family(&pool.addresses), exclude: of_family(&pool.exclude), ..pool.clone() }
}

fn announced(snapshot: &Snapshot, series: &mut Series) {
    for (service, decision) in &snapshot.plan.decisions {
        for it in &decision.announcements {
            let by_protocol = [("layer2", it.l2.announced), ("bgp", !it.bgp.peers.is_empty())];
            for (protocol, _) in by_protocol.into_iter().filter(|(_, announced)| *announced) {
                let (address, service) = (it.address.to_string(), service.to_string());
                series.set([&address, snapshot.node.as_str(), protocol, &service], 1);
            }
        }
    }
}

fn frames(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&Report) -> u64) {
    for LinkFrames { link, protocol, counts } in &snapshot.counters.frames {
        series.add([link.as_str(), protocol.code()], read(counts));
    }
}

/// A number of each session, by the address and port of the peer; 0 where there is none.
fn sessions(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&SessionReport) -> u64) {
    of_peers(snapshot, series, |name| Some(snapshot.session(name).map_or(0, &read)));
}

/// A number of each BFD session; 0 where it has told nothing yet.
fn bfd(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&BfdReport) -> u64) {
    of_watched(snapshot, series, |name| snapshot.world.bfd.get(name).map_or(0, |report| read(report)));
}

fn bfd_packets(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&PeerReport) -> u64) {
    of_watched(snapshot, series, |name| snapshot.counters.bfd.peers.get(name).map_or(0, &read));
}

/// A number of each peer that BFD watches.
fn of_watched(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&PeerName) -> u64) {
    of_peers(snapshot, series, |name| snapshot.plan.bfd.peers.contains_key(name).then(|| read(name)));
}

/// A number of each peer that has one, by the peer's address and port.
fn of_peers(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&PeerName) -> Option<u64>) {
    for (name, PeerSlice { settings, address, routes: _, orders: _ }) in &snapshot.plan.bgp.peers {
        let Some(number) = read(name) else { continue };
        let peer = match address {
            Ok(address) if address.ip.is_ipv6() => format!("[{address}]:{}", settings.port),
            Ok(address) => format!("{address}:{}", settings.port),
            Err(_) => name.to_string(),
        };
        let vrf = settings.vrf.as_ref().map_or("default", |vrf| vrf.as_str());
        // Two peers of one address are told apart by nothing here: their numbers are added up.
        series.add([&peer, vrf], number);
    }
}

fn messages(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&MessageCounts, &MessageCounts) -> u64) {
    sessions(snapshot, series, |it| read(&it.detail.messages_sent, &it.detail.messages_received));
}
