//! What seals the pulses of one cluster, and which seals are accepted. Floor 1, a part of the packet.

use std::fmt;

use ring::hmac;

/// What seals the pulses of one cluster. Never printed.
#[derive(Clone)]
pub struct Key {
    /// Absent: pulses are neither sealed nor checked.
    pub(super) seal: Option<hmac::Key>,
    /// Names the key in a pulse; 0: no key.
    pub(super) id: u32,
}

impl Key {
    /// The fewest octets that are a key and no password that can be guessed.
    pub const LEAST: usize = 16;

    /// `None` where the secret is shorter than [`Key::LEAST`].
    pub fn of_secret(secret: &[u8]) -> Option<Key> {
        if secret.len() < Key::LEAST {
            return None;
        }
        let seal = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // Says which key it is and nothing else about it; 0 is no key.
        let named = hmac::sign(&seal, b"crier pulse key id");
        let id = named.as_ref().iter().take(4).fold(0, |id: u32, octet| (id << 8) | u32::from(*octet)).max(1);
        Some(Key { seal: Some(seal), id })
    }

    /// No key: everybody on the link is believed.
    pub fn none() -> Key {
        Key { seal: None, id: 0 }
    }

    pub fn is_none(&self) -> bool {
        self.seal.is_none()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Key(none)" } else { "Key(...)" })
    }
}

/// The key that seals, and those that are accepted beside it while a key is changed node by node.
#[derive(Debug, Clone)]
pub struct Keys {
    sealing: Key,
    old: Vec<Key>,
}

impl Keys {
    /// `old` counts only beside a key that seals: who accepts everything needs no old key.
    pub fn new(sealing: Key, old: Vec<Key>) -> Keys {
        let old = if sealing.is_none() { Vec::new() } else { old };
        Keys { sealing, old }
    }

    pub fn sealing(&self) -> &Key {
        &self.sealing
    }

    pub fn accepted(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.sealing).chain(&self.old)
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Keys {
        Keys::new(key, Vec::new())
    }
}
