//! Label selectors as kubectl writes them: `rack=a`, `tier in (front, edge)`, `!gpu`. Floor 0.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

/// A checked selector; an object matches when every requirement holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
}

impl Selector {
    pub fn matches(&self, _labels: &Labels) -> bool {
        unimplemented!("the config helper writes this")
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
