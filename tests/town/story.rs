//! A story: a town, what happens to it, and what is expected of it. Written as text, so that what a random seed found can
//! be kept as it was printed: see `stories/`. The words of the text are those of [`Story::parse`] and [`Deed::parse`].

use std::fmt;
use std::time::Duration;

use crier::address::Family;

use crate::agent::INTERVAL;
use crate::invariants::Broken;

/// One town and all that happens to it. Every random choice follows from `seed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// What it is about: the lines of comment at the top.
    pub about: Vec<String>,
    pub seed: u64,
    pub agents: usize,
    pub addresses: usize,
    /// External traffic policy Local: each address has one endpoint, in the beginning on the first agent.
    pub local: bool,
    /// Agents know of no Node but their own, as with manifests that name none.
    pub nodes_unknown: bool,
    /// So many of the Services have egress, each with a pod on every host.
    pub egress: usize,
    /// No table outlasts its socket, so a flush of all rules takes it: Linux before 6.9.
    pub old_kernel: bool,
    /// Labels of every Node beside its host name.
    pub labels: Vec<(String, String)>,
    /// Of a hundred frames so many are lost.
    pub loss: u8,
    /// Between two pulses of an owner.
    pub interval: Duration,
    /// How long a node takes for one frame of ARP: they wait for each other.
    pub judging: Duration,
    /// The configuration files that there are; every node begins with the first.
    pub files: Vec<FileText>,
    /// Sorted by time.
    pub deeds: Vec<(Duration, Deed)>,
    pub ends: Duration,
    pub expected: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// What stands in its `[[l2]]`.
    pub l2: String,
    pub key: u8,
    pub old_keys: Vec<u8>,
    /// Of the program that reads it: nodes are upgraded one by one, too.
    pub version: Version,
}

/// Which version of crier an agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// It neither says nor reads the sections of a pulse that came after the first ones.
    Earlier,
    #[default]
    This,
    /// Its pulses have a section and a flag that nobody knows today.
    Later,
}

/// What is expected of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Holds,
    /// Today's code breaks exactly these.
    Breaks(Vec<Broken>),
}

/// Of a small, busy node.
const JUDGING: Duration = Duration::from_micros(20);

/// A station by its number: agents first, then the client, then the router.
pub type Station = usize;

/// Something that happens. Agents are counted from 0 here, and from 1 in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Start(Station),
    /// SIGTERM to the agent.
    Stop(Station),
    /// SIGKILL to the agent; its host goes on.
    Kill(Station),
    /// Stopped by its service manager and started again `pause` after the signal, with another file if one is named. It keeps its
    /// addresses for the time that is named, and hands them over where there is none.
    Restart {
        station: Station,
        file: Option<usize>,
        pause: Duration,
        keeps: Option<Duration>,
    },
    /// The host is gone for `down`; kube-proxy has its rules `path` after the agent's start.
    Reboot {
        station: Station,
        down: Duration,
        path: Duration,
    },
    /// SIGSTOP and SIGCONT of the agent.
    Freeze(Station, Duration),
    /// The switches lose each other: each station is in one of the parts.
    Split(Vec<Vec<Station>>),
    Heal,
    /// The first hears nothing of the second, or hears it again.
    Deafen {
        to: Station,
        from: Station,
        deaf: bool,
    },
    /// The host receives nothing of anybody, or receives again; what it sends passes.
    Numb(Station, bool),
    /// What the host's firewall drops of the pulses.
    Firewall {
        station: Station,
        inward: bool,
        outward: bool,
    },
    /// The switches forward no multicast of this family.
    Prune(Family, bool),
    /// The agent's way to the API server is cut, or open.
    Api(Station, bool),
    /// Under policy Local: the endpoint of an address moves.
    Endpoint {
        address: usize,
        to: Station,
    },
    Unplug(Station),
    /// Frames are under way for up to this time, each for itself, so that they overtake each other; `None`: as in the beginning.
    Slow(Option<Duration>),
    /// There is carrier, and the switch forwards only after this time.
    Plug(Station, Duration),
    /// The node's data path works, or does not.
    Path(Station, bool),
    /// A foreign host uses this address, or none.
    Foreign(Option<usize>),
    /// A station answers every ARP probe.
    Proxy(bool),
    /// `crier drain`, where the flows take so long to end.
    Drain(Station, Duration),
    /// `crier undrain`.
    Undrain(Station),
    /// `crier move`: this node goes first for an address, or none any more.
    Move {
        address: usize,
        to: Option<Station>,
    },
    /// Another file is put in place, and a running agent reads it.
    Reload(Station, usize),
    /// `nft flush ruleset` by another program.
    Flush(Station),
    /// The annotation of a Service with egress goes, or comes back.
    Annotate {
        address: usize,
        has: bool,
    },
    /// A Service is deleted, or made anew.
    Service {
        address: usize,
        is_there: bool,
    },
    /// The pod of a Service with egress on this host ends, and another pod has its address: of another Service, or of this one again.
    Pod {
        address: usize,
        host: Station,
        plain: bool,
    },
}

/// How long a restart takes by itself, from the signal to the next agent.
pub const RESTART_PAUSE: Duration = Duration::from_millis(250);

impl Story {
    pub fn new(seed: u64, agents: usize, addresses: usize) -> Story {
        Story {
            about: Vec::new(),
            seed,
            agents,
            addresses,
            local: false,
            nodes_unknown: false,
            egress: 0,
            old_kernel: false,
            labels: Vec::new(),
            loss: 0,
            interval: INTERVAL,
            judging: JUDGING,
            files: vec![FileText::new(String::new())],
            deeds: Vec::new(),
            ends: Duration::from_secs(10),
            expected: Expected::Holds,
        }
    }

    pub fn parse(text: &str) -> Result<Story, String> {
        let mut story = Story::new(1, 3, 4);
        story.files.clear();
        for (number, line) in text.lines().enumerate() {
            story.take_line(line.trim()).map_err(|problem| format!("line {}: {line:?}: {problem}", number + 1))?;
        }
        if story.files.is_empty() {
            story.files.push(FileText::new(String::new()));
        }
        if !story.deeds.is_sorted_by_key(|(at, _)| *at) {
            return Err("the deeds are not in the order of their time".to_owned());
        }
        Ok(story)
    }

    fn take_line(&mut self, line: &str) -> Result<(), String> {
        if let Some(comment) = line.strip_prefix('#') {
            self.about.push(comment.trim().to_owned());
            return Ok(());
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => {}
            "seed" => self.seed = number(rest)?,
            "agents" => self.agents = number(rest)?,
            "addresses" => self.addresses = number(rest)?,
            "policy" => self.local = rest == "local",
            "nodes" => self.nodes_unknown = rest == "unknown",
            "egress" => self.egress = number(rest)?,
            "kernel" => self.old_kernel = rest == "old",
            "loss" => self.loss = number(rest)?,
            "interval" => self.interval = duration(rest)?,
            "judging" => self.judging = duration(rest)?,
            "ends" => self.ends = duration(rest)?,
            "label" => {
                let (name, value) = rest.split_once('=').ok_or("a label is name=value")?;
                self.labels.push((name.to_owned(), value.to_owned()));
            }
            "file" => self.files.push(FileText::parse(rest)?),
            "holds" => self.expected = Expected::Holds,
            "breaks" => {
                let broken: Result<_, String> = rest.split_whitespace().map(Broken::parse).collect();
                self.expected = Expected::Breaks(broken?);
            }
            "at" => {
                let (at, deed) = rest.split_once(' ').ok_or("at TIME DEED")?;
                self.deeds.push((duration(at)?, Deed::parse(deed, self.agents)?));
            }
            other => return Err(format!("no story knows the word {other:?}")),
        }
        Ok(())
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.about {
            writeln!(f, "# {line}")?;
        }
        writeln!(f, "seed {}\nagents {}\naddresses {}", self.seed, self.agents, self.addresses)?;
        if self.local {
            writeln!(f, "policy local")?;
        }
        if self.nodes_unknown {
            writeln!(f, "nodes unknown")?;
        }
        if self.egress > 0 {
            writeln!(f, "egress {}", self.egress)?;
        }
        if self.old_kernel {
            writeln!(f, "kernel old")?;
        }
        for (name, value) in &self.labels {
            writeln!(f, "label {name}={value}")?;
        }
        if self.loss > 0 {
            writeln!(f, "loss {}", self.loss)?;
        }
        if self.interval != INTERVAL {
            writeln!(f, "interval {}ms", self.interval.as_millis())?;
        }
        if self.judging != JUDGING {
            writeln!(f, "judging {}ms", self.judging.as_millis())?;
        }
        for FileText { l2, key, old_keys, version } in &self.files {
            let old: String = old_keys.iter().map(|key| format!(" old {key}")).collect();
            let version = match version {
                Version::Earlier => " version earlier",
                Version::This => "",
                Version::Later => " version later",
            };
            writeln!(f, "file key {key}{old}{version}: {l2}")?;
        }
        for (at, deed) in &self.deeds {
            writeln!(f, "at {}ms {}", at.as_millis(), deed.text(self.agents))?;
        }
        writeln!(f, "ends {}ms", self.ends.as_millis())?;
        match &self.expected {
            Expected::Holds => writeln!(f, "holds"),
            Expected::Breaks(broken) => {
                let words: Vec<&str> = broken.iter().map(|broken| broken.word()).collect();
                writeln!(f, "breaks {}", words.join(" "))
            }
        }
    }
}

impl FileText {
    /// With the first key, for this version.
    pub fn new(l2: String) -> FileText {
        FileText { l2, key: 1, old_keys: Vec::new(), version: Version::This }
    }

    fn parse(text: &str) -> Result<FileText, String> {
        let (keys, l2) = text.split_once(':').ok_or("file key N [old N] [version V]: what stands in [[l2]]")?;
        let mut file = FileText::new(l2.trim().to_owned());
        let words: Vec<&str> = keys.split_whitespace().collect();
        for pair in words.chunks(2) {
            match pair {
                ["key", key] => file.key = number(key)?,
                ["old", key] => file.old_keys.push(number(key)?),
                ["version", "earlier"] => file.version = Version::Earlier,
                ["version", "later"] => file.version = Version::Later,
                other => return Err(format!("{other:?} is neither a key, an old one, nor a version")),
            }
        }
        Ok(file)
    }
}

impl Deed {
    /// The words of the deeds.
    pub fn parse(text: &str, agents: usize) -> Result<Deed, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let station = |name: &str| station(name, agents);
        Ok(match words.as_slice() {
            ["start", who] => Deed::Start(station(who)?),
            ["stop", who] => Deed::Stop(station(who)?),
            ["kill", who] => Deed::Kill(station(who)?),
            ["restart", who, how @ ..] => restart(station(who)?, how)?,
            ["reboot", who, "down", down, "path", path] => {
                Deed::Reboot { station: station(who)?, down: duration(down)?, path: duration(path)? }
            }
            ["freeze", who, time] => Deed::Freeze(station(who)?, duration(time)?),
            ["split", parts @ ..] => {
                let parts = parts.split(|word| *word == "/");
                let parts: Result<_, _> = parts.map(|part| part.iter().map(|who| station(who)).collect()).collect();
                Deed::Split(parts?)
            }
            ["heal"] => Deed::Heal,
            ["deafen", to, "to", from] => Deed::Deafen { to: station(to)?, from: station(from)?, deaf: true },
            ["undeafen", to, "to", from] => Deed::Deafen { to: station(to)?, from: station(from)?, deaf: false },
            ["numb", who] => Deed::Numb(station(who)?, true),
            ["unnumb", who] => Deed::Numb(station(who)?, false),
            ["firewall", who, what] => Deed::Firewall {
                station: station(who)?,
                inward: matches!(*what, "in" | "both"),
                outward: matches!(*what, "out" | "both"),
            },
            ["prune", family] => Deed::Prune(self::family(family)?, true),
            ["unprune", family] => Deed::Prune(self::family(family)?, false),
            ["cut-api", who] => Deed::Api(station(who)?, false),
            ["join-api", who] => Deed::Api(station(who)?, true),
            ["endpoint", address, "to", who] => Deed::Endpoint { address: number(address)?, to: station(who)? },
            ["unplug", who] => Deed::Unplug(station(who)?),
            ["plug", who, "blocked", time] => Deed::Plug(station(who)?, duration(time)?),
            ["path", who, "works"] => Deed::Path(station(who)?, true),
            ["path", who, "broken"] => Deed::Path(station(who)?, false),
            ["foreign", "none"] => Deed::Foreign(None),
            ["foreign", address] => Deed::Foreign(Some(number(address)?)),
            ["slow", "off"] => Deed::Slow(None),
            ["slow", time] => Deed::Slow(Some(duration(time)?)),
            ["proxy", "on"] => Deed::Proxy(true),
            ["proxy", "off"] => Deed::Proxy(false),
            ["drain", who, "waiting", time] => Deed::Drain(station(who)?, duration(time)?),
            ["undrain", who] => Deed::Undrain(station(who)?),
            ["move", address, "to", who] => Deed::Move { address: number(address)?, to: Some(station(who)?) },
            ["move", address, "back"] => Deed::Move { address: number(address)?, to: None },
            ["reload", who, "with", file] => Deed::Reload(station(who)?, file_number(file)?),
            ["flush", who] => Deed::Flush(station(who)?),
            ["egress", address, has @ ("on" | "off")] => {
                Deed::Annotate { address: number(address)?, has: *has == "on" }
            }
            ["service", address, what @ ("made" | "deleted")] => {
                Deed::Service { address: number(address)?, is_there: *what == "made" }
            }
            ["pod", address, "on", who, what @ ("other" | "own")] => {
                Deed::Pod { address: number(address)?, host: station(who)?, plain: *what == "other" }
            }
            other => return Err(format!("no deed reads {other:?}")),
        })
    }

    /// The same in words.
    pub fn text(&self, agents: usize) -> String {
        let name = |station: &Station| name(*station, agents);
        match self {
            Deed::Start(who) => format!("start {}", name(who)),
            Deed::Stop(who) => format!("stop {}", name(who)),
            Deed::Kill(who) => format!("kill {}", name(who)),
            Deed::Restart { station, file, pause, keeps } => {
                let file = file.map_or(String::new(), |file| format!(" with {}", file + 1));
                let usual = *pause == RESTART_PAUSE;
                let back = if usual { String::new() } else { format!(" back {}ms", pause.as_millis()) };
                let keeps = keeps.map_or(String::new(), |time| format!(" keeping {}ms", time.as_millis()));
                format!("restart {}{file}{back}{keeps}", name(station))
            }
            Deed::Reboot { station, down, path } => {
                format!("reboot {} down {}ms path {}ms", name(station), down.as_millis(), path.as_millis())
            }
            Deed::Freeze(who, time) => format!("freeze {} {}ms", name(who), time.as_millis()),
            Deed::Split(parts) => {
                let mut text = "split".to_owned();
                for (place, part) in parts.iter().enumerate() {
                    text.push_str(if place > 0 { " /" } else { "" });
                    part.iter().for_each(|who| text.push_str(&format!(" {}", name(who))));
                }
                text
            }
            Deed::Heal => "heal".to_owned(),
            Deed::Deafen { to, from, deaf: true } => format!("deafen {} to {}", name(to), name(from)),
            Deed::Deafen { to, from, deaf: false } => format!("undeafen {} to {}", name(to), name(from)),
            Deed::Numb(who, numb) => format!("{} {}", if *numb { "numb" } else { "unnumb" }, name(who)),
            Deed::Firewall { station, inward, outward } => {
                let what = match (inward, outward) {
                    (true, true) => "both",
                    (true, false) => "in",
                    (false, true) => "out",
                    (false, false) => "open",
                };
                format!("firewall {} {what}", name(station))
            }
            Deed::Prune(family, pruned) => {
                format!("{} {}", if *pruned { "prune" } else { "unprune" }, family.to_string().to_lowercase())
            }
            Deed::Api(who, seen) => format!("{} {}", if *seen { "join-api" } else { "cut-api" }, name(who)),
            Deed::Endpoint { address, to } => format!("endpoint {address} to {}", name(to)),
            Deed::Unplug(who) => format!("unplug {}", name(who)),
            Deed::Slow(None) => "slow off".to_owned(),
            Deed::Slow(Some(time)) => format!("slow {}ms", time.as_millis()),
            Deed::Plug(who, time) => format!("plug {} blocked {}ms", name(who), time.as_millis()),
            Deed::Path(who, works) => format!("path {} {}", name(who), if *works { "works" } else { "broken" }),
            Deed::Foreign(None) => "foreign none".to_owned(),
            Deed::Foreign(Some(address)) => format!("foreign {address}"),
            Deed::Proxy(on) => format!("proxy {}", if *on { "on" } else { "off" }),
            Deed::Drain(who, time) => format!("drain {} waiting {}ms", name(who), time.as_millis()),
            Deed::Undrain(who) => format!("undrain {}", name(who)),
            Deed::Move { address, to: Some(who) } => format!("move {address} to {}", name(who)),
            Deed::Move { address, to: None } => format!("move {address} back"),
            Deed::Reload(who, file) => format!("reload {} with {}", name(who), file + 1),
            Deed::Flush(who) => format!("flush {}", name(who)),
            Deed::Annotate { address, has } => format!("egress {address} {}", if *has { "on" } else { "off" }),
            Deed::Service { address, is_there } => {
                format!("service {address} {}", if *is_there { "made" } else { "deleted" })
            }
            Deed::Pod { address, host, plain } => {
                format!("pod {address} on {} {}", name(host), if *plain { "other" } else { "own" })
            }
        }
    }
}

/// How a station is called in a story.
pub fn name(station: Station, agents: usize) -> String {
    match station.checked_sub(agents) {
        None => format!("n{}", station + 1),
        Some(0) => "client".to_owned(),
        Some(1) => "router".to_owned(),
        Some(_) => "foreign".to_owned(),
    }
}

fn station(text: &str, agents: usize) -> Result<Station, String> {
    match text {
        "client" => return Ok(agents),
        "router" => return Ok(agents + 1),
        "foreign" => return Ok(agents + 2),
        _ => {}
    }
    let number: usize = number(text.strip_prefix('n').ok_or_else(|| format!("{text:?} is no station"))?)?;
    number.checked_sub(1).filter(|number| *number < agents).ok_or_else(|| format!("there is no agent {text:?}"))
}

/// `with FILE`, `back TIME`, `keeping TIME`, or several of them.
fn restart(station: Station, how: &[&str]) -> Result<Deed, String> {
    let (mut file, mut pause, mut keeps) = (None, RESTART_PAUSE, None);
    for pair in how.chunks(2) {
        match pair {
            ["with", number] => file = Some(file_number(number)?),
            ["back", time] => pause = duration(time)?,
            ["keeping", time] => keeps = Some(duration(time)?),
            other => return Err(format!("{other:?} says nothing of a restart")),
        }
    }
    Ok(Deed::Restart { station, file, pause, keeps })
}

fn file_number(text: &str) -> Result<usize, String> {
    number::<usize>(text)?.checked_sub(1).ok_or_else(|| "files are counted from 1".to_owned())
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        other => Err(format!("{other:?} is no address family")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => Ok(Duration::from_millis(number(millis)?)),
        (None, Some(secs)) => Ok(Duration::from_secs(number(secs)?)),
        (None, None) => Err(format!("{text:?} is no time in s or ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        let deeds = [
            "start n1",
            "stop n2",
            "kill n3",
            "restart n1",
            "restart n1 with 2",
            "restart n1 back 40ms",
            "restart n1 with 2 back 900ms",
            "restart n1 back 900ms keeping 5000ms",
            "reboot n2 down 100ms path 20ms",
            "freeze n1 250ms",
            "split n1 client / n2 n3 router",
            "heal",
            "deafen n1 to n2",
            "undeafen n1 to n2",
            "numb n1",
            "unnumb n1",
            "firewall n1 in",
            "firewall n1 out",
            "firewall n1 both",
            "firewall n1 open",
            "prune ipv6",
            "unprune ipv4",
            "cut-api n1",
            "join-api n1",
            "endpoint 3 to n2",
            "unplug n1",
            "plug n1 blocked 15ms",
            "path n1 works",
            "path n1 broken",
            "foreign 2",
            "foreign none",
            "proxy on",
            "proxy off",
            "slow 80ms",
            "slow off",
            "drain n1 waiting 500ms",
            "undrain n1",
            "move 3 to n2",
            "move 3 back",
            "reload n1 with 2",
        ];
        let lines: String = deeds.iter().map(|deed| format!("at 5ms {deed}\n")).collect();
        let text = format!(
            "# about\nseed 7\nagents 3\naddresses 4\npolicy local\nlabel a=b\nloss 3\ninterval 50ms\njudging 1ms\nfile key 2 old 1: sticky = true\n\
             {lines}ends 9000ms\nbreaks two-owners frames\n"
        );
        assert_eq!(Story::parse(&text).unwrap().to_string(), text);
    }
}
