//! Reads the text of one manifest file into its objects. Floor 1.
//! A file counts as a whole: if it has one fault, nothing of the file is used.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::Spanned;

use crate::k8s::endpoints::EndpointSliceFields;
use crate::k8s::list::{Flaw, flatten, items_of, kind_of};
use crate::k8s::namespace::NamespaceFields;
use crate::k8s::node::NodeFields;
use crate::k8s::pod::PodFields;
use crate::k8s::raw::{Kind, Object};
use crate::k8s::service::ServiceFields;
use crate::names::{NamespaceName, NodeName, ObjectKey};
use crate::selector::Labels;
use crate::world::{EndpointSlice, Fact, Node, Pod, Service};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

impl Format {
    /// By the extension of the file's name; `None` for a file that is not a manifest, such as one whose name begins with a dot.
    pub fn of(file: &str) -> Option<Format> {
        let (stem, end) = file.rsplit_once('.')?;
        match end {
            _ if stem.is_empty() || file.starts_with('.') => None,
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// No object of a cluster has a longer name: it is a DNS subdomain at most.
const LONGEST_NAME: usize = 253;

/// What a Fact is about. The order is that in which Facts are told: Namespaces and Nodes before Services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Namespace(NamespaceName),
    Node(NodeName),
    Service(ObjectKey),
    EndpointSlice(ObjectKey),
    Pod(ObjectKey),
}

impl Subject {
    /// The Fact that the object holds this now. `None` if `content` is of another kind.
    pub fn says(&self, content: &Content) -> Option<Fact> {
        match (self, content) {
            (Subject::Namespace(key), Content::Namespace(it)) => Some(Fact::Namespace(key.clone(), Some(it.clone()))),
            (Subject::Node(key), Content::Node(it)) => Some(Fact::Node(key.clone(), Some(it.clone()))),
            (Subject::Service(key), Content::Service(it)) => Some(Fact::Service(key.clone(), Some(it.clone()))),
            (Subject::EndpointSlice(key), Content::EndpointSlice(it)) => {
                Some(Fact::EndpointSlice(key.clone(), Some(it.clone())))
            }
            (Subject::Pod(key), Content::Pod(it)) => Some(Fact::Pod(key.clone(), Some(it.clone()))),
            (Subject::Namespace(_) | Subject::Node(_) | Subject::Service(_), _) => None,
            (Subject::EndpointSlice(_) | Subject::Pod(_), _) => None,
        }
    }

    /// The Fact that the object is gone.
    pub fn gone(self) -> Fact {
        match self {
            Subject::Namespace(key) => NamespaceFields::gone(key),
            Subject::Node(key) => NodeFields::gone(key),
            Subject::Service(key) => ServiceFields::gone(key),
            Subject::EndpointSlice(key) => EndpointSliceFields::gone(key),
            Subject::Pod(key) => PodFields::gone(key),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Namespace(key) => write!(f, "Namespace {key}"),
            Subject::Node(key) => write!(f, "Node {key}"),
            Subject::Service(key) => write!(f, "Service {key}"),
            Subject::EndpointSlice(key) => write!(f, "EndpointSlice {key}"),
            Subject::Pod(key) => write!(f, "Pod {key}"),
        }
    }
}

/// What one object says. Two pointers in size, a tenth of a Fact: a folder keeps one for each of its objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Namespace(Arc<Labels>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Pod(Arc<Pod>),
}

impl Content {
    /// Whether this is a Service of type LoadBalancer.
    pub fn is_load_balancer(&self) -> bool {
        matches!(self, Content::Service(service) if service.load_balancer)
    }
}

/// One object: which, and what it says.
pub type Entry = (Subject, Content);

/// The object behind the Fact of a translator, or of a World of before; `None` for a Fact that is about no object of a manifest.
pub fn entry_of(fact: Fact) -> Option<Entry> {
    match fact {
        Fact::Namespace(key, Some(labels)) => Some((Subject::Namespace(key), Content::Namespace(labels))),
        Fact::Node(key, Some(node)) => Some((Subject::Node(key), Content::Node(node))),
        Fact::Service(key, Some(service)) => Some((Subject::Service(key), Content::Service(service))),
        Fact::EndpointSlice(key, Some(slice)) => Some((Subject::EndpointSlice(key), Content::EndpointSlice(slice))),
        Fact::Pod(key, Some(pod)) => Some((Subject::Pod(key), Content::Pod(pod))),
        _ => None,
    }
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Fault {
    /// From 1. If the text itself is sound but an object is not, the first line of the object's document.
    pub line: u64,
    pub problem: Flaw,
}

/// What a file says, in the order of the file, and the kinds in it that crier does not read.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    pub entries: Vec<Entry>,
    pub skipped: Vec<String>,
}

/// Reads a whole file.
pub fn read(text: &str, format: Format) -> Result<Contents, Fault> {
    let mut contents = Contents::default();
    for (line, document) in documents(text, format)? {
        take(document, &mut contents).map_err(|problem| Fault { line, problem })?;
    }
    Ok(contents)
}

/// The documents of a text, each with its first line.
fn documents(text: &str, format: Format) -> Result<Vec<(u64, Value)>, Fault> {
    let text = without_mark(text);
    match format {
        Format::Yaml => yaml(text),
        Format::Json => json(text),
    }
}

/// A text without the byte order mark that some editors put in front of it (RFC 8259 §8.1 lets a parser ignore it).
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// What the documents of a text hold, whatever that is.
pub fn values(text: &str, format: Format) -> Result<Vec<Value>, Fault> {
    Ok(documents(text, format)?.into_iter().map(|(_, value)| value).collect())
}

/// The objects of a text, of any kind, those of lists included. What is an object by its shape alone is one here: its kind and
/// version are not judged.
pub fn objects(text: &str, format: Format) -> Result<Vec<Value>, Fault> {
    let mut objects = Vec::new();
    for (line, document) in documents(text, format)? {
        flatten(document, &mut objects).map_err(|problem| Fault { line, problem })?;
    }
    Ok(objects)
}

fn yaml(text: &str) -> Result<Vec<(u64, Value)>, Fault> {
    // The library's limits against hostile files are below what a real folder may hold, and the file is the operator's own.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 100_000_000,
            max_events: 400_000_000,
        },
    };
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| Fault {
            line: error.location().map_or(1, |location| location.line()),
            problem: first_line(&error.without_snippet().to_string()).into(),
        })?;
    Ok(documents.into_iter().map(|document| (document.referenced.line(), document.value)).collect())
}

fn json(text: &str) -> Result<Vec<(u64, Value)>, Fault> {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let begin = stream.byte_offset();
        let begin = begin + text[begin..].len() - text[begin..].trim_start().len();
        match stream.next() {
            None => return Ok(documents),
            Some(Ok(document)) => documents.push((line_at(text, begin), document)),
            Some(Err(error)) => {
                let line = u64::try_from(error.line()).unwrap_or(1);
                return Err(Fault { line, problem: first_line(&error.to_string()).into() });
            }
        }
    }
}

fn line_at(text: &str, byte: usize) -> u64 {
    let before = text.bytes().take(byte).filter(|byte| *byte == b'\n').count();
    u64::try_from(before).unwrap_or(u64::MAX).saturating_add(1)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// One document: an object that is read, a list of objects, or something else.
fn take(document: Value, contents: &mut Contents) -> Result<(), Flaw> {
    let Some(kind) = kind_of(&document)? else { return Ok(()) };
    match kind.as_str() {
        ServiceFields::KIND => entry::<ServiceFields>(document, Subject::Service, contents),
        EndpointSliceFields::KIND => entry::<EndpointSliceFields>(document, Subject::EndpointSlice, contents),
        NodeFields::KIND => entry::<NodeFields>(document, Subject::Node, contents),
        NamespaceFields::KIND => entry::<NamespaceFields>(document, Subject::Namespace, contents),
        PodFields::KIND => entry::<PodFields>(document, Subject::Pod, contents),
        "List" | "ServiceList" | "EndpointSliceList" | "NodeList" | "NamespaceList" | "PodList" => {
            items_of(&kind, document)?.into_iter().try_for_each(|item| take(item, contents))
        }
        _ => {
            contents.skipped.push(kind);
            Ok(())
        }
    }
}

fn entry<K: Kind>(document: Value, subject: impl Fn(K::Key) -> Subject, contents: &mut Contents) -> Result<(), Flaw> {
    let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let expected = match K::GROUP {
        "" => K::VERSION.to_owned(),
        group => format!("{group}/{}", K::VERSION),
    };
    if version.is_empty() {
        return Err(format!("a {} has no apiVersion; write {expected}", K::KIND).into());
    }
    if version != expected {
        // A kind of another API group, such as Knative's Service, has only its name in common with ours.
        contents.skipped.push(format!("{} of \"{version}\"", K::KIND));
        return Ok(());
    }
    let object: Object<K> = serde_json::from_value(document).map_err(|error| format!("{}: {error}", K::KIND))?;
    if object.metadata.name.as_deref().is_none_or(str::is_empty) {
        return Err(format!("a {} has no metadata.name", K::KIND).into());
    }
    for name in object.metadata.name.iter().chain(&object.metadata.namespace) {
        // No API server has judged it.
        if name.len() > LONGEST_NAME || name.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/') {
            let shown: String = name.chars().take(LONGEST_NAME).collect();
            return Err(format!("a {} cannot be named {shown:?}", K::KIND).into());
        }
    }
    let subject = subject(K::key(&object.metadata));
    match K::translate(&object).map(|fact| fact.and_then(entry_of)) {
        Ok(Some(entry)) => contents.entries.push(entry),
        Ok(None) => contents.skipped.push(subject.to_string()),
        Err(fault) => return Err(format!("{subject}: {fault}").into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(text: &str, format: Format) -> Vec<String> {
        let contents = read(text, format).expect("a sound file");
        contents.entries.iter().map(|(subject, _)| subject.to_string()).collect()
    }

    fn fault(text: &str, format: Format) -> String {
        read(text, format).expect_err("a file with a fault").to_string()
    }

    const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_file() {
        let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {}}"#;
        for (text, format) in [(WEB, Format::Yaml), (json, Format::Json)] {
            assert_eq!(subjects(&format!("\u{feff}{text}"), format), subjects(text, format));
        }
        assert!(fault("\u{feff}{", Format::Json).starts_with("line 1: "));
    }

    #[test]
    fn a_file_may_hold_many_documents_of_all_kinds() {
        let text = format!(
            "# the shop\n---\n{WEB}---\n# nothing here\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
             ---\n{{apiVersion: v1, kind: Node, metadata: {{name: a}}}}\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: shop}}}}\n"
        );
        let expected = ["Service default/web", "EndpointSlice default/web-1", "Node a", "Namespace shop"];
        assert_eq!(subjects(&text, Format::Yaml), expected);
        assert_eq!(read(&text, Format::Yaml).unwrap().skipped, ["Deployment"]);
    }

    #[test]
    fn a_list_is_its_items() {
        let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: a}}, {apiVersion: v1, kind: ConfigMap}]}";
        assert_eq!(subjects(list, Format::Yaml), ["Node a"]);
        let typed =
            r#"{"apiVersion": "v1", "kind": "NodeList", "items": [{"apiVersion": "v1", "metadata": {"name": "a"}}]}"#;
        assert_eq!(subjects(typed, Format::Json), ["Node a"]);
        assert_eq!(subjects("{apiVersion: v1, kind: List}", Format::Yaml), [""; 0]);
    }

    #[test]
    fn json_may_hold_many_documents_too() {
        let one = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}"#;
        let two = one.replace("\"a\"", "\"b\"");
        assert_eq!(subjects(&format!("{one}\n\n{two}\n"), Format::Json), ["Node a", "Node b"]);
        assert_eq!(subjects("", Format::Json), [""; 0]);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "\n", "# only a comment\n", "---\n---\n"] {
            assert_eq!(subjects(text, Format::Yaml), [""; 0], "{text:?}");
        }
    }

    #[test]
    fn a_kind_of_another_group_is_not_ours() {
        let knative = WEB.replace("apiVersion: v1", "apiVersion: serving.knative.dev/v1");
        let contents = read(&knative, Format::Yaml).unwrap();
        assert!(contents.entries.is_empty());
        assert_eq!(contents.skipped, ["Service of \"serving.knative.dev/v1\""]);
    }

    #[test]
    fn a_fault_names_line_and_object() {
        let table = [
            (format!("{WEB}---\nkind: Service\n  name: [\n"), Format::Yaml, "line 7: "),
            (format!("{WEB}---\n{}", WEB.replace("80", "http")), Format::Yaml, "Service default/web: invalid type"),
            (format!("{WEB}---\n{}", WEB.replace("80", "http")), Format::Yaml, "line 6: "),
            (WEB.replace("{name: web}", "{namespace: shop}"), Format::Yaml, "a Service has no metadata.name"),
            (WEB.replace("apiVersion: v1", "kind: Service"), Format::Yaml, "duplicate"),
            (
                WEB.replace("{name: web}", "{name: \"a\\e[31m\"}"),
                Format::Yaml,
                "a Service cannot be named \"a\\u{1b}[31m\"",
            ),
            (
                WEB.replace("{name: web}", "{name: web, namespace: x/y}"),
                Format::Yaml,
                "a Service cannot be named \"x/y\"",
            ),
            (WEB.replace("web", &"n".repeat(5000)), Format::Yaml, "a Service cannot be named \"nnn"),
            ("kind: Service\n".to_owned(), Format::Yaml, "a Service has no apiVersion; write v1"),
            ("metadata: {name: web}\n".to_owned(), Format::Yaml, "line 1: an object has no kind"),
            ("- a\n- b\n".to_owned(), Format::Yaml, "this is not an object"),
            ("kind: List\nitems: 5\n".to_owned(), Format::Yaml, "not a list"),
            ("{\n  \"kind\": \"Node\",\n}".to_owned(), Format::Json, "line 3: "),
            ("{\"kind\": \"x\"}\n\n\n{\"a\": 1}".to_owned(), Format::Json, "line 4: an object has no kind"),
        ];
        for (text, format, expected) in table {
            let seen = fault(&text, format);
            assert!(seen.contains(expected), "{expected} in: {seen}, of:\n{text}");
        }
    }

    #[test]
    fn a_folder_of_thousands_fits_in_one_file() {
        let text: String =
            (0..3000).map(|number| format!("---\n{}", WEB.replace("web", &format!("web-{number}")))).collect();
        assert_eq!(subjects(&text, Format::Yaml).len(), 3000);
    }

    #[test]
    fn only_manifests_are_read() {
        assert_eq!(Format::of("web.yaml"), Some(Format::Yaml));
        assert_eq!(Format::of("web.yml"), Some(Format::Yaml));
        assert_eq!(Format::of("web.json"), Some(Format::Json));
        for other in ["README.md", ".web.yaml", ".yaml", "web.yaml~", "web.yaml.swp", "..data", "yaml"] {
            assert_eq!(Format::of(other), None, "{other}");
        }
    }
}
