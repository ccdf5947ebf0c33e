//! Any valid message is read back as it was written, and written again as it was read (a module of tests only).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use ipnet::IpNet;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::community::Community;

fn family() -> impl Strategy<Value = AfiSafi> {
    prop_oneof![
        Just(AfiSafi::IPV4_UNICAST),
        Just(AfiSafi::IPV6_UNICAST),
        (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi }),
    ]
}

fn capability() -> impl Strategy<Value = Capability> {
    let triples = prop::collection::vec((family(), any::<u16>()), 0..=42);
    let restart = (any::<bool>(), any::<bool>(), 0u16..4096, prop::collection::vec((family(), any::<bool>()), 0..=63))
        .prop_map(|(restarting, notification, restart_time_secs, families)| {
            Capability::GracefulRestart(GracefulRestart { restarting, notification, restart_time_secs, families })
        });
    let unknown = (200u8..=255, prop::collection::vec(any::<u8>(), 0..=255))
        .prop_map(|(code, value)| Capability::Unknown { code, value });
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::ExtendedMessage),
        triples.prop_map(Capability::ExtendedNextHop),
        restart,
        (1..u32::MAX).prop_map(Capability::FourOctetAsn),
        unknown,
    ]
}

fn open() -> impl Strategy<Value = Message> {
    let hold_time = prop_oneof![Just(0u16), 3..=u16::MAX];
    // As many of the longest as 4,096 octets hold.
    let capabilities = prop::collection::vec(capability(), 0..=15);
    (1..=u16::MAX, hold_time, 1..=u32::MAX, capabilities).prop_map(|(asn, hold_time_secs, identifier, capabilities)| {
        Message::Open(Open { asn, hold_time_secs, identifier: Ipv4Addr::from_bits(identifier), capabilities })
    })
}

fn prefixes(v6: bool, first_octets: std::ops::Range<u8>) -> impl Strategy<Value = Vec<IpNet>> {
    let prefix = (first_octets, any::<u128>(), any::<u8>()).prop_map(move |(first, bits, length)| {
        // Never multicast: such a prefix is left out when it is read.
        let net = if v6 {
            let bits = u128::from(first) << 120 | bits >> 8;
            IpNet::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), 8 + length % 121)
        } else {
            let [.., a, b, c] = bits.to_be_bytes();
            IpNet::new(IpAddr::V4(Ipv4Addr::new(first, a, b, c)), 8 + length % 25)
        };
        net.expect("8 to 32 or 128").trunc()
    });
    prop::collection::vec(prefix, 0..40)
}

fn attributes(internal: bool) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let asn = prop_oneof![1..=65535u32, 65536..=u32::MAX];
    let segment = prop::collection::vec(asn, 1..=255).prop_map(|asns| AsPathSegment { set: false, asns });
    let communities = prop::collection::btree_set(
        prop_oneof![
            any::<u32>().prop_map(Community::Standard),
            any::<(u32, u32, u32)>().prop_map(|(global, local1, local2)| Community::Large { global, local1, local2 }),
        ],
        0..80,
    );
    let unknown = prop::collection::btree_map(200u8..=255, prop::collection::vec(any::<u8>(), 0..600), 0..4);
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    (origin, prop::collection::vec(segment, 0..4), communities, unknown, numbers).prop_map(
        move |(origin, path, communities, unknown, (med, preference, has_next_hop))| {
            let peer = AsPathSegment { set: false, asns: vec![65002] };
            let path = if internal { path } else { [peer].into_iter().chain(path).collect() };
            Attributes {
                origin: Some(origin),
                as_path: Some(path),
                next_hop: has_next_hop.then_some(Ipv4Addr::new(192, 0, 2, 1)),
                med,
                local_preference: preference.filter(|_| internal),
                communities: communities.into_iter().collect(),
                unknown: unknown
                    .into_iter()
                    .map(|(code, value)| UnknownAttribute { code: AttributeCode(code), value })
                    .collect(),
            }
        },
    )
}

/// An UPDATE with everything or with any part missing, that has no fault.
fn update(internal: bool) -> impl Strategy<Value = Message> {
    let next_hop = any::<Option<()>>().prop_map(|link_local| NextHop::V6 {
        global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        link_local: link_local.map(|()| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    });
    let reach = prop::option::of((next_hop, prefixes(true, 0..0xff)));
    let unreach = prop::option::of(prefixes(true, 0..0xff));
    // Apart from each other: what is announced as well is not read as withdrawn.
    let v4 = (prefixes(false, 1..100), prefixes(false, 100..224));
    (attributes(internal), reach, unreach, v4).prop_map(|(mut attributes, reach, unreach, (announced, withdrawn))| {
        if !announced.is_empty() {
            attributes.next_hop = Some(Ipv4Addr::new(192, 0, 2, 1));
        }
        let family = AfiSafi::IPV6_UNICAST;
        Message::Update(Update {
            withdrawn,
            mp_unreach: unreach.map(|prefixes| MpUnreach { family, prefixes }),
            attributes,
            mp_reach: reach.map(|(next_hop, prefixes)| MpReach { family, next_hop, prefixes }),
            announced,
        })
    })
}

fn notification() -> impl Strategy<Value = Message> {
    (any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..4000)).prop_map(|(code, subcode, data)| {
        Message::Notification(Notification { reason: NotificationReason::from_codes(code, subcode), data })
    })
}

/// On any session that carries both families.
fn said() -> impl Strategy<Value = (Message, Dialect)> {
    (any::<bool>(), any::<bool>()).prop_flat_map(|(internal, four_octet_asn)| {
        let dialect = Dialect {
            internal,
            four_octet_asn,
            peer_asn: 65002,
            first_asn_is_peer: true,
            ipv4_unicast: true,
            ipv6_unicast: true,
            enhanced_refresh: true,
            max_message_len: MAX_EXTENDED_MESSAGE_LEN,
            ..Dialect::BEFORE_OPEN
        };
        let message = prop_oneof![open(), update(internal), notification(), Just(Message::Keepalive)];
        (message, Just(dialect))
    })
}

fn octets(message: &Message, dialect: &Dialect) -> BytesMut {
    let mut octets = BytesMut::new();
    message.emit(dialect, &mut octets).expect("it fits");
    octets
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn whatever_is_written_is_read_back_and_written_the_same_again((message, dialect) in said()) {
        let written = octets(&message, &dialect);
        prop_assert_eq!(written.len(), message.emitted_len(&dialect));
        let read = match Message::parse(&written, &dialect) {
            Ok(Parsed::Update(ParsedUpdate { update, complaints, withdraw_all: false, end_of_rib: _ })) => {
                prop_assert_eq!(complaints, []);
                Message::Update(update)
            }
            Ok(Parsed::Open(open)) => Message::Open(open),
            Ok(Parsed::Notification(notification)) => Message::Notification(notification),
            Ok(Parsed::Keepalive) => Message::Keepalive,
            other => panic!("{message} was read as {other:?}"),
        };
        prop_assert_eq!(&read, &message);
        prop_assert_eq!(octets(&read, &dialect), written);
    }
}
