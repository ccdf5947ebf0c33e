//! The label by which OVN-Kubernetes marks the node of an EgressService. Floor 1.

use super::label_selector::Selected;

/// OVN-Kubernetes gives a label of this prefix to the node that an EgressService has for its own; advertisements select it.
pub(super) const LABEL: &str = "egress-service.k8s.ovn.org/";

/// The selectors of nodes without those by a label that OVN-Kubernetes gives: it goes with the EgressService, and crier itself
/// announces such a Service from the one node that it leaves by.
pub(super) fn without_labels(selected: Selected) -> (Selected, bool) {
    let Selected::Any(selectors) = selected else { return (selected, false) };
    let count = selectors.len();
    let kept: Vec<_> = selectors.into_iter().filter(|it| !it.keys().any(|key| key.starts_with(LABEL))).collect();
    let dropped = kept.len() < count;
    (if kept.is_empty() { Selected::All } else { Selected::Any(kept) }, dropped)
}
