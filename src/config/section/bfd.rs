//! `[[bfd]]`: profiles of BFD for peers to name. Floor 1.

use std::num::NonZeroU8;
use std::time::Duration;

use super::{Check, Section, section};
use crate::config::key::{duration, flag, name, number, secret, word};
use crate::config::reader::Reader;
use crate::config::secrets::SecretFile;
use crate::config::seen::unique;
use crate::config::words::words;

const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(60);

section! {
    /// `[[bfd]]`
    pub struct BfdProfile = Section::many(
        "bfd",
        "A profile of BFD (RFC 5880), for peers to name: detects a dead path to the router within a fraction of a second.",
    ),
    written as Written;
    keys {
        pub name: String = name("name", "The name that peers use.").set("\"fast\""), touches Decisions;
        pub receive_interval: Duration =
            duration("receive-interval", LEAST, MOST, "The shortest time between packets that the peer may send.")
                .default("300ms")
                .trade("Shorter notices a dead path sooner; too short takes a busy router or a burst of loss for a dead path."), touches Decisions;
        pub transmit_interval: Duration = duration(
            "transmit-interval",
            LEAST,
            MOST,
            "The time between packets to the peer. The longer of this and what the peer accepts applies.",
        )
        .default("300ms"), touches Decisions;
        pub multiplier: NonZeroU8 = number(
            "multiplier",
            "",
            1,
            255,
            "How many of our packets in a row the peer must miss before it counts the path as dead. This node uses the \
             multiplier of the peer.",
        )
        .default(3), touches Decisions;
        pub minimum_ttl: u8 = number(
            "minimum-ttl",
            "",
            1,
            255,
            "On a multihop session, packets that arrive with a lower TTL are dropped. On a single hop it is always 255.",
        )
        .default(254), touches Decisions;
        /// Send nothing before the peer was heard.
        pub passive: bool = flag("passive", false, "Send nothing until the peer has sent a packet.")
            .trade("Two passive ends never come up."), touches Decisions;
        /// The key of [`BfdProfile::authentication`], of 1 to 20 octets.
        pub key: Option<SecretFile> = secret(
            "key-file",
            LONGEST_KEY,
            "The file with the key that authenticates packets, 20 octets at most. The peer must have the same key. A systemd \
             credential with the name of the file takes precedence.",
        )
        .optional("no authentication")
        .shown("\"/etc/crier/bfd.key\""), touches Decisions;
        pub key_id: u8 = number("key-id", "", 0, 255, "The number of the key, the same at both ends.").default(1), touches Decisions;
        /// A former key, which the peer may use still.
        pub old_key: Option<SecretFile> = secret(
            "old-key-file",
            LONGEST_KEY,
            "The file with a former key, which is accepted too, and used towards a peer that uses it, while the key is changed. Without \
             it, a former key is accepted for ten minutes after a reload.",
        )
        .optional("none")
        .shown("\"/etc/crier/bfd.old.key\""), touches Decisions;
        pub old_key_id: u8 = number("old-key-id", "", 0, 255, "The number of the former key.").default(1), touches Decisions;
        pub authentication: BfdAuthentication = word(
            "authentication",
            "How packets are authenticated where there is a key (RFC 5880 §6.7.4). The peer must be configured alike.",
        )
        .default("meticulous-keyed-sha1")
        .trade("With keyed-sha1, a recorded packet of the session can be played back while the session lasts."), touches Decisions;
    }
}

words! {
    /// What authenticates the packets of a session that has a key.
    pub enum BfdAuthentication("authentication of BFD") {
        KeyedSha1 = "keyed-sha1",
        /// Each packet has a sequence number of its own.
        MeticulousKeyedSha1 = "meticulous-keyed-sha1",
    }
}

/// RFC 5880 §6.7.4: octets of a key.
const LONGEST_KEY: usize = 20;

/// What `key-id` is without being set.
const KEY_ID: u8 = 1;

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        unique(section, "profile", &self.name, |seen| &mut seen.bfd);
        let keyless = self.key.value == Some(None);
        if keyless && self.old_key.value.as_ref().is_some_and(Option::is_some) {
            let message = "old-key-file without key-file: no packet is authenticated";
            section.complain(&self.old_key.place, message, "name the new key in key-file");
        }
        let is_without_old = self.old_key.value == Some(None);
        if is_without_old && self.old_key_id.value.is_some_and(|it| it != KEY_ID) {
            let message = "without old-key-file, there is no former key";
            section.complain(&self.old_key_id.place, message, "add old-key-file, or remove this key");
        }
        // What `crier config show` prints, which is the default, is none.
        let (id, authentication) = (self.key_id.value, self.authentication.value);
        let unused = [
            (id.is_some_and(|it| it != KEY_ID), &self.key_id.place),
            (authentication.is_some_and(|it| it != BfdAuthentication::MeticulousKeyedSha1), &self.authentication.place),
        ];
        for (_, place) in unused.into_iter().filter(|(is_set, _)| *is_set && keyless) {
            let message = "without key-file, no packet is authenticated";
            section.complain(place, message, "add key-file, or remove this key");
        }
    }
}
