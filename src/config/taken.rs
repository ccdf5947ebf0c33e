//! What other programs of a node are known to use of the numbers that `[egress]` and `[[vrf]]` name: bits of the packet mark, priorities
//! of policy rules, routing tables, and tables of nftables. Floor 1. What is in use on a host, `crier doctor` asks the kernel.
//!
//! No default of crier's is among them. Calico and Cilium can be told to use other bits, so that their numbers are a warning and no
//! mistake; kube-proxy's bits are refused by `[egress]`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Config, EgressSettings, FOR_NETWORKS};

/// A program, and what it uses where nobody tells it otherwise.
struct Program {
    name: &'static str,
    /// Bits of the packet mark.
    mark: u32,
    /// Of its policy rules.
    priorities: &'static [u32],
    tables: &'static [RangeInclusive<u32>],
    /// Of nftables, in the family `inet`.
    nftables: &'static [&'static str],
}

/// What kube-proxy marks packets with: masquerade and drop.
pub(super) const KUBE_PROXYS: u32 = 0xc000;

const NOTHING: Program = Program { name: "", mark: 0, priorities: &[], tables: &[], nftables: &[] };

const KNOWN: [Program; 7] = [
    // Felix takes the lowest bits of iptablesMarkMask (0xffff0000): accept, pass, and two for scratch.
    Program { name: "Calico", mark: 0x000f_0000, ..NOTHING },
    // The kind of a mark; its rules for the proxy, endpoints, the local table, and ENIs; its tables for IPsec, WireGuard, VTEP and the proxy.
    Program {
        name: "Cilium",
        mark: 0x0f00,
        priorities: &[1, 9, 10, 20, 100, 110, 111, 112],
        tables: &[200..=202, 2004..=2005],
        ..NOTHING
    },
    Program { name: "kube-router", tables: &[77..=79], ..NOTHING },
    Program { name: "the AWS VPC CNI", mark: 0x80, priorities: &[10, 512, 1024, 1536], ..NOTHING },
    Program {
        name: "Tailscale",
        mark: 0x000c_0000,
        priorities: &[5210, 5230, 5250, 5270],
        tables: &[52..=52],
        ..NOTHING
    },
    Program { name: "firewalld", nftables: &["firewalld"], ..NOTHING },
    Program { name: "Debian's /etc/nftables.conf", nftables: &["filter"], ..NOTHING },
];

/// What of the host's numbers is crier's alone, of `[egress]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbers {
    pub mark_mask: u32,
    /// Of the policy rules, the first and the last.
    pub priorities: (u32, u32),
    /// Ranges of routing tables, each the first and the last.
    pub tables: Vec<(u32, u32)>,
}

/// So many priorities from `rule-priority` on are crier's.
pub(super) const PRIORITIES: u32 = 3;

impl EgressSettings {
    /// The routing tables of the marks, and those of networks.
    fn route_tables(&self) -> [RangeInclusive<u32>; 2] {
        let last = u32::from(self.slots()).saturating_sub(1);
        [self.first_route_table, self.first_route_table.saturating_add(FOR_NETWORKS)]
            .map(|first| first..=first.saturating_add(last))
    }

    pub fn numbers(&self) -> Numbers {
        let first = self.rule_priority;
        Numbers {
            mark_mask: self.mark_mask,
            priorities: (first, first.saturating_add(PRIORITIES - 1)),
            tables: self.route_tables().map(|tables| (*tables.start(), *tables.end())).into(),
        }
    }
}

/// What of a configuration another program is known to use.
pub fn warnings(config: &Config) -> Vec<String> {
    let settings = &config.egress;
    let priorities = settings.rule_priority..settings.rule_priority.saturating_add(PRIORITIES);
    let meets = |theirs: &RangeInclusive<u32>| {
        let both = |ours: &RangeInclusive<u32>| ours.start() <= theirs.end() && theirs.start() <= ours.end();
        settings.route_tables().iter().any(both)
    };
    let mut warnings = Vec::new();
    for Program { name, mark, priorities: theirs, tables, nftables } in &KNOWN {
        let mut warn = |what: String, instead: &str| {
            warnings.push(format!("{what}, which {name} uses: where it runs on the nodes, {instead}"));
        };
        let bits = settings.mark_mask & mark;
        if bits != 0 {
            let what = format!("[egress] mark-mask {:#010x} has the bits {bits:#010x}", settings.mark_mask);
            warn(what, "each takes the other's packets for its own; write mark-mask = 0x00f00000");
        }
        if let Some(taken) = theirs.iter().find(|priority| priorities.contains(*priority)) {
            let ours = settings.rule_priority;
            let what = format!("[egress] rule-priority {ours} and the two after it cover the priority {taken}");
            warn(what, "which rule is looked up first is chance; write rule-priority = 1500");
        }
        if let Some(taken) = tables.iter().find(|tables| meets(tables)) {
            let what = format!(
                "[egress] first-route-table {}: the tables from it on cover {}",
                settings.first_route_table,
                in_words(taken)
            );
            warn(what, "packets follow the other's routes; write first-route-table = 6770");
        }
        for vrf in &config.vrfs {
            if let Some(taken) = tables.iter().find(|tables| tables.contains(&vrf.table)) {
                let what = format!("VRF {}: table {} is of {}", vrf.name, vrf.table, in_words(taken));
                warn(what, "packets follow the other's routes; use another number, such as table = 1001");
            }
        }
        if nftables.contains(&settings.table.as_str()) {
            let what = format!("[egress] table \"{}\" is the name of an nftables table (inet)", settings.table);
            warn(what, "crier leaves that alone and egress is held; write table = \"crier\"");
        }
    }
    warnings
}

fn in_words(tables: &RangeInclusive<u32>) -> String {
    match (tables.start(), tables.end()) {
        (first, last) if first == last => format!("the table {first}"),
        (first, last) => format!("the tables {first} to {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    /// Input: numbers that another program of many nodes uses. Output: they are named, with that program; the defaults are
    /// nobody's.
    #[test]
    fn numbers_that_another_program_uses_are_named() {
        let of = |lines: &str| warnings(&good(&format!("[egress]\n{lines}\n")));
        assert_eq!(of(""), Vec::<String>::new());
        let table = [
            ("mark-mask = 0x000f0000", "bits 0x000f0000, which Calico uses"),
            ("mark-mask = 0x00000f00", "bits 0x00000f00, which Cilium uses"),
            ("mark-mask = 0x000000f0", "bits 0x00000080, which the AWS VPC CNI uses"),
            ("mark-mask = 0x00080000", "bits 0x00080000, which Tailscale uses"),
            ("rule-priority = 8", "the priority 9, which Cilium uses"),
            ("rule-priority = 98", "the priority 100, which Cilium uses"),
            ("rule-priority = 510", "the priority 512, which the AWS VPC CNI uses"),
            ("rule-priority = 1535", "the priority 1536, which the AWS VPC CNI uses"),
            ("first-route-table = 2000", "cover the tables 2004 to 2005, which Cilium uses"),
            ("first-route-table = 1800", "cover the tables 2004 to 2005, which Cilium uses"),
            ("table = \"firewalld\"", "table (inet), which firewalld uses"),
            (
                "[[vrf]]\nname = \"red\"\ntable = 78\ninterfaces = [\"eth1\"]",
                "VRF red: table 78 is of the tables 77 to 79, which kube-router uses",
            ),
        ];
        for (lines, expected) in table {
            let told = of(lines);
            assert!(told.iter().any(|it| it.contains(expected)), "{lines}: {told:?}");
        }
        for lines in
            ["mark-mask = 0x0f000000", "rule-priority = 1533", "first-route-table = 2006", "table = \"firewall\""]
        {
            assert_eq!(of(lines), Vec::<String>::new(), "{lines}");
        }
    }
}
