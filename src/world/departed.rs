//! The names of Services that are gone, in the order in which they went: which of them is forgotten first. Floor 1.

use imbl::OrdMap;

use crate::names::ObjectKey;

/// Bounded: who comes in when it is full pushes out the one that went first. A clone costs next to nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Departed {
    in_order: OrdMap<u64, ObjectKey>,
    places: OrdMap<ObjectKey, u64>,
    next: u64,
}

impl Departed {
    /// Of how many Services the former addresses are kept once they are gone. Whoever is not among them gets any free address.
    const MOST: usize = 16_384;

    /// The Service has gone just now. Answers who is to be forgotten.
    pub fn put(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        self.take(key);
        self.in_order.insert(self.next, key.clone());
        self.places.insert(key.clone(), self.next);
        self.next = self.next.wrapping_add(1);
        let first = self.in_order.get_min().filter(|_| self.in_order.len() > Departed::MOST)?.1.clone();
        self.take(&first);
        Some(first)
    }

    /// In the order in which they went.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectKey> {
        self.in_order.values()
    }

    /// The Service is there again, or forgotten.
    pub fn take(&mut self, key: &ObjectKey) {
        if let Some(place) = self.places.remove(key) {
            self.in_order.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_went_first_is_forgotten_first_and_who_came_back_and_went_again_is_not() {
        let key = |number: usize| ObjectKey::new("shop", &format!("{number:05}"));
        let mut departed = Departed::default();
        // The last by name goes first.
        (0..Departed::MOST).rev().for_each(|number| assert_eq!(departed.put(&key(number)), None));
        let last = Departed::MOST - 1;
        assert_eq!(departed.put(&key(last)), None, "it is among them already");
        assert_eq!(departed.put(&key(last + 1)), Some(key(last - 1)));
        departed.take(&key(last - 2));
        assert_eq!(departed.put(&key(last + 2)), None, "there is room");
        assert_eq!(departed.put(&key(last + 3)), Some(key(last - 3)));
        assert_eq!(departed.in_order.len(), departed.places.len());
    }
}
