//! What the agent was last told about the session, and when it is told again. Floor 2, a part of the peer's task.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::bgp::machine::session::End;
use crate::bgp::socket::{Endpoint, Protection};
use crate::bgp::wire::{Notification, NotificationReason, OpenError};
use crate::clock;
use crate::session_state::SessionState;

/// What the agent was last told of the session, and when it is to be told again.
pub(super) struct Report {
    pub(super) state: SessionState,
    pub(super) since: SystemTime,
    pub(super) last_error: Option<Arc<str>>,
    /// The last error since there was a session that explains why there is none.
    explanation: Option<Arc<str>>,
    /// How often since then the peer closed the only connection in favour of another one.
    lonely_collisions: u32,
    /// The attempts since then that have failed, and how many are borne: more after a session, for a router may take a while to start.
    failures: u32,
    borne: u32,
    pub(super) counts: Counts,
    pub(super) due: Option<Instant>,
    told_at: Instant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: usize,
    pub(super) received: u64,
    pub(super) pending: usize,
    /// The peer's host has not acknowledged all routes that were written.
    pub(super) untaken: bool,
    /// It has, and the peer has said nothing since.
    pub(super) unheard: bool,
    /// Since when it has acknowledged nothing of them, if that is long.
    pub(super) silent_since: Option<Instant>,
    /// In both directions.
    pub(super) messages: u64,
    /// Not reported: when it changes, so may the number of prefixes that cannot be sent.
    pub(super) wanted: usize,
    pub(super) next_attempt: Option<Instant>,
}

impl Report {
    pub(super) fn new(now: Instant) -> Report {
        Report {
            state: SessionState::Idle,
            since: clock::wall(),
            last_error: None,
            explanation: None,
            lonely_collisions: 0,
            failures: 0,
            borne: BORNE_BEFORE_A_SESSION,
            counts: Counts::default(),
            due: Some(now),
            told_at: now,
        }
    }

    /// Whether the state is another than before.
    pub(super) fn observe(&mut self, state: SessionState, counts: Counts, now: Instant) -> bool {
        let moved = state != self.state;
        if moved {
            self.state = state;
            self.since = clock::wall();
            self.due = Some(now);
        }
        if counts != self.counts {
            self.counts = counts;
            self.due = Some(self.due.unwrap_or(self.told_at + COUNTERS_PAUSE));
        }
        moved
    }

    /// The session was established then, in another process.
    pub(super) fn recall(&mut self, established_at: Timestamp) {
        (self.state, self.since) = (SessionState::Established, established_at.into());
    }

    /// When the state that was reported last began.
    pub(super) fn began_at(&self) -> Timestamp {
        // A clock that stands before the year -9999 or after 9999 is read as the beginning of 1970.
        Timestamp::try_from(self.since).unwrap_or_default()
    }

    /// `explains`: the error says why there is no session, so it stays visible beside later errors. A router that has refused
    /// an OPEN once may only close the connection from then on.
    pub(super) fn fail(&mut self, why: Arc<str>, explains: bool, now: Instant) {
        if explains {
            self.explanation = Some(Arc::clone(&why));
        }
        let text = match &self.explanation {
            Some(told) if !explains => format!("{why}; before that: {told}").into(),
            Some(_) | None => why,
        };
        if self.last_error.as_ref() != Some(&text) {
            self.last_error = Some(text);
            self.due = Some(now);
        }
    }

    /// Whether the end of a connection says why there is no session. A collision does where there is no other connection, from the second
    /// time on: another one may have been under way. `is_alone`: there was no other one.
    pub(super) fn explains(&mut self, end: &End, is_alone: bool) -> bool {
        if !(is_alone && end.is_collision() && matches!(end, End::Received(_))) {
            return end.is_telling();
        }
        self.lonely_collisions = self.lonely_collisions.saturating_add(1);
        self.lonely_collisions > 1
    }

    /// There is a session: earlier errors explain nothing any more.
    pub(super) fn forget_failures(&mut self) {
        (self.explanation, self.lonely_collisions) = (None, 0);
        (self.failures, self.borne) = (0, BORNE_AFTER_A_SESSION);
    }

    /// An attempt to have a session has failed.
    pub(super) fn note_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == self.borne {
            self.due = Some(now);
        }
    }

    /// Another peer that is the same router may have its turn.
    pub(super) fn fails(&self) -> bool {
        self.failures >= self.borne
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    pub(super) fn told(&mut self, now: Instant) {
        self.due = None;
        self.told_at = now;
    }
}

/// Why there is no session. What did not begin on the link, or is signed otherwise, is dropped with a word to nobody.
pub(super) fn reason(end: &End, endpoint: &Endpoint) -> String {
    let mut text = end.to_string();
    if let End::Received(Notification { reason: NotificationReason::Open(OpenError::RoleMismatch), .. }) = end {
        text += "; the peer demands a BGP role (RFC 9234), and crier tells none: switch that off for this neighbor (FRR: local-role \
                 without strict-mode; BIRD: no require roles)";
    }
    if matches!(end, End::Received(_)) && end.is_collision() {
        text += "; this agent has no other connection to the peer: it holds an old one of this node until its hold time is over, or another \
                 speaker has the address of this node";
    }
    if *end == End::DialTimedOut {
        text += match endpoint.protection {
            Protection::None => "",
            Protection::Md5(_) => {
                "; a peer with another TCP MD5 password, or none, never answers: is it the same on both sides?"
            }
            Protection::Ao(_) => {
                "; a peer with other TCP-AO keys, or none, never answers: are they the same on both sides?"
            }
        };
        if endpoint.link_only {
            text += "; with ttl-security, what comes with a TTL below 255 is dropped: does the peer have it too (GTSM, RFC 5082)?";
        }
    }
    text
}

/// See [`Report::fails`].
const BORNE_BEFORE_A_SESSION: u32 = 2;
const BORNE_AFTER_A_SESSION: u32 = 4;

/// Counts alone are reported this often at most; everything else is at once.
const COUNTERS_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ScopedAddress;
    use crate::bgp::wire::Cease;
    use crate::secret::Secret;

    #[test]
    fn gtsm_and_passwords_are_named_where_they_may_be_why_nobody_answers() {
        let plain = Endpoint {
            peer: ScopedAddress { ip: [10, 0, 0, 1].into(), interface: None },
            port: 179,
            source: None,
            ttl: 1,
            link_only: false,
            device: None,
            protection: Protection::None,
        };
        let link_only = Endpoint { link_only: true, ..plain.clone() };
        let signed = Endpoint { protection: Protection::Md5(Secret::from("x".as_bytes())), ..plain.clone() };
        assert!(reason(&End::DialTimedOut, &link_only).starts_with("cannot connect: no answer; with ttl-security, "));
        assert!(reason(&End::DialTimedOut, &signed).contains("TCP MD5 password"));
        assert_eq!(reason(&End::DialTimedOut, &plain), "cannot connect: no answer");
        let role = Notification::from(NotificationReason::Open(OpenError::RoleMismatch));
        let role = reason(&End::Received(role), &plain);
        assert!(role.starts_with("NOTIFICATION received: OPEN Message Error, Role Mismatch (2/11); "), "{role}");
        let collision = End::Received(NotificationReason::Cease(Cease::ConnectionCollision).into());
        let collision = reason(&collision, &plain);
        assert!(collision.contains("(6/7); this agent has no other connection to the peer"), "{collision}");
        let refused = End::DialFailed("Connection refused".into());
        for endpoint in [&link_only, &signed] {
            assert_eq!(reason(&refused, endpoint), "cannot connect: Connection refused", "the peer has answered");
        }
    }

    /// Input: the peer answers each OPEN with Connection Collision, while no other connection is there, or one is.
    #[test]
    fn a_collision_with_no_connection_that_is_known_says_why_there_is_no_session() {
        let mut report = Report::new(clock::now());
        let mut explains = |end: &End, is_alone: bool| report.explains(end, is_alone);
        let notification = || Notification::from(NotificationReason::Cease(Cease::ConnectionCollision));
        let received = End::Received(notification());
        assert!(!explains(&received, false) && !explains(&received, false), "the other one is kept");
        assert!(!explains(&received, true), "another one may be under way");
        assert!(explains(&received, true));
        let ours = End::Sent { notification: notification(), why: String::new() };
        assert!(!explains(&ours, true), "this end chose");
        report.forget_failures();
        assert!(!report.explains(&received, true));
    }

    /// D14 of the field cases.
    #[test]
    fn the_error_that_tells_stays_visible_beside_the_last_until_there_is_a_session() {
        let now = clock::now();
        let mut report = Report::new(now);
        let fail = |report: &mut Report, why: &str, explains| {
            report.fail(why.into(), explains, now);
            report.last_error.as_deref().map(str::to_owned).expect("it has failed")
        };
        assert_eq!(fail(&mut report, "refused", false), "refused");
        assert_eq!(fail(&mut report, "Bad Peer AS", true), "Bad Peer AS");
        assert_eq!(fail(&mut report, "closed by the peer", false), "closed by the peer; before that: Bad Peer AS");
        assert_eq!(fail(&mut report, "no answer", false), "no answer; before that: Bad Peer AS");
        report.forget_failures();
        assert_eq!(fail(&mut report, "closed by the peer", false), "closed by the peer");
    }
}
