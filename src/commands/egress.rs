//! `crier egress`: by which node and with which address what pods open leaves the cluster. Floor 4.

use std::path::Path;

use ipnet::IpNet;

use super::table::{Table, printable};
use super::{Exit, Output, answer, ask, refused};
use crate::api::readings;
use crate::views::egress::EgressReport;

/// Exits with a problem where packets of pods are held back.
pub fn egress(socket: &Path, output: Output) -> Exit {
    match ask(socket, &readings::EGRESS, &()) {
        Ok(report) => answer(output, &report, |wide| screen(&report, wide)).with_problems(!report.problems.is_empty()),
        Err(error) => refused(&error),
    }
}

fn screen(report: &EgressReport, wide: bool) -> String {
    let released: Vec<String> = report.released.iter().map(ToString::to_string).collect();
    let released = match released.is_empty() {
        true => String::new(),
        false => format!(
            "\nheld back until [egress] release-after is over, although no Service asks for it any more: {}\n",
            released.join(", ")
        ),
    };
    if report.services.is_empty() {
        return format!("no Service has the annotation crier.dev/egress\n{released}");
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
    let problems: String = report.problems.iter().map(|problem| printable(problem) + "\n").collect();
    if problems.is_empty() { format!("{table}{released}") } else { format!("{table}\n{problems}{released}") }
}
