//! A certificate authority for one cluster: the API server's certificate, clients' certificates, the key that signs
//! service account tokens. Not for anything but tests: nothing expires that is not asked to.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use crate::wait::wall;

/// The authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its private key, both as PEM text.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = new_key();
        let certificate = params.self_signed(&key).expect("an authority signs itself").pem();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key, PEM, for a cluster that signs by itself.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// For a server that is reached under these names and addresses.
    pub fn server(&self, names: &[&str], addresses: &[IpAddr]) -> Identity {
        let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
            .expect("names given by tests are names");
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("server"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// For a client: Kubernetes reads the user from the common name and its groups from the organizations.
    pub fn client(&self, user: &str, groups: &[&str]) -> Identity {
        self.client_with(user, groups, CertificateParams::default())
    }

    /// The same, good for `lasting` from now on, by the clock of this host.
    pub fn client_for(&self, user: &str, groups: &[&str], lasting: Duration) -> Identity {
        let mut params = CertificateParams::default();
        let now = wall().duration_since(UNIX_EPOCH).expect("it is later than 1970");
        params.not_after = date_time_ymd(1970, 1, 1) + now + lasting;
        self.client_with(user, groups, params)
    }

    fn client_with(&self, user: &str, groups: &[&str], mut params: CertificateParams) -> Identity {
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs what it is given");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A key pair for signing tokens: the private and the public key as PEM texts.
pub fn signing_key() -> (String, String) {
    let key = new_key();
    (key.serialize_pem(), key.public_key_pem())
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system gives random numbers")
}
