//! What sections say that others refer to: names of pools and peers, aliases, our own AS number. Floor 1.
//! It grows while the sections are read in their order, also by sections that something else is wrong with, so that a
//! reference to one of those is no second mistake.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use super::complaint::{Place, Problem};
use super::document::{Data, Table};
use super::reader::Reader;
use super::section::Written;
use super::section::peer::Session;
use super::shape::written;
use super::syntax;
use crate::address::AddressRange;
use crate::community::Community;
use crate::names::{InterfaceName, ObjectKey, PeerName, PoolName};

/// A range of a pool.
#[derive(Debug, Clone)]
pub(super) struct SeenRange {
    pub range: AddressRange,
    pub place: Place,
    pub pool: PoolName,
    /// The range is one of host parts below the prefix of this link.
    pub below: Option<InterfaceName>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub pools: Vec<(PoolName, Place)>,
    /// The addresses of each pool; the name is empty where it was refused.
    pub ranges: Vec<SeenRange>,
    /// What pools exclude.
    pub excluded: Vec<AddressRange>,
    /// What `[[reservation]]` name.
    pub reserved: Vec<(IpAddr, Place)>,
    /// For which Services.
    pub reserving: Vec<(ObjectKey, Place)>,
    /// `asn` of `[bgp]`.
    pub own_asn: Option<u32>,
    /// `[bgp]` has an `asn`, if perhaps a wrong one.
    pub own_asn_given: bool,
    /// `[bgp]` has `listen = []`.
    pub only_dials: bool,
    /// `[bgp.communities]`.
    pub aliases: BTreeMap<String, Community>,
    /// The names of the `[[bfd]]` profiles, those that stand behind the peers too.
    pub profiles: Vec<String>,
    /// The `[[bfd]]` that were read.
    pub bfd: Vec<(String, Place)>,
    pub peers: Vec<(PeerName, Place)>,
    pub sessions: Vec<Session>,
    /// The ids of the keys of this peer: send, receive.
    pub ao_ids: Vec<(u8, u8, Place)>,
    /// The names of the `[[vrf]]`, which stand behind those that name them.
    pub vrf_names: Vec<String>,
    /// The `[[vrf]]` that were read.
    pub vrfs: Vec<(InterfaceName, Place)>,
    pub vrf_tables: Vec<(u32, Place)>,
    /// The files name a ConfigMap, and its text is not among them.
    pub lacks_cluster: bool,
    /// What is named and nobody has yet, in words; `None` where it has to be there.
    pub awaited: Option<RefCell<BTreeSet<String>>>,
    /// The interfaces of VRFs, each with its place and the VRF.
    pub vrf_interfaces: Vec<(InterfaceName, (Place, Option<InterfaceName>))>,
}

impl Seen {
    /// Nothing but what stands behind those that refer to it: the names of BFD profiles and of VRFs.
    pub fn of(file: &Table) -> Seen {
        Seen { profiles: names(file, "bfd"), vrf_names: names(file, "vrf"), ..Seen::default() }
    }
}

/// The names of all sections of this key.
fn names(file: &Table, key: &str) -> Vec<String> {
    let sections = match file.entries.get(key).map(|entry| &entry.value.data) {
        Some(Data::List(sections)) => &sections[..],
        _ => &[],
    };
    let names = sections.iter().filter_map(|section| match &section.data {
        Data::Table(section) => section.entries.get("name"),
        _ => None,
    });
    let texts = names.filter_map(|name| match &name.value.data {
        Data::Text(text) => Some(text.text.clone()),
        _ => None,
    });
    texts.collect()
}

/// A reference to a pool.
pub(super) fn pool(text: &str, seen: &Seen) -> Result<PoolName, Problem> {
    refer(seen, "pool", "[[pool]]", text, seen.pools.iter().map(|(name, _)| name.as_str())).map(PoolName::from)
}

/// A reference to a peer.
pub(super) fn peer(text: &str, seen: &Seen) -> Result<PeerName, Problem> {
    refer(seen, "peer", "[[bgp.peer]]", text, seen.peers.iter().map(|(name, _)| name.as_str())).map(PeerName::from)
}

/// A reference to a `[[bfd]]` profile.
pub(super) fn profile(text: &str, seen: &Seen) -> Result<String, Problem> {
    refer(seen, "BFD profile", "[[bfd]] profile", text, seen.profiles.iter().map(String::as_str)).map(str::to_owned)
}

/// A reference to a `[[vrf]]`. In a file without one it is a device that something else makes.
pub(super) fn vrf(text: &str, seen: &Seen) -> Result<InterfaceName, Problem> {
    let name = syntax::interface(text)?;
    match seen.vrf_names.is_empty() {
        true => Ok(name),
        false => {
            refer(seen, "VRF", "[[vrf]]", text, seen.vrf_names.iter().map(String::as_str)).map(InterfaceName::from)
        }
    }
}

fn refer<'t, 's>(
    seen: &Seen,
    what: &str,
    section: &str,
    text: &'t str,
    known: impl Iterator<Item = &'s str>,
) -> Result<&'t str, Problem> {
    let known: Vec<&str> = known.collect();
    match (known.contains(&text), &seen.awaited) {
        (true, _) => Ok(text),
        (false, Some(awaited)) => {
            awaited.borrow_mut().insert(format!("{what} {}", written(text)));
            Ok(text)
        }
        (false, None) => {
            let message = format!("there is no {what} {}", written(text));
            let elsewhere =
                if seen.lacks_cluster { "; if the ConfigMap has it, add its text: --cluster-config FILE" } else { "" };
            Err(Problem::new(message, syntax::suggestion(text, &known, section) + elsewhere))
        }
    }
}

/// Complains if the name of a section is taken, and takes it.
pub(super) fn unique<N: PartialEq + Clone + Display>(
    section: &mut Reader<'_>,
    what: &str,
    name: &Written<N>,
    taken: fn(&mut Seen) -> &mut Vec<(N, Place)>,
) {
    let Some(value) = &name.value else { return };
    let first = taken(section.seen).iter().find(|(other, _)| other == value).map(|(_, place)| place.clone());
    if let Some(first) = first {
        let message = format!("two {what}s are named \"{value}\"");
        let hint = format!("give each {what} a different name");
        section.conflict(&name.place, message, &hint, (&first, "the first is here"));
    }
    taken(section.seen).push((value.clone(), name.place.clone()));
}
