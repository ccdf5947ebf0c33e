//! `crier migrate`: the objects of another load balancer as a crier.toml. Floor 4.
//! Reads files, standard input or a cluster; `migrate` does the rest.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::administrator::kubeconfigs;
use super::table::printable;
use super::{Exit, print};
use crate::k8s::ask::{Asker, RequestError};
use crate::k8s::foreign;
use crate::k8s::list::Flaw;
use crate::manifests::document::{Format, objects, values, without_mark};
use crate::migrate::{Migration, Password, SecretFiles, migrate};

/// The most octets of one input: more than any cluster's configuration has.
const MOST_OCTETS: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Migrate {
    /// YAML or JSON files, as `kubectl get -o yaml` prints them; without any, or for -, standard input
    files: Vec<PathBuf>,
    /// Read the objects from the API server instead
    #[arg(long, conflicts_with = "files")]
    from_cluster: bool,
    /// The kubeconfig for --from-cluster; else the files that KUBECONFIG names, else ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Write the passwords of peers into this directory, which the configuration then names
    #[arg(long, value_name = "DIR")]
    write_secrets: Option<PathBuf>,
}

/// Why there is no configuration. Nothing was written.
#[derive(Debug, thiserror::Error)]
enum MigrateError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path} is larger than {MOST_OCTETS} octets; give migrate only the objects of the load balancer")]
    TooLarge { path: String },
    #[error("{path} is not UTF-8 from byte {offset} on")]
    NotText { path: String, offset: usize },
    #[error("{path}: {fault}")]
    NotObjects { path: String, fault: String },
    #[error("--from-cluster needs --kubeconfig FILE: neither KUBECONFIG nor HOME is set")]
    NoKubeconfig,
    #[error("cannot start: {0}")]
    CannotStart(io::Error),
    #[error(transparent)]
    Cluster(#[from] RequestError),
    #[error("the objects configure no load balancer that migrate knows{0}")]
    Nothing(String),
    #[error("cannot write the secrets into {}: {source}", folder.display())]
    Secrets { folder: PathBuf, source: io::Error },
}

pub fn run(arguments: &Migrate) -> Exit {
    match migration(arguments) {
        Ok(migration) => {
            for warning in &migration.warnings {
                tell!("crier: {}", printable(&warning.to_string()));
            }
            // Of a cluster only those kinds are read that may be of use.
            if let Some(left_out) = left_out(&migration).filter(|_| !arguments.from_cluster) {
                tell!("crier: {left_out}");
            }
            print(&migration.toml).with_problems(!migration.warnings.is_empty())
        }
        Err(error) => {
            tell!("crier: {}", printable(&error.to_string()));
            Exit::Usage
        }
    }
}

/// The kinds that configure no load balancer: no fault of the input, but whoever misses a pool looks for its kind.
fn left_out(migration: &Migration) -> Option<String> {
    // Those that peers name are read through the peers.
    let kinds: Vec<&str> = migration.skipped.iter().map(String::as_str).filter(|kind| *kind != "Secret").collect();
    (!kinds.is_empty()).then(|| {
        format!(
            "left out, for migrate finds no configuration of a load balancer in them: objects of {}",
            kinds.join(", ")
        )
    })
}

fn migration(arguments: &Migrate) -> Result<Migration, MigrateError> {
    let objects = match arguments.from_cluster {
        true => from_cluster(arguments)?,
        false => from_files(&arguments.files)?,
    };
    let secrets = match &arguments.write_secrets {
        None => SecretFiles::default(),
        Some(folder) => {
            let unusable = |source| MigrateError::Secrets { folder: folder.clone(), source };
            SecretFiles { folder: std::path::absolute(folder).map_err(unusable)?, written: true }
        }
    };
    let migration = migrate(objects, &secrets);
    if migration.used == 0 {
        let seen = if migration.skipped.is_empty() {
            String::new()
        } else {
            format!("; found: {}", migration.skipped.join(", "))
        };
        return Err(MigrateError::Nothing(seen));
    }
    if secrets.written {
        let unwritable = |source| MigrateError::Secrets { folder: secrets.folder.clone(), source };
        write_secrets(&secrets.folder, &migration.passwords).map_err(unwritable)?;
    }
    Ok(migration)
}

/// Secrets are read only if they are to be written.
fn from_cluster(arguments: &Migrate) -> Result<Vec<Value>, MigrateError> {
    let files = kubeconfigs(arguments.kubeconfig.as_deref()).ok_or(MigrateError::NoKubeconfig)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MigrateError::CannotStart)?;
    runtime.block_on(async {
        let asker = Asker::open(&files).await?;
        Ok(foreign::objects(&asker, arguments.write_secrets.is_some()).await?)
    })
}

fn from_files(files: &[PathBuf]) -> Result<Vec<Value>, MigrateError> {
    let input = [PathBuf::from("-")];
    let files = if files.is_empty() { &input[..] } else { files };
    let mut found = Vec::new();
    for path in files {
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let text = read(path, &name)?;
        found.extend(parsed(&text, path).map_err(|fault| MigrateError::NotObjects { path: name, fault })?);
    }
    Ok(found)
}

fn read(path: &Path, name: &str) -> Result<String, MigrateError> {
    let mut octets = Vec::new();
    let end = MOST_OCTETS + 1;
    let read = match path == Path::new("-") {
        true => io::stdin().lock().take(end).read_to_end(&mut octets),
        false => std::fs::File::open(path).and_then(|file| file.take(end).read_to_end(&mut octets)),
    };
    read.map_err(|source| MigrateError::Unreadable { path: name.to_owned(), source })?;
    if u64::try_from(octets.len()).unwrap_or(u64::MAX) > MOST_OCTETS {
        return Err(MigrateError::TooLarge { path: name.to_owned() });
    }
    String::from_utf8(octets)
        .map_err(|error| MigrateError::NotText { path: name.to_owned(), offset: error.utf8_error().valid_up_to() })
}

/// By the name of the file; what has no telling name is JSON if it begins like JSON and reads as such.
fn parsed(text: &str, path: &Path) -> Result<Vec<Value>, String> {
    let by_name = path.file_name().and_then(|name| Format::of(name.to_str()?));
    let format =
        by_name.unwrap_or(if without_mark(text).trim_start().starts_with('{') { Format::Json } else { Format::Yaml });
    match objects(text, format) {
        // JSON documents with `---` between them are YAML.
        Err(fault) if format == Format::Json => {
            objects(text, Format::Yaml).map_err(|other| if by_name.is_some() { fault } else { other })
        }
        read => read,
    }
    .or_else(|fault| if fault.problem == Flaw::NoKind { bare(text).ok_or(fault) } else { Err(fault) })
    .map_err(|fault| match (is_template(text), fault.problem == Flaw::NoKind) {
        (true, _) => "this is a Helm template, or one of Ansible, and not an object: render it first (helm template RELEASE CHART) and \
                      give the result to migrate"
            .to_owned(),
        (false, true) => format!(
            "{fault}; where this is a values.yaml of Helm, render it first (helm template RELEASE CHART -f values.yaml) and give the \
             result to migrate"
        ),
        (false, false) => fault.to_string(),
    })
}

/// What MetalLB's ConfigMap has under `config`, by itself, as kustomize makes the ConfigMap of it.
fn bare(text: &str) -> Option<Vec<Value>> {
    let documents = values(text, Format::Yaml).ok()?;
    let is_one = documents.iter().any(|it| it.get("address-pools").is_some());
    let metadata = json!({"name": "config", "namespace": "metallb-system"});
    is_one
        .then(|| vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config": text}})])
}

/// The text has actions of Go's templates, outside of comments.
fn is_template(text: &str) -> bool {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split_once("{{").is_some_and(|(_, rest)| rest.contains("}}")))
}

/// Puts each password into its file, which only its owner may read.
fn write_secrets(folder: &Path, passwords: &[Password]) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for Password { file, secret } in passwords {
        let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let mut file = match options {
            // A former run's file, or somebody's own: what is in it may be in use.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && std::fs::read(file)? == secret.expose() => {
                continue;
            }
            opened => opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?,
        };
        io::Write::write_all(&mut file, secret.expose())?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_of_helm_is_named_as_such_and_other_faults_are_not() {
        let template = "{{- if .Values.pool }}\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n{{- end }}\n";
        let fault = |text| parsed(text, Path::new("pool.yaml")).expect_err("this is no object");
        let named = fault(template);
        assert!(named.contains("Helm template") && named.contains("helm template"), "{named}");
        let other = fault("kind: [");
        assert!(!other.contains("Helm"), "{other}");
        // The values of a chart were no object, and that was all.
        let values = fault("configInline:\n  address-pools:\n  - name: lan\n    protocol: layer2\n");
        assert!(
            values.contains("no kind") && values.contains("helm template RELEASE CHART -f values.yaml"),
            "{values}"
        );
        // MetalLB's own file was taken for one of Helm, and a comment with braces for a template.
        let file =
            "# {{ of a pool }}\naddress-pools:\n- name: lan\n  protocol: layer2\n  addresses: [198.51.100.0/24]\n";
        let objects = parsed(file, Path::new("config")).expect("MetalLB's own file");
        let Migration { toml, used, warnings, .. } = migrate(objects, &SecretFiles::default());
        assert!(used == 1 && warnings.is_empty() && toml.contains("addresses = [\"198.51.100.0/24\"]"), "{toml}");
        assert!(!is_template("# {{ x }}\n") && is_template("a: {{ x }}\n"));
    }

    /// Only the first of them was read, and the second refused.
    #[test]
    fn documents_of_json_may_have_a_line_of_yaml_between_them() {
        let json = r#"{"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan"}}"#;
        for file in ["-", "pool.json", "pool.yaml"] {
            assert_eq!(parsed(&format!("{json}\n---\n{json}\n"), Path::new(file)).map(|it| it.len()), Ok(2), "{file}");
        }
        let fault = parsed("{\"kind\": [", Path::new("pool.json")).expect_err("it is cut off");
        assert!(fault.contains("EOF"), "{fault}");
    }

    /// What editors on Windows put in front of a text.
    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        let json = r#"{"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "lan"}}"#;
        let yaml = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan}\n";
        for (text, file) in [(json, "-"), (json, "pool.json"), (json, "pool.yaml"), (yaml, "-"), (yaml, "pool.yaml")] {
            let marked = parsed(&format!("\u{feff}{text}"), Path::new(file));
            assert_eq!(marked.ok(), parsed(text, Path::new(file)).ok(), "{file}");
            assert_eq!(parsed(text, Path::new(file)).map(|it| it.len()), Ok(1));
        }
    }

    /// Input: a pool of MetalLB beside other objects. Output: the kinds of the others are told, though the pool was of use.
    #[test]
    fn kinds_that_are_left_out_are_told_beside_objects_that_were_of_use() {
        let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan, namespace: metallb-system}\n\
                    spec: {addresses: [192.0.2.0/28]}\n";
        let others = "---\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: pools}\n---\nkind: Secret\napiVersion: v1\nmetadata: {name: key}\n";
        let of = |text: &str| migrate(parsed(text, Path::new("-")).expect("objects"), &SecretFiles::default());
        let beside = of(&format!("{pool}{others}"));
        assert_eq!(beside.used, 1);
        let told = left_out(&beside).expect("there are others");
        assert!(told.ends_with("objects of ConfigMap"), "{told}");
        assert_eq!(left_out(&of(pool)), None);
    }
}
