//! A standalone agent that announces one Service over BGP, for tests that are about its peers.

use crate::crier::Crier;
use crate::manifests::Manifests;
use crate::namespace::Namespace;
use crate::service::Service;
use crate::wait::secs;

/// The addresses of the Service: the first of either family in the pool.
pub const V4: &str = "203.0.113.1";
pub const V6: &str = "2001:db8:1::1";

impl Namespace {
    /// Starts an agent in here, as the node of the namespace's name, and waits until it is ready. `bgp` is the text of
    /// `[bgp]` and its peers; they are all told of the Service. The addresses are bound to `lo`.
    #[track_caller]
    pub fn announcer(&self, bgp: &str) -> Crier {
        let manifests = self.announcers_manifests();
        manifests.service(&Service::new("web").policy("Cluster").families(&["IPv4", "IPv6"]).on("node-1"));
        let agent = self.crier(
            self.name(),
            &format!(
                "{}[[pool]]\nname = \"public\"\naddresses = [\"{V4}-203.0.113.9\", \"{V6}-2001:db8:1::9\"]\nbind = \"lo\"\n\
                 {bgp}\n[[bgp.advertisement]]\n",
                manifests.section()
            ),
        );
        agent.wait_ready(secs(20));
        agent
    }

    /// The folder of that agent's manifests, for more of them.
    #[track_caller]
    pub fn announcers_manifests(&self) -> Manifests {
        Manifests::in_folder(self.rack().subfolder(&format!("{}.manifests", self.name())))
    }
}
