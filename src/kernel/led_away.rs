//! Policy rules of other programs that take packets of pods away in front of crier's own, which leads them to the owner of their Service's
//! address, or that refuse them. Floor 2, a part of `steering`. The kernel is asked itself by which table it leads such a packet: what a rule says is not enough,
//! for its table may lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;

use super::foreign_rules::ForeignRule;
use super::netlink::{Led, Netlink, NetlinkError};
use crate::address::Family;
use crate::config::EgressSettings;
use crate::plan::slice::{EgressSlice, Mapping};
use crate::world::HostProblem;

/// Answers with the rules that lead packets of pods elsewhere or refuse them, in words. The kernel is asked once for all pods with the same way
/// that the same rules may concern.
pub(super) async fn rules(
    slice: &EgressSlice,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<Vec<HostProblem>, NetlinkError> {
    let pods = leaving(slice, settings);
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let rules = netlink.rules().await?;
    let mut foreign: Vec<ForeignRule> = rules.iter().filter_map(|rule| in_front(rule, settings)).collect();
    foreign.sort_by_key(|rule| rule.priority);
    let mut found = BTreeMap::new();
    for Question { pod, way: Way { mark, table: own }, rules } in questions(&pods, &foreign) {
        let mut rules = rules.iter().filter_map(|place| foreign.get(*place));
        let rule = match netlink.led(pod, somewhere(slice, pod), mark).await? {
            Led::By(table) if own.is_some_and(|own| own != table) => {
                rules.find(|rule| !rule.refuses && rule.table == table)
            }
            Led::Nowhere => rules.find(|rule| rule.refuses),
            Led::By(_) | Led::Unknown => None,
        };
        if let Some(rule) = rule {
            found.entry((rule.priority, rule.table)).or_insert_with(|| in_words(rule, pod, settings));
        }
    }
    Ok(found.into_values().collect())
}

/// How packets of a pod are led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    mark: u32,
    /// That leads to another node; `None`: they leave by this one, and whichever table leads them is right.
    table: Option<u32>,
}

/// The pods whose packets are to leave, by another node or by this one.
fn leaving(slice: &EgressSlice, settings: &EgressSettings) -> Vec<(IpAddr, Way)> {
    let way = |mapping: &Mapping| match mapping {
        Mapping::Steered { slot } => Some(Way { mark: settings.mark(*slot), table: Some(settings.route_table(*slot)) }),
        Mapping::Translated { address: _, network } => {
            Some(Way { mark: network.map_or(0, |slot| settings.mark(slot)), table: None })
        }
        Mapping::Held | Mapping::Networked(_) => None,
    };
    slice.pods.iter().filter_map(|(pod, mapping)| Some((*pod, way(mapping)?))).collect()
}

/// How the kernel leads packets of this pod, which these rules may take.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    pod: IpAddr,
    way: Way,
    /// Their places among the rules, the first that the kernel looks at in front.
    rules: Vec<usize>,
}

fn questions(pods: &[(IpAddr, Way)], foreign: &[ForeignRule]) -> Vec<Question> {
    let mut known = BTreeSet::new();
    let question = |(pod, way): &(IpAddr, Way)| {
        let (pod, way) = (*pod, *way);
        let matters = |rule: &ForeignRule| rule.refuses || way.table.is_some();
        let takes = |(_, rule): &(usize, &ForeignRule)| matters(rule) && may_take(rule, pod, way.mark);
        let rules: Vec<usize> = foreign.iter().enumerate().filter(takes).map(|(place, _)| place).collect();
        let is_new = !rules.is_empty() && known.insert((way, Family::of(pod), rules.clone()));
        is_new.then_some(Question { pod, way, rules })
    };
    pods.iter().filter_map(question).take(MOST_ASKED).collect()
}

/// How many questions the kernel is asked for one look. With a rule for each pod there may be one for each.
const MOST_ASKED: usize = 64;

/// A destination for which the pod has egress.
fn somewhere(slice: &EgressSlice, pod: IpAddr) -> IpAddr {
    let is_of_family = |net: &&IpNet| Family::of(net.addr()) == Family::of(pod);
    let bounded = slice.bounded.get(&pod).and_then(|destinations| destinations.to.iter().find(is_of_family));
    // Networks that no host of the Internet is in (RFC 2544, RFC 5180): only default routes lead there.
    let anywhere = match pod {
        IpAddr::V4(_) => IpAddr::from([198, 18, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 2, 0, 0, 0, 0, 0, 1]),
    };
    bounded.filter(|net| net.prefix_len() > 0).map_or(anywhere, |net| net.hosts().next().unwrap_or(net.addr()))
}

/// `None` where the rule is one of crier's or the kernel's own, or leads to a table behind crier's. At equal priority the one that was added
/// first comes first. One that refuses packets has its effect wherever no rule before it leads them.
fn in_front(message: &RouteNetlinkMessage, settings: &EgressSettings) -> Option<ForeignRule> {
    let RouteNetlinkMessage::NewRule(rule) = message else { return None };
    ForeignRule::read(rule)
        .filter(|rule| rule.refuses || (rule.leads_away() && rule.priority <= settings.rule_priority))
}

/// Whether it may be for packets of the pod with this mark: it may say more than is looked at.
fn may_take(rule: &ForeignRule, pod: IpAddr, of_packet: u32) -> bool {
    let is_for = rule.from.is_none_or(|from| from.contains(&pod)) && rule.has_mark(of_packet);
    rule.family == Family::of(pod) && (rule.inverted || is_for)
}

fn in_words(rule: &ForeignRule, pod: IpAddr, settings: &EgressSettings) -> HostProblem {
    let ForeignRule { priority, table, family, from, .. } = rule;
    let (ip, own) = (family.option_of_ip(), settings.rule_priority);
    let from = from.map(|from| format!(", from {from}")).unwrap_or_default();
    if rule.refuses {
        return HostProblem {
            problem: format!(
                "packets of pods with egress, such as {pod}, are dropped: the policy rule of another program with the priority {priority} \
                 ({family}{from}) refuses them (prohibit, unreachable or blackhole)"
            ),
            remedy: format!("ip {ip} rule show pref {priority}; have the program leave these pods out"),
        };
    }
    HostProblem {
        problem: format!(
            "packets of pods with egress, such as {pod}, do not reach the owner of their Service's address and are dropped: the policy \
             rule of another program with the priority {priority} ({family}{from}) leads them into table {table} before crier's rule \
             {own} is asked"
        ),
        remedy: format!(
            "ip {ip} rule show pref {priority}; have the program leave these pods out, or add its rule behind crier's; or set [egress] \
             rule-priority below {priority} on all nodes, where other programs need no rule before it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

    use super::super::netlink::PROTOCOL;
    use super::*;
    use crate::config::tests::good;

    fn rule(priority: u32, table: u32, from: Option<(&str, u8)>, mark: Option<(u32, u32)>) -> RouteNetlinkMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Table(table)];
        if let Some((from, length)) = from {
            message.header.src_len = length;
            message.attributes.push(RuleAttribute::Source(from.parse().unwrap()));
        }
        if let Some((mark, mask)) = mark {
            message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
        }
        RouteNetlinkMessage::NewRule(message)
    }

    /// Input: rules as other programs have them. Output: of which of them the kernel is asked whether it takes the pod's packets.
    #[test]
    fn rules_that_may_take_packets_of_a_pod_in_front_of_criers_are_asked_about() {
        let settings = good("").egress;
        let (pod, mark, own) = ("10.244.1.2".parse().unwrap(), settings.mark(1), settings.rule_priority);
        let ours = match rule(own, 6770, None, Some((mark, settings.mark_mask))) {
            RouteNetlinkMessage::NewRule(mut rule) => {
                rule.attributes.push(RuleAttribute::Protocol(PROTOCOL));
                RouteNetlinkMessage::NewRule(rule)
            }
            other => other,
        };
        let table = [
            (rule(111, 254, Some(("10.244.1.2", 32)), None), true),
            (rule(111, 254, Some(("10.244.1.0", 24)), None), true),
            (rule(111, 254, None, None), true),
            (rule(own, 254, None, Some((mark, settings.mark_mask))), true),
            (rule(111, 254, Some(("10.244.1.3", 32)), None), false),
            (rule(111, 254, None, Some((mark << 1, settings.mark_mask))), false),
            (rule(own + 1, 254, None, None), false),
            (rule(0, 255, None, None), false),
            (ours, false),
        ];
        for (message, expected) in table {
            let takes = in_front(&message, &settings).is_some_and(|rule| may_take(&rule, pod, mark));
            assert_eq!(takes, expected, "{message:?}");
        }
        // Once for all pods of a slot that the same rules may concern.
        let foreign: Vec<ForeignRule> = [rule(100, 52, None, None), rule(111, 254, Some(("10.244.1.2", 32)), None)]
            .iter()
            .filter_map(|rule| in_front(rule, &settings))
            .collect();
        let way = Way { mark, table: Some(settings.route_table(1)) };
        let pods = ["10.244.1.2", "10.244.1.3", "10.244.1.4", "fd44::2"].map(|pod| (pod.parse().unwrap(), way));
        let asked = questions(&pods, &foreign);
        let asked: Vec<(String, &[usize])> = asked.iter().map(|it| (it.pod.to_string(), &*it.rules)).collect();
        assert_eq!(asked, [("10.244.1.2".to_owned(), &[0, 1][..]), ("10.244.1.3".to_owned(), &[0])]);
        let words = in_front(&rule(111, 254, Some(("10.244.1.2", 32)), None), &settings).unwrap();
        let words = in_words(&words, pod, &settings).to_string();
        assert!(words.contains("priority 111 (IPv4, from 10.244.1.2/32) leads them into table 254"), "{words}");
        // Who refuses is asked about wherever the rule stands, also of pods that leave by this node.
        let refusing = |priority: u32, action: RuleAction| match rule(priority, 0, Some(("10.244.1.0", 24)), None) {
            RouteNetlinkMessage::NewRule(mut rule) => {
                rule.header.action = action;
                in_front(&RouteNetlinkMessage::NewRule(rule), &settings)
            }
            other => panic!("{other:?}"),
        };
        let here = Way { mark: 0, table: None };
        for action in [RuleAction::Prohibit, RuleAction::Blackhole, RuleAction::Unreachable] {
            let foreign = [refusing(100, action), refusing(own + 1, action)].map(|it| it.expect("it matters"));
            for way in [way, here] {
                assert_eq!(questions(&[(pod, way)], &foreign), [Question { pod, way, rules: vec![0, 1] }]);
            }
            let words = in_words(&foreign[0], pod, &settings).to_string();
            assert!(words.contains("priority 100 (IPv4, from 10.244.1.0/24) refuses them"), "{words}");
        }
        let leads = in_front(&rule(100, 52, None, None), &settings).expect("it leads away");
        assert_eq!(questions(&[(pod, here)], &[leads]), [], "the tables of others lead where they lead");
        assert_eq!(refusing(100, RuleAction::Nop), None);
    }
}
