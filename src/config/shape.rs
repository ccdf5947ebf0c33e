//! Holds the tree against the option table: unknown keys, wrong types, values out of range.
//! Floor 1. Each file is checked on its own, before drop-ins hide anything. A value that was complained about is
//! marked as refused, so that no reader stumbles over it again.

use super::complaint::{Complaint, Place};
use super::document::{Data, Entry, Table, Value};
use super::duration;
use super::key::{Kind, Row};
use super::nearest;
use super::section::{SECTIONS, Section};

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
            if let Some(row) = section.row(key) {
                self.kind(row, &mut entry.value);
            } else if let Some(inner) = Section::find(&section.join(key)) {
                self.section(inner, entry);
            } else if let Some(own) = &section.own_keys {
                if !matches!(entry.value.data, Data::Text(_)) {
                    let message =
                        format!("{} is {}; {section} takes {}", quoted(key), entry.value.type_name(), own.what);
                    self.complain(&entry.value.place, message, format!("write it like {}", own.example));
                    entry.value.data = Data::Refused;
                }
            } else {
                self.unknown(section, key, entry);
            }
        }
    }

    fn unknown(&mut self, section: &Section, key: &str, entry: &mut Entry) {
        let known: Vec<&str> = section.keys().collect();
        let elsewhere: Vec<&Section> =
            SECTIONS.iter().copied().filter(|other| other.keys().any(|known| known == key)).collect();
        let hint = match (nearest(key, known.iter().copied()), &elsewhere[..]) {
            (Some(near), _) => format!("did you mean {}?", quoted(near)),
            (None, [only]) if only.path.is_empty() => match Section::find(key) {
                Some(top) => format!("write {top} on its own line"),
                None => format!("move {} above all sections", quoted(key)),
            },
            (None, [only]) => format!("move {} to {only}", quoted(key)),
            (None, _) => format!("{section} has the keys {}", known.join(", ")),
        };
        let what = if matches!(entry.value.data, Data::Table(_)) { "section" } else { "key" };
        self.complain(&entry.key, format!("unknown {what} {} in {section}", quoted(key)), hint);
        entry.value.data = Data::Refused;
    }

    fn section(&mut self, section: &'static Section, entry: &mut Entry) {
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
                ("is a list and can be repeated", format!("write {section}, also for a single one"))
            }
            (_, true) => ("is a list of tables", format!("write {section} on its own line and the keys below it")),
            (Data::List(_), false) => ("can appear only once", format!("write {section}")),
            (_, false) => ("is a table", format!("write {section} on its own line and the keys below it")),
        };
        self.complain(&value.place, format!("{} {message}", quoted(section.path)), hint);
        value.data = Data::Refused;
    }

    fn kind(&mut self, row: &Row, value: &mut Value) {
        let key = row.key;
        let problem = match (row.kind, &mut value.data) {
            (Kind::Flag | Kind::FlagOr(_), Data::Flag(_)) => None,
            (Kind::FlagOr(words) | Kind::Asn(words), Data::Text(text)) => {
                let known = words.contains(&text.text.as_str());
                (!known).then(|| format!("{} is {}", quoted(key), written(&text.text)))
            }
            (Kind::Asn(_), Data::Number(number)) => reserved_asn(*number),
            (Kind::Number { least, most, .. }, Data::Number(number)) => (!(least..=most).contains(number))
                .then(|| format!("{} is {number}, which is out of range", quoted(key))),
            (Kind::Duration { least, most }, Data::Text(text)) => match duration::parse(&text.text) {
                Ok(duration) => (!(least..=most).contains(&duration))
                    .then(|| format!("{} is {}, which is out of range", quoted(key), written(&text.text))),
                Err(error) => Some(format!("{}: {error}", quoted(key))),
            },
            (Kind::Text(_) | Kind::Word(_), Data::Text(_)) => None,
            (Kind::Texts(_), Data::List(values)) => {
                for value in values {
                    if !matches!(value.data, Data::Text(_)) {
                        let message = format!("{} contains {}, not a string", quoted(key), value.type_name());
                        self.complain(&value.place, message, format!("it takes {}", row.kind));
                        value.data = Data::Refused;
                    }
                }
                return;
            }
            _ => Some(format!("{} is {}", quoted(key), value.type_name())),
        };
        let Some(message) = problem else { return };
        let hint = match (row.kind, &value.data) {
            (Kind::Duration { .. }, Data::Text(_) | Data::Number(_)) => {
                format!("it takes {}, written like \"300ms\", \"30s\", \"1m30s\"", row.kind)
            }
            (Kind::Texts(_), Data::Text(text)) => format!("write a list: [{}]", written(&text.text)),
            (Kind::Number { .. } | Kind::Asn(_), Data::Text(text)) if text.text.parse::<i64>().is_ok() => {
                format!("write the number without quotes: {key} = {}", text.text)
            }
            (Kind::FlagOr(words) | Kind::Asn(words), Data::Text(text)) => {
                match nearest(&text.text, words.iter().copied()) {
                    Some(near) => format!("did you mean {}?", written(near)),
                    None => format!("it takes {}", row.kind),
                }
            }
            (Kind::Asn(_), Data::Number(_)) => {
                "private AS numbers are 64512 to 65534 and 4200000000 to 4294967294".to_owned()
            }
            _ => format!("it takes {}", row.kind),
        };
        self.complain(&value.place, message, hint);
        value.data = Data::Refused;
    }
}

/// Why no router may have this AS number, if none may.
fn reserved_asn(asn: i64) -> Option<String> {
    let why = match asn {
        // RFC 7607 §2: "A BGP speaker MUST NOT originate or propagate a route with an AS number of zero".
        0 => "AS 0 is reserved (RFC 7607)",
        // RFC 6793 §9: AS_TRANS stands for numbers that do not fit into two octets.
        23456 => "AS 23456 is AS_TRANS (RFC 6793)",
        // RFC 7300 §2: the last numbers of two and of four octets.
        65535 => "AS 65535 is reserved (RFC 7300)",
        0xffff_ffff => "AS 4294967295 is reserved (RFC 7300)",
        1..0xffff_ffff => return None,
        _ => return Some(format!("{asn} is not an AS number; AS numbers range from 1 to 4294967294")),
    };
    Some(format!("this AS number cannot be used: {why}"))
}

/// A key, as complaints show it.
pub(super) fn quoted(key: &str) -> String {
    format!("`{key}`")
}

/// A text value as it stands in the file, on one line whatever is in it.
pub(super) fn written(text: &str) -> String {
    // Nobody reads more of it.
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}
