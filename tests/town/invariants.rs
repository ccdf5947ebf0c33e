//! What must hold in every town whatever happens, with each bound in one place: here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crier::address::Family;
use crier::egress::standing;

use crate::agent::{DETECTION, INTERVAL};
use crate::orders::HAND_OVER;
use crate::story::{Deed, Station, name};
use crate::town::{Notice, Town};

/// (1) A client on a segment with a node that can serve is answered: no two requests that were served are further apart
/// than this after something failed, and [`DETECTION`] for each node that was lost without a word on top.
const ANSWERED: Duration = Duration::from_millis(1500);
/// And this on top where pulses do not pass between all: a death is then found by questions on the link.
const ASKED_ON_THE_LINK: Duration = Duration::from_secs(3);
/// Where there is no key: the first in line asks every two seconds, and 1.2 s pass until the verdict; the node that is best for the address by
/// the API server, and has found another one to answer, asks after five.
const WITHOUT_KEY: Duration = Duration::from_millis(6500);
/// For how long a node that was lost without a word may be unnoticed: one that owns nothing pulses once in a second.
const UNNOTICED: Duration = Duration::from_millis(3100);
/// Where the segments of nodes stay what they are and those of clients do not, no node can notice: until a client asks the link anew.
const CLIENT_ASKS_ANEW: Duration = Duration::from_secs(60);
/// (2) Two owners that can hear each other, in any direction, are one.
const ONE_OWNER: Duration = Duration::from_secs(1);
/// Where frames pass in one direction alone and no pulse does, nothing but announcements tells the one that hears of the other, and after
/// the repetitions these come after twice the time each.
const ONE_WAY_UNHEARD: Duration = Duration::from_secs(20);
/// And this on top where frames are lost and pulses pass in neither direction. Then nothing but announcements tells the two of
/// each other, and these are repeated so long after those of the beginning, of which each may be lost (`announce-again`).
const ANNOUNCED_AGAIN: Duration = Duration::from_millis(1100);
/// (3) What was planned, a restart or a rollout, causes no gap: two lost requests at most.
const NO_GAP: Duration = Duration::from_millis(250);
/// How long what happened explains that an address moves.
const EXPLAINED: Duration = Duration::from_secs(10);
/// How long a rollout of a file with another `[[l2]]` explains it: its last step may come late.
const ROLLOUT: Duration = Duration::from_secs(60);
/// (4) Broadcasts and multicasts of a node in one second, once nothing happened for [`STEADY`].
const FRAMES: usize = 200;
const STEADY: Duration = Duration::from_secs(10);
/// And before that: the credit of the long run, and what refills it.
const FRAMES_AT_ONCE: usize = 8_200;
/// (5) Nobody asks on the link for what a node has that it hears, once nothing but freezes happened for this long.
const UNSUSPECTED: Duration = Duration::from_secs(5);
/// (6) A node that hands over, or has, takes nothing. What it is about to answer for at that moment it may.
const TAKES_NOTHING: Duration = Duration::from_millis(300);
/// And it answers for nothing so long after its drain is over, where others can serve.
const DRAINED: Duration = Duration::from_secs(5);
/// (7) Each address is where it would best be, once nothing happened for this long.
const PLACED: Duration = Duration::from_millis(11_500);
/// (8) No packet of a pod with egress leaves a node with the pod's or a node's address, at no time. And once nothing happened for
/// [`PLACED`], something of each pod has left with the address of its Service within this time.
const LEAVES: Duration = Duration::from_millis(500);
/// How long a node whose table was removed again and again is without Services with egress.
const UNGUARDED: Duration = standing::WITHIN;
/// An agent has found its place so long after its start.
const STARTED: Duration = Duration::from_secs(2);

/// How often the owners are looked at.
const LOOKS: Duration = Duration::from_millis(20);

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    Unanswered,
    TwoOwners,
    Moved,
    Frames,
    Suspected,
    Drained,
    Misplaced,
    Leaked,
    Stuck,
}

impl Broken {
    pub const ALL: [Broken; 9] = [
        Broken::Unanswered,
        Broken::TwoOwners,
        Broken::Moved,
        Broken::Frames,
        Broken::Suspected,
        Broken::Drained,
        Broken::Misplaced,
        Broken::Leaked,
        Broken::Stuck,
    ];

    /// As a story names it.
    pub fn word(self) -> &'static str {
        match self {
            Broken::Unanswered => "unanswered",
            Broken::TwoOwners => "two-owners",
            Broken::Moved => "moved",
            Broken::Frames => "frames",
            Broken::Suspected => "suspected",
            Broken::Drained => "drained",
            Broken::Misplaced => "misplaced",
            Broken::Leaked => "leaked",
            Broken::Stuck => "stuck",
        }
    }

    pub fn parse(word: &str) -> Result<Broken, String> {
        let known = Broken::ALL.into_iter().find(|broken| broken.word() == word);
        known.ok_or_else(|| format!("no invariant is called {word:?}"))
    }
}

/// When something was broken first, how it was last, and in how many places.
#[derive(Debug, Clone)]
pub struct Finding {
    pub at: Duration,
    pub text: String,
    pub places: BTreeSet<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (in {} places)", self.text, self.places.len())
    }
}

/// An address, and two that answer for it.
type Pair = (IpAddr, Station, Station);

/// Watches one town.
pub struct Watch {
    agents: usize,
    began: Instant,
    pub broken: BTreeMap<Broken, Finding>,
    /// What happened, line by line; `None` where nobody is going to read it.
    pub chronicle: Option<Vec<String>>,
    deeds: Vec<(Instant, Deed)>,
    looked: Instant,
    /// Since when two both answer for an address and can hear each other.
    both: BTreeMap<Pair, Instant>,
    /// Since when they hear each other as they do now: frames in both directions, and pulses in one.
    heard: BTreeMap<Pair, (Instant, (bool, bool))>,
    /// When a client was last served at an address, or could not have been.
    served: BTreeMap<(usize, usize), Instant>,
    failing: BTreeSet<(usize, usize)>,
    last_owner: BTreeMap<IpAddr, Station>,
    /// When an address was last taken by a node that did not run when another one said that it would be back.
    unaware: BTreeMap<IpAddr, Instant>,
    /// When an address moved to another node while this one restarted.
    missed: BTreeMap<(IpAddr, Station), Instant>,
    /// What an agent held when it was told to stop, at any time.
    held: BTreeMap<Station, BTreeSet<IpAddr>>,
    /// The file of each host, and when a host last got one that asks for other owners than the one before.
    files: Vec<usize>,
    asked: Option<Instant>,
    filtered: bool,
    /// In another way than by family.
    deafened: bool,
    /// Pulses alone were, and frames of ARP were not.
    pulses_filtered: bool,
    /// Which families are pruned, and when that began or ended to concern both: as long as pulses of one pass, nobody misses those of the other.
    pruned: BTreeSet<Family>,
    pruned_both: BTreeSet<Instant>,
    /// Which segment each node was in, and when only clients changed theirs.
    segments: Vec<usize>,
    unnoticed: Option<Instant>,
}

impl Watch {
    pub fn new(town: &Town, tells: bool) -> Watch {
        Watch {
            agents: town.hosts.len(),
            began: town.began(),
            broken: BTreeMap::new(),
            chronicle: tells.then(Vec::new),
            deeds: Vec::new(),
            looked: town.began(),
            both: BTreeMap::new(),
            heard: BTreeMap::new(),
            served: BTreeMap::new(),
            failing: BTreeSet::new(),
            last_owner: BTreeMap::new(),
            unaware: BTreeMap::new(),
            missed: BTreeMap::new(),
            held: BTreeMap::new(),
            files: vec![0; town.hosts.len()],
            asked: None,
            filtered: false,
            deafened: false,
            pulses_filtered: false,
            pruned: BTreeSet::new(),
            pruned_both: BTreeSet::new(),
            segments: segments(town),
            unnoticed: None,
        }
    }

    /// Takes what there is to look at.
    pub fn look(&mut self, town: &mut Town) {
        let now = town.now();
        for notice in std::mem::take(&mut town.notices) {
            match notice {
                Notice::Deed(deed) => self.note_deed(town, deed),
                Notice::Owner { address, host, answers } => self.note_owner(town, address, host, answers),
                Notice::Probe { address, host } => self.note_probe(town, address, host),
                Notice::Announcement { address, host } => {
                    let agents = self.agents;
                    self.tell(town.now(), || format!("    {} announces {address}", name(host, agents)));
                }
                Notice::Request { client, address, served } => self.note_request(town, client, address, served),
                Notice::Leak { pod, of, by, source } => self.note_leak(now, pod, [of, by], source),
            }
        }
        if now >= self.looked + LOOKS {
            self.looked = now;
            self.look_at_owners(town);
            self.look_at_frames(town);
            self.look_at_drains(town);
            self.look_at_places(town);
            self.look_at_pods(town);
        }
    }

    fn note_deed(&mut self, town: &Town, deed: Deed) {
        let agents = self.agents;
        // Who restarts beside one that does not wait says goodbye.
        let deed = match deed {
            Deed::Restart { station, file, pause, keeps: Some(_) } if town.knows_no_restarts_anywhere() => {
                Deed::Restart { station, file, pause, keeps: None }
            }
            deed => deed,
        };
        if let Deed::Prune(family, pruned) = deed {
            let both = self.pruned.len() == Family::BOTH.len();
            let _changed = if pruned { self.pruned.insert(family) } else { self.pruned.remove(&family) };
            if both || self.pruned.len() == Family::BOTH.len() {
                self.pruned_both.insert(town.now());
            }
        }
        if self.deeds.is_empty() {
            self.tell_beginning(town);
        }
        self.tell(town.now(), || format!("*** {}", deed.text(agents)));
        if let Deed::Restart { station: host, .. } | Deed::Stop(host) = deed {
            let held = town.owners.iter().filter(|(_, hosts)| hosts.contains(&host)).map(|(address, _)| *address);
            self.held.entry(host).or_default().extend(held);
        }
        if let Deed::Restart { station, file: Some(file), .. } | Deed::Reload(station, file) = deed {
            let before = std::mem::replace(&mut self.files[station], file);
            if town.asks_other_owners(before, file) {
                self.asked = Some(town.now());
            }
        }
        if matches!(deed, Deed::Split(_) | Deed::Heal) {
            let before = std::mem::replace(&mut self.segments, segments(town));
            if before == self.segments {
                self.unnoticed = Some(town.now());
            }
        }
        self.deafened |= matches!(&deed, Deed::Deafen { .. } | Deed::Numb(..) | Deed::Firewall { .. });
        self.filtered |= self.deafened || matches!(&deed, Deed::Prune(..));
        self.pulses_filtered |= matches!(&deed, Deed::Firewall { .. } | Deed::Prune(..));
        self.deeds.push((town.now(), deed));
    }

    /// (3): nothing moves that was not asked to.
    fn note_owner(&mut self, town: &Town, address: IpAddr, host: Station, answers: bool) {
        let now = town.now();
        let agents = self.agents;
        let verb = if answers { "answers for" } else { "lets go of" };
        self.tell(now, || format!("    {} {verb} {address}", name(host, agents)));
        if !answers {
            return;
        }
        if let Some(drain) = town.hosts[host].drain.as_ref().filter(|it| it.hands_over())
            && now > drain.since + TAKES_NOTHING
        {
            let text = format!("{} took {address} although it is being drained", name(host, agents));
            self.breaks(Broken::Drained, now, address.to_string(), text);
        }
        let Some(before) = self.last_owner.insert(address, host).filter(|before| *before != host) else { return };
        let heard = !self.filtered && town.link.loss == 0;
        let heard_otherwise = !self.deafened && town.link.loss == 0;
        // Who did not run when it was said does not know that a node is back in a moment.
        let heard_it = |at: Instant| heard && town.hosts[host].started.is_some_and(|started| started < at);
        let is_unaware = |(at, deed): &(Instant, Deed)| matches!(deed, Deed::Restart { station: who, keeps: Some(_), .. } if *who != host && now <= *at + EXPLAINED && !heard_it(*at));
        if self.deeds.iter().any(is_unaware) {
            self.unaware.insert(address, now);
        }
        let restarts = self.deeds.iter().filter_map(|(at, deed)| match deed {
            Deed::Restart { station: who, pause, .. } => (*who != host && now <= *at + *pause).then_some(*who),
            _ => None,
        });
        let missed: Vec<Station> = restarts.collect();
        self.missed.extend(missed.into_iter().map(|who| ((address, who), now)));
        let explains = |(at, deed): &(Instant, Deed)| {
            let age = now.duration_since(*at);
            match deed {
                // What is read again asks nothing by itself, and pulses are waited for longer than any frame is under way.
                Deed::Reload(..) | Deed::Slow(_) => false,
                // Nobody misses so few pulses.
                Deed::Freeze(_, time) if *time + INTERVAL <= DETECTION && heard => false,
                Deed::Freeze(_, time) => age <= *time + EXPLAINED,
                // Nobody misses the pulses of one family while those of the other pass.
                Deed::Prune(..) if heard_otherwise => age <= EXPLAINED && self.pruned_both.contains(at),
                // Who is waited for and is back in time loses nothing.
                // A better one may ask whoever took it unaware.
                Deed::Restart { pause, keeps: Some(time), .. } if heard_it(*at) && *pause + STARTED < *time => {
                    self.unaware.get(&address).is_some_and(|at| now <= *at + EXPLAINED)
                }
                Deed::Restart { station: who, keeps: Some(_), .. } if *who != host && !heard_it(*at) => {
                    age <= EXPLAINED
                }
                // A restarted node may have back what it had, and the others what it leaves. It may ask for what moved to another one
                // meanwhile.
                Deed::Restart { station: who, pause, .. } => {
                    let had = self.held.get(who).is_some_and(|held| held.contains(&address));
                    // Who does not hear another one, or is not heard by it, learns anew what that means.
                    let link = &town.link;
                    let one_way = (0..agents).any(|it| link.passes(*who, it, now) != link.passes(it, *who, now));
                    let missed = self.missed.get(&(address, *who)).is_some_and(|at| now <= *at + EXPLAINED);
                    age <= *pause + EXPLAINED && (*who == before || had || one_way || (*who == host && missed))
                }
                // Where files differ, the best that can be told first need not be the best of all.
                Deed::Drain(who, waiting) => {
                    let files_differ = self.files.iter().any(|file| *file != self.files[0]);
                    age <= *waiting + HAND_OVER + EXPLAINED && (*who == before || files_differ)
                }
                // The node counts as unguarded until it was left alone for as long as `egress::standing` says.
                Deed::Flush(_) => age <= UNGUARDED + EXPLAINED,
                Deed::Undrain(who) => age <= EXPLAINED && *who == host,
                Deed::Move { address: moved, .. } => age <= EXPLAINED && IpAddr::V4(town.addresses[*moved]) == address,
                Deed::Foreign(_) | Deed::Proxy(_) => true,
                // It takes something again once it has a data path.
                Deed::Reboot { down, path, .. } => age <= *down + *path + EXPLAINED,
                // Whoever comes takes nothing where addresses are sticky.
                Deed::Start(_) => age <= EXPLAINED && !town.is_sticky(),
                _ => age <= EXPLAINED,
            }
        };
        // Without pulses nobody knows whether a node does not hear this one alone, or nobody at all: it is given back what it announces, and
        // the next one stands by.
        let receives_nothing = |it: Station| !(0..agents).any(|from| town.link.passes(from, it, now));
        if town.is_keyless() && (0..agents).any(|it| town.is_running(it) && receives_nothing(it)) {
            return;
        }
        let is_asked = self.asked.is_some_and(|at| now <= at + ROLLOUT);
        if now > self.began + EXPLAINED && !is_asked && !self.deeds.iter().any(explains) {
            let text = format!("{address} moved from {} to {}", name(before, agents), name(host, agents));
            self.breaks(Broken::Moved, now, address.to_string(), text);
        }
    }

    /// (5): who hears its owner does not ask for an address.
    fn note_probe(&mut self, town: &Town, address: IpAddr, host: Station) {
        let now = town.now();
        let agents = self.agents;
        self.tell(now, || format!("    {} asks whether anybody has {address}", name(host, agents)));
        let since = |host: Station| town.hosts[host].started.map(|at| now.duration_since(at));
        let thawed = |it: Station| {
            let of_it = |(at, deed): &(Instant, Deed)| matches!(deed, Deed::Freeze(who, time) if *who == it && *at + *time + STARTED > now);
            self.deeds.iter().any(of_it)
        };
        // What happened while it stood still it has yet to hear of, and asks at once where it was about to ask.
        let quiet = |(at, deed): &(Instant, Deed)| {
            matches!(deed, Deed::Freeze(..)) || now.duration_since(*at) > UNSUSPECTED + self.stood_still(host, *at, now)
        };
        let quiet = self.deeds.iter().all(quiet);
        let number = town.addresses.iter().position(|it| IpAddr::V4(*it) == address);
        let disturbed = number.is_none_or(|number| town.is_disturbed(number));
        if !quiet || disturbed || town.link.loss > 0 || now < self.began + UNSUSPECTED {
            return;
        }
        let owners = town.owners.get(&address).into_iter().flatten();
        let heard = owners.copied().find(|owner| {
            let settled = [*owner, host].iter().all(|it| since(*it).is_some_and(|it| it > STARTED));
            settled
                && *owner != host
                && !thawed(*owner)
                && town.is_running(*owner)
                && town.link.pulses_pass(*owner, host, now)
                && town.link.pulses_pass(host, *owner, now)
                && town.share_a_key(*owner, host)
        });
        if let Some(owner) = heard {
            let text = format!(
                "{} asked on the link for {address} although {} has it and is heard",
                name(host, agents),
                name(owner, agents)
            );
            self.breaks(Broken::Suspected, now, address.to_string(), text);
        }
    }

    /// For how long of the time from `from` to `to` the node stood still.
    fn stood_still(&self, host: Station, from: Instant, to: Instant) -> Duration {
        let of_it = self.deeds.iter().filter_map(|(at, deed)| match deed {
            Deed::Freeze(who, time) if *who == host => Some((*at).max(from)..(*at + *time).min(to)),
            _ => None,
        });
        of_it.map(|it| it.end.saturating_duration_since(it.start)).sum()
    }

    /// (1) and (3): clients are answered.
    fn note_request(&mut self, town: &Town, client: usize, address: usize, served: bool) {
        let now = town.now();
        let place = (client, address);
        let who = name(self.agents + client, self.agents);
        if served == self.failing.contains(&place) {
            let verb = if served { "is served at" } else { "is not served at" };
            self.tell(now, || format!("    the {who} {verb} {}", town.addresses[address]));
            let _changed = if served { self.failing.remove(&place) } else { self.failing.insert(place) };
        }
        let port = town.client_port(client);
        // A holder that does not hear its pulses, and whose data path is bad, knows of nobody to give way to.
        let owners = town.owners.get(&IpAddr::V4(town.addresses[address])).into_iter().flatten();
        let cannot_serve: Vec<Station> =
            owners.copied().filter(|owner| town.is_running(*owner) && !town.hosts[*owner].path).collect();
        let can_tell = |host: Station| cannot_serve.iter().all(|owner| town.link.pulses_pass(host, *owner, now));
        let could = |host: Station| {
            town.could_serve(host, address)
                && town.hosts[host].started.is_some_and(|at| at + STARTED <= now)
                && town.link.passes(port, host, now)
                && town.link.passes(host, port, now)
                && can_tell(host)
        };
        if served || town.is_disturbed(address) || !(0..self.agents).any(could) {
            self.served.insert(place, now);
            return;
        }
        let since = *self.served.entry(place).or_insert(now);
        let (gap, most) = (now.duration_since(since), self.patience(town));
        let is_unnoticed = self.unnoticed.is_some_and(|at| now < at + CLIENT_ASKS_ANEW);
        if gap > most && !is_unnoticed {
            let ip = town.addresses[address];
            let text = format!("the {who} was not served at {ip} for {gap:?}, longer than {most:?}");
            self.breaks(Broken::Unanswered, now, format!("{who} {ip}"), text);
        }
    }

    /// A node that restarts and was to be back is not, or restarts again before it is.
    fn is_late(&self, at: Instant, deed: &Deed) -> bool {
        let Deed::Restart { station, pause, keeps: Some(time), .. } = deed else { return false };
        let before = self.deeds.iter().filter_map(|(began, deed)| match deed {
            Deed::Restart { station: who, keeps: Some(time), .. } if who == station && *began <= at => {
                Some(*began + *time)
            }
            _ => None,
        });
        before.filter(|until| *until > at).chain([at + *time]).any(|until| at + *pause + STARTED >= until)
    }

    /// How long a client may go without an answer.
    fn patience(&self, town: &Town) -> Duration {
        let now = town.now();
        let recent = |most: Duration| self.deeds.iter().filter(move |(at, deed)| ends(*at, deed) + most >= now);
        let all_planned = || recent(EXPLAINED).all(|(at, deed)| is_planned(deed) && !self.is_late(*at, deed));
        if town.is_keyless() {
            return WITHOUT_KEY;
        }
        if !self.deeds.is_empty() && town.link.loss == 0 && all_planned() {
            return NO_GAP;
        }
        let lost = |deed: &Deed| match deed {
            Deed::Kill(_) | Deed::Reboot { .. } | Deed::Unplug(_) | Deed::Freeze(..) => 1,
            Deed::Split(_) | Deed::Heal => u32::try_from(self.agents).unwrap_or(u32::MAX),
            _ => 0,
        };
        let lost: u32 = recent(UNNOTICED + ANSWERED).map(|(_, deed)| lost(deed)).sum();
        let unheard = if self.filtered { ASKED_ON_THE_LINK } else { Duration::ZERO };
        let by_loss = if town.link.loss > 0 { ANSWERED * 2 } else { Duration::ZERO };
        ANSWERED + DETECTION * lost + unheard + by_loss
    }

    /// (2): two owners that can hear each other are one.
    fn look_at_owners(&mut self, town: &Town) {
        let now = town.now();
        let hear = |one: Station, other: Station| {
            let both_run = town.is_running(one) && town.is_running(other);
            let passes = |from, to| town.link.passes(from, to, now);
            // Nobody reaches one that receives nothing: it answers for nothing.
            let is_reached = |it: Station| (0..self.agents).any(|from| passes(from, it));
            both_run && is_reached(one) && is_reached(other) && (passes(one, other) || passes(other, one))
        };
        let mut pairs = BTreeSet::new();
        for (address, owners) in town.owners.iter().filter(|(_, owners)| owners.len() > 1) {
            for one in owners {
                pairs.extend(owners.range(one + 1..).filter(|it| hear(*one, **it)).map(|it| (*address, *one, *it)));
            }
        }
        self.both.retain(|pair, _| pairs.contains(pair));
        self.heard.retain(|pair, _| pairs.contains(pair));
        for pair in pairs {
            let since = *self.both.entry(pair).or_insert(now);
            let lasted = now.duration_since(since);
            let (address, one, other) = pair;
            let pulses = town.link.pulses_pass(one, other, now) || town.link.pulses_pass(other, one, now);
            let pulses = pulses && !town.is_keyless();
            let both_ways = town.link.passes(one, other, now) && town.link.passes(other, one, now);
            // Since when it was so: the kind of the link may have changed.
            let since = *self
                .heard
                .entry(pair)
                .and_modify(|it| {
                    if it.1 != (both_ways, pulses) {
                        *it = (now, (both_ways, pulses))
                    }
                })
                .or_insert((since, (both_ways, pulses)));
            let lasted = now.duration_since(since.0).min(lasted);
            let most = match (both_ways || pulses, town.link.loss > 0 && !pulses) {
                (false, _) => ONE_WAY_UNHEARD,
                (true, true) => ONE_OWNER + ANNOUNCED_AGAIN,
                (true, false) => ONE_OWNER,
            };
            if lasted > most {
                let (one, other) = (name(one, self.agents), name(other, self.agents));
                let text = format!("{one} and {other} both answer for {address} for {lasted:?}");
                self.breaks(Broken::TwoOwners, now, address.to_string(), text);
            }
        }
    }

    /// (4): the budget of frames.
    fn look_at_frames(&mut self, town: &mut Town) {
        let now = town.now();
        let last = self.deeds.last().map_or(self.began, |(at, _)| *at);
        let most = if now < last + STEADY { FRAMES_AT_ONCE } else { FRAMES };
        for host in 0..self.agents {
            let sent = town.link.floods_in_a_second(host, now);
            if sent > most {
                let who = name(host, self.agents);
                let text = format!("{who} sent {sent} broadcasts and multicasts in a second, more than {most}");
                self.breaks(Broken::Frames, now, who, text);
            }
        }
    }

    /// (6): a drained node answers for nothing that another node can serve.
    fn look_at_drains(&mut self, town: &Town) {
        let now = town.now();
        let recent = self.deeds.iter().filter(|(at, deed)| ends(*at, deed) + EXPLAINED >= now);
        if self.filtered || town.is_keyless() || town.link.loss > 0 || !recent.clone().all(|(_, deed)| is_planned(deed))
        {
            return;
        }
        let is_over = |host: &Station| {
            town.hosts[*host].drain.as_ref().is_some_and(|it| it.is_over() && now > it.since + DRAINED)
        };
        for (number, ip) in town.addresses.iter().enumerate() {
            let address = IpAddr::V4(*ip);
            let owners = town.owners.get(&address).into_iter().flatten().copied();
            let Some(host) = owners.filter(is_over).find(|host| town.is_running(*host)) else { continue };
            let started = |it: Station| town.hosts[it].started.is_some_and(|at| now > at + DRAINED);
            let could = |it: Station| town.could_serve(it, number) && started(it) && town.hear_each_other(it, host);
            if started(host) && (0..self.agents).any(could) {
                let text = format!("{} still answers for {address} although it was drained", name(host, self.agents));
                self.breaks(Broken::Drained, now, address.to_string(), text);
            }
        }
    }

    /// (7): in the end each address is with the node that is best for it.
    fn look_at_places(&mut self, town: &Town) {
        let now = town.now();
        let quiet = self.deeds.iter().all(|(at, deed)| ends(*at, deed) + PLACED < now);
        let alive: Vec<Station> = (0..self.agents).filter(|it| town.hosts[*it].agent.is_some()).collect();
        let sees_api = |it: &Station| town.hosts[*it].sees_api;
        let all_hear = || alive.iter().all(|one| alive.iter().all(|it| one == it || town.hear_each_other(*one, *it)));
        let settled =
            |it: &Station| town.is_running(*it) && town.hosts[*it].started.is_some_and(|at| now > at + PLACED);
        if !quiet
            || self.deeds.is_empty()
            || self.pulses_filtered
            || town.is_keyless()
            || town.link.loss > 0
            || town.sticks_anywhere()
        {
            return;
        }
        if !alive.iter().all(|it| sees_api(it) && settled(it) && town.hosts[*it].path) || !all_hear() {
            return;
        }
        for (number, ip) in town.addresses.iter().enumerate().filter(|(number, _)| !town.is_disturbed(*number)) {
            let address = IpAddr::V4(*ip);
            let Some(best) = alive
                .iter()
                .copied()
                .filter(|it| town.could_serve(*it, number))
                .max_by_key(|it| town.rank(*it, number))
            else {
                continue;
            };
            let owners: Vec<Station> = town.owners.get(&address).into_iter().flatten().copied().collect();
            if owners != [best] {
                let owners: Vec<String> = owners.iter().map(|it| name(*it, self.agents)).collect();
                let text =
                    format!("{address} is with {owners:?} in the end, and {} is best for it", name(best, self.agents));
                self.breaks(Broken::Misplaced, now, address.to_string(), text);
            }
        }
    }

    /// (8): what pods with egress send has their Service's address.
    fn note_leak(&mut self, now: Instant, pod: IpAddr, [of, by]: [Station; 2], source: IpAddr) {
        let [of, by] = [of, by].map(|host| name(host, self.agents));
        let text = format!("what {pod} of {of} sent left by {by} with {source}");
        self.breaks(Broken::Leaked, now, pod.to_string(), text);
    }

    /// (8): and it leaves.
    fn look_at_pods(&mut self, town: &Town) {
        let now = town.now();
        let quiet = self.deeds.iter().all(|(at, deed)| ends(*at, deed) + PLACED < now);
        let alive: Vec<Station> = (0..self.agents).filter(|it| town.is_running(*it)).collect();
        let all_hear = || alive.iter().all(|one| alive.iter().all(|it| one == it || town.hear_each_other(*one, *it)));
        if town.pods.is_empty()
            || !quiet
            || now < self.began + PLACED
            || self.filtered
            || town.link.loss > 0
            || !all_hear()
        {
            return;
        }
        for pod in town.pods.iter().filter(|pod| !pod.plain && alive.contains(&pod.host)) {
            let is_owned = || alive.iter().any(|it| town.could_serve(*it, pod.service));
            let is_there = town.exists[pod.service] && town.has_egress[pod.service] && !town.is_disturbed(pod.service);
            let sees_api = town.hosts.iter().all(|host| host.sees_api);
            if is_there && sees_api && is_owned() && pod.left.is_none_or(|left| now > left + LEAVES) {
                let text = format!("nothing of {} of {} leaves", pod.address, name(pod.host, self.agents));
                self.breaks(Broken::Stuck, now, pod.address.to_string(), text);
            }
        }
    }

    /// What the agents say in the end of addresses that were where they should not be.
    pub fn tell_end(&mut self, town: &Town) {
        self.tell_deaf(town);
        let agents = self.agents;
        let places: BTreeSet<String> = self.broken.values().flat_map(|it| it.places.iter().cloned()).collect();
        for (number, agent) in town.hosts.iter().enumerate().filter_map(|(at, host)| Some((at, host.agent.as_ref()?))) {
            let said =
                agent.says().iter().filter(|(address, _)| places.iter().any(|it| it.ends_with(&address.to_string())));
            for (address, holding) in said {
                self.tell(town.now(), || {
                    format!(
                        "    {} says of {address}: {:?}, weight {}",
                        name(number, agents),
                        holding.stage,
                        holding.weight
                    )
                });
            }
        }
    }

    fn tell_deaf(&mut self, town: &Town) {
        for (number, host) in town.hosts.iter().enumerate() {
            let Some(deaf) = host.agent.as_ref().map(|agent| agent.deaf_to_it()).filter(|it| !it.is_empty()) else {
                continue;
            };
            let agents = self.agents;
            self.tell(town.now(), || {
                format!("    {} knows that it is not heard by {}", name(number, agents), deaf.join(", "))
            });
        }
    }

    fn breaks(&mut self, broken: Broken, now: Instant, place: String, text: String) {
        let at = now.duration_since(self.began);
        let first = !self.broken.contains_key(&broken);
        if first {
            self.tell(now, || format!("!!! {}: {text}", broken.word()));
        }
        let finding =
            self.broken.entry(broken).or_insert_with(|| Finding { at, text: String::new(), places: BTreeSet::new() });
        finding.text = text;
        finding.places.insert(place);
    }

    /// How it came to what stands before the first deed interests nobody.
    fn tell_beginning(&mut self, town: &Town) {
        let agents = self.agents;
        self.chronicle.iter_mut().for_each(Vec::clear);
        for (address, owners) in &town.owners {
            let names: Vec<String> = owners.iter().map(|owner| name(*owner, agents)).collect();
            self.tell(town.now(), || format!("    {} answers for {address}", names.join(" and ")));
        }
    }

    fn tell(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.chronicle.is_none() {
            return;
        }
        let line = format!("{:>9.3} s {}", now.duration_since(self.began).as_secs_f64(), line());
        self.chronicle.get_or_insert_default().push(line);
    }
}

/// The segment of each node, numbered by the first node in it.
fn segments(town: &Town) -> Vec<usize> {
    let part = |host: Station| town.link.part(host);
    (0..town.hosts.len()).map(|host| (0..=host).find(|first| part(*first) == part(host)).unwrap_or(host)).collect()
}

/// When a node is as it was before, as far as the deed alone tells.
fn ends(at: Instant, deed: &Deed) -> Instant {
    match deed {
        Deed::Reboot { down, path, .. } => at + *down + *path,
        Deed::Restart { pause, .. } => at + *pause,
        Deed::Drain(_, waiting) => at + *waiting,
        Deed::Freeze(_, time) => at + *time,
        _ => at,
    }
}

fn is_planned(deed: &Deed) -> bool {
    matches!(
        deed,
        Deed::Restart { .. }
            | Deed::Stop(_)
            | Deed::Start(_)
            | Deed::Drain(..)
            | Deed::Undrain(_)
            | Deed::Move { .. }
            | Deed::Reload(..)
    )
}
