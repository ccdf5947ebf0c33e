//! NMState's NodeNetworkConfigurationPolicy: its VRFs, as `[[vrf]]`; and its rules that keep networks of the cluster in the main
//! table. Floor 1. Of policies without a VRF or such a rule nothing is of use: crier makes no other interface.
//!
//! What policies for the same nodes say is one: a VRF may be in one, and its routes in another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::draft::{Draft, Table, text, texts};
use super::object::{Fields, Object};
use super::shown::shortened;

const GROUP: &str = "nmstate.io";

/// The kernel's table `main`.
const MAIN: i64 = 254;

/// What the policies for some nodes say.
#[derive(Debug, Default)]
struct Nodes {
    vrfs: Vec<Vrf>,
    /// The addresses of each interface.
    addresses: BTreeMap<String, Vec<String>>,
    /// The interfaces that somebody must make, with their types.
    made: BTreeMap<String, String>,
    /// The routes by the number of their table, in order.
    routes: BTreeMap<i64, Vec<Route>>,
}

#[derive(Debug)]
struct Vrf {
    object: String,
    /// Where it is in the object.
    path: String,
    name: String,
    ports: Vec<String>,
    table: i64,
}

#[derive(Debug)]
struct Route {
    object: String,
    to: IpNet,
    via: IpAddr,
    metric: i64,
}

/// Translates what is NMState's. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], draft: &mut Draft) -> Vec<usize> {
    let is_policy = |object: &Object| object.group == GROUP && object.kind == "NodeNetworkConfigurationPolicy";
    // The interfaces that are VRFs or in one.
    let concerned: BTreeSet<String> = objects.iter().filter(|it| is_policy(it)).flat_map(in_vrfs).collect();
    let ours = |(_, object): &(usize, &Object)| is_policy(object) && concerns(object, &concerned);
    let mut used = Vec::new();
    // By the selector, in kubectl's words; empty for all nodes.
    let mut found: BTreeMap<String, Nodes> = BTreeMap::new();
    let mut cluster: Vec<String> = Vec::new();
    let mut with_rules = String::new();
    for (at, object) in objects.iter().enumerate().filter(ours) {
        used.push(at);
        let begun = draft.begin();
        let mut spec = object.spec(draft);
        let selector: Vec<String> =
            spec.pairs("nodeSelector", draft).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        if draft.has_misread(begun) {
            // Its VRFs would be on all nodes.
            let table = Table::new("vrf", &object.label());
            draft.push_read(table, begun);
            continue;
        }
        let nodes = found.entry(selector.join(", ")).or_default();
        if let Some(state) = spec.fields("desiredState", draft) {
            let rules = desired(state, &object.label(), nodes, &concerned, draft);
            if !rules.is_empty() {
                with_rules = object.label();
            }
            cluster.extend(rules);
        }
        spec.ignore(&["maxUnavailable"]);
        spec.finish(draft);
    }
    cluster.sort();
    cluster.dedup();
    if !cluster.is_empty() {
        let mut table = Table::new("egress", &with_rules);
        table.note(
            "These stay in the main table, and packets of pods to these keep the pod's address: name networks of the \
                    cluster only. Addresses of Nodes, podCIDRs and ServiceCIDRs need no entry",
        );
        table.set("cluster-networks", texts(&cluster), "spec.desiredState.route-rules");
        draft.push(table);
    }
    let several = found.values().filter(|nodes| !nodes.vrfs.is_empty()).count() > 1;
    for (selector, mut nodes) in found {
        for vrf in std::mem::take(&mut nodes.vrfs) {
            push_vrf(&vrf, &selector, several, &mut nodes, draft);
        }
        for (number, routes) in &nodes.routes {
            for Route { object, to, via, .. } in routes {
                let value = format!("{to} by {via}");
                let text =
                    format!("crier sets routes of VRFs only, and table {number} is no VRF's here; it was left out");
                draft.leave_out(object, "spec.desiredState.routes.config", &value, &text);
            }
        }
    }
    used
}

/// The interfaces of a policy that `desiredState` has.
fn interfaces(object: &Object) -> impl Iterator<Item = &Value> {
    object.value.pointer("/spec/desiredState/interfaces").and_then(Value::as_array).into_iter().flatten()
}

fn name_of(interface: &Value) -> Option<&str> {
    interface.get("name").and_then(Value::as_str)
}

/// The names of the VRFs of a policy, and of their ports.
fn in_vrfs(object: &Object) -> Vec<String> {
    let mut names = Vec::new();
    for interface in interfaces(object).filter(|it| it.get("type").and_then(Value::as_str) == Some("vrf")) {
        names.extend(name_of(interface).map(str::to_owned));
        for key in ["/vrf/port", "/vrf/ports"] {
            let ports = interface.pointer(key).and_then(Value::as_array).into_iter().flatten();
            names.extend(ports.filter_map(|port| port.as_str().map(str::to_owned)));
        }
    }
    names
}

/// Whether the policy has to do with a VRF: of any policy, for routes and rules may stand apart.
fn concerns(object: &Object, concerned: &BTreeSet<String>) -> bool {
    let has = |pointer: &str| object.value.pointer(pointer).is_some();
    let routing = has("/spec/desiredState/routes/config") || has("/spec/desiredState/route-rules/config");
    let interface = interfaces(object).any(|it| name_of(it).is_some_and(|name| concerned.contains(name)));
    interface || (routing && !concerned.is_empty())
}

/// Takes in a state; returns the networks that stay in the main table.
fn desired(
    mut state: Fields<'_>,
    label: &str,
    nodes: &mut Nodes,
    concerned: &BTreeSet<String>,
    draft: &mut Draft,
) -> Vec<String> {
    for mut fields in state.list("interfaces", draft) {
        // Others are none of crier's business.
        if fields.text("name", draft).is_some_and(|name| concerned.contains(name)) {
            interface(fields, label, nodes, draft);
        }
    }
    if let Some(mut routes) = state.fields("routes", draft) {
        for route in routes.list("config", draft) {
            take_route(route, label, nodes, draft);
        }
        routes.ignore(&["running"]);
        routes.finish(draft);
    }
    let mut kept = Vec::new();
    if let Some(mut rules) = state.fields("route-rules", draft) {
        for rule in rules.list("config", draft) {
            kept.extend(kept_in_main(rule, label, draft));
        }
        rules.finish(draft);
    }
    state.finish(draft);
    kept
}

fn interface(mut fields: Fields<'_>, label: &str, nodes: &mut Nodes, draft: &mut Draft) {
    let path = fields.path("name");
    let name = fields.text("name", draft).unwrap_or_default().to_owned();
    let kind = fields.text("type", draft).unwrap_or("ethernet");
    let value = shortened(&format!("{name:?}"));
    if matches!(fields.text("state", draft), Some("absent" | "down" | "ignore")) {
        return;
    }
    let mut addresses = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let Some(mut it) = fields.fields(family, draft) else { continue };
        let enabled = it.flag("enabled", draft) != Some(false);
        for automatic in ["dhcp", "autoconf"] {
            if it.flag(automatic, draft) == Some(true) && enabled {
                let text =
                    format!("crier gives {value} only addresses that are named; what asks for others must go on");
                draft.leave_out(label, &it.path(automatic), "true", &text);
            }
        }
        for mut address in it.list("address", draft) {
            let ip = address.text("ip", draft).unwrap_or_default();
            let length = address.number("prefix-length", draft).unwrap_or_default();
            if enabled {
                addresses.push(format!("{ip}/{length}"));
            }
            address.finish(draft);
        }
        it.ignore(&["auto-dns", "auto-gateway", "auto-routes"]);
        it.finish(draft);
    }
    if kind == "vrf" {
        let settings = fields.fields("vrf", draft);
        let Some(mut settings) = settings else {
            draft.leave_out(label, &path, &value, "the VRF has no table; it was left out");
            return;
        };
        // "ports" is another spelling of the same.
        let mut ports = settings.texts("port", draft);
        ports.extend(settings.texts("ports", draft));
        let ports = ports.into_iter().map(str::to_owned).collect();
        let table = settings.number("route-table-id", draft).unwrap_or_default();
        settings.finish(draft);
        nodes.vrfs.push(Vrf { object: label.to_owned(), path: path.clone(), name: name.clone(), ports, table });
    } else if kind != "ethernet" {
        nodes.made.insert(name.clone(), kind.to_owned());
    }
    nodes.addresses.entry(name).or_default().extend(addresses);
    fields.ignore(&["description", "profile-name", "mac-address", "mtu", "wait-ip"]);
    if kind == "ethernet" || kind == "vrf" {
        fields.finish(draft);
    }
}

fn take_route(mut fields: Fields<'_>, label: &str, nodes: &mut Nodes, draft: &mut Draft) {
    let path = fields.path("destination");
    let destination = fields.text("destination", draft).unwrap_or_default();
    let gateway = fields.text("next-hop-address", draft).unwrap_or_default();
    let metric = fields.number("metric", draft).unwrap_or_default();
    let table = fields.number("table-id", draft).unwrap_or_default();
    // The next hop says which link it is on.
    fields.ignore(&["next-hop-interface"]);
    let absent = fields.text("state", draft) == Some("absent");
    fields.finish(draft);
    if absent {
        return;
    }
    match (destination.parse::<IpNet>(), gateway.parse::<IpAddr>()) {
        (Ok(to), Ok(via)) => {
            nodes.routes.entry(table).or_default().push(Route {
                object: label.to_owned(),
                to: to.trunc(),
                via,
                metric,
            });
        }
        _ => {
            let value = shortened(&format!("{destination:?} by {gateway:?}"));
            let text = "crier sets routes to a CIDR by the address of a router; the route was left out";
            draft.leave_out(label, &path, &value, text);
        }
    }
}

/// The network of a rule that keeps it in the main table, whoever asks.
fn kept_in_main(mut fields: Fields<'_>, label: &str, draft: &mut Draft) -> Option<String> {
    let path = fields.path("ip-to");
    let to = fields.text("ip-to", draft).unwrap_or_default();
    let table = fields.number("route-table", draft).unwrap_or_default();
    let narrower = ["ip-from", "iif", "fwmark", "fwmask", "action", "suppress-prefix-length"];
    let is_narrower = narrower.into_iter().filter(|key| fields.value(key).is_some()).count() > 0;
    fields.ignore(&["priority", "family"]);
    let absent = fields.text("state", draft) == Some("absent");
    fields.finish(draft);
    if absent {
        return None;
    }
    let net = to.parse::<IpNet>().ok().filter(|net| net.prefix_len() > 0 && table == MAIN && !is_narrower);
    if net.is_none() {
        let value = shortened(&format!("{to:?}"));
        let text = "crier makes rules that keep networks of the cluster in the main table, and no others; this one was left out";
        draft.leave_out(label, &path, &value, text);
    }
    Some(net?.trunc().to_string())
}

fn push_vrf(vrf: &Vrf, selector: &str, several: bool, nodes: &mut Nodes, draft: &mut Draft) {
    let Vrf { object, path, name, ports, table: number } = vrf;
    let mut table = Table::new("vrf", object);
    if several || !selector.is_empty() {
        let which = if selector.is_empty() { "all nodes".to_owned() } else { format!("nodes with {selector}") };
        let value = shortened(&format!("{selector:?}"));
        let text = format!(
            "a [[vrf]] is for each node that has the file: put it into a file in conf.d/ of the {}, with their addresses",
            shortened(&which)
        );
        table.check(draft, "spec.nodeSelector", &value, &text);
        table.off = true;
    }
    // crier adds addresses to the first interface.
    let mut ports = ports.clone();
    let with_addresses: Vec<String> =
        ports.iter().filter(|port| nodes.addresses.get(*port).is_some_and(|it| !it.is_empty())).cloned().collect();
    if let Some(first) = with_addresses.first() {
        ports.sort_by_key(|port| port != first);
    }
    table.set("name", text(name), path);
    table.set("table", number.to_string(), path);
    table.set("interfaces", texts(&ports), path);
    let addresses = with_addresses.first().and_then(|first| nodes.addresses.get(first)).cloned().unwrap_or_default();
    if !addresses.is_empty() {
        if selector.is_empty() {
            let text = "every node would have these addresses; put what differs into a file in conf.d/ of each node";
            table.check(draft, "spec.desiredState.interfaces", "", text);
        }
        table.set("addresses", texts(&addresses), "spec.desiredState.interfaces");
    }
    for other in with_addresses.iter().skip(1).chain([name]) {
        let others = nodes.addresses.get(other).filter(|it| !it.is_empty());
        if let Some(others) = others {
            let value = shortened(&format!("{other:?}"));
            let text = format!(
                "crier adds addresses to the first interface of a VRF only; {} were left out",
                others.join(", ")
            );
            table.check(draft, "spec.desiredState.interfaces", &value, &shortened(&text));
        }
    }
    for (port, kind) in nodes.made.iter().filter(|(port, _)| ports.contains(port)) {
        let value = shortened(&format!("{port:?}"));
        let text = format!("crier makes no interface, and this one is a {}: what makes it must go on", shortened(kind));
        table.check(draft, "spec.desiredState.interfaces", &value, &text);
    }
    table.set("manage", "true".to_owned(), "");
    let mut routes = nodes.routes.remove(number).unwrap_or_default();
    routes.sort_by_key(|it| it.metric);
    let mut kept: Vec<Route> = Vec::new();
    for route in routes {
        match kept.iter().find(|it| it.to == route.to) {
            None => kept.push(route),
            Some(best) => {
                let value = format!("{} by {}", route.to, route.via);
                let text = format!("crier sets one route to a network; the one by {} has the best metric", best.via);
                table.check(draft, "spec.desiredState.routes.config", &value, &text);
            }
        }
    }
    if !kept.is_empty() {
        let routes: Vec<String> =
            kept.iter().map(|it| format!("{{ to = \"{}\", via = \"{}\" }}", it.to, it.via)).collect();
        table.set("routes", format!("[{}]", routes.join(", ")), "spec.desiredState.routes.config");
    }
    draft.push(table);
}
