//! The crier.toml in the making: tables with their lines, what a human must look at, and the passwords that it names. Floor 1.
//! Not for the text of it, and not for what this version accepts; that is `write`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::shown::{one_line, shortened};
use crate::secret::Secret;
use crate::selector::is_dns_name;

/// Something that a human must look at: a value that the configuration does not say, or says in another way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    pub object: String,
    /// Empty if the warning is about the object as a whole.
    pub field: String,
    /// As it was written, in JSON. Empty for a password, and where there is none.
    pub value: String,
    pub text: String,
}

/// `BGPPeer metallb-system/tor: spec.bfdProfile "fast": ...`
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            let space = if self.value.is_empty() { "" } else { " " };
            write!(f, "{}{space}{}: ", self.field, self.value)?;
        }
        f.write_str(&self.text)
    }
}

/// A password that the configuration names by a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password {
    pub file: PathBuf,
    pub secret: Secret,
}

/// A table of the file.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The path of its section: `bgp.peer`.
    pub section: &'static str,
    /// The object that it is made of; empty if none.
    pub object: String,
    pub items: Vec<Item>,
    /// Commented out as a whole.
    pub off: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A human must look at this.
    Check(String),
    /// A remark that asks for nothing.
    Note(String),
    Line(Line),
}

#[derive(Debug, Clone)]
pub(super) struct Line {
    pub key: String,
    /// In TOML.
    pub value: String,
    /// The field that it is made of; empty if none.
    pub field: String,
    /// Without this line the table would say more than it should, so the whole table goes with the line.
    pub narrows: bool,
    pub off: bool,
}

impl Item {
    pub fn is_key(&self, key: &str) -> bool {
        matches!(self, Item::Line(line) if line.key == key)
    }
}

impl Table {
    pub fn new(section: &'static str, object: &str) -> Table {
        Table { section, object: object.to_owned(), items: Vec::new(), off: false }
    }

    /// A key with its value in TOML.
    pub fn set(&mut self, key: &str, value: String, field: &str) {
        self.line(key, value, field, false);
    }

    /// A key without which the table would say more than it should.
    pub fn narrow(&mut self, key: &str, value: String, field: &str) {
        self.line(key, value, field, true);
    }

    fn line(&mut self, key: &str, value: String, field: &str, narrows: bool) {
        let (key, field) = (key.to_owned(), field.to_owned());
        self.items.push(Item::Line(Line { key, value, field, narrows, off: false }));
    }

    /// The value of a key in TOML, where it is not commented out.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.items.iter().find_map(|item| match item {
            Item::Line(line) if line.key == key && !line.off => Some(line.value.as_str()),
            Item::Line(_) | Item::Check(_) | Item::Note(_) => None,
        })
    }

    /// The texts of a key that has one or a list of them; none where it is not there.
    pub fn texts(&self, key: &str) -> Vec<String> {
        match self.value(key).and_then(|value| value.parse::<toml_edit::Value>().ok()) {
            Some(toml_edit::Value::Array(all)) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            Some(one) => one.as_str().map(str::to_owned).into_iter().collect(),
            None => Vec::new(),
        }
    }

    pub fn note(&mut self, text: &str) {
        self.items.push(Item::Note(one_line(text)));
    }

    /// Asks a human to look at the line that comes next.
    pub fn check(&mut self, draft: &mut Draft, field: &str, value: &str, text: &str) {
        draft.warn(&self.object, field, value, text);
        let value = if value.is_empty() { String::new() } else { format!(" {value}") };
        self.items.push(Item::Check(one_line(&format!("{field}{value}: {text}"))));
    }
}

/// A place among the fields that were read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun(usize);

/// What a human must give one Service.
#[derive(Debug)]
pub(super) struct Annotated {
    /// The object that asks for it.
    pub object: String,
    /// What crier does otherwise, or not at all. One line each.
    pub checks: Vec<String>,
    /// The line for a shell.
    pub command: String,
}

/// Everything that was found out so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub tables: Vec<Table>,
    pub warnings: Vec<Warning>,
    /// The fields that are of another type than the objects have there: nobody knows what these fields narrow.
    misread: Vec<String>,
    /// Fields that nothing in the file stands for.
    left_out: Vec<Warning>,
    pub passwords: Vec<Password>,
    /// What Services must be told, in the order of the objects.
    pub annotated: Vec<Annotated>,
    /// The pools that Services may name: whose they are, their name there, and their name here.
    known: Vec<(&'static str, String, String)>,
    /// The names that are taken, by section.
    names: BTreeMap<&'static str, BTreeSet<String>>,
    /// The number that a name of this section was last told apart by.
    numbers: BTreeMap<(&'static str, String), u32>,
}

impl Draft {
    /// A warning about an object; `value` is one short line.
    pub fn warn(&mut self, object: &str, field: &str, value: &str, text: &str) {
        let (object, field) = (object.to_owned(), shortened(field));
        self.warnings.push(Warning { object, field, value: value.to_owned(), text: text.to_owned() });
    }

    /// A field of an object that nothing in the file stands for.
    pub fn leave_out(&mut self, object: &str, field: &str, value: &str, text: &str) {
        self.warn(object, field, value, text);
        self.left_out.extend(self.warnings.last().cloned());
    }

    /// What was left out is said in the first table that was made of its object; without one, in that which every file has.
    pub fn say_what_was_left_out(&mut self) {
        for Warning { object, field, value, text } in std::mem::take(&mut self.left_out).into_iter().rev() {
            let of_object = self.tables.iter().position(|table| table.object == object);
            let (at, whose) = match of_object {
                Some(at) => (at, String::new()),
                None => (0, format!("{object}: ")),
            };
            let space = if value.is_empty() { "" } else { " " };
            let place = if field.is_empty() { String::new() } else { format!("{field}{space}{value}: ") };
            let check = Item::Check(one_line(&format!("{whose}{place}{text}")));
            if let Some(table) = self.tables.get_mut(at) {
                table.items.insert(0, check);
            }
        }
    }

    pub fn push(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// A warning about a field of a wrong type.
    pub fn misread(&mut self, object: &str, field: &str, value: &str, text: &str) {
        self.leave_out(object, field, value, text);
        self.misread.push(shortened(field));
    }

    /// Where the fields begin that a table is made of, for [`Draft::judge`].
    pub fn begin(&self) -> Begun {
        Begun(self.misread.len())
    }

    /// Whether a field since then was of a wrong type.
    pub fn has_misread(&self, since: Begun) -> bool {
        self.misread.len() > since.0
    }

    /// A table whose fields were read since then: see [`Draft::judge`].
    pub fn push_read(&mut self, mut table: Table, since: Begun) {
        self.judge(&mut table, since);
        self.push(table);
    }

    /// A table is a comment if one of its fields, which were read since then, is of a wrong type: without the field the table could
    /// say more than it should.
    pub fn judge(&mut self, table: &mut Table, since: Begun) {
        let fields = self.misread.get(since.0..).unwrap_or_default().to_vec();
        if table.off {
            return;
        }
        for field in fields {
            let text = "the field cannot be read, so what it narrows is unknown; the whole table is a comment";
            table.check(self, &field, "", text);
            table.off = true;
        }
    }

    pub fn annotate(&mut self, annotated: Annotated) {
        self.annotated.push(annotated);
    }

    /// A pool of a product has this name here.
    pub fn know(&mut self, whose: &'static str, original: &str, name: &str) {
        self.known.push((whose, original.to_owned(), name.to_owned()));
    }

    /// The name here of a pool that a product's Services name.
    pub fn known(&self, whose: &str, original: &str) -> Option<&str> {
        let is_it = |(of, known, _): &&(&'static str, String, String)| *of == whose && known == original;
        self.known.iter().find(is_it).map(|(_, _, name)| name.as_str())
    }

    /// There are pools, and all are of this product.
    pub fn has_only(&self, whose: &str) -> bool {
        !self.known.is_empty() && self.known.iter().all(|(of, _, _)| *of == whose)
    }

    /// A name that crier accepts and that no other table of the section has. What must be changed is said in the table.
    pub fn name(&mut self, table: &mut Table, wanted: &str, field: &str) -> String {
        let taken = self.names.entry(table.section).or_default();
        let plain = as_dns_name(wanted, table.section);
        let mut name = plain.clone();
        let number = self.numbers.entry((table.section, plain.clone())).or_insert(1);
        while taken.contains(&name) {
            *number = number.saturating_add(1);
            name = format!("{plain}-{number}");
        }
        taken.insert(name.clone());
        if name != wanted && !wanted.is_empty() {
            let what = if table.section == "pool" { "; change it in the annotations of Services too" } else { "" };
            let text = format!("crier has no such name, or has it already; it is \"{name}\" here{what}");
            table.check(self, field, &shortened(&format!("{wanted:?}")), &text);
        }
        table.set("name", text(&name), field);
        name
    }
}

/// The nearest name of lower-case letters, digits, dots and hyphens; `otherwise` if nothing of it is left.
fn as_dns_name(wanted: &str, otherwise: &str) -> String {
    const MOST: usize = 200;
    if is_dns_name(wanted) && wanted.len() <= MOST {
        return wanted.to_owned();
    }
    let lower = wanted.to_lowercase();
    let plain: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(MOST).collect();
    let plain = plain.trim_matches('-');
    let otherwise = otherwise.rsplit('.').next().unwrap_or(otherwise);
    if plain.is_empty() { otherwise.to_owned() } else { plain.to_owned() }
}

/// A text in TOML.
pub(super) fn text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            c if c.is_control() => quoted += &format!("\\U{:08x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A list of texts in TOML.
pub(super) fn texts<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|it| text(it.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_crier_refuses_is_changed_and_said() {
        let mut draft = Draft::default();
        for (wanted, expected, said) in [
            ("lan", "lan", false),
            ("lan", "lan-2", true),
            ("My_Pool", "my-pool", true),
            ("__", "pool", true),
            ("", "pool-2", false),
            (&"a".repeat(300), &"a".repeat(200), true),
        ] {
            let before = draft.warnings.len();
            let mut table = Table::new("pool", "ConfigMap x/y");
            assert_eq!(draft.name(&mut table, wanted, "name"), expected, "{wanted}");
            assert_eq!(draft.warnings.len() > before, said, "{wanted}");
        }
    }

    #[test]
    fn any_text_is_one_line_of_toml() {
        for wanted in ["", "a\"b\\c", "line\nline", "\u{7f}\u{0}\u{85}", "größer"] {
            let toml = format!("key = {}", text(wanted));
            let document: toml_edit::Document<String> = toml.parse().expect(&toml);
            assert_eq!(document["key"].as_str(), Some(wanted), "{toml}");
            assert_eq!(toml.lines().count(), 1);
        }
    }
}
