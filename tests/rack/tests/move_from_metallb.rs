//! A running cluster moves from the real MetalLB to crier and back, as doc/migrate.md says, while clients ask all the time.

use std::net::Ipv4Addr;

use rack::bird::{self, Bird};
use rack::crier::Crier;
use rack::kubernetes::{Proof, User};
use rack::metallb::NAMESPACE;
use rack::{Metal, Need, Pod, Process, Rack, Service, eventually, eventually_equal, millis, now, secs};
use serde_json::json;

const NEEDS: [Need; 4] = [Need::Kubernetes, Need::Metallb, Need::Nft, Need::Crier];

/// A cluster of three nodes with kube-proxy and MetalLB, two pods, and a Service `web` that has its address.
struct Moving {
    metal: Metal,
    address: Ipv4Addr,
    controller: Process,
    speakers: Vec<Process>,
    _pods: [Pod; 2],
}

impl Moving {
    /// `objects` are MetalLB's, without their `apiVersion` and namespace.
    #[track_caller]
    fn new(rack: &Rack, address: Ipv4Addr, objects: &[(&str, &str, &str)]) -> Moving {
        let metal = Metal::new(rack, 3);
        metal.install_metallb();
        for (kind, version, spec) in objects {
            let object = format!(
                "apiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: main, namespace: {NAMESPACE}}}\nspec: {spec}\n"
            );
            let file = rack.write(&format!("{kind}.yaml"), &object);
            metal.kubectl(&format!("apply -f {}", file.display()));
        }
        let controller = metal.metallb_controller();
        let speakers = metal.site.nodes.iter().map(|node| metal.metallb_speaker(node)).collect();
        let pods = [metal.pod(0, "web-1", "web", &[8080]), metal.pod(1, "web-2", "web", &[8080])];
        metal
            .try_apply(&Service::new("web").selects("web").ports(&[(80, 8080)]).object())
            .expect("the API server takes it");
        let moving = Moving { metal, address, controller, speakers, _pods: pods };
        moving.has_its_address();
        moving
    }

    #[track_caller]
    fn has_its_address(&self) {
        let wanted = vec![self.address.to_string()];
        eventually_equal("the address of web", secs(30), &wanted, || self.metal.ingress("service/web"));
    }

    /// What `crier migrate --from-cluster` writes, with the agents' own credentials.
    #[track_caller]
    fn configuration(&self, rack: &Rack) -> String {
        let admin = self.metal.kubeconfig(User::Admin, Proof::Token, &self.metal.url());
        let made = self.metal.migrate(&["--from-cluster", "--kubeconfig", admin.to_str().expect("UTF-8")]);
        let (toml, told) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
        assert_eq!(made.status.code(), Some(0), "all of it has a counterpart: {told}\n{toml}");
        let own = self.metal.kubeconfig(User::Crier, Proof::Token, &self.metal.url());
        let key = rack.write("pulse.key", &"0123456789abcdef".repeat(4));
        format!(
            "{}\n[pulse]\nkey-file = \"{}\"\n",
            toml.replace("/etc/crier/kubeconfig", &own.display().to_string()),
            key.display()
        )
    }

    /// The nodes that answer under MetalLB: one, but for speakers that start while their Nodes are being listed; those may disagree. They
    /// may also have judged the Service before they knew enough of it, and do so anew when it is touched.
    #[track_caller]
    fn answering(&self) -> Vec<String> {
        let mut touched = (now(), 0);
        eventually("a node answers for the address", secs(60), || {
            let answering = self.metal.site.answering(self.address);
            if answering.is_empty() && touched.0.elapsed() > secs(15) {
                touched = (now(), touched.1 + 1);
                let annotations = json!({ "example.com/touched": touched.1.to_string() });
                self.metal.patch("service/web", &json!({ "metadata": { "annotations": annotations } }));
            }
            if answering.is_empty() { Err("none".to_owned()) } else { Ok(answering) }
        })
    }

    /// The node that answers under crier.
    #[track_caller]
    fn owner(&self) -> String {
        eventually("one node answers for the address", secs(60), || match &*self.metal.site.answering(self.address) {
            [one] if one.starts_with("node-") => Ok(one.clone()),
            others => Err(format!("{others:?}")),
        })
    }

    /// Agents on all nodes, ready and without a problem.
    #[track_caller]
    fn settled(&self, agents: &[Crier]) {
        for agent in agents {
            eventually(&format!("{} has no problem", agent.node()), secs(30), || {
                let problems = agent.status()["problems"].clone();
                if problems.as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(problems.to_string()) }
            });
        }
        self.has_its_address();
    }

    /// A Service made now gets an address, so somebody allocates.
    #[track_caller]
    fn allocates(&self, name: &str) {
        let service = Service::new(name).selects("web").ports(&[(80, 8080)]).object();
        self.metal.try_apply(&service).expect("the API server takes it");
        eventually(&format!("{name} has an address"), secs(30), || {
            match &*self.metal.ingress(&format!("service/{name}")) {
                [one] => Ok(one.clone()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

#[test]
fn on_the_link_no_request_is_lost_from_metallb_to_crier_and_back() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut moving = Moving::new(
        &rack,
        Ipv4Addr::new(192, 168, 35, 200),
        &[
            ("IPAddressPool", "v1beta1", "{addresses: [192.168.35.200-192.168.35.210]}"),
            ("L2Advertisement", "v1beta1", "{ipAddressPools: [main]}"),
        ],
    );
    let before = moving.answering();
    let configuration = moving.configuration(&rack);
    let page = (moving.address, 80);
    let client = &moving.metal.site.client;
    eventually("the client reaches the Service", secs(10), || {
        client.get(page).map(drop).map_err(|error| error.to_string())
    });
    let asking = client.ask_steadily(page, millis(20));

    moving.controller.stop(secs(20));
    for speaker in &moving.speakers {
        speaker.stop(secs(20));
    }
    let agents: Vec<Crier> =
        moving.metal.site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    moving.settled(&agents);
    let owner = moving.owner();
    assert!(before.contains(&owner), "the order of the nodes is MetalLB's: {before:?} before, {owner} now");
    moving.allocates("made-by-crier");

    for agent in &agents {
        agent.stop(secs(20));
    }
    moving.speakers = moving.metal.site.nodes.iter().map(|node| moving.metal.metallb_speaker(node)).collect();
    moving.controller = moving.metal.metallb_controller();
    moving.has_its_address();
    eventually("the node of before answers again", secs(30), || {
        let answering = moving.answering();
        if answering.contains(&owner) { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    moving.allocates("made-by-metallb");

    let outcomes = asking.stop();
    println!("{outcomes}");
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

/// The router's sessions to three nodes, called by their names.
fn router() -> String {
    let mut text = format!("router id 192.168.35.1;\n{}\n", bird::KERNEL);
    for node in 1..=3 {
        text += &format!(
            "protocol bgp node{node} {{ local as 64512; neighbor 192.168.35.{} as 64513; ipv4 {{ import all; export none; }}; }}\n",
            10 + node
        );
    }
    text
}

#[test]
fn over_bgp_the_nodes_move_one_by_one_from_metallb_to_crier_and_back() {
    let Some(rack) = Rack::for_test(&[&NEEDS[..], &[Need::Bird]].concat()) else { return };
    let mut moving = Moving::new(
        &rack,
        Ipv4Addr::new(203, 0, 113, 0),
        &[
            ("IPAddressPool", "v1beta1", "{addresses: [203.0.113.0/24]}"),
            ("BGPAdvertisement", "v1beta1", "{ipAddressPools: [main]}"),
            ("BGPPeer", "v1beta2", "{myASN: 64513, peerASN: 64512, peerAddress: 192.168.35.1}"),
        ],
    );
    let bird = moving.metal.site.router.bird(&router());
    let configuration = moving.configuration(&rack);
    let client = moving.metal.site.outside("outside");
    has_hops(&bird, &["192.168.35.11", "192.168.35.12", "192.168.35.13"]);
    let page = (moving.address, 80);
    eventually("the client reaches the Service", secs(10), || {
        client.get(page).map(drop).map_err(|error| error.to_string())
    });
    let asking = client.ask_steadily(page, millis(20));

    moving.controller.stop(secs(20));
    let mut agents = Vec::new();
    for (index, speaker) in moving.speakers.iter().enumerate() {
        let node = moving.metal.site.node(index);
        let session = format!("node{}", index + 1);
        let before = bird.session(&session).times_established;
        speaker.stop(secs(20));
        agents.push(node.crier(node.name(), &configuration));
        stands_again(&bird, &session, before);
        has_hops(&bird, &["192.168.35.11", "192.168.35.12", "192.168.35.13"]);
    }
    moving.settled(&agents);
    moving.allocates("made-by-crier");

    for (index, agent) in agents.iter().enumerate() {
        let session = format!("node{}", index + 1);
        let before = bird.session(&session).times_established;
        agent.stop(secs(20));
        moving.speakers[index] = moving.metal.metallb_speaker(moving.metal.site.node(index));
        stands_again(&bird, &session, before);
        has_hops(&bird, &["192.168.35.11", "192.168.35.12", "192.168.35.13"]);
    }
    moving.controller = moving.metal.metallb_controller();
    moving.has_its_address();
    moving.allocates("made-by-metallb");

    let outcomes = asking.stop();
    println!("{outcomes}");
    // The router leads the packets of a connection that is open to another node, which does not know it: at most one of those a
    // change, for one is open at a time. None may wait in vain.
    let errors: Vec<&String> = outcomes.0.iter().filter_map(|outcome| outcome.result.as_ref().err()).collect();
    assert!(errors.len() <= 6 && errors.iter().all(|error| error.contains("reset by peer")), "{outcomes}: {errors:?}");
}

/// The router leads the Service's address to these nodes.
#[track_caller]
fn has_hops(bird: &Bird, hops: &[&str]) {
    let wanted = hops.iter().map(|hop| hop.parse().expect("an address")).collect();
    eventually_equal("the next hops of the address", secs(60), &wanted, || {
        bird.routes().remove("203.0.113.0/32").unwrap_or_default()
    });
}

#[track_caller]
fn stands_again(bird: &Bird, session: &str, before: usize) {
    eventually(&format!("{session} is established once more"), secs(60), || {
        let now = bird.session(session);
        if now.is_established() && now.times_established > before { Ok(()) } else { Err(format!("{now:?}")) }
    });
}
