//! The files as one tree of values, each with the place where it was written. Drop-ins override and append here.
//! Floor 1. Not for what keys mean: `shape` knows which there are, the readers know what they say.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Item, Key, TableLike};

use super::SourceFile;
use super::complaint::{Complaint, Place};
use super::section::Section;

/// How deep tables and lists may nest before the rest is taken as one unknown thing. The option table needs five.
const DEEPEST: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The header of the table, or the key it is the value of.
    pub place: Place,
    pub entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The place of the key.
    pub key: Place,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) struct Value {
    pub place: Place,
    pub data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Text(Text),
    Number(i64),
    Flag(bool),
    List(Vec<Value>),
    Table(Table),
    /// A type that no option has; its name in TOML.
    Other(&'static str),
    /// Something was wrong with the value, and the complaint is already made.
    Refused,
}

#[derive(Debug, Clone)]
pub(super) struct Text {
    pub text: String,
    /// Where the text begins in the file, if it stands there letter by letter, without escapes.
    start: Option<usize>,
}

impl Table {
    /// A file with nothing in it, to merge files into.
    pub fn root() -> Table {
        Table { place: Place { file: 0, start: 0, end: 0 }, entries: BTreeMap::new() }
    }
}

impl Value {
    /// What TOML calls a value of this type.
    pub fn type_name(&self) -> &'static str {
        match &self.data {
            Data::Text(_) => "a string",
            Data::Number(_) => "a number",
            Data::Flag(_) => "true or false",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
            Data::Other(name) => name,
            Data::Refused => "something else",
        }
    }

    /// The place of a part of the text, or of the whole value where the part cannot be told.
    pub fn part(&self, part: Range<usize>) -> Place {
        match &self.data {
            Data::Text(Text { start: Some(start), .. }) => {
                Place { file: self.place.file, start: start + part.start, end: start + part.end }
            }
            _ => self.place.clone(),
        }
    }
}

/// Reads one file. A file that is no TOML gives the one complaint that the TOML parser stopped at.
pub(super) fn read(number: usize, file: &SourceFile) -> Result<Table, Complaint> {
    let reader = Reader { file: number, text: &file.text };
    match toml_edit::Document::parse(file.text.as_str()) {
        Ok(document) => Ok(reader.table(document.as_table(), Place { file: number, start: 0, end: 0 }, 0)),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let place = Place { file: number, start: span.start, end: span.end };
            let message = format!("invalid TOML: {}", error.message().trim().replace('\n', ", "));
            if error.message().trim() == "duplicate key" {
                return Err(reader.twice(place, &message));
            }
            Err(Complaint { place, message, hint: None, second: None })
        }
    }
}

/// Puts a later file over an earlier one: lists of sections grow, everything else is overridden key by key.
pub(super) fn merge(path: &str, below: &mut Table, above: Table) {
    for (key, entry) in above.entries {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(old) = below.entries.get_mut(&key) else {
            below.entries.insert(key, entry);
            continue;
        };
        match (&mut old.value.data, entry.value.data) {
            (Data::Table(below), Data::Table(above)) => merge(&path, below, above),
            (Data::List(below), Data::List(mut above)) if Section::find(&path).is_some_and(|s| s.repeated) => {
                below.append(&mut above);
            }
            (_, data) => *old = Entry { key: entry.key, value: Value { place: entry.value.place, data } },
        }
    }
}

struct Reader<'a> {
    file: usize,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, span: Option<Range<usize>>, or: &Place) -> Place {
        span.map_or_else(|| or.clone(), |span| Place { file: self.file, start: span.start, end: span.end })
    }

    /// A key or table that is there already, by the line before it that begins with it.
    fn twice(&self, place: Place, message: &str) -> Complaint {
        let name = |line: &str| {
            line.split('=').next().unwrap_or_default().trim_matches(['[', ']', ' ', '\t', '\r']).to_owned()
        };
        let begin = self.text.get(..place.start).and_then(|it| it.rfind('\n')).map_or(0, |at| at + 1);
        let line = self.text.get(begin..).and_then(|it| it.lines().next()).unwrap_or_default();
        let key = name(self.text.get(place.start..place.end).unwrap_or_default());
        let is_header = line.trim_start().starts_with('[');
        let mut at = 0;
        let mut first = None;
        // Within an inline table it is on the same line.
        let until = if name(line) == key { begin } else { 0 };
        for before in self.text.get(..until).unwrap_or_default().split_inclusive('\n') {
            if name(before.trim_end()) == key && before.trim_start().starts_with('[') == is_header {
                let (start, end) = (at, at + before.trim_end().len());
                first = Some((Place { file: self.file, start, end }, "the first is here".to_owned()));
            }
            at += before.len();
        }
        let hint = match is_header {
            true => "write both as [[...]] if this section may come several times, else make one table of them",
            false => "remove one of the two",
        };
        Complaint { place, message: format!("{message} `{key}`"), hint: Some(hint.to_owned()), second: first }
    }

    fn table(&self, table: &dyn TableLike, place: Place, depth: usize) -> Table {
        let mut entries = BTreeMap::new();
        for (key, item) in table.iter() {
            let key_place = self.place(table.key(key).and_then(Key::span), &place);
            let value = self.value(item, &key_place, depth + 1);
            entries.insert(key.to_owned(), Entry { key: key_place, value });
        }
        Table { place, entries }
    }

    fn value(&self, item: &Item, key: &Place, depth: usize) -> Value {
        let place = self.place(item.span(), key);
        let list = |values: Vec<Value>| Data::List(values);
        let data = match item {
            _ if depth > DEEPEST => Data::Other("something nested too deeply"),
            Item::None => Data::Other("nothing"),
            Item::Table(table) => Data::Table(self.table(table, self.place(table.span(), key), depth)),
            Item::ArrayOfTables(tables) => list(
                tables
                    .iter()
                    .map(|table| {
                        let place = self.place(table.span(), key);
                        Value { place: place.clone(), data: Data::Table(self.table(table, place, depth)) }
                    })
                    .collect(),
            ),
            Item::Value(value) => self.plain(value, &place, depth),
        };
        Value { place, data }
    }

    fn plain(&self, value: &toml_edit::Value, place: &Place, depth: usize) -> Data {
        match value {
            _ if depth > DEEPEST => Data::Other("something nested too deeply"),
            toml_edit::Value::String(text) => Data::Text(self.content(text.value(), place)),
            toml_edit::Value::Integer(number) => Data::Number(*number.value()),
            toml_edit::Value::Boolean(flag) => Data::Flag(*flag.value()),
            toml_edit::Value::Float(_) => Data::Other("a number with a fraction"),
            toml_edit::Value::Datetime(_) => Data::Other("a date"),
            toml_edit::Value::Array(values) => Data::List(
                values
                    .iter()
                    .map(|value| {
                        let place = self.place(value.span(), place);
                        let data = self.plain(value, &place, depth + 1);
                        Value { place, data }
                    })
                    .collect(),
            ),
            toml_edit::Value::InlineTable(table) => Data::Table(self.table(table, place.clone(), depth)),
        }
    }

    /// The text with its beginning in the file: behind the quote, of which there may be three with a newline behind.
    fn content(&self, text: &str, place: &Place) -> Text {
        let written = self.text.get(place.start..place.end).unwrap_or_default();
        let openings = ["\"\"\"\r\n", "'''\r\n", "\"\"\"\n", "'''\n", "\"\"\"", "'''", "\"", "'"];
        let quote = openings.iter().find(|quote| written.starts_with(**quote));
        let start =
            quote.filter(|quote| written[quote.len()..].starts_with(text)).map(|quote| place.start + quote.len());
        Text { text: text.to_owned(), start }
    }
}
