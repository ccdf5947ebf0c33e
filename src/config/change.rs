//! What differs between two configurations, key by key, and what each difference touches in a running agent. Floor 1.
//!
//! What a change of a key touches stands in its row, so a key cannot be without. Values are compared as they are printed, and
//! secrets by their octets: a new content of a file is a difference although its name is the same. Nothing is changed here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::page::{Line, Page, content};
use super::section::Section;
use super::{Config, Peer, PulseKey};

/// What a change touches in a running agent, the least first. All that is not named goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Touches {
    /// Only what is shown to people.
    Nothing,
    /// What is logged from now on.
    Log,
    /// Every decision is made again, by the new values. What is decided as before stays as it is.
    Decisions,
    /// The session with the peer goes on and takes the value over.
    LiveSession,
    /// Where BGP connections are accepted. Open connections go on.
    Listening,
    /// How pulses are sealed and to whom they are sent. No pulse is missed.
    Pulse,
    /// The session with the peer ends and begins anew, and no other; of `[bgp]` every session that uses the value.
    Session,
    /// The agent reads it once, at its start: a reload that changes it is refused.
    Restart,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The section as its header is written, with the name of one of several.
    pub place: String,
    pub difference: Difference,
    pub touches: Touches,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The whole section is new.
    Added,
    /// The whole section is gone.
    Removed,
    /// A key has another value, in TOML; `None` where it is left out. The same value twice: the file that it names has another
    /// content.
    Key { key: &'static str, before: Option<String>, after: Option<String> },
}

/// As for an operator: `[[bgp.peer]] "tor" hold-time: "1m30s" -> "30s"`. Never shows a secret.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { place, difference, touches: _ } = self;
        match difference {
            Difference::Added => write!(f, "{place} added"),
            Difference::Removed => write!(f, "{place} removed"),
            Difference::Key { key, before, after } if before == after => write!(f, "{place} {key}: another content"),
            Difference::Key { key, before, after } => {
                let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
                write!(f, "{place} {key}: {} -> {}", value(before), value(after))
            }
        }
    }
}

/// All differences, in the order of the manual. Empty for two configurations that mean the same.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let (had, has) = (entries(before), entries(after));
    let index = |entries: &[Entry]| -> BTreeMap<Name, usize> {
        entries.iter().enumerate().map(|(place, entry)| (entry.name.clone(), place)).collect()
    };
    let (old, new) = (index(&had), index(&has));
    let mut changes = Vec::new();
    for entry in &has {
        match old.get(&entry.name).and_then(|place| had.get(*place)) {
            Some(before) => changes.extend(entry.differences(before)),
            None => changes.push(entry.whole(Difference::Added)),
        }
    }
    let gone = had.iter().filter(|entry| !new.contains_key(&entry.name));
    changes.extend(gone.map(|entry| entry.whole(Difference::Removed)));
    // Whether there are pulses at all is settled when the agent starts.
    if (before.pulse.key == PulseKey::Absent) != (after.pulse.key == PulseKey::Absent) {
        let of_pulse = changes.iter_mut().filter(|change| change.touches == Touches::Pulse);
        of_pulse.for_each(|change| change.touches = Touches::Restart);
    }
    changes
}

/// The most that the differences between two states of one peer touch.
pub fn peer_touches(before: &Peer, after: &Peer) -> Touches {
    differing_keys(before, after).into_iter().map(peer_key_touches).max().unwrap_or(Touches::Nothing)
}

/// What a change of a key of `[[bgp.peer]]` touches.
pub fn peer_key_touches(key: &str) -> Touches {
    touches(<Peer as super::section::Described>::SECTION, key)
}

/// The keys of `[[bgp.peer]]` that have other values in one peer than in the other, in the order of the manual; one that names
/// a file also where only its content differs.
pub fn differing_keys(before: &Peer, after: &Peer) -> Vec<&'static str> {
    let lines = |peer| content(peer).lines;
    differing(&lines(before), &lines(after)).into_iter().map(|(key, ..)| key).collect()
}

/// The keys of a peer whose change would end its session, each with its value in TOML; `None` where it is left out. No secret is
/// among them.
pub fn session_keys(peer: &Peer) -> BTreeMap<&'static str, Option<String>> {
    let section = <Peer as super::section::Described>::SECTION;
    let lines = content(peer).lines.into_iter();
    lines.filter(|line| touches(section, line.key) == Touches::Session).map(|line| (line.key, line.value)).collect()
}

/// A section that is there.
struct Entry {
    section: &'static Section,
    name: Name,
    lines: Vec<Line>,
}

/// Which of several sections it is: by its name where it has one, else by its place among its like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    path: &'static str,
    own: Option<String>,
    /// Of those with the same name, counted from 0.
    nth: usize,
}

/// Every section of a configuration, those in sections behind the one that they stand in.
fn entries(config: &Config) -> Vec<Entry> {
    let mut entries = Vec::new();
    gather(Page::of(config), &mut BTreeMap::new(), &mut entries);
    entries
}

fn gather(page: Page, seen: &mut BTreeMap<(&'static str, Option<String>), usize>, entries: &mut Vec<Entry>) {
    for (section, mut page) in page.sections {
        let lines = std::mem::take(&mut page.lines);
        let named = lines.iter().find(|line| section.repeated && ["name", "service"].contains(&line.key));
        let own = named.and_then(|line| line.value.clone());
        let count = seen.entry((section.path, own.clone())).or_default();
        let name = Name { path: section.path, own, nth: *count };
        *count += 1;
        entries.push(Entry { section, name, lines });
        gather(page, seen, entries);
    }
}

impl Entry {
    fn place(&self) -> String {
        match &self.name.own {
            Some(own) => format!("{} {own}", self.section),
            None if self.section.repeated => format!("{} no. {}", self.section, self.name.nth + 1),
            None => self.section.to_string(),
        }
    }

    fn whole(&self, difference: Difference) -> Change {
        Change { place: self.place(), difference, touches: most(self.section) }
    }

    fn differences(&self, before: &Entry) -> Vec<Change> {
        let change = |(key, before, after)| Change {
            place: self.place(),
            difference: Difference::Key { key, before, after },
            touches: touches(self.section, key),
        };
        differing(&before.lines, &self.lines).into_iter().map(change).collect()
    }
}

/// Key, value before and value after.
type Differing = (&'static str, Option<String>, Option<String>);

fn differing(before: &[Line], after: &[Line]) -> Vec<Differing> {
    let find = |lines: &[Line], key: &str| lines.iter().find(|line| line.key == key).cloned();
    let gone = before.iter().filter(|line| find(after, line.key).is_none());
    let keys = after.iter().chain(gone).map(|line| line.key);
    let differing = keys.filter_map(|key| {
        let (before, after) = (find(before, key), find(after, key));
        let value = |line: &Option<Line>| line.as_ref().and_then(|line| line.value.clone());
        (before != after).then(|| (key, value(&before), value(&after)))
    });
    differing.collect()
}

/// What a key touches: as its row says, or for the sections inside what the most of theirs touches.
fn touches(section: &Section, key: &str) -> Touches {
    match section.row(key) {
        Some(row) => row.touches,
        None => Section::find(&section.join(key)).map_or(Touches::Restart, most),
    }
}

fn most(section: &Section) -> Touches {
    section.rows.iter().map(|row| row.touches).max().unwrap_or(Touches::Restart)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io;
    use std::path::Path;

    use super::super::section::SECTIONS;
    use super::super::{Secrets, SourceFile, parse};
    use super::*;

    const BASE: &str = r#"
        [kubernetes]
        in-cluster = true
        [[pool]]
        name = "lan"
        addresses = ["192.168.35.0/25"]
        [[pool]]
        name = "public"
        addresses = ["203.0.113.0/24"]
        [[l2]]
        pools = ["lan"]
        [[l2]]
        pools = ["public"]
        preference = [{ nodes = "edge", weight = 2 }]
        [bgp]
        asn = 64513
        [[bgp.peer]]
        name = "tor"
        address = "10.0.0.1"
        asn = 64512
        password-file = "/tor.md5"
        [[bgp.peer]]
        name = "spine"
        address = "10.0.0.2"
        asn = 64512
        tcp-ao = [{ send-id = 1, receive-id = 1, key-file = "/spine.ao" }]
        [[bgp.advertisement]]
        pools = ["public"]
        [pulse]
        key-file = "/pulse.key"
    "#;

    /// Every file holds these octets.
    struct Content(&'static str);

    impl Secrets for Content {
        fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }
    }

    fn config(text: &str, secret: &'static str) -> Config {
        let file = SourceFile { path: "crier.toml".to_owned(), text: text.to_owned() };
        parse(&[file], &Content(secret)).unwrap_or_else(|complaints| panic!("{complaints}"))
    }

    const SECRET: &str = "0123456789abcdef";

    /// What differs from the base where one text of it is replaced: each change in words, with what it touches.
    fn replaced(old: &str, new: &str) -> Vec<(String, Touches)> {
        assert!(BASE.contains(old), "{old}");
        let changes = changes(&config(BASE, SECRET), &config(&BASE.replacen(old, new, 1), SECRET));
        changes.into_iter().map(|change| (change.to_string(), change.touches)).collect()
    }

    #[test]
    fn what_means_the_same_is_no_difference() {
        for (old, new) in [
            ("[kubernetes]", "# a comment\n[kubernetes]"),
            ("asn = 64512", "hold-time = \"90s\"\nasn = 64512"),
            ("\"192.168.35.0/25\"", "\"192.168.35.0/25\" "),
            ("[kubernetes]", "[log]\nlevel = \"info\"\n[kubernetes]"),
        ] {
            assert_eq!(replaced(old, new), [], "{new}");
        }
    }

    #[test]
    fn each_change_is_named_with_its_section_and_key_and_what_it_touches() {
        let one = |old, new, text: &str, touches| assert_eq!(replaced(old, new), [(text.to_owned(), touches)]);
        one(
            "asn = 64512",
            "description = \"rack 7\"\nasn = 64512",
            "[[bgp.peer]] \"tor\" description: unset -> \"rack 7\"",
            Touches::Nothing,
        );
        one(
            "asn = 64512",
            "hold-time = \"30s\"\nasn = 64512",
            "[[bgp.peer]] \"tor\" hold-time: \"1m30s\" -> \"30s\"",
            Touches::Session,
        );
        one(
            "[kubernetes]",
            "[log]\nlevel = \"debug\"\n[kubernetes]",
            "[log] level: \"info\" -> \"debug\"",
            Touches::Log,
        );
        one(
            "192.168.35.0/25",
            "192.168.35.0/26",
            "[[pool]] \"lan\" addresses: [\"192.168.35.0-192.168.35.127\"] -> [\"192.168.35.0-192.168.35.63\"]",
            Touches::Decisions,
        );
        one(
            "pools = [\"lan\"]",
            "pools = [\"lan\"]\nsticky = true",
            "[[l2]] no. 1 sticky: false -> true",
            Touches::Decisions,
        );
        one(
            "[kubernetes]",
            "[api]\nlisten = \"\"\n[kubernetes]",
            "[api] listen: \"127.0.0.1:7472\" -> \"\"",
            Touches::Restart,
        );
        one("[bgp]", "[bgp]\nlisten = []", "[bgp] listen: [\"0.0.0.0\", \"::\"] -> []", Touches::Listening);
        one(
            "[[l2]]\n        pools = [\"lan\"]",
            "[[l2]]\n        pools = [\"lan\"]\n[[pool]]\nname = \"next\"\naddresses = [\"10.9.0.0/24\"]\n",
            "[[pool]] \"next\" added",
            Touches::Decisions,
        );
        one(
            "weight = 2",
            "weight = 3",
            "[[l2]] no. 2 preference: [{ nodes = \"edge\", weight = 2 }] -> [{ nodes = \"edge\", weight = 3 }]",
            Touches::Decisions,
        );
        one(
            "send-id = 1",
            "send-id = 2",
            "[[bgp.peer]] \"spine\" tcp-ao: [{ send-id = 1, receive-id = 1, algorithm = \"hmac-sha-1-96\", key-file = \"/spine.ao\" }] -> [{ send-id = 2, receive-id = 1, algorithm = \"hmac-sha-1-96\", key-file = \"/spine.ao\" }]",
            Touches::Session,
        );
    }

    #[test]
    fn a_secret_file_with_another_content_is_a_difference_and_the_content_is_not_shown() {
        let changes = changes(&config(BASE, SECRET), &config(BASE, "fedcba9876543210"));
        let texts: Vec<(String, Touches)> = changes.iter().map(|it| (it.to_string(), it.touches)).collect();
        let expected = [
            ("[pulse] key-file: another content", Touches::Pulse),
            ("[[bgp.peer]] \"tor\" password-file: another content", Touches::LiveSession),
            ("[[bgp.peer]] \"spine\" tcp-ao: another content", Touches::Session),
        ];
        assert_eq!(texts, expected.map(|(text, touches)| (text.to_owned(), touches)));
        assert!(!format!("{changes:?}").contains("fedcba"));
    }

    #[test]
    fn a_peer_that_comes_or_goes_leaves_the_others_alone() {
        let spine = BASE.find("[[bgp.peer]]\n        name = \"spine\"").expect("there is one");
        let end = BASE.find("[[bgp.advertisement]]").expect("there is one");
        let without = format!("{}{}", &BASE[..spine], &BASE[end..]);
        let (all, fewer) = (config(BASE, SECRET), config(&without, SECRET));
        let texts = |changes: Vec<Change>| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(changes(&all, &fewer)), ["[[bgp.peer]] \"spine\" removed"]);
        assert_eq!(texts(changes(&fewer, &all)), ["[[bgp.peer]] \"spine\" added"]);
        assert_eq!(peer_touches(&all.bgp.peers[0], &fewer.bgp.peers[0]), Touches::Nothing);
    }

    #[test]
    fn other_sources_and_a_key_for_pulses_where_there_was_none_need_a_restart() {
        let manifests = replaced("[kubernetes]\n        in-cluster = true", "[manifests]\nfolder = \"/m\"");
        assert!(manifests.iter().all(|(_, touches)| *touches == Touches::Restart), "{manifests:?}");
        assert!(manifests.len() >= 2, "one goes and one comes: {manifests:?}");
        let unkeyed = replaced("[pulse]\n        key-file = \"/pulse.key\"", "");
        assert_eq!(unkeyed, [("[pulse] key-file: \"/pulse.key\" -> unset".to_owned(), Touches::Restart)]);
    }

    #[test]
    fn every_key_of_every_section_says_what_it_touches_and_what_ends_a_session_stands_in_the_peer_alone() {
        for section in SECTIONS {
            for row in section.rows.iter().filter(|row| row.touches == Touches::Session) {
                let of_all = (section.path, row.key) == ("bgp", "router-id");
                assert!(section.path.starts_with("bgp.peer") || of_all, "{} {}", section.path, row.key);
            }
        }
        let peer = Section::find("bgp.peer").expect("there is one");
        let ends: Vec<&str> =
            peer.rows.iter().filter(|row| row.touches == Touches::Session).map(|row| row.key).collect();
        for key in ["description", "password-file", "connect-retry-time", "passive", "next-hop", "nodes", "shutdown"] {
            assert!(!ends.contains(&key), "{key} ends no session by itself");
        }
        for key in ["asn", "hold-time", "router-id", "local-asn", "address"] {
            assert!(ends.contains(&key), "{key} is settled when a session begins");
        }
    }
}
