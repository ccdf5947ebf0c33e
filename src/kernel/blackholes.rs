//! Drops forwarded packets to what is announced over BGP where nothing takes them: to unused addresses of an aggregate, and to ports
//! of an announced address that no Service has. Without this, such a packet goes back to the router that sent it here, and so on
//! until its TTL ends. Floor 2. An actuator: it follows the BGP slice, and touches only routes and rules that carry crier's number.
//!
//! Each prefix that is announced, host routes too, has a blackhole route in a table of crier's own. Two rules of each family lead
//! there, whatever the number of prefixes:
//!
//! ```text
//! 32765   all packets: the main table without its default routes
//! 32765   what this host itself does not send: crier's table
//! ```
//!
//! So a packet that kube-proxy has translated, one to an address of this host, and one that any rule before these or any route but a
//! default route leads on go as before. What a local program sends to a Service's address follows the host's default route until
//! kube-proxy translates the address. The routes are blackholes, not unreachable ones: an address may be announced a moment before
//! kube-proxy knows it, and a client that hears nothing tries again, where an ICMP error would end its attempt.
//!
//! What is announced to a peer in a VRF that crier manages has its blackhole in the table of that VRF, behind all other routes to the
//! prefix: there no rule tells what this host sends from what it forwards, so a program in the VRF does not reach it past kube-proxy either.
//!
//! The two come behind all other rules of their priority, also those that are added later, so these stay in force for everything else.
//! What another program removes is put back: rules at once, routes within [`LOOK_INTERVAL`].
//!
//! Several agents of one host share the table and the rules. Each knows its own routes by their metric, which comes from its number on the
//! host, and the rules stay while another has routes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::netlink::{
    Complaints, Event, Netlink, NetlinkError, PROTOCOL, UNREACHABLE_METRIC, address_family, family_of,
};
use crate::address::Family;
use crate::config::BLACKHOLES;
use crate::names::{InterfaceName, PeerName};
use crate::plan::slice::{BgpSlice, PeerSlice, VrfSlice};
use crate::world::{Area, Fact, HostProblem};

/// The routing table of the blackholes.
const TABLE: u32 = BLACKHOLES;

/// Of both rules: right before the kernel's rule for the main table. `ip rule add` gives a rule without a priority this one or a
/// smaller one, and those are looked up first.
const PRIORITY: u32 = 32765;

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often crier's routes are listed again while there are blackholes. The kernel goes through every route of the host for it, so
/// not often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What becomes of the blackhole routes when crier stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A restart: routers send packets here still, and the next run finds the routes.
    Keep,
    /// The node leaves.
    Remove,
}

/// Keeps a blackhole for each prefix that some peer is told of, until `stop` says how to end. At the start it
/// also removes what an earlier run left and nobody wants any more.
///
/// A slice that is not complete removes nothing, because there is no plan yet.
pub async fn run(
    mut slices: watch::Receiver<BgpSlice>,
    mut vrfs: watch::Receiver<VrfSlice>,
    number_on_host: u32,
    facts: mpsc::Sender<Fact>,
    stop: impl Future<Output = Stop>,
) {
    tokio::pin!(stop);
    let mut complaints = Complaints::default();
    let mut failing = false;
    let stop = loop {
        tokio::select! {
            stop = &mut stop => break stop,
            Err(error) = follow(&mut slices, &mut vrfs, number_on_host, &mut failing, &facts) => {
                if !slices.borrow().peers.is_empty() {
                    failing = true;
                    let problem = HostProblem {
                        problem: format!("blackhole routes cannot be set, so packets to unused addresses and ports may loop: {error}"),
                        remedy: "give the agent CAP_NET_ADMIN; it is tried again".to_owned(),
                    };
                    // The loop of the agent may be gone already.
                    let _ = facts.send(Fact::Problems(Area::Blackholes, vec![problem])).await;
                }
                if complaints.is_new(&error) {
                    warn!(%error, "blackhole routes cannot be set, so packets to unused addresses and ports may loop; trying again");
                }
            }
        }
        tokio::select! {
            stop = &mut stop => break stop,
            () = sleep(RETRY_INTERVAL) => {}
        }
    };
    if stop == Stop::Remove
        && let Err(error) = take_away(number_on_host).await
    {
        warn!(error, "blackhole routes could not be removed");
    }
}

/// Takes away the blackhole routes of the agent with this number, and the rules unless another has routes: for `crier cleanup` too. Says
/// how many there were.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub async fn take_away(number_on_host: u32) -> Result<usize, String> {
    let removed = async {
        let mut netlink = Netlink::open_for(&[])?;
        let mut keeper = Keeper::of(number_on_host);
        keeper.read_routes(&mut netlink).await?;
        keeper.read_rules(&mut netlink).await?;
        let count = |keeper: &Keeper| {
            keeper.routes.len() + keeper.rules.values().map(|rules| rules.present.len()).sum::<usize>()
        };
        let before = count(&keeper);
        keeper.work(&BTreeSet::new(), true, &mut netlink).await?;
        // An agent that stopped at the same moment may have left the rules to this one, and this one to that: now that its own routes have
        // gone, the later of the two finds no others.
        keeper.work(&BTreeSet::new(), true, &mut netlink).await?;
        Ok(before.saturating_sub(count(&keeper)))
    };
    removed.await.map_err(|error: NetlinkError| error.to_string())
}

/// Works until the kernel refuses something, and answers with the error.
async fn follow(
    slices: &mut watch::Receiver<BgpSlice>,
    vrfs: &mut watch::Receiver<VrfSlice>,
    number_on_host: u32,
    failing: &mut bool,
    facts: &mpsc::Sender<Fact>,
) -> Result<std::convert::Infallible, NetlinkError> {
    let mut netlink = Netlink::open_for(&[MulticastGroup::Ipv4Rule, MulticastGroup::Ipv6Rule])?;
    let mut keeper = Keeper::of(number_on_host);
    keeper.read_routes(&mut netlink).await?;
    keeper.read_rules(&mut netlink).await?;
    let mut look_at = Instant::now() + LOOK_INTERVAL;
    loop {
        let slice = slices.borrow_and_update().clone();
        let (tables, planned) = {
            let vrfs = vrfs.borrow_and_update();
            (managed(&vrfs), vrfs.planned)
        };
        let complete = slice.complete && planned;
        if keeper.is_news(&slice, complete, &tables) {
            keeper.work(&prefixes(&slice.peers, &tables), complete, &mut netlink).await?;
            keeper.last = Some(Last { complete, peers: slice.peers, tables });
        }
        if std::mem::take(failing) {
            let _ = facts.send(Fact::Problems(Area::Blackholes, Vec::new())).await;
        }
        tokio::select! {
            changed = slices.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            changed = vrfs.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            event = netlink.event() => {
                // Events of our own changes come too; one look covers all of them.
                let mut next = Some(event);
                while let Some(event) = next {
                    if let Event::Closed = event {
                        return Err(NetlinkError::Ended);
                    }
                    next = netlink.pending_event();
                }
                keeper.read_rules(&mut netlink).await?;
            }
            () = sleep_until(look_at), if !keeper.routes.is_empty() => {
                look_at = Instant::now() + LOOK_INTERVAL;
                keeper.read_routes(&mut netlink).await?;
            }
        }
    }
}

/// What is in the kernel.
#[derive(Debug, Default)]
struct Keeper {
    number_on_host: u32,
    routes: BTreeSet<Blackhole>,
    /// The families that other agents of this host have routes of in crier's table.
    others: BTreeSet<Family>,
    rules: BTreeMap<Family, Rules>,
    /// What was worked out last; `None` if the kernel has changed since.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    complete: bool,
    peers: OrdMap<PeerName, PeerSlice>,
    /// The tables of VRFs.
    tables: BTreeMap<InterfaceName, u32>,
}

/// A route that drops packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Blackhole {
    /// crier's own, or that of a VRF.
    table: u32,
    net: IpNet,
}

impl Blackhole {
    fn is_aggregate(&self) -> bool {
        self.net.prefix_len() < self.net.max_prefix_len()
    }

    /// What tells the route of one agent of this host from those of others. `None` is what the kernel gives by itself.
    fn metric(&self, number_on_host: u32) -> Option<u32> {
        match (self.table, number_on_host) {
            (TABLE, 0) => None,
            // Behind that of IPv6 without a number.
            (TABLE, number) => Some(1024 + number),
            // An address that is bound in the VRF, or a route of the operator to the same prefix, goes first.
            (_, number) => Some(UNREACHABLE_METRIC + number),
        }
    }
}

/// The rules of one family.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Rules {
    present: Vec<Rule>,
    /// Both are there, one after the other, and only rules of a greater priority come behind them.
    stand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Main,
    Blackholes,
}

impl Rule {
    /// As they are looked up.
    const BOTH: [Rule; 2] = [Rule::Main, Rule::Blackholes];
}

/// One route or rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Route(Blackhole),
    Rule(Family, Rule),
}

/// One change to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(Part),
    Remove(Part),
}

impl Keeper {
    fn of(number_on_host: u32) -> Keeper {
        Keeper { number_on_host, ..Keeper::default() }
    }

    async fn read_routes(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let mut found = BTreeSet::new();
        self.others.clear();
        for (metric, blackhole) in netlink.own_routes().await?.iter().filter_map(blackhole) {
            if self.is_own(blackhole, metric) {
                found.insert(blackhole);
            } else if blackhole.table == TABLE {
                self.others.insert(Family::of(blackhole.net.addr()));
            }
        }
        if self.routes != found {
            self.routes = found;
            self.last = None;
        }
        Ok(())
    }

    /// A route without a metric has the kernel's own one of its family.
    fn is_own(&self, blackhole: Blackhole, metric: Option<u32>) -> bool {
        let kernels = match Family::of(blackhole.net.addr()) {
            Family::V4 => 0,
            Family::V6 => 1024,
        };
        metric.unwrap_or(kernels) == blackhole.metric(self.number_on_host).unwrap_or(kernels)
    }

    async fn read_rules(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let found = rules(&netlink.rules().await?);
        if self.rules != found {
            self.rules = found;
            self.last = None;
        }
        Ok(())
    }

    fn is_news(&self, slice: &BgpSlice, complete: bool, tables: &BTreeMap<InterfaceName, u32>) -> bool {
        let Some(Last { complete: before, peers, tables: with }) = &self.last else { return true };
        *before != complete
            || with != tables
            || peers.len() != slice.peers.len()
            || peers.iter().zip(&slice.peers).any(|((name, before), (other, now))| {
                name != other
                    || !before.routes.ptr_eq(&now.routes)
                    || before.settings.vrf != now.settings.vrf
                    || before.address.is_ok() != now.address.is_ok()
            })
    }

    /// Routes come before the rules that lead to them, and go after them. Rules that lead to routes of others stay.
    fn steps(&self, wanted: &BTreeSet<Blackhole>, complete: bool) -> Vec<Step> {
        let mut steps: Vec<Step> = wanted.difference(&self.routes).map(|it| Step::Add(Part::Route(*it))).collect();
        for family in Family::BOTH {
            let rules = self.rules.get(&family).cloned().unwrap_or_default();
            let is_wanted = needs_rules(wanted, family);
            if (is_wanted && !rules.stand) || (!is_wanted && complete && !self.others.contains(&family)) {
                steps.extend(rules.present.iter().rev().map(|rule| Step::Remove(Part::Rule(family, *rule))));
            }
            if is_wanted && !rules.stand {
                steps.extend(Rule::BOTH.map(|rule| Step::Add(Part::Rule(family, rule))));
            }
        }
        let spare = self.routes.difference(wanted).filter(|_| complete);
        steps.extend(spare.map(|it| Step::Remove(Part::Route(*it))));
        steps
    }

    /// Does what can be done, and answers with the first refusal.
    async fn work(
        &mut self,
        wanted: &BTreeSet<Blackhole>,
        complete: bool,
        netlink: &mut Netlink,
    ) -> Result<(), NetlinkError> {
        let is_unwanted =
            |(family, rules): (&Family, &Rules)| !needs_rules(wanted, *family) && !rules.present.is_empty();
        if complete && self.rules.iter().any(is_unwanted) {
            // Since the last look another agent of this host may have made routes, or removed its last one.
            self.read_routes(netlink).await?;
        }
        let mut refused = None;
        for step in self.steps(wanted, complete) {
            let done = match step {
                Step::Add(part) => add(part.message(true, self.number_on_host), netlink).await,
                Step::Remove(part) => remove(part.message(false, self.number_on_host), netlink).await,
            };
            match done {
                Ok(()) => self.note(step),
                // A host without the address family forwards no packets of it.
                Err(error) if NO_FAMILY.iter().any(|code| error.is_refusal(*code)) => {}
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Remembers what was done. Of an address alone the log says nothing: there may be ten thousand.
    fn note(&mut self, step: Step) {
        match step {
            Step::Add(Part::Route(route)) => {
                self.routes.insert(route);
                if route.is_aggregate() {
                    info!(aggregate = %route.net, table = route.table, "packets to unused addresses of the aggregate are dropped");
                }
            }
            Step::Remove(Part::Route(route)) => {
                self.routes.remove(&route);
                if route.is_aggregate() {
                    info!(aggregate = %route.net, table = route.table, "blackhole route removed");
                }
            }
            Step::Add(Part::Rule(family, rule)) => {
                let rules = self.rules.entry(family).or_default();
                rules.present.push(rule);
                rules.stand = rules.present == Rule::BOTH;
                if rules.stand {
                    info!(%family, table = TABLE, "packets to announced addresses that nothing takes are dropped");
                }
            }
            Step::Remove(Part::Rule(family, rule)) => {
                let rules = self.rules.entry(family).or_default();
                rules.present.retain(|it| *it != rule);
                rules.stand = false;
            }
        }
    }
}

/// Some of these are looked up by the rules of the family.
fn needs_rules(wanted: &BTreeSet<Blackhole>, family: Family) -> bool {
    wanted.iter().any(|it| it.table == TABLE && Family::of(it.net.addr()) == family)
}

impl Part {
    fn message(self, new: bool, number_on_host: u32) -> RouteNetlinkMessage {
        match (self, new) {
            (Part::Route(it), true) => RouteNetlinkMessage::NewRoute(route(it, number_on_host)),
            (Part::Route(it), false) => RouteNetlinkMessage::DelRoute(route(it, number_on_host)),
            (Part::Rule(family, which), true) => RouteNetlinkMessage::NewRule(rule(family, which)),
            (Part::Rule(family, which), false) => RouteNetlinkMessage::DelRule(rule(family, which)),
        }
    }
}

/// How the kernel refuses an address family that it lacks.
const NO_FAMILY: [i32; 2] = [libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

/// What exists already counts as added.
async fn add(message: RouteNetlinkMessage, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(error) if error.is_refusal(libc::EEXIST) => {
            debug!("a route or rule of a blackhole exists already");
            Ok(())
        }
        done => done,
    }
}

/// What is gone counts as removed. A host without IPv6 answers that it does not know the family, and an agent that may not change
/// routes has added none.
async fn remove(message: RouteNetlinkMessage, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    const GONE: [i32; 3] = [libc::ESRCH, libc::ENOENT, libc::EPERM];
    match netlink.change(message, 0).await {
        Err(error) if GONE.iter().chain(&NO_FAMILY).any(|code| error.is_refusal(*code)) => Ok(()),
        done => done,
    }
}

/// The tables of the VRFs that crier manages. What others manage it changes nothing of.
fn managed(vrfs: &VrfSlice) -> BTreeMap<InterfaceName, u32> {
    vrfs.vrfs.iter().filter(|vrf| vrf.manage).map(|vrf| (vrf.name.clone(), vrf.table)).collect()
}

/// The prefixes that some peer is told of, each in the table where packets to it are looked up.
fn prefixes(peers: &OrdMap<PeerName, PeerSlice>, tables: &BTreeMap<InterfaceName, u32>) -> BTreeSet<Blackhole> {
    // A peer without an address, or one that is shut down, is told nothing.
    let told = peers.values().filter(|peer| peer.address.is_ok()).filter_map(|peer| match &peer.settings.vrf {
        Some(vrf) => Some((*tables.get(vrf)?, peer)),
        None => Some((TABLE, peer)),
    });
    let routes = told.flat_map(|(table, peer)| peer.routes.keys().map(move |net| Blackhole { table, net: *net }));
    // A default route is no aggregate of addresses.
    routes.filter(|it| it.net.prefix_len() > 0).collect()
}

/// The metric, and the prefix with its table, if the message describes a blackhole of crier's number.
fn blackhole(message: &RouteNetlinkMessage) -> Option<(Option<u32>, Blackhole)> {
    // The enum is not ours; nothing else is a route.
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let mut table = u32::from(route.header.table);
    let (mut destination, mut metric) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(told) => table = *told,
            RouteAttribute::Priority(told) => metric = Some(*told),
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = Some(IpAddr::V6(*v6)),
            // The enum is not ours; a blackhole has no next hop.
            _ => {}
        }
    }
    // No VRF has a number of the kernel's own.
    let is_ours = route.header.protocol == PROTOCOL && route.header.kind == RouteType::BlackHole && table > KERNELS;
    let net = IpNet::new(destination?, route.header.destination_prefix_length).ok().filter(|_| is_ours)?;
    Some((metric, Blackhole { table, net }))
}

/// The tables up to this one are not crier's: the kernel's own are 253 to 255.
const KERNELS: u32 = 255;

fn route(blackhole: Blackhole, number_on_host: u32) -> RouteMessage {
    let Blackhole { table, net } = blackhole;
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(net.addr()));
    message.header.destination_prefix_length = net.prefix_len();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes = vec![RouteAttribute::Destination(net.network().into()), RouteAttribute::Table(table)];
    message.attributes.extend(blackhole.metric(number_on_host).map(RouteAttribute::Priority));
    message
}

/// What the kernel has of our rules. `list` has those of a family in the order in which they are looked up.
fn rules(list: &[RouteNetlinkMessage]) -> BTreeMap<Family, Rules> {
    let mut found: BTreeMap<Family, Rules> = BTreeMap::new();
    let mut is_followed = BTreeSet::new();
    for message in list {
        // The enum is not ours; nothing else is a rule.
        let RouteNetlinkMessage::NewRule(message) = message else { continue };
        let Some(family) = family_of(message.header.family) else { continue };
        match (our_rule(message), priority(message)) {
            (Some(rule), _) => {
                let rules = found.entry(family).or_default();
                rules.present.push(rule);
                rules.stand = rules.present == Rule::BOTH && !is_followed.contains(&family);
            }
            // Another program's comes behind ours, or between the two.
            (None, 0..=PRIORITY) => {
                if let Some(rules) = found.get_mut(&family) {
                    rules.stand = false;
                    is_followed.insert(family);
                }
            }
            (None, _) => {}
        }
    }
    found
}

/// A rule without one has the priority 0.
fn priority(rule: &RuleMessage) -> u32 {
    let told = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(told) => Some(*told),
        // The enum is not ours.
        _ => None,
    });
    told.unwrap_or_default()
}

fn our_rule(message: &RuleMessage) -> Option<Rule> {
    let is_of = |rule: &Rule| {
        let ours = self::rule(Family::V4, *rule);
        let has_all = ours.attributes.iter().all(|attribute| message.attributes.contains(attribute));
        has_all && message.header.dst_len == 0 && message.header.flags.contains(ours.header.flags)
    };
    Rule::BOTH.into_iter().find(is_of)
}

fn rule(family: Family, which: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Protocol(PROTOCOL), RuleAttribute::Priority(PRIORITY)];
    match which {
        Rule::Main => {
            let main = RuleAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN));
            message.attributes.extend([main, RuleAttribute::SuppressPrefixLen(0)]);
        }
        Rule::Blackholes => {
            // The input interface of a packet that this host itself sends is the loopback.
            message.header.flags = RuleFlags::Invert;
            message.attributes.extend([RuleAttribute::Table(TABLE), RuleAttribute::Iifname("lo".to_owned())]);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    fn net(text: &str) -> Blackhole {
        Blackhole { table: TABLE, net: text.parse().unwrap() }
    }

    fn nets(texts: &[&str]) -> BTreeSet<Blackhole> {
        texts.iter().map(|text| net(text)).collect()
    }

    fn keeper(routes: &[&str]) -> Keeper {
        let routes = nets(routes);
        let families = routes.iter().map(|it| Family::of(it.net.addr()));
        let rules = families.map(|family| (family, Rules { present: Rule::BOTH.to_vec(), stand: true })).collect();
        Keeper { routes, rules, ..Keeper::default() }
    }

    fn both(family: Family) -> [Part; 2] {
        Rule::BOTH.map(|rule| Part::Rule(family, rule))
    }

    #[test]
    fn what_an_earlier_run_left_goes_once_there_is_a_plan_and_not_before() {
        let keeper = keeper(&["192.0.2.0/24", "198.51.100.7/32"]);
        let wanted = nets(&["2001:db8::1/128"]);
        let new = std::iter::once(Part::Route(net("2001:db8::1/128"))).chain(both(Family::V6));
        let add: Vec<Step> = new.map(Step::Add).collect();
        assert_eq!(keeper.steps(&wanted, false), add);
        let rules = both(Family::V4).into_iter().rev().map(Step::Remove);
        let routes = nets(&["192.0.2.0/24", "198.51.100.7/32"]).into_iter().map(|it| Step::Remove(Part::Route(it)));
        let mut expected: Vec<Step> = add[..1].to_vec();
        expected.extend(rules.chain(add[1..].iter().copied()).chain(routes));
        assert_eq!(keeper.steps(&wanted, true), expected, "rules go before the routes that they lead to");
    }

    /// Input: one address more, or ten thousand. Output: a route for each, and no rule more.
    #[test]
    fn an_address_costs_a_route_and_no_rule() {
        let keeper = keeper(&["203.0.113.1/32"]);
        let new = net("203.0.113.2/32");
        assert_eq!(keeper.steps(&nets(&["203.0.113.1/32", "203.0.113.2/32"]), true), [Step::Add(Part::Route(new))]);
        assert_eq!(keeper.steps(&nets(&["203.0.113.1/32"]), true), []);
    }

    fn listed(rules: &[RuleMessage]) -> Rules {
        let messages: Vec<_> = rules.iter().cloned().map(RouteNetlinkMessage::NewRule).collect();
        super::rules(&messages).remove(&Family::V4).unwrap_or_default()
    }

    #[test]
    fn rules_that_are_not_whole_or_not_the_last_of_their_priority_are_made_anew() {
        let [main, blackholes] = Rule::BOTH.map(|it| rule(Family::V4, it));
        let of_others = |priority: u32| {
            let mut message = RuleMessage::default();
            message.header.family = address_family(Family::V4);
            message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Table(100)];
            message
        };
        let (local, user, kernels) = (of_others(0), of_others(PRIORITY), of_others(PRIORITY + 1));
        let table: [(&str, Vec<&RuleMessage>, bool); 6] = [
            ("as made", vec![&local, &user, &main, &blackholes, &kernels], true),
            ("one is gone", vec![&local, &main, &kernels], false),
            ("the other one is gone", vec![&local, &blackholes, &kernels], false),
            ("in the wrong order", vec![&local, &blackholes, &main, &kernels], false),
            ("another program's comes behind", vec![&local, &main, &blackholes, &user, &kernels], false),
            ("or between", vec![&local, &main, &user, &blackholes, &kernels], false),
        ];
        for (story, list, stand) in table {
            let found = listed(&list.into_iter().cloned().collect::<Vec<_>>());
            assert_eq!(found.stand, stand, "{story}");
            let keeper = Keeper {
                rules: [(Family::V4, found.clone())].into(),
                routes: nets(&["192.0.2.1/32"]),
                ..Keeper::default()
            };
            let removed = found.present.iter().rev().map(|rule| Step::Remove(Part::Rule(Family::V4, *rule)));
            let expected: Vec<Step> = removed.chain(both(Family::V4).map(Step::Add)).collect();
            let steps = keeper.steps(&nets(&["192.0.2.1/32"]), true);
            assert_eq!(steps, if stand { Vec::new() } else { expected }, "{story}");
        }
    }

    /// Input: two agents of one host. Output: neither takes the routes of the other for its own, and the rules stay for
    /// the other's.
    #[test]
    fn agents_of_one_host_leave_each_others_routes() {
        for (text, table) in [("192.0.2.1/32", TABLE), ("2001:db8::1/128", TABLE), ("192.0.2.1/32", 1001)] {
            let blackhole = Blackhole { table, ..net(text) };
            for (number, other) in [(0, 7), (7, 0), (7, 8)] {
                let read = |number| super::blackhole(&RouteNetlinkMessage::NewRoute(route(blackhole, number)));
                let is_own = |(metric, blackhole)| Keeper::of(number).is_own(blackhole, metric);
                assert!(read(number).is_some_and(is_own), "{text} {table} {number}");
                assert!(!read(other).is_some_and(is_own), "{text} {table} {number} {other}");
            }
        }
        let in_kernel = (Some(1024), net("2001:db8::1/128"));
        assert!(Keeper::of(0).is_own(in_kernel.1, in_kernel.0), "the kernel tells the metric that it gave");
        let keeper = Keeper { others: [Family::V4].into(), ..keeper(&["192.0.2.1/32"]) };
        assert_eq!(keeper.steps(&BTreeSet::new(), true), [Step::Remove(Part::Route(net("192.0.2.1/32")))]);
    }

    #[test]
    fn a_rule_is_known_again_by_its_number_priority_and_table() {
        for which in Rule::BOTH {
            assert_eq!(our_rule(&rule(Family::V6, which)), Some(which));
            let mut foreign = rule(Family::V4, which);
            foreign.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
            assert_eq!(our_rule(&foreign), None);
        }
    }

    /// Input: peers outside of VRFs, in one that crier manages, in one that another program does. Output: what each is told of is dropped
    /// where packets to it are looked up, and the rules for the main table are made for nothing in a VRF.
    #[test]
    fn what_a_peer_in_a_managed_vrf_is_told_of_is_dropped_in_the_table_of_the_vrf() {
        let text = "[bgp]\nasn = 64513\n[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\nmanage = true\n\
                    [[vrf]]\nname = \"blue\"\ntable = 1002\ninterfaces = [\"eth2\"]\n\
                    [[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";
        let config = crate::config::tests::good(text);
        let slice = VrfSlice { planned: true, vrfs: Arc::new(config.vrfs.clone()), ..VrfSlice::default() };
        let told = ["203.0.113.1/32", "0.0.0.0/0"].map(|net| (net.parse::<IpNet>().unwrap(), Arc::default()));
        let routes: OrdMap<IpNet, Arc<crate::route::RouteAttributes>> = told.into_iter().collect();
        let peer = |name: &str, vrf: Option<&str>| {
            let settings = crate::config::Peer { vrf: vrf.map(InterfaceName::from), ..config.bgp.peers[0].clone() };
            let address = Ok(crate::address::ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None });
            let slice =
                PeerSlice { settings: Arc::new(settings), address, routes: routes.clone(), orders: Default::default() };
            (PeerName::from(name), slice)
        };
        let all = [peer("tor", None), peer("in-red", Some("red")), peer("in-blue", Some("blue"))];
        let wanted = prefixes(&all.into_iter().collect(), &managed(&slice));
        let in_red = Blackhole { table: 1001, ..net("203.0.113.1/32") };
        assert_eq!(wanted, [in_red, net("203.0.113.1/32")].into());
        let read = |number| blackhole(&RouteNetlinkMessage::NewRoute(route(in_red, number)));
        assert_eq!(read(0), Some((Some(UNREACHABLE_METRIC), in_red)));
        let steps = Keeper::default().steps(&[in_red].into(), true);
        assert_eq!(steps, [Step::Add(Part::Route(in_red))]);
    }

    #[test]
    fn only_blackholes_of_criers_number_in_criers_table_are_its_own() {
        let net = net("192.0.2.0/24");
        let change = |change: fn(&mut RouteMessage)| {
            let mut message = route(net, 0);
            change(&mut message);
            blackhole(&RouteNetlinkMessage::NewRoute(message)).map(|(_, blackhole)| blackhole)
        };
        assert_eq!(change(|_| {}), Some(net));
        assert_eq!(change(|route| route.header.protocol = RouteProtocol::Static), None);
        assert_eq!(change(|route| route.header.kind = RouteType::Unicast), None);
        assert_eq!(change(|route| drop(route.attributes.pop())), None, "of the main table");
    }
}
