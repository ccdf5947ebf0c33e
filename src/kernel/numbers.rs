//! The numbers of crier's policy rules that rules of other programs on this host use too: bits of the packet mark, priorities, tables.
//! Floor 2. Which numbers programs are known to use says `config::taken`; here the kernel is asked.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::RuleMessage;

use super::foreign_rules::ForeignRule;
use super::netlink::Netlink;
use crate::config::taken::Numbers;

/// The rules of others that use any of these, each in one sentence. Empty where the kernel does not answer.
pub async fn shared(ours: &Numbers) -> Vec<String> {
    let Ok(mut netlink) = Netlink::open_for(&[]) else { return Vec::new() };
    let rules = netlink.rules().await.unwrap_or_default();
    let rules = rules.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewRule(rule) => Some(rule),
        // The enum is not ours; nothing else is a rule.
        _ => None,
    });
    rules.filter_map(|rule| in_words(rule, ours)).collect()
}

fn in_words(rule: &RuleMessage, ours: &Numbers) -> Option<String> {
    let ForeignRule { priority, table, family, mark: (mark, mask), .. } = ForeignRule::read(rule)?;
    let within = |number: u32, (first, last): &(u32, u32)| (*first..=*last).contains(&number);
    // With the mask of all bits a rule is for one whole mark.
    let bits = ours.mark_mask & if mask == u32::MAX { mark } else { mark | mask };
    let shared = [
        (bits != 0).then(|| format!("goes by the bits {bits:#010x} of the packet mark ([egress] mark-mask)")),
        within(priority, &ours.priorities).then(|| "has a priority of crier's ([egress] rule-priority)".to_owned()),
        ours.tables
            .iter()
            .any(|tables| within(table, tables))
            .then(|| format!("leads to the table {table}, which is one of crier's ([egress] first-route-table)")),
    ];
    let shared: Vec<String> = shared.into_iter().flatten().collect();
    let ip = family.option_of_ip();
    (!shared.is_empty()).then(|| {
        format!(
            "a rule of another program {}: see priority {priority} of ip {ip} rule show; where it is about packets of pods or of Services, \
             give one of both other numbers",
            shared.join(", and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::RouteProtocol;
    use netlink_packet_route::rule::RuleAttribute;

    use super::super::netlink::PROTOCOL;
    use super::*;

    /// Input: rules as other programs make them. Output: those with a number of crier's are named, with which; crier's own
    /// and all others are not.
    #[test]
    fn rules_of_others_with_a_number_of_criers_are_named() {
        let ours =
            Numbers { mark_mask: 0x00f0_0000, priorities: (1500, 1502), tables: vec![(6770, 6784), (6970, 6984)] };
        let rule = |protocol, priority, mark: Option<(u32, u32)>, table| {
            let mut rule = RuleMessage::default();
            rule.header.family = AddressFamily::Inet;
            rule.attributes =
                vec![RuleAttribute::Protocol(protocol), RuleAttribute::Priority(priority), RuleAttribute::Table(table)];
            let mark = mark.into_iter();
            rule.attributes
                .extend(mark.flat_map(|(mark, mask)| [RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]));
            rule
        };
        let table = [
            (rule(RouteProtocol::Boot, 5210, Some((0x0008_0000, 0x00ff_0000)), 254), Some("the bits 0x00f00000")),
            (rule(RouteProtocol::Boot, 100, Some((0x0020_0000, 0x0020_0000)), 254), Some("the bits 0x00200000")),
            (rule(RouteProtocol::Boot, 100, Some((0x0010_0000, u32::MAX)), 254), Some("the bits 0x00100000")),
            (rule(RouteProtocol::Boot, 100, Some((0xca6c, u32::MAX)), 254), None),
            (rule(RouteProtocol::Kernel, 9, Some((0x200, 0xf00)), 2004), None),
            (rule(RouteProtocol::Boot, 1501, None, 254), Some("has a priority of crier's")),
            (rule(RouteProtocol::Boot, 1499, None, 6784), Some("leads to the table 6784")),
            (rule(RouteProtocol::Boot, 1503, None, 6785), None),
            (rule(PROTOCOL, 1500, Some((0x0010_0000, 0x00f0_0000)), 6770), None),
            (rule(RouteProtocol::Kernel, 32766, None, 254), None),
        ];
        for (rule, expected) in table {
            let told = in_words(&rule, &ours);
            assert_eq!(told.is_some(), expected.is_some(), "{rule:?}: {told:?}");
            assert!(told.is_none_or(|told| told.contains(expected.unwrap_or_default())));
        }
    }
}
