//! NDP: what `answers` shows for ARP, and what only IPv6 has. `ndisc6` and a Linux neighbour table judge.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;

use crier::address::MacAddress;
use crier::arp::packet::ndp::{Message, Packet, group_mac, solicited_node};
use crier::arp::packet::{Frame, Protocol};
use crier::clock;

use crate::answers::owning;
use crate::namespace::{Namespace, ip};
use crate::tests;
use crate::wire::{A_WHILE, CLIENT_IP6, CLIENT_MAC, Ear, NODE_MAC, SOON, Wire, kernel_resolves, neighbour};

tests!(
    a_clients_kernel_finds_the_mac_of_an_ipv6_address,
    ndisc6_gets_an_answer_for_what_is_owned_and_for_nothing_else,
    every_kind_of_solicitation_is_answered_with_the_right_flags,
    a_solicitation_that_came_from_outside_the_link_is_not_answered,
    duplicate_address_detection_of_a_kernel_finds_the_address_taken,
    a_take_over_corrects_an_ipv6_neighbour_that_asks_nothing,
    a_neighbour_that_checks_whether_the_address_is_still_there_stays_reachable,
    the_group_of_an_address_is_joined_while_it_is_owned_and_on_a_link_that_comes_back,
    both_families_are_served_on_one_link,
);

const VIP: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x100);
const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x101);

fn solicitation(target: Ipv6Addr) -> Packet {
    let group = solicited_node(target);
    Packet {
        destination: group_mac(group),
        source: CLIENT_MAC,
        sender_ip: CLIENT_IP6,
        receiver_ip: group,
        message: Message::Solicitation { target, source_link: Some(CLIENT_MAC) },
    }
}

/// What the node says of an address after the client said this.
fn ask(ear: &Ear, question: &Packet, patience: std::time::Duration) -> Option<Packet> {
    ear.say_frame(&Frame::Ndp(*question));
    let of_the_node = |frame: &Frame| frame.source() == NODE_MAC && frame.asks().is_none();
    match ear.hear_frame(Protocol::Ndp, patience, of_the_node)? {
        Frame::Ndp(packet) => Some(packet),
        Frame::Arp(packet) => panic!("ARP on an ear for IPv6: {packet}"),
    }
}

/// Hears the announcements of a take-over out, so that what comes next is an answer.
fn until_silent(ear: &Ear) {
    while ear.hear_frame(Protocol::Ndp, std::time::Duration::from_millis(2500), |_| true).is_some() {}
}

fn a_clients_kernel_finds_the_mac_of_an_ipv6_address() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        assert_eq!(kernel_resolves(&wire.client, OTHER, A_WHILE), None, "nobody owns that one");
        assert!(node.counted(Protocol::Ndp).answers >= 1, "the kernel found it without asking");
    });
}

fn ndisc6_gets_an_answer_for_what_is_owned_and_for_nothing_else() {
    let wire = Wire::new();
    wire.run(async || {
        let _node = owning([VIP]).await;
        let ndisc6 = |address: Ipv6Addr| {
            wire.client.enter(|| {
                let arguments = ["-q", "-1", "-r", "2", "-w", "1000", &address.to_string(), "eth0"];
                let output = Command::new("ndisc6").args(arguments).output().expect("ndisc6");
                String::from_utf8_lossy(&output.stdout).trim().to_lowercase()
            })
        };
        assert_eq!(ndisc6(VIP), NODE_MAC.to_string());
        assert_eq!(ndisc6(OTHER), "");
    });
}

fn every_kind_of_solicitation_is_answered_with_the_right_flags() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::for_ipv6(&wire.client, "eth0");
        until_silent(&ear);
        let everybody = solicitation(VIP);
        let bare =
            |packet: Packet| Packet { message: Message::Solicitation { target: VIP, source_link: None }, ..packet };
        let alone = Packet { destination: NODE_MAC, receiver_ip: VIP, ..everybody };
        let to_the_asker = Packet {
            destination: CLIENT_MAC,
            source: NODE_MAC,
            sender_ip: VIP,
            receiver_ip: CLIENT_IP6,
            message: Message::Advertisement {
                target: VIP,
                router: false,
                solicited: true,
                overrides: true,
                target_link: Some(NODE_MAC),
            },
        };
        for question in [everybody, bare(everybody), alone, bare(alone)] {
            let Some(answer) = ask(&ear, &question, SOON) else { panic!("no answer to {question}") };
            assert_eq!(answer, to_the_asker, "the answer to {question}");
        }
        let probe = Packet::probe(VIP, CLIENT_MAC);
        let answer = ask(&ear, &probe, SOON).expect("an answer to duplicate address detection");
        assert_eq!(answer, Packet::announcement(VIP, NODE_MAC), "to everybody, and not solicited");
        assert_eq!(ask(&ear, &solicitation(OTHER), A_WHILE), None);
        let to_another = Packet { destination: MacAddress([2, 0, 0, 0, 0, 0x77]), ..alone };
        assert_eq!(ask(&ear, &to_another, A_WHILE), None);
        assert_eq!(node.counted(Protocol::Ndp).answers, 5);
    });
}

fn a_solicitation_that_came_from_outside_the_link_is_not_answered() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::for_ipv6(&wire.client, "eth0");
        until_silent(&ear);
        let mut routed = Frame::Ndp(solicitation(VIP)).emit().as_ref().to_vec();
        routed[21] = 254;
        ear.say_octets(&routed);
        let answer = ear.hear_frame(Protocol::Ndp, A_WHILE, |frame| frame.source() == NODE_MAC);
        assert_eq!(answer, None);
        let malformed = node.counted(Protocol::Ndp).ignored.iter().map(|(reason, n)| (reason.code(), *n)).next();
        assert_eq!(malformed, Some(("malformed", 1)));
    });
}

fn duplicate_address_detection_of_a_kernel_finds_the_address_taken() {
    let wire = Wire::new();
    wire.run(async || {
        let _node = owning([VIP]).await;
        wire.client.enter(|| ip(&format!("address add {VIP}/64 dev eth0")));
        let deadline = clock::now() + SOON;
        loop {
            let told = wire.client.enter(|| ip(&format!("-6 address show dev eth0 to {VIP}")));
            if told.contains("dadfailed") {
                return;
            }
            let done = !told.contains("tentative") && told.contains(&VIP.to_string());
            assert!(!done && clock::now() < deadline, "the client's kernel took the address: {told}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

fn a_take_over_corrects_an_ipv6_neighbour_that_asks_nothing() {
    let wire = Wire::new();
    wire.run(async || {
        wire.client.enter(|| ip(&format!("neighbour add {VIP} lladdr 02:00:00:00:00:99 dev eth0 nud stale")));
        let ear = Ear::for_ipv6(&wire.client, "eth0");
        let node = owning([VIP]).await;
        // The node's kernel may still ask whether its link-local address is its own.
        let announced = ear.hear_frame(
            Protocol::Ndp,
            SOON,
            |frame| matches!(frame, Frame::Ndp(packet) if packet.source == NODE_MAC && !packet.sender_ip.is_unspecified()),
        );
        assert_eq!(announced, Some(Frame::Ndp(Packet::announcement(VIP, NODE_MAC))));
        until_corrected(&wire.client).await;
        assert_eq!(node.counted(Protocol::Ndp).answers, 0, "nobody asked");
    });
}

async fn until_corrected(client: &Namespace) {
    let deadline = clock::now() + SOON;
    while client.enter(|| neighbour(VIP)) != Some(NODE_MAC) {
        assert!(clock::now() < deadline, "the neighbour was not corrected");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// MetalLB leaves such a check unanswered where it names no link address, and the entry fails.
fn a_neighbour_that_checks_whether_the_address_is_still_there_stays_reachable() {
    let wire = Wire::new();
    wire.run(async || {
        let _node = owning([VIP]).await;
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        wire.client.enter(|| ip(&format!("neighbour change {VIP} lladdr {NODE_MAC} dev eth0 nud probe")));
        let deadline = clock::now() + SOON;
        loop {
            let told = wire.client.enter(|| ip(&format!("neighbour show {VIP} dev eth0")));
            if told.contains("REACHABLE") {
                return;
            }
            assert!(!told.contains("FAILED") && clock::now() < deadline, "the entry is {told}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

fn the_group_of_an_address_is_joined_while_it_is_owned_and_on_a_link_that_comes_back() {
    let wire = Wire::new();
    wire.run(async || {
        let group = solicited_node(VIP).to_string();
        let joined = || wire.node.enter(|| ip("-6 maddress show dev eth0")).contains(&group);
        assert!(!joined());
        let mut node = owning([VIP]).await;
        assert!(joined(), "{group} was not joined");
        wire.node.enter(|| ip("link delete eth0"));
        node.until("no link to serve", |links| links.is_empty()).await;
        wire.plug_in();
        crate::answers::is_served(&mut node).await;
        assert!(joined(), "{group} was not joined on the link that came back");
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        node.own([OTHER]);
        let deadline = clock::now() + SOON;
        while joined() {
            assert!(clock::now() < deadline, "{group} was not left");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
}

fn both_families_are_served_on_one_link() {
    let wire = Wire::new();
    wire.run(async || {
        let v4: IpAddr = "192.168.35.100".parse().expect("an address");
        let mut node = owning([v4, VIP.into()]).await;
        assert_eq!(kernel_resolves(&wire.client, v4, SOON), Some(NODE_MAC));
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        node.own([v4]);
        node.until("one address", |links| links.values().all(|link| link.addresses == 1)).await;
        wire.client.enter(|| ip("neighbour flush all"));
        assert_eq!(kernel_resolves(&wire.client, VIP, A_WHILE), None, "given up, and yet answered for");
        assert_eq!(kernel_resolves(&wire.client, v4, SOON), Some(NODE_MAC));
    });
}
