//! The verdict on a received frame: answer it, report a station that claims an address of ours, or ignore it, and why.
//! Floor 1. A pure function, the same for ARP and NDP. It remembers nothing; `machine` remembers claimants.

use std::net::IpAddr;

use crate::address::MacAddress;
use crate::arp::packet::{Claimant, Frame, Protocol};

/// What to do about a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send this.
    Answer(Frame),
    /// Another station claims an address of ours.
    Conflict(Claimant),
    /// Another station probes an address that this node probes too.
    Rival(Claimant),
    Ignore(NoAnswer),
}

/// Whether this node owns an address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It has announced the address and answers for it.
    Announced,
    /// It is to own the address, and does not answer for it yet: it probes, or it defers to another station.
    Pending,
    /// It is not to own the address.
    None,
}

/// Why a frame needs no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Not what its protocol lets pass (RFC 826 for IPv4 on Ethernet, RFC 4861 §7.1), tagged for a VLAN, or cut short.
    Malformed,
    /// This node sent it, from this link or from another link on the same wire.
    Own,
    /// The Ethernet destination is neither a group of the protocol nor this link.
    OtherDestination,
    /// The sender's hardware address is a group or zero, so there is no station to answer.
    NoStation,
    /// A reply, or another frame without a question, about addresses that are not ours.
    NotARequest,
    /// Asks for an address that this node does not answer for on this link.
    NotOwned,
}

impl NoAnswer {
    pub const ALL: [NoAnswer; 6] = [
        NoAnswer::Malformed,
        NoAnswer::Own,
        NoAnswer::OtherDestination,
        NoAnswer::NoStation,
        NoAnswer::NotARequest,
        NoAnswer::NotOwned,
    ];

    /// The reason as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            NoAnswer::Malformed => "malformed",
            NoAnswer::Own => "own",
            NoAnswer::OtherDestination => "other-destination",
            NoAnswer::NoStation => "no-station",
            NoAnswer::NotARequest => "not-a-request",
            NoAnswer::NotOwned => "not-owned",
        }
    }
}

/// The end of a link that frames are judged for.
#[derive(Debug, Clone, Copy)]
pub struct Station<'a> {
    /// The MAC of the link, which answers name.
    pub mac: MacAddress,
    /// The MACs of this node's other links. Two links may be on one wire and hear each other's frames.
    pub other_macs: &'a [MacAddress],
}

/// What a valid frame of another station shows of that station, whatever it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub speaker: MacAddress,
    /// The address that it speaks from, or says that it has.
    pub says: Option<IpAddr>,
    pub asks: Option<IpAddr>,
    /// It answers a question of this node, so it hears this node.
    pub answers_us: bool,
}

/// Judges one frame. `ownership` says whether this node owns an address on this link. With the verdict comes what the frame
/// shows of its sender; nothing if it comes from this node or is not valid.
pub fn judge(
    station: Station<'_>,
    ownership: impl Fn(IpAddr) -> Ownership,
    protocol: Protocol,
    octets: &[u8],
) -> (Verdict, Option<Heard>) {
    let ignore = |reason| (Verdict::Ignore(reason), None);
    let Ok(frame) = Frame::parse(protocol, octets) else { return ignore(NoAnswer::Malformed) };
    let ours = |mac: MacAddress| mac == station.mac || station.other_macs.contains(&mac);
    let speaker = frame.speaker();
    if ours(frame.source()) || ours(speaker) {
        return ignore(NoAnswer::Own);
    }
    if !frame.is_for(station.mac) {
        return ignore(NoAnswer::OtherDestination);
    }
    if is_group(speaker) || speaker == MacAddress::ZERO {
        return ignore(NoAnswer::NoStation);
    }
    let says = frame.says().map(|claimant| claimant.address);
    let heard = Heard { speaker, says, asks: frame.asks(), answers_us: frame.answers(station.mac) };
    (verdict(station, ownership, &frame), Some(heard))
}

/// The verdict on a valid frame of another station.
fn verdict(station: Station<'_>, ownership: impl Fn(IpAddr) -> Ownership, frame: &Frame) -> Verdict {
    // RFC 5227 §2.4: "an ARP packet (Request *or* Reply) where the 'sender IP address' is (one of) the host's own IP
    // address(es) configured on that interface, but the 'sender hardware address' does not match any of the host's
    // own interface addresses". RFC 4862 §5.4.4 says the same of an advertisement.
    let says = frame.says();
    if let Some(claimant) = says.filter(|claimant| ownership(claimant.address) != Ownership::None) {
        return Verdict::Conflict(claimant);
    }
    let Some(address) = frame.asks() else {
        return Verdict::Ignore(NoAnswer::NotARequest);
    };
    match ownership(address) {
        // A probe (RFC 5227 §2.1.1, RFC 4862 §5.4.2) is a request like any other: it shall find the address taken.
        Ownership::Announced => {
            frame.answer(station.mac).map_or(Verdict::Ignore(NoAnswer::NotARequest), Verdict::Answer)
        }
        // RFC 5227 §2.1.1: also a conflict, "if during this period the host receives any ARP Probe where the packet's
        // 'target IP address' is the address being probed for"; RFC 4862 §5.4.3 has it for solicitations.
        Ownership::Pending if says.is_none() => Verdict::Rival(Claimant { address, mac: frame.speaker() }),
        Ownership::Pending | Ownership::None => Verdict::Ignore(NoAnswer::NotOwned),
    }
}

/// A multicast or broadcast address.
fn is_group(mac: MacAddress) -> bool {
    let [first, ..] = mac.0;
    first & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::arp::packet::arp::{Operation, Packet};
    use crate::arp::packet::ndp::{self, Message};

    const OURS: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
    const OUR_OTHER_LINK: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x1a]);
    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
    const RELAY: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x77]);
    const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 1]);
    const OWNED: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
    const ASKED: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 102);
    const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);
    const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 2);
    const OWNED6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x100);
    const ASKED6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x102);
    const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x101);
    const CLIENT_IP6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 2);

    fn judged(protocol: Protocol, octets: &[u8]) -> Verdict {
        let ownership = |address: IpAddr| match address {
            _ if address == OWNED || address == OWNED6 => Ownership::Announced,
            _ if address == ASKED || address == ASKED6 => Ownership::Pending,
            _ => Ownership::None,
        };
        judge(Station { mac: OURS, other_macs: &[OUR_OTHER_LINK] }, ownership, protocol, octets).0
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

    fn solicitation(target: Ipv6Addr) -> ndp::Packet {
        let group = ndp::solicited_node(target);
        ndp::Packet {
            destination: ndp::group_mac(group),
            source: CLIENT,
            sender_ip: CLIENT_IP6,
            receiver_ip: group,
            message: Message::Solicitation { target, source_link: Some(CLIENT) },
        }
    }

    #[test]
    fn a_request_for_an_owned_address_is_answered_to_the_asker_alone_with_the_mac_of_the_link() {
        let expected = Packet {
            destination: CLIENT,
            source: OURS,
            operation: Operation::Reply,
            sender_mac: OURS,
            sender_ip: OWNED,
            target_mac: CLIENT,
            target_ip: CLIENT_IP,
        };
        assert_eq!(judged(Protocol::Arp, &who_has(OWNED).emit()), Verdict::Answer(Frame::Arp(expected)));
    }

    /// Every kind of ARP frame that reaches a link, and what becomes of it.
    #[test]
    fn the_verdict_table_of_arp_holds() {
        let ask = who_has(OWNED);
        let reply = Packet { operation: Operation::Reply, target_mac: OURS, ..ask };
        let answered = |packet: Packet| Verdict::Answer(Frame::Arp(Packet::reply_to(&packet, OURS)));
        let conflict = Verdict::Conflict(Claimant { address: OWNED.into(), mac: CLIENT });
        let occupied = Verdict::Conflict(Claimant { address: ASKED.into(), mac: CLIENT });
        let rival = Verdict::Rival(Claimant { address: ASKED.into(), mac: CLIENT });
        let ignored = Verdict::Ignore;
        let unicast = Packet { destination: OURS, ..ask };
        let probe = Packet { sender_ip: Ipv4Addr::UNSPECIFIED, ..ask };
        let relayed = Packet { source: RELAY, ..ask };
        let other_link = Packet { source: OUR_OTHER_LINK, sender_mac: OUR_OTHER_LINK, sender_ip: OWNED, ..ask };
        let to_other = Packet { destination: CLIENT, ..ask };
        let by_everybody = Packet { sender_mac: MacAddress::BROADCAST, ..ask };
        let by_nobody = Packet { sender_mac: MacAddress::ZERO, ..ask };
        let table = [
            ("a broadcast request for ours", ask, answered(ask)),
            ("a unicast request for ours", unicast, answered(unicast)),
            ("a probe for ours", probe, answered(probe)),
            ("a request relayed by another station", relayed, answered(relayed)),
            ("a request for another's", who_has(FOREIGN), ignored(NoAnswer::NotOwned)),
            ("a request for one that we only ask for", who_has(ASKED), ignored(NoAnswer::NotOwned)),
            ("a probe for one that we ask for", Packet { target_ip: ASKED, ..probe }, rival),
            ("a request to another station", to_other, ignored(NoAnswer::OtherDestination)),
            ("a request to a group", Packet { destination: GROUP, ..ask }, ignored(NoAnswer::OtherDestination)),
            ("a frame of our own", Packet { source: OURS, ..ask }, ignored(NoAnswer::Own)),
            ("a packet of our own in another's frame", Packet { sender_mac: OURS, ..ask }, ignored(NoAnswer::Own)),
            ("our other link announcing the same address", other_link, ignored(NoAnswer::Own)),
            ("a group as sender", Packet { sender_mac: GROUP, ..ask }, ignored(NoAnswer::NoStation)),
            ("everybody as sender", by_everybody, ignored(NoAnswer::NoStation)),
            ("nobody as sender", by_nobody, ignored(NoAnswer::NoStation)),
            ("another's reply", reply, ignored(NoAnswer::NotARequest)),
            ("reverse ARP", Packet { operation: Operation::Unknown(3), ..ask }, ignored(NoAnswer::NotARequest)),
            ("another announcing ours", Packet { sender_ip: OWNED, ..ask }, conflict),
            ("another answering for ours", Packet { sender_ip: OWNED, ..reply }, conflict),
            ("another asking from ours", Packet { sender_ip: OWNED, ..who_has(FOREIGN) }, conflict),
            ("an answer for one that we ask for", Packet { sender_ip: ASKED, ..reply }, occupied),
            ("another asking from one that we ask for", Packet { sender_ip: ASKED, ..ask }, occupied),
        ];
        for (what, packet, expected) in table {
            assert_eq!(judged(Protocol::Arp, &packet.emit()), expected, "{what}: {packet}");
        }
    }

    /// The same for NDP.
    #[test]
    fn the_verdict_table_of_ndp_holds() {
        let ask = solicitation(OWNED6);
        let without_link = |packet: ndp::Packet, target| ndp::Packet {
            message: Message::Solicitation { target, source_link: None },
            ..packet
        };
        let bare = without_link(ask, OWNED6);
        let alone = ndp::Packet { destination: OURS, receiver_ip: OWNED6, ..ask };
        let bare_alone = without_link(alone, OWNED6);
        let probe = |target| ndp::Packet::probe(target, CLIENT);
        let answer = ndp::Packet::announcement(FOREIGN6, CLIENT);
        let announcing = |address| ndp::Packet::announcement(address, CLIENT);
        let naming =
            |mac| ndp::Packet { message: Message::Solicitation { target: OWNED6, source_link: Some(mac) }, ..ask };
        let answered = |packet: ndp::Packet| Verdict::Answer(Frame::Ndp(packet.answer_to(OWNED6, OURS)));
        let conflict = Verdict::Conflict(Claimant { address: OWNED6.into(), mac: CLIENT });
        let occupied = Verdict::Conflict(Claimant { address: ASKED6.into(), mac: CLIENT });
        let rival = Verdict::Rival(Claimant { address: ASKED6.into(), mac: CLIENT });
        let ignored = Verdict::Ignore;
        let to_other = ndp::Packet { destination: RELAY, ..ask };
        let table = [
            ("a solicitation for ours", ask, answered(ask)),
            ("one without a link address", bare, answered(bare)),
            ("a check whether we are still there", alone, answered(alone)),
            ("such a check without a link address", bare_alone, answered(bare_alone)),
            ("duplicate address detection of ours", probe(OWNED6), answered(probe(OWNED6))),
            ("a solicitation for another's", solicitation(FOREIGN6), ignored(NoAnswer::NotOwned)),
            ("a solicitation for one that we only ask for", solicitation(ASKED6), ignored(NoAnswer::NotOwned)),
            ("duplicate address detection of one that we ask for", probe(ASKED6), rival),
            ("a solicitation to another station", to_other, ignored(NoAnswer::OtherDestination)),
            ("a frame of our own", ndp::Packet { source: OURS, ..ask }, ignored(NoAnswer::Own)),
            ("a packet of our own in another's frame", naming(OURS), ignored(NoAnswer::Own)),
            ("our other link", naming(OUR_OTHER_LINK), ignored(NoAnswer::Own)),
            ("a group as sender", naming(GROUP), ignored(NoAnswer::NoStation)),
            ("nobody as sender", naming(MacAddress::ZERO), ignored(NoAnswer::NoStation)),
            ("another's advertisement", answer, ignored(NoAnswer::NotARequest)),
            ("another announcing ours", announcing(OWNED6), conflict),
            ("another asking from ours", ndp::Packet { sender_ip: OWNED6, ..solicitation(FOREIGN6) }, conflict),
            ("an advertisement of one that we ask for", announcing(ASKED6), occupied),
            ("another asking from one that we ask for", ndp::Packet { sender_ip: ASKED6, ..ask }, occupied),
        ];
        for (what, packet, expected) in table {
            assert_eq!(judged(Protocol::Ndp, Frame::Ndp(packet).emit().as_ref()), expected, "{what}: {packet}");
        }
    }

    #[test]
    fn a_frame_of_another_protocol_is_malformed() {
        let mut frame = who_has(OWNED).emit();
        frame[12] = 0x86;
        assert_eq!(judged(Protocol::Arp, &frame), Verdict::Ignore(NoAnswer::Malformed));
        let solicitation = Frame::Ndp(solicitation(OWNED6)).emit();
        assert_eq!(judged(Protocol::Arp, solicitation.as_ref()), Verdict::Ignore(NoAnswer::Malformed));
        for protocol in Protocol::BOTH {
            assert_eq!(judged(protocol, &[]), Verdict::Ignore(NoAnswer::Malformed));
        }
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let codes: std::collections::BTreeSet<_> = NoAnswer::ALL.map(NoAnswer::code).into();
        assert_eq!(codes.len(), NoAnswer::ALL.len());
    }

    proptest! {
        #[test]
        fn only_a_request_for_ours_is_ever_answered_and_never_to_a_group(
            mut frame in proptest::collection::vec(any::<u8>(), 42..64),
            to in proptest::sample::select(vec![MacAddress::BROADCAST, OURS, CLIENT]),
            target in proptest::sample::select(vec![OWNED, ASKED, FOREIGN]),
            operation in 0u8..4,
        ) {
            frame[..6].copy_from_slice(&to.0);
            frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
            frame[38..42].copy_from_slice(&target.octets());
            if let Verdict::Answer(answer) = judged(Protocol::Arp, &frame) {
                let Frame::Arp(answer) = answer else { panic!("NDP answers ARP: {answer}") };
                prop_assert_eq!(operation, 1, "only a request");
                prop_assert!(to != CLIENT, "only what was sent to us or to everybody");
                prop_assert_eq!(answer.sender_ip, OWNED);
                prop_assert_eq!((answer.source, answer.sender_mac), (OURS, OURS));
                prop_assert!(!is_group(answer.destination));
            }
        }
    }
}
