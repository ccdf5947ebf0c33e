//! The Lease: which agent allocates. Floor 2.
//!
//! Tasks: [`run`], owned by the agent, owns this agent's claim on the Lease; and [`sight::follow`], owned by `run`. A
//! cancelled task leaves the Lease to expire; a task that is told to leave releases the Lease, so that the next agent takes
//! over at once.
//!
//! No two clocks are ever compared: a candidate measures from its own observation of the last change of the Lease, the
//! holder from the sending of its last successful renewal. So the holder gives up before any candidate may take over. How long a
//! holder may be silent is what it wrote into the Lease, and a minute at most.
//! An agent whose pools are not those that the last holder allocated by lets the others go first.

mod record;
mod sight;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use self::record::Terms;
use self::sight::Sight;
use crate::clock;
use crate::k8s::barrier::Barrier;
use crate::k8s::refusal::{reason, trouble};
use crate::k8s::watch::no_answer;
use crate::names::{NodeName, ObjectKey};
use crate::stop::Stop;
use crate::world::{Fact, LeaseState, Silence, Trouble};

/// How long a Lease stays valid without renewal. Whole seconds: `leaseDurationSeconds` is an integer.
const DURATION: Duration = Duration::from_secs(6);
/// How long a holder may be silent at most, whatever it wrote: long enough for any that lives, crier's own renew every 2 s.
const LONGEST_PROMISE: Duration = Duration::from_secs(60);
/// How long the release of the Lease may take while the agent stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// So many answers, one after the other, a holder may wait for while its Lease lasts.
const ANSWERS: u32 = 4;

/// The intervals that follow from the duration of a Lease.
#[derive(Debug, Clone, Copy)]
struct Timing {
    duration: Duration,
    longest_promise: Duration,
}

impl Timing {
    /// How often the holder renews.
    fn renew(self) -> Duration {
        self.duration / 3
    }

    /// A holder that could not renew for this long gives up, a sixth of what it wrote before a candidate may take over.
    fn give_up(self, lasts: Duration) -> Duration {
        lasts * 5 / 6
    }

    /// How long an agent that does not hold the Lease waits for an answer.
    fn longest_answer(self) -> Duration {
        self.duration * 5 / 3
    }

    /// What a holder writes, where answers take so long: an API server in trouble needs seconds for each, and one renewal must not be given
    /// up before it is answered. Whole seconds.
    fn lasts(self, answer: Duration) -> Duration {
        let whole = answer * ANSWERS + Duration::from_millis(999);
        Duration::from_secs(whole.as_secs()).clamp(self.duration, self.longest_promise.min(self.duration * 5))
    }

    /// How often a failing holder retries, and a Lease is read that may not be watched. Random, to spread the agents.
    fn look(self) -> Duration {
        (self.duration / 3).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// How much later an agent takes the Lease whose pools are not those of the last holder: enough for all others.
    fn stand_back(self) -> Duration {
        self.duration / 2
    }

    /// After this silence a holder is told as one that does not renew. By then a holder that is dead has been followed.
    fn notable(self) -> Duration {
        self.duration * 2
    }
}

/// The identity of this agent on the Lease: its node, and a random suffix that distinguishes it from the previous agent
/// on that node.
pub fn identity(node: &NodeName) -> String {
    format!("{node}_{:08x}", fastrand::u32(..))
}

/// Where the Lease is, and who wants it.
#[derive(Debug, Clone)]
pub struct Candidacy {
    pub lease: ObjectKey,
    pub identity: String,
    /// The newest count from the next renewal on.
    pub terms: watch::Receiver<Terms>,
}

/// Tries to hold the Lease until `stop` has a reason or its sender is gone. Sends [`Fact::Allocates`] at each change, once what
/// `barrier` stands for was listed, and [`Fact::Lease`] when what is known of the Lease changes.
pub async fn run(
    client: Client,
    candidacy: Candidacy,
    barrier: Barrier,
    facts: mpsc::Sender<Fact>,
    stop: watch::Receiver<Option<Stop>>,
) {
    keep(client, candidacy, barrier, facts, stop, Timing { duration: DURATION, longest_promise: LONGEST_PROMISE })
        .await;
}

async fn keep(
    client: Client,
    Candidacy { lease, identity, mut terms }: Candidacy,
    barrier: Barrier,
    facts: mpsc::Sender<Fact>,
    mut stop: watch::Receiver<Option<Stop>>,
    timing: Timing,
) {
    let api: Api<Lease> = Api::namespaced(client, lease.namespace.as_str());
    let name = lease.name.to_string();
    let (sender, mut sights) = watch::channel(Sight::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(sight::follow(api.clone(), name.clone(), timing.look(), sender));
    let mut claim = Claim::new(api, name, identity, terms.borrow().clone(), timing);
    let (mut allocates, mut round, mut told) = (false, None, LeaseState::default());
    loop {
        let seen = sights.borrow_and_update().clone();
        claim.see(seen);
        claim.terms = terms.borrow_and_update().clone();
        let stopped = tokio::select! {
            () = claim.work() => false,
            _ = stop.wait_for(Option::is_some) => true,
        };
        round = claim.held.as_ref().map(|_| round.unwrap_or_else(|| barrier.ask()));
        let has_pools = claim.terms.has_pools;
        let leads = round.is_some_and(|round| barrier.is_passed(round)) && !stopped && has_pools;
        let state = claim.state();
        if state != told {
            claim.log_difference(&told, &state);
            told = state.clone();
            if facts.send(Fact::Lease(Box::new(state))).await.is_err() {
                return;
            }
        }
        if leads != allocates {
            allocates = leads;
            match allocates {
                true => info!(%lease, "this agent allocates now"),
                false => info!(%lease, "this agent no longer allocates"),
            }
            if facts.send(Fact::Allocates(allocates)).await.is_err() {
                return;
            }
        }
        if !has_pools && !stopped {
            // Its file was read anew and has no pool any more: one that has some is to allocate.
            claim.release().await;
        }
        if stopped {
            // After the fact was sent: another agent may take the Lease as soon as it is free.
            let why = *stop.borrow();
            match why {
                Some(Stop::Leave(_) | Stop::Restart { back_by: _ }) | None => claim.release().await,
            }
            return;
        }
        tokio::select! {
            () = sleep(claim.pause(clock::now())) => {}
            _ = stop.wait_for(Option::is_some) => {}
            // The holder renews by its own clock; what it sees are its own renewals, or that it lost the Lease.
            Ok(()) = sights.changed() => {}
            Ok(()) = terms.changed() => {}
            () = barrier.progress(), if round.is_some() && !allocates => {}
        }
    }
}

/// What this agent knows about the Lease, and whether it holds the Lease.
struct Claim {
    api: Api<Lease>,
    name: String,
    identity: String,
    terms: Terms,
    timing: Timing,
    held: Option<Held>,
    sight: Sight,
    /// What the agents had agreed on when this agent took the Lease.
    inherited: Option<u64>,
    /// By what the holder before this agent allocated.
    of_former: Option<u64>,
    /// Later than the others by chance, so that they do not all try at once.
    late: Duration,
    /// The failure last logged, so that a lasting failure is logged once.
    trouble: Option<Trouble>,
    /// How long the API server took for an answer of late.
    answer: Duration,
}

/// The Lease as the API server last returned it to this holder.
struct Held {
    lease: Lease,
    /// When the last successful renewal was sent.
    renewed: Instant,
    /// When this agent gives up if no other one succeeds.
    until: Instant,
    /// The last renewal failed: retry soon.
    failing: bool,
}

impl Claim {
    fn new(api: Api<Lease>, name: String, identity: String, terms: Terms, timing: Timing) -> Claim {
        let late = timing.look() / 20;
        let (sight, held, trouble) = (Sight::default(), None, None);
        let (inherited, of_former) = (None, None);
        let answer = Duration::ZERO;
        Claim { api, name, identity, terms, timing, held, sight, inherited, of_former, late, trouble, answer }
    }

    /// Takes in what the watch saw, unless this agent itself has seen a newer Lease.
    fn see(&mut self, seen: Sight) {
        let known = self.sight.lease.as_ref().and_then(Option::as_ref);
        let is_history = match (seen.lease.as_ref().and_then(Option::as_ref), known) {
            (Some(seen), Some(known)) => is_older(seen, known),
            (_, _) => false,
        };
        match is_history {
            true => self.sight.trouble = seen.trouble,
            false => self.sight = seen,
        }
    }

    /// One attempt: renews a held Lease when it is due, else takes one that is free. Ends in time for the holder to give up.
    async fn work(&mut self) {
        let now = clock::now();
        let limit = match &self.held {
            Some(held) => held.until.saturating_duration_since(now),
            None => self.timing.longest_answer(),
        };
        let outcome = match timeout(limit, self.attempt(now)).await {
            Ok(outcome) => outcome.map_err(|error| trouble(&error)),
            Err(_) => {
                self.note_answer(limit);
                Err(Trouble::without_answer(no_answer(limit)))
            }
        };
        let outcome = outcome.and_then(|()| self.sight.trouble.clone().map_or(Ok(()), Err));
        match outcome {
            Ok(()) => self.trouble = None,
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    warn!(lease = self.name, why = trouble.why, "the Lease cannot be read or renewed");
                }
                self.trouble = Some(trouble);
            }
        }
        self.held = self.held.take().filter(|held| clock::now() < held.until);
    }

    /// One answer took so long, or did not come within that. A slow one is not forgotten by the next.
    fn note_answer(&mut self, took: Duration) {
        self.answer = took.max(self.answer * 7 / 8);
    }

    async fn attempt(&mut self, now: Instant) -> Result<(), kube::Error> {
        if let Some(held) = &mut self.held {
            if !self
                .sight
                .lease
                .iter()
                .flatten()
                .all(|seen| is_older(seen, &held.lease) || record::holder(seen) == self.identity)
            {
                // Somebody else holds a newer one.
                self.held = None;
                return Ok(());
            }
            if !held.failing && now < held.renewed + self.timing.renew() {
                return Ok(());
            }
            held.failing = true;
            let current = held.lease.clone();
            return match self.take(Some(current)).await {
                // The Lease was changed by somebody: read it, and renew only if this agent still holds it.
                Err(error) if is(&error, 409) => self.look_again().await,
                Err(error) if is(&error, 404) => match self.take(None).await {
                    Err(error) if is(&error, 409) => self.look_again().await,
                    other => other,
                },
                other => other,
            };
        }
        if self.due(now).is_none_or(|due| due > now) {
            return Ok(());
        }
        self.late = self.timing.look() / 20;
        let seen = self.sight.lease.clone().flatten();
        self.inherited = seen.as_ref().and_then(record::agreed);
        self.of_former = seen.as_ref().and_then(record::digest);
        // What this agent found agreed before it lost the Lease says nothing of what it takes the Lease with.
        self.terms.agreed = None;
        match self.take(seen).await {
            // Another agent was faster, or this one has seen nothing of the Lease for a while.
            Err(error) if is(&error, 409) || is(&error, 404) => self.look_again().await,
            other => other,
        }
    }

    /// When this agent may take the Lease, as far as it knows; `None` while it does not know the Lease, or has no pool.
    fn due(&self, now: Instant) -> Option<Instant> {
        let lease = self.sight.lease.as_ref().filter(|_| self.terms.has_pools)?;
        let since = self.sight.since.unwrap_or(now);
        let Some(lease) = lease else { return Some(since) };
        let holder = record::holder(lease);
        if holder == self.identity {
            return Some(since);
        }
        let free =
            if holder.is_empty() { since } else { since + record::promised(lease).min(self.timing.longest_promise) };
        let of_before = record::agreed(lease).or_else(|| record::digest(lease));
        let same = of_before.is_none_or(|digest| digest == self.terms.digest);
        Some(free + if same { Duration::ZERO } else { self.timing.stand_back() } + self.late)
    }

    /// Reads the Lease itself. A holder takes it again if it is still the holder.
    async fn look_again(&mut self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        self.sight.note(lease.clone(), clock::now(), clock::wall());
        let ours = lease.as_ref().is_some_and(|lease| record::holder(lease) == self.identity);
        if !ours {
            self.held = None;
            return Ok(());
        }
        match self.take(lease).await {
            Err(error) if is(&error, 409) => Ok(()),
            other => other,
        }
    }

    /// Writes this agent's identity, its terms and the time into the Lease; a conflict if that changed since it was read.
    async fn take(&mut self, lease: Option<Lease>) -> Result<(), kube::Error> {
        let sent = clock::now();
        let is_new = lease.is_none();
        let lasts = self.timing.lasts(self.answer);
        let secs = i32::try_from(lasts.as_secs()).unwrap_or(i32::MAX);
        let lease = record::taken(lease, &self.name, &self.identity, &self.terms, secs, clock::wall());
        let answer = match is_new {
            true => self.api.create(&PostParams::default(), &lease).await,
            false => self.api.replace(&self.name, &PostParams::default(), &lease).await,
        };
        self.note_answer(clock::now() - sent);
        let lease = answer?;
        self.sight.note(Some(lease.clone()), clock::now(), clock::wall());
        let until = sent + self.timing.give_up(lasts);
        self.held = Some(Held { lease, renewed: sent, until, failing: false });
        Ok(())
    }

    /// How long to wait before the next [`Claim::work`], unless something is seen before.
    fn pause(&self, now: Instant) -> Duration {
        match &self.held {
            Some(held) if held.failing => (self.timing.look() / 4).min(held.until.saturating_duration_since(now)),
            Some(held) => (held.renewed + self.timing.renew()).saturating_duration_since(now),
            None if self.trouble.is_some() => self.timing.look(),
            None => {
                let next = self.due(now).map_or(self.timing.look(), |due| due.saturating_duration_since(now));
                let notable =
                    self.sight.since.map(|since| (since + self.timing.notable()).saturating_duration_since(now));
                notable.filter(|left| !left.is_zero()).map_or(next, |notable| next.min(notable))
            }
        }
    }

    /// That the holder, another agent, does not renew what this agent sees.
    fn silence(&self, now: Instant) -> Option<Silence> {
        let Sight { lease, since: Some(since), began: Some(began), trouble: None } = &self.sight else { return None };
        let lease = lease.as_ref().and_then(Option::as_ref)?;
        let holder = record::holder(lease);
        let is_other = self.held.is_none() && !holder.is_empty() && holder != self.identity;
        let due = self.due(now).map(|due| due - self.late);
        (is_other && now >= *since + self.timing.notable()).then(|| Silence {
            since: *began,
            last_renewal: record::last_renewal(lease),
            taken_after: due.map(|due| due.saturating_duration_since(*since)),
        })
    }

    /// Says whose pools differ, when that becomes known.
    fn log_difference(&self, before: &LeaseState, now: &LeaseState) {
        let differs =
            |state: &LeaseState| state.holder.is_some() && state.digest.is_some_and(|it| it != self.terms.digest);
        let is_news = before.holder != now.holder || !differs(before);
        if let Some(holder) = now.holder.as_ref().filter(|_| differs(now) && is_news) {
            warn!(lease = self.name, %holder, "the pools of this node differ from the holder's: this agent does not allocate");
        }
    }

    fn state(&self) -> LeaseState {
        let inherited = self.held.is_some() && self.inherited == Some(self.terms.digest);
        let seen = self.sight.lease.as_ref().and_then(Option::as_ref);
        let silence = self.silence(clock::now());
        let state = record::state(seen);
        let agreed = state.agreed.or_else(|| self.held.as_ref().and(self.of_former));
        LeaseState { inherited, agreed, silence, trouble: self.trouble.clone(), ..state }
    }

    /// Releases the Lease. If that fails, the Lease expires.
    async fn release(&mut self) {
        let Some(Held { lease, .. }) = self.held.take() else { return };
        let lease = record::released(lease, self.terms.agreed);
        match timeout(RELEASE_TIMEOUT, self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(lease = self.name, why = reason(&error), "the Lease was not released and will expire")
            }
            Err(_) => {
                warn!(lease = self.name, why = no_answer(RELEASE_TIMEOUT), "the Lease was not released and will expire")
            }
        }
    }
}

/// The watch tells late what this agent has written itself. Versions of one object can be compared as numbers (KEP-5504).
fn is_older(seen: &Lease, held: &Lease) -> bool {
    let version = |lease: &Lease| lease.metadata.resource_version.as_ref().and_then(|text| text.parse::<u64>().ok());
    version(seen) <= version(held)
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
