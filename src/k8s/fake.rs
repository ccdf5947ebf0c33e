//! An API server for tests: lists in pages, watches, versions and conflicts on loopback; it misbehaves when told to.
//! It implements only what crier uses, by the rules of the real API server.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Access;
use crate::world::Fact;

pub const SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub const NODES: &str = "/api/v1/nodes";
pub const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
pub const PODS: &str = "/api/v1/pods";
/// In the query of those who want a list streamed.
const STREAMED: &str = "sendInitialEvents=true";

/// Dropping it closes all connections.
pub struct FakeApi {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By collection (over all namespaces) and `namespace/name`.
    objects: BTreeMap<(String, String), Value>,
    /// Every change: its version, its collection, the watch event.
    log: Vec<(u64, String, Value)>,
    /// A watch from a version before this one is answered with 410.
    compacted: u64,
    /// Watches that began before this version end.
    hang_up: u64,
    faults: VecDeque<Fault>,
    /// Lists are streamed to those who ask for it (WatchList).
    streams: bool,
    /// Every watch and streamed list is answered with 200, and ended at once.
    ends_streams: bool,
    /// Every streamed list is answered with this status.
    refuses_streams: Option<u16>,
    requests: Vec<Seen>,
}

pub struct Backup {
    version: u64,
    /// By collection and `namespace/name`.
    objects: BTreeMap<(String, String), Value>,
}

/// A request that was made.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
    /// The header Authorization.
    pub authorization: String,
}

/// The answer to the next request that matches, instead of the right one.
pub struct Fault {
    pub method: Method,
    /// How the path begins.
    pub path: &'static str,
    /// `Some(true)`: watches only; `Some(false)`: anything but watches. A streamed list is a list.
    pub watch: Option<bool>,
    pub answer: Answer,
}

pub enum Answer {
    Status(u16, &'static str),
    /// Refused by priority and fairness: 429 in plain text, with a Retry-After of so many seconds.
    Busy(u32),
    /// Takes the request and never answers.
    Silence,
    /// Does what was asked, but answers only after this long.
    Late(Duration),
    /// 200, and not a word.
    Nothing,
    /// Takes a streamed list for a watch from now on, as an API server does that knows nothing of them.
    Endless,
    /// A policy: does what was asked, without this field of the status.
    Without(&'static str),
    /// A policy: does what was asked, and puts this annotation to this value.
    With(&'static str, &'static str),
    /// Another writer is faster: the object gets a new version just before the request is served.
    Overtaken,
}

impl FakeApi {
    pub async fn start() -> FakeApi {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        FakeApi::on(listener, Arc::default())
    }

    fn on(listener: TcpListener, state: Arc<Mutex<State>>) -> FakeApi {
        let address = listener.local_addr().expect("it is bound");
        let (changed, _) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let (shared, changes) = (Arc::clone(&state), changed.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (shared, changes) = (Arc::clone(&shared), changes.clone());
                let service = hyper::service::service_fn(move |request| {
                    let (shared, changes) = (Arc::clone(&shared), changes.clone());
                    async move { Ok::<_, Infallible>(answer(request, shared, changes).await) }
                });
                connections.spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        FakeApi { address, state, changed, tasks }
    }

    /// Closes all connections and refuses new ones until [`FakeApi::come_back`].
    pub async fn go_away(&mut self) {
        self.tasks.shutdown().await;
    }

    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is ours still");
        *self = FakeApi::on(listener, Arc::clone(&self.state));
    }

    pub async fn client(&self) -> kube::Client {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        crate::k8s::client::build(&Access::Kubeconfig(path)).await.expect("a sound kubeconfig").0
    }

    /// A client without a socket or credentials between: nothing of what it asks for is ever on its way in the kernel, so that a
    /// test's clock may stand still meanwhile.
    pub fn direct(&self) -> kube::Client {
        let (state, changed) = (Arc::clone(&self.state), self.changed.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (state, changed) = (Arc::clone(&state), changed.clone());
            async move { Ok::<_, Infallible>(answer(request, state, changed).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object; answers with its version.
    pub fn put(&self, collection: &str, object: Value) -> String {
        self.change(|state| state.put(collection, object))
    }

    pub fn delete(&self, collection: &str, key: &str) {
        self.change(|state| state.delete(collection, key));
    }

    /// Deletes without telling any watch, as after a compaction.
    pub fn lose(&self, collection: &str, key: &str) {
        self.state.lock().unwrap().objects.remove(&(collection.to_owned(), key.to_owned()));
    }

    /// Forgets the changes so far: a watch from an earlier version is answered with 410.
    pub fn compact(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        state.compacted = state.version;
        state.log.clear();
    }

    /// All objects, and the version of now.
    pub fn backup(&self) -> Backup {
        let state = self.state.lock().unwrap();
        Backup { version: state.version, objects: state.objects.clone() }
    }

    /// Forgets all that happened since.
    pub fn restore(&self, Backup { version, objects }: Backup) {
        let mut state = self.state.lock().unwrap();
        state.log.retain(|(of, ..)| *of <= version);
        (state.version, state.objects) = (version, objects);
        (state.compacted, state.hang_up) = (state.compacted.min(version), state.hang_up.min(version));
    }

    pub fn end_watches(&self) {
        self.change(|state| {
            state.version += 1;
            state.hang_up = state.version;
        });
    }

    /// Lists are streamed to those who ask for it, from now on.
    pub fn stream_lists(&self) {
        self.state.lock().unwrap().streams = true;
    }

    /// Every streamed list is answered with this status from now on.
    pub fn refuse_streams(&self, code: u16) {
        self.state.lock().unwrap().refuses_streams = Some(code);
    }

    /// A proxy that passes no streams stands before it, or does no more.
    pub fn end_streams(&self, ends: bool) {
        self.state.lock().unwrap().ends_streams = ends;
    }

    pub fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().faults.push_back(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub fn object(&self, collection: &str, key: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(&(collection.to_owned(), key.to_owned())).cloned()
    }

    pub fn requests(&self, method: &Method, path: &str) -> Vec<Seen> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|seen| seen.method == *method && seen.path.starts_with(path)).cloned().collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let result = change(&mut state);
        self.changed.send_replace(state.version);
        result
    }
}

impl State {
    fn put(&mut self, collection: &str, mut object: Value) -> String {
        self.version += 1;
        let version = self.version.to_string();
        let key = key_of(&object);
        let before = self.objects.get(&(collection.to_owned(), key.clone()));
        let uid = before.map_or_else(|| json!(format!("uid-{version}")), |before| before["metadata"]["uid"].clone());
        object["metadata"]["resourceVersion"] = json!(version);
        object["metadata"]["uid"] = uid;
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.log.push((self.version, collection.to_owned(), json!({"type": kind, "object": object})));
        self.objects.insert((collection.to_owned(), key), object);
        version
    }

    fn delete(&mut self, collection: &str, key: &str) {
        self.version += 1;
        let mut object = self.objects.remove(&(collection.to_owned(), key.to_owned())).expect("it exists");
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.log.push((self.version, collection.to_owned(), json!({"type": "DELETED", "object": object})));
    }

    fn fault_for(&mut self, seen: &Seen) -> Option<Answer> {
        let watch = seen.query.contains("watch=true") && !seen.query.contains(STREAMED);
        let fits = |fault: &Fault| {
            fault.method == seen.method && seen.path.starts_with(fault.path) && fault.watch.is_none_or(|is| is == watch)
        };
        let at = self.faults.iter().position(fits)?;
        self.faults.remove(at).map(|fault| fault.answer)
    }
}

fn key_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().expect("a name");
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    request: Request<impl hyper::body::Body>,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let authorization = parts.headers.get(http::header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let authorization = authorization.unwrap_or_default().to_owned();
    let mut seen = Seen { method: parts.method, path: parts.uri.path().to_owned(), query, body, authorization };
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(seen.clone());
        state.fault_for(&seen)
    };
    match fault {
        Some(Answer::Status(code, message)) => return failure(code, message),
        Some(Answer::Busy(seconds)) => {
            let text = "Too many requests, please try again later.\n";
            let mut response = stream_answer(429, stream::iter([Ok(Frame::data(text.into()))]).boxed());
            response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
            return response;
        }
        Some(Answer::Silence) => std::future::pending().await,
        Some(Answer::Late(after)) => tokio::time::sleep(after).await,
        Some(Answer::Overtaken) => {
            let (collection, rest) = split(&seen.path);
            let mut state = state.lock().unwrap();
            let key = rest.expect("an object").trim_end_matches("/status").to_owned();
            let object = state.objects[&(collection.clone(), key)].clone();
            state.put(&collection, object);
            changes.send_replace(state.version);
        }
        Some(Answer::Without(field)) => {
            if let Some(status) = seen.body.get_mut("status").and_then(Value::as_object_mut) {
                status.remove(field);
            }
        }
        Some(Answer::With(annotation, value)) => seen.body["metadata"]["annotations"][annotation] = json!(value),
        Some(Answer::Nothing) => return stream_answer(200, stream::empty().boxed()),
        Some(Answer::Endless) => return watch_from(&seen, state, changes),
        None => {}
    }
    if seen.query.contains("watch=true") && state.lock().unwrap().ends_streams {
        return stream_answer(200, stream::empty().boxed());
    }
    if seen.query.contains(STREAMED) {
        if let Some(code) = state.lock().unwrap().refuses_streams {
            return failure(code, "no streams");
        }
        let streams = state.lock().unwrap().streams;
        return match streams {
            true => list_streamed(&seen, &state, changes),
            false => {
                failure(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
            }
        };
    }
    if seen.method == Method::GET && seen.query.contains("watch=true") {
        return watch_from(&seen, state, changes);
    }
    let mut state = state.lock().unwrap();
    let response = plain(&seen, &mut state);
    changes.send_replace(state.version);
    response
}

fn plain(seen: &Seen, state: &mut State) -> Response<Body> {
    let (collection, rest) = split(&seen.path);
    let Some(rest) = rest else {
        return match seen.method {
            Method::GET => list(&collection, &seen.query, state),
            _ => failure(405, "not here"),
        };
    };
    let (key, subresource) = match rest.strip_suffix("/status") {
        Some(key) => (key.to_owned(), true),
        None => (rest, false),
    };
    if seen.method == Method::GET && key.ends_with('/') {
        return list(&collection, &seen.query, state);
    }
    let current = state.objects.get(&(collection.clone(), key.clone())).cloned();
    match (seen.method.clone(), current) {
        (Method::POST, _) => {
            let mut object = seen.body.clone();
            object["metadata"]["namespace"] = json!(key.trim_end_matches('/'));
            let key = key_of(&object);
            if state.objects.contains_key(&(collection.clone(), key.clone())) {
                return failure(409, "already exists");
            }
            state.put(&collection, object);
            json_answer(201, &state.objects[&(collection, key)])
        }
        (_, None) => failure(404, "not found"),
        (Method::GET, Some(current)) => json_answer(200, &current),
        (Method::PUT | Method::PATCH, Some(current)) => {
            let condition = |field: &str| {
                let wanted = &seen.body["metadata"][field];
                wanted.is_null() || *wanted == current["metadata"][field]
            };
            if !condition("resourceVersion") || !condition("uid") {
                return failure(409, "the object has been modified");
            }
            let mut object = seen.body.clone();
            if seen.method == Method::PATCH {
                assert!(subresource, "only the status is patched");
                object = current;
                merge(&mut object["status"], &seen.body["status"]);
                merge(&mut object["metadata"]["annotations"], &seen.body["metadata"]["annotations"]);
            }
            state.put(&collection, object);
            json_answer(200, &state.objects[&(collection, key)])
        }
        _ => failure(405, "not here"),
    }
}

/// A strategic merge, as far as a Service needs one: conditions by type, other lists whole, null removes.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("conditions", Value::Array(changes)) => {
                let mut all = into[name].as_array().cloned().unwrap_or_default();
                for change in changes {
                    let at = all.iter().position(|it| it["type"] == change["type"]);
                    match (change["$patch"] == "delete", at) {
                        (true, Some(at)) => drop(all.remove(at)),
                        (true, None) => {}
                        (false, Some(at)) => merge(&mut all[at], change),
                        (false, None) => all.push(change.clone()),
                    }
                }
                into[name] = json!(all);
            }
            (_, Value::Object(_)) => merge(&mut into[name], value),
            (_, Value::Null) => drop(into.as_object_mut().expect("an object").remove(name)),
            _ => into[name] = value.clone(),
        }
    }
}

fn list(collection: &str, query: &str, state: &State) -> Response<Body> {
    let number = |name| parameter(query, name).and_then(|text| text.parse::<usize>().ok());
    let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let named = only(query);
    let fits = |object: &&Value| named.is_none_or(|name| object["metadata"]["name"] == name);
    let all: Vec<&Value> =
        state.objects.iter().filter(|((of, _), _)| of == collection).map(|(_, object)| object).filter(fits).collect();
    let page: Vec<&Value> = all.iter().copied().skip(from).take(limit).collect();
    let next = from + page.len();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if next < all.len() {
        metadata["continue"] = json!(next.to_string());
    }
    json_answer(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page}))
}

/// All objects, a bookmark that says so, and what changes from then on.
fn list_streamed(seen: &Seen, state: &Arc<Mutex<State>>, changes: watch::Sender<u64>) -> Response<Body> {
    let (collection, _) = split(&seen.path);
    let (mut lines, version) = {
        let state = state.lock().unwrap();
        let all = state.objects.iter().filter(|((of, _), _)| *of == collection);
        let lines: Vec<_> = all.map(|(_, object)| line(&json!({"type": "ADDED", "object": object}))).collect();
        (lines, state.version)
    };
    lines.push(line(&json!({"type": "BOOKMARK", "object": {"kind": "Bookmark", "apiVersion": "v1", "metadata": {
        "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
    }}})));
    let began = state.lock().unwrap().hang_up;
    let changes = follow_from(version, began, (collection, None), Arc::clone(state), &changes);
    stream_answer(200, stream::iter(lines).chain(changes).boxed())
}

fn watch_from(seen: &Seen, state: Arc<Mutex<State>>, changes: watch::Sender<u64>) -> Response<Body> {
    let (collection, _) = split(&seen.path);
    let named = only(&seen.query).map(str::to_owned);
    let from: u64 = parameter(&seen.query, "resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    if from < state.lock().unwrap().compacted {
        // Like the real API server: the watch begins, and its first event is the error.
        let error = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "message": "too old"}});
        return stream_answer(200, stream::iter([line(&error)]).boxed());
    }
    let began = state.lock().unwrap().hang_up;
    stream_answer(200, follow_from(from, began, (collection, named), state, &changes))
}

/// Every change after the version `from`, until watches that began at `began` are ended.
fn follow_from(
    from: u64,
    began: u64,
    (collection, named): (String, Option<String>),
    state: Arc<Mutex<State>>,
    changes: &watch::Sender<u64>,
) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    let events = stream::unfold((from, changes.subscribe()), move |(at, mut changes)| {
        let (collection, named, state) = (collection.clone(), named.clone(), Arc::clone(&state));
        async move {
            loop {
                match next_event(&state.lock().unwrap(), &collection, named.as_deref(), at, began) {
                    Next::End => return None,
                    Next::Event(version, event) => return Some((line(&event), (version, changes))),
                    Next::Wait => {}
                }
                changes.changed().await.ok()?;
            }
        }
    });
    events.boxed()
}

enum Next {
    Wait,
    Event(u64, Value),
    End,
}

fn next_event(state: &State, collection: &str, named: Option<&str>, after: u64, began: u64) -> Next {
    if state.hang_up > began {
        return Next::End;
    }
    let fits = |event: &Value| named.is_none_or(|name| event["object"]["metadata"]["name"] == name);
    match state.log.iter().find(|(version, of, event)| *version > after && of == collection && fits(event)) {
        Some((version, _, event)) => Next::Event(*version, event.clone()),
        None => Next::Wait,
    }
}

/// Splits a path into its collection over all namespaces and the rest: `namespace/name`, with `/status` if it was asked for.
fn split(path: &str) -> (String, Option<String>) {
    if let Some(node) = path.strip_prefix(NODES).and_then(|rest| rest.strip_prefix('/')) {
        return (NODES.to_owned(), Some(node.to_owned()));
    }
    let Some((before, after)) = path.split_once("/namespaces/") else {
        return (path.to_owned(), None);
    };
    let mut parts = after.splitn(3, '/');
    let (namespace, plural) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    (format!("{before}/{plural}"), Some(format!("{namespace}/{}", parts.next().unwrap_or_default())))
}

/// The one name that a field selector asks for.
fn only(query: &str) -> Option<&str> {
    parameter(query, "fieldSelector")?.strip_prefix("metadata.name%3D")
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn line(event: &Value) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from(format!("{event}\n"))))
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
    if code == 429 {
        status["details"] = json!({"retryAfterSeconds": 1});
    }
    json_answer(code, &status)
}

fn json_answer(code: u16, body: &Value) -> Response<Body> {
    stream_answer(code, stream::iter([Ok(Frame::data(Bytes::from(body.to_string())))]).boxed())
}

fn stream_answer(code: u16, body: BoxStream<'static, Result<Frame<Bytes>, Infallible>>) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(body));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response
}

/// The next Fact that `wanted` accepts, within ten seconds; the Facts before it are dropped.
pub async fn until<T>(facts: &mut mpsc::Receiver<Fact>, what: &str, mut wanted: impl FnMut(&Fact) -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let fact = facts.recv().await.expect("the source lives");
            if let Some(found) = wanted(&fact) {
                return found;
            }
        }
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("ten seconds without {what}"),
    }
}

/// A Service of type LoadBalancer, as a user creates it.
pub fn service(key: &str) -> Value {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
    })
}

/// Of openssl, version 1: `openssl x509 -dates` says Jan  1 00:00:00 2020 and 2021.
pub const OF_OPENSSL: &str = "Certificate:\n-----BEGIN CERTIFICATE-----
MIIBOTCB4AIBATAKBggqhkjOPQQDAjApMRQwEgYDVQQKDAtjcmllcjpub2RlczER
MA8GA1UEAwwIY3JpZXI6bjEwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAw
WjApMRQwEgYDVQQKDAtjcmllcjpub2RlczERMA8GA1UEAwwIY3JpZXI6bjEwWTAT
BgcqhkjOPQIBBggqhkjOPQMBBwNCAARxwUjZYjp+GtmaaF9LmByI1/Pbc174uCPu
AkiRkeHV+78IMj+elIzwBcUStHsZhkyL7/qJWGJ+litbOwW0XOe/MAoGCCqGSM49
BAMCA0gAMEUCIGMYyH3GBReKry97gCsaHsNChQ4LoqUc0vTspAKICBOpAiEAjE6I
NEriU+Tus6f1KDHfIu3bFxBRP9HWWn7kvd0G9q8=
-----END CERTIFICATE-----\n";
