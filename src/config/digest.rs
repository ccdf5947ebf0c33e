//! What agents must agree on, in a few octets: a digest of each `[[l2]]`, and one of all that decides allocation. Floor 1.
//!
//! Two configurations with one digest decide alike. Comments, formatting, order that does not matter, defaults written out
//! and drop-ins leave a digest as it is. Not a secret and no authentication: 64 bits tell mistakes, not forgeries.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::section::state::DEFAULT_FOLDER;
use super::{Config, Kubernetes, L2, Manifests, Node, Pool, Preference, Reservation, Source, duration};
use crate::address::AddressRange;
use crate::selector::Selector;

/// The first 64 bits of a SHA-256. Prints as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Config {
    /// What decides which node owns an address, of all `[[l2]]` in one. Sections may change places unless they name the same pools.
    pub fn ownership_digest(&self) -> Digest {
        let pools = |l2: &L2| l2.pools.iter().cloned().collect::<BTreeSet<_>>();
        let mut all: Vec<_> = self.l2.iter().map(|l2| (pools(l2), self.ownership(l2))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut sum = Sum::new("crier ownership 1");
        sum.list("l2", all.into_iter().map(|(_, digest)| digest));
        sum.end()
    }

    /// Which interfaces a node announces on, and how it probes and announces, is the node's own affair and left out.
    fn ownership(&self, l2: &L2) -> Digest {
        let L2 {
            pools,
            nodes,
            preference,
            sticky,
            subnet,
            preempt_delay,
            service_selector,
            prefer_endpoints,
            vrf,
            interfaces: _,
            exclude_interfaces: _,
            probe: _,
            ignore_stations: _,
            announce_again: _,
        } = l2;
        let Node { ignore_exclude_label, name: _, data_path: _ } = &self.node;
        let mut sum = Sum::new("crier l2 1");
        let announced = self.pools.iter().filter(|pool| pools.is_empty() || pools.contains(&pool.name));
        // Who owns an address does not depend on the pool that it is from, so neither names nor borders of pools count.
        let addresses: Vec<AddressRange> = announced.flat_map(|pool| pool.addresses.iter().copied()).collect();
        sum.list("addresses", sorted(addresses));
        sum.selector("nodes", nodes.as_ref());
        let mut preference: Vec<String> =
            preference.iter().map(|Preference { nodes, weight }| format!("{weight} {}", requirements(nodes))).collect();
        preference.sort();
        sum.list("preference", preference);
        sum.item("sticky", sticky);
        sum.item("subnet", subnet.name());
        sum.item("preempt-delay", duration::text(*preempt_delay));
        // Keys of later versions count only where they are set: until then a file has the digest that it always had.
        if service_selector.is_some() {
            sum.selector("service-selector", service_selector.as_ref());
        }
        if let Some(vrf) = vrf {
            sum.item("vrf", vrf);
        }
        if *prefer_endpoints {
            sum.item("prefer-endpoints", prefer_endpoints);
        }
        sum.item("ignore-exclude-label", ignore_exclude_label);
        sum.end()
    }

    /// Tells the criers of one cluster apart; `None` where there is no API server.
    pub fn lease_digest(&self) -> Option<u64> {
        let Source::Kubernetes(Kubernetes { lease, .. }) = &self.source else { return None };
        Some(lease_digest(&lease.to_string()))
    }

    /// Tells the agents of one host apart: no two run with one state folder. Zero with the default one, else up to 2²³.
    pub fn number_on_host(&self) -> u32 {
        if self.state.folder == Path::new(DEFAULT_FOLDER) {
            return 0;
        }
        let mut sum = Sum::new("crier host 1");
        sum.item("state", self.state.folder.display());
        let [.., a, b, c] = sum.end().0.to_be_bytes();
        1 + (u32::from_be_bytes([0, a, b, c]) >> 1)
    }

    /// What decides which address a Service gets: where Services come from, and the pools.
    pub fn allocation_digest(&self) -> Digest {
        let mut sum = Sum::new("crier allocation 2");
        match &self.source {
            Source::Kubernetes(Kubernetes { classes, default_class, lease, access: _, servers: _, config: _ }) => {
                // What the ConfigMap says counts, not where it is.
                sum.list("classes", classes.iter().collect::<BTreeSet<_>>());
                sum.item("default-class", default_class);
                sum.item("lease", lease);
            }
            Source::Manifests(Manifests { folder: _ }) => sum.item("standalone", true),
        }
        // Pools are asked by priority, and in the order of the file only within one.
        let mut pools: Vec<&Pool> = self.pools.iter().collect();
        pools.sort_by_key(|pool| (pool.priority.is_none(), pool.priority));
        pools.into_iter().for_each(|pool| sum.pool(pool));
        // Those of different Services may change places.
        let mut reservations: Vec<&Reservation> = self.reservations.iter().collect();
        reservations.sort_by_key(|reservation| &reservation.service);
        for Reservation { service, addresses } in reservations {
            sum.item("reservation", service);
            sum.list("addresses", addresses);
        }
        sum.end()
    }
}

/// The same of a crier whose Lease is `namespace/name`.
pub fn lease_digest(lease: &str) -> u64 {
    let mut sum = Sum::new("crier lease 1");
    sum.item("lease", lease);
    sum.end().0
}

/// A hash of items, none of which can be taken for a part of its neighbour.
struct Sum(Sha256);

impl Sum {
    /// `version` names what is summed up; it changes with the form, so that agents of two forms differ by it.
    fn new(version: &str) -> Sum {
        let mut sum = Sum(Sha256::new());
        sum.item("version", version);
        sum
    }

    fn item(&mut self, key: &str, value: impl fmt::Display) {
        for text in [key, &value.to_string()] {
            self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.0.update(text);
        }
    }

    fn list(&mut self, key: &str, items: impl IntoIterator<Item = impl fmt::Display>) {
        items.into_iter().for_each(|item| self.item(key, item));
        self.item(key, "");
    }

    fn selector(&mut self, key: &str, selector: Option<&Selector>) {
        self.item(key, selector.map(requirements).unwrap_or_default());
    }

    fn pool(&mut self, pool: &Pool) {
        let Pool {
            name,
            addresses,
            auto_assign,
            avoid_network_and_broadcast,
            priority,
            namespaces,
            namespace_selector,
            service_selector,
            rest,
            share_across_namespaces,
            exclude,
            draining,
            prefix_of,
            bind: _,
            // Where an address is announced does not decide who gets it.
            vrf: _,
        } = pool;
        self.item("pool", name);
        self.list("addresses", joined(addresses.iter().copied()));
        self.item("auto-assign", auto_assign);
        self.item("avoid-network-and-broadcast", avoid_network_and_broadcast);
        self.item("priority", priority.map(|priority| priority.to_string()).unwrap_or_default());
        self.list("namespaces", namespaces.iter().collect::<BTreeSet<_>>());
        self.selector("namespace-selector", namespace_selector.as_ref());
        self.selector("service-selector", service_selector.as_ref());
        self.item("rest", duration::text(*rest));
        self.item("share-across-namespaces", share_across_namespaces);
        self.list("exclude", sorted(exclude.clone()));
        self.item("draining", draining);
        // Of a later version: see above.
        if let Some(link) = prefix_of {
            self.item("prefix-of", link);
        }
    }

    fn end(self) -> Digest {
        let hash = self.0.finalize();
        Digest(hash.iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet)))
    }
}

/// The requirements in order: all must hold, so their order in the text means nothing.
fn requirements(selector: &Selector) -> String {
    selector.requirements().into_iter().collect::<Vec<_>>().join(", ")
}

/// The addresses as a set.
fn sorted(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_by_key(|range| (range.family(), range.first()));
    joined(ranges)
}

/// Ranges that go on where the one before ends are one: their addresses are handed out in the same order.
fn joined(ranges: impl IntoIterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut joined: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if after(last.last()) == Some(range.first()) => {
                // The end of a range is not before its beginning, so this always is a range.
                *last = AddressRange::new(last.first(), range.last()).unwrap_or(range);
            }
            _ => joined.push(range),
        }
    }
    joined
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NoSecrets, SourceFile, parse};
    use super::*;

    const BASE: &str = r#"
        [kubernetes]
        in-cluster = true
        [[pool]]
        name = "lan"
        addresses = ["192.168.35.0/25", "fd35::100-fd35::1ff"]
        namespaces = ["shop", "web"]
        service-selector = "a=b, c in (d, e)"
        [[pool]]
        name = "public"
        addresses = ["203.0.113.0/24"]
        priority = 7
        [[l2]]
        pools = ["lan"]
        nodes = "rack=a, !gpu"
        preference = [{ nodes = "edge", weight = 2 }, { nodes = "core", weight = 1 }]
        [[l2]]
        pools = ["public"]
    "#;

    fn config(text: &str) -> Config {
        let file = SourceFile { path: "crier.toml".to_owned(), text: text.to_owned() };
        parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"))
    }

    #[test]
    fn agents_of_one_host_are_told_apart_by_their_state_folders() {
        let number = |text: &str| config(&format!("{BASE}{text}")).number_on_host();
        assert_eq!([number(""), number("[state]\nfolder = \"/var/lib/crier\"\n")], [0, 0]);
        let [one, other] = ["one", "other"].map(|name| number(&format!("[state]\nfolder = \"/var/lib/{name}\"\n")));
        assert!(one != other && [one, other].iter().all(|number| (1..=1 << 23).contains(number)), "{one} {other}");
    }

    /// The digests with one text of the base replaced: those of each `[[l2]]`, then that of allocation.
    fn with(old: &str, new: &str) -> Vec<Digest> {
        assert!(BASE.contains(old), "{old}");
        let config = config(&BASE.replacen(old, new, 1));
        let mut digests: Vec<Digest> = config.l2.iter().map(|l2| config.ownership(l2)).collect();
        digests.push(config.allocation_digest());
        digests
    }

    /// Which of the three digests differ from those of the base.
    fn differ(old: &str, new: &str) -> [bool; 3] {
        let base = with("", "");
        let changed: Vec<bool> = base.iter().zip(with(old, new)).map(|(base, new)| *base != new).collect();
        changed.try_into().expect("two [[l2]] and the allocation")
    }

    #[test]
    fn what_decides_nothing_leaves_each_digest_as_it_is() {
        for (old, new) in [
            ("[kubernetes]", "# a comment\n[kubernetes]"),
            ("in-cluster = true", "kubeconfig = \"/etc/crier/kubeconfig\""),
            ("in-cluster = true", "in-cluster = true\nclass = \"crier.dev/crier\"\nlease = \"kube-system/crier\""),
            ("\"192.168.35.0/25\"", "\"192.168.35.0/26\", \"192.168.35.64-192.168.35.127\""),
            ("[\"shop\", \"web\"]", "[\"web\", \"shop\"]"),
            ("a=b, c in (d, e)", "c in (e,d),a==b"),
            ("rack=a, !gpu", "!gpu,rack=a"),
            (
                "{ nodes = \"edge\", weight = 2 }, { nodes = \"core\", weight = 1 }",
                "{ nodes = \"core\", weight = 1 }, { weight = 2, nodes = \"edge\" }",
            ),
            ("priority = 7", "priority = 7\nbind = \"lo\"\nrest = \"30s\"\nauto-assign = true"),
            ("nodes = \"rack=a, !gpu\"", "nodes = \"rack=a, !gpu\"\nsticky = false\ninterfaces = [\"eth0\"]"),
            ("[[pool]]", "[log]\nlevel = \"debug\"\n[bgp]\nasn = 64513\n[node]\nname = \"n1\"\n[[pool]]"),
        ] {
            assert_eq!(differ(old, new), [false; 3], "{new}");
        }
    }

    #[test]
    fn what_decides_ownership_changes_the_digest_of_its_l2_alone() {
        for (old, new) in [
            ("rack=a, !gpu", "rack=b, !gpu"),
            ("weight = 2", "weight = 3"),
            ("nodes = \"core\"", "nodes = \"rim\""),
            ("nodes = \"rack=a, !gpu\"", "sticky = true\nnodes = \"rack=a, !gpu\""),
            ("nodes = \"rack=a, !gpu\"", "subnet = \"require\"\nnodes = \"rack=a, !gpu\""),
        ] {
            assert_eq!(differ(old, new), [true, false, false], "{new}");
        }
        assert_eq!(differ("[\"public\"]", "[]"), [false, true, false], "more pools are announced");
        let label = "[node]\nignore-exclude-label = true\n[[pool]]";
        assert_eq!(differ("[[pool]]", label), [true, true, false], "who may announce at all");
    }

    #[test]
    fn what_decides_allocation_changes_its_digest() {
        for (old, new) in [
            ("in-cluster = true", "in-cluster = true\nclass = \"a/b\""),
            ("in-cluster = true", "in-cluster = true\ndefault-class = false"),
            ("[\"shop\", \"web\"]", "[\"shop\"]"),
            ("c in (d, e)", "c in (d)"),
            ("priority = 7", "priority = 8"),
            ("priority = 7", "rest = \"31s\"\npriority = 7"),
            ("priority = 7", "auto-assign = false\npriority = 7"),
            ("priority = 7", "share-across-namespaces = true\npriority = 7"),
            ("priority = 7", "exclude = [\"203.0.113.7\"]\npriority = 7"),
            ("priority = 7", "draining = true\npriority = 7"),
            ("[[l2]]", "[[reservation]]\nservice = \"shop/web\"\naddresses = [\"203.0.113.7\"]\n[[l2]]"),
            ("in-cluster = true", "in-cluster = true\nclasses = [\"crier.dev/crier\", \"a/b\"]"),
            ("priority = 7", "avoid-network-and-broadcast = true\npriority = 7"),
        ] {
            assert_eq!(differ(old, new), [false, false, true], "{new}");
        }
        assert_eq!(differ("203.0.113.0/24", "203.0.113.0/25"), [false, true, true], "addresses decide both");
        assert_eq!(
            differ("\"192.168.35.0/25\"", "\"192.168.35.64/26\", \"192.168.35.0/26\""),
            [false, false, true],
            "the order in which addresses are handed out"
        );
    }

    #[test]
    fn the_digest_of_all_l2_differs_where_one_of_theirs_does() {
        let digest = |old, new| config(&BASE.replacen(old, new, 1)).ownership_digest();
        assert_ne!(digest("", ""), digest("weight = 2", "weight = 3"));
        assert_ne!(digest("", ""), digest("[[l2]]\n        pools = [\"public\"]", ""));
        let swapped =
            config(&BASE.replace("[\"lan\"]", "[\"?\"]").replace("[\"public\"]", "[\"lan\"]").replace("?", "public"));
        assert_ne!(digest("", ""), swapped.ownership_digest(), "other pools go by the same rules");
        let (lan, public) = ("[[l2]]\npools = [\"lan\"]\nsticky = true\n", "[[l2]]\npools = [\"public\"]\n");
        let both = |first: &str, second: &str| {
            let pools = BASE.split("[[l2]]").next().expect("a text before");
            config(&format!("{pools}\n{first}{second}")).ownership_digest()
        };
        assert_eq!(both(lan, public), both(public, lan), "the order of different pools means nothing");
    }

    #[test]
    fn pools_may_change_places_unless_they_are_equals() {
        let pool =
            |name: &str, net: &str, rest: &str| format!("[[pool]]\nname = \"{name}\"\naddresses = [\"{net}\"]\n{rest}");
        let (a, b) = (pool("a", "10.1.0.0/24", "priority = 1\n"), pool("b", "10.2.0.0/24", "priority = 2\n"));
        let digest = |pools: &str| config(&format!("[kubernetes]\nin-cluster = true\n{pools}")).allocation_digest();
        assert_eq!(digest(&format!("{a}{b}")), digest(&format!("{b}{a}")));
        let (a, b) = (pool("a", "10.1.0.0/24", ""), pool("b", "10.2.0.0/24", ""));
        assert_ne!(digest(&format!("{a}{b}")), digest(&format!("{b}{a}")));
    }

    #[test]
    fn a_digest_is_the_same_on_every_host_and_in_every_build() {
        let digests: Vec<String> = with("", "").iter().map(ToString::to_string).collect();
        let expected = ["cd58d068ee84a331", "cc3db10927eb5daf", "81e778241eda39b9"];
        assert_eq!(digests, expected, "agents of one version must agree on these");
    }
}
