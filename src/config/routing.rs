//! Reads `[bgp]` with its peers, advertisements and aliases for communities.
//! Floor 1. Not for sessions: what a peer's OPEN makes of these settings is the speaker's to find out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::complaint::{Place, Problem};
use super::document::Data;
use super::pools::{Pools, items, unique};
use super::reader::Reader;
use super::shape::written;
use super::{
    Advertisement, AoAlgorithm, AoKey, Bgp, LONGEST_PASSWORD, Peer, PeerAddress, PeerAsn, Pool, SecretFile, duration,
    syntax,
};
use crate::address::{AddressRange, Family, ScopedAddress};
use crate::community::{Community, WELL_KNOWN};
use crate::names::{InterfaceName, PeerName};

type Aliases = BTreeMap<String, Community>;

/// What peers take from `[bgp]`.
struct Shared {
    asn: Option<u32>,
    /// There is an `asn`, if perhaps a wrong one.
    asn_written: bool,
    /// `listen` was written as an empty list.
    only_dials: bool,
    /// The names of the `[[bfd]]` profiles.
    profiles: Vec<String>,
}

/// Reads the whole of BGP. `None` only with a complaint.
pub(super) fn bgp(root: &mut Reader<'_>, pools: &Pools) -> Option<Bgp> {
    let profiles = names_of_profiles(root);
    root.one("bgp", |section| {
        let asn = section.number("asn");
        let router_id = section.text("router-id", |text| match text {
            "auto" => Ok(None),
            text => router_id(text, ", or \"auto\"").map(Some),
        });
        let listen = items(section.set("listen", listen_address));
        let port = section.number("port");
        let only_dials = section.empty_list_given("listen");
        let shared = Shared { asn, asn_written: section.given("asn").is_some(), only_dials, profiles };
        let aliases = section.one("communities", aliases)?;
        let mut above = Above::default();
        let peers = section.many("peer", |section| peer(section, &shared, &mut above));
        let names = above.names;
        let advertisements = section.many("advertisement", |section| advertisement(section, pools, &names, &aliases));
        Some(Bgp { asn, router_id: router_id?, listen, port: port?, peers, advertisements })
    })?
}

fn names_of_profiles(root: &Reader<'_>) -> Vec<String> {
    let Some(Data::List(profiles)) = root.given("bfd").map(|entry| &entry.value.data) else { return Vec::new() };
    let names = profiles.iter().filter_map(|profile| match &profile.data {
        Data::Table(profile) => profile.entries.get("name"),
        _ => None,
    });
    let texts = names.filter_map(|name| match &name.value.data {
        Data::Text(text) => Some(text.text.clone()),
        _ => None,
    });
    texts.collect()
}

fn router_id(text: &str, or: &str) -> Result<Ipv4Addr, Problem> {
    match text.parse::<Ipv4Addr>() {
        // RFC 6286 §2.1: the BGP Identifier is any four octets but all zero.
        Ok(id) if !id.is_unspecified() => Ok(id),
        _ => {
            let message = format!("{} is no router id", written(text));
            Err(Problem::new(message, format!("write an IPv4 address other than 0.0.0.0{or}")))
        }
    }
}

fn listen_address(text: &str) -> Result<IpAddr, Problem> {
    match syntax::ip(text)? {
        ip if ip.is_multicast() => {
            let message = format!("{ip} is a multicast address; nobody can connect to it");
            Err(Problem::new(message, "write an address of this host, \"0.0.0.0\" or \"::\""))
        }
        ip => Ok(ip),
    }
}

/// The aliases. One that reads as a community itself would hide that community.
fn aliases(section: &mut Reader<'_>) -> Aliases {
    let mut aliases = Aliases::new();
    for (alias, entry) in &section.table.entries {
        if alias.parse::<Community>().is_ok() || alias.contains(':') || alias.is_empty() {
            let message = format!("{} cannot be an alias", written(alias));
            let hint = "choose a name without : that is no well-known community";
            section.complain(entry.key.clone(), message, hint);
        }
        let Data::Text(text) = &entry.value.data else { continue };
        match text.text.parse::<Community>() {
            Ok(community) => {
                aliases.insert(alias.clone(), community);
            }
            Err(error) => {
                let hint = "an alias stands for one community, not for another alias";
                section.complain(entry.value.place.clone(), error.to_string(), hint);
            }
        }
    }
    aliases
}

/// What tells one session from another: where it leads, and which nodes hold it.
#[derive(PartialEq)]
struct Endpoint {
    address: PeerAddress,
    port: u16,
    source: Option<IpAddr>,
    vrf: Option<InterfaceName>,
    nodes: Option<String>,
}

impl Endpoint {
    fn of(peer: &Peer) -> Endpoint {
        Endpoint {
            address: peer.address.clone(),
            port: peer.port,
            source: peer.source_address,
            vrf: peer.vrf.clone(),
            nodes: peer.nodes.as_ref().map(ToString::to_string),
        }
    }
}

/// What is known of the peers above.
#[derive(Default)]
struct Above {
    names: Vec<(PeerName, Place)>,
    endpoints: Vec<(Endpoint, Signature, Place)>,
}

/// What segments are signed with.
type Signature = (Option<SecretFile>, Vec<AoKey>);

fn peer(section: &mut Reader<'_>, shared: &Shared, above: &mut Above) -> Option<Peer> {
    let name = section.text("name", |text| syntax::name(text).map(PeerName::from));
    if let Some(name) = &name {
        unique(section, "peer", name, &mut above.names);
    }
    let address = section.text("address", peer_address);
    let asn = peer_asn(section);
    let local_asn = local_asn(section, shared);
    let (hold_time, keepalive_time) = timers(section);
    let connect_retry_time = section.duration("connect-retry-time");
    let source_address = section.text("source-address", syntax::ip);
    let port = section.number("port");
    let passive = section.flag("passive");
    let ttl_security = section.flag("ttl-security");
    let internal = match asn {
        Some(PeerAsn::Is(asn)) => local_asn == Some(asn),
        Some(PeerAsn::Internal) => true,
        Some(PeerAsn::External) | None => false,
    };
    let link_local = match &address {
        Some(PeerAddress::Fixed(address)) => address.interface.is_some(),
        Some(PeerAddress::Interface(_)) => true,
        Some(PeerAddress::Gateway) | None => false,
    };
    let multihop = match section.given("multihop") {
        Some(_) => section.number("multihop"),
        // As FRR has it: within an AS, peers talk over any distance.
        None if internal && !ttl_security && !link_local => Some(255),
        None => Some(1),
    };
    let (password, tcp_ao) = signature(section);
    let vrf = section.text("vrf", syntax::interface);
    let router_id = section.text("router-id", |text| router_id(text, ""));
    let nodes = section.text("nodes", syntax::selector);
    if ttl_security && multihop.is_some_and(|hops: u8| hops > 1) {
        // RFC 5082 §3: the mechanism is for peers that are one hop away.
        let other = (section.place("multihop"), "the peer is farther than the link");
        let message = "ttl-security takes packets from the link only, and multihop lets the peer be farther";
        section.conflict(section.place("ttl-security"), message, "keep one of them", other);
    }
    section.text("bfd", |text| {
        let known: Vec<&str> = shared.profiles.iter().map(String::as_str).collect();
        match known.contains(&text) {
            true => Ok(()),
            false => {
                let message = format!("there is no BFD profile {}", written(text));
                Err(Problem::new(message, syntax::suggestion(text, &known, "[[bfd]] profile")))
            }
        }
    });
    if passive && shared.only_dials {
        let hint = "let [bgp] listen on an address, or let the peer be dialed";
        section.complain(
            section.place("passive"),
            "a passive peer is never dialed, and listen = [] hears nobody",
            hint,
        );
    }
    if let Some(address) = &address {
        source_fits(section, address, source_address);
        let on_link = match address {
            PeerAddress::Fixed(address) => address.interface.is_some(),
            PeerAddress::Interface(_) | PeerAddress::Gateway => true,
        };
        if on_link && multihop.is_some_and(|hops: u8| hops > 1) {
            let hint = "a peer on the link is one hop away; take multihop out";
            section.complain(section.place("multihop"), "multihop does not reach beyond the link of the address", hint);
        }
    }
    let peer = Peer {
        name: name?,
        address: address?,
        asn: asn?,
        local_asn: local_asn?,
        hold_time,
        keepalive_time,
        connect_retry_time: connect_retry_time?,
        source_address,
        port: port?,
        passive,
        multihop: multihop?,
        ttl_security,
        password,
        tcp_ao,
        vrf,
        router_id,
        nodes,
    };
    tell_apart(section, &peer, above);
    Some(peer)
}

/// Two peers of one address need something that tells their sessions apart, for the routers and for the kernel.
fn tell_apart(section: &mut Reader<'_>, peer: &Peer, above: &mut Above) {
    let endpoint = Endpoint::of(peer);
    let signature = (peer.password.clone(), peer.tcp_ao.clone());
    let place = section.place("address");
    if let Some((_, _, first)) = above.endpoints.iter().find(|(other, _, _)| *other == endpoint) {
        let message = format!("two peers have the address {} on the same nodes", peer.address);
        let hint = "a router takes one session from each address; keep one of them, or tell them apart by nodes, \
                    source-address or vrf";
        section.conflict(place.clone(), message, hint, (first.clone(), "the first is here"));
    } else if let Some((_, _, first)) = above.endpoints.iter().find(|(other, signed, _)| {
        let same_but_for_the_port = Endpoint { port: other.port, ..Endpoint::of(peer) } == *other;
        same_but_for_the_port && *signed != signature
    }) {
        // The kernel looks keys up by the address alone.
        let message = format!("two peers have the address {} and are signed differently", peer.address);
        let hint = "give each a source-address of its own, or both the same password";
        section.conflict(place.clone(), message, hint, (first.clone(), "the first is here"));
    }
    above.endpoints.push((endpoint, signature, place));
}

/// The password or the keys: at most one of both.
fn signature(section: &mut Reader<'_>) -> Signature {
    let password = section.secret("password-file", LONGEST_PASSWORD);
    if password.as_ref().is_some_and(|password| password.secret.expose().contains(&b'\n')) {
        let hint = "a password is one line; take the others out of the file";
        section.complain(section.place("password-file"), "the password has more than one line", hint);
    }
    let mut ids: Vec<(u8, u8, Place)> = Vec::new();
    let keys = section.many("tcp-ao", |section| {
        let (send_id, receive_id) = (section.number("send-id"), section.number("receive-id"));
        let algorithm = section.text("algorithm", |text| {
            let all = [AoAlgorithm::HmacSha1, AoAlgorithm::Aes128Cmac];
            let word = syntax::word("algorithm of TCP-AO", text, &all.map(AoAlgorithm::name))?;
            Ok(if word == AoAlgorithm::HmacSha1.name() { AoAlgorithm::HmacSha1 } else { AoAlgorithm::Aes128Cmac })
        });
        let secret = section.secret("key-file", LONGEST_PASSWORD);
        let (send_id, receive_id) = (send_id?, receive_id?);
        // RFC 5925 §3.1: the ids of one connection's keys must not overlap.
        if let Some((_, _, first)) = ids.iter().find(|(send, receive, _)| *send == send_id || *receive == receive_id) {
            let hint = "each key of a peer has a send-id and a receive-id of its own";
            section.conflict(section.header(), "two keys with one id", hint, (first.clone(), "the first is here"));
        }
        ids.push((send_id, receive_id, section.header()));
        Some(AoKey { send_id, receive_id, algorithm: algorithm?, secret: secret? })
    });
    if section.empty_list_given("tcp-ao") {
        let hint = "name a key, or take `tcp-ao` out for segments without a signature";
        section.complain(section.place("tcp-ao"), "`tcp-ao` holds no key", hint);
    }
    if section.given("tcp-ao").is_some() && section.given("password-file").is_some() {
        let other = (section.place("tcp-ao"), "the keys of TCP-AO");
        let message = "password-file is for TCP MD5, which TCP-AO replaces";
        section.conflict(section.place("password-file"), message, "keep one of them", other);
    }
    (password, keys)
}

/// `10.0.0.1`, `fd35::1`, `fe80::1%eth0`, an interface, or `gateway`.
fn peer_address(text: &str) -> Result<PeerAddress, Problem> {
    let refused = |message: String, hint: &str| Err(Problem::new(message, hint));
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let Ok(ip) = ip.parse::<IpAddr>() else {
        // eth0, bond0 and eth0.100, but neither 10.0.0.256 nor tor.example.com
        let device = text.split_once('.').map_or(text, |(device, vlan)| match vlan.parse::<u16>() {
            Ok(_) => device,
            Err(_) => "",
        });
        let usual = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let unnumbered = device.starts_with(|c: char| c.is_ascii_alphabetic())
            && device.chars().all(usual)
            && syntax::interface(text).is_ok();
        return match text {
            "gateway" => Ok(PeerAddress::Gateway),
            _ if unnumbered => Ok(PeerAddress::Interface(text.into())),
            _ => refused(
                format!("{} is no address of a peer", written(text)),
                "write \"10.0.0.1\", \"fd35::1\", \"fe80::1%eth0\", an interface, or \"gateway\"",
            ),
        };
    };
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let interface = match (link_local, zone) {
        (true, Some(zone)) => Some(syntax::interface(zone)?),
        (true, None) => {
            let hint = format!("write \"{ip}%eth0\", with the interface that the peer is on");
            return refused(format!("{ip} is link-local, and the interface is missing"), &hint);
        }
        (false, Some(_)) => {
            return refused(format!("{ip} is not link-local, so it takes no interface"), &format!("write \"{ip}\""));
        }
        (false, None) => None,
    };
    if ip.is_multicast() || ip.is_unspecified() {
        return refused(format!("{ip} is not the address of one router"), "write the unicast address of the peer");
    }
    Ok(PeerAddress::Fixed(ScopedAddress { ip, interface }))
}

fn peer_asn(section: &mut Reader<'_>) -> Option<PeerAsn> {
    match section.given("asn").map(|entry| &entry.value.data) {
        Some(Data::Text(text)) if text.text == "internal" => Some(PeerAsn::Internal),
        Some(Data::Text(text)) if text.text == "external" => Some(PeerAsn::External),
        _ => section.number("asn").map(PeerAsn::Is),
    }
}

fn local_asn(section: &mut Reader<'_>, shared: &Shared) -> Option<u32> {
    if section.given("local-asn").is_some() {
        return section.number("local-asn");
    }
    if !shared.asn_written {
        let hint = "add asn to [bgp], or local-asn to this peer";
        section.complain(section.header(), "no AS number of our own for this peer", hint);
    }
    shared.asn
}

/// The hold time and the keepalive time, `None` for no hold timer and for a third of what is agreed.
fn timers(section: &mut Reader<'_>) -> (Option<Duration>, Option<Duration>) {
    let keepalive = section.duration("keepalive-time");
    let Some(hold) = section.duration("hold-time") else { return (None, keepalive) };
    let seconds = hold.as_secs();
    if hold.subsec_nanos() != 0 {
        let message = format!("the hold time is {}; the protocol has whole seconds only", duration::text(hold));
        section.complain(section.place("hold-time"), message, format!("write \"{}s\"", (seconds + 1).max(3)));
    } else if (1..3).contains(&seconds) {
        // RFC 4271 §4.2: "Hold Time MUST be either zero or at least three seconds."
        let message = format!("the hold time is {seconds} s; it must be 0 s or at least 3 s (RFC 4271 §4.2)");
        section.complain(section.place("hold-time"), message, "write \"3s\" or more, or \"0s\" for no hold timer");
    }
    let Some(keepalive) = keepalive else { return (Some(hold).filter(|hold| !hold.is_zero()), None) };
    let mut wrong = |message: String, hint: &str| section.complain(section.place("keepalive-time"), message, hint);
    if hold.is_zero() && !keepalive.is_zero() {
        let hint = "take keepalive-time out, or give a hold time";
        wrong("without a hold time no keepalives are sent (RFC 4271 §4.4)".to_owned(), hint);
    } else if keepalive.is_zero() && !hold.is_zero() {
        let hint = "take keepalive-time out for a third of the hold time";
        wrong("without keepalives the peer's hold timer ends the session".to_owned(), hint);
    } else if !keepalive.is_zero() && keepalive < Duration::from_secs(1) {
        // RFC 4271 §4.4: "KEEPALIVE messages MUST NOT be sent more frequently than one per second."
        wrong("keepalives may be a second apart at least (RFC 4271 §4.4)".to_owned(), "write \"1s\" or more");
    } else if !hold.is_zero() && keepalive >= hold {
        let third = duration::text(Duration::from_secs((seconds / 3).max(1)));
        let message = format!(
            "the keepalive time is {}, not less than the hold time of {}",
            duration::text(keepalive),
            duration::text(hold)
        );
        wrong(message, &format!("a third of the hold time is usual: \"{third}\""));
    }
    (Some(hold).filter(|hold| !hold.is_zero()), Some(keepalive).filter(|keepalive| !keepalive.is_zero()))
}

fn source_fits(section: &mut Reader<'_>, peer: &PeerAddress, source: Option<IpAddr>) {
    let Some(source) = source else { return };
    let ours = Family::of(source);
    let theirs = match peer {
        PeerAddress::Fixed(peer) => Family::of(peer.ip),
        // Unnumbered sessions run between link-local addresses.
        PeerAddress::Interface(_) => Family::V6,
        // Found out when the default route is known; a dial that does not fit fails and says so.
        PeerAddress::Gateway => ours,
    };
    if ours != theirs {
        let message = format!("the source address is {ours}, the address of the peer is {theirs}");
        let hint = "write a local address of the peer's family";
        let other = (section.place("address"), "the address of the peer");
        section.conflict(section.place("source-address"), message, hint, other);
    } else if source.is_multicast() || source.is_unspecified() {
        let hint = "write an address of this host, or take source-address out";
        section.complain(section.place("source-address"), format!("{source} is not the address of a host"), hint);
    }
}

fn advertisement(
    section: &mut Reader<'_>,
    pools: &Pools,
    peers: &[(PeerName, Place)],
    aliases: &Aliases,
) -> Option<Advertisement> {
    let pool_names = items(section.set("pools", |text| pools.find(text)));
    let peers = items(section.set("peers", |text| {
        let known: Vec<&str> = peers.iter().map(|(name, _)| name.as_str()).collect();
        match known.contains(&text) {
            true => Ok(PeerName::from(text)),
            false => {
                let message = format!("there is no peer {}", written(text));
                Err(Problem::new(message, syntax::suggestion(text, &known, "[[bgp.peer]]")))
            }
        }
    }));
    let mut communities = items(section.texts("communities", |text| community(text, aliases)));
    communities.sort();
    communities.dedup();
    let aggregation_length = section.number("aggregation-length");
    let aggregation_length_v6 = section.number("aggregation-length-v6");
    let all = section.given("pools").is_none() || section.empty_list_given("pools");
    let announced = pools.list.iter().filter(|pool| all || pool_names.contains(&pool.name));
    for pool in announced {
        covered(section, "aggregation-length", Family::V4, aggregation_length, pool);
        covered(section, "aggregation-length-v6", Family::V6, aggregation_length_v6, pool);
    }
    Some(Advertisement {
        pools: pool_names,
        peers,
        service_selector: section.text("service-selector", syntax::selector),
        nodes: section.text("nodes", syntax::selector),
        aggregation_length: aggregation_length?,
        aggregation_length_v6: aggregation_length_v6?,
        local_preference: section.number("local-preference"),
        med: section.number("med"),
        prepend: section.number("prepend")?,
        communities,
        link_bandwidth: section.flag("link-bandwidth"),
    })
}

fn community(text: &str, aliases: &Aliases) -> Result<Community, Problem> {
    if let Some(community) = aliases.get(text) {
        return Ok(*community);
    }
    text.parse().map_err(|_| match text.contains(':') {
        true => Problem::new(
            format!("{} is no community", written(text)),
            "write 64512:100 with numbers up to 65535, large:64512:1:2 with numbers up to 4294967295, rt:64512:100, \
             ro:64512:100, or ext:0x and 16 hexadecimal digits",
        ),
        false => {
            let known: Vec<&str> = aliases.keys().map(String::as_str).chain(WELL_KNOWN.map(|(name, _)| name)).collect();
            let message = format!("{} is neither a community nor an alias", written(text));
            Problem::new(message, syntax::suggestion(text, &known, "alias"))
        }
    })
}

/// An aggregate draws the traffic of every address in it, so each must lie in the pool whole.
fn covered(section: &mut Reader<'_>, key: &str, family: Family, length: Option<u8>, pool: &Pool) {
    let Some(length) = length.filter(|length| *length < family.host_length()) else { return };
    for range in joined(&pool.addresses, family) {
        let Some((outside, aggregate)) = sticks_out(&range, length) else { continue };
        let message = format!("the aggregate {aggregate} holds {outside}, which is not in the pool \"{}\"", pool.name);
        let hint = "choose a greater length, or give the pool the whole prefix";
        section.complain(section.place(key), message, hint);
        return;
    }
}

/// The ranges of a family, with those that touch put together.
fn joined(ranges: &[AddressRange], family: Family) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = ranges.iter().filter(|range| range.family() == family).copied().collect();
    ranges.sort_by_key(AddressRange::first);
    let mut joined: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.first() <= last.last() || Some(range.first()) == after(last.last()) => {
                let end = last.last().max(range.last());
                // The end of a range is not before its beginning, so this always is a range.
                *last = AddressRange::new(last.first(), end).unwrap_or(range);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// An address outside the range that is in the first or last aggregate of the range, with that aggregate.
fn sticks_out(range: &AddressRange, length: u8) -> Option<(IpAddr, ipnet::IpNet)> {
    let first = ipnet::IpNet::new(range.first(), length).ok()?.trunc();
    let last = ipnet::IpNet::new(range.last(), length).ok()?.trunc();
    if first.network() != range.first() {
        Some((first.network(), first))
    } else if last.broadcast() != range.last() {
        Some((last.broadcast(), last))
    } else {
        None
    }
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
