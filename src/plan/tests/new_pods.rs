//! What is held back of new pods: when, from which networks, and whose addresses are known.

use super::*;
use crate::config::NewPods;
use crate::plan::slice::HoldSlice;
use crate::selector::Labels;
use crate::world::{ApiServer, Egress, Pod, Refusal};

fn holding() -> Config {
    let mut config = Config { l2: Vec::new(), ..configuration() };
    config.egress.new_pods = NewPods::Hold;
    config
}

/// Node `a` with a network of pods, whose Pods were told.
fn begun() -> Story {
    let mut story = unlisted();
    story.tell(Fact::Listed(Listing::Pods(Default::default())));
    story.turn();
    story
}

/// The same before the Pods are told.
fn unlisted() -> Story {
    let mut story = Story::begin(holding());
    let networks = ["10.244.1.0/24", "fd44:1::/64"].map(|it| it.parse().expect("a network"));
    for (name, pod_networks) in [("a", networks.to_vec()), ("b", vec!["10.244.2.0/24".parse().expect("a network")])] {
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { pod_networks, ..node(&[]) }))));
    }
    story.turn();
    story
}

fn labels(app: &str) -> Labels {
    Labels([("app", app)].into_iter().collect())
}

/// The Service `web` of the pods `app=web`.
fn with_egress() -> Service {
    Service { egress: Some(Egress::ServiceAddress), pod_selector: Some(Arc::new(labels("web"))), ..story_ingress() }
}

fn pod(story: &mut Story, name: &str, app: &str, address: &str) {
    let pod =
        Pod { node: "a".into(), labels: labels(app), addresses: vec![address.parse().expect("it")], terminates: false };
    story.tell(Fact::Pod(key(name), Some(Arc::new(pod))));
    story.turn();
}

/// The networks, and the known addresses in words.
fn hold(story: &Story) -> Option<(usize, String)> {
    let HoldSlice { networks, known, ending: _ } = story.planner.plan().egress.hold.as_deref()?;
    let known = known.as_ref().map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    Some((networks.len(), known.unwrap_or_else(|| "unknown".to_owned())))
}

#[test]
fn new_pods_of_this_node_are_held_while_a_service_has_egress() {
    let mut story = begun();
    pod(&mut story, "plain", "plain", "10.244.1.2");
    assert_eq!(hold(&story), None, "nobody has egress");
    story.put("web", with_egress());
    assert_eq!(hold(&story), Some((2, "10.244.1.2".to_owned())), "who is there is known by the same plan");
    pod(&mut story, "web-1", "web", "10.244.1.3");
    assert_eq!(hold(&story), Some((2, "10.244.1.2".to_owned())));
    pod(&mut story, "more", "plain", "10.244.1.4");
    assert_eq!(hold(&story), Some((2, "10.244.1.2 10.244.1.4".to_owned())));
    story.put("web", Service { egress: Some(Egress::Closed), ..with_egress() });
    assert_eq!(hold(&story), Some((2, "10.244.1.2 10.244.1.4".to_owned())), "an annotation that cannot be read");
    story.put("web", Service { pod_selector: Some(Arc::new(labels("plain"))), ..with_egress() });
    assert_eq!(hold(&story), Some((2, "10.244.1.3".to_owned())), "by the selector of now");
    story.tell(Fact::Service(key("web"), None));
    story.turn();
    assert_eq!(hold(&story), None);
}

#[test]
fn nothing_is_held_where_new_pods_pass() {
    let mut story = Story::begin(Config { l2: Vec::new(), ..configuration() });
    let networks = vec!["10.244.1.0/24".parse().expect("a network")];
    story.tell(Fact::Node("a".into(), Some(Arc::new(Node { pod_networks: networks, ..node(&[]) }))));
    story.put("web", with_egress());
    assert_eq!(story.planner.plan().egress.hold, None);
}

#[test]
fn a_pod_is_no_news_to_those_who_do_not_hold() {
    let mut story = begun();
    story.put("web", with_egress());
    pod(&mut story, "plain", "plain", "10.244.1.2");
    let same = Pod {
        node: "a".into(),
        labels: labels("x"),
        addresses: vec!["10.244.1.2".parse().unwrap()],
        terminates: false,
    };
    story.tell(Fact::Pod(key("plain"), Some(Arc::new(same))));
    assert!(!story.turn().moved.egress, "its address is known as before");
    assert_eq!(story.planner.judged(), 0, "no Service is judged for a pod");
}

#[test]
fn before_the_pods_are_told_and_while_nobody_shows_them_none_is_known() {
    let mut story = unlisted();
    story.put("web", with_egress());
    assert_eq!(hold(&story), Some((2, "unknown".to_owned())));
    story.tell(Fact::PodsUnseen(Some("403".to_owned())));
    story.turn();
    assert_eq!(hold(&story), None, "who has no right to see them would let none go ever");
    story.tell(Fact::PodsUnseen(None));
    story.tell(Fact::Listed(Listing::Pods(Default::default())));
    pod(&mut story, "plain", "plain", "10.244.1.2");
    assert_eq!(hold(&story), Some((2, "10.244.1.2".to_owned())));
    let away = ApiServer::Unreachable { since: clock::wall(), why: "no route".to_owned(), refusal: Refusal::NoAnswer };
    story.tell(Fact::ApiServer(away));
    story.tell(Fact::PodsUnseen(Some("403".to_owned())));
    story.turn();
    assert_eq!(hold(&story), Some((2, "10.244.1.2".to_owned())), "what is known stays known");
}

/// Input: an agent that starts with a state of before and without the API server. Services may be missing in it.
#[test]
fn without_the_api_server_all_that_is_new_is_held_whether_a_service_is_known_to_have_egress_or_not() {
    let mut story = Story { planner: Planner::new(Arc::new(holding()), "a".into()), ..begun() };
    let networks = vec!["10.244.1.0/24".parse().expect("a network")];
    story.tell(Fact::Node("a".into(), Some(Arc::new(Node { pod_networks: networks, ..node(&[]) }))));
    story.tell(Fact::LinksListed);
    story.tell(Fact::FailStatic);
    story.turn();
    assert_eq!(hold(&story), Some((1, "unknown".to_owned())));
}

#[test]
fn networks_that_the_operator_names_count_too_and_without_any_nothing_is_held() {
    let mut config = holding();
    config.egress.cluster_networks = vec!["10.96.0.0/16".parse().unwrap(), "10.240.0.0/16".parse().unwrap()];
    for (configured, expected) in [(holding(), None), (config, Some((1, String::new())))] {
        let mut story = Story::begin(configured);
        story.tell(Fact::ServiceCidr("kubernetes".to_owned(), Some(Arc::new(vec!["10.96.0.0/16".parse().unwrap()]))));
        story.tell(Fact::Listed(Listing::Pods(Default::default())));
        story.put("web", with_egress());
        assert_eq!(hold(&story), expected, "the network of Services is none of pods");
    }
}
