//! What a running agent says of BFD: the JSON behind `crier bfd`, and what is wrong with it. Floor 1.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bgp::{PeersFilter, UnknownPeer};
use super::{SCHEMA_VERSION, Snapshot};
use crate::bfd_state::{BfdState, Diagnostic};
use crate::names::{InterfaceName, NodeName, PeerName};
use crate::plan::slice::BfdPeer;
use crate::reason::Reason;
use crate::world::{BfdLoss, BfdReport};

/// `crier bfd`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BfdSessionsReport {
    pub schema_version: u32,
    pub node: NodeName,
    pub sessions: Vec<BfdSessionReport>,
    /// Packets that were dropped since the start of the agent, by the code of the reason. Reasons without one are left out.
    pub discarded: BTreeMap<String, u64>,
}

/// One session. Counters run from the start of the agent; the rest is of the session that stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BfdSessionReport {
    pub peer: PeerName,
    pub address: String,
    /// The link or the VRF that the session is bound to; `None` in the main routing table.
    pub interface: Option<InterfaceName>,
    pub state: BfdState,
    pub since: Option<Timestamp>,
    /// How long the peer may be silent; `None` while it is not heard. Rounded up, as the intervals are.
    pub detection_time_millis: Option<u64>,
    /// Between two packets of ours at most; `None` while none are sent periodically.
    pub transmit_interval_millis: Option<u64>,
    /// Between two packets of the peer at most.
    pub receive_interval_millis: Option<u64>,
    /// Why this end last left Up, or last failed to get there.
    pub last_diagnostic: Diagnostic,
    /// The same of the peer's end.
    pub remote_diagnostic: Diagnostic,
    /// `None` while the peer is not heard.
    pub remote_state: Option<BfdState>,
    pub remote_multiplier: Option<u8>,
    pub profile: String,
    pub multihop: bool,
    pub authenticated: bool,
    /// BGP waits for this session: `bfd-strict`.
    pub strict: bool,
    pub local_address: Option<IpAddr>,
    pub local_discriminator: Option<u32>,
    pub remote_discriminator: Option<u32>,
    /// The peer asks for Demand mode.
    pub remote_demand: bool,
    pub times_up: u64,
    /// How often the session was Up and packets did not pass any more.
    pub losses: u64,
    pub last_loss: Option<BfdLoss>,
    pub packets_sent: u64,
    pub packets_unsent: u64,
    pub packets_received: u64,
    /// Why the session cannot send or receive, or what else of the peer's BFD does not fit.
    pub problem: Option<String>,
}

/// Why there is no BFD session of the name that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NoBfdSession {
    #[error(transparent)]
    UnknownPeer(#[from] UnknownPeer),
    #[error("peer \"{0}\" has no BFD session: bfd is not set in its [[bgp.peer]]")]
    NotSet(PeerName),
    #[error("peer \"{peer}\" has no BFD session: {why}")]
    Nowhere { peer: PeerName, why: Reason },
}

fn without_session(snapshot: &Snapshot, name: &PeerName) -> NoBfdSession {
    let peers = &snapshot.plan.bgp.peers;
    match peers.get(name).map(|peer| &peer.address) {
        None => UnknownPeer { name: name.clone(), known: peers.keys().cloned().collect() }.into(),
        Some(Ok(_)) => NoBfdSession::NotSet(name.clone()),
        Some(Err(why)) => NoBfdSession::Nowhere { peer: name.clone(), why: why.clone() },
    }
}

/// The view of `crier bfd`.
///
/// # Errors
/// If no peer that is watched by BFD has the name.
pub fn sessions(snapshot: &Snapshot, filter: &PeersFilter) -> Result<BfdSessionsReport, NoBfdSession> {
    let peers = &snapshot.plan.bfd.peers;
    let wanted = |name: &PeerName| filter.peer.as_ref().is_none_or(|wanted| wanted == name);
    let sessions: Vec<BfdSessionReport> =
        peers.iter().filter(|(name, _)| wanted(name)).map(|(name, peer)| of_peer(snapshot, name, peer)).collect();
    match &filter.peer {
        Some(name) if sessions.is_empty() => {
            return Err(without_session(snapshot, name));
        }
        Some(_) | None => {}
    }
    let discarded = snapshot.counters.bfd.discarded.iter().filter(|(_, count)| *count > 0);
    Ok(BfdSessionsReport {
        schema_version: SCHEMA_VERSION,
        node: snapshot.node.clone(),
        sessions,
        discarded: discarded.map(|(discard, count)| (discard.code().to_owned(), *count)).collect(),
    })
}

fn of_peer(snapshot: &Snapshot, name: &PeerName, peer: &BfdPeer) -> BfdSessionReport {
    let report = snapshot.world.bfd.get(name).map(AsRef::as_ref);
    let BfdPeer { profile, address, source: _, from: _, is_of_session: _, vrf, multihop } = peer;
    let counted = snapshot.counters.bfd.peers.get(name).copied().unwrap_or_default();
    let millis = |micros: u64| micros.div_ceil(1000);
    let of = |read: fn(&BfdReport) -> Option<u64>| report.and_then(read).map(millis);
    BfdSessionReport {
        peer: name.clone(),
        address: address.to_string(),
        interface: address.interface.clone().or_else(|| vrf.clone()),
        state: report.map_or(BfdState::Down, |report| report.state),
        since: report.and_then(|report| Timestamp::try_from(report.since).ok()),
        detection_time_millis: of(|report| report.detection_time_micros),
        transmit_interval_millis: of(|report| report.transmit_interval_micros),
        receive_interval_millis: of(|report| report.receive_interval_micros),
        last_diagnostic: report.map_or(Diagnostic::None, |report| report.diagnostic),
        remote_diagnostic: report.map_or(Diagnostic::None, |report| report.remote_diagnostic),
        remote_state: report.and_then(|report| report.remote_state),
        remote_multiplier: report.and_then(|report| report.remote_multiplier),
        profile: profile.name.clone(),
        multihop: *multihop,
        authenticated: profile.key.is_some(),
        strict: snapshot.plan.bgp.peers.get(name).is_some_and(|peer| peer.settings.bfd_strict),
        local_address: report.and_then(|report| report.local_address),
        local_discriminator: report.map(|report| report.discriminator),
        remote_discriminator: report.and_then(|report| report.remote_discriminator),
        remote_demand: report.is_some_and(|report| report.remote_demand),
        times_up: report.map_or(0, |report| report.times_up),
        losses: report.map_or(0, |report| report.losses),
        last_loss: report.and_then(|report| report.last_loss.clone()),
        packets_sent: counted.sent,
        packets_unsent: counted.unsent,
        packets_received: counted.received,
        problem: report.and_then(|report| report.problem.clone()),
    }
}

/// What an operator should look at. A peer whose BFD was never heard is no failure of the path, but BFD does nothing for it.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let of_peer = |(name, peer): (&PeerName, &BfdPeer)| {
        let report = snapshot.world.bfd.get(name)?;
        let address = &peer.address;
        let what = match (&report.problem, report.state, report.remote_state) {
            (Some(problem), ..) => problem.clone(),
            (None, BfdState::Up, _) => return None,
            (None, _, None) if report.held_by_peer => {
                "the peer's operator has held the session down, and says nothing any more".to_owned()
            }
            (None, _, None) => {
                let port = if peer.multihop { 4784 } else { 3784 };
                format!("nothing is heard from the peer; is BFD configured there, and does UDP port {port} pass?")
            }
            (None, _, Some(BfdState::AdminDown)) => "the peer's operator holds the session down".to_owned(),
            (None, state, Some(_)) => format!("the session is {state}: {}", report.diagnostic),
        };
        Some(format!("BFD of peer {name} ({address}): {what}"))
    };
    snapshot.plan.bfd.peers.iter().filter_map(of_peer).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::views::Counters;
    use crate::world::Fact;

    #[test]
    fn a_peer_without_bfd_is_told_from_one_that_is_not_there() {
        let text = "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n\
                    [[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        planner.apply(Fact::LinksListed);
        planner.apply(Fact::FailStatic);
        planner.turn(clock::now());
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
        let told = |name: &str| sessions(&snapshot, &PeersFilter { peer: Some(name.into()) }).unwrap_err().to_string();
        assert_eq!(told("tor"), "peer \"tor\" has no BFD session: bfd is not set in its [[bgp.peer]]");
        assert_eq!(told("rot"), "there is no peer \"rot\" on this node; there are: tor");
    }
}
