//! A router with two BGP sessions to one node, over IPv4 with TCP MD5 and over IPv6 without, and a client beyond the router. The
//! agent is the test's own.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::bird::{self, Bird};
use crate::client::Asking;
use crate::{Host, Manifests, Process, Rack, Service, Site, eventually, millis, secs};

/// See the module's documentation. There is a Service `web`, and its page is served on the node.
pub struct Uplink {
    pub site: Site,
    pub manifests: Manifests,
    /// The file with the password of the session `signed`.
    pub password: PathBuf,
    pub bird: Bird,
    _page: Process,
}

/// The address that the Service `web` requests.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The router's configuration: the sessions `signed` and `plain`.
pub fn router(password: &str) -> String {
    format!(
        "router id 192.168.35.1;\n{}\n\
         protocol bgp signed {{ local as 64512; neighbor 192.168.35.11 as 64513; passive yes; password \"{password}\"; \
         ipv4 {{ import all; export none; }}; }}\n\
         protocol bgp plain {{ local as 64512; neighbor fd35::11 as 64513; passive yes; ipv6 {{ import all; export none; }}; }}\n",
        bird::KERNEL,
    )
}

impl Uplink {
    #[track_caller]
    pub fn new(rack: &Rack) -> Uplink {
        let manifests = Manifests::new(rack);
        manifests.service(&Service::new("web").anywhere().addresses(&ADDRESS.to_string()));
        let password = rack.write("tor.md5", "hunter-one");
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", 1);
        let bird = site.router.bird(&router("hunter-one"));
        let node = site.node(0);
        let page = node.serve(node.name(), &[80]);
        Uplink { manifests, password, bird, _page: page, site }
    }

    #[track_caller]
    pub fn wait_established(&self) {
        self.bird.wait_established("signed", secs(20));
        self.bird.wait_established("plain", secs(20));
    }

    /// How often each session was established.
    #[track_caller]
    pub fn established(&self) -> [usize; 2] {
        ["signed", "plain"].map(|name| self.bird.session(name).times_established)
    }
}

/// Asks the Service once each 5 ms from beyond the router.
#[track_caller]
pub fn ask_web(client: &Host) -> Asking {
    let page = (ADDRESS, 80);
    eventually("the client reaches the Service", secs(10), || {
        client.get(page).map(drop).map_err(|error| error.to_string())
    });
    client.ask_steadily(page, millis(5))
}
