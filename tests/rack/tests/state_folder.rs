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

/// A disk that fails is a reason to drain a node.
#[test]
fn orders_are_obeyed_where_the_disk_takes_no_write_and_what_a_restart_forgets_is_told() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    let folder = rack.folder().join("full");
    // What the files are written aside as.
    let in_the_way = ["drain.json.new", "undrained.new", "probe.new"].map(|name| folder.join(name));
    in_the_way.iter().for_each(|path| std::fs::create_dir_all(path).expect("the rack's folder is ours"));
    let agent = lan.agent_with(
        0,
        &format!(
            "[state]\nfolder = \"{}\"\n{}[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.254\"\n\
             asn = 64512\n",
            folder.display(),
            lan.configuration()
        ),
    );
    agent.wait_ready(secs(30));
    let order = |words: &str| {
        let output = agent.verb(words);
        assert_eq!(output.status.code(), Some(0), "{words}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = order("drain --force --timeout 0s");
    assert!(told.contains("is in memory alone: cannot write ") && told.contains("drain.json"), "{told}");
    assert!(problems(&agent).contains("when the agent restarts, the node takes part again"), "{}", problems(&agent));
    eventually_equal("it is drained", secs(30), &"drained".to_owned(), || {
        agent.status()["drain"]["stage"].as_str().unwrap_or_default().to_owned()
    });
    for words in ["bgp shutdown tor", "bgp enable tor"] {
        let told = order(words);
        assert!(told.contains("an agent that restarts before the disk is mended forgets the order"), "{words}: {told}");
    }
    in_the_way.iter().for_each(|path| std::fs::remove_dir(path).expect("it is empty"));
    for words in ["undrain", "bgp shutdown tor"] {
        assert_eq!(order(words), "", "{words}");
    }
    assert!(!problems(&agent).contains("in memory alone"), "{}", problems(&agent));
}
