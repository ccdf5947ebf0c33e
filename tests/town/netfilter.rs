//! What the kernel of a host does with outbound connections of pods: crier's table as nftables holds it, conntrack, the routes to owners, and the
//! masquerade of a CNI behind crier's translation. The table is made of the [`Content`] that `crier::egress` puts into the kernel, and
//! packets go through its chains in the order of their hooks, as the head of `egress::ruleset` draws them. IPv4, and no lists of
//! destinations, extra networks or new pods that are held.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::egress::machine::Ways;
use crier::egress::packet::Connection;
use crier::egress::ruleset::Content;
use crier::egress::stale::Judge;
use crier::plan::slice::{Hop, Mapping};

/// For so long conntrack knows a connection of UDP.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Somewhere outside of the cluster.
pub const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// What a pod sends, at any place on its way.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub source: IpAddr,
    pub port: u16,
}

/// What became of a packet on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    /// To another node, with the source that it came with.
    Led {
        via: IpAddr,
        source: IpAddr,
    },
    /// To the router.
    Left {
        source: IpAddr,
    },
}

pub struct Kernel {
    own: IpAddr,
    /// A table that belongs to a socket outlasts it (Linux 6.9): then a flush passes it over. Else there is a second guard, which does not.
    outlasts: bool,
    table: Option<Table>,
    second: Option<Table>,
    /// The next hops of the slots' tables; `None`: unreachable.
    routes: BTreeMap<u8, Option<IpAddr>>,
    /// By source and port, with the source that packets leave with.
    connections: BTreeMap<(IpAddr, u16), (IpAddr, Instant)>,
    /// Once the agent is ready: kubelet waits for that, and with it pods and their network.
    pub forwards: bool,
}

struct Table {
    content: Arc<Content>,
    addresses: BTreeSet<IpAddr>,
}

impl Table {
    fn of(content: &Arc<Content>) -> Table {
        Table { content: content.clone(), addresses: content.translated() }
    }

    /// `map source`
    fn source(&self, pod: IpAddr) -> Option<IpAddr> {
        match self.content.pods.get(&pod)? {
            Mapping::Held | Mapping::Networked(_) => None,
            Mapping::Translated { address, network: _ } => Some(*address),
            Mapping::Steered { slot: _ } => Some(pod),
        }
    }

    /// `chain steer`
    fn slot(&self, pod: IpAddr) -> Option<u8> {
        match self.content.pods.get(&pod)? {
            Mapping::Steered { slot } => Some(*slot),
            Mapping::Held | Mapping::Networked(_) | Mapping::Translated { .. } => None,
        }
    }

    /// `chain foreign`: from a pod of another node that is not known.
    fn is_foreign(&self, source: IpAddr) -> bool {
        let Content { foreign, pods, .. } = &*self.content;
        let is_of_pods = foreign.networks.iter().any(|net| net.contains(&source));
        !foreign.links.is_empty() && is_of_pods && !pods.contains_key(&source)
    }

    /// `chain guard`: what a pod opened leaves with `source` by `next`.
    fn drops(&self, opener: IpAddr, source: IpAddr, next: Option<IpAddr>) -> bool {
        let Content { via, pods, .. } = &*self.content;
        let to_owner = next.is_some_and(|next| via.contains(&next)) && self.source(source).is_some();
        let of_pod = pods.contains_key(&source);
        !to_owner && (of_pod || (!self.addresses.contains(&source) && pods.contains_key(&opener)))
    }
}

impl Kernel {
    pub fn new(own: IpAddr, outlasts: bool) -> Kernel {
        Kernel {
            own,
            outlasts,
            table: None,
            second: None,
            routes: BTreeMap::new(),
            connections: BTreeMap::new(),
            forwards: false,
        }
    }

    /// The pods that the guard knows.
    pub fn guarded(&self) -> BTreeSet<IpAddr> {
        self.table.iter().flat_map(|table| table.content.pods.keys().copied()).collect()
    }

    /// As the next agent reads it from the table.
    pub fn ways(&self) -> Ways {
        let Some(Table { content, .. }) = &self.table else { return Ways::default() };
        let leads = |(pod, mapping): (&IpAddr, &Mapping)| (*mapping != Mapping::Held).then_some((*pod, *mapping));
        Ways { pods: content.pods.iter().filter_map(leads).collect(), via: content.via.clone() }
    }

    /// One change; false: it was one of a table that is not there. `makes`: the whole table.
    pub fn put(&mut self, content: &Arc<Content>, makes: bool) -> bool {
        if self.table.is_none() && !makes {
            return false;
        }
        self.table = Some(Table::of(content));
        self.second = (!self.outlasts).then(|| Table::of(content));
        true
    }

    pub fn remove(&mut self) {
        (self.table, self.second) = (None, None);
    }

    /// `nft flush ruleset`; true: the table is gone.
    pub fn flush(&mut self) -> bool {
        !self.outlasts && self.table.take().is_some()
    }

    /// The socket of the agent is closed.
    pub fn close(&mut self) {
        self.second = None;
    }

    /// As `kernel::steering` has them: what is wanted no more goes where that `removes`.
    pub fn route(&mut self, hops: &BTreeMap<u8, [Option<Hop>; 2]>, removes: bool) {
        let via = |[v4, _]: &[Option<Hop>; 2]| match v4 {
            Some(Hop::Link { via, link: _ }) => Some(*via),
            Some(Hop::Tunnel { .. }) | None => None,
        };
        self.routes.extend(hops.iter().map(|(slot, hops)| (*slot, via(hops))));
        if removes {
            self.routes.retain(|slot, _| hops.contains_key(slot));
        }
    }

    /// Ends connections in conntrack.
    pub fn forget(&mut self, judge: Judge<'_>, is_former: bool) {
        self.connections.retain(|(source, _), (leaves_as, _)| {
            let connection = Connection::between(*source, OUTSIDE, *leaves_as);
            let ends = if is_former { judge.is_former(&connection) } else { judge.is_stale(&connection) };
            !(judge.pods.contains(source) && ends)
        });
    }

    /// What the host does with a packet from one of its pods, or `by_link` from another node.
    pub fn forward(&mut self, Sent { source, port }: Sent, by_link: bool, now: Instant) -> Fate {
        if !self.forwards {
            return Fate::Dropped;
        }
        let known = self.connections.get(&(source, port)).filter(|(_, seen)| now < *seen + FORGOTTEN);
        // Prerouting, and the routes.
        let slot = self.table.as_ref().and_then(|table| table.slot(source));
        let next = match slot.and_then(|slot| self.routes.get(&slot)) {
            Some(Some(via)) => Some(*via),
            Some(None) => return Fate::Dropped,
            // Without a rule for the mark the main table leads to the router.
            None => None,
        };
        let tables = || self.table.iter().chain(&self.second);
        if by_link && tables().any(|table| table.is_foreign(source)) {
            return Fate::Dropped;
        }
        // Postrouting: a source is chosen by the first packet of a connection alone.
        let leaves_as = match known {
            Some((leaves_as, _)) => *leaves_as,
            None => self.table.as_ref().and_then(|table| table.source(source)).unwrap_or(self.own),
        };
        if tables().any(|table| table.drops(source, leaves_as, next)) {
            return Fate::Dropped;
        }
        self.connections.insert((source, port), (leaves_as, now));
        match next {
            Some(via) => Fate::Led { via, source: leaves_as },
            None => Fate::Left { source: leaves_as },
        }
    }
}
