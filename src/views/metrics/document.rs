//! `doc/metrics.md`, written from the table of metrics. Floor 1.

use std::collections::BTreeSet;
use std::fmt::Write;

use prometheus::proto::MetricType;

use super::{Metric, agent, bfd, link, metallb, table};
use crate::arp::machine::answer::NoAnswer;
use crate::arp::packet::Protocol;
use crate::bfd::discard::Discard;
use crate::claim::ConflictKind;
use crate::path_state::Serving;
use crate::plan::placement::Cause;
use crate::pulse::outcome::Outcome;
use crate::views::counters::Direction;
use crate::views::egress_path::Path;
use crate::world::{DrainStage, MessageCounts};

/// A label, and what its values are. Where the values are words of crier's own, they are listed from the code.
struct Label {
    name: &'static str,
    meaning: &'static str,
    values: fn() -> Vec<&'static str>,
}

const LABELS: [Label; 18] = [
    Label {
        name: "cause",
        meaning: "why the owner changed: one of these, or the code of the reason that refuses the previous owner, such as `no-carrier`",
        values: || Cause::USUAL.to_vec(),
    },
    Label { name: "code", meaning: "error code of the NOTIFICATION (RFC 4271 §4.5)", values: Vec::new },
    Label {
        name: "direction",
        meaning: "of a move: to this node, away from it, or between others. Of a message: as seen from this node",
        values: || Direction::ALL.map(Direction::code).into_iter().chain(["sent", "received"]).collect(),
    },
    Label { name: "held", meaning: "whether the Service holds an address", values: || vec!["true", "false"] },
    Label { name: "interface", meaning: "name of the link", values: Vec::new },
    Label {
        name: "kind",
        meaning: "`occupied`: another station answered a probe. `alive-unheard`: another node has the address whose pulses are not heard. `contested`: another station claims an address in use",
        values: || CONFLICTS.map(ConflictKind::code).to_vec(),
    },
    Label {
        name: "outcome",
        meaning: "of a pulse: `taken`, or why it was dropped. Of a reload: taken over, or refused. Of a BFD packet: sent, refused by the kernel, or received and taken",
        values: || Outcome::ALL.map(Outcome::code).into_iter().chain(agent::RELOADS).chain(bfd::OUTCOMES).collect(),
    },
    Label {
        name: "path",
        meaning: "what this node does with the packets",
        values: || Path::OF_PODS.map(Path::name).to_vec(),
    },
    Label { name: "peer", meaning: "name of the `[[bgp.peer]]`", values: Vec::new },
    Label { name: "pool", meaning: "name of the `[[pool]]`", values: Vec::new },
    Label {
        name: "protocol",
        meaning: "ARP for IPv4, NDP for IPv6",
        values: || Protocol::BOTH.map(Protocol::code).to_vec(),
    },
    Label {
        name: "reason",
        meaning: "why a frame was not answered, or a BFD packet was dropped",
        values: || {
            let all: BTreeSet<&str> =
                NoAnswer::ALL.map(NoAnswer::code).into_iter().chain(Discard::ALL.map(Discard::code)).collect();
            all.into_iter().collect()
        },
    },
    Label { name: "service", meaning: "namespace and name of the Service", values: Vec::new },
    Label {
        name: "stage",
        meaning: "how far the drain of the node is",
        values: || DrainStage::ALL.map(DrainStage::code).to_vec(),
    },
    Label {
        name: "state",
        meaning: "of another node, by its pulses; of this node's data path",
        values: || link::NODES.into_iter().chain(Serving::ALL.map(Serving::code)).collect(),
    },
    Label { name: "subcode", meaning: "error subcode of the NOTIFICATION", values: Vec::new },
    Label {
        name: "type",
        meaning: "type of the BGP message",
        values: || MessageCounts::default().by_type().map(|(name, _)| name).to_vec(),
    },
    Label { name: "version", meaning: "version of crier", values: Vec::new },
];

const CONFLICTS: [ConflictKind; 3] = [ConflictKind::Occupied, ConflictKind::AliveUnheard, ConflictKind::Contested];

const HEAD: &str = "# Metrics

Written from the table in `src/views/metrics/`; do not edit. `CRIER_WRITE_SNAPSHOTS=1 cargo test --lib views::metrics` writes it anew.

crier serves them in the text format of Prometheus at `http://127.0.0.1:7472/metrics` (`[api] listen`) and at `/metrics` on its Unix socket:

```
curl -s http://127.0.0.1:7472/metrics
curl -s --unix-socket /run/crier/crier.sock http://crier/metrics
```

Counters run from the start of the agent, and those of one session from the start of that session. A metric that has no series yet is left out.

";

const METALLB: &str = "
## MetalLB's names

With `[api] metallb-metrics = true` crier serves the metrics of MetalLB's controller and speaker too, under the names and with the labels below, so that
dashboards and alerts made for MetalLB go on working. Three things differ:

- MetalLB counts frames of the link by the label `ip`; crier counts by `interface` and `protocol`. Sums over all addresses agree.
- Every agent serves the metrics of the allocator, not one controller: take the maximum over all agents instead of the sum.
- `metallb_k8s_client_updates_total`, `metallb_k8s_client_update_errors_total` and `metallb_allocator_services_allocated_total` have no counterpart: see the `problems` of `crier status`.

A chart that relabels `frrk8s_bgp_` to `metallb_bgp_` finds these names here without relabelling. `peer` is the address and the port of the peer, or the name of the
`[[bgp.peer]]` while it has no address; `vrf` is `default` outside a VRF.

| MetalLB | kind | labels | crier |
|---|---|---|---|
";

/// The page.
pub fn document() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| name | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in table() {
        let Metric { name, labels, help, read: _ } = metric;
        row(&mut page, &[&format!("`{name}`"), kind(metric), &quoted(labels), help]);
    }
    page.push_str("\n## Labels\n\n| label | meaning | values |\n|---|---|---|\n");
    for Label { name, meaning, values } in &LABELS {
        row(&mut page, &[&format!("`{name}`"), meaning, &quoted(&values())]);
    }
    page.push_str(METALLB);
    for metallb::Theirs { metric, ours } in &metallb::METRICS {
        let Metric { name, labels, help: _, read: _ } = metric;
        row(&mut page, &[&format!("`{name}`"), kind(metric), &quoted(labels), &quoted(ours)]);
    }
    page
}

fn kind(metric: &Metric) -> &'static str {
    match metric.kind() {
        MetricType::HISTOGRAM => "histogram",
        MetricType::COUNTER => "counter",
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => "gauge",
    }
}

fn row(page: &mut String, cells: &[&str]) {
    // A string takes everything.
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The labels that the page explains, with the values that it lists: none where they are names, numbers and the like.
#[cfg(test)]
pub(super) fn labels() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    LABELS.iter().map(|label| (label.name, (label.values)()))
}
