//! The annotations that a Service is to have, as `kubectl annotate` lines: crier reads them there, and no line of its file says the
//! same. Floor 1. Not for which annotations these are; the file of each product knows that.

use super::draft::{Annotated, Draft};
use super::object::Object;
use super::shown::one_line;
use super::shown::shortened;
use crate::names::ObjectKey;
use crate::selector::{is_dns_label, is_dns_name};

/// The annotations of one Service in the making.
#[derive(Debug)]
pub(super) struct Annotations {
    object: String,
    namespace: String,
    service: String,
    wanted: Vec<(&'static str, String)>,
    /// Annotations that the line cannot have, each with why.
    left_out: Vec<(&'static str, String, &'static str)>,
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
            left_out: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// The first value counts: of two products the one that is asked first. The other is told by [`Annotations::finish`].
    pub fn set(&mut self, name: &'static str, value: String) {
        match self.wanted.iter().find(|(known, _)| *known == name) {
            None if value.chars().any(char::is_control) => {
                self.left_out.push((name, value, "no shell can be given this"))
            }
            None => self.wanted.push((name, value)),
            Some((_, first)) if *first == value => {}
            Some(_) => self.left_out.push((name, value, "another annotation of the Service asks for something else")),
        }
    }

    /// Takes an annotation back that would say more than it should.
    pub fn forgo(&mut self, name: &str) {
        self.wanted.retain(|(known, _)| *known != name);
    }

    /// The annotations so far.
    pub fn wanted(&self) -> impl Iterator<Item = (&str, &str)> {
        self.wanted.iter().map(|(name, value)| (*name, value.as_str()))
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.service)
    }

    /// The Service among the objects.
    pub fn of_service<'a>(&self, objects: &'a [Object]) -> Option<&'a Object> {
        let is_it = |it: &&Object| {
            it.kind == "Service" && it.group.is_empty() && it.name == self.service && it.namespace == self.namespace
        };
        objects.iter().find(is_it)
    }

    /// Asks a human to look at something before the line is run.
    pub fn check(&mut self, draft: &mut Draft, field: &str, value: &str, text: &str) {
        draft.warn(&self.object, field, value, text);
        let place = [field, value].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let colon = if place.is_empty() { "" } else { ": " };
        self.checks.push(one_line(&format!("{place}{colon}{text}")));
    }

    /// Puts the line into the draft, unless the Service has all of the annotations already. `there`: the Service, if it is among the
    /// objects.
    pub fn finish(mut self, there: Option<&Object>, draft: &mut Draft) {
        for (name, value, why) in std::mem::take(&mut self.left_out) {
            let value = shortened(&format!("{value:?}"));
            self.check(draft, name, &value, &format!("{why}; it was left out"));
        }
        let Annotations { object, namespace, service, wanted, checks, left_out: _ } = self;
        if wanted.is_empty() && checks.is_empty() {
            return;
        }
        if !is_dns_name(&service) || !is_dns_label(&namespace) {
            let named = shortened(&format!("{:?}", format!("{namespace}/{service}")));
            draft.leave_out(
                &object,
                "metadata",
                &named,
                "no Service can have this name; its annotations were left out",
            );
            return;
        }
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

/// The parts of a list with commas; on error the first that is none of them.
pub(super) fn listed<T, E>(value: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| parse(part).map_err(|_| shortened(&format!("{part:?}")))).collect()
}

/// As an annotation has them.
pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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
