//! What another configuration would change: one World judged twice, by the configuration in use and by the other.
//! Floor 1. It changes nothing and waits for nothing: `crier plan` and `crier config diff` show it.
//!
//! It is judged as if this agent allocated, and each status showed what it is given: first by the configuration in use, then, from
//! there, as if every agent of the cluster had the other. What would happen anyway is no difference.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use crate::config::{self, Config, Source};
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::planner::Turn;
use crate::plan::removals::NOTICE;
use crate::plan::slice::{Notice, PeerSlice};
use crate::plan::{Planner, Presumed, everywhere};
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::world::{ClusterConfig, Fact, PoolsTold, Service, World};

/// What would be different. Everything that is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    pub services: Vec<ServiceChange>,
    pub owners: Vec<OwnerChange>,
    /// Of this node.
    pub routes: Vec<RouteChange>,
    /// Of this node.
    pub peers: Vec<PeerChange>,
    /// Services whose addresses go on changing for longer than was looked at: what is said of them is not how it ends.
    pub unsettled: BTreeSet<ObjectKey>,
}

/// A Service with other addresses, or of which what it asks for can be met no more, or is met now.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceChange {
    pub service: ObjectKey,
    pub before: Vec<IpAddr>,
    pub after: Vec<IpAddr>,
    /// Why it has the addresses after, or none; what is the matter all the same goes before.
    pub reason: Reason,
}

/// An address for which another node is ranked first on the link.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnerChange {
    pub service: ObjectKey,
    pub address: IpAddr,
    /// `None` where no node may answer.
    pub before: Option<NodeName>,
    pub after: Option<NodeName>,
}

/// A route to a peer that comes, goes or changes. `None` stands for no route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteChange {
    pub peer: PeerName,
    pub prefix: IpNet,
    pub before: Option<Arc<RouteAttributes>>,
    pub after: Option<Arc<RouteAttributes>>,
}

/// A BGP peer that comes, goes or is configured differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerChange {
    pub peer: PeerName,
    pub difference: PeerDifference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerDifference {
    Added,
    Removed,
    /// The keys of `[[bgp.peer]]` with other values; `router-id` also where that of `[bgp]` is another one, `bfd` where its profile is.
    Changed(Vec<&'static str>),
}

/// Why nothing can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForecastError {
    #[error(
        "the agent does not know all Services, EndpointSlices, Nodes and links yet; ask again when `crier status` shows no list that is waited for"
    )]
    Incomplete,
    #[error(
        "the file reads Services from another place ({after}) than the running agent ({before}): nothing can be compared"
    )]
    OtherSource { before: &'static str, after: &'static str },
}

/// What would be different under `after` for the node `me`, which knows `world` and runs with `before`.
pub fn forecast(
    (before, after): (&Arc<Config>, &Arc<Config>),
    me: &NodeName,
    (world, presumed): (&World, &Presumed),
    now: Instant,
) -> Result<Forecast, ForecastError> {
    let sources = [before, after].map(|config| source(&config.source));
    if sources[0] != sources[1] {
        return Err(ForecastError::OtherSource { before: sources[0], after: sources[1] });
    }
    let files = (before, after);
    let who = (me, presumed);
    let (before, mut unsettled) = settled(before, who, world.clone(), now).ok_or(ForecastError::Incomplete)?;
    let mut world = before.world().clone();
    world.rosters = everywhere::rosters(files.0, files.1, me, &world);
    // What the ConfigMap is to have is part of it.
    world.cluster_config = ClusterConfig::Current;
    let (after, more) = settled(after, who, world, now).ok_or(ForecastError::Incomplete)?;
    unsettled.extend(more);
    let keys: BTreeSet<&ObjectKey> = [&before, &after].iter().flat_map(|it| it.plan().decisions.keys()).collect();
    let services = keys.iter().filter_map(|key| service_change(&before, &after, key)).collect();
    let owners = keys.iter().flat_map(|key| owner_changes(&before, &after, key)).collect();
    let (routes, peers) = (route_changes(&before, &after), peer_changes(&before, &after));
    Ok(Forecast { services, owners, routes, peers, unsettled })
}

fn source(source: &Source) -> &'static str {
    match source {
        Source::Kubernetes(_) => "[kubernetes]",
        Source::Manifests(_) => "[manifests]",
    }
}

/// How often statuses are written at the least. The second time finds what was given because of the first, the third time nothing.
const ROUNDS: usize = 4;

/// For how many judgements more rounds are made.
const JUDGEMENTS: usize = 200_000;

/// How often statuses are written at the most. Where Services take each other's places one after the other, each round brings at least
/// one to the place where it stays.
fn most_rounds(world: &World) -> usize {
    let services = world.services.len();
    (ROUNDS + services).min(ROUNDS.max(JUDGEMENTS / services.max(1)))
}

/// The plan once each status shows what it is to show, and the Services of which one does not after all rounds. `None` where too little
/// is known for a plan.
fn settled(
    config: &Arc<Config>,
    (me, presumed): (&NodeName, &Presumed),
    mut world: World,
    now: Instant,
) -> Option<(Planner, BTreeSet<ObjectKey>)> {
    // Without a pool no agent has anything to give, and none takes the Lease.
    let allocates = config.is_standalone() || !config.pools.is_empty();
    (world.allocates, world.leaving) = (allocates, false);
    let (mut rounds, mut now) = (most_rounds(&world), now);
    // One planner to the end, as an agent has it: it remembers who was given what first, and which addresses rest.
    let mut planner = Planner::of_agreed(config.clone(), me.clone(), world, presumed);
    if !planner.may_decide() {
        return None;
    }
    loop {
        turn_and_tell(&mut planner, now);
        // What goes was told long enough then.
        now += NOTICE;
        turn_and_tell(&mut planner, now);
        let written = written(&planner);
        let rests_until = planner.rests_until().filter(|_| written.is_empty());
        if rounds == 0 || (written.is_empty() && rests_until.is_none()) {
            return Some((planner, written.into_iter().map(|(key, _)| key).collect()));
        }
        rounds -= 1;
        now = rests_until.map_or(now, |until| until.max(now));
        for (key, service) in written {
            planner.apply(Fact::Service(key, Some(Arc::new(service))));
        }
    }
}

/// One turn, after which the API server has taken what is to be told before an address goes.
pub(super) fn turn_and_tell(planner: &mut Planner, now: Instant) -> Turn {
    let turn = planner.turn(now);
    let statuses = planner.plan().status.services.iter();
    let goes = statuses.filter(|(_, status)| status.notice.as_ref().is_some_and(Notice::is_loss));
    let told: Vec<ObjectKey> = goes.map(|(key, _)| key.clone()).collect();
    if !told.is_empty() {
        told.into_iter().for_each(|key| planner.apply(Fact::RemovalTold(key)));
        planner.turn(now);
    }
    turn
}

/// The Services whose statuses are to be written, as they are then.
fn written(planner: &Planner) -> Vec<(ObjectKey, Service)> {
    let services = planner.plan().status.services.iter().filter_map(|(key, status)| {
        let write = status.write.clone()?;
        let service = planner.world().services.get(key)?;
        let not_vip = if write.ingress.is_some() { Vec::new() } else { service.not_vip.clone() };
        let ingress = write.ingress.unwrap_or_else(|| service.ingress.clone());
        let pools_told = PoolsTold::Nothing;
        let condition = write.condition.map(Arc::new);
        Some((key.clone(), Service { ingress, not_vip, pools_told, condition, ..(**service).clone() }))
    });
    services.collect()
}

fn service_change(before: &Planner, after: &Planner, key: &ObjectKey) -> Option<ServiceChange> {
    let addresses = |planner: &Planner| -> BTreeSet<IpAddr> {
        let decision = planner.plan().decisions.get(key);
        decision.iter().flat_map(|it| it.allocation.held.iter().map(|held| held.address)).collect()
    };
    let (had, has) = (addresses(before), addresses(after));
    let allocation = &after.plan().decisions.get(key).or_else(|| before.plan().decisions.get(key))?.allocation;
    let reason = allocation.complaint.as_ref().unwrap_or(&allocation.reason);
    let complaint = |planner: &Planner| {
        let decision = planner.plan().decisions.get(key);
        decision.and_then(|it| it.allocation.complaint.as_ref()).map(Reason::code)
    };
    (had != has || complaint(before) != complaint(after)).then(|| ServiceChange {
        service: key.clone(),
        before: had.into_iter().collect(),
        after: has.into_iter().collect(),
        reason: reason.clone(),
    })
}

/// Of the addresses that the Service has under both. Where it has another address, that is the news.
fn owner_changes(before: &Planner, after: &Planner, key: &ObjectKey) -> Vec<OwnerChange> {
    let (had, has) = (before.ranked_first(key), after.ranked_first(key));
    let both = had.into_iter().filter_map(|(address, before)| {
        let (_, after) = has.iter().find(|(other, _)| *other == address)?;
        (before != *after).then(|| OwnerChange { service: key.clone(), address, before, after: after.clone() })
    });
    both.collect()
}

fn route_changes(before: &Planner, after: &Planner) -> Vec<RouteChange> {
    // A peer without an address, such as one that is shut down, gets none.
    let routes = |planner: &Planner, peer: &PeerName, prefix: &IpNet| {
        let peer = planner.plan().bgp.peers.get(peer).filter(|slice| slice.address.is_ok());
        peer.and_then(|slice| slice.routes.get(prefix)).cloned()
    };
    let named = |(peer, slice): (&PeerName, &PeerSlice)| -> Vec<(PeerName, IpNet)> {
        slice.routes.keys().map(|prefix| (peer.clone(), *prefix)).collect()
    };
    let all: BTreeSet<(PeerName, IpNet)> =
        [before, after].iter().flat_map(|planner| planner.plan().bgp.peers.iter().flat_map(named)).collect();
    let changes = all.into_iter().filter_map(|(peer, prefix)| {
        let (before, after) = (routes(before, &peer, &prefix), routes(after, &peer, &prefix));
        (before != after).then_some(RouteChange { peer, prefix, before, after })
    });
    changes.collect()
}

fn peer_changes(before: &Planner, after: &Planner) -> Vec<PeerChange> {
    let (had, has) = (&before.plan().bgp.peers, &after.plan().bgp.peers);
    // An agent that runs keeps the one that it chose until the file sets another.
    let is_set = [before, after].iter().any(|planner| planner.config().bgp.router_id.is_some());
    let other_id = is_set && before.plan().bgp.router_id != after.plan().bgp.router_id;
    let profiles = [before, after].map(|planner| &planner.plan().bfd.peers);
    let other_profile = |name: &PeerName| {
        let [before, after] = profiles.map(|peers| peers.get(name).map(|peer| &peer.profile));
        before.is_some() && after.is_some() && before != after
    };
    let names: BTreeSet<&PeerName> = had.keys().chain(has.keys()).collect();
    let changes = names.into_iter().filter_map(|name| {
        let difference = match (had.get(name), has.get(name)) {
            (None, _) => PeerDifference::Added,
            (Some(_), None) => PeerDifference::Removed,
            (Some(before), Some(after)) => {
                let mut keys = config::differing_keys(&before.settings, &after.settings);
                let of_bgp = before.settings.router_id.is_none() && after.settings.router_id.is_none();
                if of_bgp && other_id {
                    keys.push("router-id");
                }
                if other_profile(name) && !keys.contains(&"bfd") {
                    keys.push("bfd");
                }
                if keys.is_empty() && before.settings == after.settings {
                    return None;
                }
                PeerDifference::Changed(keys)
            }
        };
        Some(PeerChange { peer: name.clone(), difference })
    });
    changes.collect()
}
