//! `crier-rack announce`: crier's own speaker, as `crier run` has it, with made-up routes in the place of a plan. For what
//! needs more routes than manifests can say in reasonable time.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crier::bgp::socket::listeners::{Listen, Listeners};
use crier::bgp::task as speaker;
use crier::config::{PeerAddress, load};
use crier::plan::slice::{BgpSlice, PeerSlice};
use crier::route::RouteAttributes;
use crier::world::BfdSessions;
use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::{mpsc, watch};

/// Announces `count` host routes from `first` on to every peer of that configuration, until it is killed.
pub fn run(file: &str, first: Ipv4Addr, count: u32) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let announced = runtime.map_err(|error| error.to_string());
    match announced.and_then(|runtime| runtime.block_on(announce(Path::new(file), first, count))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("announce: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn announce(file: &Path, first: Ipv4Addr, count: u32) -> Result<(), String> {
    let bgp = load::load(file).map_err(|error| error.to_string())?.bgp;
    let listen = Listen { addresses: bgp.listen, port: bgp.port };
    let listeners = Listeners::open(&listen).map_err(|error| error.to_string())?;
    let attributes = Arc::new(RouteAttributes::default());
    let routes: OrdMap<IpNet, Arc<RouteAttributes>> = (0..count)
        .map(|number| {
            (IpNet::V4(Ipv4Net::from(Ipv4Addr::from_bits(first.to_bits() + number))), Arc::clone(&attributes))
        })
        .collect();
    let peers = bgp.peers.into_iter().map(|settings| {
        let name = settings.name.clone();
        let PeerAddress::Fixed(address) = settings.address.clone() else {
            return Err(format!("{name}: a peer that has to be found has no address here"));
        };
        Ok((
            name,
            PeerSlice {
                settings: Arc::new(settings),
                address: Ok(address),
                routes: routes.clone(),
                orders: Default::default(),
            },
        ))
    });
    let peers = peers.collect::<Result<_, _>>()?;
    let router_id = Some(Ipv4Addr::new(192, 0, 2, 11));
    let slice = BgpSlice { router_id, complete: true, peers, ..BgpSlice::default() };
    let (_slices, newest) = watch::channel(slice);
    let (facts, mut told) = mpsc::channel(64);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let (_bfd, paths) = watch::channel(BfdSessions::new());
    speaker::run(newest, facts, listeners, paths, speaker::Past::default(), std::future::pending()).await;
    Ok(())
}
