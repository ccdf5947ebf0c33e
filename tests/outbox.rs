//! What the outbox emits, read by a second reader that shares no code with the codec and fed into a model of the
//! peer's table: whatever happens in whatever order, the peer must end with what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crier::address::{Family, ScopedAddress};
use crier::bgp::kept::{KeptSession, Signature};
use crier::bgp::ledger::rebuild;
use crier::bgp::machine::negotiation::Negotiated;
use crier::bgp::machine::session::{Received, Standing};
use crier::bgp::outbox::sent::Sent;
use crier::bgp::outbox::{NextHopV6, NextHops, Outbox, Routes, Unsendable};
use crier::bgp::wire::AfiSafi;
use crier::community::Community;
use crier::route::RouteAttributes;
use ipnet::IpNet;
use proptest::prelude::*;

/// What the peer hears about a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    next_hop: Vec<u8>,
    path: Vec<u32>,
    med: Option<u32>,
    local_preference: Option<u32>,
    communities: Vec<u32>,
    large_communities: Vec<[u32; 3]>,
}

/// The peer's table, and what else it could see.
#[derive(Debug, Default)]
struct Model {
    table: BTreeMap<IpNet, Heard>,
    messages: usize,
    ends_of_rib: Vec<AfiSafi>,
    /// Announcements of what the peer already had.
    repeated: usize,
    /// How often each prefix was announced.
    told: BTreeMap<IpNet, usize>,
}

/// A reader of its own: it walks the octets of RFC 4271 §4.3 and asserts what a careful peer would.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, octets: usize) -> usize {
        self.take(octets).iter().fold(0, |number, octet| number << 8 | usize::from(*octet))
    }

    fn u32(&mut self) -> u32 {
        u32::try_from(self.number(4)).unwrap()
    }

    fn prefixes(&mut self, v6: bool) -> Vec<IpNet> {
        let mut prefixes = Vec::new();
        while !self.0.is_empty() {
            let length = self.number(1);
            let mut address = [0; 16];
            let octets = self.take(length.div_ceil(8));
            address[..octets.len()].copy_from_slice(octets);
            let address = match v6 {
                true => IpAddr::from(address),
                false => IpAddr::from([address[0], address[1], address[2], address[3]]),
            };
            let prefix = IpNet::new(address, u8::try_from(length).unwrap()).expect("a length of the family");
            assert_eq!(prefix, prefix.trunc(), "no bits behind the length");
            prefixes.push(prefix);
        }
        prefixes
    }
}

impl Model {
    fn hear(&mut self, message: &[u8], session: &Session) {
        self.messages += 1;
        assert!((19..=session.negotiated.max_message_len).contains(&message.len()), "{} octets", message.len());
        let mut octets = Octets(message);
        assert_eq!(octets.take(16), [0xff; 16], "marker");
        assert_eq!(octets.number(2), message.len(), "length");
        assert_eq!(octets.number(1), 2, "UPDATE");
        let len = octets.number(2);
        let mut withdrawn = Octets(octets.take(len)).prefixes(false);
        let len = octets.number(2);
        let mut attributes = Octets(octets.take(len));
        let mut announced = octets.prefixes(false);

        let mut codes = Vec::new();
        let mut unreached_family = None;
        let mut heard = Heard {
            next_hop: Vec::new(),
            path: Vec::new(),
            med: None,
            local_preference: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
        };
        let classic = (!withdrawn.is_empty() || !announced.is_empty()).then_some(1);
        let mut families: Vec<usize> = classic.into_iter().collect();
        let mut four_octet_path = None;
        while !attributes.0.is_empty() {
            let flags = attributes.number(1);
            let code = attributes.number(1);
            let len = attributes.number(if flags & 0x10 == 0 { 1 } else { 2 });
            assert_eq!(flags & 0x10 != 0, len > 255, "extended length exactly where it is needed");
            let mut value = Octets(attributes.take(len));
            let expected_flags = match code {
                1 | 2 | 3 | 5 => 0x40,
                4 | 14 | 15 => 0x80,
                8 | 17 | 32 => 0xc0,
                _ => panic!("attribute {code} is never sent"),
            };
            assert_eq!(flags & 0xe0, expected_flags, "flags of attribute {code}");
            codes.push(code);
            match code {
                1 => assert_eq!(value.take(1), [0], "origin IGP"),
                2 => heard.path = read_path(value, if session.negotiated.four_octet_asn { 4 } else { 2 }),
                3 => heard.next_hop = value.take(4).to_vec(),
                4 => heard.med = Some(value.u32()),
                5 => heard.local_preference = Some(value.u32()),
                8 => {
                    while !value.0.is_empty() {
                        heard.communities.push(value.u32());
                    }
                }
                14 => {
                    let (afi, safi, next_hop) = (value.number(2), value.number(1), value.number(1));
                    assert_eq!(safi, 1, "unicast");
                    families.push(afi);
                    heard.next_hop = value.take(next_hop).to_vec();
                    assert_eq!(value.number(1), 0, "reserved");
                    announced = value.prefixes(afi == 2);
                    assert!(!announced.is_empty(), "MP_REACH_NLRI always reaches something");
                }
                15 => {
                    let (afi, safi) = (value.number(2), value.number(1));
                    assert_eq!(safi, 1, "unicast");
                    families.push(afi);
                    unreached_family = Some(afi);
                    withdrawn = value.prefixes(afi == 2);
                }
                17 => four_octet_path = Some(read_path(value, 4)),
                32 => {
                    while !value.0.is_empty() {
                        heard.large_communities.push([value.u32(), value.u32(), value.u32()]);
                    }
                }
                _ => panic!("attribute {code} is never sent"),
            }
        }
        assert!(families.len() <= 1, "one family in one UPDATE: {families:?}");
        assert!(withdrawn.is_empty() || announced.is_empty(), "withdrawals or announcements");
        let behind: &[usize] = if matches!(codes.first(), Some(14 | 15)) { &codes[1..] } else { &codes };
        assert!(behind.is_sorted_by(|a, b| a < b) && !behind.contains(&14), "order of attributes: {codes:?}");
        if let Some(wide) = four_octet_path {
            assert!(!session.negotiated.four_octet_asn, "AS4_PATH only to a two-octet peer");
            assert!(heard.path.contains(&23456) && heard.path.len() == wide.len());
            heard.path = wide;
        }

        if withdrawn.is_empty() && announced.is_empty() {
            let family = match unreached_family {
                Some(2) => AfiSafi::IPV6_UNICAST,
                None => AfiSafi::IPV4_UNICAST,
                Some(afi) => panic!("End-of-RIB of AFI {afi}"),
            };
            assert_eq!(codes.len(), usize::from(unreached_family.is_some()), "only End-of-RIB is empty");
            self.ends_of_rib.push(family);
        }
        for prefix in withdrawn {
            assert!(self.table.remove(&prefix).is_some(), "{prefix} was withdrawn, and never announced");
            assert_eq!(codes.iter().filter(|code| **code != 15).count(), 0, "a withdrawal needs no attributes");
        }
        for prefix in announced {
            *self.told.entry(prefix).or_default() += 1;
            let before = self.table.insert(prefix, heard.clone());
            self.repeated += usize::from(before.is_some_and(|before| before == heard));
        }
    }

    fn drain(&mut self, outbox: &mut Outbox, session: &Session) {
        while let Some(message) = outbox.poll_message().expect("every message fits") {
            self.hear(&message, session);
            assert!(self.messages < 10_000, "the outbox comes to an end");
        }
    }
}

fn read_path(mut value: Octets<'_>, width: usize) -> Vec<u32> {
    let mut path = Vec::new();
    while !value.0.is_empty() {
        assert_eq!(value.number(1), 2, "AS_SEQUENCE");
        let count = value.number(1);
        assert!(count > 0, "no empty segment");
        path.extend((0..count).map(|_| u32::try_from(value.number(width)).unwrap()));
    }
    assert!(!path.contains(&0), "AS 0 is nobody");
    path
}

#[derive(Debug, Clone)]
struct Session {
    negotiated: Negotiated,
    next_hops: NextHops,
}

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 11);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 11);

impl Session {
    /// External, both families, four-octet AS numbers, both next hops.
    fn external() -> Session {
        Session {
            negotiated: Negotiated {
                local_asn: 64513,
                peer_asn: 64512,
                peer_identifier: Ipv4Addr::new(10, 0, 0, 2),
                hold_time: None,
                keepalive_time: None,
                four_octet_asn: true,
                ipv4_unicast: true,
                ipv6_unicast: true,
                ipv4_with_ipv6_next_hop: false,
                link_scoped: false,
                route_refresh: true,
                enhanced_refresh: false,
                max_message_len: 4096,
                graceful_restart: false,
                hard_reset: false,
            },
            next_hops: NextHops { v4: Some(V4), v6: Some(NextHopV6 { global: V6, link_local: None }) },
        }
    }

    fn internal() -> Session {
        let mut session = Session::external();
        session.negotiated.peer_asn = session.negotiated.local_asn;
        session
    }

    /// To a peer that has never heard of RFC 6793, from an AS that needs it.
    fn two_octets() -> Session {
        let mut session = Session::external();
        session.negotiated.four_octet_asn = false;
        session.negotiated.local_asn = 4_200_000_001;
        session
    }

    /// Over IPv6, so that there is no IPv4 next hop.
    fn over_ipv6() -> Session {
        let mut session = Session::external();
        session.next_hops.v4 = None;
        session.next_hops.v6 = Some(NextHopV6 { global: V6, link_local: Some(LINK_LOCAL) });
        session
    }

    fn over_ipv6_with_rfc_8950() -> Session {
        let mut session = Session::over_ipv6();
        session.negotiated.ipv4_with_ipv6_next_hop = true;
        session
    }

    fn only_ipv4() -> Session {
        let mut session = Session::external();
        session.negotiated.ipv6_unicast = false;
        session
    }

    fn extended() -> Session {
        let mut session = Session::external();
        session.negotiated.max_message_len = 65535;
        session
    }

    fn all() -> Vec<Session> {
        vec![
            Session::external(),
            Session::internal(),
            Session::two_octets(),
            Session::over_ipv6(),
            Session::over_ipv6_with_rfc_8950(),
            Session::only_ipv4(),
            Session::extended(),
        ]
    }

    /// A session in which this was sent.
    fn kept(&self, sent: Sent) -> KeptSession {
        KeptSession {
            peer: "tor".into(),
            address: ScopedAddress { ip: "192.0.2.1".parse().expect("an address"), interface: None },
            local: "192.0.2.11:40000".parse().expect("an end"),
            remote: "192.0.2.1:179".parse().expect("an end"),
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            settings: BTreeMap::new(),
            signature: Signature::None,
            open_sent: Vec::new(),
            open_received: Vec::new(),
            negotiated: self.negotiated.clone(),
            standing: Standing { timers: None, held: Duration::ZERO, received: Received::default() },
            since_boot: Duration::from_secs(1),
            established_at: jiff::Timestamp::UNIX_EPOCH,
            unread: Vec::new(),
            unwritten: Vec::new(),
            sent,
            recovered: None,
            chosen: None,
        }
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(&self.negotiated, self.next_hops)
    }

    fn families(&self) -> Vec<AfiSafi> {
        let both = [
            (self.negotiated.ipv4_unicast, AfiSafi::IPV4_UNICAST),
            (self.negotiated.ipv6_unicast, AfiSafi::IPV6_UNICAST),
        ];
        both.into_iter().filter(|(negotiated, _)| *negotiated).map(|(_, family)| family).collect()
    }

    fn next_hop(&self, prefix: IpNet) -> Option<Vec<u8>> {
        let v6 = self.next_hops.v6.map(|NextHopV6 { global, link_local }| {
            let second = link_local.map(|link_local| link_local.octets()).into_iter().flatten();
            global.octets().into_iter().chain(second).collect()
        });
        let Negotiated { ipv4_unicast, ipv6_unicast, ipv4_with_ipv6_next_hop, .. } = self.negotiated;
        match prefix {
            IpNet::V6(_) => v6.filter(|_| ipv6_unicast),
            IpNet::V4(_) if !ipv4_unicast => None,
            IpNet::V4(_) => match self.next_hops.v4 {
                Some(v4) => Some(v4.octets().to_vec()),
                None => v6.filter(|_| ipv4_with_ipv6_next_hop),
            },
        }
    }

    /// What the peer should hear of this route; `None` where it cannot be sent at all.
    fn expected(&self, prefix: IpNet, attributes: &RouteAttributes) -> Option<Heard> {
        let internal = self.negotiated.internal();
        let octets: usize =
            attributes.communities.iter().map(|one| if let Community::Standard(_) = one { 4 } else { 12 }).sum();
        if octets > self.negotiated.max_message_len {
            return None;
        }
        let standard = attributes.communities.iter().filter_map(|community| match community {
            Community::Standard(value) => Some(*value),
            Community::Large { .. } | Community::Extended(_) => None,
        });
        let large = attributes.communities.iter().filter_map(|community| match community {
            Community::Standard(_) | Community::Extended(_) => None,
            Community::Large { global, local1, local2 } => Some([*global, *local1, *local2]),
        });
        Some(Heard {
            next_hop: self.next_hop(prefix)?,
            path: if internal { vec![] } else { vec![self.negotiated.local_asn; 1 + usize::from(attributes.prepend)] },
            med: attributes.med,
            local_preference: internal.then(|| attributes.local_preference.unwrap_or(100)),
            communities: standard.collect(),
            large_communities: large.collect(),
        })
    }

    fn expected_table(&self, wanted: &Routes) -> BTreeMap<IpNet, Heard> {
        let table = wanted.iter().filter_map(|(prefix, route)| Some((*prefix, self.expected(*prefix, route)?)));
        table.collect()
    }
}

fn of_family(table: &BTreeMap<IpNet, Heard>, family: AfiSafi) -> BTreeMap<IpNet, Heard> {
    let is_v6 = |prefix: &IpNet| matches!(prefix, IpNet::V6(_));
    let same = |prefix: &IpNet| is_v6(prefix) == (family == AfiSafi::IPV6_UNICAST);
    table.iter().filter(|(prefix, _)| same(prefix)).map(|(prefix, heard)| (*prefix, heard.clone())).collect()
}

/// The attributes that random runs choose from: plain, rich, prepended beyond one segment, and too long for 4,096 octets.
fn palette() -> Vec<Arc<RouteAttributes>> {
    let standard = |count: u32| (1..=count).map(Community::Standard);
    let large = Community::Large { global: 64512, local1: 1, local2: 2 };
    let rich = RouteAttributes {
        local_preference: Some(200),
        med: Some(10),
        prepend: 2,
        communities: standard(100).chain([large]).collect(),
        endpoints: None,
    };
    let prepended = RouteAttributes { med: Some(20), prepend: 255, ..RouteAttributes::default() };
    let too_long = RouteAttributes { communities: standard(1_100).collect(), ..RouteAttributes::default() };
    // The peer cannot tell these from the plain ones: one on external sessions, one on internal ones.
    let preferred = RouteAttributes { local_preference: Some(300), ..RouteAttributes::default() };
    let twice = RouteAttributes { prepend: 1, ..RouteAttributes::default() };
    [RouteAttributes::default(), rich, prepended, too_long, preferred, twice].into_iter().map(Arc::new).collect()
}

fn universe() -> Vec<IpNet> {
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "192.0.2.0/25",
        "198.51.100.1/32",
        "198.51.100.2/32",
        "203.0.113.7/32",
        "::/0",
        "2001:db8:1::/48",
        "2001:db8::1/128",
        "2001:db8::2/128",
    ];
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        prefix: usize,
        attributes: usize,
    },
    Remove {
        prefix: usize,
    },
    /// A map that shares nothing with the last.
    Replace(Vec<(usize, usize)>),
    Poll,
    Refresh(AfiSafi),
    Complete(bool),
    /// The node has exactly these next hops from now on.
    NextHops {
        v4: bool,
        v6: bool,
    },
}

fn step(prefixes: usize, attributes: usize) -> impl Strategy<Value = Step> {
    let prefix = 0..prefixes;
    let route = (prefix.clone(), 0..attributes);
    prop_oneof![
        6 => route.clone().prop_map(|(prefix, attributes)| Step::Set { prefix, attributes }),
        4 => prefix.prop_map(|prefix| Step::Remove { prefix }),
        1 => prop::collection::vec(route, 0..8).prop_map(Step::Replace),
        6 => Just(Step::Poll),
        1 => prop_oneof![
            Just(AfiSafi::IPV4_UNICAST),
            Just(AfiSafi::IPV6_UNICAST),
            Just(AfiSafi { afi: 25, safi: 70 }),
        ].prop_map(Step::Refresh),
        1 => any::<bool>().prop_map(Step::Complete),
        1 => any::<(bool, bool)>().prop_map(|(v4, v6)| Step::NextHops { v4, v6 }),
    ]
}

/// Runs an outbox for `session` through `steps`, beginning with some routes, and judges what the peer heard of each.
fn the_peer_follows(
    session: &Session,
    (universe, palette): (&[IpNet], &[Arc<RouteAttributes>]),
    at_first: &[(usize, usize)],
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut outbox = session.outbox();
    let mut session = session.clone();
    let mut model = Model::default();
    let mut wanted: Routes =
        at_first.iter().map(|(prefix, attributes)| (universe[*prefix], palette[*attributes].clone())).collect();
    outbox.want(&wanted);
    let (mut refreshed, mut ever_complete) = (false, false);
    // Whether the outbox still has to be told the next hops, which takes an idle one.
    let (mut next_hops_due, mut next_hops_changed) = (false, false);
    for step in steps {
        if next_hops_due && outbox.is_idle() {
            outbox.change_next_hops(&session.negotiated, session.next_hops);
            next_hops_due = false;
        }
        match step {
            Step::Set { prefix, attributes } => {
                wanted.insert(universe[prefix], palette[attributes].clone());
                outbox.want(&wanted);
            }
            Step::Remove { prefix } => {
                wanted.remove(&universe[prefix]);
                outbox.want(&wanted);
            }
            Step::Replace(routes) => {
                let fresh = |attributes: usize| Arc::new(RouteAttributes::clone(&palette[attributes]));
                wanted = routes.into_iter().map(|(prefix, attributes)| (universe[prefix], fresh(attributes))).collect();
                outbox.want(&wanted);
            }
            Step::Poll => {
                let idle = outbox.is_idle();
                let message = outbox.poll_message().expect("every message fits");
                prop_assert_eq!(idle, message.is_none(), "idle means that there is no message");
                let ends_of_rib = model.ends_of_rib.len();
                if let Some(message) = message {
                    model.hear(&message, &session);
                }
                // What follows from another next hop is told behind the end of the initial table.
                if let Some(family) = model.ends_of_rib.get(ends_of_rib).filter(|_| !next_hops_changed) {
                    let (has, expected) = (&model.table, session.expected_table(&wanted));
                    prop_assert!(ever_complete, "End-of-RIB of an unfinished table");
                    prop_assert_eq!(of_family(has, *family), of_family(&expected, *family), "End-of-RIB too early");
                }
            }
            Step::Refresh(family) => {
                refreshed = true;
                outbox.refresh(family);
            }
            Step::Complete(complete) => {
                ever_complete |= complete;
                outbox.set_complete(complete);
            }
            Step::NextHops { v4, v6 } => {
                refreshed = true;
                (next_hops_due, next_hops_changed) = (true, true);
                session.next_hops = NextHops {
                    v4: v4.then_some(V4),
                    v6: v6.then_some(NextHopV6 { global: V6, link_local: Some(LINK_LOCAL) }),
                };
                outbox.lose_next_hops(&session.negotiated, session.next_hops);
            }
        }
        prop_assert_eq!(outbox.sent_count(), model.table.len(), "the count is what the peer has");
    }
    outbox.set_complete(true);
    model.drain(&mut outbox, &session);
    if next_hops_due {
        outbox.change_next_hops(&session.negotiated, session.next_hops);
        model.drain(&mut outbox, &session);
    }
    prop_assert_eq!(&model.table, &session.expected_table(&wanted));
    prop_assert!(outbox.is_idle() && outbox.pending_count() == 0);
    prop_assert_eq!(outbox.sent_count() + outbox.unsendable().count(), wanted.len());
    model.ends_of_rib.sort();
    prop_assert_eq!(&model.ends_of_rib, &session.families(), "End-of-RIB once for every family");
    prop_assert!(refreshed || model.repeated == 0, "{} routes were told twice", model.repeated);

    // A refresh brings everything of the family once more, and nothing else.
    let (messages, repeated) = (model.messages, model.repeated);
    outbox.want(&wanted);
    prop_assert!(outbox.is_idle(), "the same map again is no news");
    outbox.refresh(AfiSafi::IPV4_UNICAST);
    model.drain(&mut outbox, &session);
    let v4 = of_family(&model.table, AfiSafi::IPV4_UNICAST).len();
    prop_assert_eq!(model.repeated - repeated, v4, "a refresh repeats every route of the family");
    prop_assert!(v4 > 0 || model.messages == messages);
    Ok(())
}

/// Runs an outbox through `steps`, and another one from what was written down of it: the peer follows the second as if it were the
/// first, and hears nothing that it knows.
fn the_next_agent_goes_on(
    session: &Session,
    (universe, palette): (&[IpNet], &[Arc<RouteAttributes>]),
    steps: Vec<Step>,
    changed: bool,
) -> Result<(), TestCaseError> {
    let mut outbox = session.outbox();
    let mut session = session.clone();
    let mut model = Model::default();
    let mut wanted = Routes::new();
    let (mut refreshed, mut next_hops_due) = (false, false);
    for step in steps {
        if next_hops_due && outbox.is_idle() {
            outbox.change_next_hops(&session.negotiated, session.next_hops);
            next_hops_due = false;
        }
        match step {
            Step::Set { prefix, attributes } => {
                wanted.insert(universe[prefix], palette[attributes].clone());
            }
            Step::Remove { prefix } => drop(wanted.remove(&universe[prefix])),
            Step::Replace(routes) => {
                let route = |(prefix, attributes): (usize, usize)| (universe[prefix], palette[attributes].clone());
                wanted = routes.into_iter().map(route).collect();
            }
            Step::Poll => {
                if let Some(message) = outbox.poll_message().expect("every message fits") {
                    model.hear(&message, &session);
                }
            }
            Step::Refresh(family) => {
                refreshed = true;
                outbox.refresh(family);
            }
            Step::Complete(complete) => outbox.set_complete(complete),
            Step::NextHops { v4, v6 } => {
                (refreshed, next_hops_due) = (true, true);
                session.next_hops = NextHops {
                    v4: v4.then_some(V4),
                    v6: v6.then_some(NextHopV6 { global: V6, link_local: Some(LINK_LOCAL) }),
                };
                outbox.lose_next_hops(&session.negotiated, session.next_hops);
            }
        }
        outbox.want(&wanted);
    }
    let was_done = outbox.is_idle() && !next_hops_due;
    let written = serde_json::to_string(&outbox.sent()).expect("it has a form in JSON");
    let sent: Sent = serde_json::from_str(&written).expect("it is read as it was written");
    let has: BTreeSet<IpNet> = sent.routes.iter().flat_map(|routes| routes.prefixes.iter().copied()).collect();
    prop_assert_eq!(&has, &model.table.keys().copied().collect(), "what was sent is what the peer has");

    let mut next = Outbox::resumed(&session.negotiated, &sent).expect("it can go on");
    prop_assert_eq!(next.sent_count(), model.table.len());
    if changed {
        wanted = wanted.into_iter().skip(1).collect();
        wanted.insert(universe[0], palette[0].clone());
    }
    let said = model.messages;
    next.want(&wanted);
    next.set_complete(true);
    next.lose_next_hops(&session.negotiated, session.next_hops);
    for family in &sent.owes_refresh {
        next.refresh(AfiSafi::unicast(*family));
    }
    model.drain(&mut next, &session);
    next.change_next_hops(&session.negotiated, session.next_hops);
    model.drain(&mut next, &session);
    prop_assert_eq!(&model.table, &session.expected_table(&wanted));
    prop_assert!(next.is_idle() && next.pending_count() == 0);
    prop_assert_eq!(next.sent_count() + next.unsendable().count(), wanted.len());
    model.ends_of_rib.sort();
    prop_assert_eq!(&model.ends_of_rib, &session.families(), "End-of-RIB once for every family, over both outboxes");
    prop_assert!(refreshed || model.repeated == 0, "{} routes were told twice", model.repeated);
    let owed_nothing = was_done && sent.owes_end_of_rib.is_empty() && !changed;
    prop_assert!(!owed_nothing || model.messages == said, "a peer that has everything was told something");
    Ok(())
}

/// Runs an outbox through `steps`. At the step `begins` a log begins with what was sent until then; at the end the agent dies, with
/// `left` octets of the last message still to be written. The peer ends with what is wanted.
fn the_agent_after_a_crash_goes_on(
    session: &Session,
    (universe, palette): (&[IpNet], &[Arc<RouteAttributes>]),
    steps: Vec<Step>,
    (begins, left): (usize, usize),
) -> Result<(), TestCaseError> {
    let mut outbox = session.outbox();
    let mut model = Model::default();
    let mut wanted = Routes::new();
    let (mut log, mut last, mut began) = (Vec::new(), 0, outbox.sent());
    for (number, step) in steps.into_iter().enumerate() {
        if number == begins {
            (log, last, began) = (Vec::new(), 0, outbox.sent());
        }
        match step {
            Step::Set { prefix, attributes } => drop(wanted.insert(universe[prefix], palette[attributes].clone())),
            Step::Remove { prefix } => drop(wanted.remove(&universe[prefix])),
            Step::Replace(routes) => {
                let route = |(prefix, attributes): (usize, usize)| (universe[prefix], palette[attributes].clone());
                wanted = routes.into_iter().map(route).collect();
            }
            Step::Poll => {
                if let Some(message) = outbox.poll_message().expect("every message fits") {
                    model.hear(&message, session);
                    last = message.len();
                    log.extend_from_slice(&message);
                }
            }
            Step::Refresh(family) => outbox.refresh(family),
            Step::Complete(complete) => outbox.set_complete(complete),
            Step::NextHops { .. } => {}
        }
        outbox.want(&wanted);
    }
    let written = log.len() - left.min(last.saturating_sub(1));
    let state = session.kept(began);
    let state = rebuild(state, &log, written, &[], Duration::from_secs(2)).expect("it is certain");
    prop_assert_eq!(&state.unwritten, &log[written..], "the rest of the last message");
    prop_assert_eq!(state.sent.count(), model.table.len(), "what was sent is what the peer has");

    let mut next = Outbox::resumed(&session.negotiated, &state.sent).expect("it can go on");
    prop_assert_eq!(next.sent_count(), model.table.len());
    next.want(&wanted);
    next.set_complete(true);
    for family in &state.sent.owes_refresh {
        next.refresh(AfiSafi::unicast(*family));
    }
    model.drain(&mut next, session);
    prop_assert_eq!(&model.table, &session.expected_table(&wanted));
    prop_assert!(next.is_idle() && next.pending_count() == 0);
    prop_assert_eq!(next.sent_count() + next.unsendable().count(), wanted.len());
    model.ends_of_rib.sort();
    prop_assert_eq!(&model.ends_of_rib, &session.families(), "End-of-RIB once for every family, over both outboxes");
    Ok(())
}

/// Attributes that leave room for a few prefixes only, so that few routes fill many messages; two that differ, and a plain one.
fn wide_palette() -> Vec<Arc<RouteAttributes>> {
    let wide = |med| RouteAttributes {
        med: Some(med),
        communities: (1..=980).map(Community::Standard).collect(),
        ..RouteAttributes::default()
    };
    [wide(1), wide(2), RouteAttributes::default()].into_iter().map(Arc::new).collect()
}

fn hundred_prefixes() -> Vec<IpNet> {
    let plain = Arc::default();
    hosts(80, &plain, false).keys().chain(hosts(20, &plain, true).keys()).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn the_peer_ends_with_what_was_wanted_last(
        session in prop::sample::select(Session::all()),
        steps in prop::collection::vec(step(universe().len(), palette().len()), 0..80),
    ) {
        the_peer_follows(&session, (&universe(), &palette()), &[], steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn the_next_agent_tells_the_peer_only_what_it_does_not_have(
        session in prop::sample::select(Session::all()),
        steps in prop::collection::vec(step(universe().len(), palette().len()), 0..80),
        wide in prop::collection::vec(step(100, 3), 0..60),
        changed in any::<bool>(),
    ) {
        the_next_agent_goes_on(&session, (&universe(), &palette()), steps, changed)?;
        the_next_agent_goes_on(&session, (&hundred_prefixes(), &wide_palette()), wide, changed)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn after_a_crash_the_peer_ends_with_what_is_wanted(
        session in prop::sample::select(Session::all()),
        steps in prop::collection::vec(step(universe().len(), palette().len()), 0..80),
        wide in prop::collection::vec(step(100, 3), 0..60),
        begins in 0..80_usize,
        left in 0..4096_usize,
    ) {
        the_agent_after_a_crash_goes_on(&session, (&universe(), &palette()), steps, (begins, left))?;
        the_agent_after_a_crash_goes_on(&session, (&hundred_prefixes(), &wide_palette()), wide, (begins, left))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_peer_ends_with_what_was_wanted_last_where_the_walk_takes_many_messages(
        session in prop::sample::select(Session::all()),
        at_first in prop::collection::vec((0..100_usize, 0..3_usize), 0..150),
        steps in prop::collection::vec(step(100, 3), 0..60),
    ) {
        the_peer_follows(&session, (&hundred_prefixes(), &wide_palette()), &at_first, steps)?;
    }
}

/// A router that asks again while it is being told again: the peer ends with the table, and the count with what it has.
#[test]
fn a_refresh_within_a_refresh_begins_anew() {
    let (universe, palette) = (hundred_prefixes(), wide_palette());
    let at_first: Vec<(usize, usize)> = (0..100).map(|prefix| (prefix, prefix % 2)).collect();
    for polls in 0..40 {
        for family in [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST] {
            let told: Vec<Step> = (0..200).map(|_| Step::Poll).collect();
            let again = [Step::Refresh(family)].into_iter().chain((0..polls).map(|_| Step::Poll));
            let steps =
                told.into_iter().chain(again).chain([Step::Remove { prefix: 0 }, Step::Refresh(family)]).collect();
            the_peer_follows(&Session::external(), (&universe, &palette), &at_first, steps).unwrap();
        }
    }
}

fn hosts(count: u32, attributes: &Arc<RouteAttributes>, v6: bool) -> Routes {
    let address = |n: u32| match v6 {
        false => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)),
        true => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n))),
    };
    (0..count).map(|n| (IpNet::from(address(n)), attributes.clone())).collect()
}

fn messages_for(session: &Session, wanted: &Routes) -> usize {
    let mut outbox = session.outbox();
    outbox.want(wanted);
    let mut model = Model::default();
    model.drain(&mut outbox, session);
    assert_eq!(model.table, session.expected_table(wanted));
    model.messages
}

#[test]
fn a_thousand_routes_take_the_fewest_messages_that_hold_them() {
    let plain = Arc::new(RouteAttributes::default());
    assert_eq!(messages_for(&Session::external(), &hosts(1_000, &plain, false)), 2, "5 octets each");
    assert_eq!(messages_for(&Session::external(), &hosts(1_000, &plain, true)), 5, "17 octets each");
    assert_eq!(messages_for(&Session::extended(), &hosts(10_000, &plain, false)), 1, "RFC 8654");
    assert_eq!(messages_for(&Session::external(), &hosts(100_000, &plain, false)), 124, "as few as any speaker");
}

#[test]
fn withdrawing_a_thousand_routes_takes_as_few() {
    let session = Session::external();
    let mut outbox = session.outbox();
    let mut model = Model::default();
    outbox.want(&hosts(1_000, &Arc::new(RouteAttributes::default()), false));
    model.drain(&mut outbox, &session);
    outbox.want(&Routes::new());
    let before = model.messages;
    model.drain(&mut outbox, &session);
    assert_eq!((model.table.len(), model.messages - before), (0, 2));
}

#[test]
fn a_withdrawal_is_sent_before_any_announcement() {
    let session = Session::external();
    let plain = Arc::new(RouteAttributes::default());
    let mut outbox = session.outbox();
    let mut model = Model::default();
    outbox.want(&hosts(10, &plain, true));
    model.drain(&mut outbox, &session);
    outbox.want(&hosts(1_000, &plain, false));
    model.hear(&outbox.poll_message().unwrap().expect("there is much to say"), &session);
    assert!(model.table.is_empty(), "the ten are gone before the thousand come");
}

#[test]
fn nothing_is_sent_where_there_is_no_next_hop() {
    let session = Session::over_ipv6();
    let mut outbox = session.outbox();
    outbox.want(&hosts(3, &Arc::new(RouteAttributes::default()), false));
    assert!(outbox.is_idle());
    let reasons: Vec<_> = outbox.unsendable().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [Unsendable::NoNextHop(AfiSafi::IPV4_UNICAST); 3]);
    let unspecified = NextHops { v4: Some(Ipv4Addr::UNSPECIFIED), v6: None };
    let mut outbox = Outbox::new(&session.negotiated, unspecified);
    outbox.want(&hosts(1, &Arc::new(RouteAttributes::default()), false));
    assert_eq!(outbox.unsendable().count(), 1, "0.0.0.0 is no next hop");
}

#[test]
fn a_route_that_is_wanted_and_unwanted_before_the_peer_reads_is_never_told() {
    let session = Session::external();
    let mut outbox = session.outbox();
    outbox.want(&hosts(100, &Arc::new(RouteAttributes::default()), false));
    assert_eq!(outbox.pending_count(), 100);
    outbox.want(&Routes::new());
    assert!(outbox.is_idle());
}

#[test]
fn end_of_rib_is_told_without_any_route_and_only_when_the_table_is_whole() {
    let session = Session::external();
    let mut outbox = session.outbox();
    let mut model = Model::default();
    model.drain(&mut outbox, &session);
    assert!(model.ends_of_rib.is_empty(), "the table is not whole yet");
    outbox.set_complete(true);
    model.drain(&mut outbox, &session);
    assert_eq!(model.ends_of_rib, [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST]);
    outbox.set_complete(false);
    outbox.set_complete(true);
    assert!(outbox.is_idle(), "once");
}

#[test]
fn a_refresh_is_answered_even_where_a_route_changes_and_changes_back() {
    let session = Session::external();
    let plain = hosts(1, &Arc::new(RouteAttributes::default()), false);
    let other = hosts(1, &Arc::new(RouteAttributes { med: Some(7), ..RouteAttributes::default() }), false);
    let mut outbox = session.outbox();
    let mut model = Model::default();
    outbox.want(&plain);
    model.drain(&mut outbox, &session);
    outbox.want(&other);
    outbox.refresh(AfiSafi::IPV4_UNICAST);
    outbox.want(&plain);
    model.drain(&mut outbox, &session);
    assert_eq!(model.repeated, 1, "the peer asked to hear it again");
}

/// A walk through `routes` that stops after `messages`, where the wanted map becomes `then`, and perhaps `at_last` a message later.
fn walk_interrupted(routes: &Routes, messages: usize, then: &Routes, at_last: Option<&Routes>) -> (Model, bool) {
    let session = Session::external();
    let mut outbox = session.outbox();
    let mut model = Model::default();
    outbox.want(routes);
    outbox.set_complete(true);
    let mut poll = |outbox: &mut Outbox| {
        if let Some(message) = outbox.poll_message().expect("every message fits") {
            model.hear(&message, &session);
        }
    };
    (0..messages).for_each(|_| poll(&mut outbox));
    let was_idle = outbox.is_idle();
    outbox.want(then);
    if let Some(at_last) = at_last {
        poll(&mut outbox);
        outbox.want(at_last);
    }
    model.drain(&mut outbox, &session);
    assert_eq!(model.table, session.expected_table(at_last.unwrap_or(then)), "after {messages} messages");
    assert_eq!(model.repeated, 0, "after {messages} messages: the peer heard again what it had");
    assert!(
        model.told.values().all(|times| *times <= if at_last.is_some() { 3 } else { 2 }),
        "after {messages} messages"
    );
    assert_eq!((outbox.pending_count(), outbox.sent_count()), (0, model.table.len()));
    (model, was_idle)
}

#[test]
fn whatever_changes_at_whatever_point_of_a_walk_is_told_at_most_once_more() {
    let palette = wide_palette();
    let universe = hundred_prefixes();
    let routes: Routes = universe.iter().enumerate().map(|(n, prefix)| (*prefix, palette[n % 3].clone())).collect();
    // Of every five, one stays, one changes, one goes, one is exchanged for a neighbour, one is another Arc of the same.
    let changed: Routes = universe
        .iter()
        .enumerate()
        .filter_map(|(n, prefix)| match n % 5 {
            0 => Some((*prefix, palette[n % 3].clone())),
            1 => Some((*prefix, palette[(n + 1) % 3].clone())),
            2 => None,
            3 => Some((IpNet::new(prefix.addr(), prefix.prefix_len() - 2).unwrap().trunc(), palette[0].clone())),
            _ => Some((*prefix, Arc::new(RouteAttributes::clone(&palette[n % 3])))),
        })
        .collect();
    for messages in 0.. {
        let (_, was_idle) = walk_interrupted(&routes, messages, &changed, None);
        walk_interrupted(&routes, messages, &Routes::new(), None);
        walk_interrupted(&routes, messages, &changed, Some(&routes));
        walk_interrupted(&routes, messages, &Routes::new(), Some(&routes));
        if was_idle {
            assert!(messages > 10, "the walk took only {messages} messages");
            break;
        }
    }
}

#[test]
fn a_change_overtakes_the_rest_of_a_walk() {
    let session = Session::external();
    let plain = Arc::new(RouteAttributes::default());
    let mut wanted = hosts(100_000, &plain, false);
    let mut outbox = session.outbox();
    let mut model = Model::default();
    outbox.want(&wanted);
    model.hear(&outbox.poll_message().unwrap().expect("much is wanted"), &session);
    let first: IpNet = "10.0.0.0/32".parse().unwrap();
    wanted.insert(first, Arc::new(RouteAttributes { med: Some(7), ..RouteAttributes::default() }));
    outbox.want(&wanted);
    model.hear(&outbox.poll_message().unwrap().expect("there is a change"), &session);
    assert_eq!(model.table[&first].med, Some(7));
    assert!(model.table.len() < 1_000, "and the rest of the walk is still to come");
}

#[test]
fn mixed_attribute_sets_fill_their_messages_as_if_they_stood_apart() {
    let sets: Vec<_> =
        (0..100).map(|med| Arc::new(RouteAttributes { med: Some(med), ..RouteAttributes::default() })).collect();
    let mixed = |step: usize| -> Routes {
        let plain = hosts(100_000, &sets[0], false);
        plain.keys().enumerate().map(|(n, prefix)| (*prefix, sets[n / step % 100].clone())).collect()
    };
    // A thousand routes of a set need two messages each.
    assert_eq!(messages_for(&Session::external(), &mixed(1)), 200);
    assert_eq!(messages_for(&Session::external(), &mixed(1_000)), 200);
}

#[test]
fn routes_of_which_no_two_are_alike_are_all_told() {
    let with_med = |(n, prefix): (u32, &IpNet)| {
        (*prefix, Arc::new(RouteAttributes { med: Some(n), ..RouteAttributes::default() }))
    };
    let routes: Routes = (0..).zip(hosts(150_000, &Arc::default(), false).keys()).map(with_med).collect();
    let session = Session::external();
    let mut outbox = session.outbox();
    outbox.want(&routes);
    let mut told = 0;
    while let Some(message) = outbox.poll_message().unwrap() {
        assert!(message.len() < 100, "one prefix");
        told += 1;
    }
    assert_eq!((told, outbox.sent_count(), outbox.pending_count()), (150_000, 150_000, 0));
}

/// D1 of the field cases: a withdrawal needs no next hop, and what was lost comes back with the next hop.
#[test]
fn a_family_that_loses_its_next_hop_is_withdrawn_and_comes_back_and_the_other_hears_nothing_of_it() {
    let session = Session::external();
    let plain = Arc::new(RouteAttributes::default());
    let routes: Routes = hosts(1_000, &plain, false).union(hosts(500, &plain, true));
    let without = Session { next_hops: NextHops { v6: None, ..session.next_hops }, ..session.clone() };
    for messages in 0..12 {
        let mut outbox = session.outbox();
        let mut model = Model::default();
        outbox.want(&routes);
        for message in (0..messages).map_while(|_| outbox.poll_message().unwrap()) {
            model.hear(&message, &session);
        }
        assert_eq!(outbox.lose_next_hops(&without.negotiated, without.next_hops), [Family::V6]);
        assert_eq!(outbox.lose_next_hops(&without.negotiated, without.next_hops), [], "told once");
        model.drain(&mut outbox, &without);
        assert_eq!(model.table, without.expected_table(&routes), "after {messages} messages");
        assert_eq!((outbox.unsendable_count(), outbox.sent_count(), outbox.pending_count()), (500, 1_000, 0));

        outbox.change_next_hops(&session.negotiated, session.next_hops);
        let before = model.messages;
        model.drain(&mut outbox, &session);
        assert_eq!(model.table, session.expected_table(&routes), "after {messages} messages");
        assert_eq!((outbox.unsendable_count(), model.messages - before), (0, 3), "only IPv6 is told again");
        assert_eq!(model.repeated, 0);
    }
}

#[test]
fn a_new_next_hop_is_told_for_every_route_and_for_those_that_change_meanwhile() {
    let mut session = Session::external();
    let palette = wide_palette();
    let universe = hundred_prefixes();
    let routes: Routes = universe.iter().enumerate().map(|(n, prefix)| (*prefix, palette[n % 3].clone())).collect();
    for messages in 0..40 {
        let before = Session { next_hops: NextHops { v6: None, ..Session::external().next_hops }, ..session.clone() };
        let mut outbox = before.outbox();
        let mut model = Model::default();
        outbox.want(&routes);
        model.drain(&mut outbox, &before);
        assert_eq!((outbox.unsendable_count(), outbox.sent_count()), (20, 80));
        session.next_hops = NextHops { v4: Some(Ipv4Addr::new(192, 0, 2, 99)), ..session.next_hops };
        outbox.change_next_hops(&session.negotiated, session.next_hops);
        for message in (0..messages).map_while(|_| outbox.poll_message().unwrap()) {
            model.hear(&message, &session);
        }
        let fewer: Routes = routes.iter().step_by(3).map(|(prefix, route)| (*prefix, route.clone())).collect();
        outbox.want(&fewer);
        model.drain(&mut outbox, &session);
        assert_eq!(model.table, session.expected_table(&fewer), "after {messages} messages");
        assert_eq!((outbox.unsendable_count(), outbox.sent_count()), (0, fewer.len()));
    }
}
