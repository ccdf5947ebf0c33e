#![no_main]
//! cargo +nightly fuzz run prefix

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::prefix(data));
