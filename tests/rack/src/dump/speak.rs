//! crier in the dump bench: `bgp::task::run` with a slice of many routes, in a process of its own, as `crier run` has it; only
//! the plan is made up. A datagram to port [`ORDERS`] adds one route to the plan.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use crier::bgp::socket::listeners::{Listen, Listeners};
use crier::bgp::task as speaker;
use crier::community::Community;
use crier::config::{self, PeerAddress, SourceFile};
use crier::plan::slice::{BgpSlice, PeerSlice};
use crier::route::RouteAttributes;
use crier::world::BfdSessions;
use imbl::OrdMap;
use ipnet::IpNet;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::clock;
use super::{FIRST_ROUTE, PEER_ASN, SPEAKER, SPEAKER_ASN, peer_address};

/// UDP port on which the process is told to add a route.
pub const ORDERS: u16 = 9179;

/// As many as `crier run` has.
const WORKERS: usize = 2;

/// The routes of the bench: `count` host routes in `sets` attribute sets that alternate.
pub fn routes(count: u32, sets: u32) -> OrdMap<IpNet, Arc<RouteAttributes>> {
    let attributes: Vec<_> = (0..sets).map(attributes).collect();
    let mut routes = OrdMap::new();
    for number in 0..count {
        let set = usize::try_from(number % sets).unwrap_or(0);
        routes.insert(prefix(number), Arc::clone(&attributes[set]));
    }
    routes
}

fn prefix(number: u32) -> IpNet {
    IpNet::from(std::net::IpAddr::V4(Ipv4Addr::from_bits(FIRST_ROUTE.to_bits() + number)))
}

fn attributes(set: u32) -> Arc<RouteAttributes> {
    let communities =
        vec![Community::Standard(SPEAKER_ASN << 16 | 1), Community::Standard(SPEAKER_ASN << 16 | (1000 + set))];
    Arc::new(RouteAttributes { communities, ..RouteAttributes::default() })
}

/// Runs the speaker until it is killed.
pub fn run(count: u32, sets: u32, peers: u8) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(speak(count, sets, peers))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("speak: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn speak(count: u32, sets: u32, peers: u8) -> Result<(), String> {
    let listen = Listen { addresses: vec![SPEAKER.into()], port: 179 };
    let listeners = Listeners::open(&listen).map_err(|error| error.to_string())?;
    let mut slice = BgpSlice { router_id: Some(SPEAKER), complete: true, ..BgpSlice::default() };
    let routes = routes(count, sets);
    for settings in
        config::parse(&[configuration(peers)], &config::NoSecrets).map_err(|error| format!("{error:?}"))?.bgp.peers
    {
        let name = settings.name.clone();
        let PeerAddress::Fixed(address) = settings.address.clone() else {
            return Err(format!("{name} has no address"));
        };
        let address = Ok(address);
        slice.peers.insert(
            name,
            PeerSlice { address, settings: Arc::new(settings), routes: routes.clone(), orders: Default::default() },
        );
    }
    let orders = UdpSocket::bind(SocketAddr::from((SPEAKER, ORDERS))).await.map_err(|error| error.to_string())?;
    let (slices, newest) = watch::channel(slice.clone());
    let (facts, mut told) = mpsc::channel(64);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let (_bfd, paths) = watch::channel(BfdSessions::new());
    tokio::spawn(speaker::run(newest, facts, listeners, paths, speaker::Past::default(), std::future::pending()));
    let mut order = [0; 16];
    let mut next = count;
    loop {
        let (_, from) = orders.recv_from(&mut order).await.map_err(|error| error.to_string())?;
        for (_, peer) in slice.peers.clone() {
            let routes = peer.routes.update(prefix(next), attributes(0));
            slice.peers.insert(peer.settings.name.clone(), PeerSlice { routes, ..peer });
        }
        next += 1;
        let planned = clock();
        slices.send_replace(slice.clone());
        let planned = u64::try_from(planned.as_nanos()).unwrap_or(u64::MAX);
        orders.send_to(&planned.to_be_bytes(), from).await.map_err(|error| error.to_string())?;
    }
}

fn configuration(peers: u8) -> SourceFile {
    let mut text = format!(
        "[manifests]\nfolder = \"/nonexistent\"\n[[pool]]\nname = \"public\"\naddresses = [\"10.64.0.0/16\"]\n\
         [bgp]\nasn = {SPEAKER_ASN}\n[[bgp.advertisement]]\n"
    );
    for number in 1..=peers {
        text += &format!(
            "[[bgp.peer]]\nname = \"peer{number}\"\naddress = \"{}\"\nasn = {PEER_ASN}\npassive = true\n",
            peer_address(number)
        );
    }
    SourceFile { path: "bench.toml".to_owned(), text }
}
