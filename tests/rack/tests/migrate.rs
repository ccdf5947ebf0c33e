//! What `crier migrate` writes, in running agents: Services get the addresses that the other load balancer's objects stand for,
//! and one node answers for each. And the objects as they are read from a real API server.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rack::crier::Crier;
use rack::kubernetes::{Cluster, Proof, User};
use rack::{Metal, Need, Rack, Service, Site, eventually, eventually_equal, secs};

/// A file of tests/migrate.
fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrate").join(name)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The agents of all nodes, with what `crier migrate` made of a file.
fn migrated(rack: &Rack, metal: &Metal, name: &str) -> Vec<Crier> {
    let secrets = rack.folder().join("secrets");
    let file = case(name);
    let words = [file.to_str().expect("UTF-8"), "--write-secrets", secrets.to_str().expect("UTF-8")];
    let made = metal.migrate(&words);
    assert!(matches!(made.status.code(), Some(0 | 1)), "{}: {}", made.status, text(&made.stderr));
    let kubeconfig = metal.kubeconfig(User::Crier, Proof::Token, &metal.url());
    let toml = text(&made.stdout).replace("/etc/crier/kubeconfig", &kubeconfig.display().to_string());
    println!("{toml}");
    // There is no kube-proxy, and nobody sends traffic.
    let toml = format!("{toml}\n[node]\ndata-path = \"none\"\n");
    let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &toml)).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    agents
}

/// Applies Services one after the other; each must get its address, and one node must answer for it.
#[track_caller]
fn gives(metal: &Metal, expected: &[(&str, &str)]) {
    let _pod = metal.pod(0, "web", "web", &[8080]);
    for (name, address) in expected {
        metal
            .try_apply(&Service::new(name).selects("web").ports(&[(80, 8080)]).object())
            .expect("the API server takes it");
        let wanted = vec![(*address).to_owned()];
        eventually_equal(&format!("the address of {name}"), secs(20), &wanted, || {
            metal.ingress(&format!("service/{name}"))
        });
        let ip: Ipv4Addr = address.parse().expect("an IPv4 address");
        eventually(&format!("one node answers for {address}"), secs(20), || {
            let answering = metal.site.answering(ip);
            if answering.len() == 1 && answering[0].starts_with("node-") {
                Ok(())
            } else {
                Err(format!("{answering:?}"))
            }
        });
    }
}

#[test]
fn the_guide_of_four_services_has_its_four_addresses() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let _agents = migrated(&rack, &metal, "kubeflow-guide.yaml");
    let services = [
        ("dashboard", "192.168.35.100"),
        ("gateway", "192.168.35.101"),
        ("notebooks", "192.168.35.102"),
        ("pipelines", "192.168.35.103"),
    ];
    gives(&metal, &services);
}

#[test]
fn the_lab_of_four_nodes_gives_addresses_from_201_on() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "172.42.42.0/24", 4);
    let _agents = migrated(&rack, &metal, "four-node-lab.yaml");
    gives(&metal, &[("nginx", "172.42.42.201"), ("ghost", "172.42.42.202"), ("jenkins", "172.42.42.203")]);
}

#[test]
fn both_former_config_maps_run() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.1.0/24", 1);
    let agents = migrated(&rack, &metal, "config-map-v0.9.3.yaml");
    gives(&metal, &[("web", "192.168.1.240")]);
    agents.iter().for_each(|agent| assert!(agent.stop(secs(10)).success()));

    let agents = migrated(&rack, &metal, "config-map-v0.11.yaml");
    // The pool is not assigned from by itself, and its annotation is MetalLB's former one.
    let wan = Service::new("wan").annotation("metallb.universe.tf/address-pool", "wan");
    metal.try_apply(&wan.object()).expect("the API server takes it");
    let expected = vec!["198.51.100.0".to_owned()];
    eventually_equal("the address of wan", secs(20), &expected, || metal.ingress("service/wan"));
    let peers = agents[0].json("bgp peers");
    assert!(peers.to_string().contains("10.0.0.1"), "the first peer is every node's: {peers}");
    assert!(!peers.to_string().contains("10.0.1.1"), "the second is that of racks b, c and d: {peers}");
    let password = std::fs::read_to_string(rack.folder().join("secrets/peer2.md5")).expect("it was written");
    assert_eq!(password, "not-to-be-printed");
}

/// The nine kinds as MetalLB installs them, without their schemas.
fn kinds() -> String {
    let kinds = [
        ("IPAddressPool", "ipaddresspools", &["v1beta1"][..]),
        ("L2Advertisement", "l2advertisements", &["v1beta1"]),
        ("BGPAdvertisement", "bgpadvertisements", &["v1beta1"]),
        ("BGPPeer", "bgppeers", &["v1beta1", "v1beta2"]),
        ("BFDProfile", "bfdprofiles", &["v1beta1"]),
        ("Community", "communities", &["v1beta1"]),
        ("ServiceL2Status", "servicel2statuses", &["v1beta1"]),
        ("ServiceBGPStatus", "servicebgpstatuses", &["v1beta1"]),
        ("ConfigurationState", "configurationstates", &["v1beta1"]),
    ];
    let mut yaml = String::new();
    for (kind, plural, versions) in kinds {
        let newest = versions.last().expect("each has one");
        let _ = write!(
            yaml,
            "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.metallb.io}}\n\
             spec:\n  group: metallb.io\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}}}\n  versions:\n"
        );
        for version in versions {
            let _ = writeln!(
                yaml,
                "  - {{name: {version}, served: true, storage: {}, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}",
                version == newest
            );
        }
    }
    yaml
}

#[test]
fn a_cluster_says_the_same_as_its_files() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    let admin = cluster.kubeconfig(User::Admin, Proof::Token, &cluster.url());
    let from_cluster = |more: &[&str]| {
        let words = ["--from-cluster", "--kubeconfig", admin.to_str().expect("UTF-8")];
        cluster.migrate(&[&words, more].concat())
    };

    let nothing = from_cluster(&[]);
    assert_eq!(nothing.status.code(), Some(2), "no kind is installed: {}", text(&nothing.stderr));
    assert!(text(&nothing.stderr).contains("configure no load balancer"), "{}", text(&nothing.stderr));

    let definitions = rack.write("kinds.yaml", &kinds());
    cluster.kubectl(&format!("apply -f {}", definitions.display()));
    cluster.kubectl("wait --for=condition=Established crd --all --timeout=30s");
    cluster.kubectl("create namespace metallb-system");
    cluster.kubectl("-n metallb-system create secret generic tor-password --from-literal=password=swordfish");
    let file = case("metallb-traps.yaml");
    cluster.kubectl(&format!("apply -f {}", file.display()));

    let (by_file, by_cluster) = (cluster.migrate(&[file.to_str().expect("UTF-8")]), from_cluster(&[]));
    assert_eq!(by_cluster.status.code(), Some(1), "{}", text(&by_cluster.stderr));
    // The API server lists by name, a file as it is written.
    let tables = |output: &Output| {
        let text = text(&output.stdout);
        let mut tables: Vec<String> = text.split("\n\n").map(|table| table.trim().to_owned()).collect();
        tables.sort();
        tables
    };
    assert_eq!(tables(&by_cluster), tables(&by_file), "{}", text(&by_cluster.stderr));
    // What the speaker is started with says whose Services were MetalLB's; no other workload says anything.
    let workload = |kind: &str, word: &str| {
        format!(
            "---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {kind}, namespace: metallb-system}}\nspec:\n\
             \x20 selector: {{matchLabels: {{app: it}}}}\n  template:\n    metadata: {{labels: {{app: it}}}}\n\
             \x20   spec: {{containers: [{{name: it, image: it, args: [{word}]}}]}}\n"
        )
        .replace("name: DaemonSet", "name: speaker")
        .replace("name: Deployment", "name: web")
    };
    let workloads = [workload("DaemonSet", "--lb-class=metallb"), workload("Deployment", "--class=lb")].concat();
    cluster.kubectl(&format!("apply -f {}", rack.write("workloads.yaml", &workloads).display()));
    let told = text(&from_cluster(&[]).stdout);
    assert!(told.contains("default-class = false") && told.contains("\"metallb\""), "{told}");

    let secrets = rack.folder().join("secrets");
    let with_secrets = from_cluster(&["--write-secrets", secrets.to_str().expect("UTF-8")]);
    let toml = text(&with_secrets.stdout);
    assert!(!toml.contains("swordfish") && !text(&with_secrets.stderr).contains("swordfish"), "never printed: {toml}");
    let password = std::fs::read_to_string(secrets.join("tor.md5")).expect("it was written");
    assert_eq!(password, "swordfish");
    let written = rack.write("crier.toml", &toml);
    let mut check = Command::new(rack::crier::binary());
    let checked = cluster.host.output(check.args(["config", "check"]).arg(&written));
    assert!(checked.status.success(), "{}\n{toml}", text(&checked.stderr));
}

/// The kinds of OVN-Kubernetes and NMState that are read, without their schemas.
const OTHER_KINDS: [(&str, &str, &str, &str); 2] = [
    ("k8s.ovn.org", "EgressService", "egressservices", "Namespaced"),
    ("nmstate.io", "NodeNetworkConfigurationPolicy", "nodenetworkconfigurationpolicies", "Cluster"),
];

#[test]
fn the_egress_and_the_vrfs_of_others_are_read_from_a_cluster_too() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let cluster = Cluster::start(&site);
    let admin = cluster.kubeconfig(User::Admin, Proof::Token, &cluster.url());
    let mut definitions = kinds();
    for (group, kind, plural, scope) in OTHER_KINDS {
        let _ = write!(
            definitions,
            "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\n\
             spec:\n  group: {group}\n  scope: {scope}\n  names: {{kind: {kind}, plural: {plural}}}\n  versions:\n\
             \x20 - {{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
        );
    }
    let definitions = rack.write("kinds.yaml", &definitions);
    cluster.kubectl(&format!("apply -f {}", definitions.display()));
    cluster.kubectl("wait --for=condition=Established crd --all --timeout=30s");
    for namespace in ["metallb-system", "test"] {
        cluster.kubectl(&format!("create namespace {namespace}"));
    }
    let file = case("openshift-vrf.yaml");
    // The API server ends requests for objects of a kind while it takes in the definitions of others.
    eventually("the objects are taken", secs(30), || cluster.try_kubectl(&format!("apply -f {}", file.display())));
    cluster.kubectl("-n test create service loadbalancer sip --tcp=5060");
    cluster.kubectl("-n test annotate service sip kube-vip.io/egress=true");

    let made = cluster.migrate(&["--from-cluster", "--kubeconfig", admin.to_str().expect("UTF-8")]);
    assert_eq!(made.status.code(), Some(1), "{}", text(&made.stderr));
    let toml = text(&made.stdout);
    for line in [
        "#name = \"ens4vrf\"",
        "#   kubectl -n test annotate --overwrite service server1 crier.dev/egress=service-ip crier.dev/egress-nodes=vrf=true",
        "#   kubectl -n test annotate --overwrite service sip crier.dev/egress=service-ip",
    ] {
        assert!(toml.lines().any(|it| it == line), "{line} in:\n{toml}");
    }
    // The lines do what they say, and then there is nothing left to be done.
    for line in toml.lines().filter_map(|line| line.strip_prefix("#   kubectl ")) {
        cluster.kubectl(line);
    }
    let again = cluster.migrate(&["--from-cluster", "--kubeconfig", admin.to_str().expect("UTF-8")]);
    assert!(!text(&again.stdout).contains("kubectl -n"), "{}", text(&again.stdout));
}
