//! Kubernetes' structured label selectors, and what they are in kubectl's syntax. Floor 1.
//! Of several selectors any may match, for MetalLB; crier has one selector, so several become one where that is possible.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Draft;
use super::object::Fields;
use super::shown::shortened;
use crate::selector::Selector;

/// What a list of selectors selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// There is no list, or one of its selectors is empty, which matches everything.
    All,
    /// Any of these; never empty.
    Any(Vec<Selector>),
    /// One of the selectors cannot be read; the draft has the warning.
    Unreadable,
}

/// The selectors in the list `key`.
pub(super) fn any_of(fields: &mut Fields<'_>, key: &'static str, draft: &mut Draft) -> Selected {
    if fields.value(key).is_none() {
        return Selected::All;
    }
    let before = draft.warnings.len();
    let list = fields.list(key, draft);
    let all: Option<Vec<Option<Selector>>> = list.into_iter().map(|selector| one(selector, draft).ok()).collect();
    match all.filter(|_| draft.warnings.len() == before) {
        None => Selected::Unreadable,
        Some(selectors) if selectors.iter().any(Option::is_none) || selectors.is_empty() => Selected::All,
        Some(selectors) => Selected::Any(joined(selectors.into_iter().flatten().collect())),
    }
}

/// The selector that a map holds; `None` matches everything. On error the draft has the warning.
pub(super) fn one(mut fields: Fields<'_>, draft: &mut Draft) -> Result<Option<Selector>, ()> {
    let before = draft.warnings.len();
    let mut parts: Vec<String> =
        fields.pairs("matchLabels", draft).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expressions = fields.list("matchExpressions", draft);
    let key = if expressions.is_empty() { "matchLabels" } else { "matchExpressions" };
    for mut expression in expressions {
        let label = expression.text("key", draft).unwrap_or_default();
        let operator = expression.text("operator", draft).unwrap_or_default();
        let values = expression.texts("values", draft).join(", ");
        let path = expression.path("operator");
        match operator {
            "In" => parts.push(format!("{label} in ({values})")),
            "NotIn" => parts.push(format!("{label} notin ({values})")),
            "Exists" => parts.push(label.to_owned()),
            "DoesNotExist" => parts.push(format!("!{label}")),
            other => draft.warn(&fields.object, &path, &shortened(&format!("{other:?}")), "there is no such operator"),
        }
        expression.finish(draft);
    }
    let (object, path) = (fields.object.clone(), fields.path(key));
    fields.finish(draft);
    if draft.warnings.len() > before {
        return Err(());
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let text = parts.join(", ");
    match text.parse::<Selector>() {
        Ok(selector) => Ok(Some(selector)),
        Err(error) => {
            let text = shortened(&format!("{text:?}"));
            draft.warn(&object, &path, &text, &format!("this is not a label selector: {error}"));
            Err(())
        }
    }
}

/// Fewer selectors that together select the same: `rack=a` or `rack=b` is `rack in (a, b)`.
fn joined(selectors: Vec<Selector>) -> Vec<Selector> {
    let mut values: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
    let mut others: Vec<(usize, Selector)> = Vec::new();
    for (at, selector) in selectors.into_iter().enumerate() {
        match single(&selector) {
            Some((key, more)) => values.entry(key).or_insert((at, BTreeSet::new())).1.extend(more),
            None if others.iter().any(|(_, other)| other.requirements() == selector.requirements()) => {}
            None => others.push((at, selector)),
        }
    }
    for (key, (at, values)) in values {
        let values: Vec<String> = values.into_iter().collect();
        others.extend(format!("{key} in ({})", values.join(", ")).parse().ok().map(|selector| (at, selector)));
    }
    others.sort_by_key(|(at, _)| *at);
    others.into_iter().map(|(_, selector)| selector).collect()
}

/// The key and the values of a selector that is one requirement for some values.
fn single(selector: &Selector) -> Option<(String, Vec<String>)> {
    let requirements = selector.requirements();
    let text = requirements.first().filter(|_| requirements.len() == 1)?;
    if let Some((key, values)) = text.split_once(" in (") {
        return Some((key.to_owned(), values.trim_end_matches(')').split(", ").map(str::to_owned).collect()));
    }
    let (key, value) = text.split_once('=').filter(|(key, value)| !key.ends_with('!') && !value.is_empty())?;
    Some((key.to_owned(), vec![value.to_owned()]))
}
