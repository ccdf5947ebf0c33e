//! The effective configuration as TOML: defaults filled in, drop-ins merged, aliases of communities resolved.
//! Floor 1. What is printed parses to the same `Config` on the same host. Of a secret the file is printed, never what is in it.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::codec::Codec;
use super::key::{Available, Key};
use super::section::Described;
use super::{Config, Peer, Source};

/// The whole configuration, in the order of the sections in the manual.
pub fn show(config: &Config) -> String {
    let Config { node, api, state, source, pools, reservations, l2, pulse, bgp, bfd, vrfs, egress, host, log } = config;
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
    page.section(host);
    page.section(log);
    page.toml()
}

/// What one section prints: its keys, and the sections in it.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Key and value, both in TOML.
    keys: Vec<(&'static str, String)>,
    /// Header and content.
    sections: Vec<(String, Page)>,
    /// Sections are written as values, because a header cannot say which of several sections they belong to.
    inline: bool,
}

impl Page {
    /// A key that this version refuses is left out: what is printed must be read again.
    pub fn key<C: Codec>(&mut self, key: &Key<C>, value: &C::Value) {
        let refused = matches!(key.row.available, Available::NotYet(_));
        if let Some(value) = key.codec.print(value).filter(|_| !refused) {
            self.keys.push((key.row.key, value));
        }
    }

    fn section<T: Described>(&mut self, section: &T) {
        self.sections.push((T::SECTION.to_string(), content(section)));
    }

    /// Sections that may come many times.
    pub fn sections<T: Described>(&mut self, sections: &[T]) {
        if self.inline && !sections.is_empty() {
            let tables: Vec<String> = sections.iter().map(|section| content(section).inline_table()).collect();
            self.keys.push((T::SECTION.key(), format!("[{}]", tables.join(", "))));
        } else {
            sections.iter().for_each(|section| self.section(section));
        }
    }

    fn inline_table(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", keys.join(", "))
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.keys {
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

/// The keys of `[[bgp.peer]]` that have other values in one peer than in the other. Empty where only the content of a secret
/// differs: the file that holds it has the same name.
pub fn differing_keys(before: &Peer, after: &Peer) -> Vec<&'static str> {
    let (before, after) = (content(before).keys, content(after).keys);
    let names: BTreeSet<&'static str> = before.iter().chain(&after).map(|(key, _)| *key).collect();
    let values = |keys: &[(&'static str, String)], key: &str| -> Vec<String> {
        keys.iter().filter(|(name, _)| *name == key).map(|(_, value)| value.clone()).collect()
    };
    names.into_iter().filter(|key| values(&before, key) != values(&after, key)).collect()
}

fn content<T: Described>(section: &T) -> Page {
    let mut page = Page { inline: T::SECTION.repeated, ..Page::default() };
    section.show(&mut page);
    page
}
