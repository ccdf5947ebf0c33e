//! A speaker that dies without a word, and another one that goes on with what its ledger says, against a scripted peer.

use std::io::{Read, Write};

use super::kept::{established, hears_nothing, of_script};
use super::*;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::socket::ledger::{Entrusted, Safe, Trust};

/// A speaker whose sessions are entrusted to somebody.
struct Trusting {
    bench: Bench,
    entrusted: watch::Receiver<Entrusted>,
}

impl Trusting {
    fn start(resumable: Vec<Resumable>, wanted: Option<Routes>) -> (Trusting, SocketAddr) {
        let (listeners, address) = listeners("127.0.0.1");
        let (safe, entrusted) = Safe::new();
        let past = Past { resumable, safe: Some(safe), ..Past::default() };
        let slice = wanted.map(|routes| slice([10, 0, 0, 1], of_script(|_| {}), routes)).unwrap_or_default();
        (Trusting { bench: Bench::start_after(past, listeners, slice), entrusted }, address)
    }

    async fn entrusted(&mut self) -> Arc<Trust> {
        let is_there = |entrusted: &Entrusted| !entrusted.is_empty();
        let wait = self.entrusted.wait_for(is_there);
        let entrusted = tokio::time::timeout(SOON, wait).await.expect("it is soon").expect("the speaker runs");
        Arc::clone(entrusted.values().next().expect("one is there"))
    }

    /// It dies; what is left of its session.
    async fn crash(mut self) -> Arc<Trust> {
        let trust = self.entrusted().await;
        self.bench.task.abort();
        let _ = self.bench.task.await;
        trust
    }
}

fn recover(trust: &Trust) -> Result<KeptConnection, String> {
    let (ledger, socket) = (trust.ledger.try_clone().unwrap(), trust.socket.try_clone().unwrap());
    KeptConnection::recover(ledger, socket).map_err(|(_, error)| error.to_string())
}

fn next(kept: KeptConnection, wanted: Option<Routes>) -> Trusting {
    let settings = Arc::new(of_script(|_| {}));
    Trusting::start(vec![Resumable { kept, settings }], wanted).0
}

#[tokio::test]
async fn after_a_crash_the_session_goes_on_and_the_peer_ends_with_what_is_wanted() {
    let (speaker, address) = Trusting::start(Vec::new(), Some(routes(1000, 0)));
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(1000, 0)).await;
    let trust = speaker.crash().await;
    hears_nothing(&mut script).await;

    let kept = recover(&trust).unwrap_or_else(|why| panic!("it goes on: {why}"));
    assert!(kept.after_crash && kept.state.sent.outdated.len() == 1000, "with what attributes is not known");
    // Without a plan it tells nothing.
    let mut speaker = next(kept, None);
    let report = speaker.bench.report("it goes on", |it| it.state == SessionState::Established).await;
    assert_eq!(report.prefixes_sent, 1000);
    assert_eq!(report.detail.former, Some(crate::world::FormerSession::TakenOver { after_crash: true }));
    hears_nothing(&mut script).await;
    // Some are gone meanwhile, all others are other ones.
    let announced = script.announcements;
    speaker.bench.slices.send_replace(slice([10, 0, 0, 1], of_script(|_| {}), routes(900, 7)));
    script.read_until("the peer has what is wanted", |it| it.has_exactly(&routes(900, 7))).await;
    assert_eq!(script.announcements - announced, 900, "each once");
    assert_eq!(script.ends_of_rib.len(), 2, "End-of-RIB was told before");
    hears_nothing(&mut script).await;
}

#[tokio::test]
async fn after_a_crash_within_messages_both_streams_go_on_where_they_were() {
    let (mut speaker, address) = Trusting::start(Vec::new(), Some(routes(15_000, 0)));
    let mut script = Script::dial(address, Some(4096)).await;
    script.establish(90).await;
    speaker.bench.report("much is under way", |it| it.prefixes_sent > 1000).await;
    let mut refresh = BytesMut::new();
    let request = RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind: RefreshKind::Request };
    Message::RouteRefresh(request).emit(&Dialect::BEFORE_OPEN, &mut refresh).unwrap();
    let (half, rest) = refresh.split_at(11);
    script.stream.write_all(half).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let trust = speaker.crash().await;

    let kept = recover(&trust).unwrap_or_else(|why| panic!("it goes on: {why}"));
    assert_eq!(kept.state.unread, half, "the half message is noted");
    let mut speaker = next(kept, Some(routes(15_000, 0)));
    script.read_until("all came", |it| it.has_exactly(&routes(15_000, 0)) && it.ends_of_rib.len() == 2).await;
    let announced = script.announcements;
    script.stream.write_all(rest).await.unwrap();
    script.read_until("all came again", |it| it.announcements == announced + 15_000).await;
    speaker.bench.report("the session stands", |it| it.state == SessionState::Established).await;
}

#[tokio::test]
async fn a_session_whose_place_in_a_stream_is_not_certain_is_not_taken_over() {
    let table =
        [(false, "were noted: the next message cannot be found"), (true, "octets that the ledger does not have")];
    for (writes, why) in table {
        let (speaker, address) = Trusting::start(Vec::new(), Some(routes(3, 0)));
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let trust = speaker.crash().await;
        assert!(recover(&trust).is_ok(), "it is certain");
        // As if the agent had died between the kernel and the ledger.
        let mut socket = std::net::TcpStream::from(trust.socket.try_clone().unwrap());
        if writes {
            socket.write_all(&[0xff; 19]).unwrap();
        } else {
            script.say(&Message::Keepalive).await;
            socket.set_nonblocking(false).unwrap();
            let mut octets = [0; 19];
            socket.read_exact(&mut octets).unwrap();
        }
        let refused = recover(&trust).expect_err("it is not certain");
        assert!(refused.contains(why), "{refused}");
    }
}

/// Input: the agent dies, and the router ends the session for BFD before the next one is there. Output: the next one says
/// so, and that routes were withdrawn; it said that graceful restart kept them.
#[tokio::test]
async fn a_session_that_the_peer_ended_while_nobody_ran_says_why_and_whether_routes_are_kept() {
    let cease: Notification = NotificationReason::Cease(Cease::BfdDown).into();
    for (word, expected) in [(cease.clone(), true), (cease.into_hard_reset(), false)] {
        let (speaker, address) = Trusting::start(Vec::new(), Some(routes(3, 0)));
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let trust = speaker.crash().await;
        script.say(&Message::Keepalive).await;
        script.say(&Message::Notification(word.clone())).await;
        drop(script);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (ledger, socket) = (trust.ledger.try_clone().unwrap(), trust.socket.try_clone().unwrap());
        let (state, error) = KeptConnection::recover(ledger, socket).expect_err("it has ended");
        assert_eq!(error.to_string(), format!("the peer has ended it: {word}"));
        let negotiated = state.expect("whose it was is known").negotiated;
        for (graceful_restart, hard_reset) in [(false, false), (true, false), (true, true)] {
            let negotiated = Negotiated { graceful_restart, hard_reset, ..negotiated.clone() };
            assert_eq!(error.keeps_routes(&negotiated), hard_reset && expected, "{word}");
        }
    }
}

#[tokio::test]
async fn a_session_that_may_be_what_the_agent_dies_of_is_not_taken_over_twice() {
    let (speaker, address) = Trusting::start(Vec::new(), Some(routes(3, 0)));
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(3, 0)).await;
    let trust = speaker.crash().await;
    let kept = recover(&trust).expect("the first time");
    let speaker = next(kept, Some(routes(3, 0)));
    let trust = speaker.crash().await;
    let refused = recover(&trust).expect_err("the second time");
    assert!(refused.contains("within 60 s of taking it over"), "{refused}");
}

#[tokio::test]
async fn a_session_that_has_ended_is_entrusted_to_nobody_and_its_connection_closes() {
    let (mut speaker, address) = Trusting::start(Vec::new(), Some(routes(3, 0)));
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(3, 0)).await;
    let _held = speaker.entrusted().await;
    speaker.bench.shutdown.take().expect("stopped once").send(Parting::Leave("done".to_owned())).expect("it runs");
    assert!(matches!(script.hear().await, Some(Parsed::Notification(_))), "the peer is told");
    assert!(script.hear().await.is_none(), "and the stream ends, although somebody has the socket");
    speaker.entrusted.wait_for(Entrusted::is_empty).await.expect("nothing is entrusted");
}
