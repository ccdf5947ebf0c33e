//! Single requests to the API server, for commands: objects of any kind as JSON, each request with a time limit. Floor 2.
//! Not for the agent, whose watches and writers have manners of their own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request};
use serde_json::Value;

use super::client::{self, ClientError};
use super::list::{Flaw, objects_in};

/// How long one answer may take. A person waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Objects in one page of a list.
const PAGE: usize = 500;

/// Why a request brought nothing. What it asked to write may have been written where there was no answer, and was not otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The API server's own words.
    #[error("the API server {server} refused {method} {path}: {message} (status {code})")]
    Refused { server: String, method: Method, path: String, code: u16, message: String },
    #[error("{method} {path} got no usable answer from the API server {server}: {}", chain(source))]
    Unanswered { server: String, method: Method, path: String, source: Box<kube::Error> },
    #[error("the API server {server} did not answer {method} {path} within {} s", PATIENCE.as_secs())]
    TimedOut { server: String, method: Method, path: String },
    #[error("the API server {server} put {method} {path} off for {} s (status 429, too many requests); try again later", PATIENCE.as_secs())]
    Busy { server: String, method: Method, path: String },
    #[error("the API server answered {method} {path} without `{field}`")]
    Lacking { method: Method, path: String, field: &'static str },
    #[error("the list that the API server answered GET {path} with cannot be read: {problem}")]
    Unreadable { path: String, problem: String },
}

/// The errors behind an error, which say more than the first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// Asks one API server with the rights of one kubeconfig.
pub struct Asker {
    client: kube::Client,
    /// Its URL and the files that say so, for whoever looks for the wrong one.
    server: String,
}

impl Asker {
    /// Reads the kubeconfigs, which are merged. The first request connects.
    pub async fn open(kubeconfigs: &[PathBuf]) -> Result<Asker, RequestError> {
        let (client, url) = client::build_of(kubeconfigs).await?;
        let files: Vec<String> = kubeconfigs.iter().map(|file| file.display().to_string()).collect();
        Ok(Asker { client, server: format!("{url} of {}", files.join(", ")) })
    }

    #[cfg(test)]
    pub fn of(client: kube::Client) -> Asker {
        Asker { client, server: "of the test".to_owned() }
    }

    /// The object at `path`; `None` if there is none, or no such kind.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, RequestError> {
        unless(404, self.ask(Method::GET, path, None).await)
    }

    /// Every object of the collection at `path`, which may have a query, page by page, each with its kind and version; `None` if
    /// the API server does not have the kind.
    pub async fn list(&self, path: &str) -> Result<Option<Vec<Value>>, RequestError> {
        let mut objects = Vec::new();
        let mut from = String::new();
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = format!("{path}{mark}limit={PAGE}{from}");
            let Some(list) = unless(404, self.ask(Method::GET, &page, None).await)? else { return Ok(None) };
            let next = list.pointer("/metadata/continue").and_then(Value::as_str).filter(|token| !token.is_empty());
            let next = next.map(|token| format!("&continue={}", escaped(token)));
            let unreadable = |flaw: Flaw| RequestError::Unreadable { path: path.to_owned(), problem: flaw.to_string() };
            objects.extend(objects_in(list).map_err(unreadable)?);
            match next {
                Some(next) => from = next,
                None => return Ok(Some(objects)),
            }
        }
    }

    /// Creates an object in the collection at `path`; `None` if one of its name is there, which stays as it is.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Option<Value>, RequestError> {
        unless(409, self.ask(Method::POST, path, Some(object)).await)
    }

    /// Posts what is no lasting object, such as a review or a request for a token, and returns the answer.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Value, RequestError> {
        self.ask(Method::POST, path, Some(object)).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Result<Value, RequestError> {
        self.ask(Method::PUT, path, Some(object)).await
    }

    /// One request, repeated while the API server asks for patience (429), as it does for a kind that was just installed.
    async fn ask(&self, method: Method, path: &str, object: Option<&Value>) -> Result<Value, RequestError> {
        let busy = AtomicBool::new(false);
        let asking = async {
            loop {
                match self.once(&method, path, object).await {
                    Err(kube::Error::Api(status)) if status.code == 429 => {
                        busy.store(true, Ordering::Relaxed);
                        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                        tokio::time::sleep(Duration::from_secs(u64::from(seconds.max(1)))).await;
                    }
                    answer => return answer,
                }
            }
        };
        let (server, path) = (self.server.clone(), path.to_owned());
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => {
                Err(RequestError::Refused { server, method, path, code: status.code, message: status.message.clone() })
            }
            Ok(Err(error)) => Err(RequestError::Unanswered { server, method, path, source: Box::new(error) }),
            Err(_) if busy.load(Ordering::Relaxed) => Err(RequestError::Busy { server, method, path }),
            Err(_) => Err(RequestError::TimedOut { server, method, path }),
        }
    }

    async fn once(&self, method: &Method, path: &str, object: Option<&Value>) -> Result<Value, kube::Error> {
        let body = object.map_or(Vec::new(), |object| object.to_string().into_bytes());
        let request = Request::builder().method(method.clone()).uri(path);
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        self.client.request(request.map_err(kube::Error::HttpError)?).await
    }
}

/// `None` where the API server refused with this status.
fn unless(expected: u16, answer: Result<Value, RequestError>) -> Result<Option<Value>, RequestError> {
    match answer {
        Err(RequestError::Refused { code, .. }) if code == expected => Ok(None),
        answer => answer.map(Some),
    }
}

/// A token for the query of a URL.
fn escaped(text: &str) -> String {
    let escape = |octet: u8| match octet {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(octet).to_string(),
        _ => format!("%{octet:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::k8s::fake::{Answer, FakeApi, Fault, NODES};

    fn node(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    }

    #[tokio::test]
    async fn a_list_is_whole_however_many_pages_it_has() {
        let api = FakeApi::start().await;
        for number in 0..PAGE + 3 {
            api.put(NODES, node(&format!("node-{number:04}")));
        }
        let asker = Asker::of(api.client().await);
        let nodes = asker.list(NODES).await.unwrap().expect("the kind is there");
        assert_eq!(nodes.len(), PAGE + 3);
        assert_eq!(api.requests(&Method::GET, NODES).len(), 2, "two pages");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_api_servers_words() {
        let api = FakeApi::start().await;
        let asker = Asker::of(api.client().await);
        assert_eq!(
            asker.get("/api/v1/namespaces/default/services/a").await.unwrap(),
            None,
            "what is not there is no error"
        );
        for (answer, found) in [(404, true), (403, false)] {
            let fault = Answer::Status(answer, "nodes is forbidden");
            api.fault(Fault { method: Method::GET, path: NODES, watch: None, answer: fault });
            let listed = asker.list(NODES).await;
            assert_eq!(matches!(listed, Ok(None)), found, "{answer}: {listed:?}");
            if let Err(error) = listed {
                let text = error.to_string();
                assert!(
                    text.contains("GET /api/v1/nodes")
                        && text.contains("the API server of the test")
                        && text.contains("nodes is forbidden (status 403)"),
                    "{text}"
                );
            }
        }
    }

    #[tokio::test]
    async fn an_api_server_that_asks_for_patience_is_asked_again() {
        let api = FakeApi::start().await;
        api.put(NODES, node("a"));
        let asker = Asker::of(api.client().await);
        api.fault(Fault { method: Method::GET, path: NODES, watch: None, answer: Answer::Busy(1) });
        let nodes = asker.list(NODES).await.unwrap().expect("the kind is there");
        assert_eq!(nodes.len(), 1);
        assert_eq!(api.requests(&Method::GET, NODES).len(), 2);
    }

    #[test]
    fn a_token_of_a_page_is_escaped() {
        assert_eq!(escaped("aZ0-_.~"), "aZ0-_.~");
        assert_eq!(escaped("a+b=/&"), "a%2Bb%3D%2F%26");
    }
}
