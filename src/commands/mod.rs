//! The verbs of the command line, one file each. Floor 4: the only place that prints.

#![deny(clippy::print_stderr)]

/// A line on standard error. Where it cannot be written nobody is left to tell, and the exit code stays what it is: `eprintln!` would end
/// the process by a signal.
macro_rules! tell {
    ($($text:tt)*) => { $crate::commands::to_stderr(format_args!("{}\n", format_args!($($text)*))) };
}

mod administrator;
mod bfd;
mod bgp;
mod cleanup;
mod config;
mod doctor;
mod drain;
mod egress;
mod install;
mod kubeconfig;
mod l2;
mod man;
mod migrate;
mod moving;
mod plan;
mod rbac;
mod renumber;
mod run;
mod status;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::{SpanRound, Timestamp, Unit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::order::{Done, Wish};
use crate::api::client::{self, AskError};
use crate::api::filter::Filter;
use crate::api::readings::Reading;
use crate::clock;
use crate::config::load::LoadError;
use crate::names::ObjectKey;

/// How a command ended. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Fine, or nothing to change.
    Fine = 0,
    /// A problem was found, or changes are there.
    Problem = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// No agent answers.
    NotReachable = 3,
    TimedOut = 4,
}

impl Exit {
    /// How a command ends that printed what it found.
    fn with_problems(self, any: bool) -> Exit {
        match self {
            Exit::Fine if any => Exit::Problem,
            exit => exit,
        }
    }

    /// How a command ends that printed what is wrong with a file.
    fn or_usage(self) -> Exit {
        match self {
            Exit::Fine => Exit::Usage,
            exit => exit,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Service type LoadBalancer on bare metal: allocates addresses, announces them, and can say why.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 fine, 1 problem found, 2 usage or configuration error, 3 agent not reachable, 4 timed out.\n\n\
                  Examples:\n  crier config check /etc/crier/crier.toml\n  crier run --config /etc/crier/crier.toml\n  crier status"
)]
pub struct Arguments {
    /// The Unix socket of the agent; with `run` it overrides [api] socket [env: CRIER_SOCKET=] [default: /run/crier/crier.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent on this node
    Run(run::Run),
    /// Show node, API server, pools, peers, addresses and problems of the running agent
    Status(Output),
    /// Show BGP peers and the routes they are sent; reset, refresh, shut down or enable a session
    #[command(subcommand)]
    Bgp(bgp::Bgp),
    /// Show the BFD sessions with BGP peers: state, times, and why they were lost
    Bfd(bfd::Bfd),
    /// Show who answers for which address on the link, since when and why
    L2(l2::L2),
    /// Show from which node and with which source address outbound connections of pods leave
    Egress(Output),
    /// Look for what is wrong with this host and the running agent, and say what to do
    Doctor(Output),
    /// Show what a configuration would change in the running cluster, before anybody uses it
    Plan(plan::Plan),
    /// Give a Service another address, and announce the old one beside it for a while
    Renumber(renumber::Renumber),
    /// Move the addresses of a Service to another node of the link, without a gap
    Move(moving::Move),
    /// Take this node out: traffic goes to other nodes first, then its addresses and routes
    Drain(drain::Drain),
    /// Return a drained node to service
    Undrain,
    /// Check, print, compare or apply a configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Write a configuration from the objects of MetalLB, OpenELB, PureLB or kube-vip
    Migrate(migrate::Migrate),
    /// Print the Kubernetes objects that give the agent its rights
    Rbac(rbac::Scope),
    /// Print a kubeconfig for the agent of a node, made with an administrator's
    Kubeconfig(kubeconfig::Kubeconfig),
    /// Put binary, unit, configuration and key of this host in their places, and check the result
    Install(install::Install),
    /// Remove what a stopped agent leaves in the kernel: tables, rules, routes and tunnel of egress, blackhole routes, bound addresses, VRFs
    Cleanup(cleanup::Cleanup),
    /// Print a manual page, for `man -l -`
    Man(man::Man),
    /// A verb that is promised and not there yet is refused by name.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// What every reading verb takes.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Output {
    fn format(self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// Programs find the warnings in the report itself.
    fn warn(self, warnings: &[String]) {
        if !self.is_for_programs() {
            warn(warnings);
        }
    }

    fn is_for_programs(self) -> bool {
        match self.format() {
            Format::Table | Format::Wide => false,
            Format::Json | Format::Yaml => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    /// A table with everything
    Wide,
    Json,
    Yaml,
}

const SOCKET_VARIABLE: &str = "CRIER_SOCKET";

/// Where the agent listens unless `[api] socket` says otherwise.
const DEFAULT_SOCKET: &str = "/run/crier/crier.sock";

/// The verbs of the design that this version does not have.
const NOT_AVAILABLE_YET: [&str; 9] =
    ["explain", "get", "history", "events", "replay", "top", "capture", "bundle", "completion"];

/// Runs the verb that was asked for.
pub fn dispatch(arguments: Arguments) -> Exit {
    let Arguments { socket, verb } = arguments;
    // The variable says where to ask; where the agent listens is said on its own command line or in its file.
    let named = socket.clone();
    let socket = socket.or_else(|| std::env::var_os(SOCKET_VARIABLE).filter(|it| !it.is_empty()).map(PathBuf::from));
    let socket = socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    match verb {
        Verb::Run(run) => run::run(run, named),
        Verb::Status(output) => status::status(&socket, output),
        Verb::Bgp(verb) => bgp::bgp(&socket, verb),
        Verb::Bfd(verb) => bfd::bfd(&socket, verb),
        Verb::L2(verb) => l2::l2(&socket, verb),
        Verb::Egress(output) => egress::egress(&socket, output),
        Verb::Doctor(output) => doctor::doctor(&socket, output),
        Verb::Plan(arguments) => plan::plan(&socket, &arguments),
        Verb::Renumber(arguments) => renumber::renumber(&socket, &arguments),
        Verb::Move(arguments) => moving::relocate(&socket, &arguments),
        Verb::Drain(arguments) => drain::drain(&socket, arguments),
        Verb::Undrain => drain::undrain(&socket),
        Verb::Config(config) => config::config(&socket, config),
        Verb::Migrate(arguments) => migrate::run(&arguments),
        Verb::Rbac(scope) => rbac::rbac(&scope),
        Verb::Kubeconfig(arguments) => kubeconfig::run(&arguments),
        Verb::Install(arguments) => install::run(&arguments),
        Verb::Cleanup(arguments) => cleanup::cleanup(&arguments),
        Verb::Man(arguments) => man::man(&arguments),
        Verb::Other(words) => refuse(words.first().map_or("", String::as_str)),
    }
}

fn refuse(verb: &str) -> Exit {
    if NOT_AVAILABLE_YET.contains(&verb) {
        tell!("crier: \"{verb}\" is not available yet in version {}", env!("CARGO_PKG_VERSION"));
    } else {
        tell!("crier: there is no verb \"{verb}\"; see crier --help");
    }
    Exit::Usage
}

/// Asks the running agent for the part of a reading that `filter` selects.
fn ask<F: Filter, R: DeserializeOwned>(socket: &Path, reading: &Reading<F, R>, filter: &F) -> Result<R, AskError> {
    runtime()?.block_on(client::ask(socket, reading, filter))
}

/// Gives the running agent an order, and prints what became of it.
fn order(socket: &Path, wish: &Wish) -> Exit {
    match runtime().and_then(|runtime| runtime.block_on(client::order(socket, wish))) {
        Ok(Done { schema_version: _, summary, changes, warnings, unconfirmed_until: _ }) => {
            warn(&warnings);
            print(&changes.iter().chain([&summary]).map(|line| table::printable(line) + "\n").collect::<String>())
        }
        Err(error) => refused(&error),
    }
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| tell!("crier: {}", table::printable(warning)));
}

/// Writes to standard error, if that can be done.
fn to_stderr(text: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), text);
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The Service that an argument names.
fn service_named(text: &str) -> Result<ObjectKey, Exit> {
    match text
        .split_once('/')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
    {
        Some((namespace, name)) => Ok(ObjectKey::new(namespace, name)),
        None => {
            tell!("crier: \"{text}\" is not the name of a Service: write namespace and name, \"shop/front\"");
            Err(Exit::Usage)
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, AskError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::CannotStart)
}

/// Says why there is no answer.
fn refused(error: &AskError) -> Exit {
    complain(error);
    exit_of(error)
}

/// What an agent answers has texts of others in it, and must not move anybody's cursor.
fn complain(error: &AskError) {
    tell!("crier: {}", printable_lines(&error.to_string()));
}

/// Prints why a configuration was refused, in colour where somebody is looking.
fn complain_of_files(error: &LoadError) -> Exit {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match error {
        LoadError::Refused(complaints) => to_stderr(format_args!("{}", complaints.render(colour))),
        LoadError::Unreadable { .. }
        | LoadError::NotText { .. }
        | LoadError::SaysNothing { .. }
        | LoadError::NoConfigMap { .. }
        | LoadError::Unseen { .. } => tell!("crier: {error}"),
    }
    Exit::Usage
}

/// A script must not take an agent that dies, or that speaks another language, for one that found a problem.
fn exit_of(error: &AskError) -> Exit {
    match error {
        AskError::NotReachable { .. }
        | AskError::NotPermitted { .. }
        | AskError::Broken { .. }
        | AskError::Refused { .. }
        | AskError::OtherSchema { .. }
        | AskError::Unreadable(_) => Exit::NotReachable,
        AskError::TimedOut { .. } => Exit::TimedOut,
        AskError::NotThere(_) | AskError::NotUnderstood(_) => Exit::Usage,
        AskError::CannotStart(_) | AskError::Declined(_) => Exit::Problem,
    }
}

/// Prints an answer in the requested format. Every reading verb prints through this function, so each has all formats; `screen`
/// is told whether to show everything.
fn answer<T: Serialize>(output: Output, answer: &T, screen: impl FnOnce(bool) -> String) -> Exit {
    let text = match output.format() {
        Format::Table => Ok(printable_lines(&screen(false))),
        Format::Wide => Ok(printable_lines(&screen(true))),
        Format::Json => serde_json::to_string_pretty(answer).map(|json| json + "\n").map_err(|error| error.to_string()),
        Format::Yaml => serde_saphyr::to_string(answer).map_err(|error| error.to_string()),
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => {
            tell!("crier: cannot print the answer: {error}");
            Exit::Problem
        }
    }
}

/// Whatever is in a text for the screen that others wrote, its lines alone are obeyed.
fn printable_lines(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => table::printable(line) + "\n",
            None => table::printable(line),
        })
        .collect()
}

/// Prints a text. A reader that closes the pipe early, as `head` does, is no error.
fn print(text: &str) -> Exit {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Fine,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Fine,
        Err(error) => {
            tell!("crier: cannot write the answer: {error}");
            Exit::Problem
        }
    }
}

/// How long ago, in the two largest units that say something.
fn ago(then: Timestamp) -> String {
    let Ok(now) = Timestamp::try_from(clock::wall()) else { return "-".to_owned() };
    let smallest = if now.duration_since(then).as_secs() < 3600 { Unit::Second } else { Unit::Minute };
    let round = SpanRound::new().largest(Unit::Hour).smallest(smallest);
    match (now - then).round(round) {
        Ok(span) => format!("{span:#}"),
        Err(_) => "-".to_owned(),
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_for_the_screen_is_obeyed_at_the_ends_of_its_lines_alone() {
        assert_eq!(printable_lines("a\u{1b}[2J\nb\u{202e}\n\nc"), "a\\u{1b}[2J\nb\\u{202e}\n\nc");
    }

    #[test]
    fn the_changelog_names_the_verbs_that_are_not_there_yet() {
        use clap::CommandFactory;
        let page = include_str!("../../CHANGELOG.md");
        let line = page.lines().find(|line| line.starts_with("- Not available yet: ")).expect("the page has the line");
        let named: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        assert_eq!(named, NOT_AVAILABLE_YET, "CHANGELOG.md (left) and what is refused (right)");
        for verb in named {
            assert!(Arguments::command().find_subcommand(verb).is_none(), "{verb} is there");
        }
    }

    #[test]
    fn an_agent_that_gives_no_answer_is_told_from_one_that_found_a_problem() {
        let socket = || PathBuf::from("/run/crier/crier.sock");
        let refused = |status| AskError::Refused { status, body: "the agent is stopping".to_owned() };
        let cut_off = || serde_json::from_str::<u32>("{\"schema").unwrap_err();
        for (error, expected) in [
            (
                AskError::NotReachable { socket: socket(), source: std::io::ErrorKind::NotFound.into() },
                Exit::NotReachable,
            ),
            (
                AskError::NotPermitted { socket: socket(), source: std::io::ErrorKind::PermissionDenied.into() },
                Exit::NotReachable,
            ),
            (AskError::Broken { socket: socket(), source: "closed in the middle".into() }, Exit::NotReachable),
            (refused(http::StatusCode::SERVICE_UNAVAILABLE), Exit::NotReachable),
            (AskError::OtherSchema { theirs: 99 }, Exit::NotReachable),
            (AskError::Unreadable(cut_off()), Exit::NotReachable),
            (AskError::TimedOut { socket: socket(), seconds: 5 }, Exit::TimedOut),
            (AskError::NotUnderstood("line 3".to_owned()), Exit::Usage),
            (AskError::NotThere("no such peer".to_owned()), Exit::Usage),
            (AskError::Declined("cannot write".to_owned()), Exit::Problem),
        ] {
            assert_eq!(exit_of(&error), expected, "{error}");
        }
    }
}
