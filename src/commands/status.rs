//! `crier status`: one screen that says how the node stands. Floor 4.

use std::fmt::Write;
use std::path::Path;

use super::table::{Table, printable};
use super::{Exit, Output, ago, answer, ask, join, refused};
use crate::api::readings;
use crate::path_state::{PathSource, Serving};
use crate::views::allocator::AllocatorReport;
use crate::views::drain::ShutdownReport;
use crate::views::status::{DataPathReport, PoolReport, Report, RosterReport};
use crate::world::DrainStage;

/// Exits with a problem where the screen names one.
pub fn status(socket: &Path, output: Output) -> Exit {
    match ask(socket, &readings::STATUS, &()) {
        Ok(report) => answer(output, &report, |wide| screen(&report, wide)).with_problems(!report.problems.is_empty()),
        Err(error) => refused(&error),
    }
}

fn screen(report: &Report, wide: bool) -> String {
    let mut text = head(report, wide);
    let mut pools = Table::new(["POOL", "HELD", "TOTAL", "ADDRESSES"]);
    for pool in &report.pools {
        pools.row([pool.name.to_string(), pool.held.to_string(), total(pool), pool.addresses.join(", ")]);
    }
    section(&mut text, &pools, report.pools.is_empty());

    let mut peers = Table::new(["PEER", "ADDRESS", "AS", "STATE", "SINCE", "SENT", "WANTED", "RECEIVED"]);
    for peer in &report.peers {
        peers.row([
            peer.name.to_string(),
            peer.address.to_string(),
            peer.asn.map_or("external".to_owned(), |asn| asn.to_string()),
            format!("{:?}{}", peer.state, if peer.shut { ", shut down" } else { "" }),
            peer.since.map_or("-".to_owned(), ago),
            peer.prefixes_sent.to_string(),
            peer.prefixes_wanted.to_string(),
            peer.prefixes_received.to_string(),
        ]);
    }
    section(&mut text, &peers, report.peers.is_empty());

    if wide {
        let mut links = Table::new(["LINK", "MAC", "UP", "ANSWERS FOR"]);
        for link in &report.links {
            links.row([
                link.name.to_string(),
                link.mac.clone().unwrap_or_else(|| "-".to_owned()),
                if link.up { "yes" } else { "no" }.to_owned(),
                join(&link.answers_for),
            ]);
        }
        section(&mut text, &links, report.links.is_empty());
    }

    let mut services = Table::new(["SERVICE", "ADDRESSES", "POOL", "WHAT"]);
    for service in &report.services {
        let held = &service.decision.allocation.held;
        let mut pools: Vec<_> = held.iter().map(|held| &held.pool).collect();
        pools.dedup();
        services.row([
            service.name.to_string(),
            if held.is_empty() { "-".to_owned() } else { join(held.iter().map(|held| held.address)) },
            if held.is_empty() { "-".to_owned() } else { join(pools) },
            service.summary.clone(),
        ]);
    }
    section(&mut text, &services, report.services.is_empty());

    if wide {
        let mut remarks = Table::new(["SERVICE", "REMARK"]);
        let all = report.services.iter().flat_map(|it| it.remarks.iter().map(move |remark| (&it.name, remark)));
        all.clone().for_each(|(name, remark)| remarks.row([name.to_string(), remark.clone()]));
        section(&mut text, &remarks, all.count() == 0);
    }
    text
}

/// More problems than these are of one kind, and the screen has other things to show: `-o wide` has all.
const MOST_PROBLEMS: usize = 50;

fn head(report: &Report, wide: bool) -> String {
    let api = &report.api_server;
    let mut state = api.state.clone();
    if let Some(since) = api.since {
        let _ = write!(state, " since {}", ago(since));
    }
    if let Some(error) = &api.error {
        let _ = write!(state, ": {error}");
    }
    if let Some(until) = api.client_certificate_until {
        let _ = write!(state, "; client certificate until {until:.0}");
    }
    if report.fail_static {
        state.push_str("; acting on what was remembered from before");
    }
    let answered: usize = report.links.iter().map(|link| link.answers_for.len()).sum();
    let announced: usize = report.peers.iter().map(|peer| peer.prefixes_sent).sum();
    let mut text = format!(
        "node        {}   crier {}   up {}\nAPI server  {state}\nallocates   {}\naddresses   {answered} answered on the link, {} announced over BGP\n",
        report.node,
        report.version,
        ago(report.started),
        allocates(report),
        super::count(announced, "prefix", "prefixes"),
    );
    let DataPathReport { state, source, fault } = &report.data_path;
    let _ = match (source, fault) {
        (PathSource::None, _) => Ok(()),
        (source, None) => writeln!(text, "data path   {state} ({source})"),
        // It was good, and nothing was seen since that tells otherwise.
        (source, Some(fault)) if state == Serving::Yes.code() => {
            writeln!(text, "data path   {state} ({source}) when last seen: {fault}")
        }
        (source, Some(fault)) => writeln!(text, "data path   {state} ({source}): {fault}"),
    };
    if let Some(drain) = &report.drain {
        let left = match (&drain.trouble, drain.flows_left) {
            (Some(trouble), _) if drain.stage == DrainStage::Waiting => {
                format!(", until {:.0}, as flows cannot be counted ({})", drain.until, printable(trouble))
            }
            (Some(_), _) | (None, None) => String::new(),
            (None, Some(left)) => format!(", {left} flows left{}", drain.of_silent()),
        };
        let untaken: String = drain.of_uptake().iter().map(|it| format!(", {it}")).collect();
        let reason = drain.reason.as_ref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        let _ = writeln!(text, "drain       {} since {}{left}{untaken}{reason}", drain.stage.code(), ago(drain.since));
    }
    if let Some(ShutdownReport { begun, waits_secs, hurried }) = &report.shutdown {
        let state = if *begun { "under way, " } else { "" };
        let hint = if *hurried { "; for all of [drain] timeout, raise InhibitDelayMaxSec= in logind.conf" } else { "" };
        let _ = writeln!(text, "shutdown    {state}waits for the drain of this node, {waits_secs}s at most{hint}");
    }
    for RosterReport { link, keys, .. } in &report.pulse.links {
        if let Some(keys) = keys {
            let _ = writeln!(text, "pulse key   {link}: {}", keys.summary);
        }
    }
    let lost: Vec<_> = report.l2.links.iter().filter(|link| link.lost > 0).collect();
    if !lost.is_empty() {
        let on_links = join(lost.iter().map(|link| format!("{} on {}", link.lost, link.link)));
        let _ = writeln!(text, "frames lost {on_links}: they came faster than crier reads them");
    }
    match report.problems.as_slice() {
        [] => text.push_str("problems    none\n"),
        problems => {
            let shown = if wide { problems.len() } else { problems.len().min(MOST_PROBLEMS) };
            for (number, problem) in problems.iter().take(shown).enumerate() {
                let label = if number == 0 { "problems" } else { "" };
                let _ = writeln!(text, "{label:<11} {}", printable(problem));
            }
            if shown < problems.len() {
                let _ = writeln!(text, "{:<11} and {} more: see -o wide", "", problems.len() - shown);
            }
        }
    }
    text
}

fn allocates(report: &Report) -> String {
    let AllocatorReport { holder, since: _, not_renewed_since, last_renewal: _, no_crier } = &report.allocator;
    match (holder, not_renewed_since) {
        _ if report.allocates => "this agent".to_owned(),
        (None, _) => "no agent that this one knows of".to_owned(),
        (Some(holder), _) if *holder == report.node => {
            "this agent no longer; which one holds the Lease now is not known".to_owned()
        }
        (Some(holder), None) if *no_crier => {
            format!("no agent: the Lease is held by {holder}, which is not a crier agent")
        }
        (Some(holder), None) => format!("the agent of {holder}"),
        (Some(holder), Some(since)) => {
            format!("the agent of {holder}, which has not renewed the Lease for {}", ago(*since))
        }
    }
}

fn section(text: &mut String, table: &Table, empty: bool) {
    if !empty {
        let _ = write!(text, "\n{table}");
    }
}

fn total(pool: &PoolReport) -> String {
    if pool.total == u64::MAX { "huge".to_owned() } else { pool.total.to_string() }
}
