//! What systemd is told: ready, what we are doing, stopping. Floor 3. Without systemd it is silence.

use sd_notify::NotifyState;

/// Configuration good, sockets open, first lists taken or fail-static.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("leaving")]);
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not notified");
    }
}
