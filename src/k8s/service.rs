//! Service objects into [`world::Service`]. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::address::{Family, parse_ip};
use crate::k8s::annotation;
use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::names::ObjectKey;
use crate::selector::Labels;
use crate::text_map::TextMap;
use crate::world::{self, Fact, FamilyPolicy, Listing, ServicePort, Sharing, TrafficPolicy};

/// What is read of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServiceFields {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type")]
    service_type: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    ip_families: Option<Vec<String>>,
    ip_family_policy: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    external_traffic_policy: Option<String>,
    load_balancer_source_ranges: Option<Vec<String>>,
    allocate_load_balancer_node_ports: Option<bool>,
    selector: Option<BTreeMap<String, String>>,
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Port {
    #[serde(default)]
    protocol: Option<String>,
    port: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: Option<LoadBalancer>,
    conditions: Option<Vec<serde_json::Value>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
    hostname: Option<String>,
}

impl Kind for ServiceFields {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Service";
    const PLURAL: &'static str = "services";
    const FIELDS: &'static [&'static str] = &["spec", "status"];

    type Scope = NamespaceResourceScope;
    type Key = ObjectKey;

    fn key(metadata: &ObjectMeta) -> ObjectKey {
        object_key(metadata)
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        let service = service(object)?;
        Ok(Some(Fact::Service(object_key(&object.metadata), Some(Arc::new(service)))))
    }

    fn gone(key: ObjectKey) -> Fact {
        Fact::Service(key, None)
    }

    fn kept(fact: &Fact) -> Option<&ObjectKey> {
        match fact {
            Fact::Service(key, Some(service)) if service.is_kept() => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<ObjectKey>) -> Listing {
        Listing::Services(keys)
    }
}

/// What the World keeps of a Service. An unknown value of a field is read as the field's default.
pub fn service(object: &Object<ServiceFields>) -> Result<world::Service, Unreadable> {
    let ServiceFields { spec, status } = object.readable()?;
    let metadata = &object.metadata;
    let spec = spec.clone().unwrap_or_default();
    let conditions = status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let (renumber, unreadable) = match annotation::renumber(metadata.annotations.as_ref()) {
        Ok(renumber) => (renumber.map(Box::new), None),
        Err(error) => (None, Some(error)),
    };
    let request = annotation::request(metadata.annotations.as_ref(), spec.load_balancer_ip.as_deref());
    let (egress, egress_bounds) = annotation::egress(metadata.annotations.as_ref()).unzip();
    let selector = spec.selector.iter().flatten().collect::<TextMap>();
    let pod_selector = (egress.is_some() && !selector.is_empty()).then(|| Arc::new(Labels(selector)));
    let ingress = status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    // One that stands there twice is one address.
    let mut shown: Vec<IpAddr> = Vec::new();
    for address in ingress.iter().filter_map(|entry| parse_ip(entry.ip.as_deref()?)) {
        if !shown.contains(&address) {
            shown.push(address);
        }
    }
    let externals = spec.external_ips.iter().flatten().map(String::as_str);
    let texts = externals.chain(ingress.iter().filter_map(|entry| entry.ip.as_deref()));
    let odd = texts.filter(|text| !text.is_empty() && parse_ip(text).is_none()).take(MOST_UNREADABLE);
    let odd: Vec<String> = odd.map(|text| text.chars().take(LONGEST_ADDRESS).collect()).collect();
    let cluster_ips: Vec<IpAddr> = cluster_ips(&spec).collect();
    Ok(world::Service {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        load_balancer: spec.service_type.as_deref() == Some("LoadBalancer"),
        class: spec.load_balancer_class.clone(),
        labels: labels(metadata),
        families: families(&spec),
        family_policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            _ => FamilyPolicy::SingleStack,
        },
        external_traffic_policy: match spec.external_traffic_policy.as_deref() {
            Some("Local") => TrafficPolicy::Local,
            _ => TrafficPolicy::Cluster,
        },
        sharing: annotation::sharing_key(metadata.annotations.as_ref()).map(|key| {
            let selector = Labels(spec.selector.iter().flatten().collect());
            Box::new(Sharing { key: key.to_owned(), selector })
        }),
        request: unreadable.map_or(request, Err),
        egress,
        egress_bounds: egress_bounds.flatten(),
        pod_selector,
        external_ips: spec.external_ips.iter().flatten().filter_map(|text| parse_ip(text)).collect(),
        ports: spec.ports.unwrap_or_default().into_iter().map(port).collect(),
        ingress: shown,
        unreadable: odd,
        cluster_ips,
        not_vip: ingress
            .iter()
            .filter(|entry| is_not_vip(entry))
            .filter_map(|entry| parse_ip(entry.ip.as_deref()?))
            .collect(),
        pools_told: annotation::pools_told(metadata.annotations.as_ref()),
        host_names: ingress.iter().filter_map(|entry| entry.hostname.clone()).filter(|name| !name.is_empty()).collect(),
        source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
        node: annotation::node(metadata.annotations.as_ref()),
        without_node_ports: spec.allocate_load_balancer_node_ports == Some(false),
        renumber,
        condition: conditions.iter().find_map(condition).map(Arc::new),
    })
}

/// An entry without a mode is a VIP (KEP-1860).
fn is_not_vip(entry: &Ingress) -> bool {
    entry.ip_mode.as_deref().is_some_and(|mode| mode != "VIP")
}

/// crier's own condition. Those of others may have any form.
fn condition(value: &serde_json::Value) -> Option<world::Condition> {
    let text = |field: &str| value.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
    (text("type") == world::Condition::TYPE).then(|| world::Condition {
        allocated: text("status") == "True",
        reason: text("reason").to_owned(),
        message: text("message").to_owned(),
    })
}

fn port(Port { protocol, port }: Port) -> ServicePort {
    ServicePort { protocol: protocol.unwrap_or_else(|| "TCP".to_owned()), port }
}

/// `spec.ipFamilies`; a Service that does not carry it (one from a manifest) has those of its cluster addresses.
fn families(spec: &Spec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    let clustered = cluster_ips(spec).map(Family::of);
    let mut families: Vec<Family> = named.collect();
    if families.is_empty() {
        for family in clustered {
            if !families.contains(&family) {
                families.push(family);
            }
        }
    }
    families
}

/// `None` is no address.
fn cluster_ips(spec: &Spec) -> impl Iterator<Item = IpAddr> {
    let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    spec.cluster_ips.iter().flatten().chain(first).filter_map(|text| parse_ip(text))
}

/// Of what is no address, so much is kept to name it.
const MOST_UNREADABLE: usize = 4;
const LONGEST_ADDRESS: usize = 64;

/// The key of a namespaced object; one that names no namespace (in a manifest) is in `default`, as for kubectl.
pub(super) fn object_key(metadata: &ObjectMeta) -> ObjectKey {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    ObjectKey::new(namespace, metadata.name.as_deref().unwrap_or_default())
}

pub(super) fn labels(metadata: &ObjectMeta) -> Labels {
    Labels(metadata.labels.iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{PoolsTold, RequestError};

    fn read(yaml: &str) -> world::Service {
        let object: Object<ServiceFields> = serde_saphyr::from_str(yaml).expect("YAML of a Service");
        service(&object).expect("a Service that can be read")
    }

    #[test]
    fn the_selector_is_kept_of_a_service_with_egress_alone() {
        let selector = |annotations: &str, selector: &str| {
            let spec = format!("{{type: LoadBalancer, selector: {selector}}}");
            let service = read(&format!("{{metadata: {{name: web, annotations: {annotations}}}, spec: {spec}}}"));
            let of = |app: &str| service.selects(&Labels([("app", app), ("more", "yes")].into_iter().collect()));
            (service.pod_selector.is_some(), of("web"), of("api"))
        };
        let egress = "{crier.dev/egress: service-ip}";
        assert_eq!(selector(egress, "{app: web}"), (true, true, false));
        assert_eq!(selector("{crier.dev/egress: mistyped}", "{app: web}"), (true, true, false), "its pods are held");
        assert_eq!(selector("{}", "{app: web}"), (false, false, false));
        for none in ["{}", "null"] {
            assert_eq!(selector(egress, none), (false, false, false), "it selects no pod by itself");
        }
    }

    #[test]
    fn a_service_of_the_api_server_is_read_whole() {
        let seen = read(
            r#"
apiVersion: v1
kind: Service
metadata:
  name: istio-ingressgateway
  namespace: istio-system
  uid: 5b8e
  resourceVersion: "812"
  labels: {app: istio-ingressgateway, tier: front}
spec:
  type: LoadBalancer
  loadBalancerClass: crier.dev/crier
  loadBalancerIP: 192.168.35.100
  allocateLoadBalancerNodePorts: false
  loadBalancerSourceRanges: [10.0.0.0/8, "fd00::/8"]
  clusterIP: 10.96.12.1
  clusterIPs: [10.96.12.1, "fd96::1"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  externalTrafficPolicy: Local
  internalTrafficPolicy: Cluster
  ports:
  - {name: status-port, nodePort: 30521, port: 15021, protocol: TCP, targetPort: 15021}
  - {name: dns, port: 53, protocol: UDP, targetPort: dns}
status:
  loadBalancer:
    ingress:
    - {ip: 192.168.35.100, ipMode: VIP}
    - {hostname: somewhere.example}
  conditions:
  - {type: example.com/Checked, status: "True", reason: Fine, message: "", lastTransitionTime: "2026-07-01T08:00:00Z"}
  - {type: crier.dev/Allocated, status: "True", reason: Assigned, message: "assigned 192.168.35.100 from lan"}
"#,
        );
        assert_eq!((seen.uid.as_str(), seen.resource_version.as_str()), ("5b8e", "812"));
        assert!(seen.load_balancer);
        assert_eq!(seen.class.as_deref(), Some("crier.dev/crier"));
        assert_eq!(seen.labels.0.get("tier"), Some("front"));
        assert_eq!(seen.families, [Family::V4, Family::V6]);
        assert_eq!(seen.family_policy, FamilyPolicy::PreferDualStack);
        assert_eq!(seen.external_traffic_policy, TrafficPolicy::Local);
        let ports: Vec<_> = seen.ports.iter().map(|port| (port.protocol.as_str(), port.port)).collect();
        assert_eq!(ports, [("TCP", 15021), ("UDP", 53)]);
        let address: IpAddr = "192.168.35.100".parse().unwrap();
        assert_eq!(seen.request.as_ref().expect("a request").addresses, [address]);
        assert_eq!(seen.ingress, [address], "a host name is no address");
        assert_eq!(seen.host_names, ["somewhere.example"]);
        assert_eq!((seen.source_ranges.join(" ").as_str(), seen.without_node_ports), ("10.0.0.0/8 fd00::/8", true));
        assert_eq!(seen.given(), [address], "crier's condition says what crier gave");
    }

    #[test]
    fn an_address_that_a_status_shows_twice_is_one() {
        let entries = "{ip: 192.0.2.1}, {ip: 'fd35::1'}, {ip: 192.0.2.1, ipMode: VIP}, {ip: 'fd35:0::1'}";
        let status = format!("{{loadBalancer: {{ingress: [{entries}]}}}}");
        let seen = read(&format!("{{metadata: {{name: web}}, status: {status}}}"));
        assert_eq!(seen.ingress, ["192.0.2.1", "fd35::1"].map(|it| it.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn addresses_are_read_as_kubernetes_does_and_what_is_none_is_kept_to_be_named() {
        let spec = "{type: ClusterIP, clusterIP: 10.096.0.7, externalIPs: [172.030.0.200, '::ffff:172.30.0.201', 172.30.0.300]}";
        let status = "{loadBalancer: {ingress: [{ip: 172.030.000.202}, {ip: not-one}, {hostname: some.example}]}}";
        let seen = read(&format!("{{metadata: {{name: web}}, spec: {spec}, status: {status}}}"));
        assert_eq!(seen.external_ips, ["172.30.0.200", "172.30.0.201"].map(|it| it.parse::<IpAddr>().unwrap()));
        assert_eq!(seen.ingress, ["172.30.0.202".parse::<IpAddr>().unwrap()]);
        assert_eq!(seen.cluster_ips, ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(seen.unreadable, ["172.30.0.300", "not-one"]);
        assert!(read("{metadata: {name: web}, spec: {externalIPs: [nothing]}}").is_kept());
    }

    #[test]
    fn another_ip_mode_and_edited_names_of_pools_are_seen() {
        let seen = |annotations: &str, ingress: &str| {
            let status = format!("{{loadBalancer: {{ingress: [{ingress}]}}}}");
            read(&format!("{{metadata: {{name: web, annotations: {{{annotations}}}}}, status: {status}}}"))
        };
        let addresses = "{ip: 192.0.2.1, ipMode: VIP}, {ip: 192.0.2.2, ipMode: Proxy}, {ip: 192.0.2.3}";
        let service = seen("", addresses);
        assert_eq!((service.ingress.len(), service.not_vip), (3, vec!["192.0.2.2".parse::<IpAddr>().unwrap()]));
        assert_eq!(service.pools_told, PoolsTold::Nothing);
        let (own, metallb) = ("crier.dev/ip-allocated-from-pool", "metallb.io/ip-allocated-from-pool");
        let told = |annotations: &str| seen(annotations, "").pools_told;
        assert_eq!(told(&format!("{own}: lan, {metallb}: lan")), PoolsTold::Same("lan".into()));
        assert_eq!(told(&format!("{own}: nonsense, {metallb}: lan")), PoolsTold::Different);
        assert_eq!(told(&format!("{own}: lan")), PoolsTold::Different);
    }

    #[test]
    fn a_terse_manifest_gets_the_defaults_of_kubernetes() {
        let seen = read("{kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, ports: [{port: 80}]}}");
        assert_eq!(seen.ports, [ServicePort { protocol: "TCP".to_owned(), port: 80 }]);
        assert_eq!(seen.external_traffic_policy, TrafficPolicy::Cluster);
        assert_eq!(seen.family_policy, FamilyPolicy::SingleStack);
        assert!(seen.families.is_empty() && seen.ingress.is_empty() && seen.resource_version.is_empty());
    }

    #[test]
    fn families_come_from_the_cluster_addresses_where_the_spec_names_none() {
        let families = |spec: &str| read(&format!("{{metadata: {{name: web}}, spec: {{{spec}}}}}")).families;
        assert_eq!(families("clusterIP: 'fd96::1', clusterIPs: ['fd96::1', 10.96.0.9]"), [Family::V6, Family::V4]);
        assert_eq!(families("clusterIP: 10.96.0.9"), [Family::V4]);
        assert_eq!(families("ipFamilies: [IPv6], clusterIP: 10.96.0.9"), [Family::V6]);
        assert_eq!(families("clusterIP: None"), []);
    }

    #[test]
    fn a_service_of_another_type_is_told_as_such() {
        assert!(!read("{metadata: {name: web}, spec: {type: ClusterIP}}").load_balancer);
        assert!(!read("{metadata: {name: web}}").load_balancer);
    }

    #[test]
    fn a_request_that_cannot_be_read_stays_with_the_service() {
        let seen = read(
            "{metadata: {name: web, annotations: {crier.dev/addresses: 192.0.2.300}}, spec: {type: LoadBalancer}}",
        );
        assert!(matches!(seen.request, Err(RequestError::Malformed { .. })), "{:?}", seen.request);
    }

    #[test]
    fn the_fact_names_the_service_by_namespace_and_name() {
        let key = |metadata: &str| {
            let object: Object<ServiceFields> = serde_saphyr::from_str(&format!("metadata: {metadata}")).unwrap();
            match ServiceFields::translate(&object) {
                Ok(Some(Fact::Service(key, Some(_)))) => key.to_string(),
                other => panic!("a Service became {other:?}"),
            }
        };
        assert_eq!(key("{name: web, namespace: shop}"), "shop/web");
        assert_eq!(key("{name: web}"), "default/web");
    }
}
