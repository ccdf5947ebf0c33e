//! The condition `crier.dev/Allocated` in the status of a Service: which addresses crier gave, and what is in the way. Floor 1.
//!
//! It is written in the same request as the addresses, so it tells which of them are crier's, also to the next agent that
//! allocates and after a restart. Its message has one form, which [`Condition::addresses`] reads back. A cluster may have several
//! criers, each with a Lease: the message says by which one it is, unless that is the Lease that a file has which names none.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::names::{ObjectKey, PoolName};

/// What crier says of a Service in its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `status` is True: the Service has the addresses that it is to have.
    pub allocated: bool,
    /// A word in CamelCase, as Kubernetes asks for.
    pub reason: String,
    pub message: String,
}

const GIVEN: &str = "assigned ";
const FROM: &str = " from ";
const NOTE: &str = "; ";
/// Behind the address in the sentence of `Reason::AddressRenumbered`.
const REPLACED: &str = " is replaced (";
const NOTHING: &str = "no address: ";
/// In front of the Lease of the crier that says it, at the end of the message.
const BY: &str = "; by the crier of the Lease ";

impl Condition {
    pub const TYPE: &'static str = "crier.dev/Allocated";
    /// Of a file that names neither a Lease nor a class.
    pub const DEFAULT_LEASE: &'static str = "kube-system/crier";

    /// `addresses` were given and stay; `note` is what is the matter all the same.
    pub fn given(
        allocated: bool,
        code: &str,
        addresses: &[IpAddr],
        pools: &[PoolName],
        note: Option<&str>,
    ) -> Condition {
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let pools: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
        let mut message = format!("{GIVEN}{}", addresses.join(", "));
        if !pools.is_empty() {
            message.extend([FROM, &pools.join(", ")]);
        }
        if let Some(note) = note {
            message.extend([NOTE, note]);
        }
        Condition { allocated, reason: camel_case(code), message }
    }

    /// The Service has no address, because of `why`.
    pub fn nothing(code: &str, why: &str) -> Condition {
        Condition { allocated: false, reason: camel_case(code), message: format!("{NOTHING}{why}") }
    }

    /// The status shows an address that crier did not give and that is to go, because of `why`.
    pub fn not_given(code: &str, why: String) -> Condition {
        Condition { allocated: false, reason: camel_case(code), message: why }
    }

    /// The same, said by the crier whose agents are elected by this Lease.
    #[must_use]
    pub fn by(self, lease: &ObjectKey) -> Condition {
        if is_of_default(lease) {
            return self;
        }
        Condition { message: format!("{}{BY}{lease}", self.message), ..self }
    }

    /// The Lease of the crier that says it, `namespace/name`; `None` for the Lease of a file that names none, and for what versions wrote
    /// that did not say it.
    pub fn lease(&self) -> Option<&str> {
        self.message.rsplit_once(BY).map(|(_, lease)| lease).filter(|lease| !lease.contains(NOTE))
    }

    /// Whether the crier of this Lease says it, or may have before it said so.
    pub fn is_by(&self, lease: &ObjectKey) -> bool {
        self.lease().is_none_or(|by| *by == lease.to_string())
    }

    /// Whether it is a word of the crier of this Lease: what does not say whose it is is the default one's.
    pub fn is_of(&self, lease: &ObjectKey) -> bool {
        match self.lease() {
            Some(_) => self.is_by(lease),
            None => is_of_default(lease),
        }
    }

    /// The same, whichever crier says it.
    pub fn says_the_same_as(&self, other: &Condition) -> bool {
        fn said(it: &Condition) -> &str {
            it.message.rsplit_once(BY).map_or(&it.message, |(said, _)| said)
        }
        self.allocated == other.allocated && self.reason == other.reason && said(self) == said(other)
    }

    /// The addresses that crier gave, in their order; none if the message is not crier's.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let list = self.lists().map(|(addresses, _)| addresses).unwrap_or_default();
        list.split(", ").map_while(|text| text.parse().ok()).collect()
    }

    /// What is the matter with the Service: why it has no address, or not what it is to have.
    pub fn complaint(&self) -> Option<&str> {
        if self.allocated {
            return None;
        }
        let said = self.message.rsplit_once(BY).map_or(self.message.as_str(), |(said, _)| said);
        if said.starts_with(GIVEN) {
            return said.split_once(NOTE).map(|(_, note)| note);
        }
        Some(said.strip_prefix(NOTHING).unwrap_or(said))
    }

    /// The pools that crier gave these from, each once: which address is of which pool the message does not say.
    pub fn pools(&self) -> Vec<PoolName> {
        let list = self.lists().map(|(_, pools)| pools).unwrap_or_default();
        list.split(", ").filter(|name| !name.is_empty()).map(PoolName::from).collect()
    }

    /// The addresses that are replaced and stand beside their successors, as far as a note says so.
    pub fn leaving(&self) -> Vec<IpAddr> {
        let notes = self.message.split(NOTE).skip(1).filter_map(|note| note.split_once(REPLACED));
        notes.filter_map(|(address, _)| address.parse().ok()).collect()
    }

    /// What stands before and behind the word between addresses and pools.
    fn lists(&self) -> Option<(&str, &str)> {
        let said = self.message.strip_prefix(GIVEN)?.split(NOTE).next()?;
        Some(said.split_once(FROM).unwrap_or((said, "")))
    }
}

/// The Lease of a file that names neither a Lease nor a class.
pub fn is_of_default(lease: &ObjectKey) -> bool {
    Condition::DEFAULT_LEASE.split_once('/') == Some((lease.namespace.as_str(), lease.name.as_ref()))
}

/// `no-free-address` as `NoFreeAddress`: a reason of a condition has no hyphens.
fn camel_case(code: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    code.split('-').map(capital).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_addresses_are_read_back_whatever_else_the_message_says() {
        let pair = addresses(&["192.0.2.1", "fd00::1"]);
        for (pools, note) in
            [(vec![], None), (vec!["lan".into()], None), (vec!["a".into(), "b".into()], Some("x; from 192.0.2.9"))]
        {
            let condition = Condition::given(true, "assigned", &pair, &pools, note);
            assert_eq!(condition.addresses(), pair, "{}", condition.message);
            assert_eq!((condition.pools(), condition.leaving()), (pools, addresses(&[])), "{}", condition.message);
        }
        let condition = Condition::nothing("no-free-address", "192.0.2.1 is taken");
        assert_eq!((condition.reason.as_str(), condition.addresses()), ("NoFreeAddress", Vec::new()));
    }

    #[test]
    fn the_addresses_that_are_replaced_are_read_back() {
        let replaced = |address: &str, by_prefix| Reason::AddressRenumbered {
            address: address.parse().unwrap(),
            overlap: "10m".to_owned(),
            by_prefix,
        };
        let notes = [replaced("192.0.2.9", false), replaced("fd00::9", true)].map(|it| it.to_string()).join("; ");
        let condition = Condition::given(true, "assigned", &addresses(&["192.0.2.1"]), &["lan".into()], Some(&notes));
        assert_eq!(condition.leaving(), addresses(&["192.0.2.9", "fd00::9"]));
        assert_eq!(condition.addresses(), addresses(&["192.0.2.1"]));
    }

    #[test]
    fn it_says_by_which_crier_it_is_unless_that_is_the_default_one() {
        let file = "[kubernetes]\nin-cluster = true\n".to_owned();
        let file = crate::config::SourceFile { path: "test.toml".to_owned(), text: file };
        let config = crate::config::parse(&[file], &crate::config::NoSecrets).expect("it is good");
        let crate::config::Source::Kubernetes(kubernetes) = config.source else { panic!("it has an API server") };
        assert!(is_of_default(&kubernetes.lease));
        let (one, other) = (ObjectKey::new("kube-system", "crier-a"), ObjectKey::new("lb", "crier"));
        let given = Condition::given(true, "assigned", &addresses(&["192.0.2.1"]), &["lan".into()], Some("a; b"));
        for said in
            [given, Condition::nothing("no-free-address", "x"), Condition::not_given("address-goes", "y".to_owned())]
        {
            assert_eq!(said.clone().by(&kubernetes.lease), said);
            assert_eq!(said.lease(), None);
            let by = said.clone().by(&one);
            assert_eq!(
                (by.lease(), by.addresses(), by.pools()),
                (Some("kube-system/crier-a"), said.addresses(), said.pools())
            );
            assert!(by.is_by(&one) && !by.is_by(&other) && said.is_by(&other), "{}", by.message);
            assert!(by.says_the_same_as(&said) && by.says_the_same_as(&said.clone().by(&other)), "{}", by.message);
            let another = Condition { allocated: !said.allocated, ..said };
            assert!(!by.says_the_same_as(&another), "{}", by.message);
        }
    }

    #[test]
    fn what_is_not_of_crier_gives_nothing() {
        for message in ["", "assigned", "assigned by hand", "192.0.2.1"] {
            let condition = Condition { allocated: true, reason: String::new(), message: message.to_owned() };
            assert_eq!(condition.addresses(), addresses(&[]), "{message}");
        }
    }
}
