//! MetalLB's lists of selectors, of which any may match: crier has one selector in a table. Floor 1.

use super::draft::{Draft, Table, text};
use super::label_selector::{Selected, any_of};
use super::object::Fields;
use super::ovn_label;
use super::shown::shortened;

/// The one selector that crier has where MetalLB has a list of which any may match.
pub(super) fn only(table: &mut Table, key: &str, fields: &mut Fields<'_>, list: &'static str, draft: &mut Draft) {
    let path = fields.path(list);
    match any_of(fields, list, draft) {
        Selected::All => {}
        Selected::Unreadable => cannot_select(table, &path, draft),
        Selected::Any(selectors) => {
            let Some((first, others)) = selectors.split_first() else { return };
            if !others.is_empty() {
                let others: Vec<String> = others.iter().map(|other| format!("\"{other}\"")).collect();
                let message = "MetalLB takes what any of its selectors matches; crier has one selector, which is the first here. \
                               Not taken: ";
                table.check(draft, &path, "", &format!("{message}{}", shortened(&others.join(" or "))));
            }
            table.narrow(key, text(&first.to_string()), &path);
        }
    }
}

pub(super) fn cannot_select(table: &mut Table, path: &str, draft: &mut Draft) {
    table.check(
        draft,
        path,
        "",
        "a selector cannot be read, so what it selects is unknown; the whole table is a comment",
    );
    table.off = true;
}

/// The tables that a list of selectors makes of these: crier has one selector in each, under `key`.
pub(super) fn for_each_selector(
    tables: Vec<Table>,
    key: &str,
    path: &str,
    selected: &Selected,
    draft: &mut Draft,
) -> Vec<Table> {
    let mut made = Vec::new();
    for mut table in tables {
        match selected {
            Selected::All => made.push(table),
            Selected::Unreadable => {
                cannot_select(&mut table, path, draft);
                made.push(table);
            }
            Selected::Any(selectors) => made.extend(selectors.iter().map(|selector| {
                let mut table = table.clone();
                table.narrow(key, text(&selector.to_string()), path);
                table
            })),
        }
    }
    made
}

/// The tables of an advertisement: one for each of its node and Service selectors.
pub(super) fn of_selectors(table: Table, spec: &mut Fields<'_>, draft: &mut Draft) -> Vec<Table> {
    let mut tables = vec![table];
    for (key, list) in [("service-selector", "serviceSelectors"), ("nodes", "nodeSelectors")] {
        let (selected, dropped) = ovn_label::without_labels(any_of(spec, list, draft));
        for table in tables.iter_mut().filter(|_| dropped) {
            let text = "OVN-Kubernetes labels the node of an EgressService; it was left out. crier announces a Service with \
                        crier.dev/egress from the node that its packets leave by, and other Services of these pools from all \
                        nodes";
            table.check(draft, &spec.path(list), "", text);
        }
        tables = for_each_selector(tables, key, &spec.path(list), &selected, draft);
    }
    tables
}
