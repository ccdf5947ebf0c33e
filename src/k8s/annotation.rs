//! What a Service asks for: its annotations of both families, and `spec.loadBalancerIP`.
//! Floor 1. Whether the request can be met is decided by the plan, not here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::Family;
use crate::config::duration;
use crate::names::{NodeName, PoolName};
use crate::world::{Egress, Renumber, Request, RequestError};

/// crier's own prefix; an unknown name below it is refused.
const OWN: &str = "crier.dev/";
/// MetalLB's prefixes, the current one first.
const METALLB: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

const ADDRESSES: &str = "crier.dev/addresses";
const POOL: &str = "crier.dev/pool";
const SHARE: &str = "crier.dev/share";
const EGRESS: &str = "crier.dev/egress";
const RENUMBER: &str = Renumber::ANNOTATION;
/// The node that goes first for the addresses on the link; `crier move` writes it.
pub const NODE: &str = "crier.dev/node";
/// What crier writes itself.
const OUTPUT: &str = "crier.dev/ip-allocated-from-pool";
const SHARED: &str = "allow-shared-ip";
/// The value of [`EGRESS`] that gives what the pods open the Service's address.
const SERVICE_ADDRESS: &str = "service-ip";
/// The value that has it leave by a VRF.
const NETWORK: &str = "network";
/// What narrows egress, and says nothing by itself.
const EGRESS_DETAILS: [&str; 3] = ["crier.dev/egress-nodes", "crier.dev/egress-to", "crier.dev/egress-except"];
const OWN_NAMES: [&str; 9] =
    [ADDRESSES, POOL, SHARE, NODE, RENUMBER, EGRESS, EGRESS_DETAILS[0], EGRESS_DETAILS[1], EGRESS_DETAILS[2]];

/// Characters of a value that are repeated when it cannot be read.
const MOST_SHOWN: usize = 120;

/// Characters of a sentence about it: more than any of ours has by itself.
const LONGEST_PROBLEM: usize = 500;

/// No name of a pool is longer: it would have to be a DNS subdomain.
const LONGEST_POOL: usize = 253;

const SPEC_ADDRESS: &str = "spec.loadBalancerIP";

/// Whether crier reads the annotation of this name; all others are skipped.
pub fn is_read(name: &str) -> bool {
    name.starts_with(OWN) || METALLB.iter().any(|prefix| name.starts_with(prefix))
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
    check_egress(annotations)?;
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
        return Err(malformed(RENUMBER, text, format!("no Service has more than {MOST_RENUMBERED} addresses")));
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

/// No Service has as many addresses: one of each family of each pool that it names.
const MOST_RENUMBERED: usize = 64;

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
    let is_known = |name: &str| name == OUTPUT || OWN_NAMES.contains(&name);
    let unknown = annotations.iter().find(|(name, _)| name.starts_with(OWN) && !is_known(name));
    let Some((name, value)) = unknown else { return Ok(()) };
    let nearest = OWN_NAMES
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let problem = match nearest {
        Some((_, known)) => format!("there is no such annotation; did you mean {known}?"),
        None => format!("there is no such annotation; those that exist are {}", OWN_NAMES.join(", ")),
    };
    Err(malformed(name, value, problem))
}

/// How what the pods open is to leave the cluster. A Service whose annotations about egress cannot be met is closed: its user
/// relies on a source address that the packets would not have.
pub fn egress(annotations: Option<&BTreeMap<String, String>>) -> Option<Egress> {
    let annotations = annotations?;
    annotations.keys().any(|name| name.starts_with(EGRESS)).then(|| match check_egress(annotations) {
        Ok(()) => Egress::ServiceAddress,
        Err(_) => Egress::Closed,
    })
}

/// Gap (egress): leaving by a VRF, a choice of nodes and a choice of destinations are refused until a version implements them,
/// so that nobody relies on a feature that is missing.
fn check_egress(annotations: &BTreeMap<String, String>) -> Result<(), RequestError> {
    let detail = EGRESS_DETAILS.into_iter().find(|name| annotations.contains_key(*name));
    let missing = |field: &str| Err(RequestError::NotAvailableYet { field: field.to_owned() });
    match (annotations.get(EGRESS).map(|value| value.trim()), detail) {
        (None, None) => Ok(()),
        (None, Some(detail)) => {
            let value = annotations.get(detail).map(String::as_str).unwrap_or_default();
            Err(malformed(detail, value, format!("it means nothing without {EGRESS}: {SERVICE_ADDRESS}")))
        }
        (Some(_), Some(detail)) => missing(detail),
        (Some(SERVICE_ADDRESS), None) => Ok(()),
        (Some(NETWORK), None) => missing(&format!("{EGRESS}: {NETWORK}")),
        (Some(other), None) => Err(malformed(EGRESS, other, format!("write {SERVICE_ADDRESS}"))),
    }
}

/// Names separated by commas, spaces allowed.
fn parse_pools(field: &str, text: &str) -> Result<Vec<PoolName>, RequestError> {
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
        Ok(IpAddr::V6(v6)) if let Some(v4) = v6.to_ipv4_mapped() => {
            Err(malformed(field, text, format!("write {v4}, not {v6}")))
        }
        Ok(address) => Ok(address),
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

    #[test]
    fn what_this_version_cannot_do_is_refused_and_not_ignored() {
        let missing = |field: &str| Err(RequestError::NotAvailableYet { field: field.to_owned() });
        assert_eq!(read(&[("crier.dev/egress", "network")], None), missing("crier.dev/egress: network"));
        let narrowed = [("crier.dev/egress", "service-ip"), ("crier.dev/egress-to", "192.0.2.0/24")];
        assert_eq!(read(&narrowed, None), missing("crier.dev/egress-to"));
    }

    #[test]
    fn whoever_asks_for_egress_that_cannot_be_gets_none_instead_of_another_source() {
        let read = |annotations: &[(&str, &str)]| {
            let annotations: BTreeMap<String, String> =
                annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            (egress(Some(&annotations)), request(Some(&annotations), None).err().map(|error| error.to_string()))
        };
        assert_eq!(read(&[("crier.dev/egress", " service-ip ")]), (Some(Egress::ServiceAddress), None));
        assert_eq!(read(&[("crier.dev/pool", "lan")]), (None, None));
        let (closed, why) = read(&[("crier.dev/egress", "servce-ip")]);
        assert_eq!(closed, Some(Egress::Closed));
        assert_eq!(why.as_deref(), Some("crier.dev/egress is \"servce-ip\": write service-ip"));
        let (closed, why) = read(&[("crier.dev/egress-to", "192.0.2.0/24")]);
        assert_eq!(closed, Some(Egress::Closed));
        assert!(why.is_some_and(|why| why.contains("it means nothing without crier.dev/egress: service-ip")));
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
        let many = vec!["192.0.2.1"; MOST_RENUMBERED + 1].join(",") + " for 1s";
        assert!(renumber(Some(&[(RENUMBER.to_owned(), many)].into())).is_err(), "nothing is left out in silence");
    }
}
