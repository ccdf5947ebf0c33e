//! What crier says about a route it announces. Floor 0: the plan decides it, the speaker puts it into UPDATEs.

use serde::{Deserialize, Serialize};

use crate::community::Community;

/// The part of a route that an advertisement decides; next hop and AS path are the session's to fill in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteAttributes {
    /// LOCAL_PREF, to internal peers only; `None` is [`RouteAttributes::DEFAULT_LOCAL_PREFERENCE`] there.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC; `None` sends none.
    pub med: Option<u32>,
    /// How many extra times our AS number is prepended, to external peers only.
    pub prepend: u8,
    /// Sorted, without repetition.
    pub communities: Vec<Community>,
    /// How many local endpoints the route leads to, for routers that balance by weight; `None` says nothing of it.
    pub endpoints: Option<u32>,
}

impl RouteAttributes {
    pub const DEFAULT_LOCAL_PREFERENCE: u32 = 100;

    /// What one endpoint counts as in a link bandwidth, in octets per second: 1 Mbit/s. Only ratios matter, and routers
    /// that keep the value in 32 bits or show it in whole Mbit/s have room for 34,000 endpoints.
    const OCTETS_PER_SECOND: u32 = 125_000;
    /// The greatest that no router rounds up beyond 32 bits.
    const MOST_OCTETS_PER_SECOND: u32 = 0xffff_ff00;

    /// The communities as a session of this local AS sends them, sorted.
    ///
    /// The link bandwidth goes out in both its forms. Cisco reads only the non-transitive one, FRR before 10.5.3 balances
    /// only by the transitive one, Junos writes the transitive one, and RFC 10005 has the receiver take the lower value
    /// whatever its form: with one value in both, all of them agree.
    pub fn communities_from(&self, local_asn: u32) -> Vec<Community> {
        let mut communities = self.communities.clone();
        if let Some(endpoints) = self.endpoints {
            let octets = endpoints.saturating_mul(Self::OCTETS_PER_SECOND).min(Self::MOST_OCTETS_PER_SECOND);
            communities.extend([false, true].map(|form| Community::link_bandwidth(local_asn, octets, form)));
        }
        communities.sort_unstable();
        communities.dedup();
        communities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_a_bandwidth_in_both_forms_and_never_one_beyond_32_bits() {
        let sent = |endpoints| {
            let route = RouteAttributes { endpoints, ..RouteAttributes::default() };
            route.communities_from(64513).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(sent(None), Vec::<String>::new());
        assert_eq!(sent(Some(1)), ["ext:0x0004fc0147f42400", "ext:0x4004fc0147f42400"]);
        assert_eq!(sent(Some(4)), ["ext:0x0004fc0148f42400", "ext:0x4004fc0148f42400"], "four times as much");
        assert_eq!(sent(Some(u32::MAX)), ["ext:0x0004fc014f7fffff", "ext:0x4004fc014f7fffff"]);
    }
}
