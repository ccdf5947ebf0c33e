//! `[[pool]]`: addresses to give to Services. Floor 1. Not for handing them out.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Check, Section, section};
use crate::address::{AddressRange, AddressRangeError};
use crate::config::complaint::{Place, Problem};
use crate::config::key::{HOUR, MOST_U32, duration, flag, interface, list, name, number, selector, set, vrf};
use crate::config::reader::Reader;
use crate::config::seen::unique;
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
        section.seen.ranges.extend(ranges.into_iter().map(|(range, place)| (range, place, name.clone())));
    }
}

impl Pool {
    /// The addresses that can be given to Services, in the order in which they are.
    pub fn given(&self) -> Vec<AddressRange> {
        self.addresses.iter().flat_map(|range| range.without(&self.exclude)).collect()
    }

    /// A Service may hold the address, but none is given it anew.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.exclude.iter().any(|range| range.contains(address))
    }
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
    match UNUSABLE.iter().find(|(first, last, _)| overlap(&range, *first, *last)) {
        Some((_, _, what)) => {
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

fn overlap(range: &AddressRange, first: IpAddr, last: IpAddr) -> bool {
    AddressRange::new(first, last).is_ok_and(|unusable| unusable.overlaps(range))
}

/// Complains about each entry that shares addresses with one before it in the order of addresses.
/// A sweep, so that thousands of entries cost no square of it.
pub(in crate::config) fn overlaps(root: &mut Reader<'_>) {
    let mut ranges: Vec<(AddressRange, Place, PoolName)> = root.seen.ranges.clone();
    ranges.sort_by(|(a, place_a, _), (b, place_b, _)| {
        (a.family(), a.first(), place_a).cmp(&(b.family(), b.first(), place_b))
    });
    let mut furthest: Option<&(AddressRange, Place, PoolName)> = None;
    for this in ranges.iter() {
        if let Some(before) = furthest.filter(|before| before.0.overlaps(&this.0)) {
            // The later one in the files is the one to point at.
            let (second, first) = if before.1 > this.1 { (before, this) } else { (this, before) };
            let message = match first.2 == second.2 {
                true => format!("the pool \"{}\" contains the same addresses twice", second.2),
                false => format!("the pools \"{}\" and \"{}\" overlap", first.2, second.2),
            };
            let shared_first = this.0.first();
            let shared_last = this.0.last().min(before.0.last());
            let shared = match shared_first == shared_last {
                true => format!("{shared_first} is in both"),
                false => format!("{shared_first} to {shared_last} are in both"),
            };
            let hint = format!("{shared}; remove the overlap from one");
            root.conflict(&second.1, message, &hint, (&first.1, "overlaps with this"));
        }
        furthest = match furthest {
            Some(before) if before.0.family() == this.0.family() && before.0.last() >= this.0.last() => Some(before),
            _ => Some(this),
        };
    }
}
