//! The cases in tests/migrate: what objects become, word for word, and that crier accepts it. Floor 1.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Migration, SecretFiles, migrate};
use crate::clock;
use crate::config::{Config, Kubernetes, Secrets, Source, SourceFile, parse};
use crate::k8s::annotation;
use crate::k8s::raw::{self, Kind};
use crate::k8s::service::{ServiceFields, service};
use crate::manifests::document::{Format, objects};
use crate::plan::Planner;
use crate::plan::decision::Decision;
use crate::world::{ApiServer, Egress, Fact};

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
        // What stands on standard error alone is lost with it.
        let lost = migration.warnings.iter().filter(|it| {
            let text = super::shown::one_line(&it.text);
            let is_cause =
                ["there is no such operator", "this is not a label selector"].iter().any(|of| text.starts_with(of));
            let is_line = text.starts_with("crier reads this from annotations of the Service");
            !is_cause && !is_line && !migration.toml.contains(&text)
        });
        lost.for_each(|it| wrong += &format!("{}: the file does not say: {it}\n", path.display()));
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
    assert_eq!(named, ["default/plain", "shop/by-network", "voice/sip"], "shop/done has its annotation");
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

/// Input: the guide of OpenShift, where an EgressService names table 2, which is the VRF's. Output: the pool of the Service
/// names the VRF, so that pods leave by it, and no human is asked. Where that would end an announcement, or the VRF or the pool cannot be
/// found, one is.
#[test]
fn the_network_of_an_egress_service_is_the_vrf_of_its_pool() {
    let guide = fs::read_to_string(case("openshift-vrf.yaml")).expect("the case is there");
    let with = |from: &str, to: &str| {
        assert!(guide.contains(from), "{from}");
        let migration = migrated(&guide.replace(from, to));
        let asked = migration.warnings.iter().filter(|it| it.field == "spec.network").map(|it| it.text.clone());
        let vrf = loaded(&migration).pools[0].vrf.as_ref().map(ToString::to_string);
        (vrf, asked.collect::<Vec<_>>().concat())
    };
    let red = || (Some("ens4vrf".to_owned()), String::new());
    assert_eq!(with("network: \"2\"", "network: \"2\""), red());
    assert_eq!(with("network: \"2\"", "network: ens4vrf"), red());
    assert_eq!(
        with("  nodeSelector: {vrf: \"true\"}\n  maxUnavailable: 3\n", ""),
        red(),
        "the [[vrf]] is for all nodes"
    );
    assert_eq!(with("annotations: {metallb.io/address-pool: first-pool}", "annotations: {}"), red(), "by the label");
    assert_eq!(with("sourceIPBy: LoadBalancerIP", "sourceIPBy: Network"), red());
    let asks = |(vrf, asked): (Option<String>, String), why: &str| {
        assert!(vrf.is_none() && asked.contains(why), "{why}: {vrf:?} {asked}");
    };
    asks(with("network: \"2\"", "network: \"3\""), "no VRF among the objects has this table");
    asks(with("address-pool: first-pool", "address-pool: other"), "the file has no pool other");
    asks(with(", vrf: ens4vrf}", "}"), "announced to the peer frrviavrf too, which is not in ens4vrf");
    let unnamed = guide.replace("annotations: {metallb.io/address-pool: first-pool}", "annotations: {}");
    let without_label = migrated(&unnamed.replace("matchLabels: {egress-service", "matchLabels: {other"));
    assert!(without_label.warnings.iter().any(|it| it.text.contains("which pool the address is from is not known")));
    let l2 = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: l2, namespace: metallb-system}\n\
              spec: {ipAddressPools: [first-pool]}\n---\n";
    let also = migrated(&format!("{l2}{guide}"));
    assert!(also.warnings.iter().any(|it| it.text.contains("announced on links too that are not in ens4vrf")));
    let inside = migrated(&format!("{}{guide}", l2.replace("[first-pool]", "[first-pool], interfaces: [ens4]")));
    assert_eq!(loaded(&inside).pools[0].vrf, Some("ens4vrf".into()));
}

/// Which addresses the Services of a case have with the migrated file, once the lines at its end were run. One that crier does not serve
/// is not there.
fn served(name: &str) -> BTreeMap<String, Vec<String>> {
    let yaml = fs::read_to_string(case(name)).expect("the case is there");
    let migration = migrated(&yaml);
    let (mut config, lines) = (loaded(&migration), annotated(&migration));
    let Source::Kubernetes(Kubernetes { classes, .. }) = &config.source else { panic!("[kubernetes] is written") };
    let classes = classes.clone();
    let folder = SourceFile { path: "m.toml".to_owned(), text: "[manifests]\nfolder = \"/m\"\n".to_owned() };
    config.source = parse(&[folder], &AnySecret).unwrap_or_else(|complaints| panic!("{complaints}")).source;
    let mut planner = Planner::new(Arc::new(config), "node-1".into());
    let first = [Fact::ApiServer(ApiServer::Manifests), Fact::LinksListed, Fact::FailStatic];
    first.into_iter().for_each(|fact| planner.apply(fact));
    for mut object in objects(&yaml, Format::Yaml).expect("sound YAML") {
        if object["kind"] != "Service" {
            continue;
        }
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        let key = format!("{}/{}", metadata["namespace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        let own = metadata.entry("annotations").or_insert_with(|| serde_json::json!({}));
        let own = own.as_object_mut().expect("annotations");
        own.retain(|_, value| value.is_string());
        own.extend(lines.get(&key).into_iter().flatten().map(|(key, value)| (key.clone(), value.as_str().into())));
        let object: raw::Object<ServiceFields> = serde_json::from_value(object).expect("a Service");
        let service = service(&object).expect("it can be read");
        if service.class.as_ref().is_none_or(|class| classes.contains(class)) {
            planner.apply(ServiceFields::translate(&object).expect("it can be read").expect("a Fact"));
        }
    }
    planner.turn(clock::now());
    let decisions = &planner.plan().decisions;
    let held = |decision: &Decision| decision.allocation.held.iter().map(|held| held.address.to_string()).collect();
    decisions.iter().map(|(key, decision)| (key.to_string(), held(decision))).collect()
}

fn of<const N: usize>(expected: [(&str, &[&str]); N]) -> BTreeMap<String, Vec<String>> {
    let owned = |addresses: &[&str]| addresses.iter().map(|it| (*it).to_owned()).collect();
    expected.into_iter().map(|(service, addresses)| (service.to_owned(), owned(addresses))).collect()
}

/// Each of these is named in a warning, and below the Service's name in the file.
#[track_caller]
fn warns(migration: &Migration, service: &str, words: &[&str]) {
    let said = warnings(migration);
    let has = |line: &&str| line.contains(service) && words.iter().all(|word| line.contains(word));
    assert!(said.lines().any(|line| has(&line)), "{service}: {words:?} in one line of:\n{said}");
}

#[test]
fn services_of_kube_vip_keep_the_addresses_that_they_share_and_their_class_is_served() {
    let expected = of([
        ("dev/a", &["192.168.1.211"]),
        ("dev/b", &["192.168.1.211"]),
        ("dev/c", &[]),
        ("one/both", &[]),
        ("one/dns", &["192.168.2.12"]),
        ("two/dns-tcp", &["192.168.2.12"]),
        ("two/elsewhere", &[]),
    ]);
    assert_eq!(served("kube-vip-services.yaml"), expected, "and not two/vpn of another class");
    let migration = of_case("kube-vip-services.yaml");
    // Whoever has no address in the end is told with why.
    warns(&migration, "Service dev/c", &["192.168.1.211", "both have port 443/TCP"]);
    warns(&migration, "Service one/both", &["spec.loadBalancerIP", "keep one of them"]);
    warns(&migration, "Service two/elsewhere", &["192.168.1.212", "range-dev", "for namespaces dev"]);
    warns(&migration, "Service two/elsewhere", &["kube-vip.io/egress", "True"]);
    warns(&migration, "Service two/elsewhere", &["kube-vip.io/vipHost 5", "not text"]);
    warns(&migration, "Services two/vpn", &["spec.loadBalancerClass \"tailscale\"", "crier will not"]);
    warns(&migration, "Services dev/a, dev/b, dev/c", &["kube-vip.io/kube-vip-class"]);
    warns(&migration, "kube-system/kubevip", &["data.allow-share-dev", "crier.dev/share"]);
    assert!(!warnings(&migration).contains("allow-share-global"), "it allows nothing");
}

#[test]
fn services_of_purelb_have_their_group_address_and_key() {
    let expected = of([
        ("office/lost", &[]),
        ("office/mail", &["192.168.1.12"]),
        ("office/own", &[]),
        ("shop/web", &["192.168.1.12"]),
    ]);
    assert_eq!(served("purelb-services.yaml"), expected);
    let migration = of_case("purelb-services.yaml");
    warns(&migration, "Service office/lost", &["purelb.io/service-group \"gone\"", "no such ServiceGroup"]);
    warns(&migration, "Service office/lost", &["purelb.io/multi-pool"]);
    warns(&migration, "Services shop/web, office/mail", &["purelb.io/purelb"]);
    warns(&migration, "Services office/own", &["\"metallb\""]);
}

#[test]
fn services_of_openelb_have_their_eip_and_share_the_address_that_they_name() {
    let expected = of([
        ("shop/lost", &[]),
        ("shop/not-theirs", &[]),
        ("shop/old", &["192.168.0.95"]),
        ("shop/same", &["192.168.0.95"]),
        ("shop/web", &["192.168.0.91"]),
    ]);
    assert_eq!(served("openelb-services.yaml"), expected);
    let migration = of_case("openelb-services.yaml");
    warns(&migration, "Service shop/lost", &["\"gone\"", "no such Eip"]);
    warns(&migration, "Service shop/not-theirs", &["OpenELB serves only", "crier serves this one too"]);
}

#[test]
fn a_class_of_metallb_is_served_and_a_pool_or_address_that_the_file_lacks_is_told() {
    let migration = of_case("metallb-services.yaml");
    let all = served("metallb-services.yaml");
    assert_eq!(all["shop/web"], ["192.0.2.3"]);
    assert_eq!((all["shop/lost"].len(), all["shop/far"].len()), (0, 0));
    warns(&migration, "Services shop/web", &["spec.loadBalancerClass \"metallb\""]);
    warns(&migration, "Service shop/lost", &["pool \"gone\""]);
    warns(&migration, "Service shop/far", &["198.51.100.7", "names this address"]);
    warns(&migration, "Service shop/k3s", &["10.0.0.7", "shows this address"]);
    assert_eq!(migration.warnings.len(), 4, "and nothing more: {}", warnings(&migration));
}

/// Input: what MetalLB and kube-vip are started with, as `helm template` prints it. Output: these classes and no Services without one.
#[test]
fn a_class_on_the_command_line_of_another_load_balancer_is_the_only_one_that_is_served() {
    let pool = "kind: IPAddressPool\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\nspec: {addresses: [192.0.2.0/28]}\n---\n\
                kind: L2Advertisement\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\n";
    for (container, expected) in [
        ("args: [--port=7472, --lb-class=metallb]", Some("metallb")),
        ("command: [/controller, --lb-class, example.com/lb]", Some("example.com/lb")),
        ("env: [{name: lb_class_only, value: \"true\"}]", Some("kube-vip.io/kube-vip-class")),
        ("env: [{name: lb_class_only, value: \"true\"}, {name: lb_class_name, value: vip}]", Some("vip")),
        ("args: [manager, --lbClassOnly]", Some("kube-vip.io/kube-vip-class")),
        ("args: [manager, --lbClassOnly=true, --lbClassName, vip]", Some("vip")),
        ("args: [manager, --lbClassOnly=false, --lbClassName=vip]", None),
        ("args: [--lb-class=$(LB)], env: [{name: LB, value: foo}]", Some("foo")),
        ("command: [sh, -c, \"exec /controller --port=7472 --lb-class='a.b/c'\"]", Some("a.b/c")),
        ("env: [{name: lb_class_name, value: vip}]", None),
        ("args: [--lb-class=]", None),
        ("args: [5, {}]", None),
    ] {
        let workload = format!(
            "kind: Deployment\napiVersion: apps/v1\nmetadata: {{name: c, namespace: m}}\nspec: {{template: {{spec: {{containers: [{{{container}}}]}}}}}}\n"
        );
        let migration = migrated(&format!("{pool}---\n{workload}"));
        let Source::Kubernetes(Kubernetes { classes, default_class, .. }) = loaded(&migration).source else {
            panic!("[kubernetes] is written")
        };
        let named: Vec<&str> = classes.iter().map(String::as_str).filter(|class| *class != "crier.dev/crier").collect();
        assert_eq!((named, default_class), (Vec::from_iter(expected), expected.is_none()), "{container}");
        assert_eq!(migration.warnings.is_empty(), expected.is_none(), "{container}: {}", warnings(&migration));
        assert_eq!(migration.skipped.is_empty(), expected.is_some(), "{container}: {:?}", migration.skipped);
    }
}

/// Input: kube-vip's static Pod, and what MetalLB's operator is told. Output: the class alone.
#[test]
fn a_class_of_a_static_pod_and_of_an_operator_is_seen_too() {
    let pool = "kind: IPAddressPool\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\nspec: {addresses: [192.0.2.0/28]}\n---\n\
                kind: L2Advertisement\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\n";
    let env = "[{name: lb_class_only, value: \"true\"}, {name: lb_class_name, value: a.b/c}]";
    for (kind, spec, expected) in [
        ("Pod\napiVersion: v1", format!("{{containers: [{{env: {env}}}]}}"), &["a.b/c"][..]),
        ("MetalLB\napiVersion: metallb.io/v1beta1", "{loadBalancerClass: a.b/c}".to_owned(), &["a.b/c"]),
        ("MetalLB\napiVersion: metallb.io/v1beta1", "{logLevel: debug}".to_owned(), &[]),
    ] {
        let told = format!("kind: {kind}\nmetadata: {{name: c, namespace: m}}\nspec: {spec}\n");
        let migration = migrated(&format!("{pool}---\n{told}"));
        let Source::Kubernetes(Kubernetes { classes, default_class, .. }) = loaded(&migration).source else {
            panic!("[kubernetes] is written")
        };
        let named: Vec<&str> = classes.iter().map(String::as_str).filter(|class| *class != "crier.dev/crier").collect();
        assert_eq!((named, default_class), (expected.to_vec(), expected.is_empty()), "{told}");
    }
}

/// Input: a class that is no name of one, or stands in another object. Output: it is named, with a CHECK in the file, and
/// Services without a class are served: a file with `default-class = false` and no class serves nobody.
#[test]
fn a_class_that_cannot_be_read_is_named_and_leaves_the_default_class() {
    let pool = "kind: IPAddressPool\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\nspec: {addresses: [192.0.2.0/28]}\n---\n\
                kind: L2Advertisement\napiVersion: metallb.io/v1beta1\nmetadata: {name: lan}\n";
    let from = "valueFrom: {configMapKeyRef: {name: a, key: b}}";
    for (container, written) in [
        ("args: [--lb-class=$(LB)]".to_owned(), "$(LB)"),
        (format!("args: [--lb-class=$(LB)], env: [{{name: LB, {from}}}]"), "$(LB)"),
        ("args: ['--lb-class=\"metallb\"']".to_owned(), "metallb"),
        (format!("env: [{{name: lb_class_only, {from}}}]"), "$(lb_class_only)"),
        (format!("env: [{{name: lb_class_only, value: t}}, {{name: lb_class_name, {from}}}]"), "$(lb_class_name)"),
    ] {
        let workload = format!(
            "kind: DaemonSet\napiVersion: apps/v1\nmetadata: {{name: c, namespace: m}}\nspec: {{template: {{spec: {{containers: [{{{container}}}]}}}}}}\n"
        );
        let migration = migrated(&format!("{pool}---\n{workload}"));
        let Source::Kubernetes(Kubernetes { classes, default_class, .. }) = loaded(&migration).source else {
            panic!("[kubernetes] is written")
        };
        assert_eq!((classes, default_class), (vec!["crier.dev/crier".to_owned()], true), "{container}");
        warns(&migration, "DaemonSet m/c", &[written, "no name of a class"]);
        let check = migration.toml.lines().find(|line| line.contains("CHECK") && line.contains("no name of a class"));
        assert!(check.is_some_and(|line| line.contains(written)), "{}", migration.toml);
    }
}

/// Input: fields that migrate does not know, of an object with a table and of one without; a peer that is down. Output:
/// each stands as a CHECK in the file, and the peer stays down.
#[test]
fn what_is_left_out_is_in_the_file_too() {
    let migration = migrated(
        "kind: BgpConf\napiVersion: network.kubesphere.io/v1alpha2\nmetadata: {name: default}\n\
         spec: {as: 50000, asPerRack: {a: 1}}\n---\nkind: BgpPeer\napiVersion: network.kubesphere.io/v1alpha2\nmetadata: {name: p}\n\
         spec: {conf: {peerAs: 50001, neighborAddress: 192.168.0.5, adminDown: true}, transport: {mtuDiscovery: true}}\n",
    );
    let [peer] = loaded(&migration).bgp.peers.try_into().expect("one peer");
    assert!(peer.shutdown);
    let checks: Vec<&str> = migration.toml.lines().filter(|line| line.contains("CHECK")).collect();
    let place = |of: &str| migration.toml.find(of).unwrap_or_else(|| panic!("{of} in {}", migration.toml));
    assert!(checks.iter().any(|it| it.contains("BgpConf default: spec.asPerRack {\"a\":1}: ")), "{checks:?}");
    assert!(place("spec.transport.mtuDiscovery true: ") > place("[[bgp.peer]]"), "{}", migration.toml);
}

/// Input: pools whose names crier changes, and Services that name them. Output: lines with the names of the file.
#[test]
fn a_service_follows_its_pool_to_another_name() {
    let map = "address-pools: [{name: My_Pool, protocol: layer2, addresses: [192.0.2.0/28]}]";
    let service = |annotations: &str| {
        let yaml = format!(
            "kind: ConfigMap\napiVersion: v1\nmetadata: {{name: config, namespace: metallb-system}}\ndata: {{config: '{map}'}}\n---\n\
             kind: Service\napiVersion: v1\nmetadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{type: LoadBalancer}}\n"
        );
        annotated(&migrated(&yaml)).remove("shop/web").and_then(|mut it| it.remove("crier.dev/pool"))
    };
    assert_eq!(service("metallb.universe.tf/address-pool: My_Pool").as_deref(), Some("my-pool"));
    assert_eq!(service("metallb.io/address-pool: my-pool"), None, "it fits already");
    assert_eq!(service("metallb.io/address-pool: My_Pool, crier.dev/pool: my-pool"), None, "crier's own counts");
}

/// Input: Services alone, and a key with a line break. Output: a warning that pools are missing, and no line that is no comment.
#[test]
fn services_without_pools_are_told_and_no_annotation_leaves_its_comment() {
    let service = |name: &str, key: &str| {
        serde_json::json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": "shop", "annotations": {
            "purelb.io/addresses": "192.0.2.7", "purelb.io/allow-shared-ip": key, "crier.dev/share": key,
        }}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "a\n[[pool]]", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}})
    };
    let hostile = "k\n[[pool]]\nname = \"x\"\n#";
    let migration =
        migrate(vec![service("a", hostile), service("b", ""), service("c\n[[l2]]", "")], &SecretFiles::default());
    assert!(loaded(&migration).pools.is_empty() && loaded(&migration).l2.is_empty(), "{}", migration.toml);
    assert_eq!(warnings(&migration).lines().count(), migration.warnings.len(), "a warning is one line");
    warns(&migration, "", &["no Service can have this class"]);
    let alone = migrated(
        "kind: Service\napiVersion: v1\nmetadata: {name: web, annotations: {purelb.io/addresses: 192.0.2.7}}\nspec: {type: LoadBalancer}\n",
    );
    warns(&alone, "Services", &["no pool is among the objects"]);
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

/// Input: fields that narrow a table, each of a wrong type. Output: no table that says more than the object does; what is
/// made of the object is a comment with a CHECK. With the right types the tables are there.
#[test]
fn what_narrows_and_cannot_be_read_leaves_the_table_out() {
    let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: inner}\nspec: {addresses: [10.0.0.0/24]}\n---\n\
                apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: p}\nspec: {peerAddress: 10.9.9.9, peerASN: 1, myASN: 2}\n---\n";
    let peer = "peerAddress: 10.9.9.8, peerASN: 1, myASN: 2";
    let object = |kind: &str, spec: &str| {
        let (group, kind) = kind.split_once(' ').expect("a group and a kind");
        migrated(&format!("{pool}apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}\n"))
    };
    let counts = |config: &Config| {
        let bgp = &config.bgp;
        [config.pools.len(), config.l2.len(), bgp.peers.len(), bgp.advertisements.len()]
    };
    let of_pool = |fields: &str| format!("addresses: [10.1.0.0/24], {fields}");
    let none = counts(&loaded(&object("metallb.io/v1beta1 Nothing", "")));
    assert_eq!(none, [1, 0, 1, 0]);
    for (kind, right, wrong) in [
        (
            "IPAddressPool",
            of_pool("serviceAllocation: {namespaces: [shop]}"),
            of_pool("serviceAllocation: {namespaces: shop}"),
        ),
        ("IPAddressPool", of_pool("serviceAllocation: {}"), of_pool("serviceAllocation: [shop]")),
        ("IPAddressPool", of_pool("autoAssign: false"), of_pool("autoAssign: 'false'")),
        ("IPAddressPool", of_pool("avoidBuggyIPs: true"), of_pool("avoidBuggyIPs: 1")),
        ("L2Advertisement", "ipAddressPools: [inner]".into(), "ipAddressPools: inner".into()),
        ("L2Advertisement", "ipAddressPools: [inner]".into(), "ipAddressPools: [inner, 5]".into()),
        ("L2Advertisement", "interfaces: [eth0]".into(), "interfaces: eth0".into()),
        ("L2Advertisement", "nodeSelectors: [{}]".into(), "nodeSelectors: {matchLabels: {a: b}}".into()),
        ("L2Advertisement", "serviceSelectors: [{}]".into(), "serviceSelectors: a=b".into()),
        ("L2Advertisement", "ipAddressPoolSelectors: [{}]".into(), "ipAddressPoolSelectors: {a: b}".into()),
        ("BGPAdvertisement", "peers: [p]".into(), "peers: p".into()),
        ("BGPAdvertisement", "communities: ['1:2']".into(), "communities: no-advertise".into()),
        ("BGPAdvertisement", "aggregationLength: 24".into(), "aggregationLength: '24'".into()),
        ("BGPPeer", format!("{peer}, nodeSelectors: []"), format!("{peer}, nodeSelectors: {{a: b}}")),
        ("BGPPeer", format!("{peer}, passwordSecret: {{}}"), format!("{peer}, passwordSecret: s")),
        ("Eip", "address: 10.1.0.0/24, namespaces: [shop]".into(), "address: 10.1.0.0/24, namespaces: shop".into()),
        (
            "Eip",
            "address: 10.1.0.0/24, protocol: layer2, interface: eth0".into(),
            "address: 10.1.0.0/24, protocol: layer2, interface: [eth0]".into(),
        ),
        ("Eip", "address: 10.1.0.0/24, disable: true".into(), "address: 10.1.0.0/24, disable: 'true'".into()),
    ] {
        let kind = if kind == "Eip" {
            format!("network.kubesphere.io/v1alpha2 {kind}")
        } else {
            format!("metallb.io/v1beta1 {kind}")
        };
        let sound = counts(&loaded(&object(&kind, &right)));
        assert!(sound.iter().sum::<usize>() > none.iter().sum(), "{kind} {right}: {sound:?}");
        let broken = object(&kind, &wrong);
        assert_eq!(counts(&loaded(&broken)), none, "{kind} {wrong}\n{}", broken.toml);
        assert!(broken.toml.contains("CHECK"), "{}", broken.toml);
    }
    // The object has no spec that can be read.
    let list = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: x}\nspec: [ipAddressPools]\n";
    assert_eq!(counts(&loaded(&migrated(&format!("{pool}{list}")))), none);
}

/// As above, of the ConfigMap: one pool that cannot be read takes no other with it.
#[test]
fn a_pool_of_the_config_map_that_cannot_be_read_is_a_comment_and_the_others_are_there() {
    let data = "address-pools:\n- {name: a, protocol: layer2, addresses: [10.0.0.0/24], auto-assign: 'no'}\n\
                - {name: b, protocol: layer2, addresses: [10.1.0.0/24]}\n\
                - {name: c, protocol: bgp, addresses: [10.2.0.0/24], bgp-advertisements: [{communities: no-advertise}, {localpref: 7}]}\n\
                peers:\n- {peer-address: 10.9.9.9, peer-asn: 1, my-asn: 2}\n";
    let map = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "config"}, "data": {"config": data}});
    let config = loaded(&migrate(vec![map], &SecretFiles::default()));
    let names: Vec<String> = config.pools.iter().map(|pool| pool.name.to_string()).collect();
    let advertised = config.bgp.advertisements.len();
    assert_eq!((names, config.l2.len(), advertised), (vec!["b".to_owned(), "c".to_owned()], 1, 1));
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

/// Input: kube-vip's ConfigMap with two ranges that overlap, which it takes. Output: the second pool is a comment, and the
/// others are announced as before; all of `[[l2]]` was a comment.
#[test]
fn pools_beside_one_that_is_left_out_are_announced() {
    let migration = migrated(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip, namespace: kube-system}\ndata: {range-global: \
         192.0.2.10-192.0.2.50, range-development: 192.0.2.40-192.0.2.60, cidr-shop: 198.51.100.0/28}\n",
    );
    let config = loaded(&migration);
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{}", migration.toml);
    let announced: Vec<&str> = config.l2[0].pools.iter().map(|pool| pool.as_str()).collect();
    assert!(names.iter().all(|name| announced.contains(name)), "{}", migration.toml);
    warns(&migration, "kube-system/kubevip", &["is a comment, so it is not named here"]);
}
