//! The log: levels, format, and what systemd's journal wants. Floor 3.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::clock;
use crate::config::LogFormat;

/// The filter is no list of levels, each for all or for a module: `info,crier::bgp=debug`.
#[derive(Debug, thiserror::Error)]
#[error("\"{filter}\" is no log filter: {why}; write a level such as debug, or crier::bgp=debug,info")]
pub struct FilterError {
    filter: String,
    why: String,
}

/// Changes what is logged while the agent runs.
#[derive(Debug, Clone)]
pub struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// Logs what this filter takes from now on.
    pub fn set(&self, filter: &str) -> Result<(), FilterError> {
        let parsed = parse(filter)?;
        // It fails only after the log has ended.
        let _ = self.0.reload(parsed);
        Ok(())
    }
}

fn parse(filter: &str) -> Result<Targets, FilterError> {
    let refuse = |why| FilterError { filter: filter.to_owned(), why };
    // Of itself a level with a typo would be taken for a module, and nothing logged.
    let no_level = |word: &&str| !word.contains('=') && word.parse::<LevelFilter>().is_err();
    if let Some(word) = filter.split(',').find(no_level) {
        return Err(refuse(format!("\"{word}\" is no level")));
    }
    let parsed: Targets = filter.parse().map_err(|error: ParseError| refuse(error.to_string()))?;
    // What it warns of it also answers with, and crier tells that; but it writes whole answers, as of a proxy, with their lines and escapes.
    let is_named = filter.split(',').any(|word| word.starts_with(KUBE));
    let is_off = parsed.default_level().is_none_or(|level| level == LevelFilter::OFF);
    Ok(if is_named || is_off { parsed } else { parsed.with_target(KUBE, LevelFilter::ERROR) })
}

/// The crate that speaks with the API server. It logs what it cannot read; where the filter names it, that is wanted.
const KUBE: &str = "kube_client";

/// Starts the log, to standard error. Call once.
pub fn start(filter: &str, format: LogFormat) -> Result<LogControl, FilterError> {
    let (parsed, control) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(parsed);
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A log that was started before stays as it is: tests of one process share it.
    let _ = match format {
        LogFormat::Json => registry.with(text.json().with_timer(Rfc3339).flatten_event(true)).try_init(),
        // The journal has its own clock.
        LogFormat::Auto if in_journal => registry.with(text.with_ansi(false).without_time()).try_init(),
        LogFormat::Auto | LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(text.with_ansi(colour).with_timer(Rfc3339)).try_init()
        }
    };
    Ok(LogControl(control))
}

struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        match jiff::Timestamp::try_from(clock::wall()) {
            Ok(now) => write!(writer, "{now:.6}"),
            Err(_) => writer.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_for_all_and_for_modules() {
        for good in ["info", "crier::bgp=debug,info", "off", "warn,crier=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        // R12 of a review: a login page of a proxy was in the log, with lines that looked like crier's own.
        let warns = |filter: &str| parse(filter).unwrap().would_enable("kube_client::client", &tracing::Level::WARN);
        assert_eq!(["info", "debug", "kube_client=warn,info"].map(warns), [false, false, true]);
        assert!(!parse("off").unwrap().would_enable("crier::bgp", &tracing::Level::ERROR));
        let told = |bad: &str| parse(bad).expect_err(bad).to_string();
        assert!(told("debgu").contains("\"debgu\" is no level; write a level such as debug"), "{}", told("debgu"));
        assert!(told("info,crier::bgp=loud").contains("\"info,crier::bgp=loud\" is no log filter"));
    }
}
