//! Watches the data path of this node: asks kube-proxy and the kernel, keeps the machine, tells the World. Floor 2. A source of
//! facts.
//!
//! | task    | owner     | owns                                  | when cancelled                                |
//! |---------|-----------|---------------------------------------|-----------------------------------------------|
//! | watcher | the agent | the machine, the sockets, the record  | the record is that of the last change         |
//! | storing | watcher   | one write of the record to the disk   | the file of before stands                     |

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::machine::{Health, Machine, NodeReport, Record, Setting};
use super::record;
use super::socket::{self, RulesSocket};
use crate::clock;
use crate::config::DataPath as Wanted;
use crate::path_state::{DataPath, PathState, Serving};
use crate::world::Fact;

/// kube-proxy's health as it is bound by default.
const KUBE_PROXY: &str = "http://127.0.0.1:10256/healthz";

/// The pause between two questions while all is well, and while it is not.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A node whose rules change all the time is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the watcher is born with.
#[derive(Debug)]
pub struct Setup {
    machine: Machine,
    /// Asked for health; `None` where nothing is.
    url: Option<http::Uri>,
    file: PathBuf,
}

/// The kernel's id for this boot; empty where the kernel tells none.
pub fn boot_id() -> String {
    record::boot_id().unwrap_or_else(|error| {
        warn!(%error, "the kernel's boot id cannot be read; after each start the data path must be seen good anew");
        String::new()
    })
}

/// Reads the record of the state folder. Blocks on the disk.
pub fn setup(wanted: &Wanted, standalone: bool, boot: &str, folder: &Path) -> Setup {
    let url = match wanted {
        Wanted::Auto => Some(http::Uri::from_static(KUBE_PROXY)),
        Wanted::Http(url) => Some(url.clone()),
        Wanted::NodeReady | Wanted::None => None,
    };
    let setting = match wanted {
        Wanted::Auto => Setting::Auto { standalone, url: KUBE_PROXY.to_owned() },
        Wanted::Http(url) => Setting::Url(url.to_string()),
        Wanted::NodeReady => Setting::NodeReady,
        Wanted::None => Setting::None,
    };
    let file = record::file(folder);
    let record = record::load(&file).unwrap_or_else(|error| {
        warn!(file = %file.display(), %error, "what was seen of the data path cannot be read; it must be seen good anew");
        Record::default()
    });
    Setup { machine: Machine::new(setting, record, boot, clock::now()), url, file }
}

impl Setup {
    /// What the first plan is to know.
    pub fn fact(&self) -> Fact {
        Fact::DataPath(self.machine.path().clone())
    }
}

/// Tells each change of the path as a [`Fact::DataPath`]. `nodes` is what the API server says of this host's Node. Runs until
/// nobody takes facts any more, and may be dropped at any time.
pub async fn run(setup: Setup, nodes: watch::Receiver<Option<NodeReport>>, facts: mpsc::Sender<Fact>) {
    let told = setup.machine.path().clone();
    let kept = setup.machine.record().clone();
    let mut watcher = Watcher { setup, nodes, facts, told, kept, rules: None, changes: true };
    if watcher.setup.machine.is_watching() {
        watcher.run().await;
    } else {
        // The task of a source never ends by itself.
        watcher.facts.closed().await;
    }
}

struct Watcher {
    setup: Setup,
    nodes: watch::Receiver<Option<NodeReport>>,
    facts: mpsc::Sender<Fact>,
    /// What the World and the disk know.
    told: DataPath,
    kept: Record,
    rules: Option<RulesSocket>,
    /// The kernel still tells of changes.
    changes: bool,
}

impl Watcher {
    async fn run(&mut self) {
        self.open_rules();
        self.take_node();
        // Goes on while other things happen, so that an answer that never comes is noticed.
        let mut asking = Box::pin(ask(self.setup.url.clone(), Duration::ZERO));
        loop {
            self.look();
            if !self.tell().await {
                return;
            }
            let wake = self.setup.machine.next_deadline();
            tokio::select! {
                health = &mut asking => {
                    self.setup.machine.handle_health(health, clock::now());
                    asking = Box::pin(ask(self.setup.url.clone(), self.pause()));
                }
                changed = changed(self.rules.as_mut().filter(|_| self.changes)) => self.take_change(changed).await,
                told = self.nodes.changed() => match told {
                    Ok(()) => self.take_node(),
                    Err(_) => return,
                },
                () = sleep_until(wake.unwrap_or_else(clock::now).into()), if wake.is_some() => {}
            }
            self.setup.machine.handle_timeout(clock::now());
        }
    }

    fn open_rules(&mut self) {
        if !self.setup.machine.asks_health() {
            return;
        }
        match RulesSocket::open() {
            Ok(socket) => self.rules = Some(socket),
            Err(error) => warn!(
                %error,
                "the kernel sends no nftables notifications: missing kube-proxy rules are noticed only by kube-proxy's health check"
            ),
        }
    }

    async fn take_change(&mut self, changed: io::Result<()>) {
        match changed {
            // A change that follows at once is seen with this one.
            Ok(()) => sleep(LOOK_EVERY).await,
            Err(error) => {
                warn!(%error, "nftables notifications ended: kube-proxy's rules are polled once a second");
                self.changes = false;
            }
        }
    }

    fn take_node(&mut self) {
        let node = self.nodes.borrow_and_update().clone();
        self.setup.machine.handle_node(node, clock::now());
    }

    fn pause(&self) -> Duration {
        if self.setup.machine.path().state == PathState::Good && !self.setup.machine.is_failing() {
            ASK_EVERY
        } else {
            ASK_AGAIN
        }
    }

    /// Asks the kernel for kube-proxy's rules.
    fn look(&mut self) {
        let Some(socket) = &mut self.rules else { return };
        let rules = match socket.rules() {
            Ok(rules) => Some(rules),
            Err(error) => {
                debug!(%error, "the kernel was not asked for kube-proxy's rules");
                None
            }
        };
        self.setup.machine.handle_rules(rules, clock::now());
    }

    /// False where nobody takes facts any more.
    async fn tell(&mut self) -> bool {
        let record = self.setup.machine.record();
        if *record != self.kept {
            self.kept = record.clone();
            let (file, record) = (self.setup.file.clone(), record.clone());
            let stored = tokio::task::spawn_blocking(move || record::store(&file, &record)).await;
            if let Ok(Err(error)) = stored {
                let file = self.setup.file.display();
                warn!(%file, %error, "what was seen of the data path is not kept; a restart of the agent has to see it anew");
            }
        }
        let path = self.setup.machine.path();
        if *path == self.told {
            return true;
        }
        log(&self.told, path);
        self.told = path.clone();
        self.facts.send(Fact::DataPath(path.clone())).await.is_ok()
    }
}

fn log(before: &DataPath, path: &DataPath) {
    let source = path.source;
    match (before.serving(), path.serving(), path.fault()) {
        (Serving::Yes, Serving::Yes, _) => {}
        (_, Serving::Yes, _) => info!(%source, "the data path is good"),
        (_, Serving::Lost, Some(fault)) => {
            warn!(%source, %fault, "the data path is bad: giving way to nodes that serve")
        }
        (_, _, fault) => {
            info!(%source, fault = fault.map(tracing::field::display), "the data path was not seen good since the boot")
        }
    }
}

/// Asks after a pause; never returns where nothing is asked for health.
async fn ask(url: Option<http::Uri>, pause: Duration) -> Health {
    match url {
        None => std::future::pending().await,
        Some(url) => {
            sleep(pause).await;
            socket::ask(&url).await
        }
    }
}

/// Waits for a change of the rules; never returns where the kernel does not tell.
async fn changed(rules: Option<&mut RulesSocket>) -> io::Result<()> {
    match rules {
        None => std::future::pending().await,
        Some(socket) => socket.changed().await,
    }
}
