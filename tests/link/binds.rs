//! Bound addresses: they come, they stay over a restart, they go, and nobody else's are touched.

use std::net::IpAddr;
use std::time::Duration;

use crier::clock;
use crier::kernel::addresses::{self, Stop};
use crier::kernel::observe;
use crier::names::InterfaceName;
use crier::plan::slice::BindSlice;
use crier::world::Fact;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::namespace::ip;
use crate::tests;
use crate::wire::{SOON, Wire};

tests!(
    wanted_addresses_of_both_families_come_and_go,
    an_address_of_the_host_is_never_touched,
    a_restart_keeps_the_addresses_and_the_next_run_takes_away_what_is_no_longer_wanted,
    a_clean_leave_takes_everything_away_even_before_the_first_plan,
    what_another_agent_of_the_host_bound_stays_when_this_one_leaves,
    an_address_that_somebody_deletes_and_a_link_that_comes_late_are_mended,
    bound_addresses_are_not_told_as_the_hosts_own,
);

struct Run {
    slices: watch::Sender<BindSlice>,
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

impl Run {
    fn start() -> Run {
        Run::of_agent(7)
    }

    /// Of the agent with this number on the host.
    fn of_agent(number: u32) -> Run {
        let (slices, receiver) = watch::channel(BindSlice::default());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(addresses::run(receiver, number, mpsc::channel(1).0, async {
            stopped.await.unwrap_or(Stop::Keep)
        }));
        Run { slices, stop, task }
    }

    fn want(&self, wanted: &[(&str, &str)]) {
        let wanted = wanted
            .iter()
            .map(|(address, link)| (address.parse::<IpAddr>().expect("an address"), InterfaceName::from(*link)));
        self.slices.send_replace(BindSlice { addresses: wanted.collect() });
    }

    async fn stop(self, how: Stop) {
        self.stop.send(how).expect("a running task");
        tokio::time::timeout(SOON, self.task).await.expect("an end").expect("a good end");
    }
}

/// The host prefixes on a link, but for 127.0.0.1 and ::1.
fn bound(link: &str) -> Vec<String> {
    let told = ip(&format!("-oneline address show dev {link}"));
    let words = told.lines().filter_map(|line| line.split_whitespace().nth(3));
    let host = |word: &&str| !word.starts_with("fe80") && !word.starts_with("127.") && *word != "::1/128";
    let mut bound: Vec<String> =
        words.filter(host).map(|word| word.trim_end_matches("/32").replace("/128", "")).collect();
    bound.sort();
    bound
}

async fn until_bound(link: &str, expected: &[&str]) {
    let deadline = clock::now() + SOON;
    while bound(link) != expected {
        assert!(clock::now() < deadline, "on {link} are {:?}, not {expected:?}", bound(link));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn wanted_addresses_of_both_families_come_and_go() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("fd35::1", "lo"), ("192.0.2.9", "eth0")]);
        until_bound("lo", &["192.0.2.1", "fd35::1"]).await;
        until_bound("eth0", &["192.0.2.9", "192.168.35.1/24"]).await;
        let told = ip("-oneline address show dev lo");
        assert!(told.lines().any(|line| line.contains("192.0.2.1/32 ") && line.contains("scope host")), "{told}");
        assert!(!told.contains("tentative"), "{told}");
        std::net::TcpListener::bind("[fd35::1]:0").expect("the address to be usable at once");
        std::net::TcpListener::bind("192.0.2.1:0").expect("the address to be usable at once");

        run.want(&[("192.0.2.2", "lo"), ("fd35::1", "eth0")]);
        until_bound("lo", &["192.0.2.2"]).await;
        until_bound("eth0", &["192.168.35.1/24", "fd35::1"]).await;
        run.want(&[]);
        until_bound("lo", &[]).await;
        until_bound("eth0", &["192.168.35.1/24"]).await;
    });
}

fn an_address_of_the_host_is_never_touched() {
    Wire::new().run(async || {
        ip("address add 192.0.2.1/32 dev lo");
        ip("address add fd35::1/128 dev lo");
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("fd35::1", "lo"), ("192.0.2.2", "lo")]);
        until_bound("lo", &["192.0.2.1", "192.0.2.2", "fd35::1"]).await;
        run.want(&[]);
        until_bound("lo", &["192.0.2.1", "fd35::1"]).await;
        run.stop(Stop::Remove).await;
        assert_eq!(bound("lo"), ["192.0.2.1", "fd35::1"]);
    });
}

fn a_restart_keeps_the_addresses_and_the_next_run_takes_away_what_is_no_longer_wanted() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("192.0.2.2", "lo"), ("fd35::1", "lo")]);
        until_bound("lo", &["192.0.2.1", "192.0.2.2", "fd35::1"]).await;
        run.stop(Stop::Keep).await;
        assert_eq!(bound("lo"), ["192.0.2.1", "192.0.2.2", "fd35::1"]);

        ip("address add 192.0.2.9/32 dev lo");
        let run = Run::start();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bound("lo").len(), 4, "something went before there was a plan: {:?}", bound("lo"));
        run.want(&[("192.0.2.2", "lo")]);
        until_bound("lo", &["192.0.2.2", "192.0.2.9"]).await;
    });
}

fn a_clean_leave_takes_everything_away_even_before_the_first_plan() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("fd35::1", "lo")]);
        until_bound("lo", &["192.0.2.1", "fd35::1"]).await;
        run.stop(Stop::Remove).await;
        assert_eq!(bound("lo"), [""; 0]);

        let run = Run::start();
        run.want(&[("192.0.2.1", "lo")]);
        until_bound("lo", &["192.0.2.1"]).await;
        run.stop(Stop::Keep).await;
        Run::start().stop(Stop::Remove).await;
        assert_eq!(bound("lo"), [""; 0]);
    });
}

/// Two agents with a state folder each.
fn what_another_agent_of_the_host_bound_stays_when_this_one_leaves() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("fd35::1", "lo")]);
        until_bound("lo", &["192.0.2.1", "fd35::1"]).await;
        run.stop(Stop::Keep).await;
        let others: Vec<IpAddr> = addresses::take_away(0).await.expect("a host");
        assert!(others.is_empty(), "they are another agent's: {others:?}");
        Run::of_agent(8).stop(Stop::Remove).await;
        assert_eq!(bound("lo"), ["192.0.2.1", "fd35::1"]);
        assert_eq!(addresses::take_away(7).await.expect("a host").len(), 2);
        assert_eq!(bound("lo"), [""; 0]);
    });
}

fn an_address_that_somebody_deletes_and_a_link_that_comes_late_are_mended() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("192.0.2.2", "vip0")]);
        until_bound("lo", &["192.0.2.1"]).await;
        ip("address delete 192.0.2.1/32 dev lo");
        until_bound("lo", &["192.0.2.1"]).await;
        ip("link add vip0 type veth peer name plug9");
        until_bound("vip0", &["192.0.2.2"]).await;
        run.stop(Stop::Remove).await;
    });
}

fn bound_addresses_are_not_told_as_the_hosts_own() {
    Wire::new().run(async || {
        let run = Run::start();
        run.want(&[("192.0.2.1", "lo"), ("fd35::1", "lo")]);
        until_bound("lo", &["192.0.2.1", "fd35::1"]).await;
        let (sender, mut facts) = mpsc::channel(4);
        tokio::spawn(observe::run(sender));
        let mut told_lo = false;
        loop {
            match facts.recv().await.expect("an observer") {
                Fact::Link(_, Some(link)) if link.loopback => {
                    told_lo = true;
                    let told: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
                    assert_eq!(told, ["127.0.0.1/8", "::1/128"]);
                }
                Fact::LinksListed => break,
                _ => {}
            }
        }
        assert!(told_lo, "lo was not told at all");
    });
}
