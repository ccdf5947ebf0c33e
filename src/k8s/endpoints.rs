//! EndpointSlice objects into [`world::EndpointSlice`]. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::address::{Family, parse_ip};
use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::k8s::service::object_key;
use crate::names::{NodeName, ObjectKey};
use crate::world::{self, Fact, Listing, Tenant};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is read of an EndpointSlice.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EndpointSliceFields {
    #[serde(default, rename = "addressType")]
    address_type: Option<String>,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    node_name: Option<String>,
    conditions: Option<Conditions>,
    target_ref: Option<TargetRef>,
}

/// What has the endpoint's address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: Option<String>,
    uid: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl Endpoint {
    /// Ready, where unknown counts as ready (so the API says), or still serving while it terminates.
    fn is_serving(&self) -> bool {
        let conditions = self.conditions.as_ref();
        let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(false);
        self.is_ready() || serving
    }

    fn is_ready(&self) -> bool {
        self.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    }

    /// Who has the address.
    fn tenant(&self) -> Tenant {
        let pod = self.target_ref.as_ref().filter(|it| it.kind.as_deref() == Some("Pod"));
        let uid = pod.and_then(|pod| pod.uid.as_deref()).filter(|uid| !uid.is_empty());
        let terminating = self.conditions.as_ref().and_then(|conditions| conditions.terminating);
        uid.map(|uid| Tenant::of(uid, terminating.unwrap_or(false))).unwrap_or_default()
    }
}

impl Kind for EndpointSliceFields {
    const GROUP: &'static str = "discovery.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "EndpointSlice";
    const PLURAL: &'static str = "endpointslices";
    const FIELDS: &'static [&'static str] = &["addressType", "endpoints"];

    type Scope = NamespaceResourceScope;
    type Key = ObjectKey;

    fn key(metadata: &ObjectMeta) -> ObjectKey {
        object_key(metadata)
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        let slice = endpoint_slice(object)?;
        Ok(slice.map(|slice| Fact::EndpointSlice(object_key(&object.metadata), Some(Arc::new(slice)))))
    }

    fn gone(key: ObjectKey) -> Fact {
        Fact::EndpointSlice(key, None)
    }

    fn kept(fact: &Fact) -> Option<&ObjectKey> {
        match fact {
            Fact::EndpointSlice(key, Some(_)) => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<ObjectKey>) -> Listing {
        Listing::EndpointSlices(keys)
    }
}

/// The endpoints by node; `None` for a slice that belongs to no Service, or holds names.
///
/// A Service of both families has a slice for each, so a pod counts in both: whoever counts pods asks for one family.
fn endpoint_slice(object: &Object<EndpointSliceFields>) -> Result<Option<world::EndpointSlice>, Unreadable> {
    let EndpointSliceFields { address_type, endpoints } = object.readable()?;
    let key = object_key(&object.metadata);
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    let Some(service) = service.filter(|name| !name.is_empty()) else { return Ok(None) };
    // Names are resolved by clients: no address of a Service leads there.
    if address_type.as_deref() == Some("FQDN") {
        return Ok(None);
    }
    let mut serving: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut ready: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut unready: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut serving_without_node = 0;
    for endpoint in endpoints.iter().flatten() {
        let node = endpoint.node_name.as_deref().filter(|name| !name.is_empty()).map(NodeName::from);
        match (node, endpoint.is_serving()) {
            (Some(node), true) => {
                if endpoint.is_ready() {
                    *ready.entry(node.clone()).or_default() += 1;
                }
                *serving.entry(node).or_default() += 1;
            }
            (Some(node), false) => *unready.entry(node).or_default() += 1,
            (None, true) => serving_without_node += 1,
            (None, false) => {}
        }
    }
    let service = ObjectKey { namespace: key.namespace, name: service.as_str().into() };
    let family = match address_type.as_deref() {
        Some("IPv4") => Some(Family::V4),
        Some("IPv6") => Some(Family::V6),
        Some(_) | None => None,
    };
    let addresses = addresses(endpoints.as_deref().unwrap_or_default(), family);
    let (ready, serving, unready) = (ready.into(), serving.into(), unready.into());
    Ok(Some(world::EndpointSlice { service, family, ready, serving, serving_without_node, unready, addresses }))
}

/// Of each endpoint the first address, as the API says, if it is of the slice's family.
fn addresses(endpoints: &[Endpoint], family: Option<Family>) -> world::EndpointAddresses {
    let first = |endpoint: &Endpoint| {
        let address = parse_ip(endpoint.addresses.as_ref()?.first()?)?;
        Some((address, endpoint.tenant()))
    };
    let of_family = |(address, _): &(IpAddr, Tenant)| family.is_none_or(|family| Family::of(*address) == family);
    world::EndpointAddresses::of(&endpoints.iter().filter_map(first).filter(of_family).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Option<world::EndpointSlice> {
        let object: Object<EndpointSliceFields> = serde_saphyr::from_str(yaml).expect("YAML of an EndpointSlice");
        endpoint_slice(&object).expect("a slice that can be read")
    }

    fn of_web(endpoints: &str) -> world::EndpointSlice {
        let metadata = "{name: web-x2v, namespace: shop, labels: {kubernetes.io/service-name: web}}";
        read(&format!("{{metadata: {metadata}, endpoints: {endpoints}}}")).expect("it belongs to web")
    }

    #[test]
    fn a_slice_of_the_endpoint_slice_controller_is_read_whole() {
        let slice = read(
            r#"
addressType: IPv4
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-7xk2p
  namespace: shop
  labels:
    endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io
    kubernetes.io/service-name: web
endpoints:
- addresses: [10.244.1.7]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-a
  targetRef: {kind: Pod, name: web-1, namespace: shop}
- addresses: [10.244.1.8]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-a
- addresses: [10.244.2.3]
  conditions: {ready: false, serving: false, terminating: false}
  nodeName: node-b
ports:
- {name: http, port: 8080, protocol: TCP}
"#,
        )
        .expect("it belongs to web");
        assert_eq!(slice.service.to_string(), "shop/web");
        assert_eq!(slice.serving, [(NodeName::from("node-a"), 2)].into(), "node-b has nothing ready");
        assert_eq!(slice.serving_without_node, 0);
        assert_eq!(slice.family, Some(Family::V4));
        let addresses: Vec<String> = slice.addresses.iter().map(|address| address.to_string()).collect();
        assert_eq!(addresses, ["10.244.1.7", "10.244.1.8", "10.244.2.3"], "a pod sends before it is ready");
    }

    #[test]
    fn an_endpoint_serves_when_it_is_ready_or_still_serving() {
        let table = [
            ("{}", true),
            ("{ready: true}", true),
            ("{ready: null}", true),
            ("{ready: false}", false),
            ("{ready: false, serving: false, terminating: true}", false),
            ("{ready: false, serving: true, terminating: true}", true),
            ("{ready: true, serving: false}", true),
        ];
        for (conditions, serves) in table {
            let slice = of_web(&format!("[{{nodeName: a, conditions: {conditions}}}]"));
            assert_eq!(!slice.serving.is_empty(), serves, "conditions {conditions}");
        }
        assert_eq!(of_web("[{nodeName: a}]").serving.len(), 1, "no conditions at all is ready");
    }

    #[test]
    fn one_that_terminates_serves_but_is_not_ready() {
        let slice = of_web(
            "[{nodeName: a, conditions: {ready: true}}, {nodeName: a, conditions: {ready: false, serving: true}}]",
        );
        assert_eq!(slice.serving, [(NodeName::from("a"), 2)].into());
        assert_eq!(slice.ready, [(NodeName::from("a"), 1)].into());
        assert!(slice.unready.is_empty());
    }

    #[test]
    fn one_that_takes_no_connections_is_counted_apart() {
        let slice = of_web(
            "[{nodeName: a, conditions: {ready: false}}, {nodeName: b, conditions: {ready: false, serving: false, terminating: true}}]",
        );
        assert!(slice.serving.is_empty());
        assert_eq!(slice.unready, [(NodeName::from("a"), 1), (NodeName::from("b"), 1)].into());
    }

    #[test]
    fn an_endpoint_that_names_no_node_is_counted_apart() {
        let slice = of_web("[{addresses: [192.0.2.9]}, {addresses: [192.0.2.10], nodeName: ''}]");
        assert!(slice.serving.is_empty());
        assert_eq!(slice.serving_without_node, 2);
    }

    #[test]
    fn a_slice_without_endpoints_serves_nothing() {
        assert!(of_web("null").serving.is_empty(), "the API server writes null for none");
        assert!(of_web("[]").serving.is_empty());
    }

    #[test]
    fn a_slice_of_no_service_says_nothing() {
        assert_eq!(read("{metadata: {name: stray}, endpoints: [{nodeName: a}]}"), None);
        let object: Object<EndpointSliceFields> = serde_saphyr::from_str("{metadata: {name: stray}}").unwrap();
        assert_eq!(EndpointSliceFields::translate(&object), Ok(None));
    }

    #[test]
    fn who_has_an_address_is_told_by_the_uid_of_the_pod_that_the_endpoint_refers_to() {
        let tenant = |endpoint: &str| {
            let slice = of_web(&format!("[{{addresses: [10.244.1.7], {endpoint}}}]"));
            let (address, tenant) = slice.addresses.tenants().next().expect("one");
            assert_eq!(address.to_string(), "10.244.1.7");
            tenant
        };
        let first = tenant("targetRef: {kind: Pod, name: web-1, uid: 5b8e}, conditions: {ready: true}");
        assert!(first.pod().is_some() && !first.terminates());
        let ends =
            tenant("targetRef: {kind: Pod, name: web-1, uid: 5b8e}, conditions: {ready: false, terminating: true}");
        assert!(ends.pod() == first.pod() && ends.terminates(), "the same pod, at its end");
        let second = tenant("targetRef: {kind: Pod, name: web-1, uid: 77aa}");
        assert!(second.pod().is_some() && second.pod() != first.pod(), "of a StatefulSet, with the name of the first");
        for silent in [
            "nodeName: a",
            "targetRef: {kind: Pod, name: web-1}",
            "targetRef: {kind: VM, uid: 5b8e}",
            "targetRef: null",
        ] {
            assert_eq!(tenant(silent).pod(), None, "{silent}");
        }
    }

    #[test]
    fn a_slice_of_names_is_nobodys() {
        let metadata = "{name: web-x2v, namespace: shop, labels: {kubernetes.io/service-name: web}}";
        assert_eq!(read(&format!("{{metadata: {metadata}, addressType: FQDN, endpoints: [{{nodeName: a}}]}}")), None);
    }
}
