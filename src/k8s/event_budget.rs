//! How many Events crier writes: few for one Service, and few in all. Floor 1.
//!
//! What an Event would have said stands in the condition of the Service too, so an Event beyond the budget is dropped. One that tells
//! of an address before it goes counts for its Service alone: whoever moves hundreds of Services waits until each was told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::names::ObjectKey;

/// Events of one Service at once, and the time after which one more is granted.
const OF_SERVICE: Rate = Rate { burst: 10, refill: Duration::from_secs(30) };
/// Of all Services, for warnings and for the others apart.
const OF_ALL: Rate = Rate { burst: 200, refill: Duration::from_millis(500) };

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    refill: Duration,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct EventBudget {
    of_service: BTreeMap<ObjectKey, Bucket>,
    warnings: Option<Bucket>,
    others: Option<Bucket>,
}

/// `left` Events may be written at `since`.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    fn refilled(before: Option<Bucket>, rate: Rate, now: Instant) -> Bucket {
        let Some(Bucket { left, since }) = before else { return Bucket { left: rate.burst, since: now } };
        let grown = now.saturating_duration_since(since).as_millis() / rate.refill.as_millis().max(1);
        let grown = u32::try_from(grown).unwrap_or(u32::MAX);
        if left.saturating_add(grown) >= rate.burst {
            return Bucket { left: rate.burst, since: now };
        }
        Bucket { left: left + grown, since: since + rate.refill * grown }
    }
}

impl EventBudget {
    /// The same of an Event before an address goes.
    pub fn take_removal(&mut self, service: &ObjectKey, now: Instant) -> bool {
        let mut of_service = Bucket::refilled(self.of_service.get(service).copied(), OF_SERVICE, now);
        let granted = of_service.left > 0;
        of_service.left = of_service.left.saturating_sub(1);
        self.put(service, of_service, now);
        granted
    }

    /// Whether one more Event may be written now; it counts as written then.
    pub fn take(&mut self, service: &ObjectKey, warning: bool, now: Instant) -> bool {
        let all = if warning { &mut self.warnings } else { &mut self.others };
        let mut of_all = Bucket::refilled(*all, OF_ALL, now);
        let mut of_service = Bucket::refilled(self.of_service.get(service).copied(), OF_SERVICE, now);
        let granted = of_all.left > 0 && of_service.left > 0;
        if granted {
            of_all.left -= 1;
            of_service.left -= 1;
        }
        *all = Some(of_all);
        self.put(service, of_service, now);
        granted
    }

    fn put(&mut self, service: &ObjectKey, of_service: Bucket, now: Instant) {
        self.of_service.insert(service.clone(), of_service);
        // A full bucket is as good as none.
        if self.of_service.len() > 1024 {
            self.of_service.retain(|_, it| Bucket::refilled(Some(*it), OF_SERVICE, now).left < OF_SERVICE.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn one_service_cannot_use_up_the_budget_and_gets_one_more_after_a_while() {
        let (mut budget, now) = (EventBudget::default(), clock::now());
        let key = ObjectKey::new("shop", "noisy");
        let granted = (0..1000).filter(|_| budget.take(&key, true, now)).count();
        assert_eq!(granted, usize::try_from(OF_SERVICE.burst).unwrap());
        assert!(budget.take(&ObjectKey::new("shop", "quiet"), true, now));
        assert!(budget.take(&key, true, now + OF_SERVICE.refill));
        assert!(!budget.take(&key, true, now + OF_SERVICE.refill));
    }

    #[test]
    fn what_tells_of_an_address_that_goes_counts_for_its_service_alone() {
        let (mut budget, now) = (EventBudget::default(), clock::now());
        let key = |number: usize| ObjectKey::new("shop", &format!("web-{number}"));
        assert!((0..10_000).all(|number| budget.take_removal(&key(number), now)));
        let burst = usize::try_from(OF_SERVICE.burst).unwrap();
        assert_eq!((0..100).filter(|_| budget.take_removal(&key(10_000), now)).count(), burst);
        assert!(budget.take_removal(&key(10_000), now + OF_SERVICE.refill));
        assert!(budget.take(&key(0), true, now), "nothing of it counts for the others");
    }

    #[test]
    fn all_services_together_have_a_budget_and_warnings_one_of_their_own() {
        let (mut budget, now) = (EventBudget::default(), clock::now());
        let key = |number: usize| ObjectKey::new("shop", &format!("web-{number}"));
        let mut granted = |warning: bool| (0..10_000).filter(|number| budget.take(&key(*number), warning, now)).count();
        let burst = usize::try_from(OF_ALL.burst).unwrap();
        assert_eq!((granted(false), granted(false), granted(true)), (burst, 0, burst));
    }
}
