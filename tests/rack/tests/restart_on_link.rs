//! A planned restart of a node that holds an address on the link: the address stays, no other node announces it, and a client
//! loses nothing. A node that is late loses it to one other node, and finds that out before it answers.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;

use rack::capture::Capture;
use rack::crier::Crier;
use rack::lan::{Lan, members};
use rack::packet::ArpOperation;
use rack::{Need, Rack, eventually, eventually_equal, millis, rest, secs, throughout};

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// Three nodes, each with the page of its name, whose agents are units of a service manager. Their kernels answer for no bound address.
struct Town {
    lan: Lan,
    agents: Vec<Crier>,
    configuration: String,
    /// The number of the node that has the address.
    owner: usize,
}

impl Deref for Town {
    type Target = Lan;

    fn deref(&self) -> &Lan {
        &self.lan
    }
}

impl Town {
    /// `pulse` is added to `[pulse]`.
    #[track_caller]
    fn new(rack: &Rack, pulse: &str) -> Town {
        let lan = Lan::with_quiet_kernels(rack, 3);
        lan.service("web", "192.168.35.100");
        let configuration = lan.configuration().replace("[pulse]\n", &format!("sticky = true\n[pulse]\n{pulse}"));
        let start = |node: usize| lan.site.node(node).crier_as_unit(lan.site.node(node).name(), &configuration);
        let agents: Vec<Crier> = (0..3).map(start).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
            eventually_equal("it hears the others", secs(30), &2, || members(agent).len());
        }
        let owner = lan.owner(ADDRESS);
        let town = Town { lan, agents, configuration, owner };
        eventually_equal("the owner serves its page", secs(20), &town.name(owner), || {
            town.site.client.get((IpAddr::from(ADDRESS), 80)).map(|answer| answer.name).unwrap_or_default()
        });
        town
    }

    fn name(&self, node: usize) -> String {
        self.site.node(node).name().to_owned()
    }

    /// By whom the address was claimed in these frames, by answers and by announcements, and by whom it was asked for as by one
    /// that wants to use it.
    fn seen(&self, capture: &Capture) -> (Vec<String>, Vec<String>) {
        let (mut claimed, mut probed) = (Vec::new(), Vec::new());
        for (_, arp) in capture.arps() {
            if arp.sender == ADDRESS && (arp.operation == ArpOperation::Reply || arp.is_gratuitous()) {
                claimed.push(self.name_of(arp.sender_mac));
            }
            // The harness asks as a stranger, too.
            if arp.target == ADDRESS && arp.sender.is_unspecified() {
                probed.push(self.name_of(arp.sender_mac));
            }
        }
        claimed.dedup();
        probed.retain(|name| self.site.nodes.iter().any(|node| node.name() == name));
        probed.dedup();
        (claimed, probed)
    }

    /// What the other agents have logged since they started.
    fn others_logged(&self, text: &str) -> usize {
        let others = self.agents.iter().enumerate().filter(|(number, _)| *number != self.owner);
        others.filter(|(_, agent)| agent.process().log().contains(text)).count()
    }
}

#[test]
fn a_restarted_owner_keeps_its_address_and_no_other_node_announces_it() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack, "");
    let owner = town.owner;
    let expected = vec![town.name(owner)];
    let capture = town.site.client.port.capture();
    let asking = town.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(5));
    let configuration = town.configuration.clone();
    for round in 0..3 {
        town.agents[owner].end_with_job("restart");
        let stored = town.agents[owner].unit().stored();
        // An old kernel takes no such program: then nobody answers meanwhile, and the client goes by what it knows.
        let in_kernel = stored == ["arp-program-0"];
        // Much longer than it takes the others to notice that a node is dead.
        rest(millis(1200));
        let answering = town.answering(ADDRESS);
        println!("round {round}: while no agent runs, {answering:?} answer (in the kernel: {in_kernel})");
        assert_eq!(answering, if in_kernel { expected.clone() } else { Vec::new() }, "round {round}");
        town.agents[owner].start_again(&configuration);
        town.agents[owner].wait_ready(secs(20));
        eventually("the new agent answers", secs(10), || {
            let log = town.agents[owner].process().log();
            let now = log.rfind("INFO starting").map(|start| log[start..].to_owned()).unwrap_or_default();
            if now.contains("this node answers on the link") { Ok(()) } else { Err(now) }
        });
        town.answered_by(ADDRESS, &[expected[0].as_str()]);
        assert_eq!(town.agents[owner].unit().stored(), Vec::<String>::new(), "round {round}: the store is empty");
    }
    // Longer than the nodes wait: by now they would have taken over.
    rest(secs(6));
    let outcomes = asking.stop();
    println!("three restarts: {outcomes}");
    assert_eq!((outcomes.lost(), outcomes.servers()), (0, expected.clone()), "{outcomes}");
    let (claimed, probed) = town.seen(&capture);
    assert_eq!(claimed, expected, "nobody else announced or answered");
    assert_eq!(probed, Vec::<String>::new(), "nobody asked whether the address is free");
    assert_eq!(town.others_logged("the agent of the node restarts"), 2);
    assert_eq!(town.others_logged("node fell silent") + town.others_logged("node left the link"), 0);
}

#[test]
fn a_node_that_is_late_loses_its_address_to_one_other_and_sees_that_before_it_answers() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack, "restart-grace = \"2s\"\n");
    let first = town.owner;
    let capture = town.site.client.port.capture();
    let asking = town.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(5));
    town.agents[first].end_with_job("restart");
    throughout("nobody takes the address before the time is over", millis(1500), || {
        let (claimed, probed) = town.seen(&capture);
        let by_others = claimed.iter().chain(&probed).filter(|name| **name != town.name(first)).count();
        if by_others == 0 { Ok(()) } else { Err(format!("{claimed:?}, asked by {probed:?}")) }
    });
    let second = eventually("another node answers alone", secs(2), || match town.answering(ADDRESS).as_slice() {
        [one] if *one != town.name(first) => Ok(one.clone()),
        other => Err(format!("{other:?}")),
    });
    let configuration = town.configuration.clone();
    town.agents[first].start_again(&configuration);
    town.agents[first].wait_ready(secs(20));
    throughout("the second has it alone", secs(4), || match town.answering(ADDRESS).as_slice() {
        [one] if *one == second => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (claimed, _) = town.seen(&capture);
    assert!(claimed.ends_with(std::slice::from_ref(&second)) && claimed.len() <= 2, "it went over once: {claimed:?}");
    let outcomes = asking.stop();
    println!("a late restart: {outcomes}");
    // Until the other announces it, the host of the first serves on.
    assert!(outcomes.longest_gap() < millis(500), "{outcomes}");
    assert_eq!(outcomes.servers().last(), Some(&second));
}

#[test]
fn without_a_grace_a_restart_hands_over_at_once() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack, "restart-grace = \"0s\"\n");
    let first = town.name(town.owner);
    town.agents[town.owner].end_with_job("restart");
    assert_eq!(town.agents[town.owner].unit().stored(), Vec::<String>::new());
    eventually("another node answers", secs(2), || match town.answering(ADDRESS).as_slice() {
        [one] if *one != first => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
