//! The ConfigMap `kubevip` of kube-vip's cloud provider: ranges by namespace. Floor 1.
//! Whether kube-vip announces by ARP or BGP, and to whom, stands in its DaemonSet and is not read.

use super::draft::{Draft, Table, texts};
use super::metallb::{announce, range};
use super::object::{Object, shortened};

/// The part of a key that stands for all namespaces.
const GLOBAL: &str = "global";

/// What kube-vip is told to ask DHCP with.
const DHCP: [&str; 2] = ["0.0.0.0", "0.0.0.0/32"];

/// Translates what is kube-vip's. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], draft: &mut Draft) -> Vec<usize> {
    let ours = |(_, object): &(usize, &Object)| {
        object.kind == "ConfigMap" && object.group.is_empty() && object.name == "kubevip"
    };
    let mut used = Vec::new();
    for (at, object) in objects.iter().enumerate().filter(ours) {
        used.push(at);
        pools(object, draft);
    }
    used
}

fn pools(object: &Object, draft: &mut Draft) {
    let label = object.label();
    let data = object.value.get("data").and_then(|data| data.as_object());
    let mut names: Vec<String> = Vec::new();
    for (key, value) in data.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let shown = shortened(&format!("{value:?}"));
        match key.split_once('-') {
            Some(("cidr" | "range", scope)) if !scope.is_empty() => {
                names.extend(pool(&label, key, scope, value, draft));
            }
            Some(("allow", _)) if key.starts_with("allow-share-") => {}
            _ => {
                let text = "crier has no counterpart; see doc/migrate.md";
                draft.warn(&label, &format!("data.{key}"), &shown, text);
            }
        }
    }
    if !names.is_empty() {
        let text = "kube-vip says in its DaemonSet whether it uses ARP or BGP: for BGP, write [[bgp.peer]] and \
                    [[bgp.advertisement]] instead of [[l2]]";
        draft.warn(&label, "data", "", text);
        announce(&names, &label, draft);
    }
}

/// A pool of one key; none if nothing of it can be used.
fn pool(label: &str, key: &str, scope: &str, value: &str, draft: &mut Draft) -> Option<String> {
    let mut table = Table::new("pool", label);
    let path = format!("data.{key}");
    let name = draft.name(&mut table, key, &path);
    let mut ranges = Vec::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let shown = shortened(&format!("{part:?}"));
        match range(part) {
            _ if DHCP.contains(&part) => {
                table.check(draft, &path, &shown, "crier does not ask DHCP for addresses; write a range");
            }
            Ok((range, _)) => ranges.push(range),
            Err(problem) => table.check(draft, &path, &shown, &format!("{problem}; these addresses were left out")),
        }
    }
    let found = !ranges.is_empty();
    if !found {
        table.check(draft, &path, "", "the pool has no addresses that crier can use; it is a comment");
        table.off = true;
    }
    table.set("addresses", texts(&ranges), &path);
    if scope != GLOBAL {
        // kube-vip looks at the namespace's own addresses first.
        table.set("priority", "100".to_owned(), &path);
        table.narrow("namespaces", texts(&[scope]), &path);
    }
    draft.push(table);
    found.then_some(name)
}
