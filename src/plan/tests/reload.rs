//! Another configuration while the planner runs: what is decided as before stays, and nothing that is remembered is lost.

use super::*;
use crate::plan::Moved;
use crate::world::PeerOrder;

fn adopt(story: &mut Story, config: Config) -> Turn {
    story.tell(Fact::Config(Arc::new(config)));
    story.turn()
}

fn begin_with(names: &[&str]) -> Story {
    let mut story = Story::begin(configuration());
    for name in names {
        story.endpoints(name, &["b"]);
        story.put(name, service());
        story.confirm(name);
    }
    story
}

#[test]
fn the_same_configuration_again_moves_no_slice() {
    let mut story = begin_with(&["one", "two"]);
    let turn = adopt(&mut story, configuration());
    assert_eq!(turn.moved, Moved::default());
    assert!(turn.changes.is_empty(), "{:?}", turn.changes);
}

#[test]
fn a_description_reaches_the_speaker_and_nothing_else_moves() {
    let mut story = begin_with(&["one"]);
    let mut config = configuration();
    config.bgp.peers[0].description = Some("rack 7".to_owned());
    let turn = adopt(&mut story, config);
    assert_eq!(turn.moved, Moved { bgp: true, ..Moved::default() });
    let slice = &story.planner.plan().bgp.peers[&PeerName::from("tor")];
    assert_eq!(slice.settings.description.as_deref(), Some("rack 7"));
    assert_eq!(story.routes(), ["192.168.35.100/32"], "its routes are the same");
}

#[test]
fn a_pool_that_grows_moves_nobody_and_serves_who_waits() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100"])];
    let mut story = Story::begin(config);
    story.endpoints("one", &["b"]);
    story.put("one", service());
    story.confirm("one");
    story.put("two", service());
    assert!(story.addresses("two").is_empty(), "the pool is exhausted");
    let mut grown = configuration();
    grown.pools = vec![pool("lan", &["192.168.35.98-192.168.35.101"])];
    adopt(&mut story, grown);
    assert_eq!(story.addresses("one"), ["192.168.35.100"], "keeps its address when the pool grows");
    assert_eq!(story.addresses("two"), ["192.168.35.98"]);
    story.put("three", service());
    assert_eq!(story.addresses("three"), ["192.168.35.99"], "what is held is not given again");
}

#[test]
fn an_advertisement_that_goes_withdraws_and_one_that_comes_announces() {
    let mut story = begin_with(&["one"]);
    let mut without = configuration();
    without.bgp.advertisements.clear();
    adopt(&mut story, without);
    assert!(story.routes().is_empty());
    adopt(&mut story, configuration());
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
}

#[test]
fn peers_that_are_added_one_by_one_each_have_the_routes_and_the_former_ones_go_on() {
    let mut config = configuration();
    config.bgp.peers.clear();
    let mut story = Story::begin(config.clone());
    story.endpoints("one", &["b"]);
    story.put("one", service());
    story.confirm("one");
    for (number, name) in [(1_u8, "tor-1"), (2, "tor-2"), (3, "tor-3")] {
        let before = story.planner.plan().bgp.peers.clone();
        let address =
            PeerAddress::Fixed(crate::address::ScopedAddress { ip: [10, 0, 0, number].into(), interface: None });
        config.bgp.peers.push(config::Peer { address, ..peer(name) });
        adopt(&mut story, config.clone());
        let peers = &story.planner.plan().bgp.peers;
        assert_eq!(peers.len(), usize::from(number));
        let prefixes =
            |name: &str| peers[&PeerName::from(name)].routes.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(prefixes(name), ["192.168.35.100/32"]);
        for (name, former) in &before {
            assert_eq!(
                (&peers[name].settings, &peers[name].address),
                (&former.settings, &former.address),
                "{name} goes on"
            );
        }
    }
}

#[test]
fn an_l2_whose_interfaces_change_answers_on_the_new_ones_alone() {
    let on = |interfaces: &[&str]| {
        let mut config = configuration();
        config.l2[0].interfaces = interfaces.iter().map(|it| InterfacePattern::Exact((*it).into())).collect();
        config.l2[0].subnet = Subnet::Ignore;
        config
    };
    let mut story = Story::begin(on(&["eth0"]));
    for other in ["b", "c"] {
        story.tell(Fact::Node(other.into(), None));
    }
    let eth0 = story.planner.world().links[&2].clone();
    story.tell(Fact::Link(3, Some(Link { index: 3, name: "eth1".into(), addresses: Vec::new(), ..eth0 })));
    story.endpoints("one", &["a"]);
    story.put("one", service());
    story.confirm("one");
    let links = |story: &Story| {
        let answered = &story.planner.plan().l2.addresses;
        answered.values().flat_map(|links| links.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(links(&story), "eth0");
    for (interfaces, expected) in
        [(&["eth1"][..], "eth1"), (&["eth0", "eth1"], "eth0 eth1"), (&["eth7"], ""), (&["eth0"], "eth0")]
    {
        adopt(&mut story, on(interfaces));
        assert_eq!(links(&story), expected, "{interfaces:?}");
    }
}

#[test]
fn a_freed_address_goes_on_resting_under_another_configuration() {
    let mut config = configuration();
    config.pools[0].rest = Duration::from_secs(30);
    let mut story = Story::begin(config.clone());
    story.put("one", service());
    story.confirm("one");
    story.delete("one");
    config.bgp.peers[0].description = Some("another".to_owned());
    adopt(&mut story, config);
    story.put("two", service());
    assert_eq!(story.addresses("two"), ["192.168.35.101"], "the first one rests");
}

#[test]
fn a_reservation_that_comes_keeps_its_address_from_others() {
    let mut story = Story::begin(configuration());
    let mut config = configuration();
    config.reservations =
        vec![Reservation { service: key("front"), addresses: vec!["192.168.35.100".parse().unwrap()] }];
    adopt(&mut story, config);
    story.put("two", service());
    story.put("front", service());
    assert_eq!(
        (story.addresses("two"), story.addresses("front")),
        (vec!["192.168.35.101".to_owned()], vec!["192.168.35.100".to_owned()])
    );
}

#[test]
fn a_router_id_that_is_set_counts_and_one_that_was_chosen_stays() {
    let mut story = begin_with(&[]);
    let chosen = story.planner.plan().bgp.router_id;
    assert!(chosen.is_some());
    let set = |router_id| {
        let mut config = configuration();
        config.bgp.router_id = router_id;
        config
    };
    let other = Some("192.0.2.77".parse().unwrap());
    adopt(&mut story, set(other));
    assert_eq!(story.planner.plan().bgp.router_id, other);
    adopt(&mut story, set(None));
    assert_eq!(story.planner.plan().bgp.router_id, chosen, "one that another node has is out of use with its line");
    let kept = story.planner.world().router_id;
    assert_eq!(kept, chosen, "what was set is never remembered as a choice");
}

/// The reload kept the identifier that had been set, and the next restart ended every session.
#[test]
fn a_router_id_whose_line_goes_leads_to_the_one_that_a_restart_would_have() {
    let mut config = configuration();
    config.bgp.router_id = Some("9.9.9.9".parse().unwrap());
    let mut story = Story::begin(config);
    story.turn();
    assert_eq!(story.planner.world().router_id, None, "what is set is no choice of this node");
    assert!(adopt(&mut story, configuration()).moved.bgp, "the speaker is told");
    let reloaded = story.planner.plan().bgp.router_id;
    assert_eq!((reloaded, story.planner.world().router_id), (begin_with(&[]).planner.plan().bgp.router_id, reloaded));
    assert_ne!(reloaded, Some("9.9.9.9".parse().unwrap()));
}

#[test]
fn a_hundred_configurations_leave_what_a_fresh_planner_has() {
    // Input: pools, advertisements and peers that come and go at random, with Services that stay. Output: after each, addresses and
    // routes as a planner has them that began with that configuration and was told the same World.
    let mut random = fastrand::Rng::with_seed(7);
    let mut story = begin_with(&["one", "two", "three"]);
    for round in 0..100 {
        let mut config = configuration();
        config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110"])];
        if random.bool() {
            config.pools.push(pool("more", &["10.9.0.0/28"]));
        }
        config.bgp.advertisements = vec![advertisement(); random.usize(..3)];
        for advertisement in &mut config.bgp.advertisements {
            advertisement.med = Some(random.u32(..3));
        }
        if random.bool() {
            config.bgp.peers.push(peer("second"));
        }
        adopt(&mut story, config.clone());
        let mut fresh = Planner::new(Arc::new(config), "a".into());
        fresh.apply_world(story.planner.world().clone());
        fresh.turn(story.now);
        let routes = |planner: &Planner| {
            let peers = planner.plan().bgp.peers.iter();
            peers.map(|(name, peer)| (name.clone(), peer.routes.clone())).collect::<Vec<_>>()
        };
        assert_eq!(routes(&story.planner), routes(&fresh), "round {round}");
        for name in ["one", "two", "three"] {
            let held = |planner: &Planner| planner.plan().decisions[&key(name)].allocation.held.clone();
            assert_eq!(held(&story.planner), held(&fresh), "round {round}");
        }
    }
}

#[test]
fn a_peer_that_an_operator_shut_down_is_nowhere_until_it_is_enabled() {
    let mut story = begin_with(&[]);
    let peer = PeerName::from("tor");
    story.tell(Fact::Peer(peer.clone(), PeerOrder::Shut));
    let turn = story.turn();
    assert!(turn.moved.bgp);
    assert_eq!(story.planner.plan().bgp.peers[&peer].address, Err(Reason::PeerShutByOperator));
    let remembered: Vec<Fact> = story.planner.world().to_remember().collect();
    assert!(remembered.contains(&Fact::Peer(peer.clone(), PeerOrder::Shut)), "a restart does not forget it");
    story.tell(Fact::Peer(peer.clone(), PeerOrder::Enable));
    story.turn();
    assert!(story.planner.plan().bgp.peers[&peer].address.is_ok());
    story.tell(Fact::Peer(peer.clone(), PeerOrder::Reset));
    assert!(story.turn().moved.bgp, "each reset counts");
    assert_eq!(story.planner.plan().bgp.peers[&peer].orders.resets, 1);
}
