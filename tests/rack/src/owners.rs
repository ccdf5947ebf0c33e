//! Who answers on the link for many addresses at once, what moved there meanwhile, and whether clients were served.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::capture::Capture;
use crate::client::Asking;
use crate::crier::Crier;
use crate::lan::{Lan, members};
use crate::packet::{Arp, ArpOperation};
use crate::rack::Rack;
use crate::site::Host;
use crate::wait::{eventually, eventually_equal, millis, secs, throughout};

/// Each address with the one node that answers for it.
pub type Owners = BTreeMap<Ipv4Addr, String>;

/// Clients that ask every 100 ms for a page of each address, and what the first of them hears of ARP.
#[derive(Debug)]
pub struct Watch<'a> {
    lan: &'a Lan,
    asking: Vec<(Ipv4Addr, Asking)>,
    capture: Capture,
}

impl Lan {
    /// Nodes that serve pages, and whose kernels answer on the link for nothing that crier binds.
    #[track_caller]
    pub fn with_quiet_kernels(rack: &Rack, nodes: u16) -> Lan {
        let lan = Lan::with_pages(rack, nodes);
        lan.site.nodes.iter().for_each(|node| node.sysctl("net/ipv4/conf/all/arp_ignore", "1"));
        lan
    }

    /// Tells the agents of the Nodes: each with its address, and its name as a label.
    #[track_caller]
    pub fn tell_nodes(&self) {
        let nodes = &self.site.nodes;
        let said: Vec<_> =
            nodes.iter().map(|it| (format!("host: {}", it.name()), [IpAddr::from(it.address)])).collect();
        let nodes: Vec<_> = nodes
            .iter()
            .zip(&said)
            .map(|(node, (label, addresses))| (node.name(), label.as_str(), &addresses[..]))
            .collect();
        self.manifests.nodes(&nodes);
    }

    /// One Service for each of the first `count` addresses of the pool.
    #[track_caller]
    pub fn services(&self, count: u8) -> Vec<Ipv4Addr> {
        let addresses: Vec<Ipv4Addr> = (0..count).map(|number| Ipv4Addr::new(192, 168, 35, 100 + number)).collect();
        for address in &addresses {
            self.service(&format!("web-{}", address.octets()[3]), &address.to_string());
        }
        addresses
    }

    /// Who answers for each, in the order of the names.
    pub fn all_answering(&self, addresses: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, Vec<String>> {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                addresses.iter().map(|address| (*address, scope.spawn(|| self.answering(*address)))).collect();
            let answers = asked.into_iter().map(|(address, thread)| {
                let mut names = thread.join().expect("asking does not panic");
                names.sort();
                (address, names)
            });
            answers.collect()
        })
    }

    /// Waits until exactly one node answers for each of the addresses.
    #[track_caller]
    pub fn owners(&self, addresses: &[Ipv4Addr], within: Duration) -> Owners {
        eventually("exactly one node answers for each address", within, || {
            let answering = self.all_answering(addresses);
            let one = |(address, names): (&Ipv4Addr, &Vec<String>)| match names.as_slice() {
                [name] => Ok((*address, name.clone())),
                _ => Err(format!("{answering:?}")),
            };
            answering.iter().map(one).collect::<Result<Owners, String>>()
        })
    }

    /// For this long each of the addresses keeps its owner: whoever looks finds one within half a second, and it is that one.
    #[track_caller]
    pub fn owners_stay(&self, what: &str, owners: &Owners, length: Duration) {
        let addresses: Vec<Ipv4Addr> = owners.keys().copied().collect();
        throughout(what, length, || {
            let now = self.owners(&addresses, millis(500));
            if now == *owners { Ok(()) } else { Err(format!("{now:?}, before {owners:?}")) }
        });
    }

    /// Stops the agent of that index and starts it with another configuration.
    #[track_caller]
    pub fn restart(&self, agents: &mut [Crier], node: usize, configuration: &str) {
        agents[node].stop(secs(10));
        agents[node] = self.agent_with(node, configuration);
        agents[node].wait_ready(secs(20));
    }

    /// Waits until each of the agents hears all others.
    #[track_caller]
    pub fn all_hear(&self, agents: &[Crier]) {
        for agent in agents {
            let others = agents.len() - 1;
            eventually_equal(&format!("{} hears the others", agent.node()), secs(20), &others, || members(agent).len());
        }
    }

    /// Drops pulses of both families in the switch, from whomever to whomever.
    #[track_caller]
    pub fn drop_pulses(&self) {
        let switch = self.site.link.namespace();
        switch.sh("nft add table bridge deaf");
        switch.sh("nft add chain bridge deaf between { type filter hook forward priority 0 ; }");
        switch.sh("nft add rule bridge deaf between udp dport 7473 drop");
    }

    #[track_caller]
    pub fn pass_pulses(&self) {
        self.site.link.namespace().sh("nft delete table bridge deaf");
    }

    /// Starts to ask for each of the addresses, once each has answered.
    #[track_caller]
    pub fn watch(&self, addresses: &[Ipv4Addr]) -> Watch<'_> {
        self.watch_from(&self.site.client, addresses)
    }

    #[track_caller]
    pub fn watch_from(&self, client: &Host, addresses: &[Ipv4Addr]) -> Watch<'_> {
        for address in addresses {
            eventually(&format!("{address} serves its page"), secs(20), || {
                client.get((IpAddr::from(*address), 80)).map_err(|error| error.to_string())
            });
        }
        let capture = client.port.capture();
        let asks = |address: &Ipv4Addr| (*address, client.ask_steadily((IpAddr::from(*address), 80), millis(100)));
        Watch { lan: self, asking: addresses.iter().map(asks).collect(), capture }
    }
}

impl Watch<'_> {
    /// By whom an address was claimed on the wire so far, by answers and by announcements: each time that it was another one
    /// than before.
    pub fn claims(&self, address: Ipv4Addr) -> Vec<String> {
        let claims = |arp: &Arp| arp.sender == address && (arp.operation == ArpOperation::Reply || arp.is_gratuitous());
        let arps = self.capture.arps();
        let mut names: Vec<String> =
            arps.iter().filter(|(_, arp)| claims(arp)).map(|(_, arp)| self.lan.name_of(arp.sender_mac)).collect();
        names.dedup();
        names
    }

    /// How many frames of ARP the client's port has carried so far.
    pub fn answers(&self) -> usize {
        self.capture.arps().len()
    }

    /// Of the frames after so many: for how long, from the first answer of the node that goes on or of another, another one answered too.
    pub fn doubled(&self, address: Ipv4Addr, after: usize) -> Duration {
        let arps = self.capture.arps();
        let answers =
            |(_, arp): &&(std::time::Instant, Arp)| arp.sender == address && arp.operation == ArpOperation::Reply;
        let answers: Vec<_> = arps.iter().skip(after).filter(answers).collect();
        let (Some((first, _)), Some((_, last))) = (answers.first(), answers.last()) else { return Duration::ZERO };
        let others = answers.iter().filter(|(_, arp)| arp.sender_mac != last.sender_mac);
        others.map(|(at, _)| at.duration_since(*first)).max().unwrap_or_default()
    }

    /// All ARP that the client's port has carried so far and that this client did not send itself.
    pub fn frames(&self) -> usize {
        let own = self.lan.site.client.port.mac();
        self.capture.arps().iter().filter(|(_, arp)| arp.frame_from != own).count()
    }

    /// Ends it: every client was served but for gaps shorter than this, and is served now.
    #[track_caller]
    pub fn end(self, longest: Duration) {
        for (address, asking) in self.asking {
            eventually(&format!("{address} is served in the end"), secs(5), || match asking.outcomes().0.last() {
                Some(last) if last.result.is_ok() => Ok(()),
                other => Err(format!("{other:?}")),
            });
            let outcomes = asking.stop();
            println!("{address}: {outcomes}");
            assert!(outcomes.longest_gap() < longest, "{address}: {outcomes}");
        }
    }
}
