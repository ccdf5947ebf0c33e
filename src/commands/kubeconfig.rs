//! `crier kubeconfig`: the file by which a node's agent reaches the API server, made with an administrator's. Floor 4.
//! The file goes to standard output; what was created for it, and what it lacks, to standard error.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::administrator::kubeconfigs;
use super::rbac::Scope;
use super::{Exit, print};
use crate::config::duration;
use crate::k8s::account::{self, AccountError, Was};
use crate::k8s::ask::Asker;
use crate::k8s::client::{self, ClientError};
use crate::k8s::node_kubeconfig::{self, Credential, Server};
use crate::manifests::document::{Format, objects};
use crate::names::ObjectKey;
use crate::selector::is_dns_name;

#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The administrator's kubeconfig, of which the current context is used; else the files that KUBECONFIG names, else ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The URL of the API server for nodes, where the administrator's file has another
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// How long the credential is valid, such as 8760h; without it a token does not expire, and of a certificate the cluster decides
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    lifetime: Option<Duration>,
    /// A client certificate of this node's own instead of a token of the service account
    #[arg(long, value_name = "NODE")]
    csr: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

/// The group of client certificates that the bindings of `crier rbac` name.
const GROUP: &str = "crier:nodes";

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("no administrator's kubeconfig: use --kubeconfig, or set KUBECONFIG or HOME")]
    NoFile,
    #[error(transparent)]
    Unusable(ClientError),
    #[error("the kubeconfig {path} has no current context with a cluster and a server")]
    NoCluster { path: String },
    #[error("the certificate authority {} of the kubeconfig cannot be read: {source}", path.display())]
    Authority { path: PathBuf, source: std::io::Error },
    #[error("the certificate-authority-data of the kubeconfig is not base64")]
    AuthorityData,
    #[error(
        "the kubeconfig skips the check of the API server's certificate, and the cluster has no ConfigMap {0}/kube-root-ca.crt to check it by; add certificate-authority to the kubeconfig"
    )]
    NoAuthority(String),
    #[error("\"{0}\" is not the URL of an API server; write https://10.0.0.10:6443")]
    Url(String),
    #[error("\"{0}\" is not the name of a Node")]
    NodeName(String),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("cannot start: {0}")]
    CannotStart(#[source] std::io::Error),
}

impl Trouble {
    fn exit(&self) -> Exit {
        match self {
            Trouble::Account(_) | Trouble::CannotStart(_) => Exit::Problem,
            Trouble::NoFile
            | Trouble::Unusable(_)
            | Trouble::NoCluster { .. }
            | Trouble::Authority { .. }
            | Trouble::AuthorityData
            | Trouble::NoAuthority(_)
            | Trouble::Url(_)
            | Trouble::NodeName(_) => Exit::Usage,
        }
    }
}

/// The file, and what a person should know about it.
struct Made {
    text: String,
    /// What was done.
    notes: Vec<String>,
    /// Why an agent with this file may not work yet.
    problems: Vec<String>,
}

pub fn run(arguments: &Kubeconfig) -> Exit {
    let rights = match arguments.scope.objects() {
        Ok(rights) => rights,
        Err(exit) => return exit,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Trouble::CannotStart);
    match runtime.and_then(|runtime| runtime.block_on(make(arguments, &rights))) {
        Ok(made) => {
            for line in made.notes.iter().chain(&made.problems) {
                tell!("crier: {line}");
            }
            print(&made.text).with_problems(!made.problems.is_empty())
        }
        Err(trouble) => {
            tell!("crier: {trouble}");
            trouble.exit()
        }
    }
}

/// `rights`: the objects of `crier rbac`.
async fn make(arguments: &Kubeconfig, rights: &str) -> Result<Made, Trouble> {
    let files = kubeconfigs(arguments.kubeconfig.as_deref()).ok_or(Trouble::NoFile)?;
    let node = arguments.csr.as_deref();
    if let Some(node) = node.filter(|node| !is_dns_name(node)) {
        return Err(Trouble::NodeName(node.to_owned()));
    }
    let (mut server, unchecked) = server_of(&files)?;
    if let Some(url) = &arguments.server {
        server.url.clone_from(url);
    }
    let host = host_of(&server.url).ok_or_else(|| Trouble::Url(server.url.clone()))?;
    let account = ObjectKey::new("kube-system", "crier");
    let asker = Asker::open(&files).await.map_err(AccountError::from)?;
    if unchecked {
        let namespace = account.namespace.to_string();
        let authority = account::authority(&asker, &namespace).await?;
        server.authority = Some(authority.ok_or(Trouble::NoAuthority(namespace))?);
    }

    let wanted = wanted_objects(arguments, rights);
    let mut notes: Vec<String> = Vec::new();
    for (object, was) in account::ensure(&asker, &wanted).await? {
        notes.push(match was {
            Was::Created => format!("created {object}"),
            Was::There => format!("{object} is there and was left as it is"),
        });
    }
    let (credential, user, groups) = credential(arguments, &asker, &account, &mut notes).await?;
    let lacking = account::lacking_rights(&asker, &user, &groups, &wanted).await?;
    let mut problems: Vec<String> = Vec::new();
    if !lacking.is_empty() {
        problems.push(format!(
            "the API server does not let {user} {}; run `crier rbac{} | kubectl apply -f -`",
            super::join(lacking),
            arguments.scope.arguments()
        ));
    }
    if is_loopback(&host) {
        problems.push(format!(
            "{} is this host's own address: other nodes do not reach the API server there; use --server URL",
            server.url
        ));
    }
    Ok(Made { text: node_kubeconfig::text(&server, &user, &credential), notes, problems })
}

/// The objects of `crier rbac` that the credential needs.
fn wanted_objects(arguments: &Kubeconfig, rights: &str) -> Vec<Value> {
    // The text is a part of the program, and a test reads it.
    let all = objects(rights, Format::Yaml).unwrap_or_default();
    let wanted = |object: &Value| match object["kind"].as_str() {
        Some("Secret") => arguments.csr.is_none() && arguments.lifetime.is_none(),
        Some("ServiceAccount") => arguments.csr.is_none(),
        _ => true,
    };
    all.into_iter().filter(wanted).collect()
}

/// The credential, the user that the API server takes its bearer for, and the groups.
async fn credential(
    arguments: &Kubeconfig,
    asker: &Asker,
    account: &ObjectKey,
    notes: &mut Vec<String>,
) -> Result<(Credential, String, Vec<&'static str>), Trouble> {
    if let Some(node) = &arguments.csr {
        let user = format!("crier:{node}");
        let name = format!("crier-{node}");
        let (credential, request) = account::certificate(asker, &user, GROUP, &name, arguments.lifetime).await?;
        notes.push(format!(
            "a client certificate of {user} was signed as CertificateSigningRequest {request}; `openssl x509 -enddate` tells when it expires"
        ));
        return Ok((credential, user, vec![GROUP]));
    }
    let user = account::user_of(account);
    let credential = match arguments.lifetime {
        Some(lifetime) => {
            let (credential, until) = account::passing_token(asker, account, lifetime).await?;
            notes.push(format!("the token of {account} expires at {until}; replace the file on the nodes before"));
            credential
        }
        None => {
            let secret = ObjectKey::new("kube-system", "crier-token");
            notes.push(format!("the token of {account} does not expire; delete the Secret {secret} to revoke it"));
            account::lasting_token(asker, &secret).await?
        }
    };
    if let Credential::Token(token) = &credential {
        account::check_token(asker, token, account).await?;
    }
    Ok((credential, user, vec!["system:serviceaccounts", "system:authenticated"]))
}

/// Where the administrator's current context has the API server, and whether its certificate goes unchecked.
fn server_of(files: &[PathBuf]) -> Result<(Server, bool), Trouble> {
    let read = client::merged(files).map_err(Trouble::Unusable)?;
    let no_cluster = || Trouble::NoCluster { path: client::all_of(files).display().to_string() };
    let current = read.current_context.as_ref().ok_or_else(no_cluster)?;
    let context = read.contexts.iter().find(|context| &context.name == current);
    let context = context.and_then(|context| context.context.as_ref()).ok_or_else(no_cluster)?;
    let cluster = read.clusters.iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster.and_then(|cluster| cluster.cluster.as_ref()).ok_or_else(no_cluster)?;
    let authority = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => {
            let octets = serde_json::from_value::<k8s_openapi::ByteString>(data.clone().into());
            Some(octets.map_err(|_| Trouble::AuthorityData)?.0)
        }
        (None, Some(path)) => {
            let unreadable = |source| Trouble::Authority { path: path.into(), source };
            Some(std::fs::read(path).map_err(unreadable)?)
        }
        (None, None) => None,
    };
    let unchecked = authority.is_none() && cluster.insecure_skip_tls_verify == Some(true);
    let url = cluster.server.clone().ok_or_else(no_cluster)?;
    Ok((Server { url, authority, name: cluster.tls_server_name.clone() }, unchecked))
}

/// The host of an http or https URL, without the brackets of IPv6.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    matches!(uri.scheme_str(), Some("http" | "https"))
        .then(|| host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// The API server refuses less than ten minutes, and counts in seconds of 32 bits.
fn lifetime(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(600), Duration::from_secs(1 << 31));
    match duration::parse(text) {
        Ok(time) if (least..most).contains(&time) => Ok(time),
        Ok(time) => Err(format!("{} is not between 10m and 596523h", duration::text(time))),
        Err(error) => Err(format!("{error}; write 8760h, or 90m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(csr: Option<&str>, lifetime: Option<u64>) -> Kubeconfig {
        let csr = csr.map(str::to_owned);
        let (lifetime, scope) = (lifetime.map(Duration::from_secs), Scope::default());
        Kubeconfig { kubeconfig: None, server: None, lifetime, csr, scope }
    }

    #[test]
    fn only_what_the_credential_needs_is_created() {
        let kinds = |arguments: &Kubeconfig| -> Vec<String> {
            let rights = arguments.scope.objects().expect("it is fixed");
            wanted_objects(arguments, &rights)
                .iter()
                .map(|object| object["kind"].as_str().unwrap().to_owned())
                .collect()
        };
        let roles = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
        assert_eq!(kinds(&arguments(None, None)), [&["ServiceAccount"], &roles[..], &["Secret"]].concat());
        assert_eq!(kinds(&arguments(None, Some(3600))), [&["ServiceAccount"], &roles[..]].concat());
        assert_eq!(kinds(&arguments(Some("node-1"), None)), roles);
    }

    #[test]
    fn the_group_of_certificates_has_the_rights_of_the_account() {
        let rights = Scope::default().objects().expect("it is fixed");
        let bound =
            wanted_objects(&arguments(None, None), &rights).into_iter().filter(|object| object["subjects"].is_array());
        let groups: Vec<bool> = bound
            .map(|object| {
                let subjects = object["subjects"].as_array().unwrap();
                subjects.iter().any(|subject| subject["kind"] == "Group" && subject["name"] == GROUP)
            })
            .collect();
        assert_eq!(groups, [true, true], "both bindings name {GROUP}");
    }

    #[test]
    fn the_server_is_that_of_the_current_context() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.conf");
        std::fs::write(folder.path().join("ca.pem"), "-----BEGIN").unwrap();
        let table = [
            ("{server: 'https://10.0.0.1:6443', certificate-authority-data: LS0tLS1CRUdJTg==}", Ok((true, false))),
            ("{server: 'https://10.0.0.1:6443', certificate-authority: ca.pem}", Ok((true, false))),
            ("{server: 'https://10.0.0.1:6443', insecure-skip-tls-verify: true}", Ok((false, true))),
            ("{server: 'https://10.0.0.1:6443'}", Ok((false, false))),
            ("{server: 'https://10.0.0.1:6443', certificate-authority-data: '!'}", Err("not base64")),
            ("{server: 'https://10.0.0.1:6443', certificate-authority: /nowhere/ca.pem}", Err("/nowhere/ca.pem")),
            ("{}", Err("no current context with a cluster and a server")),
        ];
        for (cluster, expected) in table {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: b, contexts: [{{name: a, context: {{cluster: a}}}}, \
                 {{name: b, context: {{cluster: b, user: b}}}}], clusters: [{{name: a, cluster: {{server: 'https://a'}}}}, \
                 {{name: b, cluster: {cluster}}}], users: [{{name: b, user: {{}}}}]}}"
            );
            std::fs::write(&path, text).unwrap();
            match (server_of(std::slice::from_ref(&path)), expected) {
                (Ok((server, unchecked)), Ok((authority, expected))) => {
                    assert_eq!(server.url, "https://10.0.0.1:6443", "{cluster}");
                    let authority = authority.then(|| b"-----BEGIN".to_vec());
                    assert_eq!((server.authority, unchecked), (authority, expected), "{cluster}");
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{words} in: {error}"),
                (found, expected) => panic!("{cluster}: {expected:?}, not {found:?}"),
            }
        }
        assert!(matches!(server_of(&["/nowhere".into()]), Err(Trouble::Unusable(_))));
    }

    /// Input: several files, as KUBECONFIG names them. Output: the current context of the first, with the cluster of the
    /// second; one that is not there counts for nothing.
    #[test]
    fn several_files_are_merged_and_one_that_is_not_there_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, away] = ["first", "second", "away"].map(|name| folder.path().join(name));
        let context = "contexts: [{name: b, context: {cluster: b, user: b}}], current-context: b";
        std::fs::write(&first, format!("{{apiVersion: v1, kind: Config, {context}}}")).unwrap();
        let cluster = "clusters: [{name: b, cluster: {server: 'https://10.0.0.1:6443'}}], current-context: a";
        std::fs::write(&second, format!("{{apiVersion: v1, kind: Config, {cluster}}}")).unwrap();
        let (server, _) = server_of(&[first.clone(), away.clone(), second]).expect("they say it together");
        assert_eq!(server.url, "https://10.0.0.1:6443");
        assert!(matches!(server_of(&[first, away.clone()]), Err(Trouble::NoCluster { .. })));
        assert!(matches!(server_of(&[away]), Err(Trouble::Unusable(_))));
    }

    #[test]
    fn a_url_that_only_this_host_reaches_is_known() {
        let host = |url| host_of(url).map(|host| is_loopback(&host));
        for (url, expected) in [
            ("https://127.0.0.1:6443", Some(true)),
            ("https://[::1]:6443", Some(true)),
            ("https://localhost:6443/", Some(true)),
            ("https://0.0.0.0:6443", Some(true)),
            ("https://10.0.0.1:6443", Some(false)),
            ("https://[fd35::10]:6443", Some(false)),
            ("https://api.example.com", Some(false)),
            ("http://10.0.0.1:8080", Some(false)),
            ("10.0.0.1:6443", None),
            ("ftp://10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn a_lifetime_is_one_that_the_api_server_takes() {
        for (text, good) in [("8760h", true), ("10m", true), ("9m", false), ("600000h", false), ("365", false)] {
            assert_eq!(lifetime(text).is_ok(), good, "{text}");
        }
    }
}
