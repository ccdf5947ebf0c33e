#![no_main]
//! cargo +nightly fuzz run kept_session

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::kept_session(data));
