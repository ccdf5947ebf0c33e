//! Judges the data path from what is seen of it: kube-proxy's health and rules, or the Ready condition of this Node.
//! Floor 1. Asks nothing itself: `task` asks, and comes back at [`Machine::next_deadline`].
//!
//! - A node's path is good since the boot once it was seen good; the boot is known by the kernel's boot id. What another boot
//!   has left behind does not count.
//! - Health that fails for [`LOST_AFTER`] makes the path bad, a shorter failure does nothing. Health alone is not enough:
//!   kube-proxy answers 200 before its first rules stand, and long after somebody has flushed them. Rules that were seen and are
//!   gone make the path bad at once, until they are back or another program answers in kube-proxy's place. The kernel is asked
//!   between its changes, so rules that one change replaces are never seen missing.
//! - A path that was bad when the agent ended is bad when the next one starts, until it is seen good: a restart draws no addresses
//!   from nodes that serve.
//! - With `auto`, rules tell alone where no health was heard since the boot: kube-proxy's health may be bound to another port.
//! - Rules of iptables-legacy are not in nftables and not seen; there kube-proxy's health decides alone.

use std::time::{Duration, Instant};

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::address::Family;
use crate::path_state::{DataPath, PathFault, PathSource, PathState};

/// Health that fails for so long makes the path bad. With the pauses between two questions and the time that an answer may
/// take, a loss is noticed within four seconds.
pub const LOST_AFTER: Duration = Duration::from_millis(1500);

/// Health is good again when it has been for so long, once it made the path bad; with each further loss for twice as long, up to
/// [`REGAINED_AT_LAST`]: each loss moves all addresses of the node.
const REGAINED_AFTER: Duration = Duration::from_secs(1);

/// The longest of these times.
const REGAINED_AT_LAST: Duration = Duration::from_secs(60);

/// Losses are counted until health has not failed for so long.
const CALM_AFTER: Duration = Duration::from_secs(600);

/// A proxy that started without rules and is healthy for this time needs none that the kernel shows (iptables-legacy, eBPF).
/// kube-proxy was seen to answer 200 a tenth of a second before its first rules.
const RULES_EXPECTED_FOR: Duration = Duration::from_secs(5);

/// How long a kube-proxy that ran before the boot is waited for once the Node is Ready. Then it counts as removed.
const PROXY_EXPECTED_FOR: Duration = Duration::from_secs(300);

/// Where kube-proxy says how it is, unless it was told another port.
const KUBE_PROXY_PORT: u16 = 10256;

/// What `[node] data-path` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    Auto {
        /// Objects come from manifests: there is no kube-proxy and no kubelet to wait for.
        standalone: bool,
        /// kube-proxy's health, as people write it.
        url: String,
    },
    Url(String),
    NodeReady,
    None,
}

/// What is kept across restarts of the agent, and of which boot it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The kernel's boot id; empty where nothing was recorded.
    pub boot: String,
    /// The path was seen good in this boot.
    pub good: bool,
    /// kube-proxy answered in this boot, healthy or not; or the URL did.
    pub heard: bool,
    /// kube-proxy's rules were seen in this boot.
    pub rules: Rules,
    /// A kube-proxy was seen in this boot or in the one before.
    pub proxy: bool,
    /// The path was bad when it was last judged: the next agent does not take it for good before it has asked.
    #[serde(default)]
    pub bad: bool,
}

/// Whether the kernel has rules of kube-proxy, for each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// What an attempt to ask for health came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Answered(u16),
    /// Nobody listens at the port: the program has ended, or has not started.
    Refused,
    /// No connection, no answer in time, or no HTTP.
    Silent(String),
}

/// What the API server says of this host's Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    pub ready: bool,
    /// `status.nodeInfo.bootID`, written by the kubelet; `None` where no kubelet wrote one.
    pub boot_id: Option<String>,
}

/// The machine of one node. Feed it with the `handle_` functions, then read [`path`](Self::path) and
/// [`record`](Self::record); call [`handle_timeout`](Self::handle_timeout) at [`next_deadline`](Self::next_deadline). Spare
/// calls are harmless.
#[derive(Debug)]
pub struct Machine {
    setting: Setting,
    record: Record,
    path: DataPath,
    /// A kube-proxy was seen in the boot before this one.
    proxy_before: bool,
    health: Option<Run>,
    /// `None` until the kernel was asked, and where it cannot be.
    rules: Option<Rules>,
    /// Nobody listened at the port since rules were missed: whoever answers next has started without them.
    ended_without_rules: bool,
    node: Option<NodeReport>,
    ready_since: Option<Instant>,
    /// How often health made the path bad, until it is calm.
    losses: u32,
    /// When health failed last.
    failed: Option<Instant>,
    /// When the state may change without anything being seen.
    deadline: Option<Instant>,
}

/// A run of answers of one kind.
#[derive(Debug, Clone)]
struct Run {
    since: Instant,
    /// The newest fault; `None` while it is healthy.
    fault: Option<PathFault>,
}

impl Machine {
    /// `record` is what was kept last, `boot` the kernel's boot id now.
    pub fn new(setting: Setting, record: Record, boot: &str, now: Instant) -> Machine {
        let proxy_before = record.proxy && record.boot != boot;
        let record = if record.boot == boot && !boot.is_empty() {
            record
        } else {
            Record { boot: boot.to_owned(), proxy: record.proxy, ..Record::default() }
        };
        let mut machine = Machine {
            setting,
            record,
            path: DataPath::UNWATCHED,
            proxy_before,
            health: None,
            rules: None,
            ended_without_rules: false,
            node: None,
            ready_since: None,
            losses: 0,
            failed: None,
            deadline: None,
        };
        machine.judge(now);
        machine
    }

    pub fn path(&self) -> &DataPath {
        &self.path
    }

    /// What to keep.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether there is anything to ask at all.
    pub fn is_watching(&self) -> bool {
        !matches!(self.setting, Setting::None | Setting::Auto { standalone: true, .. })
    }

    /// Whether health is asked for.
    pub fn asks_health(&self) -> bool {
        match &self.setting {
            Setting::Auto { standalone, .. } => !standalone,
            Setting::Url(_) => true,
            Setting::NodeReady | Setting::None => false,
        }
    }

    /// Health has failed, for too short a time to count yet.
    pub fn is_failing(&self) -> bool {
        self.health.as_ref().is_some_and(|run| run.fault.is_some())
    }

    pub fn handle_health(&mut self, health: Health, now: Instant) {
        let Some(url) = self.url() else { return };
        // kube-proxy answers with one of these two; another program at its port may say anything.
        self.record.heard |= matches!(health, Health::Answered(200 | 503));
        self.ended_without_rules |= health == Health::Refused && self.missing_family().is_some();
        let fault = match health {
            Health::Answered(200) => None,
            Health::Answered(status) => Some(PathFault::Unhealthy { url, status }),
            Health::Refused => Some(PathFault::Silent { url, error: "connection refused".to_owned() }),
            Health::Silent(error) => Some(PathFault::Silent { url, error }),
        };
        match &mut self.health {
            Some(run) if run.fault.is_some() == fault.is_some() => run.fault = fault,
            _ => self.health = Some(Run { since: now, fault }),
        }
        let is_calm = self.failed.is_none_or(|at| now >= at + CALM_AFTER);
        self.losses = if is_calm { 0 } else { self.losses };
        if self.is_failing() {
            self.failed = Some(now);
        }
        self.judge(now);
    }

    /// `None` where the kernel cannot be asked: then health counts alone.
    pub fn handle_rules(&mut self, rules: Option<Rules>, now: Instant) {
        self.rules = rules;
        let seen = rules.unwrap_or_default();
        self.record.rules.ipv4 |= seen.ipv4;
        self.record.rules.ipv6 |= seen.ipv6;
        self.ended_without_rules &= self.missing_family().is_some();
        self.judge(now);
    }

    /// `None` while the API server has not told of the Node, and when it is gone.
    pub fn handle_node(&mut self, node: Option<NodeReport>, now: Instant) {
        self.node = node;
        let ready = self.node_fault().is_none();
        self.ready_since = if ready { self.ready_since.or(Some(now)) } else { None };
        self.judge(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.judge(now);
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn judge(&mut self, now: Instant) {
        self.deadline = None;
        let (source, state) = match &self.setting {
            Setting::None | Setting::Auto { standalone: true, .. } => (PathSource::None, PathState::Good),
            Setting::NodeReady => (PathSource::NodeReady, self.by_node()),
            Setting::Url(_) => (PathSource::Url, self.by_proxy(now)),
            Setting::Auto { standalone: false, .. } => self.by_what_is_there(now),
        };
        self.record.good |= state == PathState::Good;
        match &state {
            PathState::Good => self.record.bad = false,
            PathState::Bad { .. } => self.record.bad = true,
            PathState::Unknown { .. } => {}
        }
        if self.path.state == PathState::Good && is_by_health(&state) {
            self.losses = self.losses.saturating_add(1);
        }
        self.path = DataPath { state, good_since_boot: self.record.good, source };
    }

    fn by_what_is_there(&mut self, now: Instant) -> (PathSource, PathState) {
        if self.record.heard || self.record.rules.any() {
            self.record.proxy = true;
            return (PathSource::KubeProxy, self.by_proxy(now));
        }
        let Some(Run { .. }) = &self.health else {
            return (PathSource::KubeProxy, self.not_asked());
        };
        if self.proxy_before {
            let given_up = self.ready_since.map(|since| since + PROXY_EXPECTED_FOR);
            if given_up.is_none_or(|given_up| now < given_up) {
                self.deadline = given_up;
                return (PathSource::KubeProxy, PathState::Unknown { why: PathFault::ProxyNotStarted });
            }
            self.record.proxy = false;
            self.proxy_before = false;
        }
        (PathSource::NodeReady, self.by_node())
    }

    /// Nothing was seen in this life of the agent.
    fn not_asked(&self) -> PathState {
        match self.record.bad {
            true => PathState::Bad { why: PathFault::WasBad },
            false => PathState::Unknown { why: PathFault::NotAsked { url: self.url().unwrap_or_default() } },
        }
    }

    fn by_node(&self) -> PathState {
        match self.node_fault() {
            None => PathState::Good,
            Some(PathFault::NodeNotTold) if self.record.bad => PathState::Bad { why: PathFault::WasBad },
            Some(why @ (PathFault::NodeNotTold | PathFault::OtherBoot)) => PathState::Unknown { why },
            Some(why) => PathState::Bad { why },
        }
    }

    fn node_fault(&self) -> Option<PathFault> {
        match &self.node {
            None => Some(PathFault::NodeNotTold),
            Some(NodeReport { boot_id: Some(boot), .. }) if *boot != self.record.boot => Some(PathFault::OtherBoot),
            Some(NodeReport { ready: false, .. }) => Some(PathFault::NodeNotReady),
            Some(NodeReport { ready: true, .. }) => None,
        }
    }

    fn by_proxy(&mut self, now: Instant) -> PathState {
        let Some(run) = self.health.clone() else {
            return self.not_asked();
        };
        if let Some(state) = self.by_missing_rules(&run, now) {
            return state;
        }
        match run {
            Run { since, fault: None } => self.by_health(since, now),
            // Its health is not at this port: the rules, which only a running kube-proxy has made since the boot, tell alone.
            Run { fault: Some(_), .. } if !self.record.heard && self.rules_tell_alone() => PathState::Good,
            Run { since, fault: Some(why) } => {
                let lost_at = since + LOST_AFTER;
                match &self.path.state {
                    state @ (PathState::Good | PathState::Unknown { .. }) if now < lost_at => {
                        self.deadline = Some(lost_at);
                        state.clone()
                    }
                    PathState::Good | PathState::Unknown { .. } | PathState::Bad { .. } => PathState::Bad { why },
                }
            }
        }
    }

    /// While health is good, since this time.
    fn by_health(&mut self, since: Instant, now: Instant) -> PathState {
        let (good_at, meanwhile) = match &self.path.state {
            _ if !self.record.good && self.rules == Some(Rules::default()) && self.is_of_kube_proxy() => {
                (since + RULES_EXPECTED_FOR, PathState::Unknown { why: PathFault::RulesNotSeen })
            }
            state if is_by_health(state) => {
                let time = self.regained_after();
                let why = PathFault::Flaps {
                    url: self.url().unwrap_or_default(),
                    losses: self.losses,
                    seconds: time.as_secs(),
                };
                let meanwhile = if time > REGAINED_AFTER { PathState::Bad { why } } else { state.clone() };
                (since + time, meanwhile)
            }
            _ => return PathState::Good,
        };
        if now >= good_at {
            return PathState::Good;
        }
        self.deadline = Some(good_at);
        meanwhile
    }

    /// For how long health has to be good now.
    fn regained_after(&self) -> Duration {
        let doublings = self.losses.saturating_sub(1).min(6);
        (REGAINED_AFTER * (1 << doublings)).min(REGAINED_AT_LAST)
    }

    /// `None` where all rules stand that were seen in this boot.
    fn by_missing_rules(&mut self, run: &Run, now: Instant) -> Option<PathState> {
        let family = self.missing_family()?;
        let why = match run.fault {
            // Flushed under a running kube-proxy, which has ended since: they are gone all the same.
            Some(_) if matches!(self.path.state, PathState::Bad { why: PathFault::RulesGone { .. } }) => {
                PathFault::RulesGone { family }
            }
            Some(_) => PathFault::ProxyGone,
            None if self.ended_without_rules => {
                let needs_none_at = run.since + RULES_EXPECTED_FOR;
                if now >= needs_none_at {
                    self.record.rules = self.rules.unwrap_or_default();
                    self.ended_without_rules = false;
                    return None;
                }
                self.deadline = Some(needs_none_at);
                PathFault::RulesNotSeen
            }
            None => PathFault::RulesGone { family },
        };
        Some(PathState::Bad { why })
    }

    /// A family whose rules were seen in this boot and are gone.
    fn missing_family(&self) -> Option<Family> {
        let (seen, stand) = (self.record.rules, self.rules?);
        match (seen.ipv4 && !stand.ipv4, seen.ipv6 && !stand.ipv6) {
            (true, _) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) => None,
        }
    }

    /// What is asked is kube-proxy, whose health alone does not tell of its rules: another program at a port of its own has none.
    fn is_of_kube_proxy(&self) -> bool {
        match &self.setting {
            Setting::Auto { .. } => true,
            Setting::Url(url) => url.parse::<Uri>().is_ok_and(|url| url.port_u16() == Some(KUBE_PROXY_PORT)),
            Setting::NodeReady | Setting::None => false,
        }
    }

    fn rules_tell_alone(&self) -> bool {
        matches!(self.setting, Setting::Auto { .. }) && self.rules.is_some_and(Rules::any)
    }

    fn url(&self) -> Option<String> {
        match &self.setting {
            Setting::Auto { url, .. } | Setting::Url(url) => Some(url.clone()),
            Setting::NodeReady | Setting::None => None,
        }
    }
}

fn is_by_health(state: &PathState) -> bool {
    let PathState::Bad { why } = state else { return false };
    matches!(why, PathFault::Unhealthy { .. } | PathFault::Silent { .. } | PathFault::Flaps { .. })
}

impl Rules {
    pub fn any(self) -> bool {
        self.ipv4 || self.ipv6
    }
}

#[cfg(test)]
mod tests;
