//! Holds the floors of DESIGN: who may import whom, and what the lower floors never touch.
//! Reads `src/` as text; a file that no row names fails, so that a new one must choose its floor.

use std::fs;
use std::path::{Path, PathBuf};

/// The floor of a file, by the longest beginning of its path below `src/` that matches.
const FLOORS: &[(&str, u8)] = &[
    ("address.rs", 0),
    ("by_link.rs", 0),
    ("claim.rs", 0),
    ("community.rs", 0),
    ("names.rs", 0),
    ("reason.rs", 0),
    ("roster.rs", 0),
    ("route.rs", 0),
    ("secret.rs", 0),
    ("selector.rs", 0),
    ("clock.rs", 2),
    ("config/", 1),
    ("config/load.rs", 2),
    ("world/", 1),
    ("plan/", 1),
    ("arp/", 1),
    ("arp/socket", 2),
    ("arp/offload.rs", 2),
    ("arp/offload/bpf.rs", 2),
    ("arp/state.rs", 2),
    ("arp/task", 2),
    ("bgp/", 1),
    ("bgp/socket_options.rs", 2),
    ("bgp/transport.rs", 2),
    ("bgp/listeners.rs", 2),
    ("bgp/peer.rs", 2),
    ("bgp/peer/report.rs", 2),
    ("bgp/settings.rs", 2),
    ("bgp/speaker.rs", 2),
    ("discovery/", 1),
    ("discovery/socket.rs", 2),
    ("discovery/task.rs", 2),
    ("k8s/", 1),
    ("k8s/client.rs", 2),
    ("k8s/watch.rs", 2),
    ("k8s/lease.rs", 2),
    ("k8s/status.rs", 2),
    ("k8s/event.rs", 2),
    ("kernel/", 2),
    ("kernel/host.rs", 1),
    ("manifests/", 1),
    ("manifests/folder.rs", 2),
    ("pulse/", 1),
    ("pulse/socket.rs", 2),
    ("pulse/task.rs", 2),
    ("agent/", 3),
    ("api/", 4),
    ("commands/", 4),
    ("main.rs", 4),
];

/// Which folders and files of floor 1 are decisions; the others of floor 1 are protocols and translators.
const DECISIONS: &[&str] = &["config", "world", "plan"];

/// Files that are modules of tests only.
const TESTS: &[&str] = &["bgp/collision/simulation.rs", "bgp/wire/round_trip.rs", "k8s/fake.rs"];

/// What files of floors 0 and 1 never name.
const NEVER_BELOW: &[&str] =
    &["tokio", "std::net::Tcp", "std::net::Udp", "socket2", "Instant::now", "SystemTime::now", "tracing::", "std::fs"];

/// Above this a file is more than one can keep in mind.
const LONGEST: usize = 900;

#[test]
fn every_import_goes_down() {
    let mut wrong = Vec::new();
    for file in files() {
        let floor = floor_of(&file.path);
        for target in crate_paths(without_tests(&file.text)) {
            let Some(target_floor) = target_floor(&target) else { continue };
            if target_floor > floor {
                wrong.push(format!("{} (floor {floor}) imports {target} (floor {target_floor})", file.path));
            }
            let (own, other) = (top(&file.path), top(&target));
            if floor == 1 && DECISIONS.contains(&own.as_str()) && is_protocol(&other) {
                wrong.push(format!("{} is a decision and imports the protocol {target}", file.path));
            }
            if floor == 2 && target_floor == 2 && own != other && other != "clock" && target != "config::load" {
                wrong.push(format!("{} is an edge and imports another edge, {target}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up or across:\n{}", wrong.join("\n"));
}

#[test]
fn the_lower_floors_touch_no_socket_clock_file_or_log() {
    let mut wrong = Vec::new();
    for file in files().into_iter().filter(|file| floor_of(&file.path) <= 1) {
        for (number, line) in without_tests(&file.text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for word in NEVER_BELOW.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{}:{} names {word}", file.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "floors 0 and 1 are pure:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_can_be_kept_in_mind() {
    let mut wrong = Vec::new();
    for file in files() {
        if !file.text.starts_with("//!") {
            wrong.push(format!("{} does not open with what it is for", file.path));
        }
        if without_tests(&file.text).lines().count() > LONGEST {
            wrong.push(format!("{} is longer than {LONGEST} lines", file.path));
        }
        let stem = Path::new(&file.path).file_stem().and_then(|it| it.to_str()).unwrap_or_default().to_owned();
        if ["util", "utils", "common", "helpers", "misc"].contains(&stem.as_str()) {
            wrong.push(format!("{} is a drawer; what has no name has no place yet", file.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct File {
    /// Below `src/`.
    path: String,
    text: String,
}

fn files() -> Vec<File> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path: PathBuf = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let name = path.strip_prefix(&source).expect("it is below src").display().to_string();
                if name != "lib.rs"
                    && !name.ends_with("tests.rs")
                    && !name.contains("/tests/")
                    && !TESTS.contains(&&*name)
                {
                    found.push(File { path: name, text: fs::read_to_string(&path).expect("it can be read") });
                }
            }
        }
    }
    assert!(found.len() > 20, "the walk through src found only {} files", found.len());
    found
}

fn floor_of(path: &str) -> u8 {
    let row = FLOORS.iter().filter(|(start, _)| path.starts_with(start)).max_by_key(|(start, _)| start.len());
    row.unwrap_or_else(|| panic!("src/{path} has no floor: add it to the table in tests/floors.rs")).1
}

/// The floor of what `crate::a::b` names: of the file a/b.rs if there is one, else of a.
fn target_floor(target: &str) -> Option<u8> {
    let mut parts = target.split("::");
    let first = parts.next()?;
    let second = parts.next().unwrap_or("");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let candidates = [format!("{first}/{second}.rs"), format!("{first}.rs"), format!("{first}/mod.rs")];
    candidates.iter().find(|path| source.join(path).is_file()).map(|path| floor_of(path))
}

/// Everything behind `crate::`, groups opened one level deep.
fn crate_paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
        let path = path.trim_end_matches(':').to_owned();
        match rest[path.len()..].strip_prefix("::{") {
            Some(group) => {
                let group = group.split('}').next().unwrap_or("");
                let members = group.split(',').map(str::trim).filter(|member| !member.is_empty());
                paths.extend(members.map(|member| format!("{path}::{member}")));
            }
            None => paths.push(path),
        }
    }
    paths
}

fn top(path: &str) -> String {
    path.split(['/', ':', '.']).next().unwrap_or("").to_owned()
}

fn is_protocol(name: &str) -> bool {
    ["arp", "bgp", "bfd", "discovery", "pulse"].contains(&name)
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}
