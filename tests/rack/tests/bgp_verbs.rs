//! `crier bgp peers` and `crier bgp routes` against a live BIRD: tables, JSON, YAML, and last words both ways.

use rack::crier::Crier;
use rack::{Manifests, Need, Rack, Service, Site, bird, eventually, secs};
use serde_json::Value;

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Bird, Need::Crier];

/// Two endpoints are ready, one terminates.
fn service() -> Service {
    let service = Service::new("shop").policy("Local").load_balancer_ip("203.0.113.1");
    service.on("node-1").on("node-1").terminating_on("node-1")
}

fn configuration(manifests: &str) -> String {
    format!(
        r#"
[manifests]
folder = "{manifests}"

[api]
listen = ""

[[pool]]
name = "public"
addresses = ["203.0.113.0/24"]

[bgp]
asn = 64513

[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
connect-retry-time = "1s"

[[bgp.peer]]
name = "nobody"
address = "192.168.35.200"
asn = "internal"

[[bgp.advertisement]]
communities = ["64512:100", "no-export", "rt:64512:7"]
med = 10
prepend = 1
link-bandwidth = true

[[bgp.advertisement]]
peers = ["tor"]
aggregation-length = 24
med = 20
"#
    )
}

fn router() -> String {
    format!(
        "router id 192.168.35.1;\n{}\n\
         protocol bgp node1 {{ local as 64512; neighbor 192.168.35.11 as 64513; ipv4 {{ import all; export none; }}; }}\n",
        bird::KERNEL
    )
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[track_caller]
fn text(crier: &Crier, words: &str) -> String {
    let output = crier.verb(words);
    assert!(output.status.success(), "crier {words}: {}: {}", output.status, lossy(&output.stderr));
    lossy(&output.stdout)
}

#[track_caller]
fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in\n{text}");
    }
}

fn peer(crier: &Crier, name: &str) -> Value {
    crier.json(&format!("bgp peers {name}"))["peers"][0].clone()
}

fn wait_for(crier: &Crier, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(what, secs(30), || {
        let tor = peer(crier, "tor");
        if is_it(&tor) { Ok(tor) } else { Err(tor.to_string()) }
    })
}

#[test]
fn the_verbs_tell_what_the_router_has() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&service());
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let tor = site.router.bird(&router());
    let crier = site.nodes[0].crier("node-1", &configuration(&manifests.path().display().to_string()));
    crier.wait_ready(secs(20));
    tor.wait_established("node1", secs(20));
    let up = wait_for(&crier, "both routes are sent", |tor| tor["prefixes_sent"] == 2);

    // The JSON.
    let negotiated = &up["session"]["negotiated"];
    assert_eq!(up["state"], "Established");
    assert_eq!((&negotiated["peer_asn"], &negotiated["local_asn"]), (&64512.into(), &64513.into()));
    assert_eq!(negotiated["peer_router_id"], "192.168.35.1");
    assert!(negotiated["remote"].as_str().is_some_and(|remote| remote.starts_with("192.168.35.1:")), "{negotiated}");
    let capabilities = negotiated["capabilities"]["negotiated"].to_string();
    holds(&capabilities, &["4-octet AS", "route refresh", "IPv4"]);
    assert!(up["session"]["messages_sent"]["update"].as_u64() >= Some(2), "{up}");
    assert!(up["session"]["messages_received"]["keepalive"].as_u64() >= Some(1), "{up}");
    assert_eq!(crier.json("bgp peers")["schema_version"], 1);

    // What the router holds is what the verb says.
    let routes = crier.json("bgp routes tor");
    let shown: Vec<_> = routes["routes"].as_array().expect("a list").iter().collect();
    let prefixes: Vec<_> = shown.iter().map(|route| route["prefix"].as_str().unwrap_or_default()).collect();
    assert_eq!(prefixes, ["203.0.113.0/24", "203.0.113.1/32"]);
    let host = shown[1];
    assert_eq!(
        (&host["state"], &host["next_hop"], &host["med"]),
        (&"sent".into(), &"192.168.35.11".into(), &10.into())
    );
    assert_eq!(host["as_path"], serde_json::json!([64513, 64513]));
    assert_eq!((&host["local_preference"], &host["endpoints"]), (&Value::Null, &2.into()), "one endpoint terminates");
    assert_eq!(host["services"], serde_json::json!(["default/shop"]));
    holds(&host["communities"].to_string(), &["64512:100", "no-export", "rt:64512:7", "ext:0x4004fc0148742400"]);
    let held = tor.route("203.0.113.1/32");
    let attributes = &held.first().expect("the router has it").attributes;
    assert_eq!(attributes["BGP.as_path"], "64513 64513");
    assert_eq!(attributes["BGP.med"], "10");
    holds(&attributes["BGP.community"], &["(64512,100)"]);
    holds(&attributes["BGP.ext_community"], &["(rt, 64512, 7)", "(unknown 0x4004, 64513, 1215570944)"]);

    // The longest route that holds an address; a peer without a session.
    let longest = |of: &str| {
        let found = crier.json(&format!("bgp routes --peer tor {of}"));
        found["routes"].as_array().expect("a list").iter().map(|route| route["prefix"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(longest("203.0.113.1"), ["\"203.0.113.1/32\""]);
    assert_eq!(longest("203.0.113.7"), ["\"203.0.113.0/24\""]);
    assert_eq!(longest("198.51.100.1"), Vec::<String>::new());
    let waiting = &crier.json("bgp routes nobody")["routes"][0];
    assert_eq!((&waiting["state"], &waiting["next_hop"]), (&"waiting".into(), &Value::Null));

    // The tables, and the other forms.
    let table = text(&crier, "bgp peers");
    holds(&table, &["PEER", "MSGRCVD", "OUTQ", "tor", "64512", "64513", "Established", "nobody", "192.168.35.200"]);
    holds(&text(&crier, "bgp peers -o wide"), &["ROUTER-ID", "192.168.35.1", "UNSENDABLE"]);
    holds(
        &text(&crier, "bgp peers tor"),
        &["hold time", "capabilities negotiated", "keepalive", "next hop 192.168.35.11"],
    );
    holds(&text(&crier, "bgp peers -o yaml"), &["schema_version: 1", "state: Established"]);
    holds(
        &text(&crier, "bgp routes"),
        &["AS PATH", "64513 64513 i", "64512:100", "sent", "waiting: there is no session"],
    );
    holds(&text(&crier, "bgp routes -o wide"), &["SERVICES", "default/shop"]);
    holds(&text(&crier, "bgp routes -o yaml"), &["prefix: 203.0.113.1/32"]);
    println!("{table}\n{}\n{}", text(&crier, "bgp peers tor"), text(&crier, "bgp routes -o wide"));
    let unknown = crier.verb("bgp peers toor");
    assert_eq!(unknown.status.code(), Some(2));
    holds(&lossy(&unknown.stderr), &["no peer \"toor\"", "nobody, tor"]);

    // The last words, with their text. The router says its own first.
    tor.command("disable node1 \"maintenance at the rack\"");
    let down = wait_for(&crier, "the router's NOTIFICATION is told", |tor| {
        tor["session"]["last_notification_received"]["text"] == "maintenance at the rack"
    });
    let last = &down["session"]["last_notification_received"];
    assert_eq!((&last["code"], &last["subcode"]), (&6.into(), &2.into()));
    holds(last["name"].as_str().unwrap_or_default(), &["Cease, Administrative Shutdown (6/2)"]);
    tor.command("enable node1");
    let again = wait_for(&crier, "the session is up again", |tor| tor["state"] == "Established");
    assert_eq!(again["session"]["times_established"], 2);
    let whole = text(&crier, "bgp peers tor");
    holds(&whole, &["2 times", "\"maintenance at the rack\""]);

    // And ours: the router comes back as another AS, which is refused.
    tor.configure(&router().replace("local as 64512", "local as 64999"));
    let refused = wait_for(&crier, "our NOTIFICATION is told", |tor| {
        tor["session"]["last_notification_sent"]["name"].as_str().is_some_and(|name| name.contains("Bad Peer AS"))
    });
    let counts = refused["session"]["notifications"].as_array().expect("a list").clone();
    let bad_peer = counts.iter().find(|it| it["code"] == 2 && it["subcode"] == 2).expect("it is counted");
    assert_eq!(bad_peer["direction"], "sent");
    holds(&text(&crier, "bgp peers"), &["Bad Peer AS"]);
    println!("{}\n{}", text(&crier, "bgp peers"), text(&crier, "bgp peers tor"));
}

/// Input: a peer that an operator has shut down leaves the configuration, on trial, for good, or while no agent runs, and comes
/// back. Output: what the operator ordered goes with it for good, and not on trial.
#[test]
fn an_order_about_a_peer_goes_with_the_peer() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let manifests = Manifests::new(&rack);
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let tor = site.router.bird(&router());
    let with = configuration(&manifests.path().display().to_string());
    let (start, rest) = with.split_once("[[bgp.peer]]\nname = \"tor\"").expect("the peer");
    let (_, rest) = rest.split_once("[[bgp.peer]]").expect("another peer");
    let without = format!("{start}[[bgp.peer]]{}", rest.replace("peers = [\"tor\"]", "peers = [\"nobody\"]"));
    let mut crier = site.nodes[0].crier_as_unit("node-1", &with);
    crier.wait_ready(secs(20));
    tor.wait_established("node1", secs(20));
    let is_shut =
        |crier: &Crier| peer(crier, "tor")["last_error"].to_string().contains("an operator shut the peer down");
    let shut = |crier: &Crier| {
        text(crier, "bgp shutdown tor");
        eventually("it is shut down", secs(5), || if is_shut(crier) { Ok(()) } else { Err("it is not") });
    };
    let apply = |crier: &Crier, file: &str, more: &str| {
        let aside = crier.file().with_extension("applied");
        std::fs::write(&aside, crier.complete(file)).expect("the folder of the configuration");
        let output = crier.verb(&format!("config apply {} {more}", aside.display()));
        assert!(output.status.success(), "{}", lossy(&output.stderr));
        lossy(&output.stdout) + &lossy(&output.stderr)
    };
    let gone = "tor was shut down by an operator and is no longer in the configuration";

    // On trial: what comes back is as it was.
    shut(&crier);
    assert!(!apply(&crier, &without, "--confirm 1s").contains(gone));
    eventually("it is back", secs(10), || crier.try_json("bgp peers tor"));
    assert!(is_shut(&crier));

    // For good.
    holds(&apply(&crier, &without, ""), &[gone]);
    apply(&crier, &with, "");
    wait_for(&crier, "a session", |tor| tor["state"] == "Established");

    // A trial that is confirmed.
    shut(&crier);
    apply(&crier, &without, "--confirm 60s");
    text(&crier, "config confirm");
    apply(&crier, &with, "");
    wait_for(&crier, "a session", |tor| tor["state"] == "Established");

    // A restart remembers it, unless the peer was away in between.
    shut(&crier);
    crier.restart(&with);
    crier.wait_ready(secs(20));
    eventually("it is shut down still", secs(5), || if is_shut(&crier) { Ok(()) } else { Err("it is not") });
    crier.restart(&without);
    crier.wait_ready(secs(20));
    eventually("the log says it", secs(5), || {
        let log = crier.process().log();
        let line = "the peer is no longer in the configuration; the operator's shutdown of it is dropped";
        if log.contains(line) { Ok(()) } else { Err(log) }
    });
    crier.restart(&with);
    crier.wait_ready(secs(20));
    wait_for(&crier, "a session", |tor| tor["state"] == "Established");
}
