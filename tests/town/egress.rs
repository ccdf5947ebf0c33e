//! Egress in the town: pods that send, what agents do to the tables of their hosts step by step, and where packets come out. The keeper is
//! as `egress::task` and `kernel::steering` are, without their sockets: whoever changes these adapts this file.
//!
//! After each step of a kernel all pods send, so that no order of steps is passed over, and now and then besides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crier::egress::keepalive;
use crier::egress::machine::{Guarded, Kept, Machine, Release};
use crier::egress::ruleset::Content;
use crier::egress::stale::{Judge, changed, judged};
use crier::egress::standing::{Absence, Standing};
use crier::names::ObjectKey;
use crier::plan::slice::EgressSlice;
use ipnet::IpNet;

use crier::world::{Area, EndpointAddresses, EndpointSlice, Fact, HeldPod, HostProblem, PodMark, Tenant};

use crate::netfilter::{Fate, Kernel, Sent};
use crate::story::Station;
use crate::town::{Event, Notice, Town};

/// How long a pod is held that no Service asks for any more: `[egress] release-after`.
const RELEASE_AFTER: Duration = Duration::from_secs(600);

/// How long after an error the keeper tries again: `egress::task`.
const RETRY: Duration = Duration::from_millis(200);

/// How long a step of the kernel takes at most, in microseconds, and how long it takes to hear of a flush.
const STEP: u64 = 800;
const FLUSH_HEARD: u64 = 3000;

/// The routes are made by another task.
const ROUTES: u64 = 3000;

/// How often every pod sends.
pub const SEND_INTERVAL: Duration = Duration::from_millis(50);

/// Of so many connections each pod goes on with one.
const CONNECTIONS: u16 = 5;

/// A packet that goes from node to node for ever is none that leaves.
const MOST_HOPS: usize = 4;

/// A pod.
#[derive(Debug, Clone)]
pub struct Pod {
    pub address: IpAddr,
    pub host: Station,
    /// Of which Service it is.
    pub service: usize,
    /// Grows with each pod that has the address.
    pub number: u32,
    /// It is of a Service without egress.
    pub plain: bool,
    /// Its node has guarded it: from then on nothing of it may leave with another address than its Service's. Before that, new pods pass
    /// (`new-pods = "pass"`), so it waits.
    pub sends: bool,
    /// When something of it last left with the Service's address.
    pub left: Option<Instant>,
}

impl Pod {
    fn tenant(&self) -> Tenant {
        Tenant::of(&format!("{}-{}", self.address, self.number), false)
    }
}

/// One step of the kernel's, or something that the World is told between two of them.
pub enum Step {
    Put { content: Arc<Content>, marks: BTreeMap<IpAddr, PodMark> },
    Remove,
    Forget { content: Arc<Content>, pods: BTreeSet<IpAddr>, released: BTreeSet<IpAddr> },
    ForgetFormer(Arc<Content>, BTreeSet<IpAddr>),
    Tell(Box<Fact>),
    Done,
}

/// As `egress::task` has it.
pub struct Keeper {
    machine: Machine,
    slice: EgressSlice,
    written: Option<Arc<Content>>,
    judged: Arc<Content>,
    ended: BTreeSet<IpAddr>,
    standing: Standing,
    told: Option<Absence>,
    told_held: BTreeMap<IpAddr, Release>,
    told_translated: Option<Arc<BTreeSet<IpAddr>>>,
    steps: VecDeque<Step>,
    /// It is to begin anew when all steps are done.
    again: bool,
}

impl Keeper {
    /// What an earlier life of the agent guarded goes on being guarded. `sources`: what the World is to be told.
    pub fn adopt(kernel: &Kernel, kept: &BTreeMap<IpAddr, Kept>, now: Instant) -> (Keeper, Option<Fact>) {
        let mut machine = Machine::new(RELEASE_AFTER);
        let guarded = |pod: IpAddr| Guarded { pod, destinations: None, kept: kept.get(&pod).copied() };
        machine.handle_held(kernel.guarded().into_iter().map(guarded), now);
        machine.handle_ways(kernel.ways(), now);
        let judged = Arc::new(machine.content().clone());
        let sources = machine.former_sources();
        let told = (!sources.is_empty()).then_some(Fact::EgressSources(sources));
        let keeper = Keeper {
            machine,
            slice: EgressSlice::default(),
            written: None,
            judged,
            ended: BTreeSet::new(),
            standing: Standing::default(),
            told: None,
            told_held: BTreeMap::new(),
            told_translated: None,
            steps: VecDeque::new(),
            again: false,
        };
        (keeper, told)
    }

    pub fn kept(&self, now: Instant) -> BTreeMap<IpAddr, Kept> {
        self.machine.kept(now)
    }

    /// Whether its steps are to be done from now on.
    pub fn handle_slice(&mut self, slice: EgressSlice, now: Instant) -> bool {
        self.slice = slice;
        self.begin(now)
    }

    /// The kernel says that rules of the table are gone.
    pub fn handle_removed(&mut self, now: Instant) -> bool {
        self.standing.handle_removed(now);
        self.written = None;
        self.begin(now)
    }

    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.machine.handle_timeout(now);
        self.begin(now)
    }

    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let calm = self.standing.next_deadline().filter(|due| *due > now);
        self.machine.next_deadline().into_iter().chain(calm).min()
    }

    /// Goes through its loop once, as far as that needs no kernel. False: it is at it, and looks again afterwards.
    fn begin(&mut self, now: Instant) -> bool {
        if !self.slice.planned {
            return false;
        }
        if !self.steps.is_empty() {
            self.again = true;
            return false;
        }
        self.machine.handle_plan(&self.slice, now);
        let content = Arc::new(self.machine.content().clone());
        let released: BTreeSet<IpAddr> = self.machine.released().keys().copied().collect();
        if self.machine.is_idle() {
            if self.written.is_some() || !self.judged.pods.is_empty() {
                let let_go = self.machine.take_let_go();
                self.steps.extend([Step::Remove, Step::ForgetFormer(content, let_go)]);
            }
            self.tell_translated(BTreeSet::new());
        } else {
            let known = self.written.clone().unwrap_or_else(|| self.judged.clone());
            let moved = keepalive::moved(&known, &content, self.written.is_some());
            let is_same = self.written.as_ref() == Some(&content);
            if is_same && moved.is_empty() && released.is_subset(&self.ended) {
                self.tell_translated(content.translated());
            } else {
                let mut pods = match &self.written {
                    Some(before) => changed(before, &content),
                    None => content.pods.keys().copied().collect(),
                };
                pods.extend(&moved);
                pods.extend(released.difference(&self.ended));
                let let_go = self.machine.take_let_go();
                let marks = self.slice.marks.iter().map(|(pod, mark)| (*pod, *mark)).collect();
                self.steps.push_back(Step::Put { content: content.clone(), marks });
                self.tell_translated(content.translated());
                self.steps.push_back(Step::Forget { content: content.clone(), pods, released });
                self.steps.push_back(Step::ForgetFormer(content, let_go));
            }
        }
        self.steps.push_back(Step::Done);
        true
    }

    fn tell_translated(&mut self, addresses: BTreeSet<IpAddr>) {
        if self.told_translated.as_deref() != Some(&addresses) {
            let addresses = Arc::new(addresses);
            self.told_translated = Some(addresses.clone());
            self.steps.push_back(Step::Tell(Box::new(Fact::EgressTranslated(addresses))));
        }
    }

    /// Does the next step; `None`: there is none. What the World is to be told, and the pods that the guard knows since, with their marks.
    fn step(&mut self, kernel: &mut Kernel, now: Instant) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        match self.steps.pop_front()? {
            Step::Put { content, marks } => {
                if !kernel.put(&content, self.written.is_none()) {
                    self.standing.handle_refused("no such table".to_owned(), now);
                    (self.written, self.again) = (None, false);
                    self.steps.clear();
                    self.told_translated = Some(Arc::default());
                    outcome.told.push(Fact::EgressTranslated(Arc::default()));
                    outcome.retries = true;
                    return Some(outcome);
                }
                self.standing.handle_written();
                self.written = Some(content);
                outcome.guards = marks;
            }
            Step::Remove => {
                kernel.remove();
                (self.written, self.judged) = (None, Arc::default());
            }
            Step::Forget { content, pods, released } => {
                let judge = Judge { before: &self.judged, content: &content, pods: &pods, released: &released };
                kernel.forget(judge, false);
                self.ended = released;
            }
            Step::ForgetFormer(content, pods) => {
                let released = BTreeSet::new();
                let judge = Judge { before: &self.judged, content: &content, pods: &pods, released: &released };
                kernel.forget(judge, true);
                self.judged = judged(&self.judged, content);
            }
            Step::Tell(fact) => outcome.told.push(*fact),
            Step::Done => {
                kernel.forwards = true;
                self.tell_held(&mut outcome.told);
                self.tell_standing(now, &mut outcome.told);
                if std::mem::take(&mut self.again) {
                    self.begin(now);
                }
            }
        }
        Some(outcome)
    }

    fn tell_held(&mut self, told: &mut Vec<Fact>) {
        let released = self.machine.released();
        if self.told_held != *released {
            self.told_held.clone_from(released);
            let held =
                |(address, release): (&IpAddr, &Release)| (*address, HeldPod { until: UNIX_EPOCH, pod: release.pod });
            told.push(Fact::EgressHeld(Arc::new(released.iter().map(held).collect())));
        }
    }

    fn tell_standing(&mut self, now: Instant, told: &mut Vec<Fact>) {
        let absence = self.standing.absence(now);
        if self.told != absence {
            let problem = absence.as_ref().map(|it| HostProblem { problem: format!("{it:?}"), remedy: String::new() });
            told.push(Fact::Problems(Area::Egress, problem.into_iter().collect()));
            self.told = absence;
        }
    }
}

/// What a step leads to.
#[derive(Default)]
struct Outcome {
    told: Vec<Fact>,
    guards: BTreeMap<IpAddr, PodMark>,
    retries: bool,
}

/// The pods in the beginning: of each Service with egress one on every host.
pub fn pods(hosts: usize, services: usize) -> Vec<Pod> {
    let of_service = |service: usize| (0..hosts).map(move |host| (service, host));
    let pod = |(service, host)| Pod {
        address: IpAddr::from([10, 244, octet(host + 1), octet(service + 10)]),
        host,
        service,
        number: 1,
        plain: false,
        sends: false,
        left: None,
    };
    (0..services).flat_map(of_service).map(pod).collect()
}

/// The addresses of a host's pods.
pub fn network(host: Station) -> IpNet {
    IpNet::new(IpAddr::from([10, 244, octet(host + 1), 0]), 24).expect("a prefix of IPv4")
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).expect("a town is not that large")
}

impl Town {
    /// The pods of a Service with egress.
    pub fn tenants(&self, service: usize, plain: bool) -> EndpointAddresses {
        let own = self.pods.iter().filter(|pod| pod.service == service && pod.plain == plain);
        EndpointAddresses::of(&own.map(|pod| (pod.address, pod.tenant())).collect::<Vec<_>>())
    }

    /// A Service without egress, which has the pods that took addresses of pods with egress.
    pub fn plain_endpoints(&self, service: usize) -> Fact {
        let key = ObjectKey::new("plain", &service.to_string());
        let slice = EndpointSlice {
            service: key.clone(),
            family: None,
            ready: Default::default(),
            serving: Default::default(),
            serving_without_node: 1,
            unready: Default::default(),
            addresses: self.tenants(service, true),
        };
        Fact::EndpointSlice(key, Some(Arc::new(slice)))
    }

    /// Another pod has the address of a Service's pod on a host: of the Service, or `plain` of another one.
    pub fn replace_pod(&mut self, service: usize, host: Station, plain: bool) {
        let Some(pod) = self.pods.iter_mut().find(|pod| pod.service == service && pod.host == host) else { return };
        (pod.plain, pod.sends, pod.left) = (plain, false, None);
        pod.number += 1;
        for host in (0..self.hosts.len()).filter(|host| self.hosts[*host].sees_api).collect::<Vec<_>>() {
            let facts = match plain {
                true => vec![self.endpoint(service), self.plain_endpoints(service)],
                false => vec![self.plain_endpoints(service), self.endpoint(service)],
            };
            self.tell(host, facts);
        }
    }

    /// `nft flush ruleset` by another program, while an agent runs: without one nobody mends it.
    pub fn flush(&mut self, number: Station) {
        let now = self.now();
        let is_there = self.hosts[number].agent.is_some();
        if is_there && self.hosts[number].kernel.flush() {
            let heard = now + Duration::from_micros(self.random.u64(20..FLUSH_HEARD));
            self.events.post(heard, Event::Flushed(number, self.hosts[number].life));
            self.send_from_pods();
        }
    }

    /// The agent has another slice for the table and the routes.
    pub fn follow_egress(&mut self, number: Station) {
        let now = self.now();
        let (table, routes) = (self.random.u64(10..STEP), self.random.u64(10..ROUTES));
        let life = self.hosts[number].life;
        self.events.post(now + Duration::from_micros(routes), Event::Route(number, life));
        let Some(agent) = &mut self.hosts[number].agent else { return };
        let slice = agent.egress_slice().clone();
        if agent.keeper.as_mut().is_some_and(|keeper| keeper.handle_slice(slice, now)) {
            self.events.post(now + Duration::from_micros(table), Event::Step(number, life));
        }
    }

    pub fn hear_of_flush(&mut self, number: Station) {
        self.begin_steps(number, Keeper::handle_removed);
    }

    pub fn wake_keeper(&mut self, number: Station) {
        self.begin_steps(number, Keeper::handle_timeout);
    }

    fn begin_steps(&mut self, number: Station, handle: impl FnOnce(&mut Keeper, Instant) -> bool) {
        let now = self.now();
        let keeper = self.hosts[number].agent.as_mut().and_then(|agent| agent.keeper.as_mut());
        if keeper.is_some_and(|keeper| handle(keeper, now)) {
            self.events.post(now, Event::Step(number, self.hosts[number].life));
        }
    }

    pub fn make_routes(&mut self, number: Station) {
        let host = &mut self.hosts[number];
        let Some(slice) = host.agent.as_ref().map(|agent| agent.egress_slice().clone()) else { return };
        if slice.planned {
            host.kernel.route(&slice.hops, slice.complete && slice.settled);
            self.send_from_pods();
        }
    }

    /// The keeper's next step.
    pub fn step_egress(&mut self, number: Station) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let Some(agent) = &mut host.agent else { return };
        let Some(keeper) = &mut agent.keeper else { return };
        let Some(Outcome { told, guards, retries }) = keeper.step(&mut host.kernel, now) else { return };
        let (life, is_done) = (host.life, keeper.steps.is_empty());
        let wakes = keeper.next_deadline(now);
        let is_news = !told.is_empty();
        told.into_iter().for_each(|fact| agent.learn(fact));
        for pod in self.pods.iter_mut().filter(|pod| pod.host == number && !pod.plain) {
            pod.sends |= guards.get(&pod.address).is_some_and(|mark| Some(*mark) == pod.tenant().pod());
        }
        if retries {
            self.events.post(now + RETRY, Event::Keep(number, life));
        } else if !is_done {
            let next = now + Duration::from_micros(self.random.u64(10..STEP));
            self.events.post(next, Event::Step(number, life));
        } else if let Some(wakes) = wakes {
            self.events.post(wakes, Event::Keep(number, life));
        }
        self.send_from_pods();
        if is_news {
            self.attend(number);
        }
    }

    /// Every pod sends one packet of each of its connections.
    pub fn send_from_pods(&mut self) {
        for place in 0..self.pods.len() {
            if self.pods[place].sends && !self.pods[place].plain && self.hosts[self.pods[place].host].up {
                for connection in 0..CONNECTIONS {
                    // The first sends always, and the others at times: what paused goes on as conntrack knows it.
                    if connection == 0 || self.random.u8(0..4) == 0 {
                        self.send_from_pod(place, 40_000 + connection);
                    }
                }
            }
        }
    }

    fn send_from_pod(&mut self, place: usize, port: u16) {
        let now = self.now();
        let Pod { address, host, service, .. } = self.pods[place];
        let (mut at, mut source) = (host, address);
        for hop in 0..MOST_HOPS {
            match self.hosts[at].kernel.forward(Sent { source, port }, hop > 0, now) {
                Fate::Dropped => return,
                Fate::Left { source } if source == IpAddr::V4(self.addresses[service]) => {
                    self.pods[place].left = Some(now);
                    return;
                }
                Fate::Left { source } => {
                    self.notices.push(Notice::Leak { pod: address, of: host, by: at, source });
                    return;
                }
                Fate::Led { via, source: as_led } => {
                    let Some(next) = self.host_at(via) else { return };
                    if !self.hosts[next].up || !self.link.passes(at, next, now) {
                        return;
                    }
                    (at, source) = (next, as_led);
                }
            }
        }
    }

    /// Who answers for a next hop on the link.
    fn host_at(&self, via: IpAddr) -> Option<Station> {
        let by_address = || self.owners.get(&via).and_then(|owners| owners.first().copied());
        self.hosts.iter().position(|host| host.ip == via).or_else(by_address)
    }

    /// What an agent that starts finds in the kernel.
    pub fn adopt_egress(&mut self, number: Station) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let Some(agent) = host.agent.as_mut().filter(|_| self.story.egress > 0) else { return };
        let (keeper, told) = Keeper::adopt(&host.kernel, &host.kept_pods, now);
        agent.keeper = Some(keeper);
        told.into_iter().for_each(|fact| agent.learn(fact));
    }

    /// The Service has egress from now on, or none any more.
    pub fn annotate(&mut self, service: usize, has: bool) {
        self.has_egress[service] = has;
        self.tell_service(service);
    }

    /// The Service is deleted, or made anew.
    pub fn make_service(&mut self, service: usize, is_there: bool) {
        self.exists[service] = is_there;
        self.made[service] = self.now();
        self.tell_service(service);
    }

    fn tell_service(&mut self, service: usize) {
        for host in (0..self.hosts.len()).filter(|host| self.hosts[*host].sees_api).collect::<Vec<_>>() {
            self.tell(host, vec![self.service(service), self.endpoint(service)]);
        }
    }
}
