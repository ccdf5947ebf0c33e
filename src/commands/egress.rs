//! `crier egress`: from which node and with which address outbound connections of pods leave the cluster. Floor 4.

use std::path::Path;

use ipnet::IpNet;

use super::table::{Table, printable};
use super::{Exit, Output, answer, ask, refused};
use crate::api::readings;
use crate::views::egress::{EgressReport, HeldBack};
use crate::views::new_pods::{HeldNewPod, NewPodsReport};

/// Exits with a problem where packets of pods are held back, or may be.
pub fn egress(socket: &Path, output: Output) -> Exit {
    match ask(socket, &readings::EGRESS, &()) {
        Ok(report) => answer(output, &report, |wide| screen(&report, wide)).with_problems(report.holds_back()),
        Err(error) => refused(&error),
    }
}

fn screen(report: &EgressReport, wide: bool) -> String {
    let released: Vec<String> = report.held_back.iter().map(held_back).collect();
    let released = match released.is_empty() {
        true => String::new(),
        false => format!(
            "\nheld back until [egress] release-after is over, although no Service asks for it any more: {}\n",
            released.join(", ")
        ),
    };
    let released = released + &report.new_pods.as_ref().map(new_pods).unwrap_or_default();
    let told = |all: &[String]| all.iter().map(|it| printable(it) + "\n").collect::<String>();
    let below = match (told(&report.problems), told(&report.notes)) {
        (problems, notes) if problems.is_empty() && notes.is_empty() => released,
        (problems, notes) => format!("\n{problems}{notes}{released}"),
    };
    if report.services.is_empty() {
        let ours = if report.problems.is_empty() { "" } else { " that is crier's" };
        return format!("no Service{ours} has the annotation crier.dev/egress\n{below}");
    }
    let head = ["SERVICE", "ADDRESS", "OWNER", "PODS", "PATH", "TRANSLATED", "DROPPED"];
    let head_wide: &[&str] = if wide { &["LINK", "NODES", "TO", "EXCEPT", "WHY"] } else { &[] };
    let mut table = Table::with_head(head.iter().chain(head_wide).copied().collect());
    let list = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
    for row in &report.services {
        let mut cells = vec![
            row.service.to_string(),
            row.address.map_or("-".to_owned(), |address| address.to_string()),
            row.owner.as_ref().map_or("-".to_owned(), ToString::to_string),
            row.pods.to_string(),
            row.path.name().to_owned(),
            row.translated.to_string(),
            row.dropped.to_string(),
        ];
        if wide {
            let cell = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
            let link = row.link.as_ref().map(ToString::to_string);
            let words = [link, row.nodes.clone(), Some(list(&row.to)), Some(list(&row.except)), row.reason.clone()];
            cells.extend(words.map(cell));
        }
        table.cells(cells);
    }
    format!("{table}{below}")
}

/// What is held back of new pods; nothing where nothing was ever.
fn new_pods(report: &NewPodsReport) -> String {
    if report.addresses == 0 && report.dropped == 0 {
        return String::new();
    }
    let held = report.held.iter().map(|HeldNewPod { address, pod, dropped, reason }| {
        let pod = pod.as_ref().map(|pod| format!(" ({pod})")).unwrap_or_default();
        printable(&format!("  {address}{pod}: {dropped} packets: {reason}")) + "\n"
    });
    let held: String = held.collect();
    format!(
        "\nnew pods: {} addresses are held back, {} packets were dropped since the agent started\n{held}",
        report.addresses, report.dropped
    )
}

/// `10.244.1.7 (until 2026-07-01T08:00:00Z, listed by shop/other)`
fn held_back(HeldBack { address, until, services }: &HeldBack) -> String {
    let services: Vec<String> = services.iter().map(ToString::to_string).collect();
    let until = until.map(|until| format!("until {until}"));
    let listed = (!services.is_empty()).then(|| format!("listed by {}", services.join(" and ")));
    match until.into_iter().chain(listed).collect::<Vec<_>>().join(", ") {
        nothing if nothing.is_empty() => address.to_string(),
        more => format!("{address} ({more})"),
    }
}
