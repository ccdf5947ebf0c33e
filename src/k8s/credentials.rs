//! The way to the API server as the files on disk say it, read again when they change. Floor 2.
//!
//! Tokens, certificates and authorities are renewed on disk while the agent runs. One task, [`Renewal::run`], owned by the
//! agent, looks at the files and puts a new client in the place of the old one; cancelled, the old one stays in use. A set of
//! files that cannot be used is told, and the client before stays: they are read again at each look until they can.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use http::{HeaderValue, Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedContext};
use secrecy::ExposeSecret;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tower::{BoxError, ServiceExt};
use tracing::{info, warn};

use super::certificate::validity;
use super::client_error::ClientError;
use super::connection::{Answer, Connection, assemble_all, certificate_text};
use crate::clock;
use crate::config::Access;
use crate::state_file;
use crate::world::{Area, ClientCertificate, Fact, HostProblem};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// After an answer 401 they are read again at once, but not more often than this.
const LEAST: Duration = Duration::from_secs(1);

/// What stands in the place of a client, and always is the newest one.
#[derive(Clone)]
pub(super) struct Newest {
    /// One for each API server.
    connections: watch::Receiver<Arc<[Connection]>>,
    /// How often the next server was turned to.
    turns: Arc<AtomicUsize>,
    requests: Arc<AtomicU64>,
    refused: Arc<Notify>,
}

/// Keeps the client up to date: see [`Renewal::run`].
pub struct Renewal {
    access: Access,
    servers: Vec<String>,
    seen: Fingerprint,
    certificate: Option<ClientCertificate>,
    pub(super) look: Duration,
    connections: watch::Sender<Arc<[Connection]>>,
    requests: Arc<AtomicU64>,
    refused: Arc<Notify>,
}

/// Of each file that the way to the API server is read from: its inode, size and time of change; `None` if it is not there.
type Fingerprint = Vec<(PathBuf, Option<(u64, u64, i64, i64)>)>;

/// The first client, and what renews it.
pub(super) async fn open(access: &Access, servers: &[String]) -> Result<(kube::Config, Newest, Renewal), ClientError> {
    let (config, seen) = load(access).await?;
    let (sender, connections) = watch::channel(assemble_all(&config, servers)?);
    names_somebody(&config, access)?;
    let (refused, requests) = (Arc::new(Notify::new()), Arc::<AtomicU64>::default());
    let newest = Newest { connections, turns: Arc::default(), requests: requests.clone(), refused: refused.clone() };
    let (access, servers) = (access.clone(), servers.to_vec());
    let certificate = certificate_of(&config, &access);
    let renewal = Renewal { access, servers, seen, certificate, look: LOOK, connections: sender, requests, refused };
    Ok((config, newest, renewal))
}

impl Renewal {
    /// How many requests were sent, of all kinds. It only grows.
    pub fn requests(&self) -> Arc<AtomicU64> {
        self.requests.clone()
    }

    /// What the API server knows the agent by, where that is a certificate.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Looks at the files until the client is gone, and at once when the API server answers 401. Tells why they cannot be used.
    pub async fn run(mut self, facts: mpsc::Sender<Fact>) {
        let mut unusable = None;
        let (mut told, mut warned) = (None, None);
        while !self.connections.is_closed() {
            if told != self.certificate {
                if facts.send(Fact::ClientCertificate(self.certificate.clone())).await.is_err() {
                    return;
                }
                told = self.certificate.clone();
            }
            let trouble = self.certificate.as_ref().and_then(|it| it.trouble(clock::wall()));
            if warned != trouble {
                trouble.iter().for_each(|trouble| warn!("{trouble}"));
                warned = trouble;
            }
            let refused = timeout(self.look, self.refused.notified()).await.is_ok();
            // Files come one after the other: what the newest kubeconfig names may not be there yet.
            if !refused && unusable.is_none() && fingerprint(&self.seen) == self.seen {
                continue;
            }
            let why = self.read_again().await.err().map(|error| error.to_string());
            if why != unusable {
                let problem = why.as_ref().map(|why| HostProblem {
                    problem: format!(
                        "the credentials for the API server have changed on the disk and cannot be used: {why}"
                    ),
                    remedy: "the former ones stay in use; crier reads them again every few seconds".to_owned(),
                });
                match &problem {
                    Some(problem) => warn!("{}; the former ones stay in use", problem.problem),
                    None => info!("the credentials for the API server on the disk can be used"),
                }
                if facts.send(Fact::Problems(Area::Credentials, problem.into_iter().collect())).await.is_err() {
                    return;
                }
                unusable = why;
            }
            sleep(LEAST).await;
        }
    }

    async fn read_again(&mut self) -> Result<(), ClientError> {
        let (config, seen) = load(&self.access).await?;
        if seen != self.seen {
            names_somebody(&config, &self.access)?;
            let certificate = certificate_of(&config, &self.access);
            self.is_no_worse(certificate.as_ref())?;
            let connections = assemble_all(&config, &self.servers)?;
            is_trusted(&connections).await?;
            self.connections.send_replace(connections);
            self.certificate = certificate;
            self.seen = seen;
            info!("the credentials for the API server were read again");
        }
        Ok(())
    }

    /// A certificate that has ended, as of a restored backup, takes no others' place while these have not ended. By a wrong clock all have.
    fn is_no_worse(&self, certificate: Option<&ClientCertificate>) -> Result<(), ClientError> {
        let wall = clock::wall();
        let former_ended = self.certificate.as_ref().is_some_and(|it| it.has_ended(wall));
        match certificate.filter(|it| it.has_ended(wall) && !former_ended) {
            Some(ended) => Err(ClientError::CertificateEnded { ended: ended.clone() }),
            None => Ok(()),
        }
    }
}

impl tower::Service<Request<Body>> for Newest {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client of the moment waits until it is ready itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connections = self.connections.borrow().clone();
        let (turns, refused) = (self.turns.clone(), self.refused.clone());
        self.requests.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let turn = turns.load(Ordering::Relaxed);
            let Some(connection) = connections.iter().cycle().nth(turn % connections.len().max(1)).cloned() else {
                return Err("there is no API server to ask".into());
            };
            let mut outcome = Outcome { turns, turn, answered: false };
            let answer = connection.oneshot(request).await?;
            outcome.answered = !UNABLE.contains(&answer.status());
            if answer.status() == StatusCode::UNAUTHORIZED {
                refused.notify_one();
            }
            Ok(answer)
        })
    }
}

/// Answers of a server, or of what stands before it, that cannot serve now: another one may.
const UNABLE: [StatusCode; 3] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// Whether a server answered. One that did not, also where nobody waits for it any longer, is followed by the next: of many
/// requests that fail at once, one turns. Whoever asked tries again.
struct Outcome {
    turns: Arc<AtomicUsize>,
    turn: usize,
    answered: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.answered {
            let next = self.turn.wrapping_add(1);
            let _ = self.turns.compare_exchange(self.turn, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A template whose variable came out empty leaves a user without credentials: asking as nobody is worse than the former ones. Over plain
/// HTTP a proxy on this host may bring them.
pub(super) fn names_somebody(config: &kube::Config, access: &Access) -> Result<(), ClientError> {
    let user = &config.auth_info;
    let has_token = user.token.is_some() || user.token_file.is_some();
    let has_certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
    let is_plain = config.cluster_url.scheme_str() == Some("http");
    match access {
        Access::Kubeconfig(path) if !(has_token || has_certificate || is_plain) => {
            Err(ClientError::NoCredentials { path: path.clone() })
        }
        Access::Kubeconfig(_) | Access::InCluster => Ok(()),
    }
}

/// Another authority, or another name of the server, may make of a server that is trusted one that is not: the connections of before are
/// good until they end, so that it would show much later. A server that does not answer says nothing of the kind.
async fn is_trusted(connections: &[Connection]) -> Result<(), ClientError> {
    let asked = connections.iter().map(|connection| async {
        let request = Request::get("/version").body(Body::empty()).map_err(BoxError::from)?;
        match timeout(LOOK, connection.clone().oneshot(request)).await {
            Ok(answer) => answer.map(drop),
            Err(late) => Err(late.into()),
        }
    });
    let answers = join_all(asked).await;
    if answers.iter().any(Result::is_ok) {
        return Ok(());
    }
    match answers.into_iter().filter_map(Result::err).find_map(|error| of_certificate(&*error)) {
        Some(why) => Err(ClientError::Untrusted { why }),
        None => Ok(()),
    }
}

/// What TLS says of the server's certificate, where that is the cause.
fn of_certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let invalid = |error: &&rustls::Error| matches!(error, rustls::Error::InvalidCertificate(_));
    causes.filter_map(of_tls).find(invalid).map(ToString::to_string)
}

/// TLS's own error; errors of I/O have it inside and do not name it as their source.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<rustls::Error>() {
        Some(of_tls) => Some(of_tls),
        None => of_tls(error.downcast_ref::<io::Error>()?.get_ref()?),
    }
}

async fn load(access: &Access) -> Result<(kube::Config, Fingerprint), ClientError> {
    match access {
        Access::Kubeconfig(path) => from_kubeconfig(path.clone()).await,
        // kube itself reads the token of a pod again and again.
        Access::InCluster => Ok((kube::Config::incluster().map_err(ClientError::InCluster)?, Vec::new())),
    }
}

async fn from_kubeconfig(path: PathBuf) -> Result<(kube::Config, Fingerprint), ClientError> {
    let kubeconfig = read(&path)?;
    usable(path, kubeconfig).await
}

/// Of several, each value is that of the first file that has it, as kubectl merges them; a file that is not there is left out, where another
/// one is, and so is /dev/null, which says nothing.
pub fn merged(kubeconfigs: &[PathBuf]) -> Result<Kubeconfig, ClientError> {
    let is_there = |path: &&PathBuf| path.as_path() != Path::new("/dev/null") && std::fs::metadata(path).is_ok();
    let there: Vec<&PathBuf> = kubeconfigs.iter().filter(is_there).collect();
    let mut all = if there.is_empty() { kubeconfigs.iter().collect() } else { there }.into_iter();
    let Some(first) = all.next() else { return Ok(Kubeconfig::default()) };
    all.try_fold(read(first)?, |merged, path| {
        let unusable = |source| ClientError::Kubeconfig { path: path.clone(), source };
        merged.merge(read(path)?).map_err(unusable)
    })
}

/// How messages name several: as KUBECONFIG does.
pub fn all_of(kubeconfigs: &[PathBuf]) -> PathBuf {
    std::env::join_paths(kubeconfigs).map_or_else(|_| kubeconfigs.first().cloned().unwrap_or_default(), PathBuf::from)
}

/// The first client, of kubeconfigs that are merged.
pub(super) async fn of_merged(kubeconfigs: &[PathBuf]) -> Result<(kube::Config, Newest), ClientError> {
    let (config, _) = usable(all_of(kubeconfigs), merged(kubeconfigs)?).await?;
    let (_, connections) = watch::channel(assemble_all(&config, &[])?);
    let newest = Newest { connections, turns: Arc::default(), requests: Arc::default(), refused: Arc::default() };
    Ok((config, newest))
}

/// What a kubeconfig with this content at `path` would say. `at`: where a file is that it names, on a host that may be a folder here.
pub(super) async fn of_content(
    content: &[u8],
    path: &Path,
    at: impl Fn(&Path) -> PathBuf,
) -> Result<(kube::Config, Fingerprint), ClientError> {
    let unusable = |source| ClientError::Kubeconfig { path: path.to_owned(), source };
    let not_text =
        |error| KubeconfigError::ReadConfig(io::Error::new(io::ErrorKind::InvalidData, error), path.to_owned());
    let text = std::str::from_utf8(content).map_err(not_text).map_err(unusable)?;
    let mut kubeconfig = Kubeconfig::from_yaml(text).map_err(unusable)?;
    let folder = state_file::folder_of(path);
    // Where they are relative, files are named from the folder of the kubeconfig.
    for file in named_files(&mut kubeconfig) {
        *file = at(&folder.join(&*file)).display().to_string();
    }
    usable(path.to_owned(), kubeconfig).await
}

fn read(path: &Path) -> Result<Kubeconfig, ClientError> {
    let unusable = |source| ClientError::Kubeconfig { path: path.to_owned(), source };
    never_waits(path).map_err(unusable)?;
    Kubeconfig::read_from(path).map_err(unusable)
}

async fn usable(path: PathBuf, mut kubeconfig: Kubeconfig) -> Result<(kube::Config, Fingerprint), ClientError> {
    let unusable = |source| ClientError::Kubeconfig { path: path.clone(), source };
    keep_current(&mut kubeconfig);
    let files = files(&path, &mut kubeconfig);
    files.iter().try_for_each(|file| never_waits(file)).map_err(unusable)?;
    let files = fingerprint(&files.into_iter().map(|file| (file, None)).collect());
    let proxy = proxy_of(&kubeconfig);
    let authority = authority_of(&path, &kubeconfig);
    read_tokens(&path, &mut kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(unusable)?;
    if config.auth_info.token.as_ref().is_some_and(|token| !is_sendable(token.expose_secret())) {
        return Err(ClientError::TokenText { path });
    }
    if let Some(exec) = &config.auth_info.exec {
        return Err(ClientError::CredentialPlugin { path, command: exec.command.clone().unwrap_or_default() });
    }
    if let Some(provider) = &config.auth_info.auth_provider {
        return Err(ClientError::AuthProvider { path, name: provider.name.clone() });
    }
    if let Some(proxy) = proxy {
        return Err(ClientError::Proxy { path, proxy });
    }
    if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err(ClientError::NoAuthority { place: authority });
    }
    Ok((config, files))
}

fn certificate_of(config: &kube::Config, access: &Access) -> Option<ClientCertificate> {
    match access {
        Access::Kubeconfig(kubeconfig) => client_certificate(config, kubeconfig),
        Access::InCluster => None,
    }
}

/// The client certificate, where the API server goes by it: not over plain HTTP, and not where a token is enough without it.
pub(super) fn client_certificate(config: &kube::Config, kubeconfig: &Path) -> Option<ClientCertificate> {
    let user = &config.auth_info;
    if config.cluster_url.scheme_str() == Some("http") || user.token.is_some() {
        return None;
    }
    let place = match (&user.client_certificate_data, &user.client_certificate) {
        (None, Some(file)) => file.clone(),
        (Some(_), _) | (None, None) => format!("in the kubeconfig {}", kubeconfig.display()),
    };
    let (begins, ends) = validity(&certificate_text(user)?)?;
    Some(ClientCertificate { place, begins, ends })
}

/// Refuses what may be waited for without end when it is opened: a FIFO, a device. That a file is not there is told by who reads it.
fn never_waits(file: &Path) -> Result<(), KubeconfigError> {
    match state_file::open(file, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(KubeconfigError::ReadConfig(error, file.to_owned()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Leaves the cluster and the user of the current context: the files of others may well be elsewhere.
fn keep_current(kubeconfig: &mut Kubeconfig) {
    let of_name = |named: &&NamedContext| Some(&named.name) == kubeconfig.current_context.as_ref();
    let Some(context) = kubeconfig.contexts.iter().find(of_name).and_then(|named| named.context.clone()) else {
        return;
    };
    kubeconfig.clusters.retain(|named| named.name == context.cluster);
    kubeconfig.auth_infos.retain(|named| Some(&named.name) == context.user.as_ref());
}

/// The kubeconfig and every file that it names.
fn files(path: &Path, kubeconfig: &mut Kubeconfig) -> Vec<PathBuf> {
    let named = named_files(kubeconfig).map(|file| PathBuf::from(&*file));
    std::iter::once(path.to_owned()).chain(named).collect()
}

fn named_files(kubeconfig: &mut Kubeconfig) -> impl Iterator<Item = &mut String> {
    let clusters = kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut());
    let users = kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut());
    let named = clusters.map(|cluster| &mut cluster.certificate_authority);
    named.chain(users.flat_map(files_of_user)).flatten()
}

fn files_of_user(user: &mut AuthInfo) -> [&mut Option<String>; 3] {
    [&mut user.client_certificate, &mut user.client_key, &mut user.token_file]
}

/// Whether a request can carry the token: RFC 6750 §2.1 has fewer characters yet. An empty one, of a file that is being replaced, would ask as
/// nobody; so would a blank, of a template.
fn is_sendable(token: &str) -> bool {
    !token.trim().is_empty() && HeaderValue::from_str(token).is_ok()
}

/// Reads the token files. A file that an editor or a shell has written ends in a newline, which no token has. Beside a token, as with kubectl,
/// the file counts where it has one: it is the one that is renewed.
fn read_tokens(path: &Path, kubeconfig: &mut Kubeconfig) -> Result<(), ClientError> {
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        let Some(file) = user.token_file.take() else { continue };
        match std::fs::read_to_string(&file) {
            Ok(token) if token.trim().is_empty() && user.token.is_some() => {}
            Ok(token) => user.token = Some(token.trim().to_owned().into()),
            Err(_) if user.token.is_some() => {}
            Err(source) => {
                return Err(ClientError::Token { path: file.into(), kubeconfig: path.to_owned(), source });
            }
        }
    }
    Ok(())
}

fn fingerprint(files: &Fingerprint) -> Fingerprint {
    let of = |file: &Path| {
        let it = std::fs::metadata(file).ok()?;
        Some((it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
    };
    files.iter().map(|(file, _)| (file.clone(), of(file))).collect()
}

/// The proxy of the cluster in use, from the file itself: kube would also take a proxy from the environment, and that one is
/// meant for the way to the internet.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<String> {
    cluster_of(kubeconfig)?.proxy_url.clone().filter(|proxy| !proxy.is_empty())
}

/// Where the certificates stand that the API server is trusted by. kube takes the data first.
fn authority_of(path: &Path, kubeconfig: &Kubeconfig) -> String {
    let cluster = cluster_of(kubeconfig).filter(|cluster| cluster.certificate_authority_data.is_none());
    match cluster.and_then(|cluster| cluster.certificate_authority.as_ref()) {
        Some(file) => format!("{file}, the certificate-authority of the kubeconfig {},", path.display()),
        None => format!("certificate-authority-data of the kubeconfig {}", path.display()),
    }
}

/// The cluster of the context in use.
fn cluster_of(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| &context.name == current)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    /// As the client hands it on.
    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Connect(#[source] io::Error);

    #[test]
    fn only_what_tls_says_of_a_certificate_is_about_the_certificate() {
        let of_tls =
            |error: rustls::Error| Connect(io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)));
        let unknown = of_tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(of_certificate(&unknown).as_deref(), Some("invalid peer certificate: UnknownIssuer"));
        let others = [
            of_tls(rustls::Error::HandshakeNotComplete),
            Connect(io::Error::other("invalid peer certificate, says a proxy")),
            Connect(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        ];
        assert_eq!(others.each_ref().map(|error| of_certificate(error)), [None, None, None]);
    }
}
