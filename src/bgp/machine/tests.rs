//! Every state against every event, and the timer cases X1 to X26 of the reference that concern one machine.

use std::net::Ipv4Addr;

use super::*;
use crate::bgp::machine::negotiation::Restart;
use crate::bgp::machine::session::{LEAST_SEND_HOLD_TIME, OPEN_SENT_HOLD_TIME};
use crate::bgp::wire::{ExpectedAsn, HeaderFault, OpenError, ParsedUpdate, RefreshKind, RouteRefresh, Update};

pub(super) const RETRY: Duration = Duration::from_secs(5);

/// AS 65001, 10.0.0.1: ours. The peer of most tests is AS 65002, 10.0.0.2.
pub(super) fn offer() -> LocalOffer {
    LocalOffer {
        local_asn: 65001,
        expected_asn: ExpectedAsn::Is(65002),
        identifier: Ipv4Addr::new(10, 0, 0, 1),
        hold_time: Some(secs(90)),
        keepalive_time: None,
        connect_retry_time: RETRY,
        passive: false,
        link_scoped: false,
        graceful_restart: None,
        withheld: Vec::new(),
    }
}

fn peers_open() -> Parsed {
    open_from(65002, Ipv4Addr::new(10, 0, 0, 2), 90)
}

fn open_from(local_asn: u32, identifier: Ipv4Addr, hold_secs: u64) -> Parsed {
    let hold_time = Some(secs(hold_secs)).filter(|time| !time.is_zero());
    Parsed::Open(LocalOffer { local_asn, identifier, hold_time, ..offer() }.open())
}

fn update() -> Parsed {
    let update = Update { announced: vec!["192.0.2.0/24".parse().unwrap()], ..Update::default() };
    Parsed::Update(ParsedUpdate { update, withdraw_all: false, complaints: Vec::new(), end_of_rib: None })
}

fn cease(cease: Cease) -> Notification {
    Notification { reason: NotificationReason::Cease(cease), data: Vec::new() }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn start() -> Instant {
    crate::clock::now()
}

/// What the actions say, in short.
fn summary(actions: &[Action]) -> String {
    let word = |action: &Action| match action {
        Action::Dial(_) => "dial".to_owned(),
        Action::Send(_, Message::Open(_)) => "OPEN".to_owned(),
        Action::Send(_, Message::Keepalive) => "KEEPALIVE".to_owned(),
        Action::Send(_, other) => format!("{other:?}"),
        Action::Close { last_word: None, .. } => "close".to_owned(),
        Action::Close { last_word: Some(notification), .. } => format!("close with {:?}", notification.reason),
        Action::Up { .. } => "up".to_owned(),
        Action::Down { .. } => "down".to_owned(),
        Action::Failed { .. } => "failed".to_owned(),
        Action::Refresh { .. } => "refresh".to_owned(),
        Action::Ignored { .. } => "ignored".to_owned(),
        Action::Withheld { .. } => "withheld".to_owned(),
        Action::Prove { .. } => "prove".to_owned(),
    };
    actions.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// One machine, its clock, and the connection or dial that it is about.
struct Bench {
    peering: Peering,
    now: Instant,
    id: ConnectionId,
}

impl Bench {
    /// Started, and its first dial is under way.
    fn new(offer: LocalOffer) -> Bench {
        let now = start();
        let mut peering = Peering::new(offer, 1, now);
        let id = match peering.handle_timeout(now).as_slice() {
            [Action::Dial(id)] => *id,
            [] => ConnectionId(0),
            other => panic!("the first thing a peering does is dial, not {other:?}"),
        };
        Bench { peering, now, id }
    }

    fn in_phase(state: SessionState) -> Bench {
        Bench::new(offer()).brought_to(state, peers_open())
    }

    fn brought_to(mut self, state: SessionState, open: Parsed) -> Bench {
        match state {
            SessionState::Connect => {}
            SessionState::Active => drop(self.peering.handle_dial_failed(self.id, "refused".to_owned(), self.now)),
            SessionState::OpenSent => drop(self.peering.handle_connected(self.id, self.now)),
            SessionState::OpenConfirm => {
                self = self.brought_to(SessionState::OpenSent, open.clone());
                self.hears(open);
            }
            SessionState::Established => {
                self = self.brought_to(SessionState::OpenConfirm, open);
                self.hears(Parsed::Keepalive);
            }
            SessionState::Idle => {
                self = self.brought_to(SessionState::OpenSent, open);
                self.hears(Parsed::Keepalive);
            }
        }
        assert_eq!(self.peering.state(), state, "the bench brings the machine to the state that the test starts in");
        self
    }

    fn hears(&mut self, message: Parsed) -> String {
        summary(&self.peering.handle_message(self.id, message, self.now))
    }

    fn hears_on(&mut self, id: ConnectionId, message: Parsed) -> String {
        summary(&self.peering.handle_message(id, message, self.now))
    }

    fn accepts(&mut self) -> ConnectionId {
        self.peering.handle_accepted(self.now).0
    }

    /// To the machine's next deadline, and what it does there.
    fn next_timeout(&mut self) -> (Duration, String) {
        let deadline = self.peering.next_deadline().expect("a timer runs");
        let waited = deadline.saturating_duration_since(self.now);
        self.now = self.now.max(deadline);
        (waited, summary(&self.peering.handle_timeout(self.now)))
    }

    /// Lets time pass, with every timer served, and gives all that was done.
    fn passes(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut done = Vec::new();
        while let Some(deadline) = self.peering.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            done.push(summary(&self.peering.handle_timeout(self.now)));
        }
        self.now = end;
        done
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Stop,
    TimerRunsOut,
    Connected,
    DialFailed,
    Accepted,
    Lost,
    Open,
    OpenOfAnotherAs,
    Keepalive,
    Update,
    RouteRefresh,
    Notification,
    Malformed,
    /// The connection cannot go on, for want of resources.
    Fault,
    /// BFD says that packets do not pass any more (RFC 9384).
    PathLost,
    /// The socket took something.
    Sent,
    /// An UPDATE whose MP_REACH_NLRI ends before its routes begin.
    Unlocatable,
    /// Our end's address has left this host.
    AddressGone,
    /// The peer has acknowledged what was sent, or has not.
    Answered,
    Unanswered,
}

/// MP_REACH_NLRI of two octets: not even its family can be told.
fn hears_unlocatable(peering: &mut Peering, id: ConnectionId, now: Instant) -> Vec<Action> {
    let body = [0, 0, 0, 5, 0x80, 14, 2, 0, 2];
    let mut message = vec![0xff; 16];
    message.extend([0, 19 + 9, 2]);
    message.extend(body);
    let mut stream = bytes::BytesMut::from(&message[..]);
    match Frame::parse(&mut stream, peering.max_message_len(id)) {
        Ok(Some(frame)) => peering.handle_frame(id, &frame, now),
        other => panic!("a whole UPDATE, not {other:?}"),
    }
}

fn happens(event: Event, bench: &mut Bench) -> String {
    let Bench { peering, now, id } = bench;
    let (now, id) = (*now, *id);
    let actions = match event {
        Event::Stop => peering.handle_stop(&cease(Cease::AdministrativeShutdown), "the test ends", now),
        Event::TimerRunsOut => return bench.next_timeout().1,
        Event::Connected => peering.handle_connected(id, now),
        Event::DialFailed => peering.handle_dial_failed(id, "connection refused".to_owned(), now),
        Event::Accepted => peering.handle_accepted(now).1,
        Event::Lost => peering.handle_lost(id, "reset".to_owned(), now),
        Event::Open => peering.handle_message(id, peers_open(), now),
        Event::OpenOfAnotherAs => peering.handle_message(id, open_from(65010, Ipv4Addr::new(10, 0, 0, 2), 90), now),
        Event::Keepalive => peering.handle_message(id, Parsed::Keepalive, now),
        Event::Update => peering.handle_message(id, update(), now),
        Event::RouteRefresh => {
            let refresh = RouteRefresh { family: AfiSafi::IPV4_UNICAST, kind: RefreshKind::Request };
            peering.handle_message(id, Parsed::RouteRefresh(refresh), now)
        }
        Event::Notification => peering.handle_message(id, Parsed::Notification(cease(Cease::AdministrativeReset)), now),
        Event::Malformed => peering.handle_malformed(id, &WireError::Header(HeaderFault::Type(9)), now),
        Event::Fault => peering.handle_fault(id, cease(Cease::OutOfResources), "a bug".to_owned(), now),
        Event::PathLost => peering.handle_fault(id, cease(Cease::BfdDown), "BFD says so".to_owned(), now),
        Event::Sent => {
            peering.handle_sent(id, now);
            Vec::new()
        }
        Event::Unlocatable => return summary(&hears_unlocatable(peering, id, now)),
        Event::AddressGone => peering.handle_address_gone(id, Ipv4Addr::new(10, 0, 0, 11).into(), now),
        Event::Answered => peering.handle_proof(id, true, now),
        Event::Unanswered => peering.handle_proof(id, false, now),
    };
    summary(&actions)
}

#[test]
fn every_state_answers_every_event_as_the_table_says() {
    use SessionState::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};
    let header = "close with Header(BadMessageType)";
    let stop = "close with Cease(AdministrativeShutdown)";
    let fault = "close with Cease(OutOfResources)";
    let bfd = "close with Cease(BfdDown)";
    let hold = "close with HoldTimerExpired, failed";
    let fsm = |state: &str| format!("close with Fsm(UnexpectedIn{state}), failed");
    let (in_open_sent, in_open_confirm) = (fsm("OpenSent"), fsm("OpenConfirm"));
    let in_established = "close with Fsm(UnexpectedInEstablished), down".to_owned();
    let ignored = "";
    // Event, state, what the machine does, the state after it.
    #[rustfmt::skip]
    let table: &[(Event, SessionState, &str, SessionState)] = &[
        (Event::Stop, Idle, ignored, Idle),
        (Event::Stop, Connect, "close", Idle),
        (Event::Stop, Active, ignored, Idle),
        (Event::Stop, OpenSent, &format!("{stop}, failed"), Idle),
        (Event::Stop, OpenConfirm, &format!("{stop}, failed"), Idle),
        (Event::Stop, Established, &format!("{stop}, down"), Idle),

        (Event::TimerRunsOut, Idle, "dial", Connect),
        (Event::TimerRunsOut, Connect, "close, failed, dial", Connect),
        (Event::TimerRunsOut, Active, "dial", Connect),
        (Event::TimerRunsOut, OpenSent, hold, Idle),
        (Event::TimerRunsOut, OpenConfirm, "KEEPALIVE", OpenConfirm),
        (Event::TimerRunsOut, Established, "KEEPALIVE", Established),

        (Event::Connected, Idle, ignored, Idle),
        (Event::Connected, Connect, "OPEN", OpenSent),
        (Event::Connected, Active, ignored, Active),
        (Event::Connected, OpenSent, ignored, OpenSent),
        (Event::Connected, OpenConfirm, ignored, OpenConfirm),
        (Event::Connected, Established, ignored, Established),

        (Event::DialFailed, Idle, ignored, Idle),
        (Event::DialFailed, Connect, "failed", Active),
        (Event::DialFailed, Active, ignored, Active),
        (Event::DialFailed, OpenSent, ignored, OpenSent),
        (Event::DialFailed, OpenConfirm, ignored, OpenConfirm),
        (Event::DialFailed, Established, ignored, Established),

        (Event::Accepted, Idle, "OPEN", OpenSent),
        (Event::Accepted, Connect, "OPEN", OpenSent),
        (Event::Accepted, Active, "OPEN", OpenSent),
        (Event::Accepted, OpenSent, "OPEN", OpenSent),
        (Event::Accepted, OpenConfirm, "OPEN", OpenConfirm),
        (Event::Accepted, Established, "OPEN", Established),

        (Event::Lost, Idle, ignored, Idle),
        (Event::Lost, Connect, ignored, Connect),
        (Event::Lost, Active, ignored, Active),
        (Event::Lost, OpenSent, "close, failed", Active),
        (Event::Lost, OpenConfirm, "close, failed", Idle),
        (Event::Lost, Established, "close, down", Idle),

        (Event::Open, Idle, ignored, Idle),
        (Event::Open, Connect, ignored, Connect),
        (Event::Open, Active, ignored, Active),
        (Event::Open, OpenSent, "KEEPALIVE", OpenConfirm),
        (Event::Open, OpenConfirm, &in_open_confirm, Idle),
        (Event::Open, Established, &in_established, Idle),

        (Event::OpenOfAnotherAs, Idle, ignored, Idle),
        (Event::OpenOfAnotherAs, Connect, ignored, Connect),
        (Event::OpenOfAnotherAs, Active, ignored, Active),
        (Event::OpenOfAnotherAs, OpenSent, "close with Open(BadPeerAs), failed", Idle),
        (Event::OpenOfAnotherAs, OpenConfirm, &in_open_confirm, Idle),
        (Event::OpenOfAnotherAs, Established, &in_established, Idle),

        (Event::Keepalive, Idle, ignored, Idle),
        (Event::Keepalive, Connect, ignored, Connect),
        (Event::Keepalive, Active, ignored, Active),
        (Event::Keepalive, OpenSent, &in_open_sent, Idle),
        (Event::Keepalive, OpenConfirm, "up", Established),
        (Event::Keepalive, Established, ignored, Established),

        (Event::Update, Idle, ignored, Idle),
        (Event::Update, Connect, ignored, Connect),
        (Event::Update, Active, ignored, Active),
        (Event::Update, OpenSent, &in_open_sent, Idle),
        (Event::Update, OpenConfirm, &in_open_confirm, Idle),
        (Event::Update, Established, ignored, Established),

        (Event::RouteRefresh, Idle, ignored, Idle),
        (Event::RouteRefresh, Connect, ignored, Connect),
        (Event::RouteRefresh, Active, ignored, Active),
        (Event::RouteRefresh, OpenSent, &in_open_sent, Idle),
        (Event::RouteRefresh, OpenConfirm, &in_open_confirm, Idle),
        (Event::RouteRefresh, Established, "refresh", Established),

        // X26: a NOTIFICATION is never answered.
        (Event::Notification, Idle, ignored, Idle),
        (Event::Notification, Connect, ignored, Connect),
        (Event::Notification, Active, ignored, Active),
        (Event::Notification, OpenSent, "close, failed", Idle),
        (Event::Notification, OpenConfirm, "close, failed", Idle),
        (Event::Notification, Established, "close, down", Idle),

        (Event::Malformed, Idle, ignored, Idle),
        (Event::Malformed, Connect, ignored, Connect),
        (Event::Malformed, Active, ignored, Active),
        (Event::Malformed, OpenSent, &format!("{header}, failed"), Idle),
        (Event::Malformed, OpenConfirm, &format!("{header}, failed"), Idle),
        (Event::Malformed, Established, &format!("{header}, down"), Idle),

        (Event::Fault, Idle, ignored, Idle),
        (Event::Fault, Connect, ignored, Connect),
        (Event::Fault, Active, ignored, Active),
        (Event::Fault, OpenSent, &format!("{fault}, failed"), Idle),
        (Event::Fault, OpenConfirm, &format!("{fault}, failed"), Idle),
        (Event::Fault, Established, &format!("{fault}, down"), Idle),

        // X22, and X23: without a connection there is nothing to end. The path has failed and not the peer, so nobody is backed off
        // from.
        (Event::PathLost, Idle, ignored, Idle),
        (Event::PathLost, Connect, ignored, Connect),
        (Event::PathLost, Active, ignored, Active),
        (Event::PathLost, OpenSent, &format!("{bfd}, failed"), Active),
        (Event::PathLost, OpenConfirm, &format!("{bfd}, failed"), Active),
        (Event::PathLost, Established, &format!("{bfd}, down"), Active),

        (Event::Sent, Idle, ignored, Idle),
        (Event::Sent, Connect, ignored, Connect),
        (Event::Sent, Active, ignored, Active),
        (Event::Sent, OpenSent, ignored, OpenSent),
        (Event::Sent, OpenConfirm, ignored, OpenConfirm),
        (Event::Sent, Established, ignored, Established),

        // D12: nothing that is heard is kept, so an UPDATE that cannot be read costs no session.
        (Event::Unlocatable, Idle, ignored, Idle),
        (Event::Unlocatable, Connect, ignored, Connect),
        (Event::Unlocatable, Active, ignored, Active),
        (Event::Unlocatable, OpenSent, &in_open_sent, Idle),
        (Event::Unlocatable, OpenConfirm, &in_open_confirm, Idle),
        (Event::Unlocatable, Established, "ignored", Established),

        // D2: nothing can be sent from that address any more, and the peer was not found to be bad.
        (Event::AddressGone, Idle, ignored, Idle),
        (Event::AddressGone, Connect, ignored, Connect),
        (Event::AddressGone, Active, ignored, Active),
        (Event::AddressGone, OpenSent, "close, failed", Active),
        (Event::AddressGone, OpenConfirm, "close, failed", Active),
        (Event::AddressGone, Established, "close, down", Active),

        // D6. Only the session that is established is ever asked to prove itself.
        (Event::Answered, Idle, ignored, Idle),
        (Event::Answered, Connect, ignored, Connect),
        (Event::Answered, Active, ignored, Active),
        (Event::Answered, OpenSent, ignored, OpenSent),
        (Event::Answered, OpenConfirm, ignored, OpenConfirm),
        (Event::Answered, Established, ignored, Established),

        (Event::Unanswered, Idle, ignored, Idle),
        (Event::Unanswered, Connect, ignored, Connect),
        (Event::Unanswered, Active, ignored, Active),
        (Event::Unanswered, OpenSent, ignored, OpenSent),
        (Event::Unanswered, OpenConfirm, ignored, OpenConfirm),
        (Event::Unanswered, Established, "close, down", Active),
    ];
    assert_eq!(table.len(), 20 * 6, "twenty events in six states");
    for (event, before, done, after) in table {
        let mut bench = Bench::in_phase(*before);
        assert_eq!(happens(*event, &mut bench), *done, "what is done when {event:?} comes in {before}");
        assert_eq!(bench.peering.state(), *after, "the state after {event:?} in {before}");
    }
}

/// What is done when BFD says that the path is up. The dial, if there is one, is what the bench is about.
fn path_comes_up(bench: &mut Bench) -> String {
    let actions = bench.peering.handle_path_up(bench.now);
    for action in &actions {
        if let Action::Dial(id) = action {
            bench.id = *id;
        }
    }
    summary(&actions)
}

#[test]
fn a_path_that_fails_again_and_again_is_dialled_each_time_as_if_it_were_the_first() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for _ in 0..20 {
        assert_eq!(happens(Event::PathLost, &mut bench), "close with Cease(BfdDown), down");
        assert_eq!(bench.peering.failures(), 0);
        let retry = bench.peering.next_attempt().expect("it is dialled again") - bench.now;
        assert!(retry <= offer().connect_retry_time, "after {retry:?}");
        // BFD is up long before that: then there is no reason to wait.
        let now = bench.now;
        assert_eq!(summary(&bench.peering.handle_path_down(now)), "");
        assert_eq!(path_comes_up(&mut bench), "dial");
        assert_eq!(path_comes_up(&mut bench), "", "once");
        happens(Event::Connected, &mut bench);
        bench.hears(peers_open());
        happens(Event::Keepalive, &mut bench);
        assert_eq!(bench.peering.state(), SessionState::Established);
    }
}

#[test]
fn a_dial_that_went_into_a_dead_path_is_made_anew_when_the_path_is_up() {
    let mut bench = Bench::in_phase(SessionState::Connect);
    assert_eq!(path_comes_up(&mut bench), "close, dial");
    assert_eq!(bench.peering.state(), SessionState::Connect);
}

#[test]
fn a_peering_that_needs_the_path_neither_dials_nor_accepts_before_it_is_up() {
    let mut bench = Bench::new(offer());
    let now = bench.now;
    bench.peering = Peering::new(offer(), 7, now).needing_path();
    assert_eq!(bench.passes(secs(3600)), [""], "the dial that was due is held");
    assert_eq!((bench.peering.state(), bench.peering.next_deadline()), (SessionState::Idle, None));
    assert_eq!(happens(Event::Accepted, &mut bench), "close");
    assert_eq!(path_comes_up(&mut bench), "dial");
    happens(Event::Connected, &mut bench);
    // The path goes again before the session is established.
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_path_down(now)), "close with Cease(BfdDown), failed");
    bench.passes(secs(3600));
    assert_eq!((bench.peering.state(), bench.peering.next_deadline()), (SessionState::Idle, None));
    assert_eq!(path_comes_up(&mut bench), "dial");
    happens(Event::Connected, &mut bench);
    bench.hears(peers_open());
    happens(Event::Keepalive, &mut bench);
    // An operator who holds BFD down ends no session: RFC 5882 §4.2.
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_path_down(now)), "");
    assert_eq!(bench.peering.state(), SessionState::Established);
}

#[test]
fn the_need_of_a_path_comes_and_goes_without_the_end_of_a_session() {
    let mut bench = Bench::in_phase(SessionState::Established);
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_need_of_path(true, now)), "");
    assert_eq!(bench.peering.state(), SessionState::Established);
    assert_eq!(summary(&bench.peering.handle_need_of_path(false, now)), "");

    let mut bench = Bench::in_phase(SessionState::OpenSent);
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_need_of_path(true, now)), "close with Cease(BfdDown), failed");
    bench.passes(secs(3600));
    assert_eq!((bench.peering.state(), bench.peering.next_deadline()), (SessionState::Idle, None));
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_need_of_path(false, now)), "dial");
    // Where the path is up, it changes nothing.
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    let now = bench.now;
    assert_eq!(summary(&bench.peering.handle_path_up(now)), "");
    assert_eq!(summary(&bench.peering.handle_need_of_path(true, now)), "");
    assert_eq!(bench.peering.state(), SessionState::OpenSent);
}

#[test]
fn a_passive_peering_never_dials() {
    let mut bench = Bench::new(LocalOffer { passive: true, ..offer() });
    assert_eq!(bench.peering.state(), SessionState::Active);
    assert_eq!(bench.peering.next_deadline(), None, "there is nothing to wake up for");
    bench.id = bench.accepts();
    bench.hears(open_from(65010, Ipv4Addr::new(10, 0, 0, 2), 90));
    assert_eq!(bench.peering.state(), SessionState::Idle, "a refused OPEN is backed off from");
    assert_eq!(bench.passes(secs(3600)), [""], "the only thing that happens is the way from Idle to Active");
    assert_eq!(bench.peering.state(), SessionState::Active);
}

#[test]
fn x1_open_sent_gives_up_after_four_minutes() {
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    let (waited, done) = bench.next_timeout();
    assert_eq!((waited, done.as_str()), (OPEN_SENT_HOLD_TIME, "close with HoldTimerExpired, failed"));
    assert_eq!(bench.peering.state(), SessionState::Idle);
}

#[test]
fn x2_silence_for_the_hold_time_ends_the_session_and_counts() {
    for state in [SessionState::OpenConfirm, SessionState::Established] {
        let mut bench = Bench::in_phase(state);
        assert!(bench.passes(secs(89)).iter().all(|done| done == "KEEPALIVE"), "up to 89 s only keepalives are due");
        assert_eq!(bench.peering.state(), state);
        let done = bench.passes(secs(1));
        assert!(done.last().is_some_and(|done| done.contains("HoldTimerExpired")), "at 90 s: {done:?}");
        assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Idle, 1));
    }
}

#[test]
fn x3_keepalives_leave_at_a_third_of_the_agreed_hold_time_jittered() {
    let mut bench =
        Bench::new(offer()).brought_to(SessionState::Established, open_from(65002, Ipv4Addr::new(10, 0, 0, 2), 30));
    assert_eq!(bench.peering.negotiated().unwrap().hold_time, Some(secs(30)));
    let mut intervals = Vec::new();
    for _ in 0..200 {
        let (waited, done) = bench.next_timeout();
        assert_eq!(done, "KEEPALIVE");
        intervals.push(waited);
        bench.hears(Parsed::Keepalive);
        bench.peering.handle_sent(bench.id, bench.now);
    }
    assert!(intervals.iter().all(|interval| (secs(10) * 3 / 4..=secs(10)).contains(interval)), "within 7.5 and 10 s");
    assert!(intervals.iter().max() > intervals.iter().min(), "they are not all the same");
}

#[test]
fn x4_with_hold_time_zero_from_either_side_no_timer_ever_runs() {
    let ours = Bench::new(LocalOffer { hold_time: None, ..offer() });
    let theirs = Bench::new(offer());
    let zero = open_from(65002, Ipv4Addr::new(10, 0, 0, 2), 0);
    for (bench, open) in [(ours, peers_open()), (theirs, zero)] {
        let mut bench = bench.brought_to(SessionState::OpenConfirm, open);
        assert_eq!(bench.peering.next_deadline(), None, "the timer of OpenSent is stopped too");
        for message in [Parsed::Keepalive, update(), Parsed::Keepalive] {
            bench.hears(message);
            bench.peering.handle_sent(bench.id, bench.now);
            assert_eq!(bench.peering.next_deadline(), None);
        }
        bench.now += secs(600);
        assert_eq!(summary(&bench.peering.handle_timeout(bench.now)), "", "ten minutes later nothing is due");
        assert_eq!(bench.peering.state(), SessionState::Established);
    }
}

#[test]
fn x5_an_update_restarts_the_hold_timer_and_is_counted() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for _ in 0..10 {
        bench.passes(secs(60));
        bench.peering.handle_sent(bench.id, bench.now);
        bench.hears(update());
    }
    assert_eq!(bench.peering.state(), SessionState::Established, "ten minutes of UPDATEs and no KEEPALIVE");
    assert_eq!(bench.peering.received(), Received { updates: 10, prefixes: 10, malformed: 0 });
}

#[test]
fn x6_a_connection_closed_by_the_peer_ends_without_a_word() {
    let mut bench = Bench::in_phase(SessionState::Established);
    let actions = bench.peering.handle_lost(bench.id, "closed by the peer within a message".to_owned(), bench.now);
    assert_eq!(summary(&actions), "close, down");
    assert_eq!(bench.peering.state(), SessionState::Idle);
}

#[test]
fn x7_a_reset_in_open_sent_is_followed_by_active_and_a_new_dial() {
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    bench.peering.handle_lost(bench.id, "reset".to_owned(), bench.now);
    assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Active, 0));
    let (waited, done) = bench.next_timeout();
    assert!((RETRY * 3 / 4..=RETRY).contains(&waited), "after the connect-retry time, jittered: {waited:?}");
    assert_eq!(done, "dial");
}

#[test]
fn x8_refused_dials_are_repeated_at_the_connect_retry_time_and_not_faster() {
    for seed in 0..100 {
        let now = start();
        let mut peering = Peering::new(offer(), seed, now);
        let mut dials = 0;
        while let Some(at) = peering.next_deadline().filter(|at| *at < now + secs(10)) {
            for action in peering.handle_timeout(at) {
                if let Action::Dial(id) = action {
                    dials += 1;
                    peering.handle_dial_failed(id, "connection refused".to_owned(), at);
                }
            }
        }
        assert!((2..=3).contains(&dials), "{dials} dials in 10 s at a connect-retry time of 5 s");
    }
}

#[test]
fn a_dial_without_an_answer_is_given_up_after_the_connect_retry_time() {
    let mut bench = Bench::in_phase(SessionState::Connect);
    let (waited, done) = bench.next_timeout();
    assert!((RETRY * 3 / 4..=RETRY).contains(&waited));
    assert_eq!(done, "close, failed, dial");
}

#[test]
fn the_pause_after_refused_opens_doubles_up_to_a_minute_and_is_forgotten_after_a_good_session() {
    let mut bench = Bench::new(offer());
    let mut pauses = Vec::new();
    for _ in 0..7 {
        bench.peering.handle_connected(bench.id, bench.now);
        bench.hears(open_from(65010, Ipv4Addr::new(10, 0, 0, 2), 90));
        let (waited, _) = bench.next_timeout();
        pauses.push(waited);
        bench.id = ConnectionId(bench.peering.next_connection);
    }
    let nominal = [5, 10, 20, 40, 60, 60, 60].map(secs);
    for (pause, nominal) in pauses.iter().zip(nominal) {
        assert!((nominal * 3 / 4..=nominal).contains(pause), "{pause:?} is no jittered {nominal:?}");
    }
    let mut bench = bench.brought_to(SessionState::Established, peers_open());
    bench.passes(FORGIVEN_AFTER);
    bench.hears(Parsed::Notification(cease(Cease::AdministrativeReset)));
    assert_eq!(bench.peering.failures(), 1, "only the newest failure counts");
}

#[test]
fn a_peer_that_is_reset_by_hand_again_and_again_is_not_waited_for_longer_each_time() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for _ in 0..5 {
        bench.hears(Parsed::Notification(cease(Cease::AdministrativeReset)));
        assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Idle, 1));
        bench.id = bench.accepts();
        bench.hears(peers_open());
        assert_eq!(bench.hears(Parsed::Keepalive), "up", "its own dial is taken at once");
    }
}

/// Input: a peer that dials, comes up and says Cease 6/4, or 6/2, at once, as often as it is let.
#[test]
fn a_peer_that_ends_every_session_as_it_begins_is_waited_for_longer_each_time_and_one_that_holds_ends_that() {
    for cease_of in [Cease::AdministrativeReset, Cease::AdministrativeShutdown] {
        let mut bench = Bench::in_phase(SessionState::Established);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            bench.hears(Parsed::Notification(cease(cease_of)));
            let (dialled, _) = bench.peering.handle_accepted(bench.now);
            if bench.peering.failures() > 1 {
                assert_eq!(bench.peering.state(), SessionState::Idle, "its dial is not taken meanwhile");
                let (waited, done) = bench.next_timeout();
                assert_eq!(done, "dial");
                pauses.push(waited);
                bench.id = ConnectionId(bench.peering.next_connection);
                bench.peering.handle_connected(bench.id, bench.now);
            } else {
                bench.id = dialled;
            }
            bench.hears(peers_open());
            assert_eq!(bench.hears(Parsed::Keepalive), "up");
        }
        let nominal = [10, 20, 40, 60, 60].map(secs);
        assert_eq!(pauses.len(), nominal.len(), "five are by hand: {pauses:?}");
        for (pause, nominal) in pauses.iter().zip(nominal) {
            assert!((nominal * 3 / 4..=nominal).contains(pause), "{pause:?} is no jittered {nominal:?}");
        }
        bench.passes(FORGIVEN_AFTER);
        bench.hears(Parsed::Notification(cease(cease_of)));
        assert_eq!((bench.peering.failures(), bench.peering.wishes), (1, 0), "a planned reset of a session that held");
    }
}

#[test]
fn in_idle_a_connection_is_taken_after_one_failure_and_refused_after_more() {
    let mut bench = Bench::in_phase(SessionState::Idle);
    let taken = bench.accepts();
    assert_eq!(bench.hears_on(taken, Parsed::Keepalive), "close with Fsm(UnexpectedInOpenSent), failed");
    assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Idle, 2));
    let (refused, actions) = bench.peering.handle_accepted(bench.now);
    assert_eq!(actions, [Action::Close { connection: refused, last_word: None }]);
    assert_eq!(bench.peering.state(), SessionState::Idle);
}

#[test]
fn x10_a_peer_that_takes_nothing_is_dropped_without_a_word_after_the_send_hold_time() {
    let mut bench = Bench::in_phase(SessionState::Established);
    let mut waited = Duration::ZERO;
    while waited < LEAST_SEND_HOLD_TIME {
        assert_eq!(bench.peering.state(), SessionState::Established, "after {waited:?}");
        bench.hears(Parsed::Keepalive);
        bench.passes(secs(10));
        waited += secs(10);
    }
    assert_eq!(bench.peering.state(), SessionState::Idle, "the peer was alive, but has taken nothing for 480 s");
    let mut bench = Bench::in_phase(SessionState::Established);
    bench.now += LEAST_SEND_HOLD_TIME;
    bench.hears(Parsed::Keepalive);
    let actions = bench.peering.handle_timeout(bench.now);
    assert_eq!(summary(&actions), "close, down", "a NOTIFICATION could land within another message");
    assert!(actions.contains(&Action::Down { connection: bench.id, end: End::SendHoldTimerExpired }));
}

/// Both connections reach OpenConfirm: first ours, then the peer's, or the other way round.
fn collide(mut bench: Bench, open: Parsed, ours_first: bool) -> (Bench, ConnectionId, ConnectionId, String) {
    let ours = bench.id;
    bench.peering.handle_connected(ours, bench.now);
    let theirs = bench.accepts();
    let order = if ours_first { [ours, theirs] } else { [theirs, ours] };
    assert_eq!(bench.hears_on(order[0], open.clone()), "KEEPALIVE");
    let done = bench.hears_on(order[1], open);
    (bench, ours, theirs, done)
}

#[test]
fn x12_x13_the_higher_identifier_keeps_its_connection_and_the_as_number_breaks_the_tie() {
    let us = (65001, 0x0a00_0001);
    // The peer's AS and identifier, and whether ours is the connection that stays.
    let cases = [((65002, us.1 + 1), false), ((65002, us.1 - 1), true), ((65002, us.1), false), ((65000, us.1), true)];
    for ((asn, identifier), ours_stays) in cases {
        for ours_first in [true, false] {
            let bench = Bench::new(LocalOffer { expected_asn: ExpectedAsn::External, ..offer() });
            let open = open_from(asn, Ipv4Addr::from_bits(identifier), 90);
            let (mut bench, ours, theirs, done) = collide(bench, open, ours_first);
            let newer_stays = ours_first != ours_stays;
            let expected = if newer_stays {
                "close with Cease(ConnectionCollision), failed, KEEPALIVE"
            } else {
                "close with Cease(ConnectionCollision), failed"
            };
            assert_eq!(done, expected, "peer AS {asn} id {identifier:#x}, ours first: {ours_first}");
            let (stays, gone) = if ours_stays { (ours, theirs) } else { (theirs, ours) };
            assert_eq!(bench.hears_on(gone, Parsed::Keepalive), "", "the loser is gone");
            assert_eq!(bench.hears_on(stays, Parsed::Keepalive), "up", "the winner goes on");
        }
    }
}

#[test]
fn x14_a_loser_that_the_peer_has_already_reset_costs_the_live_connection_nothing() {
    let mut bench = Bench::new(offer());
    bench.peering.handle_connected(bench.id, bench.now);
    // The peer's connection would win, by its identifier: but it never says OPEN.
    let dead = bench.accepts();
    assert_eq!(bench.hears(peers_open()), "KEEPALIVE", "nothing is closed for one that was not heard of");
    assert_eq!(summary(&bench.peering.handle_lost(dead, "reset".to_owned(), bench.now)), "close, failed");
    assert_eq!(bench.hears(Parsed::Keepalive), "up");
}

#[test]
fn x15_established_beats_a_new_connection_whoever_has_the_higher_identifier() {
    for identifier in [0x0a00_0000, 0x0a00_0002] {
        let open = open_from(65002, Ipv4Addr::from_bits(identifier), 90);
        let mut bench = Bench::new(offer()).brought_to(SessionState::Established, open.clone());
        let new = bench.accepts();
        // With the question to the established connection whether the peer still answers on it.
        let done = "close with Cease(ConnectionCollision), failed, KEEPALIVE";
        assert_eq!(bench.hears_on(new, open), done);
        assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Established, 0));
    }
}

#[test]
fn x17_a_late_end_of_the_loser_does_not_touch_the_established_session() {
    let (mut bench, ours, theirs, _) = collide(Bench::new(offer()), peers_open(), true);
    assert_eq!(bench.hears_on(theirs, Parsed::Keepalive), "up");
    let actions = bench.peering.handle_lost(ours, "reset".to_owned(), bench.now);
    assert_eq!(actions, [], "the peer of that connection was already told");
    assert_eq!(bench.peering.state(), SessionState::Established);
}

#[test]
fn x18_x19_a_stop_ends_every_connection_with_its_reason_and_nothing_follows() {
    for reason in [Cease::PeerDeconfigured, Cease::AdministrativeShutdown] {
        let mut bench = Bench::in_phase(SessionState::OpenSent);
        let other = bench.accepts();
        let actions = bench.peering.handle_stop(&cease(reason), "as told", bench.now);
        for connection in [bench.id, other] {
            let last_word = Some(cease(reason));
            assert!(actions.contains(&Action::Close { connection, last_word }), "{connection:?} hears why");
        }
        assert_eq!(bench.peering.next_deadline(), None);
        let (late, actions) = bench.peering.handle_accepted(bench.now);
        assert_eq!(actions, [Action::Close { connection: late, last_word: None }]);
        assert_eq!(bench.passes(secs(3600)), Vec::<String>::new());
    }
}

#[test]
fn x20_an_operators_reset_is_told_to_the_peer_and_the_session_returns() {
    for reason in [Cease::AdministrativeReset, Cease::OtherConfigurationChange] {
        let mut bench = Bench::in_phase(SessionState::Established);
        let actions = bench.peering.handle_fault(bench.id, cease(reason), "as told".to_owned(), bench.now);
        assert_eq!(summary(&actions), format!("close with Cease({reason:?}), down"));
        let (waited, done) = bench.next_timeout();
        assert!(waited <= RETRY && done == "dial", "{done} after {waited:?}");
    }
}

#[test]
fn x22_a_hard_reset_carries_what_it_is_for() {
    let hard = cease(Cease::BfdDown).into_hard_reset();
    let mut octets = bytes::BytesMut::new();
    Message::Notification(hard.clone()).emit(&Dialect::BEFORE_OPEN, &mut octets).expect("it fits");
    assert_eq!(octets[19..], [6, 9, 6, 10], "RFC 8538 §3.1 around RFC 9384");
    assert_eq!(hard.hard_reset_cause(), Some(cease(Cease::BfdDown)));
}

#[test]
fn x23_a_late_fault_of_an_old_session_does_not_touch_the_new_one() {
    let mut bench = Bench::in_phase(SessionState::Established);
    let old = bench.id;
    bench.hears(Parsed::Notification(cease(Cease::AdministrativeReset)));
    bench.id = bench.accepts();
    bench.hears(peers_open());
    assert_eq!(bench.hears(Parsed::Keepalive), "up");
    assert_eq!(bench.peering.handle_fault(old, cease(Cease::BfdDown), "late".to_owned(), bench.now), []);
    assert_eq!(bench.peering.state(), SessionState::Established);
}

#[test]
fn a_hard_reset_by_hand_is_the_peers_wish_as_much_as_a_soft_one() {
    for (inside, is_wish) in [(Cease::AdministrativeReset, true), (Cease::BfdDown, false)] {
        assert_eq!(End::Received(cease(inside)).is_peers_wish(), is_wish);
        assert_eq!(End::Received(cease(inside).into_hard_reset()).is_peers_wish(), is_wish, "{inside}");
    }
}

#[test]
fn marks_and_unknown_kinds_of_refresh_are_passed_over() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for kind in [RefreshKind::Begin, RefreshKind::End, RefreshKind::Unknown(255)] {
        let refresh = RouteRefresh { family: AfiSafi::IPV4_UNICAST, kind };
        assert_eq!(bench.hears(Parsed::RouteRefresh(refresh)), "", "{refresh}");
    }
    let multicast = RouteRefresh { family: AfiSafi { afi: 1, safi: 2 }, kind: RefreshKind::Request };
    assert_eq!(bench.hears(Parsed::RouteRefresh(multicast)), "", "a family that is not exchanged");
}

#[test]
fn a_silent_connection_of_the_peers_does_not_keep_us_from_dialling() {
    let mut bench = Bench::in_phase(SessionState::Active);
    bench.accepts();
    assert_eq!(bench.peering.state(), SessionState::OpenSent);
    let (waited, done) = bench.next_timeout();
    assert!(waited <= RETRY, "waited {waited:?}");
    assert_eq!(done, "dial");
}

#[test]
fn an_accepted_connection_that_is_heard_ends_our_own_dial() {
    let mut bench = Bench::in_phase(SessionState::Connect);
    let theirs = bench.accepts();
    assert_eq!(bench.hears_on(theirs, peers_open()), "close, KEEPALIVE");
    assert_eq!(
        bench.peering.handle_connected(bench.id, bench.now),
        [],
        "a dial that comes through too late is ignored"
    );
}

#[test]
fn a_newer_connection_of_the_peers_replaces_one_that_it_said_nothing_on() {
    let mut bench = Bench::in_phase(SessionState::Active);
    bench.accepts();
    let (_, actions) = bench.peering.handle_accepted(bench.now);
    assert_eq!(summary(&actions), "OPEN, close with Cease(ConnectionCollision), failed");
    assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::OpenSent, 0));
}

#[test]
fn two_connections_that_killed_each_other_are_soon_followed_by_a_new_dial() {
    let (mut bench, _, theirs, _) = collide(Bench::new(offer()), peers_open(), true);
    bench.hears_on(theirs, Parsed::Notification(cease(Cease::ConnectionCollision)));
    let (waited, done) = bench.next_timeout();
    assert!(waited <= COLLISION_PAUSE, "waited {waited:?}");
    assert_eq!(done, "dial");
}

#[test]
fn the_reason_for_a_refused_open_reaches_the_caller_in_words() {
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    let open = open_from(65010, Ipv4Addr::new(10, 0, 0, 2), 90);
    let actions = bench.peering.handle_message(bench.id, open, bench.now);
    let ends: Vec<&End> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Failed { end, .. } => Some(end),
            _ => None,
        })
        .collect();
    let [End::Sent { notification, why }] = ends.as_slice() else { panic!("one end, by us: {ends:?}") };
    assert_eq!(notification.reason, NotificationReason::Open(OpenError::BadPeerAs));
    assert!(why.contains("65010") && why.contains("65002"), "{why}");
}

/// D2 of the field cases: the address moved, so the peer is dialled from another at once, and no pause grows.
#[test]
fn a_session_whose_local_address_is_gone_is_dialled_anew_at_once_and_counts_as_no_failure() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for flap in 0..5 {
        let gone = bench.peering.handle_address_gone(bench.id, Ipv4Addr::new(10, 0, 0, 11).into(), bench.now);
        assert_eq!(summary(&gone), "close, down");
        assert_eq!(bench.next_timeout(), (Duration::ZERO, "dial".to_owned()), "flap {flap}");
        assert_eq!(bench.peering.failures(), 0, "flap {flap}");
        let Approach::Connect { dial, .. } = bench.peering.approach else { panic!("a dial is under way") };
        bench.id = dial;
        bench.peering.handle_connected(dial, bench.now);
        assert_eq!((bench.hears(peers_open()), bench.hears(Parsed::Keepalive)), ("KEEPALIVE".into(), "up".into()));
    }
}

#[test]
fn a_passive_peering_waits_for_the_peer_when_its_local_address_is_gone() {
    let mut bench = Bench::new(LocalOffer { passive: true, ..offer() });
    bench.id = bench.accepts();
    assert_eq!((bench.hears(peers_open()), bench.hears(Parsed::Keepalive)), ("KEEPALIVE".into(), "up".into()));
    bench.peering.handle_address_gone(bench.id, Ipv4Addr::new(10, 0, 0, 11).into(), bench.now);
    assert_eq!((bench.peering.state(), bench.peering.next_deadline()), (SessionState::Active, None));
}

/// D6 of the field cases: the router lost power, dials again, and no timer runs.
#[test]
fn a_second_open_makes_the_established_connection_prove_itself_once_within_a_bound() {
    let mut bench = Bench::new(LocalOffer { hold_time: None, ..offer() });
    bench = bench.brought_to(SessionState::Established, peers_open());
    let (established, asked_at) = (bench.id, bench.now);
    let second = bench.accepts();
    let refused = format!("close with {:?}, failed", NotificationReason::Cease(Cease::ConnectionCollision));
    assert_eq!(bench.hears_on(second, peers_open()), format!("{refused}, KEEPALIVE"), "RFC 4271 §6.8, and a question");
    bench.now += secs(1);
    let third = bench.accepts();
    assert_eq!(bench.hears_on(third, peers_open()), refused, "the question is asked already");
    let (waited, asked) = bench.next_timeout();
    assert_eq!((bench.now - asked_at, asked.as_str()), (PROOF_TIME, "prove"), "after {waited:?} more");

    let mut answered = Bench { peering: bench.peering.clone(), now: bench.now, id: established };
    assert_eq!(happens(Event::Answered, &mut answered), "");
    assert_eq!((answered.peering.state(), answered.peering.next_deadline()), (SessionState::Established, None));
    let fourth = answered.accepts();
    assert_eq!(answered.hears_on(fourth, peers_open()), format!("{refused}, KEEPALIVE"), "it may be asked again");

    bench.id = established;
    assert_eq!(happens(Event::Unanswered, &mut bench), "close, down");
    assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Active, 0));
    assert_eq!(bench.next_timeout(), (Duration::ZERO, "dial".to_owned()));
}

/// Input: the router of an unnumbered peer dies without a word, and its replacement, with another link-local address,
/// dials. Output: the session with the dead one proves itself, or ends, within the bound; once, however often the other one dials.
#[test]
fn another_router_on_the_link_of_the_peer_makes_the_established_connection_prove_itself() {
    let mut bench = Bench::in_phase(SessionState::Established);
    let began = bench.now;
    assert_eq!(summary(&bench.peering.handle_doubt(bench.now)), "KEEPALIVE");
    bench.now += secs(1);
    assert_eq!(summary(&bench.peering.handle_doubt(bench.now)), "");
    let (_, asked) = bench.next_timeout();
    assert_eq!((bench.now - began, asked.as_str()), (PROOF_TIME, "prove"));
    assert_eq!(happens(Event::Unanswered, &mut bench), "close, down");
    assert_eq!(summary(&bench.peering.handle_doubt(bench.now)), "", "there is nothing to prove");
}

/// RFC 4724 §5.
#[test]
fn another_connection_of_a_peer_with_graceful_restart_ends_the_session_without_a_word_once_it_has_lasted() {
    let graceful = || LocalOffer { graceful_restart: Some(Restart::default()), ..offer() };
    let theirs = || {
        let theirs = LocalOffer { local_asn: 65002, identifier: Ipv4Addr::new(10, 0, 0, 2), ..graceful() };
        Parsed::Open(theirs.open())
    };
    let mut bench = Bench::new(graceful()).brought_to(SessionState::Established, theirs());
    let second = bench.accepts();
    let refused = format!("close with {:?}, failed", NotificationReason::Cease(Cease::ConnectionCollision));
    assert_eq!(bench.hears_on(second, theirs()), format!("{refused}, KEEPALIVE"), "it may have been under way");
    bench.now += FORGIVEN_AFTER;
    let third = bench.accepts();
    assert_eq!(bench.hears_on(third, theirs()), "close, down, KEEPALIVE", "the new one goes on");
    assert_eq!(bench.hears_on(third, Parsed::Keepalive), "up");
}

/// D12 of the field cases.
#[test]
fn updates_that_cannot_be_located_are_counted_and_restart_the_hold_timer() {
    let mut bench = Bench::in_phase(SessionState::Established);
    for _ in 0..3 {
        bench.now += secs(80);
        assert_eq!(happens(Event::Unlocatable, &mut bench), "ignored");
    }
    let received = bench.peering.received();
    assert_eq!((received.updates, received.malformed, received.prefixes), (3, 3, 0));
}

#[test]
fn the_next_attempt_is_told_while_there_is_none_under_way() {
    assert_eq!(Bench::in_phase(SessionState::Connect).peering.next_attempt(), None);
    assert_eq!(Bench::in_phase(SessionState::Established).peering.next_attempt(), None);
    for state in [SessionState::Idle, SessionState::Active] {
        let mut bench = Bench::in_phase(state);
        let next = bench.peering.next_attempt();
        assert_eq!(next, bench.peering.next_deadline(), "{state}");
        assert_eq!(bench.next_timeout().1, "dial", "{state}");
    }
}

#[test]
fn a_peer_that_refuses_capabilities_is_dialled_again_at_once_without_them() {
    let refusal = |reason, data: &[u8]| {
        Parsed::Notification(Notification { reason: NotificationReason::Open(reason), data: data.to_vec() })
    };
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    assert_eq!(bench.hears(refusal(OpenError::UnsupportedCapability, &[6, 0])), "close, failed, withheld");
    assert_eq!(
        (bench.peering.next_attempt(), bench.peering.failures()),
        (Some(bench.now), 0),
        "no failure of the peer"
    );
    assert!(!bench.peering.open_message().offers_extended_message());
    assert!(bench.peering.open_message().offers(AfiSafi::IPV6_UNICAST), "the rest is offered as before");

    let (_, actions) = bench.peering.handle_accepted(bench.now);
    let [Action::Send(id, Message::Open(open))] = actions.as_slice() else { panic!("an OPEN, not {actions:?}") };
    assert!(!open.offers_extended_message());
    bench.id = *id;
    assert_eq!(bench.hears(refusal(OpenError::UnsupportedOptionalParameter, &[])), "close, failed, withheld");
    assert_eq!(bench.peering.open_message().capabilities, []);

    bench.id = bench.accepts();
    let old = Open { capabilities: Vec::new(), ..offer().open() };
    bench.hears(Parsed::Open(Open { asn: 65002, identifier: Ipv4Addr::new(10, 0, 0, 2), ..old }));
    assert_eq!(bench.hears(Parsed::Keepalive), "up");
    let negotiated = bench.peering.negotiated().unwrap();
    assert!(negotiated.ipv4_unicast && !negotiated.ipv6_unicast && !negotiated.four_octet_asn);
}

#[test]
fn a_peer_that_refuses_even_an_open_without_capabilities_is_waited_for_and_offered_them_anew() {
    let refusal = || {
        let reason = NotificationReason::Open(OpenError::UnsupportedOptionalParameter);
        Parsed::Notification(Notification { reason, data: Vec::new() })
    };
    let mut bench = Bench::in_phase(SessionState::OpenSent);
    assert_eq!(bench.hears(refusal()), "close, failed, withheld");
    bench.id = bench.accepts();
    assert_eq!(bench.hears(refusal()), "close, failed");
    assert_eq!((bench.peering.state(), bench.peering.failures()), (SessionState::Idle, 1));
    assert_eq!(bench.peering.open_message(), offer().open());
}

#[test]
fn a_passive_end_waits_for_the_peer_that_refused_capabilities() {
    let mut bench = Bench::new(LocalOffer { passive: true, ..offer() });
    bench.id = bench.accepts();
    let reason = NotificationReason::Open(OpenError::UnsupportedCapability);
    let refusal = Parsed::Notification(Notification { reason, data: Vec::new() });
    assert_eq!(bench.hears(refusal), "close, failed, withheld");
    assert_eq!((bench.peering.state(), bench.peering.next_attempt()), (SessionState::Active, None));
}
