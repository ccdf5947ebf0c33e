//! Node objects into [`world::Node`]. Floor 1.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::address::parse_ip;
use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::k8s::service::labels;
use crate::names::NodeName;
use crate::world::{self, Fact, Listing};

/// What is read of a Node.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NodeFields {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    unschedulable: Option<bool>,
    taints: Option<Vec<Taint>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Taint {
    key: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
    #[serde(rename = "nodeInfo")]
    node_info: Option<NodeInfo>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Kind for NodeFields {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Node";
    const PLURAL: &'static str = "nodes";
    const FIELDS: &'static [&'static str] = &["spec", "status"];

    type Scope = ClusterResourceScope;
    type Key = NodeName;

    fn key(metadata: &ObjectMeta) -> NodeName {
        NodeName::from(metadata.name.as_deref().unwrap_or_default())
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        Ok(Some(Fact::Node(Self::key(&object.metadata), Some(Arc::new(node(object)?)))))
    }

    fn gone(key: NodeName) -> Fact {
        Fact::Node(key, None)
    }

    fn kept(fact: &Fact) -> Option<&NodeName> {
        match fact {
            Fact::Node(key, Some(_)) => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<NodeName>) -> Listing {
        Listing::Nodes(keys)
    }
}

/// What the World keeps of a Node. A Node without conditions (from a manifest) is ready.
pub fn node(object: &Object<NodeFields>) -> Result<world::Node, Unreadable> {
    let NodeFields { spec, status } = object.readable()?;
    let spec = spec.clone().unwrap_or_default();
    let taints: BTreeSet<String> = spec.taints.unwrap_or_default().into_iter().map(|taint| taint.key).collect();
    let pod_networks = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    let Status { addresses, conditions, node_info } = status.clone().unwrap_or_default();
    let conditions = conditions.unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
    let addresses = addresses.unwrap_or_default();
    let of_kind = |kind: &str| {
        let of_kind = addresses.iter().filter(|address| address.kind == kind);
        of_kind.filter_map(|address| parse_ip(&address.address)).collect::<Vec<IpAddr>>()
    };
    let annotation = |name: &str| object.metadata.annotations.as_ref().and_then(|all| all.get(name));
    Ok(world::Node {
        labels: labels(&object.metadata),
        ready: condition("Ready").is_none_or(|ready| ready.status == "True"),
        network_unavailable: condition("NetworkUnavailable").is_some_and(|network| network.status == "True"),
        addresses: of_kind("InternalIP"),
        external_ips: of_kind("ExternalIP"),
        boot_id: node_info.and_then(|info| info.boot_id).filter(|boot| !boot.is_empty()),
        pod_networks: pod_networks.iter().filter_map(|text| text.parse().ok()).collect(),
        ovn_gateway: annotation(world::OvnGateway::ANNOTATION).and_then(|text| ovn_gateway(text)),
        marks: world::Marks {
            cordoned: spec.unschedulable.unwrap_or(false),
            taints: taints.into_iter().collect(),
            drain: annotation(world::Marks::DRAIN).cloned(),
        },
    })
}

/// Of its gateway: `{"default": {"mode": "shared", …}}`.
#[derive(Deserialize)]
struct OvnGateways {
    default: OvnGatewayMode,
}

#[derive(Deserialize)]
struct OvnGatewayMode {
    mode: String,
}

fn ovn_gateway(text: &str) -> Option<world::OvnGateway> {
    let OvnGateways { default: OvnGatewayMode { mode } } = serde_json::from_str(text).ok()?;
    match mode.as_str() {
        "shared" => Some(world::OvnGateway::Shared),
        "local" => Some(world::OvnGateway::Local),
        // It may be off.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> world::Node {
        let object: Object<NodeFields> = serde_saphyr::from_str(yaml).expect("YAML of a Node");
        node(&object).expect("a Node that can be read")
    }

    #[test]
    fn a_node_of_a_kubelet_is_read_whole() {
        let seen = read(
            r#"
kind: Node
metadata:
  name: node-a
  labels: {kubernetes.io/hostname: node-a, rack: a}
  annotations: {crier.dev/drain: "drained, since 2026-11-28T15:00:00Z"}
spec:
  podCIDR: 10.244.1.0/24
  unschedulable: true
  taints:
  - {key: node.kubernetes.io/unschedulable, effect: NoSchedule}
  - {key: maintenance, value: disk, effect: NoExecute}
  - {key: maintenance, effect: NoSchedule}
status:
  addresses:
  - {type: Hostname, address: node-a}
  - {type: InternalIP, address: 10.0.0.11}
  - {type: ExternalIP, address: 203.0.113.11}
  - {type: InternalIP, address: "fd00::11"}
  conditions:
  - {type: NetworkUnavailable, status: "False", reason: RouteCreated}
  - {type: MemoryPressure, status: "False"}
  - {type: Ready, status: "True", reason: KubeletReady, lastHeartbeatTime: "2026-07-01T08:00:00Z"}
  nodeInfo: {kubeletVersion: v1.36.3, bootID: 6f8b6a7e-5d0c-4a3c-9a3e-0a7b9b8f4c11}
"#,
        );
        assert_eq!(seen.labels.0.get("rack"), Some("a"));
        assert!(seen.ready && !seen.network_unavailable);
        let addresses: Vec<String> = seen.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.11", "fd00::11"], "InternalIP only, in order");
        assert_eq!(seen.external_ips, ["203.0.113.11".parse::<IpAddr>().unwrap()]);
        assert_eq!(seen.boot_id.as_deref(), Some("6f8b6a7e-5d0c-4a3c-9a3e-0a7b9b8f4c11"));
        assert_eq!(seen.pod_networks, ["10.244.1.0/24".parse().unwrap()]);
        let world::Marks { cordoned, taints, drain } = seen.marks;
        assert!(cordoned);
        assert_eq!(taints, ["maintenance", "node.kubernetes.io/unschedulable"], "each key once");
        assert_eq!(drain.as_deref(), Some("drained, since 2026-11-28T15:00:00Z"));
        assert_eq!(read("{metadata: {name: a}}").marks, world::Marks::default());
    }

    /// Input: OVN-Kubernetes' annotation as it writes it, and what it may be else.
    #[test]
    fn the_gateway_mode_of_ovn_kubernetes_is_read_where_it_says_one() {
        let mode = |text: &str| {
            read(&format!("{{metadata: {{name: a, annotations: {{k8s.ovn.org/l3-gateway-config: '{text}'}}}}}}"))
                .ovn_gateway
        };
        let whole = r#"{"default":{"mode":"shared","bridge-id":"br-ex","ip-addresses":["10.0.0.11/24"],"node-port-enable":"true"}}"#;
        assert_eq!(mode(whole), Some(world::OvnGateway::Shared));
        assert_eq!(mode(r#"{"default":{"mode":"local"}}"#), Some(world::OvnGateway::Local));
        for other in [r#"{"default":{"mode":""}}"#, r#"{"default":{}}"#, "{}", "", "[1"] {
            assert_eq!(mode(other), None, "{other}");
        }
        assert_eq!(read("{metadata: {name: a}}").ovn_gateway, None);
    }

    #[test]
    fn ready_is_true_or_absent_and_nothing_else() {
        let ready = |status: &str| {
            read(&format!("{{metadata: {{name: a}}, status: {{conditions: [{{type: Ready, status: '{status}'}}]}}}}"))
                .ready
        };
        assert!(ready("True"));
        assert!(!ready("False"));
        assert!(!ready("Unknown"), "a kubelet that is silent is not ready");
        assert!(read("{metadata: {name: a}}").ready, "a Node from a manifest is ready");
    }

    #[test]
    fn only_a_true_condition_says_that_the_network_is_missing() {
        let unavailable = |status: &str| {
            let condition = format!("{{type: NetworkUnavailable, status: '{status}'}}");
            read(&format!("{{metadata: {{name: a}}, status: {{conditions: [{condition}]}}}}")).network_unavailable
        };
        assert!(unavailable("True"));
        assert!(!unavailable("False") && !unavailable("Unknown"));
    }
}
