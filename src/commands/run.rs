//! `crier run`: the agent. Floor 4: reads the configuration, opens the doors, and leaves the rest to `agent`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;
use super::config::complain;
use crate::agent::{self, cluster_config, logging, wiring};
use crate::api::server;
use crate::config::load::{self, HostSecrets, LoadError};
use crate::config::{Config, cluster, parse};
use crate::names::NodeName;

#[derive(Debug, Args)]
pub struct Run {
    /// The configuration; *.toml in conf.d beside it are read too
    #[arg(long, value_name = "FILE", default_value = "/etc/crier/crier.toml")]
    config: PathBuf,
    /// The name of this node's Node, over the one in the configuration
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// A log filter, over the one in the configuration: debug, or crier::bgp=debug,info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Threads for the tasks. Two, so that a long turn of the planner never keeps a BGP session from its timers.
const WORKERS: usize = 2;

pub fn run(arguments: Run) -> Exit {
    let (config, cluster) = match read(&arguments.config) {
        Ok(read) => read,
        Err(error) => return complain(&error),
    };
    let filter = arguments.log.as_deref().unwrap_or(&config.log.level);
    if let Err(error) = logging::start(filter, config.log.format) {
        eprintln!("crier: {error}");
        return Exit::Usage;
    }
    for warning in load::warnings(&config) {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("crier: cannot start: {error}");
            return Exit::Problem;
        }
    };
    runtime.block_on(async move {
        let (ask, queries) = wiring::queries();
        let (order, orders) = wiring::orders();
        let doors = match server::open(&config.api.socket, config.api.listen).await {
            Ok(doors) => doors,
            Err(error) => {
                tracing::error!("{error}");
                return Exit::Problem;
            }
        };
        let doors = tokio::spawn(doors.serve(ask, order));
        let ended = agent::run(config, arguments.node.map(NodeName::from), queries, orders, cluster).await;
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

/// The configuration, and where it has a ConfigMap, how that stands.
fn read(file: &Path) -> Result<(Config, Option<cluster_config::Start>), LoadError> {
    let files = load::read(file)?;
    let Some(preliminary) = cluster::preliminary(&files) else {
        return Ok((parse(&files, &HostSecrets::from_environment())?, None));
    };
    let config_map = preliminary.config_map.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LoadError::Unseen { config_map, why: error.to_string() })?;
    let (config, start) = runtime.block_on(cluster_config::start(files, preliminary))?;
    Ok((config, Some(start)))
}
