//! ARP answered inside the kernel by a small program: at the kernel's own speed, and without waking this process.
//! Floor 2. `task::worker` tells it which addresses are held. The program stands before the sockets of one protocol, as
//! `socket` opens them, and after those that hear everything: what it answers the agent is not shown, and tcpdump is.
//!
//! It is a convenience that may be missing: an old kernel, a missing capability, a locked down host or another program in
//! front leave the answers to the socket. And it must never be a second owner: it answers only for a [`life`] after the agent
//! has last said that it lives, so that one that froze falls silent; when its process ends, the kernel takes it away.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use self::bpf::{Attachment, Cell, Program, Table};
use self::program::{Setting, Word};
use crate::address::MacAddress;

mod bpf;
pub mod program;

/// The program of one link and its tables. Dropped, it is gone, and the link is as it was before.
#[derive(Debug)]
pub struct Offload {
    _attachment: Attachment,
    table: Table,
    cell: Cell,
    /// How long a sign lasts.
    life: Duration,
    /// Answers that were taken over into the counters.
    told: u64,
    next_sign: Option<Instant>,
}

impl Offload {
    /// Puts the program in its place on the link. Nothing is answered before an address is put in and a sign is given, nor
    /// when the last sign is older than `life`.
    ///
    /// # Errors
    /// Whatever the kernel has against it. Everything is as it was before then.
    pub fn start(index: u32, life: Duration) -> io::Result<Offload> {
        let (table, cell) = (Table::create(MOST_ADDRESSES)?, Cell::create()?);
        let setting = Setting { table: table.as_fd().as_raw_fd(), cell: cell.as_fd().as_raw_fd(), link: index };
        let attachment = Attachment::of(&Program::load(&program::answering(setting))?, index)?;
        Ok(Offload { _attachment: attachment, table, cell, life, told: 0, next_sign: None })
    }

    /// Answers for the address from now on, with this MAC.
    ///
    /// # Errors
    /// E2BIG where there are too many: then the socket answers for it.
    pub fn hold(&self, address: Ipv4Addr, mac: MacAddress) -> io::Result<()> {
        self.table.put(&program::key_of_address(address), &program::value_of(mac))
    }

    pub fn release(&self, address: Ipv4Addr) -> io::Result<()> {
        self.table.remove(&program::key_of_address(address))
    }

    /// What this MAC sends is left to the socket: it is a link of this node.
    pub fn leave_out(&self, mac: MacAddress) -> io::Result<()> {
        self.table.put(&program::key_of_own_mac(mac), &program::value_of(mac))
    }

    /// It is no link of this node any more.
    pub fn leave_in(&self, mac: MacAddress) -> io::Result<()> {
        self.table.remove(&program::key_of_own_mac(mac))
    }

    /// Says that the agent lives. The next time should be at `next_sign`.
    pub fn give_sign(&mut self, now: Instant) {
        let life = u64::try_from(self.life.as_nanos()).unwrap_or(u64::MAX);
        self.cell.write(Word::AliveUntil, bpf::monotonic_nanos().saturating_add(life));
        self.next_sign = Some(now + self.life / SIGNS_IN_A_LIFE);
    }

    /// When to give the next sign; at once, if there is none.
    pub fn next_sign(&self) -> Option<Instant> {
        self.next_sign
    }

    /// Answers since last asked.
    pub fn take_answers(&mut self) -> u64 {
        let answered = self.cell.read(Word::Answered);
        answered.saturating_sub(std::mem::replace(&mut self.told, answered))
    }
}

/// Addresses and MACs that there is room for; the table grows as they come.
const MOST_ADDRESSES: u32 = 65_536;

/// How long the kernel may answer without a sign of its agent, where others take over from a silent one after `detection`:
/// half of that, so that a frozen agent has fallen silent before anybody takes over, however late its last sign came.
pub fn life(detection: Option<Duration>) -> Duration {
    detection.map_or(LONGEST_LIFE, |detection| LONGEST_LIFE.min(detection / 2))
}

const LONGEST_LIFE: Duration = Duration::from_millis(150);

/// One sign may be late.
const SIGNS_IN_A_LIFE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_agent_is_silent_before_others_take_over() {
        for (detection, expected) in [(None, 150), (Some(300), 150), (Some(15_000), 150), (Some(60), 30)] {
            assert_eq!(life(detection.map(Duration::from_millis)), Duration::from_millis(expected));
        }
    }
}
