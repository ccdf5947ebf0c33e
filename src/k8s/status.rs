//! The status writer: writes the planned status of each Service, and explains it in Events. Floor 2.
//!
//! Tasks: [`run`], owned by the agent, owns the writes in flight, and the Events in flight that addresses wait for before they go; and
//! the writer of all other Events ([`event::run`]), owned by `run`.
//! A cancelled write may or may not have happened. It names the version it is meant for, so it never overwrites a newer
//! one, and the next slice repeats the desired status.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::k8s::annotation::POOL_OUTPUTS;
use crate::k8s::event;
use crate::k8s::event_budget::EventBudget;
use crate::k8s::raw::Object;
use crate::k8s::refusal::reason;
use crate::k8s::service::{self, ServiceFields};
use crate::k8s::status_queue::{PendingEvent, StatusQueue, Written};
use crate::names::{NodeName, ObjectKey};
use crate::plan::slice::{ServiceStatus, StatusSlice, StatusWrite, pools_in_words};
use crate::world::{Condition, Fact, PoolsTold, Renumber};

/// Writes in flight, on one connection where the API server speaks HTTP/2. Well below the hundred streams that it allows,
/// so that watches and the Lease always have room.
const SIDE_BY_SIDE: usize = 64;
/// Events that addresses wait for, in flight.
const REMOVALS_SIDE_BY_SIDE: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes until the sender of the slices is gone. `node` is the reporting instance of the Events.
pub async fn run(client: Client, node: NodeName, mut slices: watch::Receiver<StatusSlice>, facts: mpsc::Sender<Fact>) {
    let (events, pending) = mpsc::channel(event::WAITING);
    let mut event_writer = JoinSet::new();
    event_writer.spawn(event::run(client.clone(), node.to_string(), pending));
    let mut queue = StatusQueue::default();
    let mut events = Events { sender: events, budget: EventBudget::default() };
    let (mut writes, mut removals) = (FuturesUnordered::new(), FuturesUnordered::new());
    let first = slices.borrow_and_update().clone();
    events.pass_on(queue.turn_to(first));
    loop {
        while writes.len() < SIDE_BY_SIDE {
            let Some((key, wanted, what)) = queue.next_write() else { break };
            writes.push(write(client.clone(), key, wanted, what));
        }
        while removals.len() < REMOVALS_SIDE_BY_SIDE {
            let Some(event) = queue.next_removal() else { break };
            match events.budget.take_removal(&event.service, clock::now()) {
                true => removals.push(event::tell(client.clone(), node.to_string(), event)),
                // The condition says the same.
                false => queue.settle_removal(&event),
            }
        }
        for key in queue.take_told() {
            if facts.send(Fact::RemovalTold(key)).await.is_err() {
                return;
            }
        }
        let due = queue.next_deadline();
        tokio::select! {
            changed = slices.changed() => {
                if changed.is_err() {
                    return;
                }
                let slice = slices.borrow_and_update().clone();
                events.pass_on(queue.turn_to(slice));
            }
            Some((key, wanted, outcome)) = writes.next() => {
                let (written, answer) = match outcome {
                    Ok(answer) => (Written::Done, answer),
                    Err(written) => (written, None),
                };
                let settled = queue.settle(&key, &wanted, &written, clock::now());
                events.pass_on(settled.event);
                let fact = match (answer, settled.refusal) {
                    (Some(service), _) => Fact::StatusWritten(key, service),
                    (None, Some(why)) => {
                        warn!(service = %key, why, "the status was not written and will be retried");
                        Fact::StatusRefused(key, why)
                    }
                    (None, None) => continue,
                };
                if facts.send(fact).await.is_err() {
                    return;
                }
            }
            Some(event) = removals.next() => queue.settle_removal(&event),
            () = sleep_until(due.unwrap_or_else(clock::now).into()), if due.is_some() => queue.wake(clock::now()),
        }
    }
}

/// The way to the Event writer.
struct Events {
    sender: mpsc::Sender<PendingEvent>,
    budget: EventBudget,
}

impl Events {
    fn pass_on(&mut self, pending: impl IntoIterator<Item = PendingEvent>) {
        for event in pending {
            let PendingEvent { service, notice, .. } = &event;
            if !self.budget.take(service, notice.warning, clock::now()) {
                debug!(%service, reason = notice.reason, "an Event was dropped: there were too many");
            } else if let Err(error) = self.sender.try_send(event) {
                debug!(%error, "an Event was dropped: too many are pending");
            }
        }
    }
}

/// One write, and the Service as the API server returned it.
async fn write(
    client: Client,
    key: ObjectKey,
    wanted: Arc<ServiceStatus>,
    what: StatusWrite,
) -> (ObjectKey, Arc<ServiceStatus>, Result<Option<Arc<crate::world::Service>>, Written>) {
    let api: Api<Object<ServiceFields>> = Api::namespaced(client, key.namespace.as_str());
    let patch = Patch::Strategic(patch(&wanted, &what, clock::wall()));
    let params = PatchParams { field_manager: Some("crier".to_owned()), ..PatchParams::default() };
    let outcome = match timeout(TIMEOUT, api.patch_status(&key.name, &params, &patch)).await {
        Ok(Ok(object)) => match service::service(&object).ok().map(Arc::new) {
            Some(service) if !is_as_written(&service, &what) => Err(Written::Altered { why: ALTERED.to_owned() }),
            Some(service) if !is_told_as_written(&service, &what) => Err(Written::Altered { why: RETOLD.to_owned() }),
            service => {
                debug!(service = %key, ?what, "status written");
                Ok(service)
            }
        },
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            debug!(service = %key, "the status was not written: the Service has changed meanwhile");
            Err(Written::Overtaken { why: reason(&kube::Error::Api(status)) })
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Written::Gone),
        Ok(Err(error)) => {
            let by_rule = matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 422));
            Err(Written::Refused { why: reason(&error), patience: patience(&error), by_rule })
        }
        Err(_) => Err(Written::Refused { why: "no answer".to_owned(), patience: Duration::ZERO, by_rule: false }),
    };
    (key, wanted, outcome)
}

const ALTERED: &str =
    "the API server took what was written, and shows another status: a mutating webhook or policy changes it";

const RETOLD: &str = "the API server took what was written, and shows other annotations about the pool, or the one that asks for other addresses: a mutating webhook or policy changes them";

/// The API server shows what was written. Host names beside the addresses are others', and stay.
fn is_as_written(service: &crate::world::Service, what: &StatusWrite) -> bool {
    let StatusWrite { ingress, condition, transition: _, pools: _, renumbered: _ } = what;
    let is_shown = ingress.as_ref().is_none_or(|wanted| *wanted == service.ingress && service.not_vip.is_empty());
    is_shown && condition.as_ref() == service.condition.as_deref()
}

/// The same of the annotations that are written with it. Who takes away those about the pools is not fought.
fn is_told_as_written(service: &crate::world::Service, what: &StatusWrite) -> bool {
    let says_pools = match &service.pools_told {
        PoolsTold::Nothing => true,
        PoolsTold::Same(told) => **told == pools_in_words(&what.pools),
        PoolsTold::Different => false,
    };
    says_pools && !(what.renumbered && service.renumber.is_some())
}

/// A strategic merge patch: the API server merges conditions by their type, so those of others stay, and takes annotations
/// along with the status, so one request does all.
/// With uid and version the API server refuses the write if the Service is not the one the decision was made for.
fn patch(wanted: &ServiceStatus, what: &StatusWrite, now: std::time::SystemTime) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let StatusWrite { ingress, condition, transition, pools, renumbered } = what;
    let mut status = Map::new();
    if let Some(addresses) = ingress {
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
        status.insert("loadBalancer".to_owned(), json!({ "ingress": ingress }));
    }
    let condition = match condition {
        None => json!({ "type": Condition::TYPE, "$patch": "delete" }),
        Some(Condition { allocated, reason, message }) => {
            let status = if *allocated { "True" } else { "False" };
            let mut condition =
                json!({ "type": Condition::TYPE, "status": status, "reason": reason, "message": message });
            if *transition {
                let now = jiff::Timestamp::try_from(now).unwrap_or_default();
                condition["lastTransitionTime"] = json!(format!("{now:.0}"));
            }
            condition
        }
    };
    status.insert("conditions".to_owned(), json!([condition]));
    let names = if pools.is_empty() { Value::Null } else { json!(pools_in_words(pools)) };
    let mut annotations: Map<String, Value> =
        POOL_OUTPUTS.iter().map(|name| ((*name).to_owned(), names.clone())).collect();
    if *renumbered {
        annotations.insert(Renumber::ANNOTATION.to_owned(), Value::Null);
    }
    json!({
        "metadata": { "uid": wanted.uid, "resourceVersion": wanted.resource_version, "annotations": annotations },
        "status": status,
    })
}

/// How long the API server asked us to wait.
fn patience(error: &kube::Error) -> Duration {
    let kube::Error::Api(status) = error else { return Duration::ZERO };
    Duration::from_secs(status.details.as_ref().map_or(0, |details| details.retry_after_seconds).into())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::k8s::fake::{self, Answer, FakeApi, Fault, SERVICES};
    use crate::plan::slice::Notice;

    struct Writer {
        slices: watch::Sender<StatusSlice>,
        facts: mpsc::Receiver<Fact>,
        _task: JoinSet<()>,
    }

    impl Writer {
        async fn start(api: &FakeApi) -> Writer {
            let (slices, receiver) = watch::channel(StatusSlice::default());
            let (sender, facts) = mpsc::channel(64);
            let mut task = JoinSet::new();
            task.spawn(run(api.client().await, NodeName::from("node-a"), receiver, sender));
            Writer { slices, facts, _task: task }
        }

        /// Desires these addresses for the current version of the Service.
        fn want(&self, api: &FakeApi, key: &str, write: Option<&[&str]>, notice: Option<Notice>) {
            let object = api.object(SERVICES, key).expect("the Service exists");
            let text = |field: &str| object["metadata"][field].as_str().expect(field).to_owned();
            let write = write.map(|all| {
                let addresses: Vec<std::net::IpAddr> = all.iter().map(|ip| ip.parse().expect("an address")).collect();
                let pools = vec!["lan".into()];
                let condition = Condition::given(true, "assigned", &addresses, &pools, None);
                StatusWrite {
                    ingress: Some(addresses),
                    condition: Some(condition),
                    transition: true,
                    pools,
                    renumbered: false,
                }
            });
            let (uid, resource_version) = (text("uid"), text("resourceVersion"));
            let status = ServiceStatus { uid, resource_version, write, notice, told: false, warning: None };
            let (namespace, name) = key.split_once('/').unwrap();
            self.slices.send_modify(|slice| {
                slice.services.insert(ObjectKey::new(namespace, name), Arc::new(status));
            });
        }

        async fn written(&mut self) -> (String, Arc<crate::world::Service>) {
            fake::until(&mut self.facts, "a status that was written", |fact| match fact {
                Fact::StatusWritten(key, service) => Some((key.to_string(), Arc::clone(service))),
                _ => None,
            })
            .await
        }

        async fn refused(&mut self) -> String {
            fake::until(&mut self.facts, "a refusal", |fact| match fact {
                Fact::StatusRefused(_, why) => Some(why.clone()),
                _ => None,
            })
            .await
        }
    }

    fn fault(answer: Answer) -> Fault {
        Fault { method: Method::PATCH, path: "/api/v1/namespaces/shop/services", watch: None, answer }
    }

    fn notice(warning: bool, message: &str) -> Option<Notice> {
        Some(Notice { warning, reason: "Word".to_owned(), message: message.to_owned() })
    }

    /// Waits until the API server has received `count` Events.
    async fn events(api: &FakeApi, count: usize) -> Vec<serde_json::Value> {
        let path = "/apis/events.k8s.io/v1/namespaces/shop/events";
        let seen = timeout(Duration::from_secs(10), async {
            loop {
                let seen = api.requests(&Method::POST, path);
                if seen.len() >= count {
                    return seen.into_iter().map(|seen| seen.body).collect();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        seen.await.expect("the Events come")
    }

    #[tokio::test]
    async fn a_status_is_written_and_answered_as_a_fact() {
        let api = FakeApi::start().await;
        let mut service = fake::service("shop/web");
        service["status"] = json!({"conditions": [{"type": "example.com/Theirs", "status": "True"}]});
        api.put(SERVICES, service);
        let mut writer = Writer::start(&api).await;
        writer.want(&api, "shop/web", Some(&["192.0.2.1", "fd00::1"]), notice(false, "assigned"));
        let (key, service) = writer.written().await;
        assert_eq!(key, "shop/web");
        let object = api.object(SERVICES, "shop/web").unwrap();
        let expected = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "fd00::1", "ipMode": "VIP"}]);
        assert_eq!(object["status"]["loadBalancer"]["ingress"], expected);
        assert_eq!(service.ingress.len(), 2);
        assert_eq!(Some(service.resource_version.as_str()), object["metadata"]["resourceVersion"].as_str());
        assert_eq!(object["status"]["conditions"][0]["type"], "example.com/Theirs", "others' conditions are kept");
        let ours = &object["status"]["conditions"][1];
        assert_eq!((ours["type"].as_str(), ours["status"].as_str()), (Some(Condition::TYPE), Some("True")));
        assert_eq!(service.given(), service.ingress, "the same write says who gave them");
        assert_eq!(object["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], "lan");
        assert_eq!(events(&api, 1).await[0]["note"], "assigned");

        writer.want(&api, "shop/web", Some(&[]), None);
        assert!(writer.written().await.1.ingress.is_empty(), "to clear is to write none");
    }

    #[tokio::test]
    async fn a_write_for_an_older_version_changes_nothing() {
        let api = FakeApi::start().await;
        api.put(SERVICES, fake::service("shop/web"));
        let mut writer = Writer::start(&api).await;
        api.fault(fault(Answer::Overtaken));
        writer.want(&api, "shop/web", Some(&["192.0.2.1"]), None);
        let path = "/api/v1/namespaces/shop/services";
        while api.requests(&Method::PATCH, path).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writer.want(&api, "shop/web", Some(&["192.0.2.2"]), None);
        let (_, service) = writer.written().await;
        assert_eq!(
            service.ingress,
            ["192.0.2.2".parse::<std::net::IpAddr>().unwrap()],
            "the desired status of the current version"
        );
        assert_eq!(api.requests(&Method::PATCH, path).len(), 2);
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_the_write_tried_again() {
        let api = FakeApi::start().await;
        api.put(SERVICES, fake::service("shop/web"));
        let mut writer = Writer::start(&api).await;
        api.fault(fault(Answer::Status(403, "services is forbidden")));
        writer.want(&api, "shop/web", Some(&["192.0.2.1"]), None);
        assert_eq!(writer.refused().await, "403 services is forbidden");
        assert_eq!(writer.written().await.0, "shop/web");
    }

    /// Input: a policy removes the addresses, or the condition, from each status that is written. Output: that is told, no
    /// success is, and the write is tried again until it stands.
    #[tokio::test]
    async fn a_write_that_is_taken_and_undone_is_told_and_tried_again() {
        for removed in ["loadBalancer", "conditions"] {
            let api = FakeApi::start().await;
            api.put(SERVICES, fake::service("shop/web"));
            let mut writer = Writer::start(&api).await;
            api.fault(fault(Answer::Without(removed)));
            writer.want(&api, "shop/web", Some(&["192.0.2.1"]), notice(false, "assigned"));
            assert_eq!(writer.refused().await, ALTERED);
            assert!(events(&api, 1).await[0]["note"].as_str().unwrap().contains(ALTERED));
            writer.want(&api, "shop/web", Some(&["192.0.2.1"]), notice(false, "assigned"));
            assert_eq!(writer.written().await.1.ingress.len(), 1);
            assert_eq!(events(&api, 2).await[1]["note"], "assigned");
        }
    }

    /// Input: a policy puts the annotation about the pool back to what it was, or the one that asks for other addresses.
    /// Output: that is told, and the write is tried again. It was taken for written.
    #[tokio::test]
    async fn an_annotation_that_a_policy_puts_back_is_told_and_tried_again() {
        for (annotation, value, told) in [
            ("metallb.io/ip-allocated-from-pool", "foo", Some(RETOLD)),
            (Renumber::ANNOTATION, "192.0.2.9 for 10m", Some(RETOLD)),
            ("example.com/theirs", "foo", None),
        ] {
            let api = FakeApi::start().await;
            api.put(SERVICES, fake::service("shop/web"));
            let mut writer = Writer::start(&api).await;
            api.fault(fault(Answer::With(annotation, value)));
            writer.want(&api, "shop/web", Some(&["192.0.2.1"]), notice(false, "assigned"));
            writer.slices.send_modify(|slice| {
                let status = slice.services.get_mut(&ObjectKey::new("shop", "web")).expect("the Service");
                Arc::make_mut(status).write.as_mut().expect("a write").renumbered = annotation == Renumber::ANNOTATION;
            });
            if let Some(told) = told {
                assert_eq!(writer.refused().await, told, "{annotation}");
                assert!(events(&api, 1).await[0]["note"].as_str().unwrap().contains(told));
                writer.want(&api, "shop/web", Some(&["192.0.2.1"]), notice(false, "assigned"));
            }
            assert_eq!(writer.written().await.1.ingress.len(), 1, "{annotation}");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_no_trouble() {
        let api = FakeApi::start().await;
        api.put(SERVICES, fake::service("shop/gone"));
        api.put(SERVICES, fake::service("shop/web"));
        let mut writer = Writer::start(&api).await;
        api.fault(fault(Answer::Status(404, "not found")));
        writer.want(&api, "shop/gone", Some(&["192.0.2.1"]), None);
        while api.requests(&Method::PATCH, "/api/v1/namespaces/shop/services/gone").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writer.want(&api, "shop/web", Some(&["192.0.2.2"]), None);
        assert_eq!(writer.facts.recv().await.map(|fact| matches!(fact, Fact::StatusWritten(..))), Some(true));
    }

    #[tokio::test]
    async fn many_services_are_written_side_by_side() {
        let api = FakeApi::start().await;
        let mut writer = Writer::start(&api).await;
        let late = Duration::from_millis(300);
        for number in 0..SIDE_BY_SIDE {
            let key = format!("shop/web-{number}");
            api.put(SERVICES, fake::service(&key));
            api.fault(fault(Answer::Late(late)));
        }
        let began = clock::now();
        for number in 0..SIDE_BY_SIDE {
            writer.want(&api, &format!("shop/web-{number}"), Some(&["192.0.2.1"]), None);
        }
        for _ in 0..SIDE_BY_SIDE {
            writer.written().await;
        }
        let took = clock::since(began);
        assert!(took < late * 10, "{SIDE_BY_SIDE} writes of {late:?} took {took:?}");
    }

    #[tokio::test]
    async fn an_event_that_is_refused_holds_up_nothing() {
        let api = FakeApi::start().await;
        api.put(SERVICES, fake::service("shop/web"));
        api.fault(Fault {
            method: Method::POST,
            path: "/apis/events.k8s.io",
            watch: None,
            answer: Answer::Status(500, "etcd is away"),
        });
        let mut writer = Writer::start(&api).await;
        writer.want(&api, "shop/web", Some(&["192.0.2.1"]), notice(true, "pool lan is nearly full"));
        writer.written().await;
        let seen = events(&api, 2).await;
        assert_eq!(seen[0]["metadata"]["name"], seen[1]["metadata"]["name"], "the same Event, tried again");
        assert_eq!(seen[1]["type"], "Warning");
        assert_eq!(seen[1]["reportingInstance"], "node-a");
    }
}
