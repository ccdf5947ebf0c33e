//! What a Service asks for: its annotations of both families, and `spec.loadBalancerIP`.
//! Floor 1. Whether the request can be met is decided by the plan, not here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::{Family, host_prefix, mapped_v4};
use crate::config::duration;
use crate::names::{NodeName, ObjectKey, PoolName};
use crate::selector::{Selector, SelectorProblem};
use crate::world::{Destinations, Egress, EgressBounds, OvnGateway, PoolsTold, Renumber, Request, RequestError};

/// crier's own prefix; an unknown name below it is refused.
const OWN: &str = "crier.dev/";
/// MetalLB's prefixes, the current one first.
const METALLB: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

pub const ADDRESSES: &str = "crier.dev/addresses";
pub const POOL: &str = "crier.dev/pool";
pub const SHARE: &str = "crier.dev/share";
pub const EGRESS: &str = "crier.dev/egress";
const RENUMBER: &str = Renumber::ANNOTATION;
/// The node that goes first for the addresses on the link; `crier move` writes it.
pub const NODE: &str = "crier.dev/node";
/// What crier writes itself.
const OUTPUT: &str = "crier.dev/ip-allocated-from-pool";
/// The same, as MetalLB's users know it.
const METALLB_OUTPUT: &str = "metallb.io/ip-allocated-from-pool";
/// The annotations that say which pool the addresses are from.
pub const POOL_OUTPUTS: [&str; 2] = [OUTPUT, METALLB_OUTPUT];
const SHARED: &str = "allow-shared-ip";
/// The value of [`EGRESS`] with which outbound connections of the pods leave with the Service's address.
pub const SERVICE_ADDRESS: &str = "service-ip";
/// The value that has it leave by the network of the Service's address.
pub const NETWORK: &str = "network";
pub const EGRESS_NODES: &str = "crier.dev/egress-nodes";
pub const EGRESS_TO: &str = "crier.dev/egress-to";
pub const EGRESS_EXCEPT: &str = "crier.dev/egress-except";
/// What bounds egress, and says nothing by itself.
const EGRESS_BOUNDS: [&str; 3] = [EGRESS_NODES, EGRESS_TO, EGRESS_EXCEPT];
const OWN_NAMES: [&str; 9] = [ADDRESSES, POOL, SHARE, NODE, RENUMBER, EGRESS, EGRESS_NODES, EGRESS_TO, EGRESS_EXCEPT];

/// Destinations in one list: every node's kernel holds each of them.
const MOST_DESTINATIONS: usize = 100;

/// Characters of a selector of nodes.
const LONGEST_SELECTOR: usize = 2000;

/// Characters of a value that are repeated when it cannot be read.
const MOST_SHOWN: usize = 120;

/// Characters of a sentence about it: more than any of ours has by itself.
const LONGEST_PROBLEM: usize = 500;

/// No name of a pool is longer: it would have to be a DNS subdomain.
const LONGEST_POOL: usize = 253;

/// So many pools may one Service name. Anybody may write a Service, and every agent looks for an address in each of them.
const MOST_POOLS: usize = 64;

const SPEC_ADDRESS: &str = "spec.loadBalancerIP";

/// An annotation that is to be written to a Service as it is in this version, and to no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotate {
    pub service: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    pub name: &'static str,
    /// `None` takes the annotation away.
    pub value: Option<String>,
}

/// Whether crier reads the annotation of this name; all others are skipped.
pub fn is_read(name: &str) -> bool {
    name.starts_with(OWN) || name == OvnGateway::ANNOTATION || METALLB.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads what a Service asks for. `crier.dev/` overrides `metallb.io/`, and `metallb.io/` overrides
/// `metallb.universe.tf/`. MetalLB's own output, `ip-allocated-from-pool`, and any other name below its prefixes are
/// ignored.
pub fn request(
    annotations: Option<&BTreeMap<String, String>>,
    spec_address: Option<&str>,
) -> Result<Request, RequestError> {
    let none = BTreeMap::new();
    let annotations = annotations.unwrap_or(&none);
    refuse_unknown(annotations)?;
    read_egress(annotations)?;
    let pools = match first(annotations, POOL, "address-pool") {
        Some((field, pools)) => parse_pools(&field, pools)?,
        None => Vec::new(),
    };
    Ok(Request { addresses: addresses(annotations, spec_address)?, pools })
}

fn addresses(annotations: &BTreeMap<String, String>, spec_address: Option<&str>) -> Result<Vec<IpAddr>, RequestError> {
    let annotated = match first(annotations, ADDRESSES, "loadBalancerIPs") {
        Some((field, text)) => Some((parse_addresses(&field, text)?, field)),
        None => None,
    };
    let spec = match spec_address.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Some(vec![parse_address(SPEC_ADDRESS, text, text)?]),
        None => None,
    };
    match (annotated, spec) {
        (Some((addresses, field)), Some(spec)) if addresses != spec => {
            Err(RequestError::Contradiction { first: field, second: SPEC_ADDRESS.to_owned() })
        }
        (Some((addresses, _)), _) => Ok(addresses),
        (None, spec) => Ok(spec.unwrap_or_default()),
    }
}

/// What the annotations that crier writes say of the pools.
pub fn pools_told(annotations: Option<&BTreeMap<String, String>>) -> PoolsTold {
    let value = |name: &str| annotations.and_then(|annotations| annotations.get(name)).map(String::as_str);
    match POOL_OUTPUTS.map(value) {
        [None, None] => PoolsTold::Nothing,
        [Some(own), Some(metallb)] if own == metallb => PoolsTold::Same(own.into()),
        [_, _] => PoolsTold::Different,
    }
}

/// The sharing key: Services with the same one may have one address. `crier.dev/share` counts before MetalLB's, also where it is
/// empty; an empty key is none.
///
/// It is read apart from the request, so that a request that cannot be read takes no address away that is shared.
pub fn sharing_key(annotations: Option<&BTreeMap<String, String>>) -> Option<&str> {
    let (_, key) = first(annotations?, SHARE, SHARED)?;
    Some(key).filter(|key| !key.trim().is_empty())
}

/// Which addresses the Service is to give up, and how long they stay beside the new ones: `192.0.2.1,fd00::1 for 10m`.
pub fn renumber(annotations: Option<&BTreeMap<String, String>>) -> Result<Option<Renumber>, RequestError> {
    let Some(text) = annotations.and_then(|annotations| annotations.get(RENUMBER)) else { return Ok(None) };
    let hint = "write the addresses to give up and for how long they stay: 192.0.2.1 for 10m";
    let (addresses, overlap) = text.split_once(" for ").ok_or_else(|| malformed(RENUMBER, text, hint))?;
    let overlap = duration::parse(overlap.trim()).map_err(|error| malformed(RENUMBER, text, error.to_string()))?;
    if overlap > Renumber::LONGEST_OVERLAP {
        let most = duration::text(Renumber::LONGEST_OVERLAP);
        return Err(malformed(RENUMBER, text, format!("the overlap is longer than {most}")));
    }
    let parts = addresses.split(',');
    if parts.clone().count() > MOST_RENUMBERED {
        return Err(malformed(RENUMBER, text, format!("at most {MOST_RENUMBERED} addresses are given up at once")));
    }
    let leaving = parts.map(|part| parse_address(RENUMBER, text, part.trim())).collect::<Result<_, _>>()?;
    Ok(Some(Renumber { leaving, overlap }))
}

/// The node that goes first for the addresses on the link; `None` where no annotation names one. A name that no Node has means
/// nothing.
pub fn node(annotations: Option<&BTreeMap<String, String>>) -> Option<NodeName> {
    let name = annotations?.get(NODE)?.trim();
    (!name.is_empty()).then(|| name.into())
}

/// What [`renumber`] reads.
pub fn renumbering(Renumber { leaving, overlap }: &Renumber) -> String {
    let addresses: Vec<String> = leaving.iter().map(IpAddr::to_string).collect();
    format!("{} for {}", addresses.join(","), duration::text(*overlap))
}

/// One of each family of two pools, or of two renumberings at once. Each is an address that the Service has beside those it is given, so
/// more would be a way to as many as one likes.
const MOST_RENUMBERED: usize = 4;

/// The annotation that applies, with its name: crier's own, else MetalLB's unless its value is empty.
fn first<'a>(annotations: &'a BTreeMap<String, String>, own: &str, metallb: &str) -> Option<(String, &'a str)> {
    if let Some(value) = annotations.get(own) {
        return Some((own.to_owned(), value));
    }
    METALLB.iter().map(|prefix| format!("{prefix}{metallb}")).find_map(|name| {
        let value = annotations.get(&name).filter(|value| !value.trim().is_empty())?;
        Some((name, value.as_str()))
    })
}

fn refuse_unknown(annotations: &BTreeMap<String, String>) -> Result<(), RequestError> {
    // First the one that closes egress, for the complaint is to say so.
    let first = misspelt_egress(annotations).or_else(|| unknown(annotations).next());
    let Some((name, value)) = first else { return Ok(()) };
    Err(match nearest(name) {
        Some(known) => {
            let problem = format!("there is no such annotation; did you mean {known}?");
            if is_about_egress(known) { closed(name, value, problem) } else { malformed(name, value, problem) }
        }
        None => {
            let problem = format!("there is no such annotation; those that exist are {}", OWN_NAMES.join(", "));
            malformed(name, value, problem)
        }
    })
}

/// The annotations with names of ours that mean nothing.
fn unknown(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    let is_known = |name: &str| name == OUTPUT || OWN_NAMES.contains(&name);
    annotations.iter().filter(move |(name, _)| name.starts_with(OWN) && !is_known(name))
}

/// One of them that is most probably an annotation about egress, or the first one behind those that are looked at: anybody may
/// write thousands into a Service, and every agent reads them with each change of it.
fn misspelt_egress(annotations: &BTreeMap<String, String>) -> Option<(&String, &String)> {
    let is_egress = |(name, _): &(&String, &String)| nearest(name).is_some_and(is_about_egress);
    unknown(annotations).take(MOST_UNKNOWN).find(is_egress).or_else(|| unknown(annotations).nth(MOST_UNKNOWN))
}

/// What may be meant by a name of ours that means nothing.
fn nearest(name: &str) -> Option<&'static str> {
    // A name of another length has as many mistakes at least. Those that exist are ASCII.
    let letters = name.chars().count();
    let is_near = |known: &&&str| known.len().abs_diff(letters) <= MOST_MISTAKES;
    let distances = OWN_NAMES.iter().filter(is_near).map(|known| (strsim::damerau_levenshtein(name, known), *known));
    distances.min().filter(|(distance, _)| *distance <= MOST_MISTAKES).map(|(_, known)| known)
}

fn is_about_egress(name: &str) -> bool {
    name == EGRESS || EGRESS_BOUNDS.contains(&name)
}

/// Letters.
const MOST_MISTAKES: usize = 3;

/// So many names of ours that mean nothing are compared with those that exist. Nobody misspells more.
const MOST_UNKNOWN: usize = 16;

/// How outbound connections of the pods are to leave the cluster, and what bounds that. A Service whose annotations about egress cannot be met
/// is closed: its user relies on a source address that the packets would not have.
pub fn egress(annotations: Option<&BTreeMap<String, String>>) -> Option<(Egress, Option<Arc<EgressBounds>>)> {
    match read_egress(annotations?) {
        Ok(None) => None,
        Ok(Some((egress, bounds))) => Some((egress, (bounds != EgressBounds::default()).then(|| Arc::new(bounds)))),
        Err(_) => Some((Egress::Closed, None)),
    }
}

fn read_egress(annotations: &BTreeMap<String, String>) -> Result<Option<(Egress, EgressBounds)>, RequestError> {
    if misspelt_egress(annotations).is_some() {
        refuse_unknown(annotations)?;
    }
    let bound = EGRESS_BOUNDS.into_iter().find_map(|name| Some((name, annotations.get(name)?)));
    let egress = match (annotations.get(EGRESS).map(|value| value.trim()), bound) {
        (None, None) => return Ok(None),
        (None, Some((name, value))) => {
            return Err(closed(
                name,
                value,
                format!("it means nothing without {EGRESS}: {SERVICE_ADDRESS} or {NETWORK}"),
            ));
        }
        (Some(SERVICE_ADDRESS), _) => Egress::ServiceAddress,
        (Some(NETWORK), _) => Egress::Network,
        (Some(other), _) => return Err(closed(EGRESS, other, format!("write {SERVICE_ADDRESS} or {NETWORK}"))),
    };
    let nodes = annotations.get(EGRESS_NODES).map(|text| parse_nodes(text)).transpose()?;
    let list = |name: &str| annotations.get(name).map(|text| parse_destinations(name, text)).transpose();
    let (to, except) = (list(EGRESS_TO)?, list(EGRESS_EXCEPT)?);
    let destinations = (to.is_some() || except.is_some())
        .then(|| Destinations { to: to.unwrap_or_default(), except: except.unwrap_or_default() });
    Ok(Some((egress, EgressBounds { nodes, destinations: destinations.map(Arc::new) })))
}

fn parse_nodes(text: &str) -> Result<Selector, RequestError> {
    if text.len() > LONGEST_SELECTOR {
        let problem = format!("no selector is longer than {LONGEST_SELECTOR} characters");
        return Err(closed(EGRESS_NODES, text, problem));
    }
    text.parse::<Selector>().map_err(|error| {
        let hint = match error.problem {
            SelectorProblem::Empty => "remove the annotation to have any node",
            _ => error.hint(),
        };
        closed(EGRESS_NODES, text, format!("{error}; {hint}"))
    })
}

/// Addresses and CIDRs separated by commas, spaces allowed, of both families; in order, none twice.
fn parse_destinations(field: &str, text: &str) -> Result<Vec<IpNet>, RequestError> {
    let parts = text.split(',').map(str::trim);
    let count = parts.clone().count();
    if count > MOST_DESTINATIONS {
        let problem =
            format!("it names {count} destinations; {MOST_DESTINATIONS} are the most, so join some to a CIDR");
        return Err(closed(field, text, problem));
    }
    let mut nets = parts.map(|part| parse_destination(field, text, part)).collect::<Result<Vec<IpNet>, _>>()?;
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

fn parse_destination(field: &str, text: &str, part: &str) -> Result<IpNet, RequestError> {
    let net = part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(host_prefix));
    match net {
        Some(net) if mapped_v4(net.addr()).is_some() => {
            Err(closed(field, text, format!("{net} is no destination of any packet; write it as IPv4")))
        }
        Some(net) => Ok(net.trunc()),
        None if part.is_empty() => Err(closed(field, text, "a destination is missing; write 192.0.2.0/24, fd00::/8")),
        None => {
            let part = shortened(part, MOST_SHOWN);
            Err(closed(field, text, format!("\"{part}\" is neither an address nor a CIDR")))
        }
    }
}

/// An annotation about egress that cannot be read, and what follows from that.
fn closed(field: &str, value: &str, problem: impl Into<String>) -> RequestError {
    let problem = shortened(&problem.into(), LONGEST_PROBLEM / 2);
    let then = if problem.ends_with('?') { " Until" } else { "; until" };
    malformed(field, value, format!("{problem}{then} then outbound connections of the pods are held back"))
}

/// Names separated by commas, spaces allowed.
fn parse_pools(field: &str, text: &str) -> Result<Vec<PoolName>, RequestError> {
    let count = text.split(',').count();
    if count > MOST_POOLS {
        return Err(malformed(field, text, format!("it names {count} pools; {MOST_POOLS} are the most")));
    }
    let mut pools: Vec<PoolName> = Vec::new();
    for name in text.split(',').map(str::trim) {
        if name.is_empty() {
            return Err(malformed(field, text, "name a pool, or remove it to have any"));
        }
        if name.len() > LONGEST_POOL {
            return Err(malformed(field, text, format!("no name of a pool is longer than {LONGEST_POOL} characters")));
        }
        let pool = PoolName::from(name);
        if pools.contains(&pool) {
            return Err(malformed(field, text, format!("it names the pool {name} twice")));
        }
        pools.push(pool);
    }
    Ok(pools)
}

/// Addresses separated by commas, spaces allowed; at most one address of each family.
fn parse_addresses(field: &str, text: &str) -> Result<Vec<IpAddr>, RequestError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',') {
        let address = parse_address(field, text, part.trim())?;
        let family = Family::of(address);
        if addresses.iter().any(|other| Family::of(*other) == family) {
            return Err(malformed(
                field,
                text,
                format!("it names two {family} addresses; one of each family is the most"),
            ));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn parse_address(field: &str, text: &str, part: &str) -> Result<IpAddr, RequestError> {
    match part.parse() {
        // No pool can have it, and no Service: what is meant is the other one.
        Ok(address) => match mapped_v4(address) {
            Some(v4) => Err(malformed(field, text, format!("write {v4}, not {address}"))),
            None => Ok(address),
        },
        Err(_) if part.is_empty() => {
            Err(malformed(field, text, "an address is missing; write 192.0.2.1 or 192.0.2.1,fd00::1"))
        }
        Err(_) => Err(malformed(field, text, format!("\"{part}\" is not an IP address"))),
    }
}

/// Whoever may write an annotation may write a megabyte into it: what is said of it stays short.
fn malformed(field: &str, value: &str, problem: impl Into<String>) -> RequestError {
    let (field, value) = (shortened(field, MOST_SHOWN), shortened(value, MOST_SHOWN));
    RequestError::Malformed { field, value, problem: shortened(&problem.into(), LONGEST_PROBLEM) }
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)], spec_address: Option<&str>) -> Result<Request, RequestError> {
        let annotations = annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        request(Some(&annotations), spec_address)
    }

    fn granted(annotations: &[(&str, &str)], spec_address: Option<&str>) -> (Vec<String>, Option<String>) {
        let Request { addresses, pools } = read(annotations, spec_address).expect("a request that can be read");
        let pools: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
        let pools = (!pools.is_empty()).then(|| pools.join(" "));
        (addresses.iter().map(IpAddr::to_string).collect(), pools)
    }

    fn refused(annotations: &[(&str, &str)], spec_address: Option<&str>) -> String {
        read(annotations, spec_address).expect_err("a request that cannot be read").to_string()
    }

    #[test]
    fn a_service_without_a_request_accepts_any_address() {
        assert_eq!(request(None, None), Ok(Request::default()));
        assert_eq!(read(&[], Some("")), Ok(Request::default()));
    }

    #[test]
    fn each_spelling_of_a_request_is_understood() {
        // Annotation, its value, spec.loadBalancerIP; the addresses asked for, the pool asked for.
        let table = [
            ("crier.dev/addresses", "192.0.2.1", "", "192.0.2.1", ""),
            ("crier.dev/addresses", " fd00::1 , 192.0.2.1", "", "fd00::1 192.0.2.1", ""),
            ("metallb.io/loadBalancerIPs", "192.0.2.1,fd00::1", "", "192.0.2.1 fd00::1", ""),
            ("metallb.universe.tf/loadBalancerIPs", "192.0.2.1", "", "192.0.2.1", ""),
            ("unrelated", "", "192.0.2.1", "192.0.2.1", ""),
            ("crier.dev/pool", "lan", "", "", "lan"),
            ("metallb.io/address-pool", "lan", "", "", "lan"),
            ("crier.dev/pool", "lan , wan", "", "", "lan wan"),
            ("metallb.universe.tf/address-pool", "lan", "", "", "lan"),
            ("metallb.io/ip-allocated-from-pool", "lan", "", "", ""),
            ("metallb.io/loadBalancerIPs", "", "192.0.2.1", "192.0.2.1", ""),
            ("metallb.io/allow-shared-ip", "", "", "", ""),
        ];
        for (name, value, spec, addresses, pool) in table {
            let (seen, seen_pool) = granted(&[(name, value)], Some(spec));
            assert_eq!(seen.join(" "), addresses, "addresses of {name}: \"{value}\" and {spec:?}");
            assert_eq!(seen_pool.unwrap_or_default(), pool, "pool of {name}: \"{value}\"");
        }
    }

    #[test]
    fn our_annotation_goes_before_metallbs_and_its_new_prefix_before_its_old() {
        let three = [
            ("crier.dev/pool", "a"),
            ("metallb.io/address-pool", "b"),
            ("metallb.universe.tf/address-pool", "c"),
            ("metallb.io/loadBalancerIPs", "192.0.2.2"),
            ("metallb.universe.tf/loadBalancerIPs", "192.0.2.3"),
        ];
        assert_eq!(granted(&three, None), (vec!["192.0.2.2".to_owned()], Some("a".to_owned())));
        assert_eq!(granted(&three[1..], None).1.as_deref(), Some("b"));
    }

    #[test]
    fn the_field_of_the_spec_may_repeat_the_annotation_but_not_contradict_it() {
        let annotation = [("metallb.io/loadBalancerIPs", "192.0.2.1")];
        assert_eq!(granted(&annotation, Some("192.0.2.1")).0, ["192.0.2.1"]);
        let text = refused(&annotation, Some("192.0.2.2"));
        assert!(text.contains("metallb.io/loadBalancerIPs") && text.contains("spec.loadBalancerIP"), "{text}");
        let both = [("crier.dev/addresses", "192.0.2.1,fd00::1")];
        assert!(refused(&both, Some("192.0.2.1")).contains("different"), "one address is not the same request as two");
    }

    #[test]
    fn a_request_that_cannot_be_read_names_its_field_and_value() {
        let table: &[(&str, &str, &str)] = &[
            ("crier.dev/addresses", "192.0.2.256", "\"192.0.2.256\" is not an IP address"),
            ("crier.dev/addresses", "192.0.2.0/24", "is not an IP address"),
            ("crier.dev/addresses", "192.0.2.1,", "an address is missing"),
            ("crier.dev/addresses", "", "an address is missing"),
            ("metallb.io/loadBalancerIPs", "192.0.2.1,192.0.2.2", "two IPv4 addresses"),
            ("metallb.universe.tf/loadBalancerIPs", "fd00::1,fd00::1", "two IPv6 addresses"),
            ("crier.dev/pool", " ", "name a pool"),
            ("crier.dev/pool", "lan,", "name a pool"),
            ("crier.dev/pool", "lan, lan", "names the pool lan twice"),
            ("crier.dev/adresses", "192.0.2.1", "did you mean crier.dev/addresses?"),
            ("crier.dev/pools", "lan", "did you mean crier.dev/pool?"),
            ("crier.dev/frobnicate", "yes", "those that exist are crier.dev/addresses"),
        ];
        for (field, value, problem) in table {
            let text = refused(&[(field, value)], None);
            assert!(text.starts_with(&format!("{field} is \"{value}\": ")), "field and value in: {text}");
            assert!(text.contains(problem), "{problem} in: {text}");
        }
        let text = refused(&[], Some("web.example"));
        assert!(text.starts_with("spec.loadBalancerIP is \"web.example\""), "{text}");
    }

    /// What is read of these annotations, and the complaint.
    fn read_of_egress(annotations: &[(&str, &str)]) -> (Option<Egress>, Option<Arc<EgressBounds>>, Option<String>) {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let complaint = request(Some(&annotations), None).err().map(|error| error.to_string());
        let (egress, bounds) = egress(Some(&annotations)).unzip();
        (egress, bounds.flatten(), complaint)
    }

    #[test]
    fn whoever_asks_for_egress_that_cannot_be_gets_none_instead_of_another_source() {
        assert_eq!(read_of_egress(&[("crier.dev/egress", " service-ip ")]), (Some(Egress::ServiceAddress), None, None));
        assert_eq!(read_of_egress(&[("crier.dev/egress", "network")]), (Some(Egress::Network), None, None));
        assert_eq!(read_of_egress(&[("crier.dev/pool", "lan")]), (None, None, None));
        let (closed, _, why) = read_of_egress(&[("crier.dev/egress", "servce-ip")]);
        assert_eq!(closed, Some(Egress::Closed));
        let expected = "crier.dev/egress is \"servce-ip\": write service-ip or network; until then outbound connections of the \
                        pods are held back";
        assert_eq!(why.as_deref(), Some(expected));
        let (closed, _, why) = read_of_egress(&[("crier.dev/egress-to", "192.0.2.0/24")]);
        assert_eq!(closed, Some(Egress::Closed));
        assert!(why.is_some_and(|why| why.contains("it means nothing without crier.dev/egress: service-ip")));
    }

    #[test]
    fn a_mistyped_name_of_an_annotation_about_egress_closes_egress_as_a_mistyped_value_does() {
        let meant = [
            ("crier.dev/egres", EGRESS),
            ("crier.dev/Egress", EGRESS),
            ("crier.dev/egress-node", EGRESS_NODES),
            ("crier.dev/egres-to", EGRESS_TO),
            ("crier.dev/egress-exept", EGRESS_EXCEPT),
        ];
        for (name, known) in meant {
            // Beside another mistake that comes first, and beside an annotation that is right.
            for others in [&[("crier.dev/aaa", "x")][..], &[(EGRESS, "service-ip")]] {
                let (egress, bounds, complaint) = read_of_egress(&[&[(name, "service-ip")], others].concat());
                assert_eq!((egress, bounds), (Some(Egress::Closed), None), "{name}");
                let complaint = complaint.expect("a complaint");
                let expected = format!(
                    "{name} is \"service-ip\": there is no such annotation; did you mean {known}? Until then outbound connections \
                     of the pods are held back"
                );
                assert_eq!(complaint, expected);
            }
        }
        for name in ["crier.dev/adresses", "crier.dev/pools", "crier.dev/frobnicate", "crier.dev/x"] {
            let (egress, _, complaint) = read_of_egress(&[(name, "service-ip")]);
            assert_eq!(egress, None, "{name}");
            assert!(complaint.is_some_and(|complaint| !complaint.contains("held back")), "{name}");
        }
    }

    #[test]
    fn egress_is_bound_to_nodes_and_destinations_of_both_families() {
        let (egress, bounds, complaint) = read_of_egress(&[
            ("crier.dev/egress", "service-ip"),
            ("crier.dev/egress-nodes", "rack=a, !gpu"),
            ("crier.dev/egress-to", " 203.0.113.9/24,fd00::/8 , 192.0.2.7, 192.0.2.7/32"),
            ("crier.dev/egress-except", "203.0.113.1"),
        ]);
        assert_eq!((egress, complaint), (Some(Egress::ServiceAddress), None));
        let bounds = bounds.expect("bounds");
        assert_eq!(bounds.nodes.as_ref().map(ToString::to_string).as_deref(), Some("rack=a, !gpu"));
        let destinations = bounds.destinations.as_ref().expect("destinations");
        assert_eq!(destinations.to_string(), "192.0.2.7/32, 203.0.113.0/24, fd00::/8 except 203.0.113.1/32");
        for (destination, covered) in
            [("203.0.113.2", true), ("203.0.113.1", false), ("fd12::1", true), ("fe00::1", false), ("192.0.2.8", false)]
        {
            assert_eq!(destinations.covers(destination.parse().unwrap()), covered, "{destination}");
        }
        let (_, bounds, _) =
            read_of_egress(&[("crier.dev/egress", "network"), ("crier.dev/egress-except", "10.0.0.0/8")]);
        let destinations = bounds.and_then(|bounds| bounds.destinations.clone()).expect("destinations");
        assert!(destinations.covers("fd00::1".parse().unwrap()) && !destinations.covers("10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn a_bound_that_cannot_be_read_closes_egress_and_names_annotation_value_and_consequence() {
        let many = vec!["192.0.2.1"; MOST_DESTINATIONS + 1].join(",");
        let long = format!("a in ({})", "b,".repeat(LONGEST_SELECTOR));
        let megabyte = "9".repeat(1 << 20);
        let table: [(&str, &str, &str); 9] = [
            (EGRESS_TO, "192.0.2.0/33", "\"192.0.2.0/33\" is neither an address nor a CIDR"),
            (EGRESS_TO, "192.0.2.0/24,", "a destination is missing"),
            (EGRESS_TO, "", "a destination is missing"),
            (EGRESS_TO, &many, "it names 101 destinations; 100 are the most"),
            (EGRESS_EXCEPT, "::ffff:192.0.2.1", "write it as IPv4"),
            (EGRESS_EXCEPT, &megabyte, "is neither an address nor a CIDR"),
            (EGRESS_NODES, "rack in (a", "not closed"),
            (EGRESS_NODES, " ", "remove the annotation to have any node"),
            (EGRESS_NODES, &long, "no selector is longer than"),
        ];
        for (field, value, problem) in table {
            let (egress, bounds, complaint) = read_of_egress(&[("crier.dev/egress", "service-ip"), (field, value)]);
            assert_eq!((egress, bounds), (Some(Egress::Closed), None), "{field}");
            let complaint = complaint.expect("a complaint");
            let shown: String = value.chars().take(20).collect();
            assert!(complaint.starts_with(&format!("{field} is \"{shown}")), "{complaint}");
            assert!(complaint.contains(problem), "{problem} in: {complaint}");
            assert!(complaint.ends_with("outbound connections of the pods are held back"), "{complaint}");
            assert!(complaint.len() < 1000, "{}", complaint.len());
        }
    }

    #[test]
    fn a_sharing_key_is_read_of_each_spelling_and_ours_counts_before_metallbs() {
        let key = |annotations: &[(&str, &str)]| {
            let annotations = annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            sharing_key(Some(&annotations)).map(str::to_owned)
        };
        let all = [
            ("crier.dev/share", "ours"),
            ("metallb.io/allow-shared-ip", "new"),
            ("metallb.universe.tf/allow-shared-ip", "old"),
        ];
        assert_eq!(key(&all).as_deref(), Some("ours"));
        assert_eq!(key(&all[1..]).as_deref(), Some("new"));
        assert_eq!(key(&all[2..]).as_deref(), Some("old"));
        assert_eq!(key(&[("metallb.io/allow-shared-ip", ""), all[2]]).as_deref(), Some("old"), "empty is none");
        assert_eq!(key(&[("crier.dev/share", ""), all[1]]), None, "ours, also where it is empty");
        assert_eq!((key(&[]), sharing_key(None)), (None, None));
        assert!(read(&all, None).is_ok());
        let unreadable = [("crier.dev/addresses", "1.2.3"), all[0]];
        assert_eq!(key(&unreadable).as_deref(), Some("ours"), "whatever the request says");
    }

    #[test]
    fn a_wish_for_other_addresses_reads_back_what_it_writes() {
        let read = |text: &str| renumber(Some(&[(RENUMBER.to_owned(), text.to_owned())].into()));
        for text in ["192.0.2.1 for 10m", "192.0.2.1,fd00::1 for 1h30m", "fd00::1 for 0s"] {
            let wish = read(text).expect("it can be read").expect("a wish");
            assert_eq!(renumbering(&wish), text);
        }
        for (text, problem) in [
            ("192.0.2.1", "192.0.2.1 for 10m"),
            ("192.0.2 for 10m", "not an IP address"),
            (" for 10m", "an address is missing"),
            ("192.0.2.1 for ever", "ever"),
            ("192.0.2.1 for 31d", "31d"),
            ("192.0.2.1 for 721h", "longer than"),
        ] {
            let text = read(text).expect_err(text).to_string();
            assert!(text.contains(problem), "{problem} in: {text}");
        }
        assert_eq!(renumber(None), Ok(None));
    }

    /// Input: a list of 48,000 pools. Output: it is refused by its number, before the names are compared with each other.
    #[test]
    fn a_list_of_more_pools_than_anybody_has_is_refused_by_its_number() {
        let list = |count: usize| (0..count).map(|number| format!("p{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&[(POOL, &list(MOST_POOLS))], None).expect("as many as there may be").pools.len(), MOST_POOLS);
        let refusal = refused(&[(POOL, &list(48_000))], None);
        assert!(refusal.contains("it names 48000 pools; 64 are the most"), "{refusal}");
    }

    /// Input: names below `crier.dev/` that do not exist, up to 15,000 of them. Output: the Service is refused, and closed from
    /// one more on than are compared with those that exist, so that none behind them that was meant for egress opens it. All agents stood
    /// still for seconds with each change of such a Service.
    #[test]
    fn of_thousands_of_names_that_do_not_exist_few_are_looked_at() {
        for (count, closed) in [(1, false), (MOST_UNKNOWN, false), (MOST_UNKNOWN + 1, true), (15_000, true)] {
            let names = (0..count).map(|number| (format!("{OWN}e{number:05}"), String::new()));
            let annotations: BTreeMap<String, String> = names.collect();
            assert_eq!(egress(Some(&annotations)).is_some(), closed, "{count} names");
            let refused = request(Some(&annotations), None).expect_err("no name of them exists").to_string();
            assert!(refused.contains("there is no such annotation"), "{refused}");
        }
        let misspelt = BTreeMap::from([(format!("{OWN}egres"), "network".to_owned())]);
        assert_eq!(egress(Some(&misspelt)), Some((Egress::Closed, None)));
    }

    #[test]
    fn only_annotations_with_a_meaning_are_kept() {
        assert!(is_read("crier.dev/anything") && is_read("metallb.io/address-pool"));
        assert!(!is_read("kubectl.kubernetes.io/last-applied-configuration"));
        assert!(!is_read("crier.device/pool"));
    }

    #[test]
    fn what_is_said_of_a_megabyte_is_short_and_the_name_of_a_pool_is_one() {
        let long = "ä".repeat(1 << 19);
        for name in
            ["crier.dev/addresses", "crier.dev/pool", "crier.dev/renumber", "crier.dev/egress", "crier.dev/nothing"]
        {
            let error = read(&[(name, &long)], None).err();
            let error = error.or_else(|| renumber(Some(&[(name.to_owned(), long.clone())].into())).err());
            let said = error.expect("it cannot be read").to_string();
            assert!(said.chars().count() < 2 * LONGEST_PROBLEM, "{name}: {} characters", said.chars().count());
        }
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_refused_with_what_is_meant() {
        for name in ["crier.dev/addresses", "crier.dev/renumber"] {
            let value = if name.ends_with("renumber") { "::ffff:192.0.2.1 for 1s" } else { "::ffff:192.0.2.1" };
            let error = read(&[(name, value)], None).err();
            let error = error.or_else(|| renumber(Some(&[(name.to_owned(), value.to_owned())].into())).err());
            assert!(error.expect("refused").to_string().contains("write 192.0.2.1, not ::ffff:192.0.2.1"), "{name}");
        }
        let many = ["192.0.2.1"; MOST_RENUMBERED + 1].join(",") + " for 1s";
        assert!(renumber(Some(&[(RENUMBER.to_owned(), many)].into())).is_err(), "nothing is left out in silence");
    }
}
