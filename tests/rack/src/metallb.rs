//! The real MetalLB at a [`Metal`]: its controller beside the control plane, a speaker on every node that speaks BGP itself (no FRR),
//! and its custom resources. What people move to crier from.
//!
//! Left out is memberlist: every node has a speaker, and MetalLB then takes each for alive. Its webhooks are off.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::kubernetes::{Cluster, Proof, User, cache, pinned};
use crate::process::Process;
use crate::site::Node;

/// The namespace of its objects.
pub const NAMESPACE: &str = "metallb-system";
const PROGRAMS: [&str; 2] = ["controller", "speaker"];

/// The folder with its programs and CRDs, which `tests/kubernetes/metallb/build.sh` fills for the pinned version.
///
/// # Errors
/// When something is missing there; the text says what to do.
pub fn binaries() -> Result<PathBuf, String> {
    let folder = cache()?.join("metallb").join(version());
    let missing = PROGRAMS.iter().find(|name| !folder.join(name).is_file());
    match missing.or(Some(&"crds").filter(|name| !folder.join(name).is_dir())) {
        None => Ok(folder),
        Some(name) => {
            Err(format!("no MetalLB, for there is no {name} in {}: make kubernetes (needs Go)", folder.display()))
        }
    }
}

fn version() -> &'static str {
    pinned(include_str!("../../kubernetes/metallb/go.mod"), "go.universe.tf/metallb")
}

impl Cluster {
    /// Installs MetalLB's kinds and the namespace of its objects.
    #[track_caller]
    pub fn install_metallb(&self) {
        let folder = folder();
        self.kubectl(&format!("apply --server-side -f {}", folder.join("crds").display()));
        self.kubectl("wait --for=condition=Established crd --all --timeout=30s");
        self.kubectl(&format!("create namespace {NAMESPACE}"));
    }

    /// Starts MetalLB's controller, which allocates, on the control plane's host.
    #[track_caller]
    pub fn metallb_controller(&self) -> Process {
        let mut command = self.metallb(&folder().join("controller"));
        command.args(["--webhook-mode=disabled", "--port=7473"]);
        self.host.start("metallb-controller", command)
    }

    /// Starts MetalLB's speaker on a node. It wants to find itself as a Pod.
    #[track_caller]
    pub fn metallb_speaker(&self, node: &Node) -> Process {
        let pod = format!("speaker-{}", node.name());
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": pod, "namespace": NAMESPACE },
            "spec": { "nodeName": node.name(), "hostNetwork": true, "containers": [{ "name": "speaker", "image": "rack" }] },
        });
        self.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}\n{object:#}"));
        let mut command = self.metallb(&folder().join("speaker"));
        command.args(["--port=7474", "--host=127.0.0.1"]).arg(format!("--node-name={}", node.name()));
        command.arg(format!("--pod-name={pod}"));
        command.env("METALLB_BGP_TYPE", "native");
        node.start("metallb-speaker", command)
    }

    fn metallb(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig(User::Admin, Proof::Token, &self.url()));
        command.arg(format!("--namespace={NAMESPACE}"));
        command
    }
}

fn folder() -> PathBuf {
    binaries().unwrap_or_else(|missing| panic!("{missing}"))
}
