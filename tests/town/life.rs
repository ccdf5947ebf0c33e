//! Living through a story, what it broke, and the shortest story that breaks the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::invariants::{Broken, Finding, Watch};
use crate::story::Story;
use crate::town::Town;

/// What a town broke while it lived through the story.
pub fn broken(story: &Story) -> BTreeMap<Broken, Finding> {
    watch(story, false).broken
}

/// The story with everything that happened in it, for whoever has to understand it.
pub fn chronicle(story: &Story) -> String {
    let watch = watch(story, true);
    let mut text = format!("{story}\n");
    for line in watch.chronicle.iter().flatten() {
        let _ = writeln!(text, "{line}");
    }
    for (broken, finding) in &watch.broken {
        let _ = writeln!(text, "{}: {finding}", broken.word());
    }
    text
}

/// The same story without what is not needed to break the same: deeds are left out one by one, and the time after.
pub fn shortest(story: &Story, what: Broken) -> Story {
    let mut story = story.clone();
    let mut place = 0;
    while place < story.deeds.len() {
        let mut shorter = story.clone();
        shorter.deeds.remove(place);
        if broken(&shorter).contains_key(&what) {
            story = shorter;
        } else {
            place += 1;
        }
    }
    if let Some(finding) = broken(&story).get(&what) {
        story.ends = finding.at + Duration::from_millis(100);
    }
    story
}

fn watch(story: &Story, tells: bool) -> Watch {
    let mut town = Town::new(story);
    let mut watch = Watch::new(&town, tells);
    town.live(|town| watch.look(town));
    watch.tell_end(&town);
    watch
}
