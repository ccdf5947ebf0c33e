//! Which connections are to end because the table has their packets leave otherwise now. Floor 1.
//!
//! Conntrack keeps the source that a connection began with, whatever the table says later. What the connections of a pod may have
//! begun with is told by the content that they were judged by the last time: before a restart that is what the previous agent had in
//! the kernel. A pod that is held meanwhile keeps its connections, but only those to destinations that egress is still for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::packet::Connection;
use super::ruleset::Content;
use crate::plan::slice::Mapping;

/// What connections were judged by, and are judged by now.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    pub before: &'a Content,
    pub content: &'a Content,
    /// The pods whose connections are looked at.
    pub pods: &'a BTreeSet<IpAddr>,
    /// Those that nobody asks for any more. Of others that are held the guard drops the packets, and connections outlast that.
    pub released: &'a BTreeSet<IpAddr>,
}

impl Judge<'_> {
    /// The connection leaves to the outside with another source than it is to. Connections inside of the cluster stay, and those to
    /// destinations that egress is not for and was not for before.
    pub fn is_stale(&self, connection: &Connection) -> bool {
        let Connection { source, peer, leaves_as, .. } = connection;
        let Some(mapping) = self.pods.get(source).and_then(|pod| self.content.pods.get(pod)) else { return false };
        if self.content.cluster.iter().any(|net| net.contains(peer)) {
            return false;
        }
        if self.content.exempts(*source, *peer) {
            // The guard lets it pass whatever the pod's way is, also while that is not known.
            return match self.before.pods.contains_key(source) {
                true => !self.before.exempts(*source, *peer),
                // With a Service's address it was one of egress, whatever became of the table, and with its own one that was on its
                // way to the owner; where nobody translates what leaves, conntrack takes it up again as it was.
                false => {
                    let was_steered = matches!(mapping, Mapping::Steered { .. }) && leaves_as == source;
                    was_steered || self.content.egress.contains(leaves_as)
                }
            };
        }
        match mapping {
            Mapping::Translated { address, network: _ } => address != leaves_as,
            Mapping::Steered { .. } => source != leaves_as,
            Mapping::Networked(exit) => exit.source != *leaves_as,
            // They are dropped, and go on where the pod has its way again.
            Mapping::Held => self.released.contains(source),
        }
    }

    /// The connection goes to the outside, to a destination that egress of its pod is for.
    pub fn is_egress(&self, Connection { source, peer, .. }: &Connection) -> bool {
        let is_inside = self.content.cluster.iter().any(|net| net.contains(peer));
        !is_inside && !self.content.exempts(*source, *peer)
    }

    /// The connection left to the outside as egress of its pod did, which had its address before the pod that has it now.
    pub fn is_former(&self, connection: &Connection) -> bool {
        let Connection { source, peer, .. } = connection;
        let is_inside = self.content.cluster.iter().any(|net| net.contains(peer));
        self.pods.contains(source) && !is_inside && !self.before.exempts(*source, *peer)
    }
}

/// Pods whose egress is for other destinations than before. Between the former list and the one that they are to have they are held to
/// the former one: meanwhile the connections to destinations that egress is not for any more are ended, which would leave with the
/// pod's own address as soon as the table lets them pass. An agent that dies meanwhile leaves the former lists in the table, by which the
/// next one judges.
#[derive(Debug, PartialEq, Eq)]
pub struct Relisted {
    pub pods: BTreeSet<IpAddr>,
    /// What the table holds meanwhile.
    pub holding: Content,
}

impl Relisted {
    /// `None` where no pod that leaves, and was known before, has another list.
    pub fn of(before: &Content, after: &Content) -> Option<Relisted> {
        let is_there = |pod: &IpAddr| before.pods.contains_key(pod) && after.pods.contains_key(pod);
        let differs = |pod: &&IpAddr| is_there(pod) && before.bounded.get(*pod) != after.bounded.get(*pod);
        let bounded = before.bounded.keys().chain(after.bounded.keys());
        let pods: BTreeSet<IpAddr> = bounded.filter(differs).copied().collect();
        if pods.is_empty() {
            return None;
        }
        let mut holding = after.clone();
        for pod in &pods {
            holding.pods.insert(*pod, Mapping::Held);
            holding.bounded.remove(pod);
            if let Some(number) = before.bounded.get(pod) {
                holding.bounded.insert(*pod, *number);
                holding.lists.extend(before.lists.get(number).map(|list| (*number, list.clone())));
            }
        }
        Some(Relisted { pods, holding })
    }
}

/// What a table held that is taken away for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last {
    pub pods: BTreeSet<IpAddr>,
    /// The Services' addresses that they left with, by whichever node.
    pub addresses: BTreeSet<IpAddr>,
    /// Destinations inside of the cluster.
    pub cluster: BTreeSet<IpNet>,
}

impl Last {
    /// The connection left to the outside as the table had it: with a Service's address, or with the pod's own on its way to the owner.
    pub fn is_over(&self, Connection { source, peer, leaves_as, .. }: &Connection) -> bool {
        let is_inside = self.cluster.iter().any(|net| net.contains(peer));
        let left_by_table = self.addresses.contains(leaves_as) || leaves_as == source;
        self.pods.contains(source) && !is_inside && left_by_table
    }
}

/// What connections are judged by the next time. A pod that nobody knew before, and that is held because its way is not known, has not
/// been judged yet.
pub fn judged(before: &Content, mut content: Arc<Content>) -> Arc<Content> {
    let unjudged = |(pod, mapping): &(&IpAddr, &Mapping)| **mapping == Mapping::Held && !before.pods.contains_key(*pod);
    let unjudged: BTreeSet<IpAddr> = content.pods.iter().filter(unjudged).map(|(pod, _)| *pod).collect();
    if !unjudged.is_empty() {
        let content = Arc::make_mut(&mut content);
        content.pods.retain(|pod, _| !unjudged.contains(pod));
    }
    content
}

/// The pods whose packets leave otherwise than before.
pub fn changed(before: &Content, after: &Content) -> BTreeSet<IpAddr> {
    let differs = |pod: &IpAddr, mapping: &Mapping| {
        before.pods.get(pod) != Some(mapping) || before.bounded.get(pod) != after.bounded.get(pod)
    };
    after.pods.iter().filter(|(pod, mapping)| differs(pod, mapping)).map(|(pod, _)| *pod).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::egress::machine::{Guarded, Machine};
    use crate::plan::slice::{EgressSlice, Exit};
    use crate::world::Destinations;

    const POD: &str = "10.244.1.7";
    const SERVICE: &str = "192.0.2.1";
    const NODE: &str = "192.168.35.11";
    const HELD: Mapping = Mapping::Held;
    const STEERED: Mapping = Mapping::Steered { slot: 1 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn here() -> Mapping {
        Mapping::Translated { address: ip(SERVICE), network: None }
    }

    fn by_network() -> Mapping {
        Mapping::Networked(Exit { slot: None, link: 2, source: ip(NODE) })
    }

    /// What the plan has of the one pod, with a list of exceptions.
    fn slice(mapping: Mapping, except: &str) -> EgressSlice {
        let list = || Destinations { to: Vec::new(), except: vec![except.parse().unwrap()] };
        let bounded = (!except.is_empty()).then(|| (ip(POD), Arc::new(list())));
        EgressSlice {
            planned: true,
            complete: true,
            pods: [(ip(POD), mapping)].into_iter().collect(),
            addresses: [ip(SERVICE)].into_iter().collect(),
            bounded: bounded.into_iter().collect(),
            ..EgressSlice::default()
        }
    }

    /// Which connections of the pod to this peer the steps end, each judged by the one before; and which sources those have that stay.
    fn ended(machine: &mut Machine, steps: &[(Mapping, &str)], peer: &str, leaves_as: &str) -> Vec<bool> {
        let connection = Connection::between(ip(POD), ip(peer), ip(leaves_as));
        let mut before = machine.content().clone();
        let mut ended = Vec::new();
        for (mapping, except) in steps {
            machine.handle_plan(&slice(*mapping, except), clock::now());
            let content = machine.content().clone();
            let (pods, released) = (changed(&before, &content), BTreeSet::new());
            let judge = Judge { before: &before, content: &content, pods: &pods, released: &released };
            ended.push(judge.is_stale(&connection));
            before = (*judged(&before, Arc::new(content))).clone();
        }
        ended
    }

    fn machine() -> Machine {
        Machine::new(Duration::from_secs(600))
    }

    const ALL: &str = "";
    const BUT: &str = "203.0.113.0/24";
    const EXEMPT: &str = "203.0.113.9";
    const COVERED: &str = "198.51.100.9";

    /// Input: a pod that is held because its owner is not known, and in the same time, or in one edit with the end
    /// of that, a list of exceptions. Output: what is open to these ends once, for its packets are let pass from then on.
    #[test]
    fn a_list_that_changes_while_the_pod_is_held_ends_what_it_concerns() {
        for (way, leaves_as) in [(here(), SERVICE), (STEERED, POD), (by_network(), NODE)] {
            let one_edit = [(way, ALL), (HELD, ALL), (way, BUT)];
            assert_eq!(ended(&mut machine(), &one_edit, EXEMPT, leaves_as), [false, false, true], "{way:?}");
            // The owner is not known in the moment of the edit: the list comes first, the way behind it.
            let apart = [(way, ALL), (HELD, ALL), (HELD, BUT), (way, BUT)];
            assert_eq!(ended(&mut machine(), &apart, EXEMPT, leaves_as), [false, false, true, false], "{way:?}");
            assert_eq!(
                ended(&mut machine(), &apart, COVERED, leaves_as),
                [false; 4],
                "it goes on when the way is back"
            );
        }
        // Behind an annotation that could not be read, as without egress again.
        let read = [(here(), BUT), (HELD, ALL), (here(), BUT)];
        assert_eq!(ended(&mut machine(), &read, COVERED, SERVICE), [false; 3]);
    }

    /// Input: a list that was added, or taken away, while no agent ran. Output: the agent judges by the lists in the
    /// table that it finds, also where the pod's way is not known at first.
    #[test]
    fn over_a_restart_connections_are_judged_by_the_list_that_the_table_had() {
        let restarted = |except: &str| {
            let list = Destinations { to: Vec::new(), except: except.parse().into_iter().collect() };
            let destinations = (!except.is_empty()).then(|| Arc::new(list));
            let mut machine = machine();
            machine.handle_held([Guarded { pod: ip(POD), destinations, kept: None }], clock::now());
            machine
        };
        for (way, leaves_as) in [(here(), SERVICE), (STEERED, POD), (by_network(), NODE)] {
            let added = [(HELD, BUT), (way, BUT)];
            assert_eq!(ended(&mut restarted(ALL), &added, EXEMPT, leaves_as), [true, false], "{way:?}");
            assert_eq!(ended(&mut restarted(ALL), &added[1..], EXEMPT, leaves_as), [true], "{way:?}");
            // The list that there was: they leave as they did, by whatever address.
            assert_eq!(ended(&mut restarted(BUT), &added, EXEMPT, leaves_as), [false, false], "{way:?}");
        }
        let removed = [(HELD, ALL), (here(), ALL)];
        assert_eq!(ended(&mut restarted(BUT), &removed, EXEMPT, NODE), [false, true], "it is egress of the pod now");
    }

    /// Input: a pod that no table has, or none has any more, for the table was removed while no agent ran and a list was
    /// added; its way is known at once, or later. Output: what it has open to destinations that its egress is not for stays, but for
    /// what has a Service's address, or its own as on its way to the owner.
    #[test]
    fn what_is_not_egress_of_a_new_pod_stays_as_it_is() {
        for (way, leaves_as, expected) in [
            (here(), NODE, false),
            (here(), SERVICE, true),
            (STEERED, NODE, false),
            (STEERED, SERVICE, true),
            (STEERED, POD, true),
            (by_network(), NODE, false),
        ] {
            assert_eq!(ended(&mut machine(), &[(way, BUT)], EXEMPT, leaves_as), [expected], "{way:?}");
            let later = ended(&mut machine(), &[(HELD, BUT), (way, BUT)], EXEMPT, leaves_as);
            assert_eq!(later.contains(&true), expected, "{way:?}, {leaves_as}, when its way is known");
        }
        assert_eq!(ended(&mut machine(), &[(here(), BUT)], COVERED, NODE), [true]);
        assert_eq!(ended(&mut machine(), &[(HELD, BUT)], COVERED, NODE), [false], "its packets are dropped");
    }

    /// Input: pods of which one gets a list, one loses it, and others keep what they have. Output: the two are held,
    /// each to its former list, until what they had open is ended; nothing where no list changes.
    #[test]
    fn pods_whose_lists_change_are_held_to_the_former_ones_meanwhile() {
        let list = |except: &str| Arc::new(Destinations { to: Vec::new(), except: vec![except.parse().unwrap()] });
        let pod = |last: u8| IpAddr::from([10, 244, 1, last]);
        let content = |bounded: &[(u8, u32)]| Content {
            pods: [(1, STEERED), (2, here()), (3, STEERED), (4, HELD)].map(|(last, it)| (pod(last), it)).into(),
            bounded: bounded.iter().map(|(last, number)| (pod(*last), *number)).collect(),
            lists: bounded.iter().map(|(_, number)| (*number, list(&format!("203.0.113.{number}/32")))).collect(),
            ..Content::default()
        };
        let (before, after) = (content(&[(2, 1), (3, 1), (4, 1)]), content(&[(1, 2), (3, 1), (4, 1)]));
        let Relisted { pods, holding } = Relisted::of(&before, &after).unwrap();
        assert_eq!(pods, [pod(1), pod(2)].into());
        assert_eq!([1, 2, 3].map(|last| holding.pods[&pod(last)]), [HELD, HELD, STEERED]);
        assert_eq!(holding.bounded, before.bounded, "the former lists");
        assert_eq!(holding.lists.keys().copied().collect::<Vec<_>>(), [1, 2], "and the new one is there already");
        assert_eq!(Relisted::of(&after, &after), None);
        assert_eq!(Relisted::of(&Content::default(), &after), None, "pods that are new are held to nothing yet");
    }

    /// Input: connections of a pod when the table is taken away for good.
    #[test]
    fn what_left_by_a_table_that_is_taken_away_is_over() {
        let last = Last {
            pods: [ip(POD)].into(),
            addresses: [ip(SERVICE)].into(),
            cluster: ["10.96.0.0/12".parse().unwrap()].into(),
        };
        let is_over = |pod: &str, peer: &str, leaves_as: &str| {
            last.is_over(&Connection::between(ip(pod), ip(peer), ip(leaves_as)))
        };
        assert!(is_over(POD, COVERED, SERVICE) && is_over(POD, COVERED, POD));
        assert!(!is_over(POD, COVERED, NODE), "it left as without egress");
        assert!(!is_over(POD, "10.96.0.10", POD), "inside of the cluster");
        assert!(!is_over("10.244.1.8", COVERED, "10.244.1.8"), "another pod's");
    }
}
