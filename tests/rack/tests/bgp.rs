//! Services over BGP, against a real API server: eBGP to BIRD and iBGP to FRR, both families, both traffic policies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rack::bird::Bird;
use rack::frr::Frr;
use rack::{Host, Manifests, Metal, Need, Rack, Service, bird, eventually, eventually_equal, frr, secs};
use serde_json::Value;

const NEEDS: [Need; 4] = [Need::Kubernetes, Need::Crier, Need::Bird, Need::Frr];

const CONFIGURATION: &str = r#"
[[pool]]
name = "public"
addresses = ["203.0.113.1-203.0.113.50", "2001:db8:1::1-2001:db8:1::ff"]

[bgp]
asn = 64513

[[bgp.peer]]
name = "bird"
address = "192.168.35.1"
asn = 64512

[[bgp.peer]]
name = "bird-over-ipv6"
address = "fd35::1"
asn = "external"

[[bgp.peer]]
name = "frr"
address = "192.168.35.3"
asn = "internal"

[[bgp.advertisement]]
communities = ["64512:100", "large:64512:1:2"]
local-preference = 150
med = 10
"#;

const BIRD: &str = r#"
router id 192.168.35.1;
protocol static offered { ipv4; route 198.18.99.0/24 blackhole; }
protocol static offered6 { ipv6; route fd99::/64 blackhole; }
template bgp node { local as 64512; }
protocol bgp node1 from node { neighbor 192.168.35.11 as 64513; ipv4 { import all; export where proto = "offered"; }; }
protocol bgp node2 from node { neighbor 192.168.35.12 as 64513; ipv4 { import all; export where proto = "offered"; }; }
protocol bgp node1v6 from node { neighbor fd35::11 as 64513; ipv6 { import all; export where proto = "offered6"; }; }
protocol bgp node2v6 from node { neighbor fd35::12 as 64513; ipv6 { import all; export where proto = "offered6"; }; }
"#;

/// The sessions of BIRD and the neighbors of FRR, which must all stay up whatever Services do.
const BIRD_SESSIONS: [&str; 4] = ["node1", "node2", "node1v6", "node2v6"];
const FRR_NEIGHBORS: [&str; 2] = ["192.168.35.11", "192.168.35.12"];

fn frr_configuration() -> String {
    let neighbors: String = FRR_NEIGHBORS
        .iter()
        .map(|neighbor| format!(" neighbor {neighbor} remote-as 64513\n neighbor {neighbor} timers connect 1\n"))
        .collect();
    let activate: String = FRR_NEIGHBORS.iter().map(|it| format!("  neighbor {it} activate\n")).collect();
    format!(
        "router bgp 64513\n bgp router-id 192.168.35.3\n{}{neighbors} address-family ipv4 unicast\n{activate}  maximum-paths ibgp 8\n \
         exit-address-family\n address-family ipv6 unicast\n{activate}  maximum-paths ibgp 8\n exit-address-family\n",
        frr::PLAIN
    )
}

fn service(name: &str, policy: &str, families: &[&'static str]) -> Value {
    Service::new(name).policy(policy).selects("web").families(families).ports(&[(80, 8080)]).object()
}

/// The routers and what they should know.
struct Routers<'a> {
    metal: &'a Metal,
    bird: Bird,
    frr: Frr,
    frr_host: Host,
}

impl Routers<'_> {
    /// Waits until both routers, in their tables and their kernels, have exactly these nodes behind the address.
    #[track_caller]
    fn lead_to(&self, address: IpAddr, nodes: &[usize]) {
        let prefix = rack_prefix(address);
        let hops: BTreeSet<IpAddr> = nodes
            .iter()
            .map(|node| self.metal.site.node(*node))
            .map(|node| if address.is_ipv4() { node.address.into() } else { node.address6.into() })
            .collect();
        let table = |routes: std::collections::BTreeMap<String, BTreeSet<IpAddr>>| routes.get(&prefix).cloned();
        let in_table = (!hops.is_empty()).then(|| hops.clone());
        eventually_equal(&format!("BIRD's table for {prefix}"), secs(10), &in_table, || table(self.bird.routes()));
        eventually_equal(&format!("FRR's table for {prefix}"), secs(10), &in_table, || table(self.frr.routes()));
        eventually_equal(&format!("the kernel under BIRD for {prefix}"), secs(10), &hops, || {
            self.metal.site.router.next_hops(&prefix)
        });
        if address.is_ipv4() {
            // For IPv6, FRR gives its kernel link-local next hops.
            eventually_equal(&format!("the kernel under FRR for {prefix}"), secs(10), &hops, || {
                self.frr_host.next_hops(&prefix)
            });
        } else {
            eventually_equal(&format!("the kernel under FRR for {prefix}"), secs(10), &hops.len(), || {
                self.frr_host.next_hops(&prefix).len()
            });
        }
    }

    #[track_caller]
    fn never_flapped(&self) {
        for session in BIRD_SESSIONS {
            assert_eq!(self.bird.session(session).times_established, 1, "BIRD's session {session} flapped");
        }
        for neighbor in FRR_NEIGHBORS {
            assert_eq!(self.frr.session(neighbor).times_established, 1, "FRR's session with {neighbor} flapped");
        }
    }
}

fn rack_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

#[test]
fn both_routers_know_exactly_the_nodes_that_should_get_traffic() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let bird = metal.site.router.bird(&format!("{}{BIRD}", bird::KERNEL));
    let frr_host = metal.site.host("frr", 3);
    let frr = frr_host.frr(&frr_configuration());
    let pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    let agents = metal.agents(CONFIGURATION);
    let routers = Routers { metal: &metal, bird, frr, frr_host };
    for session in BIRD_SESSIONS {
        routers.bird.wait_established(session, secs(20));
    }
    for neighbor in FRR_NEIGHBORS {
        routers.frr.wait_established(neighbor, secs(20));
    }

    // Policy Cluster: every node announces, and the routers balance.
    metal.try_apply(&service("cluster", "Cluster", &["IPv4", "IPv6"])).expect("the API server takes the Service");
    let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.1".parse().unwrap(), "2001:db8:1::1".parse().unwrap());
    routers.lead_to(v4, &[0, 1]);
    routers.lead_to(v6, &[0, 1]);
    let route = &routers.bird.route("203.0.113.1/32")[0];
    for (attribute, expected) in [
        ("BGP.as_path", "64513"),
        ("BGP.med", "10"),
        ("BGP.community", "(64512,100)"),
        ("BGP.large_community", "(64512, 1, 2)"),
        ("BGP.origin", "IGP"),
    ] {
        assert_eq!(route.attributes.get(attribute).map(String::as_str), Some(expected), "at BIRD: {route:?}");
    }
    let route = &routers.bird.route("2001:db8:1::1/128")[0];
    for (attribute, expected) in
        [("BGP.community", "(64512,100)"), ("BGP.large_community", "(64512, 1, 2)"), ("BGP.med", "10")]
    {
        assert_eq!(route.attributes.get(attribute).map(String::as_str), Some(expected), "at BIRD: {route:?}");
    }
    let route = routers.frr.route("203.0.113.1/32");
    let path = &route["paths"][0];
    assert_eq!(
        path["locPrf"].as_u64().or(path["localpref"].as_u64()).or(path["locpref"].as_u64()),
        Some(150),
        "{path:#}"
    );
    assert_eq!(path["aspath"]["string"], "Local", "an internal path is empty: {path:#}");
    for address in [v4, v6] {
        eventually(&format!("the client behind the router is answered by {address}"), secs(20), || {
            metal.site.client.get((address, 80)).map_err(|error| error.to_string())
        });
    }

    // Policy Local: only where a pod is, and the client's address arrives.
    metal.set_pod_ready("web-2", false);
    metal.try_apply(&service("local", "Local", &["IPv4", "IPv6"])).expect("the API server takes the Service");
    let local: IpAddr = "203.0.113.2".parse().unwrap();
    let local6: IpAddr = "2001:db8:1::2".parse().unwrap();
    routers.lead_to(local, &[0]);
    routers.lead_to(local6, &[0]);
    let own = Some(IpAddr::from(metal.site.client.address));
    eventually("the pod sees the client's own address", secs(20), || {
        let answer = metal.site.client.get((local, 80)).map_err(|error| error.to_string())?;
        if answer.source == own && answer.name == "web-1" { Ok(()) } else { Err(format!("{answer:?}")) }
    });

    // The endpoint moves from one node to the other, and the route with it; Cluster does not care.
    metal.set_pod_ready("web-2", true);
    routers.lead_to(local, &[0, 1]);
    metal.set_pod_ready("web-1", false);
    routers.lead_to(local, &[1]);
    routers.lead_to(local6, &[1]);
    routers.lead_to(v4, &[0, 1]);
    metal.set_pod_ready("web-2", false);
    routers.lead_to(local, &[]);
    routers.lead_to(v4, &[]);
    metal.set_pod_ready("web-2", true);
    routers.lead_to(local, &[1]);
    routers.lead_to(v6, &[0, 1]);

    // Services come and go; deleting withdraws.
    for round in 0..10 {
        let name = format!("passing-{round}");
        metal.try_apply(&service(&name, "Cluster", &["IPv4"])).expect("the API server takes the Service");
    }
    eventually_equal("all ten passers-by are at BIRD", secs(10), &12, || {
        routers.bird.routes().keys().filter(|prefix| prefix.starts_with("203.0.113.")).count()
    });
    for round in 0..10 {
        metal.delete(&format!("service/passing-{round}"));
    }
    metal.delete("service/cluster");
    metal.delete("service/local");
    for address in [v4, v6, local, local6] {
        routers.lead_to(address, &[]);
    }
    let announced = |prefix: &&String| prefix.starts_with("203.0.113.") || prefix.starts_with("2001:db8:");
    eventually_equal("nothing is left at BIRD", secs(10), &0, || {
        routers.bird.routes().keys().filter(announced).count()
    });

    // What BIRD announces is heard, and goes into no table of the nodes.
    for (agent, node) in agents.iter().zip(&metal.site.nodes) {
        for peer in ["bird", "bird-over-ipv6"] {
            eventually_equal(&format!("{} hears what {peer} announces", agent.node()), secs(10), &Some(1), || {
                let peers = agent.status()["peers"].as_array().cloned().unwrap_or_default();
                peers.iter().find(|it| it["name"] == peer).and_then(|it| it["prefixes_received"].as_u64())
            });
        }
        for (family, prefix) in [("-4", "198.18.99.0/24"), ("-6", "fd99::/64")] {
            assert_eq!(node.ip(&format!("{family} route show table all {prefix}")).trim(), "", "{}", agent.node());
        }
    }
    routers.never_flapped();

    let status = agents[0].status();
    let peers = status["peers"].as_array().expect("the status lists the peers");
    assert!(peers.iter().all(|peer| peer["state"] == "Established"), "{peers:#?}");
    drop(pods);
}

#[test]
fn a_router_that_answers_with_another_as_is_told_and_named_in_the_status() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let site = rack::Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let bird = site.router.bird(
        "router id 192.168.35.1; protocol device {}\n\
         protocol bgp node1 { local as 64999; neighbor 192.168.35.11 as 64513; connect delay time 1; \
         error wait time 1, 2; ipv4 { import all; export none; }; }",
    );
    let manifests = Manifests::new(&rack);
    let agent = site.node(0).crier(
        "node-1",
        &format!(
            "{}[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\n\
             [bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n\
             connect-retry-time = \"1s\"\n[[bgp.advertisement]]\n",
            manifests.section()
        ),
    );
    agent.wait_ready(secs(10));
    let line = agent.process().wait_for_log("64999", secs(10));
    assert!(line.contains("64512"), "the log names the AS that was expected and the one that came: {line}");
    eventually("the status names both AS numbers", secs(10), || {
        let error = agent.status()["peers"][0]["last_error"].as_str().unwrap_or_default().to_owned();
        if error.contains("64999") && error.contains("64512") { Ok(()) } else { Err(error) }
    });
    eventually("BIRD was told Bad peer AS", secs(10), || {
        let log = bird.process().log();
        if log.contains("Bad peer AS") { Ok(()) } else { Err(log.lines().last().unwrap_or_default().to_owned()) }
    });
}
