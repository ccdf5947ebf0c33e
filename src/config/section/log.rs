//! `[log]`: what is logged, to standard error. Floor 1.

use super::{Check, Section, section};
use crate::config::key::{text, word};
use crate::config::syntax;
use crate::config::words::words;

section! {
    /// `[log]`
    pub struct Log = Section::one("log", "What is logged to standard error."), written as Written;
    keys {
        /// A filter as RUST_LOG has it.
        pub level: String = text(
            "level",
            "off, error, warn, info, debug, trace or module=level, separated by commas",
            |text, _| syntax::log_filter(text),
            "The log level, also per module: \"info,crier::bgp=debug\".",
        )
        .default("info"), touches Log;
        pub format: LogFormat = word("format", "The format; \"auto\" writes journal fields under systemd and text elsewhere.")
            .default("auto"), touches Restart;
    }
}

impl Check for Written {}

words! {
    pub enum LogFormat("log format") {
        Auto = "auto",
        Text = "text",
        Json = "json",
    }
}
