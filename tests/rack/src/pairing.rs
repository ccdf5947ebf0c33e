//! One BGP session between crier and a router, described once: the configuration of either end is made from the same
//! [`Pairing`], so that a test says what the session is and not how five routers spell it.
//!
//! The two stand on one cable: the router has .1 and ::1 on its `eth0`, crier's node .11 and ::11.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use crate::bird::Session;
use crate::namespace::Namespace;
use crate::need::Need;
use crate::process::Process;

pub const ROUTER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 168, 35, 1), Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 1));
pub const NODE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 168, 35, 11), Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x11));

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// `V4` → `ipv4`, as most routers write it.
    pub fn word(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }
}

/// What the two ends of a session are told. The default: eBGP over IPv4 for IPv4 routes, both ends dial, nothing is
/// secured, and the hold time is long enough for a busy machine.
#[derive(Clone, Debug)]
pub struct Pairing {
    pub router_asn: u32,
    pub crier_asn: u32,
    /// Of the addresses that the session runs between.
    pub transport: Family,
    /// Of the routes that the router takes.
    pub families: Vec<Family>,
    pub hold_time_secs: u16,
    pub router_dials: bool,
    pub crier_dials: bool,
    /// TCP MD5 (RFC 2385).
    pub password: Option<String>,
    /// GTSM (RFC 5082).
    pub ttl_security: bool,
}

impl Default for Pairing {
    fn default() -> Pairing {
        Pairing {
            router_asn: 64512,
            crier_asn: 64513,
            transport: Family::V4,
            families: vec![Family::V4],
            hold_time_secs: 90,
            router_dials: true,
            crier_dials: true,
            password: None,
            ttl_security: false,
        }
    }
}

impl Pairing {
    pub fn router_address(&self) -> IpAddr {
        self.of(ROUTER)
    }

    /// crier's address: the router's one neighbor.
    pub fn crier_address(&self) -> IpAddr {
        self.of(NODE)
    }

    pub fn is_internal(&self) -> bool {
        self.router_asn == self.crier_asn
    }

    pub fn carries(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    fn of(&self, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> IpAddr {
        match self.transport {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        }
    }
}

/// The routers that crier is held against, each with a session to crier and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Make {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    Exabgp,
}

impl Make {
    pub const ALL: [Make; 5] = [Make::Bird, Make::Frr, Make::Gobgp, Make::Openbgpd, Make::Exabgp];

    pub fn name(self) -> &'static str {
        match self {
            Make::Bird => "bird",
            Make::Frr => "frr",
            Make::Gobgp => "gobgp",
            Make::Openbgpd => "openbgpd",
            Make::Exabgp => "exabgp",
        }
    }

    pub fn need(self) -> Need {
        match self {
            Make::Bird => Need::Bird,
            Make::Frr => Need::Frr,
            Make::Gobgp => Need::Gobgp,
            Make::Openbgpd => Need::Openbgpd,
            Make::Exabgp => Need::Exabgp,
        }
    }

    /// Starts one in `namespace` and waits until it answers questions, where it answers any.
    #[track_caller]
    pub fn start(self, namespace: &Namespace, pairing: &Pairing) -> Box<dyn Router> {
        match self {
            Make::Bird => Box::new(namespace.bird_paired(pairing)),
            Make::Frr => Box::new(namespace.frr_paired(pairing)),
            Make::Gobgp => Box::new(namespace.gobgp(pairing)),
            Make::Openbgpd => Box::new(namespace.openbgpd(pairing)),
            Make::Exabgp => Box::new(namespace.exabgp(pairing)),
        }
    }
}

/// A running router with one session, to crier.
pub trait Router {
    /// The process that speaks BGP; killing it is what a crash looks like. Its log is what a test may look for words in.
    fn process(&self) -> &Process;

    /// The session with crier as the router sees it.
    fn session(&self) -> Session;

    /// What crier announced to it: prefix → next hops. Where it came with a link-local next hop too, the global one.
    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>>;

    /// How many IPv4 routes crier has announced to it, cheaply.
    fn route_count(&self) -> usize;

    /// Sends crier a ROUTE-REFRESH for IPv4 unicast (RFC 2918).
    fn ask_again(&self);

    /// Ends the session as its operator does, with a text for the other end (RFC 9003). Returns the text that crier
    /// should get, which is another where the router lets its operator choose none.
    fn shut_down(&self, text: &str) -> String;

    /// All that it shows or has logged of the session, in which a NOTIFICATION's text can be found.
    fn words(&self) -> String {
        self.process().log()
    }
}

impl Pairing {
    /// crier's end: standalone, with the Services of the folder `manifests` and addresses from [`POOLS`]. The password
    /// is in the file `password_file`.
    pub fn crier_configuration(&self, manifests: &Path, password_file: &Path) -> String {
        let mut peer = vec![
            format!("address = \"{}\"", self.router_address()),
            format!("asn = {}", self.router_asn),
            format!("hold-time = \"{}s\"", self.hold_time_secs),
            "connect-retry-time = \"1s\"".to_owned(),
            format!("passive = {}", !self.crier_dials),
        ];
        if self.password.is_some() {
            peer.push(format!("password-file = \"{}\"", password_file.display()));
        }
        if self.ttl_security {
            peer.push("ttl-security = true".to_owned());
        }
        format!(
            "[manifests]\nfolder = \"{}\"\n[[pool]]\nname = \"public\"\naddresses = {POOLS:?}\n\
             [api]\nlisten = \"\"\n[log]\nlevel = \"info,crier::bgp=debug\"\n\
             [bgp]\nasn = {}\n[[bgp.peer]]\nname = \"router\"\n{}\n[[bgp.advertisement]]\n",
            manifests.display(),
            self.crier_asn,
            peer.join("\n"),
        )
    }
}

impl Namespace {
    /// crier's speaker alone, in a process of its own, at crier's end of a session: it announces `count` host routes
    /// from `first` on, as if for so many Services. The configuration is what `crier run` would have.
    #[track_caller]
    pub fn announce(&self, configuration: &str, first: Ipv4Addr, count: u32) -> Process {
        let file = self.rack().write(&format!("{}.announce.toml", self.name()), configuration);
        let mut command = Command::new(crate::server::binary());
        command.arg("announce").arg(file).args([first.to_string(), count.to_string()]);
        self.start("announce", command)
    }
}

/// Where crier's Services get their addresses from.
pub const POOLS: [&str; 2] = ["10.64.0.0/14", "2001:db8:1::/112"];
