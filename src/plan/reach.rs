//! Where each BGP peer is to be found: the address that the configuration gives, the router heard on a link, or the
//! default gateway. Floor 1. Why a peer is nowhere is named here too; how to get there is the speaker's business.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::address::ScopedAddress;
use crate::config::{self, PeerAddress};
use crate::names::InterfaceName;
use crate::reason::Reason;
use crate::world::{Link, SessionState, World};

/// Where the peer is now. `before` is where it was a moment ago, if anywhere.
///
/// An established session is proof that its peer is there, and better proof than any advertisement, which everybody on a
/// link can send. So it holds a peer on a link at its address as long as the link is up, and a peer at the gateway
/// while there is no default route. It does not hold a gateway against a default route that leads elsewhere.
pub(super) fn address(
    settings: &config::Peer,
    before: Option<&ScopedAddress>,
    world: &World,
) -> Result<ScopedAddress, Reason> {
    let session = world.sessions.get(&settings.name);
    let proven = before.filter(|_| session.is_some_and(|session| session.state == SessionState::Established));
    match &settings.address {
        PeerAddress::Fixed(address) => Ok(address.clone()),
        PeerAddress::Interface(interface) => on_link(interface, proven, world),
        PeerAddress::Gateway => gateway(world).or_else(|reason| proven.cloned().ok_or(reason)),
    }
}

/// The links on which routers are looked for: those of unnumbered peers, as far as they can carry a session now.
pub(super) fn unnumbered_links(peers: &[Arc<config::Peer>], world: &World) -> BTreeMap<u32, InterfaceName> {
    let wanted = peers.iter().filter_map(|peer| match &peer.address {
        PeerAddress::Interface(interface) => Some(interface),
        PeerAddress::Fixed(_) | PeerAddress::Gateway => None,
    });
    let usable = wanted.filter_map(|interface| usable_link(interface, world).ok());
    usable.map(|link| (link.index, link.name.clone())).collect()
}

fn on_link(interface: &InterfaceName, proven: Option<&ScopedAddress>, world: &World) -> Result<ScopedAddress, Reason> {
    let link = usable_link(interface, world)?;
    if let Some(proven) = proven.filter(|proven| proven.interface.as_ref() == Some(interface)) {
        return Ok(proven.clone());
    }
    // Of several routers the one that was heard first is taken, until it falls silent.
    let heard = world.routers.get(&link.index).and_then(|routers| routers.first());
    match heard.or_else(|| world.callers.get(&link.index)) {
        Some(router) => Ok(ScopedAddress { ip: IpAddr::V6(*router), interface: Some(interface.clone()) }),
        None => Err(Reason::NoRouterHeard { interface: interface.clone() }),
    }
}

fn usable_link<'w>(interface: &InterfaceName, world: &'w World) -> Result<&'w Link, Reason> {
    let interface = interface.clone();
    let Some(link) = world.links.values().find(|link| link.name == interface) else {
        return Err(Reason::NoSuchInterface { interface });
    };
    if !link.up || !link.carrier {
        return Err(Reason::LinkDown { interface });
    }
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if !link.addresses.iter().any(|net| link_local(net.addr())) {
        return Err(Reason::NoLinkLocalAddress { interface });
    }
    Ok(link)
}

/// The gateway of the preferred default route, of IPv4 if that has one.
///
/// Of a default route with several next hops only the first is a peer; a session to each of them takes
/// as many `[[bgp.peer]]` with their addresses.
fn gateway(world: &World) -> Result<ScopedAddress, Reason> {
    let of_family = |v4: bool| {
        let routes = world.default_routes.iter().filter(move |route| route.gateway.is_ipv4() == v4);
        routes.filter_map(|route| scoped(route.gateway, route.link, world)).next()
    };
    of_family(true).or_else(|| of_family(false)).ok_or(Reason::NoDefaultRoute)
}

/// `None` where the link of a link-local gateway is not known (yet).
fn scoped(ip: IpAddr, link: u32, world: &World) -> Option<ScopedAddress> {
    let interface = match ip {
        IpAddr::V6(v6) if is_link_local(v6) => Some(world.links.get(&link)?.name.clone()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    Some(ScopedAddress { ip, interface })
}

fn is_link_local(v6: Ipv6Addr) -> bool {
    v6.is_unicast_link_local()
}
