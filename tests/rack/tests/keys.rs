//! Pulses that must not be believed: of agents with another key, recorded ones played again, and forged ones; and pulses
//! on a network that passes no multicast.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::{Host, Need, Rack, eventually, eventually_equal, millis, rest, secs, throughout};
use socket2::{SockAddr, Socket};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x114);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 254);
const PORT: u16 = 7473;
/// Ethernet, IPv6 and UDP.
const HEADERS: usize = 14 + 40 + 8;

/// The pulses to the IPv6 group that this host sent, as the datagrams' contents: their checksums are the network card's
/// business, so the frames as captured would reach nobody a second time.
fn pulses_of(capture: &Capture, host: &Host) -> Vec<Vec<u8>> {
    let mac = host.port.mac().0;
    let is_it = |frame: &[u8]| {
        frame.get(6..12) == Some(&mac)
            && frame.get(12..14) == Some(&[0x86, 0xdd])
            && frame.get(38..54) == Some(&GROUP.octets())
            && frame.get(56..58) == Some(&PORT.to_be_bytes())
    };
    let frames = capture.frames().into_iter().map(|frame| frame.bytes).filter(|frame| is_it(frame));
    frames.filter_map(|frame| frame.get(HEADERS..).map(<[u8]>::to_vec)).collect()
}

/// A socket of the pulse's port in a host, and where it sends to reach everybody on the link.
fn to_the_group(host: &Host) -> (Socket, SockAddr) {
    host.run(|| {
        let socket = Socket::from(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("the port is free there"));
        // SAFETY: the name is a terminated string.
        let index = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
        socket.set_multicast_if_v6(index).expect("it has eth0");
        socket.set_multicast_hops_v6(255).expect("a hop limit is taken");
        (socket, SocketAddrV6::new(GROUP, PORT, 0, index).into())
    })
}

#[test]
fn agents_with_different_keys_never_own_one_address_both_and_say_why_they_do_not_hear_each_other() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    let other = rack.write("other.key", "fedcba9876543210fedcba9876543210");
    let pulse = format!("key-file = \"{}\"\n", other.display());
    let agents = [lan.agent(0), lan.agent_with(1, &lan.configuration_on("[\"eth0\"]", &pulse))];
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    let owner = lan.owner(ADDRESS);
    throughout("never do both answer", secs(5), || match lan.answering(ADDRESS).len() {
        0 | 1 => Ok(()),
        _ => Err("both answer"),
    });
    for (index, agent) in agents.iter().enumerate() {
        assert_eq!(lan::members(agent), Vec::<String>::new(), "{} believes the other", agent.node());
        eventually(&format!("{} says that the other's pulses carry another key", agent.node()), secs(10), || {
            let problems = lan::problems(agent);
            let source = lan.site.node(1 - index).ip_json("-6 address show dev eth0 scope link");
            let source = source[0]["addr_info"][0]["local"].as_str().unwrap_or_default().to_owned();
            let says = |line: &str| line.contains("another key") && line.contains(&source);
            if problems.lines().any(says) { Ok(()) } else { Err(format!("wanted {source} in: {problems}")) }
        });
    }
    // Each thinks itself alone, so both would own it; the one that does not says who has it.
    let loser = &agents[1 - owner];
    let mac = lan.site.node(owner).port.mac().to_string();
    eventually("the other names who answers", secs(10), || {
        let problems = lan::problems(loser);
        if problems.contains(&mac) { Ok(()) } else { Err(problems) }
    });
    agents[owner].kill();
    lan.answered_by(ADDRESS, &[loser.node()]);
}

/// Sends recorded pulses on a host's link again and again until it is dropped.
struct Replay {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Replay {
    fn of(pulses: Vec<Vec<u8>>, host: &Host) -> Replay {
        let (socket, group) = to_the_group(host);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for pulse in pulses.iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // One that found no room is missing among thousands.
                let _ = socket.send_to(pulse, &group);
                rest(millis(3));
            }
        });
        Replay { stop, thread: Some(thread) }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn pulses_of_a_dead_owner_that_are_played_again_keep_it_alive_for_nobody() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    let recorder = lan.site.host("recorder", 77);
    let capture = recorder.capture("eth0");
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let recorded = eventually("pulses of the owner were recorded", secs(20), || {
        let pulses = pulses_of(&capture, &lan.site.nodes[owner]);
        if pulses.len() >= 30 { Ok(pulses) } else { Err(format!("{} so far", pulses.len())) }
    });
    let [dead, heir] = [owner, 1 - owner].map(|index| agents[index].node());

    agents[owner].kill();
    let replay = Replay::of(recorded, &recorder);
    lan.answered_by(ADDRESS, &[heir]);
    throughout("the dead one stays dead", secs(3), || match lan::members(&agents[1 - owner]) {
        members if members.is_empty() => Ok(()),
        members => Err(format!("{members:?}")),
    });

    // Who starts anew has never heard of the dead one, and the recording is all that it hears.
    agents[1 - owner].kill();
    let node = lan.site.node(1 - owner);
    let again = node.crier_with(node.name(), &lan.configuration(), |command| {
        command.args(["--log", "crier::pulse=trace"]);
    });
    again.wait_ready(secs(30));
    let heard = again.process().wait_for_log("pulse received", secs(10));
    assert!(heard.contains(dead), "the recording does arrive: {heard}");
    lan.answered_by(ADDRESS, &[heir]);
    throughout("the recording is not believed after a restart either", secs(3), || {
        let (members, answering) = (lan::members(&again), lan.answering(ADDRESS));
        if members.is_empty() && answering == [heir] {
            Ok(())
        } else {
            Err(format!("{dead}: {members:?}, {answering:?}"))
        }
    });
    // The real one is let in while its old pulses still go round.
    let returned = lan.agent(owner);
    returned.wait_ready(secs(30));
    eventually_equal("the real one is heard", secs(20), &vec![dead.to_owned()], || lan::members(&again));
    lan.answered_by(ADDRESS, &[dead]);
    drop(replay);
}

#[test]
fn forged_pulses_move_nothing_and_are_named_in_the_log() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    let forger = lan.site.host("forger", 77);
    let capture = forger.capture("eth0");
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let genuine = eventually("a pulse of the owner is seen", secs(10), || {
        pulses_of(&capture, &lan.site.nodes[owner]).pop().ok_or("none")
    });
    // It says that it leaves, if its seal were right: its eligibility stands after the numbers.
    let altered = |at: usize| {
        let mut pulse = genuine.clone();
        pulse[at] ^= 1;
        pulse
    };
    let mut junk: Vec<Vec<u8>> = (0..genuine.len()).map(|length| genuine[..length].to_vec()).collect();
    junk.extend((0..genuine.len()).map(altered));
    // Multiplication by an odd number: octets without an order, the same in each run.
    junk.extend(
        (0..200u32)
            .map(|seed| (0..seed * 6).map(|at| ((seed * 7919 + at).wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
    );

    let (socket, group) = to_the_group(&forger);
    for hops in [255, 1] {
        socket.set_multicast_hops_v6(hops).expect("a hop limit is taken");
        for pulse in junk.iter().chain([&genuine]) {
            socket.send_to(pulse, &group).expect("it goes out");
        }
    }

    for agent in &agents {
        for refusal in ["not a pulse", "the authentication code is wrong"] {
            agent.process().wait_for_log(refusal, secs(10));
        }
    }
    throughout("everything stays as it was", secs(2), || {
        let (answering, members) = (lan.answering(ADDRESS), agents.iter().map(lan::members).collect::<Vec<_>>());
        let well = answering == [agents[owner].node()] && members.iter().all(|members| members.len() == 1);
        if well { Ok(()) } else { Err(format!("{answering:?}, {members:?}")) }
    });
    for agent in &agents {
        agent.process().expect_running();
        let log = agent.process().log();
        let dropped = log.lines().filter(|line| line.contains("pulse dropped")).count();
        assert!(dropped < 20, "{dropped} lines in the log of {}", agent.node());
    }
}

fn deaf(host: &Host) {
    host.sh("nft add table inet filter");
    host.sh("nft add chain inet filter in { type filter hook input priority 0 ; }");
    host.sh(&format!("nft add rule inet filter in ip daddr {GROUP_V4} drop"));
    host.sh(&format!("nft add rule inet filter in ip6 daddr {GROUP} drop"));
}

#[test]
fn where_multicast_is_filtered_listed_peers_hear_each_other() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Nft]) else { return };
    let lan = Lan::new(&rack, 3);
    lan.service("web", "192.168.35.100");
    for node in &lan.site.nodes {
        deaf(node);
    }
    // The first two list each other, once over each family; the third lists nobody and is listed by nobody.
    let key = format!("key-file = \"{}\"\n", lan.key.display());
    let listed = lan.configuration_on("[\"eth0\"]", &format!("{key}peers = [\"192.168.35.11\", \"fd35::12\"]\n"));
    let agents: Vec<Crier> = vec![lan.agent_with(0, &listed), lan.agent_with(1, &listed)];
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    for (agent, other) in [(0, "node-2"), (1, "node-1")] {
        eventually_equal("the listed hear each other", secs(20), &vec![other.to_owned()], || {
            lan::members(&agents[agent])
        });
    }
    let owner = lan.owner(ADDRESS);
    let heir = &agents[1 - owner];
    agents[owner].kill();
    lan.answered_by(ADDRESS, &[heir.node()]);

    let third = lan.agent(2);
    third.wait_ready(secs(30));
    throughout("who is not listed is not heard", secs(2), || match (lan::members(heir), lan::members(&third)) {
        (none, nobody) if none.is_empty() && nobody.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
