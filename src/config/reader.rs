//! Takes typed values out of a section, with the defaults of its rows, and gathers what is wrong with them.
//! Floor 1. A value that was complained about reads as absent without default; the configuration that a reader
//! builds from such values is thrown away with the complaints, so stand-ins in it never reach anybody.

use std::collections::BTreeMap;

use super::codec::Codec;
use super::complaint::{Complaint, Place, Problem};
use super::document::{Data, Entry, Table, Value};
use super::key::{Default, Key, Row};
use super::secrets::Secrets;
use super::section::{Described, Section, Written};
use super::seen::Seen;
use super::shape::quoted;

/// One section of the merged files.
pub(super) struct Reader<'a> {
    pub section: &'static Section,
    pub table: &'a Table,
    /// Where secrets are read that the files name.
    pub secrets: &'a dyn Secrets,
    /// What the sections before this one have that this one may refer to.
    pub seen: &'a mut Seen,
    pub complaints: &'a mut Vec<Complaint>,
}

impl<'a> Reader<'a> {
    /// Reads a key. Complains where it is missing and required.
    pub fn take<C: Codec>(&mut self, key: &Key<C>) -> Written<C::Value> {
        let name = key.row.key;
        Written {
            value: key.codec.read(&key.row, self),
            place: self.place(name),
            given: self.given(name).is_some(),
            empty_list: self.empty_list_given(name),
        }
    }

    /// The entry of sections in this one that are not read yet.
    pub fn unread<T>(&self, inner: &Section) -> Written<Vec<T>> {
        let name = inner.key();
        Written {
            value: None,
            place: self.place(name),
            given: self.given(name).is_some(),
            empty_list: self.empty_list_given(name),
        }
    }

    pub fn complain(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        let (place, hint) = (place.clone(), Some(hint.into()));
        self.complaints.push(Complaint { place, message: message.into(), hint, second: None });
    }

    /// A complaint about two places; the second has a label.
    pub fn conflict(&mut self, place: &Place, message: impl Into<String>, hint: &str, second: (&Place, &str)) {
        let (other, label) = second;
        self.complaints.push(Complaint {
            place: place.clone(),
            message: message.into(),
            hint: Some(hint.to_owned()),
            second: Some((other.clone(), label.to_owned())),
        });
    }

    /// The entry as it was written, if it was.
    pub fn given(&self, key: &str) -> Option<&'a Entry> {
        self.table.entries.get(key)
    }

    fn empty_list_given(&self, key: &str) -> bool {
        matches!(self.given(key).map(|entry| &entry.value.data), Some(Data::List(values)) if values.is_empty())
    }

    pub fn place(&self, key: &str) -> Place {
        self.given(key).map_or_else(|| self.table.place.clone(), |entry| entry.value.place.clone())
    }

    /// Where to point for something that the section as a whole lacks or has wrong.
    pub fn header(&self) -> Place {
        self.table.place.clone()
    }

    /// The value that was written, if one was. Complains where a required key is missing.
    pub fn value(&mut self, row: &Row) -> Option<&'a Data> {
        self.written(row).map(|value| &value.data)
    }

    fn written(&mut self, row: &Row) -> Option<&'a Value> {
        let entry = self.given(row.key);
        if entry.is_none() && row.default == Default::Required {
            let message = format!("{} has no {}", self.section, quoted(row.key));
            self.complain(&self.header(), message, format!("add {}, {}", quoted(row.key), row.kind));
        }
        entry.map(|entry| &entry.value)
    }

    /// A text, turned into what it means.
    pub fn parsed<T>(&mut self, row: &Row, parse: impl Fn(&str, &Seen) -> Result<T, Problem>) -> Option<T> {
        match (self.written(row), row.default) {
            (Some(value), _) => self.meaning(value, &parse),
            (None, Default::Text(text)) => parse(text, self.seen).ok(),
            (None, _) => None,
        }
    }

    /// A list of texts, each turned into what it means, with its place. What could not be read is left out.
    /// The items of a default have the place of the section.
    pub fn items<T>(&mut self, row: &Row, parse: impl Fn(&str, &Seen) -> Result<T, Problem>) -> Vec<(T, Place)> {
        match (self.written(row), row.default) {
            (Some(Value { data: Data::List(values), .. }), _) => {
                let parsed = values.iter().map(|value| (self.meaning(value, &parse), value.place.clone()));
                parsed.filter_map(|(item, place)| Some((item?, place))).collect()
            }
            (None, Default::Texts(texts)) => {
                texts.iter().filter_map(|text| Some((parse(text, self.seen).ok()?, self.header()))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The texts of a list as they were written, with their places.
    pub fn texts(&self, key: &str) -> impl Iterator<Item = (&'a str, &'a Place)> + use<'a> {
        let values = match self.given(key).map(|entry| &entry.value.data) {
            Some(Data::List(values)) => &values[..],
            _ => &[],
        };
        values.iter().filter_map(|value| match &value.data {
            Data::Text(text) => Some((text.text.as_str(), &value.place)),
            _ => None,
        })
    }

    /// Complains about each item that is the same as one before.
    pub fn twice<T>(&mut self, row: &Row, items: &[(T, Place)], same: fn(&T, &T) -> bool) {
        for (n, (item, place)) in items.iter().enumerate() {
            if let Some((_, first)) = items[..n].iter().find(|(earlier, _)| same(earlier, item)) {
                let message = format!("{} contains this item twice", quoted(row.key));
                self.conflict(place, message, "remove one of them", (first, "first here"));
            }
        }
    }

    fn meaning<T>(&mut self, value: &Value, parse: &impl Fn(&str, &Seen) -> Result<T, Problem>) -> Option<T> {
        let Data::Text(text) = &value.data else { return None };
        match parse(&text.text, self.seen) {
            Ok(parsed) => Some(parsed),
            Err(Problem { message, hint, part }) => {
                let place = part.map_or_else(|| value.place.clone(), |part| value.part(part));
                self.complaints.push(Complaint { place, message, hint, second: None });
                None
            }
        }
    }

    /// Reads a section that stands in this one once or never. One that is not there reads as an empty one.
    pub fn one<T: Described>(&mut self) -> Option<T> {
        let section = T::SECTION;
        let empty = Table { place: self.header(), entries: BTreeMap::new() };
        let table = match self.given(section.key()).map(|entry| &entry.value.data) {
            Some(Data::Table(table)) => table,
            Some(_) => return None,
            None => &empty,
        };
        let (secrets, seen, complaints) = (self.secrets, &mut *self.seen, &mut *self.complaints);
        T::read(&mut Reader { section, table, secrets, seen, complaints })
    }

    /// Reads each of the sections that may stand in this one many times. Those that make no sense are left out.
    pub fn many<T: Described>(&mut self) -> Vec<T> {
        let section = T::SECTION;
        let Some(Data::List(values)) = self.given(section.key()).map(|entry| &entry.value.data) else {
            return Vec::new();
        };
        let tables = values.iter().filter_map(|value| match &value.data {
            Data::Table(table) => Some(table),
            _ => None,
        });
        let mut many = Vec::new();
        for table in tables {
            let (secrets, seen, complaints) = (self.secrets, &mut *self.seen, &mut *self.complaints);
            let one = T::read(&mut Reader { section, table, secrets, seen, complaints });
            if one.is_none() {
                explain_refusal(self.complaints, &table.place);
            }
            many.extend(one);
        }
        many
    }
}

/// Nothing is left out without a word: if no complaint says why this place could not be read, one is added.
/// It takes a row that does not fit the checks of its section to get here.
pub(super) fn explain_refusal(complaints: &mut Vec<Complaint>, place: &Place) {
    if complaints.is_empty() {
        complaints.push(Complaint {
            place: place.clone(),
            message: "this cannot be read, and crier does not know why".to_owned(),
            hint: Some("this is a bug in crier; please report it with this file".to_owned()),
            second: None,
        });
    }
}
