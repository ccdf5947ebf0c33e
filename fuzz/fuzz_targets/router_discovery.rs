#![no_main]
//! cargo +nightly fuzz run router_discovery

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::router_discovery(data));
