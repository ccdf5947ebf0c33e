//! The town: hosts with their agents, a client, a router and a foreign station on one link and one virtual clock, living
//! through a story. What happens is done here and looked at by `invariants`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crier::address::{Family, MacAddress};
use crier::agent::kept_addresses::Kept;
use crier::arp::packet::Frame;
use crier::arp::packet::arp::{Operation, Packet};
use crier::arp::settings::{Probing, probing};
use crier::claim::Acquisition;
use crier::clock;
use crier::egress::machine;
use crier::names::{NodeName, ObjectKey};
use crier::path_state::{DataPath, PathFault, PathSource, PathState};
use crier::selector::Labels;
use crier::world::{ApiServer, Egress, EndpointSlice, Fact, Listing, Node, Refusal, Service, TrafficPolicy};
use fastrand::Rng;
use sha2::{Digest, Sha256};

use crate::agent::{ACCEPTS_ON, ANSWERS_ON, Agent, DETECTION, File, LIFE, PATIENCE, Sealed, Sent, THINKING};
use crate::client::{Client, REQUEST_INTERVAL};
use crate::egress::{self, Pod, SEND_INTERVAL};
use crate::events::Events;
use crate::link::{Firewall, Kind, LATENCY, Link, Port};
use crate::netfilter::Kernel;
use crate::orders::Draining;
use crate::story::{Deed, FileText, Station, Story, Version};

/// To how many of the addresses the client and the router send requests, where nothing else is said.
const ASKED: usize = 4;

/// How long at most an agent takes to see that its node's data path is another.
const PATH_SEEN: Duration = Duration::from_millis(500);

/// How long at most the API server takes to tell an agent something.
const API_LATENCY: Duration = Duration::from_millis(50);

/// How long after a Service is made it has an owner: nobody is to have its address, so that is asked first.
const MADE: Duration = Duration::from_secs(5);

/// `orders` has what operators do, and `egress` what concerns packets that pods send.
pub struct Town {
    pub(crate) events: Events<Event>,
    pub(crate) random: Rng,
    pub(crate) story: Story,
    pub files: Vec<File>,
    pub link: Link,
    pub hosts: Vec<Host>,
    clients: Vec<Client>,
    /// To how many addresses the client and the router send requests.
    pub asked: usize,
    pub addresses: Vec<Ipv4Addr>,
    /// Under policy Local: on which host the endpoint of each address is.
    endpoints: Vec<Station>,
    /// Of each address, whether its Service is there, since when, and whether it has egress.
    pub exists: Vec<bool>,
    pub(crate) made: Vec<Instant>,
    pub has_egress: Vec<bool>,
    pub pods: Vec<Pod>,
    /// The node that an operator chose for each address.
    pub chosen: Vec<Option<Station>>,
    foreign: Option<usize>,
    /// The addresses that the foreign station used at some time.
    fouled: BTreeSet<usize>,
    /// Since when a station answers every probe.
    proxy: Option<Instant>,
    /// Until when a node that it kept away may not ask anew: its pauses have grown.
    proxied_until: Option<Instant>,
    incarnation: u64,
    /// Who answers for each address on the link.
    pub owners: BTreeMap<IpAddr, BTreeSet<Station>>,
    /// What is to be looked at by the invariants; they take it.
    pub notices: Vec<Notice>,
    began: Instant,
}

/// What the invariants look at.
#[derive(Debug, Clone)]
pub enum Notice {
    Deed(Deed),
    /// A host began or ceased to answer for an address.
    Owner {
        address: IpAddr,
        host: Station,
        answers: bool,
    },
    /// An agent asked on the link whether anybody has an address.
    Probe {
        address: IpAddr,
        host: Station,
    },
    /// An agent announced on the link that it has an address.
    Announcement {
        address: IpAddr,
        host: Station,
    },
    /// A request of a client was sent, and served or not.
    Request {
        client: usize,
        address: usize,
        served: bool,
    },
    /// Something of a pod with egress left its node, or another one, with an address that is not its Service's.
    Leak {
        pod: IpAddr,
        of: Station,
        by: Station,
        source: IpAddr,
    },
}

/// A node.
pub struct Host {
    pub name: NodeName,
    pub mac: MacAddress,
    pub ip: IpAddr,
    /// `None` while no agent runs.
    pub agent: Option<Agent>,
    /// Grows with every start of the agent.
    pub life: u64,
    pub started: Option<Instant>,
    /// Powered on.
    pub up: bool,
    /// What is to be done once the agent runs on again; `None` while it is not frozen.
    frozen: Option<Vec<Event>>,
    /// The addresses that the kernel accepts traffic for.
    accepts: BTreeSet<IpAddr>,
    /// kube-proxy has its rules.
    pub path: bool,
    /// It had them at some time since the host was powered on.
    path_since_boot: bool,
    pub file: usize,
    pub drain: Option<Draining>,
    pub sees_api: bool,
    disk: Vec<Fact>,
    /// What its agent wrote down when it was told to restart: what it held, and by when it is back.
    kept: Option<Kept>,
    /// And of pods that are held for no Service.
    pub kept_pods: BTreeMap<IpAddr, machine::Kept>,
    pub kernel: Kernel,
    wakes: Option<Instant>,
    thinks: bool,
    /// Until when it has frames of ARP to judge.
    busy_until: Instant,
    /// When the last that it was told by the API server reaches it, and the last that it sees of its data path.
    told: Option<Instant>,
    path_seen: Option<Instant>,
}

#[derive(Clone)]
pub(crate) enum Event {
    Begin,
    Deed(usize),
    Arrive {
        to: Port,
        payload: Payload,
    },
    /// The last is the life that is meant, here and below.
    Think(Station, u64),
    Wake(Station, u64),
    Learn(Station, u64, Rc<Vec<Fact>>),
    Thaw(Station, u64),
    /// The drainer goes on.
    Drain(Station, u64),
    /// SIGHUP.
    Reload(Station, u64),
    Gone(Station, u64),
    Unbind(Station, u64),
    Start(Station),
    PowerOn {
        host: Station,
        path: Duration,
    },
    PathWorks(Station),
    /// The next step of the table's keeper, its timer, what it hears of a flush, and the routes to owners.
    Step(Station, u64),
    Keep(Station, u64),
    Flushed(Station, u64),
    Route(Station, u64),
    /// All pods send.
    Send,
    Request {
        client: usize,
        address: usize,
    },
}

#[derive(Clone)]
pub(crate) enum Payload {
    Pulse(Rc<Sealed>),
    Arp(Rc<(Packet, [u8; 42])>),
}

impl Host {
    fn path_fact(&self) -> Fact {
        let why = PathFault::RulesGone { family: Family::V4 };
        let state = match (self.path, self.path_since_boot) {
            (true, _) => PathState::Good,
            (false, true) => PathState::Bad { why },
            (false, false) => PathState::Unknown { why: PathFault::ProxyNotStarted },
        };
        Fact::DataPath(DataPath { state, good_since_boot: self.path_since_boot, source: PathSource::KubeProxy })
    }
}

impl Town {
    pub fn new(story: &Story) -> Town {
        let began = clock::now();
        let mut random = Rng::with_seed(story.seed);
        let ip = |number: usize| IpAddr::from([10, 0, 200, u8::try_from(number + 1).unwrap()]);
        let host = |number: usize| Host {
            name: crate::story::name(number, story.agents).as_str().into(),
            mac: mac(number),
            ip: ip(number),
            agent: None,
            life: 0,
            started: None,
            up: true,
            frozen: None,
            accepts: BTreeSet::new(),
            path: true,
            path_since_boot: true,
            file: 0,
            drain: None,
            sees_api: true,
            disk: Vec::new(),
            kept: None,
            kept_pods: BTreeMap::new(),
            kernel: Kernel::new(ip(number), !story.old_kernel),
            wakes: None,
            thinks: false,
            busy_until: began,
            told: None,
            path_seen: None,
        };
        let reachable = Duration::from_millis(random.u64(15_000..45_000));
        let clients = vec![
            Client::host(mac(story.agents), Ipv4Addr::new(10, 0, 201, 1), reachable),
            Client::router(mac(story.agents + 1), Ipv4Addr::new(10, 0, 201, 2)),
        ];
        let mut link = Link::new(story.agents + 3);
        link.loss = story.loss;
        link.doubles = 5;
        let address = |number: usize| Ipv4Addr::from_bits(0x0a00_0100 + u32::try_from(number).unwrap());
        let mut town = Town {
            events: Events::new(began),
            random,
            files: story.files.iter().map(|file| file_of(story, file)).collect(),
            asked: ASKED.min(story.addresses),
            link,
            hosts: (0..story.agents).map(host).collect(),
            clients,
            addresses: (0..story.addresses).map(address).collect(),
            endpoints: vec![0; story.addresses],
            exists: vec![true; story.addresses],
            made: vec![began; story.addresses],
            has_egress: (0..story.addresses).map(|number| number < story.egress).collect(),
            pods: egress::pods(story.agents, story.egress),
            chosen: vec![None; story.addresses],
            foreign: None,
            fouled: BTreeSet::new(),
            proxy: None,
            proxied_until: None,
            incarnation: 1 << 20,
            owners: BTreeMap::new(),
            notices: Vec::new(),
            began,
            story: story.clone(),
        };
        town.events.post(began, Event::Begin);
        for (number, (at, _)) in story.deeds.iter().enumerate() {
            town.events.post(began + *at, Event::Deed(number));
        }
        town
    }

    pub fn now(&self) -> Instant {
        self.events.now()
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// Lives through the story. `watch` looks after everything that happened.
    pub fn live(&mut self, watch: impl FnMut(&mut Town)) {
        self.live_until(self.began + self.story.ends, watch);
    }

    /// Lives through a part of the story, up to `end`.
    pub fn live_until(&mut self, end: Instant, mut watch: impl FnMut(&mut Town)) {
        while let Some(event) = self.events.next_until(end) {
            self.handle(event);
            if !self.notices.is_empty() {
                watch(self);
            }
        }
    }

    /// How much each agent keeps of what.
    pub fn sizes(&self) -> Vec<(Station, [(&'static str, usize); 8])> {
        let agents = self.hosts.iter().enumerate();
        agents.filter_map(|(number, host)| Some((number, host.agent.as_ref()?.sizes()))).collect()
    }

    pub fn client_port(&self, client: usize) -> Port {
        self.hosts.len() + client
    }

    pub fn is_running(&self, host: Station) -> bool {
        self.hosts[host].agent.is_some() && self.hosts[host].frozen.is_none()
    }

    /// Whether a host would serve an address if it were its owner, as far as it can know.
    pub fn could_serve(&self, host: Station, address: usize) -> bool {
        let Host { up, path, sees_api, drain, .. } = &self.hosts[host];
        let has_endpoint = !self.story.local || (self.endpoints[address] == host && *sees_api);
        let hands_over = drain.as_ref().is_some_and(Draining::hands_over);
        let is_there =
            self.exists[address] && (self.made[address] == self.began || self.now() > self.made[address] + MADE);
        is_there && *up && *path && has_endpoint && !hands_over && self.is_selected(host) && self.is_running(host)
    }

    /// Its file has it take part on the link.
    fn is_selected(&self, host: Station) -> bool {
        let l2 = &self.files[self.hosts[host].file].config.l2;
        l2.iter().any(|l2| l2.nodes.as_ref().is_none_or(|nodes| nodes.matches(&self.labels(host))))
    }

    /// Whether two agents believe each other's pulses.
    pub fn share_a_key(&self, one: Station, other: Station) -> bool {
        let file = |host: Station| &self.files[self.hosts[host].file];
        file(one).accepts(file(other)) && file(other).accepts(file(one))
    }

    /// Pulses pass between two agents, both ways, and each believes them.
    pub fn hear_each_other(&self, one: Station, other: Station) -> bool {
        let now = self.now();
        let pass = |from, to| self.link.pulses_pass(from, to, now);
        one != other && pass(one, other) && pass(other, one) && self.share_a_key(one, other)
    }

    /// How good a host is for an address by its own file: the greatest is the best.
    pub fn rank(&self, host: Station, address: usize) -> (u32, Reverse<[u8; 32]>) {
        let Host { name, file, .. } = &self.hosts[host];
        let labels = self.labels(host);
        let preferences = self.files[*file].config.l2.iter().flat_map(|l2| &l2.preference);
        let weights = preferences.filter(|preference| preference.nodes.matches(&labels)).map(|it| it.weight);
        let weight = if self.chosen[address] == Some(host) { u32::MAX } else { weights.sum() };
        (weight, Reverse(Sha256::digest(format!("{name}#{}", self.addresses[address])).into()))
    }

    /// Some file has no key: nothing but the link tells who answers.
    pub fn is_keyless(&self) -> bool {
        self.files.iter().any(|file| !file.has_pulses())
    }

    /// One file asks for other owners of addresses than another.
    pub fn asks_other_owners(&self, one: usize, other: usize) -> bool {
        let digest = |file: usize| self.files[file].config.ownership_digest();
        digest(one) != digest(other)
    }

    /// Some node has a program that knows of no restart in which addresses stay.
    pub fn knows_no_restarts_anywhere(&self) -> bool {
        let runs = |host: &Host| host.agent.as_ref().is_some_and(Agent::is_of_an_earlier_version);
        self.hosts.iter().any(|host| runs(host) || self.files[host.file].version == Version::Earlier)
    }

    /// Every `[[l2]]` is sticky.
    pub fn is_sticky(&self) -> bool {
        self.files.iter().all(|file| file.config.l2.iter().all(|l2| l2.sticky))
    }

    /// The file of some host is.
    pub fn sticks_anywhere(&self) -> bool {
        self.hosts.iter().any(|host| self.files[host.file].config.l2.iter().any(|l2| l2.sticky))
    }

    /// Something on the link answers for what is not its own, or did: who believed it does so until its cache ages.
    pub fn is_disturbed(&self, address: usize) -> bool {
        let kept_away = self.proxy.is_some() || self.proxied_until.is_some_and(|until| self.now() < until);
        kept_away || self.fouled.contains(&address)
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Begin => self.begin(),
            Event::Deed(number) => {
                let deed = self.story.deeds[number].1.clone();
                self.notices.push(Notice::Deed(deed.clone()));
                self.perform(deed);
            }
            Event::Arrive { to, payload } => self.arrive(to, payload),
            Event::Think(host, life) if self.is_life(host, life) => {
                if self.waits_for_thaw(host, Event::Think(host, life)) {
                    return;
                }
                self.hosts[host].thinks = false;
                let accepts = self.hosts[host].agent.as_mut().and_then(|agent| agent.think(now));
                if let Some(accepts) = accepts {
                    self.hosts[host].accepts = accepts;
                }
                self.attend(host);
            }
            Event::Wake(host, life) if self.is_life(host, life) => {
                if self.waits_for_thaw(host, Event::Wake(host, life)) {
                    return;
                }
                self.hosts[host].wakes = None;
                self.attend(host);
            }
            Event::Learn(host, life, facts) if self.is_life(host, life) => {
                if self.waits_for_thaw(host, Event::Learn(host, life, facts.clone())) {
                    return;
                }
                if let Some(agent) = &mut self.hosts[host].agent {
                    facts.iter().for_each(|fact| agent.learn(fact.clone()));
                }
                self.attend(host);
            }
            Event::Thaw(host, life) if self.is_life(host, life) => self.thaw(host),
            Event::Drain(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Drain(host, life)) {
                    self.go_on_draining(host);
                }
            }
            Event::Reload(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Reload(host, life)) {
                    self.read_file(host);
                }
            }
            Event::Step(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Step(host, life)) {
                    self.step_egress(host);
                }
            }
            Event::Keep(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Keep(host, life)) {
                    self.wake_keeper(host);
                }
            }
            Event::Flushed(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Flushed(host, life)) {
                    self.hear_of_flush(host);
                }
            }
            Event::Route(host, life) if self.is_life(host, life) => {
                if !self.waits_for_thaw(host, Event::Route(host, life)) {
                    self.make_routes(host);
                }
            }
            Event::Step(..) | Event::Keep(..) | Event::Flushed(..) | Event::Route(..) => {}
            Event::Send => {
                self.send_from_pods();
                self.events.post(now + SEND_INTERVAL, Event::Send);
            }
            Event::Gone(host, life) if self.is_life(host, life) => self.end_agent(host),
            Event::Unbind(host, life) if self.hosts[host].life == life => self.hosts[host].accepts.clear(),
            Event::Think(..) | Event::Wake(..) | Event::Learn(..) | Event::Thaw(..) | Event::Gone(..) => {}
            Event::Unbind(..) | Event::Drain(..) | Event::Reload(..) => {}
            Event::Start(host) => self.start(host),
            Event::PowerOn { host, path } => {
                self.hosts[host].up = true;
                self.link.plug(host, now);
                self.start(host);
                self.events.post(now + path, Event::PathWorks(host));
            }
            Event::PathWorks(host) => self.set_path(host, true),
            Event::Request { client, address } => self.request(client, address),
        }
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let pause = Duration::from_millis(self.random.u64(0..200));
            self.events.post(self.began + pause, Event::Start(host));
        }
        if !self.pods.is_empty() {
            self.events.post(self.began, Event::Send);
        }
        for client in 0..self.clients.len() {
            for address in 0..self.asked {
                let at = self.began + Duration::from_millis(self.random.u64(2000..2100));
                self.events.post(at, Event::Request { client, address });
            }
        }
    }

    fn perform(&mut self, deed: Deed) {
        let now = self.now();
        match deed {
            Deed::Start(host) => self.start(host),
            Deed::Stop(host) => self.stop(host),
            Deed::Kill(host) => self.end_agent(host),
            // What stands still does not end at once, and its service manager waits.
            Deed::Restart { station, .. } if self.hosts[station].frozen.is_some() => {}
            Deed::Restart { station, file, pause, keeps } => {
                // One that is down already finds on its disk what it wrote there.
                if self.hosts[station].agent.is_some() {
                    self.restart(station, keeps);
                }
                self.hosts[station].file = file.unwrap_or(self.hosts[station].file);
                self.events.post(now + pause, Event::Start(station));
            }
            Deed::Reboot { station, down, path } => {
                self.end_agent(station);
                let host = &mut self.hosts[station];
                (host.up, host.path, host.path_since_boot, host.kept) = (false, false, false, None);
                (host.kernel, host.kept_pods) = (Kernel::new(host.ip, !self.story.old_kernel), BTreeMap::new());
                self.pods.iter_mut().filter(|pod| pod.host == station).for_each(|pod| pod.sends = false);
                let host = &mut self.hosts[station];
                host.accepts.clear();
                self.link.unplug(station);
                self.events.post(now + down, Event::PowerOn { host: station, path });
            }
            Deed::Freeze(host, time) => {
                if self.is_running(host) {
                    self.hosts[host].frozen = Some(Vec::new());
                    let life = self.hosts[host].life;
                    self.events.post(now + time, Event::Thaw(host, life));
                }
            }
            Deed::Split(parts) => {
                for (part, stations) in parts.iter().enumerate() {
                    stations.iter().for_each(|it| self.link.move_to(*it, u8::try_from(part).unwrap()));
                }
            }
            Deed::Heal => (0..self.hosts.len() + 3).for_each(|port| self.link.move_to(port, 0)),
            Deed::Deafen { to, from, deaf } => self.link.deafen(to, from, deaf),
            Deed::Numb(to, deaf) => (0..self.hosts.len() + 3).for_each(|from| self.link.deafen(to, from, deaf)),
            Deed::Firewall { station, inward, outward } => {
                self.link.set_firewall(station, Firewall { inward, outward });
            }
            Deed::Prune(family, pruned) => self.link.prune(family, pruned),
            Deed::Api(host, sees) => {
                self.hosts[host].sees_api = sees;
                let state = match sees {
                    true => ApiServer::Reachable,
                    false => unreachable(),
                };
                let objects = if sees { self.objects(host) } else { Vec::new() };
                self.tell(host, objects.into_iter().chain([Fact::ApiServer(state)]).collect());
            }
            Deed::Endpoint { address, to } => {
                self.endpoints[address] = to;
                for host in (0..self.hosts.len()).filter(|host| self.hosts[*host].sees_api).collect::<Vec<_>>() {
                    self.tell(host, vec![self.endpoint(address)]);
                }
            }
            Deed::Unplug(host) => {
                self.link.unplug(host);
                self.learn_carrier(host, false);
            }
            Deed::Plug(host, blocked) => {
                self.link.plug(host, now + blocked);
                self.learn_carrier(host, true);
            }
            Deed::Slow(time) => self.link.latency = time.unwrap_or(LATENCY),
            Deed::Path(host, works) => self.set_path(host, works),
            Deed::Foreign(address) => {
                self.foreign = address;
                self.fouled.extend(address);
                if let Some(address) = address {
                    let mac = mac(self.hosts.len() + 2);
                    let said = Packet::announcements(self.addresses[address], mac);
                    said.into_iter().for_each(|packet| self.send_arp(self.hosts.len() + 2, mac, packet));
                }
            }
            Deed::Proxy(on) => self.proxy(on),
            Deed::Drain(host, waiting) => self.drain(host, waiting),
            Deed::Undrain(host) => self.undrain(host),
            Deed::Move { address, to } => self.choose(address, to),
            Deed::Reload(host, file) => self.reload(host, file),
            Deed::Flush(host) => self.flush(host),
            Deed::Annotate { address, has } => self.annotate(address, has),
            Deed::Service { address, is_there } => self.make_service(address, is_there),
            Deed::Pod { address, host, plain } => self.replace_pod(address, host, plain),
        }
    }

    fn learn_carrier(&mut self, host: Station, carrier: bool) {
        let ip = self.hosts[host].ip;
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.learn_carrier(ip, carrier);
        }
        self.attend(host);
    }

    fn start(&mut self, number: Station) {
        if self.hosts[number].agent.is_some() || !self.hosts[number].up {
            return;
        }
        self.incarnation += LIFE;
        let now = self.now();
        let host = &mut self.hosts[number];
        let file = self.files[host.file].clone();
        let mut agent = Agent::new(&host.name, host.mac, host.ip, file, self.incarnation);
        host.disk.drain(..).for_each(|fact| agent.learn(fact));
        let kept = host.kept.take().filter(|kept| kept.back_by > now + DETECTION);
        let back_by = kept.as_ref().map(|kept| kept.back_by);
        if let Some(kept) = kept {
            agent.go_on(kept);
        }
        agent.learn(host.path_fact());
        host.drain.iter().for_each(|drain| agent.learn(drain.fact()));
        host.agent = Some(agent);
        host.life = self.incarnation;
        host.started = Some(now);
        (host.wakes, host.thinks, host.frozen) = (None, false, None);
        let life = host.life;
        let facts = match host.sees_api {
            true => self.objects(number).into_iter().chain([Fact::ApiServer(ApiServer::Reachable)]).collect(),
            false => vec![Fact::ApiServer(unreachable())],
        };
        self.adopt_egress(number);
        self.tell(number, facts);
        self.events.post(now + PATIENCE, Event::Learn(number, life, Rc::new(vec![Fact::FailStatic])));
        if let Some(back_by) = back_by {
            let over = Event::Learn(number, life, Rc::new(vec![Fact::Kept(Arc::default())]));
            self.events.post(back_by - DETECTION, over);
        }
        self.resume_drain(number);
        self.attend(number);
    }

    /// A station answers every probe, or ceases to. Each pause between two questions is twice the one before, so the last one
    /// goes on for at most as long as all before it, and the first pause on top.
    fn proxy(&mut self, on: bool) {
        let now = self.now();
        if on {
            self.proxy.get_or_insert(now);
        } else if let Some(since) = self.proxy.take() {
            let Probing { first_pause, longest_pause, .. } = probing(&Acquisition::FirstUse);
            self.proxied_until = Some(now + (now.duration_since(since) + first_pause).min(longest_pause));
        }
    }

    /// kube-proxy writes its rules, or loses them. Its agent sees that a moment later.
    fn set_path(&mut self, number: Station, works: bool) {
        let latest = u64::try_from(PATH_SEEN.as_millis()).unwrap();
        let at = self.now() + Duration::from_millis(self.random.u64(1..latest));
        let host = &mut self.hosts[number];
        let at = host.path_seen.map_or(at, |seen| at.max(seen));
        host.path_seen = Some(at);
        host.path = works;
        host.path_since_boot |= works;
        let fact = Rc::new(vec![host.path_fact()]);
        self.events.post(at, Event::Learn(number, self.hosts[number].life, fact));
    }

    /// SIGTERM: it says goodbye, answers on for a moment, and is gone.
    fn stop(&mut self, number: Station) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let Some(agent) = host.agent.as_mut().filter(|_| host.frozen.is_none()) else { return };
        if let Some(accepts) = agent.leave(now) {
            host.accepts = accepts;
        }
        self.events.post(now + ANSWERS_ON, Event::Gone(number, host.life));
        self.events.post(now + ACCEPTS_ON, Event::Unbind(number, host.life));
        self.attend(number);
    }

    /// SIGTERM in a restart: it says by when it is back, if it keeps anything, and is gone. The host goes on accepting traffic.
    fn restart(&mut self, number: Station, keeps: Option<Duration>) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let agent = host.agent.as_mut().filter(|_| host.frozen.is_none());
        host.kept = keeps.zip(agent).and_then(|(time, agent)| agent.restart(time, now));
        if host.kept.is_none() {
            return self.stop(number);
        }
        self.events.post(now + ANSWERS_ON, Event::Gone(number, host.life));
        self.attend(number);
    }

    /// The agent runs no longer. What the kernel was told stays.
    fn end_agent(&mut self, number: Station) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let Some(agent) = host.agent.take() else { return };
        host.disk = agent.remembers();
        host.kernel.close();
        host.kept_pods = agent.keeper.as_ref().map(|keeper| keeper.kept(now)).unwrap_or_default();
        host.started = None;
        host.frozen = None;
        let owned: Vec<IpAddr> =
            self.owners.iter().filter(|(_, hosts)| hosts.contains(&number)).map(|(address, _)| *address).collect();
        owned.into_iter().for_each(|address| self.note_owner(number, address, false));
    }

    fn thaw(&mut self, host: Station) {
        let Some(missed) = self.hosts[host].frozen.take() else { return };
        // As its tasks do it: they read what came meanwhile, one by one, and look at their timers when nothing is left.
        let (arrived, rest): (Vec<Event>, Vec<Event>) =
            missed.into_iter().partition(|event| matches!(event, Event::Arrive { .. }));
        for event in arrived {
            self.handle(event);
        }
        let mut at = self.now();
        for event in rest {
            at += Duration::from_micros(self.random.u64(20..200));
            self.events.post(at, event);
        }
        self.attend(host);
    }

    /// Whether the agent is frozen; then the event is kept for later.
    fn waits_for_thaw(&mut self, host: Station, event: Event) -> bool {
        self.hosts[host].frozen.as_mut().map(|missed| missed.push(event)).is_some()
    }

    fn is_life(&self, host: Station, life: u64) -> bool {
        self.hosts[host].agent.is_some() && self.hosts[host].life == life
    }

    /// The API server tells an agent something, in its time.
    pub fn tell(&mut self, host: Station, facts: Vec<Fact>) {
        let latest = u64::try_from(API_LATENCY.as_micros()).unwrap();
        let at = self.now() + Duration::from_micros(self.random.u64(1000..latest));
        // A watch tells in order.
        let told = &mut self.hosts[host].told;
        let at = told.map_or(at, |told| at.max(told));
        *told = Some(at);
        self.events.post(at, Event::Learn(host, self.hosts[host].life, Rc::new(facts)));
    }

    fn arrive(&mut self, to: Port, payload: Payload) {
        let now = self.now();
        if to >= self.hosts.len() {
            if let Payload::Arp(arp) = payload {
                self.arrive_elsewhere(to, &arp.0);
            }
            return;
        }
        if let Payload::Arp(arp) = &payload {
            self.answer_as_kernel(to, &arp.0);
        }
        if self.hosts[to].agent.is_none() || self.waits_for_thaw(to, Event::Arrive { to, payload: payload.clone() }) {
            return;
        }
        let mut sent = Vec::new();
        if let Some(agent) = &mut self.hosts[to].agent {
            match payload {
                Payload::Pulse(sealed) => agent.hear(&sealed, now),
                Payload::Arp(arp) => agent.receive(&arp.1, now, &mut sent),
            }
        }
        self.send_all(to, sent);
        self.attend(to);
    }

    /// Whoever asks for a host's own address is answered, whatever its agent does.
    fn answer_as_kernel(&mut self, host: Station, packet: &Packet) {
        let Host { mac, ip, up, .. } = &self.hosts[host];
        if *up && packet.operation == Operation::Request && IpAddr::V4(packet.target_ip) == *ip {
            let mac = *mac;
            self.send_arp(host, mac, Packet::reply_to(packet, mac));
        }
    }

    /// At the client, the router or the foreign station.
    fn arrive_elsewhere(&mut self, to: Port, packet: &Packet) {
        let now = self.now();
        let place = to - self.hosts.len();
        let Some(client) = self.clients.get_mut(place) else {
            let held = self.foreign.map(|address| self.addresses[address]);
            let asked = packet.operation == Operation::Request && packet.sender_ip != packet.target_ip;
            let probed = self.proxy.is_some() && packet.sender_ip.is_unspecified();
            if asked && (held == Some(packet.target_ip) || probed) {
                let mac = mac(to);
                self.send_arp(to, mac, Packet::reply_to(packet, mac));
            }
            return;
        };
        let (mac, answer) = (client.mac, client.answer(packet));
        if let Some(known) = client.learn(packet, now)
            && let Some(address) = self.addresses.iter().take(self.asked).position(|it| *it == known)
        {
            // What waited for it goes out now.
            self.deliver(place, address, packet.sender_mac);
        }
        if let Some(answer) = answer {
            self.send_arp(to, mac, answer);
        }
    }

    fn request(&mut self, client: usize, address: usize) {
        let now = self.now();
        self.events.post(now + REQUEST_INTERVAL, Event::Request { client, address });
        let sending = self.clients[client].send(self.addresses[address], now);
        if let Some(packet) = sending.asks {
            let port = self.client_port(client);
            self.send_arp(port, self.clients[client].mac, packet);
        }
        match sending.to {
            Some(mac) => self.deliver(client, address, mac),
            None => self.notices.push(Notice::Request { client, address, served: false }),
        }
    }

    /// A request reaches a station, or nobody.
    fn deliver(&mut self, client: usize, address: usize, mac: MacAddress) {
        let (now, port) = (self.now(), self.client_port(client));
        let ip = IpAddr::V4(self.addresses[address]);
        let served = self.hosts.iter().position(|host| host.mac == mac).is_some_and(|host| {
            let reached = self.link.passes(port, host, now) && self.link.passes(host, port, now);
            let Host { up, path, accepts, .. } = &self.hosts[host];
            let has_endpoint = !self.story.local || self.endpoints[address] == host;
            reached && *up && *path && accepts.contains(&ip) && has_endpoint
        });
        if served {
            self.clients[client].confirm(self.addresses[address], now);
        }
        self.notices.push(Notice::Request { client, address, served });
    }

    /// Sends what the agent has to say, and has it think about what it learned.
    pub fn attend(&mut self, number: Station) {
        let now = self.now();
        let mut sent = Vec::new();
        let host = &mut self.hosts[number];
        let Some(agent) = host.agent.as_mut().filter(|_| host.frozen.is_none()) else { return };
        agent.attend(now, &mut sent);
        let mut turned = Vec::new();
        while let Some(address) = agent.poll_turned() {
            turned.push((address, agent.answers(address)));
        }
        let egress_moved = agent.take_egress_moved();
        if agent.take_must_think() && !std::mem::replace(&mut host.thinks, true) {
            let time = Duration::from_micros(self.random.u64(50..u64::try_from(THINKING.as_micros()).unwrap()));
            self.events.post(now + time, Event::Think(number, host.life));
        }
        if let Some(deadline) = agent.next_deadline(host.thinks)
            && host.wakes.is_none_or(|wakes| deadline < wakes)
        {
            host.wakes = Some(deadline);
            self.events.post(deadline.max(now + Duration::from_nanos(1)), Event::Wake(number, host.life));
        }
        turned.into_iter().for_each(|(address, answers)| self.note_owner(number, address, answers));
        self.send_all(number, sent);
        if egress_moved && self.story.egress > 0 {
            self.follow_egress(number);
        }
    }

    fn note_owner(&mut self, host: Station, address: IpAddr, answers: bool) {
        let owners = self.owners.entry(address).or_default();
        let changed = if answers { owners.insert(host) } else { owners.remove(&host) };
        if changed {
            self.notices.push(Notice::Owner { address, host, answers });
        }
    }

    fn send_all(&mut self, from: Station, sent: Vec<Sent>) {
        let mac = self.hosts[from].mac;
        for sent in sent {
            match sent {
                Sent::Pulse(sealed, families) => {
                    for family in families {
                        self.send_pulse(from, mac, &sealed, family);
                    }
                }
                Sent::Probe(address, Frame::Arp(packet)) => {
                    self.notices.push(Notice::Probe { address, host: from });
                    self.send_arp(from, mac, packet);
                }
                Sent::Frame(Frame::Arp(packet)) => {
                    if packet.is_gratuitous() {
                        self.notices.push(Notice::Announcement { address: packet.sender_ip.into(), host: from });
                    }
                    self.send_arp(from, mac, packet);
                }
                Sent::Probe(_, Frame::Ndp(_)) | Sent::Frame(Frame::Ndp(_)) => {}
            }
        }
    }

    fn send_pulse(&mut self, from: Station, mac: MacAddress, sealed: &Rc<Sealed>, family: Family) {
        let now = self.now();
        for (to, at) in self.link.send((from, mac), None, Kind::Pulse(family), now, &mut self.random) {
            if to < self.hosts.len() {
                self.events.post(at, Event::Arrive { to, payload: Payload::Pulse(sealed.clone()) });
            }
        }
    }

    fn send_arp(&mut self, from: Port, mac: MacAddress, packet: Packet) {
        let now = self.now();
        let destination = Some(packet.destination).filter(|mac| *mac != MacAddress::BROADCAST);
        let arp = Rc::new((packet, packet.emit()));
        for (to, at) in self.link.send((from, mac), destination, Kind::Other, now, &mut self.random) {
            let at = match self.hosts.get_mut(to) {
                Some(host) => {
                    host.busy_until = host.busy_until.max(at) + self.story.judging;
                    host.busy_until
                }
                None => at,
            };
            self.events.post(at, Event::Arrive { to, payload: Payload::Arp(arp.clone()) });
        }
    }

    /// Everything that the API server tells this host.
    fn objects(&self, to: Station) -> Vec<Fact> {
        let mut facts = Vec::new();
        let there = || (0..self.addresses.len()).filter(|number| self.exists[*number]);
        let keys: BTreeSet<ObjectKey> = there().map(|number| key(&self.addresses[number])).collect();
        for number in there() {
            facts.push(self.service(number));
            facts.push(self.endpoint(number));
        }
        let mut slices = keys.clone();
        for plain in (0..self.story.egress).map(|number| self.plain_endpoints(number)) {
            if let Fact::EndpointSlice(key, _) = &plain {
                slices.insert(key.clone());
            }
            facts.push(plain);
        }
        let hosts = if self.story.nodes_unknown { to..to + 1 } else { 0..self.hosts.len() };
        let names: BTreeSet<NodeName> = hosts.clone().map(|number| self.hosts[number].name.clone()).collect();
        for number in hosts {
            let host = &self.hosts[number];
            let pod_networks = match self.story.egress {
                0 => Vec::new(),
                _ => vec![egress::network(number)],
            };
            let (labels, addresses) = (self.labels(number), vec![host.ip]);
            let node = Node { labels, ready: true, addresses, pod_networks, ..Node::default() };
            facts.push(Fact::Node(host.name.clone(), Some(Arc::new(node))));
        }
        facts.extend(
            [
                Listing::Services(keys.clone()),
                Listing::EndpointSlices(slices),
                Listing::Nodes(names),
                Listing::Namespaces(BTreeSet::new()),
            ]
            .map(Fact::Listed),
        );
        facts
    }

    fn labels(&self, host: Station) -> Labels {
        let name = ("kubernetes.io/hostname".to_owned(), self.hosts[host].name.to_string());
        Labels(self.story.labels.iter().cloned().chain([name]).collect())
    }

    pub fn service(&self, number: usize) -> Fact {
        let address = self.addresses[number];
        let node = self.chosen[number].map(|host| self.hosts[host].name.clone());
        let egress = self.has_egress[number].then_some(Egress::ServiceAddress);
        let service = Service { node, egress, ..service(address.into(), self.story.local) };
        Fact::Service(key(&address), self.exists[number].then(|| Arc::new(service)))
    }

    pub fn endpoint(&self, number: usize) -> Fact {
        let key = key(&self.addresses[number]);
        let node = self.hosts[self.endpoints[number]].name.clone();
        let on_node: BTreeMap<NodeName, u32> = if self.story.local { [(node, 1)].into() } else { BTreeMap::new() };
        let slice = EndpointSlice {
            service: key.clone(),
            family: None,
            ready: on_node.clone().into(),
            serving: on_node.into(),
            serving_without_node: u32::from(!self.story.local),
            unready: Default::default(),
            addresses: self.tenants(number, false),
        };
        Fact::EndpointSlice(key, self.exists[number].then(|| Arc::new(slice)))
    }
}

fn file_of(story: &Story, FileText { l2, key, old_keys, version }: &FileText) -> File {
    File::new(l2, *key, old_keys.clone(), story.interval).of_version(*version)
}

fn mac(port: Port) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, u8::try_from(port + 1).unwrap()])
}

fn key(address: &Ipv4Addr) -> ObjectKey {
    ObjectKey::new("shop", &address.to_string())
}

pub fn service(address: IpAddr, local: bool) -> Service {
    Service {
        uid: String::new(),
        resource_version: String::new(),
        load_balancer: true,
        families: vec![Family::V4],
        external_traffic_policy: if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
        ingress: vec![address],
        ..Service::default()
    }
}

fn unreachable() -> ApiServer {
    ApiServer::Unreachable { since: UNIX_EPOCH, why: "no route".to_owned(), refusal: Refusal::NoAnswer }
}
