//! The responder: who is answered, what is announced, and what becomes of it when the link changes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crier::address::MacAddress;
use crier::arp::packet::Protocol;
use crier::arp::packet::arp::{Operation, Packet};
use crier::arp::state::SocketState;
use crier::clock;

use crate::namespace::{Namespace, ip, try_ip};
use crate::tests;
use crate::wire::{A_WHILE, CLIENT_MAC, Ear, NODE_MAC, Node, SOON, Wire, kernel_resolves, neighbour, who_has};

tests!(
    a_clients_kernel_finds_the_mac_of_the_link,
    only_what_is_owned_is_answered_whether_asked_by_all_alone_or_by_a_probe,
    a_take_over_corrects_a_neighbour_that_asks_nothing_and_is_announced_in_both_forms_again_and_again,
    an_address_given_up_is_neither_answered_nor_announced,
    a_link_that_was_down_answers_and_announces_as_soon_as_it_is_up,
    a_link_that_is_down_at_first_is_served_once_it_is_up,
    a_new_mac_is_announced_and_answered_with,
    a_link_that_vanished_is_served_again_when_it_is_back,
    a_renamed_link_is_served_under_its_new_name,
    a_vlan_on_top_of_the_link_is_another_link,
    another_claimant_is_counted_and_named_but_our_own_second_link_is_not,
    an_answer_does_not_wait_for_a_thousand_announcements,
);

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);

fn is_announcement_of(address: Ipv4Addr) -> impl Fn(&Packet) -> bool {
    move |packet| packet.is_gratuitous() && packet.sender_ip == address
}

pub async fn owning<A: Into<IpAddr>>(addresses: impl IntoIterator<Item = A>) -> Node {
    let mut node = Node::start().await;
    node.own(addresses);
    is_served(&mut node).await;
    node
}

pub async fn is_served(node: &mut Node) {
    node.until("an open socket on eth0", |links| {
        links.values().any(|link| link.name.as_str() == "eth0" && link.socket == SocketState::Open)
    })
    .await;
}

fn a_clients_kernel_finds_the_mac_of_the_link() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        assert_eq!(kernel_resolves(&wire.client, VIP, SOON), Some(NODE_MAC));
        assert_eq!(kernel_resolves(&wire.client, OTHER, A_WHILE), None, "nobody owns that one");
        assert!(node.counted(Protocol::Arp).answers >= 1, "the kernel found it without asking");
    });
}

fn only_what_is_owned_is_answered_whether_asked_by_all_alone_or_by_a_probe() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        let everybody = who_has(VIP);
        let alone = Packet { destination: NODE_MAC, ..everybody };
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..everybody };
        for question in [everybody, alone, probe] {
            let Some(answer) = ear.ask(&question, SOON) else { panic!("no answer to {question}") };
            assert_eq!(answer, Packet::reply_to(&question, NODE_MAC));
        }
        assert_eq!(ear.ask(&who_has(OTHER), A_WHILE), None);
        let to_another_station = Packet { destination: MacAddress([2, 0, 0, 0, 0, 0x77]), ..everybody };
        assert_eq!(ear.ask(&to_another_station, A_WHILE), None);
        assert_eq!(node.counted(Protocol::Arp).answers, 3);
    });
}

fn a_take_over_corrects_a_neighbour_that_asks_nothing_and_is_announced_in_both_forms_again_and_again() {
    let wire = Wire::new();
    wire.run(async || {
        wire.client.enter(|| ip(&format!("neighbour add {VIP} lladdr 02:00:00:00:00:99 dev eth0 nud stale")));
        let ear = Ear::on(&wire.client, "eth0");
        let node = owning([VIP]).await;
        let start = clock::now();
        // What is handed over is announced once more at once, then by the schedule.
        for round in 0..3 {
            for operation in [Operation::Request, Operation::Reply] {
                let Some(heard) = ear.hear(SOON, is_announcement_of(VIP)) else { panic!("no announcement {round}") };
                assert_eq!((heard.operation, heard.sender_mac), (operation, NODE_MAC));
                assert_eq!((heard.source, heard.destination), (NODE_MAC, MacAddress::BROADCAST));
            }
            if round == 0 {
                assert_eq!(wire.client.enter(|| neighbour(VIP)), Some(NODE_MAC), "the neighbour was not corrected");
            }
        }
        assert!(clock::now() - start >= Duration::from_millis(1050), "repeated too soon to be believed");
        assert_eq!(node.counted(Protocol::Arp).answers, 0, "nobody asked");
    });
}

fn an_address_given_up_is_neither_answered_nor_announced() {
    let wire = Wire::new();
    wire.run(async || {
        let mut node = owning([VIP, OTHER]).await;
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
        node.own([OTHER]);
        node.until("one address", |links| links.values().all(|link| link.addresses == 1)).await;
        while ear.hear(Duration::from_millis(1), |_| true).is_some() {}
        assert_eq!(ear.ask(&who_has(VIP), A_WHILE), None);
        let said_later = ear.hear(Duration::from_millis(1300), is_announcement_of(VIP));
        assert_eq!(said_later, None);
        assert!(ear.ask(&who_has(OTHER), SOON).is_some());
        node.own::<IpAddr>([]);
        node.until("no link to serve", |links| links.is_empty()).await;
        // The worker of the link ends beside that.
        let is_silent = || ear.ask(&who_has(OTHER), A_WHILE).is_none();
        assert!((0..10).any(|_| is_silent()), "it is answered on");
    });
}

fn a_link_that_was_down_answers_and_announces_as_soon_as_it_is_up() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
        let heard_down = node.slices.subscribe();
        set_link(&wire.node, heard_down, "down").await;
        while ear.hear(Duration::from_millis(1), |_| true).is_some() {}
        set_link(&wire.node, node.slices.subscribe(), "up").await;
        assert!(ear.hear(SOON, is_announcement_of(VIP)).is_some(), "nothing announced on the link that came up");
        assert!(ear.ask(&who_has(VIP), SOON).is_some(), "no answer on the link that came up");
    });
}

fn a_link_that_is_down_at_first_is_served_once_it_is_up() {
    let wire = Wire::new();
    wire.run(async || {
        wire.node.enter(|| ip("link set eth0 down"));
        let node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        set_link(&wire.node, node.slices.subscribe(), "up").await;
        assert!(ear.hear(SOON, is_announcement_of(VIP)).is_some(), "nothing announced on the link that came up");
        assert!(ear.ask(&who_has(VIP), SOON).is_some(), "no answer on the link that came up");
    });
}

/// Sets eth0 up or down and waits until the plan knows.
async fn set_link(
    namespace: &Namespace,
    mut slices: tokio::sync::watch::Receiver<crier::plan::slice::L2Slice>,
    state: &str,
) {
    namespace.enter(|| ip(&format!("link set eth0 {state}")));
    let carrier = state == "up";
    let known = slices.wait_for(|slice| {
        slice.links.iter().any(|link| link.name.as_str() == "eth0" && link.up == carrier && link.carrier == carrier)
    });
    tokio::time::timeout(SOON, known).await.expect("the observer to see it").expect("an observer");
}

fn a_new_mac_is_announced_and_answered_with() {
    let wire = Wire::new();
    wire.run(async || {
        let _node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        let new = MacAddress([2, 0, 0, 0, 0, 0xaa]);
        wire.node.enter(|| ip(&format!("link set eth0 address {new}")));
        let announced = ear.hear(SOON, |packet| is_announcement_of(VIP)(packet) && packet.sender_mac == new);
        assert!(announced.is_some(), "the new MAC was not announced");
        let answer = ear.ask(&who_has(VIP), SOON).map(|answer| (answer.source, answer.sender_mac));
        assert_eq!(answer, Some((new, new)));
    });
}

fn a_link_that_vanished_is_served_again_when_it_is_back() {
    let wire = Wire::new();
    wire.run(async || {
        let mut node = owning([VIP]).await;
        wire.node.enter(|| ip("link delete eth0"));
        node.until("no link to serve", |links| links.is_empty()).await;
        wire.plug_in();
        is_served(&mut node).await;
        let ear = Ear::on(&wire.client, "eth0");
        assert!(ear.ask(&who_has(VIP), SOON).is_some(), "no answer on the link that came back");
    });
}

fn a_renamed_link_is_served_under_its_new_name() {
    let wire = Wire::new();
    wire.run(async || {
        let mut node = owning([VIP]).await;
        wire.node.enter(|| {
            ip("link set eth0 down");
            ip("link set eth0 name eth7");
            ip("link set eth7 up");
        });
        node.until("no link to serve", |links| links.is_empty()).await;
        let ear = Ear::on(&wire.client, "eth0");
        assert_eq!(ear.ask(&who_has(VIP), A_WHILE), None, "the plan names eth0, and there is none");

        wire.node.enter(|| {
            ip("link set eth7 down");
            ip("link set eth7 name eth0");
            ip("link set eth0 up");
        });
        is_served(&mut node).await;
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
    });
}

fn a_vlan_on_top_of_the_link_is_another_link() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        ear.say_in_vlan(&who_has(VIP), 100);
        let answer = |patience| ear.hear(patience, |heard| heard.sender_ip == VIP && !heard.is_gratuitous());
        assert_eq!(answer(A_WHILE), None, "answered for a VLAN that the node does not have");
        if wire.node.enter(|| try_ip("link add link eth0 name eth0.100 type vlan id 100")).is_ok() {
            wire.node.enter(|| ip("link set eth0.100 up"));
            ear.say_in_vlan(&who_has(VIP), 100);
            assert_eq!(answer(A_WHILE), None, "answered for a VLAN that is not in the plan");
        } else {
            println!("     (this kernel makes no VLAN links: only tried without one)");
        }
        assert_eq!(node.counted(Protocol::Arp).answers, 0);
        // IEEE 802.1Q: VLAN 0 is none; such a tag gives a priority only.
        ear.say_in_vlan(&who_has(VIP), 0);
        assert!(answer(SOON).is_some(), "no answer to a frame with a priority and no VLAN");
    });
}

fn another_claimant_is_counted_and_named_but_our_own_second_link_is_not() {
    let wire = Wire::new();
    wire.run(async || {
        let mut node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        // A second link of the node whose frames come back on the first: only its MAC matters.
        let second = MacAddress([2, 0, 0, 0, 0, 0x1a]);
        let mut slices = node.slices.subscribe();
        wire.node.enter(|| ip(&format!("link add eth1 address {second} type veth peer name plug1")));
        let known = slices.wait_for(|slice| slice.links.iter().any(|link| link.mac == Some(second)));
        tokio::time::timeout(SOON, known).await.expect("the observer to see it").expect("an observer");
        is_served(&mut node).await;
        // A slice that is newer than the second link: who answers for its address knows that link too.
        node.own([VIP, OTHER]);
        node.until_answering("two addresses", |told| told.len() == 2).await;
        ear.ask(&who_has(OTHER), SOON).expect("an answer, after which the second link is known");
        Packet::announcements(VIP, second).iter().for_each(|packet| ear.say(packet));
        assert!(ear.ask(&who_has(VIP), SOON).is_some(), "an answer, after which the announcements were judged");
        assert_eq!(node.counted(Protocol::Arp).conflicts, 0);

        Packet::announcements(VIP, CLIENT_MAC).iter().for_each(|packet| ear.say(packet));
        node.until("a conflict", |links| {
            links.values().any(|link| link.conflicts.get(&VIP.into()).is_some_and(|it| it.mac == CLIENT_MAC))
        })
        .await;
        assert!(ear.ask(&who_has(VIP), SOON).is_some(), "the claim alone takes nothing away");
        assert_eq!(node.counted(Protocol::Arp).conflicts, 2);
    });
}

fn an_answer_does_not_wait_for_a_thousand_announcements() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        let ear = Ear::on(&wire.client, "eth0");
        let many: Vec<Ipv4Addr> = (0..1000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).collect();
        node.own(many.iter().copied().chain([VIP]));
        assert!(ear.hear(SOON, is_announcement_of(many[0])).is_some());
        assert!(ear.ask(&who_has(VIP), SOON).is_some());
        let last = many[999];
        assert!(ear.hear(SOON, is_announcement_of(last)).is_some(), "the answer came after the last announcement");
    });
}
