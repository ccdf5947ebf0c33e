//! How values of objects stand in comments and warnings: in one line, and no longer than a reader has patience for. Floor 1.

use serde_json::Value;

/// A comment is one line, whatever the objects say.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect()
}

/// A value on one short line. Never used for a field that may hold a password.
pub(super) fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

/// Text that fits into a line of a comment.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 120;
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    match text.char_indices().nth(MOST) {
        None => line.collect(),
        Some(_) => line.take(MOST).chain("...".chars()).collect(),
    }
}
