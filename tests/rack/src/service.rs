//! The one place that makes a Service of type LoadBalancer, and the EndpointSlices that belong to it: for an API server as
//! objects, for a folder as text.
//!
//! A Service with a [selector](Service::selects) gets its slices from the API server's controllers; one without has the
//! endpoints that the test gives it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use crate::site::Pod;

/// A Service to be. One family (IPv4), one port (80), policy Cluster and no endpoint, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    annotations: Map<String, Value>,
    spec: Map<String, Value>,
    families: Vec<&'static str>,
    /// Each port, and the port behind it.
    ports: Vec<(u16, u16)>,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    node: Option<String>,
    /// `None`: one out of the pods' range of the node.
    address: Option<IpAddr>,
    is_ready: bool,
    /// One that is not ready: it has yet to serve. Else it terminates and still serves.
    is_starting: bool,
    /// Of the pod that it refers to.
    uid: Option<String>,
}

impl Service {
    pub fn new(name: &str) -> Service {
        Service {
            name: name.into(),
            annotations: Map::new(),
            spec: Map::from_iter([("type".into(), "LoadBalancer".into())]),
            families: Vec::new(),
            ports: vec![(80, 80)],
            endpoints: Vec::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Service {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// The addresses that it asks for, of any family: `"192.168.35.100,fd35::100"`. Its families are those of the
    /// addresses.
    pub fn addresses(self, addresses: &str) -> Service {
        let families: &[&str] = match (addresses.contains('.'), addresses.contains(':')) {
            (true, true) => &["IPv4", "IPv6"],
            (false, true) => &["IPv6"],
            (_, false) => &["IPv4"],
        };
        self.annotation("crier.dev/addresses", addresses).families(families)
    }

    /// A field of its `spec` as the API names it.
    pub fn spec(mut self, field: &str, value: impl Into<Value>) -> Service {
        self.spec.insert(field.into(), value.into());
        self
    }

    /// `spec.loadBalancerIP`.
    pub fn load_balancer_ip(self, address: &str) -> Service {
        self.spec("loadBalancerIP", address)
    }

    /// `spec.externalTrafficPolicy`.
    pub fn policy(self, policy: &str) -> Service {
        self.spec("externalTrafficPolicy", policy)
    }

    /// One family of this name, or both, which it then requires.
    pub fn families(mut self, families: &[&'static str]) -> Service {
        self.families = families.to_vec();
        let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
        self.spec("ipFamilyPolicy", policy).spec("ipFamilies", families)
    }

    /// Its pods are those with this label `app`.
    pub fn selects(self, app: &str) -> Service {
        self.spec("selector", json!({ "app": app }))
    }

    /// Each port, and the port of the endpoints behind it.
    pub fn ports(mut self, ports: &[(u16, u16)]) -> Service {
        self.ports = ports.to_vec();
        self
    }

    /// One more ready endpoint on this node.
    pub fn on(self, node: &str) -> Service {
        self.endpoint(Some(node), None, true)
    }

    /// One more endpoint on this node that terminates and still serves.
    pub fn terminating_on(self, node: &str) -> Service {
        self.endpoint(Some(node), None, false)
    }

    /// One more ready endpoint that names no node.
    pub fn anywhere(self) -> Service {
        self.endpoint(None, None, true)
    }

    /// One more ready endpoint with this address that names no node.
    pub fn at(self, address: IpAddr) -> Service {
        self.endpoint(None, Some(address), true)
    }

    /// The pod: a ready endpoint of each family on its node.
    pub fn pod(self, pod: &Pod) -> Service {
        let service = self.endpoint(Some(&pod.node), Some(pod.address.into()), true);
        service.endpoint(Some(&pod.node), Some(pod.address6.into()), true)
    }

    /// The same, by a reference to the pod with this UID, as the API server's controllers write it.
    pub fn pod_with(self, pod: &Pod, uid: &str) -> Service {
        let mut service = self.pod(pod);
        service.endpoints.iter_mut().rev().take(2).for_each(|endpoint| endpoint.uid = Some(uid.to_owned()));
        service
    }

    /// The pod while it starts: an endpoint of each family on its node that takes no connections yet.
    pub fn starting(self, pod: &Pod) -> Service {
        let mut service = self.pod(pod);
        for endpoint in service.endpoints.iter_mut().rev().take(2) {
            (endpoint.is_ready, endpoint.is_starting) = (false, true);
        }
        service
    }

    fn endpoint(mut self, node: Option<&str>, address: Option<IpAddr>, is_ready: bool) -> Service {
        self.endpoints.push(Endpoint {
            node: node.map(str::to_owned),
            address,
            is_ready,
            is_starting: false,
            uid: None,
        });
        self
    }

    /// The Service as the API server takes it.
    pub fn object(&self) -> Value {
        let is_single = self.ports.len() == 1;
        let port = |(port, target): &(u16, u16)| {
            let mut value = json!({ "port": port, "targetPort": target });
            if !is_single {
                value["name"] = format!("p{port}").into();
            }
            value
        };
        let mut spec = self.spec.clone();
        spec.insert("ports".into(), self.ports.iter().map(port).collect());
        let mut metadata = json!({ "name": self.name });
        if !self.annotations.is_empty() {
            metadata["annotations"] = self.annotations.clone().into();
        }
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })
    }

    /// Its EndpointSlices: one for each of its families, with every endpoint in each.
    pub fn slices(&self) -> Vec<Value> {
        let families = if self.families.is_empty() { &["IPv4"][..] } else { &self.families };
        families.iter().map(|family| self.slice(family)).collect()
    }

    fn slice(&self, family: &str) -> Value {
        let is_single = self.ports.len() == 1;
        let port = |(port, target): &(u16, u16)| {
            let name = if is_single { String::new() } else { format!("p{port}") };
            json!({ "name": name, "port": target, "protocol": "TCP" })
        };
        let endpoint = |(index, endpoint): (usize, &Endpoint)| {
            let address = endpoint.address.unwrap_or_else(|| endpoint_address(index, family));
            let mut value = json!({ "addresses": [address], "conditions": { "ready": endpoint.is_ready } });
            if !endpoint.is_ready {
                value["conditions"]["serving"] = (!endpoint.is_starting).into();
                value["conditions"]["terminating"] = (!endpoint.is_starting).into();
            }
            if let Some(node) = &endpoint.node {
                value["nodeName"] = node.as_str().into();
            }
            if let Some(uid) = &endpoint.uid {
                value["targetRef"] = json!({ "kind": "Pod", "name": uid, "uid": uid });
            }
            value
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("{}-{}", self.name, family.to_lowercase()),
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "endpoints": self.endpoints.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
        })
    }

    /// The Service and its slices as the text of a manifest; JSON is YAML.
    pub fn manifest(&self) -> String {
        let mut objects = vec![self.object()];
        objects.extend(self.slices());
        objects.iter().map(|object| format!("---\n{object}\n")).collect()
    }
}

/// The address of the endpoint of that index, of a pod that need not exist.
fn endpoint_address(index: usize, family: &str) -> IpAddr {
    let number = u16::try_from(index + 1).expect("a test gives a Service few endpoints");
    if family == "IPv6" {
        return Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, number).into();
    }
    let base = u32::from(Ipv4Addr::new(10, 244, 0, 0));
    Ipv4Addr::from(base + u32::from(number)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_both_families_has_a_slice_of_each() {
        let service = Service::new("web").addresses("192.0.2.1,2001:db8::1").on("node-1").terminating_on("node-2");
        assert_eq!(service.object()["spec"]["ipFamilyPolicy"], "RequireDualStack");
        let slices = service.slices();
        let types: Vec<&Value> = slices.iter().map(|slice| &slice["addressType"]).collect();
        assert_eq!(types, ["IPv4", "IPv6"]);
        assert_eq!(slices[1]["endpoints"][0]["addresses"][0], "fd44::1");
        assert_eq!(slices[0]["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(service.manifest().matches("---\n").count(), 3, "one document for each object");
    }
}
