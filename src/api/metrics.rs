//! The report as Prometheus metrics: base units, `crier_` in front. Floor 4.

use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::l2_metrics;
use crate::agent::report::{PeerReport, Report};
use crate::world::{Direction, NotificationCount, SessionState};

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
    bgp(&registry, &report.peers)?;
    for peer in &report.peers {
        let of_peer = [peer.name.as_str()];
        up.with_label_values(&of_peer).set(i64::from(peer.state == SessionState::Established));
        sent.with_label_values(&of_peer).set(saturated(peer.prefixes_sent));
        wanted.with_label_values(&of_peer).set(saturated(peer.prefixes_wanted));
    }
    l2_metrics::register_links(&registry, &report.links, &report.pulse)?;
    l2_metrics::register(&registry, &report.l2)?;
    let services =
        gauge("crier_services", "Services of type LoadBalancer, by whether they hold an address.", &["held"])?;
    let with_address = report.services.iter().filter(|it| !it.decision.allocation.held.is_empty()).count();
    services.with_label_values(&["true"]).set(saturated(with_address));
    services.with_label_values(&["false"]).set(saturated(report.services.len() - with_address));

    let mut text = Vec::new();
    let mut families = registry.gather();
    // A family without a series is refused by the encoder.
    if !report.l2.pulses.is_empty() {
        families.push(l2_metrics::detection(&report.l2.pulses));
    }
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

/// What `crier bgp peers` shows, in the same words.
fn bgp(registry: &Registry, peers: &[PeerReport]) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["peer"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    };
    let since = gauge("crier_bgp_session_state_since_timestamp_seconds", "When the session came into its state.")?;
    let failed = gauge(
        "crier_bgp_session_last_error_timestamp_seconds",
        "When the session, or the attempt at one, last failed.",
    )?;
    let pending =
        gauge("crier_bgp_prefixes_pending", "Prefixes that are still to be announced to the peer, or withdrawn.")?;
    let unsendable = gauge("crier_bgp_prefixes_unsendable", "Prefixes that the session cannot carry.")?;
    let established =
        counter("crier_bgp_session_established_total", "How often the session was established.", &["peer"])?;
    let messages =
        counter("crier_bgp_messages_total", "BGP messages, by type and direction.", &["peer", "direction", "type"])?;
    let notifications = counter(
        "crier_bgp_notifications_total",
        "NOTIFICATIONs by code and subcode; 0/0 are those without a name.",
        &["peer", "direction", "code", "subcode"],
    )?;
    let received = counter(
        "crier_bgp_prefixes_received_total",
        "Prefixes that the peer announced in this session; all are dropped.",
        &["peer"],
    )?;
    let malformed = counter(
        "crier_bgp_updates_malformed_total",
        "UPDATEs of this session with something wrong in them that the session survived.",
        &["peer"],
    )?;
    for peer in peers {
        let (of_peer, session) = ([peer.name.as_str()], &peer.session);
        since.with_label_values(&of_peer).set(peer.since.map_or(0, |at| at.as_second()));
        failed.with_label_values(&of_peer).set(session.last_error_at.map_or(0, |at| at.as_second()));
        pending.with_label_values(&of_peer).set(saturated(session.prefixes_pending));
        unsendable.with_label_values(&of_peer).set(saturated(peer.prefixes_unsendable));
        established.with_label_values(&of_peer).inc_by(session.times_established);
        received.with_label_values(&of_peer).inc_by(peer.prefixes_received);
        malformed.with_label_values(&of_peer).inc_by(session.updates_malformed);
        for (direction, counts) in [("sent", &session.messages_sent), ("received", &session.messages_received)] {
            for (name, count) in counts.by_type() {
                messages.with_label_values(&[peer.name.as_str(), direction, name]).inc_by(count);
            }
        }
        for NotificationCount { direction, code, subcode, count } in &session.notifications {
            let direction = match direction {
                Direction::Sent => "sent",
                Direction::Received => "received",
            };
            let labels = [peer.name.as_str(), direction, &code.to_string(), &subcode.to_string()];
            notifications.with_label_values(&labels).inc_by(*count);
        }
    }
    Ok(())
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
    use crate::world::{MessageCounts, SessionDetail};

    #[test]
    fn every_pool_and_peer_has_its_numbers_even_before_the_first_plan() {
        let text =
            "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n".to_owned();
        let config = Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap());
        let node = "node-1".into();
        let planner = Planner::new(config.clone(), node);
        let report = Report::of(&planner, &config, &"node-1".into(), jiff::Timestamp::UNIX_EPOCH, Default::default());
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

    #[test]
    fn a_peer_has_its_messages_notifications_and_times() {
        let counts = MessageCounts { update: 7, ..MessageCounts::default() };
        let hold_timer = NotificationCount { direction: Direction::Sent, code: 4, subcode: 0, count: 2 };
        let peer = PeerReport {
            name: "tor".into(),
            description: None,
            address: "10.0.0.1".to_owned(),
            asn: Some(64512),
            local_asn: 64513,
            state: SessionState::Established,
            since: Some(jiff::Timestamp::from_second(1_700_000_000).unwrap()),
            local_address: None,
            hold_time_secs: Some(90),
            prefixes_wanted: 9,
            prefixes_sent: 5,
            prefixes_unsendable: 1,
            prefixes_received: 4,
            last_error: None,
            security: Default::default(),
            session: SessionDetail {
                times_established: 3,
                messages_sent: counts,
                notifications: vec![hold_timer],
                prefixes_pending: 3,
                ..SessionDetail::default()
            },
        };
        let registry = Registry::new();
        bgp(&registry, &[peer]).unwrap();
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "crier_bgp_messages_total{direction=\"sent\",peer=\"tor\",type=\"update\"} 7",
            "crier_bgp_messages_total{direction=\"received\",peer=\"tor\",type=\"keepalive\"} 0",
            "crier_bgp_notifications_total{code=\"4\",direction=\"sent\",peer=\"tor\",subcode=\"0\"} 2",
            "crier_bgp_session_established_total{peer=\"tor\"} 3",
            "crier_bgp_session_state_since_timestamp_seconds{peer=\"tor\"} 1700000000",
            "crier_bgp_prefixes_pending{peer=\"tor\"} 3",
            "crier_bgp_prefixes_unsendable{peer=\"tor\"} 1",
            "crier_bgp_prefixes_received_total{peer=\"tor\"} 4",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
