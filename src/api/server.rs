//! The doors of the running agent: a Unix socket for the commands, TCP for metrics and health. Floor 4.
//!
//! Tasks: one that accepts, owned by the caller, and one for each connection, owned by the one that accepts. A connection ends
//! with its client, its time limit or its owner. If it is cancelled in the middle of an answer, the client sees it closed.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
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
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::readings::{self, Answer, ROWS};
use crate::agent::wiring::Query;
use crate::views::Snapshot;

/// A connection that has asked nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);

/// How many may be connected at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;

/// The longest body of a request, in octets: the files of a configuration.
const LONGEST_BODY: usize = 8 << 20;

/// How long the body of a request may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The socket or port could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another crier answers on {}; stop it first, or give this one another [api] socket", .0.display())]
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
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let tcp = match listen {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|source| OpenError::Listen { address, source })?)
        }
        None => None,
    };
    let unix = UnixListener::bind(socket).map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(Doors { unix, socket: socket.to_owned(), tcp })
}

impl Doors {
    /// Answers until it is cancelled.
    pub async fn serve(self, queries: mpsc::Sender<Query>) {
        let mut connections = JoinSet::new();
        loop {
            let accept_tcp = async {
                match &self.tcp {
                    Some(tcp) => tcp.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                accepted = self.unix.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => { connections.spawn(answer(stream, queries.clone(), Door::Unix)); }
                    Err(error) => pause_after(error).await,
                },
                accepted = accept_tcp, if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => { connections.spawn(answer(stream, queries.clone(), Door::Tcp)); }
                    Err(error) => pause_after(error).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Accepting fails when file descriptors run out; trying again at once would only burn CPU time.
async fn pause_after(error: io::Error) {
    tracing::warn!(%error, "a connection to the local API was not accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[derive(Debug, Clone, Copy)]
enum Door {
    /// Root and the group of the socket: everything.
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

async fn answer<S>(stream: S, queries: mpsc::Sender<Query>, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let queries = queries.clone();
        async move { Ok::<_, Infallible>(route(request, &queries, door).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(32)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}

/// Answers from a snapshot of the agent, on a thread of its own, because a view of many Services takes time.
async fn route(request: Request<Incoming>, queries: &mpsc::Sender<Query>, door: Door) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some(row) = ROWS.into_iter().find(|row| row.path() == path && door.serves(row.doors())) else {
        return text(StatusCode::NOT_FOUND, format!("there is nothing at {path}\n"));
    };
    let method = if row.takes_body() { Method::POST } else { Method::GET };
    if head.method != method {
        return text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method} is answered at {path}\n"));
    }
    let body = match row.takes_body() {
        true => match timeout(BODY_TIMEOUT, Limited::new(body, LONGEST_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}\n")),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
        },
        false => Bytes::new(),
    };
    let view = match row.read(head.uri.query(), &body) {
        Ok(view) => view,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let Some(snapshot) = snapshot(queries).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n");
    };
    match tokio::task::spawn_blocking(move || view(&snapshot)).await {
        Ok(Answer::Json(body)) => json(body),
        Ok(Answer::Text(body)) => text(StatusCode::OK, body),
        Ok(Answer::NotThere(why)) => text(StatusCode::NOT_FOUND, format!("{why}\n")),
        Ok(Answer::Broken(why)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

async fn snapshot(queries: &mpsc::Sender<Query>) -> Option<Snapshot> {
    let (asked, answer) = oneshot::channel();
    queries.send(Query(asked)).await.ok()?;
    answer.await.ok()
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    let content_type = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.into()));
    *response.status_mut() = status;
    response
}
