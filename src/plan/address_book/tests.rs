//! Who has an address, in what order, and for how long one rests. Floor 1.

use super::*;
use crate::clock;
use crate::plan::sharing::Backends;
use crate::world::ServicePort;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn claim_of(addresses: Vec<IpAddr>, terms: Option<Terms>) -> Claim {
    Claim { addresses, terms, ..Claim::default() }
}

fn claim(book: &mut AddressBook, name: &str, addresses: &[IpAddr], rest: Option<Instant>) {
    book.claim(&key(name), claim_of(addresses.to_vec(), None), None, |_| rest);
}

fn sharing(sharing_key: &str, port: u16) -> Option<Terms> {
    let ports = vec![ServicePort { protocol: "TCP".to_owned(), port }];
    Some(Terms { key: sharing_key.to_owned(), backends: Backends::AllNodes, ports })
}

#[test]
fn a_freed_address_rests_for_all_but_its_last_holder_and_wakes_only_for_those_who_wait() {
    let (mut book, now) = (AddressBook::default(), clock::now());
    let until = now + Duration::from_secs(30);
    claim(&mut book, "one", &[ADDRESS], None);
    claim(&mut book, "one", &[], Some(until));
    assert!(book.is_resting(ADDRESS, &key("two")) && !book.is_resting(ADDRESS, &key("one")));
    assert_eq!(book.next_deadline(), None, "nobody waits for it");
    book.set_waiting(&key("two"), true);
    assert_eq!(book.next_deadline(), Some(until));
    assert!(!book.wake(now) && book.wake(until));
    assert!(!book.is_resting(ADDRESS, &key("two")));
}

#[test]
fn of_services_that_claim_one_address_the_first_by_name_has_it_and_the_next_follows() {
    let mut book = AddressBook::default();
    for name in ["b", "c", "a"] {
        claim(&mut book, name, &[ADDRESS], None);
    }
    book.settle();
    let claimants = |book: &AddressBook| book.claims().get(&ADDRESS).map(|services| services.to_vec());
    assert_eq!(claimants(&book), Some(vec![key("a"), key("b"), key("c")]));
    assert_eq!(book.tenants(ADDRESS), [key("a")]);
    claim(&mut book, "a", &[], None);
    let concerned = book.settle();
    assert!(concerned.contains(&key("b")) && concerned.contains(&key("c")), "these two are concerned: {concerned:?}");
    assert_eq!(book.tenants(ADDRESS), [key("b")]);
    claim(&mut book, "c", &[], None);
    claim(&mut book, "b", &[], None);
    book.settle();
    assert_eq!(claimants(&book), None, "nothing is kept of an address that nobody claims");
    assert!(book.standings.is_empty() && book.claimed_by.is_empty() && book.tenants(ADDRESS).is_empty());
}

#[test]
fn who_was_given_an_address_first_keeps_it_when_another_changes() {
    let (mut book, now) = (AddressBook::default(), clock::now());
    let at = |secs| Some(now + Duration::from_secs(secs));
    let mut put = |name: &str, terms, since| {
        book.claim(&key(name), claim_of(vec![ADDRESS], terms), since, |_| None);
        book.settle();
        let refused = ["a", "b"].map(|name| book.standing(ADDRESS, &key(name)).is_err());
        (book.tenants(ADDRESS).to_vec(), refused)
    };
    put("b", sharing("k", 80), at(0));
    assert_eq!(put("a", sharing("k", 443), at(1)), (vec![key("b"), key("a")], [false, false]));
    assert_eq!(put("b", sharing("k", 443), at(2)).1, [false, true], "b is the one that changed");
    assert_eq!(put("b", sharing("k", 53), at(3)).1, [false, false]);
    assert_eq!(put("a", sharing("other", 443), at(4)).1, [true, false], "and now a");
}

#[test]
fn an_agent_that_takes_over_knows_no_order_but_that_of_names() {
    let (mut book, now) = (AddressBook::default(), clock::now());
    book.claim(&key("b"), claim_of(vec![ADDRESS], None), Some(now), |_| None);
    book.claim(&key("a"), claim_of(vec![ADDRESS], None), Some(now + FRESH), |_| None);
    book.settle();
    assert_eq!(book.tenants(ADDRESS), [key("b")]);
    book.forget_order();
    assert_eq!(book.settle(), [key("a"), key("b")].into());
    assert_eq!(book.tenants(ADDRESS), [key("a")]);
}

#[test]
fn an_agent_that_takes_over_leaves_an_address_to_the_service_whose_status_says_that_crier_gave_it() {
    let mut book = AddressBook::default();
    let given = Claim { given: vec![ADDRESS], ..claim_of(vec![ADDRESS], None) };
    book.claim(&key("b"), given.clone(), None, |_| None);
    // Somebody writes it into the status of another one.
    book.claim(&key("a"), claim_of(vec![ADDRESS], None), None, |_| None);
    book.settle();
    assert_eq!(book.tenants(ADDRESS), [key("b")]);
    book.claim(&key("a"), given, None, |_| None);
    book.settle();
    assert_eq!(book.tenants(ADDRESS), [key("a")], "among equals the name counts");
}

#[test]
fn partners_are_found_by_their_key_and_told_when_one_of_them_changes() {
    let mut book = AddressBook::default();
    book.claim(&key("a"), claim_of(vec![ADDRESS], sharing("k", 80)), None, |_| None);
    book.claim(&key("b"), claim_of(vec!["192.0.2.2".parse().unwrap()], sharing("k", 80)), None, |_| None);
    assert_eq!(book.settle(), [key("a"), key("b")].into());
    let of_b = key("b");
    assert_eq!(book.partners("k", &of_b).collect::<Vec<_>>(), [(&key("a"), &[ADDRESS][..], &[][..])]);
    assert!(book.settle().is_empty(), "nothing is new");
    book.claim(&key("a"), claim_of(vec![ADDRESS], sharing("other", 80)), None, |_| None);
    assert_eq!(book.settle(), [key("a"), key("b")].into());
    assert_eq!(book.partners("k", &of_b).count(), 0);
    book.claim(&key("a"), claim_of(Vec::new(), None), None, |_| None);
    assert!(!book.by_sharing_key.contains_key("other"), "nothing is kept of a key that nobody has");
}

#[test]
fn a_chosen_address_is_fresh_for_its_service_for_a_minute() {
    let (mut book, now) = (AddressBook::default(), clock::now());
    book.note_fresh(&key("one"), vec![ADDRESS], now);
    assert!(book.is_fresh(ADDRESS, &key("one")) && !book.is_fresh(ADDRESS, &key("two")));
    book.wake(now + FRESH);
    assert!(!book.is_fresh(ADDRESS, &key("one")));
}
