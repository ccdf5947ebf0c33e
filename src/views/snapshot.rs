//! The agent at one moment: everything that a view is made of. Floor 1.
//!
//! The loop makes one for each question. Its parts share their structure with the loop's own, so making one costs
//! microseconds and holding one delays nobody, whatever the number of Services. It never changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use imbl::OrdMap;
use jiff::Timestamp;

use super::counters::Direction;
use super::drain::Flows;
use super::reload::Reloads;
use crate::arp::packet::Protocol;
use crate::bfd_state::BfdState;
use crate::claim::ConflictKind;
use crate::config::{Config, Pool};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName};
use crate::plan::context::Context;
use crate::plan::{Plan, Planner, Presumed};
use crate::world::{SessionReport, SessionState, World};
use crate::{arp, bfd, egress, pulse};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// This node.
    pub node: NodeName,
    /// When the agent started.
    pub started: Timestamp,
    /// When the snapshot was taken, by the clock that the Plan's times are of.
    pub now: Instant,
    /// The same moment by the clock on the wall.
    pub wall: SystemTime,
    /// What everything goes by: the pools have whole addresses.
    pub config: Arc<Config>,
    /// The configuration as it was written, which other files and those of other agents are compared with.
    pub written: Arc<Config>,
    /// What this agent knows and the World does not tell: for a forecast.
    pub presumed: Presumed,
    pub world: World,
    pub plan: Plan,
    /// What the decisions of the Plan stand on.
    pub context: Arc<Context>,
    /// The addresses that Services hold or claim, and who does.
    pub claims: OrdMap<IpAddr, Arc<[ObjectKey]>>,
    pub counters: Counters,
    /// How reloads of the configuration went.
    pub reloads: Reloads,
    /// What a drain has counted.
    pub flows: Flows,
    /// Of when the last known state was that this agent did not start with, because it was too old (`[state] max-age`).
    pub outdated: Option<Timestamp>,
}

/// What was counted since the agent started. Counters only ever grow.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Changes of an address's owner, by direction and by the code of the cause.
    pub moves: OrdMap<(Direction, String), u64>,
    /// Conflicts that began, not the frames of them.
    pub conflicts: OrdMap<(InterfaceName, ConflictKind), u64>,
    /// Of every link that this node ever answered on, ARP and NDP apart.
    pub frames: Vec<LinkFrames>,
    /// Of every link that this node ever pulsed on.
    pub pulses: Vec<LinkPulses>,
    pub bfd: bfd::counters::Report,
    /// Requests to the API server, of all kinds.
    pub api_requests: u64,
    /// Of every pod that is held to a Service's address.
    pub egress: BTreeMap<IpAddr, egress::counters::Counts>,
    /// What the kernel holds of that; `None` where it is not known to hold the table.
    pub egress_table: Option<Arc<egress::ruleset::Content>>,
    /// The chains of other programs that translate sources before that does.
    pub egress_earlier: Arc<Vec<String>>,
    /// Those that may mark packets anew behind crier.
    pub egress_later_marks: Arc<Vec<String>>,
    /// What was held back of new pods.
    pub egress_new_pods: egress::counters::NewPods,
    /// Another program may remove that, and nothing holds packets back meanwhile.
    pub egress_removable: bool,
}

/// The frames of one protocol on one link.
#[derive(Debug, Clone)]
pub struct LinkFrames {
    pub link: InterfaceName,
    pub protocol: Protocol,
    pub counts: arp::counters::Report,
}

/// The pulses on one link.
#[derive(Debug, Clone)]
pub struct LinkPulses {
    pub link: InterfaceName,
    pub counts: pulse::counters::Report,
}

impl Snapshot {
    /// The agent of `planner` as it stands. `now` and `wall` are the same moment.
    pub fn of(planner: &Planner, started: Timestamp, counters: Counters, now: Instant, wall: SystemTime) -> Snapshot {
        Snapshot {
            node: planner.node().clone(),
            started,
            now,
            wall,
            config: planner.config().clone(),
            written: planner.written().clone(),
            presumed: planner.presumed(),
            world: planner.world().clone(),
            plan: planner.plan().clone(),
            context: planner.context().clone(),
            claims: planner.book().claims().clone(),
            counters,
            reloads: Reloads::default(),
            flows: Flows::default(),
            outdated: None,
        }
    }

    /// What the session with a peer last told; nothing while nobody knows where the peer is, for then what it told is past.
    pub fn session(&self, peer: &PeerName) -> Option<&SessionReport> {
        let known = self.plan.bgp.peers.get(peer).is_some_and(|peer| peer.address.is_ok());
        self.world.sessions.get(peer).filter(|_| known)
    }

    /// The `[[bgp.peer]]` of this node with a session that is established.
    pub fn established(&self) -> BTreeSet<PeerName> {
        let stands = |name: &&PeerName| self.session(name).is_some_and(|it| it.state == SessionState::Established);
        self.plan.bgp.peers.keys().filter(stands).map(|name| self.context.bgp.peer_of(name)).collect()
    }

    /// How the BFD session with a peer stands; nothing where BFD does not watch the peer.
    pub fn bfd(&self, peer: &PeerName) -> Option<BfdState> {
        let watched = self.plan.bfd.peers.contains_key(peer);
        watched.then(|| self.world.bfd.get(peer).map_or(BfdState::Down, |report| report.state))
    }

    /// How many addresses of a pool Services hold.
    pub fn held_in(&self, pool: &Pool) -> usize {
        pool.addresses.iter().map(|range| self.claims.range(range.first()..=range.last()).count()).sum()
    }

    /// When a moment of the Plan was, or will be, by the clock on the wall as it is now.
    pub fn timestamp(&self, at: Instant) -> Option<Timestamp> {
        let at = match at.checked_duration_since(self.now) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.now.saturating_duration_since(at)),
        };
        at.and_then(|at| Timestamp::try_from(at).ok())
    }
}
