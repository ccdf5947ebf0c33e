//! Authentication of BFD packets by keyed SHA-1 and meticulous keyed SHA-1 (RFC 5880 §6.7.4). Floor 1.
//! SHA-1 is what the RFC has; it stops mistakes and strangers, and nobody should take it for more.

use std::fmt;
use std::time::{Duration, Instant};

use ring::digest;

/// Where the section is in a packet: behind the mandatory part, which has 24 octets (RFC 5880 §4.1).
pub const SECTION_AT: usize = 24;

/// What an authentication section of SHA-1 says beside the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha1 {
    /// The sequence number grows with every packet, so that none can be played back.
    pub meticulous: bool,
    pub key_id: u8,
    pub sequence: u32,
}

/// Octets of the digest, and the most that a key has.
pub const DIGEST_LEN: usize = 20;

/// Where the digest is in a packet: behind type, length, id, a reserved octet and the sequence number.
const DIGEST_AT: usize = SECTION_AT + 8;

/// The key of a session. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// RFC 5880 §6.7.4: "padded with trailing zero bytes".
    padded: [u8; DIGEST_LEN],
    pub meticulous: bool,
    pub id: u8,
}

impl Key {
    /// `None` for a secret that is empty or longer than [`DIGEST_LEN`] octets.
    pub fn new(secret: &[u8], meticulous: bool, id: u8) -> Option<Key> {
        let mut padded = [0; DIGEST_LEN];
        let room = padded.get_mut(..secret.len()).filter(|room| !room.is_empty())?;
        room.copy_from_slice(secret);
        Some(Key { padded, meticulous, id })
    }

    /// Puts the digest into a packet that has room for it; leaves a shorter one as it is.
    pub(super) fn sign(&self, octets: &mut [u8]) {
        let Some(room) = octets.get_mut(DIGEST_AT..DIGEST_AT + DIGEST_LEN) else { return };
        room.copy_from_slice(&self.padded);
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets);
        if let Some(room) = octets.get_mut(DIGEST_AT..DIGEST_AT + DIGEST_LEN) {
            room.copy_from_slice(digest.as_ref());
        }
    }

    /// Whether the digest of a packet is right. `octets` may go on behind the packet.
    pub(super) fn verifies(&self, octets: &[u8]) -> bool {
        let Some(len) = octets.get(3).map(|len| usize::from(*len)) else { return false };
        let (Some(packet), Some(claimed)) = (octets.get(..len), octets.get(DIGEST_AT..DIGEST_AT + DIGEST_LEN)) else {
            return false;
        };
        let mut signed = packet.to_vec();
        self.sign(&mut signed);
        let right = signed.get(DIGEST_AT..DIGEST_AT + DIGEST_LEN).unwrap_or_default();
        // Every octet is looked at, whichever is wrong: the time taken says nothing of the digest.
        right.len() == claimed.len() && right.iter().zip(claimed).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, ..)", self.id)
    }
}

/// Which sequence number the peer sent last: RFC 5880 §6.8.1, bfd.RcvAuthSeq and bfd.AuthSeqKnown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard(Option<(u32, Instant)>);

impl Heard {
    /// Whether a packet of this number may be taken: not older than the last, and not too far ahead. `forget_after` is twice the
    /// detection time, after which any number may come (§6.8.1).
    pub(super) fn accepts(&self, section: Sha1, multiplier: u8, forget_after: Duration, now: Instant) -> bool {
        let Some((last, _)) = self.0.filter(|(_, at)| now < *at + forget_after) else { return true };
        let least = if section.meticulous { 1 } else { 0 };
        // Both ends of the range in a circle of 32 bits.
        let ahead = section.sequence.wrapping_sub(last);
        (least..=3 * u32::from(multiplier)).contains(&ahead)
    }

    pub(super) fn note(&mut self, sequence: u32, now: Instant) {
        self.0 = Some((sequence, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_key_has_one_to_twenty_octets_and_is_not_printed() {
        assert!(Key::new(b"", false, 1).is_none());
        assert!(Key::new(&[b'k'; 21], false, 1).is_none());
        let key = Key::new(&[b'k'; 20], true, 7).expect("twenty octets fit");
        assert_eq!(format!("{key:?}"), "Key(7, ..)");
    }

    #[test]
    fn a_change_of_any_octet_and_another_key_break_the_digest() {
        let key = Key::new(b"right", false, 1).unwrap();
        let mut packet = vec![0x20, 0xc4, 3, 52];
        packet.extend([1; 20]);
        packet.extend([4, 28, 1, 0, 0, 0, 0, 9]);
        packet.extend([0; DIGEST_LEN]);
        key.sign(&mut packet);
        assert!(key.verifies(&packet));
        packet.push(0);
        assert!(key.verifies(&packet), "what follows the packet is not a part of it");
        packet.pop();
        assert!(!Key::new(b"wrong", false, 1).unwrap().verifies(&packet));
        for at in 0..packet.len() {
            packet[at] ^= 0x80;
            assert!(!key.verifies(&packet), "octet {at}");
            packet[at] ^= 0x80;
        }
        for len in 0..packet.len() {
            assert!(!key.verifies(&packet[..len]));
        }
    }

    #[test]
    fn sequence_numbers_go_forward_in_a_circle_and_not_far() {
        let now = clock::now();
        let window = Duration::from_secs(1);
        let section = |meticulous, sequence| Sha1 { meticulous, key_id: 1, sequence };
        let mut heard = Heard::default();
        assert!(heard.accepts(section(true, 12345), 3, window, now), "the first may be any");
        heard.note(u32::MAX - 1, now);
        for (sequence, keyed, meticulous) in [
            (u32::MAX - 2, false, false),
            (u32::MAX - 1, true, false),
            (u32::MAX, true, true),
            (0, true, true),
            (7, true, true),
            (8, false, false),
        ] {
            assert_eq!(heard.accepts(section(false, sequence), 3, window, now), keyed, "keyed {sequence}");
            assert_eq!(heard.accepts(section(true, sequence), 3, window, now), meticulous, "meticulous {sequence}");
        }
        assert!(heard.accepts(section(true, 99), 3, window, now + window), "after a long silence any number may come");
    }
}
