//! Where Services come from: exactly one of `[kubernetes]` and `[manifests]`. Floor 1.

use super::complaint::Place;
use super::document::Data;
use super::nearest;
use super::reader::Reader;
use super::{Kubernetes, Manifests};

/// Where Services come from: exactly one of `[kubernetes]` and `[manifests]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Kubernetes(Kubernetes),
    Manifests(Manifests),
}

/// Exactly one of the two sections that say where Services come from.
pub(super) fn read(root: &mut Reader<'_>) -> Option<Source> {
    let kubernetes = root.given("kubernetes").map(|entry| section_place(&entry.value.data, &entry.key));
    let manifests = root.given("manifests").map(|entry| section_place(&entry.value.data, &entry.key));
    match (kubernetes, manifests) {
        (Some(kubernetes), Some(manifests)) => {
            let message = "[kubernetes] and [manifests] are mutually exclusive";
            root.conflict(&manifests, message, "remove one of them", (&kubernetes, "the other is here"));
            // For their complaints.
            root.one::<Kubernetes>();
            root.one::<Manifests>();
            None
        }
        (Some(_), None) => root.one().map(Source::Kubernetes),
        (None, Some(_)) => root.one().map(Source::Manifests),
        // A misspelt section is complained about as such.
        (None, None)
            if root.table.entries.keys().any(|key| nearest(key, ["kubernetes", "manifests"].into_iter()).is_some()) =>
        {
            None
        }
        (None, None) => {
            let hint = "add [kubernetes] with kubeconfig, or [manifests] with folder";
            root.complain(
                &root.header(),
                "neither [kubernetes] nor [manifests] is configured; one of them must tell where Services come from",
                hint,
            );
            None
        }
    }
}

fn section_place(data: &Data, key: &Place) -> Place {
    match data {
        Data::Table(table) => table.place.clone(),
        _ => key.clone(),
    }
}
