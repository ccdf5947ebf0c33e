//! An ARP packet for IPv4 in its Ethernet frame: parse, emit, and print as tcpdump does.
//! Floor 1. RFC 826 for the bytes, RFC 5227 and RFC 5944 for the announcements. `machine::answer` says what to answer.

use std::fmt;
use std::net::Ipv4Addr;

use crate::address::MacAddress;

/// An ARP packet and the Ethernet header that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet destination.
    pub destination: MacAddress,
    /// Ethernet source.
    pub source: MacAddress,
    pub operation: Operation,
    pub sender_mac: MacAddress,
    pub sender_ip: Ipv4Addr,
    pub target_mac: MacAddress,
    pub target_ip: Ipv4Addr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Request,
    Reply,
    /// Reverse ARP and whatever else was given a number since.
    Unknown(u16),
}

/// Why a frame is no ARP packet for IPv4 on Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{length} octets cannot hold an Ethernet frame with an ARP packet")]
    TooShort { length: usize },
    /// Also a frame with a VLAN tag in it: what is inside belongs to another link.
    #[error("EtherType {0:#06x} is not ARP")]
    NotArp(u16),
    #[error(
        "hardware type {hardware} with {hardware_length}-octet addresses and protocol {protocol:#06x} with {protocol_length}-octet addresses is not IPv4 on Ethernet"
    )]
    NotIpv4OnEthernet { hardware: u16, hardware_length: u8, protocol: u16, protocol_length: u8 },
}

impl Packet {
    /// What `emit` writes: an Ethernet header and an ARP packet, without the padding that the network card adds.
    pub const EMITTED_LEN: usize = ETHERNET_LEN + ARP_LEN;

    /// Reads a frame from its Ethernet header on. What follows the ARP packet is padding and is not looked at.
    pub fn parse(frame: &[u8]) -> Result<Packet, ParseError> {
        let too_short = ParseError::TooShort { length: frame.len() };
        let (ethernet, payload) = frame.split_first_chunk::<ETHERNET_LEN>().ok_or(too_short)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, type0, type1] = *ethernet;
        let ethertype = u16::from_be_bytes([type0, type1]);
        if ethertype != ETHERTYPE_ARP {
            return Err(ParseError::NotArp(ethertype));
        }

        let (header, addresses) = payload.split_first_chunk::<HEADER_LEN>().ok_or(too_short)?;
        let [hardware0, hardware1, protocol0, protocol1, hardware_length, protocol_length, op0, op1] = *header;
        let hardware = u16::from_be_bytes([hardware0, hardware1]);
        let protocol = u16::from_be_bytes([protocol0, protocol1]);
        if (hardware, protocol, hardware_length, protocol_length) != (HARDWARE_ETHERNET, PROTOCOL_IPV4, 6, 4) {
            return Err(ParseError::NotIpv4OnEthernet { hardware, hardware_length, protocol, protocol_length });
        }

        let (sender_mac, rest) = addresses.split_first_chunk::<6>().ok_or(too_short)?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>().ok_or(too_short)?;
        let (target_mac, rest) = rest.split_first_chunk::<6>().ok_or(too_short)?;
        let (target_ip, _padding) = rest.split_first_chunk::<4>().ok_or(too_short)?;
        Ok(Packet {
            destination: MacAddress([d0, d1, d2, d3, d4, d5]),
            source: MacAddress([s0, s1, s2, s3, s4, s5]),
            operation: Operation::from(u16::from_be_bytes([op0, op1])),
            sender_mac: MacAddress(*sender_mac),
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: MacAddress(*target_mac),
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }

    pub fn emitted_len(&self) -> usize {
        Packet::EMITTED_LEN
    }

    /// The frame, from its Ethernet header on.
    pub fn emit(&self) -> [u8; Packet::EMITTED_LEN] {
        let Packet { destination, source, operation, sender_mac, sender_ip, target_mac, target_ip } = *self;
        let mut frame = [0; Packet::EMITTED_LEN];
        let mut rest = frame.as_mut_slice();
        let mut put = |octets: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(octets.len());
            head.copy_from_slice(octets);
            rest = tail;
        };
        put(&destination.0);
        put(&source.0);
        put(&ETHERTYPE_ARP.to_be_bytes());
        put(&HARDWARE_ETHERNET.to_be_bytes());
        put(&PROTOCOL_IPV4.to_be_bytes());
        put(&[6, 4]);
        put(&u16::from(operation).to_be_bytes());
        put(&sender_mac.0);
        put(&sender_ip.octets());
        put(&target_mac.0);
        put(&target_ip.octets());
        frame
    }

    /// The reply to a request: "`target_ip` is at `mac`", to the asker alone.
    pub fn reply_to(request: &Packet, mac: MacAddress) -> Packet {
        Packet {
            destination: request.sender_mac,
            source: mac,
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        }
    }

    /// Announces to all stations on the link that `address` is at `mac`, in both forms, because some listen to only one of them.
    pub fn announcements(address: Ipv4Addr, mac: MacAddress) -> [Packet; 2] {
        let announcement = |operation, target_mac| Packet {
            destination: MacAddress::BROADCAST,
            source: mac,
            operation,
            sender_mac: mac,
            sender_ip: address,
            target_mac,
            target_ip: address,
        };
        [
            // RFC 5227 §2.3: an ARP Announcement is a request whose sender and target address are both the address
            // announced; §2.1.1: the target hardware address "is ignored and SHOULD be set to all zeroes".
            announcement(Operation::Request, MacAddress::ZERO),
            // RFC 5944 §4.6: in a gratuitous reply, "the Target Hardware Address is also set to the link-layer address
            // to which this cache entry should be updated". Linux believes such a reply at once only if it is.
            announcement(Operation::Reply, mac),
        ]
    }

    /// Asks all stations for `address`, without claiming it.
    pub fn probe(address: Ipv4Addr, mac: MacAddress) -> Packet {
        // RFC 5227 §2.1.1: "The 'sender IP address' field MUST be set to all zeroes; this is to avoid polluting ARP caches
        // in other hosts on the same link in the case where the address turns out to be already in use".
        Packet {
            destination: MacAddress::BROADCAST,
            source: mac,
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddress::ZERO,
            target_ip: address,
        }
    }

    /// The packet is about its own sender: neighbours shall update what they have cached for `sender_ip`.
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

impl fmt::Display for Packet {
    /// As `tcpdump -e -n` prints it, after the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { destination, source, operation, sender_mac, sender_ip, target_mac, target_ip } = self;
        write!(f, "{source} > {destination}: ")?;
        match operation {
            Operation::Request if *target_mac == MacAddress::ZERO || *target_mac == MacAddress::BROADCAST => {
                write!(f, "Request who-has {target_ip} tell {sender_ip}")
            }
            Operation::Request => write!(f, "Request who-has {target_ip} ({target_mac}) tell {sender_ip}"),
            Operation::Reply => write!(f, "Reply {sender_ip} is-at {sender_mac}"),
            Operation::Unknown(code) => {
                write!(f, "Unknown ({code}) {sender_ip} ({sender_mac}) for {target_ip} ({target_mac})")
            }
        }
    }
}

impl From<u16> for Operation {
    fn from(code: u16) -> Self {
        match code {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Unknown(other),
        }
    }
}

impl From<Operation> for u16 {
    fn from(operation: Operation) -> u16 {
        match operation {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Unknown(code) => code,
        }
    }
}

const ETHERNET_LEN: usize = 14;
const HEADER_LEN: usize = 8;
const ARP_LEN: usize = HEADER_LEN + 2 * (6 + 4);
const ETHERTYPE_ARP: u16 = 0x0806;
const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What tcpdump wrote of a Linux kernel's "who has", between two ends of a veth pair.
    const KERNEL_REQUEST: &[u8] = b"\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x0b\x08\x06\
        \x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x0b\xc0\xa8\x23\x02\
        \x00\x00\x00\x00\x00\x00\xc0\xa8\x23\x64";

    /// The same request after a switch padded it to the least length of a frame.
    fn padded() -> Vec<u8> {
        let mut frame = KERNEL_REQUEST.to_vec();
        frame.resize(60, 0xa5);
        frame
    }

    #[test]
    fn a_captured_request_is_read_whole_and_prints_as_tcpdump_prints_it() {
        let packet = Packet::parse(KERNEL_REQUEST).unwrap();
        assert_eq!(packet.operation, Operation::Request);
        assert_eq!(packet.sender_mac.to_string(), "02:00:00:00:00:0b");
        assert_eq!(
            packet.to_string(),
            "02:00:00:00:00:0b > ff:ff:ff:ff:ff:ff: Request who-has 192.168.35.100 tell 192.168.35.2"
        );
        assert_eq!(packet.emit().as_slice(), KERNEL_REQUEST);
    }

    #[test]
    fn padding_changes_nothing() {
        assert_eq!(Packet::parse(&padded()), Packet::parse(KERNEL_REQUEST));
    }

    #[test]
    fn a_frame_cut_anywhere_is_too_short() {
        for length in 0..KERNEL_REQUEST.len() {
            let cut = KERNEL_REQUEST.get(..length).unwrap();
            assert_eq!(Packet::parse(cut), Err(ParseError::TooShort { length }), "cut to {length} octets");
        }
    }

    #[test]
    fn a_tagged_frame_belongs_to_another_link_and_is_no_arp() {
        let (macs, rest) = KERNEL_REQUEST.split_at(12);
        let tagged = [macs, &[0x81, 0x00, 0x00, 0x64], rest].concat();
        assert_eq!(Packet::parse(&tagged), Err(ParseError::NotArp(0x8100)));
    }

    #[test]
    fn other_hardware_and_protocols_are_refused_by_name() {
        for (offset, value) in [(15, 6), (17, 0x01), (18, 8), (19, 16)] {
            let mut frame = KERNEL_REQUEST.to_vec();
            frame[offset] = value;
            let refused = Packet::parse(&frame);
            assert!(
                matches!(refused, Err(ParseError::NotIpv4OnEthernet { .. })),
                "octet {offset} set to {value} gave {refused:?}"
            );
        }
    }

    #[test]
    fn both_announcements_name_the_address_twice_and_the_reply_names_the_mac_twice() {
        let mac = MacAddress([2, 0, 0, 0, 0, 0x0a]);
        let address = Ipv4Addr::new(192, 168, 35, 100);
        let [request, reply] = Packet::announcements(address, mac);
        assert!(request.is_gratuitous() && reply.is_gratuitous());
        assert_eq!((request.operation, request.target_mac), (Operation::Request, MacAddress::ZERO));
        assert_eq!((reply.operation, reply.target_mac), (Operation::Reply, mac));
        assert_eq!(
            request.to_string(),
            "02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff: Request who-has 192.168.35.100 tell 192.168.35.100"
        );
        assert_eq!(
            reply.to_string(),
            "02:00:00:00:00:0a > ff:ff:ff:ff:ff:ff: Reply 192.168.35.100 is-at 02:00:00:00:00:0a"
        );
    }

    fn any_packet() -> impl Strategy<Value = Packet> {
        let mac = || any::<[u8; 6]>().prop_map(MacAddress);
        let ip = || any::<[u8; 4]>().prop_map(Ipv4Addr::from);
        (mac(), mac(), any::<u16>(), (mac(), ip()), (mac(), ip())).prop_map(
            |(destination, source, operation, (sender_mac, sender_ip), (target_mac, target_ip))| Packet {
                destination,
                source,
                operation: Operation::from(operation),
                sender_mac,
                sender_ip,
                target_mac,
                target_ip,
            },
        )
    }

    proptest! {
        #[test]
        fn every_packet_reads_back_as_it_was_written(packet in any_packet(), padding in 0usize..64) {
            let mut frame = packet.emit().to_vec();
            prop_assert_eq!(frame.len(), packet.emitted_len());
            frame.resize(frame.len() + padding, 0);
            prop_assert_eq!(Packet::parse(&frame), Ok(packet));
        }

        #[test]
        fn what_can_be_read_is_written_back_octet_for_octet(
            mut frame in proptest::collection::vec(any::<u8>(), 0..128),
            shaped in any::<bool>(),
        ) {
            if let (true, Some(header)) = (shaped, frame.get_mut(12..20)) {
                header.copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4]);
            }
            if let Ok(packet) = Packet::parse(&frame) {
                prop_assert_eq!(packet.emit().to_vec(), frame[..Packet::EMITTED_LEN].to_vec());
                let _printed = packet.to_string();
            }
        }
    }
}
