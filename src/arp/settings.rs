//! How addresses are probed, announced and defended on a link: every interval and count, with its reason. Floor 1.
//!
//! Gap (RFC 5227 §1.1): probes follow each other after 35 ms instead of 1 to 2 s, without a random wait before the first,
//! and the verdict comes after 105 ms instead of 5 to 9 s, later only where many addresses are asked for at once. A station
//! that needs longer to answer is found while the address is in use, and within `PROBATION` this node then gives way.
//!
//! Gap (RFC 4862 §5.4.2): neither is the first solicitation for a new address delayed by a random time, nor the joining of
//! its group; many addresses are spread by the pace of frames instead.

use std::time::Duration;

use crate::claim::Acquisition;

/// How the link is probed before an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    pub probes: u8,
    /// After each probe; the last wait ends with the verdict.
    pub interval: Duration,
    /// After a deferral, until the link is probed again; doubled with each deferral in a row up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

/// How the link is asked for an address that comes by this acquisition. A hand-over is asked for only after another station
/// claimed the address while this node was on probation.
pub fn probing(acquisition: &Acquisition) -> Probing {
    match acquisition {
        // A user waits for this, so it takes a tenth of a second. Three probes: where one frame in ten is lost each way, an
        // address in use would go undetected once in five with one probe, and once in 150 with three. The first pause
        // is short, because the station that answers may be the previous owner that has not heard yet of the change.
        Acquisition::FirstUse | Acquisition::HandOver => Probing {
            probes: 3,
            interval: Duration::from_millis(35),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
        },
        // Traffic is being lost, and the previous owner was silent already. If it is alive, it answers a probe within a
        // millisecond; the second probe is for a lossy link. The first pause ends well before the next candidate tries too.
        Acquisition::TakeOver { from: _, suspect: false } => Probing {
            probes: 2,
            interval: Duration::from_micros(7500),
            first_pause: Duration::from_millis(400),
            longest_pause: Duration::from_secs(5),
        },
        // All nodes fell silent at once. That they died is less likely than that this node does not hear them, or that the
        // link is overloaded: others then probe as well, and answers take long.
        Acquisition::TakeOver { from: _, suspect: true } => Probing {
            probes: 4,
            interval: Duration::from_millis(150),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(5),
        },
        // Nobody said that the holder is gone. An agent that restarts is back before the verdict, and nothing moves.
        Acquisition::Standby { place } => {
            let pause = STANDBY_PAUSE.saturating_mul((*place).clamp(1, MOST_IN_LINE));
            Probing { probes: 3, interval: Duration::from_millis(400), first_pause: pause, longest_pause: pause }
        }
    }
}

/// How long the first node in line waits before it asks whether the holder still answers, where there are no pulses; the second waits
/// twice as long, and so on. Who hears another one ask begins to wait again.
const STANDBY_PAUSE: Duration = Duration::from_secs(2);

/// A node further back in line waits no longer than this one.
const MOST_IN_LINE: u32 = 10;

/// The time between two such questions for different addresses: 20 a second.
pub const STANDBY_SPACING: Duration = Duration::from_millis(50);

/// Whoever heard others ask for so many of its pauses asks itself all the same: they may hear a holder that this node does not.
pub const STANDBY_PATIENCE: u32 = 10;

/// How often a station from which addresses were taken, because it did not answer any more, is asked for one of them: it may have been cut
/// off, and go on. Two that hear each other again are one within a second.
pub const FORMER_INTERVAL: Duration = Duration::from_millis(500);

/// A station whose pulses were heard until it fell silent is asked less often the longer that is ago: after this part of the time, and at least
/// every `FORMER_LONGEST`.
pub const FORMER_PART: u32 = 16;
pub const FORMER_LONGEST: Duration = Duration::from_secs(10);

/// The time between two such questions to different stations: 40 a second.
pub const FORMER_SPACING: Duration = Duration::from_millis(25);

/// How often such a station is asked for its Node's address, each `DISPUTE_INTERVAL` after the last, once it claims some address. If it
/// answers nothing meanwhile, it does not hear this node, and all that was taken from it is its.
pub const FORMER_QUESTIONS: u32 = 6;

/// How long it may take a slow station to answer one probe when many come at once. A verdict waits that much longer for each
/// probe that is still to be answered: the probes of a thousand addresses make a load themselves.
pub const ANSWER_TIME: Duration = Duration::from_micros(250);

/// A verdict waits no longer than this for the load that probes make.
pub const LONGEST_LOAD: Duration = Duration::from_millis(750);

/// The factor by which a verdict waits longer for that load where all nodes fell silent at once: then they all probe, and may
/// be as overloaded as that makes them seem dead.
pub const SUSPECT_LOAD: u32 = 4;

/// How long after it got an address, in whatever way, this node gives way to a station that turns out to have it: that one
/// was there before and was only slow to answer, or not heard. The same after a link came up: the others went on meanwhile.
pub const PROBATION: Duration = Duration::from_secs(10);

/// How often an address is announced for as long as this node owns it. Switches forget a station after 300 s by default
/// (IEEE 802.1Q §8.8.3), and caches of neighbours age within minutes to hours: with 130 s, two of these fall into every
/// 300 s even if each comes late by `REFRESH_SPREAD`.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(130);

/// Refreshes are moved by up to this much against each other, so that addresses that came together do not speak together.
pub const REFRESH_SPREAD: Duration = Duration::from_secs(20);

/// After the repetitions of its [`Manner`](crate::claim::Manner), an address that was not handed over is announced again after twice the time since
/// its first announcement, and so on until `REFRESH_INTERVAL`; the first of these comes after this time at least. So two nodes that hear no pulse of each
/// other, and of which one took the address while the link was cut, learn of each other within twice the time of the cut.
pub const LEAST_DOUBLED: Duration = Duration::from_secs(5);

/// The least time between two announcements that defend an address (DEFEND_INTERVAL of RFC 5227 §1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How long after its first announcement an address that was handed over is announced once more. Frames of two stations may
/// arrive in another order than they were sent, and a holder that says goodbye answers on for a moment (`agent::farewell`): by
/// now neither it nor a candidate that took the address at the same time says anything of the address any more.
pub const ONCE_MORE_AFTER: Duration = Duration::from_millis(50);

/// Another agent claims an address that this node announces: one of the two is about to hear that it is not the owner. The
/// one that still is after this time announces again, for the neighbours that believed the other.
pub const MEMBER_PATIENCE: Duration = Duration::from_secs(1);

/// A conflict is over when the other station was not heard for this long.
pub const CONFLICT_OVER: Duration = Duration::from_secs(300);

/// The same where the other station is a node's: two nodes settle who has the address by themselves, and neither comes back to it later.
pub const CONFLICT_OF_NODES_OVER: Duration = Duration::from_secs(20);

/// How often one conflict may be logged. `status` shows a conflict that lasts.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The time between two announcements by which this node defends an address against another node whose pulses it does not
/// hear. Three of them and the wait after them are over within a second.
pub const DISPUTE_INTERVAL: Duration = Duration::from_millis(140);

/// How long after its last defence this node waits for the other node to go on, or to show that it hears this one.
pub const DISPUTE_CALM: Duration = Duration::from_millis(280);

/// Defences until the higher MAC gives way to a node that goes on.
pub const DEFENCES: u8 = 3;

/// Defences until the lower MAC gives way too: the other node would have given way by now if it heard this one.
pub const MOST_DEFENCES: u8 = 6;

/// How long after a dispute it still counts which of the two nodes gave way, and that the other one hears this one: further
/// addresses between the two are settled without defences.
pub const SETTLED_FOR: Duration = Duration::from_secs(10);

/// How long this node leaves an address to another node that does not hear it, after that last claimed the address: such a
/// node answers no probe, so only its refreshes show that it goes on.
pub const DEAF_PAUSE: Duration = Duration::from_secs(150);

/// How often such a node is asked whether it hears this one by now: once it answers, it is asked for the address like any other.
pub const DEAF_QUESTION: Duration = Duration::from_secs(2);

/// A Node's station that was not heard for so long, while others were, is away.
pub const PRESENT_FOR: Duration = Duration::from_secs(60);

/// The pause after this node gave way in a dispute. The probe after it tells the other node that it was heard.
pub const YIELD_PAUSE: Duration = Duration::from_millis(100);

/// How long an address that this node announced and then gave up counts as unsettled: see [`RECURRING_SPACING`].
pub const UNSETTLED_FOR: Duration = Duration::from_secs(600);

/// How often addresses that were left to one station are asked for all at once, because it ceased to answer for one.
pub const HASTEN_INTERVAL: Duration = Duration::from_secs(10);

/// How often the link is asked for the addresses of all Nodes because a station that nobody knows claims an address.
pub const CENSUS_INTERVAL: Duration = Duration::from_secs(60);

/// The time between two questions for addresses of Nodes: 100 a second.
pub const CENSUS_SPACING: Duration = Duration::from_millis(10);

/// How long after the last question a Node may take to answer. Until then a station that claims an address and may be a
/// Node's is not reported as a foreign host.
pub const CENSUS_PATIENCE: Duration = Duration::from_millis(300);

/// A port of a switch that speaks the old spanning tree protocol carries no frame for 30 s after its link came up (IEEE
/// 802.1D: listening and learning, 15 s each), so announcements are lost until then. Everything is announced once more after
/// this time.
pub const SPANNING_TREE: Duration = Duration::from_secs(32);

/// The least time between two unsolicited frames (probes, announcements and questions) on one link on average: 8,000 a
/// second, which is half a per cent of a gigabit and well below what switches take for a storm. A thousand addresses are
/// announced within a quarter of a second.
pub const FRAME_SPACING: Duration = Duration::from_micros(125);

/// Frames that may follow each other at once after a silence. Timers are no finer than a millisecond, so a smaller burst
/// could not keep up with `FRAME_SPACING`. An answer waits for no more frames than these.
pub const FRAME_BURST: u32 = 32;

/// All unsolicited frames on one link in the long run: 166 a second, whatever happens. With the pulses that is less than 200.
pub const CREDIT_SPACING: Duration = Duration::from_millis(6);

/// Frames that a link saves up when it is quiet, for the moment when many addresses move at once: 10,000 addresses can be
/// probed and announced.
pub const CREDIT: u32 = 60_000;

/// Of these, repetitions leave so many to frames that traffic waits for.
pub const RESERVE: u32 = 30_000;

/// What comes again and again for as long as a state lasts (probes of addresses that others have, addresses that are gained
/// and lost in turns, repeated defences, refreshes, questions for Nodes): 100 frames a second, so that the credit grows
/// meanwhile. More than 6,500 IPv4 addresses on one link are therefore refreshed less often than `REFRESH_INTERVAL` says.
pub const RECURRING_SPACING: Duration = Duration::from_millis(10);

/// Frames of that kind that may follow each other at once.
pub const RECURRING_BURST: u32 = 24;
