//! Whether the agent is stopped or restarted: only systemd knows, by the job of the unit. Floor 3.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

/// What the unit sets to its own name, so that systemd can be asked about it.
const UNIT: &str = "CRIER_UNIT";

/// systemd answers within milliseconds, and on a host that is busy within seconds. To take a restart for a stop costs all routes for a moment;
/// to take a stop for a restart would have routers that agreed to graceful restart go on by routes that nobody serves. With the farewell this
/// stays well below the unit's TimeoutStopSec.
const PATIENCE: Duration = Duration::from_secs(4);

/// How often systemctl is run in all, where it is terminated each time.
const MOST_ASKED: usize = 5;

/// Whether systemd will start this unit again as soon as it has ended. Where systemd cannot be asked, it will not.
pub async fn is_restart() -> bool {
    let Ok(unit) = std::env::var(UNIT) else { return false };
    let (told, answer) = oneshot::channel();
    // Not a task: the runtime would wait for it when the agent ends.
    std::thread::spawn({
        let unit = unit.clone();
        move || {
            // Nobody waits for it any more.
            let _ = told.send(list_jobs("systemctl".as_ref(), &unit));
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

/// Asks again where `program` is terminated: systemd, which stops every process of the unit, may find it among them.
fn list_jobs(program: &Path, unit: &str) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(["--no-pager", "--no-legend", "--plain", "list-jobs", unit]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let mut output = command.output()?;
    for _ in 1..MOST_ASKED {
        if output.status.signal().is_none() {
            break;
        }
        output = command.output()?;
    }
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

    /// A systemctl that is terminated so many times before it answers.
    fn terminated(times: usize) -> std::io::Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("systemctl");
        let count = folder.path().join("count");
        let text = format!(
            "#!/bin/sh\necho >>{count}\n[ $(wc -l <{count}) -gt {times} ] || kill -TERM $$\necho 1 crier.service restart running\n",
            count = count.display()
        );
        std::fs::write(&program, text)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        loop {
            // Another test may be starting a program at this moment, and has the file open until it has.
            match list_jobs(&program, "crier.service") {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                answer => return answer,
            }
        }
    }

    #[test]
    fn systemd_is_asked_again_where_it_terminates_who_asks() {
        let jobs = terminated(3).expect("it answers in the end");
        assert!(restarts(&jobs, "crier.service"), "{jobs}");
        let error = terminated(MOST_ASKED).expect_err("it never answers").to_string();
        assert!(error.contains("ended with signal: 15"), "{error}");
    }

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
