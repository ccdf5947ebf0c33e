//! Standalone nodes on one link: each runs crier with a folder of manifests that all share, and they learn of each other
//! from their pulses alone.
//!
//! Nothing binds the addresses, unless the nodes serve [pages](Lan::with_pages): whoever answers for one on the link is
//! crier, and no kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde_json::Value;

use crate::client::neighbor_or;
use crate::crier::Crier;
use crate::manifests::Manifests;
use crate::namespace::Namespace;
use crate::packet::Mac;
use crate::process::Process;
use crate::rack::Rack;
use crate::service::Service;
use crate::site::Site;
use crate::wait::{eventually, eventually_equal, secs};

/// See the module's documentation. The pool holds 192.168.35.100 to .110 and fd35::100 to ::110.
#[derive(Debug)]
pub struct Lan {
    pub site: Site,
    pub manifests: Manifests,
    /// Of nodes that serve pages.
    pages: Vec<Process>,
    /// The file of the key that all share.
    pub key: PathBuf,
}

/// What the pool of every [`Lan`] holds.
pub const POOL: &str = "addresses = [\"192.168.35.100-192.168.35.110\", \"fd35::100-fd35::110\"]\n";

/// What [`Lan::patient_pulse`] has beside the key.
pub const PATIENT: &str = "interval = \"300ms\"\n";

impl Lan {
    /// Nodes on 192.168.35.0/24 and fd35::/64, no Service and no agent yet.
    #[track_caller]
    pub fn new(rack: &Rack, nodes: u16) -> Lan {
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", nodes);
        let manifests = Manifests::new(rack);
        let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
        Lan { site, manifests, pages: Vec::new(), key }
    }

    /// The same where each node binds what it announces and serves a page of its name on port 80.
    #[track_caller]
    pub fn with_pages(rack: &Rack, nodes: u16) -> Lan {
        let mut lan = Lan::new(rack, nodes);
        lan.pages = lan.site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
        lan
    }

    /// Writes a Service with one serving endpoint that asks for these addresses (`"192.168.35.100,fd35::100"`), or for
    /// any one of IPv4 where there are none to ask for.
    #[track_caller]
    pub fn service(&self, name: &str, addresses: &str) {
        let service = Service::new(name).anywhere();
        self.manifests.service(&if addresses.is_empty() { service } else { service.addresses(addresses) });
    }

    /// The configuration of every node: `[[l2]]` on eth0 and the pulse with the shared key.
    pub fn configuration(&self) -> String {
        self.configuration_on("[\"eth0\"]", &format!("key-file = \"{}\"\n", self.key.display()))
    }

    /// A `[pulse]` by which a node is silent after 900 ms, for tests that nobody is missed: a busy machine may hold up an agent for the
    /// third of a second that is the default.
    pub fn patient_pulse(&self) -> String {
        format!("key-file = \"{}\"\n{PATIENT}", self.key.display())
    }

    /// The same with another list of interfaces and another `[pulse]`.
    pub fn configuration_on(&self, interfaces: &str, pulse: &str) -> String {
        let bind = if self.pages.is_empty() { "" } else { "bind = \"lo\"\n" };
        format!(
            "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"lan\"\n{POOL}{bind}\
             [[l2]]\ninterfaces = {interfaces}\n[pulse]\n{pulse}",
            self.manifests.section()
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
        self.agents_with(&self.configuration())
    }

    #[track_caller]
    pub fn agents_with(&self, configuration: &str) -> Vec<Crier> {
        let nodes = 0..self.site.nodes.len();
        let agents: Vec<Crier> = nodes.map(|node| self.agent_with(node, configuration)).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
        }
        for agent in &agents {
            let others = agents.len() - 1;
            eventually_equal(&format!("{} hears the others", agent.node()), secs(30), &others, || members(agent).len());
        }
        agents
    }

    /// Who answers on the link for an IPv4 address: nodes by name, others by `a foreign host, MAC`.
    pub fn answering(&self, address: Ipv4Addr) -> Vec<String> {
        self.site.answering(address)
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
        self.site.name_of(mac)
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
