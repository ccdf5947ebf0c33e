//! The agents, the link between them, and the clock: what the tests drive and look at.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::address::MacAddress;
use crier::clock;
use crier::config::{self, Config, NoSecrets, SourceFile};
use crier::names::{NodeName, ObjectKey};
use crier::plan::Planner;
use crier::plan::elect::{Candidate, elect};
use crier::pulse::machine::{Machine, Stance};
use crier::pulse::packet::Pulse;
use crier::pulse::settings::Settings;
use crier::roster::Eligibility;
use crier::world::{EndpointSlice, Fact, Link, Listing, Pulses, Request, Service};
use fastrand::Rng;

use super::town;

pub const INTERVAL: Duration = Duration::from_millis(100);
pub const DETECTION: Duration = Duration::from_millis(300);

/// The longest that a packet is under way, a late double excepted.
pub const LATENCY: Duration = Duration::from_millis(2);

/// The longest that an agent thinks between what it hears and what it does.
pub const THINKING: Duration = Duration::from_millis(3);

/// What packets meet.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Of a hundred packets so many are lost.
    pub loss: u8,
    /// Of a hundred packets so many come twice, the second time up to half a second late.
    pub doubles: u8,
}

pub const FAIR: Weather = Weather { loss: 0, doubles: 5 };

pub struct Town {
    pub now: Instant,
    pub random: Rng,
    pub weather: Weather,
    pub agents: Vec<Agent>,
    pub addresses: Vec<IpAddr>,
    config: Arc<Config>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    number: u64,
    incarnation: u64,
    /// Every change of who answers, in order.
    pub moves: Vec<Move>,
    pub packets: u64,
}

#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "who it was is for whoever reads the complaint of an invariant")]
pub struct Move {
    pub at: Instant,
    pub agent: usize,
    pub address: IpAddr,
    pub owns: bool,
}

pub struct Agent {
    pub name: NodeName,
    /// `None` while it is dead.
    pub life: Option<Life>,
    /// Packets pass only between agents of one part.
    pub part: u8,
}

pub struct Life {
    planner: Planner,
    machine: Machine,
    /// It is to think about what it heard.
    thinks: bool,
    wakes: Option<Instant>,
    pub settled: bool,
    pub owns: BTreeSet<IpAddr>,
    /// Whose pulses were taken, and when first since it became an owner.
    pub heard: BTreeMap<usize, Instant>,
    pub last_taken: BTreeMap<usize, Instant>,
    life: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive {
        from: usize,
        to: usize,
        packet: Packet,
    },
    /// The last is the life that is meant.
    Think(usize, u64),
    Wake(usize, u64),
}

/// A pulse is not ordered; the events' numbers order them.
struct Packet(Arc<Pulse>);

impl PartialEq for Packet {
    fn eq(&self, _: &Packet) -> bool {
        true
    }
}
impl Eq for Packet {}
impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Packet) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Packet {
    fn cmp(&self, _: &Packet) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Town {
    /// So many dead agents, and Services with these addresses.
    pub fn new(seed: u64, agents: usize, services: u8, weather: Weather, l2: &str) -> Town {
        let text = format!(
            "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/24\"]\n\
             [[l2]]\n{l2}\n[pulse]\nunauthenticated = true\n"
        );
        let file = SourceFile { path: "crier.toml".to_owned(), text };
        let config = config::parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let agent = |number| Agent { name: format!("node-{number}").as_str().into(), life: None, part: 0 };
        Town {
            now: clock::now(),
            random: Rng::with_seed(seed),
            weather,
            agents: (0..agents).map(agent).collect(),
            addresses: (0..services).map(|number| IpAddr::from([192, 0, 2, 10 + number])).collect(),
            config: Arc::new(config),
            events: BinaryHeap::new(),
            number: 0,
            incarnation: 1000,
            moves: Vec::new(),
            packets: 0,
        }
    }

    pub fn start(&mut self, agent: usize) {
        assert!(self.agents[agent].life.is_none(), "{agent} is dead");
        self.incarnation += 1;
        let name = self.agents[agent].name.clone();
        let link = Link {
            index: 2,
            name: "eth0".into(),
            mac: Some(mac(agent)),
            up: true,
            carrier: true,
            loopback: false,
            arp: true,
            master: None,
            vrf: None,
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
        };
        let mut planner = Planner::new(self.config.clone(), name.clone());
        planner.apply(Fact::Pulses(Pulses::On { authenticated: false }));
        planner.apply(Fact::Link(2, Some(link)));
        planner.apply(Fact::LinksListed);
        for address in &self.addresses {
            let key = ObjectKey::new("shop", &address.to_string());
            planner.apply(Fact::Service(key.clone(), Some(Arc::new(service(*address)))));
            let slice = EndpointSlice {
                service: key.clone(),
                family: None,
                ready: Default::default(),
                serving: Default::default(),
                serving_without_node: 1,
            };
            planner.apply(Fact::EndpointSlice(key, Some(Arc::new(slice))));
        }
        let keys = || self.addresses.iter().map(|address| ObjectKey::new("shop", &address.to_string())).collect();
        for listing in [
            Listing::Services(keys()),
            Listing::EndpointSlices(keys()),
            Listing::Nodes(BTreeSet::new()),
            Listing::Namespaces(BTreeSet::new()),
        ] {
            planner.apply(Fact::Listed(listing));
        }
        let stance = Stance {
            mac: mac(agent),
            eligibility: Eligibility::Eligible,
            owner: false,
            labels: Arc::default(),
            claims: Arc::default(),
            occupied: Arc::default(),
            needs_ipv4: false,
        };
        let settings = Settings { interval: INTERVAL, multiplier: self.config.pulse.multiplier };
        let machine = Machine::new(name, settings, self.incarnation, stance, self.now);
        self.agents[agent].life = Some(Life {
            planner,
            machine,
            thinks: false,
            wakes: None,
            settled: false,
            owns: BTreeSet::new(),
            heard: BTreeMap::new(),
            last_taken: BTreeMap::new(),
            life: self.incarnation,
        });
        self.think(agent);
        self.attend(agent);
    }

    /// SIGKILL.
    pub fn kill(&mut self, agent: usize) {
        if let Some(life) = self.agents[agent].life.take() {
            let (at, number) = (self.now, agent);
            self.moves.extend(life.owns.iter().map(|address| Move {
                at,
                agent: number,
                address: *address,
                owns: false,
            }));
        }
    }

    /// A clean stop.
    pub fn leave(&mut self, agent: usize) {
        if let Some(life) = &mut self.agents[agent].life {
            life.machine.handle_leaving(self.now);
            self.attend(agent);
        }
    }

    /// Lets time pass up to this moment, and has every event looked at by `watch` after it.
    pub fn run_until(&mut self, end: Instant, mut watch: impl FnMut(&Town)) {
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            match event {
                Event::Arrive { from, to, packet } => self.arrive(from, to, &packet.0),
                Event::Think(agent, life) if self.is_life(agent, life) => self.think_now(agent),
                Event::Wake(agent, life) if self.is_life(agent, life) => {
                    if let Some(life) = &mut self.agents[agent].life {
                        life.wakes = None;
                    }
                    self.attend(agent);
                }
                Event::Think(..) | Event::Wake(..) => {}
            }
            watch(self);
        }
        self.now = end;
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| {});
    }

    pub fn owners(&self, address: IpAddr) -> Vec<usize> {
        let owns = |(number, agent): (usize, &Agent)| {
            agent.life.as_ref().is_some_and(|life| life.owns.contains(&address)).then_some(number)
        };
        self.agents.iter().enumerate().filter_map(owns).collect()
    }

    /// What an agent knows, for the complaint of an invariant.
    pub fn mind_of(&self, agent: usize) -> String {
        let life = self.agents[agent].life.as_ref();
        life.map_or_else(|| "dead".to_owned(), |life| format!("at {:?}: {:#?}", self.now, life.machine))
    }

    pub fn connected(&self, one: usize, other: usize) -> bool {
        self.agents[one].part == self.agents[other].part
    }

    /// Which of two comes first for an address.
    pub fn better(&self, one: usize, other: usize, address: IpAddr) -> usize {
        let candidate = |number: usize| Candidate {
            node: self.agents[number].name.clone(),
            weight: 0,
            claims: Arc::default(),
            path_lost: None,
        };
        let both = [candidate(one), candidate(other)];
        if elect(&both, address, |_| false) == Some(&both[0].node) { one } else { other }
    }

    fn is_life(&self, agent: usize, life: u64) -> bool {
        self.agents[agent].life.as_ref().is_some_and(|it| it.life == life)
    }

    fn post(&mut self, at: Instant, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, event)));
    }

    fn arrive(&mut self, from: usize, to: usize, pulse: &Pulse) {
        let now = self.now;
        let Some(life) = &mut self.agents[to].life else { return };
        let heard = life.machine.handle_pulse(pulse.clone(), now);
        if heard == crier::pulse::outcome::Outcome::Taken && pulse.eligibility == Eligibility::Eligible {
            life.heard.entry(from).or_insert(now);
            life.last_taken.insert(from, now);
        }
        self.attend(to);
    }

    /// Sends what the agent has to say, and has it think about what it learned.
    fn attend(&mut self, agent: usize) {
        let now = self.now;
        let mut said = Vec::new();
        let Some(life) = &mut self.agents[agent].life else { return };
        while let Some(pulse) = life.machine.poll_pulse(now) {
            said.push(pulse);
        }
        if let Some(roster) = life.machine.poll_roster(now) {
            life.settled = roster.settled;
            life.planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
            self.think(agent);
        }
        let Some(life) = &mut self.agents[agent].life else { return };
        if life.machine.has_left() {
            self.kill(agent);
        } else if let Some(deadline) = life.machine.next_deadline()
            && life.wakes.is_none_or(|wakes| deadline < wakes)
        {
            life.wakes = Some(deadline);
            let life = life.life;
            self.post(deadline.max(now + Duration::from_nanos(1)), Event::Wake(agent, life));
        }
        for pulse in said {
            self.send(agent, pulse);
        }
    }

    fn send(&mut self, from: usize, pulse: Pulse) {
        self.packets += 1;
        let pulse = Arc::new(pulse);
        for to in 0..self.agents.len() {
            if to == from || !self.connected(from, to) || self.agents[to].life.is_none() {
                continue;
            }
            let latest = u64::try_from(LATENCY.as_micros()).unwrap();
            if self.random.u8(0..100) >= self.weather.loss {
                let at = self.now + Duration::from_micros(self.random.u64(20..latest));
                self.post(at, Event::Arrive { from, to, packet: Packet(pulse.clone()) });
            }
            if self.random.u8(0..100) < self.weather.doubles {
                let at = self.now + Duration::from_micros(self.random.u64(20..500_000));
                self.post(at, Event::Arrive { from, to, packet: Packet(pulse.clone()) });
            }
        }
    }

    fn think(&mut self, agent: usize) {
        let Some(life) = &mut self.agents[agent].life else { return };
        if std::mem::replace(&mut life.thinks, true) {
            return;
        }
        let life = life.life;
        let time = Duration::from_micros(self.random.u64(50..u64::try_from(THINKING.as_micros()).unwrap()));
        self.post(self.now + time, Event::Think(agent, life));
    }

    fn think_now(&mut self, number: usize) {
        let now = self.now;
        let Some(life) = &mut self.agents[number].life else { return };
        life.thinks = false;
        life.planner.turn(now);
        let plan = life.planner.plan();
        let owns: BTreeSet<IpAddr> = plan.l2.addresses.keys().copied().collect();
        let pulse = &plan.pulse;
        life.machine.handle_expected(&pulse.expected, now);
        life.machine.handle_stance(
            Stance {
                mac: mac(number),
                eligibility: pulse.eligibility.unwrap_or(Eligibility::NodeUnknown),
                owner: pulse.owner,
                labels: pulse.labels.clone(),
                claims: pulse.claims.clone(),
                occupied: pulse.occupied.clone(),
                needs_ipv4: false,
            },
            now,
        );
        let before = std::mem::replace(&mut life.owns, owns.clone());
        if before != owns {
            life.heard.clear();
        }
        let change = |address: &IpAddr, owns| Move { at: now, agent: number, address: *address, owns };
        self.moves.extend(before.difference(&owns).map(|address| change(address, false)));
        self.moves.extend(owns.difference(&before).map(|address| change(address, true)));
        self.attend(number);
    }
}

fn mac(agent: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, u8::try_from(agent).unwrap_or(u8::MAX)])
}

/// It asks for its address, because nobody gives it one.
fn service(address: IpAddr) -> Service {
    let request = Ok(Request { addresses: vec![address], pool: None });
    Service { request, ingress: Vec::new(), ..town::service(address, false) }
}
