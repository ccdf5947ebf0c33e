//! Reads `[[pool]]` and `[[l2]]`, and checks that no address is in two pools.
//! Floor 1. Not for handing addresses out.

use std::net::IpAddr;

use ipnet::IpNet;

use super::complaint::{Place, Problem};
use super::reader::Reader;
use super::shape::written;
use super::{L2, Pool, Preference, Subnet, syntax};
use crate::address::{AddressRange, AddressRangeError};
use crate::names::PoolName;

/// The pools, and what was written about them.
pub(super) struct Pools {
    pub list: Vec<Pool>,
    /// Every name, also of pools that something else is wrong with, so that a reference to one is no second mistake.
    names: Vec<(PoolName, Place)>,
}

impl Pools {
    /// Whether the text names a pool.
    pub fn find(&self, text: &str) -> Result<PoolName, Problem> {
        let names: Vec<&str> = self.names.iter().map(|(name, _)| name.as_str()).collect();
        match names.contains(&text) {
            true => Ok(text.into()),
            false => {
                let hint = syntax::suggestion(text, &names, "[[pool]]");
                Err(Problem::new(format!("there is no pool {}", written(text)), hint))
            }
        }
    }
}

/// Reads all pools, in the order of the files, which is the order the plan asks equals in.
pub(super) fn pools(root: &mut Reader<'_>) -> Pools {
    let mut names: Vec<(PoolName, Place)> = Vec::new();
    let mut ranges: Vec<(AddressRange, Place, PoolName)> = Vec::new();
    let list = root.many("pool", |section| {
        let name = section.text("name", |text| syntax::name(text).map(PoolName::from));
        if let Some(name) = &name {
            unique(section, "pool", name, &mut names);
        }
        let addresses = addresses(section, name.as_ref().map_or("", PoolName::as_str), &mut ranges);
        let pool = Pool {
            name: name.unwrap_or_else(|| PoolName::from("")),
            addresses,
            auto_assign: section.flag("auto-assign"),
            avoid_network_and_broadcast: section.flag("avoid-network-and-broadcast"),
            priority: section.number("priority"),
            namespaces: items(section.set("namespaces", syntax::namespace)),
            namespace_selector: section.text("namespace-selector", syntax::selector),
            service_selector: section.text("service-selector", syntax::selector),
            rest: section.duration("rest").unwrap_or_default(),
            bind: section.text("bind", syntax::interface),
        };
        Some(pool)
    });
    overlaps(root, &mut ranges);
    Pools { list, names }
}

pub(super) fn items<T>(placed: Vec<(T, Place)>) -> Vec<T> {
    placed.into_iter().map(|(item, _)| item).collect()
}

/// Complains if the name is taken, and takes it.
pub(super) fn unique<N: PartialEq + Clone + std::fmt::Display>(
    section: &mut Reader<'_>,
    what: &str,
    name: &N,
    taken: &mut Vec<(N, Place)>,
) {
    let place = section.place("name");
    if let Some((_, first)) = taken.iter().find(|(other, _)| other == name) {
        let message = format!("two {what}s are called \"{name}\"");
        let hint = format!("give each {what} a name of its own");
        section.conflict(place.clone(), message, &hint, (first.clone(), "the first is here"));
    }
    taken.push((name.clone(), place));
}

fn addresses(
    section: &mut Reader<'_>,
    name: &str,
    all: &mut Vec<(AddressRange, Place, PoolName)>,
) -> Vec<AddressRange> {
    let ranges = section.texts("addresses", range);
    if section.empty_list_given("addresses") {
        let place = section.place("addresses");
        section.complain(place, "this pool has no addresses", "add a CIDR or a range: addresses = [\"192.0.2.0/24\"]");
    }
    all.extend(ranges.iter().map(|(range, place)| (*range, place.clone(), PoolName::from(name))));
    items(ranges)
}

/// One entry of `addresses`.
fn range(text: &str) -> Result<AddressRange, Problem> {
    let range: AddressRange = text.parse().map_err(|error: AddressRangeError| {
        let hint = match &error {
            AddressRangeError::NotARange(_) => {
                "write a CIDR, an address, or the first and last address with a - between".to_owned()
            }
            AddressRangeError::MixedFamilies { .. } => "write one range for each family".to_owned(),
            AddressRangeError::Backwards { first, last } => format!("write \"{last}-{first}\""),
        };
        Problem::new(error.to_string(), hint)
    })?;
    if let Ok(net) = text.trim().parse::<IpNet>()
        && net.addr() != net.network()
    {
        let message = format!("{} has bits set behind its length", written(text));
        let hint = format!("write \"{}\" for the whole network, or \"{}\" for the address", net.trunc(), net.addr());
        return Err(Problem::new(message, hint));
    }
    match UNUSABLE.iter().find(|(first, last, _)| overlap(&range, *first, *last)) {
        Some((_, _, what)) => {
            let message = format!("{} holds {what}, which no Service can have", written(text));
            Err(Problem::new(message, "name only unicast addresses that clients can reach"))
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
fn overlaps(root: &mut Reader<'_>, ranges: &mut [(AddressRange, Place, PoolName)]) {
    ranges.sort_by(|(a, place_a, _), (b, place_b, _)| {
        (a.family(), a.first(), place_a).cmp(&(b.family(), b.first(), place_b))
    });
    let mut furthest: Option<&(AddressRange, Place, PoolName)> = None;
    for this in ranges.iter() {
        if let Some(before) = furthest.filter(|before| before.0.overlaps(&this.0)) {
            // The later one in the files is the one to point at.
            let (second, first) = if before.1 > this.1 { (before, this) } else { (this, before) };
            let message = match first.2 == second.2 {
                true => format!("the pool \"{}\" holds the same addresses twice", second.2),
                false => format!("the pools \"{}\" and \"{}\" overlap", first.2, second.2),
            };
            let shared_first = this.0.first();
            let shared_last = this.0.last().min(before.0.last());
            let shared = match shared_first == shared_last {
                true => format!("{shared_first} is in both"),
                false => format!("{shared_first} to {shared_last} are in both"),
            };
            let hint = format!("{shared}; take them out of one");
            root.conflict(second.1.clone(), message, &hint, (first.1.clone(), "overlaps with this"));
        }
        furthest = match furthest {
            Some(before) if before.0.family() == this.0.family() && before.0.last() >= this.0.last() => Some(before),
            _ => Some(this),
        };
    }
}

/// Reads one `[[l2]]`.
pub(super) fn l2(section: &mut Reader<'_>, pools: &Pools) -> Option<L2> {
    Some(L2 {
        pools: items(section.set("pools", |text| pools.find(text))),
        interfaces: items(section.set("interfaces", syntax::interface_pattern)),
        exclude_interfaces: items(section.set("exclude-interfaces", syntax::interface_pattern)),
        nodes: section.text("nodes", syntax::selector),
        preference: section.many("preference", |preference| {
            let nodes = preference.text("nodes", syntax::selector);
            let weight = preference.number("weight");
            Some(Preference { nodes: nodes?, weight: weight? })
        }),
        sticky: section.flag("sticky"),
        subnet: section.text("subnet", |text| {
            syntax::word("subnet rule", text, &["prefer", "require", "ignore"]).map(|word| match word {
                "require" => Subnet::Require,
                "ignore" => Subnet::Ignore,
                _ => Subnet::Prefer,
            })
        })?,
    })
}
