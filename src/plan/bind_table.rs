//! The bind table: which addresses this host is to accept on a link of its own, and for which Service.
//! Floor 1. It keeps what the verdicts ask for; `kernel::addresses` puts them there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use imbl::OrdMap;

use crate::names::{InterfaceName, ObjectKey};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct BindTable {
    /// What each Service wants. Never empty lists.
    wanted: BTreeMap<ObjectKey, Vec<(IpAddr, InterfaceName)>>,
    addresses: OrdMap<IpAddr, InterfaceName>,
    moved: bool,
}

impl BindTable {
    /// All that a Service wants from now on.
    pub fn put(&mut self, service: &ObjectKey, wanted: Vec<(IpAddr, InterfaceName)>) {
        let before = self.wanted.get(service).map(Vec::as_slice).unwrap_or_default();
        if before == wanted {
            return;
        }
        self.moved = true;
        for (address, _) in before {
            self.addresses.remove(address);
        }
        self.addresses.extend(wanted.iter().cloned());
        match wanted.is_empty() {
            true => drop(self.wanted.remove(service)),
            false => drop(self.wanted.insert(service.clone(), wanted)),
        }
    }

    pub fn addresses(&self) -> &OrdMap<IpAddr, InterfaceName> {
        &self.addresses
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}
