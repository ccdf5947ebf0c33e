//! Asks pods of whose connections the new owner of their address knows nothing to say something. Floor 1.
//!
//! An owner learns of a connection by its first packet from the pod: what the other end sends is for nobody before. A pod that only
//! listens, as in a download, says nothing while nothing comes, and would wait for ever. To a segment that is not in its window TCP
//! answers with where it stands (RFC 9293 §3.8.4, as for a keep-alive probe). The node of the pod sends it such a segment as if the
//! other end had: nothing of it leaves the node, and the pod's answer makes the connection known to the owner.
//!
//! How to drive it: tell it connections by [`Keepalives::begin`]; at [`Keepalives::next_deadline`] send what
//! [`Keepalives::handle_timeout`] returns.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::Ends;
use super::ruleset::Content;
use crate::checksum::checksum;
use crate::plan::slice::Mapping;

/// How long after the change the segments are sent: routes to the owner may come a moment later than the table, and Linux answers
/// one connection twice a second at most (`net.ipv4.tcp_invalid_ratelimit`).
///
/// The last one is for what did not pass meanwhile: the owner's conntrack was full, or its routes came later.
const ROUNDS: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(600), Duration::from_millis(2000), Duration::from_secs(10)];

/// So many segments are sent at once, so that no other work waits for them...
const BURST: usize = 256;
/// ...and the next ones then.
const PAUSE: Duration = Duration::from_millis(5);

/// Of more connections the first ones are asked.
pub const MOST: usize = 20_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Keepalives {
    /// In the order of their times.
    rounds: VecDeque<Round>,
}

#[derive(Debug)]
struct Round {
    due: Instant,
    connections: Arc<[Ends]>,
    sent: usize,
}

impl Keepalives {
    /// These connections go another way from now on.
    pub fn begin(&mut self, connections: Vec<Ends>, now: Instant) {
        if connections.is_empty() {
            return;
        }
        let connections: Arc<[Ends]> = connections.into();
        let round = |after: Duration| Round { due: now + after, connections: connections.clone(), sent: 0 };
        self.rounds.extend(ROUNDS.map(round));
        self.rounds.make_contiguous().sort_by_key(|round| round.due);
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.rounds.front().map(|round| round.due)
    }

    /// The connections whose pods are to be asked now.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Ends> {
        let Some(mut round) = self.rounds.pop_front() else { return Vec::new() };
        if round.due > now {
            self.rounds.push_front(round);
            return Vec::new();
        }
        let some: Vec<Ends> = round.connections.iter().skip(round.sent).take(BURST).copied().collect();
        round.sent += some.len();
        if round.sent < round.connections.len() {
            round.due = now + PAUSE;
            self.rounds.push_front(round);
        }
        some
    }
}

/// The pods whose packets leave by another owner than before, or may: `is_sure` that they left as `before` says until now. One that was
/// not guarded before has no connections that go on.
pub fn moved(before: &Content, after: &Content, is_sure: bool) -> BTreeSet<IpAddr> {
    let goes_on = |(pod, mapping): &(&IpAddr, &Mapping)| {
        let same = before.pods.get(*pod) == Some(*mapping);
        match mapping {
            Mapping::Translated { .. } => !(is_sure && same),
            Mapping::Steered { slot } => !(is_sure && same && before.hops.get(slot) == after.hops.get(slot)),
            Mapping::Held | Mapping::Networked(_) => false,
        }
    };
    let is_known = |(pod, _): &(&IpAddr, &Mapping)| before.pods.contains_key(*pod);
    after.pods.iter().filter(goes_on).filter(is_known).map(|(pod, _)| *pod).collect()
}

/// The packet that asks the pod. Neither its number nor what it acknowledges is in any window but by chance, and then it says nothing
/// new. Nothing where the ends are of two families.
pub fn packet(Ends { pod, other }: Ends) -> Option<Vec<u8>> {
    let mut segment = Vec::with_capacity(SEGMENT);
    segment.extend_from_slice(&other.port().to_be_bytes());
    segment.extend_from_slice(&pod.port().to_be_bytes());
    // Its number and what it acknowledges.
    segment.extend_from_slice(&[0; 8]);
    // Its length in words, the flag, no window, no checksum yet, nothing urgent.
    segment.extend_from_slice(&[0x50, ACK, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(other.ip(), pod.ip(), TCP, &segment).to_be_bytes();
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum);
    let mut packet = match (other.ip(), pod.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            // The kernel fills in the length, the identification and the checksum.
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, HOPS, TCP, 0, 0];
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(SEGMENT).ok()?.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], TCP, HOPS];
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    packet.extend_from_slice(&segment);
    Some(packet)
}

/// Without options.
const SEGMENT: usize = 20;
const CHECKSUM: usize = 16;
const ACK: u8 = 16;
const TCP: u8 = 6;
const HOPS: u8 = 64;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::clock;
    use crate::plan::slice::Hop;

    fn ends(number: u16) -> Ends {
        let pod = SocketAddr::from(([10, 244, 1, 7], 1024 + number));
        Ends { pod, other: SocketAddr::from(([203, 0, 113, 9], 443)) }
    }

    #[test]
    fn every_connection_is_asked_four_times_and_many_by_and_by() {
        let (begin, mut keepalives) = (clock::now(), Keepalives::default());
        keepalives.begin(Vec::new(), begin);
        assert_eq!(keepalives.next_deadline(), None);
        keepalives.begin((0..600).map(ends).collect(), begin);
        assert!(keepalives.handle_timeout(begin).is_empty(), "routes come first");
        let (mut asked, mut bursts, mut last) = (0, Vec::new(), begin);
        while let Some(due) = keepalives.next_deadline() {
            assert!(due >= last);
            let some = keepalives.handle_timeout(due);
            asked += some.len();
            bursts.push(some.len());
            last = due;
        }
        assert_eq!((asked, last - begin), (2400, ROUNDS[3] + 2 * PAUSE));
        assert_eq!(bursts, [256, 256, 88].repeat(4));
    }

    #[test]
    fn pods_that_another_owner_has_now_are_asked_and_no_others() {
        let content = |pods: &[(u8, Mapping)]| Content {
            pods: pods.iter().map(|(last, mapping)| (IpAddr::from([10, 244, 1, *last]), *mapping)).collect(),
            ..Content::default()
        };
        let here = Mapping::Translated { address: [192, 0, 2, 1].into(), network: None };
        let (one, two) = (Mapping::Steered { slot: 1 }, Mapping::Steered { slot: 2 });
        let before = content(&[(1, one), (2, one), (3, Mapping::Held), (4, here), (5, one)]);
        let after = content(&[(1, one), (2, two), (3, here), (4, Mapping::Held), (5, here), (6, here)]);
        let expected: Vec<IpAddr> = [2, 3, 5].map(|last| IpAddr::from([10, 244, 1, last])).to_vec();
        assert_eq!(moved(&before, &after, true).into_iter().collect::<Vec<_>>(), expected);
    }

    /// Input: an owner is followed by another one in the same turn, which gets its number; and an agent that has
    /// just started. Output: the pods are asked.
    #[test]
    fn an_owner_that_has_the_number_of_the_former_one_is_another_owner() {
        let pods = [7_u8, 8].map(|last| IpAddr::from([10, 244, 1, last]));
        let content = |via: [u8; 4]| Content {
            pods: [(pods[0], Mapping::Steered { slot: 1 }), (pods[1], Mapping::Steered { slot: 2 })].into(),
            hops: Arc::new(
                [(1, via), (2, [10, 0, 0, 13])]
                    .map(|(slot, via)| (slot, [Some(Hop::Link { via: via.into(), link: 2 }), None]))
                    .into(),
            ),
            ..Content::default()
        };
        let (before, after) = (content([10, 0, 0, 11]), content([10, 0, 0, 12]));
        assert_eq!(moved(&before, &after, true), [pods[0]].into());
        assert_eq!(moved(&after, &after, true), BTreeSet::new());
        assert_eq!(moved(&after, &after, false), pods.into(), "the owner may have changed while no agent ran");
        assert_eq!(moved(&Content::default(), &after, false), BTreeSet::new(), "they are new");
    }

    #[test]
    fn the_packet_comes_from_the_other_end_and_has_a_right_checksum() {
        let v4 = packet(ends(0)).unwrap();
        assert_eq!((v4.len(), &v4[12..16], &v4[16..20]), (40, &[203, 0, 113, 9][..], &[10, 244, 1, 7][..]));
        assert_eq!(&v4[20..24], &[1, 187, 4, 0], "from port 443 to port 1024");
        assert_eq!(checksum([203, 0, 113, 9].into(), [10, 244, 1, 7].into(), TCP, &v4[20..]), 0);
        let (pod, other): (SocketAddr, SocketAddr) =
            ("[fd44::7]:1024".parse().unwrap(), "[2001:db8::9]:443".parse().unwrap());
        let v6 = packet(Ends { pod, other }).unwrap();
        assert_eq!((v6.len(), v6[6]), (60, TCP));
        assert_eq!(checksum(other.ip(), pod.ip(), TCP, &v6[40..]), 0);
        assert_eq!(packet(Ends { pod, other: ends(0).other }), None);
    }
}
