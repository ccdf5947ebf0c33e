//! Drops what is forwarded to an announced aggregate and meant for none of its addresses, which would else go back to the router
//! that sent it here, and so on until its TTL ends. Floor 2. An actuator: it follows the BGP slice, and touches nothing but
//! routes and rules that carry crier's number.
//!
//! Each aggregate is a blackhole route in a table of crier's own. Two rules ask that table after every route of the main
//! table but the default routes, so that whatever leads more precisely to an address still does. They are for packets that come in:
//! a program of this host that connects to a Service's address is sent on its way by the host's default route before kube-proxy
//! translates the address, as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::netlink::{Netlink, NetlinkError};
use crate::address::Family;
use crate::names::PeerName;
use crate::plan::slice::{BgpSlice, PeerSlice};

/// The routing table of the blackholes.
pub const TABLE: u32 = 6767;

/// Who put a route or rule there, in the kernel's own words: a number that neither the kernel nor another program of note uses.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(67);

/// The rules come right before that of the main table, whose priority is 32766: first all of that table but its default routes,
/// then the blackholes.
const MAIN_PRIORITY: u32 = 32764;
const BLACKHOLES_PRIORITY: u32 = 32765;

/// How long to wait before something that the kernel refused is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps a blackhole for each aggregate that some peer is told of, until `stop` ends. Then, and at the start, what is not wanted
/// is taken away, also what an earlier run has left.
///
/// A slice that is not complete takes nothing away: there is no plan yet.
pub async fn run(mut slices: watch::Receiver<BgpSlice>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut complaint = None;
    loop {
        tokio::select! {
            () = &mut stop => break,
            error = follow(&mut slices) => {
                let text = error.to_string();
                if complaint.as_ref() != Some(&text) {
                    warn!(%error, "aggregates have no blackhole routes; trying again");
                }
                complaint = Some(text);
            }
        }
        tokio::select! {
            () = &mut stop => break,
            () = sleep(RETRY_INTERVAL) => {}
        }
    }
    if let Err(error) = take_away().await {
        warn!(%error, "blackhole routes could not be taken away");
    }
}

async fn take_away() -> Result<(), NetlinkError> {
    let (mut netlink, mut keeper) = Keeper::open().await?;
    keeper.work(&BTreeSet::new(), true, &mut netlink).await
}

/// Works until the kernel refuses something; that is what it answers.
async fn follow(slices: &mut watch::Receiver<BgpSlice>) -> NetlinkError {
    match follow_slices(slices).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn follow_slices(slices: &mut watch::Receiver<BgpSlice>) -> Result<std::convert::Infallible, NetlinkError> {
    let (mut netlink, mut keeper) = Keeper::open().await?;
    loop {
        let slice = slices.borrow_and_update().clone();
        if keeper.is_news(&slice) {
            keeper.work(&aggregates(&slice.peers), slice.complete, &mut netlink).await?;
            keeper.last = Some((slice.complete, slice.peers));
        }
        if slices.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What is in the kernel.
#[derive(Debug, Default)]
struct Keeper {
    present: BTreeSet<IpNet>,
    /// Whether the rules of a family are there; absent where that is not known.
    ruled: BTreeMap<Family, bool>,
    /// The slice that was worked out last.
    last: Option<(bool, OrdMap<PeerName, PeerSlice>)>,
}

/// One change to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add(IpNet),
    Remove(IpNet),
}

impl Keeper {
    /// A connection to the kernel, and what the kernel has now.
    async fn open() -> Result<(Netlink, Keeper), NetlinkError> {
        let mut netlink = Netlink::open_for(&[])?;
        let present = netlink.routes().await?.iter().filter_map(ours).collect();
        Ok((netlink, Keeper { present, ..Keeper::default() }))
    }

    fn is_news(&self, slice: &BgpSlice) -> bool {
        let Some((complete, peers)) = &self.last else { return true };
        *complete != slice.complete
            || peers.len() != slice.peers.len()
            || peers.iter().zip(&slice.peers).any(|((name, before), (other, now))| {
                name != other || !before.routes.ptr_eq(&now.routes) || before.settings.vrf != now.settings.vrf
            })
    }

    fn steps(&self, wanted: &BTreeSet<IpNet>, complete: bool) -> Vec<Step> {
        let add = wanted.difference(&self.present).map(|net| Step::Add(*net));
        let remove = self.present.difference(wanted).filter(|_| complete).map(|net| Step::Remove(*net));
        add.chain(remove).collect()
    }

    async fn work(
        &mut self,
        wanted: &BTreeSet<IpNet>,
        complete: bool,
        netlink: &mut Netlink,
    ) -> Result<(), NetlinkError> {
        for step in self.steps(wanted, complete) {
            match step {
                Step::Add(net) => {
                    add(RouteNetlinkMessage::NewRoute(route(net)), netlink).await?;
                    self.present.insert(net);
                    info!(aggregate = %net, table = TABLE, "blackhole route added");
                }
                Step::Remove(net) => {
                    remove(RouteNetlinkMessage::DelRoute(route(net)), netlink).await?;
                    self.present.remove(&net);
                    info!(aggregate = %net, table = TABLE, "blackhole route removed");
                }
            }
        }
        for family in Family::BOTH {
            let needed = self.present.iter().any(|net| Family::of(net.addr()) == family);
            if needed && self.ruled.insert(family, true) != Some(true) {
                for rule in rules(family) {
                    add(RouteNetlinkMessage::NewRule(rule), netlink).await?;
                }
            } else if !needed && complete && self.ruled.insert(family, false) != Some(false) {
                for rule in rules(family) {
                    remove(RouteNetlinkMessage::DelRule(rule), netlink).await?;
                }
            }
        }
        Ok(())
    }
}

/// What is there already is as good as added.
async fn add(message: RouteNetlinkMessage, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(error) if error.is_refusal(libc::EEXIST) => {
            debug!("it is there already");
            Ok(())
        }
        done => done,
    }
}

/// What is gone is as good as removed. A host without IPv6 says that it does not know the family, and an agent that may not change
/// routes has put nothing there.
async fn remove(message: RouteNetlinkMessage, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    const GONE: [i32; 5] = [libc::ESRCH, libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EPERM];
    match netlink.change(message, 0).await {
        Err(error) if GONE.iter().any(|code| error.is_refusal(*code)) => Ok(()),
        done => done,
    }
}

/// The aggregates that some peer outside VRFs is told of. Each VRF has a table of its own, where none of this applies.
fn aggregates(peers: &OrdMap<PeerName, PeerSlice>) -> BTreeSet<IpNet> {
    let outside = peers.values().filter(|peer| peer.settings.vrf.is_none());
    let prefixes = outside.flat_map(|peer| peer.routes.keys());
    // A default route is no aggregate of addresses.
    prefixes.filter(|net| (1..net.max_prefix_len()).contains(&net.prefix_len())).copied().collect()
}

/// The aggregate, where the message tells of a blackhole of ours.
fn ours(message: &RouteNetlinkMessage) -> Option<IpNet> {
    // The enum is not ours; nothing else is a route.
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let mut table = u32::from(route.header.table);
    let mut destination = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(told) => table = *told,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = Some(IpAddr::V6(*v6)),
            // The enum is not ours; a blackhole leads nowhere.
            _ => {}
        }
    }
    let is_ours = route.header.protocol == PROTOCOL && route.header.kind == RouteType::BlackHole && table == TABLE;
    IpNet::new(destination?, route.header.destination_prefix_length).ok().filter(|_| is_ours)
}

fn route(net: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(Family::of(net.addr()));
    message.header.destination_prefix_length = net.prefix_len();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes = vec![RouteAttribute::Destination(net.network().into()), RouteAttribute::Table(TABLE)];
    message
}

/// For packets that come in.
fn rules(of: Family) -> [RuleMessage; 2] {
    let rule = |priority, table| {
        let mut message = RuleMessage::default();
        message.header.family = family(of);
        message.header.action = RuleAction::ToTable;
        // Not from the loopback: what this host sends itself "comes in" there.
        message.header.flags = RuleFlags::Invert;
        message.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::Iifname("lo".to_owned()),
            RuleAttribute::Protocol(PROTOCOL),
            RuleAttribute::Table(table),
        ];
        message
    };
    let mut main = rule(MAIN_PRIORITY, u32::from(RouteHeader::RT_TABLE_MAIN));
    main.attributes.push(RuleAttribute::SuppressPrefixLen(0));
    [main, rule(BLACKHOLES_PRIORITY, TABLE)]
}

fn family(of: Family) -> AddressFamily {
    match of {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_an_earlier_run_left_goes_once_there_is_a_plan_and_not_before() {
        let keeper = Keeper { present: nets(&["192.0.2.0/24", "198.51.100.0/24"]), ..Keeper::default() };
        let wanted = nets(&["192.0.2.0/24", "2001:db8::/64"]);
        let add = Step::Add("2001:db8::/64".parse().unwrap());
        assert_eq!(keeper.steps(&wanted, false), [add]);
        assert_eq!(keeper.steps(&wanted, true), [add, Step::Remove("198.51.100.0/24".parse().unwrap())]);
    }

    #[test]
    fn only_blackholes_of_criers_number_in_criers_table_are_its_own() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let change = |change: fn(&mut RouteMessage)| {
            let mut message = route(net);
            change(&mut message);
            ours(&RouteNetlinkMessage::NewRoute(message))
        };
        assert_eq!(change(|_| {}), Some(net));
        assert_eq!(change(|route| route.header.protocol = RouteProtocol::Static), None);
        assert_eq!(change(|route| route.header.kind = RouteType::Unicast), None);
        assert_eq!(change(|route| drop(route.attributes.pop())), None, "of the main table");
    }
}
