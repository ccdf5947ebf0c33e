//! The route table: which Service wants which route to which peer, the route that all of them make together, and where
//! they cannot be joined. Several Services meet in one route where prefixes are aggregated.
//! Floor 1. It keeps; `verdict::bgp` decides what a Service wants, and `join` how several become one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::config;
use crate::names::{ObjectKey, PeerName};
use crate::plan::join::{Disagreement, Said, disputes_of, join};
use crate::plan::verdict::Contribution;
use crate::route::RouteAttributes;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// What each Service wants. Never empty lists.
    wanted: BTreeMap<ObjectKey, Box<[Contribution]>>,
    /// What is said about each route. One map for all of them: most routes are wanted by one Service, and a map of its own for
    /// each would cost many times what it holds.
    by_route: ByRoute,
    /// Routes that are wanted otherwise than when they were joined last. Each is joined once a turn, however many of the Services in
    /// it changed: else a table of n Services in one aggregate would cost n² to build.
    unsettled: BTreeSet<(PeerName, IpNet)>,
    joined: BTreeMap<PeerName, OrdMap<IpNet, Arc<RouteAttributes>>>,
    disputes: OrdMap<(PeerName, IpNet), Arc<Vec<Disagreement>>>,
    /// The disputes that began or changed since they were last taken.
    begun: Vec<(PeerName, IpNet)>,
    internal: BTreeSet<PeerName>,
    shared: Shared,
    moved: bool,
}

impl RouteTable {
    /// Which peers there are: what is a dispute depends on whether a session stays inside the AS.
    pub fn set_peers(&mut self, peers: &[Arc<config::Peer>]) {
        self.internal = peers.iter().filter(|peer| peer.is_internal()).map(|peer| peer.name.clone()).collect();
    }

    /// All that a Service wants from now on. Nothing is joined before [`RouteTable::settle`].
    pub fn put(&mut self, service: &ObjectKey, wanted: Vec<Contribution>) {
        let before = self.wanted.get(service).map(|it| &**it).unwrap_or_default();
        if before == wanted {
            return;
        }
        for Contribution { peer, prefix, advertisement, .. } in self.wanted.remove(service).into_iter().flatten() {
            self.unsettled.insert((peer.clone(), prefix));
            self.by_route.remove(&(peer, prefix, service.clone(), advertisement));
        }
        for Contribution { peer, prefix, advertisement, attributes } in &wanted {
            let attributes = self.shared.share(attributes.clone());
            self.unsettled.insert((peer.clone(), *prefix));
            self.by_route.insert((peer.clone(), *prefix, service.clone(), *advertisement), attributes);
        }
        if !wanted.is_empty() {
            self.wanted.insert(service.clone(), wanted.into());
        }
    }

    /// Joins the routes that changed. Costs time in proportion to who wants them.
    pub fn settle(&mut self) {
        std::mem::take(&mut self.unsettled).into_iter().for_each(|route| self.renew(route));
    }

    /// The routes to a peer, as they were last settled.
    pub fn routes_to(&self, peer: &PeerName) -> OrdMap<IpNet, Arc<RouteAttributes>> {
        self.joined.get(peer).cloned().unwrap_or_default()
    }

    /// Routes about which advertisements say what cannot be joined.
    pub fn disputes(&self) -> &OrdMap<(PeerName, IpNet), Arc<Vec<Disagreement>>> {
        &self.disputes
    }

    /// The disputes that began or changed since the last call.
    pub fn take_begun(&mut self) -> Vec<(PeerName, IpNet)> {
        self.settle();
        std::mem::take(&mut self.begun)
    }

    /// Whether a route or a dispute changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        self.settle();
        std::mem::take(&mut self.moved)
    }

    fn renew(&mut self, route: (PeerName, IpNet)) {
        let said = said_about(&self.by_route, &route);
        let joined = join(&said);
        let found = disputes_of(&said, self.internal.contains(&route.0));
        let joined = joined.map(|attributes| self.shared.share(attributes));
        self.put_dispute(&route, found);
        let (peer, prefix) = route;
        let routes = self.joined.entry(peer).or_default();
        if routes.get(&prefix) == joined.as_ref() {
            return;
        }
        self.moved = true;
        match joined {
            Some(attributes) => drop(routes.insert(prefix, attributes)),
            None => drop(routes.remove(&prefix)),
        }
    }

    fn put_dispute(&mut self, route: &(PeerName, IpNet), found: Vec<Disagreement>) {
        if self.disputes.get(route).map(|known| known.as_slice()).unwrap_or_default() == found {
            return;
        }
        self.moved = true;
        if found.is_empty() {
            self.disputes.remove(route);
        } else {
            self.disputes.insert(route.clone(), Arc::new(found));
            self.begun.push(route.clone());
        }
    }
}

/// By peer, prefix, Service and number of the `[[bgp.advertisement]]`.
type ByRoute = BTreeMap<(PeerName, IpNet, ObjectKey, usize), Arc<RouteAttributes>>;

/// What is said about one route, in order of Service.
fn said_about<'a>(by_route: &'a ByRoute, (peer, prefix): &(PeerName, IpNet)) -> Vec<Said<'a>> {
    let first = (peer.clone(), *prefix, ObjectKey::new("", ""), 0);
    let of_route = by_route.range(first..).take_while(|((of, to, _, _), _)| of == peer && to == prefix);
    of_route.map(|((_, _, service, advertisement), attributes)| (service, *advertisement, attributes)).collect()
}

/// One `Arc` for each value, so that routes that are worth the same share it.
#[derive(Debug, Default)]
struct Shared {
    known: BTreeSet<Arc<RouteAttributes>>,
    /// How many there may be before those that nobody uses any more are looked for.
    limit: usize,
}

impl Shared {
    fn share(&mut self, attributes: Arc<RouteAttributes>) -> Arc<RouteAttributes> {
        if let Some(known) = self.known.get(&attributes) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.limit = self.known.len().max(LEAST_SHARED) * 2;
        }
        self.known.insert(attributes.clone());
        attributes
    }
}

/// So few are not worth looking through.
const LEAST_SHARED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(prefix: &str, advertisement: usize, med: Option<u32>) -> Contribution {
        let attributes =
            RouteAttributes { local_preference: None, med, prepend: 0, communities: Vec::new(), endpoints: None };
        Contribution {
            peer: "tor".into(),
            prefix: prefix.parse().unwrap(),
            advertisement,
            attributes: Arc::new(attributes),
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn a_route_stands_until_the_last_service_that_wants_it_is_gone() {
        let mut table = RouteTable::default();
        let to_tor =
            |table: &RouteTable| table.routes_to(&"tor".into()).keys().map(ToString::to_string).collect::<Vec<_>>();
        table.put(&key("one"), vec![wants("192.0.2.0/24", 0, None)]);
        assert!(table.take_moved());
        table.put(&key("two"), vec![wants("192.0.2.0/24", 0, None)]);
        assert!(!table.take_moved(), "the second Service changes nothing for the peer");
        table.put(&key("one"), Vec::new());
        table.settle();
        assert_eq!(to_tor(&table), ["192.0.2.0/24"]);
        table.put(&key("two"), Vec::new());
        table.settle();
        assert!(to_tor(&table).is_empty() && table.take_moved());
        assert!(table.wanted.is_empty() && table.by_route.is_empty(), "nothing is kept of Services that are gone");
    }

    #[test]
    fn a_dispute_is_told_once_and_ends_with_one_of_its_sides() {
        let mut table = RouteTable::default();
        table.put(&key("one"), vec![wants("192.0.2.0/24", 0, Some(1))]);
        table.put(&key("two"), vec![wants("192.0.2.0/24", 1, Some(2))]);
        assert_eq!(table.take_begun().len(), 1);
        table.put(&key("three"), vec![wants("192.0.2.0/24", 1, Some(2))]);
        assert_eq!(table.take_begun(), [], "a third side that says the same is no news");
        assert_eq!(table.disputes().len(), 1);
        table.put(&key("one"), Vec::new());
        table.settle();
        assert!(table.disputes().is_empty());
    }

    /// D13 of the field cases: the first plan of 10,000 Services in one aggregate took 2.9 s.
    #[test]
    fn a_route_that_many_services_share_is_joined_once_for_all_of_them() {
        let mut table = RouteTable::default();
        for service in 0..10_000 {
            table.put(&key(&format!("s{service}")), vec![wants("192.0.2.0/24", 0, None)]);
        }
        assert_eq!(table.unsettled.len(), 1);
        assert!(table.joined.is_empty(), "nothing was joined yet");
        assert!(table.take_moved() && table.unsettled.is_empty());
        assert_eq!(table.routes_to(&"tor".into()).len(), 1);
    }
}
