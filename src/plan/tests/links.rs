//! Addresses on a link that others have too, and links of other subnets, as stories.

use super::pulses::{heard, roster};
use super::*;

fn foreign_host(kind: ConflictKind) -> Option<crate::world::Conflict> {
    let mac = "02:00:00:00:00:99".parse().unwrap();
    Some(crate::world::Conflict { mac, kind, since: std::time::SystemTime::UNIX_EPOCH })
}

#[test]
fn an_ipv6_address_is_answered_for_on_the_link_like_any_other() {
    let mut config = standalone();
    config.pools = vec![pool("lan", &["fd35::100-fd35::1ff"])];
    let mut story = Story::begin(config);
    story.tell(Fact::Node("b".into(), None));
    story.tell(Fact::Node("c".into(), None));
    story.endpoints("web", &["a"]);
    let decision = story.put("web", Service { families: vec![crate::address::Family::V6], ..service() });
    // IPv6 is switched off on the link, so the kernel takes no packet to the address there.
    assert!(matches!(decision.announcements[0].l2.reason, Reason::NoIpv6OnLink { .. }), "{decision:?}");
    assert_eq!(story.answered(), [""; 0]);
    let link = story.planner.world().links.get(&2).cloned().expect("eth0");
    let mut with_v6 = Link::clone(&link);
    // Without a link-local address the kernel asks for no neighbour.
    with_v6.addresses.push("fd35::2/64".parse().unwrap());
    story.tell(Fact::Link(2, Some(with_v6.clone())));
    story.turn();
    assert_eq!(story.answered(), [""; 0]);
    with_v6.addresses.push("fe80::2/64".parse().unwrap());
    story.tell(Fact::Link(2, Some(with_v6)));
    story.turn();
    let decision = story.decision("web");
    assert_eq!(decision.announcements[0].l2.reason, Reason::Announced);
    assert_eq!(story.answered(), ["fd35::100"]);
}

/// Input: pulses tell of two nodes, which rank before this one, that they have no link-local IPv6 address; then one has.
/// Output: nobody waits for those that cannot serve an IPv6 address, and its neighbour of IPv4 is theirs all the same.
#[test]
fn a_node_without_ipv6_on_the_link_is_no_candidate_for_ipv6_addresses() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.103", "fd35::103"])];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    let link = story.planner.world().links.get(&2).cloned().expect("eth0");
    let mut with_v6 = Link::clone(&link);
    with_v6.addresses.push("fe80::2/64".parse().unwrap());
    story.tell(Fact::Link(2, Some(with_v6)));
    story.endpoints("web", &["b"]);
    let families = vec![crate::address::Family::V4, crate::address::Family::V6];
    let ingress = ["192.168.35.103", "fd35::103"].map(|it| it.parse().unwrap()).to_vec();
    story.put("web", Service { families, ingress, ..service() });
    let having = |subnets: &'static [&'static str]| {
        heard(roster(&[("b", &[]), ("c", &[])], &[]), move |roster| {
            for (name, member) in &mut roster.members {
                let subnets = if *name == NodeName::from("b") { subnets } else { &["192.168.35.0/24"][..] };
                Arc::make_mut(&mut member.card).subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
            }
        })
    };
    let owners = |story: &Story| -> Vec<Option<String>> {
        story.decision("web").announcements.iter().map(|it| it.l2.owner.as_ref().map(ToString::to_string)).collect()
    };
    story.tell(having(&["192.168.35.0/24", "fd35::/64"]));
    story.turn();
    assert_eq!(owners(&story), [Some("b".to_owned()), Some("a".to_owned())]);
}

/// Input: this node answers for an IPv6 address, and its link loses all IPv6 addresses, or all there are: the others count
/// its word for the address for nothing, or do not hear it. Output: it stops at once, says nothing of the address, and waits for the next.
/// It granted the address to the others by turns, which did not hear of it, and answered all probes.
#[test]
fn a_holder_whose_link_loses_ipv6_stops_at_once_and_leaves_the_address_to_the_next() {
    let address: IpAddr = "fd35::103".parse().unwrap();
    let mut config = configuration();
    config.pools = vec![pool("lan", &["fd35::103"])];
    let begin = |left: &[&str]| {
        let mut story = Story::begin(config.clone());
        story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
        let link = story.planner.world().links.get(&2).cloned().expect("eth0");
        let having = |nets: &[&str]| {
            let mut link = Link::clone(&link);
            link.addresses = nets.iter().map(|net| net.parse().unwrap()).collect();
            Fact::Link(2, Some(link))
        };
        story.tell(having(&["192.168.35.2/24", "fd35::2/64", "fe80::2/64"]));
        story.endpoints("web", &["a"]);
        let families = vec![crate::address::Family::V6];
        story.put("web", Service { families, ingress: vec![address], ..service() });
        assert_eq!(story.owner(roster(&[], &["b", "c"])), "a");
        story.tell(Fact::Answering { link: "eth0".into(), began: vec![address], ended: Vec::new() });
        story.tell(heard(roster(&[("b", &[]), ("c", &[])], &[]), |roster| {
            let subnets = ["192.168.35.0/24", "fd35::/64", "fe80::/64"];
            for member in roster.members.values_mut() {
                Arc::make_mut(&mut member.card).subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
            }
        }));
        story.turn();
        assert_eq!(story.answered(), ["fd35::103"]);
        (story, having(left))
    };
    let said = |story: &Story| story.planner.plan().pulse.holdings.get(&address).map(|it| it.stage);
    for left in [&["192.168.35.2/24"][..], &[]] {
        let (mut story, without_v6) = begin(left);
        let next = story.owner(without_v6);
        assert!(next == "b" || next == "c", "{left:?}: {next}");
        assert_eq!((story.answered(), said(&story)), (vec![], None), "{left:?}: whether others hear of it or not");
        story.tell(Fact::Answering { link: "eth0".into(), began: Vec::new(), ended: vec![address] });
        story.turn();
        assert_eq!((story.answered(), said(&story)), (vec![], None), "{left:?}");
        assert_eq!(story.decision("web").announcements[0].l2.owner, Some(NodeName::from(next.as_str())));
    }
}

/// Input: this node answers for an IPv4 address, and its link loses all IPv4 addresses, while the others have theirs; then
/// they lose them too. Output: it hands the address over, as its kernel has no route for replies any more, and says why; where no node has an
/// IPv4 address there, or `subnet` is to be ignored, it goes on.
#[test]
fn a_holder_whose_link_loses_ipv4_hands_over_to_nodes_that_have_it() {
    let address: IpAddr = "192.168.35.103".parse().unwrap();
    let begin = |rule: config::Subnet| {
        let mut config = configuration();
        config.pools = vec![pool("lan", &["192.168.35.103"])];
        config.l2[0].subnet = rule;
        let mut story = Story::begin(config);
        story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
        story.endpoints("web", &["a"]);
        story.put("web", Service { ingress: vec![address], ..service() });
        assert_eq!(story.owner(roster(&[], &["b", "c"])), "a");
        story.tell(Fact::Answering { link: "eth0".into(), began: vec![address], ended: Vec::new() });
        story
    };
    let lose = |story: &mut Story| {
        let mut link = Link::clone(&story.planner.world().links.get(&2).cloned().expect("eth0"));
        link.addresses = vec!["fe80::2/64".parse().unwrap()];
        story.tell(Fact::Link(2, Some(link)));
        story.turn();
    };
    let others_have = |story: &mut Story, subnets: &[&str]| {
        story.tell(heard(roster(&[("b", &[]), ("c", &[])], &[]), |roster| {
            for member in roster.members.values_mut() {
                Arc::make_mut(&mut member.card).subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
            }
        }));
        story.turn();
    };
    let said = |story: &Story| story.planner.plan().pulse.holdings.get(&address).map(|it| it.stage);
    let grants = |story: &Story| matches!(said(story), Some(crate::roster::Stage::Grants { .. }));
    for nets in [&["192.168.35.0/24", "fe80::/64"][..], &["10.9.0.0/16", "fe80::/64"]] {
        let mut story = begin(config::Subnet::Prefer);
        others_have(&mut story, nets);
        assert!(!grants(&story), "{nets:?}");
        lose(&mut story);
        assert!(grants(&story), "{nets:?}: {:?}", said(&story));
        assert_eq!(story.answered(), ["192.168.35.103"], "until the other has it");
        others_have(&mut story, &["fe80::/64"]);
        assert!(!grants(&story), "{nets:?}: nobody has one, {:?}", said(&story));
        assert_eq!(story.answered(), ["192.168.35.103"]);
    }
    let mut story = begin(config::Subnet::Ignore);
    others_have(&mut story, &["192.168.35.0/24", "fe80::/64"]);
    lose(&mut story);
    assert_eq!((grants(&story), story.answered()), (false, vec!["192.168.35.103".to_owned()]));
}

/// Input: a node that ranks first has no IPv4 address on the link, by its pulses, and the owner is gone. Output: nobody waits for it.
#[test]
fn a_node_without_ipv4_on_the_link_is_not_waited_for() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.103"])];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.endpoints("web", &["a"]);
    story.put("web", Service { ingress: vec!["192.168.35.103".parse().unwrap()], ..service() });
    let having = |v4: bool| {
        heard(roster(&[("b", &[]), ("c", &[])], &[]), move |roster| {
            for member in roster.members.values_mut() {
                let subnets = if v4 { &["192.168.35.0/24", "fe80::/64"][..] } else { &["fe80::/64"] };
                Arc::make_mut(&mut member.card).subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
            }
        })
    };
    assert_ne!(story.owner(having(true)), "a");
    assert_eq!(story.owner(having(false)), "a");
}

/// Input: a Service gets an address that a host on the link has. Output: another one at once, if nobody used the first
/// before; a complaint, if somebody asked for it by name or it was in use already.
#[test]
fn an_occupied_address_is_exchanged_only_before_its_first_use_and_never_handed_out_by_chance() {
    let begin = || {
        let mut story = Story::begin(standalone());
        story.tell(Fact::Node("b".into(), None));
        story.tell(Fact::Node("c".into(), None));
        story.endpoints("web", &["a"]);
        story
    };
    let first: IpAddr = "192.168.35.100".parse().unwrap();
    let occupied = || Fact::Conflict(first, "eth0".into(), foreign_host(ConflictKind::Occupied));

    let mut story = begin();
    story.put("web", service());
    story.tell(occupied());
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
    story.tell(Fact::Conflict(first, "eth0".into(), None));
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.102"], "the foreign host may still be there");

    let mut story = begin();
    story.put("web", asking_for(&["192.168.35.100"]));
    story.tell(occupied());
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    let decision = story.decision("web");
    assert!(matches!(decision.announcements[0].l2.reason, Reason::AddressOccupied { .. }), "{decision:?}");
    assert!(!decision.announcements[0].l2.announced);
    assert_eq!(story.answered(), ["192.168.35.100"], "the responder goes on asking for it");

    let mut story = begin();
    story.put("web", service());
    story.now += Duration::from_secs(3600);
    story.turn();
    story.tell(occupied());
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.100"], "users know this address");
    story.tell(Fact::Conflict(first, "eth0".into(), None));
    story.turn();
    assert_eq!(story.decision("web").announcements[0].l2.reason, Reason::Announced);
}

/// Input: without pulses another node answers for an address that this one is the best for. Output: that is as it is to
/// be, and no conflict; with pulses it is one.
#[test]
fn without_pulses_a_node_that_answers_already_is_no_conflict() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Node("b".into(), None));
    story.tell(Fact::Node("c".into(), None));
    story.endpoints("web", &["a"]);
    story.put("web", story_ingress());
    story.confirm("web");
    story.tell(Fact::Conflict(
        "192.168.35.100".parse().unwrap(),
        "eth0".into(),
        foreign_host(ConflictKind::AliveUnheard),
    ));
    story.turn();
    let l2 = story.decision("web").announcements[0].l2.clone();
    assert!(matches!(l2.reason, Reason::OwnerKeeps { .. }) && !l2.announced && !l2.reason.is_conflict(), "{l2:?}");
    let notice = story.planner.plan().status.services[&key("web")].notice.clone().expect("it has its address");
    assert_eq!((notice.warning, notice.reason.as_str()), (false, "IPAllocated"));
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.tell(Fact::Roster(2, Some(Arc::new(crate::roster::Roster { settled: true, ..Default::default() }))));
    story.turn();
    let l2 = story.decision("web").announcements[0].l2.clone();
    assert!(matches!(l2.reason, Reason::OwnerStillAnswers { .. }), "{l2:?}");
}

#[test]
fn the_node_that_finds_an_address_taken_tells_the_user_whoever_allocates() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Allocates(false));
    story.tell(Fact::Node("b".into(), None));
    story.tell(Fact::Node("c".into(), None));
    story.endpoints("web", &["a"]);
    story.put("web", story_ingress());
    let notice = |story: &Story| story.planner.plan().status.services.get(&key("web")).and_then(|it| it.notice.clone());
    assert_eq!(notice(&story), None);
    for (kind, announced) in [(ConflictKind::Occupied, false), (ConflictKind::Contested, true)] {
        story.tell(Fact::Conflict("192.168.35.100".parse().unwrap(), "eth0".into(), foreign_host(kind)));
        story.turn();
        let told = notice(&story).expect("the user is told");
        assert_eq!((told.warning, told.reason.as_str()), (true, "AddressConflict"));
        assert!(told.message.contains("02:00:00:00:00:99"), "{}", told.message);
        assert_eq!(story.decision("web").announcements[0].l2.announced, announced, "{kind:?}");
        assert_eq!(story.written("web"), None, "the status is not ours to write");
    }
}

/// Input: a node without an API server hears who answers, and its link goes away; then the link is back and another node
/// answers. Output: it says that it has no link, not that no node may answer, and takes what it did not see for no move.
#[test]
fn a_node_without_a_link_says_nothing_of_the_others() {
    let mut story = Story::begin(standalone());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    ["a", "b", "c"].into_iter().for_each(|name| story.tell(Fact::Node(name.into(), None)));
    let held = |node: &str| super::pulses::roster(&[(node, &["192.168.35.100"])], &[]);
    story.tell(held("b"));
    story.endpoints("web", &["a"]);
    story.put("web", service());
    assert_eq!(story.decision("web").announcements[0].l2.owner, Some("b".into()));
    let link = story.planner.world().links[&2].clone();
    for away in [None, Some(Link { carrier: false, ..link.clone() })] {
        story.tell(Fact::Roster(2, None));
        story.tell(Fact::Link(2, away));
        let turn = story.turn();
        let l2 = story.decision("web").announcements[0].l2.clone();
        assert!(l2.owner.is_none() && l2.reason.is_of_own_link(), "{l2:?}");
        assert_eq!(turn.handovers, [], "it sees no move");
        story.tell(Fact::Link(2, Some(link.clone())));
        story.tell(held("c"));
        assert_eq!(story.turn().handovers, []);
        assert_eq!(story.decision("web").announcements[0].l2.owner, Some("c".into()));
        story.tell(held("b"));
        story.turn();
    }
}

/// Input: a Service has an address that becomes the gateway of the link, of another link, or no gateway any
/// more; with and without pulses. Output: this node answers for it only where it is no gateway of that link, and was none for minutes.
#[test]
fn no_node_answers_for_the_gateway_of_the_link_whoever_gave_it() {
    for pulses in [crate::world::Pulses::Off, crate::world::Pulses::On { authenticated: true }] {
        let mut story = Story::begin(standalone());
        story.tell(Fact::Pulses(pulses.clone()));
        for other in ["b", "c"] {
            story.tell(Fact::Node(other.into(), None));
        }
        story.tell(Fact::Roster(2, Some(Arc::new(crate::roster::Roster { settled: true, ..Default::default() }))));
        story.endpoints("web", &["a"]);
        story.put("web", service());
        assert_eq!(story.answered(), ["192.168.35.100"]);
        story.now += Duration::from_secs(3600);
        story.turn();
        let eth1 =
            Link { index: 3, name: "eth1".into(), addresses: Vec::new(), ..story.planner.world().links[&2].clone() };
        story.tell(Fact::Link(3, Some(eth1)));
        for (link, answered) in [(3, vec!["192.168.35.100"]), (2, vec![])] {
            story.tell(Fact::DefaultRoutes(vec![crate::world::DefaultRoute::via("192.168.35.100", link, 0)]));
            story.turn();
            assert_eq!(story.answered(), answered, "{pulses:?} {link}");
        }
        assert_eq!(story.addresses("web"), ["192.168.35.100"], "it has been in use for long");
        let decision = story.decision("web");
        assert!(matches!(decision.announcements[0].l2.reason, Reason::GatewayOfLink { .. }), "{decision:?}");
        story.tell(Fact::DefaultRoutes(Vec::new()));
        story.turn();
        assert_eq!(story.answered(), [""; 0], "{pulses:?} the route may be back in a moment");
        story.now += crate::plan::own_addresses::KEPT_FOR;
        story.turn();
        assert_eq!(story.answered(), ["192.168.35.100"], "{pulses:?}");
    }
}

#[test]
fn an_address_is_announced_on_the_links_of_its_subnet_unless_told_otherwise() {
    let links_by = |subnet, addresses: &str| {
        let mut config = standalone();
        config.pools = vec![pool("lan", &[addresses])];
        config.l2[0].interfaces = Vec::new();
        config.l2[0].subnet = subnet;
        let mut story = Story::begin(config);
        story.tell(Fact::Node("b".into(), None));
        story.tell(Fact::Node("c".into(), None));
        let eth0 = story.planner.world().links[&2].clone();
        let addresses = vec!["10.9.0.1/24".parse().unwrap()];
        story.tell(Fact::Link(3, Some(Link { index: 3, name: "eth1".into(), addresses, ..eth0 })));
        story.endpoints("web", &["a"]);
        story.put("web", service());
        let l2 = &story.planner.plan().l2.addresses;
        l2.values().flat_map(|links| links.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
    };
    use config::Subnet::{Ignore, Prefer, Require};
    let (here, nowhere) = ("192.168.35.100-192.168.35.110", "172.31.0.0/28");
    let table = [
        (Prefer, here, "eth0"),
        (Require, here, "eth0"),
        (Ignore, here, "eth0 eth1"),
        (Prefer, nowhere, "eth0 eth1"),
        (Require, nowhere, ""),
        (Ignore, nowhere, "eth0 eth1"),
    ];
    for (rule, addresses, expected) in table {
        assert_eq!(links_by(rule, addresses), expected, "{rule:?} for {addresses}");
    }
}

#[test]
fn a_bridge_that_holds_the_nodes_own_address_is_a_link_like_any_other() {
    // Input: the uplink is a port of br-ex, which has the Node's address; br-1a2b is a bridge of containers.
    let mut story = Story::begin(standalone());
    story.tell(Fact::Node("b".into(), None));
    story.tell(Fact::Node("c".into(), None));
    let eth0 = story.planner.world().links[&2].clone();
    let (own, of_containers) = (vec!["192.168.35.11/24".parse().unwrap()], vec!["172.18.0.1/16".parse().unwrap()]);
    story.tell(Fact::Link(2, Some(Link { master: Some(3), addresses: Vec::new(), ..eth0.clone() })));
    story.tell(Fact::Link(3, Some(Link { index: 3, name: "br-ex".into(), addresses: own, ..eth0.clone() })));
    story.tell(Fact::Link(4, Some(Link { index: 4, name: "br-1a2b".into(), addresses: of_containers, ..eth0 })));
    story.endpoints("web", &["a"]);
    story.put("web", service());
    assert!(story.answered().is_empty(), "nothing says that br-ex is the node's");
    story.tell(Fact::Node(
        "a".into(),
        Some(Arc::new(Node { addresses: vec!["192.168.35.11".parse().unwrap()], ..node(&[]) })),
    ));
    story.turn();
    let links: Vec<_> = story.planner.plan().l2.addresses.values().flat_map(|links| links.iter().cloned()).collect();
    assert_eq!(links, ["br-ex".into()]);
}

/// Input: keepalived with `use_vmac` has a link with the MAC of a virtual router on every node, with or without its address;
/// other programs have macvlans. Output: an `[[l2]]` without `interfaces` takes none of them, and a macvlan that the host has for itself.
#[test]
fn a_link_on_the_wire_of_another_one_is_taken_only_where_the_host_has_it_for_itself() {
    let (vrrp, other) = ("00:00:5e:00:01:33", "02:00:00:00:00:77");
    type Names = &'static [&'static str];
    let (own, vip): (Names, Names) = (&["192.168.35.11/24"], &["192.168.35.50/24"]);
    let (eth0, both): (Names, Names) = (&["eth0"], &["eth0", "mac0"]);
    let table: [(&str, Option<u32>, &str, [Names; 3]); 8] = [
        ("a backup", Some(2), vrrp, [own, &[], eth0]),
        ("the master", Some(2), vrrp, [own, vip, eth0]),
        ("nobody tells the parent", None, vrrp, [own, vip, eth0]),
        ("a virtual router alone", Some(2), vrrp, [&[], vip, eth0]),
        ("of containers", Some(2), other, [own, vip, eth0]),
        ("of a virtual machine", Some(2), other, [&[], &[], eth0]),
        ("of the host", Some(2), other, [&[], vip, both]),
        ("its parent is not of this host", Some(9), other, [own, vip, both]),
    ];
    for (what, parent, mac, [on_eth0, on_it, expected]) in table {
        let mut config = standalone();
        config.l2[0].interfaces = Vec::new();
        let mut story = Story::begin(config);
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
        let eth0 = Link { addresses: nets(on_eth0), ..story.planner.world().links[&2].clone() };
        let mac = Some(mac.parse().unwrap());
        let it = Link { index: 3, name: "mac0".into(), parent, mac, addresses: nets(on_it), ..eth0.clone() };
        story.tell(Fact::Link(2, Some(eth0)));
        story.tell(Fact::Link(3, Some(it)));
        story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
        story.turn();
        let links = story.planner.plan().pulse.links.values();
        assert_eq!(links.map(|it| it.link.name.as_str()).collect::<Vec<_>>(), expected, "{what}");
    }
}

#[test]
fn without_pulses_only_nodes_whose_address_is_in_the_subnet_are_candidates_for_it() {
    use config::Subnet::{Ignore, Prefer, Require};
    let at = |address: &str| Some(Arc::new(Node { addresses: vec![address.parse().unwrap()], ..node(&[]) }));
    // The owners of eleven addresses, as node a sees them, with nodes a, b and c at these addresses.
    let owners = |rule, nodes: [&str; 3]| {
        let mut config = standalone();
        config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110"])];
        config.l2[0].subnet = rule;
        let mut story = Story::begin(config);
        for (name, address) in ["a", "b", "c"].into_iter().zip(nodes) {
            story.tell(Fact::Node(name.into(), at(address)));
        }
        let owners = (0..11).filter_map(|number| {
            let name = format!("web-{number}");
            story.endpoints(&name, &["a", "b", "c"]);
            let decision = story.put(&name, service());
            decision.announcements[0].l2.owner.as_ref().map(ToString::to_string)
        });
        owners.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    let far = ["192.168.35.11", "192.168.35.12", "192.168.99.13"];
    assert_eq!(owners(Require, far), "a b");
    assert_eq!(owners(Prefer, far), "a b");
    assert_eq!(owners(Ignore, far), "a b c", "the subnet says nothing");
    let unknown = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
    assert_eq!(owners(Require, unknown), "a b c", "no Node's address is in the subnet: it cannot be known");
    let alone = ["192.168.99.11", "192.168.35.12", "192.168.99.13"];
    assert_eq!(owners(Prefer, alone), "b", "also where the own Node address is of another subnet");
}
