//! Addresses that clients ask in vain although a pod could serve them: no node of the cluster may announce them. Floor 1.

use std::collections::BTreeSet;

use super::Snapshot;
use crate::address::Family;
use crate::config::{Advertisement, Peer};
use crate::names::{NodeName, ObjectKey, PoolName};
use crate::plan::decision::Announcement;
use crate::plan::elect;
use crate::plan::remnants::advertises;
use crate::plan::verdict::egress::is_away;
use crate::reason::Reason;
use crate::roster::Eligibility;
use crate::selector::Selector;
use crate::world::{Node, Service, TrafficPolicy};

/// One sentence for each of some such addresses.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let world = &snapshot.world;
    let listens = world.rosters.values().any(|roster| {
        !roster.settled || roster.members.values().any(|member| member.eligibility == Eligibility::Listening)
    });
    if listens {
        // It is too early to tell.
        return Vec::new();
    }
    let all = snapshot.plan.decisions.iter().filter_map(|(key, decision)| {
        let service = world.services.get(key)?;
        let served = |it: &&Announcement| !world.endpoints(key, Family::of(it.address)).is_empty();
        let (address, why) = decision.announcements.iter().filter(served).find_map(|it| {
            let why = why_nowhere(snapshot, (key, service), it)?;
            Some((it.address, why))
        })?;
        Some(format!("{key}: no node may announce {address}: {why}"))
    });
    all.take(MOST_NAMED).collect()
}

/// More of them have the same cause.
const MOST_NAMED: usize = 10;

/// Why no node announces the address; `None` where one may, or where nothing in the file is for its pool.
fn why_nowhere(
    snapshot: &Snapshot,
    (key, service): (&ObjectKey, &Service),
    announcement: &Announcement,
) -> Option<String> {
    let on_link = match &announcement.l2.reason {
        Reason::NoL2ForPool { .. } => None,
        reason @ (Reason::NoEligibleNode { .. } | Reason::NoNodeWithEndpoint) => Some(reason.to_string()),
        _ => return None,
    };
    let covers = |it: &&Advertisement| advertises(&snapshot.config, it, &announcement.pool, &service.labels);
    let covering: Vec<&Advertisement> = snapshot.config.bgp.advertisements.iter().filter(covers).collect();
    let over_bgp = match covering.is_empty() {
        true => None,
        false => Some(obstacle(snapshot, (key, service), announcement, &covering)?),
    };
    let why: Vec<String> = on_link.into_iter().chain(over_bgp).collect();
    match why.is_empty() {
        true => leaves_out(snapshot, &announcement.pool),
        false => Some(why.join("; ")),
    }
}

/// How far a route gets on its way from the file to a router; the last step that one gets to names what is in its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Advertised,
    NodeSelected,
    WithPeer,
    PeerOnNode,
    NodeAble,
    NodeServes,
    Announced,
}

/// What is in the way of every route by these advertisements; `None` where some node may announce the address to a peer.
fn obstacle<'a>(
    snapshot: &'a Snapshot,
    (key, service): (&ObjectKey, &Service),
    announcement: &Announcement,
    covering: &[&'a Advertisement],
) -> Option<String> {
    let (config, world) = (&snapshot.config, &snapshot.world);
    if world.nodes.is_empty() {
        return None;
    }
    let vrf = config.pools.iter().find(|pool| pool.name == announcement.pool).and_then(|pool| pool.vrf.as_ref());
    let with_peers = |it: &&'a Advertisement| -> (&'a Advertisement, Vec<&'a Peer>) {
        let is_within = |peer: &Peer| vrf.is_none_or(|vrf| peer.vrf.as_ref() == Some(vrf));
        let has = |peer: &&Peer| it.reaches(peer) && is_within(peer) && !peer.shutdown;
        (it, config.bgp.peers.iter().filter(has).collect())
    };
    let covering: Vec<(&Advertisement, Vec<&Peer>)> = covering.iter().map(with_peers).collect();
    let selects = |selector: &Option<Selector>, node: &Node| {
        selector.as_ref().is_none_or(|selector| selector.matches(&node.labels))
    };
    let endpoints = world.endpoints(key, Family::of(announcement.address));
    let is_able = |node: &Node| {
        elect::exclusion(node).is_none_or(|why| config.node.ignore_exclude_label && why == Reason::NodeExcluded)
    };
    let local = service.external_traffic_policy == TrafficPolicy::Local;
    let step = |(it, peers): &(&Advertisement, Vec<&Peer>), name: &NodeName, node: &Node| match () {
        () if !selects(&it.nodes, node) => Step::Advertised,
        () if peers.is_empty() => Step::NodeSelected,
        () if !peers.iter().any(|peer| selects(&peer.nodes, node)) => Step::WithPeer,
        () if !is_able(node) => Step::PeerOnNode,
        () if local && !endpoints.by_node.contains_key(name) => Step::NodeAble,
        () if is_away(world, &snapshot.node, name, node) => Step::NodeServes,
        () => Step::Announced,
    };
    let mut furthest = Step::Advertised;
    for (it, (name, node)) in covering.iter().flat_map(|it| world.nodes.iter().map(move |node| (it, node))) {
        furthest = furthest.max(step(it, name, node));
        // One way is enough.
        if furthest == Step::Announced {
            return None;
        }
    }
    let selectors = |all: &mut dyn Iterator<Item = &Option<Selector>>| {
        let texts: BTreeSet<String> = all.flatten().map(|selector| format!("nodes = \"{selector}\"")).collect();
        texts.into_iter().collect::<Vec<_>>().join(", ")
    };
    let of_advertisements = || selectors(&mut covering.iter().map(|(it, _)| &it.nodes));
    match furthest {
        Step::Advertised => Some(format!("no Node has the labels of [[bgp.advertisement]] {}", of_advertisements())),
        Step::NodeSelected => {
            Some("its [[bgp.advertisement]] has no [[bgp.peer]], or only such as are shut down".to_owned())
        }
        Step::WithPeer => {
            let of_peers = selectors(&mut covering.iter().flat_map(|(_, peers)| peers).map(|peer| &peer.nodes));
            Some(match of_advertisements() {
                none if none.is_empty() => format!("no Node has the labels of [[bgp.peer]] {of_peers}"),
                some => {
                    format!("no Node has the labels of [[bgp.advertisement]] {some} and of its [[bgp.peer]] {of_peers}")
                }
            })
        }
        Step::PeerOnNode => Some("every Node that could announce it to a [[bgp.peer]] is excluded".to_owned()),
        Step::NodeAble => Some(
            "no Node that announces it to a [[bgp.peer]] has a serving endpoint (external traffic policy Local)"
                .to_owned(),
        ),
        Step::NodeServes => Some(
            "of no Node that could announce it to a [[bgp.peer]] a pulse is heard: crier must run there".to_owned(),
        ),
        Step::Announced => None,
    }
}

/// Something in the file is for the pool, and leaves the Service out by its labels.
fn leaves_out(snapshot: &Snapshot, pool: &PoolName) -> Option<String> {
    let is_of = |pools: &[PoolName]| pools.is_empty() || pools.contains(pool);
    let l2 = snapshot.config.l2.iter().filter(|it| is_of(&it.pools)).map(|it| &it.service_selector);
    let bgp = snapshot.config.bgp.advertisements.iter().filter(|it| is_of(&it.pools)).map(|it| &it.service_selector);
    let of_l2 = l2.flatten().map(|selector| format!("[[l2]] service-selector = \"{selector}\""));
    let of_bgp = bgp.flatten().map(|selector| format!("[[bgp.advertisement]] service-selector = \"{selector}\""));
    let all: Vec<String> = of_l2.chain(of_bgp).collect();
    (!all.is_empty()).then(|| format!("the Service has not the labels of {}", all.join(" or ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::address::MacAddress;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::roster::{Departed, Roster};
    use crate::selector::Labels;
    use crate::views::Counters;
    use crate::world::{ApiServer, EndpointAddresses, EndpointSlice, Fact, NodeCounts};

    const FILE: &str = "[manifests]\nfolder = \"/etc/crier/manifests\"\n\
                        [[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n";

    /// Of a Service with an endpoint on the node n1, which is in rack a.
    fn told(rest: &str, endpoints: usize) -> Vec<String> {
        told_of(rest, endpoints, Service::default(), "n1")
    }

    fn told_of(rest: &str, endpoints: usize, service: Service, on: &str) -> Vec<String> {
        let file = SourceFile { path: "crier.toml".to_owned(), text: format!("{FILE}{rest}") };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "n1".into());
        let labels = Labels([("rack".to_owned(), "a".to_owned())].into());
        let counts: NodeCounts = (0..endpoints).map(|_| (on.into(), 1)).collect();
        let slice = EndpointSlice {
            service: ObjectKey::new("shop", "web"),
            family: None,
            ready: counts.clone(),
            serving: counts,
            serving_without_node: 0,
            unready: Default::default(),
            addresses: EndpointAddresses::default(),
        };
        let service = Service { load_balancer: true, families: vec![Family::V4], ..service };
        let left = Departed {
            mac: MacAddress([2, 0, 0, 0, 0, 9]),
            unheard: Duration::ZERO,
            suspect: false,
            holdings: Default::default(),
            just_left: false,
        };
        let roster = Roster { settled: true, left: [("n9".into(), left)].into(), ..Roster::default() };
        for fact in [
            Fact::Roster(1, Some(Arc::new(roster))),
            Fact::Node("n9".into(), Some(Arc::new(Node { ready: true, ..Node::default() }))),
            Fact::ApiServer(ApiServer::Manifests),
            Fact::LinksListed,
            Fact::FailStatic,
            Fact::Node("n1".into(), Some(Arc::new(Node { labels, ready: true, ..Node::default() }))),
            Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service))),
            Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(slice))),
        ] {
            planner.apply(fact);
        }
        planner.turn(clock::now());
        problems(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall()))
    }

    #[test]
    fn a_selector_that_matches_no_node_is_a_problem_of_the_services_that_wait_for_clients() {
        let l2 = |rack: &str| format!("[[l2]]\nnodes = \"rack={rack}\"\n");
        let bgp = |nodes: &str| {
            format!(
                "[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n\
                 [[bgp.advertisement]]\n{nodes}\n"
            )
        };
        let in_zz = "nodes = \"rack=zz\"";
        let [problem] = &told(&l2("zz"), 1)[..] else { panic!("one problem") };
        assert!(problem.starts_with("shop/web: no node may announce 192.168.35.100: no node is eligible: n1: "));
        let [problem] = &told(&bgp(in_zz), 1)[..] else { panic!("one problem") };
        assert!(problem.ends_with("no Node has the labels of [[bgp.advertisement]] nodes = \"rack=zz\""), "{problem}");
        assert_eq!(told(&(l2("zz") + &bgp(in_zz)), 1).len(), 1);
        for right in [l2("a"), bgp(""), bgp("nodes = \"rack=a\""), l2("zz") + &bgp(""), l2("a") + &bgp(in_zz)] {
            assert_eq!(told(&right, 1), Vec::<String>::new(), "{right}");
        }
        assert_eq!(told(&l2("zz"), 0), Vec::<String>::new(), "nobody could answer a client anyway");
        // Whatever is in the way.
        let peer = |keys: &str| bgp("").replace("asn = 64512\n", &format!("asn = 64512\n{keys}\n"));
        let blocked = [
            (peer(in_zz), "no Node has the labels of [[bgp.peer]] nodes = \"rack=zz\""),
            (peer("shutdown = true"), "its [[bgp.advertisement]] has no [[bgp.peer]], or only such as are shut down"),
            (
                peer(in_zz) + "nodes = \"rack=a\"\n",
                "no Node has the labels of [[bgp.advertisement]] nodes = \"rack=a\" and of its [[bgp.peer]] nodes = \"rack=zz\"",
            ),
            (
                "[[l2]]\nservice-selector = \"tier=fromt\"\n".to_owned() + &bgp("service-selector = \"expose=wan\""),
                "the Service has not the labels of [[l2]] service-selector = \"tier=fromt\" or [[bgp.advertisement]] \
                 service-selector = \"expose=wan\"",
            ),
        ];
        for (file, why) in blocked {
            let all = told(&file, 1);
            let [problem] = &all[..] else { panic!("{file}: {all:?}") };
            assert!(problem.ends_with(why), "{problem}");
        }
        let beside = bgp(in_zz) + "[[bgp.advertisement]]\n";
        assert_eq!(told(&beside, 1), Vec::<String>::new(), "one way is enough");
        // The agent of the only node with an endpoint left.
        let local = || Service { external_traffic_policy: TrafficPolicy::Local, ..Service::default() };
        assert_eq!(told_of(&bgp(""), 1, local(), "n1"), Vec::<String>::new());
        let [problem] = &told_of(&bgp(""), 1, local(), "n9")[..] else { panic!("one problem") };
        assert!(problem.ends_with("a pulse is heard: crier must run there"), "{problem}");
    }
}
