//! Standalone nodes on one link: each runs crier with a folder of manifests that all share, and they learn of each other
//! from their pulses alone.
//!
//! Nothing binds the addresses: whoever answers for one on the link is crier, and no kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde_json::Value;

use crate::client::neighbor_or;
use crate::crier::Crier;
use crate::namespace::Namespace;
use crate::packet::Mac;
use crate::rack::Rack;
use crate::site::Site;
use crate::wait::{eventually, eventually_equal, millis, secs};

/// See the module's documentation. The pool holds 192.168.35.100 to .110 and fd35::100 to ::110.
#[derive(Debug)]
pub struct Lan {
    pub site: Site,
    manifests: PathBuf,
    /// The file of the key that all share.
    pub key: PathBuf,
}

/// What the pool of every [`Lan`] holds.
pub const POOL: &str = "addresses = [\"192.168.35.100-192.168.35.110\", \"fd35::100-fd35::110\"]\n";

impl Lan {
    /// Nodes on 192.168.35.0/24 and fd35::/64, no Service and no agent yet.
    #[track_caller]
    pub fn new(rack: &Rack, nodes: u16) -> Lan {
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", nodes);
        let manifests = rack.folder().join("manifests");
        std::fs::create_dir_all(&manifests).expect("the rack's folder is ours");
        let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
        Lan { site, manifests, key }
    }

    /// Writes a Service with one serving endpoint that asks for these addresses (`"192.168.35.100,fd35::100"`), or for
    /// any one of IPv4 where there are none to ask for.
    #[track_caller]
    pub fn service(&self, name: &str, addresses: &str) {
        let wish = match addresses {
            "" => String::new(),
            addresses => format!(", annotations: {{crier.dev/addresses: \"{addresses}\"}}"),
        };
        let families = match (addresses.contains(':'), addresses.contains('.')) {
            (true, true) => "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], ",
            (true, false) => "ipFamilies: [IPv6], ",
            (false, _) => "",
        };
        self.manifest(
            &format!("{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}{wish}}}, spec: {{type: LoadBalancer, {families}ports: [{{port: 80}}]}}}}\n\
                 ---\n\
                 {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
                 metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}, \
                 endpoints: [{{addresses: [10.1.1.1], conditions: {{ready: true}}}}]}}\n"
            ),
        );
    }

    /// A manifest appears whole, as an editor or a configuration management writes it.
    #[track_caller]
    pub fn manifest(&self, file: &str, text: &str) {
        let aside = self.manifests.join(format!(".{file}.new"));
        let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, self.manifests.join(file)));
        written.expect("the rack's folder is ours");
    }

    /// The configuration of every node: `[[l2]]` on eth0 and the pulse with the shared key.
    pub fn configuration(&self) -> String {
        self.configuration_on("[\"eth0\"]", &format!("key-file = \"{}\"\n", self.key.display()))
    }

    /// The same with another list of interfaces and another `[pulse]`.
    pub fn configuration_on(&self, interfaces: &str, pulse: &str) -> String {
        format!(
            "[api]\nlisten = \"\"\n[manifests]\nfolder = \"{}\"\n[[pool]]\nname = \"lan\"\n{POOL}\
             [[l2]]\ninterfaces = {interfaces}\n[pulse]\n{pulse}",
            self.manifests.display()
        )
    }

    /// Starts crier on the node of that index.
    #[track_caller]
    pub fn agent(&self, node: usize) -> Crier {
        self.agent_with(node, &self.configuration())
    }

    #[track_caller]
    pub fn agent_with(&self, node: usize, configuration: &str) -> Crier {
        let node = self.site.node(node);
        node.crier(node.name(), configuration)
    }

    /// Starts crier on every node and waits until each counts the others as alive.
    #[track_caller]
    pub fn agents(&self) -> Vec<Crier> {
        let agents: Vec<Crier> = (0..self.site.nodes.len()).map(|node| self.agent(node)).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
        }
        for agent in &agents {
            let others = agents.len() - 1;
            eventually_equal(&format!("{} hears the others", agent.node()), secs(30), &others, || members(agent).len());
        }
        agents
    }

    /// Who answers on the link for an IPv4 address: nodes by name, others by `a stranger, MAC`.
    pub fn answering(&self, address: Ipv4Addr) -> Vec<String> {
        let macs = self.site.client.who_has("eth0", address, millis(200));
        macs.into_iter().map(|mac| self.name_of(mac)).collect()
    }

    /// Waits until exactly one node answers, and returns its index.
    #[track_caller]
    pub fn owner(&self, address: Ipv4Addr) -> usize {
        eventually(&format!("exactly one node answers for {address}"), secs(30), || {
            let seen = self.answering(address);
            let known = |name: &String| self.site.nodes.iter().position(|node| node.name() == name);
            match seen.as_slice() {
                [one] => known(one).ok_or_else(|| one.clone()),
                _ => Err(format!("{seen:?}")),
            }
        })
    }

    /// Waits until these, and nobody else, answer for the address.
    #[track_caller]
    pub fn answered_by(&self, address: Ipv4Addr, expected: &[&str]) {
        let expected: Vec<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        eventually_equal(&format!("{expected:?} answer for {address}"), secs(30), &expected, || {
            self.answering(address)
        });
    }

    /// The node whose `eth0` has this address, as [`answering`](Self::answering) names it.
    pub fn name_of(&self, mac: Mac) -> String {
        let node = self.site.nodes.iter().find(|node| node.port.mac() == mac);
        node.map_or_else(|| format!("a stranger, {mac}"), |node| node.name().to_owned())
    }

    /// Waits until the neighbour table of `host` has `mac` for the address; nothing is asked.
    #[track_caller]
    pub fn known_as(&self, host: &Namespace, address: IpAddr, mac: Mac) {
        eventually(&format!("{} knows {address} as {mac}", host.name()), secs(30), || {
            neighbor_or(host, address).and_then(|known| if known == mac { Ok(()) } else { Err(self.name_of(known)) })
        });
    }
}

/// The nodes that an agent counts as alive on its first link.
#[track_caller]
pub fn members(agent: &Crier) -> Vec<String> {
    let status = agent.status();
    let members = status["pulse"]["links"][0]["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|member| member["node"].as_str().map(str::to_owned)).collect()
}

/// What an agent says of a Service, by its name without the namespace; null where it says nothing.
#[track_caller]
pub fn service(agent: &Crier, name: &str) -> Value {
    let status = agent.status();
    let services = status["services"].as_array().cloned().unwrap_or_default();
    let is_it = |service: &Value| service["name"].as_str().is_some_and(|key| key.rsplit('/').next() == Some(name));
    services.into_iter().find(is_it).unwrap_or_default()
}

/// All that an agent complains about, one in a line.
#[track_caller]
pub fn problems(agent: &Crier) -> String {
    let status = agent.status();
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}
