//! The routers that BGP has something to say to: a session with them stands, or its last NOTIFICATION is under way. BFD holds no session
//! with one of them down: a router that keeps the routes when BFD goes down would miss that the session has ended. Floor 0.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::address::ScopedAddress;

/// All of them. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<Vec<ScopedAddress>>>);

/// One session, until it is dropped.
#[derive(Debug)]
pub struct Stands {
    all: Standing,
    router: ScopedAddress,
}

impl Standing {
    pub fn begin(&self, router: ScopedAddress) -> Stands {
        self.list().push(router.clone());
        Stands { all: self.clone(), router }
    }

    pub fn is_with(&self, router: &ScopedAddress) -> bool {
        self.list().contains(router)
    }

    fn list(&self) -> MutexGuard<'_, Vec<ScopedAddress>> {
        // A panic elsewhere may poison the lock, but it cannot leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stands {
    fn drop(&mut self) {
        let mut list = self.all.list();
        if let Some(at) = list.iter().position(|router| *router == self.router) {
            list.swap_remove(at);
        }
    }
}
