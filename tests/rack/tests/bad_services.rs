//! Services that ask for what they cannot have: each is told why by an Event that names the value, is shown in the
//! status, harms no other, and gets its address as soon as the cause is gone.

use std::net::Ipv4Addr;

use rack::crier::Crier;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const CONFIGURATION: &str = r#"
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110", "fd35::100-fd35::10f"]
[[l2]]
interfaces = ["eth0"]
"#;

/// A Service for the pods of `web`, single stack.
fn service(name: &str, family: &'static str, annotations: &[(&str, &str)]) -> Value {
    let service = Service::new(name).selects("web").families(&[family]).ports(&[(80, 8080)]);
    annotations.iter().fold(service, |service, (key, value)| service.annotation(key, value)).object()
}

/// Waits for a warning about the Service with this reason and all of these texts in its message.
#[track_caller]
fn wait_warning(metal: &Metal, name: &str, reason: &str, texts: &[&str]) {
    eventually(&format!("{name} has a warning {reason} that says {texts:?}"), secs(30), || {
        let events = metal.events("Service", name);
        let told = events.iter().any(|(kind, because, message)| {
            kind == "Warning" && because == reason && texts.iter().all(|text| message.contains(text))
        });
        if told { Ok(()) } else { Err(format!("{events:?}")) }
    });
}

/// What `crier status --json` says of the Service.
fn shown(agent: &Crier, name: &str) -> Value {
    let status = agent.status();
    let services = status["services"].as_array().cloned().unwrap_or_default();
    let full_name = format!("default/{name}");
    services.into_iter().find(|service| service["name"] == full_name).unwrap_or_default()
}

/// A wish that cannot be granted: its Service, its family, the annotation, and what the Event says besides.
struct Wish {
    name: &'static str,
    family: &'static str,
    annotation: (&'static str, &'static str),
    says: &'static [&'static str],
}

const WISHES: [Wish; 9] = [
    Wish {
        name: "outside",
        family: "IPv4",
        annotation: ("crier.dev/addresses", "192.168.35.200"),
        says: &["192.168.35.200", "in no pool"],
    },
    Wish {
        name: "of-six",
        family: "IPv4",
        annotation: ("crier.dev/addresses", "fd35::105"),
        says: &["fd35::105", "is IPv6, but the Service is IPv4"],
    },
    Wish {
        name: "of-four",
        family: "IPv6",
        annotation: ("metallb.io/loadBalancerIPs", "192.168.35.105"),
        says: &["192.168.35.105", "is IPv4, but the Service is IPv6"],
    },
    Wish {
        name: "malformed",
        family: "IPv4",
        annotation: ("crier.dev/addresses", "1.2.3"),
        says: &["crier.dev/addresses", "\"1.2.3\" is not an IP address"],
    },
    Wish {
        name: "unknown",
        family: "IPv4",
        annotation: ("crier.dev/adresses", "192.168.35.105"),
        says: &["crier.dev/adresses", "192.168.35.105", "did you mean crier.dev/addresses?"],
    },
    Wish {
        name: "egress",
        family: "IPv4",
        annotation: ("crier.dev/egress", "netwrok"),
        says: &["crier.dev/egress is \"netwrok\"", "write service-ip or network", "are held back"],
    },
    Wish {
        name: "egress-without-a-way",
        family: "IPv4",
        annotation: ("crier.dev/egress-to", "10.0.0.0/8"),
        says: &["crier.dev/egress-to", "means nothing without crier.dev/egress", "are held back"],
    },
    Wish {
        name: "no-such-pool",
        family: "IPv4",
        annotation: ("crier.dev/pool", "wan"),
        says: &["no pool \"wan\"", "there are: lan"],
    },
    Wish {
        name: "no-such-pool-as-before",
        family: "IPv4",
        annotation: ("metallb.universe.tf/address-pool", "wan"),
        says: &["no pool \"wan\"", "there are: lan"],
    },
];

#[test]
fn a_wish_that_cannot_be_granted_is_told_with_its_value_and_granted_once_it_is_mended() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let agents = metal.agents(CONFIGURATION);
    let agent = &agents[0];
    for wish in &WISHES {
        metal
            .try_apply(&service(wish.name, wish.family, &[wish.annotation]))
            .expect("the API server takes the Service");
    }
    for wish in &WISHES {
        wait_warning(&metal, wish.name, "AllocationFailed", wish.says);
        eventually(&format!("the log says it of {}", wish.name), secs(10), || {
            let log = agent.process().log();
            let of_it = log.lines().filter(|line| line.contains(&format!("service=default/{} ", wish.name)));
            let says = |line: &str| line.contains("WARN") && wish.says.iter().all(|text| line.contains(text));
            if of_it.clone().any(says) { Ok(()) } else { Err(of_it.collect::<Vec<_>>().join("\n")) }
        });
        let seen = shown(agent, wish.name);
        let summary = seen["summary"].as_str().unwrap_or_default();
        assert!(wish.says.iter().all(|text| summary.contains(text)), "the status says it: {seen:#}");
        assert_eq!(metal.ingress(&format!("service/{}", wish.name)), Vec::<String>::new(), "{} got one", wish.name);
    }
    let table = String::from_utf8_lossy(&agent.verb("status").stdout).into_owned();
    assert!(table.contains("default/outside: the requested address 192.168.35.200 is in no pool"), "{table}");

    // None of them stands in the way of a Service that asks for nothing wrong.
    metal.try_apply(&service("sound", "IPv4", &[])).expect("the API server takes the Service");
    eventually_equal("a sound Service gets the first address", secs(10), &vec!["192.168.35.100".to_owned()], || {
        metal.ingress("service/sound")
    });
    for wish in &WISHES {
        let warnings = metal.events("Service", wish.name).into_iter().filter(|(kind, ..)| kind == "Warning").count();
        assert_eq!(warnings, 1, "{} was told once", wish.name);
        let mut mended = service(wish.name, wish.family, &[]);
        mended["metadata"]["annotations"] = json!({});
        metal.try_apply(&mended).expect("the API server takes the Service");
    }
    for wish in &WISHES {
        eventually(&format!("{} gets an address once its wish is gone", wish.name), secs(30), || {
            let ingress = metal.ingress(&format!("service/{}", wish.name));
            if ingress.len() == 1 { Ok(()) } else { Err(format!("{ingress:?}")) }
        });
    }

    // A bad wish does not cost a Service the address that it has.
    let before = metal.ingress("service/sound");
    metal.patch("service/sound", &json!({ "metadata": { "annotations": { "crier.dev/addresses": "1.2.3" } } }));
    wait_warning(&metal, "sound", "RequestRefused", &["crier.dev/addresses", "1.2.3"]);
    assert_eq!(metal.ingress("service/sound"), before);
}

#[test]
fn an_address_in_use_is_told_with_its_holder_and_given_when_that_is_gone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let _pod = metal.pod(0, "web-1", "web", &[8080]);
    let _agents = metal.agents(CONFIGURATION);
    let wish = ("crier.dev/addresses", "192.168.35.107");
    let held = vec![wish.1.to_owned()];
    // The holder comes later by name: it is its being there that counts.
    metal.try_apply(&service("zero", "IPv4", &[wish])).expect("the API server takes the Service");
    eventually_equal("the first gets it", secs(10), &held, || metal.ingress("service/zero"));
    metal.try_apply(&service("another", "IPv4", &[wish])).expect("the API server takes the Service");
    wait_warning(&metal, "another", "AllocationFailed", &["192.168.35.107", "in use by default/zero"]);
    throughout("the holder keeps it", secs(1), || match metal.ingress("service/another") {
        none if none.is_empty() && metal.ingress("service/zero") == held => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    metal.delete("service/zero");
    eventually_equal("the other gets it when the holder is gone", secs(10), &held, || metal.ingress("service/another"));
    eventually_equal("and it is answered for", secs(10), &vec!["node-1".to_owned()], || {
        metal.site.answering("192.168.35.107".parse().unwrap())
    });
}

#[test]
fn a_service_of_another_class_is_left_alone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 1);
    let _pod = metal.pod(0, "web-1", "web", &[8080]);
    let agents = metal.agents(CONFIGURATION);
    let of_class = |name: &str, class: &str| {
        let mut service = service(name, "IPv4", &[("crier.dev/addresses", "1.2.3")]);
        service["spec"]["loadBalancerClass"] = class.into();
        service
    };
    metal.try_apply(&of_class("theirs", "example.com/other")).expect("the API server takes the Service");
    // Their controller has given it an address that lies in a pool of ours.
    metal.patch_status("service/theirs", &json!({ "loadBalancer": { "ingress": [{ "ip": "192.168.35.100" }] } }));
    metal.try_apply(&of_class("ours", "crier.dev/crier")).expect("the API server takes the Service");
    wait_warning(&metal, "ours", "AllocationFailed", &["1.2.3"]);
    throughout("theirs keeps its status, has no Event, and is not announced", secs(2), || {
        let (ingress, events) = (metal.ingress("service/theirs"), metal.events("Service", "theirs"));
        let answers = metal.site.answering("192.168.35.100".parse().unwrap());
        let alone = ingress == ["192.168.35.100"] && events.is_empty() && answers.is_empty();
        if alone { Ok(()) } else { Err(format!("{ingress:?} {events:?} {answers:?}")) }
    });
    let problems = agents[0].status()["problems"].to_string();
    assert!(!problems.contains("theirs") && problems.contains("default/ours"), "{problems}");
    let summary = shown(&agents[0], "theirs")["summary"].to_string();
    assert!(summary.contains("example.com/other"), "the status says why it is left alone: {summary}");
}

#[test]
fn endpoints_that_name_no_node_are_told_under_local_and_good_under_cluster() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let pod = metal.site.node(0).pod("web-1", &[8080]);
    let agents = metal.agents(CONFIGURATION);
    // Without a selector nobody else writes its slices.
    let nameless = Service::new("nameless").addresses("192.168.35.104").policy("Local");
    let nameless = nameless.ports(&[(80, 8080)]).at(pod.address.into());
    metal.try_apply(&nameless.object()).expect("the API server takes the Service");
    for slice in nameless.slices() {
        metal.try_apply(&slice).expect("the API server takes the EndpointSlice");
    }
    wait_warning(&metal, "nameless", "NotAnnounced", &["endpoints name no node", "Local"]);
    assert_eq!(metal.ingress("service/nameless"), ["192.168.35.104"], "it has its address all the same");
    let address: Ipv4Addr = "192.168.35.104".parse().unwrap();
    throughout("nobody answers for it", secs(1), || {
        let nodes = metal.site.answering(address);
        if nodes.is_empty() { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    for agent in &agents {
        let line = agent.process().wait_for_log("endpoints name no node", secs(5));
        assert!(line.contains("WARN") && line.contains("default/nameless"), "{line}");
        let problems = agent.status()["problems"].to_string();
        assert!(problems.contains("default/nameless") && problems.contains("endpoints name no node"), "{problems}");
    }

    metal.patch("service/nameless", &json!({ "spec": { "externalTrafficPolicy": "Cluster" } }));
    eventually("one node answers for it under Cluster", secs(10), || {
        let nodes = metal.site.answering(address);
        if nodes.len() == 1 { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    eventually("and the client gets the page", secs(20), || {
        let answer = metal.site.client.get((address, 80)).map_err(|error| error.to_string())?;
        if answer.name == "web-1" { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}
