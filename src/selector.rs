//! Label selectors as kubectl writes them: `rack=a`, `tier in (front, edge)`, `!gpu`, joined by commas. Floor 0.
//! Not for field selectors, and not for the structured selectors of Kubernetes objects.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, multispace0};
use nom::combinator::{all_consuming, map};
use nom::error::{ErrorKind, ParseError};
use nom::multi::separated_list1;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};
use serde::{Deserialize, Serialize};

use crate::text_map::TextMap;

/// The labels of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub TextMap);

/// A checked selector; an object matches when every requirement holds.
///
/// Made by `parse`. `Display` prints canonical text that parses back to an equal selector:
/// one space after a comma, values in order, a list of one as `=` or `!=`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// Never empty: there is no text for "everything".
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    /// `key=value`, `key in (values)`: the label is there and has one of the values.
    In { key: String, values: BTreeSet<String> },
    /// `key!=value`, `key notin (values)`: the label has another value, or is not there at all.
    NotIn { key: String, values: BTreeSet<String> },
    /// `key`
    Present { key: String },
    /// `!key`
    Absent { key: String },
}

impl Selector {
    /// Whether every requirement holds for these labels. As in Kubernetes, `!=` and `notin` hold where the label is missing.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }

    /// The requirements as canonical text, in order: equal for two selectors that differ only in the order of theirs.
    pub fn requirements(&self) -> BTreeSet<String> {
        self.requirements.iter().map(ToString::to_string).collect()
    }

    /// A label that no object can have as the requirements ask: the selector matches nothing, ever.
    pub fn impossible(&self) -> Option<&str> {
        self.keys().find(|key| {
            let of_key = || self.requirements.iter().filter(|requirement| requirement.key() == *key);
            let is_present = of_key().any(|it| matches!(it, Requirement::In { .. } | Requirement::Present { .. }));
            if is_present && of_key().any(|it| matches!(it, Requirement::Absent { .. })) {
                return true;
            }
            let first = of_key().find_map(|it| match it {
                Requirement::In { values, .. } => Some(values),
                Requirement::NotIn { .. } | Requirement::Present { .. } | Requirement::Absent { .. } => None,
            });
            let is_taken = |value: &String| {
                of_key().all(|it| match it {
                    Requirement::In { values, .. } => values.contains(value),
                    Requirement::NotIn { values, .. } => !values.contains(value),
                    Requirement::Present { .. } | Requirement::Absent { .. } => true,
                })
            };
            first.is_some_and(|values| !values.iter().any(is_taken))
        })
    }

    /// What both match.
    pub fn and(&self, other: &Selector) -> Selector {
        Selector { requirements: self.requirements.iter().chain(&other.requirements).cloned().collect() }
    }

    /// The labels that the answer depends on.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(Requirement::key)
    }
}

impl Requirement {
    fn key(&self) -> &str {
        match self {
            Requirement::In { key, .. }
            | Requirement::NotIn { key, .. }
            | Requirement::Present { key }
            | Requirement::Absent { key } => key.as_str(),
        }
    }

    fn holds(&self, Labels(labels): &Labels) -> bool {
        match self {
            Requirement::In { key, values } => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn { key, values } => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Present { key } => labels.contains_key(key),
            Requirement::Absent { key } => !labels.contains_key(key),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, requirement) in self.requirements.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values, one, many) = match self {
            Requirement::In { key, values } => (key, values, "=", "in"),
            Requirement::NotIn { key, values } => (key, values, "!=", "notin"),
            Requirement::Present { key } => return f.write_str(key),
            Requirement::Absent { key } => return write!(f, "!{key}"),
        };
        match values.first() {
            Some(value) if values.len() == 1 => write!(f, "{key}{one}{value}"),
            _ => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                write!(f, "{key} {many} ({})", values.join(", "))
            }
        }
    }
}

/// Why a text is no selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SelectorError {
    /// The offending part of the text, in bytes; empty at the end of the text where something is missing.
    pub span: Range<usize>,
    pub problem: SelectorProblem,
}

impl SelectorError {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        match &self.problem {
            SelectorProblem::Empty => "leave the key out to select everything",
            SelectorProblem::KeyExpected => {
                "requirements are joined by single commas, each begins with a label key: rack=a, !gpu"
            }
            SelectorProblem::OperatorExpected { .. } => {
                "after a key comes =, !=, in (...), notin (...), or a comma and the next requirement"
            }
            SelectorProblem::Comparison { .. } => "list the values instead: size in (8, 16)",
            SelectorProblem::ListExpected => "write the values in parentheses: tier in (front, edge)",
            SelectorProblem::ListEmpty => "name at least one value: tier in (front, edge)",
            SelectorProblem::ListOpen => "close the list of values with a parenthesis: tier in (front, edge)",
            SelectorProblem::CommaExpected => "requirements are joined by commas: rack=a, tier=front",
            SelectorProblem::Key(_) => {
                "a label key is a name of at most 63 letters, digits, -, _ and ., with a DNS name and a slash before it if \
                 wanted: example.com/rack"
            }
            SelectorProblem::Value(_) => {
                "a label value has at most 63 letters, digits, -, _ and ., and begins and ends with a letter or digit"
            }
        }
    }
}

/// What is wrong with the text of a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorProblem {
    #[error("the selector is empty")]
    Empty,
    #[error("a label key is missing here")]
    KeyExpected,
    #[error("no operator follows the label key \"{key}\"")]
    OperatorExpected { key: String },
    /// kubectl knows `>` and `<`; crier does not.
    #[error("\"{operator}\" is not available in selectors")]
    Comparison { operator: char },
    #[error("a list of values is missing here")]
    ListExpected,
    #[error("the list of values is empty")]
    ListEmpty,
    #[error("the list of values is not closed")]
    ListOpen,
    #[error("a comma is missing here")]
    CommaExpected,
    #[error("{0}")]
    Key(LabelError),
    #[error("{0}")]
    Value(LabelError),
}

/// Why a text is no label key or label value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("the name is empty")]
    Empty,
    #[error("\"{text}\" has {length} characters, more than {most}")]
    TooLong { text: String, length: usize, most: usize },
    #[error("\"{text}\" has the character {character:?} in a place where it may not stand")]
    Character { text: String, character: char },
    #[error("\"{0}\" is no DNS name in lower case")]
    Prefix(String),
}

/// Checks `name` or `prefix/name` as Kubernetes checks label keys and load balancer classes.
pub fn check_label_key(text: &str) -> Result<(), LabelError> {
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, _)) if !is_dns_name(prefix) => return Err(LabelError::Prefix(prefix.to_owned())),
        Some((_, name)) => name,
    };
    if name.is_empty() { Err(LabelError::Empty) } else { check_label_text(name) }
}

/// Checks a label value as Kubernetes does. It may be empty.
fn check_label_value(text: &str) -> Result<(), LabelError> {
    if text.is_empty() { Ok(()) } else { check_label_text(text) }
}

/// RFC 1123: at most 63 lower case letters, digits and `-`, neither first nor last of which is `-`.
/// The names of Namespaces are such labels.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// RFC 1123: at most 253 characters of labels with dots between. The names of most Kubernetes objects are such names;
/// as there, a label in it may be longer than 63 characters.
pub fn is_dns_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label =
        |label: &str| !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    text.len() <= 253 && text.split('.').all(label)
}

fn check_label_text(text: &str) -> Result<(), LabelError> {
    const MOST: usize = 63;
    let refused = |character| LabelError::Character { text: text.to_owned(), character };
    if let Some(character) = text.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-_.".contains(c)) {
        return Err(refused(character));
    }
    if text.len() > MOST {
        return Err(LabelError::TooLong { text: text.to_owned(), length: text.len(), most: MOST });
    }
    let ends = [text.chars().next(), text.chars().next_back()];
    match ends.into_iter().flatten().find(|c| !c.is_ascii_alphanumeric()) {
        Some(character) => Err(refused(character)),
        None => Ok(()),
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// Reads kubectl's grammar: `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b, c)`, joined by commas that mean AND.
    /// Space is free between the words. As in kubectl a value may be empty (`a=`, `a in (b,)`), a selector may not.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(SelectorError { span: 0..text.len(), problem: SelectorProblem::Empty });
        }
        match selector(text) {
            Ok((_, requirements)) => Ok(Selector { requirements }),
            Err(nom::Err::Error(trouble) | nom::Err::Failure(trouble)) => Err(trouble.locate(text)),
            // Only the streaming parsers of nom ask for more input, and none is used here.
            Err(nom::Err::Incomplete(_)) => {
                Err(SelectorError { span: text.len()..text.len(), problem: SelectorProblem::ListOpen })
            }
        }
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Selector, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Trouble<'a>>;

/// A problem, the rest of the text it was met at, and how many bytes of that rest it is about.
#[derive(Debug)]
struct Trouble<'a> {
    at: &'a str,
    length: usize,
    problem: SelectorProblem,
}

impl<'a> Trouble<'a> {
    fn of<T>(at: &'a str, length: usize, problem: SelectorProblem) -> Parsed<'a, T> {
        Err(nom::Err::Failure(Trouble { at, length, problem }))
    }

    fn locate(self, text: &str) -> SelectorError {
        let start = text.len() - self.at.len();
        SelectorError { span: start..start + self.length, problem: self.problem }
    }
}

impl<'a> ParseError<&'a str> for Trouble<'a> {
    /// The only place where nom itself can give up is behind a whole requirement.
    fn from_error_kind(input: &'a str, _: ErrorKind) -> Self {
        Trouble { at: input, length: first_word(input), problem: SelectorProblem::CommaExpected }
    }

    fn append(_: &'a str, _: ErrorKind, other: Self) -> Self {
        other
    }
}

fn selector(text: &str) -> Parsed<'_, Vec<Requirement>> {
    all_consuming(separated_list1(char(','), requirement)).parse(text)
}

fn requirement(text: &str) -> Parsed<'_, Requirement> {
    let absent = map(preceded(char('!'), spaced(key)), |key| Requirement::Absent { key });
    spaced(alt((absent, keyed))).parse(text)
}

/// A requirement that begins with its key.
fn keyed(text: &str) -> Parsed<'_, Requirement> {
    let (rest, key) = spaced(key).parse(text)?;
    let (after_word, operator) = alt((tag("=="), tag("!="), tag("="), take_while(is_word))).parse(rest)?;
    match operator {
        "=" | "==" => one_value(after_word).map(|(rest, values)| (rest, Requirement::In { key, values })),
        "!=" => one_value(after_word).map(|(rest, values)| (rest, Requirement::NotIn { key, values })),
        "in" => value_list(after_word).map(|(rest, values)| (rest, Requirement::In { key, values })),
        "notin" => value_list(after_word).map(|(rest, values)| (rest, Requirement::NotIn { key, values })),
        "" => match rest.chars().next() {
            None | Some(',') => Ok((rest, Requirement::Present { key })),
            Some(operator @ ('<' | '>')) => Trouble::of(rest, 1, SelectorProblem::Comparison { operator }),
            Some(_) => Trouble::of(rest, first_word(rest), SelectorProblem::OperatorExpected { key }),
        },
        _ => Trouble::of(rest, operator.len(), SelectorProblem::OperatorExpected { key }),
    }
}

fn key(text: &str) -> Parsed<'_, String> {
    let (rest, word) = match take_while1::<_, _, Trouble<'_>>(is_word).parse(text) {
        Ok(parsed) => parsed,
        Err(_) => return Trouble::of(text, first_word(text), SelectorProblem::KeyExpected),
    };
    match check_label_key(word) {
        Ok(()) => Ok((rest, word.to_owned())),
        Err(why) => Trouble::of(text, word.len(), SelectorProblem::Key(why)),
    }
}

fn value(text: &str) -> Parsed<'_, String> {
    let (rest, word) = take_while(is_word).parse(text)?;
    match check_label_value(word) {
        Ok(()) => Ok((rest, word.to_owned())),
        Err(why) => Trouble::of(text, word.len(), SelectorProblem::Value(why)),
    }
}

fn one_value(text: &str) -> Parsed<'_, BTreeSet<String>> {
    map(spaced(value), |value| BTreeSet::from([value])).parse(text)
}

fn value_list(text: &str) -> Parsed<'_, BTreeSet<String>> {
    let (text, _) = multispace0(text)?;
    let Some(inside) = text.strip_prefix('(') else {
        return Trouble::of(text, first_word(text), SelectorProblem::ListExpected);
    };
    if let Some(rest) = inside.trim_start().strip_prefix(')') {
        return Trouble::of(text, text.len() - rest.len(), SelectorProblem::ListEmpty);
    }
    let (rest, values) = separated_list1(char(','), spaced(value)).parse(inside)?;
    match rest.strip_prefix(')') {
        Some(rest) => Ok((rest, values.into_iter().collect())),
        None => Trouble::of(rest, first_word(rest), SelectorProblem::ListOpen),
    }
}

fn spaced<'a, T>(
    parser: impl Parser<&'a str, Output = T, Error = Trouble<'a>>,
) -> impl Parser<&'a str, Output = T, Error = Trouble<'a>> {
    preceded(multispace0, terminated(parser, multispace0))
}

/// What kubectl takes as part of a word, before it looks whether the word is a good key or value.
fn is_word(c: char) -> bool {
    !c.is_whitespace() && !"=!(),<>".contains(c)
}

/// The length of the word that the text begins with, or else of its first character, so that a caret has something to stand under.
fn first_word(text: &str) -> usize {
    let word = text.len() - text.trim_start_matches(is_word).len();
    if word > 0 { word } else { text.chars().next().map_or(0, char::len_utf8) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selector(text: &str) -> Selector {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels(pairs.iter().copied().collect())
    }

    /// What is wrong with the text, and the part of it that is named.
    fn refused(text: &str) -> (SelectorProblem, &str) {
        let error = text.parse::<Selector>().expect_err(text);
        (error.problem, &text[error.span])
    }

    #[test]
    fn a_selector_that_no_labels_can_match_is_known() {
        let table = [
            ("rack=a, rack=b", Some("rack")),
            ("tier=x, rack in (a, b), rack notin (a, b, c)", Some("rack")),
            ("rack in (a, b), rack in (b, c), rack!=b", Some("rack")),
            ("gpu, !gpu", Some("gpu")),
            ("!rack, rack=a", Some("rack")),
            ("rack in (a, b), rack in (b, c)", None),
            ("rack in (a, b), rack!=a", None),
            ("!rack, rack!=a", None),
            ("gpu, gpu notin (a)", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Selector>().expect(text).impossible(), expected, "{text}");
        }
    }

    #[test]
    fn each_operator_matches_what_kubernetes_matches() {
        // selector, labels that it matches, labels that it does not match
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [(&'static str, &'static str)]);
        let table: [Case; 10] = [
            ("rack=a", &[("rack", "a")], &[("rack", "b")]),
            ("rack==a", &[("rack", "a"), ("other", "x")], &[]),
            ("rack!=a", &[("rack", "b")], &[("rack", "a")]),
            ("tier in (front, edge)", &[("tier", "edge")], &[("tier", "back")]),
            ("tier notin (front,edge)", &[("tier", "back")], &[("tier", "front")]),
            ("gpu", &[("gpu", "")], &[("cpu", "")]),
            ("!gpu", &[("cpu", "")], &[("gpu", "")]),
            ("rack=", &[("rack", "")], &[("rack", "a")]),
            ("rack=a,!gpu", &[("rack", "a")], &[("rack", "a"), ("gpu", "1")]),
            ("example.com/in in (in, notin)", &[("example.com/in", "notin")], &[("in", "in")]),
        ];
        for (text, yes, no) in table {
            assert!(selector(text).matches(&labels(yes)), "{text} matches {yes:?}");
            assert!(!selector(text).matches(&labels(no)), "{text} does not match {no:?}");
        }
    }

    #[test]
    fn a_missing_label_satisfies_the_negative_operators_only() {
        let none = Labels::default();
        for text in ["a!=b", "a notin (b, c)", "!a"] {
            assert!(selector(text).matches(&none), "{text} holds without the label");
        }
        for text in ["a=b", "a in (b, c)", "a", "a="] {
            assert!(!selector(text).matches(&none), "{text} does not hold without the label");
        }
    }

    #[test]
    fn space_is_free_and_the_printed_text_is_canonical() {
        let table = [
            ("  rack = a ,tier   in(front ,edge)  ", "rack=a, tier in (edge, front)"),
            ("a in (x)", "a=x"),
            ("a notin ( x , x )", "a!=x"),
            ("! gpu", "!gpu"),
            ("a in (b,)", "a in (, b)"),
            ("a==", "a="),
            ("in,notin", "in, notin"),
            ("a\n,\tb", "a, b"),
        ];
        for (text, canonical) in table {
            assert_eq!(selector(text).to_string(), canonical);
            assert_eq!(selector(canonical), selector(text), "{canonical} reads back");
        }
    }

    #[test]
    fn each_mistake_is_named_and_pointed_at() {
        use SelectorProblem as P;
        let operator = |key: &str| P::OperatorExpected { key: key.to_owned() };
        let table = [
            ("", P::Empty, ""),
            ("   ", P::Empty, "   "),
            (",", P::KeyExpected, ","),
            ("a=b,", P::KeyExpected, ""),
            ("a=b,,c", P::KeyExpected, ","),
            ("=a", P::KeyExpected, "="),
            ("!", P::KeyExpected, ""),
            ("rack a", operator("rack"), "a"),
            ("rack within (a)", operator("rack"), "within"),
            ("rack (a)", operator("rack"), "("),
            ("a!b", operator("a"), "!"),
            ("size > 8", P::Comparison { operator: '>' }, ">"),
            ("tier in front", P::ListExpected, "front"),
            ("tier in", P::ListExpected, ""),
            ("tier in ( )", P::ListEmpty, "( )"),
            ("tier in (front, edge", P::ListOpen, ""),
            ("tier in (front edge)", P::ListOpen, "edge"),
            ("a=b c=d", P::CommaExpected, "c"),
            ("a=b=c", P::CommaExpected, "="),
            ("!a=b", P::CommaExpected, "="),
        ];
        for (text, problem, part) in table {
            assert_eq!(refused(text), (problem, part), "in {text:?}");
        }
    }

    #[test]
    fn keys_and_values_are_held_to_the_syntax_of_kubernetes() {
        let long = "x".repeat(64);
        let too_long = |text: &str| LabelError::TooLong { text: text.to_owned(), length: 64, most: 63 };
        let character = |text: &str, character| LabelError::Character { text: text.to_owned(), character };
        assert_eq!(check_label_key(&long), Err(too_long(&long)));
        assert_eq!(check_label_value(&long), Err(too_long(&long)));
        assert_eq!(check_label_key("-a"), Err(character("-a", '-')));
        assert_eq!(check_label_key("a/b/c"), Err(character("b/c", '/')));
        assert_eq!(check_label_key("Example.com/a"), Err(LabelError::Prefix("Example.com".to_owned())));
        assert_eq!(check_label_key("/a"), Err(LabelError::Prefix(String::new())));
        assert_eq!(check_label_key("a/"), Err(LabelError::Empty));
        assert_eq!(check_label_value("a."), Err(character("a.", '.')));
        assert_eq!(check_label_value("é"), Err(character("é", 'é')));
        assert_eq!(check_label_value(""), Ok(()));
        assert_eq!(check_label_key("node.kubernetes.io/A_b.c-9"), Ok(()));
        assert_eq!(refused("a=b, rack=-x").1, "-x", "the value in the middle is pointed at");
    }

    #[test]
    fn dns_labels_have_no_dots_and_dns_names_have_no_empty_labels() {
        assert!(is_dns_label("kube-system") && is_dns_name("a.b-c.d1"));
        for text in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!is_dns_label(text), "{text} is no DNS label");
        }
        for text in ["", ".", "a.", "a..b", "A.b", &"a.".repeat(130)] {
            assert!(!is_dns_name(text), "{text} is no DNS name");
        }
    }

    fn any_selector() -> impl Strategy<Value = String> {
        let key = "([a-z]{1,8}/)?[A-Za-z0-9]([-_.a-z0-9]{0,10}[a-z0-9])?";
        let value = "([A-Za-z0-9]([-_.a-z0-9]{0,10}[a-z0-9])?)?";
        let list = prop::collection::vec(value, 2..5).prop_map(|values| values.join(" , "));
        let operation = prop_oneof![
            Just(String::new()),
            (prop::sample::select(&["=", "==", " != "][..]), value).prop_map(|(op, value)| format!("{op}{value}")),
            (prop::sample::select(&["in", "notin"][..]), list).prop_map(|(op, list)| format!(" {op} ({list})")),
        ];
        prop::collection::vec((key, operation).prop_map(|(key, op)| format!("{key}{op}")), 1..5)
            .prop_map(|requirements| requirements.join(","))
    }

    proptest! {
        #[test]
        fn a_selector_reads_back_what_it_prints(text in any_selector()) {
            let first = selector(&text);
            prop_assert_eq!(selector(&first.to_string()), first);
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_span_inside_it(text in "[a-c/ =!(),<>\u{e9}in-]{0,24}") {
            if let Err(error) = text.parse::<Selector>() {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?} of {text:?}", error.span);
                prop_assert!(!error.hint().is_empty());
            }
        }
    }
}
