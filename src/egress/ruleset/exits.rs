//! The part of the table that is about pods whose packets leave by a network of this node, with an address of the node or with the Service's:
//! each passes the guard with one source and by one link. Floor 1. What leads them there are the marks of `returns`, what translates them is the map of all.

use super::*;

/// The type and the length of a pod, its source and its link, one behind the other.
pub(super) fn key(family: Ip) -> (u32, u32) {
    let address = family.data_type();
    let kind = (address << (2 * TYPE_BITS)) | (address << TYPE_BITS) | LINK_TYPE;
    (kind, 2 * family.length() + 4)
}

/// `ct direction original ct original ip saddr . ip saddr . oif @exits return`
pub(super) fn pass(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    is_original(&mut rule);
    opener(&mut rule, family);
    // The registers lie one behind the other, as the parts of the key do.
    let [source, link] = match family {
        Ip::V4 => [SECOND_SHORT, THIRD_SHORT],
        Ip::V6 => [SECOND, THIRD],
    };
    expression(&mut rule, "payload", |payload| {
        payload.number(1, source);
        payload.number(2, 1);
        payload.number(3, family.source_offset());
        payload.number(4, family.length());
    });
    expression(&mut rule, "meta", |meta| {
        meta.number(1, link);
        meta.number(2, META_OUT_LINK);
    });
    lookup(&mut rule, family.pick(Set::Exits4, Set::Exits6), Found::Yes);
    verdict(&mut rule, RETURN);
    rule
}

/// The difference that pods make that are gone, and new ones; all of them where the networks differ.
pub(super) fn fill(
    batch: &mut Batch,
    form: &Form,
    family: Ip,
    (before, gone): (&Content, &[(&IpAddr, &Mapping)]),
    (after, new): (&Content, &[(&IpAddr, &Mapping)]),
) {
    let networks_differ = before.networks.alone != after.networks.alone;
    let keys = |content: &Content, some: &[(&IpAddr, &Mapping)]| -> BTreeSet<Vec<u8>> {
        let is_translated = |mapping: &Mapping| networks_differ && mapping.translated().is_some();
        let all =
            content.pods.iter().filter(|(pod, mapping)| pod.is_ipv4() == (family == Ip::V4) && is_translated(mapping));
        all.chain(some.iter().copied()).flat_map(|(pod, mapping)| octets_of(content, *pod, mapping)).collect()
    };
    let (was, is) = (keys(before, gone), keys(after, new));
    let differ = |one: &BTreeSet<Vec<u8>>, other: &BTreeSet<Vec<u8>>| -> Vec<Element> {
        one.difference(other).map(|key| Element { key: key.clone(), value: None }).collect()
    };
    let set = family.pick(Set::Exits4, Set::Exits6);
    elements(batch, form, Verb::DeleteElements, set, &differ(&was, &is));
    elements(batch, form, Verb::NewElements, set, &differ(&is, &was));
}

fn octets_of(content: &Content, pod: IpAddr, mapping: &Mapping) -> Vec<Vec<u8>> {
    let key = |source: IpAddr, link: u32| {
        let mut key = octets(pod);
        key.extend(octets(source));
        // An index is in the host's order.
        key.extend(link.to_ne_bytes());
        key
    };
    match mapping {
        Mapping::Networked(exit) => vec![key(exit.source, exit.link)],
        Mapping::Translated { address, network: _ } => {
            content.links_of(mapping).map(|link| key(*address, link)).collect()
        }
        Mapping::Held | Mapping::Steered { .. } => Vec::new(),
    }
}

/// By so many bits nftables shifts the types of a key with several parts.
const TYPE_BITS: u32 = 6;
const LINK_TYPE: u32 = 20;
/// Registers of 16 octets.
const SECOND: u32 = 2;
const THIRD: u32 = 3;
/// Registers of 4 octets, behind the first 4 of the first.
const SECOND_SHORT: u32 = 9;
const THIRD_SHORT: u32 = 10;
const META_OUT_LINK: u32 = 5;
