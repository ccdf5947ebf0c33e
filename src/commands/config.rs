//! `crier config check|show`: what a configuration says, and every mistake in it at once. Floor 4.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Subcommand;

use super::{Exit, print};
use crate::config::{self, load};

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration and its conf.d, without touching the running agent
    Check {
        /// The main file, usually /etc/crier/crier.toml
        file: PathBuf,
        /// What the ConfigMap of [kubernetes] config says, or is to say
        #[arg(long, value_name = "FILE")]
        cluster_config: Option<PathBuf>,
    },
    /// Print the configuration in effect, defaults filled in
    Show {
        /// The main file, usually /etc/crier/crier.toml
        file: PathBuf,
    },
}

pub fn config(verb: Config) -> Exit {
    match verb {
        Config::Check { file, cluster_config } => match load::load_with(&file, cluster_config.as_deref()) {
            Ok(config) => {
                for warning in load::warnings(&config) {
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
        Config::Show { file } => match load::load(&file) {
            Ok(config) => print(&config::show(&config)),
            Err(error) => complain(&error),
        },
    }
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
