//! What keeps addresses from being allocated, apart from a Service itself: the Lease, and files that differ. Floor 1.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Snapshot;
use super::words::some_of;
use crate::config::{Source, lease_of_class, own_lease_of_class};
use crate::names::{NodeName, ObjectKey};
use crate::plan::removals::{self, Wait};
use crate::reason::Reason;
use crate::world::{ApiServer, LeaseState, Refusal, Silence, Trouble, is_of_default};

/// A holder that does not renew for this long is a problem: a dead one has been followed by then, so something is in the way.
const TOO_SILENT: Duration = Duration::from_secs(30);

/// Who holds the Lease, as far as this agent knows. Standalone there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatorReport {
    /// The node whose agent holds the Lease; `None` where none is known.
    pub holder: Option<NodeName>,
    /// Since when it does, by its own clock.
    pub since: Option<Timestamp>,
    /// Since when this agent has seen no renewal, where that is longer than a holder takes that lives.
    pub not_renewed_since: Option<Timestamp>,
    /// The last renewal of such a holder, by its own clock.
    pub last_renewal: Option<Timestamp>,
    /// The holder is another program, which allocates nothing.
    #[serde(default)]
    pub no_crier: bool,
}

/// The report.
pub(super) fn allocator(snapshot: &Snapshot) -> AllocatorReport {
    let LeaseState { holder, held_since, digest: _, class: _, inherited: _, agreed: _, silence: _, trouble: _ } =
        &snapshot.world.lease;
    let timestamp = |at: SystemTime| Timestamp::try_from(at).ok();
    let silence = silence(snapshot);
    AllocatorReport {
        holder: holder.clone(),
        since: held_since.and_then(timestamp),
        not_renewed_since: silence.and_then(|it| timestamp(it.since)),
        last_renewal: silence.and_then(|it| timestamp(it.last_renewal?)),
        no_crier: !snapshot.world.allocates && is_no_crier(&snapshot.world.lease),
    }
}

/// Each crier that takes or renews the Lease says there what it serves, and by which pools.
fn is_no_crier(lease: &LeaseState) -> bool {
    lease.holder.is_some() && lease.class.is_none() && lease.digest.is_none()
}

/// For whom a Service waits that has no address.
pub(super) fn awaited(snapshot: &Snapshot) -> String {
    let lease = &snapshot.world.lease;
    match &lease.holder {
        Some(holder) if !snapshot.world.allocates && is_no_crier(lease) => {
            format!("{holder}, which is not a crier agent, holds the Lease, so no address is written")
        }
        Some(holder) => format!("the agent of {holder} holds the Lease and has not written an address yet"),
        None => "no agent is known to hold the Lease, so none has written an address".to_owned(),
    }
}

/// Why the addresses that are to go are still there, where that is for the files of others.
pub(super) fn stays(snapshot: &Snapshot) -> Option<String> {
    let wait = snapshot.plan.removals_wait?;
    let (world, digest) = (&snapshot.world, snapshot.written.allocation_digest().0);
    let lease = snapshot.written.lease_digest();
    let others: BTreeSet<NodeName> = removals::others(world, digest, lease).cloned().collect();
    if !others.is_empty() {
        return Some(format!("it stays while the pools of {} differ from this node's", some_of(&others)));
    }
    let unheard: BTreeSet<NodeName> = removals::unheard(world, &snapshot.node).cloned().collect();
    if unheard.is_empty() {
        return None;
    }
    let unheard = some_of(&unheard);
    match (wait, &snapshot.config.source) {
        (Wait::Until(until), _) => {
            let at = snapshot.timestamp(until)?.strftime("%H:%M:%SZ");
            Some(format!("it waits for the agent of {unheard}, which is not heard; taken at {at}"))
        }
        (Wait::Confirmation, Source::Kubernetes(kubernetes)) => {
            let (ObjectKey { namespace, name }, confirmation) = (&kubernetes.lease, LeaseState::confirmation(digest));
            Some(format!(
                "it stays, for the agents agreed on other pools than those of this node's file before, and the agent of {unheard} is not heard: \
                 give all nodes the same file; if that is this node's, `kubectl -n {namespace} annotate --overwrite lease {name} \
                 {confirmation}` confirms it"
            ))
        }
        (Wait::Confirmation, Source::Manifests(_)) => None,
    }
}

/// The holder's silence, where it is the holder that is silent and not the API server.
fn silence(snapshot: &Snapshot) -> Option<&Silence> {
    let hears = match &snapshot.world.api_server {
        ApiServer::Reachable => true,
        ApiServer::Unreachable { refusal, .. } => refusal.is_about_rights(),
        ApiServer::Connecting | ApiServer::Manifests => false,
    };
    snapshot.world.lease.silence.as_ref().filter(|_| hears)
}

fn silent(snapshot: &Snapshot, lease: &ObjectKey, holder: &NodeName) -> Option<String> {
    let Silence { since, last_renewal, taken_after } = silence(snapshot)?;
    let trouble = snapshot.world.lease.trouble.as_ref();
    // Whom the API server does not know hears no renewal either.
    if trouble.is_some_and(|it| it.refusal == Refusal::Unauthorized) {
        return None;
    }
    if snapshot.wall.duration_since(*since).is_ok_and(|it| it < TOO_SILENT) {
        return None;
    }
    let renewed = last_renewal.map(|at| format!(" (last by its own clock: {})", time(at))).unwrap_or_default();
    let then = match taken_after {
        Some(_) if trouble.is_some() => "this agent cannot take it over (see the problem of the Lease)".to_owned(),
        Some(after) => format!("this agent takes it over {} s after that", after.as_secs()),
        None => "this agent has no [[pool]] and never takes it over; does an agent run that has one?".to_owned(),
    };
    let ObjectKey { namespace, name } = lease;
    Some(format!(
        "the Lease {lease} is held by {holder}, which has not renewed it since {}{renewed}, so no Service gets an address: {then}; if \
         the agent of {holder} is gone, `kubectl -n {namespace} delete lease {name}` frees it at once",
        time(*since)
    ))
}

/// Who allocates by other pools than this node's, where [`problems`] names it: one of the same class, which renews the Lease.
pub(super) fn holder_of_other_pools(snapshot: &Snapshot) -> Option<&NodeName> {
    let Source::Kubernetes(kubernetes) = &snapshot.config.source else { return None };
    let LeaseState { holder, digest, class, .. } = &snapshot.world.lease;
    let holder = holder.as_ref().filter(|_| !snapshot.world.allocates)?;
    let is_told = silent(snapshot, &kubernetes.lease, holder).is_none();
    let is_of_class = class.as_ref().is_none_or(|class| *class == kubernetes.classes.join(", "));
    let differs = digest.is_some_and(|digest| digest != snapshot.written.allocation_digest().0);
    (is_told && is_of_class && differs).then_some(holder)
}

/// Each in one sentence with its remedy.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let Source::Kubernetes(kubernetes) = &snapshot.config.source else { return Vec::new() };
    let LeaseState { holder, held_since, digest: _, class, inherited: _, agreed: _, silence: _, trouble } =
        &snapshot.world.lease;
    let lease = &kubernetes.lease;
    let mut problems = Vec::new();
    if let Some(Trouble { why, refusal }) = trouble {
        let remedy = match (refusal, is_of_default(lease)) {
            (Refusal::NoAnswer | Refusal::Unauthorized | Refusal::Other(_), _) => String::new(),
            (Refusal::Anonymous, _) => format!("; {}", Refusal::SEES_NOBODY),
            (Refusal::Forbidden, true) => "; apply the objects of `crier rbac`".to_owned(),
            (Refusal::Forbidden, false) => format!("; apply the objects of `crier rbac --lease {lease}`"),
        };
        problems.push(format!(
            "the Lease {lease} cannot be read, taken or renewed, so this agent may not allocate: {why}{remedy}"
        ));
    }
    if snapshot.config.pools.is_empty() {
        problems.push("this node's file has no [[pool]], so this agent never allocates".to_owned());
    }
    let waiting = snapshot.plan.decisions.values().filter(|it| it.allocation.reason == Reason::WaitingForAllocator);
    let waiting = if holder.is_none() && !snapshot.world.allocates { waiting.count() } else { 0 };
    if waiting > 0 && trouble.is_none() {
        problems.push(format!(
            "no agent holds the Lease {lease}, and Services wait for an address: {waiting}; see the log of the agents whose file has a \
             [[pool]]"
        ));
    }
    let Some(holder) = holder.as_ref().filter(|_| !snapshot.world.allocates) else { return problems };
    let since = held_since.map(|at| format!(" since {}", time(at))).unwrap_or_default();
    if let Some(silent) = silent(snapshot, lease, holder) {
        // The next holder may well have the pools of this one.
        problems.push(silent);
        return problems;
    }
    if is_no_crier(&snapshot.world.lease) {
        let ObjectKey { namespace, name } = lease;
        problems.push(format!(
            "the Lease {lease} is held by {holder}{since}, which is not a crier agent (it wrote neither class nor pools there) and renews it: no \
             Service gets an address; have that program use another Lease, and `kubectl -n {namespace} delete lease {name}`, or give this \
             one's agents another ([kubernetes] lease)"
        ));
        return problems;
    }
    let own = kubernetes.classes.join(", ");
    if let Some(class) = class.as_ref().filter(|class| **class != own) {
        // The lists are as they were written.
        let first = |classes: &str| classes.split(", ").next().unwrap_or_default().to_owned();
        let one_name = [&own, class].iter().all(|classes| lease_of_class(&first(classes)) == *lease);
        let remedy = match one_name {
            true => format!(
                "both classes lead to this name of a Lease: set [kubernetes] lease = \"{}\" in the files of {own}, or another one in those \
                 of {class}",
                own_lease_of_class(&first(&own))
            ),
            false => "give each class a Lease of its own ([kubernetes] lease)".to_owned(),
        };
        problems.push(format!(
            "the Lease {lease} is held by {holder}{since}, whose crier serves the class {class}: no Service of the class {own} gets an \
             address; {remedy}"
        ));
    } else if holder_of_other_pools(snapshot).is_some() {
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
    use crate::world::{Fact, Link};

    const CONFIG: &str = "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n";

    fn said(text: &str, state: LeaseState) -> Vec<String> {
        problems(&snapshot(text, state, ApiServer::Reachable))
    }

    fn snapshot(text: &str, state: LeaseState, api_server: ApiServer) -> Snapshot {
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        planner.apply(Fact::Lease(Box::new(state)));
        planner.apply(Fact::ApiServer(api_server));
        let counters = Counters::default();
        Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), SystemTime::UNIX_EPOCH + DAY)
    }

    /// When the snapshots are taken.
    const DAY: Duration = Duration::from_secs(86_400);

    /// A holder that does not renew, for so long.
    fn ghost(silent_secs: u64, taken_after: Option<Duration>) -> LeaseState {
        let since = SystemTime::UNIX_EPOCH + DAY - Duration::from_secs(silent_secs);
        let silence = Silence { since, last_renewal: Some(SystemTime::UNIX_EPOCH), taken_after };
        LeaseState { silence: Some(silence), ..held(1, "example.com/b") }
    }

    /// Input: a holder that has not renewed for so long. Output: from 30 s on one problem, in place of what its pools are.
    #[test]
    fn a_holder_that_does_not_renew_is_a_problem_after_30_s() {
        let minute = Some(Duration::from_secs(60));
        for (state, words) in [
            (
                ghost(30, minute),
                ["held by n3", "since 1970-01-01T23:59:30Z", "1970-01-01T00:00:00Z", "takes it over 60 s after"],
            ),
            (
                ghost(90, None),
                [
                    "held by n3",
                    "no [[pool]]",
                    "no Service gets an address",
                    "kubectl -n kube-system delete lease crier",
                ],
            ),
        ] {
            let said = said(CONFIG, state);
            assert_eq!(said.len(), 1, "{said:?}");
            words.iter().for_each(|word| assert!(said[0].contains(word), "{word} in: {}", said[0]));
        }
        let said_before = said(CONFIG, ghost(29, minute));
        assert!(!said_before.iter().any(|it| it.contains("has not renewed")), "{said_before:?}");
    }

    /// An agent that does not hear the API server hears no renewal either.
    #[test]
    fn the_silence_of_the_api_server_is_not_the_holders() {
        let why = "no answer".to_owned();
        let away = ApiServer::Unreachable { since: SystemTime::UNIX_EPOCH, why, refusal: Refusal::NoAnswer };
        let seen = |api_server| allocator(&snapshot(CONFIG, ghost(60, None), api_server));
        let since = |report: AllocatorReport| report.not_renewed_since.map(|at| at.as_second());
        assert_eq!(since(seen(ApiServer::Reachable)), Some(86_340));
        assert_eq!(since(seen(away)), None);
    }

    /// Input: addresses that are to go, no pulses, and a Lease that names other pools. Output: who is not heard, and how to confirm.
    #[test]
    fn what_waits_for_somebody_names_the_nodes_and_the_command() {
        let mut snapshot = snapshot(CONFIG, LeaseState::default(), ApiServer::Reachable);
        snapshot.plan.removals_wait = Some(Wait::Confirmation);
        assert_eq!(stays(&snapshot), None, "there is no other Node");
        snapshot.world.nodes.insert("n7".into(), Arc::default());
        let digest = snapshot.written.allocation_digest().0;
        let command =
            format!("kubectl -n kube-system annotate --overwrite lease crier crier.dev/agreed-digest={digest:016x}");
        let said = stays(&snapshot).expect("it stays");
        assert!(said.contains("n7") && said.contains(&command), "{said}");
    }

    #[test]
    fn a_service_without_an_address_waits_for_the_holder_by_name_and_for_nobody_where_none_is_known() {
        let told = |state| awaited(&snapshot(CONFIG, state, ApiServer::Reachable));
        assert!(told(held(1, "a")).contains("the agent of n3"), "{}", told(held(1, "a")));
        assert!(told(LeaseState::default()).contains("no agent is known"), "{}", told(LeaseState::default()));
    }

    fn held(digest: u64, class: &str) -> LeaseState {
        let held_since = Some(SystemTime::UNIX_EPOCH);
        let (holder, digest, class) = (Some("n3".into()), Some(digest), Some(class.to_owned()));
        LeaseState { holder, held_since, digest, class, ..LeaseState::default() }
    }

    /// Input: another program holds the Lease and renews it. Output: a problem with its name, and nobody waits for its agent.
    #[test]
    fn a_holder_that_is_no_crier_is_a_problem_by_name() {
        let state = LeaseState { holder: Some("kube-vip-7".into()), ..LeaseState::default() };
        let told = said(CONFIG, state.clone());
        assert_eq!(told.len(), 1, "{told:?}");
        for word in [
            "the Lease kube-system/crier is held by kube-vip-7",
            "not a crier agent",
            "no Service gets",
            "[kubernetes] lease",
        ] {
            assert!(told[0].contains(word), "{word} in: {}", told[0]);
        }
        let snapshot = snapshot(CONFIG, state, ApiServer::Reachable);
        assert!(
            awaited(&snapshot).contains("kube-vip-7, which is not a crier agent, holds the Lease"),
            "{}",
            awaited(&snapshot)
        );
        assert!(allocator(&snapshot).no_crier);
    }

    #[test]
    fn a_holder_of_the_same_file_and_class_is_no_problem() {
        let file = SourceFile { path: "test.toml".to_owned(), text: CONFIG.to_owned() };
        let digest = parse(&[file], &NoSecrets).unwrap().allocation_digest().0;
        assert_eq!(said(CONFIG, held(digest, "crier.dev/crier")), [""; 0]);
        assert_eq!(said(CONFIG, LeaseState::default()), [""; 0]);
    }

    /// With whole addresses in the place of host parts each node had pools of its own.
    #[test]
    fn nodes_with_the_same_file_have_the_same_pools_whatever_prefix_their_links_have() {
        let text = CONFIG.replace("\"192.0.2.0/28\"]", "\"::100-::1ff\"]\nprefix-of = \"eth0\"");
        let file = SourceFile { path: "test.toml".to_owned(), text };
        let config = Arc::new(parse(&[file], &NoSecrets).unwrap());
        let digest = config.allocation_digest().0;
        let mut planner = Planner::new(config.clone(), "node-1".into());
        planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["2001:db8::7/64"]))));
        for fact in [Fact::LinksListed, Fact::FailStatic, Fact::Lease(Box::new(held(digest, "crier.dev/crier")))] {
            planner.apply(fact);
        }
        let now = clock::now();
        planner.turn(now);
        assert_ne!(planner.config().pools, config.pools, "they are whole");
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), now, clock::wall());
        assert_eq!(problems(&snapshot), [""; 0]);
        let same = crate::views::forecast::forecast(&snapshot, &config).expect("a forecast");
        assert!(same.is_empty() && same.changes.is_empty(), "{same:?}");
    }

    /// Input: two criers whose classes lead to one name of a Lease. Output: both classes, that it is so, and a Lease that is no other's.
    #[test]
    fn classes_that_lead_to_one_lease_are_told_by_name() {
        let text = CONFIG.replace("[[pool]]", "class = \"example.com-b\"\n[[pool]]");
        let said = said(&text, held(1, "example.com/b")).join("\n");
        for word in [
            "the Lease kube-system/crier-example.com-b is held by n3",
            "class example.com/b",
            "class example.com-b",
            "both classes lead to this name",
            "lease = \"kube-system/crier-example.com-b-",
        ] {
            assert!(said.contains(word), "{word} in: {said}");
        }
        assert_ne!(own_lease_of_class("example.com-b"), own_lease_of_class("example.com/b"));
    }

    /// Input: a holder that does not renew, and an agent that is refused the Lease itself. Output: it does not say that it
    /// takes it over; one that the API server does not know says nothing of the holder.
    #[test]
    fn an_agent_that_is_refused_the_lease_does_not_say_that_it_takes_it_over() {
        let minute = Some(Duration::from_secs(60));
        let with = |trouble| said(CONFIG, LeaseState { trouble: Some(trouble), ..ghost(90, minute) }).join("\n");
        let refused = with(trouble(Refusal::Forbidden, "403 forbidden"));
        assert!(
            refused.contains("this agent cannot take it over") && !refused.contains("takes it over 60 s"),
            "{refused}"
        );
        let unknown = with(trouble(Refusal::Unauthorized, "401 Unauthorized"));
        assert!(!unknown.contains("takes it over") && !unknown.contains("has not renewed"), "{unknown}");
    }

    fn trouble(refusal: Refusal, why: &str) -> Trouble {
        Trouble { refusal, why: why.to_owned() }
    }

    /// The rights were named as the remedy of whatever was the matter.
    #[test]
    fn rights_are_no_remedy_for_a_lease_that_is_not_refused() {
        for (refusal, why) in [
            (Refusal::Other(422), "422 metadata.name: Invalid value"),
            (Refusal::NoAnswer, "no answer"),
            (Refusal::NoAnswer, "invalid peer certificate: UnknownIssuer"),
            (Refusal::NoAnswer, "403 says a proxy, and 401"),
        ] {
            let trouble = Some(trouble(refusal, why));
            let said = said(CONFIG, LeaseState { trouble, ..LeaseState::default() });
            assert!(said.len() == 1 && said[0].ends_with(why), "{said:?}");
        }
        let why = "403 leases is forbidden: User \"system:anonymous\" cannot get resource \"leases\"";
        let trouble = Some(trouble(Refusal::Anonymous, why));
        let said = said(CONFIG, LeaseState { trouble, ..LeaseState::default() });
        assert!(said.len() == 1 && said[0].ends_with(Refusal::SEES_NOBODY), "{said:?}");
    }

    #[test]
    fn each_problem_names_the_holder_or_the_lease_and_the_remedy() {
        let trouble =
            LeaseState { trouble: Some(trouble(Refusal::Forbidden, "403 forbidden")), ..LeaseState::default() };
        let no_pool = "[kubernetes]\nin-cluster = true\n";
        for (config, state, words) in [
            (CONFIG, held(1, "crier.dev/crier"), ["n3", "1970-01-01T00:00:00Z", "give all nodes the same file"]),
            (CONFIG, held(1, "example.com/b"), ["n3", "example.com/b", "[kubernetes] lease"]),
            (CONFIG, trouble.clone(), ["kube-system/crier", "403 forbidden", "objects of `crier rbac`"]),
            (
                "[kubernetes]\nin-cluster = true\nlease = \"lb/b\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n",
                trouble,
                ["the Lease lb/b", "403 forbidden", "`crier rbac --lease lb/b`"],
            ),
            (no_pool, LeaseState::default(), ["no [[pool]]", "never", "file"]),
        ] {
            let said = said(config, state);
            assert_eq!(said.len(), 1, "{said:?}");
            words.iter().for_each(|word| assert!(said[0].contains(word), "{word} in: {}", said[0]));
        }
    }
}
