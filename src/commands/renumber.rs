//! `crier renumber`: another address for a Service, with both announced for a while. Floor 4.

use std::path::Path;

use clap::Args;

use super::{Exit, join, print, refused, runtime, service_named};
use crate::api::client;
use crate::api::readings;
use crate::config::duration;
use crate::views::renumber::RenumberRequest;

#[derive(Debug, Args)]
#[command(
    after_help = "Any agent may be asked: it writes the annotation crier.dev/renumber to the Service, and the agent that allocates\n\
                        follows it. The new address joins the old one in the status; when both have stood there for the overlap, the old one\n\
                        is given up. Where no other address is free, nothing changes, and the Service says so.\n\n\
                        Exit codes: 0 it was ordered, 1 the API server does not take it, 2 the Service cannot get another address, 3 no agent.\n\n\
                        Examples:\n  crier renumber shop/front\n  crier renumber shop/front --overlap 1h"
)]
pub struct Renumber {
    /// The Service
    #[arg(value_name = "NAMESPACE/NAME")]
    service: String,
    /// How long the old addresses stay beside the new ones
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    overlap: String,
}

pub fn renumber(socket: &Path, Renumber { service, overlap }: &Renumber) -> Exit {
    let service = match service_named(service) {
        Ok(service) => service,
        Err(exit) => return exit,
    };
    let overlap = match duration::parse(overlap) {
        Ok(overlap) => overlap,
        Err(error) => {
            tell!("crier: --overlap {error}");
            return Exit::Usage;
        }
    };
    let overlap_millis = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
    let order = RenumberRequest { service, overlap_millis };
    match runtime().and_then(|runtime| runtime.block_on(client::act(socket, &readings::RENUMBER, &order))) {
        Ok(report) => {
            let shared = match report.shared_with.as_slice() {
                [] => String::new(),
                others => format!(
                    "; {} has it too and keeps it: renumbered as well, it gets the new address of {}",
                    join(others),
                    report.service
                ),
            };
            print(&format!(
                "{}: another address is ordered, and given as soon as one is free; {} stays beside it for {}{shared}\n",
                report.service,
                join(&report.leaving),
                report.overlap
            ))
        }
        Err(error) => refused(&error),
    }
}
