//! One value for each link, by the link's name: the counters that the tasks of the links share with their readers.
//! Floor 0.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::names::InterfaceName;

/// A value is made when it is first asked for, and kept: what was counted on a link that is gone stays counted.
#[derive(Debug, Default)]
pub struct ByLink<T> {
    links: Mutex<BTreeMap<InterfaceName, Arc<T>>>,
}

/// Links beyond this number share one value, so that a host that makes and renames links all day does not fill memory.
const MOST_LINKS: usize = 256;

/// The name of the shared value. No link can have this name: link names have at most 15 octets.
const OTHERS: &str = "all other links";

impl<T: Default> ByLink<T> {
    /// The value of a link, made if there is none yet.
    pub fn of(&self, link: &InterfaceName) -> Arc<T> {
        // A panic elsewhere may poison the lock, but it cannot leave this map half changed.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = links.get(link) {
            return known.clone();
        }
        let name = if links.len() < MOST_LINKS { link.clone() } else { InterfaceName::from(OTHERS) };
        links.entry(name).or_default().clone()
    }

    /// The value of a link, if somebody asked for it before.
    pub fn known(&self, link: &InterfaceName) -> Option<Arc<T>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(link).cloned()
    }

    /// The values of all links, by name.
    pub fn all(&self) -> Vec<(InterfaceName, Arc<T>)> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(name, it)| (name.clone(), it.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_gets_the_same_again_and_too_many_links_share_one() {
        let links: ByLink<()> = ByLink::default();
        let eth0 = links.of(&"eth0".into());
        assert!(Arc::ptr_eq(&eth0, &links.of(&"eth0".into())));
        for number in 0..1000 {
            links.of(&format!("tap{number}").as_str().into());
        }
        assert_eq!(links.all().len(), MOST_LINKS + 1);
        assert!(Arc::ptr_eq(&eth0, &links.of(&"eth0".into())), "who was there before keeps its own");
    }
}
