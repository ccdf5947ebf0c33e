//! By which rules several Services have one address: MetalLB's, and that they are of one namespace unless the pool allows more.
//! Floor 1. Pure rules: the [`AddressBook`](super::address_book::AddressBook) keeps who brings which terms and asks here.

use std::collections::BTreeMap;

use crate::names::ObjectKey;
use crate::reason::Mismatch;
use crate::selector::Labels;
use crate::world::{Service, ServicePort, Sharing, TrafficPolicy};

/// What a Service with a sharing key brings to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub key: String,
    pub backends: Backends,
    pub ports: Vec<ServicePort>,
}

/// Where the traffic of a Service may go. Who shares an address shares the nodes that draw its traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backends {
    /// External traffic policy Cluster: every node reaches every pod.
    AllNodes,
    /// External traffic policy Local: only the nodes of the pods that this selects.
    NodesOf(Labels),
}

/// So many Services share an address at most, unless more have it already. What is new of one of them is judged for all, so more would keep the agent from its work.
const MOST_TENANTS: usize = 256;

/// A Service that claims an address. `None` for one that shares no address.
pub type Claimant<'a> = (&'a ObjectKey, Option<&'a Terms>);

/// Why a Service may not have an address that others have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The Service that it does not go with.
    pub with: ObjectKey,
    /// `None` where the refused Service has no sharing key.
    pub why: Option<Mismatch>,
}

/// The Services that claim one address, parted by the rules.
#[derive(Debug, Default)]
pub struct Group<'a> {
    tenants: Vec<Claimant<'a>>,
    ports: BTreeMap<&'a ServicePort, &'a ObjectKey>,
}

impl Terms {
    pub fn of(service: &Service) -> Option<Terms> {
        let Sharing { key, selector } = service.sharing.as_deref()?;
        let backends = match service.external_traffic_policy {
            TrafficPolicy::Cluster => Backends::AllNodes,
            TrafficPolicy::Local => Backends::NodesOf(selector.clone()),
        };
        Some(Terms { key: key.clone(), backends, ports: service.ports.clone() })
    }
}

impl<'a> Group<'a> {
    /// Those who may have an address together out of `claimants`: each one that goes with all who were admitted before.
    /// The others are answered beside, each with what it does not go with. Takes time in proportion to their ports.
    pub fn of(
        claimants: impl IntoIterator<Item = Claimant<'a>>,
        across: bool,
    ) -> (Group<'a>, Vec<(&'a ObjectKey, Refusal)>) {
        let (mut group, mut refused) = (Group::default(), Vec::new());
        for claimant in claimants {
            match group.fits(claimant, across) {
                Ok(()) => group.add(claimant),
                Err(refusal) => refused.push((claimant.0, refusal)),
            }
        }
        (group, refused)
    }

    pub fn tenants(&self) -> impl Iterator<Item = &'a ObjectKey> {
        self.tenants.iter().map(|(service, _)| *service)
    }

    /// Whether a Service may join those who are in. More than [`MOST_TENANTS`] nobody joins; those who have the address stay.
    pub fn admits(&self, claimant: Claimant<'_>, across: bool) -> Result<(), Refusal> {
        self.fits(claimant, across)?;
        match self.tenants.first() {
            Some((first, _)) if self.tenants.len() >= MOST_TENANTS => {
                Err(Refusal { with: (*first).clone(), why: Some(Mismatch::Full { most: MOST_TENANTS }) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a Service goes with all who are in. `across`: Services of several namespaces may share the address.
    pub fn fits(&self, (service, terms): Claimant<'_>, across: bool) -> Result<(), Refusal> {
        // Key, backends and namespace are the same for all who are in, so the first stands for them.
        let Some((first, theirs)) = self.tenants.iter().find(|(tenant, _)| *tenant != service) else { return Ok(()) };
        let refusal = |with: &ObjectKey, why| Err(Refusal { with: with.clone(), why });
        let Some(terms) = terms else { return refusal(first, None) };
        let Some(theirs) = theirs else { return refusal(first, Some(Mismatch::NotShared)) };
        if let Some(mismatch) = mismatch((service, terms), (first, theirs), across) {
            return refusal(first, Some(mismatch));
        }
        for port in &terms.ports {
            if let Some(other) = self.ports.get(port).filter(|other| **other != service) {
                let ServicePort { protocol, port } = port.clone();
                return refusal(other, Some(Mismatch::Port { protocol, port }));
            }
        }
        Ok(())
    }

    fn add(&mut self, claimant: Claimant<'a>) {
        let (service, terms) = claimant;
        self.tenants.push(claimant);
        self.ports.extend(terms.into_iter().flat_map(|terms| &terms.ports).map(|port| (port, service)));
    }
}

/// What of two Services differs that must not, ports aside.
fn mismatch(
    (service, own): (&ObjectKey, &Terms),
    (other, theirs): (&ObjectKey, &Terms),
    across: bool,
) -> Option<Mismatch> {
    if own.key != theirs.key {
        return Some(Mismatch::Key { own: own.key.clone(), other: theirs.key.clone() });
    }
    if service.namespace != other.namespace && !across {
        return Some(Mismatch::Namespace);
    }
    match (&own.backends, &theirs.backends) {
        (Backends::AllNodes, Backends::AllNodes) => None,
        (Backends::NodesOf(own), Backends::NodesOf(other)) if own == other => None,
        (Backends::NodesOf(_), Backends::NodesOf(_)) => Some(Mismatch::Selector),
        (Backends::AllNodes, Backends::NodesOf(_)) => Some(Mismatch::Policy { other: "Local".to_owned() }),
        (Backends::NodesOf(_), Backends::AllNodes) => Some(Mismatch::Policy { other: "Cluster".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Backends = Backends::AllNodes;

    fn local(app: &str) -> Backends {
        Backends::NodesOf(Labels([("app", app)].into()))
    }

    fn terms(key: &str, backends: Backends, ports: &[(&str, u16)]) -> Terms {
        let port = |(protocol, port): &(&str, u16)| ServicePort { protocol: (*protocol).to_owned(), port: *port };
        Terms { key: key.to_owned(), backends, ports: ports.iter().map(port).collect() }
    }

    /// What the second Service is refused with; nothing where both may have the address.
    fn second(
        one: Option<Terms>,
        other: Option<Terms>,
        namespaces: [&str; 2],
        across: bool,
    ) -> Option<Option<Mismatch>> {
        let [a, b] = [ObjectKey::new(namespaces[0], "a"), ObjectKey::new(namespaces[1], "b")];
        let (group, refused) = Group::of([(&a, one.as_ref()), (&b, other.as_ref())], across);
        assert_eq!(group.tenants().count() + refused.len(), 2);
        refused.into_iter().map(|(_, refusal)| refusal.why).next()
    }

    #[test]
    fn two_services_share_an_address_only_by_every_rule() {
        let web = || terms("k", CLUSTER, &[("TCP", 80)]);
        let of_one = |one: Terms, other: Terms| second(Some(one), Some(other), ["shop", "shop"], false);
        assert_eq!(of_one(web(), terms("k", CLUSTER, &[("TCP", 443)])), None);
        assert_eq!(of_one(web(), terms("k", CLUSTER, &[("UDP", 80)])), None, "another protocol is another port");
        assert_eq!(of_one(web(), terms("k", CLUSTER, &[])), None);
        let port = Mismatch::Port { protocol: "TCP".to_owned(), port: 80 };
        assert_eq!(of_one(web(), terms("k", CLUSTER, &[("TCP", 443), ("TCP", 80)])), Some(Some(port)));
        let key = Mismatch::Key { own: "K".to_owned(), other: "k".to_owned() };
        assert_eq!(of_one(web(), terms("K", CLUSTER, &[("TCP", 443)])), Some(Some(key)));
        let policy = Mismatch::Policy { other: "Cluster".to_owned() };
        assert_eq!(of_one(web(), terms("k", local("web"), &[("TCP", 443)])), Some(Some(policy)));
        let on_pods = |app, port| terms("k", local(app), &[("TCP", port)]);
        assert_eq!(of_one(on_pods("web", 80), on_pods("web", 443)), None, "the same pods");
        assert_eq!(of_one(on_pods("web", 80), on_pods("api", 443)), Some(Some(Mismatch::Selector)));
    }

    #[test]
    fn who_has_no_key_shares_nothing() {
        let shared = || Some(terms("k", CLUSTER, &[("TCP", 80)]));
        assert_eq!(second(None, None, ["shop", "shop"], true), Some(None));
        assert_eq!(second(shared(), None, ["shop", "shop"], true), Some(None));
        assert_eq!(second(None, shared(), ["shop", "shop"], true), Some(Some(Mismatch::NotShared)));
    }

    #[test]
    fn namespaces_share_an_address_only_where_the_pool_says_so() {
        let of_port = |port| Some(terms("k", CLUSTER, &[("TCP", port)]));
        assert_eq!(second(of_port(1), of_port(2), ["shop", "bank"], false), Some(Some(Mismatch::Namespace)));
        assert_eq!(second(of_port(1), of_port(2), ["shop", "bank"], true), None);
    }

    /// Whoever comes from MetalLB, which has no bound, comes with what it has.
    #[test]
    fn the_bound_is_for_those_who_join_and_not_for_those_who_have_the_address() {
        let count = u16::try_from(MOST_TENANTS).unwrap() + 44;
        let all: Vec<(ObjectKey, Terms)> = (0..count)
            .map(|it| (ObjectKey::new("shop", &format!("m{it:03}")), terms("k", CLUSTER, &[("TCP", it)])))
            .collect();
        let (group, refused) = Group::of(all.iter().map(|(service, terms)| (service, Some(terms))), false);
        assert_eq!((group.tenants().count(), refused), (usize::from(count), Vec::new()));
        let (newcomer, own) = (ObjectKey::new("shop", "new"), terms("k", CLUSTER, &[("TCP", count)]));
        let refusal = group.admits((&newcomer, Some(&own)), false).expect_err("it is full");
        assert_eq!(refusal.why, Some(Mismatch::Full { most: MOST_TENANTS }));
    }

    #[test]
    fn the_one_refused_stands_in_the_way_of_nobody() {
        let [a, b, c] = ["a", "b", "c"].map(|name| ObjectKey::new("shop", name));
        let of_ports = |ports: &[(&str, u16)]| terms("k", CLUSTER, ports);
        let (one, two, three) =
            (of_ports(&[("TCP", 80)]), of_ports(&[("TCP", 80), ("TCP", 443)]), of_ports(&[("TCP", 443)]));
        let (group, refused) = Group::of([(&a, Some(&one)), (&b, Some(&two)), (&c, Some(&three))], false);
        assert_eq!(group.tenants().collect::<Vec<_>>(), [&a, &c]);
        assert_eq!(refused.iter().map(|(service, _)| *service).collect::<Vec<_>>(), [&b]);
    }
}
