//! A folder of manifests, as `[manifests]` names it: what a test writes there appears whole, as an editor or a
//! configuration management writes it.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::rack::Rack;
use crate::service::Service;
use crate::site::Pod;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    /// The folder `manifests` of the rack, made if it is not there.
    #[track_caller]
    pub fn new(rack: &Rack) -> Manifests {
        Manifests::in_folder(rack.folder().join("manifests"))
    }

    /// A folder of any path, made if it is not there.
    #[track_caller]
    pub fn in_folder(folder: PathBuf) -> Manifests {
        fs::create_dir_all(&folder).expect("the rack's folder is ours");
        Manifests { folder }
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The lines of a crier.toml that make an agent read this folder.
    pub fn section(&self) -> String {
        format!("[manifests]\nfolder = \"{}\"\n", self.folder.display())
    }

    /// Writes or replaces one file.
    #[track_caller]
    pub fn write(&self, file: &str, text: &str) {
        let aside = self.folder.join(format!(".{file}.new"));
        let written = fs::write(&aside, text).and_then(|()| fs::rename(&aside, self.folder.join(file)));
        written.expect("the rack's folder is ours");
    }

    #[track_caller]
    pub fn remove(&self, file: &str) {
        fs::remove_file(self.folder.join(file)).expect("the file was written before");
    }

    /// Writes the Service with its EndpointSlices as `NAME.yaml`.
    #[track_caller]
    pub fn service(&self, service: &Service) {
        self.write(&format!("{}.yaml", service.name()), &service.manifest());
    }

    /// Writes these pods as `pods.yaml`, each with a label `app`, as the API server has them once kubelet has said their addresses.
    #[track_caller]
    pub fn pods(&self, pods: &[(&Pod, &str)]) {
        let mut text = String::new();
        for (pod, app) in pods {
            let (name, node) = (pod.name(), &pod.node);
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {app} }} }}\nspec: {{ nodeName: {node} }}\n\
                 status: {{ phase: Running, podIP: \"{0}\", podIPs: [{{ ip: \"{0}\" }}, {{ ip: \"{1}\" }}] }}\n",
                pod.address, pod.address6
            );
        }
        self.write("pods.yaml", &text);
    }

    /// Writes these Nodes as `nodes.yaml`: name, labels (`rack: a`), and addresses of each.
    #[track_caller]
    pub fn nodes(&self, nodes: &[(&str, &str, &[IpAddr])]) {
        let mut text = String::new();
        for (name, labels, addresses) in nodes {
            let addresses: Vec<String> =
                addresses.iter().map(|it| format!("{{ type: InternalIP, address: \"{it}\" }}")).collect();
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {name}, labels: {{ {labels} }} }}\n\
                 status: {{ addresses: [{}] }}\n",
                addresses.join(", ")
            );
        }
        self.write("nodes.yaml", &text);
    }
}
