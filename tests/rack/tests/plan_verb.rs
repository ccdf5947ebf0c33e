//! `crier plan`: it says what another file would change, changes nothing, and what it said comes true with that file.

use rack::crier::{Crier, binary};
use rack::lan::{self, Lan};
use rack::{Need, Rack, eventually_equal, secs};
use serde_json::Value;

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

const SERVICES: [&str; 4] = ["front", "mail", "shop", "wiki"];

/// Exit code, standard output and standard error.
fn plan(agent: &Crier, words: &str) -> (Option<i32>, String, String) {
    let output = agent.verb(&format!("plan {words}"));
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn addresses(agent: &Crier, service: &str) -> Vec<String> {
    let held = lan::service(agent, service)["allocation"]["held"].as_array().cloned().unwrap_or_default();
    held.iter().filter_map(|it| it["address"].as_str().map(str::to_owned)).collect()
}

fn all_addresses(agent: &Crier) -> Vec<Vec<String>> {
    SERVICES.iter().map(|service| addresses(agent, service)).collect()
}

fn listed(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|it| it.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_another_file_would_change_is_said_first_and_comes_true() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::new(&rack, 2);
    SERVICES.iter().for_each(|service| lan.service(service, ""));
    let agents = lan.agents();
    let before =
        vec![100, 101, 102, 103].into_iter().map(|last| vec![format!("192.168.35.{last}")]).collect::<Vec<_>>();
    for agent in &agents {
        eventually_equal("each Service has its address", secs(20), &before, || all_addresses(agent));
    }

    let same = rack.write("same.toml", &lan.configuration());
    let (code, out, error) = plan(&agents[0], &same.display().to_string());
    assert_eq!((code, out.as_str()), (Some(0), "nothing would change\n"), "{error}");

    // Half of the pool goes, and a new one comes.
    let half = lan.configuration().replace("192.168.35.100-192.168.35.110", "192.168.35.100-192.168.35.101");
    let text = format!("{half}\n[[pool]]\nname = \"next\"\naddresses = [\"192.168.35.120-192.168.35.120\"]\n");
    let file = rack.write("new.toml", &text);
    let (code, out, error) = plan(&agents[0], &file.display().to_string());
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(out.contains("would change on node-1: 2 Services"), "{out}");
    let told = agents[0].json(&format!("plan {}", file.display()));
    let after: Vec<Vec<String>> = SERVICES
        .iter()
        .zip(&before)
        .map(|(name, before)| {
            let services = told["services"].as_array().expect("a list");
            let news = services.iter().find(|it| it["service"] == format!("default/{name}"));
            news.map_or(before.clone(), |it| listed(&it["after"]))
        })
        .collect();
    assert_ne!(after, before, "{told}");
    assert_eq!(all_addresses(&agents[0]), before, "nothing was changed by asking");

    drop(agents);
    let agents = lan.agents_with(&text);
    for agent in &agents {
        eventually_equal("what was said has come true", secs(20), &after, || all_addresses(agent));
    }
}

#[test]
fn a_file_that_is_refused_is_named_with_its_line_and_without_an_agent_nothing_is_said() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::new(&rack, 1);
    let agent = lan.agent(0);
    agent.wait_ready(secs(20));
    let bad = rack.write("bad.toml", &lan.configuration().replace("192.168.35.100-", "192.168.35.300-"));
    let (code, out, error) = plan(&agent, &bad.display().to_string());
    assert_eq!((code, out.as_str()), (Some(2), ""), "{error}");
    assert!(error.contains("bad.toml") && error.contains("192.168.35.300"), "{error}");
    let (code, _, error) = plan(&agent, "/nowhere/crier.toml");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("/nowhere/crier.toml"), "{error}");

    let good = rack.write("good.toml", &lan.configuration());
    let mut command = std::process::Command::new(binary());
    let output = command.args(["--socket", "/nowhere/crier.sock", "plan"]).arg(good).output().expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}
