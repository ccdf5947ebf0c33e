//! Many prefixes into one UPDATE, filled as far as the session carries (RFC 4271 §4.3, RFC 4760, RFC 8950).
//! Floor 1. The outbox decides which prefixes are sent.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::Family;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::wire::{
    AfiSafi, AsPathSegment, Attributes, Dialect, EmitError, HEADER_LEN, MAX_MESSAGE_LEN, Message, MpReach, MpUnreach,
    NextHop, Origin, Update, emitted_prefix_len,
};
use crate::route::RouteAttributes;

/// Where this node can be reached from the peer, for either family of routes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHops {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<NextHopV6>,
}

impl NextHops {
    /// One of them is this address.
    pub fn has(&self, local: IpAddr) -> bool {
        match local {
            IpAddr::V4(v4) => self.v4 == Some(v4),
            IpAddr::V6(v6) => self.v6.is_some_and(|it| it.global == v6 || it.link_local == Some(v6)),
        }
    }
}

/// RFC 2545 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopV6 {
    pub global: Ipv6Addr,
    /// Set exactly when the peer is on a link of this node.
    pub link_local: Option<Ipv6Addr>,
}

/// Why a prefix is never sent on this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    #[error("{0} is not among the families that both sides offered")]
    NotNegotiated(AfiSafi),
    #[error("this node has no next hop for {0} on this session")]
    NoNextHop(AfiSafi),
    #[error("its attributes alone fill a message of {0} octets")]
    AttributesTooLong(usize),
}

/// Where an UPDATE carries the announcements of one family, and their next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// RFC 4271: in the UPDATE's own fields.
    Classic(Ipv4Addr),
    /// RFC 4760: in an attribute.
    Multiprotocol(NextHop),
}

/// Where an UPDATE names the prefixes that it withdraws. A withdrawal has no next hop, so it can always be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Withdrawal {
    /// RFC 4271: in the withdrawn routes field.
    Classic,
    /// RFC 4760: in MP_UNREACH_NLRI.
    Multiprotocol,
}

/// What stays the same for all messages of a session, until its next hops change.
#[derive(Debug)]
pub(super) struct Packer {
    dialect: Dialect,
    local_asn: u32,
    v4: Result<Encoding, Unsendable>,
    v6: Result<Encoding, Unsendable>,
    /// As the routes were announced, also once their next hop is lost.
    v4_withdrawal: Withdrawal,
}

impl Packer {
    pub(super) fn new(negotiated: &Negotiated, next_hops: NextHops) -> Packer {
        let v4 = next_hops.v4.filter(|v4| !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast());
        let v6 = next_hops.v6.filter(|v6| !v6.global.is_unspecified() && !v6.global.is_multicast());
        let by_v6 =
            v6.map(|NextHopV6 { global, link_local }| Encoding::Multiprotocol(NextHop::V6 { global, link_local }));
        let by_v6_for_v4 = by_v6.filter(|_| negotiated.ipv4_with_ipv6_next_hop);
        let encoding = |negotiated: bool, family, encoding: Option<Encoding>| match encoding {
            _ if !negotiated => Err(Unsendable::NotNegotiated(family)),
            Some(encoding) => Ok(encoding),
            None => Err(Unsendable::NoNextHop(family)),
        };
        // RFC 4271 §4.1: every speaker takes so much. Below it, `judge` would have to measure every route.
        let max_message_len = negotiated.max_message_len.max(MAX_MESSAGE_LEN);
        let v4_withdrawal = match (v4, negotiated.ipv4_with_ipv6_next_hop) {
            (None, true) => Withdrawal::Multiprotocol,
            (Some(_), _) | (None, false) => Withdrawal::Classic,
        };
        Packer {
            dialect: Dialect { max_message_len, ..negotiated.dialect() },
            local_asn: negotiated.local_asn,
            v4: encoding(negotiated.ipv4_unicast, AfiSafi::IPV4_UNICAST, v4.map(Encoding::Classic).or(by_v6_for_v4)),
            v6: encoding(negotiated.ipv6_unicast, AfiSafi::IPV6_UNICAST, by_v6),
            v4_withdrawal,
        }
    }

    /// No route of the family can be announced any more. Those that were can still be withdrawn.
    pub(super) fn lose_next_hop(&mut self, family: Family) {
        let lost = Err(Unsendable::NoNextHop(AfiSafi::unicast(family)));
        match family {
            Family::V4 => self.v4 = lost,
            Family::V6 => self.v6 = lost,
        }
    }

    /// Whether announcements of the family are the same to the peer as those of `other`.
    pub(super) fn announces_like(&self, other: &Packer, family: Family) -> bool {
        self.encoding(family) == other.encoding(family)
    }

    pub(super) fn negotiated(&self, family: Family) -> bool {
        self.dialect.negotiated(AfiSafi::unicast(family))
    }

    /// Whether any route of the family can be sent.
    pub(super) fn carries(&self, family: Family) -> bool {
        self.encoding(family).is_ok()
    }

    fn encoding(&self, family: Family) -> Result<Encoding, Unsendable> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Whether a route can be announced here. The answer for the same route changes only with the next hops.
    pub(super) fn judge(&self, family: Family, attributes: &RouteAttributes) -> Result<(), Unsendable> {
        /// So many fit the shortest maximum beside the longest of all other attributes: there is no need to measure.
        const FEW: usize = 64;
        let encoding = self.encoding(family)?;
        if attributes.communities.len() <= FEW {
            return Ok(());
        }
        let longest_prefix = 1 + usize::from(family.host_length() / 8);
        let room = self.room(&self.announcement(family, encoding, attributes, Vec::new()));
        if room < longest_prefix { Err(Unsendable::AttributesTooLong(self.dialect.max_message_len)) } else { Ok(()) }
    }

    /// Whether the peer could not tell one from the other.
    pub(super) fn says_the_same(&self, one: &RouteAttributes, other: &RouteAttributes) -> bool {
        let said = |route: &RouteAttributes| {
            let RouteAttributes { local_preference, med, prepend, endpoints, communities: _ } = *route;
            let preference = local_preference.unwrap_or(RouteAttributes::DEFAULT_LOCAL_PREFERENCE);
            if self.dialect.internal { (med, endpoints, preference, 0) } else { (med, endpoints, 0, prepend) }
        };
        said(one) == said(other) && one.communities == other.communities
    }

    /// Takes as many prefixes off `from` as one message with these attributes holds. All must be of `family`.
    pub(super) fn take_announcements(
        &self,
        family: Family,
        attributes: &RouteAttributes,
        from: &mut BTreeSet<IpNet>,
    ) -> Vec<IpNet> {
        take(from, self.room_for_routes(family, attributes))
    }

    /// As [`Packer::take_announcements`], for prefixes to withdraw.
    pub(super) fn take_withdrawals(&self, family: Family, from: &mut BTreeSet<IpNet>) -> Vec<IpNet> {
        take(from, self.room(&self.withdrawal(family, Vec::new())))
    }

    /// Octets that a message with these attributes has for its prefixes.
    pub(super) fn room_for_routes(&self, family: Family, attributes: &RouteAttributes) -> usize {
        self.encoding(family)
            .map_or(0, |encoding| self.room(&self.announcement(family, encoding, attributes, Vec::new())))
    }

    /// The message that announces these prefixes. All of them must be of `family` and have been judged sendable with these
    /// attributes, they must have been taken by the room there is for them, and there must be one. After an error the session must
    /// end: they are lost.
    pub(super) fn announce(
        &self,
        family: Family,
        attributes: &RouteAttributes,
        prefixes: Vec<IpNet>,
    ) -> Result<Option<Bytes>, EmitError> {
        let Ok(encoding) = self.encoding(family) else {
            return Ok(None);
        };
        self.pack(self.announcement(family, encoding, attributes, prefixes)).map(Some)
    }

    /// The message that withdraws these prefixes, which the peer has. They must have been taken by
    /// [`Packer::take_withdrawals`], and there must be one. After an error the session must end.
    pub(super) fn withdraw(&self, family: Family, prefixes: Vec<IpNet>) -> Result<Bytes, EmitError> {
        self.pack(self.withdrawal(family, prefixes))
    }

    /// RFC 4724 §2.
    pub(super) fn end_of_rib(&self, family: Family) -> Result<Bytes, EmitError> {
        self.pack(Update::end_of_rib(AfiSafi::unicast(family)))
    }

    /// Octets left for prefixes in an UPDATE that has none yet.
    fn room(&self, update: &Update) -> usize {
        // One octet is kept for the length of a multiprotocol attribute, which grows to two with its prefixes.
        let taken = update.emitted_len(&self.dialect) + HEADER_LEN + 1;
        self.dialect.max_message_len.saturating_sub(taken)
    }

    fn pack(&self, update: Update) -> Result<Bytes, EmitError> {
        // As long as the message and no longer: a message waits in it until its socket has room.
        let mut out = BytesMut::new();
        Message::Update(update).emit(&self.dialect, &mut out)?;
        Ok(out.freeze())
    }

    fn announcement(
        &self,
        family: Family,
        encoding: Encoding,
        route: &RouteAttributes,
        prefixes: Vec<IpNet>,
    ) -> Update {
        let RouteAttributes { local_preference, med, prepend, communities: _, endpoints: _ } = route;
        let internal = self.dialect.internal;
        let own = AsPathSegment { set: false, asns: vec![self.local_asn; 1 + usize::from(*prepend)] };
        let mut attributes = Attributes {
            origin: Some(Origin::Igp),
            // RFC 4271 §5.1.2: empty to an internal peer, else our own number in front.
            as_path: Some(if internal { Vec::new() } else { vec![own] }),
            next_hop: None,
            med: *med,
            // RFC 4271 §5.1.5: always to internal peers, never to external ones.
            local_preference: internal.then(|| local_preference.unwrap_or(RouteAttributes::DEFAULT_LOCAL_PREFERENCE)),
            communities: route.communities_from(self.local_asn),
            unknown: Vec::new(),
        };
        match encoding {
            Encoding::Classic(next_hop) => {
                attributes.next_hop = Some(next_hop);
                Update { attributes, announced: prefixes, ..Update::default() }
            }
            Encoding::Multiprotocol(next_hop) => {
                let reach = MpReach { family: AfiSafi::unicast(family), next_hop, prefixes };
                Update { attributes, mp_reach: Some(reach), ..Update::default() }
            }
        }
    }

    fn withdrawal(&self, family: Family, prefixes: Vec<IpNet>) -> Update {
        let withdrawal = match family {
            Family::V4 => self.v4_withdrawal,
            Family::V6 => Withdrawal::Multiprotocol,
        };
        match withdrawal {
            Withdrawal::Classic => Update { withdrawn: prefixes, ..Update::default() },
            Withdrawal::Multiprotocol => {
                let unreach = MpUnreach { family: AfiSafi::unicast(family), prefixes };
                Update { mp_unreach: Some(unreach), ..Update::default() }
            }
        }
    }
}

/// The first prefixes of the set, as long as they fit into `room` octets.
fn take(from: &mut BTreeSet<IpNet>, mut room: usize) -> Vec<IpNet> {
    let mut taken = Vec::new();
    while let Some(prefix) = from.first() {
        let Some(left) = room.checked_sub(emitted_prefix_len(prefix)) else {
            break;
        };
        room = left;
        taken.extend(from.pop_first());
    }
    taken
}
