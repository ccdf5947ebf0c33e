//! Reads the merged files into a `Config`: the sections that are a few keys each, and the order of them all.
//! Floor 1. The pools and the layer 2 sections are in `pools`, BGP is in `routing`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;

use super::complaint::{Complaint, Place, Problem};
use super::document::{Data, Table};
use super::options::Section;
use super::reader::Reader;
use super::{
    Access, Api, Config, Host, Kubernetes, LEAST_PULSE_KEY, Log, LogFormat, Manifests, Node, Pulse, PulseKey, Secrets,
    Source, State, nearest,
};
use super::{pools, routing, syntax};

/// Octets of a key: more would be hashed down to fewer.
const LONGEST_PULSE_KEY: usize = 1024;

/// Reads everything, and complains about everything. `None` only with a complaint.
pub(super) fn read(merged: &Table, secrets: &dyn Secrets, complaints: &mut Vec<Complaint>) -> Option<Config> {
    let mut root = Reader { section: Section::find("")?, table: merged, secrets, complaints };
    let node = root.one("node", node);
    let api = root.one("api", api).flatten();
    let state = root.one("state", state).flatten();
    let source = source(&mut root);
    let pools = pools::pools(&mut root);
    let l2 = root.many("l2", |l2| pools::l2(l2, &pools));
    let pulse = root.one("pulse", pulse).flatten();
    let bgp = routing::bgp(&mut root, &pools);
    let host = root.one("host", |host| Host {
        manage_sysctls: host.flag("manage-sysctls"),
        arp_offload: host.flag("arp-offload"),
    });
    let log = root.one("log", log).flatten();
    Some(Config {
        node: node?,
        api: api?,
        state: state?,
        source: source?,
        pools: pools.list,
        l2,
        pulse: pulse?,
        bgp: bgp?,
        host: host?,
        log: log?,
    })
}

fn node(section: &mut Reader<'_>) -> Node {
    let name = section.text("name", |text| match text {
        "auto" => Ok(None),
        name => syntax::name(name).map(|name| Some(name.into())),
    });
    Node { name: name.flatten(), ignore_exclude_label: section.flag("ignore-exclude-label") }
}

fn api(section: &mut Reader<'_>) -> Option<Api> {
    let socket = section.text("socket", syntax::socket_path);
    let listen = section.text("listen", |text| match text {
        "" => Ok(None),
        text => text.parse::<SocketAddr>().map(Some).map_err(|_| {
            let hint = "write an IP address and a port, \"127.0.0.1:7472\" or \"[::1]:7472\", or \"\" for none";
            Problem::new(format!("{} is no address with a port", super::shape::written(text)), hint)
        }),
    });
    Some(Api { socket: socket?, listen: listen? })
}

fn state(section: &mut Reader<'_>) -> Option<State> {
    Some(State { folder: section.text("folder", syntax::absolute_path)? })
}

/// Exactly one of the two sections that say where Services come from.
fn source(root: &mut Reader<'_>) -> Option<Source> {
    let kubernetes = root.given("kubernetes").map(|entry| section_place(&entry.value.data, &entry.key));
    let manifests = root.given("manifests").map(|entry| section_place(&entry.value.data, &entry.key));
    match (kubernetes, manifests) {
        (Some(kubernetes), Some(manifests)) => {
            let message = "both [kubernetes] and [manifests] say where Services come from";
            root.conflict(manifests, message, "keep one of them", (kubernetes, "the other is here"));
            root.one("kubernetes", self::kubernetes);
            root.one("manifests", self::manifests);
            None
        }
        (Some(_), None) => root.one("kubernetes", self::kubernetes)?.map(Source::Kubernetes),
        (None, Some(_)) => root.one("manifests", self::manifests)?.map(Source::Manifests),
        // A misspelt section is complained about as such.
        (None, None)
            if root.table.entries.keys().any(|key| nearest(key, ["kubernetes", "manifests"].into_iter()).is_some()) =>
        {
            None
        }
        (None, None) => {
            let hint = "add [kubernetes] with a kubeconfig, or [manifests] with a folder of YAML files";
            root.complain(root.header(), "neither [kubernetes] nor [manifests] says where Services come from", hint);
            None
        }
    }
}

fn section_place(data: &Data, key: &Place) -> Place {
    match data {
        Data::Table(table) => table.place.clone(),
        _ => key.clone(),
    }
}

fn kubernetes(section: &mut Reader<'_>) -> Option<Kubernetes> {
    let kubeconfig = section.text("kubeconfig", syntax::absolute_path);
    let in_cluster = section.flag("in-cluster");
    let access = match (kubeconfig, in_cluster) {
        (Some(_), true) => {
            let place = section.place("in-cluster");
            let other = (section.place("kubeconfig"), "the kubeconfig is named here");
            section.conflict(place, "in-cluster = true and a kubeconfig exclude each other", "keep one of them", other);
            None
        }
        (Some(kubeconfig), false) => Some(Access::Kubeconfig(kubeconfig)),
        (None, true) => Some(Access::InCluster),
        (None, false) => {
            if section.given("kubeconfig").is_none() {
                let hint = "add kubeconfig = \"/etc/crier/kubeconfig\", or in-cluster = true in a pod";
                section.complain(section.header(), "[kubernetes] does not say how to reach the API server", hint);
            }
            None
        }
    };
    let class = section.text("class", syntax::class);
    let default_class = section.flag("default-class");
    let lease = section.text("lease", syntax::lease);
    Some(Kubernetes { access: access?, class: class?, default_class, lease: lease? })
}

fn manifests(section: &mut Reader<'_>) -> Option<Manifests> {
    Some(Manifests { folder: section.text("folder", syntax::absolute_path)? })
}

fn pulse(section: &mut Reader<'_>) -> Option<Pulse> {
    let interval = section.duration("interval");
    let multiplier = section.number("multiplier").and_then(NonZeroU8::new);
    let key = section.secret_or_credential("key-file", "pulse.key", LONGEST_PULSE_KEY);
    let unauthenticated = section.flag("unauthenticated");
    let key = match key {
        Some(_) if unauthenticated => {
            let other = (section.place("key-file"), "the key is named here");
            let message = "unauthenticated = true and a key exclude each other";
            section.conflict(section.place("unauthenticated"), message, "keep one of them", other);
            None
        }
        Some(key) if key.secret.expose().len() < LEAST_PULSE_KEY => {
            let message = format!("the key of the pulse is shorter than {LEAST_PULSE_KEY} octets");
            section.complain(section.place("key-file"), message, "make one with `openssl rand -hex 32`");
            None
        }
        Some(key) => Some(PulseKey::Shared(key)),
        None if unauthenticated => Some(PulseKey::Unauthenticated),
        // A key that cannot be read was complained about.
        None if section.given("key-file").is_some() => None,
        None => Some(PulseKey::Absent),
    };
    let peers = super::pools::items(section.set("peers", |text| {
        let hint = "write addresses of nodes on the same link: [\"10.0.0.12\", \"10.0.0.13\"]";
        let refused = || Problem::new(format!("{} is no address of a node", super::shape::written(text)), hint);
        let address: IpAddr = text.parse().map_err(|_| refused())?;
        if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
            return Err(refused());
        }
        Ok(address)
    }));
    Some(Pulse { interval: interval?, multiplier: multiplier?, key: key?, peers })
}

fn log(section: &mut Reader<'_>) -> Option<Log> {
    let level = section.text("level", syntax::log_filter);
    let format = section.text("format", |text| {
        syntax::word("log format", text, &["auto", "text", "json"]).map(|word| match word {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            _ => LogFormat::Auto,
        })
    });
    Some(Log { level: level?, format: format? })
}
