//! The key that authenticates the pulses of this node, and the keys that are accepted. Floor 1, a part of the packet.

use std::fmt;

use ring::hmac;

use crate::roster::KeyId;

/// A key that authenticates the pulses of one cluster. Never printed.
#[derive(Clone)]
pub struct Key {
    /// Absent: pulses are neither authenticated nor checked.
    pub(super) seal: Option<hmac::Key>,
    /// Names the key in a pulse.
    pub(super) id: KeyId,
}

impl Key {
    /// The least length of a key in octets; a shorter one could be guessed.
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
        Some(Key { seal: Some(seal), id: KeyId(id) })
    }

    /// No key: pulses of every host on the link are accepted.
    pub fn none() -> Key {
        Key { seal: None, id: KeyId::NONE }
    }

    pub fn id(&self) -> KeyId {
        self.id
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

/// The key of the cluster, and former ones that are accepted beside it while the key is changed node by node.
#[derive(Debug, Clone)]
pub struct Keys {
    newest: Key,
    old: Vec<Key>,
}

/// How many keys one node accepts.
pub const MOST_KEYS: usize = 8;

impl Keys {
    /// `old` counts only beside a key that seals: who accepts everything needs no old key. Of more than [`MOST_KEYS`] the
    /// last ones are left out, and so is a key that is named twice.
    pub fn new(newest: Key, old: Vec<Key>) -> Keys {
        let mut keys = Keys { newest, old: Vec::new() };
        for key in old {
            let known = keys.accepted().any(|it| it.id == key.id);
            if !known && !keys.newest.is_none() && keys.old.len() + 1 < MOST_KEYS {
                keys.old.push(key);
            }
        }
        keys
    }

    /// Pulses are neither sealed nor checked.
    pub fn is_none(&self) -> bool {
        self.newest.is_none()
    }

    /// The newest in front.
    pub fn accepted(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.newest).chain(&self.old)
    }

    /// The names of all that are accepted, the newest in front.
    pub fn ids(&self) -> Vec<KeyId> {
        self.accepted().map(Key::id).collect()
    }

    /// The key of that name; the newest where none of these has it.
    pub fn of(&self, id: KeyId) -> &Key {
        self.accepted().find(|key| key.id == id).unwrap_or(&self.newest)
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Keys {
        Keys::new(key, Vec::new())
    }
}
