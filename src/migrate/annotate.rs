//! The annotations that a Service is to have, as `kubectl annotate` lines: crier reads them there, and no line of its file says the
//! same. Floor 1. Not for which annotations these are; the file of each product knows that.

use super::draft::{Draft, one_line};
use super::object::{Object, shortened};
use crate::selector::{is_dns_label, is_dns_name};

/// What a human must give one Service.
#[derive(Debug)]
pub(super) struct Annotated {
    /// The object that asks for it.
    pub object: String,
    /// What crier does otherwise, or not at all. One line each.
    pub checks: Vec<String>,
    /// The line for a shell.
    pub command: String,
}

/// The annotations of one Service in the making.
#[derive(Debug)]
pub(super) struct Annotations {
    object: String,
    namespace: String,
    service: String,
    wanted: Vec<(&'static str, String)>,
    checks: Vec<String>,
}

impl Annotations {
    /// For the Service of the object's own name and namespace.
    pub fn of(object: &Object) -> Annotations {
        let namespace = if object.namespace.is_empty() { "default" } else { object.namespace.as_str() };
        Annotations {
            object: object.label(),
            namespace: namespace.to_owned(),
            service: object.name.clone(),
            wanted: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub fn set(&mut self, name: &'static str, value: String) {
        self.wanted.push((name, value));
    }

    /// Asks a human to look at something before the line is run.
    pub fn check(&mut self, draft: &mut Draft, field: &str, value: &str, text: &str) {
        draft.warn(&self.object, field, value, text);
        let space = if value.is_empty() { "" } else { " " };
        self.checks.push(one_line(&format!("{field}{space}{value}: {text}")));
    }

    /// Puts the line into the draft, unless the Service has all of the annotations already.
    pub fn finish(self, objects: &[Object], draft: &mut Draft) {
        let Annotations { object, namespace, service, wanted, checks } = self;
        if wanted.is_empty() && checks.is_empty() {
            return;
        }
        if !is_dns_name(&service) || !is_dns_label(&namespace) {
            let named = shortened(&format!("{:?}", format!("{namespace}/{service}")));
            draft.warn(&object, "metadata", &named, "no Service can have this name; its annotations were left out");
            return;
        }
        let is_it = |it: &&Object| {
            it.kind == "Service" && it.group.is_empty() && it.name == service && it.namespace == namespace
        };
        let there = objects.iter().find(is_it);
        let has = |name: &str, value: &str| {
            there.is_some_and(|it| it.texts_of_metadata("annotations").any(|pair| pair == (name, value)))
        };
        let lacking: Vec<String> = wanted
            .iter()
            .filter(|(name, value)| !has(name, value))
            .map(|(name, value)| quoted(&format!("{name}={value}")))
            .collect();
        let command = match lacking.as_slice() {
            [] => String::new(),
            lacking => {
                let text = "crier reads this from annotations of the Service: run the `kubectl annotate` line at the end of \
                            the file";
                draft.warn(&object, "", "", text);
                format!("kubectl -n {namespace} annotate --overwrite service {service} {}", lacking.join(" "))
            }
        };
        if !command.is_empty() || !checks.is_empty() {
            draft.annotate(Annotated { object, checks, command });
        }
    }
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./:=,-_".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_for_a_shell_and_never_another_command() {
        let table = [
            ("crier.dev/egress=service-ip", "crier.dev/egress=service-ip"),
            ("a=rack=a, !gpu", "'a=rack=a, !gpu'"),
            ("a=$(reboot)", "'a=$(reboot)'"),
            ("a=b'; reboot; '", "'a=b'\\''; reboot; '\\'''"),
        ];
        for (word, expected) in table {
            assert_eq!(quoted(word), expected, "{word}");
        }
    }
}
