//! Weighted ECMP: the link-bandwidth community that crier makes of the number of ready local endpoints, as it ends up
//! in the kernel under FRR. Without it a router balances per node, and a node with one pod gets as much as one with three.

use std::collections::BTreeMap;

use rack::{Manifests, Need, Rack, Service, Site, eventually_equal, frr, secs};

const SERVICE: &str = "10.64.0.1/32";

const CONFIGURATION: &str = r#"
[manifests]
folder = "FOLDER"

[[pool]]
name = "public"
addresses = ["10.64.0.0/24"]

[bgp]
asn = 64513

[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
connect-retry-time = "1s"

[[bgp.advertisement]]
link-bandwidth = true
"#;

/// A Service of policy Local with so many ready endpoints on each node.
fn service(endpoints: [usize; 2]) -> Service {
    let service = Service::new("web").addresses("10.64.0.1").policy("Local");
    let nodes = ["node-1", "node-2"].into_iter().zip(endpoints);
    nodes.flat_map(|(node, count)| std::iter::repeat_n(node, count)).fold(service, Service::on)
}

#[test]
fn traffic_is_weighed_by_endpoints_in_the_routers_kernel() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Frr]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 2);
    let manifests = Manifests::new(&rack);
    let [first, second] = [site.node(0), site.node(1)].map(|node| [node.address.into()]);
    manifests.nodes(&[("node-1", "", &first), ("node-2", "", &second)]);
    manifests.service(&service([1, 3]));
    let frr = site.router.frr(&format!(
        "router bgp 64512\n bgp router-id 192.168.35.1\n{}\
         \x20neighbor 192.168.35.11 remote-as 64513\n neighbor 192.168.35.11 timers connect 1\n\
         \x20neighbor 192.168.35.12 remote-as 64513\n neighbor 192.168.35.12 timers connect 1\n\
         \x20address-family ipv4 unicast\n  neighbor 192.168.35.11 activate\n  neighbor 192.168.35.12 activate\n\
         \x20 maximum-paths 8\n exit-address-family\n",
        frr::PLAIN
    ));
    let configuration = CONFIGURATION.replace("FOLDER", &manifests.path().display().to_string());
    let agents: Vec<_> = site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    for neighbor in ["192.168.35.11", "192.168.35.12"] {
        frr.wait_established(neighbor, secs(30));
    }
    // Each next hop's share in percent, as the kernel's weights say it.
    let shares = || -> BTreeMap<String, u64> {
        let routes = site.router.ip_json(&format!("-4 route show exact {SERVICE}"));
        let hops = routes[0]["nexthops"].as_array().cloned().unwrap_or_default();
        let weights =
            hops.iter().filter_map(|hop| Some((hop["gateway"].as_str()?.to_owned(), hop["weight"].as_u64()?)));
        let weights: BTreeMap<String, u64> = weights.collect();
        let sum: u64 = weights.values().sum();
        weights.into_iter().map(|(hop, weight)| (hop, weight * 100 / sum.max(1))).collect()
    };
    let expected =
        |first, second| BTreeMap::from([("192.168.35.11".to_owned(), first), ("192.168.35.12".to_owned(), second)]);
    eventually_equal("one endpoint against three", secs(30), &expected(25, 75), shares);
    manifests.service(&service([2, 2]));
    eventually_equal("two endpoints against two", secs(30), &expected(50, 50), shares);
    for neighbor in ["192.168.35.11", "192.168.35.12"] {
        assert_eq!(frr.session(neighbor).times_established, 1, "the session with {neighbor} flapped");
    }
}
