//! MetalLB's pools, and how advertisements and Services name them. Floor 1.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::annotate::{Annotations, joined};
use super::draft::{Draft, Table, texts};
use super::label_selector::{Selected, any_of};
use super::metallb_selectors::{cannot_select, only};
use super::object::{Fields, Object};
use super::shown::{shortened, shown};
use crate::address::AddressRange;
use crate::config::section::pool::unusable;
use crate::k8s::annotation::POOL;
use crate::selector::Labels;

/// Whose pools these are.
pub(super) const METALLB: &str = "MetalLB";

/// What a Service names its pool by.
const POOL_ANNOTATIONS: [&str; 2] = ["metallb.io/address-pool", "metallb.universe.tf/address-pool"];

/// A pool as others refer to it.
#[derive(Debug)]
pub(super) struct KnownPool {
    /// As MetalLB has it.
    pub original: String,
    /// As crier has it.
    pub name: String,
    pub labels: Labels,
}

/// An `[[l2]]` for these pools, on every node and link.
pub(super) fn announcing(pools: &[String], object: &str) -> Table {
    let mut table = Table::new("l2", object);
    table.narrow("pools", texts(pools), "protocol");
    table
}

pub(super) fn pool(object: &Object, draft: &mut Draft) -> KnownPool {
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
pub(super) fn addresses(spec: &mut Fields<'_>, table: &mut Table, draft: &mut Draft) {
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
    let (plain, changed) = match plain.parse::<ipnet::IpNet>() {
        Ok(net) if !has_leading_zero(&plain) => (net.trunc().to_string(), net.trunc() != net),
        Ok(_) => return Err("a number of it begins with 0, and other programs read it as octal".to_owned()),
        Err(_) => (plain, false),
    };
    match plain.parse::<AddressRange>() {
        Ok(range) => match unusable(&range) {
            None => Ok((plain, changed)),
            Some(what) => Err(format!("it contains {what}, which no Service can have")),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// In an octet of IPv4.
fn has_leading_zero(net: &str) -> bool {
    !net.contains(':') && net.split(['.', '/']).any(|number| number.len() > 1 && number.starts_with('0'))
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
    // What is to blame where no pool is left.
    let path = if names.is_empty() { &selectors_path } else { &names_path };
    let selecting = spec.value("ipAddressPoolSelectors").filter(|_| names.is_empty()).map(shown).unwrap_or_default();
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
    let mut seen = BTreeSet::new();
    pools.retain(|pool| seen.insert(pool.clone()));
    if by_label {
        table.note("crier has no labels on pools: a pool that is added later must be added here too");
    }
    if pools.is_empty() {
        table.check(
            draft,
            path,
            &selecting,
            "no pool is left, and an empty list would be all pools; the table is a comment",
        );
        table.off = true;
    }
    table.narrow("pools", texts(&pools), path);
}

fn has_items(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty())
}
