//! The one file that reads the clocks. Floor 2.
//! Everything on floors 0 and 1 gets `now` as an argument instead.

use std::time::{Instant, SystemTime};

/// The monotonic clock, for deadlines and ages.
#[allow(clippy::disallowed_methods)] // this is the place that the ban in clippy.toml names
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, for what people and the API server read.
#[allow(clippy::disallowed_methods)] // as above
pub fn wall() -> SystemTime {
    SystemTime::now()
}
