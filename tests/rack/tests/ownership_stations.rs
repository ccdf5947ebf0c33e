//! Stations and keys of a link: one that answers every ARP probe, and a key that is changed node by node.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::packet::{Arp, ArpOperation, Frames, PacketSocket};
use rack::{Host, Need, Rack, eventually, eventually_equal, millis, secs, throughout};

const NEEDS: [Need; 1] = [Need::Crier];

/// How often a client of its own asks each address while a key is changed.
const COUNTED: Duration = millis(20);

/// Answers every ARP probe of the link, as a switch does that suppresses ARP, until the job is done.
fn while_it_answers_every_probe(host: &Host, job: impl FnOnce() + Send) {
    let over = AtomicBool::new(false);
    let answer = || {
        let socket = PacketSocket::open("eth0", Frames::Arp, millis(20)).expect("the host has eth0");
        let own = host.port.mac();
        let mut buffer = [0; 256];
        while !over.load(Ordering::Relaxed) {
            let Ok(Some((_, frame))) = socket.receive(&mut buffer) else { continue };
            let Some(probe) = Arp::read(frame).filter(|arp| arp.is_probe() && arp.frame_from != own) else { continue };
            let answer = Arp {
                frame_from: own,
                frame_to: probe.frame_from,
                operation: ArpOperation::Reply,
                sender_mac: own,
                sender: probe.target,
                target_mac: probe.sender_mac,
                target: Ipv4Addr::UNSPECIFIED,
            };
            socket.send(&answer.frame()).expect("the link takes a frame");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| host.run(answer));
        job();
        over.store(true, Ordering::Relaxed);
    });
}

fn changes(agents: &[Crier]) -> usize {
    let logs: Vec<String> = agents.iter().map(|agent| agent.process().log()).collect();
    logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("addresses held")).count()
}

#[test]
fn a_station_that_answers_every_probe_is_named_after_a_few_exchanges_and_either_remedy_helps() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::new(&rack, 2);
    let station = lan.site.host("proxy", 77);
    let mac = station.port.mac();
    for name in ["web-1", "web-2", "web-3"] {
        lan.service(name, "");
    }
    while_it_answers_every_probe(&station, || {
        let mut agents = lan.agents();
        eventually("the station is named as one that answers for all", secs(20), || {
            let problems: String = agents.iter().map(lan::problems).collect();
            let is_named = problems.contains(&mac.to_string()) && problems.contains("ignore-stations");
            if is_named { Ok(()) } else { Err(problems) }
        });
        throughout("the first exchanges pass", secs(2), || Ok::<(), String>(()));
        let assigned = |agents: &[Crier]| -> Vec<String> {
            let address = |name| lan::service(&agents[0], name)["announcements"][0]["address"].to_string();
            ["web-1", "web-2", "web-3"].map(address).into()
        };
        let (before, count) = (assigned(&agents), changes(&agents));
        throughout("no address is exchanged any more", secs(8), || {
            let now = (assigned(&agents), changes(&agents));
            if now == (before.clone(), count) { Ok(()) } else { Err(format!("{now:?}, before {before:?}, {count}")) }
        });
        let addresses: Vec<Ipv4Addr> = (0..3).map(|n| Ipv4Addr::new(192, 168, 35, 100 + n)).collect();
        for (number, address) in addresses.iter().enumerate() {
            lan.service(&format!("web-{}", number + 1), &address.to_string());
        }
        for remedy in [format!("ignore-stations = [\"{mac}\"]"), "probe = false".to_owned()] {
            let file = lan.configuration().replace("[[l2]]\n", &format!("[[l2]]\n{remedy}\n"));
            for node in 0..2 {
                lan.restart(&mut agents, node, &file);
            }
            lan.all_hear(&agents);
            let owners = lan.owners(&addresses, secs(10));
            println!("{remedy}: {owners:?}");
            eventually_equal(&format!("with {remedy} nobody complains"), secs(10), &String::new(), || {
                agents.iter().map(lan::problems).collect::<String>()
            });
        }
    });
}

#[test]
fn a_key_that_is_changed_node_by_node_moves_nothing_and_no_client_notices() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 4);
    let addresses = lan.services(8);
    let file = |new: &str, old: &str| {
        let old = if old.is_empty() { String::new() } else { format!("old-key-files = [\"{old}\"]\n") };
        lan.configuration_on("[\"eth0\"]", &format!("key-file = \"{new}\"\n{old}{}", lan::PATIENT))
    };
    let old = lan.key.display().to_string();
    let new = rack.write("new.key", "fedcba9876543210fedcba9876543210").display().to_string();
    // What a restart moves comes back: the rule of the rotation is that nothing else moves, so owners keep what they have.
    let sticky = |file: String| file.replace("[[l2]]\n", "[[l2]]\nsticky = true\n");
    let mut agents = lan.agents_with(&sticky(file(&old, "")));
    let watch = lan.watch(&addresses);
    let counter = lan.site.host("counter", 79);
    let counting: Vec<_> =
        addresses.iter().map(|address| counter.connect_steadily((IpAddr::from(*address), 80), COUNTED)).collect();
    for step in [file(&new, &old), file(&new, "")] {
        for node in 0..4 {
            let name = lan.site.node(node).name().to_owned();
            let before = lan.owners(&addresses, secs(5));
            lan.restart(&mut agents, node, &sticky(step.clone()));
            lan.all_hear(&agents);
            let after = lan.owners(&addresses, secs(3));
            let moved: Vec<_> =
                before.iter().filter(|(address, owner)| **owner != name && after[*address] != **owner).collect();
            assert!(moved.is_empty(), "while {name} was restarted {moved:?} moved: {after:?}");
        }
    }
    for agent in &agents {
        let log = agent.process().log();
        assert!(!log.contains("node fell silent"), "{}:\n{}", agent.node(), agent.process().log_tail(30));
    }
    watch.end(millis(500));
    // A clean stop hands over within the time between two requests; one that meets it may be lost.
    for (address, counting) in addresses.iter().zip(counting) {
        let outcomes = counting.stop();
        println!("{address}, each {COUNTED:?}: {outcomes}");
        assert!(outcomes.longest_gap() < COUNTED * 6, "{address}: {outcomes}");
    }
}
