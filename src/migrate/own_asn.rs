//! The AS number of `[bgp]`: other products say it with each peer, crier once, and again only where a peer differs. Floor 1.

use std::collections::BTreeMap;

use super::draft::{Draft, Item, Table};

/// Writes `[bgp]` with the AS number that most peers see, the first of them where several are as frequent, and takes it out of
/// these peers. Without peers there is no `[bgp]`.
pub(super) fn settle(draft: &mut Draft) {
    let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let peers = || 0..draft.tables.len();
    for at in peers() {
        let Some(asn) = draft.tables.get(at).and_then(local_asn) else { continue };
        seen.entry(asn).or_insert((0, at)).0 += 1;
    }
    let most = seen.into_iter().max_by_key(|(_, (count, first))| (*count, std::cmp::Reverse(*first)));
    let Some((asn, _)) = most else { return };
    for table in draft.tables.iter_mut().filter(|table| local_asn(table).as_ref() == Some(&asn)) {
        table.items.retain(|item| !item.is_key("local-asn"));
    }
    let mut table = Table::new("bgp", "");
    table.set("asn", asn, "");
    draft.push(table);
}

fn local_asn(table: &Table) -> Option<String> {
    let lines = table.items.iter().filter(|_| table.section == "bgp.peer");
    lines.into_iter().find_map(|item| match item {
        Item::Line(line) if line.key == "local-asn" => Some(line.value.clone()),
        Item::Line(_) | Item::Check(_) | Item::Note(_) => None,
    })
}
