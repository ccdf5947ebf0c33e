#![no_main]
//! cargo +nightly fuzz run frame

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::frame(data));
