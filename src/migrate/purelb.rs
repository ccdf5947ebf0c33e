//! PureLB's ServiceGroup and LBNodeAgent, and its annotations on Services. Floor 1.
//! PureLB's addresses that are in no subnet of a link are announced by the cluster's own routing software; crier has BGP for them.

use std::net::IpAddr;

use super::annotate::{Annotations, joined, listed};
use super::draft::{Draft, Table, text, texts};
use super::metallb_pool::{announcing, range};
use super::object::{Fields, Object};
use super::shown::{shortened, shown};
use crate::k8s::annotation::{ADDRESSES, POOL, SHARE};

const GROUP: &str = "purelb.io";

/// Whose pools these are.
const PURELB: &str = "PureLB";

/// PureLB's annotations.
const PREFIX: &str = "purelb.io/";

/// The ServiceGroup of Services that name none.
const DEFAULT: &str = "default";

/// Translates what is PureLB's. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], draft: &mut Draft) -> Vec<usize> {
    let of = |kind: &'static str| {
        objects.iter().enumerate().filter(move |(_, object)| object.group == GROUP && object.kind == kind)
    };
    let mut used = Vec::new();
    let mut pools = Vec::new();
    for (at, object) in of("ServiceGroup") {
        used.push(at);
        pools.extend(group(object, draft));
    }
    let mut table = announcing(&pools, "ServiceGroups");
    let begun = draft.begin();
    for (at, object) in of("LBNodeAgent") {
        used.push(at);
        node_agent(object, &mut table, draft);
    }
    if !pools.is_empty() {
        draft.push_read(table, begun);
    }
    used
}

/// The pool of a group; none if its addresses come from elsewhere.
fn group(object: &Object, draft: &mut Draft) -> Option<String> {
    let mut table = Table::new("pool", &object.label());
    let begun = draft.begin();
    let mut spec = object.spec(draft);
    let name = draft.name(&mut table, &object.name, "metadata.name");
    draft.know(PURELB, &object.name, &name);
    let mut ranges = Vec::new();
    for place in ["local", "remote"] {
        let Some(mut pools) = spec.fields(place, draft) else { continue };
        if pools.value("pool").is_some() {
            ranges.extend(one_pool(&mut pools, &mut table, draft));
        }
        for family in ["v4pool", "v6pool"] {
            if let Some(mut pool) = pools.fields(family, draft) {
                ranges.extend(one_pool(&mut pool, &mut table, draft));
                pool.finish(draft);
            }
        }
        for family in ["v4pools", "v6pools"] {
            for mut pool in pools.list(family, draft) {
                ranges.extend(one_pool(&mut pool, &mut table, draft));
                pool.finish(draft);
            }
        }
        pools.ignore(&["subnet", "aggregation", "skipIPv6DAD", "balancePools"]);
        if pools.flag("multiPool", draft) == Some(true) {
            let text = "PureLB gives an address of each range; crier gives one of each pool that crier.dev/pool names, so a pool for each \
                        range is needed";
            table.check(draft, &pools.path("multiPool"), "true", text);
        }
        pools.finish(draft);
        if place == "remote" {
            let text = "crier announces these addresses by BGP: add [[bgp.peer]] and [[bgp.advertisement]]";
            table.check(draft, "spec.remote", "", text);
        }
    }
    if spec.fields("netbox", draft).is_some() {
        table.check(draft, "spec.netbox", "", "crier has no counterpart: it takes addresses from its own file only");
    }
    spec.finish(draft);
    let found = !ranges.is_empty();
    if !found {
        table.check(draft, "spec", "", "the ServiceGroup has no addresses that crier can use; the pool is a comment");
        table.off = true;
    }
    table.set("addresses", texts(&ranges), "spec.local");
    if object.name != DEFAULT {
        table.set("auto-assign", "false".to_owned(), "metadata.name");
    }
    // PureLB looks at the key and the ports of Services, not at their namespaces.
    table.set("share-across-namespaces", "true".to_owned(), "");
    draft.push_read(table, begun);
    found.then_some(name)
}

fn one_pool(fields: &mut Fields<'_>, table: &mut Table, draft: &mut Draft) -> Option<String> {
    let path = fields.path("pool");
    let written = fields.text("pool", draft)?;
    let (subnet, aggregation) = (fields.text("subnet", draft), fields.text("aggregation", draft));
    if let Some(aggregation) = aggregation.filter(|it| *it != "default" && !it.is_empty()) {
        let value = shortened(&format!("{aggregation:?}"));
        let subnet = shortened(subnet.unwrap_or_default());
        let text = format!("crier announces the subnet {subnet} on the link as it is; by BGP, set aggregation-length");
        table.check(draft, &fields.path("aggregation"), &value, &text);
    }
    match range(written) {
        Ok((range, _)) => Some(range),
        Err(problem) => {
            table.check(
                draft,
                &path,
                &shortened(&format!("{written:?}")),
                &format!("{problem}; these addresses were left out"),
            );
            None
        }
    }
}

/// The annotations of a Service. Whether it has any of PureLB's.
pub(super) fn service(object: &Object, annotations: &mut Annotations, draft: &mut Draft) -> bool {
    let of_purelb = object.texts_of_metadata("annotations");
    let all: Vec<(&str, &str)> =
        of_purelb.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.trim()))).collect();
    // Of a Service that names addresses, PureLB takes the pool that has them.
    let names_addresses = all.iter().any(|(key, value)| *key == "addresses" && !value.is_empty());
    for (key, value) in &all {
        let path = format!("metadata.annotations.{PREFIX}{}", shortened(key));
        let shown = shortened(&format!("{value:?}"));
        match *key {
            "allow-shared-ip" if !value.is_empty() => annotations.set(SHARE, (*value).to_owned()),
            "addresses" => match listed(value, str::parse::<IpAddr>) {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => annotations.set(ADDRESSES, joined(&addresses)),
                Err(part) => {
                    annotations.check(draft, &path, &shown, &format!("{part} is not an IP address; it was left out"));
                }
            },
            "service-group" if !names_addresses => match draft.known(PURELB, value).map(str::to_owned) {
                Some(name) => annotations.set(POOL, name),
                None => {
                    let text = "there is no such ServiceGroup among the objects; give it to migrate too, or write crier.dev/pool";
                    annotations.check(draft, &path, &shown, text);
                }
            },
            "multi-pool" if *value == "true" => {
                let text = "PureLB gives an address of each range; crier gives one of each pool that crier.dev/pool names, so a pool for \
                            each range is needed";
                annotations.check(draft, &path, &shown, text);
            }
            "node-affinity" => {
                let text = "write prefer-endpoints = true into an [[l2]], by service-selector for this Service alone";
                annotations.check(draft, &path, &shown, text);
            }
            // What PureLB writes itself, and what crier does without being told.
            "allow-shared-ip" | "service-group" | "multi-pool" | "allow-local" | "re-evaluate" | "allocated-by"
            | "allocated-from" | "pool-type" | "skip-ipv6-dad" => {}
            output if output.starts_with("announcing") => {}
            _ => annotations.check(draft, &path, &shown, "migrate does not know this annotation; it was left out"),
        }
    }
    !all.is_empty()
}

/// The interfaces that addresses are local on: `localInterface` and `interfaces`, the former `localint` before version 2.
fn node_agent(object: &Object, table: &mut Table, draft: &mut Draft) {
    let mut spec = object.spec(draft);
    if let Some(mut local) = spec.fields("local", draft) {
        let mut interfaces = Vec::new();
        for field in ["localint", "localInterface"] {
            interfaces.extend(local.text(field, draft).filter(|name| !name.is_empty()).map(|name| (field, name)));
        }
        let by_route = interfaces.is_empty() || interfaces.iter().any(|(_, name)| *name == DEFAULT);
        interfaces.extend(local.texts("interfaces", draft).into_iter().map(|name| ("interfaces", name)));
        let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        for (field, name) in interfaces.iter().filter(|(_, name)| !is_plain(name)) {
            let message =
                "crier knows names and a * at their end, no regular expressions; the whole table is a comment";
            table.check(draft, &local.path(field), &text(&shortened(name)), message);
            table.off = true;
        }
        // The link of the default route is not one name for all nodes; crier announces on links with a subnet of the address.
        if let Some((field, _)) = interfaces.first().filter(|_| !by_route) {
            let names: Vec<&str> = interfaces.iter().map(|(_, name)| *name).collect();
            table.narrow("interfaces", texts(&names), &local.path(field));
        }
        for field in ["extlbint", "dummyInterface"] {
            if let Some(value) = local.value(field).filter(|value| value.as_str() != Some("kube-lb0")) {
                let message = "crier needs no such interface; routing software that reads it gets nothing from crier";
                table.check(draft, &local.path(field), &shown(value), message);
            }
        }
        local.ignore(&["sendgarp", "sendGratuitousARP", "sendGARP", "garpConfig", "skipIPv6DAD", "addressConfig"]);
        local.finish_narrowing(draft);
    }
    spec.finish(draft);
}
