//! `crier kubeconfig` beside a real API server: what it creates, and that an agent allocates with what it writes.

use std::path::PathBuf;
use std::process::{Command, Output};

use rack::kubernetes::{Cluster, Proof, User};
use rack::{Need, Rack, Service, Site, eventually, eventually_equal, secs};
use serde_json::{Value, json};

const POOL: &str = "[node]\ndata-path = \"none\"\n[[pool]]\nname = \"lan\"\n\
                    addresses = [\"192.168.35.100-192.168.35.110\"]\n[[l2]]\n";

/// `crier kubeconfig` with these words and the file of a user.
fn kubeconfig(cluster: &Cluster, user: User, words: &str) -> Output {
    let mut command = Command::new(rack::crier::binary());
    command.arg("kubeconfig").args(words.split_whitespace());
    command.arg("--kubeconfig").arg(cluster.kubeconfig(user, Proof::ClientCertificate, &cluster.url()));
    cluster.host.output(&mut command)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_agent_allocates_with_each_file_that_crier_kubeconfig_writes() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    let node = site.node(0);
    let certificate = format!("--csr {}", node.name());
    let ways = [
        ("lasting", "", "the token of kube-system/crier does not expire"),
        ("passing", "--lifetime 1h", "the token of kube-system/crier expires at 20"),
        ("certificate", &certificate, "a client certificate of crier:node-1 was signed"),
    ];
    for (number, (way, words, expected)) in ways.into_iter().enumerate() {
        let made = kubeconfig(&cluster, User::Admin, words);
        let (file, told) = (String::from_utf8_lossy(&made.stdout).into_owned(), told(&made));
        println!("crier kubeconfig {words}\n{told}");
        assert!(made.status.success(), "{way}: {}: {told}", made.status);
        assert!(told.contains(expected), "{way}: {told}");
        let created = told.contains("created ClusterRole crier\n");
        assert_eq!(created, number == 0, "what is missing is created once: {told}");
        assert!(number == 0 || told.contains("ClusterRole crier is there and was left as it is"), "{told}");

        let path = rack.write(&format!("kubeconfig.{way}"), &file);
        let configuration = format!("[kubernetes]\nkubeconfig = \"{}\"\n{POOL}", path.display());
        let agent = node.crier(node.name(), &configuration);
        agent.wait_ready(secs(20));
        cluster.try_apply(&Service::new(way).object()).expect("the API server takes the Service");
        let expected = vec![format!("192.168.35.{}", 100 + number)];
        eventually_equal(&format!("an address by the {way} credential"), secs(15), &expected, || {
            cluster.ingress(&format!("service/{way}"))
        });
        assert!(agent.stop(secs(10)).success());
    }
}

#[test]
fn what_stands_in_the_way_of_a_kubeconfig_is_named() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);

    let forbidden = kubeconfig(&cluster, User::Crier, "");
    assert_eq!(forbidden.status.code(), Some(1));
    assert!(told(&forbidden).contains("serviceaccounts is forbidden: User \"crier\""), "{}", told(&forbidden));
    assert!(forbidden.stdout.is_empty(), "no half of a file is printed");

    // Somebody took rights away, which crier does not give back by itself.
    assert!(kubeconfig(&cluster, User::Admin, "").status.success());
    cluster.kubectl("delete clusterrolebinding crier");
    cluster.kubectl("create clusterrolebinding crier --clusterrole=crier --user=nobody");
    let lacking = kubeconfig(&cluster, User::Admin, "--server https://127.0.0.1:6443");
    let told = told(&lacking);
    assert_eq!(lacking.status.code(), Some(1), "{told}");
    assert!(told.contains("does not let system:serviceaccount:kube-system:crier get services, "), "{told}");
    assert!(told.contains("patch services/status"), "{told}");
    assert!(!told.contains("leases"), "the Role is bound still: {told}");
    assert!(told.contains("https://127.0.0.1:6443 is this host's own address"), "{told}");
    assert!(String::from_utf8_lossy(&lacking.stdout).contains("server: \"https://127.0.0.1:6443\""));
}

/// A kubeconfig with a client certificate of node-1, in the group to which the printed objects give rights.
fn of_node(rack: &Rack, cluster: &Cluster) -> PathBuf {
    let identity = cluster.authority.client("crier:node-1", &["crier:nodes"]);
    rack.write(
        "kubeconfig",
        &json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "rack",
            "clusters": [{ "name": "rack", "cluster": { "server": cluster.url(),
                "certificate-authority": rack.write("ca.pem", cluster.authority.certificate()) } }],
            "users": [{ "name": "node", "user": { "client-certificate": rack.write("own.pem", &identity.certificate),
                "client-key": rack.write("own.key", &identity.key) } }],
            "contexts": [{ "name": "rack", "context": { "cluster": "rack", "user": "node" } }],
        })
        .to_string(),
    )
}

/// Input: a class, a Lease in one namespace and a ConfigMap in another, and exactly what `crier rbac --config` prints for
/// that file; then what `crier rbac --lease` prints, for a file with the pools in it. Output: an agent allocates, keeps that Lease, and is
/// refused nothing.
#[test]
fn the_rights_that_are_printed_for_a_lease_and_a_config_map_elsewhere_are_enough() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    let put =
        |object: Value| drop(cluster.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}: {object:#}")));
    for namespace in ["leases", "settings"] {
        put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
    }
    let pools = "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.109\"]\n[[l2]]\n";
    put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "pools", "namespace": "settings" },
        "data": { "crier.toml": pools } }));
    let kubeconfig = of_node(&rack, &cluster);
    let file = |more: &str| {
        format!(
            "[node]\ndata-path = \"none\"\n[kubernetes]\nkubeconfig = \"{}\"\nclass = \"example.com/b\"\nlease = \"leases/own\"\n{more}",
            kubeconfig.display()
        )
    };
    let with_map = file("config = \"settings/pools\"\n");
    let path = rack.write("agents.toml", &with_map).display().to_string();
    for (number, (words, configuration)) in
        [(["--config", &path], with_map.clone()), (["--lease", "leases/own"], file(pools))].into_iter().enumerate()
    {
        let printed = cluster.host.output(Command::new(rack::crier::binary()).arg("rbac").args(words));
        assert!(printed.status.success(), "{}", told(&printed));
        cluster.apply(&String::from_utf8_lossy(&printed.stdout));
        let agent = site.node(0).crier("node-1", &configuration);
        agent.wait_ready(secs(20));
        let name = format!("by-{number}");
        put(Service::new(&name).spec("loadBalancerClass", "example.com/b").object());
        let expected = vec![format!("192.168.35.{}", 100 + number)];
        eventually_equal(&format!("an address by {words:?}"), secs(20), &expected, || {
            cluster.ingress(&format!("service/{name}"))
        });
        assert!(cluster.get("lease/leases/own").is_some(), "the Lease is where the file says");
        assert!(cluster.get("lease/kube-system/crier").is_none(), "and nowhere else");
        eventually("an Event", secs(10), || match cluster.events("Service", &name) {
            events if events.is_empty() => Err("none"),
            _ => Ok(()),
        });
        let log = agent.process().log();
        assert!(!log.contains("403") && !log.contains("forbidden"), "nothing is refused: {log}");
        assert!(agent.stop(secs(10)).success());
        drop(agent);
        // Only what is printed next counts.
        for namespace in ["leases", "settings"] {
            cluster.kubectl(&format!("delete role,rolebinding --all -n {namespace}"));
        }
    }
}

/// Input: exactly what `crier rbac` prints, for the group of the nodes' certificates; then one right after the other is
/// taken away, and an agent starts. Output: with all of them an agent allocates and is refused nothing; without one of them it says which
/// object it is refused, so none of these is too much.
#[test]
fn the_rights_that_are_printed_are_enough_and_each_that_lacks_is_named() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    let printed = cluster.host.output(Command::new(rack::crier::binary()).arg("rbac"));
    cluster.apply(&String::from_utf8_lossy(&printed.stdout));
    let file = of_node(&rack, &cluster);
    let config_map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "crier", "namespace": "kube-system" },
        "data": { "crier.toml": "[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.130\"]\n[[l2]]\n" } });
    cluster.try_apply(&config_map).expect("the API server takes the ConfigMap");
    let configuration = format!(
        "[node]\ndata-path = \"none\"\n[kubernetes]\nkubeconfig = \"{}\"\nconfig = \"kube-system/crier\"\n",
        file.display()
    );
    let node = site.node(0);
    let put = |name: &str| cluster.try_apply(&Service::new(name).object()).expect("the API server takes the Service");
    {
        let agent = node.crier(node.name(), &configuration);
        agent.wait_ready(secs(20));
        put("all");
        eventually_equal("an address with all rights", secs(20), &1, || cluster.ingress("service/all").len());
        eventually("an Event", secs(10), || match cluster.events("Service", "all") {
            events if events.is_empty() => Err("none"),
            _ => Ok(()),
        });
        let log = agent.process().log();
        assert!(!log.contains("403") && !log.contains("forbidden"), "nothing is refused: {log}");
        assert!(agent.stop(secs(10)).success());
    }
    // A ConfigMap that may not be watched is read, and the other way round.
    let table: [(&str, &str, &str, &[&str]); 8] = [
        ("clusterrole/crier", "services", "watch", &["services", "403"]),
        ("clusterrole/crier", "nodes", "watch", &["nodes", "403"]),
        ("clusterrole/crier", "namespaces", "watch", &["namespaces", "403"]),
        ("clusterrole/crier", "endpointslices", "watch", &["endpointslices", "403"]),
        ("clusterrole/crier", "services/status", "patch", &["status", "403"]),
        ("clusterrole/crier", "events", "create", &["an Event could not be written", "403"]),
        ("role/kube-system/crier", "leases", "update", &["kube-system/crier", "403"]),
        ("role/kube-system/crier", "leases", "create", &["kube-system/crier", "403"]),
    ];
    for (number, (role, resource, verb, words)) in table.into_iter().enumerate() {
        let rules = cluster.get(role).expect("the role is there")["rules"].clone();
        cluster.patch(role, &json!({ "rules": without(&rules, resource, verb) }));
        if (resource, verb) == ("leases", "create") {
            cluster.delete("lease/kube-system/crier");
        }
        put(&format!("without-{number}"));
        let agent = node.crier(node.name(), &configuration);
        eventually(&format!("without the right to {verb} {resource} it names {words:?}"), secs(30), || {
            let problems = agent.try_json("status").map(|it| it["problems"].to_string()).unwrap_or_default();
            let log = agent.process().log();
            let told = |text: &str| words.iter().all(|word| text.contains(word));
            if told(&problems) || log.lines().any(told) { Ok(()) } else { Err(format!("{problems}\n{log}")) }
        });
        agent.kill();
        cluster.patch(role, &json!({ "rules": rules }));
    }
}

/// The rules of a role, one for each resource, without the one right.
fn without(rules: &Value, resource: &str, verb: &str) -> Vec<Value> {
    let of_rule = |rule: &Value| -> Vec<Value> {
        let resources = rule["resources"].as_array().cloned().unwrap_or_default();
        let narrowed = resources.into_iter().map(|it| {
            let mut one = rule.clone();
            if it == resource
                && let Some(verbs) = one["verbs"].as_array_mut()
            {
                verbs.retain(|it| *it != verb);
            }
            one["resources"] = json!([it]);
            one
        });
        narrowed.filter(|it| it["verbs"] != json!([])).collect()
    };
    rules.as_array().into_iter().flatten().flat_map(of_rule).collect()
}
