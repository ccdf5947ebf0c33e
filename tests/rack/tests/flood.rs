//! A flood of ARP requests, for an address that is owned and for others, while the owner has all its other work to do.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::packet::{Arp, ArpOperation, Frames, Mac, PacketSocket};
use rack::{Deadline, Host, Need, Rack, eventually, eventually_equal, millis, now, rest, secs};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const NEXT: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);

/// Requests in a second; half of them for the owned address.
const RATE: u32 = 200_000;
/// Frames in one call.
const BATCH: usize = 64;

/// Asks at `RATE` until `stop`, or as fast as the machine can; how many frames the kernel took. One in four goes to
/// everybody, which takes the switch several times the work, and the others to the owner alone.
fn flood(host: &Host, owner: Mac, stop: &AtomicBool) -> usize {
    let socket = PacketSocket::open("eth0", Frames::Arp, millis(1)).expect("the host can send");
    socket.bypass_queue().expect("the kernel can");
    let question = |frame_to, target| Arp {
        frame_from: host.port.mac(),
        frame_to,
        operation: ArpOperation::Request,
        sender_mac: host.port.mac(),
        sender: host.address,
        target_mac: Mac([0; 6]),
        target,
    };
    // Others of the pool, of the subnet, and of nowhere.
    let others = [[192, 168, 35, 109], [192, 168, 35, 200], [10, 9, 8, 7]].map(Ipv4Addr::from);
    let frames: Vec<Vec<u8>> = (0..BATCH)
        .map(|place| {
            let to = if place / 2 % 4 == 0 { Mac::BROADCAST } else { owner };
            let target = if place % 2 == 0 { ADDRESS } else { others[place / 2 % others.len()] };
            question(to, target).frame()
        })
        .collect();
    let (start, mut sent) = (now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
        if (sent as u128) < due {
            sent += socket.send_many(&frames).expect("the link is up");
        } else {
            rest(millis(1));
        }
    }
    sent
}

/// Reads the answers until `stop`; how many were right, and the first that was not.
fn judge(owner: Mac, asker: Mac, stop: &AtomicBool) -> (usize, Option<Arp>) {
    let socket = PacketSocket::open("eth0", Frames::Arp, millis(10)).expect("the host can listen");
    let mut buffer = [0; 2048];
    let mut right = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(Some((_, frame))) = socket.receive(&mut buffer) else { continue };
        let Some(arp) = Arp::read(frame).filter(|arp| arp.frame_to == asker && arp.operation == ArpOperation::Reply)
        else {
            continue;
        };
        if (arp.sender, arp.sender_mac, arp.frame_from, arp.target_mac) == (ADDRESS, owner, owner, asker) {
            right += 1;
        } else {
            return (right, Some(arp));
        }
    }
    (right, None)
}

#[test]
fn a_flood_of_questions_is_answered_rightly_and_keeps_the_owner_from_none_of_its_other_work() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    let bird = lan.site.router.bird(
        "router id 192.168.35.1; protocol device {}
         protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; hold time 9; ipv4 { import all; export none; }; }
         protocol bgp node2 { local as 64512; neighbor 192.168.35.12 as 64513; hold time 9; ipv4 { import all; export none; }; }",
    );
    let configuration = format!(
        "{}[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nhold-time = \"9s\"\n\
         keepalive-time = \"3s\"\n[[bgp.advertisement]]\npools = [\"lan\"]\n",
        lan.configuration()
    );
    let agents = [lan.agent_with(0, &configuration), lan.agent_with(1, &configuration)];
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    for session in ["node1", "node2"] {
        bird.wait_established(session, secs(30));
    }
    for agent in &agents {
        eventually_equal("the agents hear each other", secs(30), &1, || lan::members(agent).len());
    }
    let owner = lan.owner(ADDRESS);
    let mac = lan.site.node(owner).port.mac();
    let established = |session: &str| {
        let session = bird.session(session);
        (session.is_established(), session.times_established)
    };
    let before = (["node1", "node2"].map(established), moves(&agents));

    let asker = lan.site.host("asker", 77);
    let began = now();
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let (right, wrong) = std::thread::scope(|scope| {
        // However the work below ends, the flood ends with it.
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = StopOnDrop(&stop);
        scope.spawn(|| asker.run(|| asked.store(flood(&asker, mac, &stop), Ordering::Relaxed)));
        let judge = scope.spawn(|| asker.run(|| judge(mac, asker.port.mac(), &stop)));
        let least = Deadline::after(secs(3));

        // Another Service is given an address, answered for and announced.
        lan.service("next", "192.168.35.101");
        let next = lan.owner(NEXT);
        eventually("the router hears of it", secs(20), || {
            let routes = bird.routes().remove("192.168.35.101/32").unwrap_or_default();
            if routes.is_empty() { Err("no route") } else { Ok(()) }
        });
        for agent in &agents {
            eventually(&format!("{} answers its operator", agent.node()), secs(10), || agent.try_json("status"));
        }
        while !least.has_passed() {
            let status = agents[owner].status();
            let announced = status["links"][0]["answers_for"].to_string();
            assert!(announced.contains("192.168.35.100"), "the owner gave it up: {announced}");
        }
        lan.answered_by(NEXT, &[agents[next].node()]);
        lan.answered_by(ADDRESS, &[agents[owner].node()]);
        drop(stopping);
        judge.join().expect("the judge does not panic")
    });
    let asked = asked.into_inner();
    println!("{asked} asked in {:?}, {right} answers seen and right", began.elapsed());
    assert_eq!(wrong, None, "a wrong answer after {right} right ones");
    assert!(right > 0 && asked > BATCH, "{right} answers to {asked} questions");
    lan.answered_by(ADDRESS, &[agents[owner].node()]);
    let after = (["node1", "node2"].map(established), moves(&agents));
    assert_eq!(after, before, "the sessions stayed up, and the address where it was");
}

/// How often the agents have said that the address has an owner, or another one.
fn moves(agents: &[Crier]) -> usize {
    let is_it = |line: &&str| line.contains("answers on the link") && line.contains("192.168.35.100");
    agents.iter().map(|agent| agent.process().log().lines().filter(is_it).count()).sum()
}
