//! Claims on a real wire: nobody's address is taken, a silent owner is asked first, and conflicts are told and end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crier::address::AddressRange;
use crier::arp::packet::{Frame, Protocol};
use crier::claim::{Acquisition, ConflictKind, Manner};
use crier::clock;

use crate::answers::owning;
use crate::namespace::ip;
use crate::tests;
use crate::wire::{A_WHILE, CLIENT_IP, CLIENT_MAC, Ear, NODE_IP, NODE_MAC, Node, SOON, Wire, kernel_resolves};

tests!(
    an_address_that_a_host_has_is_not_claimed_until_it_leaves,
    a_free_address_is_asked_for_and_then_announced,
    an_owner_that_answers_is_not_robbed_and_a_dead_one_is_at_once,
    a_foreign_host_that_announces_a_held_address_is_fended_off_and_told,
    arping_finds_an_owned_address_taken,
    what_is_answered_for_is_told_from_the_verdict_on_until_the_link_is_no_longer_served,
    a_station_that_speaks_from_a_nodes_address_is_no_foreign_host,
    without_probing_an_address_is_announced_at_once_and_again_when_the_plan_asserts_it,
);

/// One of each family; every test runs for both.
const VIPS: [&str; 2] = ["192.168.35.100", "fd35::100"];

fn for_both(test: impl Fn(&Wire, IpAddr)) {
    for vip in VIPS {
        let wire = Wire::new();
        test(&wire, vip.parse().expect("an address"));
    }
}

fn ear_for(wire: &Wire, vip: IpAddr) -> Ear {
    match vip {
        IpAddr::V4(_) => Ear::on(&wire.client, "eth0"),
        IpAddr::V6(_) => Ear::for_ipv6(&wire.client, "eth0"),
    }
}

fn host_has(wire: &Wire, vip: IpAddr, verb: &str) {
    let (length, nodad) = if vip.is_ipv4() { (32, "") } else { (128, if verb == "add" { " nodad" } else { "" }) };
    wire.client.enter(|| ip(&format!("address {verb} {vip}/{length} dev eth0{nodad}")));
}

fn taking_over() -> Acquisition {
    Acquisition::TakeOver { from: "node1".into(), suspect: false }
}

fn an_address_that_a_host_has_is_not_claimed_until_it_leaves() {
    for_both(|wire, vip| {
        wire.run(async || {
            host_has(wire, vip, "add");
            let mut node = Node::start().await;
            node.own_by(&Acquisition::FirstUse, [vip]);
            node.until_told("the host that has it", |told| {
                told.get(&vip).is_some_and(|it| (it.mac, it.kind) == (CLIENT_MAC, ConflictKind::Occupied))
            })
            .await;
            node.until_answered("the station that answers", |answered| {
                answered.get(&vip).is_some_and(|it| it.mac == CLIENT_MAC && it.node.is_none())
            })
            .await;
            assert_eq!(node.counted(Protocol::of(vip)).gratuitous, 0, "announced though somebody has it");
            host_has(wire, vip, "delete");
            node.until_told("that it is free", |told| told.is_empty()).await;
            node.until_answered("that nobody else answers", |answered| answered.is_empty()).await;
            assert_eq!(kernel_resolves(&wire.client, vip, SOON), Some(NODE_MAC));
        });
    });
}

fn a_free_address_is_asked_for_and_then_announced() {
    for_both(|wire, vip| {
        wire.run(async || {
            let node = Node::start().await;
            let ear = ear_for(wire, vip);
            node.own_by(&Acquisition::FirstUse, [vip]);
            let start = clock::now();
            let spoken = Protocol::of(vip);
            let ours = |frame: &Frame| {
                frame.source() == NODE_MAC
                    && (frame.asks() == Some(vip) || frame.says().is_some_and(|it| it.address == vip))
            };
            for probe in 0..3 {
                let Some(heard) = ear.hear_frame(spoken, SOON, ours) else { panic!("no probe {probe}") };
                assert_eq!(heard, Frame::probe(vip, NODE_MAC));
            }
            let announced = ear.hear_frame(spoken, SOON, ours);
            assert_eq!(announced, Frame::announcements(vip, NODE_MAC).next());
            assert!(clock::now() - start >= Duration::from_millis(105), "before anybody could have answered");
        });
    });
}

fn an_owner_that_answers_is_not_robbed_and_a_dead_one_is_at_once() {
    for_both(|wire, vip| {
        wire.run(async || {
            let mut node = owning([vip]).await;
            node.own::<IpAddr>([]);
            node.until("no link to serve", |links| links.is_empty()).await;
            host_has(wire, vip, "add");
            node.own_by(&taking_over(), [vip]);
            node.until_told("the owner that is alive", |told| {
                told.get(&vip).is_some_and(|it| (it.mac, it.kind) == (CLIENT_MAC, ConflictKind::AliveUnheard))
            })
            .await;
            let said = node.counted(Protocol::of(vip)).gratuitous;
            host_has(wire, vip, "delete");
            node.until_told("that it is dead", |told| told.is_empty()).await;
            assert_eq!(kernel_resolves(&wire.client, vip, SOON), Some(NODE_MAC));
            assert!(node.counted(Protocol::of(vip)).gratuitous > said, "not announced");

            node.own::<IpAddr>([]);
            node.until("no link to serve", |links| links.is_empty()).await;
            let ear = ear_for(wire, vip);
            let start = clock::now();
            node.own_by(&taking_over(), [vip]);
            let announces =
                |frame: &Frame| frame.source() == NODE_MAC && frame.says().is_some_and(|it| it.address == vip);
            assert!(ear.hear_frame(Protocol::of(vip), SOON, announces).is_some());
            println!("     taken over from a dead owner after {:?} ({vip})", clock::now() - start);
        });
    });
}

fn a_foreign_host_that_announces_a_held_address_is_fended_off_and_told() {
    for_both(|wire, vip| {
        wire.run(async || {
            let mut node = owning([vip]).await;
            let ear = ear_for(wire, vip);
            let spoken = Protocol::of(vip);
            let ours = |frame: &Frame| frame.source() == NODE_MAC;
            // The rounds of the take-over, so that what comes after them is the defence.
            while ear.hear_frame(spoken, Duration::from_millis(2500), ours).is_some() {}
            Frame::announcements(vip, CLIENT_MAC).for_each(|frame| ear.say_frame(&frame));
            assert_eq!(ear.hear_frame(spoken, SOON, ours), Frame::announcements(vip, NODE_MAC).next());
            node.until_told("the foreign host", |told| {
                told.get(&vip).is_some_and(|it| (it.mac, it.kind) == (CLIENT_MAC, ConflictKind::Contested))
            })
            .await;
            while ear.hear_frame(spoken, A_WHILE, ours).is_some() {}
            Frame::announcements(vip, CLIENT_MAC).for_each(|frame| ear.say_frame(&frame));
            assert_eq!(ear.hear_frame(spoken, A_WHILE, ours), None, "defended twice within ten seconds");
        });
    });
}

fn what_is_answered_for_is_told_from_the_verdict_on_until_the_link_is_no_longer_served() {
    for_both(|wire, vip| {
        wire.run(async || {
            host_has(wire, vip, "add");
            let mut node = Node::start().await;
            node.own_by(&Acquisition::FirstUse, [vip]);
            node.until_told("the host that has it", |told| told.contains_key(&vip)).await;
            assert!(node.answering.borrow().is_empty(), "told before the verdict");
            host_has(wire, vip, "delete");
            node.until_answering("that it answers", |answering| answering.contains(&vip)).await;
            assert_eq!(kernel_resolves(&wire.client, vip, SOON), Some(NODE_MAC));
            node.own::<IpAddr>([]);
            node.until_answering("that it has ended", |answering| answering.is_empty()).await;
        });
    });
}

/// The client is another Node's host, whose pulses are not heard. Its kernel answers for the Node's address.
fn a_station_that_speaks_from_a_nodes_address_is_no_foreign_host() {
    let wire = Wire::new();
    wire.run(async || {
        let vip: IpAddr = "192.168.35.100".parse().expect("an address");
        host_has(&wire, vip, "add");
        let mut node = Node::start().await;
        node.slices.send_modify(|slice| slice.node_addresses = Arc::new([(CLIENT_IP.into(), "node2".into())].into()));
        let ear = ear_for(&wire, vip);
        node.own_by(&Acquisition::FirstUse, [vip]);
        let question = ear.hear_frame(Protocol::Arp, SOON, |frame| frame.asks() == Some(CLIENT_IP.into()));
        assert_eq!(question, Frame::question(CLIENT_IP.into(), NODE_IP.into(), NODE_MAC));
        node.until_told("the node that has it", |told| told.contains_key(&vip)).await;
        let told = node.conflicts.borrow().get(&vip).map(|it| (it.mac, it.kind));
        assert_eq!(told, Some((CLIENT_MAC, ConflictKind::AliveUnheard)), "the first that is told");
    });
}

fn without_probing_an_address_is_announced_at_once_and_again_when_the_plan_asserts_it() {
    for_both(|wire, vip| {
        wire.run(async || {
            host_has(wire, vip, "add");
            let node = Node::start().await;
            let manner = Manner { probe: false, announce_again: Vec::new(), ..Manner::default() };
            let range = AddressRange::new(vip, vip).expect("one address");
            node.slices.send_modify(|slice| slice.manners = Arc::new(vec![(range, Arc::new(manner))]));
            let ear = ear_for(wire, vip);
            let ours =
                |frame: &Frame| frame.source() == NODE_MAC && frame.says().is_some_and(|says| says.address == vip);
            let spoken = Protocol::of(vip);
            node.own_by(&Acquisition::FirstUse, [vip]);
            assert!(ear.hear_frame(spoken, SOON, ours).is_some());
            while ear.hear_frame(spoken, A_WHILE, ours).is_some() {}
            assert_eq!(node.counted(spoken).probes, 0);
            node.slices.send_modify(|slice| slice.assertions = [(vip, 1_u32)].into_iter().collect());
            assert!(ear.hear_frame(spoken, SOON, ours).is_some(), "announced again");
        });
    });
}

/// RFC 5227 as another implementation speaks it.
fn arping_finds_an_owned_address_taken() {
    let wire = Wire::new();
    wire.run(async || {
        let _node = owning(["192.168.35.100".parse::<IpAddr>().expect("an address")]).await;
        let arping = |address: &str| {
            wire.client.enter(|| {
                let arguments = ["-D", "-I", "eth0", "-c", "1", "-w", "2", address];
                let output = std::process::Command::new("arping").args(arguments).output().expect("arping");
                String::from_utf8_lossy(&output.stdout).to_lowercase()
            })
        };
        let told = arping("192.168.35.100");
        assert!(told.contains(&NODE_MAC.to_string()), "{told}");
        let told = arping("192.168.35.101");
        assert!(!told.contains(&NODE_MAC.to_string()), "{told}");
    });
}
