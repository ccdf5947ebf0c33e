//! An API server that misbehaves: a reverse proxy before the real one, which a test tells to close watches, to answer
//! 403, 409, 410, 429 or 500, to hold answers back, or to go away.
//!
//! It ends TLS with the API server's own certificate, so a kubeconfig for it needs a token: a client certificate does not
//! get past it. Every client connection has one connection of its own to the API server.
//!
//! | task | owner | when it is cancelled |
//! |---|---|---|
//! | the proxy's thread, with the accept loop | [`Faults`] | dropped: the listener and all connections close |
//! | one for each client connection | the runtime | the client sees its connection closed |
//! | one for each connection to the API server | the runtime | its client's requests fail with 502 |
//! | one for each watch | the runtime | the watch ends |

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::kubernetes::{Cluster, PORT};

/// Where it listens, beside the API server.
const OWN_PORT: u16 = 6444;
/// Commands to connections; a connection that lags behind so many closes, as it would by most of them.
const COMMANDS: usize = 16;
/// Parts of a watch on their way to a client that reads slowly: then the API server is made to wait.
const WATCH_PARTS: usize = 16;

type AnyBody = BoxBody<Bytes, hyper::Error>;

/// The proxy. Dropping it closes all its connections.
pub struct Faults {
    shared: Arc<Shared>,
    url: String,
    presence: mpsc::UnboundedSender<Presence>,
    thread: Option<JoinHandle<()>>,
}

/// A wish for the accept loop, answered when it has come true.
enum Presence {
    Leave(oneshot::Sender<()>),
    Return(oneshot::Sender<()>),
    End,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// End all watches as the API server ends them after some time.
    EndWatches,
    /// End all watches with an ERROR event of code 410.
    ExpireWatches,
    /// Close every connection as it is.
    Cut,
}

struct Shared {
    answers: Mutex<Vec<Planned>>,
    /// What answers are held back of.
    held: watch::Sender<Vec<String>>,
    requests: Mutex<Vec<String>>,
    orders: broadcast::Sender<Order>,
    upstream: SocketAddr,
    connector: TlsConnector,
}

/// An answer given in the API server's stead.
struct Planned {
    status: u16,
    parts: String,
    left: Arc<AtomicUsize>,
}

/// How many of the answers that a test has planned were not given yet.
pub struct Left(Arc<AtomicUsize>);

impl Left {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers are held back while this is here.
pub struct Held<'f> {
    faults: &'f Faults,
    parts: String,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.faults.shared.held.send_modify(|held| held.retain(|parts| *parts != self.parts));
    }
}

/// A request, as `GET /api/v1/services?watch=true`, has each of the words.
fn has(request: &str, parts: &str) -> bool {
    parts.split(' ').all(|part| request.contains(part))
}

impl Faults {
    /// Stands up before a cluster's API server; clients that shall suffer use a kubeconfig with its
    /// [`url`](Self::url).
    ///
    /// # Panics
    /// When it cannot listen.
    #[track_caller]
    pub fn before(cluster: &Cluster) -> Faults {
        let (acceptor, connector) = tls(cluster);
        let upstream = SocketAddr::from((cluster.host.address, PORT));
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            held: watch::channel(Vec::new()).0,
            requests: Mutex::default(),
            orders: broadcast::channel(COMMANDS).0,
            upstream,
            connector,
        });
        let (presence, wishes) = mpsc::unbounded_channel();
        let thread = cluster.host.spawn("faults", {
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
                runtime.expect("a runtime can be built").block_on(accept(shared, acceptor, wishes));
            }
        });
        let url = format!("https://{}:{OWN_PORT}", cluster.host.address);
        let faults = Faults { shared, url, presence, thread: Some(thread) };
        faults.come_back();
        faults
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers the next `times` requests whose method, path and query contain each word of `parts` with `status` (a Status object, but
    /// plain text and `Retry-After: 1` with 429, as the API server has it). Requests in progress go on. Whoever plans an answer looks
    /// afterwards whether it was given.
    #[must_use = "a fault that did not happen shows nothing"]
    pub fn answer(&self, status: u16, parts: &str, times: usize) -> Left {
        let left = Arc::new(AtomicUsize::new(times));
        self.shared.answers().push(Planned { status, parts: parts.into(), left: left.clone() });
        Left(left)
    }

    /// Holds the answers back to requests whose method, path and query contain each word of `parts`, and what watches of that kind tell,
    /// until the handle is dropped.
    #[must_use = "it holds while the handle is here"]
    pub fn hold(&self, parts: &str) -> Held<'_> {
        self.shared.held.send_modify(|held| held.push(parts.to_owned()));
        Held { faults: self, parts: parts.to_owned() }
    }

    /// Forgets the answers that are left of [`answer`](Self::answer).
    pub fn behave(&self) {
        self.shared.answers().clear();
    }

    /// Ends all watches now, cleanly, as the API server does after some time.
    pub fn close_watches(&self) {
        self.order(Order::EndWatches);
    }

    /// Sends `{"type":"ERROR"}` with a Status of code 410 into all watches and ends them: what they asked for is too old.
    pub fn expire_watches(&self) {
        self.order(Order::ExpireWatches);
    }

    /// Closes all connections as they are, also in the middle of an answer.
    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    /// Closes all connections and refuses new ones until [`come_back`](Self::come_back).
    pub fn go_away(&self) {
        self.wish(Presence::Leave);
        self.cut();
    }

    /// Listens again.
    pub fn come_back(&self) {
        self.wish(Presence::Return);
    }

    /// Everything that was asked so far, as `GET /api/v1/services?watch=true`.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests().clone()
    }

    fn order(&self, order: Order) {
        // Fails only if nobody is connected.
        let _ = self.shared.orders.send(order);
    }

    #[track_caller]
    fn wish(&self, wish: impl FnOnce(oneshot::Sender<()>) -> Presence) {
        let (done, is_done) = oneshot::channel();
        let sent = self.presence.send(wish(done));
        assert!(sent.is_ok() && is_done.blocking_recv().is_ok(), "the proxy has ended; see the panic of its thread");
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.presence.send(Presence::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answers(&self) -> MutexGuard<'_, Vec<Planned>> {
        self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn requests(&self) -> MutexGuard<'_, Vec<String>> {
        self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The planned answer for a path, used up once.
    fn planned(&self, request: &str) -> Option<u16> {
        let answers = self.answers();
        let left = |planned: &&Planned| planned.left.load(Ordering::Relaxed) > 0 && has(request, &planned.parts);
        let planned = answers.iter().find(left)?;
        // Whoever counts down has the lock.
        planned.left.fetch_sub(1, Ordering::Relaxed);
        Some(planned.status)
    }

    /// Waits until answers to this request are not held back.
    async fn is_free(&self, request: &str) {
        // It fails only if the proxy ends.
        let _ = self.held.subscribe().wait_for(|held| !held.iter().any(|parts| has(request, parts))).await;
    }
}

async fn accept(shared: Arc<Shared>, acceptor: TlsAcceptor, mut wishes: mpsc::UnboundedReceiver<Presence>) {
    let mut listener: Option<TcpListener> = None;
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wish = wishes.recv() => match wish {
                Some(Presence::Leave(done)) => {
                    listener = None;
                    let _ = done.send(());
                }
                Some(Presence::Return(done)) => {
                    let opened = TcpListener::bind((Ipv4Addr::UNSPECIFIED, OWN_PORT)).await;
                    listener = Some(opened.expect("its port is free in its namespace"));
                    let _ = done.send(());
                }
                Some(Presence::End) | None => return,
            },
            accepted = accepted => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(shared.clone(), acceptor.clone(), stream));
                }
            }
        }
    }
}

/// One client connection, until it ends or an order cuts it.
async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    let mut orders = shared.orders.subscribe();
    let upstream = Arc::new(tokio::sync::Mutex::new(None));
    let service = service_fn(|request| {
        let (shared, upstream) = (shared.clone(), upstream.clone());
        async move { Ok::<_, Infallible>(answer(&shared, &upstream, request).await) }
    });
    let served = async {
        let _ = stream.set_nodelay(true);
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    };
    let cut = async { while let Ok(Order::EndWatches | Order::ExpireWatches) = orders.recv().await {} };
    tokio::select! {
        () = served => {}
        () = cut => {}
    }
}

type Upstream = tokio::sync::Mutex<Option<SendRequest<Incoming>>>;

async fn answer(shared: &Arc<Shared>, upstream: &Upstream, request: Request<Incoming>) -> Response<AnyBody> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let line = format!("{} {path}", request.method());
    shared.requests().push(line.clone());
    if let Some(status) = shared.planned(&line) {
        return refusal(status);
    }
    // Subscribed before the request is passed on: no order falls between.
    let orders = shared.orders.subscribe();
    let Ok(response) = pass_on(shared, upstream, request).await else { return refusal(502) };
    shared.is_free(&line).await;
    let is_watch = path.contains("watch=true") || path.contains("watch=1");
    if is_watch && response.status() == StatusCode::OK {
        response.map(|body| pass_watch(body, orders, shared.clone(), line))
    } else {
        response.map(BodyExt::boxed)
    }
}

async fn pass_on(
    shared: &Shared,
    upstream: &Upstream,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let mut upstream = upstream.lock().await;
    let is_usable = match upstream.as_mut() {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !is_usable {
        let stream = TcpStream::connect(shared.upstream).await?;
        stream.set_nodelay(true)?;
        let stream = shared.connector.connect(ServerName::from(shared.upstream.ip()), stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *upstream = Some(sender);
    }
    let sender = upstream.as_mut().ok_or("it was connected above")?;
    Ok(sender.send_request(request).await?)
}

/// A watch's body, passed on until it ends by itself or by an order.
fn pass_watch(
    mut body: Incoming,
    mut orders: broadcast::Receiver<Order>,
    shared: Arc<Shared>,
    request: String,
) -> AnyBody {
    let (parts, piped) = mpsc::channel(WATCH_PARTS);
    tokio::spawn(async move {
        // The client sees whole lines only, so that an event can be put between two.
        let mut is_at_line_end = true;
        loop {
            tokio::select! {
                part = body.frame() => {
                    let Some(part) = part else { return };
                    if let Ok(Some(data)) = part.as_ref().map(Frame::data_ref) && !data.is_empty() {
                        is_at_line_end = data.ends_with(b"\n");
                    }
                    shared.is_free(&request).await;
                    if parts.send(part).await.is_err() {
                        return;
                    }
                }
                order = orders.recv(), if is_at_line_end => match order {
                    Ok(Order::ExpireWatches) => {
                        let event = json!({ "type": "ERROR", "object": status(410) });
                        let _ = parts.send(Ok(Frame::data(format!("{event}\n").into()))).await;
                        return;
                    }
                    // A cut is its connection's to obey.
                    Ok(Order::EndWatches | Order::Cut) | Err(_) => return,
                },
                // The client has gone.
                () = parts.closed() => return,
            }
        }
    });
    Piped(piped).boxed()
}

struct Piped(mpsc::Receiver<Result<Frame<Bytes>, hyper::Error>>);

impl Body for Piped {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(context)
    }
}

fn refusal(code: u16) -> Response<AnyBody> {
    // The API server's priority and fairness answers in plain text, before anything knows of Status objects.
    let is_busy = code == 429;
    let text = if is_busy { "Too many requests, please try again later.\n".into() } else { status(code).to_string() };
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let content_type = if is_busy { "text/plain; charset=utf-8" } else { "application/json" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_busy {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A Status object as the API server gives with that code.
fn status(code: u16) -> Value {
    let (reason, message) = match code {
        400 => ("BadRequest", "the rack's faults take no such request"),
        403 => ("Forbidden", "the rack's faults forbid this"),
        404 => ("NotFound", "the rack's faults hide this"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version: 1 (2)"),
        422 => ("Invalid", "the rack's faults find this invalid"),
        502 => ("InternalError", "the rack's faults could not reach the API server"),
        _ => ("InternalError", "an error that the rack's faults were told to give"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// Both ends' TLS, with the certificates of the cluster.
#[track_caller]
fn tls(cluster: &Cluster) -> (TlsAcceptor, TlsConnector) {
    const OURS: &str = "the rack wrote its certificates itself";
    let file = |name: &str| cluster.folder().join(name);
    let provider = Arc::new(ring::default_provider());
    let certificates = CertificateDer::pem_file_iter(file("server.pem")).expect(OURS).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect(OURS);
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let server = server.expect(OURS).with_no_client_auth().with_single_cert(certificates.expect(OURS), key);
    let mut server = server.expect(OURS);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect(OURS)).expect(OURS);
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut client = client.expect(OURS).with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}
