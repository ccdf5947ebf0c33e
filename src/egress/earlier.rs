//! Chains of other programs that translate sources before crier's own chain does. Floor 1. The first chain that translates a connection
//! has it: what comes behind is not asked any more, and the guard drops what a pod with egress sends so.

use super::packet;
use super::ruleset::Form;
use crate::address::Family;

/// The families with chains that translate, by number and name.
pub const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];

/// Names the chain in this answer of the kernel, if it is such a one and has rules. At equal priority the chain that was made first
/// comes first, and crier's is made anew at each start.
pub fn earlier(form: &Form, family: &str, attributes: &[u8]) -> Option<String> {
    let chain = packet::base_chain(attributes)?;
    let comes_before = i64::from(chain.priority) <= i64::from(form.priority);
    let is_own = family == "inet" && chain.table == form.table;
    let translates = chain.kind == "nat" && chain.hook == POSTROUTING && chain.rules > 0;
    (translates && comes_before && !is_own)
        .then(|| format!("table {family} {}, chain {} (priority {})", chain.table, chain.name, chain.priority))
}

/// Whether packets of this family pass the chain that [`earlier`] names so.
pub fn is_of(chain: &str, family: Family) -> bool {
    let only = match family {
        Family::V4 => "table ip6 ",
        Family::V6 => "table ip ",
    };
    !chain.starts_with(only)
}

const POSTROUTING: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::packet::Attributes;

    /// The kernel's answer about a chain: its table, the kind, the hook, the priority, how many rules.
    fn answer(table: &str, kind: &str, hook: u32, priority: i32, rules: u32) -> Vec<u8> {
        let mut attributes = Attributes::default();
        attributes.text(1, table);
        attributes.text(3, "post");
        attributes.nest(4, |it| {
            it.number(1, hook);
            it.number(2, priority.cast_unsigned());
        });
        attributes.text(7, kind);
        attributes.number(6, rules);
        attributes.value().to_vec()
    }

    #[test]
    fn a_chain_is_passed_by_packets_of_its_family_alone() {
        let form = Form { table: "crier".to_owned(), priority: 95, mark_mask: 0, marks: Vec::new(), tunnel: None };
        let of = |family| earlier(&form, family, &answer("early", "nat", 4, 50, 1)).expect("it comes first");
        let passed = |family| Family::BOTH.map(|of_packet| is_of(&of(family), of_packet));
        assert_eq!(FAMILIES.map(|(_, name)| passed(name)), [[true, true], [true, false], [false, true]]);
    }

    #[test]
    fn only_chains_that_translate_sources_with_rules_before_crier_does_are_named() {
        let form = Form { table: "crier".to_owned(), priority: 95, mark_mask: 0, marks: Vec::new(), tunnel: None };
        let of = |family, answer: Vec<u8>| earlier(&form, family, &answer);
        let named = of("inet", answer("early", "nat", 4, 50, 1));
        assert_eq!(named.as_deref(), Some("table inet early, chain post (priority 50)"));
        assert!(of("ip", answer("early", "nat", 4, -300, 2)).is_some());
        assert!(of("ip", answer("crier", "nat", 4, 95, 2)).is_some(), "crier's is of inet; equal may be before");
        assert_eq!(of("inet", answer("crier", "nat", 4, 95, 9)), None, "crier's own");
        for (other, why) in [
            (answer("cni", "nat", 4, 100, 2), "behind"),
            (answer("early", "nat", 4, 50, 0), "it has no rule"),
            (answer("early", "nat", 0, -100, 3), "prerouting"),
            (answer("early", "filter", 4, 50, 3), "it translates nothing"),
            (Vec::new(), "nothing is told"),
        ] {
            assert_eq!(of("inet", other), None, "{why}");
        }
        let mut plain = Attributes::default();
        plain.text(1, "early");
        plain.text(3, "called");
        plain.number(6, 3);
        assert_eq!(earlier(&form, "inet", plain.value()), None, "it hangs on no hook");
    }
}
