//! netfilter's netlink messages, as far as egress needs them: batches for nftables, lists of set elements, and connections of
//! conntrack. Floor 1. Octets only; the kernel's side is `include/uapi/linux/netfilter/{nfnetlink,nf_tables,nfnetlink_conntrack}.h`.
//! What the table holds is in `ruleset`.
//!
//! Numbers in netlink headers are in the host's order, those in attributes of netfilter in network order. What cannot be read
//! is no answer, and never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The message type that ends every change of the rules.
pub const GENERATION: u16 = nftables(15);

/// What a message asks nftables to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    DeleteChain = 5,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    DeleteSet = 11,
    NewElements = 12,
    GetElements = 13,
    DeleteElements = 14,
}

/// Several changes that the kernel makes all together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    octets: Vec<u8>,
    messages: u32,
    guards_alone: bool,
}

impl Batch {
    /// `guards_alone`: of the chains that are made, only those that hold packets back hook in.
    pub fn of(guards_alone: bool) -> Batch {
        Batch { guards_alone, ..Batch::default() }
    }

    pub fn has_guards_alone(&self) -> bool {
        self.guards_alone
    }

    /// Adds a change. `flags` are those of netlink besides REQUEST.
    pub fn push(&mut self, verb: Verb, flags: u16, attributes: &Attributes) {
        // The kernel answers the first message when all is done: that is the answer to the batch.
        let flags = if self.messages == 0 { flags | ACK } else { flags };
        self.messages = self.messages.saturating_add(1);
        message(&mut self.octets, nftables(verb as u8), flags, self.messages, FAMILY_INET, 0, &attributes.octets);
    }

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// All of it between the marks of a batch.
    pub fn emit(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.octets.len() + 64);
        message(&mut octets, BATCH_BEGIN, 0, 0, 0, SUBSYSTEM_NFTABLES, &[]);
        octets.extend_from_slice(&self.octets);
        message(&mut octets, BATCH_END, 0, self.messages.saturating_add(1), 0, SUBSYSTEM_NFTABLES, &[]);
        octets
    }
}

/// A question about one object of nftables, or with `list` for all of it.
pub fn question(verb: Verb, list: bool, sequence: u32, attributes: &Attributes) -> Vec<u8> {
    let mut octets = Vec::new();
    let flags = if list { DUMP } else { 0 };
    message(&mut octets, nftables(verb as u8), flags, sequence, FAMILY_INET, 0, &attributes.octets);
    octets
}

/// Asks for the chains of all tables of a family of nftables.
pub fn list_chains(family: u8, sequence: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    message(&mut octets, nftables(Verb::GetChain as u8), DUMP, sequence, family, 0, &[]);
    octets
}

/// Asks for the rules of all chains of a table.
pub fn list_rules(family: u8, table: &str, sequence: u32) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.text(RULE_TABLE, table);
    let mut octets = Vec::new();
    message(&mut octets, nftables(Verb::GetRule as u8), DUMP, sequence, family, 0, &attributes.octets);
    octets
}

/// The rule in a message about one gives packets a mark: `meta mark set`, or what iptables has for it.
pub fn marks(attributes: &[u8]) -> bool {
    let Some(expressions) = value_of(attributes, RULE_EXPRESSIONS) else { return false };
    each(expressions).any(|(_, expression)| {
        let (name, data) = (value_of(expression, EXPRESSION_NAME), value_of(expression, EXPRESSION_DATA));
        let Some(data) = data else { return false };
        match name {
            Some(b"meta\0") => value_of(data, META_SOURCE).is_some() && number_of(data, META_KEY) == Some(META_MARK),
            Some(b"target\0") => matches!(value_of(data, TARGET_NAME), Some(b"MARK\0" | b"CONNMARK\0")),
            Some(_) | None => false,
        }
    })
}

/// Asks conntrack for the connections of a family; with a source, for those that it opened.
pub fn list_connections(v6: bool, source: Option<IpAddr>, sequence: u32) -> Vec<u8> {
    let mut attributes = Attributes::default();
    if let Some(source) = source {
        attributes.nest(CT_TUPLE_ORIGINAL, |tuple| {
            tuple.nest(CT_TUPLE_IP, |ip| match source {
                IpAddr::V4(v4) => ip.octets(CT_V4_SOURCE, &v4.octets()),
                IpAddr::V6(v6) => ip.octets(CT_V6_SOURCE, &v6.octets()),
            });
        });
        attributes.nest(CT_FILTER, |filter| {
            // These two are in the host's order.
            filter.octets(CT_FILTER_ORIGINAL, &CT_FILTER_BY_SOURCE.to_ne_bytes());
            filter.octets(CT_FILTER_REPLY, &0_u32.to_ne_bytes());
        });
    }
    let mut octets = Vec::new();
    message(&mut octets, CONNTRACK_GET, DUMP, sequence, family(v6), 0, &attributes.octets);
    octets
}

/// Asks conntrack to forget a connection.
pub fn forget_connection(to: &mut Vec<u8>, connection: &Connection, sequence: u32) {
    let v6 = connection.source.is_ipv6();
    message(to, CONNTRACK_DELETE, ACK, sequence, family(v6), 0, &connection.identity);
}

/// Attributes, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    octets: Vec<u8>,
}

impl Attributes {
    /// Values of more than 65,531 octets are cut.
    pub fn octets(&mut self, kind: u16, value: &[u8]) {
        let value = &value[..value.len().min(MOST_VALUE)];
        // At most 65,535: it fits.
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.octets.extend_from_slice(&length.to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        let mut octets = value.as_bytes().to_vec();
        octets.push(0);
        self.octets(kind, &octets);
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.octets(kind, &value.to_be_bytes());
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut inner = Attributes::default();
        fill(&mut inner);
        self.octets(kind | NESTED, &inner.octets);
    }

    /// All of them.
    pub fn value(&self) -> &[u8] {
        &self.octets
    }

    pub fn len(&self) -> usize {
        self.octets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }
}

/// A message of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The change was made, or the list is complete.
    Done,
    /// The error number.
    Refused(i32),
    /// The attributes of an object of nftables.
    Object(&'a [u8]),
    Connection(&'a [u8]),
    Other,
}

/// The messages in what was received, each with its sequence number.
pub fn answers(octets: &[u8]) -> impl Iterator<Item = (u32, Answer<'_>)> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_at_checked(HEADER)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let (kind, sequence) = (u16_at(header, 4)?, u32_at(header, 8)?);
        let body = behind.get(..length.checked_sub(HEADER)?)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let answer = match kind {
            ERROR => match u32_at(body, 0)?.cast_signed() {
                0 => Answer::Done,
                code => Answer::Refused(code.checked_neg()?),
            },
            DONE => Answer::Done,
            CONNTRACK_NEW => Answer::Connection(body.get(FAMILY..)?),
            kind if kind >> 8 == SUBSYSTEM_NFTABLES => Answer::Object(body.get(FAMILY..)?),
            _ => Answer::Other,
        };
        Some((sequence, answer))
    })
}

/// The number in an attribute of an object, by the attribute's kind.
pub fn number_of(attributes: &[u8], kind: u16) -> Option<u32> {
    u32_of(value_of(attributes, kind)?)
}

/// A chain that hangs on a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    pub table: String,
    pub name: String,
    /// `nat`, `filter` or `route`.
    pub kind: String,
    pub hook: u32,
    pub priority: i32,
    /// How many rules it has.
    pub rules: u32,
}

/// The chain in a message about one, if it hangs on a hook.
pub fn base_chain(attributes: &[u8]) -> Option<BaseChain> {
    let text = |kind| {
        let value = value_of(attributes, kind)?;
        str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok().map(str::to_owned)
    };
    let place = value_of(attributes, CHAIN_HOOK)?;
    Some(BaseChain {
        table: text(CHAIN_TABLE)?,
        name: text(CHAIN_NAME)?,
        kind: text(CHAIN_TYPE)?,
        hook: u32_of(value_of(place, HOOK_NUMBER)?)?,
        priority: u32_of(value_of(place, HOOK_PRIORITY)?)?.cast_signed(),
        rules: number_of(attributes, CHAIN_USES)?,
    })
}

/// The address of each element in a message about elements, with how many packets it counted.
pub fn elements(attributes: &[u8]) -> Vec<(IpAddr, u64)> {
    let Some(list) = value_of(attributes, ELEMENTS) else { return Vec::new() };
    each(list).filter_map(|(_, element)| Some((key_of(element)?, packets_of(element).unwrap_or(0)))).collect()
}

/// The address of each element in a message about elements of a map of verdicts, with the chain that it leads to.
pub fn chains(attributes: &[u8]) -> Vec<(IpAddr, String)> {
    let chain = |element| {
        let verdict = value_of(value_of(element, ELEMENT_DATA)?, DATA_VERDICT)?;
        let name = value_of(verdict, VERDICT_CHAIN)?;
        str::from_utf8(name.strip_suffix(&[0]).unwrap_or(name)).ok().map(str::to_owned)
    };
    let Some(list) = value_of(attributes, ELEMENTS) else { return Vec::new() };
    each(list).filter_map(|(_, element)| Some((key_of(element)?, chain(element)?))).collect()
}

/// The address of each element in a message about elements of a map of addresses, with the one that it leads to.
pub fn pairs(attributes: &[u8]) -> Vec<(IpAddr, IpAddr)> {
    let data = |element| address_of(value_of(value_of(element, ELEMENT_DATA)?, DATA_VALUE)?);
    let Some(list) = value_of(attributes, ELEMENTS) else { return Vec::new() };
    each(list).filter_map(|(_, element)| Some((key_of(element)?, data(element)?))).collect()
}

/// The address of each element in a message about elements of a set of intervals, and whether it is the first behind an interval.
pub fn bounds(attributes: &[u8]) -> Vec<(IpAddr, bool)> {
    let ends = |element| value_of(element, ELEMENT_FLAGS).and_then(u32_of).is_some_and(|it| it & INTERVAL_END != 0);
    let Some(list) = value_of(attributes, ELEMENTS) else { return Vec::new() };
    each(list).filter_map(|(_, element)| Some((key_of(element)?, ends(element)))).collect()
}

fn key_of(element: &[u8]) -> Option<IpAddr> {
    address_of(value_of(value_of(element, ELEMENT_KEY)?, DATA_VALUE)?)
}

fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))).ok()
}

fn packets_of(element: &[u8]) -> Option<u64> {
    let counter = value_of(value_of(element, ELEMENT_EXPRESSION)?, EXPRESSION_DATA)?;
    value_of(counter, COUNTER_PACKETS)?.try_into().ok().map(u64::from_be_bytes)
}

/// A connection that conntrack knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub source: IpAddr,
    /// Who answers it, behind every translation.
    pub peer: IpAddr,
    /// Where the answers are sent: the source that packets leave with.
    pub leaves_as: IpAddr,
    /// Of an established one of TCP: its ends, as the one who opened it knows them.
    pub tcp: Option<Ends>,
    /// The attributes by which conntrack finds it again.
    identity: Vec<u8>,
}

impl Connection {
    /// One that conntrack need not find again: for tests.
    pub fn between(source: IpAddr, peer: IpAddr, leaves_as: IpAddr) -> Connection {
        Connection { source, peer, leaves_as, tcp: None, identity: Vec::new() }
    }
}

/// The connection in a message of conntrack. Nothing where it lies in a zone of its own: that is how the network of the pods sees it, before
/// this host's netfilter translates anything.
pub fn connection(attributes: &[u8]) -> Option<Connection> {
    let (original, reply) = (value_of(attributes, CT_TUPLE_ORIGINAL)?, value_of(attributes, CT_TUPLE_REPLY)?);
    if value_of(attributes, CT_ZONE).is_some_and(|zone| zone.iter().any(|octet| *octet != 0)) {
        return None;
    }
    let mut identity = Attributes::default();
    identity.octets(CT_TUPLE_ORIGINAL | NESTED, original);
    if let Some(id) = value_of(attributes, CT_ID) {
        identity.octets(CT_ID, id);
    }
    Some(Connection {
        source: end(original, CT_V4_SOURCE, CT_V6_SOURCE)?,
        peer: end(reply, CT_V4_SOURCE, CT_V6_SOURCE)?,
        leaves_as: end(reply, CT_V4_DESTINATION, CT_V6_DESTINATION)?,
        tcp: established(attributes).then(|| ends(original)).flatten(),
        identity: identity.octets,
    })
}

/// An end of a tuple, by the attribute of either family.
fn end(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = value_of(tuple, CT_TUPLE_IP)?;
    address_of(value_of(ip, v4).or_else(|| value_of(ip, v6))?)
}

/// The ends of a TCP connection of a pod, as the pod knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub pod: SocketAddr,
    pub other: SocketAddr,
}

fn ends(original: &[u8]) -> Option<Ends> {
    let ports = value_of(original, CT_TUPLE_PROTO)?;
    let port = |kind: u16| Some(u16::from_be_bytes(value_of(ports, kind)?.try_into().ok()?));
    let pod = (end(original, CT_V4_SOURCE, CT_V6_SOURCE)?, port(CT_SOURCE_PORT)?).into();
    let other = (end(original, CT_V4_DESTINATION, CT_V6_DESTINATION)?, port(CT_DESTINATION_PORT)?).into();
    Some(Ends { pod, other })
}

/// Of TCP alone: of another protocol conntrack tells no such state. A connection of which one direction has ended goes on in the other.
fn established(attributes: &[u8]) -> bool {
    let of_tcp = value_of(attributes, CT_PROTO_INFO).and_then(|info| value_of(info, CT_INFO_OF_TCP));
    let state = of_tcp.and_then(|of_tcp| value_of(of_tcp, CT_TCP_STATE));
    matches!(state, Some([CT_TCP_ESTABLISHED | CT_TCP_FIN_WAIT | CT_TCP_CLOSE_WAIT | CT_TCP_LAST_ACK]))
}

fn value_of(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The attributes in some octets, without the marks in their kinds.
fn each(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)?);
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !(NESTED | NET_ORDER), value))
    })
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u32_of(octets: &[u8]) -> Option<u32> {
    octets.try_into().ok().map(u32::from_be_bytes)
}

/// A netlink message with the header of netfilter. `resource` is the subsystem of a batch.
fn message(to: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, attributes: &[u8]) {
    // Attributes are far below 4 GiB: the callers cut lists into messages of some ten thousand octets.
    let length = u32::try_from(HEADER + FAMILY + attributes.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    to.extend_from_slice(&sequence.to_ne_bytes());
    to.extend_from_slice(&0_u32.to_ne_bytes());
    to.extend_from_slice(&[family, 0]);
    to.extend_from_slice(&resource.to_be_bytes());
    to.extend_from_slice(attributes);
}

const fn nftables(number: u8) -> u16 {
    (SUBSYSTEM_NFTABLES << 8) | number as u16
}

fn family(v6: bool) -> u8 {
    if v6 { 10 } else { 2 }
}

// Flags of netlink.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;

/// Octets of a netlink header, of the header of netfilter behind it, and of the header of an attribute.
const HEADER: usize = 16;
const FAMILY: usize = 4;
const ATTRIBUTE: usize = 4;
const MOST_VALUE: usize = 65_531;

const NESTED: u16 = 0x8000;
const NET_ORDER: u16 = 0x4000;

const FAMILY_INET: u8 = 1;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const CONNTRACK_NEW: u16 = 0x100;
const CONNTRACK_GET: u16 = 0x101;
const CONNTRACK_DELETE: u16 = 0x102;

// Of a message about a rule.
const RULE_TABLE: u16 = 1;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const META_KEY: u16 = 2;
const META_SOURCE: u16 = 3;
const META_MARK: u32 = 3;
const TARGET_NAME: u16 = 1;

// Of a message about a chain.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_USES: u16 = 6;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;

/// Of a message about elements.
const ELEMENTS: u16 = 3;
pub const ELEMENT_KEY: u16 = 1;
pub const ELEMENT_DATA: u16 = 2;
pub const ELEMENT_FLAGS: u16 = 3;
pub const INTERVAL_END: u32 = 1;
pub const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;
const ELEMENT_EXPRESSION: u16 = 7;
pub const DATA_VALUE: u16 = 1;
pub const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;

const CT_TUPLE_ORIGINAL: u16 = 1;
const CT_TUPLE_REPLY: u16 = 2;
const CT_PROTO_INFO: u16 = 4;
const CT_INFO_OF_TCP: u16 = 1;
const CT_TCP_STATE: u16 = 1;
const CT_TCP_ESTABLISHED: u8 = 3;
const CT_TCP_FIN_WAIT: u8 = 4;
const CT_TCP_CLOSE_WAIT: u8 = 5;
const CT_TCP_LAST_ACK: u8 = 6;
const CT_ID: u16 = 12;
const CT_ZONE: u16 = 18;
const CT_FILTER: u16 = 25;
const CT_TUPLE_IP: u16 = 1;
const CT_TUPLE_PROTO: u16 = 2;
const CT_SOURCE_PORT: u16 = 2;
const CT_DESTINATION_PORT: u16 = 3;
const CT_V4_SOURCE: u16 = 1;
const CT_V4_DESTINATION: u16 = 2;
const CT_V6_SOURCE: u16 = 3;
const CT_V6_DESTINATION: u16 = 4;
const CT_FILTER_ORIGINAL: u16 = 1;
const CT_FILTER_REPLY: u16 = 2;
const CT_FILTER_BY_SOURCE: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stands_between_its_marks_and_its_first_message_asks_for_an_answer() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        let mut name = Attributes::default();
        name.text(1, "crier");
        batch.push(Verb::NewTable, CREATE, &name);
        batch.push(Verb::DeleteTable, 0, &name);
        let octets = batch.emit();
        assert_eq!(octets[4..6], BATCH_BEGIN.to_ne_bytes());
        assert_eq!(octets[18..20], [0, 10], "the subsystem, in network order");
        assert_eq!(octets[24..26], 0x0a00_u16.to_ne_bytes(), "NEWTABLE");
        assert_eq!(octets[26..28], (REQUEST | ACK | CREATE).to_ne_bytes());
        assert_eq!(&octets[36..52], b"\x01\0\0\0\x0a\0\x01\0crier\0\0\0", "inet, the attribute filled to four octets");
        let second = 20 + 32;
        assert_eq!(octets[second + 6..second + 8], REQUEST.to_ne_bytes(), "one answer is enough");
        assert_eq!(octets[octets.len() - 16..octets.len() - 14], BATCH_END.to_ne_bytes());
    }

    #[test]
    fn a_connection_is_read_and_named_again_for_its_end() {
        let mut attributes = Attributes::default();
        let tuple = |source: [u8; 4], destination: [u8; 4]| {
            move |tuple: &mut Attributes| {
                tuple.nest(CT_TUPLE_IP, |ip| {
                    ip.octets(CT_V4_SOURCE, &source);
                    ip.octets(CT_V4_DESTINATION, &destination);
                });
            }
        };
        attributes.nest(CT_TUPLE_ORIGINAL, tuple([10, 244, 1, 2], [10, 96, 0, 1]));
        attributes.nest(CT_TUPLE_REPLY, tuple([10, 244, 2, 7], [192, 0, 2, 1]));
        attributes.number(CT_ID, 7);
        let read = connection(&attributes.octets).expect("a connection");
        let ends = [read.source, read.peer, read.leaves_as].map(|address| address.to_string());
        assert_eq!(ends, ["10.244.1.2", "10.244.2.7", "192.0.2.1"]);
        assert_eq!(read.tcp, None);
        let mut forget = Vec::new();
        forget_connection(&mut forget, &read, 3);
        assert_eq!(value_of(&forget[HEADER + FAMILY..], CT_ID), Some(&7_u32.to_be_bytes()[..]));
    }

    /// Input: what conntrack says of a pod's connection to a Service's address that was translated, of TCP in each state and of UDP.
    #[test]
    fn an_established_connection_of_tcp_has_the_ends_that_the_pod_knows() {
        let told = |state: Option<u8>| {
            let mut attributes = Attributes::default();
            let tuple = |ends: [[u8; 4]; 2], ports: [u16; 2]| {
                move |tuple: &mut Attributes| {
                    tuple.nest(CT_TUPLE_IP, |ip| {
                        ip.octets(CT_V4_SOURCE, &ends[0]);
                        ip.octets(CT_V4_DESTINATION, &ends[1]);
                    });
                    tuple.nest(CT_TUPLE_PROTO, |proto| {
                        proto.octets(CT_SOURCE_PORT, &ports[0].to_be_bytes());
                        proto.octets(CT_DESTINATION_PORT, &ports[1].to_be_bytes());
                    });
                }
            };
            attributes.nest(CT_TUPLE_ORIGINAL, tuple([[10, 244, 1, 2], [10, 96, 0, 1]], [40_000, 443]));
            attributes.nest(CT_TUPLE_REPLY, tuple([[203, 0, 113, 7], [192, 0, 2, 1]], [6443, 40_001]));
            if let Some(state) = state {
                attributes.nest(CT_PROTO_INFO, |info| {
                    info.nest(CT_INFO_OF_TCP, |tcp| tcp.octets(CT_TCP_STATE, &[state]));
                });
            }
            connection(&attributes.octets).expect("a connection").tcp
        };
        let (pod, other) = ("10.244.1.2:40000".parse().unwrap(), "10.96.0.1:443".parse().unwrap());
        assert_eq!(told(Some(CT_TCP_ESTABLISHED)), Some(Ends { pod, other }));
        for half_closed in [CT_TCP_FIN_WAIT, CT_TCP_CLOSE_WAIT, CT_TCP_LAST_ACK] {
            assert_eq!(told(Some(half_closed)), Some(Ends { pod, other }), "the other direction goes on");
        }
        assert_eq!(told(Some(7)), None, "it ends");
        assert_eq!(told(None), None, "of UDP");
    }

    #[test]
    fn elements_are_read_with_their_counters() {
        let mut attributes = Attributes::default();
        attributes.nest(ELEMENTS, |list| {
            list.nest(1, |element| {
                element.nest(ELEMENT_KEY, |key| key.octets(DATA_VALUE, &[10, 244, 1, 2]));
                element.nest(ELEMENT_EXPRESSION, |counter| {
                    counter.text(1, "counter");
                    counter.nest(EXPRESSION_DATA, |data| data.octets(COUNTER_PACKETS, &9_u64.to_be_bytes()));
                });
            });
            list.nest(1, |element| element.nest(ELEMENT_KEY, |key| key.octets(DATA_VALUE, &[0; 16])));
            list.nest(1, |element| element.nest(ELEMENT_KEY, |key| key.octets(DATA_VALUE, &[0; 5])));
        });
        let read = elements(&attributes.octets);
        assert_eq!(read, [("10.244.1.2".parse().unwrap(), 9), ("::".parse().unwrap(), 0)]);
    }

    #[test]
    fn the_chains_that_addresses_lead_to_and_the_bounds_of_intervals_are_read() {
        let mut attributes = Attributes::default();
        let element = |list: &mut Attributes, key: &[u8], fill: &dyn Fn(&mut Attributes)| {
            list.nest(1, |element| {
                element.nest(ELEMENT_KEY, |data| data.octets(DATA_VALUE, key));
                fill(element);
            });
        };
        attributes.nest(ELEMENTS, |list| {
            element(list, &[10, 244, 1, 2], &|it| {
                it.nest(ELEMENT_DATA, |data| {
                    data.nest(DATA_VERDICT, |verdict| {
                        verdict.number(1, u32::MAX - 2);
                        verdict.text(VERDICT_CHAIN, "exempt7");
                    })
                });
            });
            element(list, &[192, 0, 2, 0], &|it| it.number(ELEMENT_FLAGS, INTERVAL_END));
            element(list, &[10, 0, 0, 1], &|it| it.number(ELEMENT_FLAGS, 2));
        });
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(chains(&attributes.octets), [(ip("10.244.1.2"), "exempt7".to_owned())]);
        let expected = [("10.244.1.2", false), ("192.0.2.0", true), ("10.0.0.1", false)];
        assert_eq!(bounds(&attributes.octets), expected.map(|(address, ends)| (ip(address), ends)));
    }

    #[test]
    fn octets_of_any_kind_do_no_harm() {
        let mut batch = Batch::default();
        batch.push(Verb::NewSet, 0, &Attributes { octets: vec![8, 0, 1, 0, 1, 2, 3, 4] });
        let octets = batch.emit();
        for length in 0..octets.len() {
            for (_, answer) in answers(&octets[..length]) {
                if let Answer::Object(attributes) | Answer::Connection(attributes) = answer {
                    let _ = (elements(attributes), connection(attributes), number_of(attributes, 1));
                    let _ = (chains(attributes), bounds(attributes));
                }
            }
        }
        assert_eq!(answers(&[0; 64]).count(), 0, "a length of zero ends the reading");
        let mut error = octets[..20].to_vec();
        error[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        error[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(answers(&error).count(), 0, "a number that has no counterpart");
    }
}
