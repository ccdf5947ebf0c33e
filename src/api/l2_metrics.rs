//! The metrics of the link: requests and answers, moves, conflicts, pulses and how fast silence is noticed. Floor 4.

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::agent::l2_figures::{Direction, L2Figures, PulseFigures};
use crate::views::status::{LinkReport, PulseReport};

/// Causes of moves that have a series from the start, so that the first of them is seen as a change.
const USUAL_CAUSES: [&str; 6] =
    ["first-use", "owner-silent", "owner-restarted", "node-left", "better-node", "node-lacks-endpoint"];

/// Registers what was counted on the links.
pub fn register(registry: &Registry, figures: &L2Figures) -> Result<(), prometheus::Error> {
    let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(counter.clone()))?;
        Ok(counter)
    };
    let on_link = |name: &str, help: &str| counter(name, help, &["interface"]);
    let frames = |name: &str, help: &str| counter(name, help, &["interface", "protocol"]);
    let requests = frames(
        "crier_l2_requests_total",
        "ARP requests and neighbour solicitations heard that were answered, or that ask for what this node does not own.",
    )?;
    let answers = frames("crier_l2_answers_total", "ARP replies and neighbour advertisements sent to who asked.")?;
    let ignored = counter(
        "crier_l2_ignored_total",
        "ARP and NDP frames heard and left without an answer, by reason.",
        &["interface", "protocol", "reason"],
    )?;
    let gratuitous = frames("crier_l2_gratuitous_total", "Gratuitous ARP frames and unsolicited advertisements sent.")?;
    let probes = frames("crier_l2_probes_total", "Frames sent to ask whether anybody has an address.")?;
    let claims = frames("crier_l2_claims_heard_total", "Frames in which another station claimed an address of ours.")?;
    let lost = frames("crier_l2_frames_lost_total", "Frames lost because they came faster than they were judged.")?;
    let unsent = frames("crier_l2_frames_unsent_total", "Frames that the kernel did not take.")?;
    for link in &figures.links {
        let of_link = [link.link.as_str(), link.protocol.code()];
        let not_owned = link.ignored.get("not-owned").copied().unwrap_or(0);
        requests.with_label_values(&of_link).inc_by(link.answers + not_owned);
        answers.with_label_values(&of_link).inc_by(link.answers);
        gratuitous.with_label_values(&of_link).inc_by(link.gratuitous);
        probes.with_label_values(&of_link).inc_by(link.probes);
        claims.with_label_values(&of_link).inc_by(link.claims_heard);
        lost.with_label_values(&of_link).inc_by(link.lost);
        unsent.with_label_values(&of_link).inc_by(link.unsent);
        for (reason, count) in &link.ignored {
            ignored.with_label_values(&[link.link.as_str(), link.protocol.code(), reason]).inc_by(*count);
        }
    }
    let moves = counter(
        "crier_l2_moves_total",
        "Changes of an address's owner, by way (in: to this node) and cause.",
        &["direction", "cause"],
    )?;
    for (direction, cause) in Direction::ALL.into_iter().flat_map(|it| USUAL_CAUSES.map(|cause| (it, cause))) {
        moves.with_label_values(&[direction.code(), cause]).inc_by(0);
    }
    for it in &figures.moves {
        moves.with_label_values(&[it.direction.code(), &it.cause]).inc_by(it.count);
    }
    let conflicts = counter(
        "crier_l2_conflicts_total",
        "Conflicts with other stations that began, by kind.",
        &["interface", "kind"],
    )?;
    for it in &figures.conflicts {
        conflicts.with_label_values(&[it.link.as_str(), it.kind.code()]).inc_by(it.count);
    }
    let sent = on_link("crier_pulse_sent_total", "Pulses sent, one for each datagram.")?;
    let octets = on_link("crier_pulse_sent_bytes_total", "Octets of UDP payload of the pulses sent.")?;
    let not_sent = on_link("crier_pulse_unsent_total", "Pulses that the kernel did not take.")?;
    let received = counter(
        "crier_pulse_received_total",
        "Pulses heard, by what became of them: taken, or why they were refused.",
        &["interface", "outcome"],
    )?;
    for link in &figures.pulses {
        let of_link = [link.link.as_str()];
        sent.with_label_values(&of_link).inc_by(link.sent);
        octets.with_label_values(&of_link).inc_by(link.octets_sent);
        not_sent.with_label_values(&of_link).inc_by(link.unsent);
        for (outcome, count) in &link.received {
            received.with_label_values(&[link.link.as_str(), outcome]).inc_by(*count);
        }
    }
    Ok(())
}

/// Registers how the links stand now: who is in the way, and who is alive.
pub fn register_links(registry: &Registry, links: &[LinkReport], pulse: &PulseReport) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let answered = gauge("crier_l2_addresses", "Addresses that this node answers for on the link.", &["interface"])?;
    let conflicts =
        gauge("crier_l2_conflicts", "Addresses that another station is in the way of.", &["interface", "kind"])?;
    for link in links {
        let count = i64::try_from(link.answers_for.len()).unwrap_or(i64::MAX);
        answered.with_label_values(&[link.name.as_str()]).set(count);
        for conflict in &link.conflicts {
            conflicts.with_label_values(&[link.name.as_str(), conflict.kind.code()]).inc();
        }
    }
    let nodes =
        gauge("crier_pulse_nodes", "Other nodes on the link, by what their pulses tell.", &["interface", "state"])?;
    let settled =
        gauge("crier_pulse_settled", "1 once this node has listened long enough to own addresses.", &["interface"])?;
    for roster in &pulse.links {
        let link = roster.link.as_str();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        nodes.with_label_values(&[link, "alive"]).set(count(roster.members.len()));
        nodes.with_label_values(&[link, "silent"]).set(count(roster.silent.len()));
        settled.with_label_values(&[link]).set(i64::from(roster.settled));
    }
    Ok(())
}

/// How long owners had been silent when they were given up: counted elsewhere, and so no collector of the registry.
pub fn detection(pulses: &[PulseFigures]) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name("crier_pulse_detection_seconds".to_owned());
    family.set_help("Time from the last pulse of an owner to the verdict that it is silent.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    let metric = |of_link: &PulseFigures| {
        let bucket = |(bound, count): &(u64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(of_link.detections_within_millis.iter().map(bucket).collect());
        histogram.set_sample_count(of_link.detections);
        histogram.set_sample_sum(seconds(of_link.detections_took_millis));
        let mut label = LabelPair::default();
        label.set_name("interface".to_owned());
        label.set_value(of_link.link.to_string());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        metric
    };
    family.set_metric(pulses.iter().map(metric).collect());
    family
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;
    use crate::agent::l2_figures::{ConflictCount, LinkCounters, MoveCount, Tally};
    use crate::arp::machine::answer::Reason;
    use crate::arp::packet::Protocol;
    use crate::claim::ConflictKind;
    use crate::pulse::outcome::Outcome;

    #[test]
    fn everything_that_was_counted_on_a_link_has_its_series() {
        let counters = LinkCounters::default();
        let of_eth0 = counters.arp.of(&"eth0".into());
        let eth0 = of_eth0.of(Protocol::Arp);
        eth0.count_answer();
        eth0.count_answer();
        eth0.count_gratuitous();
        eth0.count_lost(7);
        eth0.count_ignored(Reason::NotOwned);
        of_eth0.of(Protocol::Ndp).count_answer();
        let pulse = counters.pulse.of(&"eth0".into());
        pulse.count_sent(120);
        pulse.count_received(Outcome::Forged);
        pulse.count_received(Outcome::Replayed);
        pulse.count_detection(std::time::Duration::from_millis(303));
        let figures = L2Figures {
            moves: vec![MoveCount { direction: Direction::In, cause: "owner-silent".to_owned(), count: 3 }],
            conflicts: vec![ConflictCount { link: "eth0".into(), kind: ConflictKind::Contested, count: 2 }],
            ..Tally::new(counters).figures()
        };
        let registry = Registry::new();
        register(&registry, &figures).unwrap();
        let mut families = registry.gather();
        families.push(detection(&figures.pulses));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "crier_l2_requests_total{interface=\"eth0\",protocol=\"arp\"} 3",
            "crier_l2_answers_total{interface=\"eth0\",protocol=\"arp\"} 2",
            "crier_l2_answers_total{interface=\"eth0\",protocol=\"ndp\"} 1",
            "crier_l2_gratuitous_total{interface=\"eth0\",protocol=\"arp\"} 1",
            "crier_l2_frames_lost_total{interface=\"eth0\",protocol=\"arp\"} 7",
            "crier_l2_ignored_total{interface=\"eth0\",protocol=\"arp\",reason=\"not-owned\"} 1",
            "crier_l2_moves_total{cause=\"owner-silent\",direction=\"in\"} 3",
            "crier_l2_moves_total{cause=\"owner-silent\",direction=\"out\"} 0",
            "crier_l2_conflicts_total{interface=\"eth0\",kind=\"contested\"} 2",
            "crier_pulse_sent_bytes_total{interface=\"eth0\"} 120",
            "crier_pulse_received_total{interface=\"eth0\",outcome=\"forged\"} 1",
            "crier_pulse_received_total{interface=\"eth0\",outcome=\"other-key\"} 0",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"0.3\"} 0",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"0.35\"} 1",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"+Inf\"} 1",
            "crier_pulse_detection_seconds_sum{interface=\"eth0\"} 0.303",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
