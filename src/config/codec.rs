//! Codecs: how the value of a key is read from TOML and printed as TOML again, one for each form a value can have.
//! Floor 1. The type and range in TOML were checked by `shape`; a codec complains only about what it alone can know.

use std::fmt::Display;
use std::marker::PhantomData;
use std::num::NonZeroU8;

use super::complaint::Problem;
use super::document::Data;
use super::key::{Default, Row};
use super::reader::Reader;
use super::secrets::SecretFile;
use super::section::peer::PeerAsn;
use super::seen::Seen;
use crate::secret;

/// One form of values.
pub(super) trait Codec: Copy {
    type Value;

    /// The value that was written, or that holds without. `None` with a complaint, or where the checks of the section find
    /// the value.
    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Self::Value>;

    /// The value in TOML. `None`: the key is left out, which means this value.
    fn print(&self, value: &Self::Value) -> Option<String>;

    /// The secrets that the value holds beside what is printed.
    fn secrets(&self, _value: &Self::Value) -> Vec<secret::Secret> {
        Vec::new()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flag;

impl Codec for Flag {
    type Value = bool;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<bool> {
        match (section.value(row), row.default) {
            (Some(Data::Flag(flag)), _) => Some(*flag),
            (None, Default::Flag(flag)) => Some(flag),
            _ => None,
        }
    }

    fn print(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A flag or `"auto"`, which is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AutoFlag;

impl Codec for AutoFlag {
    type Value = Option<bool>;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Option<bool>> {
        match section.value(row) {
            Some(Data::Flag(flag)) => Some(Some(*flag)),
            Some(Data::Text(_)) | None => Some(None),
            Some(_) => None,
        }
    }

    fn print(&self, value: &Option<bool>) -> Option<String> {
        Some(value.map_or_else(|| quoted("auto"), |flag| flag.to_string()))
    }
}

/// A type that numbers of TOML are turned into.
pub(super) trait Integer: Display {
    /// `None` if the type does not hold the number.
    fn of(number: i64) -> Option<Self>
    where
        Self: Sized;
}

impl Integer for u8 {
    fn of(number: i64) -> Option<u8> {
        number.try_into().ok()
    }
}

impl Integer for NonZeroU8 {
    fn of(number: i64) -> Option<NonZeroU8> {
        u8::of(number).and_then(NonZeroU8::new)
    }
}

impl Integer for u16 {
    fn of(number: i64) -> Option<u16> {
        number.try_into().ok()
    }
}

impl Integer for u32 {
    fn of(number: i64) -> Option<u32> {
        number.try_into().ok()
    }
}

#[derive(Debug)]
pub(super) struct Number<N>(PhantomData<fn() -> N>);

impl<N> Number<N> {
    pub const fn new() -> Number<N> {
        Number(PhantomData)
    }
}

impl<N> Clone for Number<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Number<N> {}

impl<N: Integer> Codec for Number<N> {
    type Value = N;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<N> {
        match (section.value(row), row.default) {
            (Some(Data::Number(number)), _) => N::of(*number),
            (None, Default::Number(number)) => N::of(number),
            _ => None,
        }
    }

    fn print(&self, value: &N) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number of which the bits matter: printed in hexadecimal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask;

impl Codec for Mask {
    type Value = u32;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<u32> {
        match (section.value(row), row.default) {
            (Some(Data::Number(number)), _) => u32::of(*number),
            (None, Default::Mask(mask)) => Some(mask),
            _ => None,
        }
    }

    fn print(&self, value: &u32) -> Option<String> {
        Some(format!("{value:#010x}"))
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Asn;

impl Codec for Asn {
    type Value = u32;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<u32> {
        Number::new().read(row, section)
    }

    fn print(&self, value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

/// The AS number of a peer, or the word for any or for ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerNumber;

impl Codec for PeerNumber {
    type Value = PeerAsn;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<PeerAsn> {
        match section.value(row)? {
            Data::Text(text) if text.text == "internal" => Some(PeerAsn::Internal),
            Data::Text(text) if text.text == "external" => Some(PeerAsn::External),
            Data::Number(number) => u32::try_from(*number).ok().map(PeerAsn::Is),
            _ => None,
        }
    }

    fn print(&self, value: &PeerAsn) -> Option<String> {
        Some(match value {
            PeerAsn::Is(asn) => asn.to_string(),
            PeerAsn::External => quoted("external"),
            PeerAsn::Internal => quoted("internal"),
        })
    }
}

/// A text that means something.
#[derive(Debug)]
pub(super) struct Text<T> {
    pub parse: fn(&str, &Seen) -> Result<T, Problem>,
    /// What `parse` reads as the same value.
    pub print: fn(&T) -> String,
}

impl<T> Clone for Text<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Text<T> {}

impl<T> Codec for Text<T> {
    type Value = T;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<T> {
        section.parsed(row, self.parse)
    }

    fn print(&self, value: &T) -> Option<String> {
        Some(quoted((self.print)(value)))
    }
}

/// A text, or a word that is `None`.
#[derive(Debug)]
pub(super) struct TextOr<T> {
    pub word: &'static str,
    pub text: Text<T>,
}

impl<T> Clone for TextOr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TextOr<T> {}

impl<T> Codec for TextOr<T> {
    type Value = Option<T>;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Option<T>> {
        section.parsed(row, |text, seen| match text {
            text if text == self.word => Ok(None),
            text => (self.text.parse)(text, seen).map(Some),
        })
    }

    fn print(&self, value: &Option<T>) -> Option<String> {
        Some(quoted(value.as_ref().map_or_else(|| self.word.to_owned(), self.text.print)))
    }
}

/// A list of texts.
#[derive(Debug)]
pub(super) struct List<T> {
    pub item: Text<T>,
    /// Set where nothing may stand twice.
    pub same: Option<fn(&T, &T) -> bool>,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> Codec for List<T> {
    type Value = Vec<T>;

    /// What could not be read is left out, with a complaint.
    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Vec<T>> {
        let items = section.items(row, self.item.parse);
        if let Some(same) = self.same {
            section.twice(row, &items, same);
        }
        Some(items.into_iter().map(|(item, _)| item).collect())
    }

    fn print(&self, value: &Vec<T>) -> Option<String> {
        let items: Vec<String> = value.iter().map(|item| quoted((self.item.print)(item))).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A value that may be left out, which is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Optional<C>(pub C);

impl<C: Codec> Codec for Optional<C> {
    type Value = Option<C::Value>;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Option<C::Value>> {
        match section.given(row.key) {
            Some(_) => self.0.read(row, section).map(Some),
            None => Some(None),
        }
    }

    fn print(&self, value: &Option<C::Value>) -> Option<String> {
        value.as_ref().and_then(|value| self.0.print(value))
    }

    fn secrets(&self, value: &Option<C::Value>) -> Vec<secret::Secret> {
        value.iter().flat_map(|value| self.0.secrets(value)).collect()
    }
}

/// A file with a secret, of which only the path is ever printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secret {
    /// Octets.
    pub most: usize,
}

impl Codec for Secret {
    type Value = SecretFile;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<SecretFile> {
        section.secret(row, self.most)
    }

    fn print(&self, value: &SecretFile) -> Option<String> {
        value.path.as_ref().map(|path| quoted(path.display()))
    }

    fn secrets(&self, value: &SecretFile) -> Vec<secret::Secret> {
        vec![value.secret.clone()]
    }
}

/// A file with a secret; without the key, a systemd credential, if the service has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credential {
    pub name: &'static str,
    pub secret: Secret,
}

impl Codec for Credential {
    type Value = Option<SecretFile>;

    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Option<SecretFile>> {
        section.secret_or_credential(row, self.name, self.secret.most)
    }

    fn print(&self, value: &Option<SecretFile>) -> Option<String> {
        value.as_ref().and_then(|secret| self.secret.print(secret))
    }

    fn secrets(&self, value: &Option<SecretFile>) -> Vec<secret::Secret> {
        value.iter().flat_map(|secret| self.secret.secrets(secret)).collect()
    }
}

/// A list of files with secrets.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecretList {
    pub item: Secret,
}

impl Codec for SecretList {
    type Value = Vec<SecretFile>;

    /// What cannot be used is left out, with a complaint.
    fn read(&self, row: &Row, section: &mut Reader<'_>) -> Option<Vec<SecretFile>> {
        Some(section.secrets(row, self.item.most))
    }

    fn print(&self, value: &Vec<SecretFile>) -> Option<String> {
        let paths: Vec<String> = value.iter().filter_map(|secret| self.item.print(secret)).collect();
        Some(format!("[{}]", paths.join(", ")))
    }

    fn secrets(&self, value: &Vec<SecretFile>) -> Vec<secret::Secret> {
        value.iter().flat_map(|secret| self.item.secrets(secret)).collect()
    }
}

/// A basic string of TOML.
pub(super) fn quoted(value: impl Display) -> String {
    let mut quoted = String::from("\"");
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // TOML has no control characters in its strings; C0 and DEL are all that there are below 0x80.
            c if c.is_ascii_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
