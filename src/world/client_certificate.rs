//! The client certificate by which the API server knows this agent: until when, and when that is told. Floor 1.

use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// From so long before its end on it is told. Of one that is made for a short time, from the last tenth of that on: whoever renews such ones
/// by a program does it before.
const SOON: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// Where it stands, in words: a file, or a kubeconfig.
    pub place: String,
    pub begins: SystemTime,
    pub ends: SystemTime,
}

impl ClientCertificate {
    pub fn has_ended(&self, wall: SystemTime) -> bool {
        self.ends < wall
    }

    /// That it has ended, or does soon, with its name and the time; `None` while it is good for longer.
    pub fn trouble(&self, wall: SystemTime) -> Option<String> {
        let of_lifetime = self.ends.duration_since(self.begins).unwrap_or_default() / 10;
        let soon = SOON.min(of_lifetime);
        if self.has_ended(wall) {
            return Some(format!("{self} ended on {}", self.end()));
        }
        let left = self.ends.duration_since(wall).unwrap_or_default();
        (left <= soon).then(|| format!("{self} ends on {}", self.end()))
    }

    /// When it ends, as people read it.
    pub fn end(&self) -> String {
        Timestamp::try_from(self.ends).map(|at| format!("{at:.0}")).unwrap_or_default()
    }
}

impl fmt::Display for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client certificate {}", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn the_end_is_told_seven_days_before_or_in_the_last_tenth_of_a_short_life() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let told = |lives: u64, left: u64| {
            let certificate = ClientCertificate { place: "/c".to_owned(), begins: at(0), ends: at(lives) };
            certificate.trouble(at(lives - left))
        };
        assert_eq!(told(365 * DAY, 7 * DAY + 1), None);
        assert_eq!(told(365 * DAY, 7 * DAY).as_deref(), Some("the client certificate /c ends on 1971-01-01T00:00:00Z"));
        assert_eq!((told(DAY, 8_641), told(DAY, 8_640).is_some()), (None, true));
        let ended = ClientCertificate { place: "/c".to_owned(), begins: at(0), ends: at(DAY) }.trouble(at(DAY + 1));
        assert_eq!(ended.as_deref(), Some("the client certificate /c ended on 1970-01-02T00:00:00Z"));
    }
}
