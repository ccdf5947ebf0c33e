//! `crier config check|show|diff|apply|confirm`: what a configuration says, every mistake in it at once, what it would change in a
//! running agent, and to change it. Floor 4.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use ipnet::IpNet;
use serde::Serialize;

use super::{Exit, Output, answer, ask, complain_of_files, count, order, plan, refused, runtime};
use crate::agent::order::Wish;
use crate::api::readings;
use crate::config::load::Lenience;
use crate::config::{self, Complaint, Complaints, Position, Touches, duration, load};
use crate::kernel::observe;
use crate::kernel::vrfs::wanted::uplinks;
use crate::names::InterfaceName;
use crate::plan::own_addresses;
use crate::reason::HostUse;
use crate::views::SCHEMA_VERSION;
use crate::views::forecast::{ChangeReport, ForecastReport};
use crate::world::World;

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a configuration and its conf.d, without touching the running agent
    Check {
        /// The main file, usually /etc/crier/crier.toml; - is standard input
        file: PathBuf,
        /// What the ConfigMap of [kubernetes] config says, or is to say
        #[arg(long, value_name = "FILE")]
        cluster_config: Option<PathBuf>,
        /// Refuse a file whose secrets are not all on this host
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Print the configuration in effect, defaults filled in
    #[command(after_help = "The table is TOML, and a file for crier again.")]
    Show {
        /// The main file, usually /etc/crier/crier.toml
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Show what `apply` of a file would change: keys, Services, owners, routes and sessions
    #[command(after_help = "Nothing is changed. The drop-ins are those of the running agent.\n\n\
                            Exit codes: 0 nothing would change, 1 something would, also what `apply` refuses because it needs a restart,\n\
                            2 FILE is refused, 3 no agent.")]
    Diff {
        /// Takes the place of the agent's main file
        file: PathBuf,
        /// What the ConfigMap of [kubernetes] config is to say, in place of all its texts
        #[arg(long, value_name = "FILE")]
        cluster_config: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Change the configuration of the running agent; what does not differ is not touched
    #[command(
        after_help = "FILE is checked whole, and replaces the agent's main file; the former is kept beside it as NAME.former.\n\
                            Without FILE the agent reads its files again, as `systemctl reload crier` makes it do.\n\
                            A file with a mistake, or with a change that needs a restart, is refused, and nothing is changed.\n\n\
                            Exit codes: 0 applied, 1 the disk does not take FILE, 2 refused, 3 no agent.\n\n\
                            Examples:\n  crier config apply\n  crier config apply new.toml --confirm 60s"
    )]
    Apply {
        /// Takes the place of the agent's main file
        file: Option<PathBuf>,
        /// Restore the previous configuration after this time, unless `crier config confirm` comes first
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        confirm: Option<Duration>,
    },
    /// Keep the configuration that was applied with --confirm
    Confirm,
}

pub fn config(socket: &Path, verb: Config) -> Exit {
    match verb {
        Config::Diff { file, cluster_config, output } => diff(socket, &file, cluster_config.as_deref(), output),
        Config::Apply { file, confirm } => apply(socket, file.as_deref(), confirm),
        Config::Confirm => order(socket, &Wish::Confirm),
        Config::Check { file, cluster_config, strict, output } => {
            match check(&file, cluster_config.as_deref(), strict) {
                Ok((config, awaited)) => good(&file, &config, &awaited, output),
                Err(load::LoadError::Refused(complaints)) if output.is_for_programs() => {
                    answer(output, &CheckReport::of_refused(&file, &complaints), |_| String::new()).or_usage()
                }
                Err(error) if output.is_for_programs() => {
                    let report = CheckReport::of_unreadable(&file, &error);
                    answer(output, &report, |_| String::new()).or_usage()
                }
                Err(error) => complain_of_files(&error),
            }
        }
        Config::Show { file, output } => match load::load_host(&file, Lenience::Judging) {
            Ok((config, _)) => {
                let shown = Shown { schema_version: SCHEMA_VERSION, configuration: config::shown(&config) };
                answer(output, &shown, |_| config::show(&config))
            }
            Err(error) => complain_of_files(&error),
        },
    }
}

/// `crier config show` for programs: the sections with their keys, as the TOML has them.
#[derive(Debug, Serialize)]
struct Shown {
    schema_version: u32,
    configuration: serde_json::Value,
}

/// `crier config check` for programs.
#[derive(Debug, Serialize)]
struct CheckReport {
    schema_version: u32,
    file: String,
    good: bool,
    /// Of a good file; 0 of another one.
    pools: usize,
    l2: usize,
    peers: usize,
    advertisements: usize,
    warnings: Vec<String>,
    complaints: Vec<ComplaintReport>,
}

#[derive(Debug, Serialize)]
struct ComplaintReport {
    file: String,
    /// 0 where the file cannot be read.
    line: usize,
    column: usize,
    message: String,
    hint: Option<String>,
}

impl CheckReport {
    fn of_good(file: &Path, config: &config::Config, awaited: &[String]) -> CheckReport {
        let of_file = load::warnings(config).into_iter().chain(of_this_host(config));
        CheckReport {
            schema_version: SCHEMA_VERSION,
            file: file.display().to_string(),
            good: true,
            pools: config.pools.len(),
            l2: config.l2.len(),
            peers: config.bgp.peers.len(),
            advertisements: config.bgp.advertisements.len(),
            warnings: load::awaited(config, awaited).into_iter().chain(of_file).collect(),
            complaints: Vec::new(),
        }
    }

    fn of_refused(file: &Path, complaints: &Complaints) -> CheckReport {
        let of = |it: &Complaint| {
            let Position { path, line, column } = complaints.position(&it.place);
            ComplaintReport { file: path.to_owned(), line, column, message: it.message.clone(), hint: it.hint.clone() }
        };
        CheckReport::of_bad(file, complaints.iter().map(of).collect())
    }

    /// Of a file that cannot be read no line is to blame.
    fn of_unreadable(file: &Path, error: &load::LoadError) -> CheckReport {
        let (path, message) = (file.display().to_string(), error.to_string());
        CheckReport::of_bad(file, vec![ComplaintReport { file: path, line: 0, column: 0, message, hint: None }])
    }

    fn of_bad(file: &Path, complaints: Vec<ComplaintReport>) -> CheckReport {
        CheckReport {
            schema_version: SCHEMA_VERSION,
            file: file.display().to_string(),
            good: false,
            pools: 0,
            l2: 0,
            peers: 0,
            advertisements: 0,
            warnings: Vec::new(),
            complaints,
        }
    }

    fn line(&self) -> String {
        format!(
            "{}: good: {}, {} [[l2]], {}, {}\n",
            self.file,
            count(self.pools, "pool", "pools"),
            self.l2,
            count(self.peers, "peer", "peers"),
            count(self.advertisements, "advertisement", "advertisements")
        )
    }
}

fn good(file: &Path, config: &config::Config, awaited: &[String], output: Output) -> Exit {
    let report = CheckReport::of_good(file, config, awaited);
    output.warn(&report.warnings);
    answer(output, &report, |_| report.line())
}

/// A secret that is missing here may be on the host that the file is for, and what a ConfigMap has, in the cluster: that comes along.
fn check(
    file: &Path,
    cluster_config: Option<&Path>,
    strict: bool,
) -> Result<(config::Config, Vec<String>), load::LoadError> {
    let lenience = if strict { Lenience::Strict } else { Lenience::Judging };
    match cluster_config {
        None if !strict => load::load_host(file, lenience),
        text => load::load_with(file, text, lenience).map(|config| (config, Vec::new())),
    }
}

/// What of the file this host does not allow: addresses of pools that it or its subnets use, and VRFs that would cut it off. Nothing
/// where the kernel cannot be asked: a file may be checked anywhere.
fn of_this_host(config: &config::Config) -> Vec<String> {
    let facts = runtime().ok().and_then(|runtime| runtime.block_on(observe::look_once()).ok());
    let mut world = World::default();
    for fact in facts.into_iter().flatten() {
        world.apply(fact);
    }
    let in_words = |(pool, address, used): (_, _, HostUse)| {
        format!("pool {pool}: {address} is {used}, so no Service gets it; exclude = [\"{address}\"] says so")
    };
    let withheld = own_addresses::withheld(config, &world).map(in_words);
    withheld.chain(cut_off(config, &world)).chain(with_gateway(config, &world)).collect()
}

/// Networks that count as inside of the cluster, and have the default gateway of this host.
fn with_gateway(config: &config::Config, world: &World) -> Vec<String> {
    let main = world.default_routes.iter().filter(|route| route.vrf.is_none());
    let gateways: Vec<(IpAddr, u32)> = main.filter_map(|route| Some((route.gateway?, route.link))).collect();
    let in_words = |net: &IpNet| {
        let (gateway, index) = gateways.iter().find(|(gateway, _)| net.contains(gateway))?;
        let link = world.links.get(index).map_or("a link", |link| link.name.as_str());
        Some(format!(
            "[egress] cluster-networks: {net} has this host's default gateway {gateway} on {link}: what pods send to the hosts there \
             leaves without the address of their Service; name the networks of pods and Services alone (those of the Nodes count already)"
        ))
    };
    config.egress.cluster_networks.iter().filter_map(in_words).collect()
}

/// VRFs with the link of this host's default route.
fn cut_off(config: &config::Config, world: &World) -> Vec<String> {
    let uplinks = uplinks(&world.default_routes, &BTreeSet::new());
    let of_vrf = |vrf: &config::Vrf| {
        let named = uplinks.iter().filter_map(|(index, gateway)| Some((&world.links.get(index)?.name, gateway)));
        let in_words = |(link, gateway): (&InterfaceName, &Option<IpAddr>)| {
            let via = gateway.map(|it| format!(" via {it}")).unwrap_or_default();
            format!(
                "VRF {}: on this host {link} carries the default route{via}, so crier does not put it into the VRF: that \
                 would cut the host off; correct interfaces, or put it there yourself",
                vrf.name
            )
        };
        named.filter(|(link, _)| vrf.interfaces.contains(link)).map(in_words).collect::<Vec<_>>()
    };
    config.vrfs.iter().flat_map(of_vrf).collect()
}

/// As `crier plan`, with the keys that differ, and with the drop-ins that `apply` would use.
fn diff(socket: &Path, file: &Path, cluster_config: Option<&Path>, output: Output) -> Exit {
    let main = match load::read_main(file) {
        Ok(main) => main,
        Err(error) => return complain_of_files(&error),
    };
    let agents = match ask(socket, &readings::STATUS, &()) {
        Ok(status) => status.configuration.file,
        Err(error) => return refused(&error),
    };
    let drop_ins = match load::read_drop_ins(if agents.as_os_str().is_empty() { file } else { &agents }) {
        Ok(drop_ins) => drop_ins,
        Err(error) => return complain_of_files(&error),
    };
    let tried = match plan::tried(std::iter::once(main).chain(drop_ins).collect(), cluster_config) {
        Ok(tried) => tried,
        Err(error) => return complain_of_files(&error),
    };
    match plan::forecast(socket, &tried) {
        Ok(report) => {
            let differs = !report.is_empty() || !report.changes.is_empty();
            output.warn(&report.warnings);
            answer(output, &report, |_| difference(&report)).with_problems(differs)
        }
        Err(exit) => exit,
    }
}

/// The keys that differ, and what that leads to.
fn difference(report: &ForecastReport) -> String {
    let mut text = changes(report);
    if report.changes.is_empty() || !report.is_empty() {
        text += &plan::text(report);
    }
    text
}

fn changes(report: &ForecastReport) -> String {
    let mut text = String::new();
    for ChangeReport { change, touches, unjudged: _ } in &report.changes {
        let note = match touches {
            Touches::Restart => ": needs a restart of the agent",
            Touches::Session => ": its session begins anew",
            Touches::Nothing
            | Touches::Log
            | Touches::Decisions
            | Touches::LiveSession
            | Touches::Listening
            | Touches::Pulse => "",
        };
        text += &format!("{change}{note}\n");
    }
    if text.is_empty() {
        return text;
    }
    text.push('\n');
    if report.is_empty() {
        text += plan::NOTHING_ELSE;
    }
    text
}

fn apply(socket: &Path, file: Option<&Path>, confirm: Option<Duration>) -> Exit {
    let main = match file.map(load::read_main).transpose() {
        Ok(main) => main,
        Err(error) => return complain_of_files(&error),
    };
    // A part of a second counts as a whole one. What is less than 1 s is refused by the agent.
    let confirm_secs = confirm.map(|time| time.as_secs() + u64::from(time.as_secs() > 0 && time.subsec_nanos() > 0));
    order(socket, &Wish::Apply { main, confirm_secs })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::address::Family;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::names::NodeName;
    use crate::world::{DefaultRoute, Fact, Link};

    /// Input: networks of the cluster with and without the host's default gateway, of the main table and of a VRF. Output: the network, the
    /// gateway and its link.
    #[test]
    fn cluster_networks_with_the_default_gateway_of_the_host_are_told() {
        let told = |net: &str, vrf: Option<u32>| {
            let mut world = World::default();
            world.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["10.9.0.2/24"]))));
            let gateway = Some(IpAddr::from([10, 9, 0, 1]));
            let route =
                DefaultRoute { family: Family::V4, gateway, link: 2, metric: 0, vrf, dead: false, dropped: false };
            world.apply(Fact::DefaultRoutes(vec![route]));
            let text = format!("[manifests]\nfolder = \"/m\"\n[egress]\ncluster-networks = [\"{net}\"]\n");
            with_gateway(&good(&text), &world).join("\n")
        };
        let whole = told("10.0.0.0/8", None);
        assert!(whole.contains("10.0.0.0/8 has this host's default gateway 10.9.0.1 on eth0"), "{whole}");
        assert_eq!((told("10.244.0.0/16", None), told("10.0.0.0/8", Some(7))), (String::new(), String::new()));
    }

    fn good(text: &str) -> config::Config {
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        parse(&[file], &NoSecrets).expect("it is good")
    }

    const TEXT: &str = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.0/24\"]\n\
                        [bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n\
                        [[bgp.peer]]\nname = \"tor-2\"\naddress = \"10.0.0.2\"\nasn = 64512\n";

    #[test]
    fn one_of_a_kind_is_counted_as_one_and_what_goes_nowhere_is_warned_of() {
        let report = CheckReport::of_good(Path::new("crier.toml"), &good(TEXT), &[]);
        assert_eq!(report.line(), "crier.toml: good: 1 pool, 0 [[l2]], 2 peers, 0 advertisements\n");
        assert_eq!(report.warnings.iter().filter(|it| it.contains("no [[bgp.advertisement]]")).count(), 3);
    }

    #[test]
    fn a_refused_file_is_told_to_programs_with_every_place() {
        let text = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.0/33\"]\n[nod]\n";
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let complaints = parse(&[file], &NoSecrets).expect_err("two mistakes");
        let report = serde_json::to_value(CheckReport::of_refused(Path::new("test.toml"), &complaints)).expect("JSON");
        let lines: Vec<_> =
            report["complaints"].as_array().expect("a list").iter().map(|it| it["line"].clone()).collect();
        assert_eq!((&report["good"], lines), (&false.into(), vec![5.into(), 6.into()]));
    }

    #[test]
    fn what_is_shown_to_programs_has_what_the_toml_has() {
        let shown = config::shown(&good(TEXT));
        assert_eq!(shown["pool"][0]["addresses"], serde_json::json!(["10.1.0.0-10.1.0.255"]));
        assert_eq!(shown["bgp"]["peer"][1]["asn"], 64512);
        assert_eq!(shown["bgp"]["peer"][0]["hold-time"], "1m30s", "defaults are filled in");
    }

    #[test]
    fn check_and_show_take_the_formats_of_every_reading_verb() {
        for words in ["check f -o json", "check f --json", "show f -o yaml", "show f --json"] {
            let words = ["crier", "config"].into_iter().chain(words.split(' '));
            assert!(crate::commands::Arguments::try_parse_from(words).is_ok());
        }
    }

    #[test]
    fn under_a_listed_change_it_is_never_said_that_nothing_would_change() {
        let change = |touches| ChangeReport { change: "[node] name: a is b".to_owned(), touches, unjudged: false };
        let report = |changes| ForecastReport {
            schema_version: SCHEMA_VERSION,
            node: NodeName::from("node-1"),
            services: Vec::new(),
            owners: Vec::new(),
            routes: Vec::new(),
            peers: Vec::new(),
            changes,
            warnings: Vec::new(),
        };
        assert_eq!(difference(&report(Vec::new())), "nothing would change\n");
        let restart = report(vec![change(Touches::Restart)]);
        assert_eq!(
            difference(&restart),
            "[node] name: a is b: needs a restart of the agent\n\nno Service or owner, and no route or peer of this node, would change\n"
        );
        let log = report(vec![change(Touches::Log)]);
        assert_eq!(
            difference(&log),
            "[node] name: a is b\n\nno Service or owner, and no route or peer of this node, would change\n"
        );
    }
}
