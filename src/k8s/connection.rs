//! The way to one API server: names, TLS and HTTP. Floor 2.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::AuthInfo;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tracing::warn;

use super::certificate;
use super::client_error::ClientError;
use super::of_base64;

/// How long one address of the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A dead connection is noticed this long plus [`PING_TIMEOUT`] after the last octet from it: by HTTP/2 pings if the API
/// server hangs, by TCP if its host is gone.
const PING_INTERVAL: Duration = Duration::from_secs(5);

const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Octets of one answer that may be in flight unread. A page of a list should fit, so that it arrives without a pause.
const STREAM_WINDOW: u32 = 1 << 20;

const CONNECTION_WINDOW: u32 = 4 << 20;

/// A client in one state of the files.
pub(super) type Connection = BoxCloneSyncService<Request<Body>, Response<Answer>, BoxError>;

/// The body of an answer.
pub(super) type Answer = Either<Incoming, Full<Bytes>>;

/// The client certificate in PEM. Around it may stand text in any encoding, as names are in what PKCS#12 is unpacked to.
pub(super) fn certificate_text(user: &AuthInfo) -> Option<String> {
    // kube takes the data first, too.
    let octets = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => of_base64(data)?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// The way to each of the API servers: the one of the configuration in front.
pub(super) fn assemble_all(config: &kube::Config, servers: &[String]) -> Result<Arc<[Connection]>, ClientError> {
    let of_server = |server: &String| {
        let mut config = config.clone();
        config.cluster_url = server.parse().map_err(|_| ClientError::Server { server: server.clone() })?;
        Ok(config)
    };
    let further = servers.iter().map(of_server).collect::<Result<Vec<_>, ClientError>>()?;
    std::iter::once(config).chain(&further).map(assemble).collect()
}

/// The server as a URL. One without a scheme is asked over TLS; kube ends the process at such a one.
fn server_url(server: &Uri) -> Result<Uri, ClientError> {
    let refused = || ClientError::Server { server: server.to_string() };
    let host = server.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
    match server.scheme_str() {
        Some("http" | "https") => Ok(server.clone()),
        Some(_) => Err(refused()),
        None => {
            let port = server.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("https://{host}{port}/").parse().map_err(|_| refused())
        }
    }
}

/// Everything between a request and the wire.
fn assemble(config: &kube::Config) -> Result<Connection, ClientError> {
    let mut config = config.clone();
    config.cluster_url = server_url(&config.cluster_url)?;
    if config.root_cert.as_ref().is_some_and(Vec::is_empty) {
        return Err(ClientError::NoAuthority { place: "the authority of the API server".to_owned() });
    }
    config.headers.push((USER_AGENT, HeaderValue::from_static(concat!("crier/", env!("CARGO_PKG_VERSION")))));
    if config.cluster_url.scheme_str() == Some("http") {
        warn!(url = %config.cluster_url, "the API server is used over plain HTTP; credentials and answers can be read on the way");
    }
    if config.accept_invalid_certs {
        warn!(
            url = %config.cluster_url,
            "the certificate of the API server is not checked (insecure-skip-tls-verify of the kubeconfig): whoever answers there \
             gets the credentials"
        );
    }
    let is_version_1 = || certificate_text(&config.auth_info).is_some_and(|pem| certificate::is_version_1(&pem));
    let tls = config.rustls_client_config().map_err(|error| match is_version_1() {
        true => ClientError::CertificateVersion,
        false => ClientError::Credentials(error),
    })?;
    let mut https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let server = name.clone().try_into().map_err(|_| ClientError::ServerName { name: name.clone() })?;
        https = https.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(server));
    }
    // HTTP/2 where the API server offers it: all watches and writes of an agent share one connection.
    let connector = https.enable_all_versions().wrap_connector(tcp());
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(ClientError::Credentials)?)
        .layer(config.extra_headers_layer().map_err(ClientError::Credentials)?)
        .service(http.map_err(BoxError::from).map_response(with_retry_after_in_body));
    Ok(Connection::new(service))
}

/// When the API server is overloaded, it refuses requests in plain text, with the delay before a retry in a header. kube reads
/// the delay only from the body of a Status object, so the answer is turned into one.
fn with_retry_after_in_body(response: Response<Incoming>) -> Response<Either<Incoming, Full<Bytes>>> {
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/json"));
    // RFC 9110 §10.2.3 also allows a date, which the API server never sends.
    let seconds = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse::<u32>().ok());
    let Some(seconds) = seconds.filter(|_| response.status().as_u16() >= 400 && !is_json) else {
        return response.map(Either::Left);
    };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": response.status().as_u16(),
        "message": format!("{}; retry after {seconds} s", response.status().canonical_reason().unwrap_or("refused")),
        "details": { "retryAfterSeconds": seconds },
    });
    response.map(|_| Either::Right(Full::from(status.to_string())))
}

fn tcp() -> HttpConnector<Names> {
    let mut tcp = HttpConnector::new_with_resolver(Names);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(PING_INTERVAL));
    tcp.set_keepalive_interval(Some(PING_TIMEOUT));
    tcp.set_keepalive_retries(Some(1));
    tcp.set_tcp_user_timeout(Some(PING_INTERVAL + PING_TIMEOUT));
    tcp
}

/// Resolves host names by /etc/hosts and the name servers of /etc/resolv.conf. Both files are read anew for each connection:
/// connections are rare, and the name servers may change while the agent runs.
#[derive(Clone)]
struct Names;

impl tower::Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = NetError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NetError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let addresses = resolve(name.as_str()).await?;
            // The connector puts the port of the URL in the place of 0.
            Ok(addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect::<Vec<_>>().into_iter())
        })
    }
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, NetError> {
    let resolver = TokioResolver::builder_tokio().or_else(|_: NetError| {
        // Without name servers, /etc/hosts still works.
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        Ok::<_, Infallible>(TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default()))
    });
    let Ok(resolver) = resolver;
    Ok(resolver.build()?.lookup_ip(host).await?.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_resolved_inside_the_process() {
        let addresses = resolve("localhost").await.expect("every host knows localhost");
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(), "{addresses:?}");
    }
}
