//! The part of the configuration that a ConfigMap has for the whole cluster. Floor 1.
//!
//! Its texts are read like drop-ins behind the files of the host, and checked with them: as a whole they are good or refused. What
//! is a host's own affair, such as its sockets, credentials, logs and who it is, has no place in them: whoever may write the
//! ConfigMap decides what is announced, and nothing else on the hosts.

use std::collections::BTreeMap;

use super::complaint::Complaint;
use super::document::{self, Data, Table};
use super::reader::Reader;
use super::section::Section;
use super::shape;
use super::{Kubernetes, NoSecrets, SourceFile, State, seen, source};
use crate::config::Source;
use crate::names::ObjectKey;

/// The sections that the cluster's texts may have.
const SECTIONS: [&str; 5] = ["pool", "reservation", "l2", "bgp", "bfd"];

/// What they may have in `[bgp]`.
const OF_BGP: [&str; 4] = ["asn", "peer", "advertisement", "communities"];

/// What must be known before the texts of the cluster are: how to reach them, and where they are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Preliminary {
    pub kubernetes: Kubernetes,
    /// `config` of `[kubernetes]`.
    pub config_map: ObjectKey,
    pub state: State,
}

/// What the files of the host say of a ConfigMap, whatever else is wrong with them; `None` where they name none, or cannot be read
/// so far. Then they are to be read for themselves, for their complaints.
pub fn preliminary(files: &[SourceFile]) -> Option<Preliminary> {
    let mut merged = Table::root();
    let mut complaints = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let mut table = document::read(number, file).ok()?;
        shape::check(&mut table, &mut complaints);
        document::merge("", &mut merged, table);
    }
    let mut seen = seen::Seen::of(&merged);
    let section = Section::find("")?;
    let mut root =
        Reader { section, table: &merged, secrets: &NoSecrets, seen: &mut seen, complaints: &mut complaints };
    let state = root.one()?;
    let Some(Source::Kubernetes(kubernetes)) = source::read(&mut root) else { return None };
    let config_map = kubernetes.config.clone()?;
    Some(Preliminary { kubernetes, config_map, state })
}

/// The texts of a ConfigMap in the order of their keys, or why it is refused whole, in one sentence. Keys that do not end in
/// `.toml` are not read. `binary` are the keys of its `binaryData`.
///
/// A mistyped key takes no configuration away, nor does a file that came out empty, nor one that is no text.
pub fn texts<'a>(
    config_map: &ObjectKey,
    data: &BTreeMap<String, String>,
    binary: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<SourceFile>, String> {
    if let Some(key) = binary.into_iter().find(|key| key.ends_with(".toml")) {
        return Err(format!(
            "its key {key} is no text: it is in binaryData, where kubectl puts a file that is not UTF-8 (PowerShell writes UTF-16)"
        ));
    }
    let texts = data.iter().filter(|(key, _)| key.ends_with(".toml"));
    let texts = texts.map(|(key, text)| SourceFile { path: path_of(config_map) + key, text: text.clone() });
    let texts: Vec<SourceFile> = texts.collect();
    if say_nothing(&texts) {
        return Err("it has no key that ends in .toml and says anything".to_owned());
    }
    Ok(texts)
}

/// Whether there is nothing in the texts but comments: a file that was empty, or a template that came out empty.
pub fn say_nothing(texts: &[SourceFile]) -> bool {
    let mut lines = texts.iter().flat_map(|text| text.text.lines()).map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#'))
}

/// Whether the text is of this ConfigMap, by its name.
pub fn is_text_of(config_map: &ObjectKey, text: &SourceFile) -> bool {
    text.path.starts_with(&path_of(config_map))
}

fn path_of(config_map: &ObjectKey) -> String {
    format!("configmap/{config_map}/")
}

/// Complains about what belongs into the file of a host, and takes it out.
pub(super) fn check(file: &mut Table, complaints: &mut Vec<Complaint>) {
    drop_others(file, "", &SECTIONS, complaints);
    if let Some(Data::Table(bgp)) = file.entries.get_mut("bgp").map(|entry| &mut entry.value.data) {
        drop_others(bgp, "bgp", &OF_BGP, complaints);
    }
}

fn drop_others(table: &mut Table, path: &str, allowed: &[&str], complaints: &mut Vec<Complaint>) {
    let section = Section::find(path);
    table.entries.retain(|key, entry| {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let is_known = Section::find(&inner).is_some() || section.is_some_and(|section| section.row(key).is_some());
        // What nobody knows is complained about as such.
        if !is_known || allowed.contains(&key.as_str()) {
            return true;
        }
        let what = Section::find(&inner).map_or_else(|| format!("{} of [{path}]", shape::quoted(key)), ToString::to_string);
        complaints.push(Complaint {
            place: entry.key.clone(),
            message: format!("{what} in the ConfigMap: it is a matter of each host"),
            hint: Some(
                "move it to the file of the host; a ConfigMap has [[pool]], [[reservation]], [[l2]], and of [bgp] asn, peer, \
                 advertisement and communities"
                    .to_owned(),
            ),
            second: None,
        });
        false
    });
}

#[cfg(test)]
mod tests {
    use super::super::parse_with;
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    const HOST: &str = "[kubernetes]\nkubeconfig = \"/etc/crier/kubeconfig\"\nconfig = \"kube-system/crier\"\n\
                        [[l2]]\npools = [\"lan\"]\n";
    const CLUSTER: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n\
                           [bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n\
                           [[bgp.advertisement]]\npools = [\"lan\"]\n";

    #[test]
    fn the_texts_of_the_cluster_and_the_file_of_the_host_are_one_configuration() {
        let host = [file("crier.toml", HOST)];
        let Preliminary { config_map, state, .. } = preliminary(&host).expect("it names a ConfigMap");
        assert_eq!(config_map.to_string(), "kube-system/crier");
        assert_eq!(state.folder.display().to_string(), "/var/lib/crier");
        let data =
            [("b.toml", CLUSTER), ("a.toml", "[bgp.communities]\nblue = \"64512:1\"\n"), ("notes.txt", "not TOML")];
        let data = data.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        let texts = texts(&config_map, &data, [&"logo.png".to_owned()]).expect("they are good");
        assert_eq!(
            texts.iter().map(|it| it.path.as_str()).collect::<Vec<_>>(),
            ["configmap/kube-system/crier/a.toml", "configmap/kube-system/crier/b.toml"]
        );
        assert!(parse_with(&host, &[], &NoSecrets).is_err(), "the file alone names a pool that it has not");
        let config = parse_with(&host, &texts, &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        assert_eq!((config.pools.len(), config.l2.len(), config.bgp.peers.len()), (1, 1, 1));
        assert_eq!(config.bgp.asn, Some(64513));
    }

    #[test]
    fn a_config_map_with_a_key_that_is_no_text_or_says_nothing_is_refused_whole() {
        let config_map = ObjectKey::new("kube-system", "crier");
        let said = |data: &[(&str, &str)], binary: &[&str]| {
            let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            let binary: Vec<String> = binary.iter().map(|key| (*key).to_owned()).collect();
            texts(&config_map, &data, &binary).map(|texts| texts.len())
        };
        assert_eq!(said(&[("y.toml", CLUSTER)], &["a.png"]), Ok(1));
        let why = said(&[("y.toml", CLUSTER)], &["a.toml"]).expect_err("half of it would be used");
        assert!(why.starts_with("its key a.toml is no text"), "{why}");
        for data in [&[][..], &[("a.txt", CLUSTER)], &[("a.toml", "# nothing\n\n")]] {
            assert_eq!(
                said(data, &[]),
                Err("it has no key that ends in .toml and says anything".to_owned()),
                "{data:?}"
            );
        }
    }

    #[test]
    fn what_is_a_matter_of_each_host_is_refused_by_name_and_a_mistake_is_found_in_its_key() {
        let host = [file("crier.toml", HOST)];
        let refused = |text: &str| {
            let texts = [file("configmap/kube-system/crier/crier.toml", &format!("{CLUSTER}{text}"))];
            parse_with(&host, &texts, &NoSecrets).expect_err(text).to_string()
        };
        for (text, expected) in [
            ("[log]\nlevel = \"debug\"\n", "[log] in the ConfigMap: it is a matter of each host"),
            ("[kubernetes]\nkubeconfig = \"/tmp/theirs\"\n", "[kubernetes] in the ConfigMap"),
            ("[pulse]\nkey-file = \"/tmp/key\"\n", "[pulse] in the ConfigMap"),
            ("[node]\nname = \"n\"\n", "[node] in the ConfigMap"),
            ("[host]\nmanage-sysctls = true\n", "[host] in the ConfigMap"),
            ("[lgo]\nlevel = \"debug\"\n", "unknown section `lgo`"),
            ("[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n", "configmap/kube-system/crier/crier.toml:"),
            ("not = toml = at all", "configmap/kube-system/crier/crier.toml:"),
        ] {
            let complaint = refused(text);
            assert!(complaint.contains(expected), "{expected} is not in\n{complaint}");
        }
        let listen = CLUSTER.replace("asn = 64513\n", "asn = 64513\nlisten = []\n");
        let texts = [file("c.toml", &listen)];
        let complaint = parse_with(&host, &texts, &NoSecrets).expect_err("listen").to_string();
        assert!(complaint.contains("`listen` of [bgp] in the ConfigMap"), "{complaint}");
    }

    #[test]
    fn a_file_that_names_no_config_map_or_cannot_be_read_so_far_has_no_preliminary() {
        for text in ["[manifests]\nfolder = \"/m\"\n", "[kubernetes]\nin-cluster = true\n", "[kubernetes\n", ""] {
            assert_eq!(preliminary(&[file("crier.toml", text)]), None, "{text:?}");
        }
        let odd = "[kubernetes]\nin-cluster = true\nconfig = \"kube-system/crier\"\n[log]\nlevel = 7\n";
        assert!(preliminary(&[file("crier.toml", odd)]).is_some(), "whatever else is wrong");
    }
}
