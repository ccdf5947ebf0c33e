#![no_main]
//! cargo +nightly fuzz run path_attribute

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::path_attribute(data));
