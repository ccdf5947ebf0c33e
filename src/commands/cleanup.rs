//! `crier cleanup`: takes away what an agent leaves in the kernel on purpose when it stops. Floor 4.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::Runtime;

use super::{Exit, complain_of_files, print, runtime};
use crate::agent::{egress_names, memory::Memory};
use crate::config::load::{self, Lenience, LoadError};
use crate::config::{Config, EgressSettings, NoSecrets, SourceFile};
use crate::{egress, kernel};

#[derive(Debug, Args)]
#[command(
    after_help = "Stop the agent first (systemctl stop crier). Pods then send with whatever address the host and the CNI give \
                        them.\n\nExamples:\n  crier cleanup\n  crier cleanup --config /etc/crier/crier.toml"
)]
pub struct Cleanup {
    /// The main file, for the state folder and the names and numbers in [egress]; where there is none any more, the defaults count
    #[arg(long, value_name = "FILE", default_value = MAIN)]
    config: PathBuf,
}

const MAIN: &str = "/etc/crier/crier.toml";

/// On a host that crier leaves, its file is often the first to go.
fn load(file: &Path) -> Result<Config, LoadError> {
    match load::load_with(file, None, Lenience::Judging) {
        Err(LoadError::Unreadable { source, .. })
            if source.kind() == ErrorKind::NotFound && file == Path::new(MAIN) =>
        {
            let (path, text) = (MAIN.to_owned(), "[manifests]\nfolder = \"/\"\n".to_owned());
            Ok(crate::config::parse(&[SourceFile { path, text }], &NoSecrets)?)
        }
        loaded => loaded,
    }
}

pub fn cleanup(Cleanup { config: file }: &Cleanup) -> Exit {
    let (number_on_host, settings, folder) = match load(file) {
        Ok(config) => (config.number_on_host(), config.egress, config.state.folder),
        Err(error) => return complain_of_files(&error),
    };
    if Memory::is_in_use(&folder) {
        tell!(
            "crier: an agent runs with the state folder {}; stop it first: systemctl stop crier; nothing was removed",
            folder.display()
        );
        return Exit::Problem;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("crier: {error}");
            return Exit::Problem;
        }
    };
    let mut text = String::new();
    let mut failed = false;
    let former = egress_names::former(&folder, &settings);
    for settings in std::iter::once(settings).chain(former) {
        failed |= clean_egress(&settings, &runtime, &mut text);
    }
    match runtime.block_on(kernel::blackholes::take_away(number_on_host)) {
        Ok(count) => text += &format!("removed {count} blackhole routes and their rules\n"),
        Err(error) => {
            failed = true;
            tell!("crier: blackhole routes and their rules cannot be removed: {error}");
        }
    }
    match runtime.block_on(kernel::addresses::take_away(number_on_host)) {
        Ok(addresses) if addresses.is_empty() => text += "there is no address that this agent put on a link\n",
        Ok(addresses) => {
            let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            text += &format!("removed {} addresses that this agent put on a link: {}\n", names.len(), names.join(", "));
        }
        Err(error) => {
            failed = true;
            tell!("crier: the addresses that this agent put on links cannot be removed: {error}");
        }
    }
    match runtime.block_on(kernel::vrfs::take_away(&folder)) {
        Ok(done) if done.is_empty() => text += "there is nothing that crier made of VRFs\n",
        Ok(done) => text += &done.iter().map(|command| format!("did: {command}\n")).collect::<String>(),
        Err(error) => {
            failed = true;
            tell!("crier: what crier made of VRFs cannot be removed: {error}");
        }
    }
    print(&text).with_problems(failed)
}

/// What to do about the usual reasons.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run crier cleanup as root",
        _ => "; does an agent run? stop it first",
    }
}

/// Whether something could not be removed.
fn clean_egress(settings: &EgressSettings, runtime: &Runtime, text: &mut String) -> bool {
    let mut failed = false;
    match egress::task::take_away(settings) {
        Ok(Some(ended)) => {
            *text +=
                &format!("removed the nftables table inet {}, and ended {ended} connections of pods\n", settings.table);
        }
        Ok(None) => *text += &format!("there is no nftables table inet {}\n", settings.table),
        // Another program's: nothing of crier's is left.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => *text += &format!("{error}\n"),
        Err(error) => {
            failed = true;
            let table = &settings.table;
            tell!("crier: the nftables table inet {table} cannot be removed: {error}{}", remedy(&error));
        }
    }
    match runtime.block_on(kernel::steering::take_away(settings)) {
        Ok(count) => *text += &format!("removed {count} rules and routes of egress\n"),
        Err(error) => {
            failed = true;
            tell!("crier: rules and routes of egress cannot be removed: {error}");
        }
    }
    match runtime.block_on(kernel::returns::take_away(settings)) {
        Ok(count) => *text += &format!("removed {count} rules and routes for replies\n"),
        Err(error) => {
            failed = true;
            tell!("crier: rules and routes for replies cannot be removed: {error}");
        }
    }
    failed
}
