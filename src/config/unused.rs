//! What a configuration without mistakes is most likely not meant to be: pools whose addresses reach no client, peers that are sent
//! nothing, and what can never come into force. Floor 1.

use std::net::IpAddr;

use super::ineffective::ineffective;
use super::{Advertisement, Config, InterfacePattern, Kubernetes, L2, Peer, PeerAddress, Pool, Source};
use crate::address::is_too_wide;
use crate::names::{InterfaceName, PoolName};
use crate::selector::Selector;

/// One line for each, with the remedy. `whole`: what the ConfigMap has that it names is part of it.
pub fn unused(config: &Config, whole: bool) -> Vec<String> {
    let elsewhere = match &config.source {
        Source::Kubernetes(kubernetes) => kubernetes.config.as_ref().filter(|_| !whole),
        Source::Manifests(_) => None,
    };
    let elsewhere = elsewhere.map_or(String::new(), |name| format!(", unless the ConfigMap {name} has it"));
    let mut all = Vec::new();
    all.extend(config.pools.iter().filter_map(|pool| of_pool(config, pool, &elsewhere)));
    all.extend(config.bgp.peers.iter().filter_map(|peer| of_peer(config, peer, &elsewhere)));
    all.extend(numbered(&config.l2).filter(|(_, l2)| l2.excludes_all()).map(|(number, _)| {
        format!(
            "[[l2]] no. {number}: exclude-interfaces takes every interface away that it is for: it announces nothing"
        )
    }));
    all.extend(
        numbered(&config.l2).filter(|(_, l2)| l2.interfaces.contains(&InterfacePattern::Exact("lo".into()))).map(
            |(number, _)| format!("[[l2]] no. {number}: nobody hears ARP or NDP on lo: it announces nothing there"),
        ),
    );
    all.extend(numbered(&config.bgp.advertisements).filter_map(|(number, it)| of_advertisement(config, number, it)));
    all.extend(selectors(config));
    all.extend(reservations(config));
    all.extend(profiles(config, &elsewhere));
    all.extend(loopback(config));
    all.extend(in_pools(config));
    all.extend(peers_in_pools(config));
    all.extend(peers_of_one_router(config));
    all.extend(unused_ports(config));
    all.extend(without_class(config));
    all.extend(cluster_networks(config));
    all.extend(ineffective(config));
    all
}

/// Networks that count as inside of the cluster, and are more than a cluster: what pods send there leaves with no Service's address.
fn cluster_networks(config: &Config) -> impl Iterator<Item = String> {
    config.egress.cluster_networks.iter().filter_map(|net| {
        let holds = |pool: &&Pool| pool.addresses.iter().any(|range| net.contains(&range.first()) || net.contains(&range.last()));
        let what = match config.pools.iter().find(holds) {
            Some(pool) => format!("holds addresses of the pool {}, so it is more than the cluster's own networks", pool.name),
            None if is_too_wide(net) => "is wider than any cluster".to_owned(),
            None => return None,
        };
        Some(format!(
            "[egress] cluster-networks: {net} {what}: what pods send there leaves without the address of their Service; name the \
             networks of pods and Services alone"
        ))
    })
}

/// A class of its own, and every Service that names none: so does any other crier of the cluster.
fn without_class(config: &Config) -> Option<String> {
    let Source::Kubernetes(kubernetes) = &config.source else { return None };
    (kubernetes.default_class && !kubernetes.has_default_class_name()).then(|| {
        format!(
            "[kubernetes] default-class is true beside the class {}: Services without a class are served too, as by any other crier or \
             load balancer of the cluster that does so; set default-class = false, or, where this is the only one, name \"{}\" in classes too",
            kubernetes.classes.join(", "),
            Kubernetes::DEFAULT_CLASS,
        )
    })
}

/// The entries of a list with their numbers in the file.
fn numbered<T>(entries: &[T]) -> impl Iterator<Item = (usize, &T)> {
    entries.iter().enumerate().map(|(at, entry)| (at.saturating_add(1), entry))
}

fn covers(pools: &[PoolName], pool: &Pool) -> bool {
    pools.is_empty() || pools.contains(&pool.name)
}

/// Whether both may be in one VRF: what names none is in any.
fn may_meet(one: Option<&InterfaceName>, other: Option<&InterfaceName>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn of_pool(config: &Config, pool: &Pool, elsewhere: &str) -> Option<String> {
    let (name, peers) = (&pool.name, &config.bgp.peers);
    let l2: Vec<&L2> = config.l2.iter().filter(|it| covers(&it.pools, pool)).collect();
    let has_peer = |it: &&Advertisement| peers.iter().any(|peer| !peer.shutdown && may_tell(it, peer));
    let advertisements = config.bgp.advertisements.iter().filter(|it| covers(&it.pools, pool)).filter(has_peer);
    let advertisements: Vec<&Advertisement> = advertisements.collect();
    if l2.is_empty() && advertisements.is_empty() {
        return Some(format!(
            "pool {name}: no [[l2]] covers it, and no [[bgp.advertisement]] with a [[bgp.peer]] that is on its nodes and not shut down: \
             its addresses go nowhere; write one of them{elsewhere}"
        ));
    }
    let mut given = pool.given().into_iter().flat_map(|range| range.iter()).take(SOON_SEEN).peekable();
    if given.peek().is_some() && given.all(|address| pool.avoids(address)) {
        return Some(format!(
            "pool {name}: avoid-network-and-broadcast leaves none of its addresses: it gives nothing"
        ));
    }
    let vrf = pool.vrf.as_ref()?;
    let on_link = l2.iter().any(|it| may_meet(it.vrf.as_ref(), Some(vrf)));
    let to_peer = |it: &&Advertisement| peers.iter().any(|peer| it.reaches(peer) && peer.vrf.as_ref() == Some(vrf));
    (!on_link && !advertisements.iter().any(to_peer)).then(|| {
        format!(
            "pool {name}: it is announced in the VRF {vrf} alone, and no [[l2]] that covers it is in this VRF, and no [[bgp.peer]] that it \
             is advertised to: its addresses go nowhere; name the same vrf{elsewhere}"
        )
    })
}

fn of_peer(config: &Config, peer: &Peer, elsewhere: &str) -> Option<String> {
    let is_sent = peer.shutdown || config.bgp.advertisements.iter().any(|it| it.reaches(peer));
    let name = &peer.name;
    (!is_sent).then(|| {
        format!("peer {name}: no [[bgp.advertisement]] covers it: nothing is announced to it; write one{elsewhere}")
    })
}

/// Peers of one address for nodes that may be the same. Where the selectors are the same text, the file is refused.
fn peers_of_one_router(config: &Config) -> impl Iterator<Item = String> {
    let given = config.bgp.peers.iter().filter(|it| !it.shutdown && matches!(it.address, PeerAddress::Fixed(_)));
    let endpoint = |peer: &Peer| (peer.address.clone(), peer.port, peer.vrf.clone());
    let peers: Vec<&Peer> = given.collect();
    let pairs = (0..peers.len()).flat_map(move |second| (0..second).map(move |first| (first, second)));
    pairs.filter_map(move |(first, second)| {
        let (first, second) = (*peers.get(first)?, *peers.get(second)?);
        let both = first.nodes.as_ref().zip(second.nodes.as_ref());
        let may_meet = both.is_none_or(|(one, other)| one.and(other).impossible().is_none());
        let (one, other) = (first.source_address, second.source_address);
        let (may_be_one, when, or) = match one == other {
            true => (true, "", ""),
            // The one that is left open may be chosen like the other.
            false => (
                one.is_none() || other.is_none(),
                ", where both leave from one address",
                " or give each a source-address of its own",
            ),
        };
        (endpoint(first) == endpoint(second) && may_be_one && may_meet).then(|| {
            format!(
                "peer {}: a node that its nodes and those of peer {} match has one session with {}{when}, that of one of the two, and \
                 shows the other as a problem; let their nodes exclude each other{or}",
                second.name, first.name, second.address
            )
        })
    })
}

/// In a row at most two addresses are left out, and a pool of more such rows has hardly been written.
const SOON_SEEN: usize = 1024;

/// Some node may be told by the peer's section and the advertisement's alike.
fn may_tell(advertisement: &Advertisement, peer: &Peer) -> bool {
    let both = advertisement.nodes.as_ref().zip(peer.nodes.as_ref());
    advertisement.reaches(peer) && both.is_none_or(|(one, other)| one.and(other).impossible().is_none())
}

/// Addresses of VRFs, of their routers and of other nodes that a Service may get.
fn in_pools(config: &Config) -> impl Iterator<Item = String> {
    let own = config.vrfs.iter().flat_map(|vrf| vrf.addresses.iter().map(move |net| (vrf, "its address", net.addr())));
    let vias = config.vrfs.iter().flat_map(|vrf| vrf.routes.iter().map(move |route| (vrf, "its router", route.via)));
    let of_vrfs = own.chain(vias).map(|(vrf, what, address)| (format!("vrf {}: {what}", vrf.name), address));
    let nodes = config.pulse.peers.iter().map(|address| ("[pulse] peers: the node".to_owned(), *address));
    of_vrfs.chain(nodes).filter_map(|(whose, address)| {
        let pool = &config.pools.iter().find(|pool| pool.holds(address) && !pool.excludes(address))?.name;
        Some(format!(
            "{whose} {address} is in pool {pool}, so a Service may get it too; leave it out of the pool: exclude = [\"{address}\"]"
        ))
    })
}

/// Addresses of sessions and next hops that a Service may get.
fn peers_in_pools(config: &Config) -> impl Iterator<Item = String> {
    let of_peer = |peer: &'_ Peer| {
        let next_hops =
            [("next-hop", peer.next_hop.map(IpAddr::from)), ("next-hop-v6", peer.next_hop_v6.map(IpAddr::from))];
        let router = match &peer.address {
            PeerAddress::Fixed(address) => Some(address.ip),
            PeerAddress::Interface(_) | PeerAddress::Gateway => None,
        };
        let all = [("address", router), ("source-address", peer.source_address)].into_iter().chain(next_hops);
        let name = peer.name.clone();
        all.filter_map(move |(key, address)| Some((name.clone(), key, address?))).collect::<Vec<_>>()
    };
    config.bgp.peers.iter().flat_map(of_peer).filter_map(|(peer, key, address)| {
        let pool = &config.pools.iter().find(|pool| pool.holds(address) && !pool.excludes(address))?.name;
        Some(format!(
            "peer {peer}: its {key} {address} is in pool {pool}, so a Service may get it too; leave it out of the pool: \
             exclude = [\"{address}\"]"
        ))
    })
}

/// Ports that are never dialled.
fn unused_ports(config: &Config) -> impl Iterator<Item = String> {
    let passive = config.bgp.peers.iter().filter(|peer| peer.passive && peer.port != DEFAULT_PORT);
    passive.map(|peer| {
        format!(
            "peer {}: port = {} is what crier dials, and a passive peer is never dialled: remove port or passive; the port that crier \
             listens on is in listen of [bgp]",
            peer.name, peer.port
        )
    })
}

/// Of `port`.
const DEFAULT_PORT: u16 = 179;

/// An advertisement whose peers are all in another VRF, or on other nodes.
fn of_advertisement(config: &Config, number: usize, advertisement: &Advertisement) -> Option<String> {
    let named = |peer: &&Peer| advertisement.peers.is_empty() || advertisement.peers.contains(&peer.name);
    let mut named = config.bgp.peers.iter().filter(named).peekable();
    named.peek()?;
    let whose = format!("[[bgp.advertisement]] no. {number}");
    let (reached, told): (Vec<bool>, Vec<bool>) =
        named.map(|peer| (advertisement.reaches(peer), may_tell(advertisement, peer))).unzip();
    match &advertisement.vrf {
        Some(vrf) if !reached.contains(&true) => Some(format!(
            "{whose}: none of its peers is in the VRF {vrf}: it announces nothing; name the vrf of a peer"
        )),
        // Of a selector that matches nothing by itself is told elsewhere.
        _ if !told.contains(&true) && advertisement.nodes.as_ref().is_none_or(|it| it.impossible().is_none()) => {
            Some(format!("{whose}: its nodes are those of none of its peers: it announces nothing; make nodes meet"))
        }
        _ => None,
    }
}

/// Selectors that match nothing, ever.
fn selectors(config: &Config) -> impl Iterator<Item = String> {
    let mut all: Vec<(String, &str, Option<&Selector>)> = Vec::new();
    for pool in &config.pools {
        let name = || format!("pool {}", pool.name);
        all.push((name(), "namespace-selector", pool.namespace_selector.as_ref()));
        all.push((name(), "service-selector", pool.service_selector.as_ref()));
    }
    for (number, l2) in numbered(&config.l2) {
        let name = || format!("[[l2]] no. {number}");
        all.push((name(), "nodes", l2.nodes.as_ref()));
        all.push((name(), "service-selector", l2.service_selector.as_ref()));
        all.extend(l2.preference.iter().map(|it| (name(), "nodes of preference", Some(&it.nodes))));
    }
    for peer in &config.bgp.peers {
        all.push((format!("peer {}", peer.name), "nodes", peer.nodes.as_ref()));
    }
    for (number, advertisement) in numbered(&config.bgp.advertisements) {
        let name = || format!("[[bgp.advertisement]] no. {number}");
        all.push((name(), "nodes", advertisement.nodes.as_ref()));
        all.push((name(), "service-selector", advertisement.service_selector.as_ref()));
    }
    all.into_iter().filter_map(|(whose, key, selector)| {
        let selector = selector?;
        let label = selector.impossible()?;
        Some(format!(
            "{whose}: {key} = \"{selector}\" matches nothing: no label {label} is all of this at once; several values are written {label} in \
             (a, b)"
        ))
    })
}

/// Reserved addresses that not even their Service is given.
fn reservations(config: &Config) -> impl Iterator<Item = String> {
    let each =
        config.reservations.iter().flat_map(|it| it.addresses.iter().map(move |address| (&it.service, *address)));
    each.filter_map(|(service, address)| {
        let pool = config.pools.iter().find(|pool| pool.holds(address))?;
        let name = &pool.name;
        let is_for_others = pool.namespace_selector.is_none()
            && !pool.namespaces.is_empty()
            && !pool.namespaces.contains(&service.namespace);
        let why = match (is_for_others, pool.draining) {
            (true, _) => format!("its pool {name} is not for the namespace {}", service.namespace),
            (false, true) => format!("its pool {name} is draining, and gives nothing"),
            (false, false) if pool.avoids(address) => format!("avoid-network-and-broadcast of its pool {name}"),
            (false, false) => return None,
        };
        Some(format!("[[reservation]] of {service}: {why}: nobody is given {address}"))
    })
}

fn profiles(config: &Config, elsewhere: &str) -> impl Iterator<Item = String> {
    let is_used = |name: &String| config.bgp.peers.iter().any(|peer| peer.bfd.as_ref() == Some(name));
    let names = config.bfd.iter().map(|profile| &profile.name).filter(move |name| !is_used(name));
    names.map(move |name| {
        format!("[[bfd]] {name}: no [[bgp.peer]] names it by bfd, so it watches nobody; name it there{elsewhere}")
    })
}

/// The kernel takes the loopback interface into no VRF: the device of a VRF is its loopback.
fn loopback(config: &Config) -> impl Iterator<Item = String> {
    let with_it = config.vrfs.iter().filter(|vrf| vrf.interfaces.iter().any(|it| it.as_str() == "lo"));
    with_it.map(|vrf| {
        format!(
            "[[vrf]] {}: the kernel takes lo into no VRF; remove it from interfaces: the VRF has a loopback of its own",
            vrf.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};

    const POOLS: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.0/24\"]\n\
                         [[pool]]\nname = \"wan\"\naddresses = [\"10.2.0.0/24\"]\n";
    const PEER: &str = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";

    fn told(source: &str, more: &str) -> Vec<String> {
        told_of(source, more, false)
    }

    fn told_of(source: &str, more: &str, whole: bool) -> Vec<String> {
        let file = SourceFile { path: "test.toml".to_owned(), text: format!("{source}\n{POOLS}{more}") };
        unused(&parse(&[file], &NoSecrets).expect("it is good"), whole)
    }

    #[test]
    fn pools_that_go_nowhere_and_peers_that_are_sent_nothing_are_told() {
        let named = |more: &str| {
            let all = told("[manifests]\nfolder = \"/m\"", more);
            all.iter().map(|it| it.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(named(PEER), ["pool lan", "pool wan", "peer tor"]);
        assert_eq!(named(&format!("{PEER}[[l2]]\npools = [\"lan\"]\n")), ["pool wan", "peer tor"]);
        assert_eq!(named(&format!("{PEER}[[bgp.advertisement]]\npools = [\"wan\"]\n")), ["pool lan"]);
        assert_eq!(named(&format!("{PEER}[[bgp.advertisement]]\n")), [""; 0]);
        assert_eq!(named("[bgp]\nasn = 64513\n[[bgp.advertisement]]\n"), ["pool lan", "pool wan"], "to nobody");
        assert_eq!(named(&format!("{PEER}shutdown = true\n[[l2]]\n")), [""; 0], "it is sent nothing on purpose");
    }

    #[test]
    fn an_address_of_a_vrf_that_a_service_may_get_is_told() {
        let vrf = "[[l2]]\n[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\naddresses = [\"10.1.0.7/24\", \"10.9.0.7/24\"]\n";
        let all = told("[manifests]\nfolder = \"/m\"", vrf);
        let [only] = all.as_slice() else { panic!("{all:?}") };
        assert!(only.starts_with("vrf red: its address 10.1.0.7 is in pool lan") && only.contains("exclude"), "{only}");
        // The last key of the last pool.
        let excluded = vrf.replace(
            "[[l2]]",
            "[[pool]]\nname = \"x\"\naddresses = [\"10.9.0.0/24\"]\nexclude = [\"10.9.0.7\"]\n[[l2]]",
        );
        assert_eq!(told("[manifests]\nfolder = \"/m\"", &excluded).len(), 1, "it is left out there");
    }

    /// Input: the address of the session and next hops in a pool, one of them left out of it; and a port to dial of a peer that
    /// is never dialled. Output: a line for each.
    #[test]
    fn addresses_of_a_peer_that_a_service_may_get_and_ports_that_are_never_dialled_are_told() {
        let with =
            |more: &str| told("[manifests]\nfolder = \"/m\"", &format!("[[l2]]\n{PEER}{more}[[bgp.advertisement]]\n"));
        let one = |more: &str| match with(more).as_slice() {
            [only] => only.clone(),
            all => panic!("{more}: {all:?}"),
        };
        // A Service was given the router's address.
        let router = with("[[pool]]\nname = \"x\"\naddresses = [\"10.0.0.0/24\"]\n");
        assert!(router.len() == 1 && router[0].contains("its address 10.0.0.1 is in pool x"), "{router:?}");
        let pulse = with("[pulse]\nunauthenticated = true\npeers = [\"10.1.0.9\"]\n");
        assert!(
            pulse.len() == 1 && pulse[0].starts_with("[pulse] peers: the node 10.1.0.9 is in pool lan"),
            "{pulse:?}"
        );
        let route = "routes = [{ to = \"0.0.0.0/0\", via = \"10.1.0.1\" }]\n";
        let vrf = format!("[[vrf]]\nname = \"red\"\ntable = 1001\nmanage = true\ninterfaces = [\"eth1\"]\n{route}");
        let via = with(&vrf);
        assert!(via.len() == 1 && via[0].starts_with("vrf red: its router 10.1.0.1 is in pool lan"), "{via:?}");
        for key in ["source-address", "next-hop"] {
            let line = one(&format!("{key} = \"10.1.0.7\"\n"));
            assert!(line.starts_with(&format!("peer tor: its {key} 10.1.0.7 is in pool lan")), "{line}");
            assert!(line.ends_with("exclude = [\"10.1.0.7\"]"), "{line}");
        }
        let excluded = "[[pool]]\nname = \"x\"\naddresses = [\"fd35::100-fd35::1ff\"]\nexclude = [\"fd35::111\"]\n";
        assert!(
            one(&format!("next-hop-v6 = \"fd35::110\"\n{excluded}")).contains("next-hop-v6 fd35::110 is in pool x")
        );
        assert_eq!(with(&format!("next-hop-v6 = \"fd35::111\"\n{excluded}")), [""; 0]);
        assert_eq!(with("source-address = \"10.0.0.11\"\nnext-hop = \"10.0.0.11\"\n"), [""; 0]);

        let line = one("passive = true\nport = 1\n");
        assert!(
            line.starts_with("peer tor: port = 1 is what crier dials, and a passive peer is never dialled"),
            "{line}"
        );
        assert_eq!((with("passive = true\n"), with("port = 1\n")), (Vec::new(), Vec::new()));
    }

    /// Input: networks of the cluster that hold a pool, or half of all addresses, beside sound ones. Output: what they take egress from.
    #[test]
    fn cluster_networks_that_are_more_than_a_cluster_are_told() {
        for (net, words) in [
            ("10.0.0.0/8", Some("10.0.0.0/8 holds addresses of the pool lan")),
            ("10.2.0.128/25", Some("holds addresses of the pool wan")),
            ("128.0.0.0/1", Some("128.0.0.0/1 is wider than any cluster")),
            ("fd00::/8", Some("fd00::/8 is wider than any cluster")),
            ("10.244.0.0/16", None),
            ("fd00:244::/48", None),
        ] {
            let all =
                told("[manifests]\nfolder = \"/m\"", &format!("[[l2]]\n[egress]\ncluster-networks = [\"{net}\"]\n"));
            match words {
                Some(words) => assert!(all.len() == 1 && all[0].contains(words), "{net}: {all:?}"),
                None => assert_eq!(all, [""; 0], "{net}"),
            }
        }
    }

    /// Input: two peers of one address, for nodes that may be the same ones, and for nodes that never are. Output: a line for the
    /// first.
    #[test]
    fn peers_of_one_router_that_one_node_may_match_are_told() {
        for (nodes, more, count) in [
            (["rack=a", "row=7"], "", 1),
            (["rack=a", "rack in (a, b)"], "", 1),
            (["rack=a", "rack=b"], "", 0),
            (["rack=a", "!rack"], "", 0),
            (["rack=a", "row=7"], "port = 1790\n", 0),
            (["rack=a", "row=7"], "source-address = \"10.0.0.11\"\n", 1),
            (["rack=a", "rack=b"], "source-address = \"10.0.0.11\"\n", 0),
            (["rack=a", "row=7"], "shutdown = true\n", 0),
        ] {
            let second = PEER.replace("tor", "tor-2").replace("[bgp]\nasn = 64513\n", "");
            let peers = format!("{PEER}nodes = \"{}\"\n{second}nodes = \"{}\"\n{more}", nodes[0], nodes[1]);
            let all = told("[manifests]\nfolder = \"/m\"", &format!("[[l2]]\n{peers}[[bgp.advertisement]]\n"));
            let found =
                all.iter().filter(|it| it.starts_with("peer tor-2: ") && it.contains("those of peer tor match"));
            assert_eq!((found.count(), all.len()), (count, count), "{nodes:?} {more}: {all:?}");
        }
    }

    #[test]
    fn what_a_config_map_may_have_is_not_said_to_be_nowhere() {
        for whole in [false, true] {
            let all = told_of("[kubernetes]\nkubeconfig = \"/k\"\nconfig = \"kube-system/crier\"", "", whole);
            let is_open = |it: &String| it.ends_with(", unless the ConfigMap kube-system/crier has it");
            assert!(all.iter().all(|it| is_open(it) != whole), "{all:?}");
            assert_eq!(all.len(), 2);
        }
    }

    /// Two criers of different classes both served every Service that names none.
    #[test]
    fn a_class_of_its_own_beside_services_without_a_class_is_told() {
        let of_class = |more: &str| {
            let all = told(&format!("[kubernetes]\nkubeconfig = \"/k\"\n{more}"), "[[l2]]\n");
            all.iter().filter(|it| it.contains("default-class")).count()
        };
        for (more, count) in [
            ("", 0),
            ("class = \"a/b\"\n", 1),
            ("classes = [\"a/b\", \"c/d\"]\n", 1),
            ("class = \"a/b\"\ndefault-class = false\n", 0),
            ("classes = [\"a/b\", \"crier.dev/crier\"]\n", 0),
        ] {
            assert_eq!(of_class(more), count, "{more}");
        }
    }

    /// Input: one file for each kind of entry that can never come into force, beside one that can.
    /// Output: the first word of each line; the sound entry is not told.
    #[test]
    fn what_can_never_come_into_force_is_told() {
        let named = |more: &str| {
            let all = told("[manifests]\nfolder = \"/m\"", more);
            all.iter().map(|it| it.split(": ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let l2 = "[[l2]]\n";
        let nothing = [""; 0];
        let red = "[[pool]]\nname = \"red\"\naddresses = [\"10.3.0.0/24\"]\nvrf = \"red\"\n";
        assert_eq!(named(&format!("{red}[[l2]]\npools = [\"lan\", \"wan\"]\n[[l2]]\nvrf = \"blue\"\n")), ["pool red"]);
        assert_eq!(named(&format!("{red}{l2}")), nothing, "on the links of every VRF");
        assert_eq!(named(&format!("{red}[[l2]]\nvrf = \"red\"\n")), nothing);

        let tor = format!("{l2}{PEER}vrf = \"red\"\n");
        let advertised = |vrf: &str| named(&format!("{tor}[[bgp.advertisement]]\npeers = [\"tor\"]\n{vrf}"));
        assert_eq!(advertised("vrf = \"blue\"\n"), ["peer tor", "[[bgp.advertisement]] no. 1"]);
        assert_eq!((advertised("vrf = \"red\"\n"), advertised("")), (Vec::new(), Vec::new()));

        for (interfaces, excluded, is_told) in [
            ("[\"eth0\"]", "[\"eth0\"]", true),
            ("[\"eth0\", \"bond*\"]", "[\"e*\", \"bo*\"]", true),
            ("[]", "[\"*\"]", true),
            ("[\"eth*\"]", "[\"eth0\"]", false),
            ("[]", "[\"docker*\"]", false),
        ] {
            let all = named(&format!("{l2}interfaces = {interfaces}\nexclude-interfaces = {excluded}\n"));
            assert_eq!(all == ["[[l2]] no. 1"], is_told, "{interfaces} {excluded}: {all:?}");
        }
        let nodes = "nodes = \"rack=a,rack=b\"\n";
        assert_eq!(named(&format!("{l2}{l2}{nodes}")), ["[[l2]] no. 2"]);
        assert_eq!(
            named(&format!("{l2}{PEER}{nodes}[[bgp.advertisement]]\n{nodes}")),
            ["peer tor", "[[bgp.advertisement]] no. 1"]
        );

        let pool = |more: &str| format!("{l2}[[pool]]\nname = \"x\"\naddresses = [\"10.9.0.0/24\"]\n{more}");
        let reserved = "[[reservation]]\nservice = \"b/s\"\naddresses = [\"10.9.0.7\"]\n";
        for (more, is_told) in [
            ("namespaces = [\"a\"]\n", true),
            ("draining = true\n", true),
            ("namespaces = [\"a\", \"b\"]\n", false),
            ("namespaces = [\"a\"]\nnamespace-selector = \"team=web\"\n", false),
        ] {
            let all = named(&(pool(more) + reserved));
            assert_eq!(all == ["[[reservation]] of b/s"], is_told, "{more}: {all:?}");
        }
        assert_eq!(named(&format!("{l2}[[bfd]]\nname = \"fast\"\n")), ["[[bfd]] fast"]);

        let apart = |peers: &str, own: &str| {
            named(&format!("{l2}{PEER}nodes = \"rack in ({peers})\"\n[[bgp.advertisement]]\nnodes = \"rack={own}\"\n"))
        };
        assert_eq!(
            (apart("a,b", "c"), apart("a,b", "b")),
            (vec!["[[bgp.advertisement]] no. 1".to_owned()], Vec::new())
        );
        assert_eq!(named(&format!("{PEER}shutdown = true\n[[bgp.advertisement]]\n")), ["pool lan", "pool wan"]);
        assert_eq!(named("[[l2]]\ninterfaces = [\"lo\"]\n"), ["[[l2]] no. 1"]);
        let avoiding = |addresses: &str| {
            let reserved = "[[reservation]]\nservice = \"b/s\"\naddresses = [\"10.9.0.0\"]\n";
            let pool =
                format!("[[pool]]\nname = \"x\"\naddresses = [{addresses}]\navoid-network-and-broadcast = true\n");
            named(&format!("{l2}{pool}{reserved}"))
        };
        assert_eq!(avoiding("\"10.9.0.0/24\""), ["[[reservation]] of b/s"]);
        assert_eq!(avoiding("\"10.9.0.0\", \"10.9.0.255\""), ["pool x", "[[reservation]] of b/s"]);
        let vrf = "[[vrf]]\nname = \"red\"\ntable = 1001\nmanage = true\n";
        assert_eq!(named(&format!("{l2}{vrf}interfaces = [\"lo\"]\n")), ["[[vrf]] red"]);
        assert_eq!(named(&format!("{l2}{vrf}interfaces = [\"eth1\"]\n")), nothing);
    }
}
