//! `[pulse]`: how agents on one link know that the others are alive. Floor 1.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::{Check, Section, section};
use crate::config::InterfacePattern;
use crate::config::complaint::{Place, Problem};
use crate::config::key::{duration, flag, interfaces, number, secret, secrets, set};
use crate::config::reader::Reader;
use crate::config::secrets::SecretFile;
use crate::config::shape::written;
use crate::config::syntax;
use crate::roster::LONGEST_RESTART;

/// The UDP port of pulses, source and destination.
pub const PULSE_PORT: u16 = 7473;

section! {
    /// `[pulse]`
    pub struct Pulse = Section::one(
        "pulse",
        "Pulses tell the agents on a link which of them are alive: authenticated packets to a link-local multicast group \
         (UDP port 7473). Without a key no pulses are sent, and failover takes seconds.",
    ), written as Written;
    combined {
        pub key: PulseKey = join pulse_key, split keys_of, of {
            key_file: Option<SecretFile> = secret(
                "key-file",
                LONGEST_KEY,
                "The file with the key that authenticates pulses between agents: 16 octets or more, the same on every \
                 node of the cluster, for example from `openssl rand -hex 32`.",
            )
            .or_credential("pulse.key", "the systemd credential pulse.key; without it, no pulses")
            .shown("\"/etc/crier/pulse.key\""), touches Pulse;
            unauthenticated: bool = flag("unauthenticated", false, "Send and accept pulses without a key. Excludes key-file.")
                .trade("No key to distribute, but any host on the link can take addresses away from the nodes."), touches Pulse;
        }
    }
    keys {
        /// Accepted on what others send, besides `key`.
        pub old_keys: Vec<SecretFile> = secrets(
            "old-key-files",
            LONGEST_KEY,
            "Files with former keys, seven at most, that are accepted too while the key is changed node by node.",
        )
        .shown("[\"/etc/crier/old.key\"]"), touches Pulse;
        /// Links that pulses are sent on although no `[[l2]]` uses them.
        pub interfaces: Vec<InterfacePattern> = interfaces(
            "interfaces",
            "Interfaces to send pulses on besides those of [[l2]], for a configuration without [[l2]].",
        )
        .shown("[\"eth0\"]")
        .trade("Agents that hear each other notice whose view of the API server is stale; each link costs some packets a second."), touches Decisions;
        /// How often an owner of addresses says that it is alive: whole milliseconds.
        pub interval: Duration = duration(
            "interval",
            Duration::from_millis(20),
            Duration::from_secs(5),
            "The time between two pulses of a node that owns addresses.",
        )
        .default("100ms")
        .trade("A shorter interval moves addresses sooner after a failure, and costs more packets and false alarms."), touches Restart;
        /// After how many missing pulses an owner counts as silent.
        pub multiplier: NonZeroU8 =
            number("multiplier", "", 2, 50, "How many pulses in a row must be missing before an owner counts as dead.")
                .default(3), touches Restart;
        /// For how long the other nodes wait for this one when its agent restarts; zero: they do not.
        pub restart_grace: Duration = duration(
            "restart-grace",
            Duration::ZERO,
            LONGEST_RESTART,
            "For how long a node keeps its addresses on the link when its agent is restarted (`systemctl restart`): the other nodes \
             wait so long for it. \"0s\" hands them over at every restart.",
        )
        .default("5s")
        .trade("If the restart fails, the addresses stay unanswered for this long; the agent must be able to stop, start and hear the API server within it."), touches Pulse;
        /// Nodes on the same link that are sent pulses besides the multicast group.
        pub peers: Vec<IpAddr> = set(
            "peers",
            "IP addresses",
            |text, _| node_address(text),
            "Nodes on the same link that are also sent pulses by unicast, for networks that filter multicast.",
        )
        .shown("[\"10.0.0.12\", \"10.0.0.13\"]"), touches Pulse;
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        let Written { old_keys, key_file, .. } = self;
        let old: &[SecretFile] = old_keys.value.as_deref().unwrap_or_default();
        for key in old {
            check_length(key, &old_keys.place, section);
        }
        if old.len() > MOST_OLD_KEYS {
            let message = format!("{} old keys are more than {MOST_OLD_KEYS}", old.len());
            section.complain(&old_keys.place, message, "name only keys that some node still seals its pulses with");
        }
        if !old.is_empty() && key_file.value == Some(None) {
            let message = "old-key-files without key-file: no key would seal the pulses of this node";
            section.complain(&old_keys.place, message, "name the new key in key-file");
        }
    }
}

/// Whether the key is long enough; complains if it is not.
fn check_length(key: &SecretFile, place: &Place, section: &mut Reader<'_>) -> bool {
    let enough = key.is_missing() || key.secret.expose().len() >= LEAST_PULSE_KEY;
    if !enough {
        let message = format!("the pulse key is shorter than {LEAST_PULSE_KEY} octets");
        section.complain(place, message, "create one with `openssl rand -hex 32`");
    }
    enough
}

/// What authenticates pulses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PulseKey {
    /// The key of the cluster, of at least [`LEAST_PULSE_KEY`] octets.
    Shared(SecretFile),
    /// Nothing, because the configuration wants it so.
    Unauthenticated,
    /// There is none, and so no pulse.
    Absent,
}

/// Octets of a key that is no password which can be guessed.
pub const LEAST_PULSE_KEY: usize = 16;

/// Former keys that are accepted beside the key of the cluster.
const MOST_OLD_KEYS: usize = 7;

/// Octets of a key: more would be hashed down to fewer.
const LONGEST_KEY: usize = 1024;

fn pulse_key(written: &Written, section: &mut Reader<'_>) -> Option<PulseKey> {
    let Written { key_file, unauthenticated, .. } = written;
    let unauthentic = unauthenticated.value.unwrap_or(false);
    // A key that cannot be read was complained about.
    match key_file.value.clone()? {
        Some(_) if unauthentic => {
            let other = (&key_file.place, "the key is set here");
            let message = "unauthenticated = true and a key are mutually exclusive";
            section.conflict(&unauthenticated.place, message, "remove one of them", other);
            None
        }
        Some(key) => check_length(&key, &key_file.place, section).then_some(PulseKey::Shared(key)),
        None if unauthentic => Some(PulseKey::Unauthenticated),
        None => Some(PulseKey::Absent),
    }
}

fn keys_of(key: &PulseKey) -> (Option<SecretFile>, bool) {
    match key {
        PulseKey::Shared(key) => (Some(key.clone()), false),
        PulseKey::Unauthenticated => (None, true),
        PulseKey::Absent => (None, false),
    }
}

fn node_address(text: &str) -> Result<IpAddr, Problem> {
    let hint = "write unicast addresses of nodes on the same link: [\"10.0.0.12\", \"10.0.0.13\"]";
    let refused = || Problem::new(format!("{} is not the address of a node", written(text)), hint);
    let address: IpAddr = text.parse().map_err(|_| refused())?;
    syntax::not_mapped(address)?;
    if !syntax::is_unicast(address) || address.is_loopback() {
        return Err(refused());
    }
    Ok(address)
}
