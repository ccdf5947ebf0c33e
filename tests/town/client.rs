//! A host or router beside the agents, with the neighbour cache of Linux (`net/core/neighbour.c`, `net/ipv4/arp.c`): it
//! learns from answers and gratuitous ARP, ages, and asks again by unicast before it broadcasts. Its timers are looked
//! at when it sends, which it does every [`REQUEST_INTERVAL`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crier::address::MacAddress;
use crier::arp::packet::arp::{Operation, Packet};

/// How often a client sends a request to each address.
pub const REQUEST_INTERVAL: Duration = Duration::from_millis(100);

/// `locktime`: an update that does not come as gratuitous ARP is not believed so soon after the one before.
const LOCK_TIME: Duration = Duration::from_secs(1);
/// `delay_first_probe_time`: a stale entry is used for so long before it is asked about.
const DELAY: Duration = Duration::from_secs(5);
/// `retrans_time_ms`: between two questions.
const RETRANSMIT: Duration = Duration::from_secs(1);
/// `ucast_solicit`: questions to the old MAC before the entry fails.
const UNICASTS: u8 = 3;

pub struct Client {
    pub mac: MacAddress,
    ip: Ipv4Addr,
    /// How long an entry is believed after it was confirmed: 15 to 45 s on Linux, many minutes on routers.
    reachable_time: Duration,
    /// Answers of the service confirm the entry, as TCP does it. A router sees none.
    confirms: bool,
    entries: BTreeMap<Ipv4Addr, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None` while it is asked for.
    mac: Option<MacAddress>,
    state: State,
    updated: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asked for by broadcast; again at that time.
    Incomplete(Instant),
    Reachable(Instant),
    Stale,
    Delay(Instant),
    /// So many were asked by unicast; the next step comes at that time.
    Probe(u8, Instant),
}

/// What becomes of a request that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// It goes there; `None`: it waits until the address is known.
    pub to: Option<MacAddress>,
    /// What is asked on the link beside.
    pub asks: Option<Packet>,
}

impl Client {
    pub fn host(mac: MacAddress, ip: Ipv4Addr, reachable_time: Duration) -> Client {
        Client { mac, ip, reachable_time, confirms: true, entries: BTreeMap::new() }
    }

    /// A router keeps what it learned for twenty minutes, and nothing that it forwards confirms it.
    pub fn router(mac: MacAddress, ip: Ipv4Addr) -> Client {
        let reachable_time = Duration::from_secs(1200);
        Client { mac, ip, reachable_time, confirms: false, entries: BTreeMap::new() }
    }

    /// A request to `address` is to be sent now.
    pub fn send(&mut self, address: Ipv4Addr, now: Instant) -> Sending {
        let (mac, ip) = (self.mac, self.ip);
        let ask = |to: MacAddress| Packet {
            destination: to,
            source: mac,
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: MacAddress::ZERO,
            target_ip: address,
        };
        let entry =
            self.entries.entry(address).or_insert(Entry { mac: None, state: State::Incomplete(now), updated: now });
        if matches!(entry.state, State::Reachable(until) if until <= now) {
            entry.state = State::Stale;
        }
        let mut asks = None;
        match (entry.state, entry.mac) {
            (State::Stale, _) => entry.state = State::Delay(now + DELAY),
            (State::Delay(until), Some(old)) if until <= now => {
                entry.state = State::Probe(1, now + RETRANSMIT);
                asks = Some(ask(old));
            }
            (State::Probe(asked, next), Some(old)) if next <= now && asked < UNICASTS => {
                entry.state = State::Probe(asked + 1, now + RETRANSMIT);
                asks = Some(ask(old));
            }
            (State::Probe(_, next), _) if next <= now => {
                entry.mac = None;
                entry.state = State::Incomplete(now + RETRANSMIT);
                asks = Some(ask(MacAddress::BROADCAST));
            }
            (State::Incomplete(next), _) if next <= now => {
                entry.state = State::Incomplete(now + RETRANSMIT);
                asks = Some(ask(MacAddress::BROADCAST));
            }
            (State::Delay(_) | State::Probe(..) | State::Incomplete(_) | State::Reachable(_), _) => {}
        }
        Sending { to: entry.mac, asks }
    }

    /// A request was answered by the service itself.
    pub fn confirm(&mut self, address: Ipv4Addr, now: Instant) {
        let until = now + self.reachable_time;
        if let Some(entry) = self.entries.get_mut(&address).filter(|entry| self.confirms && entry.mac.is_some()) {
            entry.state = State::Reachable(until);
        }
    }

    /// Takes in what a station says of itself. Nobody is remembered that this client does not talk to (`arp_accept` is 0).
    /// Whether an address became known that was asked for.
    pub fn learn(&mut self, packet: &Packet, now: Instant) -> Option<Ipv4Addr> {
        let reachable = State::Reachable(now + self.reachable_time);
        let for_us = packet.destination == self.mac;
        let entry = self.entries.get_mut(&packet.sender_ip)?;
        let is_reply = packet.operation == Operation::Reply;
        let gratuitous = packet.is_gratuitous() && (!is_reply || packet.target_mac == packet.sender_mac);
        let state = if is_reply && for_us { reachable } else { State::Stale };
        match entry.mac {
            None => {
                *entry = Entry { mac: Some(packet.sender_mac), state, updated: now };
                return Some(packet.sender_ip);
            }
            Some(mac) if mac == packet.sender_mac => {
                if state != State::Stale {
                    entry.state = state;
                    entry.updated = now;
                }
            }
            Some(_) if gratuitous || now > entry.updated + LOCK_TIME => {
                *entry = Entry { mac: Some(packet.sender_mac), state, updated: now };
            }
            Some(_) => {}
        }
        None
    }

    /// The answer to whoever asks for the client's own address.
    pub fn answer(&self, packet: &Packet) -> Option<Packet> {
        (packet.operation == Operation::Request && packet.target_ip == self.ip)
            .then(|| Packet::reply_to(packet, self.mac))
    }
}
