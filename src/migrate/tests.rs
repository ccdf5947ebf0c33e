//! The cases in tests/migrate: what objects become, word for word, and that crier accepts it. Floor 1.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Migration, SecretFiles, migrate};
use crate::config::{Config, Secrets, SourceFile, parse};
use crate::manifests::document::{Format, objects};

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
