//! The keeper of sysctls against a real kernel: what it finds, and that only `manage` lets it set anything.

use std::sync::Arc;
use std::time::Duration;

use crier::kernel::sysctl;
use crier::plan::slice::L2Slice;
use crier::world::{Area, Fact, HostProblem, Link};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::namespace::{Namespace, ip};
use crate::tests;
use crate::wire::SOON;

tests!(
    ipvs_without_strict_arp_is_told_and_left_alone,
    ipvs_without_strict_arp_is_mended_where_crier_may,
    a_strict_filter_on_a_link_without_the_default_route_is_told_with_its_remedy,
);

fn setting(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/all/{name}"));
    text.expect("a sysctl of every kernel").trim().to_owned()
}

/// A host with two links; kube-proxy's is a bridge here, for not every kernel has dummies, and only its name counts.
fn host() -> Namespace {
    let host = Namespace::new();
    host.enter(|| {
        ip("link add eth0 type veth peer name far0");
        ip("link add eth1 type veth peer name far1");
        ip("addr add 192.0.2.1/24 dev eth0");
        for link in ["eth0", "far0", "eth1", "far1"] {
            ip(&format!("link set {link} up"));
        }
        ip("route add default via 192.0.2.254 dev eth0");
        for setting in ["all/rp_filter", "eth0/rp_filter", "eth1/rp_filter", "all/arp_ignore", "all/arp_announce"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{setting}"), "0").expect("a sysctl of our own");
        }
    });
    host
}

/// Runs the keeper in this namespace, with addresses on `link`, until it has told something or `done` says enough.
fn told(link: &str, manage: bool, done: fn() -> bool) -> Vec<HostProblem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (slices, slices_rx) = watch::channel(L2Slice::default());
        let (facts, mut facts_rx) = mpsc::channel(4);
        let link = Link {
            index: 2,
            name: link.into(),
            mac: None,
            up: true,
            carrier: true,
            loopback: false,
            arp: true,
            master: None,
            vrf: None,
            parent: None,
            addresses: Vec::new(),
            deprecated: Default::default(),
            kernels: Default::default(),
        };
        let keeper = tokio::spawn(sysctl::run(slices_rx, manage, facts));
        slices.send_modify(|slice| {
            slice.may_answer_on = Arc::new([link.name.clone()].into());
            slice.links = Arc::new(vec![link]);
        });
        let done = async {
            while !done() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let heard = timeout(SOON, async {
            tokio::select! {
                fact = facts_rx.recv() => fact,
                () = done => None,
            }
        });
        let heard = heard.await.expect("something to tell or to do");
        keeper.abort();
        match heard.or_else(|| facts_rx.try_recv().ok()) {
            Some(Fact::Problems(Area::Host, problems)) => problems,
            None => Vec::new(),
            Some(other) => panic!("the keeper of sysctls told {other:?}"),
        }
    })
}

fn ipvs_without_strict_arp_is_told_and_left_alone() {
    host().enter(|| {
        ip("link add kube-ipvs0 type bridge");
        let problems = told("eth0", false, || false);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].problem.contains("IPVS"), "{problems:?}");
        assert!(problems[0].remedy.contains("sysctl -w net.ipv4.conf.all.arp_ignore=1"), "{problems:?}");
        assert_eq!(setting("arp_ignore"), "0", "nobody allowed it");
    });
}

fn ipvs_without_strict_arp_is_mended_where_crier_may() {
    host().enter(|| {
        ip("link add kube-ipvs0 type bridge");
        let strict = || setting("arp_ignore") == "1" && setting("arp_announce") == "2";
        assert_eq!(told("eth0", true, strict), [], "nothing is left to complain of");
        assert!(strict());
    });
}

fn a_strict_filter_on_a_link_without_the_default_route_is_told_with_its_remedy() {
    host().enter(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("a sysctl of our own");
        let problems = told("eth1", false, || false);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].remedy.ends_with("sysctl -w net.ipv4.conf.eth1.rp_filter=2"), "{problems:?}");
    });
}
