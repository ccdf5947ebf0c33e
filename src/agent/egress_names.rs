//! By which names and numbers this host's kernel has what egress needs, so that an agent with others in its `[egress]` takes that away,
//! and `crier cleanup` finds it. Floor 3. The file stands in the state folder.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::EgressSettings;
use crate::kernel::{returns, steering};
use crate::names::InterfaceName;
use crate::state_file::{self, Outlasts};

/// The part of `[egress]` that names things in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    table: String,
    priority: u32,
    mark_mask: u32,
    rule_priority: u32,
    first_route_table: u32,
    /// `None`: written by an agent that knew of no tunnel, so nothing of one is there.
    #[serde(default)]
    tunnel: Option<Tunnel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tunnel {
    device: Option<InterfaceName>,
    port: u16,
}

impl Names {
    fn of(settings: &EgressSettings) -> Names {
        let EgressSettings { table, priority, mark_mask, rule_priority, first_route_table, .. } = settings.clone();
        let tunnel = Some(Tunnel { device: settings.tunnel.clone(), port: settings.tunnel_port });
        Names { table, priority, mark_mask, rule_priority, first_route_table, tunnel }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("egress.json")
}

/// `[egress]` as an earlier agent on this host had it, where that one used other names or numbers.
pub fn former(folder: &Path, settings: &EgressSettings) -> Option<EgressSettings> {
    let file = file(folder);
    let read = state_file::read(&file).and_then(|octets| Ok(serde_json::from_slice::<Names>(&octets)?));
    let now = Names::of(settings);
    match read {
        Ok(names) if Names { tunnel: names.tunnel.clone().or(now.tunnel.clone()), ..names.clone() } == now => None,
        Ok(Names { table, priority, mark_mask, rule_priority, first_route_table, tunnel }) => {
            let Tunnel { device: tunnel, port: tunnel_port } =
                tunnel.unwrap_or(Tunnel { device: None, port: settings.tunnel_port });
            Some(EgressSettings {
                table,
                priority,
                mark_mask,
                rule_priority,
                first_route_table,
                tunnel,
                tunnel_port,
                ..settings.clone()
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(file = %file.display(), %error, "by which names egress was done before cannot be read");
            None
        }
    }
}

/// Remembers the names in use, once what had the former ones is gone: the table when `table_gone` says so, rules and routes here.
/// Cancelled, the next start does it.
pub async fn take_over(
    folder: PathBuf,
    settings: EgressSettings,
    former: Option<EgressSettings>,
    table_gone: oneshot::Receiver<()>,
) {
    if let Some(former) = former {
        if table_gone.await.is_err() {
            return;
        }
        for taken in [steering::take_away(&former).await, returns::take_away(&former).await] {
            match taken {
                Ok(count) => info!(count, "rules and routes by the former numbers of [egress] are removed"),
                Err(error) => {
                    warn!(
                        error,
                        "rules and routes by the former numbers of [egress] are not removed; tried at the next start"
                    );
                    return;
                }
            }
        }
    }
    let written = serde_json::to_vec(&Names::of(&settings)).map_err(io::Error::from);
    let file = file(&folder);
    if let Err(error) = written.and_then(|octets| state_file::replace(&file, &octets, Outlasts::PowerLoss)) {
        warn!(file = %file.display(), %error, "the names that egress is done by are not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};

    fn settings(egress: &str) -> EgressSettings {
        let text = format!("[manifests]\nfolder = \"/m\"\n[egress]\n{egress}\n");
        parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good").egress
    }

    #[tokio::test]
    async fn other_names_are_known_until_what_had_the_former_ones_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = || folder.path().to_owned();
        let (old, new) = (settings(""), settings("table = \"other\""));
        assert_eq!(former(folder.path(), &old), None, "there was nothing before");
        let (_, nothing_to_wait_for) = oneshot::channel();
        take_over(path(), old.clone(), None, nothing_to_wait_for).await;
        assert_eq!(former(folder.path(), &old), None);
        let before = former(folder.path(), &new).expect("it had another name");
        assert_eq!(before.table, "crier");
        // An agent that knew of no tunnel has left none, and what it has named otherwise is as it was.
        let text = std::fs::read_to_string(file(folder.path())).expect("it was written");
        let (rest, tunnel) = text.split_once(",\"tunnel\":").expect("it is the last");
        assert!(tunnel.contains("4790"), "{text}");
        std::fs::write(file(folder.path()), format!("{rest}}}")).expect("the folder is ours");
        assert_eq!(former(folder.path(), &old), None);
        let other_port = former(folder.path(), &new).expect("it had another name");
        assert_eq!((other_port.table.as_str(), other_port.tunnel), ("crier", None));
        let (agent_that_ends, table_gone) = oneshot::channel();
        drop(agent_that_ends);
        take_over(path(), new.clone(), Some(before), table_gone).await;
        assert!(former(folder.path(), &new).is_some(), "it is not gone");
    }
}
