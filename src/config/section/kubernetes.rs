//! `[kubernetes]`: Services come from an API server. Floor 1.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{Check, Section, section};
use crate::config::key::{flag, path, set, text};
use crate::config::reader::Reader;
use crate::config::syntax;
use crate::names::ObjectKey;
use crate::selector::is_dns_name;

section! {
    /// `[kubernetes]`
    pub struct Kubernetes = Section::one(
        "kubernetes",
        "Services come from an API server. Use either this section or [manifests].",
    ), written as Written;
    combined {
        pub access: Access = join access, split keys_of, of {
            kubeconfig: Option<PathBuf> = path(
                "kubeconfig",
                "kubeconfig with the API server's address and credentials.",
            )
            .optional("none; in-cluster = true is needed instead")
            .set("\"/etc/crier/kubeconfig\""), touches Restart;
            in_cluster: bool = flag(
                "in-cluster",
                false,
                "Use the service account that Kubernetes gives a pod, instead of a kubeconfig.",
            ), touches Restart;
        }
        /// `spec.loadBalancerClass` of the Services that are ours. Never empty.
        pub classes: Vec<String> = join classes, split keys_of_classes, of {
            class: Option<String> = text(
                "class",
                "a class name such as example.com/name",
                |text, _| syntax::class(text),
                "The spec.loadBalancerClass of the Services that crier serves.",
            )
            .optional("\"crier.dev/crier\", unless classes is set")
            .shown("\"crier.dev/crier\""), touches Restart;
            several: Vec<String> = set(
                "classes",
                "class names",
                |text, _| syntax::class(text),
                "Several classes, instead of class: crier serves the Services of each.",
            )
            .shown("[\"crier.dev/crier\", \"example.com/old\"]"), touches Restart;
        }
    }
    keys {
        /// Beside the one of the kubeconfig, in the order in which they are tried.
        pub servers: Vec<String> = set(
            "servers",
            "https URLs",
            |text, _| syntax::server(text),
            "Further API servers of the same cluster: the next one is asked when one cannot be reached.",
        )
        .shown("[\"https://192.0.2.11:6443\", \"https://192.0.2.12:6443\"]")
        .trade("The certificate of each must be good for its URL, or for tls-server-name of the kubeconfig."), touches Restart;
        pub default_class: bool = flag("default-class", true, "Serve Services without spec.loadBalancerClass too.")
            .trade("With another load balancer in the cluster, set its equivalent or this key to false."), touches Restart;
        /// `namespace/name` of the Lease whose holder allocates.
        pub lease: ObjectKey = text(
            "lease",
            "namespace/name",
            |text, _| syntax::lease(text),
            "The Lease that elects the agent which allocates addresses.",
        )
        .trade("Without the default class it is kube-system/crier-CLASS, of the first class, with - for / and, where that is no name, a digest behind, unless it is set.")
        .default("kube-system/crier"), touches Restart;
        /// `namespace/name` of the ConfigMap with what is the same on every node.
        pub config: Option<ObjectKey> = text(
            "config",
            "namespace/name",
            |text, _| syntax::config_map(text),
            "A ConfigMap with [[pool]], [[reservation]], [[l2]], [[bgp.peer]], [[bgp.advertisement]] and [bgp.communities] for the \
             whole cluster: each of its keys that ends in .toml is read like a file of conf.d.",
        )
        .optional("none")
        .shown("\"kube-system/crier\"")
        .trade("Whoever may write the ConfigMap decides what the nodes announce."), touches Restart;
    }
}

impl Check for Written {
    /// Two criers of different classes that share a Lease would leave one class without addresses.
    fn check(&mut self, _section: &mut Reader<'_>) {
        let one = self.class.value.iter().flatten();
        let named: Vec<&String> = one.chain(self.several.value.iter().flatten()).collect();
        let Some(first) = named.first().filter(|_| !named.iter().any(|class| *class == Kubernetes::DEFAULT_CLASS))
        else {
            return;
        };
        if !self.lease.given {
            self.lease.value = Some(lease_of_class(first));
        }
    }
}

/// The Lease of a crier of this class, where its file names none.
pub fn lease_of_class(class: &str) -> ObjectKey {
    ObjectKey::new("kube-system", &lease_name(class))
}

/// One that no other class leads to: two classes may lead to one Lease, as example.com/b and example.com-b do. Which one a class leads to is
/// as it always was, for it elects the agents of clusters that run.
pub fn own_lease_of_class(class: &str) -> ObjectKey {
    let digest = digest_of(class);
    let name = lease_name(class);
    ObjectKey::new("kube-system", &if name.ends_with(&digest) { name } else { format!("{name}-{digest}") })
}

fn digest_of(class: &str) -> String {
    Sha256::digest(class).iter().take(4).map(|octet| format!("{octet:02x}")).collect()
}

/// What Kubernetes takes as the name of a Lease is less than what it takes as a class: what must be changed for it is told apart by a
/// digest of the class.
fn lease_name(class: &str) -> String {
    const MOST: usize = 200;
    let plain = format!("crier-{}", class.replace('/', "-").to_lowercase());
    if is_dns_name(&plain) {
        return plain;
    }
    let digest = digest_of(class);
    let near: String = plain.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(MOST).collect();
    format!("{}-{digest}", near.trim_end_matches('-'))
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    Kubeconfig(PathBuf),
    /// The service account files and variables that Kubernetes gives a pod.
    InCluster,
}

fn access(written: &Written, section: &mut Reader<'_>) -> Option<Access> {
    let Written { kubeconfig, in_cluster, .. } = written;
    match (kubeconfig.value.clone().flatten(), in_cluster.value.unwrap_or(false)) {
        (Some(_), true) => {
            let other = (&kubeconfig.place, "kubeconfig is set here");
            let message = "in-cluster = true and kubeconfig are mutually exclusive";
            section.conflict(&in_cluster.place, message, "remove one of them", other);
            None
        }
        (Some(kubeconfig), false) => Some(Access::Kubeconfig(kubeconfig)),
        (None, true) => Some(Access::InCluster),
        (None, false) => {
            if !kubeconfig.given {
                let hint = "add kubeconfig = \"/etc/crier/kubeconfig\"; in a pod, add in-cluster = true";
                section.complain(&section.header(), "[kubernetes] has neither kubeconfig nor in-cluster = true", hint);
            }
            None
        }
    }
}

impl Kubernetes {
    /// The Role by which the crier of a Lease may read its ConfigMap: that of the Lease, where both are in one namespace.
    pub fn role_of_config_map(lease: &ObjectKey, config_map: &ObjectKey) -> ObjectKey {
        let behind = if config_map.namespace == lease.namespace { "" } else { "-config" };
        ObjectKey::new(config_map.namespace.as_str(), &format!("{}{behind}", lease.name))
    }

    /// What to do where the ConfigMap may not be read: `None` where something else is the matter than rights.
    pub fn remedy_of_config_map(&self, config_map: &ObjectKey, is_about_rights: bool) -> Option<String> {
        let is_default = |key: &ObjectKey| key.namespace.as_str() == "kube-system" && &*key.name == "crier";
        let of_file = if is_default(&self.lease) && is_default(config_map) { "" } else { " --config FILE" };
        let file = if of_file.is_empty() { "" } else { ", where FILE is the crier.toml of a node" };
        let role = Kubernetes::role_of_config_map(&self.lease, config_map);
        is_about_rights.then(|| {
            format!(
                "the Role {} in the namespace {} lets crier read it: apply the objects of `crier rbac{of_file}`{file}",
                role.name, role.namespace
            )
        })
    }

    /// The class of a file that names none.
    pub const DEFAULT_CLASS: &'static str = "crier.dev/crier";

    /// The class of a file that names none is among its own.
    pub fn has_default_class_name(&self) -> bool {
        self.classes.iter().any(|class| class == Kubernetes::DEFAULT_CLASS)
    }
}

fn classes(written: &Written, section: &mut Reader<'_>) -> Option<Vec<String>> {
    let Written { class, several, .. } = written;
    match (class.value.clone()?, several.value.clone()?) {
        (Some(_), names) if !names.is_empty() => {
            let other = (&class.place, "class is set here");
            section.conflict(&several.place, "class and classes are mutually exclusive", "remove one of them", other);
            None
        }
        (Some(class), _) => Some(vec![class]),
        (None, _) if several.empty_list => {
            let hint = "name a class, or remove the key to serve \"crier.dev/crier\"";
            section.complain(&several.place, "classes names no class", hint);
            None
        }
        (None, names) if names.is_empty() => Some(vec![Kubernetes::DEFAULT_CLASS.to_owned()]),
        (None, names) => Some(names),
    }
}

fn keys_of_classes(classes: &[String]) -> (Option<String>, Vec<String>) {
    match classes {
        [class] => (Some(class.clone()), Vec::new()),
        classes => (None, classes.to_vec()),
    }
}

fn keys_of(access: &Access) -> (Option<PathBuf>, bool) {
    match access {
        Access::Kubeconfig(path) => (Some(path.clone()), false),
        Access::InCluster => (None, true),
    }
}
