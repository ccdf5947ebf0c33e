//! From when to when a certificate is good, as its text says (RFC 5280 §4.1). Floor 1.
//! Nothing else of it is read, and nothing is verified: that is the API server's. x509-parser reads all of it, and brings twelve crates
//! for these two fields, a second nom and a second library of time among them.

use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::of_base64;

/// The validity of the first certificate of a PEM text, which is the owner's; those of its authorities stand behind it. `None` where there is
/// none that can be read.
pub fn validity(pem: &str) -> Option<(SystemTime, SystemTime)> {
    let (_, begun) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (lines, _) = begun.split_once("-----END CERTIFICATE-----")?;
    let der = of_base64(lines)?;
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { version [0] DEFAULT v1, serialNumber, signature, issuer, validity, .. }, .. }
    let (_, certificate, _) = opened(&der)?;
    let (_, mut rest, _) = opened(certificate)?;
    if rest.first() == Some(&VERSION) {
        rest = opened(rest)?.2;
    }
    for _before in ["serialNumber", "signature", "issuer"] {
        rest = opened(rest)?.2;
    }
    let (_, validity, _) = opened(rest)?;
    let (tag, begins, rest) = opened(validity)?;
    let begins = time(tag, begins)?;
    let (tag, ends, _) = opened(rest)?;
    Some((begins, time(tag, ends)?))
}

/// Whether that certificate is of version 1, which has no extensions; rustls takes none. `openssl x509 -req` writes such ones unless it is given
/// extensions.
pub fn is_version_1(pem: &str) -> bool {
    let version = |der: &[u8]| Some(opened(opened(opened(der)?.1)?.1)?.0);
    let of_first = |pem: &str| {
        let (_, begun) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
        let (lines, _) = begun.split_once("-----END CERTIFICATE-----")?;
        // The serial number stands where another version has its number.
        Some(version(&of_base64(lines)?)? != VERSION)
    };
    of_first(pem).unwrap_or(false)
}

/// Tag and content of the first value, and what is behind it (X.690 §8.1).
fn opened(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = octets.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first & LONG_FORM {
        0 => (usize::from(*first), rest),
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(first & !LONG_FORM))?;
            // Four octets say more than any certificate has.
            let length = (length.len() <= 4).then_some(length)?;
            (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// RFC 5280 §4.1.2.5: both kinds of time are in UTC, with seconds.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY".
        UTC_TIME => format!("{}{text}", if text.get(..2)? >= "50" { "19" } else { "20" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

/// `[0]`, constructed.
const VERSION: u8 = 0xa0;
const LONG_FORM: u8 = 0x80;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::k8s::certificate_request::self_signed;
    use crate::k8s::fake::OF_OPENSSL;

    fn said(pem: &str) -> Option<String> {
        let (begins, ends) = validity(pem)?;
        let text = |at| Timestamp::try_from(at).unwrap().to_string();
        Some(format!("{} {}", text(begins), text(ends)))
    }

    #[test]
    fn the_validity_of_the_first_certificate_is_read() {
        let of_openssl = Some("2020-01-01T00:00:00Z 2021-01-01T00:00:00Z");
        assert_eq!(said(OF_OPENSSL).as_deref(), of_openssl);
        let (_, other) = self_signed(["990131235959Z", "20500101000000Z"]);
        assert_eq!(said(&other).as_deref(), Some("1999-01-31T23:59:59Z 2050-01-01T00:00:00Z"));
        assert_eq!(said(&format!("{OF_OPENSSL}{other}")).as_deref(), of_openssl, "the authority is behind it");
    }

    #[test]
    fn version_1_is_told_apart() {
        assert!(is_version_1(OF_OPENSSL));
        assert!(!is_version_1(&self_signed(["200101000000Z", "20500101000000Z"]).1));
        assert!(!is_version_1("no certificate"));
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        let table = ["", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----!\n-----END CERTIFICATE-----"];
        table.iter().for_each(|text| assert_eq!(said(text), None, "{text}"));
        let (_, whole) = self_signed(["20260101000000Z", "20260201000000Z"]);
        for at in 0..whole.len() {
            for with in ["", "A", "/"] {
                let mut text = whole.clone();
                text.replace_range(at..=at, with);
                let _ = (validity(&text), is_version_1(&text));
            }
            let _ = validity(&format!("{}\n-----END CERTIFICATE-----\n", &whole[..at]));
        }
        for (tag, text) in [(UTC_TIME, "9"), (UTC_TIME, "991331000000Z"), (GENERALIZED_TIME, "é"), (0x02, "9")] {
            assert_eq!(time(tag, text.as_bytes()), None, "{text}");
        }
    }
}
