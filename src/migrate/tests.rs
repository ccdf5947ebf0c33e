//! The cases in tests/migrate: what objects become, word for word, and that crier accepts it. Floor 1.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Migration, SecretFiles, migrate};
use crate::config::{Config, Secrets, SourceFile, parse};
use crate::k8s::annotation;
use crate::manifests::document::{Format, objects};
use crate::world::Egress;

struct AnySecret;

impl Secrets for AnySecret {
    fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Ok(b"secret".to_vec())
    }
}

fn migrated(yaml: &str) -> Migration {
    migrate(objects(yaml, Format::Yaml).expect("sound YAML"), &SecretFiles::default())
}

/// The configuration that the text is; the text is shown where it is none.
fn loaded(migration: &Migration) -> Config {
    let file = SourceFile { path: "crier.toml".to_owned(), text: migration.toml.clone() };
    parse(&[file], &AnySecret).unwrap_or_else(|complaints| panic!("{complaints}\n{}", migration.toml))
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate").join(name)
}

fn of_case(name: &str) -> Migration {
    migrated(&fs::read_to_string(case(name)).expect("the case is there"))
}

/// The warnings, one a line.
fn warnings(migration: &Migration) -> String {
    migration.warnings.iter().fold(String::new(), |mut text, warning| {
        let _ = writeln!(text, "{warning}");
        text
    })
}

#[test]
fn each_case_becomes_its_snapshot_and_crier_accepts_it() {
    let write = std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(case("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    cases.sort();
    assert!(cases.len() >= 4, "the cases are found: {cases:?}");
    let mut wrong = String::new();
    for path in cases {
        let migration = migrated(&fs::read_to_string(&path).unwrap());
        loaded(&migration);
        for (end, text) in [("toml", migration.toml.clone()), ("stderr", warnings(&migration))] {
            let snapshot = path.with_extension(end);
            if write {
                fs::write(&snapshot, &text).unwrap();
            }
            let expected = fs::read_to_string(&snapshot).unwrap_or_default();
            if expected != text {
                let _ = writeln!(wrong, "{}:\n{text}\ninstead of\n{expected}", snapshot.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_guide_of_four_services_keeps_its_four_addresses() {
    let config = loaded(&of_case("kubeflow-guide.yaml"));
    let addresses: Vec<String> = config.pools[0].addresses[0].iter().map(|address| address.to_string()).collect();
    let expected = ["192.168.35.100", "192.168.35.101", "192.168.35.102", "192.168.35.103"];
    assert_eq!(addresses[..4], expected);
    assert_eq!(config.l2[0].pools, config.pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>());
}

#[test]
fn the_lab_of_four_nodes_has_its_fifty_addresses() {
    let config = loaded(&of_case("four-node-lab.yaml"));
    let range = &config.pools[0].addresses[0];
    let ends = (range.first().to_string(), range.last().to_string(), range.count());
    assert_eq!(ends, ("172.42.42.201".to_owned(), "172.42.42.250".to_owned(), 50));
    assert_eq!(config.l2.len(), 1);
}

#[test]
fn both_former_config_maps_mean_what_they_meant() {
    let config = loaded(&of_case("config-map-v0.9.3.yaml"));
    assert_eq!((config.pools.len(), config.l2.len(), config.bgp.peers.len()), (1, 1, 0));
    let config = loaded(&of_case("config-map-v0.11.yaml"));
    assert_eq!(config.l2[0].pools, [config.pools[0].name.clone()], "only the pool with protocol layer2");
    let peers: Vec<(&str, u32)> = config.bgp.peers.iter().map(|peer| (peer.name.as_str(), peer.local_asn)).collect();
    assert_eq!(peers, [("peer1", 64512), ("peer2", 64512)]);
    let advertisement = &config.bgp.advertisements[0];
    assert_eq!((advertisement.aggregation_length, advertisement.local_preference), (32, Some(100)));
    assert_eq!(advertisement.communities.len(), 1);
}

#[test]
fn metallb_s_traps_are_avoided() {
    let migration = of_case("metallb-traps.yaml");
    let config = loaded(&migration);
    let pool = |name: &str| config.pools.iter().find(|pool| pool.name.as_str() == name).expect(name);
    assert_eq!((pool("last").priority, pool("first").priority), (None, Some(50)), "0 is last for MetalLB");
    assert_eq!(pool("last").addresses[0].first().to_string(), "192.168.10.0", "host bits are dropped");
    let front = pool("first").service_selector.as_ref().map(ToString::to_string);
    assert_eq!(front.as_deref(), Some("tier in (edge, front)"), "two selectors are one where that is possible");
    let nodes: Vec<_> = config.l2.iter().map(|l2| l2.nodes.as_ref().map(ToString::to_string)).collect();
    assert_eq!(
        nodes,
        [Some("rack=a".to_owned()), Some("edge".to_owned())],
        "of several node selectors each is an [[l2]]"
    );
    assert!(config.l2.iter().all(|l2| l2.pools.len() == 1), "no [[l2]] is for all pools by mistake");
    let peers: Vec<&str> = config.bgp.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(peers, ["tor", "tor-2", "unnumbered"]);
    assert_eq!(config.bgp.peers.iter().map(|peer| peer.local_asn).collect::<Vec<_>>(), [64512, 64512, 64600]);
    assert_eq!(config.bgp.advertisements.len(), 1, "without its communities an advertisement would say more");
    assert_eq!(config.bgp.advertisements[0].peers.len(), 2, "both peers that tor has become");
    let said = warnings(&migration);
    for named in ["\"gone\"", "team in (shop, web)", "green", "spec.futureField {\"a\":1}", "\ngraceful-restart = true"]
    {
        assert!(said.contains(named) || migration.toml.contains(named), "{named} is named in:\n{said}");
    }
}

/// The annotations that the file's lines would give the Services, by namespace and name.
fn annotated(migration: &Migration) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut services = BTreeMap::new();
    for line in migration.toml.lines().filter_map(|line| line.strip_prefix("#   kubectl -n ")) {
        let (namespace, rest) = line.split_once(" annotate --overwrite service ").expect("the line has its form");
        let (name, mut rest) = rest.split_once(' ').expect("an annotation");
        let annotations: &mut BTreeMap<String, String> = services.entry(format!("{namespace}/{name}")).or_default();
        while !rest.is_empty() {
            let (word, left) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').expect("the quote ends"),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            let (key, value) = word.split_once('=').expect("key=value");
            annotations.insert(key.to_owned(), value.to_owned());
            rest = left.trim_start();
        }
    }
    services
}

#[test]
fn crier_reads_of_the_annotations_what_the_others_were_told() {
    let services = annotated(&of_case("egress-others.yaml"));
    let named: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(named, ["default/plain", "shop/by-network", "voice/bad", "voice/sip"], "shop/done has its annotation");
    let read = |service: &str| {
        let annotations = Some(&services[service]);
        let request = annotation::request(annotations, None).unwrap_or_else(|error| panic!("{service}: {error}"));
        (request, annotation::egress(annotations).expect("egress"))
    };
    let (request, (egress, bounds)) = read("voice/sip");
    assert_eq!(request.addresses, ["192.168.0.245", "fd00::245"].map(|it| it.parse::<IpAddr>().unwrap()));
    assert_eq!(egress, Egress::ServiceAddress);
    let destinations = bounds.expect("bounds").destinations.clone().expect("destinations");
    for (destination, covered) in [
        ("192.168.0.8", true),
        ("192.168.0.9", false),
        ("172.18.0.7", true),
        ("172.18.0.8", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(destinations.covers(destination.parse().unwrap()), covered, "{destination}");
    }
    let (_, (egress, bounds)) = read("default/plain");
    let nodes = bounds.expect("bounds").nodes.clone().map(|nodes| nodes.to_string());
    assert_eq!((egress, nodes.as_deref()), (Egress::ServiceAddress, Some("!gpu, rack in (a, b)")));
    assert_eq!(read("shop/by-network").1, (Egress::Network, None), "a selector would hold the pods of other nodes");
}

#[test]
fn a_vrf_has_the_port_with_addresses_first_and_is_for_all_nodes_only_where_the_policy_is() {
    let config = loaded(&of_case("egress-others.yaml"));
    let red = &config.vrfs[0];
    let interfaces: Vec<&str> = red.interfaces.iter().map(|it| it.as_str()).collect();
    assert_eq!((config.vrfs.len(), red.table, red.manage), (1, 1001, true));
    assert_eq!(interfaces, ["bond0.7", "eth1"], "crier adds addresses to the first");
    assert_eq!(red.addresses, ["192.0.2.10/24".parse().unwrap()]);
    let routes: Vec<String> = red.routes.iter().map(|route| format!("{} by {}", route.to, route.via)).collect();
    assert_eq!(routes, ["0.0.0.0/0 by 192.0.2.1"], "the one with the better metric");
    let guide = of_case("openshift-vrf.yaml");
    assert!(loaded(&guide).vrfs.is_empty() && guide.toml.contains("#name = \"ens4vrf\""), "it is for some nodes");
    assert_eq!(loaded(&guide).bgp.advertisements.len(), 1, "the label of OVN-Kubernetes goes, the advertisement stays");
}

const PEER: &str = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: tor, namespace: m}\nspec: {myASN: 1, peerASN: 2, \
                    peerAddress: 10.0.0.1, passwordSecret: {name: md5}}\n---\napiVersion: v1\nkind: Secret\n\
                    metadata: {name: md5, namespace: m}\ndata: {password: aHVudGVyMg==}\n";

#[test]
fn a_password_is_in_no_text_and_in_its_file_only_if_that_is_asked_for() {
    let silent = migrated(PEER);
    assert!(silent.toml.contains("password-file = \"/etc/crier/tor.md5\""), "{}", silent.toml);
    assert!(silent.passwords.is_empty() && warnings(&silent).contains("is not printed"));
    let files = SecretFiles { folder: "/tmp/secrets".into(), written: true };
    let written = migrate(objects(PEER, Format::Yaml).unwrap(), &files);
    assert_eq!(written.passwords[0].secret.expose(), b"hunter2");
    assert_eq!(written.passwords[0].file, Path::new("/tmp/secrets/tor.md5"));
    assert!(
        written.toml.contains("password-file = \"/tmp/secrets/tor.md5\"") && !warnings(&written).contains("password")
    );
    for text in [format!("{silent:?}"), format!("{written:?}"), warnings(&silent), silent.toml] {
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    }
    let inline = PEER.replace("passwordSecret: {name: md5}", "password: hunter2").replace("v1beta2", "v1beta1");
    assert!(!migrated(&inline).toml.contains("hunter2") && !warnings(&migrated(&inline)).contains("hunter2"));
    let number = PEER.replace("passwordSecret: {name: md5}", "password: 4711");
    assert!(!migrated(&number).toml.contains("4711") && !warnings(&migrated(&number)).contains("4711"));
    for misplaced in ["passwordSecret: hunter2", "Passwd: hunter2", "bgpSecret: [hunter2]"] {
        let said = warnings(&migrated(&PEER.replace("passwordSecret: {name: md5}", misplaced)));
        assert!(said.contains(misplaced.split(':').next().unwrap()) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn what_no_api_server_would_accept_is_named_and_panics_nowhere() {
    let kinds = [
        ("metallb.io/v1beta1", "IPAddressPool"),
        ("metallb.io/v1beta1", "AddressPool"),
        ("metallb.io/v1beta1", "L2Advertisement"),
        ("metallb.io/v1beta1", "BGPAdvertisement"),
        ("metallb.io/v1beta1", "Community"),
        ("metallb.io/v1beta1", "BFDProfile"),
        ("metallb.io/v1beta2", "BGPPeer"),
        ("network.kubesphere.io/v1alpha2", "Eip"),
        ("network.kubesphere.io/v1alpha2", "BgpConf"),
        ("network.kubesphere.io/v1alpha2", "BgpPeer"),
        ("purelb.io/v1", "ServiceGroup"),
        ("purelb.io/v1", "LBNodeAgent"),
        ("k8s.ovn.org/v1", "EgressService"),
        ("nmstate.io/v1", "NodeNetworkConfigurationPolicy"),
    ];
    let specs = [
        "null",
        "5",
        "[]",
        "{addresses: 5, nodeSelectors: {a: b}, myASN: many, peerAddress: [1], local: [], conf: 7, communities: x}",
        "{addresses: [1, null, {}], nodeSelectors: [1], interfaces: [{}], peers: [5], local: {v4pool: 5}, timers: {config: 1}}",
        "{addresses: ['10.0.0.9-10.0.0.1', '1.2.3.4-::1', 'x', '127.0.0.0/8'], serviceAllocation: {priority: -5}}",
        "{addresses: ['\\u0000\\n[[pool]]'], address: \"\\n[bgp]\", peerAddress: \"\\\"\\nx = 1\", peerASN: 99999999999}",
        "{nodeSelectors: [{matchLabels: {'a b': '\\n'}, matchExpressions: [{key: '', operator: Like}]}], holdTime: -5s}",
        "{sourceIPBy: LoadBalancerIP, network: \"2\\n[bgp]\", nodeSelector: {matchLabels: {'a b': '\\n'}}}",
        "{nodeSelector: {a: 5, b: \"\\n[[vrf]]\"}, desiredState: {interfaces: [{name: \"\\n[bgp]\", type: vrf, vrf: {port: [1, eth1, eth1], \
         route-table-id: 254}}, {name: eth1, ipv4: {address: [{ip: x, prefix-length: -1}, 5]}}, {type: vrf}, {name: red, type: vrf}], \
         routes: {config: [{destination: 0.0.0.0/0, next-hop-address: '::1', table-id: 254}, 7]}, \
         route-rules: {config: [{ip-to: 0.0.0.0/0, route-table: 254}, {ip-to: \"10.0.0.0/8\\n\"}]}}}",
        "{desiredState: {interfaces: {vrf: 1}, routes: [], route-rules: 9}}",
        "{communities: [{name: \"a\\\"\\n\", value: '1:2'}, {name: 'large:1:1:1', value: 'x'}], protocol: carrier-pigeon}",
    ];
    for (version, kind) in kinds {
        for spec in specs {
            let yaml =
                format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: \"Bad\\nName\"}}\nspec: {spec}\n");
            let Ok(objects) = objects(&yaml, Format::Yaml) else { continue };
            let migration = migrate(objects, &SecretFiles::default());
            loaded(&migration);
            assert!(warnings(&migration).lines().count() == migration.warnings.len(), "a warning is one line");
        }
    }
}

#[test]
fn a_config_map_that_is_no_yaml_is_named_and_nothing_of_it_is_taken() {
    let deep = format!("address-pools: {}", "[".repeat(100_000));
    for text in ["address-pools: [", "peers:\n- {a: &x [*x]}", "address-pools: 5", "peers: [5, {}]", &deep] {
        let map = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "config"}, "data": {"config": text}});
        let migration = migrate(vec![map], &SecretFiles::default());
        assert_eq!(loaded(&migration).pools.len(), 0);
        assert!(!migration.warnings.is_empty(), "{}", &text[..20.min(text.len())]);
    }
}

#[test]
fn thousands_of_objects_are_no_burden() {
    let pool = |n: u32| {
        let (high, low) = (n / 256, n % 256);
        format!(
            "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: p{n}}}\nspec: {{addresses: [10.{high}.{low}.0/24]}}\n"
        )
    };
    let migration = migrated(&(0..2000).map(pool).collect::<String>());
    assert_eq!(loaded(&migration).pools.len(), 2000);
}

#[test]
fn what_configures_no_load_balancer_is_of_no_use() {
    let migration = migrated("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n");
    assert_eq!((migration.used, migration.skipped), (0, vec!["Service".to_owned()]));
}
