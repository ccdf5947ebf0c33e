//! One route out of all that advertisements and Services say about its prefix to one peer.
//! Floor 1. Communities are united and endpoints added up; of the rest the first in the file counts, and where a later
//! one says something else that is a dispute, which an operator has to settle.

use std::sync::Arc;

use crate::names::ObjectKey;
use crate::route::RouteAttributes;

/// What one Service says about a route by one `[[bgp.advertisement]]`, which is named by its number in the file.
pub type Said<'a> = (&'a ObjectKey, usize, &'a Arc<RouteAttributes>);

/// Two advertisements that cannot both be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The key of the configuration: `local-preference`, `med` or `prepend`.
    pub key: &'static str,
    /// As the first in the file says.
    pub kept: u32,
    pub ignored: u32,
}

/// The route; `None` where nobody says anything. One that is said once only is handed on, not copied.
///
/// `said` is in order of Service.
pub fn join(said: &[Said<'_>]) -> Option<Arc<RouteAttributes>> {
    let mut all: Vec<_> = said.iter().map(|(_, number, attributes)| (*number, *attributes)).collect();
    all.sort_by_key(|(number, _)| *number);
    let (_, first) = *all.first()?;
    if all.len() == 1 {
        return Some(first.clone());
    }
    let mut joined = first.clone();
    for (_, other) in all.iter().filter(|(_, other)| *other != first) {
        let joined = Arc::make_mut(&mut joined);
        joined.local_preference = joined.local_preference.or(other.local_preference);
        joined.med = joined.med.or(other.med);
        joined.prepend = if joined.prepend == 0 { other.prepend } else { joined.prepend };
        joined.communities.extend(other.communities.iter().copied());
        joined.communities.sort_unstable();
        joined.communities.dedup();
    }
    // Several advertisements of one Service speak of the same endpoints.
    let by_service = said.chunk_by(|(one, ..), (other, ..)| one == other);
    let of_service = |said: &[Said<'_>]| said.iter().filter_map(|(_, _, it)| it.endpoints).max();
    let endpoints = by_service.filter_map(of_service).reduce(u32::saturating_add);
    if joined.endpoints != endpoints {
        Arc::make_mut(&mut joined).endpoints = endpoints;
    }
    Some(joined)
}

/// What cannot be joined, each key once. What a session of this kind does not send is no matter of disagreement.
pub fn disputes(all: &[(usize, &Arc<RouteAttributes>)], internal: bool) -> Vec<Disagreement> {
    if all.iter().all(|(_, attributes)| *attributes == all[0].1) {
        return Vec::new();
    }
    type Value = fn(&RouteAttributes) -> Option<u32>;
    let local_preference: (&str, Value) = ("local-preference", |it| it.local_preference);
    let prepend: (&str, Value) = ("prepend", |it| (it.prepend > 0).then(|| u32::from(it.prepend)));
    let med: (&str, Value) = ("med", |it| it.med);
    let mut all = all.to_vec();
    all.sort_by_key(|(number, _)| *number);
    let keys = [if internal { local_preference } else { prepend }, med];
    let dispute = |(key, value): (&'static str, Value)| {
        let mut values = all.iter().filter_map(|(_, attributes)| value(attributes));
        let kept = values.next()?;
        values.find(|other| *other != kept).map(|ignored| Disagreement { key, kept, ignored })
    };
    keys.into_iter().filter_map(dispute).collect()
}

/// [`disputes`] of a whole route.
pub fn disputes_of(said: &[Said<'_>], internal: bool) -> Vec<Disagreement> {
    let all: Vec<_> = said.iter().map(|(_, number, attributes)| (*number, *attributes)).collect();
    if all.len() < 2 { Vec::new() } else { disputes(&all, internal) }
}
