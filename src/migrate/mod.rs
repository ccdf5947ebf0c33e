//! What other load balancers are told, as a crier.toml: objects in, text and warnings out. Floor 1.
//! Not for reading files or a cluster, and not for printing; `commands/migrate.rs` does both.
//!
//! Each product has a file, and `services` the Services, which may belong to any of them. All of them write into one `draft`; `write` makes of it the text that this version accepts.

mod annotate;
mod draft;
mod duration;
mod kube_vip;
mod label_selector;
mod metallb;
mod metallb_bgp;
mod metallb_config_map;
mod metallb_pool;
mod metallb_selectors;
mod networks;
mod nmstate;
mod object;
mod openelb;
mod ovn;
mod ovn_label;
mod own_asn;
mod purelb;
mod services;
mod shown;
#[cfg(test)]
mod tests;
mod told;
mod write;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use draft::{Password, Warning};

use draft::{Draft, Table};
use object::Object;

/// What the objects are in crier's words.
#[derive(Debug)]
pub struct Migration {
    /// A crier.toml that this version accepts once the files of the secrets are in place.
    pub toml: String,
    /// What a human must look at. Empty: the file says all that the objects say.
    pub warnings: Vec<Warning>,
    /// The passwords among the objects, with the files that the text names.
    pub passwords: Vec<Password>,
    /// How many objects were of use. With none there is nothing to migrate.
    pub used: usize,
    /// Kinds that configure no load balancer, each once, in order.
    pub skipped: Vec<String>,
}

/// Which folder the files of passwords are in, and whether they will be written: what is not must be done by a human.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    pub folder: PathBuf,
    pub written: bool,
}

impl SecretFiles {
    /// The file of a name, for TOML and for whoever writes it.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.md5"))
    }
}

impl Default for SecretFiles {
    fn default() -> SecretFiles {
        SecretFiles { folder: Path::new("/etc/crier").to_owned(), written: false }
    }
}

/// Translates everything among the objects that configures a load balancer. Of two objects with one kind and name the later
/// counts, as with kubectl.
pub fn migrate(objects: Vec<Value>, secrets: &SecretFiles) -> Migration {
    let objects = latest(objects.into_iter().map(Object::of).collect());
    let mut draft = Draft::default();
    let mut source = Table::new("kubernetes", "");
    source.set("kubeconfig", draft::text("/etc/crier/kubeconfig"), "");
    draft.push(source);
    let mut products = [
        metallb::translate(&objects, secrets, &mut draft),
        openelb::translate(&objects, secrets, &mut draft),
        purelb::translate(&objects, &mut draft),
        kube_vip::translate(&objects, &mut draft),
        nmstate::translate(&objects, &mut draft),
        // It looks for the VRFs.
        ovn::translate(&objects, &mut draft),
    ]
    .concat();
    products.extend(services::translate(&objects, !products.is_empty(), &mut draft));
    products.sort_unstable();
    own_asn::settle(&mut draft);
    draft.say_what_was_left_out();
    let mut skipped: Vec<String> = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        let kind = shown::shortened(&object.kind);
        if products.binary_search(&at).is_err() && !skipped.contains(&kind) {
            skipped.push(kind);
        }
    }
    skipped.sort();
    let (toml, warnings, draft) = write::write(draft);
    Migration { toml, warnings, passwords: draft.passwords, used: products.len(), skipped }
}

/// The objects without those that a later one replaces.
fn latest(objects: Vec<Object>) -> Vec<Object> {
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<Object> = Vec::new();
    for object in objects.into_iter().rev() {
        let key = (object.group.clone(), object.kind.clone(), object.namespace.clone(), object.name.clone());
        if object.name.is_empty() || seen.insert(key) {
            kept.push(object);
        }
    }
    kept.reverse();
    kept
}
