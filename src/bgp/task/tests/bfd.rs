//! What the speaker makes of BFD: a path that is lost ends the session that stood at that time, and nothing else does.

use std::time::SystemTime;

use super::*;
use crate::bfd_state::{BfdState, Diagnostic};
use crate::world::{BfdLoss, BfdReport};

fn says(bench: &Bench, state: BfdState, losses: u64) {
    says_of(bench, state, losses, false);
}

fn says_of(bench: &Bench, state: BfdState, losses: u64, is_of_agent_before: bool) {
    let loss = BfdLoss { at: clock::wall_timestamp(), why: "nothing came for 150 ms".to_owned(), is_of_agent_before };
    let report = BfdReport {
        state,
        since: SystemTime::UNIX_EPOCH,
        address: ScopedAddress { ip: "127.0.0.9".parse().unwrap(), interface: None },
        local_address: None,
        interface: None,
        multihop: false,
        diagnostic: Diagnostic::None,
        remote_diagnostic: Diagnostic::None,
        remote_state: Some(state),
        held_by_peer: false,
        discriminator: 1,
        remote_discriminator: Some(2),
        remote_multiplier: Some(3),
        detection_time_micros: Some(150_000),
        receive_interval_micros: Some(50_000),
        transmit_interval_micros: Some(50_000),
        remote_demand: false,
        authenticated: false,
        times_up: losses + 1,
        losses,
        last_loss: (losses > 0).then_some(loss),
        problem: None,
    };
    bench.bfd.send_modify(|sessions| drop(sessions.insert("script".into(), Arc::new(report))));
}

/// The NOTIFICATION that ends a session, in words.
async fn last_word(script: &mut Script) -> String {
    loop {
        match script.hear().await {
            Some(Parsed::Notification(notification)) => return notification.to_string(),
            Some(Parsed::Update(_) | Parsed::Keepalive) => {}
            other => panic!("a NOTIFICATION, not {other:?}"),
        }
    }
}

/// A peer of a session with `bfd-strict`, once BFD is up.
async fn admitted(address: SocketAddr) -> Script {
    // The speaker looks at connections and at BFD in any order.
    let mut script = loop {
        let mut script = Script::dial(address, None).await;
        match script.hear().await {
            Some(Parsed::Open(_)) => break script,
            None => tokio::task::yield_now().await,
            other => panic!("an OPEN or the end, not {other:?}"),
        }
    };
    script.say(&Script::open(65009, 90, &[])).await;
    script.say(&Message::Keepalive).await;
    script
}

#[tokio::test]
async fn a_path_that_is_lost_ends_the_session_with_cease_bfd_down_and_the_next_one_stays() {
    let (mut bench, address) = against_a_script(routes(1, 0), |_| {});
    says(&bench, BfdState::Up, 0);
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    says(&bench, BfdState::Down, 1);
    assert_eq!(last_word(&mut script).await, "Cease, BFD Down (6/10)");
    let ended = bench.report("has ended", |report| report.state != SessionState::Established).await;
    let why = "NOTIFICATION sent: Cease, BFD Down (6/10): BFD: nothing came for 150 ms";
    assert_eq!(ended.last_error.as_deref(), Some(why));
    // X23: the loss was of the session before, and BFD is still down.
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    says(&bench, BfdState::Init, 1);
    says(&bench, BfdState::Up, 1);
    bench.report("stays", |report| report.prefixes_sent == 1 && report.detail.times_established == 2).await;
    bench.stop("the test ends").await;
    assert_eq!(last_word(&mut script).await.split('(').next(), Some("Cease, Administrative Shutdown "));
}

#[tokio::test]
async fn a_session_that_an_operator_holds_down_and_one_that_is_gone_end_nothing() {
    let (mut bench, address) = against_a_script(routes(1, 0), |_| {});
    says(&bench, BfdState::Up, 3);
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    says(&bench, BfdState::Down, 3);
    bench.bfd.send_replace(BfdSessions::new());
    change_routes(&bench, routes(2, 0));
    bench.report("goes on", |report| report.prefixes_sent == 2 && report.detail.times_established == 1).await;
    bench.stop("the test ends").await;
    assert_eq!(last_word(&mut script).await.split('(').next(), Some("Cease, Administrative Shutdown "));
}

/// Input: BFD is down, and an operator resets the peer, or the router ends the session. Output: the reason shown is what
/// is waited for, and not the reset for as long as that takes.
#[tokio::test]
async fn with_bfd_strict_a_peer_that_is_held_after_a_reset_says_that_it_waits_for_bfd() {
    let (mut bench, address) = against_a_script(routes(1, 0), |settings| settings.bfd_strict = true);
    says(&bench, BfdState::Up, 0);
    let mut script = admitted(address).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    says(&bench, BfdState::Down, 0);
    bench.slices.send_modify(|slice| {
        let name = PeerName::from("script");
        let mut peer = slice.peers.get(&name).expect("the one peer").clone();
        peer.orders.resets += 1;
        slice.peers.insert(name, peer);
    });
    assert!(last_word(&mut script).await.contains("Administrative Reset"));
    let mut last = None;
    while let Ok(Some(fact)) = tokio::time::timeout(Duration::from_millis(500), bench.facts.recv()).await {
        last = Some(fact);
    }
    let Some(Fact::Session(_, report)) = last else { panic!("a report, not {last:?}") };
    assert_eq!(report.last_error.as_deref(), Some("waiting for BFD, which is down (bfd-strict)"));
    bench.stop("the test ends").await;
}

#[tokio::test]
async fn with_bfd_strict_a_peer_whose_session_the_router_ends_says_that_it_waits_for_bfd() {
    let (mut bench, address) = against_a_script(routes(1, 0), |settings| settings.bfd_strict = true);
    says(&bench, BfdState::Up, 0);
    let mut script = admitted(address).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    says(&bench, BfdState::Down, 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
    script.say(&Message::Notification(NotificationReason::Cease(Cease::AdministrativeReset).into())).await;
    let waits = "waiting for BFD, which is down (bfd-strict)";
    bench.report("it waits", |report| report.last_error.as_deref().is_some_and(|it| it.starts_with(waits))).await;
    bench.stop("the test ends").await;
}

#[tokio::test]
async fn with_bfd_strict_a_connection_is_closed_until_bfd_is_up() {
    let (mut bench, address) = against_a_script(routes(1, 0), |settings| settings.bfd_strict = true);
    let waits = "waiting for BFD, which is down (bfd-strict)";
    bench.report("waits", |report| report.last_error.as_deref() == Some(waits)).await;
    let mut early = Script::dial(address, None).await;
    assert_eq!(early.hear().await, None, "closed without a word");
    says(&bench, BfdState::Up, 0);
    let _script = admitted(address).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    bench.stop("the test ends").await;
}

/// Input: a session that this agent has established; BFD's session of the previous agent loses the path without having
/// heard the peer, and then one that has heard it does, however short before. Output: the session goes on the first time: the peer was started
/// anew, and its BFD with it; and ends the second time.
#[tokio::test]
async fn a_path_that_only_the_agent_before_has_had_ends_nothing() {
    let (mut bench, address) = against_a_script(routes(1, 0), |_| {});
    says(&bench, BfdState::Up, 0);
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    bench.report("is established", |report| report.state == SessionState::Established).await;
    says_of(&bench, BfdState::Down, 1, true);
    says(&bench, BfdState::Up, 0);
    change_routes(&bench, routes(2, 0));
    bench.report("goes on", |report| report.prefixes_sent == 2 && report.detail.times_established == 1).await;
    says(&bench, BfdState::Down, 1);
    assert_eq!(last_word(&mut script).await, "Cease, BFD Down (6/10)");
    bench.stop("the test ends").await;
}
