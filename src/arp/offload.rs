//! ARP answered inside the kernel by a small program: at the kernel's own speed, and without waking this process.
//! Floor 2. `task::worker` tells it which addresses are announced. The program sees a frame after packet sockets of all
//! protocols, so tcpdump shows what it answers, and before the socket of the agent, which does not see that.
//!
//! The offload is optional: with an old kernel, a missing capability, a locked down host or another program in front, the
//! socket answers. It must never be a second owner: it answers only for a [`life`] after the last sign of the agent, so that
//! the address of a frozen agent falls silent, and the kernel removes the program when the process ends. Only for an agent that
//! restarts it goes on, for as long as the other nodes wait.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use self::bpf::{Attachment, Cell, Program, Table};
use self::program::{Setting, Word};
use crate::address::MacAddress;

mod bpf;
pub mod program;

/// The program of one link and its tables. Dropping it removes the program from the link.
#[derive(Debug)]
pub struct Offload {
    attachment: Attachment,
    table: Table,
    cell: Cell,
    /// For how long the program answers after a sign.
    life: Duration,
    /// Answers that were counted already.
    told: u64,
    next_sign: Option<Instant>,
}

impl Offload {
    /// Attaches the program to the link. It answers only for addresses that were put in, and only while the last sign is not
    /// older than `life`.
    ///
    /// # Errors
    /// Whatever the kernel refuses. The link is unchanged then.
    pub fn start(index: u32, life: Duration) -> io::Result<Offload> {
        let (table, cell) = (Table::create(MOST_ADDRESSES)?, Cell::create()?);
        let setting = Setting { table: table.as_fd().as_raw_fd(), cell: cell.as_fd().as_raw_fd(), link: index };
        let attachment = Attachment::of(&Program::load(&program::answering(setting))?, index)?;
        Ok(Offload { attachment, table, cell, life, told: 0, next_sign: None })
    }

    /// Answers for the address from now on, with this MAC.
    ///
    /// # Errors
    /// E2BIG if the table is full; the socket then answers for the address.
    pub fn hold(&self, address: Ipv4Addr, mac: MacAddress) -> io::Result<()> {
        self.table.put(&program::key_of_address(address), &program::value_of(mac))
    }

    pub fn release(&self, address: Ipv4Addr) -> io::Result<()> {
        self.table.remove(&program::key_of_address(address))
    }

    /// Leaves requests from this MAC to the socket: it is another link of this node.
    pub fn leave_out(&self, mac: MacAddress) -> io::Result<()> {
        self.table.put(&program::key_of_own_mac(mac), &program::value_of(mac))
    }

    /// Ends [`Offload::leave_out`]: the MAC is no longer a link of this node.
    pub fn leave_in(&self, mac: MacAddress) -> io::Result<()> {
        self.table.remove(&program::key_of_own_mac(mac))
    }

    /// Gives a sign that the agent is alive. The next one is due at `next_sign`.
    pub fn give_sign(&mut self, now: Instant) {
        let life = u64::try_from(self.life.as_nanos()).unwrap_or(u64::MAX);
        self.cell.write(Word::AliveUntil, bpf::monotonic_nanos().saturating_add(life));
        self.next_sign = Some(now + self.life / SIGNS_IN_A_LIFE);
    }

    /// When to give the next sign; at once if there is none.
    pub fn next_sign(&self) -> Option<Instant> {
        self.next_sign
    }

    /// The program goes on for so long by itself, and no longer: it answers for the addresses that it has, while the descriptor is
    /// open anywhere.
    pub fn outlive(self, time: Duration) -> OwnedFd {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.cell.write(Word::AliveUntil, bpf::monotonic_nanos().saturating_add(time));
        self.attachment.into()
    }

    /// Answers since the last call.
    pub fn take_answers(&mut self) -> u64 {
        let answered = self.cell.read(Word::Answered);
        answered.saturating_sub(std::mem::replace(&mut self.told, answered))
    }
}

/// Addresses and MACs that there is room for; the table grows as they come.
const MOST_ADDRESSES: u32 = 65_536;

/// For how long the kernel may answer without a sign of its agent, if others take over from a silent agent after
/// `detection`: half of that, so that the address of a frozen agent falls silent before another node takes over.
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
