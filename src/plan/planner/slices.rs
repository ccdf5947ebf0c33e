//! How the planner renews the slices of the Plan, and which of them it says moved. Floor 1, the second half of [`Planner`]:
//! it decides nothing about a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::Planner;
use crate::address::{ScopedAddress, host_prefix};
use crate::config::{self, NewPods, PeerAddress, Source};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName};
use crate::plan::bfd::watched;
use crate::plan::context::{PulseContext, bgp, l2};
use crate::plan::decision::Decision;
use crate::plan::egress_table::{Roads, is_home};
use crate::plan::exits::OwnNetworks;
use crate::plan::notice::{condition, loss, notice, pools};
use crate::plan::slice::{HoldSlice, PeerSlice, PulseSlice, ServiceStatus, StatusWrite, VrfSlice, pools_in_words};
use crate::plan::verdict::Wish;
use crate::plan::verdict::egress::is_settled;
use crate::plan::{manners, reach, stations};
use crate::reason::Reason;
use crate::roster::Roster;
use crate::world::{ApiServer, Condition, Fact, Link, PoolsTold, Service, SessionState, World};

impl Planner {
    /// Who this agent is one of, where several criers serve one cluster.
    pub(super) fn lease(&self) -> Option<&ObjectKey> {
        match &self.in_force.config().source {
            Source::Kubernetes(kubernetes) => Some(&kubernetes.lease),
            Source::Manifests(_) => None,
        }
    }

    /// The parts of the slices that follow from nodes and links alone.
    pub(super) fn renew_frames(&mut self) {
        let PulseContext { links, eligibility } = self.context.pulse.clone();
        let hears_api_server = matches!(self.world.api_server, ApiServer::Reachable | ApiServer::Manifests);
        let others_wait = self.world.rosters.values().flat_map(|roster| roster.members.values()).all(|it| it.waits);
        let pulse = PulseSlice { links, eligibility, hears_api_server, others_wait, ..self.plan.pulse.clone() };
        if self.plan.pulse != pulse {
            self.plan.pulse = pulse;
            self.moved.pulse = true;
        }
        self.moved.l2 |= std::mem::replace(&mut self.plan.l2.leaving, self.world.leaving) != self.world.leaving;
        let stations = stations::stations(&self.plan.l2.stations, &self.world);
        let node_addresses = stations::node_addresses(&self.me, &self.world);
        let manners = manners::manners(self.in_force.config(), &self.me, &self.world);
        let l2 = &mut self.plan.l2;
        self.moved.l2 |= *l2.stations != stations || *l2.node_addresses != node_addresses || *l2.manners != manners;
        l2.stations = kept(&l2.stations, stations);
        l2.node_addresses = kept(&l2.node_addresses, node_addresses);
        l2.manners = kept(&l2.manners, manners);
        let may_answer_on: BTreeSet<InterfaceName> =
            self.context.l2.iter().flat_map(|l2| l2.interfaces.iter()).cloned().collect();
        self.moved.l2 |= *l2.may_answer_on != may_answer_on;
        let without_socket = self.context.l2.iter().flat_map(|l2| l2.without_socket()).cloned();
        let would_answer_on = may_answer_on.iter().cloned().chain(without_socket).collect();
        self.moved.l2 |= *l2.would_answer_on != would_answer_on;
        l2.would_answer_on = kept(&l2.would_answer_on, would_answer_on);
        l2.may_answer_on = kept(&l2.may_answer_on, may_answer_on);
        let node = self.own_node();
        let config = self.in_force.config();
        let links = self.world.links.values().filter(|link| l2::is_of_interest(config, node, link, &self.world));
        let links: Vec<_> = links.cloned().collect();
        if *self.plan.l2.links != links {
            self.plan.l2.links = Arc::new(links);
            self.moved.l2 = true;
        }
    }

    /// What BGP is told of this host.
    pub(super) fn renew_host(&mut self) {
        if self.plan.bgp.router_id.is_none() {
            self.choose_router_id();
            self.moved.bgp |= self.plan.bgp.router_id.is_some();
        }
        let bgp = &mut self.plan.bgp;
        self.moved.bgp |= !bgp.complete;
        bgp.complete = true;
        let listen = bgp::listen(self.in_force.config());
        if bgp.listen.as_deref() != Some(&listen) {
            bgp.listen = Some(Arc::new(listen));
            self.moved.bgp = true;
        }
        let local_addresses = bgp::local_addresses(&self.me, &self.world);
        if *bgp.local_addresses != local_addresses {
            bgp.local_addresses = Arc::new(local_addresses);
            self.moved.bgp = true;
        }
    }

    /// The one of the configuration, else one that is remembered from now on: what was set is no choice of this node.
    pub(super) fn choose_router_id(&mut self) {
        let config = self.in_force.config();
        self.plan.bgp.router_id = bgp::router_id(config, &self.me, &self.world);
        if let Some(id) = self.plan.bgp.router_id.filter(|_| config.bgp.router_id.is_none()) {
            self.world.apply(Fact::RouterIdOf(id, self.me.clone()));
        }
    }

    /// Which peers there are, and where.
    pub(super) fn renew_peers(&mut self) {
        let unnumbered = reach::unnumbered_links(&self.context.bgp.peers, &self.world);
        if *self.plan.bgp.unnumbered != unnumbered {
            self.plan.bgp.unnumbered = Arc::new(unnumbered);
            self.moved.bgp = true;
        }
        let weighed = self.established_by_gateway();
        if *self.plan.bgp.weighed != weighed {
            self.plan.bgp.weighed = Arc::new(weighed);
            self.moved.bgp = true;
        }
        let of_peer = |settings: &Arc<config::Peer>| self.sessions_of(settings);
        let mut sessions: Vec<(PeerName, PeerSlice)> = self.context.bgp.peers.iter().flat_map(of_peer).collect();
        let bgp = &self.plan.bgp;
        reach::keep_one_each(&mut sessions, &bgp.peers, &bgp.local_addresses, &self.world);
        let peers: OrdMap<PeerName, PeerSlice> = sessions.into_iter().collect();
        let before = std::mem::replace(&mut self.plan.bgp.peers, peers);
        let same = |(name, now): (&PeerName, &PeerSlice)| {
            before.get(name).is_some_and(|was| {
                let PeerSlice { settings, address, routes: _, orders } = was;
                *settings == now.settings && *address == now.address && *orders == now.orders
            })
        };
        self.moved.bgp |= before.len() != self.plan.bgp.peers.len() || !self.plan.bgp.peers.iter().all(same);
    }

    fn established_by_gateway(&self) -> BTreeSet<PeerName> {
        let by_gateway = |name: &PeerName| {
            let own = self.context.bgp.peer_of(name);
            self.context.bgp.peers.iter().any(|it| it.name == own && it.address == PeerAddress::Gateway)
        };
        let stands = |name: &&PeerName| reach::proven_at(name, &self.world).is_some();
        self.world.sessions.keys().filter(stands).filter(|name| by_gateway(name)).cloned().collect()
    }

    /// Which peers BFD watches.
    pub(super) fn renew_bfd(&mut self) {
        let watched = watched(self.in_force.config(), &self.plan.bgp, &self.world.sessions, &self.plan.bfd.peers);
        if *self.plan.bfd.peers != watched {
            self.plan.bfd.peers = Arc::new(watched);
            self.moved.bfd = true;
        }
    }

    /// The session that has the peer's own name, and those with further next hops of the default route.
    fn sessions_of(&self, settings: &Arc<config::Peer>) -> Vec<(PeerName, PeerSlice)> {
        let known = |name: &PeerName| self.plan.bgp.peers.get(name);
        // Asked of every name, for every peer: the cheap question comes first.
        let is_further = |name: &PeerName| {
            reach::is_further_of(name, &settings.name) && self.context.bgp.peer_of(name) == settings.name
        };
        // Sessions that were taken over stand before there is a plan.
        let was_at = |name: &PeerName| {
            let planned = known(name).and_then(|peer| peer.address.clone().ok());
            planned.or_else(|| reach::proven_at(name, &self.world))
        };
        let further: BTreeMap<PeerName, ScopedAddress> = match settings.address {
            PeerAddress::Gateway => {
                let names = self.plan.bgp.peers.keys().chain(self.world.sessions.keys());
                names.filter(|name| is_further(name)).filter_map(|name| Some((name.clone(), was_at(name)?))).collect()
            }
            PeerAddress::Fixed(_) | PeerAddress::Interface(_) => BTreeMap::new(),
        };
        let before = was_at(&settings.name);
        let address = match self.lacking_of(settings, &settings.name) {
            Some(path) => Err(Reason::SecretMissing { path }),
            None => reach::address(settings, before.as_ref(), &further, &self.world),
        };
        let mut further = reach::further(settings, address.as_ref().ok(), &further, &self.world);
        if matches!(address, Err(Reason::SecretMissing { .. })) {
            // Those that stand go on; a new one could not be signed.
            further.retain(|name, _| reach::proven_at(name, &self.world).is_some());
        }
        let (address, dead) =
            reach::with_dead_hops(settings, address, &further, |name| known(name).is_some(), &self.world);
        let routes = self.routes.routes_to(&settings.name);
        let orders = self.world.peer_orders.get(&settings.name).copied().unwrap_or_default();
        let further = further.into_iter().map(|(name, address)| (name, Ok(address)));
        let dead = dead.into_iter().map(|(name, reason)| (name, Err(reason)));
        let of_further = further.chain(dead).map(|(name, address)| {
            let lacking = self.lacking_of(settings, &name);
            let address =
                address.and_then(|address| lacking.map_or(Ok(address), |path| Err(Reason::SecretMissing { path })));
            let settings = Arc::new(config::Peer { name: name.clone(), ..config::Peer::clone(settings) });
            (name, PeerSlice { settings, address, routes: routes.clone(), orders })
        });
        let own = PeerSlice { settings: Arc::clone(settings), address, routes: routes.clone(), orders };
        of_further.chain([(settings.name.clone(), own)]).collect()
    }

    /// A missing secret without which the peer does not have this session. An established session has its keys in the kernel: it goes on without the
    /// file, as it does over a reload.
    fn lacking_of(&self, settings: &config::Peer, session: &PeerName) -> Option<String> {
        let config = self.in_force.config();
        let stands = reach::proven_at(session, &self.world).is_some();
        let lacking = if stands { config.lacking_of_path(settings) } else { config.lacking_of(settings) };
        lacking.map(|path| path.display().to_string())
    }

    pub(super) fn put_status(
        &mut self,
        key: &ObjectKey,
        service: &Service,
        decision: &Decision,
        wish: Option<Wish>,
        lost: Option<&Reason>,
    ) {
        // Who is in the way of an address is told by the node that finds it there, whoever allocates.
        let in_conflict = decision.announcements.iter().any(|it| it.l2.reason.is_conflict());
        let pools_are_left = self.restraints.are_pools_left(key);
        let has_said = |condition: &Condition| self.restraints.has_said(key, condition);
        let write =
            wish.as_ref().and_then(|wish| write(service, decision, wish, (self.lease(), pools_are_left), has_said));
        let is_told = service.load_balancer || service.egress.is_some();
        let ours = self.world.allocates && (is_told || write.is_some());
        let wanted = (ours || in_conflict).then(|| {
            let (notice, lasting) = notice(service, decision).unzip();
            let warning = lost.filter(|_| write.is_some()).map(loss);
            let told = wish.is_some() && write.is_none() && lasting == Some(true);
            let (uid, resource_version) = (service.uid.clone(), service.resource_version.clone());
            ServiceStatus { uid, resource_version, write, notice, told, warning }
        });
        match wanted {
            Some(status) => {
                if self.plan.status.services.get(key).map(|held| &**held) != Some(&status) {
                    self.plan.status.services.insert(key.clone(), Arc::new(status));
                    self.moved.status = true;
                }
            }
            None => self.moved.status |= self.plan.status.services.remove(key).is_some(),
        }
    }

    /// Hands what the organs keep to the slices. The maps are persistent: a copy is cheap.
    pub(super) fn renew_slices(&mut self) {
        self.plan.removals_wait = self.restraints.removals_wait();
        self.plan.placements = self.l2.memory.placements().clone();
        self.plan.taken = self.l2.memory.stations().clone();
        if !self.plan.pulse.doubted.iter().eq(self.l2.holders.doubted()) {
            self.plan.pulse.doubted = Arc::new(self.l2.holders.doubted().cloned().collect());
            self.moved.pulse = true;
        }
        if self.l2.ownership.take_moved() {
            self.moved.l2 = true;
            self.plan.l2.addresses = self.l2.ownership.answers().clone();
            self.plan.l2.standbys = self.l2.ownership.standbys().clone();
            self.plan.l2.acquisitions = self.l2.ownership.acquisitions().clone();
            self.plan.l2.assertions = self.l2.ownership.assertions().clone();
            self.plan.l2.yields = self.l2.ownership.yields().clone();
            self.renew_pulse();
        }
        if self.routes.take_moved() {
            self.moved.bgp = true;
            self.plan.disputes = self.routes.disputes().clone();
            let names: Vec<PeerName> = self.plan.bgp.peers.keys().cloned().collect();
            for name in names {
                let routes = self.routes.routes_to(&self.context.bgp.peer_of(&name));
                if let Some(peer) = self.plan.bgp.peers.get_mut(&name) {
                    peer.routes = routes;
                }
            }
        }
        self.renew_over_bgp();
        if self.binds.take_moved() {
            self.moved.bind = true;
            self.plan.bind.addresses = self.binds.addresses().clone();
        }
    }

    /// A decision is another one.
    pub(super) fn note_over_bgp(&mut self, before: Option<&Decision>, after: Option<&Decision>) {
        self.dirty.over_bgp |= !over_bgp(before).eq(over_bgp(after));
    }

    /// What a node with a stale view is told: it does not know where endpoints are now, and gives way where another node serves. It is a
    /// look at all Services, so only where something that it follows from has changed.
    fn renew_over_bgp(&mut self) {
        if !std::mem::take(&mut self.dirty.over_bgp) {
            return;
        }
        let is_stale = self.world.rosters.values().any(|roster| has_stale_view(Some(roster)));
        let is_asked = self.plan.pulse.hears_api_server && is_stale;
        let told = is_asked.then(|| self.announced_over_bgp());
        if self.plan.pulse.over_bgp.as_deref() != told.as_ref() {
            self.plan.pulse.over_bgp = told.map(Arc::new);
            self.moved.pulse = true;
        }
    }

    /// The addresses that some router hears of by this node.
    fn announced_over_bgp(&self) -> BTreeSet<IpAddr> {
        let stands = |peer: &PeerName| {
            let of_peer = |name: &&PeerName| self.context.bgp.peer_of(name) == *peer;
            let sessions = self.plan.bgp.peers.keys().filter(of_peer).filter_map(|name| self.world.sessions.get(name));
            sessions.into_iter().any(|session| session.state == SessionState::Established)
        };
        let established: BTreeSet<&PeerName> =
            self.context.bgp.peers.iter().map(|peer| &peer.name).filter(|name| stands(name)).collect();
        let announcements = self.plan.decisions.values().flat_map(|decision| &decision.announcements);
        let announced = announcements.filter(|it| it.bgp.peers.iter().any(|peer| established.contains(peer)));
        announced.map(|it| it.address).collect()
    }

    /// How egress pods leave. `host`: nodes or links may have changed; `peers`: that, or default routes.
    pub(super) fn renew_egress(&mut self, host: bool, peers: bool) {
        if peers || self.egress.exits_are_stale() {
            self.renew_returns();
            self.plan.networks_left_out = self.returns.left_out().clone();
            let (networks, away) = (self.returns.networks(), &self.returns.away(&self.world)[..]);
            self.egress.renew_exits(OwnNetworks { world: &self.world, me: &self.me, networks, away });
        }
        let slots = self.in_force.config().egress.slots();
        let slots = self.returns.lowest().map_or(slots, |lowest| slots.min(lowest.saturating_sub(1)));
        let roads = Roads { me: &self.me, slots, tunnel: self.in_force.config().egress.tunnel.as_ref() };
        if self.egress.needs_hops() {
            self.egress.renew_hops(&self.world, roads);
        }
        self.egress.renew_tunnel(&self.world, roads, host);
        let egress = &mut self.plan.egress;
        // What is remembered may lack a Service: pods that are held already stay held until all is listed.
        let complete = self.world.listed.all();
        let settled = is_settled(&self.world, &self.context);
        if self.egress.take_moved() || (egress.complete, egress.settled) != (complete, settled) || !egress.planned {
            self.moved.egress = true;
            egress.settled = settled;
            egress.planned = true;
            egress.complete = complete;
            egress.pods = self.egress.pods().clone();
            egress.addresses = self.egress.addresses().clone();
            egress.bounded = self.egress.bounded().clone();
            egress.marks = self.egress.marks().clone();
            egress.hops = Arc::new(self.egress.hops());
            egress.leads = self.egress.leads();
            egress.tunnel = self.egress.tunnel().cloned();
            self.plan.unreached = Arc::new(self.egress.obstacles());
            self.plan.contested_pods = kept(&self.plan.contested_pods, self.egress.contested().clone());
            self.plan.exits = Arc::new(self.egress.exits());
            self.plan.without_network = Arc::new(self.egress.without_network());
        }
        if self.newcomers.renew(&self.world) {
            self.moved.egress = true;
            egress.let_go = Arc::new(self.newcomers.let_go(&self.world));
            self.plan.newcomers = Arc::new(self.newcomers.all().clone());
        }
        if self.returns.take_moved() {
            self.moved.egress = true;
            egress.networks = self.returns.networks().clone();
            egress.served = self.returns.served().clone();
        }
        if host {
            let of_nodes = self
                .world
                .nodes
                .values()
                .flat_map(|node| node.addresses.iter().copied().map(host_prefix).chain(node.networks_of_pods()));
            let of_services = self.world.networks_of_services().copied();
            let configured = self.in_force.config().egress.cluster_networks.iter().copied();
            let cluster: BTreeSet<IpNet> = configured.chain(of_nodes).chain(of_services).collect();
            if *egress.cluster != cluster {
                self.moved.egress = true;
                egress.cluster = Arc::new(cluster);
            }
            let pod_networks = pod_networks(&self.world, &self.in_force.config().egress.cluster_networks);
            let shared_links = shared_links(&self.world, &self.me, &self.plan.l2.may_answer_on);
            let roads = roads_of_pods(&self.world, &self.me, &shared_links);
            let is_known = *egress.shared_links == shared_links && *egress.roads == roads;
            if *egress.pod_networks != pod_networks || !is_known {
                self.moved.egress = true;
                egress.pod_networks = Arc::new(pod_networks);
                egress.shared_links = Arc::new(shared_links);
                egress.roads = Arc::new(roads);
            }
            let ovn_gateway = self.world.nodes.get(&self.me).and_then(|node| node.ovn_gateway);
            self.moved.egress |= std::mem::replace(&mut egress.ovn_gateway, ovn_gateway) != ovn_gateway;
            self.renew_vrfs(complete);
        }
        if self.in_force.config().egress.new_pods == NewPods::Hold {
            self.renew_hold(host, complete);
        }
    }

    /// What is held back of new pods. `complete`: all objects but Pods are known.
    fn renew_hold(&mut self, host: bool, complete: bool) {
        if self.new_pods.renew(&self.world, &self.me) {
            self.plan.new_pods = self.new_pods.judged().clone();
        }
        let pods = &self.world.pods;
        // Whoever sees no Pods would let none go ever.
        let is_wanted = (self.new_pods.is_any() || !complete) && (pods.listed || pods.unseen.is_none());
        let before = self.plan.egress.hold.as_ref();
        let networks = match before {
            _ if !is_wanted => BTreeSet::new(),
            Some(before) if !host => before.networks.clone(),
            Some(_) | None => own_networks(&self.world, &self.me, &self.in_force.config().egress.cluster_networks),
        };
        let judged = &self.plan.new_pods;
        let hold = (!networks.is_empty()).then(|| HoldSlice {
            networks,
            known: (complete && pods.listed).then(|| judged.known.clone()),
            ending: judged.ending.keys().copied().collect(),
        });
        if self.plan.egress.hold.as_deref() != hold.as_ref() {
            self.moved.egress = true;
            self.plan.egress.hold = hold.map(Arc::new);
        }
    }

    /// By which networks of this node replies leave.
    fn renew_returns(&mut self) {
        if !self.returns.renew(self.in_force.config(), &self.world, self.egress.leaves_by_networks()) {
            return;
        }
        for (key, decision) in &self.plan.decisions {
            self.returns.put(key, decision.announcements.iter().map(|it| it.address).collect());
        }
    }

    /// `complete`: all objects are known.
    fn renew_vrfs(&mut self, complete: bool) {
        let node = self.world.nodes.get(&self.me);
        let own = node.into_iter().flat_map(|node| node.addresses.iter().copied()).collect();
        let slice = VrfSlice {
            planned: true,
            own: kept(&self.plan.vrfs.own, own),
            complete,
            vrfs: kept(&self.plan.vrfs.vrfs, self.in_force.config().vrfs.clone()),
            cluster: self.plan.egress.cluster.clone(),
        };
        if self.plan.vrfs != slice {
            self.moved.vrfs = true;
            self.plan.vrfs = slice;
        }
    }

    /// What the pulse says of addresses, and who is not to be missed for long.
    pub(super) fn renew_pulse(&mut self) {
        let pulse = &mut self.plan.pulse;
        let expected = || self.l2.ownership.owners().filter(|owner| **owner != self.me);
        if !pulse.expected.iter().eq(expected()) {
            pulse.expected = Arc::new(expected().cloned().collect());
        }
        pulse.holdings = self.l2.ownership.holdings().clone();
        pulse.apart = self.l2.ownership.apart().clone();
        pulse.owner = pulse.holdings.values().chain(pulse.apart.values()).any(|holding| holding.stage.answers());
        self.moved.pulse = true;
    }
}

/// What a decision announces over BGP, and to whom.
fn over_bgp(decision: Option<&Decision>) -> impl Iterator<Item = (IpAddr, &[PeerName])> {
    let announcements = decision.into_iter().flat_map(|decision| &decision.announcements);
    announcements.map(|it| (it.address, &*it.bgp.peers)).filter(|(_, peers)| !peers.is_empty())
}

/// Whether some node that is heard there has lost its API server.
pub(super) fn has_stale_view(roster: Option<&Roster>) -> bool {
    roster.is_some_and(|roster| roster.members.values().any(|member| !member.hears_api_server))
}

/// Those of the Nodes' `podCIDRs`, and those that the operator names because a CNI fills none.
fn pod_networks(world: &World, named: &[IpNet]) -> BTreeSet<IpNet> {
    let of_nodes = world.nodes.values().flat_map(|node| node.networks_of_pods());
    of_nodes.chain(named_networks(world, named)).collect()
}

/// The same of this node's pods alone: a network that the operator names may be that of any node's.
fn own_networks(world: &World, me: &NodeName, named: &[IpNet]) -> BTreeSet<IpNet> {
    let of_node = world.nodes.get(me).into_iter().flat_map(|node| node.networks_of_pods());
    of_node.chain(named_networks(world, named)).collect()
}

/// The networks of pods among those that the operator names: these may be that of Services or the Nodes' own instead.
fn named_networks(world: &World, named: &[IpNet]) -> Vec<IpNet> {
    let is_of_pods = |network: &&IpNet| {
        let has_node = || world.nodes.values().any(|node| node.addresses.iter().any(|it| network.contains(it)));
        let has_services = || world.networks_of_services().any(|it| network.contains(it));
        !has_node() && !has_services()
    };
    named.iter().filter(is_of_pods).map(IpNet::trunc).collect()
}

/// The links that other nodes send packets of pods by: those that they share with this one, and those where this one answers for
/// Services' addresses, which are next hops too.
fn shared_links(world: &World, me: &NodeName, may_answer_on: &BTreeSet<InterfaceName>) -> BTreeSet<u32> {
    let others = || world.nodes.iter().filter(|(name, _)| *name != me).flat_map(|(_, node)| &node.addresses);
    let is_shared = |link: &Link| link.in_subnets().any(|net| others().any(|address| net.contains(address)));
    let is_road = |link: &&Link| !link.loopback && (is_shared(link) || may_answer_on.contains(&link.name));
    let links = world.links.values().filter(is_road);
    links.map(|link| link.index).collect()
}

/// Of these links, those that other nodes' next hops to this one are on, of IPv4: those with an address of this Node, where every other
/// Node has an address in a subnet of one of them. Whoever has none there may send by any link that this node answers on. Of links with
/// one address, those in VRFs are on networks of their own.
fn roads_of_pods(world: &World, me: &NodeName, shared: &BTreeSet<u32>) -> BTreeSet<u32> {
    let own = world.nodes.get(me).map(|node| node.addresses.as_slice()).unwrap_or_default();
    let links = world.links.values().filter(|link| shared.contains(&link.index));
    let is_own = |link: &Link, address: IpAddr| own.contains(&address) && is_home(world, link, address);
    let own_subnets = links.flat_map(|link| link.in_subnets().map(move |net| (link, net)));
    let own_subnets = own_subnets.filter(|(link, net)| net.addr().is_ipv4() && is_own(link, net.addr()));
    let own_subnets: Vec<(u32, &IpNet)> = own_subnets.map(|(link, net)| (link.index, net)).collect();
    let is_near = |address: &IpAddr| own_subnets.iter().any(|(_, net)| net.contains(address));
    let mut others = world.nodes.iter().filter(|(name, _)| *name != me);
    match others.all(|(_, node)| node.addresses.iter().any(is_near)) {
        true => own_subnets.iter().map(|(link, _)| *link).collect(),
        false => shared.clone(),
    }
}

/// The write that makes the status say what it should; none where it does.
fn write(
    service: &Service,
    decision: &Decision,
    wish: &Wish,
    (lease, pools_are_left): (Option<&ObjectKey>, bool),
    has_said: impl Fn(&Condition) -> bool,
) -> Option<StatusWrite> {
    let before = service.condition.as_deref();
    let condition = condition(wish, decision).map(|it| match lease {
        Some(lease) => said(it.by(lease), before, lease, has_said),
        None => it,
    });
    let ingress = match wish {
        Wish::Show(addresses) => {
            // Another order is the same to clients, and whoever sorts the list would do so again.
            let is_shown = || {
                let (wanted, shown): (BTreeSet<_>, BTreeSet<_>) =
                    (addresses.iter().collect(), service.ingress.iter().collect());
                wanted == shown
            };
            Some(addresses.clone()).filter(|_| !is_shown() || !service.not_vip.is_empty())
        }
        Wish::Clear { addresses: true } => Some(Vec::new()),
        Wish::Clear { addresses: false } | Wish::Leave { .. } => None,
    };
    let renumbered = is_renumbered(service, wish);
    let pools = match wish {
        Wish::Show(addresses) => pools(addresses, decision),
        Wish::Clear { .. } => Vec::new(),
        Wish::Leave { given } => pools(given, decision),
    };
    let tells_other_pools = match (wish, &service.pools_told) {
        // Who removes all that it did not write, as controllers of Gateways do with their Services, is not fought.
        (Wish::Leave { .. } | Wish::Clear { .. }, _) | (_, PoolsTold::Nothing) => false,
        (Wish::Show(_), PoolsTold::Same(told)) => **told != pools_in_words(&pools),
        (Wish::Show(_), PoolsTold::Different) => true,
    };
    let pools_are_due = tells_other_pools && !pools_are_left;
    if ingress.is_none() && condition.as_ref() == before && !renumbered && !pools_are_due {
        return None;
    }
    let allocated = |condition: &Condition| condition.allocated;
    let transition = condition.as_ref().map(allocated) != before.map(allocated);
    Some(StatusWrite { ingress, condition, transition, pools, renumbered })
}

/// What another crier says of the Service stands while this one says the same, or while neither has given it anything: two that serve it
/// would write for ever. One that is gone does not say its own again: each contradicts the other once (`has_said`).
fn said(
    condition: Condition,
    before: Option<&Condition>,
    lease: &ObjectKey,
    has_said: impl Fn(&Condition) -> bool,
) -> Condition {
    let by_other = before.filter(|before| !before.is_by(lease));
    let gives = |it: &Condition| !it.addresses().is_empty();
    let stands = |before: &&Condition| condition.says_the_same_as(before) || !(gives(&condition) || gives(before));
    by_other.filter(|_| has_said(&condition)).filter(stands).cloned().unwrap_or(condition)
}

/// None of the addresses that it was to give up is left: the annotation has done its work.
fn is_renumbered(service: &Service, wish: &Wish) -> bool {
    let leaving = service.renumber.iter().flat_map(|renumber| &renumber.leaving);
    match wish {
        Wish::Show(addresses) => service.renumber.is_some() && !leaving.into_iter().any(|it| addresses.contains(it)),
        Wish::Leave { .. } | Wish::Clear { .. } => false,
    }
}

/// What is equal stays the same, so that readers can tell at a glance.
fn kept<T: PartialEq>(before: &Arc<T>, after: T) -> Arc<T> {
    if **before == after { Arc::clone(before) } else { Arc::new(after) }
}
