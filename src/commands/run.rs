//! `crier run`: the agent. Floor 4: reads the configuration, opens the doors, and leaves the rest to `agent`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Exit, complain_of_files};
use crate::agent::unconfirmed::Unconfirmed;
use crate::agent::{self, cluster_config, heap, logging, wiring};
use crate::api::server;
use crate::clock;
use crate::config::load::{self, HostSecrets, Lenience, LoadError};
use crate::config::{self, Config, SourceFile, cluster};
use crate::names::NodeName;
use crate::selector::is_dns_name;

#[derive(Debug, Args)]
pub struct Run {
    /// The configuration; *.toml in conf.d beside it are read too
    #[arg(long, value_name = "FILE", default_value = "/etc/crier/crier.toml")]
    config: PathBuf,
    /// The name of this node's Node; overrides [node] name
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    node: Option<String>,
    /// A log filter, such as debug or crier::bgp=debug,info; overrides [log] level
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Threads for the tasks. Two, so that a long turn of the planner never keeps a BGP session from its timers. What waits for long answers
/// of the kernel has a thread of its own, as egress has.
const WORKERS: usize = 2;

/// As `[node] name`: no Node has another one.
fn node_name(text: &str) -> Result<String, String> {
    let hint = "not a valid name: use lower-case letters, digits, - and .; start and end with a letter or digit";
    if is_dns_name(text) { Ok(text.to_owned()) } else { Err(hint.to_owned()) }
}

/// `socket` wins over the one in the configuration for the whole life of the agent, as `--node` and `--log` do.
pub fn run(arguments: Run, socket: Option<PathBuf>) -> Exit {
    if arguments.config == Path::new(load::STANDARD_INPUT) {
        tell!(
            "crier run --config -: standard input can be read only once, and the agent reads its files again at each reload; name a file"
        );
        return Exit::Usage;
    }
    heap::give_back_early();
    let (Loaded { files, config, cluster }, unconfirmed) = match read(&arguments.config) {
        Ok(read) => read,
        Err(error) => return complain_of_files(&error),
    };
    let filter = arguments.log.as_deref().unwrap_or(&config.log.level);
    let log = match logging::start(filter, config.log.format) {
        Ok(log) => Some(log).filter(|_| arguments.log.is_none()),
        Err(error) => {
            tell!("crier: {error}");
            return Exit::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("crier: cannot start: {error}");
            return Exit::Problem;
        }
    };
    runtime.block_on(async move {
        let (ask, queries) = wiring::queries();
        let doors = match server::open(socket.as_ref().unwrap_or(&config.api.socket), config.api.listen).await {
            Ok(doors) => doors,
            Err(error) => {
                tracing::error!("{error}");
                return Exit::Problem;
            }
        };
        let (order, orders) = wiring::orders();
        let (annotate, annotations) = wiring::annotations();
        let doors = tokio::spawn(doors.serve(ask.clone(), order.clone(), annotate));
        let node = arguments.node.map(NodeName::from);
        let (queries, orders) = ((ask, queries), (order, orders));
        let main = arguments.config;
        let start = agent::Start { main, files, config, unconfirmed, node, log, queries, orders, annotations, cluster };
        let ended = agent::run(start).await;
        doors.abort();
        // Waited for, so that the socket file is gone when the process is.
        let _ = doors.await;
        match ended {
            Ok(()) => Exit::Fine,
            Err(error) => {
                tracing::error!("{error}");
                Exit::Problem
            }
        }
    })
}

/// What an agent starts with.
struct Loaded {
    files: Vec<SourceFile>,
    config: Config,
    /// `None` without a ConfigMap.
    cluster: Option<cluster_config::Start>,
}

/// The configuration to start with. One that waits to be confirmed is taken back first where its time is over, or where it keeps
/// the agent from starting.
fn read(main: &Path) -> Result<(Loaded, Result<Option<Unconfirmed>, String>), LoadError> {
    let waiting = match Unconfirmed::find(main) {
        Ok(Some(waiting)) => waiting,
        Ok(None) => return Ok((load(main)?, Ok(None))),
        Err(error) => return Ok((load(main)?, Err(error.to_string()))),
    };
    let why = match load(main) {
        Ok(loaded) if !waiting.left(clock::wall_timestamp()).is_zero() => return Ok((loaded, Ok(Some(waiting)))),
        Ok(_) => "it was not confirmed in time".to_owned(),
        Err(error) => error.to_string(),
    };
    tell!("crier: the configuration before is put back: {why}");
    if let Err(source) = waiting.put_back(main) {
        tell!("crier: the configuration before cannot be put back: {source}");
    }
    Ok((load(main)?, Ok(None)))
}

fn load(main: &Path) -> Result<Loaded, LoadError> {
    let files = load::read(main)?;
    let Some(preliminary) = cluster::preliminary(&files) else {
        let secrets = HostSecrets::from_environment().with(Lenience::Starting);
        let config = config::parse(&files, &secrets)?;
        return Ok(Loaded { files, config, cluster: None });
    };
    let config_map = preliminary.config_map.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let unseen = |error: io::Error| {
        let remedy = "this host gives the agent no runtime".to_owned();
        LoadError::Unseen { config_map, why: error.to_string(), remedy }
    };
    let runtime = runtime.map_err(unseen)?;
    let (config, start) = runtime.block_on(cluster_config::start(&files, preliminary))?;
    Ok(Loaded { files, config, cluster: Some(start) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be read once, and each reload would find nothing there.
    #[test]
    fn standard_input_is_no_file_for_an_agent() {
        let arguments = Run { config: "-".into(), node: None, log: None };
        assert_eq!(run(arguments, None), Exit::Usage);
    }
}
