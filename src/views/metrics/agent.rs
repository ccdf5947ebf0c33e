//! The metrics of the agent as a whole, of pools and Services. Floor 1.

use std::time::SystemTime;

use super::{Metric, Series, count, counter, gauge};
use crate::egress::counters::Counts;
use crate::path_state::Serving;
use crate::plan::allocate::capacity;
use crate::views::egress_path::Path;
use crate::views::{Snapshot, new_pods, status};
use crate::world::{ApiServer, DrainStage};

pub(super) const METRICS: [Metric; 20] = [
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
    gauge(
        "crier_api_client_certificate_end_timestamp_seconds",
        &[],
        "When the client certificate ends by which the API server knows this agent; absent where it goes by a token.",
        |snapshot, series| {
            let until =
                snapshot.world.client_certificate.as_ref().map(|it| it.ends.duration_since(SystemTime::UNIX_EPOCH));
            if let Some(until) = until {
                series.only(until.unwrap_or_default().as_secs());
            }
        },
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
            for state in Serving::ALL {
                series.set([state.code()], u64::from(serving == state));
            }
        },
    ),
    counter(
        "crier_config_reloads_total",
        &["outcome"],
        "Reloads of the configuration since the agent started: taken over, or refused whole so that the one before stays in use.",
        |snapshot, series| {
            for (outcome, count) in RELOADS.into_iter().zip([snapshot.reloads.succeeded, snapshot.reloads.failed]) {
                series.set([outcome], count);
            }
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
        "1 for the stage of this node's drain: waiting for flows, handing-over on the link, withdrawing routes, drained. All 0 while the node takes part.",
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
        "Flows of a drain that are open still; absent while none are counted.",
        |snapshot, series| {
            if let Some(left) = snapshot.flows.left {
                series.only(count(left));
            }
        },
    ),
    gauge(
        "crier_drain_flows_silent",
        &[],
        "Of crier_drain_flows, those through which nothing comes since routers use other nodes.",
        |snapshot, series| {
            if let Some(silent) = snapshot.flows.silent {
                series.only(count(silent));
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
    gauge(
        "crier_egress_pods",
        &["path"],
        "Pods that reach the outside with their Service's address only, by what this node does with their packets: local, it gives \
         them the address; routed, it sends them to the owner; tunnel, it sends them to the owner by the tunnel; network, it gives them its address in the Service's network; held, it drops \
         them; pending, the kernel does not hold the table that does one of these.",
        |snapshot, series| {
            for path in Path::OF_PODS {
                let pods = snapshot.plan.egress.pods.iter();
                let on_path = pods.filter(|(pod, mapping)| Path::of(snapshot, **pod, mapping) == path);
                series.set([path.name()], count(on_path.count()));
            }
        },
    ),
    counter(
        "crier_egress_translated_total",
        &["service"],
        "Connections of pods that this node gave their Service's address.",
        |snapshot, series| of_services(snapshot, series, |counts| counts.translated),
    ),
    counter(
        "crier_egress_dropped_total",
        &["service"],
        "Packets of pods that this node held back, because they would have left with an address that is not their Service's.",
        |snapshot, series| of_services(snapshot, series, |counts| counts.dropped),
    ),
    gauge(
        "crier_egress_new_pods_held",
        &[],
        "Addresses of new pods of this node that are held back, because it is not known yet whether the pods have egress, or no \
         EndpointSlice lists them yet; absent where [egress] new-pods is \"pass\".",
        |snapshot, series| {
            if let Some(report) = new_pods::report(snapshot) {
                series.only(count(report.addresses));
            }
        },
    ),
    counter(
        "crier_egress_new_pods_dropped_total",
        &[],
        "Packets of new pods that this node held back; absent where [egress] new-pods is \"pass\".",
        |snapshot, series| {
            if let Some(report) = new_pods::report(snapshot) {
                series.only(report.dropped);
            }
        },
    ),
];

/// How a reload ends.
pub(super) const RELOADS: [&str; 2] = ["ok", "failed"];

fn of_services(snapshot: &Snapshot, series: &mut Series, read: fn(&Counts) -> u64) {
    for (key, _) in snapshot.plan.decisions.iter().filter(|(_, decision)| decision.egress.is_some()) {
        let pods = snapshot.world.endpoint_addresses(key).filter_map(|pod| snapshot.counters.egress.get(&pod));
        series.add([key.to_string().as_str()], pods.map(read).sum());
    }
}
