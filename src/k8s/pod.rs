//! Pod objects into [`world::Pod`]: whose an address is, and with which labels. Floor 1.
//! Read only where `[egress] new-pods` asks for it, and of this node alone. An API server that does not show them is no fault: then no
//! new pod is let go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::address::parse_ip;
use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::k8s::service::{labels, object_key};
use crate::names::{NodeName, ObjectKey};
use crate::world::{self, Fact, Listing};

/// What is read of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodFields {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: Option<String>,
}

impl PodFields {
    /// The field selector for the Pods of a node.
    pub fn of_node(node: &NodeName) -> String {
        format!("spec.nodeName={node}")
    }
}

impl Kind for PodFields {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Pod";
    const PLURAL: &'static str = "pods";
    const FIELDS: &'static [&'static str] = &["spec", "status"];
    const OPTIONAL: bool = true;

    type Scope = NamespaceResourceScope;
    type Key = ObjectKey;

    fn key(metadata: &ObjectMeta) -> ObjectKey {
        object_key(metadata)
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        Ok(pod(object)?.map(|pod| Fact::Pod(object_key(&object.metadata), Some(Arc::new(pod)))))
    }

    fn gone(key: ObjectKey) -> Fact {
        Fact::Pod(key, None)
    }

    fn kept(fact: &Fact) -> Option<&ObjectKey> {
        match fact {
            Fact::Pod(key, Some(_)) => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<ObjectKey>) -> Listing {
        Listing::Pods(keys)
    }

    fn unseen(why: Option<String>) -> Option<Fact> {
        Some(Fact::PodsUnseen(why))
    }
}

/// `None` for one that has no address of its own: it is in the host's network, is on no node, or has ended, and then its address may be
/// another pod's already.
pub fn pod(object: &Object<PodFields>) -> Result<Option<world::Pod>, Unreadable> {
    let PodFields { spec, status } = object.readable()?;
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
    if has_ended || spec.host_network == Some(true) {
        return Ok(None);
    }
    let listed = status.pod_ips.iter().flatten().filter_map(|it| it.ip.as_deref());
    let texts = listed.chain(status.pod_ip.as_deref());
    let addresses: BTreeSet<IpAddr> = texts.filter_map(parse_ip).collect();
    Ok(Some(world::Pod {
        node: node.into(),
        labels: labels(&object.metadata),
        addresses: addresses.into_iter().collect(),
        terminates: object.metadata.deletion_timestamp.is_some(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Option<world::Pod> {
        let object: Object<PodFields> = serde_saphyr::from_str(yaml).expect("YAML of a Pod");
        pod(&object).expect("a Pod that can be read")
    }

    fn web(metadata: &str, spec: &str, status: &str) -> Option<world::Pod> {
        read(&format!(
            "{{metadata: {{name: web-1, namespace: shop, labels: {{app: web}}{metadata}}}, spec: {{nodeName: node-a{spec}}}, \
             status: {{{status}}}}}"
        ))
    }

    fn addresses(pod: Option<world::Pod>) -> Vec<String> {
        pod.iter().flat_map(|pod| &pod.addresses).map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_is_read_with_its_labels_and_the_addresses_of_both_families() {
        let pod = web("", "", "phase: Pending, podIP: 10.244.1.7, podIPs: [{ip: 10.244.1.7}, {ip: 'fd44:1::7'}]");
        let read = pod.clone().expect("it has addresses");
        assert_eq!((read.node.as_str(), read.terminates), ("node-a", false));
        assert_eq!(read.labels.0.get("app"), Some("web"));
        assert_eq!(addresses(pod), ["10.244.1.7", "fd44:1::7"]);
        assert_eq!(addresses(web("", "", "podIP: 10.244.1.7")), ["10.244.1.7"], "as before dual stack");
        assert_eq!(addresses(web("", "", "phase: Pending")), [""; 0], "kubelet has not said it yet");
    }

    #[test]
    fn a_pod_in_the_hosts_network_and_one_that_has_ended_have_no_address_of_their_own() {
        let status = "podIP: 10.244.1.7";
        assert_eq!(web("", ", hostNetwork: true", status), None);
        assert!(web("", ", hostNetwork: false", status).is_some());
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(web("", "", &format!("phase: {phase}, {status}")), None, "{phase}");
        }
        for phase in ["Pending", "Running", "Unknown"] {
            assert!(web("", "", &format!("phase: {phase}, {status}")).is_some(), "{phase}");
        }
        assert_eq!(read("{metadata: {name: web-1}, spec: {}, status: {podIP: 10.244.1.7}}"), None, "it is on no node");
    }

    #[test]
    fn a_pod_that_is_being_deleted_terminates() {
        let pod = web(", deletionTimestamp: '2026-07-01T08:00:00Z'", "", "phase: Running, podIP: 10.244.1.7");
        assert!(pod.expect("it runs still").terminates);
    }
}
