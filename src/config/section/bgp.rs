//! `[bgp]`: this host as a BGP speaker, with its peers and advertisements. Floor 1.

use std::net::{IpAddr, Ipv4Addr};

use super::advertisement::Advertisement;
use super::peer::Peer;
use super::{Check, Section, communities, section};
use crate::address::is_link_local_v6;
use crate::config::complaint::Problem;
use crate::config::key::{asn, port, set, text};
use crate::config::reader::Reader;
use crate::config::shape::written;
use crate::config::syntax;

section! {
    /// `[bgp]` with its peers and advertisements. Without peers the speaker does nothing.
    pub struct Bgp = Section::one("bgp", "This host as a BGP speaker."), written as Written;
    keys {
        /// `None` only where no peer needs it.
        pub asn: Option<u32> = asn("asn", "The AS number of this host.")
            .optional("none; every peer needs a local-asn")
            .set("64513"), touches Nothing;
        /// `None` is `"auto"`.
        pub router_id: Option<Ipv4Addr> = text(
            "router-id",
            "an IPv4 address, or \"auto\"",
            |text, _| router_id(text, ", or \"auto\""),
            "The BGP Identifier; \"auto\" takes an IPv4 address of this host, or derives one from the name of the node.",
        )
        .or_else("auto"), touches Session;
        /// Empty: only dials.
        pub listen: Vec<IpAddr> = set(
            "listen",
            "IP addresses",
            |text, _| listen_address(text),
            "The local addresses that accept connections of peers; with [] crier only dials.",
        )
        .default(&["0.0.0.0", "::"]), touches Listening;
        pub port: u16 = port("port", "The local TCP port that accepts connections.").default(179), touches Listening;
    }
    sections {
        pub peers: Vec<Peer>;
        pub advertisements: Vec<Advertisement>;
    }
}

impl Check for Written {
    fn enter(&mut self, section: &mut Reader<'_>) {
        let aliases = communities::aliases(section);
        section.seen.aliases = aliases;
        section.seen.own_asn = self.asn.value.flatten();
        section.seen.own_asn_given = self.asn.given;
        section.seen.only_dials = self.listen.empty_list;
    }
}

/// A BGP Identifier; `or` is what may stand instead, for the hint.
pub(super) fn router_id(text: &str, or: &str) -> Result<Ipv4Addr, Problem> {
    match text.parse::<Ipv4Addr>() {
        // RFC 6286 §2.1: the BGP Identifier is any four octets but all zero.
        Ok(id) if !id.is_unspecified() => Ok(id),
        _ => {
            let message = format!("{} is not a router ID", written(text));
            Err(Problem::new(message, format!("write an IPv4 address other than 0.0.0.0{or}")))
        }
    }
}

fn listen_address(text: &str) -> Result<IpAddr, Problem> {
    match syntax::ip(text)? {
        ip if ip.is_multicast() => {
            let message = format!("{ip} is a multicast address; peers cannot connect to it");
            Err(Problem::new(message, "write an address of this host, \"0.0.0.0\" or \"::\""))
        }
        ip if is_link_local_v6(ip) => {
            Err(Problem::new(format!("{ip} is link-local: it says not on which link"), "write \"::\" for every link"))
        }
        ip if !ip.is_unspecified() && !syntax::is_unicast(ip) => {
            let message = format!("{ip} is no address of a host; peers cannot connect to it");
            Err(Problem::new(message, "write an address of this host, \"0.0.0.0\" or \"::\""))
        }
        ip => Ok(ip),
    }
}
