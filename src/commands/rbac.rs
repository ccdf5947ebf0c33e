//! `crier rbac`: the rights that the agent needs, ready for `kubectl apply -f -`. Floor 4.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, complain_of_files, print};
use crate::config::load::{self, Lenience};
use crate::config::{Kubernetes, NewPods, Source, in_namespace};
use crate::names::ObjectKey;
use crate::world::is_of_default;

/// The objects, YAML, of a crier whose file names neither a Lease nor a class.
const OBJECTS: &str = include_str!("../../config/rbac.yaml");

/// What stands between two objects.
const NEXT: &str = "\n---\n";

/// For which crier of the cluster.
#[derive(Debug, Default, Args)]
pub struct Scope {
    /// The Lease of a crier with a class of its own: what its [kubernetes] lease says, else kube-system/crier-CLASS
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = lease, conflicts_with = "config")]
    lease: Option<ObjectKey>,
    /// The configuration of the agents, of which the Lease, the ConfigMap and whether they read Pods are taken
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn rbac(scope: &Scope) -> Exit {
    match scope.objects() {
        Ok(objects) => print(&objects),
        Err(exit) => exit,
    }
}

impl Scope {
    /// The objects, YAML. Where the configuration is wrong, that was said.
    pub fn objects(&self) -> Result<String, Exit> {
        let default = ObjectKey::new("kube-system", "crier");
        let Some(file) = &self.config else {
            return Ok(objects(self.lease.as_ref().unwrap_or(&default), Some(&default), NewPods::Pass));
        };
        let (read, _) = load::load_host(file, Lenience::Judging).map_err(|error| complain_of_files(&error))?;
        match &read.source {
            Source::Kubernetes(kubernetes) => {
                Ok(objects(&kubernetes.lease, kubernetes.config.as_ref(), read.egress.new_pods))
            }
            Source::Manifests(_) => {
                tell!("crier: {} has [manifests]: its agent asks no API server and needs no rights", file.display());
                Err(Exit::Usage)
            }
        }
    }

    /// The same words for another command line.
    pub fn arguments(&self) -> String {
        let lease = self.lease.iter().map(|lease| format!(" --lease {lease}"));
        lease.chain(self.config.iter().map(|file| format!(" --config {}", file.display()))).collect()
    }
}

/// What follows the rule for Pods in the ClusterRole.
const BEHIND_PODS: &str = "- apiGroups: [\"\"]\n  resources: [services/status]\n";

/// No right to read can be narrowed to the Pods of a node.
const PODS: &str = "# Whose the addresses of new pods are, because [egress] new-pods is \"hold\". An agent asks for the Pods of its own node\n\
                    # alone.\n- apiGroups: [\"\"]\n  resources: [pods]\n  verbs: [get, list, watch]\n";

/// The objects for a Lease and a ConfigMap. Another Lease has a Role of its own: the rights of two criers stand beside each other.
fn objects(lease: &ObjectKey, config_map: Option<&ObjectKey>, new_pods: NewPods) -> String {
    let objects = match is_of_default(lease) && config_map.is_none_or(is_of_default) {
        true => OBJECTS.to_owned(),
        false => objects_of_another(lease, config_map),
    };
    match new_pods {
        NewPods::Pass => objects,
        NewPods::Hold => objects.replacen(BEHIND_PODS, &format!("{PODS}{BEHIND_PODS}"), 1),
    }
}

fn objects_of_another(lease: &ObjectKey, config_map: Option<&ObjectKey>) -> String {
    let is_of_lease = |object: &&str| object.contains("\nkind: Role\n") || object.contains("\nkind: RoleBinding\n");
    let mut all: Vec<String> = OBJECTS.split(NEXT).filter(|object| !is_of_lease(object)).map(str::to_owned).collect();
    let create = "- apiGroups: [coordination.k8s.io]\n  resources: [leases]\n  verbs: [create]\n";
    let name = &lease.name;
    let only = quoted(name);
    let mut rules = format!(
        "{create}- apiGroups: [coordination.k8s.io]\n  resources: [leases]\n  resourceNames: [{only}]\n  verbs: [get, list, watch, \
         update]\n"
    );
    let read = |name: &str| {
        let name = quoted(name);
        format!(
            "- apiGroups: [\"\"]\n  resources: [configmaps]\n  resourceNames: [{name}]\n  verbs: [get, list, watch]\n"
        )
    };
    let (near, far) = match config_map {
        Some(config_map) if config_map.namespace == lease.namespace => (Some(config_map), None),
        config_map => (None, config_map),
    };
    rules.extend(near.map(|config_map| read(&config_map.name)));
    // The account comes first, and its token last.
    let at = all.len().saturating_sub(1);
    let mut more = role(&lease.namespace.to_string(), name, &rules);
    if let Some(config_map) = far {
        let of = Kubernetes::role_of_config_map(lease, config_map);
        more.extend(role(&of.namespace.to_string(), &of.name, &read(&config_map.name)));
    }
    all.splice(at..at, more);
    all.join(NEXT)
}

/// A Role and its binding, without a line's end behind.
fn role(namespace: &str, name: &str, rules: &str) -> Vec<String> {
    let (name, namespace) = (quoted(name), quoted(namespace));
    let metadata = format!("metadata:\n  name: {name}\n  namespace: {namespace}");
    let version = "apiVersion: rbac.authorization.k8s.io/v1";
    vec![
        format!("{version}\nkind: Role\n{metadata}\nrules:\n{}", rules.trim_end()),
        format!(
            "{version}\nkind: RoleBinding\n{metadata}\nroleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: Role\n  name: {name}\n\
             subjects:\n- kind: ServiceAccount\n  name: crier\n  namespace: kube-system\n- kind: Group\n  apiGroup: \
             rbac.authorization.k8s.io\n  name: crier:nodes"
        ),
    ]
}

/// A text in YAML, also where it looks like a number.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

fn lease(text: &str) -> Result<ObjectKey, String> {
    in_namespace(text).ok_or_else(|| "write namespace and name: kube-system/crier-example.com-b".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::manifests::document;

    fn read(text: &str) -> Vec<Value> {
        document::objects(text, document::Format::Yaml).expect("sound YAML")
    }

    #[test]
    fn pods_are_read_only_where_new_pods_are_held() {
        let key = ObjectKey::new("kube-system", "crier");
        let resources = |new_pods| -> Vec<String> {
            let all = read(&objects(&key, Some(&key), new_pods));
            let role = all.iter().find(|it| it["kind"] == "ClusterRole").expect("there is one");
            let rules = role["rules"].as_array().expect("rules").clone();
            rules
                .iter()
                .flat_map(|rule| rule["resources"].as_array().expect("resources").clone())
                .map(|it| it.to_string())
                .collect()
        };
        let (pass, hold) = (resources(NewPods::Pass), resources(NewPods::Hold));
        assert!(!pass.contains(&"\"pods\"".to_owned()));
        let more: Vec<&String> = hold.iter().filter(|it| !pass.contains(it)).collect();
        assert_eq!(more, ["\"pods\""]);
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, b"[kubernetes]\nin-cluster = true\n[egress]\nnew-pods = \"hold\"\n")
            .expect("it is written");
        let scope = Scope { lease: None, config: Some(file.path().to_owned()) };
        assert_eq!(scope.objects(), Ok(objects(&key, None, NewPods::Hold)));
    }

    /// Input: a crier of another class, by its Lease or its file. Output: the objects of the default one, with a Role for its
    /// Lease alone that stands beside the other's.
    #[test]
    fn another_lease_has_a_role_of_its_own() {
        let default = read(OBJECTS);
        let scope = |lease: &str| Scope { lease: Some(super::lease(lease).expect("a name")), config: None };
        assert_eq!(read(&Scope::default().objects().expect("it is fixed")), default);
        assert_eq!(scope("kube-system/crier").objects().as_deref(), Ok(OBJECTS));
        let of = |text: &str| {
            let objects = read(text);
            assert_eq!(objects.iter().filter(|it| it["kind"] == "ServiceAccount").count(), 1);
            assert_eq!(objects.last().map(|it| &it["kind"]), Some(&Value::from("Secret")));
            let rest = |it: &&Value| it["kind"] != "Role" && it["kind"] != "RoleBinding";
            assert!(objects.iter().filter(rest).eq(default.iter().filter(rest)));
            let role = |it: &Value| (it["kind"].clone(), it["metadata"].clone(), it["rules"].clone());
            objects.iter().filter(|it| !rest(it)).map(role).map(|it| format!("{it:?}")).collect::<Vec<_>>()
        };
        let roles = of(&scope("kube-system/crier-example.com-b").objects().expect("a Lease"));
        assert_eq!(roles.len(), 2, "{roles:?}");
        assert!(roles.iter().all(|it| it.contains("crier-example.com-b")), "{roles:?}");
        assert!(roles[0].contains("configmaps"), "{}", roles[0]);
        assert_eq!(of(&scope("lb/b").objects().expect("a Lease")).len(), 4, "the ConfigMap is elsewhere");
        // A number is no name.
        for name in ["1", "true", "1e3"] {
            let objects = scope(&format!("lb/{name}")).objects().expect("a Lease");
            let named = |it: &&Value| it["kind"] == "Role" && it["metadata"]["name"] == name;
            assert_eq!(read(&objects).iter().filter(named).count(), 1, "{objects}");
        }

        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "[kubernetes]\nkubeconfig = \"/k\"\nclass = \"example.com/b\"\n").expect("written");
        let by_file = Scope { lease: None, config: Some(file.path().to_owned()) };
        let roles = of(&by_file.objects().expect("a good file"));
        assert!(roles.len() == 2 && roles[0].contains("crier-example.com-b"), "{roles:?}");
        assert!(!roles[0].contains("configmaps"), "it names none: {}", roles[0]);
        std::fs::write(file.path(), "[manifests]\nfolder = \"/m\"\n").expect("written");
        assert_eq!(by_file.objects(), Err(Exit::Usage));
        assert!(super::lease("crier").is_err());
    }

    /// The default objects are a file that people read, and those of another crier are made: both ask for the same rights.
    #[test]
    fn another_crier_has_no_other_rights_than_the_default_one() {
        let default = ObjectKey::new("kube-system", "crier");
        assert_eq!(read(&objects_of_another(&default, Some(&default))), read(OBJECTS));
    }
}
