//! Words that several views have. Floor 1.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::some_of::some;

/// The names, of many the first.
pub(super) fn some_of<T: Display>(all: &BTreeSet<T>) -> String {
    some(all.iter(), 4)
}
