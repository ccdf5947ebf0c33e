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
    /// How many Services want each address.
    wanters: BTreeMap<IpAddr, usize>,
    addresses: OrdMap<IpAddr, InterfaceName>,
    moved: bool,
    /// All objects are known, and what they want was handed out since.
    listed: bool,
}

impl BindTable {
    /// What a Service wants, and what it wanted before: where an agent leaves, neighbours go on sending here for a moment, and
    /// `kernel::addresses` takes all of them away behind that.
    pub fn with_before(
        &self,
        service: &ObjectKey,
        mut wanted: Vec<(IpAddr, InterfaceName)>,
    ) -> Vec<(IpAddr, InterfaceName)> {
        let before = self.wanted.get(service).into_iter().flatten();
        let gone: Vec<_> = before.filter(|it| !wanted.contains(it)).cloned().collect();
        wanted.extend(gone);
        wanted
    }

    /// All that a Service wants from now on.
    pub fn put(&mut self, service: &ObjectKey, wanted: Vec<(IpAddr, InterfaceName)>) {
        let before = self.wanted.get(service).map(Vec::as_slice).unwrap_or_default();
        if before == wanted {
            return;
        }
        self.moved = true;
        for (address, _) in &wanted {
            *self.wanters.entry(*address).or_default() += 1;
        }
        for (address, _) in before {
            let wanters = self.wanters.get(address).copied().unwrap_or_default();
            match wanters {
                0 | 1 => {
                    self.wanters.remove(address);
                    self.addresses.remove(address);
                }
                several => drop(self.wanters.insert(*address, several - 1)),
            }
        }
        self.addresses.extend(wanted.iter().cloned());
        match wanted.is_empty() {
            true => drop(self.wanted.remove(service)),
            false => drop(self.wanted.insert(service.clone(), wanted)),
        }
    }

    /// All objects are known. An earlier life of the agent may have bound addresses that nobody wants any more, and what is
    /// remembered of objects does not tell.
    pub fn note_listed(&mut self) {
        self.moved |= !std::mem::replace(&mut self.listed, true);
    }

    pub fn addresses(&self) -> &OrdMap<IpAddr, InterfaceName> {
        &self.addresses
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_until_the_last_service_that_wants_it_is_gone() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let [one, two] = ["one", "two"].map(|name| ObjectKey::new("shop", name));
        let wanted = || vec![(address, InterfaceName::from("lo"))];
        let mut table = BindTable::default();
        table.put(&one, wanted());
        table.put(&two, wanted());
        table.put(&one, Vec::new());
        assert!(table.addresses().contains_key(&address));
        // An agent that leaves.
        table.put(&two, table.with_before(&two, Vec::new()));
        table.put(&two, table.with_before(&two, wanted()));
        assert!(table.addresses().contains_key(&address));
        table.put(&two, Vec::new());
        assert!(table.addresses().is_empty() && table.wanters.is_empty() && table.wanted.is_empty());
    }
}
