//! What no file, no other writer and no change of the Lease's holder takes away, on one real API server: two agents, of which one at
//! a time reads a file with other pools, and statuses that somebody edits.

use std::net::Ipv4Addr;

use rack::crier::Crier;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];
const NODES: [&str; 2] = ["node-1", "node-2"];
const SERVICES: [&str; 4] = ["one", "two", "three", "four"];

/// What every file has, and a pool.
fn file(range: &str) -> String {
    format!(
        "[api]\nlisten = \"\"\n[pulse]\nunauthenticated = true\n[[l2]]\ninterfaces = [\"eth0\"]\n\
         [[pool]]\nname = \"lan\"\naddresses = [\"{range}\"]\nrest = \"0s\"\n"
    )
}

const RANGE: &str = "192.168.35.140-192.168.35.149";

struct Town {
    agents: Vec<Crier>,
    metal: Metal,
}

impl Town {
    fn begin(rack: &Rack) -> Town {
        let metal = Metal::without_kube_proxy(rack, "192.168.35.0/24", 2);
        let agents = metal.agents(&file(RANGE));
        let town = Town { agents, metal };
        eventually("an agent allocates", secs(20), || town.allocating().ok_or("none does"));
        SERVICES.iter().for_each(|name| town.put(name));
        eventually("all have an address", secs(20), || {
            let seen = town.shown();
            if seen.iter().all(|it| it.len() == 1) { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        // The first use of an address begins with probes: it is answered a little later.
        eventually("all are answered", secs(10), || town.stands(&town.shown()));
        town
    }

    /// The index of the agent that allocates.
    fn allocating(&self) -> Option<usize> {
        self.agents.iter().position(|agent| agent.try_json("status").is_ok_and(|it| it["allocates"] == true))
    }

    #[track_caller]
    fn put(&self, name: &str) {
        let service = NODES.into_iter().fold(Service::new(name), Service::on);
        for object in service.slices().into_iter().chain([service.object()]) {
            self.metal.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}: {object:#}"));
        }
    }

    /// The addresses in the statuses of all Services.
    fn shown(&self) -> Vec<Vec<String>> {
        self.metal.shown(&SERVICES)
    }

    /// Every status shows what it showed, and one node answers for each address.
    fn stands(&self, before: &[Vec<String>]) -> Result<(), String> {
        self.metal.stands(&SERVICES, before)
    }

    fn answering(&self, address: &str) -> Vec<String> {
        self.metal.site.answering(address.parse::<Ipv4Addr>().expect("an IPv4 address"))
    }

    /// What the agent says of a Service in its own line.
    fn row(&self, agent: usize, name: &str) -> String {
        let status = self.agents[agent].status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let row = services.iter().find(|it| it["name"] == json!(format!("default/{name}")));
        row.and_then(|it| it["summary"].as_str()).unwrap_or_default().to_owned()
    }

    /// The agent has ended without a word, and comes back with this file.
    fn restart(&mut self, agent: usize, file: &str) {
        if self.agents[agent].process().is_running() {
            self.agents[agent].kill();
        }
        self.agents[agent] = self.metal.agent(agent, file);
    }

    fn wait_allocates(&self, agent: usize) {
        eventually(&format!("{} allocates", NODES[agent]), secs(30), || match self.allocating() {
            Some(it) if it == agent => Ok(()),
            it => Err(format!("{it:?}")),
        });
    }

    #[track_caller]
    fn wait_row(&self, agent: usize, name: &str, words: &[&str]) {
        eventually(&format!("{} says {words:?} of {name}", NODES[agent]), secs(20), || {
            let row = self.row(agent, name);
            if words.iter().all(|word| row.contains(word)) { Ok(()) } else { Err(row) }
        });
    }

    fn warnings(&self, name: &str) -> Vec<String> {
        let events = self.metal.events("Service", name).into_iter();
        events.filter(|(_, reason, _)| reason == "AddressGoes").map(|(_, _, text)| text).collect()
    }
}

fn ingress(addresses: &[&str]) -> Value {
    json!({ "loadBalancer": { "ingress": addresses.iter().map(|it| json!({ "ip": it, "ipMode": "VIP" })).collect::<Vec<_>>() } })
}

#[test]
fn a_holder_that_reads_other_pools_takes_nothing_while_another_agent_has_the_former_ones() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::begin(&rack);
    let before = town.shown();
    let holder = town.allocating().expect("it is one of them");
    let other = 1 - holder;
    let with_access = |range: &str| format!("{}{}", town.metal.access(), file(range));

    // A slip, or the first node of a rollout.
    let (small, former) = (with_access("192.168.35.100"), with_access(RANGE));
    town.agents[holder].write_configuration(&small);
    town.agents[holder].reload();
    town.wait_row(holder, "one", &["is given up", &format!("it stays while the pools of {} differ", NODES[other])]);
    throughout("nothing moves after the reload", secs(8), || town.stands(&before));
    assert!(!town.warnings("one").is_empty(), "the owner is told");
    town.put("five");
    eventually_equal("a new Service goes by the new file", secs(10), &vec!["192.168.35.100".to_owned()], || {
        town.metal.ingress("service/five")
    });
    town.agents[holder].write_configuration(&former);
    town.agents[holder].reload();
    // Now the agents agree, and the one address that no file has goes.
    eventually("what neither file has is replaced", secs(15), || match town.metal.ingress("service/five").as_slice() {
        [it] if it.starts_with("192.168.35.14") => Ok(()),
        it => Err(format!("{it:?}")),
    });
    town.stands(&before).expect("nothing else moved");

    let aside = rack.write("small.toml", &town.agents[holder].complete(&small));
    let output = town.agents[holder].verb(&format!("config apply {} --confirm 5s", aside.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    town.wait_row(holder, "one", &["is given up"]);
    throughout("nothing moves before nobody confirms, nor afterwards", secs(11), || town.stands(&before));
    eventually("the former file is back", secs(10), || match town.row(holder, "one") {
        row if row.contains("given up") => Err(row),
        _ => Ok(()),
    });

    // The other agent is dead, its Node Ready: nobody can say by which file it would decide.
    town.agents[other].kill();
    town.restart(holder, &file("192.168.35.160-192.168.35.169"));
    town.wait_allocates(holder);
    let waits = format!("the agent of {} is not heard", NODES[other]);
    town.wait_row(
        holder,
        "one",
        &["answered here", "in no pool any more", &waits, "lease crier crier.dev/agreed-digest="],
    );
    eventually("what the statuses show is answered", secs(10), || town.stands(&before));
    throughout("and stays so", secs(6), || town.stands(&before));
    // It is back with the former file, and then with the same.
    town.restart(other, &file(RANGE));
    town.wait_row(holder, "one", &[&format!("it stays while the pools of {} differ", NODES[other])]);
    throughout("two files", secs(4), || town.stands(&before));
    town.restart(other, &file("192.168.35.160-192.168.35.169"));
    eventually("the agents agree, and the addresses go", secs(30), || {
        let now = town.shown();
        let moved = now.iter().all(|it| it.len() == 1 && it[0].starts_with("192.168.35.16"));
        if moved { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let now = town.shown();
    eventually("the new ones are answered", secs(10), || town.stands(&now));
    eventually("nobody answers for the former ones", secs(10), || {
        let all: Vec<String> = before.iter().flatten().flat_map(|address| town.answering(address)).collect();
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[test]
fn what_somebody_writes_into_a_status_gives_and_takes_no_address() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::begin(&rack);
    let before = town.shown();

    // Further addresses of the pool, one of them twice.
    let own = before[1][0].as_str();
    town.metal.patch_status("service/two", &ingress(&["192.168.35.149", own, "192.168.35.148", own]));
    eventually_equal("two has the one that crier gave it", secs(15), &before, || town.shown());
    let said = town.warnings("two");
    assert!(said.iter().any(|it| it.contains("192.168.35.148") || it.contains("192.168.35.149")), "{said:?}");
    town.stands(&before).expect("it is answered");

    // One that comes first by name shows the address of another, and the holder of the Lease is another one.
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "aaa" } });
    town.metal.try_apply(&namespace).expect("a namespace");
    let mut first = Service::new("first").object();
    first["metadata"]["namespace"] = "aaa".into();
    town.metal.try_apply(&first).expect("a Service");
    let has_own = || match town.metal.ingress("service/aaa/first").as_slice() {
        [it] if before.iter().flatten().all(|other| other != it) => Ok(it.clone()),
        it => Err(format!("{it:?}")),
    };
    let own = eventually("it has an address of its own", secs(10), has_own);
    for agent in &town.agents {
        agent.kill();
    }
    town.metal.patch_status("service/aaa/first", &ingress(&[&before[0][0]]));
    town.metal.patch("lease/kube-system/crier", &json!({ "spec": { "holderIdentity": null } }));
    for agent in 0..2 {
        town.restart(agent, &file(RANGE));
    }
    eventually("it is put right", secs(30), || match town.metal.ingress("service/aaa/first").as_slice() {
        [it] if *it == own => Ok(()),
        it => Err(format!("{it:?}")),
    });
    eventually("and the others have what they had", secs(10), || town.stands(&before));
    throughout("for good", secs(5), || town.stands(&before));
    assert!(town.warnings("one").is_empty(), "{:?}", town.warnings("one"));
}

/// As [`file`], of nodes that do not hear each other: what the others read stands in the Lease alone.
fn deaf(pools: &str) -> String {
    format!(
        "[api]\nlisten = \"\"\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n[[bgp.advertisement]]\n{pools}"
    )
}

fn pool(range: &str) -> String {
    format!("[[pool]]\nname = \"lan\"\naddresses = [\"{range}\"]\nrest = \"0s\"\n")
}

#[test]
fn a_holder_that_read_a_wrong_file_takes_nothing_by_a_restart_nor_by_a_new_lease_and_one_without_a_pool_lets_go() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let agents = metal.agents(&deaf(&pool(RANGE)));
    let mut town = Town { agents, metal };
    let holder = eventually("an agent allocates", secs(20), || town.allocating().ok_or("none does"));
    let other = 1 - holder;
    SERVICES.iter().for_each(|name| town.put(name));
    let before = eventually("all have an address", secs(20), || match town.shown() {
        seen if seen.iter().all(|it| it.len() == 1) => Ok(seen),
        seen => Err(format!("{seen:?}")),
    });
    let unmoved = |town: &Town| match town.shown() {
        now if now == before => Ok(()),
        now => Err(format!("{now:?}, before {before:?}")),
    };

    // The wrong file stands in the Lease, by this agent's own hand, and nobody agreed.
    let digest = |town: &Town| {
        let lease = town.metal.get("lease/kube-system/crier");
        lease.map(|it| it["metadata"]["annotations"]["crier.dev/allocation-digest"].clone())
    };
    let agreed = digest(&town);
    let wrong = deaf(&pool("192.168.35.160-192.168.35.169"));
    town.agents[holder].write_configuration(&format!("{}{wrong}", town.metal.access()));
    town.agents[holder].reload();
    town.wait_row(holder, "one", &["is given up"]);
    eventually("the Lease says so", secs(20), || match digest(&town) {
        now if now != agreed => Ok(()),
        now => Err(format!("{now:?}")),
    });
    town.agents[holder].stop(secs(10));
    town.restart(holder, &wrong);
    eventually("an agent allocates again", secs(30), || town.allocating().ok_or("none does"));
    throughout("nothing moves after the restart", secs(12), || unmoved(&town));
    town.metal.patch("lease/kube-system/crier", &json!({ "spec": { "holderIdentity": null } }));
    throughout("nor when the Lease was taken away for a moment", secs(12), || unmoved(&town));

    // Whoever holds the Lease and has no pool any more gives it to one that has.
    let former = deaf(&pool(RANGE));
    for agent in [holder, other] {
        town.agents[agent].write_configuration(&format!("{}{former}", town.metal.access()));
        town.agents[agent].reload();
    }
    let holder = eventually("an agent allocates again", secs(30), || town.allocating().ok_or("none does"));
    town.agents[holder].write_configuration(&format!("{}{}", town.metal.access(), deaf("")));
    town.agents[holder].reload();
    town.wait_allocates(1 - holder);
    town.put("five");
    eventually("a new Service gets an address", secs(15), || match town.metal.ingress("service/five").as_slice() {
        [it] if it.starts_with("192.168.35.14") => Ok(()),
        it => Err(format!("{it:?}")),
    });
    unmoved(&town).expect("nothing else moved");
}
