//! How long one route more takes from the plan, or from the command that adds it, to the receiver's socket.
//!
//! For crier the time begins when the slice is handed to the speaker. BIRD is asked over its control socket to read its
//! configuration again, FRR over its vty socket to have one `network` more, so that no tool has to start within the time. OpenBGPD and GoBGP hear the
//! route from a peer, for which the time begins when that peer's UPDATE is written: their tools take longer to start than all
//! the rest.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;

use rack::{millis, now, rest, secs};

use super::speakers::{self, Kind, Speaker};
use super::{Lab, PATIENCE, SPEAKER, SPEAKER_ASN, Table, clock, peer_address, shown, speak, verdict};

/// Routes of each speaker before the first addition: few, because BIRD reads them all at every addition.
const FEW: u32 = 10;
/// As many as crier gets in a second row.
const MANY: u32 = 100_000;
const ADDITIONS: u32 = 200;
/// Between two additions.
const PAUSE: Duration = millis(5);
/// Half a millisecond from the Plan to the wire.
const GOAL: Duration = Duration::from_micros(500);

/// A table with a row for each of these speakers.
pub fn compare(lab: &Lab, kinds: &[Kind]) -> String {
    let mut text = format!(
        "\n| one route more ({ADDITIONS} times), beside | speaker | p50 | p99 | max | goal p50 ≤ {} |\n|---|---|---|---|---|---|\n",
        shown(GOAL)
    );
    let rows = kinds.iter().map(|kind| (*kind, FEW));
    let many = kinds.iter().filter(|kind| **kind == Kind::Crier).map(|kind| (*kind, MANY));
    for (kind, beside) in rows.chain(many) {
        match measure(lab, kind, beside) {
            Ok(mut times) => {
                times.sort();
                let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
                let (p50, p99, max) = (at(50), at(99), times.last().copied().unwrap_or_default());
                let goal = if kind == Kind::Crier { verdict(p50 <= GOAL) } else { "" };
                let (p50, p99, max) = (shown(p50), shown(p99), shown(max));
                let _ = writeln!(text, "| {beside} | {kind:?} | {p50} | {p99} | {max} | {goal} |");
            }
            Err(error) => eprintln!("the additions to {kind:?} could not be measured: {error}"),
        }
    }
    text
}

fn measure(lab: &Lab, kind: Kind, beside: u32) -> io::Result<Vec<Duration>> {
    // With two sets OpenBGPD has a feeder, too.
    let table = Table { routes: beside, sets: if kind == Kind::OpenBgpd { 2 } else { 1 } };
    let mut speaker = kind.start(lab, table, 1);
    lab.router.run(|| {
        let count = usize::try_from(beside).map_err(io::Error::other)?;
        let mut sink = lab.dial(&speaker, 1, false)?;
        sink.take_dump(count, true, &Barrier::new(1))?;
        let mut control = Control::open(lab, &mut speaker)?;
        let mut times = Vec::new();
        for number in beside..beside + ADDITIONS {
            rest(PAUSE);
            let asked = control.add(number)?;
            let told = sink.next_update()?;
            let begun = control.hear()?.unwrap_or(asked);
            times.push(told.saturating_sub(begun));
        }
        Ok(times)
    })
}

/// The way to tell a speaker of one route more.
enum Control {
    /// To crier's `speak`, which tells when it has handed the slice out.
    Plan(UdpSocket),
    /// To BIRD, with the file of the routes that were added.
    Bird { socket: UnixStream, file: PathBuf, routes: String },
    /// To FRR, inside the address family.
    Frr(UnixStream),
    /// As a peer.
    Feeder(TcpStream),
}

impl Control {
    fn open(lab: &Lab, speaker: &mut Speaker) -> io::Result<Control> {
        let folder = lab.rack.folder();
        let mut control = match speaker.kind {
            Kind::Crier => {
                let socket = UdpSocket::bind((peer_address(1), 0))?;
                socket.set_read_timeout(Some(secs(10)))?;
                socket.connect((SPEAKER, speak::ORDERS))?;
                Control::Plan(socket)
            }
            Kind::Bird => Control::Bird {
                socket: unix(folder.join(speakers::BIRD_SOCKET))?,
                file: folder.join(speakers::ADDED_TO_BIRD),
                routes: String::new(),
            },
            Kind::Frr => Control::Frr(unix(folder.join("bgpd.vty"))?),
            Kind::OpenBgpd | Kind::GoBgp => {
                let feeder = speaker.feeder.take().ok_or_else(|| io::Error::other("it has no feeder"))?;
                Control::Feeder(feeder)
            }
        };
        match &mut control {
            Control::Bird { socket, .. } => read_until(socket, bird_is_done)?,
            Control::Frr(socket) => {
                let router = format!("router bgp {SPEAKER_ASN}");
                for line in ["enable", "configure terminal", &router, "address-family ipv4 unicast"] {
                    socket.write_all(format!("{line}\0").as_bytes())?;
                    read_until(socket, frr_is_done)?;
                }
            }
            Control::Plan(_) | Control::Feeder(_) => {}
        }
        Ok(control)
    }

    /// Adds a route, and tells when it began to.
    fn add(&mut self, number: u32) -> io::Result<Duration> {
        match self {
            Control::Plan(socket) => {
                let at = clock();
                socket.send(b"add")?;
                Ok(at)
            }
            Control::Bird { socket, file, routes } => {
                *routes += &speakers::bird_route(number);
                std::fs::write(file, &*routes)?;
                let at = clock();
                socket.write_all(b"configure\n")?;
                Ok(at)
            }
            Control::Frr(socket) => {
                let line = format!("network {}/32 route-map SET0\0", speakers::route(number));
                let at = clock();
                socket.write_all(line.as_bytes())?;
                Ok(at)
            }
            Control::Feeder(stream) => {
                let update = speakers::updates(0, &[number]).concat();
                let at = clock();
                stream.write_all(&update)?;
                Ok(at)
            }
        }
    }

    /// Takes the answer, and gives the time it tells for the beginning.
    fn hear(&mut self) -> io::Result<Option<Duration>> {
        match self {
            Control::Plan(socket) => {
                let mut planned = [0; 8];
                socket.recv(&mut planned)?;
                return Ok(Some(Duration::from_nanos(u64::from_be_bytes(planned))));
            }
            Control::Bird { socket, .. } => read_until(socket, bird_is_done)?,
            Control::Frr(socket) => read_until(socket, frr_is_done)?,
            Control::Feeder(_) => {}
        }
        Ok(None)
    }
}

fn unix(path: PathBuf) -> io::Result<UnixStream> {
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(secs(10)))?;
    Ok(socket)
}

/// The last line of an answer has a space behind its number.
fn bird_is_done(answer: &[u8]) -> bool {
    let lines = answer.strip_suffix(b"\n").unwrap_or_default();
    let last = lines.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    last.get(4) == Some(&b' ') && last.iter().take(4).all(u8::is_ascii_digit)
}

/// Three zero octets and a status.
fn frr_is_done(answer: &[u8]) -> bool {
    matches!(answer, [.., 0, 0, 0, _])
}

fn read_until(socket: &mut UnixStream, is_done: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let began = now();
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    while !is_done(&answer) {
        let count = socket.read(&mut some)?;
        if count == 0 || began.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("no end of an answer: {}", String::from_utf8_lossy(&answer))));
        }
        answer.extend(&some[..count]);
    }
    Ok(())
}
