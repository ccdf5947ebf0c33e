//! What `migrate` is given: objects, and a reader of their fields that names what it cannot use. Floor 1.
//! Not for what a field means to crier; the file of each product knows that.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::draft::Draft;
use super::shown::{shortened, shown};

/// One object of a cluster.
#[derive(Debug)]
pub(super) struct Object {
    pub kind: String,
    /// The API group; empty for the core.
    pub group: String,
    pub namespace: String,
    pub name: String,
    pub value: Value,
}

impl Object {
    /// What the object says of itself. What is missing is empty: that nothing knows the object is seen later.
    pub fn of(value: Value) -> Object {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let version = text(value.get("apiVersion"));
        let metadata = value.get("metadata");
        Object {
            kind: text(value.get("kind")),
            group: version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned()),
            namespace: text(metadata.and_then(|it| it.get("namespace"))),
            name: text(metadata.and_then(|it| it.get("name"))),
            value,
        }
    }

    /// `IPAddressPool metallb-system/first`
    pub fn label(&self) -> String {
        let Object { kind, namespace, name, .. } = self;
        let label = if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
        shortened(&label)
    }

    /// The labels or annotations of the object, those that are texts.
    pub fn texts_of_metadata(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = self.value.get("metadata").and_then(|it| it.get(key)).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// The fields of `spec`; a complaint if it is there and no map.
    pub fn spec(&self, draft: &mut Draft) -> Fields<'_> {
        self.map("spec", draft)
    }

    /// The fields of a map at the top of the object.
    pub fn map(&self, key: &'static str, draft: &mut Draft) -> Fields<'_> {
        let none = || Fields::new(self.label(), key, &NOTHING, &[]);
        match self.value.get(key) {
            None | Some(Value::Null) => none(),
            Some(Value::Object(map)) => Fields::new(self.label(), key, map, &[]),
            Some(other) => {
                draft.misread(&self.label(), key, &shown(other), "this is not a map; it was left out");
                none()
            }
        }
    }
}

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// The fields of one map. Each is taken by its name; at the end, [`Fields::finish`] names those that nobody took.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub object: String,
    path: String,
    map: &'a Map<String, Value>,
    taken: BTreeSet<&'static str>,
    /// The names of a former format: name in the objects of today, and name in this map.
    former: &'static [(&'static str, &'static str)],
}

impl<'a> Fields<'a> {
    pub fn new(
        object: String,
        path: &str,
        map: &'a Map<String, Value>,
        former: &'static [(&'static str, &'static str)],
    ) -> Fields<'a> {
        Fields { object, path: path.to_owned(), map, taken: BTreeSet::new(), former }
    }

    /// Where a field is, as people write it: `spec.autoAssign`.
    pub fn path(&self, key: &'static str) -> String {
        if self.path.is_empty() { self.name(key).to_owned() } else { format!("{}.{}", self.path, self.name(key)) }
    }

    fn name(&self, key: &'static str) -> &'static str {
        self.former.iter().find(|(today, _)| *today == key).map_or(key, |(_, former)| former)
    }

    /// The value of a field. An explicit null is like a missing field, as for the API server.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        let name = self.name(key);
        self.taken.insert(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub fn text(&mut self, key: &'static str, draft: &mut Draft) -> Option<&'a str> {
        self.typed(key, draft, "text", Value::as_str)
    }

    pub fn flag(&mut self, key: &'static str, draft: &mut Draft) -> Option<bool> {
        self.typed(key, draft, "true or false", Value::as_bool)
    }

    pub fn number(&mut self, key: &'static str, draft: &mut Draft) -> Option<i64> {
        self.typed(key, draft, "a whole number", Value::as_i64)
    }

    /// A list of texts. What is in it and no text is named and left out.
    pub fn texts(&mut self, key: &'static str, draft: &mut Draft) -> Vec<&'a str> {
        let path = self.path(key);
        let values = self.typed(key, draft, "a list", Value::as_array);
        let mut texts = Vec::new();
        for value in values.into_iter().flatten() {
            match value.as_str() {
                Some(text) => texts.push(text),
                None => draft.misread(&self.object, &path, &shown(value), "this is not text; it was left out"),
            }
        }
        texts
    }

    /// The map in a field.
    pub fn fields(&mut self, key: &'static str, draft: &mut Draft) -> Option<Fields<'a>> {
        let map = self.typed(key, draft, "a map", Value::as_object)?;
        Some(Fields::new(self.object.clone(), &self.path(key), map, self.former))
    }

    /// The maps in a list.
    pub fn list(&mut self, key: &'static str, draft: &mut Draft) -> Vec<Fields<'a>> {
        let path = self.path(key);
        let values = self.typed(key, draft, "a list", Value::as_array);
        let mut maps = Vec::new();
        for (number, value) in values.into_iter().flatten().enumerate() {
            let path = format!("{path}[{number}]");
            match value.as_object() {
                Some(map) => maps.push(Fields::new(self.object.clone(), &path, map, self.former)),
                None => draft.misread(&self.object, &path, &shown(value), "this is not a map; it was left out"),
            }
        }
        maps
    }

    /// Keys of the map's own, with texts as values, as labels are.
    pub fn pairs(&mut self, key: &'static str, draft: &mut Draft) -> Vec<(&'a str, &'a str)> {
        let path = self.path(key);
        let map = self.typed(key, draft, "a map", Value::as_object);
        let mut pairs = Vec::new();
        for (name, value) in map.into_iter().flatten() {
            match value.as_str() {
                Some(text) => pairs.push((name.as_str(), text)),
                None => draft.misread(&self.object, &format!("{path}.{name}"), &shown(value), "this is not text"),
            }
        }
        pairs
    }

    /// Takes a field that changes nothing for crier.
    pub fn ignore(&mut self, keys: &[&'static str]) {
        for key in keys {
            let name = self.name(key);
            self.taken.insert(name);
        }
    }

    /// Names every field that nobody took; nobody knows whether one of them narrows, so the table of the fields is a comment then.
    pub fn finish_narrowing(self, draft: &mut Draft) {
        for (key, value) in self.map.iter().filter(|(key, _)| !self.taken.contains(key.as_str())) {
            let text = "migrate does not know this field; it was left out";
            draft.misread(&self.object, &format!("{}.{key}", self.path), &shown_of(&key.to_lowercase(), value), text);
        }
    }

    /// Names every field that nobody took.
    pub fn finish(self, draft: &mut Draft) {
        for (key, value) in self.map.iter().filter(|(key, _)| !self.taken.contains(key.as_str())) {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let text = "migrate does not know this field; it was left out";
            draft.leave_out(&self.object, &path, &shown_of(&key.to_lowercase(), value), text);
        }
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        draft: &mut Draft,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            let value = shown_of(&key.to_lowercase(), value);
            draft.misread(&self.object, &self.path(key), &value, &format!("this is not {what}; it was left out"));
        }
        typed
    }
}

/// A value on one short line; nothing of a field that may hold a password, by its name in lower case.
fn shown_of(key: &str, value: &Value) -> String {
    if key.contains("pass") || key.contains("secret") { String::new() } else { shown(value) }
}
