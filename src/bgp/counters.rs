//! What is counted and remembered of one peer, for reports: messages, NOTIFICATIONs, the capabilities of the OPENs.
//! Floor 1. Nothing here affects what a session does.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::bgp::machine::ConnectionId;
use crate::bgp::machine::session::End;
use crate::bgp::wire::{
    Capability, Cease, Dialect, Frame, Message, MessageKind, Notification, NotificationReason, Open, Parsed,
};
use crate::world::{Capabilities, Direction, LastNotification, MessageCounts, NotificationCount};

/// Tell it of every message. It lasts as long as the peer's task does.
#[derive(Debug, Default)]
pub struct Counters {
    pub sent: MessageCounts,
    pub received: MessageCounts,
    pub times_established: u64,
    pub last_error_at: Option<Timestamp>,
    pub last_sent: Option<LastNotification>,
    pub last_received: Option<LastNotification>,
    notifications: BTreeMap<(Direction, u8, u8), u64>,
    /// What we offer: the same on every connection.
    offered: Vec<Capability>,
    /// The peer's OPEN on each connection that has not ended.
    opens: Vec<(ConnectionId, Open)>,
}

impl Counters {
    /// A message was queued.
    pub fn note_sent(&mut self, message: &Message) {
        let kind = match message {
            Message::Open(open) => {
                self.offered.clone_from(&open.capabilities);
                MessageKind::Open
            }
            Message::Update(_) => MessageKind::Update,
            Message::Notification(_) => MessageKind::Notification,
            Message::Keepalive => MessageKind::Keepalive,
            Message::RouteRefresh(_) => MessageKind::RouteRefresh,
        };
        *count_of(&mut self.sent, kind) += 1;
    }

    /// A NOTIFICATION was sent as the last message of a connection.
    pub fn note_last_word(&mut self, word: &Notification, at: Timestamp) {
        self.sent.notification += 1;
        self.count_notification(Direction::Sent, word.reason);
        if !is_collision(word) {
            self.last_sent = Some(described(word, at));
        }
    }

    /// A whole message came. It is not known yet whether the message is valid.
    pub fn note_frame(&mut self, connection: ConnectionId, frame: &Frame) {
        *count_of(&mut self.received, frame.kind()) += 1;
        if frame.kind() == MessageKind::Open
            && let Ok(Parsed::Open(open)) = Message::parse(frame.octets(), &Dialect::BEFORE_OPEN)
            && self.opens.iter().all(|(known, _)| *known != connection)
        {
            self.opens.push((connection, open));
        }
    }

    /// A connection, or the attempt to make one, is over.
    pub fn note_end(&mut self, end: &End, at: Timestamp) {
        if !end.is_collision() {
            self.last_error_at = Some(at);
        }
        if let End::Received(notification) = end {
            self.count_notification(Direction::Received, notification.reason);
            if !is_collision(notification) {
                self.last_received = Some(described(notification, at));
            }
        }
    }

    /// The OPENs of a connection that another process has made.
    pub fn recall(&mut self, connection: ConnectionId, sent: Option<Open>, received: Option<Open>) {
        self.offered = sent.map(|open| open.capabilities).unwrap_or_default();
        self.opens.extend(received.map(|open| (connection, open)));
        self.times_established += 1;
    }

    /// The capabilities of our OPEN.
    pub fn offered(&self) -> &[Capability] {
        &self.offered
    }

    /// The peer's OPEN on a connection that has not ended.
    pub fn open_of(&self, connection: ConnectionId) -> Option<&Open> {
        self.opens.iter().find(|(known, _)| *known == connection).map(|(_, open)| open)
    }

    /// A connection is closed: its OPEN is forgotten.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.opens.retain(|(known, _)| *known != connection);
    }

    /// What both OPENs of a connection offered.
    pub fn capabilities(&self, connection: ConnectionId) -> Capabilities {
        let theirs = self.opens.iter().find(|(known, _)| *known == connection);
        let theirs = theirs.map(|(_, open)| open.capabilities.as_slice()).unwrap_or_default();
        let in_words = |all: &[Capability]| all.iter().map(ToString::to_string).collect();
        Capabilities {
            sent: in_words(&self.offered),
            received: in_words(theirs),
            negotiated: self.offered.iter().filter_map(|ours| negotiated(ours, theirs)).collect(),
        }
    }

    pub fn notifications(&self) -> Vec<NotificationCount> {
        let counts = self.notifications.iter();
        counts
            .map(|((direction, code, subcode), count)| NotificationCount {
                direction: *direction,
                code: *code,
                subcode: *subcode,
                count: *count,
            })
            .collect()
    }

    /// A peer may invent codes. Codes without a name share one count, so the number of counts is bounded.
    fn count_notification(&mut self, direction: Direction, reason: NotificationReason) {
        let (code, subcode) = match reason {
            NotificationReason::Unknown { .. } => (0, 0),
            NotificationReason::Header(_)
            | NotificationReason::Open(_)
            | NotificationReason::Update(_)
            | NotificationReason::HoldTimerExpired
            | NotificationReason::Fsm(_)
            | NotificationReason::Cease(_)
            | NotificationReason::RouteRefresh(_)
            | NotificationReason::SendHoldTimerExpired => (reason.code(), reason.subcode()),
        };
        *self.notifications.entry((direction, code, subcode)).or_default() += 1;
    }
}

/// One of our capabilities, in words, if the peer has it too.
fn negotiated(ours: &Capability, theirs: &[Capability]) -> Option<String> {
    let same_code = || theirs.iter().find(|other| other.code() == ours.code());
    if let Capability::FourOctetAsn(_) = ours {
        // Each side gives its own AS number; what counts is that both have the capability.
        return same_code().map(|_| "4-octet AS".to_owned());
    }
    if let Capability::GracefulRestart(_) = ours {
        return same_code().map(|_| "graceful restart".to_owned());
    }
    if let (Capability::ExtendedNextHop(ours), Some(Capability::ExtendedNextHop(theirs))) = (ours, same_code()) {
        let both: Vec<_> = ours.iter().filter(|it| theirs.contains(it)).cloned().collect();
        return (!both.is_empty()).then(|| Capability::ExtendedNextHop(both).to_string());
    }
    theirs.contains(ours).then(|| ours.to_string())
}

fn is_collision(notification: &Notification) -> bool {
    notification.reason == NotificationReason::Cease(Cease::ConnectionCollision)
}

fn described(notification: &Notification, at: Timestamp) -> LastNotification {
    let reason = notification.reason;
    LastNotification {
        at,
        code: reason.code(),
        subcode: reason.subcode(),
        name: reason.to_string(),
        text: notification.text(),
    }
}

fn count_of(counts: &mut MessageCounts, kind: MessageKind) -> &mut u64 {
    match kind {
        MessageKind::Open => &mut counts.open,
        MessageKind::Update => &mut counts.update,
        MessageKind::Notification => &mut counts.notification,
        MessageKind::Keepalive => &mut counts.keepalive,
        MessageKind::RouteRefresh => &mut counts.route_refresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::wire::AfiSafi;

    fn at() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    #[test]
    fn a_peer_that_invents_codes_costs_one_count() {
        let mut counters = Counters::default();
        for code in 100..=200 {
            for subcode in 0..=255 {
                let reason = NotificationReason::from_codes(code, subcode);
                counters.note_end(&End::Received(Notification { reason, data: Vec::new() }), at());
            }
        }
        let counts = counters.notifications();
        assert_eq!(counts.len(), 1, "{counts:?}");
        assert_eq!((counts[0].code, counts[0].subcode, counts[0].count), (0, 0, 101 * 256));
        let last = counters.last_received.expect("the last one is remembered as it came");
        assert_eq!((last.code, last.subcode), (200, 255));
    }

    #[test]
    fn two_connections_at_once_are_counted_and_no_error() {
        let mut counters = Counters::default();
        let collision = Notification::from(NotificationReason::Cease(Cease::ConnectionCollision));
        counters.note_last_word(&collision, at());
        counters.note_end(&End::Received(collision), at());
        assert_eq!(counters.notifications().len(), 2, "one of each direction");
        assert!(counters.last_sent.is_none() && counters.last_received.is_none() && counters.last_error_at.is_none());
    }

    #[test]
    fn a_text_that_a_terminal_would_obey_is_escaped() {
        let mut counters = Counters::default();
        counters.note_end(&End::Received(Notification::administrative_shutdown("\u{1b}[2Jbye\nall")), at());
        let text = counters.last_received.and_then(|last| last.text).expect("there is a text");
        assert_eq!(text, "\\u{1b}[2Jbye\\nall");
    }

    #[test]
    fn a_capability_counts_only_where_both_have_it() {
        let v4 = Capability::Multiprotocol(AfiSafi::IPV4_UNICAST);
        let v6 = Capability::Multiprotocol(AfiSafi::IPV6_UNICAST);
        let theirs = [v4.clone(), Capability::FourOctetAsn(2), Capability::ExtendedMessage];
        assert_eq!(negotiated(&v4, &theirs), Some(v4.to_string()));
        assert_eq!(negotiated(&v6, &theirs), None, "the same code for another family");
        assert_eq!(negotiated(&Capability::FourOctetAsn(1), &theirs).as_deref(), Some("4-octet AS"));
        assert_eq!(negotiated(&Capability::RouteRefresh, &theirs), None);
    }
}
