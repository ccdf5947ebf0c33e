//! `[[l2]]`: what is announced on the link by ARP and NDP, where, and from which nodes. Floor 1.

use std::fmt;
use std::time::Duration;

use super::preference::Preference;
use super::{Check, Section, section};
use crate::address::MacAddress;
use crate::config::complaint::Problem;
use crate::config::key::{HOUR, duration, flag, interfaces, selector, set, text, vrf, word};
use crate::config::shape::written;
use crate::config::words::words;
use crate::config::{duration, seen};
use crate::names::{InterfaceName, PoolName};
use crate::selector::Selector;

section! {
    /// `[[l2]]`
    pub struct L2 = Section::many(
        "l2",
        "Announce addresses on the link by ARP and NDP. One node at a time answers for an address.",
    ), written as Written;
    keys {
        /// Empty: all pools.
        pub pools: Vec<PoolName> = set("pools", "pool names", seen::pool, "The pools to announce; [] announces all.")
            .shown("[\"lan\"]"), touches Decisions;
        /// Empty: every link that can do ARP and is not excluded.
        pub interfaces: Vec<InterfacePattern> = interfaces(
            "interfaces",
            "The interfaces to announce on; [] selects every Ethernet interface except those of containers, of tunnels and of virtual routers, and macvlans beside their parent.",
        )
        .shown("[\"eth0\", \"bond*\"]"), touches Decisions;
        pub exclude_interfaces: Vec<InterfacePattern> =
            interfaces("exclude-interfaces", "Interfaces that are never announced on.").shown("[\"docker*\"]"), touches Decisions;
        /// Only links in it.
        pub vrf: Option<InterfaceName> = vrf("vrf", "Announce on interfaces in this VRF only.")
            .optional("on interfaces of every VRF and of none")
            .shown("\"red\""), touches Decisions;
        pub nodes: Option<Selector> = selector("nodes", "The nodes that may announce, by their labels.")
            .optional("every node")
            .shown("\"rack=a\""), touches Decisions;
        pub service_selector: Option<Selector> = selector(
            "service-selector",
            "Only Services with these labels. Of Services that share an address, one that matches is enough.",
        )
        .optional("every Service")
        .shown("\"tier=front\""), touches Decisions;
        /// Counts under external traffic policy Cluster only: under Local no other node may announce anyway.
        pub prefer_endpoints: bool = flag(
            "prefer-endpoints",
            false,
            "Under external traffic policy Cluster, prefer nodes with an endpoint of the Service, after the weights of preference.",
        )
        .trade("Traffic takes one hop less; an address moves when the last endpoint of its node is gone."), touches Decisions;
        /// An address stays with its owner when a node comes back that would be better only by chance.
        pub sticky: bool = flag("sticky", false, "Keep an address where it is when a better node comes back.")
            .trade("Addresses move less, but are spread less evenly after a failure. Needs the pulse."), touches Decisions;
        pub subnet: Subnet = word(
            "subnet",
            "Whether an interface needs an address in the subnet of the announced address: \"require\" always, \
             \"prefer\" only if some interface has one, \"ignore\" never.",
        )
        .default("prefer")
        .trade("\"ignore\" announces on every interface, as MetalLB does, even where no host asks for the address."), touches Decisions;
        /// How long a node that comes back takes nothing.
        pub preempt_delay: Duration = duration(
            "preempt-delay",
            Duration::ZERO,
            HOUR,
            "How long a node that becomes eligible again takes no address from its owner.",
        )
        .default("0s")
        .trade("Longer waits until the node has proved stable; until then addresses stay on less preferred nodes."), touches Decisions;
        /// The link is asked before an address is used (RFC 5227, RFC 4862).
        pub probe: bool = flag("probe", true, "Probe the link for an address conflict before an address is used.")
            .trade("Without probes, an address is used at once, even if another host on the link has it."), touches Decisions;
        /// What these answer to a probe is no conflict.
        pub ignore_stations: Vec<MacAddress> = set(
            "ignore-stations",
            "MAC addresses",
            |text, _| station(text),
            "Hosts whose answers to probes do not count as address conflicts, such as proxy ARP routers.",
        )
        .shown("[\"00:00:5e:00:01:01\"]"), touches Decisions;
        /// After the announcement with which a node begins to answer.
        pub announce_again: Schedule = text(
            "announce-again",
            "ascending times such as \"1s, 2s, 4s\"",
            |text, _| schedule(text),
            "When to repeat the gratuitous ARP or the unsolicited Neighbor Advertisement, counted from the move of the \
             address; \"\" sends no repetition. What was not handed over is announced again after twice the time, from 5 s on.",
        )
        .default("1100ms, 2200ms, 3300ms, 4400ms")
        .trade("More repetitions reach hosts and switches that lose frames; each costs two frames for an IPv4 address, one for IPv6."), touches Decisions;
    }
    sections {
        pub preference: Vec<Preference>;
    }
}

impl Check for Written {}

words! {
    /// Whether a link must have an address of the subnet that an announced address is in.
    pub enum Subnet("subnet rule") {
        /// Links that have one, or all where none has.
        Prefer = "prefer",
        /// Only links that have one.
        Require = "require",
        /// All links, as MetalLB does.
        Ignore = "ignore",
    }
}

/// An interface name, or its beginning with a `*` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfacePattern {
    Exact(InterfaceName),
    StartsWith(String),
}

impl InterfacePattern {
    pub fn matches(&self, name: &InterfaceName) -> bool {
        match self {
            InterfacePattern::Exact(exact) => exact == name,
            InterfacePattern::StartsWith(start) => name.as_str().starts_with(start),
        }
    }

    /// Whether it matches every name that the other one matches.
    fn covers(&self, other: &InterfacePattern) -> bool {
        match (self, other) {
            (_, InterfacePattern::Exact(name)) => self.matches(name),
            (InterfacePattern::StartsWith(start), InterfacePattern::StartsWith(of_other)) => {
                of_other.starts_with(start)
            }
            (InterfacePattern::Exact(_), InterfacePattern::StartsWith(_)) => false,
        }
    }
}

impl L2 {
    /// Both name the same links, on every node.
    pub fn names_links_as(&self, other: &L2) -> bool {
        (&self.interfaces, &self.exclude_interfaces, &self.vrf)
            == (&other.interfaces, &other.exclude_interfaces, &other.vrf)
    }

    /// Whatever interfaces there are, none is announced on.
    pub fn excludes_all(&self) -> bool {
        let all = [InterfacePattern::StartsWith(String::new())];
        let named = if self.interfaces.is_empty() { &all[..] } else { &self.interfaces };
        named.iter().all(|pattern| self.exclude_interfaces.iter().any(|it| it.covers(pattern)))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfacePattern::Exact(name) => write!(f, "{name}"),
            InterfacePattern::StartsWith(start) => write!(f, "{start}*"),
        }
    }
}

/// Times after an event, each later than the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// At most [`MOST_TIMES`], ascending; empty for none.
    pub fn times(&self) -> &[Duration] {
        &self.0
    }
}

/// As many announcements as a schedule may have.
pub const MOST_TIMES: usize = 32;

/// A Linux neighbour ignores an update that comes sooner than this after the one before, so less is of no use.
const LEAST_BETWEEN: Duration = Duration::from_millis(100);

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<String> = self.0.iter().map(|time| duration::text(*time)).collect();
        f.write_str(&times.join(", "))
    }
}

fn schedule(text: &str) -> Result<Schedule, Problem> {
    let mut times: Vec<Duration> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let hint = "write ascending times with commas between, \"1s, 2s, 4s\"";
        let time = duration::parse(part).map_err(|error| Problem::new(error.to_string(), hint))?;
        let earliest = times.last().copied().unwrap_or_default() + LEAST_BETWEEN;
        if time < earliest || time > HOUR {
            let (least, most) = (duration::text(earliest), duration::text(HOUR));
            let message = format!("{} is not between {least} and {most}", written(part));
            return Err(Problem::new(message, "let each time be 100ms or more after the one before, and 1h at most"));
        }
        times.push(time);
    }
    match times.len() {
        0..=MOST_TIMES => Ok(Schedule(times)),
        many => Err(Problem::new(format!("{many} times"), format!("write {MOST_TIMES} at most"))),
    }
}

fn station(text: &str) -> Result<MacAddress, Problem> {
    let hint = "write six octets in hexadecimal: \"00:00:5e:00:01:01\"";
    text.parse().map_err(|_| Problem::new(format!("{} is not a MAC address", written(text)), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_ascending_times_and_prints_as_it_reads() {
        let times = |text: &str| schedule(text).ok().map(|schedule| (schedule.to_string(), schedule.times().len()));
        for (text, printed, count) in [
            ("1s, 2s, 4s", "1s, 2s, 4s", 3),
            ("1100ms,2200ms", "1s100ms, 2s200ms", 2),
            ("1h", "1h", 1),
            ("", "", 0),
            ("  ", "", 0),
        ] {
            assert_eq!(times(text), Some((printed.to_owned(), count)), "{text:?}");
        }
        for text in ["1s,", "2s, 1s", "1s, 1s50ms", "0s", "1", "1h1s", ", 1s"] {
            assert_eq!(times(text), None, "{text:?}");
        }
        let many = |count: u64| times(&(1..=count).map(|n| format!("{n}s")).collect::<Vec<_>>().join(","));
        assert!(many(32).is_some() && many(33).is_none(), "a schedule has at most {MOST_TIMES} times");
    }

    #[test]
    fn without_a_schedule_announcements_follow_as_they_always_did() {
        let l2 = crate::config::tests::one_of_each().l2.remove(0);
        let times: Vec<u128> = l2.announce_again.times().iter().map(Duration::as_millis).collect();
        assert_eq!(times, [1100, 2200, 3300, 4400], "five rounds, 1.1 s apart, the first at once");
        assert!(l2.probe && l2.ignore_stations.is_empty() && l2.preempt_delay.is_zero());
    }
}
