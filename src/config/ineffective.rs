//! Values that a configuration without mistakes may have, and that can never work, or say nothing: told beside what is `unused`. Floor 1.

use std::net::IpAddr;

use super::{Advertisement, Config, PULSE_PORT, Peer, Pool, PulseKey};
use crate::address::Family;

/// One line for each, with the remedy.
pub(super) fn ineffective(config: &Config) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    all.extend(config.pools.iter().filter_map(of_pool));
    all.extend(of_l2(config));
    all.extend(of_advertisements(config));
    all.extend(of_pulse(config));
    all.extend(of_ports(config));
    if config.state.folder == config.api.socket {
        all.push(format!(
            "[state] folder is {}, which is the socket of [api] too: no agent starts so; name a folder",
            config.state.folder.display()
        ));
    }
    all
}

fn of_pool(pool: &Pool) -> Option<String> {
    let name = &pool.name;
    let is_of_v6 = pool.addresses.iter().any(|range| range.family() == Family::V6);
    match &pool.prefix_of {
        Some(link) if link.as_str().contains('*') => Some(format!(
            "pool {name}: prefix-of = \"{link}\" is no pattern: only an interface whose name has the * in it is meant; name one"
        )),
        Some(_) if !is_of_v6 => Some(format!(
            "pool {name}: prefix-of puts a prefix before IPv6 addresses, and the pool has none: it does nothing; remove it"
        )),
        Some(_) => None,
        // RFC 4291 §2.4: nothing is assigned from ::/8.
        None => {
            let is_bare = |first: IpAddr| matches!(first, IpAddr::V6(v6) if v6.segments()[..4] == [0; 4]);
            let range = pool.addresses.iter().find(|range| is_bare(range.first()))?;
            Some(format!(
                "pool {name}: nobody reaches {}, which begins with no prefix; with prefix-of = \"eth0\" it would have that of this link",
                range.first()
            ))
        }
    }
}

fn of_l2(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    for (at, l2) in config.l2.iter().enumerate() {
        let number = at.saturating_add(1);
        if l2.sticky && config.pulse.key == PulseKey::Absent {
            all.push(format!(
                "[[l2]] no. {number}: sticky needs the pulse, and [pulse] has no key: it does nothing; give it one"
            ));
        }
        let meet =
            |it: &&super::Preference| l2.nodes.as_ref().is_none_or(|nodes| nodes.and(&it.nodes).impossible().is_none());
        let apart = l2.preference.iter().filter(|it| it.nodes.impossible().is_none() && !meet(it));
        all.extend(apart.map(|it| {
            format!(
                "[[l2]] no. {number}: the preference for nodes = \"{}\" is for none of the nodes that may announce: it does nothing; make \
                 nodes meet",
                it.nodes
            )
        }));
    }
    all
}

/// Attributes that none of the peers is sent.
fn of_advertisements(config: &Config) -> Vec<String> {
    let of_one = |(at, it): (usize, &Advertisement)| -> Vec<String> {
        let told: Vec<bool> = config.bgp.peers.iter().filter(|peer| it.reaches(peer)).map(Peer::is_internal).collect();
        let attributes =
            [("prepend", "external", it.prepend > 0), ("local-preference", "internal", it.local_preference.is_some())];
        let is_vain = |sort: &str| !told.is_empty() && !told.contains(&(sort == "internal"));
        let vain = attributes.into_iter().filter(|(_, sort, is_set)| *is_set && is_vain(sort));
        let number = at.saturating_add(1);
        let line = |(key, sort, _)| {
            format!(
                "[[bgp.advertisement]] no. {number}: {key} is for {sort} peers, and none of its peers is one: it does nothing; remove it"
            )
        };
        vain.map(line).collect()
    };
    config.bgp.advertisements.iter().enumerate().flat_map(of_one).collect()
}

fn of_pulse(config: &Config) -> Vec<String> {
    let pulse = &config.pulse;
    let mut all = Vec::new();
    if let PulseKey::Shared(key) = &pulse.key
        && let Some(path) =
            key.path.as_ref().filter(|path| pulse.old_keys.iter().any(|old| old.path.as_ref() == Some(path)))
    {
        all.push(format!(
            "[pulse] old-key-files has {} too, which is the key-file: it does nothing there; name the former key",
            path.display()
        ));
    }
    let is_short = !pulse.restart_grace.is_zero() && pulse.restart_grace < pulse.interval;
    if is_short && pulse.key != PulseKey::Absent {
        all.push(
            "[pulse] restart-grace is shorter than interval: no agent restarts in that time, and its addresses move at each restart; write \
             5s, or 0s to mean that"
                .to_owned(),
        );
    }
    all
}

/// Ports that something else has, and one that nobody knows.
fn of_ports(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let port = config.egress.tunnel_port;
    let whose = match port {
        PULSE_PORT => Some("the port of the pulses"),
        4789 => Some("VXLAN's own, which Calico and others use"),
        8472 => Some("the kernel's for VXLAN, which flannel and Cilium use"),
        _ => None,
    };
    all.extend(whose.map(|whose| {
        format!(
            "[egress] tunnel-port = {port} is {whose}: two devices of a host cannot both have it, and the tunnel does not come up; take 4790 or \
             another free one"
        )
    }));
    if config.api.listen.is_some_and(|listen| listen.port() == 0) {
        all.push("[api] listen has the port 0, which is another one at each start: nobody knows where metrics are; name a port".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};

    /// Each of these was good, and did nothing or never worked. Beside each stands one that does.
    #[test]
    fn values_that_can_never_work_are_told() {
        let told = |text: &str| {
            let text = format!("[manifests]\nfolder = \"/m\"\n{text}");
            let file = SourceFile { path: "test.toml".to_owned(), text };
            ineffective(&parse(&[file], &NoSecrets).expect("a good configuration"))
        };
        let pool =
            |addresses: &str, more: &str| format!("[[pool]]\nname = \"lan\"\naddresses = [\"{addresses}\"]\n{more}");
        let bgp = |asn: u32, more: &str| {
            let peer = format!("[[bgp.peer]]\nname = \"tor\"\naddress = \"192.0.2.1\"\nasn = {asn}\n");
            format!("[bgp]\nasn = 64513\n{peer}[[bgp.advertisement]]\n{more}\n")
        };
        let pulse = "[pulse]\nunauthenticated = true\n";
        for (bad, words, good) in [
            (pool("::100-::1ff", ""), "nobody reaches ::100", pool("::100-::1ff", "prefix-of = \"eth0\"\n")),
            (pool("::100-::1ff", "prefix-of = \"eth*\"\n"), "is no pattern", pool("fd35::100-fd35::1ff", "")),
            (pool("10.0.0.0/24", "prefix-of = \"eth0\"\n"), "the pool has none", pool("10.0.0.0/24", "")),
            ("[[l2]]\nsticky = true\n".to_owned(), "sticky needs the pulse", format!("[[l2]]\nsticky = true\n{pulse}")),
            (
                "[[l2]]\nnodes = \"a=b\"\npreference = [{ nodes = \"a=c\", weight = 1 }]\n".to_owned(),
                "for none of the nodes",
                "[[l2]]\nnodes = \"a in (b, c)\"\npreference = [{ nodes = \"a=c\", weight = 1 }]\n".to_owned(),
            ),
            (bgp(64513, "prepend = 3"), "prepend is for external peers", bgp(64514, "prepend = 3")),
            (
                bgp(64514, "local-preference = 50"),
                "local-preference is for internal",
                bgp(64513, "local-preference = 50"),
            ),
            (
                format!("{pulse}interval = \"5s\"\nrestart-grace = \"100ms\"\n"),
                "restart-grace is shorter",
                format!("{pulse}interval = \"5s\"\nrestart-grace = \"0s\"\n"),
            ),
            (
                "[egress]\ntunnel-port = 7473\n".to_owned(),
                "the port of the pulses",
                "[egress]\ntunnel-port = 4790\n".to_owned(),
            ),
            ("[egress]\ntunnel-port = 8472\n".to_owned(), "flannel", String::new()),
            ("[api]\nlisten = \"127.0.0.1:0\"\n".to_owned(), "the port 0", "[api]\nlisten = \"\"\n".to_owned()),
            (
                "[state]\nfolder = \"/run/crier/crier.sock\"\n".to_owned(),
                "the socket of [api]",
                "[state]\nfolder = \"/run/crier\"\n".to_owned(),
            ),
        ] {
            let all = told(&bad);
            assert!(all.len() == 1 && all[0].contains(words), "{bad}: {all:?}");
            assert_eq!(told(&good), [""; 0], "{good}");
        }
    }
}
