//! `crier cleanup`: takes away what an agent leaves in the kernel on purpose when it stops. Floor 4.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, config, print, runtime};
use crate::config::load;
use crate::{egress, kernel};

#[derive(Debug, Args)]
#[command(
    after_help = "Stop the agent first (systemctl stop crier). Pods then send with whatever address the host and the CNI give \
                        them.\n\nExamples:\n  crier cleanup\n  crier cleanup --config /etc/crier/crier.toml"
)]
pub struct Cleanup {
    /// The main file, for the state folder and the names and numbers in [egress]
    #[arg(long, value_name = "FILE", default_value = "/etc/crier/crier.toml")]
    config: PathBuf,
}

pub fn cleanup(Cleanup { config: file }: &Cleanup) -> Exit {
    let (settings, folder) = match load::load(file) {
        Ok(config) => (config.egress, config.state.folder),
        Err(error) => return config::complain(&error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("crier: {error}");
            return Exit::Problem;
        }
    };
    let mut text = String::new();
    let mut failed = false;
    match egress::task::take_away(&settings) {
        Ok(true) => text += &format!("removed the nftables table inet {}\n", settings.table),
        Ok(false) => text += &format!("there is no nftables table inet {}\n", settings.table),
        Err(error) => {
            failed = true;
            let table = &settings.table;
            eprintln!(
                "crier: the nftables table inet {table} cannot be removed: {error}; does an agent run? stop it first"
            );
        }
    }
    match runtime.block_on(kernel::steering::take_away(&settings)) {
        Ok(count) => text += &format!("removed {count} rules and routes of egress\n"),
        Err(error) => {
            failed = true;
            eprintln!("crier: rules and routes of egress cannot be removed: {error}");
        }
    }
    match runtime.block_on(kernel::returns::take_away(&settings)) {
        Ok(count) => text += &format!("removed {count} rules and routes for replies\n"),
        Err(error) => {
            failed = true;
            eprintln!("crier: rules and routes for replies cannot be removed: {error}");
        }
    }
    match runtime.block_on(kernel::vrfs::take_away(&folder)) {
        Ok(done) if done.is_empty() => text += "there is nothing that crier made of VRFs\n",
        Ok(done) => text += &done.iter().map(|command| format!("did: {command}\n")).collect::<String>(),
        Err(error) => {
            failed = true;
            eprintln!("crier: what crier made of VRFs cannot be removed: {error}");
        }
    }
    print(&text).with_problems(failed)
}
