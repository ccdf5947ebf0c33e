//! Neighbour discovery for IPv6 on the wire (RFC 4861): advertisements read, solicitations made.
//!
//! Written apart from crier's own parsers on purpose: the rack judges them.

use std::net::Ipv6Addr;

use crate::packet::Mac;

/// A neighbour advertisement (RFC 4861 §4.4) with what stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub frame_from: Mac,
    pub frame_to: Mac,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub router: bool,
    pub solicited: bool,
    pub overrides: bool,
    pub target: Ipv6Addr,
    /// Of the target link-layer address option.
    pub target_mac: Option<Mac>,
    /// Its checksum is right.
    pub is_sound: bool,
}

/// A neighbour solicitation (RFC 4861 §4.3) as it is to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    pub frame_from: Mac,
    /// Unspecified: a probe of duplicate address detection (RFC 4862 §5.4.2).
    pub source: Ipv6Addr,
    pub target: Ipv6Addr,
    /// To the target's own address and this MAC; to its group without.
    pub to: Option<Mac>,
    /// With the source link-layer address option.
    pub tells_mac: bool,
}

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ETHERNET: usize = 14;
const IPV6: usize = 40;

impl Advertisement {
    /// Reads an Ethernet frame; `None` if it holds no neighbour advertisement.
    pub fn read(frame: &[u8]) -> Option<Advertisement> {
        let packet = packet_of(frame, ADVERTISEMENT)?;
        let message = packet.get(IPV6..)?;
        let flags = *message.get(4)?;
        Some(Advertisement {
            frame_to: mac(frame, 0)?,
            frame_from: mac(frame, 6)?,
            source: address(packet, 8)?,
            destination: address(packet, 24)?,
            hop_limit: *packet.get(7)?,
            router: flags & 0x80 != 0,
            solicited: flags & 0x40 != 0,
            overrides: flags & 0x20 != 0,
            target: address(message, 8)?,
            // Type 2, length 1 in units of eight octets.
            target_mac: (message.get(24..26) == Some(&[2, 1])).then(|| mac(message, 26)).flatten(),
            is_sound: checksum(packet)? == 0,
        })
    }
}

impl Solicitation {
    /// The target of an Ethernet frame that holds a solicitation, whoever asks.
    pub fn target_of(frame: &[u8]) -> Option<Ipv6Addr> {
        address(packet_of(frame, SOLICITATION)?, IPV6 + 8)
    }

    /// The Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        let [.., x, y, z] = self.target.octets();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
        let (destination, frame_to) = match self.to {
            Some(mac) => (self.target, mac),
            None => (group, Mac([0x33, 0x33, 0xff, x, y, z])),
        };
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(self.target.octets());
        if self.tells_mac {
            message.extend([1, 1]);
            message.extend(self.frame_from.0);
        }
        let length = u8::try_from(message.len()).expect("a solicitation is short");
        let mut packet = vec![0x60, 0, 0, 0, 0, length, ICMPV6, 255];
        packet.extend(self.source.octets());
        packet.extend(destination.octets());
        packet.extend(message);
        let sum = checksum(&packet).expect("it was made whole").to_be_bytes();
        packet[IPV6 + 2..IPV6 + 4].copy_from_slice(&sum);
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend(frame_to.0);
        frame.extend(self.frame_from.0);
        frame.extend([0x86, 0xdd]);
        frame.extend(packet);
        frame
    }
}

/// The IPv6 packet of a frame that holds an ICMPv6 message of that type.
fn packet_of(frame: &[u8], kind: u8) -> Option<&[u8]> {
    let packet = frame.get(ETHERNET..)?;
    let is_it = frame.get(12..14)? == [0x86, 0xdd] && *packet.get(6)? == ICMPV6 && *packet.get(IPV6)? == kind;
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    packet.get(..IPV6 + length).filter(|_| is_it)
}

/// RFC 4443 §2.3: over the pseudo-header and the message; zero for a message that carries the right one.
fn checksum(packet: &[u8]) -> Option<u16> {
    let message = packet.get(IPV6..)?;
    let length = u32::try_from(message.len()).ok()?;
    let octets = [packet.get(8..40)?, &length.to_be_bytes(), &[0, 0, 0, ICMPV6], message].concat();
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |octet| u32::from(*octet));
    let sum: u32 = octets.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).ok().map(|sum| !sum)
}

fn mac(octets: &[u8], at: usize) -> Option<Mac> {
    Some(Mac(octets.get(at..at + 6)?.try_into().ok()?))
}

fn address(octets: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets.get(at..at + 16)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_carries_a_right_checksum_and_its_target() {
        let asked = Solicitation {
            frame_from: Mac([2, 0, 0, 0, 0, 1]),
            source: "fe80::1".parse().unwrap(),
            target: "fd35::100".parse().unwrap(),
            to: None,
            tells_mac: true,
        };
        let frame = asked.frame();
        assert_eq!(checksum(&frame[ETHERNET..]), Some(0));
        assert_eq!(Solicitation::target_of(&frame), Some(asked.target));
        assert_eq!(&frame[..6], [0x33, 0x33, 0xff, 0, 1, 0]);
        assert_eq!(Advertisement::read(&frame), None);
    }
}
