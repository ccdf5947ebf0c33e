//! Looks for routers on every link that the plan names, and advertises this node to them. Floor 2. A source of facts.
//!
//! | task  | owner     | owns                               | when cancelled                                     |
//! |-------|-----------|------------------------------------|----------------------------------------------------|
//! | `run` | the agent | the tasks of the links             | they end with it                                   |
//! | link  | `run`     | the socket and machine of one link | routers forget this node, after minutes, if at all |

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::machine::Machine;
use super::packet::Message;
use super::socket::DiscoverySocket;
use crate::clock;
use crate::names::InterfaceName;
use crate::plan::slice::BgpSlice;
use crate::world::Fact;

/// After a failure on a link, the pause before the next try.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// Longer than any advertisement in one Ethernet frame.
const PACKET: usize = 2048;

/// Tells the routers of each link in [`BgpSlice::unnumbered`] as a [`Fact::Routers`] whenever they change. Runs until the
/// sender of slices or the receiver of facts is dropped. Safe to cancel.
pub async fn run(mut slices: watch::Receiver<BgpSlice>, facts: mpsc::Sender<Fact>) {
    let mut links: BTreeMap<u32, (InterfaceName, JoinSet<()>)> = BTreeMap::new();
    loop {
        let wanted = slices.borrow_and_update().unnumbered.clone();
        let gone: Vec<u32> = links
            .iter()
            .filter(|(index, (name, _))| wanted.get(index) != Some(name))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            if let Some((_, mut task)) = links.remove(&index) {
                // Wait for the task, so that its last fact does not come after this one.
                task.shutdown().await;
            }
            if facts.send(Fact::Routers(index, Vec::new())).await.is_err() {
                return;
            }
        }
        for (index, interface) in wanted.iter().filter(|(index, _)| !links.contains_key(index)).collect::<Vec<_>>() {
            let mut task = JoinSet::new();
            task.spawn(watch_link(interface.clone(), *index, facts.clone()));
            links.insert(*index, (interface.clone(), task));
        }
        if slices.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_link(interface: InterfaceName, index: u32, facts: mpsc::Sender<Fact>) {
    let mut warned = false;
    loop {
        let error = match follow(&interface, index, &facts).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if std::mem::replace(&mut warned, true) {
            debug!(link = %interface, %error, "router discovery failed again");
        } else {
            warn!(link = %interface, %error, "router discovery failed on the link; it is tried again every second");
        }
        sleep(REOPEN_PAUSE).await;
    }
}

/// `Ok` only when the receiver of facts is dropped.
async fn follow(interface: &InterfaceName, index: u32, facts: &mpsc::Sender<Fact>) -> io::Result<()> {
    let socket = DiscoverySocket::open(interface, index)?;
    let mut machine = Machine::new(clock::now());
    let mut told = Vec::new();
    let mut buffer = [0; PACKET];
    loop {
        while let Some(message) = machine.poll_message(clock::now()) {
            if let Err(error) = socket.send(message) {
                // The next message follows soon; a link that is gone leaves the slice.
                debug!(link = %interface, %message, %error, "not sent");
            }
        }
        let routers: Vec<_> = machine.routers().collect();
        if routers != told {
            info!(link = %interface, routers = ?routers, "routers on the link changed");
            if facts.send(Fact::Routers(index, routers.clone())).await.is_err() {
                return Ok(());
            }
            told = routers;
        }
        tokio::select! {
            received = socket.receive(&mut buffer) => {
                let (from, packet) = received?;
                match Message::parse(packet) {
                    Ok(message) => machine.handle_message(from, message, clock::now()),
                    Err(fault) => debug!(link = %interface, %from, %fault, "packet dropped"),
                }
            }
            () = sleep_until(machine.next_deadline().into()) => {}
        }
    }
}
