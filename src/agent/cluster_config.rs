//! The cluster's part of the configuration: taken at the start, kept on disk, and followed while the agent runs. Floor 3.
//!
//! A text is checked with the files of this host. A bad one is refused whole: what ran goes on, and the problem is told. The last
//! good one is kept in the state folder, so an agent starts without the API server as well.
//!
//! Tasks: [`follow`], owned by the caller, and the watch of `k8s::config_map` in it. Cancelled, they lose nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::order::{Order, Refusal, Wish};
use crate::config::cluster::{self, Preliminary};
use crate::config::load::{HostSecrets, Lenience, LoadError};
use crate::config::{Complaints, Config, SourceFile, parse_running};
use crate::k8s::config_map::{self, Sight};
use crate::names::ObjectKey;
use crate::state_file::{self, Outlasts};
use crate::world::{ClusterConfig, Fact, Trouble};

/// How long a start waits for the ConfigMap before it takes what is on disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a text that was refused is tried again: a file of the host may have been in its way.
const AGAIN: Duration = Duration::from_secs(10);

/// What an agent with a ConfigMap started with.
#[derive(Debug, Clone)]
pub struct Start {
    pub config_map: ObjectKey,
    /// The texts of the ConfigMap that the configuration was made of.
    pub texts: Vec<SourceFile>,
    /// How it stood with the newest text then.
    pub state: ClusterConfig,
    kept: Kept,
}

/// The last good texts in the state folder.
#[derive(Debug, Clone)]
struct Kept {
    file: PathBuf,
    /// Texts of another one are not recalled.
    config_map: ObjectKey,
}

/// The configuration to start with: of the newest text of the ConfigMap, else of the last good one, else of the files alone.
///
/// # Errors
/// When none of the three is good, the complaints about the first; and where the ConfigMap is neither seen nor kept.
pub async fn start(
    files: &[SourceFile],
    Preliminary { kubernetes, config_map, state }: Preliminary,
) -> Result<(Config, Start), LoadError> {
    let kept = Kept { file: state.folder.join("cluster-config.json"), config_map: config_map.clone() };
    let seen = tokio::time::timeout(PATIENCE, config_map::read(&kubernetes, &config_map)).await;
    let seen = seen.unwrap_or_else(|_| Err(Trouble::without_answer("the API server does not answer")));
    let mut state = match &seen {
        Ok(Some(Err(why))) => ClusterConfig::Refused { why: why.clone() },
        Ok(Some(Ok(_))) => ClusterConfig::Current,
        Ok(None) => ClusterConfig::Missing,
        Err(Trouble { why, refusal }) => ClusterConfig::Unseen { why: why.clone(), refusal: *refusal },
    };
    let last = kept.recall();
    let newest = match (seen, &last) {
        // The files alone would be less than what every other node goes by.
        (Err(Trouble { why, refusal }), None) => {
            let remedy = kubernetes.remedy_of_config_map(&config_map, refusal.is_about_rights());
            let remedy = remedy.unwrap_or_else(|| "check the way to the API server and the kubeconfig".to_owned());
            return Err(LoadError::Unseen { config_map, why, remedy });
        }
        (seen, _) => seen.ok().flatten().and_then(Result::ok),
    };
    let secrets = HostSecrets::from_environment().with(Lenience::Starting);
    let mut refused: Option<Complaints> = None;
    let candidates = newest.iter().chain(last.iter()).cloned().chain(std::iter::once(Vec::new()));
    for (number, texts) in candidates.enumerate() {
        // What the files alone name of the ConfigMap waits for it.
        let is_newest = number == 0 && newest.is_some();
        match parse_running(files, &texts, &secrets) {
            Ok(config) => {
                if is_newest {
                    kept.keep(&texts);
                }
                return Ok((config, Start { config_map, texts, state, kept }));
            }
            Err(complaints) => {
                if is_newest {
                    state = ClusterConfig::Refused { why: complaints.first_line() };
                }
                refused.get_or_insert(complaints);
            }
        }
    }
    // The last candidate, the files alone, was refused as well.
    let (why, remedy) = ("it has no text".to_owned(), "write one into it".to_owned());
    Err(refused.map_or_else(|| LoadError::Unseen { config_map, why, remedy }, LoadError::from))
}

/// Follows the ConfigMap until the receiver of the facts is gone. A new text is an order to whoever changes the configuration: it
/// is checked with the files that are in use then.
pub async fn follow(client: Client, start: Start, orders: mpsc::Sender<Order>, facts: mpsc::Sender<Fact>) {
    let Start { config_map, texts: mut used, state: mut told, kept } = start;
    let tell = |state: &ClusterConfig, used: &[SourceFile]| {
        let texts = used.iter().map(|it| (it.path.clone(), it.text.clone())).collect();
        facts.send(Fact::ClusterConfig(state.clone(), Arc::new(texts)))
    };
    if tell(&told, &used).await.is_err() {
        return;
    }
    let (sights, mut seen) = watch::channel(Sight::default());
    let mut following = JoinSet::new();
    following.spawn(config_map::follow(client, config_map.clone(), sights));
    loop {
        let is_refused = matches!(told, ClusterConfig::Refused { .. });
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = sleep(AGAIN), if is_refused => {}
        }
        let Sight { texts, trouble } = seen.borrow_and_update().clone();
        let state = match (texts, trouble) {
            (_, Some(Trouble { why, refusal })) => ClusterConfig::Unseen { why, refusal },
            (None, None) => continue,
            (Some(None), None) => ClusterConfig::Missing,
            (Some(Some(Err(why))), None) => ClusterConfig::Refused { why },
            (Some(Some(Ok(texts))), None) if texts == used => ClusterConfig::Current,
            (Some(Some(Ok(texts))), None) => {
                let state = adopt(&orders, texts.clone()).await;
                if matches!(state, ClusterConfig::Current | ClusterConfig::Waiting { .. }) {
                    kept.keep(&texts);
                }
                if state == ClusterConfig::Current {
                    used = texts;
                }
                state
            }
        };
        if state == told {
            continue;
        }
        match &state {
            ClusterConfig::NotUsed | ClusterConfig::Current => info!(%config_map, "the ConfigMap is in use"),
            ClusterConfig::Waiting { why } => warn!(%config_map, why, "the ConfigMap is used from the next start on"),
            ClusterConfig::Refused { why } => {
                error!(%config_map, why, "the ConfigMap is refused; what was in use stays")
            }
            ClusterConfig::Missing => warn!(%config_map, "there is no such ConfigMap; what was in use stays"),
            ClusterConfig::Unseen { why, .. } => {
                warn!(%config_map, why, "the ConfigMap is not seen; what was in use stays")
            }
        }
        told = state;
        if tell(&told, &used).await.is_err() {
            return;
        }
    }
}

/// Has the texts taken over; what became of them.
async fn adopt(orders: &mpsc::Sender<Order>, texts: Vec<SourceFile>) -> ClusterConfig {
    let (answer, outcome) = oneshot::channel();
    let stopping = || ClusterConfig::Waiting { why: Refusal::Stopping.to_string() };
    if orders.send(Order { wish: Wish::Cluster(texts), answer }).await.is_err() {
        return stopping();
    }
    match outcome.await {
        Ok(Ok(_)) => ClusterConfig::Current,
        Ok(Err(why @ Refusal::NeedsRestart(_))) => ClusterConfig::Waiting { why: why.short() },
        Ok(Err(why)) => ClusterConfig::Refused { why: why.short() },
        Err(_) => stopping(),
    }
}

impl Kept {
    /// What was kept; nothing where nothing was, or it cannot be read.
    fn recall(&self) -> Option<Vec<SourceFile>> {
        let texts = state_file::read(&self.file).and_then(|text| Ok(serde_json::from_slice::<Vec<SourceFile>>(&text)?));
        let texts = texts
            .inspect_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(file = %self.file.display(), %error, "the kept ConfigMap cannot be read");
                }
            })
            .ok();
        texts.filter(|texts| texts.iter().all(|it| cluster::is_text_of(&self.config_map, it)))
    }

    fn keep(&self, texts: &[SourceFile]) {
        if let Err(error) = self.try_keep(texts) {
            warn!(file = %self.file.display(), %error, "the ConfigMap was not kept; a start without the API server would lack it");
        }
    }

    fn try_keep(&self, texts: &[SourceFile]) -> io::Result<()> {
        std::fs::create_dir_all(state_file::folder_of(&self.file))?;
        state_file::replace(&self.file, &serde_json::to_vec(texts)?, Outlasts::PowerLoss)
    }
}
