//! Lists of objects of any kind, as the API server and `kubectl get -o yaml` write them. Floor 1.

use serde_json::Value;

/// Why a document cannot be taken for objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("an object has no kind")]
    NoKind,
    #[error("{0}")]
    Other(String),
}

impl From<String> for Flaw {
    fn from(problem: String) -> Flaw {
        Flaw::Other(problem)
    }
}

/// The objects of one document: itself, or those of the list that it is.
pub fn objects_in(document: Value) -> Result<Vec<Value>, Flaw> {
    let mut objects = Vec::new();
    flatten(document, &mut objects).map(|()| objects)
}

pub fn flatten(document: Value, objects: &mut Vec<Value>) -> Result<(), Flaw> {
    let Some(kind) = kind_of(&document)? else { return Ok(()) };
    if !kind.ends_with("List") {
        objects.push(document);
        return Ok(());
    }
    items_of(&kind, document)?.into_iter().try_for_each(|item| flatten(item, objects))
}

/// The kind of a document; `None` if it is empty, or has nothing but comments.
pub fn kind_of(document: &Value) -> Result<Option<String>, Flaw> {
    match (document.get("kind").and_then(Value::as_str), document) {
        (Some(kind), _) => Ok(Some(kind.to_owned())),
        (None, Value::Null) => Ok(None),
        (None, Value::Object(_)) => Err(Flaw::NoKind),
        (None, _) => Err("this is not an object".to_owned().into()),
    }
}

/// The items of a list, each with its kind.
pub fn items_of(kind: &str, document: Value) -> Result<Vec<Value>, Flaw> {
    let Value::Object(mut list) = document else { return Err("this is not an object".to_owned().into()) };
    let mut items = match list.remove("items") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("the items of the {kind} are not a list").into()),
    };
    // The items of a typed list need not repeat kind and version.
    if let Some(of) = kind.strip_suffix("List").filter(|of| !of.is_empty()) {
        let version = list.remove("apiVersion");
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.entry("kind").or_insert_with(|| Value::from(of));
            if let Some(version) = &version {
                item.entry("apiVersion").or_insert_with(|| version.clone());
            }
        }
    }
    Ok(items)
}
