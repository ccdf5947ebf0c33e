//! What a running agent says of BGP: the JSON behind `crier bgp peers` and `crier bgp routes`. Floor 3.
//! As in `report`, fields are only ever added. The loop hands out a [`BgpSnapshot`], which costs next to nothing however
//! many routes there are; whoever asked makes the report of it, outside of the loop.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::report::{PeerReport, SCHEMA_VERSION, peer_report};
use crate::address::Family;
use crate::community::Community;
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::Planner;
use crate::plan::decision::Decision;
use crate::plan::join::Dispute;
use crate::plan::slice::{BgpSlice, PeerSlice};
use crate::route::RouteAttributes;
use crate::world::{NegotiatedReport, SessionReport};

/// All that the reports are made of, as it stood at one moment.
#[derive(Debug, Clone)]
pub struct BgpSnapshot {
    node: NodeName,
    bgp: BgpSlice,
    decisions: OrdMap<ObjectKey, Arc<Decision>>,
    disputes: OrdMap<(PeerName, IpNet), Arc<Vec<Dispute>>>,
    sessions: OrdMap<PeerName, SessionReport>,
}

/// `crier bgp peers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeersReport {
    pub schema_version: u32,
    pub node: NodeName,
    pub peers: Vec<PeerReport>,
}

/// `crier bgp routes`: by prefix, and below that by peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoutesReport {
    pub schema_version: u32,
    pub node: NodeName,
    pub routes: Vec<RouteReport>,
}

/// One route to one peer, as the session sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteReport {
    pub prefix: IpNet,
    pub peer: PeerName,
    pub state: RouteState,
    /// Why it is not sent, where it is not.
    pub why: Option<String>,
    /// `None` without a session, and where the session has none for the family.
    pub next_hop: Option<IpAddr>,
    /// `None` as long as no session says whether the peer is internal.
    pub as_path: Option<Vec<u32>>,
    pub med: Option<u32>,
    /// To internal peers only.
    pub local_preference: Option<u32>,
    /// With the link bandwidth; without a session those of the advertisements alone.
    pub communities: Vec<Community>,
    /// How many local endpoints the link bandwidth stands for.
    pub endpoints: Option<u32>,
    /// Whose addresses it carries.
    pub services: Vec<ObjectKey>,
    /// Advertisements that say something else of it.
    pub disputes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// The peer has it.
    Sent,
    /// The session still has something to send, and this may be a part of it.
    Pending,
    /// The session cannot carry it.
    Unsendable,
    /// There is no session.
    Waiting,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteState::Sent => "sent",
            RouteState::Pending => "pending",
            RouteState::Unsendable => "unsendable",
            RouteState::Waiting => "waiting",
        })
    }
}

/// Which routes are asked for; all fields empty for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutesFilter {
    pub peer: Option<PeerName>,
    /// The longest route of each peer that holds all of it.
    pub prefix: Option<IpNet>,
}

/// No peer of this node has the name.
#[derive(Debug, thiserror::Error)]
#[error("there is no peer \"{name}\" on this node; there are: {}", .known.iter().map(PeerName::as_str).collect::<Vec<_>>().join(", "))]
pub struct UnknownPeer {
    pub name: PeerName,
    pub known: Vec<PeerName>,
}

impl BgpSnapshot {
    pub fn of(planner: &Planner, node: &NodeName) -> BgpSnapshot {
        let plan = planner.plan();
        BgpSnapshot {
            node: node.clone(),
            bgp: plan.bgp.clone(),
            decisions: plan.decisions.clone(),
            disputes: plan.disputes.clone(),
            sessions: planner.world().sessions.clone(),
        }
    }

    /// What the session says; nothing while nobody knows where the peer is.
    fn session(&self, name: &PeerName) -> Option<&SessionReport> {
        let known = self.bgp.peers.get(name).is_some_and(|peer| peer.address.is_ok());
        self.sessions.get(name).filter(|_| known)
    }

    fn wanted(&self, name: Option<&PeerName>) -> Result<Vec<(&PeerName, &PeerSlice)>, UnknownPeer> {
        let wanted: Vec<_> =
            self.bgp.peers.iter().filter(|(known, _)| name.is_none_or(|name| name == *known)).collect();
        match name {
            Some(name) if wanted.is_empty() => {
                Err(UnknownPeer { name: name.clone(), known: self.bgp.peers.keys().cloned().collect() })
            }
            Some(_) | None => Ok(wanted),
        }
    }

    pub fn peers(&self, name: Option<&PeerName>) -> Result<PeersReport, UnknownPeer> {
        let report = |(name, peer): (&PeerName, &PeerSlice)| peer_report(name, peer, self.sessions.get(name));
        let peers = self.wanted(name)?.into_iter().map(report).collect();
        Ok(PeersReport { schema_version: SCHEMA_VERSION, node: self.node.clone(), peers })
    }

    pub fn routes(&self, filter: &RoutesFilter) -> Result<RoutesReport, UnknownPeer> {
        let mut found: Vec<(IpNet, &PeerName, &Arc<RouteAttributes>)> = Vec::new();
        for (name, peer) in self.wanted(filter.peer.as_ref())? {
            match &filter.prefix {
                None => found.extend(peer.routes.iter().map(|(prefix, route)| (*prefix, name, route))),
                Some(wanted) => {
                    let longest = (0..=wanted.prefix_len()).rev().find_map(|length| {
                        let prefix = IpNet::new(wanted.addr(), length).ok()?.trunc();
                        peer.routes.get(&prefix).map(|route| (prefix, name, route))
                    });
                    found.extend(longest);
                }
            }
        }
        found.sort_by_key(|(prefix, name, _)| (*prefix, (*name).clone()));
        let services = self.services_of(&found);
        let routes = found.into_iter().map(|(prefix, name, route)| {
            let services = services.get(&(name, prefix)).cloned().unwrap_or_default();
            let disputes = self.disputes.get(&(name.clone(), prefix));
            let in_words = |it: &Dispute| format!("{}: {} is announced, {} is not", it.key, it.kept, it.ignored);
            let disputes = disputes.map(|all| all.iter().map(in_words).collect()).unwrap_or_default();
            RouteReport { services, disputes, ..route_report(prefix, name, route, self.session(name)) }
        });
        let routes = routes.collect();
        Ok(RoutesReport { schema_version: SCHEMA_VERSION, node: self.node.clone(), routes })
    }

    /// Whose addresses the routes carry: one look at every decision, whatever the number of routes.
    fn services_of<'s>(
        &'s self,
        routes: &[(IpNet, &'s PeerName, &Arc<RouteAttributes>)],
    ) -> BTreeMap<(&'s PeerName, IpNet), Vec<ObjectKey>> {
        let mut of: BTreeMap<(&PeerName, IpNet), Vec<ObjectKey>> =
            routes.iter().map(|(prefix, name, _)| ((*name, *prefix), Vec::new())).collect();
        for (key, decision) in &self.decisions {
            for carrier in decision.announcements.iter().flat_map(|announcement| &announcement.bgp.routes) {
                for peer in &carrier.peers {
                    if let Some(services) = of.get_mut(&(peer, carrier.prefix))
                        && services.last() != Some(key)
                    {
                        services.push(key.clone());
                    }
                }
            }
        }
        of
    }
}

/// The route as its session sends it, with no Services and no disputes.
fn route_report(
    prefix: IpNet,
    peer: &PeerName,
    route: &RouteAttributes,
    session: Option<&SessionReport>,
) -> RouteReport {
    let negotiated = session.and_then(|session| session.detail.negotiated.as_ref());
    let family = Family::of(prefix.addr());
    let carried = negotiated.and_then(|negotiated| negotiated.families.iter().find(|it| it.family == family));
    let pending = session.map_or(0, |session| session.detail.prefixes_pending);
    let (state, why) = match (carried, carried.and_then(|carried| carried.unsendable.clone())) {
        (_, Some(why)) => (RouteState::Unsendable, Some(why)),
        _ if session.is_some_and(|session| session.detail.too_long.contains(&prefix)) => {
            let why = "its attributes alone fill the longest message of this session".to_owned();
            (RouteState::Unsendable, Some(why))
        }
        (None, None) => (RouteState::Waiting, Some("there is no session with the peer".to_owned())),
        (Some(_), None) if pending > 0 => {
            (RouteState::Pending, Some(format!("of this session's routes, {pending} are still to be sent")))
        }
        (Some(_), None) => (RouteState::Sent, None),
    };
    let internal = negotiated.map(|NegotiatedReport { local_asn, peer_asn, .. }| local_asn == peer_asn);
    let path = |negotiated: &NegotiatedReport| match negotiated.local_asn == negotiated.peer_asn {
        true => Vec::new(),
        false => vec![negotiated.local_asn; 1 + usize::from(route.prepend)],
    };
    RouteReport {
        prefix,
        peer: peer.clone(),
        state,
        why,
        next_hop: carried.and_then(|carried| carried.next_hop),
        as_path: negotiated.map(path),
        med: route.med,
        local_preference: match internal {
            Some(true) => Some(route.local_preference.unwrap_or(RouteAttributes::DEFAULT_LOCAL_PREFERENCE)),
            Some(false) | None => None,
        },
        communities: match negotiated {
            Some(negotiated) => route.communities_from(negotiated.local_asn),
            None => route.communities.clone(),
        },
        endpoints: route.endpoints,
        services: Vec::new(),
        disputes: Vec::new(),
    }
}
