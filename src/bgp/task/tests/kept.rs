//! A speaker that ends and another one that goes on with its sessions, against a scripted peer.

use super::*;
use crate::bgp::socket::kept::KeptConnection;

/// Ends the speaker as for a restart; what it gives away, after a way through its text.
async fn keep(mut bench: Bench) -> Vec<KeptConnection> {
    let (to, kept) = oneshot::channel();
    bench.shutdown.take().expect("stopped once").send(Parting::Keep(to)).expect("the speaker runs");
    bench.task.await.expect("the speaker ends well");
    let kept: Vec<KeptConnection> = kept.await.expect("it gives its sessions away");
    let again = |KeptConnection { state, socket, .. }: KeptConnection| {
        KeptConnection::open(&state.emit().expect("it can be written"), socket).expect("it can go on")
    };
    kept.into_iter().map(again).collect()
}

pub(super) fn of_script(change: impl FnOnce(&mut config::Peer)) -> config::Peer {
    let mut settings = settings("script", "127.0.0.9:179".parse().unwrap(), None);
    settings.passive = true;
    settings.asn = PeerAsn::Is(65009);
    change(&mut settings);
    settings
}

/// The next speaker, with these settings and what it wants; `None`: it has no plan yet.
fn next(kept: Vec<KeptConnection>, settings: config::Peer, wanted: Option<Routes>) -> Bench {
    let settings_now = Arc::new(settings.clone());
    let resumable = kept.into_iter().map(|kept| Resumable { kept, settings: Arc::clone(&settings_now) });
    let slice = wanted.map(|routes| slice([10, 0, 0, 1], settings, routes)).unwrap_or_default();
    let past = Past { resumable: resumable.collect(), ..Past::default() };
    Bench::start_after(past, listeners("127.0.0.1").0, slice)
}

/// Asserts that the peer hears nothing but KEEPALIVEs for a while.
pub(super) async fn hears_nothing(script: &mut Script) {
    let wait = async {
        loop {
            match script.hear().await {
                Some(Parsed::Keepalive) => {}
                other => panic!("the peer heard {other:?}"),
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), wait).await.is_err());
}

pub(super) async fn established(script: &mut Script, wanted: &Routes) {
    script.establish(90).await;
    script.read_until("all came", |it| it.has_exactly(wanted) && it.ends_of_rib.len() == 2).await;
}

#[tokio::test]
async fn a_session_goes_on_in_the_next_speaker_and_the_peer_hears_only_what_differs() {
    let (bench, address) = against_a_script(routes(1000, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(1000, 0)).await;
    let kept = keep(bench).await;
    assert_eq!(kept.len(), 1);
    hears_nothing(&mut script).await;

    // Without a plan it tells nothing, and reads on.
    let mut bench = next(kept, of_script(|_| {}), None);
    let report = bench.report("it goes on", |it| it.state == SessionState::Established).await;
    assert_eq!((report.prefixes_sent, report.detail.times_established), (1000, 1));
    let negotiated = report.detail.negotiated.expect("it is known what was negotiated");
    assert!(negotiated.capabilities.received.iter().any(|it| it.contains("65009")), "{:?}", negotiated.capabilities);
    hears_nothing(&mut script).await;

    // With the same plan as before too.
    bench.slices.send_replace(slice([10, 0, 0, 1], of_script(|_| {}), routes(1000, 0)));
    hears_nothing(&mut script).await;
    let announced = script.announcements;
    change_routes(&bench, routes(1003, 0));
    script.read_until("three more came", |it| it.has_exactly(&routes(1003, 0))).await;
    assert_eq!(script.announcements - announced, 3, "and nothing else");

    // And once more, with routes that go.
    let kept = keep(bench).await;
    let bench = next(kept, of_script(|_| {}), Some(routes(500, 0)));
    script.read_until("half of them went", |it| it.has_exactly(&routes(500, 0))).await;
    assert_eq!(script.announcements - announced, 3, "nothing was announced again");
    bench.stop("done").await;
    assert!(matches!(script.hear().await, Some(Parsed::Notification(_))), "the session ends as any does");
}

#[tokio::test]
async fn a_message_that_was_written_and_read_by_half_is_finished_by_the_next_speaker() {
    let (mut bench, address) = against_a_script(routes(15_000, 0), |_| {});
    let mut script = Script::dial(address, Some(4096)).await;
    script.establish(90).await;
    bench.report("much is under way", |it| it.prefixes_sent > 1000).await;
    // Half of a ROUTE-REFRESH, and the peer reads nothing: messages are stuck in the middle.
    let mut refresh = BytesMut::new();
    let request = RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind: RefreshKind::Request };
    Message::RouteRefresh(request).emit(&Dialect::BEFORE_OPEN, &mut refresh).unwrap();
    let (half, rest) = refresh.split_at(11);
    script.stream.write_all(half).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let kept = keep(bench).await;
    assert_eq!(kept[0].state.unread, half, "the half message is kept");
    assert!(!kept[0].state.unwritten.is_empty(), "so is what the socket did not take");

    let mut bench = next(kept, of_script(|_| {}), Some(routes(15_000, 0)));
    script.read_until("the rest came", |it| it.has_exactly(&routes(15_000, 0)) && it.ends_of_rib.len() == 2).await;
    assert_eq!(script.announcements, 15_000, "each once, over both speakers");
    script.stream.write_all(rest).await.unwrap();
    script.read_until("all came again", |it| it.announcements == 30_000).await;
    bench.report("the session stands", |it| it.state == SessionState::Established).await;
}

#[tokio::test]
async fn a_refresh_that_the_peer_waits_for_is_answered_by_the_next_speaker() {
    let (bench, address) = against_a_script(routes(10, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(10, 0)).await;
    let mut kept = keep(bench).await;
    kept[0].state.sent.owes_refresh.insert(crate::address::Family::V6);
    let _bench = next(kept, of_script(|_| {}), Some(routes(10, 0)));
    script.read_until("all came again", |it| it.announcements == 20).await;
}

#[tokio::test]
async fn a_session_whose_settings_have_changed_ends_with_cease_and_a_new_one_can_be_opened() {
    let (bench, address) = against_a_script(routes(3, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(3, 0)).await;
    let kept = keep(bench).await;
    let _bench = next(kept, of_script(|settings| settings.local_asn = 65003), Some(routes(3, 0)));
    match script.hear().await {
        Some(Parsed::Notification(Notification { reason, .. })) => {
            assert_eq!(reason, NotificationReason::Cease(Cease::OtherConfigurationChange));
        }
        other => panic!("the peer heard {other:?}"),
    }
}

/// Input: `address` is written in another way while no agent runs, and the router is the same one; or another one. Output: the
/// session goes on; with another router it ends.
#[tokio::test]
async fn a_session_goes_on_whose_router_is_found_in_another_way_after_a_restart() {
    let fixed = |ip: &str| PeerAddress::Fixed(ScopedAddress { ip: ip.parse().unwrap(), interface: None });
    for (before, after, is_same) in [
        (fixed("127.0.0.9"), PeerAddress::Gateway, true),
        (PeerAddress::Gateway, fixed("127.0.0.9"), true),
        (PeerAddress::Gateway, fixed("127.0.0.8"), false),
    ] {
        let (bench, address) = against_a_script(routes(3, 0), |_| {});
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let mut kept = keep(bench).await;
        for kept in &mut kept {
            let settings = of_script(|settings| settings.address = before.clone());
            let address = config::session_keys(&settings)["address"].clone();
            *kept.state.settings.get_mut("address").expect("it is a key of a session") = address;
        }
        let settings = Arc::new(of_script(|settings| settings.address = after.clone()));
        let resumable = kept.into_iter().map(|kept| Resumable { kept, settings: Arc::clone(&settings) }).collect();
        let mut now = slice([10, 0, 0, 1], of_script(|_| {}), routes(3, 0));
        now.peers.get_mut(&PeerName::from("script")).expect("the one peer").settings = settings;
        let past = Past { resumable, ..Past::default() };
        let _bench = Bench::start_after(past, listeners("127.0.0.1").0, now);
        if is_same {
            hears_nothing(&mut script).await;
        } else {
            assert!(matches!(script.hear().await, Some(Parsed::Notification(_))), "{before:?} {after:?}");
        }
    }
}

/// Input: the address of the session leaves the host while no agent runs, as when the network is configured anew together
/// with a restart. Output: the session ends as if the agent had seen it leave; before it knows all links, it goes on.
#[tokio::test]
async fn a_session_from_an_address_that_left_while_nobody_ran_ends() {
    let (bench, address) = against_a_script(routes(3, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(3, 0)).await;
    let kept = keep(bench).await;
    let mut bench = next(kept, of_script(|_| {}), None);
    bench.report("it goes on", |it| it.state == SessionState::Established).await;
    let mut slice = slice([10, 0, 0, 1], of_script(|_| {}), routes(3, 0));
    slice.local_addresses = on_lo(&["127.0.0.2/8"]);
    bench.slices.send_replace(slice);
    let lost = bench.report("it is over", |it| it.state != SessionState::Established).await;
    assert_eq!(
        lost.last_error.as_deref(),
        Some("connection closed: 127.0.0.1 is not an address of this host any more")
    );
}

#[tokio::test]
async fn a_hold_time_that_ran_out_while_nobody_ran_counts_only_if_the_peer_was_silent() {
    for silent in [false, true] {
        let (bench, address) = against_a_script(routes(3, 0), |_| {});
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let mut kept = keep(bench).await;
        kept[0].state.since_boot -= Duration::from_secs(91);
        if !silent {
            script.say(&Message::Keepalive).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _bench = next(kept, of_script(|_| {}), Some(routes(3, 0)));
        match (silent, script.hear().await) {
            (true, Some(Parsed::Notification(word))) => {
                assert_eq!(word.reason, NotificationReason::HoldTimerExpired);
            }
            // It was due long ago.
            (false, Some(Parsed::Keepalive)) => hears_nothing(&mut script).await,
            (_, other) => panic!("silent: {silent}; the peer heard {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_connection_of_the_session_is_not_taken_for_it() {
    let (bench, address) = against_a_script(routes(3, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    established(&mut script, &routes(3, 0)).await;
    let KeptConnection { state, socket, .. } = keep(bench).await.remove(0);
    let text = state.emit().expect("it can be written");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stranger = std::net::TcpStream::connect(listener.local_addr().unwrap()).expect("it listens");
    let refused = KeptConnection::open(&text, stranger.into()).expect_err("another connection");
    assert!(refused.to_string().contains("the session that was written down is between"), "{refused}");
    let refused = KeptConnection::open(&text, listener.into()).expect_err("a listening socket");
    assert!(refused.to_string().contains("its connection has ended meanwhile"), "{refused}");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let refused = KeptConnection::open(&text, datagrams.into()).expect_err("no TCP");
    assert!(refused.to_string().contains("is no TCP socket"), "{refused}");
    drop(socket);
    assert!(script.hear().await.is_none(), "the connection has ended");
}

/// Input: what was written down of a session names a prefix twice, which shows only when its peer's task begins; graceful restart was agreed,
/// and BFD with the peer stood and does not go on, or there was none. Output: that the routes are kept is said only of the latter.
#[tokio::test]
async fn that_routes_are_kept_is_claimed_of_no_session_whose_bfd_has_ended() {
    for bfd_ended in [false, true] {
        let (bench, address) = against_a_script(routes(3, 0), |_| {});
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let mut kept = keep(bench).await;
        kept[0].bfd_ended = bfd_ended;
        kept[0].state.negotiated.graceful_restart = true;
        let twice = kept[0].state.sent.routes[0].clone();
        kept[0].state.sent.routes.push(twice);
        let mut bench = next(kept, of_script(|_| {}), None);
        let report = bench.report("it says what became of it", |it| it.detail.former.is_some()).await;
        let told = report.detail.former.expect("it is there").to_string();
        let expected = match bfd_ended {
            true => "routes withdrawn until the new session, unless the router keeps them when BFD goes down",
            false => "routes kept by graceful restart",
        };
        assert!(told.ends_with(expected), "{told}");
    }
}

/// Input: a further session by the default route goes on in the next speaker, and the plan lacks it: before it knew of the
/// session, and after; or its peer was shut down meanwhile. Output: it waits for a plan that knew, and then ends at once: nobody sees a
/// session that no plan has, and what it announced would stay.
#[tokio::test]
async fn a_further_session_ends_with_the_first_plan_that_knew_of_it_and_lacks_it() {
    for shut in [false, true] {
        let (bench, address) = against_a_script(routes(3, 0), |_| {});
        let mut script = Script::dial(address, None).await;
        established(&mut script, &routes(3, 0)).await;
        let mut kept = keep(bench).await;
        let further = of_script(|settings| {
            settings.name = "tor@127.0.0.9".into();
            settings.address = PeerAddress::Gateway;
        });
        kept[0].state.peer = further.name.clone();
        kept[0].state.settings =
            config::session_keys(&further).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let resumable = vec![Resumable { kept: kept.remove(0), settings: Arc::new(further.clone()) }];
        let mut plan = slice([10, 0, 0, 1], of_script(|settings| settings.name = "tor".into()), Routes::new());
        let own = plan.peers.get_mut(&PeerName::from("tor")).expect("the one peer");
        own.settings = Arc::new(config::Peer { address: PeerAddress::Gateway, ..config::Peer::clone(&own.settings) });
        own.address = Err(if shut { Reason::PeerShutDown } else { Reason::NoDefaultRoute });
        let past = Past { resumable, ..Past::default() };
        let mut bench = Bench::start_after(past, listeners("127.0.0.1").0, plan);
        if !shut {
            bench.report("it goes on", |it| it.state == SessionState::Established).await;
            hears_nothing(&mut script).await;
            let weighed = Arc::new([further.name].into());
            bench.slices.send_modify(|slice| slice.weighed = weighed);
        }
        let expected = match shut {
            true => Notification::administrative_shutdown(&Reason::PeerShutDown.to_string()),
            false => NotificationReason::Cease(Cease::PeerDeconfigured).into(),
        };
        assert_eq!(script.hear().await, Some(Parsed::Notification(expected)), "shut: {shut}");
    }
}
