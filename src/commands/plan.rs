//! `crier plan`: what a configuration would change in the running cluster. Floor 4.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::table::{Table, dash};
use super::{Exit, Output, answer, complain_of_files, count, join, refused, runtime};
use crate::api::client::{self, AskError};
use crate::api::readings::{self, Tried};
use crate::config::{SourceFile, Touches, load};
use crate::names::NodeName;
use crate::route::RouteAttributes;
use crate::views::forecast::{Effect, ForecastReport, PeerEffect, PeerReport};

#[derive(Debug, Args)]
#[command(
    after_help = "The running agent judges all that it knows twice, by its own configuration and by FILE (with the conf.d beside\n\
                        it), as if every agent had it. Nothing is changed. Routes and peers are those of this node.\n\n\
                        What the ConfigMap has is that of the running agent; --cluster-config says what it is to have instead.\n\n\
                        Exit codes: 0 nothing would change, 1 something would, 2 FILE is refused, 3 no agent.\n\n\
                        Examples:\n  crier plan /etc/crier/crier.toml\n  crier plan new.toml --json\n  \
                        crier plan /etc/crier/crier.toml --cluster-config cluster.toml"
)]
pub struct Plan {
    /// The main file of the configuration
    file: PathBuf,
    /// What the ConfigMap of [kubernetes] config is to say, in place of all its texts
    #[arg(long, value_name = "FILE")]
    cluster_config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub fn plan(socket: &Path, Plan { file, cluster_config, output }: &Plan) -> Exit {
    let tried = match load::read(file).and_then(|files| tried(files, cluster_config.as_deref())) {
        Ok(tried) => tried,
        Err(error) => return complain_of_files(&error),
    };
    match forecast(socket, &tried) {
        Ok(report) => {
            output.warn(&report.warnings);
            output.warn(restart(&report).as_slice());
            let differs = !report.is_empty() || report.beside().next().is_some();
            answer(*output, &report, |_| screen(&report)).with_problems(differs)
        }
        Err(exit) => exit,
    }
}

/// The files with the text that the ConfigMap is to have, if one is given.
pub fn tried(files: Vec<SourceFile>, cluster_config: Option<&Path>) -> Result<Tried, load::LoadError> {
    Ok(match cluster_config.map(|text| load::cluster_text(&files, text)).transpose()? {
        Some(text) => Tried::WithCluster { files, cluster: vec![text] },
        None => Tried::Files(files),
    })
}

/// What these files would change. Why that cannot be said is printed.
pub fn forecast(socket: &Path, tried: &Tried) -> Result<ForecastReport, Exit> {
    match runtime().and_then(|runtime| runtime.block_on(client::try_files(socket, &readings::PLAN, tried))) {
        Ok(report) => Ok(report),
        // The complaints name file and line.
        Err(AskError::NotUnderstood(why)) => {
            tell!("{why}");
            Err(Exit::Usage)
        }
        Err(error) => Err(refused(&error)),
    }
}

/// What a reload of this file would be refused for.
fn restart(report: &ForecastReport) -> Option<String> {
    let of_start = report.changes.iter().filter(|it| it.touches == Touches::Restart).map(|it| it.change.as_str());
    let of_start: Vec<&str> = of_start.collect();
    (!of_start.is_empty()).then(|| {
        format!("the file needs a restart of the agent, and a reload of it is refused: {}", of_start.join("; "))
    })
}

/// What differs beside Services, owners, routes and peers, and then those.
fn screen(report: &ForecastReport) -> String {
    let beside: String = report.beside().map(|it| format!("{}\n", it.change)).collect();
    match (beside.is_empty(), report.is_empty()) {
        (true, _) => text(report),
        (false, true) => format!("{beside}\n{NOTHING_ELSE}"),
        (false, false) => format!("{beside}\n{}", text(report)),
    }
}

/// Below keys that differ.
pub const NOTHING_ELSE: &str = "no Service or owner, and no route or peer of this node, would change\n";

pub fn text(report: &ForecastReport) -> String {
    if report.is_empty() {
        return "nothing would change\n".to_owned();
    }
    let mut tables = Vec::new();
    if !report.services.is_empty() {
        let mut table = Table::new(["SERVICE", "CHANGE", "BEFORE", "AFTER", "REASON"]);
        for it in &report.services {
            let change = match it.effect {
                Effect::Gains => "gains",
                Effect::Loses => "loses",
                Effect::Moves => "moves",
                Effect::Keeps => "keeps",
            };
            table.row([
                it.service.to_string(),
                change.to_owned(),
                dash(join(&it.before)),
                dash(join(&it.after)),
                it.summary.clone(),
            ]);
        }
        tables.push(table);
    }
    if !report.owners.is_empty() {
        let mut table = Table::new(["ADDRESS", "SERVICE", "OWNER BEFORE", "AFTER"]);
        let name = |node: &Option<NodeName>| dash(join(node));
        for it in &report.owners {
            table.row([it.address.to_string(), it.service.to_string(), name(&it.before), name(&it.after)]);
        }
        tables.push(table);
    }
    if !report.routes.is_empty() {
        let mut table = Table::new(["ROUTE", "PEER", "CHANGE"]);
        for it in &report.routes {
            let change = match (&it.before, &it.after) {
                (None, _) => "announced".to_owned(),
                (Some(_), None) => "withdrawn".to_owned(),
                (Some(before), Some(after)) => differences(before, after),
            };
            table.row([it.prefix.to_string(), it.peer.to_string(), change]);
        }
        tables.push(table);
    }
    if !report.peers.is_empty() {
        let mut table = Table::new(["PEER", "CHANGE"]);
        report.peers.iter().for_each(|it| table.row([it.peer.to_string(), peer_change(it)]));
        tables.push(table);
    }
    let mut text = tables.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let _ = writeln!(
        text,
        "\nwould change on {}: {}, {}, {}, {}",
        report.node,
        count(report.services.len(), "Service", "Services"),
        count(report.owners.len(), "address with another owner", "addresses with another owner"),
        count(report.routes.len(), "route", "routes"),
        count(report.peers.len(), "peer", "peers"),
    );
    text
}

fn peer_change(it: &PeerReport) -> String {
    match it.effect {
        PeerEffect::Added => "added".to_owned(),
        PeerEffect::Removed => "removed".to_owned(),
        PeerEffect::Changed if it.keys.is_empty() => "its secret file has another content".to_owned(),
        PeerEffect::Changed if it.session_ends => format!("other {}: its session begins anew", it.keys.join(", ")),
        PeerEffect::Changed => format!("other {}", it.keys.join(", ")),
    }
}

/// The attributes of a route that differ, each with its value before and after.
fn differences(before: &RouteAttributes, after: &RouteAttributes) -> String {
    let number = |value: Option<u32>| value.map_or("none".to_owned(), |value| value.to_string());
    let all = |route: &RouteAttributes| {
        let RouteAttributes { local_preference, med, prepend, communities, endpoints } = route;
        let preference = local_preference.unwrap_or(RouteAttributes::DEFAULT_LOCAL_PREFERENCE);
        [
            ("local preference", preference.to_string()),
            ("MED", number(*med)),
            ("prepend", prepend.to_string()),
            ("communities", if communities.is_empty() { "none".to_owned() } else { join(communities) }),
            ("endpoints", number(*endpoints)),
        ]
    };
    let pairs = all(before).into_iter().zip(all(after)).filter(|((_, before), (_, after))| before != after);
    join(pairs.map(|((name, before), (_, after))| format!("{name} {before} -> {after}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::SCHEMA_VERSION;
    use crate::views::forecast::ChangeReport;

    #[test]
    fn what_no_service_owner_route_or_peer_of_this_node_shows_is_said() {
        let report = |touches, unjudged| ForecastReport {
            schema_version: SCHEMA_VERSION,
            node: NodeName::from("node-1"),
            services: Vec::new(),
            owners: Vec::new(),
            routes: Vec::new(),
            peers: Vec::new(),
            changes: vec![ChangeReport { change: "[pulse] key-file: another content".to_owned(), touches, unjudged }],
            warnings: Vec::new(),
        };
        let said = "[pulse] key-file: another content\n\n\
                    no Service or owner, and no route or peer of this node, would change\n";
        for (touches, unjudged) in
            [(Touches::Pulse, false), (Touches::Restart, true), (Touches::Session, true), (Touches::Decisions, true)]
        {
            assert_eq!(screen(&report(touches, unjudged)), said, "{touches:?}");
        }
        for touches in [Touches::Log, Touches::Decisions, Touches::Session, Touches::Restart] {
            assert_eq!(screen(&report(touches, false)), "nothing would change\n", "{touches:?}");
            assert_eq!(restart(&report(touches, false)).is_some(), touches == Touches::Restart, "{touches:?}");
        }
    }
}
