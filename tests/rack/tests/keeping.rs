//! Beside a real API server: nothing is taken away by other writers of statuses, by agents with other files, or by an agent
//! without its rights; and what crier says of a Service can be waited for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rack::crier::Crier;
use rack::faults::Faults;
use rack::kubernetes::{Cluster, Proof};
use rack::{
    Deadline, Metal, Need, Rack, Service, Site, eventually, eventually_equal, millis, now, rest, secs, throughout,
};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const LAN: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.103\"]\nrest = \"0s\"\n";
const WAN: &str = "[[pool]]\nname = \"wan\"\naddresses = [\"198.18.0.0/24\"]\n";
const LINK: &str = "[[l2]]\ninterfaces = [\"eth0\"]\n";
const CONDITION: &str = "crier.dev/Allocated";

fn apply(metal: &Metal, service: &Service) {
    metal.try_apply(&service.object()).expect("the API server takes the Service");
}

fn condition(metal: &Metal, name: &str) -> Value {
    let object = metal.get(&format!("service/{name}")).expect("the Service is there");
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|it| it["type"] == CONDITION).unwrap_or_default()
}

fn version(metal: &Metal, name: &str) -> String {
    metal.get(&format!("service/{name}")).expect("the Service is there")["metadata"]["resourceVersion"].to_string()
}

#[track_caller]
fn wait_ingress(metal: &Metal, name: &str, address: &str) {
    eventually_equal(&format!("{name} has {address}"), secs(20), &vec![address.to_owned()], || {
        metal.ingress(&format!("service/{name}"))
    });
}

#[track_caller]
fn wait_problem(agent: &Crier, words: &[&str]) {
    eventually(&format!("{} names {words:?}", agent.node()), secs(20), || {
        let problems = agent.status()["problems"].to_string();
        if words.iter().all(|word| problems.contains(word)) { Ok(()) } else { Err(problems) }
    });
}

#[test]
fn kubectl_waits_for_the_condition_which_comes_with_address_and_annotation_and_is_not_rewritten() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let _agents = metal.agents(&format!("{LAN}{LINK}"));
    apply(&metal, &Service::new("web"));
    let said = metal.kubectl(&format!("wait --for=condition={CONDITION} service/web --timeout=20s"));
    assert!(said.contains("condition met"), "{said}");
    assert_eq!(metal.ingress("service/web"), ["192.168.35.100"]);
    let object = metal.get("service/web").unwrap();
    for prefix in ["crier.dev", "metallb.io"] {
        let name = format!("{prefix}/ip-allocated-from-pool");
        assert_eq!(object["metadata"]["annotations"][&name], "lan", "in the same write as the address");
    }
    let seen = condition(&metal, "web");
    assert_eq!((&seen["reason"], &seen["message"]), (&json!("Assigned"), &json!("assigned 192.168.35.100 from lan")));
    assert!(seen["lastTransitionTime"].as_str().is_some_and(|at| at.starts_with("20")), "{seen}");
    let before = version(&metal, "web");
    throughout("nothing is written again", secs(3), || match version(&metal, "web") {
        now if now == before => Ok(()),
        now => Err(format!("{before} became {now}")),
    });

    let theirs = json!({ "type": "example.com/Checked", "status": "True", "reason": "Fine", "message": "",
        "lastTransitionTime": "2026-07-01T08:00:00Z" });
    metal.patch_status("service/web", &json!({ "conditions": [theirs, seen] }));
    metal.patch("service/web", &json!({ "metadata": { "annotations": { "crier.dev/addresses": "192.168.35.102" } } }));
    wait_ingress(&metal, "web", "192.168.35.102");
    let types: Vec<Value> = metal.get("service/web").unwrap()["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|it| it["type"].clone())
        .collect();
    assert_eq!(types, ["example.com/Checked", CONDITION], "others' conditions are kept");
    let events = metal.events("Service", "web");
    let goes = events
        .iter()
        .position(|(kind, why, text)| kind == "Warning" && why == "AddressGoes" && text.contains("192.168.35.100"));
    assert!(goes.is_some(), "the loss of an address is told: {events:?}");

    metal.patch("service/web", &json!({ "spec": { "type": "ClusterIP" } }));
    eventually("a Service of another type is not spoken of any more", secs(10), || {
        let seen = (metal.ingress("service/web"), condition(&metal, "web"));
        if seen == (Vec::new(), Value::Null) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn a_controller_that_writes_other_addresses_is_left_alone_and_told_and_the_address_stays_reserved() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let agents = metal.agents(&format!("{LAN}{LINK}"));
    apply(&metal, &Service::new("web"));
    wait_ingress(&metal, "web", "192.168.35.100");
    let writes = fighting(&metal, json!([{ "ip": "192.168.35.11" }]), || {
        wait_problem(&agents[0], &["default/web", "192.168.35.11", "crier did not give"]);
        apply(&metal, &Service::new("next"));
        wait_ingress(&metal, "next", "192.168.35.101");
        rest(secs(3));
    });
    assert_eq!(writes, 1, "crier does not overwrite it");
    assert_eq!(metal.ingress("service/web"), ["192.168.35.11"]);
    let seen = condition(&metal, "web");
    assert_eq!((&seen["status"], &seen["reason"]), (&json!("False"), &json!("ForeignStatus")), "{seen}");
    let warnings = metal.events("Service", "web").into_iter().filter(|(_, why, _)| why == "StatusNotOurs").count();
    assert_eq!(warnings, 1, "told once");
    metal.patch_status("service/web", &json!({ "loadBalancer": { "ingress": null } }));
    wait_ingress(&metal, "web", "192.168.35.100");
}

#[test]
fn a_controller_that_empties_the_status_again_and_again_is_fought_only_twice() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let agents = metal.agents(&format!("{LAN}{LINK}"));
    apply(&metal, &Service::new("web"));
    wait_ingress(&metal, "web", "192.168.35.100");
    let writes = fighting(&metal, Value::Null, || {
        wait_problem(&agents[0], &["default/web", "overwrote the status twice"]);
        rest(secs(3));
    });
    assert!((2..=3).contains(&writes), "{writes} overwrites");
    let events = metal.events("Service", "web");
    assert!(events.len() <= 4, "{events:?}");
}

/// Input: two criers in one cluster, the second of a class and a Lease of its own, and both serve Services without a class.
/// Output: a Service stays with the crier that gave it its address; the other one writes nothing, and says whose it is.
#[test]
fn of_two_criers_each_serves_what_it_gave_an_address_and_leaves_the_rest() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    // The rights that are printed are for one Lease.
    metal.kubectl("create clusterrole leases --verb=get,list,watch,update --resource=leases.coordination.k8s.io");
    metal.kubectl("create clusterrolebinding leases --clusterrole=leases --user=crier");
    let other_pool = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.110-192.168.35.113\"]\n";
    let ours = || metal.agent(0, &format!("{LAN}{LINK}"));
    let first = ours();
    apply(&metal, &Service::new("one"));
    wait_ingress(&metal, "one", "192.168.35.100");
    let second = metal.agent(1, &format!("class = \"example.com/b\"\n{other_pool}{LINK}"));
    wait_problem(&second, &["default/one: another crier serves this Service", "default-class = false"]);
    first.stop(secs(10));
    drop(first);
    apply(&metal, &Service::new("two"));
    wait_ingress(&metal, "two", "192.168.35.110");
    let lease = "kube-system/crier-example.com-b";
    let said = format!("assigned 192.168.35.110 from lan; by the crier of the Lease {lease}");
    assert_eq!(condition(&metal, "two")["message"], json!(said));
    let first = ours();
    wait_problem(&first, &["default/two: another crier serves this Service, that of the Lease", lease]);
    apply(&metal, &Service::new("three"));
    eventually("it is one's", secs(20), || match metal.ingress("service/three").len() {
        1 => Ok(()),
        other => Err(format!("{other} addresses")),
    });
    rest(secs(2));
    let names = ["one", "two", "three"];
    let seen = || names.map(|name| (version(&metal, name), metal.ingress(&format!("service/{name}"))));
    let before = seen();
    throughout("nothing is written again", secs(6), || match seen() {
        now if now == before => Ok(()),
        now => Err(format!("{before:?} became {now:?}")),
    });
    assert_eq!((&before[0].1[0], &before[1].1[0]), (&"192.168.35.100".to_owned(), &"192.168.35.110".to_owned()));
    let told = metal.events("Service", "one").into_iter().filter(|(_, why, _)| why == "StatusNotOurs").count();
    assert_eq!(told, 1, "told once");
}

/// Input: the write of a status fails, and before the next try another controller has written an address of its own. Output:
/// what crier had chosen for that Service goes to the one that waits; it stayed promised for good.
#[test]
fn what_was_chosen_for_a_service_that_another_controller_took_over_is_free() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let faults = Faults::before(&metal);
    let one = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100\"]\nrest = \"0s\"\n";
    let file = format!("{}{one}{LINK}", metal.access_by(Proof::Token, faults.url()));
    let node = &metal.site.nodes[0];
    let agent = node.crier(node.name(), &file);
    agent.wait_ready(secs(20));
    eventually("it allocates", secs(20), || (agent.status()["allocates"] == true).then_some(()).ok_or("not yet"));
    let refused = faults.answer(503, "PATCH services/web/status", 1000);
    apply(&metal, &Service::new("web"));
    eventually("it was tried", secs(20), || (refused.count() < 1000).then_some(()).ok_or("not yet"));
    apply(&metal, &Service::new("next"));
    eventually_equal("nothing is free", secs(20), &json!("NoFreeAddress"), || {
        condition(&metal, "next")["reason"].clone()
    });
    let theirs = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7", "ipMode": "VIP" }] } });
    metal.patch_status("service/web", &theirs);
    faults.behave();
    wait_ingress(&metal, "next", "192.168.35.100");
    assert_eq!(metal.ingress("service/web"), ["203.0.113.7"]);
}

/// What the other controller does while `meanwhile` runs: whenever the status is not `wanted`, it writes that. Returns how
/// often it wrote.
fn fighting(metal: &Metal, wanted: Value, meanwhile: impl FnOnce()) -> usize {
    let (over, writes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let seen = metal.get("service/web").expect("the Service is there")["status"]["loadBalancer"]["ingress"]
                    .clone();
                if seen[0]["ip"] != wanted[0]["ip"] {
                    metal.patch_status("service/web", &json!({ "loadBalancer": { "ingress": wanted } }));
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                rest(millis(100));
            }
        });
        meanwhile();
        over.store(true, Ordering::Relaxed);
    });
    writes.into_inner()
}

#[test]
fn an_agent_with_an_old_file_that_comes_to_lead_takes_nothing_away_and_all_say_whose_file_differs() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 4);
    let access = metal.access();
    let start = |node: usize, file: &str| {
        let node = metal.site.node(node);
        let agent = node.crier(node.name(), &format!("{access}{file}"));
        agent.wait_ready(secs(20));
        agent
    };
    let (new, old) = (format!("{WAN}{LAN}{LINK}"), format!("{LAN}{LINK}"));
    let first = start(0, &new);
    eventually(
        "the first allocates",
        secs(10),
        || if first.status()["allocates"] == true { Ok(()) } else { Err("no") },
    );
    let second = start(1, &new);
    let stale = start(2, &old);
    let empty = start(3, LINK);
    let services = ["a", "b", "c"];
    let kept: Vec<Vec<String>> = services
        .iter()
        .map(|name| {
            apply(&metal, &Service::new(name));
            eventually("an address of the new pool", secs(10), || match metal.ingress(&format!("service/{name}")) {
                it if it.len() == 1 && it[0].starts_with("198.18.") => Ok(it),
                it => Err(it.join(", ")),
            })
        })
        .collect();
    wait_problem(&stale, &["the pools of this node differ from those of node-1"]);
    wait_problem(&empty, &["no [[pool]]"]);
    let stands = || {
        let seen: Vec<Vec<String>> = services.iter().map(|name| metal.ingress(&format!("service/{name}"))).collect();
        if seen == kept { Ok(()) } else { Err(format!("{seen:?}")) }
    };

    // The agent with the same file goes first, whoever else is there.
    first.kill();
    eventually(
        "the second allocates",
        secs(15),
        || if second.status()["allocates"] == true { Ok(()) } else { Err("no") },
    );
    stands().expect("nothing changed");
    second.kill();
    eventually("the stale one allocates at last", secs(20), || {
        stands()?;
        if stale.status()["allocates"] == true { Ok(()) } else { Err("no".to_owned()) }
    });
    throughout("it takes nothing away that its file lacks", secs(8), stands);
    apply(&metal, &Service::new("d"));
    wait_ingress(&metal, "d", "192.168.35.100");
    let told = metal.events("Service", "a");
    assert!(told.iter().any(|(kind, why, _)| kind == "Warning" && why == "AddressGoes"), "{told:?}");

    let back = start(0, &new);
    wait_problem(&back, &["the pools of this node differ from those of node-3", "does not allocate"]);
    throughout("who comes back does not fight for the Lease", secs(2), || {
        stands()?;
        if back.status()["allocates"] == false { Ok(()) } else { Err("it allocates".to_owned()) }
    });
    let _ = stale.stop(secs(10));
    eventually("the new file leads again", secs(15), || {
        if back.status()["allocates"] == true { Ok(()) } else { Err("no") }
    });
    throughout("and nothing moved", secs(3), stands);
    assert_eq!(empty.status()["allocates"], false, "an agent without a pool never allocates");
}

/// B3 of issue 12. Input: more Services wait for an address than Events may be written at once; for twenty seconds Services
/// with an address go and come again; the one that allocates loses its Lease, which nobody can renew for eight seconds, and gets it back;
/// it stops. Output: no more Events than the budget has, however many were due, and none because of the Lease.
#[test]
fn many_waiting_services_cost_few_events_whatever_is_freed_and_whoever_leads() {
    const WAITING: usize = 250;
    /// Of warnings and of others each: at once, and for each second.
    const BUDGET: (u64, u64) = (200, 2);
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let faults = Faults::before(&metal);
    let file = format!("{}{LAN}{LINK}", metal.access_by(Proof::Token, faults.url()));
    let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &file)).collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    let began = now();
    for number in 0..4 {
        apply(&metal, &Service::new(&format!("first-{number}")));
    }
    wait_ingress(&metal, "first-3", "192.168.35.103");
    let name = |number: usize| format!("waiting-{number:03}");
    (0..WAITING).for_each(|number| apply(&metal, &Service::new(&name(number))));
    let services = || metal.list("service", "").into_iter().filter(|it| it["spec"]["type"] == "LoadBalancer");
    eventually("all that wait were told by their conditions", secs(60), || {
        let waits = |it: &Value| {
            it["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it["type"] == CONDITION && it["status"] == "False"))
        };
        let told = services().filter(waits).count();
        if told == WAITING { Ok(()) } else { Err(told) }
    });
    let count = |kind: &str| -> u64 {
        let of_crier = |event: &&Value| event["reportingComponent"] == "crier" && event["type"] == kind;
        metal.list("event", "").iter().filter(of_crier).count().try_into().expect("few")
    };
    let within_budget = |kind: &str| {
        let written = count(kind);
        let most = BUDGET.0 + BUDGET.1 * (began.elapsed().as_secs() + 1);
        assert!(written <= most, "{written} Events ({kind}) after {:?}", began.elapsed());
        written
    };
    // What makes the sum mean something: without a budget there would be more.
    eventually("the budget of warnings is used up", secs(20), || match count("Warning") {
        written if written >= BUDGET.0 => Ok(()),
        written => Err(written),
    });

    // Each that goes lets another one have its address, and is one more that waits.
    let until = Deadline::after(secs(20));
    let mut made = 0;
    while !until.has_passed() {
        let holds = |it: &Value| it["status"]["loadBalancer"]["ingress"][0]["ip"].is_string();
        for held in services().filter(holds) {
            let gone = held["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            metal.delete(&format!("service/{gone}"));
            apply(&metal, &Service::new(&format!("again-{made:04}")));
            made += 1;
        }
        within_budget("Warning");
        within_budget("Normal");
    }
    println!("{made} came and went: {} warnings, {} others", count("Warning"), count("Normal"));
    assert!(made > 40, "{made} came and went");
    eventually("the freed addresses are given", secs(20), || {
        let given = services().filter(|it| it["status"]["loadBalancer"]["ingress"][0]["ip"].is_string()).count();
        if given == 4 { Ok(()) } else { Err(given) }
    });

    let allocating = || agents.iter().find(|agent| agent.try_json("status").is_ok_and(|it| it["allocates"] == true));
    // What is due by the budget of before has been written then.
    let settled = eventually("no Event comes any more", secs(30), || {
        let before = (count("Warning"), count("Normal"));
        rest(secs(2));
        let after = (count("Warning"), count("Normal"));
        if after == before { Ok(after) } else { Err(format!("{before:?} became {after:?}")) }
    });
    let left = faults.answer(500, "/leases/", usize::MAX);
    eventually("nobody allocates", secs(15), || if allocating().is_none() { Ok(()) } else { Err("somebody does") });
    throughout("nor does anybody", secs(3), || if allocating().is_none() { Ok(()) } else { Err("somebody does") });
    assert!(left.count() < usize::MAX - 3, "the Lease was asked for");
    faults.behave();
    let leader = eventually("somebody allocates again", secs(20), || allocating().ok_or("nobody"));
    rest(secs(3));
    assert_eq!((count("Warning"), count("Normal")), settled, "nothing of it is told");
    let other = agents.iter().find(|agent| agent.node() != leader.node()).expect("there are two");
    let _ = leader.stop(secs(10));
    eventually(
        "the other allocates",
        secs(15),
        || if other.status()["allocates"] == true { Ok(()) } else { Err("no") },
    );
    rest(secs(3));
    assert_eq!((count("Warning"), count("Normal")), settled, "nor by another holder");
}

#[test]
fn an_agent_that_may_not_have_the_lease_says_so() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    cluster.allow_crier(&json!([
        { "apiGroups": [""], "resources": ["services", "nodes", "namespaces"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"] },
    ]));
    let metal = Metal { cluster, site, proxies: Vec::new() };
    let access = metal.access_by(Proof::Token, &metal.url());
    let node = metal.site.node(0);
    let agent = node.crier(node.name(), &format!("{access}{LAN}{LINK}"));
    agent.wait_ready(secs(20));
    wait_problem(&agent, &["the Lease kube-system/crier", "403", "crier rbac"]);
    assert_eq!(agent.verb("status").status.code(), Some(1));
}

#[test]
fn a_drain_is_shown_on_the_node_and_a_right_that_is_missing_is_told_and_holds_nothing_up() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let agents = metal.agents(&format!("{LAN}[drain]\nfollow-cordon = true\ntimeout = \"1s\"\n"));
    let (agent, name) = (&agents[0], agents[0].node().to_owned());
    agent.wait_ready(secs(20));
    let shown = || {
        let node = metal.get(&format!("node/{name}")).expect("the Node is there");
        node["metadata"]["annotations"]["crier.dev/drain"].as_str().unwrap_or_default().to_owned()
    };
    metal.kubectl(&format!("cordon {name}"));
    eventually("the Node shows that it is drained", secs(20), || {
        let shown = shown();
        if shown.starts_with("drained, since 2") && shown.ends_with("Z: the Node is cordoned") {
            Ok(())
        } else {
            Err(shown)
        }
    });
    let since = agent.status()["drain"]["since"].as_str().unwrap_or("no time").to_owned();
    assert!(shown().contains(&since[..19]), "{} is not since {since}", shown());
    metal.kubectl(&format!("uncordon {name}"));
    eventually_equal("the Node shows nothing any more", secs(20), &String::new(), shown);
    eventually_equal("it takes part again", secs(5), &Value::Null, || agent.status()["drain"].clone());

    metal.cluster.allow_crier(&json!([
        { "apiGroups": [""], "resources": ["services", "nodes", "namespaces"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"] },
    ]));
    // Until the API server goes by it.
    rest(secs(2));
    metal.kubectl(&format!("cordon {name}"));
    wait_problem(agent, &["forbids to patch nodes/status of", "crier rbac"]);
    eventually_equal("it is drained all the same", secs(20), &json!("drained"), || {
        agent.status()["drain"]["stage"].clone()
    });
    assert_eq!(shown(), "");
}
