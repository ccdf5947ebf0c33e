//! How an established session goes from one agent to the next: the last that the one does with it, and the first that the other
//! does. Floor 2, a part of the peer's task.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::known_ends::KnownEnds;
use super::outbound::Outbound;
use super::uptake::Uptake;
use super::{PeerTask, octets};
use crate::address::Family;
use crate::bgp::kept::{KeptSession, Signature};
use crate::bgp::machine::negotiation::LocalOffer;
use crate::bgp::machine::{ConnectionId, Peering};
use crate::bgp::outbox::chosen::{Kept, Memory};
use crate::bgp::outbox::refreshes::Refreshes;
use crate::bgp::outbox::sent::Sent;
use crate::bgp::outbox::{NextHops, Outbox};
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::socket::{Connection, Endpoint, LedgerStep, describe};
use crate::bgp::wire::{AfiSafi, Cease, Dialect, Frame, Message, Notification, Open, Parsed};
use crate::names::PeerName;
use crate::world::FormerSession;
use crate::{clock, config};

/// A session to go on with: its connection, and what was written down of it.
pub(super) struct Resumption {
    id: ConnectionId,
    connection: Connection,
    state: KeptSession,
    outbox: Outbox,
}

/// The machine of a peer, with the session of the previous agent where it can go on.
pub(super) fn begin(
    name: &PeerName,
    endpoint: &Endpoint,
    offer: LocalOffer,
    kept: Option<KeptConnection>,
    former: &mut Option<FormerSession>,
    now: Instant,
) -> (Peering, Option<Resumption>) {
    let seed = fastrand::u64(..);
    let Some(kept) = kept else { return (Peering::new(offer, seed, now), None) };
    let (after_crash, graceful, ended) = (kept.after_crash, kept.state.negotiated.graceful_restart, kept.bfd_ended);
    let (routes_kept, bfd_ended) = (graceful && !ended, graceful && ended);
    let resumed = (|| {
        let (state, connection) = kept.resume().map_err(|error| describe(&error))?;
        let outbox = Outbox::resumed(&state.negotiated, &state.sent).map_err(|fault| fault.to_string())?;
        Ok::<_, String>((state, connection, outbox))
    })();
    match resumed {
        Ok((state, connection, outbox)) => {
            let passed = clock::since_boot().saturating_sub(state.since_boot);
            let unsure = state.sent.outdated.len();
            let address = &endpoint.peer;
            match after_crash {
                // When the other agent died is not known.
                true => info!(
                    peer = %name, %address, written_millis_ago = passed.as_millis(), after_crash, routes_to_repeat = unsure,
                    "session taken over from the previous agent"
                ),
                false => info!(
                    peer = %name, %address, away_millis = passed.as_millis(), after_crash, routes_to_repeat = unsure,
                    "session taken over from the previous agent"
                ),
            }
            *former = Some(FormerSession::TakenOver { after_crash });
            let (negotiated, standing) = (state.negotiated.clone(), state.standing);
            let (peering, id) = Peering::resumed(offer, negotiated, standing, passed, seed, now);
            (peering, Some(Resumption { id, connection, state, outbox }))
        }
        Err(why) => {
            warn!(peer = %name, reason = why, routes_kept, "the session of the previous agent cannot go on; a new one is opened");
            *former = Some(FormerSession::Lost { why, routes_kept, bfd_ended });
            (Peering::new(offer, seed, now), None)
        }
    }
}

impl PeerTask {
    /// Goes on with a session. What its peer should have is not known yet.
    pub(super) fn resume(&mut self, Resumption { id, connection, mut state, outbox }: Resumption) {
        let [sent, received] = [&state.open_sent, &state.open_received].map(|octets| read_open(octets));
        self.counters.recall(id, sent, received);
        let mut refreshes = Refreshes::default();
        for family in &state.sent.owes_refresh {
            refreshes.ask(AfiSafi::unicast(*family));
        }
        let signed = self.sign(&connection, state.signature);
        self.connections.push((id, connection));
        self.report.recall(state.established_at);
        self.note_session();
        (self.next_hops, self.ends) = (state.sent.next_hops, KnownEnds::resumed(state.local.ip()));
        self.chosen = Memory::of(state.chosen.unwrap_or_else(|| {
            // An earlier version. What is configured was no choice.
            let NextHops { v4, v6 } = state.sent.next_hops;
            Kept {
                v4: v4.filter(|_| self.settings.next_hop.is_none()),
                v6: v6.filter(|_| self.settings.next_hop_v6.is_none()).map(|v6| v6.global),
            }
        }));
        let NextHops { v4, v6 } = state.sent.next_hops;
        let told = NextHops {
            v4: v4.filter(|_| self.settings.next_hop.is_none()),
            v6: v6.filter(|_| self.settings.next_hop_v6.is_none()),
        };
        self.chosen.go_on(told, clock::now());
        self.outbound = Some(Outbound {
            connection: id,
            local_address: state.local.ip(),
            local: state.local,
            remote: Some(state.remote),
            capabilities: self.counters.capabilities(id),
            next_hops: state.sent.next_hops,
            next_hops_due: false,
            awaits_plan: true,
            ignores: false,
            outbox,
            refreshes,
            refreshes_told: Default::default(),
            uptake: Uptake::new(clock::now()),
            has_news: false,
            without_ledger: false,
            negotiated: state.negotiated,
        });
        self.recovered = state.recovered;
        state.sent = Sent::default();
        if let Err(why) = signed {
            self.reset(id, Cease::OtherConfigurationChange, why);
        }
    }

    /// Signs the segments as the configuration has it now: the socket has its keys still, but they may have changed while nobody ran.
    /// Where a secret is missing now, its keys stay as they are: also what ends the session has to be signed, or the router drops it.
    fn sign(&self, connection: &Connection, before: Signature) -> Result<(), String> {
        let now = Signature::from(&self.endpoint.protection);
        if now == before && self.endpoint.protection.lacks_secret() {
            return Ok(());
        }
        let before = match (before, now) {
            // The kernel changes nothing about the keys of an open connection.
            (Signature::None, Signature::None) | (Signature::Ao, Signature::Ao) => return Ok(()),
            (Signature::Md5, Signature::Md5 | Signature::None) => self.endpoint.protection.clone(),
            (Signature::None, Signature::Md5) => crate::bgp::socket::Protection::None,
            (Signature::Ao, _) | (_, Signature::Ao) => {
                return Err("the connection is not signed as the configuration has it now".to_owned());
            }
        };
        connection.sign_anew(&self.endpoint, &before).map_err(|error| {
            format!("the password cannot be set on the connection of the previous agent: {}", describe(&error))
        })
    }

    /// Gives the established session away, without a word to its peer. Without one, every connection ends.
    pub(super) async fn hand_over(mut self, to: oneshot::Sender<KeptConnection>) {
        match self.take_session() {
            Some(kept) => {
                info!(peer = %self.name, routes = kept.state.sent.count(), "session kept for the next agent");
                // Nobody waits for it any more: the agent is gone, and the socket with it.
                let _ = to.send(kept);
            }
            None => drop(to),
        }
        self.end(&Notification::administrative_reset("the agent restarts"), "the agent restarts");
        while self.farewells.join_next().await.is_some() {}
    }

    fn take_session(&mut self) -> Option<KeptConnection> {
        let state = self.written_down()?;
        let Outbound { connection: id, .. } = self.outbound.take()?;
        let at = self.connections.iter().position(|(name, _)| *name == id)?;
        let (_, connection) = self.connections.swap_remove(at);
        self.peering.release(id);
        connection.keep(state)
    }

    /// A ledger for the session, so that an agent after a crash can go on with it.
    pub(super) fn begin_ledger(&mut self) {
        self.step_ledger(true);
    }

    /// The same, for a session that has none yet; and a new log where the former has grown. Cheap where nothing is to do.
    pub(super) fn keep_ledger(&mut self) {
        self.step_ledger(false);
    }

    /// When the ledger is to begin anew because routes have changed.
    pub(super) fn ledger_due(&self) -> Option<Instant> {
        let outbound = self.outbound.as_ref().filter(|outbound| outbound.has_news)?;
        self.connections.iter().find(|(id, _)| *id == outbound.connection)?.1.ledger_due()
    }

    fn step_ledger(&mut self, is_new: bool) {
        let (Some(safe), Some(outbound)) = (&self.safe, &self.outbound) else { return };
        let Outbound { connection: id, without_ledger: false, has_news, .. } = *outbound else { return };
        let Some(at) = self.connections.iter().position(|(name, _)| *name == id) else { return };
        let step = self.connections[at].1.ledger_step(is_new, has_news && outbound.outbox.is_idle(), clock::now());
        if step == LedgerStep::Nothing {
            return;
        }
        let safe = safe.clone();
        let Some(state) = self.written_down() else { return };
        let kept = self.connections[at].1.keep_ledger(step, &state, &safe);
        let Some(outbound) = &mut self.outbound else { return };
        outbound.has_news = false;
        if let Err(error) = kept {
            outbound.without_ledger = true;
            warn!(peer = %self.name, reason = describe(&error), "the session has no ledger: a crash of the agent would end it");
        }
    }

    /// The established session at this moment, but for what its connection has read and not written.
    fn written_down(&self) -> Option<KeptSession> {
        let standing = self.peering.standing(clock::now())?;
        let Outbound { connection: id, negotiated, local, remote, outbox, refreshes, .. } = self.outbound.as_ref()?;
        let mut sent = outbox.sent();
        sent.owes_refresh.extend(refreshes.owed().filter_map(AfiSafi::unicast_family).collect::<Vec<Family>>());
        let theirs = self.counters.open_of(*id).cloned();
        let ours = Open { capabilities: self.counters.offered().to_vec(), ..self.peering.open_message() };
        Some(KeptSession {
            peer: self.name.clone(),
            address: self.endpoint.peer.clone(),
            local: *local,
            remote: (*remote)?,
            router_id: self.router_id,
            settings: config::session_keys(&self.settings)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            signature: Signature::from(&self.endpoint.protection),
            open_sent: octets(&Message::Open(ours)).to_vec(),
            open_received: theirs.map(|open| octets(&Message::Open(open)).to_vec()).unwrap_or_default(),
            negotiated: negotiated.clone(),
            standing,
            since_boot: clock::since_boot(),
            established_at: self.report.began_at(),
            unread: Vec::new(),
            unwritten: Vec::new(),
            sent,
            recovered: self.recovered,
            chosen: Some(self.chosen.kept()),
        })
    }
}

/// Only what is shown depends on it.
fn read_open(octets: &[u8]) -> Option<Open> {
    let mut octets = octets.into();
    let frame = Frame::parse(&mut octets, Dialect::BEFORE_OPEN.max_message_len).ok()??;
    match Message::parse(frame.octets(), &Dialect::BEFORE_OPEN) {
        Ok(Parsed::Open(open)) => Some(open),
        Ok(_) | Err(_) => None,
    }
}
