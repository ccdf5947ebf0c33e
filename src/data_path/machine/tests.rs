//! Stories of one node's data path on a virtual clock.

use super::*;
use crate::path_state::Serving;

const BOOT: &str = "7a0c1d7e";
const URL: &str = "http://127.0.0.1:10256/healthz";

/// A node's machine and the time.
struct Story {
    machine: Machine,
    now: Instant,
}

const BOTH: Rules = Rules { ipv4: true, ipv6: true };
const NEITHER: Rules = Rules { ipv4: false, ipv6: false };

impl Story {
    fn of(setting: Setting, record: Record) -> Story {
        let now = crate::clock::now();
        Story { machine: Machine::new(setting, record, BOOT, now), now }
    }

    fn auto() -> Story {
        Story::of(auto(), Record::default())
    }

    /// One whose kube-proxy is healthy with all its rules.
    fn good() -> Story {
        let mut story = Story::auto();
        story.rules(BOTH);
        story.health(200);
        assert_eq!(story.serving(), Serving::Yes);
        story
    }

    fn health(&mut self, status: u16) {
        self.machine.handle_health(Health::Answered(status), self.now);
    }

    fn refused(&mut self) {
        self.machine.handle_health(Health::Refused, self.now);
    }

    fn rules(&mut self, rules: Rules) {
        self.machine.handle_rules(Some(rules), self.now);
    }

    fn node(&mut self, ready: bool, boot: &str) {
        self.machine.handle_node(Some(NodeReport { ready, boot_id: Some(boot.to_owned()) }), self.now);
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.machine.handle_timeout(self.now);
    }

    fn serving(&self) -> Serving {
        self.machine.path().serving()
    }

    fn fault(&self) -> String {
        self.machine.path().fault().map(ToString::to_string).unwrap_or_default()
    }
}

fn auto() -> Setting {
    Setting::Auto { standalone: false, url: URL.to_owned() }
}

#[test]
fn a_rebooted_node_does_not_serve_until_kube_proxy_has_written_its_rules() {
    let before = Record { boot: "another".to_owned(), good: true, heard: true, rules: BOTH, proxy: true, bad: true };
    let mut story = Story::of(auto(), before);
    assert_eq!(story.serving(), Serving::NotSinceBoot, "what the boot before has seen does not count");
    story.rules(NEITHER);
    story.refused();
    story.node(true, BOOT);
    assert_eq!(story.serving(), Serving::NotSinceBoot, "a Node that is Ready says nothing of kube-proxy");
    assert_eq!(story.fault(), "kube-proxy ran here before the last boot and has not started since");
    story.pass(20_000);
    story.health(200);
    assert_eq!(story.serving(), Serving::NotSinceBoot, "healthy, and not a rule yet");
    story.pass(100);
    story.rules(BOTH);
    assert_eq!(story.serving(), Serving::Yes);
}

#[test]
fn a_restart_of_the_agent_keeps_what_was_seen_in_this_boot() {
    let record = Story::good().machine.record().clone();
    let mut story = Story::of(auto(), record);
    assert_eq!(story.serving(), Serving::Yes, "before anything was asked");
    story.refused();
    story.rules(BOTH);
    story.pass(1_500);
    assert_eq!(story.serving(), Serving::Lost, "and a loss is seen as before: {}", story.fault());
}

#[test]
fn a_path_that_was_bad_when_the_agent_ended_is_bad_for_the_next_one_until_it_is_seen_good() {
    for setting in [auto(), Setting::Url(URL.to_owned())] {
        let mut story = Story::of(setting.clone(), Record::default());
        story.rules(BOTH);
        story.health(200);
        story.health(503);
        story.pass(1_500);
        assert_eq!(story.serving(), Serving::Lost);
        let mut story = Story::of(setting.clone(), story.machine.record().clone());
        assert_eq!(story.serving(), Serving::Lost, "before anything was asked");
        story.rules(BOTH);
        story.health(503);
        assert_eq!(story.fault(), format!("{URL} answers 503 instead of 200"), "the first answer is believed");
        // Killed again, and healthy meanwhile.
        let mut story = Story::of(setting.clone(), story.machine.record().clone());
        assert_eq!(story.serving(), Serving::Lost);
        story.rules(BOTH);
        story.health(200);
        assert_eq!(story.serving(), Serving::Yes, "at once");
        let story = Story::of(setting, story.machine.record().clone());
        assert_eq!(story.serving(), Serving::Yes, "and the one after it takes the path for good");
    }
    let mut story = Story::of(Setting::NodeReady, Record::default());
    story.node(true, BOOT);
    story.node(false, BOOT);
    let mut story = Story::of(Setting::NodeReady, story.machine.record().clone());
    assert_eq!(story.serving(), Serving::Lost, "a Node that was not Ready");
    story.node(true, BOOT);
    assert_eq!(story.serving(), Serving::Yes);
}

#[test]
fn nothing_counts_as_judged_before_the_first_answer_or_until_failure_has_lasted() {
    let mut story = Story::of(auto(), Story::good().machine.record().clone());
    assert!(!story.machine.path().is_judged());
    story.rules(BOTH);
    story.health(503);
    assert_eq!((story.serving(), story.machine.path().is_judged()), (Serving::Yes, false), "it has just begun");
    story.pass(1_500);
    assert_eq!((story.serving(), story.machine.path().is_judged()), (Serving::Lost, true));
    let mut story = Story::of(auto(), Story::good().machine.record().clone());
    story.rules(BOTH);
    story.health(200);
    assert!(story.machine.path().is_judged());
}

#[test]
fn one_failed_question_is_no_loss_and_failure_for_a_while_is() {
    let mut story = Story::good();
    story.refused();
    assert_eq!(story.serving(), Serving::Yes);
    story.pass(1_000);
    story.health(200);
    story.pass(1_000);
    assert_eq!(story.serving(), Serving::Yes, "the failure is over");
    story.health(503);
    story.pass(1_499);
    assert_eq!(story.serving(), Serving::Yes);
    story.pass(1);
    assert_eq!(story.serving(), Serving::Lost);
    assert_eq!(story.fault(), format!("{URL} answers 503 instead of 200"));
    story.health(200);
    assert_eq!(story.serving(), Serving::Lost, "one good answer is not enough");
    story.pass(1_000);
    assert_eq!(story.serving(), Serving::Yes);
}

#[test]
fn rules_that_are_gone_make_the_path_bad_at_once_however_healthy_kube_proxy_is() {
    let mut story = Story::good();
    story.rules(NEITHER);
    assert_eq!(story.serving(), Serving::Lost);
    assert_eq!(story.fault(), "kube-proxy's rules for IPv4 are gone from the kernel");
    story.pass(40_000);
    story.health(200);
    assert_eq!(story.serving(), Serving::Lost);
    story.rules(BOTH);
    assert_eq!(story.serving(), Serving::Yes);
}

#[test]
fn rules_that_stay_away_under_a_running_kube_proxy_keep_the_path_bad_for_ever() {
    for stand in [NEITHER, Rules { ipv4: true, ipv6: false }] {
        let mut story = Story::good();
        story.rules(stand);
        story.machine.handle_health(Health::Silent("no answer within 1 s".to_owned()), story.now);
        story.pass(3_600_000);
        story.health(200);
        story.pass(3_600_000);
        assert_eq!(story.serving(), Serving::Lost, "{}", story.fault());
        let record = story.machine.record().clone();
        let mut story = Story::of(auto(), record);
        story.rules(stand);
        story.health(200);
        story.pass(3_600_000);
        assert_eq!(story.serving(), Serving::Lost, "a restart of the agent forgives nothing: {}", story.fault());
    }
}

#[test]
fn a_proxy_that_starts_without_the_rules_of_the_one_before_serves_after_a_moment() {
    for stand in [NEITHER, Rules { ipv4: true, ipv6: false }] {
        let mut story = Story::good();
        story.refused();
        story.rules(stand);
        assert_eq!(story.fault(), "kube-proxy does not answer, and its rules are gone from the kernel");
        story.pass(10_000);
        story.refused();
        story.health(200);
        story.pass(4_999);
        assert_eq!(story.serving(), Serving::Lost, "kube-proxy answers before its rules stand");
        assert_eq!(story.fault(), "kube-proxy is healthy, but the kernel has none of its rules yet");
        story.pass(1);
        assert_eq!(story.serving(), Serving::Yes, "{}", story.fault());
    }
}

#[test]
fn rules_that_were_flushed_are_gone_also_when_kube_proxy_ends_afterwards() {
    let mut story = Story::good();
    story.rules(NEITHER);
    story.refused();
    assert_eq!(story.fault(), "kube-proxy's rules for IPv4 are gone from the kernel");
    story.pass(20_000);
    story.health(200);
    story.pass(100);
    story.rules(BOTH);
    assert_eq!(story.serving(), Serving::Yes, "kube-proxy has started anew");
}

#[test]
fn a_kube_proxy_that_answers_503_is_a_kube_proxy_and_not_good() {
    let mut story = Story::auto();
    story.health(503);
    story.rules(NEITHER);
    story.node(true, BOOT);
    story.pass(600_000);
    assert_eq!(story.serving(), Serving::NotSinceBoot, "the Node is Ready, its kube-proxy is not");
    assert_eq!(story.machine.path().source, PathSource::KubeProxy);
    let mut story = Story::auto();
    story.health(404);
    story.rules(NEITHER);
    story.node(true, BOOT);
    assert_eq!(story.serving(), Serving::Yes, "another program has the port");
}

#[test]
fn a_url_that_was_asked_for_must_answer_whatever_the_rules_say() {
    let mut story = Story::of(Setting::Url(URL.to_owned()), Record::default());
    story.rules(BOTH);
    story.refused();
    story.pass(10_000);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.health(404);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.health(200);
    story.pass(1_000);
    assert_eq!(story.serving(), Serving::Yes);
    story.rules(NEITHER);
    assert_eq!(story.serving(), Serving::Lost, "rules that were seen are missed there too");
}

/// Input: a check of another program answers, and the kernel has no rules of kube-proxy. Output: at kube-proxy's port
/// they are waited for, at others they are not.
#[test]
fn rules_are_expected_of_kube_proxy_alone() {
    for (url, serving) in [(URL, Serving::NotSinceBoot), ("http://127.0.0.1:9000/ready", Serving::Yes)] {
        let mut story = Story::of(Setting::Url(url.to_owned()), Record::default());
        story.rules(NEITHER);
        story.health(200);
        assert_eq!(story.serving(), serving, "{url}");
    }
}

#[test]
fn a_healthy_proxy_without_nftables_serves_after_a_moment() {
    let mut story = Story::auto();
    story.rules(NEITHER);
    story.health(200);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.pass(5_000);
    assert_eq!(story.serving(), Serving::Yes);
}

#[test]
fn rules_tell_alone_where_health_is_bound_elsewhere() {
    let mut story = Story::auto();
    story.refused();
    story.rules(BOTH);
    assert_eq!(story.serving(), Serving::Yes);
    story.pass(60_000);
    story.refused();
    assert_eq!(story.serving(), Serving::Yes);
    story.rules(NEITHER);
    assert_eq!(story.serving(), Serving::Lost);
}

#[test]
fn without_kube_proxy_the_node_must_be_ready_in_this_boot() {
    let mut story = Story::auto();
    story.refused();
    story.rules(NEITHER);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.node(true, "another");
    assert_eq!(story.serving(), Serving::NotSinceBoot, "{}", story.fault());
    story.node(false, BOOT);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.node(true, BOOT);
    assert_eq!(story.serving(), Serving::Yes);
    assert_eq!(story.machine.path().source, PathSource::NodeReady);
    story.node(false, BOOT);
    assert_eq!(story.serving(), Serving::Lost);
}

#[test]
fn a_kube_proxy_that_was_removed_is_not_waited_for_for_ever() {
    let before = Record { boot: "another".to_owned(), proxy: true, ..Record::default() };
    let mut story = Story::of(auto(), before);
    story.refused();
    story.rules(NEITHER);
    story.node(true, BOOT);
    story.pass(299_999);
    assert_eq!(story.serving(), Serving::NotSinceBoot);
    story.pass(1);
    assert_eq!(story.serving(), Serving::Yes);
    assert!(!story.machine.record().proxy, "and the next boot does not wait");
}

#[test]
fn standalone_and_with_none_nothing_is_asked() {
    for setting in [Setting::None, Setting::Auto { standalone: true, url: URL.to_owned() }] {
        let story = Story::of(setting, Record::default());
        assert_eq!((story.serving(), story.machine.is_watching()), (Serving::Yes, false));
    }
}

#[test]
fn where_the_kernel_cannot_be_asked_health_counts_alone() {
    let mut story = Story::auto();
    story.machine.handle_rules(None, story.now);
    story.health(200);
    assert_eq!(story.serving(), Serving::Yes);
}

/// Input: health fails for two seconds and is good for two, again and again (a kube-proxy in CrashLoopBackOff); then it is
/// good for long, and fails once. Output: the path is bad after a few losses, and good once health is good for long; what was long ago
/// counts no more.
#[test]
fn a_proxy_that_flaps_moves_addresses_a_few_times_and_then_no_more() {
    let mut story = Story::good();
    let mut moves = 0;
    let mut answers = |story: &mut Story, status, millis| {
        for _ in 0..millis / 100 {
            let before = story.serving();
            story.health(status);
            story.pass(100);
            moves += u32::from(story.serving() != before);
        }
        moves
    };
    for _ in 0..10 {
        answers(&mut story, 503, 2_000);
        answers(&mut story, 200, 2_000);
    }
    assert_eq!(answers(&mut story, 503, 2_000), 5, "it is lost three times, and regained twice");
    answers(&mut story, 200, 2_000);
    assert_eq!(story.serving(), Serving::Lost);
    assert_eq!(
        story.fault(),
        "http://127.0.0.1:10256/healthz answers 200, and was bad 3 times a short while ago: it counts as good once it has been for 4 s"
    );
    assert_eq!(answers(&mut story, 200, 3_000), 6);
    assert_eq!(story.serving(), Serving::Yes);
    answers(&mut story, 200, 600_000);
    assert_eq!(answers(&mut story, 503, 2_000), 7);
    assert_eq!(answers(&mut story, 200, 1_100), 8, "after a second, as at first");
    for _ in 0..20 {
        answers(&mut story, 503, 2_000);
        answers(&mut story, 200, 70_000);
        assert_eq!(story.serving(), Serving::Yes, "never longer than a minute");
    }
}
