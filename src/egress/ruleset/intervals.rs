//! Networks as nftables keeps them: intervals of addresses that do not touch. Floor 1. What lies in the intervals is the caller's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::world::Destinations;

/// An element of a set of single addresses, or the beginning or end of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) key: IpAddr,
    pub(super) ends: bool,
}

/// First and last address, as numbers.
type Range = (u128, u128);

/// The networks, of IPv4 and of IPv6.
pub(super) fn intervals<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> [Vec<Bound>; 2] {
    let [v4, v6] = ranges(nets);
    [bounds(joined(v4), Space::V4), bounds(joined(v6), Space::V6)]
}

/// All that the destinations do not cover, of IPv4 and of IPv6.
pub(super) fn exempt(destinations: &Destinations) -> [Vec<Bound>; 2] {
    let [to4, to6] = ranges(&destinations.to);
    let [except4, except6] = ranges(&destinations.except);
    let of = |to: Vec<Range>, except: Vec<Range>, space: Space| {
        let beyond = if destinations.to.is_empty() { Vec::new() } else { gaps(&joined(to), space.last()) };
        bounds(joined(beyond.into_iter().chain(except).collect()), space)
    };
    [of(to4, except4, Space::V4), of(to6, except6, Space::V6)]
}

/// The networks that make up intervals: each bound is the first address of one, or with the flag the first behind one.
pub(super) fn networks(bounds: &[(IpAddr, bool)]) -> Vec<IpNet> {
    let mut bounds = bounds.to_vec();
    // One ends before the next begins.
    bounds.sort_unstable_by_key(|(key, ends)| (*key, !*ends));
    let mut networks = Vec::new();
    let mut close = |first: Option<IpAddr>, last: Option<IpAddr>| match (first, last) {
        (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) => {
            networks.extend(Ipv4Subnets::new(first, last, 0).map(IpNet::V4));
        }
        (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) => {
            networks.extend(Ipv6Subnets::new(first, last, 0).map(IpNet::V6));
        }
        _ => {}
    };
    for space in [Space::V4, Space::V6] {
        let mut open = None;
        for (key, ends) in bounds.iter().filter(|(key, _)| key.is_ipv4() == matches!(space, Space::V4)) {
            match ends {
                true => close(open.take(), before(*key)),
                false => open = open.or(Some(*key)),
            }
        }
        close(open, Some(space.address(space.last())));
    }
    networks.sort_unstable();
    networks
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_sub(1).map(|before| IpAddr::V4(before.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_sub(1).map(|before| IpAddr::V6(before.into())),
    }
}

#[derive(Debug, Clone, Copy)]
enum Space {
    V4,
    V6,
}

impl Space {
    fn last(self) -> u128 {
        match self {
            Space::V4 => u128::from(u32::MAX),
            Space::V6 => u128::MAX,
        }
    }

    fn address(self, value: u128) -> IpAddr {
        match self {
            Space::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX))),
            Space::V6 => IpAddr::V6(Ipv6Addr::from(value)),
        }
    }
}

fn ranges<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> [Vec<Range>; 2] {
    let (mut all4, mut all6) = (Vec::new(), Vec::new());
    for net in nets {
        match net {
            IpNet::V4(net) => all4.push((u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast())))),
            IpNet::V6(net) => all6.push((u128::from(net.network()), u128::from(net.broadcast()))),
        }
    }
    [all4, all6]
}

/// In order, and those that touch made one.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut() {
            Some((_, end)) if from <= end.saturating_add(1) => *end = to.max(*end),
            Some(_) | None => joined.push((from, to)),
        }
    }
    joined
}

/// What lies between and around joined ranges.
fn gaps(joined: &[Range], last: u128) -> Vec<Range> {
    let mut gaps = Vec::new();
    let mut next = Some(0);
    for (from, to) in joined {
        if let Some(start) = next.filter(|start| start < from) {
            gaps.push((start, from - 1));
        }
        next = to.checked_add(1).filter(|start| *start <= last);
    }
    gaps.extend(next.map(|start| (start, last)));
    gaps
}

fn bounds(joined: Vec<Range>, space: Space) -> Vec<Bound> {
    let both = joined.into_iter().flat_map(|(from, to)| {
        let end = (to < space.last()).then(|| Bound { key: space.address(to + 1), ends: true });
        std::iter::once(Bound { key: space.address(from), ends: false }).chain(end)
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(nets: &[&str]) -> Vec<IpNet> {
        nets.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn text(bounds: &[Bound]) -> String {
        let one = |it: &Bound| format!("{}{}", it.key, if it.ends { " end" } else { "" });
        bounds.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn networks_become_intervals_that_do_not_touch() {
        let nets =
            nets(&["10.244.0.0/24", "10.244.1.0/24", "10.0.0.1/32", "10.244.1.7/32", "255.0.0.0/8", "fd44::/64"]);
        let [v4, v6] = intervals(&nets);
        assert_eq!(text(&v4), "10.0.0.1, 10.0.0.2 end, 10.244.0.0, 10.244.2.0 end, 255.0.0.0");
        assert_eq!(text(&v6), "fd44::, fd44:0:0:1:: end");
    }

    #[test]
    fn exempt_is_what_to_leaves_out_and_what_except_names() {
        let table: [(&[&str], &[&str], &str, &str); 5] = [
            (&[], &["10.0.0.0/8"], "10.0.0.0, 11.0.0.0 end", ""),
            (
                &["10.0.0.0/8", "fd00::/8"],
                &["10.1.0.0/16", "fd12::1/128"],
                "0.0.0.0, 10.0.0.0 end, 10.1.0.0, 10.2.0.0 end, 11.0.0.0",
                "::, fd00:: end, fd12::1, fd12::2 end, fe00::",
            ),
            // Of a family that -to does not name, nothing is covered.
            (&["192.0.2.0/24"], &[], "0.0.0.0, 192.0.2.0 end, 192.0.3.0", "::"),
            (&["0.0.0.0/0", "::/0"], &[], "", ""),
            (&["0.0.0.0/1", "ffff::/16"], &["0.0.0.0/0"], "0.0.0.0", "::, ffff:: end"),
        ];
        for (to, except, expected4, expected6) in table {
            let destinations = Destinations { to: nets(to), except: nets(except) };
            let [v4, v6] = exempt(&destinations);
            assert_eq!((text(&v4).as_str(), text(&v6).as_str()), (expected4, expected6), "{destinations}");
        }
    }

    /// Input: lists of destinations. Output: what the kernel holds of each, in any order, makes a list that covers the same.
    #[test]
    fn the_intervals_of_a_list_are_read_back_as_a_list_that_covers_the_same() {
        let lists: [(&[&str], &[&str]); 5] = [
            (&["203.0.113.0/24"], &[]),
            (&[], &["10.0.0.0/8", "fd00::/8"]),
            (&["10.0.0.0/8", "fd00::/8"], &["10.1.0.0/16", "10.2.0.3/32", "fd12::1/128"]),
            (&["0.0.0.0/0", "::/0"], &[]),
            (&["255.0.0.0/8", "ff00::/8"], &["255.255.255.255/32"]),
        ];
        for (to, except) in lists {
            let list = Destinations { to: nets(to), except: nets(except) };
            let held = exempt(&list).into_iter().flatten().map(|bound| (bound.key, bound.ends)).rev();
            let read = Destinations { to: Vec::new(), except: networks(&held.collect::<Vec<_>>()) };
            let edges = to.iter().chain(except).flat_map(|net| {
                let net: IpNet = net.parse().unwrap();
                [net.network(), net.broadcast()]
            });
            let around = edges.flat_map(|edge| {
                let after = match edge {
                    IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|it| IpAddr::V4(it.into())),
                    IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|it| IpAddr::V6(it.into())),
                };
                [before(edge), Some(edge), after].into_iter().flatten()
            });
            let far = ["0.0.0.0", "8.8.8.8", "255.255.255.255", "::", "2001:db8::1"].map(|it| it.parse().unwrap());
            for address in around.chain(far) {
                assert_eq!(read.covers(address), list.covers(address), "{address} of {list}, read as {read}");
            }
        }
        assert_eq!(networks(&[]), [], "nothing is exempt");
        let odd = ["10.0.0.0", "0.0.0.0"].map(|it| (it.parse().unwrap(), true));
        assert_eq!(networks(&odd), [], "ends alone");
    }

    #[test]
    fn an_address_is_in_the_exempt_intervals_exactly_where_it_is_not_covered() {
        let destinations =
            Destinations { to: nets(&["10.0.0.0/30", "10.0.0.8/29"]), except: nets(&["10.0.0.2/32", "10.0.0.12/30"]) };
        let [v4, _] = exempt(&destinations);
        for last in 0..=255_u8 {
            let address = IpAddr::from([10, 0, 0, last]);
            let before = v4.iter().rev().find(|bound| bound.key <= address);
            let is_exempt = before.is_some_and(|bound| !bound.ends);
            assert_eq!(is_exempt, !destinations.covers(address), "{address}");
        }
    }
}
