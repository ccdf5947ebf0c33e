//! What systemd is told: ready, the status, stopping. Floor 3. Without systemd nothing is sent.

use sd_notify::NotifyState;

/// The configuration is good, the sockets are open, and the first lists are complete, or the last known state is in use.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again. systemd waits for the next [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]),
        Err(error) => tracing::warn!(%error, "systemd was not notified of the reload"),
    }
}

pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("leaving")]);
}

/// The loop turns: systemd restarts an agent that has not said so within `WatchdogSec=`.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not notified");
    }
}
