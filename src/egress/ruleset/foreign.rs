//! The part of the table that is about pods of other nodes that this node does not know, or not yet. Their own nodes may send their
//! packets here because they take this node for the owner of a Service's address: it would give them its own address and send them on.
//! Floor 1.
//!
//! ```text
//! set shared      the links that other nodes send packets of pods by; empty where nobody may take this node for an owner
//! chain foreign   filter, forward: of what comes in by these from a pod's address that is not guarded, nothing leaves the cluster
//! ```
//!
//! Pods of this node do not come in by these links, whichever networks they have their addresses from.

use std::collections::BTreeSet;

use super::*;

/// Pods of other nodes that this node may not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The networks of the pods of all nodes.
    pub networks: BTreeSet<IpNet>,
    /// The links, by their indices, that their packets come in by.
    pub links: BTreeSet<u32>,
}

pub(super) const CHAIN: &str = "foreign";
const LINKS: &str = "shared";

/// The set of links and the chain, without elements.
pub(super) fn frame(batch: &mut Batch, form: &Form) {
    new_links(batch, form, LINKS);
    new_chain(batch, form, CHAIN, Some(("filter", FORWARD, FILTER)));
    for family in [Ip::V4, Ip::V6] {
        rule(batch, form, CHAIN, &unknown(family));
    }
}

/// The difference that links make.
pub(super) fn fill(batch: &mut Batch, form: &Form, before: &Foreign, after: &Foreign) {
    renew_links(batch, form, LINKS, &before.links, &after.links);
}

/// A set of links, without elements.
pub(super) fn new_links(batch: &mut Batch, form: &Form, set: &str) {
    batch.push(Verb::NewSet, CREATE, &set_attributes(form, set, 0, (LINK_TYPE, 4)));
}

/// Replaces the links of a set, where they differ.
pub(super) fn renew_links(batch: &mut Batch, form: &Form, set: &str, before: &BTreeSet<u32>, after: &BTreeSet<u32>) {
    if before == after {
        return;
    }
    if !before.is_empty() {
        batch.push(Verb::DeleteElements, 0, &of_set(form, set));
    }
    if after.is_empty() {
        return;
    }
    let mut attributes = of_set(form, set);
    attributes.nest(ELEMENT_LIST, |list| {
        for index in after {
            // Indices are in the host's order.
            let key = index.to_ne_bytes();
            list.nest(LIST_ELEMENT, |it| it.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, &key)));
        }
    });
    batch.push(Verb::NewElements, CREATE, &attributes);
}

/// `ct direction original iif @shared ip saddr @foreign ip daddr != @cluster ip saddr != @guard drop`
fn unknown(family: Ip) -> Attributes {
    let [foreign, cluster, guard] = match family {
        Ip::V4 => [Set::Foreign4, Set::Cluster4, Set::Guard4],
        Ip::V6 => [Set::Foreign6, Set::Cluster6, Set::Guard6],
    };
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    is_original(&mut rule);
    load_meta(&mut rule, META_IN_LINK);
    lookup_in(&mut rule, LINKS, Found::Yes);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, foreign, Found::Yes);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, cluster, Found::Not);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, guard, Found::Not);
    verdict(&mut rule, DROP);
    rule
}

pub(super) const META_IN_LINK: u32 = 4;
/// nftables' own number for the type of an index, which only shows in lists.
const LINK_TYPE: u32 = 20;
