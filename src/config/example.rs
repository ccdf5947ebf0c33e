//! The annotated example, written from the option table: every key of this version with type, range and default.
//! Floor 1. `config/crier.toml` is this text; a test holds the two together.

use std::fmt::Write;

use super::key::{Default, Example, Row};
use super::section::{SECTIONS, Section};

/// How wide comments are, in characters.
const WIDTH: usize = 110;

/// The file as a whole. It is a good configuration as it stands, and with any of its commented keys set.
pub fn example() -> String {
    let mut page = String::new();
    comment(
        &mut page,
        "The configuration of crier, with every key of this version. What is commented out shows the default, or an example where there is none. One file can serve every node of a cluster: what differs per node comes from selectors, from \"auto\", or from a drop-in in conf.d/*.toml beside this file. Drop-ins are read in order of name; they override keys and add to lists of tables.",
    );
    comment(
        &mut page,
        "Durations are whole numbers with units: \"300ms\", \"30s\", \"1m30s\", \"2h\". Selectors are written as for kubectl: \"rack=a, tier in (front, edge), !gpu\". `crier config check FILE` reports every mistake.",
    );
    for section in SECTIONS {
        let inside_another = section.parent().is_some_and(|parent| parent.repeated);
        if !section.path.is_empty() && !inside_another {
            page.push_str("\n\n");
            write_section(&mut page, section);
        }
    }
    page
}

fn write_section(page: &mut String, section: &Section) {
    // The file says once where Services come from, and VRFs are those of some host.
    let off = if ["manifests", "vrf"].contains(&section.path) { "#" } else { "" };
    comment(page, section.summary);
    line(page, &format!("{off}{section}"));
    for (n, row) in section.rows.iter().enumerate() {
        page.push_str(if n == 0 { "" } else { "\n" });
        comment(page, row.summary);
        if !row.trade.is_empty() {
            comment(page, row.trade);
        }
        comment(page, &type_and_default(row));
        match row.example {
            Example::Default => line(page, &format!("#{} = {}", row.key, row.default)),
            Example::Shown(value) => line(page, &format!("#{} = {value}", row.key)),
            Example::Set(value) => line(page, &format!("{off}{} = {value}", row.key)),
        }
    }
    if let Some(own) = &section.own_keys {
        comment(page, &format!("{}.", capitalised(own.what)));
        line(page, own.example);
    }
    for inner in
        SECTIONS.iter().filter(|inner| section.repeated && inner.parent().is_some_and(|p| p.path == section.path))
    {
        write_inner(page, inner);
    }
}

/// A section in a section that comes many times is written as a list of inline tables.
fn write_inner(page: &mut String, section: &Section) {
    page.push('\n');
    comment(page, section.summary);
    let mut entries = Vec::new();
    for row in section.rows {
        comment(page, &format!("{}: {} {}", row.key, row.summary, type_and_default(row)));
        match row.example {
            Example::Default => entries.push(format!("{} = {}", row.key, row.default)),
            Example::Shown(value) | Example::Set(value) => entries.push(format!("{} = {value}", row.key)),
        }
    }
    let key = section.key();
    line(page, &format!("#{key} = [{{ {} }}]", entries.join(", ")));
}

fn type_and_default(row: &Row) -> String {
    let default = match row.default {
        Default::Required => "Required.".to_owned(),
        Default::Unset(_)
        | Default::Flag(_)
        | Default::Number(_)
        | Default::Mask(_)
        | Default::Text(_)
        | Default::Texts(_) => format!("Default: {}.", row.default),
    };
    format!("{}. {default}", capitalised(&row.kind.to_string()))
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// Comment lines no wider than `WIDTH`, broken at spaces.
fn comment(page: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        if width == 0 || width + 1 + word.chars().count() > WIDTH {
            page.push_str(if width == 0 { "# " } else { "\n# " });
            width = 2;
        } else {
            page.push(' ');
            width += 1;
        }
        page.push_str(word);
        width += word.chars().count();
    }
    page.push('\n');
}

fn line(page: &mut String, text: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(page, "{text}");
}
