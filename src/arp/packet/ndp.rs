//! A Neighbor Solicitation or Advertisement in its Ethernet frame: parse, emit, and print as tcpdump does.
//! Floor 1. RFC 4861 §4.3, §4.4 and §4.6.1 for the bytes, §7.1 for what must be dropped. Whether and what to answer is
//! `machine::answer`. Router discovery and redirects are not parsed here.

use std::fmt;
use std::net::Ipv6Addr;

use crate::address::MacAddress;
use crate::checksum::checksum;

/// A Neighbor Discovery packet and the headers that carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet destination.
    pub destination: MacAddress,
    /// Ethernet source.
    pub source: MacAddress,
    pub sender_ip: Ipv6Addr,
    pub receiver_ip: Ipv6Addr,
    pub message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Solicitation {
        target: Ipv6Addr,
        /// The Source Link-Layer Address option. A probe never has it, and a unicast solicitation need not have it.
        source_link: Option<MacAddress>,
    },
    Advertisement {
        target: Ipv6Addr,
        router: bool,
        /// It answers a solicitation whose source was not the unspecified address.
        solicited: bool,
        /// Neighbours shall overwrite what they have cached for the target.
        overrides: bool,
        /// The Target Link-Layer Address option.
        target_link: Option<MacAddress>,
    },
}

/// Why a frame is no Neighbor Solicitation or Advertisement that RFC 4861 §7.1 lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{length} octets are too few for the lengths in the headers")]
    TooShort { length: usize },
    /// Also a frame with a VLAN tag: its content belongs to another link.
    #[error("EtherType {0:#06x} is not IPv6")]
    NotIpv6(u16),
    /// Extension headers are refused as well: RFC 6980 §5 wants fragments dropped, and nobody sends others.
    #[error("IP version {version} with next header {next_header} is not ICMPv6")]
    NotIcmpv6 { version: u8, next_header: u8 },
    /// It passed a router, so it was sent from outside the link.
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    #[error("ICMPv6 type {kind} with code {code} is neither a solicitation nor an advertisement")]
    NotNeighbor { kind: u8, code: u8 },
    /// Answers would go to the group.
    #[error("the sender {0} is a group")]
    SenderIsGroup(Ipv6Addr),
    #[error("the target {0} is a group")]
    TargetIsGroup(Ipv6Addr),
    /// The length of an option is zero, or reaches past the packet.
    #[error("option {kind} has an impossible length of {length} times 8 octets")]
    Option { kind: u8, length: u8 },
    /// A solicitation from the unspecified address that is not sent to the target's group, or that names a link address.
    #[error("a solicitation from :: must go to the group of its target and name no link address")]
    ImpossibleProbe,
    #[error("an advertisement to the group {0} cannot answer anybody")]
    SolicitedByGroup(Ipv6Addr),
}

impl Packet {
    /// The longest that `emit` writes: Ethernet, IPv6 and ICMPv6 headers, the target and one option.
    pub const LONGEST: usize = ETHERNET_LEN + IPV6_LEN + MESSAGE_LEN + OPTION_LEN;

    /// Reads a frame from its Ethernet header on. What follows the IPv6 packet is padding and is not looked at.
    pub fn parse(frame: &[u8]) -> Result<Packet, ParseError> {
        let too_short = ParseError::TooShort { length: frame.len() };
        let (ethernet, packet) = frame.split_first_chunk::<ETHERNET_LEN>().ok_or(too_short)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type0, type1] = *ethernet;
        let ethertype = u16::from_be_bytes([type0, type1]);
        if ethertype != ETHERTYPE_IPV6 {
            return Err(ParseError::NotIpv6(ethertype));
        }

        let (header, rest) = packet.split_first_chunk::<8>().ok_or(too_short)?;
        let [first, _, _, _, length0, length1, next_header, hop_limit] = *header;
        let version = first >> 4;
        if version != 6 || next_header != ICMPV6 {
            return Err(ParseError::NotIcmpv6 { version, next_header });
        }
        let (sender_ip, rest) = rest.split_first_chunk::<16>().ok_or(too_short)?;
        let (receiver_ip, rest) = rest.split_first_chunk::<16>().ok_or(too_short)?;
        let length = usize::from(u16::from_be_bytes([length0, length1]));
        let body = rest.get(..length).ok_or(too_short)?;
        // RFC 4861 §7.1.1, §7.1.2: "The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have
        // been forwarded by a router"; "ICMP Checksum is valid"; "ICMP Code is 0"; "ICMP length is 24 or more octets".
        if hop_limit != HOP_LIMIT {
            return Err(ParseError::HopLimit(hop_limit));
        }
        let (sender_ip, receiver_ip) = (Ipv6Addr::from(*sender_ip), Ipv6Addr::from(*receiver_ip));
        let (message, options) = body.split_first_chunk::<MESSAGE_LEN>().ok_or(too_short)?;
        if checksum(sender_ip.into(), receiver_ip.into(), ICMPV6, body) != 0 {
            return Err(ParseError::Checksum);
        }
        let ([kind, code, _, _, flags, _, _, _], target) = (split_8(message), target_of(message));
        if !matches!((kind, code), (SOLICITATION | ADVERTISEMENT, 0)) {
            return Err(ParseError::NotNeighbor { kind, code });
        }
        // RFC 4291 §2.7: "Multicast addresses must not be used as source addresses in IPv6 packets".
        if sender_ip.is_multicast() {
            return Err(ParseError::SenderIsGroup(sender_ip));
        }
        if target.is_multicast() {
            return Err(ParseError::TargetIsGroup(target));
        }
        let links = link_options(options)?;
        let message = if kind == SOLICITATION {
            // RFC 4861 §7.1.1: "If the IP source address is the unspecified address, the IP destination address is a
            // solicited-node multicast address" and "there is no source link-layer address option in the message".
            let to_group = receiver_ip == solicited_node(target);
            if sender_ip.is_unspecified() && (!to_group || links.source.is_some()) {
                return Err(ParseError::ImpossibleProbe);
            }
            Message::Solicitation { target, source_link: links.source }
        } else {
            let solicited = flags & FLAG_SOLICITED != 0;
            // RFC 4861 §7.1.2: "If the IP Destination Address is a multicast address the Solicited flag is zero."
            if solicited && receiver_ip.is_multicast() {
                return Err(ParseError::SolicitedByGroup(receiver_ip));
            }
            Message::Advertisement {
                target,
                router: flags & FLAG_ROUTER != 0,
                solicited,
                overrides: flags & FLAG_OVERRIDE != 0,
                target_link: links.target,
            }
        };
        Ok(Packet {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            sender_ip,
            receiver_ip,
            message,
        })
    }

    pub fn emitted_len(&self) -> usize {
        let option = match self.message {
            Message::Solicitation { source_link: link, .. } | Message::Advertisement { target_link: link, .. } => link,
        };
        Packet::LONGEST - if option.is_some() { 0 } else { OPTION_LEN }
    }

    /// Writes the frame, from its Ethernet header on, and answers with its length.
    pub fn emit(&self, frame: &mut [u8; Packet::LONGEST]) -> usize {
        let Packet { destination, source, sender_ip, receiver_ip, message } = *self;
        let total = self.emitted_len();
        let mut written = 0;
        let mut put = |octets: &[u8]| {
            if let Some(place) = frame.get_mut(written..written + octets.len()) {
                place.copy_from_slice(octets);
                written += octets.len();
            }
        };
        put(&destination.0);
        put(&source.0);
        put(&ETHERTYPE_IPV6.to_be_bytes());
        put(&[0x60, 0, 0, 0]);
        // At most 32: it fits.
        put(&u16::try_from(total - ETHERNET_LEN - IPV6_LEN).unwrap_or_default().to_be_bytes());
        put(&[ICMPV6, HOP_LIMIT]);
        put(&sender_ip.octets());
        put(&receiver_ip.octets());
        let (kind, flags, target, option) = match message {
            Message::Solicitation { target, source_link } => {
                (SOLICITATION, 0, target, source_link.map(|mac| (OPTION_SOURCE_LINK, mac)))
            }
            Message::Advertisement { target, router, solicited, overrides, target_link } => {
                let flag = |is_set, flag| if is_set { flag } else { 0 };
                let flags =
                    flag(router, FLAG_ROUTER) | flag(solicited, FLAG_SOLICITED) | flag(overrides, FLAG_OVERRIDE);
                (ADVERTISEMENT, flags, target, target_link.map(|mac| (OPTION_TARGET_LINK, mac)))
            }
        };
        put(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        put(&target.octets());
        if let Some((option, mac)) = option {
            put(&[option, 1]);
            put(&mac.0);
        }
        let body = frame.get(ETHERNET_LEN + IPV6_LEN..total).unwrap_or_default();
        let sum = checksum(sender_ip.into(), receiver_ip.into(), ICMPV6, body).to_be_bytes();
        if let Some(place) = frame.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2) {
            place.copy_from_slice(&sum);
        }
        total
    }

    /// The answer to a solicitation: "`target` is at `mac`", to the asker, or to all nodes if the asker has no address yet.
    pub fn answer_to(&self, target: Ipv6Addr, mac: MacAddress) -> Packet {
        let asked_by_nobody = self.sender_ip.is_unspecified();
        // RFC 4861 §7.2.4: "If the source of the solicitation is the unspecified address, the node MUST set the
        // Solicited flag to zero and multicast the advertisement to the all-nodes address."
        let (destination, receiver_ip) =
            if asked_by_nobody { (group_mac(ALL_NODES), ALL_NODES) } else { (self.speaker(), self.sender_ip) };
        advertisement(destination, receiver_ip, target, !asked_by_nobody, mac)
    }

    /// Announces to all nodes on the link that `address` is at `mac`, overriding their caches (RFC 4861 §7.2.6).
    pub fn announcement(address: Ipv6Addr, mac: MacAddress) -> Packet {
        advertisement(group_mac(ALL_NODES), ALL_NODES, address, false, mac)
    }

    /// Probes for `address` from the unspecified address (RFC 4862 §5.4.2).
    pub fn probe(address: Ipv6Addr, mac: MacAddress) -> Packet {
        let group = solicited_node(address);
        Packet {
            destination: group_mac(group),
            source: mac,
            sender_ip: Ipv6Addr::UNSPECIFIED,
            receiver_ip: group,
            message: Message::Solicitation { target: address, source_link: None },
        }
    }

    /// Asks for `address` in the name of a host that has the address `from` (RFC 4861 §7.2.2).
    pub fn question(address: Ipv6Addr, from: Ipv6Addr, mac: MacAddress) -> Packet {
        let message = Message::Solicitation { target: address, source_link: Some(mac) };
        Packet { sender_ip: from, message, ..Packet::probe(address, mac) }
    }

    /// The station that the packet is from: the one in its option, or the one that sent the frame.
    pub fn speaker(&self) -> MacAddress {
        let named = match self.message {
            Message::Solicitation { source_link, .. } => source_link,
            Message::Advertisement { target_link, .. } => target_link,
        };
        named.unwrap_or(self.source)
    }
}

/// RFC 4861 §7.2.4 and §7.2.6. The Router flag is never set: nobody may route over the address of a Service. The sender
/// is the address itself, which is what a Linux kernel does with its own and needs no other address on the link.
fn advertisement(
    destination: MacAddress,
    receiver_ip: Ipv6Addr,
    target: Ipv6Addr,
    solicited: bool,
    mac: MacAddress,
) -> Packet {
    Packet {
        destination,
        source: mac,
        sender_ip: target,
        receiver_ip,
        message: Message::Advertisement { target, router: false, solicited, overrides: true, target_link: Some(mac) },
    }
}

/// The group that solicitations for an address are sent to (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
pub fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

#[derive(Default)]
struct LinkOptions {
    source: Option<MacAddress>,
    target: Option<MacAddress>,
}

/// The link addresses among the options. RFC 4861 §4.6: "Nodes MUST silently discard an ND packet that contains an option
/// with length zero"; unknown options are skipped.
fn link_options(mut options: &[u8]) -> Result<LinkOptions, ParseError> {
    let mut found = LinkOptions::default();
    while let [kind, length, ..] = *options {
        let impossible = ParseError::Option { kind, length };
        let (option, rest) = options.split_at_checked(8 * usize::from(length)).ok_or(impossible)?;
        options = rest;
        let [_, _, link @ ..] = option else { return Err(impossible) };
        match (kind, <[u8; 6]>::try_from(link)) {
            (OPTION_SOURCE_LINK, Ok(mac)) => found.source = Some(MacAddress(mac)),
            (OPTION_TARGET_LINK, Ok(mac)) => found.target = Some(MacAddress(mac)),
            (OPTION_SOURCE_LINK | OPTION_TARGET_LINK, Err(_)) => return Err(impossible),
            _ => {}
        }
    }
    // A single octet is no option, and the length of the message a multiple of eight (RFC 4861 §4.6).
    if options.is_empty() { Ok(found) } else { Err(ParseError::Option { kind: options[0], length: 0 }) }
}

fn split_8(message: &[u8; MESSAGE_LEN]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *message;
    [a, b, c, d, e, f, g, h]
}

fn target_of(message: &[u8; MESSAGE_LEN]) -> Ipv6Addr {
    let [_, _, _, _, _, _, _, _, target @ ..] = *message;
    Ipv6Addr::from(target)
}

impl fmt::Display for Packet {
    /// As `tcpdump -e -n` prints it, after the time and without the lengths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { destination, source, sender_ip, receiver_ip, message } = self;
        write!(f, "{source} > {destination}: {sender_ip} > {receiver_ip}: ")?;
        match message {
            Message::Solicitation { target, source_link } => {
                write!(f, "neighbor solicitation, who has {target}")?;
                source_link.map_or(Ok(()), |mac| write!(f, ", source link-address {mac}"))
            }
            Message::Advertisement { target, router, solicited, overrides, target_link } => {
                let flags = [(*router, "router"), (*solicited, "solicited"), (*overrides, "override")];
                let set: Vec<&str> = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
                write!(f, "neighbor advertisement, tgt is {target}, Flags [{}]", set.join(", "))?;
                target_link.map_or(Ok(()), |mac| write!(f, ", destination link-address {mac}"))
            }
        }
    }
}

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
/// Type, code, checksum, flags and target.
const MESSAGE_LEN: usize = 24;
const OPTION_LEN: usize = 8;
const CHECKSUM_AT: usize = ETHERNET_LEN + IPV6_LEN + 2;

const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_LINK: u8 = 1;
const OPTION_TARGET_LINK: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn emitted(packet: &Packet) -> Vec<u8> {
        let mut frame = [0xa5; Packet::LONGEST];
        let length = packet.emit(&mut frame);
        frame[..length].to_vec()
    }

    /// What tcpdump wrote of a Linux kernel that had a datagram for fd35::100, between two ends of a veth pair.
    const KERNEL_SOLICITATION: &[u8] = b"\x33\x33\xff\x00\x01\x00\x02\x00\x00\x00\x00\x0b\x86\xdd\
        \x60\x00\x00\x00\x00\x20\x3a\xff\xfd\x35\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\
        \xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\x00\x01\x00\
        \x87\x00\x7b\x26\x00\x00\x00\x00\xfd\x35\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\
        \x01\x01\x02\x00\x00\x00\x00\x0b";

    fn asked() -> Packet {
        Packet::parse(KERNEL_SOLICITATION).unwrap()
    }

    /// A frame with the right checksum for what was changed in it.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = KERNEL_SOLICITATION.to_vec();
        change(&mut frame);
        let (sender, receiver): ([u8; 16], [u8; 16]) =
            (frame[22..38].try_into().unwrap(), frame[38..54].try_into().unwrap());
        frame[56..58].fill(0);
        let sum = checksum(sender.into(), receiver.into(), ICMPV6, &frame[54..]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn a_captured_solicitation_is_read_whole_written_alike_and_prints_as_tcpdump_prints_it() {
        assert_eq!(
            asked().to_string(),
            "02:00:00:00:00:0b > 33:33:ff:00:01:00: fd35::2 > ff02::1:ff00:100: neighbor solicitation, \
             who has fd35::100, source link-address 02:00:00:00:00:0b"
        );
        assert_eq!(emitted(&asked()), KERNEL_SOLICITATION);
        let padded = [KERNEL_SOLICITATION, &[0xa5; 20]].concat();
        assert_eq!(Packet::parse(&padded), Ok(asked()), "what follows the packet is padding");
    }

    #[test]
    fn a_frame_cut_anywhere_is_too_short() {
        for length in 0..KERNEL_SOLICITATION.len() {
            let cut = KERNEL_SOLICITATION.get(..length).unwrap();
            assert_eq!(Packet::parse(cut), Err(ParseError::TooShort { length }), "cut to {length} octets");
        }
    }

    /// RFC 4861 §7.1.1 and §7.1.2, line by line, and what else cannot be.
    #[test]
    fn what_must_be_dropped_is_refused_by_name() {
        type Change = fn(&mut Vec<u8>);
        let table: [(&str, Change, ParseError); 17] = [
            ("a VLAN tag", |it| drop(it.splice(12..12, [0x81, 0, 0, 100])), ParseError::NotIpv6(0x8100)),
            ("IPv4", |it| it[14] = 0x45, ParseError::NotIcmpv6 { version: 4, next_header: 58 }),
            ("UDP", |it| it[20] = 17, ParseError::NotIcmpv6 { version: 6, next_header: 17 }),
            ("a fragment", |it| it[20] = 44, ParseError::NotIcmpv6 { version: 6, next_header: 44 }),
            ("a routed packet", |it| it[21] = 254, ParseError::HopLimit(254)),
            ("more promised than there is", |it| it[19] = 0x28, ParseError::TooShort { length: 86 }),
            ("less than a message", |it| it[19] = 0x10, ParseError::TooShort { length: 86 }),
            ("an echo request", |it| it[54] = 128, ParseError::NotNeighbor { kind: 128, code: 0 }),
            ("a code", |it| it[55] = 1, ParseError::NotNeighbor { kind: 135, code: 1 }),
            ("a group that asks", |it| it[22] = 0xff, ParseError::SenderIsGroup(ip("ff35::2"))),
            ("a group asked for", |it| it[62] = 0xff, ParseError::TargetIsGroup(ip("ff35::100"))),
            ("an option of no length", |it| it[79] = 0, ParseError::Option { kind: 1, length: 0 }),
            ("an option past the end", |it| it[79] = 2, ParseError::Option { kind: 1, length: 2 }),
            (
                "a link address of 14 octets",
                |it| {
                    it[19] = 0x28;
                    it[79] = 2;
                    it.extend([0; 8]);
                },
                ParseError::Option { kind: 1, length: 2 },
            ),
            ("nobody with a link address", |it| it[22..38].fill(0), ParseError::ImpossibleProbe),
            (
                "nobody asking one station alone",
                |it| {
                    it[19] = 0x18;
                    it.truncate(78);
                    it[22..38].fill(0);
                    it[38] = 0xfd;
                },
                ParseError::ImpossibleProbe,
            ),
            (
                "an answer to a group",
                |it| {
                    it[54] = 136;
                    it[58] = FLAG_SOLICITED;
                },
                ParseError::SolicitedByGroup(ip("ff02::1:ff00:100")),
            ),
        ];
        for (what, change, expected) in table {
            let frame = changed(change);
            // What the checksum is over moves with the length field: those two are refused before it is looked at.
            assert_eq!(Packet::parse(&frame), Err(expected), "{what}");
        }
        let mut wrong_sum = KERNEL_SOLICITATION.to_vec();
        wrong_sum[57] ^= 1;
        assert_eq!(Packet::parse(&wrong_sum), Err(ParseError::Checksum));
    }

    #[test]
    fn unknown_options_are_skipped_and_an_odd_octet_at_the_end_is_no_option() {
        let with_nonce = changed(|it| {
            it[19] = 0x28;
            it.splice(78..78, [14, 1, 1, 2, 3, 4, 5, 6]);
        });
        assert_eq!(Packet::parse(&with_nonce), Ok(asked()));
        let odd = changed(|it| {
            it[19] = 0x21;
            it.push(1);
        });
        assert_eq!(Packet::parse(&odd), Err(ParseError::Option { kind: 1, length: 0 }));
    }

    #[test]
    fn an_answer_goes_to_the_asker_and_an_answer_to_nobody_to_everybody() {
        let answer = asked().answer_to(ip("fd35::100"), MAC);
        assert_eq!(
            answer.to_string(),
            "02:00:00:00:00:0a > 02:00:00:00:00:0b: fd35::100 > fd35::2: neighbor advertisement, \
             tgt is fd35::100, Flags [solicited, override], destination link-address 02:00:00:00:00:0a"
        );
        let to_a_probe = Packet::probe(ip("fd35::100"), CLIENT).answer_to(ip("fd35::100"), MAC);
        assert_eq!(
            to_a_probe.to_string(),
            "02:00:00:00:00:0a > 33:33:00:00:00:01: fd35::100 > ff02::1: neighbor advertisement, \
             tgt is fd35::100, Flags [override], destination link-address 02:00:00:00:00:0a"
        );
        assert_eq!(Packet::announcement(ip("fd35::100"), MAC), to_a_probe);
    }

    #[test]
    fn a_probe_is_asked_by_nobody_and_names_no_link_address() {
        assert_eq!(
            Packet::probe(ip("fd35::12:3456"), MAC).to_string(),
            "02:00:00:00:00:0a > 33:33:ff:12:34:56: :: > ff02::1:ff12:3456: neighbor solicitation, who has fd35::12:3456"
        );
    }

    fn any_packet() -> impl Strategy<Value = Packet> {
        let mac = || any::<[u8; 6]>().prop_map(MacAddress);
        let ip = || any::<[u8; 16]>().prop_map(Ipv6Addr::from);
        let target = || ip().prop_filter("no group", |ip| !ip.is_multicast());
        let message = prop_oneof![
            (target(), proptest::option::of(mac()))
                .prop_map(|(target, source_link)| Message::Solicitation { target, source_link }),
            (target(), any::<[bool; 3]>(), proptest::option::of(mac())).prop_map(
                |(target, [router, solicited, overrides], target_link)| {
                    Message::Advertisement { target, router, solicited, overrides, target_link }
                }
            ),
        ];
        (mac(), mac(), target(), target(), message).prop_map(
            |(destination, source, sender_ip, receiver_ip, message)| Packet {
                destination,
                source,
                sender_ip,
                receiver_ip,
                message,
            },
        )
    }

    proptest! {
        #[test]
        fn every_packet_reads_back_as_it_was_written(packet in any_packet(), padding in 0usize..64) {
            let mut frame = emitted(&packet);
            prop_assert_eq!(frame.len(), packet.emitted_len());
            frame.resize(frame.len() + padding, 0);
            prop_assert_eq!(Packet::parse(&frame), Ok(packet));
        }

        #[test]
        fn no_octets_are_too_strange_to_be_read_or_refused(
            frame in proptest::collection::vec(any::<u8>(), 0..128),
            at in 0usize..86, value in any::<u8>(),
        ) {
            let _refused_or_read = Packet::parse(&frame);
            let nearly = changed(|it| it[at] = value);
            if let Ok(packet) = Packet::parse(&nearly) {
                prop_assert_eq!(Packet::parse(&emitted(&packet)), Ok(packet));
                let _printed = packet.to_string();
            }
        }
    }
}
