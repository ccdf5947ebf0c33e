//! The folder where an agent keeps its state: one that takes no write, and one that two agents have.

use rack::lan::{Lan, problems};
use rack::{Need, Rack, eventually, eventually_equal, secs};

#[test]
fn a_state_folder_that_takes_no_write_is_a_problem_until_it_takes_one() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    let folder = rack.folder().join("full");
    // What the file is written aside as.
    let in_the_way = folder.join("world.jsonl.new");
    std::fs::create_dir_all(&in_the_way).expect("the rack's folder is ours");
    let agent = lan.agent_with(0, &format!("[state]\nfolder = \"{}\"\n{}", folder.display(), lan.configuration()));
    lan.service("web", "192.168.35.100");
    agent.wait_ready(secs(30));
    eventually("it is told, with what it costs", secs(30), || {
        let told = problems(&agent);
        if told.contains("the last known state is not kept") && told.contains("restart") { Ok(()) } else { Err(told) }
    });
    std::fs::remove_dir(&in_the_way).expect("it is empty");
    eventually_equal("nothing is left of it", secs(30), &String::new(), || problems(&agent));
    assert!(folder.join("world.jsonl").exists());
}

#[test]
fn two_agents_with_one_state_folder_are_refused_whoever_is_second() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    let configuration =
        format!("[state]\nfolder = \"{}\"\n{}", rack.folder().join("one").display(), lan.configuration());
    let first = lan.agent_with(0, &configuration);
    first.wait_ready(secs(30));
    let second = lan.agent_with(1, &configuration);
    assert!(!second.process().wait(secs(20)).success());
    let log = second.process().log();
    assert!(log.contains("another agent runs with the state folder"), "{log}");
    // A killed agent holds nothing.
    first.kill();
    let third = lan.agent_with(1, &configuration);
    third.wait_ready(secs(30));
}
