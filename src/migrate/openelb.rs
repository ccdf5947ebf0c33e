//! OpenELB's Eip, BgpConf and BgpPeer, also under its former name PorterLB, and its annotations on Services. Floor 1.

use std::net::IpAddr;

use super::SecretFiles;
use super::annotate::{Annotations, joined, listed};
use super::draft::{Draft, Password, Table, text, texts};
use super::label_selector;
use super::metallb_bgp::is_encrypted;
use super::metallb_pool::{announcing, range};
use super::metallb_selectors::cannot_select;
use super::object::{Fields, Object};
use super::shown::{shortened, shown};
use crate::k8s::annotation::{ADDRESSES, POOL};
use crate::secret::Secret;

const GROUP: &str = "network.kubesphere.io";

/// Whose pools these are.
const OPENELB: &str = "OpenELB";

/// OpenELB serves a Service with this annotation, and no other.
const SERVED: &str = "lb.kubesphere.io/v1alpha1";
const NAMES: [&str; 2] = ["openelb", "porter"];

/// What a Service names its Eip by, and its address.
const OF_EIP: [&str; 2] = ["eip.openelb.kubesphere.io/v1alpha2", "eip.porter.kubesphere.io/v1alpha2"];
const OF_ADDRESS: [&str; 2] = ["eip.openelb.kubesphere.io/v1alpha1", "eip.porter.kubesphere.io/v1alpha1"];
/// Nodes forward to the Service's ports, and no address is given.
const NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/type";

/// Marks the Eip from which Services get addresses that name none.
const IS_DEFAULT: &str = "eip.openelb.kubesphere.io/is-default-eip";

/// Translates what is OpenELB's. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], secrets: &SecretFiles, draft: &mut Draft) -> Vec<usize> {
    let ours = |(_, object): &(usize, &Object)| object.group == GROUP;
    let of = |kind: &'static str| objects.iter().enumerate().filter(ours).filter(move |(_, it)| it.kind == kind);
    let mut used = Vec::new();
    for (at, object) in of("Eip") {
        used.push(at);
        eip(object, draft);
    }
    let mut asn = None;
    for (at, object) in of("BgpConf") {
        used.push(at);
        asn = speaker(object, draft).or(asn);
    }
    for (at, object) in of("BgpPeer") {
        used.push(at);
        peer(object, asn, secrets, draft);
    }
    used
}

fn eip(object: &Object, draft: &mut Draft) {
    let label = object.label();
    let mut table = Table::new("pool", &label);
    let begun = draft.begin();
    let mut spec = object.spec(draft);
    let name = draft.name(&mut table, &object.name, "metadata.name");
    draft.know(OPENELB, &object.name, &name);
    let path = spec.path("address");
    let written = spec.text("address", draft).unwrap_or_default();
    match range(written) {
        Ok((range, _)) => table.set("addresses", texts(&[range]), &path),
        Err(problem) => table.check(draft, &path, &shortened(&format!("{written:?}")), &problem),
    }
    let is_default = object.texts_of_metadata("annotations").any(|(key, value)| key == IS_DEFAULT && value == "true");
    if spec.flag("disable", draft) == Some(true) {
        let text = "the Eip gives no addresses; here Services get one of it only if they request it";
        table.check(draft, &spec.path("disable"), "true", text);
        table.set("auto-assign", "false".to_owned(), &spec.path("disable"));
    } else if !is_default {
        table.note(
            "Services got addresses of this Eip by its name; crier gives them to every Service with auto-assign = true",
        );
        table.set("auto-assign", "false".to_owned(), "metadata.annotations");
    }
    if let Some(priority) = spec.number("priority", draft).filter(|priority| *priority != 0) {
        let text = "crier takes pools with a lower number first; compare the order with that of OpenELB";
        table.check(draft, &spec.path("priority"), &priority.to_string(), text);
        table.set("priority", priority.to_string(), &spec.path("priority"));
    }
    let namespaces = spec.texts("namespaces", draft);
    if !namespaces.is_empty() {
        table.narrow("namespaces", texts(&namespaces), &spec.path("namespaces"));
    }
    let selector: Vec<String> =
        spec.pairs("namespaceSelector", draft).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !selector.is_empty() {
        table.narrow("namespace-selector", text(&selector.join(", ")), &spec.path("namespaceSelector"));
    }
    spec.ignore(&["usingKnownIPs"]);
    let announced = eip_is_announced(&mut spec, &label, &name, draft);
    for table in [Some(table), announced].into_iter().flatten() {
        draft.push_read(table, begun);
    }
    spec.finish(draft);
}

/// The annotations of a Service of type LoadBalancer. Whether it has any of OpenELB's.
pub(super) fn service(object: &Object, annotations: &mut Annotations, draft: &mut Draft) -> bool {
    let all: Vec<(&str, &str)> = object.texts_of_metadata("annotations").map(|(key, it)| (key, it.trim())).collect();
    let value_of = |names: &[&str]| all.iter().find(|(key, value)| names.contains(key) && !value.is_empty()).copied();
    let (eip, address, proxy) = (value_of(&OF_EIP), value_of(&OF_ADDRESS), value_of(&[NODE_PROXY]));
    let check = |(key, value): (&str, &str), text: &str, annotations: &mut Annotations, draft: &mut Draft| {
        let value = if value.is_empty() { String::new() } else { shortened(&format!("{value:?}")) };
        annotations.check(draft, &format!("metadata.annotations.{key}"), &value, text);
    };
    if let Some(proxy) = proxy {
        let text = "the Service gets the addresses of nodes there; crier gives it one of a pool";
        check(proxy, text, annotations, draft);
    }
    let served = value_of(&[SERVED]);
    if !served.is_some_and(|(_, value)| NAMES.contains(&value)) {
        let named = eip.is_some() || address.is_some() || served.is_some();
        let has_class = object.value.pointer("/spec/loadBalancerClass").is_some_and(|class| !class.is_null());
        if named || draft.has_only(OPENELB) && !has_class && proxy.is_none() {
            let text = "OpenELB serves only Services with lb.kubesphere.io/v1alpha1: openelb; crier serves this one too, unless it has a \
                        class of its own, or default-class = false";
            check(served.unwrap_or((SERVED, "")), text, annotations, draft);
        }
        return named || proxy.is_some();
    }
    if let Some((key, value)) = address {
        match listed(value, str::parse::<IpAddr>) {
            Ok(addresses) => annotations.set(ADDRESSES, joined(&addresses)),
            Err(part) => {
                check((key, value), &format!("{part} is not an IP address; it was left out"), annotations, draft);
            }
        }
    }
    if let Some((key, value)) = eip {
        match draft.known(OPENELB, value).map(str::to_owned) {
            Some(name) => annotations.set(POOL, name),
            None => {
                let text = "there is no such Eip among the objects; give it to migrate too, or write crier.dev/pool";
                check((key, value), text, annotations, draft);
            }
        }
    }
    true
}

/// `protocol` and `interface` of an Eip. Without a protocol it is BGP.
fn eip_is_announced(spec: &mut Fields<'_>, label: &str, name: &str, draft: &mut Draft) -> Option<Table> {
    let (path, protocol) = (spec.path("protocol"), spec.text("protocol", draft).unwrap_or("bgp"));
    let (interface_path, interface) = (spec.path("interface"), spec.text("interface", draft).unwrap_or_default());
    match protocol {
        "bgp" => {
            let mut table = Table::new("bgp.advertisement", label);
            table.narrow("pools", texts(&[name]), &path);
            Some(table)
        }
        "layer2" | "vip" if interface.is_empty() => Some(announcing(&[name.to_owned()], label)),
        "layer2" | "vip" => {
            let mut table = Table::new("l2", label);
            table.narrow("pools", texts(&[name]), &path);
            if interface.starts_with("can_reach:") {
                let value = shortened(&format!("{interface:?}"));
                let text = "crier announces where a link has the subnet of the address; name interfaces if that is another link";
                table.check(draft, &interface_path, &value, text);
            } else {
                table.narrow("interfaces", texts(&[interface]), &interface_path);
            }
            Some(table)
        }
        other => {
            let value = shortened(&format!("{other:?}"));
            draft.leave_out(label, &path, &value, "there is no such protocol; crier announces the pool nowhere");
            None
        }
    }
}

/// BgpConf: what it says of all peers is our AS number, which each peer is given until it is settled.
fn speaker(object: &Object, draft: &mut Draft) -> Option<i64> {
    let mut spec = object.spec(draft);
    let asn = spec.number("as", draft);
    for field in ["routerId", "routerID"] {
        if let Some(id) = spec.text(field, draft).filter(|id| !id.is_empty()) {
            let text = "every node would have this router ID; crier takes an address of each node instead";
            draft.leave_out(&object.label(), &spec.path(field), &shortened(&format!("{id:?}")), text);
        }
    }
    for field in ["listenPort", "port"] {
        if let Some(port) = spec.number(field, draft).filter(|port| *port != 179) {
            let text = "set it as `port` of [bgp] if routers connect to it";
            draft.leave_out(&object.label(), &spec.path(field), &port.to_string(), text);
        }
    }
    spec.finish(draft);
    asn
}

fn peer(object: &Object, asn: Option<i64>, secrets: &SecretFiles, draft: &mut Draft) {
    let label = object.label();
    let mut table = Table::new("bgp.peer", &label);
    let begun = draft.begin();
    let mut spec = object.spec(draft);
    let name = draft.name(&mut table, &object.name, "metadata.name");
    // PorterLB says "config" where OpenELB says "conf".
    let conf = spec.fields("conf", draft);
    let mut local = None;
    if let Some(mut conf) = conf.or_else(|| spec.fields("config", draft)) {
        if let Some(address) = conf.text("neighborAddress", draft) {
            table.set("address", text(address), &conf.path("neighborAddress"));
        }
        if let Some(asn) = conf.number("peerAs", draft) {
            table.set("asn", asn.to_string(), &conf.path("peerAs"));
        }
        if conf.flag("adminDown", draft) == Some(true) {
            table.set("shutdown", "true".to_owned(), &conf.path("adminDown"));
        }
        local = conf.number("localAs", draft).filter(|asn| *asn != 0);
        let field = conf.path("authPassword");
        let password = conf.text("authPassword", draft).filter(|it| !it.is_empty());
        if let Some(password) = password {
            let file = secrets.file(&name);
            let path = text(&file.to_string_lossy());
            if is_encrypted(password.as_bytes()) {
                let text = "the password is encrypted (SOPS): put it in clear text into the file on each node, with mode 0600, or give \
                            migrate the decrypted objects";
                table.check(draft, &field, "", text);
            } else if secrets.written {
                draft.passwords.push(Password { file, secret: Secret::from(password.as_bytes()) });
            } else {
                let text = "the password is not printed: put it into the file on each node, with mode 0600, or run migrate \
                            with --write-secrets";
                table.check(draft, &field, "", text);
            }
            table.set("password-file", path, &field);
        }
        conf.finish(draft);
    }
    if let Some(asn) = local.or(asn) {
        table.set("local-asn", asn.to_string(), "");
    }
    if let Some(mut timers) = spec.fields("timers", draft).and_then(|mut timers| timers.fields("config", draft)) {
        for (key, field) in
            [("hold-time", "holdTime"), ("keepalive-time", "keepaliveInterval"), ("connect-retry-time", "connectRetry")]
        {
            // OpenELB has texts of digits there.
            let (path, Some(value)) = (timers.path(field), timers.value(field)) else { continue };
            match value.as_u64().or_else(|| value.as_str()?.trim().parse().ok()) {
                Some(0) => {}
                Some(seconds) => table.set(key, text(&format!("{seconds}s")), &path),
                None => table.check(draft, &path, &shown(value), "this is no number of seconds; it was left out"),
            }
        }
        timers.finish(draft);
    }
    if let Some(mut transport) = spec.fields("transport", draft) {
        if transport.flag("passiveMode", draft) == Some(true) {
            table.set("passive", "true".to_owned(), &transport.path("passiveMode"));
        }
        if let Some(port) = transport.number("remotePort", draft).filter(|port| *port != 0 && *port != 179) {
            table.set("port", port.to_string(), &transport.path("remotePort"));
        }
        let path = transport.path("localAddress");
        match transport.text("localAddress", draft).unwrap_or_default().trim() {
            "" => {}
            written => match written.parse::<IpAddr>() {
                // GoBGP's word for any address.
                Ok(address) if address.is_unspecified() => {}
                Ok(address) => table.set("source-address", text(&address.to_string()), &path),
                Err(_) => {
                    let shown = shortened(&format!("{written:?}"));
                    table.check(draft, &path, &shown, "this is not an IP address; it was left out");
                }
            },
        }
        transport.finish(draft);
    }
    if let Some(mut multihop) = spec.fields("ebgpMultihop", draft) {
        if multihop.flag("enabled", draft) == Some(true) {
            let hops = multihop.number("multihopTtl", draft).unwrap_or(255);
            table.set("multihop", hops.to_string(), &multihop.path("multihopTtl"));
        }
        multihop.ignore(&["multihopTtl"]);
        multihop.finish(draft);
    }
    // crier offers both families, and sends no second path for a prefix, as OpenELB's speaker did not need either.
    spec.ignore(&["afiSafis", "addPaths"]);
    let path = spec.path("nodeSelector");
    match spec.fields("nodeSelector", draft).map(|fields| label_selector::one(fields, draft)) {
        None | Some(Ok(None)) => {}
        Some(Ok(Some(selector))) => table.narrow("nodes", text(&selector.to_string()), &path),
        Some(Err(())) => cannot_select(&mut table, &path, draft),
    }
    spec.finish(draft);
    draft.push_read(table, begun);
}
