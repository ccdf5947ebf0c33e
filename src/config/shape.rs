//! Holds the tree against the option table: unknown keys, wrong types, values out of range, what is not available yet.
//! Floor 1. Each file is checked on its own, before drop-ins hide anything. A value that was complained about is
//! marked as refused, so that no reader stumbles over it again.

use super::complaint::{Complaint, Place};
use super::document::{Data, Entry, Table, Value};
use super::duration;
use super::nearest;
use super::options::{Available, ConfigOption, Kind, SECTIONS, Section};

/// Checks a whole file.
pub(super) fn check(file: &mut Table, complaints: &mut Vec<Complaint>) {
    if let Some(root) = Section::find("") {
        Checker { complaints }.table(root, file);
    }
}

struct Checker<'a> {
    complaints: &'a mut Vec<Complaint>,
}

impl Checker<'_> {
    fn complain(&mut self, place: &Place, message: String, hint: String) {
        self.complaints.push(Complaint { place: place.clone(), message, hint: Some(hint), second: None });
    }

    fn table(&mut self, section: &'static Section, table: &mut Table) {
        for (key, entry) in &mut table.entries {
            if let Some(option) = section.option(key) {
                self.option(section, option, entry);
            } else if let Some(inner) = Section::find(&section.join(key)) {
                self.section(inner, entry);
            } else if let Some(what) = section.own_keys {
                if !matches!(entry.value.data, Data::Text(_)) {
                    let message = format!("{} is {}, not {what}", quoted(key), entry.value.type_name());
                    self.complain(&entry.value.place, message, format!("write {key} = \"64512:100\""));
                    entry.value.data = Data::Refused;
                }
            } else {
                self.unknown(section, key, entry);
            }
        }
    }

    fn unknown(&mut self, section: &Section, key: &str, entry: &mut Entry) {
        let known: Vec<&str> = section.keys().collect();
        let elsewhere = SECTIONS.iter().find(|other| other.option(key).is_some() || other.keys().any(|k| k == key));
        let hint = match (nearest(key, known.iter().copied()), elsewhere) {
            (Some(near), _) => format!("did you mean {}?", quoted(near)),
            (None, Some(other)) => format!("{} is a key of {other}", quoted(key)),
            (None, None) => format!("{section} knows {}", known.join(", ")),
        };
        self.complain(&entry.key, format!("unknown key {} in {section}", quoted(key)), hint);
        entry.value.data = Data::Refused;
    }

    fn section(&mut self, section: &'static Section, entry: &mut Entry) {
        if let Available::NotYet(what) = section.available {
            let place = match &entry.value.data {
                Data::List(tables) => tables.first().map_or(&entry.key, |table| &table.place),
                Data::Table(table) => &table.place,
                _ => &entry.key,
            };
            self.complain(
                place,
                format!("{section} is not available yet"),
                format!("this version of crier does not know {what}; take the section out"),
            );
            return;
        }
        match (&mut entry.value.data, section.repeated) {
            (Data::Table(table), false) => self.table(section, table),
            (Data::List(values), true) => {
                for value in values {
                    match &mut value.data {
                        Data::Table(table) => self.table(section, table),
                        _ => self.not_a_section(section, value),
                    }
                }
            }
            _ => self.not_a_section(section, &mut entry.value),
        }
    }

    fn not_a_section(&mut self, section: &Section, value: &mut Value) {
        let (message, hint) = match (&value.data, section.repeated) {
            (Data::Table(_), true) => {
                ("may come many times and is a list", format!("write {section}, also for the first"))
            }
            (_, true) => ("is a list of tables", format!("write {section} on a line of its own and the keys below")),
            (Data::List(_), false) => ("may come only once", format!("write {section}")),
            (_, false) => ("is a table", format!("write {section} on a line of its own and the keys below")),
        };
        self.complain(&value.place, format!("{} {message}", quoted(section.path)), hint);
        value.data = Data::Refused;
    }

    fn option(&mut self, section: &Section, option: &ConfigOption, entry: &mut Entry) {
        let path = section.join(option.key);
        let complaints = self.complaints.len();
        self.kind(option, &mut entry.value);
        if self.complaints.len() > complaints {
            return;
        }
        let (what, value) = match option.available {
            Available::Yes => return,
            Available::NotYetTrue(_) if !matches!(entry.value.data, Data::Flag(true)) => return,
            Available::NotYetTrue(what) => (what, " = true"),
            Available::NotYet(what) => (what, ""),
        };
        let hint = format!("this version of crier does not know {what}; take the key out");
        self.complain(&entry.key, format!("{} is not available yet", quoted(&format!("{path}{value}"))), hint);
        // The value stays: a reference in it is checked even so.
    }

    fn kind(&mut self, option: &ConfigOption, value: &mut Value) {
        let key = option.key;
        let problem = match (option.kind, &mut value.data) {
            (Kind::Flag | Kind::FlagOr(_), Data::Flag(_)) => None,
            (Kind::FlagOr(words) | Kind::NumberOr { words, .. }, Data::Text(text)) => {
                let known = words.contains(&text.text.as_str());
                (!known).then(|| format!("{} is {}", quoted(key), written(&text.text)))
            }
            (Kind::Number { least, most, .. } | Kind::NumberOr { least, most, .. }, Data::Number(number)) => {
                (!(least..=most).contains(number)).then(|| format!("{} is {number}, out of its range", quoted(key)))
            }
            (Kind::Duration { least, most }, Data::Text(text)) => match duration::parse(&text.text) {
                Ok(duration) => (!(least..=most).contains(&duration))
                    .then(|| format!("{} is {}, out of its range", quoted(key), written(&text.text))),
                Err(error) => Some(format!("{}: {error}", quoted(key))),
            },
            (Kind::Text(_), Data::Text(_)) => None,
            (Kind::Texts(_), Data::List(values)) => {
                for value in values {
                    if !matches!(value.data, Data::Text(_)) {
                        let message = format!("{} holds {}, not a text", quoted(key), value.type_name());
                        self.complain(&value.place, message, format!("it takes {}", option.kind));
                        value.data = Data::Refused;
                    }
                }
                return;
            }
            _ => Some(format!("{} is {}", quoted(key), value.type_name())),
        };
        let Some(message) = problem else { return };
        let hint = match (option.kind, &value.data) {
            (Kind::Duration { .. }, Data::Text(_) | Data::Number(_)) => {
                format!("it takes {}, written like \"300ms\", \"30s\", \"1m30s\"", option.kind)
            }
            (Kind::Texts(_), Data::Text(text)) => format!("write a list: [{}]", written(&text.text)),
            (Kind::Number { .. } | Kind::NumberOr { .. }, Data::Text(text)) if text.text.parse::<i64>().is_ok() => {
                format!("write the number without quotes: {key} = {}", text.text)
            }
            _ => format!("it takes {}", option.kind),
        };
        self.complain(&value.place, message, hint);
        value.data = Data::Refused;
    }
}

/// A key, as complaints show it.
pub(super) fn quoted(key: &str) -> String {
    format!("`{key}`")
}

/// A text value as it stands in the file, on one line whatever is in it.
pub(super) fn written(text: &str) -> String {
    format!("{text:?}")
}
