//! The objects of other load balancers at the API server, for `crier migrate`. Floor 2. Reads once, watches nothing.
//! Not for what the objects mean; `migrate` knows.

use serde_json::Value;

use super::ask::{Asker, RequestError};

/// Where the kinds are that `migrate` knows. Of two versions of a kind the later in this list counts.
const LISTS: [&str; 28] = [
    "/api/v1/configmaps",
    "/apis/metallb.io/v1beta1/addresspools",
    "/apis/metallb.io/v1beta1/ipaddresspools",
    "/apis/metallb.io/v1beta1/l2advertisements",
    "/apis/metallb.io/v1beta1/bgpadvertisements",
    "/apis/metallb.io/v1beta1/communities",
    "/apis/metallb.io/v1beta1/bfdprofiles",
    "/apis/metallb.io/v1beta1/bgppeers",
    "/apis/metallb.io/v1beta2/bgppeers",
    "/apis/metallb.io/v1beta1/metallbs",
    "/apis/network.kubesphere.io/v1alpha1/eips",
    "/apis/network.kubesphere.io/v1alpha2/eips",
    "/apis/network.kubesphere.io/v1alpha1/bgpconfs",
    "/apis/network.kubesphere.io/v1alpha2/bgpconfs",
    "/apis/network.kubesphere.io/v1alpha1/bgppeers",
    "/apis/network.kubesphere.io/v1alpha2/bgppeers",
    "/apis/purelb.io/v2/servicegroups",
    "/apis/purelb.io/v1/servicegroups",
    "/apis/purelb.io/v2/lbnodeagents",
    "/apis/purelb.io/v1/lbnodeagents",
    "/apis/k8s.ovn.org/v1/egressservices",
    "/apis/nmstate.io/v1beta1/nodenetworkconfigurationpolicies",
    "/apis/nmstate.io/v1/nodenetworkconfigurationpolicies",
    "/api/v1/services",
    "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/statefulsets",
    // kube-vip's on the control plane are static ones, that no workload stands for.
    "/api/v1/namespaces/kube-system/pods",
];

/// What a workload of another load balancer is told its class with; all others are none of ours.
const TELLS_A_CLASS: [&str; 3] = ["lb-class", "lb_class_only", "lbClassOnly"];

/// MetalLB's charts name its ConfigMap after the release, so what is in it tells it from others; `migrate` looks closer.
const CONFIG_MAPS: [&str; 2] = ["config", "kubevip"];

/// Every object of these kinds, and the Secrets that peers name if they are wanted. A kind that is not installed has no objects.
pub async fn objects(asker: &Asker, with_secrets: bool) -> Result<Vec<Value>, RequestError> {
    let mut found = Vec::new();
    for path in LISTS {
        found.extend(asker.list(path).await?.into_iter().flatten().filter(matters));
    }
    let wanted: Vec<String> = found.iter().filter(|_| with_secrets).filter_map(secret_of).collect();
    for path in wanted {
        found.extend(asker.get(&path).await?);
    }
    Ok(found)
}

/// Of the workloads of a cluster, those whose containers are told a class; of its ConfigMaps, those that may have pools.
fn matters(object: &Value) -> bool {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let containers = match text("/kind") {
        "ConfigMap" => {
            return CONFIG_MAPS.contains(&text("/metadata/name")) || text("/data/config").contains("address-pools");
        }
        "DaemonSet" | "Deployment" | "StatefulSet" => "/spec/template/spec/containers",
        "Pod" => "/spec/containers",
        _ => return true,
    };
    let containers = object.pointer(containers).map(Value::to_string).unwrap_or_default();
    TELLS_A_CLASS.iter().any(|it| containers.contains(it))
}

/// Where the Secret is that a peer names; names that are none of Kubernetes' name nothing.
fn secret_of(object: &Value) -> Option<String> {
    let reference = object.get("spec")?.get("passwordSecret")?;
    let name = reference.get("name")?.as_str()?;
    let own = object.get("metadata").and_then(|metadata| metadata.get("namespace"));
    let namespace = reference.get("namespace").or(own).and_then(Value::as_str)?;
    let sound = crate::selector::is_dns_name(name) && crate::selector::is_dns_label(namespace);
    sound.then(|| format!("/api/v1/namespaces/{namespace}/secrets/{name}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_the_workloads_those_that_are_told_a_class_matter() {
        let workload = |kind: &str, container: Value| json!({"kind": kind, "spec": {"template": {"spec": {"containers": [container]}}}});
        let speaker = workload("DaemonSet", json!({"name": "speaker", "args": ["--lb-class=metallb"]}));
        let vip = workload("DaemonSet", json!({"name": "vip", "env": [{"name": "lb_class_only", "value": "true"}]}));
        let web = workload("Deployment", json!({"name": "web", "args": ["--class=lb"]}));
        let all = [&speaker, &vip, &web, &json!({"kind": "Deployment"}), &json!({"kind": "Service"})];
        assert_eq!(all.map(matters), [true, true, false, false, true]);
        // Kube-vip's flag, and its static Pod.
        let flag = json!({"name": "k", "args": ["manager", "--lbClassOnly"]});
        let pod = |container: &Value| json!({"kind": "Pod", "spec": {"containers": [container]}});
        let all = [
            workload("DaemonSet", flag.clone()),
            workload("StatefulSet", flag.clone()),
            pod(&flag),
            pod(&json!({"name": "etcd"})),
        ];
        assert_eq!(all.map(|it| matters(&it)), [true, true, true, false]);
    }

    /// MetalLB's ConfigMap was looked for by the name that its manifests have, and its charts give it another one.
    #[tokio::test]
    async fn the_config_map_of_metallb_is_found_under_any_name() {
        use crate::k8s::fake::FakeApi;
        let api = FakeApi::start().await;
        let config =
            "address-pools:\n- name: default\n  protocol: layer2\n  addresses: [192.168.1.240-192.168.1.250]\n";
        for (name, key, text) in [
            ("metallb", "config", config),
            ("kube-root-ca.crt", "ca.crt", "-----BEGIN"),
            ("envoy", "config", "listeners: []"),
            ("kubevip", "range-global", "10.0.0.1-10.0.0.9"),
        ] {
            let metadata = json!({"name": name, "namespace": "metallb-system"});
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text}});
            api.put("/api/v1/configmaps", map);
        }
        let found = objects(&Asker::of(api.client().await), false).await.unwrap();
        let mut names: Vec<&str> = found.iter().filter_map(|it| it.pointer("/metadata/name")?.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["kubevip", "metallb"]);
        assert!(found.iter().any(|it| it.pointer("/data/config").is_some_and(|text| text == config)));
    }
}
