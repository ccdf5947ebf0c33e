//! The ConfigMap `kubevip` of kube-vip's cloud provider: ranges by namespace; and kube-vip's annotations on Services. Floor 1.
//! Whether kube-vip announces by ARP or BGP, and to whom, stands in its DaemonSet and is not read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::annotate::{Annotations, joined, listed};
use super::draft::{Draft, Table, texts};
use super::metallb_pool::{announcing, range};
use super::object::Object;
use super::shown::shortened;
use crate::address::host_prefix;
use crate::k8s::annotation::{ADDRESSES, EGRESS, EGRESS_EXCEPT, EGRESS_TO, SERVICE_ADDRESS};

/// Whose pools these are.
const KUBE_VIP: &str = "kube-vip";

/// The part of a key that stands for all namespaces.
const GLOBAL: &str = "global";

/// What kube-vip is told to ask DHCP with.
const DHCP: [&str; 2] = ["0.0.0.0", "0.0.0.0/32"];

/// The class of Services that kube-vip serves where it was told none.
pub(super) const CLASS: &str = "kube-vip.io/kube-vip-class";

/// What kube-vip takes for true.
pub(super) const TRUE: [&str; 6] = ["1", "t", "T", "true", "TRUE", "True"];

/// kube-vip's annotations.
const PREFIX: &str = "kube-vip.io/";

/// Translates kube-vip's ConfigMap. Returns which objects were of use.
pub(super) fn translate(objects: &[Object], draft: &mut Draft) -> Vec<usize> {
    let ours = |(_, object): &(usize, &Object)| {
        object.kind == "ConfigMap" && object.group.is_empty() && object.name == "kubevip"
    };
    let mut used = Vec::new();
    for (at, object) in objects.iter().enumerate().filter(ours) {
        used.push(at);
        pools(object, draft);
    }
    used
}

fn pools(object: &Object, draft: &mut Draft) {
    let label = object.label();
    let data = object.value.get("data").and_then(|data| data.as_object());
    // The pools by the interface that their Services are announced on; empty for any.
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let interface = |scope: &str| {
        let of =
            |scope: &str| data?.get(&format!("interface-{scope}"))?.as_str().map(str::trim).filter(|it| !it.is_empty());
        of(scope).or_else(|| of(GLOBAL)).unwrap_or_default()
    };
    for (key, value) in data.into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let shown = shortened(&format!("{value:?}"));
        match key.split_once('-') {
            Some(("cidr" | "range", scope)) if !scope.is_empty() => {
                let cidr = |of: &str| data.is_some_and(|data| data.contains_key(&format!("cidr-{of}")));
                let is_passed_over = key.starts_with("range") && (cidr(scope) || cidr(GLOBAL));
                let name = pool(&label, (key, scope), value, is_passed_over, draft);
                names.entry(interface(scope)).or_default().extend(name);
            }
            Some(("interface", scope)) if !scope.is_empty() => {}
            Some(("allow", _)) if key.starts_with("allow-share-") => {
                if TRUE.contains(&value) {
                    let text = "kube-vip gives one address to Services whose ports differ; crier does so for those with the same \
                                crier.dev/share: give it to new Services too. Those that share an address now have it at the end of the \
                                file";
                    draft.leave_out(&label, &format!("data.{key}"), &shown, text);
                }
            }
            _ => {
                let text = "crier has no counterpart; see doc/migrate.md";
                draft.leave_out(&label, &format!("data.{key}"), &shown, text);
            }
        }
    }
    names.retain(|_, names| !names.is_empty());
    if !names.is_empty() {
        let text = "kube-vip says in its DaemonSet whether it uses ARP or BGP: for BGP, write [[bgp.peer]] and \
                    [[bgp.advertisement]] instead of [[l2]]";
        draft.leave_out(&label, "data", "", text);
    }
    for (interface, names) in names {
        let mut table = announcing(&names, &label);
        if !interface.is_empty() {
            table.narrow("interfaces", texts(&[interface]), "data.interface");
        }
        draft.push(table);
    }
}

/// A pool of one key; none if nothing of it can be used. `is_passed_over`: kube-vip looks for a CIDR of the namespace, then for the
/// global one, and only then for a range.
fn pool(
    label: &str,
    (key, scope): (&str, &str),
    value: &str,
    is_passed_over: bool,
    draft: &mut Draft,
) -> Option<String> {
    let mut table = Table::new("pool", label);
    let path = format!("data.{key}");
    let name = draft.name(&mut table, key, &path);
    draft.know(KUBE_VIP, key, &name);
    let mut ranges = Vec::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let shown = shortened(&format!("{part:?}"));
        match range(part) {
            _ if DHCP.contains(&part) => {
                table.check(draft, &path, &shown, "crier does not ask DHCP for addresses; write a range");
            }
            Ok((range, _)) => ranges.push(range),
            Err(problem) => table.check(draft, &path, &shown, &format!("{problem}; these addresses were left out")),
        }
    }
    let found = !ranges.is_empty();
    if !found {
        table.check(draft, &path, "", "the pool has no addresses that crier can use; it is a comment");
        table.off = true;
    }
    table.set("addresses", texts(&ranges), &path);
    if is_passed_over {
        let text = "kube-vip gives no address of it, because it finds a CIDR before; here Services get one only if they request it";
        table.check(draft, &path, "", text);
        table.set("auto-assign", "false".to_owned(), &path);
    }
    if scope != GLOBAL {
        // kube-vip looks at the namespace's own addresses first.
        table.set("priority", "100".to_owned(), &path);
        table.narrow("namespaces", texts(&[scope]), &path);
    }
    draft.push(table);
    found.then_some(name)
}

/// The annotations of a Service. Whether it has any of kube-vip's.
pub(super) fn service(object: &Object, annotations: &mut Annotations, draft: &mut Draft) -> bool {
    let of_kube_vip = object.texts_of_metadata("annotations");
    let all: Vec<(&str, &str)> =
        of_kube_vip.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.trim()))).collect();
    let wants_egress = all.contains(&("egress", "true"));
    let mut is_unbounded = false;
    if wants_egress {
        annotations.set(EGRESS, SERVICE_ADDRESS.to_owned());
    }
    for (key, value) in &all {
        let path = format!("metadata.annotations.{PREFIX}{}", shortened(key));
        let shown = shortened(&format!("{value:?}"));
        let mut check = |text: &str, annotations: &mut Annotations| annotations.check(draft, &path, &shown, text);
        match *key {
            "loadbalancerIPs" => match listed(value, str::parse::<IpAddr>) {
                Ok(addresses) if addresses.iter().any(IpAddr::is_unspecified) => {
                    check(
                        "crier does not ask DHCP for addresses; remove it, or name an address of a pool",
                        annotations,
                    );
                }
                Ok(addresses) => annotations.set(ADDRESSES, joined(&addresses)),
                Err(part) => check(&format!("{part} is not an IP address; it was left out"), annotations),
            },
            "egress-allowed-networks" | "egress-denied-networks" if wants_egress => match listed(value, network) {
                Ok(nets) if nets.is_empty() => {}
                Ok(nets) => {
                    let name = if *key == "egress-allowed-networks" { EGRESS_TO } else { EGRESS_EXCEPT };
                    annotations.set(name, joined(&nets));
                }
                Err(part) => {
                    let text = format!(
                        "{part} is neither an address nor a CIDR: without the list more would leave with the Service's address, so all \
                         that the Service says of egress was left out"
                    );
                    check(&text, annotations);
                    is_unbounded = true;
                }
            },
            "egress-destination-ports" | "egress-source-ports" if wants_egress => {
                let text = "crier bounds egress by nodes and destinations, not by ports: connections by all ports get the \
                            Service's address";
                check(text, annotations);
            }
            "egress-detect-api-server" if wants_egress && *value == "true" => {
                let text = "kube-vip adds the API server to the allowed networks; where its address is no Node's, name it in \
                            crier.dev/egress-to";
                check(text, annotations);
            }
            "egress-ipv6" if wants_egress && *value == "true" => {
                check(
                    "crier gives the Service's address of each family that the Service has, not of IPv6 alone",
                    annotations,
                );
            }
            "egress" if !wants_egress && !matches!(*value, "" | "false") => {
                check(
                    "kube-vip takes only \"true\" for true, so nothing leaves with the Service's address",
                    annotations,
                );
            }
            "ignore" if *value == "true" => {
                check("crier serves the Service all the same; give it another spec.loadBalancerClass", annotations);
            }
            "ignore" | "egress-ipv6" => {}
            "serviceInterface" => {
                let text = "write an [[l2]] with these interfaces and a service-selector, or a pool with a vrf";
                check(text, annotations);
            }
            "leaseName" => check("Services that are to share one address need one crier.dev/share", annotations),
            // What an egress annotation without kube-vip.io/egress says; what kube-vip writes itself; and what crier does, or does not
            // need, without being told.
            "egress"
            | "egress-allowed-networks"
            | "egress-denied-networks"
            | "egress-destination-ports"
            | "egress-source-ports"
            | "egress-detect-api-server"
            | "egress-internal"
            | "egress-no-internal-traffic"
            | "egress-nftables-table"
            | "flush-conntrack"
            | "active-endpoint"
            | "active-endpoint-ipv6"
            | "vipHost"
            | "hwaddr"
            | "requestedIP"
            | "forcePerServiceElection"
            | "allow-reconcile-without-endpoints"
            | "ignore-service-security"
            | "rp_filter" => {}
            _ => check("crier has no counterpart", annotations),
        }
    }
    if is_unbounded {
        [EGRESS, EGRESS_TO, EGRESS_EXCEPT].into_iter().for_each(|name| annotations.forgo(name));
    }
    let asked = object.value.get("spec").and_then(|spec| spec.get("loadBalancerIP")).and_then(Value::as_str);
    let asked = asked.filter(|asked| asked.trim().parse().is_ok_and(|address: IpAddr| address.is_unspecified()));
    if let Some(asked) = asked {
        let text = "crier does not ask DHCP for addresses, and refuses the Service as long as it names this one; remove it, or \
                    name an address of a pool";
        annotations.check(draft, "spec.loadBalancerIP", &shortened(&format!("{asked:?}")), text);
    }
    !all.is_empty() || asked.is_some()
}

fn network(part: &str) -> Result<IpNet, std::net::AddrParseError> {
    part.parse::<IpNet>().map(|net| net.trunc()).or_else(|_| part.parse::<IpAddr>().map(host_prefix))
}
