//! That the API server does not tell this agent what it must know, or soon will not. Floor 1.

use crate::plan::holder::Grade;
use crate::views::Snapshot;
use crate::world::{ApiServer, Refusal, World};

/// That the API server does not tell this agent what it must know, with what that means, and the remedy where it only refuses.
pub(super) fn of_api_server(snapshot: &Snapshot) -> Option<String> {
    let world = &snapshot.world;
    let ApiServer::Unreachable { since: _, why, refusal } = &world.api_server else { return None };
    let (what, remedy) = match refusal {
        Refusal::Anonymous => (
            "the API server refuses what this agent must read, because it does not see who asks",
            &*format!("; {}", Refusal::SEES_NOBODY),
        ),
        Refusal::Forbidden => {
            ("the API server refuses what this agent must read", "; apply the objects of `crier rbac` again")
        }
        Refusal::Unauthorized => {
            ("the API server refuses the credentials of this agent", &*unknown_to_api_server(snapshot))
        }
        Refusal::NoAnswer | Refusal::Other(_) => ("API server unreachable", ""),
    };
    Some(if snapshot.context.path.grade == Grade::ViewStale {
        format!(
            "{what}, but other nodes hear it: the last known state stays in use, and this node gives way to them: {why}{remedy}"
        )
    } else if snapshot.outdated.is_some() && !world.listed.all() {
        format!(
            "{what}, and the last known state, of {:.0}, is older than [state] max-age: nothing is announced before the API \
             server answers: {why}{remedy}",
            snapshot.outdated.unwrap_or_default()
        )
    } else if world.listed.all() || remembers(world) {
        format!("{what}, the last known state stays in use: {why}{remedy}")
    } else {
        format!(
            "{what}, and no earlier state is known, so nothing is announced that depends on the missing lists: {why}{remedy}"
        )
    })
}

/// Of the kinds that were not listed yet something is known: an earlier life of the agent wrote it down.
pub(in crate::views) fn remembers(world: &World) -> bool {
    let listed = world.listed;
    let known = [
        (listed.services, world.services.is_empty()),
        (listed.endpoint_slices, world.endpoint_slices.is_empty()),
        (listed.nodes, world.nodes.is_empty()),
        (listed.namespaces, world.namespaces.is_empty()),
    ];
    known.into_iter().any(|(is_listed, is_empty)| !is_listed && !is_empty)
}

/// Why the API server may not know this agent (401), and the remedy.
fn unknown_to_api_server(snapshot: &Snapshot) -> String {
    match &snapshot.world.client_certificate {
        Some(it) if it.has_ended(snapshot.wall) => format!("; {it} ended on {}: {RENEW}", it.end()),
        Some(it) => format!(
            "; {it} is valid until {}, and this API server rejects it: check that the cluster's authority issued it and that the clocks \
             agree, or renew it: crier reads it again when its file changes",
            it.end()
        ),
        None => "; renew the client certificate (`openssl x509 -enddate` tells when it ended) or the token that the kubeconfig names: \
                 crier reads them again when their files change"
            .to_owned(),
    }
}

/// A client certificate that has ended or does soon, where a refusal does not name it.
pub(super) fn of_client_certificate(snapshot: &Snapshot) -> Option<String> {
    let world = &snapshot.world;
    let certificate = world.client_certificate.as_ref()?;
    let is_told = matches!(&world.api_server, ApiServer::Unreachable { refusal: Refusal::Unauthorized, .. });
    if is_told && certificate.has_ended(snapshot.wall) {
        return None;
    }
    let trouble = certificate.trouble(snapshot.wall)?;
    Some(format!(
        "{trouble}: from then on the API server refuses this agent (401), and the last known state stays in use; {RENEW}"
    ))
}

const RENEW: &str =
    "renew it, or make a new kubeconfig with `crier kubeconfig`: crier reads it again when its file changes";
