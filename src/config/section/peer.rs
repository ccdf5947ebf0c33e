//! `[[bgp.peer]]`: a router to announce to. Floor 1.
//! Not for sessions: what a peer's OPEN makes of these settings is the speaker's to find out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use super::bgp::router_id;
use super::tcp_ao::{AoKey, LONGEST_PASSWORD};
use super::{Check, Section, section};
use crate::address::{Family, ScopedAddress, is_link_local_v6};
use crate::config::complaint::{Place, Problem};
use crate::config::key::{
    HOUR, asn, duration, flag, flag_or_auto, name, number, peer_asn, port, secret, selector, text, vrf,
};
use crate::config::reader::Reader;
use crate::config::secrets::SecretFile;
use crate::config::seen::{self, unique};
use crate::config::shape::written;
use crate::config::{duration, syntax};
use crate::names::{InterfaceName, PeerName};
use crate::selector::Selector;

/// The longest hold time that an OPEN can carry.
const LONGEST_HOLD_TIME: Duration = Duration::from_secs(65535);

section! {
    /// `[[bgp.peer]]`, with the values of `[bgp]` filled in where it names none.
    pub struct Peer = Section::many("bgp.peer", "A router to announce to."), written as Written;
    keys {
        pub name: PeerName = name("name", "The name that advertisements and commands use.").set("\"tor\""), touches Session;
        pub address: PeerAddress = text(
            "address",
            "an IP address (with %interface if link-local), an interface, or \"gateway\"",
            |text, _| peer_address(text),
            "The address of the peer: \"10.0.0.1\", \"fe80::1%eth0\", an interface for the router that is heard on that \
             link, or \"gateway\" for the next hops of the default route, with a session to each.",
        )
        .set("\"10.0.0.1\""), touches Session;
        pub asn: PeerAsn = peer_asn(
            "asn",
            "The AS number of the peer; \"external\" accepts any but ours, \"internal\" only ours.",
        )
        .set("64512"), touches Session;
        /// `None` is no hold timer at all; else at least 3 s.
        pub hold_time: Option<Duration> = duration(
            "hold-time",
            Duration::ZERO,
            LONGEST_HOLD_TIME,
            "How long the peer may be silent before the session ends: 3 s or more, or \"0s\" for no limit. The lower hold \
             time of both ends applies.",
        )
        .or_else("0s")
        .default("90s")
        .trade("Shorter notices a dead peer sooner; too short ends sessions when either end is merely busy."), touches Session;
        /// `None` is a third of the agreed hold time.
        pub keepalive_time: Option<Duration> = duration(
            "keepalive-time",
            Duration::ZERO,
            LONGEST_HOLD_TIME,
            "The time between KEEPALIVE messages: 1 s or more, and less than hold-time.",
        )
        .optional("a third of the negotiated hold time")
        .shown("\"30s\""), touches Session;
        pub connect_retry_time: Duration = duration(
            "connect-retry-time",
            Duration::from_millis(100),
            HOUR,
            "How long to wait before dialing again.",
        )
        .default("5s"), touches LiveSession;
        /// The AS number that we show this peer: its `local-asn`, else `asn` of `[bgp]`. Never 0.
        pub local_asn: u32 = asn("local-asn", "Our AS number towards this peer.")
            .computed("asn of [bgp]")
            .shown("64514"), touches Session;
        pub source_address: Option<IpAddr> = text(
            "source-address",
            "an IP address",
            |text, _| syntax::ip(text),
            "The local address of the connection, of the same family as address.",
        )
        .optional("the Node's address in the peer's subnet, else the kernel chooses")
        .shown("\"10.0.0.11\""), touches Session;
        pub port: u16 = port("port", "The TCP port of the peer.").default(179), touches Session;
        /// Wait for the peer's connection, never dial.
        pub passive: bool = flag("passive", false, "Wait for the peer to connect, never dial."), touches LiveSession;
        /// How many hops away the peer may be, 1 to 255: the TTL of what it is sent.
        pub multihop: u8 = number(
            "multihop",
            "hops",
            1,
            255,
            "How many hops away the peer may be. Packets to the peer are sent with this TTL.",
        )
        .computed("1 for a peer of another AS, 255 within an AS, 1 for a link-local address")
        .shown("1")
        .trade("With more than 1, hosts beyond the link can try to open sessions."), touches Session;
        /// Take packets from the link only (RFC 5082). `multihop` is 1 then.
        pub ttl_security: bool = flag(
            "ttl-security",
            false,
            "Accept packets from this link only (GTSM, RFC 5082). The peer must be configured alike.",
        )
        .trade("Hosts beyond the link cannot disturb the session. A peer without GTSM never comes up."), touches Session;
        /// What both ends sign their segments with (TCP MD5, RFC 2385): 1 to [`LONGEST_PASSWORD`] octets.
        pub password: Option<SecretFile> = secret(
            "password-file",
            LONGEST_PASSWORD,
            "The file with the TCP MD5 password (RFC 2385), 80 octets at most. A systemd credential with the name of the \
             file takes precedence.",
        )
        .optional("no password")
        .shown("\"/etc/crier/tor.md5\""), touches LiveSession;
        /// `None` is `"auto"`.
        pub graceful_restart: Option<bool> = flag_or_auto(
            "graceful-restart",
            "Ask the peer to keep our routes for 60 s when the agent crashes (RFC 4724, RFC 8538); \"auto\" asks only with BFD.",
        )
        .trade("Routes stay over a crash of the agent. Without BFD they also stay for 60 s when the node has died."), touches Session;
        /// The name of a `[[bfd]]` profile.
        pub bfd: Option<String> = text(
            "bfd",
            "the name of a [[bfd]] profile",
            seen::profile,
            "Watch this peer by BFD, with this profile.",
        )
        .optional("no BFD")
        .shown("\"fast\""), touches LiveSession;
        /// No session while BFD is not up.
        pub bfd_strict: bool = flag(
            "bfd-strict",
            false,
            "Open no session before BFD is up. Without it, BFD ends a session only after it has been up.",
        )
        .trade("No session over a path that drops packets, and none with a router whose BFD is not configured."), touches LiveSession;
        /// Which nodes talk to this peer; `None`: all.
        pub nodes: Option<Selector> = selector("nodes", "The nodes that open a session to this peer, by their labels.")
            .optional("every node")
            .shown("\"rack=a\""), touches Decisions;
        /// The device of the VRF that the peer is in.
        pub vrf: Option<InterfaceName> = vrf(
            "vrf",
            "Reach the peer in this VRF: a [[vrf]], or in a file without any, a device that exists.",
        )
        .optional("the main routing table")
        .shown("\"red\""), touches Session;
        /// The BGP identifier that this peer sees; `None`: that of `[bgp]`.
        pub router_id: Option<Ipv4Addr> = text(
            "router-id",
            "an IPv4 address",
            |text, _| router_id(text, ""),
            "Our BGP Identifier towards this peer.",
        )
        .optional("router-id of [bgp]")
        .shown("\"10.0.0.11\""), touches Session;
        /// The next hop of the IPv4 routes for this peer; `None`: chosen.
        pub next_hop: Option<Ipv4Addr> = text(
            "next-hop",
            "an IPv4 address",
            |text, _| next_hop(text, "IPv4").map(|next_hop: Ipv4Addr| next_hop),
            "The next hop of the IPv4 routes that the peer is sent.",
        )
        .optional("the local address of the session, or of the link that leads to the peer")
        .shown("\"10.0.0.11\""), touches LiveSession;
        /// The next hop of the IPv6 routes for this peer; `None`: chosen. Never link-local.
        pub next_hop_v6: Option<Ipv6Addr> = text(
            "next-hop-v6",
            "an IPv6 address",
            |text, _| next_hop(text, "IPv6").map(|next_hop: Ipv6Addr| next_hop),
            "The global next hop of the IPv6 routes that the peer is sent.",
        )
        .optional("the local address of the session, or of the link that leads to the peer")
        .shown("\"fd35::11\""), touches LiveSession;
        /// For people; crier does nothing with it.
        pub description: Option<String> = text(
            "description",
            "a text of 1 to 255 characters",
            |text, _| description(text),
            "A remark that `crier bgp peers` shows.",
        )
        .optional("none")
        .shown("\"rack 7, upper\""), touches Nothing;
        /// No session is held.
        pub shutdown: bool = flag("shutdown", false, "Hold no session to this peer: an open one is closed."), touches Decisions;
    }
    sections {
        /// The keys of TCP-AO (RFC 5925), the one to send with first. Empty where there is a password, and where nothing is signed.
        pub tcp_ao: Vec<AoKey>;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAsn {
    Is(u32),
    /// Any AS number but ours.
    External,
    /// Ours.
    Internal,
}

/// Where a peer is, or how to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddress {
    Fixed(ScopedAddress),
    /// Unnumbered: the router that is heard on this link, by its link-local address.
    Interface(InterfaceName),
    /// The next hop of this host's default route.
    Gateway,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Fixed(address) => address.fmt(f),
            PeerAddress::Interface(interface) => interface.fmt(f),
            PeerAddress::Gateway => f.write_str("gateway"),
        }
    }
}

/// A session of a peer that was read, for the peers after it.
#[derive(Debug)]
pub(in crate::config) struct Session {
    endpoint: Endpoint,
    signature: Signature,
    place: Place,
}

/// What tells one session from another: where it leads, and which nodes hold it.
#[derive(Debug, PartialEq)]
struct Endpoint {
    address: PeerAddress,
    port: u16,
    source: Option<IpAddr>,
    vrf: Option<InterfaceName>,
    nodes: Option<String>,
}

/// What segments are signed with.
type Signature = (Option<SecretFile>, Vec<AoKey>);

impl Peer {
    /// Both ends are of one AS, as far as the configuration says: LOCAL_PREF is sent, and nothing is prepended.
    pub fn is_internal(&self) -> bool {
        match self.asn {
            PeerAsn::Is(asn) => asn == self.local_asn,
            PeerAsn::Internal => true,
            PeerAsn::External => false,
        }
    }
}

impl Check for Written {
    fn enter(&mut self, section: &mut Reader<'_>) {
        section.seen.ao_ids.clear();
    }

    fn check(&mut self, section: &mut Reader<'_>) {
        unique(section, "peer", &self.name, |seen| &mut seen.peers);
        self.find_local_asn(section);
        self.find_multihop();
        self.check_timers(section);
        self.check_distance(section);
        self.check_source(section);
        self.check_next_hops(section);
        self.check_signature(section);
        if self.passive.value == Some(true) && section.seen.only_dials {
            let hint = "remove passive, or add an address to listen in [bgp]";
            let message = "crier never dials a passive peer, and with listen = [] it accepts no connections";
            section.complain(&self.passive.place, message, hint);
        }
        if self.bfd_strict.value == Some(true) && self.bfd.value == Some(None) {
            let message = "bfd-strict waits for BFD, and the peer has no BFD profile";
            section.complain(&self.bfd_strict.place, message, "add bfd = \"NAME\", or remove bfd-strict");
        }
        self.check_others(section);
    }
}

impl Written {
    fn find_local_asn(&mut self, section: &mut Reader<'_>) {
        if self.local_asn.given {
            return;
        }
        if !section.seen.own_asn_given {
            let hint = "add asn to [bgp] or local-asn to this peer";
            section.complain(&section.header(), "the peer has no local AS number", hint);
        }
        self.local_asn.value = section.seen.own_asn;
    }

    fn find_multihop(&mut self) {
        if self.multihop.given {
            return;
        }
        let internal = match self.asn.value {
            Some(PeerAsn::Is(asn)) => self.local_asn.value == Some(asn),
            Some(PeerAsn::Internal) => true,
            Some(PeerAsn::External) | None => false,
        };
        let link_local = match &self.address.value {
            Some(PeerAddress::Fixed(address)) => address.interface.is_some(),
            Some(PeerAddress::Interface(_)) => true,
            Some(PeerAddress::Gateway) | None => false,
        };
        // As FRR has it: within an AS, peers talk over any distance.
        let far = internal && self.ttl_security.value == Some(false) && !link_local;
        self.multihop.value = Some(if far { 255 } else { 1 });
    }

    /// Both times; what is written as zero becomes `None`.
    fn check_timers(&mut self, section: &mut Reader<'_>) {
        // A hold time that was refused is no reason to complain about the keepalive time.
        let Some(hold) = self.hold_time.value.map(Option::unwrap_or_default) else { return };
        self.hold_time.value = Some(Some(hold).filter(|hold| !hold.is_zero()));
        let seconds = hold.as_secs();
        if hold.subsec_nanos() != 0 {
            let message = format!("the hold time is {}; BGP supports whole seconds only", duration::text(hold));
            section.complain(&self.hold_time.place, message, format!("write \"{}s\"", (seconds + 1).max(3)));
        } else if (1..3).contains(&seconds) {
            // RFC 4271 §4.2: "Hold Time MUST be either zero or at least three seconds."
            let message = format!("the hold time is {seconds} s; it must be 0 s or at least 3 s (RFC 4271 §4.2)");
            section.complain(
                &self.hold_time.place,
                message,
                "write \"3s\" or more, or \"0s\" to disable the hold timer",
            );
        }
        let Some(Some(keepalive)) = self.keepalive_time.value else { return };
        self.keepalive_time.value = Some(Some(keepalive).filter(|keepalive| !keepalive.is_zero()));
        let mut wrong = |message: String, hint: &str| section.complain(&self.keepalive_time.place, message, hint);
        if hold.is_zero() && !keepalive.is_zero() {
            let hint = "remove keepalive-time, or set a hold time";
            wrong("without a hold time, no KEEPALIVE messages are sent (RFC 4271 §4.4)".to_owned(), hint);
        } else if keepalive.is_zero() && !hold.is_zero() {
            let hint = "remove keepalive-time to use a third of the hold time";
            wrong("without KEEPALIVE messages, the hold timer of the peer ends the session".to_owned(), hint);
        } else if !keepalive.is_zero() && keepalive < Duration::from_secs(1) {
            // RFC 4271 §4.4: "KEEPALIVE messages MUST NOT be sent more frequently than one per second."
            wrong("KEEPALIVE messages must be at least 1 s apart (RFC 4271 §4.4)".to_owned(), "write \"1s\" or more");
        } else if !hold.is_zero() && keepalive >= hold {
            let third = duration::text(Duration::from_secs((seconds / 3).max(1)));
            let message = format!(
                "the keepalive time of {} is not less than the hold time of {}",
                duration::text(keepalive),
                duration::text(hold)
            );
            wrong(message, &format!("a third of the hold time is usual: \"{third}\""));
        }
    }

    /// `multihop` against what says that the peer is on the link.
    fn check_distance(&self, section: &mut Reader<'_>) {
        if self.multihop.value.is_none_or(|hops| hops <= 1) {
            return;
        }
        if self.ttl_security.value == Some(true) {
            // RFC 5082 §3: the mechanism is for peers that are one hop away.
            let other = (&self.multihop.place, "multihop is set here");
            let message = "ttl-security accepts packets from the link only, but multihop allows a peer beyond it";
            section.conflict(&self.ttl_security.place, message, "remove one of them", other);
        }
        let on_link = match &self.address.value {
            Some(PeerAddress::Fixed(address)) => address.interface.is_some(),
            Some(PeerAddress::Interface(_) | PeerAddress::Gateway) => true,
            None => false,
        };
        if on_link {
            let hint = "a peer on the link is one hop away; remove multihop";
            let message = "the address is on a link, and multihop is more than 1";
            section.complain(&self.multihop.place, message, hint);
        }
    }

    fn check_source(&self, section: &mut Reader<'_>) {
        let (Some(peer), Some(Some(source))) = (&self.address.value, self.source_address.value) else { return };
        let ours = Family::of(source);
        let theirs = match peer {
            PeerAddress::Fixed(peer) => Family::of(peer.ip),
            // Unnumbered sessions run between link-local addresses.
            PeerAddress::Interface(_) => Family::V6,
            // Found out when the default route is known; a dial that does not fit fails and says so.
            PeerAddress::Gateway => ours,
        };
        if ours != theirs {
            let message = format!("the source address is {ours}, but the peer address is {theirs}");
            let hint = "use a local address of the same family as the peer address";
            let other = (&self.address.place, "the peer address");
            section.conflict(&self.source_address.place, message, hint, other);
            return;
        }
        let (far, on_host) = match peer {
            PeerAddress::Fixed(peer) => (peer.interface.is_none(), peer.ip.is_loopback()),
            PeerAddress::Interface(_) | PeerAddress::Gateway => (false, false),
        };
        let wrong = if !syntax::is_unicast(source) {
            Some("is not a unicast address")
        } else if source.is_loopback() && !on_host {
            Some("is a loopback address, and the peer is not on this host")
        } else if is_link_local_v6(source) && far {
            Some("is link-local, and the peer address is not")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let hint = "use a unicast address of this host, or remove source-address";
            section.complain(&self.source_address.place, format!("{source} {wrong}"), hint);
        }
    }

    /// A peer has its address for itself, unless it is on this host; and it discards what it is to send to itself.
    fn check_next_hops(&self, section: &mut Reader<'_>) {
        let Some(PeerAddress::Fixed(peer)) = &self.address.value else { return };
        let other = (&self.address.place, "the peer address");
        if self.source_address.value == Some(Some(peer.ip)) && !peer.ip.is_loopback() {
            let message = format!("the source address {} is the peer's own", peer.ip);
            let hint = "use an address of this host, or remove source-address";
            section.conflict(&self.source_address.place, message, hint, other);
        }
        let v4 = (self.next_hop.value.flatten().map(IpAddr::from), &self.next_hop.place);
        let v6 = (self.next_hop_v6.value.flatten().map(IpAddr::from), &self.next_hop_v6.place);
        for (_, place) in [v4, v6].into_iter().filter(|(next_hop, _)| *next_hop == Some(peer.ip)) {
            // RFC 4271 §6.3: such a NEXT_HOP is semantically incorrect, and the route is ignored.
            let message = format!("the next hop {} is the peer's own address: the peer ignores such routes", peer.ip);
            section.conflict(place, message, "use an address of this host that the peer can reach", other);
        }
    }

    /// The password or the keys: at most one of both.
    fn check_signature(&self, section: &mut Reader<'_>) {
        let password = self.password.value.as_ref().and_then(Option::as_ref);
        if password.is_some_and(|password| password.secret.expose().contains(&b'\n')) {
            let hint = "a password is one line; remove the other lines from the file";
            section.complain(&self.password.place, "the password has more than one line", hint);
        }
        if self.tcp_ao.empty_list {
            let hint = "add a key, or remove `tcp-ao` for a session without authentication";
            section.complain(&self.tcp_ao.place, "`tcp-ao` has no key", hint);
        }
        if self.tcp_ao.given && self.password.given {
            let other = (&self.tcp_ao.place, "TCP-AO is set here");
            let message = "password-file (TCP MD5) and tcp-ao are mutually exclusive";
            section.conflict(&self.password.place, message, "remove one of them", other);
        }
    }

    /// Two peers of one address need something that tells their sessions apart, for the routers and for the kernel.
    fn check_others(&self, section: &mut Reader<'_>) {
        // One that is shut down is in nobody's way: a spare, which takes its turn when the other one is shut down.
        let Some((endpoint, signature)) = self.session().filter(|_| self.shutdown.value != Some(true)) else { return };
        let place = &self.address.place;
        let address = &endpoint.address;
        let sessions = &section.seen.sessions;
        if let Some(first) = sessions.iter().find(|other| other.endpoint == endpoint) {
            let message = format!("two peers have the address {address} on the same nodes");
            let hint = "a router accepts one session from each address; remove one peer, or give them different nodes, \
                        source-address or vrf";
            let first = first.place.clone();
            section.conflict(place, message, hint, (&first, "the first is here"));
        } else if let Some(first) = sessions.iter().find(|other| {
            let same_but_for_the_port = endpoint.but_for_the_port() == other.endpoint.but_for_the_port();
            same_but_for_the_port && other.signature != signature
        }) {
            // The kernel looks keys up by the address alone.
            let message = format!("two peers with the address {address} have different passwords or keys");
            let hint = "use different source addresses, or the same password or keys for both";
            let first = first.place.clone();
            section.conflict(place, message, hint, (&first, "the first is here"));
        }
        section.seen.sessions.push(Session { endpoint, signature, place: place.clone() });
    }

    /// `None` where something of it was refused.
    fn session(&self) -> Option<(Endpoint, Signature)> {
        let endpoint = Endpoint {
            address: self.address.value.clone()?,
            port: self.port.value?,
            source: self.source_address.value?,
            vrf: self.vrf.value.clone()?,
            nodes: self.nodes.value.as_ref()?.as_ref().map(ToString::to_string),
        };
        Some((endpoint, (self.password.value.clone()?, self.tcp_ao.value.clone()?)))
    }
}

impl Endpoint {
    fn but_for_the_port(&self) -> (&PeerAddress, Option<IpAddr>, &Option<InterfaceName>, &Option<String>) {
        let Endpoint { address, port: _, source, vrf, nodes } = self;
        (address, *source, vrf, nodes)
    }
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
                format!("{} is not the address of a peer", written(text)),
                "write \"10.0.0.1\", \"fd35::1\", \"fe80::1%eth0\", an interface, or \"gateway\"",
            ),
        };
    };
    syntax::not_mapped(ip)?;
    let interface = match (is_link_local_v6(ip), zone) {
        (true, Some(zone)) => Some(syntax::interface(zone)?),
        (true, None) => {
            let hint = format!("add the interface of the peer: \"{ip}%eth0\"");
            return refused(format!("{ip} is link-local and needs an interface"), &hint);
        }
        (false, Some(_)) => {
            return refused(format!("{ip} is not link-local and cannot have an interface"), &format!("write \"{ip}\""));
        }
        (false, None) => None,
    };
    if !syntax::is_unicast(ip) {
        return refused(format!("{ip} is not a unicast address"), "use the unicast address of the peer");
    }
    Ok(PeerAddress::Fixed(ScopedAddress { ip, interface }))
}

/// An address that packets can be sent to.
fn next_hop<A: FromStr + Copy + Into<IpAddr>>(text: &str, family: &str) -> Result<A, Problem> {
    let unusable = |ip: IpAddr| !syntax::is_unicast(ip) || ip.is_loopback() || is_link_local_v6(ip);
    let parsed = text.parse::<A>();
    if let Ok(next_hop) = parsed {
        syntax::not_mapped(next_hop.into())?;
    }
    match parsed {
        Ok(next_hop) if !unusable(next_hop.into()) => Ok(next_hop),
        _ => {
            let message = format!("{} is not a usable next hop", written(text));
            Err(Problem::new(message, format!("write a unicast {family} address that the peer can reach")))
        }
    }
}

fn description(text: &str) -> Result<String, Problem> {
    let length = text.chars().count();
    match length {
        1..=255 if !text.contains(char::is_control) => Ok(text.to_owned()),
        1..=255 => Err(Problem::new("a description is one line without control characters", "write it on one line")),
        _ => Err(Problem::new(format!("the description has {length} characters"), "write 1 to 255 characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_a_unicast_address_of_its_family() {
        let v4 = |text| next_hop::<Ipv4Addr>(text, "IPv4").ok().map(|next_hop| next_hop.to_string());
        let v6 = |text| next_hop::<Ipv6Addr>(text, "IPv6").ok().map(|next_hop| next_hop.to_string());
        assert_eq!((v4("10.0.0.11"), v6("fd35::11")), (Some("10.0.0.11".to_owned()), Some("fd35::11".to_owned())));
        for text in ["fd35::11", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "", "10.0.0.0/24"] {
            assert_eq!(v4(text), None, "{text}");
        }
        for text in ["10.0.0.11", "::", "::1", "ff02::1", "fe80::1", "", "fd35::11%eth0", "::ffff:10.0.0.11"] {
            assert_eq!(v6(text), None, "{text}");
        }
    }

    #[test]
    fn a_description_is_one_line_of_1_to_255_characters() {
        let length = |text: &str| description(text).ok().map(|text| text.chars().count());
        assert_eq!(length("rack 7, größer"), Some(14));
        assert_eq!((length(&"é".repeat(255)), length(&"é".repeat(256))), (Some(255), None));
        assert_eq!((length(""), length("a\nb"), length("a\u{7f}")), (None, None, None));
    }

    /// Input: two peers of one router, of which none, one or both are shut down, and whether they have one password.
    #[test]
    fn of_two_peers_of_one_router_one_that_is_shut_down_is_in_nobodys_way() {
        let config = |first: bool, second: bool, port: u16| {
            let peer = |name: &str, shut: bool, port: u16| {
                format!(
                    "[[bgp.peer]]\nname = \"{name}\"\naddress = \"10.0.0.1\"\nport = {port}\nasn = 64512\nshutdown = {shut}\n"
                )
            };
            let text = format!("[bgp]\nasn = 64513\n{}{}", peer("tor", first, 179), peer("spare", second, port));
            crate::config::tests::is_good(&text)
        };
        let accepted = [(false, false), (true, false), (false, true), (true, true)].map(|(a, b)| config(a, b, 179));
        assert_eq!(accepted, [false, true, true, true]);
        assert!(config(false, false, 1179), "another port is another session");
    }

    #[test]
    fn by_itself_a_peer_is_not_shut_down_and_its_next_hops_are_chosen() {
        let peer = crate::config::tests::one_of_each().bgp.peers.remove(0);
        assert_eq!((peer.next_hop, peer.next_hop_v6, peer.description, peer.shutdown), (None, None, None, false));
        assert_eq!((peer.graceful_restart, peer.bfd), (None, None));
    }
}
