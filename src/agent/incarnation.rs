//! Which life of this node it is, as a number that only ever grows. Floor 3.
//!
//! The wall clock, in microseconds, unless it went back: then the number after the one of before, which the state folder
//! keeps. Recordings of pulses of an earlier life are told from pulses of this one by it.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use crate::state_file::{self, Outlasts};

/// How many numbers one life may use: one for each time that a link appears.
const USED: u64 = 1 << 20;

/// The first number of this life. Those up to [`USED`] beyond it are kept from later lives.
pub fn next(folder: &Path, wall: SystemTime) -> io::Result<u64> {
    let file = folder.join("incarnation");
    let damaged = |why: &str| warn!(file = %file.display(), why, "the number of the life before is not known; the clock has to do");
    let before = match state_file::read(&file) {
        // One that is no number, or that no clock leads to, was not written by us.
        Ok(text) => {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            number.filter(|number| *number <= u64::MAX / 2).unwrap_or_else(|| {
                damaged("it holds no number of ours");
                0
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            damaged(&error.to_string());
            0
        }
        Err(error) => return Err(error),
    };
    let now = wall.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let this = now.max(before);
    // A clock that was lost with the power must not make the other nodes take new pulses for recordings of old ones.
    state_file::replace(&file, format!("{}\n", this.saturating_add(USED)).as_bytes(), Outlasts::PowerLoss)?;
    Ok(this)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::state_file::hostile::{in_time, make_fifo};

    #[test]
    fn it_grows_although_the_clock_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let first = next(folder.path(), at(1_700_000_000)).unwrap();
        assert_eq!(first, 1_700_000_000_000_000);
        let second = next(folder.path(), at(1_000)).unwrap();
        assert!(second >= first + USED, "{second} is beyond every number of the first life");
        let third = next(folder.path(), at(1_800_000_000)).unwrap();
        assert_eq!(third, 1_800_000_000_000_000);
    }

    #[test]
    fn a_number_beyond_all_clocks_is_taken_for_damage() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in ["18446744073709551615", "9223372036854775808", "-1", "", "x"] {
            fs::write(folder.path().join("incarnation"), damaged).unwrap();
            let this = next(folder.path(), UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
            assert_eq!(this, 1_700_000_000_000_000, "{damaged}");
        }
    }

    #[test]
    fn a_fifo_in_its_place_is_damage_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("incarnation");
        make_fifo(&file);
        let path = folder.path().to_owned();
        let this = in_time(move || next(&path, UNIX_EPOCH + Duration::from_secs(1_700_000_000))).unwrap();
        assert_eq!(this, 1_700_000_000_000_000);
        assert!(fs::metadata(&file).unwrap().is_file());
    }
}
