//! The Pods of this node, as far as the API server or the manifests show them. Floor 1.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::Touched;
use crate::names::{NodeName, ObjectKey};
use crate::selector::Labels;

/// A Pod with a network of its own that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `spec.nodeName`.
    pub node: NodeName,
    pub labels: Labels,
    /// `status.podIPs`, in order; none until kubelet has said them.
    pub addresses: Vec<IpAddr>,
    /// It is being deleted: its address may become another pod's at any time.
    pub terminates: bool,
}

/// All that is known of them. It is never kept on the disk: after a boot the addresses are others'.
#[derive(Debug, Clone, Default)]
pub struct Pods {
    pub all: OrdMap<ObjectKey, Arc<Pod>>,
    /// They were told completely at least once.
    pub listed: bool,
    /// Why the API server does not show them.
    pub unseen: Option<String>,
}

impl Pods {
    /// Whoever goes by them hears of every Fact.
    pub(super) fn put(&mut self, key: ObjectKey, pod: Option<Arc<Pod>>) -> Touched {
        match pod {
            Some(pod) => drop(self.all.insert(key, pod)),
            None => drop(self.all.remove(&key)),
        }
        Touched::Nothing
    }

    pub(super) fn see(&mut self, why_not: Option<String>) -> Touched {
        self.unseen = why_not;
        Touched::Nothing
    }

    pub(super) fn list(&mut self, keys: &BTreeSet<ObjectKey>) {
        self.all =
            self.all.iter().filter(|(key, _)| keys.contains(*key)).map(|(k, it)| (k.clone(), it.clone())).collect();
        self.listed = true;
    }
}
