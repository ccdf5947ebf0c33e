//! An API server that misbehaves or goes away, agents that die, and a configuration that does not check out: whatever
//! happens, nothing that is announced is withdrawn, and what changed meanwhile arrives afterwards.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use rack::bird::Bird;
use rack::capture::Capture;
use rack::crier::{Crier, binary};
use rack::faults::{Faults, Left};
use rack::kubernetes::Proof;
use rack::{Metal, Need, Pod, Rack, Service, eventually, eventually_equal, millis, now, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 3] = [Need::Kubernetes, Need::Crier, Need::Bird];

/// Announced on the link and over BGP, so that a withdrawal of either kind would be seen.
const CONFIGURATION: &str = r#"
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.150"]
[[l2]]
interfaces = ["eth0"]
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
connect-retry-time = "1s"
[[bgp.advertisement]]
"#;

/// The Service that stands while all else happens.
const HELD: &str = "192.168.35.100";
const AWAY: &str = "the API server gives no usable answer";
const ANSWERS: &str = "the API server answers";

fn service(name: &str) -> Value {
    Service::new(name).selects("web").ports(&[(80, 8080)]).object()
}

/// Nodes with an agent each that reaches the API server through [`Faults`], a pod on each, and a router.
/// The fields are dropped in this order: agents before what they talk to.
struct Scene {
    agents: Vec<Crier>,
    captures: Vec<Capture>,
    faults: Faults,
    bird: Bird,
    metal: Metal,
    _pods: Vec<Pod>,
}

impl Scene {
    /// A scene where the Service `held` is announced by all nodes.
    #[track_caller]
    fn new(rack: &Rack, nodes: u16) -> Scene {
        let metal = Metal::new(rack, nodes);
        let sessions: String = (1..=nodes)
            .map(|n| {
                format!(
                    "protocol bgp node{n} {{ local as 64512; neighbor 192.168.35.{} as 64513; connect delay time 1; \
                     error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
                    10 + n
                )
            })
            .collect();
        let bird = metal.site.router.bird(&format!("router id 192.168.35.1; protocol device {{}}\n{sessions}"));
        let pods = (0..usize::from(nodes)).map(|n| metal.pod(n, &format!("web-{}", n + 1), "web", &[8080])).collect();
        let faults = Faults::before(&metal);
        let mut scene = Scene { agents: Vec::new(), captures: Vec::new(), faults, bird, metal, _pods: pods };
        scene.agents = (0..usize::from(nodes)).map(|node| scene.start_agent(node)).collect();
        for (agent, number) in scene.agents.iter().zip(1..) {
            agent.wait_ready(secs(20));
            scene.bird.wait_established(&format!("node{number}"), secs(20));
        }
        scene.metal.try_apply(&service("held")).expect("the API server takes the Service");
        scene.wait_route(HELD, nodes.into());
        scene.captures = scene.metal.site.nodes.iter().map(|node| node.port.capture()).collect();
        scene
    }

    /// Starts the agent of that node, again if it ran before; it is not waited for.
    #[track_caller]
    fn start_agent(&self, node: usize) -> Crier {
        let access = self.metal.access_by(Proof::Token, self.faults.url());
        let node = self.metal.site.node(node);
        node.crier(node.name(), &format!("{access}{CONFIGURATION}"))
    }

    /// How many nodes the router has behind the address.
    fn next_hops(&self, address: &str) -> usize {
        self.bird.routes().get(&format!("{address}/32")).map_or(0, |hops| hops.len())
    }

    #[track_caller]
    fn wait_route(&self, address: &str, nodes: usize) {
        let what = format!("the router has {nodes} nodes behind {address}");
        eventually_equal(&what, secs(15), &nodes, || self.next_hops(address));
    }

    /// Waits until a Service has its address and all nodes announce it, and returns the address.
    #[track_caller]
    fn wait_announced(&self, name: &str) -> String {
        let address = eventually(&format!("{name} has an address"), secs(20), || {
            self.metal.ingress(&format!("service/{name}")).pop().ok_or("none")
        });
        self.wait_route(&address, self.agents.len());
        address
    }

    /// Whether all is as it was in the beginning for the Service that stands.
    fn stands(&self) -> Result<(), String> {
        for number in 1..=self.agents.len() {
            let session = self.bird.session(&format!("node{number}"));
            if !session.is_established() || session.times_established != 1 {
                return Err(format!("node{number}: {session:?}"));
            }
        }
        let hops = self.next_hops(HELD);
        if hops == self.agents.len() { Ok(()) } else { Err(format!("{hops} next hops for {HELD}")) }
    }

    /// Panics if the standing Service was withdrawn for a moment since the scene began, or has no one owner now.
    #[track_caller]
    fn never_withdrawn(&self) {
        for (capture, agent) in self.captures.iter().zip(&self.agents) {
            let withdrawn = capture.withdrawals(&format!("{HELD}/32"));
            assert!(withdrawn.is_empty(), "{} withdrew {HELD}: {withdrawn:?}", agent.node());
        }
        if let Err(seen) = self.stands() {
            panic!("{HELD} is not announced as it was: {seen}");
        }
        let owners = self.metal.site.client.who_has("eth0", HELD.parse().expect("an address"), millis(300));
        assert_eq!(owners.len(), 1, "one node answers for {HELD} on the link: {owners:?}");
    }

    /// The agent that allocates, if there is one.
    fn allocating(&self) -> Option<usize> {
        self.agents.iter().position(|agent| agent.try_json("status").is_ok_and(|status| status["allocates"] == true))
    }

    #[track_caller]
    fn wait_allocating(&self, but: Option<usize>, within: std::time::Duration) -> usize {
        eventually("an agent allocates", within, || self.allocating().filter(|it| Some(*it) != but).ok_or("none"))
    }
}

fn times_logged(agent: &Crier, text: &str) -> usize {
    agent.process().log().lines().filter(|line| line.contains(text)).count()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn whatever_the_api_server_answers_nothing_is_withdrawn_and_changes_arrive() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, 2);
    let lists = |parts: &str| {
        scene.faults.requests().iter().filter(|it| parts.split(' ').all(|part| it.contains(part))).count()
    };
    assert!(lists("GET sendInitialEvents=true") >= 8, "lists are streamed (WatchList)");
    assert_eq!(lists("GET limit=500"), 0, "and none is asked for page by page");
    // Each row ends with what was planned used up: a fault that did not happen shows nothing.
    type Misbehaviour = (&'static str, fn(&Faults) -> Vec<Left>);
    let table: [Misbehaviour; 18] = [
        ("closes-all-watches", |faults| {
            faults.close_watches();
            Vec::new()
        }),
        ("expires-all-watches", |faults| {
            faults.expire_watches();
            Vec::new()
        }),
        ("answers-410-to-watches", |faults| {
            let left = faults.answer(410, "watch=true", 8);
            faults.close_watches();
            vec![left]
        }),
        ("answers-429-to-watches", |faults| {
            let left = faults.answer(429, "watch=true", 8);
            faults.close_watches();
            vec![left]
        }),
        ("answers-410-to-streamed-lists", |faults| {
            let left = faults.answer(410, "sendInitialEvents=true", 8);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-500-to-streamed-lists", |faults| {
            let left = faults.answer(500, "sendInitialEvents=true", 8);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-500-to-the-look-for-an-older-state", |faults| {
            let left = faults.answer(500, "limit=1", 2);
            faults.cut();
            vec![left]
        }),
        // From here on the Services are listed page by page.
        ("streams-no-lists", |faults| {
            let left = faults.answer(400, "/services? sendInitialEvents=true", 2);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-410-to-lists", |faults| {
            let left = faults.answer(410, "/services? limit=500", 4);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-500-to-lists", |faults| {
            let left = faults.answer(500, "/services? limit=500", 4);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-403-to-lists", |faults| {
            let left = faults.answer(403, "/services? limit=500", 4);
            faults.expire_watches();
            vec![left]
        }),
        ("answers-429-to-writes", |faults| vec![faults.answer(429, "PATCH /status", 3)]),
        ("answers-500-to-writes", |faults| vec![faults.answer(500, "PATCH /status", 2)]),
        ("answers-403-to-writes", |faults| vec![faults.answer(403, "PATCH /status", 2)]),
        ("answers-409-to-writes", |faults| vec![faults.answer(409, "PATCH /status", 2)]),
        ("answers-422-to-writes", |faults| vec![faults.answer(422, "PATCH /status", 2)]),
        ("answers-500-to-everything", |faults| {
            let left = faults.answer(500, "/api", 12);
            faults.close_watches();
            vec![left]
        }),
        ("cuts-connections", |faults| {
            faults.cut();
            Vec::new()
        }),
    ];
    for (what, misbehave) in table {
        let asked_before = scene.faults.requests().len();
        let left = misbehave(&scene.faults);
        scene.metal.try_apply(&service(what)).expect("the API server takes the Service");
        let address = scene.wait_announced(what);
        scene.metal.delete(&format!("service/{what}"));
        scene.wait_route(&address, 0);
        scene.never_withdrawn();
        eventually_equal(&format!("it {what}, each time that it was to"), secs(20), &0, || {
            left.iter().map(Left::count).sum::<usize>()
        });
        if what.ends_with("403-to-writes") || what.ends_with("422-to-writes") {
            let told = scene.metal.events("Service", what);
            assert!(told.iter().any(|(kind, why, _)| kind == "Warning" && why == "StatusRefused"), "{what}: {told:?}");
        }
        for agent in &scene.agents {
            eventually_equal(
                &format!("{} has no problem left after it {what}", agent.node()),
                secs(10),
                &json!([]),
                || {
                    let mut problems = agent.status()["problems"].as_array().cloned().unwrap_or_default();
                    // That there is no key for the pulse is another matter, and stands all the time.
                    problems.retain(|problem| !problem.as_str().is_some_and(|it| it.starts_with("no pulse: ")));
                    Value::from(problems)
                },
            );
        }
        let asked = scene.faults.requests().len() - asked_before;
        assert!(asked < 200, "while it {what}, the agents asked {asked} times");
    }
}

#[test]
fn an_api_server_that_goes_away_and_returns_withdraws_nothing_and_is_told_once() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, 2);
    scene.metal.try_apply(&service("doomed")).expect("the API server takes the Service");
    let doomed = scene.wait_announced("doomed");
    for agent in &scene.agents {
        assert_eq!((times_logged(agent, AWAY), times_logged(agent, ANSWERS)), (0, 1), "{}", agent.node());
    }

    let address: IpAddr = HELD.parse().expect("an address");
    eventually("the client gets the page", secs(20), || {
        scene.metal.site.client.get((address, 80)).map_err(|error| error.to_string())
    });

    let asking = scene.metal.site.client.ask_steadily((address, 80), millis(20));
    scene.faults.go_away();
    scene.metal.try_apply(&service("later")).expect("the API server takes the Service");
    scene.metal.delete("service/doomed");
    for agent in &scene.agents {
        let line = agent.process().wait_for_log(AWAY, secs(5));
        assert!(line.contains("WARN") && line.contains("what is known stays in use"), "{line}");
        let api_server = &agent.status()["api_server"];
        assert_eq!(api_server["state"], "unreachable", "{api_server:#}");
        let since = api_server["since"].as_str().unwrap_or_default();
        assert!(since.ends_with('Z') && since.starts_with("20"), "since when it is away: {api_server:#}");
        assert!(api_server["error"].as_str().is_some_and(|why| why.contains("refused")), "why: {api_server:#}");
    }
    throughout("all that was announced stands while the API server is away", secs(10), || {
        scene.stands()?;
        let hops = scene.next_hops(&doomed);
        if hops == 2 { Ok(()) } else { Err(format!("{hops} next hops for {doomed}")) }
    });
    for agent in &scene.agents {
        let output = agent.verb("status");
        let shown = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "it shows a problem:\n{shown}");
        assert!(shown.contains("API server  unreachable since "), "{shown}");
        assert!(shown.contains("problems    API server unreachable, the last known state stays in use: "), "{shown}");
        assert_eq!(agent.status()["allocates"], false, "{} could not renew its Lease", agent.node());
    }

    scene.faults.come_back();
    scene.wait_announced("later");
    scene.wait_route(&doomed, 0);
    for agent in &scene.agents {
        eventually_equal("the API server is reachable", secs(10), &json!("reachable"), || {
            agent.status()["api_server"]["state"].clone()
        });
        let told = (times_logged(agent, AWAY), times_logged(agent, ANSWERS));
        assert_eq!(told, (1, 2), "{} told once that it was away and once that it answers again", agent.node());
    }
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "no request of a client was lost: {outcomes}");
    scene.never_withdrawn();
}

/// Input: etcd is put back to a backup. Output: every agent, and not the one that allocates alone, goes by what the cluster
/// has now; a watch that goes on from the version reached before stays silent for as long as the cluster takes to come as far again.
#[test]
fn an_api_server_that_is_put_back_to_a_backup_is_believed_by_every_agent() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, 2);
    scene.metal.cluster.back_up();
    scene.metal.try_apply(&service("lost")).expect("the API server takes the Service");
    let lost = scene.wait_announced("lost");
    // What the agents have heard of lies so far ahead that the cluster does not come there in this test.
    for number in 0..150 {
        scene.metal.cluster.kubectl(&format!("annotate --overwrite service lost example.com/number={number}"));
    }
    scene.metal.cluster.restore();
    scene.wait_route(&lost, 0);
    for agent in &scene.agents {
        agent.process().wait_for_log("has gone back to an older state", secs(15));
    }
    scene.metal.try_apply(&service("next")).expect("the API server takes the Service");
    scene.wait_announced("next");
    for agent in &scene.agents {
        let known = |name: &str| agent.status()["services"].to_string().contains(&format!("/{name}\""));
        assert_eq!((known("next"), known("lost")), (true, false), "{}", agent.node());
    }
    scene.never_withdrawn();
}

/// Input: the API server is killed in the middle of a burst of writes, and comes back. Output: every Service has one address, and none has
/// another one's; what stood is announced all the time.
#[test]
fn an_api_server_that_dies_in_a_burst_of_writes_leaves_each_service_one_address_of_its_own() {
    const BURST: usize = 40;
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, 2);
    let name = |number: usize| format!("burst-{number:02}");
    let shown = || -> Vec<Vec<String>> {
        (0..BURST).map(|number| scene.metal.ingress(&format!("service/{}", name(number)))).collect()
    };
    for number in 0..BURST {
        scene.metal.try_apply(&service(&name(number))).expect("the API server takes the Service");
    }
    let given = shown().iter().filter(|it| !it.is_empty()).count();
    scene.metal.cluster.stop_api_server();
    scene.agents[0].process().wait_for_log(AWAY, secs(10));
    throughout("what stood stands", secs(2), || scene.stands());
    let asked_before = scene.faults.requests().len();
    scene.metal.cluster.restart_api_server();
    let all = eventually("each has one address", secs(40), || match shown() {
        all if all.iter().all(|it| it.len() == 1) => Ok(all),
        all => Err(format!("{all:?}")),
    });
    println!("{given} of {BURST} had an address when the API server was killed");
    let different: std::collections::BTreeSet<&String> = all.iter().flatten().collect();
    assert_eq!((different.len(), different.contains(&HELD.to_owned())), (BURST, false), "{all:?}");
    throughout("and keeps it", secs(3), || match shown() {
        now if now == all => Ok(()),
        now => Err(format!("{now:?}, before {all:?}")),
    });
    let asked = scene.faults.requests().len() - asked_before;
    assert!(asked < BURST * 3 + 200, "the agents asked {asked} times");
    scene.never_withdrawn();
}

#[test]
fn an_agent_that_starts_while_the_api_server_is_away_announces_what_it_remembers() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::new(&rack, 1);
    scene.metal.try_apply(&service("doomed")).expect("the API server takes the Service");
    let doomed = scene.wait_announced("doomed");
    let kept = scene.agents[0].socket().with_file_name("state").join("world.jsonl");
    eventually("the agent has written down what it knows", secs(10), || {
        let text = std::fs::read_to_string(&kept).unwrap_or_default();
        let known = [HELD, doomed.as_str()].iter().all(|address| text.contains(&format!("[\"{address}\"]")));
        if known { Ok(()) } else { Err(text) }
    });

    scene.faults.go_away();
    scene.agents.remove(0).kill();
    scene.wait_route(HELD, 0);
    scene.metal.delete("service/doomed");
    scene.metal.try_apply(&service("later")).expect("the API server takes the Service");
    let agent = scene.start_agent(0);
    agent.wait_ready(secs(10));
    scene.agents.push(agent);
    scene.wait_route(HELD, 1);
    scene.wait_route(&doomed, 1);
    let agent = &scene.agents[0];
    let owner = scene.metal.site.client.who_has("eth0", HELD.parse().expect("an address"), millis(300));
    assert_eq!(owner, [scene.metal.site.node(0).port.mac()], "the agent that remembers answers on the link");
    let page = scene.metal.site.client.get((HELD.parse::<IpAddr>().expect("an address"), 80));
    assert_eq!(page.map(|answer| answer.name).map_err(|error| error.to_string()), Ok("web-1".to_owned()));
    let status = agent.status();
    assert_eq!(status["fail_static"], true, "{status:#}");
    assert_eq!(status["api_server"]["state"], "unreachable", "{status:#}");
    let shown = text(&agent.verb("status").stdout);
    assert!(shown.contains("acting on what was remembered from before"), "{shown}");
    let established = scene.bird.session("node1").times_established;

    let capture = scene.metal.site.node(0).port.capture();
    scene.faults.come_back();
    scene.wait_route(&doomed, 0);
    scene.wait_announced("later");
    eventually_equal("it acts on what it is told", secs(10), &json!(false), || agent.status()["fail_static"].clone());
    let withdrawn = capture.withdrawals(&format!("{HELD}/32"));
    assert!(withdrawn.is_empty(), "what is still there was not touched: {withdrawn:?}");
    assert_eq!(scene.next_hops(HELD), 1);
    assert_eq!(scene.bird.session("node1").times_established, established, "the session did not flap");
}

#[test]
fn an_agent_whose_last_known_state_is_too_old_announces_nothing_before_the_api_server_answers() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::new(&rack, 1);
    let kept = scene.agents[0].socket().with_file_name("state").join("world.jsonl");
    eventually("the agent has written down what it knows", secs(10), || {
        let text = std::fs::read_to_string(&kept).unwrap_or_default();
        if text.contains(&format!("[\"{HELD}\"]")) { Ok(()) } else { Err(text) }
    });
    scene.faults.go_away();
    scene.agents.remove(0).kill();
    scene.wait_route(HELD, 0);
    let file = std::fs::File::options().append(true).open(&kept).expect("it is there");
    let written = file.metadata().and_then(|metadata| metadata.modified()).expect("it has a time");
    file.set_modified(written - secs(3600)).expect("its time can be set");
    let access = scene.metal.access_by(Proof::Token, scene.faults.url());
    let node = scene.metal.site.node(0);
    let agent = node.crier(node.name(), &format!("{access}{CONFIGURATION}[state]\nmax-age = \"30m\"\n"));
    agent.wait_ready(secs(40));
    scene.bird.wait_established("node1", secs(20));
    throughout("nothing is announced", secs(3), || match scene.next_hops(HELD) {
        0 => Ok(()),
        hops => Err(format!("{hops} next hops")),
    });
    let problems = agent.status()["problems"].to_string();
    assert!(problems.contains("is older than [state] max-age: nothing is announced before"), "{problems}");
    assert!(!text(&agent.verb("status").stdout).contains("acting on what was remembered"), "nothing was");
    scene.faults.come_back();
    scene.wait_route(HELD, 1);
    eventually("nothing is left of it", secs(10), || {
        let problems = agent.status()["problems"].to_string();
        if problems.contains("max-age") { Err(problems) } else { Ok(()) }
    });
}

#[test]
fn another_agent_allocates_soon_after_the_one_that_did_dies_and_at_once_after_it_leaves() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::new(&rack, 2);
    let first = scene.wait_allocating(None, secs(5));
    scene.agents[first].kill();
    let died = now();
    // The Lease of six seconds may have been renewed just before, and candidates look every two.
    let second = scene.wait_allocating(Some(first), secs(11));
    println!("another agent allocated {:?} after the one that did had died", died.elapsed());
    assert_ne!(first, second);
    scene.metal.try_apply(&service("after-death")).expect("the API server takes the Service");
    eventually("the new one gives out addresses", secs(5), || {
        scene.metal.ingress("service/after-death").pop().ok_or("none")
    });

    scene.agents[first] = scene.start_agent(first);
    scene.agents[first].wait_ready(secs(10));
    scene.wait_announced("after-death");
    throughout("who comes back does not take over", secs(1), || {
        match scene.agents[first].status()["allocates"] == true {
            false => Ok(()),
            true => Err("it allocates"),
        }
    });
    let left = now();
    scene.agents[second].process().signal(Signal::SIGTERM);
    scene.wait_allocating(Some(second), secs(3));
    println!("another agent allocated {:?} after the one that did was told to leave", left.elapsed());
    assert!(scene.agents[second].process().wait(secs(5)).success(), "it left cleanly");
    scene.metal.try_apply(&service("after-leave")).expect("the API server takes the Service");
    eventually("the next one gives out addresses", secs(5), || {
        scene.metal.ingress("service/after-leave").pop().ok_or("none")
    });
}

#[test]
fn a_configuration_that_does_not_check_out_is_refused_by_run_with_the_text_of_check_and_nothing_happens() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let host = rack.namespace("host");
    let folder = rack.folder();
    std::fs::create_dir(folder.join("conf.d")).expect("the rack's folder is ours");
    let (socket, state) = (folder.join("crier.sock"), folder.join("state"));
    let file = folder.join("crier.toml");
    let main = format!(
        "[api]\nsocket = \"{}\"\n[state]\nfolder = \"{}\"\n[manifests]\nfolder = \"{}\"\n\
         [[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.9-192.0.2.1\"]\nadress = \"192.0.2.1\"\n[bgp]\nasn = 0\n",
        socket.display(),
        state.display(),
        folder.join("manifests").display(),
    );
    std::fs::write(&file, main).expect("the rack's folder is ours");
    let drop_in = "[[bgp.peer]]\nname = \"tor\"\naddress = \"192.0.2.1\"\nasn = 64512\nhold-time = \"2s\"\n";
    std::fs::write(folder.join("conf.d/10-tor.toml"), drop_in).expect("the rack's folder is ours");

    let crier = |words: &[&str], file: &Path| -> Output {
        let mut command = Command::new(binary());
        command.args(words).arg(file).env_remove("CRIER_SOCKET").env_remove("NOTIFY_SOCKET");
        host.output(&mut command)
    };
    let check = crier(&["config", "check"], &file);
    let run = crier(&["run", "--config"], &file);
    let refusal = text(&run.stderr);
    for word in ["crier.toml:", "10-tor.toml:", "192.0.2.9-192.0.2.1", "adress", "asn", "hold-time"] {
        assert!(refusal.contains(word), "{word} is not in the refusal:\n{refusal}");
    }
    assert_eq!(refusal, text(&check.stderr), "run refuses with the words of check");
    assert_eq!((run.status.code(), check.status.code()), (Some(2), Some(2)));
    assert_eq!(text(&run.stdout), "");
    assert!(!socket.exists() && !state.exists(), "nothing was opened or made");
    // It was aborted, by SIGABRT.
    for words in [&["config", "check"][..], &["run", "--config"], &["migrate"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let told = Command::new(binary()).args(words).arg(&file).stderr(full).status().expect("it runs");
        assert_eq!(told.code(), Some(2), "{words:?} where standard error cannot be written");
    }
}

/// Input: the API server is away while the agent of one node is restarted through systemd's store, reloaded twenty
/// times, killed and drained, and while the other node loses power. Output: the routers see the same as where it answers; and a node that
/// comes back from a reboot announces nothing before the API server answers.
#[test]
fn what_happens_to_agents_while_the_api_server_is_away_is_what_happens_while_it_answers() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, 2);
    // The agent of the first node once more, with a store.
    scene.agents[0].stop(secs(10));
    let access = scene.metal.access_by(Proof::Token, scene.faults.url());
    let configuration = format!("{access}{CONFIGURATION}").replace(
        "[[bgp.advertisement]]",
        "bfd = \"fast\"\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"500ms\"\ntransmit-interval = \"500ms\"\n[[bgp.advertisement]]",
    );
    let site = &scene.metal.site;
    let router = |nodes: &[u16]| {
        let session = |n: &u16| {
            format!(
                "protocol bgp node{n} {{ local as 64512; neighbor 192.168.35.{} as 64513; connect delay time 1; bfd on; \
                 error wait time 1, 2; error forget time 1; ipv4 {{ import all; export none; }}; }}\n",
                10 + n
            )
        };
        format!(
            "router id 192.168.35.1; protocol device {{}}\nprotocol bfd {{ interface \"*\" {{ min rx interval 500 ms; \
             min tx interval 500 ms; multiplier 3; }}; }}\n{}",
            nodes.iter().map(session).collect::<String>()
        )
    };
    scene.agents[1].stop(secs(10));
    scene.bird.configure(&router(&[1, 2]));
    let mut unit = site.node(0).crier_as_unit("node-1", &configuration);
    let other = site.node(1).crier("node-2", &configuration);
    for (agent, number) in [(&unit, 1), (&other, 2)] {
        agent.wait_ready(secs(30));
        scene.bird.wait_established(&format!("node{number}"), secs(30));
        eventually("BFD is up", secs(20), || {
            let shown = agent.try_json("bfd")?;
            if shown["sessions"][0]["state"] == "up" { Ok(()) } else { Err(shown.to_string()) }
        });
    }
    scene.wait_route(HELD, 2);
    let established = || scene.bird.session("node1").times_established;
    let before = established();
    scene.faults.go_away();
    unit.process().wait_for_log(AWAY, secs(30));
    let stays = |what: &str| {
        throughout(what, secs(3), || match (scene.next_hops(HELD), established()) {
            (2, count) if count == before => Ok(()),
            seen => Err(format!("{seen:?}")),
        });
    };
    unit.restart(&configuration);
    unit.wait_ready(secs(30));
    stays("a restart is no event");
    for number in 0..20 {
        unit.write_configuration(&configuration.replace("asn = 64513", &format!("asn = 64513 # {number}")));
        assert!(unit.verb("config apply").status.success(), "reload {number}");
    }
    stays("a storm of reloads is no event");
    unit.kill();
    unit.start_again(&configuration);
    unit.wait_ready(secs(30));
    stays("a crash is no event");
    let drained = unit.verb("drain --wait --timeout 1s --force");
    assert!(matches!(drained.status.code(), Some(0 | 4)), "{}{}", text(&drained.stdout), text(&drained.stderr));
    scene.wait_route(HELD, 1);
    assert!(unit.verb("undrain").status.success());
    scene.wait_route(HELD, 2);

    site.node(1).port.cut();
    other.kill();
    // Of 90 s of hold time: it is BFD that notices.
    scene.wait_route(HELD, 1);
    site.node(1).port.restore();
    let rebooted = site.node(1).crier_in_boot(2, "node-2", &configuration);
    rebooted.wait_ready(secs(60));
    scene.bird.wait_established("node2", secs(30));
    throughout("a node that was rebooted announces nothing", secs(3), || match scene.next_hops(HELD) {
        1 => Ok(()),
        hops => Err(hops.to_string()),
    });
    scene.faults.come_back();
    scene.wait_route(HELD, 2);
}
