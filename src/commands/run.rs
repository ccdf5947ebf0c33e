//! `crier run`: the agent. Floor 4: reads the configuration, opens the doors, and leaves the rest to `agent`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Exit;
use super::config::complain;
use crate::agent::unconfirmed::Unconfirmed;
use crate::agent::{self, logging, wiring};
use crate::api::server;
use crate::clock;
use crate::config::load::{self, HostSecrets, LoadError};
use crate::config::{self, Config, SourceFile};
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
    let (files, config, unconfirmed) = match read(&arguments.config) {
        Ok(read) => read,
        Err(error) => return complain(&error),
    };
    let filter = arguments.log.as_deref().unwrap_or(&config.log.level);
    let log = match logging::start(filter, config.log.format) {
        Ok(log) => Some(log).filter(|_| arguments.log.is_none()),
        Err(error) => {
            eprintln!("crier: {error}");
            return Exit::Usage;
        }
    };
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
        let doors = match server::open(&config.api.socket, config.api.listen).await {
            Ok(doors) => doors,
            Err(error) => {
                tracing::error!("{error}");
                return Exit::Problem;
            }
        };
        let (order, orders) = wiring::orders();
        let doors = tokio::spawn(doors.serve(ask.clone(), order));
        let node = arguments.node.map(NodeName::from);
        let queries = (ask, queries);
        let main = arguments.config;
        let start = agent::Start { main, files, config, unconfirmed, node, log, queries, orders };
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

type Read = (Vec<SourceFile>, Config, Option<Unconfirmed>);

/// The configuration to start with. One that waits to be confirmed is taken back first where its time is over, or where it keeps
/// the agent from starting.
fn read(main: &Path) -> Result<Read, LoadError> {
    let waiting = Unconfirmed::find(main).unwrap_or_else(|error| {
        eprintln!("crier: what waits to be confirmed cannot be read, and nothing is taken back: {error}");
        None
    });
    let Some(waiting) = waiting else {
        let (files, config) = load(main)?;
        return Ok((files, config, None));
    };
    let why = match load(main) {
        Ok((files, config)) if waiting.until > clock::wall_timestamp() => return Ok((files, config, Some(waiting))),
        Ok(_) => "it was not confirmed in time".to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("crier: the configuration before is put back: {why}");
    if let Err(source) = waiting.put_back(main) {
        eprintln!("crier: the configuration before cannot be put back: {source}");
    }
    let (files, config) = load(main)?;
    Ok((files, config, None))
}

fn load(main: &Path) -> Result<(Vec<SourceFile>, Config), LoadError> {
    let files = load::read(main)?;
    let config = config::parse(&files, &HostSecrets::from_environment())?;
    Ok((files, config))
}
