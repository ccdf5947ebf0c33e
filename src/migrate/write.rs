//! Writes the draft as a crier.toml that this version accepts: what it has no key for, or refuses, becomes a comment. Floor 1.
//! The tables of the configuration say which keys there are, and its own checks are the last judge; nothing here repeats them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::draft::{Draft, Item, Line, Table, Warning};
use super::shown::one_line;
use crate::config::section::Section;
use crate::config::{Secrets, SourceFile, parse};

/// The order of the tables in the file.
const ORDER: [&str; 10] =
    ["kubernetes", "pool", "l2", "bgp", "bgp.communities", "bgp.peer", "bgp.advertisement", "bfd", "egress", "vrf"];

/// The file, with a warning for each line that is a comment because this version does not accept it.
pub(super) fn write(mut draft: Draft) -> (String, Vec<Warning>, Draft) {
    draft.tables.sort_by_key(|table| ORDER.iter().position(|section| *section == table.section));
    leave_out_what_is_not_there(&mut draft);
    leave_out_names(&mut draft);
    while leave_out_what_is_refused(&mut draft) {}
    let (text, _) = render(&draft);
    // Several tables may be made of one field; what is wrong with the field is said once.
    let mut said = BTreeSet::new();
    let mut warnings = std::mem::take(&mut draft.warnings);
    warnings.retain(|warning| said.insert(warning.clone()));
    (text, warnings, draft)
}

/// The keys that this version has are those of the tables of the configuration.
fn leave_out_what_is_not_there(draft: &mut Draft) {
    let warnings = &mut draft.warnings;
    for table in &mut draft.tables {
        if Section::find(table.section).is_none() {
            let text = format!("this version has no [[{}]]", table.section);
            switch_off(table, None, &text, warnings);
            continue;
        }
        let lines: Vec<(usize, String)> = lines(table)
            .filter(|(_, line)| is_lacking(table.section, line))
            .map(|(at, line)| (at, format!("this version has no `{} = {}`", line.key, line.value)))
            .collect();
        // From the end, because a comment is put before each.
        for (at, text) in lines.into_iter().rev() {
            switch_off_line(table, at, &text, warnings);
        }
    }
}

/// Whether this version has no such key.
fn is_lacking(path: &str, line: &Line) -> bool {
    let Some(section) = Section::find(path) else { return false };
    let is_known = section.row(&line.key).is_some() || Section::find(&section.join(&line.key)).is_some();
    section.own_keys.is_none() && !is_known
}

/// Lets the configuration judge the text. Whether something was left out for it, and so another look is due.
fn leave_out_what_is_refused(draft: &mut Draft) -> bool {
    let (text, owners) = render(draft);
    let file = SourceFile { path: "crier.toml".to_owned(), text };
    let Err(complaints) = parse(&[file], &AnySecret) else { return false };
    // One line is left out once, whatever else is wrong with it.
    let mut wrong: Vec<(usize, Option<usize>, String)> = Vec::new();
    for complaint in complaints.iter() {
        let line = complaints.position(&complaint.place).line;
        let Some(Some((table, item))) = owners.get(line.saturating_sub(1)) else { continue };
        let hint = complaint.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        let text = format!("crier refuses this: {}{hint}", complaint.message);
        if !wrong.iter().any(|(a, b, _)| (a, b) == (table, item)) {
            wrong.push((*table, *item, text));
        }
    }
    let found = !wrong.is_empty();
    wrong.sort_by(|a, b| b.cmp(a));
    let Draft { tables, warnings, .. } = draft;
    for (number, at, text) in wrong {
        let Some(table) = tables.get_mut(number).filter(|table| !table.off) else { continue };
        match at {
            Some(at) if dispensable(table, at) => switch_off_line(table, at, &text, warnings),
            at => switch_off(table, at, &text, warnings),
        }
    }
    leave_out_names(draft);
    found
}

/// A table that is for several pools or peers is for the others still, where one is a comment.
fn leave_out_names(Draft { tables, warnings, .. }: &mut Draft) {
    for (key, section) in [("pools", "pool"), ("peers", "bgp.peer")] {
        let off = tables.iter().filter(|table| table.off && table.section == section);
        let names = off.filter_map(|table| lines(table).find(|(_, line)| line.key == "name"));
        let gone: Vec<String> = names.map(|(_, line)| line.value.clone()).collect();
        tables.iter_mut().filter(|table| !table.off).for_each(|table| leave_out_of(table, key, &gone, warnings));
    }
}

fn leave_out_of(table: &mut Table, key: &str, gone: &[String], warnings: &mut Vec<Warning>) {
    let Some(at) = lines(table).find(|(_, line)| line.key == key && !line.off).map(|(at, _)| at) else { return };
    let object = table.object.clone();
    let Some(Item::Line(line)) = table.items.get_mut(at) else { return };
    let all: Vec<&str> = line.value.trim_matches(['[', ']']).split(", ").collect();
    // A name in TOML is as it was written in its own table.
    let (left_out, rest): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| gone.iter().any(|it| it == name));
    if left_out.is_empty() || rest.is_empty() {
        return;
    }
    let text = format!("{} is a comment, so it is not named here", left_out.join(", "));
    let (field, rest) = (line.field.clone(), format!("[{}]", rest.join(", ")));
    line.value = rest;
    warnings.push(Warning { object, field, value: String::new(), text: text.clone() });
    table.items.insert(at, Item::Check(one_line(&text)));
}

/// Whether the table is as narrow and as complete without this line.
fn dispensable(table: &Table, at: usize) -> bool {
    let Some(Item::Line(line)) = table.items.get(at) else { return false };
    let required = Section::find(table.section)
        .and_then(|section| section.row(&line.key))
        .is_some_and(|row| row.default == crate::config::key::Default::Required);
    !line.narrows && !required
}

fn switch_off_line(table: &mut Table, at: usize, text: &str, warnings: &mut Vec<Warning>) {
    let object = table.object.clone();
    let Some(Item::Line(line)) = table.items.get_mut(at) else { return };
    line.off = true;
    let (field, value) = (line.field.clone(), super::shown::shortened(&line.value));
    warnings.push(Warning { object, field, value, text: text.to_owned() });
    table.items.insert(at, Item::Check(one_line(text)));
}

/// Comments a whole table out; `at` is the line that is to blame.
fn switch_off(table: &mut Table, at: Option<usize>, text: &str, warnings: &mut Vec<Warning>) {
    table.off = true;
    let line = at.and_then(|at| match table.items.get(at) {
        Some(Item::Line(line)) => Some((line.field.clone(), super::shown::shortened(&line.value))),
        _ => None,
    });
    let (field, value) = line.unwrap_or_default();
    let text = format!("{text}; the whole [[{}]] is a comment", table.section);
    let check = if field.is_empty() { one_line(&text) } else { one_line(&format!("{field} {value}: {text}")) };
    warnings.push(Warning { object: table.object.clone(), field, value, text });
    table.items.insert(0, Item::Check(check));
}

fn lines(table: &Table) -> impl Iterator<Item = (usize, &Line)> {
    table.items.iter().enumerate().filter_map(|(at, item)| match item {
        Item::Line(line) => Some((at, line)),
        Item::Check(_) | Item::Note(_) => None,
    })
}

/// For each line of the text the table and item that it is of; no item for a header.
type Owners = Vec<Option<(usize, Option<usize>)>>;

fn render(draft: &Draft) -> (String, Owners) {
    let mut text = String::new();
    let mut owners = Owners::new();
    let mut put = |line: &str, owner| {
        text += line.trim_end();
        text.push('\n');
        owners.push(owner);
    };
    put("# Written by `crier migrate`. A human must look at each line below \"CHECK\".", None);
    for (number, table) in draft.tables.iter().enumerate() {
        put("", None);
        if !table.object.is_empty() {
            put(&format!("# {}", table.object), None);
        }
        let off = if table.off { "#" } else { "" };
        let checks = table.items.iter().take_while(|item| !matches!(item, Item::Line(_)));
        let before = checks.filter(|_| table.off).count();
        for item in table.items.iter().take(before) {
            put(&remark(item), None);
        }
        let repeated = Section::find(table.section).is_none_or(|section| section.repeated);
        let header = if repeated { format!("[[{}]]", table.section) } else { format!("[{}]", table.section) };
        put(&format!("{off}{header}"), (!table.off).then_some((number, None)));
        for (at, item) in table.items.iter().enumerate().skip(before) {
            match item {
                Item::Line(line) => {
                    let off = table.off || line.off;
                    let start = if off { "#" } else { "" };
                    let written = format!("{start}{} = {}", line.key, line.value);
                    put(&written, (!off).then_some((number, Some(at))));
                }
                remark_of => put(&remark(remark_of), None),
            }
        }
    }
    if !draft.annotated.is_empty() {
        put("", None);
        put("# CHECK: crier reads the following from annotations of Services. Run these lines:", None);
    }
    for annotated in &draft.annotated {
        put("#", None);
        put(&format!("# {}", annotated.object), None);
        for check in &annotated.checks {
            put(&format!("# CHECK: {check}"), None);
        }
        if !annotated.command.is_empty() {
            put(&format!("#   {}", annotated.command), None);
        }
    }
    (text, owners)
}

fn remark(item: &Item) -> String {
    match item {
        Item::Check(text) => format!("# CHECK: {text}"),
        Item::Note(text) => format!("# {text}"),
        Item::Line(_) => String::new(),
    }
}

/// A host that has every secret: whether the files are there is not a matter of the text.
struct AnySecret;

impl Secrets for AnySecret {
    fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Ok(b"x".to_vec())
    }
}
