//! `crier config check|show|diff|apply|confirm`: what a configuration says, every mistake in it at once, what it would change in a
//! running agent, and to change it. Floor 4.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::{Exit, Output, answer, ask, order, plan, print, refused, runtime};
use crate::agent::orders::Wish;
use crate::api::readings;
use crate::config::load::Lenience;
use crate::config::{self, SourceFile, Touches, duration, load};
use crate::kernel::observe;
use crate::plan::own_addresses;
use crate::reason::HostUse;
use crate::views::forecast::{ChangeReport, ForecastReport};
use crate::world::World;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration and its conf.d, without touching the running agent
    Check {
        /// The main file, usually /etc/crier/crier.toml
        file: PathBuf,
        /// What the ConfigMap of [kubernetes] config says, or is to say
        #[arg(long, value_name = "FILE")]
        cluster_config: Option<PathBuf>,
        /// Refuse a file whose secrets are not all on this host
        #[arg(long)]
        strict: bool,
    },
    /// Print the configuration in effect, defaults filled in
    Show {
        /// The main file, usually /etc/crier/crier.toml
        file: PathBuf,
    },
    /// Show what `apply` of a file would change: keys, Services, owners, routes and sessions
    #[command(after_help = "Nothing is changed. The drop-ins are those of the running agent.\n\n\
                            Exit codes: 0 nothing would change, 1 something would, 2 FILE is refused, 3 no agent.")]
    Diff {
        /// Takes the place of the agent's main file
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Change the configuration of the running agent; what does not differ is not touched
    #[command(
        after_help = "FILE is checked whole, and replaces the agent's main file; the former is kept beside it as NAME.former.\n\
                            Without FILE the agent reads its files again, as `systemctl reload crier` makes it do.\n\
                            A file with a mistake, or with a change that needs a restart, is refused, and nothing is changed.\n\n\
                            Exit codes: 0 applied, 2 refused, 3 no agent.\n\n\
                            Examples:\n  crier config apply\n  crier config apply new.toml --confirm 60s"
    )]
    Apply {
        /// Takes the place of the agent's main file
        file: Option<PathBuf>,
        /// Put the configuration before back after this time, unless `crier config confirm` comes first
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        confirm: Option<Duration>,
    },
    /// Keep the configuration that was applied with --confirm
    Confirm,
}

pub fn config(socket: &Path, verb: Config) -> Exit {
    match verb {
        Config::Diff { file, output } => diff(socket, &file, output),
        Config::Apply { file, confirm } => apply(socket, file.as_deref(), confirm),
        Config::Confirm => order(socket, &Wish::Confirm),
        Config::Check { file, cluster_config, strict } => match check(&file, cluster_config.as_deref(), strict) {
            Ok(config) => {
                for warning in load::warnings(&config).into_iter().chain(withheld(&config)) {
                    eprintln!("crier: {warning}");
                }
                let text = format!(
                    "{}: good: {} pools, {} [[l2]], {} peers, {} advertisements\n",
                    file.display(),
                    config.pools.len(),
                    config.l2.len(),
                    config.bgp.peers.len(),
                    config.bgp.advertisements.len()
                );
                print(&text)
            }
            Err(error) => complain(&error),
        },
        Config::Show { file } => match load::load_with(&file, None, Lenience::Judging) {
            Ok(config) => print(&config::show(&config)),
            Err(error) => complain(&error),
        },
    }
}

/// A secret that is missing here may be on the host that the file is for.
fn check(file: &Path, cluster_config: Option<&Path>, strict: bool) -> Result<config::Config, load::LoadError> {
    load::load_with(file, cluster_config, if strict { Lenience::Strict } else { Lenience::Judging })
}

/// The addresses of pools that this host or its subnets use. Nothing where the kernel cannot be asked: a file may be checked
/// anywhere.
fn withheld(config: &config::Config) -> Vec<String> {
    let facts = runtime().ok().and_then(|runtime| runtime.block_on(observe::look_once()).ok());
    let mut world = World::default();
    for fact in facts.into_iter().flatten() {
        world.apply(fact);
    }
    let in_words = |(pool, address, used): (_, _, HostUse)| {
        format!("pool {pool}: {address} is {used}, so no Service gets it; exclude = [\"{address}\"] says so")
    };
    own_addresses::withheld(config, &world).map(in_words).collect()
}

/// As `crier plan`, with the keys that differ, and with the drop-ins that `apply` would use.
fn diff(socket: &Path, file: &Path, output: Output) -> Exit {
    let main = match load::read_main(file) {
        Ok(main) => main,
        Err(error) => return complain(&error),
    };
    let agents = match ask(socket, &readings::STATUS, &()) {
        Ok(status) => status.configuration.file,
        Err(error) => return refused(&error),
    };
    let drop_ins = match load::read_drop_ins(if agents.as_os_str().is_empty() { file } else { &agents }) {
        Ok(drop_ins) => drop_ins,
        Err(error) => return complain(&error),
    };
    let files: Vec<SourceFile> = std::iter::once(main).chain(drop_ins).collect();
    match plan::forecast(socket, &files) {
        Ok(report) => {
            let differs = !report.is_empty() || !report.changes.is_empty();
            answer(output, &report, |_| changes(&report) + &plan::text(&report)).with_problems(differs)
        }
        Err(exit) => exit,
    }
}

fn changes(report: &ForecastReport) -> String {
    let mut text = String::new();
    for ChangeReport { change, touches } in &report.changes {
        let note = match touches {
            Touches::Restart => ": needs a restart of the agent",
            Touches::Session => ": its session begins anew",
            Touches::Nothing
            | Touches::Log
            | Touches::Decisions
            | Touches::LiveSession
            | Touches::Listening
            | Touches::Pulse => "",
        };
        text += &format!("{change}{note}\n");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn apply(socket: &Path, file: Option<&Path>, confirm: Option<Duration>) -> Exit {
    let main = match file.map(load::read_main).transpose() {
        Ok(main) => main,
        Err(error) => return complain(&error),
    };
    // A part of a second counts as a whole one. What is less than 1 s is refused by the agent.
    let confirm_secs = confirm.map(|time| time.as_secs() + u64::from(time.as_secs() > 0 && time.subsec_nanos() > 0));
    order(socket, &Wish::Apply { main, confirm_secs })
}

/// Prints why a configuration was refused, in colour where somebody is looking.
pub fn complain(error: &load::LoadError) -> Exit {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match error {
        load::LoadError::Refused(complaints) => eprint!("{}", complaints.render(colour)),
        load::LoadError::Unreadable { .. } | load::LoadError::NotText { .. } | load::LoadError::Unseen { .. } => {
            eprintln!("crier: {error}")
        }
    }
    Exit::Usage
}
