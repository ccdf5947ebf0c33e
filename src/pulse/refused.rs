//! The senders whose pulses were refused, and why: what to log, and what to show.
//! Floor 1. `task` says which pulses are refused; nothing is decided here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use crate::address::MacAddress;
use crate::names::NodeName;

/// The senders whose pulses are refused, and why. Each is logged once in a while, not with every packet, and is shown for as
/// long as it goes on.
#[derive(Debug, Default)]
pub(super) struct RefusedSenders {
    known: BTreeMap<(IpAddr, Outcome), RefusedSender>,
    /// Who was believed, and when last.
    believed: BTreeMap<IpAddr, Instant>,
    /// The addresses that pulses of each name come from.
    hosts: BTreeMap<NodeName, Hosts>,
    moved: bool,
}

/// The hosts that have a name.
#[derive(Debug)]
struct Hosts {
    /// Of the one that is believed.
    mac: MacAddress,
    addresses: BTreeMap<MacAddress, IpAddr>,
}

#[derive(Debug)]
struct RefusedSender {
    why: String,
    said: Instant,
    last_heard: Instant,
}

impl RefusedSenders {
    /// Notes a pulse that was refused. True if it should be logged.
    pub(super) fn is_news(
        &mut self,
        source: IpAddr,
        outcome: Outcome,
        why: impl FnOnce() -> String,
        now: Instant,
    ) -> bool {
        let believed = |last: &Instant| now.duration_since(*last) < BELIEVED_FOR;
        if outcome == Outcome::OtherKey && self.believed.get(&source).is_some_and(believed) {
            return false;
        }
        if let Some(sender) = self.known.get_mut(&(source, outcome)) {
            sender.last_heard = now;
            let again = now.duration_since(sender.said) >= SAY_AGAIN_AFTER;
            if again {
                sender.said = now;
            }
            return again;
        }
        self.forget(now);
        // A host that makes up source addresses must not fill memory and log.
        if self.known.len() >= MOST_REFUSED_SENDERS {
            return false;
        }
        self.known.insert((source, outcome), RefusedSender { why: why(), said: now, last_heard: now });
        self.moved = true;
        true
    }

    /// Notes a sender whose key is accepted. While the key of the cluster is changed, it may send each pulse under another
    /// key as well, for other nodes: that is nothing to complain about.
    pub(super) fn note_believed(&mut self, source: IpAddr, now: Instant) {
        self.moved |= self.known.remove(&(source, Outcome::OtherKey)).is_some();
        if let Some(last) = self.believed.get_mut(&source) {
            *last = now;
        } else if self.believed.len() < MOST_BELIEVED_SENDERS {
            self.believed.insert(source, now);
        }
    }

    /// Notes where a pulse came from, whether its sender is believed or not.
    pub(super) fn note_host(&mut self, node: &NodeName, mac: MacAddress, source: IpAddr, outcome: Outcome) {
        let is_believed = matches!(outcome, Outcome::Taken | Outcome::Unverified);
        if !is_believed && outcome != Outcome::DoubleName {
            return;
        }
        if self.hosts.len() >= MOST_BELIEVED_SENDERS && !self.hosts.contains_key(node) {
            return;
        }
        let new = || Hosts { mac, addresses: BTreeMap::new() };
        let hosts = self.hosts.entry(node.clone()).or_insert_with(new);
        if is_believed {
            hosts.mac = mac;
        }
        if hosts.addresses.len() >= MOST_HOSTS && !hosts.addresses.contains_key(&mac) {
            hosts.addresses.clear();
        }
        // One of IPv4 is what people know a host by.
        let address = hosts.addresses.entry(mac).or_insert(source);
        if source.is_ipv4() || address.is_ipv6() {
            *address = source;
        }
    }

    /// Why a pulse is dropped whose sender has the name of another host.
    pub(super) fn of_double(&self, node: &NodeName, mac: MacAddress) -> String {
        let hosts = self.hosts.get(node);
        let of = |mac: MacAddress| hosts?.addresses.get(&mac);
        let both = of(mac).zip(hosts.and_then(|hosts| of(hosts.mac)));
        // Others take the agent that started earlier for a recording, even when the other one is gone.
        match both {
            Some((dropped, believed)) => format!(
                "{node} is the name of two hosts: {dropped} and {believed}; give each node a name of its own, and restart the agent of \
                 {dropped} last"
            ),
            None => format!("{node} is the name of two hosts; give each node a name of its own"),
        }
    }

    fn forget(&mut self, now: Instant) {
        self.believed.retain(|_, last| now.duration_since(*last) < SAY_AGAIN_AFTER);
        let before = self.known.len();
        self.known.retain(|_, sender| now.duration_since(sender.last_heard) < SAY_AGAIN_AFTER);
        self.moved |= self.known.len() != before;
    }

    /// The refused senders, if they changed since the last call. One that stopped sending is forgotten in time, because this
    /// is called at least as often as this node pulses.
    pub(super) fn poll_refused(&mut self, now: Instant) -> Option<BTreeMap<IpAddr, String>> {
        self.forget(now);
        std::mem::take(&mut self.moved)
            .then(|| self.known.iter().map(|((source, _), sender)| (*source, sender.why.clone())).collect())
    }
}

/// A sender is logged again after this time, and forgotten if no pulse of it was refused for as long.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A sender that pulses under several keys is believed as often as it pulses.
const BELIEVED_FOR: Duration = Duration::from_secs(15);

/// The most ends of links that are remembered of one name.
const MOST_HOSTS: usize = 8;

/// The most senders that are remembered because they are believed: each node sends over both IP families.
const MOST_BELIEVED_SENDERS: usize = 2048;

/// The most senders and reasons that are remembered.
const MOST_REFUSED_SENDERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 35, 9));

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn refuse(senders: &mut RefusedSenders, source: IpAddr, now: Instant) -> bool {
        senders.is_news(source, Outcome::OtherKey, || "another key".to_owned(), now)
    }

    #[test]
    fn a_sender_that_goes_on_is_logged_once_a_minute_and_shown_once() {
        let start = clock::now();
        let mut senders = RefusedSenders::default();
        let logged: Vec<u64> = (0..180).filter(|at| refuse(&mut senders, SENDER, start + secs(*at))).collect();
        assert_eq!(logged, [0, 60, 120]);
        let shown = BTreeMap::from([(SENDER, "another key".to_owned())]);
        assert_eq!(senders.poll_refused(start + secs(180)), Some(shown));
        assert_eq!(senders.poll_refused(start + secs(181)), None, "nothing changed since");
    }

    #[test]
    fn a_sender_that_stops_is_shown_for_a_minute_more_and_news_when_it_comes_again() {
        let start = clock::now();
        let mut senders = RefusedSenders::default();
        refuse(&mut senders, SENDER, start);
        senders.poll_refused(start);
        assert_eq!(senders.poll_refused(start + secs(59)), None, "it is shown still");
        assert_eq!(senders.poll_refused(start + secs(60)), Some(BTreeMap::new()));
        assert!(refuse(&mut senders, SENDER, start + secs(61)));
    }

    #[test]
    fn a_sender_that_is_believed_is_neither_logged_nor_shown_for_its_pulses_under_another_key() {
        let start = clock::now();
        let mut senders = RefusedSenders::default();
        assert!(refuse(&mut senders, SENDER, start), "it was not believed yet");
        senders.note_believed(SENDER, start);
        assert_eq!(senders.poll_refused(start), Some(BTreeMap::new()), "it is shown no longer");
        assert!(!refuse(&mut senders, SENDER, start + secs(14)));
        // Its agent has started anew with another key.
        assert!(refuse(&mut senders, SENDER, start + BELIEVED_FOR));
        assert!(senders.poll_refused(start + BELIEVED_FOR).is_some_and(|refused| refused.contains_key(&SENDER)));
    }

    /// The text names both, by IPv4 where they have it.
    #[test]
    fn two_hosts_of_one_name_are_named_by_their_addresses() {
        let mut senders = RefusedSenders::default();
        let node = NodeName::from("n1");
        let [dropped, believed] = [1, 3].map(|number| MacAddress([2, 0, 0, 0, 0, number]));
        for (mac, source, outcome) in [
            (dropped, "10.0.0.11", Outcome::Taken),
            (believed, "fe80::3", Outcome::Unverified),
            (believed, "10.0.0.13", Outcome::Taken),
            (believed, "fe80::3", Outcome::Repeated),
            (dropped, "fe80::1", Outcome::DoubleName),
        ] {
            senders.note_host(&node, mac, source.parse().expect("an address"), outcome);
        }
        let told = senders.of_double(&node, dropped);
        assert!(told.starts_with("n1 is the name of two hosts: 10.0.0.11 and 10.0.0.13; give each node "), "{told}");
    }

    #[test]
    fn a_host_that_makes_up_source_addresses_fills_neither_memory_nor_log() {
        let start = clock::now();
        let mut senders = RefusedSenders::default();
        let made_up = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
        let logged = (0..10_000).filter(|n| refuse(&mut senders, made_up(*n), start)).count();
        assert_eq!(logged, MOST_REFUSED_SENDERS);
        assert_eq!(senders.known.len(), MOST_REFUSED_SENDERS);
        assert!(refuse(&mut senders, SENDER, start + secs(60)), "there is room again once they are forgotten");
    }
}
