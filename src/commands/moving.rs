//! `crier move`: the addresses of a Service to another node of the link. Floor 4.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::{sleep, timeout};

use super::{Exit, print, refused, runtime, service_named};
use crate::api::client::{self, AskError};
use crate::api::readings;
use crate::config::duration;
use crate::names::NodeName;
use crate::views::l2::AddressFilter;
use crate::views::moving::{MoveRequest, MovingAddress, OrderedMove};

#[derive(Debug, Args)]
#[command(
    after_help = "Any agent may be asked: it writes the annotation crier.dev/node to the Service. The chosen node asks for the\n\
                  addresses, and the owner answers until the chosen node does. The chosen node goes before all preferences until\n\
                  --back: when it fails other nodes take the addresses, and when it is there again it has them again.\n\n\
                  Exit codes: 0 it was ordered, or with --wait it is done; 1 the API server does not take it; 2 the node cannot\n\
                  have the addresses; 3 no agent; 4 with --wait: not done in time.\n\n\
                  Examples:\n  crier move shop/front --to node-2 --wait\n  crier move shop/front --back"
)]
pub struct Move {
    /// The Service
    #[arg(value_name = "NAMESPACE/NAME")]
    service: String,
    /// The node that is to answer for its addresses
    #[arg(long, value_name = "NODE", required_unless_present = "back")]
    to: Option<String>,
    /// Let the preferences of [[l2]] decide again
    #[arg(long, conflicts_with = "to")]
    back: bool,
    /// Wait until the node answers for all of them
    #[arg(long, requires = "to")]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

/// How often the agent is asked who answers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn relocate(socket: &Path, Move { service, to, back: _, wait, timeout: limit }: &Move) -> Exit {
    let service = match service_named(service) {
        Ok(service) => service,
        Err(exit) => return exit,
    };
    let request = MoveRequest { service, to: to.as_deref().map(NodeName::from) };
    let ordered = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let ordered = client::act(socket, &readings::MOVE, &request).await?;
            let waits = wait.then_some(()).and(ordered.to.as_ref());
            let arrived = match waits {
                Some(node) => Some(timeout(*limit, arrival(socket, &ordered, node)).await.ok().transpose()?.is_some()),
                None => None,
            };
            Ok::<_, AskError>((ordered, arrived))
        })
    });
    match ordered {
        Ok((ordered, arrived)) => tell(&ordered, arrived, *limit),
        Err(error) => refused(&error),
    }
}

/// Until the node answers for all addresses.
async fn arrival(socket: &Path, ordered: &OrderedMove, node: &NodeName) -> Result<(), AskError> {
    for MovingAddress { address, owner: _ } in &ordered.addresses {
        while owner(socket, *address).await?.as_ref() != Some(node) {
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

async fn owner(socket: &Path, address: IpAddr) -> Result<Option<NodeName>, AskError> {
    match client::ask(socket, &readings::L2, &AddressFilter { address: Some(address) }).await {
        Ok(report) => Ok(report.addresses.into_iter().find_map(|it| it.owner)),
        // It may come back.
        Err(AskError::NotThere(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tell(
    OrderedMove { schema_version: _, service, to, addresses }: &OrderedMove,
    arrived: Option<bool>,
    limit: Duration,
) -> Exit {
    let Some(to) = to else {
        return print(&format!("{service}: the preferences of [[l2]] decide again\n"));
    };
    let owner = |owner: &Option<NodeName>| owner.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let verb = if arrived == Some(true) { "moved" } else { "is to move" };
    let line = |address: &IpAddr, from: &Option<NodeName>| match from {
        Some(from) if from == to => format!("{service}: {address} is on {to} and goes to it first\n"),
        from => format!("{service}: {address} {verb} from {} to {to}\n", owner(from)),
    };
    let printed = print(&addresses.iter().map(|it| line(&it.address, &it.owner)).collect::<String>());
    if arrived == Some(false) {
        tell!("crier: not done after {}; `crier l2` says who answers and why", duration::text(limit));
        return Exit::TimedOut;
    }
    printed
}
