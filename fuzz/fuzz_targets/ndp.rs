#![no_main]
//! cargo +nightly fuzz run ndp

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::ndp(data));
