//! Which address of this host a session is with: a router may run BFD with several of them, and each is a session of its own (RFC 5881 §4).
//! Floor 1.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::bfd::packet::Packet;
use crate::bfd_state::BfdState;

/// The end of one session that is ours.
#[derive(Debug)]
pub(super) struct OwnEnd {
    /// The address that the packets of the session come to, and when the last one came.
    heard: Option<(IpAddr, Instant)>,
    /// A further one that the peer sends to, and when it last did.
    other: Option<(IpAddr, Instant)>,
    begun: Instant,
}

/// What is known of our end beside what is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The configuration names it.
    Set(IpAddr),
    /// It is that of the BGP session, which stands.
    OfSession(IpAddr),
    /// It is that of the last BGP session, or of the next one.
    OfBgp(IpAddr),
    /// The kernel would choose it.
    OfKernel(IpAddr),
    Nothing,
}

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Its,
    /// Of a session with the address that this one is to be with from now on: what was said with the one before means nothing in it.
    Anew,
    /// Of another session, which is not answered.
    Others,
}

/// So long the peer is waited for where our end is expected to be: three packets of a session that is down.
const PATIENCE: Duration = Duration::from_secs(3);

/// So long after its last packet another session is told of.
const MEMORY: Duration = Duration::from_secs(10);

impl OwnEnd {
    pub(super) fn new(now: Instant) -> OwnEnd {
        OwnEnd { heard: None, other: None, begun: now }
    }

    /// Of a session that another process left.
    pub(super) fn resumed(address: Option<IpAddr>, now: Instant) -> OwnEnd {
        OwnEnd { heard: address.map(|address| (address, now)), ..OwnEnd::new(now) }
    }

    /// Whose packet it is that came to the address, with the session in this state.
    pub(super) fn judge(&self, to: IpAddr, packet: &Packet, known: Known, state: BfdState, now: Instant) -> Verdict {
        let heard = self.heard.map(|(address, _)| address);
        let stands = matches!(state, BfdState::Init | BfdState::Up);
        match known {
            Known::Set(address) if address == to => return Verdict::Its,
            Known::Set(_) => return Verdict::Others,
            // The discriminator tells that it is the same session.
            Known::OfSession(address) | Known::OfBgp(address)
                if address == to && stands && heard.is_some_and(|heard| heard != to) =>
            {
                let goes_on = packet.your_discriminator.is_some() && packet.state == BfdState::Up;
                return if goes_on { Verdict::Its } else { Verdict::Anew };
            }
            Known::OfBgp(address) | Known::OfKernel(address) if address == to && !stands => return Verdict::Its,
            Known::OfSession(address) if address == to => return Verdict::Its,
            // What stands with another address goes on, and a further one does not begin.
            Known::OfSession(_) if !stands || heard != Some(to) => return Verdict::Others,
            Known::OfSession(_) | Known::OfBgp(_) | Known::OfKernel(_) | Known::Nothing => {}
        }
        let expects = match known {
            Known::Set(_) | Known::OfSession(_) | Known::OfBgp(_) | Known::OfKernel(_) => true,
            Known::Nothing => false,
        };
        match self.heard {
            Some((address, _)) if address == to => Verdict::Its,
            Some(_) if stands => Verdict::Others,
            Some((_, at)) if now < at + PATIENCE => Verdict::Others,
            None if expects && !stands && now < self.begun + PATIENCE => Verdict::Others,
            Some(_) | None => Verdict::Its,
        }
    }

    /// A packet of the session came to the address.
    pub(super) fn note(&mut self, to: IpAddr, now: Instant) {
        self.heard = Some((to, now));
        self.other.take_if(|(other, _)| *other == to);
    }

    /// A packet of another session came to the address.
    pub(super) fn note_other(&mut self, to: IpAddr, now: Instant) {
        self.other = Some((to, now));
    }

    /// Forgets what was last heard long ago. `stands`: the session is up, or about to be.
    pub(super) fn settle(&mut self, stands: bool, now: Instant) {
        self.heard.take_if(|(_, at)| !stands && now >= *at + PATIENCE);
        self.other.take_if(|(_, at)| now >= *at + MEMORY);
    }

    /// The address that the packets of the session come to.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.heard.map(|(address, _)| address)
    }

    /// A further address that the peer has sent to of late.
    pub(super) fn other(&self) -> Option<IpAddr> {
        self.other.map(|(address, _)| address)
    }
}
