//! Durations as Go writes them (`1m30s`, `1.5s`, `500us`), and as crier does. Floor 1.

use std::time::Duration;

use crate::config::duration;

/// Each unit with its nanoseconds, longer texts before their beginnings.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration as crier writes it. `None` if the text is no duration, or one that is negative or longer than Go can say.
pub(super) fn from_go(text: &str) -> Option<String> {
    if text == "0" {
        return Some("0s".to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanoseconds: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (_, per_unit, behind) =
            UNITS.iter().find_map(|(unit, per)| Some((unit, per, behind.strip_prefix(unit)?)))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanoseconds = nanoseconds.checked_add(whole.checked_mul(*per_unit)?)?;
        // Nine digits are all that a nanosecond can tell apart.
        let digits = fraction.get(..fraction.len().min(9))?;
        if !digits.is_empty() {
            let scale = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
            nanoseconds = nanoseconds.checked_add(digits.parse::<u128>().ok()?.checked_mul(*per_unit)? / scale)?;
        }
        rest = behind;
    }
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|it| i64::try_from(*it).is_ok())?;
    Some(duration::text(Duration::from_nanos(nanoseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_go_is_one_of_crier() {
        let table = [
            ("90s", Some("1m30s")),
            ("1m30s", Some("1m30s")),
            ("0", Some("0s")),
            ("0s", Some("0s")),
            ("1.5s", Some("1s500ms")),
            (".5m", Some("30s")),
            ("300ms", Some("300ms")),
            ("1500us", Some("1ms")),
            ("2h45m", Some("2h45m")),
            ("", None),
            ("90", None),
            ("-5s", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("9999999999999999999999999999h", None),
            ("1x", None),
        ];
        for (text, expected) in table {
            assert_eq!(from_go(text).as_deref(), expected, "{text:?}");
        }
    }
}
