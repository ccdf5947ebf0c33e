#![no_main]
//! cargo +nightly fuzz run bfd

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::bfd_events::run(data));
