//! The kubeconfig of an agent as text: one cluster, one user, one context. Floor 1.
//! Not for where its parts come from; `account` gets them from the API server.

use super::base64;
use crate::secret::Secret;

/// Where the API server is, and how a client knows that it is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub url: String,
    /// The certificates of its authority, PEM. `None`: those that the host trusts.
    pub authority: Option<Vec<u8>>,
    /// The name in its certificate, where that is not the host of the URL.
    pub name: Option<String>,
}

/// How the agent proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Token(Secret),
    /// PEM, both.
    Certificate {
        certificate: Vec<u8>,
        key: Secret,
    },
}

/// A whole kubeconfig. It holds the credential: it belongs into a file that only root can read.
pub fn text(server: &Server, user: &str, credential: &Credential) -> String {
    // JSON strings are YAML strings.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut cluster = format!("    server: {}\n", quoted(&server.url));
    if let Some(authority) = &server.authority {
        cluster += &format!("    certificate-authority-data: {}\n", base64(authority));
    }
    if let Some(name) = &server.name {
        cluster += &format!("    tls-server-name: {}\n", quoted(name));
    }
    let user_name = quoted(user);
    let proof = match credential {
        Credential::Token(token) => format!("    token: {}\n", quoted(&String::from_utf8_lossy(token.expose()))),
        Credential::Certificate { certificate, key } => {
            let (certificate, key) = (base64(certificate), base64(key.expose()));
            format!("    client-certificate-data: {certificate}\n    client-key-data: {key}\n")
        }
    };
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: cluster\n  cluster:\n{cluster}users:\n- name: {user_name}\n  user:\n{proof}\
         contexts:\n- name: crier\n  context:\n    cluster: cluster\n    user: {user_name}\ncurrent-context: crier\n"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn a_client_reads_what_was_meant() {
        let server = Server {
            url: "https://[fd35::10]:6443".to_owned(),
            authority: Some(b"-----BEGIN CERTIFICATE-----\n".to_vec()),
            name: Some("kubernetes".to_owned()),
        };
        let token = Credential::Token(Secret::from(&b"a.b-c_d"[..]));
        let key = Secret::from(&b"key"[..]);
        let certificate = Credential::Certificate { certificate: b"certificate".to_vec(), key };
        for (credential, expected) in
            [(token, (Some("a.b-c_d"), None, None)), (certificate, (None, Some("Y2VydGlmaWNhdGU="), Some("a2V5")))]
        {
            let text = text(&server, "crier", &credential);
            let read = Kubeconfig::from_yaml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read.current_context.as_deref(), Some("crier"));
            let cluster = read.clusters[0].cluster.as_ref().unwrap();
            assert_eq!(cluster.server.as_deref(), Some("https://[fd35::10]:6443"));
            assert_eq!(cluster.certificate_authority_data.as_deref(), Some("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="));
            assert_eq!(cluster.tls_server_name.as_deref(), Some("kubernetes"));
            let user = serde_json::to_value(read.auth_infos[0].auth_info.as_ref().unwrap()).unwrap();
            let field = |key: &str| user.get(key).and_then(|it| it.as_str());
            let seen = (field("token"), field("client-certificate-data"), field("client-key-data"));
            assert_eq!((seen.1, seen.2), (expected.1, expected.2), "{text}");
            assert_eq!(text.contains("token: \"a.b-c_d\""), expected.0.is_some(), "{text}");
        }
    }
}
