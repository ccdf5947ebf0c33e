//! One cell's rack: a node and a router on one cable, and crier's Services as manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rack::crier::Crier;
use rack::pairing::{Family, Make, NODE, Pairing, ROUTER, Router};
use rack::{Manifests, Namespace, Process, Rack, Service, eventually, eventually_equal, secs, throughout};

use crate::PATIENCE;

pub type Table = BTreeMap<String, BTreeSet<IpAddr>>;

pub struct Stage {
    pub rack: Rack,
    pub router: Namespace,
    pub node: Namespace,
    manifests: Manifests,
}

impl Stage {
    pub fn new(name: &str) -> Stage {
        let rack = Rack::new(name);
        let manifests = Manifests::new(&rack);
        manifests.nodes(&[("node-1", "", &[NODE.0.into(), NODE.1.into()])]);
        let (router, node) = (rack.namespace("router"), rack.namespace("node-1"));
        rack::net::connect(&router, "eth0", &node, "eth0");
        for (host, (v4, v6)) in [(&router, ROUTER), (&node, NODE)] {
            host.up("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")]);
        }
        Stage { rack, router, node, manifests }
    }

    /// Starts crier's end of the session.
    pub fn crier(&self, pairing: &Pairing) -> Crier {
        let password_file = self.rack.folder().join("password");
        if let Some(password) = &pairing.password {
            std::fs::write(&password_file, password).expect("the rack's folder is ours");
        }
        let crier = self.node.crier("node-1", &pairing.crier_configuration(self.manifests.path(), &password_file));
        crier.wait_ready(secs(30));
        crier
    }

    pub fn start(&self, make: Make, pairing: &Pairing) -> Box<dyn Router> {
        make.start(&self.router, pairing)
    }

    /// From now on there are `count` Services, with addresses of these families, and no others. Returns what a router
    /// should know then.
    pub fn services(&self, count: u32, families: &[Family]) -> Table {
        let mut text = String::new();
        let mut table = Table::new();
        for number in 1..=count {
            let (v4, v6) = addresses(number);
            let routes: Vec<(IpAddr, String, IpAddr)> = families
                .iter()
                .map(|family| match family {
                    Family::V4 => (v4.into(), format!("{v4}/32"), IpAddr::from(NODE.0)),
                    Family::V6 => (v6.into(), format!("{v6}/128"), IpAddr::from(NODE.1)),
                })
                .collect();
            let wish: Vec<String> = routes.iter().map(|(address, ..)| address.to_string()).collect();
            text += &Service::new(&format!("s{number}")).addresses(&wish.join(",")).on("node-1").manifest();
            table.extend(routes.into_iter().map(|(_, prefix, hop)| (prefix, BTreeSet::from([hop]))));
        }
        self.manifests.write("services.yaml", &text);
        table
    }

    /// crier's speaker with `count` IPv4 routes, and what a router should know then.
    pub fn announce(&self, pairing: &Pairing, count: u32) -> (Table, Process) {
        let configuration = pairing.crier_configuration(self.manifests.path(), &self.rack.folder().join("password"));
        let prefixes = (1..=count).map(|number| format!("{}/32", addresses(number).0));
        let table = prefixes.map(|prefix| (prefix, BTreeSet::from([NODE.0.into()]))).collect();
        (table, self.node.announce(&configuration, addresses(1).0, count))
    }
}

/// The addresses of the Service of that number, out of `POOLS`.
pub fn addresses(number: u32) -> (Ipv4Addr, Ipv6Addr) {
    let v4 = u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number;
    let v6 = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0)) + u128::from(number);
    (v4.into(), v6.into())
}

/// What the cases wait for.
pub trait Expect {
    /// Waits until it has the session established.
    #[track_caller]
    fn is_established(&self);

    /// Waits until it knows exactly these routes.
    #[track_caller]
    fn knows(&self, expected: &Table);
}

impl Expect for dyn Router {
    #[track_caller]
    fn is_established(&self) {
        eventually(&format!("{} has the session established", self.process().name()), PATIENCE, || {
            self.process().expect_running();
            let session = self.session();
            if session.is_established() { Ok(()) } else { Err(format!("{session:?}")) }
        });
    }

    #[track_caller]
    fn knows(&self, expected: &Table) {
        eventually_equal(&format!("the table of {}", self.process().name()), PATIENCE, expected, || self.routes());
    }
}

/// Neither end ever comes to a session, though they try for a while.
#[track_caller]
pub fn never_established(router: &dyn Router, crier: &Crier) {
    throughout("there is no session", secs(6), || {
        let (session, state) = (router.session(), crier_state(crier));
        if session.times_established > 0 || session.is_established() || state == "Established" {
            return Err(format!("the router says {session:?}, crier says {state}"));
        }
        Ok(())
    });
}

/// The state of the session as crier reports it.
pub fn crier_state(crier: &Crier) -> String {
    let status = crier.try_json("status").unwrap_or_default();
    status["peers"][0]["state"].as_str().unwrap_or_default().to_owned()
}
