//! The speakers of the dump bench, each with a table of host routes that alternate between attribute sets, all waiting to be dialled.

use std::fmt::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::unistd::Pid;
use rack::{Process, millis, rest, secs};

use super::{FIRST_ROUTE, Lab, PATIENCE, PEER_ASN, SPEAKER, SPEAKER_ASN, Table, peer_address, sink};

/// Names of files in the rack's folder.
pub const BIRD_SOCKET: &str = "bird.sock";
pub const ADDED_TO_BIRD: &str = "bird.added";
const OPEN_BGPD_SOCKET: &str = "openbgpd.sock";

/// Receivers for one session each: as many as all dumps of a table take, and some that may fail.
pub const FRESH_RECEIVERS: Range<u8> = 20..80;

/// The AS and the address of the one that feeds those whose own tools cannot load the table.
const FEEDER_ASN: u16 = 64514;
const FEEDER: u8 = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Crier,
    Bird,
    Frr,
    OpenBgpd,
    GoBgp,
}

/// A running speaker.
pub struct Speaker {
    pub kind: Kind,
    process: Process,
    /// Of OpenBGPD.
    control: PathBuf,
    /// Of [`FRESH_RECEIVERS`].
    used: AtomicU8,
    /// Where the speaker learns its table from a peer: what that peer says.
    pub feeder: Option<TcpStream>,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Crier, Kind::Bird, Kind::Frr, Kind::OpenBgpd, Kind::GoBgp];

    /// Whether it is named, as in its rows of the table but in small letters; no names are all.
    pub fn is_among(self, names: &[&str]) -> bool {
        let own = format!("{self:?}").to_lowercase();
        names.is_empty() || names.contains(&own.as_str())
    }

    /// Whether this machine has it; a line on standard error tells what it lacks.
    pub fn look(self) -> bool {
        let path = match self {
            Kind::Crier => return true,
            Kind::Bird => "/usr/sbin/bird",
            Kind::Frr => "/usr/lib/frr/bgpd",
            Kind::OpenBgpd => "/usr/sbin/bgpd",
            Kind::GoBgp => "/usr/bin/gobgpd",
        };
        let found = Path::new(path).exists();
        if !found {
            eprintln!("{self:?} is left out: there is no {path}");
        }
        found
    }

    /// Of a million, GoBGP takes half a minute and 1.6 GiB for each dump, and OpenBGPD with many sets as long.
    pub fn can(self, table: Table) -> bool {
        match self {
            Kind::Crier | Kind::Bird | Kind::Frr => true,
            Kind::OpenBgpd => table.routes < 1_000_000 || table.sets == 1,
            Kind::GoBgp => table.routes < 1_000_000,
        }
    }

    /// Starts it with its table, for so many peers. It may still be loading when this returns.
    pub fn start(self, lab: &Lab, table: Table, peers: u8) -> Speaker {
        let Table { routes, sets } = table;
        let peers = 1..=peers;
        let mut feeder = None;
        let process = match self {
            Kind::Crier => {
                let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
                let words = [routes.to_string(), sets.to_string(), peers.end().to_string()];
                command.arg("speak").args(words);
                lab.node.start("crier", command)
            }
            Kind::Bird => {
                lab.write(ADDED_TO_BIRD, "");
                let mut text = format!("router id {SPEAKER};\nprotocol device {{}}\n");
                for set in 0..sets {
                    let communities =
                        communities(set).map(|(high, low)| format!("bgp_community.add(({high},{low}));")).concat();
                    // Attributes that each route brings itself would cost BIRD a kibioctet a route.
                    let _ = writeln!(text, "protocol static {{ ipv4 {{ import filter {{ {communities} accept; }}; }};");
                    if set == 0 {
                        let _ = writeln!(text, "include \"{ADDED_TO_BIRD}\";");
                    }
                    table.numbers(set).for_each(|number| text += &bird_route(number));
                    text += "}\n";
                }
                for peer in peers {
                    let _ = writeln!(
                        text,
                        "protocol bgp peer{peer} {{ local {SPEAKER} as {SPEAKER_ASN}; neighbor {} as {PEER_ASN}; passive on; \
                         error wait time 1, 1; error forget time 1; ipv4 {{ import none; export where source = RTS_STATIC; }}; }}",
                        peer_address(peer)
                    );
                }
                let mut command = Command::new("/usr/sbin/bird");
                command.arg("-f").arg("-c").arg(lab.write("bird.conf", &text));
                command
                    .arg("-s")
                    .arg(lab.rack.folder().join(BIRD_SOCKET))
                    .arg("-P")
                    .arg(lab.rack.folder().join("bird.pid"));
                lab.node.start("bird", command)
            }
            Kind::Frr => {
                let mut text = format!("router bgp {SPEAKER_ASN}\n bgp router-id {SPEAKER}\n{}", rack::frr::PLAIN);
                // Its default holds every dump back for a second.
                text += " coalesce-time 0\n";
                for peer in peers.clone() {
                    let address = peer_address(peer);
                    let _ = writeln!(text, " neighbor {address} remote-as {PEER_ASN}\n neighbor {address} passive");
                }
                text += " address-family ipv4 unicast\n";
                for peer in peers {
                    let _ = writeln!(text, "  neighbor {} activate", peer_address(peer));
                }
                for number in 0..routes {
                    let _ = writeln!(text, "  network {}/32 route-map SET{}", route(number), number % sets);
                }
                text += " exit-address-family\n";
                for set in 0..sets {
                    let [(a, b), (c, d)] = communities(set);
                    let _ = writeln!(text, "route-map SET{set} permit 10\n set community {a}:{b} {c}:{d}");
                }
                let mut command = Command::new("/usr/lib/frr/bgpd");
                command.arg("-f").arg(lab.write("frr.conf", &text)).args(["-Z", "-S", "-u", "root", "-g", "root"]);
                command.arg("-i").arg(lab.rack.folder().join("frr.pid")).arg("--vty_socket").arg(lab.rack.folder());
                command.args(["-P", "0", "--log", "stdout", "--log-level", "warnings"]);
                lab.node.start("frr", command)
            }
            Kind::OpenBgpd => {
                let process = open_bgpd(lab, table, peers.map(peer_address));
                if sets > 1 {
                    // Its own tool gives no attributes to what it adds.
                    feeder = Some(feed(lab, table));
                }
                process
            }
            Kind::GoBgp => {
                let mut text = format!("[global.config]\nas = {SPEAKER_ASN}\nrouter-id = \"{SPEAKER}\"\n");
                let neighbor = (peer_address(FEEDER), u32::from(FEEDER_ASN));
                for (address, asn) in FRESH_RECEIVERS.map(|peer| (peer_address(peer), PEER_ASN)).chain([neighbor]) {
                    let _ = writeln!(
                        text,
                        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
                         [neighbors.transport.config]\npassive-mode = true\n\
                         [neighbors.timers.config]\nidle-hold-time-after-reset = 1\nhold-time = 3600"
                    );
                }
                let mut command = Command::new("/usr/bin/gobgpd");
                command.arg("-f").arg(lab.write("gobgp.toml", &text)).args([
                    "-t",
                    "toml",
                    "-l",
                    "warn",
                    "--api-hosts",
                    "127.0.0.1:50051",
                ]);
                let process = lab.node.start("gobgp", command);
                feeder = Some(feed(lab, table));
                process
            }
        };
        Speaker {
            kind: self,
            process,
            control: lab.rack.folder().join(OPEN_BGPD_SOCKET),
            used: AtomicU8::new(0),
            feeder,
        }
    }
}

fn open_bgpd(lab: &Lab, table: Table, peers: impl Iterator<Item = Ipv4Addr>) -> Process {
    let Table { routes, sets } = table;
    let socket = lab.rack.folder().join(OPEN_BGPD_SOCKET);
    let shown = socket.display();
    let mut text = format!("AS {SPEAKER_ASN}\nrouter-id {SPEAKER}\nfib-update no\nsocket \"{shown}\"\n");
    for address in peers {
        let _ = writeln!(text, "neighbor {address} {{\n remote-as {PEER_ASN}\n passive\n}}");
    }
    if sets > 1 {
        let feeder = peer_address(FEEDER);
        let _ =
            writeln!(text, "neighbor {feeder} {{\n remote-as {FEEDER_ASN}\n passive\n}}\nallow from any\nallow to any");
    } else {
        let [(a, b), (c, d)] = communities(0);
        let _ = writeln!(text, "allow to any\nmatch to any set {{ community {a}:{b} community {c}:{d} }}");
    }
    let file = lab.write("openbgpd.conf", &text);
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).expect("our own file can be made private");
    let mut command = Command::new("/usr/sbin/bgpd");
    command.arg("-d").arg("-f").arg(file);
    // The one before, if any, has left its own there.
    let _ = std::fs::remove_file(&socket);
    let process = lab.node.start("openbgpd", command);
    rack::eventually("OpenBGPD answers on its socket", secs(10), || {
        process.expect_running();
        UnixStream::connect(&socket)
    });
    if sets > 1 {
        return process;
    }
    let list = (0..routes).map(|number| format!("{}/32\n", route(number))).collect::<String>();
    let list = lab.write("bulk", &list);
    let line = format!("bgpctl -s {shown} network bulk add < {}", list.display());
    let output = lab.node.output(Command::new("sh").arg("-c").arg(&line));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    process
}

/// The speaker learns the table from a peer. Its dump is the same then, with one AS number more in the path.
fn feed(lab: &Lab, table: Table) -> TcpStream {
    let of_set = |set| updates(set, &table.numbers(set).collect::<Vec<u32>>());
    let updates: Vec<Vec<u8>> = (0..table.sets).flat_map(of_set).collect();
    let feeder = lab.router.run(|| {
        rack::eventually("the speaker takes the feeder's session", PATIENCE, || {
            sink::feed(peer_address(FEEDER), FEEDER_ASN, &updates)
        })
    });
    // It does not tell when it has taken all in; the dump that is not counted waits for the rest.
    rest(millis(500));
    feeder
}

/// The feeder's messages that announce these routes.
pub fn updates(set: u32, numbers: &[u32]) -> Vec<Vec<u8>> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0];
    attributes.extend(FEEDER_ASN.to_be_bytes());
    attributes.extend([0x40, 3, 4]);
    attributes.extend(peer_address(FEEDER).octets());
    attributes.extend([0xc0, 8, 8]);
    for (high, low) in communities(set) {
        attributes.extend((high << 16 | low).to_be_bytes());
    }
    let update = |some: &[u32]| {
        let mut body = vec![0, 0];
        body.extend(u16::try_from(attributes.len()).expect("few attributes").to_be_bytes());
        body.extend(&attributes);
        some.iter().for_each(|number| {
            body.push(32);
            body.extend(route(*number).octets());
        });
        let mut message = vec![0xff; 16];
        message.extend(u16::try_from(19 + body.len()).expect("a short list").to_be_bytes());
        message.push(2);
        message.extend(body);
        message
    };
    numbers.chunks(800).map(update).collect()
}

/// One route in BIRD's words.
pub fn bird_route(number: u32) -> String {
    format!("route {}/32 blackhole;\n", route(number))
}

pub fn route(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_ROUTE.to_bits() + number)
}

/// The two communities of a set.
fn communities(set: u32) -> [(u32, u32); 2] {
    [(SPEAKER_ASN, 1), (SPEAKER_ASN, 1000 + set)]
}

impl Speaker {
    /// Before a session is tried: OpenBGPD would take none for half a minute after the last.
    pub fn encourage(&self, peer: Ipv4Addr) {
        if self.kind == Kind::OpenBgpd {
            self.tell(Command::new("bgpctl").arg("-s").arg(&self.control).args(["neighbor", &peer.to_string(), "up"]));
        }
    }

    /// Where the next session with that receiver is dialled from: for GoBGP from where none was before, because it takes none for
    /// five seconds after the last.
    pub fn receiver(&self, number: u8) -> Ipv4Addr {
        match self.kind {
            Kind::GoBgp => peer_address(FRESH_RECEIVERS.start + self.used.fetch_add(1, Ordering::Relaxed)),
            Kind::Crier | Kind::Bird | Kind::Frr | Kind::OpenBgpd => peer_address(number),
        }
    }

    /// The answer is not needed: what did not help shows in the next dial.
    fn tell(&self, command: &mut Command) {
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    pub fn log_tail(&self) -> String {
        self.process.log_tail(10)
    }

    /// User and system, to the nanosecond, of the process and all it has started.
    pub fn processor_time(&self) -> Duration {
        self.members()
            .into_iter()
            .filter_map(|pid| {
                let clock = nix::time::clock_getcpuclockid(pid).ok()?;
                Some(Duration::from(nix::time::clock_gettime(clock).ok()?))
            })
            .sum()
    }

    /// The peaks of all its processes together, in octets.
    pub fn peak_memory(&self) -> u64 {
        let peak = |pid: Pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        self.members().into_iter().filter_map(peak).sum()
    }

    /// The processes of its group, of which it is the first.
    fn members(&self) -> Vec<Pid> {
        let group = self.process.pid().to_string();
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let in_group = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name in brackets: state, parent, group.
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after_name.split_whitespace().nth(2) == Some(&group)
        };
        pids.filter(in_group).map(Pid::from_raw).collect()
    }
}
