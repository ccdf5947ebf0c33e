//! What a peer is told of a restart, and of an end that takes the routes back (RFC 4724, RFC 8538).

use super::*;
use crate::bgp::machine::negotiation::Restart;
use crate::bgp::wire::GracefulRestart;

const AWARE: Capability = Capability::GracefulRestart(GracefulRestart {
    restarting: false,
    notification: true,
    restart_time_secs: 120,
    families: Vec::new(),
});

fn bench(past: Past, graceful_restart: Option<bool>) -> (Bench, SocketAddr) {
    let (listeners, address) = listeners("127.0.0.1");
    let mut settings = settings("script", "127.0.0.9:179".parse().unwrap(), None);
    settings.passive = true;
    settings.asn = PeerAsn::Is(65009);
    settings.graceful_restart = graceful_restart;
    settings.bfd = None;
    (Bench::start_after(past, listeners, slice([10, 0, 0, 1], settings, routes(3, 0))), address)
}

/// Opens a session, and answers with what the speaker's OPEN says of graceful restart.
async fn open(script: &mut Script) -> Option<GracefulRestart> {
    script.say(&Script::open(65009, 90, &[AWARE])).await;
    script.say(&Message::Keepalive).await;
    let Some(Parsed::Open(open)) = script.hear().await else { panic!("an OPEN comes first") };
    assert!(matches!(script.hear().await, Some(Parsed::Keepalive)));
    open.graceful_restart().cloned()
}

#[tokio::test]
async fn the_first_open_says_that_the_agent_restarts_and_those_after_a_session_do_not() {
    for forwarding in [true, false] {
        let past = Past { restart: Restart { restarting: true, forwarding }, ..Past::default() };
        let (mut bench, address) = bench(past, Some(true));
        let mut script = Script::dial(address, None).await;
        let first = open(&mut script).await.expect("it is offered");
        assert!(first.restarting && first.notification);
        assert!(first.families.iter().all(|(_, forwards)| *forwards == forwarding), "{first:?}");
        script.read_until("the table came whole", |it| it.rib.len() == 3 && it.ends_of_rib.len() == 2).await;
        drop(script);
        bench.report("the session is over", |it| it.state != SessionState::Established).await;

        let mut script = Script::dial(address, None).await;
        let second = open(&mut script).await.expect("it is offered");
        assert!(!second.restarting, "this agent has had a session with the peer");
        assert!(second.families.iter().all(|(_, forwards)| *forwards), "the kernel is as it was: {second:?}");
    }
}

#[tokio::test]
async fn it_is_offered_by_itself_only_with_bfd() {
    for (setting, offered) in [(None, false), (Some(false), false), (Some(true), true)] {
        let (_bench, address) = bench(Past::default(), setting);
        let mut script = Script::dial(address, None).await;
        assert_eq!(open(&mut script).await.is_some(), offered, "{setting:?}");
    }
    let (listeners, address) = listeners("127.0.0.1");
    let mut settings = settings("script", "127.0.0.9:179".parse().unwrap(), None);
    (settings.passive, settings.asn) = (true, PeerAsn::Is(65009));
    (settings.graceful_restart, settings.bfd, settings.bfd_strict) = (None, Some("fast".to_owned()), false);
    let _bench = Bench::start(listeners, slice([10, 0, 0, 1], settings, routes(3, 0)));
    let mut script = Script::dial(address, None).await;
    let offer = open(&mut script).await.expect("with BFD it is");
    assert!(
        !offer.restarting && offer.families.iter().all(|(_, forwards)| !forwards),
        "no agent ran before: {offer:?}"
    );
}

#[tokio::test]
async fn an_agent_that_stops_takes_its_routes_back_from_a_peer_that_would_keep_them() {
    let (bench, address) = bench(Past::default(), Some(true));
    let mut script = Script::dial(address, None).await;
    open(&mut script).await;
    script.read_until("all came", |it| it.ends_of_rib.len() == 2).await;
    bench.stop("the node leaves").await;
    let Some(Parsed::Notification(word)) = script.hear().await else { panic!("the peer is told") };
    let cause = word.hard_reset_cause().expect("a Hard Reset");
    assert_eq!(cause.reason, NotificationReason::Cease(Cease::AdministrativeShutdown));
    assert_eq!(cause.text().as_deref(), Some("the node leaves"));
}
