//! `crier egress`: by which node and with which address what pods open leaves the cluster. Floor 4.

use std::path::Path;

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
    if report.services.is_empty() {
        return "no Service has the annotation crier.dev/egress\n".to_owned();
    }
    let mut table = Table::with_head(
        ["SERVICE", "ADDRESS", "OWNER", "PODS", "PATH", "TRANSLATED", "DROPPED"]
            .into_iter()
            .chain(wide.then_some("WHY HELD"))
            .collect(),
    );
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
        cells.extend(wide.then(|| row.reason.clone().unwrap_or_else(|| "-".to_owned())));
        table.cells(cells);
    }
    let problems: String = report.problems.iter().map(|problem| printable(problem) + "\n").collect();
    if problems.is_empty() { table.to_string() } else { format!("{table}\n{problems}") }
}
