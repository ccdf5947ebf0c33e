//! Whether packets of pods bypass the host's netfilter, and so the guard of egress: by what CNIs leave on the host. Floor 2.
//!
//! Task: [`run`], owned by the caller. Cancelling it loses nothing.
//!
//! Only signs that are certain count. Calico's Felix makes the link `bpfin.cali` in eBPF mode, and removes it when it leaves that
//! mode. Cilium makes `cilium_host` in every mode, and writes into its state folder whether its eBPF host routing is on.
//! OVN-Kubernetes makes `ovn-k8s-mp0` in every mode, and writes its mode to an annotation of the Node, which the slice has. What
//! cannot be seen from the host: a CNI of another name that does the same, and Cilium's state where this account may not read it;
//! of the latter `crier doctor` says so, and of OVN-Kubernetes without the annotation `crier egress` does.
//! By the same signs, whether the CNI and not the kernel's conntrack knows the connections to Services: [`unknown_flows`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::looks::{self, Looks};
use crate::plan::slice::EgressSlice;
use crate::world::{Area, Fact, HostProblem, OvnGateway};

/// A CNI changes its mode with a restart of its agent on this node, and nothing tells of that.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One entry for each link of this network namespace.
const LINKS: &str = "proc/sys/net/ipv4/conf";

/// Calico's, today and before 3.25.
const CALICO: [&str; 2] = ["bpfin.cali", "bpfnatin"];
const CILIUM: &str = "cilium_host";

/// Cilium's settings as the headers of its programs have them.
const CILIUM_HEADER: &str = "run/cilium/state/globals/node_config.h";
const CILIUM_DEFINES: &str = "ENABLE_HOST_ROUTING";
/// The settings that its agent runs with: all it knows, in newer versions the only place.
const CILIUM_SETTINGS: &str = "run/cilium/state/agent-runtime-config.json";
const CILIUM_LEGACY: &str = "EnableHostLegacyRouting";
const CILIUM_SERVICES: &str = "KubeProxyReplacement";

/// More than either file ever has.
const MOST_OCTETS: u64 = 8 * 1024 * 1024;

/// What was seen on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that bypasses netfilter.
    Nothing,
    Calico {
        link: &'static str,
    },
    /// eBPF host routing is on, as this file says.
    Cilium {
        file: PathBuf,
    },
    /// OVN-Kubernetes is in shared gateway mode.
    Ovn,
    /// Cilium is there, and nothing tells which routing it does.
    CiliumUntold {
        why: String,
    },
}

impl Seen {
    /// Why pods cannot be guarded here, and what to do.
    fn refusal(&self) -> Option<HostProblem> {
        match self {
            Seen::Calico { link } => Some(HostProblem {
                problem: format!(
                    "Calico is in eBPF mode (the link {link} exists): packets of pods bypass the host's netfilter, so crier cannot hold \
                     them to their Service's address"
                ),
                remedy: "set spec.calicoNetwork.linuxDataplane of the Installation to Iptables or Nftables (bpfEnabled: false of \
                         the FelixConfiguration), or remove the annotation crier.dev/egress"
                    .to_owned(),
            }),
            Seen::Cilium { file } => Some(HostProblem {
                problem: format!(
                    "Cilium's eBPF host routing is on (by {}): packets of pods bypass the host's netfilter, so crier cannot hold them to \
                     their Service's address",
                    file.display()
                ),
                remedy: "set enable-host-legacy-routing: \"true\" in the ConfigMap cilium-config (bpf.hostLegacyRouting=true for \
                         Helm) and restart Cilium's agents, or remove the annotation crier.dev/egress"
                    .to_owned(),
            }),
            Seen::Ovn => Some(HostProblem {
                problem: format!(
                    "OVN-Kubernetes is in shared gateway mode (by this Node's annotation {}): packets of pods bypass the host's \
                     netfilter, so crier cannot hold them to their Service's address",
                    OvnGateway::ANNOTATION
                ),
                remedy: "set routingViaHost: true and ipForwarding: Global in spec.defaultNetwork.ovnKubernetesConfig.gatewayConfig of \
                         the object cluster of networks.operator.openshift.io (--gateway-mode=local without OpenShift), or remove the \
                         annotation crier.dev/egress"
                    .to_owned(),
            }),
            Seen::Nothing | Seen::CiliumUntold { .. } => None,
        }
    }

    /// What could not be seen, and where to look.
    fn doubt(&self) -> Option<HostProblem> {
        match self {
            Seen::CiliumUntold { why } => Some(HostProblem {
                problem: format!(
                    "Cilium is on this node, and whether its eBPF host routing is on cannot be seen ({why}): with it, packets of \
                     pods bypass the guard of egress"
                ),
                remedy:
                    "look for \"Host Routing: Legacy\" in what `cilium-dbg status` prints in the pod of Cilium's agent"
                        .to_owned(),
            }),
            Seen::Nothing | Seen::Calico { .. } | Seen::Cilium { .. } | Seen::Ovn => None,
        }
    }
}

/// Looks for as long as there are slices, while pods are held to addresses, and reports whenever something else is seen.
pub async fn run(slices: watch::Receiver<EgressSlice>, facts: mpsc::Sender<Fact>) {
    let mut reported: Option<HostProblem> = None;
    let mut looks = Looks::new(slices, LOOK_AGAIN, looks::for_pods);
    while let Some(slice) = looks.next().await {
        let found = if !slice.pods.is_empty() { look(Path::new("/"), slice.ovn_gateway).refusal() } else { None };
        if found != reported {
            match &found {
                Some(problem) => warn!(%problem, "packets of pods bypass the guard of egress"),
                None => info!("packets of pods go through the host's netfilter again"),
            }
            reported.clone_from(&found);
            if facts.send(Fact::Problems(Area::EgressBypass, found.into_iter().collect())).await.is_err() {
                return;
            }
        }
    }
}

/// What cannot be told of this host, for `crier doctor`.
pub fn doubts() -> Option<HostProblem> {
    look(Path::new("/"), None).doubt()
}

/// Why the kernel's conntrack need not know the connections to Services: the CNI translates their addresses itself.
pub fn unknown_flows(root: &Path) -> Option<String> {
    if calico(root).is_some() {
        return Some("Calico is in eBPF mode and tracks connections itself".to_owned());
    }
    if !has(root, CILIUM) {
        return None;
    }
    let settings = root.join(CILIUM_SETTINGS);
    let told = read(&settings).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let replaces = told.as_ref().and_then(|told| find(told, CILIUM_SERVICES, MOST_DEPTH));
    let is_off = replaces.is_some_and(|it| *it == Value::Bool(false) || *it == "false" || *it == "disabled");
    (!is_off).then(|| {
        format!("Cilium tracks connections itself, unless {} says that {CILIUM_SERVICES} is off", settings.display())
    })
}

fn has(root: &Path, link: &str) -> bool {
    root.join(LINKS).join(link).exists()
}

/// The link that Calico makes in eBPF mode alone.
fn calico(root: &Path) -> Option<&'static str> {
    CALICO.into_iter().find(|link| has(root, link))
}

/// What is to be seen below `root`, and is said of OVN-Kubernetes.
pub fn look(root: &Path, ovn: Option<OvnGateway>) -> Seen {
    if let Some(link) = calico(root) {
        return Seen::Calico { link };
    }
    if has(root, CILIUM) {
        return cilium(root);
    }
    // An annotation may be left from an OVN-Kubernetes that was uninstalled.
    match ovn {
        Some(OvnGateway::Shared) if has(root, OvnGateway::LINK) => Seen::Ovn,
        Some(OvnGateway::Shared | OvnGateway::Local) | None => Seen::Nothing,
    }
}

fn cilium(root: &Path) -> Seen {
    let (header, settings) = (root.join(CILIUM_HEADER), root.join(CILIUM_SETTINGS));
    // The header says yes or nothing: newer versions do not write the define at all.
    let defines = |text: String| {
        let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
        text.lines().any(|line| words(line) == ["#define", CILIUM_DEFINES])
    };
    if read(&header).is_ok_and(defines) {
        return Seen::Cilium { file: header };
    }
    let why = match read(&settings).map(|text| serde_json::from_str::<Value>(&text)) {
        Ok(Ok(value)) => match find(&value, CILIUM_LEGACY, MOST_DEPTH).and_then(Value::as_bool) {
            Some(false) => return Seen::Cilium { file: settings },
            Some(true) => return Seen::Nothing,
            None => format!("{} does not have {CILIUM_LEGACY}", settings.display()),
        },
        Ok(Err(error)) => format!("{} is no JSON: {error}", settings.display()),
        Err(error) => format!("{}: {error}", settings.display()),
    };
    Seen::CiliumUntold { why }
}

/// How deep the settings are looked through: they are one map of maps.
const MOST_DEPTH: u32 = 3;

/// The first value of this name.
fn find<'a>(value: &'a Value, name: &str, depth: u32) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(name).or_else(|| map.values().find_map(|it| find(it, name, depth.checked_sub(1)?)))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_OCTETS).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is seen of a host with these links and files.
    fn seen(links: &[&str], files: &[(&str, &str)]) -> (Seen, PathBuf) {
        let root = host(links, files);
        (look(root.path(), None), root.path().to_owned())
    }

    fn host(links: &[&str], files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for link in links {
            fs::create_dir_all(root.path().join(LINKS).join(link)).unwrap();
        }
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

    #[test]
    fn only_certain_signs_are_a_bypass() {
        let header = "#ifndef H\n#define ENABLE_IPV4 1\n#define ENABLE_HOST_ROUTING 1\n";
        let named_alike = "#define ENABLE_HOST_ROUTING_NOT 1\n// #define ENABLE_HOST_ROUTING 1\n";
        let fast = r#"{"EnableIPv4": true, "UnsafeDaemonConfigOption": {"EnableHostLegacyRouting": false}}"#;
        let slow = r#"{"EnableHostLegacyRouting": true}"#;
        // Links, files; the word for what is seen.
        let table: [Case<'_>; 10] = [
            (&["eth0", "cni0"], &[], "Nothing"),
            (&["eth0", "cali0a1b2c3d"], &[], "Nothing"),
            (&["eth0", "bpfin.cali", "bpfout.cali"], &[], "Calico"),
            (&["eth0", "bpfnatin"], &[], "Calico"),
            (&["cilium_host"], &[(CILIUM_HEADER, header)], "Cilium"),
            (&["cilium_host"], &[(CILIUM_HEADER, named_alike), (CILIUM_SETTINGS, slow)], "Nothing"),
            (&["cilium_host"], &[(CILIUM_SETTINGS, fast)], "Cilium"),
            (&["cilium_host"], &[(CILIUM_SETTINGS, "{")], "CiliumUntold"),
            (&["cilium_host"], &[], "CiliumUntold"),
            // What an uninstalled Cilium left.
            (&["eth0"], &[(CILIUM_HEADER, header), (CILIUM_SETTINGS, fast)], "Nothing"),
        ];
        for (links, files, expected) in table {
            let (seen, _) = seen(links, files);
            let word = format!("{seen:?}");
            assert_eq!(word.split(' ').next(), Some(expected), "{links:?} {files:?}: {seen:?}");
            let refuses = matches!(seen, Seen::Calico { .. } | Seen::Cilium { .. });
            assert_eq!(seen.refusal().is_some(), refuses, "{seen:?}");
            assert_eq!(seen.doubt().is_some(), expected == "CiliumUntold", "{seen:?}");
        }
    }

    /// Input: OVN-Kubernetes' link, and the mode in the Node's annotation.
    #[test]
    fn ovn_kubernetes_in_shared_gateway_mode_is_a_bypass() {
        let (shared, local) = (Some(OvnGateway::Shared), Some(OvnGateway::Local));
        let look = |links: &[&str], mode| look(host(links, &[]).path(), mode);
        let ovn: &[&str] = &["eth0", "br-ex", OvnGateway::LINK];
        assert_eq!([shared, local, None].map(|mode| look(ovn, mode)), [Seen::Ovn, Seen::Nothing, Seen::Nothing]);
        assert_eq!(look(&["eth0"], shared), Seen::Nothing, "the annotation is left of what was uninstalled");
        let problem = Seen::Ovn.refusal().expect("a bypass").to_string();
        assert!(problem.contains(OvnGateway::ANNOTATION) && problem.contains("routingViaHost: true"), "{problem}");
        assert_eq!(Seen::Ovn.doubt(), None);
    }

    /// What a drain counts.
    #[test]
    fn connections_are_the_cnis_where_it_translates_services_itself() {
        let unknown = |links: &[&str], settings: &str| {
            let files = [(CILIUM_SETTINGS, settings)];
            unknown_flows(host(links, if settings.is_empty() { &[] } else { &files }).path()).is_some()
        };
        let table: [(&[&str], &str, bool); 7] = [
            (&["eth0"], "", false),
            (&["bpfin.cali"], "", true),
            (&["cilium_host"], "", true),
            (&["cilium_host"], r#"{"EnableHostLegacyRouting": true, "KubeProxyReplacement": "true"}"#, true),
            (&["cilium_host"], r#"{"EnableHostLegacyRouting": false, "KubeProxyReplacement": true}"#, true),
            (&["cilium_host"], r#"{"EnableHostLegacyRouting": true, "KubeProxyReplacement": "false"}"#, false),
            (&["cilium_host"], r#"{"EnableHostLegacyRouting": false, "KubeProxyReplacement": false}"#, false),
        ];
        for (links, settings, expected) in table {
            assert_eq!(unknown(links, settings), expected, "{links:?} {settings}");
        }
    }

    #[test]
    fn a_refusal_names_the_sign_and_the_remedy() {
        let (found, root) = seen(&["cilium_host"], &[(CILIUM_HEADER, "#define ENABLE_HOST_ROUTING 1\n")]);
        let problem = found.refusal().expect("a bypass").to_string();
        let file = root.join(CILIUM_HEADER).display().to_string();
        assert!(problem.contains(&file) && problem.contains("enable-host-legacy-routing"), "{problem}");
        let (found, _) = seen(&["bpfin.cali"], &[]);
        let problem = found.refusal().expect("a bypass").to_string();
        assert!(problem.contains("bpfin.cali") && problem.contains("linuxDataplane"), "{problem}");
    }

    #[test]
    fn a_file_of_others_is_read_to_a_bound_and_nested_without_end_is_no_matter() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(100), "1".to_owned() + &"}".repeat(100));
        let (found, _) = seen(&["cilium_host"], &[(CILIUM_SETTINGS, &deep)]);
        assert!(matches!(&found, Seen::CiliumUntold { why } if why.contains(CILIUM_LEGACY)), "{found:?}");
        let (found, _) = seen(&["cilium_host"], &[(CILIUM_SETTINGS, &r#"{"a":"#.repeat(100_000))]);
        assert!(matches!(found, Seen::CiliumUntold { .. }), "{found:?}");
    }
}
