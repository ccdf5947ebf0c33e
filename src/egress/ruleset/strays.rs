//! The part of the table that is about packets to Services' addresses that belong to connections of pods which another node translates,
//! or translated until now. Floor 1.
//!
//! ```text
//! set egress      the addresses that pods of Services leave with, by whichever node
//! set pod         the pods that are guarded; the guard's own set counts
//! map lead        from such an address to the chain of the node that owns it, or owned it until a moment ago
//! chain steer     the answer to the first packet of a connection that conntrack does not know: the mark of that node's slot
//! chain stray     filter, forward: of what comes to these addresses in the middle of a connection that conntrack does not know, and to a
//!                 port that Linux opens connections from, nothing passes: TCP, and UDP; and nothing of that which comes from outside of
//!                 the cluster to a pod itself, and was not translated here, but from destinations that the pod's egress is not for.
//!                 The answer to a first packet passes: with a mark, its hop limit is lowered; without, it goes to whoever has the address
//! chain stray-in  filter, input, behind IPVS: the same, where the host has the address
//! chain asking    filter, output, before conntrack: what `keepalive` sends to pods is no packet of a connection
//! ```
//!
//! An address goes to another node at one moment for the clients on the link, and at another for the nodes of the pods. What comes in between,
//! or before the pod has said anything, would become a connection of its own in conntrack: the pod's next packet would then get another
//! source port, and the other end would reset the connection. Where the host has the address, the host itself would. Dropped, it is
//! sent again by the other end, and by then the pod has said something. The same holds for what the former owner has translated back, and
//! comes to the pod's node when that has ended the pod's connection to begin it anew.
//!
//! The answer to the first packet of a connection is not sent again for a second, and conntrack takes it up as no connection, so it is sent
//! on to the node that may have sent that packet: from the new owner to the former one, or the other way round. That one knows it or drops
//! it: what was sent on is known by its hop limit, and goes no further.

use super::*;

pub(super) const CHAINS: [&str; 3] = [FORWARDED, HERE, ASKING];

const FORWARDED: &str = "stray";
const HERE: &str = "stray-in";
const ASKING: &str = "asking";

/// The chains with their rules.
pub(super) fn frame(batch: &mut Batch, form: &Form) {
    new_chain(batch, form, FORWARDED, Some(("filter", FORWARD, FILTER)));
    new_chain(batch, form, HERE, Some(("filter", INPUT, BEHIND_SNAT)));
    new_chain(batch, form, ASKING, Some(("filter", OUTPUT, FIRST)));
    rule(batch, form, ASKING, &asking());
    for family in [Ip::V4, Ip::V6] {
        rule(batch, form, FORWARDED, &led(family, form.mark_mask));
        rule(batch, form, FORWARDED, &passed_on(family));
        for protocol in [TCP, UDP] {
            rule(batch, form, FORWARDED, &to_address(family, protocol));
            rule(batch, form, HERE, &to_address(family, protocol));
        }
        rule(batch, form, FORWARDED, &exempt::by_destination(family));
        for protocol in [TCP, UDP] {
            rule(batch, form, FORWARDED, &to_pod(family, protocol));
        }
    }
}

/// The difference between two contents.
pub(super) fn fill(batch: &mut Batch, form: &Form, before: &OrdMap<IpAddr, u8>, after: &OrdMap<IpAddr, u8>) {
    if before == after {
        return;
    }
    for (set, v4) in [(Set::Lead4, true), (Set::Lead6, false)] {
        let differing = |one: &OrdMap<IpAddr, u8>, other: &OrdMap<IpAddr, u8>, is_new: bool| -> Vec<Element> {
            let differing =
                one.iter().filter(|(address, slot)| address.is_ipv4() == v4 && other.get(*address) != Some(*slot));
            let element = |(address, slot): (&IpAddr, &u8)| Element {
                key: octets(*address),
                value: is_new.then(|| Value::GoTo(slot_chain(*slot))),
            };
            differing.map(element).collect()
        };
        elements(batch, form, Verb::DeleteElements, set, &differing(before, after, false));
        elements(batch, form, Verb::NewElements, set, &differing(after, before, true));
    }
}

/// `ct state invalid tcp flags & (syn | ack) == syn | ack tcp dport >= 32768 ip ttl > LED ip daddr vmap @lead`
pub(super) fn lead(family: Ip) -> Attributes {
    let mut rule = unknown_answer(family);
    hop_limit(&mut rule, family);
    compare(&mut rule, ABOVE, &[LED]);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Lead4, Set::Lead6), Found::Verdict);
    rule
}

/// The same with `ip daddr @egress meta mark & mask != 0 ip ttl set LED accept`: no pod's packet has such a destination and a mark.
fn led(family: Ip, mask: u32) -> Attributes {
    let mut rule = unknown_answer(family);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Egress4, Set::Egress6), Found::Yes);
    load_meta(&mut rule, META_MARK);
    masked(&mut rule, mask.to_ne_bytes());
    compare(&mut rule, UNLIKE, &0_u32.to_ne_bytes());
    set_hop_limit(&mut rule, family, LED);
    verdict(&mut rule, ACCEPT);
    rule
}

/// The same without a mark, and as it is: to whoever answers for the address on the link.
fn passed_on(family: Ip) -> Attributes {
    let mut rule = unknown_answer(family);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, family.pick(Set::Egress4, Set::Egress6), Found::Yes);
    verdict(&mut rule, ACCEPT);
    rule
}

/// The answer to the first packet of a TCP connection from an ephemeral port, which conntrack does not know.
fn unknown_answer(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    load_ct(&mut rule, CT_STATE);
    masked(&mut rule, INVALID.to_ne_bytes());
    compare(&mut rule, UNLIKE, &0_u32.to_ne_bytes());
    load_meta(&mut rule, META_TRANSPORT);
    equals(&mut rule, TCP);
    transport(&mut rule, TCP_FLAGS, 1);
    masked(&mut rule, [SYN | ACK]);
    equals(&mut rule, SYN | ACK);
    transport(&mut rule, DESTINATION_PORT, 2);
    compare(&mut rule, AT_LEAST, &FIRST_PORT.to_be_bytes());
    rule
}

/// `ip daddr @egress tcp dport >= 32768 ct state new,invalid tcp flags & ack != 0 drop`: only the first packet of a connection has no ACK.
/// To conntrack the end of a connection that it does not know is invalid. The same of UDP without the flags.
fn to_address(family: Ip, protocol: u8) -> Attributes {
    let mut rule = stray(family, protocol, family.pick(Set::Egress4, Set::Egress6));
    verdict(&mut rule, DROP);
    rule
}

/// The same with `ip daddr @pod ip saddr != @cluster ct status & dnat == 0`.
fn to_pod(family: Ip, protocol: u8) -> Attributes {
    let mut rule = stray(family, protocol, family.pick(Set::Pod4, Set::Pod6));
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, family.pick(Set::Cluster4, Set::Cluster6), Found::Not);
    load_ct(&mut rule, CT_STATUS);
    masked(&mut rule, TRANSLATED.to_ne_bytes());
    compare(&mut rule, LIKE, &0_u32.to_ne_bytes());
    verdict(&mut rule, DROP);
    rule
}

/// `meta priority PRIORITY notrack`
fn asking() -> Attributes {
    let mut rule = Attributes::default();
    load_meta(&mut rule, META_PRIORITY);
    compare(&mut rule, LIKE, &UNTRACKED.to_ne_bytes());
    expression(&mut rule, "notrack", |_| ());
    rule
}

fn stray(family: Ip, protocol: u8, to: Set) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    load_meta(&mut rule, META_TRANSPORT);
    equals(&mut rule, protocol);
    field(&mut rule, family.destination_offset(), family);
    lookup(&mut rule, to, Found::Yes);
    transport(&mut rule, DESTINATION_PORT, 2);
    compare(&mut rule, AT_LEAST, &FIRST_PORT.to_be_bytes());
    load_ct(&mut rule, CT_STATE);
    masked(&mut rule, (NEW | INVALID).to_ne_bytes());
    compare(&mut rule, UNLIKE, &0_u32.to_ne_bytes());
    if protocol == TCP {
        transport(&mut rule, TCP_FLAGS, 1);
        masked(&mut rule, [ACK]);
        equals(&mut rule, ACK);
    }
    rule
}

/// The priority, `SO_PRIORITY` in socket(7), of what is to be no packet of a connection: a number that nobody else uses.
pub const UNTRACKED: i32 = 0x6372_6965;

const META_PRIORITY: u32 = 2;
/// The least port that Linux opens connections from (`net.ipv4.ip_local_port_range`). Services have lower ones.
const FIRST_PORT: u16 = 32768;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// The hop limit of what was sent on once: as far as from the other node to any of its pods, by whichever network.
const LED: u8 = 8;
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;
/// `IPS_DST_NAT`, in the host's order.
pub(super) const TRANSLATED: u32 = 1 << 5;
/// In the host's order.
const NEW: u32 = 8;
const INVALID: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_pods_leave_with_by_any_node_are_known_before_this_one_owns_them() {
        let form = Form {
            table: "crier".to_owned(),
            priority: 95,
            mark_mask: 0x00f0_0000,
            marks: vec![0x0010_0000],
            tunnel: None,
        };
        let with = |addresses: &[&str]| Content {
            egress: addresses.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
            ..Content::default()
        };
        let contains = |batch: &Batch, part: &[u8]| batch.emit().windows(part.len()).any(|window| window == part);
        let (none, one, two) = (with(&[]), with(&["192.0.2.1"]), with(&["192.0.2.1", "2001:db8::1"]));
        let made = change(&form, &none, &one);
        assert!(contains(&made, b"egress4\0") && contains(&made, &[192, 0, 2, 1]) && !contains(&made, b"egress6\0"));
        assert!(contains(&change(&form, &one, &two), b"egress6\0"));
        assert!(change(&form, &two, &two).is_empty());
        assert!(one.translated().is_empty(), "none of them is this node's for that");
    }
}
