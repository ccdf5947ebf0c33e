//! Which settings of this host break announcing on the link, and the exact remedy.
//! Floor 1: it judges readings of `/proc/sys/net`, which `sysctl` takes. It sets nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::InterfaceName;
use crate::plan::own_addresses::IPVS_LINK;
use crate::world::HostProblem;

/// The settings of one link, or of `all`, in `net.ipv4.conf`. The kernel acts on the larger of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// 0: the kernel answers ARP for any address of the host on any link.
    pub arp_ignore: u8,
    /// 2: ARP requests of the host never carry an address of another link.
    pub arp_announce: u8,
    /// 1: strict reverse path filter (RFC 3704 §2.2); 2: loose.
    pub rp_filter: u8,
    /// 1: the reverse path filter goes by the mark of the packet.
    pub src_valid_mark: u8,
}

/// What was read of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    pub all: LinkSettings,
    pub links: BTreeMap<InterfaceName, LinkSettings>,
    /// The links that the best IPv4 default routes of the main table leave by.
    pub default_route_links: BTreeSet<InterfaceName>,
    /// The links of its other IPv4 default routes: extra networks, whose requests are marked.
    pub extra_links: BTreeSet<InterfaceName>,
}

/// One value of the kernel, such as `net.ipv4.conf.all.arp_ignore`, that should be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// As `sysctl -w` takes it: a dot in the name of a link is written as a slash.
    pub key: String,
    pub value: u8,
}

/// A problem, and the settings that would solve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub problem: String,
    /// In words, beside the settings: where else the cause can be removed.
    pub advice: &'static str,
    pub settings: Vec<Sysctl>,
}

/// The reverse path filter's value that lets in a packet only by the link of the way back to its source.
pub(super) const STRICT: u8 = 1;

/// Compares the readings with what answering for addresses on `announcing` needs.
pub fn judge(readings: &Readings, announcing: &BTreeSet<InterfaceName>) -> Vec<Finding> {
    let Readings { all: _, links, default_route_links, extra_links } = readings;
    let mut findings = Vec::new();
    let effective = |link: &InterfaceName, setting| readings.effective(link, setting);
    // With IPVS every node holds every address, and with arp_ignore 0 every node's kernel answers for it on every link.
    let ipvs = links.keys().any(|link| link.as_str() == IPVS_LINK);
    if ipvs && readings.answers_for_all(announcing) {
        findings.push(Finding {
            problem: format!(
                "kube-proxy runs in IPVS mode without strictARP ({IPVS_LINK} exists and arp_ignore is 0): \
                 every node answers ARP for every Service"
            ),
            advice: "set ipvs.strictARP to true in the kube-proxy ConfigMap and restart kube-proxy",
            settings: vec![sysctl("all", "arp_ignore", 1), sysctl("all", "arp_announce", 2)],
        });
    } else if ipvs && announcing.iter().any(|link| effective(link, |settings| settings.arp_announce) < 2) {
        findings.push(Finding {
            problem: format!(
                "kube-proxy runs in IPVS mode and arp_announce is below 2: \
                 this node's ARP requests may carry Service addresses from {IPVS_LINK} that another node owns"
            ),
            advice: "set ipvs.strictARP to true in the kube-proxy ConfigMap and restart kube-proxy",
            settings: vec![sysctl("all", "arp_announce", 2)],
        });
    }
    for link in announcing {
        let elsewhere: Vec<&str> =
            default_route_links.iter().filter(|route| *route != link).map(InterfaceName::as_str).collect();
        let reached_back = default_route_links.contains(link) || elsewhere.is_empty();
        let strict = effective(link, |settings| settings.rp_filter) == STRICT;
        if strict && !reached_back && !extra_links.contains(link) {
            findings.push(Finding {
                problem: format!(
                    "rp_filter is strict on {link}, where crier answers for addresses, and the default route leaves by {}: \
                     the kernel drops packets from clients beyond the link",
                    elsewhere.join(", ")
                ),
                advice: "make the filter loose, or route replies by the link on which the requests arrive",
                settings: vec![loose(link)],
            });
        }
    }
    findings
}

/// The extra networks among these links on which a strict filter drops requests. A running agent hears that of who looks after its
/// networks (`reverse_path`), so [`judge`] leaves them out.
pub fn judge_marks(readings: &Readings, announcing: &BTreeSet<InterfaceName>) -> Vec<Finding> {
    let ignores = |link: &&InterfaceName| {
        readings.effective(link, |settings| settings.rp_filter) == STRICT
            && readings.effective(link, |settings| settings.src_valid_mark) == 0
    };
    let is_extra =
        |link: &&InterfaceName| readings.extra_links.contains(*link) && !readings.default_route_links.contains(*link);
    announcing.iter().filter(is_extra).filter(ignores).map(unmarked).collect()
}

/// Of a strict filter on an extra network that does not go by marks.
pub(super) fn unmarked(link: &InterfaceName) -> Finding {
    Finding {
        problem: format!(
            "rp_filter is strict on {link}, an extra network by which requests to Services come in, and src_valid_mark is 0: the kernel \
             drops requests from clients beyond the link before their marks can lead the replies back"
        ),
        advice: "let the filter go by the mark, or make it loose (rp_filter=2)",
        settings: vec![sysctl(link.as_str(), "src_valid_mark", 1)],
    }
}

/// The larger of this and the value of `all` counts, so the link's own is enough.
pub(super) fn loose(link: &InterfaceName) -> Sysctl {
    sysctl(link.as_str(), "rp_filter", 2)
}

fn sysctl(link: &str, setting: &str, value: u8) -> Sysctl {
    Sysctl { key: format!("net.ipv4.conf.{}.{setting}", link.replace('.', "/")), value }
}

impl Readings {
    /// On one of these links the kernel answers ARP for any address of the host.
    pub fn answers_for_all(&self, announcing: &BTreeSet<InterfaceName>) -> bool {
        announcing.iter().any(|link| self.effective(link, |settings| settings.arp_ignore) == 0)
    }

    fn effective(&self, link: &InterfaceName, setting: fn(&LinkSettings) -> u8) -> u8 {
        setting(&self.all).max(self.links.get(link).map_or(0, setting))
    }
}

impl Sysctl {
    /// Below `/proc/sys`.
    pub fn path(&self) -> String {
        // In a key, `.` separates parts and `/` stands for a dot in a name, as in sysctl(8).
        self.key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    }
}

impl Finding {
    /// The problem with the commands that solve it.
    pub fn report(&self) -> HostProblem {
        let commands: Vec<String> =
            self.settings.iter().map(|Sysctl { key, value }| format!("sysctl -w {key}={value}")).collect();
        HostProblem {
            problem: self.problem.clone(),
            remedy: format!("{}; or here: {}", self.advice, commands.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(all: LinkSettings, links: &[(&str, LinkSettings)]) -> Readings {
        let links = links.iter().map(|(name, settings)| (InterfaceName::from(*name), *settings)).collect();
        Readings { all, links, default_route_links: BTreeSet::from(["eth0".into()]), extra_links: BTreeSet::new() }
    }

    fn on(links: &[&str]) -> BTreeSet<InterfaceName> {
        links.iter().map(|name| InterfaceName::from(*name)).collect()
    }

    const OPEN: LinkSettings = LinkSettings { arp_ignore: 0, arp_announce: 0, rp_filter: 0, src_valid_mark: 0 };
    const STRICT_ARP: LinkSettings = LinkSettings { arp_ignore: 1, arp_announce: 2, ..OPEN };
    const STRICT_PATH: LinkSettings = LinkSettings { rp_filter: 1, ..OPEN };

    fn settings(findings: &[Finding]) -> Vec<String> {
        findings.iter().flat_map(|it| &it.settings).map(|it| format!("{}={}", it.key, it.value)).collect()
    }

    #[test]
    fn on_an_extra_network_a_strict_filter_has_to_go_by_the_mark() {
        let extra = |eth1: LinkSettings| Readings {
            extra_links: BTreeSet::from(["eth1".into()]),
            ..readings(STRICT_PATH, &[("eth0", OPEN), ("eth1", eth1)])
        };
        let found = judge_marks(&extra(OPEN), &on(&["eth0", "eth1"]));
        assert_eq!(settings(&found), ["net.ipv4.conf.eth1.src_valid_mark=1"]);
        assert_eq!(judge(&extra(OPEN), &on(&["eth0", "eth1"])), [], "`reverse_path` tells the agent of it, once");
        assert_eq!(judge_marks(&extra(LinkSettings { src_valid_mark: 1, ..OPEN }), &on(&["eth0", "eth1"])), []);
        assert_eq!(judge_marks(&extra(LinkSettings { rp_filter: 2, ..OPEN }), &on(&["eth0", "eth1"])), [], "loose");
        assert_eq!(judge_marks(&extra(OPEN), &on(&["eth0"])), [], "nothing is answered on eth1");
    }

    #[test]
    fn ipvs_without_strict_arp_is_found_with_the_settings_that_strict_arp_makes() {
        let found = judge(&readings(OPEN, &[("eth0", OPEN), ("kube-ipvs0", OPEN)]), &on(&["eth0"]));
        assert_eq!(settings(&found), ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"]);
        assert!(found[0].report().remedy.contains("strictARP"), "{found:?}");
        assert!(
            found[0]
                .report()
                .remedy
                .ends_with("sysctl -w net.ipv4.conf.all.arp_ignore=1; sysctl -w net.ipv4.conf.all.arp_announce=2")
        );
    }

    #[test]
    fn the_kernel_answers_for_all_where_some_link_is_open() {
        let two = readings(OPEN, &[("eth0", OPEN), ("eth1", STRICT_ARP)]);
        let open = [&["eth0", "eth1"][..], &["eth1"], &[]].map(|links| two.answers_for_all(&on(links)));
        assert_eq!(open, [true, false, false]);
        assert!(!readings(STRICT_ARP, &[("eth0", OPEN)]).answers_for_all(&on(&["eth0"])));
    }

    #[test]
    fn strict_arp_on_all_or_on_the_link_itself_is_enough() {
        for (all, eth0) in [(STRICT_ARP, OPEN), (OPEN, STRICT_ARP)] {
            let readings = readings(all, &[("eth0", eth0), ("kube-ipvs0", OPEN)]);
            assert_eq!(judge(&readings, &on(&["eth0"])), [], "{readings:?}");
        }
        let half = LinkSettings { arp_announce: 0, ..STRICT_ARP };
        let found = judge(&readings(half, &[("eth0", OPEN), ("kube-ipvs0", OPEN)]), &on(&["eth0"]));
        assert_eq!(settings(&found), ["net.ipv4.conf.all.arp_announce=2"]);
    }

    #[test]
    fn without_ipvs_or_without_addresses_on_the_link_there_is_nothing_to_find() {
        assert_eq!(judge(&readings(OPEN, &[("eth0", OPEN)]), &on(&["eth0"])), []);
        assert_eq!(judge(&readings(OPEN, &[("eth0", OPEN), ("kube-ipvs0", OPEN)]), &on(&[])), []);
    }

    #[test]
    fn a_strict_filter_matters_only_where_clients_are_answered_by_another_link() {
        let two = [("eth0", OPEN), ("eth1.100", OPEN)];
        assert_eq!(judge(&readings(STRICT_PATH, &two), &on(&["eth0"])), [], "the default route's own link");
        let found = judge(&readings(STRICT_PATH, &two), &on(&["eth1.100"]));
        assert_eq!(settings(&found), ["net.ipv4.conf.eth1/100.rp_filter=2"]);
        assert_eq!(found[0].settings[0].path(), "net/ipv4/conf/eth1.100/rp_filter");
        let loose = [("eth0", OPEN), ("eth1.100", LinkSettings { rp_filter: 2, ..OPEN })];
        assert_eq!(judge(&readings(STRICT_PATH, &loose), &on(&["eth1.100"])), [], "the larger value counts");
        let alone = Readings { default_route_links: BTreeSet::new(), ..readings(STRICT_PATH, &two) };
        assert_eq!(judge(&alone, &on(&["eth1.100"])), [], "nobody but the link is served");
    }
}
