//! Whether the agent is stopped or restarted: only systemd knows, by the job of the unit. Floor 3.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

/// What the unit sets to its own name, so that systemd can be asked about it.
const UNIT: &str = "CRIER_UNIT";

/// systemd answers within milliseconds. An agent that waits longer is late with its Cease, where it has to say one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether systemd will start this unit again as soon as it has ended. Where systemd cannot be asked, it will not.
pub async fn is_restart() -> bool {
    let Ok(unit) = std::env::var(UNIT) else { return false };
    let (told, answer) = oneshot::channel();
    // Not a task: the runtime would wait for it when the agent ends.
    std::thread::spawn({
        let unit = unit.clone();
        move || {
            // Nobody waits for it any more.
            let _ = told.send(list_jobs(&unit));
        }
    });
    match timeout(PATIENCE, answer).await {
        Ok(Ok(Ok(jobs))) => {
            debug!(unit, jobs, "systemd was asked for the job of the unit");
            restarts(&jobs, &unit)
        }
        Ok(Ok(Err(error))) => {
            warn!(unit, %error, "systemd cannot be asked whether this is a restart: the sessions end");
            false
        }
        Ok(Err(_)) | Err(_) => {
            warn!(
                unit,
                waited_secs = PATIENCE.as_secs(),
                "systemd did not say whether this is a restart: the sessions end"
            );
            false
        }
    }
}

fn list_jobs(unit: &str) -> std::io::Result<String> {
    let mut command = Command::new("systemctl");
    command.args(["--no-pager", "--no-legend", "--plain", "list-jobs", unit]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(std::io::Error::other(format!("systemctl list-jobs ended with {}", output.status))),
    }
}

/// Reads lines of `JOB UNIT TYPE STATE`. While a unit that is restarted stops, its job has the type `restart`.
fn restarts(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, name, "restart" | "try-restart", ..] if name == unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_of_this_unit_is_one() {
        let of = |jobs| restarts(jobs, "crier.service");
        assert!(of("1234 crier.service restart running\n"));
        assert!(of(" 12 network.target start waiting\n 13 crier.service restart running\n"));
        assert!(!of("1234 crier.service stop running\n"));
        assert!(!of("1234 other.service restart running\n"));
        assert!(!of("No jobs running.\n"));
        assert!(!of(""));
    }
}
