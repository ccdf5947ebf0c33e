//! Which connections are to end because the table has their packets leave otherwise now. Floor 1.
//!
//! Conntrack keeps the source that a connection began with, whatever the table says later. What the connections of a pod may have
//! begun with is told by the content that they were judged by the last time: before a restart that is what the agent before had in
//! the kernel. A pod that is held meanwhile keeps its connections, but only those to destinations that egress is still for.

use std::collections::BTreeSet;
use std::net::IpAddr;

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
                // With the Service's address it was one of egress, whatever became of the table.
                false => mapping.translated() == Some(*leaves_as),
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
            before = content;
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

    /// E2 of a review. Input: a pod that is held because its owner is not known, and in the same time, or in one edit with the end
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

    /// E2 of a review. Input: a list that was added, or taken away, while no agent ran. Output: the agent judges by the lists in the
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

    /// Input: a pod that no table had. Output: what it has open to destinations that its egress is not for stays, but for what has the
    /// Service's address.
    #[test]
    fn what_is_not_egress_of_a_new_pod_stays_as_it_is() {
        for (way, leaves_as, expected) in
            [(here(), NODE, false), (here(), SERVICE, true), (STEERED, POD, false), (by_network(), NODE, false)]
        {
            assert_eq!(ended(&mut machine(), &[(way, BUT)], EXEMPT, leaves_as), [expected], "{way:?}");
        }
        assert_eq!(ended(&mut machine(), &[(here(), BUT)], COVERED, NODE), [true]);
        assert_eq!(ended(&mut machine(), &[(HELD, BUT)], COVERED, NODE), [false], "its packets are dropped");
    }
}
