//! The Services among the objects: of which classes they are, which of them share an address, and whether the file has the pools and
//! addresses that they name. Floor 1. Not for what the annotations of a product mean; the file of each product knows that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::annotate::Annotations;
use super::draft::{Draft, Item, Table, texts};
use super::object::Object;
use super::shown::{one_line, shortened, shown};
use super::told::{ToldClass, told_classes};
use super::{kube_vip, metallb_pool, openelb, purelb};
use crate::address::AddressRange;
use crate::k8s::annotation::SHARE;
use crate::k8s::raw;
use crate::k8s::service::{ServiceFields, service};
use crate::names::ObjectKey;
use crate::plan::sharing::{Group, Refusal, Terms};
use crate::selector::{Selector, check_label_key};
use crate::world;

/// The class that crier serves without being told.
const OWN_CLASS: &str = "crier.dev/crier";

/// The key of a pool whose addresses Services of several namespaces may share.
const ACROSS: &str = "share-across-namespaces";

/// What the annotations of the products begin with.
const PREFIXES: [&str; 5] = ["kube-vip.io/", "purelb.io/", "metallb.io/", "metallb.universe.tf/", "lb.kubesphere.io/"];

/// Services of one kind that are named; the others are counted.
const MOST_NAMED: usize = 5;

/// A Service, and what it is to be told.
struct Candidate<'a> {
    object: &'a Object,
    annotations: Annotations,
    /// It has annotations of one of the products.
    named: bool,
    /// As crier reads it with all annotations; `None` where it is of another type, or cannot be read.
    service: Option<world::Service>,
}

/// A pool of the file.
struct PoolView {
    table: usize,
    name: String,
    ranges: Vec<AddressRange>,
    /// Empty: all, or those of a selector.
    namespaces: Vec<String>,
    services: Option<Selector>,
}

impl Candidate<'_> {
    fn key(&self) -> ObjectKey {
        self.annotations.key()
    }

    fn class(&self) -> Option<&str> {
        self.service.as_ref()?.class.as_deref()
    }

    /// What it asks for and what it shows.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let Some(service) = &self.service else { return BTreeSet::new() };
        let asked = service.request.as_ref().map(|request| request.addresses.as_slice()).unwrap_or_default();
        asked.iter().chain(&service.ingress).copied().filter(|address| !address.is_unspecified()).collect()
    }

    /// Its status names something, an address or a host.
    fn shows_something(&self) -> bool {
        let status = self.object.value.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
        status.is_some_and(|ingress| !ingress.is_empty())
    }
}

/// Translates what the Services say. `others`: there are other objects that configure a load balancer. Returns which of the objects were
/// of use: without configuration a Service that no product is named in is none of ours.
pub(super) fn translate(objects: &[Object], others: bool, draft: &mut Draft) -> Vec<usize> {
    let of_kind = objects.iter().enumerate().filter(|(_, it)| it.kind == "Service" && it.group.is_empty());
    let told = if others { told_classes(objects) } else { Vec::new() };
    let mut used: Vec<usize> = told.iter().map(|told| told.at).collect();
    let mut candidates = Vec::new();
    for (at, object) in of_kind {
        let candidate = candidate(object, draft);
        if candidate.named || others && candidate.service.is_some() {
            used.push(at);
        }
        candidates.push(candidate);
    }
    if used.is_empty() {
        return used;
    }
    let pools = pools(draft);
    let foreign = classes(&candidates, &told, &pools, draft);
    let is_ours = |it: &&mut Candidate<'_>| it.class().is_none_or(|class| !foreign.contains(class));
    let mut served: Vec<&mut Candidate<'_>> =
        candidates.iter_mut().filter(|it| it.service.is_some()).filter(is_ours).collect();
    share(&mut served, &pools, draft);
    if pools.is_empty() && !served.is_empty() {
        let text = "no pool is among the objects, so the file gives no Service an address; give migrate the objects of the pools too";
        draft.leave_out("Services", "", "", text);
    } else {
        served.iter_mut().for_each(|it| look_for_pools(it, &pools, draft));
    }
    for Candidate { object, annotations, .. } in candidates {
        annotations.finish(Some(object), draft);
    }
    used
}

/// What the products say of the Service, and how crier reads it then.
fn candidate<'a>(object: &'a Object, draft: &mut Draft) -> Candidate<'a> {
    let spec = object.value.get("spec");
    let is_balanced = spec.and_then(|spec| spec.get("type")).and_then(Value::as_str) == Some("LoadBalancer");
    let mut annotations = Annotations::of(object);
    let mut named = kube_vip::service(object, &mut annotations, draft);
    if is_balanced {
        named |= purelb::service(object, &mut annotations, draft);
        named |= openelb::service(object, &mut annotations, draft);
        named |= metallb_pool::service(object, &mut annotations, draft);
        named |= not_text(object, &mut annotations, draft);
    }
    let service = match read(object, &annotations).filter(|_| is_balanced) {
        None => None,
        Some(Ok(service)) => Some(service),
        Some(Err(problem)) => {
            annotations.check(draft, "", "", &format!("crier cannot read the Service: {}", shortened(&problem)));
            None
        }
    };
    if let Some(Err(problem)) = service.as_ref().map(|service| service.request.as_ref()) {
        let text = format!("crier refuses what the Service asks for: {}", shortened(&problem.to_string()));
        annotations.check(draft, "", "", &text);
    }
    Candidate { object, annotations, named, service }
}

/// Annotations that are no text, which the products' files do not see. No API server has such ones.
fn not_text(object: &Object, annotations: &mut Annotations, draft: &mut Draft) -> bool {
    let all = object.value.pointer("/metadata/annotations").and_then(Value::as_object);
    let wrong = all.into_iter().flatten().filter(|(_, value)| !value.is_string() && !value.is_null());
    let wrong = wrong.filter(|(key, _)| key.starts_with("eip.") || PREFIXES.iter().any(|it| key.starts_with(it)));
    let mut found = false;
    for (key, value) in wrong {
        found = true;
        let field = format!("metadata.annotations.{key}");
        let text = "this is not text, and no API server takes it; it was left out: put it into quotes";
        annotations.check(draft, &field, &shown(value), text);
    }
    found
}

/// The Service as crier reads it once it has the annotations. `None` for what is no object.
fn read(object: &Object, annotations: &Annotations) -> Option<Result<world::Service, String>> {
    let mut value = object.value.clone();
    let metadata = value.get_mut("metadata")?.as_object_mut()?;
    let merged = object.texts_of_metadata("annotations").chain(annotations.wanted());
    let merged: serde_json::Map<String, Value> = merged.map(|(key, value)| (key.to_owned(), value.into())).collect();
    metadata.insert("annotations".to_owned(), Value::Object(merged));
    let object = serde_json::from_value::<raw::Object<ServiceFields>>(value);
    Some(object.map_err(|error| error.to_string()).and_then(|it| service(&it).map_err(|error| error.to_string())))
}

/// The pools that the draft has so far.
fn pools(draft: &Draft) -> Vec<PoolView> {
    let of_table = |(at, table): (usize, &Table)| {
        let values = |key: &str| table.texts(key);
        let name = values("name").pop()?;
        let ranges = values("addresses").iter().filter_map(|it| it.parse().ok()).collect();
        let by_labels = !values("namespace-selector").is_empty();
        let namespaces = if by_labels { Vec::new() } else { values("namespaces") };
        let services = values("service-selector").pop().and_then(|selector| selector.parse().ok());
        Some(PoolView { table: at, name, ranges, namespaces, services })
    };
    let tables = draft.tables.iter().enumerate().filter(|(_, table)| table.section == "pool" && !table.off);
    tables.filter_map(of_table).collect()
}

fn pool_of(pools: &[PoolView], address: IpAddr) -> Option<&PoolView> {
    pools.iter().find(|pool| pool.ranges.iter().any(|range| range.contains(address)))
}

/// Names every class of the Services in `[kubernetes]`, except those that another load balancer serves for all that is seen: these are
/// returned. The field of a Service cannot be changed, so crier must know the classes.
fn classes(
    candidates: &[Candidate<'_>],
    told: &[ToldClass],
    pools: &[PoolView],
    draft: &mut Draft,
) -> BTreeSet<String> {
    let mut all: BTreeMap<&str, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in candidates {
        if let Some(class) = candidate.class().filter(|class| *class != OWN_CLASS) {
            all.entry(class).or_default().push(candidate);
        }
    }
    let (mut foreign, mut ours, mut items) = (BTreeSet::new(), vec![OWN_CLASS], Vec::new());
    for (class, services) in &all {
        let is_ours = |it: &&Candidate<'_>| it.named || it.addresses().iter().any(|at| pool_of(pools, *at).is_some());
        let is_told = told.iter().any(|told| told.class.as_deref() == Ok(*class));
        let elsewhere = !is_told && !services.iter().any(is_ours) && services.iter().any(|it| it.shows_something());
        let text = match (check_label_key(class), elsewhere) {
            (Err(error), _) => {
                let error = shortened(&error.to_string());
                format!("no Service can have this class: {error}; it was left out")
            }
            (Ok(()), true) => {
                "no address of these Services is of a pool in this file, so another load balancer seems to serve them and crier will not; \
                 if it is to, name the class in `classes`"
                    .to_owned()
            }
            (Ok(()), false) => {
                ours.push(class);
                "crier serves the Services of this class because `classes` names it: remove it there if another load balancer goes on \
                 serving them. Services without a class are served too, unless default-class = false"
                    .to_owned()
            }
        };
        if elsewhere || check_label_key(class).is_err() {
            foreign.insert((*class).to_owned());
        }
        let keys: Vec<ObjectKey> = services.iter().map(|it| it.key()).collect();
        let value = shortened(&format!("{class:?}"));
        draft.warn(&format!("Services {}", listed(&keys)), "spec.loadBalancerClass", &value, &text);
        items.push(Item::Check(one_line(&format!("spec.loadBalancerClass {value} of {}: {text}", listed(&keys)))));
    }
    for ToldClass { class, object, .. } in told {
        let (value, text) = match class {
            Ok(class) => {
                if !ours.contains(&class.as_str()) {
                    ours.push(class);
                }
                let text = "it serves Services of this class and no others, so `classes` names it and default-class is false: set it to \
                            true if crier is to serve Services without a class too";
                (class, text)
            }
            Err(written) => {
                let text = "it serves Services of one class and no others, and this is no name of a class (a variable whose value is not \
                            among the objects?): crier is not told the class, and serves Services without one: name it in `classes`, and \
                            set default-class = false";
                (written, text)
            }
        };
        let value = shortened(&format!("{value:?}"));
        draft.warn(object, "class", &value, text);
        items.push(Item::Check(one_line(&format!("{object}: class {value}: {text}"))));
    }
    if let Some(table) = draft.tables.iter_mut().find(|table| table.section == "kubernetes") {
        table.items.extend(items);
        if ours.len() > 1 {
            table.set("classes", texts(&ours), "spec.loadBalancerClass");
        }
        // Without the class it would serve nobody.
        if told.iter().any(|told| told.class.is_ok()) {
            table.set("default-class", "false".to_owned(), "");
        }
    }
    foreign
}

/// A few names, and how many more there are.
fn listed(keys: &[ObjectKey]) -> String {
    let names: Vec<String> = keys.iter().take(MOST_NAMED).map(|key| shortened(&key.to_string())).collect();
    match keys.len().saturating_sub(MOST_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Services that have or want one address have it together only with one sharing key, which MetalLB alone asks for, too.
fn share(served: &mut [&mut Candidate<'_>], pools: &[PoolView], draft: &mut Draft) {
    let mut tenants: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in served.iter().enumerate() {
        candidate.addresses().into_iter().for_each(|address| tenants.entry(address).or_default().push(at));
    }
    tenants.retain(|_, tenants| tenants.len() > 1);
    let key_of = |it: &Candidate<'_>| it.service.as_ref()?.sharing.as_ref().map(|sharing| sharing.key.clone());
    for (address, tenants) in &tenants {
        let known = tenants.iter().find_map(|at| key_of(served.get(*at)?));
        let wanted = known.unwrap_or_else(|| address.to_string());
        for at in tenants {
            let Some(candidate) = served.get_mut(*at).filter(|it| key_of(it).is_none()) else { continue };
            candidate.annotations.set(SHARE, wanted.clone());
            let again = read(candidate.object, &candidate.annotations).and_then(Result::ok);
            candidate.service = again.or_else(|| candidate.service.take());
        }
    }
    for (address, tenants) in &tenants {
        across_namespaces(*address, tenants.iter().filter_map(|at| served.get(*at)).map(|it| it.key()), pools, draft);
        for (at, text) in refused(served, tenants) {
            let Some(candidate) = served.get_mut(at) else { continue };
            candidate.annotations.check(draft, &address.to_string(), "", &text);
        }
    }
}

/// Those of the tenants of one address that crier does not let have it beside the others, with why.
fn refused(served: &[&mut Candidate<'_>], tenants: &[usize]) -> Vec<(usize, String)> {
    let all = tenants.iter().filter_map(|at| {
        let candidate = served.get(*at)?;
        Some((*at, candidate.key(), Terms::of(candidate.service.as_ref()?)))
    });
    let all: Vec<(usize, ObjectKey, Option<Terms>)> = all.collect();
    let (_, refused) = Group::of(all.iter().map(|(_, key, terms)| (key, terms.as_ref())), true);
    let in_words = |(key, refusal): (&ObjectKey, Refusal)| {
        let (at, _, _) = all.iter().find(|(_, own, _)| std::ptr::eq(own, key))?;
        let why = refusal.why.map_or_else(|| "this Service has no sharing key".to_owned(), |why| why.to_string());
        let text = format!(
            "the Service has or wants this address, and crier does not let it share it with {}: {why}",
            refusal.with
        );
        Some((*at, text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
    };
    refused.into_iter().filter_map(in_words).collect()
}

/// The pool of an address that Services of several namespaces have is to allow that.
fn across_namespaces(address: IpAddr, tenants: impl Iterator<Item = ObjectKey>, pools: &[PoolView], draft: &mut Draft) {
    let tenants: Vec<ObjectKey> = tenants.collect();
    let namespaces: BTreeSet<_> = tenants.iter().map(|key| &key.namespace).collect();
    let Some(pool) = pool_of(pools, address).filter(|_| namespaces.len() > 1) else { return };
    let Some(table) = draft.tables.get_mut(pool.table) else { return };
    if table.items.iter().any(|item| item.is_key(ACROSS)) {
        return;
    }
    let text = format!(
        "{} have or want {address} together: the pool lets Services of several namespaces share",
        listed(&tenants)
    );
    let object = table.object.clone();
    table.items.push(Item::Check(one_line(&text)));
    table.set(ACROSS, "true".to_owned(), "");
    draft.warn(&object, "", "", &text);
}

/// Whether the file has the pools that the Service names, and the addresses that it names and shows.
fn look_for_pools(candidate: &mut Candidate<'_>, pools: &[PoolView], draft: &mut Draft) {
    let Some(service) = &candidate.service else { return };
    let (request, labels) = (service.request.clone().unwrap_or_default(), service.labels.clone());
    let (shown, namespace) = (service.ingress.clone(), candidate.key().namespace);
    let addresses = candidate.addresses();
    if shown.is_empty() && candidate.shows_something() {
        let text = "the Service shows a name and no address, so another load balancer seems to serve it; crier serves it too unless it \
                    has a class of its own, or default-class = false";
        candidate.annotations.check(draft, "status.loadBalancer.ingress", "", text);
    }
    for name in &request.pools {
        if !pools.iter().any(|pool| pool.name == name.as_str()) {
            let text = "the file has no pool of this name, so crier gives the Service no address of it";
            candidate.annotations.check(draft, "pool", &shortened(&format!("\"{name}\"")), text);
        }
    }
    for address in addresses {
        let what = if request.addresses.contains(&address) { "names" } else { "shows" };
        let text = match pool_of(pools, address) {
            None => {
                format!("the Service {what} this address and no pool of the file has it: crier does not announce it")
            }
            Some(pool) if !pool.namespaces.is_empty() && !pool.namespaces.iter().any(|it| it == namespace.as_str()) => {
                let for_whom = shortened(&pool.namespaces.join(", "));
                format!(
                    "the Service {what} this address, which is of the pool {}, and that is for namespaces {for_whom}",
                    pool.name
                )
            }
            Some(PoolView { name, services: Some(selector), .. }) if !selector.matches(&labels) => {
                let selector = shortened(&selector.to_string());
                format!(
                    "the Service {what} this address, which is of the pool {name}, and that is for Services with {selector}"
                )
            }
            Some(pool) if !request.pools.is_empty() && !request.pools.iter().any(|it| it.as_str() == pool.name) => {
                format!(
                    "the Service {what} this address, which is of the pool {}, and asks for another pool",
                    pool.name
                )
            }
            Some(_) => continue,
        };
        candidate.annotations.check(draft, &address.to_string(), "", &text);
    }
}
