//! `crier renumber` and `crier move` against a real API server: a Service gets another address, or its address another node, and a
//! client loses no request by that. And what announcing by Service and by endpoint does on a real link.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rack::crier::Crier;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, rest, secs};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const LAN: &str = r#"
[api]
listen = ""
metallb-metrics = true
[pulse]
unauthenticated = true
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110"]
rest = "0s"
[[l2]]
interfaces = ["eth0"]
service-selector = "expose!=no"
prefer-endpoints = true
"#;

fn service(name: &str) -> Value {
    Service::new(name).selects("web").ports(&[(80, 8080)]).object()
}

/// Exit code, and what was printed.
fn verb(agent: &Crier, words: &str) -> (Option<i32>, String) {
    let output = agent.verb(words);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn addresses(last: &[u8]) -> Vec<String> {
    last.iter().map(|last| format!("192.168.35.{last}")).collect()
}

fn annotation(metal: &Metal, name: &str) -> Option<String> {
    let object = metal.get(&format!("service/{name}")).expect("the Service is there");
    object["metadata"]["annotations"]["crier.dev/renumber"].as_str().map(str::to_owned)
}

/// The only node that answers for the address.
fn owner(metal: &Metal, address: &str) -> Result<String, String> {
    let mut nodes = metal.site.answering(address.parse().expect("an IPv4 address"));
    if nodes.len() == 1 { Ok(nodes.remove(0)) } else { Err(format!("{address}: {nodes:?}")) }
}

#[test]
fn a_renumbered_service_has_both_addresses_for_the_overlap_and_the_new_one_afterwards() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    let agents = metal.agents(LAN);
    metal.try_apply(&service("web")).expect("the API server takes the Service");
    eventually_equal("its first address", secs(10), &addresses(&[100]), || metal.ingress("service/web"));
    let (old, new): (Ipv4Addr, Ipv4Addr) = ([192, 168, 35, 100].into(), [192, 168, 35, 101].into());
    eventually("the first page", secs(20), || {
        metal.site.client.get((IpAddr::from(old), 80)).map_err(|it| it.to_string())
    });

    for (words, expected) in [
        ("renumber web", "write namespace and name"),
        ("renumber default/nothing", "there is no Service default/nothing"),
        ("renumber default/web --overlap 40d", "40d"),
    ] {
        let (code, text) = verb(&agents[0], words);
        assert_eq!(code, Some(2), "{words}: {text}");
        assert!(text.contains(expected), "{words}: {text}");
    }

    // Whoever is asked: one of the two does not allocate.
    let asking = metal.site.client.ask_steadily((IpAddr::from(old), 80), Duration::from_millis(20));
    let other = agents.iter().find(|agent| agent.status()["allocates"] == false).expect("one does not allocate");
    let ordered = rack::now();
    let (code, text) = verb(other, "renumber default/web --overlap 6s");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("default/web: another address is ordered, and given as soon as one is free; 192.168.35.100 stays beside it for 6s"), "{text}");
    assert_eq!(annotation(&metal, "web").as_deref(), Some("192.168.35.100 for 6s"));
    eventually_equal("both addresses", secs(5), &addresses(&[100, 101]), || metal.ingress("service/web"));
    eventually("the new address is answered", secs(5), || {
        metal.site.client.get((IpAddr::from(new), 80)).map_err(|it| it.to_string())
    });
    let (code, text) = verb(other, "renumber default/web");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("default/web is being renumbered: 192.168.35.100 for 6s"), "{text}");
    // Until shortly before the overlap is over.
    rest(secs(5).saturating_sub(ordered.elapsed()));
    assert_eq!(metal.ingress("service/web"), addresses(&[100, 101]));
    let outcomes = asking.stop();
    assert!(outcomes.lost() == 0 && outcomes.longest_gap() < Duration::from_millis(300), "of the old one: {outcomes}");

    eventually_equal("the new address alone", secs(5), &addresses(&[101]), || metal.ingress("service/web"));
    assert!(ordered.elapsed() >= secs(6), "after {:?}", ordered.elapsed());
    eventually_equal("the annotation is gone", secs(5), &None, || annotation(&metal, "web"));
    eventually_equal("nobody answers for the old one", secs(5), &Vec::<String>::new(), || metal.site.answering(old));
    metal.site.client.get((IpAddr::from(new), 80)).expect("the new one is answered");
    let told = metal.events("Service", "web");
    assert!(told.iter().any(|(kind, reason, _)| kind == "Warning" && reason == "AddressGoes"), "{told:?}");
}

/// Input: within the overlap the old address leaves the files, first that of the agent that allocates. Output: no request
/// to it is lost before the overlap is over, and then it goes.
#[test]
fn the_old_address_serves_its_overlap_after_it_has_left_the_files() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    let mut agents = metal.agents(LAN);
    metal.try_apply(&service("web")).expect("the API server takes the Service");
    eventually_equal("its first address", secs(10), &addresses(&[100]), || metal.ingress("service/web"));
    let old: Ipv4Addr = [192, 168, 35, 100].into();
    eventually("the first page", secs(20), || {
        metal.site.client.get((IpAddr::from(old), 80)).map_err(|it| it.to_string())
    });
    agents.sort_by_key(|agent| agent.status()["allocates"] != true);
    let asking = metal.site.client.ask_steadily((IpAddr::from(old), 80), Duration::from_millis(20));
    let ordered = rack::now();
    let (code, text) = verb(&agents[0], "renumber default/web --overlap 12s");
    assert_eq!(code, Some(0), "{text}");
    eventually_equal("both addresses", secs(5), &addresses(&[100, 101]), || metal.ingress("service/web"));
    let without = LAN.replace("192.168.35.100-", "192.168.35.101-");
    for agent in &agents {
        agent.write_configuration(&format!("{}{without}", metal.access()));
        agent.reload();
    }
    rest(secs(10).saturating_sub(ordered.elapsed()));
    let outcomes = asking.stop();
    assert!(outcomes.lost() == 0 && outcomes.longest_gap() < Duration::from_millis(300), "of the old one: {outcomes}");
    assert_eq!(metal.ingress("service/web"), addresses(&[100, 101]));
    for agent in &agents {
        let problems = agent.status()["problems"].to_string();
        assert!(!problems.contains("default/web"), "{problems}");
    }
    eventually_equal("the new address alone", secs(8), &addresses(&[101]), || metal.ingress("service/web"));
    assert!(ordered.elapsed() >= secs(12), "after {:?}", ordered.elapsed());
    eventually_equal("the annotation is gone", secs(5), &None, || annotation(&metal, "web"));
    eventually_equal("nobody answers for the old one", secs(5), &Vec::<String>::new(), || metal.site.answering(old));
}

#[test]
fn a_service_follows_the_prefix_of_its_link_with_both_addresses_for_a_while() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    let by_prefix = "addresses = [\"::100-::10f\"]\nprefix-of = \"eth0\"";
    let lan = LAN.replace("addresses = [\"192.168.35.100-192.168.35.110\"]", by_prefix);
    let agents = metal.agents(&lan);
    let web = Service::new("web").selects("web").ports(&[(80, 8080)]).families(&["IPv6"]).object();
    metal.try_apply(&web).expect("the API server takes the Service");
    let old = "fd35::100";
    eventually_equal("an address below the prefix", secs(10), &vec![old.to_owned()], || metal.ingress("service/web"));
    let first_page = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        metal.site.client.get((address, 80)).map_err(|it| it.to_string())
    };
    eventually("it is answered", secs(20), || first_page(old));

    // As router advertisements renumber a link (RFC 4862): the new prefix comes, and the old one is deprecated.
    for (index, node) in metal.site.nodes.iter().enumerate() {
        let own = node.ip("-6 -o addr show dev eth0 scope global");
        let own = own.split_whitespace().find(|word| word.starts_with("fd35:")).expect("its address").to_owned();
        node.ip(&format!("addr add 2001:db8:35::{}/64 dev eth0 nodad", index + 11));
        node.ip(&format!("addr change {own} dev eth0 preferred_lft 0"));
    }
    metal.site.client.ip("addr add 2001:db8:35::99/64 dev eth0 nodad");
    let new = "2001:db8:35::100";
    let both = [old.to_owned(), new.to_owned()].to_vec();
    eventually_equal("both addresses", secs(10), &both, || metal.ingress("service/web"));
    eventually("the new one is answered", secs(20), || first_page(new));
    first_page(old).expect("and the old one still is");
    assert_eq!(agents[0].status()["pools"][0]["addresses"], json!(["2001:db8:35::100-2001:db8:35::10f"]));

    // A provider that changes its prefix again and again fills no status: of the former ones two stay, and the oldest goes before its ten
    // minutes are over.
    for number in [36, 37] {
        for (index, node) in metal.site.nodes.iter().enumerate() {
            node.ip(&format!("addr add 2001:db8:{number}::{}/64 dev eth0 nodad", index + 11));
            node.ip(&format!("addr change 2001:db8:{}::{}/64 dev eth0 preferred_lft 0", number - 1, index + 11));
        }
        metal.site.client.ip(&format!("addr add 2001:db8:{number}::99/64 dev eth0 nodad"));
        let next = format!("2001:db8:{number}::100");
        eventually("an address below the next prefix", secs(15), || match metal.ingress("service/web") {
            shown if shown.contains(&next) => Ok(()),
            shown => Err(format!("{shown:?}")),
        });
        eventually("it is answered", secs(20), || first_page(&next));
    }
    let last = [35, 36, 37].map(|number| format!("2001:db8:{number}::100")).to_vec();
    eventually_equal("the oldest has gone", secs(10), &last, || metal.ingress("service/web"));
    eventually("and is answered no more", secs(20), || match first_page(old) {
        Ok(_) => Err("it is"),
        Err(_) => Ok(()),
    });
    first_page(&last[0]).expect("what stays is answered");
}

#[test]
fn an_address_moves_to_the_chosen_node_without_a_gap_and_comes_back_to_it_after_a_restart() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let _pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
    let lan = LAN.replace("prefer-endpoints = true\n", "");
    let mut agents = metal.agents(&lan);
    metal.try_apply(&service("web")).expect("the API server takes the Service");
    let address = "192.168.35.100";
    let ip: IpAddr = address.parse().expect("an address");
    eventually("the first page", secs(20), || metal.site.client.get((ip, 80)).map_err(|it| it.to_string()));
    let nodes = ["node-1", "node-2", "node-3"];
    let first = owner(&metal, address).expect("one owner");
    let chosen = nodes.into_iter().position(|node| node != first).expect("there are three");

    for (words, expected) in [
        ("move web --to node-1", "write namespace and name"),
        ("move default/web", "--to <NODE>"),
        ("move default/nothing --to node-1", "there is no Service default/nothing"),
        (
            "move default/web --to node-9",
            "node-9 cannot answer for 192.168.35.100 of default/web: there is no such node",
        ),
    ] {
        let (code, text) = verb(&agents[0], words);
        assert_eq!(code, Some(2), "{words}: {text}");
        assert!(text.contains(expected), "{words}: {text}");
    }

    let asking = metal.site.client.ask_steadily((ip, 80), Duration::from_millis(5));
    for to in [nodes[chosen], &first, nodes[chosen]] {
        let from = owner(&metal, address).expect("one owner");
        let (code, text) = verb(&agents[2], &format!("move default/web --to {to} --wait"));
        assert_eq!((code, text), (Some(0), format!("default/web: {address} moved from {from} to {to}\n")));
        eventually_equal("one owner", secs(2), &Ok(to.to_owned()), || owner(&metal, address));
    }
    let outcomes = asking.stop();
    assert!(outcomes.lost() <= 3, "one for each move: {outcomes}");
    let ranks = agents[chosen].json(&format!("l2 {address}"));
    let best = &ranks["addresses"][0]["nodes"][0];
    assert_eq!((&best["node"], &best["chosen"]), (&json!(nodes[chosen]), &json!(true)));

    // It fails, and has the address again once it is back.
    agents[chosen].kill();
    eventually("another node takes it", secs(5), || match owner(&metal, address) {
        Ok(node) if node != nodes[chosen] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    agents[chosen] = metal.agent(chosen, &lan);
    eventually_equal("it has it again", secs(20), &Ok(nodes[chosen].to_owned()), || owner(&metal, address));
    let (code, text) = verb(&agents[0], "move default/web --back");
    assert_eq!((code, text.as_str()), (Some(0), "default/web: the preferences of [[l2]] decide again\n"));
    eventually_equal("the first owner has it again", secs(5), &Ok(first), || owner(&metal, address));
}

#[test]
fn an_address_follows_the_endpoints_of_its_service_without_a_gap_and_a_service_that_no_l2_selects_is_announced_nowhere()
{
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let _pods: Vec<_> = (0..3).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[8080])).collect();
    let ready = |node: usize, ready: bool| metal.set_pod_ready(&format!("web-{node}"), ready);
    [(0, false), (2, false)].iter().for_each(|(node, is)| ready(*node, *is));
    let agents = metal.agents(LAN);
    metal.try_apply(&service("web")).expect("the API server takes the Service");
    let address = "192.168.35.100";
    eventually_equal("the node with the endpoint answers", secs(20), &Ok("node-2".to_owned()), || {
        owner(&metal, address)
    });
    let ip: IpAddr = address.parse().expect("an address");
    eventually("the first page", secs(20), || metal.site.client.get((ip, 80)).map_err(|it| it.to_string()));

    // Another endpoint elsewhere moves nothing; the last one that goes moves the address.
    ready(2, true);
    rest(secs(2));
    assert_eq!(owner(&metal, address), Ok("node-2".to_owned()));
    let asking = metal.site.client.ask_steadily((ip, 80), Duration::from_millis(20));
    ready(1, false);
    eventually_equal("the address follows", secs(5), &Ok("node-3".to_owned()), || owner(&metal, address));
    rest(secs(1));
    let outcomes = asking.stop();
    // kube-proxy hears of the pod that is not ready a moment later than its node.
    assert!(outcomes.lost() <= 2 && outcomes.longest_gap() < Duration::from_millis(500), "{outcomes}");
    let ranks = agents[2].json(&format!("l2 {address}"));
    assert_eq!(
        (&ranks["addresses"][0]["nodes"][0]["node"], &ranks["addresses"][0]["nodes"][0]["near"]),
        (&json!("node-3"), &json!(true))
    );

    let mut hidden = service("hidden");
    hidden["metadata"]["labels"] = json!({ "expose": "no" });
    metal.try_apply(&hidden).expect("the API server takes the Service");
    eventually_equal("it has an address", secs(10), &addresses(&[101]), || metal.ingress("service/hidden"));
    rest(secs(1));
    assert_eq!(metal.site.answering("192.168.35.101".parse().expect("an address")), Vec::<String>::new());
    metal.patch("service/hidden", &json!({ "metadata": { "labels": { "expose": "yes" } } }));
    eventually_equal("and is announced once its label allows it", secs(10), &true, || {
        owner(&metal, "192.168.35.101").is_ok()
    });
}
