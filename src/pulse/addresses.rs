//! Holdings as octets, in as few as addresses that follow each other allow. Floor 1, a part of the packet.
//!
//! A list is a row of items, each a kind (1) and what belongs to it. Three kinds say what holds for all addresses that follow, up to
//! the next of them: asked for (0), held (1), granted (2; the ticket of the node, 8), each with the weight (4). Until the first of
//! them: held with the weight 0. Four kinds are addresses: one of IPv4 (4), a run of IPv4 (5; the first, and how many more (2)),
//! one of IPv6 (16), a run of IPv6 (17; as above).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::roster::{Holding, NodeTicket, Stage};

const ASKED: u8 = 0;
const HELD: u8 = 1;
const GRANTED: u8 = 2;
const IPV4: u8 = 4;
const IPV4_RUN: u8 = 5;
const IPV6: u8 = 16;
const IPV6_RUN: u8 = 17;

/// What holds for addresses before any item says so.
pub(super) const PLAIN: Holding = Holding { weight: 0, stage: Stage::Holds };

/// The most octets that one more address may add: a grant and a run of IPv6.
pub(super) const MOST_OCTETS: usize = 13 + 19;

/// How many addresses one list may name: more than fit as single addresses, few enough that a forged list costs nothing.
pub(super) const MOST_ADDRESSES: usize = 4096;

/// Writes a list. Addresses in ascending order take the fewest octets.
#[derive(Debug)]
pub(super) struct Writer {
    octets: Vec<u8>,
    said: Holding,
    /// The first address of the run that is being written, how many follow it, and where the run begins in `octets`.
    run: Option<(IpAddr, u16, usize)>,
    count: usize,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { octets: Vec::new(), said: PLAIN, run: None, count: 0 }
    }
}

impl Writer {
    /// Adds an address; false where it does not fit into `room` octets any more, and nothing was added.
    pub(super) fn add(&mut self, address: IpAddr, holding: Holding, room: usize) -> bool {
        if self.octets.len() + MOST_OCTETS > room || self.count == MOST_ADDRESSES {
            return false;
        }
        self.count += 1;
        if holding == self.said
            && let Some((first, more, start)) = self.run
            && more < u16::MAX
            && offset(first, u32::from(more) + 1) == Some(address)
        {
            self.octets.truncate(start);
            put_run(&mut self.octets, first, more + 1);
            self.run = Some((first, more + 1, start));
            return true;
        }
        if holding != self.said {
            let Holding { weight, stage } = holding;
            match stage {
                Stage::Asks => self.octets.push(ASKED),
                Stage::Holds => self.octets.push(HELD),
                Stage::Grants { to: NodeTicket(ticket) } => {
                    self.octets.push(GRANTED);
                    self.octets.extend(ticket.to_be_bytes());
                }
            }
            self.octets.extend(weight.to_be_bytes());
            self.said = holding;
        }
        self.run = Some((address, 0, self.octets.len()));
        put_run(&mut self.octets, address, 0);
        true
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.octets
    }
}

/// Reads a list to its end; `None` where it is malformed, or names more than [`MOST_ADDRESSES`].
pub(super) fn read(mut octets: &[u8]) -> Option<Vec<(IpAddr, Holding)>> {
    let mut addresses = Vec::new();
    let mut said = PLAIN;
    while let Some((kind, rest)) = octets.split_first() {
        octets = rest;
        let (first, more) = match *kind {
            kind @ (ASKED | HELD | GRANTED) => {
                let stage = match kind {
                    ASKED => Stage::Asks,
                    HELD => Stage::Holds,
                    _ => Stage::Grants { to: NodeTicket(u64::from_be_bytes(take(&mut octets)?)) },
                };
                said = Holding { weight: u32::from_be_bytes(take(&mut octets)?), stage };
                continue;
            }
            IPV4 => (IpAddr::from(Ipv4Addr::from(take::<4>(&mut octets)?)), 0),
            IPV4_RUN => (IpAddr::from(Ipv4Addr::from(take::<4>(&mut octets)?)), u16::from_be_bytes(take(&mut octets)?)),
            IPV6 => (IpAddr::from(Ipv6Addr::from(take::<16>(&mut octets)?)), 0),
            IPV6_RUN => {
                (IpAddr::from(Ipv6Addr::from(take::<16>(&mut octets)?)), u16::from_be_bytes(take(&mut octets)?))
            }
            _ => return None,
        };
        if addresses.len() + usize::from(more) >= MOST_ADDRESSES {
            return None;
        }
        for step in 0..=u32::from(more) {
            addresses.push((offset(first, step)?, said));
        }
    }
    Some(addresses)
}

fn put_run(octets: &mut Vec<u8>, first: IpAddr, more: u16) {
    let (one, run) = if first.is_ipv4() { (IPV4, IPV4_RUN) } else { (IPV6, IPV6_RUN) };
    octets.push(if more == 0 { one } else { run });
    match first {
        IpAddr::V4(first) => octets.extend(first.octets()),
        IpAddr::V6(first) => octets.extend(first.octets()),
    }
    if more > 0 {
        octets.extend(more.to_be_bytes());
    }
}

/// The address so many steps behind; `None` past the end of the family.
fn offset(first: IpAddr, steps: u32) -> Option<IpAddr> {
    match first {
        IpAddr::V4(first) => first.to_bits().checked_add(steps).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(first) => {
            first.to_bits().checked_add(u128::from(steps)).map(|bits| Ipv6Addr::from_bits(bits).into())
        }
    }
}

fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = octets.split_first_chunk::<N>()?;
    *octets = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(addresses: &[(IpAddr, Holding)]) -> Vec<u8> {
        let mut writer = Writer::default();
        assert!(addresses.iter().all(|(address, holding)| writer.add(*address, *holding, usize::MAX)));
        writer.finish()
    }

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let mut addresses: Vec<(IpAddr, Holding)> = (0..random.usize(0..60))
                .map(|_| {
                    let low = random.u8(..);
                    let address: IpAddr = if random.bool() {
                        Ipv4Addr::new(192, 0, 2, low).into()
                    } else {
                        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)).into()
                    };
                    let stage = match random.u8(0..3) {
                        0 => Stage::Asks,
                        1 => Stage::Holds,
                        _ => Stage::Grants { to: NodeTicket(random.u64(0..2)) },
                    };
                    (address, Holding { weight: random.u32(0..2) * 100, stage })
                })
                .collect();
            if random.bool() {
                addresses.sort_by_key(|(address, _)| *address);
            }
            assert_eq!(read(&written(&addresses)), Some(addresses));
        }
    }

    #[test]
    fn neighbours_of_one_weight_take_seven_octets_together() {
        let addresses: Vec<_> = (0..250u8).map(|last| (IpAddr::from([192, 0, 2, last]), PLAIN)).collect();
        assert_eq!(written(&addresses).len(), 7);
    }

    #[test]
    fn what_is_malformed_or_too_long_is_no_list() {
        let last = Ipv4Addr::BROADCAST.octets();
        let cases: [&[u8]; 7] = [
            &[9],
            &[4, 1, 2, 3],
            &[0, 1],
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[5, 192, 0, 2, 1, 0],
            &[5, last[0], last[1], last[2], last[3], 0, 1],
            &[5, 10, 0, 0, 0, 0xff, 0xff],
        ];
        for case in cases {
            assert_eq!(read(case), None, "{case:?}");
        }
    }
}
