#![no_main]
//! cargo +nightly fuzz run route_refresh

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::route_refresh(data));
