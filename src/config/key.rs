//! The description of one key: name, type, unit, range, default, price and example, with the codec that reads and prints it.
//! Floor 1. The checker, the reader, `config show`, the example and the man page all work from it; nothing is written twice.
//! What a value means beyond its type and range (an address, a reference) is judged by its codec and its section's checks.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::change::Touches;
use super::codec::{
    Asn, AutoFlag, Codec, Credential, Flag, List, Mask, Number, Optional, PeerNumber, Secret, SecretList, Text, TextOr,
};
use super::complaint::Problem;
use super::seen::{self, Seen};
use super::words::Word;
use super::{InterfacePattern, duration, syntax};
use crate::names::InterfaceName;
use crate::selector::Selector;

/// A key of a section: what tables and texts need of it in `row`, and how its value is read and printed in `codec`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<C> {
    pub row: Row,
    pub codec: C,
}

/// What can be said of a key without its type.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub key: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// One line: what it is.
    pub summary: &'static str,
    /// What one gains and pays by changing it. Empty where there is nothing to weigh.
    pub trade: &'static str,
    pub example: Example,
    /// What a change of the value touches in a running agent.
    pub touches: Touches,
}

/// What the annotated example shows for a key, in TOML.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Example {
    /// The default, commented out.
    Default,
    /// A value, commented out.
    Shown(&'static str),
    /// A value that is set: the example would be none without it.
    Set(&'static str),
}

/// The type of a value, with its range. Ranges are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Flag,
    /// A flag, or one of these words.
    FlagOr(&'static [&'static str]),
    Number {
        least: i64,
        most: i64,
        unit: &'static str,
    },
    /// An AS number that a router may have, or one of these words.
    Asn(&'static [&'static str]),
    /// Text such as `"1m30s"`.
    Duration {
        least: Duration,
        most: Duration,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text; what text is said in a few words.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static str),
}

/// What holds where the key is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// Leaving it out is a mistake.
    Required,
    /// Nothing; what that means is said in a few words.
    Unset(&'static str),
    Flag(bool),
    Number(i64),
    /// A number whose bits matter, in hexadecimal.
    Mask(u32),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

impl Row {
    const fn new(key: &'static str, kind: Kind, summary: &'static str) -> Row {
        let default = Default::Required;
        let example = Example::Default;
        // The section says what a change touches: see `row`.
        Row { key, kind, default, summary, trade: "", example, touches: Touches::Restart }
    }
}

/// The type and range in words: `a number from 1 to 65535`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any_of = |words: &[&str]| words.iter().map(|word| format!(", or \"{word}\"")).collect::<String>();
        match self {
            Kind::Flag => f.write_str("true or false"),
            Kind::FlagOr(words) => write!(f, "true, false{}", any_of(words)),
            Kind::Number { least, most, unit: "" } => write!(f, "a number from {least} to {most}"),
            Kind::Number { least, most, unit } => write!(f, "a number of {unit} from {least} to {most}"),
            Kind::Asn(words) => write!(f, "an AS number from 1 to 4294967294{}", any_of(words)),
            Kind::Duration { least, most } => {
                write!(f, "a duration from {} to {}", duration::text(*least), duration::text(*most))
            }
            Kind::Word(words) => {
                for (n, word) in words.iter().enumerate() {
                    let between = match n {
                        0 => "",
                        n if n + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{between}\"{word}\"")?;
                }
                Ok(())
            }
            Kind::Text(what) => f.write_str(what),
            Kind::Texts(what) => write!(f, "a list of {what}"),
        }
    }
}

/// The default as TOML, or what holds without one, in words.
impl fmt::Display for Default {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Default::Required => f.write_str("none, the key is required"),
            Default::Unset(meaning) => f.write_str(meaning),
            Default::Flag(flag) => write!(f, "{flag}"),
            Default::Number(number) => write!(f, "{number}"),
            Default::Mask(mask) => write!(f, "{mask:#010x}"),
            Default::Text(text) => write!(f, "\"{text}\""),
            Default::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

impl<C: Codec + Copy> Key<C> {
    const fn with_default(self, default: Default) -> Key<C> {
        Key { row: Row { default, ..self.row }, ..self }
    }

    pub(super) const fn shown(self, example: &'static str) -> Key<C> {
        Key { row: Row { example: Example::Shown(example), ..self.row }, ..self }
    }

    pub(super) const fn set(self, example: &'static str) -> Key<C> {
        Key { row: Row { example: Example::Set(example), ..self.row }, ..self }
    }

    pub(super) const fn trade(self, trade: &'static str) -> Key<C> {
        Key { row: Row { trade, ..self.row }, ..self }
    }

    /// Left out, the value is `None`, which means `meaning`.
    pub(super) const fn optional(self, meaning: &'static str) -> Key<Optional<C>> {
        let Key { row, codec } = self;
        Key { row: Row { default: Default::Unset(meaning), ..row }, codec: Optional(codec) }
    }

    /// Left out, the checks of the section find the value; `meaning` says how.
    pub(super) const fn computed(self, meaning: &'static str) -> Key<C> {
        self.with_default(Default::Unset(meaning))
    }
}

/// The row of a key, of whose codec the value is known: so it need not name the type of its field a second time.
pub(super) const fn row<T, C: Codec<Value = T> + Copy>(key: Key<C>, touches: Touches) -> Row {
    Row { touches, ..key.row }
}

/// The most that 32 bits hold: AS numbers and the numeric attributes of a route.
pub(super) const MOST_U32: i64 = 0xffff_ffff;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const fn flag(key: &'static str, default: bool, summary: &'static str) -> Key<Flag> {
    Key { row: Row { default: Default::Flag(default), ..Row::new(key, Kind::Flag, summary) }, codec: Flag }
}

/// `true`, `false` or `"auto"`, which is the default and reads as `None`.
pub(super) const fn flag_or_auto(key: &'static str, summary: &'static str) -> Key<AutoFlag> {
    let row = Row::new(key, Kind::FlagOr(&["auto"]), summary);
    Key { row, codec: AutoFlag }.with_default(Default::Text("auto"))
}

/// A number of `unit`, which is empty for a bare number.
pub(super) const fn number<N>(
    key: &'static str,
    unit: &'static str,
    least: i64,
    most: i64,
    summary: &'static str,
) -> Key<Number<N>> {
    Key { row: Row::new(key, Kind::Number { least, most, unit }, summary), codec: Number::new() }
}

/// A number of 32 bits that is not 0, of which the bits matter.
pub(super) const fn mask(key: &'static str, default: u32, summary: &'static str) -> Key<Mask> {
    let kind = Kind::Number { least: 1, most: MOST_U32, unit: "" };
    Key { row: Row::new(key, kind, summary), codec: Mask }.with_default(Default::Mask(default))
}

pub(super) const fn port(key: &'static str, summary: &'static str) -> Key<Number<u16>> {
    number(key, "", 1, 65535, summary)
}

impl<N> Key<Number<N>>
where
    Number<N>: Codec,
{
    pub(super) const fn default(self, default: i64) -> Key<Number<N>> {
        self.with_default(Default::Number(default))
    }
}

pub(super) const fn asn(key: &'static str, summary: &'static str) -> Key<Asn> {
    Key { row: Row::new(key, Kind::Asn(&[]), summary), codec: Asn }
}

/// An AS number, `"external"` or `"internal"`.
pub(super) const fn peer_asn(key: &'static str, summary: &'static str) -> Key<PeerNumber> {
    Key { row: Row::new(key, Kind::Asn(&["external", "internal"]), summary), codec: PeerNumber }
}

/// How a text is turned into what it means, with what was seen of other sections.
type Parse<T> = fn(&str, &Seen) -> Result<T, Problem>;

/// A text of the form that `what` names.
pub(super) const fn text<T: fmt::Display>(
    key: &'static str,
    what: &'static str,
    parse: Parse<T>,
    summary: &'static str,
) -> Key<Text<T>> {
    Key { row: Row::new(key, Kind::Text(what), summary), codec: Text { parse, print: T::to_string } }
}

/// A word of the enumeration `W`.
pub(super) const fn word<W: Word>(key: &'static str, summary: &'static str) -> Key<Text<W>> {
    let codec = Text { parse: |text, _| W::parse(text), print: |word: &W| word.name().to_owned() };
    Key { row: Row::new(key, Kind::Word(W::NAMES), summary), codec }
}

pub(super) const fn duration(
    key: &'static str,
    least: Duration,
    most: Duration,
    summary: &'static str,
) -> Key<Text<Duration>> {
    let codec = Text {
        // The shape of the file was checked, so this is a duration.
        parse: |text, _| duration::parse(text).map_err(|error| Problem::new(error.to_string(), "write \"30s\"")),
        print: |duration| duration::text(*duration),
    };
    Key { row: Row::new(key, Kind::Duration { least, most }, summary), codec }
}

/// A path that `parse` accepts.
const fn path_by(key: &'static str, parse: Parse<PathBuf>, summary: &'static str) -> Key<Text<PathBuf>> {
    let codec = Text { parse, print: |path| path.display().to_string() };
    Key { row: Row::new(key, Kind::Text("an absolute path"), summary), codec }
}

pub(super) const fn path(key: &'static str, summary: &'static str) -> Key<Text<PathBuf>> {
    path_by(key, |text, _| syntax::absolute_path(text), summary)
}

/// The path of a Unix socket.
pub(super) const fn socket_path(key: &'static str, summary: &'static str) -> Key<Text<PathBuf>> {
    path_by(key, |text, _| syntax::socket_path(text), summary)
}

/// The name of a section that may come many times, for others to refer to.
pub(super) const fn name<N: fmt::Display + for<'t> From<&'t str>>(
    key: &'static str,
    summary: &'static str,
) -> Key<Text<N>> {
    let what = "a name of lower-case letters, digits, dots and hyphens";
    text(key, what, |text, _| syntax::name(text).map(N::from), summary)
}

pub(super) const fn selector(key: &'static str, summary: &'static str) -> Key<Text<Selector>> {
    text(key, "a label selector in kubectl syntax", |text, _| syntax::selector(text), summary)
}

pub(super) const fn interface(
    key: &'static str,
    what: &'static str,
    summary: &'static str,
) -> Key<Text<InterfaceName>> {
    text(key, what, |text, _| syntax::interface(text), summary)
}

/// The name of a `[[vrf]]`.
pub(super) const fn vrf(key: &'static str, summary: &'static str) -> Key<Text<InterfaceName>> {
    text(key, "the name of a VRF device", seen::vrf, summary)
}

impl<T> Key<Text<T>> {
    pub(super) const fn default(self, default: &'static str) -> Key<Text<T>> {
        self.with_default(Default::Text(default))
    }

    /// Also `word`, which reads as `None` and is the default.
    pub(super) const fn or_else(self, word: &'static str) -> Key<TextOr<T>> {
        let Key { row, codec } = self;
        Key { row: Row { default: Default::Text(word), ..row }, codec: TextOr { word, text: codec } }
    }
}

impl<T> Key<TextOr<T>> {
    pub(super) const fn default(self, default: &'static str) -> Key<TextOr<T>> {
        self.with_default(Default::Text(default))
    }
}

/// A list in which nothing may stand twice; left out, it is empty.
pub(super) const fn set<T: fmt::Display + PartialEq>(
    key: &'static str,
    what: &'static str,
    parse: Parse<T>,
    summary: &'static str,
) -> Key<List<T>> {
    let same: Option<fn(&T, &T) -> bool> = Some(T::eq);
    let codec = List { item: Text { parse, print: T::to_string }, same };
    Key { row: Row::new(key, Kind::Texts(what), summary), codec }.with_default(Default::Texts(&[]))
}

/// A list; left out, it is empty.
pub(super) const fn list<T: fmt::Display>(
    key: &'static str,
    what: &'static str,
    parse: Parse<T>,
    summary: &'static str,
) -> Key<List<T>> {
    let codec = List { item: Text { parse, print: T::to_string }, same: None };
    Key { row: Row::new(key, Kind::Texts(what), summary), codec }.with_default(Default::Texts(&[]))
}

/// Names of interfaces, with a `*` for the rest of a name.
pub(super) const fn interfaces(key: &'static str, summary: &'static str) -> Key<List<InterfacePattern>> {
    let what = "interface names; a * at the end matches the rest of a name";
    set(key, what, |text, _| syntax::interface_pattern(text), summary)
}

impl<T> Key<List<T>> {
    pub(super) const fn default(self, default: &'static [&'static str]) -> Key<List<T>> {
        self.with_default(Default::Texts(default))
    }

    /// Leaving it out is a mistake.
    pub(super) const fn required(self) -> Key<List<T>> {
        self.with_default(Default::Required)
    }
}

/// A file with a secret of at most so many octets.
pub(super) const fn secret(key: &'static str, most: usize, summary: &'static str) -> Key<Secret> {
    Key { row: Row::new(key, Kind::Text("an absolute path"), summary), codec: Secret { most } }
}

impl Key<Secret> {
    /// Left out, the secret is the systemd credential of this name, if the service has it.
    pub(super) const fn or_credential(self, name: &'static str, meaning: &'static str) -> Key<Credential> {
        let Key { row, codec } = self;
        Key { row: Row { default: Default::Unset(meaning), ..row }, codec: Credential { name, secret: codec } }
    }
}

/// A list of files with secrets of at most so many octets each; left out, it is empty.
pub(super) const fn secrets(key: &'static str, most: usize, summary: &'static str) -> Key<SecretList> {
    let row = Row::new(key, Kind::Texts("absolute paths"), summary);
    Key { row, codec: SecretList { item: Secret { most } } }.with_default(Default::Texts(&[]))
}
