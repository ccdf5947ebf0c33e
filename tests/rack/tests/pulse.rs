//! The pulse between standalone nodes on a real link: who dies is replaced within a moment, who leaves at once, and nobody
//! without the key is listened to.

use std::net::{IpAddr, Ipv4Addr};

use rack::client::Asking;
use rack::crier::Crier;
use rack::packet::Mac;
use rack::{Need, Process, Rack, Site, eventually, eventually_equal, millis, secs, throughout};

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

const MANIFEST: &str = "\
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, loadBalancerIP: 192.168.35.100, ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
endpoints: [{addresses: [10.1.1.1], conditions: {ready: true}}]
";

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Three nodes, each with the page of its name, and agents that know each other from their pulses alone.
struct Lan {
    site: Site,
    configuration: String,
    _pages: Vec<Process>,
}

impl Lan {
    fn new(rack: &Rack, pulse: &str) -> Lan {
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", 3);
        let pages = site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
        write(rack, "manifests/web.yaml", MANIFEST);
        let configuration = format!(
            "[api]\nlisten = \"\"\n[manifests]\nfolder = \"{}\"\n[[pool]]\nname = \"lan\"\nbind = \"lo\"\n\
             addresses = [\"192.168.35.100-192.168.35.110\"]\n[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\n{pulse}\n",
            rack.folder().join("manifests").display()
        );
        Lan { site, configuration, _pages: pages }
    }

    fn agent(&self, node: usize) -> Crier {
        let node = self.site.node(node);
        node.crier(node.name(), &self.configuration)
    }

    /// All three, once each counts the others as alive.
    fn agents(&self) -> Vec<Crier> {
        let agents: Vec<Crier> = (0..3).map(|node| self.agent(node)).collect();
        for agent in &agents {
            agent.wait_ready(secs(20));
            eventually_equal(&format!("{} hears the others", agent.node()), secs(20), &2, || members(agent).len());
        }
        agents
    }

    /// The nodes that answer who-has for the address.
    fn answering(&self) -> Vec<String> {
        let macs = self.site.client.who_has("eth0", ADDRESS, millis(200));
        let name =
            |mac: Mac| self.site.nodes.iter().find(|node| node.port.mac() == mac).map(|node| node.name().to_owned());
        macs.into_iter().map(|mac| name(mac).unwrap_or_else(|| format!("a stranger, {mac}"))).collect()
    }

    fn owner(&self) -> String {
        eventually("exactly one node answers", secs(20), || {
            let mut nodes = self.answering();
            if nodes.len() == 1 { Ok(nodes.remove(0)) } else { Err(format!("{nodes:?}")) }
        })
    }

    fn asking(&self) -> Asking {
        self.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(5))
    }
}

fn write(rack: &Rack, name: &str, text: &str) {
    let path = rack.folder().join(name);
    std::fs::create_dir_all(path.parent().expect("it is below the rack's folder")).expect("a folder can be made");
    std::fs::write(path, text).expect("a file can be written");
}

fn members(agent: &Crier) -> Vec<String> {
    let status = agent.status();
    let members = status["pulse"]["links"][0]["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|member| member["node"].as_str().map(str::to_owned)).collect()
}

/// Waits until somebody else than `before` serves the page.
fn served_by_another(asking: &Asking, before: &str) {
    eventually("another node serves the page", secs(10), || match asking.outcomes().servers().last() {
        Some(name) if name != before => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn an_owner_that_is_killed_is_replaced_and_one_that_stops_hands_over_without_a_gap() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    write(&rack, "pulse.key", KEY);
    let lan = Lan::new(&rack, &format!("key-file = \"{}\"", rack.folder().join("pulse.key").display()));
    let mut agents = lan.agents();
    let first = lan.owner();
    eventually_equal("the owner serves its page", secs(20), &first, || {
        lan.site.client.get((IpAddr::from(ADDRESS), 80)).map(|answer| answer.name).unwrap_or_default()
    });

    let asking = lan.asking();
    let place = agents.iter().position(|agent| agent.node() == first).expect("the owner is one of the agents");
    let killed = agents.remove(place);
    killed.kill();
    // What was bound by the one that was killed would still answer for it: the node as a whole is dead.
    let node = lan.site.nodes.iter().find(|node| node.name() == first).expect("it is a node");
    node.ip("address del 192.168.35.100/32 dev lo");
    served_by_another(&asking, &first);
    let outcomes = asking.stop();
    println!("SIGKILL: the longest gap was {:?}, {} lost", outcomes.longest_gap(), outcomes.lost());
    let second = lan.owner();
    assert_ne!(second, first);

    let asking = lan.asking();
    eventually("the next owner is asked", secs(10), || {
        if asking.outcomes().servers().contains(&second) { Ok(()) } else { Err("not yet") }
    });
    let place = agents.iter().position(|agent| agent.node() == second).expect("the owner is one of the agents");
    let stopped = agents.remove(place);
    stopped.stop(secs(10));
    served_by_another(&asking, &second);
    let outcomes = asking.stop();
    println!("SIGTERM: the longest gap was {:?}, {} lost", outcomes.longest_gap(), outcomes.lost());
    assert_ne!(lan.owner(), second);
}

#[test]
fn agents_with_different_keys_do_not_listen_to_each_other_and_say_so() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    write(&rack, "pulse.key", KEY);
    write(&rack, "other.key", &KEY.replace('0', "f"));
    let lan = Lan::new(&rack, &format!("key-file = \"{}\"", rack.folder().join("pulse.key").display()));
    let ours = [lan.agent(0), lan.agent(1)];
    let stranger = {
        let node = lan.site.node(2);
        node.crier(node.name(), &lan.configuration.replace("pulse.key", "other.key"))
    };
    for agent in &ours {
        agent.wait_ready(secs(20));
        agent.process().wait_for_log("it is sealed with another key", secs(20));
    }
    stranger.wait_ready(secs(20));
    eventually_equal("the two of one key hear each other", secs(20), &vec!["node-2".to_owned()], || members(&ours[0]));
    throughout("and the third is nobody to them", secs(2), || match members(&ours[0]).as_slice() {
        [one] if one == "node-2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn where_ipv6_is_off_on_one_node_all_hear_each_other_over_ipv4() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::new(&rack, "unauthenticated = true");
    lan.site.node(1).sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
    let agents = lan.agents();
    let status = agents[0].status();
    assert_eq!(status["pulse"]["state"], "unauthenticated");
    assert!(status["problems"].to_string().contains("unauthenticated"), "{}", status["problems"]);
    throughout("nobody falls silent", secs(4), || {
        let counts: Vec<usize> = agents.iter().map(|agent| members(agent).len()).collect();
        if counts == [2, 2, 2] { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}
