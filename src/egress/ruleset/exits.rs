//! The part of the table that is about pods whose packets leave by a network of this node: each passes the guard with one source and
//! by one link. Floor 1. What leads them there are the marks of `returns`, what translates them is the map of all.

use super::*;
use crate::plan::slice::Exit;

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

/// The difference that pods make that are `gone`, and `new`.
pub(super) fn fill(
    batch: &mut Batch,
    form: &Form,
    family: Ip,
    gone: &[(&IpAddr, &Mapping)],
    new: &[(&IpAddr, &Mapping)],
) {
    let of = |all: &[(&IpAddr, &Mapping)]| -> Vec<Element> {
        let exit = |(pod, mapping): &(&IpAddr, &Mapping)| match mapping {
            Mapping::Networked(exit) => Some(Element { key: octets_of(**pod, exit), value: None }),
            Mapping::Held | Mapping::Translated { .. } | Mapping::Steered { .. } => None,
        };
        all.iter().filter_map(exit).collect()
    };
    let set = family.pick(Set::Exits4, Set::Exits6);
    elements(batch, form, Verb::DeleteElements, set, &of(gone));
    elements(batch, form, Verb::NewElements, set, &of(new));
}

fn octets_of(pod: IpAddr, exit: &Exit) -> Vec<u8> {
    let mut key = octets(pod);
    key.extend(octets(exit.source));
    // An index is in the host's order.
    key.extend(exit.link.to_ne_bytes());
    key
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
