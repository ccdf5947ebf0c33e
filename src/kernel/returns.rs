//! Leads replies out by the network that the requests came in by: rules for the marks of the networks in the egress slice, and
//! routing tables for those that have none of their own. Floor 2. An actuator; it touches only rules and routes that carry crier's
//! number. `egress::task` sets the marks.
//!
//! ```text
//! rule-priority + 1   what comes in by the link and is marked: the main table, as without the mark
//! rule-priority + 2   what is marked: the table of the network
//! ```
//!
//! The first rule is for the request itself. It is marked for the kernel's reverse path filter alone, which asks without the link
//! and so comes to the second. In a VRF the kernel's own rule comes before both.
//!
//! A rule for a mark comes once the default route stands that it leads to. What another program removes, or the kernel with a link or
//! an address, is put back when the kernel tells. What it refuses is tried again, and told when it stays refused. When the agent stops
//! all of it stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteScope, RouteType, RouteVia,
};
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::foreign_rules::ForeignRule;
use super::marked::{self, MarkedRule};
use super::netlink::{Complaints, Event, Netlink, NetlinkError, PROTOCOL, address_family, family_of, table_of};
use super::routes;
use crate::address::{Family, is_link_local_v6};
use crate::config::{EgressSettings, FOR_NETWORKS};
use crate::names::InterfaceName;
use crate::plan::slice::{EgressSlice, ReturnNetwork, ReturnTable};
use crate::world::{Area, Fact, HostProblem, NetworkNumbers};

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps rules and routes as the slice wants them, and tells as [`Fact::Problems`] what the kernel goes on to refuse. Never ends by
/// itself, and may be dropped at any time.
pub async fn run(mut slices: watch::Receiver<EgressSlice>, settings: EgressSettings, facts: mpsc::Sender<Fact>) {
    let mut complaints = Complaints::default();
    let mut told = Told { facts, problems: Vec::new(), refused: false };
    loop {
        let Err(error) = follow(&mut slices, &settings, &mut told).await;
        if complaints.is_new(&error) {
            warn!(%error, "routes for replies by extra networks cannot be set, so replies leave by the default route; trying again");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// The numbers in the marks that networks have by the rules of an earlier agent: connections carry them. None where the kernel cannot
/// be asked.
pub async fn numbers(settings: &EgressSettings) -> NetworkNumbers {
    let rules = async { Netlink::open_for(&[])?.rules().await }.await;
    match rules {
        Ok(rules) => numbers_of(rules.iter().filter_map(|message| marked::Part::read(message, settings)), settings),
        Err(error) => {
            warn!(%error, "the rules for replies by extra networks cannot be read, so their numbers are dealt anew");
            NetworkNumbers::default()
        }
    }
}

fn numbers_of(parts: impl Iterator<Item = Part>, settings: &EgressSettings) -> NetworkNumbers {
    let mut numbers = NetworkNumbers::default();
    for part in parts {
        match part {
            Part::Request { slot, link, family } => {
                let (known, families) = numbers.links.entry(link).or_insert((slot, BTreeSet::new()));
                families.extend((*known == slot).then_some(family));
            }
            Part::Reply { slot, table, family: _ } if !tables(settings).contains(&table) => {
                numbers.vrfs.insert(table, slot);
            }
            Part::Reply { .. } | Part::Route { .. } => {}
        }
    }
    numbers
}

struct Told {
    facts: mpsc::Sender<Fact>,
    problems: Vec<HostProblem>,
    /// What the kernel refuses is among them.
    refused: bool,
}

impl Told {
    /// Answers when what was refused is tried again. It is told only then: a link that went down just now goes from the slice too.
    async fn outcome(
        &mut self,
        refused: &BTreeMap<Part, String>,
        mut all: Vec<HostProblem>,
        slice: &EgressSlice,
        retry_at: Option<Instant>,
    ) -> Option<Instant> {
        let now = Instant::now();
        let is_due = retry_at.is_some_and(|at| at <= now);
        self.refused = !refused.is_empty() && (is_due || self.refused);
        let again = match (refused.is_empty(), self.refused) {
            (true, _) => None,
            (false, true) => {
                all.extend(problems(refused, slice));
                Some(now + RETRY_INTERVAL)
            }
            (false, false) => Some(retry_at.unwrap_or(now + RETRY_INTERVAL)),
        };
        self.tell(all).await;
        again
    }

    async fn tell(&mut self, problems: Vec<HostProblem>) {
        if self.problems == problems {
            return;
        }
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!(%problem, "replies by an extra network leave by another one");
        }
        self.problems.clone_from(&problems);
        // Nobody takes facts any more only when the agent ends.
        let _ = self.facts.send(Fact::Problems(Area::Returns, problems)).await;
    }
}

/// Takes away all rules and routes of networks: for `crier cleanup`. Says how many there were.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub async fn take_away(settings: &EgressSettings) -> Result<usize, String> {
    marked::take_away::<Part>(settings).await.map_err(|error| error.to_string())
}

/// With a link or an address its routes of IPv4 go, and the kernel tells of these alone.
fn groups() -> Vec<MulticastGroup> {
    let of_links = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    marked::GROUPS.into_iter().chain(of_links).collect()
}

async fn follow(
    slices: &mut watch::Receiver<EgressSlice>,
    settings: &EgressSettings,
    told: &mut Told,
) -> Result<std::convert::Infallible, NetlinkError> {
    let mut netlink: Option<Netlink> = None;
    let mut tidied = false;
    // When what was refused is tried again.
    let mut retry_at: Option<Instant> = None;
    // What was wanted at the last look; `None` where the kernel may have changed since. Pods that come and go change the slice too.
    let mut last: Option<BTreeSet<Part>> = None;
    let mut foreign: BTreeSet<ForeignRule> = BTreeSet::new();
    loop {
        let slice = slices.borrow_and_update().clone();
        let wanted = wanted(&slice);
        // Without networks there is nothing to listen for. The first look takes away what an earlier life left.
        let is_needed = !slice.networks.is_empty() || netlink.is_some() || !tidied;
        if slice.planned && is_needed && last.as_ref() != Some(&wanted) {
            let open = match netlink.take() {
                Some(open) => open,
                None => Netlink::open_for(&groups())?,
            };
            let netlink = netlink.insert(open);
            let refused = work(&wanted, settings, netlink).await?;
            tidied = true;
            foreign = foreign_rules(&wanted, settings, netlink).await?;
            let mut all = in_front(&foreign, settings, netlink).await?;
            all.extend(strangers(&slice, settings, netlink).await?);
            last = Some(wanted);
            retry_at = told.outcome(&refused, all, &slice, retry_at).await;
        }
        if slice.networks.is_empty() {
            netlink = None;
            retry_at = None;
        }
        let links = slice.networks.iter().flat_map(|network| network.links.keys().copied()).collect();
        let watched = Watched { links, tables: foreign.iter().map(|rule| rule.table).collect() };
        tokio::select! {
            changed = slices.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => last = None,
            concerned = concerned(netlink.as_mut(), settings, &watched) => {
                concerned?;
                last = None;
            }
        }
    }
}

/// What events may be about, beside rules and crier's tables. Links of pods and their routes come and go.
#[derive(Debug, Default)]
struct Watched {
    links: BTreeSet<u32>,
    /// Tables of other programs, whose default routes count.
    tables: BTreeSet<u32>,
}

/// Waits for an event about a rule, about a route in one of the tables, or about one of the links.
async fn concerned(
    netlink: Option<&mut Netlink>,
    settings: &EgressSettings,
    watched: &Watched,
) -> Result<(), NetlinkError> {
    let Some(netlink) = netlink else { return std::future::pending().await };
    loop {
        match netlink.event().await {
            Event::Closed => return Err(NetlinkError::Ended),
            Event::Overrun => break,
            Event::Message(message) if concerns(&message, settings, watched) => break,
            Event::Message(_) => {}
        }
    }
    // Events of our own changes come too; one look covers all of them.
    while let Some(event) = netlink.pending_event() {
        if let Event::Closed = event {
            return Err(NetlinkError::Ended);
        }
    }
    Ok(())
}

fn concerns(message: &RouteNetlinkMessage, settings: &EgressSettings, watched: &Watched) -> bool {
    let Watched { links, tables: foreign } = watched;
    match message {
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            let table = table_of(route);
            tables(settings).contains(&table) || (leads_most(route) && foreign.contains(&table))
        }
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => links.contains(&link.header.index),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            links.contains(&address.header.index)
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
        // The enum is not ours; nothing else was subscribed to.
        _ => false,
    }
}

/// One rule or route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// In the own table of a slot.
    Route { slot: u8, to: IpNet, hop: Hop },
    /// Requests that come in by the link and are marked with the slot.
    Request { slot: u8, link: InterfaceName, family: Family },
    /// Replies that are marked with the slot.
    Reply { slot: u8, table: u32, family: Family },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hop {
    Via {
        via: IpAddr,
        link: u32,
        /// No route has to lead to it, as the gateways of some clouds are outside of every subnet.
        onlink: bool,
    },
    Link(u32),
    /// On to the next rule: the destination is inside of the cluster.
    Throw,
}

fn wanted(slice: &EgressSlice) -> BTreeSet<Part> {
    slice.networks.iter().flat_map(|network| of_network(network, slice)).collect()
}

fn of_network(network: &ReturnNetwork, slice: &EgressSlice) -> Vec<Part> {
    // Of a former network, what is marked leaves as before.
    let ReturnNetwork { name: _, slot, links, table, former: _ } = network;
    let slot = *slot;
    match table {
        ReturnTable::Vrf(table) => {
            Family::BOTH.map(|family| Part::Reply { slot, table: *table, family }).into_iter().collect()
        }
        ReturnTable::Own { gateways, subnets } => {
            let mut parts = Vec::new();
            let has = |family: &Family| {
                gateways.contains_key(family) || subnets.iter().any(|it| Family::of(it.addr()) == *family)
            };
            // Replies of another family leave by the main table, marked or not.
            let families: Vec<Family> = Family::BOTH.into_iter().filter(has).collect();
            for family in families.iter().copied() {
                parts.push(Part::Reply { slot, table: 0, family });
                parts.extend(links.values().map(|link| Part::Request { slot, link: link.clone(), family }));
            }
            for index in links.keys() {
                let via = |(family, via): (&Family, &Option<IpAddr>)| {
                    let to = super::vrfs::wanted::everything(*family);
                    let Some(via) = via else { return Part::Route { slot, to, hop: Hop::Link(*index) } };
                    // Linux lets an IPv6 gateway be on the link only where no other link has its subnet.
                    let is_near = is_link_local_v6(*via) || subnets.iter().any(|net| net.contains(via));
                    let onlink = *family == Family::V4 || !is_near;
                    Part::Route { slot, to, hop: Hop::Via { via: *via, link: *index, onlink } }
                };
                parts.extend(gateways.iter().map(via));
                let on_link = |net: &IpNet| Part::Route { slot, to: *net, hop: Hop::Link(*index) };
                parts.extend(subnets.iter().map(on_link));
            }
            let cluster: Vec<IpNet> = slice.cluster.iter().copied().collect();
            let of_families = |net: &IpNet| families.contains(&Family::of(net.addr()));
            let inside = IpNet::aggregate(&cluster).into_iter();
            let inside = inside.filter(|net| of_families(net) && !subnets.contains(net));
            parts.extend(inside.map(|to| Part::Route { slot, to, hop: Hop::Throw }));
            parts
        }
    }
}

/// Answers with the routes that the kernel refused, each with its words.
async fn work(
    wanted: &BTreeSet<Part>,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<BTreeMap<Part, String>, NetlinkError> {
    let present = marked::present(netlink, settings).await?;
    let wanted: BTreeSet<Part> = wanted.iter().cloned().map(|part| part.with_table(settings)).collect();
    // A route to a gateway that is replaced has to go first, and a rule that leads to a table comes when its routes are there.
    for part in present.difference(&wanted) {
        match marked::change(part, false, settings, netlink).await {
            // With its link it is gone by now.
            Err(NetlinkError::Refused(error)) if error.raw_os_error() == Some(libc::ENODEV) => {}
            done => done?,
        }
    }
    let mut refused = BTreeMap::new();
    let mut leaderless = BTreeSet::new();
    for part in wanted.difference(&present) {
        if part.of_rule().is_some_and(|of| leaderless.contains(&of)) {
            continue;
        }
        match (marked::change(part, true, settings, netlink).await, part) {
            (Err(NetlinkError::Refused(error)), Part::Route { slot, to, hop: _ }) => {
                leaderless.extend((to.prefix_len() == 0).then(|| (*slot, Family::of(to.addr()))));
                refused.insert(part.clone(), error.to_string());
            }
            (Err(error), _) => return Err(error),
            (Ok(()), Part::Reply { table, family, .. }) => {
                info!(table, ?family, "replies to what came in by an extra network leave by it");
            }
            (Ok(()), Part::Request { .. } | Part::Route { .. }) => {}
        }
    }
    Ok(refused)
}

/// The rules of other programs that may lead replies away, in front of crier's.
async fn foreign_rules(
    wanted: &BTreeSet<Part>,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<BTreeSet<ForeignRule>, NetlinkError> {
    let replies = wanted.iter().filter(|part| matches!(part, Part::Reply { .. })).filter_map(Part::of_rule);
    let replies: Vec<(u32, Family)> = replies.map(|(slot, family)| (settings.mark(slot), family)).collect();
    if replies.is_empty() {
        return Ok(BTreeSet::new());
    }
    let last = settings.rule_priority.saturating_add(REPLIES_BEHIND);
    let foreign = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRule(rule) => ForeignRule::before(last, rule),
        // The enum is not ours; nothing else is a rule.
        _ => None,
    };
    let takes_any = |rule: &ForeignRule| replies.iter().any(|(mark, of)| rule.family == *of && rule.takes(*mark));
    Ok(netlink.rules().await?.iter().filter_map(foreign).filter(takes_any).collect())
}

/// Of these rules, those whose tables lead somewhere.
async fn in_front(
    foreign: &BTreeSet<ForeignRule>,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<Vec<HostProblem>, NetlinkError> {
    let mut problems = Vec::new();
    for rule in foreign {
        let mut request = RouteMessage::default();
        request.attributes.push(RouteAttribute::Table(rule.table));
        let leads = |route: &RouteMessage| {
            table_of(route) == rule.table
                && leads_most(route)
                && family_of(route.header.address_family) == Some(rule.family)
                && route.header.kind != RouteType::Throw
        };
        if !netlink.list_of(request, leads).await?.is_empty() {
            problems.push(leads_away(rule, settings));
        }
    }
    Ok(problems)
}

/// Routes of other programs in the tables that crier makes for networks. These are looked at again when the kernel tells of such a table.
async fn strangers(
    slice: &EgressSlice,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<Vec<HostProblem>, NetlinkError> {
    let own = slice.networks.iter().filter(|network| matches!(network.table, ReturnTable::Own { .. }));
    let own: Vec<_> = own.map(|network| (own_table(settings, network.slot), &network.name)).collect();
    let tables = own.iter().map(|(table, _)| *table).collect();
    let strangers = marked::strangers(tables, netlink).await?;
    let in_words = |(table, name): &(u32, &InterfaceName)| {
        let HostProblem { problem, remedy } = strangers.get(table)?.clone();
        let problem = format!("what is to leave by the extra network {name} may leave by another one: {problem}");
        Some(HostProblem { problem, remedy })
    };
    Ok(own.iter().filter_map(in_words).collect())
}

/// A default route, or a half of one, as VPNs have it.
fn leads_most(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length <= 1
}

fn leads_away(rule: &ForeignRule, settings: &EgressSettings) -> HostProblem {
    let ForeignRule { priority, table, family, .. } = rule;
    let words = family.option_of_ip();
    let last = settings.rule_priority.saturating_add(REPLIES_BEHIND);
    HostProblem {
        problem: format!(
            "replies to what comes in by extra networks are led into table {table} by a policy rule of another program: its priority \
             {priority} ({family}) comes before crier's {last}"
        ),
        remedy: format!(
            "ip {words} rule show pref {priority}; have the program add the rule with a priority behind crier's (ip rule add pref 32764 \
             …), or set [egress] rule-priority below it where {priority} is its own"
        ),
    }
}

/// How far the priority of the rules for replies is behind `rule-priority`.
const REPLIES_BEHIND: u32 = 2;

fn problems(refused: &BTreeMap<Part, String>, slice: &EgressSlice) -> Vec<HostProblem> {
    let in_words = |(part, error): (&Part, &String)| {
        let Part::Route { slot, to, hop } = part else { return None };
        let network = slice.networks.iter().find(|network| network.slot == *slot)?;
        let hop = match hop {
            Hop::Via { via, link: _, onlink: _ } => format!(" via {via}"),
            Hop::Link(_) | Hop::Throw => String::new(),
        };
        let name = &network.name;
        Some(HostProblem {
            problem: format!(
                "replies to what comes in by the extra network {name} leave by the default route: the kernel refuses the route to {to}\
                 {hop} by it: {error}"
            ),
            remedy: format!(
                "ip route show default; correct the default route by {name}, or [egress] symmetric-return = false"
            ),
        })
    };
    refused.iter().filter_map(in_words).collect()
}

fn our_route(route: &RouteMessage, settings: &EgressSettings) -> Option<Part> {
    let number = table_of(route);
    let slot = (1..=settings.slots()).find(|slot| own_table(settings, *slot) == number)?;
    if route.header.protocol != PROTOCOL {
        return None;
    }
    let (mut gateway, mut link, mut to) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(told) => gateway = routes::address(told),
            RouteAttribute::Via(RouteVia::Inet6(told)) => gateway = Some(IpAddr::V6(*told)),
            RouteAttribute::Destination(told) => to = routes::address(told),
            RouteAttribute::Oif(told) => link = Some(*told),
            // The enum is not ours; nothing else describes a route of ours.
            _ => {}
        }
    }
    let to = match to {
        Some(ip) => IpNet::new(ip, route.header.destination_prefix_length).ok()?,
        None => super::vrfs::wanted::everything(family_of(route.header.address_family)?),
    };
    let hop = match (route.header.kind, gateway, link) {
        (RouteType::Throw, ..) => Hop::Throw,
        (_, Some(via), Some(link)) => Hop::Via { via, link, onlink: route.header.flags.contains(RouteFlags::Onlink) },
        (_, None, Some(link)) => Hop::Link(link),
        (_, _, None) => return None,
    };
    Some(Part::Route { slot, to, hop })
}

/// The number of the table that crier makes for a slot.
fn own_table(settings: &EgressSettings, slot: u8) -> u32 {
    settings.first_route_table.saturating_add(FOR_NETWORKS).saturating_add(u32::from(slot) - 1)
}

fn tables(settings: &EgressSettings) -> std::ops::RangeInclusive<u32> {
    own_table(settings, 1)..=own_table(settings, settings.slots().max(1))
}

impl Part {
    /// Of a rule, the slot and the family whose table it is for.
    fn of_rule(&self) -> Option<(u8, Family)> {
        match self {
            Part::Request { slot, family, .. } | Part::Reply { slot, family, .. } => Some((*slot, *family)),
            Part::Route { .. } => None,
        }
    }

    /// Names the table that a reply is led to, where it is one of crier's own.
    fn with_table(self, settings: &EgressSettings) -> Part {
        match self {
            Part::Reply { slot, table: 0, family } => Part::Reply { slot, table: own_table(settings, slot), family },
            Part::Reply { .. } | Part::Request { .. } | Part::Route { .. } => self,
        }
    }
}

impl marked::Part for Part {
    /// What is there already, or gone already; a host without the address family has no packets of it.
    const FINE: &'static [i32] = &[libc::EEXIST, libc::ESRCH, libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

    fn read(message: &RouteNetlinkMessage, settings: &EgressSettings) -> Option<Part> {
        match message {
            RouteNetlinkMessage::NewRule(rule) => {
                let MarkedRule { slot, behind, table, link, family } = MarkedRule::read(rule, settings)?;
                match (behind, link) {
                    (1, Some(link)) => Some(Part::Request { slot, link, family }),
                    (REPLIES_BEHIND, None) => Some(Part::Reply { slot, table, family }),
                    (_, _) => None,
                }
            }
            RouteNetlinkMessage::NewRoute(route) => our_route(route, settings),
            // The enum is not ours; nothing else is a rule or a route.
            _ => None,
        }
    }

    fn message(&self, settings: &EgressSettings, new: bool) -> RouteNetlinkMessage {
        match self.clone() {
            Part::Request { slot, link, family } => {
                let (table, link) = (u32::from(RouteHeader::RT_TABLE_MAIN), Some(link));
                MarkedRule { slot, behind: 1, table, link, family }.message(settings, new)
            }
            Part::Reply { slot, table, family } => {
                MarkedRule { slot, behind: REPLIES_BEHIND, table, link: None, family }.message(settings, new)
            }
            Part::Route { slot, to, hop } => {
                let message = route(own_table(settings, slot), &to, &hop);
                if new { RouteNetlinkMessage::NewRoute(message) } else { RouteNetlinkMessage::DelRoute(message) }
            }
        }
    }
}

fn route(table: u32, to: &IpNet, hop: &Hop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.address_family = address_family(Family::of(to.addr()));
    message.header.destination_prefix_length = to.prefix_len();
    message.attributes.push(RouteAttribute::Table(table));
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    match hop {
        Hop::Via { via, link, onlink } => {
            message.header.flags.set(RouteFlags::Onlink, *onlink);
            message.attributes.push(match via {
                IpAddr::V6(v6) if to.addr().is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(*v6)),
                via => RouteAttribute::Gateway((*via).into()),
            });
            message.attributes.push(RouteAttribute::Oif(*link));
        }
        Hop::Link(link) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(*link));
        }
        Hop::Throw => message.header.kind = RouteType::Throw,
    }
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;
    use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

    use super::*;

    fn settings() -> EgressSettings {
        crate::config::tests::one_of_each().egress
    }

    fn route_of(to: &str, via: &str, onlink: bool) -> Part {
        Part::Route { slot: 15, to: to.parse().unwrap(), hop: Hop::Via { via: via.parse().unwrap(), link: 3, onlink } }
    }

    #[test]
    fn a_route_is_read_as_it_was_made() {
        for part in [
            route_of("0.0.0.0/0", "172.31.1.1", true),
            route_of("0.0.0.0/0", "fe80::1", true),
            route_of("::/0", "fe80::1", false),
            Part::Route { slot: 15, to: "192.0.2.0/24".parse().unwrap(), hop: Hop::Link(3) },
            Part::Route { slot: 15, to: "0.0.0.0/0".parse().unwrap(), hop: Hop::Link(3) },
            Part::Route { slot: 15, to: "::/0".parse().unwrap(), hop: Hop::Link(3) },
        ] {
            let message = marked::Part::message(&part, &settings(), true);
            assert_eq!(<Part as marked::Part>::read(&message, &settings()), Some(part));
        }
    }

    /// Input: gateways outside of the link's subnets, within one, and of the other family.
    #[test]
    fn a_gateway_outside_of_every_subnet_is_on_the_link() {
        let table = [
            (Family::V4, "172.31.1.1", true),
            (Family::V4, "192.0.2.1", true),
            (Family::V4, "fe80::1", true),
            (Family::V6, "fd02::1", false),
            (Family::V6, "fe80::1", false),
            (Family::V6, "fd99::1", true),
        ];
        for (family, via, onlink) in table {
            let subnets = ["192.0.2.0/24", "fd02::/64"].map(|net| net.parse().unwrap()).to_vec();
            let network = ReturnNetwork {
                name: "eth1".into(),
                slot: 15,
                links: [(3, "eth1".into())].into(),
                table: ReturnTable::Own { gateways: [(family, Some(via.parse().unwrap()))].into(), subnets },
                former: false,
            };
            let to = super::super::vrfs::wanted::everything(family).to_string();
            let parts = of_network(&network, &EgressSlice::default());
            assert!(parts.contains(&route_of(&to, via, onlink)), "{via}: {parts:?}");
        }
    }

    #[test]
    fn a_network_whose_default_route_leads_to_the_link_itself_has_such_a_route_too() {
        let network = ReturnNetwork {
            name: "ppp0".into(),
            slot: 15,
            links: [(3, "ppp0".into())].into(),
            table: ReturnTable::Own { gateways: [(Family::V4, None)].into(), subnets: Vec::new() },
            former: false,
        };
        let parts = of_network(&network, &EgressSlice::default());
        let route = Part::Route { slot: 15, to: "0.0.0.0/0".parse().unwrap(), hop: Hop::Link(3) };
        assert!(parts.contains(&route) && parts.len() == 3, "{parts:?}");
    }

    /// Input: events of links, addresses, routes and rules. Output: whether tables are looked at again.
    #[test]
    fn what_happens_to_a_link_of_a_network_is_looked_at_and_what_happens_to_a_pods_is_not() {
        let link = |index: u32| {
            let mut message = netlink_packet_route::link::LinkMessage::default();
            message.header.index = index;
            RouteNetlinkMessage::NewLink(message)
        };
        let address = |index: u32| {
            let mut message = netlink_packet_route::address::AddressMessage::default();
            message.header.index = index;
            RouteNetlinkMessage::DelAddress(message)
        };
        let of_table = marked::Part::message(&route_of("0.0.0.0/0", "192.0.2.1", true), &settings(), true);
        let of_main = RouteNetlinkMessage::NewRoute(RouteMessage::default());
        let rule = RouteNetlinkMessage::DelRule(Default::default());
        let table = [
            (link(3), true),
            (address(3), true),
            (link(77), false),
            (address(77), false),
            (of_table, true),
            (of_main, false),
            (rule, true),
        ];
        for (message, expected) in table {
            let watched = Watched { links: [3].into(), tables: BTreeSet::new() };
            assert_eq!(concerns(&message, &settings(), &watched), expected, "{message:?}");
        }
    }

    /// Input: rules of other programs in front of crier's, as `wg-quick` and others add them. Output: those that lead
    /// marked replies away.
    #[test]
    fn a_rule_of_another_program_in_front_that_leads_marked_replies_away_is_known() {
        let mark = settings().mark(15);
        let last = settings().rule_priority + REPLIES_BEHIND;
        let of = |priority: u32, flags: RuleFlags, selectors: &[RuleAttribute]| {
            let mut rule = RuleMessage::default();
            rule.header.family = address_family(Family::V4);
            (rule.header.action, rule.header.flags) = (RuleAction::ToTable, flags);
            // The kernel always tells this one.
            rule.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::SuppressPrefixLen(u32::MAX)];
            rule.attributes.extend([RuleAttribute::Table(51820), RuleAttribute::Protocol(RouteProtocol::Boot)]);
            rule.attributes.extend_from_slice(selectors);
            rule
        };
        let marked = |mark: u32, mask: u32| [RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)];
        let (plain, not) = (RuleFlags::empty(), RuleFlags::Invert);
        let table = [
            ("for all", of(1499, plain, &[]), true),
            ("not fwmark 51820", of(1500, not, &marked(51820, u32::MAX)), true),
            ("behind", of(32764, not, &marked(51820, u32::MAX)), false),
            ("of another mark", of(9, plain, &marked(0x200, 0xf00)), false),
            ("crier's mark", of(9, plain, &marked(mark, mark)), true),
            ("not crier's mark", of(9, not, &marked(mark, mark)), false),
            ("suppress_prefixlength 0", of(1499, plain, &[RuleAttribute::SuppressPrefixLen(0)]), false),
            ("of one link", of(1499, plain, &[RuleAttribute::Iifname("eth0".to_owned())]), false),
            ("l3mdev", of(1000, plain, &[RuleAttribute::L3MDev(true)]), false),
            ("crier's own", of(990, plain, &[RuleAttribute::Protocol(PROTOCOL)]), false),
        ];
        for (what, rule, expected) in table {
            let takes = ForeignRule::before(last, &rule).is_some_and(|rule| rule.takes(mark));
            assert_eq!(takes, expected, "{what}");
        }
        let mut from = of(1499, plain, &[]);
        from.header.src_len = 24;
        assert_eq!(ForeignRule::before(last, &from), None, "of some sources");
    }

    #[test]
    fn the_numbers_of_networks_are_read_from_the_rules() {
        let request = |slot, link: &str, family| Part::Request { slot, link: link.into(), family };
        let reply = |slot, table| Part::Reply { slot, table, family: Family::V4 };
        let own = own_table(&settings(), 15);
        let parts = [
            request(15, "eth1", Family::V4),
            request(15, "eth1", Family::V6),
            request(14, "ens9", Family::V4),
            reply(15, own),
            reply(13, 1001),
        ];
        let NetworkNumbers { links, vrfs } = numbers_of(parts.into_iter(), &settings());
        let expected = [("ens9", 14, vec![Family::V4]), ("eth1", 15, Family::BOTH.to_vec())];
        let expected = expected.map(|(name, slot, families)| (name.into(), (slot, families.into_iter().collect())));
        assert_eq!(links, expected.into());
        assert_eq!(vrfs, [(1001, 13)].into());
    }
}
