//! Hears from systemd-logind that the host shuts down, and has it wait until this node is drained: `[drain] follow-shutdown`. Floor 3.
//!
//! logind is asked by systemd's own programs, so that no D-Bus is spoken here. `systemd-inhibit` holds a delay lock for as long as
//! it runs, and runs `busctl monitor`, which prints the signal with which a shutdown begins or is given up. Once the drain is as far
//! as it gets, both are ended, and the shutdown goes on. While one has begun logind gives no lock: it is asked for its end then.
//!
//! Tasks: [`run`] is one, owned by the agent. It has a thread for what its programs print, which ends with them. Cancelled, it ends
//! them, and so lets a shutdown go on. Where the agent is killed, `busctl` ends at the signal, for nobody reads it, and the lock with it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::reload::Wanted;
use crate::clock;
use crate::config::duration;
use crate::world::{Fact, HostProblem, Shutdown};

/// What is asked, and where.
const MANAGER: [&str; 3] = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];

/// The signal with which a shutdown begins, or is given up.
const SIGNAL: &str = "PrepareForShutdown";

/// The longest line that is read. The signal takes 300 octets.
const LONGEST: u64 = 4096;

/// Lines that wait to be looked at. The programs wait for more room.
const LINES: usize = 8;

/// How long an answer may take: dbus and logind give it within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// When logind is asked again after a lock was taken: `busctl` hears nothing before it is connected.
const HEARS_AFTER: Duration = Duration::from_secs(1);

/// And how often later: how long it waits may be changed while it runs, as kubelet does.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often logind is asked whether a shutdown is given up.
const GIVEN_UP_EVERY: Duration = Duration::from_secs(2);

/// How long routers have to hear that the node is drained.
const HEARD: Duration = Duration::from_secs(1);

/// How soon programs that ended are started again, doubled each time.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// systemd's own.
pub(super) struct Programs {
    inhibit: PathBuf,
    busctl: PathBuf,
}

impl Default for Programs {
    fn default() -> Programs {
        Programs { inhibit: "systemd-inhibit".into(), busctl: "busctl".into() }
    }
}

/// What logind says when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    begun: bool,
    granted: Duration,
}

/// What is known, and what follows from it.
#[derive(Debug)]
struct Machine {
    known: Shutdown,
    /// How long the next failure is waited for.
    again: Duration,
}

/// What comes next where no lock is held.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// A lock is to be taken.
    Hold,
    /// logind is to be asked again.
    AskIn(Duration),
}

impl Machine {
    fn new() -> Machine {
        Machine { known: Shutdown::default(), again: AGAIN }
    }

    /// logind was asked while no lock is held.
    fn asked(&mut self, answer: Result<Answer, String>) -> Next {
        match answer {
            Ok(Answer { begun: true, .. }) => {
                if self.known.begun != Some(true) {
                    // It waits for nobody who comes now.
                    self.known = Shutdown { begun: Some(true), granted: Duration::ZERO, problem: None };
                }
                Next::AskIn(GIVEN_UP_EVERY)
            }
            Ok(Answer { begun: false, granted }) => {
                (self.known.begun, self.known.granted) = (Some(false), granted);
                Next::Hold
            }
            Err(why) => self.failed(&why),
        }
    }

    /// logind was asked while a lock is held.
    fn asked_with_lock(&mut self, answer: Result<Answer, String>) {
        match answer {
            Ok(Answer { begun, granted }) => {
                self.known = Shutdown { begun: Some(begun), granted, problem: None };
                self.again = AGAIN;
            }
            Err(why) => self.known.problem = Some(problem(&why)),
        }
    }

    fn heard(&mut self, begun: bool) {
        self.known.begun = Some(begun);
    }

    /// There is no answer, or the programs have ended by themselves. A shutdown that has begun goes on until logind says otherwise, and
    /// nothing is wrong where systemd stops dbus in the course of it.
    fn failed(&mut self, why: &str) -> Next {
        if self.known.begun != Some(true) {
            self.known.begun = Some(false);
            self.known.problem = Some(problem(why));
        }
        let pause = self.again;
        self.again = (self.again * 2).min(AGAIN_MOST);
        Next::AskIn(pause)
    }
}

fn problem(why: &str) -> HostProblem {
    HostProblem {
        problem: format!("[drain] follow-shutdown does nothing: no shutdown of this host is held up: {why}"),
        remedy: "it needs systemd-inhibit, busctl, systemd-logind and dbus on this host (systemctl status systemd-logind dbus), and an \
                 agent that runs as root; where access is denied, give the unit CAP_SYS_BOOT by a drop-in (CapabilityBoundingSet= and \
                 AmbientCapabilities=); it is tried again"
            .to_owned(),
    }
}

/// A line of the programs that says something.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Signal {
        begun: bool,
    },
    /// Why they end, it may be.
    Text(String),
}

/// Other JSON, and what is none although it looks like it, says nothing.
fn read_line(line: &[u8]) -> Option<Line> {
    if line.first() != Some(&b'{') {
        let text = String::from_utf8_lossy(line).trim().trim_end_matches('.').to_owned();
        return (!text.is_empty()).then_some(Line::Text(text));
    }
    let message: Value = serde_json::from_slice(line).ok()?;
    let [_, _, interface] = MANAGER;
    let is_signal = message["interface"] == interface && message["member"] == SIGNAL;
    let begun = message["payload"]["data"][0].as_bool().filter(|_| is_signal)?;
    Some(Line::Signal { begun })
}

/// Tells the lines of `from`, without those that are too long, until nobody listens.
fn tell_lines(from: impl Read, to: &mpsc::Sender<Line>) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let (mut line, mut skips) = (Vec::new(), false);
    loop {
        line.clear();
        let length = from.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        let is_whole = line.ends_with(b"\n") || (length as u64) < LONGEST;
        let is_rest = std::mem::replace(&mut skips, !is_whole);
        let news = read_line(&line).filter(|_| is_whole && !is_rest);
        if length == 0 || news.is_some_and(|news| to.blocking_send(news).is_err()) {
            return Ok(());
        }
    }
}

/// Programs that run, in a process group of their own. Dropped, all of them end.
struct Running {
    child: Child,
    lines: mpsc::Receiver<Line>,
}

impl Running {
    fn start(mut command: Command) -> Result<Running, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let why = |error: io::Error| format!("{program}: {error}");
        let (reader, writer) = io::pipe().map_err(why)?;
        let both = writer.try_clone().map_err(why)?;
        let child = command.stdin(Stdio::null()).stdout(both).stderr(writer).process_group(0).spawn().map_err(why)?;
        // It holds the other end of the pipe.
        drop(command);
        let (tell, lines) = mpsc::channel(LINES);
        let running = Running { child, lines };
        let thread = std::thread::Builder::new().name("shutdown".to_owned());
        // What cannot be read ends, as what has ended.
        thread.spawn(move || drop(tell_lines(reader, &tell))).map_err(why)?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error: it has ended, and so have all. The number is its own until it is waited for.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Everything the task owns.
pub(super) struct Watcher {
    programs: Programs,
    facts: mpsc::Sender<Fact>,
    /// Whether a shutdown need not wait for this node any longer.
    far_enough: watch::Receiver<bool>,
    told: Shutdown,
}

/// Listens for as long as the configuration follows shutdowns.
pub(super) async fn run(mut watcher: Watcher, mut wanted: watch::Receiver<Wanted>) {
    while wanted.wait_for(|wanted| wanted.shutdowns).await.is_ok() {
        tokio::select! {
            () = watcher.listen() => {}
            // An error: the agent stops.
            _ = wanted.wait_for(|wanted| !wanted.shutdowns) => {}
        }
        watcher.tell(&Shutdown::default()).await;
    }
    std::future::pending().await
}

impl Watcher {
    pub fn new(programs: Programs, facts: mpsc::Sender<Fact>, far_enough: watch::Receiver<bool>) -> Watcher {
        Watcher { programs, facts, far_enough, told: Shutdown::default() }
    }

    async fn listen(&mut self) {
        let mut machine = Machine::new();
        loop {
            let mut next = machine.asked(self.ask().await);
            self.tell(&machine.known).await;
            if next == Next::Hold {
                next = match self.hold(&mut machine).await {
                    Ok(()) => Next::AskIn(Duration::ZERO),
                    Err(why) => machine.failed(&why),
                };
                self.tell(&machine.known).await;
            }
            if let Next::AskIn(pause) = next {
                sleep(pause).await;
            }
        }
    }

    /// Holds a lock until a shutdown need not wait for this node any longer, or says why there is none any more.
    async fn hold(&mut self, machine: &mut Machine) -> Result<(), String> {
        let mut running = Running::start(self.lock())?;
        let mut said = "nothing".to_owned();
        let mut ask_at = clock::now() + HEARS_AFTER;
        let mut until: Option<Instant> = None;
        let mut far_enough = self.far_enough.clone();
        loop {
            tokio::select! {
                line = running.lines.recv() => match line {
                    Some(Line::Signal { begun }) => machine.heard(begun),
                    Some(Line::Text(text)) => said = text,
                    None => return Err(format!("systemd-inhibit has ended, and last said: {said}")),
                },
                () = sleep_until(ask_at.into()) => {
                    machine.asked_with_lock(self.ask().await);
                    ask_at = clock::now() + LOOK_EVERY;
                }
                // An error: the drainer is gone, and the agent with it.
                () = async { drop(far_enough.wait_for(|it| *it).await) }, if until.is_some() => {
                    sleep(HEARD).await;
                    info!("the drain of this node is over: the shutdown of the host is released");
                    return Ok(());
                }
                () = sleep_until(until.unwrap_or(ask_at).into()), if until.is_some() => {
                    warn!("the time that logind grants is over: the shutdown of the host is released before the drain of this node is over");
                    return Ok(());
                }
            }
            let granted = machine.known.granted;
            until = match machine.known.begun {
                Some(true) => until.or_else(|| Some(clock::now() + granted)),
                Some(false) | None => None,
            };
            self.tell(&machine.known).await;
        }
    }

    fn lock(&self) -> Command {
        let [sender, path, interface] = MANAGER;
        let mut command = Command::new(&self.programs.inhibit);
        command.args(["--what=shutdown", "--mode=delay", "--who=crier", "--why=drains this node first"]);
        command.arg(&self.programs.busctl).arg("--json=short");
        command.arg(format!(
            "--match=type='signal',sender='{sender}',path='{path}',interface='{interface}',member='{SIGNAL}'"
        ));
        command.arg("monitor");
        command
    }

    async fn ask(&self) -> Result<Answer, String> {
        let mut command = Command::new(&self.programs.busctl);
        command.arg("get-property").args(MANAGER).args(["InhibitDelayMaxUSec", "PreparingForShutdown"]);
        let mut running = Running::start(command)?;
        let (mut begun, mut granted, mut said) = (None, None, "logind does not say whether one has begun".to_owned());
        let read = async {
            while let Some(line) = running.lines.recv().await {
                let Line::Text(text) = line else { continue };
                match text.split_once(' ') {
                    Some(("b", value)) => begun = value.parse::<bool>().ok(),
                    Some(("t", value)) => granted = value.parse().ok().map(Duration::from_micros),
                    Some(_) | None => said = text,
                }
            }
        };
        if timeout(PATIENCE, read).await.is_err() {
            said = format!("logind does not answer within {}", duration::text(PATIENCE));
        }
        match (begun, granted) {
            (Some(begun), Some(granted)) => Ok(Answer { begun, granted }),
            _ => Err(said),
        }
    }

    async fn tell(&mut self, now: &Shutdown) {
        if self.told == *now {
            return;
        }
        let Shutdown { begun, granted, problem } = now;
        if let Some(problem) = problem.as_ref().filter(|it| self.told.problem.as_ref() != Some(it)) {
            warn!(%problem, "shutdowns are not followed");
        }
        match (self.told.begun, begun) {
            (before, Some(true)) if before != Some(true) => {
                info!(waits_secs = granted.as_secs(), "the host is shutting down and waits for the drain of this node");
            }
            (Some(true), Some(false)) => info!("the shutdown of the host was cancelled"),
            _ => {}
        }
        self.told = now.clone();
        // The loop is gone: nobody to tell.
        let _ = self.facts.send(Fact::Shutdown(now.clone())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    const BEGUN: &str = r#"{"type":"signal","endian":"l","flags":1,"version":1,"cookie":18,"timestamp-realtime":1795987247198348,"sender":":1.1","path":"/org/freedesktop/login1","interface":"org.freedesktop.login1.Manager","member":"PrepareForShutdown","payload":{"type":"b","data":[true]}}"#;

    /// The lines of Debian 12 and 13, and what is none of them.
    #[test]
    fn the_signal_is_read_and_nothing_else_is_one() {
        let signal = |begun| Some(Line::Signal { begun });
        let line = |text: &str| read_line(text.as_bytes());
        assert_eq!(line(BEGUN), signal(true));
        assert_eq!(line(&format!("{}\n", BEGUN.replace("[true]", "[false]"))), signal(false));
        let text = |text: &str| Some(Line::Text(text.to_owned()));
        assert_eq!(line("Monitoring bus message stream.\n"), text("Monitoring bus message stream"));
        assert_eq!(line("Failed to inhibit: Access denied"), text("Failed to inhibit: Access denied"));
        assert_eq!(read_line(b"\xff\xfe"), text("\u{fffd}\u{fffd}"));
        let silent = [
            BEGUN.replace("PrepareForShutdown", "PrepareForSleep"),
            BEGUN.replace("login1.Manager", "login2.Manager"),
            BEGUN.replace("[true]", "[\"true\"]"),
            BEGUN.replace("[true]", "[]"),
            BEGUN.replace("{\"type\":\"b\",\"data\":[true]}", "true"),
            BEGUN[..200].to_owned(),
            "{}".to_owned(),
            "{\"payload\":".repeat(300),
            "\n".to_owned(),
        ];
        for line in silent {
            assert_eq!(read_line(line.as_bytes()), None, "{line}");
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_says_nothing_and_the_next_one_is_read() {
        let long = "x".repeat(3 * 4096);
        for (before, after) in [("", ""), ("", "\n"), ("{", "\n"), (" ", "{\n")] {
            let (tell, mut lines) = mpsc::channel(LINES);
            let printed = format!("{before}{long}{after}");
            let printed =
                if after.is_empty() { printed } else { format!("{printed}{BEGUN}\n{before}{long}{BEGUN}\nlast") };
            let read = tokio::task::spawn_blocking(move || tell_lines(printed.as_bytes(), &tell));
            if !after.is_empty() {
                assert_eq!(lines.recv().await, Some(Line::Signal { begun: true }));
                assert_eq!(lines.recv().await, Some(Line::Text("last".to_owned())));
            }
            assert_eq!(lines.recv().await, None);
            read.await.expect("it ends").expect("it is read");
        }
    }

    #[test]
    fn a_shutdown_that_has_begun_is_one_until_logind_says_otherwise() {
        let granted = Duration::from_secs(5);
        let answer = |begun| Ok(Answer { begun, granted });
        let why = || Err("no dbus".to_owned());
        let known = |machine: &Machine| (machine.known.begun, machine.known.granted, machine.known.problem.is_some());
        let mut machine = Machine::new();
        assert_eq!(machine.asked(why()), Next::AskIn(AGAIN));
        assert_eq!(known(&machine), (Some(false), Duration::ZERO, true), "nobody waits for who may never answer");
        assert_eq!(machine.asked(why()), Next::AskIn(2 * AGAIN));
        assert_eq!(machine.asked(answer(false)), Next::Hold);
        assert_eq!(known(&machine), (Some(false), granted, true), "a lock may fail all the same");
        assert_eq!(machine.failed("access denied"), Next::AskIn(4 * AGAIN));
        machine.asked_with_lock(answer(false));
        assert_eq!((known(&machine), machine.again), ((Some(false), granted, false), AGAIN));
        machine.heard(true);
        assert_eq!(machine.failed("dbus ends"), Next::AskIn(AGAIN));
        assert_eq!(machine.asked(why()), Next::AskIn(2 * AGAIN));
        assert_eq!(machine.asked(answer(true)), Next::AskIn(GIVEN_UP_EVERY));
        assert_eq!(known(&machine), (Some(true), granted, false), "the host stops its services");
        assert_eq!(machine.asked(answer(false)), Next::Hold);
        assert_eq!(known(&machine), (Some(false), granted, false));
        for _ in 0..10 {
            machine.failed("gone");
        }
        assert_eq!(machine.failed("gone"), Next::AskIn(AGAIN_MOST));
    }

    #[test]
    fn an_agent_that_starts_while_the_host_shuts_down_has_no_time_for_flows() {
        let mut machine = Machine::new();
        let next = machine.asked(Ok(Answer { begun: true, granted: Duration::from_secs(5) }));
        assert_eq!((next, machine.known.granted), (Next::AskIn(GIVEN_UP_EVERY), Duration::ZERO));
    }

    /// Programs of that name in a folder, which do as systemd's do: whether a shutdown has begun stands in a file, and the lock is
    /// held while there is a process that has written down its number.
    struct Fake {
        folder: tempfile::TempDir,
        facts: mpsc::Receiver<Fact>,
        far_enough: watch::Sender<bool>,
        wanted: watch::Sender<Wanted>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Fake {
        fn start(granted: &str) -> Fake {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().display();
            let inhibit = format!(
                "[ \"$1 $2\" = '--what=shutdown --mode=delay' ] || exit 1\nshift 4\n[ -e {path}/denied ] && echo \
                 'Failed to inhibit: Access denied' >&2 && exit 1\necho $$ >{path}/lock\n\"$@\" &\nwait\n"
            );
            let busctl = format!(
                "case $1 in get-property) echo 't {granted}'; echo \"b $(cat {path}/begun)\"; exit;; esac\n\
                 echo $$ >{path}/monitor\necho 'Monitoring bus message stream.' >&2\nexec tail -n +1 -f {path}/signals\n"
            );
            for (name, text) in [("systemd-inhibit", inhibit), ("busctl", busctl)] {
                let program = folder.path().join(name);
                fs::write(&program, format!("#!/bin/sh\n{text}")).expect("it is written");
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
            }
            fs::write(folder.path().join("begun"), "false").expect("it is written");
            fs::write(folder.path().join("signals"), "").expect("it is written");
            let (tell, facts) = mpsc::channel(64);
            let (far_enough, held_up) = watch::channel(false);
            let (wanted, wants) = watch::channel(Wanted { shutdowns: true, ..Wanted::default() });
            let program = |name: &str| folder.path().join(name);
            let programs = Programs { inhibit: program("systemd-inhibit"), busctl: program("busctl") };
            let task = tokio::spawn(run(Watcher::new(programs, tell, held_up), wants));
            Fake { folder, facts, far_enough, wanted, task }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// The number of the process that holds the lock, or of the one that listens, once there is one.
        async fn process(&self, name: &str) -> PathBuf {
            for _ in 0..1000 {
                let number = fs::read_to_string(self.path(name)).unwrap_or_default();
                let process = Path::new("/proc").join(number.trim());
                if number.ends_with('\n') && process.exists() {
                    return process;
                }
                sleep(Duration::from_millis(10)).await;
            }
            panic!("no process in {name}");
        }

        async fn ended(process: &Path) {
            for _ in 0..1000 {
                // One that has ended and that nobody has waited for is a zombie.
                let state = fs::read_to_string(process.join("stat")).unwrap_or_default();
                if state.is_empty() || state.contains(") Z ") {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
            panic!("{} runs on", process.display());
        }

        async fn until(&mut self, what: impl Fn(&Shutdown) -> bool) -> Shutdown {
            loop {
                let fact = timeout(Duration::from_secs(20), self.facts.recv()).await.expect("it is told");
                match fact.expect("it runs") {
                    Fact::Shutdown(known) if what(&known) => return known,
                    Fact::Shutdown(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        fn signal(&self, begun: bool) {
            fs::write(self.path("begun"), begun.to_string()).expect("it is written");
            fs::write(self.path("signals"), format!("{}\n", BEGUN.replace("[true]", &format!("[{begun}]"))))
                .expect("it is written");
        }
    }

    #[tokio::test]
    async fn a_shutdown_waits_until_the_node_is_far_enough_and_no_program_is_left() {
        let mut fake = Fake::start("5000000");
        let known = fake.until(|known| known.begun == Some(false)).await;
        assert_eq!(known.granted, Duration::from_secs(5));
        let (lock, monitor) = (fake.process("lock").await, fake.process("monitor").await);
        fake.signal(true);
        fake.until(|known| known.begun == Some(true)).await;
        assert!(lock.exists() && monitor.exists(), "the lock is held");
        fake.far_enough.send_replace(true);
        Fake::ended(&lock).await;
        Fake::ended(&monitor).await;
        // Given up: a lock is held again.
        fake.far_enough.send_replace(false);
        fs::remove_file(fake.path("lock")).expect("it was there");
        fake.signal(false);
        fake.until(|known| known.begun == Some(false)).await;
        let (lock, monitor) = (fake.process("lock").await, fake.process("monitor").await);
        fake.wanted.send_replace(Wanted::default());
        fake.until(|known| known.begun.is_none()).await;
        Fake::ended(&lock).await;
        Fake::ended(&monitor).await;
        fs::remove_file(fake.path("lock")).expect("it was there");
        fake.wanted.send_replace(Wanted { shutdowns: true, ..Wanted::default() });
        let (lock, monitor) = (fake.process("lock").await, fake.process("monitor").await);
        fake.task.abort();
        Fake::ended(&lock).await;
        Fake::ended(&monitor).await;
    }

    #[tokio::test]
    async fn a_shutdown_goes_on_when_its_time_is_over() {
        let mut fake = Fake::start("300000");
        let lock = fake.process("lock").await;
        fake.process("monitor").await;
        fake.signal(true);
        fake.until(|known| known.begun == Some(true)).await;
        Fake::ended(&lock).await;
    }

    #[tokio::test]
    async fn programs_that_end_are_told_and_started_again() {
        let mut fake = Fake::start("5000000");
        let lock = fake.process("lock").await;
        let monitor = fake.process("monitor").await;
        fs::write(fake.path("denied"), "").expect("it is written");
        fs::remove_file(fake.path("lock")).expect("it was there");
        let number = monitor.file_name().and_then(|it| it.to_str()).and_then(|it| it.parse().ok());
        rustix::process::kill_process(number.and_then(Pid::from_raw).expect("a number"), Signal::TERM)
            .expect("it runs");
        let says = |text: &'static str| {
            move |known: &Shutdown| known.problem.as_ref().is_some_and(|it| it.problem.contains(text))
        };
        fake.until(says("no shutdown of this host is held up: systemd-inhibit has ended")).await;
        Fake::ended(&lock).await;
        let known = fake.until(says("Access denied")).await;
        assert!(known.problem.is_some_and(|it| it.remedy.contains("CAP_SYS_BOOT")));
        fs::remove_file(fake.path("denied")).expect("it was there");
        fake.until(|known| known.problem.is_none()).await;
        fake.process("lock").await;
    }

    #[tokio::test]
    async fn a_host_without_systemd_is_told() {
        let (tell, facts) = mpsc::channel(64);
        let (_far_enough, held_up) = watch::channel(false);
        let programs = Programs { inhibit: "/nowhere/inhibit".into(), busctl: "/nowhere/busctl".into() };
        let (_wanted, wants) = watch::channel(Wanted { shutdowns: true, ..Wanted::default() });
        let task = tokio::spawn(run(Watcher::new(programs, tell, held_up), wants));
        let mut facts = facts;
        let Some(Fact::Shutdown(known)) = facts.recv().await else { panic!("nothing is told") };
        let told = known.problem.map(|it| it.problem).unwrap_or_default();
        assert!(told.contains("/nowhere/busctl: No such file or directory"), "{told}");
        assert_eq!(known.begun, Some(false));
        task.abort();
    }
}
