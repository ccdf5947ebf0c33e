//! What another configuration would change: the JSON behind `crier plan`. Floor 1. `plan::forecast` finds it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::words::some_of;
use super::{SCHEMA_VERSION, Snapshot};
use crate::config::{self, BfdProfile, Change, Config, Difference, L2, PulseKey, SecretFile, Source, Touches};
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::forecast::{self, ForecastError, PeerDifference};
use crate::reason::Reason;
use crate::route::RouteAttributes;

/// `crier plan`. Everything that is not named stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ForecastReport {
    pub schema_version: u32,
    /// The node whose routes and peers these are.
    pub node: NodeName,
    pub services: Vec<ServiceReport>,
    pub owners: Vec<OwnerReport>,
    pub routes: Vec<RouteReport>,
    pub peers: Vec<PeerReport>,
    /// The keys that differ, whatever that leads to.
    #[serde(default)]
    pub changes: Vec<ChangeReport>,
    /// What is most likely not meant.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A difference between the two configurations.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeReport {
    /// Section, key and both values in one line.
    pub change: String,
    pub touches: Touches,
    /// What it leads to is not judged: sessions and routes of other nodes, what the agent reads at its start of its node and Services, or
    /// what it does on a link before it announces.
    #[serde(default)]
    pub unjudged: bool,
}

/// What becomes of a Service's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It gets addresses and loses none.
    Gains,
    /// It loses addresses and gets none.
    Loses,
    /// It gets other addresses for some that it loses.
    Moves,
    /// Its addresses stay, and what it asks for can be met no more, or can be met now.
    Keeps,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceReport {
    pub service: ObjectKey,
    pub effect: Effect,
    pub before: Vec<IpAddr>,
    pub after: Vec<IpAddr>,
    pub reason: Reason,
    /// The reason in words.
    pub summary: String,
}

/// Another node becomes the one that should answer for the address. It asks the present owner, which hands over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwnerReport {
    pub address: IpAddr,
    pub service: ObjectKey,
    pub before: Option<NodeName>,
    pub after: Option<NodeName>,
}

/// A route of this node. `before` is absent for one that would be announced, `after` for one that would be withdrawn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteReport {
    pub peer: PeerName,
    pub prefix: IpNet,
    pub before: Option<RouteAttributes>,
    pub after: Option<RouteAttributes>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    pub peer: PeerName,
    pub effect: PeerEffect,
    /// The keys of `[[bgp.peer]]` with other values; `router-id` also where that of `[bgp]` is another one, `bfd` where its profile is.
    /// Empty for a peer that is changed: the content of its secret file differs.
    pub keys: Vec<String>,
    /// The change ends the session, which begins anew.
    #[serde(default)]
    pub session_ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerEffect {
    Added,
    Removed,
    Changed,
}

impl ForecastReport {
    /// Nothing would change in the cluster or for the peers of this node.
    pub fn is_empty(&self) -> bool {
        let ForecastReport { schema_version: _, node: _, services, owners, routes, peers, changes: _, warnings: _ } =
            self;
        services.is_empty() && owners.is_empty() && routes.is_empty() && peers.is_empty()
    }

    /// The differences that no Service, owner, route or peer shows, and that change what the agents send, where they listen, or what they
    /// do after a restart.
    pub fn beside(&self) -> impl Iterator<Item = &ChangeReport> {
        self.changes.iter().filter(|it| match it.touches {
            Touches::Listening | Touches::Pulse => true,
            Touches::Nothing
            | Touches::Log
            | Touches::Decisions
            | Touches::LiveSession
            | Touches::Session
            | Touches::Restart => it.unjudged,
        })
    }
}

/// What `config` would change for the agent of the snapshot.
pub fn forecast(snapshot: &Snapshot, config: &Arc<Config>) -> Result<ForecastReport, ForecastError> {
    let both = (&snapshot.written, config);
    let forecast = forecast::forecast(both, &snapshot.node, (&snapshot.world, &snapshot.presumed), snapshot.now)?;
    let unsettled = unsettled(&forecast.unsettled);
    let services = forecast.services.into_iter().map(|it| ServiceReport {
        effect: effect(&it.before, &it.after),
        service: it.service,
        before: it.before,
        after: it.after,
        summary: it.reason.to_string(),
        reason: it.reason,
    });
    let owners = forecast.owners.into_iter().map(|it| OwnerReport {
        address: it.address,
        service: it.service,
        before: it.before,
        after: it.after,
    });
    let attributes = |route: Option<Arc<RouteAttributes>>| route.map(|route| (*route).clone());
    let routes = forecast.routes.into_iter().map(|it| RouteReport {
        peer: it.peer,
        prefix: it.prefix,
        before: attributes(it.before),
        after: attributes(it.after),
    });
    let peers = forecast.peers.into_iter().map(|it| {
        let (effect, keys) = match it.difference {
            PeerDifference::Added => (PeerEffect::Added, Vec::new()),
            PeerDifference::Removed => (PeerEffect::Removed, Vec::new()),
            PeerDifference::Changed(keys) => (PeerEffect::Changed, keys),
        };
        let session_ends = keys.iter().any(|key| config::peer_key_touches(key) == Touches::Session);
        PeerReport { peer: it.peer, effect, session_ends, keys: keys.into_iter().map(str::to_owned).collect() }
    });
    let other_key = key_changed(&snapshot.written, config);
    let links = links_unjudged(snapshot, config);
    let folder = other_folder(&snapshot.written, config);
    let warnings =
        of_bfd(&snapshot.written, config).into_iter().chain(other_key).chain(links).chain(folder).chain(unsettled);
    let changes = config::changes(&snapshot.written, config);
    let of_routes =
        |it: &Change| has_others(snapshot) && it.touches > Touches::Log && is_of(it, &["bgp", "bfd", "vrf"]);
    let at_start =
        |it: &Change| it.touches == Touches::Restart && is_of(it, &["node", "kubernetes", "manifests", "pulse"]);
    // Both are decided anew as pools and links are (`Touches::Decisions`), but what comes of these two is on the host alone: an address on
    // a link, and whether one is probed. No Service, owner, route or peer is another one, so the change itself is all there is to show.
    let on_host = |it: &Change| is_key(it, "pool", "bind") || is_key(it, "l2", "probe");
    let unjudged = changes.iter().any(of_routes).then(|| {
        format!(
            "BGP sessions and routes are judged for {} alone, and those of other nodes go by the changed keys too: ask there",
            snapshot.node
        )
    });
    let no_pool = nothing_given(&snapshot.written, config);
    let left_off = |it: &Change| no_pool.is_some() && is_of(it, &["pool"]);
    // The text of the ConfigMap is in `config`: that of now, or the one that it is to have.
    let unused = config::unused(config, !snapshot.world.lacks_config_map());
    let warnings = warnings.chain(unjudged).chain(no_pool.clone()).chain(unused).collect();
    Ok(ForecastReport {
        schema_version: SCHEMA_VERSION,
        node: snapshot.node.clone(),
        services: services.collect(),
        owners: owners.collect(),
        routes: routes.collect(),
        peers: peers.collect(),
        changes: changes
            .iter()
            .map(|it| ChangeReport {
                change: it.to_string(),
                touches: it.touches,
                unjudged: of_routes(it) || at_start(it) || on_host(it) || left_off(it),
            })
            .collect(),
        warnings,
    })
}

fn has_others(snapshot: &Snapshot) -> bool {
    snapshot.world.nodes.keys().any(|name| *name != snapshot.node)
}

fn is_of(change: &Change, sections: &[&str]) -> bool {
    let section = change.place.trim_start_matches('[');
    sections.iter().any(|it| section.starts_with(it))
}

fn is_key(change: &Change, section: &str, wanted: &str) -> bool {
    is_of(change, &[section]) && matches!(change.difference, Difference::Key { key, .. } if key == wanted)
}

/// An `[[l2]]` names links otherwise than any did before, and what other nodes' links are called is their own word.
fn links_unjudged(snapshot: &Snapshot, after: &Config) -> Option<String> {
    let is_new = |it: &L2| !snapshot.written.l2.iter().any(|before| before.names_links_as(it));
    (has_others(snapshot) && after.l2.iter().any(is_new)).then(|| {
        "an [[l2]] names other links than before: owners are worked out as if the links of all nodes had this node's names; \
         where they have others, ask on those nodes too, and do not go by what this one says of owners"
            .to_owned()
    })
}

/// No agent takes the Lease without a pool, so what Services have stays.
fn nothing_given(before: &Config, after: &Config) -> Option<String> {
    let had_some = !before.pools.is_empty() && matches!(after.source, Source::Kubernetes(_));
    (had_some && after.pools.is_empty()).then(|| {
        "it has no pool, and no agent allocates without one: Services keep their addresses, and get nothing new"
            .to_owned()
    })
}

/// Services of which it was not found out how it ends.
fn unsettled(services: &BTreeSet<ObjectKey>) -> Option<String> {
    (!services.is_empty()).then(|| {
        format!(
            "addresses of {} go on changing for longer than this was followed: what is said of them is not how it ends",
            some_of(services)
        )
    })
}

/// Another folder holds other manifests, and nobody has read them yet.
fn other_folder(before: &Config, after: &Config) -> Option<String> {
    let (Source::Manifests(had), Source::Manifests(has)) = (&before.source, &after.source) else { return None };
    (had.folder != has.folder).then(|| {
        format!(
            "manifests are read from another folder ({}): what would change by those in it is not said",
            has.folder.display()
        )
    })
}

/// The pulses of this node get another key, and the former one is not accepted any more.
fn key_changed(before: &Config, after: &Config) -> Option<String> {
    let has_pulses = ![before, after].iter().any(|it| it.pulse.key == PulseKey::Absent);
    let secret = |it: &Config| match &it.pulse.key {
        PulseKey::Shared(key) => Some(key.secret.clone()),
        PulseKey::Unauthenticated | PulseKey::Absent => None,
    };
    let (had, has) = (secret(before), secret(after));
    let is_accepted = had.is_some() && after.pulse.old_keys.iter().any(|old| had.as_ref() == Some(&old.secret));
    (has_pulses && had != has && !is_accepted).then(|| {
        "pulses get another key, and the former one is not among old-key-files: this node and those that still have the former key do not hear each other, and take each other for dead"
            .to_owned()
    })
}

/// What a change of BFD may do to BGP sessions that go on otherwise, and what is to be done at their routers.
pub fn of_bfd(before: &Config, after: &Config) -> Vec<String> {
    bfd_removed(before, after).chain(bfd_keys_changed(before, after)).collect()
}

/// Peers that lose BFD and go on otherwise. Their routers are told AdminDown.
fn bfd_removed<'a>(before: &'a Config, after: &'a Config) -> impl Iterator<Item = String> + use<'a> {
    let with_bfd = before.bgp.peers.iter().filter(|peer| peer.bfd.is_some());
    let without = with_bfd.filter(|had| after.bgp.peers.iter().any(|peer| peer.name == had.name && peer.bfd.is_none()));
    without.map(|peer| {
        format!(
            "peer {} loses BFD: BIRD and FRR take the AdminDown that it is told for a failure and end the BGP session; FRR takes a new \
             one soon, BIRD none for its error wait, a minute or more",
            peer.name
        )
    })
}

/// Peers whose packets of BFD get another key.
fn bfd_keys_changed(before: &Config, after: &Config) -> Vec<String> {
    let profile = |config: &Config, peer: &str| -> Option<BfdProfile> {
        let peer = config.bgp.peers.iter().find(|it| it.name.as_str() == peer)?;
        config.bfd.iter().find(|it| Some(&it.name) == peer.bfd.as_ref()).cloned()
    };
    let warning = |peer: &config::Peer| {
        let (had, has) = (profile(before, peer.name.as_str())?, profile(after, peer.name.as_str())?);
        let secret = |file: &Option<SecretFile>| file.as_ref().map(|file| file.secret.clone());
        let key = |it: &BfdProfile| secret(&it.key).map(|secret| (secret, it.key_id, it.authentication));
        let (former, new) = (key(&had), key(&has));
        if former == new {
            return None;
        }
        let name = &peer.name;
        let (Some(former), Some(_)) = (former, new) else {
            return Some(format!(
                "peer {name}: its BFD packets are authenticated on one side only until the router is changed too: its BGP session ends unless \
                 that is within the detection time"
            ));
        };
        let old = secret(&has.old_key).map(|secret| (secret, has.old_key_id, has.authentication));
        (old.as_ref() != Some(&former)).then(|| {
            format!(
                "peer {name}: its BFD gets another key, and the former one is not its old-key-file: it is accepted for ten minutes after the \
                 reload, so change the router after this node and within that time; the session of a router that changes first ends"
            )
        })
    };
    after.bgp.peers.iter().filter_map(warning).collect()
}

fn effect(before: &[IpAddr], after: &[IpAddr]) -> Effect {
    let loses = before.iter().any(|address| !after.contains(address));
    let gains = after.iter().any(|address| !before.contains(address));
    match (gains, loses) {
        (true, true) => Effect::Moves,
        (true, false) => Effect::Gains,
        (false, true) => Effect::Loses,
        (false, false) => Effect::Keeps,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, Secrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::views::Counters;
    use crate::world::{ApiServer, Fact};

    /// Every file holds its own path.
    struct Paths;

    impl Secrets for Paths {
        fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
            Ok(format!("0123456789abcdef {}", path.display()).into_bytes())
        }
    }

    /// The same, with keys that BFD takes.
    struct Short;

    impl Secrets for Short {
        fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
            Ok(path.display().to_string().into_bytes())
        }
    }

    /// Nothing would change, it said.
    #[test]
    fn what_nobody_can_compare_is_warned_of() {
        let config = |folder: &str, rest: &str| {
            let text = format!("[manifests]\nfolder = \"{folder}\"\n{rest}");
            Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good"))
        };
        let is_warned = |file: &Config| other_folder(&config("/m1", ""), file).is_some();
        assert_eq!([is_warned(&config("/m1", "")), is_warned(&config("/m9", ""))], [false, true]);
        let running = config("/m1", "[[l2]]\nsticky = true\n");
        let mut planner = Planner::new(running, "n1".into());
        let mut warned = Vec::new();
        for name in ["n1", "n2"] {
            planner.apply(Fact::Node(name.into(), Some(Arc::default())));
            let (now, wall) = (clock::now(), clock::wall());
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            for l2 in ["[[l2]]\nsticky = false\n", "[[l2]]\ninterfaces = [\"eth0\"]\n"] {
                warned.push(links_unjudged(&snapshot, &config("/m1", l2)).is_some());
            }
        }
        assert_eq!(warned, [false, false, false, true], "one node alone knows its links");
    }

    /// Routes that other nodes withdraw were "nothing would change".
    #[test]
    fn what_sessions_and_routes_of_other_nodes_go_by_is_told_where_there_are_others() {
        let config = |rest: &str| {
            let text = format!(
                "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\n\
                 address = \"10.0.0.1\"\nasn = 64512\nnodes = \"rack=b\"\n[[bgp.advertisement]]\n{rest}"
            );
            Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good"))
        };
        let mut planner = Planner::new(config("nodes = \"rack=b\"\n"), "n1".into());
        for fact in [Fact::ApiServer(ApiServer::Manifests), Fact::LinksListed, Fact::FailStatic] {
            planner.apply(fact);
        }
        let mut told = Vec::new();
        for name in ["n1", "n2"] {
            planner.apply(Fact::Node(name.into(), Some(Arc::default())));
            let (now, wall) = (clock::now(), clock::wall());
            planner.turn(now);
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            for file in
                ["nodes = \"rack=zz\"\n", "nodes = \"rack=b\"\naggregation-length = 24\n", "nodes = \"rack=b\"\n"]
            {
                let report = forecast(&snapshot, &config(file)).expect("it can be judged");
                let warned = report.warnings.iter().any(|it| it.contains("those of other nodes"));
                told.push((report.beside().count(), warned));
            }
        }
        let nothing = (0, false);
        assert_eq!(told, [nothing, nothing, nothing, (1, true), (1, true), nothing], "one node alone shows its own");
        let snapshot =
            Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
        let host = |keys: &str| {
            let report =
                forecast(&snapshot, &config(&format!("nodes = \"rack=b\"\n{keys}"))).expect("it can be judged");
            report.beside().map(|it| it.change.clone()).collect::<Vec<_>>().len()
        };
        assert_eq!((host("[node]\nname = \"n9\"\n"), host("[state]\nfolder = \"/s\"\n")), (1, 0));
    }

    /// Addresses that go to another interface were "nothing would change".
    #[test]
    fn what_hosts_and_links_alone_show_is_counted() {
        let config = |pool: &str, l2: &str| {
            let text = format!(
                "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"p\"\naddresses = [\"192.0.2.0/28\"]\n{pool}[[l2]]\n{l2}"
            );
            Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good"))
        };
        let running = config("", "");
        let mut planner = Planner::new(running, "n1".into());
        for fact in [Fact::ApiServer(ApiServer::Manifests), Fact::LinksListed, Fact::FailStatic] {
            planner.apply(fact);
        }
        let (now, wall) = (clock::now(), clock::wall());
        planner.turn(now);
        let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
        let beside = |pool: &str, l2: &str| {
            let report = forecast(&snapshot, &config(pool, l2)).expect("it is judged");
            report.beside().map(|it| it.change.clone()).collect::<Vec<_>>()
        };
        assert_eq!(beside("", ""), [""; 0]);
        assert_eq!(beside("bind = \"eth1\"\n", ""), ["[[pool]] \"p\" bind: unset -> \"eth1\""]);
        assert_eq!(beside("", "probe = false\n").len(), 1);
        assert_eq!(beside("", "announce-again = \"1s\"\n").len(), 0, "nothing is announced otherwise now");
    }

    /// No other node heard this one then, and the plan had no word of it.
    #[test]
    fn another_key_for_pulses_is_warned_of_unless_the_former_one_is_accepted() {
        let config = |pulse: &str| {
            let text = format!("[manifests]\nfolder = \"/m\"\n[pulse]\n{pulse}");
            parse(&[SourceFile { path: "test.toml".to_owned(), text }], &Paths).expect("it is good")
        };
        let (a, b, open) = ("key-file = \"/a\"\n", "key-file = \"/b\"\n", "unauthenticated = true\n");
        let both = format!("{b}old-key-files = [\"/a\"]\n");
        let warned = [(a, a), (a, b), (a, &both), (a, open), (open, b), (&both, b)]
            .map(|(before, after)| key_changed(&config(before), &config(after)).is_some());
        assert_eq!(warned, [false, true, false, true, true, false]);
    }

    #[test]
    fn another_key_of_bfd_is_warned_of_unless_the_former_one_is_accepted_for_good() {
        let config = |profile: &str| {
            let peer = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.1.1\"\nasn = 64512\nbfd = \"fast\"\n";
            let text = format!("[manifests]\nfolder = \"/m\"\n[[bfd]]\nname = \"fast\"\n{profile}{peer}");
            parse(&[SourceFile { path: "test.toml".to_owned(), text }], &Short).expect("it is good")
        };
        let (a, b, open) = ("key-file = \"/a\"\n", "key-file = \"/b\"\n", "");
        let (other_id, both) = (format!("{a}key-id = 2\n"), format!("{b}old-key-file = \"/a\"\n"));
        let of_other_id = format!("{b}key-id = 3\nold-key-file = \"/a\"\nold-key-id = 2\n");
        let cases = [
            (a, a),
            (a, b),
            (a, &other_id),
            (a, &both),
            (&other_id, &both),
            (&other_id, &of_other_id),
            (a, open),
            (open, b),
        ];
        let warned = cases.map(|(before, after)| {
            let warnings = bfd_keys_changed(&config(before), &config(after));
            warnings.first().map_or("", |it| if it.contains("ten minutes") { "minutes" } else { "one side" })
        });
        assert_eq!(warned, ["", "minutes", "minutes", "", "minutes", "", "one side", "one side"]);
    }

    /// BIRD ended the session, and the plan said "0 routes, 1 peer".
    #[test]
    fn a_peer_that_loses_bfd_is_named_for_what_its_router_may_do() {
        let config = |profiles: [&str; 2]| {
            let peers: String = profiles
                .iter()
                .enumerate()
                .map(|(at, bfd)| {
                    format!("[[bgp.peer]]\nname = \"tor-{at}\"\naddress = \"10.0.1{at}.1\"\nasn = 64512\n{bfd}")
                })
                .collect();
            let text = format!(
                "[manifests]\nfolder = \"/m\"\n[[bfd]]\nname = \"fast\"\n[[bfd]]\nname = \"slow\"\n[bgp]\nasn = 64513\n{peers}"
            );
            parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good")
        };
        let warned = |before, after| bfd_removed(&config(before), &config(after)).collect::<Vec<_>>();
        let (fast, slow) = ("bfd = \"fast\"\n", "bfd = \"slow\"\n");
        assert_eq!(warned([fast, ""], [slow, fast]), [""; 0], "a session that goes on, and a new one");
        let [warning] = &warned([fast, fast], [fast, ""])[..] else { panic!("one peer loses it") };
        assert!(warning.starts_with("peer tor-1 loses BFD") && warning.contains("BIRD"), "{warning}");
    }
}
