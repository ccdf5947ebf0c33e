//! Pods that no Service with egress asks for any more: they are held for a while, where they were held before, and over restarts of
//! the agent; an address that another pod gets is let go.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, Flows, Scene, ends, fresh, rows};
use rack::lan::problems;
use rack::{Need, Node, Rack, Service, eventually, eventually_equal, now, rest, secs};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Nft, Need::Crier];

/// The nodes' own addresses, or the Service's: of what comes to a host from a pod of the first node.
fn set(addresses: [String; 2]) -> [BTreeSet<String>; 2] {
    addresses.map(|address| BTreeSet::from([address]))
}

fn of_node(node: &Node) -> [BTreeSet<String>; 2] {
    set([node.address.to_string(), node.address6.to_string()])
}

fn of_service() -> [BTreeSet<String>; 2] {
    set(ADDRESSES.map(str::to_owned))
}

#[track_caller]
fn hears(what: &str, ends: &[UdpSocket; 2], within: Duration, expected: &[BTreeSet<String>; 2]) {
    eventually_equal(what, within, expected, || [fresh(&ends[0]), fresh(&ends[1])]);
}

/// The Service with egress, by both addresses.
fn web() -> Service {
    Service::new("web").addresses(&ADDRESSES.join(","))
}

/// The addresses that the agent holds back for nobody.
fn held(agent: &Crier) -> usize {
    agent.json("egress")["held_back"].as_array().map_or(0, Vec::len)
}

#[test]
fn an_address_that_another_pod_gets_is_let_go_and_the_same_pod_in_another_service_is_held() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (site, manifests) = (&scene.lan.site, &scene.lan.manifests);
    let (pod, node, client) = (&scene.pods[0], site.node(0), &site.client);
    let agent = scene.lan.agent(0);
    agent.wait_ready(secs(30));
    let with_egress = web().annotation("crier.dev/egress", "service-ip");
    manifests.service(&with_egress.clone().pod_with(pod, "web-0"));
    let ends = ends(client);
    let _flows = Flows::start(pod, client);
    hears("packets have the Service's address", &ends, secs(30), &of_service());
    assert_eq!(agent.verb("egress").status.code(), Some(0));

    // The annotation goes while another Service has the pod too.
    let headless = Service::new("headless").spec("type", "ClusterIP").families(&["IPv4", "IPv6"]);
    manifests.service(&headless.clone().pod_with(pod, "web-0"));
    manifests.service(&web().pod_with(pod, "web-0"));
    eventually_equal("both addresses are held back", secs(20), &2, || held(&agent));
    assert_eq!(agent.verb("egress").status.code(), Some(1), "packets are held back");
    eventually("it is told", secs(20), || {
        let told = problems(&agent);
        let words = [&pod.address.to_string(), "default/headless", "no Service has crier.dev/egress for it any more"];
        if words.iter().all(|word| told.contains(*word)) { Ok(()) } else { Err(told) }
    });
    // Nor when its Service goes altogether.
    manifests.remove("web.yaml");
    let nothing = [BTreeSet::new(), BTreeSet::new()];
    hears("nothing comes through", &ends, secs(5), &nothing);
    rest(secs(1));
    hears("and that is so for a while", &ends, Duration::ZERO, &nothing);
    assert_eq!(held(&agent), 2);

    // The pod has ended. The next one has its address, first in a Service that does not say which pod it is.
    manifests.remove("headless.yaml");
    let other = || Service::new("other").spec("type", "ClusterIP").families(&["IPv4", "IPv6"]);
    manifests.service(&other().pod(pod));
    eventually("who lists the address is told", secs(20), || {
        let told = problems(&agent);
        if told.contains("default/other") && told.contains("targetRef") { Ok(()) } else { Err(told) }
    });
    assert_eq!(held(&agent), 2);
    manifests.service(&other().pod_with(pod, "other-0"));
    hears("the other pod's packets leave as without egress", &ends, secs(20), &of_node(node));
    assert_eq!(held(&agent), 0);
    assert!(!problems(&agent).contains("held back"), "{}", problems(&agent));
    assert_eq!(agent.verb("egress").status.code(), Some(0));
    let guarded = node.sh("nft list ruleset");
    assert!(!guarded.contains("table inet crier"), "nobody needs the table any more: {guarded}");
    // The address that was let go is guarded again as soon as a Service with egress has it.
    manifests.service(&with_egress.pod_with(pod, "web-1"));
    hears("packets have the Service's address again", &ends, secs(30), &of_service());
}

#[test]
fn what_was_held_to_some_destinations_for_a_time_is_so_after_restarts_too() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (site, manifests) = (&scene.lan.site, &scene.lan.manifests);
    let (pod, node, client) = (&scene.pods[0], site.node(0), &site.client);
    const RELEASE_AFTER: u64 = 40;
    let configuration = format!("{}[egress]\nrelease-after = \"{RELEASE_AFTER}s\"\n", scene.configuration);
    let mut agent = scene.lan.agent_with(0, &configuration);
    agent.wait_ready(secs(30));
    let elsewhere = site.outside("elsewhere");
    let bounded = web().annotation("crier.dev/egress", "service-ip");
    let bounded = bounded.annotation("crier.dev/egress-to", "192.168.35.0/24, fd35::/64");
    manifests.service(&bounded.pod_with(pod, "web-0"));
    let (covered_ends, elsewhere_ends) = (ends(client), ends(&elsewhere));
    let _flows = [client, &elsewhere].map(|host| Flows::start(pod, host));
    hears("a covered destination sees the Service's address", &covered_ends, secs(30), &of_service());
    hears("another one that of the node", &elsewhere_ends, secs(5), &of_node(node));

    let removed = now();
    manifests.remove("web.yaml");
    let nothing = [BTreeSet::new(), BTreeSet::new()];
    hears("the covered one is held back", &covered_ends, secs(10), &nothing);
    hears("the other one goes on", &elsewhere_ends, secs(5), &of_node(node));
    // One restart at once, by a crash, and one when most of the time is over.
    for wait in [0, RELEASE_AFTER - 12] {
        rest(secs(wait).saturating_sub(removed.elapsed()));
        agent.kill();
        agent.start_again(&configuration);
        agent.wait_ready(secs(30));
        eventually_equal("the agent knows what it holds back", secs(10), &2, || held(&agent));
        let table = node.sh("nft list table inet crier");
        for address in [pod.address.to_string(), pod.address6.to_string()] {
            assert!(table.contains(&format!("{address} : jump exempt")), "{address} is bounded as before: {table}");
        }
        hears("the other destination is not held back", &elsewhere_ends, Duration::ZERO, &of_node(node));
        hears("the covered one is", &covered_ends, Duration::ZERO, &nothing);
    }
    let left = secs(RELEASE_AFTER + 5).saturating_sub(removed.elapsed());
    assert!(!left.is_zero(), "the machine is too slow for this test: {:?} are over", removed.elapsed());
    hears("after release-after the pod is let go, whatever restarted", &covered_ends, left, &of_node(node));
    assert!(removed.elapsed() >= secs(RELEASE_AFTER), "and not before: {:?}", removed.elapsed());
}

#[test]
fn the_annotation_on_a_service_of_another_type_is_told_and_its_pods_are_held_as_if_it_were_removed() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let manifests = &scene.lan.manifests;
    let (pod, client) = (&scene.pods[0], &scene.lan.site.client);
    let agent = scene.lan.agent(0);
    agent.wait_ready(secs(30));
    let service = || web().annotation("crier.dev/egress", "service-ip").pod_with(pod, "web-0");
    manifests.service(&service());
    let ends = ends(client);
    let _flows = Flows::start(pod, client);
    hears("packets have the Service's address", &ends, secs(30), &of_service());
    manifests.service(&service().spec("type", "ClusterIP"));
    hears("nothing comes through", &ends, secs(20), &[BTreeSet::new(), BTreeSet::new()]);
    scene.lan.answered_by(ADDRESS, &[]);
    let shown = agent.verb("egress");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1), "{text}");
    for words in ["default/web", "needs a Service of type LoadBalancer", &pod.address.to_string(), "until 2"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(problems(&agent).contains("default/web: crier.dev/egress needs a Service of type LoadBalancer"));
    assert_eq!(rows(&agent), Vec::<String>::new());
    // A list that leaves nothing is no problem, and is noted.
    manifests.service(&service().annotation("crier.dev/egress-except", "0.0.0.0/0"));
    eventually("it is noted", secs(20), || {
        let notes = agent.json("egress")["notes"].to_string();
        let is_so = notes.contains("no destination of IPv4") && !notes.contains("of IPv6");
        if is_so { Ok(()) } else { Err(notes) }
    });
    eventually_equal("no packet is held back", secs(20), &Some(0), || agent.verb("egress").status.code());
}
