//! ServiceCIDR objects (Kubernetes 1.33 and later): the networks that the addresses of Services are from. Floor 1.
//! An API server that does not have the kind, or does not show it, is no fault: `[egress] cluster-networks` names them too.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::world::{Fact, Listing};

/// `spec` of a ServiceCIDR.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServiceCidrFields {
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    cidrs: Vec<String>,
}

impl Kind for ServiceCidrFields {
    const GROUP: &'static str = "networking.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ServiceCIDR";
    const PLURAL: &'static str = "servicecidrs";
    const FIELDS: &'static [&'static str] = &["spec"];
    const OPTIONAL: bool = true;

    type Scope = ClusterResourceScope;
    type Key = String;

    fn key(metadata: &ObjectMeta) -> String {
        metadata.name.clone().unwrap_or_default()
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        let networks = object.readable()?.spec.cidrs.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Fact::ServiceCidr(Self::key(&object.metadata), Some(Arc::new(networks)))))
    }

    fn gone(key: String) -> Fact {
        Fact::ServiceCidr(key, None)
    }

    fn kept(fact: &Fact) -> Option<&String> {
        match fact {
            Fact::ServiceCidr(key, Some(_)) => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<String>) -> Listing {
        Listing::ServiceCidrs(keys)
    }

    fn unseen(why: Option<String>) -> Option<Fact> {
        Some(Fact::ServiceCidrsUnseen(why))
    }
}

/// A network of all addresses would be nobody's bound: nothing would leave with a Service's address any more.
fn network(text: &str) -> Result<IpNet, Unreadable> {
    let shown: String = text.chars().take(64).collect();
    match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() > 0 => Ok(net.trunc()),
        Ok(_) => Err(Unreadable(format!("spec.cidrs has {shown}, which is every address and no network of Services"))),
        Err(_) => Err(Unreadable(format!("spec.cidrs has {shown:?}, which is no CIDR"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cidrs: &str) -> Result<Vec<String>, String> {
        let text = format!(
            r#"{{"metadata": {{"name": "kubernetes"}}, "spec": {{"cidrs": {cidrs}}}, "status": {{"conditions": []}}}}"#
        );
        let object: Object<ServiceCidrFields> = serde_json::from_str(&text).expect("sound metadata");
        match ServiceCidrFields::translate(&object) {
            Ok(Some(Fact::ServiceCidr(name, Some(networks)))) if name == "kubernetes" => {
                Ok(networks.iter().map(ToString::to_string).collect())
            }
            Ok(other) => panic!("a ServiceCIDR became {other:?}"),
            Err(fault) => Err(fault.to_string()),
        }
    }

    #[test]
    fn a_service_cidr_is_its_networks_of_both_families() {
        assert_eq!(read(r#"["10.96.0.0/16", "fd00:10:96::/112"]"#).unwrap(), ["10.96.0.0/16", "fd00:10:96::/112"]);
        assert_eq!(read("[]").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_network_that_is_none_or_is_everything_is_named_and_the_object_counts_as_unreadable() {
        for (cidrs, named) in [
            (r#"["10.96.0.0/16", "0.0.0.0/0"]"#, "0.0.0.0/0, which is every address"),
            (r#"["::/0"]"#, "::/0, which is every address"),
            (r#"["10.96.0.0"]"#, "\"10.96.0.0\", which is no CIDR"),
            (r#"[5]"#, "5"),
            (r#""10.96.0.0/16""#, "10.96.0.0/16"),
        ] {
            let fault = read(cidrs).expect_err(cidrs);
            assert!(fault.contains(named), "{named} in: {fault}");
        }
    }
}
