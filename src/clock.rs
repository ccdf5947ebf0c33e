//! The one file that reads the clocks. Floor 2.
//! Everything on floors 0 and 1 gets `now` as an argument instead.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rustix::time::ClockId;

/// The monotonic clock, for deadlines and ages.
#[cfg(not(test))]
#[allow(clippy::disallowed_methods)] // this is the place that the ban in clippy.toml names
pub fn now() -> Instant {
    Instant::now()
}

/// The same in unit tests: where the clock of a test stands still (`start_paused`) it is that one, which also its timers follow. Such a test
/// waits for no real second, and a starved machine cannot make it late.
#[cfg(test)]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago `at` was, by [`now`]: `Instant::elapsed` asks the real clock also where a test has another one.
pub fn since(at: Instant) -> Duration {
    now().saturating_duration_since(at)
}

/// How long the kernel runs, the time that the host slept included: the one clock that two processes share.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// The wall clock, for what people and the API server read.
#[cfg(not(test))]
#[allow(clippy::disallowed_methods)] // as above
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The same in unit tests, where it goes with [`now`]: from where both clocks stood when it was first asked.
#[cfg(test)]
#[allow(clippy::disallowed_methods)] // as above
pub fn wall() -> SystemTime {
    static BEGAN: std::sync::OnceLock<(Instant, SystemTime)> = std::sync::OnceLock::new();
    let (began, wall) = *BEGAN.get_or_init(|| (Instant::now(), SystemTime::now()));
    let now = now();
    wall + now.saturating_duration_since(began) - began.saturating_duration_since(now)
}

/// [`wall`] as reports print it.
pub fn wall_timestamp() -> Timestamp {
    // A clock that stands before the year -9999 or after 9999 is read as the beginning of 1970.
    Timestamp::try_from(wall()).unwrap_or_default()
}

/// When `at` is by the wall clock; now, if that is past.
pub fn wall_timestamp_of(at: Instant) -> Timestamp {
    let now = wall_timestamp();
    now.checked_add(at.saturating_duration_since(self::now())).unwrap_or(now)
}

/// When `at` was by the wall clock; now, if that is to come.
pub fn wall_timestamp_since(at: Instant) -> Timestamp {
    let now = wall_timestamp();
    now.checked_sub(since(at)).unwrap_or(now)
}
