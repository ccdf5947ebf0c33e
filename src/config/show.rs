//! The effective configuration as TOML: defaults filled in, drop-ins merged, aliases of communities resolved.
//! Floor 1. What is printed parses to the same `Config` on the same host. Of a secret the file is printed, never what is in it.

use std::fmt::{Display, Write};

use super::{
    Access, Advertisement, AoKey, Api, Bgp, Config, Host, Kubernetes, L2, Log, LogFormat, Manifests, Node, Peer,
    PeerAsn, Pool, Pulse, PulseKey, SecretFile, Source, State, Subnet, duration,
};

/// The whole configuration, in the order of the sections in the manual.
pub fn show(config: &Config) -> String {
    let Config {
        node: Node { name, ignore_exclude_label },
        api,
        state: State { folder },
        source,
        pools,
        l2,
        pulse,
        bgp,
        host,
        log,
    } = config;
    let mut page = Page::default();
    page.section("[node]");
    page.text("name", name.as_ref().map_or("auto", |name| name.as_str()));
    page.plain("ignore-exclude-label", ignore_exclude_label);
    let Api { socket, listen } = api;
    page.section("[api]");
    page.text("socket", socket.display());
    page.text("listen", listen.map(|listen| listen.to_string()).unwrap_or_default());
    page.section("[state]");
    page.text("folder", folder.display());
    page.source(source);
    pools.iter().for_each(|pool| page.pool(pool));
    l2.iter().for_each(|l2| page.l2(l2));
    page.pulse(pulse);
    page.bgp(bgp);
    let Host { manage_sysctls, arp_offload } = host;
    page.section("[host]");
    page.plain("manage-sysctls", manage_sysctls);
    page.plain("arp-offload", arp_offload);
    let Log { level, format } = log;
    page.section("[log]");
    page.text("level", level);
    page.text(
        "format",
        match format {
            LogFormat::Auto => "auto",
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        },
    );
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn section(&mut self, header: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}{header}"));
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// A flag or number.
    fn plain(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.plain(key, quoted(value));
    }

    fn texts(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        let values: Vec<String> = values.into_iter().map(quoted).collect();
        self.plain(key, format_args!("[{}]", values.join(", ")));
    }

    fn text_if(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn plain_if(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.plain(key, value);
        }
    }

    fn secret(&mut self, key: &str, secret: Option<&SecretFile>) {
        self.text_if(key, secret.and_then(|secret| secret.path.as_ref()).map(|path| path.display()));
    }

    fn tcp_ao(&mut self, keys: &[AoKey]) {
        let entry = |AoKey { send_id, receive_id, algorithm, secret }: &AoKey| {
            let path = secret.path.as_ref().map(|path| format!(", key-file = {}", quoted(path.display())));
            format!(
                "{{ send-id = {send_id}, receive-id = {receive_id}, algorithm = \"{}\"{} }}",
                algorithm.name(),
                path.unwrap_or_default()
            )
        };
        let entries: Vec<String> = keys.iter().map(entry).collect();
        if !entries.is_empty() {
            self.plain("tcp-ao", format_args!("[{}]", entries.join(", ")));
        }
    }

    fn source(&mut self, source: &Source) {
        match source {
            Source::Kubernetes(Kubernetes { access, class, default_class, lease }) => {
                self.section("[kubernetes]");
                match access {
                    Access::Kubeconfig(path) => self.text("kubeconfig", path.display()),
                    Access::InCluster => self.plain("in-cluster", true),
                }
                self.text("class", class);
                self.plain("default-class", default_class);
                self.text("lease", lease);
            }
            Source::Manifests(Manifests { folder }) => {
                self.section("[manifests]");
                self.text("folder", folder.display());
            }
        }
    }

    fn pool(&mut self, pool: &Pool) {
        let Pool {
            name,
            addresses,
            auto_assign,
            avoid_network_and_broadcast,
            priority,
            namespaces,
            namespace_selector,
            service_selector,
            rest,
            bind,
        } = pool;
        self.section("[[pool]]");
        self.text("name", name);
        self.texts("addresses", addresses);
        self.plain("auto-assign", auto_assign);
        self.plain("avoid-network-and-broadcast", avoid_network_and_broadcast);
        self.plain_if("priority", *priority);
        self.texts("namespaces", namespaces);
        self.text_if("namespace-selector", namespace_selector.as_ref());
        self.text_if("service-selector", service_selector.as_ref());
        self.text("rest", duration::text(*rest));
        self.text_if("bind", bind.as_ref());
    }

    fn l2(&mut self, l2: &L2) {
        let L2 { pools, interfaces, exclude_interfaces, nodes, preference, sticky, subnet } = l2;
        self.section("[[l2]]");
        self.texts("pools", pools);
        self.texts("interfaces", interfaces);
        self.texts("exclude-interfaces", exclude_interfaces);
        self.text_if("nodes", nodes.as_ref());
        let preference: Vec<String> = preference
            .iter()
            .map(|one| format!("{{ nodes = {}, weight = {} }}", quoted(&one.nodes), one.weight))
            .collect();
        self.plain("preference", format_args!("[{}]", preference.join(", ")));
        self.plain("sticky", sticky);
        self.text(
            "subnet",
            match subnet {
                Subnet::Prefer => "prefer",
                Subnet::Require => "require",
                Subnet::Ignore => "ignore",
            },
        );
    }

    fn pulse(&mut self, pulse: &Pulse) {
        let Pulse { interval, multiplier, key, peers } = pulse;
        self.section("[pulse]");
        self.text("interval", duration::text(*interval));
        self.plain("multiplier", multiplier);
        match key {
            PulseKey::Shared(key) => self.secret("key-file", Some(key)),
            PulseKey::Unauthenticated => self.plain("unauthenticated", true),
            PulseKey::Absent => {}
        }
        self.texts("peers", peers);
    }

    fn bgp(&mut self, bgp: &Bgp) {
        let Bgp { asn, router_id, listen, port, peers, advertisements } = bgp;
        self.section("[bgp]");
        self.plain_if("asn", *asn);
        self.text("router-id", router_id.map_or("auto".to_owned(), |id| id.to_string()));
        self.texts("listen", listen);
        self.plain("port", port);
        peers.iter().for_each(|peer| self.peer(peer));
        advertisements.iter().for_each(|advertisement| self.advertisement(advertisement));
    }

    fn peer(&mut self, peer: &Peer) {
        let Peer {
            name,
            address,
            asn,
            local_asn,
            hold_time,
            keepalive_time,
            connect_retry_time,
            source_address,
            port,
            passive,
            multihop,
            ttl_security,
            password,
            tcp_ao,
            vrf,
            router_id,
            nodes,
        } = peer;
        self.section("[[bgp.peer]]");
        self.text("name", name);
        self.text("address", address);
        match asn {
            PeerAsn::Is(asn) => self.plain("asn", asn),
            PeerAsn::External => self.text("asn", "external"),
            PeerAsn::Internal => self.text("asn", "internal"),
        }
        self.plain("local-asn", local_asn);
        self.text("hold-time", duration::text(hold_time.unwrap_or_default()));
        self.text_if("keepalive-time", keepalive_time.map(duration::text));
        self.text("connect-retry-time", duration::text(*connect_retry_time));
        self.text_if("source-address", *source_address);
        self.plain("port", port);
        self.plain("passive", passive);
        self.plain("multihop", multihop);
        self.plain("ttl-security", ttl_security);
        self.secret("password-file", password.as_ref());
        self.tcp_ao(tcp_ao);
        self.text_if("vrf", vrf.as_ref());
        self.text_if("router-id", *router_id);
        self.text_if("nodes", nodes.as_ref());
    }

    fn advertisement(&mut self, advertisement: &Advertisement) {
        let Advertisement {
            pools,
            peers,
            service_selector,
            nodes,
            aggregation_length,
            aggregation_length_v6,
            local_preference,
            med,
            prepend,
            communities,
            link_bandwidth,
        } = advertisement;
        self.section("[[bgp.advertisement]]");
        self.texts("pools", pools);
        self.texts("peers", peers);
        self.text_if("service-selector", service_selector.as_ref());
        self.text_if("nodes", nodes.as_ref());
        self.plain("aggregation-length", aggregation_length);
        self.plain("aggregation-length-v6", aggregation_length_v6);
        self.plain_if("local-preference", *local_preference);
        self.plain_if("med", *med);
        self.plain("prepend", prepend);
        self.texts("communities", communities);
        self.plain("link-bandwidth", link_bandwidth);
    }
}

/// A basic string of TOML.
fn quoted(value: impl Display) -> String {
    let mut quoted = String::from("\"");
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            // TOML has no control characters in its strings; C0 and DEL are all that there are below 0x80.
            c if c.is_ascii_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
