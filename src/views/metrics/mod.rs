//! The table of metrics: for each its name, kind, labels, help, and the function of the snapshot that reads it. Floor 1.
//! `/metrics` ([`text`]) and `doc/metrics.md` ([`document`]) are both written from it, so a new metric is one row in
//! [`agent`](self::agent), [`bfd`](self::bfd), [`bgp`](self::bgp) or [`link`](self::link). MetalLB's names are rows of [`metallb`](self::metallb).

mod agent;
mod bfd;
mod bgp;
mod document;
mod link;
mod metallb;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder, proto};

use super::Snapshot;
use crate::pulse::counters::Detection;

pub use document::document;

/// A row of the table.
pub struct Metric {
    /// `crier_`, what is measured, and its base unit; a counter ends in `_total`.
    name: &'static str,
    /// In the order of the names, which is also the order of the values in [`Series`].
    labels: &'static [&'static str],
    /// One sentence.
    help: &'static str,
    read: Read,
}

/// The kind of a metric, and where its values come from.
enum Read {
    Gauge(fn(&Snapshot, &mut Series)),
    Counter(fn(&Snapshot, &mut Series)),
    Histogram(fn(&Snapshot) -> Vec<(&str, &Detection)>),
}

/// The values of one metric, each with the values of its labels.
#[derive(Debug, Default)]
pub struct Series {
    values: BTreeMap<Vec<String>, u64>,
}

/// All of crier's own, as `/metrics` and the document list it.
fn table() -> impl Iterator<Item = &'static Metric> {
    agent::METRICS.iter().chain(&link::METRICS).chain(&bgp::METRICS).chain(&bfd::METRICS)
}

/// The metrics in the text format of Prometheus, by name; MetalLB's names among them where `[api] metallb-metrics` asks for them.
///
/// # Errors
/// When a row of the table has a name or a label that Prometheus does not take; a test reads them all.
pub fn text(snapshot: &Snapshot) -> Result<Vec<u8>, prometheus::Error> {
    let of_metallb = metallb::METRICS.iter().filter(|_| snapshot.config.api.metallb_metrics);
    let families = table().chain(of_metallb.map(|theirs| &theirs.metric)).map(|metric| metric.family(snapshot));
    // The encoder refuses a family without a series.
    let mut families: Vec<MetricFamily> = families.filter(|family| !family.get_metric().is_empty()).collect();
    families.sort_by(|one, other| one.name().cmp(other.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Snapshot, &mut Series),
) -> Metric {
    Metric { name, labels, help, read: Read::Gauge(read) }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Snapshot, &mut Series),
) -> Metric {
    Metric { name, labels, help, read: Read::Counter(read) }
}

/// A histogram of times, by its one label.
const fn histogram(
    name: &'static str,
    labels: &'static [&'static str; 1],
    help: &'static str,
    read: fn(&Snapshot) -> Vec<(&str, &Detection)>,
) -> Metric {
    Metric { name, labels, help, read: Read::Histogram(read) }
}

impl Metric {
    fn kind(&self) -> MetricType {
        match self.read {
            Read::Gauge(_) => MetricType::GAUGE,
            Read::Counter(_) => MetricType::COUNTER,
            Read::Histogram(_) => MetricType::HISTOGRAM,
        }
    }

    fn family(&self, snapshot: &Snapshot) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind());
        let metrics = match self.read {
            Read::Gauge(read) | Read::Counter(read) => {
                let mut series = Series::default();
                read(snapshot, &mut series);
                series.values.into_iter().map(|(labels, value)| self.number(labels, value)).collect()
            }
            Read::Histogram(read) => {
                read(snapshot).into_iter().map(|(label, times)| self.times(label.to_owned(), times)).collect()
            }
        };
        family.set_metric(metrics);
        family
    }

    fn number(&self, labels: Vec<String>, value: u64) -> proto::Metric {
        let mut metric = proto::Metric::from_label(self.pairs(labels));
        // The format of Prometheus knows only floats: exact up to 2^53.
        let value = value as f64;
        match self.read {
            Read::Counter(_) => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Read::Gauge(_) | Read::Histogram(_) => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    }

    fn times(&self, label: String, Detection { within, count, sum }: &Detection) -> proto::Metric {
        let bucket = |(bound, count): &(Duration, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(within.iter().map(bucket).collect());
        histogram.set_sample_count(*count);
        histogram.set_sample_sum(sum.as_secs_f64());
        let mut metric = proto::Metric::from_label(self.pairs(vec![label]));
        metric.set_histogram(histogram);
        metric
    }

    fn pairs(&self, values: Vec<String>) -> Vec<LabelPair> {
        let pair = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        self.labels.iter().zip(values).map(pair).collect()
    }
}

impl Series {
    /// The value of a metric without labels.
    fn only(&mut self, value: u64) {
        self.set([], value);
    }

    /// The value for these values of the labels, in the order of the row.
    fn set<const LABELS: usize>(&mut self, labels: [&str; LABELS], value: u64) {
        self.values.insert(labels.map(str::to_owned).to_vec(), value);
    }

    /// So many more for these values of the labels.
    fn add<const LABELS: usize>(&mut self, labels: [&str; LABELS], more: u64) {
        let value = self.values.entry(labels.map(str::to_owned).to_vec()).or_default();
        *value = value.saturating_add(more);
    }
}

/// A number of things in memory: no host has more than fit.
fn count(things: usize) -> u64 {
    u64::try_from(things).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
