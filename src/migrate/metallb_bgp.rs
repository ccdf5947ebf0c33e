//! MetalLB's peers, BGP advertisements, communities and BFD profiles. Floor 1.
//! The AS number of `[bgp]` is settled at the end: the one that most peers see.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::SecretFiles;
use super::draft::{Draft, Password, Table, text, texts};
use super::duration::from_go;
use super::label_selector::any_of;
use super::metallb_pool::{KnownPool, pools_of};
use super::metallb_selectors::{for_each_selector, of_selectors};
use super::object::{Fields, Object};
use super::shown::{shortened, shown};
use crate::community::Community;
use crate::secret::Secret;

/// What is known while peers and advertisements are translated.
pub(super) struct Speaker<'a> {
    objects: &'a [Object],
    secrets: &'a SecretFiles,
    /// The names that crier has for a peer: several where it has several node selectors.
    peers: BTreeMap<String, Vec<String>>,
    /// The name that crier has for a BFD profile. Profiles are translated before the peers that name them.
    profiles: BTreeMap<String, String>,
    /// `[bgp.communities]`
    aliases: Table,
    /// What crier has for an alias of MetalLB's.
    meanings: BTreeMap<String, String>,
    /// The advertisements of pools that name their protocol themselves, written after all peers.
    former: Vec<Table>,
}

impl<'a> Speaker<'a> {
    pub fn new(objects: &'a [Object], secrets: &'a SecretFiles) -> Speaker<'a> {
        let aliases = Table::new("bgp.communities", "");
        let (peers, profiles, meanings) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Speaker { objects, secrets, peers, profiles, aliases, meanings, former: Vec::new() }
    }

    pub fn communities(&mut self, object: &Object, draft: &mut Draft) {
        let mut spec = object.spec(draft);
        for mut community in spec.list("communities", draft) {
            let name = community.text("name", draft).unwrap_or_default();
            let value = community.text("value", draft).unwrap_or_default();
            self.alias(name, value, &community.object.clone(), &community.path("value"), draft);
            community.finish(draft);
        }
        spec.finish(draft);
    }

    /// A name for a community. What crier knows by the same name, or could not tell from a community, is written as its value.
    pub fn alias(&mut self, name: &str, value: &str, object: &str, path: &str, draft: &mut Draft) {
        if value.parse::<Community>().is_err() {
            let text = format!("this is no community; the alias {} was left out", shortened(&format!("{name:?}")));
            draft.leave_out(object, path, &shortened(&format!("{value:?}")), &text);
            return;
        }
        if name.is_empty() || name.contains(':') || name.parse::<Community>().is_ok() {
            self.meanings.insert(name.to_owned(), value.to_owned());
        } else if self.meanings.insert(name.to_owned(), name.to_owned()).is_none() {
            let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            let key = if bare { name.to_owned() } else { text(name) };
            object.clone_into(&mut self.aliases.object);
            self.aliases.set(&key, text(value), path);
        }
    }

    pub fn profile(&mut self, spec: Fields<'_>, name: &str, draft: &mut Draft) {
        let here = profile(spec, name, draft);
        self.profiles.insert(name.to_owned(), here);
    }

    /// A peer; several where its node selectors cannot be one.
    pub fn peer(&mut self, mut spec: Fields<'_>, wanted: &str, namespace: &str, draft: &mut Draft) {
        let mut table = Table::new("bgp.peer", &spec.object);
        let begun = draft.begin();
        let name = draft.name(&mut table, wanted, "metadata.name");
        where_it_is(&mut table, &mut spec, draft);
        as_numbers(&mut table, &mut spec, draft);
        times(&mut table, &mut spec, draft);
        for (key, field) in [("source-address", "sourceAddress"), ("router-id", "routerID"), ("vrf", "vrf")] {
            if let Some(value) = spec.text(field, draft).filter(|value| !value.is_empty()) {
                table.set(key, text(value), &spec.path(field));
            }
        }
        if spec.flag("ebgpMultiHop", draft) == Some(true) {
            table.set("multihop", "255".to_owned(), &spec.path("ebgpMultiHop"));
        } else if is_external(&table) {
            table.note(BEYOND_THE_LINK);
        }
        if let Some(profile) = spec.text("bfdProfile", draft).filter(|profile| !profile.is_empty()) {
            let here = self.profiles.get(profile).map_or(profile, String::as_str);
            table.set("bfd", text(here), &spec.path("bfdProfile"));
        }
        if spec.flag("enableGracefulRestart", draft) == Some(true) {
            table.set("graceful-restart", "true".to_owned(), &spec.path("enableGracefulRestart"));
        }
        self.password(&mut table, &mut spec, &name, namespace, draft);
        if spec.flag("dualStackAddressFamily", draft) != Some(true) {
            table.note("crier offers the peer both address families; MetalLB offers that of the session only");
        }
        spec.ignore(&["disableMP"]);
        let path = spec.path("nodeSelectors");
        let nodes = any_of(&mut spec, "nodeSelectors", draft);
        spec.finish(draft);
        let mut tables = for_each_selector(vec![table], "nodes", &path, &nodes, draft);
        let mut names = vec![name.clone()];
        for further in tables.iter_mut().skip(1) {
            let text = "a node that two of these selectors match has one session with the peer, as with MetalLB, by the settings of one of the two, and shows the other as a problem";
            let mut renamed = Table::new("bgp.peer", &further.object);
            names.push(draft.name(&mut renamed, &format!("{name}-{}", names.len() + 1), "metadata.name"));
            renamed.check(draft, &path, "", text);
            renamed.items.extend(further.items.drain(..).filter(|item| !item.is_key("name")));
            *further = renamed;
        }
        self.peers.insert(wanted.to_owned(), names);
        for table in tables {
            draft.push_read(table, begun);
        }
    }

    /// The password stays out of the text: a file holds it.
    fn password(&self, table: &mut Table, spec: &mut Fields<'_>, name: &str, namespace: &str, draft: &mut Draft) {
        let file = self.secrets.file(name);
        let path = text(&file.to_string_lossy());
        let inline = match spec.value("password") {
            None => None,
            Some(Value::String(password)) if password.is_empty() => None,
            Some(Value::String(password)) => Some(password.as_bytes().to_vec()),
            Some(_) => {
                draft.misread(&table.object, &spec.path("password"), "", "the password is not text; it was left out");
                None
            }
        };
        let by_reference = spec.fields("passwordSecret", draft).and_then(|mut reference| {
            let name = reference.text("name", draft).filter(|name| !name.is_empty())?;
            Some((name, reference.text("namespace", draft).filter(|it| !it.is_empty()).unwrap_or(namespace)))
        });
        let (found, from, field) = match (inline, by_reference) {
            (None, None) => return,
            (Some(password), _) => (Some(password), "its password".to_owned(), spec.path("password")),
            (None, Some((secret, namespace))) => {
                let from = shortened(&format!("the key password of the Secret {namespace}/{secret}"));
                (self.secret(secret, namespace), from, spec.path("passwordSecret"))
            }
        };
        match found {
            Some(octets) if is_encrypted(&octets) => {
                let text = "put it in clear text into the file on each node, with mode 0600, or give migrate the decrypted objects";
                table.check(draft, &field, "", &format!("{from} is encrypted (SOPS): {text}"));
            }
            Some(octets) if self.secrets.written => {
                draft.passwords.push(Password { file, secret: Secret::from(&octets[..]) });
            }
            Some(_) | None => {
                let text = "put it into the file on each node, with mode 0600, or run migrate with --write-secrets";
                table.check(draft, &field, "", &format!("{from} is not printed: {text}"));
            }
        }
        table.set("password-file", path, &field);
    }

    /// The octets of a Secret among the objects.
    fn secret(&self, name: &str, namespace: &str) -> Option<Vec<u8>> {
        let is_it = |it: &&Object| it.kind == "Secret" && it.name == name && it.namespace == namespace;
        let object = self.objects.iter().find(is_it)?;
        if let Some(text) = object.value.get("stringData").and_then(|it| it.get("password")).and_then(Value::as_str) {
            return Some(text.as_bytes().to_vec());
        }
        let data = object.value.get("data")?.get("password")?.clone();
        serde_json::from_value::<k8s_openapi::ByteString>(data).ok().map(|octets| octets.0)
    }

    pub fn advertisement(&mut self, object: &Object, pools: &[KnownPool], draft: &mut Draft) {
        let mut table = Table::new("bgp.advertisement", &object.label());
        let begun = draft.begin();
        let mut spec = object.spec(draft);
        pools_of(&mut table, &mut spec, pools, draft);
        self.peers_of(&mut table, &mut spec, draft);
        self.attributes(&mut table, &mut spec, draft);
        for table in of_selectors(table, &mut spec, draft) {
            draft.push_read(table, begun);
        }
        spec.finish(draft);
    }

    fn peers_of(&self, table: &mut Table, spec: &mut Fields<'_>, draft: &mut Draft) {
        let path = spec.path("peers");
        let wanted = spec.texts("peers", draft);
        if wanted.is_empty() {
            return;
        }
        let mut peers: BTreeSet<&str> = BTreeSet::new();
        for peer in wanted {
            match self.peers.get(peer) {
                Some(names) => peers.extend(names.iter().map(String::as_str)),
                None => {
                    let text = "there is no such BGPPeer among the objects; it was left out";
                    table.check(draft, &path, &shortened(&format!("{peer:?}")), text);
                }
            }
        }
        if peers.is_empty() {
            table.check(
                draft,
                &path,
                "",
                "no peer is left, and an empty list would be all peers; the table is a comment",
            );
            table.off = true;
        }
        table.narrow("peers", texts(&peers.into_iter().collect::<Vec<_>>()), &path);
    }

    fn attributes(&self, table: &mut Table, fields: &mut Fields<'_>, draft: &mut Draft) {
        let lengths =
            [("aggregation-length", "aggregationLength", 32), ("aggregation-length-v6", "aggregationLengthV6", 128)];
        for (key, field, default) in lengths {
            if let Some(length) = fields.number(field, draft).filter(|length| *length != default) {
                table.set(key, length.to_string(), &fields.path(field));
            }
        }
        // Zero is "not set".
        if let Some(preference) = fields.number("localPref", draft).filter(|preference| *preference != 0) {
            table.set("local-preference", preference.to_string(), &fields.path("localPref"));
        }
        let communities: Vec<&str> = fields.texts("communities", draft);
        let meant: Vec<&str> =
            communities.iter().map(|it| self.meanings.get(*it).map_or(*it, String::as_str)).collect();
        if !meant.is_empty() {
            table.narrow("communities", texts(&meant), &fields.path("communities"));
        }
    }

    /// `bgp-advertisements` of a pool that names its protocol; without any there is a plain one.
    pub fn former_advertisements(&mut self, list: Vec<Fields<'_>>, object: &str, pool: &str, draft: &mut Draft) {
        let begin = || {
            let mut table = Table::new("bgp.advertisement", object);
            table.narrow("pools", texts(&[pool]), "");
            table
        };
        if list.is_empty() {
            self.former.push(begin());
        }
        for mut fields in list {
            let mut table = begin();
            let begun = draft.begin();
            self.attributes(&mut table, &mut fields, draft);
            fields.finish(draft);
            draft.judge(&mut table, begun);
            self.former.push(table);
        }
    }

    pub fn finish(self, draft: &mut Draft) {
        if !self.aliases.items.is_empty() {
            draft.push(self.aliases);
        }
        self.former.into_iter().for_each(|table| draft.push(table));
    }
}

fn where_it_is(table: &mut Table, spec: &mut Fields<'_>, draft: &mut Draft) {
    let (address, interface) = (spec.text("peerAddress", draft), spec.text("interface", draft));
    let (field, place) = match (address.filter(|it| !it.is_empty()), interface.filter(|it| !it.is_empty())) {
        (Some(address), _) => ("peerAddress", address),
        (None, Some(interface)) => ("interface", interface),
        (None, None) => {
            table.check(draft, &spec.path("peerAddress"), "", "the peer has neither peerAddress nor interface");
            ("peerAddress", "")
        }
    };
    table.set("address", text(place), &spec.path(field));
    if let Some(port) = spec.number("peerPort", draft).filter(|port| *port != 0 && *port != 179) {
        table.set("port", port.to_string(), &spec.path("peerPort"));
    }
}

/// The peer's AS number and ours. Each peer says ours until it is settled what `[bgp]` says.
fn as_numbers(table: &mut Table, spec: &mut Fields<'_>, draft: &mut Draft) {
    let number = spec.number("peerASN", draft).filter(|asn| *asn != 0).map(|asn| asn.to_string());
    let dynamic = spec.text("dynamicASN", draft).filter(|word| !word.is_empty()).map(text);
    let field = if number.is_some() { "peerASN" } else { "dynamicASN" };
    match number.or(dynamic) {
        Some(asn) => table.set("asn", asn, &spec.path(field)),
        None => table.check(draft, &spec.path("peerASN"), "", "the peer has neither peerASN nor dynamicASN"),
    }
    let (mine, local) = (spec.number("myASN", draft), spec.number("localASN", draft).filter(|asn| *asn != 0));
    let field = if local.is_some() { "localASN" } else { "myASN" };
    if let Some(asn) = local.or(mine) {
        table.set("local-asn", asn.to_string(), &spec.path(field));
    }
}

fn times(table: &mut Table, spec: &mut Fields<'_>, draft: &mut Draft) {
    let keys = [("hold-time", "holdTime"), ("keepalive-time", "keepaliveTime"), ("connect-retry-time", "connectTime")];
    for (key, field) in keys {
        let Some(value) = spec.value(field) else { continue };
        match value.as_str().and_then(from_go) {
            Some(time) => table.set(key, text(&time), &spec.path(field)),
            None => table.check(draft, &spec.path(field), &shown(value), "this is no duration; it was left out"),
        }
    }
}

/// What a session without FRR does by itself.
const BEYOND_THE_LINK: &str = "MetalLB's native mode reaches a router beyond the link without ebgpMultiHop; for such a router write multihop = 255";

/// Whether the peer is at an address, and of another AS: sessions within one AS may have routers between.
fn is_external(table: &Table) -> bool {
    let is_address = table.texts("address").iter().any(|it| it.parse::<std::net::IpAddr>().is_ok());
    is_address && table.value("asn").is_some_and(|asn| asn != "\"internal\"" && Some(asn) != table.value("local-asn"))
}

/// What SOPS writes in the place of a value.
pub(super) fn is_encrypted(octets: &[u8]) -> bool {
    octets.starts_with(b"ENC[")
}

/// A BFDProfile. Returns its name here.
fn profile(mut spec: Fields<'_>, name: &str, draft: &mut Draft) -> String {
    let mut table = Table::new("bfd", &spec.object);
    let begun = draft.begin();
    let here = draft.name(&mut table, name, "metadata.name");
    for (key, field) in [("receive-interval", "receiveInterval"), ("transmit-interval", "transmitInterval")] {
        if let Some(millis) = spec.number(field, draft) {
            table.set(key, text(&format!("{millis}ms")), &spec.path(field));
        }
    }
    for (key, field) in [("multiplier", "detectMultiplier"), ("minimum-ttl", "minimumTtl")] {
        if let Some(number) = spec.number(field, draft) {
            table.set(key, number.to_string(), &spec.path(field));
        }
    }
    if spec.flag("passiveMode", draft) == Some(true) {
        table.set("passive", "true".to_owned(), &spec.path("passiveMode"));
    }
    spec.ignore(&["echoInterval"]);
    if spec.flag("echoMode", draft) == Some(true) {
        table.check(draft, &spec.path("echoMode"), "true", "crier has no counterpart; the profile works without it");
    }
    spec.finish(draft);
    draft.push_read(table, begun);
    here
}
