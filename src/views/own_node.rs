//! What keeps this node, or every node, from announcing, as far as Nodes tell. Floor 1.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Snapshot;
use crate::address::AddressRange;
use crate::config::Pool;
use crate::plan::decision::EgressVerdict;
use crate::world::Node;

/// The addresses of its Node that this node has on no link, where other nodes send packets of pods to them, or take packets of pods
/// from them alone.
pub(super) fn addresses_elsewhere(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { node, world, plan, .. } = snapshot;
    let owns = |verdict: &EgressVerdict| verdict.owners.iter().any(|it| it.owner.as_ref() == Some(node));
    let is_owner = plan.decisions.values().filter_map(|decision| decision.egress.as_ref()).any(owns);
    // Before the links are listed it has none.
    if world.links.is_empty() || !(is_owner || plan.egress.tunnel.is_some()) {
        return Vec::new();
    }
    let is_here = |address: &IpAddr| {
        world.links.values().flat_map(|link| &link.addresses).any(|net: &IpNet| net.addr() == *address)
    };
    let addresses = world.nodes.get(node).into_iter().flat_map(|own| &own.addresses);
    let told = addresses.filter(|address| !is_here(address)).map(|address| {
        format!(
            "the Node {node} says InternalIP {address}, which is on no link of this node: what other nodes send there of pods with \
             egress is lost; set --node-ip of the kubelet (or the address in the Node manifest) right, or put the address on a link"
        )
    });
    told.collect()
}

/// Pools that lie in networks which the cluster gives its ClusterIPs from.
pub(super) fn pools_of_the_cluster(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, world, .. } = snapshot;
    let lies_in = |pool: &Pool, net: &IpNet| {
        let own = |range: &AddressRange| net.contains(&range.first()) || range.contains(net.network());
        pool.addresses.iter().any(own)
    };
    let of_net = |net: &IpNet| {
        let pools = config.pools.iter().filter(|pool| lies_in(pool, net)).map(|pool| pool.name.to_string());
        let in_words = |pool| {
            format!(
                "pool {pool} has addresses of {net}, a network that the cluster gives its ClusterIPs from (ServiceCIDR): no Service gets \
                 one of them; take them out of the pool"
            )
        };
        pools.map(in_words).collect::<Vec<_>>()
    };
    world.networks_of_services().flat_map(of_net).collect()
}

/// What Services name as their addresses and is none.
pub(super) fn unreadable_addresses(snapshot: &Snapshot) -> Vec<String> {
    let services = snapshot.world.services.iter().filter(|(_, service)| !service.unreadable.is_empty());
    let named = services.map(|(key, service)| {
        let texts: Vec<String> = service.unreadable.iter().map(|text| format!("{text:?}")).collect();
        format!(
            "{key}: {} in spec.externalIPs or status.loadBalancer cannot be read as an address, so crier cannot tell whether another \
             Service is to have it: correct it",
            texts.join(", ")
        )
    });
    named.collect()
}

/// Each in one sentence with its remedy.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, node, world, .. } = snapshot;
    // Standalone, Nodes need not be among the manifests.
    if config.is_standalone() || !world.listed.nodes {
        return Vec::new();
    }
    if !world.nodes.contains_key(node) {
        return vec![format!(
            "there is no Node {node}: this agent knows neither labels nor readiness of its node and announces nothing; set [node] name, \
             or `crier run --node`, to the name that `kubectl get nodes` shows"
        )];
    }
    let excluded = |node: &Node| node.labels.0.get(Node::EXCLUDE_LABEL).is_some();
    let all = !config.node.ignore_exclude_label && world.nodes.values().all(|node| excluded(node));
    let label = Node::EXCLUDE_LABEL;
    all.then(|| {
        format!(
            "every Node carries the label {label}, so no node announces anything: remove it (kubectl label node NAME {label}-), or set \
             [node] ignore-exclude-label = true"
        )
    })
    .into_iter()
    .collect()
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
    use crate::plan::slice::TunnelEnd;
    use crate::selector::Labels;
    use crate::views::Counters;
    use crate::world::{Fact, Link, Listing, Service};

    /// Input: a Node with an address that the node has, and one that it has not, with and without egress by the tunnel.
    #[test]
    fn an_address_of_the_own_node_that_no_link_has_is_told_where_others_send_packets_of_pods_there() {
        let file = SourceFile { path: "test.toml".to_owned(), text: "[manifests]\nfolder = \"/m\"\n".to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        let addresses = ["10.1.2.12", "10.1.2.99"].map(|it| it.parse().unwrap()).to_vec();
        planner.apply(Fact::Node("node-1".into(), Some(Arc::new(Node { addresses, ..Node::default() }))));
        planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["10.1.2.12/24"]))));
        planner.apply(Fact::LinksListed);
        planner.turn(clock::now());
        let counters = Counters::default();
        let mut snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall());
        assert_eq!(addresses_elsewhere(&snapshot), [""; 0], "no packet of a pod goes there");
        snapshot.plan.egress.tunnel = Some(Arc::new(TunnelEnd::default()));
        let told = addresses_elsewhere(&snapshot);
        let [only] = told.as_slice() else { panic!("{told:?}") };
        assert!(only.starts_with("the Node node-1 says InternalIP 10.1.2.99, which is on no link"), "{only}");
        snapshot.world.links.clear();
        assert_eq!(addresses_elsewhere(&snapshot), [""; 0], "the links are not known yet");
    }

    fn said(nodes: &[(&str, bool)], key: &str) -> String {
        let text = format!("[kubernetes]\nin-cluster = true\n{key}");
        let config = parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap();
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        for (name, excluded) in nodes {
            let label = (Node::EXCLUDE_LABEL.to_owned(), String::new());
            let labels = Labels(excluded.then_some(label).into_iter().collect());
            let addresses = Vec::new();
            let node = Node { labels, ready: true, addresses, ..Node::default() };
            planner.apply(Fact::Node((*name).into(), Some(Arc::new(node))));
        }
        let names = nodes.iter().map(|(name, _)| (*name).into()).collect();
        planner.apply(Fact::Listed(Listing::Nodes(names)));
        let counters = Counters::default();
        problems(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall())).join("\n")
    }

    #[test]
    fn a_name_that_is_no_nodes_and_a_label_on_every_node_are_named() {
        assert_eq!(said(&[("node-1", false), ("node-2", true)], ""), "");
        assert!(said(&[("node-1.example", false)], "").contains("there is no Node node-1"));
        assert!(said(&[("node-1", true), ("node-2", true)], "").contains(Node::EXCLUDE_LABEL));
        assert_eq!(said(&[("node-1", true)], "[node]\nignore-exclude-label = true\n"), "");
    }

    #[test]
    fn pools_in_networks_of_cluster_ips_and_what_is_no_address_are_named() {
        let pools = "[[pool]]\nname = \"svc\"\naddresses = [\"10.95.0.0-10.96.0.9\"]\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/24\"]\n";
        let text = format!("[kubernetes]\nin-cluster = true\n{pools}");
        let config = parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap();
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        let network = Some(Arc::new(vec!["10.96.0.0/16".parse().unwrap()]));
        planner.apply(Fact::ServiceCidr("kubernetes".to_owned(), network));
        let service = Service { unreadable: vec!["172.30.0.300".to_owned()], ..Service::default() };
        planner.apply(Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service))));
        let counters = Counters::default();
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall());
        let pools = pools_of_the_cluster(&snapshot);
        let [only] = pools.as_slice() else { panic!("{pools:?}") };
        assert!(only.starts_with("pool svc has addresses of 10.96.0.0/16, "), "{only}");
        let odd = unreadable_addresses(&snapshot);
        let [only] = odd.as_slice() else { panic!("{odd:?}") };
        assert!(only.starts_with("shop/web: \"172.30.0.300\" in spec.externalIPs"), "{only}");
    }
}
