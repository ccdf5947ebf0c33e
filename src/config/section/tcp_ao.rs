//! `tcp-ao` of a peer: the keys that sign its session. Floor 1.

use super::{Check, Section, section};
use crate::config::complaint::Place;
use crate::config::key::{number, secret, word};
use crate::config::reader::Reader;
use crate::config::secrets::SecretFile;
use crate::config::words::words;

/// Octets of a key of TCP MD5 or TCP-AO, `TCP_MD5SIG_MAXKEYLEN` and `TCP_AO_MAXKEYLEN` of Linux.
pub const LONGEST_PASSWORD: usize = 80;

section! {
    /// One entry of `tcp-ao`: a master key tuple of RFC 5925 §3.1.
    #[derive(Eq)]
    pub struct AoKey = Section::many(
        "bgp.peer.tcp-ao",
        "Authenticate the session by TCP-AO (RFC 5925) and drop everything else. The first key signs what is sent; all \
         keys are accepted. Excludes password-file. Needs Linux 6.7.",
    ), written as Written;
    keys {
        /// The KeyID that our segments carry.
        pub send_id: u8 = number("send-id", "", 0, 255, "The KeyID on segments to the peer: its receive-id.").set("1"), touches Session;
        /// The KeyID that the peer's segments carry.
        pub receive_id: u8 =
            number("receive-id", "", 0, 255, "The KeyID on segments from the peer: its send-id.").set("1"), touches Session;
        pub algorithm: AoAlgorithm =
            word("algorithm", "The algorithm of the message authentication code (RFC 5926).").default("hmac-sha-1-96"), touches Session;
        /// 1 to [`LONGEST_PASSWORD`] octets.
        pub secret: SecretFile = secret(
            "key-file",
            LONGEST_PASSWORD,
            "The file with the key, 80 octets at most. A systemd credential with the name of the file takes precedence.",
        )
        .set("\"/etc/crier/tor.ao\""), touches Session;
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        let (Some(send_id), Some(receive_id)) = (self.send_id.value, self.receive_id.value) else { return };
        let taken = |(send, receive, _): &&(u8, u8, Place)| *send == send_id || *receive == receive_id;
        // RFC 5925 §3.1: the ids of one connection's keys must not overlap.
        if let Some((_, _, first)) = section.seen.ao_ids.iter().find(taken).cloned() {
            let hint = "use different IDs for each key of a peer";
            section.conflict(
                &section.header(),
                "two keys have the same send-id or receive-id",
                hint,
                (&first, "the first is here"),
            );
        }
        section.seen.ao_ids.push((send_id, receive_id, section.header()));
    }
}

words! {
    /// The algorithms of RFC 5926, both cut to 96 bits.
    pub enum AoAlgorithm("algorithm of TCP-AO") {
        HmacSha1 = "hmac-sha-1-96",
        Aes128Cmac = "aes-128-cmac-96",
    }
}
