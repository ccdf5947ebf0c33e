//! MetalLB's custom resources, and by the same functions the ConfigMap that it read before them. Floor 1.
//! Not for the ConfigMap's form; that is `metallb_config_map`. Not for BGP; that is `metallb_bgp`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::SecretFiles;
use super::annotate::{Annotations, joined};
use super::draft::{Draft, Table, text, texts};
use super::label_selector::{Selected, any_of};
use super::metallb_bgp::{self, Speaker};
use super::metallb_config_map;
use super::object::{Fields, Object, shortened};
use super::ovn;
use crate::address::AddressRange;
use crate::k8s::annotation::POOL;
use crate::selector::Labels;

pub(super) const GROUP: &str = "metallb.io";

/// Whose pools these are.
const METALLB: &str = "MetalLB";

/// What a Service names its pool by.
const POOL_ANNOTATIONS: [&str; 2] = ["metallb.io/address-pool", "metallb.universe.tf/address-pool"];

/// A pool as others refer to it.
#[derive(Debug)]
pub(super) struct KnownPool {
    /// As MetalLB has it.
    original: String,
    /// As crier has it.
    name: String,
    labels: Labels,
}

/// Translates what is MetalLB's. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], secrets: &SecretFiles, draft: &mut Draft) -> Vec<usize> {
    let of = |kind: &'static str| {
        let ours = move |(_, object): &(usize, &Object)| object.group == GROUP && object.kind == kind;
        objects.iter().enumerate().filter(ours)
    };
    let mut used = Vec::new();
    let mut take = |at: usize| used.push(at);
    let mut speaker = Speaker::new(objects, secrets);
    let mut pools = Vec::new();
    let mut layer2 = Vec::new();
    for (at, object) in of("Community") {
        take(at);
        speaker.communities(object, draft);
    }
    for (at, object) in of("IPAddressPool") {
        take(at);
        pools.push(pool(object, draft));
    }
    for (at, object) in of("BGPPeer") {
        take(at);
        speaker.peer(object.spec(draft), &object.name, &object.namespace, draft);
    }
    for (at, object) in of("AddressPool") {
        take(at);
        let mut spec = object.spec(draft);
        pools.push(former_pool(&mut spec, &object.name, &mut layer2, &mut speaker, draft));
        spec.finish(draft);
    }
    for (at, object) in of("L2Advertisement") {
        take(at);
        l2(object, &pools, draft);
    }
    for (at, object) in of("BGPAdvertisement") {
        take(at);
        speaker.advertisement(object, &pools, draft);
    }
    for (at, object) in of("BFDProfile") {
        take(at);
        metallb_bgp::profile(object.spec(draft), &object.name, draft);
    }
    if !layer2.is_empty() {
        draft.push(announcing(&layer2, "AddressPools with protocol layer2"));
    }
    for (at, object) in objects.iter().enumerate().filter(|(_, it)| metallb_config_map::is_one(it)) {
        take(at);
        metallb_config_map::translate(object, &mut speaker, draft);
    }
    speaker.finish(draft);
    used
}

/// An `[[l2]]` for these pools, on every node and link.
pub(super) fn announcing(pools: &[String], object: &str) -> Table {
    let mut table = Table::new("l2", object);
    table.narrow("pools", texts(pools), "protocol");
    table
}

fn pool(object: &Object, draft: &mut Draft) -> KnownPool {
    let mut table = Table::new("pool", &object.label());
    let begun = draft.begin();
    let mut spec = object.spec(draft);
    let name = draft.name(&mut table, &object.name, "metadata.name");
    let labels = Labels(object.texts_of_metadata("labels").collect());
    addresses(&mut spec, &mut table, draft);
    if let Some(mut allocation) = spec.fields("serviceAllocation", draft) {
        // Zero is "not set" there, and comes last; here it would be the first of all.
        if let Some(priority) = allocation.number("priority", draft).filter(|priority| *priority != 0) {
            table.set("priority", priority.to_string(), &allocation.path("priority"));
        }
        let namespaces = allocation.texts("namespaces", draft);
        if !namespaces.is_empty() {
            table.narrow("namespaces", texts(&namespaces), &allocation.path("namespaces"));
        }
        only(&mut table, "namespace-selector", &mut allocation, "namespaceSelectors", draft);
        only(&mut table, "service-selector", &mut allocation, "serviceSelectors", draft);
        allocation.finish(draft);
    }
    spec.finish(draft);
    draft.push_read(table, begun);
    draft.know(METALLB, &object.name, &name);
    KnownPool { original: object.name.clone(), name, labels }
}

/// The pools that a Service names by MetalLB's annotations, which crier reads as they are: only names that are others here need a
/// line. Whether it has such an annotation.
pub(super) fn service(object: &Object, annotations: &mut Annotations, draft: &Draft) -> bool {
    let all: BTreeMap<&str, &str> = object.texts_of_metadata("annotations").collect();
    let named = POOL_ANNOTATIONS.iter().find_map(|key| all.get(key)).filter(|_| !all.contains_key(POOL));
    let names: Vec<&str> = named.into_iter().flat_map(|names| names.split(',')).map(str::trim).collect();
    let here: Vec<&str> = names.iter().map(|name| draft.known(METALLB, name).unwrap_or(name)).collect();
    if here != names {
        annotations.set(POOL, joined(&here));
    }
    named.is_some()
}

/// The pools that a Service names, as they are named here.
pub(super) fn pools_named(object: &Object, draft: &Draft) -> Vec<String> {
    let all: BTreeMap<&str, &str> = object.texts_of_metadata("annotations").collect();
    let names = |key: &str| all.get(key).into_iter().flat_map(|names| names.split(',')).map(str::trim);
    if all.contains_key(POOL) {
        return names(POOL).map(str::to_owned).collect();
    }
    let theirs = POOL_ANNOTATIONS.iter().find(|key| all.contains_key(*key));
    let names = theirs.into_iter().flat_map(|key| names(key));
    names.map(|name| draft.known(METALLB, name).unwrap_or(name).to_owned()).collect()
}

/// The keys that pools of all versions have: addresses, autoAssign, avoidBuggyIPs; and sharing, as MetalLB has it.
fn addresses(spec: &mut Fields<'_>, table: &mut Table, draft: &mut Draft) {
    let path = spec.path("addresses");
    let mut ranges = Vec::new();
    for written in spec.texts("addresses", draft) {
        match range(written) {
            Ok((range, changed)) => {
                if changed {
                    table.note(&format!("{path} {}: MetalLB takes the whole network {range}", shortened(written)));
                }
                ranges.push(range);
            }
            Err(problem) => {
                let value = shortened(&format!("{written:?}"));
                table.check(draft, &path, &value, &format!("{problem}; these addresses were left out"));
            }
        }
    }
    if ranges.is_empty() {
        table.check(draft, &path, "", "the pool has no addresses that crier can read; it is a comment");
        table.off = true;
    }
    table.set("addresses", texts(&ranges), &path);
    if spec.flag("autoAssign", draft) == Some(false) {
        table.set("auto-assign", "false".to_owned(), &spec.path("autoAssign"));
    }
    if spec.flag("avoidBuggyIPs", draft) == Some(true) {
        table.set("avoid-network-and-broadcast", "true".to_owned(), &spec.path("avoidBuggyIPs"));
    }
    table.set("share-across-namespaces", "true".to_owned(), "");
}

/// One entry of `addresses` as crier writes it, and whether it had host bits, which MetalLB drops.
pub(super) fn range(written: &str) -> Result<(String, bool), String> {
    let plain: String = written.split_whitespace().collect();
    if let Ok(net) = plain.parse::<ipnet::IpNet>() {
        return Ok((net.trunc().to_string(), net.trunc() != net));
    }
    match plain.parse::<AddressRange>() {
        Ok(_) => Ok((plain, false)),
        Err(error) => Err(error.to_string()),
    }
}

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
        let (selected, dropped) = ovn::without_labels(any_of(spec, list, draft));
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

/// `pools` of an advertisement, by name and by label. Without either MetalLB announces all.
pub(super) fn pools_of(table: &mut Table, spec: &mut Fields<'_>, known: &[KnownPool], draft: &mut Draft) {
    let (names_path, selectors_path) = (spec.path("ipAddressPools"), spec.path("ipAddressPoolSelectors"));
    let names = spec.texts("ipAddressPools", draft);
    let selected = any_of(spec, "ipAddressPoolSelectors", draft);
    let by_label = !matches!(&selected, Selected::All) || spec.value("ipAddressPoolSelectors").is_some_and(has_items);
    if names.is_empty() && !by_label {
        return;
    }
    let mut pools: Vec<String> = Vec::new();
    for name in names {
        match known.iter().find(|pool| pool.original == name) {
            Some(pool) => pools.push(pool.name.clone()),
            None => {
                let text = "there is no such IPAddressPool among the objects; it was left out";
                table.check(draft, &names_path, &shortened(&format!("{name:?}")), text);
            }
        }
    }
    match selected {
        Selected::Any(selectors) => {
            let matching = known.iter().filter(|pool| selectors.iter().any(|selector| selector.matches(&pool.labels)));
            pools.extend(matching.map(|pool| pool.name.clone()));
        }
        Selected::All if by_label => pools.extend(known.iter().map(|pool| pool.name.clone())),
        Selected::All => {}
        Selected::Unreadable => cannot_select(table, &selectors_path, draft),
    }
    let mut seen = std::collections::BTreeSet::new();
    pools.retain(|pool| seen.insert(pool.clone()));
    if by_label {
        table.note("crier has no labels on pools: a pool that is added later must be added here too");
    }
    if pools.is_empty() {
        table.check(
            draft,
            &names_path,
            "",
            "no pool is left, and an empty list would be all pools; the table is a comment",
        );
        table.off = true;
    }
    table.narrow("pools", texts(&pools), &names_path);
}

fn has_items(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}

fn l2(object: &Object, pools: &[KnownPool], draft: &mut Draft) {
    let mut table = Table::new("l2", &object.label());
    let begun = draft.begin();
    let mut spec = object.spec(draft);
    pools_of(&mut table, &mut spec, pools, draft);
    let interfaces = spec.texts("interfaces", draft);
    if !interfaces.is_empty() {
        table.narrow("interfaces", texts(&interfaces), &spec.path("interfaces"));
    }
    preference(&mut table, &mut spec, draft);
    for table in of_selectors(table, &mut spec, draft) {
        draft.push_read(table, begun);
    }
    spec.finish(draft);
}

/// `preferredNodeSelectors`. An empty one prefers every node alike, and so none.
fn preference(table: &mut Table, spec: &mut Fields<'_>, draft: &mut Draft) {
    let path = spec.path("preferredNodeSelectors");
    let mut entries = Vec::new();
    for mut term in spec.list("preferredNodeSelectors", draft) {
        let weight = term.number("weight", draft).unwrap_or(1);
        let selector = term.fields("preference", draft).map(|fields| super::label_selector::one(fields, draft));
        if let Some(Ok(Some(selector))) = selector {
            entries.push(format!("{{ nodes = {}, weight = {weight} }}", text(&selector.to_string())));
        }
        term.finish(draft);
    }
    if !entries.is_empty() {
        table.set("preference", format!("[{}]", entries.join(", ")), &path);
    }
}

/// A pool of the time before IPAddressPool, which names its protocol itself.
pub(super) fn former_pool(
    fields: &mut Fields<'_>,
    wanted: &str,
    layer2: &mut Vec<String>,
    speaker: &mut Speaker<'_>,
    draft: &mut Draft,
) -> KnownPool {
    let mut table = Table::new("pool", &fields.object);
    let begun = draft.begin();
    let name = draft.name(&mut table, wanted, "name");
    addresses(fields, &mut table, draft);
    let (path, protocol) = (fields.path("protocol"), fields.text("protocol", draft));
    let advertisements = fields.list("bgpAdvertisements", draft);
    // The advertisements of a list are judged each by itself.
    draft.judge(&mut table, begun);
    match protocol {
        Some(_) if table.off => {}
        Some("layer2" | "arp") => layer2.push(name.clone()),
        Some("bgp") => speaker.former_advertisements(advertisements, &fields.object, &name, draft),
        other => {
            let value = shortened(&format!("{:?}", other.unwrap_or_default()));
            table.check(
                draft,
                &path,
                &value,
                "the protocol is neither layer2 nor bgp; crier announces the pool nowhere",
            );
        }
    }
    draft.push(table);
    draft.know(METALLB, wanted, &name);
    KnownPool { original: wanted.to_owned(), name, labels: Labels::default() }
}
