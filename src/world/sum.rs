//! The World: the sum of all facts. Floor 1.
//!
//! Feed it with [`World::apply`], which answers what a planner must look at again; read its public fields.
//! It never judges: an object that makes no sense is kept as it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

use super::departed::Departed;
use super::maps::{add, put, retain, shared, shared_while};
use super::{
    Answerers, ApiServer, Area, BfdSessions, ClientCertificate, ClusterConfig, Conflict, DefaultRoute, Drain,
    DrainStage, Egress, EgressReach, EndpointSlice, Fact, HeldPod, HostProblem, LeaseState, Link, Listing,
    NetworkNumbers, Node, PeerOrder, PeerOrders, Pods, PoolRange, PulseTrouble, Pulses, Service, SessionReport,
    SessionState, Shutdown, Tenant,
};
use crate::address::{Family, is_too_wide};
use crate::names::{InterfaceName, NamespaceName, NodeName, ObjectKey, PeerName};
use crate::path_state::DataPath;
use crate::roster::Roster;
use crate::selector::Labels;

/// Everything crier was told and that still stands.
///
/// A clone costs next to nothing, however many objects there are: the maps that grow with the cluster share their structure.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub services: OrdMap<ObjectKey, Arc<Service>>,
    pub endpoint_slices: OrdMap<ObjectKey, Arc<EndpointSlice>>,
    /// The EndpointSlices of each Service.
    slices_of: OrdMap<ObjectKey, Arc<[ObjectKey]>>,
    /// One copy of each name for all objects that carry it: names of nodes and namespaces are in every slice and key.
    node_names: OrdMap<NodeName, ()>,
    namespace_names: OrdMap<NamespaceName, ()>,
    pub nodes: OrdMap<NodeName, Arc<Node>>,
    pub namespaces: OrdMap<NamespaceName, Arc<Labels>>,
    /// The networks of Services' addresses, by the names of the ServiceCIDRs.
    pub service_cidrs: OrdMap<String, Arc<Vec<IpNet>>>,
    /// Why the API server does not show its ServiceCIDRs.
    pub service_cidrs_unseen: Option<String>,
    pub pods: Pods,
    pub listed: ListedKinds,
    pub api_server: ApiServer,
    /// The BGP identifier that was chosen by itself.
    pub router_id: Option<Ipv4Addr>,
    /// The node that it was chosen for; `None` where an earlier version has not said it.
    pub router_id_of: Option<NodeName>,
    /// This agent allocates.
    pub allocates: bool,
    pub lease: LeaseState,
    pub links: OrdMap<u32, Link>,
    pub links_listed: bool,
    /// Other stations that have addresses which this node is to answer for, by link.
    pub conflicts: OrdMap<IpAddr, OrdMap<InterfaceName, Conflict>>,
    /// The links where no socket for ARP and NDP can be opened, each with why.
    pub without_socket: OrdMap<InterfaceName, String>,
    /// The addresses that this node answers for, each with the links.
    pub answering: OrdMap<IpAddr, OrdSet<InterfaceName>>,
    pub answerers: Answerers,
    pub sessions: OrdMap<PeerName, SessionReport>,
    /// Of the peers that are watched by BFD.
    pub bfd: BfdSessions,
    /// Heard on each link, by its index; the first heard in front. Never an empty list.
    pub routers: OrdMap<u32, Vec<Ipv6Addr>>,
    /// Who last called our BGP port on each link, from a link-local address.
    pub callers: OrdMap<u32, Ipv6Addr>,
    /// Those that work, best first.
    pub default_routes: Vec<DefaultRoute>,
    /// Those whose links do not work now.
    pub dead_default_routes: Vec<DefaultRoute>,
    pub pulses: Pulses,
    /// Who is there on each link, by its index.
    pub rosters: OrdMap<u32, Arc<Roster>>,
    /// Whose pulses are not believed on each link, by its index: each with why. Never empty for a link.
    pub pulse_trouble: OrdMap<u32, PulseTrouble>,
    /// Addresses that were chosen for a Service and that its status does not show yet.
    pub assigned: OrdMap<ObjectKey, Vec<IpAddr>>,
    /// What a Service of this name had before, by its status or, standalone, by promise: it gets it back if nobody else has it.
    pub former: OrdMap<ObjectKey, Vec<IpAddr>>,
    /// Of these, the Services that are gone.
    departed: Departed,
    /// Services that a status write told ahead of the watch, with the version that the watch has yet to reach.
    ahead: OrdMap<ObjectKey, u64>,
    /// What the API server said when the status of a Service could not be written.
    pub refused: OrdMap<ObjectKey, String>,
    /// What is wrong in each area; see [`problems_of`](World::problems_of). Never empty for an area.
    pub problems: OrdMap<Area, Vec<HostProblem>>,
    /// On some link where this node may answer, the kernel answers ARP for addresses of all its links.
    pub arp_open: bool,
    /// Grows with each change of what [`World::to_remember`] gives.
    pub changes: u64,
    /// How it stands with the ConfigMap of the configuration.
    pub cluster_config: ClusterConfig,
    /// The texts of the ConfigMap that are in use, each with its name.
    pub cluster_texts: Arc<Vec<(String, String)>>,
    /// The addresses that packets of pods leave with by this node; `None` as long as that is not known.
    pub egress_translated: Option<Arc<BTreeSet<IpAddr>>>,
    /// The addresses of pods that are held back although no Service with egress has them any more.
    pub egress_held: Arc<BTreeMap<IpAddr, HeldPod>>,
    /// The addresses that packets of pods left with when the agent started.
    pub egress_sources: BTreeSet<IpAddr>,
    pub egress_reach: EgressReach,
    /// See [`Fact::NetworkNumbers`].
    pub network_numbers: NetworkNumbers,
    /// Of this node; good where nothing tells.
    pub data_path: DataPath,
    /// The ranges of the pools of this agent's file, and of former files as long as a Service shows an address of them.
    pub pools: Arc<BTreeSet<PoolRange>>,
    /// The Lease of this agent's file, and those of former files as long as a condition of a Service names them.
    pub leases: Arc<BTreeSet<ObjectKey>>,
    /// What operators wanted of peers, by the name of the `[[bgp.peer]]`.
    pub peer_orders: OrdMap<PeerName, PeerOrders>,
    /// What is known of shutdowns of this host.
    pub shutdown: Shutdown,
    /// The client certificate that the API server knows this agent by.
    pub client_certificate: Option<ClientCertificate>,
    /// This node is being drained.
    pub drain: Option<Arc<Drain>>,
    pub fail_static: bool,
    pub leaving: bool,
}

/// Which kinds of object were told completely at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListedKinds {
    pub services: bool,
    pub endpoint_slices: bool,
    pub nodes: bool,
    pub namespaces: bool,
}

impl ListedKinds {
    pub fn all(self) -> bool {
        let ListedKinds { services, endpoint_slices, nodes, namespaces } = self;
        services && endpoint_slices && nodes && namespaces
    }
}

/// What a fact may have changed for a planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// No decision depends on it.
    Nothing,
    /// Only where BGP peers are to be found.
    Peers,
    /// Only decisions about these Services.
    Services(Vec<ObjectKey>),
    /// Nodes, links or rosters: what all decisions are based on, beside the Service itself.
    Surroundings,
    /// Every decision.
    Everything,
}

/// The endpoints of a Service that take new connections, over all its EndpointSlices: the ready ones, or while no node has
/// one of those, the ones that serve still while they terminate. So a node whose last endpoint begins to terminate is
/// relieved while it still serves, which is what kube-proxy's health check tells other load balancers to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub by_node: BTreeMap<NodeName, u32>,
    pub without_node: u32,
}

impl Endpoints {
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty() && self.without_node == 0
    }
}

impl World {
    /// Takes a fact in. Applying the same fact twice touches nothing the second time.
    pub fn apply(&mut self, fact: Fact) -> Touched {
        let is_kept = fact.is_worth_remembering();
        let touched = self.take_in(fact);
        if is_kept && !matches!(touched, Touched::Nothing) {
            self.changes = self.changes.wrapping_add(1);
        }
        touched
    }

    fn take_in(&mut self, fact: Fact) -> Touched {
        match fact {
            Fact::Service(key, Some(service)) => self.put_service(key, service),
            Fact::Service(key, None) => self.drop_service(&key),
            Fact::EndpointSlice(key, Some(slice)) => self.put_slice(key, slice),
            Fact::EndpointSlice(key, None) => self.drop_slice(&key),
            Fact::Node(name, node) => {
                let name = shared_while(node.is_some(), &mut self.node_names, name);
                surroundings_if(put(&mut self.nodes, name, node))
            }
            Fact::Namespace(name, labels) => {
                let name = shared_while(labels.is_some(), &mut self.namespace_names, name);
                let changed = put(&mut self.namespaces, name.clone(), labels);
                if changed { Touched::Services(self.services_in(&name)) } else { Touched::Nothing }
            }
            Fact::ServiceCidr(name, networks) => surroundings_if(put(&mut self.service_cidrs, name, networks)),
            Fact::ServiceCidrsUnseen(why) => {
                self.service_cidrs_unseen = why;
                Touched::Nothing
            }
            Fact::Pod(key, pod) => self.pods.put(key, pod),
            Fact::PodsUnseen(why) => self.pods.see(why),
            Fact::Listed(listing) => self.listed(listing),
            Fact::ApiServer(state) => {
                self.api_server = state;
                Touched::Nothing
            }
            Fact::WentBack => {
                self.ahead.clear();
                Touched::Nothing
            }
            Fact::Allocates(allocates) => {
                if !allocates {
                    // What was promised and not written is the next holder's to decide.
                    self.assigned.clear();
                    self.refused.clear();
                }
                everything_if(std::mem::replace(&mut self.allocates, allocates) != allocates)
            }
            Fact::ClusterConfig(state, texts) => {
                let lacked = self.lacks_config_map();
                (self.cluster_config, self.cluster_texts) = (state, texts);
                everything_if(lacked != self.lacks_config_map())
            }
            Fact::Lease(state) => {
                self.lease = *state;
                Touched::Nothing
            }
            Fact::Link(index, link) => {
                if !link.as_ref().is_some_and(|link| link.up && link.carrier) {
                    self.callers.remove(&index);
                }
                surroundings_if(put(&mut self.links, index, link))
            }
            Fact::RouterId(id) => {
                (self.router_id, self.router_id_of) = (Some(id), None);
                Touched::Nothing
            }
            Fact::RouterIdOf(id, node) => {
                (self.router_id, self.router_id_of) = (Some(id), Some(node));
                Touched::Nothing
            }
            Fact::LinksListed => everything_if(!std::mem::replace(&mut self.links_listed, true)),
            Fact::Conflict(address, link, conflict) => self.conflict(address, link, conflict),
            Fact::Answered { link, by } => {
                self.answerers.note(&link, by);
                Touched::Nothing
            }
            Fact::NoSocket(link, why) => surroundings_if(put(&mut self.without_socket, link, why)),
            Fact::Answering { link, began, ended } => {
                for address in ended {
                    if let Some(links) = self.answering.get_mut(&address) {
                        links.remove(&link);
                        if links.is_empty() {
                            self.answering.remove(&address);
                        }
                    }
                }
                for address in began {
                    self.answering.entry(address).or_default().insert(link.clone());
                }
                // The planner knows whose addresses these are.
                Touched::Nothing
            }
            Fact::Session(name, report) => {
                // Where a peer is looked for depends on these, and from where BFD sends: see `plan::reach` and `plan::bfd`.
                let proof = |report: &SessionReport| {
                    (
                        report.state == SessionState::Established,
                        report.local_address,
                        report.detail.address.clone(),
                        report.detail.known_from,
                        report.detail.last_error_at.is_some(),
                        report.detail.fails,
                    )
                };
                let now = proof(&report);
                let before = self.sessions.insert(name, report).as_ref().map(proof);
                peers_if(before.as_ref() != Some(&now))
            }
            Fact::Bfd(peer, report) => {
                put(&mut self.bfd, peer, report);
                Touched::Nothing
            }
            Fact::Routers(link, routers) => {
                peers_if(put(&mut self.routers, link, Some(routers).filter(|routers| !routers.is_empty())))
            }
            Fact::Caller(link, caller) => peers_if(put(&mut self.callers, link, Some(caller))),
            Fact::DefaultRoutes(routes) => {
                let (dead, alive) = routes.into_iter().partition(|route| route.dead);
                let before = std::mem::replace(&mut self.default_routes, alive);
                let dead_before = std::mem::replace(&mut self.dead_default_routes, dead);
                peers_if(before != self.default_routes || dead_before != self.dead_default_routes)
            }
            Fact::Pulses(pulses) => {
                let changed = pulses != self.pulses;
                self.pulses = pulses;
                everything_if(changed)
            }
            // The planner knows what a roster says that the one before did not.
            Fact::Roster(index, roster) => {
                put(&mut self.rosters, index, roster);
                Touched::Nothing
            }
            Fact::PulseTrouble(index, trouble) => {
                put(&mut self.pulse_trouble, index, Some(trouble).filter(|trouble| !trouble.is_none()));
                Touched::Nothing
            }
            Fact::Assigned(key, addresses) => {
                let promise = Some(addresses).filter(|addresses| !addresses.is_empty());
                if put(&mut self.assigned, key.clone(), promise) {
                    Touched::Services(vec![key])
                } else {
                    Touched::Nothing
                }
            }
            Fact::StatusWritten(key, service) => self.status_written(key, service),
            Fact::StatusRefused(key, why) => {
                self.refused.insert(key, why);
                Touched::Nothing
            }
            Fact::Had(key, addresses) => {
                if !self.services.contains_key(&key) {
                    self.former.insert(key.clone(), addresses);
                    self.note_departed(&key);
                }
                Touched::Nothing
            }
            // The planner counts from then on.
            Fact::RemovalTold(_) => Touched::Nothing,
            Fact::Problems(area, problems) => {
                let changed = self.problems_of(area) != problems;
                put(&mut self.problems, area, Some(problems).filter(|problems| !problems.is_empty()));
                if changed { area.touches() } else { Touched::Nothing }
            }
            Fact::ArpOpen(open) => {
                self.arp_open = open;
                Touched::Nothing
            }
            Fact::EgressTranslated(addresses) => {
                self.egress_translated = Some(addresses);
                Touched::Nothing
            }
            // The planner looks for whoever has them now.
            Fact::EgressHeld(held) => {
                self.egress_held = held;
                Touched::Nothing
            }
            Fact::EgressSources(sources) => {
                everything_if(std::mem::replace(&mut self.egress_sources, sources.clone()) != sources)
            }
            Fact::EgressReach(reach) => {
                let before = std::mem::replace(&mut self.egress_reach, reach);
                let now = &self.egress_reach;
                everything_if(
                    (before.mtu, before.problem, before.foreign) != (now.mtu, now.problem.clone(), now.foreign),
                )
            }
            Fact::NetworkNumbers(numbers) => {
                peers_if(std::mem::replace(&mut self.network_numbers, numbers.clone()) != numbers)
            }
            Fact::DataPath(path) => everything_if(std::mem::replace(&mut self.data_path, path.clone()) != path),
            // The planner goes by it; the World has no opinions.
            Fact::Config(_) => Touched::Everything,
            Fact::Pools(pools) => everything_if(std::mem::replace(&mut self.pools, pools.clone()) != pools),
            Fact::Leases(leases) => everything_if(std::mem::replace(&mut self.leases, leases.clone()) != leases),
            Fact::Peer(peer, order) => self.order(peer, order),
            // What it leads to is seen after each turn.
            Fact::Shutdown(shutdown) => {
                self.shutdown = shutdown;
                Touched::Nothing
            }
            Fact::ClientCertificate(certificate) => {
                self.client_certificate = certificate;
                Touched::Nothing
            }
            Fact::Drain(drain) => everything_if(std::mem::replace(&mut self.drain, drain.clone()) != drain),
            // The planner remembers it.
            Fact::Kept(_) => Touched::Nothing,
            // With the lists complete there is nothing left to be patient for.
            Fact::Leaving => everything_if(!std::mem::replace(&mut self.leaving, true)),
            Fact::FailStatic if self.listed.all() => Touched::Nothing,
            Fact::FailStatic => everything_if(!std::mem::replace(&mut self.fail_static, true)),
        }
    }

    /// The networks of Services that the API server names, but for what is too wide for that.
    pub fn networks_of_services(&self) -> impl Iterator<Item = &IpNet> {
        self.service_cidrs.values().flat_map(|networks| networks.iter()).filter(|net| !is_too_wide(net))
    }

    /// The others, each with the name of its ServiceCIDR: destinations there would all count as inside of the cluster.
    pub fn too_wide_for_services(&self) -> impl Iterator<Item = (&String, &IpNet)> {
        let all = self.service_cidrs.iter().flat_map(|(name, networks)| networks.iter().map(move |net| (name, net)));
        all.filter(|(_, net)| is_too_wide(net))
    }

    /// Why outbound connections of pods cannot be guarded on this node; `None` where it can.
    pub fn egress_obstacle(&self) -> Option<&HostProblem> {
        self.problems_of(Area::EgressBypass).iter().chain(self.problems_of(Area::Egress)).next()
    }

    pub fn problems_of(&self, area: Area) -> &[HostProblem] {
        self.problems.get(&area).map_or(&[], |problems| problems)
    }

    /// The configuration names a ConfigMap, and nothing of it is in use: neither its newest text nor one of before.
    pub fn lacks_config_map(&self) -> bool {
        let is_known = matches!(self.cluster_config, ClusterConfig::NotUsed | ClusterConfig::Current);
        !is_known && self.cluster_texts.is_empty()
    }

    /// How far this node has come with leaving.
    pub fn drain_stage(&self) -> Option<DrainStage> {
        self.drain.as_ref().map(|drain| drain.stage)
    }

    /// The endpoints of a Service that take new connections for addresses of one family. Outbound connections of its pods may leave by the node that
    /// announces its address, and a pod may need that to become ready: of such a Service all endpoints count while none takes connections.
    pub fn endpoints(&self, service: &ObjectKey, family: Family) -> Endpoints {
        let (mut ready, mut serving, mut without_node) = (BTreeMap::new(), BTreeMap::new(), 0_u32);
        for slice in self.slices_for(service, family) {
            add(&mut ready, &slice.ready);
            add(&mut serving, &slice.serving);
            without_node = without_node.saturating_add(slice.serving_without_node);
        }
        let serving = Endpoints { by_node: if ready.is_empty() { serving } else { ready }, without_node };
        let sends = || self.services.get(service).is_some_and(|it| it.egress == Some(Egress::ServiceAddress));
        if serving.is_empty() && sends() { self.unready_endpoints(service, family) } else { serving }
    }

    /// The endpoints of a Service that take no connections.
    fn unready_endpoints(&self, service: &ObjectKey, family: Family) -> Endpoints {
        let mut unready = Endpoints::default();
        for slice in self.slices_for(service, family) {
            add(&mut unready.by_node, &slice.unready);
            let named = slice.unready.iter().map(|(_, count)| count).fold(0, u32::saturating_add);
            let listed = u32::try_from(slice.addresses.iter().count()).unwrap_or(u32::MAX);
            unready.without_node = unready.without_node.saturating_add(listed.saturating_sub(named));
        }
        unready
    }

    fn slices_for(&self, service: &ObjectKey, family: Family) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let keys = self.slices_of.get(service).into_iter().flat_map(|keys| keys.iter());
        let slices = keys.filter_map(|key| self.endpoint_slices.get(key));
        slices.filter(move |slice| slice.family.is_none_or(|of| of == family))
    }

    /// The addresses of all endpoints of a Service, of both families and whether they are ready or not.
    pub fn endpoint_addresses<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = IpAddr> + 'a {
        self.endpoint_tenants(service).map(|(address, _)| address)
    }

    /// The same, each with the pod that has it.
    pub fn endpoint_tenants<'a>(&'a self, service: &ObjectKey) -> impl Iterator<Item = (IpAddr, Tenant)> + 'a {
        let keys = self.slices_of.get(service).into_iter().flat_map(|keys| keys.iter());
        keys.filter_map(|key| self.endpoint_slices.get(key)).flat_map(|slice| slice.addresses.tenants())
    }

    /// How many endpoints of one family a node has that take new connections: the ready ones, or while there is none of
    /// those the ones that still serve, as kube-proxy does it.
    pub fn endpoints_on(&self, node: &NodeName, service: &ObjectKey, family: Family) -> u32 {
        let (ready, serving) = self.slices_for(service, family).fold((0_u32, 0_u32), |(ready, serving), slice| {
            (ready.saturating_add(slice.ready.get(node)), serving.saturating_add(slice.serving.get(node)))
        });
        if ready > 0 { ready } else { serving }
    }

    /// The facts that make a World like this one, objects only: what is kept on disk for a start without API server.
    /// Resource versions are left out, so that whatever the API server says later is newer.
    pub fn to_remember(&self) -> impl Iterator<Item = Fact> + '_ {
        let services = self.services.iter().map(|(key, service)| {
            let service = Service { resource_version: String::new(), ..Service::clone(service) };
            Fact::Service(key.clone(), Some(Arc::new(service)))
        });
        let slices = self.endpoint_slices.iter().map(|(key, it)| Fact::EndpointSlice(key.clone(), Some(it.clone())));
        let nodes = self.nodes.iter().map(|(name, it)| Fact::Node(name.clone(), Some(it.clone())));
        let namespaces = self.namespaces.iter().map(|(name, it)| Fact::Namespace(name.clone(), Some(it.clone())));
        let cidrs = self.service_cidrs.iter().map(|(name, it)| Fact::ServiceCidr(name.clone(), Some(it.clone())));
        let assigned = self.assigned.iter().map(|(key, addresses)| Fact::Assigned(key.clone(), addresses.clone()));
        let had = self.departed.iter().filter(|_| self.api_server == ApiServer::Manifests);
        let had = had.filter_map(|key| Some(Fact::Had(key.clone(), self.former.get(key)?.clone())));
        let shut = self.peer_orders.iter().filter(|(_, orders)| orders.shut);
        let shut = shut.map(|(peer, _)| Fact::Peer(peer.clone(), PeerOrder::Shut));
        let router_id = self.router_id.map(Fact::RouterId);
        let named = self.router_id.zip(self.router_id_of.clone());
        let router_id_of = named.map(|(id, node)| Fact::RouterIdOf(id, node));
        let pools = Some(Fact::Pools(self.pools.clone())).filter(|_| !self.pools.is_empty());
        let leases = Some(Fact::Leases(self.leases.clone())).filter(|_| !self.leases.is_empty());
        pools
            .into_iter()
            .chain(leases)
            .chain(services)
            .chain(slices)
            .chain(nodes)
            .chain(namespaces)
            .chain(cidrs)
            .chain(assigned)
            .chain(had)
            .chain(shut)
            .chain(router_id)
            .chain(router_id_of)
    }

    fn order(&mut self, peer: PeerName, order: PeerOrder) -> Touched {
        let mut orders = self.peer_orders.get(&peer).copied().unwrap_or_default();
        match order {
            PeerOrder::Reset => orders.resets = orders.resets.wrapping_add(1),
            PeerOrder::Refresh => orders.refreshes = orders.refreshes.wrapping_add(1),
            PeerOrder::Shut => orders.shut = true,
            PeerOrder::Enable => orders.shut = false,
        }
        let before = self.peer_orders.insert(peer, orders);
        if before.unwrap_or_default() == orders { Touched::Nothing } else { Touched::Peers }
    }

    /// Who has the address the planner's book knows.
    fn conflict(&mut self, address: IpAddr, link: InterfaceName, conflict: Option<Conflict>) -> Touched {
        let on_links = self.conflicts.entry(address).or_default();
        put(on_links, link, conflict);
        if on_links.is_empty() {
            self.conflicts.remove(&address);
        }
        Touched::Nothing
    }

    fn put_service(&mut self, key: ObjectKey, service: Arc<Service>) -> Touched {
        if let Some(held) = self.services.get(&key) {
            if self.is_history(&key, held, &service) {
                return Touched::Nothing;
            }
            let is_known = *held == service;
            self.ahead.remove(&key);
            if is_known {
                return Touched::Nothing;
            }
        }
        if !service.is_kept() {
            return self.drop_service(&key);
        }
        // It was the write for another version that was refused.
        self.refused.remove(&key);
        // A promise is kept until the status shows it. Standalone Services have no status: theirs stays.
        if self.assigned.get(&key).is_some_and(|addresses| *addresses == service.ingress) {
            self.assigned.remove(&key);
        }
        if !service.load_balancer {
            self.end_promise(&key);
        }
        let key = self.shared_key(key);
        self.departed.take(&key);
        self.note_former(&key, &service.ingress);
        self.services.insert(key.clone(), service);
        Touched::Services(vec![key])
    }

    fn status_written(&mut self, key: ObjectKey, service: Arc<Service>) -> Touched {
        self.refused.remove(&key);
        let Some(held) = self.services.get(&key) else { return Touched::Nothing };
        match (version(held), version(&service)) {
            (Some(before), Some(after)) if held.uid == service.uid && before < after => {
                let touched = self.put_service(key.clone(), service);
                if self.services.contains_key(&key) {
                    self.ahead.insert(key, after);
                }
                touched
            }
            _ => Touched::Nothing,
        }
    }

    /// What the Service has and will not have any more: what its status shows, and in the place of what somebody else wrote there what crier
    /// gave it.
    fn note_former(&mut self, key: &ObjectKey, shows: &[IpAddr]) {
        let Some(before) = self.services.get(key).filter(|it| it.load_balancer && !it.ingress.is_empty()) else {
            return;
        };
        if before.ingress == shows {
            return;
        }
        let given = before.given();
        let is_own = |address: &IpAddr| given.is_empty() || given.contains(address) || before.leaves(*address);
        let mut former: Vec<IpAddr> = before.ingress.iter().copied().filter(is_own).collect();
        former.extend(given.iter().filter(|address| !before.ingress.contains(address)));
        self.former.insert(key.clone(), former);
    }

    /// The answer to a status write overtakes the watch, which then tells the versions in between: they are history.
    pub fn is_history(&self, key: &ObjectKey, held: &Service, told: &Service) -> bool {
        let ahead = self.ahead.get(key).filter(|_| held.uid == told.uid);
        ahead.zip(version(told)).is_some_and(|(ahead, told)| told < *ahead)
    }

    fn drop_service(&mut self, key: &ObjectKey) -> Touched {
        self.ahead.remove(key);
        self.refused.remove(key);
        self.note_former(key, &[]);
        let was_promised = self.end_promise(key);
        self.note_departed(key);
        let was_known = self.services.remove(key).is_some() || was_promised;
        if was_known { Touched::Services(vec![key.clone()]) } else { Touched::Nothing }
    }

    /// True if there was one. Standalone, it alone tells what a Service has.
    fn end_promise(&mut self, key: &ObjectKey) -> bool {
        let Some(had) = self.assigned.remove(key) else { return false };
        if self.api_server == ApiServer::Manifests {
            self.former.insert(key.clone(), had);
        }
        true
    }

    fn note_departed(&mut self, key: &ObjectKey) {
        if self.former.contains_key(key)
            && let Some(first) = self.departed.put(key)
        {
            self.former.remove(&first);
        }
    }

    /// Slices of all Services are kept: which of them matter is known only once their Service is.
    fn put_slice(&mut self, key: ObjectKey, mut slice: Arc<EndpointSlice>) -> Touched {
        if self.endpoint_slices.get(&key) == Some(&slice) {
            return Touched::Nothing;
        }
        let key = ObjectKey { namespace: shared(&mut self.namespace_names, &key.namespace), ..key };
        if let Some(slice) = Arc::get_mut(&mut slice) {
            self.share_names(slice);
        }
        let mut touched = vec![slice.service.clone()];
        self.link_slice(&key, &slice.service);
        if let Some(before) = self.endpoint_slices.insert(key.clone(), slice)
            && before.service != touched[0]
        {
            self.unlink_slice(&key, &before.service);
            touched.push(before.service.clone());
        }
        Touched::Services(touched)
    }

    fn drop_slice(&mut self, key: &ObjectKey) -> Touched {
        match self.endpoint_slices.remove(key) {
            Some(before) => {
                self.unlink_slice(key, &before.service);
                Touched::Services(vec![before.service.clone()])
            }
            None => Touched::Nothing,
        }
    }

    fn link_slice(&mut self, key: &ObjectKey, service: &ObjectKey) {
        let before = self.slices_of.get(service).map(|keys| &**keys).unwrap_or_default();
        if !before.contains(key) {
            let keys = before.iter().chain([key]).cloned().collect();
            self.slices_of.insert(service.clone(), keys);
        }
    }

    fn unlink_slice(&mut self, key: &ObjectKey, service: &ObjectKey) {
        let Some(before) = self.slices_of.get(service) else { return };
        let keys: Arc<[ObjectKey]> = before.iter().filter(|other| *other != key).cloned().collect();
        put(&mut self.slices_of, service.clone(), Some(keys).filter(|keys| !keys.is_empty()));
    }

    /// The World's own copy of the key of a Service.
    fn shared_key(&mut self, key: ObjectKey) -> ObjectKey {
        let by_slices = self.slices_of.get_key_value(&key).map(|(known, _)| known);
        match by_slices.or_else(|| self.services.get_key_value(&key).map(|(known, _)| known)) {
            Some(known) => known.clone(),
            None => ObjectKey { namespace: shared(&mut self.namespace_names, &key.namespace), ..key },
        }
    }

    /// Replaces the names in a new slice by the World's own copies.
    fn share_names(&mut self, slice: &mut EndpointSlice) {
        slice.service = self.shared_key(slice.service.clone());
        slice.serving.share_names(|node| shared(&mut self.node_names, node));
        slice.ready.share_names(|node| shared(&mut self.node_names, node));
        slice.unready.share_names(|node| shared(&mut self.node_names, node));
        slice.ready.share_with(&slice.serving);
        slice.unready.share_with(&slice.serving);
    }

    fn listed(&mut self, listing: Listing) -> Touched {
        let was_complete = self.listed.all();
        let mut touched = Vec::new();
        let mut all = false;
        let mut collect = |it: Touched| match it {
            // Nothing that a list holds says where a peer is.
            Touched::Nothing | Touched::Peers => {}
            Touched::Services(keys) => touched.extend(keys),
            Touched::Surroundings | Touched::Everything => all = true,
        };
        match listing {
            Listing::Services(keys) => {
                // Also those to which addresses were promised before a restart.
                let known = self.services.keys().chain(self.assigned.keys());
                let gone: Vec<_> = known.filter(|key| !keys.contains(key)).cloned().collect();
                gone.iter().for_each(|key| collect(self.drop_service(key)));
                self.listed.services = true;
            }
            Listing::EndpointSlices(keys) => {
                let gone: Vec<_> = self.endpoint_slices.keys().filter(|key| !keys.contains(key)).cloned().collect();
                gone.iter().for_each(|key| collect(self.drop_slice(key)));
                self.listed.endpoint_slices = true;
            }
            Listing::Nodes(names) => {
                collect(everything_if(retain(&mut self.nodes, &names)));
                retain(&mut self.node_names, &names);
                self.listed.nodes = true;
            }
            Listing::Namespaces(names) => {
                collect(everything_if(retain(&mut self.namespaces, &names)));
                retain(&mut self.namespace_names, &names);
                self.listed.namespaces = true;
            }
            // Nothing waits for this list: an API server may lack the kind.
            Listing::ServiceCidrs(names) => collect(surroundings_if(retain(&mut self.service_cidrs, &names))),
            Listing::Pods(keys) => self.pods.list(&keys),
        }
        if all || self.listed.all() != was_complete {
            Touched::Everything
        } else if touched.is_empty() {
            Touched::Nothing
        } else {
            Touched::Services(touched)
        }
    }

    fn services_in(&self, namespace: &NamespaceName) -> Vec<ObjectKey> {
        let first = ObjectKey::new(namespace.as_str(), "");
        let inside = self.services.range(first..).take_while(|(key, _)| key.namespace == *namespace);
        inside.map(|(key, _)| key.clone()).collect()
    }
}

fn peers_if(changed: bool) -> Touched {
    if changed { Touched::Peers } else { Touched::Nothing }
}

fn surroundings_if(changed: bool) -> Touched {
    if changed { Touched::Surroundings } else { Touched::Nothing }
}

fn everything_if(changed: bool) -> Touched {
    if changed { Touched::Everything } else { Touched::Nothing }
}

/// Versions of one object can be compared as numbers (Kubernetes KEP-5504).
fn version(service: &Service) -> Option<u64> {
    service.resource_version.parse().ok()
}
