//! Nodes without pulses: who stands by for an address, who leaves by it, and what a drain gives up.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, Flows, Scene, ends, fresh};
use rack::lan::Lan;
use rack::{Need, Rack, eventually, eventually_equal, secs, throughout};

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

/// The file of before, without a key.
fn without_key(configuration: &str) -> &str {
    configuration.split("[pulse]").next().expect("split gives one part at least")
}

fn agents(lan: &Lan, configuration: &str) -> Vec<Crier> {
    let agents: Vec<Crier> = (0..lan.site.nodes.len()).map(|node| lan.agent_with(node, configuration)).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    agents
}

/// Waits until one other node answers.
#[track_caller]
fn another_takes(lan: &Lan, address: Ipv4Addr, former: usize) -> usize {
    let former = lan.site.node(former).name().to_owned();
    eventually(&format!("another node than {former} answers"), secs(20), || {
        let names = lan.answering(address);
        let known = |name: &String| lan.site.nodes.iter().position(|node| node.name() == name);
        match names.as_slice() {
            [one] if *one != former => known(one).ok_or_else(|| one.clone()),
            _ => Err(format!("{names:?}")),
        }
    })
}

#[test]
fn an_address_that_a_standby_holds_goes_back_to_the_owner_that_all_nodes_name_once_pods_leave_with_it() {
    let Some(rack) = Rack::for_test(&[NEEDS[0], NEEDS[1], Need::Nft]) else { return };
    let scene = Scene::of(&rack, 3);
    let lan = &scene.lan;
    let configuration = without_key(&scene.configuration).to_owned();
    scene.serve_with(&[]);
    let mut agents = agents(lan, &configuration);
    let owner = lan.owner(ADDRESS);
    let ends = ends(&lan.site.client);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &lan.site.client)).collect();
    let all_leave = |agents: &[Crier]| {
        scene.leave_by(agents, owner);
        lan.answered_by(ADDRESS, &[lan.site.node(owner).name()]);
        for (end, address) in ends.iter().zip(ADDRESSES) {
            let expected = BTreeSet::from([address.to_owned()]);
            eventually_equal("all pods leave with the address", secs(20), &expected, || fresh(end));
        }
    };
    agents[owner].kill();
    let second = another_takes(lan, ADDRESS, owner);
    agents[owner] = lan.agent_with(owner, &configuration);
    agents[owner].wait_ready(secs(30));
    let holds = || vec![lan.site.node(second).name().to_owned()];
    throughout("a plain address stays where it is", secs(6), || match lan.answering(ADDRESS) {
        now if now == holds() => Ok(()),
        now => Err(format!("{now:?}")),
    });
    scene.serve("service-ip");
    all_leave(&agents);

    // The annotation goes while the owner's agent is dead, and comes back.
    agents[owner].kill();
    scene.serve_with(&[]);
    another_takes(lan, ADDRESS, owner);
    scene.serve("service-ip");
    eventually_equal("nobody else answers any more", secs(20), &Vec::new(), || lan.answering(ADDRESS));
    agents[owner] = lan.agent_with(owner, &configuration);
    agents[owner].wait_ready(secs(30));
    all_leave(&agents);
}

#[test]
fn a_drained_node_answers_for_nothing_and_the_other_one_takes_its_addresses() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::new(&rack, 2);
    lan.tell_nodes();
    let addresses = lan.services(4);
    let configuration = lan.configuration();
    let agents = agents(&lan, without_key(&configuration));
    let owners = lan.owners(&addresses, secs(30));
    let leaving = agents.iter().position(|agent| owners.values().any(|owner| owner == agent.node())).expect("an owner");
    let other = agents[1 - leaving].node().to_owned();
    let ordered = agents[leaving].verb("drain --wait --timeout 1s");
    let said = String::from_utf8_lossy(&ordered.stdout).into_owned() + &String::from_utf8_lossy(&ordered.stderr);
    // Flows may not be known here.
    assert!(matches!(ordered.status.code(), Some(0 | 4)) && said.contains("one node at a time"), "{said}");
    let expected = addresses.iter().map(|address| (*address, other.clone())).collect();
    lan.owners_stay("the other node has all of them", &expected, secs(5));
    assert_eq!(agents[leaving].status()["drain"]["stage"], "drained");
    assert_eq!(agents[leaving].status()["drain"]["addresses_left"], 0);
    agents[leaving].verb("undrain");
    lan.owners_stay("an address stays with who answers for it", &expected, secs(5));
    // Nobody else is Ready.
    lan.manifests.nodes(&[(agents[1 - leaving].node(), "", &[])]);
    eventually("the last node is not drained", secs(20), || {
        let ordered = agents[1 - leaving].verb("drain");
        let said = String::from_utf8_lossy(&ordered.stderr).into_owned();
        if ordered.status.code() == Some(1) && said.contains("no other Node") {
            return Ok(());
        }
        agents[1 - leaving].verb("undrain");
        Err(said)
    });
}
