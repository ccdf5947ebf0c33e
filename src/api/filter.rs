//! What a command asks for, as the query of its request: written by the client, read by the server. Floor 4.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::names::PeerName;
use crate::views::bgp::{PeersFilter, RoutesFilter};
use crate::views::l2::AddressFilter;

/// Why a query cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("unknown parameter \"{0}\"")]
    UnknownKey(String),
    #[error("\"{0}\" is not a prefix")]
    NoPrefix(String),
    #[error("\"{0}\" is not an address")]
    NoAddress(String),
    #[error("\"{0}\" is not percent-encoded UTF-8")]
    Encoding(String),
    #[error("the body is no list of configuration files in JSON: {0}")]
    NoFiles(String),
    #[error("the body is no order in JSON: {0}")]
    NoOrder(String),
}

/// What a command selects of a reading. The default selects everything.
pub trait Filter: Default {
    /// Each key that is set, with its value.
    fn pairs(&self) -> Vec<(&'static str, String)>;

    /// Sets a key that [`Filter::pairs`] gave; refuses one that it never gives.
    fn set(&mut self, key: &str, value: String) -> Result<(), QueryError>;
}

/// The query with its question mark; empty if everything is selected.
pub fn write(filter: &impl Filter) -> String {
    let pair = |(key, value): (&str, String)| format!("{key}={}", encoded(&value));
    let pairs: Vec<String> = filter.pairs().into_iter().map(pair).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Reads what [`write`] wrote, without the question mark.
pub fn read<F: Filter>(query: Option<&str>) -> Result<F, QueryError> {
    let mut filter = F::default();
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = decoded(value).ok_or_else(|| QueryError::Encoding(value.to_owned()))?;
        filter.set(key, value)?;
    }
    Ok(filter)
}

impl Filter for () {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn set(&mut self, key: &str, _value: String) -> Result<(), QueryError> {
        Err(QueryError::UnknownKey(key.to_owned()))
    }
}

impl Filter for PeersFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let PeersFilter { peer } = self;
        peer.iter().map(|peer| ("peer", peer.to_string())).collect()
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), QueryError> {
        match key {
            "peer" => self.peer = Some(PeerName::from(value)),
            key => return Err(QueryError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }
}

impl Filter for RoutesFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let RoutesFilter { peer, prefix } = self;
        let peer = peer.iter().map(|peer| ("peer", peer.to_string()));
        peer.chain(prefix.iter().map(|prefix| ("prefix", prefix.to_string()))).collect()
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), QueryError> {
        match key {
            "peer" => self.peer = Some(PeerName::from(value)),
            "prefix" => self.prefix = Some(value.parse::<IpNet>().map_err(|_| QueryError::NoPrefix(value))?),
            key => return Err(QueryError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }
}

impl Filter for AddressFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let AddressFilter { address } = self;
        address.iter().map(|address| ("address", address.to_string())).collect()
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), QueryError> {
        match key {
            "address" => self.address = Some(value.parse::<IpAddr>().map_err(|_| QueryError::NoAddress(value))?),
            key => return Err(QueryError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }
}

/// RFC 3986 §2: every octet but the unreserved characters is percent-encoded.
fn encoded(text: &str) -> String {
    let octet = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(octet).to_string(),
        octet => format!("%{octet:02X}"),
    };
    text.bytes().map(octet).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let digits =
            std::str::from_utf8(rest.get(..2)?).ok().filter(|two| two.bytes().all(|it| it.is_ascii_hexdigit()))?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back_as_it_was_written() {
        let names = [None, Some("tor"), Some("eth0.100 & more=%41/ä")];
        let prefixes = [None, Some("192.0.2.1/32"), Some("2001:db8::/64")];
        for (peer, prefix) in names.into_iter().flat_map(|name| prefixes.map(|prefix| (name, prefix))) {
            let filter = RoutesFilter { peer: peer.map(PeerName::from), prefix: prefix.map(|it| it.parse().unwrap()) };
            let query = write(&filter);
            assert_eq!(read::<RoutesFilter>(query.strip_prefix('?')).expect("it reads"), filter, "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        for query in ["colour=red", "prefix=everything", "prefix=192.0.2.0", "peer=%4", "peer=%+1", "peer=%ff"] {
            assert!(read::<RoutesFilter>(Some(query)).is_err(), "{query} is refused");
        }
        for query in ["peer=tor", "address=192.0.2.0/24", "address=", "address=%4"] {
            assert!(read::<AddressFilter>(Some(query)).is_err(), "{query} is refused");
        }
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for address in [None, Some("192.0.2.1"), Some("2001:db8::1")] {
            let address: Option<IpAddr> = address.map(|it| it.parse().unwrap());
            let filter = AddressFilter { address };
            let query = write(&filter);
            assert_eq!(read::<AddressFilter>(query.strip_prefix('?')).expect("it reads"), filter, "{query}");
        }
    }
}
