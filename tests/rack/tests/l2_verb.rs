//! `crier l2` and the metrics of the link on a real link: whose address it was, who has it now, and why it moved.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use rack::crier::Crier;
use rack::lan::Lan;
use rack::{Need, Rack, eventually, eventually_equal, millis, secs};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn text(agent: &Crier, words: &str) -> String {
    let output = agent.verb(words);
    assert!(output.status.success(), "crier {words}: {}: {}", output.status, lossy(&output.stderr));
    lossy(&output.stdout)
}

/// What the agent says of the address.
fn told(agent: &Crier) -> Value {
    agent.json(&format!("l2 {ADDRESS}"))["addresses"][0].clone()
}

/// The value of a series, as it is written.
fn metric(agent: &Crier, series: &str) -> Option<String> {
    let mut socket = UnixStream::connect(agent.socket()).expect("the agent answers");
    let request = "GET /metrics HTTP/1.1\r\nhost: crier\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    answer.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
}

/// The one agent that says to answer for the address; the others name it too.
fn owner(agents: &[Crier]) -> String {
    eventually("all agents name the same owner, and it answers", secs(20), || {
        let said: Vec<Value> = agents.iter().map(told).collect();
        let owner = said[0]["owner"].as_str().unwrap_or_default().to_owned();
        let announced = |name: &str| {
            let place = agents.iter().position(|agent| agent.node() == name);
            place.is_some_and(|place| said[place]["announced"] == true)
        };
        let alike = said.iter().all(|it| it["owner"] == owner.as_str());
        if alike && announced(&owner) { Ok(owner) } else { Err(format!("{said:?}")) }
    })
}

/// Takes the agent of a node out of the list.
fn take(agents: &mut Vec<Crier>, node: &str) -> Crier {
    let place = agents.iter().position(|agent| agent.node() == node).expect("it is one of the agents");
    agents.remove(place)
}

#[test]
fn the_new_owner_says_from_whom_it_has_the_address_and_why() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_pages(&rack, 3);
    lan.service("web", "192.168.35.100");
    let site = &lan.site;
    let mut agents = lan.agents();
    for agent in &agents {
        eventually_equal(&format!("{} ranks all three", agent.node()), secs(20), &3, || {
            let nodes = told(agent)["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().filter(|node| node["rank"].is_number()).count()
        });
    }
    let first = owner(&agents);
    let ranks: Vec<Value> = agents.iter().map(|agent| told(agent)["nodes"].clone()).collect();
    assert!(ranks.iter().all(|it| *it == ranks[0]), "every agent ranks alike: {ranks:?}");
    assert_eq!(ranks[0][0]["node"], first.as_str(), "and the first of them has it");
    let second = ranks[0][1]["node"].as_str().expect("a name").to_owned();
    let third = ranks[0][2]["node"].as_str().expect("a name").to_owned();
    let heir = || agents.iter().find(|agent| agent.node() == second).expect("it is one of the agents");
    assert_eq!(metric(heir(), "crier_l2_moves_total{cause=\"owner-silent\",direction=\"in\"}").as_deref(), Some("0"));

    // Who is to answer has asked the link first, and says that it holds the address then.
    eventually_equal("the heir hears that the owner holds an address", secs(20), &true, || {
        let members = heir().status()["pulse"]["links"][0]["members"].as_array().cloned().unwrap_or_default();
        members.iter().any(|member| member["node"] == first.as_str() && member["owner"] == true)
    });

    // The owner dies without a word, and its kernel goes on to answer for the address that is bound there.
    take(&mut agents, &first).kill();
    let heir = agents.iter().find(|agent| agent.node() == second).expect("it is one of the agents");
    let dead = site.nodes.iter().find(|node| node.name() == first).expect("it is a node");
    let in_the_way = eventually("the next in rank says who is in its way", secs(20), || {
        let now = told(heir);
        let lasts = now["last_conflict"]["kind"] == "alive-unheard" && now["last_conflict"]["over"].is_null();
        if lasts && now["announced"] == false { Ok(now["last_conflict"].clone()) } else { Err(now.to_string()) }
    });
    assert_eq!(in_the_way["mac"], dead.port.mac().to_string());
    let begun = metric(heir, "crier_l2_conflicts_total{interface=\"eth0\",kind=\"alive-unheard\"}");
    assert_eq!(begun.as_deref(), Some("1"));
    dead.ip("address del 192.168.35.100/32 dev lo");
    assert_eq!(owner(&agents), second);
    let now = told(heir);
    assert!(now["last_conflict"]["over"].is_string(), "it is remembered, and over: {now}");
    let last = &now["last_move"];
    assert_eq!((&last["from"], &last["to"], &last["cause"]), (&json!(first), &json!(second), &json!("owner-silent")));
    let silent = last["silent_millis"].as_u64().expect("it was silent for so long");
    assert!(silent >= 300, "no owner is given up before its time: {silent} ms");
    assert_eq!(now["since_is_exact"], true);
    assert_eq!((&now["interfaces"], &now["services"]), (&json!(["eth0"]), &json!(["default/web"])));
    let node = site.nodes.iter().find(|node| node.name() == second).expect("it is a node");
    assert_eq!(now["owner_macs"], json!([node.port.mac().to_string()]));
    let ranked: Vec<_> = now["nodes"].as_array().expect("a list").iter().map(|it| (&it["node"], &it["rank"])).collect();
    let nothing = Value::Null;
    assert_eq!(ranked, [(&json!(second), &json!(1)), (&json!(third), &json!(2)), (&json!(first), &nothing)]);
    assert_eq!(now["nodes"][2]["reason"]["code"], "node-silent");

    let shown = text(heir, &format!("l2 {ADDRESS}"));
    for part in [
        format!("owner          {second}, this node, {}", node.port.mac()),
        "answered here  on eth0".to_owned(),
        format!("last move      from {first} to {second}"),
        format!("owner-silent: the previous owner stopped responding: no pulse for {silent} ms"),
        "the node is not alive: its pulses stopped".to_owned(),
    ] {
        assert!(shown.contains(&part), "\"{part}\" is not in\n{shown}");
    }
    println!("{}\n{shown}", text(heir, "l2"));

    let moved = |agent: &Crier, cause: &str, direction: &str| {
        metric(agent, &format!("crier_l2_moves_total{{cause=\"{cause}\",direction=\"{direction}\"}}"))
    };
    assert_eq!(moved(heir, "owner-silent", "in").as_deref(), Some("1"));
    assert_eq!(metric(heir, "crier_pulse_detection_seconds_count{interface=\"eth0\"}").as_deref(), Some("1"));
    let gratuitous = metric(heir, "crier_l2_gratuitous_total{interface=\"eth0\",protocol=\"arp\"}");
    assert!(gratuitous.as_deref().is_some_and(|count| count != "0"), "{gratuitous:?}");
    let answers = || metric(heir, "crier_l2_answers_total{interface=\"eth0\",protocol=\"arp\"}");
    let before = answers();
    site.client.who_has("eth0", ADDRESS, millis(200));
    eventually("the answer to a question is counted", secs(5), || {
        let now = answers();
        if now.is_some() && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    });

    // And the next one leaves with a word.
    take(&mut agents, &second).stop(secs(10));
    assert_eq!(owner(&agents), third);
    let last = told(&agents[0])["last_move"].clone();
    assert_eq!((&last["from"], &last["to"], &last["cause"]), (&json!(second), &json!(third), &json!("node-left")));
    assert_eq!(moved(&agents[0], "node-left", "in").as_deref(), Some("1"));
    assert_eq!(moved(&agents[0], "owner-silent", "elsewhere").as_deref(), Some("1"), "the move before was another's");

    let unknown = agents[0].verb("l2 192.168.35.109");
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(lossy(&unknown.stderr).contains("no Service has the address 192.168.35.109"), "{unknown:?}");
}
