#![no_main]
//! cargo +nightly fuzz run peer_events

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::peer_events::run(data));
