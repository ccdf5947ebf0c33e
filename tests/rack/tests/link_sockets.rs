//! What the host refuses an agent: the sockets that it answers on the link by, and the addresses that it is to bind. It says so, and owns
//! nothing that it could not answer for.

use std::collections::BTreeMap;
use std::process::Command;

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::{Need, Rack, eventually, eventually_equal, secs, throughout};

/// In front of the agent's command goes another one.
fn under(words: &[&str]) -> impl FnOnce(&mut Command) {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    move |command: &mut Command| {
        let mut wrapped = Command::new(&words[0]);
        wrapped.args(&words[1..]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        *command = wrapped;
    }
}

fn says(agent: &Crier, text: &str) -> Result<(), String> {
    let problems = lan::problems(agent);
    if problems.contains(text) { Ok(()) } else { Err(problems) }
}

/// Input: an agent without CAP_NET_RAW beside a sound one, for addresses of which it is first for some; then it has the
/// capability. Output: the sound one answers for all and nothing moves; the other one says why it answers for nothing, and has its
/// addresses once it can.
#[test]
fn an_agent_that_may_open_no_packet_socket_owns_nothing_and_says_so() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 2);
    let addresses = lan.services(6);
    let file = lan.configuration();
    let lame = lan.site.node(1).crier_with("node-2", &file, under(&["setpriv", "--bounding-set", "-net_raw"]));
    let sound = lan.agent(0);
    for agent in [&sound, &lame] {
        agent.wait_ready(secs(30));
    }
    eventually("it says why", secs(10), || says(&lame, "no socket for ARP and NDP can be opened"));
    eventually_equal("each hears the other", secs(10), &[1, 1], || [&sound, &lame].map(|it| lan::members(it).len()));
    let all_here: BTreeMap<_, _> = addresses.iter().map(|it| (*it, "node-1".to_owned())).collect();
    eventually_equal("the sound one answers for all", secs(10), &all_here, || lan.owners(&addresses, secs(3)));
    lan.owners_stay("and nothing moves", &all_here, secs(12));
    let status = lame.status();
    assert_eq!(status["links"][0]["answers_for"], serde_json::json!([]), "{status:#}");
    assert!(!status["services"].to_string().contains("answered here"), "{status:#}");
    let rows = lame.json("l2")["addresses"].as_array().cloned().unwrap_or_default();
    let owners: Vec<_> = rows.iter().map(|row| row["owner"].as_str().unwrap_or("nobody").to_owned()).collect();
    assert_eq!(owners, ["node-1"; 6], "the pulses of node-1 say so");
    assert!(!lame.verb("doctor").status.success(), "doctor names it");
    drop(lame);
    let healed = lan.agent(1);
    healed.wait_ready(secs(30));
    eventually("it has its addresses", secs(15), || {
        let owners = lan.owners(&addresses, secs(3));
        if owners.values().any(|owner| owner == "node-2") { Ok(()) } else { Err(format!("{owners:?}")) }
    });
    assert_eq!(lan::problems(&healed), "");
}

/// Input: a pool that binds its addresses to an interface that is not there, which is made later. Output: `status` names it
/// until it is there.
#[test]
fn an_address_that_cannot_be_bound_is_told_until_it_is() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    lan.services(1);
    let file = lan.configuration().replace("name = \"lan\"\n", "name = \"lan\"\nbind = \"svc0\"\n");
    let agent = lan.agent_with(0, &file);
    agent.wait_ready(secs(30));
    eventually("it is told", secs(10), || says(&agent, "cannot be bound to svc0"));
    throughout("and goes on being", secs(1), || says(&agent, "there is no such interface"));
    lan.site.node(0).ip("link add svc0 type bridge");
    eventually_equal("nothing is wrong any more", secs(10), &String::new(), || lan::problems(&agent));
}
