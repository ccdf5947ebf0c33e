//! Shows on the Node of this agent how it stands with a drain: the annotation `crier.dev/drain`. Floor 2.
//!
//! Tasks: one, owned by the caller. It makes one write at a time, whenever the Node does not show what it should. Cancelled, the Node
//! shows what it showed; the next start compares.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::k8s::node::NodeFields;
use crate::k8s::raw::Object;
use crate::k8s::refusal::reason;
use crate::names::NodeName;
use crate::plan::following::NodeMark;
use crate::world::{Area, Fact, HostProblem, Marks};

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// After a refusal, and after a write that the watch does not show.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Writes until nobody can want anything any more.
pub async fn run(
    client: Client,
    node: NodeName,
    mut marks: watch::Receiver<Option<NodeMark>>,
    facts: mpsc::Sender<Fact>,
) {
    let api: Api<Object<NodeFields>> = Api::all(client);
    let mut told = None;
    loop {
        let mark = marks.borrow_and_update().clone();
        let wrong = mark.filter(|NodeMark { wanted, shown }| wanted != shown);
        let is_right = wrong.is_none();
        let problem = match wrong {
            None => None,
            Some(NodeMark { wanted, .. }) => write(&api, &node, wanted.as_deref()).await.err(),
        };
        if told != problem {
            if let Some(problem) = &problem {
                warn!(%problem, "the Node does not show how it stands with a drain");
            }
            told.clone_from(&problem);
            // The agent stops: nobody to tell.
            let _ = facts.send(Fact::Problems(Area::NodeMark, problem.into_iter().collect())).await;
        }
        tokio::select! {
            changed = marks.changed() => if changed.is_err() { return std::future::pending().await },
            () = sleep(TRY_AGAIN), if !is_right => {}
        }
    }
}

/// Annotations travel with the status. The right to patch that cannot change what is scheduled onto a Node, as one to patch Nodes could.
async fn write(api: &Api<Object<NodeFields>>, node: &NodeName, wanted: Option<&str>) -> Result<(), HostProblem> {
    let patch = json!({ "metadata": { "annotations": { Marks::DRAIN: wanted } } });
    let params = PatchParams { field_manager: Some("crier".to_owned()), ..PatchParams::default() };
    let why = match timeout(TIMEOUT, api.patch_status(node.as_str(), &params, &Patch::Merge(patch))).await {
        Ok(Ok(_)) => {
            info!(%node, annotation = Marks::DRAIN, value = wanted.unwrap_or("none"), "the Node was annotated");
            return Ok(());
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            return Err(HostProblem {
                problem: format!(
                    "the Node does not show the drain: the API server forbids to patch nodes/status of {node}"
                ),
                remedy: "run `crier rbac | kubectl apply -f -`, or set annotate-node = false in [drain]".to_owned(),
            });
        }
        Ok(Err(error)) => reason(&error),
        Err(_) => "the API server does not answer".to_owned(),
    };
    Err(HostProblem {
        problem: format!("the Node does not show the drain: {why}"),
        remedy: "it is tried again every 30 s".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::k8s::fake::{Answer, FakeApi, Fault, NODES};

    const SOON: Duration = Duration::from_secs(10);

    /// The annotation that the API server has in the end.
    async fn shows(api: &FakeApi, wanted: Option<&str>) {
        let wait = async {
            loop {
                let node = api.object(NODES, "n1").expect("it is there");
                if node["metadata"]["annotations"][Marks::DRAIN].as_str() == wanted {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("the Node does not show {wanted:?}"));
    }

    fn mark(wanted: Option<&str>, shown: Option<&str>) -> Option<NodeMark> {
        Some(NodeMark { wanted: wanted.map(str::to_owned), shown: shown.map(str::to_owned) })
    }

    #[tokio::test]
    async fn the_node_shows_a_drain_until_it_is_taken_back_and_only_its_status_is_patched() {
        let api = FakeApi::start().await;
        api.put(NODES, json!({"metadata": {"name": "n1", "annotations": {"other": "stays"}}}));
        let (marks, seen) = watch::channel(mark(Some("waiting"), None));
        let (facts, _told) = mpsc::channel(4);
        let _task = tokio::spawn(run(api.client().await, "n1".into(), seen, facts));
        shows(&api, Some("waiting")).await;
        marks.send_replace(mark(Some("waiting"), Some("waiting")));
        marks.send_replace(mark(None, Some("waiting")));
        shows(&api, None).await;
        assert_eq!(api.object(NODES, "n1").unwrap()["metadata"]["annotations"]["other"], "stays");
        let written = api.requests(&Method::PATCH, NODES);
        assert!(written.iter().all(|seen| seen.path == "/api/v1/nodes/n1/status"), "{written:?}");
        assert_eq!(written.len(), 2, "what is right is not written");
    }

    #[tokio::test]
    async fn a_right_that_is_missing_is_a_problem_that_goes_with_it() {
        let api = FakeApi::start().await;
        api.put(NODES, json!({"metadata": {"name": "n1"}}));
        let path = "/api/v1/nodes/n1/status";
        api.fault(Fault { method: Method::PATCH, path, watch: None, answer: Answer::Status(403, "forbidden") });
        let (marks, seen) = watch::channel(mark(Some("drained"), None));
        let (facts, mut told) = mpsc::channel(4);
        let _task = tokio::spawn(run(api.client().await, "n1".into(), seen, facts));
        let problem = match timeout(SOON, told.recv()).await.expect("it is told soon") {
            Some(Fact::Problems(Area::NodeMark, problems)) if problems.len() == 1 => problems[0].to_string(),
            other => panic!("{other:?}"),
        };
        assert!(problem.contains("forbids to patch nodes/status of n1") && problem.contains("crier rbac"), "{problem}");
        marks.send_replace(mark(Some("drained: again"), None));
        shows(&api, Some("drained: again")).await;
        let cured = timeout(SOON, told.recv()).await.expect("it is told soon");
        assert_eq!(cured, Some(Fact::Problems(Area::NodeMark, Vec::new())));
    }
}
