//! The Lease: which agent allocates. Floor 2.
//!
//! One task, [`run`], owned by the agent. It owns this agent's claim on the Lease. A cancelled task leaves the Lease to
//! expire; a task that is told to leave releases the Lease, so that the next agent takes over at once.
//!
//! No two clocks are ever compared: a candidate measures from its own observation of the last change of the Lease, the
//! holder from the sending of its last successful renewal. So the holder gives up before any candidate may take over.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::clock;
use crate::k8s::watch::reason;
use crate::names::{NodeName, ObjectKey};
use crate::stop::Stop;
use crate::world::Fact;

/// How long a Lease stays valid without renewal. Whole seconds: `leaseDurationSeconds` is an integer.
const DURATION: Duration = Duration::from_secs(6);
/// How long the release of the Lease may take while the agent stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The intervals that follow from the duration of a Lease.
#[derive(Debug, Clone, Copy)]
struct Timing {
    duration: Duration,
}

impl Timing {
    /// How often the holder renews.
    fn renew(self) -> Duration {
        self.duration / 3
    }

    /// A holder that could not renew for this long gives up, a sixth of the duration before a candidate may take over.
    fn give_up(self) -> Duration {
        self.duration * 5 / 6
    }

    /// How often a candidate reads the Lease, and a failing holder retries. Random, to spread the agents.
    fn look(self) -> Duration {
        (self.duration / 3).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    fn duration_secs(self) -> i32 {
        i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)
    }
}

/// The identity of this agent on the Lease: its node, and a random suffix that distinguishes it from the previous agent
/// on that node.
pub fn identity(node: &NodeName) -> String {
    format!("{node}_{:08x}", fastrand::u32(..))
}

/// Tries to hold `lease` until `stop` has a reason or its sender is gone, and sends [`Fact::Leader`] at each change.
pub async fn run(
    client: Client,
    lease: ObjectKey,
    identity: String,
    facts: mpsc::Sender<Fact>,
    stop: watch::Receiver<Option<Stop>>,
) {
    keep(client, lease, identity, facts, stop, Timing { duration: DURATION }).await;
}

async fn keep(
    client: Client,
    lease: ObjectKey,
    identity: String,
    facts: mpsc::Sender<Fact>,
    mut stop: watch::Receiver<Option<Stop>>,
    timing: Timing,
) {
    let api = Api::namespaced(client, lease.namespace.as_str());
    let mut claim =
        Claim { api, name: lease.name.to_string(), identity, timing, held: None, seen: None, trouble: None };
    loop {
        let was_leader = claim.held.is_some();
        let stopped = tokio::select! {
            () = claim.work() => false,
            _ = stop.wait_for(Option::is_some) => true,
        };
        let leader = claim.held.is_some() && !stopped;
        if leader != was_leader {
            match leader {
                true => info!(%lease, "this agent allocates now"),
                false => info!(%lease, "this agent no longer allocates"),
            }
            if facts.send(Fact::Leader(leader)).await.is_err() {
                return;
            }
        }
        if stopped {
            // After the fact was sent: another agent may take the Lease as soon as it is free.
            let why = *stop.borrow();
            match why {
                Some(Stop::Leave(_)) | None => claim.release().await,
            }
            return;
        }
        let pause = claim.pause(clock::now());
        let _ = timeout(pause, stop.wait_for(Option::is_some)).await;
    }
}

/// What this agent knows about the Lease, and whether it holds the Lease.
struct Claim {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    held: Option<Held>,
    seen: Option<Seen>,
    /// The failure last logged, so that a lasting failure is logged once.
    trouble: Option<String>,
}

/// The Lease as the API server last returned it to this holder.
struct Held {
    lease: Lease,
    /// When the last successful renewal was sent.
    renewed: Instant,
    /// The last renewal failed: retry soon.
    failing: bool,
}

/// Since when the Lease is unchanged, by the clock of this host.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Claim {
    /// One attempt: renews a held Lease, else tries to take it. Ends in time for the holder to give up.
    async fn work(&mut self) {
        let now = clock::now();
        let limit = match &self.held {
            Some(held) => (held.renewed + self.timing.give_up()).saturating_duration_since(now),
            None => self.timing.give_up(),
        };
        let outcome = match timeout(limit, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer".to_owned()),
        };
        match outcome {
            Ok(()) => self.trouble = None,
            Err(why) => {
                if self.trouble.as_ref() != Some(&why) {
                    warn!(lease = self.name, why, "the Lease cannot be read or renewed");
                }
                self.trouble = Some(why);
            }
        }
        self.held = self.held.take().filter(|held| clock::now() < held.renewed + self.timing.give_up());
    }

    async fn attempt(&mut self) -> Result<(), String> {
        if let Some(held) = &mut self.held {
            held.failing = true;
            let current = held.lease.clone();
            match self.take(current).await {
                // The Lease was changed by somebody: read it, and renew only if this agent still holds it.
                Err(error) if is(&error, 409) => {}
                Err(error) if is(&error, 404) => self.held = None,
                Err(error) => return Err(reason(&error)),
                Ok(()) => return Ok(()),
            }
        }
        self.look().await.map_err(|error| reason(&error))
    }

    /// Reads the Lease, and takes it when it is ours, free or expired.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let lease = match self.api.get(&self.name).await {
            Ok(lease) => lease,
            Err(error) if is(&error, 404) => {
                self.held = None;
                return self.create().await;
            }
            Err(error) => return Err(error),
        };
        let now = clock::now();
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_none_or(|seen| seen.version != version) {
            self.seen = Some(Seen { version, since: now });
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let ours = holder == self.identity;
        if !ours {
            self.held = None;
        }
        let promised = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let expired = self.seen.as_ref().is_some_and(|seen| now >= seen.since + promised);
        if !(ours || holder.is_empty() || expired) {
            return Ok(());
        }
        match self.take(lease).await {
            // Another agent was faster.
            Err(error) if is(&error, 409) => Ok(()),
            other => other,
        }
    }

    async fn create(&mut self) -> Result<(), kube::Error> {
        let sent = clock::now();
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(self.spec(None)) };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(lease) => self.held = Some(Held { lease, renewed: sent, failing: false }),
            // Another agent was faster.
            Err(error) if is(&error, 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes this agent's identity and the time into `lease`; a conflict if the Lease changed since it was read.
    async fn take(&mut self, mut lease: Lease) -> Result<(), kube::Error> {
        let sent = clock::now();
        lease.spec = Some(self.spec(lease.spec.take()));
        let lease = self.put(lease).await?;
        self.held = Some(Held { lease, renewed: sent, failing: false });
        Ok(())
    }

    async fn put(&self, mut lease: Lease) -> Result<Lease, kube::Error> {
        lease.metadata.managed_fields = None;
        self.api.replace(&self.name, &PostParams::default(), &lease).await
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let now = MicroTime(jiff::Timestamp::try_from(clock::wall()).unwrap_or_default());
        let same = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.timing.duration_secs()),
            acquire_time: if same { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
            ..before
        }
    }

    /// How long to wait before the next [`Claim::work`].
    fn pause(&self, now: Instant) -> Duration {
        match &self.held {
            Some(held) if held.failing => {
                let left = (held.renewed + self.timing.give_up()).saturating_duration_since(now);
                (self.timing.look() / 4).min(left)
            }
            Some(held) => (held.renewed + self.timing.renew()).saturating_duration_since(now),
            None => self.timing.look(),
        }
    }

    /// Releases the Lease. If that fails, the Lease expires.
    async fn release(&mut self) {
        let Some(Held { mut lease, .. }) = self.held.take() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            // The API server requires a positive duration; a Lease without a holder is free at once.
            spec.lease_duration_seconds = Some(1);
        }
        match timeout(RELEASE_TIMEOUT, self.put(lease)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(lease = self.name, why = reason(&error), "the Lease was not released and will expire")
            }
            Err(_) => warn!(lease = self.name, why = "no answer", "the Lease was not released and will expire"),
        }
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::k8s::fake::{self, Answer, FakeApi, Fault};
    use crate::stop::Cause;

    const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    const TIMING: Timing = Timing { duration: Duration::from_secs(1) };

    struct Agent {
        facts: mpsc::Receiver<Fact>,
        stop: watch::Sender<Option<Stop>>,
        task: JoinHandle<()>,
    }

    impl Agent {
        async fn start(api: &FakeApi, identity: &str) -> Agent {
            let (sender, facts) = mpsc::channel(8);
            let (stop, stopped) = watch::channel(None);
            let lease = ObjectKey::new("kube-system", "crier");
            let task = tokio::spawn(keep(api.client().await, lease, identity.to_owned(), sender, stopped, TIMING));
            Agent { facts, stop, task }
        }

        async fn leader(&mut self, expected: bool) {
            let what = if expected { "the Lease" } else { "the loss of the Lease" };
            let told = fake::until(&mut self.facts, what, |fact| match fact {
                Fact::Leader(leader) => Some(*leader),
                other => panic!("{other:?} of a Lease"),
            });
            assert_eq!(told.await, expected);
        }

        fn says_nothing(&mut self) {
            assert!(self.facts.try_recv().is_err(), "it said something");
        }

        async fn stop(self) {
            self.stop.send_replace(Some(Stop::Leave(Cause::Signal("SIGTERM"))));
            self.task.await.expect("it ends cleanly");
        }

        /// As by SIGKILL.
        fn kill(self) {
            self.task.abort();
        }
    }

    fn holder(api: &FakeApi) -> String {
        let lease = api.object(LEASES, "kube-system/crier").expect("a Lease");
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    fn fault(method: Method, answer: Answer) -> Fault {
        Fault { method, path: PATH, watch: None, answer }
    }

    #[tokio::test]
    async fn one_of_two_holds_it_and_the_other_follows_when_it_is_handed_back() {
        let api = FakeApi::start().await;
        let mut first = Agent::start(&api, "a").await;
        first.leader(true).await;
        let mut second = Agent::start(&api, "b").await;
        tokio::time::sleep(TIMING.duration * 2).await;
        second.says_nothing();
        first.says_nothing();
        assert_eq!(holder(&api), "a");

        let stopped = clock::now();
        first.stop().await;
        second.leader(true).await;
        assert!(
            stopped.elapsed() < TIMING.give_up(),
            "it did not wait for the Lease to expire: {:?}",
            stopped.elapsed()
        );
        assert_eq!(holder(&api), "b");
        let lease = api.object(LEASES, "kube-system/crier").unwrap();
        assert_eq!(lease["spec"]["leaseTransitions"], 2);
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 1);
    }

    #[tokio::test]
    async fn a_dead_holder_is_followed_when_its_time_is_over_and_not_before() {
        let api = FakeApi::start().await;
        let mut first = Agent::start(&api, "a").await;
        first.leader(true).await;
        let mut second = Agent::start(&api, "b").await;
        tokio::time::sleep(TIMING.duration).await;
        let killed = clock::now();
        first.kill();
        second.leader(true).await;
        let gap = killed.elapsed();
        assert!(gap >= TIMING.duration - TIMING.renew(), "it took over after {gap:?}");
        assert!(gap < TIMING.duration * 2, "it took over only after {gap:?}");
    }

    #[tokio::test]
    async fn the_clock_of_another_host_is_not_believed() {
        let api = FakeApi::start().await;
        let spec =
            json!({"holderIdentity": "far", "leaseDurationSeconds": 1, "renewTime": "1990-01-01T00:00:00.000000Z"});
        api.put(LEASES, json!({"metadata": {"name": "crier", "namespace": "kube-system"}, "spec": spec}));
        let mut agent = Agent::start(&api, "a").await;
        tokio::time::sleep(TIMING.duration / 2).await;
        agent.says_nothing();
        agent.leader(true).await;
    }

    #[tokio::test]
    async fn a_holder_that_cannot_renew_gives_up_before_the_others_may_take_over() {
        for answer in ["silence", "failure"] {
            let api = FakeApi::start().await;
            let mut agent = Agent::start(&api, "a").await;
            agent.leader(true).await;
            for _ in 0..100 {
                let answer = if answer == "silence" { Answer::Silence } else { Answer::Status(500, "etcd is away") };
                api.fault(fault(Method::PUT, answer));
            }
            let last = api.object(LEASES, "kube-system/crier").unwrap()["spec"]["renewTime"].clone();
            agent.leader(false).await;
            let seen = api.object(LEASES, "kube-system/crier").unwrap()["spec"]["renewTime"].clone();
            assert_eq!(last, seen, "nothing was renewed meanwhile");
            let renewed: jiff::Timestamp = seen.as_str().unwrap().parse().unwrap();
            let age = jiff::Timestamp::try_from(clock::wall()).unwrap().duration_since(renewed);
            let age = Duration::try_from(age).unwrap();
            assert!(age < TIMING.duration, "{answer}: it gave up {age:?} after the last renewal");
        }
    }

    #[tokio::test]
    async fn one_renewal_that_fails_is_made_good_in_time() {
        let api = FakeApi::start().await;
        let mut agent = Agent::start(&api, "a").await;
        agent.leader(true).await;
        api.fault(fault(Method::PUT, Answer::Status(500, "etcd is away")));
        api.fault(fault(Method::PUT, Answer::Status(429, "later")));
        tokio::time::sleep(TIMING.duration * 2).await;
        agent.says_nothing();
    }

    #[tokio::test]
    async fn a_conflict_is_looked_into() {
        let api = FakeApi::start().await;
        let mut agent = Agent::start(&api, "a").await;
        agent.leader(true).await;
        let mut lease = api.object(LEASES, "kube-system/crier").unwrap();
        lease["metadata"]["labels"] = json!({"touched": "yes"});
        api.put(LEASES, lease.clone());
        tokio::time::sleep(TIMING.duration).await;
        agent.says_nothing();
        let labels = api.object(LEASES, "kube-system/crier").unwrap()["metadata"]["labels"].clone();
        assert_eq!(labels["touched"], "yes", "somebody's label is kept");

        lease["spec"]["holderIdentity"] = json!("thief");
        api.put(LEASES, lease);
        agent.leader(false).await;
        agent.leader(true).await;
    }

    #[tokio::test]
    async fn a_lease_that_is_deleted_is_made_again() {
        let api = FakeApi::start().await;
        let mut agent = Agent::start(&api, "a").await;
        agent.leader(true).await;
        api.delete(LEASES, "kube-system/crier");
        tokio::time::sleep(TIMING.duration).await;
        assert_eq!(holder(&api), "a");
        agent.stop().await;
        assert_eq!(holder(&api), "", "and handed back at the end");
    }
}
