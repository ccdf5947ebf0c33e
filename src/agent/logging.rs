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
    let parsed = filter.parse().map_err(|error: ParseError| refuse(error.to_string()))?;
    Ok(without_answers(parsed))
}

/// kube's client warns of an answer that it cannot read with all of it, whoever gave it and whatever is in it: a login page of a proxy
/// would fill the log, and write lines that look like crier's own. crier says itself what failed. Who asks for more of kube gets it.
fn without_answers(filter: Targets) -> Targets {
    const CLIENT: &str = "kube_client::client";
    let level = filter.default_level().unwrap_or(LevelFilter::OFF);
    let asks_for_more = level > LevelFilter::INFO || filter.iter().any(|(target, _)| target.starts_with("kube"));
    if asks_for_more {
        return filter;
    }
    let tls = format!("{CLIENT}::tls");
    filter.with_target(CLIENT, level.min(LevelFilter::ERROR)).with_target(tls, level)
}

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
    use tracing::Level;

    use super::*;

    /// Input: a proxy answers every request with a login page.
    #[test]
    fn an_answer_that_is_no_json_is_not_logged_whole_unless_somebody_asks_for_that() {
        let client = "kube_client::client";
        for (filter, expected) in [
            ("info", false),
            ("warn", false),
            ("info,crier::bgp=debug", false),
            ("debug", true),
            ("info,kube_client=warn", true),
            ("info,kube=debug,kube_client::client=warn", true),
        ] {
            let parsed = parse(filter).expect(filter);
            assert_eq!(parsed.would_enable(client, &Level::WARN), expected, "{filter}");
            assert!(parsed.would_enable("kube_client::client::tls", &Level::WARN), "{filter}");
            assert!(parsed.would_enable("crier::agent", &Level::WARN), "{filter}");
        }
        assert!(parse("info").expect("a level").would_enable(client, &Level::ERROR));
        assert!(!parse("off").expect("a level").would_enable(client, &Level::ERROR));
    }

    #[test]
    fn a_filter_is_levels_for_all_and_for_modules() {
        for good in ["info", "crier::bgp=debug,info", "off", "warn,crier=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let told = |bad: &str| parse(bad).expect_err(bad).to_string();
        assert!(told("debgu").contains("\"debgu\" is no level; write a level such as debug"), "{}", told("debgu"));
        assert!(told("info,crier::bgp=loud").contains("\"info,crier::bgp=loud\" is no log filter"));
    }
}
