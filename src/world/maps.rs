//! Changes of maps that say whether anything changed, and names that are kept once. Floor 1.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;

use super::NodeCounts;
use crate::names::NodeName;

pub(super) fn add(sum: &mut BTreeMap<NodeName, u32>, of: &NodeCounts) {
    for (node, count) in of.iter().filter(|(_, count)| *count > 0) {
        let of_node = sum.entry(node.clone()).or_default();
        *of_node = of_node.saturating_add(count);
    }
}

/// Puts or removes, and says whether anything changed.
pub(super) fn put<K: Ord + Clone, V: PartialEq + Clone>(map: &mut OrdMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}

/// Drops whatever is not in a complete list, and says whether anything was.
pub(super) fn retain<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, listed: &BTreeSet<K>) -> bool {
    let gone: Vec<K> = map.keys().filter(|key| !listed.contains(key)).cloned().collect();
    gone.iter().for_each(|key| drop(map.remove(key)));
    !gone.is_empty()
}

/// The copy of a name that is shared by all who carry it.
pub(super) fn shared<N: Ord + Clone>(names: &mut OrdMap<N, ()>, name: &N) -> N {
    match names.get_key_value(name) {
        Some((known, ())) => known.clone(),
        None => {
            names.insert(name.clone(), ());
            name.clone()
        }
    }
}

/// The name of an object that is there, or is gone: then nobody else needs the copy.
pub(super) fn shared_while<N: Ord + Clone>(is_there: bool, names: &mut OrdMap<N, ()>, name: N) -> N {
    if is_there {
        return shared(names, &name);
    }
    names.remove(&name);
    name
}
