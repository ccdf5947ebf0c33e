//! The verdict on a received frame: answer it, report who else claims an address of ours, or leave it, and why.
//! Floor 1. A function of its arguments alone. Nothing is remembered here: claimants are the business of `conflict`.

use std::net::Ipv4Addr;

use super::packet::{Operation, Packet};
use crate::address::MacAddress;

/// What to do about a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send this.
    Answer(Packet),
    /// Somebody else says to have an address of ours.
    Conflict(Claimant),
    Ignore(Reason),
}

/// Another station that announces, answers for, or speaks from an address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    pub address: Ipv4Addr,
    pub mac: MacAddress,
}

/// Why a frame needs no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not an ARP packet for IPv4 on Ethernet, tagged for a VLAN, or cut short.
    Malformed,
    /// We sent it ourselves, from this link or from another one that leads to the same wire.
    Own,
    /// The Ethernet destination is neither broadcast nor this link.
    OtherDestination,
    /// The sender's hardware address is no station's: an answer would go to a group or to nobody.
    NoStation,
    /// A reply, or an operation other than a request, about addresses that are not ours.
    NotARequest,
    /// A request for an address that this node does not own on this link.
    NotOwned,
}

impl Reason {
    pub const ALL: [Reason; 6] = [
        Reason::Malformed,
        Reason::Own,
        Reason::OtherDestination,
        Reason::NoStation,
        Reason::NotARequest,
        Reason::NotOwned,
    ];

    /// The reason as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::Own => "own",
            Reason::OtherDestination => "other-destination",
            Reason::NoStation => "no-station",
            Reason::NotARequest => "not-a-request",
            Reason::NotOwned => "not-owned",
        }
    }
}

/// The end of a link that frames are judged for.
#[derive(Debug, Clone, Copy)]
pub struct Station<'a> {
    /// The address of the link, that answers name.
    pub mac: MacAddress,
    /// The addresses of this node's other links. Two links may lead to one wire, and what one says the other hears.
    pub other_macs: &'a [MacAddress],
}

/// Judges one frame. `owns` says whether this node answers for an address on this link.
pub fn judge(station: Station<'_>, owns: impl Fn(Ipv4Addr) -> bool, frame: &[u8]) -> Verdict {
    let Ok(packet) = Packet::parse(frame) else {
        return Verdict::Ignore(Reason::Malformed);
    };
    let ours = |mac: MacAddress| mac == station.mac || station.other_macs.contains(&mac);
    if ours(packet.source) || ours(packet.sender_mac) {
        return Verdict::Ignore(Reason::Own);
    }
    if packet.destination != MacAddress::BROADCAST && packet.destination != station.mac {
        return Verdict::Ignore(Reason::OtherDestination);
    }
    if is_group(packet.sender_mac) || packet.sender_mac == MacAddress::ZERO {
        return Verdict::Ignore(Reason::NoStation);
    }
    // RFC 5227 §2.4: "an ARP packet (Request *or* Reply) where the 'sender IP address' is (one of) the host's own IP
    // address(es) configured on that interface, but the 'sender hardware address' does not match any of the host's
    // own interface addresses".
    if owns(packet.sender_ip) {
        return Verdict::Conflict(Claimant { address: packet.sender_ip, mac: packet.sender_mac });
    }
    match packet.operation {
        // A probe (RFC 5227 §2.1.1, sender 0.0.0.0) is a request like any other: it shall find the address taken.
        Operation::Request if owns(packet.target_ip) => Verdict::Answer(Packet::reply_to(&packet, station.mac)),
        Operation::Request => Verdict::Ignore(Reason::NotOwned),
        Operation::Reply | Operation::Unknown(_) => Verdict::Ignore(Reason::NotARequest),
    }
}

/// A multicast or broadcast address.
fn is_group(mac: MacAddress) -> bool {
    let [first, ..] = mac.0;
    first & 1 == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
    const OUR_OTHER_LINK: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x1a]);
    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
    const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 1]);
    const OWNED: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
    const STRANGE: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);
    const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 2);

    fn judged(frame: &[u8]) -> Verdict {
        judge(Station { mac: OURS, other_macs: &[OUR_OTHER_LINK] }, |address| address == OWNED, frame)
    }

    fn who_has(target_ip: Ipv4Addr) -> Packet {
        Packet {
            destination: MacAddress::BROADCAST,
            source: CLIENT,
            operation: Operation::Request,
            sender_mac: CLIENT,
            sender_ip: CLIENT_IP,
            target_mac: MacAddress::ZERO,
            target_ip,
        }
    }

    #[test]
    fn a_request_for_an_owned_address_is_answered_to_the_asker_alone_with_the_mac_of_the_link() {
        let Verdict::Answer(answer) = judged(&who_has(OWNED).emit()) else { panic!("not answered") };
        assert_eq!(
            answer,
            Packet {
                destination: CLIENT,
                source: OURS,
                operation: Operation::Reply,
                sender_mac: OURS,
                sender_ip: OWNED,
                target_mac: CLIENT,
                target_ip: CLIENT_IP,
            }
        );
    }

    /// Every kind of frame that reaches a link, and what becomes of it.
    #[test]
    fn the_verdict_table_holds() {
        let ask = who_has(OWNED);
        let reply = Packet { operation: Operation::Reply, target_mac: OURS, ..ask };
        let answered = |packet: Packet| Verdict::Answer(Packet::reply_to(&packet, OURS));
        let conflict = Verdict::Conflict(Claimant { address: OWNED, mac: CLIENT });
        let unicast = Packet { destination: OURS, ..ask };
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..ask };
        let relayed = Packet { source: MacAddress([2, 0, 0, 0, 0, 0x77]), ..ask };
        let table = [
            ("a broadcast request for ours", ask, answered(ask)),
            ("a unicast request for ours", unicast, answered(unicast)),
            ("a probe for ours", probe, answered(probe)),
            ("a request relayed by another station", relayed, answered(relayed)),
            ("a request for another's", who_has(STRANGE), Verdict::Ignore(Reason::NotOwned)),
            (
                "a request to another station",
                Packet { destination: CLIENT, ..ask },
                Verdict::Ignore(Reason::OtherDestination),
            ),
            ("a request to a group", Packet { destination: GROUP, ..ask }, Verdict::Ignore(Reason::OtherDestination)),
            ("a frame of our own", Packet { source: OURS, ..ask }, Verdict::Ignore(Reason::Own)),
            (
                "a packet of our own in another's frame",
                Packet { sender_mac: OURS, ..ask },
                Verdict::Ignore(Reason::Own),
            ),
            (
                "our other link announcing the same address",
                Packet { source: OUR_OTHER_LINK, sender_mac: OUR_OTHER_LINK, sender_ip: OWNED, ..ask },
                Verdict::Ignore(Reason::Own),
            ),
            ("a group as sender", Packet { sender_mac: GROUP, ..ask }, Verdict::Ignore(Reason::NoStation)),
            (
                "everybody as sender",
                Packet { sender_mac: MacAddress::BROADCAST, ..ask },
                Verdict::Ignore(Reason::NoStation),
            ),
            ("nobody as sender", Packet { sender_mac: MacAddress::ZERO, ..ask }, Verdict::Ignore(Reason::NoStation)),
            ("another's reply", reply, Verdict::Ignore(Reason::NotARequest)),
            ("reverse ARP", Packet { operation: Operation::Unknown(3), ..ask }, Verdict::Ignore(Reason::NotARequest)),
            ("another announcing ours", Packet { sender_ip: OWNED, ..ask }, conflict),
            ("another answering for ours", Packet { sender_ip: OWNED, ..reply }, conflict),
            ("another asking from ours", Packet { sender_ip: OWNED, ..who_has(STRANGE) }, conflict),
        ];
        for (what, packet, expected) in table {
            assert_eq!(judged(&packet.emit()), expected, "{what}: {packet}");
        }
    }

    #[test]
    fn a_frame_that_is_no_arp_is_malformed() {
        let mut frame = who_has(OWNED).emit();
        frame[12] = 0x86;
        assert_eq!(judged(&frame), Verdict::Ignore(Reason::Malformed));
        assert_eq!(judged(&[]), Verdict::Ignore(Reason::Malformed));
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::code).into();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    proptest! {
        #[test]
        fn only_a_request_for_ours_is_ever_answered_and_never_to_a_group(
            mut frame in proptest::collection::vec(any::<u8>(), 42..64),
            to in proptest::sample::select(vec![MacAddress::BROADCAST, OURS, CLIENT]),
            target in proptest::sample::select(vec![OWNED, STRANGE]),
            operation in 0u8..4,
        ) {
            frame[..6].copy_from_slice(&to.0);
            frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
            frame[38..42].copy_from_slice(&target.octets());
            if let Verdict::Answer(answer) = judged(&frame) {
                prop_assert_eq!(operation, 1, "only a request");
                prop_assert!(to != CLIENT, "only what was sent to us or to everybody");
                prop_assert_eq!(answer.sender_ip, OWNED);
                prop_assert_eq!((answer.source, answer.sender_mac), (OURS, OURS));
                prop_assert!(!is_group(answer.destination));
            }
        }
    }
}
