//! OVN-Kubernetes' EgressService: how what the pods of a Service open leaves, as annotations of that Service. Floor 1.
//! The object has the name and the namespace of its Service.

use super::annotate::Annotations;
use super::draft::Draft;
use super::label_selector::{self};
use super::networks;
use super::object::Object;
use super::shown::shortened;
use crate::k8s::annotation::{EGRESS, EGRESS_NODES, NETWORK, SERVICE_ADDRESS};

const GROUP: &str = "k8s.ovn.org";

/// Translates what is OVN-Kubernetes'. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], draft: &mut Draft) -> Vec<usize> {
    let ours = |(_, object): &(usize, &Object)| object.group == GROUP && object.kind == "EgressService";
    let mut used = Vec::new();
    for (at, object) in objects.iter().enumerate().filter(ours) {
        used.push(at);
        egress_service(object, objects, draft);
    }
    used
}

/// OpenShift's default keeps outbound connections of pods from the host.
const GATEWAY_MODE: &str = "in shared gateway mode, OVN-Kubernetes' default, packets of pods bypass the host's netfilter, and crier refuses \
                            egress: set routingViaHost: true and ipForwarding: Global in gatewayConfig of the Network operator first";

const UNREADABLE: &str = "a selector cannot be read, so which nodes may send is unknown, and crier.dev/egress is left out too; write it with \
                          crier.dev/egress-nodes";

fn egress_service(object: &Object, objects: &[Object], draft: &mut Draft) {
    let mut annotations = Annotations::of(object);
    let mut spec = object.spec(draft);
    let source_path = spec.path("sourceIPBy");
    let source = spec.text("sourceIPBy", draft);
    let by_network = match source {
        Some("LoadBalancerIP") => false,
        Some("Network") => true,
        other => {
            let value = shortened(&format!("{:?}", other.unwrap_or_default()));
            draft.leave_out(
                &object.label(),
                &source_path,
                &value,
                "this is neither LoadBalancerIP nor Network; the object was left out",
            );
            return;
        }
    };
    let mode = if by_network { NETWORK } else { SERVICE_ADDRESS };
    annotations.set(EGRESS, mode.to_owned());
    annotations.check(draft, "", "", GATEWAY_MODE);
    let network_path = spec.path("network");
    if let Some(network) = spec.text("network", draft).filter(|network| !network.is_empty()) {
        let value = shortened(&format!("{network:?}"));
        let service = annotations.key();
        if let Err(why) = networks::lead(&service, annotations.of_service(objects), network, objects, draft) {
            let otherwise = match by_network {
                true => "by the link whose subnet has the Service's address",
                false => "by the owner's main routing table",
            };
            let text = format!(
                "crier sends by the [[vrf]] that `vrf` in the [[pool]] of the Service's address names, else {otherwise}; {why}"
            );
            annotations.check(draft, &network_path, &value, &text);
        }
    }
    let nodes_path = spec.path("nodeSelector");
    let begun = draft.begin();
    let nodes = spec.fields("nodeSelector", draft).map(|fields| label_selector::one(fields, draft));
    match nodes {
        None if draft.has_misread(begun) => unreadable(&mut annotations, &nodes_path, draft),
        None | Some(Ok(None)) => {}
        // There it means nothing; here, pods on other nodes would be held.
        Some(Ok(Some(nodes))) if by_network => {
            let value = shortened(&format!("\"{nodes}\""));
            let text = "OVN-Kubernetes does not look at it with Network; it was left out";
            annotations.check(draft, &nodes_path, &value, text);
        }
        Some(Ok(Some(nodes))) => annotations.set(EGRESS_NODES, nodes.to_string()),
        Some(Err(())) => unreadable(&mut annotations, &nodes_path, draft),
    }
    spec.finish(draft);
    let there = annotations.of_service(objects);
    annotations.finish(there, draft);
}

/// Without its nodes the Service would send from more of them.
fn unreadable(annotations: &mut Annotations, path: &str, draft: &mut Draft) {
    annotations.check(draft, path, "", UNREADABLE);
    annotations.forgo(EGRESS);
}
