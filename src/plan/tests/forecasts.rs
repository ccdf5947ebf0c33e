//! What another configuration would change, as it is told before anybody uses it.

use super::pulses::roster;
use super::*;
use crate::plan::forecast::{self, ForecastError, PeerDifference};

/// A cluster of three Services, each with an address and an endpoint, as every agent knows it.
fn running() -> Story {
    let mut story = Story::begin(configuration());
    for name in ["front", "shop", "mail"] {
        story.put(name, service());
        story.confirm(name);
        story.endpoints(name, &["b"]);
    }
    story
}

fn told(story: &Story, after: Config) -> forecast::Forecast {
    let before = story.planner.config();
    forecast::forecast((before, &Arc::new(after)), story.planner.node(), story.planner.world(), story.now)
        .expect("a forecast")
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_same_configuration_changes_nothing_whoever_allocates_and_whatever_waits() {
    let mut story = running();
    // One that waits for an address that it does not get, and one that would get one at any moment.
    story.tell(Fact::Service(key("waits"), Some(Arc::new(asking_for(&["198.51.100.1"])))));
    story.tell(Fact::Leader(false));
    story.tell(Fact::Service(key("new"), Some(Arc::new(service()))));
    story.turn();
    assert_eq!(told(&story, configuration()), forecast::Forecast::default());
}

#[test]
fn a_pool_that_goes_takes_its_addresses_with_their_routes_and_the_other_pool_gives_new_ones() {
    let story = running();
    let after = Config { pools: vec![pool("other", &["203.0.113.1-203.0.113.2"])], ..configuration() };
    let forecast = told(&story, after);
    let changes: Vec<_> =
        forecast.services.iter().map(|it| (it.service.name.to_string(), it.before.clone(), it.after.clone())).collect();
    let expected = [
        ("front", "192.168.35.100", vec!["203.0.113.1"]),
        ("mail", "192.168.35.102", vec!["203.0.113.2"]),
        ("shop", "192.168.35.101", vec![]),
    ]
    .map(|(name, before, after)| {
        (name.to_owned(), vec![address(before)], after.into_iter().map(address).collect::<Vec<_>>())
    });
    assert_eq!(changes, expected);
    let gone = forecast.routes.iter().filter(|route| route.after.is_none()).count();
    let come = forecast.routes.iter().filter(|route| route.before.is_none()).count();
    assert_eq!((gone, come), (3, 2), "{:?}", forecast.routes);
    assert_eq!(forecast.peers, []);
}

#[test]
fn a_preference_moves_owners_and_no_address() {
    let story = running();
    let mut after = configuration();
    let text =
        format!("{CONFIGURATION}\n").replace("[[l2]]", "[[l2]]\npreference = [{ nodes = \"here=yes\", weight = 10 }]");
    after.l2 = config::parse(&[SourceFile { path: "new.toml".to_owned(), text }], &NoSecrets).expect("it is good").l2;
    let before = told(&story, after.clone());
    assert_eq!(before, forecast::Forecast::default(), "no node has the label");
    let mut story = running();
    story.tell(Fact::Node("c".into(), Some(Arc::new(node(&[("here", "yes")])))));
    story.turn();
    let forecast = told(&story, after);
    assert_eq!(forecast.services, []);
    assert!(!forecast.owners.is_empty(), "three addresses, three nodes: not all were on c");
    assert!(forecast.owners.iter().all(|it| it.after.as_ref().is_some_and(|node| node.as_str() == "c")));
    assert!(forecast.owners.iter().all(|it| it.before != it.after));
}

#[test]
fn peers_that_come_go_and_change_are_named_with_their_keys() {
    let story = running();
    let mut after = configuration();
    after.bgp.peers[0].hold_time = Some(Duration::from_secs(30));
    after.bgp.peers.push(peer("second"));
    let forecast = told(&story, after);
    let peers: Vec<_> = forecast.peers.iter().map(|it| (it.peer.to_string(), it.difference.clone())).collect();
    assert_eq!(
        peers,
        [("second".to_owned(), PeerDifference::Added), ("tor".to_owned(), PeerDifference::Changed(vec!["hold-time"])),]
    );
    assert!(forecast.routes.iter().all(|it| it.peer.to_string() == "second"), "{:?}", forecast.routes);
    assert_eq!(forecast.routes.len(), 3);
}

/// K15 of the reviews: the sessions began anew, and nothing was said to change.
#[test]
fn another_router_id_of_all_and_another_profile_of_bfd_change_the_peers_that_use_them() {
    let with = |router_id: Option<&str>, own: Option<&str>, interval: u64| {
        let mut config = configuration();
        config.bgp.router_id = router_id.map(|id| id.parse().expect("an id"));
        config.bgp.peers[0].router_id = own.map(|id| id.parse().expect("an id"));
        config.bgp.peers[0].bfd = Some("fast".to_owned());
        let text = format!("{CONFIGURATION}\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"{interval}ms\"\n");
        let file = SourceFile { path: "new.toml".to_owned(), text };
        config.bfd = config::parse(&[file], &NoSecrets).expect("it is good").bfd;
        config
    };
    let mut story = Story::begin(with(Some("10.0.0.9"), None, 300));
    story.turn();
    let changed = |after: Config| -> Vec<Vec<&str>> {
        let peers = told(&story, after).peers.into_iter();
        let keys = peers.map(|it| match it.difference {
            PeerDifference::Changed(keys) => keys,
            PeerDifference::Added | PeerDifference::Removed => panic!("{} is there before and after", it.peer),
        });
        keys.collect()
    };
    assert_eq!(changed(with(Some("10.0.0.9"), None, 300)), [[""; 0]; 0]);
    assert_eq!(changed(with(Some("10.0.0.8"), None, 300)), [["router-id"]]);
    assert_eq!(changed(with(None, None, 300)), [[""; 0]; 0], "the agent keeps the one that it has");
    assert_eq!(changed(with(Some("10.0.0.9"), None, 50)), [["bfd"]]);
    assert_eq!(changed(with(Some("10.0.0.8"), Some("10.0.0.7"), 300)), [["router-id"]], "named once");
}

#[test]
fn a_peer_that_is_shut_down_gets_no_route_any_more() {
    let story = running();
    let mut after = configuration();
    after.bgp.peers[0].shutdown = true;
    let forecast = told(&story, after);
    assert_eq!(forecast.routes.len(), 3);
    assert!(forecast.routes.iter().all(|it| it.before.is_some() && it.after.is_none()), "{:?}", forecast.routes);
}

#[test]
fn nothing_is_said_on_half_a_picture_nor_about_another_source() {
    let story = running();
    let now = story.now;
    let (config, me) = (story.planner.config(), story.planner.node());
    let empty = crate::world::World::default();
    assert_eq!(forecast::forecast((config, config), me, &empty, now), Err(ForecastError::Incomplete));
    let other = Arc::new(standalone());
    let refused = forecast::forecast((config, &other), me, story.planner.world(), now);
    assert_eq!(refused, Err(ForecastError::OtherSource { before: "[kubernetes]", after: "[manifests]" }));
}

/// Three nodes that hear each other and have one file; b and c are in rack b.
fn running_with_pulses() -> Story {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.tell(Fact::Node("a".into(), Some(Arc::new(node(&[("rack", "a")])))));
    for name in ["b", "c"] {
        story.tell(Fact::Node(name.into(), Some(Arc::new(node(&[("rack", "b")])))));
    }
    for (name, last) in [("front", 100), ("shop", 101), ("mail", 102), ("web", 103)] {
        let ingress = vec![IpAddr::from([192, 168, 35, last])];
        story.tell(Fact::Service(key(name), Some(Arc::new(Service { ingress, ..service() }))));
        story.endpoints(name, &["b"]);
    }
    story.tell(roster(&[("b", &[]), ("c", &[])], &[]));
    story.turn();
    story
}

/// The file of the running agents with one text replaced.
fn edited(from: &str, to: &str) -> Config {
    let text = format!("{CONFIGURATION}\n");
    assert!(text.contains(from));
    let text = text.replace(from, to);
    let parsed = config::parse(&[SourceFile { path: "new.toml".to_owned(), text }], &NoSecrets).expect("it is good");
    Config { pools: parsed.pools, l2: parsed.l2, ..configuration() }
}

#[test]
fn the_other_nodes_are_judged_by_the_file_too_not_by_what_their_pulses_say() {
    let story = running_with_pulses();
    assert_eq!(told(&story, configuration()), forecast::Forecast::default());
    let owners = |after: Config| -> Vec<(Option<String>, Option<String>)> {
        let named = |node: &Option<NodeName>| node.as_ref().map(ToString::to_string);
        told(&story, after).owners.iter().map(|it| (named(&it.before), named(&it.after))).collect()
    };
    let preferring = |rack: &str| {
        owners(edited("[[l2]]", &format!("[[l2]]\npreference = [{{ nodes = \"rack={rack}\", weight = 5 }}]")))
    };
    let to_b = preferring("b");
    assert!(!to_b.is_empty() && to_b.iter().all(|(before, after)| before.as_deref() == Some("a") && *after != *before));
    let to_a = preferring("a");
    assert!(!to_a.is_empty() && to_a.iter().all(|(_, after)| after.as_deref() == Some("a")));
    assert_eq!(to_a.len() + to_b.len(), 4, "each address is in one of the racks");
    let nobody = owners(edited("[[l2]]", "[[l2]]\nnodes = \"rack=zz\""));
    assert_eq!(nobody.len(), 4);
    assert!(nobody.iter().all(|(_, after)| after.is_none()), "{nobody:?}");
    let elsewhere = owners(edited("[[l2]]", "[[l2]]\ninterfaces = [\"none7\"]"));
    assert!(elsewhere.len() == 4 && elsewhere.iter().all(|(_, after)| after.is_none()), "{elsewhere:?}");
}

#[test]
fn a_pool_with_another_name_is_another_number_in_pulses_and_moves_nobody() {
    let mut story = running_with_pulses();
    let named = edited("[[l2]]", "[[l2]]\npools = [\"lan\"]");
    story.tell(Fact::Config(Arc::new(named.clone())));
    let numbers = |config: &Config| crate::plan::context::l2::numbers(config);
    let said = super::pulses::heard(roster(&[("b", &[]), ("c", &[])], &[]), |roster| {
        for member in roster.members.values_mut() {
            let weights = numbers(&named).into_iter().map(|number| (number, 0)).collect();
            member.card = Arc::new(crate::roster::Card { weights, ..Default::default() });
        }
    });
    story.tell(said);
    story.turn();
    let mut renamed = named.clone();
    renamed.pools.iter_mut().for_each(|pool| pool.name = "lanx".into());
    renamed.l2.iter_mut().for_each(|l2| l2.pools = vec!["lanx".into()]);
    assert_ne!(numbers(&named), numbers(&renamed));
    let forecast = told(&story, renamed);
    assert_eq!(forecast.owners, []);
    assert_eq!(forecast.services, []);
}
