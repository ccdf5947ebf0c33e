//! Words that several views have. Floor 1.

use std::collections::BTreeSet;
use std::fmt::Display;

/// The names, of many the first.
pub(super) fn some_of<T: Display>(all: &BTreeSet<T>) -> String {
    const NAMED: usize = 4;
    let named: Vec<String> = all.iter().take(NAMED).map(T::to_string).collect();
    let more = all.len().saturating_sub(NAMED);
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}
