//! One agent: its planner, its pulse and its claims, wired as the tasks of floor 2 and 3 wire them. The only file of the
//! town that knows these machines: whoever changes them adapts this file and no other.
//!
//! The order of things is that of the tasks: `pulse::task` looks at its timers before it reads, each answer on the link
//! is given at once, and the planner turns some time after a fact came in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crier::address::{Family, MacAddress};
use crier::agent::kept_addresses::{self, Kept};
use crier::arp::machine::answer::{self, Ownership as Claim, Station, Verdict};
use crier::arp::machine::{Action, Claims, Report, Surroundings};
use crier::arp::packet::{Frame, Protocol};
use crier::claim::{ConflictKind, Errand};
use crier::config::{self, Config, NoSecrets, SourceFile};
use crier::names::{InterfaceName, NodeName};
use crier::plan::Planner;
use crier::plan::slice::EgressSlice;
use crier::pulse::machine::{Incarnations, Machine, Stance};
use crier::pulse::packet::{Key, Keys, Pulse};
use crier::pulse::settings::Settings;
use crier::roster::{Card, Holdings, KeyId, Roster};
use crier::views::drain::nobody_else;
use crier::views::{Counters, Snapshot};
use crier::world::{Conflict, Fact, Link, Pulses};
use imbl::OrdMap;
use ipnet::IpNet;

use crate::egress::Keeper;
use crate::story::Version;

pub const INTERVAL: Duration = Duration::from_millis(100);
pub const DETECTION: Duration = Duration::from_millis(300);

/// The longest that an agent thinks between what it learns and what it does.
pub const THINKING: Duration = Duration::from_millis(3);

/// How long it goes on answering after it said goodbye, and accepting traffic: `agent::run`.
pub const ANSWERS_ON: Duration = Duration::from_millis(30);
pub const ACCEPTS_ON: Duration = Duration::from_millis(200);

/// When an agent acts on what it remembers although the API server has not told everything: `agent::run`.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How many incarnations one life may use.
pub const LIFE: u64 = 1 << 20;

/// A configuration file as it stands on a node.
#[derive(Debug, Clone)]
pub struct File {
    pub config: Arc<Config>,
    /// The number of the key that authenticates its pulses.
    pub key: u8,
    /// Those that are accepted beside it.
    pub old_keys: Vec<u8>,
    /// Of the agent that reads it.
    pub version: Version,
    keys: Keys,
}

impl File {
    /// `l2` is the body of the one `[[l2]]`, its lines separated by "; ".
    pub fn new(l2: &str, key: u8, old_keys: Vec<u8>, interval: Duration) -> File {
        let l2 = l2.replace("; ", "\n");
        let text = format!(
            "[kubernetes]\nkubeconfig = \"/etc/crier/kubeconfig\"\n[[pool]]\nname = \"lan\"\naddresses = [\"10.0.0.0/16\"]\n\
             [[l2]]\n{l2}\n[pulse]\nunauthenticated = true\ninterval = \"{}ms\"\n",
            interval.as_millis()
        );
        let file = SourceFile { path: "crier.toml".to_owned(), text };
        let config = config::parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let keys = Keys::new(key_of(key), old_keys.iter().map(|key| key_of(*key)).collect());
        File { config: Arc::new(config), key, old_keys, version: Version::This, keys }
    }

    pub fn of_version(self, version: Version) -> File {
        File { version, ..self }
    }

    /// Whether agents with these files have a key in common, and so hear each other.
    pub fn accepts(&self, other: &File) -> bool {
        self.has_pulses() && other.has_pulses() && self.keys.ids().iter().any(|key| other.keys.ids().contains(key))
    }

    /// Key 0 is none.
    pub fn has_pulses(&self) -> bool {
        self.key != 0
    }
}

/// The key of a file, and those that it accepts beside it.
type KeyNumbers = (u8, Vec<u8>);

/// A pulse as it is sent. What a file's keys make of it is worked out once for all that hold the same.
pub struct Sealed {
    octets: Vec<u8>,
    /// Of a later version: the key, which the octets do not have. Nobody but crier can seal what crier does not say.
    key: Option<KeyId>,
    opened: RefCell<BTreeMap<KeyNumbers, Option<Pulse>>>,
}

impl Sealed {
    fn of(said: Pulse, file: &File) -> Sealed {
        let said = known_to(file.version, said);
        let (octets, key) = match file.version {
            Version::Earlier | Version::This => (said.emit(file.keys.of(said.key)), None),
            Version::Later => {
                let mut octets = said.emit(&Key::none());
                octets[FLAGS_AT] |= UNKNOWN_FLAG;
                octets.extend(UNKNOWN_SECTION);
                (octets, Some(file.keys.of(said.key).id()))
            }
        };
        Sealed { octets, key, opened: RefCell::default() }
    }

    fn open(&self, file: &File) -> Option<Pulse> {
        let parse = || match self.key {
            None => Pulse::parse(&self.octets, &file.keys).ok(),
            Some(key) => {
                let accepted = file.keys.ids().contains(&key);
                let pulse = Pulse::parse(&self.octets, &Key::none().into()).ok().filter(|_| accepted)?;
                Some(Pulse { key, ..pulse })
            }
        };
        let mut opened = self.opened.borrow_mut();
        let pulse = opened.entry((file.key, file.old_keys.clone())).or_insert_with(parse).clone()?;
        Some(known_to(file.version, pulse))
    }
}

/// What of a pulse a version says and reads.
fn known_to(version: Version, pulse: Pulse) -> Pulse {
    match version {
        Version::Earlier => {
            let plain = |card| Card { given: None, lease: None, ends: None, gateways: BTreeSet::new(), ..card };
            let card = pulse.card.map(plain);
            Pulse {
                card,
                accepts: Vec::new(),
                egress: None,
                tells_over_bgp: false,
                over_bgp: None,
                sessions: None,
                back_in: None,
                corrects: None,
                waits: false,
                receives_nothing: false,
                ..pulse
            }
        }
        Version::This | Version::Later => pulse,
    }
}

/// Where the flags of a pulse stand, one that nobody knows, and a section of a type that nobody knows.
const FLAGS_AT: usize = 3;
const UNKNOWN_FLAG: u8 = 0x80;
const UNKNOWN_SECTION: [u8; 8] = [200, 0, 5, 1, 2, 3, 4, 5];

/// Key 1, key 2 and so on.
fn key_of(number: u8) -> Key {
    Key::of_secret(&[number; Key::LEAST]).expect("it is as long as a key must be")
}

/// What an agent sends.
pub enum Sent {
    Pulse(Rc<Sealed>, Vec<Family>),
    Frame(Frame),
    /// A frame that asks whether anybody has the address.
    Probe(IpAddr, Frame),
}

pub struct Agent {
    name: NodeName,
    mac: MacAddress,
    ip: IpAddr,
    file: File,
    planner: Planner,
    /// As `pulse::task` has it: none before the first plan and while the link is of no use.
    pulse: Option<Machine>,
    claims: Claims,
    link_up: bool,
    errands: OrdMap<IpAddr, Errand>,
    /// The conflicts that the planner was told.
    told: BTreeMap<IpAddr, (MacAddress, ConflictKind)>,
    incarnations: Incarnations,
    /// A fact came in since the last turn.
    must_think: bool,
    /// It has restarted: by then it has again what it held.
    kept: Option<Kept>,
    /// Of crier's table in nftables; none in towns without egress.
    pub keeper: Option<Keeper>,
    egress_moved: bool,
    /// How many frames came in.
    received: u64,
    began: Option<Instant>,
}

impl Agent {
    /// `incarnation` must be greater by [`LIFE`] than that of the life before.
    pub fn new(name: &NodeName, mac: MacAddress, ip: IpAddr, file: File, incarnation: u64) -> Agent {
        let mut agent = Agent {
            name: name.clone(),
            mac,
            ip,
            planner: Planner::new(file.config.clone(), name.clone()),
            file,
            pulse: None,
            claims: Claims::default(),
            link_up: false,
            errands: OrdMap::new(),
            told: BTreeMap::new(),
            incarnations: Incarnations { first: incarnation, this: incarnation },
            must_think: false,
            kept: None,
            keeper: None,
            egress_moved: false,
            received: 0,
            began: None,
        };
        let pulses = if agent.file.has_pulses() { Pulses::On { authenticated: true } } else { Pulses::Off };
        agent.learn(Fact::Pulses(pulses));
        agent.learn(link(mac, ip, true));
        agent.learn(Fact::LinksListed);
        agent
    }

    pub fn learn(&mut self, fact: Fact) {
        self.planner.apply(fact);
        self.must_think = true;
    }

    /// The kernel says that there is carrier, or none.
    pub fn learn_carrier(&mut self, ip: IpAddr, carrier: bool) {
        self.learn(link(self.mac, ip, carrier));
    }

    /// SIGHUP: another file, as `agent::reload` takes it over. The pulses learn of their keys first.
    pub fn reload(&mut self, file: File, now: Instant) {
        if let Some(pulse) = self.pulse.as_mut().filter(|_| self.file.keys.ids() != file.keys.ids()) {
            pulse.handle_keys(file.keys.ids(), now);
        }
        if !config::changes(&self.file.config, &file.config).is_empty() {
            self.learn(Fact::Config(file.config.clone()));
        }
        // The program that runs is the same.
        self.file = File { version: self.file.version, ..file };
    }

    /// It knows of no restart in which addresses stay.
    pub fn is_of_an_earlier_version(&self) -> bool {
        self.file.version == Version::Earlier
    }

    /// Whether the agent would be drained without `--force`.
    pub fn is_not_the_last(&self, now: Instant) -> bool {
        let snapshot = Snapshot::of(&self.planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, UNIX_EPOCH);
        nobody_else(&snapshot).is_none()
    }

    /// By its plan it has something to do with addresses on the link.
    pub fn has_addresses(&self) -> bool {
        !self.planner.plan().l2.addresses.is_empty()
    }

    /// How much of each it keeps, as far as the plan and the World show it.
    pub fn sizes(&self) -> [(&'static str, usize); 8] {
        let (plan, world) = (self.planner.plan(), self.planner.world());
        let roster = world.rosters.get(&LINK).map(|roster| &**roster);
        let peers =
            |roster: &Roster| roster.members.len() + roster.silent.len() + roster.left.len() + roster.unproved.len();
        [
            ("peers", roster.map_or(0, peers)),
            ("stations", plan.l2.stations.anywhere.len()),
            ("placements", plan.placements.len()),
            ("conflicts", world.conflicts.len()),
            ("answers", world.answering.len()),
            ("holdings", plan.pulse.holdings.len()),
            ("claims", self.claims.len()),
            ("conflicts of the link", self.claims.conflicts().count()),
        ]
    }

    /// The nodes that it hears and that do not hear it, as far as it knows.
    pub fn deaf_to_it(&self) -> Vec<String> {
        let rosters = self.planner.world().rosters.values();
        let all = rosters.flat_map(|roster| {
            let members = roster.members.iter().filter(|(_, it)| it.deaf).map(|(node, _)| node.to_string());
            members.chain(roster.unproved.keys().map(|node| format!("{node} (never)")))
        });
        all.collect()
    }

    /// What it would find on its disk if it started again.
    pub fn remembers(&self) -> Vec<Fact> {
        self.planner.world().to_remember().collect()
    }

    /// Whether it is time to plan a turn; once for each time.
    pub fn take_must_think(&mut self) -> bool {
        std::mem::take(&mut self.must_think)
    }

    /// What it says of addresses in its pulses.
    pub fn says(&self) -> &Holdings {
        &self.planner.plan().pulse.holdings
    }

    /// It answers for the address on the link.
    pub fn answers(&self, address: IpAddr) -> bool {
        self.claims.ownership(address) == Claim::Announced
    }

    /// An address that it may have begun or ceased to answer for. The planner is told, as the responder tells it.
    pub fn poll_turned(&mut self) -> Option<IpAddr> {
        let address = self.claims.poll_turned()?;
        let (began, ended) = if self.answers(address) { (vec![address], vec![]) } else { (vec![], vec![address]) };
        self.learn(Fact::Answering { link: "eth0".into(), began, ended });
        Some(address)
    }

    /// Which stations answer for what it stands by, as the responder tells it.
    fn tell_answerers(&mut self) {
        let mut by = Vec::new();
        while let Some(address) = self.claims.poll_left() {
            by.push((address, self.claims.answerer(address)));
        }
        if !by.is_empty() {
            self.planner.apply(Fact::Answered { link: "eth0".into(), by });
        }
    }

    /// `thinks`: a turn of the planner is due already.
    pub fn next_deadline(&self, thinks: bool) -> Option<Instant> {
        let pulse = self.pulse.as_ref().and_then(Machine::next_deadline);
        let planner = self.planner.next_deadline().filter(|_| !thinks);
        [pulse, self.claims.next_deadline(), planner].into_iter().flatten().min()
    }

    /// SIGTERM: it says goodbye. The addresses for which this host accepts traffic, as of [`Agent::think`].
    pub fn leave(&mut self, now: Instant) -> Option<BTreeSet<IpAddr>> {
        // The links are told before the other nodes, as `agent::run` does it.
        self.learn(Fact::Leaving);
        let accepts = self.think(now);
        if let Some(pulse) = &mut self.pulse {
            pulse.handle_leaving(now);
        }
        accepts
    }

    /// SIGTERM in a restart: it says by when it is back. What it holds, and that time; `None` where it has to say goodbye, as
    /// `agent::kept_addresses` decides.
    pub fn restart(&mut self, grace: Duration, now: Instant) -> Option<Kept> {
        if self.file.version == Version::Earlier {
            return None;
        }
        let kept = kept_addresses::keeps(&self.planner.plan().pulse, grace, self.kept.as_ref(), now)?;
        if let Some(pulse) = &mut self.pulse {
            pulse.handle_restarting(kept.back_by, now);
        }
        self.learn(Fact::Leaving);
        Some(kept)
    }

    /// What it held before its restart, and by when others take that over.
    pub fn go_on(&mut self, kept: Kept) {
        self.learn(Fact::Kept(kept.addresses.clone()));
        self.kept = Some(kept);
    }

    /// A pulse arrives.
    pub fn hear(&mut self, sealed: &Sealed, now: Instant) {
        self.received += 1;
        if let (Some(pulse), Some(machine)) = (sealed.open(&self.file), &mut self.pulse) {
            machine.handle_pulse(pulse, now);
        }
    }

    /// A frame of ARP arrives.
    pub fn receive(&mut self, octets: &[u8], now: Instant, sent: &mut Vec<Sent>) {
        self.received += 1;
        let station = Station { mac: self.mac, other_macs: &[] };
        let (verdict, heard) = answer::judge(station, |address| self.claims.ownership(address), Protocol::Arp, octets);
        if let Some(heard) = heard {
            self.claims.handle_heard(heard, now);
        }
        match verdict {
            Verdict::Answer(frame) => sent.push(Sent::Frame(frame)),
            Verdict::Conflict(claimant) => {
                self.claims.handle_claimant(claimant, now);
            }
            Verdict::Rival(claimant) => {
                self.claims.handle_rival(claimant, now);
            }
            Verdict::Ignore(_) => {}
        }
    }

    /// Looks at every timer, sends what is due, and passes on what it learned. To be called after everything that happened.
    pub fn attend(&mut self, now: Instant, sent: &mut Vec<Sent>) {
        if let Some(pulse) = &mut self.pulse {
            if pulse.wants_count(now) {
                // The switch has something to say itself now and then.
                let of_switch = now.duration_since(*self.began.get_or_insert(now)).as_secs() / 2;
                pulse.handle_received(Some(self.received + of_switch), self.claims.hears_nobody(), now);
            }
            while let Some(said) = pulse.poll_pulse(now) {
                let families = vec![Family::V6, Family::V4];
                sent.push(Sent::Pulse(Rc::new(Sealed::of(said, &self.file)), families));
            }
            if let Some(roster) = pulse.poll_roster(now) {
                self.learn(Fact::Roster(LINK, Some(Arc::new(roster))));
            }
        }
        while let Some(action) = self.claims.poll_action(now) {
            match action {
                Action::Probe(address) => sent.push(Sent::Probe(address, Frame::probe(address, self.mac))),
                Action::AskNode(address) | Action::AskOthers(address) => {
                    self.claims.handle_asked();
                    sent.extend(Frame::question(address, self.ip, self.mac).map(Sent::Frame));
                }
                Action::PassOn { address, to } => {
                    sent.extend(Frame::announcements_of(address, to, self.mac).map(Sent::Frame));
                }
                Action::Announce(address) => sent.extend(Frame::announcements(address, self.mac).map(Sent::Frame)),
            }
        }
        self.tell_conflicts();
        self.tell_answerers();
        if self.planner.next_deadline().is_some_and(|due| due <= now) {
            self.must_think = true;
        }
    }

    /// One turn of the planner, and its slices handed to the machines as far as they moved. The addresses for which this
    /// host accepts traffic from now on, if they may be others.
    pub fn think(&mut self, now: Instant) -> Option<BTreeSet<IpAddr>> {
        let moved = self.planner.turn(now).moved;
        self.egress_moved |= moved.egress;
        if moved.pulse {
            self.follow_pulse(now);
        }
        if moved.l2 {
            self.follow_link(now);
        }
        let plan = self.planner.plan();
        // What it held before its restart stays bound until it has it again.
        (moved.l2 || moved.pulse).then(|| plan.l2.addresses.keys().chain(plan.pulse.kept.iter()).copied().collect())
    }

    pub fn egress_slice(&self) -> &EgressSlice {
        &self.planner.plan().egress
    }

    /// Whether that is another one; once for each time.
    pub fn take_egress_moved(&mut self) -> bool {
        std::mem::take(&mut self.egress_moved)
    }

    /// As `pulse::task` follows its slice.
    fn follow_pulse(&mut self, now: Instant) {
        let slice = self.planner.plan().pulse.clone();
        let (Some(eligibility), Some(here)) = (slice.eligibility, slice.links.get(&LINK)) else {
            if self.pulse.take().is_some() {
                self.learn(Fact::Roster(LINK, None));
            }
            return;
        };
        let stance = Stance {
            mac: self.mac,
            eligibility,
            owner: slice.owner,
            hears_api_server: slice.hears_api_server,
            card: here.card.clone(),
            holdings: slice.holdings,
            occupied: slice.occupied,
            egress: slice.egress,
            over_bgp: slice.over_bgp.clone(),
            sessions: slice.sessions,
            back_by: self.kept.as_ref().map(|kept| kept.back_by).filter(|_| !slice.kept.is_empty()),
        };
        match &mut self.pulse {
            Some(machine) => {
                machine.handle_expected(&slice.expected, now);
                machine.handle_doubted(&slice.doubted, now);
                machine.handle_stance(stance, now);
            }
            None => {
                self.incarnations.this += 1;
                let config::Pulse { interval, multiplier, .. } = self.file.config.pulse;
                let settings = Settings { interval, multiplier };
                let keys = self.file.keys.ids();
                self.pulse = Some(Machine::new(self.name.clone(), settings, keys, self.incarnations, stance, now));
            }
        }
    }

    /// As the responder and the worker of the link follow their slice.
    fn follow_link(&mut self, now: Instant) {
        let slice = self.planner.plan().l2.clone();
        self.claims.handle_surroundings(Surroundings {
            mac: self.mac,
            stations: slice.stations.on(LINK),
            addresses: slice.node_addresses.clone(),
            own: [net(self.ip)].into(),
            yields: slice.yields_on(LINK),
            leaving: slice.leaving,
        });
        let wanted: OrdMap<IpAddr, Errand> = slice
            .addresses
            .keys()
            .chain(slice.standbys.keys())
            .map(|address| (*address, slice.errand(*address)))
            .collect();
        for (address, errand) in &wanted {
            if self.errands.get(address) != Some(errand) {
                self.claims.handle_owned(*address, errand, now);
            }
        }
        for address in self.errands.keys().filter(|address| !wanted.contains_key(*address)) {
            self.claims.handle_disowned(*address, now);
        }
        self.errands = wanted;
        let up = slice.links.iter().any(|link| link.index == LINK && link.up && link.carrier);
        match (self.link_up, up) {
            (false, true) => self.claims.handle_link_up(now),
            (true, false) => self.claims.handle_link_down(),
            (true, true) | (false, false) => {}
        }
        self.link_up = up;
        self.tell_conflicts();
    }

    /// What is in the way of which address, as the responder tells it: what is no news is told once.
    fn tell_conflicts(&mut self) {
        while let Some(report) = self.claims.poll_report() {
            let (address, conflict) = match report {
                Report::Conflict { claimant, kind, frames: _ } => (claimant.address, Some((claimant.mac, kind))),
                Report::Over(address) => (address, None),
            };
            let told = match conflict {
                Some(conflict) => self.told.insert(address, conflict),
                None => self.told.remove(&address),
            };
            if told != conflict {
                let conflict = conflict.map(|(mac, kind)| Conflict { mac, kind, since: UNIX_EPOCH });
                self.learn(Fact::Conflict(address, InterfaceName::from("eth0"), conflict));
            }
        }
    }
}

/// The kernel's index of the one link.
const LINK: u32 = 2;

fn net(ip: IpAddr) -> IpNet {
    IpNet::new(ip, 16).expect("a prefix of IPv4")
}

fn link(mac: MacAddress, ip: IpAddr, carrier: bool) -> Fact {
    let link = Link {
        index: LINK,
        name: "eth0".into(),
        mac: Some(mac),
        up: true,
        carrier,
        loopback: false,
        arp: true,
        master: None,
        vrf: None,
        parent: None,
        addresses: vec![net(ip)],
        deprecated: Default::default(),
        kernels: Default::default(),
    };
    Fact::Link(LINK, Some(link))
}
