//! Namespace objects: their labels are all that crier reads. Floor 1.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::k8s::raw::{Kind, Object, Unreadable};
use crate::k8s::service::labels;
use crate::names::NamespaceName;
use crate::world::{Fact, Listing};

/// What is read of a Namespace beside its labels: nothing.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct NamespaceFields {}

impl Kind for NamespaceFields {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Namespace";
    const PLURAL: &'static str = "namespaces";
    const FIELDS: &'static [&'static str] = &[];

    type Scope = ClusterResourceScope;
    type Key = NamespaceName;

    fn key(metadata: &ObjectMeta) -> NamespaceName {
        NamespaceName::from(metadata.name.as_deref().unwrap_or_default())
    }

    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable> {
        object.readable()?;
        Ok(Some(Fact::Namespace(Self::key(&object.metadata), Some(Arc::new(labels(&object.metadata))))))
    }

    fn gone(key: NamespaceName) -> Fact {
        Fact::Namespace(key, None)
    }

    fn kept(fact: &Fact) -> Option<&NamespaceName> {
        match fact {
            Fact::Namespace(key, Some(_)) => Some(key),
            _ => None,
        }
    }

    fn listing(keys: BTreeSet<NamespaceName>) -> Listing {
        Listing::Namespaces(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_its_labels() {
        let yaml = "{kind: Namespace, metadata: {name: shop, labels: {team: web}}, spec: {finalizers: [kubernetes]}}";
        let object: Object<NamespaceFields> = serde_saphyr::from_str(yaml).unwrap();
        match NamespaceFields::translate(&object) {
            Ok(Some(Fact::Namespace(name, Some(labels)))) => {
                assert_eq!((name.as_str(), labels.0.get("team")), ("shop", Some("web")));
            }
            other => panic!("a Namespace became {other:?}"),
        }
    }
}
