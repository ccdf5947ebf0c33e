//! Chains of other programs that may mark packets anew behind crier's own mark. Floor 1. A packet of a pod that loses the bits of crier's
//! mark is not led to the owner of its Service's address, and the guard drops it. Which bits a rule sets can depend on anything, so what is
//! named is that it may.

use super::packet::{self, BaseChain};
use super::ruleset::{Form, STEER_PRIORITY};

/// A chain on the hook where crier marks, that comes behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// Its table, whose rules are to be asked for: a chain may jump to others there.
    pub table: String,
    pub name: String,
    pub priority: i32,
}

impl Later {
    /// The chain in this answer of the kernel, if it is such a one and has rules. At equal priority the chain that was made first comes
    /// first, and crier's is made anew at each start.
    pub fn read(form: &Form, family: &str, attributes: &[u8]) -> Option<Later> {
        let BaseChain { table, name, hook, priority, rules, kind: _ } = packet::base_chain(attributes)?;
        let is_own = family == "inet" && (table == form.table || table == super::ruleset::second(form).table);
        (hook == PREROUTING && priority >= STEER_PRIORITY && rules > 0 && !is_own).then_some(Later {
            table,
            name,
            priority,
        })
    }

    /// In words, as [`super::earlier::earlier`] names chains.
    pub fn in_words(&self, family: &str) -> String {
        let Later { table, name, priority } = self;
        format!("table {family} {table}, chain {name} (priority {priority})")
    }
}

const PREROUTING: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::packet::Attributes;

    fn answer(table: &str, hook: u32, priority: i32, rules: u32) -> Vec<u8> {
        let mut attributes = Attributes::default();
        attributes.text(1, table);
        attributes.text(3, "pre");
        attributes.nest(4, |it| {
            it.number(1, hook);
            it.number(2, priority.cast_unsigned());
        });
        attributes.text(7, "filter");
        attributes.number(6, rules);
        attributes.value().to_vec()
    }

    #[test]
    fn chains_behind_criers_mark_are_looked_at_and_none_before_it() {
        let form = Form { table: "crier".to_owned(), priority: 95, mark_mask: 0, marks: Vec::new(), tunnel: None };
        let read = |family, answer: Vec<u8>| Later::read(&form, family, &answer).map(|chain| chain.in_words(family));
        assert_eq!(read("inet", answer("vpn", 0, 0, 1)).as_deref(), Some("table inet vpn, chain pre (priority 0)"));
        assert!(read("ip", answer("vpn", 0, STEER_PRIORITY, 1)).is_some(), "equal may be behind");
        for (other, why) in [
            (answer("crier", 0, STEER_PRIORITY, 9), "crier's own"),
            (answer("crier-guard", 0, 0, 9), "crier's second guard"),
            (answer("vpn", 0, -150, 1), "mangle comes before"),
            (answer("vpn", 0, 0, 0), "it has no rule"),
            (answer("vpn", 4, 0, 1), "postrouting"),
        ] {
            assert_eq!(read("inet", other), None, "{why}");
        }
    }
}
