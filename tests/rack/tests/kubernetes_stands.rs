//! The control plane of the rack stands and kube-proxy balances, also for load balancer addresses, which here the test
//! itself writes into the status: everything around crier works before crier does.

use std::net::{IpAddr, SocketAddr};

use rack::faults::Faults;
use rack::kubernetes::{Cluster, Method, Proof, User};
use rack::{Need, Pod, Rack, Service, Site, eventually, millis, secs, throughout};
use serde_json::json;

/// Two nodes with kube-proxy, and a pod of the Service `web` on each.
struct Shop {
    pods: Vec<Pod>,
    cluster: Cluster,
    site: Site,
    _proxies: Vec<rack::Process>,
}

fn shop(rack: &Rack) -> Shop {
    let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", 2);
    let cluster = Cluster::start(&site);
    let pods: Vec<Pod> = site.nodes.iter().map(|node| node.pod(&format!("web-{}", node.name()), &[8080])).collect();
    pods.iter().for_each(|pod| cluster.register_pod(pod, &json!({ "app": "web" })));
    let proxies = site.nodes.iter().map(|node| cluster.kube_proxy(node)).collect();
    Shop { pods, cluster, site, _proxies: proxies }
}

fn service(policy: &str) -> String {
    Service::new("web")
        .policy(policy)
        .families(&["IPv4", "IPv6"])
        .selects("web")
        .ports(&[(80, 8080)])
        .object()
        .to_string()
}

/// Asks until `answer` says yes, as kube-proxy takes its time.
fn eventually_answers(what: &str, ask: impl Fn() -> std::io::Result<rack::client::Answer>) -> rack::client::Answer {
    eventually(what, secs(20), || ask().map_err(|error| error.to_string()))
}

/// Asks until both pods answer.
fn eventually_balances(what: &str, client: &rack::Namespace, to: SocketAddr) {
    eventually(&format!("kube-proxy balances {what}"), secs(20), || {
        let by_pod = client.get_many(to, 40);
        if by_pod.keys().eq(["web-node-1", "web-node-2"]) { Ok(()) } else { Err(format!("{by_pod:?}")) }
    });
}

#[test]
fn the_control_plane_stands_and_its_users_are_who_they_say() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes]) else { return };
    let site = Site::new(&rack, "10.0.0.0/24", "fd00::/64", 2);
    let cluster = Cluster::start(&site);
    println!("the control plane stood after {:?}", cluster.stood_after);
    let nodes = cluster.kubectl("get nodes --no-headers");
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 2, "{nodes}");
    for proof in [Proof::Token, Proof::ClientCertificate] {
        let kubeconfig = cluster.kubeconfig(User::Crier, proof, &cluster.url());
        let user = cluster.kubectl(&format!(
            "--kubeconfig {} auth whoami -o jsonpath={{.status.userInfo.username}}",
            kubeconfig.display()
        ));
        assert_eq!(user, "crier", "{proof:?}");
    }
    let mut in_pod = std::process::Command::new("sh");
    in_pod.args(["-c", "echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; cat /run/secrets/*/*/token"]);
    cluster.in_cluster(&mut in_pod, User::Crier, (cluster.host.address, 6443).into());
    let seen = String::from_utf8(site.node(0).output(&mut in_pod).stdout).unwrap();
    assert_eq!(seen, format!("10.0.0.2:6443\n{}", User::Crier.token()), "a process in a pod finds the API server");
    assert!(!std::path::Path::new("/run/secrets/kubernetes.io").exists(), "and the host's own /run is not touched");

    cluster.set_node_ready("node-2", false);
    let nodes = cluster.kubectl("get nodes --no-headers");
    assert_eq!(nodes.lines().filter(|line| line.contains(" NotReady ")).count(), 1, "{nodes}");

    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: kept }\ndata: { a: b }");
    cluster.stop_api_server();
    assert_eq!(cluster.try_apply(&json!({ "kind": "ConfigMap", "metadata": { "name": "x" } })).unwrap_err().status, 0);
    cluster.restart_api_server();
    assert_eq!(cluster.get("configmap/kept").expect("etcd keeps what it knew")["data"]["a"], "b");
    cluster.delete("configmap/kept");
    assert_eq!(cluster.get("configmap/kept"), None, "it was deleted");
}

#[test]
fn a_service_answers_on_its_cluster_address_and_on_its_load_balancer_address() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes]) else { return };
    let Shop { pods, cluster, site, _proxies } = shop(&rack);
    let client = &site.client;
    let service_object = &cluster.apply(&service("Cluster"))[0];
    let all: Vec<IpAddr> = pods.iter().flat_map(|pod| [IpAddr::from(pod.address), pod.address6.into()]).collect();
    cluster.wait_endpoints("web", &all, secs(20));

    for family in 0..2 {
        let ip: IpAddr = service_object["spec"]["clusterIPs"][family].as_str().unwrap().parse().unwrap();
        for node in &site.nodes {
            eventually_answers(&format!("{ip} answers {}", node.name()), || node.get((ip, 80)));
        }
        eventually_balances(&format!("{ip} over both pods"), site.node(0), (ip, 80).into());
    }

    // The load balancer's part, by hand: an address in the status, and the client told whose hardware it is behind.
    let addresses: [IpAddr; 2] = ["192.168.35.100".parse().unwrap(), "fd35::100".parse().unwrap()];
    cluster.patch_status(
        "service/web",
        &json!({ "loadBalancer": { "ingress": [
            { "ip": addresses[0], "ipMode": "VIP" }, { "ip": addresses[1], "ipMode": "VIP" },
        ]}}),
    );
    assert_eq!(cluster.ingress("service/web"), ["192.168.35.100", "fd35::100"]);
    for (address, own) in addresses.into_iter().zip([IpAddr::from(client.address), client.address6.into()]) {
        client.ip(&format!("neighbour replace {address} lladdr {} dev eth0", site.node(0).port.mac()));
        let to = SocketAddr::from((address, 80));
        eventually_answers("the address answers under policy Cluster", || client.get(to));
        eventually_balances(&format!("{address} over both pods under policy Cluster"), client, to);

        cluster.apply(&service("Local"));
        let answer = eventually(&format!("only the local pod serves {address}, and sees the client"), secs(20), || {
            let by_pod = client.get_many(to, 10);
            let answer = client.get(to).map_err(|error| error.to_string())?;
            let seen = format!("{by_pod:?}, then {answer:?}");
            if by_pod.keys().eq(["web-node-1"]) && answer.source == Some(own) { Ok(answer) } else { Err(seen) }
        });
        assert_eq!(answer.name, "web-node-1");
        cluster.apply(&service("Cluster"));
    }

    cluster.apply(&service("Local"));
    cluster.set_pod_ready("web-node-1", false);
    let others: Vec<IpAddr> = vec![pods[1].address.into(), pods[1].address6.into()];
    cluster.wait_endpoints("web", &others, secs(20));
    eventually("under policy Local a node without a ready pod does not answer", secs(20), || {
        client.get((addresses[0], 80)).map_or(Ok(()), |answer| Err(format!("{answer:?}")))
    });
    client.ip(&format!("neighbour replace {} lladdr {} dev eth0", addresses[0], site.node(1).port.mac()));
    let answer = eventually_answers("the other node answers", || client.get((addresses[0], 80)));
    assert_eq!(answer.name, "web-node-2");
}

#[test]
fn the_faults_before_the_api_server_are_those_that_were_ordered() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes]) else { return };
    let site = Site::new(&rack, "10.0.0.0/24", "fd00::/64", 0);
    let cluster = Cluster::start(&site);
    let faults = Faults::before(&cluster);
    let api = cluster.api_at(faults.url());
    api.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: seen }\ndata: { a: b }");
    assert_eq!(api.get("configmap/seen").expect("what was applied through it is there")["data"]["a"], "b");

    let path = "/api/v1/namespaces/default/configmaps";
    let status = || api.call(Method::GET, path, None).map_or_else(|refusal| refusal.status, |_| 200);
    for code in [410, 429, 500] {
        let left = faults.answer(code, "configmaps", 2);
        assert_eq!([status(), status(), status()], [code, code, 200], "two answers, then the truth");
        assert_eq!(left.count(), 0);
    }
    let others = faults.answer(500, "secrets", 1);
    assert_eq!((status(), others.count()), (200, 1), "another path is not touched");
    let _without_end = faults.answer(500, "configmaps", usize::MAX);
    assert_eq!(status(), 500);
    faults.behave();
    assert_eq!(status(), 200, "forgotten");

    std::thread::scope(|scope| {
        let held = faults.hold("GET configmaps");
        let asked = scope.spawn(status);
        throughout("it is held back", millis(300), || if asked.is_finished() { Err("answered") } else { Ok(()) });
        drop(held);
        assert_eq!(asked.join().expect("it does not panic"), 200);
    });

    // A watch comes back when it ends, with all of its lines.
    let watch = |end: &dyn Fn(), seen_before: usize| {
        let path = format!("{path}?watch=true&timeoutSeconds=60");
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| api.call(Method::GET, &path, None));
            let asked = || faults.requests().iter().filter(|request| request.contains("watch=true")).count();
            eventually("the watch was asked for", secs(10), || match asked() {
                count if count > seen_before => Ok(()),
                count => Err(count),
            });
            eventually("the watch ends when it is ordered", secs(20), || {
                end();
                if watching.is_finished() { Ok(()) } else { Err("it goes on") }
            });
            watching.join().unwrap()
        })
    };
    let closed = watch(&|| faults.close_watches(), 0).expect("a closed watch ends cleanly").to_string();
    assert!(!closed.contains("ERROR"), "{closed}");
    let expired = watch(&|| faults.expire_watches(), 1).expect("an expired watch ends cleanly").to_string();
    assert!(expired.contains("ERROR") && expired.contains("410"), "{expired}");
    let refusal = watch(&|| faults.cut(), 2).expect_err("a cut watch does not end cleanly");
    assert_eq!(refusal.status, 0, "{refusal}");

    faults.go_away();
    assert_eq!(status(), 0, "it refuses connections");
    assert!(cluster.get("configmap/seen").is_some(), "the API server itself is still there");
    faults.come_back();
    assert_eq!(status(), 200, "and is back");
}
