//! Addresses that clients ask in vain although a pod could serve them: no node of the cluster may announce them. Floor 1.

use super::Snapshot;
use crate::address::Family;
use crate::config::Advertisement;
use crate::plan::decision::Announcement;
use crate::plan::remnants::advertises;
use crate::reason::Reason;
use crate::roster::Eligibility;
use crate::world::Service;

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
            let why = why_nowhere(snapshot, service, it)?;
            Some((it.address, why))
        })?;
        Some(format!("{key}: no node may announce {address}: {why}"))
    });
    all.take(MOST_NAMED).collect()
}

/// More of them have the same cause.
const MOST_NAMED: usize = 10;

/// Why no node announces the address; `None` where one may, or where nothing in the file covers it.
fn why_nowhere(snapshot: &Snapshot, service: &Service, announcement: &Announcement) -> Option<String> {
    let on_link = match &announcement.l2.reason {
        Reason::NoL2ForPool { .. } => None,
        reason @ (Reason::NoEligibleNode { .. } | Reason::NoNodeWithEndpoint) => Some(reason.to_string()),
        _ => return None,
    };
    let of = (&announcement.pool, announcement.address);
    let covers = |it: &&Advertisement| advertises(&snapshot.config, &snapshot.context, it, of, &service.labels);
    let mut selectors = Vec::new();
    for advertisement in snapshot.config.bgp.advertisements.iter().filter(covers) {
        let selector = advertisement.nodes.as_ref()?;
        if snapshot.world.nodes.is_empty() || snapshot.world.nodes.values().any(|node| selector.matches(&node.labels)) {
            return None;
        }
        selectors.push(format!("nodes = \"{selector}\""));
    }
    let over_bgp = (!selectors.is_empty())
        .then(|| format!("no Node has the labels of [[bgp.advertisement]] {}", selectors.join(", ")));
    let why: Vec<String> = on_link.into_iter().chain(over_bgp).collect();
    (!why.is_empty()).then(|| why.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::names::ObjectKey;
    use crate::plan::Planner;
    use crate::selector::Labels;
    use crate::views::Counters;
    use crate::world::{ApiServer, EndpointAddresses, EndpointSlice, Fact, Node, NodeCounts};

    const FILE: &str = "[manifests]\nfolder = \"/etc/crier/manifests\"\n\
                        [[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n";

    /// Of a Service with an endpoint on the node n1, which is in rack a.
    fn told(rest: &str, endpoints: usize) -> Vec<String> {
        let file = SourceFile { path: "crier.toml".to_owned(), text: format!("{FILE}{rest}") };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "n1".into());
        let labels = Labels([("rack".to_owned(), "a".to_owned())].into());
        let counts: NodeCounts = (0..endpoints).map(|_| ("n1".into(), 1)).collect();
        let slice = EndpointSlice {
            service: ObjectKey::new("shop", "web"),
            family: None,
            ready: counts.clone(),
            serving: counts,
            serving_without_node: 0,
            addresses: EndpointAddresses::default(),
        };
        let service = Service { load_balancer: true, families: vec![Family::V4], ..Service::default() };
        for fact in [
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
    }
}
