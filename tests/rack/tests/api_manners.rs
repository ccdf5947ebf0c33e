//! What idle agents ask of a real API server, as their own metric counts it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rack::crier::Crier;
use rack::{Metal, Need, Rack, Service, eventually, rest, secs};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const LAN: &str = "[pulse]\nunauthenticated = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n\
                   [[l2]]\ninterfaces = [\"eth0\"]\n[api]\nlisten = \"\"\n";

fn requests(agent: &Crier) -> u64 {
    let mut socket = UnixStream::connect(agent.socket()).expect("the agent answers");
    let request = "GET /metrics HTTP/1.1\r\nhost: crier\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let value = answer.lines().find_map(|line| line.strip_prefix("crier_api_requests_total "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no count in\n{answer}"))
}

#[test]
fn idle_agents_ask_nothing_and_the_one_that_allocates_only_renews_its_lease() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let _pod = metal.pod(0, "web-1", "web", &[8080]);
    let agents = metal.agents(LAN);
    metal.try_apply(&Service::new("web").selects("web").ports(&[(80, 8080)]).object()).expect("it is taken");
    eventually("it has its address", secs(10), || {
        if metal.ingress("service/web").is_empty() { Err("none") } else { Ok(()) }
    });
    rest(secs(3));
    let before: Vec<u64> = agents.iter().map(requests).collect();
    rest(secs(10));
    for (agent, before) in agents.iter().zip(before) {
        let asked = requests(agent) - before;
        // The Lease is held for six seconds and renewed every two.
        let most = if agent.status()["allocates"] == true { 8 } else { 0 };
        assert!(asked <= most, "{} asked {asked} times in ten idle seconds, {most} at most", agent.node());
        println!("{}: {asked} requests in ten idle seconds", agent.node());
    }
}
