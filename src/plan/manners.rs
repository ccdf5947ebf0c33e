//! How the addresses of each pool are probed and announced on the link, as the `[[l2]]` sections of this node say. Floor 1.

use std::sync::Arc;

use crate::address::AddressRange;
use crate::claim::Manner;
use crate::config::{Config, L2};
use crate::names::NodeName;
use crate::world::World;

/// One entry for each range of a pool that this node announces, unless it is announced in the default manner. Where
/// several `[[l2]]` of this node name one pool, the first of the file says how.
pub fn manners(config: &Config, me: &NodeName, world: &World) -> Vec<(AddressRange, Arc<Manner>)> {
    let labels = world.nodes.get(me).map(|node| &node.labels);
    let selects = |l2: &L2| l2.nodes.as_ref().is_none_or(|nodes| labels.is_some_and(|labels| nodes.matches(labels)));
    let ours: Vec<(&L2, Arc<Manner>)> =
        config.l2.iter().filter(|l2| selects(l2)).map(|l2| (l2, Arc::new(manner(l2)))).collect();
    let of_pool = |pool: &crate::config::Pool| {
        let named = ours.iter().find(|(l2, _)| l2.pools.is_empty() || l2.pools.contains(&pool.name));
        let manner = named.map(|(_, manner)| manner.clone()).filter(|manner| **manner != Manner::default());
        manner.map(|manner| pool.addresses.iter().map(|range| (*range, manner.clone())).collect::<Vec<_>>())
    };
    config.pools.iter().filter_map(of_pool).flatten().collect()
}

fn manner(l2: &L2) -> Manner {
    Manner {
        probe: l2.probe,
        ignore_stations: l2.ignore_stations.iter().copied().collect(),
        announce_again: l2.announce_again.times().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;

    fn of(text: &str) -> Vec<(String, Manner)> {
        let config = good(text);
        let all = manners(&config, &"a".into(), &World::default());
        all.into_iter().map(|(range, manner)| (range.to_string(), Manner::clone(&manner))).collect()
    }

    const POOLS: &str = "[[pool]]\nname = \"x\"\naddresses = [\"192.0.2.0/30\"]\n\
                         [[pool]]\nname = \"y\"\naddresses = [\"192.0.2.8/30\"]\n";

    #[test]
    fn what_an_l2_does_not_say_is_the_default_manner_and_needs_no_entry() {
        assert_eq!(of(&format!("{POOLS}[[l2]]\n")), []);
    }

    #[test]
    fn the_first_l2_of_a_pool_says_how_its_addresses_are_probed_and_announced() {
        let text = format!(
            "{POOLS}[[l2]]\npools = [\"y\"]\nprobe = false\nignore-stations = [\"00:00:5e:00:01:01\"]\n\
             announce-again = \"1s\"\n[[l2]]\nprobe = true\n[[l2]]\npools = [\"x\"]\nnodes = \"rack=a\"\nprobe = false\n"
        );
        let ignore_stations = ["00:00:5e:00:01:01".parse().unwrap()].into();
        let announce_again = vec![std::time::Duration::from_secs(1)];
        let expected = Manner { probe: false, ignore_stations, announce_again };
        assert_eq!(of(&text), [("192.0.2.8-192.0.2.11".to_owned(), expected)]);
    }
}
