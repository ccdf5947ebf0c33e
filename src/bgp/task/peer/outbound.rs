//! What an established session is sent, and what the report says about it. Floor 2, a part of the peer's task.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::uptake::Uptake;
use crate::address::Family;
use crate::bgp::machine::ConnectionId;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::outbox::refreshes::Refreshes;
use crate::bgp::outbox::{NextHops, Outbox, Unsendable};
use crate::bgp::wire::AfiSafi;
use crate::world::{Capabilities, CarriedFamily, NegotiatedReport, SessionDetail, UnsendablePrefixes};

/// What an established session is sent.
pub(super) struct Outbound {
    pub(super) connection: ConnectionId,
    pub(super) negotiated: Negotiated,
    pub(super) local_address: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    pub(super) capabilities: Capabilities,
    /// The next hops in use.
    pub(super) next_hops: NextHops,
    /// The outbox does not write them yet: it will, into the routes that they change, as soon as it is idle.
    pub(super) next_hops_due: bool,
    /// The session is that of a previous agent, and what the peer should have is not known yet: it is sent nothing.
    pub(super) awaits_plan: bool,
    /// An UPDATE of the peer was ignored, and that was logged.
    pub(super) ignores: bool,
    pub(super) outbox: Outbox,
    pub(super) refreshes: Refreshes,
    /// When it was logged last that the peer asks for all routes of a family.
    pub(super) refreshes_told: BTreeMap<AfiSafi, Instant>,
    /// Whether the peer takes what it is sent.
    pub(super) uptake: Uptake,
    /// The session does not stand any more as its ledger began: an UPDATE was sent, or a setting has changed.
    pub(super) has_news: bool,
    /// It can have no ledger, and that was logged.
    pub(super) without_ledger: bool,
}

/// A peer that asks for all routes without end has that logged so often.
const REFRESH_TOLD_EVERY: Duration = Duration::from_secs(60);

impl Outbound {
    /// Whether to log that the peer asks for all routes of the family.
    pub(super) fn tells_refresh(&mut self, family: AfiSafi, now: Instant) -> bool {
        let is_due = self.refreshes_told.get(&family).is_none_or(|at| now >= *at + REFRESH_TOLD_EVERY);
        if is_due {
            self.refreshes_told.insert(family, now);
        }
        is_due
    }

    /// The families whose routes the session carries.
    pub(super) fn families(&self) -> impl Iterator<Item = AfiSafi> + use<> {
        let Negotiated { ipv4_unicast, ipv6_unicast, .. } = self.negotiated;
        let all = [(ipv4_unicast, AfiSafi::IPV4_UNICAST), (ipv6_unicast, AfiSafi::IPV6_UNICAST)];
        all.into_iter().filter_map(|(carried, family)| carried.then_some(family))
    }

    /// The families that the session carries and whose next hop becomes this other one; with what it was.
    pub(super) fn new_next_hops(&self, newest: NextHops) -> Vec<(Family, Option<IpAddr>, IpAddr)> {
        let Negotiated { ipv4_unicast, ipv6_unicast, .. } = self.negotiated;
        let all = [(ipv4_unicast, Family::V4), (ipv6_unicast, Family::V6)];
        let carried = all.into_iter().filter_map(|(carried, family)| carried.then_some(family));
        let change = |family| {
            let [before, after] = [self.next_hops, newest].map(|it| self.next_hop(it, family));
            after.filter(|_| before != after).map(|after| (family, before, after))
        };
        carried.filter_map(change).collect()
    }

    /// The global one of routes of the family.
    fn next_hop(&self, NextHops { v4, v6 }: NextHops, family: Family) -> Option<IpAddr> {
        let v6 = v6.map(|v6| IpAddr::V6(v6.global));
        match family {
            Family::V4 => v4.map(IpAddr::V4).or(v6.filter(|_| self.negotiated.ipv4_with_ipv6_next_hop)),
            Family::V6 => v6,
        }
    }

    /// What both sides hold to, for the report.
    pub(super) fn negotiated(&self, router_id: Ipv4Addr) -> NegotiatedReport {
        let Negotiated { hold_time, keepalive_time, ipv4_unicast, ipv6_unicast, .. } = self.negotiated;
        let carried = |family, negotiated: bool, next_hop: Option<IpAddr>| CarriedFamily {
            family,
            next_hop: next_hop.filter(|_| negotiated),
            unsendable: match (negotiated, next_hop) {
                (false, _) => Some(Unsendable::NotNegotiated(AfiSafi::unicast(family)).to_string()),
                (true, None) => Some(Unsendable::NoNextHop(AfiSafi::unicast(family)).to_string()),
                (true, Some(_)) => None,
            },
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        NegotiatedReport {
            local: self.local,
            remote: self.remote,
            local_asn: self.negotiated.local_asn,
            peer_asn: self.negotiated.peer_asn,
            local_router_id: router_id,
            peer_router_id: self.negotiated.peer_identifier,
            hold_time_secs: hold_time.map(|time| time.as_secs()),
            keepalive_time_millis: keepalive_time.map(millis),
            max_message_len: self.negotiated.max_message_len,
            graceful_restart: self.negotiated.graceful_restart,
            families: vec![
                carried(Family::V4, ipv4_unicast, self.next_hop(self.next_hops, Family::V4)),
                carried(Family::V6, ipv6_unicast, self.next_hop(self.next_hops, Family::V6)),
            ],
            capabilities: self.capabilities.clone(),
        }
    }

    /// How many prefixes cannot be sent, by the reason; and the first of those whose attributes do not fit a message. One walk
    /// for both.
    pub(super) fn unsendable(&self) -> (Vec<UnsendablePrefixes>, Vec<IpNet>) {
        let mut all: Vec<(Unsendable, usize)> = Vec::new();
        let mut too_long = Vec::new();
        if self.outbox.unsendable_count() == 0 {
            return (Vec::new(), too_long);
        }
        for (prefix, reason) in self.outbox.unsendable() {
            match reason {
                Unsendable::AttributesTooLong(_) if too_long.len() < SessionDetail::MOST_TOO_LONG => {
                    too_long.push(prefix);
                }
                Unsendable::AttributesTooLong(_) | Unsendable::NotNegotiated(_) | Unsendable::NoNextHop(_) => {}
            }
            match all.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => all.push((reason, 1)),
            }
        }
        let in_words = |(reason, prefixes): (Unsendable, usize)| {
            let family = match reason {
                Unsendable::NotNegotiated(family) | Unsendable::NoNextHop(family) => family.unicast_family(),
                Unsendable::AttributesTooLong(_) => None,
            };
            UnsendablePrefixes { family, reason: reason.to_string(), prefixes }
        };
        (all.into_iter().map(in_words).collect(), too_long)
    }
}
