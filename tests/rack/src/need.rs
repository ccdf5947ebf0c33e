//! What a test needs of the machine, and saying so when it is missing.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Something that a machine may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The right to make network namespaces, and iproute2.
    Namespaces,
    /// BIRD 2.
    Bird,
    /// FRR's zebra and bgpd.
    Frr,
    /// GoBGP's daemon and its command.
    Gobgp,
    /// The portable OpenBGPD.
    Openbgpd,
    /// ExaBGP 4.
    Exabgp,
    /// keepalived, to compare with.
    Keepalived,
    /// The arping of iputils.
    Arping,
    Ndisc6,
    Nft,
    /// For kube-proxy in iptables mode.
    Iptables,
    /// Links of this type, as `ip link add type` names it: no program, and so not in [`ALL`](Self::ALL).
    LinkType(&'static str),
    /// TCP-AO in the kernel (Linux 6.7, if it was built with it): no program either.
    TcpAo,
    /// The binaries of the Kubernetes control plane, and nft for kube-proxy.
    Kubernetes,
    /// The controller and speaker of MetalLB, and its CRDs.
    Metallb,
    /// Traefik, and the CRDs of the Gateway API.
    Traefik,
    /// A root with systemd, made by `make test-systemd`, and systemd-nspawn: none of [`ALL`](Self::ALL), for the same reason.
    Systemd,
    /// The `crier` binary itself.
    Crier,
}

impl Need {
    pub const ALL: [Need; 15] = [
        Need::Namespaces,
        Need::Bird,
        Need::Frr,
        Need::Gobgp,
        Need::Openbgpd,
        Need::Exabgp,
        Need::Keepalived,
        Need::Arping,
        Need::Ndisc6,
        Need::Nft,
        Need::Iptables,
        Need::Kubernetes,
        Need::Metallb,
        Need::Traefik,
        Need::Crier,
    ];

    /// `Ok` with where it was found, or `Err` with what is missing and how to get it, in one line.
    pub fn look(self) -> Result<String, String> {
        match self {
            Need::Namespaces => namespaces(),
            Need::Bird => program("bird").ok_or_else(|| "no BIRD: apt-get install bird2".into()),
            Need::Frr => crate::frr::look(),
            Need::Gobgp => crate::gobgp::look(),
            Need::Openbgpd => crate::openbgpd::look(),
            Need::Exabgp => crate::exabgp::look(),
            Need::Keepalived => program("keepalived").ok_or_else(|| "no keepalived: apt-get install keepalived".into()),
            Need::Arping => program("arping").ok_or_else(|| "no arping: apt-get install iputils-arping".into()),
            Need::Ndisc6 => program("ndisc6").ok_or_else(|| "no ndisc6: apt-get install ndisc6".into()),
            Need::Nft => program("nft").ok_or_else(|| "no nft: apt-get install nftables".into()),
            Need::Iptables => program("iptables").ok_or_else(|| "no iptables: apt-get install iptables".into()),
            Need::LinkType(kind) => link_type(kind),
            Need::TcpAo => tcp_ao(),
            Need::Kubernetes => {
                program("nft").ok_or("no nft for kube-proxy: apt-get install nftables")?;
                crate::kubernetes::binaries().map(|folder| folder.display().to_string())
            }
            Need::Metallb => crate::metallb::binaries().map(|folder| folder.display().to_string()),
            Need::Traefik => crate::traefik::binaries().map(|folder| folder.display().to_string()),
            Need::Systemd => crate::booted::look(),
            Need::Crier => {
                let path = crate::crier::binary();
                let found = path.exists();
                let shown = path.display();
                if found { Ok(shown.to_string()) } else { Err(format!("no {shown}: make build, or set CRIER_BIN")) }
            }
        }
    }

    pub(crate) fn missing(self) -> Result<(), String> {
        self.look().map(drop)
    }
}

/// Says that `test` was skipped and why: on standard error, past the test runner's capture, and as a line of the file
/// that `CRIER_RACK_SKIPS` names, from which `make test` repeats it at its end.
///
/// # Panics
/// When `CRIER_RACK_STRICT` is set: there nothing may be missing.
#[track_caller]
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("CRIER_RACK_STRICT").is_none(), "{test} cannot run and CRIER_RACK_STRICT is set: {why}");
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("CRIER_RACK_SKIPS") {
        let appended =
            File::options().create(true).append(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
        appended.unwrap_or_else(|error| panic!("could not write to {}: {error}", Path::new(&path).display()));
    }
}

/// Makes this process root in a user namespace of its own if it may not make network namespaces as it is. Returns
/// whether it did. Call it first in `main`: the kernel allows it only to a process with one thread.
///
/// # Errors
/// When the kernel allows neither; the text says so.
pub fn enter_user_namespace_if_needed() -> Result<bool, String> {
    if may_make_namespaces().is_ok() {
        return Ok(false);
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|error| format!("not root, and the kernel gives no user namespace: {error}"))?;
    let map = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("could not write {file}: {error}"))
    };
    map("setgroups", "deny".into())?;
    map("uid_map", format!("0 {user} 1"))?;
    map("gid_map", format!("0 {group} 1"))?;
    may_make_namespaces().map_err(|error| format!("no network namespaces, not even in a user namespace: {error}"))?;
    Ok(true)
}

/// Prepares this process for a bench that needs these: see [`enter_user_namespace_if_needed`]. What is missing is printed.
pub fn bench_can_run(needs: &[Need]) -> bool {
    if let Err(why) = enter_user_namespace_if_needed() {
        eprintln!("the bench cannot run here: {why}");
        return false;
    }
    crate::clean_up_on_interrupt();
    let missing: Vec<_> = needs.iter().filter_map(|need| need.look().err()).collect();
    if !missing.is_empty() {
        eprintln!("the bench cannot run here: {}", missing.join("; "));
    }
    missing.is_empty()
}

/// The path of a program by name, also in the folders of system programs that a user's PATH may not hold.
pub(crate) fn program(name: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]).map(PathBuf::from);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.map(|path| path.display().to_string())
}

/// Whether a process here may set its groups, which a user namespace that was made without privilege forbids.
pub(crate) fn may_set_groups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |setgroups| setgroups.trim() != "deny")
}

fn namespaces() -> Result<String, String> {
    may_make_namespaces().map_err(|error| {
        format!("no right to make network namespaces ({error}): run as root, or under `unshare --user --map-root-user --net --mount`")
    })?;
    for tool in ["ip", "bridge"] {
        program(tool).ok_or_else(|| format!("no `{tool}`: apt-get install iproute2"))?;
    }
    Ok(if geteuid().is_root() { "as root".into() } else { "as a user".into() })
}

/// Whether the kernel knows a type of link. Asked in a namespace of its own, where a type that wants more arguments is
/// refused for want of them, and one that is not known for that.
fn link_type(kind: &str) -> Result<String, String> {
    let mut command = std::process::Command::new("ip");
    command.args(["link", "add", "name", "asked", "type", kind]);
    // SAFETY: between fork and exec only unshare is called, a bare system call.
    unsafe { command.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWNET)?)) };
    let output = command.output().map_err(|error| format!("could not start ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Unknown device type") {
        Err(format!("this kernel has no links of type {kind}"))
    } else {
        Ok(format!("links of type {kind}"))
    }
}

/// Whether the kernel has TCP-AO. A socket that has no key is told so by one that has, and that there is no such option by
/// one that has not.
fn tcp_ao() -> Result<String, String> {
    /// `TCP_AO_INFO` of linux/tcp.h, and the size of its `struct tcp_ao_info_opt`.
    const INFO: (libc::c_int, usize) = (40, 64);
    let socket = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    let mut told = [0_u8; INFO.1];
    let mut length = INFO.1 as libc::socklen_t;
    // SAFETY: `told` has `length` octets, which is as far as the kernel writes, and the descriptor is of an open socket.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, INFO.0, told.as_mut_ptr().cast(), &raw mut length)
    };
    let error = nix::errno::Errno::last();
    if got != 0 && error == nix::errno::Errno::ENOPROTOOPT {
        Err("this kernel has no TCP-AO".to_owned())
    } else {
        Ok("TCP-AO".to_owned())
    }
}

fn may_make_namespaces() -> nix::Result<()> {
    // In a child process and not in a thread: the caller may want to enter a user namespace next, and must be alone then.
    // SAFETY: the child only calls unshare and _exit.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let code = unshare(CloneFlags::CLONE_NEWNET).map_or_else(|error| error as i32, |()| 0);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => match nix::sys::wait::waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            nix::sys::wait::WaitStatus::Exited(_, code) => Err(nix::errno::Errno::from_raw(code)),
            _ => Err(nix::errno::Errno::ECHILD),
        },
    }
}
