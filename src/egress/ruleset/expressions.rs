//! What rules are made of: one function for each expression, or for two that always stand together. Floor 1.

use super::*;

/// `meta mark set meta mark & ~mask | mark`
pub(super) fn set_mark(mask: u32, mark: u32) -> Attributes {
    let mut rule = Attributes::default();
    load_meta(&mut rule, META_MARK);
    // A mark is in the host's order.
    bits(&mut rule, (!mask).to_ne_bytes(), mark.to_ne_bytes());
    expression(&mut rule, "meta", |meta| {
        meta.number(2, META_MARK);
        meta.number(3, REGISTER);
    });
    rule
}

pub(super) fn of_family(rule: &mut Attributes, family: Ip) {
    load_meta(rule, META_PROTOCOL);
    equals(rule, family.protocol());
}

pub(super) fn load_meta(rule: &mut Attributes, key: u32) {
    expression(rule, "meta", |meta| {
        meta.number(1, REGISTER);
        meta.number(2, key);
    });
}

pub(super) fn is_original(rule: &mut Attributes) {
    of_direction(rule, 0);
}

pub(super) fn is_reply(rule: &mut Attributes) {
    of_direction(rule, 1);
}

pub(super) fn of_direction(rule: &mut Attributes, direction: u8) {
    load_ct(rule, CT_DIRECTION);
    equals(rule, direction);
}

/// Loads what conntrack knows of the connection.
pub(super) fn load_ct(rule: &mut Attributes, key: u32) {
    expression(rule, "ct", |ct| {
        ct.number(1, REGISTER);
        ct.number(2, key);
    });
}

/// Loads the address that the connection was opened from, before any translation.
pub(super) fn opener(rule: &mut Attributes, family: Ip) {
    expression(rule, "ct", |ct| {
        ct.number(1, REGISTER);
        ct.number(2, if family == Ip::V4 { CT_SOURCE_V4 } else { CT_SOURCE_V6 });
        ct.octets(3, &[0]);
    });
}

pub(super) fn equals(rule: &mut Attributes, value: u8) {
    compare(rule, LIKE, &[value]);
}

/// Goes on only where the register compares so with the value.
pub(super) fn compare(rule: &mut Attributes, how: u32, value: &[u8]) {
    expression(rule, "cmp", |cmp| {
        cmp.number(1, REGISTER);
        cmp.number(2, how);
        cmp.nest(3, |data| data.octets(DATA_VALUE, value));
    });
}

/// Keeps of the register the bits of the mask.
pub(super) fn masked<const LENGTH: usize>(rule: &mut Attributes, mask: [u8; LENGTH]) {
    bits(rule, mask, [0; LENGTH]);
}

/// `register & keep ^ flip`
pub(super) fn bits<const LENGTH: usize>(rule: &mut Attributes, keep: [u8; LENGTH], flip: [u8; LENGTH]) {
    expression(rule, "bitwise", |bitwise| {
        bitwise.number(1, REGISTER);
        bitwise.number(2, REGISTER);
        // A register has sixteen octets.
        bitwise.number(3, u32::try_from(LENGTH).unwrap_or(u32::MAX));
        bitwise.nest(4, |data| data.octets(DATA_VALUE, &keep));
        bitwise.nest(5, |data| data.octets(DATA_VALUE, &flip));
    });
}

/// Loads octets of the header of TCP or UDP.
pub(super) fn transport(rule: &mut Attributes, offset: u32, length: u32) {
    expression(rule, "payload", |payload| {
        payload.number(1, REGISTER);
        payload.number(2, TRANSPORT_HEADER);
        payload.number(3, offset);
        payload.number(4, length);
    });
}

/// Loads an address from the network header.
pub(super) fn field(rule: &mut Attributes, offset: u32, family: Ip) {
    expression(rule, "payload", |payload| {
        payload.number(1, REGISTER);
        payload.number(2, 1);
        payload.number(3, offset);
        payload.number(4, family.length());
    });
}

/// Loads the hop limit from the network header.
pub(super) fn hop_limit(rule: &mut Attributes, family: Ip) {
    expression(rule, "payload", |payload| {
        payload.number(1, REGISTER);
        payload.number(2, 1);
        payload.number(3, hop_limit_offset(family));
        payload.number(4, 1);
    });
}

/// Writes the hop limit into the network header, and mends the header's checksum.
pub(super) fn set_hop_limit(rule: &mut Attributes, family: Ip, value: u8) {
    expression(rule, "immediate", |immediate| {
        immediate.number(1, REGISTER);
        immediate.nest(2, |data| data.octets(DATA_VALUE, &[value]));
    });
    expression(rule, "payload", |payload| {
        payload.number(2, 1);
        payload.number(3, hop_limit_offset(family));
        payload.number(4, 1);
        payload.number(5, REGISTER);
        if family == Ip::V4 {
            payload.number(6, INTERNET_CHECKSUM);
            payload.number(7, CHECKSUM_V4);
        }
    });
}

fn hop_limit_offset(family: Ip) -> u32 {
    match family {
        Ip::V4 => 8,
        Ip::V6 => 7,
    }
}

/// What a rule does with what it looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Yes,
    Not,
    /// The value of the map goes into the register.
    Value,
    /// The value of the map is the verdict.
    Verdict,
}

pub(super) fn lookup(rule: &mut Attributes, set: Set, found: Found) {
    lookup_in(rule, set.name(), found);
}

pub(super) fn lookup_in(rule: &mut Attributes, set: &str, found: Found) {
    expression(rule, "lookup", |lookup| {
        lookup.text(1, set);
        lookup.number(2, REGISTER);
        match found {
            Found::Yes => {}
            Found::Not => lookup.number(5, 1),
            Found::Value => lookup.number(3, REGISTER),
            Found::Verdict => lookup.number(3, VERDICT_REGISTER),
        }
    });
}

pub(super) fn verdict(rule: &mut Attributes, code: i32) {
    expression(rule, "immediate", |immediate| {
        immediate.number(1, VERDICT_REGISTER);
        immediate.nest(2, |data| data.nest(DATA_VERDICT, |verdict| verdict.number(1, code.cast_unsigned())));
    });
}

/// The rules of this chain are next, and none of this one after them.
pub(super) fn go_to(rule: &mut Attributes, chain: &str) {
    expression(rule, "immediate", |immediate| {
        immediate.number(1, VERDICT_REGISTER);
        immediate.nest(2, |data| {
            data.nest(DATA_VERDICT, |verdict| {
                verdict.number(1, GOTO.cast_unsigned());
                verdict.text(2, chain);
            });
        });
    });
}

pub(super) fn expression(rule: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    rule.nest(LIST_ELEMENT, |expression| {
        expression.text(EXPRESSION_NAME, name);
        expression.nest(EXPRESSION_DATA, fill);
    });
}

pub(super) const REGISTER: u32 = 1;
pub(super) const VERDICT_REGISTER: u32 = 0;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const META_MARK: u32 = 3;
pub(super) const META_PROTOCOL: u32 = 15;
pub(super) const META_TRANSPORT: u32 = 16;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Where the headers of TCP and UDP have it.
pub(super) const DESTINATION_PORT: u32 = 2;
/// Where the header of TCP has its flags.
pub(super) const TCP_FLAGS: u32 = 13;
const TRANSPORT_HEADER: u32 = 2;
/// How to compare.
pub(super) const LIKE: u32 = 0;
pub(super) const UNLIKE: u32 = 1;
pub(super) const ABOVE: u32 = 4;
pub(super) const AT_LEAST: u32 = 5;
const INTERNET_CHECKSUM: u32 = 1;
/// Where the header of IPv4 has it.
const CHECKSUM_V4: u32 = 10;
pub(super) const CT_DIRECTION: u32 = 1;
pub(super) const CT_SOURCE_V4: u32 = 19;
pub(super) const CT_SOURCE_V6: u32 = 21;
