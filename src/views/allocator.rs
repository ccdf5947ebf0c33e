//! What keeps addresses from being allocated, apart from a Service itself: the Lease, and files that differ. Floor 1.

use std::time::SystemTime;

use jiff::Timestamp;

use super::Snapshot;
use crate::config::Source;
use crate::reason::Reason;
use crate::world::LeaseState;

/// Each in one sentence with its remedy.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let Source::Kubernetes(kubernetes) = &snapshot.config.source else { return Vec::new() };
    let LeaseState { holder, held_since, digest, class, inherited: _, trouble } = &snapshot.world.lease;
    let lease = &kubernetes.lease;
    let mut problems = Vec::new();
    if let Some(why) = trouble {
        problems.push(format!(
            "the Lease {lease} cannot be read, taken or renewed, so this agent may not allocate: {why}; its rights are those that \
             `crier rbac` prints, for the Lease that [kubernetes] lease names"
        ));
    }
    if snapshot.config.pools.is_empty() {
        problems.push("this node's file has no [[pool]], so this agent never allocates".to_owned());
    }
    let waiting = snapshot.plan.decisions.values().filter(|it| it.allocation.reason == Reason::WaitingForAllocator);
    let waiting = if holder.is_none() && !snapshot.world.leader { waiting.count() } else { 0 };
    if waiting > 0 && trouble.is_none() {
        problems.push(format!(
            "no agent holds the Lease {lease}, and Services wait for an address: {waiting}; see the log of the agents whose file has a \
             [[pool]]"
        ));
    }
    let Some(holder) = holder.as_ref().filter(|_| !snapshot.world.leader) else { return problems };
    let since = held_since.map(|at| format!(" since {}", time(at))).unwrap_or_default();
    let own = kubernetes.classes.join(", ");
    if let Some(class) = class.as_ref().filter(|class| **class != own) {
        problems.push(format!(
            "the Lease {lease} is held by {holder}{since}, whose crier serves the class {class}: no Service of the class {own} gets an \
             address; give each class a Lease of its own ([kubernetes] lease)"
        ));
    } else if digest.is_some_and(|digest| digest != snapshot.config.allocation_digest().0) {
        problems.push(format!(
            "the pools of this node differ from those of {holder}, which allocates{since}: this agent does not allocate before no \
             agent with the pools of {holder} is left; give all nodes the same file: compare `crier config show` there and here"
        ));
    }
    problems
}

fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::views::Counters;
    use crate::world::Fact;

    const CONFIG: &str = "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n";

    fn said(text: &str, state: LeaseState) -> Vec<String> {
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        planner.apply(Fact::Lease(Box::new(state)));
        let counters = Counters::default();
        problems(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall()))
    }

    fn held(digest: u64, class: &str) -> LeaseState {
        let held_since = Some(SystemTime::UNIX_EPOCH);
        let (holder, digest, class) = (Some("n3".into()), Some(digest), Some(class.to_owned()));
        LeaseState { holder, held_since, digest, class, ..LeaseState::default() }
    }

    #[test]
    fn a_holder_of_the_same_file_and_class_is_no_problem() {
        let file = SourceFile { path: "test.toml".to_owned(), text: CONFIG.to_owned() };
        let digest = parse(&[file], &NoSecrets).unwrap().allocation_digest().0;
        assert_eq!(said(CONFIG, held(digest, "crier.dev/crier")), [""; 0]);
        assert_eq!(said(CONFIG, LeaseState::default()), [""; 0]);
    }

    #[test]
    fn each_problem_names_the_holder_or_the_lease_and_the_remedy() {
        let trouble = LeaseState { trouble: Some("403 forbidden".to_owned()), ..LeaseState::default() };
        let no_pool = "[kubernetes]\nin-cluster = true\n";
        for (config, state, words) in [
            (CONFIG, held(1, "crier.dev/crier"), ["n3", "1970-01-01T00:00:00Z", "give all nodes the same file"]),
            (CONFIG, held(1, "example.com/b"), ["n3", "example.com/b", "[kubernetes] lease"]),
            (CONFIG, trouble, ["kube-system/crier", "403 forbidden", "crier rbac"]),
            (no_pool, LeaseState::default(), ["no [[pool]]", "never", "file"]),
        ] {
            let said = said(config, state);
            assert_eq!(said.len(), 1, "{said:?}");
            words.iter().for_each(|word| assert!(said[0].contains(word), "{word} in: {}", said[0]));
        }
    }
}
