//! The few fields of a Kubernetes object that crier reads, straight from JSON or YAML.
//! Floor 1. Everything else in an object (managedFields above all) is skipped while it is read and never kept.
//! The translators beside this file, one for each [`Kind`], know what the fields mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::k8s::annotation;
use crate::world::{Fact, Listing};

/// A kind of object that crier reads: where the API server serves it, which fields are read, and the Facts it becomes.
///
/// The type that implements this holds the fields beside `metadata`.
pub trait Kind: DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {
    /// The API group; empty for the core.
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    const PLURAL: &'static str;
    /// The top-level fields that this type reads, beside `metadata`.
    const FIELDS: &'static [&'static str];
    /// An API server that lacks the kind, or does not show it, is as good as one that does.
    const OPTIONAL: bool = false;

    type Scope;
    /// The key of an object of this kind in the World.
    type Key: Clone + Ord + fmt::Display + Send;

    fn key(metadata: &ObjectMeta) -> Self::Key;

    /// The Fact that the object becomes; `None` if it holds nothing that crier reads.
    fn translate(object: &Object<Self>) -> Result<Option<Fact>, Unreadable>;

    /// The Fact that the object is gone, or holds nothing any more that crier reads.
    fn gone(key: Self::Key) -> Fact;

    /// The key in a Fact of this kind, for the listing; `None` if the World keeps nothing of the object.
    fn kept(fact: &Fact) -> Option<&Self::Key>;

    fn listing(keys: BTreeSet<Self::Key>) -> Listing;

    /// Of an optional kind: the Fact that the API server does not show it, with why, or does.
    fn unseen(_why: Option<String>) -> Option<Fact> {
        None
    }
}

/// An object of one kind. Decoding fails only if the text is not an object or its metadata is broken. A fault in the other
/// fields is kept in their place, so one bad object never spoils a list.
#[derive(Debug, Clone)]
pub struct Object<K> {
    pub metadata: ObjectMeta,
    pub fields: Result<K, Unreadable>,
}

/// Why the fields of an object cannot be read. The state of the object that was last read stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

impl<K: Clone> Object<K> {
    /// The fields, or why there are none.
    pub fn readable(&self) -> Result<&K, Unreadable> {
        self.fields.as_ref().map_err(Clone::clone)
    }
}

impl<K: Kind> kube::Resource for Object<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de, K: Kind> Deserialize<'de> for Object<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<K>(PhantomData<K>);

impl<'de, K: Kind> Visitor<'de> for ObjectVisitor<K> {
    type Value = Object<K>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", K::KIND)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<K>, A::Error> {
        let mut metadata = Metadata::default();
        let mut fields = serde_json::Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "metadata" {
                metadata = map.next_value()?;
            } else if K::FIELDS.contains(&name.as_str()) {
                // A generic value first: a field of the wrong type must not end the reading of the list that holds this object.
                fields.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let fields =
            serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| Unreadable(error.to_string()));
        Ok(Object { metadata: metadata.into(), fields })
    }
}

/// The fields of `metadata` that are read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<Annotations>,
    deletion_timestamp: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> ObjectMeta {
        let Metadata { name, namespace, uid, resource_version, labels, annotations, deletion_timestamp } = metadata;
        let annotations = annotations.map(|Annotations(ours)| ours).filter(|ours| !ours.is_empty());
        ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            labels,
            annotations,
            deletion_timestamp,
            ..ObjectMeta::default()
        }
    }
}

/// The annotations that crier reads. Others can be large: `kubectl apply` stores a copy of the whole object in one.
#[derive(Default)]
struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
        let mut ours = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if annotation::is_read(&name) {
                ours.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Annotations(ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::service::ServiceFields;

    /// As the API server of 1.36 answers, with what kubectl and the server itself add.
    const SERVICE: &str = r#"{
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "0b6f", "resourceVersion": "4711",
            "creationTimestamp": "2026-07-01T08:00:00Z",
            "labels": {"app": "web"},
            "annotations": {
                "crier.dev/pool": "lan",
                "metallb.io/ip-allocated-from-pool": "old",
                "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"v1\"}"
            },
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:type": {}}}}]
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 31000}]},
        "status": {"loadBalancer": {}}
    }"#;

    fn object(text: &str) -> Object<ServiceFields> {
        serde_json::from_str(text).expect("the metadata is sound")
    }

    #[test]
    fn only_what_is_read_is_kept() {
        let service = object(SERVICE);
        assert_eq!(service.metadata.resource_version.as_deref(), Some("4711"));
        assert!(service.metadata.managed_fields.is_none(), "managedFields are skipped");
        let annotations = service.metadata.annotations.expect("two annotations are read");
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["crier.dev/pool", "metallb.io/ip-allocated-from-pool"]);
    }

    #[test]
    fn a_field_of_the_wrong_type_spoils_its_own_object_only() {
        let list = format!("[{SERVICE}, {}]", SERVICE.replace("\"port\": 80", "\"port\": \"http\""));
        let objects: Vec<Object<ServiceFields>> = serde_json::from_str(&list).expect("the list is read to its end");
        assert!(objects[0].fields.is_ok());
        let fault = objects[1].readable().expect_err("a port is a number").to_string();
        assert!(fault.contains("http"), "the fault names the value: {fault}");
        assert_eq!(objects[1].metadata.name.as_deref(), Some("web"), "and the object can still be named");
    }

    #[test]
    fn an_object_without_any_field_is_still_an_object() {
        let service = object("{}");
        assert!(service.fields.is_ok());
        assert!(service.metadata.name.is_none());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(serde_json::from_str::<Object<ServiceFields>>("[]").is_err());
        assert!(serde_json::from_str::<Object<ServiceFields>>(r#"{"metadata": {"labels": {"a": 1}}}"#).is_err());
    }
}
