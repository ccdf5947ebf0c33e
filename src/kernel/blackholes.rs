//! Drops forwarded packets to unused addresses of an announced aggregate. Without this, such a packet goes back to the router that
//! sent it here, and so on until its TTL ends. Floor 2. An actuator: it follows the BGP slice, and touches only routes and rules
//! that carry crier's number.
//!
//! Each aggregate has a blackhole route in a table of crier's own, and three rules for packets to the aggregate. The first exempts
//! what this host itself sends: a packet of a local program to a Service's address follows the host's default route until
//! kube-proxy translates the address. The second looks up the main table without its default routes, so a route to a part of the
//! aggregate keeps its effect. The third looks up crier's table.
//!
//! What another program removes is put back: rules at once, routes within [`LOOK_INTERVAL`].

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::netlink::{Complaints, Event, Netlink, NetlinkError, PROTOCOL, address_family};
use crate::address::Family;
use crate::config::BLACKHOLES;
use crate::names::PeerName;
use crate::plan::slice::{BgpSlice, PeerSlice};

/// The routing table of the blackholes.
pub const TABLE: u32 = BLACKHOLES;

/// The rules come right before the kernel's rule for the main table. A rule with a smaller priority is looked up before them.
const HOST_PRIORITY: u32 = 32763;
const MAIN_PRIORITY: u32 = 32764;
const BLACKHOLES_PRIORITY: u32 = 32765;

/// The kernel's own rule for the main table.
const KERNELS_MAIN_PRIORITY: u32 = 32766;

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often the kernel's routes are listed again while there are aggregates. A list holds every route of the host, so not often.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What becomes of the blackhole routes when crier stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A restart: routers send packets here still, and the next run finds the routes.
    Keep,
    /// The node leaves.
    Remove,
}

/// Keeps a blackhole for each aggregate that some peer is told of, until `stop` says how to end. At the start it
/// also removes what an earlier run left and nobody wants any more.
///
/// A slice that is not complete removes nothing, because there is no plan yet.
pub async fn run(mut slices: watch::Receiver<BgpSlice>, stop: impl Future<Output = Stop>) {
    tokio::pin!(stop);
    let mut complaints = Complaints::default();
    let stop = loop {
        tokio::select! {
            stop = &mut stop => break stop,
            Err(error) = follow(&mut slices) => {
                if complaints.is_new(&error) {
                    warn!(%error, "blackhole routes of aggregates cannot be set, so packets to unused addresses may loop; trying again");
                }
            }
        }
        tokio::select! {
            stop = &mut stop => break stop,
            () = sleep(RETRY_INTERVAL) => {}
        }
    };
    if stop == Stop::Remove
        && let Err(error) = take_away().await
    {
        warn!(%error, "blackhole routes could not be removed");
    }
}

async fn take_away() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open_for(&[])?;
    let mut keeper = Keeper::default();
    keeper.read_routes(&mut netlink).await?;
    keeper.read_rules(&mut netlink).await?;
    keeper.work(&BTreeSet::new(), true, &mut netlink).await
}

/// Works until the kernel refuses something, and answers with the error.
async fn follow(slices: &mut watch::Receiver<BgpSlice>) -> Result<std::convert::Infallible, NetlinkError> {
    let mut netlink = Netlink::open_for(&[MulticastGroup::Ipv4Rule, MulticastGroup::Ipv6Rule])?;
    let mut keeper = Keeper::default();
    keeper.read_routes(&mut netlink).await?;
    keeper.read_rules(&mut netlink).await?;
    let mut look_at = Instant::now() + LOOK_INTERVAL;
    loop {
        let slice = slices.borrow_and_update().clone();
        if keeper.is_news(&slice) {
            keeper.work(&aggregates(&slice.peers), slice.complete, &mut netlink).await?;
            keeper.last = Some((slice.complete, slice.peers));
        }
        tokio::select! {
            changed = slices.changed() => if changed.is_err() {
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
            () = sleep_until(look_at), if !keeper.present.is_empty() => {
                look_at = Instant::now() + LOOK_INTERVAL;
                keeper.read_routes(&mut netlink).await?;
            }
        }
    }
}

/// What is in the kernel.
#[derive(Debug, Default)]
struct Keeper {
    /// The parts of each aggregate that are there. Never an empty set.
    present: BTreeMap<IpNet, BTreeSet<Part>>,
    /// The slice that was worked out last; `None` if the kernel has changed since.
    last: Option<(bool, OrdMap<PeerName, PeerSlice>)>,
}

/// What an aggregate needs, in the order in which it is added. The blackhole takes effect with the last part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Route,
    HostRule,
    MainRule,
    BlackholesRule,
}

impl Part {
    const ALL: [Part; 4] = [Part::Route, Part::HostRule, Part::MainRule, Part::BlackholesRule];
}

/// One change to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(IpNet, Part),
    Remove(IpNet, Part),
}

impl Keeper {
    async fn read_routes(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let found =
            netlink.routes().await?.iter().filter_map(|message| Some((our_route(message)?, Part::Route))).collect();
        self.replace(&[Part::Route], found);
        Ok(())
    }

    async fn read_rules(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let found = netlink.rules().await?.iter().filter_map(our_rule).collect();
        self.replace(&[Part::HostRule, Part::MainRule, Part::BlackholesRule], found);
        Ok(())
    }

    /// Replaces what is known of `parts`.
    fn replace(&mut self, parts: &[Part], found: Vec<(IpNet, Part)>) {
        let before = self.present.clone();
        self.present.values_mut().for_each(|present| present.retain(|part| !parts.contains(part)));
        for (net, part) in found {
            self.present.entry(net).or_default().insert(part);
        }
        self.present.retain(|_, present| !present.is_empty());
        if self.present != before {
            self.last = None;
        }
    }

    fn is_news(&self, slice: &BgpSlice) -> bool {
        let Some((complete, peers)) = &self.last else { return true };
        *complete != slice.complete
            || peers.len() != slice.peers.len()
            || peers.iter().zip(&slice.peers).any(|((name, before), (other, now))| {
                name != other
                    || !before.routes.ptr_eq(&now.routes)
                    || before.settings.vrf != now.settings.vrf
                    || before.address.is_ok() != now.address.is_ok()
            })
    }

    fn steps(&self, wanted: &BTreeSet<IpNet>, complete: bool) -> Vec<Step> {
        let has = |net: &IpNet, part: Part| self.present.get(net).is_some_and(|parts| parts.contains(&part));
        let missing = wanted.iter().flat_map(|net| Part::ALL.map(|part| (*net, part)));
        let add = missing.filter(|(net, part)| !has(net, *part)).map(|(net, part)| Step::Add(net, part));
        let spare = self.present.iter().filter(|(net, _)| complete && !wanted.contains(net));
        let remove = spare.flat_map(|(net, parts)| parts.iter().rev().map(|part| Step::Remove(*net, *part)));
        add.chain(remove).collect()
    }

    /// Does what can be done, and answers with the first refusal.
    async fn work(
        &mut self,
        wanted: &BTreeSet<IpNet>,
        complete: bool,
        netlink: &mut Netlink,
    ) -> Result<(), NetlinkError> {
        let mut refused: BTreeMap<IpNet, NetlinkError> = BTreeMap::new();
        for step in self.steps(wanted, complete) {
            match step {
                // The parts after a missing one must not take effect without it.
                Step::Add(net, _) if refused.contains_key(&net) => {}
                Step::Add(net, part) => match add(part.message(net, true), netlink).await {
                    Ok(()) => {
                        self.present.entry(net).or_default().insert(part);
                        if part == Part::BlackholesRule {
                            info!(aggregate = %net, table = TABLE, "packets to unused addresses of the aggregate are dropped");
                        }
                    }
                    Err(error) => drop(refused.insert(net, error)),
                },
                Step::Remove(net, part) => match remove(part.message(net, false), netlink).await {
                    Ok(()) => {
                        if part == Part::Route {
                            info!(aggregate = %net, table = TABLE, "blackhole route removed");
                        }
                        if let Some(parts) = self.present.get_mut(&net) {
                            parts.remove(&part);
                        }
                    }
                    Err(error) => drop(refused.insert(net, error)),
                },
            }
        }
        self.present.retain(|_, parts| !parts.is_empty());
        // A host without the address family forwards no packets of it.
        refused.retain(|_, error| !NO_FAMILY.iter().any(|code| error.is_refusal(*code)));
        refused.into_values().next().map_or(Ok(()), Err)
    }
}

impl Part {
    fn message(self, net: IpNet, new: bool) -> RouteNetlinkMessage {
        match (self, new) {
            (Part::Route, true) => RouteNetlinkMessage::NewRoute(route(net)),
            (Part::Route, false) => RouteNetlinkMessage::DelRoute(route(net)),
            (Part::HostRule | Part::MainRule | Part::BlackholesRule, true) => {
                RouteNetlinkMessage::NewRule(rule(net, self))
            }
            (Part::HostRule | Part::MainRule | Part::BlackholesRule, false) => {
                RouteNetlinkMessage::DelRule(rule(net, self))
            }
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

/// The aggregates that some peer outside VRFs is told of. Each VRF has a table of its own, where none of this applies.
fn aggregates(peers: &OrdMap<PeerName, PeerSlice>) -> BTreeSet<IpNet> {
    // A peer without an address, or one that is shut down, is told nothing.
    let outside = peers.values().filter(|peer| peer.settings.vrf.is_none() && peer.address.is_ok());
    let prefixes = outside.flat_map(|peer| peer.routes.keys());
    // A default route is no aggregate of addresses.
    prefixes.filter(|net| (1..net.max_prefix_len()).contains(&net.prefix_len())).copied().collect()
}

/// The aggregate, if the message describes a blackhole of ours.
fn our_route(message: &RouteNetlinkMessage) -> Option<IpNet> {
    // The enum is not ours; nothing else is a route.
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let mut table = u32::from(route.header.table);
    let mut destination = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(told) => table = *told,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = Some(IpAddr::V6(*v6)),
            // The enum is not ours; a blackhole has no next hop.
            _ => {}
        }
    }
    let is_ours = route.header.protocol == PROTOCOL && route.header.kind == RouteType::BlackHole && table == TABLE;
    IpNet::new(destination?, route.header.destination_prefix_length).ok().filter(|_| is_ours)
}

fn route(net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(net.addr()));
    message.header.destination_prefix_length = net.prefix_len();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes = vec![RouteAttribute::Destination(net.network().into()), RouteAttribute::Table(TABLE)];
    message
}

/// The aggregate and the part, if the message describes a rule of ours.
fn our_rule(message: &RouteNetlinkMessage) -> Option<(IpNet, Part)> {
    // The enum is not ours; nothing else is a rule.
    let RouteNetlinkMessage::NewRule(rule) = message else { return None };
    let (mut protocol, mut priority, mut destination) = (None, None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Protocol(told) => protocol = Some(*told),
            RuleAttribute::Priority(told) => priority = Some(*told),
            RuleAttribute::Destination(told) => destination = Some(*told),
            // The enum is not ours; nothing else tells our rules apart.
            _ => {}
        }
    }
    let part = match priority? {
        HOST_PRIORITY => Part::HostRule,
        MAIN_PRIORITY => Part::MainRule,
        BLACKHOLES_PRIORITY => Part::BlackholesRule,
        _ => return None,
    };
    let net = IpNet::new(destination?, rule.header.dst_len).ok()?;
    (protocol == Some(PROTOCOL)).then_some((net, part))
}

/// The rule of an aggregate for one of the parts that are rules.
fn rule(net: IpNet, part: Part) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(Family::of(net.addr()));
    message.header.dst_len = net.prefix_len();
    message.attributes = vec![RuleAttribute::Protocol(PROTOCOL), RuleAttribute::Destination(net.network())];
    let (action, attributes) = match part {
        // The input interface of a packet that this host itself sends is the loopback.
        Part::HostRule => {
            let skips = RuleAttribute::Goto(KERNELS_MAIN_PRIORITY);
            let sent_here = RuleAttribute::Iifname("lo".to_owned());
            (RuleAction::Goto, vec![RuleAttribute::Priority(HOST_PRIORITY), sent_here, skips])
        }
        Part::MainRule => {
            let main = RuleAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN));
            let without_default = RuleAttribute::SuppressPrefixLen(0);
            (RuleAction::ToTable, vec![RuleAttribute::Priority(MAIN_PRIORITY), main, without_default])
        }
        Part::Route | Part::BlackholesRule => {
            let blackholes = RuleAttribute::Table(TABLE);
            (RuleAction::ToTable, vec![RuleAttribute::Priority(BLACKHOLES_PRIORITY), blackholes])
        }
    };
    message.header.action = action;
    message.attributes.extend(attributes);
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteProtocol;

    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn present(texts: &[&str]) -> BTreeMap<IpNet, BTreeSet<Part>> {
        nets(texts).into_iter().map(|net| (net, Part::ALL.into())).collect()
    }

    #[test]
    fn what_an_earlier_run_left_goes_once_there_is_a_plan_and_not_before() {
        let keeper = Keeper { present: present(&["192.0.2.0/24", "198.51.100.0/24"]), ..Keeper::default() };
        let wanted = nets(&["192.0.2.0/24", "2001:db8::/64"]);
        let add = Part::ALL.map(|part| Step::Add("2001:db8::/64".parse().unwrap(), part)).to_vec();
        assert_eq!(keeper.steps(&wanted, false), add);
        let remove = Part::ALL.iter().rev().map(|part| Step::Remove("198.51.100.0/24".parse().unwrap(), *part));
        assert_eq!(keeper.steps(&wanted, true), add.into_iter().chain(remove).collect::<Vec<_>>());
    }

    #[test]
    fn a_part_that_another_program_took_away_is_put_back_and_nothing_else() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let mut keeper = Keeper { present: present(&["192.0.2.0/24"]), ..Keeper::default() };
        keeper.last = Some((true, OrdMap::new()));
        let rules = |parts: &[Part]| parts.iter().map(|part| (net, *part)).collect::<Vec<_>>();
        let all = rules(&[Part::HostRule, Part::MainRule, Part::BlackholesRule]);
        keeper.replace(&[Part::HostRule, Part::MainRule, Part::BlackholesRule], all);
        assert!(keeper.last.is_some(), "nothing is missing: no news");
        keeper.replace(
            &[Part::HostRule, Part::MainRule, Part::BlackholesRule],
            rules(&[Part::HostRule, Part::BlackholesRule]),
        );
        assert!(keeper.last.is_none());
        assert_eq!(keeper.steps(&nets(&["192.0.2.0/24"]), true), [Step::Add(net, Part::MainRule)]);
    }

    #[test]
    fn a_rule_is_known_again_by_its_number_priority_and_aggregate() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        for part in [Part::HostRule, Part::MainRule, Part::BlackholesRule] {
            assert_eq!(our_rule(&part.message(net, true)), Some((net, part)));
            let mut foreign = rule(net, part);
            foreign.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
            assert_eq!(our_rule(&RouteNetlinkMessage::NewRule(foreign)), None);
        }
    }

    #[test]
    fn only_blackholes_of_criers_number_in_criers_table_are_its_own() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let change = |change: fn(&mut RouteMessage)| {
            let mut message = route(net);
            change(&mut message);
            our_route(&RouteNetlinkMessage::NewRoute(message))
        };
        assert_eq!(change(|_| {}), Some(net));
        assert_eq!(change(|route| route.header.protocol = RouteProtocol::Static), None);
        assert_eq!(change(|route| route.header.kind = RouteType::Unicast), None);
        assert_eq!(change(|route| drop(route.attributes.pop())), None, "of the main table");
    }
}
