//! What another configuration would change, as it is told before anybody uses it.

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
