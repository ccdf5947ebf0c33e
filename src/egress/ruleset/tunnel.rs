//! The part of the table that is about the tunnel by which packets of pods go to owners on other links. Floor 1. The device is made
//! by `kernel::tunnel`.
//!
//! ```text
//! set tunnel       the device, while this node has an end of the tunnel; so without one all of this passes everything
//! set tunnel-port  its UDP port
//! chain outer      filter, input: on this port nothing but from addresses of other Nodes
//! chain inner      filter, prerouting, before conntrack: out of the tunnel come packets of egress pods alone, and none to the cluster
//! chain guard      out by the device: a pod's packet on its way to the owner
//! chain clamp      filter, forward: the answer to the first packet of a connection that a pod opens by the tunnel: what the pod may send in
//!                  one segment is what fits into the tunnel
//! ```
//!
//! A pod learns of the tunnel's MTU by ICMP of its own node too. Where a policy keeps ICMP from it, its connections would stand still.
//! Replies do not come by the tunnel, so what the other end may send is as without it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What the table knows of the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// The addresses of the other Nodes.
    pub peers: BTreeSet<IpAddr>,
    /// The largest packet that fits; `None` while there is no device.
    pub mtu: Option<u32>,
}

pub(super) const CHAINS: [&str; 3] = [OUTER, INNER, CLAMP];

const OUTER: &str = "outer";
const INNER: &str = "inner";
const CLAMP: &str = "clamp";
const DEVICES: &str = "tunnel";
const PORTS: &str = "tunnel-port";
const PEERS: [&str; 2] = ["peer4", "peer6"];

/// The sets and chains, without elements.
pub(super) fn frame(batch: &mut Batch, form: &Form) {
    let mut devices = set_attributes(form, DEVICES, 0, (NAME_TYPE, NAME_LENGTH));
    in_order_of_host(&mut devices);
    batch.push(Verb::NewSet, CREATE, &devices);
    batch.push(Verb::NewSet, CREATE, &set_attributes(form, PORTS, 0, (PORT_TYPE, 2)));
    for (family, name) in [Ip::V4, Ip::V6].into_iter().zip(PEERS) {
        let key = (family.data_type(), family.length());
        batch.push(Verb::NewSet, CREATE, &set_attributes(form, name, 0, key));
    }
    new_chain(batch, form, OUTER, Some(("filter", INPUT, FIRST)));
    new_chain(batch, form, INNER, Some(("filter", PREROUTING, FIRST)));
    new_chain(batch, form, CLAMP, Some(("filter", FORWARD, MANGLE)));
    for family in [Ip::V4, Ip::V6] {
        rule(batch, form, CLAMP, &clamp(family));
        rule(batch, form, OUTER, &strangers(family));
        for expressions in no_egress(family) {
            rule(batch, form, INNER, &expressions);
        }
    }
}

/// The difference between two contents.
pub(super) fn fill(batch: &mut Batch, form: &Form, before: &Content, after: &Content) {
    let (was, is) = (clamped(before), clamped(after));
    for (set, v4) in [(Set::Clamp4, true), (Set::Clamp6, false)] {
        let differing = |one: &BTreeMap<IpAddr, u16>, other: &BTreeMap<IpAddr, u16>, is_new: bool| -> Vec<Element> {
            let differing = one.iter().filter(|(pod, size)| pod.is_ipv4() == v4 && other.get(pod) != Some(*size));
            let element = |(pod, size): (&IpAddr, &u16)| Element {
                key: octets(*pod),
                value: is_new.then_some(Value::Size(*size)),
            };
            differing.map(element).collect()
        };
        elements(batch, form, Verb::DeleteElements, set, &differing(&was, &is, false));
        elements(batch, form, Verb::NewElements, set, &differing(&is, &was, true));
    }
    fill_ends(batch, form, before.tunnel.as_ref(), after.tunnel.as_ref());
}

/// The pods that the tunnel leads to their owner, with the largest segment that each may send.
fn clamped(content: &Content) -> BTreeMap<IpAddr, u16> {
    let Some(mtu) = content.tunnel.as_ref().and_then(|tunnel| tunnel.mtu) else { return BTreeMap::new() };
    let tunnelled = &content.networks.tunnelled;
    let by_tunnel = |mapping: &Mapping| matches!(mapping, Mapping::Steered { slot } if tunnelled.contains(slot));
    let size =
        |pod: &IpAddr| u16::try_from(mtu.saturating_sub(if pod.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 })).ok();
    content.pods.iter().filter(|(_, it)| by_tunnel(it)).filter_map(|(pod, _)| Some((*pod, size(pod)?))).collect()
}

fn fill_ends(batch: &mut Batch, form: &Form, before: Option<&Tunnel>, after: Option<&Tunnel>) {
    let peers = |of: Option<&Tunnel>, v4: bool| -> Vec<Bound> {
        let all = of.into_iter().flat_map(|tunnel| &tunnel.peers).filter(|peer| peer.is_ipv4() == v4);
        all.map(|peer| Bound { key: *peer, ends: false }).collect()
    };
    for (v4, name) in [true, false].into_iter().zip(PEERS) {
        let (was, is) = (peers(before, v4), peers(after, v4));
        if was != is {
            renew(batch, form, name, !was.is_empty(), &is);
        }
    }
    if before.is_some() == after.is_some() {
        return;
    }
    let Some(device) = &form.tunnel else { return };
    let verb = if after.is_some() { Verb::NewElements } else { Verb::DeleteElements };
    let mut name = device.name.as_bytes().to_vec();
    name.resize(NAME_LENGTH as usize, 0);
    for (set, key) in [(DEVICES, name), (PORTS, device.port.to_be_bytes().to_vec())] {
        let mut attributes = of_set(form, set);
        attributes.nest(ELEMENT_LIST, |list| {
            list.nest(LIST_ELEMENT, |it| it.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, &key)));
        });
        batch.push(verb, if after.is_some() { CREATE } else { 0 }, &attributes);
    }
}

/// `oifname @tunnel ip saddr @source return`: whoever has a way to an owner, and no other.
pub(super) fn pass(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    by_device(&mut rule, META_OUT_NAME);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, family.pick(Set::Source4, Set::Source6), Found::Value);
    verdict(&mut rule, RETURN);
    rule
}

/// `ct direction reply tcp flags & syn != 0 ip saddr != @cluster tcp option maxseg size set ct original ip saddr map @clamp`: the kernel
/// makes a size smaller and never larger.
fn clamp(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    load_meta(&mut rule, META_TRANSPORT);
    equals(&mut rule, TCP);
    transport(&mut rule, TCP_FLAGS, 1);
    masked(&mut rule, [SYN]);
    equals(&mut rule, SYN);
    is_reply(&mut rule);
    field(&mut rule, family.source_offset(), family);
    lookup(&mut rule, family.pick(Set::Cluster4, Set::Cluster6), Found::Not);
    opener(&mut rule, family);
    lookup(&mut rule, family.pick(Set::Clamp4, Set::Clamp6), Found::Value);
    expression(&mut rule, "exthdr", |option| {
        option.octets(2, &[MAXIMUM_SEGMENT_SIZE]);
        // Behind its kind and its length.
        option.number(3, 2);
        option.number(4, 2);
        option.number(6, OF_TCP);
        option.number(7, REGISTER);
    });
    rule
}

/// What `nft` notes in the kernel of a map that it makes with `typeof ip saddr : tcp option maxseg size`. It lists the map so, and takes what it
/// listed; of a type without that it takes back neither the map nor the rule. The kernel does not look at it.
pub(super) fn typeof_segment(family: Ip) -> Vec<u8> {
    let number = |kind: u8, value: u32| [&[kind, 4], &value.to_ne_bytes()[..]].concat();
    let nest = |kind: u8, inner: &[Vec<u8>]| {
        let inner = inner.concat();
        [&[kind, u8::try_from(inner.len()).unwrap_or(u8::MAX)], &inner[..]].concat()
    };
    // nftables' own numbers: the header of IP and its source; the option of TCP and its size.
    let (header, source) = if family == Ip::V4 { (12, 11) } else { (13, 8) };
    let key = nest(3, &[number(0, 7), nest(1, &[number(0, header), number(1, source)])]);
    let data = nest(4, &[number(0, 8), nest(1, &[number(1, 2), number(2, 1), number(0, 2)])]);
    [number(0, 2), number(1, 2), key, data, number(6, 0)].concat()
}

/// `udp dport @tunnel-port ip saddr != @peer drop`
fn strangers(family: Ip) -> Attributes {
    let mut rule = Attributes::default();
    of_family(&mut rule, family);
    load_meta(&mut rule, META_TRANSPORT);
    equals(&mut rule, UDP);
    transport(&mut rule, DESTINATION_PORT, 2);
    lookup_in(&mut rule, PORTS, Found::Yes);
    field(&mut rule, family.source_offset(), family);
    lookup_in(&mut rule, if family == Ip::V4 { PEERS[0] } else { PEERS[1] }, Found::Not);
    verdict(&mut rule, DROP);
    rule
}

/// `iifname @tunnel ip saddr != @guard drop` and `iifname @tunnel ip daddr @cluster drop`
fn no_egress(family: Ip) -> [Attributes; 2] {
    let [guard, cluster] = match family {
        Ip::V4 => [Set::Guard4, Set::Cluster4],
        Ip::V6 => [Set::Guard6, Set::Cluster6],
    };
    [(family.source_offset(), guard, Found::Not), (family.destination_offset(), cluster, Found::Yes)].map(
        |(offset, set, found)| {
            let mut rule = Attributes::default();
            of_family(&mut rule, family);
            by_device(&mut rule, META_IN_NAME);
            field(&mut rule, offset, family);
            lookup_in(&mut rule, set.name(), found);
            verdict(&mut rule, DROP);
            rule
        },
    )
}

fn by_device(rule: &mut Attributes, key: u32) {
    load_meta(rule, key);
    lookup_in(rule, DEVICES, Found::Yes);
}

const SYN: u8 = 2;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// The option is one of TCP, not a header of IPv6.
const OF_TCP: u32 = 1;
/// Of IP and TCP.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// The type and the length of a segment's size, in the order of the network. nftables has no name for the type: see [`typeof_segment`].
pub(super) const SEGMENT: (u32, u32) = (INTEGER_TYPE, 2);
const INTEGER_TYPE: u32 = 4;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
/// nftables' own numbers for the types, which only show in lists, and count where a list is loaded.
const NAME_TYPE: u32 = 41;
const PORT_TYPE: u32 = 13;
/// `IFNAMSIZ`.
const NAME_LENGTH: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        let tunnel = Some(TunnelDevice { name: "crier-egress".to_owned(), port: 4790 });
        Form { table: "crier".to_owned(), priority: 95, mark_mask: 0x00f0_0000, marks: vec![0x0010_0000], tunnel }
    }

    fn content(peers: &[&str]) -> Content {
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        Content { tunnel: Some(Tunnel { peers, mtu: None }), ..Content::default() }
    }

    fn contains(batch: &Batch, part: &[u8]) -> bool {
        batch.emit().windows(part.len()).any(|window| window == part)
    }

    /// Input: a pod that the tunnel leads to its owner, one that a next hop leads, and the device, whose MTU changes.
    #[test]
    fn only_what_goes_by_the_tunnel_is_clamped_and_by_what_fits_into_it() {
        let with = |mtu: Option<u32>| {
            let mut content = content(&[]);
            content.tunnel = content.tunnel.map(|tunnel| Tunnel { mtu, ..tunnel });
            content.networks.tunnelled = [1].into();
            let pods = [("10.244.1.2", 1), ("fd44:1::2", 1), ("10.244.1.3", 2)];
            content.pods = pods.map(|(pod, slot)| (pod.parse().unwrap(), Mapping::Steered { slot })).into();
            content
        };
        let sizes = |content: &Content| -> Vec<(String, u16)> {
            clamped(content).into_iter().map(|(pod, size)| (pod.to_string(), size)).collect()
        };
        assert_eq!(sizes(&with(None)), []);
        let expected = [("10.244.1.2".to_owned(), 1424), ("fd44:1::2".to_owned(), 1404)];
        assert_eq!(sizes(&with(Some(1464))), expected);
        let (before, after) = (with(Some(1464)), with(Some(1444)));
        let smaller = change(&form(), &before, &after);
        assert!(
            contains(&smaller, &1404_u16.to_be_bytes()) && contains(&smaller, b"clamp4\0"),
            "what was there goes first"
        );
        assert!(!contains(&smaller, b"steer4\0"), "nothing else changes");
    }

    /// As nftables 1.0.6 sends it for `typeof ip6 saddr : tcp option maxseg size`.
    #[test]
    fn the_type_of_a_segments_size_is_told_as_nft_does() {
        if cfg!(target_endian = "big") {
            return;
        }
        let of_v6: Vec<u8> = [
            &[0, 4, 2, 0, 0, 0, 1, 4, 2, 0, 0, 0, 3, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0, 4, 13, 0, 0, 0, 1, 4, 8, 0, 0, 0]
                [..],
            &[4, 26, 0, 4, 8, 0, 0, 0, 1, 18, 1, 4, 2, 0, 0, 0, 2, 4, 1, 0, 0, 0, 0, 4, 2, 0, 0, 0, 6, 4, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(typeof_segment(Ip::V6), of_v6);
    }

    /// As nftables 1.0.6 sends it for `type ifname` and `type mark`: the device, and the marks of replies and requests.
    #[test]
    fn the_order_of_names_and_marks_is_told_as_nft_does() {
        if cfg!(target_endian = "big") {
            return;
        }
        let whole = whole(&form(), &Content::default(), Ownership::None, false).emit();
        let told = [10, 0, 13, 0, 0, 4, 1, 0, 0, 0];
        assert_eq!(whole.windows(told.len()).filter(|window| *window == told).count(), 3);
    }

    #[test]
    fn the_device_and_its_port_are_known_while_there_is_an_end_and_the_peers_change_alone() {
        let (none, one, two) = (Content::default(), content(&["10.1.2.12"]), content(&["10.1.2.12", "fd01:3::13"]));
        let (name, port) = (b"crier-egress\0\0\0\0", [6, 0, 1, 0, 0x12, 0xb6]);
        let made = change(&form(), &none, &one);
        assert!(contains(&made, name) && contains(&made, &port) && contains(&made, &[10, 1, 2, 12]));
        let grown = change(&form(), &one, &two);
        assert!(contains(&grown, b"peer6\0") && !contains(&grown, b"peer4\0"), "only what differs");
        assert!(!contains(&grown, name), "the device stays");
        assert!(change(&form(), &two, &two).is_empty());
        let gone = change(&form(), &two, &none);
        assert!(contains(&gone, name) && contains(&gone, &port));
        let whole = whole(&form(), &none, Ownership::None, false);
        assert!(!contains(&whole, name), "without an end a device of the name is anybody's");
    }
}
