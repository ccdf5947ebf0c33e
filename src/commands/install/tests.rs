//! `crier install` on hosts that are folders. Floor 4.

use std::time::Duration;

use super::*;
use crate::k8s::certificate_request::self_signed;

/// A host in a folder, and the files that an operator brings.
struct Host {
    root: tempfile::TempDir,
    brought: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        Host { root: tempfile::tempdir().unwrap(), brought: tempfile::tempdir().unwrap() }
    }

    fn arguments(&self) -> Install {
        Install {
            config: None,
            kubeconfig: None,
            pulse_key: None,
            new_pulse_key: false,
            start: false,
            dry_run: false,
            root: self.root.path().to_owned(),
        }
    }

    fn bring(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.brought.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    }

    fn whole(&self) -> Install {
        Install {
            config: self.bring("crier.toml", GOOD),
            kubeconfig: self.bring("kubeconfig", KUBECONFIG_TEXT),
            pulse_key: self.bring("pulse.key", "0123456789abcdef0123456789abcdef\n"),
            ..self.arguments()
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(below(self.root.path(), Path::new(path))).ok()
    }
}

const GOOD: &str =
    "[kubernetes]\nkubeconfig = \"/etc/crier/kubeconfig\"\n[pulse]\nkey-file = \"/etc/crier/pulse.key\"\n";
const KUBECONFIG_TEXT: &str = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
     clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443'}}], users: [{name: u, user: {token: t}}]}";

fn install(arguments: &Install) -> Outcome {
    super::install(arguments, b"binary".to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn everything_is_put_in_place_and_a_second_run_changes_nothing() {
    let host = Host::new();
    let first = install(&host.whole());
    assert_eq!(first.problems, [""; 0], "{}", first.table);
    assert!(first.changed && first.table.lines().all(|line| line.starts_with("created")), "{}", first.table);
    for (path, mode) in [
        (BINARY, 0o755),
        (UNIT, 0o644),
        (CONFIG, 0o644),
        ("/etc/crier/crier.toml.example", 0o644),
        (KUBECONFIG, 0o600),
        (PULSE_KEY, 0o600),
        ("/etc/crier/conf.d", 0o755),
        ("/var/lib/crier", 0o750),
    ] {
        use std::os::unix::fs::PermissionsExt;
        let there = fs::metadata(below(host.root.path(), Path::new(path))).unwrap_or_else(|_| panic!("{path}"));
        assert_eq!(there.permissions().mode() & 0o777, mode, "{path}");
    }
    let second = install(&host.whole());
    assert!(!second.changed && second.table.lines().all(|line| line.starts_with("there")), "{}", second.table);
}

#[test]
fn a_dry_run_says_it_all_and_changes_nothing() {
    let host = Host::new();
    let outcome = install(&Install { dry_run: true, ..host.whole() });
    assert!(outcome.changed && outcome.table.lines().all(|line| line.starts_with("would create")));
    assert_eq!(outcome.problems, [""; 0], "what the run would bring counts as there");
    assert_eq!(fs::read_dir(host.root.path()).unwrap().count(), 0);
}

#[test]
fn what_is_missing_is_a_problem_with_a_remedy() {
    let host = Host::new();
    let bare = install(&host.arguments());
    assert!(bare.problems[0].contains("there is no /etc/crier/crier.toml: write one after"), "{:?}", bare.problems);
    let config = host.bring("crier.toml", &GOOD.replace("[pulse]\nkey-file = \"/etc/crier/pulse.key\"\n", ""));
    let without = install(&Install { config, ..host.arguments() });
    assert!(without.problems[0].contains("there is no /etc/crier/kubeconfig, which"), "{:?}", without.problems);
    let kubeconfig = host.bring("kubeconfig", &KUBECONFIG_TEXT.replace("token: t", "exec: {command: aws}"));
    let refused = |arguments: &Install| super::install(arguments, Vec::new()).expect_err("it is refused").to_string();
    let unusable = refused(&Install { kubeconfig: kubeconfig.clone(), ..host.arguments() });
    // It was put in place, and the message named the place alone.
    let given = format!("{} cannot become /etc/crier/kubeconfig", kubeconfig.unwrap().display());
    assert!(unusable.starts_with(&given) && unusable.contains("credential plugin \"aws\""), "{unusable}");
    assert_eq!(host.read(KUBECONFIG), None);
    let named =
        host.bring("named", &KUBECONFIG_TEXT.replace("token: t", "client-certificate: a.crt, client-key: a.key"));
    let beside = refused(&Install { kubeconfig: named, ..host.arguments() });
    assert!(beside.contains("files that it names are not taken along"), "{beside}");
    let short = refused(&Install { pulse_key: host.bring("short.key", "abcd\n"), ..host.arguments() });
    assert!(short.contains("short.key is shorter than 16 octets"), "{short}");
    // A mistyped root became one.
    let nowhere = host.root.path().join("nowhere");
    assert!(refused(&Install { root: nowhere.clone(), ..host.arguments() }).contains("there is no directory"));
    assert!(!nowhere.exists());
}

#[test]
fn a_configuration_that_is_refused_changes_nothing() {
    let host = Host::new();
    let text = |arguments: &Install| match super::install(arguments, b"binary".to_vec()) {
        Err(error) => error.to_string(),
        Ok(outcome) => panic!("it was installed:\n{}", outcome.table),
    };
    let config = host.bring("refused.toml", "[kubernetes]\nkubeconfg = \"/etc/crier/kubeconfig\"\n");
    let refused = text(&Install { config, ..host.whole() });
    assert!(refused.contains("did you mean `kubeconfig`?") && refused.contains("refused.toml:2:1"), "{refused}");
    let key = text(&Install { pulse_key: None, ..host.whole() });
    assert!(key.contains("/etc/crier/pulse.key"), "the key that the file names is missing: {key}");
    assert_eq!(fs::read_dir(host.root.path()).unwrap().count(), 0);
    install(&host.whole());
    let drop_ins = below(host.root.path(), Path::new("/etc/crier/conf.d"));
    fs::write(drop_ins.join("10-bad.toml"), "x = 1\n").unwrap();
    assert!(text(&host.whole()).contains("10-bad.toml"), "drop-ins count");
}

/// Input: a kubeconfig that nobody can use, twice. Output: the one that works is where it was, and so is the former
/// one.
#[test]
fn a_kubeconfig_that_cannot_be_used_takes_no_other_ones_place() {
    let host = Host::new();
    install(&host.whole());
    let newer = KUBECONFIG_TEXT.replace("token: t", "token: newer");
    install(&Install { kubeconfig: host.bring("newer", &newer), ..host.arguments() });
    let fails = KUBECONFIG_TEXT.replace("token: t", "tokenFile: nowhere");
    for (content, words) in [
        ("garbage", "cannot be used"),
        ("", "cannot be used"),
        (&KUBECONFIG_TEXT.replace("token: t", "exec: {command: aws}"), "\"aws\""),
        (&fails, "/etc/crier/nowhere"),
    ] {
        let kubeconfig = host.bring("bad", content);
        let refused = super::install(&Install { kubeconfig, ..host.arguments() }, b"other".to_vec());
        let error = refused.expect_err(content).to_string();
        assert!(error.contains(words) && error.contains("nothing was changed"), "{error}");
        assert_eq!(host.read(KUBECONFIG).as_deref(), Some(&*newer));
        assert_eq!(host.read("/etc/crier/kubeconfig.old").as_deref(), Some(KUBECONFIG_TEXT));
        assert_eq!(host.read(BINARY).as_deref(), Some("binary"), "{content}");
    }
}

/// Input: a kubeconfig whose client certificate has ended, beside one that works and where there is none. Output: it does not
/// take the place of the one that works; where there was none, the problem names it and its end.
#[test]
fn a_client_certificate_that_has_ended_takes_no_place_and_is_told() {
    let base64 = |text: &[u8]| serde_json::to_value(k8s_openapi::ByteString(text.to_vec())).unwrap();
    let (key, ended) = self_signed(["200101000000Z", "210101000000Z"]);
    let (ended, key) = (base64(ended.as_bytes()), base64(key.expose()));
    let user = format!("client-certificate-data: {ended}, client-key-data: {key}");
    let text = KUBECONFIG_TEXT.replace("token: t", &user);
    let words = |host: &Host| {
        let path = below(host.root.path(), Path::new(KUBECONFIG));
        format!("the client certificate in the kubeconfig {} ended on 2021-01-01T00:00:00Z", path.display())
    };
    let host = Host::new();
    install(&host.whole());
    fs::write(below(host.root.path(), Path::new(KUBECONFIG)), &text).unwrap();
    let later = install(&host.arguments());
    assert!(later.problems.iter().any(|it| it.starts_with(&words(&host))), "{:?}", later.problems);
    let host = Host::new();
    install(&host.whole());
    let kubeconfig = host.bring("ended", &text);
    let refused = super::install(&Install { kubeconfig, ..host.arguments() }, b"other".to_vec());
    let error = refused.expect_err("it has ended").to_string();
    assert!(error.contains(&words(&host)) && error.contains("nothing was changed"), "{error}");
    assert_eq!(host.read(KUBECONFIG).as_deref(), Some(KUBECONFIG_TEXT));
}

/// Input: kubeconfigs that name absolute files, which the image has, by itself or behind a link of the image, or which only
/// the host has that builds it. Output: the files of the image are judged.
#[test]
fn files_that_a_kubeconfig_names_are_those_of_the_image() {
    let host = Host::new();
    install(&host.whole());
    let put = |path: &str, content: &str| {
        let path = below(host.root.path(), Path::new(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    put("/etc/kubernetes/token", "of-the-image\n");
    put("/var/lib/real", "of-the-image\n");
    std::os::unix::fs::symlink("/var/lib/real", below(host.root.path(), Path::new("/etc/kubernetes/link"))).unwrap();
    let only_here = host.bring("token", "of this host\n").unwrap();
    for (file, is_good) in
        [("/etc/kubernetes/token", true), ("/etc/kubernetes/link", true), (only_here.to_str().unwrap(), false)]
    {
        let text = KUBECONFIG_TEXT.replace("token: t", &format!("tokenFile: {file}"));
        let kubeconfig = host.bring("newer", &text);
        match super::install(&Install { kubeconfig, ..host.arguments() }, b"binary".to_vec()) {
            Ok(outcome) => assert!(is_good && outcome.problems.is_empty(), "{file}: {:?}", outcome.problems),
            Err(error) => assert!(!is_good && error.to_string().contains(file), "{file}: {error}"),
        }
    }
}

#[test]
fn what_the_operator_wrote_is_kept() {
    let host = Host::new();
    install(&host.whole());
    let changed = host.bring("newer.toml", &format!("# newer\n{GOOD}"));
    let pulse_key = host.bring("pulse.key", "fedcba9876543210fedcba9876543210\n");
    let outcome = install(&Install { config: changed, pulse_key, kubeconfig: None, ..host.arguments() });
    assert!(host.read(CONFIG).unwrap().starts_with("# newer"), "the operator asked for it");
    assert_eq!(host.read("/etc/crier/crier.toml.old").as_deref(), Some(GOOD));
    assert_eq!(host.read(PULSE_KEY).as_deref(), Some("0123456789abcdef0123456789abcdef\n"));
    assert!(outcome.problems[0].contains("/etc/crier/pulse.key has another content"), "{:?}", outcome.problems);
    let plain = install(&host.arguments());
    assert!(!plain.changed && host.read(CONFIG).unwrap().starts_with("# newer"), "{}", plain.table);
}

#[test]
fn a_new_key_is_drawn_once() {
    let host = Host::new();
    let wanted = Install { new_pulse_key: true, pulse_key: None, ..host.whole() };
    let outcome = install(&wanted);
    assert!(outcome.notes[0].contains("give it to every other node"), "{:?}", outcome.notes);
    let key = host.read(PULSE_KEY).unwrap();
    assert_eq!((key.len(), key.trim_end().len()), (65, 64));
    assert!(!install(&wanted).changed);
    assert_eq!(host.read(PULSE_KEY).as_deref(), Some(&*key));
}

#[test]
fn the_same_unit_of_a_package_is_enough() {
    let host = Host::new();
    let unit = below(host.root.path(), Path::new(UNIT_OF_PACKAGE));
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, UNIT_TEXT).unwrap();
    install(&host.whole());
    assert_eq!(host.read(UNIT), None);
    fs::write(&unit, "[Unit]\n").unwrap();
    install(&host.whole());
    assert!(host.read(UNIT).is_some(), "the unit of another version is overridden");
}

#[test]
fn a_masked_unit_is_named_with_the_remedy_and_nothing_is_changed() {
    let host = Host::new();
    let unit = below(host.root.path(), Path::new(UNIT));
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/null", &unit).unwrap();
    let refused =
        super::install(&host.whole(), b"binary".to_vec()).expect_err("systemd starts no masked unit").to_string();
    assert!(refused.contains("the unit is masked") && refused.contains("systemctl unmask crier"), "{refused}");
    assert_eq!(host.read(CONFIG), None);
    assert!(fs::symlink_metadata(&unit).unwrap().is_symlink(), "it stays masked");
}

#[test]
fn a_file_in_the_way_of_a_folder_is_named() {
    let host = Host::new();
    fs::create_dir_all(host.root.path().join("etc")).unwrap();
    fs::write(host.root.path().join("etc/crier"), "").unwrap();
    let error = super::install(&host.arguments(), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("etc/crier"), "{error}");
    assert!(!host.root.path().join("usr").exists(), "nothing was changed");
}

#[test]
fn the_time_of_a_start_is_read_to_the_microsecond() {
    let millis = |text| time_of(text).map(|time| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis());
    assert_eq!(millis("Sun 2026-11-29 11:38:04.168037 UTC"), Some(1_795_952_284_168));
    assert_eq!((millis(""), millis("n/a"), millis("@1795952284")), (None, None, None));
}

/// Input: a host made ready without `--start`, and an agent that was started before and after that.
#[test]
fn an_agent_is_older_than_the_files_that_were_put_in_place_after_its_start() {
    let host = Host::new();
    let path = host.bring("crier.toml", GOOD).unwrap();
    let folder = Item { path: host.brought.path().to_owned(), mode: 0o755, what: What::Folder };
    let file = Item { path: path.clone(), ..folder.clone() };
    let put = fs::metadata(&path).unwrap().modified().unwrap();
    let second = Duration::from_secs(1);
    let steps = [(Step::Nothing, folder), (Step::Nothing, file)];
    assert!(is_newer(&steps, put - second));
    assert!(!is_newer(&steps, put + second));
    assert!(!is_newer(&steps[..1], put - second), "files come and go in a folder");
}

/// Pods that the node had before a reboot do not send before the guard of egress stands.
#[test]
fn the_unit_starts_before_whatever_starts_pods() {
    let before = UNIT_TEXT.lines().find_map(|line| line.strip_prefix("Before=")).unwrap_or_default();
    for name in ["kubelet", "k3s", "k3s-agent", "rke2-server", "rke2-agent"] {
        let unit = format!("{name}.service");
        assert!(before.split(' ').any(|it| it == unit), "{unit}: {before}");
        assert_eq!(UNIT_TEXT.matches(&unit).count(), 1, "an order alone: {unit}");
    }
}
