//! The routers that BGP has something to say to: a session with them stands, or its last NOTIFICATION is under way. BFD holds no session
//! with one of them down: a router that keeps the routes when BFD goes down would miss that the session has ended. Floor 0.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::ScopedAddress;
use crate::names::InterfaceName;

/// All of them. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct InSession(Arc<Mutex<Vec<Router>>>);

/// One session with a router, until it is dropped.
#[derive(Debug)]
pub struct SessionMark {
    all: InSession,
    router: Router,
}

/// Two VRFs may have routers of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    address: ScopedAddress,
    vrf: Option<InterfaceName>,
}

impl Router {
    /// `device`: its VRF, if it is in one. The link of a link-local address may stand for that.
    pub fn new(address: ScopedAddress, device: Option<&InterfaceName>) -> Router {
        let vrf = device.filter(|_| address.interface.is_none()).cloned();
        Router { address, vrf }
    }
}

impl InSession {
    pub fn mark(&self, router: Router) -> SessionMark {
        self.list().push(router.clone());
        SessionMark { all: self.clone(), router }
    }

    pub fn has(&self, router: &Router) -> bool {
        self.list().contains(router)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Router>> {
        // A panic elsewhere may poison the lock, but it cannot leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SessionMark {
    fn drop(&mut self) {
        let mut list = self.all.list();
        if let Some(at) = list.iter().position(|router| *router == self.router) {
            list.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_in_session_while_any_of_its_sessions_is_and_in_its_vrf_alone() {
        let router = |address: &str, device: Option<&str>| {
            let (ip, interface) = address.split_once('%').map_or((address, None), |(ip, link)| (ip, Some(link.into())));
            Router::new(ScopedAddress { ip: ip.parse().unwrap(), interface }, device.map(Into::into).as_ref())
        };
        let all = InSession::default();
        let (one, two) = (all.mark(router("10.0.0.1", Some("red"))), all.mark(router("10.0.0.1", Some("red"))));
        assert!(!all.has(&router("10.0.0.1", Some("blue"))) && !all.has(&router("10.0.0.1", None)), "in red alone");
        drop(one);
        assert!(all.has(&router("10.0.0.1", Some("red"))));
        drop(two);
        assert!(!all.has(&router("10.0.0.1", Some("red"))));
        let _three = all.mark(router("fe80::1%eth0", Some("red")));
        assert!(all.has(&router("fe80::1%eth0", Some("eth0"))), "BFD has the link where BGP has the VRF");
    }
}
