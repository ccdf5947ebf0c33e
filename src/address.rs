//! Addresses as crier speaks of them: families, MAC addresses and ranges.
//! Floor 0. Not for prefixes (those are `ipnet::IpNet`) and not for anything that asks the kernel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::InterfaceName;

/// Destinations that no router passes on (RFC 3927 §7, RFC 4291 §2.5.6).
pub const LINK_LOCAL: [IpNet; 2] = [
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// An address family. Ordered as Kubernetes lists them, IPv4 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The length of a host prefix, in bits.
    pub fn host_length(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// By which option `ip` of iproute2 is about it alone.
    pub fn option_of_ip(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Where one host on the network is reached: an address, with the interface it is behind exactly if it is link-local IPv6.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScopedAddress {
    pub ip: IpAddr,
    pub interface: Option<InterfaceName>,
}

impl fmt::Display for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.ip),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// An address of this host, not one that crier put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddress {
    pub interface: InterfaceName,
    /// The VRF device that the interface is a part of.
    pub vrf: Option<InterfaceName>,
    pub net: IpNet,
    pub stay: Stay,
}

/// How long an address of this host is there, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// The Node object names it, or it is the link-local one that the kernel made for the link: as long as this node is there.
    Nodes,
    /// It may be a virtual one, which moves to another host.
    Unknown,
    /// On its way out (RFC 4862 §5.5.4).
    Deprecated,
}

impl LocalAddress {
    /// Whether sockets that are bound to this VRF, or other device, or to none, have it.
    pub fn is_bound_to(&self, device: Option<&InterfaceName>) -> bool {
        match device {
            Some(device) => self.interface == *device || self.vrf.as_ref() == Some(device),
            None => self.vrf.is_none(),
        }
    }
}

/// The address to speak to a peer from, where the configuration leaves it open: of those that are [`near`] it one that stays with this
/// node, else that of the session `before`. `None` leaves it to the kernel, whose choice may be a virtual address: routers refuse
/// sessions from an address that they do not know.
pub fn source(
    peer: &ScopedAddress,
    vrf: Option<&InterfaceName>,
    local_addresses: &[LocalAddress],
    before: Option<IpAddr>,
) -> Option<IpAddr> {
    let near = near(peer, vrf, local_addresses);
    let lasting = near.iter().find(|has| has.stay == Stay::Nodes);
    lasting.or_else(|| near.iter().find(|has| Some(has.net.addr()) == before)).map(|has| has.net.addr())
}

/// The addresses in the peer's subnet, or on its link where it has a link-local address. None where several links have some: by which
/// of them packets leave is the kernel's choice, and the source goes with it. `vrf` is what the peer's sockets are bound to.
pub fn near<'a>(
    peer: &ScopedAddress,
    vrf: Option<&InterfaceName>,
    local_addresses: &'a [LocalAddress],
) -> Vec<&'a LocalAddress> {
    let ip = peer.ip;
    if local_addresses.iter().any(|has| has.net.addr() == ip && !is_link_local(ip)) {
        return Vec::new();
    }
    let is_near = |has: &&LocalAddress| match is_link_local_v6(ip) {
        true => Some(&has.interface) == peer.interface.as_ref() && is_link_local_v6(has.net.addr()),
        false => !is_link_local(ip) && has.is_bound_to(vrf) && is_subnet_of(has.net, ip),
    };
    let near: Vec<&LocalAddress> = local_addresses.iter().filter(is_near).collect();
    let is_on_one_link = near.windows(2).all(|two| matches!(two, [a, b] if a.interface == b.interface));
    if is_on_one_link { near } else { Vec::new() }
}

/// Whether the address is another one of the subnet.
pub fn is_subnet_of(net: IpNet, address: IpAddr) -> bool {
    has_subnet(&net) && net.contains(&address)
}

/// Whether it stands for more than one address.
pub fn has_subnet(net: &IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len()
}

/// All of 10.0.0.0/8 may be a cluster's, and what is wider is a mistake.
pub fn is_too_wide(net: &IpNet) -> bool {
    net.prefix_len() < if net.addr().is_ipv4() { 8 } else { 16 }
}

/// Whether it means nothing beyond its link, in either family.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether it is a link-local IPv6 address (RFC 4291 §2.5.6): it means nothing without its link.
pub fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2). No packet on a wire has such an address.
pub fn mapped_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// The /32 or /128 of one address.
pub fn host_prefix(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// A 48-bit Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);
    pub const ZERO: MacAddress = MacAddress([0; 6]);
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six colon-separated hexadecimal octets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a MAC address; write it as 02:00:00:00:00:01")]
pub struct MacAddressError(String);

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2);
            *octet = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| MacAddressError(text.to_owned()))?;
        }
        match parts.next() {
            None => Ok(MacAddress(octets)),
            Some(_) => Err(MacAddressError(text.to_owned())),
        }
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// An inclusive range of addresses of one family, never backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// Neither a CIDR, nor an address, nor two addresses with a dash between.
    #[error("\"{0}\" is neither a CIDR (192.0.2.0/24) nor a range (192.0.2.10-192.0.2.20)")]
    NotARange(String),
    #[error("the range \"{first}-{last}\" mixes IPv4 and IPv6")]
    MixedFamilies { first: IpAddr, last: IpAddr },
    #[error("the range \"{first}-{last}\" runs backwards: {first} is after {last}")]
    Backwards { first: IpAddr, last: IpAddr },
}

impl AddressRange {
    pub fn new(first: IpAddr, last: IpAddr) -> Result<AddressRange, AddressRangeError> {
        let family = Family::of(first);
        if family != Family::of(last) {
            return Err(AddressRangeError::MixedFamilies { first, last });
        }
        if number(first) > number(last) {
            return Err(AddressRangeError::Backwards { first, last });
        }
        Ok(AddressRange { family, first: number(first), last: number(last) })
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    pub fn contains(&self, candidate: IpAddr) -> bool {
        self.family == Family::of(candidate) && (self.first..=self.last).contains(&number(candidate))
    }

    pub fn overlaps(&self, other: &AddressRange) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses the range holds; `u128::MAX` where the count itself does not fit.
    pub fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// What is left of the range without the others, in order. Empty if they cover it.
    pub fn without(&self, others: &[AddressRange]) -> Vec<AddressRange> {
        let mut overlapping: Vec<&AddressRange> = others.iter().filter(|other| other.overlaps(self)).collect();
        overlapping.sort_by_key(|other| other.first);
        let mut left = Vec::new();
        // The first address that is not judged yet; `None` behind the last one there is.
        let mut next = Some(self.first);
        for other in overlapping {
            let Some(first) = next else { break };
            if other.first > first {
                left.push(AddressRange { family: self.family, first, last: other.first - 1 });
            }
            next = other.last.checked_add(1).map(|behind| behind.max(first));
        }
        let last = next.filter(|first| *first <= self.last);
        left.extend(last.map(|first| AddressRange { family: self.family, first, last: self.last }));
        left
    }

    /// Every address from the first to the last. An IPv6 range can be astronomically long: take what you need.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let family = self.family;
        (self.first..=self.last).map(move |n| address(family, n))
    }
}

impl From<IpNet> for AddressRange {
    /// Every address of the prefix, network and broadcast address included.
    fn from(net: IpNet) -> AddressRange {
        AddressRange { family: Family::of(net.addr()), first: number(net.network()), last: number(net.broadcast()) }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    /// `192.0.2.0/24`, `192.0.2.10-192.0.2.20` (spaces around the dash are fine) or a single address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(net.into());
        }
        if let Ok(single) = text.parse::<IpAddr>() {
            return AddressRange::new(single, single);
        }
        let not_a_range = || AddressRangeError::NotARange(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(not_a_range)?;
        let first = first.trim().parse().map_err(|_| not_a_range())?;
        let last = last.trim().parse().map_err(|_| not_a_range())?;
        AddressRange::new(first, last)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // A range of IPv4 addresses is only ever made from two of them, so the number fits.
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// An address as Kubernetes reads it (`ParseIPSloppy`): API servers before 1.36 take parts of IPv4 with leading zeros, which are decimal,
/// and IPv4-mapped IPv6 addresses, which are IPv4, and what they took stays stored.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if !text.contains('.') {
        return text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    }
    let (front, last) = text.rsplit_once(':').unwrap_or(("", text));
    let part = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
        let digits = part.trim_start_matches('0');
        if !is_number {
            None
        } else if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<u8>().ok()
        }
    };
    let parts: Vec<u8> = last.split('.').map(part).collect::<Option<_>>()?;
    let v4 = Ipv4Addr::from(<[u8; 4]>::try_from(parts).ok()?);
    if text.len() == last.len() {
        return Some(IpAddr::V4(v4));
    }
    format!("{front}:{v4}").parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_kubernetes_reads_it() {
        for (text, expected) in [
            ("172.30.0.200", Some("172.30.0.200")),
            ("172.030.000.200", Some("172.30.0.200")),
            ("010.0000.08.009", Some("10.0.8.9")),
            ("::ffff:172.30.0.201", Some("172.30.0.201")),
            ("::ffff:172.030.0.201", Some("172.30.0.201")),
            ("::ffff:ac1e:00c9", Some("172.30.0.201")),
            ("64:ff9b::192.0.2.1", Some("64:ff9b::c000:201")),
            ("fd35:0:0::01", Some("fd35::1")),
            ("172.30.0.256", None),
            ("172.30.0.0256", None),
            ("172.30.200", None),
            ("172.30.0.1.2", None),
            ("172.30.0.-1", None),
            ("172.30..1", None),
            ("::g:1.2.3.4", None),
            ("fe80::1%eth0", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(parse_ip(text), expected.map(|it| it.parse().unwrap()), "{text}");
        }
    }

    fn address(interface: &str, net: &str) -> LocalAddress {
        LocalAddress { interface: interface.into(), vrf: None, net: net.parse().unwrap(), stay: Stay::Unknown }
    }

    fn nodes(interface: &str, net: &str) -> LocalAddress {
        LocalAddress { stay: Stay::Nodes, ..address(interface, net) }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// Input: a floating address comes into the peer's subnet, and the kernel takes the newest address as source.
    #[test]
    fn a_peer_in_a_subnet_is_dialled_from_the_nodes_address_or_that_of_the_session_before() {
        let of = |to: &str, before: Option<&str>, all: &[LocalAddress]| {
            let before = before.map(|text| text.parse().unwrap());
            let interface = to.starts_with("fe80").then(|| "eth0".into());
            let peer = ScopedAddress { ip: to.parse().unwrap(), interface };
            source(&peer, None, all, before).map(|ip| ip.to_string())
        };
        let (vip, own) = (address("eth0", "fd35::5/64"), "fd35::11/64");
        let named = [vip.clone(), nodes("eth0", own)];
        let unnamed = [vip.clone(), address("eth0", own)];
        assert_eq!(of("fd35::1", None, &named), some("fd35::11"));
        assert_eq!(of("fd35::1", Some("fd35::5"), &named), some("fd35::11"));
        assert_eq!(of("fd35::1", Some("fd35::11"), &unnamed), some("fd35::11"));
        assert_eq!(of("fd35::1", None, &unnamed), None, "the kernel chooses");
        assert_eq!(of("fd35::1", Some("fd35::77"), &unnamed), None, "it has gone");
        assert_eq!(of("fd99::1", None, &named), None, "the peer is beyond a router");
        assert_eq!(of("fe80::1", None, &named), None);
        // Keepalived has a link-local address on the link of an unnumbered session.
        let made = LocalAddress { stay: Stay::Nodes, ..address("eth0", "fe80::ff:fe00:11/64") };
        let link_local =
            |own: &LocalAddress| [address("eth0", "fe80::5/64"), own.clone(), nodes("eth1", "fe80::77/64")];
        let by_hand = link_local(&address("eth0", "fe80::11/64"));
        assert_eq!(of("fe80::1", None, &link_local(&made)), some("fe80::ff:fe00:11"));
        assert_eq!(of("fe80::1", Some("fe80::11"), &by_hand), some("fe80::11"));
        assert_eq!(of("fe80::1", None, &by_hand), None, "the kernel chooses");
        assert_eq!(of("fd35::11", None, &named), None, "it is on this host");
        let two_links = [nodes("eth0", own), address("eth1", "fd35::12/64")];
        assert_eq!(of("fd35::1", None, &two_links), None);
    }

    fn range(text: &str) -> AddressRange {
        text.parse().expect(text)
    }

    #[test]
    fn a_range_is_read_in_all_three_spellings() {
        assert_eq!(range("192.0.2.10 - 192.0.2.12").count(), 3);
        assert_eq!(range("192.0.2.0/30").last().to_string(), "192.0.2.3");
        assert_eq!(range("fd35::100-fd35::1ff").count(), 256);
        assert_eq!(range("192.0.2.7").first(), range("192.0.2.7").last());
        assert_eq!(range("::/0").count(), u128::MAX);
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused_by_name() {
        let refused = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        assert!(refused("192.0.2.20-192.0.2.10").contains("backwards"));
        assert!(refused("192.0.2.1-fd35::1").contains("mixes"));
        assert!(refused("lan").contains("\"lan\""));
    }

    #[test]
    fn a_range_without_others_is_what_none_of_them_holds() {
        let table = [
            ("10.0.0.0-10.0.0.9", "", "10.0.0.0-10.0.0.9"),
            ("10.0.0.0-10.0.0.9", "10.0.0.0", "10.0.0.1-10.0.0.9"),
            ("10.0.0.0-10.0.0.9", "10.0.0.8-10.0.1.0", "10.0.0.0-10.0.0.7"),
            (
                "10.0.0.0-10.0.0.9",
                "10.0.0.5 10.0.0.2-10.0.0.3",
                "10.0.0.0-10.0.0.1 10.0.0.4-10.0.0.4 10.0.0.6-10.0.0.9",
            ),
            ("10.0.0.0-10.0.0.9", "10.0.0.2-10.0.0.6 10.0.0.3", "10.0.0.0-10.0.0.1 10.0.0.7-10.0.0.9"),
            ("10.0.0.0-10.0.0.9", "10.0.0.0/24", ""),
            ("10.0.0.0-10.0.0.9", "fd35::/64 10.1.0.0", "10.0.0.0-10.0.0.9"),
            ("fd35::/64", "fd35::/65", "fd35::8000:0:0:0-fd35::ffff:ffff:ffff:ffff"),
            ("ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0", ""),
        ];
        for (whole, others, left) in table {
            let others: Vec<AddressRange> = others.split_whitespace().map(range).collect();
            let seen: Vec<String> = range(whole).without(&others).iter().map(ToString::to_string).collect();
            assert_eq!(seen.join(" "), left, "{whole} without {others:?}");
        }
    }

    #[test]
    fn ranges_overlap_only_within_a_family() {
        assert!(range("192.0.2.0/24").overlaps(&range("192.0.2.255-192.0.3.4")));
        assert!(!range("0.0.0.0/0").overlaps(&range("::/0")));
    }

    #[test]
    fn a_mac_address_reads_back_what_it_prints() {
        let mac: MacAddress = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert!("02:00:5e:10:00".parse::<MacAddress>().is_err());
        assert!("02:00:5e:10:00:ff:01".parse::<MacAddress>().is_err());
    }
}
