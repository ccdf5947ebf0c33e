//! The part of the table that is about replies: connections that come in by an extra network to a Service are marked with it, and
//! their replies lead out by it again. Floor 1. `kernel::returns` makes the rules and routes for the marks.
//!
//! ```text
//! chain arrive   filter, prerouting, before the translation of Services' addresses
//!     what comes in by a link of a network to a Service's address: the network's mark, on the connection and on the packet
//!     a reply: the mark of its connection
//! chain answer   route, output: the same for replies of this host itself
//! chain passed   filter, forward: a request is routed and needs its mark no more; a tunnel would be led astray by it, also that of
//!                crier: its outer packets have the mark of the inner ones
//! ```

use std::collections::{BTreeMap, BTreeSet};

use imbl::ordset::DiffItem;

use super::*;

/// What the table knows of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// The slot of each link, by the link's index.
    pub links: BTreeMap<u32, u8>,
    /// Of these links those whose network is the link alone: what a pod sends with a Service's address by the network passes on no other.
    pub alone: BTreeMap<u32, u8>,
    /// The slots that nothing new is marked with: replies of what is marked still leave by their networks.
    pub former: BTreeSet<u8>,
    /// The addresses of Services.
    pub served: OrdSet<IpAddr>,
    /// The slots of owners that the tunnel leads to.
    pub tunnelled: BTreeSet<u8>,
}

impl Networks {
    /// There is no extra network.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.former.is_empty()
    }

    fn slots(&self) -> BTreeSet<u8> {
        self.links.values().chain(&self.former).copied().collect()
    }

    /// The slots whose packets need their marks no more once they are routed.
    fn passing(&self) -> BTreeSet<u8> {
        self.slots().union(&self.tunnelled).copied().collect()
    }
}

pub(super) const CHAINS: [&str; 3] = [ARRIVE, ANSWER, PASSED];

const ARRIVE: &str = "arrive";
const ANSWER: &str = "answer";
const PASSED: &str = "passed";
const UNMARK: &str = "unmark";

/// What leads from a link or a mark to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    /// From the link that a packet came in by.
    Links,
    /// From the mark of a reply's connection.
    Replies,
    /// From the mark of a request.
    Requests,
}

impl Map {
    const ALL: [Map; 3] = [Map::Links, Map::Replies, Map::Requests];

    fn name(self) -> &'static str {
        match self {
            Map::Links => "links",
            Map::Replies => "replies",
            Map::Requests => "requests",
        }
    }

    /// nftables' own number for the type of the key, which only shows in lists, and counts where a list is loaded.
    fn key_type(self) -> u32 {
        match self {
            Map::Links => 20,
            Map::Replies | Map::Requests => 19,
        }
    }
}

/// The maps and chains, without elements.
pub(super) fn frame(batch: &mut Batch, form: &Form) {
    for map in Map::ALL {
        let mut attributes = Attributes::default();
        attributes.text(1, &form.table);
        attributes.text(SET_NAME, map.name());
        attributes.number(SET_FLAGS, MAP);
        attributes.number(SET_KEY_TYPE, map.key_type());
        attributes.number(SET_KEY_LENGTH, 4);
        attributes.number(SET_DATA_TYPE, VERDICT_TYPE);
        attributes.number(SET_DATA_LENGTH, 16);
        attributes.number(SET_ID, 1);
        if matches!(map, Map::Replies | Map::Requests) {
            in_order_of_host(&mut attributes);
        }
        batch.push(Verb::NewSet, CREATE, &attributes);
    }
    for (slot, mark) in (1..).zip(&form.marks) {
        let chain = network_chain(slot);
        new_chain(batch, form, &chain, None);
        let mut marking = ct_mark(form.mark_mask, *mark);
        go_to(&mut marking, &slot_chain(slot));
        rule(batch, form, &chain, &marking);
    }
    new_chain(batch, form, UNMARK, None);
    rule(batch, form, UNMARK, &set_mark(form.mark_mask, 0));
    new_chain(batch, form, ARRIVE, Some(("filter", PREROUTING, MANGLE)));
    new_chain(batch, form, ANSWER, Some(("route", OUTPUT, MANGLE)));
    new_chain(batch, form, PASSED, Some(("filter", FORWARD, MANGLE)));
    for family in [Ip::V4, Ip::V6] {
        rule(batch, form, ARRIVE, &arriving(family));
    }
    rule(batch, form, ARRIVE, &replying(form.mark_mask));
    rule(batch, form, ANSWER, &replying(form.mark_mask));
    rule(batch, form, PASSED, &passing(form.mark_mask));
}

/// The difference between two contents.
pub(super) fn fill(batch: &mut Batch, form: &Form, before: &Networks, after: &Networks) {
    let mark = |slot: u8| form.marks.get(usize::from(slot).wrapping_sub(1)).copied();
    if before.links != after.links {
        let links = after.links.iter().map(|(link, slot)| (*link, network_chain(*slot)));
        renew_map(batch, form, Map::Links, !before.links.is_empty(), links.collect());
    }
    let (was, is) = (before.slots(), after.slots());
    if was != is {
        let replies = is.iter().filter_map(|slot| Some((mark(*slot)?, slot_chain(*slot))));
        renew_map(batch, form, Map::Replies, !was.is_empty(), replies.collect());
    }
    let (was, is) = (before.passing(), after.passing());
    if was != is {
        let requests = is.iter().filter_map(|slot| Some((mark(*slot)?, UNMARK.to_owned())));
        renew_map(batch, form, Map::Requests, !was.is_empty(), requests.collect());
    }
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    for item in before.served.diff(&after.served) {
        match item {
            DiffItem::Add(address) => new.push(*address),
            DiffItem::Remove(address) => gone.push(*address),
        }
    }
    for (family, set) in [(Ip::V4, Set::Served4), (Ip::V6, Set::Served6)] {
        let of = |all: &[IpAddr]| -> Vec<Element> {
            let of_family = all.iter().filter(|address| address.is_ipv4() == (family == Ip::V4));
            of_family.map(|address| Element { key: octets(*address), value: None }).collect()
        };
        elements(batch, form, Verb::DeleteElements, set, &of(&gone));
        elements(batch, form, Verb::NewElements, set, &of(&new));
    }
}

fn renew_map(batch: &mut Batch, form: &Form, map: Map, empties: bool, entries: Vec<(u32, String)>) {
    let named = || {
        let mut attributes = Attributes::default();
        attributes.text(1, &form.table);
        attributes.text(2, map.name());
        attributes
    };
    if empties {
        batch.push(Verb::DeleteElements, 0, &named());
    }
    if entries.is_empty() {
        return;
    }
    let mut attributes = named();
    attributes.nest(ELEMENT_LIST, |list| {
        for (key, chain) in &entries {
            list.nest(LIST_ELEMENT, |it| {
                // Marks and indices are in the host's order.
                it.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, &key.to_ne_bytes()));
                leads_to(it, GOTO, chain);
            });
        }
    });
    batch.push(Verb::NewElements, CREATE, &attributes);
}

/// `ct direction original ip daddr @served iif vmap @links`
fn arriving(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    is_original(&mut rule);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Served4, Set::Served6), Found::Yes);
    load_meta(&mut rule, META_LINK);
    by_map(&mut rule, Map::Links);
    rule
}

/// `ct direction reply ct mark & mask vmap @replies`
fn replying(mask: u32) -> Attributes {
    let mut rule = Attributes::default();
    is_reply(&mut rule);
    load_ct(&mut rule, CT_MARK);
    masked(&mut rule, mask.to_ne_bytes());
    by_map(&mut rule, Map::Replies);
    rule
}

/// `ct direction original meta mark & mask vmap @requests`
fn passing(mask: u32) -> Attributes {
    let mut rule = Attributes::default();
    is_original(&mut rule);
    load_meta(&mut rule, META_MARK);
    masked(&mut rule, mask.to_ne_bytes());
    by_map(&mut rule, Map::Requests);
    rule
}

/// `ct mark set ct mark & ~mask | mark`
fn ct_mark(mask: u32, mark: u32) -> Attributes {
    let mut rule = Attributes::default();
    load_ct(&mut rule, CT_MARK);
    bits(&mut rule, (!mask).to_ne_bytes(), mark.to_ne_bytes());
    expression(&mut rule, "ct", |ct| {
        ct.number(2, CT_MARK);
        ct.number(4, REGISTER);
    });
    rule
}

fn by_map(rule: &mut Attributes, map: Map) {
    lookup_in(rule, map.name(), Found::Verdict);
}

pub(super) fn network_chain(slot: u8) -> String {
    format!("{NETWORK}{slot}")
}

/// What the names of the networks' chains begin with.
pub(super) const NETWORK: &str = "network";

const META_LINK: u32 = 4;
const CT_MARK: u32 = 3;
