//! `crier kubeconfig` beside a real API server: what it creates, and that an agent allocates with what it writes.

use std::process::{Command, Output};

use rack::kubernetes::{Cluster, Proof, User};
use rack::{Need, Rack, Service, Site, eventually_equal, secs};

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
