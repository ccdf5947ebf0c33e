//! The part of the table that is about pods of this node of which it is not known yet whether they have egress: a pod sends before its
//! EndpointSlice is known. Floor 1.
//!
//! ```text
//! set own         the networks of this node's pods; empty where nothing is held
//! set known       the addresses of pods without egress
//! set ending      those of pods without egress that terminate: another pod may have the address at any time
//! set uplinks     the links that packets of other nodes' pods come in by
//! set held        the addresses that something was held back of in the last while, each with how many packets
//! chain hold      filter, forward: answers for a Service's client pass, and of `ending` what is open;
//!                 else, of what comes from `own` and neither from `known` nor from a guarded pod, nothing leaves the cluster
//! chain held      counts and drops
//! ```
//!
//! What the host itself sends is not forwarded, whichever address it has. The number of rules does not depend on that of pods.

use super::foreign::{META_IN_LINK, new_links, renew_links};
use super::strays::{CT_STATE, CT_STATUS, TRANSLATED};
use super::*;

/// What is held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hold {
    /// Of the pods of this node. Empty: nothing is held.
    pub networks: BTreeSet<IpNet>,
    /// Addresses of pods without egress.
    pub known: OrdSet<IpAddr>,
    /// Addresses of pods without egress that terminate: what is open goes on.
    pub ending: OrdSet<IpAddr>,
    /// The links, by their indices, that packets of other nodes' pods come in by.
    pub uplinks: BTreeSet<u32>,
}

impl Hold {
    /// What comes from the address is held back, unless the pod is guarded.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|net| net.contains(&address)) && !self.known.contains(&address)
    }

    /// The sets of an earlier life of the agent, of both families, as questions: the networks, what is known, and what ends.
    pub fn sets(form: &Form) -> [[Attributes; 2]; 3] {
        [OWN, KNOWN, ENDING].map(|set| [Ip::V4, Ip::V6].map(|family| of_set(form, &named(set, family))))
    }

    /// The addresses that packets were held back of lately, with how many, as questions.
    pub fn held(form: &Form) -> [Attributes; 2] {
        [Ip::V4, Ip::V6].map(|family| of_set(form, &named(HELD, family)))
    }
}

pub(super) const CHAINS: [&str; 3] = [CHAIN, "held4", "held6"];

pub(super) const CHAIN: &str = "hold";
const OWN: &str = "own";
const KNOWN: &str = "known";
const ENDING: &str = "ending";
/// Also the chains that count and drop.
const HELD: &str = "held";
const UPLINKS: &str = "uplinks";

fn named(set: &str, family: Ip) -> String {
    match family {
        Ip::V4 => format!("{set}4"),
        Ip::V6 => format!("{set}6"),
    }
}

/// The sets and the chains, without elements.
pub(super) fn frame(batch: &mut Batch, form: &Form) {
    new_links(batch, form, UPLINKS);
    new_chain(batch, form, CHAIN, Some(("filter", FORWARD, FILTER)));
    rule(batch, form, CHAIN, &answers());
    for family in [Ip::V4, Ip::V6] {
        let key = (family.data_type(), family.length());
        for (set, flags) in [(OWN, INTERVAL), (KNOWN, 0), (ENDING, 0)] {
            batch.push(Verb::NewSet, CREATE, &set_attributes(form, &named(set, family), flags, key));
        }
        let held = named(HELD, family);
        let mut set = set_attributes(form, &held, EVALUATED | TIMEOUT, key);
        set.nest(SET_DESCRIPTION, |it| it.number(1, MOST_HELD));
        batch.push(Verb::NewSet, CREATE, &set);
        new_chain(batch, form, &held, None);
        rule(batch, form, &held, &count(family, &held));
        // A rule of its own: that the set is full ends the rule that counts.
        let mut dropped = Attributes::default();
        verdict(&mut dropped, DROP);
        rule(batch, form, &held, &dropped);
        rule(batch, form, CHAIN, &open(family));
        rule(batch, form, CHAIN, &unknown(family, &held));
    }
}

/// The difference between two contents.
pub(super) fn fill(batch: &mut Batch, form: &Form, before: &Hold, after: &Hold) {
    renew_links(batch, form, UPLINKS, &before.uplinks, &after.uplinks);
    for (set, was, is) in [(KNOWN, &before.known, &after.known), (ENDING, &before.ending, &after.ending)] {
        if was == is {
            continue;
        }
        for family in [Ip::V4, Ip::V6] {
            let set = named(set, family);
            let missing = |from: &OrdSet<IpAddr>, all: &OrdSet<IpAddr>| -> Vec<Element> {
                let of_family = all.iter().filter(|address| address.is_ipv4() == (family == Ip::V4));
                let missing = of_family.filter(|address| !from.contains(*address));
                missing.map(|address| Element { key: octets(*address), value: None }).collect()
            };
            elements_in(batch, form, Verb::DeleteElements, &set, &missing(is, was));
            elements_in(batch, form, Verb::NewElements, &set, &missing(was, is));
        }
    }
    if before.networks != after.networks {
        for (family, bounds) in [Ip::V4, Ip::V6].into_iter().zip(intervals(&after.networks)) {
            renew(batch, form, &named(OWN, family), !before.networks.is_empty(), &bounds);
        }
    }
}

/// `ct direction reply ct status & dnat != 0 return`: the source is the Service's address once the packet leaves.
fn answers() -> Attributes {
    let mut rule = Attributes::default();
    is_reply(&mut rule);
    load_ct(&mut rule, CT_STATUS);
    masked(&mut rule, TRANSLATED.to_ne_bytes());
    compare(&mut rule, UNLIKE, &0_u32.to_ne_bytes());
    verdict(&mut rule, RETURN);
    rule
}

/// `ct state established,related ip saddr @ending return`
fn open(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    load_ct(&mut rule, CT_STATE);
    masked(&mut rule, OPEN.to_ne_bytes());
    compare(&mut rule, UNLIKE, &0_u32.to_ne_bytes());
    field(&mut rule, family.source_offset(), family);
    lookup_in(&mut rule, &named(ENDING, family), Found::Yes);
    verdict(&mut rule, RETURN);
    rule
}

/// `ip saddr @own ip saddr != @known ip saddr != @pod ip daddr != @cluster iif != @uplinks goto held`
fn unknown(family: Ip, held: &str) -> Attributes {
    let [pod, cluster] = [family.pick(Set::Pod4, Set::Pod6), family.pick(Set::Cluster4, Set::Cluster6)];
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    field(&mut rule, family.source_offset(), family);
    lookup_in(&mut rule, &named(OWN, family), Found::Yes);
    field(&mut rule, family.source_offset(), family);
    lookup_in(&mut rule, &named(KNOWN, family), Found::Not);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, pod, Found::Not);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, cluster, Found::Not);
    load_meta(&mut rule, META_IN_LINK);
    lookup_in(&mut rule, UPLINKS, Found::Not);
    go_to(&mut rule, held);
    rule
}

/// `update @held { ip saddr timeout WHILE counter }`
fn count(family: Ip, held: &str) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    field(&mut rule, family.source_offset(), family);
    expression(&mut rule, "dynset", |dynset| {
        dynset.text(1, held);
        dynset.number(3, UPDATE);
        dynset.number(4, REGISTER);
        dynset.octets(6, &WHILE.to_be_bytes());
        dynset.nest(7, |counter| counter.text(EXPRESSION_NAME, "counter"));
    });
    rule
}

/// An address that nothing was held back of for so long is no held one any more, in milliseconds.
const WHILE: u64 = 30_000;
/// So many are named; more are dropped as well.
const MOST_HELD: u32 = 4096;

/// Elements come and go by packets.
const EVALUATED: u32 = 0x20;
const TIMEOUT: u32 = 0x10;
const SET_DESCRIPTION: u16 = 9;
const UPDATE: u32 = 1;
/// Bits of conntrack's state, in the host's order: established and related.
const OPEN: u32 = 0b110;

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form { table: "crier".to_owned(), priority: 95, mark_mask: 0x00f0_0000, marks: vec![0x0010_0000], tunnel: None }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn with(networks: &[&str], known: &[&str], ending: &[&str], uplinks: &[u32]) -> Content {
        let all = |texts: &[&str]| texts.iter().map(|it| ip(it)).collect();
        let hold = Hold {
            networks: networks.iter().map(|it| it.parse().expect("a network")).collect(),
            known: all(known),
            ending: all(ending),
            uplinks: uplinks.iter().copied().collect(),
        };
        Content { hold, ..Content::default() }
    }

    /// Which sets a change touches, and how often each.
    fn touched(before: &Content, after: &Content) -> Vec<String> {
        let octets = change(&form(), before, after).emit();
        let names = ["own4", "own6", "known4", "known6", "ending4", "ending6", "uplinks"];
        let times = |name: &str| {
            // The kind of the attribute stands before its text: `own4` is the end of another name too.
            let text = [&2_u16.to_ne_bytes(), name.as_bytes(), &[0]].concat();
            octets.windows(text.len()).filter(|window| **window == text).count()
        };
        names
            .iter()
            .map(|name| (name, times(name)))
            .filter(|(_, it)| *it > 0)
            .map(|(n, it)| format!("{n} {it}"))
            .collect()
    }

    #[test]
    fn a_change_costs_what_changes() {
        let none = Content::default();
        let one = with(&["10.244.1.0/24", "fd44:1::/64"], &["10.244.1.2"], &[], &[2]);
        assert_eq!(touched(&none, &one), ["own4 1", "own6 1", "known4 1", "uplinks 1"]);
        assert_eq!(touched(&one, &one), [""; 0]);
        let more = with(&["10.244.1.0/24", "fd44:1::/64"], &["10.244.1.2", "fd44:1::2"], &[], &[2]);
        assert_eq!(touched(&one, &more), ["known6 1"]);
        let ends = with(&["10.244.1.0/24", "fd44:1::/64"], &["fd44:1::2"], &["10.244.1.2"], &[2]);
        assert_eq!(touched(&more, &ends), ["known4 1", "ending4 1"]);
        assert_eq!(touched(&ends, &none), ["own4 1", "own6 1", "known6 1", "ending4 1", "uplinks 1"]);
    }

    /// The number of messages, and so of rules, is the same for a thousand pods.
    #[test]
    fn pods_are_elements_and_no_rules() {
        let rules = |content: &Content| {
            let octets = whole(&form(), content, Ownership::None, false).emit();
            octets.windows(7).filter(|window| window == b"dynset\0").count()
        };
        let many: Vec<String> = (0..1000).map(|it| format!("10.244.{}.{}", it / 250, it % 250 + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let known = with(&["10.244.0.0/16"], &many, &[], &[]);
        assert_eq!([rules(&Content::default()), rules(&known)], [2, 2]);
    }

    #[test]
    fn what_is_in_the_networks_and_not_known_is_held() {
        let hold = with(&["10.244.1.0/24"], &["10.244.1.2"], &["10.244.1.3"], &[]).hold;
        let held = ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.2.4", "fd44:1::4"].map(|it| hold.holds(ip(it)));
        assert_eq!(held, [false, true, true, false, false]);
        assert!(!Hold::default().holds(ip("10.244.1.4")));
    }

    #[test]
    fn the_chains_are_asked_for_with_the_others() {
        let asked = chains(&form());
        for name in CHAINS {
            let text = [name.as_bytes(), &[0]].concat();
            let is = |it: &Attributes| it.value().windows(text.len()).any(|window| *window == text);
            assert!(asked.iter().any(is), "{name}");
        }
    }
}
