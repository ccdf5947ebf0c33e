//! A loop that hangs: systemd hears no sign of life any more, and after a while the other nodes hear none either, although the
//! other threads of the agent go on.

use std::net::Ipv4Addr;

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::{Need, Rack, eventually, eventually_equal, millis, rest, secs, throughout};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// How often it told the service manager that it lives.
fn signs_of_life(agent: &Crier) -> usize {
    agent.notices().iter().filter(|notice| notice.lines().any(|line| line == "WATCHDOG=1")).count()
}

#[track_caller]
fn tells_that_it_lives(agent: &Crier) {
    let before = signs_of_life(agent);
    eventually(&format!("{} tells that it lives", agent.node()), secs(10), || match signs_of_life(agent) {
        now if now >= before + 3 => Ok(()),
        now => Err(format!("{now} signs, {before} before")),
    });
}

#[test]
fn an_agent_whose_loop_hangs_gives_no_sign_of_life_although_its_other_threads_answer_and_speak() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    // systemd would end it after three seconds without a sign.
    let watched = |node: usize| {
        let node = lan.site.node(node);
        node.crier_with(node.name(), &lan.configuration(), |command| {
            command.env("WATCHDOG_USEC", "3000000");
        })
    };
    let agents = [watched(0), watched(1)];
    for agent in &agents {
        agent.wait_ready(secs(30));
        eventually_equal("the agents hear each other", secs(30), &1, || lan::members(agent).len());
        tells_that_it_lives(agent);
    }
    let owner = lan.owner(ADDRESS);
    let (hung, other) = (&agents[owner], &agents[1 - owner]);

    let hang = hung.process().hang_main_thread();
    // What it had said by then has come.
    rest(millis(300));
    let before = signs_of_life(hung);
    throughout("the link is answered and the pulses are heard", secs(4), || {
        match (lan.answering(ADDRESS).as_slice(), lan::members(other).as_slice()) {
            ([answers], [heard]) if answers == hung.node() && heard == hung.node() => Ok(()),
            (answers, heard) => Err(format!("{answers:?} answer, {heard:?} are heard")),
        }
    });
    assert_eq!(signs_of_life(hung), before, "longer than systemd waits");
    other.process().wait_for_log("node fell silent", secs(15));
    assert_eq!(lan::members(other), Vec::<String>::new(), "pulses do not speak for a loop that hangs");
    assert_eq!(signs_of_life(hung), before);
    tells_that_it_lives(other);

    drop(hang);
    tells_that_it_lives(hung);
    eventually_equal("it is heard again", secs(10), &vec![hung.node().to_owned()], || lan::members(other));
    lan.answered_by(ADDRESS, &[hung.node()]);
}
