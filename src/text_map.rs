//! A map from text to text in two pieces of memory, however much it holds: the labels of each of 10,000 Services.
//! Floor 0. Read often and changed almost never: each change makes the map anew.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Keys with their values, sorted by key, no key twice. Serialised as a map.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct TextMap {
    /// Each key and its value, one after the other.
    text: Box<str>,
    /// How long each key and each value is, in octets.
    lengths: Box<[u32]>,
}

/// Keys with their values, in order of key.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    text: &'a str,
    lengths: &'a [u32],
}

impl TextMap {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> Pairs<'_> {
        Pairs { text: &self.text, lengths: &self.lengths }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.lengths.len() / 2
    }

    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Puts a value in place of the one that the key has, if it has one.
    pub fn insert(&mut self, key: String, value: String) {
        self.extend([(key, value)]);
    }

    pub fn remove(&mut self, key: &str) {
        *self = self.iter().filter(|(other, _)| *other != key).collect();
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let [key, value, lengths @ ..] = self.lengths else { return None };
        let (key, text) = self.text.split_at_checked(usize::try_from(*key).ok()?)?;
        let (value, text) = text.split_at_checked(usize::try_from(*value).ok()?)?;
        *self = Pairs { text, lengths };
        Some((key, value))
    }
}

impl<'a> IntoIterator for &'a TextMap {
    type Item = (&'a str, &'a str);
    type IntoIter = Pairs<'a>;

    fn into_iter(self) -> Pairs<'a> {
        self.iter()
    }
}

/// Of two values for one key the later counts.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for TextMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> TextMap {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let sorted: BTreeMap<&str, &str> = pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        let (mut text, mut lengths) = (String::new(), Vec::with_capacity(sorted.len() * 2));
        for part in sorted.into_iter().flat_map(|(key, value)| [key, value]) {
            text.push_str(part);
            // No object has 4 GiB of text: the API server takes 1.5 MiB.
            lengths.push(u32::try_from(part.len()).unwrap_or(u32::MAX));
        }
        TextMap { text: text.into(), lengths: lengths.into() }
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Extend<(K, V)> for TextMap {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let pairs = pairs.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        *self = self.iter().chain(pairs).collect();
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> From<[(K, V); N]> for TextMap {
    fn from(pairs: [(K, V); N]) -> TextMap {
        pairs.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for TextMap {
    fn from(map: BTreeMap<String, String>) -> TextMap {
        map.iter().collect()
    }
}

impl From<TextMap> for BTreeMap<String, String> {
    fn from(map: TextMap) -> BTreeMap<String, String> {
        map.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl fmt::Debug for TextMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_key_and_listed_in_order_of_key() {
        let map = TextMap::from([("tier", "front"), ("app", "web"), ("empty", "")]);
        assert_eq!(map.get("tier"), Some("front"));
        assert_eq!(map.get("empty"), Some(""), "an empty value is a value");
        assert_eq!((map.get("ti"), map.get("front"), map.len()), (None, None, 3));
        assert_eq!(map.iter().collect::<Vec<_>>(), [("app", "web"), ("empty", ""), ("tier", "front")]);
        assert!(TextMap::default().is_empty() && TextMap::default().iter().next().is_none());
    }

    #[test]
    fn the_order_in_which_pairs_come_makes_no_difference_but_that_the_later_value_counts() {
        assert_eq!(TextMap::from([("a", "1"), ("b", "2")]), TextMap::from([("b", "2"), ("a", "0"), ("a", "1")]));
        assert_ne!(TextMap::from([("ab", "c")]), TextMap::from([("a", "bc")]), "the same text is not the same pair");
    }

    #[test]
    fn what_is_inserted_counts_and_what_is_removed_is_gone() {
        let mut map = TextMap::from([("a", "1"), ("b", "2")]);
        map.insert("b".to_owned(), "3".to_owned());
        map.extend([("c", "4")]);
        assert_eq!(map, TextMap::from([("a", "1"), ("b", "3"), ("c", "4")]));
        map.remove("b");
        map.remove("d");
        assert_eq!(map, TextMap::from([("a", "1"), ("c", "4")]));
    }

    #[test]
    fn a_map_is_written_as_a_map_and_read_back() {
        let map = TextMap::from([("b", "ö"), ("a", "")]);
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(text, r#"{"a":"","b":"ö"}"#);
        assert_eq!(serde_json::from_str::<TextMap>(&text).unwrap(), map);
    }
}
