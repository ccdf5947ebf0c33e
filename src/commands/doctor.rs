//! `crier doctor`: what is wrong with this host and with the running agent, and what to do about it. Floor 4.
//! It looks at the host itself, so it has something to say also when no agent answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use super::table::printable;
use super::{Exit, Output, answer, ask, runtime};
use crate::address::Family;
use crate::api::readings;
use crate::config::taken::Numbers;
use crate::data_path::socket::dropping_forward;
use crate::kernel::{bypass, numbers, observe, sysctl};
use crate::names::InterfaceName;
use crate::plan::own_addresses::IPVS_LINK;
use crate::views::SCHEMA_VERSION;
use crate::views::egress::TunnelReport;
use crate::views::status::{Report, WithheldReport};
use crate::world::{Fact, HostProblem};

#[derive(Debug, Serialize)]
struct Examination {
    schema_version: u32,
    findings: Vec<Finding>,
    /// What is as it should be and good to know.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Finding {
    /// `agent` or `host`.
    about: &'static str,
    problem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

const AGENT: &str = "agent";

/// More of the agent's than these are of few kinds, as where a pool is full. Those of the host are never so many.
const MOST_OF_AGENT: usize = 50;

pub fn doctor(socket: &Path, output: Output) -> Exit {
    let mut findings = Vec::new();
    let (announcing, drawn) = match ask(socket, &readings::STATUS, &()) {
        Ok(report) => {
            findings.extend(of_agent(&report));
            (announcing_on(&report), drawn(&report, &bound()))
        }
        Err(error) => {
            findings.push(Finding { about: AGENT, problem: error.to_string(), remedy: None });
            (sysctl::ethernet_links(), Vec::new())
        }
    };
    let egress = ask(socket, &readings::EGRESS, &()).ok();
    let mut notes: Vec<String> =
        egress.iter().filter_map(|report| report.tunnel.as_ref()).filter_map(of_tunnel).collect();
    notes.extend(egress.iter().flat_map(|report| &report.notes).cloned());
    notes.extend(egress.iter().filter_map(|report| report.numbers.as_ref()).flat_map(shared));
    let egress = egress.is_some_and(|report| !report.services.is_empty());
    let of_egress: Vec<HostProblem> = match egress {
        true => sysctl::forwarding(&Family::BOTH, &BTreeSet::new()).into_iter().chain(bypass::doubts()).collect(),
        false => sysctl::forwarding_to_pods(&drawn),
    };
    let dropping = egress.then(|| Some(runtime().ok()?.block_on(async { dropping_forward() })));
    notes.extend(dropping.flatten().into_iter().flatten().map(|chain| {
        format!(
            "{chain} has the policy drop: packets of pods with egress pass this host only where a rule of it accepts them, those of pods \
             on other nodes too"
        )
    }));
    // The agent may have said it already.
    let of_host: Vec<HostProblem> = sysctl::check(&announcing).into_iter().chain(of_egress).collect();
    let is_seen = |finding: &Finding| of_host.iter().any(|seen| seen.to_string() == finding.problem);
    findings.retain(|finding| !is_seen(finding));
    findings.extend(of_host.into_iter().map(|HostProblem { problem, remedy }| Finding {
        about: "host",
        problem,
        remedy: Some(remedy),
    }));
    let found = !findings.is_empty();
    let examination = Examination { schema_version: SCHEMA_VERSION, findings, notes };
    answer(output, &examination, |_wide| screen(&examination)).with_problems(found)
}

/// What the agent complains about. The host is examined afresh, so what it said of that is left out.
fn of_agent(report: &Report) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let older = (report.version != own).then(|| Finding {
        about: AGENT,
        problem: format!("the running agent is crier {}, this command is {own}", report.version),
        remedy: Some("systemctl restart crier".to_owned()),
    });
    let of_host: BTreeSet<String> = report.host_problems.iter().map(ToString::to_string).collect();
    let complaints = report.problems.iter().filter(|problem| !of_host.contains(*problem));
    let complaints = complaints.map(|problem| Finding { about: AGENT, problem: problem.clone(), remedy: None });
    let withheld = report.pools.iter().flat_map(|pool| pool.withheld.iter().map(move |it| (&pool.name, it)));
    let held = |address: &IpAddr| {
        let mut held = report.services.iter().flat_map(|service| &service.decision.allocation.held);
        if held.any(|held| held.address == *address) { "no other Service gets it" } else { "no Service gets it" }
    };
    let withheld = withheld.map(|(pool, WithheldReport { address, used_as })| Finding {
        about: AGENT,
        problem: format!("pool {pool}: {address} is {used_as}, so {}", held(address)),
        remedy: Some(format!("leave {address} out of the pool's addresses, or exclude = [\"{address}\"]")),
    });
    older.into_iter().chain(complaints).chain(withheld).collect()
}

fn announcing_on(report: &Report) -> BTreeSet<InterfaceName> {
    report.links.iter().filter(|link| !link.answers_for.is_empty()).map(|link| link.name.clone()).collect()
}

/// The families of the addresses that this node draws packets for which it leads on to pods: not those that are bound here, for processes of
/// the host.
fn drawn(report: &Report, bound: &BTreeSet<IpAddr>) -> Vec<Family> {
    let answered = report.links.iter().flat_map(|link| &link.answers_for).copied();
    let is_told = report.peers.iter().any(|peer| peer.prefixes_sent > 0);
    let held = report.services.iter().filter(|_| is_told).flat_map(|service| &service.decision.allocation.held);
    let drawn = answered.chain(held.map(|held| held.address)).filter(|address| !bound.contains(address));
    let families: BTreeSet<Family> = drawn.map(Family::of).collect();
    families.into_iter().collect()
}

/// The addresses of this host, without those that kube-proxy has on a link of its own to forward them.
fn bound() -> BTreeSet<IpAddr> {
    let facts = runtime().ok().and_then(|runtime| runtime.block_on(observe::look_once()).ok());
    let links = facts.into_iter().flatten().filter_map(|fact| match fact {
        Fact::Link(_, link) => link,
        _ => None,
    });
    links.filter(|link| link.name.as_str() != IPVS_LINK).flat_map(|link| link.addresses).map(|net| net.addr()).collect()
}

fn screen(examination: &Examination) -> String {
    let notes: String = examination.notes.iter().map(|note| format!("note   {}\n", printable(note))).collect();
    if examination.findings.is_empty() {
        let first = if notes.is_empty() { "nothing is wrong" } else { "no fault was found; only you can judge this:" };
        return format!("{first}\n{notes}");
    }
    let mut of_agent = 0;
    let shown = examination.findings.iter().filter(|finding| {
        of_agent += usize::from(finding.about == AGENT);
        finding.about != AGENT || of_agent <= MOST_OF_AGENT
    });
    let lines: String = shown
        .map(|Finding { about, problem, remedy }| {
            let remedy = remedy.as_ref().map_or(String::new(), |remedy| format!("       do this: {remedy}\n"));
            format!("{about:<5}  {}\n{remedy}", printable(problem))
        })
        .collect();
    let more = match of_agent.saturating_sub(MOST_OF_AGENT) {
        0 => String::new(),
        more => format!("{AGENT:<5}  {more} more: crier doctor --json has all\n"),
    };
    format!("{lines}{more}{notes}")
}

/// Rules of other programs on this host that have numbers of crier's.
fn shared(ours: &Numbers) -> Vec<String> {
    runtime().map(|runtime| runtime.block_on(numbers::shared(ours))).unwrap_or_default()
}

/// A pod learns of the MTU by ICMP, which its CNI must let pass.
fn of_tunnel(TunnelReport { device, port, mtu }: &TunnelReport) -> Option<String> {
    let mtu = (*mtu)?;
    Some(format!(
        "packets of pods to owners on other links go by the tunnel {device} (VXLAN-GPE, UDP port {port}), which has an MTU of {mtu}: \
         this node answers larger ones with ICMP (fragmentation needed, packet too big), and TCP then sends smaller ones"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool that was full was told once for each of 933 Services.
    #[test]
    fn what_the_agent_says_often_hides_nothing_of_the_host() {
        let of =
            |about: &'static str, number: usize| Finding { about, problem: format!("{about} {number}"), remedy: None };
        let screen_of = |of_agent: usize| {
            let findings = (0..of_agent).map(|number| of(AGENT, number)).chain([of("host", 0)]).collect();
            screen(&Examination { schema_version: SCHEMA_VERSION, findings, notes: vec!["a note".to_owned()] })
        };
        let many = screen_of(MOST_OF_AGENT + 3);
        assert_eq!(many.lines().count(), MOST_OF_AGENT + 3, "{many}");
        assert!(many.ends_with("host   host 0\nagent  3 more: crier doctor --json has all\nnote   a note\n"), "{many}");
        let few = screen_of(MOST_OF_AGENT);
        assert!(few.contains("agent 49") && !few.contains("more"), "{few}");
    }
}
