//! How far a drain of this node has come: part of `crier status`, and metrics. Floor 1.

mod over_bgp;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::config::Config;
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::ranking::egress_nodes;
use crate::plan::slice::PeerSlice;
use crate::plan::{elect, following};
use crate::roster::{Eligibility, Member};
use crate::selector::Selector;
use crate::world::{Area, Drain, DrainStage, Node, Pulses, SessionState};

/// What was counted of the flows of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Open when they were first counted; `None` until then, and where they cannot be counted.
    pub first: Option<usize>,
    /// Of these, still open.
    pub left: Option<usize>,
    /// Of these, the ones through which nothing comes since routers may have moved them to other nodes.
    pub silent: Option<usize>,
    /// Why they cannot be counted.
    pub trouble: Option<String>,
}

/// A peer with a session that has not taken what it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untaken {
    pub peer: PeerName,
    /// How many are still to be announced, announced again or withdrawn; 0 where the last of them wait in this host.
    pub routes: usize,
}

impl fmt::Display for Untaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Untaken { peer, routes } = self;
        match routes {
            0 => write!(f, "peer {peer} has not taken the last of its routes"),
            1 => write!(f, "peer {peer} has not taken 1 of its routes"),
            routes => write!(f, "peer {peer} has not taken {routes} of its routes"),
        }
    }
}

/// The peers with a session that do not have yet what they should have, as far as this host knows.
pub fn untaken(snapshot: &Snapshot) -> Vec<Untaken> {
    let of_peer = |(name, slice): (&PeerName, &PeerSlice)| {
        let session = snapshot.session(name).filter(|it| it.state == SessionState::Established)?;
        // A session that has not heard of the plan yet has nothing pending.
        let too_many = session.prefixes_sent.saturating_sub(slice.routes.len());
        let routes = session.detail.prefixes_pending.max(too_many);
        (routes > 0 || session.detail.routes_untaken).then(|| Untaken { peer: name.clone(), routes })
    };
    snapshot.plan.bgp.peers.iter().filter_map(of_peer).collect()
}

/// The peers whose hosts have acknowledged all that they were sent, and that have said nothing since. Every peer is that for a moment.
fn unheard(snapshot: &Snapshot) -> Vec<PeerName> {
    let is_unheard = |name: &&PeerName| {
        snapshot.session(name).is_some_and(|it| it.state == SessionState::Established && it.detail.routes_unheard)
    };
    snapshot.plan.bgp.peers.keys().filter(is_unheard).cloned().collect()
}

/// Some of them may take it yet: one that takes nothing of what waits for it is not waited for at the cost of the others.
pub fn is_awaited(snapshot: &Snapshot, untaken: &[Untaken]) -> bool {
    let reads = |it: &Untaken| snapshot.session(&it.peer).is_some_and(|it| it.detail.reads_nothing_since.is_none());
    untaken.iter().any(reads)
}

/// The drain of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    pub stage: DrainStage,
    pub reason: Option<String>,
    pub since: Timestamp,
    /// Flows are waited for until then.
    pub until: Timestamp,
    /// Flows to the announced addresses that were open when the drain began; `None` where they cannot be counted.
    pub flows: Option<usize>,
    pub flows_left: Option<usize>,
    /// Of these, the ones through which nothing comes any more, to addresses that routers alone bring here: they have moved to other nodes
    /// with the routes, or are idle.
    #[serde(default)]
    pub flows_silent: Option<usize>,
    /// Addresses that this node still answers for on the link.
    pub addresses_left: usize,
    /// Flows were left when the time was over.
    pub timed_out: bool,
    /// The Node or the host asked for it (`[drain]`), and takes it back.
    #[serde(default)]
    pub follows: bool,
    /// Why the flows cannot be counted: then the whole time is waited.
    pub trouble: Option<String>,
    /// Why the drain goes no further: no other node serves, or takes the addresses that are left.
    #[serde(default)]
    pub stands_still: Option<String>,
    /// The peers that have not taken what the drain sends them: the community, and then the withdrawals.
    #[serde(default)]
    pub untaken: Vec<Untaken>,
    /// The peers whose hosts have acknowledged it, while they themselves have said nothing since: a router that is stuck is among them.
    #[serde(default)]
    pub unheard: Vec<PeerName>,
}

impl DrainReport {
    /// What is said beside the number of flows that are left; empty where none has fallen silent.
    pub fn of_silent(&self) -> String {
        match self.flows_silent {
            None | Some(0) => String::new(),
            Some(silent) => format!(", {silent} of them silent since the routes stepped back"),
        }
    }

    /// What is not known of the peers' uptake, for whoever watches; nothing while flows are waited for.
    pub fn of_uptake(&self) -> Vec<String> {
        if self.stage == DrainStage::Waiting {
            return Vec::new();
        }
        let unheard = self.unheard.iter().map(|peer| format!("peer {peer}: acknowledged by TCP, not heard since"));
        self.untaken.iter().map(ToString::to_string).chain(unheard).collect()
    }
}

/// The view; `None` where this node is not drained.
pub fn drain(snapshot: &Snapshot) -> Option<DrainReport> {
    let Drain { stage, ordered, since, until, timed_out } = &**snapshot.world.drain.as_ref()?;
    let Flows { first, left, silent, trouble } = snapshot.flows.clone();
    Some(DrainReport {
        stage: *stage,
        reason: ordered.reason(),
        since: *since,
        until: *until,
        flows: first,
        flows_left: left,
        flows_silent: silent,
        addresses_left: snapshot.plan.l2.addresses.len(),
        timed_out: *timed_out,
        follows: ordered.follows(),
        trouble,
        stands_still: snapshot.world.problems_of(Area::Drain).first().map(|it| it.problem.clone()),
        untaken: untaken(snapshot),
        unheard: unheard(snapshot),
    })
}

/// How a shutdown of this host waits for this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownReport {
    /// One has begun.
    pub begun: bool,
    /// How long one waits for the drain at most: logind's InhibitDelayMaxSec.
    pub waits_secs: u64,
    /// That is too short for `[drain] timeout`.
    pub hurried: bool,
}

/// The view; `None` where shutdowns are not followed, or nothing is known of them yet.
pub fn shutdown(snapshot: &Snapshot) -> Option<ShutdownReport> {
    let known = &snapshot.world.shutdown;
    let begun = known.begun.filter(|_| known.problem.is_none())?;
    let hurried = following::is_hurried(&snapshot.config, known);
    Some(ShutdownReport { begun, waits_secs: known.granted.as_secs(), hurried })
}

/// Why no other node would serve what this one announces; `None` where one is known that would.
pub fn nobody_else(snapshot: &Snapshot) -> Option<String> {
    no_node(snapshot).or_else(|| alone_selected(snapshot)).or_else(|| over_bgp::nobody(snapshot))
}

/// `crier.dev/egress-nodes` of some Service selects this node, and no other that may announce.
fn alone_selected(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { node: me, config, world, .. } = snapshot;
    // Nodes of another crier take nothing that this node announces.
    let lease = config.lease_digest();
    let takes = |member: &Member| {
        member.eligibility == Eligibility::Eligible
            && (config.l2.is_empty() || !member.card.weights.is_empty())
            && !member.card.is_of_other_crier(lease)
    };
    let heard = world.rosters.values().flat_map(|roster| &roster.members).filter(|(_, member)| takes(member));
    let able: BTreeSet<&NodeName> = match world.pulses {
        Pulses::On { .. } => heard.map(|(name, _)| name).filter(|name| *name != me).collect(),
        Pulses::Off => {
            let nodes = world.nodes.iter();
            let ready = nodes.filter(|(name, node)| *name != me && node.ready && elect::exclusion(node).is_none());
            ready.map(|(name, _)| name).collect()
        }
    };
    let selects =
        |selector: &Selector, name: &NodeName| world.nodes.get(name).is_some_and(|node| selector.matches(&node.labels));
    let alone = |service: &ObjectKey| {
        let selector = egress_nodes(world.services.get(service)?)?;
        let alone = selects(selector, me) && !able.iter().any(|name| selects(selector, name));
        alone.then_some(selector)
    };
    snapshot.plan.decisions.iter().filter(|(_, decision)| decision.egress.is_some()).find_map(|(service, _)| {
        let selector = alone(service)?;
        Some(format!(
            "outbound connections of the pods of {service} leave by this node alone: no other node that may announce is selected by \
             crier.dev/egress-nodes \"{selector}\""
        ))
    })
}

fn no_node(snapshot: &Snapshot) -> Option<String> {
    let (config, world): (&Config, _) = (&snapshot.config, &snapshot.world);
    // Nodes of another crier take nothing that this node announces.
    let lease = config.lease_digest();
    let members = || world.rosters.values().flat_map(|roster| roster.members.values());
    let heard = || members().filter(|member| !member.card.is_of_other_crier(lease));
    if !config.l2.is_empty() {
        if world.pulses == Pulses::Off {
            let stands_by = |node: &Node| config.l2.iter().any(|l2| elect::weight(l2, &node.labels).is_some());
            return match others(snapshot).any(|(_, node)| stands_by(node)) {
                true => elected_for_egress(snapshot),
                false => Some("no other Node that may answer on the link is Ready and stays".to_owned()),
            };
        }
        let takes =
            heard().any(|member| member.eligibility == Eligibility::Eligible && !member.card.weights.is_empty());
        return (!takes).then(|| "no other node on the links may take an address".to_owned());
    }
    let ready = others(snapshot).count() > 0;
    let serves = heard().any(|member| member.eligibility == Eligibility::Eligible);
    match (world.pulses == Pulses::Off, ready, serves) {
        (true, true, _) => elected_for_egress(snapshot),
        (false, _, true) => None,
        (true, false, _) => Some("no other Node is Ready and stays".to_owned()),
        (false, _, false) => Some("no other node is heard that may announce".to_owned()),
    }
}

/// The other Nodes that are Ready, and stay as far as the API server tells.
fn others(snapshot: &Snapshot) -> impl Iterator<Item = (&NodeName, &Arc<Node>)> {
    let able = snapshot.world.nodes.iter();
    let able = able.filter(|(name, node)| **name != snapshot.node && node.ready && elect::exclusion(node).is_none());
    // They leave too, or will: their agents follow the same marks.
    able.filter(|(_, node)| node.marks.drain.is_none() && following::why_out(&snapshot.config, node).is_none())
}

/// How long an address on the link is left to the nodes that stand by where no pulse tells them; `None` where pulses do, or nothing is answered.
/// What one waits that finds nobody answering: `doc/layer2.md`.
pub fn found_within(snapshot: &Snapshot) -> Option<Duration> {
    let is_unheard = snapshot.world.pulses == Pulses::Off && !snapshot.config.l2.is_empty();
    is_unheard.then_some(FOUND_WITHIN)
}

const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// Of an address with which outbound connections of pods leave, one node is elected; without pulses no other node learns that it is to be that.
fn elected_for_egress(snapshot: &Snapshot) -> Option<String> {
    let owned = snapshot.plan.decisions.iter().find_map(|(service, decision)| {
        let mut owners = decision.egress.iter().flat_map(|egress| &egress.owners);
        let owner = owners.find(|it| it.owner.as_ref() == Some(&snapshot.node))?;
        Some((service, owner.address))
    });
    owned.map(|(service, address)| {
        format!(
            "no pulses are sent, so no other node learns that it is to announce {address} of {service}, with which its pods send \
             (crier.dev/egress)"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::roster::{Card, L2Number, Roster};
    use crate::selector::Labels;
    use crate::world::{
        ApiServer, Egress, EgressBounds, EndpointSlice, Fact, Link, Node, NodeCounts, Ordered, Request, Service,
        SessionDetail, SessionReport, TrafficPolicy,
    };

    const L2: &str = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n\
                      [[l2]]\n";

    fn node(labels: &[(&str, &str)]) -> Node {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Node { labels: Labels(labels), ready: true, ..Node::default() }
    }

    fn member(eligibility: Eligibility) -> Member {
        let card = Card { weights: [(L2Number(1), 0)].into(), ..Card::default() };
        Member { eligibility, card: Arc::new(card), ..Member::eligible("02:00:00:00:00:02".parse().unwrap()) }
    }

    #[test]
    fn who_took_what_it_was_sent_by_its_host_alone_is_told_once_nothing_is_waited_for() {
        let text =
            format!("{L2}[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n");
        let file = SourceFile { path: "crier.toml".to_owned(), text };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        for fact in [Fact::ApiServer(ApiServer::Manifests), Fact::LinksListed, Fact::FailStatic] {
            planner.apply(fact);
        }
        let mut told = |stage: DrainStage, routes_unheard: bool| {
            let detail = Box::new(SessionDetail { routes_unheard, ..SessionDetail::default() });
            let session = SessionReport::new(SessionState::Established, std::time::SystemTime::UNIX_EPOCH);
            let now = Timestamp::UNIX_EPOCH;
            let of_node = Drain {
                stage,
                ordered: Ordered::Operator { reason: None, forced: true },
                since: now,
                until: now,
                timed_out: false,
            };
            planner.apply(Fact::Session("tor".into(), SessionReport { detail, ..session }));
            planner.apply(Fact::Drain(Some(Arc::new(of_node))));
            planner.turn(clock::now());
            let counters = crate::views::Counters::default();
            let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall());
            drain(&snapshot).map(|report| report.of_uptake()).unwrap_or_default()
        };
        let line = "peer tor: acknowledged by TCP, not heard since";
        assert_eq!(told(DrainStage::Withdrawing, true), [line]);
        assert_eq!(told(DrainStage::Drained, true), [line]);
        assert_eq!((told(DrainStage::Drained, false), told(DrainStage::Waiting, true)), (Vec::new(), Vec::new()));
    }

    /// Why node-1 is not drained, whose Service selects `nodes`; beside it is node-2, which says this of itself.
    fn why(egress: Egress, nodes: Option<&str>, labels: &[(&str, &str)], other: Eligibility) -> Option<String> {
        why_with(Some(egress), nodes, labels, &[Fact::Pulses(Pulses::On { authenticated: true }), heard(other)])
    }

    fn heard(other: Eligibility) -> Fact {
        let roster = Roster {
            settled: true,
            members: [("node-2".into(), member(other)), ("node-3".into(), member(Eligibility::Eligible))].into(),
            ..Roster::default()
        };
        Fact::Roster(2, Some(Arc::new(roster)))
    }

    /// Nothing more is known than these facts say.
    fn why_with(
        egress: Option<Egress>,
        nodes: Option<&str>,
        labels: &[(&str, &str)],
        facts: &[Fact],
    ) -> Option<String> {
        let file = SourceFile { path: "crier.toml".to_owned(), text: L2.to_owned() };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        let bounds = nodes.map(|nodes| EgressBounds { nodes: Some(nodes.parse().unwrap()), destinations: None });
        let web = ObjectKey::new("shop", "web");
        let service = Service {
            load_balancer: true,
            families: vec![crate::address::Family::V4],
            request: Ok(Request::default()),
            external_traffic_policy: TrafficPolicy::Cluster,
            egress,
            egress_bounds: bounds.map(Arc::new),
            ..Service::default()
        };
        let slice = EndpointSlice {
            service: web.clone(),
            family: None,
            ready: NodeCounts::from([("node-2".into(), 1)]),
            serving: NodeCounts::from([("node-2".into(), 1)]),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: vec!["10.244.1.2".parse().unwrap()].into(),
        };
        for fact in [
            Fact::ApiServer(ApiServer::Manifests),
            Fact::Node("node-1".into(), Some(Arc::new(node(&[("gate", "yes")])))),
            Fact::Node("node-2".into(), Some(Arc::new(node(labels)))),
            Fact::Node("node-3".into(), Some(Arc::new(node(&[])))),
            Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.168.35.11/24"]))),
            Fact::LinksListed,
            Fact::Service(web, Some(Arc::new(service))),
            Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(slice))),
            Fact::FailStatic,
        ] {
            planner.apply(fact);
        }
        facts.iter().cloned().for_each(|fact| planner.apply(fact));
        planner.turn(clock::now());
        let counters = crate::views::Counters::default();
        nobody_else(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall()))
    }

    #[test]
    fn without_pulses_ready_nodes_stand_by_but_for_what_pods_leave_with() {
        let away = |name: &str| Fact::Node(name.into(), Some(Arc::new(Node { ready: false, ..node(&[]) })));
        let of = |egress: Option<Egress>, facts: &[Fact]| why_with(egress, None, &[], facts);
        assert_eq!(of(None, &[]), None);
        assert_eq!(of(None, &[away("node-2")]), None, "node-3 stands by");
        let alone = of(None, &[away("node-2"), away("node-3")]).expect("nobody stands by");
        assert!(alone.contains("no other Node"), "{alone}");
        // One of the three is the owner, and the address stays with it while it is Ready.
        let (one, others) = (of(Some(Egress::ServiceAddress), &[]), [away("node-2"), away("node-3")]);
        let owner = of(Some(Egress::ServiceAddress), &others).expect("nobody else");
        assert!(owner.contains("no other Node"), "{owner}");
        assert!(one.is_none_or(|why| why.contains("shop/web, with which its pods send")));
    }

    #[test]
    fn the_only_node_that_egress_nodes_selects_is_not_drained_and_the_service_is_named() {
        const GATE: &[(&str, &str)] = &[("gate", "yes")];
        let (address, gate, eligible) = (Egress::ServiceAddress, Some("gate=yes"), Eligibility::Eligible);
        let refused = why(address, gate, &[], eligible).expect("node-1 alone has the label");
        assert!(refused.contains("shop/web") && refused.contains("crier.dev/egress-nodes \"gate=yes\""), "{refused}");
        assert_eq!(why(address, gate, GATE, eligible), None, "node-2 has it too");
        assert!(why(address, gate, GATE, Eligibility::Drained).is_some(), "it has it, and may not announce");
        assert_eq!(why(address, Some("gate=no"), &[], eligible), None, "node-1 is none of those");
        assert_eq!(why(address, None, &[], eligible), None, "any node will do");
        assert_eq!(why(Egress::Network, gate, &[], eligible), None, "pods of other nodes do not leave by this one");
    }
}
