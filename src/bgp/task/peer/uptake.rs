//! Whether the peer takes what it is sent. The kernel's word of an octet is not the peer's: a router that reads nothing closes its window,
//! and what was written waits in this host. And its host's word is not its own: a router that is stuck with an open window takes octets, and
//! does nothing by them, until it says something again. Floor 2, a part of the peer's task.

use std::time::{Duration, Instant};

use crate::bgp::socket::{Connection, Progress};

/// Of one established session.
#[derive(Debug)]
pub(super) struct Uptake {
    /// What the peer's host had acknowledged at the last look, in octets.
    acknowledged: u64,
    /// Since when nothing was acknowledged although something waits; `None` while the peer has all routes that were written.
    waiting_since: Option<Instant>,
    /// What the peer had sent when its host had all routes, until it sends more: in octets.
    unheard_since: Option<u64>,
}

/// How often to look while something waits: no event says that the peer's host has acknowledged it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A peer that takes nothing for so long does not read.
const SILENT_FOR: Duration = Duration::from_secs(10);

impl Uptake {
    /// What was written before may wait still.
    pub(super) fn new(now: Instant) -> Uptake {
        Uptake { acknowledged: 0, waiting_since: Some(now), unheard_since: None }
    }

    /// Routes go to the connection.
    pub(super) fn note_routes(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Looks how far the peer is. `more`: there are routes that do not even wait on the connection.
    pub(super) fn look(&mut self, connection: &Connection, more: bool, now: Instant) {
        if self.waiting_since.is_none() && self.unheard_since.is_none() && !more {
            return;
        }
        // A connection that tells nothing is about to end.
        let Some(Progress { acknowledged, received, waits }) = connection.progress() else { return };
        if self.waiting_since.is_none() && !more {
            // A KEEPALIVE waits here now and then; the routes do not.
            self.unheard_since = self.unheard_since.filter(|before| *before == received);
            return;
        }
        self.unheard_since = (!waits && !more).then_some(received);
        let moves = std::mem::replace(&mut self.acknowledged, acknowledged) != acknowledged;
        self.waiting_since = match self.waiting_since {
            _ if !waits && !more => None,
            Some(since) if !moves => Some(since),
            Some(_) | None => Some(now),
        };
    }

    /// Routes were written that the peer's host has not acknowledged.
    pub(super) fn waits(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The peer's host has acknowledged all routes, and the peer has said nothing since, not even that it is there: it may have processed
    /// them, and nobody here can know.
    pub(super) fn unheard(&self) -> bool {
        self.unheard_since.is_some()
    }

    /// Since when the peer has taken nothing, if that is long.
    pub(super) fn silent_since(&self, now: Instant) -> Option<Instant> {
        self.waiting_since.filter(|since| now >= *since + SILENT_FOR)
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.waits().then_some(now + LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::clock;

    /// Writes until the socket takes no more.
    async fn write(connection: &mut Connection) {
        for _ in 0..20 {
            while poll_fn(|cx| Poll::Ready(connection.poll_event(4096, cx).is_ready())).await {}
            tokio::task::yield_now().await;
        }
    }

    /// Input: a peer that reads nothing, and then all.
    #[tokio::test]
    async fn a_peer_that_does_not_read_has_not_taken_its_routes_and_is_silent_after_ten_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let peer = TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        let (accepted, peer) = tokio::join!(listener.accept(), peer.connect(listener.local_addr().unwrap()));
        let (mut connection, mut peer) = (Connection::new(accepted.unwrap().0), peer.unwrap());
        let start = clock::now();
        let mut uptake = Uptake::new(start);
        uptake.look(&connection, false, start);
        assert!(!uptake.waits() && uptake.next_deadline(start).is_none(), "nothing was written");
        assert!(uptake.unheard());
        let mut routes = 0;
        // More than both kernels hold.
        for _ in 0..4096 {
            connection.queue_routes(Bytes::from_static(&[b'r'; 4096]));
            routes += 4096;
        }
        uptake.note_routes(start);
        write(&mut connection).await;
        // What fits the peer's buffer is acknowledged a moment later.
        tokio::time::sleep(Duration::from_millis(100)).await;
        uptake.look(&connection, false, start);
        uptake.look(&connection, false, start + Duration::from_secs(9));
        assert!(uptake.waits() && uptake.silent_since(start + Duration::from_secs(9)).is_none());
        assert!(!uptake.unheard(), "it has more to take first");
        let later = start + Duration::from_secs(10);
        uptake.look(&connection, false, later);
        assert_eq!(uptake.silent_since(later), Some(start));
        let read = async {
            let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
            while read < routes {
                read += peer.read(&mut buffer).await.expect("the connection is good");
            }
        };
        let wrote = async {
            loop {
                poll_fn(|cx| connection.poll_event(4096, cx)).await;
            }
        };
        tokio::select! { () = read => {}, () = wrote => unreachable!("it writes for ever") }
        tokio::time::sleep(Duration::from_millis(100)).await;
        uptake.look(&connection, true, later);
        assert!(uptake.waits() && uptake.silent_since(later).is_none(), "there are more routes to write");
        uptake.look(&connection, false, later);
        assert!(!uptake.waits());
        // A router that is stuck says nothing, however long its host takes octets.
        uptake.look(&connection, false, later);
        assert!(uptake.unheard());
        peer.write_all(b"k").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        uptake.look(&connection, false, later);
        assert!(!uptake.unheard() && uptake.next_deadline(later).is_none());
    }
}
