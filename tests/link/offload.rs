//! ARP answered in the kernel: the same answers to the same questions as by the socket, and none from an agent that does
//! not live.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crier::address::MacAddress;
use crier::arp::offload::life;
use crier::arp::packet::Protocol;
use crier::arp::packet::arp::{Operation, Packet};
use crier::arp::task::Parting;
use crier::clock;

use crate::namespace::ip;
use crate::tests;
use crate::wire::{A_WHILE, CLIENT_MAC, Ear, NODE_MAC, Node, SOON, Wire, kernel_resolves, who_has};

tests!(
    the_kernel_answers_for_what_is_held_and_the_socket_hears_only_the_rest,
    a_new_mac_is_answered_with_by_the_kernel_too,
    the_kernel_answers_no_longer_for_an_address_that_was_given_up,
    the_kernel_falls_silent_when_the_agent_freezes,
    the_kernel_answers_on_over_a_restart_until_its_time_is_over,
    the_kernel_answers_no_longer_once_nobody_has_its_program,
);

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);

/// `None`, and a line of it, where this kernel takes no program.
async fn offloading(addresses: &[Ipv4Addr]) -> Option<Node> {
    let mut node = Node::start_with(Some(life(None))).await;
    node.own(addresses.iter().copied());
    crate::answers::is_served(&mut node).await;
    let offloaded = node.states.borrow().values().any(|link| link.offloaded);
    if !offloaded {
        eprintln!("this kernel takes no program for ARP: nothing to see");
    }
    offloaded.then_some(node)
}

fn the_kernel_answers_for_what_is_held_and_the_socket_hears_only_the_rest() {
    let wire = Wire::new();
    wire.run(async || {
        let Some(node) = offloading(&[VIP]).await else { return };
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        let ear = Ear::on(&wire.client, "eth0");
        let everybody = who_has(VIP);
        let alone = Packet { destination: NODE_MAC, ..everybody };
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..everybody };
        for question in [everybody, alone, probe] {
            let Some(answer) = ear.ask(&question, SOON) else { panic!("no answer to {question}") };
            assert_eq!(answer, Packet::reply_to(&question, NODE_MAC));
        }
        assert_eq!(ear.ask(&who_has(OTHER), A_WHILE), None, "nobody owns that one");
        let to_another_station = Packet { destination: MacAddress([2, 0, 0, 0, 0, 0x77]), ..everybody };
        assert_eq!(ear.ask(&to_another_station, A_WHILE), None);
        let from_nobody = Packet { sender_mac: MacAddress([1, 0, 0x5e, 0, 0, 1]), ..everybody };
        assert_eq!(ear.ask(&from_nobody, A_WHILE), None);
        // Somebody who claims the address is heard by the socket, which tells of it.
        let claim = Packet { sender_ip: VIP, target_ip: VIP, operation: Operation::Request, ..everybody };
        let mut conflicts = node.conflicts.clone();
        ear.say(&claim);
        let told = conflicts.wait_for(|all| all.get(&VIP.into()).is_some_and(|it| it.mac == CLIENT_MAC));
        tokio::time::timeout(SOON, told).await.expect("the claim is told of").expect("the node stands");
        let counted = async {
            while node.counted(Protocol::Arp).answers < 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, counted).await.expect("three questions of ours and one of the kernel's are counted");
    });
}

fn a_new_mac_is_answered_with_by_the_kernel_too() {
    let wire = Wire::new();
    wire.run(async || {
        let Some(mut node) = offloading(&[VIP]).await else { return };
        let mac = MacAddress([2, 0, 0, 0, 0, 0x44]);
        ip(&format!("link set eth0 address {mac}"));
        node.until("the new MAC", |links| links.values().any(|link| link.mac == mac)).await;
        let ear = Ear::on(&wire.client, "eth0");
        let answer = ear.ask(&who_has(VIP), SOON).expect("an answer");
        assert_eq!((answer.sender_mac, answer.source), (mac, mac));
    });
}

fn the_kernel_answers_no_longer_for_an_address_that_was_given_up() {
    let wire = Wire::new();
    wire.run(async || {
        let Some(mut node) = offloading(&[VIP, OTHER]).await else { return };
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(OTHER), SOON).is_some());
        node.own([VIP]);
        node.until("one address less", |links| links.values().any(|link| link.addresses == 1)).await;
        assert_eq!(ear.ask(&who_has(OTHER), A_WHILE), None);
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
    });
}

/// The responder has ended, as for a restart. What keeps its program alive.
async fn ended(node: Node, back_by: Instant) -> Vec<OwnedFd> {
    let (keeper, kept) = tokio::sync::oneshot::channel();
    node.parting.send(Parting::Restart { back_by, keeper }).expect("the responder runs");
    let programs = tokio::time::timeout(SOON, kept).await.expect("it ends").expect("it hands its programs out");
    assert_eq!(programs.len(), 1, "one for each link");
    programs
}

fn the_kernel_answers_on_over_a_restart_until_its_time_is_over() {
    let wire = Wire::new();
    wire.run(async || {
        let Some(node) = offloading(&[VIP]).await else { return };
        let back_by = clock::now() + Duration::from_millis(1500);
        let programs = ended(node, back_by).await;
        let ear = Ear::on(&wire.client, "eth0");
        // Much longer than the life of a program whose agent is frozen.
        while clock::now() + Duration::from_millis(200) < back_by {
            assert!(ear.ask(&who_has(VIP), Duration::from_millis(100)).is_some(), "in its time it answers");
        }
        let deadline = back_by + SOON;
        while ear.ask(&who_has(VIP), Duration::from_millis(20)).is_some() {
            assert!(clock::now() < deadline, "its time is over");
        }
        assert!(clock::now() < back_by + Duration::from_millis(500), "and then it is silent at once");
        assert_eq!(ear.ask(&who_has(VIP), A_WHILE), None);
        drop(programs);
    });
}

fn the_kernel_answers_no_longer_once_nobody_has_its_program() {
    let wire = Wire::new();
    wire.run(async || {
        let Some(node) = offloading(&[VIP]).await else { return };
        let programs = ended(node, clock::now() + SOON * 6).await;
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
        drop(programs);
        let deadline = clock::now() + SOON;
        while ear.ask(&who_has(VIP), Duration::from_millis(20)).is_some() {
            assert!(clock::now() < deadline, "the next agent has taken it off the link");
        }
        assert_eq!(ear.ask(&who_has(VIP), A_WHILE), None);
    });
}

/// The argument that makes this program the agent of `the_kernel_falls_silent_when_the_agent_freezes`.
pub const ANSWERING: &str = "--answering";

/// Answers in the namespace of its parent until that closes the pipe; says first whether the kernel does it.
pub fn answer_for_ever() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let node = offloading(&[VIP]).await;
        println!("{}", if node.is_some() { "offloaded" } else { "not offloaded" });
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        drop((closed.await, node));
    });
}

/// The agent is another process here, because all its threads are to stop.
fn the_kernel_falls_silent_when_the_agent_freezes() {
    let wire = Wire::new();
    let mut agent = wire.node.enter(|| {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg(ANSWERING).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program starts")
    });
    let mut told = String::new();
    BufReader::new(agent.stdout.take().expect("it was piped")).read_line(&mut told).expect("the agent says how it is");
    if told.trim() == "offloaded" {
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
        let stop = Command::new("kill").args(["-STOP", &agent.id().to_string()]).status().expect("kill");
        assert!(stop.success());
        let deadline = clock::now() + SOON;
        while ear.ask(&who_has(VIP), Duration::from_millis(20)).is_some() {
            assert!(clock::now() < deadline, "who froze falls silent");
        }
        assert_eq!(ear.ask(&who_has(VIP), A_WHILE), None);
    }
    agent.kill().expect("it is ours");
    agent.wait().expect("it ended");
}
