//! Open outbound connections of pods go on when another node becomes the owner of the address that they leave with.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rack::client::Asking;
use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, PORT, Scene, leaks};
use rack::{Need, Pod, Rack, eventually, millis, rest, secs};

/// A pod that reads what a host outside sends, and sends nothing itself. Dropping it ends it.
struct Download {
    read: Arc<AtomicUsize>,
    pod: TcpStream,
    _sends: JoinHandle<()>,
}

impl Download {
    fn start(pod: &Pod, listener: &TcpListener, expected: IpAddr) -> Download {
        let to = listener.local_addr().expect("it listens");
        let mut stream = pod.connect(to, secs(5)).expect("the pod gets out");
        let (mut outside, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), expected, "the source of what {} opens", pod.name());
        let sends = std::thread::spawn(move || {
            while outside.write_all(&[0; 512]).is_ok() {
                rest(millis(5));
            }
        });
        let (read, pod) = (Arc::new(AtomicUsize::new(0)), stream.try_clone().expect("a socket has copies"));
        let count = read.clone();
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(length) = stream.read(&mut some)
                && length > 0
            {
                count.fetch_add(length, Ordering::Relaxed);
            }
        });
        Download { read, pod, _sends: sends }
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // It may have been reset by the other end.
        let _ = self.pod.shutdown(std::net::Shutdown::Both);
    }
}

fn downloads_go_on(what: &str, downloads: &[Download]) {
    let before: Vec<usize> = downloads.iter().map(Download::read).collect();
    eventually(&format!("{what}: every download has 50 kB more"), secs(20), || {
        let more: Vec<usize> = downloads.iter().zip(&before).map(|(it, before)| it.read() - before).collect();
        if more.iter().all(|more| *more > 50_000) { Ok(()) } else { Err(format!("{more:?}")) }
    });
}

/// Input: pods of three nodes that download from outside over IPv4 and IPv6, and send nothing meanwhile. The owner's agent dies while
/// its host lives, the agent returns and takes the address back, and the owner's link is cut.
/// Output: the downloads of the pods whose nodes live go on with the Service's address each time, and none is reset.
#[test]
fn a_pod_that_only_listens_goes_on_through_the_death_of_the_owner() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let scene = Scene::of(&rack, 3);
    let lan = &scene.lan;
    let mut agents = lan.agents();
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let client = &lan.site.client;
    let listeners = [IpAddr::from(client.address), client.address6.into()]
        .map(|address| client.run(|| TcpListener::bind((address, PORT))).expect("the namespace is ours"));
    let sources = ADDRESSES.map(|address| address.parse().expect("an address"));
    let others = [0, 1, 2].into_iter().filter(|node| *node != owner);
    let each = |node: usize| {
        let both = listeners.iter().zip(sources);
        both.map(|(listener, source)| Download::start(&scene.pods[node], listener, source)).collect::<Vec<_>>()
    };
    let downloads: Vec<Download> = others.flat_map(each).collect();
    downloads_go_on("at first", &downloads);

    agents[owner].kill();
    eventually("another node answers", secs(10), || {
        let heir = lan.owner(ADDRESS);
        if heir == owner { Err("still the owner".to_owned()) } else { Ok(()) }
    });
    downloads_go_on("after the death of the agent", &downloads);

    agents[owner] = lan.agent(owner);
    agents[owner].wait_ready(secs(30));
    scene.leave_by(&agents, owner);
    downloads_go_on("after its return", &downloads);

    lan.site.node(owner).port.cut();
    downloads_go_on("after its link was cut", &downloads);
}

/// Three nodes whose pods get out, and the agents of those that run.
struct HandOvers {
    scene: Scene,
    owner: usize,
    agents: Vec<Option<Crier>>,
}

impl HandOvers {
    fn owner_leaves_by_itself(&self) {
        self.scene.leave_by(&self.agents.iter().flatten().collect::<Vec<_>>(), self.owner);
    }

    fn another_owns_it(&self) {
        eventually("another node answers", secs(20), || match self.scene.lan.owner(ADDRESS) {
            heir if heir == self.owner => Err("still the owner".to_owned()),
            _ => Ok(()),
        });
    }

    /// How many connections are lost of those that the pods of the other nodes open meanwhile.
    fn lost(&mut self, what: &str, happens: impl FnOnce(&mut HandOvers)) -> usize {
        let others = (0..self.scene.pods.len()).filter(|node| *node != self.owner);
        let to = self.scene.client(false);
        let open: Vec<Asking> = others.map(|node| self.scene.pods[node].connect_steadily(to, millis(10))).collect();
        open.iter().for_each(|asking| asking.is_served("the pods get out", 40, secs(10)));
        happens(self);
        open.iter().for_each(|asking| asking.is_served_again(&format!("{what}: the pods get out"), secs(20)));
        open.into_iter().map(|asking| asking.stop_after_the_last().lost()).sum()
    }

    /// The agent stops, is back and takes the address again, the node is drained, and takes part again: what is lost each time.
    fn round(&mut self) -> [usize; 4] {
        let order = |it: &HandOvers, words: &str| {
            let said = it.agents[it.owner].as_ref().expect("it runs").verb(words);
            assert!(said.status.success(), "{said:?}");
        };
        [
            self.lost("the agent stops", |it| {
                it.agents[it.owner].take().expect("it runs").stop(secs(20));
                it.another_owns_it();
            }),
            self.lost("it is back", |it| {
                let agent = it.scene.lan.agent(it.owner);
                agent.wait_ready(secs(30));
                it.agents[it.owner] = Some(agent);
                it.owner_leaves_by_itself();
            }),
            self.lost("the node is drained", |it| {
                order(it, "drain --timeout 1s");
                it.another_owns_it();
            }),
            self.lost("and takes part again", |it| {
                order(it, "undrain");
                it.owner_leaves_by_itself();
            }),
        ]
    }
}

/// Input: pods of two nodes open a connection every few milliseconds, while the third node, the best one, owns the address. Its agent
/// stops, is back and takes the address again, and is drained, and takes part again.
/// Output: next to none is lost, each time: the former owner goes on until the next one translates, and answers that come to the wrong one
/// of them are sent on. A machine that stands still for so long that nodes miss each other's pulses spoils a round, but not all of them.
#[test]
fn what_pods_open_while_the_owner_leaves_or_hands_over_comes_about() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let scene = Scene::of(&rack, 3);
    let _outside = scene.lan.site.client.serve("outside", &[PORT]);
    let agents = scene.lan.agents().into_iter().map(Some).collect();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    let mut nodes = HandOvers { scene, owner, agents };
    nodes.owner_leaves_by_itself();
    let mut rounds: Vec<[usize; 4]> = Vec::new();
    let least = |rounds: &[[usize; 4]]| [0, 1, 2, 3].map(|what| rounds.iter().map(|lost| lost[what]).min());
    while rounds.len() < 4 && least(&rounds).iter().any(|lost| lost.is_none_or(|lost| lost > 1)) {
        rounds.push(nodes.round());
    }
    eprintln!("lost: {rounds:?}");
    assert!(least(&rounds).iter().all(|lost| lost.is_some_and(|lost| lost <= 1)), "lost: {rounds:?}");
}

/// Input: pods of two nodes open a connection of each family every five milliseconds; the agent of the third node, which owns
/// the address, is killed, and comes back, and then its cable carries nothing any more.
/// Output: each time the pods get out again within two seconds, on a machine that others load too, as clients of the address get in; what
/// comes about has the Service's address.
#[test]
fn what_pods_open_gets_out_again_in_the_time_in_which_the_address_moves() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let scene = Scene::of(&rack, 3);
    let lan = &scene.lan;
    let client = &lan.site.client;
    let _outside = client.serve("outside", &[PORT]);
    let captures = [(client.port.capture(), client.port.mac())];
    let mut agents = lan.agents();
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let others: Vec<&Pod> = (0..3).filter(|node| *node != owner).map(|node| &scene.pods[node]).collect();
    let without_gap = |what: &str, happens: &mut dyn FnMut()| {
        let each =
            others.iter().flat_map(|pod| [false, true].map(|v6| pod.connect_steadily(scene.client(v6), millis(5))));
        let open: Vec<Asking> = each.collect();
        open.iter().for_each(|asking| asking.is_served("the pods get out", 40, secs(20)));
        happens();
        open.iter().for_each(|asking| asking.is_served_again(&format!("{what}: the pods get out"), secs(20)));
        for asking in open {
            let outcomes = asking.stop_after_the_last();
            assert!(outcomes.longest_gap() < secs(2), "{what}: {outcomes}");
        }
    };
    let moves = || {
        eventually("another node answers", secs(20), || match lan.owner(ADDRESS) {
            heir if heir == owner => Err("still the owner".to_owned()),
            _ => Ok(()),
        });
    };
    without_gap("the agent of the owner is killed", &mut || {
        agents[owner].kill();
        moves();
    });
    agents[owner] = lan.agent(owner);
    agents[owner].wait_ready(secs(30));
    scene.leave_by(&agents, owner);
    without_gap("the link of the owner is cut", &mut || {
        lan.site.node(owner).port.cut();
        moves();
    });
    assert_eq!(leaks(&captures), BTreeSet::new());
}
