//! A running agent takes another configuration over: only what differs is touched, and a bad file changes nothing.

use std::net::IpAddr;
use std::ops::Deref;

use rack::capture::{BgpKind, BgpMessage};
use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::net::connect;
use rack::uplink::{Uplink, ask_web, router};
use rack::{
    Manifests, Need, Rack, Service, Site, bird, eventually, eventually_equal, frr, millis, rest, secs, throughout,
};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Bird, Need::Crier];

/// One node with a Service, two sessions with a router, one of them signed with TCP MD5, and a client beyond the router.
struct Town {
    uplink: Uplink,
    crier: Crier,
}

impl Deref for Town {
    type Target = Uplink;

    fn deref(&self) -> &Uplink {
        &self.uplink
    }
}

impl Town {
    fn new(rack: &Rack) -> Town {
        let uplink = Uplink::new(rack);
        let node = uplink.site.node(0);
        let crier = node.crier(node.name(), &configuration(&uplink.manifests, &uplink.password));
        let town = Town { uplink, crier };
        town.crier.wait_ready(secs(30));
        town.wait_established();
        eventually("the route has come", secs(10), || {
            if town.communities().is_empty() { Err("no route".to_owned()) } else { Ok(()) }
        });
        town
    }

    fn configuration(&self) -> String {
        configuration(&self.manifests, &self.password)
    }

    /// What the first router has of the route, over the signed session.
    fn communities(&self) -> String {
        let routes = self.bird.route("203.0.113.1/32");
        let signed = routes.iter().find(|route| route.protocol == "signed");
        signed.and_then(|route| route.attributes.get("BGP.community").cloned()).unwrap_or_default()
    }

    /// Writes the configuration with one text replaced, and reloads; what systemd is told.
    #[track_caller]
    fn reload_with(&self, old: &str, new: &str) -> String {
        let text = self.configuration();
        assert!(text.contains(old), "{old}");
        self.crier.write_configuration(&text.replacen(old, new, 1));
        self.crier.reload()
    }
}

fn configuration(manifests: &Manifests, password: &std::path::Path) -> String {
    format!(
        r#"
{}
[api]
listen = ""

[[pool]]
name = "public"
addresses = ["203.0.113.0/28"]
bind = "lo"

[bgp]
asn = 64513
listen = []

[[bgp.peer]]
name = "signed"
address = "192.168.35.1"
asn = 64512
password-file = "{}"
hold-time = "9s"
connect-retry-time = "1s"

[[bgp.peer]]
name = "plain"
address = "fd35::1"
asn = 64512
connect-retry-time = "1s"

[[bgp.advertisement]]
communities = ["64512:100"]

[log]
level = "info"
"#,
        manifests.section(),
        password.display()
    )
}

#[track_caller]
fn fine(told: &str) {
    assert!(told.contains("STATUS=announcing") && !told.contains("failed"), "{told}");
}

#[test]
fn what_differs_is_taken_over_and_no_session_ends_for_it() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);

    fine(&town.reload_with("name = \"plain\"", "name = \"plain\"\ndescription = \"rack 7\""));
    let peers = town.crier.json("bgp peers plain");
    assert_eq!(peers["peers"][0]["description"], "rack 7");

    fine(&town.reload_with("64512:100", "64512:200"));
    eventually_equal("the router has the new community", secs(5), &"(64512,200)".to_owned(), || town.communities());

    town.manifests.service(&Service::new("more").anywhere().addresses("203.0.114.1"));
    let pool = "[[pool]]\nname = \"next\"\naddresses = [\"203.0.114.0/28\"]\nbind = \"lo\"\n\n[bgp]";
    fine(&town.reload_with("[bgp]", pool));
    eventually("the Service of the new pool is announced", secs(5), || {
        if town.bird.route("203.0.114.1/32").is_empty() { Err("no route") } else { Ok(()) }
    });
    fine(&town.reload_with("[bgp]", "[bgp]"));
    eventually("it goes with the pool", secs(5), || {
        if town.bird.route("203.0.114.1/32").is_empty() { Ok(()) } else { Err("the route is still there") }
    });

    fine(&town.reload_with("level = \"info\"", "level = \"error\""));
    let quiet = town.configuration().replace("level = \"info\"", "level = \"error\"");
    town.crier.write_configuration(&quiet.replace("name = \"plain\"", "name = \"plain\"\ndescription = \"rack 9\""));
    fine(&town.crier.reload());
    assert!(!town.crier.process().log().contains("rack 9"), "the log level counts at once");

    assert_eq!(town.established(), [1, 1], "no session has ended");
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
    let status = town.crier.status();
    assert_eq!(status["configuration"]["succeeded"], 6, "{}", status["configuration"]);
    assert_eq!(status["configuration"]["failed"], 0);
}

#[test]
fn the_password_of_an_open_session_is_changed_on_it_and_the_session_goes_on_once_both_sides_agree() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    std::fs::write(&town.password, "hunter-two").expect("it can be written");
    fine(&town.crier.reload());
    town.crier.process().wait_for_log("change it on the peer's side too", secs(5));
    fine(&town.reload_with("64512:100", "64512:200"));
    throughout("the router takes nothing signed with another password", secs(2), || {
        match town.communities().as_str() {
            "(64512,100)" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    std::fs::write(&town.password, "hunter-one").expect("it can be written");
    fine(&town.crier.reload());
    eventually_equal("the session goes on where it was", secs(20), &"(64512,200)".to_owned(), || town.communities());
    assert_eq!(town.established(), [1, 1], "no session has ended");

    // And for good: the router ends its session by itself when its side changes.
    std::fs::write(&town.password, "hunter-two").expect("it can be written");
    fine(&town.crier.reload());
    town.bird.configure(&router("hunter-two"));
    eventually_equal("it comes up with the new password", secs(30), &[2, 1], || town.established());
    let log = town.crier.process().log();
    assert!(!log.contains("hunter"), "no password is logged");
}

#[test]
fn what_is_settled_when_a_session_begins_restarts_that_session_alone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    fine(&town.reload_with("name = \"plain\"", "name = \"plain\"\nhold-time = \"30s\""));
    eventually_equal("the changed peer has a new session", secs(20), &[1, 2], || town.established());
    town.bird.wait_established("plain", secs(10));
    assert_eq!(town.crier.json("bgp peers plain")["peers"][0]["session"]["negotiated"]["hold_time_secs"], 30);
}

#[test]
fn a_bad_file_changes_nothing_and_is_shown_until_a_good_one_comes() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);
    let told = town.reload_with("communities = [\"64512:100\"]", "communities = [\"64512:200\"]\ncomunities = []");
    assert!(
        told.contains("last reload failed") && told.contains("crier.toml:") && told.contains("comunities"),
        "{told}"
    );
    let problems = town.crier.status()["problems"].to_string();
    assert!(problems.contains("last reload failed") && problems.contains("comunities"), "{problems}");
    assert_eq!(town.communities(), "(64512,100)", "nothing of it was taken over");

    // What only a restart can change is named, and nothing else of the file is taken over.
    let told = town
        .reload_with("communities = [\"64512:100\"]", "communities = [\"64512:200\"]\n[host]\nmanage-sysctls = true");
    assert!(told.contains("needs a restart") && told.contains("manage-sysctls"), "{told}");
    assert_eq!(town.communities(), "(64512,100)", "nothing of it was taken over");

    // A secret that cannot be read any more.
    std::fs::rename(&town.password, town.password.with_extension("away")).expect("it can be renamed");
    let told = town.crier.reload();
    assert!(told.contains("last reload failed") && told.contains("tor.md5"), "{told}");
    std::fs::rename(town.password.with_extension("away"), &town.password).expect("it can be renamed");

    // No file at all, a folder, and a pipe that nobody writes.
    std::fs::remove_file(town.crier.file()).expect("it can be removed");
    assert!(town.crier.reload().contains("last reload failed"));
    std::fs::create_dir(town.crier.file()).expect("a folder can be made");
    assert!(town.crier.reload().contains("last reload failed"));
    std::fs::remove_dir(town.crier.file()).expect("it can be removed");
    let made = std::process::Command::new("mkfifo").arg(town.crier.file()).status().expect("mkfifo runs");
    assert!(made.success());
    assert!(town.crier.reload().contains("last reload failed"));
    std::fs::remove_file(town.crier.file()).expect("it can be removed");

    fine(&town.reload_with("64512:100", "64512:200"));
    eventually_equal("the good one counts", secs(5), &"(64512,200)".to_owned(), || town.communities());
    let problems = town.crier.status()["problems"].to_string();
    assert!(!problems.contains("reload"), "{problems}");
    assert_eq!(town.established(), [1, 1]);
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn a_storm_of_a_hundred_reloads_in_a_minute_costs_nobody_a_request() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);
    let began = rack::now();
    for number in 0..100 {
        let text = town.configuration().replace("64512:100", &format!("64512:{number}"));
        town.crier
            .write_configuration(&text.replace("203.0.113.0/28", ["203.0.113.0/28", "203.0.113.0/27"][number % 2]));
        fine(&town.crier.reload());
        rest(millis(100));
    }
    assert!(began.elapsed() < secs(60), "it took {:?}", began.elapsed());
    eventually_equal("the last one counts", secs(5), &"(64512,99)".to_owned(), || town.communities());
    assert_eq!(town.established(), [1, 1]);
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn frr_sees_what_reloads_change_and_take_back_in_one_session() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Frr, Need::Crier]) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let router = site.router.frr(&frr::waits_for_node(&["password hunter-one", "timers 3 9"], &[]));
    let node = site.node(0);
    let _page = node.serve(node.name(), &[80]);
    let password = rack.write("tor.md5", "hunter-one");
    let with = |community: usize| {
        format!(
            "{}\n[api]\nlisten = \"\"\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n\
             [bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n\
             password-file = \"{}\"\nconnect-retry-time = \"1s\"\n[[bgp.advertisement]]\ncommunities = [\"64512:{community}\"]\n",
            manifests.section(),
            password.display()
        )
    };
    let crier = node.crier(node.name(), &with(100));
    crier.wait_ready(secs(30));
    let seen =
        || router.route("203.0.113.1/32")["paths"][0]["community"]["string"].as_str().unwrap_or_default().to_owned();
    eventually_equal("the route is there", secs(20), &"64512:100".to_owned(), seen);
    let client = site.outside("client");
    let asking = ask_web(&client);
    let began = rack::now();
    for number in 0..100 {
        crier.write_configuration(&with(number));
        fine(&crier.reload());
    }
    assert!(began.elapsed() < secs(60), "it took {:?}", began.elapsed());
    eventually_equal("the last one counts", secs(5), &"64512:99".to_owned(), seen);
    let new = rack.write("new.toml", &crier.complete(&with(200)));
    let applied = crier.verb(&format!("config apply {} --confirm 2s", new.display()));
    assert!(applied.status.success(), "{applied:?}");
    eventually_equal("it is applied", secs(2), &"64512:200".to_owned(), seen);
    eventually_equal("it is taken back", secs(6), &"64512:99".to_owned(), seen);
    assert_eq!(router.session("192.168.35.11").times_established, 1, "all in one session");
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");

    // Another password: the session stays as long as this side alone has it. FRR begins it anew when its side changes; its farewell is signed with
    // the former password, so this side learns of that by the hold time.
    std::fs::write(&password, "hunter-two").expect("it can be written");
    fine(&crier.reload());
    throughout("the session stands", secs(2), || match router.session("192.168.35.11") {
        session if session.is_established() && session.times_established == 1 => Ok(()),
        session => Err(format!("{session:?}")),
    });
    router.configure(&["router bgp 64512", "neighbor 192.168.35.11 password hunter-two"]);
    eventually("it comes up with the new password", secs(30), || match router.session("192.168.35.11") {
        session if session.is_established() && session.times_established >= 2 => Ok(()),
        session => Err(format!("{session:?}")),
    });
    eventually_equal("the route is back", secs(10), &"64512:99".to_owned(), seen);
}

/// Exit code, standard output and standard error of `crier config WORDS`.
fn config(town: &Town, words: &str) -> (Option<i32>, String, String) {
    let output = town.crier.verb(&format!("config {words}"));
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn text_of(town: &Town) -> String {
    std::fs::read_to_string(town.crier.file()).expect("the file is there")
}

#[test]
fn diff_says_what_apply_does_and_apply_does_it_and_keeps_the_former_file() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let former = text_of(&town);
    let write = |name: &str, text: &str| rack.write(name, &town.crier.complete(text)).display().to_string();
    let same = write("same.toml", &format!("# a comment\n{}", town.configuration()));
    let (code, out, error) = config(&town, &format!("diff {same}"));
    assert_eq!((code, out.as_str()), (Some(0), "nothing would change\n"), "{error}");

    let new =
        town.configuration().replace("64512:100", "64512:200").replace("hold-time = \"9s\"", "hold-time = \"12s\"");
    let new = write("new.toml", &new);
    let (code, out, error) = config(&town, &format!("diff {new}"));
    assert_eq!(code, Some(1), "{out}{error}");
    for part in ["hold-time: \"9s\" -> \"12s\": its session begins anew", "203.0.113.1/32", "communities"] {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    assert_eq!(text_of(&town), former, "asking changes nothing");
    assert_eq!(town.established(), [1, 1]);

    let (code, out, error) = config(&town, &format!("apply {new}"));
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains("applied: 2 differences"), "{out}");
    eventually_equal("the router has it", secs(20), &"(64512,200)".to_owned(), || town.communities());
    assert!(text_of(&town).contains("64512:200"), "a restart reads it");
    let kept = std::fs::read_to_string(town.crier.file().with_file_name("crier.toml.former")).expect("it is kept");
    assert_eq!(kept, former);

    let bad = write("bad.toml", &town.configuration().replace("asn = 64513", "asn = 0"));
    let now = text_of(&town);
    for verb in ["diff", "apply"] {
        let (code, out, error) = config(&town, &format!("{verb} {bad}"));
        assert_eq!(code, Some(2), "{out}{error}");
        assert!(error.contains("bad.toml:") && error.contains("asn"), "{error}");
    }
    let restart = write("restart.toml", &format!("{}\n[host]\nmanage-sysctls = true\n", town.configuration()));
    let (code, out, error) = config(&town, &format!("apply {restart}"));
    assert_eq!(code, Some(2), "{out}{error}");
    assert!(error.contains("needs a restart") && error.contains("manage-sysctls"), "{error}");
    assert_eq!(text_of(&town), now, "what is refused is not written");
    let (code, _, error) = config(&town, "confirm");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("no configuration waits"), "{error}");
}

#[test]
fn what_nobody_confirms_is_taken_back_whoever_has_died_meanwhile() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let asking = town.site.outside("client");
    let asking = ask_web(&asking);
    let former = text_of(&town);
    let with = |community: &str| {
        let text = town.configuration().replace("64512:100", community);
        rack.write(&format!("{}.toml", community.replace(':', "-")), &town.crier.complete(&text)).display().to_string()
    };
    // The command returns at once, and nobody is left who could take it back but the agent.
    let (code, out, error) = config(&town, &format!("apply {} --confirm 3s", with("64512:200")));
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains("taken back at"), "{out}");
    eventually_equal("it is applied", secs(2), &"(64512,200)".to_owned(), || town.communities());
    assert!(town.crier.status()["problems"].to_string().contains("not confirmed"));
    eventually_equal("it is taken back", secs(6), &"(64512,100)".to_owned(), || town.communities());
    assert_eq!(text_of(&town), former);
    assert!(!town.crier.status()["problems"].to_string().contains("not confirmed"));

    let (code, out, error) = config(&town, &format!("apply {} --confirm 3s", with("64512:300")));
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, out, error) = config(&town, "confirm");
    assert_eq!(code, Some(0), "{out}{error}");
    throughout("it stays", secs(4), || match town.communities().as_str() {
        "(64512,300)" => Ok(()),
        other => Err(other.to_owned()),
    });
    // The unit's ExecReload, as a handler of Ansible or a package runs it.
    let (code, out, error) = config(&town, &format!("apply {} --confirm 3s", with("64512:200")));
    assert_eq!(code, Some(0), "{out}{error}");
    let (code, out, error) = config(&town, "apply");
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains("no difference") && out.contains("taken back at"), "{out}");
    eventually_equal("a reload confirms nothing", secs(6), &"(64512,300)".to_owned(), || town.communities());
    // The second of two that wait takes back both: to what was last confirmed.
    for community in ["64512:400", "64512:500"] {
        let (code, out, error) = config(&town, &format!("apply {} --confirm 2s", with(community)));
        assert_eq!(code, Some(0), "{out}{error}");
    }
    eventually_equal("it is taken back", secs(6), &"(64512,300)".to_owned(), || town.communities());
    assert_eq!(town.established(), [1, 1], "no session has ended");
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn a_restart_does_not_forget_what_waits_to_be_confirmed() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let node = town.uplink.site.node(0);
    let new = town.configuration().replace("64512:100", "64512:200");
    let file = rack.write("new.toml", &town.crier.complete(&new)).display().to_string();
    for (confirm, pause) in [("4s", secs(0)), ("2s", secs(3))] {
        let (code, out, error) = config(&town, &format!("apply {file} --confirm {confirm}"));
        assert_eq!(code, Some(0), "{out}{error}");
        town.crier.kill();
        rest(pause);
        let text = text_of(&town);
        assert!(text.contains("64512:200"));
        town.crier = node.crier(node.name(), &text);
        eventually_equal("it is taken back", secs(20), &"(64512,100)".to_owned(), || town.communities());
        assert!(text_of(&town).contains("64512:100"), "on the disk too");
    }
}

/// A folder stands where a file is to be written: as a disk that is full or read-only, for root too.
struct InTheWay(std::path::PathBuf);

impl InTheWay {
    fn of(town: &Town, word: &str) -> InTheWay {
        let path = town.crier.file().with_file_name(format!("crier.toml.{word}.new"));
        std::fs::create_dir(&path).expect("the rack's folder is ours");
        InTheWay(path)
    }

    fn remove(self) {
        std::fs::remove_dir(self.0).expect("the rack's folder is ours");
    }
}

#[test]
fn what_was_promised_is_kept_by_an_agent_whose_disk_takes_no_write() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let former = text_of(&town);
    let with = |town: &Town, community: &str| {
        let text = town.configuration().replace("64512:100", community);
        rack.write(&format!("{}.toml", community.replace(':', "-")), &town.crier.complete(&text)).display().to_string()
    };
    // The second cannot be promised: the first stands, with its time.
    let (code, out, error) = config(&town, &format!("apply {} --confirm 4s", with(&town, "64512:200")));
    assert_eq!(code, Some(0), "{out}{error}");
    let in_the_way = InTheWay::of(&town, "unconfirmed");
    let (code, out, error) = config(&town, &format!("apply {} --confirm 60s", with(&town, "64512:300")));
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(error.contains("cannot write") && !error.contains("500"), "{error}");
    in_the_way.remove();
    eventually_equal("the first is taken back in its time", secs(8), &"(64512,100)".to_owned(), || town.communities());
    assert_eq!(text_of(&town), former);

    // What cannot be put back is a problem, comes back by itself, and does not undo what is applied later.
    let (code, out, error) = config(&town, &format!("apply {} --confirm 1s", with(&town, "64512:400")));
    assert_eq!(code, Some(0), "{out}{error}");
    let in_the_way = InTheWay::of(&town, "rolled-back");
    eventually_equal("the agent goes by the former", secs(6), &"(64512,100)".to_owned(), || town.communities());
    eventually("it is told", secs(2), || match town.crier.status()["problems"].to_string() {
        problems if problems.contains("cannot be put back") => Ok(()),
        problems => Err(problems),
    });
    let (code, out, error) = config(&town, "apply");
    assert_eq!(code, Some(1), "what was taken back is not taken over again: {out}{error}");
    in_the_way.remove();
    eventually_equal("the file is put back", secs(20), &former, || text_of(&town));
    assert!(!town.crier.status()["problems"].to_string().contains("cannot be put back"));

    let (code, out, error) = config(&town, &format!("apply {} --confirm 1s", with(&town, "64512:500")));
    assert_eq!(code, Some(0), "{out}{error}");
    let in_the_way = InTheWay::of(&town, "rolled-back");
    eventually_equal("the agent goes by the former", secs(6), &"(64512,100)".to_owned(), || town.communities());
    let (code, out, error) = config(&town, &format!("apply {}", with(&town, "64512:600")));
    assert_eq!(code, Some(0), "{out}{error}");
    in_the_way.remove();
    town.crier.kill();
    let text = text_of(&town);
    let node = town.site.node(0);
    town.crier = node.crier(node.name(), &text);
    eventually_equal("it stays across a restart", secs(20), &"(64512,600)".to_owned(), || town.communities());
}

#[test]
fn what_an_operator_applies_in_vain_is_no_lasting_problem_and_the_former_file_is_what_was_in_use() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let bad = rack.write("bad.toml", &town.crier.complete(&town.configuration().replace("asn = 64513", "asn = 0")));
    let (code, out, error) = config(&town, &format!("apply {}", bad.display()));
    assert_eq!(code, Some(2), "{out}{error}");
    assert!(!town.crier.status()["problems"].to_string().contains("last reload failed"), "the files are in order");
    // Edited in place, and applied twice.
    let former = text_of(&town);
    town.crier.write_configuration(&town.configuration().replace("64512:100", "64512:200"));
    let kept = || std::fs::read_to_string(town.crier.file().with_file_name("crier.toml.former")).expect("it is kept");
    for _ in 0..2 {
        let (code, out, error) = config(&town, &format!("apply {}", town.crier.file().display()));
        assert_eq!(code, Some(0), "{out}{error}");
        assert_eq!(kept(), former);
    }
    eventually_equal("it is in use", secs(10), &"(64512,200)".to_owned(), || town.communities());
}

#[test]
fn a_peer_whose_password_is_missing_at_the_start_is_refused_alone_and_comes_with_a_reload() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let node = town.site.node(0);
    std::fs::remove_file(&town.password).expect("it is ours");
    let (code, out, error) = config(&town, &format!("check {}", town.crier.file().display()));
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(error.contains("tor.md5 is missing: no session with signed"), "{error}");
    let (code, _, _) = config(&town, &format!("check --strict {}", town.crier.file().display()));
    assert_eq!(code, Some(2));
    // A running agent keeps its session instead.
    let told = town.crier.reload();
    assert!(told.contains("last reload failed") && told.contains("tor.md5"), "{told}");
    assert_eq!(town.established(), [1, 1]);

    let text = text_of(&town);
    town.crier.kill();
    town.crier = node.crier(node.name(), &text);
    town.crier.wait_ready(secs(30));
    eventually("the other peer has its session", secs(20), || match town.established() {
        [1, plain] if plain >= 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let problems = town.crier.status()["problems"].to_string();
    assert!(problems.contains("the secret") && problems.contains("tor.md5 is missing"), "{problems}");
    fine(&town.crier.reload());
    rack.write("tor.md5", "hunter-one");
    fine(&town.crier.reload());
    eventually("the peer has its session", secs(20), || match town.established() {
        [signed, _] if signed >= 2 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_session_is_reset_refreshed_shut_down_and_enabled() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let order = |words: &str| {
        let output = town.crier.verb(&format!("bgp {words}"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let capture = town.site.node(0).port.capture();
    assert_eq!(order("refresh signed").0, Some(0));
    eventually("its routes are sent again", secs(5), || {
        let is_it = |message: &BgpMessage| {
            matches!(message.kind, BgpKind::Update(_)) && message.from.ip() == IpAddr::from([192, 168, 35, 11])
        };
        let heard = capture.bgp();
        if heard.iter().any(is_it) { Ok(()) } else { Err(format!("{heard:?}")) }
    });
    assert_eq!(order("reset signed").0, Some(0));
    eventually_equal("only that session begins anew", secs(20), &[2, 1], || town.established());
    assert!(town.bird.process().log().contains("Administrative reset"), "the router is told why");
    assert_eq!(order("shutdown signed").0, Some(0));
    eventually("it is down", secs(5), || {
        if town.bird.session("signed").is_established() { Err("still up") } else { Ok(()) }
    });
    throughout("it stays down", secs(3), || {
        if town.bird.session("signed").is_established() { Err("it is up") } else { Ok(()) }
    });
    assert_eq!(order("enable signed").0, Some(0));
    town.bird.wait_established("signed", secs(20));
    let (code, error) = order("reset nobody");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("nobody") && error.contains("signed, plain"), "{error}");
}

#[test]
fn reloads_while_sessions_come_up_and_a_thousand_hangups_at_once_leave_an_agent_that_works() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    for number in 0..40_u8 {
        // Each ends the session of one peer, which then comes up into the next reload.
        let hold = format!("name = \"plain\"\nhold-time = \"{}s\"", 10 + number);
        let text = town.configuration().replace("name = \"plain\"", &hold);
        town.crier.write_configuration(&text.replace("64512:100", &format!("64512:{number}")));
        fine(&town.crier.reload());
    }
    let memory = town.crier.process().resident_memory();
    for _ in 0..1000 {
        town.crier.process().signal(nix::sys::signal::Signal::SIGHUP);
    }
    fine(&town.crier.reload());
    town.bird.wait_established("plain", secs(30));
    eventually_equal("the last one counts", secs(10), &"(64512,39)".to_owned(), || town.communities());
    assert_eq!(town.established()[0], 1, "the other session has not ended");
    assert!(town.crier.process().resident_memory() < memory + (16 << 20), "reloads cost no memory");
}

#[test]
fn a_file_that_is_written_while_it_is_read_is_taken_whole_or_not_at_all() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let whole = town.crier.complete(&town.configuration());
    let half = &whole[..whole.find("[[bgp.advertisement]]").expect("there is one")];
    // Half a file is a configuration too: without advertisements the route would go.
    std::fs::write(town.crier.file(), half).expect("it can be written");
    town.crier.process().signal(nix::sys::signal::Signal::SIGHUP);
    rest(millis(5));
    std::fs::write(town.crier.file(), &whole).expect("it can be written");
    throughout("the route stays", secs(1), || if town.communities().is_empty() { Err("it went") } else { Ok(()) });
}

#[test]
fn two_who_apply_at_once_do_it_in_turn_and_who_is_not_root_changes_nothing() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let files: Vec<String> = (0..8)
        .map(|number| {
            let text = town.configuration().replace("64512:100", &format!("64512:{number}"));
            rack.write(&format!("{number}.toml"), &town.crier.complete(&text)).display().to_string()
        })
        .collect();
    std::thread::scope(|scope| {
        for file in &files {
            let town = &town;
            scope.spawn(move || assert_eq!(config(town, &format!("apply {file}")).0, Some(0)));
        }
    });
    let text = text_of(&town);
    let number = (0..8).find(|number| text.contains(&format!("64512:{number}\""))).expect("one of them is there");
    eventually_equal("what the file says is what counts", secs(5), &format!("(64512,{number})"), || town.communities());

    // The group of the socket may read.
    let socket = town.crier.socket().to_owned();
    let request = |path: &'static str, body: &'static str| {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let python = format!(
            "import os,socket;os.setgroups([]);os.setgid(0);os.setuid(65534);s=socket.socket(socket.AF_UNIX);s.connect({:?});s.sendall({head:?}.encode());print(s.recv(4096).decode())",
            socket.display().to_string()
        );
        let output = std::process::Command::new("python3").arg("-c").arg(python).output().expect("python3 runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // What the test's own folder lets others do is no matter of the agent.
    for folder in town.crier.socket().ancestors().skip(1).take_while(|folder| folder.starts_with(rack.folder())) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    assert!(request("/v1/status", "").contains("200 OK"), "{}", request("/v1/status", ""));
    let refused = request("/v1/orders", "{\"peer\":{\"peer\":\"signed\",\"order\":\"reset\"}}");
    assert!(refused.contains("403 Forbidden"), "{refused}");
    assert_eq!(town.established(), [1, 1]);
}

#[test]
fn the_key_of_the_pulses_is_changed_by_reloads_alone_and_no_address_moves() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 2);
    lan.service("web", "192.168.35.100");
    let agents = lan.agents_with(&lan.configuration_on("[\"eth0\"]", &lan.patient_pulse()));
    let address = std::net::Ipv4Addr::new(192, 168, 35, 100);
    let watch = lan.watch(&[address]);
    let counting = lan.site.client.connect_steadily((std::net::IpAddr::from(address), 80), millis(20));
    let owner = agents[lan.owner(address)].node().to_owned();
    let key =
        |agent: &Crier| agent.status()["pulse"]["links"][0]["keys"]["new"].as_str().unwrap_or_default().to_owned();
    let former = key(&agents[0]);
    let new = rack.write("new.key", "fedcba9876543210fedcba9876543210");
    let alone = format!("key-file = \"{}\"\n{}", new.display(), lan::PATIENT);
    let both = format!("{alone}old-key-files = [\"{}\"]\n", lan.key.display());
    for pulse in [both, alone] {
        for agent in &agents {
            agent.write_configuration(&lan.configuration_on("[\"eth0\"]", &pulse));
            fine(&agent.reload());
            throughout("nothing moves and both are heard", secs(2), || {
                let heard: Vec<usize> = agents.iter().map(|agent| lan::members(agent).len()).collect();
                match (lan.answering(address).as_slice(), heard.as_slice()) {
                    ([one], [1, 1]) if *one == owner => Ok(()),
                    (answering, heard) => Err(format!("{answering:?} answer, heard {heard:?}")),
                }
            });
        }
    }
    for agent in &agents {
        assert_ne!(key(agent), former, "the new key is in use");
        assert!(!agent.process().log().contains("fell silent"), "no pulse was missed");
    }
    assert!(watch.claims(address).iter().all(|name| *name == owner), "{:?}", watch.claims(address));
    watch.end(millis(500));
    let outcomes = counting.stop();
    println!("each 20 ms: {outcomes}");
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn the_first_peer_and_the_first_l2_of_an_agent_need_no_restart() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses("192.168.35.100"));
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let session =
        "protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; ipv4 { import all; export none; }; }";
    let bird = site.router.bird(&format!("router id 192.168.35.1;\n{}\n{session}\n", bird::KERNEL));
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let bare = format!(
        "{}\n[api]\nlisten = \"\"\n[pulse]\nkey-file = \"{}\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n",
        manifests.section(),
        key.display()
    );
    let node = site.node(0);
    let agent = node.crier(node.name(), &bare);
    agent.wait_ready(secs(30));
    let bgp = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"gateway\"\nasn = 64512\npassive = true\n[[bgp.advertisement]]\n";
    node.ip("route replace default via 192.168.35.1");
    agent.write_configuration(&format!("{bare}{bgp}[[l2]]\n"));
    fine(&agent.reload());
    // The router dials: the port is open now. And the default route is looked at now.
    bird.wait_established("node1", secs(30));
    let answers = || site.answering(std::net::Ipv4Addr::new(192, 168, 35, 100));
    eventually_equal("it answers on the link", secs(20), &vec![node.name().to_owned()], answers);
    agent.write_configuration(&format!("{bare}[[l2]]\n"));
    fine(&agent.reload());
    eventually("the session ends with the peer", secs(10), || {
        if bird.session("node1").is_established() { Err("still up") } else { Ok(()) }
    });
    assert!(bird.process().log().contains("de-configured"), "the router is told why");
    agent.write_configuration(&bare);
    fine(&agent.reload());
    eventually_equal("it answers no more", secs(10), &Vec::<String>::new(), answers);
}

/// The kernel drops such segments with a word to nobody, and crier said that it had no problem.
#[test]
fn segments_that_the_kernel_refuses_for_their_signature_are_named_as_why_a_peer_is_silent() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (node, tor) = (rack.namespace("node-1"), rack.namespace("tor"));
    connect(&node, "eth0", &tor, "eth0");
    node.up("eth0", &["10.0.0.11/24"]);
    tor.up("eth0", &["10.0.0.1/24"]);
    // It dials too: what it sends is what this kernel refuses.
    let router = |password: &str| {
        format!(
            "router id 10.0.0.1;\nprotocol device {{}}\nprotocol bgp crier {{ local 10.0.0.1 as 64512; neighbor 10.0.0.11 as 64513; \
             connect delay time 1; connect retry time 1; error wait time 1, 2; {password} ipv4 {{ import all; export none; }}; }}\n"
        )
    };
    let bird = tor.bird(&router("password \"of-the-router\";"));
    let key = rack.write("tor.md5", "of-the-node");
    let plain = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
                 hold-time = \"30s\"\n";
    let signed = format!("{plain}password-file = \"{}\"\n", key.display());
    let agent = node.announcer(&signed);
    let told = |all: &[&str]| {
        eventually(&format!("{all:?} is told"), secs(25), || {
            let problems = agent.status()["problems"].to_string();
            if all.iter().all(|text| problems.contains(text)) { Ok(()) } else { Err(problems) }
        });
    };
    let no_answer = "cannot connect: no answer; a peer with another TCP MD5 password, or none, never answers";
    let refused = "this kernel has refused segments for their TCP MD5 signature";
    told(&[no_answer, refused, "is the password the same on both sides?"]);

    let with = |text: &str| {
        let before = std::fs::read_to_string(agent.file()).expect("it is there");
        let (old, new) = if text == plain { (signed.as_str(), plain) } else { (plain, signed.as_str()) };
        agent.write_configuration(&before.replace(old, new));
        agent.reload();
    };
    with(plain);
    told(&["this kernel has refused segments that are signed with TCP MD5", "has the peer a password for this node?"]);

    bird.configure(&router(""));
    bird.wait_established("crier", secs(30));
    let nothing = |what: &str| {
        eventually(what, secs(25), || {
            let problems = agent.status()["problems"].to_string();
            if problems.contains("refused segments") { Err(problems) } else { Ok(()) }
        });
    };
    nothing("the session says that the signatures are right");

    with(&signed);
    told(&["peer tor: nothing is heard from it, and the session ends with its hold time", refused]);
    with(plain);
    nothing("what comes is taken again");
    assert_eq!(bird.session("crier").times_established, 1, "the session has outlasted it");
}
