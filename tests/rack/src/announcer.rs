//! A standalone agent that announces one Service over BGP, for tests that are about its peers.

use std::path::PathBuf;

use crate::crier::Crier;
use crate::namespace::Namespace;
use crate::wait::secs;

/// The addresses of the Service: the first of either family in the pool.
pub const V4: &str = "203.0.113.1";
pub const V6: &str = "2001:db8:1::1";

/// One Service of both families, with an endpoint, announced by every node.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  type: LoadBalancer
  externalTrafficPolicy: Cluster
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{ port: 80 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
addressType: IPv4
metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }
ports: [{ port: 80 }]
endpoints: [{ addresses: [10.244.0.1], nodeName: node-1, conditions: { ready: true } }]
";

impl Namespace {
    /// Starts an agent in here, as the node of the namespace's name, and waits until it is ready. `bgp` is the text of
    /// `[bgp]` and its peers; they are all told of the Service. The addresses are bound to `lo`.
    #[track_caller]
    pub fn announcer(&self, bgp: &str) -> Crier {
        let folder = self.announcers_manifests();
        std::fs::write(folder.join("web.yaml"), SERVICE).expect("the rack's folder is ours");
        let agent = self.crier(
            self.name(),
            &format!(
                "[manifests]\nfolder = \"{}\"\n\
                 [[pool]]\nname = \"public\"\naddresses = [\"{V4}-203.0.113.9\", \"{V6}-2001:db8:1::9\"]\nbind = \"lo\"\n\
                 {bgp}\n[[bgp.advertisement]]\n",
                folder.display()
            ),
        );
        agent.wait_ready(secs(20));
        agent
    }

    /// The folder of that agent's manifests, for more of them.
    #[track_caller]
    pub fn announcers_manifests(&self) -> PathBuf {
        self.rack().subfolder(&format!("{}.manifests", self.name()))
    }
}
