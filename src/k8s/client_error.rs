//! Why there is no client of the API server. Floor 1.

use std::path::PathBuf;

use kube::config::{InClusterError, KubeconfigError};

use crate::world::ClientCertificate;

/// Why there is no client. Nothing was opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the kubeconfig {path} cannot be used: {source}")]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error(
        "the kubeconfig {path} uses the credential plugin \"{command}\" (exec); crier runs no plugins: use a token, a tokenFile or a client certificate"
    )]
    CredentialPlugin { path: PathBuf, command: String },
    #[error(
        "the kubeconfig {path} uses the auth-provider \"{name}\"; crier supports none: use a token, a tokenFile or a client certificate"
    )]
    AuthProvider { path: PathBuf, name: String },
    #[error(
        "the kubeconfig {path} sets the proxy {proxy} (proxy-url); crier uses no proxy: remove proxy-url and let this host reach the API server directly"
    )]
    Proxy { path: PathBuf, proxy: String },
    #[error("the token file {path}, which the kubeconfig {kubeconfig} names, cannot be read: {source}")]
    Token { path: PathBuf, kubeconfig: PathBuf, source: std::io::Error },
    #[error("the token that the kubeconfig {path} gives is empty, or no line of text that a request can carry")]
    TokenText { path: PathBuf },
    #[error("in-cluster = true needs the service account of a pod, which cannot be used: {0}")]
    InCluster(#[source] InClusterError),
    #[error("the credentials for the API server cannot be used: {0}")]
    Credentials(#[source] kube::Error),
    #[error(
        "the client certificate for the API server is of X.509 version 1, which has no extensions, and crier's TLS takes none of these: have it \
         signed anew with an extension (openssl x509 -req -extfile, with extendedKeyUsage = clientAuth)"
    )]
    CertificateVersion,
    #[error("tls-server-name \"{name}\" is not a host name")]
    ServerName { name: String },
    #[error("the API server \"{server}\" is no URL such as https://192.0.2.1:6443")]
    Server { server: String },
    #[error("{place} holds no certificate: no API server could be trusted")]
    NoAuthority { place: String },
    #[error(
        "no API server is trusted by them: {why}; look at certificate-authority, tls-server-name and server of the kubeconfig"
    )]
    Untrusted { why: String },
    #[error(
        "{ended} ended on {}, so the API server would answer 401: make a new kubeconfig with `crier kubeconfig`, or renew the certificate",
        ended.end()
    )]
    CertificateEnded { ended: ClientCertificate },
    #[error(
        "the kubeconfig {path} gives its user no token, tokenFile or client certificate, so the API server would see nobody: write one \
         into it, or make a new one with `crier kubeconfig`"
    )]
    NoCredentials { path: PathBuf },
}
