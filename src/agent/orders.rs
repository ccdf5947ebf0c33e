//! What operators order: a reload by SIGHUP, and the writing verbs of the local API. Floor 3.
//!
//! Tasks: [`run`] is one, owned by the agent; it owns the [`Reloader`]. Orders are carried out one after the other, so two clients
//! that change the configuration at once do it in turn. Cancelled, it leaves files and agent as the last order left them.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::order::{Command, LONGEST_DRAIN, Order, Refusal, Wish};
use super::reload::Reloader;
use crate::clock;

/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 255;

/// As it can be shown: what was typed is not to move anybody's cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_REASON).collect()
}

/// How long flows are waited for, as ordered.
fn time_for_flows(millis: u64) -> Result<Duration, Refusal> {
    let time = Duration::from_millis(millis);
    if time > LONGEST_DRAIN { Err(Refusal::DrainTime(time)) } else { Ok(time) }
}

/// Carries out orders until nobody can give any.
pub(super) async fn run(
    mut reloader: Reloader,
    mut hangup: Signal,
    mut orders: mpsc::Receiver<Order>,
    drains: mpsc::Sender<Command>,
) {
    // Of a file that was changed while no agent ran. It fails only while the agent stops.
    let _ = reloader.forget_orders().await;
    loop {
        let deadline = reloader.next_deadline();
        tokio::select! {
            Some(()) = hangup.recv() => reloader.reload_for_systemd().await,
            order = orders.recv() => {
                let Some(Order { wish, answer }) = order else { return std::future::pending().await };
                let command = match wish {
                    Wish::Drain { reason, timeout_millis, force } => {
                        let timeout = match timeout_millis.map(time_for_flows).transpose() {
                            Ok(timeout) => timeout,
                            Err(refusal) => {
                                // Whoever ordered it may have gone away.
                                let _ = answer.send(Err(refusal));
                                continue;
                            }
                        };
                        Command::Drain { reason: reason.map(|text| one_line(&text)), timeout, force, answer }
                    }
                    Wish::Undrain => Command::Undrain { answer },
                    Wish::Apply { .. } | Wish::Confirm | Wish::Cluster(_) | Wish::Peer { .. } => {
                        // Whoever ordered it may have gone away; it is done all the same.
                        let _ = answer.send(reloader.carry_out(wish).await);
                        continue;
                    }
                };
                // It fails only while the agent stops; then nobody answers, which tells enough.
                let _ = drains.send(command).await;
            }
            () = sleep_until(deadline.unwrap_or_else(clock::now).into()), if deadline.is_some() => {
                reloader.handle_timeout().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_fits_the_nodes_annotation() {
        assert_eq!(one_line("disk\nis full"), "disk is full");
        assert_eq!(one_line(&"é".repeat(100_000)).chars().count(), LONGEST_REASON);
    }

    #[test]
    fn a_time_for_flows_beyond_the_longest_is_refused_with_the_longest() {
        assert_eq!(time_for_flows(7 * 86_400_000).ok(), Some(LONGEST_DRAIN));
        let refused = time_for_flows(7 * 86_400_000 + 1).expect_err("it is not cut");
        assert_eq!(refused.to_string(), "flows are waited for 168h at most, not for 168h1ms; nothing was changed");
        assert!(time_for_flows(u64::MAX).is_err());
    }
}
