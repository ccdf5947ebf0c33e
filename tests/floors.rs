//! Holds the table of floors in ARCHITECTURE.md: who may import whom, and what the lower floors never touch.
//! Reads `src/` as text. A file says its own floor in its `//!` header (`Floor 1.`); a file that does not, fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which folders of floor 1 are decisions; the others of floor 1 are protocols and translators.
const DECISIONS: &[&str] = &["config", "world", "plan"];

const PROTOCOLS: &[&str] = &["arp", "bgp", "bfd", "data_path", "discovery", "egress", "pulse"];

/// Edges that every edge may import.
const SHARED_EDGES: &[&str] = &["clock.rs", "config/load.rs", "datagram.rs", "state_file.rs"];

/// What files of floors 0 and 1 never name.
const NEVER_BELOW: &[&str] = &[
    "tokio",
    "std::net::Tcp",
    "std::net::Udp",
    "socket2",
    "Instant::now",
    "SystemTime::now",
    ".elapsed()",
    "tracing::",
    "std::fs",
];

/// Above this a file is more than one can keep in mind.
const LONGEST: usize = 900;

#[test]
fn every_file_says_its_floor() {
    let tree = Tree::read();
    let silent: Vec<&str> = tree.files.values().filter(|file| file.floor.is_none()).map(|file| &*file.path).collect();
    assert!(silent.is_empty(), "no `Floor 0.` to `Floor 4.` in the //! header of:\n{}", silent.join("\n"));
}

#[test]
fn every_import_goes_down() {
    let tree = Tree::read();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in tree.files.values() {
        for target in tree.imports(file) {
            seen += 1;
            wrong.extend(complaint(file, target));
        }
    }
    assert!(seen > 500, "the walk through src found only {seen} imports");
    assert!(wrong.is_empty(), "imports that go up or across:\n{}", wrong.join("\n"));
}

fn complaint(file: &File, target: &File) -> Option<String> {
    let (floor, target_floor) = (file.floor?, target.floor?);
    let (path, target_path) = (&file.path, &target.path);
    let (own, other) = (file.top(), target.top());
    if target_floor > floor {
        return Some(format!("{path} (floor {floor}) imports {target_path} (floor {target_floor})"));
    }
    if floor == 1 && DECISIONS.contains(&own) && PROTOCOLS.contains(&other) {
        return Some(format!("{path} is a decision and imports the protocol {target_path}"));
    }
    let across = floor == 2 && target_floor == 2 && own != other && !SHARED_EDGES.contains(&&**target_path);
    across.then(|| format!("{path} is an edge and imports another edge, {target_path}"))
}

#[test]
fn the_lower_floors_touch_no_socket_clock_file_or_log() {
    let mut wrong = Vec::new();
    for file in Tree::read().files.values().filter(|file| file.floor.is_some_and(|floor| floor <= 1)) {
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
    for file in Tree::read().files.values() {
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

/// The table of floors in ARCHITECTURE.md names, for each floor, the folders and files at the top of `src/` that have a file there.
#[test]
fn the_table_of_floors_names_every_folder_on_its_floors() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).expect("it can be read");
    let tree = Tree::read();
    for floor in 0..=4 {
        let start = format!("| {floor} ");
        let row = page.lines().find(|line| line.starts_with(&start)).expect("the table has a row for each floor");
        let what = row.split('|').nth(2).expect("the row has a second column");
        let named: BTreeSet<&str> = what.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).collect();
        let found: BTreeSet<&str> =
            tree.files.values().filter(|file| file.floor == Some(floor)).map(|file| file.top()).collect();
        assert_eq!(named, found, "ARCHITECTURE.md's row of floor {floor} (left) and what is there (right)");
    }
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let paths =
        |text: &str| paths_of(text, &["a".into(), "b".into()]).into_iter().map(|path| path.join("::")).collect();
    let table: [(&str, &[&str]); 9] = [
        ("use crate::x::Y;", &["x::Y"]),
        ("use super::c::D;", &["a::c::D"]),
        ("use super::super::x;", &["x"]),
        ("use self::d::{self, E, f::{G, H as I}};", &["a::b::d", "a::b::d::E", "a::b::d::f::G", "a::b::d::f::H"]),
        ("pub(crate) use crate::{x::Y,\n    z};", &["x::Y", "z"]),
        ("let it = crate::x::Y::new();", &["x::Y::new"]),
        ("fn f(it: &super::Z) {}", &["a::Z"]),
        ("use crate::x;\nx::y::go();", &["x", "x::y::go"]),
        ("// crate::x\nuse std::fmt;", &[]),
    ];
    for (text, expected) in table {
        let found: BTreeSet<String> = paths(text);
        assert_eq!(found, expected.iter().map(|path| (*path).to_owned()).collect(), "{text}");
    }
}

/// The sources without what is compiled for tests only, by module path.
struct Tree {
    files: BTreeMap<Module, File>,
}

/// `["arp", "task", "worker"]` for `src/arp/task/worker.rs`.
type Module = Vec<String>;

struct File {
    /// Below `src/`.
    path: String,
    text: String,
    floor: Option<u8>,
    module: Module,
}

impl File {
    /// The folder or file of `src/` that it is in, without the ending.
    fn top(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or("")
    }
}

impl Tree {
    fn read() -> Tree {
        let mut files = BTreeMap::new();
        for path in sources() {
            let text = fs::read_to_string(source().join(&path)).expect("it can be read");
            let module = module_of(&path);
            files.insert(module.clone(), File { floor: floor_of(&text), path, text, module });
        }
        let for_tests: Vec<Module> = files.values().flat_map(test_modules).collect();
        files.retain(|module, _| !for_tests.iter().any(|tests| module.starts_with(tests)));
        // The crate's root lists the modules and holds no code.
        files.remove(&Module::new());
        assert!(files.len() > 20, "the walk through src found only {} files", files.len());
        Tree { files }
    }

    /// The files that a file refers to, by any path in its code.
    fn imports(&self, file: &File) -> Vec<&File> {
        let paths = paths_of(without_tests(&file.text), &file.module);
        let found = paths.iter().filter_map(|path| self.resolve(path));
        found.filter(|target| target.path != file.path).collect()
    }

    /// The file of the longest beginning of the path that is a module.
    fn resolve(&self, path: &[String]) -> Option<&File> {
        (1..=path.len()).rev().find_map(|length| self.files.get(path.get(..length)?))
    }
}

/// Every absolute path of this crate that the code of a module names, by `use` or in passing.
fn paths_of(text: &str, module: &[String]) -> BTreeSet<Module> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut paths = BTreeSet::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start).filter(|(at, _)| begins_a_path(&code, *at)) {
            paths.extend(leaves(&code[at..], &[]).into_iter().filter_map(|path| absolute(&path, module)));
        }
    }
    // `use crate::arp;` and `mod worker;` make `arp::` and `worker::` the beginnings of paths.
    let imported: Vec<Module> = paths.iter().cloned().chain(children(&code, module)).collect();
    for known in imported {
        let Some(start) = known.last().map(|name| format!("{name}::")) else { continue };
        for (at, _) in code.match_indices(&start).filter(|(at, _)| begins_a_path(&code, *at)) {
            let rest = leaves(&code[at + start.len()..], &[]);
            paths.extend(rest.into_iter().map(|path| [known.clone(), path].concat()));
        }
    }
    paths
}

/// The modules that a file declares.
fn children(code: &str, module: &[String]) -> Vec<Module> {
    let declared = code.lines().filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "));
    declared.map(|(_, name)| [module, &[name.to_owned()]].concat()).collect()
}

/// The paths of a tree like `a::{self, b::C, d::{E, F}}`, at the start of the text.
fn leaves(text: &str, before: &[String]) -> Vec<Module> {
    let name: String = text.chars().take_while(|c| is_of_a_name(*c)).collect();
    let mut path = before.to_vec();
    if !(name.is_empty() || name == "self" && !before.is_empty()) {
        path.push(name.clone());
    }
    let Some(rest) = text[name.len()..].strip_prefix("::") else { return vec![path] };
    match rest.strip_prefix('{') {
        Some(group) => members(group).into_iter().flat_map(|member| leaves(member, &path)).collect(),
        None => leaves(rest, &path),
    }
}

/// The members of a group, up to the brace that ends it.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members.into_iter().filter(|member| !member.is_empty()).collect()
}

/// `crate::`, `super::` and `self::` replaced by what they stand for in this module.
fn absolute(path: &[String], module: &[String]) -> Option<Module> {
    let mut names = path.iter().map(String::as_str).peekable();
    let mut base = match names.next()? {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => return None,
    };
    while names.next_if(|name| *name == "super").is_some() {
        base.pop();
    }
    base.extend(names.map(str::to_owned));
    Some(base)
}

fn begins_a_path(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c: char| is_of_a_name(c) || c == ':')
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The floor in the header of a file: `Floor`, and a digit that no word goes on behind.
fn floor_of(text: &str) -> Option<u8> {
    let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let header = header.join("\n");
    let (_, rest) = header.split_once("Floor ")?;
    let mut rest = rest.chars();
    let floor = rest.next()?.to_digit(10).and_then(|floor| u8::try_from(floor).ok())?;
    (floor <= 4 && rest.next().is_none_or(|next| !is_of_a_name(next))).then_some(floor)
}

/// The modules that a file declares for tests only.
fn test_modules(file: &File) -> Vec<Module> {
    let behind_attribute = file.text.split("#[cfg(test)]\n").skip(1);
    let declared =
        behind_attribute.filter_map(|rest| rest.lines().next()?.trim().strip_suffix(';')?.rsplit_once("mod "));
    declared.map(|(_, name)| [&*file.module, &[name.to_owned()]].concat()).collect()
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn module_of(path: &str) -> Module {
    let stem = path.trim_end_matches(".rs");
    let stem = if stem == "lib" { "" } else { stem.trim_end_matches("/mod") };
    stem.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source, below `src/`.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path: PathBuf = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path.strip_prefix(source()).expect("it is below src").display().to_string());
            }
        }
    }
    found
}
