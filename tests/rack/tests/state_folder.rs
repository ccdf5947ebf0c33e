//! The folder where an agent keeps its state: one that takes no write, and one that two agents have.

use rack::lan::{Lan, problems};
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, secs};

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
    assert!(problems(&agent).contains("when the agent restarts, the node is back in service"), "{}", problems(&agent));
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

/// What the API server has too is written seldom where it is much; what an operator said nobody else has.
#[test]
fn an_operators_order_outlives_a_crash_however_large_the_state_is() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    for number in 0..40 {
        let many = (0..1000).fold(Service::new(&format!("many-{number}")), |service, _| service.on("node-1"));
        metal.try_apply(&many.slices()[0]).expect("an EndpointSlice");
    }
    let configuration = "[api]\nlisten = \"\"\n[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\n\
         asn = 64512\n[[bgp.advertisement]]\n[[pool]]\nname = \"lan\"\naddresses = [\"198.18.0.0/24\"]\n";
    let agent = metal.agent(0, configuration);
    agent.wait_ready(secs(30));
    let state = agent.socket().with_file_name("state").join("world.jsonl");
    let text = || std::fs::read_to_string(&state).unwrap_or_default();
    eventually("the state is written, and large", secs(60), || match text().len() {
        octets if octets > 500_000 => Ok(()),
        octets => Err(octets),
    });
    for (words, is_shut) in [("bgp shutdown tor", true), ("bgp enable tor", false)] {
        assert!(agent.verb(words).status.success(), "{words}");
        eventually_equal(words, secs(6), &is_shut, || text().contains("\"Peer\""));
    }
}
