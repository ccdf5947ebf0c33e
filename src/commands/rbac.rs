//! `crier rbac`: the rights that the agent needs, ready for `kubectl apply -f -`. Floor 4.

use super::{Exit, print};

/// The objects, YAML.
pub(super) const OBJECTS: &str = include_str!("../../config/rbac.yaml");

pub fn rbac() -> Exit {
    print(OBJECTS)
}
