#![no_main]
//! cargo +nightly fuzz run nftables

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::nftables(data));
