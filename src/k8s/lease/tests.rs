//! Who holds the Lease, against an API server that misbehaves. The clock of these tests goes on only when there is nothing to do,
//! so that the seconds below are those of the agents alone, however little of the machine the tests get.

use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::k8s::fake::{self, Answer, FakeApi, Fault};
use crate::stop::Cause;
use crate::world::Refusal;

const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const TIMING: Timing = Timing { duration: Duration::from_secs(1), longest_promise: Duration::from_secs(4) };

fn terms(digest: u64) -> Terms {
    Terms { digest, agreed: Some(digest), class: "crier.dev/crier".to_owned(), has_pools: true }
}

struct Agent {
    facts: mpsc::Receiver<Fact>,
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<()>,
}

impl Agent {
    async fn start(api: &FakeApi, identity: &str) -> Agent {
        Agent::with(api, identity, terms(1)).await
    }

    async fn with(api: &FakeApi, identity: &str, terms: Terms) -> Agent {
        let (sender, facts) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(None);
        let lease = ObjectKey::new("kube-system", "crier");
        let candidacy = Candidacy { lease, identity: identity.to_owned(), terms: watch::channel(terms).1 };
        let task = tokio::spawn(keep(api.direct(), candidacy, Barrier::new(&[]), sender, stopped, TIMING));
        Agent { facts, stop, task }
    }

    async fn allocates(&mut self, expected: bool) {
        let what = if expected { "the Lease" } else { "the loss of the Lease" };
        let told = fake::until(&mut self.facts, what, |fact| match fact {
            Fact::Allocates(allocates) => Some(*allocates),
            Fact::Lease(_) => None,
            other => panic!("{other:?} of a Lease"),
        });
        assert_eq!(told.await, expected);
    }

    fn says_nothing(&mut self) {
        while let Ok(fact) = self.facts.try_recv() {
            assert!(matches!(fact, Fact::Lease(_)), "it said {fact:?}");
        }
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

/// By the clock of the test, which `Instant::elapsed` does not follow.
fn passed_since(at: Instant) -> Duration {
    clock::now() - at
}

fn fault(method: Method, answer: Answer) -> Fault {
    Fault { method, path: PATH, watch: None, answer }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_holds_it_and_the_other_follows_when_it_is_handed_back() {
    let api = FakeApi::start().await;
    let mut first = Agent::start(&api, "a").await;
    first.allocates(true).await;
    let mut second = Agent::start(&api, "b").await;
    tokio::time::sleep(TIMING.duration * 2).await;
    second.says_nothing();
    first.says_nothing();
    assert_eq!(holder(&api), "a");

    let stopped = clock::now();
    first.stop().await;
    second.allocates(true).await;
    assert!(
        passed_since(stopped) < TIMING.give_up(TIMING.duration),
        "it did not wait for the Lease to expire: {:?}",
        passed_since(stopped)
    );
    assert_eq!(holder(&api), "b");
    let lease = api.object(LEASES, "kube-system/crier").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_followed_when_its_time_is_over_and_not_before() {
    let api = FakeApi::start().await;
    let mut first = Agent::start(&api, "a").await;
    first.allocates(true).await;
    let mut second = Agent::start(&api, "b").await;
    tokio::time::sleep(TIMING.duration).await;
    let killed = clock::now();
    first.kill();
    second.allocates(true).await;
    let gap = passed_since(killed);
    assert!(gap >= TIMING.duration - TIMING.renew(), "it took over after {gap:?}");
    assert!(gap < TIMING.duration * 2, "it took over only after {gap:?}");
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_another_host_is_not_believed() {
    let api = FakeApi::start().await;
    let spec = json!({"holderIdentity": "far", "leaseDurationSeconds": 1, "renewTime": "1990-01-01T00:00:00.000000Z"});
    api.put(LEASES, json!({"metadata": {"name": "crier", "namespace": "kube-system"}, "spec": spec}));
    let mut agent = Agent::start(&api, "a").await;
    tokio::time::sleep(TIMING.duration / 2).await;
    agent.says_nothing();
    agent.allocates(true).await;
}

/// Input: a Lease of an agent that died yesterday, with a promise of a day. Output: the holder and its silence are told, with when the
/// Lease is taken over, and it is.
#[tokio::test(start_paused = true)]
async fn a_dead_holder_that_promised_a_day_is_named_and_followed_at_the_bound() {
    let api = FakeApi::start().await;
    let renewed = "2026-07-01T08:00:00.000000Z";
    let spec = json!({"holderIdentity": "ghost_1", "leaseDurationSeconds": 86400, "renewTime": renewed});
    api.put(LEASES, json!({"metadata": {"name": "crier", "namespace": "kube-system"}, "spec": spec}));
    let began = (clock::now(), clock::wall());
    let mut agent = Agent::start(&api, "a").await;
    let seen = lease_state(&mut agent, "the silence", |state| state.silence.is_some()).await;
    assert!(passed_since(began.0) >= TIMING.notable(), "it is no news before");
    assert_eq!(seen.holder, Some("ghost".into()));
    let Silence { since, last_renewal, taken_after } = seen.silence.expect("it was waited for");
    let first_sight = since.duration_since(began.1).expect("it is seen after the start");
    assert!(first_sight < TIMING.duration, "the silence counts from the first sight: {first_sight:?}");
    let last_renewal = jiff::Timestamp::try_from(last_renewal.expect("the holder said")).unwrap();
    assert_eq!(last_renewal, renewed.parse().unwrap());
    assert_eq!(taken_after, Some(TIMING.longest_promise));

    let seen = lease_state(&mut agent, "its own taking", |state| state.holder == Some("a".into())).await;
    assert!(passed_since(began.0) >= TIMING.longest_promise, "it did not wait: {:?}", passed_since(began.0));
    assert_eq!(seen.silence, None);
    agent.allocates(true).await;
}

/// Input: a holder that renews, and one that frees the Lease. Output: nothing is said of silence.
#[tokio::test(start_paused = true)]
async fn a_holder_that_renews_is_not_told_as_silent() {
    let api = FakeApi::start().await;
    let mut first = Agent::start(&api, "a").await;
    first.allocates(true).await;
    let mut second = Agent::with(&api, "b", Terms { has_pools: false, ..terms(1) }).await;
    tokio::time::sleep(TIMING.notable() * 2).await;
    first.stop().await;
    tokio::time::sleep(TIMING.notable() * 2).await;
    let mut states = 0;
    while let Ok(fact) = second.facts.try_recv() {
        let Fact::Lease(state) = fact else { panic!("{fact:?} of an agent without a pool") };
        assert_eq!(state.silence, None, "{state:?}");
        states += 1;
    }
    assert!(states >= 2, "the holder, and that there is none");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_gives_up_before_the_others_may_take_over() {
    for answer in ["silence", "failure"] {
        let api = FakeApi::start().await;
        let mut agent = Agent::start(&api, "a").await;
        agent.allocates(true).await;
        for _ in 0..100 {
            let answer = if answer == "silence" { Answer::Silence } else { Answer::Status(500, "etcd is away") };
            api.fault(fault(Method::PUT, answer));
        }
        let last = api.object(LEASES, "kube-system/crier").unwrap()["spec"]["renewTime"].clone();
        agent.allocates(false).await;
        let seen = api.object(LEASES, "kube-system/crier").unwrap()["spec"]["renewTime"].clone();
        assert_eq!(last, seen, "nothing was renewed meanwhile");
        let renewed: jiff::Timestamp = seen.as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::try_from(clock::wall()).unwrap().duration_since(renewed);
        let age = Duration::try_from(age).unwrap();
        assert!(age < TIMING.duration, "{answer}: it gave up {age:?} after the last renewal");
    }
}

#[tokio::test(start_paused = true)]
async fn one_renewal_that_fails_is_made_good_in_time() {
    let api = FakeApi::start().await;
    let mut agent = Agent::start(&api, "a").await;
    agent.allocates(true).await;
    api.fault(fault(Method::PUT, Answer::Status(500, "etcd is away")));
    api.fault(fault(Method::PUT, Answer::Status(429, "later")));
    tokio::time::sleep(TIMING.duration * 2).await;
    agent.says_nothing();
}

/// Input: an API server that does what it is asked and answers late, as one with a slow disk does for hours; a holder, and
/// another agent that would follow. Output: as soon as the holder knows how late, it keeps the Lease, which says how long it lasts.
#[tokio::test(start_paused = true)]
async fn a_lease_lasts_while_answers_are_late() {
    for late in [500, 800, 1400].map(Duration::from_millis) {
        let api = FakeApi::start().await;
        let mut agents = [Agent::start(&api, "a").await, Agent::start(&api, "b").await];
        agents[0].allocates(true).await;
        for method in [Method::PUT, Method::POST] {
            (0..400).for_each(|_| api.fault(fault(method.clone(), Answer::Late(late))));
        }
        tokio::time::sleep(late * 20).await;
        let mut leads = [true, false];
        for (agent, leads) in agents.iter_mut().zip(&mut leads) {
            while let Ok(fact) = agent.facts.try_recv() {
                if let Fact::Allocates(allocates) = fact {
                    *leads = allocates;
                }
            }
        }
        assert!(leads[0] != leads[1], "one allocates at {late:?}: {leads:?}");
        tokio::time::sleep(late * 40).await;
        agents.iter_mut().for_each(Agent::says_nothing);
        let lease = api.object(LEASES, "kube-system/crier").expect("a Lease");
        let lasts = lease["spec"]["leaseDurationSeconds"].as_u64().expect("a number");
        assert!(
            Duration::from_secs(lasts) > late * 2 && lasts <= TIMING.longest_promise.as_secs(),
            "{late:?}: {lasts} s"
        );
        // It is quick again, and the Lease is as short as before.
        api.clear_faults();
        tokio::time::sleep(TIMING.duration * 30).await;
        let lease = api.object(LEASES, "kube-system/crier").expect("a Lease");
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_looked_into() {
    let api = FakeApi::start().await;
    let mut agent = Agent::start(&api, "a").await;
    agent.allocates(true).await;
    let mut lease = api.object(LEASES, "kube-system/crier").unwrap();
    lease["metadata"]["labels"] = json!({"touched": "yes"});
    api.put(LEASES, lease.clone());
    tokio::time::sleep(TIMING.duration).await;
    agent.says_nothing();
    let labels = api.object(LEASES, "kube-system/crier").unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels["touched"], "yes", "somebody's label is kept");

    lease["spec"]["holderIdentity"] = json!("thief");
    api.put(LEASES, lease);
    agent.allocates(false).await;
    agent.allocates(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_deleted_is_made_again() {
    let api = FakeApi::start().await;
    let mut agent = Agent::start(&api, "a").await;
    agent.allocates(true).await;
    api.delete(LEASES, "kube-system/crier");
    tokio::time::sleep(TIMING.duration).await;
    assert_eq!(holder(&api), "a");
    agent.stop().await;
    assert_eq!(holder(&api), "", "and handed back at the end");
}

async fn lease_state(agent: &mut Agent, what: &str, wanted: impl Fn(&LeaseState) -> bool) -> LeaseState {
    fake::until(&mut agent.facts, what, |fact| match fact {
        Fact::Lease(state) if wanted(state) => Some(LeaseState::clone(state)),
        _ => None,
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_other_pools_lets_the_others_go_first_and_says_whose_differ() {
    let api = FakeApi::start().await;
    let mut first = Agent::with(&api, "old-1_x", terms(1)).await;
    first.allocates(true).await;
    let mut new = Agent::with(&api, "new_x", terms(2)).await;
    let mut second = Agent::with(&api, "old-2_x", terms(1)).await;
    let seen = lease_state(&mut new, "the holder", |state| state.holder.is_some()).await;
    assert_eq!((seen.holder, seen.digest), (Some("old-1".into()), Some(1)));
    first.stop().await;
    let inherited = lease_state(&mut second, "its own taking", |state| state.inherited).await;
    assert_eq!(inherited.holder, Some("old-2".into()));
    second.allocates(true).await;
    new.says_nothing();

    let stopped = clock::now();
    second.stop().await;
    let seen = lease_state(&mut new, "its own taking", |state| state.holder == Some("new".into())).await;
    assert!(passed_since(stopped) >= TIMING.stand_back(), "it gave the others time: {:?}", passed_since(stopped));
    new.allocates(true).await;
    assert_eq!((seen.inherited, seen.digest), (false, Some(2)), "the write that takes the Lease says by what");
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_a_pool_never_takes_the_lease() {
    let api = FakeApi::start().await;
    let mut agent = Agent::with(&api, "a", Terms { has_pools: false, ..terms(1) }).await;
    tokio::time::sleep(TIMING.duration * 2).await;
    agent.says_nothing();
    assert!(api.object(LEASES, "kube-system/crier").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_asks_the_api_server_next_to_nothing() {
    let api = FakeApi::start().await;
    let mut holder = Agent::start(&api, "a").await;
    holder.allocates(true).await;
    let _idle = Agent::start(&api, "b").await;
    tokio::time::sleep(TIMING.duration / 2).await;
    let before = api.requests(&Method::GET, PATH).len();
    tokio::time::sleep(TIMING.duration * 4).await;
    assert_eq!(api.requests(&Method::GET, PATH).len(), before, "one list and one watch, and nothing more");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_may_not_watch_the_lease_reads_it_and_says_so() {
    let api = FakeApi::start().await;
    for _ in 0..100 {
        let answer = Answer::Status(403, "no watch");
        api.fault(Fault { method: Method::GET, path: PATH, watch: Some(true), answer });
    }
    let mut agent = Agent::start(&api, "a").await;
    let (mut leads, mut trouble) = (false, None);
    while !leads || trouble.is_none() {
        match agent.facts.recv().await.expect("the task lives") {
            Fact::Allocates(now) => leads = now,
            Fact::Lease(state) => trouble = state.trouble,
            other => panic!("{other:?} of a Lease"),
        }
    }
    let expected = Trouble { refusal: Refusal::Forbidden, why: "403 no watch".to_owned() };
    assert_eq!(trouble, Some(expected));
    assert_eq!(holder(&api), "a");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allocated_before_what_is_listed_is_newer_than_the_taking() {
    let api = FakeApi::start().await;
    let barrier = Barrier::new(&["services"]);
    let (sender, mut facts) = mpsc::channel(64);
    let (_stop, stopped) = watch::channel(None);
    let lease = ObjectKey::new("kube-system", "crier");
    let candidacy = Candidacy { lease, identity: "a".to_owned(), terms: watch::channel(terms(1)).1 };
    let (client, asked) = (api.direct(), barrier.clone());
    tokio::spawn(keep(client, candidacy, barrier, sender, stopped, TIMING));
    asked.is_asked(Some(0)).await;
    assert_eq!(holder(&api), "a", "it holds the Lease");
    tokio::time::sleep(TIMING.duration).await;
    while let Ok(fact) = facts.try_recv() {
        assert!(!matches!(fact, Fact::Allocates(_)), "{fact:?} before the list");
    }
    asked.listed("services", asked.begin("services").expect("it is needed"));
    let leads = fake::until(&mut facts, "the lead", |fact| match fact {
        Fact::Allocates(leads) => Some(*leads),
        _ => None,
    });
    assert!(leads.await);
}

/// Input: the holder reads another file, which nobody else has, and its agent ends; nobody else takes the Lease. Output: the next life of
/// the agent inherits nothing from itself. With the former file it does, and so does whoever has that one.
#[tokio::test(start_paused = true)]
async fn nobody_inherits_from_a_holder_what_was_never_agreed() {
    let api = FakeApi::start().await;
    let mut first = Agent::with(&api, "a_1", terms(1)).await;
    first.allocates(true).await;
    first.stop().await;
    // As after a reload: another digest in use, and no agreement.
    let slip = Terms { agreed: None, ..terms(2) };
    for life in ["a_2", "a_3"] {
        let mut agent = Agent::with(&api, life, slip.clone()).await;
        let seen = lease_state(&mut agent, "its taking", |state| state.digest == Some(2)).await;
        assert!(!seen.inherited, "{life}");
        agent.allocates(true).await;
        agent.stop().await;
    }
    let mut other = Agent::with(&api, "b_1", Terms { agreed: None, ..terms(1) }).await;
    let freed = clock::now();
    let seen = lease_state(&mut other, "its taking", |state| state.digest == Some(1)).await;
    assert!(seen.inherited, "the agents agreed on that one");
    assert!(passed_since(freed) < TIMING.stand_back(), "and it need not stand back: {:?}", passed_since(freed));
}

/// Input: an agent with another file takes the Lease, and somebody confirms that file with kubectl. Output: the holder
/// says what is agreed, and goes on holding it.
#[tokio::test(start_paused = true)]
async fn a_holder_sees_the_file_that_somebody_confirms_in_the_lease() {
    let api = FakeApi::start().await;
    let mut first = Agent::with(&api, "a_1", terms(1)).await;
    first.allocates(true).await;
    first.stop().await;
    let mut other = Agent::with(&api, "b_1", Terms { agreed: None, ..terms(2) }).await;
    let seen = lease_state(&mut other, "its taking", |state| state.digest == Some(2)).await;
    assert_eq!((seen.agreed, seen.inherited), (Some(1), false));
    let mut lease = api.object(LEASES, "kube-system/crier").expect("it is there");
    let (name, value) = LeaseState::confirmation(2).split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    lease["metadata"]["annotations"][name] = value.into();
    api.put(LEASES, lease);
    let seen = lease_state(&mut other, "the confirmation", |state| state.agreed == Some(2)).await;
    assert_eq!(seen.holder, Some("b".into()));
    tokio::time::sleep(TIMING.renew() * 2).await;
    assert_eq!(
        record::agreed(&serde_json::from_value(api.object(LEASES, "kube-system/crier").unwrap()).unwrap()),
        Some(2)
    );
    assert_eq!(holder(&api), "b_1");
}

/// Input: nothing was ever agreed, and an agent with another file takes the Lease. Output: what the holder before had is no consent.
#[tokio::test(start_paused = true)]
async fn the_file_of_the_holder_before_counts_where_none_was_agreed() {
    let api = FakeApi::start().await;
    let first = Agent::with(&api, "a_1", Terms { agreed: None, ..terms(1) }).await;
    let mut other = Agent::with(&api, "b_1", Terms { agreed: None, ..terms(2) }).await;
    lease_state(&mut other, "the holder", |state| state.digest == Some(1)).await;
    first.stop().await;
    let seen = lease_state(&mut other, "its taking", |state| state.digest == Some(2)).await;
    assert_eq!((seen.agreed, seen.inherited), (Some(1), false));
}

/// Input: the holder reads a file without a pool. Output: it lets the Lease go, and takes it again once there are pools.
#[tokio::test(start_paused = true)]
async fn a_holder_whose_pools_are_gone_lets_the_lease_go() {
    let api = FakeApi::start().await;
    let (sender, mut facts) = mpsc::channel(64);
    let (_stop, stopped) = watch::channel(None);
    let (says, terms_seen) = watch::channel(terms(1));
    let lease = ObjectKey::new("kube-system", "crier");
    let candidacy = Candidacy { lease, identity: "a".to_owned(), terms: terms_seen };
    tokio::spawn(keep(api.direct(), candidacy, Barrier::new(&[]), sender, stopped, TIMING));
    let mut other = None;
    for (has_pools, leads) in [(true, true), (false, false), (true, true)] {
        says.send_replace(Terms { has_pools, ..terms(1) });
        let told = fake::until(&mut facts, "who allocates", |fact| match fact {
            Fact::Allocates(leads) => Some(*leads),
            _ => None,
        });
        assert_eq!(told.await, leads);
        if !has_pools {
            let mut second = Agent::start(&api, "b").await;
            second.allocates(true).await;
            second.stop().await;
            other = Some(());
        }
    }
    assert!(other.is_some(), "another one allocated meanwhile");
}
