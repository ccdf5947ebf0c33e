//! The stories of the folder `stories/`, each by its name: those that hold, and those that today's code is known to break.
//! A story that breaks less than it says fails too, so that the list stays honest: then change its last line.

use std::path::{Path, PathBuf};

use crate::life::{broken, chronicle};
use crate::story::{Expected, Story};

fn read(path: &Path) -> Story {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Story::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/town/stories")
}

/// Fails with the whole chronicle if the story broke something else than it says.
fn check(name: &str) {
    let story = read(&folder().join(format!("{name}.story")));
    let found = broken(&story);
    let (expected, words) = match &story.expected {
        Expected::Holds => (Vec::new(), "it is to hold".to_owned()),
        Expected::Breaks(list) => (list.clone(), format!("today it breaks {list:?}, and nothing else or less")),
    };
    for (broken, finding) in &found {
        println!("{name}: {}: {finding}", broken.word());
    }
    let mut expected = expected;
    expected.sort();
    let found: Vec<_> = found.into_keys().collect();
    assert!(found == expected, "{name} broke {found:?}, but {words}\n{}", chronicle(&story));
}

macro_rules! stories {
    ($($test:ident: $file:literal,)*) => {
        $(#[test] fn $test() { check($file); })*

        #[test]
        fn every_story_of_the_folder_is_a_test() {
            let mut files: Vec<String> = std::fs::read_dir(folder()).unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".story").map(str::to_owned))
                .collect();
            files.sort();
            let mut named = vec![$($file.to_owned()),*];
            named.sort();
            assert_eq!(files, named);
        }
    };
}

stories! {
    egress_through_all_that_befalls_table_owner_and_pods: "egress",
    egress_on_kernels_where_a_flush_takes_the_table: "egress-flushed",
    a1_a_preference_is_rolled_out_node_by_node: "a1-rollout",
    a1_a_preference_is_rolled_back: "a1-roll-back",
    a2_a_node_whose_pulses_are_dropped_by_its_own_firewall: "a2-own-firewall",
    a2_the_same_where_no_agent_knows_of_another_node: "a2-no-nodes",
    a3_two_that_hear_no_pulses_of_each_other_lose_the_link: "a3-filtered-pair",
    a3_three_that_hear_no_pulses_lose_the_link_for_long: "a3-long-cut",
    a_holder_that_hears_another_one_and_is_not_heard_by_it_gives_all_back: "one-way-no-pulses",
    without_a_key_the_link_alone_tells_that_an_owner_is_gone: "keyless",
    without_a_key_two_that_lost_each_other_for_long_are_one: "keyless-long-cut",
    a4_pulses_are_filtered_between_all: "a4-filtered-town",
    a7_a_partition_heals_and_the_owner_says_nothing: "a7-heal",
    a8_the_key_is_changed_node_by_node: "a8-key-rotation",
    a12_a_sticky_owner_of_many_addresses: "a12-sticky",
    a13_the_owner_sees_no_api_server: "a13-stale-view",
    a14_a_frozen_agent: "a14-freeze",
    a_clean_restart: "restart",
    a_restart_in_which_addresses_stay: "restart-keeping",
    a_restart_that_is_late: "restart-late",
    killed_agents_that_are_back_at_once: "quick-return",
    a_drain_that_outlives_a_restart: "drain",
    an_operator_chooses_the_node_of_an_address: "move",
    files_that_name_other_pools: "other-pools",
    a_new_key_is_read_back: "key-roll-back",
    files_that_running_agents_read_node_by_node: "reload",
    a_restart_among_a_thousand_addresses: "many-return",
    an_agent_starts_beside_an_owner_that_does_not_hear_it: "one-way-restart",
    a_third_node_keeps_what_one_way_links_gave_it: "one-way-three",
    a_chain_of_one_way_links_moves_an_address_not_without_end: "one-way-chain",
    a_third_node_keeps_it_whatever_is_read_anew: "one-way-reload",
    a_third_node_gives_it_back_when_the_link_heals: "one-way-heals",
    a_third_node_keeps_it_after_a_restart_of_the_node_that_is_not_heard: "one-way-restart-unheard",
    a_third_node_keeps_it_after_a_restart_of_the_node_that_does_not_hear: "one-way-restart-deaf",
    frozen_owners_that_are_back_at_once: "freezes",
    a_node_that_stands_still_while_another_restarts: "frozen-past-restart",
    a_node_that_stands_still_while_what_it_was_handed_goes_back: "frozen-past-return",
    a_node_that_stands_still_after_its_restart_and_through_another: "frozen-past-two-restarts",
    a_node_that_stands_still_while_another_is_heard_again: "frozen-and-unheard",
    a_client_that_is_with_a_lonely_node_after_two_splits: "two-splits",
    a_restart_beside_a_station_that_answers_everything: "proxy-and-restart",
    a_node_that_hears_nobody_loses_its_data_path: "paths-and-a-firewall",
    a_node_asks_again_after_a_grant_in_vain: "asked-in-vain",
    a_node_that_was_alone_is_back: "alone-and-back",
    an_agent_starts_without_the_api_server: "start-without-api",
    a_restart_in_the_moment_of_a_hand_over: "restart-as-it-takes",
    a_node_that_asks_before_its_restart_is_over: "restart-asks-early",
    the_last_announcement_of_a_node_that_stops_comes_late: "last-words",
    two_take_what_a_third_one_leaves: "two-heirs",
    a_restart_before_the_agent_has_planned: "restart-before-a-plan",
    a_node_without_a_link_grants_nothing: "grant-without-link",
    an_address_moves_while_a_better_node_restarts: "missed-while-restarting",
    nodes_are_upgraded_one_by_one_and_taken_back: "versions",
    a_restart_that_keeps_addresses_beside_other_versions: "versions-that-wait",
    a_node_that_receives_nothing_draws_no_address: "receives-nothing",
    a_node_that_receives_nothing_without_a_key: "receives-nothing-keyless",
    a_split_is_longer_than_announcements_are_repeated: "split-outlasts-announcements",
}

/// `CRIER_TOWN_STORY=path cargo test --test town tell -- --ignored --nocapture`
#[test]
#[ignore = "tells the story that CRIER_TOWN_STORY names"]
fn tell() {
    let path = std::env::var_os("CRIER_TOWN_STORY").expect("CRIER_TOWN_STORY names a story");
    println!("{}", chronicle(&read(Path::new(&path))));
}
