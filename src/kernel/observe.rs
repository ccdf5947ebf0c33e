//! Tells the World which links this host has: all of them once, then each change.
//! Floor 2. A source of Facts; the Plan decides which links matter.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::links::Links;
use super::netlink::{Event, Netlink, NetlinkError};
use super::routes;
use crate::world::Fact;

/// Sends a `Fact::Link` for every link and every change of one, and `Fact::LinksListed` after the first complete list.
///
/// Runs until the receiver of the Facts is gone, and may be dropped at any time. If the kernel cannot be asked, it keeps trying,
/// and the last known links stay in use. While the channel of the Facts is full it waits, and then tells only the newest state of
/// each link.
pub async fn run(facts: mpsc::Sender<Fact>) {
    let mut observer = Observer { links: Links::default(), listed: false, facts };
    loop {
        match observer.follow().await {
            Err(Ended::Unwanted) => return,
            Err(Ended::Failed(error)) => {
                warn!(%error, "the links of this host cannot be followed; the last known ones stay in use; trying again")
            }
        }
        sleep(REOPEN_INTERVAL).await;
    }
}

/// What this host's links and default routes are now, as facts.
///
/// # Errors
///
/// The kernel cannot be asked.
pub async fn look_once() -> Result<Vec<Fact>, String> {
    look().await.map_err(|error| error.to_string())
}

async fn look() -> Result<Vec<Fact>, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut links = Links::default();
    links.handle_list(&netlink.links().await?, &netlink.addresses().await?);
    let mut facts: Vec<Fact> = std::iter::from_fn(|| links.poll_fact()).collect();
    facts.push(Fact::LinksListed);
    facts.push(Fact::DefaultRoutes(routes::now(&mut netlink).await?));
    Ok(facts)
}

struct Observer {
    links: Links,
    listed: bool,
    facts: mpsc::Sender<Fact>,
}

/// Why links are no longer followed.
enum Ended {
    /// The receiver of the Facts is gone.
    Unwanted,
    Failed(NetlinkError),
}

impl Observer {
    async fn follow(&mut self) -> Result<Infallible, Ended> {
        let mut netlink = Netlink::open().map_err(Ended::Failed)?;
        let mut overrun = true;
        loop {
            if overrun {
                let links = netlink.links().await.map_err(Ended::Failed)?;
                let addresses = netlink.addresses().await.map_err(Ended::Failed)?;
                self.links.handle_list(&links, &addresses);
            }
            self.tell().await?;
            overrun = self.wait(&mut netlink).await?;
        }
    }

    async fn tell(&mut self) -> Result<(), Ended> {
        while let Some(fact) = self.links.poll_fact() {
            self.send(fact).await?;
        }
        if !self.listed {
            self.listed = true;
            self.send(Fact::LinksListed).await?;
        }
        Ok(())
    }

    async fn send(&self, fact: Fact) -> Result<(), Ended> {
        self.facts.send(fact).await.map_err(|_| Ended::Unwanted)
    }

    /// Waits for the next event and takes in those that came with it. Answers whether any were lost.
    async fn wait(&mut self, netlink: &mut Netlink) -> Result<bool, Ended> {
        let first = tokio::select! {
            event = netlink.event() => event,
            () = self.facts.closed() => return Err(Ended::Unwanted),
        };
        let mut next = Some(first);
        let mut overrun = false;
        while let Some(event) = next {
            match event {
                Event::Message(message) => self.links.handle_message(&message),
                Event::Overrun => {
                    debug!("netlink events were lost; listing the links again");
                    overrun = true;
                }
                Event::Closed => return Err(Ended::Failed(NetlinkError::Ended)),
            }
            next = netlink.pending_event();
        }
        Ok(overrun)
    }
}

/// How long to wait before the kernel is asked again after a failure.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
