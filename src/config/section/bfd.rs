//! `[[bfd]]`: profiles of BFD timers for peers. Floor 1. No BFD session is run yet.

use std::num::NonZeroU8;
use std::time::Duration;

use super::{Check, Section, section};
use crate::config::key::{duration, name, number};

/// What keys of BFD wait for.
pub const BFD: &str = "BFD";

const LEAST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(60);

section! {
    /// `[[bfd]]`
    pub struct BfdProfile = Section::many("bfd", "A profile of BFD timers, for peers to name.").not_yet(BFD),
    written as Written;
    keys {
        pub name: String = name("name", "The name that peers use."), touches Restart;
        pub receive_interval: Duration =
            duration("receive-interval", LEAST, MOST, "The shortest time between packets that the peer may send.")
                .default("300ms"), touches Restart;
        pub transmit_interval: Duration =
            duration("transmit-interval", LEAST, MOST, "The time between packets to the peer.").default("300ms"), touches Restart;
        pub multiplier: NonZeroU8 =
            number("multiplier", "", 1, 255, "How many packets in a row must be missing before the peer counts as down.")
                .default(3), touches Restart;
        pub minimum_ttl: u8 =
            number("minimum-ttl", "", 1, 255, "On multihop sessions, packets with a lower TTL are dropped.").default(254), touches Restart;
    }
}

impl Check for Written {}
