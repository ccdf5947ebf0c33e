//! The configuration: TOML in, [`Config`] out, or every mistake at once with file, line, caret and hint.
//! Floor 1. Nothing here reads a file or a clock; only [`load`] does, which is an edge.
//!
//! `document` makes one tree of the files, `shape` holds it against the rows of the sections, and `reader` makes a
//! [`Config`] of it. All of them complain, none of them stops at the first mistake. A key is one row in the file of its
//! section in `section/`; the forms of values are in `codec`, and what `config show` prints in `page`.

mod change;
pub mod cluster;
mod codec;
mod complaint;
mod digest;
mod document;
pub mod duration;
mod example;
mod ineffective;
pub mod key;
pub mod load;
pub mod manual;
mod page;
mod reader;
mod secret_entries;
pub mod secrets;
pub mod section;
mod seen;
mod shape;
mod source;
mod syntax;
pub mod taken;
#[cfg(test)]
pub(crate) mod tests;
mod unused;
mod words;

use std::cell::RefCell;

pub use change::{Change, Difference, Touches, changes, differing_keys, peer_key_touches, peer_touches, session_keys};
pub use complaint::{Complaint, Complaints, Place, Position};
pub use digest::{Digest, lease_digest};
pub use example::example;
pub use page::{show, shown};
pub use secrets::{Need, NoSecrets, SecretFile, Secrets};
pub use section::advertisement::Advertisement;
pub use section::api::Api;
pub use section::bfd::{BfdAuthentication, BfdProfile};
pub use section::bgp::Bgp;
pub use section::drain::DrainSettings;
pub use section::egress::{BLACKHOLES, EgressSettings, FOR_NETWORKS, NewPods};
pub use section::host::Host;
pub use section::kubernetes::{Access, Kubernetes, lease_of_class, own_lease_of_class};
pub use section::l2::{InterfacePattern, L2, Schedule, Subnet};
pub use section::log::{Log, LogFormat};
pub use section::manifests::Manifests;
pub use section::node::{DataPath, Node};
pub use section::peer::{Peer, PeerAddress, PeerAsn};
pub use section::pool::{Pool, below, can_be_of_service};
pub use section::preference::Preference;
pub use section::pulse::{LEAST_PULSE_KEY, PULSE_PORT, Pulse, PulseKey};
pub use section::reservation::Reservation;
pub use section::state::State;
pub use section::tcp_ao::{AoAlgorithm, AoKey, LONGEST_PASSWORD};
pub use section::vrf::{Vrf, VrfRoute};
pub use source::Source;
pub use syntax::in_namespace;
pub use unused::unused;

/// A file of the configuration, already read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceFile {
    /// As complaints should name it. It is not opened.
    pub path: String,
    pub text: String,
}

/// Makes a configuration of the main file and its drop-ins, in that order.
///
/// A drop-in overrides keys and appends to lists of tables. On error nothing was changed anywhere, and the complaints
/// are all that can be said at once: everything, or what is no TOML at all. The secrets that the files name are read from
/// `secrets`, so one that cannot be used is a complaint like any other.
pub fn parse(files: &[SourceFile], secrets: &dyn Secrets) -> Result<Config, Complaints> {
    parse_with(files, &[], secrets)
}

/// The same with the texts of the cluster's ConfigMap behind the files of the host. They may have only what is the same on every
/// node: see [`cluster`].
pub fn parse_with(files: &[SourceFile], texts: &[SourceFile], secrets: &dyn Secrets) -> Result<Config, Complaints> {
    parse_parts(files, texts, secrets, false).map(|(config, _)| config)
}

/// The same of the files of a host alone, whose ConfigMap is not at hand. What they name and do not have is the ConfigMap's to have: each
/// is told in words, such as `pool "lan"`. Files without a ConfigMap have to have everything.
pub fn parse_host(files: &[SourceFile], secrets: &dyn Secrets) -> Result<(Config, Vec<String>), Complaints> {
    parse_parts(files, &[], secrets, true)
}

/// The configuration of an agent: where it has no text of the ConfigMap, what the files of the host name of it is passed over until
/// there is one.
pub fn parse_running(files: &[SourceFile], texts: &[SourceFile], secrets: &dyn Secrets) -> Result<Config, Complaints> {
    parse_parts(files, texts, secrets, true).map(|(config, _)| config)
}

fn parse_parts(
    files: &[SourceFile],
    texts: &[SourceFile],
    secrets: &dyn Secrets,
    awaits: bool,
) -> Result<(Config, Vec<String>), Complaints> {
    let mut complaints = Vec::new();
    let mut merged = document::Table::root();
    let mut all_readable = true;
    for (number, file) in files.iter().chain(texts).enumerate() {
        match document::read(number, file) {
            Ok(mut table) => {
                if number >= files.len() {
                    cluster::check(&mut table, &mut complaints);
                }
                shape::check(&mut table, &mut complaints);
                document::merge("", &mut merged, table);
            }
            Err(complaint) => {
                all_readable = false;
                complaints.push(complaint);
            }
        }
    }
    // With a file missing, references into it would be complained about as well.
    let parts = Parts { alone: texts.is_empty(), awaits };
    let config = if all_readable { read(&merged, parts, secrets, &mut complaints) } else { None };
    match config {
        Some(config) if complaints.is_empty() => Ok(config),
        _ => {
            reader::explain_refusal(&mut complaints, &merged.place);
            let all: Vec<SourceFile> = files.iter().chain(texts).cloned().collect();
            Err(Complaints::new(&all, complaints))
        }
    }
}

/// What is at hand of a configuration in parts.
#[derive(Clone, Copy)]
struct Parts {
    /// The files of the host, and no text of a ConfigMap.
    alone: bool,
    /// A ConfigMap that is named has what they lack.
    awaits: bool,
}

/// Reads everything, and complains about everything; what a ConfigMap is to have comes along. `None` only with a complaint.
fn read(
    merged: &document::Table,
    Parts { alone, awaits }: Parts,
    secrets: &dyn Secrets,
    complaints: &mut Vec<Complaint>,
) -> Option<(Config, Vec<String>)> {
    let mut seen = seen::Seen::of(merged);
    let mut root =
        reader::Reader { section: section::Section::find("")?, table: merged, secrets, seen: &mut seen, complaints };
    let node = root.one();
    let api = root.one();
    let state = root.one();
    let source = source::read(&mut root);
    let is_in_parts = matches!(&source, Some(Source::Kubernetes(it)) if it.config.is_some());
    root.seen.lacks_cluster = alone && is_in_parts;
    root.seen.awaited = (alone && is_in_parts && awaits).then(RefCell::default);
    let pools = root.many();
    section::pool::overlaps(&mut root);
    let reservations = root.many();
    let l2 = root.many();
    let pulse = root.one();
    let bgp = root.one();
    let bfd = root.many();
    let vrfs = root.many();
    let egress = root.one();
    let drain = root.one();
    let host = root.one();
    let log = root.one();
    let awaited = root.seen.awaited.take().map(RefCell::into_inner).unwrap_or_default();
    let config = Config {
        node: node?,
        api: api?,
        state: state?,
        source: source?,
        pools,
        reservations,
        l2,
        pulse: pulse?,
        bgp: bgp?,
        bfd,
        vrfs,
        egress: egress?,
        drain: drain?,
        host: host?,
        log: log?,
    };
    Some((config, awaited.into_iter().collect()))
}

/// The candidate that the text was most likely meant to be, if any is close: at most a third of it is different.
fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= text.chars().count().div_ceil(3)).then_some(candidate)
}

/// A configuration that was checked whole. Every reference in it resolves, every value is in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node: Node,
    pub api: Api,
    pub state: State,
    pub source: Source,
    pub pools: Vec<Pool>,
    pub reservations: Vec<Reservation>,
    pub l2: Vec<L2>,
    pub pulse: Pulse,
    pub bgp: Bgp,
    pub bfd: Vec<BfdProfile>,
    pub vrfs: Vec<Vrf>,
    pub egress: EgressSettings,
    pub drain: DrainSettings,
    pub host: Host,
    pub log: Log,
}

impl Config {
    /// Manifests instead of an API server: every agent chooses addresses, and nobody confirms them.
    pub fn is_standalone(&self) -> bool {
        matches!(self.source, Source::Manifests(_))
    }

    /// Whether Services of this class (`spec.loadBalancerClass`) are this crier's. Standalone there is nobody else whose they could be.
    pub fn serves_class(&self, class: Option<&String>) -> bool {
        match (&self.source, class) {
            (Source::Manifests(_), _) => true,
            (Source::Kubernetes(kubernetes), Some(class)) => kubernetes.classes.contains(class),
            (Source::Kubernetes(kubernetes), None) => kubernetes.default_class,
        }
    }

    /// Every secret that the configuration names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretFile> {
        let of_pulse = match &self.pulse.key {
            PulseKey::Shared(key) => Some(key),
            PulseKey::Unauthenticated | PulseKey::Absent => None,
        };
        let peers = &self.bgp.peers;
        let keys = peers.iter().flat_map(|peer| &peer.tcp_ao).map(|key| &key.secret);
        let of_bfd = self.bfd.iter().filter_map(|profile| profile.key.as_ref());
        let passwords = peers.iter().filter_map(|peer| peer.password.as_ref());
        passwords.chain(keys).chain(of_bfd).chain(of_pulse).chain(&self.pulse.old_keys)
    }

    /// A secret file that a peer cannot do without and that is missing.
    pub fn lacking_of(&self, peer: &Peer) -> Option<&std::path::Path> {
        let peer = self.bgp.peers.iter().find(|it| it.name == peer.name)?;
        let keys = peer.tcp_ao.iter().map(|key| &key.secret);
        peer.password.iter().chain(keys).find_map(SecretFile::lacking).or_else(|| self.lacking_of_path(peer))
    }

    /// The same of BFD alone: an open TCP connection has its keys in the kernel, and BFD has none without the file.
    pub fn lacking_of_path(&self, peer: &Peer) -> Option<&std::path::Path> {
        let profile = self.bfd.iter().find(|profile| peer.bfd.as_ref() == Some(&profile.name));
        profile?.key.as_ref()?.lacking()
    }
}
