//! Which addresses of this node's pods are known to be of no pod with egress. Floor 1. All others are held back where `[egress] new-pods`
//! asks for it: a pod sends before its EndpointSlice is known.
//!
//! Whose an address is the Pods tell, and which of these have egress the selectors of the Services with egress in their namespace. What
//! counts is what is told last: a label, a selector or an annotation that changes is judged anew. Several Pods with one address are a
//! pod with egress where one of them is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;

use crate::address::Family;
use crate::names::{NodeName, ObjectKey};
use crate::world::{Fact, Listing, Service, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct NewPods {
    /// The Services with egress.
    services: BTreeMap<ObjectKey, Arc<Service>>,
    /// Since the last judgement something may have changed.
    stale: bool,
    judged: Arc<Judged>,
}

/// What is known of the addresses of this node's pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    /// Those of pods without egress.
    pub known: OrdSet<IpAddr>,
    /// Of these, those of pods that terminate: the address may be another pod's at any time, so nothing is opened from it any more.
    pub ending: BTreeMap<IpAddr, ObjectKey>,
    /// Those of pods that a Service with egress selects, with both.
    pub selected: BTreeMap<IpAddr, Selected>,
}

/// A pod, and a Service with egress that selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    pub pod: ObjectKey,
    pub service: ObjectKey,
}

impl NewPods {
    /// To be told of every Fact.
    pub fn note_fact(&mut self, fact: &Fact) {
        self.stale |= matches!(fact, Fact::Pod(..) | Fact::Listed(Listing::Pods(_)));
    }

    /// The Service, if it has egress.
    pub fn put(&mut self, key: &ObjectKey, service: Option<&Arc<Service>>) {
        let before = match service {
            Some(service) => self.services.insert(key.clone(), service.clone()),
            None => self.services.remove(key),
        };
        let selects = |service: &Arc<Service>| (service.pod_selector.clone(), service.families.clone());
        self.stale |= before.as_ref().map(selects) != service.map(selects);
    }

    /// There is a Service with egress.
    pub fn is_any(&self) -> bool {
        !self.services.is_empty()
    }

    /// Judges the Pods, where that may find something new. True: it did.
    pub fn renew(&mut self, world: &World, me: &NodeName) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let mut judged = Judged::default();
        let own = world.pods.all.iter().filter(|(_, pod)| pod.node == *me);
        for (key, pod) in own {
            let first = ObjectKey::new(key.namespace.as_str(), "");
            let inside = self.services.range(first..).take_while(|(service, _)| service.namespace == key.namespace);
            let selecting: Vec<_> = inside.filter(|(_, service)| service.selects(&pod.labels)).collect();
            for address in &pod.addresses {
                // No EndpointSlice of another family is ever made, so the pod has no egress of that.
                let has_family = |service: &Service| service.families.contains(&Family::of(*address));
                let service = selecting.iter().find(|(_, service)| service.families.is_empty() || has_family(service));
                match service {
                    Some((service, _)) => {
                        let selected = Selected { pod: key.clone(), service: (*service).clone() };
                        drop(judged.selected.insert(*address, selected));
                    }
                    None if pod.terminates => drop(judged.ending.insert(*address, key.clone())),
                    None => drop(judged.known.insert(*address)),
                }
            }
        }
        let Judged { known, ending, selected } = &mut judged;
        ending.retain(|address, _| !known.contains(address) && !selected.contains_key(address));
        for address in selected.keys() {
            known.remove(address);
        }
        let differs = *self.judged != judged;
        if differs {
            self.judged = Arc::new(judged);
        }
        differs
    }

    pub fn judged(&self) -> &Arc<Judged> {
        &self.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::Labels;
    use crate::world::{Egress, Pod};

    fn labels(text: &str) -> Labels {
        Labels(text.split(',').filter_map(|pair| pair.split_once('=')).collect())
    }

    fn service(selector: &str) -> Arc<Service> {
        let pod_selector = (!selector.is_empty()).then(|| Arc::new(labels(selector)));
        Arc::new(Service { egress: Some(Egress::ServiceAddress), pod_selector, ..Service::default() })
    }

    /// Pods of node `me`, and Services with egress.
    struct Story {
        pods: NewPods,
        world: World,
    }

    impl Story {
        fn new() -> Story {
            let mut pods = NewPods::default();
            pods.put(&key("shop/web"), Some(&service("app=web")));
            Story { pods, world: World::default() }
        }

        fn tell(&mut self, fact: Fact) {
            self.pods.note_fact(&fact);
            self.world.apply(fact);
        }

        fn pod(&mut self, name: &str, of: &str, addresses: &[&str]) {
            self.tell(Fact::Pod(key(name), Some(Arc::new(pod(of, addresses)))));
        }

        fn terminates(&mut self, name: &str, of: &str, addresses: &[&str]) {
            let pod = Pod { terminates: true, ..pod(of, addresses) };
            self.tell(Fact::Pod(key(name), Some(Arc::new(pod))));
        }

        /// `known`, `ending`, `selected` of each address that is any of these.
        fn judged(&mut self) -> Vec<String> {
            self.pods.renew(&self.world, &"me".into());
            let Judged { known, ending, selected } = &**self.pods.judged();
            let known = known.iter().map(|address| format!("{address} known"));
            let ending = ending.iter().map(|(address, pod)| format!("{address} ending {pod}"));
            let selected = selected.iter().map(|(address, it)| format!("{address} {} {}", it.pod, it.service));
            known.chain(ending).chain(selected).collect()
        }
    }

    fn key(text: &str) -> ObjectKey {
        let (namespace, name) = text.split_once('/').expect("namespace and name");
        ObjectKey::new(namespace, name)
    }

    fn pod(of: &str, addresses: &[&str]) -> Pod {
        let addresses = addresses.iter().map(|it| it.parse().expect("an address")).collect();
        Pod { node: "me".into(), labels: labels(of), addresses, terminates: false }
    }

    #[test]
    fn a_pod_is_known_once_its_address_is_told_unless_a_service_with_egress_of_its_namespace_selects_it() {
        let mut story = Story::new();
        story.pod("shop/plain", "app=plain", &[]);
        assert_eq!(story.judged(), [""; 0], "kubelet has not said the address yet");
        story.pod("shop/plain", "app=plain", &["10.244.1.2", "fd44:1::2"]);
        story.pod("shop/web-1", "app=web,tier=front", &["10.244.1.3"]);
        story.pod("other/web-1", "app=web", &["10.244.1.4"]);
        assert_eq!(
            story.judged(),
            ["10.244.1.2 known", "10.244.1.4 known", "fd44:1::2 known", "10.244.1.3 shop/web-1 shop/web"]
        );
    }

    /// No EndpointSlice ever listed the other address.
    #[test]
    fn an_address_of_a_family_that_no_service_of_the_pod_has_is_known() {
        let mut story = Story::new();
        let with =
            |families: &[Family]| Arc::new(Service { families: families.to_vec(), ..(*service("app=web")).clone() });
        story.pods.put(&key("shop/web"), Some(&with(&[Family::V4])));
        story.pod("shop/web-1", "app=web", &["10.244.1.3", "fd44:1::3"]);
        assert_eq!(story.judged(), ["fd44:1::3 known", "10.244.1.3 shop/web-1 shop/web"]);
        story.pods.put(&key("shop/web"), Some(&with(&[Family::V4, Family::V6])));
        assert_eq!(story.judged(), ["10.244.1.3 shop/web-1 shop/web", "fd44:1::3 shop/web-1 shop/web"]);
        story.pods.put(&key("shop/web"), Some(&with(&[Family::V4])));
        story.pods.put(&key("shop/web6"), Some(&with(&[Family::V6])));
        assert_eq!(story.judged(), ["10.244.1.3 shop/web-1 shop/web", "fd44:1::3 shop/web-1 shop/web6"]);
    }

    #[test]
    fn pods_of_other_nodes_are_nobody_here() {
        let mut story = Story::new();
        let elsewhere = Pod { node: "n2".into(), ..pod("app=plain", &["10.244.2.2"]) };
        story.tell(Fact::Pod(key("shop/plain"), Some(Arc::new(elsewhere))));
        assert_eq!(story.judged(), [""; 0]);
    }

    #[test]
    fn a_label_a_selector_or_an_annotation_that_changes_is_judged_anew() {
        let mut story = Story::new();
        story.pod("shop/a", "app=plain", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 known"]);
        story.pod("shop/a", "app=web", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 shop/a shop/web"]);
        story.pods.put(&key("shop/web"), Some(&service("app=web,tier=front")));
        assert_eq!(story.judged(), ["10.244.1.2 known"]);
        story.pods.put(&key("shop/also"), Some(&service("app=web")));
        assert_eq!(story.judged(), ["10.244.1.2 shop/a shop/also"]);
        story.pods.put(&key("shop/also"), None);
        assert_eq!(story.judged(), ["10.244.1.2 known"]);
        story.pods.put(&key("shop/also"), Some(&service("")));
        assert_eq!(
            story.judged(),
            ["10.244.1.2 known"],
            "a Service without selector names its pods in EndpointSlices alone"
        );
    }

    #[test]
    fn what_changes_nothing_is_no_news() {
        let mut story = Story::new();
        story.pod("shop/a", "app=plain", &["10.244.1.2"]);
        assert!(story.pods.renew(&story.world, &"me".into()));
        assert!(!story.pods.renew(&story.world, &"me".into()), "nothing was told");
        story.pod("shop/a", "app=plain,more=yes", &["10.244.1.2"]);
        assert!(!story.pods.renew(&story.world, &"me".into()));
    }

    /// Input: a pod terminates, is gone, and another one of any kind gets its address.
    #[test]
    fn a_pod_that_ends_leaves_its_address_to_the_next_one_as_nobodys() {
        let mut story = Story::new();
        story.pod("shop/a", "app=plain", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 known"]);
        story.terminates("shop/a", "app=plain", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 ending shop/a"]);
        // The next pod has the address before the former one is gone.
        story.pod("shop/web-1", "app=web", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 shop/web-1 shop/web"]);
        story.tell(Fact::Pod(key("shop/a"), None));
        story.tell(Fact::Pod(key("shop/web-1"), None));
        assert_eq!(story.judged(), [""; 0]);
        story.pod("shop/b", "app=plain", &["10.244.1.2"]);
        story.terminates("shop/a", "app=plain", &["10.244.1.2"]);
        assert_eq!(story.judged(), ["10.244.1.2 known"], "it is the next one's");
        story.tell(Fact::Listed(Listing::Pods([key("shop/a")].into())));
        assert_eq!(story.judged(), ["10.244.1.2 ending shop/a"], "it was deleted while nobody watched");
    }

    #[test]
    fn a_pod_whose_sandbox_is_made_anew_has_its_new_address_alone() {
        let mut story = Story::new();
        story.pod("shop/a", "app=plain", &["10.244.1.2"]);
        story.judged();
        story.pod("shop/a", "app=plain", &["10.244.1.9"]);
        assert_eq!(story.judged(), ["10.244.1.9 known"]);
    }

    #[test]
    fn while_the_api_server_is_away_known_addresses_stay_known() {
        let mut story = Story::new();
        story.pod("shop/a", "app=plain", &["10.244.1.2"]);
        story.judged();
        story.tell(Fact::PodsUnseen(Some("403".to_owned())));
        assert_eq!(story.judged(), ["10.244.1.2 known"]);
    }
}
