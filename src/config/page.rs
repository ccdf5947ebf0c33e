//! The effective configuration as TOML: defaults filled in, drop-ins merged, aliases of communities resolved.
//! Floor 1. What is printed parses to the same `Config` on the same host. Of a secret the file is printed, never what is in it.

use std::fmt::Write;

use super::codec::Codec;
use super::document::{self, Data};
use super::key::Key;
use super::section::{Described, Section};
use super::{Config, Source, SourceFile};
use crate::secret::Secret;

/// The whole configuration, in the order of the sections in the manual.
pub fn show(config: &Config) -> String {
    Page::of(config).toml()
}

/// The same as [`show`], as a value for programs.
pub fn shown(config: &Config) -> serde_json::Value {
    let file = SourceFile { path: String::new(), text: show(config) };
    // What is printed is read again by the reader of configurations.
    document::read(0, &file).map_or(serde_json::Value::Null, |table| of_table(&table))
}

fn of_table(table: &document::Table) -> serde_json::Value {
    table.entries.iter().map(|(key, entry)| (key.clone(), of_value(&entry.value.data))).collect()
}

fn of_value(data: &Data) -> serde_json::Value {
    match data {
        Data::Text(text) => text.text.as_str().into(),
        Data::Number(number) => (*number).into(),
        Data::Flag(flag) => (*flag).into(),
        Data::List(list) => list.iter().map(|value| of_value(&value.data)).collect(),
        Data::Table(table) => of_table(table),
        Data::Other(_) | Data::Refused => serde_json::Value::Null,
    }
}

/// What one section prints: its keys, and the sections in it.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub lines: Vec<Line>,
    pub sections: Vec<(&'static Section, Page)>,
    /// Sections are written as values, because a header cannot say which of several sections they belong to.
    inline: bool,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub key: &'static str,
    /// In TOML; `None` where the key is left out.
    pub value: Option<String>,
    /// What the value holds and does not print.
    pub secrets: Vec<Secret>,
}

impl Page {
    pub fn of(config: &Config) -> Page {
        let Config {
            node,
            api,
            state,
            source,
            pools,
            reservations,
            l2,
            pulse,
            bgp,
            bfd,
            vrfs,
            egress,
            drain,
            host,
            log,
        } = config;
        let mut page = Page::default();
        page.section(node);
        page.section(api);
        page.section(state);
        match source {
            Source::Kubernetes(kubernetes) => page.section(kubernetes),
            Source::Manifests(manifests) => page.section(manifests),
        }
        page.sections(pools);
        page.sections(reservations);
        page.sections(l2);
        page.section(pulse);
        page.section(bgp);
        page.sections(bfd);
        page.sections(vrfs);
        page.section(egress);
        page.section(drain);
        page.section(host);
        page.section(log);
        page
    }

    pub fn key<C: Codec>(&mut self, key: &Key<C>, value: &C::Value) {
        let (printed, secrets) = (key.codec.print(value), key.codec.secrets(value));
        self.lines.push(Line { key: key.row.key, value: printed, secrets });
    }

    fn section<T: Described>(&mut self, section: &T) {
        self.sections.push((T::SECTION, content(section)));
    }

    /// Sections that may come many times.
    pub fn sections<T: Described>(&mut self, sections: &[T]) {
        if self.inline && !sections.is_empty() {
            let pages: Vec<Page> = sections.iter().map(content).collect();
            let tables: Vec<String> = pages.iter().map(Page::inline_table).collect();
            let value = Some(format!("[{}]", tables.join(", ")));
            let secrets = pages.into_iter().flat_map(|page| page.lines).flat_map(|line| line.secrets).collect();
            self.lines.push(Line { key: T::SECTION.key(), value, secrets });
        } else {
            sections.iter().for_each(|section| self.section(section));
        }
    }

    fn written(&self) -> impl Iterator<Item = (&'static str, &String)> {
        self.lines.iter().filter_map(|line| Some((line.key, line.value.as_ref()?)))
    }

    fn inline_table(&self) -> String {
        let keys: Vec<String> = self.written().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", keys.join(", "))
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.written() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{key} = {value}");
        }
        for (header, section) in &self.sections {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{gap}{header}\n{}", section.toml());
        }
        text
    }
}

pub(super) fn content<T: Described>(section: &T) -> Page {
    let mut page = Page { inline: T::SECTION.repeated, ..Page::default() };
    section.show(&mut page);
    page
}
