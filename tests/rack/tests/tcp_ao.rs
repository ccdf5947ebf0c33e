//! TCP-AO (RFC 5925) where the kernel has it, judged by the segments on the wire and the kernel's counters. No router of
//! Debian 12 speaks it, so two agents are each other's peer.

use rack::crier::Crier;
use rack::net::connect;
use rack::pairing::{NODE, ROUTER};
use rack::{Namespace, Need, Rack, eventually, secs};

/// What one end is told of its keys: the entries of `tcp-ao`, with a file for each octets of a key.
struct Keys<'a>(&'a [Key<'a>]);

struct Key<'a> {
    send: u8,
    receive: u8,
    algorithm: &'a str,
    octets: &'a str,
}

struct Pair {
    rack: Rack,
    nodes: [Namespace; 2],
}

impl Pair {
    fn for_test() -> Option<Pair> {
        let rack = Rack::for_test(&[Need::Crier, Need::TcpAo])?;
        let nodes = ["node-1", "node-2"].map(|name| rack.namespace(name));
        connect(&nodes[0], "eth0", &nodes[1], "eth0");
        for (node, (v4, v6)) in nodes.iter().zip([ROUTER, NODE]) {
            node.up("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")]);
        }
        Some(Pair { rack, nodes })
    }

    /// The agent of one node, with the other as its peer over either family. Only the first dials.
    fn agent(&self, at: usize, keys: &Keys) -> Crier {
        let name = self.nodes[at].name();
        let entries = keys.0.iter().enumerate().map(|(number, key)| {
            let file = self.rack.write(&format!("{name}.{number}.key"), key.octets);
            format!(
                "{{ send-id = {}, receive-id = {}, algorithm = \"{}\", key-file = \"{}\" }}, ",
                key.send,
                key.receive,
                key.algorithm,
                file.display()
            )
        });
        let entries: String = entries.collect();
        let tcp_ao = if entries.is_empty() { String::new() } else { format!("tcp-ao = [{entries}]\n") };
        let other = [NODE, ROUTER][at];
        let peers = [("v4", other.0.to_string()), ("v6", other.1.to_string())].map(|(family, address)| {
            format!(
                "[[bgp.peer]]\nname = \"{family}\"\naddress = \"{address}\"\nasn = {}\nconnect-retry-time = \"1s\"\n\
                 passive = {}\n{tcp_ao}",
                64513 - at,
                at == 1
            )
        });
        self.nodes[at].announcer(&format!("[bgp]\nasn = {}\n{}", 64512 + at, peers.concat()))
    }

    /// With these keys both sessions are Established, and each of their segments has its code.
    fn is_established(&self, keys: [&Keys; 2]) {
        let capture = self.nodes[0].capture("eth0");
        // Who only listens comes first: what nobody listens for, the kernel refuses with a segment of its own.
        let agents = [1, 0].map(|at| self.agent(at, keys[at]));
        for agent in &agents {
            eventually(&format!("both sessions of {} are Established", agent.node()), secs(30), || {
                let peers = states(agent);
                if peers == ["Established", "Established"] { Ok(()) } else { Err(format!("{peers:?}")) }
            });
        }
        let segments = capture.bgp_segments();
        assert!(segments.len() > 8, "too few to be two sessions: {segments:?}");
        let bare: Vec<_> = segments.iter().filter(|segment| !segment.is_authenticated).collect();
        assert!(bare.is_empty(), "segments without a code: {bare:?}");
        assert!(self.counter(0, "TCPAOGood") > 0 && self.counter(0, "TCPAOBad") == 0, "the kernel has checked them");
    }

    /// With these keys neither session comes up though one end dials, and the kernel of a node counts why in `counter`.
    fn are_strangers(&self, keys: [&Keys; 2], counter: &str) {
        let agents = [1, 0].map(|at| self.agent(at, keys[at]));
        eventually(&format!("a kernel counts {counter}"), secs(30), || {
            let counted = [0, 1].map(|at| self.counter(at, counter));
            if counted.iter().sum::<u64>() >= 3 { Ok(()) } else { Err(format!("{counted:?}")) }
        });
        for agent in &agents {
            assert!(!states(agent).contains(&"Established".to_owned()), "{:?}", states(agent));
        }
    }

    /// One of the kernel's counters of TCP in a node's namespace, from the two lines of names and numbers.
    fn counter(&self, at: usize, name: &str) -> u64 {
        let text = self.nodes[at].sh("cat /proc/net/netstat");
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut both = names.split(' ').zip(numbers.split(' '));
        let number = both.find(|(known, _)| *known == name).and_then(|(_, number)| number.parse().ok());
        number.unwrap_or_else(|| panic!("the kernel has no counter {name}"))
    }
}

fn states(agent: &Crier) -> Vec<String> {
    let status = agent.status();
    let peers = status["peers"].as_array().into_iter().flatten();
    peers.map(|peer| peer["state"].as_str().unwrap_or_default().to_owned()).collect()
}

const SHA: &str = "hmac-sha-1-96";
const AES: &str = "aes-128-cmac-96";

#[test]
fn sessions_of_both_families_are_authenticated_by_either_algorithm() {
    for algorithm in [SHA, AES] {
        let Some(pair) = Pair::for_test() else {
            return;
        };
        let of = |send, receive| [Key { send, receive, algorithm, octets: "right-5fca" }];
        pair.is_established([&Keys(&of(1, 2)), &Keys(&of(2, 1))]);
    }
}

#[test]
fn a_second_key_is_accepted_and_the_first_is_sent_with() {
    let Some(pair) = Pair::for_test() else { return };
    let old = || Key { send: 1, receive: 1, algorithm: SHA, octets: "old-5fca" };
    let new = || Key { send: 2, receive: 2, algorithm: AES, octets: "new-8d21" };
    // In the middle of a change of keys: one end has the new one in front, the other knows only the old.
    pair.is_established([&Keys(&[old(), new()]), &Keys(&[new(), old()])]);
}

#[test]
fn another_key_is_no_session() {
    let Some(pair) = Pair::for_test() else { return };
    let of = |octets| [Key { send: 1, receive: 1, algorithm: SHA, octets }];
    pair.are_strangers([&Keys(&of("right-5fca")), &Keys(&of("wrong-8d21"))], "TCPAOBad");
}

#[test]
fn an_end_without_a_key_is_no_session() {
    let Some(pair) = Pair::for_test() else { return };
    let right = [Key { send: 1, receive: 1, algorithm: SHA, octets: "right-5fca" }];
    pair.are_strangers([&Keys(&[]), &Keys(&right)], "TCPAORequired");
}
