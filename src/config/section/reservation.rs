//! `[[reservation]]`: addresses of the pools that only one Service gets. Floor 1. Not for keeping addresses from all
//! Services: that is `exclude` of the pool.

use std::net::IpAddr;

use super::{Check, Section, section};
use crate::config::complaint::{Place, Problem};
use crate::config::key::{set, text};
use crate::config::reader::Reader;
use crate::config::shape::written;
use crate::config::syntax;
use crate::names::ObjectKey;

section! {
    /// `[[reservation]]`
    pub struct Reservation = Section::many("reservation", "Addresses that only one Service gets."), written as Written;
    keys {
        pub service: ObjectKey = text(
            "service",
            "namespace/name",
            |text, _| syntax::service(text),
            "The Service. It need not exist yet.",
        )
        .set("\"shop/front\""), touches Decisions;
        /// In the order in which they are given.
        pub addresses: Vec<IpAddr> = set(
            "addresses",
            "addresses of either family",
            |text, _| syntax::ip(text),
            "The addresses, assigned to the Service in this order before any other. No other Service gets one of them.",
        )
        .required()
        .set("[\"192.168.35.101\"]"), touches Decisions;
    }
}

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        if self.addresses.empty_list {
            let hint = "name an address of a pool: addresses = [\"192.0.2.1\"]";
            section.complain(&self.addresses.place, "the reservation has no addresses", hint);
        }
        if let Some(service) = &self.service.value {
            let of_service = section.seen.reserving.iter().find(|(other, _)| other == service);
            if let Some(first) = of_service.map(|(_, place)| place.clone()) {
                let message = format!("{} has a [[reservation]] already", written(&service.to_string()));
                let hint = "write all of its addresses into one, in the order in which they are to be given";
                section.conflict(&self.service.place, message, hint, (&first, "the first is here"));
            } else {
                section.seen.reserving.push((service.clone(), self.service.place.clone()));
            }
        }
        let addresses: Vec<(IpAddr, Place)> = section
            .texts("addresses")
            .filter_map(|(text, place)| Some((syntax::ip(text).ok()?, place.clone())))
            .collect();
        for (address, place) in addresses {
            if let Err(Problem { message, hint, .. }) = reservable(address, section) {
                section.complain(&place, message, hint.as_deref().unwrap_or_default());
            }
            let first =
                section.seen.reserved.iter().find(|(other, _)| *other == address).map(|(_, place)| place.clone());
            if let Some(first) = first {
                let message = format!("{} is reserved twice", written(&address.to_string()));
                section.conflict(&place, message, "remove one of the two", (&first, "the first is here"));
            }
            section.seen.reserved.push((address, place));
        }
    }
}

/// The address is one that a pool gives.
fn reservable(address: IpAddr, section: &Reader<'_>) -> Result<(), Problem> {
    let of_pools = &section.seen.ranges;
    let Some(pool) = of_pools.iter().find(|it| it.range.contains(address)).map(|it| &it.pool) else {
        let message = format!("{} is in no pool", written(&address.to_string()));
        return Err(Problem::new(message, "reserve an address of a [[pool]], or add it to one"));
    };
    match section.seen.excluded.iter().any(|range| range.contains(address)) {
        true => {
            let message = format!("the pool {} excludes {}", written(pool.as_str()), written(&address.to_string()));
            Err(Problem::new(message, "remove it from exclude: a reserved address is given to no other Service"))
        }
        false => Ok(()),
    }
}
