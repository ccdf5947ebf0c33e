//! The metrics of the agent as a whole, of pools and Services. Floor 1.

use super::{Metric, count, counter, gauge};
use crate::path_state::Serving;
use crate::plan::allocate::capacity;
use crate::views::status;
use crate::world::{ApiServer, DrainStage};

pub(super) const METRICS: [Metric; 13] = [
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
    counter(
        "crier_config_reloads_total",
        &["outcome"],
        "Reloads of the configuration since the agent started: taken over, or refused whole so that the one before stays in use.",
        |snapshot, series| {
            series.set(["ok"], snapshot.reloads.succeeded);
            series.set(["failed"], snapshot.reloads.failed);
        },
    ),
    gauge(
        "crier_config_last_reload_successful",
        &[],
        "1 unless the last reload of the configuration was refused; 1 also before the first.",
        |snapshot, series| {
            let failed = snapshot.reloads.last.as_ref().is_some_and(|last| last.failure.is_some());
            series.only(u64::from(!failed));
        },
    ),
    gauge(
        "crier_config_unconfirmed",
        &[],
        "1 while a configuration waits for `crier config confirm` and is taken back without.",
        |snapshot, series| series.only(u64::from(snapshot.reloads.unconfirmed_until.is_some())),
    ),
    gauge(
        "crier_drain",
        &["stage"],
        "1 for the stage of this node's drain: waiting for flows, handing-over on the link, drained. All 0 while the node takes part.",
        |snapshot, series| {
            let now = snapshot.world.drain_stage();
            for stage in DrainStage::ALL {
                series.set([stage.code()], u64::from(now == Some(stage)));
            }
        },
    ),
    gauge(
        "crier_drain_flows",
        &[],
        "Flows that a drain still waits for; absent while none are counted.",
        |snapshot, series| {
            if let Some(left) = snapshot.flows.left {
                series.only(count(left));
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
