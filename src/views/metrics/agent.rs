//! The metrics of the agent as a whole, of pools and Services. Floor 1.

use super::{Metric, count, counter, gauge};
use crate::path_state::Serving;
use crate::plan::allocate::capacity;
use crate::views::status;
use crate::world::ApiServer;

pub(super) const METRICS: [Metric; 8] = [
    gauge("crier_build_info", &["version"], "Always 1; the label has the version.", |_, series| {
        series.set([env!("CARGO_PKG_VERSION")], 1);
    }),
    gauge("crier_api_server_reachable", &[], "1 while the API server answers.", |snapshot, series| {
        series.only(u64::from(snapshot.world.api_server == ApiServer::Reachable));
    }),
    counter(
        "crier_api_requests_total",
        &[],
        "Requests to the API server, of all kinds: lists, watches, status writes, Events and the Lease.",
        |snapshot, series| series.only(snapshot.counters.api_requests),
    ),
    gauge("crier_allocates", &[], "1 while this agent allocates addresses.", |snapshot, series| {
        series.only(u64::from(status::allocates(snapshot)));
    }),
    gauge(
        "crier_data_path",
        &["state"],
        "1 for the state of this node's data path: good; bad, so the node gives way to nodes that serve; not-since-boot, so the \
         node announces nothing.",
        |snapshot, series| {
            let serving = snapshot.world.data_path.serving();
            for state in [Serving::Yes, Serving::Lost, Serving::NotSinceBoot] {
                series.set([state.code()], u64::from(serving == state));
            }
        },
    ),
    gauge("crier_pool_addresses", &["pool"], "Addresses of the pool.", |snapshot, series| {
        for pool in &snapshot.config.pools {
            series.set([pool.name.as_str()], capacity(pool));
        }
    }),
    gauge("crier_pool_addresses_held", &["pool"], "Addresses of the pool that Services hold.", |snapshot, series| {
        for pool in &snapshot.config.pools {
            series.set([pool.name.as_str()], count(snapshot.held_in(pool)));
        }
    }),
    gauge(
        "crier_services",
        &["held"],
        "Services of type LoadBalancer, by whether they hold an address.",
        |snapshot, series| {
            let services = || status::load_balancers(snapshot);
            let with_address = services().filter(|(_, decision)| !decision.allocation.held.is_empty()).count();
            series.set(["true"], count(with_address));
            series.set(["false"], count(services().count() - with_address));
        },
    ),
];
