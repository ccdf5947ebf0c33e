//! The first line of what an agent writes down for the one that comes: format, version, length and checksum of the rest. Floor 0.

use sha2::{Digest, Sha256};

/// Why a text is not what it should be. Nothing of it was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    #[error("it does not begin with \"{0}\"")]
    Format(&'static str),
    #[error("it has version {there}, and this crier reads versions 1 to {newest}: another version of crier wrote it")]
    Version { there: u32, newest: u32 },
    #[error("its first line says {said} octets, and {there} follow: it was cut off, or something was added")]
    Length { said: usize, there: usize },
    #[error("its checksum is wrong: it was changed after it was written")]
    Checksum,
}

/// No first line is longer.
const LONGEST_HEADING: usize = 128;

/// The content behind a first line. `format` is one word.
pub fn write(format: &str, version: u32, content: &[u8]) -> Vec<u8> {
    let heading = format!("{format} {version} {} {}\n", content.len(), checksum(content));
    [heading.as_bytes(), content].concat()
}

/// The content of a text of this format, of any version up to `newest`. Never panics, whatever the octets.
pub fn read<'a>(format: &'static str, newest: u32, text: &'a [u8]) -> Result<&'a [u8], TextFault> {
    let no_heading = || TextFault::Format(format);
    let end = text.iter().take(LONGEST_HEADING).position(|octet| *octet == b'\n').ok_or_else(no_heading)?;
    let (heading, content) = text.split_at_checked(end).ok_or_else(no_heading)?;
    let content = content.get(1..).unwrap_or_default();
    let heading = str::from_utf8(heading).map_err(|_| no_heading())?;
    let words: Vec<&str> = heading.split(' ').collect();
    let [name, version, length, sum] = words[..] else { return Err(no_heading()) };
    if name != format {
        return Err(no_heading());
    }
    let there = version.parse().map_err(|_| no_heading())?;
    if !(1..=newest).contains(&there) {
        return Err(TextFault::Version { there, newest });
    }
    let said = length.parse().map_err(|_| no_heading())?;
    if said != content.len() {
        return Err(TextFault::Length { said, there: content.len() });
    }
    if sum != checksum(content) {
        return Err(TextFault::Checksum);
    }
    Ok(content)
}

fn checksum(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|octet| format!("{octet:02x}")).collect()
}
