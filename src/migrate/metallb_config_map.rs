//! The ConfigMap that MetalLB read from 2018 to 2022: YAML in `data.config`. Floor 1.
//! Its peers and pools go through the functions for the objects of today, which know its names by the table here.

use serde_json::Value;

use super::draft::{Draft, Table};
use super::metallb_bgp::Speaker;
use super::metallb_pool::{KnownPool, METALLB, addresses, announcing};
use super::object::{Fields, Object};
use super::shown::shortened;
use crate::manifests::document::{Format, values};
use crate::selector::Labels;

/// What a field of the objects is called in the ConfigMap.
const FORMER: [(&str, &str); 37] = [
    ("myASN", "my-asn"),
    ("peerASN", "peer-asn"),
    ("dynamicASN", "dynamic-asn"),
    ("localASN", "local-asn"),
    ("peerAddress", "peer-address"),
    ("sourceAddress", "source-address"),
    ("peerPort", "peer-port"),
    ("holdTime", "hold-time"),
    ("keepaliveTime", "keepalive-time"),
    ("connectTime", "connect-time"),
    ("routerID", "router-id"),
    ("nodeSelectors", "node-selectors"),
    ("passwordSecret", "password-secret"),
    ("bfdProfile", "bfd-profile"),
    ("ebgpMultiHop", "ebgp-multihop"),
    ("enableGracefulRestart", "enable-graceful-restart"),
    ("dualStackAddressFamily", "dual-stack-address-family"),
    ("disableMP", "disable-mp"),
    ("matchLabels", "match-labels"),
    ("matchExpressions", "match-expressions"),
    ("bgpCommunities", "bgp-communities"),
    ("addressPools", "address-pools"),
    ("autoAssign", "auto-assign"),
    ("avoidBuggyIPs", "avoid-buggy-ips"),
    ("bgpAdvertisements", "bgp-advertisements"),
    ("aggregationLength", "aggregation-length"),
    ("aggregationLengthV6", "aggregation-length-v6"),
    ("localPref", "localpref"),
    ("bfdProfiles", "bfd-profiles"),
    ("receiveInterval", "receive-interval"),
    ("transmitInterval", "transmit-interval"),
    ("detectMultiplier", "detect-multiplier"),
    ("echoInterval", "echo-interval"),
    ("echoMode", "echo-mode"),
    ("passiveMode", "passive-mode"),
    ("minimumTtl", "minimum-ttl"),
    ("peerAutodiscovery", "peer-autodiscovery"),
];

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

/// A ConfigMap with a `config` that speaks of pools or peers, in any spelling of YAML or JSON. What is MetalLB's by its name,
/// or has such a key in text that is not YAML, is one too: `translate` warns of it.
pub(super) fn is_one(object: &Object) -> bool {
    let text = object.value.get("data").and_then(|data| data.get("config")).and_then(Value::as_str);
    let Some(text) = text.filter(|_| object.kind == "ConfigMap" && object.group.is_empty()) else { return false };
    let named = object.name == "config" && object.namespace.starts_with("metallb");
    let keys = ["address-pools", "peers"];
    named
        || match values(text, Format::Yaml) {
            Ok(documents) => documents.iter().any(|it| keys.iter().any(|key| it.get(key).is_some())),
            Err(_) => text.lines().any(|line| {
                let line = line.trim_start_matches([' ', '"', '\'', '{']);
                keys.iter().any(|key| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([':', '"', '\''])))
            }),
        }
}

pub(super) fn translate(object: &Object, speaker: &mut Speaker<'_>, draft: &mut Draft) {
    let label = object.label();
    let text = object.value.get("data").and_then(|data| data.get("config")).and_then(Value::as_str);
    let documents = match values(text.unwrap_or_default(), Format::Yaml) {
        Ok(documents) => documents,
        Err(fault) => {
            draft.leave_out(&label, "data.config", "", &format!("this is not YAML, {fault}; nothing of it was taken"));
            return;
        }
    };
    for document in documents {
        match document.as_object() {
            Some(map) => config(Fields::new(label.clone(), "", map, &FORMER), object, speaker, draft),
            None => draft.leave_out(&label, "data.config", "", "this is not a map; nothing of it was taken"),
        }
    }
}

fn config(mut config: Fields<'_>, object: &Object, speaker: &mut Speaker<'_>, draft: &mut Draft) {
    let label = object.label();
    for (name, value) in config.pairs("bgpCommunities", draft) {
        speaker.alias(name, value, &label, "bgp-communities", draft);
    }
    for mut profile in config.list("bfdProfiles", draft) {
        let name = profile.text("name", draft).unwrap_or_default();
        speaker.profile(profile, name, draft);
    }
    for (number, peer) in config.list("peers", draft).into_iter().enumerate() {
        speaker.peer(peer, &format!("peer{}", number + 1), &object.namespace, draft);
    }
    let mut layer2 = Vec::new();
    for mut pool in config.list("addressPools", draft) {
        let name = pool.text("name", draft).unwrap_or_default();
        former_pool(&mut pool, name, &mut layer2, speaker, draft);
        pool.finish(draft);
    }
    if !layer2.is_empty() {
        draft.push(announcing(&layer2, &label));
    }
    config.finish(draft);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::migrate::{Migration, SecretFiles, migrate};

    fn migrated(namespace: &str, config: &str) -> Migration {
        let metadata = json!({"name": "config", "namespace": namespace});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config": config}});
        migrate(vec![map], &SecretFiles::default())
    }

    #[test]
    fn the_pools_are_found_in_every_spelling_of_the_keys() {
        for config in [
            "\"address-pools\":\n- \"addresses\":\n  - \"10.0.0.10-10.0.0.20\"\n  \"name\": \"default\"\n  \"protocol\": \"layer2\"\n",
            r#"{"address-pools":[{"name":"default","protocol":"layer2","addresses":["10.0.0.10-10.0.0.20"]}]}"#,
            "  address-pools:\n  - name: default\n    protocol: layer2\n    addresses: [10.0.0.10-10.0.0.20]\n",
        ] {
            let Migration { toml, used, .. } = migrated("lab", config);
            assert!(used == 1 && toml.contains("10.0.0.10"), "the pool of {config} is missing: {toml}");
        }
    }

    #[test]
    fn a_config_of_metallb_that_is_not_understood_is_a_warning() {
        for (namespace, config) in [("metallb-system", "pools"), ("lab", "address-pools: [")] {
            assert!(
                !migrated(namespace, config).warnings.is_empty(),
                "{config} in {namespace} was passed over in silence"
            );
        }
    }
}
