//! A real Kubernetes control plane at a [`Site`]: etcd, kube-apiserver and kube-controller-manager on a host of their
//! own, kube-proxy in every node's namespace, Nodes without kubelets, Pods that are processes in namespaces.
//!
//! kube-proxy runs in nftables mode: the machines that tests run on have nft, and not all have the older tables. Left
//! out is the node lifecycle controller, so that Nodes stay Ready without a kubelet; a test that wants a node NotReady
//! says so with [`Cluster::set_node_ready`].

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::{Authority, signing_key};
use crate::namespace::{Namespace, lossy};
use crate::process::{Process, mount_over};
use crate::site::{Host, Node, POD_RANGES, Pod, Site};
use crate::wait::{Deadline, eventually, now, secs};

mod api;

pub use api::{Api, Refusal};
pub use ureq::http::Method;

/// The API server's port.
pub const PORT: u16 = 6443;
/// ClusterIPs.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd96::/112";
const PROGRAMS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"];

/// The folder with the control plane's binaries: `KUBEBUILDER_ASSETS`, else the cache that `tests/kubernetes/build.sh`
/// fills for the pinned version.
///
/// # Errors
/// When a binary is missing there; the text says what to do.
pub fn binaries() -> Result<PathBuf, String> {
    let folder = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) => folder.into(),
        None => cache()?.join("kubernetes").join(version()),
    };
    match PROGRAMS.iter().find(|name| !folder.join(name).is_file()) {
        None => Ok(folder),
        Some(name) => Err(format!("no {name} in {}: make kubernetes (needs Go)", folder.display())),
    }
}

/// Where `make kubernetes` puts what it builds.
pub(crate) fn cache() -> Result<PathBuf, String> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let parent = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    Ok(parent.ok_or("no Kubernetes binaries: neither KUBEBUILDER_ASSETS nor HOME")?.join("crier"))
}

fn version() -> &'static str {
    pinned(include_str!("../../kubernetes/go.mod"), "k8s.io/kubernetes")
}

/// The version of a module that a go.mod pins, as in `v1.36.3`.
pub(crate) fn pinned(go_mod: &'static str, module: &str) -> &'static str {
    let version = |line: &'static str| line.trim().strip_prefix(module)?.strip_prefix(' ')?.split(' ').next();
    go_mod.lines().find_map(version).unwrap_or_else(|| panic!("no go.mod pins {module}"))
}

/// Who a kubeconfig speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Everything is allowed (group `system:masters`).
    Admin,
    /// The user `crier`: nothing is allowed before roles are bound to it; see [`Cluster::allow_crier`].
    Crier,
}

impl User {
    const ALL: [User; 2] = [User::Admin, User::Crier];

    fn name(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::Crier => "crier",
        }
    }

    fn groups(self) -> &'static [&'static str] {
        match self {
            User::Admin => &["system:masters"],
            User::Crier => &[],
        }
    }

    /// Its bearer token.
    pub fn token(self) -> String {
        format!("token-of-{}", self.name())
    }
}

/// How a kubeconfig proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Token,
    ClientCertificate,
}

/// A standing control plane; it is also its [`Api`]. Dropping it kills it.
pub struct Cluster {
    pub host: Host,
    pub authority: Authority,
    /// From the start of etcd until the API server was ready.
    pub stood_after: Duration,
    api: Api,
    folder: PathBuf,
    api_server: Mutex<Option<Process>>,
    controllers: Mutex<Option<Process>>,
    etcd: Mutex<Option<Process>>,
}

impl Cluster {
    /// Starts the control plane on the site's host for it, waits until it is ready, and registers the site's nodes.
    ///
    /// # Panics
    /// When a binary is missing (list [`Need::Kubernetes`](crate::Need::Kubernetes)) or something does not come up.
    #[track_caller]
    pub fn start(site: &Site) -> Cluster {
        let start = now();
        let host = site.control_plane();
        let folder = host.rack().subfolder("kubernetes");
        let authority = Authority::new("rack");
        let etcd = start_etcd(&host, &folder);
        write_secrets(&host, &authority, &folder);
        let api_server = start_api_server(&host, &folder);
        let url = format!("https://{}:{PORT}", host.address);
        let api = Api::new(&url, &User::Admin.token(), authority.certificate(), &host);
        wait_ready(&api, &api_server);
        let stood_after = start.elapsed();
        let admin = write_kubeconfig(&folder, &authority, &url, User::Admin, Proof::Token);
        let controllers = start_controllers(&host, &admin, &folder);
        let cluster = Cluster {
            host,
            authority,
            stood_after,
            api,
            folder,
            api_server: Mutex::new(Some(api_server)),
            controllers: Mutex::new(Some(controllers)),
            etcd: Mutex::new(Some(etcd)),
        };
        site.nodes.iter().for_each(|node| cluster.register_node(node));
        cluster
    }

    /// `https://ADDRESS:PORT` of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{PORT}", self.host.address)
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A client with all rights of another URL, as of [`Faults`](crate::faults::Faults).
    pub fn api_at(&self, url: &str) -> Api {
        Api::new(url, &User::Admin.token(), self.authority.certificate(), &self.host)
    }

    /// Writes a kubeconfig and returns its path. `server` is [`url`](Self::url), or that of the
    /// [`Faults`](crate::faults::Faults) before it.
    #[track_caller]
    pub fn kubeconfig(&self, user: User, proof: Proof, server: &str) -> PathBuf {
        write_kubeconfig(&self.folder, &self.authority, server, user, proof)
    }

    /// Makes `command` believe that it runs in a pod of this cluster as the user: its environment names the API server,
    /// and its own /run (a mount of its own) holds the token and the authority where pods find them. `server` is the API
    /// server's own address and port, or another before it.
    #[track_caller]
    pub fn in_cluster(&self, command: &mut Command, user: User, server: SocketAddr) {
        let run = self.folder.join(format!("run.{}", user.name()));
        let account = run.join("secrets/kubernetes.io/serviceaccount");
        std::fs::create_dir_all(&account).unwrap_or_else(|error| panic!("could not make {}: {error}", run.display()));
        write(&account.join("token"), &user.token());
        write(&account.join("ca.crt"), self.authority.certificate());
        write(&account.join("namespace"), "kube-system");
        command.env("KUBERNETES_SERVICE_HOST", server.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", server.port().to_string());
        mount_over(command, run, "/run".into());
    }

    /// Gives the user `crier` the rights that `rules` lists (the `rules:` of a ClusterRole, as JSON).
    #[track_caller]
    pub fn allow_crier(&self, rules: &Value) {
        let apply = |object: &Value| self.try_apply(object).unwrap_or_else(|refusal| panic!("{refusal}\n{object:#}"));
        let group = "rbac.authorization.k8s.io";
        apply(&json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": "crier" }, "rules": rules,
        }));
        apply(&json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": "crier" },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "crier" },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": "crier" }],
        }));
    }

    /// Runs the real kubectl with all rights and returns what it printed. `words` are split at blanks.
    ///
    /// # Panics
    /// When it does not end with success.
    #[track_caller]
    pub fn kubectl(&self, words: &str) -> String {
        match self.try_kubectl(words) {
            Ok(printed) => printed,
            Err(error) => panic!("{error}"),
        }
    }

    /// The same, or what it says where it fails.
    pub fn try_kubectl(&self, words: &str) -> Result<String, String> {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(User::Admin, Proof::Token, &self.url()));
        // Its cache of what the server offers belongs into the rack's folder too.
        command.arg("--cache-dir").arg(self.folder.join("kubectl-cache"));
        let output = self.host.output(command.args(words.split_whitespace()));
        if output.status.success() {
            return Ok(lossy(&output.stdout));
        }
        Err(format!("`kubectl {words}` ended with {}: {}", output.status, lossy(&output.stderr)))
    }

    /// Starts kube-proxy in a node's namespace and waits until it has programmed the node once.
    #[track_caller]
    pub fn kube_proxy(&self, node: &Node) -> Process {
        self.kube_proxy_in_mode(node, "nftables")
    }

    /// The same in the mode `nftables` or `iptables`.
    #[track_caller]
    pub fn kube_proxy_in_mode(&self, node: &Node, mode: &str) -> Process {
        let configuration = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode,
            "hostnameOverride": node.name(),
            "clusterCIDR": POD_RANGES.join(","),
            "clientConnection": { "kubeconfig": self.kubeconfig(User::Admin, Proof::Token, &self.url()) },
            // At once, not once in a second.
            "nftables": { "minSyncPeriod": "10ms" },
            "iptables": { "minSyncPeriod": "10ms" },
            // These are the host's limits, which a namespace may not set.
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
        });
        let file = self.folder.join(format!("kube-proxy.{}.yaml", node.name()));
        write(&file, &configuration.to_string());
        let mut command = Command::new(program("kube-proxy"));
        command.arg("--config").arg(file);
        let process = node.start("kube-proxy", command);
        eventually(&format!("{} is healthy", process.name()), secs(30), || {
            process.expect_running();
            let answer =
                node.get_path(([127, 0, 0, 1], 10256), "/healthz", secs(2)).map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        });
        process
    }

    /// `crier migrate` on the control plane's host.
    pub fn migrate(&self, words: &[&str]) -> Output {
        let mut command = Command::new(crate::crier::binary());
        self.host.output(command.env_remove("KUBECONFIG").arg("migrate").args(words))
    }

    /// Registers a node: its addresses, its pods' ranges, Ready.
    #[track_caller]
    pub fn register_node(&self, node: &Node) {
        let name = node.name();
        let ranges = node.pod_ranges();
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
            "spec": { "podCIDR": ranges[0], "podCIDRs": ranges },
        });
        self.create(&object).unwrap_or_else(|refusal| panic!("could not register {name}: {refusal}"));
        self.patch_status(
            &format!("node/{name}"),
            &json!({ "addresses": [
                { "type": "InternalIP", "address": node.address }, { "type": "InternalIP", "address": node.address6 },
                { "type": "Hostname", "address": name },
            ], "nodeInfo": { "bootID": boot_id() } }),
        );
        self.set_node_ready(name, true);
    }

    /// Says whether a node is Ready, as its kubelet would.
    #[track_caller]
    pub fn set_node_ready(&self, name: &str, ready: bool) {
        self.set_node_condition_ready(name, if ready { "True" } else { "False" });
    }

    /// The same with any status: `Unknown` is what the API server says of a node whose kubelet is silent.
    #[track_caller]
    pub fn set_node_condition_ready(&self, name: &str, ready: &str) {
        self.patch_status(
            &format!("node/{name}"),
            &json!({ "conditions": [
                { "type": "Ready", "status": ready, "reason": "Rack", "message": "" },
                { "type": "NetworkUnavailable", "status": "False", "reason": "Rack", "message": "" },
            ]}),
        );
    }

    /// Registers a pod in the namespace `default` with `labels`, running and ready, so that the EndpointSlice controller
    /// puts it into the Services that select it.
    #[track_caller]
    pub fn register_pod(&self, pod: &Pod, labels: &Value) {
        let (name, node) = (pod.name(), &*pod.node);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": labels },
            "spec": { "nodeName": node, "containers": [{ "name": "server", "image": "rack" }] },
        });
        self.create(&object).unwrap_or_else(|refusal| panic!("could not register the pod {name}: {refusal}"));
        let host = self.get(&format!("node/{node}")).unwrap_or_default()["status"]["addresses"][0]["address"].clone();
        self.patch_status(
            &format!("pod/{name}"),
            &json!({
                "phase": "Running", "hostIP": host, "hostIPs": [{ "ip": host }],
                "podIP": pod.address, "podIPs": [{ "ip": pod.address }, { "ip": pod.address6 }],
            }),
        );
        self.set_pod_ready(name, true);
    }

    /// Says whether a pod is ready, as its kubelet would.
    #[track_caller]
    pub fn set_pod_ready(&self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({ "type": kind, "status": if kind.ends_with("Ready") { status } else { "True" } }));
        self.patch_status(&format!("pod/{name}"), &json!({ "conditions": conditions }));
    }

    /// Waits until a Service's slices hold exactly these pods' addresses as ready endpoints, of all families.
    #[track_caller]
    pub fn wait_endpoints(&self, service: &str, addresses: &[IpAddr], deadline: impl Into<Deadline>) {
        let mut expected: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        expected.sort();
        eventually(&format!("the endpoints of {service} are {expected:?}"), deadline, || {
            let slices = self.list("endpointslice", &format!("kubernetes.io/service-name={service}"));
            let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
            let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
            let mut seen: Vec<String> =
                ready.filter_map(|endpoint| Some(endpoint["addresses"][0].as_str()?.to_owned())).collect();
            seen.sort();
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    /// Kills the API server. etcd keeps what it knew.
    pub fn stop_api_server(&self) {
        drop(lock(&self.api_server).take());
    }

    /// Starts the API server again and waits until it is ready.
    #[track_caller]
    pub fn restart_api_server(&self) {
        self.stop_api_server();
        let process = start_api_server(&self.host, &self.folder);
        wait_ready(&self.api, &process);
        *lock(&self.api_server) = Some(process);
    }

    /// Copies all that etcd has, for [`restore`](Self::restore).
    #[track_caller]
    pub fn back_up(&self) {
        let etcd = lock(&self.etcd);
        let etcd = etcd.as_ref().expect("etcd runs");
        etcd.freeze();
        copy_folder(&self.folder.join("etcd"), &self.folder.join("backup"));
        etcd.thaw();
    }

    /// Puts etcd back to what [`back_up`](Self::back_up) copied, as an operator does who has lost the data, and waits until the API
    /// server is ready again. The controllers begin anew: they would watch on from where they were.
    #[track_caller]
    pub fn restore(&self) {
        self.stop_api_server();
        drop(lock(&self.etcd).take());
        let data = self.folder.join("etcd");
        std::fs::remove_dir_all(&data).expect("etcd's folder can be removed");
        copy_folder(&self.folder.join("backup"), &data);
        *lock(&self.etcd) = Some(start_etcd(&self.host, &self.folder));
        self.restart_api_server();
        drop(lock(&self.controllers).take());
        let admin = write_kubeconfig(&self.folder, &self.authority, &self.url(), User::Admin, Proof::Token);
        *lock(&self.controllers) = Some(start_controllers(&self.host, &admin, &self.folder));
    }

    /// Where the certificates are: `ca.pem`, and `server.pem` with `server.key`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Deref for Cluster {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

fn lock(process: &Mutex<Option<Process>>) -> MutexGuard<'_, Option<Process>> {
    process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[track_caller]
fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.as_ref().is_ok_and(|status| status.success()), "{} is copied: {copied:?}", from.display());
}

/// Of the kernel that runs all nodes, as a kubelet reports it.
fn boot_id() -> String {
    let text = std::fs::read_to_string(crate::crier::BOOT_ID).expect("the kernel has a boot id");
    text.trim().to_owned()
}

fn program(name: &str) -> PathBuf {
    binaries().unwrap_or_else(|missing| panic!("{missing}")).join(name)
}

fn start_etcd(host: &Namespace, folder: &Path) -> Process {
    let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    let mut command = Command::new(program("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
    command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "warn", "--unsafe-no-fsync"]);
    host.start("etcd", command)
}

/// Everything that the API server reads: certificates, tokens, and the key that signs service accounts' tokens.
fn write_secrets(host: &Host, authority: &Authority, folder: &Path) {
    let addresses: [IpAddr; 4] =
        [host.address.into(), host.address6.into(), [127, 0, 0, 1].into(), [10, 96, 0, 1].into()];
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "api.rack.test", "localhost"];
    let server = authority.server(&names, &addresses);
    let (private, public) = signing_key();
    let token =
        |user: User| format!("{},{},{},\"{}\"\n", user.token(), user.name(), user.name(), user.groups().join(","));
    write(&folder.join("ca.pem"), authority.certificate());
    write(&folder.join("ca.key"), &authority.key());
    write(&folder.join("server.pem"), &server.certificate);
    write(&folder.join("server.key"), &server.key);
    write(&folder.join("accounts.key"), &private);
    write(&folder.join("accounts.pub"), &public);
    write(&folder.join("tokens.csv"), &User::ALL.map(token).concat());
}

fn start_api_server(host: &Host, folder: &Path) -> Process {
    let mut command = Command::new(program("kube-apiserver"));
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=::",
        &format!("--advertise-address={}", host.address),
        &format!("--secure-port={PORT}"),
        &file("tls-cert-file", "server.pem"),
        &file("tls-private-key-file", "server.key"),
        &file("client-ca-file", "ca.pem"),
        &file("token-auth-file", "tokens.csv"),
        &file("cert-dir", ""),
        "--authorization-mode=RBAC",
        &format!("--service-cluster-ip-range={SERVICE_RANGES}"),
        &file("service-account-key-file", "accounts.pub"),
        &file("service-account-signing-key-file", "accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc",
        // Pods without service accounts, Nodes without taints.
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
    ]);
    host.start("kube-apiserver", command)
}

fn start_controllers(host: &Namespace, kubeconfig: &Path, folder: &Path) -> Process {
    host.start("kube-controller-manager", controller_manager(kubeconfig, folder))
}

fn controller_manager(kubeconfig: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program("kube-controller-manager"));
    command.args([
        &*format!("--kubeconfig={}", kubeconfig.display()),
        "--controllers=endpointslice-controller,endpointslice-mirroring-controller,serviceaccount-controller,serviceaccount-token-controller,certificatesigningrequest-signing-controller",
        &format!("--cluster-signing-cert-file={}", folder.join("ca.pem").display()),
        &format!("--cluster-signing-key-file={}", folder.join("ca.key").display()),
        "--leader-elect=false",
        &format!("--root-ca-file={}", folder.join("ca.pem").display()),
        &format!("--service-account-private-key-file={}", folder.join("accounts.key").display()),
        "--bind-address=127.0.0.1",
        &format!("--cert-dir={}", folder.display()),
    ]);
    command
}

/// Ready, and with the namespace that tests put their objects into.
#[track_caller]
fn wait_ready(api: &Api, process: &Process) {
    for path in ["/readyz", "/api/v1/namespaces/default"] {
        eventually(&format!("the API server answers {path}"), secs(60), || {
            process.expect_running();
            api.call(Method::GET, path, None)
        });
    }
}

#[track_caller]
fn write_kubeconfig(folder: &Path, authority: &Authority, server: &str, user: User, proof: Proof) -> PathBuf {
    let proven = match proof {
        Proof::Token => json!({ "token": user.token() }),
        Proof::ClientCertificate => {
            let identity = authority.client(user.name(), user.groups());
            let [certificate, key] = ["pem", "key"].map(|end| folder.join(format!("client.{}.{end}", user.name())));
            write(&certificate, &identity.certificate);
            write(&key, &identity.key);
            json!({ "client-certificate": certificate, "client-key": key })
        }
    };
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "rack",
        "clusters": [{ "name": "rack", "cluster": {
            "server": server, "certificate-authority": folder.join("ca.pem"),
        }}],
        "users": [{ "name": user.name(), "user": proven }],
        "contexts": [{ "name": "rack", "context": { "cluster": "rack", "user": user.name() }}],
    });
    let server = server.replace(['/', ':', '[', ']'], "_");
    let file = folder.join(format!("kubeconfig.{}.{proof:?}.{server}", user.name()));
    write(&file, &kubeconfig.to_string());
    file
}

/// In one step: several programs of the control plane have one kubeconfig, and one may read it while it is written for another.
#[track_caller]
fn write(path: &Path, text: &str) {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
    written.unwrap_or_else(|error| panic!("could not write {}: {error}", path.display()));
}
