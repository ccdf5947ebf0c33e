//! The table of everything that can be read from a running agent, or ordered of it: path, doors, filter and view, one row each. Floor 4.
//!
//! The server answers from [`ROWS`]; a command asks by the same row, so path, filter and answer cannot differ. A new reading
//! verb is its view (`views/`), its command (`commands/`) and its row here.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filter::{self, Filter, QueryError};
use crate::config::load::{HostSecrets, Lenience};
use crate::config::{self, Config, SourceFile, cluster};
use crate::k8s::annotation::Annotate;
use crate::views::bfd::BfdSessionsReport;
use crate::views::bgp::{PeersFilter, PeersReport, RoutesFilter, RoutesReport};
use crate::views::egress::EgressReport;
use crate::views::forecast::{self, ForecastReport};
use crate::views::l2::{AddressFilter, L2Report};
use crate::views::moving::{MoveRequest, OrderedMove};
use crate::views::renumber::{RenumberReport, RenumberRequest};
use crate::views::status::Report;
use crate::views::{Snapshot, bfd, bgp, egress, l2, metrics, moving, renumber, status};

pub const STATUS: Reading<(), Report> =
    Reading { path: "/v1/status", doors: Doors::Unix, view: |snapshot, ()| Ok(status::status(snapshot)) };

pub const BGP_PEERS: Reading<PeersFilter, PeersReport> =
    Reading { path: "/v1/bgp/peers", doors: Doors::Unix, view: |snapshot, filter| found(bgp::peers(snapshot, filter)) };

pub const BGP_ROUTES: Reading<RoutesFilter, RoutesReport> = Reading {
    path: "/v1/bgp/routes",
    doors: Doors::Unix,
    view: |snapshot, filter| found(bgp::routes(snapshot, filter)),
};

pub const BFD: Reading<PeersFilter, BfdSessionsReport> =
    Reading { path: "/v1/bfd", doors: Doors::Unix, view: |snapshot, filter| found(bfd::sessions(snapshot, filter)) };

pub const L2: Reading<AddressFilter, L2Report> =
    Reading { path: "/v1/l2", doors: Doors::Unix, view: |snapshot, filter| found(l2::l2(snapshot, filter)) };

pub const EGRESS: Reading<(), EgressReport> =
    Reading { path: "/v1/egress", doors: Doors::Unix, view: |snapshot, ()| Ok(egress::egress(snapshot)) };

pub const PLAN: Trial<ForecastReport> =
    Trial { path: "/v1/plan", view: |snapshot, config| found(forecast::forecast(snapshot, config)) };

pub const RENUMBER: Act<RenumberRequest, RenumberReport> =
    Act { path: "/v1/renumber", view: |snapshot, request| found(renumber::renumber(snapshot, request)) };
pub const MOVE: Act<MoveRequest, OrderedMove> =
    Act { path: "/v1/move", view: |snapshot, request| found(moving::relocate(snapshot, request)) };

/// Prometheus 3 takes no answer that does not say in which format it is.
const METRICS: Text = Text {
    path: "/metrics",
    doors: Doors::Both,
    content_type: "text/plain; version=0.0.4; charset=utf-8",
    text: |snapshot| Ok(metrics::text(snapshot)?.into()),
};

/// The loop answers; there is no other health to report.
const HEALTH: Text =
    Text { path: "/healthz", doors: Doors::Both, content_type: PLAIN, text: |_| Ok(Bytes::from_static(b"ok\n")) };

pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// Where orders are given: a `Wish` as JSON in the body of a POST, on the Unix socket, by root.
pub const ORDERS: &str = "/v1/orders";

/// All rows.
pub(super) const ROWS: [&(dyn Row + Sync); 11] =
    [&STATUS, &BGP_PEERS, &BGP_ROUTES, &BFD, &L2, &EGRESS, &PLAN, &RENUMBER, &MOVE, &METRICS, &HEALTH];

/// A row that a command reads as JSON: the part of a view that the filter selects.
pub struct Reading<F, R> {
    pub path: &'static str,
    doors: Doors,
    view: fn(&Snapshot, &F) -> Result<R, NotThere>,
}

/// A row that is asked with the files of a configuration, as JSON in the body of a POST: what that configuration would mean. It
/// changes nothing. Only on the Unix socket.
pub struct Trial<R> {
    pub path: &'static str,
    view: fn(&Snapshot, &Arc<Config>) -> Result<R, NotThere>,
}

/// The files of a configuration that is not in use, as they are asked about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tried {
    /// With the texts of the ConfigMap that the running agent uses.
    Files(Vec<SourceFile>),
    /// With these texts in their place.
    WithCluster { files: Vec<SourceFile>, cluster: Vec<SourceFile> },
}

impl Tried {
    fn into_parts(self, snapshot: &Snapshot) -> (Vec<SourceFile>, Vec<SourceFile>) {
        match self {
            Tried::WithCluster { files, cluster } => (files, cluster),
            // The ConfigMap that the files name is the running agent's.
            Tried::Files(files) if cluster::preliminary(&files).is_some() => {
                let of_cluster = snapshot.world.cluster_texts.iter();
                let texts = of_cluster.map(|(path, text)| SourceFile { path: path.clone(), text: text.clone() });
                (files, texts.collect())
            }
            Tried::Files(files) => (files, Vec::new()),
        }
    }
}

/// A row that orders something of the API server, asked with JSON in the body of a POST. The view only says what; it is done, and
/// answered, once the API server has taken it. Only on the Unix socket.
pub struct Act<B, R> {
    pub path: &'static str,
    view: fn(&Snapshot, &B) -> Ordered<R>,
}

/// What is to be done, and what is answered then.
type Ordered<R> = Result<(Annotate, R), NotThere>;

/// A row of plain text, for other programs. It takes no filter.
struct Text {
    path: &'static str,
    doors: Doors,
    content_type: &'static str,
    text: fn(&Snapshot) -> Result<Bytes, Broken>,
}

/// Where a row is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doors {
    /// For root and the group of the socket.
    Unix,
    /// Also for anybody who reaches the TCP port.
    Both,
}

/// The snapshot holds nothing that the filter names. The text says what there is instead.
#[derive(Debug)]
pub struct NotThere(String);

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// What a row answers.
#[derive(Debug)]
pub(super) enum Answer {
    Json(Bytes),
    /// In this format.
    Text(&'static str, Bytes),
    /// The answer, once this is done.
    Order(Annotate, Bytes),
    NotThere(String),
    /// The question cannot be read: a configuration with mistakes, for example.
    NotUnderstood(String),
    Broken(String),
}

/// A request that was read. It makes its answer from a snapshot.
pub(super) type Question = Box<dyn FnOnce(&Snapshot) -> Answer + Send>;

/// A row as the server sees it.
pub(super) trait Row {
    fn path(&self) -> &'static str;

    fn doors(&self) -> Doors;

    /// Whether it is asked by a POST with a body. Else it is asked by a GET.
    fn takes_body(&self) -> bool {
        false
    }

    /// Reads a request: the query without its question mark, and the body of a POST.
    fn read(&self, query: Option<&str>, body: &[u8]) -> Result<Question, QueryError>;
}

impl<F: Filter, R> Reading<F, R> {
    /// Path and query of a request.
    pub fn request(&self, filter: &F) -> String {
        format!("{}{}", self.path, filter::write(filter))
    }
}

impl<F: Filter + Send + 'static, R: Serialize + 'static> Row for Reading<F, R> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn doors(&self) -> Doors {
        self.doors
    }

    fn read(&self, query: Option<&str>, _body: &[u8]) -> Result<Question, QueryError> {
        let (filter, view) = (filter::read::<F>(query)?, self.view);
        Ok(Box::new(move |snapshot| as_json(view(snapshot, &filter))))
    }
}

impl<R: Serialize + 'static> Row for Trial<R> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn doors(&self) -> Doors {
        Doors::Unix
    }

    fn takes_body(&self) -> bool {
        true
    }

    /// Of the secrets that the files name, the agent reads those that its own configuration names: the client may not be allowed to
    /// read others, nor to learn whether they are there.
    fn read(&self, query: Option<&str>, body: &[u8]) -> Result<Question, QueryError> {
        filter::read::<()>(query)?;
        let tried: Tried = serde_json::from_slice(body).map_err(|error| QueryError::NoFiles(error.to_string()))?;
        let view = self.view;
        Ok(Box::new(move |snapshot| {
            let (files, texts) = tried.into_parts(snapshot);
            let secrets = HostSecrets::from_environment().with(Lenience::Judging);
            let secrets = secrets.only(snapshot.config.secrets().filter_map(|secret| secret.path.clone()));
            match config::parse_with(&files, &texts, &secrets) {
                Ok(config) => as_json(view(snapshot, &Arc::new(config))),
                Err(complaints) => Answer::NotUnderstood(complaints.to_string()),
            }
        }))
    }
}

impl<B: DeserializeOwned + Send + 'static, R: Serialize + 'static> Row for Act<B, R> {
    fn path(&self) -> &'static str {
        self.path
    }

    fn doors(&self) -> Doors {
        Doors::Unix
    }

    fn takes_body(&self) -> bool {
        true
    }

    fn read(&self, query: Option<&str>, body: &[u8]) -> Result<Question, QueryError> {
        filter::read::<()>(query)?;
        let order: B = serde_json::from_slice(body).map_err(|error| QueryError::NoOrder(error.to_string()))?;
        let view = self.view;
        Ok(Box::new(move |snapshot| match view(snapshot, &order) {
            Ok((annotate, report)) => match as_json(Ok(report)) {
                Answer::Json(json) => Answer::Order(annotate, json),
                other => other,
            },
            Err(NotThere(why)) => Answer::NotThere(why),
        }))
    }
}

impl Row for Text {
    fn path(&self) -> &'static str {
        self.path
    }

    fn doors(&self) -> Doors {
        self.doors
    }

    /// A scraper may send parameters of its own; they change nothing.
    fn read(&self, _query: Option<&str>, _body: &[u8]) -> Result<Question, QueryError> {
        let (text, content_type) = (self.text, self.content_type);
        Ok(Box::new(move |snapshot| match text(snapshot) {
            Ok(text) => Answer::Text(content_type, text),
            Err(error) => Answer::Broken(error.to_string()),
        }))
    }
}

fn as_json<R: Serialize>(report: Result<R, NotThere>) -> Answer {
    match report.map(|report| serde_json::to_vec(&report)) {
        Ok(Ok(json)) => Answer::Json(json.into()),
        Ok(Err(error)) => Answer::Broken(error.to_string()),
        Err(NotThere(why)) => Answer::NotThere(why),
    }
}

fn found<R, E: fmt::Display>(view: Result<R, E>) -> Result<R, NotThere> {
    view.map_err(|error| NotThere(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use jiff::Timestamp;

    use super::*;
    use crate::clock;
    use crate::config::NoSecrets;
    use crate::plan::Planner;
    use crate::views::Counters;
    use crate::world::{ClusterConfig, Fact};

    /// Input: an agent whose pools are in the ConfigMap, asked about its own file as it is, and with another text of the
    /// ConfigMap. Output: the text takes the place of the one in use, in the forecast and in its complaints.
    #[test]
    fn another_text_of_the_config_map_is_tried_in_place_of_the_one_in_use() {
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let host =
            || vec![file("crier.toml", "[kubernetes]\nin-cluster = true\nconfig = \"kube-system/crier\"\n[[l2]]\n")];
        let pool = |range: &str| format!("[[pool]]\nname = \"a\"\naddresses = [\"{range}\"]\n");
        let of_cluster = file("configmap/kube-system/crier/crier.toml", &pool("192.0.2.0/28"));
        let config = config::parse_with(&host(), std::slice::from_ref(&of_cluster), &NoSecrets).expect("it is good");
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        let texts = Arc::new(vec![(of_cluster.path.clone(), of_cluster.text)]);
        for fact in [Fact::ClusterConfig(ClusterConfig::Current, texts), Fact::LinksListed, Fact::FailStatic] {
            planner.apply(fact);
        }
        planner.turn(clock::now());
        let snapshot =
            Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), SystemTime::UNIX_EPOCH);
        let ask = |tried: Tried| {
            let body = serde_json::to_vec(&tried).expect("JSON");
            match PLAN.read(None, &body).expect("it is understood")(&snapshot) {
                Answer::Json(json) => {
                    serde_json::from_slice::<ForecastReport>(&json).map_err(|error| error.to_string())
                }
                Answer::NotUnderstood(why) => Err(why),
                other => Err(format!("{other:?}")),
            }
        };
        let with = |text: &str| Tried::WithCluster { files: host(), cluster: vec![file("cluster.toml", text)] };
        let changes = |tried| ask(tried).map(|report| report.changes.len());
        assert_eq!(changes(Tried::Files(host())), Ok(0));
        assert_eq!(changes(with(&pool("192.0.2.0/28"))), Ok(0));
        assert_eq!(changes(with(&pool("192.0.2.0/29"))), Ok(1));
        let refused = changes(with("[[pool]]\nname = \"a\"\n")).expect_err("it has no addresses");
        assert!(refused.contains("cluster.toml:"), "{refused}");
    }
}
