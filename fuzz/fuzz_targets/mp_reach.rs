#![no_main]
//! cargo +nightly fuzz run mp_reach

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::mp_reach(data));
