//! `[kubernetes] config`: pools and advertisements from a ConfigMap, against a real API server. A bad text never takes the place of
//! a good one, and an agent starts with the last good one where the API server is away.

use std::net::{IpAddr, Ipv4Addr};

use rack::crier::Crier;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, rest, secs};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const CLUSTER: &str = r#"
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110"]
[[l2]]
pools = ["lan"]
interfaces = ["eth0"]
"#;

fn config_map(text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "crier", "namespace": "kube-system" },
        "data": { "crier.toml": text, "README": "only what ends in .toml is read" },
    })
}

fn host(metal: &Metal) -> String {
    format!("{}config = \"kube-system/crier\"\n[api]\nlisten = \"\"\n[pulse]\nunauthenticated = true\n", metal.access())
}

fn start(metal: &Metal, node: usize) -> Crier {
    let node = metal.site.node(node);
    node.crier(node.name(), &host(metal))
}

fn service(name: &str) -> Value {
    Service::new(name).selects("web").ports(&[(80, 8080)]).object()
}

/// The problem of the status that names the ConfigMap; empty where there is none.
fn problem(agent: &Crier) -> String {
    let problems = agent.status()["problems"].as_array().cloned().unwrap_or_default();
    let mut texts = problems.iter().filter_map(|it| it.as_str()).filter(|it| it.contains("ConfigMap"));
    texts.next().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_problem(agent: &Crier, words: &[&str]) {
    eventually(&format!("the status of {} says {words:?}", agent.node()), secs(10), || {
        let problem = problem(agent);
        if words.iter().all(|word| problem.contains(word)) { Ok(()) } else { Err(problem) }
    });
}

#[track_caller]
fn answered(metal: &Metal, address: [u8; 4]) {
    let address = Ipv4Addr::from(address);
    eventually(&format!("one node answers for {address}"), secs(15), || {
        let nodes = metal.site.answering(address);
        if nodes.len() == 1 { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    eventually(&format!("http://{address}/"), secs(20), || {
        metal.site.client.get((IpAddr::from(address), 80)).map_err(|error| error.to_string())
    });
}

#[test]
fn the_cluster_goes_by_its_config_map_whatever_is_written_into_it() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    metal.try_apply(&config_map(CLUSTER)).expect("the API server takes the ConfigMap");
    let mut agents: Vec<Crier> = (0..2).map(|node| start(&metal, node)).collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    metal.try_apply(&service("web")).expect("the API server takes the Service");
    eventually_equal("an address of the ConfigMap's pool", secs(10), &vec!["192.168.35.100".to_owned()], || {
        metal.ingress("service/web")
    });
    answered(&metal, [192, 168, 35, 100]);
    agents.iter().for_each(|agent| assert_eq!(problem(agent), ""));
    let same = rack.write("same.toml", &host(&metal));
    let output = agents[0].verb(&format!("plan {}", same.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing would change"), "the file of the host with the ConfigMap's text: {said}");

    // A mistake, and what no ConfigMap may say: refused by all, with its place, and nothing moves.
    for (text, words) in [
        (
            format!("{CLUSTER}\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n"),
            ["configmap/kube-system/crier/crier.toml:", "refused"],
        ),
        (format!("{CLUSTER}\n[log]\nlevel = \"debug\"\n"), ["a matter of each host", "the last good one stays in use"]),
        (String::from("[[pool"), ["configmap/kube-system/crier/crier.toml:", "refused"]),
    ] {
        metal.try_apply(&config_map(&text)).expect("the API server takes any text");
        agents.iter().for_each(|agent| wait_problem(agent, &words));
    }
    // A mistyped key.
    let mut mistyped = config_map(CLUSTER);
    mistyped["data"] = json!({ "crier.tml": CLUSTER });
    metal.delete("configmap/kube-system/crier");
    metal.try_apply(&mistyped).expect("the API server takes the ConfigMap");
    let words = ["no key that ends in .toml", "the last good one stays in use"];
    agents.iter().for_each(|agent| wait_problem(agent, &words));
    rest(secs(1));
    assert_eq!(metal.ingress("service/web"), ["192.168.35.100"]);
    // A file that is no text beside a good one: what it would say is lost, so none of it counts.
    let mut binary = config_map(&CLUSTER.replace("100-192.168.35.110", "120"));
    binary["binaryData"] = json!({ "a.toml": "//4A" });
    metal.delete("configmap/kube-system/crier");
    metal.try_apply(&binary).expect("the API server takes the ConfigMap");
    let no_text = ["its key a.toml is no text", "binaryData", "the last good one stays in use"];
    agents.iter().for_each(|agent| wait_problem(agent, &no_text));
    rest(secs(1));
    assert_eq!(metal.ingress("service/web"), ["192.168.35.100"]);
    // A file that came out empty.
    for text in ["", "# nothing\n\n"] {
        metal.delete("configmap/kube-system/crier");
        agents.iter().for_each(|agent| wait_problem(agent, &["there is no ConfigMap kube-system/crier"]));
        metal.try_apply(&config_map(text)).expect("the API server takes any text");
        agents.iter().for_each(|agent| wait_problem(agent, &words));
        answered(&metal, [192, 168, 35, 100]);
    }
    // An agent that starts meanwhile goes by the last good one.
    assert!(agents.remove(0).stop(secs(10)).success());
    agents.insert(0, start(&metal, 0));
    agents[0].wait_ready(secs(20));
    wait_problem(&agents[0], &["refused", "the last good one stays in use"]);
    answered(&metal, [192, 168, 35, 100]);

    // Deleted: what was in use stays, across a restart too.
    metal.delete("configmap/kube-system/crier");
    agents.iter().for_each(|agent| wait_problem(agent, &["there is no ConfigMap kube-system/crier"]));
    assert!(agents.remove(1).stop(secs(10)).success());
    agents.push(start(&metal, 1));
    agents[1].wait_ready(secs(20));
    answered(&metal, [192, 168, 35, 100]);

    // A good one again, with more: taken over at once by all.
    let announced = CLUSTER.replace("pools = [\"lan\"]", "pools = [\"lan\", \"more\"]");
    let more = format!("{announced}\n[[pool]]\nname = \"more\"\naddresses = [\"192.168.35.120\"]\npriority = 1\n");
    metal.try_apply(&config_map(&more)).expect("the API server takes the ConfigMap");
    agents.iter().for_each(|agent| eventually_equal("no problem", secs(10), &String::new(), || problem(agent)));
    metal.try_apply(&service("next")).expect("the API server takes the Service");
    eventually_equal("an address of the new pool", secs(15), &vec!["192.168.35.120".to_owned()], || {
        metal.ingress("service/next")
    });
    answered(&metal, [192, 168, 35, 120]);
    answered(&metal, [192, 168, 35, 100]);

    // What a file of the host hindered is taken over once the host is mended, without another word to the ConfigMap.
    let key = rack.folder().join("tor.md5");
    let with_peer = format!(
        "{more}\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\npassword-file = \"{}\"\n",
        key.display()
    );
    metal.try_apply(&config_map(&with_peer)).expect("the API server takes the ConfigMap");
    agents.iter().for_each(|agent| wait_problem(agent, &["refused", "tor.md5 cannot be read"]));
    rack.write("tor.md5", "hunter");
    agents.iter().for_each(|agent| {
        eventually("the refused text is taken over", secs(25), || match problem(agent) {
            problem if problem.contains("refused") => Err(problem),
            _ => Ok(()),
        });
        assert!(agent.status()["peers"].to_string().contains("tor"));
    });

    // The API server is away: an agent starts with what it kept.
    metal.stop_api_server();
    agents.remove(0).kill();
    let agent = start(&metal, 0);
    agent.wait_ready(secs(40));
    answered(&metal, [192, 168, 35, 100]);
    wait_problem(&agent, &["is not seen", "the last good one stays in use"]);
}

#[test]
fn an_agent_that_never_saw_the_config_map_says_so_and_does_not_start_on_less_than_the_others_have() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    metal.stop_api_server();
    let agent = start(&metal, 0);
    let line = agent.process().wait_for_log("the ConfigMap kube-system/crier", secs(30));
    assert!(line.contains("none is kept from before"), "{line}");
    eventually("it ends", secs(10), || if agent.is_ready() { Err("it is ready") } else { Ok(()) });
}
