//! Reads the configuration from disk: the main file, the drop-ins of `conf.d` beside it in order of name, and the secrets
//! that they name. Floor 2, the one edge in this folder. `parse` reads the texts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::secrets::{self, FoundIn};
use super::{
    Complaints, Config, Need, SecretFile, Secrets, Source, SourceFile, cluster, parse_host, parse_with, taken, unused,
};
use crate::names::ObjectKey;

/// Why there is no configuration. The running one, if there is one, was not touched.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The main file, `conf.d`, or a drop-in could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not UTF-8 from byte {offset} on", path.display())]
    NotText { path: PathBuf, offset: usize },
    /// Of the text that a ConfigMap is to have.
    #[error(
        "{}: the text says nothing: every agent refuses such a ConfigMap, and the last good text stays in use",
        path.display()
    )]
    SaysNothing { path: PathBuf },
    #[error(
        "{file} names no ConfigMap ([kubernetes] config), so an agent with this file reads none: leave --cluster-config out"
    )]
    NoConfigMap { file: String },
    #[error(transparent)]
    Refused(#[from] Complaints),
    #[error(
        "the ConfigMap {config_map} ([kubernetes] config) is not seen, and none is kept from before: {why}; {remedy}"
    )]
    Unseen { config_map: ObjectKey, why: String, remedy: String },
}

/// Reads and checks a configuration.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    load_with(path, None, Lenience::Strict)
}

/// The same with the text of the cluster's ConfigMap behind it, if there is one.
pub fn load_with(path: &Path, cluster_config: Option<&Path>, lenience: Lenience) -> Result<Config, LoadError> {
    let files = read(path)?;
    let texts: Vec<SourceFile> = cluster_config.map(read_cluster_text).transpose()?.into_iter().collect();
    let config = parse_with(&files, &texts, &HostSecrets::from_environment().with(lenience))?;
    match cluster_config {
        Some(_) => names_config_map(&files, &config).map(|()| config),
        None => Ok(config),
    }
}

/// What the ConfigMap of these files is to say.
///
/// # Errors
/// The agents would refuse it unread, or the files name no ConfigMap. What else is wrong with any of them is not looked for.
pub fn cluster_text(files: &[SourceFile], text: &Path) -> Result<SourceFile, LoadError> {
    let read = read_cluster_text(text)?;
    let secrets = HostSecrets::from_environment().with(Lenience::Judging);
    if let Ok(config) = parse_with(files, std::slice::from_ref(&read), &secrets) {
        names_config_map(files, &config)?;
    }
    Ok(read)
}

fn read_cluster_text(text: &Path) -> Result<SourceFile, LoadError> {
    let read = read_file(text)?;
    match cluster::say_nothing(std::slice::from_ref(&read)) {
        true => Err(LoadError::SaysNothing { path: text.to_owned() }),
        false => Ok(read),
    }
}

/// The configuration of these files names a ConfigMap.
fn names_config_map(files: &[SourceFile], config: &Config) -> Result<(), LoadError> {
    match (files.first(), &config.source) {
        (_, Source::Kubernetes(kubernetes)) if kubernetes.config.is_some() => Ok(()),
        (Some(main), _) => Err(LoadError::NoConfigMap { file: main.path.clone() }),
        (None, _) => Ok(()),
    }
}

/// The same of the files of a host whose ConfigMap, if they name one, is not at hand: with what that is to have.
pub fn load_host(path: &Path, lenience: Lenience) -> Result<(Config, Vec<String>), LoadError> {
    Ok(parse_host(&read(path)?, &HostSecrets::from_environment().with(lenience))?)
}

/// That it was not checked whether the ConfigMap has these.
pub fn awaited(config: &Config, awaited: &[String]) -> Option<String> {
    let Source::Kubernetes(kubernetes) = &config.source else { return None };
    let config_map = kubernetes.config.as_ref().filter(|_| !awaited.is_empty())?;
    Some(format!(
        "whether the ConfigMap {config_map} has {} was not checked; --cluster-config FILE of crier config check checks both together",
        awaited.join(", ")
    ))
}

/// Warnings about a configuration without mistakes: what is wrong with its secrets, what is [`unused`] of it, and which of its numbers
/// another program is known to use.
pub fn warnings(config: &Config) -> Vec<String> {
    let of_numbers = taken::warnings(config);
    warnings_of_secrets(config).into_iter().chain(unused(config, false)).chain(of_numbers).collect()
}

/// The secrets that are missing, and those that every user of this host may read.
///
/// Warnings and not complaints: such a secret is out already, and refusing the file would withdraw the announcements too.
pub fn warnings_of_secrets(config: &Config) -> Vec<String> {
    let host = HostSecrets::from_environment();
    let lacking: BTreeSet<&Path> = config.secrets().filter_map(SecretFile::lacking).collect();
    let missing = lacking.into_iter().map(|path| {
        let peers = config.bgp.peers.iter().filter(|peer| config.lacking_of(peer) == Some(path));
        let peers: Vec<String> = peers.map(|peer| peer.name.to_string()).collect();
        let cost = match peers.is_empty() {
            true => "the agent does not start without it".to_owned(),
            false => format!("no session with {} without it", peers.join(", ")),
        };
        format!(
            "the secret {} is missing: {cost}; create the file with mode 0600, or give the service a systemd credential of the \
             same name",
            path.display()
        )
    });
    let paths = config.secrets().filter_map(|secret| secret.path.as_deref());
    let files = paths.filter(|path| matches!(secrets::find(&host, path), Ok((_, FoundIn::File))));
    let open = files.filter_map(|path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
        let text = format!(
            "the secret {} is readable by every user of this host (mode {mode:04o}); run chmod o-rwx on it",
            path.display()
        );
        (mode & 0o004 != 0).then_some(text)
    });
    missing.chain(open).collect()
}

/// The secrets of this host: files, and the credentials that systemd gave this service (`LoadCredential=`).
#[derive(Debug, Clone, Default)]
pub struct HostSecrets {
    /// `None` if systemd gave none.
    credentials: Option<PathBuf>,
    lenience: Lenience,
    /// No other files are looked at; `None`: all are.
    only: Option<BTreeSet<PathBuf>>,
}

/// Which missing files of secrets are no mistake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lenience {
    #[default]
    Strict,
    /// All: the file is judged, not the host.
    Judging,
    /// Those of peers: an agent starts, and leaves these peers alone.
    Starting,
    /// These, which a running agent lacks already.
    Running(BTreeSet<PathBuf>),
}

impl Lenience {
    /// A running agent lacks no more than it does by this configuration.
    pub fn of_running(config: &Config) -> Lenience {
        Lenience::Running(config.secrets().filter_map(SecretFile::lacking).map(Path::to_owned).collect())
    }
}

/// Stands for a text that is piped, which has no drop-ins.
pub const STANDARD_INPUT: &str = "-";

/// How many octets of a secret file are read. No secret is longer.
const MOST_SECRET_OCTETS: u64 = 64 * 1024;

/// A file of a configuration is shorter. What is longer was written by no person.
const MOST_OCTETS: u64 = 8 << 20;

impl HostSecrets {
    /// Looks for credentials where `$CREDENTIALS_DIRECTORY` says that they are.
    pub fn from_environment() -> HostSecrets {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        HostSecrets { credentials, lenience: Lenience::default(), only: None }
    }

    pub fn with(self, lenience: Lenience) -> HostSecrets {
        HostSecrets { lenience, ..self }
    }

    /// Other files than these count as missing.
    pub fn only(self, files: impl Iterator<Item = PathBuf>) -> HostSecrets {
        HostSecrets { only: Some(files.collect()), ..self }
    }
}

impl Secrets for HostSecrets {
    fn credential(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let Some(folder) = &self.credentials else { return Ok(None) };
        match read_regular(&folder.join(name), MOST_SECRET_OCTETS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.only.as_ref().is_some_and(|only| !only.contains(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        read_regular(path, MOST_SECRET_OCTETS)
    }

    fn may_lack(&self, path: &Path, need: Need) -> bool {
        match &self.lenience {
            Lenience::Strict => false,
            Lenience::Judging => true,
            Lenience::Starting => need == Need::Peer,
            Lenience::Running(lacking) => need == Need::Peer && lacking.contains(path),
        }
    }
}

/// At most so many octets of a file.
fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Without this flag, opening a pipe would wait for its writer.
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut octets = Vec::new();
    file.take(most).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Reads the main file and each `conf.d/*.toml` beside it; hidden files are ignored. A missing `conf.d` is no mistake.
pub fn read(path: &Path) -> Result<Vec<SourceFile>, LoadError> {
    let mut files = vec![read_main(path)?];
    files.extend(read_drop_ins(path)?);
    Ok(files)
}

/// Reads the main file alone.
pub fn read_main(path: &Path) -> Result<SourceFile, LoadError> {
    read_file(path)
}

/// Reads the drop-ins beside a main file, which need not be there.
pub fn read_drop_ins(main: &Path) -> Result<Vec<SourceFile>, LoadError> {
    if main == Path::new(STANDARD_INPUT) {
        return Ok(Vec::new());
    }
    drop_ins(&main.with_file_name("conf.d"))?.iter().map(|path| read_file(path)).collect()
}

/// The drop-ins in a folder in order of name; none where it is not there.
pub fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<SourceFile, LoadError> {
    let mut piped = Vec::new();
    let read = match path == Path::new(STANDARD_INPUT) {
        true => io::stdin().lock().take(MOST_OCTETS).read_to_end(&mut piped).map(|_| piped),
        false => read_regular(path, MOST_OCTETS),
    };
    let bytes = read
        .and_then(|bytes| match u64::try_from(bytes.len()) {
            Ok(len) if len < MOST_OCTETS => Ok(bytes),
            Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 8 MiB")),
        })
        .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile { path: path.display().to_string(), text }),
        Err(error) => Err(LoadError::NotText { path: path.to_owned(), offset: error.utf8_error().valid_up_to() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn drop_ins_are_read_in_order_of_name_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        fs::write(&main, "main").unwrap();
        assert_eq!(read(&main).unwrap().len(), 1, "without conf.d there is the main file");
        let conf_d = folder.path().join("conf.d");
        fs::create_dir(&conf_d).unwrap();
        for name in ["20-b.toml", "10-a.toml", ".hidden.toml", "10-a.toml.bak", "README"] {
            fs::write(conf_d.join(name), name).unwrap();
        }
        let texts: Vec<String> = read(&main).unwrap().into_iter().map(|file| file.text).collect();
        assert_eq!(texts, ["main", "10-a.toml", "20-b.toml"]);
    }

    #[test]
    fn a_secret_is_read_from_a_credential_or_a_regular_file() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostSecrets { credentials: Some(folder.path().join("credentials")), ..HostSecrets::default() };
        let path = folder.path().join("tor.md5");
        let read = |host: &HostSecrets| secrets::find(host, &path);
        assert_eq!(read(&host).unwrap_err().kind(), io::ErrorKind::NotFound, "no file, no folder of credentials");
        fs::write(&path, "file\n").unwrap();
        assert_eq!(read(&host).unwrap(), (b"file".to_vec(), FoundIn::File));
        fs::create_dir(folder.path().join("credentials")).unwrap();
        assert_eq!(read(&host).unwrap(), (b"file".to_vec(), FoundIn::File));
        fs::write(folder.path().join("credentials/tor.md5"), "credential\n").unwrap();
        assert_eq!(read(&host).unwrap(), (b"credential".to_vec(), FoundIn::Credential));
        assert_eq!(read(&HostSecrets::default()).unwrap(), (b"file".to_vec(), FoundIn::File));
        let unusable = HostSecrets::default().file(folder.path()).unwrap_err();
        assert_eq!(unusable.to_string(), "not a regular file");
        let endless = HostSecrets::default().file(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(endless.to_string(), "not a regular file");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        let text = |error: LoadError| error.to_string();
        assert!(text(load(&main).unwrap_err()).starts_with(&format!("cannot read {}: ", main.display())));
        fs::write(&main, b"a = \"\xff\"").unwrap();
        assert!(text(load(&main).unwrap_err()).contains("is not UTF-8 from byte 5 on"));
        fs::write(&main, "a = ").unwrap();
        assert!(matches!(load(&main), Err(LoadError::Refused(_))));
    }

    /// Input: for the ConfigMap a text of comments, or any for files that name no ConfigMap. Output: both are refused.
    /// The one was "good: 0 pools", the other was merged into what no agent reads it with.
    #[test]
    fn a_text_that_no_agent_would_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (main, text) = (folder.path().join("crier.toml"), folder.path().join("cluster.toml"));
        let judged = |keys: &str, of_cluster: &str| {
            fs::write(&main, format!("[kubernetes]\nin-cluster = true\n{keys}")).unwrap();
            fs::write(&text, of_cluster).unwrap();
            load_with(&main, Some(&text), Lenience::Judging)
                .map(|config| config.pools.len())
                .map_err(|it| it.to_string())
        };
        let (named, pool) =
            ("config = \"kube-system/crier\"\n", "[[pool]]\nname = \"a\"\naddresses = [\"192.0.2.0/28\"]\n");
        assert_eq!(judged(named, pool), Ok(1));
        for empty in ["", "# a comment\n\n"] {
            let said = judged(named, empty).unwrap_err();
            assert!(said.contains("cluster.toml: the text says nothing: every agent refuses"), "{said}");
        }
        let said = judged("", pool).unwrap_err();
        assert!(said.contains("crier.toml names no ConfigMap ([kubernetes] config)"), "{said}");
        let said = judged("colour = 1\n", pool).unwrap_err();
        assert!(said.contains("colour"), "a mistake is told first: {said}");
    }

    #[test]
    fn a_missing_secret_is_a_mistake_a_warning_or_the_matter_of_its_peers() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        let file = |name: &str| folder.path().join(name);
        let text = |pulse: &str| {
            let secret = |name: &str| file(name).display().to_string();
            format!(
                "{pulse}[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n\
                 [[bgp.peer]]\nname = \"one\"\naddress = \"10.0.0.1\"\nasn = 64512\npassword-file = \"{}\"\n\
                 [[bgp.peer]]\nname = \"two\"\naddress = \"10.0.0.2\"\nasn = 64512\nbfd = \"fast\"\n\
                 [[bgp.peer]]\nname = \"three\"\naddress = \"10.0.0.3\"\nasn = 64512\n\
                 [[bfd]]\nname = \"fast\"\nkey-file = \"{}\"\n",
                secret("one.md5"),
                secret("fast.key"),
            )
        };
        fs::write(&main, text("")).unwrap();
        let complaints = load_with(&main, None, Lenience::Strict).unwrap_err().to_string();
        assert!(complaints.contains("one.md5 cannot be read") && complaints.contains("fast.key cannot be read"));
        let config = load_with(&main, None, Lenience::Starting).unwrap();
        assert_eq!(load_with(&main, None, Lenience::Judging).unwrap(), config);
        let lacking: Vec<_> = config.bgp.peers.iter().map(|peer| config.lacking_of(peer).map(Path::to_owned)).collect();
        assert_eq!(lacking, [Some(file("one.md5")), Some(file("fast.key")), None]);
        let said = warnings_of_secrets(&config);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("fast.key is missing: no session with two without it; create the file"), "{said:?}");
        let running = Lenience::of_running(&config);
        assert_eq!(
            load_with(&main, None, running.clone()).unwrap(),
            config,
            "what is missing already hinders no reload"
        );
        fs::write(file("one.md5"), "secret").unwrap();
        let mended = load_with(&main, None, running).unwrap();
        assert!(crate::config::changes(&config, &mended).iter().any(|it| it.to_string().contains("password")));
        assert!(load_with(&main, None, Lenience::of_running(&mended)).is_ok());
        fs::remove_file(file("one.md5")).unwrap();
        assert!(
            load_with(&main, None, Lenience::of_running(&mended)).is_err(),
            "a session that stands keeps its password"
        );

        fs::write(&main, text(&format!("[pulse]\nkey-file = \"{}\"\n", file("pulse.key").display()))).unwrap();
        assert!(load_with(&main, None, Lenience::Starting).is_err(), "the others would not believe this node");
        let judged = load_with(&main, None, Lenience::Judging).unwrap();
        assert!(warnings(&judged).iter().any(|it| it.contains("pulse.key is missing: the agent does not start")));
    }
}
