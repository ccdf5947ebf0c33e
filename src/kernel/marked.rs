//! Rules and routes of crier's for marked packets: what `steering` and `returns` have in common. Floor 2. Each of them says which
//! parts it wants; here parts are found in the kernel, made and removed.

use std::collections::BTreeSet;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::netlink::{Netlink, NetlinkError, PROTOCOL, address_family, family_of};
use crate::address::Family;
use crate::config::EgressSettings;
use crate::names::InterfaceName;

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

/// A rule of another program that is looked up before those of crier, and leads packets to a table whatever their source, link or user
/// is; only a mark may select them. The kernel gives a rule that is added without a priority the one before the lowest of all but its
/// own first rule: so such a rule comes in front of crier's, whatever priorities these have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ForeignRule {
    pub(super) priority: u32,
    pub(super) table: u32,
    pub(super) family: Family,
    /// The mark and its mask, and whether it is for all packets without that mark.
    mark: (u32, u32, bool),
}

impl ForeignRule {
    /// `None` where the rule is one of crier's, leads to no table, or only some packets there, or comes behind `priority`.
    pub(super) fn before(priority: u32, rule: &RuleMessage) -> Option<ForeignRule> {
        let is_for_all = rule.header.dst_len == 0 && rule.header.src_len == 0 && rule.header.tos == 0;
        if rule.header.action != RuleAction::ToTable || !is_for_all {
            return None;
        }
        let inverted = rule.header.flags.contains(RuleFlags::Invert);
        let (mut own_priority, mut table, mut mark, mut mask) = (0, u32::from(rule.header.table), 0, 0);
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Priority(told) => own_priority = *told,
                RuleAttribute::Table(told) => table = *told,
                RuleAttribute::FwMark(told) => mark = *told,
                RuleAttribute::FwMask(told) => mask = *told,
                RuleAttribute::Protocol(told) if *told == PROTOCOL => return None,
                // It passes default routes over.
                RuleAttribute::SuppressPrefixLen(told) if *told != u32::MAX => return None,
                RuleAttribute::L3MDev(true)
                | RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_) => return None,
                // The enum is not ours; nothing else selects packets.
                _ => {}
            }
        }
        let family = family_of(rule.header.family)?;
        // The kernel's own, of the addresses of this host.
        let is_local = table == LOCAL;
        (own_priority < priority && !is_local).then_some(ForeignRule {
            priority: own_priority,
            table,
            family,
            mark: (mark, mask, inverted),
        })
    }

    /// Whether it leads packets there that have only this mark.
    pub(super) fn takes(&self, of_packet: u32) -> bool {
        let (mark, mask, inverted) = self.mark;
        ((of_packet ^ mark) & mask == 0) != inverted
    }
}

/// `RT_TABLE_LOCAL`.
const LOCAL: u32 = 255;

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
