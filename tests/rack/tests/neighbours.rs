//! The neighbours' view of an announced address, with others as judges: a Linux client's neighbour table, `arping`,
//! `ndisc6`, and what a host does that would like the address for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use rack::capture::Capture;
use rack::lan::Lan;
use rack::ndp::{Advertisement, Solicitation};
use rack::packet::{ArpOperation, Frames, Mac, PacketSocket};
use rack::{Deadline, Host, Need, Rack, eventually, millis, now, secs, throughout};

const V4: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x100);
const BOTH: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];
/// Of the pool, and nobody's.
const FREE: &str = "192.168.35.105";
const FREE6: &str = "fd35::105";
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The state of a host's neighbour entry: `REACHABLE`, `STALE`, …
fn state(host: &Host, address: IpAddr) -> String {
    let table = host.ip_json(&format!("neighbour show {address} dev eth0"));
    table[0]["state"][0].as_str().unwrap_or("none").to_owned()
}

/// How often the host itself asked on its link who has one of the two addresses.
fn questions(capture: &Capture, from: Mac) -> usize {
    let frames = capture.frames();
    let v4 = capture
        .arps()
        .iter()
        .filter(|(_, arp)| arp.frame_from == from && arp.operation == ArpOperation::Request && arp.target == V4)
        .count();
    let asks = |frame: &&rack::capture::Frame| {
        frame.bytes.get(6..12) == Some(&from.0) && Solicitation::target_of(&frame.bytes) == Some(V6)
    };
    v4 + frames.iter().filter(asks).count()
}

fn advertisements(capture: &Capture) -> Vec<Advertisement> {
    capture.frames().iter().filter_map(|frame| Advertisement::read(&frame.bytes)).filter(|it| it.target == V6).collect()
}

/// Waits until `mac` has announced both addresses unasked in every form there is.
fn announced_in_all_forms(capture: &Capture, mac: Mac) {
    eventually(&format!("{mac} announces both addresses"), secs(10), || {
        let arps = capture.arps();
        let gratuitous = |operation| {
            arps.iter().any(|(_, arp)| {
                (arp.sender, arp.sender_mac, arp.frame_from, arp.frame_to) == (V4, mac, mac, Mac::BROADCAST)
                    && arp.is_gratuitous()
                    && arp.operation == operation
            })
        };
        let unsolicited =
            advertisements(capture).into_iter().find(|it| it.frame_from == mac && it.destination == ALL_NODES);
        match (gratuitous(ArpOperation::Request), gratuitous(ArpOperation::Reply), unsolicited) {
            (true, true, Some(advertisement)) => {
                // RFC 4861 §7.1.2 drops it otherwise; §7.2.6 asks for the flags.
                assert_eq!(advertisement.hop_limit, 255, "{advertisement:?}");
                assert_eq!((advertisement.solicited, advertisement.overrides), (false, true), "{advertisement:?}");
                assert_eq!(advertisement.target_mac, Some(mac), "{advertisement:?}");
                assert!(advertisement.is_sound, "{advertisement:?}");
                assert_eq!(advertisement.frame_to, Mac([0x33, 0x33, 0, 0, 0, 1]));
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_clients_table_follows_the_owner_through_a_kill_and_a_hand_over_without_asking() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 3);
    lan.service("web", "192.168.35.100,fd35::100");
    let mut agents = lan.agents();
    let client = &lan.site.client;

    let mut owner = lan.owner(V4);
    for address in BOTH {
        eventually("the client finds it", secs(10), || {
            client.poke(address);
            if client.neighbors().contains_key(&address) { Ok(()) } else { Err("no entry") }
        });
        lan.known_as(client, address, lan.site.node(owner).port.mac());
    }
    for blow in ["killed", "stopped"] {
        let capture = client.port.capture();
        let place = agents.iter().position(|agent| agent.node() == lan.site.node(owner).name()).expect("it runs");
        let agent = agents.remove(place);
        if blow == "killed" {
            agent.kill();
        } else {
            agent.stop(secs(10));
        }
        let next = eventually("the table has another owner", secs(20), || {
            let known = client.neighbors().get(&BOTH[0]).copied();
            let node = lan.site.nodes.iter().position(|node| Some(node.port.mac()) == known);
            node.filter(|node| *node != owner).ok_or_else(|| format!("{known:?} after one was {blow}"))
        });
        let mac = lan.site.node(next).port.mac();
        lan.known_as(client, BOTH[1], mac);
        announced_in_all_forms(&capture, mac);
        assert_eq!(questions(&capture, client.port.mac()), 0, "the client asked after one was {blow}");
        assert_eq!(lan.owner(V4), next);
        owner = next;
    }
}

/// Runs a tool on the client; what it printed and whether it ended well.
fn tool(client: &Host, line: &str) -> (String, bool) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command"));
    let output = client.output(command.args(words));
    let printed = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&printed).to_lowercase(), output.status.success())
}

#[test]
fn arping_and_ndisc6_find_the_owner_of_an_address_and_nobody_where_there_is_none() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Arping, Need::Ndisc6]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100,fd35::100");
    let _agents = lan.agents();
    let client = &lan.site.client;
    let mac = lan.site.node(lan.owner(V4)).port.mac().to_string();
    let other = lan.site.node(1 - lan.owner(V4)).port.mac().to_string();

    // Broadcast and then, since an answer has come, unicast.
    let (said, found) = tool(client, &format!("arping -I eth0 -c 3 -w 5 {V4}"));
    assert!(found && said.contains(&mac) && !said.contains(&other), "{said}");
    // Broadcast only.
    let (said, found) = tool(client, &format!("arping -b -I eth0 -c 2 -w 5 {V4}"));
    assert!(found && said.contains(&mac) && !said.contains(&other), "{said}");
    // RFC 5227 §2.1.1: a probe has no sender address, and -D succeeds where nobody answers it.
    let (said, is_free) = tool(client, &format!("arping -D -I eth0 -c 2 -w 3 {V4}"));
    assert!(!is_free && said.contains(&mac), "{said}");
    let (said, is_free) = tool(client, &format!("arping -D -I eth0 -c 1 -w 1 {FREE}"));
    assert!(is_free, "somebody answers for an address that nobody owns: {said}");
    let (said, found) = tool(client, &format!("arping -I eth0 -c 1 -w 1 {FREE}"));
    assert!(!found, "somebody answers for an address that nobody owns: {said}");

    let (said, found) = tool(client, &format!("ndisc6 -n -m -r 2 -w 500 {V6} eth0"));
    assert!(found && said.contains(&mac) && !said.contains(&other), "{said}");
    let (said, found) = tool(client, &format!("ndisc6 -n -m -r 1 -w 500 {FREE6} eth0"));
    assert!(!found, "somebody answers for an address that nobody owns: {said}");
}

/// The first advertisement of the owned address that answers a solicitation made by hand.
fn advertised(client: &Host, asked: Solicitation) -> Advertisement {
    client.run(|| {
        let socket = PacketSocket::open("eth0", Frames::All, millis(20)).expect("the client can listen");
        let deadline = Deadline::after(secs(10));
        let mut buffer = [0; 2048];
        let mut again = now();
        while !deadline.has_passed() {
            if now() >= again {
                socket.send(&asked.frame()).expect("the link is up");
                again = now() + millis(300);
            }
            let Ok(Some((_, frame))) = socket.receive(&mut buffer) else { continue };
            // The periodic and the gratuitous ones go to all nodes, as the answer to a probe does.
            let answer = Advertisement::read(frame).filter(|it| it.target == asked.target);
            if let Some(answer) = answer.filter(|it| it.solicited || asked.source.is_unspecified()) {
                return answer;
            }
        }
        panic!("nobody answered {asked:?}")
    })
}

#[test]
fn solicitations_of_every_form_are_answered_with_the_flags_of_the_rfc() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    lan.service("web", "192.168.35.100,fd35::100");
    let _agents = lan.agents();
    let owner = lan.site.node(lan.owner(V4)).port.mac();
    let client = &lan.site.client;
    let from =
        Solicitation { frame_from: client.port.mac(), source: client.address6, target: V6, to: None, tells_mac: true };
    let forms = [
        ("to the group", from),
        ("to the group without the sender's MAC", Solicitation { tells_mac: false, ..from }),
        ("to the owner", Solicitation { to: Some(owner), ..from }),
        ("to the owner without the sender's MAC", Solicitation { to: Some(owner), tells_mac: false, ..from }),
    ];
    for (form, asked) in forms {
        let answer = advertised(client, asked);
        assert_eq!(answer.destination, client.address6, "asked {form}: {answer:?}");
        assert_eq!(answer.frame_to, client.port.mac(), "asked {form}: {answer:?}");
        assert_eq!(
            (answer.solicited, answer.overrides, answer.router),
            (true, true, false),
            "asked {form}: {answer:?}"
        );
        assert_eq!((answer.target_mac, answer.frame_from), (Some(owner), owner), "asked {form}: {answer:?}");
        assert_eq!((answer.hop_limit, answer.is_sound), (255, true), "asked {form}: {answer:?}");
    }
    // RFC 4861 §7.2.4: a probe is answered to all nodes, and not as solicited.
    let probe = Solicitation { source: Ipv6Addr::UNSPECIFIED, tells_mac: false, ..from };
    let answer = advertised(client, probe);
    assert_eq!((answer.destination, answer.solicited, answer.overrides), (ALL_NODES, false, true), "{answer:?}");
    assert_eq!((answer.target_mac, answer.hop_limit, answer.is_sound), (Some(owner), 255, true), "{answer:?}");
}

#[test]
fn an_entry_that_has_grown_old_is_confirmed_by_the_owner_when_the_client_asks_it_alone() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100,fd35::100");
    let _agents = lan.agents();
    let client = &lan.site.client;
    let mac = lan.site.node(lan.owner(V4)).port.mac();
    for family in ["ipv4", "ipv6"] {
        client.sysctl(&format!("net/{family}/neigh/eth0/delay_first_probe_time"), "1");
    }
    let capture = client.port.capture();
    for address in BOTH {
        client.ip(&format!("neighbour replace {address} lladdr {mac} nud probe dev eth0"));
    }
    for address in BOTH {
        eventually(&format!("{address} is reachable by a probe"), secs(10), || match state(client, address).as_str() {
            "REACHABLE" => Ok(()),
            other => Err(other.to_owned()),
        });
        client.ip(&format!("neighbour replace {address} lladdr {mac} nud stale dev eth0"));
        assert_eq!(state(client, address), "STALE", "nothing has been sent to it yet");
    }
    for address in BOTH {
        eventually(&format!("{address} is reachable again by traffic"), secs(20), || {
            client.poke(address);
            match state(client, address).as_str() {
                "REACHABLE" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        assert_eq!(client.neighbors().get(&address), Some(&mac));
    }
    let asked: Vec<Mac> = capture
        .arps()
        .iter()
        .filter(|(_, arp)| arp.frame_from == client.port.mac() && arp.target == V4)
        .map(|(_, arp)| arp.frame_to)
        .collect();
    assert!(asked.iter().all(|to| *to == mac) && !asked.is_empty(), "the probes went to the owner alone: {asked:?}");
}

#[test]
fn a_host_that_configures_an_owned_ipv6_address_finds_it_taken() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100,fd35::100");
    let _agents = lan.agents();
    let owner = lan.owner(V4);
    let intruder = lan.site.host("intruder", 77);
    intruder.sysctl("net/ipv6/conf/all/accept_dad", "1");
    intruder.sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    intruder.ip(&format!("address add {V6}/64 dev eth0"));
    intruder.ip(&format!("address add {FREE6}/64 dev eth0"));
    let flags = |wanted: &str| {
        let links = intruder.ip_json("-6 address show dev eth0");
        let all = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|it| it["local"] == wanted).unwrap_or_default()
    };
    eventually("its kernel finds the address in use", secs(20), || {
        let shown = flags(&V6.to_string());
        if shown["dadfailed"] == true { Ok(()) } else { Err(shown.to_string()) }
    });
    eventually("and may have one that nobody owns", secs(20), || {
        let shown = flags(FREE6);
        if shown["tentative"] != true && shown["dadfailed"] != true { Ok(()) } else { Err(shown.to_string()) }
    });
    throughout("the owner stays", secs(1), || {
        let seen = lan.answering(V4);
        if seen == [lan.site.node(owner).name()] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}
