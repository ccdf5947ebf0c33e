//! Agents of a cluster whose views of the API server differ: who hears nothing of it gives way, and with the API server away
//! from all nothing moves.

use std::net::{IpAddr, Ipv4Addr};

use rack::faults::Faults;
use rack::kubernetes::Proof;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, lan, millis, secs, throughout};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

#[test]
fn an_owner_that_is_cut_off_the_api_server_gives_way_to_the_node_where_the_endpoint_is_now() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let file = format!(
        "[[pool]]\nname = \"lan\"\n{}[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\nkey-file = \"{}\"\n",
        lan::POOL,
        key.display()
    );
    let _pods = [metal.pod(0, "web-1", "web", &[80]), metal.pod(1, "web-2", "web", &[80])];
    metal.set_pod_ready("web-2", false);
    let faults = Faults::before(&metal);
    let agents: Vec<_> = (0..3)
        .map(|number| {
            let server = if number == 0 { faults.url().to_owned() } else { metal.url() };
            let node = metal.site.node(number);
            node.crier(node.name(), &format!("{}{file}", metal.access_by(Proof::Token, &server)))
        })
        .collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
        eventually_equal("the agents hear each other", secs(20), &2, || lan::members(agent).len());
    }
    let service = Service::new("web").selects("web").policy("Local").load_balancer_ip("192.168.35.100");
    metal.try_apply(&service.object()).expect("the API server takes it");
    let answered_by = |node: &str| {
        eventually_equal(&format!("{node} answers"), secs(15), &vec![node.to_owned()], || {
            metal.site.answering(ADDRESS)
        });
    };
    answered_by("node-1");
    eventually("the page is served", secs(20), || {
        metal.site.client.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
    });
    let asking = metal.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(100));
    faults.go_away();
    metal.set_pod_ready("web-1", false);
    metal.set_pod_ready("web-2", true);
    answered_by("node-2");
    eventually("the other pod is asked", secs(10), || match asking.outcomes().servers().last() {
        Some(name) if name == "web-2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let outcomes = asking.stop();
    println!("{outcomes}");
    assert!(outcomes.longest_gap() < secs(8), "{outcomes}");
    assert_eq!(metal.ingress("service/web"), ["192.168.35.100"]);

    faults.come_back();
    metal.stop_api_server();
    throughout("with the API server away from all nothing moves", secs(8), || {
        let seen = metal.site.answering(ADDRESS);
        if seen == ["node-2"] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

/// Over BGP, without any `[[l2]]`. Input: the agents hear each other by `[pulse] interfaces`, and one of them loses the API server, while its
/// endpoint moves to another node; then the API server is away from all. Output: under both policies the route of the node with the stale view
/// leaves, and is back with its view; with the API server away from all the routes stay.
#[test]
fn over_bgp_a_node_that_is_cut_off_the_api_server_withdraws_while_others_hear_it_and_none_does_where_nobody_hears_it() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier, Need::Bird]) else { return };
    let metal = Metal::new(&rack, 3);
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let file = format!(
        "[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.1-203.0.113.9\"]\n[bgp]\nasn = 64513\n\
         [[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
         [[bgp.advertisement]]\n[pulse]\nkey-file = \"{}\"\ninterfaces = [\"eth0\"]\n",
        key.display()
    );
    let sessions = (1..=3).map(|node| {
        format!(
            "protocol bgp node{node} {{ local as 64512; neighbor 192.168.35.1{node} as 64513; \
             ipv4 {{ import all; export none; }}; }}\n"
        )
    });
    let bird = metal.site.router.bird(&format!(
        "router id 192.168.35.1;\n{}\n{}",
        rack::bird::KERNEL,
        sessions.collect::<String>()
    ));
    let _pods = [metal.pod(0, "web-1", "web", &[80]), metal.pod(1, "web-2", "web", &[80])];
    metal.set_pod_ready("web-2", false);
    let faults = Faults::before(&metal);
    let agents: Vec<_> = (0..3)
        .map(|number| {
            let server = if number == 0 { faults.url().to_owned() } else { metal.url() };
            let node = metal.site.node(number);
            node.crier(node.name(), &format!("{}{file}", metal.access_by(Proof::Token, &server)))
        })
        .collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
        eventually_equal("the agents hear each other", secs(20), &2, || lan::members(agent).len());
    }
    for node in 1..=3 {
        bird.wait_established(&format!("node{node}"), secs(20));
    }
    for (name, policy, address) in [("local", "Local", "203.0.113.1"), ("cluster", "Cluster", "203.0.113.2")] {
        let service = Service::new(name).selects("web").policy(policy).load_balancer_ip(address);
        metal.try_apply(&service.object()).expect("the API server takes it");
    }
    let hops = |prefix: &str| -> Vec<String> {
        let routes = bird.routes();
        routes.get(prefix).into_iter().flatten().map(ToString::to_string).collect()
    };
    let lead_to = |local: &[&str], cluster: &[&str]| {
        let expected = [local, cluster].map(|it| it.iter().map(|hop| format!("192.168.35.{hop}")).collect::<Vec<_>>());
        eventually_equal("the router has the routes of these nodes", secs(15), &expected, || {
            ["203.0.113.1/32", "203.0.113.2/32"].map(hops)
        });
        expected
    };
    lead_to(&["11"], &["11", "12", "13"]);
    faults.go_away();
    metal.set_pod_ready("web-1", false);
    metal.set_pod_ready("web-2", true);
    lead_to(&["12"], &["12", "13"]);
    faults.come_back();
    let before = lead_to(&["12"], &["11", "12", "13"]);
    metal.stop_api_server();
    throughout("with the API server away from all no route leaves", secs(20), || {
        let now = ["203.0.113.1/32", "203.0.113.2/32"].map(hops);
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    for node in 1..=3 {
        assert_eq!(bird.session(&format!("node{node}")).times_established, 1, "no session was touched");
    }
}
