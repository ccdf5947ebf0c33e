//! The two things that are asked on this host: kube-proxy's health over HTTP, and the kernel for kube-proxy's rules.
//! Floor 2. What the answers mean is the business of `machine`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use socket2::{SockFilter, SockRef};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::machine::{Health, Rules};
use super::packet::{Answer, DROP, GENERATION, Jumps, Question, TableFamily};

/// How long an answer may take, from the connection on.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most octets of an answer's header that are read. Its body is not.
const HEADER: usize = 8 * 1024;

/// Asks an `http` URL once. Takes at most [`PATIENCE`]; safe to cancel.
pub(super) async fn ask(url: &http::Uri) -> Health {
    match timeout(PATIENCE, get(url)).await {
        Ok(Ok(status)) => Health::Answered(status),
        Ok(Err(error)) if is_refusal(&*error) => Health::Refused,
        Ok(Err(error)) => Health::Silent(error.to_string()),
        Err(_) => Health::Silent(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn is_refusal(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn get(url: &http::Uri) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((address, url.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(HEADER).handshake(TokioIo::new(stream)).await?;
    let authority = url.authority().map_or(host, http::uri::Authority::as_str);
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::get(path)
        .header(http::header::HOST, authority)
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status().as_u16()),
        ended = &mut connection => {
            ended?;
            // The answer was read before the connection ended, or there is none.
            Ok(answer.await?.status().as_u16())
        }
    }
}

/// The chains of iptables and its like that drop what this host is to pass on, unless a rule accepts it. Needs a tokio runtime around
/// it; says nothing where the kernel may not be asked.
pub fn dropping_forward() -> Vec<&'static str> {
    let Ok(mut rules) = RulesSocket::open() else { return Vec::new() };
    let families = [(TableFamily::Ipv4, "ip filter FORWARD"), (TableFamily::Ipv6, "ip6 filter FORWARD")];
    let drops = |(family, name): (TableFamily, &'static str)| {
        let answer = rules.ask(Question::Chain { family, table: "filter", name: "FORWARD" });
        matches!(answer, Ok(Answer::Present { policy: Some(DROP), .. })).then_some(name)
    };
    families.into_iter().filter_map(drops).collect()
}

/// Tells when the kernel's nftables rules change, and whether kube-proxy's are there. Needs CAP_NET_ADMIN, and a tokio runtime
/// around it.
pub(super) struct RulesSocket {
    /// Hears the end of each change and nothing else.
    changes: TokioSocket,
    questions: Socket,
    sequence: u32,
}

impl RulesSocket {
    /// # Errors
    /// EPERM without the capability, EPROTONOSUPPORT where the kernel has no netfilter.
    pub(super) fn open() -> io::Result<RulesSocket> {
        let mut changes = TokioSocket::new(NETLINK_NETFILTER)?;
        let socket = changes.socket_mut();
        SockRef::from(&*socket).attach_filter(&filter())?;
        socket.bind_auto()?;
        socket.add_membership(NFTABLES_GROUP)?;
        Ok(RulesSocket { changes, questions: for_questions()?, sequence: 0 })
    }

    /// Waits until rules have changed since the last call. Safe to cancel.
    ///
    /// # Errors
    /// When the kernel tells no more. That more has changed than the socket could hold is no error: it is a change.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        told(self.changes.recv_from_full().await)?;
        // All that waits is told of by this one return.
        loop {
            match self.changes.socket_ref().recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => told(received)?,
            }
        }
    }

    /// Which rules of kube-proxy there are now. Each question sees all of a change or nothing of it.
    ///
    /// # Errors
    /// When the kernel does not answer. Where it knows nothing of nftables there are no rules.
    pub(super) fn rules(&mut self) -> io::Result<Rules> {
        Ok(Rules { ipv4: self.has_rules(TableFamily::Ipv4)?, ipv6: self.has_rules(TableFamily::Ipv6)? })
    }

    /// In the mode `nftables` kube-proxy has a table of its own, in `iptables` and `ipvs` chains in the table `nat`. A flush may
    /// leave the chains without any rule (`iptables -t nat -F`).
    fn has_rules(&mut self, family: TableFamily) -> io::Result<bool> {
        let used = |answer| matches!(answer, Answer::Present { uses, .. } if uses != Some(0));
        let own_table = self.ask(Question::Table { family, name: "kube-proxy" })?;
        if used(own_table) {
            let services = self.ask(Question::Chain { family, table: "kube-proxy", name: "services" })?;
            if matches!(services, Answer::Refused(_)) {
                // A kube-proxy that names its chains otherwise is known by its table.
                return Ok(true);
            }
            // The kernel itself calls this one, and it leads there.
            let base = self.ask(Question::Chain { family, table: "kube-proxy", name: "nat-prerouting" })?;
            return Ok(used(services) && used(base) && has_any_rule(family, "kube-proxy", "services")?);
        }
        let services = self.ask(Question::Chain { family, table: "nat", name: "KUBE-SERVICES" })?;
        Ok(used(services)
            && self.leads_to(family, "PREROUTING", "KUBE-SERVICES")?
            && has_any_rule(family, "nat", "KUBE-SERVICES")?)
    }

    /// A rule of a chain in the table `nat` sends packets on to another chain there. A chain that nothing leads to does nothing
    /// (`iptables -t nat -F PREROUTING`).
    fn leads_to(&mut self, family: TableFamily, chain: &str, target: &str) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.questions.send(&Question::Rules { family, table: "nat", chain }.emit(self.sequence), 0)?;
        let mut jumps = Jumps::default();
        while jumps.ended.is_none() {
            // The kernel puts the next part into the socket as one is taken.
            let (octets, _) = self.questions.recv_from_full()?;
            jumps.take(&octets, self.sequence, target);
        }
        match jumps.ended {
            Some(Err(code @ (libc::EPERM | libc::EACCES))) => Err(io::Error::from_raw_os_error(code)),
            // The change that came between is told of, and then all is asked again.
            _ => Ok(jumps.found || jumps.interrupted),
        }
    }

    fn ask(&mut self, question: Question<'_>) -> io::Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        self.questions.send(&question.emit(self.sequence), 0)?;
        // The kernel has put its answer into the socket before the call above returns.
        loop {
            let (octets, _) = self.questions.recv_from_full()?;
            match Answer::parse(&octets, self.sequence) {
                Some(Answer::Refused(code @ (libc::EPERM | libc::EACCES))) => {
                    return Err(io::Error::from_raw_os_error(code));
                }
                Some(answer) => return Ok(answer),
                // The answer to an earlier question, which was given up.
                None => {}
            }
        }
    }
}

fn for_questions() -> io::Result<Socket> {
    let mut questions = Socket::new(NETLINK_NETFILTER)?;
    questions.bind_auto()?;
    questions.connect(&SocketAddr::new(0, 0))?;
    questions.set_non_blocking(true)?;
    Ok(questions)
}

/// Whether a chain has a rule. That others lead to it does not tell: a flush leaves their jumps (`iptables -t nat -F KUBE-SERVICES`). Of
/// 10,000 rules only the first are read, by a socket of its own, which ends the list when it is closed.
fn has_any_rule(family: TableFamily, table: &str, chain: &str) -> io::Result<bool> {
    let questions = for_questions()?;
    questions.send(&Question::Rules { family, table, chain }.emit(1), 0)?;
    let mut rules = Jumps::default();
    while !rules.has_rules && rules.ended.is_none() {
        let (octets, _) = questions.recv_from_full()?;
        rules.take(&octets, 1, chain);
    }
    Ok(rules.has_rules || rules.interrupted)
}

/// What was received does not matter, and neither does that some of it was lost.
fn told<T>(received: io::Result<T>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Lets pass the message that ends a change. The kernel sends it by itself, behind all that the change consisted of: of a
/// kube-proxy that rewrites 10,000 rules, one message is read.
fn filter() -> [SockFilter; 4] {
    // A filter reads in network order what the kernel has written in its own.
    let generation = u32::from(GENERATION.to_be());
    [
        SockFilter::new(LOAD_HALF, 0, 0, TYPE_FIELD),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, generation),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = 7;

/// Of a netlink header.
const TYPE_FIELD: u32 = 4;

// The kernel's constants in the types of the fields that they go into; each is far below the least maximum.
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
