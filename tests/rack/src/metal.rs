//! A bare-metal cluster as users have it: a [`Site`] with a real control plane, kube-proxy on every node, the rights of
//! `config/rbac.yaml`, and `crier run` on every node.

use std::ops::Deref;
use std::path::Path;

use serde_json::{Value, json};

use crate::crier::Crier;
use crate::kubernetes::{Cluster, Proof, User};
use crate::wait::secs;
use crate::{Pod, Process, Rack, Site};

/// See the module's documentation; it is also its [`Cluster`].
pub struct Metal {
    pub cluster: Cluster,
    pub site: Site,
    /// kube-proxy of each node, in their order; empty where there is none.
    pub proxies: Vec<Process>,
}

impl Metal {
    /// A cluster of `nodes` nodes on 192.168.35.0/24 and fd35::/64, crier not yet running.
    #[track_caller]
    pub fn new(rack: &Rack, nodes: u16) -> Metal {
        Metal::on(rack, "192.168.35.0/24", nodes)
    }

    /// The same on another IPv4 subnet.
    #[track_caller]
    pub fn on(rack: &Rack, subnet: &str, nodes: u16) -> Metal {
        Metal::in_mode(rack, subnet, nodes, "nftables")
    }

    /// The same with kube-proxy in the mode `nftables` or `iptables`.
    #[track_caller]
    pub fn in_mode(rack: &Rack, subnet: &str, nodes: u16, mode: &str) -> Metal {
        let mut metal = Metal::without_kube_proxy(rack, subnet, nodes);
        metal.proxies = metal.site.nodes.iter().map(|node| metal.cluster.kube_proxy_in_mode(node, mode)).collect();
        metal
    }

    /// The same where nothing makes announced addresses lead anywhere, for those who measure only the announcing.
    #[track_caller]
    pub fn without_kube_proxy(rack: &Rack, subnet: &str, nodes: u16) -> Metal {
        let site = Site::new(rack, subnet, "fd35::/64", nodes);
        let cluster = Cluster::start(&site);
        cluster.allow_crier(&rules());
        Metal { cluster, site, proxies: Vec::new() }
    }

    /// `[kubernetes]` for an agent that reaches the API server directly, with a token.
    #[track_caller]
    pub fn access(&self) -> String {
        self.access_by(Proof::Token, &self.cluster.url())
    }

    #[track_caller]
    pub fn access_by(&self, proof: Proof, server: &str) -> String {
        let kubeconfig = self.cluster.kubeconfig(User::Crier, proof, server);
        format!("[kubernetes]\nkubeconfig = \"{}\"\n", kubeconfig.display())
    }

    /// Starts an agent on every node with `[kubernetes]` and this configuration, and waits until all are ready.
    #[track_caller]
    pub fn agents(&self, configuration: &str) -> Vec<Crier> {
        let configuration = format!("{}{configuration}", self.access());
        let agents: Vec<Crier> = self.site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
        for agent in &agents {
            agent.wait_ready(secs(20));
        }
        agents
    }

    /// The agent of the node of that index, once it is ready. The one before must have ended.
    #[track_caller]
    pub fn agent(&self, node: usize, configuration: &str) -> Crier {
        let node = self.site.node(node);
        let agent = node.crier(node.name(), &format!("{}{configuration}", self.access()));
        agent.wait_ready(secs(20));
        agent
    }

    /// A pod on the node of that index, registered with the label `app`, answering with its name.
    #[track_caller]
    pub fn pod(&self, node: usize, name: &str, app: &str, ports: &[u16]) -> Pod {
        let pod = self.site.node(node).pod(name, ports);
        self.cluster.register_pod(&pod, &json!({ "app": app }));
        pod
    }

    /// What `crier rbac` adds where `[egress] new-pods` is "hold".
    #[track_caller]
    pub fn allow_pods(&self) {
        let mut rules = rules();
        let pods = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] });
        rules.as_array_mut().expect("they are a list").push(pods);
        self.cluster.allow_crier(&rules);
    }

    /// The addresses in the statuses of these Services.
    pub fn shown(&self, services: &[&str]) -> Vec<Vec<String>> {
        services.iter().map(|name| self.ingress(&format!("service/{name}"))).collect()
    }

    /// Every status of these Services shows what [`shown`](Self::shown) was `before`, and one node answers for each address of IPv4.
    ///
    /// # Errors
    /// What is seen instead.
    pub fn stands(&self, services: &[&str], before: &[Vec<String>]) -> Result<(), String> {
        let now = self.shown(services);
        if now != before {
            return Err(format!("the statuses show {now:?}, before {before:?}"));
        }
        let answering = |address: &str| self.site.answering(address.parse().expect("an IPv4 address"));
        before.iter().flatten().try_for_each(|address| match answering(address).as_slice() {
            [_] => Ok(()),
            // A holder goes on until it has heard that the better node has the address.
            [_, _] if answering(address).len() == 1 => Ok(()),
            nodes => Err(format!("{address} is answered by {nodes:?}")),
        })
    }
}

impl Deref for Metal {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// The rules of every role in `config/rbac.yaml`, which so is tested by every test.
fn rules() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rbac.yaml");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{} is no YAML: {error}", file.display()));
    let rules: Vec<Value> = objects.iter().filter_map(|object| object["rules"].as_array()).flatten().cloned().collect();
    assert!(!rules.is_empty(), "{} gives no rights at all", file.display());
    Value::Array(rules)
}
