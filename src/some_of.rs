//! Many things in one sentence. Floor 0.

use std::fmt::Display;

/// The first so many of them, and how many more there are.
pub fn some<T: Display>(all: impl ExactSizeIterator<Item = T>, most: usize) -> String {
    let more = all.len().saturating_sub(most);
    let named = all.take(most).map(|it| it.to_string()).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named_and_the_others_counted() {
        for (count, expected) in [(0, ""), (1, "0"), (2, "0, 1"), (3, "0, 1 and 1 more"), (9, "0, 1 and 7 more")] {
            assert_eq!(some((0..count).collect::<Vec<i32>>().iter(), 2), expected);
        }
    }
}
