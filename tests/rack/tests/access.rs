//! The three ways to the API server: a token, a client certificate, and what Kubernetes gives a pod.

use std::net::SocketAddr;

use rack::kubernetes::{Proof, User};
use rack::{Metal, Need, Rack, Service, eventually_equal, secs};

const POOL: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n[[l2]]\n";

#[test]
fn an_agent_allocates_however_it_proves_who_it_is() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::new(&rack, 1);
    let node = metal.site.node(0);
    let url = metal.url();
    let in_cluster = "[kubernetes]\nin-cluster = true\n".to_owned();
    let ways = [
        ("token", metal.access_by(Proof::Token, &url)),
        ("client-certificate", metal.access_by(Proof::ClientCertificate, &url)),
        ("in-cluster", in_cluster),
    ];
    for (number, (way, access)) in ways.iter().enumerate() {
        let agent = node.crier_with(node.name(), &format!("{access}{POOL}"), |command| {
            if *way == "in-cluster" {
                let server: SocketAddr = url.strip_prefix("https://").expect("an https address").parse().unwrap();
                metal.in_cluster(command, User::Crier, server);
            }
        });
        agent.wait_ready(secs(20));
        let service = Service::new(way).object();
        metal.try_apply(&service).expect("the API server takes the Service");
        // The next free one each time: what was given before is known from the status alone.
        let expected = vec![format!("192.168.35.{}", 100 + number)];
        eventually_equal(&format!("an address by {way}"), secs(15), &expected, || {
            metal.ingress(&format!("service/{way}"))
        });
        let ended = agent.stop(secs(10));
        assert!(ended.success(), "by {way}: {ended}");
    }
}
