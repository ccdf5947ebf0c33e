//! Takes typed values out of a section, with the defaults of the option table, and gathers what is wrong with them.
//! Floor 1. A value that was complained about reads as absent without default; the configuration that a reader
//! builds from such values is thrown away with the complaints, so stand-ins in it never reach anybody.

use std::time::Duration;

use super::complaint::{Complaint, Place, Problem};
use super::document::{Data, Entry, Table, Value};
use super::duration;
use super::options::{Default, Section};
use super::secrets::Secrets;
use super::shape::quoted;

/// One section of the merged files.
pub(super) struct Reader<'a> {
    pub section: &'static Section,
    pub table: &'a Table,
    /// Where secrets are read that the files name.
    pub secrets: &'a dyn Secrets,
    pub complaints: &'a mut Vec<Complaint>,
}

impl<'a> Reader<'a> {
    pub fn complain(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.complaints.push(Complaint { place, message: message.into(), hint: Some(hint.into()), second: None });
    }

    /// A complaint about two places.
    pub fn conflict(&mut self, place: Place, message: impl Into<String>, hint: &str, second: (Place, &str)) {
        let (other, label) = second;
        self.complaints.push(Complaint {
            place,
            message: message.into(),
            hint: Some(hint.to_owned()),
            second: Some((other, label.to_owned())),
        });
    }

    /// The entry as it was written, if it was.
    pub fn given(&self, key: &str) -> Option<&'a Entry> {
        self.table.entries.get(key)
    }

    /// The key was written with a list of nothing. A list whose items were all refused is not that.
    pub fn empty_list_given(&self, key: &str) -> bool {
        matches!(self.given(key).map(|entry| &entry.value.data), Some(Data::List(values)) if values.is_empty())
    }

    /// Where to point for a key: at its value, or at the section's header.
    pub fn place(&self, key: &str) -> Place {
        self.given(key).map_or_else(|| self.table.place.clone(), |entry| entry.value.place.clone())
    }

    /// Where to point for something that the section as a whole lacks or has wrong.
    pub fn header(&self) -> Place {
        self.table.place.clone()
    }

    /// The value that was written, else none and what holds then. Complains where a required key is missing.
    fn value(&mut self, key: &str) -> Result<&'a Value, Default> {
        if let Some(entry) = self.given(key) {
            return Ok(&entry.value);
        }
        let default = self.section.option(key).map_or(Default::Unset(""), |option| option.default);
        if default == Default::Required {
            let kind = self.section.option(key).map(|option| option.kind.to_string()).unwrap_or_default();
            let message = format!("{} has no {}", self.section, quoted(key));
            self.complain(self.header(), message, format!("add {}, {kind}", quoted(key)));
        }
        Err(default)
    }

    pub fn flag(&mut self, key: &str) -> bool {
        match self.value(key) {
            Ok(Value { data: Data::Flag(flag), .. }) => *flag,
            Err(Default::Flag(flag)) => flag,
            _ => false,
        }
    }

    /// The option table keeps the range already, so a number only fails to fit where the table allows too much.
    pub fn number<N: TryFrom<i64>>(&mut self, key: &str) -> Option<N> {
        match self.value(key) {
            Ok(Value { data: Data::Number(number), .. }) => N::try_from(*number).ok(),
            Err(Default::Number(number)) => N::try_from(number).ok(),
            _ => None,
        }
    }

    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        match self.value(key) {
            Ok(Value { data: Data::Text(text), .. }) => duration::parse(&text.text).ok(),
            Err(Default::Text(text)) => duration::parse(text).ok(),
            _ => None,
        }
    }

    /// A text, turned into what it means.
    pub fn text<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Option<T> {
        match self.value(key) {
            Ok(value) => self.parsed(value, parse),
            Err(Default::Text(text)) => parse(text).ok(),
            Err(_) => None,
        }
    }

    /// A list of texts, each turned into what it means, with its place. What could not be read is left out.
    /// The items of a default have the place of the section.
    pub fn texts<T>(&mut self, key: &str, mut parse: impl FnMut(&str) -> Result<T, Problem>) -> Vec<(T, Place)> {
        match self.value(key) {
            Ok(Value { data: Data::List(values), .. }) => {
                let parsed = values.iter().map(|value| (self.parsed(value, &mut parse), value.place.clone()));
                parsed.filter_map(|(item, place)| Some((item?, place))).collect()
            }
            Err(Default::Texts(texts)) => {
                texts.iter().filter_map(|text| Some((parse(text).ok()?, self.header()))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// As `texts`, for lists in which nothing may stand twice.
    pub fn set<T: PartialEq>(&mut self, key: &str, parse: impl FnMut(&str) -> Result<T, Problem>) -> Vec<(T, Place)> {
        let items = self.texts(key, parse);
        for (n, (item, place)) in items.iter().enumerate() {
            if let Some((_, first)) = items[..n].iter().find(|(earlier, _)| earlier == item) {
                let message = format!("{} holds this twice", quoted(key));
                self.conflict(place.clone(), message, "take one of them out", (first.clone(), "first here"));
            }
        }
        items
    }

    fn parsed<T>(&mut self, value: &Value, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Option<T> {
        let Data::Text(text) = &value.data else { return None };
        match parse(&text.text) {
            Ok(parsed) => Some(parsed),
            Err(Problem { message, hint, part }) => {
                let place = part.map_or_else(|| value.place.clone(), |part| value.part(part));
                self.complaints.push(Complaint { place, message, hint, second: None });
                None
            }
        }
    }

    /// Reads a section that stands in this one once or never. One that is not there reads as an empty one.
    pub fn one<T>(&mut self, key: &str, read: impl FnOnce(&mut Reader<'_>) -> T) -> Option<T> {
        let section = Section::find(&self.section.join(key))?;
        let empty = Table { place: self.header(), entries: std::collections::BTreeMap::new() };
        let table = match self.given(key).map(|entry| &entry.value.data) {
            Some(Data::Table(table)) => table,
            Some(_) => return None,
            None => &empty,
        };
        Some(read(&mut Reader { section, table, secrets: self.secrets, complaints: self.complaints }))
    }

    /// Reads each of the sections that may stand in this one many times. Those that make no sense are left out.
    pub fn many<T>(&mut self, key: &str, mut read: impl FnMut(&mut Reader<'_>) -> Option<T>) -> Vec<T> {
        let section = Section::find(&self.section.join(key));
        let (Some(section), Some(Data::List(values))) = (section, self.given(key).map(|entry| &entry.value.data))
        else {
            return Vec::new();
        };
        let tables = values.iter().filter_map(|value| match &value.data {
            Data::Table(table) => Some(table),
            _ => None,
        });
        let mut many = Vec::new();
        for table in tables {
            let one = read(&mut Reader { section, table, secrets: self.secrets, complaints: self.complaints });
            if one.is_none() {
                explain_refusal(self.complaints, &table.place);
            }
            many.extend(one);
        }
        many
    }
}

/// Nothing is left out without a word: if no complaint says why this place could not be read, one is added.
/// It takes a row of the option table that does not fit the code to get here.
pub(super) fn explain_refusal(complaints: &mut Vec<Complaint>, place: &Place) {
    if complaints.is_empty() {
        complaints.push(Complaint {
            place: place.clone(),
            message: "this cannot be read, and crier does not know why".to_owned(),
            hint: Some("this is a mistake of crier's; please report it with this file".to_owned()),
            second: None,
        });
    }
}
