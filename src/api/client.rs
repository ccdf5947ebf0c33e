//! How a command asks the running agent. Floor 4.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::filter::Filter;
use super::readings::{Act, ORDERS, Reading, Trial, Tried};
use crate::agent::order::{Done, Wish};
use crate::views::SCHEMA_VERSION;

/// How long an agent may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an agent may take to judge a whole cluster by another configuration, or to carry out an order.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the API server and the agent together may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(15);

/// How soon it is tried again to connect to an agent that has too many clients.
const CONNECT_AGAIN: Duration = Duration::from_millis(50);

/// An answer longer than this is not from crier.
const LONGEST_ANSWER: usize = 256 << 20;

/// Why the agent gave no answer that can be shown.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("cannot start: {0}")]
    CannotStart(io::Error),
    #[error("no agent answers on {}: {source}; is crier running? (systemctl status crier)", .socket.display())]
    NotReachable { socket: PathBuf, source: io::Error },
    /// The agent may well run: nothing is known of it.
    #[error(
        "this user may not use the agent's socket {}: {source}; use sudo, or join the group of the socket (it serves root and that group)",
        .socket.display()
    )]
    NotPermitted { socket: PathBuf, source: io::Error },
    #[error("the agent on {} did not answer within {seconds} s", .socket.display())]
    TimedOut { socket: PathBuf, seconds: u64 },
    #[error("the connection to the agent on {} broke: {source}", .socket.display())]
    Broken { socket: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0}")]
    NotThere(String),
    /// The agent cannot read what it was asked, a configuration for example.
    #[error("{0}")]
    NotUnderstood(String),
    /// The agent can, and does not.
    #[error("{0}")]
    Declined(String),
    #[error("the agent answered {status}: {body}")]
    Refused { status: http::StatusCode, body: String },
    #[error(
        "the agent answers in schema {theirs}, and this command reads schema {SCHEMA_VERSION}; use the crier binary of the agent"
    )]
    OtherSchema { theirs: u32 },
    #[error("the agent's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Asks for the part of a reading that `filter` selects.
pub async fn ask<F: Filter, R: DeserializeOwned>(
    socket: &Path,
    reading: &Reading<F, R>,
    filter: &F,
) -> Result<R, AskError> {
    let request = Request::get(reading.request(filter)).body(Full::default());
    answer(socket, request, ANSWER_TIMEOUT).await
}

/// Asks what a configuration would mean.
pub async fn try_files<R: DeserializeOwned>(socket: &Path, trial: &Trial<R>, tried: &Tried) -> Result<R, AskError> {
    let request = Request::post(trial.path).body(Full::from(serde_json::to_vec(tried)?));
    answer(socket, request, TRIAL_TIMEOUT).await
}

/// Gives an order, and waits until it is carried out or refused.
pub async fn order(socket: &Path, wish: &Wish) -> Result<Done, AskError> {
    let request = Request::post(ORDERS).body(Full::from(serde_json::to_vec(wish)?));
    answer(socket, request, TRIAL_TIMEOUT).await
}

/// Orders something, and waits until it is done.
pub async fn act<B: Serialize, R: DeserializeOwned>(socket: &Path, act: &Act<B, R>, order: &B) -> Result<R, AskError> {
    let request = Request::post(act.path).body(Full::from(serde_json::to_vec(order)?));
    answer(socket, request, ORDER_TIMEOUT).await
}

async fn answer<R: DeserializeOwned>(
    socket: &Path,
    request: http::Result<Request<Full<Bytes>>>,
    limit: Duration,
) -> Result<R, AskError> {
    let body = match tokio::time::timeout(limit, send(socket, request)).await {
        Ok(answer) => answer?,
        Err(_) => return Err(AskError::TimedOut { socket: socket.to_owned(), seconds: limit.as_secs() }),
    };
    #[derive(serde::Deserialize)]
    struct Schema {
        schema_version: u32,
    }
    let Schema { schema_version } = serde_json::from_slice(&body)?;
    if schema_version != SCHEMA_VERSION {
        return Err(AskError::OtherSchema { theirs: schema_version });
    }
    Ok(serde_json::from_slice(&body)?)
}

fn unconnected(socket: &Path, source: io::Error) -> AskError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotPermitted { socket, source },
        _ => AskError::NotReachable { socket, source },
    }
}

async fn send(socket: &Path, request: http::Result<Request<Full<Bytes>>>) -> Result<Bytes, AskError> {
    let stream = loop {
        match UnixStream::connect(socket).await {
            // The agent is there, and its queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(CONNECT_AGAIN).await,
            connected => break connected,
        }
    };
    let stream = stream.map_err(|source| unconnected(socket, source))?;
    let broken =
        |source: Box<dyn std::error::Error + Send + Sync>| AskError::Broken { socket: socket.to_owned(), source };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.into()))?;
    // A process asks once; the connection ends with the process.
    tokio::spawn(connection);
    let mut request = request.map_err(|error| broken(error.into()))?;
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("crier"));
    let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await.map_err(broken)?.to_bytes();
    let text = || String::from_utf8_lossy(&body).trim().to_owned();
    match status {
        status if status.is_success() => Ok(body),
        http::StatusCode::NOT_FOUND => Err(AskError::NotThere(text())),
        // What the agent, the disk or the API server did not do, in the agent's own words.
        http::StatusCode::CONFLICT
        | http::StatusCode::FORBIDDEN
        | http::StatusCode::INTERNAL_SERVER_ERROR
        | http::StatusCode::BAD_GATEWAY => Err(AskError::Declined(text())),
        http::StatusCode::BAD_REQUEST => Err(AskError::NotUnderstood(text())),
        status => Err(AskError::Refused { status, body: text() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_the_right_is_not_told_that_the_agent_is_down() {
        let text = |kind: io::ErrorKind| unconnected(Path::new("/run/crier/crier.sock"), kind.into()).to_string();
        let denied = text(io::ErrorKind::PermissionDenied);
        assert!(denied.contains("use sudo, or join the group of the socket"), "{denied}");
        assert!(!denied.contains("is crier running"), "{denied}");
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused] {
            assert!(text(kind).contains("is crier running"), "{}", text(kind));
        }
    }
}
