//! What once went wrong on the Kubernetes side, on a real API server: statuses that somebody empties while the agents disagree
//! or lack the ConfigMap, a class that is left together with its Lease, who is named for an overwrite, policies that rewrite what is
//! written, and what `crier plan` foretells of a ConfigMap.

use std::net::Ipv4Addr;

use rack::certificates::Authority;
use rack::crier::Crier;
use rack::kubernetes::{Proof, User};
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, millis, rest, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];
const NODES: [&str; 2] = ["node-1", "node-2"];
const SERVICES: [&str; 4] = ["one", "two", "three", "four"];

/// What every file has behind `[kubernetes]`.
const COMMON: &str = "[api]\nlisten = \"\"\n[pulse]\nunauthenticated = true\n[[l2]]\ninterfaces = [\"eth0\"]\n";

fn pool(name: &str, range: &str, priority: u8) -> String {
    format!("[[pool]]\nname = \"{name}\"\naddresses = [\"{range}\"]\npriority = {priority}\nrest = \"0s\"\n")
}

fn lan(range: &str) -> String {
    format!("{COMMON}{}", pool("lan", range, 1))
}

/// Of a cluster whose pools the ConfigMap has.
fn with_config_map(more: &str) -> String {
    format!("config = \"kube-system/crier\"\n{COMMON}{more}")
}

fn config_map(text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "crier", "namespace": "kube-system" },
        "data": { "crier.toml": text },
    })
}

/// Fields are dropped in this order: agents before what they talk to.
struct Town {
    agents: Vec<Crier>,
    metal: Metal,
}

impl Town {
    #[track_caller]
    fn begin(metal: Metal, configuration: &str) -> Town {
        let town = Town { agents: metal.agents(configuration), metal };
        eventually("an agent allocates", secs(20), || town.allocating().ok_or("none does"));
        town
    }

    /// The Services have been made one after the other, and each is answered.
    #[track_caller]
    fn served(&self) -> Vec<Vec<String>> {
        SERVICES.iter().for_each(|name| self.put(Service::new(name)));
        let before = eventually("all have an address", secs(20), || match self.shown() {
            seen if seen.iter().all(|it| it.len() == 1) => Ok(seen),
            seen => Err(format!("{seen:?}")),
        });
        eventually("all are answered", secs(15), || self.stands(&before));
        before
    }

    fn allocating(&self) -> Option<usize> {
        self.agents.iter().position(|agent| agent.try_json("status").is_ok_and(|it| it["allocates"] == true))
    }

    #[track_caller]
    fn put(&self, service: Service) {
        let nodes = NODES.into_iter().take(self.agents.len());
        let service = nodes.fold(service, Service::on);
        for object in service.slices().into_iter().chain([service.object()]) {
            self.metal.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}: {object:#}"));
        }
    }

    fn ingress(&self, name: &str) -> Vec<String> {
        self.metal.ingress(&format!("service/{name}"))
    }

    fn shown(&self) -> Vec<Vec<String>> {
        self.metal.shown(&SERVICES)
    }

    fn answering(&self, address: &str) -> Vec<String> {
        self.metal.site.answering(address.parse::<Ipv4Addr>().expect("an IPv4 address"))
    }

    /// Every status shows what it showed, and one node answers for each address.
    fn stands(&self, before: &[Vec<String>]) -> Result<(), String> {
        self.metal.stands(&SERVICES, before)
    }

    /// No status shows another address than it showed: the one of before, or none.
    fn nothing_else(&self, before: &[Vec<String>]) -> Result<(), String> {
        let now = self.shown();
        let is_own = |(now, before): (&Vec<String>, &Vec<String>)| now.is_empty() || now == before;
        if now.iter().zip(before).all(is_own) { Ok(()) } else { Err(format!("{now:?}, before {before:?}")) }
    }

    #[track_caller]
    fn empty(&self, name: &str, conditions: bool) {
        let mut status = json!({ "loadBalancer": { "ingress": null } });
        if conditions {
            status["conditions"] = Value::Null;
        }
        self.metal.patch_status(&format!("service/{name}"), &status);
    }

    /// What the agent shows of a Service.
    fn service(&self, agent: usize, name: &str) -> Value {
        let status = self.agents[agent].status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services.into_iter().find(|it| it["name"] == json!(format!("default/{name}"))).unwrap_or_default()
    }

    /// What it says in the Service's own line.
    fn row(&self, agent: usize, name: &str) -> String {
        self.service(agent, name)["summary"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn wait_row(&self, agent: usize, name: &str, words: &[&str]) {
        eventually(&format!("{} says {words:?} of {name}", NODES[agent]), secs(20), || {
            let row = self.row(agent, name);
            if words.iter().all(|word| row.contains(word)) { Ok(()) } else { Err(row) }
        });
    }

    #[track_caller]
    fn wait_problem(&self, agent: usize, words: &[&str]) {
        eventually(&format!("the problems of {} name {words:?}", NODES[agent]), secs(20), || {
            let problems = self.agents[agent].status()["problems"].as_array().cloned().unwrap_or_default();
            let names = |it: &&Value| words.iter().all(|word| it.as_str().is_some_and(|it| it.contains(word)));
            if problems.iter().any(|it| names(&it)) { Ok(()) } else { Err(format!("{problems:#?}")) }
        });
    }

    #[track_caller]
    fn wait_allocates(&self, agent: usize) {
        eventually(&format!("{} allocates", NODES[agent]), secs(30), || match self.allocating() {
            Some(it) if it == agent => Ok(()),
            it => Err(format!("{it:?}")),
        });
    }

    fn restart(&mut self, agent: usize, configuration: &str) {
        self.agents[agent].stop(secs(10));
        self.agents[agent] = self.metal.agent(agent, configuration);
    }

    #[track_caller]
    fn warnings(&self, name: &str, reason: &str) -> Vec<String> {
        let events = self.metal.events("Service", name).into_iter();
        events.filter(|(_, because, _)| because == reason).map(|(_, _, text)| text).collect()
    }
}

/// As `crier rbac --lease` gives it.
#[track_caller]
fn allow_leases(metal: &Metal) {
    let group = "rbac.authorization.k8s.io";
    let verbs = ["get", "list", "watch", "create", "update"];
    let rule = json!({ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs });
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": { "name": "leases" }, "rules": [rule],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": "leases" },
        "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "leases" },
        "subjects": [{ "apiGroup": group, "kind": "User", "name": "crier" }],
    });
    [role, binding].iter().for_each(|object| drop(metal.try_apply(object).expect("it is taken")));
}

/// As of a host that was made anew.
#[track_caller]
fn forget(agent: &Crier) {
    let state = agent.file().with_file_name("state");
    std::fs::remove_dir_all(&state).unwrap_or_else(|error| panic!("{}: {error}", state.display()));
}

/// All went off the wire at once, without a word.
#[test]
fn what_a_crier_gave_is_answered_after_it_got_a_class_of_its_own() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let range = "192.168.35.140-192.168.35.149";
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    allow_leases(&metal);
    let mut town = Town::begin(metal, &lan(range));
    let before = town.served();
    let own = format!("class = \"acme.io/lb\"\ndefault-class = false\n{}", lan(range));
    for agent in 0..2 {
        town.restart(agent, &own);
        eventually("all are answered while the agents are restarted", secs(10), || town.stands(&before));
    }
    eventually("the Lease follows the class", secs(20), || {
        let lease = town.metal.get("lease/kube-system/crier-acme.io-lb").ok_or("no Lease")?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        if holder.is_empty() { Err("nobody holds it") } else { Ok(()) }
    });
    for agent in 0..2 {
        town.wait_row(agent, "one", &["class"]);
    }
    throughout("all stay answered", secs(8), || town.stands(&before));
    town.put(Service::new("new").spec("loadBalancerClass", "acme.io/lb"));
    eventually("one of the new class gets an address that nobody has", secs(15), || {
        match town.ingress("new").as_slice() {
            [it] if before.iter().flatten().all(|other| other != it) => Ok(()),
            it => Err(format!("{it:?}")),
        }
    });
    town.stands(&before).expect("all are answered still");
}

/// The emptied ones got another address in the same second.
#[test]
fn a_status_that_is_emptied_while_the_agents_disagree_is_filled_again() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let former = lan("192.168.35.146-192.168.35.149");
    let town = Town::begin(Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2), &former);
    let before = town.served();
    let holder = town.allocating().expect("it is one of them");
    let slip = format!("{}{}", town.metal.access(), lan("192.168.35.140-192.168.35.144"));
    town.agents[holder].write_configuration(&slip);
    town.agents[holder].reload();
    let waits = format!("it stays while the pools of {} differ", NODES[1 - holder]);
    town.wait_row(holder, "one", &["is given up", &waits]);
    town.empty("two", false);
    town.empty("three", true);
    throughout("nothing else is given", secs(4), || town.nothing_else(&before));
    eventually("all have their addresses again", secs(10), || town.stands(&before));
    throughout("and keep them", secs(4), || town.stands(&before));
    assert_eq!(town.warnings("two", "IPAllocated").len(), 1, "it was given its address once");
}

/// Each got one of the host's own pool, and kept that when the ConfigMap was back.
#[test]
fn nothing_of_the_hosts_pool_is_given_for_what_the_config_map_may_have() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let of_cluster = config_map(&pool("cluster", "192.168.35.140-192.168.35.149", 1));
    metal.try_apply(&of_cluster).expect("the API server takes the ConfigMap");
    let file = with_config_map(&pool("host", "192.168.35.180-192.168.35.189", 2));
    let mut town = Town::begin(metal, &file);
    let before = town.served();
    assert!(before.iter().flatten().all(|it| it.starts_with("192.168.35.14")), "{before:?}");

    town.metal.delete("configmap/kube-system/crier");
    town.wait_problem(0, &["there is no ConfigMap kube-system/crier"]);
    for agent in &town.agents {
        agent.stop(secs(10));
    }
    forget(&town.agents[0]);
    town.agents[0] = town.metal.agent(0, &file);
    town.wait_allocates(0);
    town.agents[1] = town.metal.agent(1, &file);
    town.wait_problem(0, &["the files of this host alone are in use"]);

    town.empty("one", false);
    town.empty("two", true);
    for kind in ["ClusterIP", "LoadBalancer"] {
        town.metal.patch("service/three", &json!({ "spec": { "type": kind } }));
    }
    town.metal.delete("service/four");
    town.put(Service::new("four"));
    town.put(Service::new("new"));
    eventually_equal("one that is new goes by the host's file", secs(15), &vec!["192.168.35.180".to_owned()], || {
        town.ingress("new")
    });
    throughout("the others get nothing else", secs(10), || town.nothing_else(&before));
    for name in SERVICES {
        town.wait_row(0, name, &["nothing of the ConfigMap that the file names is in use"]);
    }
    town.metal.try_apply(&of_cluster).expect("the API server takes the ConfigMap");
    eventually("all have their addresses again", secs(30), || town.stands(&before));
}

/// A crier of which no agent ran was named, because its condition stood there.
#[test]
fn kubectl_is_not_taken_for_the_crier_whose_condition_stands_in_the_status() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = lan("192.168.35.140-192.168.35.149");
    let of_another = format!("lease = \"kube-system/crier2\"\n{lan}");
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    allow_leases(&metal);
    let mut town = Town::begin(metal, &of_another);
    let before = town.served();
    let theirs = town.metal.get("service/one").unwrap_or_default()["status"]["conditions"].clone();
    assert!(theirs.to_string().contains("kube-system/crier2"), "{theirs}");
    town.restart(0, &lan);
    town.wait_allocates(0);
    // It contradicts the other once, and leaves what that one says then.
    let conditions = || town.metal.get("service/one").unwrap_or_default()["status"]["conditions"].clone();
    eventually("it says its own", secs(10), || match conditions().to_string() {
        theirs if theirs.contains("crier2") => Err(theirs),
        _ => Ok(()),
    });
    town.metal.patch_status("service/one", &json!({ "conditions": theirs }));
    throughout("the other's condition stands", secs(2), || match conditions().to_string() {
        theirs if theirs.contains("crier2") => Ok(()),
        own => Err(own),
    });
    for _ in 0..3 {
        if town.ingress("one") == before[0] {
            town.empty("one", false);
        }
        let came_back = || match town.row(0, "one") {
            row if row.contains("overwrote") || town.ingress("one") == before[0] => Ok(()),
            row => Err(row),
        };
        eventually("it comes back, or is told", secs(10), came_back);
    }
    town.wait_row(0, "one", &["another controller overwrote the status twice within a minute"]);
    let row = town.row(0, "one");
    assert!(!row.contains("crier2"), "{row}");
}

/// What a mutating policy does to the status of each Service of which the name begins so, where `condition` holds.
fn policy(name: &str, begins: &str, expression: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": { "name": name },
                "spec": {
                    "matchConstraints": { "resourceRules": [{
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["services/status"],
                    }] },
                    "matchConditions": [{ "name": "named", "expression": format!("object.metadata.name.startsWith('{begins}')") }],
                    "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                    "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } }],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": name },
                "spec": { "policyName": name },
            },
        ],
    })
    .to_string()
}

/// Beside the address that the Service does not show stood "answered here". A pool annotation that a policy puts back was not
/// noticed.
#[test]
fn what_a_policy_makes_of_a_status_is_said_as_it_is() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = lan("192.168.35.140-192.168.35.149");
    let town = Town::begin(Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2), &lan);
    let other = "192.168.35.149";
    let address = format!(
        "has(object.status.loadBalancer.ingress) && object.status.loadBalancer.ingress.size() == 1 ? \
         [JSONPatch{{op: 'replace', path: '/status/loadBalancer/ingress/0/ip', value: '{other}'}}] : []"
    );
    let annotation = "'metallb.io/ip-allocated-from-pool' in object.metadata.annotations ? \
         [JSONPatch{op: 'replace', path: '/metadata/annotations/metallb.io~1ip-allocated-from-pool', value: 'foo'}] : []";
    let policies =
        [("address", policy("address", "p", &address)), ("annotation", policy("annotation", "q", annotation))];
    for (name, text) in policies {
        let file = rack.write(&format!("{name}.json"), &text);
        town.metal.kubectl(&format!("apply -f {}", file.display()));
    }
    // The API server goes by a policy a little after it took it.
    let told = "metallb.io/ip-allocated-from-pool";
    for (name, seen) in [("pprobe", ("/status/loadBalancer/ingress/0/ip", other)), ("qprobe", ("", "foo"))] {
        let reference = format!("service/{name}");
        let probe = Service::new(name).spec("loadBalancerClass", "none.io/none").annotation(told, "bar");
        eventually(&format!("the policy of {name} is in force"), secs(60), || {
            town.metal.try_apply(&probe.object()).map_err(|it| it.to_string())?;
            let ingress = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
            let now = town.metal.patch_status(&reference, &ingress);
            let value = match seen.0 {
                "" => &now["metadata"]["annotations"][told],
                path => now.pointer(path).unwrap_or(&Value::Null),
            };
            if *value == json!(seen.1) { Ok(()) } else { Err(now.to_string()) }
        });
        town.metal.delete(&reference);
    }

    town.put(Service::new("page"));
    town.put(Service::new("quay").annotation(told, "foo"));
    let holder = town.allocating().expect("it is one of them");
    for name in ["page", "quay"] {
        eventually(&format!("the owner of {name} is told"), secs(20), || match town.warnings(name, "StatusAltered") {
            told if told.is_empty() => Err(format!("{:?}", town.metal.events("Service", name))),
            told => Ok(told),
        });
        town.wait_problem(holder, &[&format!("default/{name}"), "a mutating webhook or policy changes"]);
    }
    town.wait_row(holder, "page", &[&format!("{other}, which the status shows: answered")]);
    town.wait_row(1 - holder, "page", &["answered"]);
    // Whoever does not allocate goes by what crier gave, as its condition says. What either says of itself is so.
    for (agent, node) in NODES.iter().enumerate() {
        let page = town.service(agent, "page");
        let announced = page["announcements"][0]["address"].as_str().unwrap_or_default().to_owned();
        if town.row(agent, "page").contains("answered here") {
            eventually_equal(&format!("{page}"), secs(10), &vec![(*node).to_owned()], || town.answering(&announced));
        }
    }
    eventually("one node answers what the status shows", secs(15), || match town.answering(other).as_slice() {
        [node] => Ok(node.clone()),
        nodes => Err(format!("{nodes:?}")),
    });
    // The address itself is no matter of the annotation.
    let quay = town.ingress("quay");
    assert_eq!(quay.len(), 1, "{quay:?}");
    eventually("quay is answered", secs(10), || match town.answering(&quay[0]).len() {
        1 => Ok(()),
        nodes => Err(format!("{nodes} nodes")),
    });
    town.metal.kubectl("delete mutatingadmissionpolicybinding annotation");
    eventually_equal("the annotation is written once the policy is gone", secs(150), &json!("lan"), || {
        let quay = town.metal.get("service/quay").unwrap_or_default();
        quay["metadata"]["annotations"][told].clone()
    });
}

/// Exit code, and all that was said.
fn said(agent: &Crier, words: &str) -> (Option<i32>, String) {
    let output = agent.verb(words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn what_plan_says_of_a_config_map_is_what_happens_with_it() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let [a, b] = [pool("a", "192.168.35.140-192.168.35.149", 1), pool("b", "192.168.35.150-192.168.35.159", 2)];
    let good = format!("{a}{b}");
    metal.try_apply(&config_map(&good)).expect("the API server takes the ConfigMap");
    let town = Town::begin(metal, &with_config_map(""));
    let before = town.served();
    town.put(Service::new("wish").annotation("crier.dev/pool", "b"));
    eventually_equal("an address of b", secs(10), &vec!["192.168.35.150".to_owned()], || town.ingress("wish"));
    let agent = &town.agents[0];
    let host = rack.write("host.toml", &format!("{}{}", town.metal.access(), with_config_map("")));
    let alone = rack.write("alone.toml", &format!("{}{COMMON}", town.metal.access()));
    let plan = |file: &std::path::Path, text: &str| {
        let text = rack.write("cluster.toml", text);
        said(agent, &format!("plan {} --cluster-config {}", file.display(), text.display()))
    };
    let check = |file: &std::path::Path| {
        let text = rack.folder().join("cluster.toml");
        said(agent, &format!("config check {} --cluster-config {}", file.display(), text.display()))
    };

    // A text that says nothing, and one without a pool.
    for text in ["", "# nothing\n"] {
        for (code, said) in [plan(&host, text), check(&host)] {
            assert!(code == Some(2) && said.contains("the text says nothing: every agent refuses"), "{code:?} {said}");
        }
    }
    let links = "[[l2]]\ninterfaces = [\"eth7\"]\n";
    let (_, told) = plan(&host, links);
    assert!(!told.contains("loses") && told.contains("no agent allocates without one"), "{told}");
    // The file names no ConfigMap.
    for (code, said) in [plan(&alone, &good), check(&alone)] {
        assert!(code == Some(2) && said.contains("alone.toml names no ConfigMap"), "{code:?} {said}");
    }
    // Nothing moves, and what a Service asks for cannot be met any more.
    let renamed = good.replace("\"b\"", "\"bb\"");
    let (code, told) = plan(&host, &renamed);
    let line = told.lines().find(|line| line.contains("default/wish")).unwrap_or_default();
    assert!(code == Some(1) && line.contains("keeps") && line.contains("no pool \"b\""), "{code:?} {told}");
    assert!(!told.contains("default/one"), "{told}");
    assert_eq!(plan(&host, &good).0, Some(0), "the text of now");

    // And so it is.
    town.metal.try_apply(&config_map(links)).expect("the API server takes the ConfigMap");
    eventually("nobody allocates", secs(20), || if town.allocating().is_some() { Err("it does") } else { Ok(()) });
    let page = town.ingress("wish");
    throughout("all stay", secs(6), || match town.ingress("wish") == page {
        true if town.shown() == before => Ok(()),
        _ => Err(format!("{:?}", town.shown())),
    });
    town.metal.try_apply(&config_map(&renamed)).expect("the API server takes the ConfigMap");
    town.wait_allocates(0);
    eventually("the wish is told as one that cannot be met", secs(20), || {
        let condition = town.metal.get("service/wish").unwrap_or_default()["status"]["conditions"][0].clone();
        let is_so = condition["status"] == "False" && condition["reason"] == "UnknownPool";
        if is_so { Ok(()) } else { Err(condition.to_string()) }
    });
    assert_eq!(town.ingress("wish"), ["192.168.35.150"]);
    eventually("all are answered", secs(10), || town.stands(&before));
}

/// A kubeconfig of the agent.
fn of_crier(metal: &Metal, proof: Proof) -> Value {
    let file = metal.kubeconfig(User::Crier, proof, &metal.url());
    serde_json::from_slice(&std::fs::read(file).expect("it was written")).expect("it is JSON")
}

/// An agent took a kubeconfig without credentials in the place of good ones, asked as nobody, and said that all is well; one that
/// makes the API server an untrusted one shows only when the connections of before end.
#[test]
fn a_kubeconfig_that_names_nobody_or_trusts_no_server_takes_no_others_place() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let good = of_crier(&metal, Proof::Token);
    let write = |kubeconfig: &Value| rack.write("kubeconfig", &kubeconfig.to_string());
    let file = write(&good);
    let configuration = format!("[kubernetes]\nkubeconfig = \"{}\"\n{}", file.display(), lan("192.168.35.140/30"));
    let mut town = Town { agents: Vec::new(), metal };
    let start = |town: &Town| town.metal.site.node(0).crier(NODES[0], &configuration);
    let agent = start(&town);
    agent.wait_ready(secs(20));
    town.agents.push(agent);
    town.wait_allocates(0);

    let mut nobody = good.clone();
    nobody["users"][0]["user"] = json!({});
    let mut unknown = good.clone();
    unknown["contexts"][0]["context"]["user"] = "zz".into();
    let mut misnamed = good.clone();
    misnamed["clusters"][0]["cluster"]["tls-server-name"] = "wrong.example".into();
    let mut untrusting = good.clone();
    untrusting["clusters"][0]["cluster"]["certificate-authority"] =
        json!(rack.write("other.pem", Authority::new("other").certificate()));
    let mut garbage = good.clone();
    garbage["clusters"][0]["cluster"]["certificate-authority"] = json!(rack.write("garbage.pem", "garbage"));
    for (kubeconfig, words) in [
        (&nobody, "gives its user no token, tokenFile or client certificate"),
        (&misnamed, "no API server is trusted by them: invalid peer certificate"),
        (&unknown, "gives its user no token, tokenFile or client certificate"),
        (&untrusting, "no API server is trusted by them: invalid peer certificate"),
        (&garbage, "garbage.pem, the certificate-authority of the kubeconfig"),
    ] {
        write(kubeconfig);
        town.wait_problem(0, &[words, "the former ones stay in use"]);
        throughout("it goes on with the former ones", secs(2), || {
            town.allocating().map(drop).ok_or("it does not allocate")
        });
    }
    let mut named = good.clone();
    named["clusters"][0]["cluster"]["tls-server-name"] = "kubernetes".into();
    write(&named);
    eventually("one that can be used is", secs(20), || match town.agents[0].status()["problems"].to_string() {
        problems if problems.contains("the former ones stay in use") => Err(problems),
        _ => Ok(()),
    });
    town.agents[0].stop(secs(10));

    // A start with it is refused with the remedy.
    write(&nobody);
    let refused = start(&town);
    let line = refused.process().wait_for_log("no token, tokenFile or client certificate", secs(20));
    assert!(line.contains("`crier kubeconfig`"), "{line}");
    eventually("it ends", secs(10), || if refused.process().is_running() { Err("it runs") } else { Ok(()) });

    // Until when a client certificate is good is shown.
    write(&of_crier(&town.metal, Proof::ClientCertificate));
    let agent = start(&town);
    agent.wait_ready(secs(20));
    assert!(agent.status()["api_server"]["client_certificate_until"].is_string(), "{}", agent.status()["api_server"]);
    let (_, shown) = said(&agent, "status");
    assert!(shown.contains("; client certificate until "), "{shown}");
}

/// Input: a client certificate that ends while the agent runs, renewed on the disk before; then one that ends before it is
/// renewed. Output: the agent goes on by the new one without a restart; without one it says so, and goes on once it is there.
#[test]
fn a_client_certificate_that_ends_is_followed_by_the_renewed_one_without_a_restart() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let write = |lasting: Option<u64>, name: &str| {
        let identity = match lasting {
            Some(seconds) => metal.authority.client_for("crier", &[], secs(seconds)),
            None => metal.authority.client("crier", &[]),
        };
        let files = [("pem", &identity.certificate), ("key", &identity.key)];
        let [certificate, key] = files.map(|(end, text)| rack.write(&format!("{name}.{end}"), text));
        let mut kubeconfig = of_crier(&metal, Proof::ClientCertificate);
        kubeconfig["users"][0]["user"] = json!({ "client-certificate": certificate, "client-key": key });
        rack.write(&format!("{name}.kubeconfig"), &kubeconfig.to_string())
    };
    // Whether the API server still takes a certificate, by a copy of it that is not renewed.
    let is_taken = |kubeconfig: &std::path::Path| {
        let mut command = std::process::Command::new(rack::kubernetes::binaries().expect("kubectl").join("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).args([
            "--cache-dir",
            "/dev/null",
            "get",
            "--raw",
            "/api/v1/services?limit=1",
        ]);
        metal.host.output(&mut command).status.success()
    };
    let copy = |name: &str| {
        for end in ["pem", "key"] {
            let text = std::fs::read_to_string(rack.folder().join(format!("own.{end}"))).expect("it was written");
            rack.write(&format!("{name}.{end}"), &text);
        }
        let text = std::fs::read_to_string(rack.folder().join("own.kubeconfig")).expect("it was written");
        rack.write(&format!("{name}.kubeconfig"), &text.replace("own.", &format!("{name}.")))
    };
    let wait_ended = |copy: &std::path::Path| {
        eventually("the certificate has ended", secs(60), || {
            rest(millis(300));
            if is_taken(copy) { Err("it is taken") } else { Ok(()) }
        });
    };
    let wait_address = |name: &str, address: &str| {
        eventually_equal(&format!("{name} has an address"), secs(30), &vec![address.to_owned()], || {
            metal.ingress(&format!("service/{name}"))
        });
    };
    let own = write(Some(45), "own");
    let first = copy("first");
    assert!(is_taken(&first), "it is good at first");
    let configuration = format!("[kubernetes]\nkubeconfig = \"{}\"\n{}", own.display(), lan("192.168.35.140/30"));
    let agent = metal.site.node(0).crier(NODES[0], &configuration);
    agent.wait_ready(secs(20));
    metal.try_apply(&Service::new("one").object()).expect("the API server takes the Service");
    wait_address("one", "192.168.35.140");

    write(None, "own");
    wait_ended(&first);
    metal.try_apply(&Service::new("two").object()).expect("the API server takes the Service");
    wait_address("two", "192.168.35.141");

    write(Some(15), "own");
    let second = copy("second");
    eventually("it is used", secs(14), || match agent.status()["api_server"]["client_certificate_until"].as_str() {
        Some(until) if !until.starts_with("4096") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_ended(&second);
    metal.try_apply(&Service::new("three").object()).expect("the API server takes the Service");
    eventually("it is told", secs(30), || match agent.status()["problems"].to_string() {
        problems if problems.contains("certificate") || problems.contains("401") => Ok(()),
        problems => Err(problems),
    });
    write(None, "own");
    wait_address("three", "192.168.35.142");
    assert!(agent.process().is_running());
}
