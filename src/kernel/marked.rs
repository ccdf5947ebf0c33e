//! Rules and routes of crier's for marked packets: what `steering` and `returns` have in common. Floor 2. Each of them says which
//! parts it wants; here parts are found in the kernel, made and removed.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::netlink::{Netlink, NetlinkError, PROTOCOL, address_family, family_of, table_of};
use super::routes;
use crate::address::Family;
use crate::config::EgressSettings;
use crate::names::InterfaceName;
use crate::world::HostProblem;

/// One rule or route.
pub(super) trait Part: Ord + Sized {
    /// Refusals of the kernel that leave it as it should be.
    const FINE: &'static [i32];

    /// The part that a rule or route of the kernel is; `None` where it is none of crier's.
    fn read(message: &RouteNetlinkMessage, settings: &EgressSettings) -> Option<Self>;

    /// The request that makes it (`new`), or removes it.
    fn message(&self, settings: &EgressSettings, new: bool) -> RouteNetlinkMessage;
}

/// The events that parts are about.
pub(super) const GROUPS: [MulticastGroup; 4] =
    [MulticastGroup::Ipv4Rule, MulticastGroup::Ipv6Rule, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];

pub(super) async fn present<P: Part>(
    netlink: &mut Netlink,
    settings: &EgressSettings,
) -> Result<BTreeSet<P>, NetlinkError> {
    let rules = netlink.rules().await?;
    let routes = netlink.own_routes().await?;
    Ok(rules.iter().chain(&routes).filter_map(|message| P::read(message, settings)).collect())
}

/// Makes the part (`new`), or removes it.
pub(super) async fn change<P: Part>(
    part: &P,
    new: bool,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<(), NetlinkError> {
    let flags = if new { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    match netlink.change(part.message(settings, new), flags).await {
        Err(error) if P::FINE.iter().any(|code| error.is_refusal(*code)) => Ok(()),
        done => done,
    }
}

/// The routes of other programs in these tables of crier's, each table with one of them in words, that packets follow before crier's own
/// default route, or that keep the kernel from taking it.
pub(super) async fn strangers(
    tables: BTreeSet<u32>,
    netlink: &mut Netlink,
) -> Result<BTreeMap<u32, HostProblem>, NetlinkError> {
    let mut strangers = BTreeMap::new();
    for table in tables {
        let mut request = RouteMessage::default();
        request.attributes.push(RouteAttribute::Table(table));
        let found = match netlink.list_of(request, |route| is_stranger(route, table)).await {
            // Nobody has made the table yet.
            Err(error) if error.is_refusal(libc::ENOENT) => continue,
            found => found?,
        };
        let words = found.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => stranger_in_words(route, table),
            // The enum is not ours; nothing else is a route.
            _ => None,
        });
        strangers.extend(words.map(|words| (table, words)));
    }
    Ok(strangers)
}

/// Whether it is another program's, and no worse than the default route that crier makes there.
fn is_stranger(route: &RouteMessage, table: u32) -> bool {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        // The enum is not ours.
        _ => None,
    });
    let comes_before = match family_of(route.header.address_family) {
        Some(Family::V4) => metric.unwrap_or(0) == 0,
        Some(Family::V6) => metric.unwrap_or(0) <= METRIC_OF_V6,
        None => false,
    };
    let is_default = route.header.destination_prefix_length == 0;
    table_of(route) == table && route.header.protocol != PROTOCOL && (!is_default || comes_before)
}

/// What the kernel gives a route of IPv6 that is made without one, as crier's are.
const METRIC_OF_V6: u32 = 1024;

fn stranger_in_words(route: &RouteMessage, table: u32) -> Option<HostProblem> {
    let to = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(to) => routes::address(to),
        // The enum is not ours.
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    let to = to.map_or_else(|| "default".to_owned(), |to| format!("{to}/{length}"));
    let kind = match route.header.kind {
        RouteType::Unicast => String::new(),
        kind => format!("{kind:?} ").to_lowercase(),
    };
    let ip = family_of(route.header.address_family)?.option_of_ip();
    Some(HostProblem {
        problem: format!("another program has the route {kind}{to} in crier's table {table}"),
        remedy: format!(
            "ip {ip} route show table {table}; remove the route, or set [egress] first-route-table on all nodes where the table is the \
             other program's"
        ),
    })
}

/// Removes all parts. Says how many there were.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub(super) async fn take_away<P: Part>(settings: &EgressSettings) -> Result<usize, NetlinkError> {
    let mut netlink = Netlink::open_for(&[])?;
    let present: BTreeSet<P> = present(&mut netlink, settings).await?;
    for part in &present {
        change(part, false, settings, &mut netlink).await?;
    }
    Ok(present.len())
}

/// A rule that leads packets with the mark of a slot to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkedRule {
    pub(super) slot: u8,
    /// How far its priority is behind `rule-priority`.
    pub(super) behind: u32,
    pub(super) table: u32,
    /// Only what comes in by this link.
    pub(super) link: Option<InterfaceName>,
    pub(super) family: Family,
}

impl MarkedRule {
    /// `None` where the rule is none of crier's.
    pub(super) fn read(rule: &RuleMessage, settings: &EgressSettings) -> Option<MarkedRule> {
        let (mut protocol, mut priority, mut mark, mut link) = (None, None, None, None);
        let mut table = u32::from(rule.header.table);
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Protocol(told) => protocol = Some(*told),
                RuleAttribute::Priority(told) => priority = Some(*told),
                RuleAttribute::FwMark(told) => mark = Some(*told),
                RuleAttribute::Iifname(told) => link = Some(InterfaceName::from(told.as_str())),
                RuleAttribute::Table(told) => table = *told,
                // The enum is not ours; nothing else tells our rules apart.
                _ => {}
            }
        }
        let slot = (1..=settings.slots()).find(|slot| mark == Some(settings.mark(*slot)))?;
        let family = family_of(rule.header.family)?;
        let behind = priority?.checked_sub(settings.rule_priority)?;
        (protocol == Some(PROTOCOL)).then_some(MarkedRule { slot, behind, table, link, family })
    }

    pub(super) fn message(&self, settings: &EgressSettings, new: bool) -> RouteNetlinkMessage {
        let MarkedRule { slot, behind, table, link, family } = self;
        let mut message = RuleMessage::default();
        message.header.family = address_family(*family);
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Protocol(PROTOCOL),
            RuleAttribute::Priority(settings.rule_priority.saturating_add(*behind)),
            RuleAttribute::FwMark(settings.mark(*slot)),
            RuleAttribute::FwMask(settings.mark_mask),
            RuleAttribute::Table(*table),
        ];
        message.attributes.extend(link.as_ref().map(|link| RuleAttribute::Iifname(link.to_string())));
        if new { RouteNetlinkMessage::NewRule(message) } else { RouteNetlinkMessage::DelRule(message) }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    /// Input: routes in a table of crier's. Output: those that packets follow before crier's own default route.
    #[test]
    fn a_route_of_another_program_in_a_table_of_criers_is_a_stranger_where_it_comes_before() {
        let of = |family: Family, to: Option<(&str, u8)>, metric: u32, change: fn(&mut RouteMessage)| {
            let mut route = RouteMessage::default();
            route.header.address_family = address_family(family);
            route.header.protocol = RouteProtocol::Boot;
            route.header.kind = RouteType::Unicast;
            route.attributes = vec![RouteAttribute::Table(6770)];
            route.attributes.extend((metric > 0).then_some(RouteAttribute::Priority(metric)));
            if let Some((to, length)) = to {
                route.header.destination_prefix_length = length;
                route.attributes.push(RouteAttribute::Destination(to.parse::<std::net::IpAddr>().unwrap().into()));
            }
            change(&mut route);
            route
        };
        let same = |_: &mut RouteMessage| ();
        let ours = |route: &mut RouteMessage| route.header.protocol = PROTOCOL;
        let elsewhere = |route: &mut RouteMessage| route.attributes[0] = RouteAttribute::Table(254);
        let blackhole = |route: &mut RouteMessage| route.header.kind = RouteType::BlackHole;
        let table = [
            (of(Family::V4, None, 0, same), Some("the route default in")),
            (of(Family::V4, None, 0, blackhole), Some("the route blackhole default in")),
            (of(Family::V4, None, 100, same), None),
            (of(Family::V4, Some(("203.0.113.0", 24)), 100, same), Some("the route 203.0.113.0/24 in")),
            (of(Family::V6, None, 1, same), Some("the route default in")),
            (of(Family::V6, None, 1024, same), Some("the route default in")),
            (of(Family::V6, None, 2048, same), None),
            (of(Family::V4, None, 0, ours), None),
            (of(Family::V4, None, 0, elsewhere), None),
        ];
        for (route, expected) in table {
            let told = is_stranger(&route, 6770).then(|| stranger_in_words(&route, 6770)).flatten();
            let told = told.map(|problem| problem.to_string());
            assert_eq!(told.is_some(), expected.is_some(), "{route:?}");
            assert!(told.is_none_or(|told| told.contains(expected.unwrap_or_default()) && told.contains("6770")));
        }
    }
}
