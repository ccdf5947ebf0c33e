//! The report as Prometheus metrics: base units, `crier_` in front. Floor 4.

use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::agent::report::Report;
use crate::world::SessionState;

/// The metrics in the text format of Prometheus.
pub fn encode(report: &Report) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let build = gauge("crier_build_info", "Always 1; the version is in the label.", &["version"])?;
    build.with_label_values(&[&report.version]).set(1);
    let reachable = gauge("crier_api_server_reachable", "1 while the API server answers.", &[])?;
    reachable.with_label_values::<&str>(&[]).set(i64::from(report.api_server.state == "reachable"));
    let allocates = gauge("crier_allocates", "1 while this agent chooses addresses.", &[])?;
    allocates.with_label_values::<&str>(&[]).set(i64::from(report.allocates));

    let total = gauge("crier_pool_addresses", "Addresses of the pool.", &["pool"])?;
    let held = gauge("crier_pool_addresses_held", "Addresses of the pool that Services hold.", &["pool"])?;
    for pool in &report.pools {
        let of_pool = [pool.name.as_str()];
        total.with_label_values(&of_pool).set(saturated(pool.total));
        held.with_label_values(&of_pool).set(saturated(pool.held));
    }
    let up = gauge("crier_bgp_session_up", "1 while the session is Established.", &["peer"])?;
    let sent = gauge("crier_bgp_prefixes_sent", "Prefixes announced to the peer.", &["peer"])?;
    let wanted = gauge("crier_bgp_prefixes_wanted", "Prefixes to be announced to the peer.", &["peer"])?;
    for peer in &report.peers {
        let of_peer = [peer.name.as_str()];
        up.with_label_values(&of_peer).set(i64::from(peer.state == SessionState::Established));
        sent.with_label_values(&of_peer).set(saturated(peer.prefixes_sent));
        wanted.with_label_values(&of_peer).set(saturated(peer.prefixes_wanted));
    }
    let answered = gauge("crier_l2_addresses", "Addresses that this node answers for on the link.", &["interface"])?;
    for link in &report.links {
        answered.with_label_values(&[link.name.as_str()]).set(saturated(link.answers_for.len()));
    }
    let services =
        gauge("crier_services", "Services of type LoadBalancer, by whether they hold an address.", &["held"])?;
    let with_address = report.services.iter().filter(|it| !it.decision.allocation.held.is_empty()).count();
    services.with_label_values(&["true"]).set(saturated(with_address));
    services.with_label_values(&["false"]).set(saturated(report.services.len() - with_address));

    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

fn saturated<T: TryInto<i64>>(count: T) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;

    #[test]
    fn every_pool_and_peer_has_its_numbers_even_before_the_first_plan() {
        let text =
            "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n".to_owned();
        let config = Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap());
        let node = "node-1".into();
        let planner = Planner::new(config.clone(), node);
        let report = Report::of(&planner, &config, &"node-1".into(), jiff::Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(encode(&report).unwrap()).unwrap();
        for line in [
            "crier_pool_addresses{pool=\"lan\"} 16",
            "crier_pool_addresses_held{pool=\"lan\"} 0",
            "crier_allocates 1",
            "crier_services{held=\"true\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
