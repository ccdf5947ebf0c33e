//! `[[pool]]`: addresses to give to Services. Floor 1. Not for handing them out.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::{Check, Section, section};
use crate::address::{AddressRange, AddressRangeError, Family};
use crate::config::complaint::{Place, Problem};
use crate::config::key::{HOUR, MOST_U32, duration, flag, interface, list, name, number, selector, set, vrf};
use crate::config::reader::Reader;
use crate::config::seen::{SeenRange, unique};
use crate::config::shape::written;
use crate::config::syntax;
use crate::names::{InterfaceName, NamespaceName, PoolName};
use crate::selector::Selector;

section! {
    /// `[[pool]]`
    pub struct Pool = Section::many("pool", "Addresses to give to Services."), written as Written;
    keys {
        pub name: PoolName = name("name", "The name that Services, [[l2]] and [[bgp.advertisement]] use.").set("\"lan\""), touches Decisions;
        /// In the order written, which is the order they are handed out in.
        pub addresses: Vec<AddressRange> = list(
            "addresses",
            "CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20) of either family",
            |text, _| range(text),
            "The addresses, assigned in the order written. An address may be in one pool only.",
        )
        .required()
        .set("[\"192.168.35.100-192.168.35.110\", \"fd35::100-fd35::1ff\"]"), touches Decisions;
        pub auto_assign: bool = flag(
            "auto-assign",
            true,
            "Assign addresses to Services that request neither this pool nor an address of it.",
        ), touches Decisions;
        /// Skip IPv4 addresses that end in .0 or .255.
        pub avoid_network_and_broadcast: bool =
            flag("avoid-network-and-broadcast", false, "Never assign IPv4 addresses that end in .0 or .255.")
                .trade("Two of 256 addresses are lost. Needed for old clients that take such addresses for broadcast."), touches Decisions;
        /// Lower is asked first; `None` comes after every number.
        pub priority: Option<u32> = number("priority", "", 0, MOST_U32, "Pools with a lower number are used first.")
            .optional("none; the pool comes after all pools with a priority")
            .shown("100"), touches Decisions;
        /// Empty: every namespace, unless the selector says otherwise.
        pub namespaces: Vec<NamespaceName> = set(
            "namespaces",
            "namespace names",
            |text, _| syntax::namespace(text),
            "Only Services in these namespaces or in namespaces that namespace-selector matches; [] for all.",
        )
        .shown("[\"shop\"]"), touches Decisions;
        pub namespace_selector: Option<Selector> =
            selector("namespace-selector", "Only Services in namespaces with these labels.")
                .optional("every namespace")
                .shown("\"team=web\""), touches Decisions;
        pub service_selector: Option<Selector> = selector("service-selector", "Only Services with these labels.")
            .optional("every Service")
            .shown("\"tier in (front, edge)\""), touches Decisions;
        /// How long a freed address is kept back.
        pub rest: Duration =
            duration("rest", Duration::ZERO, HOUR.saturating_mul(24), "How long a freed address is not assigned again.")
                .default("30s")
                .trade("Shorter frees addresses of a full pool sooner; longer keeps clients of the old Service away from the new one."), touches Decisions;
        /// Never handed out; who holds one keeps it.
        pub exclude: Vec<AddressRange> = set(
            "exclude",
            "CIDRs, ranges and addresses of the pool",
            |text, _| range(text),
            "Addresses that no Service gets. A Service that holds one keeps it.",
        )
        .shown("[\"192.168.35.105\"]"), touches Decisions;
        /// Nothing new is given from the pool.
        pub draining: bool = flag(
            "draining",
            false,
            "Assign no address of the pool any more. Services that hold one keep it, and are announced.",
        ), touches Decisions;
        /// Services of several namespaces may have one address of the pool.
        pub share_across_namespaces: bool = flag(
            "share-across-namespaces",
            false,
            "Services of different namespaces may share an address (annotation crier.dev/share).",
        )
        .trade("As in MetalLB. Whoever may create Services in one namespace can then use free ports of an address of another."), touches Decisions;
        /// The IPv6 addresses of the pool are host parts below the prefix of this link.
        pub prefix_of: Option<InterfaceName> = interface(
            "prefix-of",
            "an interface name",
            "The pool's IPv6 addresses are host parts (\"::100-::1ff\") below the /64 prefix of this interface.",
        )
        .optional("none; addresses are whole")
        .shown("\"eth0\"")
        .trade("When the prefix changes, each Service gets an address below the new one and keeps the former beside it for ten minutes."), touches Decisions;
        pub bind: Option<InterfaceName> =
            interface("bind", "an interface name", "Add announced addresses to this interface, on hosts without kube-proxy.")
                .optional("none; kube-proxy accepts the traffic")
                .shown("\"lo\""), touches Decisions;
        /// On links in this VRF and to peers in it, and nowhere else.
        pub vrf: Option<InterfaceName> = vrf("vrf", "Announce the addresses in this VRF only: on its interfaces, and to peers in it.")
            .optional("wherever [[l2]] and [[bgp.advertisement]] say")
            .shown("\"red\""), touches Decisions;
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        unique(section, "pool", &self.name, |seen| &mut seen.pools);
        if self.addresses.empty_list {
            let hint = "add a CIDR or a range: addresses = [\"192.0.2.0/24\"]";
            section.complain(&self.addresses.place, "the pool has no addresses", hint);
        }
        let name = self.name.value.clone().unwrap_or_else(|| PoolName::from(""));
        let ranges = section.texts("addresses").filter_map(|(text, place)| Some((range(text).ok()?, place.clone())));
        let ranges: Vec<(AddressRange, Place)> = ranges.collect();
        let excluded = section.texts("exclude").filter_map(|(text, place)| Some((range(text).ok()?, place.clone())));
        let excluded: Vec<(AddressRange, Place)> = excluded.collect();
        if self.prefix_of.given {
            for (range, place) in ranges.iter().chain(&excluded).filter(|(range, _)| !is_host_part(range)) {
                let message = format!("{} is no host part", written(&range.to_string()));
                section.complain(place, message, "with prefix-of write what follows the prefix: \"::100-::1ff\"");
            }
        }
        for (exclude, place) in excluded.iter().filter(|_| !ranges.is_empty()) {
            if !ranges.iter().any(|(range, _)| range.overlaps(exclude)) {
                section.complain(
                    place,
                    "this excludes no address of the pool",
                    "remove it, or name addresses of the pool",
                );
            }
        }
        let excluded: Vec<AddressRange> = excluded.into_iter().map(|(range, _)| range).collect();
        if !ranges.is_empty() && ranges.iter().all(|(range, _)| range.without(&excluded).is_empty()) {
            let hint = "exclude fewer addresses; to keep what Services hold and give nothing new, set draining = true";
            section.complain(&self.exclude.place, "the pool excludes all of its addresses", hint);
        }
        section.seen.excluded.extend(excluded);
        let below = self.prefix_of.value.clone().flatten();
        let seen = |(range, place): (AddressRange, Place)| {
            let below = below.clone().filter(|_| range.family() == Family::V6);
            SeenRange { range, place, pool: name.clone(), below }
        };
        section.seen.ranges.extend(ranges.into_iter().map(seen));
    }
}

impl Pool {
    /// The addresses that can be given to Services, in the order in which they are.
    pub fn given(&self) -> Vec<AddressRange> {
        let known = |range: &&AddressRange| self.prefix_of.is_none() || !is_unresolved(range);
        self.addresses.iter().filter(known).flat_map(|range| range.without(&self.exclude)).collect()
    }

    /// A Service may hold the address, but none is given it anew.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.exclude.iter().any(|range| range.contains(address)) || self.holds_below_other_prefix(address)
    }

    /// Some old clients take the address for broadcast.
    pub fn avoids(&self, address: IpAddr) -> bool {
        self.avoid_network_and_broadcast && matches!(address, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
    }

    /// The address is one of the pool's.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.contains(address))
    }

    /// The prefix of the link has changed, or is not known: the address is one of the pool's below another prefix.
    pub fn holds_below_other_prefix(&self, address: IpAddr) -> bool {
        let IpAddr::V6(address) = address else { return false };
        let here = self.prefix_of.is_some() && !self.holds(address.into());
        here && self
            .addresses
            .iter()
            .any(|range| host_parts(range).is_some_and(|parts| parts.contains(host_part(address).into())))
    }

    /// The address of the pool with the host part of this one, below the prefix of its link.
    pub fn below_present(&self, address: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(host) = address else { return None };
        let prefix = |range: &AddressRange| match range.first() {
            IpAddr::V6(first) => Some(first),
            IpAddr::V4(_) => None,
        };
        self.prefix_of.as_ref()?;
        let present = self.addresses.iter().find_map(prefix).map(|prefix| IpAddr::V6(below(prefix, host)));
        present.filter(|address| self.holds(*address))
    }

    /// The prefix of the link is not known (yet): no IPv6 address can be given.
    pub fn awaits_prefix(&self) -> bool {
        self.prefix_of.is_some() && self.addresses.iter().any(is_unresolved)
    }

    /// The pool below this prefix of its link, whose last 64 bits count for nothing.
    #[must_use]
    pub fn below(&self, prefix: Ipv6Addr) -> Pool {
        let whole = |range: &AddressRange| range_below(prefix, range).unwrap_or(*range);
        let (addresses, exclude) =
            (self.addresses.iter().map(whole).collect(), self.exclude.iter().map(whole).collect());
        Pool { addresses, exclude, ..self.clone() }
    }
}

/// The last 64 bits are the host's (RFC 4291 §2.5.1).
const HOST_BITS: u128 = u64::MAX as u128;

fn host_part(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & HOST_BITS)
}

/// The address with this host part below a prefix.
pub fn below(prefix: Ipv6Addr, host: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() & !HOST_BITS | host.to_bits() & HOST_BITS)
}

/// An IPv6 range as host parts; `None` for one of IPv4.
fn host_parts(range: &AddressRange) -> Option<AddressRange> {
    range_below(Ipv6Addr::UNSPECIFIED, range)
}

fn range_below(prefix: Ipv6Addr, range: &AddressRange) -> Option<AddressRange> {
    match (range.first(), range.last()) {
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            AddressRange::new(below(prefix, first).into(), below(prefix, last).into()).ok()
        }
        (IpAddr::V4(_), _) | (_, IpAddr::V4(_)) => None,
    }
}

/// Of IPv4, or host parts alone.
fn is_host_part(range: &AddressRange) -> bool {
    range.family() == Family::V4 || is_unresolved(range)
}

fn is_unresolved(range: &AddressRange) -> bool {
    host_parts(range).is_some_and(|parts| parts == *range)
}

/// One entry of `addresses`.
fn range(text: &str) -> Result<AddressRange, Problem> {
    let range: AddressRange = text.parse().map_err(|error: AddressRangeError| {
        let hint = match &error {
            AddressRangeError::NotARange(_) => {
                "write a CIDR, an address, or the first and last address joined by -".to_owned()
            }
            AddressRangeError::MixedFamilies { .. } => "write one range for each address family".to_owned(),
            AddressRangeError::Backwards { first, last } => format!("write \"{last}-{first}\""),
        };
        Problem::new(error.to_string(), hint)
    })?;
    if let Ok(net) = text.trim().parse::<IpNet>()
        && net.addr() != net.network()
    {
        let message = format!("{} has host bits set", written(text));
        let hint = format!("write \"{}\" for the network, or \"{}\" for the address", net.trunc(), net.addr());
        return Err(Problem::new(message, hint));
    }
    match unusable(&range) {
        Some(what) => {
            let message = format!("{} contains {what}, which a Service cannot use", written(text));
            Err(Problem::new(message, "use only unicast addresses that clients can reach"))
        }
        None => Ok(range),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d))
}

const fn v6(first: u16, sixth: u16, rest: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(first, 0, 0, 0, 0, sixth, rest, rest))
}

const fn v6_up_to(first: u16) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::new(first, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff))
}

/// Addresses that cannot belong to a Service, from and to.
const UNUSABLE: [(IpAddr, IpAddr, &str); 9] = [
    (v4(0, 0, 0, 0), v4(0, 255, 255, 255), "unspecified addresses (0.0.0.0/8)"),
    (v4(127, 0, 0, 0), v4(127, 255, 255, 255), "loopback addresses (127.0.0.0/8)"),
    (v4(224, 0, 0, 0), v4(239, 255, 255, 255), "multicast addresses (224.0.0.0/4)"),
    (v4(255, 255, 255, 255), v4(255, 255, 255, 255), "the broadcast address"),
    (v6(0, 0, 0), v6(0, 0, 0), "the unspecified address (::)"),
    (
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        "the loopback address (::1)",
    ),
    (v6(0, 0xffff, 0), v6(0, 0xffff, 0xffff), "IPv4 addresses written as IPv6 (::ffff:0:0/96)"),
    (v6(0xfe80, 0, 0), v6_up_to(0xfebf), "link-local addresses (fe80::/10)"),
    (v6(0xff00, 0, 0), v6_up_to(0xffff), "multicast addresses (ff00::/8)"),
];

/// What the range holds that no Service can have.
pub fn unusable(range: &AddressRange) -> Option<&'static str> {
    UNUSABLE.iter().find(|(first, last, _)| overlap(range, *first, *last)).map(|(_, _, what)| *what)
}

/// Some pool could have the address.
pub fn can_be_of_service(address: IpAddr) -> bool {
    !UNUSABLE.iter().any(|(first, last, _)| (*first..=*last).contains(&address))
}

fn overlap(range: &AddressRange, first: IpAddr, last: IpAddr) -> bool {
    AddressRange::new(first, last).is_ok_and(|unusable| unusable.overlaps(range))
}

/// Complains about each entry that shares addresses with one before it in the order of addresses.
/// A sweep, so that thousands of entries cost no square of it.
pub(in crate::config) fn overlaps(root: &mut Reader<'_>) {
    let mut ranges: Vec<SeenRange> = root.seen.ranges.clone();
    // Host parts below the prefixes of different links have nothing in common.
    let order = |it: &SeenRange| (it.below.clone(), it.range.family(), it.range.first(), it.place.clone());
    ranges.sort_by_cached_key(order);
    let mut furthest: Option<&SeenRange> = None;
    for this in ranges.iter() {
        let overlapping = |before: &&SeenRange| before.below == this.below && before.range.overlaps(&this.range);
        if let Some(before) = furthest.filter(overlapping) {
            // The later one in the files is the one to point at.
            let (second, first) = if before.place > this.place { (before, this) } else { (this, before) };
            let message = match first.pool == second.pool {
                true => format!("the pool \"{}\" contains the same addresses twice", second.pool),
                false => format!("the pools \"{}\" and \"{}\" overlap", first.pool, second.pool),
            };
            let shared_first = this.range.first();
            let shared_last = this.range.last().min(before.range.last());
            let shared = match shared_first == shared_last {
                true => format!("{shared_first} is in both"),
                false => format!("{shared_first} to {shared_last} are in both"),
            };
            let hint = format!("{shared}; remove the overlap from one");
            root.conflict(&second.place, message, &hint, (&first.place, "overlaps with this"));
        }
        let reaches = |before: &SeenRange| {
            let alike = before.below == this.below && before.range.family() == this.range.family();
            alike && before.range.last() >= this.range.last()
        };
        furthest = Some(furthest.filter(|before| reaches(before)).unwrap_or(this));
    }
}
