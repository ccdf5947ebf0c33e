//! Binds addresses to a link of this host, so that a local server can accept packets to them, and removes them again.
//! Floor 2. An actuator: it follows its slice of the Plan. It never touches an address that this agent did not put there: an agent's
//! addresses carry its mark (`is_ours`), so a restart finds them again without a file.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::netlink::{self, Event, Netlink, NetlinkError};
use crate::address::{Family, host_prefix};
use crate::clock;
use crate::names::InterfaceName;
use crate::plan::slice::BindSlice;
use crate::world::{Area, Fact, HostProblem};

/// What becomes of the bound addresses when crier stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A restart: connections continue, and the next run finds the addresses.
    Keep,
    /// A restart: the addresses in these networks stay, which routers or neighbours go on sending here. All others that crier ever bound
    /// are removed.
    KeepIn(BTreeSet<IpNet>),
    /// The node leaves: every address that crier ever bound is removed.
    Remove,
}

/// Keeps the addresses of the newest slice bound to their links until `stop` says how to end.
///
/// An address that vanishes is bound again, and an address whose link appears later is bound then. An address that the host
/// had already is left as it is and serves as well.
///
/// The slice that `slices` holds at the start counts only if it names an address. An empty slice is the channel's first value,
/// before there is a Plan, and must not remove what the last run bound. The first slice that is sent always counts.
///
/// `facts` gets all that is wanted and not bound, whenever that changes. The number tells the agents of one host apart
/// ([`Config::number_on_host`](crate::config::Config::number_on_host)): another's address is the host's.
pub async fn run(
    mut slices: watch::Receiver<BindSlice>,
    number_on_host: u32,
    facts: mpsc::Sender<Fact>,
    stop: impl Future<Output = Stop>,
) {
    tokio::pin!(stop);
    let new_binder = || Binder::new(number_on_host);
    let stop = tokio::select! {
        stop = &mut stop => stop,
        never = first_slice(&mut slices) => match never {
            Ok(()) => follow_until(new_binder(), &mut slices, &facts, &mut stop).await,
            Err(_nobody_plans) => stop.await,
        },
    };
    let removed = match stop {
        Stop::Keep => Ok(()),
        Stop::KeepIn(networks) => remove_all_but(new_binder(), &networks).await,
        Stop::Remove => remove_all_but(new_binder(), &BTreeSet::new()).await,
    };
    if let Err(error) = removed {
        warn!(%error, "bound addresses could not be removed and stay on their links");
    }
}

async fn first_slice(slices: &mut watch::Receiver<BindSlice>) -> Result<(), watch::error::RecvError> {
    if slices.borrow().addresses.is_empty() { slices.changed().await } else { Ok(()) }
}

async fn follow_until(
    mut binder: Binder,
    slices: &mut watch::Receiver<BindSlice>,
    facts: &mpsc::Sender<Fact>,
    stop: &mut (impl Future<Output = Stop> + Unpin),
) -> Stop {
    loop {
        let error = tokio::select! {
            stop = &mut *stop => return stop,
            error = binder.follow(slices, facts) => error,
        };
        warn!(%error, "addresses cannot be bound; trying again");
        let wanted: Vec<IpAddr> = binder.wanted.keys().copied().collect();
        let problem = (!wanted.is_empty()).then(|| unbound("any link", &error.to_string(), &wanted));
        binder.tell(problem.into_iter().collect(), facts).await;
        tokio::select! {
            stop = &mut *stop => return stop,
            () = sleep(RETRY_INTERVAL) => {}
        }
    }
}

async fn remove_all_but(mut binder: Binder, networks: &BTreeSet<IpNet>) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    binder.list(&mut netlink).await?;
    binder.touched.retain(|address| !networks.iter().any(|network| network.contains(address)));
    binder.work(&mut netlink).await
}

/// Takes away all addresses that the agent of this number put on links, and answers with them. For a host whose agent is gone.
pub async fn take_away(number_on_host: u32) -> Result<Vec<IpAddr>, String> {
    let removed = async {
        let mut binder = Binder::new(number_on_host);
        let mut netlink = Netlink::open()?;
        binder.list(&mut netlink).await?;
        let ours = |links: &BTreeMap<u32, Whose>| links.values().any(|whose| *whose == Whose::Ours);
        let all = binder.present.iter().filter(|(_, links)| ours(links)).map(|(address, _)| *address).collect();
        binder.work(&mut netlink).await?;
        Ok(all)
    };
    removed.await.map_err(|error: NetlinkError| error.to_string())
}

/// Whether the agent of this number put the address there, in this run or an earlier one.
fn is_ours(message: &AddressMessage, number_on_host: u32) -> bool {
    marked_by(message) == Some(number_on_host)
}

/// The number on the host of the agent that put the address there, in this run or an earlier one; `None` where no agent did.
///
/// The metric of the prefix route carries the number; a host prefix has no such route. Since 5.18 the kernel also keeps a protocol with
/// every address, which says what program put the address there.
pub(super) fn marked_by(message: &AddressMessage) -> Option<u32> {
    let mut protocol = None;
    let mut metric = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Protocol(told) => protocol = Some(*told),
            AddressAttribute::RoutePriority(told) => metric = Some(*told),
            // The enum is not ours; the mark is in no other attribute.
            _ => {}
        }
    }
    if protocol.is_some_and(|protocol| protocol != MARK_PROTOCOL) {
        return None;
    }
    metric?.checked_sub(MARK_METRIC).filter(|number| *number < MOST_ON_HOST)
}

/// The kernel's description of an address on a link that the agent of this number puts there.
pub(super) fn message(index: u32, loopback: bool, address: IpAddr, number_on_host: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = host_prefix(address).prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        AddressAttribute::RoutePriority(MARK_METRIC + number_on_host),
        AddressAttribute::Protocol(MARK_PROTOCOL),
    ];
    match Family::of(address) {
        Family::V4 => {
            message.header.family = AddressFamily::Inet;
            // This host must never choose a Service's address as the source of its own packets to beyond the link.
            message.header.scope = if loopback { AddressScope::Host } else { AddressScope::Link };
        }
        Family::V6 => {
            // An IPv6 address carries its own scope. Whether the address is free is not for this link to find out, and its
            // only route is that to this host, which the kernel makes.
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
            // Deprecated from the start and for good (RFC 6724 §5, rule 3): any other address is preferred as a source.
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, FOR_EVER);
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
    }
    message
}

/// What is wanted, what the kernel has, and which addresses may differ.
#[derive(Debug, Default)]
struct Binder {
    number_on_host: u32,
    wanted: OrdMap<IpAddr, InterfaceName>,
    links: BTreeMap<u32, BindLink>,
    present: BTreeMap<IpAddr, BTreeMap<u32, Whose>>,
    touched: BTreeSet<IpAddr>,
    /// What failed last for each address; kept so that it is logged once.
    complaints: BTreeMap<IpAddr, String>,
    /// When each wanted address was bound last, and how often since it last stayed for [`CALM`].
    bound: BTreeMap<IpAddr, (Instant, u32)>,
    /// The problems that were told last.
    told: Vec<HostProblem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BindLink {
    name: InterfaceName,
    loopback: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    TheHosts,
}

/// One change to make.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Add { address: IpAddr, index: u32, loopback: bool },
    Remove { address: IpAddr, index: u32 },
}

impl Binder {
    fn new(number_on_host: u32) -> Binder {
        Binder { number_on_host, ..Binder::default() }
    }

    /// Works until the connection to the kernel fails, and answers with the error.
    async fn follow(&mut self, slices: &mut watch::Receiver<BindSlice>, facts: &mpsc::Sender<Fact>) -> NetlinkError {
        match self.follow_slices(slices, facts).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow_slices(
        &mut self,
        slices: &mut watch::Receiver<BindSlice>,
        facts: &mpsc::Sender<Fact>,
    ) -> Result<std::convert::Infallible, NetlinkError> {
        let mut netlink = Netlink::open()?;
        self.list(&mut netlink).await?;
        loop {
            self.handle_wanted(slices.borrow_and_update().addresses.clone());
            self.work(&mut netlink).await?;
            self.tell(self.problems(), facts).await;
            let overrun = tokio::select! {
                Ok(()) = slices.changed() => false,
                event = netlink.event() => self.take_in(event, &mut netlink)?,
                () = sleep(RETRY_INTERVAL), if !self.complaints.is_empty() => {
                    self.touched.extend(self.complaints.keys());
                    false
                }
            };
            if overrun {
                self.list(&mut netlink).await?;
            }
        }
    }

    /// What is wanted and not there, by link and cause.
    fn problems(&self) -> Vec<HostProblem> {
        let mut lacking: BTreeMap<(&InterfaceName, &str), Vec<IpAddr>> = BTreeMap::new();
        for (address, link) in &self.wanted {
            let is_there = || self.links.values().any(|it| it.name == *link);
            let why = match self.complaints.get(address) {
                Some(error) => error.as_str(),
                None if !is_there() => "there is no such interface",
                None => continue,
            };
            lacking.entry((link, why)).or_default().push(*address);
        }
        lacking.into_iter().map(|((link, why), addresses)| unbound(link.as_str(), why, &addresses)).collect()
    }

    /// Tells what has changed.
    async fn tell(&mut self, problems: Vec<HostProblem>, facts: &mpsc::Sender<Fact>) {
        if self.told != problems {
            self.told.clone_from(&problems);
            // The loop of the agent may be gone already.
            let _ = facts.send(Fact::Problems(Area::Bind, problems)).await;
        }
    }

    /// Takes in an event and those that came with it. Answers whether any were lost.
    fn take_in(&mut self, first: Event, netlink: &mut Netlink) -> Result<bool, NetlinkError> {
        let mut next = Some(first);
        let mut overrun = false;
        while let Some(event) = next {
            match event {
                Event::Message(message) => self.handle_message(&message),
                Event::Overrun => overrun = true,
                Event::Closed => return Err(NetlinkError::Ended),
            }
            next = netlink.pending_event();
        }
        Ok(overrun)
    }

    async fn list(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        self.touched.extend(self.present.keys());
        self.touched.extend(self.wanted.keys());
        self.links.clear();
        self.present.clear();
        links.iter().chain(&addresses).for_each(|message| self.handle_message(message));
        Ok(())
    }

    fn handle_wanted(&mut self, wanted: OrdMap<IpAddr, InterfaceName>) {
        for item in self.wanted.diff(&wanted) {
            let (DiffItem::Add(address, _) | DiffItem::Remove(address, _) | DiffItem::Update { new: (address, _), .. }) =
                item;
            self.touched.insert(*address);
        }
        self.wanted = wanted;
        self.bound.retain(|address, _| self.wanted.contains_key(address));
    }

    /// Whether to bind the address now. One that vanishes again and again is bound once in [`RETRY_INTERVAL`]: whoever removes it
    /// (another agent on this host, for example) would be answered thousands of times a second.
    fn may_bind(&mut self, address: IpAddr, now: Instant) -> bool {
        let (last, times) = self.bound.entry(address).or_insert((now, 0));
        let quiet = now.saturating_duration_since(*last);
        if quiet >= CALM {
            *times = 0;
        }
        let may = *times < AT_ONCE || quiet >= RETRY_INTERVAL;
        if may {
            (*last, *times) = (now, times.saturating_add(1));
        }
        may
    }

    /// It was removed several times, and has not stayed for long since.
    fn is_contested(&self, address: IpAddr, now: Instant) -> bool {
        self.bound
            .get(&address)
            .is_some_and(|(last, times)| *times > AT_ONCE && now.saturating_duration_since(*last) < CALM)
    }

    fn handle_message(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                let Some(link) = link(message) else { return };
                let before = self.links.insert(message.header.index, link.clone());
                if before.as_ref() != Some(&link) {
                    self.touch_link(before);
                    self.touch_link(Some(link));
                }
            }
            // The family tells a link from a port of a bridge. A port that leaves its bridge is still a link.
            RouteNetlinkMessage::DelLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                let index = message.header.index;
                self.touch_link(self.links.get(&index).cloned());
                self.links.remove(&index);
                self.present.retain(|_, links| {
                    links.remove(&index);
                    !links.is_empty()
                });
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(address) = host_address(message) {
                    let whose = if is_ours(message, self.number_on_host) { Whose::Ours } else { Whose::TheHosts };
                    self.present.entry(address).or_default().insert(message.header.index, whose);
                    self.touched.insert(address);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some(address) = host_address(message) {
                    self.absent(address, message.header.index);
                    self.touched.insert(address);
                }
            }
            // The enum is not ours; no other message was subscribed to.
            _ => {}
        }
    }

    /// A link appeared, went or changed its name: the addresses that are wanted on it are judged again.
    fn touch_link(&mut self, link: Option<BindLink>) {
        let Some(link) = link else { return };
        self.touched.extend(self.wanted.iter().filter(|(_, name)| **name == link.name).map(|(address, _)| *address));
    }

    fn absent(&mut self, address: IpAddr, index: u32) {
        if let Some(links) = self.present.get_mut(&address) {
            links.remove(&index);
            if links.is_empty() {
                self.present.remove(&address);
            }
        }
    }

    /// What to change for one address: first it is added where it is wanted, then removed where it is not.
    fn steps(&self, address: IpAddr) -> Vec<Step> {
        let present = self.present.get(&address);
        let wanted = self.wanted.get(&address);
        let is_wanted_on = |link: &BindLink| wanted == Some(&link.name);
        let is_present_on = |index: &u32| present.is_some_and(|links| links.contains_key(index));
        let add = self
            .links
            .iter()
            .filter(|(index, link)| is_wanted_on(link) && !is_present_on(index))
            .map(|(index, link)| Step::Add { address, index: *index, loopback: link.loopback });
        let remove = present
            .into_iter()
            .flatten()
            .filter(|(index, whose)| **whose == Whose::Ours && !self.links.get(index).is_some_and(is_wanted_on))
            .map(|(index, _)| Step::Remove { address, index: *index });
        add.chain(remove).collect()
    }

    /// Makes every change. A change that the kernel refuses is kept as a complaint; only the end of the connection is an
    /// error.
    async fn work(&mut self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        while let Some(address) = self.touched.pop_first() {
            let mut refused = None;
            let now = clock::now();
            for step in self.steps(address) {
                if matches!(step, Step::Add { .. }) && !self.may_bind(address, now) {
                    refused = Some((step, CONTESTED.to_owned()));
                    continue;
                }
                match self.make(&step, netlink).await {
                    Ok(()) => {}
                    Err(error @ NetlinkError::Refused(_)) => refused = Some((step, error.to_string())),
                    Err(error) => {
                        self.touched.insert(address);
                        return Err(error);
                    }
                }
            }
            match refused {
                None if self.is_contested(address, now) => {}
                None => drop(self.complaints.remove(&address)),
                Some((step, error)) => {
                    if self.complaints.get(&address) != Some(&error) {
                        warn!(%address, ?step, error, "a bound address could not be changed; trying again");
                    }
                    self.complaints.insert(address, error);
                }
            }
        }
        Ok(())
    }

    async fn make(&mut self, step: &Step, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        match *step {
            Step::Add { address, index, loopback } => {
                let request = RouteNetlinkMessage::NewAddress(message(index, loopback, address, self.number_on_host));
                match netlink.change(request, NLM_F_CREATE | NLM_F_EXCL).await {
                    Ok(()) => {
                        info!(%address, link = %self.link_name(index), "address bound");
                        self.present.entry(address).or_default().insert(index, Whose::Ours);
                    }
                    // Another program was quicker, or the same address is being removed and put back. The event that is
                    // on its way says whose address it is.
                    Err(error) if error.is_refusal(libc::EEXIST) => debug!(%address, index, "address is there already"),
                    // The event that the link is gone is on its way too.
                    Err(error) if error.is_refusal(libc::ENODEV) => debug!(%address, index, "link is gone"),
                    Err(error) => return Err(error),
                }
            }
            Step::Remove { address, index } => {
                let request = RouteNetlinkMessage::DelAddress(message(index, false, address, self.number_on_host));
                match netlink.change(request, 0).await {
                    Ok(()) => info!(%address, link = %self.link_name(index), "address unbound"),
                    Err(error) if error.is_refusal(libc::EADDRNOTAVAIL) || error.is_refusal(libc::ENODEV) => {
                        debug!(%address, index, "address was gone already");
                    }
                    Err(error) => return Err(error),
                }
                self.absent(address, index);
            }
        }
        Ok(())
    }

    fn link_name(&self, index: u32) -> &str {
        self.links.get(&index).map_or("", |link| link.name.as_str())
    }
}

fn unbound(link: &str, why: &str, addresses: &[IpAddr]) -> HostProblem {
    let first: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    let more = addresses.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    HostProblem {
        problem: format!("{}{more} cannot be bound to {link}, as [[pool]] bind asks: {why}", first.join(", ")),
        remedy: "what comes for them is dropped here, unless kube-proxy has rules for it: name an interface that is there, or give the \
                 agent CAP_NET_ADMIN"
            .to_owned(),
    }
}

/// How many addresses a problem names.
const NAMED: usize = 3;

fn link(message: &LinkMessage) -> Option<BindLink> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(InterfaceName::from(name.as_str())),
        // The enum is not ours; only the name is needed.
        _ => None,
    })?;
    Some(BindLink { name, loopback: message.header.flags.contains(LinkFlags::Loopback) })
}

/// The address, if it is one that crier could have bound: a host prefix, without another address as its peer.
fn host_address(message: &AddressMessage) -> Option<IpAddr> {
    let (address, peer) = netlink::own_and_peer(message)?;
    let alone = message.header.prefix_len == host_prefix(address).prefix_len();
    (alone && peer == address).then_some(address)
}

/// The protocol of crier's addresses: a number that neither the kernel nor another well-known program uses.
const MARK_PROTOCOL: AddressProtocol = AddressProtocol::Other(67);

/// The lifetime of an address that never expires, in seconds.
const FOR_EVER: u32 = u32::MAX;

/// "crie" in ASCII, and so the mark of the agent with number 0; the others' follow.
const MARK_METRIC: u32 = 0x6372_6965;

/// No agent's number on its host is as high.
const MOST_ON_HOST: u32 = 1 << 24;

/// So often in a row an address that vanished is bound again at once.
const AT_ONCE: u32 = 3;

/// An address that has stayed for so long is left alone by others.
const CALM: Duration = Duration::from_secs(10);

const CONTESTED: &str = "another program keeps removing it";

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;
    const ETH0: u32 = 2;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_another_program_keeps_removing_is_bound_once_in_a_while() {
        let mut binder = Binder::default();
        binder.handle_wanted([(ip("192.0.2.1"), InterfaceName::from("lo"))].into_iter().collect());
        let began = clock::now();
        let mut tries = |from: u64, to: u64| -> usize {
            let at = |millis| began + Duration::from_millis(millis);
            (from..to).filter(|millis| binder.may_bind(ip("192.0.2.1"), at(*millis))).count()
        };
        assert_eq!(tries(0, 1_000), 3, "at once");
        assert_eq!(tries(1_000, 21_000), 10, "once in two seconds");
        assert_eq!(tries(40_000, 41_000), 3, "it had stayed for a while");
        binder.handle_wanted(OrdMap::new());
        assert!(binder.bound.is_empty());
    }

    fn new_link(index: u32, name: &str) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if index == LO {
            message.header.flags = LinkFlags::Up | LinkFlags::Loopback;
        }
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        RouteNetlinkMessage::NewLink(message)
    }

    fn the_hosts(index: u32, address: &str) -> AddressMessage {
        let mut message = message(index, false, ip(address), 0);
        message.attributes.retain(|attribute| {
            !matches!(attribute, AddressAttribute::Protocol(_) | AddressAttribute::RoutePriority(_))
        });
        message
    }

    fn ours(index: u32, address: &str) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewAddress(message(index, index == LO, ip(address), 0))
    }

    /// A binder on a host with `lo` and `eth0`, that has heard `heard` and wants `wanted`.
    fn binder(heard: &[RouteNetlinkMessage], wanted: &[(&str, &str)]) -> Binder {
        let mut binder = Binder::default();
        binder.handle_message(&new_link(LO, "lo"));
        binder.handle_message(&new_link(ETH0, "eth0"));
        heard.iter().for_each(|message| binder.handle_message(message));
        want(&mut binder, wanted);
        binder
    }

    fn want(binder: &mut Binder, wanted: &[(&str, &str)]) {
        binder.handle_wanted(wanted.iter().map(|(address, link)| (ip(address), InterfaceName::from(*link))).collect());
    }

    /// The steps for everything that was touched.
    fn steps(binder: &mut Binder) -> Vec<Step> {
        std::mem::take(&mut binder.touched).into_iter().flat_map(|address| binder.steps(address)).collect()
    }

    fn add(address: &str, index: u32) -> Step {
        Step::Add { address: ip(address), index, loopback: index == LO }
    }

    fn remove(address: &str, index: u32) -> Step {
        Step::Remove { address: ip(address), index }
    }

    #[test]
    fn what_an_earlier_run_left_is_taken_away_unless_it_is_wanted() {
        let left = [ours(LO, "192.0.2.1"), ours(LO, "fd35::1"), ours(LO, "192.0.2.2")];
        let mut binder = binder(&left, &[("192.0.2.2", "lo"), ("192.0.2.3", "lo")]);
        assert_eq!(steps(&mut binder), [remove("192.0.2.1", LO), add("192.0.2.3", LO), remove("fd35::1", LO)]);
    }

    #[test]
    fn an_address_of_the_host_is_neither_added_again_nor_taken_away() {
        let there = RouteNetlinkMessage::NewAddress(the_hosts(LO, "192.0.2.1"));
        let mut binder = binder(std::slice::from_ref(&there), &[("192.0.2.1", "lo")]);
        assert_eq!(steps(&mut binder), []);
        want(&mut binder, &[]);
        assert_eq!(steps(&mut binder), []);

        want(&mut binder, &[("192.0.2.1", "lo")]);
        binder.handle_message(&RouteNetlinkMessage::DelAddress(the_hosts(LO, "192.0.2.1")));
        assert_eq!(steps(&mut binder), [add("192.0.2.1", LO)], "the host gave it up, so it has to be bound now");
    }

    #[test]
    fn an_address_that_moves_to_another_link_is_there_before_it_is_gone() {
        let mut binder = binder(&[ours(LO, "192.0.2.1")], &[("192.0.2.1", "eth0")]);
        assert_eq!(steps(&mut binder), [add("192.0.2.1", ETH0), remove("192.0.2.1", LO)]);
    }

    #[test]
    fn an_address_waits_for_its_link_and_follows_its_name() {
        let mut binder = binder(&[], &[("192.0.2.1", "vip0")]);
        assert_eq!(steps(&mut binder), []);
        binder.handle_message(&new_link(7, "vip0"));
        assert_eq!(steps(&mut binder), [add("192.0.2.1", 7)]);
        binder.handle_message(&ours(7, "192.0.2.1"));
        assert_eq!(steps(&mut binder), []);

        binder.handle_message(&new_link(7, "renamed"));
        assert_eq!(steps(&mut binder), [remove("192.0.2.1", 7)]);
        binder.handle_message(&new_link(8, "vip0"));
        assert_eq!(steps(&mut binder), [add("192.0.2.1", 8), remove("192.0.2.1", 7)]);
    }

    #[test]
    fn a_link_that_vanishes_takes_its_addresses_along() {
        let mut binder = binder(&[ours(ETH0, "192.0.2.1")], &[("192.0.2.1", "eth0")]);
        assert_eq!(steps(&mut binder), []);
        let RouteNetlinkMessage::NewLink(gone) = new_link(ETH0, "eth0") else { unreachable!() };
        binder.handle_message(&RouteNetlinkMessage::DelLink(gone));
        assert_eq!(steps(&mut binder), []);
        binder.handle_message(&new_link(9, "eth0"));
        assert_eq!(steps(&mut binder), [add("192.0.2.1", 9)]);
    }

    #[test]
    fn the_mark_is_found_on_kernels_that_know_address_protocols_and_on_those_that_do_not() {
        let marked = message(LO, true, ip("192.0.2.1"), 7);
        assert!(is_ours(&marked, 7));
        let mut old_kernel = marked.clone();
        old_kernel.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Protocol(_)));
        assert!(is_ours(&old_kernel, 7));
        let mut another_program = marked;
        for attribute in &mut another_program.attributes {
            if let AddressAttribute::Protocol(protocol) = attribute {
                *protocol = AddressProtocol::Other(18);
            }
        }
        assert_eq!(marked_by(&another_program), None);
        assert_eq!(marked_by(&the_hosts(LO, "192.0.2.1")), None);
    }

    /// `crier cleanup` of one agent took away what another agent on the host had bound.
    #[test]
    fn what_another_agent_of_the_host_bound_is_left_to_it() {
        let others = RouteNetlinkMessage::NewAddress(message(LO, true, ip("192.0.2.1"), 7));
        let mut binder = binder(&[others], &[]);
        assert_eq!(steps(&mut binder), []);
    }

    /// D5 of the field cases; that the kernel heeds it is seen in tests/link.
    #[test]
    fn a_bound_address_is_made_so_that_nothing_chooses_it_as_a_source() {
        let lifetimes = |address: &str| {
            message(ETH0, false, ip(address), 0).attributes.into_iter().find_map(|attribute| match attribute {
                AddressAttribute::CacheInfo(info) => Some((info.ifa_preferred, info.ifa_valid)),
                _ => None,
            })
        };
        assert_eq!(lifetimes("fd35::1"), Some((0, u32::MAX)));
        assert_eq!(message(ETH0, false, ip("192.0.2.1"), 0).header.scope, AddressScope::Link);
        assert_eq!(message(LO, true, ip("192.0.2.1"), 0).header.scope, AddressScope::Host);
    }

    #[test]
    fn a_longer_prefix_and_a_peer_are_not_what_crier_binds() {
        let mut subnet = the_hosts(ETH0, "192.0.2.1");
        subnet.header.prefix_len = 24;
        assert_eq!(host_address(&subnet), None);
        let mut peer = the_hosts(ETH0, "192.0.2.1");
        peer.attributes = vec![AddressAttribute::Local(ip("192.0.2.1")), AddressAttribute::Address(ip("192.0.2.9"))];
        assert_eq!(host_address(&peer), None);
    }
}
