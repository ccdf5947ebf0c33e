//! What the pods of other load balancers are started with, as far as it says which Services they serve: `--lb-class` of MetalLB,
//! `--lbClassOnly` and `lb_class_only` of kube-vip. Floor 1. Not for what the file says of it; `services` knows that.

use serde_json::Value;

use super::kube_vip;
use super::object::Object;
use super::shown::shortened;
use crate::selector::check_label_key;

/// A class that another load balancer was told on its command line, or by its environment.
pub(super) struct ToldClass {
    pub at: usize,
    pub object: String,
    /// What stands there where that is no class: nobody can tell which one it is.
    pub class: Result<String, String>,
}

/// Of all workloads, and of what MetalLB's operator is told. Each class once.
pub(super) fn told_classes(objects: &[Object]) -> Vec<ToldClass> {
    let mut all: Vec<ToldClass> = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        for class in classes_of(object) {
            if !all.iter().any(|told| told.class == class) {
                all.push(ToldClass { at, object: object.label(), class });
            }
        }
    }
    all
}

fn classes_of(object: &Object) -> Vec<Result<String, String>> {
    let containers = match object.kind.as_str() {
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" => "/spec/template/spec/containers",
        // kube-vip's on the control plane is a static one.
        "Pod" => "/spec/containers",
        "MetalLB" => {
            let told = object.value.pointer("/spec/loadBalancerClass").and_then(Value::as_str);
            return told.filter(|class| !class.is_empty()).map(checked).into_iter().collect();
        }
        _ => return Vec::new(),
    };
    let containers = object.value.pointer(containers).and_then(Value::as_array);
    containers.into_iter().flatten().filter_map(class_of_container).collect()
}

/// `None` where it serves Services whatever their class.
fn class_of_container(container: &Value) -> Option<Result<String, String>> {
    let environment = Environment::of(container);
    let words = words(container, &environment);
    let told = match class_of_words(&words) {
        // MetalLB and kube-vip take an empty one for none.
        Some(class) => Some(class).filter(|class| !class.is_empty()),
        None => environment.class(),
    };
    told.map(|class| checked(&class))
}

fn checked(class: &str) -> Result<String, String> {
    match check_label_key(class) {
        Ok(()) => Ok(class.to_owned()),
        Err(_) => Err(shortened(class)),
    }
}

/// The command and its arguments, also those of a shell within one of them, with the values of variables in their places.
fn words(container: &Value, environment: &Environment<'_>) -> Vec<String> {
    let texts =
        |key: &str| container.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut words = Vec::new();
    for word in texts("command").chain(texts("args")) {
        let is_script = !word.starts_with('-') && word.contains(char::is_whitespace);
        match is_script {
            true => {
                words.extend(word.split_whitespace().map(|part| environment.expanded(&part.replace(['"', '\''], ""))))
            }
            false => words.push(environment.expanded(word)),
        }
    }
    words
}

fn class_of_words(words: &[String]) -> Option<String> {
    let value = |flag: &str| {
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix('-')?.trim_start_matches('-') {
            name if name == flag => Some(words.get(at.saturating_add(1)).map_or("", String::as_str)),
            word => word.strip_prefix(flag)?.strip_prefix('='),
        })
    };
    if let Some(class) = value("lb-class") {
        return Some(class.to_owned());
    }
    let is_bound = words
        .iter()
        .filter_map(|word| word.strip_prefix("--lbClassOnly"))
        .any(|rest| rest.is_empty() || rest.strip_prefix('=').is_some_and(|value| kube_vip::TRUE.contains(&value)));
    is_bound.then(|| value("lbClassName").unwrap_or(kube_vip::CLASS).to_owned())
}

/// The variables of a container, as far as they stand in it.
struct Environment<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Environment<'a> {
    fn of(container: &'a Value) -> Environment<'a> {
        let all = container.get("env").and_then(Value::as_array).into_iter().flatten();
        let variable = |it: &'a Value| {
            let name = it.get("name")?.as_str()?;
            // Where the value is in another object it is not known.
            let value = if it.get("valueFrom").is_some() { None } else { Some(it.get("value")) };
            Some((name, value.map(|value| value.and_then(Value::as_str).unwrap_or_default())))
        };
        Environment(all.filter_map(variable).collect())
    }

    /// Of two of one name the later counts.
    fn get(&self, name: &str) -> Option<Option<&'a str>> {
        self.0.iter().rev().find(|(of, _)| *of == name).map(|(_, value)| *value)
    }

    /// `$(NAME)` is the value of that variable; what is not known stays as it is, as Kubernetes leaves it.
    fn expanded(&self, word: &str) -> String {
        let (mut text, mut rest) = (String::new(), word);
        while let Some((before, after)) = rest.split_once("$(") {
            text += before;
            let known = after.split_once(')').and_then(|(name, behind)| Some((self.get(name)??, behind)));
            match known {
                Some((value, behind)) => {
                    text += value;
                    rest = behind;
                }
                None => {
                    text += "$(";
                    rest = after;
                }
            }
        }
        text + rest
    }

    /// The class that kube-vip is bound to by its variables.
    fn class(&self) -> Option<String> {
        let elsewhere = |name: &str| format!("$({name})");
        match self.get("lb_class_only")? {
            None => return Some(elsewhere("lb_class_only")),
            Some(value) if !kube_vip::TRUE.contains(&value) => return None,
            Some(_) => {}
        }
        match self.get("lb_class_name") {
            Some(None) => Some(elsewhere("lb_class_name")),
            Some(Some(name)) if !name.is_empty() => Some(name.to_owned()),
            Some(Some(_)) | None => Some(kube_vip::CLASS.to_owned()),
        }
    }
}
