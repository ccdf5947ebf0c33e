//! Backends: tiny HTTP servers in child processes, so that one can be killed or frozen like any pod.
//!
//! Each answers every path with its name and the client's address as it saw it, in JSON, on any number of ports of both
//! families. The process is the `crier-rack` binary itself (`crier-rack serve NAME PORT…`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::secs;

impl Namespace {
    /// Starts a server of that name in here, on all addresses, and waits until it listens on all `ports`.
    #[track_caller]
    pub fn serve(&self, name: &str, ports: &[u16]) -> Process {
        let mut command = Command::new(binary());
        command.arg("serve").arg(name).args(ports.iter().map(u16::to_string));
        let process = self.start(name, command);
        process.wait_for_log(LISTENS, secs(10));
        process
    }
}

/// Logged once all ports are open.
const LISTENS: &str = "listens on";

/// What `crier-rack serve` does: serves until it is killed.
///
/// # Errors
/// When a port cannot be opened.
pub fn serve(name: &str, ports: &[u16]) -> io::Result<()> {
    let listeners = ports.iter().map(|port| listen(*port)).collect::<io::Result<Vec<_>>>()?;
    println!("{name} {LISTENS} {ports:?}");
    std::thread::scope(|scope| {
        for listener in listeners {
            scope.spawn(move || {
                for stream in listener.incoming().flatten() {
                    let name = name.to_owned();
                    // Clients come and go as they like; what goes wrong on one connection is its client's to notice.
                    std::thread::spawn(move || drop(answer(stream, &name)));
                }
            });
        }
    });
    Ok(())
}

fn listen(port: u16) -> io::Result<TcpListener> {
    // The unspecified IPv6 address takes IPv4 too; a machine without IPv6 has only the other.
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
    let mut request: Vec<u8> = Vec::new();
    let mut buffer = [0; 2048];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => request.extend(&buffer[..length]),
        }
    }
    let body = serde_json::json!({
        "name": name,
        "client": client.ip().to_canonical(),
        "client_port": client.port(),
        "forwarded_for": header(&request, "x-forwarded-for"),
        "server": SocketAddr::new(server.ip().to_canonical(), server.port()),
    });
    let body = format!("{body}\n");
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The value of the first header of this name, written small.
fn header(request: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(request);
    let mut headers = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// The `crier-rack` binary: this very program if it is that, else `CRIER_RACK_BIN`, else the one that Cargo put beside
/// the folder of the test programs.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CRIER_RACK_BIN") {
        return path.into();
    }
    let program = std::env::current_exe().expect("this program has a path");
    if program.file_name().is_some_and(|name| name == "crier-rack") {
        return program;
    }
    let beside = program.parent().and_then(|folder| folder.parent()).map(|folder| folder.join("crier-rack"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| panic!("no crier-rack binary: set CRIER_RACK_BIN to its path"))
}
