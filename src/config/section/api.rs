//! `[api]`: how commands and monitoring reach the agent. Floor 1.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Check, Section, section};
use crate::config::complaint::Problem;
use crate::config::key::{flag, socket_path, text};
use crate::config::shape::written;
use crate::config::syntax;

section! {
    /// `[api]`
    pub struct Api = Section::one("api", "How commands and monitoring reach the agent."), written as Written;
    keys {
        pub socket: PathBuf = socket_path("socket", "The Unix socket that the commands connect to.")
            .default("/run/crier/crier.sock"), touches Restart;
        /// Where metrics and health are served; `None` for nowhere.
        pub listen: Option<SocketAddr> = text(
            "listen",
            "an address with a port, or \"\"",
            |text, _| socket_address(text),
            "The TCP address that serves metrics and health; \"\" serves neither.",
        )
        .or_else("")
        .default("127.0.0.1:7472")
        .trade("Whoever can reach this address can read counters and the names of pools, peers, interfaces and Services with egress (with metallb-metrics, of all announced Services and their addresses), and change nothing."), touches Restart;
        /// The names that MetalLB's controller and speaker serve, beside crier's own.
        pub metallb_metrics: bool = flag(
            "metallb-metrics",
            false,
            "Serve the metrics under MetalLB's names too, for dashboards and alerts that were made for MetalLB.",
        )
        .trade("A scrape is larger; with MetalLB in the same cluster, sums over both count twice."), touches Nothing;
    }
}

impl Check for Written {}

fn socket_address(text: &str) -> Result<SocketAddr, Problem> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let hint = "write an IP address and a port, \"127.0.0.1:7472\" or \"[::1]:7472\", or \"\" for none";
        Problem::new(format!("{} is not an IP address with a port", written(text)), hint)
    })?;
    syntax::not_mapped(address.ip())?;
    Ok(address)
}
