//! The families whose routes a peer has requested again, and the marks around them (RFC 2918, RFC 7313). Floor 1.
//! Not for the routes themselves: the outbox has them, and joins requested routes with pending ones.

use std::collections::BTreeSet;

use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::wire::{AfiSafi, Message, RefreshKind, RouteRefresh};

/// The families that one session still has to send again. However often the peer asks, each family waits once, and one is sent
/// at a time, so a peer that asks without end costs no more than what it reads.
#[derive(Debug, Default)]
pub(in crate::bgp) struct Refreshes {
    waiting: BTreeSet<AfiSafi>,
    /// The family whose beginning was marked. Its end is due once nothing is left to send.
    marked: Option<AfiSafi>,
}

/// What is next, once nothing is left to send.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bgp) struct RefreshStep {
    /// To be sent first, after all routes that were sent so far.
    pub(in crate::bgp) mark: Option<Message>,
    /// The family whose routes are all to be sent again.
    pub(in crate::bgp) again: Option<AfiSafi>,
}

impl Refreshes {
    /// False if the family is waiting already.
    pub(in crate::bgp) fn ask(&mut self, family: AfiSafi) -> bool {
        self.waiting.insert(family)
    }

    /// The families that the peer does not have all of yet.
    pub(in crate::bgp) fn owed(&self) -> impl Iterator<Item = AfiSafi> + '_ {
        self.waiting.iter().copied().chain(self.marked)
    }

    /// A family is between its marks, or waits for nothing but its end.
    pub(in crate::bgp) fn is_under_way(&self) -> bool {
        self.marked.is_some()
    }

    /// Call it when every wanted route was sent. `complete`: End-of-RIB was sent too.
    pub(in crate::bgp) fn poll_idle(&mut self, negotiated: &Negotiated, complete: bool) -> Option<RefreshStep> {
        let mark = |kind, family| Some(Message::RouteRefresh(RouteRefresh { family, kind }));
        if let Some(family) = self.marked.take() {
            return Some(RefreshStep { mark: mark(RefreshKind::End, family), again: None });
        }
        if !negotiated.enhanced_refresh {
            let family = self.waiting.pop_first()?;
            return Some(RefreshStep { mark: None, again: Some(family) });
        }
        // RFC 7313 §4: no beginning is marked before End-of-RIB. An earlier request waits for it.
        let family = if complete { self.waiting.pop_first() } else { None }?;
        self.marked = Some(family);
        Some(RefreshStep { mark: mark(RefreshKind::Begin, family), again: Some(family) })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::bgp::machine::negotiation::LocalOffer;
    use crate::bgp::wire::ExpectedAsn;

    const V4: AfiSafi = AfiSafi::IPV4_UNICAST;
    const V6: AfiSafi = AfiSafi::IPV6_UNICAST;

    fn negotiated(enhanced_refresh: bool) -> Negotiated {
        let offer = |local_asn, expected, id| LocalOffer {
            local_asn,
            expected_asn: ExpectedAsn::Is(expected),
            identifier: Ipv4Addr::from_bits(id),
            hold_time: None,
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(5),
            passive: false,
            link_scoped: false,
            graceful_restart: None,
            withheld: Vec::new(),
        };
        let agreed = offer(65001, 65002, 1).negotiate(&offer(65002, 65001, 2).open()).expect("they fit");
        Negotiated { enhanced_refresh, ..agreed }
    }

    /// Every step until there is none, as `begin`, `again` and `end` of a family.
    fn steps(refreshes: &mut Refreshes, negotiated: &Negotiated, complete: bool) -> Vec<String> {
        let step = || refreshes.poll_idle(negotiated, complete);
        std::iter::from_fn(step)
            .flat_map(|RefreshStep { mark, again }| {
                mark.map(|mark| mark.to_string()).into_iter().chain(again.map(|family| format!("all {family}")))
            })
            .collect()
    }

    #[test]
    fn each_family_is_sent_again_once_however_often_it_was_asked_for() {
        let mut refreshes = Refreshes::default();
        assert_eq!([V6, V4, V6, V4, V4].map(|family| refreshes.ask(family)), [true, true, false, false, false]);
        assert_eq!(steps(&mut refreshes, &negotiated(false), false), ["all IPv4 unicast", "all IPv6 unicast"]);
        assert_eq!(steps(&mut refreshes, &negotiated(false), false), [""; 0]);
    }

    #[test]
    fn marks_stand_around_the_routes_of_one_family_where_both_sides_know_them() {
        let mut refreshes = Refreshes::default();
        assert_eq!([V4, V6].map(|family| refreshes.ask(family)), [true, true]);
        let expected = [
            "ROUTE-REFRESH IPv4 unicast begins",
            "all IPv4 unicast",
            "ROUTE-REFRESH IPv4 unicast ends",
            "ROUTE-REFRESH IPv6 unicast begins",
            "all IPv6 unicast",
            "ROUTE-REFRESH IPv6 unicast ends",
        ];
        assert_eq!(steps(&mut refreshes, &negotiated(true), true), expected);
    }

    #[test]
    fn a_family_that_is_asked_for_while_it_is_sent_is_sent_once_more() {
        let (mut refreshes, negotiated) = (Refreshes::default(), negotiated(true));
        refreshes.ask(V4);
        assert_eq!(refreshes.poll_idle(&negotiated, true).and_then(|step| step.again), Some(V4));
        refreshes.ask(V4);
        let all = steps(&mut refreshes, &negotiated, true).join(", ");
        let (ends, begins) = ("ROUTE-REFRESH IPv4 unicast ends", "ROUTE-REFRESH IPv4 unicast begins");
        assert_eq!(all, format!("{ends}, {begins}, all IPv4 unicast, {ends}"));
    }

    #[test]
    fn between_two_refreshes_of_a_peer_that_asks_without_end_there_is_room_for_another_next_hop() {
        let (mut refreshes, negotiated) = (Refreshes::default(), negotiated(true));
        for _ in 0..10 {
            refreshes.ask(V4);
            assert!(!refreshes.is_under_way(), "before it begins");
            assert!(refreshes.poll_idle(&negotiated, true).is_some_and(|step| step.again == Some(V4)));
            refreshes.ask(V4);
            assert!(refreshes.is_under_way());
            assert!(refreshes.poll_idle(&negotiated, true).is_some_and(|step| step.again.is_none()), "it ends");
        }
    }

    #[test]
    fn no_beginning_is_marked_before_end_of_rib() {
        let mut refreshes = Refreshes::default();
        refreshes.ask(V4);
        assert_eq!(steps(&mut refreshes, &negotiated(true), false), [""; 0]);
        assert_eq!(steps(&mut refreshes, &negotiated(true), true).len(), 3, "it was not forgotten");
    }
}
