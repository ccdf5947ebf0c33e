//! Which address of this host the peer is dialled from, where the configuration names none: what is known of those that it takes and of
//! those that it refuses. Floor 1. A virtual address, which goes to another host some day, is not to be one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::address::{LocalAddress, ScopedAddress, Stay, is_link_local_v6, near};
use crate::names::InterfaceName;

/// What is known of our ends of the connections to one peer.
#[derive(Debug, Default)]
pub(super) struct KnownEnds {
    /// That of the last session.
    last: Option<IpAddr>,
    /// The last session was with the peer as it is now, and not with a router that was in its place before.
    is_of_peer: bool,
    /// The peer took the last session from there after it had refused the one that stays with this node.
    last_comes_first: bool,
    /// Attempts in a row, from an address that was chosen, that the peer refused.
    refusals: u32,
    /// The peer has refused the address that comes first.
    refused_first: bool,
    /// Every address near the peer had left, and not that of the last session was back first: it is waited for until then.
    awaits_until: Option<Instant>,
}

/// After so many refusals another address has its turn. What the router says may be about its own start.
const PATIENT_WITH: u32 = 2;

/// How long duplicate address detection takes, and a little.
const DETECTION: Duration = Duration::from_secs(4);

impl KnownEnds {
    pub(super) fn new(last: Option<IpAddr>) -> KnownEnds {
        KnownEnds { last, ..KnownEnds::default() }
    }

    /// Of a session that was taken over. Which of several addresses the peer knows, it has shown; but over IPv6 an earlier version left
    /// the choice to the kernel, which takes the newest.
    pub(super) fn resumed(last: IpAddr) -> KnownEnds {
        let last_comes_first = last.is_ipv4() || is_link_local_v6(last);
        KnownEnds { last: Some(last), last_comes_first, is_of_peer: true, ..KnownEnds::default() }
    }

    /// That of the last session.
    pub(super) fn last(&self) -> Option<IpAddr> {
        self.last
    }

    /// From where the router of the last session knows this host, whatever may be dialled from next. Over IPv6 the kernel may have chosen
    /// an address that is used for a while.
    pub(super) fn known_to_peer(&self) -> Option<IpAddr> {
        self.last.filter(|last| self.is_of_peer && (last.is_ipv4() || self.last_comes_first))
    }

    /// Where to dial from next; `None` leaves it to the kernel.
    pub(super) fn choose(
        &mut self,
        peer: &ScopedAddress,
        vrf: Option<&InterfaceName>,
        local_addresses: &[LocalAddress],
        now: Instant,
    ) -> Option<IpAddr> {
        let near = near(peer, vrf, local_addresses);
        let lasting = near.iter().find(|has| has.stay == Stay::Nodes).map(|has| has.net.addr());
        let last = self.last.filter(|last| near.iter().any(|has| has.net.addr() == *last));
        if lasting.is_none() && last.is_none() && self.awaits_until.is_some_and(|until| now < until) {
            return self.last;
        }
        let (first, second) = match self.last_comes_first {
            true => (last.or(lasting), lasting),
            false => (lasting.or(last), last),
        };
        let first = first?;
        if self.refusals < PATIENT_WITH {
            return Some(first);
        }
        (self.refusals, self.refused_first) = (0, true);
        match second.filter(|second| *second != first) {
            Some(second) => Some(second),
            // Of IPv4 addresses the kernel chooses the first of a subnet, or the one that the route names; of IPv6 ones the newest.
            None if peer.ip.is_ipv4() || (is_link_local_v6(peer.ip) && Some(first) != self.last) => None,
            None => Some(first),
        }
    }

    /// The peer, or its host, has accepted a connection and closed it before it said anything: so routers treat who is no neighbor.
    pub(super) fn note_refusal(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// There is a session.
    pub(super) fn note_session(&mut self, local: IpAddr, local_addresses: &[LocalAddress]) {
        let stays = local_addresses.iter().any(|has| has.net.addr() == local && has.stay == Stay::Nodes);
        if std::mem::take(&mut self.refused_first) {
            self.last_comes_first = !stays;
        } else if self.last != Some(local) {
            self.last_comes_first = false;
        }
        let last_comes_first = self.last_comes_first;
        *self = KnownEnds { last: Some(local), last_comes_first, is_of_peer: true, ..KnownEnds::default() };
    }

    /// The addresses of this host are others than before. Gives whether the one that was waited for has come.
    pub(super) fn follow(
        &mut self,
        peer: &ScopedAddress,
        vrf: Option<&InterfaceName>,
        [before, after]: [&[LocalAddress]; 2],
        now: Instant,
    ) -> bool {
        let Some(last) = self.last.filter(IpAddr::is_ipv6) else { return false };
        let [before, after] = [before, after].map(|all| near(peer, vrf, all));
        let is_back = after.iter().any(|has| has.net.addr() == last || has.stay == Stay::Nodes);
        if is_back {
            return self.awaits_until.take().is_some();
        }
        // As after a flap of the link, where a virtual address comes without duplicate address detection.
        if before.is_empty() && !after.is_empty() {
            self.awaits_until = Some(now + DETECTION);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn has(net: &str, stay: Stay) -> LocalAddress {
        LocalAddress { interface: "eth0".into(), vrf: None, net: net.parse().unwrap(), stay }
    }

    fn at(ip: &str) -> ScopedAddress {
        let interface = ip.starts_with("fe80").then(|| "eth0".into());
        ScopedAddress { ip: ip.parse().unwrap(), interface }
    }

    /// Where each of the next attempts is from, all of which the peer refuses.
    fn refused(ends: &mut KnownEnds, peer: &ScopedAddress, all: &[LocalAddress], count: usize) -> Vec<String> {
        let mut dial = || {
            let chosen = ends.choose(peer, None, all, clock::now());
            if chosen.is_some() {
                ends.note_refusal();
            }
            chosen.map_or_else(|| "kernel".to_owned(), |ip| ip.to_string())
        };
        (0..count).map(|_| dial()).collect()
    }

    /// Input: the router is away for many attempts, and a virtual IPv6 address, the newest, is on the link.
    #[test]
    fn attempts_that_nobody_answers_and_refusals_over_ipv6_never_give_the_choice_to_the_kernel() {
        let peer = at("fd35::1");
        let vip = || has("fd35::5/64", Stay::Unknown);
        for own in [has("fd35::11/64", Stay::Nodes), has("fd35::11/64", Stay::Unknown)] {
            let all = [vip(), own.clone()];
            let mut ends = KnownEnds::new(Some("fd35::11".parse().unwrap()));
            for _ in 0..30 {
                let chosen = ends.choose(&peer, None, &all, clock::now());
                assert_eq!(chosen, Some(own.net.addr()));
            }
            assert_eq!(refused(&mut ends, &peer, &all, 9), ["fd35::11"; 9]);
        }
        // The last one was a virtual one all the same, and the Node names another: by turns, and first the Node's.
        let mut ends = KnownEnds::new(Some("fd35::5".parse().unwrap()));
        let named = [vip(), has("fd35::11/64", Stay::Nodes)];
        assert_eq!(refused(&mut ends, &peer, &named, 4), ["fd35::11", "fd35::11", "fd35::5", "fd35::11"]);
        assert_eq!(KnownEnds::default().choose(&peer, None, &[vip()], clock::now()), None, "nothing is known");
    }

    /// Input: the Node names 10.0.0.11, and the router knows 10.0.0.12 alone, which the route to it names as source.
    #[test]
    fn an_address_that_the_router_takes_and_not_the_nodes_comes_first_from_then_on() {
        let peer = at("10.0.0.1");
        let all = [has("10.0.0.11/24", Stay::Nodes), has("10.0.0.12/24", Stay::Unknown)];
        let mut ends = KnownEnds::default();
        assert_eq!(refused(&mut ends, &peer, &all, 3), ["10.0.0.11", "10.0.0.11", "kernel"]);
        ends.note_session("10.0.0.12".parse().unwrap(), &all);
        assert_eq!(refused(&mut ends, &peer, &all, 4), ["10.0.0.12", "10.0.0.12", "10.0.0.11", "10.0.0.12"]);
        ends.note_session("10.0.0.12".parse().unwrap(), &all);
        assert_eq!(refused(&mut ends, &peer, &all, 1), ["10.0.0.12"], "at once, after each session");
        assert_eq!(refused(&mut ends, &peer, &all[..1], 1), ["10.0.0.11"], "it has left this host");
        ends.note_session("10.0.0.11".parse().unwrap(), &all);
        assert_eq!(refused(&mut ends, &peer, &all, 1), ["10.0.0.11"]);
        let mut resumed = KnownEnds::resumed("10.0.0.12".parse().unwrap());
        assert_eq!(refused(&mut resumed, &peer, &all, 1), ["10.0.0.12"]);
    }

    /// Input: an unnumbered session, and keepalived has a link-local virtual address on the link.
    #[test]
    fn a_router_on_a_link_is_dialled_from_the_address_that_the_kernel_made_or_that_it_took() {
        let peer = at("fe80::1");
        let vip = has("fe80::5/64", Stay::Unknown);
        let made = [vip.clone(), has("fe80::ff:fe00:11/64", Stay::Nodes)];
        let mut ends = KnownEnds::default();
        assert_eq!(refused(&mut ends, &peer, &made, 1), ["fe80::ff:fe00:11"]);
        let by_hand = [vip.clone(), has("fe80::11/64", Stay::Unknown)];
        let mut ends = KnownEnds::new(Some("fe80::11".parse().unwrap()));
        assert_eq!(refused(&mut ends, &peer, &by_hand, 9), ["fe80::11"; 9], "the router took it once");
        let all = [vip, has("fe80::11/64", Stay::Unknown), has("fe80::ff:fe00:11/64", Stay::Nodes)];
        let mut ends = KnownEnds::resumed("fe80::11".parse().unwrap());
        assert_eq!(refused(&mut ends, &peer, &all, 1), ["fe80::11"]);
    }

    /// Input: the link flaps, and a virtual address is back before the node's own has passed duplicate address detection.
    #[test]
    fn after_a_flap_the_address_of_the_last_session_is_waited_for() {
        let peer = at("fd35::1");
        let (own, vip) = (has("fd35::11/64", Stay::Unknown), has("fd35::5/64", Stay::Unknown));
        let (both, alone) = ([vip.clone(), own.clone()], [vip]);
        let last = own.net.addr();
        let start = clock::now();
        let mut ends = KnownEnds::new(Some(last));
        assert!(!ends.follow(&peer, None, [&both, &[]], start));
        let up = start + Duration::from_secs(100);
        assert!(!ends.follow(&peer, None, [&[], &alone], up));
        assert_eq!(ends.choose(&peer, None, &alone, up), Some(last), "it cannot be bound yet");
        assert!(ends.follow(&peer, None, [&alone, &both], up), "now it can");
        assert_eq!(ends.choose(&peer, None, &both, up), Some(last));
        ends.follow(&peer, None, [&both, &[]], up);
        ends.follow(&peer, None, [&[], &alone], up);
        assert_eq!(ends.choose(&peer, None, &alone, up + DETECTION), None, "it does not come back");
        let mut ends = KnownEnds::new(Some(last));
        ends.follow(&peer, None, [&both, &alone], up);
        assert_eq!(ends.choose(&peer, None, &alone, up), None, "it was taken away: the other one was there before");
    }
}
