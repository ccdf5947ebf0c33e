//! Reads the settings of this host on which announcing on the link depends, and sets them if it is told to. Floor 2.
//!
//! Task: [`run`], owned by the caller. Cancelling it loses nothing; a sysctl that was set stays set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::host::{Finding, LinkSettings, Readings, STRICT, Sysctl, judge, judge_marks};
use crate::address::Family;
use crate::names::InterfaceName;
use crate::plan::slice::L2Slice;
use crate::world::{Area, Fact, HostProblem};

/// The kernel does not report a change of a sysctl, so all of them are read again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// Judges the host for as long as there are slices, and reports what is wrong as a [`Fact::Problems`] whenever that changes, and
/// whether the kernel answers ARP for all addresses of the host.
/// With `manage` it sets what it can, and reports only what it could not.
pub async fn run(mut slices: watch::Receiver<L2Slice>, manage: bool, facts: mpsc::Sender<Fact>) {
    let mut reported: Vec<HostProblem> = Vec::new();
    let mut arp_open = false;
    let mut look_again = interval(LOOK_AGAIN);
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = slices.changed() => if changed.is_err() { return },
            _ = look_again.tick() => {}
        }
        let announcing = announcing_on(&slices.borrow_and_update());
        let readings = settled(&announcing, manage);
        let found = report(&readings, &announcing);
        if found != reported {
            for HostProblem { problem, remedy } in found.iter().filter(|problem| !reported.contains(problem)) {
                warn!(problem, remedy, "a setting of this host breaks announcing on the link");
            }
            reported = found;
            if facts.send(Fact::Problems(Area::Host, reported.clone())).await.is_err() {
                return;
            }
        }
        let is_open = readings.answers_for_all(&announcing);
        if is_open != arp_open {
            arp_open = is_open;
            if facts.send(Fact::ArpOpen(is_open)).await.is_err() {
                return;
            }
        }
    }
}

/// What is wrong on this host for answering on these links. Changes nothing.
pub fn check(announcing: &BTreeSet<InterfaceName>) -> Vec<HostProblem> {
    let readings = readings();
    let of_marks = judge_marks(&readings, announcing).into_iter().map(|finding| finding.report());
    report(&readings, announcing).into_iter().chain(of_marks).collect()
}

fn report(readings: &Readings, announcing: &BTreeSet<InterfaceName>) -> Vec<HostProblem> {
    judge(readings, announcing).iter().map(Finding::report).collect()
}

/// How this host is set; with `manage`, once what solves its problems was set.
fn settled(announcing: &BTreeSet<InterfaceName>, manage: bool) -> Readings {
    let found = readings();
    let findings = if manage { judge(&found, announcing) } else { Vec::new() };
    if findings.is_empty() {
        return found;
    }
    settle(&findings);
    readings()
}

/// Sets what solves these.
pub(super) fn settle(findings: &[Finding]) {
    for setting in findings.iter().flat_map(|finding| &finding.settings) {
        match set(setting) {
            Ok(()) => info!(key = setting.key, value = setting.value, "sysctl set"),
            Err(error) => warn!(key = setting.key, value = setting.value, %error, "sysctl could not be set"),
        }
    }
}

/// Whether the reverse path filter is strict on this link.
pub(super) fn filters_strictly(link: &InterfaceName) -> bool {
    let of = |name: &str| link_settings(&Path::new(SETTINGS).join(name)).rp_filter;
    of("all").max(of(link.as_str())) == STRICT
}

/// Whether the reverse path filter is strict on this link, and does not go by marks.
pub(super) fn ignores_marks(link: &InterfaceName) -> bool {
    let of = |name: &str| link_settings(&Path::new(SETTINGS).join(name)).src_valid_mark;
    filters_strictly(link) && of("all").max(of(link.as_str())) == 0
}

/// Those of an `[[l2]]`, also while no address is here; and those of addresses that are here still.
fn announcing_on(slice: &L2Slice) -> BTreeSet<InterfaceName> {
    let mut announcing = BTreeSet::clone(&slice.may_answer_on);
    for links in slice.addresses.values() {
        // Of ten thousand addresses nearly all are on links that are known by then.
        if !links.is_subset(&announcing) {
            announcing.extend(links.iter().cloned());
        }
    }
    announcing
}

/// What keeps this host from passing on packets of pods of these families, as egress needs it of every node; of IPv4 also what comes in
/// by one of these links.
pub fn forwarding(families: &[Family], links: &BTreeSet<InterfaceName>) -> Vec<HostProblem> {
    not_forwarding(families, links, |which| format!("packets of pods{which}, and egress and VRFs need that"))
}

/// The same for packets to Services of these families, which kube-proxy or a CNI leads to pods by the host's forwarding.
pub fn forwarding_to_pods(families: &[Family]) -> Vec<HostProblem> {
    not_forwarding(families, &BTreeSet::new(), |_| {
        "packets, so what this node draws for its addresses reaches no pod, unless an eBPF program of the CNI leads it there".to_owned()
    })
}

fn not_forwarding(
    families: &[Family],
    links: &BTreeSet<InterfaceName>,
    what: impl Fn(String) -> String,
) -> Vec<HostProblem> {
    // A host without the address family has no such file, and nothing to forward.
    let is_off = |path: String| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
    let mut off: Vec<(String, String)> = Vec::new();
    if families.contains(&Family::V4) {
        if is_off("/proc/sys/net/ipv4/ip_forward".to_owned()) {
            off.push(("net.ipv4.ip_forward".to_owned(), String::new()));
        } else {
            let links = links.iter().filter(|link| is_off(format!("{SETTINGS}/{link}/forwarding")));
            let key = |link: &InterfaceName| format!("net.ipv4.conf.{}.forwarding", link.as_str().replace('.', "/"));
            off.extend(links.map(|link| (key(link), format!(" that come in by {link}"))));
        }
    }
    if families.contains(&Family::V6) && is_off("/proc/sys/net/ipv6/conf/all/forwarding".to_owned()) {
        off.push(("net.ipv6.conf.all.forwarding".to_owned(), String::new()));
    }
    let problem = |(key, which): (String, String)| HostProblem {
        problem: format!("{key} is 0: this host passes on no {}", what(which)),
        remedy: format!("sysctl -w {key}=1, and a file in /etc/sysctl.d for the next boot"),
    };
    off.into_iter().map(problem).collect()
}

/// The links of this host on which addresses could be answered, for a caller that does not know the configured ones.
pub fn ethernet_links() -> BTreeSet<InterfaceName> {
    let is_ethernet = |link: &InterfaceName| {
        // ARPHRD_ETHER; the loopback link and tunnels are others.
        std::fs::read_to_string(Path::new("/sys/class/net").join(link.as_str()).join("type"))
            .is_ok_and(|kind| kind.trim() == "1")
    };
    readings().links.into_keys().filter(is_ethernet).collect()
}

/// A setting that cannot be read counts as 0, the kernel's default: a link may vanish while it is read.
fn readings() -> Readings {
    let mut links: BTreeMap<InterfaceName, LinkSettings> = BTreeMap::new();
    for entry in std::fs::read_dir(SETTINGS).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| !["all", "default"].contains(name)) {
            links.insert(name.into(), link_settings(&entry.path()));
        }
    }
    let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let [default_route_links, extra_links] = default_route_links(&routes);
    Readings { all: link_settings(&Path::new(SETTINGS).join("all")), links, default_route_links, extra_links }
}

fn link_settings(folder: &Path) -> LinkSettings {
    let read = |name| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    };
    LinkSettings {
        arp_ignore: read("arp_ignore"),
        arp_announce: read("arp_announce"),
        rp_filter: read("rp_filter"),
        src_valid_mark: read("src_valid_mark"),
    }
}

/// proc(5): interface, destination and gateway in hexadecimal, flags, …, metric and mask as the seventh and eighth field. Gives the
/// links of the best default routes, and those that have only others.
fn default_route_links(table: &str) -> [BTreeSet<InterfaceName>; 2] {
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let defaults = fields.filter(|fields| fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"));
    let link_and_metric = |fields: Vec<&str>| {
        let metric: u32 = fields.get(6)?.parse().ok()?;
        Some((InterfaceName::from(*fields.first()?), metric))
    };
    let all: Vec<(InterfaceName, u32)> = defaults.filter_map(link_and_metric).collect();
    let least = all.iter().map(|(_, metric)| *metric).min();
    let links = |best: bool| {
        all.iter().filter(move |(_, metric)| (Some(*metric) == least) == best).map(|(link, _)| link.clone())
    };
    let best: BTreeSet<InterfaceName> = links(true).collect();
    let extra = links(false).filter(|link| !best.contains(link)).collect();
    [best, extra]
}

fn set(setting: &Sysctl) -> io::Result<()> {
    std::fs::write(Path::new("/proc/sys").join(setting.path()), setting.value.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::address::MacAddress;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::world::Link;

    /// Input: the veth of a pod, a loopback and an uplink. Output: only those of an `[[l2]]` count, with no address on them yet.
    #[test]
    fn a_node_without_l2_announces_on_no_link() {
        let announcing = |more: &str| {
            let text = format!("[manifests]\nfolder = \"/m\"\n{more}");
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            for (index, name, loopback) in [(1, "lo", true), (2, "eth0", false), (3, "c0", false)] {
                let link = Link::carrying(index, name, &[&format!("10.0.{index}.1/24")]);
                planner.apply(Fact::Link(
                    index,
                    Some(Link { mac: Some(MacAddress([2, 0, 0, 0, 0, 1])), loopback, ..link }),
                ));
            }
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            planner.turn(clock::now());
            announcing_on(&planner.plan().l2)
        };
        assert_eq!(announcing(""), BTreeSet::new());
        assert_eq!(announcing("[[l2]]\ninterfaces = [\"eth*\"]\n"), BTreeSet::from(["eth0".into()]));
    }

    #[test]
    fn only_default_routes_count() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let none = BTreeSet::new();
        assert_eq!(default_route_links(table), [BTreeSet::from(["eth0".into()]), none.clone()]);
        assert_eq!(default_route_links(""), [none.clone(), none]);
        let worse = format!("{table}eth2\t00000000\t010200C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n");
        assert_eq!(default_route_links(&worse), [BTreeSet::from(["eth0".into()]), BTreeSet::from(["eth2".into()])]);
    }
}
