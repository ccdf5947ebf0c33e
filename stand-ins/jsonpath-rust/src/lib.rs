//! Stands in for the crate of this name. kube reads JSONPath for the `auth-provider` of a kubeconfig and for nothing else, and crier
//! refuses a kubeconfig with one (`src/k8s/client.rs`). What is not called here would bring a parser and an engine for regular
//! expressions into the binary.

use serde_json::Value;

/// As kube calls it.
pub trait JsonPath {
    /// # Errors
    /// Always: there is no JSONPath here.
    fn query(&self, path: &str) -> Result<Vec<&Value>, String>;
}

impl JsonPath for Value {
    fn query(&self, path: &str) -> Result<Vec<&Value>, String> {
        Err(format!("crier does not read the path {path:?} of an auth-provider: use a token, a tokenFile or a client certificate"))
    }
}
