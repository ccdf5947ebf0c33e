//! Addresses that nodes, gateways and subnets use themselves, in the middle of a pool: no Service gets one, whoever asks for one is
//! told why not, and no agent ever answers for one. A11 of the field cases.

use std::net::Ipv4Addr;

use rack::lan::{self, Lan};
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, secs, throughout};

/// The network's own address, the router, both nodes, and the broadcast address among them. The client and the control plane are foreign
/// hosts, which only a probe finds.
const POOL: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.0-192.168.35.13\", \"192.168.35.255\"]\nrest = \"0s\"\n\
                    exclude = [\"192.168.35.2\", \"192.168.35.9\"]\n\
                    [[l2]]\ninterfaces = [\"eth0\"]\n[egress]\nsymmetric-return = false\n";

fn condition(metal: &Metal, name: &str) -> String {
    let object = metal.get(&format!("service/{name}")).expect("the Service is there");
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ours = all.into_iter().find(|it| it["type"] == "crier.dev/Allocated").unwrap_or_default();
    format!("{} {}: {}", ours["status"], ours["reason"], ours["message"])
}

#[test]
fn what_nodes_gateways_and_subnets_use_is_given_to_no_service_and_refused_by_name() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::new(&rack, 2);
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let agents = metal.agents(&format!("{POOL}[pulse]\nkey-file = \"{}\"\n", key.display()));
    let own = [(0, "subnet"), (1, "gateway"), (11, "node-1"), (12, "node-2"), (255, "subnet")];
    for (last, word) in own {
        let (name, address) = (format!("asks-{last}"), format!("192.168.35.{last}"));
        metal.try_apply(&Service::new(&name).addresses(&address).object()).expect("the API server takes the Service");
        eventually(&format!("{address} is refused by name"), secs(20), || {
            let told = condition(&metal, &name);
            let is_refused = told.starts_with("\"False\"") && told.contains(&address) && told.contains(word);
            if is_refused { Ok(()) } else { Err(told) }
        });
        assert_eq!(metal.ingress(&format!("service/{name}")), Vec::<String>::new());
    }
    // More Services than the pool has addresses for: .3 to .8, .10 and .13.
    for number in 0..10 {
        metal.try_apply(&Service::new(&format!("any-{number}")).object()).expect("the API server takes the Service");
    }
    let given = || {
        let mut given: Vec<String> =
            (0..10).flat_map(|number| metal.ingress(&format!("service/any-{number}"))).collect();
        given.sort();
        given
    };
    let mut free: Vec<String> = [3, 4, 5, 6, 7, 8, 10, 13].map(|last| format!("192.168.35.{last}")).into();
    free.sort();
    eventually_equal("what nobody uses is given", secs(60), &free, given);
    throughout("and nothing else", secs(3), || if given() == free { Ok(()) } else { Err(format!("{:?}", given())) });
    // A node whose agent has stopped has its address for itself.
    agents[0].stop(secs(10));
    throughout("node-1 alone answers for its own address", secs(5), || {
        let answering = metal.site.answering(Ipv4Addr::new(192, 168, 35, 11));
        if answering == ["node-1"] { Ok(()) } else { Err(format!("{answering:?}")) }
    });
}

#[test]
fn config_check_and_doctor_name_the_addresses_of_a_pool_that_hosts_and_subnets_use() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    let whole = lan.configuration().replace("192.168.35.100-192.168.35.110", "192.168.35.0-192.168.35.13");
    let agent = lan.agent_with(0, &whole);
    agent.wait_ready(secs(30));
    let check = || agent.verb(&format!("config check {}", agent.file().display()));
    let told = String::from_utf8_lossy(&check().stderr).into_owned();
    for expected in [
        "pool lan: 192.168.35.0 is the network address of 192.168.35.0/24, so no Service gets it",
        "pool lan: 192.168.35.11 is an address of eth0 of the host that allocates, so no Service gets it",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    assert!(check().status.success(), "that is no mistake");
    eventually("doctor names it, with the remedy", secs(20), || {
        let doctor = String::from_utf8_lossy(&agent.verb("doctor").stdout).into_owned();
        let is_told =
            doctor.contains("192.168.35.11 is an address of eth0") && doctor.contains("exclude = [\"192.168.35.11\"]");
        if is_told { Ok(()) } else { Err(doctor) }
    });
    let excluded = whole.replace("[[l2]]", "exclude = [\"192.168.35.0/31\", \"192.168.35.11\"]\n[[l2]]");
    agent.write_configuration(&excluded);
    let told = String::from_utf8_lossy(&check().stderr).into_owned();
    assert!(!told.contains("no Service gets it"), "what is excluded on purpose is not told: {told}");
}

/// keepalived, kube-vip and operators put a virtual address on a link as a host prefix.
#[test]
fn what_another_program_has_on_a_link_is_given_to_no_service_by_chance_and_named() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.site.node(1).ip("address add 192.168.35.100/32 dev eth0");
    let agents = lan.agents();
    let names = |node: usize, expected: &str| {
        eventually(&format!("node-{} says {expected:?}", node + 1), secs(20), || {
            let told = lan::problems(&agents[node]);
            let doctor = String::from_utf8_lossy(&agents[node].verb("doctor").stdout).into_owned();
            if told.contains(expected) && doctor.contains(expected) { Ok(()) } else { Err(format!("{told}\n{doctor}")) }
        });
    };
    names(1, "192.168.35.100 of pool lan is on eth0 of this node, put there by another program");
    lan.service("web", "");
    lan.owner(Ipv4Addr::new(192, 168, 35, 101));
    lan.answered_by(Ipv4Addr::new(192, 168, 35, 100), &["node-2"]);

    lan.site.node(1).ip("address add 192.168.35.101/32 dev eth0");
    names(1, "192.168.35.101 of default/web is on eth0 of this node, put there by another program");
    lan.site.node(1).ip("address del 192.168.35.101/32 dev eth0");
    eventually("it is told no more", secs(20), || {
        let told = lan::problems(&agents[1]);
        if told.contains("192.168.35.101 ") { Err(told) } else { Ok(()) }
    });
    let owner = lan.owner(Ipv4Addr::new(192, 168, 35, 101));

    // What LVS or keepalived leave on lo: no link of an [[l2]], and the kernel answers for it all the same.
    let other = 1 - owner;
    let node = lan.site.node(other);
    node.ip("address add 192.168.35.101/32 dev lo");
    names(
        other,
        "192.168.35.101 of default/web is on lo of this node, put there by another program, and arp_ignore is 0",
    );
    node.sysctl("net/ipv4/conf/all/arp_ignore", "1");
    eventually("it answers for nothing on lo, and that is told no more", secs(45), || {
        let told = lan::problems(&agents[other]);
        if told.contains("192.168.35.101 ") { Err(told) } else { Ok(()) }
    });
}

/// B18 of the field cases. Input: three nodes bind an address to `lo`, because BGP announces it from each, and one of them is to answer for
/// it on the link; `arp_ignore` is 0. Output: all three kernels answer, and so that none can own it; each node says so, with the remedy; with that,
/// one node answers, and nothing is said any more.
#[test]
fn an_address_that_bgp_binds_on_every_node_is_told_until_only_its_owner_answers() {
    const BGP: &str = "[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n\
                       [[bgp.advertisement]]\n";
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 3);
    let bound = lan.configuration().replace(lan::POOL, &format!("{}bind = \"lo\"\n", lan::POOL));
    assert!(bound.contains("bind"), "{bound}");
    let agents = lan.agents_with(&format!("{bound}{BGP}"));
    lan.service("web", "192.168.35.100");
    let address = Ipv4Addr::new(192, 168, 35, 100);
    eventually_equal("all three kernels answer", secs(20), &3, || lan.answering(address).len());
    let expected =
        "192.168.35.100 of default/web is on lo of this node, bound for BGP (bind of pool lan), and arp_ignore is 0";
    let says = |agent: &&rack::crier::Crier| {
        let told = lan::problems(agent);
        told.contains(expected) && told.contains("sysctl -w net.ipv4.conf.all.arp_ignore=1")
    };
    eventually_equal("each of them says so", secs(20), &3, || agents.iter().filter(says).count());
    for agent in agents.iter().filter(says) {
        let doctor = String::from_utf8_lossy(&agent.verb("doctor").stdout).into_owned();
        assert!(doctor.contains(expected), "{doctor}");
    }
    lan.site.nodes.iter().for_each(|node| node.sysctl("net/ipv4/conf/all/arp_ignore", "1"));
    eventually_equal("its owner alone answers", secs(10), &1, || lan.answering(address).len());
    eventually_equal("nothing is said any more", secs(45), &0, || agents.iter().filter(says).count());
}
