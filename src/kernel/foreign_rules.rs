//! Policy rules of other programs, by what the kernel looks at: who may take packets in front of crier's rules, or shares a number with
//! them. Floor 2, pure.

use ipnet::IpNet;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::netlink::{PROTOCOL, family_of};
use crate::address::Family;

/// One such rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ForeignRule {
    pub(super) priority: u32,
    pub(super) table: u32,
    pub(super) family: Family,
    /// The mark and its mask.
    pub(super) mark: (u32, u32),
    /// It is for all packets but those.
    pub(super) inverted: bool,
    /// All packets, or those from there.
    pub(super) from: Option<IpNet>,
    /// It leads packets to its table.
    leads: bool,
    /// It has the kernel drop what it is for: prohibit, unreachable, blackhole.
    pub(super) refuses: bool,
    /// It goes by more than the mark, or passes some routes of its table over.
    narrow: bool,
}

impl ForeignRule {
    /// `None` where the rule is one of crier's.
    pub(super) fn read(RuleMessage { header, attributes, .. }: &RuleMessage) -> Option<ForeignRule> {
        let mut rule = ForeignRule {
            priority: 0,
            table: u32::from(header.table),
            family: family_of(header.family)?,
            mark: (0, 0),
            inverted: header.flags.contains(RuleFlags::Invert),
            from: None,
            leads: header.action == RuleAction::ToTable,
            refuses: matches!(header.action, RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit),
            narrow: header.dst_len != 0 || header.src_len != 0 || header.tos != 0,
        };
        for attribute in attributes {
            match attribute {
                RuleAttribute::Protocol(told) if *told == PROTOCOL => return None,
                RuleAttribute::Priority(told) => rule.priority = *told,
                RuleAttribute::Table(told) => rule.table = *told,
                RuleAttribute::FwMark(told) => rule.mark.0 = *told,
                RuleAttribute::FwMask(told) => rule.mark.1 = *told,
                RuleAttribute::Source(told) => rule.from = IpNet::new(*told, header.src_len).ok(),
                // It passes default routes over.
                RuleAttribute::SuppressPrefixLen(told) => rule.narrow |= *told != u32::MAX,
                RuleAttribute::L3MDev(true)
                | RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_) => rule.narrow = true,
                // The enum is not ours; nothing else selects packets.
                _ => {}
            }
        }
        Some(rule)
    }

    /// One that is looked up before those of crier, and leads packets to a table whatever their source, link or user is; only a mark may
    /// select them. The kernel gives a rule that is added without a priority the one before the lowest of all but its own first rule: so
    /// such a rule comes in front of crier's, whatever priorities these have. `None` for all others.
    pub(super) fn before(priority: u32, rule: &RuleMessage) -> Option<ForeignRule> {
        ForeignRule::read(rule).filter(|rule| rule.leads_away() && !rule.narrow && rule.priority < priority)
    }

    /// It leads packets to a table, and not to the kernel's own of the addresses of this host.
    pub(super) fn leads_away(&self) -> bool {
        self.leads && self.table != LOCAL
    }

    /// Whether it leads packets there that have only this mark.
    pub(super) fn takes(&self, of_packet: u32) -> bool {
        self.has_mark(of_packet) != self.inverted
    }

    /// Whether the bits that it looks at are those of the packet.
    pub(super) fn has_mark(&self, of_packet: u32) -> bool {
        let (mark, mask) = self.mark;
        (of_packet ^ mark) & mask == 0
    }
}

/// `RT_TABLE_LOCAL`.
const LOCAL: u32 = 255;
