//! Services on the link, against a real API server: allocation, ARP, and a client that gets its page.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, secs};
use serde_json::json;

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const LAN: &str = r#"
[[pool]]
name = "lan"
addresses = ["POOL"]
[[l2]]
pools = ["lan"]
interfaces = ["eth0"]
"#;

fn lan(pool: &str) -> String {
    LAN.replace("POOL", pool)
}

/// A Service for the pods of `app`; each port leads to the target port behind it.
fn service(name: &str, app: &str, wish: Option<&str>, ports: &[(u16, u16)]) -> serde_json::Value {
    let service = Service::new(name).selects(app).ports(ports);
    wish.into_iter().fold(service, Service::load_balancer_ip).object()
}

/// The Services of the Kubeflow guide that users of MetalLB follow.
#[test]
fn the_services_of_kubeflow_get_the_addresses_they_ask_for_and_a_client_gets_each_page() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let services = [
        (
            "istio-ingressgateway",
            "192.168.35.100",
            vec![(15021, 15021), (80, 8080), (443, 8443), (31400, 31400), (15443, 15443)],
        ),
        ("minio-service", "192.168.35.101", vec![(9000, 9000)]),
        ("mlflow-server-service", "192.168.35.102", vec![(5000, 5000)]),
        ("seldon-core-analytics-grafana", "192.168.35.103", vec![(80, 3000)]),
    ];
    let pods: Vec<_> = services
        .iter()
        .enumerate()
        .map(|(index, (name, _, ports))| {
            let targets: Vec<u16> = ports.iter().map(|(_, target)| *target).collect();
            metal.pod(index % 2, name, name, &targets)
        })
        .collect();
    let agents = metal.agents(&lan("192.168.35.100-192.168.35.110"));
    for (name, wish, ports) in &services {
        metal.try_apply(&service(name, name, Some(wish), ports)).expect("the API server takes the Service");
    }
    for (name, wish, _) in &services {
        eventually_equal(&format!("{name} has the address it asked for"), secs(10), &vec![(*wish).to_owned()], || {
            metal.ingress(&format!("service/{name}"))
        });
    }
    let shown = metal.kubectl("get svc --no-headers");
    let external: BTreeMap<&str, &str> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns[1] == "LoadBalancer")
        .map(|columns| (columns[0], columns[3]))
        .collect();
    assert_eq!(external, services.iter().map(|(name, wish, _)| (*name, *wish)).collect(), "kubectl get svc:\n{shown}");
    let ip_mode = metal.get("service/minio-service").expect("it is there");
    assert_eq!(ip_mode["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");

    for (name, address, ports) in &services {
        let address: Ipv4Addr = address.parse().unwrap();
        eventually(&format!("exactly one node answers for {address}"), secs(10), || {
            let nodes = metal.site.answering(address);
            if nodes.len() == 1 { Ok(()) } else { Err(format!("{nodes:?}")) }
        });
        for (port, _) in ports {
            let answer = eventually(&format!("http://{address}:{port}/ answers"), secs(20), || {
                metal.site.client.get((IpAddr::from(address), *port)).map_err(|error| error.to_string())
            });
            assert_eq!(answer.name, *name, "the page of {name} on port {port}");
        }
    }

    metal.try_apply(&service("fifth", "minio-service", None, &[(9000, 9000)])).expect("the API server takes it");
    eventually_equal("the fifth gets the next free address", secs(10), &vec!["192.168.35.104".to_owned()], || {
        metal.ingress("service/fifth")
    });
    let events = eventually("the Service has its Event", secs(10), || {
        let events = metal.events("Service", "fifth");
        if events.is_empty() { Err("none") } else { Ok(events) }
    });
    assert!(
        events
            .iter()
            .any(|(kind, reason, text)| kind == "Normal" && reason == "IPAllocated" && text.contains("192.168.35.104")),
        "{events:?}"
    );

    // Deleting withdraws; changing the type withdraws and frees.
    metal.delete("service/fifth");
    eventually_equal("nobody answers for the address of a deleted Service", secs(10), &Vec::<String>::new(), || {
        metal.site.answering("192.168.35.104".parse().unwrap())
    });
    metal.patch("service/minio-service", &json!({ "spec": { "type": "ClusterIP", "loadBalancerIP": null } }));
    eventually_equal(
        "nobody answers for a Service that is of another type now",
        secs(10),
        &Vec::<String>::new(),
        || metal.site.answering("192.168.35.101".parse().unwrap()),
    );
    eventually_equal("and its status is empty", secs(10), &Vec::<String>::new(), || {
        metal.ingress("service/minio-service")
    });
    metal.try_apply(&service("heir", "minio-service", Some("192.168.35.101"), &[(9000, 9000)])).expect("it is taken");
    eventually_equal("its address is free for another", secs(10), &vec!["192.168.35.101".to_owned()], || {
        metal.ingress("service/heir")
    });
    drop((agents, pods));
}

#[test]
fn four_nodes_serve_the_first_address_of_the_pool_and_one_of_them_answers() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::on(&rack, "172.42.42.0/24", 4);
    let _pods = [metal.pod(0, "nginx-1", "nginx", &[80]), metal.pod(2, "nginx-2", "nginx", &[80])];
    let agents = metal.agents(&lan("172.42.42.201-172.42.42.250"));
    let leaders = agents.iter().filter(|agent| agent.status()["allocates"] == true).count();
    assert!(leaders <= 1, "{leaders} agents allocate");
    metal.try_apply(&service("nginx", "nginx", None, &[(80, 80)])).expect("the API server takes the Service");
    eventually_equal("the first address is .201", secs(10), &vec!["172.42.42.201".to_owned()], || {
        metal.ingress("service/nginx")
    });
    let address: Ipv4Addr = "172.42.42.201".parse().unwrap();
    let owner = eventually("exactly one of four nodes answers", secs(10), || {
        let mut nodes = metal.site.answering(address);
        if nodes.len() == 1 { Ok(nodes.remove(0)) } else { Err(format!("{nodes:?}")) }
    });
    for agent in &agents {
        eventually_equal(&format!("{} names the same owner", agent.node()), secs(5), &json!(owner), || {
            let status = agent.status();
            status["services"][0]["announcements"][0]["l2"]["owner"].clone()
        });
    }
    let answer = eventually("the page", secs(20), || {
        metal.site.client.get((IpAddr::from(address), 80)).map_err(|error| error.to_string())
    });
    assert!(answer.name.starts_with("nginx-"), "{answer:?}");
    assert_eq!(metal.site.client.neighbors().get(&IpAddr::from(address)).copied(), {
        let node = metal.site.nodes.iter().find(|node| node.name() == owner).expect("it is a node");
        Some(node.port.mac())
    });

    // Under policy Local the owner is a node with an endpoint, and the pod sees the client itself.
    metal.patch("service/nginx", &json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    eventually("a node with a pod answers", secs(10), || {
        let nodes = metal.site.answering(address);
        let local = matches!(nodes.as_slice(), [node] if node == "node-1" || node == "node-3");
        if local { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    let own = Some(IpAddr::from(metal.site.client.address));
    eventually("the pod sees the client's own address", secs(20), || {
        let answer = metal.site.client.get((IpAddr::from(address), 80)).map_err(|error| error.to_string())?;
        if answer.source == own { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}
