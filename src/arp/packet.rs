//! A frame of ARP or NDP in the words that both share: which station asks for an address, and which one claims it.
//! Floor 1. The difference between the two protocols ends here; verdicts, claims and sockets know only this.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::MacAddress;

pub mod arp;
pub mod ndp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Arp(arp::Packet),
    Ndp(ndp::Packet),
}

/// The protocol of an address family on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// RFC 826, for IPv4.
    Arp,
    /// RFC 4861, for IPv6.
    Ndp,
}

/// A station that announces, answers for, or speaks from an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    pub address: IpAddr,
    pub mac: MacAddress,
}

/// Why octets are no valid frame of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    Arp(arp::ParseError),
    #[error(transparent)]
    Ndp(ndp::ParseError),
}

impl Protocol {
    pub const BOTH: [Protocol; 2] = [Protocol::Arp, Protocol::Ndp];

    pub fn of(address: IpAddr) -> Protocol {
        match address {
            IpAddr::V4(_) => Protocol::Arp,
            IpAddr::V6(_) => Protocol::Ndp,
        }
    }

    /// The protocol as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Protocol::Arp => "arp",
            Protocol::Ndp => "ndp",
        }
    }

    /// How many frames make one announcement.
    pub fn frames_of_an_announcement(self) -> u32 {
        match self {
            Protocol::Arp => 2,
            Protocol::Ndp => 1,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Arp => "ARP",
            Protocol::Ndp => "NDP",
        })
    }
}

impl Frame {
    /// Reads a frame of this protocol, from its Ethernet header on.
    pub fn parse(protocol: Protocol, octets: &[u8]) -> Result<Frame, ParseError> {
        match protocol {
            Protocol::Arp => arp::Packet::parse(octets).map(Frame::Arp).map_err(ParseError::Arp),
            Protocol::Ndp => ndp::Packet::parse(octets).map(Frame::Ndp).map_err(ParseError::Ndp),
        }
    }

    /// The octets to send, from the Ethernet header on.
    pub fn emit(&self) -> Octets {
        let mut octets = [0; ndp::Packet::LONGEST];
        let length = match self {
            Frame::Arp(packet) => {
                let arp = packet.emit();
                // An ARP packet is the shorter of the two.
                octets.iter_mut().zip(arp).for_each(|(place, octet)| *place = octet);
                arp.len()
            }
            Frame::Ndp(packet) => packet.emit(&mut octets),
        };
        Octets { octets, length }
    }

    /// The Ethernet source.
    pub fn source(&self) -> MacAddress {
        match self {
            Frame::Arp(packet) => packet.source,
            Frame::Ndp(packet) => packet.source,
        }
    }

    /// The station that speaks in the frame. It differs from the source if another station forwarded the frame.
    pub fn speaker(&self) -> MacAddress {
        match self {
            Frame::Arp(packet) => packet.sender_mac,
            Frame::Ndp(packet) => packet.speaker(),
        }
    }

    /// Whether the frame was sent to this station or to a group of its protocol.
    pub fn is_for(&self, station: MacAddress) -> bool {
        match self {
            Frame::Arp(packet) => packet.destination == MacAddress::BROADCAST || packet.destination == station,
            Frame::Ndp(packet) => is_ipv6_group(packet.destination) || packet.destination == station,
        }
    }

    /// The address that the speaker claims.
    pub fn says(&self) -> Option<Claimant> {
        let address = match self {
            Frame::Arp(packet) => IpAddr::V4(packet.sender_ip),
            Frame::Ndp(packet) => IpAddr::V6(match packet.message {
                ndp::Message::Solicitation { .. } => packet.sender_ip,
                ndp::Message::Advertisement { target, .. } => target,
            }),
        };
        (!address.is_unspecified()).then(|| Claimant { address, mac: self.speaker() })
    }

    /// The address that the speaker asks for.
    pub fn asks(&self) -> Option<IpAddr> {
        match self {
            Frame::Arp(packet) => match packet.operation {
                arp::Operation::Request => Some(IpAddr::V4(packet.target_ip)),
                arp::Operation::Reply | arp::Operation::Unknown(_) => None,
            },
            Frame::Ndp(packet) => match packet.message {
                ndp::Message::Solicitation { target, .. } => Some(IpAddr::V6(target)),
                ndp::Message::Advertisement { .. } => None,
            },
        }
    }

    /// Whether the frame answers a question of this station, to it alone.
    pub fn answers(&self, station: MacAddress) -> bool {
        match self {
            Frame::Arp(packet) => packet.destination == station && packet.operation == arp::Operation::Reply,
            Frame::Ndp(packet) => match packet.message {
                ndp::Message::Advertisement { solicited, .. } => packet.destination == station && solicited,
                ndp::Message::Solicitation { .. } => false,
            },
        }
    }

    /// The answer to a request: "it is at `mac`". `None` if the frame asks nothing.
    pub fn answer(&self, mac: MacAddress) -> Option<Frame> {
        match (self, self.asks()?) {
            (Frame::Ndp(packet), IpAddr::V6(target)) => Some(Frame::Ndp(packet.answer_to(target, mac))),
            (Frame::Arp(packet), IpAddr::V4(_)) => Some(Frame::Arp(arp::Packet::reply_to(packet, mac))),
            (Frame::Arp(_), IpAddr::V6(_)) | (Frame::Ndp(_), IpAddr::V4(_)) => None,
        }
    }

    /// The frames that announce to all stations on the link that `address` is at `mac`.
    pub fn announcements(address: IpAddr, mac: MacAddress) -> impl Iterator<Item = Frame> {
        let [first, second] = match address {
            IpAddr::V4(address) => arp::Packet::announcements(address, mac).map(|packet| Some(Frame::Arp(packet))),
            IpAddr::V6(address) => [Some(Frame::Ndp(ndp::Packet::announcement(address, mac))), None],
        };
        first.into_iter().chain(second)
    }

    /// The frames of a station at `from` that tell all others that `address` is at `mac`, another station. Switches learn where
    /// a station is from the frame and hosts from what is in it, so none is led astray.
    pub fn announcements_of(address: IpAddr, mac: MacAddress, from: MacAddress) -> impl Iterator<Item = Frame> {
        Frame::announcements(address, mac).map(move |frame| match frame {
            Frame::Arp(packet) => Frame::Arp(arp::Packet { source: from, ..packet }),
            Frame::Ndp(packet) => Frame::Ndp(ndp::Packet { source: from, ..packet }),
        })
    }

    /// The frame that asks all stations on the link for `address`, without claiming it for `mac`.
    pub fn probe(address: IpAddr, mac: MacAddress) -> Frame {
        match address {
            IpAddr::V4(address) => Frame::Arp(arp::Packet::probe(address, mac)),
            IpAddr::V6(address) => Frame::Ndp(ndp::Packet::probe(address, mac)),
        }
    }

    /// The frame that asks all stations on the link for `address` in the name of this host, which has the address `from`.
    /// `None` where the two are of different families.
    pub fn question(address: IpAddr, from: IpAddr, mac: MacAddress) -> Option<Frame> {
        match (address, from) {
            (IpAddr::V4(address), IpAddr::V4(from)) => {
                let packet = arp::Packet { sender_ip: from, ..arp::Packet::probe(address, mac) };
                Some(Frame::Arp(packet))
            }
            (IpAddr::V6(address), IpAddr::V6(from)) => Some(Frame::Ndp(ndp::Packet::question(address, from, mac))),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frame::Arp(packet) => packet.fmt(f),
            Frame::Ndp(packet) => packet.fmt(f),
        }
    }
}

/// A frame as it is sent.
pub struct Octets {
    octets: [u8; ndp::Packet::LONGEST],
    length: usize,
}

impl AsRef<[u8]> for Octets {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// RFC 2464 §7: groups of IPv6 begin with 33:33.
fn is_ipv6_group(mac: MacAddress) -> bool {
    let [first, second, ..] = mac.0;
    (first, second) == (0x33, 0x33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);

    #[test]
    fn what_is_emitted_reads_back_in_either_protocol() {
        for address in ["192.0.2.1", "fd35::1"] {
            let address: IpAddr = address.parse().unwrap();
            let protocol = Protocol::of(address);
            let announced: Vec<Frame> = Frame::announcements(address, MAC).collect();
            assert_eq!(announced.len(), usize::try_from(protocol.frames_of_an_announcement()).unwrap());
            for frame in announced {
                assert_eq!(Frame::parse(protocol, frame.emit().as_ref()), Ok(frame));
                assert_eq!(frame.says(), Some(Claimant { address, mac: MAC }), "{frame}");
            }
            let probe = Frame::probe(address, MAC);
            assert_eq!(Frame::parse(protocol, probe.emit().as_ref()), Ok(probe));
            assert_eq!((probe.asks(), probe.says()), (Some(address), None), "a probe claims nothing: {probe}");
        }
    }
}
