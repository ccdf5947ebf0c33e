//! Pools whose IPv6 addresses are host parts below the prefix of a link (`prefix-of`): what the links of this node make of them.
//! Floor 1.
//!
//! Agents compare what is written, which is the same on all nodes; everything else goes by the whole addresses. The link of one node
//! alone renumbers nobody: a prefix that addresses of Services lie below, and that is gone there, may be served by other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv6Net};

use crate::address::AddressRange;
use crate::config::{Config, Pool, Reservation, below};
use crate::names::{InterfaceName, NodeName};
use crate::plan::pools::pool_of;
use crate::plan::removals::TRUST;
use crate::roster::{Card, Member, Roster};
use crate::world::{Link, Renumber, Service, World};

/// How long a Service keeps an address below a former prefix beside the new one.
const OVERLAP: Duration = Duration::from_secs(600);

/// What is known of each link that a pool names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prefixes(BTreeMap<InterfaceName, Known>);

/// The prefix of a link, and what speaks of it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// `None` as long as it is not known.
    prefix: Option<Ipv6Addr>,
    away: Option<Away>,
    /// What each other node last said of its end of the link.
    heard: BTreeMap<NodeName, Arc<Card>>,
}

/// Addresses of Services lie below a prefix that this node's link does not have, although it has another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Away {
    /// This other node has it, so it goes on.
    Elsewhere { prefix: Ipv6Addr, node: NodeName },
    /// Nothing tells whether these other nodes have it. This agent, which allocates, takes the other prefix of its link for the
    /// cluster's from `until` on.
    Unknown { prefix: Ipv6Addr, instead: Ipv6Addr, nodes: BTreeSet<NodeName>, until: Instant },
}

/// What prefixes are worked out of.
pub struct Seen<'a> {
    pub config: &'a Config,
    pub me: &'a NodeName,
    pub world: &'a World,
    /// This agent begins to allocate: another one may have chosen a prefix meanwhile.
    pub leads_anew: bool,
    pub now: Instant,
}

/// Whether other nodes have a prefix.
enum Others {
    Have(NodeName),
    Lack,
    /// These do not say.
    Unknown(BTreeSet<NodeName>),
}

impl Prefixes {
    /// What the links and the other nodes say now.
    pub fn of(seen: &Seen<'_>, before: &Prefixes) -> Prefixes {
        let named = seen.config.pools.iter().filter_map(|pool| pool.prefix_of.as_ref());
        let known = |name: &InterfaceName| seen.known(name, before.0.get(name).cloned().unwrap_or_default());
        Prefixes(named.map(|name| (name.clone(), known(name))).collect())
    }

    pub fn are_those_of(&self, other: &Prefixes) -> bool {
        let prefixes = |of: &Prefixes| -> Vec<(InterfaceName, Option<Ipv6Addr>)> {
            of.0.iter().map(|(name, known)| (name.clone(), known.prefix)).collect()
        };
        prefixes(self) == prefixes(other)
    }

    /// Of the links that a file names.
    #[must_use]
    pub fn only_of(&self, config: &Config) -> Prefixes {
        let is_named = |name: &InterfaceName| config.pools.iter().any(|pool| pool.prefix_of.as_ref() == Some(name));
        Prefixes(
            self.0.iter().filter(|(name, _)| is_named(name)).map(|(name, it)| (name.clone(), it.clone())).collect(),
        )
    }

    /// Takes in what others say on a link; true where what is known depends on it.
    pub fn note_roster(&mut self, link: &InterfaceName, roster: &Roster) -> bool {
        let Some(known) = self.0.get_mut(link) else { return false };
        known.note_roster(roster);
        known.away.is_some()
    }

    /// Addresses of Services lie below prefixes that links of this node do not have.
    pub fn away(&self) -> impl Iterator<Item = (&InterfaceName, &Away)> {
        self.0.iter().filter_map(|(name, known)| Some((name, known.away.as_ref()?)))
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let until = |(_, away): (&InterfaceName, &Away)| match away {
            Away::Unknown { until, .. } => Some(*until),
            Away::Elsewhere { .. } => None,
        };
        self.away().filter_map(until).min()
    }

    /// The configuration with whole addresses.
    pub fn resolve(&self, config: &Arc<Config>) -> Arc<Config> {
        if config.pools.iter().all(|pool| pool.prefix_of.is_none()) {
            return config.clone();
        }
        let prefix = |pool: &Pool| pool.prefix_of.as_ref().and_then(|link| self.0.get(link)).and_then(|it| it.prefix);
        // What another pool has whole is that pool's, with its rules.
        let others: Vec<AddressRange> = config
            .pools
            .iter()
            .filter(|pool| pool.prefix_of.is_none())
            .flat_map(|pool| pool.addresses.clone())
            .collect();
        let whole = |pool: &Pool| {
            let Some(prefix) = prefix(pool) else { return pool.clone() };
            let pool = pool.below(prefix);
            let addresses = pool.addresses.iter().flat_map(|range| range.without(&others)).collect();
            Pool { addresses, ..pool }
        };
        let reserved = |address: &IpAddr| match *address {
            // A reservation is written as its pool is.
            IpAddr::V6(host) => {
                let pool =
                    config.pools.iter().filter(|pool| pool.prefix_of.is_some()).find(|pool| pool.holds(*address));
                pool.and_then(prefix).map_or(*address, |prefix| below(prefix, host).into())
            }
            IpAddr::V4(_) => *address,
        };
        let reservation = |it: &Reservation| Reservation {
            service: it.service.clone(),
            addresses: it.addresses.iter().map(reserved).collect(),
        };
        Arc::new(Config {
            pools: config.pools.iter().map(whole).collect(),
            reservations: config.reservations.iter().map(reservation).collect(),
            ..(**config).clone()
        })
    }
}

impl Known {
    fn note_roster(&mut self, roster: &Roster) {
        let said = roster.members.iter().filter(|(_, member)| has_said(member));
        self.heard.extend(said.map(|(name, member)| (name.clone(), member.card.clone())));
    }

    fn with(self, prefix: Option<Ipv6Addr>, away: Option<Away>) -> Known {
        Known { prefix, away, ..self }
    }
}

/// A node that was just heard has not said it yet; one without any address has no link to speak of.
fn has_said(member: &Member) -> bool {
    !member.card.subnets.is_empty()
}

impl Seen<'_> {
    /// The prefix in use as long as the link has it as one that stays, or another node has it at all; else another one of the link. A
    /// link without any keeps the one that it had.
    fn known(&self, name: &InterfaceName, mut known: Known) -> Known {
        let Some(link) = self.world.links.values().find(|link| link.name == *name) else { return known };
        if let Some(roster) = self.world.rosters.get(&link.index) {
            known.note_roster(roster);
        }
        let others = self.others(link);
        known.heard.retain(|name, _| others.contains(name));
        let (all, staying) = prefixes_on(link);
        let before = known.prefix.or(match known.away {
            Some(Away::Unknown { prefix, .. }) => Some(prefix),
            Some(Away::Elsewhere { .. }) | None => None,
        });
        let Some(first) = staying.first().or(all.first()).copied() else { return known.with(before, None) };
        if let Some(stays) = before.filter(|it| !self.leads_anew && staying.contains(it)) {
            return known.with(Some(stays), None);
        }
        let in_use = in_use(self.config, self.world, name);
        let count = |prefix: &Ipv6Addr| in_use.get(prefix).copied().unwrap_or_default();
        let used = |it: &&Ipv6Addr| count(it) > 0;
        let here = staying.iter().filter(used).max_by_key(|it| (count(it), Some(**it) == before, **it)).copied();
        let away = in_use.keys().filter(|it| !staying.contains(it)).max_by_key(|it| (count(it), Some(**it) == before));
        let away = away.copied().or(before.filter(|it| here.is_none() && !staying.contains(it)));
        let Some(away) = away.filter(|away| here.is_none_or(|here| count(away) > count(&here))) else {
            let stays = here.or(before.filter(|it| staying.contains(it)));
            return known.with(stays.or(Some(first)), None);
        };
        if staying.is_empty() {
            let stays = before.unwrap_or(if all.contains(&away) { away } else { first });
            return known.with(Some(stays), None);
        }
        let alike = |it: &&Ipv6Addr| it.is_unique_local() == away.is_unique_local();
        let instead = here.filter(|it| alike(&it)).or(staying.iter().find(alike).copied()).unwrap_or(first);
        // The router says that it goes. Where only a unique local prefix stays, the router may just not be heard any more.
        if all.contains(&away) && (alike(&&instead) || away.is_unique_local()) {
            return known.with(Some(instead), None);
        }
        match self.others_have(link, &known, away) {
            Others::Have(node) => known.with(Some(away), Some(Away::Elsewhere { prefix: away, node })),
            Others::Lack => known.with(Some(instead), None),
            // Nobody is renumbered.
            Others::Unknown(_) if count(&away) == 0 => known.with(Some(instead), None),
            Others::Unknown(_) if !self.world.allocates && !self.config.is_standalone() => known.with(Some(away), None),
            Others::Unknown(nodes) => {
                let until = match &known.away {
                    Some(Away::Unknown { prefix, until, .. }) if *prefix == away => *until,
                    Some(_) | None => self.now + TRUST,
                };
                if self.now >= until {
                    return known.with(Some(instead), None);
                }
                known.with(None, Some(Away::Unknown { prefix: away, instead, nodes, until }))
            }
        }
    }

    /// The other nodes that may have the link's segment.
    fn others(&self, link: &Link) -> BTreeSet<&NodeName> {
        let roster = self.world.rosters.get(&link.index);
        let on_link = roster.into_iter().flat_map(|it| it.members.keys().chain(it.silent.keys()).chain(it.left.keys()));
        on_link.chain(self.world.nodes.keys()).filter(|name| *name != self.me).collect()
    }

    /// By what the others say of their ends of the link, or else by the addresses of their Nodes. Who is not heard any more counts for what
    /// it said last, unless another one says that it does not have the prefix: then it may have lost it too.
    fn others_have(&self, link: &Link, known: &Known, prefix: Ipv6Addr) -> Others {
        let has =
            |card: &Card| card.subnets.iter().any(|net| net.prefix_len() <= 64 && net.contains(&IpAddr::V6(prefix)));
        let shows = |name: &NodeName| {
            let node = self.world.nodes.get(name);
            node.is_some_and(|it| it.ready && it.addresses.iter().any(|address| is_below(*address, prefix)))
        };
        // Nodes show addresses that they do not have any more, as this one does.
        let outdated = shows(self.me);
        let member = |name: &NodeName| self.world.rosters.get(&link.index)?.members.get(name).filter(|it| has_said(it));
        let (mut had, mut unknown, mut lacks) = (None, BTreeSet::new(), false);
        for name in self.others(link) {
            match member(name) {
                Some(member) if has(&member.card) => return Others::Have(name.clone()),
                Some(_) => lacks = true,
                None if !outdated && shows(name) => return Others::Have(name.clone()),
                None => {
                    if known.heard.get(name).is_some_and(|card| has(card)) {
                        had.get_or_insert(name);
                    }
                    unknown.insert(name.clone());
                }
            }
        }
        match had.filter(|_| !lacks) {
            Some(name) => Others::Have(name.clone()),
            None if unknown.is_empty() => Others::Lack,
            None => Others::Unknown(unknown),
        }
    }
}

/// The prefixes of a link that are not link-local, those that stay in front; and of these those that stay: the others are on their way out.
fn prefixes_on(link: &Link) -> (Vec<Ipv6Addr>, Vec<Ipv6Addr>) {
    let prefixes = || {
        link.addresses.iter().filter_map(|net| match net {
            IpNet::V6(net) if net.prefix_len() <= 64 && !net.addr().is_unicast_link_local() => Some(net),
            IpNet::V6(_) | IpNet::V4(_) => None,
        })
    };
    let stays = |net: &&Ipv6Net| !link.deprecated.contains(&IpAddr::V6(net.addr()));
    let prefix = |net: &Ipv6Net| below(net.network(), Ipv6Addr::UNSPECIFIED);
    (prefixes().map(prefix).collect(), prefixes().filter(stays).map(prefix).collect())
}

fn is_below(address: IpAddr, prefix: Ipv6Addr) -> bool {
    matches!(address, IpAddr::V6(address) if below(address, Ipv6Addr::UNSPECIFIED) == prefix)
}

/// How many addresses of Services lie below each prefix, of the pools of a link. What crier gave last counts twice; what a Service
/// requests itself, and Services of other load balancers, say nothing.
fn in_use(config: &Config, world: &World, link: &InterfaceName) -> BTreeMap<Ipv6Addr, usize> {
    let (of_link, others): (Vec<&Pool>, Vec<&Pool>) =
        config.pools.iter().partition(|pool| pool.prefix_of.as_ref() == Some(link));
    let is_of_link = |address: IpAddr| {
        of_link.iter().any(|pool| pool.holds_below_other_prefix(address)) && !others.iter().any(|it| it.holds(address))
    };
    let is_ours = |service: &Service| config.serves_class(service.class.as_ref());
    let held =
        world.services.values().filter(|service| service.load_balancer && is_ours(service)).flat_map(|service| {
            let requested = |address: &IpAddr| service.request.as_ref().is_ok_and(|it| it.addresses.contains(address));
            service.ingress.iter().copied().chain(service.given()).filter(move |address| !requested(address))
        });
    let promised = world.assigned.values().flatten().copied();
    let mut counts = BTreeMap::new();
    for address in held.chain(promised).filter(|address| is_of_link(*address)) {
        if let IpAddr::V6(v6) = address {
            *counts.entry(below(v6, Ipv6Addr::UNSPECIFIED)).or_default() += 1;
        }
    }
    counts
}

/// What is to become of the addresses of a Service that lie below a former prefix of their pool's link; `None` where none does, or
/// where the present prefix is not known. Addresses that the Service requests itself stay.
pub fn renumbering(pools: &[Pool], addresses: &[IpAddr], requested: &[IpAddr]) -> Option<Renumber> {
    let is_former = |address: &&IpAddr| {
        let pool = pool_of(pools, **address);
        !requested.contains(address) && pool.is_some_and(|pool| !pool.awaits_prefix() && !pool.holds(**address))
    };
    let leaving: Vec<IpAddr> = addresses.iter().filter(is_former).copied().collect();
    (!leaving.is_empty()).then_some(Renumber { leaving, overlap: OVERLAP })
}
