//! Durations as people write them: `300ms`, `30s`, `1m30s`, `2h`. Floor 1.

use std::time::Duration;

/// The units with their milliseconds, longest first, which is the order they must be written in.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("\"{0}\" is not a duration")]
    NotADuration(String),
    #[error("\"{0}\" has no unit")]
    NoUnit(String),
    #[error("\"{0}\" is too long")]
    TooLong(String),
}

/// Reads whole numbers with the units h, m, s and ms behind them, each at most once and the longer unit first.
/// A fraction (`1.5s`) and a bare number are refused.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let not_a_duration = || DurationError::NotADuration(text.to_owned());
    if text.is_empty() {
        return Err(not_a_duration());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError::NoUnit(text.to_owned()));
    }
    let too_long = || DurationError::TooLong(text.to_owned());
    let mut rest = text;
    let mut allowed = &UNITS[..];
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (count, behind) = rest.split_at(rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let (unit, behind) = behind.split_at(behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len()));
        let position = allowed.iter().position(|(name, _)| *name == unit).ok_or_else(not_a_duration)?;
        if count.is_empty() {
            return Err(not_a_duration());
        }
        let count: u64 = count.parse().map_err(|_| too_long())?;
        let millis = count.checked_mul(allowed[position].1).ok_or_else(too_long)?;
        sum = sum.checked_add(millis).ok_or_else(too_long)?;
        allowed = &allowed[position + 1..];
        rest = behind;
    }
    Ok(Duration::from_millis(sum))
}

/// The shortest text that reads back as the duration. What is below a millisecond is dropped; `parse` makes none of it.
pub fn text(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, millis) in UNITS {
        if left >= millis {
            text += &format!("{}{name}", left / millis);
            left %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_the_sum_of_its_parts() {
        let table = [
            ("300ms", 300),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("0s", 0),
            ("1h2m3s4ms", 3_723_004),
        ];
        for (text, millis) in table {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "1.5s", "-1s", "1s1m", "1s1s", "1 s", "1s ", "1d", "30S", "é", "1é"] {
            assert_eq!(parse(text), Err(DurationError::NotADuration(text.to_owned())), "{text}");
        }
        assert_eq!(parse("30"), Err(DurationError::NoUnit("30".to_owned())));
        for text in ["99999999999999999999s", "18446744073709551615h", "18446744073709551615ms1"] {
            assert!(parse(text).is_err(), "{text} does not fit");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_what_it_prints(millis in any::<u64>()) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&text(duration)), Ok(duration));
        }
    }
}
