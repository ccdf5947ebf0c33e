//! The one table of crier in nftables: its sets, chains and rules, and the batches that make and change it.
//! Floor 1. The number of rules does not depend on that of Services or pods: these are elements of maps and sets.
//!
//! ```text
//! chain steer      filter, prerouting, behind the translation of Services' addresses
//!     what a pod opens to a destination outside of the cluster, and the owner is another node: the mark of its slot; the owner is this
//!     node, and the address is in one of its extra networks: the mark of the network
//! chain translate  nat, postrouting, before the masquerade of the CNI and kube-proxy
//!     to the cluster: as it is; else the source that the map gives: the Service's address here, the pod's own on its way to the owner
//! chain guard      filter, postrouting, behind all translations
//!     to the cluster: pass; by the link and with the source of a network: pass; from the pod, by the next hop of an owner: pass;
//!     else drop what has a pod's address, and what a pod opened and has no Service's address of this node
//! ```
//!
//! Each of them passes first what goes to a destination that egress of the pod is not for: `exempt`. What leaves by networks is in
//! `exits`, the chains for replies to what came in by extra networks are in `returns`, what is about the tunnel to owners is in `tunnel`,
//! pods of other nodes that this one does not know yet are kept back in `foreign`, new pods of this node in `hold`, and answers to connections that another node translates
//! in `strays`. What rules are made of is in `expressions`.
//!
//! The guard looks at the packet as it leaves, so it does not matter who translated it or forgot to.
//!
//! Where the table belongs to nobody, a [`second`] one beside it has the chains that hold packets back alone, and belongs to the socket: they
//! go by no mark, so they drop what a flush of the first one lets out.

mod exempt;
mod exits;
mod expressions;
mod foreign;
mod hold;
mod intervals;
mod ownership;
mod questions;
mod returns;
mod strays;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

pub use self::exempt::Bounded;
use self::expressions::*;
pub use self::foreign::Foreign;
pub use self::hold::Hold;
use self::intervals::{Bound, intervals};
pub use self::ownership::{Ownership, second};
pub use self::questions::{LastSets, WayMaps};
pub use self::returns::Networks;
pub use self::strays::UNTRACKED;
pub use self::tunnel::Tunnel;
use super::packet::{
    APPEND, Attributes, Batch, CREATE, DATA_VALUE, DATA_VERDICT, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY,
    EXPRESSION_DATA, INTERVAL_END, Verb,
};
use crate::plan::slice::{Hop, Mapping};
use crate::world::Destinations;

/// What the table is called and where its chains hook in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    pub table: String,
    /// Of the chain that translates.
    pub priority: u32,
    pub mark_mask: u32,
    /// The marks of the slots, from slot 1 on.
    pub marks: Vec<u32>,
    pub tunnel: Option<TunnelDevice>,
}

/// What the tunnel to owners of other links is called on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelDevice {
    pub name: String,
    /// UDP.
    pub port: u16,
}

/// What the sets and maps hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub pods: BTreeMap<IpAddr, Mapping>,
    /// Of the pods for which egress is not for all destinations: the number of the list below.
    pub bounded: BTreeMap<IpAddr, u32>,
    /// The destinations that egress is for. A number means the same list as long as the table stands.
    pub lists: BTreeMap<u32, Arc<Destinations>>,
    /// Destinations inside of the cluster.
    pub cluster: BTreeSet<IpNet>,
    /// Pods of other nodes that leave by this one with a Service's address or not at all, known here or not.
    pub foreign: Foreign,
    /// What is held back of pods of this node of which it is not known whose they are.
    pub hold: Hold,
    /// The next hops that lead to owners.
    pub via: BTreeSet<IpAddr>,
    /// How the owner of each slot is reached, by family. The table knows of slots alone: another owner may come to have the number of one
    /// that is gone.
    pub hops: Arc<BTreeMap<u8, [Option<Hop>; 2]>>,
    /// The Services' addresses that pods leave with, by whichever node.
    pub egress: OrdSet<IpAddr>,
    /// Of these the slots of the nodes that may know connections which this one does not.
    pub leads: OrdMap<IpAddr, u8>,
    /// By which networks replies leave.
    pub networks: Networks,
    /// This node's end of the tunnel, if it has one.
    pub tunnel: Option<Tunnel>,
}

impl Content {
    /// The Services' addresses that packets of pods leave this node with.
    pub fn translated(&self) -> BTreeSet<IpAddr> {
        self.pods.values().filter_map(Mapping::translated).collect()
    }

    /// Of these those that packets pass the guard with by whichever link.
    fn by_any_link(&self) -> BTreeSet<IpAddr> {
        let by_any = self.pods.values().filter(|mapping| self.links_of(mapping).next().is_none());
        by_any.filter_map(Mapping::translated).collect()
    }

    /// The links that packets with the Service's address leave by alone; none where they may leave by any.
    fn links_of(&self, mapping: &Mapping) -> impl Iterator<Item = u32> {
        let network = match mapping {
            Mapping::Translated { address: _, network } => *network,
            Mapping::Held | Mapping::Steered { .. } | Mapping::Networked(_) => None,
        };
        self.networks.alone.iter().filter(move |(_, slot)| Some(**slot) == network).map(|(link, _)| *link)
    }

    /// The pod's egress is not for the destination: packets leave as without egress.
    pub fn exempts(&self, pod: IpAddr, destination: IpAddr) -> bool {
        let list = self.bounded.get(&pod).and_then(|number| self.lists.get(number));
        list.is_some_and(|list| !list.covers(destination))
    }
}

/// Makes the whole table anew with this content. `replaces`: there is one of this name, which goes in the same change.
pub fn whole(form: &Form, content: &Content, ownership: Ownership, replaces: bool) -> Batch {
    let mut batch = Batch::of(ownership == Ownership::Life);
    if replaces {
        batch.push(Verb::DeleteTable, 0, &named(form));
    }
    let mut table = named(form);
    match ownership {
        Ownership::Socket => table.number(TABLE_FLAGS, OWNER | PERSIST),
        Ownership::Life => table.number(TABLE_FLAGS, OWNER),
        Ownership::None => {}
    }
    batch.push(Verb::NewTable, CREATE, &table);
    for set in Set::ALL {
        new_set(&mut batch, form, set);
    }
    for (slot, mark) in (1..).zip(&form.marks) {
        new_chain(&mut batch, form, &slot_chain(slot), None);
        rule(&mut batch, form, &slot_chain(slot), &set_mark(form.mark_mask, *mark));
    }
    returns::frame(&mut batch, form);
    tunnel::frame(&mut batch, form);
    foreign::frame(&mut batch, form);
    hold::frame(&mut batch, form);
    strays::frame(&mut batch, form);
    let priority = i32::try_from(form.priority).unwrap_or(STANDARD_PRIORITY);
    new_chain(&mut batch, form, STEER, Some(("filter", PREROUTING, BEHIND_DNAT)));
    new_chain(&mut batch, form, TRANSLATE, Some(("nat", POSTROUTING, priority)));
    new_chain(&mut batch, form, GUARD, Some(("filter", POSTROUTING, BEHIND_SNAT)));
    for family in [Ip::V4, Ip::V6] {
        rule(&mut batch, form, STEER, &strays::lead(family));
        rule(&mut batch, form, STEER, &exempt::by_source(family));
        rule(&mut batch, form, STEER, &steer(family));
        rule(&mut batch, form, TRANSLATE, &exempt::by_source(family));
        rule(&mut batch, form, TRANSLATE, &leave_cluster_alone(family));
        rule(&mut batch, form, TRANSLATE, &translate(family));
        rule(&mut batch, form, GUARD, &exempt::by_source(family));
        rule(&mut batch, form, GUARD, &exempt::by_opener(family));
        rule(&mut batch, form, GUARD, &exits::pass(family));
        rule(&mut batch, form, GUARD, &tunnel::pass(family));
        for expressions in guard(family) {
            rule(&mut batch, form, GUARD, &expressions);
        }
    }
    fill(&mut batch, form, &Content::default(), content);
    batch
}

/// Changes what the table holds. An empty batch: nothing is to be changed.
pub fn change(form: &Form, before: &Content, after: &Content) -> Batch {
    let mut batch = Batch::default();
    fill(&mut batch, form, before, after);
    batch
}

/// Takes the table away.
pub fn remove(form: &Form) -> Batch {
    let mut batch = Batch::default();
    batch.push(Verb::DeleteTable, 0, &named(form));
    batch
}

/// What the table is asked for by.
pub fn named(form: &Form) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, &form.table);
    attributes
}

/// The chains that must be there and hold rules, as questions; [`CHAIN_USES`] of the answer says how many rules.
pub fn chains(form: &Form) -> Vec<Attributes> {
    let all = OWN_CHAINS
        .into_iter()
        .chain(returns::CHAINS)
        .chain(tunnel::CHAINS)
        .chain([foreign::CHAIN])
        .chain(hold::CHAINS)
        .chain(strays::CHAINS);
    all.map(|name| chain(form, name)).collect()
}

/// What the table holds and every table of crier does, as questions: another program's table of the same name has no such chains.
pub fn marks_of_ours(form: &Form) -> [Attributes; 3] {
    OWN_CHAINS.map(|name| chain(form, name))
}

fn chain(form: &Form, name: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(CHAIN_NAME, name);
    attributes
}

fn set_named(form: &Form, set: Set) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(2, set.name());
    attributes
}

/// The elements that count packets, as questions: of each family the pods that were held back, and those that were translated.
pub fn counted(form: &Form) -> [(Count, Attributes); 4] {
    let of = |count, set: Set| (count, set_named(form, set));
    [
        of(Count::Dropped, Set::Guard4),
        of(Count::Dropped, Set::Guard6),
        of(Count::Translated, Set::Source4),
        of(Count::Translated, Set::Source6),
    ]
}

/// What an element's counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Packets that would have left with a wrong address.
    Dropped,
    /// Connections that were given the Service's address.
    Translated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ip {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Cluster4,
    Cluster6,
    Via4,
    Via6,
    Address4,
    Address6,
    /// The addresses that pods leave with, by whichever node.
    Egress4,
    Egress6,
    /// The networks of pods of other nodes.
    Foreign4,
    Foreign6,
    /// From addresses to the chains of the nodes that may know connections to them.
    Lead4,
    Lead6,
    Guard4,
    Guard6,
    /// The same pods, uncounted.
    Pod4,
    Pod6,
    Source4,
    Source6,
    Steer4,
    Steer6,
    Served4,
    Served6,
    /// From a pod to the chain of its list.
    Bounded4,
    Bounded6,
    /// The same of what is sent to the pod.
    Inbound4,
    Inbound6,
    /// Pods with the source and the link by which they leave.
    Exits4,
    Exits6,
    /// From pods that the tunnel leads to their owner to the largest TCP segment that fits into it.
    Clamp4,
    Clamp6,
}

impl Set {
    const ALL: [Set; 30] = [
        Set::Cluster4,
        Set::Cluster6,
        Set::Via4,
        Set::Via6,
        Set::Address4,
        Set::Address6,
        Set::Egress4,
        Set::Egress6,
        Set::Foreign4,
        Set::Foreign6,
        Set::Lead4,
        Set::Lead6,
        Set::Guard4,
        Set::Guard6,
        Set::Pod4,
        Set::Pod6,
        Set::Source4,
        Set::Source6,
        Set::Steer4,
        Set::Steer6,
        Set::Served4,
        Set::Served6,
        Set::Bounded4,
        Set::Bounded6,
        Set::Inbound4,
        Set::Inbound6,
        Set::Exits4,
        Set::Exits6,
        Set::Clamp4,
        Set::Clamp6,
    ];

    fn name(self) -> &'static str {
        match self {
            Set::Cluster4 => "cluster4",
            Set::Cluster6 => "cluster6",
            Set::Via4 => "via4",
            Set::Via6 => "via6",
            Set::Address4 => "address4",
            Set::Address6 => "address6",
            Set::Egress4 => "egress4",
            Set::Egress6 => "egress6",
            Set::Foreign4 => "foreign4",
            Set::Foreign6 => "foreign6",
            Set::Lead4 => "lead4",
            Set::Lead6 => "lead6",
            Set::Guard4 => "guard4",
            Set::Guard6 => "guard6",
            Set::Pod4 => "pod4",
            Set::Pod6 => "pod6",
            Set::Source4 => "source4",
            Set::Source6 => "source6",
            Set::Steer4 => "steer4",
            Set::Steer6 => "steer6",
            Set::Served4 => "served4",
            Set::Served6 => "served6",
            Set::Bounded4 => "bounded4",
            Set::Bounded6 => "bounded6",
            Set::Inbound4 => "inbound4",
            Set::Inbound6 => "inbound6",
            Set::Exits4 => "exits4",
            Set::Exits6 => "exits6",
            Set::Clamp4 => "clamp4",
            Set::Clamp6 => "clamp6",
        }
    }

    fn family(self) -> Ip {
        match self {
            Set::Cluster4
            | Set::Via4
            | Set::Address4
            | Set::Egress4
            | Set::Foreign4
            | Set::Lead4
            | Set::Guard4
            | Set::Pod4
            | Set::Source4
            | Set::Steer4
            | Set::Served4
            | Set::Bounded4
            | Set::Inbound4
            | Set::Exits4
            | Set::Clamp4 => Ip::V4,
            Set::Cluster6
            | Set::Via6
            | Set::Address6
            | Set::Egress6
            | Set::Foreign6
            | Set::Lead6
            | Set::Guard6
            | Set::Pod6
            | Set::Source6
            | Set::Steer6
            | Set::Served6
            | Set::Bounded6
            | Set::Inbound6
            | Set::Exits6
            | Set::Clamp6 => Ip::V6,
        }
    }
}

impl Ip {
    fn length(self) -> u32 {
        match self {
            Ip::V4 => 4,
            Ip::V6 => 16,
        }
    }

    /// nftables' own number for the type of an address, which only shows in lists, and counts where a list is loaded.
    fn data_type(self) -> u32 {
        match self {
            Ip::V4 => 7,
            Ip::V6 => 8,
        }
    }

    fn protocol(self) -> u8 {
        match self {
            Ip::V4 => 2,
            Ip::V6 => 10,
        }
    }

    /// Where the header has them.
    fn source_offset(self) -> u32 {
        match self {
            Ip::V4 => 12,
            Ip::V6 => 8,
        }
    }

    fn destination_offset(self) -> u32 {
        self.source_offset() + self.length()
    }

    fn pick(self, v4: Set, v6: Set) -> Set {
        match self {
            Ip::V4 => v4,
            Ip::V6 => v6,
        }
    }
}

fn new_set(batch: &mut Batch, form: &Form, set: Set) {
    let family = set.family();
    let address = (family.data_type(), family.length());
    let (flags, key, data) = match set {
        Set::Cluster4 | Set::Cluster6 | Set::Foreign4 | Set::Foreign6 => (INTERVAL, address, None),
        Set::Source4 | Set::Source6 => (MAP, address, Some(address)),
        Set::Steer4
        | Set::Steer6
        | Set::Lead4
        | Set::Lead6
        | Set::Bounded4
        | Set::Bounded6
        | Set::Inbound4
        | Set::Inbound6 => (MAP, address, Some((VERDICT_TYPE, 16))),
        Set::Exits4 | Set::Exits6 => (0, exits::key(family), None),
        Set::Clamp4 | Set::Clamp6 => (MAP, address, Some(tunnel::SEGMENT)),
        Set::Via4
        | Set::Via6
        | Set::Address4
        | Set::Address6
        | Set::Egress4
        | Set::Egress6
        | Set::Guard4
        | Set::Guard6
        | Set::Pod4
        | Set::Pod6
        | Set::Served4
        | Set::Served6 => (0, address, None),
    };
    let mut attributes = set_attributes(form, set.name(), flags, key);
    if let Some((data_type, length)) = data {
        attributes.number(SET_DATA_TYPE, data_type);
        attributes.number(SET_DATA_LENGTH, length);
    }
    if matches!(set, Set::Clamp4 | Set::Clamp6) {
        attributes.octets(SET_NOTES, &tunnel::typeof_segment(family));
    }
    if matches!(set, Set::Guard4 | Set::Guard6 | Set::Source4 | Set::Source6) {
        attributes.nest(SET_EXPRESSION, |counter| counter.text(EXPRESSION_NAME, "counter"));
    }
    batch.push(Verb::NewSet, CREATE, &attributes);
}

/// What every set and map is made with: its name, flags, and the type and length of its keys.
fn set_attributes(form: &Form, name: &str, flags: u32, (key_type, key_length): (u32, u32)) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(SET_NAME, name);
    attributes.number(SET_FLAGS, flags);
    attributes.number(SET_KEY_TYPE, key_type);
    attributes.number(SET_KEY_LENGTH, key_length);
    // The number names the set within the batch.
    attributes.number(SET_ID, 1);
    attributes
}

/// What `nft` notes in the kernel of a set whose keys are in the order of the host. Without it it lists them turned round: of the name of a link
/// nothing is left, which it does not take back. The kernel does not look at it. Sets of links by their indices are without it on purpose:
/// `nft` would list names, and refuse all of a file that names a link which is not there yet.
fn in_order_of_host(set: &mut Attributes) {
    let order = [&[0, 4], &1_u32.to_ne_bytes()[..]].concat();
    set.octets(SET_NOTES, &order);
}

fn new_chain(batch: &mut Batch, form: &Form, name: &str, base: Option<(&str, u32, i32)>) {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(CHAIN_NAME, name);
    // The second guard comes behind the first, which counts what it drops.
    let behind = i32::from(batch.has_guards_alone());
    let base = base.filter(|_| !batch.has_guards_alone() || GUARDS.contains(&name));
    if let Some((kind, hook, priority)) = base.map(|(kind, hook, priority)| (kind, hook, priority + behind)) {
        attributes.nest(CHAIN_HOOK, |it| {
            it.number(1, hook);
            it.octets(2, &priority.to_be_bytes());
        });
        attributes.number(CHAIN_POLICY, ACCEPT.cast_unsigned());
        attributes.text(CHAIN_TYPE, kind);
    }
    batch.push(Verb::NewChain, CREATE, &attributes);
}

fn rule(batch: &mut Batch, form: &Form, chain: &str, expressions: &Attributes) {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(RULE_CHAIN, chain);
    attributes.nest(RULE_EXPRESSIONS, |list| list.clone_from(expressions));
    batch.push(Verb::NewRule, CREATE | APPEND, &attributes);
}

/// `ct direction original ip daddr != @cluster ip saddr vmap @steer`
fn steer(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    is_original(&mut rule);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Cluster4, Set::Cluster6), Found::Not);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, family.pick(Set::Steer4, Set::Steer6), Found::Verdict);
    rule
}

/// `ip daddr @cluster return`
fn leave_cluster_alone(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Cluster4, Set::Cluster6), Found::Yes);
    verdict(&mut rule, RETURN);
    rule
}

/// `snat ip to ip saddr map @source`
fn translate(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, family.pick(Set::Source4, Set::Source6), Found::Value);
    expression(&mut rule, "nat", |nat| {
        nat.number(1, SOURCE_NAT);
        nat.number(2, u32::from(family.protocol()));
        nat.number(3, REGISTER);
    });
    rule
}

/// The guard's rules. Its set is looked up last in each, so that an element counts what is dropped and nothing else.
fn guard(family: Ip) -> [Attributes; 4] {
    let [cluster, via, addresses, guard, source] = match family {
        Ip::V4 => [Set::Cluster4, Set::Via4, Set::Address4, Set::Guard4, Set::Source4],
        Ip::V6 => [Set::Cluster6, Set::Via6, Set::Address6, Set::Guard6, Set::Source6],
    };
    // ip daddr @cluster return
    let mut to_cluster = Attributes::default();
    of_family(&mut to_cluster, family);
    field(&mut to_cluster, family.destination_offset(), family);
    lookup(&mut to_cluster, cluster, Found::Yes);
    verdict(&mut to_cluster, RETURN);
    // rt nexthop @via ip saddr @source return
    let mut to_owner = Attributes::default();
    of_family(&mut to_owner, family);
    expression(&mut to_owner, "rt", |rt| {
        rt.number(1, REGISTER);
        rt.number(2, if family == Ip::V4 { 1 } else { 2 });
    });
    lookup(&mut to_owner, via, Found::Yes);
    field(&mut to_owner, family.source_offset(), family);
    lookup(&mut to_owner, source, Found::Value);
    verdict(&mut to_owner, RETURN);
    // ip saddr @guard drop
    let mut of_pod = Attributes::default();
    of_family(&mut of_pod, family);
    field(&mut of_pod, family.source_offset(), family);
    lookup(&mut of_pod, guard, Found::Yes);
    verdict(&mut of_pod, DROP);
    // ct direction original ip saddr != @address ct original ip saddr @guard drop
    let mut of_opener = Attributes::default();
    of_family(&mut of_opener, family);
    is_original(&mut of_opener);
    field(&mut of_opener, family.source_offset(), family);
    lookup(&mut of_opener, addresses, Found::Not);
    opener(&mut of_opener, family);
    lookup(&mut of_opener, guard, Found::Yes);
    verdict(&mut of_opener, DROP);
    [to_cluster, to_owner, of_pod, of_opener]
}

/// The difference between two contents.
fn fill(batch: &mut Batch, form: &Form, before: &Content, after: &Content) {
    let changed = |pod: &IpAddr, mapping: &Mapping| after.pods.get(pod) != Some(mapping);
    let is_new = |pod: &IpAddr, mapping: &Mapping| before.pods.get(pod) != Some(mapping);
    let gone: Vec<(&IpAddr, &Mapping)> = before.pods.iter().filter(|(pod, it)| changed(pod, it)).collect();
    let new: Vec<(&IpAddr, &Mapping)> = after.pods.iter().filter(|(pod, it)| is_new(pod, it)).collect();
    let (v4, v6) = (|it: &&(&IpAddr, &Mapping)| it.0.is_ipv4(), |it: &&(&IpAddr, &Mapping)| it.0.is_ipv6());
    exempt::make(batch, form, &before.lists, &after.lists);
    for (family, of_family) in [(Ip::V4, &v4 as &dyn Fn(&&(&IpAddr, &Mapping)) -> bool), (Ip::V6, &v6)] {
        let gone: Vec<_> = gone.iter().filter(|it| of_family(it)).copied().collect();
        let new: Vec<_> = new.iter().filter(|it| of_family(it)).copied().collect();
        let source = |all: &[(&IpAddr, &Mapping)], with_value: bool| -> Vec<Element> {
            let element = |(pod, mapping): &(&IpAddr, &Mapping)| {
                let value = match mapping {
                    Mapping::Held => return None,
                    Mapping::Translated { address, network: _ } => *address,
                    Mapping::Networked(exit) => exit.source,
                    // Its own address: so that the masquerade of the CNI leaves it alone.
                    Mapping::Steered { .. } => **pod,
                };
                Some(Element { key: octets(**pod), value: with_value.then_some(Value::Address(value)) })
            };
            all.iter().filter_map(element).collect()
        };
        let steer = |all: &[(&IpAddr, &Mapping)], with_value: bool| -> Vec<Element> {
            let element = |(pod, mapping): &(&IpAddr, &Mapping)| {
                let chain = match mapping {
                    Mapping::Steered { slot } => slot_chain(*slot),
                    Mapping::Networked(exit) => returns::network_chain(exit.slot?),
                    Mapping::Translated { address: _, network } => returns::network_chain((*network)?),
                    Mapping::Held => return None,
                };
                Some(Element { key: octets(**pod), value: with_value.then_some(Value::GoTo(chain)) })
            };
            all.iter().filter_map(element).collect()
        };
        let guarded = |all: &[(&IpAddr, &Mapping)], other: &BTreeMap<IpAddr, Mapping>| -> Vec<Element> {
            let pods = all.iter().filter(|(pod, _)| !other.contains_key(*pod));
            pods.map(|(pod, _)| Element { key: octets(**pod), value: None }).collect()
        };
        let (guard_set, source_set, steer_set) = (
            family.pick(Set::Guard4, Set::Guard6),
            family.pick(Set::Source4, Set::Source6),
            family.pick(Set::Steer4, Set::Steer6),
        );
        elements(batch, form, Verb::DeleteElements, source_set, &source(&gone, false));
        elements(batch, form, Verb::DeleteElements, steer_set, &steer(&gone, false));
        for set in [guard_set, family.pick(Set::Pod4, Set::Pod6)] {
            elements(batch, form, Verb::DeleteElements, set, &guarded(&gone, &after.pods));
            elements(batch, form, Verb::NewElements, set, &guarded(&new, &before.pods));
        }
        elements(batch, form, Verb::NewElements, source_set, &source(&new, true));
        elements(batch, form, Verb::NewElements, steer_set, &steer(&new, true));
        exits::fill(batch, form, family, (before, &gone), (after, &new));
        exempt::fill(batch, form, family, &before.bounded, &after.bounded);
    }
    exempt::remove(batch, form, &before.lists, &after.lists);
    returns::fill(batch, form, &before.networks, &after.networks);
    tunnel::fill(batch, form, before, after);
    strays::fill(batch, form, &before.leads, &after.leads);
    foreign::fill(batch, form, &before.foreign, &after.foreign);
    hold::fill(batch, form, &before.hold, &after.hold);
    for (was, is, v4, v6) in [
        (&before.cluster, &after.cluster, Set::Cluster4, Set::Cluster6),
        (&before.foreign.networks, &after.foreign.networks, Set::Foreign4, Set::Foreign6),
    ] {
        if was != is {
            let [of_v4, of_v6] = intervals(is);
            renew(batch, form, v4.name(), !was.is_empty(), &of_v4);
            renew(batch, form, v6.name(), !was.is_empty(), &of_v6);
        }
    }
    let (addresses_before, addresses) = (before.by_any_link(), after.by_any_link());
    renew_addresses(batch, form, [Set::Via4, Set::Via6], &before.via, &after.via);
    renew_addresses(batch, form, [Set::Address4, Set::Address6], &addresses_before, &addresses);
    if before.egress != after.egress {
        let all = |of: &OrdSet<IpAddr>| of.iter().copied().collect();
        renew_addresses(batch, form, [Set::Egress4, Set::Egress6], &all(&before.egress), &all(&after.egress));
    }
}

/// Replaces the addresses of each family that differ.
fn renew_addresses(
    batch: &mut Batch,
    form: &Form,
    [v4, v6]: [Set; 2],
    before: &BTreeSet<IpAddr>,
    after: &BTreeSet<IpAddr>,
) {
    for (set, is_v4) in [(v4, true), (v6, false)] {
        let of = |all: &BTreeSet<IpAddr>| -> Vec<IpAddr> {
            all.iter().filter(|address| address.is_ipv4() == is_v4).copied().collect()
        };
        let (was, is) = (of(before), of(after));
        if was != is {
            let bounds: Vec<Bound> = is.into_iter().map(|key| Bound { key, ends: false }).collect();
            renew(batch, form, set.name(), !was.is_empty(), &bounds);
        }
    }
}

/// An element to add or take away.
struct Element {
    key: Vec<u8>,
    value: Option<Value>,
}

enum Value {
    Address(IpAddr),
    /// Octets of TCP.
    Size(u16),
    /// On to this chain, and not back.
    GoTo(String),
    /// Through this chain, and back.
    Jump(String),
}

fn elements(batch: &mut Batch, form: &Form, verb: Verb, set: Set, elements: &[Element]) {
    elements_in(batch, form, verb, set.name(), elements);
}

fn elements_in(batch: &mut Batch, form: &Form, verb: Verb, set: &str, elements: &[Element]) {
    for some in elements.chunks(MOST_ELEMENTS) {
        let mut attributes = of_set(form, set);
        attributes.nest(ELEMENT_LIST, |list| {
            for element in some {
                list.nest(LIST_ELEMENT, |it| {
                    it.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, &element.key));
                    match &element.value {
                        None => {}
                        Some(Value::Address(address)) => {
                            it.nest(ELEMENT_DATA, |data| data.octets(DATA_VALUE, &octets(*address)));
                        }
                        Some(Value::Size(size)) => {
                            it.nest(ELEMENT_DATA, |data| data.octets(DATA_VALUE, &size.to_be_bytes()));
                        }
                        Some(Value::GoTo(chain)) => leads_to(it, GOTO, chain),
                        Some(Value::Jump(chain)) => leads_to(it, JUMP, chain),
                    }
                });
            }
        });
        batch.push(verb, if verb == Verb::NewElements { CREATE } else { 0 }, &attributes);
    }
}

/// The value of an element: a verdict that names a chain.
fn leads_to(element: &mut Attributes, how: i32, chain: &str) {
    element.nest(ELEMENT_DATA, |data| {
        data.nest(DATA_VERDICT, |verdict| {
            verdict.number(1, how.cast_unsigned());
            verdict.text(2, chain);
        });
    });
}

/// Replaces all elements of a small set.
fn renew(batch: &mut Batch, form: &Form, set: &str, empties: bool, bounds: &[Bound]) {
    if empties {
        batch.push(Verb::DeleteElements, 0, &of_set(form, set));
    }
    for some in bounds.chunks(MOST_ELEMENTS) {
        let mut attributes = of_set(form, set);
        attributes.nest(ELEMENT_LIST, |list| {
            for bound in some {
                list.nest(LIST_ELEMENT, |it| {
                    it.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, &octets(bound.key)));
                    if bound.ends {
                        it.number(ELEMENT_FLAGS, INTERVAL_END);
                    }
                });
            }
        });
        batch.push(Verb::NewElements, CREATE, &attributes);
    }
}

fn of_set(form: &Form, set: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text(1, &form.table);
    attributes.text(2, set);
    attributes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn slot_chain(slot: u8) -> String {
    format!("{SLOT}{slot}")
}

/// What the names of the slots' chains begin with.
const SLOT: &str = "slot";

const STEER: &str = "steer";
const TRANSLATE: &str = "translate";
const GUARD: &str = "guard";
const OWN_CHAINS: [&str; 3] = [STEER, TRANSLATE, GUARD];
/// The chains that hold packets back and go by no mark.
const GUARDS: [&str; 3] = [GUARD, foreign::CHAIN, hold::CHAIN];

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Before conntrack.
const FIRST: i32 = -300;
/// Behind conntrack (-200), before Services' addresses are translated (-100).
const MANGLE: i32 = -150;
const FILTER: i32 = 0;
/// Of the chain that marks packets.
pub const STEER_PRIORITY: i32 = BEHIND_DNAT;
/// Services' addresses are translated at -100: behind that a packet has the destination that it is routed by.
const BEHIND_DNAT: i32 = -90;
/// All source translation is done at 100, whatever the priorities of the chains that ask for it.
const BEHIND_SNAT: i32 = 110;
const STANDARD_PRIORITY: i32 = 95;

/// So many fit into an attribute.
const MOST_ELEMENTS: usize = 500;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const OWNER: u32 = 2;
const PERSIST: u32 = 4;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
/// How many chains, sets and maps are in a table.
pub const TABLE_USES: u16 = 3;
/// How many rules are in a chain and lead to it.
pub const CHAIN_USES: u16 = 6;
const CHAIN_TYPE: u16 = 7;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_ID: u16 = 10;
/// `NFTA_SET_USERDATA`
const SET_NOTES: u16 = 13;
const SET_EXPRESSION: u16 = 17;
const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const ELEMENT_LIST: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const SOURCE_NAT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::slice::Exit;

    fn form() -> Form {
        Form { table: "crier".to_owned(), priority: 95, mark_mask: 0x00f0_0000, marks: vec![0x0010_0000], tunnel: None }
    }

    fn content(pods: &[(&str, Mapping)]) -> Content {
        let pods = pods.iter().map(|(pod, mapping)| (pod.parse().unwrap(), *mapping)).collect();
        Content { pods, ..Content::default() }
    }

    #[test]
    fn a_change_costs_what_changes() {
        let address = "192.0.2.1".parse().unwrap();
        let before =
            content(&[("10.244.1.2", Mapping::Held), ("10.244.1.3", Mapping::Translated { address, network: None })]);
        assert!(change(&form(), &before, &before).is_empty());
        let mut after = before.clone();
        after.pods.insert("10.244.1.2".parse().unwrap(), Mapping::Steered { slot: 1 });
        let octets = change(&form(), &before, &after).emit();
        let names: Vec<&str> = ["guard4", "source4", "steer4", "address4", "source6"]
            .into_iter()
            .filter(|name| octets.windows(name.len()).any(|window| window == name.as_bytes()))
            .collect();
        assert_eq!(names, ["source4", "steer4"], "the pod was guarded before, and stays it throughout");
    }

    /// How often a name stands in the batch.
    fn mentions(batch: &Batch, name: &str) -> usize {
        let octets = batch.emit();
        octets.windows(name.len() + 1).filter(|window| window.split_last() == Some((&0, name.as_bytes()))).count()
    }

    /// Input: the table beside one that a flush takes along. Output: it knows the same, holds the same back, and does nothing
    /// else: no packet is marked or translated twice.
    #[test]
    fn the_second_guard_holds_back_what_the_first_does_and_leads_no_packet() {
        let content =
            content(&[("10.244.1.2", Mapping::Translated { address: "192.0.2.1".parse().unwrap(), network: None })]);
        let first = whole(&form(), &content, Ownership::None, false);
        let batch = whole(&second(&form()), &content, Ownership::Life, false);
        assert_eq!(mentions(&batch, "filter"), GUARDS.len(), "the chains that hook in");
        assert_eq!((mentions(&batch, "route"), mentions(&first, "route")), (0, 1));
        assert_eq!(mentions(&first, "nat") - mentions(&batch, "nat"), 1, "the chain that translates does not");
        for name in ["guard4", "address4", "cluster4", "source4", "foreign6"] {
            assert_eq!(mentions(&batch, name), mentions(&first, name), "{name}");
        }
        let own_name = mentions(&batch, &second(&form()).table);
        assert_eq!(
            mentions(&batch, GUARD) - own_name,
            mentions(&first, GUARD),
            "the table's name ends like the chain's"
        );
        assert_eq!(mentions(&batch, "crier"), 0, "it is another table");
    }

    #[test]
    fn pods_with_one_list_of_destinations_share_its_chain_and_it_goes_with_the_last_of_them() {
        let pods: Vec<IpAddr> = (1..=40).map(|number| IpAddr::from([10, 244, 1, number])).collect();
        let list = Arc::new(Destinations { to: vec!["192.0.2.0/24".parse().unwrap()], except: Vec::new() });
        let bounded = |number: u32| Content {
            pods: pods.iter().map(|pod| (*pod, Mapping::Held)).collect(),
            bounded: pods.iter().map(|pod| (*pod, number)).collect(),
            lists: [(number, list.clone())].into(),
            ..Content::default()
        };
        let made = change(&form(), &Content::default(), &bounded(1));
        // The chain is made, has a rule of each family, and 40 pods lead to it.
        assert_eq!(mentions(&made, "exempt1"), 1 + 2 + 40);
        let moved = change(&form(), &bounded(1), &bounded(2));
        assert_eq!(mentions(&moved, "exempt2"), 1 + 2 + 40);
        assert_eq!(mentions(&moved, "exempt1"), 1, "it is removed");
        assert!(change(&form(), &bounded(2), &bounded(2)).is_empty());
        assert!(bounded(1).exempts(pods[0], "192.0.3.1".parse().unwrap()));
        assert!(!bounded(1).exempts(pods[0], "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_pod_that_leaves_by_a_network_passes_the_guard_with_that_source_on_that_link_alone() {
        let exit = Exit { slot: Some(1), link: 3, source: "198.51.100.7".parse().unwrap() };
        let content = content(&[("10.244.1.2", Mapping::Networked(exit))]);
        let octets = change(&form(), &Content::default(), &content).emit();
        let mut key = vec![10, 244, 1, 2, 198, 51, 100, 7];
        key.extend_from_slice(&3_u32.to_ne_bytes());
        assert!(octets.windows(key.len()).any(|window| window == key), "pod, source and link");
        assert!(octets.windows(9).any(|window| window == b"network1\0"), "it is led there by the mark of the network");
        assert!(content.by_any_link().is_empty(), "another pod with this source is held");
        assert!(content.translated().is_empty(), "no pod of another node leaves with it");
    }

    #[test]
    fn a_pod_that_leaves_with_the_services_address_by_a_network_is_led_there_and_passes_with_that_address_alone() {
        let address = "192.0.2.1".parse().unwrap();
        let by = |network| content(&[("10.244.1.2", Mapping::Translated { address, network })]);
        let made = change(&form(), &Content::default(), &by(Some(1)));
        assert_eq!(["network1", "steer4", "source4", "exits4"].map(|name| mentions(&made, name)), [1, 1, 1, 0]);
        assert_eq!(by(Some(1)).by_any_link(), [address].into());
        assert_eq!(mentions(&change(&form(), &by(Some(1)), &by(None)), "steer4"), 1, "it leaves by the main table");
        // The network is a link: with the address packets pass on that link alone, and by whichever link it is now.
        let on = |links: &[u32]| {
            let alone = links.iter().map(|link| (*link, 1)).collect();
            Content { networks: Networks { alone, ..Networks::default() }, ..by(Some(1)) }
        };
        let keys = |batch: &Batch| -> Vec<u32> {
            let octets = batch.emit();
            let key = |link: u32| [&[10, 244, 1, 2, 192, 0, 2, 1], &link.to_ne_bytes()[..]].concat();
            (1..9).filter(|link| octets.windows(12).any(|window| window == key(*link))).collect()
        };
        assert!(on(&[3]).by_any_link().is_empty(), "by no other link");
        assert_eq!(on(&[3]).translated(), [address].into(), "other nodes learn that pods leave with it here");
        assert_eq!(on(&[3]).by_any_link().len() + by(None).by_any_link().len(), 1);
        assert_eq!(keys(&change(&form(), &Content::default(), &on(&[3]))), [3]);
        let moved = change(&form(), &on(&[3]), &on(&[4]));
        assert_eq!((keys(&moved), mentions(&moved, "exits4")), (vec![3, 4], 2));
        assert_eq!(keys(&change(&form(), &on(&[4]), &by(Some(1)))), [4]);
        assert!(change(&form(), &on(&[4]), &on(&[4])).is_empty());
        assert_eq!((WayMaps::network("network15"), WayMaps::network("slot15")), (Some(15), None));
    }

    #[test]
    fn networks_of_foreign_pods_and_the_links_that_they_come_by_change_each_for_itself() {
        let networks: BTreeSet<IpNet> = ["10.244.2.0/24".parse().unwrap(), "fd44:2::/64".parse().unwrap()].into();
        let with = |networks: &BTreeSet<IpNet>, links: &[u32]| Content {
            foreign: Foreign { networks: networks.clone(), links: links.iter().copied().collect() },
            ..Content::default()
        };
        let (none, one, two) = (Content::default(), with(&networks, &[2]), with(&networks, &[2, 7]));
        let named = |batch: &Batch| ["foreign4", "foreign6", "shared"].map(|name| mentions(batch, name));
        assert_eq!(named(&change(&form(), &none, &one)), [1, 1, 1]);
        assert_eq!(named(&change(&form(), &one, &two)), [0, 0, 2], "the former links go in the same change");
        assert_eq!(named(&change(&form(), &two, &none)), [1, 1, 1]);
    }
}
