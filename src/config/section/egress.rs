//! `[egress]`: how outbound connections of pods leave the cluster with their Service's address. Floor 1.

use std::time::Duration;

use ipnet::IpNet;

use super::{Check, Section, section};
use crate::address::mapped_v4;
use crate::config::complaint::Problem;
use crate::config::key::{duration, flag, interface, mask, number, port, set, text, word};
use crate::config::reader::Reader;
use crate::config::shape::written;
use crate::config::taken::{KUBE_PROXYS, PRIORITIES};
use crate::config::words::words;
use crate::names::InterfaceName;

section! {
    /// `[egress]`
    pub struct EgressSettings = Section::one(
        "egress",
        "How outbound connections of pods leave the cluster with the address of their Service (annotation crier.dev/egress). \
         Nothing is set in the kernel before some Service asks for it, or there is an extra network.",
    ), written as Written;
    keys {
        /// In the family `inet`.
        pub table: String = text("table", "a name of letters, digits and hyphens", |text, _| table(text),
            "The nftables table (family inet) that crier makes for itself.")
            .default("crier"), touches Restart;
        /// Of the chain in the hook postrouting that translates.
        pub priority: u32 = number("priority", "", 1, 99,
            "The priority of the chain that gives packets the Service's address.")
            .default(95)
            .trade("It must be below that of the masquerade rules of the CNI and kube-proxy (100)."), touches Restart;
        /// One run of bits.
        pub mark_mask: u32 = mask("mark-mask", 0x00f0_0000,
            "The bits of the packet mark (one run of bits) that crier uses to lead packets of pods to the node that owns the \
             Service's address.")
            .trade("Four bits serve 15 owners. The bits must be used by nobody else: kube-proxy has 0xc000, Calico takes its \
                 bits from 0xffff0000 (0x00f00000 may be taken from its mask by iptablesMarkMask), Cilium has 0xffff0f00."), touches Restart;
        /// Of the rules that lead marked packets to the tables below. The two after it are used too.
        pub rule_priority: u32 = number("rule-priority", "", 1, 32_760,
            "The priority of crier's policy routing rules for these marks; the next two are used too.")
            .default(1500), touches Restart;
        /// The first of as many tables as there are marks.
        pub first_route_table: u32 = number("first-route-table", "", 256, 0x7fff_ffff,
            "The number of the first routing table that crier uses, one for each mark; those for networks follow 200 behind.")
            .default(6770), touches Restart;
        /// `None`: owners that are on no link of this node are refused by name.
        pub tunnel: Option<InterfaceName> = interface("tunnel", "an interface name, or \"\"",
            "The device of the tunnel that leads packets of pods to owners that are on no link of this node (VXLAN-GPE); \"\" makes none.")
            .or_else("")
            .default("crier-egress")
            .trade("It must have the same port on all nodes. Packets in it are neither encrypted nor signed: as in the overlays of \
                 CNIs, who can send with the address of a Node can put packets into it, and these leave with a Service's address at most."), touches Restart;
        /// UDP.
        pub tunnel_port: u16 = port("tunnel-port",
            "The UDP port of that tunnel. Nodes take packets on it from the addresses of other Nodes alone.")
            .default(4790)
            .trade("A firewall between the nodes must let it pass. No other VXLAN device of the host may have the same port: flannel \
                 and Cilium use 8472, Calico 4789."), touches Restart;
        /// Besides the addresses and pod networks of the Nodes.
        pub cluster_networks: Vec<IpNet> = set("cluster-networks", "CIDRs", |text, _| network(text),
            "Destinations inside of the cluster, besides the Nodes' addresses and podCIDRs: packets of pods to these are left \
             alone.")
            .shown("[\"10.244.0.0/16\"]")
            .trade("A CNI that assigns addresses of its own (Calico, Cilium) does not fill podCIDRs rightly: name its networks here."), touches Decisions;
        /// Also without any Service with egress.
        pub symmetric_return: bool = flag("symmetric-return", true,
            "Answer what comes in to a Service by an extra network (a [[vrf]], or a link with a default route of a worse \
             metric) by that network.")
            .trade("Each such network takes one of the marks above. With false, replies leave by the default route, which routers and \
                 firewalls on the way may drop."), touches Decisions;
        /// What becomes of what leaves the cluster from an address of this node's pods while nobody knows whose it is.
        pub new_pods: NewPods = word("new-pods",
            "What to do with what leaves the cluster from a new pod of this node until it is known whether the pod is one of a Service \
             with egress: \"pass\" lets it go as the host sends it, \"hold\" holds it back.")
            .default("pass")
            .trade("With \"pass\" a new pod sends with the node's address until its EndpointSlice is known, for about a second. With \
                 \"hold\" every new pod of the node waits until the API server shows its Pod with the address, also one without \
                 egress, and for as long as the API server is away. It needs the right to read Pods: crier rbac --config FILE."), touches Restart;
        /// How long a pod stays held after its Service has gone or asks for egress no more.
        pub release_after: Duration = duration("release-after", Duration::ZERO, Duration::from_secs(86_400),
            "How long packets of a pod are still held back after its Service was deleted or its annotation removed.")
            .default("10m")
            .trade("Until then the pod reaches nothing outside of the cluster. With \"0s\" it sends with the node's address at \
                 once, which the receivers may not expect."), touches Restart;
    }
}

words! {
    /// What becomes of packets of new pods.
    pub enum NewPods("rule for new pods") {
        /// They leave as the host and the CNI send them.
        Pass = "pass",
        /// They are held back.
        Hold = "hold",
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        let Some(mask) = self.mark_mask.value.filter(|mask| *mask != 0) else { return };
        let run = mask >> mask.trailing_zeros();
        if run & run.wrapping_add(1) != 0 {
            let message = format!("mark-mask {mask:#010x} is not one run of bits");
            section.complain(&self.mark_mask.place, message, "write mark-mask = 0x00f00000");
        }
        if mask & KUBE_PROXYS != 0 {
            let message = format!("mark-mask {mask:#010x} has bits of kube-proxy ({KUBE_PROXYS:#06x})");
            section.complain(&self.mark_mask.place, message, "write mark-mask = 0x00f00000");
        }
        self.check_tables(section, mask);
        let tunnel = self.tunnel.value.as_ref().and_then(Option::as_ref);
        if let Some((vrf, place)) = section.seen.vrfs.iter().find(|(vrf, _)| Some(vrf) == tunnel).cloned() {
            let message = format!("the VRF \"{vrf}\" has the name of [egress] tunnel");
            section.complain(&place, message, "give the VRF a name of its own");
        }
        let Some(priority) = self.rule_priority.value else { return };
        if let Some((taken, whose)) =
            TAKEN_PRIORITIES.iter().find(|(taken, _)| (priority..priority + PRIORITIES).contains(taken))
        {
            let message =
                format!("rule-priority {priority} and the two after it cover {taken}, the priority of {whose}");
            section.complain(&self.rule_priority.place, message, "write rule-priority = 1500");
        }
    }
}

/// Of policy rules, with whose they are.
const TAKEN_PRIORITIES: [(u32, &str); 2] =
    [(990, "crier's rule for VRFs"), (1000, "the kernel's rule for VRFs (l3mdev)")];

impl Written {
    /// The tables of the marks, and those of networks, are nobody else's.
    fn check_tables(&self, section: &mut Reader<'_>, mask: u32) {
        let Some(first) = self.first_route_table.value else { return };
        let slots = slots(mask);
        let all = |table: u32| {
            [first, first.saturating_add(FOR_NETWORKS)]
                .into_iter()
                .any(|first| table >= first && table - first < u32::from(slots))
        };
        if all(BLACKHOLES) {
            let message = format!("the tables from {first} on cover {BLACKHOLES}, that of crier's blackhole routes");
            section.complain(&self.first_route_table.place, message, "write first-route-table = 6770");
        }
        let vrfs = &section.seen.vrf_tables;
        let free = (1001..).find(|table| !all(*table) && vrfs.iter().all(|(taken, _)| taken != table));
        let hint = format!("use a number of its own: table = {}", free.unwrap_or(1001));
        let taken: Vec<_> = section.seen.vrf_tables.iter().filter(|(table, _)| all(*table)).cloned().collect();
        for (table, place) in taken {
            let message = format!(
                "{table} is one of the tables of [egress], which has {slots} from {first} and from {} on",
                first + FOR_NETWORKS
            );
            section.complain(&place, message, hint.clone());
        }
    }
}

/// The table of `kernel::blackholes`.
pub const BLACKHOLES: u32 = 6767;

/// So far behind the tables of the marks are those of networks.
pub const FOR_NETWORKS: u32 = 200;

impl EgressSettings {
    /// How many nodes can have a mark of their own.
    pub fn slots(&self) -> u8 {
        slots(self.mark_mask)
    }

    /// The number of the slot's table of routes. Slots count from 1.
    pub fn route_table(&self, slot: u8) -> u32 {
        self.first_route_table.saturating_add(u32::from(slot) - 1)
    }

    /// The mark of a slot.
    pub fn mark(&self, slot: u8) -> u32 {
        u32::from(slot) << self.mark_mask.trailing_zeros()
    }
}

fn slots(mask: u32) -> u8 {
    let values = mask >> mask.trailing_zeros();
    // More are not needed, and each has a chain and two rules.
    u8::try_from(values.min(FOR_NETWORKS)).unwrap_or(200)
}

fn network(text: &str) -> Result<IpNet, Problem> {
    let problem = |what: &str, hint: &str| Problem::new(format!("{} {what}", written(text)), hint.to_owned());
    let example = "write \"10.244.0.0/16\"";
    let net: IpNet = text.parse().map_err(|_| problem("is not a CIDR", example))?;
    match net {
        net if net.prefix_len() == 0 => Err(problem("is everything: no packet would leave the cluster", example)),
        net if mapped_v4(net.addr()).is_some() => Err(problem("is IPv4 written as IPv6", example)),
        net if net != net.trunc() => Err(problem("has host bits set", &format!("write \"{}\"", net.trunc()))),
        net => Ok(net),
    }
}

fn table(text: &str) -> Result<String, Problem> {
    let is_name =
        (1..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err(Problem::new(format!("{} is no name for a table", written(text)), "write \"crier\""))
    }
}
