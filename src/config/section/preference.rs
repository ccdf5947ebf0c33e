//! `preference` of an `[[l2]]`: which nodes are preferred, and by how much. Floor 1.

use super::{Check, Section, section};
use crate::config::key::{number, selector};
use crate::selector::Selector;

section! {
    /// One entry of `preference`: matching nodes score `weight` more.
    pub struct Preference = Section::many(
        "l2.preference",
        "Preferred nodes. The weights of all entries that match a node are added; the node with the highest sum wins.",
    ), written as Written;
    keys {
        pub nodes: Selector = selector("nodes", "The nodes, by their labels.").set("\"edge=true\""), touches Decisions;
        pub weight: u32 = number("weight", "", 1, 1000, "Added to the score of each matching node.").set("100"), touches Decisions;
    }
}

impl Check for Written {}
