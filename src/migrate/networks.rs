//! The network of an EgressService: the VRF whose table it names, and the pools of the Service, which are to name it. Floor 1.
//! All other tables of the file are there before.

use std::collections::BTreeSet;

use serde_json::Value;

use super::draft::{Draft, Table, text};
use super::metallb_pool;
use super::object::Object;
use super::ovn_label::LABEL;
use super::shown::shortened;
use crate::names::ObjectKey;

/// Lets the pools of the Service name the VRF. `there`: the Service, if it is among the objects.
///
/// # Errors
/// Why a human must: nothing was written.
pub(super) fn lead(
    service: &ObjectKey,
    there: Option<&Object>,
    network: &str,
    objects: &[Object],
    draft: &mut Draft,
) -> Result<(), String> {
    let vrf = vrf(network, draft)?;
    let named = there.map(|it| metallb_pool::pools_named(it, draft)).unwrap_or_default();
    let pools = if named.is_empty() { advertised(service, objects, draft) } else { named.into_iter().collect() };
    if pools.is_empty() {
        return Err("which pool the address is from is not known".to_owned());
    }
    for pool in &pools {
        fits(pool, &vrf, draft)?;
    }
    let is_lacking = |table: &&mut Table| is_pool(table, &pools) && table.value("vrf").is_none();
    for table in draft.tables.iter_mut().filter(is_lacking) {
        table.note(&format!("EgressService {service} has the network {}", shortened(network)));
        table.set("vrf", text(&vrf), "");
    }
    Ok(())
}

/// The name of the VRF with this table, or of this name.
fn vrf(network: &str, draft: &Draft) -> Result<String, String> {
    let is_it = |table: &&Table| table.value("table") == Some(network) || table.value("name") == Some(&text(network));
    let vrfs = draft.tables.iter().filter(|table| table.section == "vrf").filter(is_it);
    let names: BTreeSet<String> = vrfs.flat_map(|table| table.texts("name")).collect();
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        (Some(first), Some(second)) => Err(format!("{first} and {second} have this table")),
        (None, _) => Err("no VRF among the objects has this table".to_owned()),
    }
}

/// The pools of the advertisements for the node that OVN-Kubernetes labels for the Service.
fn advertised(service: &ObjectKey, objects: &[Object], draft: &Draft) -> BTreeSet<String> {
    let label = format!("{LABEL}{}-{}", service.namespace, service.name);
    let has_label = |selector: &Value| {
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        let mut keys = expressions.into_iter().flatten().filter_map(|it| it.get("key"));
        labels.is_some_and(|labels| labels.contains_key(&label)) || keys.any(|key| *key == label.as_str())
    };
    let selects = |object: &&Object| {
        let selectors = object.value.pointer("/spec/nodeSelectors").and_then(Value::as_array);
        selectors.into_iter().flatten().any(has_label)
    };
    let labels: BTreeSet<String> = objects.iter().filter(selects).map(Object::label).collect();
    let tables = draft.tables.iter().filter(|table| labels.contains(&table.object));
    tables.flat_map(|table| table.texts("pools")).collect()
}

/// Whether all that the pool is announced to now is in the VRF: with `vrf` it is announced nowhere else.
fn fits(pool: &str, vrf: &str, draft: &Draft) -> Result<(), String> {
    let shown = || shortened(pool);
    let tables = |section: &'static str| draft.tables.iter().filter(move |table| table.section == section);
    let one = BTreeSet::from([pool.to_owned()]);
    let table = tables("pool").find(|table| is_pool(table, &one));
    match table.map(|table| table.texts("vrf").pop()) {
        None => return Err(format!("the file has no pool {}", shown())),
        Some(Some(other)) if other != vrf => {
            return Err(format!("the pool {} is to leave by {} too", shown(), shortened(&other)));
        }
        Some(_) => {}
    }
    let has_pool = |table: &&Table| table.value("pools").is_none() || table.texts("pools").iter().any(|it| it == pool);
    for advertisement in tables("bgp.advertisement").filter(has_pool) {
        let peers = advertisement.texts("peers");
        let is_told = |peer: &&Table| peers.is_empty() || peer.texts("name").iter().any(|name| peers.contains(name));
        let mut outside = tables("bgp.peer").filter(is_told).filter(|peer| peer.texts("vrf") != [vrf]);
        if let Some(peer) = outside.next() {
            let peer = shortened(&peer.texts("name").concat());
            return Err(format!("the pool {} is announced to the peer {peer} too, which is not in {vrf}", shown()));
        }
    }
    let ports: BTreeSet<String> =
        tables("vrf").filter(|it| it.texts("name") == [vrf]).flat_map(|it| it.texts("interfaces")).collect();
    let is_inside = |l2: &&Table| {
        let links = l2.texts("interfaces");
        !links.is_empty() && links.iter().all(|link| ports.contains(link))
    };
    match tables("l2").filter(has_pool).all(|l2| is_inside(&l2)) {
        true => Ok(()),
        false => Err(format!("the pool {} is announced on links too that are not in {vrf}", shown())),
    }
}

fn is_pool(table: &Table, names: &BTreeSet<String>) -> bool {
    table.section == "pool" && table.texts("name").iter().any(|name| names.contains(name))
}
