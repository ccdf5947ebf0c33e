//! Clients in a namespace: HTTP requests, a request every few milliseconds to see an outage, and ARP questions.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::namespace::Namespace;
use crate::packet::{Arp, ArpOperation, Frames, Mac, PacketSocket};
use crate::wait::{Deadline, eventually, now, rest};

/// How long one request may take when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a [server](crate::server) of the rack answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// The name of the server that answered; empty if it was none of the rack's.
    pub name: String,
    /// The client's address as the server saw it; tells whether somebody translated it on the way.
    pub source: Option<IpAddr>,
    /// The client's address as a proxy before the server told it (`X-Forwarded-For`).
    pub forwarded_for: Option<IpAddr>,
    /// From before the connection was opened until the answer was read whole.
    pub took: Duration,
}

impl Namespace {
    /// `GET http://ADDRESS/` from in here.
    ///
    /// # Errors
    /// The connection's: refused, no route, timed out after two seconds.
    pub fn get(&self, address: impl Into<SocketAddr>) -> io::Result<Answer> {
        self.get_path(address, "/", PATIENCE)
    }

    /// `GET http://ADDRESS/PATH` from in here, with a limit for the whole of it.
    pub fn get_path(&self, address: impl Into<SocketAddr>, path: &str, within: Duration) -> io::Result<Answer> {
        let address = address.into();
        self.run(|| request(address, &address.to_string(), path, within))
    }

    /// `GET http://HOST/` from in here where HOST resolves to the address: the name stands in the header `Host`.
    ///
    /// # Errors
    /// As of [`get`](Self::get).
    pub fn get_host(&self, address: impl Into<SocketAddr>, host: &str) -> io::Result<Answer> {
        let address = address.into();
        self.run(|| request(address, host, "/", PATIENCE))
    }

    /// Asks `count` times, each over a new connection, and returns how often which server answered; failures under
    /// their error's text.
    pub fn get_many(&self, address: impl Into<SocketAddr>, count: usize) -> BTreeMap<String, usize> {
        let address = address.into();
        let mut by_name = BTreeMap::new();
        self.run(|| {
            for _ in 0..count {
                let answer = request(address, &address.to_string(), "/", PATIENCE);
                let name = answer.map_or_else(|error| error.to_string(), |answer| answer.name);
                *by_name.entry(name).or_default() += 1;
            }
        });
        by_name
    }

    /// Starts a thread in here that asks again and again, a new connection each time, `every` so often.
    pub fn ask_steadily(&self, address: impl Into<SocketAddr>, every: Duration) -> Asking {
        let address = address.into();
        let shared = Arc::new(Steady::default());
        let thread = self.spawn("asking", {
            let shared = shared.clone();
            move || shared.ask(address, every)
        });
        Asking { shared, thread: Some(thread) }
    }

    /// Starts a thread in here that opens a TCP connection `every` so often and closes it at once, without waiting for the
    /// one before: so each outage is seen to the pace, however long a lost segment takes to be sent again. Who answered
    /// is not asked; the outcomes name `connected`.
    pub fn connect_steadily(&self, address: impl Into<SocketAddr>, every: Duration) -> Asking {
        let address = address.into();
        let shared = Arc::new(Steady::default());
        let thread = self.spawn("connecting", {
            let shared = shared.clone();
            move || shared.connect(address, every)
        });
        Asking { shared, thread: Some(thread) }
    }

    /// Asks on the link of `interface` who has `address`, and returns every hardware address that answered within
    /// `window`, in the order of their first answers. More than one is a conflict.
    ///
    /// # Panics
    /// When the interface has no hardware address or cannot be listened on.
    pub fn who_has(&self, interface: &str, address: Ipv4Addr, window: Duration) -> Vec<Mac> {
        let own = self.mac(interface);
        let links = self.ip_json(&format!("-4 address show dev {interface}"));
        let sender = links[0]["addr_info"][0]["local"].as_str().and_then(|text| text.parse().ok());
        let question = Arp {
            frame_from: own,
            frame_to: Mac::BROADCAST,
            operation: ArpOperation::Request,
            sender_mac: own,
            sender: sender.unwrap_or(Ipv4Addr::UNSPECIFIED),
            target_mac: Mac([0; 6]),
            target: address,
        };
        let answers = self.run(|| answers_to(interface, &question, Deadline::after(window)));
        answers.unwrap_or_else(|error| panic!("{}: could not ask who has {address}: {error}", self.name()))
    }

    /// Makes the kernel in here look for the neighbour behind an address of its links, by sending a datagram that nobody
    /// waits for.
    pub fn poke(&self, address: IpAddr) {
        let local: SocketAddr =
            if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        // That nobody was found is told to the next one who sends.
        let _ = self.run(|| UdpSocket::bind(local)?.send_to(b"anybody?", (address, 9)));
    }

    /// Opens a TCP connection from in here; it stays usable anywhere.
    pub fn connect(&self, address: impl Into<SocketAddr>, within: Duration) -> io::Result<TcpStream> {
        let address = address.into();
        self.run(|| TcpStream::connect_timeout(&address, within))
    }
}

/// One request of an [`Asking`].
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it was started.
    pub at: Instant,
    /// The answering server's name, or why there was no answer.
    pub result: Result<String, String>,
}

/// A client that asks all the time, until it is stopped or dropped.
#[derive(Debug)]
pub struct Asking {
    shared: Arc<Steady>,
    thread: Option<JoinHandle<()>>,
}

/// All the outcomes of an [`Asking`], in order.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(pub Vec<Outcome>);

#[derive(Debug, Default)]
struct Steady {
    stop: AtomicBool,
    outcomes: Mutex<Vec<Outcome>>,
}

impl Steady {
    /// A request may take this long: long enough for a busy machine, short enough that one lost request does not hide
    /// how long the outage was. TCP itself would send its first segment again after a second.
    const PATIENCE: Duration = Duration::from_millis(250);

    fn ask(&self, address: SocketAddr, every: Duration) {
        while !self.stop.load(Ordering::Relaxed) {
            let at = now();
            let result = request(address, &address.to_string(), "/", Self::PATIENCE);
            let result = result.map(|answer| answer.name).map_err(|error| error.to_string());
            self.outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(Outcome { at, result });
            rest(every.saturating_sub(at.elapsed()));
        }
    }
}

impl Steady {
    /// A connection that has not come about by then is lost; TCP's own second attempt, after 1 s, is not waited for.
    const CONNECT_PATIENCE: Duration = Duration::from_millis(900);

    fn connect(&self, address: SocketAddr, every: Duration) {
        let mut open: Vec<(usize, Instant, Socket)> = Vec::new();
        let mut next = now();
        while !self.stop.load(Ordering::Relaxed) {
            let at = now();
            if at >= next {
                next += every;
                let waiting = Err("no answer".to_owned());
                let number = self.put(Outcome { at, result: waiting });
                match start_connecting(address) {
                    Ok(socket) => open.push((number, at, socket)),
                    Err(error) => self.settle(number, Err(error.to_string())),
                }
                continue;
            }
            let mut fds: Vec<PollFd<'_>> =
                open.iter().map(|(_, _, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)).collect();
            let wait = PollTimeout::try_from(next - at).unwrap_or(PollTimeout::ZERO);
            // A signal in between is no news.
            let _ = poll(&mut fds, wait);
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            let mut ready = ready.into_iter();
            open.retain(|(number, at, socket)| {
                if !ready.next().unwrap_or(false) {
                    return at.elapsed() < Self::CONNECT_PATIENCE;
                }
                let result = match socket.take_error() {
                    Ok(None) => Ok("connected".to_owned()),
                    Ok(Some(error)) | Err(error) => Err(error.to_string()),
                };
                self.settle(*number, result);
                false
            });
        }
    }

    fn put(&self, outcome: Outcome) -> usize {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        outcomes.push(outcome);
        outcomes.len() - 1
    }

    fn settle(&self, number: usize, result: Result<String, String>) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        outcomes[number].result = result;
    }
}

fn start_connecting(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    // Closing is a reset then, and leaves no port waiting.
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

impl Asking {
    /// What was answered so far.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes(self.shared.outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone())
    }

    /// Ends it and returns everything.
    pub fn stop(mut self) -> Outcomes {
        self.end();
        self.outcomes()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Asking {
    /// Waits until so many requests have been answered.
    #[track_caller]
    pub fn is_served(&self, what: &str, count: usize, within: Duration) {
        eventually(what, within, || {
            let served = self.outcomes().0.iter().filter(|outcome| outcome.result.is_ok()).count();
            if served >= count { Ok(()) } else { Err(format!("{served} connections")) }
        });
    }

    /// Waits until each of the last forty requests has been answered, but for those that may be under way.
    #[track_caller]
    pub fn is_served_again(&self, what: &str, within: Duration) {
        eventually(what, within, || {
            let outcomes = self.outcomes();
            let last = outcomes.0.iter().rev().skip(UNDER_WAY).take(40).filter(|it| it.result.is_ok()).count();
            if last == 40 { Ok(()) } else { Err(format!("{last} of the last 40 connections")) }
        });
    }

    /// Stops asking. What was under way then is nobody's loss, and is left out.
    pub fn stop_after_the_last(self) -> Outcomes {
        let mut outcomes = self.stop();
        outcomes.0.truncate(outcomes.0.len().saturating_sub(UNDER_WAY));
        outcomes
    }
}

/// So many requests may be under way at any time.
const UNDER_WAY: usize = 2;

impl Drop for Asking {
    fn drop(&mut self) {
        self.end();
    }
}

impl Outcomes {
    /// How many requests were not answered.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|outcome| outcome.result.is_err()).count()
    }

    /// The longest time between the starts of two answered requests that follow each other: an outage, if it is much
    /// longer than the pace.
    pub fn longest_gap(&self) -> Duration {
        let answered: Vec<Instant> = self.0.iter().filter(|o| o.result.is_ok()).map(|o| o.at).collect();
        answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Who answered, each name once, in the order of its first answer.
    pub fn servers(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.0.iter().filter_map(|outcome| outcome.result.as_ref().ok()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, lost, gap) = (self.0.len(), self.lost(), self.longest_gap());
        write!(f, "{all} requests, {lost} lost, longest gap {gap:?}, answered by {}", self.servers().join(", "))
    }
}

/// One request in the calling thread's namespace.
fn request(address: SocketAddr, host: &str, path: &str, within: Duration) -> io::Result<Answer> {
    let start = now();
    let deadline = Deadline::after(within);
    // A time-out of zero would mean none at all.
    let left = || deadline.left().max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left()))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if deadline.has_passed() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => answer.extend(&buffer[..length]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer has no status"))?;
    let told: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let address = |key: &str| told[key].as_str().and_then(|text| text.parse().ok());
    Ok(Answer {
        status,
        name: told["name"].as_str().unwrap_or_default().into(),
        source: address("client"),
        forwarded_for: address("forwarded_for"),
        body: body.into(),
        took: start.elapsed(),
    })
}

/// What a host's neighbour table has for the address, or that it has nothing.
pub(crate) fn neighbor_or(host: &Namespace, address: IpAddr) -> Result<Mac, String> {
    host.neighbors().get(&address).copied().ok_or_else(|| format!("{} has no entry for {address}", host.name()))
}

/// Sends the question at once and every 100 ms until the deadline, since the first may be lost on a link just set up.
fn answers_to(interface: &str, question: &Arp, deadline: Deadline) -> io::Result<Vec<Mac>> {
    const AGAIN: Duration = Duration::from_millis(100);
    let socket = PacketSocket::open(interface, Frames::Arp, Duration::from_millis(5))?;
    let mut answers = Vec::new();
    let mut buffer = [0; 2048];
    let mut next = now();
    while !deadline.has_passed() {
        if now() >= next {
            socket.send(&question.frame())?;
            next = now() + AGAIN;
        }
        let Some((_, frame)) = socket.receive(&mut buffer)? else { continue };
        let Some(arp) = Arp::read(frame) else { continue };
        let answered = arp.operation == ArpOperation::Reply && arp.sender == question.target;
        if answered && !answers.contains(&arp.sender_mac) {
            answers.push(arp.sender_mac);
        }
    }
    Ok(answers)
}
