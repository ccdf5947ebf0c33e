//! Delays between retries. Floor 2: the jitter is random, so that the agents of a cluster do not reconnect all at once.

use std::time::Duration;

/// Delays that double up to a maximum, each shortened by a random part of up to its half.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// `first` and `most` are before the jitter. `first` should not be zero: zero never grows.
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, next: first }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.most);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The last attempt succeeded: starts again with the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_most_and_are_cut_by_half_at_the_most() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for whole in [100, 200, 350, 350] {
            let delay = backoff.next_delay();
            assert!((whole / 2..=whole).contains(&delay.as_millis()), "{delay:?} for {whole} ms");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100), "after a reset it begins again");
    }
}
