//! The flows that the kernel tracks to some addresses, or from them (conntrack), for a drain that waits until they have ended. Floor 2.
//! Not for what becomes of them: the kernel is asked, and nothing is changed.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::SockRef;

use crate::address::Family;

/// A flow by a number that no other has, as far as 64 bits tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow(u64);

/// What is known of one that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// That of the addresses which it is to, or whose replies go there.
    pub address: IpAddr,
    /// When the kernel forgets it, unless a packet comes; whole seconds. `None` where it does not say.
    pub expires_in: Option<Duration>,
}

/// How long the kernel may be silent in the middle of its list.
const SILENCE: Duration = Duration::from_secs(5);

/// What a list of the kernel says.
#[derive(Debug, Default)]
struct Seen {
    open: HashMap<Flow, Open>,
    /// Some connection of this family is tracked, whosever it is.
    tracked: BTreeSet<Family>,
}

/// Lists the open flows to these addresses, and the outbound connections of pods that leave with them, in this network namespace. Blocks for as long as the list is. Needs CAP_NET_ADMIN.
///
/// Open is a TCP connection from its SYN's answer until both ends have said FIN, and any other flow that went both ways.
///
/// The kernel tracks a family in a network namespace only once a rule there needs that. Before, its list is empty and says nothing of
/// connections. So a list without any connection of a family is believed only once a packet that this host sends to itself is tracked.
///
/// # Errors
/// Where the kernel tracks no connections of one of the families, or does not answer.
pub fn open(addresses: &BTreeSet<IpAddr>, families: &BTreeSet<Family>) -> io::Result<HashMap<Flow, Open>> {
    let mut seen = list(addresses)?;
    if !families.is_subset(&seen.tracked) {
        families.difference(&seen.tracked).for_each(|family| probe(*family));
        seen = list(addresses)?;
    }
    match families.difference(&seen.tracked).next() {
        Some(family) => Err(untracked(*family)),
        None => Ok(seen.open),
    }
}

fn untracked(family: Family) -> io::Error {
    io::Error::other(format!(
        "the kernel tracks no {family} connections on this host: no rule of a firewall or kube-proxy asks for it"
    ))
}

/// Sends a datagram from this host to itself. Where that cannot be sent, nothing is tracked either.
fn probe(family: Family) {
    let loopback: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let _ = UdpSocket::bind((loopback, 0)).and_then(|socket| socket.send_to(&[], socket.local_addr()?));
}

fn list(addresses: &BTreeSet<IpAddr>) -> io::Result<Seen> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    SockRef::from(&socket).set_read_timeout(Some(SILENCE))?;
    socket.send(&request(), 0)?;
    let mut seen = Seen::default();
    loop {
        let (octets, _) = socket.recv_from_full()?;
        if take(&octets, addresses, &mut seen)? {
            return Ok(seen);
        }
    }
}

/// Asks for the whole table, of both families.
fn request() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + NFGEN);
    message.extend_from_slice(&20_u32.to_ne_bytes());
    message.extend_from_slice(&GET.to_ne_bytes());
    message.extend_from_slice(&(REQUEST | DUMP).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    // The family (none: all), the version, and no resource.
    message.extend_from_slice(&[0; NFGEN]);
    message
}

/// Takes what some messages say. True behind the last one. What cannot be read is left out.
fn take(octets: &[u8], addresses: &BTreeSet<IpAddr>, seen: &mut Seen) -> io::Result<bool> {
    let mut rest = octets;
    while let Some((length, kind)) = header(rest) {
        let Some(message) = rest.get(..length) else { break };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = message.get(HEADER..HEADER + 4).and_then(|it| it.try_into().ok()).map(i32::from_ne_bytes);
                return match code {
                    Some(0) | None => Ok(true),
                    Some(code) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                };
            }
            NEW => {
                seen.tracked.extend(message.get(HEADER).and_then(|family| family_of(*family)));
                seen.open.extend(message.get(HEADER + NFGEN..).and_then(|body| flow(body, addresses)));
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn family_of(number: u8) -> Option<Family> {
    match i32::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// Length and type of the message in front.
pub(super) fn header(octets: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(octets.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(octets.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    (length >= HEADER).then_some((length, kind))
}

/// The flow that these attributes describe, if it is an open one to one of the addresses, or its replies go there.
fn flow(body: &[u8], addresses: &BTreeSet<IpAddr>) -> Option<(Flow, Open)> {
    let original = attribute(body, TUPLE_ORIGINAL)?;
    let to_address = |tuple: &[u8]| {
        let destination = attribute(tuple, TUPLE_IP).and_then(|ip| address(ip, IP_V4_DESTINATION, IP_V6_DESTINATION));
        destination.filter(|it| addresses.contains(it))
    };
    let address = to_address(original).or_else(|| to_address(attribute(body, TUPLE_REPLY)?))?;
    let protocol = attribute(attribute(original, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)?;
    let is_open = if protocol == [TCP] {
        let state = attribute(attribute(attribute(body, PROTOCOL_INFO)?, INFO_TCP)?, TCP_STATE)?;
        state.first().is_some_and(|state| OPEN_TCP_STATES.contains(state))
    } else {
        let status = attribute(body, STATUS)?.try_into().ok().map(u32::from_be_bytes)?;
        status & ASSURED != 0
    };
    let mut hasher = DefaultHasher::new();
    (original, attribute(body, ID)).hash(&mut hasher);
    let seconds = attribute(body, TIMEOUT).and_then(|it| it.try_into().ok()).map(u32::from_be_bytes);
    let expires_in = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    is_open.then(|| (Flow(hasher.finish()), Open { address, expires_in }))
}

fn address(ip: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    match (attribute(ip, v4), attribute(ip, v6)) {
        (Some(octets), _) => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        (None, Some(octets)) => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        (None, None) => None,
    }
}

/// The value of the first attribute of this type.
pub(super) fn attribute(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = octets;
    while let Some(head) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & KIND;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

// From linux/netlink.h and linux/netfilter/nfnetlink_conntrack.h.
pub(super) const HEADER: usize = 16;
const NFGEN: usize = 4;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// Messages of conntrack, the subsystem of number 1.
const NEW: u16 = 1 << 8;
const GET: u16 = (1 << 8) | 1;
/// Without the flags in the upper bits of an attribute's type.
const KIND: u16 = 0x3fff;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_V4_DESTINATION: u16 = 2;
const IP_V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP: u8 = 6;
/// `SYN_RECV`, `ESTABLISHED`, `FIN_WAIT` and `CLOSE_WAIT`.
const OPEN_TCP_STATES: [u8; 4] = [2, 3, 4, 5];
/// `IPS_ASSURED`: packets went both ways more than once.
const ASSURED: u32 = 1 << 2;

/// One by its number.
#[cfg(test)]
pub fn flow_of_test(number: u64) -> Flow {
    Flow(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut octets = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    /// A flow to an address as the kernel lists it.
    fn listed(to: [u8; 4], protocol: u8, state: Option<u8>, status: u32, id: u32) -> Vec<u8> {
        listed_with([to, [10, 0, 0, 1]], protocol, state, status, id)
    }

    /// The same, with where its packets and the replies go.
    fn listed_with(to: [[u8; 4]; 2], protocol: u8, state: Option<u8>, status: u32, id: u32) -> Vec<u8> {
        let tuple = |to: [u8; 4]| {
            let ip = [nested(1, &[10, 0, 0, 7]), nested(IP_V4_DESTINATION, &to)].concat();
            let number = nested(PROTOCOL_NUMBER, &[protocol]);
            [nested(TUPLE_IP | 0x8000, &ip), nested(TUPLE_PROTOCOL | 0x8000, &number)].concat()
        };
        let mut body = nested(TUPLE_ORIGINAL | 0x8000, &tuple(to[0]));
        body.extend(nested(TUPLE_REPLY | 0x8000, &tuple(to[1])));
        body.extend(nested(STATUS, &status.to_be_bytes()));
        if let Some(state) = state {
            let info = nested(INFO_TCP | 0x8000, &nested(TCP_STATE, &[state]));
            body.extend(nested(PROTOCOL_INFO | 0x8000, &info));
        }
        body.extend(nested(ID, &id.to_be_bytes()));
        body.extend(nested(TIMEOUT, &86_390_u32.to_be_bytes()));
        let mut message = u32::try_from(HEADER + NFGEN + body.len()).unwrap().to_ne_bytes().to_vec();
        message.extend_from_slice(&NEW.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(&[2, 0, 0, 0]);
        message.extend(body);
        message
    }

    fn count(messages: &[Vec<u8>]) -> usize {
        let addresses = [IpAddr::from([192, 0, 2, 1])].into();
        let mut seen = Seen::default();
        assert!(!take(&messages.concat(), &addresses, &mut seen).unwrap());
        assert_eq!(seen.tracked, [Family::V4].into(), "connections of others count for that");
        let known = Open { address: [192, 0, 2, 1].into(), expires_in: Some(Duration::from_secs(86_390)) };
        assert!(seen.open.values().all(|open| *open == known), "{:?}", seen.open);
        seen.open.len()
    }

    #[test]
    fn open_flows_to_the_addresses_are_counted_and_others_are_not() {
        let (ours, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        assert_eq!(count(&[listed(ours, TCP, Some(3), 0, 1), listed(ours, TCP, Some(5), 0, 2)]), 2);
        assert_eq!(count(&[listed(other, TCP, Some(3), 0, 1)]), 0, "to another address");
        let from_a_pod = listed_with([other, ours], TCP, Some(3), 0, 1);
        assert_eq!(count(&[from_a_pod]), 1, "the replies go to the address");
        assert_eq!(
            count(&[listed(ours, TCP, Some(7), 0, 1), listed(ours, TCP, Some(1), 0, 2)]),
            0,
            "TIME_WAIT, SYN_SENT"
        );
        assert_eq!(
            count(&[listed(ours, 17, None, ASSURED, 1), listed(ours, 17, None, 0, 2)]),
            1,
            "a UDP flow both ways"
        );
    }

    #[test]
    fn a_list_ends_with_its_last_message_and_an_error_is_one() {
        let message = |kind: u16, body: &[u8]| {
            let mut octets = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
            octets.extend_from_slice(&kind.to_ne_bytes());
            octets.extend_from_slice(&[0; 10]);
            octets.extend_from_slice(body);
            octets
        };
        let take = |octets: &[u8]| take(octets, &BTreeSet::new(), &mut Seen::default());
        assert!(take(&message(DONE, &[0; 4])).unwrap());
        let refused = take(&message(ERROR, &(-1_i32).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(!take(&[]).unwrap());
    }

    #[test]
    fn octets_that_make_no_sense_are_no_flow_and_no_panic() {
        let addresses = [IpAddr::from([192, 0, 2, 1])].into();
        let whole = listed([192, 0, 2, 1], TCP, Some(3), 0, 1);
        let mut seen = Seen::default();
        assert!(!take(&whole, &addresses, &mut seen).unwrap());
        assert_eq!(seen.open.len(), 1, "the whole one is");
        for length in 0..whole.len() {
            let mut seen = Seen::default();
            let ended = take(&whole[..length], &addresses, &mut seen);
            assert!(seen.open.is_empty() && ended.is_ok_and(|ended| !ended), "{length} octets: {:?}", seen.open);
        }
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut torn = whole.clone();
            let place = random.usize(..torn.len());
            torn[place] = random.u8(..);
            let mut seen = Seen::default();
            let _ = take(&torn, &addresses, &mut seen);
            assert!(seen.open.values().all(|open| addresses.contains(&open.address)), "{:?}", seen.open);
        }
    }
}
