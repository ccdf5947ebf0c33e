//! A private key and a request to certify it (PKCS #10, RFC 2986), for a client of the API server. Floor 2, for it draws the key.
//! One kind of key, ECDSA over P-256, which every Go program reads; the few lines of DER that it takes are written here.

use ring::error::{KeyRejected, Unspecified};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::base64;
use crate::secret::Secret;

/// Why there is no key. Nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("this host gave no random numbers for a private key")]
    Random,
    #[error("the private key that was drawn cannot be used: {0}")]
    Rejected(KeyRejected),
}

impl From<Unspecified> for KeyError {
    fn from(_: Unspecified) -> KeyError {
        KeyError::Random
    }
}

/// A key and the request, both as PEM text.
pub struct KeyAndRequest {
    pub key: Secret,
    pub request: String,
}

/// Draws a key and asks for a certificate of this user in this group, as Kubernetes reads common name and organization.
pub fn draw(user: &str, group: &str) -> Result<KeyAndRequest, KeyError> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random);
    let key = key.map_err(KeyError::Rejected)?;
    let what = request_info(user, group, key.public_key().as_ref());
    let signature = key.sign(&random, &what)?;
    let request = sequence(&[&what, &sequence(&[&der(OID, &ECDSA_WITH_SHA256)]), &bits(signature.as_ref())]);
    let key = Secret::from(pem("PRIVATE KEY", document.as_ref()).as_bytes());
    Ok(KeyAndRequest { key, request: pem("CERTIFICATE REQUEST", &request) })
}

/// A key, and a certificate for it that its owner has signed, both as PEM text; from when to when as UTCTime, or as GeneralizedTime where the
/// year has four digits.
#[cfg(test)]
pub fn self_signed(validity: [&str; 2]) -> (Secret, String) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap();
    let algorithm = sequence(&[&der(OID, &ECDSA_WITH_SHA256)]);
    let name = der(SET, &sequence(&[&der(OID, &COMMON_NAME), &der(UTF8_STRING, b"crier:node-1")]));
    let name = sequence(&[&name]);
    let [begins, ends] =
        validity.map(|text| der(if text.len() == "990131235959Z".len() { 0x17 } else { 0x18 }, text.as_bytes()));
    let public = sequence(&[&der(OID, &EC_PUBLIC_KEY), &der(OID, &P256)]);
    let public = sequence(&[&public, &bits(key.public_key().as_ref())]);
    let (version, serial) = (der(0xa0, &der(INTEGER, &[2])), der(INTEGER, &[1]));
    let what = sequence(&[&version, &serial, &algorithm, &name, &sequence(&[&begins, &ends]), &name, &public]);
    let signature = key.sign(&random, &what).unwrap();
    let certificate = sequence(&[&what, &algorithm, &bits(signature.as_ref())]);
    (Secret::from(pem("PRIVATE KEY", document.as_ref()).as_bytes()), pem("CERTIFICATE", &certificate))
}

/// RFC 2986 §4.1: CertificationRequestInfo, version 0, without attributes.
fn request_info(user: &str, group: &str, public_key: &[u8]) -> Vec<u8> {
    let attribute =
        |kind: &[u8], value: &str| der(SET, &sequence(&[&der(OID, kind), &der(UTF8_STRING, value.as_bytes())]));
    let subject = sequence(&[&attribute(&ORGANIZATION, group), &attribute(&COMMON_NAME, user)]);
    let algorithm = sequence(&[&der(OID, &EC_PUBLIC_KEY), &der(OID, &P256)]);
    let key = sequence(&[&algorithm, &bits(public_key)]);
    sequence(&[&der(INTEGER, &[0]), &subject, &key, &der(NO_ATTRIBUTES, &[])])
}

/// Tag, length and content (X.690 §8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|octet| *octet != 0).map_or(&length[..0], |at| &length[at..]);
    let mut out = vec![tag];
    match content.len() {
        // Up to 127 the length stands alone; beyond, the number of its octets stands before it.
        0..=127 => out.push(significant.first().copied().unwrap_or(0)),
        _ => {
            out.push(u8::try_from(significant.len()).map_or(LONG_FORM, |count| LONG_FORM | count));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(SEQUENCE, &parts.concat())
}

/// A BIT STRING of whole octets.
fn bits(octets: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[&[0], octets].concat())
}

/// RFC 7468 §2: base64 in lines of 64 characters between two lines that name the content.
fn pem(label: &str, content: &[u8]) -> String {
    let encoded = base64(content);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        text += line;
        text.push('\n');
        rest = behind;
    }
    text + &format!("-----END {label}-----\n")
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed.
const NO_ATTRIBUTES: u8 = 0xa0;
const LONG_FORM: u8 = 0x80;

/// 2.5.4.10
const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];
/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// 1.2.840.10045.2.1
const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.2.840.10045.4.3.2
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    /// The content of the first value of `text`, and what is behind it.
    fn opened(octets: &[u8]) -> (u8, &[u8], &[u8]) {
        let long = usize::from(octets[1] & !LONG_FORM);
        let (length, start) = match octets[1] {
            short if short < LONG_FORM => (usize::from(short), 2),
            _ => (octets[2..2 + long].iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), 2 + long),
        };
        (octets[0], &octets[start..start + length], &octets[start + length..])
    }

    fn decoded(pem: &str) -> Vec<u8> {
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        serde_json::from_value::<ByteString>(lines.into()).expect("base64").0
    }

    #[test]
    fn the_request_names_user_and_group_and_is_signed_by_its_own_key() {
        let KeyAndRequest { key, request } = draw("crier:node-1", "crier:nodes").unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{request}");
        assert!(request.lines().all(|line| line.len() <= 64), "{request}");
        let request = decoded(&request);
        let (tag, content, behind) = opened(&request);
        assert_eq!((tag, behind), (SEQUENCE, &[][..]));
        let (_, info, after) = opened(content);
        let signed = &content[..content.len() - after.len()];
        let (_, _, signature) = opened(after);
        let (tag, signature, behind) = opened(signature);
        assert_eq!((tag, signature[0], behind), (BIT_STRING, 0, &[][..]));

        let (_, version, rest) = opened(info);
        let (_, subject, rest) = opened(rest);
        let (_, key_info, attributes) = opened(rest);
        assert_eq!((version, attributes), (&[0][..], &[NO_ATTRIBUTES, 0][..]));
        let has = |text: &str| subject.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has("crier:node-1") && has("crier:nodes"));
        let (_, point, _) = opened(opened(key_info).2);
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point[1..]);
        public.verify(signed, &signature[1..]).expect("the key signed what stands there");

        let key = String::from_utf8(key.expose().to_vec()).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "PKCS #8");
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &decoded(&key), &random).unwrap();
        assert_eq!(pair.public_key().as_ref(), &point[1..], "the key and the request belong together");
    }

    #[test]
    fn a_length_beyond_127_is_written_in_the_long_form() {
        for (length, expected) in
            [(0, &[0x04, 0x00][..]), (127, &[0x04, 0x7f]), (128, &[0x04, 0x81, 0x80]), (300, &[0x04, 0x82, 0x01, 0x2c])]
        {
            assert_eq!(der(0x04, &vec![0; length])[..expected.len()], *expected, "{length}");
        }
    }
}
