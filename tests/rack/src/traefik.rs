//! A real controller of Ingresses and Gateways, Traefik, as a pod of a [`Cluster`](crate::kubernetes::Cluster): it finds the
//! API server as a pod does, by the cluster's own Service, and proxies HTTP itself.
//!
//! Left out of its build are DNS providers and passwords, see `tests/kubernetes/traefik/stand-ins`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::kubernetes::{Cluster, User, cache, pinned};
use crate::metal::Metal;
use crate::site::Pod;
use crate::wait::secs;

/// The folder with the program and the Gateway API's CRDs, which `tests/kubernetes/traefik/build.sh` fills for the pinned
/// version.
///
/// # Errors
/// When something is missing there; the text says what to do.
pub fn binaries() -> Result<PathBuf, String> {
    let folder = cache()?.join("traefik").join(version());
    if folder.join("traefik").is_file() && folder.join("crds").is_dir() {
        return Ok(folder);
    }
    Err(format!("no Traefik with its crds in {}: make kubernetes (needs Go)", folder.display()))
}

fn version() -> &'static str {
    pinned(include_str!("../../kubernetes/traefik/go.mod"), "github.com/traefik/traefik/v3")
}

/// What the controller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Ingresses,
    Gateways,
}

impl Cluster {
    /// Installs the kinds of the Gateway API.
    #[track_caller]
    pub fn install_gateway_api(&self) {
        let crds = folder().join("crds");
        self.kubectl(&format!("apply --server-side -f {}", crds.display()));
        self.kubectl("wait --for=condition=Established crd --all --timeout=30s");
    }
}

impl Metal {
    /// Starts Traefik as a pod on the node of that index, registered with `labels`. It listens on port 80 and publishes the
    /// addresses of the Service `default/PUBLISHED` in the statuses of what it serves.
    #[track_caller]
    pub fn traefik(&self, node: usize, name: &str, labels: &Value, role: Role, published: &str) -> Pod {
        // The API server answers pods: their addresses are not translated on the way to its own.
        for node in &self.site.nodes {
            let [range, range6] = node.pod_ranges();
            self.host.ip(&format!("route replace {range} via {}", node.address));
            self.host.ip(&format!("route replace {range6} via {}", node.address6));
        }
        let mut command = Command::new(folder().join("traefik"));
        command.args([
            "--log.level=INFO",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--entrypoints.web.address=:80",
        ]);
        match role {
            Role::Ingresses => command
                .arg("--providers.kubernetesingress=true")
                .arg(format!("--providers.kubernetesingress.ingressendpoint.publishedservice=default/{published}")),
            Role::Gateways => command
                .arg("--providers.kubernetesgateway=true")
                .arg("--providers.kubernetesgateway.statusaddress.service.namespace=default")
                .arg(format!("--providers.kubernetesgateway.statusaddress.service.name={published}")),
        };
        self.in_cluster(&mut command, User::Admin, (API_SERVER, 443).into());
        let pod = self.site.node(node).pod_running(name, |namespace| {
            let process = namespace.start("traefik", command);
            process.wait_for_log("Starting provider *", secs(30));
            process
        });
        self.register_pod(&pod, labels);
        pod
    }
}

/// The Service `kubernetes`, which every cluster has.
const API_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

fn folder() -> PathBuf {
    binaries().unwrap_or_else(|missing| panic!("{missing}"))
}
