//! Makes the VRFs of the configuration and keeps them: devices, interfaces, addresses, routes, and the rules that keep packets to
//! the cluster in the main table. Floor 2. An actuator. `wanted` decides, `messages` speaks netlink.
//!
//! | task   | owner     | owns                        | when cancelled                                                  |
//! |--------|-----------|-----------------------------|-----------------------------------------------------------------|
//! | keeper | the agent | its sockets, `vrfs.json`    | the VRFs stay; `crier cleanup` takes away what crier made of them |
//!
//! What another program removes is put back as soon as the kernel tells. What crier did not make it does not remove: it notes in
//! the state folder what it is about to make.

mod messages;
pub mod wanted;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::messages::Lists;
use self::wanted::{Change, Found, Made, Outcome, Step, Wanted, changes};
use super::netlink::{Event, Netlink, NetlinkError, table_of};
use super::sysctl;
use crate::address::Family;
use crate::names::InterfaceName;
use crate::plan::slice::VrfSlice;
use crate::state_file::{self, Outlasts};
use crate::world::{Area, Fact, HostProblem};

/// How long to wait before what the kernel refused is tried again: a module may have been loaded, which no event tells.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Changes of others are mended this long after the last look at the soonest, so that two programs that undo each other's work
/// do not keep the host busy.
const REST: Duration = Duration::from_millis(200);

/// Each look may bring up what the changes before it took along: a device, then its interfaces, then their routes.
const MOST_LOOKS: usize = 5;

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Follows the slice for ever, and tells what VRFs lack as [`Fact::Vrfs`]. May be dropped at any time.
pub async fn run(mut slices: watch::Receiver<VrfSlice>, folder: PathBuf, facts: mpsc::Sender<Fact>) {
    let mut keeper = Keeper::new(&folder);
    let mut told: Vec<HostProblem> = Vec::new();
    loop {
        let error = match keeper.follow(&mut slices, &facts, &mut told).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        warn!(%error, "VRFs cannot be looked after; they stay as they are; trying again");
        sleep(RETRY_INTERVAL).await;
    }
}

/// Takes away all that crier made of VRFs: for `crier cleanup`, when no agent runs. Answers with the commands that would have done
/// the same.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub async fn take_away(folder: &Path) -> Result<Vec<String>, String> {
    let mut keeper = Keeper::new(folder);
    if keeper.made.is_empty() {
        return Ok(Vec::new());
    }
    let done = async {
        let mut netlink = Netlink::open_for(&[])?;
        let mut done = Vec::new();
        let mut refused = Vec::new();
        for _ in 0..MOST_LOOKS {
            let outcome = keeper.look(&VrfSlice::default(), &mut netlink).await?;
            if outcome.steps.is_empty() {
                break;
            }
            done.extend(outcome.steps.iter().map(|(_, change)| change.to_string()));
            refused = keeper.work(outcome, &mut netlink).await?.refused;
        }
        Ok::<_, NetlinkError>((done, refused))
    };
    let (done, refused) = done.await.map_err(|error| error.to_string())?;
    match refused.first() {
        Some(problem) => Err(problem.problem.clone()),
        None => Ok(done),
    }
}

struct Keeper {
    file: PathBuf,
    made: Made,
    found: Found,
    /// The VRFs were as they should be, and nothing new is asked for: whatever differs, another program did.
    settled: bool,
}

impl Keeper {
    fn new(folder: &Path) -> Keeper {
        let file = folder.join("vrfs.json");
        let read = state_file::read(&file).and_then(|octets| Ok(serde_json::from_slice(&octets)?));
        let made = read.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(file = %file.display(), %error, "what crier made of VRFs is not known; crier cleanup will not remove it");
            }
            Made::default()
        });
        Keeper { file, made, found: Found::default(), settled: false }
    }

    async fn follow(
        &mut self,
        slices: &mut watch::Receiver<VrfSlice>,
        facts: &mpsc::Sender<Fact>,
        told: &mut Vec<HostProblem>,
    ) -> Result<std::convert::Infallible, NetlinkError> {
        // Without VRFs there is nothing to listen for.
        let mut netlink: Option<Netlink> = None;
        loop {
            let slice = slices.borrow_and_update().clone();
            let is_wanted = slice.planned && (!slice.vrfs.is_empty() || !self.made.is_empty());
            let mut retry = false;
            if is_wanted {
                let netlink = match &mut netlink {
                    Some(netlink) => netlink,
                    None => netlink.insert(Netlink::open_for(&GROUPS)?),
                };
                let mut problems = self.keep(&slice, netlink).await?;
                problems.extend(unforwarded(&slice));
                retry = !problems.is_empty();
                tell(problems, told, facts).await;
            } else if slice.planned {
                netlink = None;
                tell(Vec::new(), told, facts).await;
            }
            tokio::select! {
                changed = slices.changed() => {
                    self.settled = false;
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                () = sleep(RETRY_INTERVAL), if retry => {}
                concerned = self.concerned(netlink.as_mut(), &slice) => concerned?,
            }
        }
    }

    /// Waits for an event that is about VRFs. Links and routes of pods come and go all the time.
    async fn concerned(&self, netlink: Option<&mut Netlink>, slice: &VrfSlice) -> Result<(), NetlinkError> {
        let Some(netlink) = netlink else { return std::future::pending().await };
        let concerns = |event: &Event| match event {
            Event::Message(message) => self.is_about_vrfs(message, slice),
            Event::Overrun | Event::Closed => true,
        };
        loop {
            let event = netlink.event().await;
            if let Event::Closed = event {
                return Err(NetlinkError::Ended);
            }
            if concerns(&event) {
                break;
            }
        }
        sleep(REST).await;
        // Events of our own changes come too; one look covers all of them.
        while let Some(event) = netlink.pending_event() {
            if let Event::Closed = event {
                return Err(NetlinkError::Ended);
            }
        }
        Ok(())
    }

    fn is_about_vrfs(&self, message: &RouteNetlinkMessage, slice: &VrfSlice) -> bool {
        let is_named =
            |name: &InterfaceName| slice.vrfs.iter().any(|vrf| vrf.name == *name || vrf.interfaces.contains(name));
        let is_known = |index: u32| self.found.links.iter().any(|(name, link)| link.index == index && is_named(name));
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let has_name = |attribute: &LinkAttribute| match attribute {
                    LinkAttribute::IfName(name) => is_named(&name.as_str().into()),
                    // The enum is not ours.
                    _ => false,
                };
                is_known(link.header.index) || link.attributes.iter().any(has_name)
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                is_known(address.header.index)
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                slice.vrfs.iter().any(|vrf| vrf.table == table_of(route))
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
            // The enum is not ours; no other message was subscribed to.
            _ => false,
        }
    }

    /// Brings the kernel to what is wanted, and answers with what could not be done.
    async fn keep(&mut self, slice: &VrfSlice, netlink: &mut Netlink) -> Result<Vec<HostProblem>, NetlinkError> {
        let mut problems = Vec::new();
        let mut passed_over = Vec::new();
        for _ in 0..MOST_LOOKS {
            let mut outcome = self.look(slice, netlink).await?;
            problems = std::mem::take(&mut outcome.problems);
            let in_the_way = in_the_way(&mut outcome.steps, &passed_over);
            problems.extend(in_the_way);
            if outcome.steps.is_empty() {
                break;
            }
            let Done { refused, passed_over: more } = self.work(outcome, netlink).await?;
            passed_over.extend(more);
            if !refused.is_empty() {
                problems.extend(refused);
                break;
            }
        }
        self.settled = problems.is_empty();
        Ok(problems)
    }

    async fn look(&mut self, slice: &VrfSlice, netlink: &mut Netlink) -> Result<Outcome, NetlinkError> {
        let lists = Lists {
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
            routes: netlink.routes().await?,
            rules: netlink.rules().await?,
        };
        let tables: BTreeSet<u32> =
            slice.vrfs.iter().map(|vrf| vrf.table).chain(self.made.tables.iter().copied()).collect();
        self.found = lists.found(&tables);
        let wanted = Wanted { vrfs: &slice.vrfs, cluster: &slice.cluster, own: &slice.own, complete: slice.complete };
        let outcome = changes(&wanted, &self.found, &self.made);
        let mut made = self.made.clone();
        made.forget(&wanted, &self.found);
        outcome.steps.iter().for_each(|(_, change)| made.note(change));
        self.note(made);
        Ok(outcome)
    }

    /// Before it is made: a later life takes it away by what the disk says. Where the disk takes no write it is made all the same.
    fn note(&mut self, made: Made) {
        if made == self.made {
            return;
        }
        match write(&self.file, &made) {
            Ok(()) => {}
            Err(error) => {
                warn!(file = %self.file.display(), %error, "what crier makes of VRFs is not kept; crier cleanup will not remove it")
            }
        }
        self.made = made;
    }

    /// Makes the changes. A VRF with a change that the kernel refuses is left for this time; the others go on.
    async fn work(&mut self, outcome: Outcome, netlink: &mut Netlink) -> Result<Done, NetlinkError> {
        let mut failed: BTreeSet<Option<InterfaceName>> = BTreeSet::new();
        let mut done = Done::default();
        for (vrf, change) in outcome.steps {
            if vrf.is_some() && failed.contains(&vrf) {
                continue;
            }
            match self.make(&change, netlink).await {
                Ok(Some(error)) => done.passed_over.push(((vrf, change), error)),
                Ok(None) if self.settled => {
                    warn!(vrf = vrf.as_ref().map(InterfaceName::as_str), done = %change, "another program changed a VRF; mended")
                }
                Ok(None) => info!(vrf = vrf.as_ref().map(InterfaceName::as_str), done = %change, "VRF changed"),
                Err(NetlinkError::Refused(error)) => {
                    done.refused.push(refusal(vrf.as_ref(), &change, &error));
                    failed.insert(vrf);
                }
                Err(other) => return Err(other),
            }
        }
        Ok(done)
    }

    /// Answers with the kernel's words where it says that this is done already. The next look shows whether it is.
    async fn make(&mut self, change: &Change, netlink: &mut Netlink) -> Result<Option<String>, NetlinkError> {
        // What is there already, or gone already, may be as it should be.
        const FINE: [i32; 5] = [libc::EEXIST, libc::ESRCH, libc::ENOENT, libc::ENODEV, libc::EADDRNOTAVAIL];
        let device = match change {
            Change::MakeDevice { name, .. } => Some(name.clone()),
            _ => None,
        };
        let mut passed_over = None;
        for (message, flags) in messages::requests(change, &self.found) {
            match netlink.change(message, flags).await {
                Err(error) if FINE.iter().any(|code| error.is_refusal(*code)) => {
                    debug!(%change, %error, "as it should be, or in the way");
                    passed_over = Some(error.to_string());
                }
                done => done?,
            }
        }
        if let Some(name) = device {
            // The changes behind this one are about its index.
            let links = Lists { links: netlink.links().await?, ..Lists::default() }.found(&BTreeSet::new()).links;
            self.found.links.extend(links.into_iter().filter(|(link, _)| *link == name));
        }
        Ok(passed_over)
    }
}

/// What became of changes.
#[derive(Debug, Default)]
struct Done {
    /// What the kernel refused.
    refused: Vec<HostProblem>,
    /// The changes of which the kernel says that there is nothing to do, each with its words.
    passed_over: Vec<(Step, String)>,
}

/// Takes out of the steps those that the kernel passed over and that are wanted all the same: something else is in their place, which
/// may be another program's and is left alone. Answers with what that means.
fn in_the_way(steps: &mut Vec<Step>, passed_over: &[(Step, String)]) -> Vec<HostProblem> {
    let mut problems = Vec::new();
    steps.retain(|step| {
        let Some((_, error)) = passed_over.iter().find(|(other, _)| other == step) else { return true };
        let (vrf, change) = step;
        problems.push(HostProblem {
            problem: format!(
                "{} is not whole: `{change}` changes nothing, for something else is in its place, and crier leaves that alone: {error}",
                described(vrf.as_ref())
            ),
            remedy: change.to_see(),
        });
        false
    });
    problems
}

fn described(vrf: Option<&InterfaceName>) -> String {
    vrf.map_or_else(|| "a rule for VRFs".to_owned(), |vrf| format!("the VRF {vrf}"))
}

/// What keeps requests that come in by a VRF from going on to pods.
fn unforwarded(slice: &VrfSlice) -> Vec<HostProblem> {
    let has_v6 = slice.vrfs.iter().flat_map(|vrf| &vrf.addresses).any(|net| net.addr().is_ipv6());
    let families = if has_v6 { &Family::BOTH[..] } else { &[Family::V4] };
    let links = slice.vrfs.iter().flat_map(|vrf| vrf.interfaces.iter().chain([&vrf.name])).cloned().collect();
    if slice.vrfs.is_empty() { Vec::new() } else { sysctl::forwarding(families, &links) }
}

fn refusal(vrf: Option<&InterfaceName>, change: &Change, error: &io::Error) -> HostProblem {
    let of = described(vrf);
    match (change, error.raw_os_error()) {
        (Change::MakeDevice { .. }, Some(libc::EOPNOTSUPP)) => HostProblem {
            problem: format!("{of} cannot be made: the kernel has no VRF support"),
            remedy: "modprobe vrf, or install the kernel package that has this module (CONFIG_NET_VRF)".to_owned(),
        },
        (_, Some(libc::EPERM)) => HostProblem {
            problem: format!("{of} cannot be made: {error}"),
            remedy: "give crier CAP_NET_ADMIN, as the systemd unit does".to_owned(),
        },
        (_, _) => HostProblem {
            problem: format!("{of} is not whole: the kernel refused `{change}`: {error}"),
            remedy: "correct [[vrf]], or try the command by hand".to_owned(),
        },
    }
}

/// Replaces the file in one step.
fn write(file: &Path, made: &Made) -> io::Result<()> {
    if made.is_empty() {
        return state_file::remove(file);
    }
    state_file::replace(file, &serde_json::to_vec_pretty(made)?, Outlasts::PowerLoss)
}

async fn tell(problems: Vec<HostProblem>, told: &mut Vec<HostProblem>, facts: &mpsc::Sender<Fact>) {
    if problems == *told {
        return;
    }
    for HostProblem { problem, remedy } in problems.iter().filter(|problem| !told.contains(problem)) {
        warn!(problem, remedy, "a VRF is not as the configuration says");
    }
    told.clone_from(&problems);
    // Nobody takes facts any more only when the agent ends.
    let _ = facts.send(Fact::Problems(Area::Vrfs, problems)).await;
}

#[cfg(test)]
mod tests {
    use super::wanted::{Hop, Route};
    use super::*;

    /// Input: the table has a default route of another program with the metric of crier's, by another gateway, so the kernel answers
    /// EEXIST. Output: the route is not taken for made, and is not tried again in the same round; what can be done goes on.
    #[test]
    fn what_the_kernel_says_is_there_and_is_still_wanted_is_a_problem_and_not_done() {
        let step = |via: &str| -> Step {
            let hop = Hop::Via { via: via.parse().unwrap(), link: "eth1".into() };
            let route = Route { table: 1001, to: "0.0.0.0/0".parse().unwrap(), hop };
            (Some("red".into()), Change::AddRoute(route))
        };
        let (taken, free) = (step("192.0.2.1"), step("192.0.2.2"));
        let mut steps = vec![taken.clone(), free.clone()];
        assert_eq!(in_the_way(&mut steps, &[]), []);
        let problems = in_the_way(&mut steps, &[(taken, "File exists (os error 17)".to_owned())]);
        assert_eq!(steps, [free]);
        let [HostProblem { problem, remedy }] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.contains("the VRF red is not whole") && problem.contains("via 192.0.2.1"), "{problem}");
        assert!(remedy.contains("ip -4 route show table 1001"), "{remedy}");
    }
}
