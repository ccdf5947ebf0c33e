//! Waiting for something with a deadline, and the rack's only look at the clock.
//!
//! A rack test never sleeps for "long enough": it says what it expects and by when, and the poller here looks every few
//! milliseconds. When time is up the panic says what was expected and what was last seen instead.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant, SystemTime};

/// How long the pollers rest between two looks.
const REST: Duration = Duration::from_millis(4);

/// The time now, monotonic.
#[expect(clippy::disallowed_methods, reason = "the rack's one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day now; packets are stamped with it.
#[expect(clippy::disallowed_methods, reason = "the rack's one reader of the clock")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Lets `length` go by, for what happens at a pace (a probe every 5 ms), never to wait for something to have happened.
#[expect(clippy::disallowed_methods, reason = "the rack's one place that rests between two looks")]
pub fn rest(length: Duration) {
    std::thread::sleep(length);
}

/// `count` seconds, short because every test says it often.
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// `count` milliseconds.
pub const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A point in time by which something must be so.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    length: Duration,
}

impl Deadline {
    /// The deadline `length` from now.
    pub fn after(length: Duration) -> Deadline {
        Deadline { end: now() + length, length }
    }

    /// What is left of it; zero when it has passed.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(now())
    }

    pub fn has_passed(&self) -> bool {
        self.left().is_zero()
    }

    /// The whole length it was given, for messages.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl From<Duration> for Deadline {
    fn from(length: Duration) -> Deadline {
        Deadline::after(length)
    }
}

/// Looks every few milliseconds until `look` answers `Ok`, and returns that. `look` answers `Err` with what it saw
/// instead.
///
/// # Panics
/// When the deadline has passed: with `what`, how long was waited, and what was seen last. There is always at least one
/// look, and one after the deadline.
#[track_caller]
pub fn eventually<T, S: Display>(
    what: &str,
    deadline: impl Into<Deadline>,
    mut look: impl FnMut() -> Result<T, S>,
) -> T {
    let deadline = deadline.into();
    loop {
        let last_look = deadline.has_passed();
        match look() {
            Ok(value) => return value,
            Err(seen) if last_look => panic!("not within {:?}: {what}\n  last seen: {seen}", deadline.length()),
            Err(_) => rest(REST.min(deadline.left())),
        }
    }
}

/// [`eventually`] for the commonest case: `look` shall come to equal `expected`.
#[track_caller]
pub fn eventually_equal<T: PartialEq + Debug>(
    what: &str,
    deadline: impl Into<Deadline>,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    eventually(what, deadline, || {
        let seen = look();
        if seen == *expected { Ok(()) } else { Err(format!("{seen:?}\n  expected:  {expected:?}")) }
    });
}

/// Looks every few milliseconds for the whole of `length`, and panics with `what` and what was seen as soon as `look`
/// answers `Err`. For what must stay true: a route that shall not be withdrawn.
#[track_caller]
pub fn throughout<S: Display>(what: &str, length: Duration, mut look: impl FnMut() -> Result<(), S>) {
    let start = now();
    let deadline = Deadline::after(length);
    loop {
        if let Err(seen) = look() {
            panic!("no longer so after {:?} of {length:?}: {what}\n  seen: {seen}", start.elapsed());
        }
        if deadline.has_passed() {
            return;
        }
        rest(REST.min(deadline.left()));
    }
}
