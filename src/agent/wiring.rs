//! Every channel of the agent, with its depth and the reason for it. Floor 3.
//!
//! Facts travel through one bounded queue: a source that tells faster than the planner turns has to wait, and nothing
//! is dropped. State travels the other way through `watch` channels, where the newest wins and nobody has to wait.

use tokio::sync::{mpsc, oneshot, watch};

use super::order::{Command, Order};
use crate::config::Config;
use crate::data_path::machine::NodeReport;
use crate::k8s::annotate::{self, Annotation};
use crate::names::NodeName;
use crate::plan::following::{self, NodeMark, NodeSays};
use crate::plan::slice::{BfdSlice, BgpSlice, BindSlice, EgressSlice, L2Slice, PulseSlice, StatusSlice, VrfSlice};
use crate::plan::{Moved, Plan};
use crate::views::Snapshot;
use crate::world::{Fact, World};

/// A page of a list fits, so that a source does not stop for each object; a Fact is small, most of it behind an `Arc`.
const FACTS: usize = 1024;

/// People asking: a few at a time. One who comes while the queue is full waits.
const QUERIES: usize = 16;

/// Orders are carried out one after the other. One who comes while the queue is full waits.
const ORDERS: usize = 16;

/// Orders of the drainer: the taker of orders has one under way.
const DRAINS: usize = 1;

/// A question to the running agent: how it stands now. What is shown of that is made by whoever asks, outside of the loop.
#[derive(Debug)]
pub struct Query(pub oneshot::Sender<Snapshot>);

/// The sending ends of the slices.
#[derive(Debug, Default)]
pub struct Slices {
    pub l2: watch::Sender<L2Slice>,
    pub bgp: watch::Sender<BgpSlice>,
    pub bfd: watch::Sender<BfdSlice>,
    pub bind: watch::Sender<BindSlice>,
    pub egress: watch::Sender<EgressSlice>,
    pub vrfs: watch::Sender<VrfSlice>,
    pub pulse: watch::Sender<PulseSlice>,
    pub status: watch::Sender<StatusSlice>,
    /// What the API server says of this host's Node.
    pub node: watch::Sender<Option<NodeReport>>,
    /// Whether the Node is to leave, as far as the configuration follows it.
    pub leaving: watch::Sender<NodeSays>,
    /// What the Node is to show of a drain.
    pub mark: watch::Sender<Option<NodeMark>>,
}

impl Slices {
    /// Hands out those slices of the plan that moved.
    pub fn publish(&self, plan: &Plan, moved: Moved) {
        let Moved { l2, bgp, bfd, bind, egress, vrfs, pulse, status } = moved;
        if bgp {
            self.bgp.send_replace(plan.bgp.clone());
        }
        if bfd {
            self.bfd.send_replace(plan.bfd.clone());
        }
        if l2 {
            self.l2.send_replace(plan.l2.clone());
        }
        if bind {
            self.bind.send_replace(plan.bind.clone());
        }
        if egress {
            self.egress.send_replace(plan.egress.clone());
        }
        if vrfs {
            self.vrfs.send_replace(plan.vrfs.clone());
        }
        if pulse {
            self.pulse.send_replace(plan.pulse.clone());
        }
        if status {
            self.status.send_replace(plan.status.clone());
        }
    }

    /// Hands out what the API server says of this host's Node, if that is news.
    pub fn publish_node(&self, config: &Config, world: &World, name: &NodeName) {
        let node = world.nodes.get(name);
        let report = node.map(|node| NodeReport { ready: node.ready, boot_id: node.boot_id.clone() });
        send_news(&self.node, report);
        send_news(&self.leaving, following::says(config, world, name));
        send_news(&self.mark, following::mark(config, world, name));
    }
}

fn send_news<T: PartialEq>(to: &watch::Sender<T>, now: T) {
    to.send_if_modified(|before| {
        let is_news = *before != now;
        *before = now;
        is_news
    });
}

pub fn facts() -> (mpsc::Sender<Fact>, mpsc::Receiver<Fact>) {
    mpsc::channel(FACTS)
}

pub fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS)
}

/// Annotations that operators have written.
pub fn annotations() -> (mpsc::Sender<Annotation>, mpsc::Receiver<Annotation>) {
    mpsc::channel(annotate::WAITING)
}

pub(super) fn drains() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(DRAINS)
}

pub fn queries() -> (mpsc::Sender<Query>, mpsc::Receiver<Query>) {
    mpsc::channel(QUERIES)
}
