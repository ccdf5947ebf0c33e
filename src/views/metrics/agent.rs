//! The metrics of the agent as a whole, of pools and Services. Floor 1.

use super::{Metric, Series, count, counter, gauge};
use crate::egress::counters::Counts;
use crate::path_state::Serving;
use crate::plan::allocate::capacity;
use crate::views::{Snapshot, egress, status};
use crate::world::ApiServer;

pub(super) const METRICS: [Metric; 10] = [
    gauge("crier_build_info", &["version"], "Always 1; the label has the version.", |_, series| {
        series.set([env!("CARGO_PKG_VERSION")], 1);
    }),
    gauge("crier_api_server_reachable", &[], "1 while the API server answers.", |snapshot, series| {
        series.only(u64::from(snapshot.world.api_server == ApiServer::Reachable));
    }),
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
    })
    .metallb(&["metallb_allocator_addresses_total"]),
    gauge("crier_pool_addresses_held", &["pool"], "Addresses of the pool that Services hold.", |snapshot, series| {
        for pool in &snapshot.config.pools {
            series.set([pool.name.as_str()], count(snapshot.held_in(pool)));
        }
    })
    .metallb(&["metallb_allocator_addresses_in_use_total"]),
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
         them the address; routed, it sends them to the owner; held, it drops them.",
        |snapshot, series| {
            for path in [egress::Path::Local, egress::Path::Routed, egress::Path::Held] {
                let pods = snapshot.plan.egress.pods.values().filter(|mapping| egress::Path::of(mapping) == path);
                series.set([path.name()], count(pods.count()));
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
];

fn of_services(snapshot: &Snapshot, series: &mut Series, read: fn(&Counts) -> u64) {
    for (key, _) in snapshot.plan.decisions.iter().filter(|(_, decision)| decision.egress.is_some()) {
        let pods = snapshot.world.endpoint_addresses(key).filter_map(|pod| snapshot.counters.egress.get(&pod));
        series.add([key.to_string().as_str()], pods.map(read).sum());
    }
}
