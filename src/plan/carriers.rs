//! Which nodes could announce an address over BGP, as far as the file and the labels of their Nodes say: all agents find the same. Floor 1.

use crate::config::{Advertisement, Config, Peer};
use crate::names::PoolName;
use crate::plan::remnants::advertises;
use crate::selector::{Labels, Selector};
use crate::world::Service;

/// What of the file carries the addresses that a Service has of a pool.
pub struct Carriers<'a> {
    config: &'a Config,
    pool: &'a PoolName,
    advertisements: Vec<&'a Advertisement>,
}

impl<'a> Carriers<'a> {
    pub fn of(config: &'a Config, pool: &'a PoolName, service: &Service) -> Carriers<'a> {
        let covers = |it: &&Advertisement| advertises(config, it, pool, &service.labels);
        Carriers { config, pool, advertisements: config.bgp.advertisements.iter().filter(covers).collect() }
    }

    /// A node with these labels has a peer to announce the address to.
    pub fn has_peer(&self, labels: &Labels) -> bool {
        let Carriers { config, pool, advertisements } = self;
        let vrf = config.pools.iter().find(|it| it.name == **pool).and_then(|pool| pool.vrf.as_ref());
        let selects = |selector: &Option<Selector>| selector.as_ref().is_none_or(|selector| selector.matches(labels));
        let is_within = |peer: &Peer| vrf.is_none_or(|vrf| peer.vrf.as_ref() == Some(vrf));
        let may = |peer: &Peer| !peer.shutdown && is_within(peer) && selects(&peer.nodes);
        let reaches = |it: &Advertisement| config.bgp.peers.iter().any(|peer| it.reaches(peer) && may(peer));
        advertisements.iter().any(|it| selects(&it.nodes) && reaches(it))
    }
}
