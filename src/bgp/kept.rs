//! A session between two agents, written down: what the next agent must know to go on with the socket of an established
//! session. Floor 1. Text in and out; `socket::kept` puts it together with its socket.
//!
//! The first line names the format, its version, and the length and SHA-256 of all that follows, which is JSON. A field that a
//! later version adds has a default, so that it reads what an earlier one wrote; where that is not possible, the version grows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::machine::negotiation::Negotiated;
use super::machine::session::{Standing, TimersLeft};
use super::outbox::chosen::Kept;
use super::outbox::sent::Sent;
use super::wire::{MAX_EXTENDED_MESSAGE_LEN, MAX_MESSAGE_LEN};
use crate::address::ScopedAddress;
use crate::kept_text::{self, TextFault};
use crate::names::PeerName;

/// An established session, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSession {
    pub peer: PeerName,
    pub address: ScopedAddress,
    /// Both ends of the connection.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Our BGP identifier towards the peer.
    pub router_id: Ipv4Addr,
    /// The keys of the peer whose change would have ended the session, with their values in TOML.
    pub settings: BTreeMap<String, Option<String>>,
    pub signature: Signature,
    /// The OPEN of either side, each a whole message. They are shown, and nothing is decided by them.
    pub open_sent: Vec<u8>,
    pub open_received: Vec<u8>,
    pub negotiated: Negotiated,
    pub standing: Standing,
    /// When all this was so, by the clock that runs from the boot of the kernel on, also while the host sleeps.
    pub since_boot: Duration,
    /// When the session was established, for people.
    pub established_at: Timestamp,
    /// What was read and is no whole message yet.
    pub unread: Vec<u8>,
    /// What is to be written before all else: the rest of a message that was written in part, and what was queued behind it.
    pub unwritten: Vec<u8>,
    pub sent: Sent,
    /// When it was last taken over from an agent that had died without a word, since the kernel booted.
    #[serde(default)]
    pub recovered: Option<Duration>,
    /// Which next hops were chosen, also where another address stands in for them; `None` where an earlier version wrote it.
    #[serde(default)]
    pub chosen: Option<Kept>,
}

/// How the segments of a session are signed. The keys themselves stay on the socket, and are not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    None,
    Md5,
    Ao,
}

/// Why a text is no session. Nothing of it was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptFault {
    #[error(transparent)]
    Text(#[from] TextFault),
    #[error("its content cannot be read: {0}")]
    Content(String),
    #[error("its content makes no sense: {0}")]
    Nonsense(&'static str),
}

/// The most octets of a text. A million routes take about 25 MB.
pub const LONGEST: usize = 256 << 20;

const FORMAT: &str = "crier-bgp-session";
const VERSION: u32 = 1;

/// What a connection may have read or queued at most.
const MOST_UNREAD: usize = 128 << 10;
const MOST_UNWRITTEN: usize = 256 << 10;

/// More than any hold time, and than twice any.
const LONGEST_TIMER: Duration = Duration::from_secs(2 * 65535);

impl KeptSession {
    /// The text, of at most [`LONGEST`] octets.
    ///
    /// # Errors
    /// A text: there are too many routes, or a value has no form in JSON, which is a bug in crier.
    pub fn emit(&self) -> Result<Vec<u8>, String> {
        let content = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        let text = kept_text::write(FORMAT, VERSION, &content);
        if text.len() > LONGEST {
            return Err(format!("it takes {} octets, and at most {LONGEST} are kept", content.len()));
        }
        Ok(text)
    }

    /// Reads what [`KeptSession::emit`] wrote, of this version or an earlier one. Never panics, whatever the octets.
    pub fn parse(text: &[u8]) -> Result<KeptSession, KeptFault> {
        KeptSession::parse_content(kept_text::read(FORMAT, VERSION, text)?)
    }

    /// Reads what stands behind the first line. Never panics, whatever the octets.
    pub fn parse_content(content: &[u8]) -> Result<KeptSession, KeptFault> {
        let kept: KeptSession =
            serde_json::from_slice(content).map_err(|error| KeptFault::Content(error.to_string()))?;
        kept.check().map_err(KeptFault::Nonsense)?;
        Ok(kept)
    }

    /// What the machine and the connection rely on.
    fn check(&self) -> Result<(), &'static str> {
        let Negotiated { local_asn, peer_asn, hold_time, keepalive_time, max_message_len, .. } = self.negotiated;
        let holds = |is_so: bool, otherwise| if is_so { Ok(()) } else { Err(otherwise) };
        holds(self.remote.ip() == self.address.ip, "the connection is not with the address of the peer")?;
        holds(local_asn != 0 && peer_asn != 0, "an AS number is 0")?;
        let in_range = |time: Duration| (3..=65535).contains(&time.as_secs());
        holds(hold_time.is_none_or(in_range), "the hold time is out of range")?;
        holds(hold_time.is_some() == keepalive_time.is_some(), "hold time and keepalive time are not of one kind")?;
        let shorter = |keepalive: Duration| !keepalive.is_zero() && hold_time.is_some_and(|hold| keepalive < hold);
        holds(keepalive_time.is_none_or(shorter), "the keepalive time is out of range")?;
        holds(hold_time.is_some() == self.standing.timers.is_some(), "hold time and timers are not of one kind")?;
        let bounded = |TimersLeft { hold, keepalive, send_hold }: TimersLeft| {
            [hold, keepalive, send_hold].into_iter().all(|left| left <= LONGEST_TIMER)
        };
        holds(self.standing.timers.is_none_or(bounded), "a timer runs longer than any can")?;
        holds([MAX_MESSAGE_LEN, MAX_EXTENDED_MESSAGE_LEN].contains(&max_message_len), "no session has such messages")?;
        holds(self.unread.len() <= MOST_UNREAD, "more was read ahead than a connection reads")?;
        holds(self.unwritten.len() <= MOST_UNWRITTEN, "more waits to be written than a connection queues")
    }

    /// The keys whose values differ from those of a configuration. Keys that only one of the two versions of crier has do not count.
    pub fn changed_keys<'a>(&self, settings: &BTreeMap<&'a str, Option<String>>) -> Vec<&'a str> {
        let differs = |(key, value): (&&'a str, &Option<String>)| {
            self.settings.get(*key).is_some_and(|kept| kept != value).then_some(*key)
        };
        settings.iter().filter_map(differs).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
