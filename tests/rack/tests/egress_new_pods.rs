//! A new pod sends from its birth on, before the API server knows its address: with `[egress] new-pods = "hold"` nothing leaves before it
//! is known whether the pod has egress, and then as it is to.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rack::capture::Capture;
use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, Scene, ends, fresh, leaks, rows};
use rack::lan::problems;
use rack::packet::Mac;
use rack::{
    Metal, Namespace, Need, Pod, Process, Rack, Service, eventually, eventually_equal, millis, rest, secs, throughout,
};
use serde_json::Value;

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Nft, Need::Crier];
const HOLD: &str = "[egress]\nnew-pods = \"hold\"\n";

/// What a pod sends to the client from the moment on that it has a network: a datagram of each family each millisecond, from a new port
/// every now and then. Dropping it ends it.
struct Birth {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Birth {
    /// The pod, which does nothing else.
    fn of(scene: &Scene, node: usize, name: &str) -> (Pod, Birth) {
        let to = [scene.client(false), scene.client(true)];
        let mut birth = None;
        let pod = scene.lan.site.node(node).pod_running(name, |namespace| {
            birth = Some(Birth::start(namespace, to));
            idle(namespace, name)
        });
        (pod, birth.expect("it was started"))
    }

    fn start(pod: &Namespace, to: [SocketAddr; 2]) -> Birth {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |to: SocketAddr| {
            let (pod, stop) = (Namespace::clone(pod), stop.clone());
            std::thread::spawn(move || {
                let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                while !stop.load(Ordering::Relaxed) {
                    let socket = pod.run(|| UdpSocket::bind(any)).expect("the namespace is ours");
                    for _ in 0..100 {
                        // What is refused or dropped is what the test is about.
                        let _ = socket.send_to(b"egress", to);
                        rest(millis(1));
                    }
                }
            })
        };
        let threads = to.map(sender).into();
        Birth { stop, threads }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a sender does not panic"));
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn idle(namespace: &Namespace, name: &str) -> Process {
    namespace.serve(name, &[80])
}

/// Serves these pods by the Service `web`, which selects `app=web`.
fn serve(scene: &Scene, pods: &[&Pod]) {
    let service = Service::new("web").addresses(&ADDRESSES.join(",")).selects("web");
    let service = service.annotation("crier.dev/egress", "service-ip");
    scene.lan.manifests.service(&pods.iter().fold(service, |service, pod| service.pod(pod)));
}

/// Two nodes with a pod of the Service each, and the owner.
fn begin(rack: &Rack, settings: &str) -> (Scene, Vec<Crier>, usize) {
    let scene = Scene::new(rack);
    let pods: Vec<(&Pod, &str)> = scene.pods.iter().map(|pod| (pod, "web")).collect();
    scene.lan.manifests.pods(&pods);
    serve(&scene, &scene.pods.iter().collect::<Vec<_>>());
    let agents = scene.lan.agents_with(&format!("{}{settings}", scene.configuration));
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    (scene, agents, owner)
}

fn captures(scene: &Scene) -> Vec<(Capture, Mac)> {
    let site = &scene.lan.site;
    [&site.client, &site.router].map(|host| (host.port.capture(), host.port.mac())).into()
}

/// What `crier egress` says of new pods.
fn new_pods(agent: &Crier) -> Value {
    agent.try_json("egress").map(|report| report["new_pods"].clone()).unwrap_or_default()
}

/// Waits until packets of both addresses of the pod are held back.
fn is_held(agent: &Crier, pod: &Pod) -> Vec<Value> {
    let addresses = [pod.address.to_string(), pod.address6.to_string()];
    let mut found = Vec::new();
    eventually(&format!("{} is held back on {}", pod.name(), agent.node()), secs(20), || {
        let said = new_pods(agent);
        let held = said["held"].as_array().cloned().unwrap_or_default();
        let is_of_pod = |it: &Value| addresses.iter().any(|address| it["address"] == **address);
        found = held.into_iter().filter(|it| is_of_pod(it) && it["dropped"].as_u64() > Some(100)).collect();
        if found.len() == 2 { Ok(()) } else { Err(said.to_string()) }
    });
    found
}

/// Waits until these are the sources of what the client hears.
fn comes_from(scene: &Scene, expected: [String; 2]) {
    for (end, expected) in ends(&scene.lan.site.client).iter().zip(expected) {
        eventually(&format!("packets come from {expected}"), secs(20), || {
            let sources = fresh(end);
            if sources == [expected.clone()].into() { Ok(()) } else { Err(format!("{sources:?}")) }
        });
    }
}

#[test]
fn a_new_pod_of_the_service_sends_nothing_before_it_is_known_and_then_with_the_services_address() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, agents, owner) = begin(&rack, HOLD);
    let captures = captures(&scene);
    let mut known: Vec<(Pod, &str)> = Vec::new();
    for node in [owner, 1 - owner] {
        let agent = &agents[node];
        let (pod, birth) = Birth::of(&scene, node, &format!("late-{node}"));
        for held in is_held(agent, &pod) {
            assert_eq!(held["pod"], Value::Null, "nobody knows the pod yet: {held}");
        }
        assert_eq!(leaks(&captures), BTreeSet::new(), "the Pod is not known");

        // Its Pod is there, and no EndpointSlice.
        known.push((pod, "web"));
        write_pods(&scene, &known);
        let (pod, _) = known.last().expect("it was pushed");
        let name = format!("default/{}", pod.name());
        eventually("it is held back as a pod of the Service", secs(20), || {
            let held = is_held(agent, pod);
            let is_named = |it: &Value| it["pod"] == *name && it["reason"].to_string().contains("default/web");
            if held.iter().all(is_named) { Ok(()) } else { Err(format!("{held:?}")) }
        });
        eventually("one that is held for long is a problem", secs(30), || {
            let said = problems(agent);
            if said.contains(&name) && said.contains("new-pods") { Ok(()) } else { Err(said) }
        });
        assert_eq!(agent.verb("egress").status.code(), Some(1));
        let screen = String::from_utf8_lossy(&agent.verb("egress").stdout).into_owned();
        assert!(screen.contains("new pods: 2 addresses are held back"), "{screen}");
        assert_eq!(leaks(&captures), BTreeSet::new(), "no EndpointSlice lists the pod");

        let all: Vec<&Pod> = scene.pods.iter().chain(known.iter().map(|(pod, _)| pod)).collect();
        serve(&scene, &all);
        comes_from(&scene, ADDRESSES.map(str::to_owned));
        eventually_equal("nothing is wrong", secs(20), &String::new(), || problems(agent));
        birth.end();
        assert_eq!(leaks(&captures), BTreeSet::new(), "nor later");
    }
}

fn write_pods(scene: &Scene, more: &[(Pod, &str)]) {
    let of_scene = scene.pods.iter().map(|pod| (pod, "web"));
    let all: Vec<(&Pod, &str)> = of_scene.chain(more.iter().map(|(pod, app)| (pod, *app))).collect();
    scene.lan.manifests.pods(&all);
}

#[test]
fn a_new_pod_without_egress_opens_its_connections_once_it_is_known() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, mut agents, owner) = begin(&rack, HOLD);
    let captures = captures(&scene);
    let client = &scene.lan.site.client;
    let _server = client.serve("client", &[8080]);
    let node = scene.lan.site.node(owner);
    let (pod, birth) = Birth::of(&scene, owner, "plain");
    let (opener, to) = (Namespace::clone(&pod), SocketAddr::from((client.address, 8080)));
    let opening = std::thread::spawn(move || opener.run(|| TcpStream::connect_timeout(&to, secs(60))).map(drop));
    is_held(&agents[owner], &pod);
    assert_eq!(leaks(&captures), BTreeSet::new(), "nobody knows the pod");
    assert!(!opening.is_finished(), "its connection waits");
    // What stays inside of the cluster is no matter of egress.
    let other = &scene.pods[1 - owner];
    let inside = SocketAddr::from((other.address, 80));
    pod.run(|| TcpStream::connect_timeout(&inside, secs(10))).expect("pods reach pods");

    let mut known = vec![(pod, "plain")];
    write_pods(&scene, &known);
    opening.join().expect("it does not panic").expect("the connection is opened");
    let own = [node.address.to_string(), node.address6.to_string()];
    comes_from(&scene, own.clone());
    // One that is there before the agent stays let go over a restart of that.
    agents[owner].stop(secs(10));
    throughout("it sends while no agent runs", secs(1), || sends(&scene, &own));
    agents[owner] = scene.lan.agent_with(owner, &format!("{}{HOLD}", scene.configuration));
    throughout("it sends while an agent starts", secs(3), || sends(&scene, &own));
    agents[owner].wait_ready(secs(30));
    throughout("and when it runs", secs(1), || sends(&scene, &own));

    // Its Pod is gone: the address is the next one's, and nobody knows whose.
    let (pod, _) = known.remove(0);
    write_pods(&scene, &known);
    is_held(&agents[owner], &pod);
    let [v4, _] = &ends(client);
    eventually_equal("nothing comes any more", secs(10), &BTreeSet::new(), || fresh(v4));
    birth.end();
}

fn sends(scene: &Scene, own: &[String; 2]) -> Result<(), String> {
    let [v4, _] = &ends(&scene.lan.site.client);
    let sources = fresh(v4);
    if sources == [own[0].clone()].into() { Ok(()) } else { Err(format!("{sources:?}")) }
}

/// What the tests above call a leak is there to be seen.
#[test]
fn where_new_pods_pass_a_new_pod_of_the_service_sends_with_its_nodes_address() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, agents, owner) = begin(&rack, "");
    assert_eq!(new_pods(&agents[owner]), Value::Null);
    let captures = captures(&scene);
    for node in [owner, 1 - owner] {
        let own = scene.lan.site.node(node).address.to_string();
        let (_pod, birth) = Birth::of(&scene, node, &format!("late-{node}"));
        eventually("it sends with its node's address", secs(20), || {
            let leaks = leaks(&captures);
            if leaks.iter().any(|leak| leak.starts_with(&format!("{own} "))) {
                Ok(())
            } else {
                Err(format!("{leaks:?}"))
            }
        });
        birth.end();
    }
}

/// Input: a Service with egress and without pods, and an agent that is started anew with new pods passing.
#[test]
fn a_table_that_held_new_pods_alone_goes_with_the_start_of_an_agent_that_lets_them_pass() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    serve(&scene, &[]);
    scene.lan.manifests.pods(&[]);
    let start = |settings: &str| scene.lan.agents_with(&format!("{}{settings}", scene.configuration));
    let tables = || scene.lan.site.nodes.iter().map(|node| node.sh("nft list ruleset")).collect::<String>();
    let holding = || tables().matches("table inet crier {").count();
    let agents = start(HOLD);
    eventually_equal("both nodes hold new pods", secs(20), &2, holding);
    agents.iter().for_each(|agent| assert!(agent.stop(secs(10)).success()));
    assert_eq!(holding(), 2, "the tables stay when the agents stop");
    drop(agents);
    let _agents = start("");
    eventually_equal("nothing is left of them", secs(20), &0, || tables().matches("crier").count());
}

#[test]
fn the_pods_of_the_node_are_known_by_the_api_server_and_without_the_right_to_read_them_that_is_said() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Nft, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let configuration = format!(
        "[pulse]\nunauthenticated = true\n[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\n\
         [[l2]]\ninterfaces = [\"eth0\"]\n[node]\ndata-path = \"none\"\n{HOLD}"
    );
    let _web = metal.pod(0, "web", "web", &[8080]);
    let plain = metal.pod(0, "plain", "plain", &[8080]);
    let elsewhere = metal.pod(1, "elsewhere", "plain", &[8080]);
    let web = Service::new("web").selects("web").ports(&[(80, 8080)]).annotation("crier.dev/egress", "service-ip");
    metal.try_apply(&web.object()).expect("the API server takes the Service");
    let unseeing = metal.agent(0, &configuration);
    eventually("it says that it may not read Pods", secs(30), || {
        let said = problems(&unseeing);
        if said.contains("crier rbac --config FILE") && said.contains("403") { Ok(()) } else { Err(said) }
    });
    drop(unseeing);
    metal.allow_pods();
    let agent = metal.agent(0, &configuration);
    let node = &metal.site.nodes[0];
    let known = |expected: &Pod, is_there: bool| {
        eventually(&format!("{} is known: {is_there}", expected.name()), secs(30), || {
            let listed = node.sh("nft list set inet crier known4") + &node.sh("nft list set inet crier known6");
            let all = [expected.address.to_string(), expected.address6.to_string()];
            if all.iter().all(|address| listed.contains(address.as_str()) == is_there) { Ok(()) } else { Err(listed) }
        });
    };
    known(&plain, true);
    known(&elsewhere, false);
    let local = vec![format!("{ADDRESS} local 1")];
    eventually_equal("the pod has a way out", secs(30), &local, || rows(&agent));
    // Of a Pod that is being deleted, and then gone.
    metal.kubectl("delete pod plain --grace-period=0 --force");
    known(&plain, false);
    let later = metal.pod(0, "later", "plain", &[8080]);
    known(&later, true);
}
