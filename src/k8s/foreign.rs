//! The objects of other load balancers at the API server, for `crier migrate`. Floor 2. Reads once, watches nothing.
//! Not for what the objects mean; `migrate` knows.

use serde_json::Value;

use super::ask::{Asker, RequestError};

/// Where the kinds are that `migrate` knows. Of two versions of a kind the later in this list counts.
const LISTS: [&str; 26] = [
    "/api/v1/configmaps?fieldSelector=metadata.name%3Dconfig",
    "/api/v1/configmaps?fieldSelector=metadata.name%3Dkubevip",
    "/apis/metallb.io/v1beta1/addresspools",
    "/apis/metallb.io/v1beta1/ipaddresspools",
    "/apis/metallb.io/v1beta1/l2advertisements",
    "/apis/metallb.io/v1beta1/bgpadvertisements",
    "/apis/metallb.io/v1beta1/communities",
    "/apis/metallb.io/v1beta1/bfdprofiles",
    "/apis/metallb.io/v1beta1/bgppeers",
    "/apis/metallb.io/v1beta2/bgppeers",
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
];

/// What a workload of another load balancer is told its class with; all others are none of ours.
const TELLS_A_CLASS: [&str; 2] = ["lb-class", "lb_class_only"];

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

/// Of the workloads of a cluster, those whose containers are told a class.
fn matters(object: &Value) -> bool {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let containers = || object.pointer("/spec/template/spec/containers").map(Value::to_string).unwrap_or_default();
    !["DaemonSet", "Deployment"].contains(&kind) || TELLS_A_CLASS.iter().any(|it| containers().contains(it))
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
    }
}
