//! `[[bgp.advertisement]]`: what is announced to which peers, and how. Floor 1.

use std::net::IpAddr;

use super::communities::community;
use super::peer::Peer;
use super::{Check, Section, Written as Value, section};
use crate::address::{AddressRange, Family};
use crate::community::Community;
use crate::config::key::{MOST_U32, flag, list, number, selector, set, vrf};
use crate::config::reader::Reader;
use crate::config::seen;
use crate::names::{InterfaceName, PeerName, PoolName};
use crate::selector::{Labels, Selector};

section! {
    /// `[[bgp.advertisement]]`
    pub struct Advertisement = Section::many(
        "bgp.advertisement",
        "What is announced to which peers, and with which attributes. Without an advertisement, nothing is announced over BGP.",
    ), written as Written;
    keys {
        /// Empty: all pools.
        pub pools: Vec<PoolName> = set("pools", "pool names", seen::pool, "The pools to announce; [] announces all.")
            .shown("[\"lan\"]"), touches Decisions;
        /// Empty: all peers.
        pub peers: Vec<PeerName> =
            set("peers", "peer names", seen::peer, "The peers to announce to; [] announces to all.").shown("[\"tor\"]"), touches Decisions;
        /// Of the peers above, those in this VRF.
        pub vrf: Option<InterfaceName> = vrf("vrf", "Of these peers, only those in this VRF.")
            .optional("peers of every VRF and of none")
            .shown("\"red\""), touches Decisions;
        pub service_selector: Option<Selector> = selector("service-selector", "Only Services with these labels.")
            .optional("every Service")
            .shown("\"expose=wan\""), touches Decisions;
        pub nodes: Option<Selector> = selector("nodes", "The nodes that announce, by their labels.")
            .optional("every node")
            .shown("\"rack=a\""), touches Decisions;
        /// 1 to 32.
        pub aggregation_length: u8 = number(
            "aggregation-length",
            "bits",
            1,
            32,
            "The length of the announced IPv4 prefixes. An aggregate must lie in its pool as a whole.",
        )
        .default(32)
        .trade(
            "Shorter prefixes save routes, but with external traffic policy Local draw traffic to nodes without endpoints. An \
             address with crier.dev/egress: service-ip is announced by its owner as a host route as well.",
        ), touches Decisions;
        /// 1 to 128.
        pub aggregation_length_v6: u8 = number(
            "aggregation-length-v6",
            "bits",
            1,
            128,
            "The length of the announced IPv6 prefixes. An aggregate must lie in its pool as a whole.",
        )
        .default(128)
        .trade("As for aggregation-length."), touches Decisions;
        pub local_preference: Option<u32> =
            number("local-preference", "", 0, MOST_U32, "LOCAL_PREF, sent to internal peers only. Higher wins.")
                .optional("100")
                .shown("100"), touches Decisions;
        pub med: Option<u32> = number("med", "", 0, MOST_U32, "MULTI_EXIT_DISC. Lower wins.")
            .optional("none is sent")
            .shown("10"), touches Decisions;
        pub prepend: u8 =
            number("prepend", "times", 0, 64, "How many extra times to prepend our AS number, to external peers only.")
                .default(0)
                .trade("Each makes the route less preferred; some routers drop very long paths."), touches Decisions;
        /// Aliases resolved, sorted, without repetition.
        pub communities: Vec<Community> = list(
            "communities",
            "communities (64512:100, large:64512:1:2, rt:64512:100, ro:64512:100, ext:0x and 16 digits), well-known names and aliases",
            community,
            "The communities on the routes.",
        )
        .shown("[\"64512:100\", \"large:64512:1:2\", \"no-advertise\", \"blue\"]"), touches Decisions;
        /// Weigh this node by its ready endpoints, under external traffic policy Local.
        pub link_bandwidth: bool = flag(
            "link-bandwidth",
            false,
            "With external traffic policy Local, tell routers to weigh each node by its number of ready endpoints.",
        )
        .trade("Each endpoint that comes or goes costs an UPDATE. Only routers that balance by link bandwidth use it."), touches Decisions;
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        if let Some(communities) = &mut self.communities.value {
            communities.sort();
            communities.dedup();
        }
        covered(section, self, Family::V4, &self.aggregation_length);
        covered(section, self, Family::V6, &self.aggregation_length_v6);
    }
}

/// An aggregate draws the traffic of every address in it, so each must lie in the pool whole.
fn covered(section: &mut Reader<'_>, advertisement: &Written, family: Family, key: &Value<u8>) {
    let Some(length) = key.value.filter(|length| *length < family.host_length()) else { return };
    let all = !advertisement.pools.given || advertisement.pools.empty_list;
    let names = advertisement.pools.value.as_deref().unwrap_or_default();
    let pools: Vec<PoolName> = section.seen.pools.iter().map(|(name, _)| name.clone()).collect();
    for pool in pools.iter().filter(|pool| all || names.contains(pool)) {
        let ranges = section.seen.ranges.iter().filter(|it| it.pool == *pool).map(|it| it.range);
        for range in joined(ranges.filter(|range| range.family() == family).collect()) {
            let Some((outside, aggregate)) = sticks_out(&range, length) else { continue };
            let message = format!("the aggregate {aggregate} contains {outside}, which is not in the pool \"{pool}\"");
            let hint = "use a greater length, or add the whole prefix to the pool";
            section.complain(&key.place, message, hint);
            break;
        }
    }
}

/// The ranges of one family, with those that touch put together.
fn joined(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_by_key(AddressRange::first);
    let mut joined: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first() <= last.last() || Some(range.first()) == after(last.last()) => {
                let end = last.last().max(range.last());
                // The end of a range is not before its beginning, so this always is a range.
                *last = AddressRange::new(last.first(), end).unwrap_or(range);
            }
            _ => joined.push(range),
        }
    }
    joined
}

impl Advertisement {
    /// It is for addresses of the pool that a Service with these labels has.
    pub fn covers(&self, pool: &PoolName, labels: &Labels) -> bool {
        (self.pools.is_empty() || self.pools.contains(pool)) && self.selects(labels)
    }

    /// The peer is sent what it covers.
    pub fn reaches(&self, peer: &Peer) -> bool {
        let is_named = self.peers.is_empty() || self.peers.contains(&peer.name);
        is_named && (self.vrf.is_none() || self.vrf == peer.vrf)
    }

    /// It is for Services with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.service_selector.as_ref().is_none_or(|selector| selector.matches(labels))
    }
}

/// An address outside the range that is in the first or last aggregate of the range, with that aggregate.
fn sticks_out(range: &AddressRange, length: u8) -> Option<(IpAddr, ipnet::IpNet)> {
    let first = ipnet::IpNet::new(range.first(), length).ok()?.trunc();
    let last = ipnet::IpNet::new(range.last(), length).ok()?.trunc();
    if first.network() != range.first() {
        Some((first.network(), first))
    } else if last.broadcast() != range.last() {
        Some((last.broadcast(), last))
    } else {
        None
    }
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
