//! MetalLB's custom resources, and by the same functions the ConfigMap that it read before them. Floor 1.
//! Not for the ConfigMap's form; that is `metallb_config_map`. Not for BGP; that is `metallb_bgp`.

use super::SecretFiles;
use super::draft::{Draft, Table, text, texts};
use super::metallb_bgp::Speaker;
use super::metallb_config_map::{self, former_pool};
use super::metallb_pool::{KnownPool, announcing, pool, pools_of};
use super::metallb_selectors::of_selectors;
use super::object::{Fields, Object};

pub(super) const GROUP: &str = "metallb.io";

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
    for (at, object) in of("BFDProfile") {
        take(at);
        speaker.profile(object.spec(draft), &object.name, draft);
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
