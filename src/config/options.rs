//! The option table: every section and key that the configuration knows, with type, unit, range, default and price.
//! Floor 1. The checker, the defaults and the man page all read this table; nothing of it is written down twice.
//! What a value means beyond its type and range (an address, a selector, a reference) is judged where it is read.

use std::fmt;
use std::time::Duration;

/// A TOML table, or a list of tables. The whole file is the section with the empty path.
#[derive(Debug)]
pub struct Section {
    /// From the root, with dots: `bgp.peer`.
    pub path: &'static str,
    /// The section is written `[[path]]`, or as a list of inline tables, and may come many times.
    pub repeated: bool,
    pub summary: &'static str,
    pub available: Available,
    pub options: &'static [ConfigOption],
    /// Set where the keys are the operator's own, as the aliases of communities are.
    pub own_keys: Option<OwnKeys>,
}

/// Keys that no table can list, with texts as values.
#[derive(Debug)]
pub struct OwnKeys {
    /// What key and value are, in a few words.
    pub what: &'static str,
    /// One of them, in TOML.
    pub example: &'static str,
}

/// One key of a section.
#[derive(Debug)]
pub struct ConfigOption {
    pub key: &'static str,
    pub kind: Kind,
    pub default: Default,
    /// One line: what it is.
    pub summary: &'static str,
    /// What one gains and pays by moving it. Empty where there is nothing to weigh.
    pub trade: &'static str,
    pub available: Available,
    pub example: Example,
}

/// What the annotated example shows for a key, in TOML.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Example {
    /// The default, commented out.
    Default,
    /// A value, commented out.
    Shown(&'static str),
    /// A value that is set: the example would be none without it.
    Set(&'static str),
}

/// The type of a value, with its range. Ranges are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Flag,
    /// A flag, or one of these words.
    FlagOr(&'static [&'static str]),
    Number {
        least: i64,
        most: i64,
        unit: &'static str,
    },
    /// An AS number that a router may have, or one of these words.
    Asn(&'static [&'static str]),
    /// Text such as `"1m30s"`.
    Duration {
        least: Duration,
        most: Duration,
    },
    /// Text; what text is said in a few words.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static str),
}

/// What holds where the key is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// Leaving it out is a mistake.
    Required,
    /// Nothing; what that means is said in a few words.
    Unset(&'static str),
    Flag(bool),
    Number(i64),
    Text(&'static str),
    Texts(&'static [&'static str]),
}

/// Whether this version does what the key asks for. What it does not do is refused, never ignored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Available {
    Yes,
    /// Only `false` is accepted; what `true` would need is named.
    NotYetTrue(&'static str),
    /// What the key would need is named.
    NotYet(&'static str),
}

impl Section {
    /// The section at this path, if there is one.
    pub fn find(path: &str) -> Option<&'static Section> {
        SECTIONS.iter().find(|section| section.path == path)
    }

    pub fn option(&self, key: &str) -> Option<&'static ConfigOption> {
        self.options.iter().find(|option| option.key == key)
    }

    /// The path of a key or section in this section.
    pub fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The keys and sections that may stand in this section.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        let parent = self.path;
        let sections = SECTIONS.iter().filter_map(move |section| {
            let (above, last) = section.path.rsplit_once('.').unwrap_or(("", section.path));
            (above == parent && !last.is_empty()).then_some(last)
        });
        self.options.iter().map(|option| option.key).chain(sections)
    }
}

/// The section's header as it is written in a file.
impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path, self.repeated) {
            ("", _) => f.write_str("the file"),
            (path, true) => write!(f, "[[{path}]]"),
            (path, false) => write!(f, "[{path}]"),
        }
    }
}

/// The type and range in words: `a number from 1 to 65535`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any_of = |words: &[&str]| words.iter().map(|word| format!(", or \"{word}\"")).collect::<String>();
        match self {
            Kind::Flag => f.write_str("true or false"),
            Kind::FlagOr(words) => write!(f, "true, false{}", any_of(words)),
            Kind::Number { least, most, unit: "" } => write!(f, "a number from {least} to {most}"),
            Kind::Number { least, most, unit } => write!(f, "a number of {unit} from {least} to {most}"),
            Kind::Asn(words) => write!(f, "an AS number from 1 to 4294967294{}", any_of(words)),
            Kind::Duration { least, most } => {
                write!(f, "a duration from {} to {}", super::duration::text(*least), super::duration::text(*most))
            }
            Kind::Text(what) => f.write_str(what),
            Kind::Texts(what) => write!(f, "a list of {what}"),
        }
    }
}

/// The default as TOML, or what holds without one, in words.
impl fmt::Display for Default {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Default::Required => f.write_str("none, it must be written"),
            Default::Unset(meaning) => f.write_str(meaning),
            Default::Flag(flag) => write!(f, "{flag}"),
            Default::Number(number) => write!(f, "{number}"),
            Default::Text(text) => write!(f, "\"{text}\""),
            Default::Texts(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

impl ConfigOption {
    const fn new(key: &'static str, kind: Kind, default: Default, summary: &'static str) -> ConfigOption {
        ConfigOption { key, kind, default, summary, trade: "", available: Available::Yes, example: Example::Default }
    }

    const fn shown(self, example: &'static str) -> ConfigOption {
        ConfigOption { example: Example::Shown(example), ..self }
    }

    const fn set(self, example: &'static str) -> ConfigOption {
        ConfigOption { example: Example::Set(example), ..self }
    }

    /// Some value of it is accepted.
    pub fn available_somehow(&self) -> bool {
        !matches!(self.available, Available::NotYet(_))
    }

    const fn trade(self, trade: &'static str) -> ConfigOption {
        ConfigOption { trade, ..self }
    }

    const fn not_yet(self, what: &'static str) -> ConfigOption {
        ConfigOption { available: Available::NotYet(what), ..self }
    }

    const fn not_yet_true(self, what: &'static str) -> ConfigOption {
        ConfigOption { available: Available::NotYetTrue(what), ..self }
    }
}

impl Section {
    const fn one(path: &'static str, summary: &'static str, options: &'static [ConfigOption]) -> Section {
        Section { path, repeated: false, summary, available: Available::Yes, options, own_keys: None }
    }

    const fn many(path: &'static str, summary: &'static str, options: &'static [ConfigOption]) -> Section {
        Section { repeated: true, ..Section::one(path, summary, options) }
    }

    const fn not_yet(self, what: &'static str) -> Section {
        Section { available: Available::NotYet(what), ..self }
    }
}

use self::Default::{Flag, Number, Required, Text, Texts, Unset};

const fn option(key: &'static str, kind: Kind, default: Default, summary: &'static str) -> ConfigOption {
    ConfigOption::new(key, kind, default, summary)
}

const fn number(least: i64, most: i64) -> Kind {
    Kind::Number { least, most, unit: "" }
}

const fn milliseconds(least: u64, most: u64) -> Kind {
    Kind::Duration { least: Duration::from_millis(least), most: Duration::from_millis(most) }
}

const fn seconds(least: u64, most: u64) -> Kind {
    Kind::Duration { least: Duration::from_secs(least), most: Duration::from_secs(most) }
}

/// The most that 32 bits hold: AS numbers and the numeric attributes of a route.
const MOST_U32: i64 = 0xffff_ffff;
const HOUR_SECS: u64 = 3600;
const PORT: Kind = number(1, 65535);
const PATH: Kind = Kind::Text("an absolute path");
const SELECTOR: Kind = Kind::Text("a label selector as kubectl takes it");
const NAME: Kind = Kind::Text("a name of lower case letters, digits, dots and dashes");

const BFD: &str = "BFD";
const VRF: &str = "VRFs";

/// Every section, the file itself first.
pub static SECTIONS: &[Section] = &[
    Section::one("", "The configuration file, and the drop-ins in conf.d beside it in order of name.", &[]),
    Section::one(
        "node",
        "This host.",
        &[
            option(
                "name",
                Kind::Text("a node name, or \"auto\""),
                Text("auto"),
                "The Kubernetes Node that this host is; \"auto\" takes the host name.",
            ),
            option(
                "ignore-exclude-label",
                Kind::Flag,
                Flag(false),
                "Announce from Nodes labelled node.kubernetes.io/exclude-from-external-load-balancers too.",
            )
            .trade("Set it alike on every node: they must agree who may announce."),
        ],
    ),
    Section::one(
        "api",
        "How people and monitoring reach the agent.",
        &[
            option("socket", PATH, Text("/run/crier/crier.sock"), "The Unix socket that the commands talk to."),
            option(
                "listen",
                Kind::Text("an address with a port, or \"\""),
                Text("127.0.0.1:7472"),
                "Where metrics, health and the page are served; \"\" serves them nowhere.",
            )
            .trade("Who can reach it can read addresses, peers and names of Services; it changes nothing."),
        ],
    ),
    Section::one(
        "state",
        "What the agent keeps across a restart.",
        &[option("folder", PATH, Text("/var/lib/crier"), "The folder for the last known cluster and the allocations.")],
    ),
    Section::one(
        "kubernetes",
        "Services come from an API server. Either this section or [manifests].",
        &[
            option("kubeconfig", PATH, Unset("none, and in-cluster = true instead"), "The file that tells server and credentials.").set("\"/etc/crier/kubeconfig\""),
            option(
                "in-cluster",
                Kind::Flag,
                Flag(false),
                "Use the service account that Kubernetes gives a pod, instead of a kubeconfig.",
            ),
            option(
                "class",
                Kind::Text("a class name such as example.com/name"),
                Text("crier.dev/crier"),
                "The spec.loadBalancerClass that is ours.",
            ),
            option("default-class", Kind::Flag, Flag(true), "Services that name no class are ours too.")
                .trade("With another load balancer in the cluster, set it to false in one of the two."),
            option(
                "lease",
                Kind::Text("namespace/name"),
                Text("kube-system/crier"),
                "The Lease whose holder allocates addresses.",
            ),
        ],
    ),
    Section::one(
        "manifests",
        "Services come from files, without an API server. Either this section or [kubernetes].",
        &[option("folder", PATH, Required, "The folder of *.yaml and *.json files, read again when they change.").set("\"/etc/crier/manifests\"")],
    ),
    Section::many(
        "pool",
        "Addresses to give to Services.",
        &[
            option("name", NAME, Required, "The name that Services, [[l2]] and [[bgp.advertisement]] use.").set("\"lan\""),
            option(
                "addresses",
                Kind::Texts("CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20) of either family"),
                Required,
                "The addresses, handed out in the order written. No address may be in two pools.",
            ).set("[\"192.168.35.100-192.168.35.110\", \"fd35::100-fd35::1ff\"]"),
            option("auto-assign", Kind::Flag, Flag(true), "Hand out to Services that do not ask for this pool or its addresses."),
            option(
                "avoid-network-and-broadcast",
                Kind::Flag,
                Flag(false),
                "Never use IPv4 addresses that end in .0 or .255.",
            )
            .trade("Two addresses of 256 are lost; old clients that take them for broadcast addresses work."),
            option(
                "priority",
                number(0, MOST_U32),
                Unset("none, and after every pool that has one"),
                "The pool with the lower number is asked first.",
            ).shown("100"),
            option(
                "namespaces",
                Kind::Texts("namespace names"),
                Texts(&[]),
                "Only Services in these namespaces, or in those that namespace-selector selects; [] for all.",
            ).shown("[\"shop\"]"),
            option(
                "namespace-selector",
                SELECTOR,
                Unset("every namespace"),
                "Only Services in namespaces with these labels.",
            ).shown("\"team=web\""),
            option("service-selector", SELECTOR, Unset("every Service"), "Only Services with these labels.").shown("\"tier in (front, edge)\""),
            option("rest", seconds(0, 24 * HOUR_SECS), Text("30s"), "How long a freed address is not handed out again.").trade(
                "Shorter finds an address sooner in a full pool; longer keeps clients of the old Service from meeting the new one.",
            ),
            option(
                "bind",
                Kind::Text("an interface name"),
                Unset("none, and kube-proxy accepts the traffic"),
                "Put announced addresses on this interface, for hosts without kube-proxy.",
            ).shown("\"lo\""),
        ],
    ),
    Section::many(
        "l2",
        "Announce addresses on the link, by ARP and NDP. One node answers for an address at a time.",
        &[
            option("pools", Kind::Texts("pool names"), Texts(&[]), "Which pools; [] for all.").shown("[\"lan\"]"),
            option(
                "interfaces",
                Kind::Texts("interface names, or beginnings of names with a * behind"),
                Texts(&[]),
                "On which interfaces; [] for every Ethernet one but those of containers and tunnels.",
            ).shown("[\"eth0\", \"bond*\"]"),
            option(
                "exclude-interfaces",
                Kind::Texts("interface names, or beginnings of names with a * behind"),
                Texts(&[]),
                "On which interfaces never.",
            ).shown("[\"docker*\"]"),
            option("nodes", SELECTOR, Unset("every node"), "Which nodes may answer, by their labels.").shown("\"rack=a\""),
            option(
                "sticky",
                Kind::Flag,
                Flag(false),
                "An address stays where it is when a better node comes back.",
            )
            .trade("Fewer moves, but the addresses are spread less evenly after a failure. Needs the pulse."),
            option(
                "subnet",
                Kind::Text("\"prefer\", \"require\" or \"ignore\""),
                Text("prefer"),
                "Announce an address only on interfaces that have an address of its subnet: \"prefer\" where there is one, \"require\" always.",
            )
            .trade("\"ignore\" announces on every interface, as MetalLB does, also where nobody asks for the address."),
        ],
    ),
    Section::many(
        "l2.preference",
        "Matching nodes are preferred: the weights of all that match are added, and the highest sum wins.",
        &[
            option("nodes", SELECTOR, Required, "Which nodes, by their labels.").set("\"edge=true\""),
            option("weight", number(1, 1000), Required, "How much more such a node counts.").set("100"),
        ],
    ),
    Section::one(
        "pulse",
        "How agents on one link know that the others are alive: by sealed packets to a link-local multicast group (UDP port 7473). Without a key there is no pulse, and failover waits for the Node's Ready condition.",
        &[
            option("interval", milliseconds(20, 5000), Text("100ms"), "How often an owner of addresses says that it is alive.")
                .trade("Shorter moves addresses sooner after a failure, and costs packets and false alarms."),
            option("multiplier", number(2, 50), Number(3), "After how many missing pulses an owner counts as silent."),
            option(
                "key-file",
                PATH,
                Unset("the systemd credential pulse.key, and without it no pulse"),
                "The key that all agents of a cluster share: 16 octets or more, for instance of `openssl rand -hex 32`.",
            ).shown("\"/etc/crier/pulse.key\""),
            option(
                "unauthenticated",
                Kind::Flag,
                Flag(false),
                "Send and believe pulses without a key; instead of key-file.",
            )
            .trade("No key to hand out, but anybody on the link can take addresses away from the nodes."),
            option(
                "peers",
                Kind::Texts("IP addresses"),
                Texts(&[]),
                "Nodes on the same link to send pulses to as well, where the network filters multicast.",
            ).shown("[\"10.0.0.12\", \"10.0.0.13\"]"),
        ],
    ),
    Section::one(
        "bgp",
        "This host as a BGP speaker.",
        &[
            option(
                "asn", Kind::Asn(&[]),
                Unset("none, and every peer names its local-asn"),
                "The AS number of this host.",
            ).set("64513"),
            option(
                "router-id",
                Kind::Text("an IPv4 address, or \"auto\""),
                Text("auto"),
                "The BGP identifier; \"auto\" chooses an IPv4 address of this host, or derives one from its name.",
            ),
            option(
                "listen",
                Kind::Texts("IP addresses"),
                Texts(&["0.0.0.0", "::"]),
                "Where connections of peers are accepted; [] only dials.",
            ),
            option("port", PORT, Number(179), "The TCP port that connections are accepted on."),
        ],
    ),
    Section::many(
        "bgp.peer",
        "A router to announce to.",
        &[
            option("name", NAME, Required, "The name that advertisements and commands use.").set("\"tor\""),
            option(
                "address",
                Kind::Text("an IP address (a link-local one with %interface), an interface, or \"gateway\""),
                Required,
                "Where the peer is: \"10.0.0.1\", \"fe80::1%eth0\", an interface for the router heard on that link, or \"gateway\" for the next hop of the default route.",
            ).set("\"10.0.0.1\""),
            option(
                "asn",
                Kind::Asn(&["external", "internal"]),
                Required,
                "The peer's AS number; \"external\" takes any but ours, \"internal\" only ours.",
            ).set("64512"),
            option(
                "hold-time",
                seconds(0, 65535),
                Text("90s"),
                "How long the peer may be silent before the session ends: \"0s\" for ever, else 3 s or more. The lower of both ends counts.",
            )
            .trade("Shorter notices a dead peer sooner; too short ends sessions when either end is merely busy."),
            option(
                "keepalive-time",
                seconds(0, 65535),
                Unset("a third of the hold time that was agreed"),
                "How often to send a KEEPALIVE; 1 s or more, and less than hold-time.",
            ).shown("\"30s\""),
            option(
                "connect-retry-time",
                milliseconds(100, HOUR_SECS * 1000),
                Text("5s"),
                "How long to wait before dialing again.",
            ),
            option("local-asn", Kind::Asn(&[]), Unset("asn of [bgp]"), "The AS number that this peer sees us with.").shown("64514"),
            option(
                "source-address",
                Kind::Text("an IP address"),
                Unset("the kernel chooses"),
                "The local address of the connection, of the same family as address.",
            ).shown("\"10.0.0.11\""),
            option("port", PORT, Number(179), "The peer's TCP port."),
            option("passive", Kind::Flag, Flag(false), "Wait for the peer's connection, never dial."),
            option(
                "multihop",
                Kind::Number { least: 1, most: 255, unit: "hops" },
                Unset("1 for a peer of another AS, 255 within an AS, 1 for a link-local address"),
                "How many hops away the peer may be: the TTL of what it is sent.",
            ).shown("1")
            .trade("More than 1 lets hosts beyond the link try to talk BGP to us."),
            option("ttl-security", Kind::Flag, Flag(false), "Accept packets from this link only (RFC 5082). The peer must do the same.")
                .trade("Hosts beyond the link cannot disturb the session; a peer that is not set so never comes up."),
            option(
                "password-file",
                PATH,
                Unset("no password"),
                "The file with the TCP MD5 password (RFC 2385), 80 octets at most; a systemd credential with the name of the file wins.",
            ).shown("\"/etc/crier/tor.md5\""),
            option(
                "graceful-restart",
                Kind::FlagOr(&["auto"]),
                Text("auto"),
                "Ask the peer to keep our routes while the agent restarts; \"auto\" only with BFD.",
            )
            .not_yet_true("graceful restart"),
            option("bfd", Kind::Text("the name of a [[bfd]] profile"), Unset("no BFD"), "Watch this peer by BFD.").not_yet(BFD),
            option("nodes", SELECTOR, Unset("every node"), "Which nodes talk to this peer, by their labels.").shown("\"rack=a\""),
            option(
                "vrf",
                Kind::Text("the name of a VRF device"),
                Unset("the main routing table"),
                "Reach the peer in this VRF. crier does not make it: the device must be there.",
            ).shown("\"red\""),
            option(
                "router-id",
                Kind::Text("an IPv4 address"),
                Unset("router-id of [bgp]"),
                "The BGP identifier that this peer sees us with.",
            ).shown("\"10.0.0.11\""),
        ],
    ),
    Section::many(
        "bgp.peer.tcp-ao",
        "Sign what is sent with TCP-AO (RFC 5925), and take nothing else: the first key signs, and each is accepted. Not together with password-file. It takes Linux 6.7 or later.",
        &[
            option("send-id", number(0, 255), Required, "The KeyID on what we send, the peer's receive-id.").set("1"),
            option("receive-id", number(0, 255), Required, "The KeyID on what the peer sends, its send-id.").set("1"),
            option(
                "algorithm",
                Kind::Text("\"hmac-sha-1-96\" or \"aes-128-cmac-96\""),
                Text("hmac-sha-1-96"),
                "How the code on each segment is computed (RFC 5926).",
            ),
            option(
                "key-file",
                PATH,
                Required,
                "The file with the key, 80 octets at most; a systemd credential with the name of the file wins.",
            ).set("\"/etc/crier/tor.ao\""),
        ],
    ),
    Section::many(
        "bgp.advertisement",
        "What is announced to which peers, and how. Without any, nothing is announced over BGP.",
        &[
            option("pools", Kind::Texts("pool names"), Texts(&[]), "Which pools; [] for all.").shown("[\"lan\"]"),
            option("peers", Kind::Texts("peer names"), Texts(&[]), "To which peers; [] for all.").shown("[\"tor\"]"),
            option("service-selector", SELECTOR, Unset("every Service"), "Only Services with these labels.").shown("\"expose=wan\""),
            option("nodes", SELECTOR, Unset("every node"), "Which nodes announce, by their labels.").shown("\"rack=a\""),
            option(
                "aggregation-length",
                Kind::Number { least: 1, most: 32, unit: "bits" },
                Number(32),
                "The length of the IPv4 prefixes announced. An aggregate may hold no address outside its pool.",
            )
            .trade("Shorter saves routes; with external traffic policy Local it draws traffic to nodes without endpoints."),
            option(
                "aggregation-length-v6",
                Kind::Number { least: 1, most: 128, unit: "bits" },
                Number(128),
                "The length of the IPv6 prefixes announced. An aggregate may hold no address outside its pool.",
            )
            .trade("As for aggregation-length."),
            option(
                "local-preference",
                number(0, MOST_U32),
                Unset("100"),
                "LOCAL_PREF, to internal peers only. Higher wins.",
            ).shown("100"),
            option("med", number(0, MOST_U32), Unset("none is sent"), "MULTI_EXIT_DISC. Lower wins.").shown("10"),
            option(
                "prepend",
                Kind::Number { least: 0, most: 64, unit: "times" },
                Number(0),
                "How often our AS number is put in front once more, to external peers only.",
            )
            .trade("Each makes the route less wanted; some routers drop very long paths."),
            option(
                "communities",
                Kind::Texts("communities (64512:100, large:64512:1:2, rt:64512:100, ro:64512:100, ext:0x and 16 digits), well-known names and aliases"),
                Texts(&[]),
                "The communities on the routes.",
            ).shown("[\"64512:100\", \"large:64512:1:2\", \"no-advertise\", \"blue\"]"),
            option(
                "link-bandwidth",
                Kind::Flag,
                Flag(false),
                "Tell routers to weigh nodes by their number of ready endpoints, under external traffic policy Local.",
            )
            .trade("Each endpoint that comes or goes is an UPDATE; only routers that balance by link bandwidth heed it."),
        ],
    ),
    Section {
        own_keys: Some(OwnKeys { what: "a name, and the community that it stands for", example: "blue = \"64512:200\"" }),
        ..Section::one("bgp.communities", "Names for communities, for use in advertisements.", &[])
    },
    Section::many(
        "bfd",
        "A profile of BFD settings for peers.",
        &[
            option("name", NAME, Required, "The name that peers use."),
            option("receive-interval", milliseconds(10, 60_000), Text("300ms"), "How often the peer may send."),
            option("transmit-interval", milliseconds(10, 60_000), Text("300ms"), "How often we send."),
            option("multiplier", number(1, 255), Number(3), "After how many missing packets the peer counts as down."),
            option("minimum-ttl", number(1, 255), Number(254), "Packets with a lower TTL are dropped, on multihop sessions."),
        ],
    )
    .not_yet(BFD),
    Section::many(
        "vrf",
        "A routing table of its own for some interfaces.",
        &[
            option("name", Kind::Text("an interface name"), Required, "The name of the VRF device."),
            option("table", number(1, MOST_U32), Required, "The number of the routing table."),
            option("interfaces", Kind::Texts("interface names"), Texts(&[]), "The interfaces in it."),
            option("manage", Kind::Flag, Flag(false), "Make the device, and put the interfaces into it."),
        ],
    )
    .not_yet(VRF),
    Section::many(
        "vrf.routes",
        "Routes of the VRF.",
        &[
            option("to", Kind::Text("a CIDR"), Required, "Where the route leads."),
            option("via", Kind::Text("an IP address"), Required, "The next hop."),
        ],
    )
    .not_yet(VRF),
    Section::one(
        "host",
        "Settings of this host.",
        &[
            option("manage-sysctls", Kind::Flag, Flag(false), "Set the kernel settings that announcing needs.")
                .trade("Without it they are only checked. What was set stays set when crier stops."),
            option("arp-offload", Kind::Flag, Flag(true), "Let the kernel answer plain ARP requests by a small program.")
                .trade("Needs Linux 6.6 and CAP_BPF; without them, or with false, crier answers each request itself."),
        ],
    ),
    Section::one(
        "log",
        "What is logged, to standard error.",
        &[
            option(
                "level",
                Kind::Text("off, error, warn, info, debug or trace, and module=level, with commas"),
                Text("info"),
                "How much is logged, for instance \"info,crier::bgp=debug\".",
            ),
            option(
                "format",
                Kind::Text("\"auto\", \"text\" or \"json\""),
                Text("auto"),
                "\"auto\" gives journal fields under systemd, text elsewhere.",
            ),
        ],
    ),
];
