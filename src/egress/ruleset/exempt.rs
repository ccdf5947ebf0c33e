//! The part of the table that is about destinations that egress of a pod is not for: packets to these are left as they are, by every
//! chain. Floor 1.
//!
//! ```text
//! map bounded4      from a pod to the chain of its list
//! chain exempt1     ip daddr @exempt4-1 accept, and the same of IPv6: the first list
//! map inbound4      from a pod to the other chain of its list
//! chain exempt1-in  ip saddr @exempt4-1 accept, and the same of IPv6: what such a destination sends to a pod
//! ```
//!
//! Pods with the same list share its chain, so there are as many chains as different lists. `accept` ends the chain that led here,
//! and none that comes later.

use super::*;

/// How the table is asked for destinations that pods' egress is not for.
pub struct Bounded;

impl Bounded {
    /// The maps from pods to chains, as questions: of IPv4, and of IPv6.
    pub fn maps(form: &Form) -> [Attributes; 2] {
        [Set::Bounded4, Set::Bounded6].map(|map| of_set(form, map.name()))
    }

    /// The number of the list that a chain is of.
    pub fn number(chain: &str) -> Option<u32> {
        chain.strip_prefix(CHAIN)?.parse().ok()
    }

    /// The sets of a list, as questions: of IPv4, and of IPv6.
    pub fn sets(form: &Form, number: u32) -> [Attributes; 2] {
        [Ip::V4, Ip::V6].map(|family| of_set(form, &set(family, number)))
    }

    /// The list, by all bounds of its sets, in any order. It says with other words what the one said that they were made of. Empty
    /// sets exempt nothing.
    pub fn list(bounds: &[(IpAddr, bool)]) -> Destinations {
        Destinations { to: Vec::new(), except: intervals::networks(bounds) }
    }
}

/// `ip saddr vmap @bounded`
pub(super) fn by_source(family: Ip) -> Attributes {
    led(family, Direction::FromPods)
}

/// `ip daddr vmap @inbound`
pub(super) fn by_destination(family: Ip) -> Attributes {
    led(family, Direction::ToPods)
}

fn led(family: Ip, direction: Direction) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    field(&mut rule, direction.of_pod(family), family);
    lookup(&mut rule, direction.map(family), Found::Verdict);
    rule
}

/// `ct direction original ct original ip saddr vmap @bounded`: behind translations.
pub(super) fn by_opener(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    is_original(&mut rule);
    opener(&mut rule, family);
    lookup(&mut rule, family.pick(Set::Bounded4, Set::Bounded6), Found::Verdict);
    rule
}

/// The chains and sets of lists that are new, without pods.
pub(super) fn make(batch: &mut Batch, form: &Form, before: &Lists, after: &Lists) {
    for (number, list) in after.iter().filter(|(number, _)| !before.contains_key(*number)) {
        for direction in Direction::BOTH {
            new_chain(batch, form, &direction.chain(*number), None);
        }
        for (family, bounds) in [Ip::V4, Ip::V6].into_iter().zip(intervals::exempt(list)) {
            let name = set(family, *number);
            let key = (family.data_type(), family.length());
            batch.push(Verb::NewSet, CREATE, &set_attributes(form, &name, INTERVAL, key));
            renew(batch, form, &name, false, &bounds);
            for direction in Direction::BOTH {
                let mut passes = Attributes::default();
                of_family(&mut passes, family);
                field(&mut passes, direction.of_other(family), family);
                lookup_in(&mut passes, &name, Found::Yes);
                verdict(&mut passes, ACCEPT);
                rule(batch, form, &direction.chain(*number), &passes);
            }
        }
    }
}

/// Leads pods to the chains of their lists.
pub(super) fn fill(
    batch: &mut Batch,
    form: &Form,
    family: Ip,
    before: &BTreeMap<IpAddr, u32>,
    after: &BTreeMap<IpAddr, u32>,
) {
    type Numbers = BTreeMap<IpAddr, u32>;
    let of = |all: &Numbers, other: &Numbers, direction: Direction, with_value: bool| -> Vec<Element> {
        let differ = all.iter().filter(|(pod, number)| other.get(*pod) != Some(*number));
        let of_family = differ.filter(|(pod, _)| pod.is_ipv4() == (family == Ip::V4));
        let element = |(pod, number): (&IpAddr, &u32)| Element {
            key: octets(*pod),
            value: with_value.then(|| Value::Jump(direction.chain(*number))),
        };
        of_family.map(element).collect()
    };
    for direction in Direction::BOTH {
        let map = direction.map(family);
        elements(batch, form, Verb::DeleteElements, map, &of(before, after, direction, false));
        elements(batch, form, Verb::NewElements, map, &of(after, before, direction, true));
    }
}

/// Takes away what belongs to lists that no pod has any more.
pub(super) fn remove(batch: &mut Batch, form: &Form, before: &Lists, after: &Lists) {
    for number in before.keys().filter(|number| !after.contains_key(*number)) {
        for direction in Direction::BOTH {
            let mut named = Attributes::default();
            named.text(1, &form.table);
            named.text(CHAIN_NAME, &direction.chain(*number));
            batch.push(Verb::DeleteChain, 0, &named);
        }
        for family in [Ip::V4, Ip::V6] {
            batch.push(Verb::DeleteSet, 0, &of_set(form, &set(family, *number)));
        }
    }
}

type Lists = BTreeMap<u32, Arc<Destinations>>;

const CHAIN: &str = "exempt";

/// Which way packets go.
#[derive(Clone, Copy)]
enum Direction {
    FromPods,
    ToPods,
}

impl Direction {
    const BOTH: [Direction; 2] = [Direction::FromPods, Direction::ToPods];

    fn chain(self, number: u32) -> String {
        match self {
            Direction::FromPods => format!("{CHAIN}{number}"),
            Direction::ToPods => format!("{CHAIN}{number}-in"),
        }
    }

    fn map(self, family: Ip) -> Set {
        match self {
            Direction::FromPods => family.pick(Set::Bounded4, Set::Bounded6),
            Direction::ToPods => family.pick(Set::Inbound4, Set::Inbound6),
        }
    }

    /// Where the header has the pod.
    fn of_pod(self, family: Ip) -> u32 {
        match self {
            Direction::FromPods => family.source_offset(),
            Direction::ToPods => family.destination_offset(),
        }
    }

    /// Where it has the other end.
    fn of_other(self, family: Ip) -> u32 {
        match self {
            Direction::FromPods => family.destination_offset(),
            Direction::ToPods => family.source_offset(),
        }
    }
}

fn set(family: Ip, number: u32) -> String {
    match family {
        Ip::V4 => format!("exempt4-{number}"),
        Ip::V6 => format!("exempt6-{number}"),
    }
}
