//! `[[l2]]`: what is announced on the link by ARP and NDP, where, and from which nodes. Floor 1.

use std::fmt;

use super::preference::Preference;
use super::{Check, Section, section};
use crate::config::key::{flag, interfaces, selector, set, word};
use crate::config::seen;
use crate::config::words::words;
use crate::names::{InterfaceName, PoolName};
use crate::selector::Selector;

section! {
    /// `[[l2]]`
    pub struct L2 = Section::many(
        "l2",
        "Announce addresses on the link by ARP and NDP. One node at a time answers for an address.",
    ), written as Written;
    keys {
        /// Empty: all pools.
        pub pools: Vec<PoolName> = set("pools", "pool names", seen::pool, "The pools to announce; [] announces all.")
            .shown("[\"lan\"]");
        /// Empty: every link that can do ARP and is not excluded.
        pub interfaces: Vec<InterfacePattern> = interfaces(
            "interfaces",
            "The interfaces to announce on; [] selects every Ethernet interface except those of containers and tunnels.",
        )
        .shown("[\"eth0\", \"bond*\"]");
        pub exclude_interfaces: Vec<InterfacePattern> =
            interfaces("exclude-interfaces", "Interfaces that are never announced on.").shown("[\"docker*\"]");
        pub nodes: Option<Selector> = selector("nodes", "The nodes that may announce, by their labels.")
            .optional("every node")
            .shown("\"rack=a\"");
        /// An address stays with its owner when a node comes back that would be better only by chance.
        pub sticky: bool = flag("sticky", false, "Keep an address where it is when a better node comes back.")
            .trade("Addresses move less, but are spread less evenly after a failure. Needs the pulse.");
        pub subnet: Subnet = word(
            "subnet",
            "Whether an interface needs an address in the subnet of the announced address: \"require\" always, \
             \"prefer\" only if some interface has one, \"ignore\" never.",
        )
        .default("prefer")
        .trade("\"ignore\" announces on every interface, as MetalLB does, even where no host asks for the address.");
    }
    sections {
        pub preference: Vec<Preference>;
    }
}

impl Check for Written {}

words! {
    /// Whether a link must have an address of the subnet that an announced address is in.
    pub enum Subnet("subnet rule") {
        /// Links that have one, or all where none has.
        Prefer = "prefer",
        /// Only links that have one.
        Require = "require",
        /// All links, as MetalLB does.
        Ignore = "ignore",
    }
}

/// An interface name, or its beginning with a `*` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfacePattern {
    Exact(InterfaceName),
    StartsWith(String),
}

impl InterfacePattern {
    pub fn matches(&self, name: &InterfaceName) -> bool {
        match self {
            InterfacePattern::Exact(exact) => exact == name,
            InterfacePattern::StartsWith(start) => name.as_str().starts_with(start),
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfacePattern::Exact(name) => write!(f, "{name}"),
            InterfacePattern::StartsWith(start) => write!(f, "{start}*"),
        }
    }
}
