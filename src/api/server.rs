//! The doors of the running agent: a Unix socket for the commands, TCP for metrics and health. Floor 4.
//!
//! Tasks: one that accepts, owned by the caller, and one for each connection, owned by the one that accepts. A connection ends
//! with its client, its time limit or its owner. If it is cancelled in the middle of an answer, the client sees it closed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::readings::{self, Answer, ORDERS, ROWS};
use crate::agent::order::{Order, Refusal, Wish};
use crate::agent::wiring::Query;
use crate::k8s::annotate::Annotation;
use crate::k8s::annotation::Annotate;
use crate::state_file;
use crate::views::Snapshot;

/// A connection that has asked nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// How many may be connected at once through each door. One that comes then takes the place of the oldest that asks nothing; only
/// where all of them are being answered, it waits in that door's queue in the kernel. Whoever fills the port keeps nobody from
/// the socket.
const CONNECTIONS: usize = 32;

/// How often it is looked whether one of them has its answer.
const LOOK_FOR_PLACE: Duration = Duration::from_millis(50);

/// The longest body of a request, in octets: the files of a configuration.
const LONGEST_BODY: usize = 8 << 20;

/// How long the body of a request may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is this old gets the answer that is under way, for [`IDLE`] at most, and is closed. So one that reads
/// no answer does not keep its place for ever.
const LIFE: Duration = Duration::from_secs(60);

/// The socket or port could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another agent answers on {}; stop it first, or give this one another [api] socket", .0.display())]
    AlreadyRunning(PathBuf),
    #[error("{} exists and is not a socket; move it away, or set another [api] socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot open the socket {}: {source}", .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address} ([api] listen): {source}")]
    Listen { address: SocketAddr, source: io::Error },
}

/// The open doors. Dropping them removes the socket file.
pub struct Doors {
    unix: UnixListener,
    socket: PathBuf,
    tcp: Option<TcpListener>,
    /// The user that the agent runs as: besides root, whom orders are taken from.
    owner: u32,
}

impl Drop for Doors {
    fn drop(&mut self) {
        // A file that is gone already needs no removal.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Opens the Unix socket, for root and the socket's group, and the TCP port if one is configured.
pub async fn open(socket: &Path, listen: Option<SocketAddr>) -> Result<Doors, OpenError> {
    let failed = |source| OpenError::Socket { path: socket.to_owned(), source };
    if let Ok(known) = std::fs::symlink_metadata(socket) {
        if !known.file_type().is_socket() {
            return Err(OpenError::NotASocket(socket.to_owned()));
        }
        if UnixStream::connect(socket).await.is_ok() {
            return Err(OpenError::AlreadyRunning(socket.to_owned()));
        }
        std::fs::remove_file(socket).map_err(failed)?;
    }
    std::fs::create_dir_all(state_file::folder_of(socket)).map_err(failed)?;
    let tcp = match listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|source| OpenError::Listen { address, source })?)
        }
        None => None,
    };
    let unix = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    let owner = std::fs::symlink_metadata(socket).map_err(failed)?.uid();
    Ok(Doors { unix, socket: socket.to_owned(), tcp, owner })
}

impl Doors {
    /// Answers until it is cancelled.
    pub async fn serve(
        self,
        queries: mpsc::Sender<Query>,
        orders: mpsc::Sender<Order>,
        annotations: mpsc::Sender<Annotation>,
    ) {
        let (mut local, mut remote) = (Places::default(), Places::default());
        loop {
            let accept_tcp = async {
                match &self.tcp {
                    Some(tcp) => tcp.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.unix.accept(), if local.has_one() => match accepted {
                    Ok((stream, _)) => {
                        // Who cannot be asked for is nobody who may order anything.
                        let may_order = stream.peer_cred().is_ok_and(|who| [0, self.owner].contains(&who.uid()));
                        let orders = may_order.then(|| Orders { agent: orders.clone(), annotations: annotations.clone() });
                        local.take(|busy| answer(stream, Agent { queries: queries.clone(), orders }, Door::Unix, busy));
                    }
                    Err(error) => pause_after(error).await,
                },
                accepted = accept_tcp, if remote.has_one() => match accepted {
                    Ok((stream, _)) => {
                        let agent = Agent { queries: queries.clone(), orders: None };
                        remote.take(|busy| answer(stream, agent, Door::Tcp, busy));
                    }
                    Err(error) => pause_after(error).await,
                },
                Some(_) = local.tasks.join_next() => {}
                Some(_) = remote.tasks.join_next() => {}
                () = sleep(LOOK_FOR_PLACE), if !local.has_one() || !remote.has_one() => {}
            }
        }
    }
}

/// The connections of one door, the oldest first, each with whether it is being answered.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Arc<AtomicBool>)>,
}

impl Places {
    fn has_one(&self) -> bool {
        self.tasks.len() < CONNECTIONS || self.open.iter().any(|(_, busy)| !busy.load(Ordering::Relaxed))
    }

    fn take<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(Arc<AtomicBool>) -> F) {
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= CONNECTIONS
            && let Some(oldest) = self.open.iter().position(|(_, busy)| !busy.load(Ordering::Relaxed))
            && let Some((task, _)) = self.open.remove(oldest)
        {
            task.abort();
        }
        let busy = Arc::new(AtomicBool::new(false));
        self.open.push_back((self.tasks.spawn(task(Arc::clone(&busy))), busy));
    }
}

/// Says that a connection is being answered, for as long as it lives. One whose request is still on its way is not: whoever sends
/// slowly keeps nobody out.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn with(busy: &Arc<AtomicBool>) -> Busy {
        busy.store(true, Ordering::Relaxed);
        Busy(Arc::clone(busy))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Accepting fails when file descriptors run out; trying again at once would only burn CPU time.
async fn pause_after(error: io::Error) {
    tracing::warn!(%error, "a connection to the local API was not accepted");
    sleep(Duration::from_millis(100)).await;
}

/// The ends to the agent that one connection has.
#[derive(Clone)]
struct Agent {
    queries: mpsc::Sender<Query>,
    /// `None` for a client that may only read.
    orders: Option<Orders>,
}

/// Where orders go: to the agent, or by it to the API server.
#[derive(Clone)]
struct Orders {
    agent: mpsc::Sender<Order>,
    annotations: mpsc::Sender<Annotation>,
}

#[derive(Debug, Clone, Copy)]
enum Door {
    /// Root and the group of the socket: all that can be read; orders from root alone.
    Unix,
    /// Anybody who reaches the port: health and metrics.
    Tcp,
}

impl Door {
    fn serves(self, doors: readings::Doors) -> bool {
        match (self, doors) {
            (Door::Unix, readings::Doors::Unix | readings::Doors::Both) | (Door::Tcp, readings::Doors::Both) => true,
            (Door::Tcp, readings::Doors::Unix) => false,
        }
    }
}

async fn answer<S>(stream: S, agent: Agent, door: Door, busy: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let (agent, busy) = (agent.clone(), busy.clone());
        async move { Ok::<_, Infallible>(route(request, &agent, door, &busy).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(32)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = sleep(LIFE) => {
            connection.as_mut().graceful_shutdown();
            timeout(IDLE, connection).await.ok()
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection to the local API ended early"),
        None => tracing::debug!("a connection to the local API was closed: its client did not read the answer"),
    }
}

/// Answers from a snapshot of the agent, on a thread of its own, because a view of many Services takes time.
async fn route(request: Request<Incoming>, agent: &Agent, door: Door, busy: &Arc<AtomicBool>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path == ORDERS && matches!(door, Door::Unix) {
        return match head.method {
            Method::POST => order(body, agent.orders.as_ref().map(|orders| &orders.agent), busy).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, format!("only POST is answered at {path}\n")),
        };
    }
    let Some(row) = ROWS.into_iter().find(|row| row.path() == path && door.serves(row.doors())) else {
        return text(StatusCode::NOT_FOUND, format!("there is nothing at {path}\n"));
    };
    let method = if row.takes_body() { Method::POST } else { Method::GET };
    // RFC 9110 §9.1: whoever answers GET answers HEAD. The server leaves the body out.
    let is_head = method == Method::GET && head.method == Method::HEAD;
    if head.method != method && !is_head {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method} is answered at {path}\n"));
        let allowed = if row.takes_body() { "POST" } else { "GET, HEAD" };
        refused.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(allowed));
        return refused;
    }
    let body = match row.takes_body() {
        true => match read_body(body).await {
            Ok(body) => body,
            Err(refused) => return refused,
        },
        false => Bytes::new(),
    };
    let _answered = Busy::with(busy);
    let view = match row.read(head.uri.query(), &body) {
        Ok(view) => view,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let Some(snapshot) = snapshot(&agent.queries).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n");
    };
    match tokio::task::spawn_blocking(move || view(&snapshot)).await {
        Ok(Answer::Json(body)) => json(body),
        Ok(Answer::Text(content_type, body)) => typed(content_type, body),
        Ok(Answer::Order(annotate, body)) => match &agent.orders {
            None => text(StatusCode::FORBIDDEN, NOT_ROOT),
            Some(orders) => match write(&orders.annotations, annotate).await {
                Ok(()) => json(body),
                Err(why) => text(StatusCode::BAD_GATEWAY, format!("{why}\n")),
            },
        },
        Ok(Answer::NotThere(why)) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
        Ok(Answer::NotUnderstood(why)) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        Ok(Answer::Broken(why)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Response<Full<Bytes>>> {
    match timeout(BODY_TIMEOUT, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}\n"))),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")),
    }
}

const NOT_ROOT: &str = "only root may change a running agent\n";

/// Hands an order to the agent, and answers what became of it.
async fn order(body: Incoming, orders: Option<&mpsc::Sender<Order>>, busy: &Arc<AtomicBool>) -> Response<Full<Bytes>> {
    let Some(orders) = orders else { return text(StatusCode::FORBIDDEN, NOT_ROOT) };
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let _answered = Busy::with(busy);
    let wish: Wish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("the order cannot be read: {error}\n")),
    };
    let (answer, outcome) = oneshot::channel();
    let sent = orders.send(Order { wish, answer }).await.is_ok();
    match (sent, outcome.await) {
        (true, Ok(Ok(done))) => match serde_json::to_vec(&done) {
            Ok(done) => json(done.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        (true, Ok(Err(refusal))) => text(status_of(&refusal), format!("{refusal}\n")),
        (false, _) | (true, Err(_)) => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n"),
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Load(_)
        | Refusal::NeedsRestart(_)
        | Refusal::Unsettled
        | Refusal::NothingToConfirm
        | Refusal::DrainTime(_)
        | Refusal::ConfirmTime(_) => StatusCode::BAD_REQUEST,
        Refusal::LastNode(_) | Refusal::NothingDone(_) => StatusCode::CONFLICT,
        Refusal::NoSuchPeer { .. } => StatusCode::NOT_FOUND,
        Refusal::Write { .. } | Refusal::PutBack { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn snapshot(queries: &mpsc::Sender<Query>) -> Option<Snapshot> {
    let (asked, answer) = oneshot::channel();
    queries.send(Query(asked)).await.ok()?;
    answer.await.ok()
}

/// Has it done, or says why it is not. The one who does it has a time limit.
async fn write(annotations: &mpsc::Sender<Annotation>, annotate: Annotate) -> Result<(), String> {
    let (answer, outcome) = oneshot::channel();
    let stopping = || "the agent is stopping".to_owned();
    annotations.send(Annotation { annotate, answer }).await.map_err(|_| stopping())?;
    outcome.await.unwrap_or_else(|_| Err(stopping()))
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    typed("application/json", body)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = typed(readings::PLAIN, body.into());
    *response.status_mut() = status;
    response
}

fn typed(content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Asks for something that is not there, which needs no agent behind; the first line of the answer.
    async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: crier\r\n\r\n").await.unwrap();
        let mut octets = [0; 1024];
        let count = stream.read(&mut octets).await.unwrap();
        String::from_utf8_lossy(&octets[..count]).lines().next().unwrap_or_default().to_owned()
    }

    /// Doors, their port, and who serves them. Nobody is behind them.
    async fn doors(folder: &Path) -> (PathBuf, SocketAddr, tokio::task::JoinHandle<()>) {
        let socket = folder.join("crier.sock");
        let doors = open(&socket, Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let port = doors.tcp.as_ref().unwrap().local_addr().unwrap();
        let (queries, mut asked) = mpsc::channel(1);
        let (orders, _nobody_takes) = mpsc::channel(1);
        let (annotations, _nobody_writes) = mpsc::channel(1);
        let serving = tokio::spawn(async move {
            tokio::select! {
                () = doors.serve(queries, orders, annotations) => {}
                // The agent takes every question and answers none.
                () = async { let mut all = Vec::new(); while let Some(query) = asked.recv().await { all.push(query) } } => {}
            }
        });
        (socket, port, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_ask_nothing_make_room_at_once_at_either_door() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, port, serving) = doors(folder.path()).await;
        let (mut idle, mut idle_local) = (Vec::new(), Vec::new());
        for _ in 0..4 * CONNECTIONS {
            let mut stream = TcpStream::connect(port).await.unwrap();
            stream.write_all(b"GET /heal").await.unwrap();
            idle.push(stream);
            idle_local.push(UnixStream::connect(&socket).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        let mut probe = TcpStream::connect(port).await.unwrap();
        assert_eq!(ask(&mut probe).await, "HTTP/1.1 404 Not Found", "the port answers");
        let mut command = UnixStream::connect(&socket).await.unwrap();
        assert_eq!(ask(&mut command).await, "HTTP/1.1 404 Not Found", "the socket answers");
        assert!(began.elapsed() < IDLE / 2, "after {:?}", began.elapsed());
        assert_eq!(idle[0].read(&mut [0; 16]).await.unwrap_or(0), 0, "the oldest had to go");
        assert_eq!(ask(&mut probe).await, "HTTP/1.1 404 Not Found", "the newest stays");
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_come_slowly_keep_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, _, serving) = doors(folder.path()).await;
        let mut slow = Vec::new();
        for _ in 0..4 * CONNECTIONS {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            stream.write_all(b"POST /v1/plan HTTP/1.1\r\nhost: crier\r\ncontent-length: 100\r\n\r\n[").await.unwrap();
            slow.push(stream);
        }
        let began = tokio::time::Instant::now();
        let mut command = UnixStream::connect(&socket).await.unwrap();
        assert_eq!(ask(&mut command).await, "HTTP/1.1 404 Not Found", "the socket answers");
        assert!(began.elapsed() < BODY_TIMEOUT / 2, "after {:?}", began.elapsed());
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_its_answer_makes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let (_, port, serving) = doors(folder.path()).await;
        let mut asking = TcpStream::connect(port).await.unwrap();
        asking.write_all(b"GET /metrics HTTP/1.1\r\nhost: crier\r\n\r\n").await.unwrap();
        sleep(Duration::from_millis(1)).await;
        let mut others = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            others.push(TcpStream::connect(port).await.unwrap());
        }
        let closed = timeout(Duration::from_secs(1), asking.read(&mut [0; 16])).await;
        assert!(closed.is_err(), "it was closed: {closed:?}");
        assert_eq!(others[0].read(&mut [0; 16]).await.unwrap_or(0), 0, "one that asks nothing went");
        serving.abort();
    }

    #[tokio::test]
    async fn an_answer_says_its_format_and_head_is_answered_like_get_without_the_body() {
        let folder = tempfile::tempdir().unwrap();
        let doors = open(&folder.path().join("crier.sock"), None).await.unwrap();
        let socket = doors.socket.clone();
        let (queries, _held) = mpsc::channel(1);
        let (orders, _nobody_takes) = mpsc::channel(1);
        let (annotations, _nobody_writes) = mpsc::channel(1);
        let serving = tokio::spawn(doors.serve(queries, orders, annotations));
        for (request, wanted) in
            [("HEAD /nothing", "HTTP/1.1 404"), ("POST /healthz", "HTTP/1.1 405"), ("DELETE /metrics", "HTTP/1.1 405")]
        {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            let text = format!("{request} HTTP/1.1\r\nhost: crier\r\nconnection: close\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(wanted), "{request}: {answer}");
            assert!(answer.contains("content-type: text/plain; charset=utf-8"), "{request}: {answer}");
            assert_eq!(answer.ends_with("\r\n\r\n"), request.starts_with("HEAD"), "{request}: {answer}");
            assert_eq!(answer.contains("allow: GET, HEAD"), wanted.ends_with("405"), "{request}: {answer}");
        }
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_to_the_port_keep_nobody_from_the_socket_and_are_closed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("crier.sock");
        let doors = open(&socket, Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let port = doors.tcp.as_ref().unwrap().local_addr().unwrap();
        let (queries, _nobody_answers) = mpsc::channel(1);
        let (orders, _nobody_takes) = mpsc::channel(1);
        let (annotations, _nobody_writes) = mpsc::channel(1);
        let serving = tokio::spawn(doors.serve(queries, orders, annotations));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(TcpStream::connect(port).await.unwrap());
        }
        // Each has asked once and stays, as clients that keep connections alive do.
        for stream in &mut idle {
            assert_eq!(ask(stream).await, "HTTP/1.1 404 Not Found");
        }
        let mut command = UnixStream::connect(&socket).await.unwrap();
        assert_eq!(ask(&mut command).await, "HTTP/1.1 404 Not Found", "the socket answers beside a full port");
        // The paused clock moves on once nobody has anything to do.
        let mut octets = [0; 16];
        assert_eq!(idle[0].read(&mut octets).await.unwrap(), 0, "it was closed");
        let mut next = TcpStream::connect(port).await.unwrap();
        assert_eq!(ask(&mut next).await, "HTTP/1.1 404 Not Found", "whoever waited has a place then");
        serving.abort();
    }
}
