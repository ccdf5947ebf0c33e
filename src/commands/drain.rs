//! `crier drain` and `crier undrain`: this node leaves, and comes back. Floor 4.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::table::printable;
use super::{Exit, order, refused, runtime};
use crate::agent::order::Wish;
use crate::api::{client, readings};
use crate::config::duration;
use crate::views::drain::DrainReport;
use crate::world::DrainStage;

#[derive(Debug, Args)]
#[command(
    after_help = "Routes first say GRACEFUL_SHUTDOWN (RFC 8326) and have the lowest local preference. The flows that are open then\n\
                  are waited for. Then other nodes take the addresses on the link, and the routes are withdrawn. It survives a\n\
                  restart of the agent and of the host; `crier undrain` ends it.\n\n\
                  A router that obeys the community and hashes flows over nodes without a memory of them moves open flows\n\
                  to other nodes at once, where they break. Such flows fall silent here; they are counted apart, and waited\n\
                  for no longer than a minute.\n\n\
                  What no other node serves is kept, unless with --force: the drain then stands still. Without a pulse key the\n\
                  node ceases to answer on the link, and another one takes the addresses within about 3.2 s.\n\n\
                  Exit codes: 0 begun, or with --wait every flow ended or fell silent; 1 no other node serves; 3 no agent; 4 with --wait:\n\
                  flows were left when the time was over, or could not be counted, or a peer has not taken its withdrawals."
)]
pub struct Drain {
    /// Wait until the node is drained
    #[arg(long)]
    wait: bool,
    /// Why, for `crier status`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for flows, from now on: 10m, or as ordered before [168h at most]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Drain even if no other node can serve: the addresses become unreachable
    #[arg(long)]
    force: bool,
}

/// How often the agent is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub fn drain(socket: &Path, Drain { wait, reason, timeout, force }: Drain) -> Exit {
    let timeout_millis = timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let wish = Wish::Drain { reason, timeout_millis, force };
    match order(socket, &wish) {
        Exit::Fine if wait => await_drained(socket),
        exit => exit,
    }
}

pub fn undrain(socket: &Path) -> Exit {
    order(socket, &Wish::Undrain)
}

fn await_drained(socket: &Path) -> Exit {
    match runtime() {
        Ok(runtime) => runtime.block_on(watch_drain(socket)),
        Err(error) => refused(&error),
    }
}

async fn watch_drain(socket: &Path) -> Exit {
    let terminal = std::io::stderr().is_terminal();
    let mut shown = String::new();
    loop {
        let report = match client::ask(socket, &readings::STATUS, &()).await {
            Ok(status) => status.drain,
            Err(error) => return refused(&error),
        };
        let Some(report) = report else {
            tell!("crier: the drain was taken back");
            return Exit::Problem;
        };
        let line = line(&report);
        if line != shown {
            let (before, after) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
            super::to_stderr(format_args!("{before}{line}{after}"));
            // Nobody may be looking.
            let _ = std::io::stderr().flush();
            shown = line;
        }
        if let Some(why) = report.stands_still.filter(|_| report.stage != DrainStage::Drained) {
            if terminal {
                tell!("");
            }
            tell!("crier: {}", printable(&why));
            return Exit::Problem;
        }
        if report.stage == DrainStage::Drained {
            if terminal {
                tell!("");
            }
            return if report.timed_out || !report.untaken.is_empty() { Exit::TimedOut } else { Exit::Fine };
        }
        sleep(LOOK_EVERY).await;
    }
}

fn line(report: &DrainReport) -> String {
    let mut line = of_stage(report);
    report.of_uptake().iter().for_each(|it| line.push_str(&format!("; {it}")));
    line
}

fn of_stage(report: &DrainReport) -> String {
    let trouble = report.trouble.as_deref().map(printable);
    match (report.stage, report.flows, report.flows_left) {
        (DrainStage::Waiting, flows, left) => match (trouble, flows, left) {
            (Some(trouble), ..) => format!("flows cannot be counted ({trouble}); waiting until {:.0}", report.until),
            (None, Some(flows), Some(left)) => {
                let (silent, bar) = (report.of_silent(), bar(flows - left.min(flows), flows));
                format!("waiting for flows: {left} of {flows} left{silent} {bar}")
            }
            (None, ..) => "counting flows".to_owned(),
        },
        (DrainStage::HandingOver, ..) => format!("handing over: {} addresses left on the link", report.addresses_left),
        (DrainStage::Withdrawing, ..) => "withdrawing routes".to_owned(),
        (DrainStage::Drained, ..) if report.timed_out && trouble.is_some() => {
            "drained; the whole time was waited, as flows cannot be counted".to_owned()
        }
        (DrainStage::Drained, _, Some(left)) if report.timed_out => {
            format!("drained; {left} flows were left{}", report.of_silent())
        }
        (DrainStage::Drained, _, Some(left)) if left > 0 => {
            format!(
                "drained; {left} flows were not waited for: nothing came through them since routers use other nodes"
            )
        }
        (DrainStage::Drained, ..) => "drained".to_owned(),
    }
}

fn bar(done: usize, all: usize) -> String {
    const WIDTH: usize = 20;
    let filled = (done * WIDTH).checked_div(all).unwrap_or(WIDTH);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH - filled))
}
