//! `crier install`: binary, unit, configuration, key and folders of this host in their places, and a look at the result. Floor 4.
//! A second run changes nothing. What the operator wrote is replaced only by what the operator names, and the former is kept.

mod place;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Exit, print};
use crate::clock;
use crate::config::load::{self, HostSecrets, LoadError};
use crate::config::{self, Access, LEAST_PULSE_KEY, Secrets, Source};
use crate::k8s::client::{self, ClientError};
use crate::world::ClientCertificate;
use place::{Item, OrElse, Seen, Step, What, below, judge, look, put, within};

#[derive(Debug, Args)]
pub struct Install {
    /// The configuration, for /etc/crier/crier.toml; a former one is kept as crier.toml.old
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The kubeconfig of the agent, for /etc/crier/kubeconfig; a former one is kept as kubeconfig.old
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The key of the pulses, for /etc/crier/pulse.key; it must be the same on every node
    #[arg(long, value_name = "FILE")]
    pulse_key: Option<PathBuf>,
    /// Draw a key where there is none; on the first node only, the others get this one with --pulse-key
    #[arg(long, conflicts_with = "pulse_key")]
    new_pulse_key: bool,
    /// Enable the unit and start it, or restart it where something changed
    #[arg(long)]
    start: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The root of the host: another directory for the image of a node
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "start")]
    root: PathBuf,
}

const BINARY: &str = "/usr/bin/crier";
const UNIT: &str = "/etc/systemd/system/crier.service";
/// Where a package puts the unit. The same unit there is enough.
const UNIT_OF_PACKAGE: &str = "/usr/lib/systemd/system/crier.service";
const UNIT_TEXT: &str = include_str!("../../systemd/crier.service");
const CONFIG: &str = "/etc/crier/crier.toml";
const KUBECONFIG: &str = "/etc/crier/kubeconfig";
const PULSE_KEY: &str = "/etc/crier/pulse.key";
/// Of a kubeconfig that names certificates, keys or tokens by their files.
const BESIDE: &str = "; files that it names are not taken along, and are looked for as seen from /etc/crier on the host: a kubeconfig with the \
                      data itself, as `crier kubeconfig` prints it, needs none";

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("cannot read {}: {source}; nothing was changed", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is in the way: a folder where a file belongs, or the other way round; nothing was changed", path.display())]
    Blocked { path: PathBuf },
    #[error(
        "the unit is masked: {} leads to /dev/null; run systemctl unmask crier, then crier install again; nothing was changed",
        path.display()
    )]
    Masked { path: PathBuf },
    #[error("this host gives no random numbers for a key: {0}; nothing was changed")]
    Random(getrandom::Error),
    #[error("cannot write {}: {source}; run crier install again once that works, as root", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error("{} cannot become {KUBECONFIG}: {error}{}; nothing was changed", given.display(), if *names_files { BESIDE } else { "" })]
    Kubeconfig { given: PathBuf, error: ClientError, names_files: bool },
    #[error("the pulse key in {} is shorter than {LEAST_PULSE_KEY} octets; create one with `openssl rand -hex 32`; nothing was changed", given.display())]
    ShortKey { given: PathBuf },
    #[error("there is no directory {}; make the root of the host first; nothing was changed", root.display())]
    NoRoot { root: PathBuf },
}

/// What was done, or would be.
#[derive(Debug)]
struct Outcome {
    /// A line for each item.
    table: String,
    notes: Vec<String>,
    problems: Vec<String>,
    /// Something was not as it should be.
    changed: bool,
}

pub fn run(arguments: &Install) -> Exit {
    // The file that runs, also where its path was replaced meanwhile.
    let exe = Path::new("/proc/self/exe");
    let binary = fs::read(exe).map_err(|source| InstallError::Unreadable { path: exe.to_owned(), source });
    match binary.and_then(|binary| install(arguments, binary)) {
        Ok(Outcome { table, notes, problems, changed }) => {
            let printed = print(&table);
            for line in notes.iter().chain(&problems) {
                tell!("crier: {line}");
            }
            printed.with_problems(!problems.is_empty() || (arguments.dry_run && changed))
        }
        Err(InstallError::Config(error)) => {
            let exit = super::complain_of_files(&error);
            tell!("crier: nothing was changed");
            exit
        }
        Err(error) => {
            tell!("crier: {error}");
            match error {
                InstallError::Unreadable { .. }
                | InstallError::Config(_)
                | InstallError::Kubeconfig { .. }
                | InstallError::ShortKey { .. }
                | InstallError::NoRoot { .. } => Exit::Usage,
                InstallError::Masked { .. }
                | InstallError::Blocked { .. }
                | InstallError::Random(_)
                | InstallError::Unwritable { .. } => Exit::Problem,
            }
        }
    }
}

fn install(arguments: &Install, binary: Vec<u8>) -> Result<Outcome, InstallError> {
    let Install { root, dry_run, .. } = arguments;
    if !root.is_dir() {
        return Err(InstallError::NoRoot { root: root.clone() });
    }
    let mut steps = Vec::new();
    for item in wanted(arguments, binary)? {
        let path = below(root, &item.path);
        if item.path == Path::new(UNIT) && is_masked(&path) {
            return Err(InstallError::Masked { path });
        }
        let seen = look(&within(root, &item.path)).map_err(|source| InstallError::Unreadable { path, source })?;
        steps.push((judge(&item, &seen), item));
    }
    if let Some((_, item)) = steps.iter().find(|(step, _)| *step == Step::Blocked) {
        return Err(InstallError::Blocked { path: below(root, &item.path) });
    }
    // A configuration that is refused must not take the place of one that works.
    let (config, awaited) = checked(root, &steps, arguments.config.as_deref())?.unzip();
    // Neither must such a kubeconfig: an agent that runs reads it anew, and a second try would put it in the place of the former one that is
    // kept. Where there is none, nothing is gained by it.
    if let Some(given) = &arguments.kubeconfig
        && let Some((error, names_files)) = steps.iter().find_map(|(step, item)| refusal(root, *step, item))
    {
        return Err(InstallError::Kubeconfig { given: given.clone(), error, names_files });
    }
    for (step, item) in steps.iter().filter(|_| !dry_run) {
        let unwritable = |source| InstallError::Unwritable { path: below(root, &item.path), source };
        put(root, item, *step).map_err(unwritable)?;
    }
    let changed = steps.iter().any(|(step, _)| step.changes());
    let mut problems = problems(root, &steps, config.as_ref());
    if !dry_run && root == Path::new("/") {
        problems.extend(tell_systemd(arguments.start && problems.is_empty(), changed, &steps));
    }
    let table = steps.iter().map(|(step, item)| line(*step, item, *dry_run)).collect();
    let mut notes = notes(arguments, &steps, problems.is_empty());
    notes.extend(config.iter().flat_map(|config| config::unused(config, false)).chain(awaited.flatten()));
    Ok(Outcome { table, notes, problems, changed })
}

/// Everything that should be there, folders before what is in them.
fn wanted(arguments: &Install, binary: Vec<u8>) -> Result<Vec<Item>, InstallError> {
    let Install { config, kubeconfig, pulse_key, new_pulse_key, root, start: _, dry_run: _ } = arguments;
    let read =
        |path: &Path| fs::read(path).map_err(|source| InstallError::Unreadable { path: path.to_owned(), source });
    let folder = |path: &str, mode| Item { path: path.into(), mode, what: What::Folder };
    let file = |path: &str, mode, content: Vec<u8>, or_else| Item {
        path: path.into(),
        mode,
        what: What::File { content, or_else },
    };
    let unit = UNIT_TEXT.as_bytes().to_vec();
    let mut items = vec![
        folder("/etc/crier", 0o755),
        folder("/etc/crier/conf.d", 0o755),
        folder("/var/lib/crier", 0o750),
        file(BINARY, 0o755, binary, OrElse::Replace),
        file("/etc/crier/crier.toml.example", 0o644, config::example().into_bytes(), OrElse::Replace),
    ];
    let of_package = look(&within(root, Path::new(UNIT_OF_PACKAGE)));
    if !matches!(of_package, Ok(Seen::File { content, .. }) if content == unit) {
        items.push(file(UNIT, 0o644, unit, OrElse::Replace));
    }
    if let Some(key) = pulse_key {
        let content = read(key)?;
        if content.trim_ascii().len() < LEAST_PULSE_KEY {
            return Err(InstallError::ShortKey { given: key.clone() });
        }
        items.push(file(PULSE_KEY, 0o600, content, OrElse::Leave));
    } else if *new_pulse_key && !below(root, Path::new(PULSE_KEY)).exists() {
        items.push(file(PULSE_KEY, 0o600, new_key()?, OrElse::Leave));
    }
    if let Some(kubeconfig) = kubeconfig {
        items.push(file(KUBECONFIG, 0o600, read(kubeconfig)?, OrElse::KeepFormer));
    }
    if let Some(config) = config {
        items.push(file(CONFIG, 0o644, read(config)?, OrElse::KeepFormer));
    }
    Ok(items)
}

/// As `systemctl mask` leaves it.
fn is_masked(unit: &Path) -> bool {
    fs::read_link(unit).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// A key of 32 random octets, in hexadecimal.
fn new_key() -> Result<Vec<u8>, InstallError> {
    let mut octets = [0_u8; 32];
    getrandom::fill(&mut octets).map_err(InstallError::Random)?;
    let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    Ok((text + "\n").into_bytes())
}

/// The configuration as it will be, which is `named` if the operator names one, checked with the secrets as they will be.
/// `None`: there will be none.
/// With it what is told of a ConfigMap that it names.
fn checked(
    root: &Path,
    steps: &[(Step, Item)],
    named: Option<&Path>,
) -> Result<Option<(config::Config, Option<String>)>, InstallError> {
    let path = within(root, Path::new(CONFIG));
    // What systemd gave this process is of this host, and not of an image.
    let host = if root == Path::new("/") { HostSecrets::from_environment() } else { HostSecrets::default() };
    let coming = Coming { root, host, steps };
    let main = match named {
        Some(named) => load::read_main(named)?,
        None if !path.exists() => return Ok(None),
        None => load::read_main(&path)?,
    };
    let mut files = vec![main];
    files.extend(load::read_drop_ins(&path)?);
    let (config, awaited) = config::parse_host(&files, &coming).map_err(LoadError::from)?;
    let told = load::awaited(&config, &awaited);
    Ok(Some((config, told)))
}

/// Why a kubeconfig that is to be put in place cannot be used, and whether it names files.
fn refusal(root: &Path, step: Step, item: &Item) -> Option<(ClientError, bool)> {
    let What::File { content, .. } = &item.what else { return None };
    if !step.changes() || item.path != Path::new(KUBECONFIG) {
        return None;
    }
    let error = judged(root, content, &item.path)?.err()?;
    let text = String::from_utf8_lossy(content);
    let keys = ["client-certificate:", "client-key:", "certificate-authority:", "tokenFile:"];
    Some((error, keys.iter().any(|key| text.contains(key))))
}

/// What is to be said of a kubeconfig at this path of the host: its client certificate, or why it cannot be used.
fn judged(root: &Path, content: &[u8], path: &Path) -> Option<Result<Option<ClientCertificate>, ClientError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let of_host = |file: &Path| within(root, file.strip_prefix(root).unwrap_or(file));
    Some(runtime.block_on(client::check(content, &below(root, path), of_host, clock::wall())))
}

/// The secrets of the host as they will be.
struct Coming<'a> {
    root: &'a Path,
    host: HostSecrets,
    steps: &'a [(Step, Item)],
}

impl Coming<'_> {
    /// What this run puts into a file, if it does.
    fn content(&self, path: &Path) -> Option<&[u8]> {
        self.steps.iter().find_map(|(step, item)| match &item.what {
            What::File { content, .. } if item.path == path && *step != Step::Leave => Some(&content[..]),
            What::File { .. } | What::Folder => None,
        })
    }
}

impl Secrets for Coming<'_> {
    fn credential(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        self.host.credential(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.content(path) {
            Some(content) => Ok(content.to_vec()),
            None => self.host.file(&within(self.root, path)),
        }
    }
}

/// What keeps an agent from working here, with the remedy.
fn problems(root: &Path, steps: &[(Step, Item)], config: Option<&config::Config>) -> Vec<String> {
    let mut problems = Vec::new();
    for (step, item) in steps {
        let path = item.path.display();
        match step {
            Step::Leave => problems.push(format!(
                "{path} has another content, and was left as it is: a key that differs from the other nodes' takes this one out; see \"Changing the pulse key\" in doc/operation.md"
            )),
            Step::Nothing | Step::Create | Step::Replace | Step::ReplaceAndKeep | Step::Restrict | Step::Blocked => {}
        }
    }
    if root == Path::new("/") {
        problems.extend(steps.iter().filter_map(|(_, item)| foreign_owner(&item.path)));
    }
    let Some(config) = config else {
        problems.push(format!(
            "there is no {CONFIG}: write one after {CONFIG}.example, and run crier install --config FILE"
        ));
        return problems;
    };
    if let Source::Kubernetes(kubernetes) = &config.source
        && let Access::Kubeconfig(path) = &kubernetes.access
    {
        let coming = steps.iter().find_map(|(_, item)| match &item.what {
            What::File { content, .. } if item.path == *path => Some(content),
            What::File { .. } | What::Folder => None,
        });
        problems.extend(unusable(root, path, coming.map(Vec::as_slice)));
    }
    if root == Path::new("/") {
        problems.extend(load::warnings_of_secrets(config));
    }
    problems
}

/// Whoever has the file, or the folder of files, can give a service of root another one.
fn foreign_owner(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let owner = fs::metadata(path).ok()?.uid();
    let path = path.display();
    (owner != 0).then(|| format!("{path} belongs to the user {owner}, who can change it: chown root:root {path}"))
}

/// What is left to do, where nothing is wrong with what is there.
fn notes(arguments: &Install, steps: &[(Step, Item)], fine: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let is_new = |(step, item): &(Step, Item)| *step == Step::Create && item.path == Path::new(PULSE_KEY);
    if arguments.new_pulse_key && steps.iter().any(is_new) {
        notes.push(format!("{PULSE_KEY} is new: give it to every other node with crier install --pulse-key FILE"));
    }
    if arguments.dry_run {
        notes.push("nothing was changed (--dry-run)".to_owned());
    } else if arguments.start && !fine {
        notes.push("the agent was not started".to_owned());
    } else if !arguments.start && arguments.root == Path::new("/") && steps.iter().any(|(step, _)| step.changes()) {
        notes.push("a running agent goes on as before; crier install --start restarts it".to_owned());
    }
    notes
}

/// Why the kubeconfig of the configuration cannot be used, or not for long; `coming` if it is put there in this run.
fn unusable(root: &Path, path: &Path, coming: Option<&[u8]>) -> Option<String> {
    let there = within(root, path);
    if !there.exists() {
        // A dry run does not put it there.
        let hint = "make one with `crier kubeconfig` where kubectl works, and run crier install --kubeconfig FILE";
        return coming.is_none().then(|| format!("there is no {}, which {CONFIG} names: {hint}", path.display()));
    }
    let content = match fs::read(&there) {
        Ok(content) => content,
        Err(error) => return Some(format!("cannot read {}: {error}", there.display())),
    };
    match judged(root, &content, path)? {
        Err(error) => Some(error.to_string()),
        Ok(certificate) => {
            let trouble = certificate?.trouble(clock::wall())?;
            Some(format!(
                "{trouble}: the API server answers 401 from then on; renew it, or make a new kubeconfig with `crier kubeconfig`"
            ))
        }
    }
}

/// Has systemd read the units again, and starts or restarts the agent if that is wished. What goes wrong is a problem.
fn tell_systemd(start: bool, changed: bool, steps: &[(Step, Item)]) -> Vec<String> {
    if !Path::new("/run/systemd/system").exists() {
        let text = "systemd does not run here: nothing starts the agent after a boot";
        return vec![text.to_owned()];
    }
    let new_unit = steps.iter().any(|(step, item)| step.changes() && item.path == Path::new(UNIT));
    let mut commands: Vec<&[&str]> = Vec::new();
    if new_unit {
        commands.push(&["daemon-reload"]);
    }
    if start {
        commands.push(&["enable", "crier"]);
        let is_outdated = changed || agent_started().is_some_and(|started| is_newer(steps, started));
        commands.push(if is_outdated { &["restart", "crier"] } else { &["start", "crier"] });
    }
    // After one that fails the next would only fail too.
    commands.into_iter().find_map(|words| systemctl(words).err()).into_iter().collect()
}

/// When systemd started the agent that runs; `None` where none does.
fn agent_started() -> Option<SystemTime> {
    let words = ["show", "--timestamp=us+utc", "--property=ExecMainStartTimestamp", "--value", "crier"];
    let shown = Command::new("systemctl").args(words).output().ok()?;
    time_of(String::from_utf8_lossy(&shown.stdout).trim())
}

/// A time as systemd writes it with microseconds: files that were put in place in the second of a start are older than that.
fn time_of(text: &str) -> Option<SystemTime> {
    let time = DateTime::strptime("%a %Y-%m-%d %H:%M:%S%.f UTC", text).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp().into())
}

/// Whether one of the files is newer than that, as after a `crier install` without `--start`.
fn is_newer(steps: &[(Step, Item)], started: SystemTime) -> bool {
    let put = |item: &Item| fs::metadata(&item.path).ok().filter(fs::Metadata::is_file)?.modified().ok();
    steps.iter().filter_map(|(_, item)| put(item)).any(|put| put >= started)
}

fn systemctl(words: &[&str]) -> Result<(), String> {
    let typed = format!("systemctl {}", words.join(" "));
    match Command::new("systemctl").args(words).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            Err(format!("`{typed}` failed: {}; see journalctl -u crier", told.trim()))
        }
        Err(error) => Err(format!("cannot run `{typed}`: {error}")),
    }
}

/// One line for an item: what was done, or would be.
fn line(step: Step, item: &Item, dry_run: bool) -> String {
    let done = match (step, dry_run) {
        (Step::Nothing, _) => "there",
        (Step::Create, false) => "created",
        (Step::Create, true) => "would create",
        (Step::Replace | Step::ReplaceAndKeep, false) => "replaced",
        (Step::Replace | Step::ReplaceAndKeep, true) => "would replace",
        (Step::Restrict, false) => "restricted",
        (Step::Restrict, true) => "would restrict",
        (Step::Leave, _) => "left",
        (Step::Blocked, _) => "blocked",
    };
    let former = match step {
        Step::ReplaceAndKeep => format!("  (the former is {})", place::with_end(&item.path, "old").display()),
        Step::Nothing | Step::Create | Step::Replace | Step::Restrict | Step::Leave | Step::Blocked => String::new(),
    };
    format!("{done:<14}  {:04o}  {}{former}\n", item.mode, item.path.display())
}
