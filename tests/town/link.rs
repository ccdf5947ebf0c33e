//! The link: ports of switches that may be cut off from each other, and everything that can keep a frame from passing.
//! It says who receives a frame and when. It knows nothing of what the frames mean, apart from telling pulses from the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crier::address::{Family, MacAddress};
use fastrand::Rng;

/// The longest that a frame is under way while nothing is slow, a late double excepted.
pub const LATENCY: Duration = Duration::from_millis(2);

/// A station's place on the link, by its number.
pub type Port = usize;

/// What a frame is, as far as filters care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pulse(Family),
    /// ARP, and whatever else a station sends.
    Other,
}

/// What a firewall on a host drops of the pulses. ARP never meets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Firewall {
    pub inward: bool,
    pub outward: bool,
}

pub struct Link {
    ports: Vec<PortState>,
    /// Nothing passes from the first to the second.
    deaf: BTreeSet<(Port, Port)>,
    /// The switches forward no multicast of these families: they snoop, and nobody asks who wants it.
    pruned: BTreeSet<Family>,
    /// Behind which port the switch of a part saw a station last.
    seen: BTreeMap<(u8, MacAddress), Port>,
    /// The longest that a frame is under way now.
    pub latency: Duration,
    /// Of a hundred frames so many are lost.
    pub loss: u8,
    /// Of a hundred pulses so many come twice, the second time up to half a second late.
    pub doubles: u8,
}

#[derive(Debug, Clone)]
struct PortState {
    /// Frames pass between ports of one part.
    part: u8,
    carrier: bool,
    /// The switch learns before it forwards: carrier alone is not enough.
    forwards_from: Option<Instant>,
    firewall: Firewall,
    /// When its broadcasts and multicasts of the last second were sent.
    floods: VecDeque<Instant>,
}

impl Link {
    pub fn new(ports: usize) -> Link {
        let port = PortState {
            part: 0,
            carrier: true,
            forwards_from: None,
            firewall: Firewall::default(),
            floods: VecDeque::new(),
        };
        Link {
            ports: vec![port; ports],
            deaf: BTreeSet::new(),
            pruned: BTreeSet::new(),
            seen: BTreeMap::new(),
            latency: LATENCY,
            loss: 0,
            doubles: 0,
        }
    }

    /// Puts a port on the switches of a part.
    pub fn move_to(&mut self, port: Port, part: u8) {
        self.ports[port].part = part;
    }

    /// Whether `to` hears nothing of `from` from now on.
    pub fn deafen(&mut self, to: Port, from: Port, deaf: bool) {
        let _changed = if deaf { self.deaf.insert((from, to)) } else { self.deaf.remove(&(from, to)) };
    }

    pub fn prune(&mut self, family: Family, pruned: bool) {
        let _changed = if pruned { self.pruned.insert(family) } else { self.pruned.remove(&family) };
    }

    pub fn set_firewall(&mut self, port: Port, firewall: Firewall) {
        self.ports[port].firewall = firewall;
    }

    pub fn unplug(&mut self, port: Port) {
        self.ports[port].carrier = false;
        self.seen.retain(|_, at| *at != port);
    }

    /// There is carrier at once, and the switch forwards from then on.
    pub fn plug(&mut self, port: Port, forwards_from: Instant) {
        self.ports[port].carrier = true;
        self.ports[port].forwards_from = Some(forwards_from);
    }

    /// Whether a frame of `from` can reach `to` at all.
    pub fn passes(&self, from: Port, to: Port, now: Instant) -> bool {
        let open = |port: Port| {
            let state = &self.ports[port];
            state.carrier && state.forwards_from.is_none_or(|from| from <= now)
        };
        from != to
            && self.ports[from].part == self.ports[to].part
            && open(from)
            && open(to)
            && !self.deaf.contains(&(from, to))
    }

    /// The segment of a port.
    pub fn part(&self, port: Port) -> u8 {
        self.ports[port].part
    }

    /// Whether a pulse of `from` can reach `to` by any family.
    pub fn pulses_pass(&self, from: Port, to: Port, now: Instant) -> bool {
        Family::BOTH.iter().any(|family| self.admits(from, to, Kind::Pulse(*family))) && self.passes(from, to, now)
    }

    /// Who receives a frame, each when. `destination` is `None` for broadcast and multicast.
    pub fn send(
        &mut self,
        (from, mac): (Port, MacAddress),
        destination: Option<MacAddress>,
        kind: Kind,
        now: Instant,
        random: &mut Rng,
    ) -> Vec<(Port, Instant)> {
        let part = self.ports[from].part;
        self.seen.insert((part, mac), from);
        let known = destination.and_then(|mac| self.seen.get(&(part, mac)).copied());
        if destination.is_none() {
            self.count_flood(from, now);
        }
        let all = match known {
            Some(port) => port..port + 1,
            None => 0..self.ports.len(),
        };
        let mut received = Vec::new();
        for to in all {
            if !self.passes(from, to, now) || !self.admits(from, to, kind) {
                continue;
            }
            if random.u8(0..100) >= self.loss {
                received.push((to, now + up_to(self.latency, random)));
            }
            if kind != Kind::Other && random.u8(0..100) < self.doubles {
                received.push((to, now + up_to(LATENCY * 250, random)));
            }
        }
        received
    }

    /// How many broadcasts and multicasts a port has sent within the last second.
    pub fn floods_in_a_second(&mut self, port: Port, now: Instant) -> usize {
        let floods = &mut self.ports[port].floods;
        while floods.front().is_some_and(|at| *at + Duration::from_secs(1) <= now) {
            floods.pop_front();
        }
        floods.len()
    }

    fn count_flood(&mut self, port: Port, now: Instant) {
        self.floods_in_a_second(port, now);
        self.ports[port].floods.push_back(now);
    }

    fn admits(&self, from: Port, to: Port, kind: Kind) -> bool {
        match kind {
            Kind::Other => true,
            Kind::Pulse(family) => {
                !self.ports[from].firewall.outward && !self.ports[to].firewall.inward && !self.pruned.contains(&family)
            }
        }
    }
}

fn up_to(most: Duration, random: &mut Rng) -> Duration {
    Duration::from_micros(random.u64(20..u64::try_from(most.as_micros()).unwrap()))
}
