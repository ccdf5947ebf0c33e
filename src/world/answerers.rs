//! Which stations answer for the addresses that this node asks the link for and does not answer for itself. Floor 1. Nothing is decided by it:
//! without pulses nothing else tells who answers.

use std::net::IpAddr;

use imbl::OrdMap;

use crate::claim::Answerer;
use crate::names::InterfaceName;

/// By address, and by link: an address may be answered by others on each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answerers(OrdMap<IpAddr, OrdMap<InterfaceName, Answerer>>);

impl Answerers {
    /// What is now known on a link; `None`: that nobody is known to answer there, or that this node does.
    pub fn note(&mut self, link: &InterfaceName, news: Vec<(IpAddr, Option<Answerer>)>) {
        for (address, answerer) in news {
            let on_links = self.0.entry(address).or_default();
            match answerer {
                Some(answerer) => drop(on_links.insert(link.clone(), answerer)),
                None => drop(on_links.remove(link)),
            }
            if on_links.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    /// The station that answers for an address; of several, that of the first link.
    pub fn of(&self, address: IpAddr) -> Option<&Answerer> {
        self.0.get(&address)?.values().next()
    }
}
