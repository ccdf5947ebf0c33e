//! What a configuration without mistakes is most likely not meant to be: pools whose addresses reach no client, and peers that are
//! sent nothing, and addresses of VRFs that a Service may get. Floor 1.

use super::{Config, Source};
use crate::address::AddressRange;
use crate::names::PoolName;

/// One line for each, with the remedy.
pub fn unused(config: &Config) -> Vec<String> {
    let covers = |pools: &[PoolName], pool: &PoolName| pools.is_empty() || pools.contains(pool);
    let (peers, advertisements) = (&config.bgp.peers, &config.bgp.advertisements);
    let is_announced = |pool: &PoolName| {
        let by_bgp = !peers.is_empty() && advertisements.iter().any(|it| covers(&it.pools, pool));
        by_bgp || config.l2.iter().any(|l2| covers(&l2.pools, pool))
    };
    let elsewhere = match &config.source {
        Source::Kubernetes(kubernetes) => kubernetes.config.as_ref(),
        Source::Manifests(_) => None,
    };
    let elsewhere = elsewhere.map_or(String::new(), |name| format!(", unless the ConfigMap {name} has it"));
    let pools = config.pools.iter().map(|pool| &pool.name).filter(|pool| !is_announced(pool));
    let pools = pools.map(|pool| {
        format!(
            "pool {pool}: no [[l2]] covers it, and no [[bgp.advertisement]] with a [[bgp.peer]]: its addresses go nowhere; write one \
             of them{elsewhere}"
        )
    });
    let is_sent = |peer: &&super::Peer| {
        peer.shutdown || advertisements.iter().any(|it| it.peers.is_empty() || it.peers.contains(&peer.name))
    };
    let peers = peers.iter().filter(|peer| !is_sent(peer)).map(|peer| {
        let name = &peer.name;
        format!("peer {name}: no [[bgp.advertisement]] covers it: nothing is announced to it; write one{elsewhere}")
    });
    let in_pools = config.vrfs.iter().flat_map(|vrf| vrf.addresses.iter().map(move |net| (vrf, net)));
    let in_pools = in_pools.filter_map(|(vrf, net)| {
        let (vrf, address) = (&vrf.name, net.addr());
        let covers = |pool: &&super::Pool| {
            let has = |ranges: &[AddressRange]| ranges.iter().any(|range| range.contains(address));
            has(&pool.addresses) && !has(&pool.exclude)
        };
        let pool = &config.pools.iter().find(covers)?.name;
        Some(format!(
            "vrf {vrf}: its address {address} is in pool {pool}, so a Service may get it too; leave it out of the pool: \
             exclude = [\"{address}\"]"
        ))
    });
    pools.chain(peers).chain(in_pools).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};

    const POOLS: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.0/24\"]\n\
                         [[pool]]\nname = \"wan\"\naddresses = [\"10.2.0.0/24\"]\n";
    const PEER: &str = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";

    fn told(source: &str, more: &str) -> Vec<String> {
        let file = SourceFile { path: "test.toml".to_owned(), text: format!("{source}\n{POOLS}{more}") };
        unused(&parse(&[file], &NoSecrets).expect("it is good"))
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

    #[test]
    fn what_a_config_map_may_have_is_not_said_to_be_nowhere() {
        let all = told("[kubernetes]\nkubeconfig = \"/k\"\nconfig = \"kube-system/crier\"", "");
        assert!(all.iter().all(|it| it.ends_with(", unless the ConfigMap kube-system/crier has it")), "{all:?}");
        assert_eq!(all.len(), 2);
    }
}
