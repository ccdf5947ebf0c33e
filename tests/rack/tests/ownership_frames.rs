//! What owners send unasked: how many frames where pulses are filtered, and the times that `[[l2]]` sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::lan::Lan;
use rack::packet::{Arp, Mac};
use rack::{Need, Rack, Service, eventually, eventually_equal, millis, now, secs, throughout};

const NEEDS: [Need; 2] = [Need::Crier, Need::Nft];

/// `doc/ownership.md`: broadcasts and multicasts of a node within a second, pulses included, in a state that lasts.
const BUDGET: usize = 200;

/// When each station sent a broadcast or a multicast.
fn floods(capture: &Capture) -> BTreeMap<Mac, Vec<Instant>> {
    let mut sent: BTreeMap<Mac, Vec<Instant>> = BTreeMap::new();
    capture.each(|frame| {
        if let [first, .., a, b, c, d, e, f] = frame.bytes[..12]
            && first & 1 == 1
        {
            sent.entry(Mac([a, b, c, d, e, f])).or_default().push(frame.at);
        }
    });
    sent
}

/// What a station sent in each second since: announcements, probes, questions in its own name, and all else.
fn kinds_by_second(capture: &Capture, mac: Mac, since: Instant) -> BTreeMap<u64, [usize; 4]> {
    let mut kinds: BTreeMap<u64, [usize; 4]> = BTreeMap::new();
    capture.each(|frame| {
        if frame.bytes[0] & 1 == 0 || frame.bytes[6..12] != mac.0 || frame.at < since {
            return;
        }
        let kind = match Arp::read(&frame.bytes) {
            Some(arp) if arp.is_gratuitous() => 0,
            Some(arp) if arp.is_probe() => 1,
            Some(_) => 2,
            None => 3,
        };
        kinds.entry(frame.at.duration_since(since).as_secs()).or_default()[kind] += 1;
    });
    kinds
}

/// The most of these that lie within one second that begins at `from` or later.
fn most_in_a_second(times: &[Instant], from: Instant) -> usize {
    let first = times.partition_point(|at| *at < from);
    let within = |index: usize| times.partition_point(|at| *at < times[index] + secs(1)) - index;
    (first..times.len()).map(within).max().unwrap_or_default()
}

/// As it was found: four nodes with 400 addresses, and a switch that drops all pulses from some moment on. Output: each address is with its
/// owner, and in the state that lasts no node sends more than the budget in any second.
#[test]
fn four_nodes_with_four_hundred_addresses_stay_within_the_budget_of_frames_while_pulses_are_filtered() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 4);
    lan.tell_nodes();
    let addresses: Vec<Ipv4Addr> = (0..400u32).map(|n| Ipv4Addr::from_bits(0x0a4d_0001 + n)).collect();
    let services: String = addresses
        .iter()
        .map(|it| Service::new(&format!("s{}", it.to_bits())).anywhere().addresses(&it.to_string()).manifest())
        .collect();
    lan.manifests.write("many.yaml", &services);
    let file = lan
        .configuration_on("[\"eth0\"]\nsubnet = \"ignore\"", &lan.patient_pulse())
        .replace("addresses = [", "addresses = [\"10.77.0.0/22\", ");
    let agents: Vec<Crier> = (0..4).map(|node| lan.agent_with(node, &file)).collect();
    for agent in &agents {
        agent.wait_ready(secs(60));
    }
    lan.site.client.ip("route add 10.77.0.0/22 dev eth0");
    let sample: Vec<Ipv4Addr> = addresses.iter().copied().step_by(25).collect();
    let before = eventually("each has one owner, and all nodes have some", secs(60), || {
        let owners = lan.owners(&sample, secs(20));
        let names: BTreeSet<&String> = owners.values().collect();
        if names.len() == 4 { Ok(owners) } else { Err(format!("{names:?}")) }
    });
    let capture = lan.site.client.port.capture();
    lan.drop_pulses();
    let filtered = now();
    lan.owners_stay("nothing moves", &before, secs(40));
    let own = lan.site.nodes.iter().map(|node| (node.port.mac(), node.name()));
    let sent = floods(&capture);
    for (mac, name) in own {
        let times = sent.get(&mac).cloned().unwrap_or_default();
        let (first, steady) = (most_in_a_second(&times, filtered), most_in_a_second(&times, filtered + secs(15)));
        let kinds = kinds_by_second(&capture, mac, filtered);
        println!("{name}: {kinds:?}");
        println!("{name}: {} frames in all, {first} in the worst second, {steady} once the state lasts", times.len());
        assert!(steady <= BUDGET, "{name} sent {steady} frames in a second");
    }
    assert_eq!(lan.owners(&sample, secs(5)), before);
}

/// Input: `announce-again` with two times, and `preempt-delay`; the better node's agent stops and is back. Output: on the wire an announcement
/// follows at these times and at no other of the first seconds; the node asks for the address when its delay is over, and not before.
#[test]
fn announcements_are_repeated_when_the_file_says_and_a_node_that_is_back_waits_for_its_delay() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 2);
    lan.tell_nodes();
    let addresses = lan.services(1);
    let l2 = "[\"eth0\"]\npreempt-delay = \"6s\"\nannounce-again = \"300ms, 700ms\"\n\
              preference = [{ nodes = \"host=node-1\", weight = 100 }]";
    let file = lan.configuration_on(l2, &lan.patient_pulse());
    let mut agents = lan.agents_with(&file);
    let answered_by = |name: &str, within: Duration| {
        eventually_equal(&format!("{name} answers"), within, &vec![name.to_owned()], || lan.answering(addresses[0]));
    };
    answered_by("node-1", secs(20));
    let watch = lan.watch(&addresses);
    let capture = lan.site.client.port.capture();
    agents[0].stop(secs(10));
    answered_by("node-2", secs(5));
    let mac = lan.site.node(1).port.mac();
    let announced = || {
        let all = capture.arps().into_iter().filter(|(_, it)| it.sender == addresses[0] && it.frame_from == mac);
        let mut times: Vec<Instant> = all.filter(|(_, it)| it.is_gratuitous()).map(|(at, _)| at).collect();
        // One announcement is a request and a reply.
        times.dedup_by(|later, earlier| later.duration_since(*earlier) < millis(20));
        times
    };
    throughout("it has announced as often as it is to", secs(3), || Ok::<(), String>(()));
    let times = announced();
    let after: Vec<Duration> = times.iter().map(|at| at.duration_since(times[0])).collect();
    let expected = [0, 50, 300, 700].map(millis);
    let close = |(at, expected): (&Duration, &Duration)| *at + millis(2) >= *expected && *at < *expected + millis(150);
    assert!(after.len() == expected.len() && after.iter().zip(&expected).all(close), "{after:?}");

    let started = now();
    agents[0] = lan.agent_with(0, &file);
    agents[0].wait_ready(secs(20));
    let is_early = || now() < started + secs(6);
    while is_early() {
        let seen = lan.answering(addresses[0]);
        assert!(seen == ["node-2"] || !is_early(), "{seen:?} {:?} after the start", started.elapsed());
    }
    answered_by("node-1", secs(6));
    println!("node-1 had it again {:?} after its start", started.elapsed());
    watch.end(millis(900));
}
