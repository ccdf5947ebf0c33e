//! BFD sessions between two agents, written down: the next agent goes on with them, and no router notices. Floor 1.
//! Before it ends, an agent has the peers agree to intervals that outlast the pause (RFC 5880 §6.8.3).

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::Standing;
use crate::address::ScopedAddress;
use crate::kept_text::{self, TextFault};
use crate::names::{InterfaceName, PeerName};

/// A session that is up, and whose peer has agreed to wait, or whose agent has died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPath {
    /// All who share the session.
    pub peers: Vec<PeerName>,
    pub address: ScopedAddress,
    pub device: Option<InterfaceName>,
    pub source: Option<IpAddr>,
    /// Where the configuration gives no source: the address that packets leave from; `None` where the kernel chooses it.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// The address that the packets of the peer come to.
    #[serde(default)]
    pub own_end: Option<IpAddr>,
    pub multihop: bool,
    /// What the UDP port was made from.
    pub source_port: u16,
    pub standing: Standing,
    /// The agent died without a word; `None` where the peer has agreed to wait.
    #[serde(default)]
    pub silence: Option<Silence>,
}

/// Since when a session has sent nothing whose agent has died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// When the last packet was sent, by the clock since boot.
    pub since_boot: Duration,
    /// After how long the peer takes this end for dead: its detection time.
    pub patience: Duration,
}

impl KeptPath {
    /// Whether the peer may still take the session for up. `now` is the time since boot.
    pub fn goes_on(&self, now: Duration) -> bool {
        // A time to come is that of another boot, or damage.
        self.silence.is_none_or(|it| now.checked_sub(it.since_boot).is_some_and(|silent| silent < it.patience))
    }
}

/// Why a text holds no sessions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptFault {
    #[error(transparent)]
    Text(#[from] TextFault),
    #[error("its content cannot be read: {0}")]
    Content(String),
    #[error("a session in it has an interval that no packet can carry")]
    Interval,
}

/// The most octets of a text: some thousand sessions.
pub const LONGEST: usize = 4 << 20;

const FORMAT: &str = "crier-bfd-sessions";
const VERSION: u32 = 1;

/// RFC 5880 §4.1: an interval is a number of microseconds in 32 bits.
const LONGEST_INTERVAL: Duration = Duration::from_micros(u32::MAX as u64);

/// # Errors
/// A text: a value has no form in JSON, which is a bug in crier.
pub fn emit(paths: &[KeptPath]) -> Result<Vec<u8>, String> {
    let content = serde_json::to_vec(paths).map_err(|error| error.to_string())?;
    Ok(kept_text::write(FORMAT, VERSION, &content))
}

/// Reads what [`emit`] wrote, of this version or an earlier one. Never panics, whatever the octets.
pub fn parse(text: &[u8]) -> Result<Vec<KeptPath>, KeptFault> {
    let content = kept_text::read(FORMAT, VERSION, text)?;
    let paths: Vec<KeptPath> =
        serde_json::from_slice(content).map_err(|error| KeptFault::Content(error.to_string()))?;
    let fits = |path: &KeptPath| path.standing.intervals().into_iter().all(|interval| interval <= LONGEST_INTERVAL);
    if paths.iter().all(fits) { Ok(paths) } else { Err(KeptFault::Interval) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::bfd::machine::Remote;
    use crate::bfd_state::{BfdState, Diagnostic};

    pub(in crate::bfd) fn path() -> KeptPath {
        let remote = Remote {
            state: BfdState::Up,
            diagnostic: Diagnostic::None,
            discriminator: NonZeroU32::new(7),
            required_min_rx: Duration::from_millis(100),
            desired_min_tx: Duration::from_millis(100),
            multiplier: 5,
            demand: false,
        };
        KeptPath {
            peers: vec!["tor".into()],
            address: ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None },
            device: None,
            source: None,
            from: Some("10.0.0.11".parse().unwrap()),
            own_end: Some("10.0.0.11".parse().unwrap()),
            multihop: false,
            source_port: 1,
            standing: Standing {
                discriminator: NonZeroU32::MIN,
                diagnostic: Diagnostic::None,
                remote,
                transmit: Duration::from_secs(2),
                receive: Duration::from_secs(3),
                sequence: 9,
            },
            silence: None,
        }
    }

    #[test]
    fn a_session_whose_agent_died_goes_on_for_the_detection_time_of_the_peer_and_one_that_rests_always() {
        let [sent, patience] = [100_000, 900].map(Duration::from_millis);
        let at = |millis| sent + Duration::from_millis(millis);
        let dead = KeptPath { silence: Some(Silence { since_boot: sent, patience }), ..path() };
        assert!(dead.goes_on(at(0)) && dead.goes_on(at(899)));
        assert!(!dead.goes_on(at(900)), "the peer has noticed");
        assert!(!dead.goes_on(Duration::from_secs(1)), "the time is that of another boot");
        assert!(path().goes_on(at(900)));
        assert_eq!(parse(&emit(std::slice::from_ref(&dead)).unwrap()), Ok(vec![dead]));
    }

    /// Input: what a crier wrote that knew nothing of crashes.
    #[test]
    fn a_text_of_before_is_read() {
        let text = String::from_utf8(emit(&[path()]).unwrap()).unwrap();
        let (_, content) = text.split_once('\n').unwrap();
        let former = content.replace(",\"silence\":null", "");
        assert_ne!(former, content);
        assert_eq!(parse(&kept_text::write(FORMAT, VERSION, former.as_bytes())), Ok(vec![path()]));
    }

    #[test]
    fn what_was_written_is_read_and_what_was_changed_cut_off_or_makes_no_sense_is_refused() {
        let text = emit(&[path(), path()]).expect("it has a form");
        assert_eq!(parse(&text), Ok(vec![path(), path()]));
        for place in 0..text.len() {
            assert!(parse(&text[..place]).is_err(), "cut off at {place}");
            let mut flipped = text.clone();
            flipped[place] ^= 1;
            assert!(parse(&flipped).is_err(), "octet {place}");
        }
        let mut endless = path();
        endless.standing.transmit = Duration::MAX;
        assert_eq!(parse(&emit(&[endless]).unwrap()), Err(KeptFault::Interval));
        let later = kept_text::write(FORMAT, 2, b"[]");
        assert!(parse(&later).expect_err("version 2").to_string().starts_with("it has version 2"));
    }
}
