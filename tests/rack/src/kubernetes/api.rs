//! A client of the API server for tests: objects as JSON, over HTTPS, from inside the cluster's network.
//!
//! Objects are named `KIND/NAME` in the namespace `default` and `KIND/NAMESPACE/NAME` elsewhere, kinds in kubectl's
//! singular: `service/web`, `endpointslice/shop/web-1`, `node/node-1`.

use std::fmt;
use std::time::Instant;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::namespace::Namespace;
use crate::wait::{now, secs};

/// The kinds that tests speak of: as named here, as written in manifests, group and version, plural, whether it lives in
/// a namespace.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("configmap", "ConfigMap", "api/v1", "configmaps", true),
    ("endpoints", "Endpoints", "api/v1", "endpoints", true),
    ("event", "Event", "api/v1", "events", true),
    ("namespace", "Namespace", "api/v1", "namespaces", false),
    ("node", "Node", "api/v1", "nodes", false),
    ("pod", "Pod", "api/v1", "pods", true),
    ("secret", "Secret", "api/v1", "secrets", true),
    ("service", "Service", "api/v1", "services", true),
    ("serviceaccount", "ServiceAccount", "api/v1", "serviceaccounts", true),
    ("lease", "Lease", "apis/coordination.k8s.io/v1", "leases", true),
    ("servicecidr", "ServiceCIDR", "apis/networking.k8s.io/v1", "servicecidrs", false),
    ("ingress", "Ingress", "apis/networking.k8s.io/v1", "ingresses", true),
    ("ingressclass", "IngressClass", "apis/networking.k8s.io/v1", "ingressclasses", false),
    ("gatewayclass", "GatewayClass", "apis/gateway.networking.k8s.io/v1", "gatewayclasses", false),
    ("gateway", "Gateway", "apis/gateway.networking.k8s.io/v1", "gateways", true),
    ("httproute", "HTTPRoute", "apis/gateway.networking.k8s.io/v1", "httproutes", true),
    ("endpointslice", "EndpointSlice", "apis/discovery.k8s.io/v1", "endpointslices", true),
    ("clusterrole", "ClusterRole", "apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("clusterrolebinding", "ClusterRoleBinding", "apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("role", "Role", "apis/rbac.authorization.k8s.io/v1", "roles", true),
    ("rolebinding", "RoleBinding", "apis/rbac.authorization.k8s.io/v1", "rolebindings", true),
];

/// Connections kept open between requests: as many as threads use one [`Api`] side by side.
const IDLE_CONNECTIONS: usize = 16;

/// What the API server answered when it did not do what it was asked, or that it did not answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

/// A client with all rights.
#[derive(Clone)]
pub struct Api {
    agent: Agent,
    url: String,
    token: String,
    namespace: Namespace,
}

impl Api {
    /// `authority` is the PEM certificate that signed the server's; `namespace` is where connections are opened from.
    pub(crate) fn new(url: &str, token: &str, authority: &str, namespace: &Namespace) -> Api {
        let authority = Certificate::from_pem(authority.as_bytes()).expect("the rack's own certificate is PEM");
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
        let config = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
        let config = config.max_idle_connections_per_host(IDLE_CONNECTIONS);
        let agent = config.timeout_global(Some(secs(30))).build().new_agent();
        Api { agent, url: url.into(), token: token.into(), namespace: namespace.clone() }
    }

    /// One request: `path` begins with a slash and holds the query, `body` has the content type given with it.
    pub fn call(&self, method: Method, path: &str, body: Option<(&str, String)>) -> Result<Value, Refusal> {
        self.timed_call(method, path, body).map(|(value, _)| value)
    }

    /// The same, with the moment at which the head of the answer was here.
    fn timed_call(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> Result<(Value, Instant), Refusal> {
        let silent = |error: &dyn fmt::Display| Refusal { status: 0, message: error.to_string() };
        let (content_type, body) = body.unwrap_or_default();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        request = request.header("Authorization", format!("Bearer {}", self.token));
        if !content_type.is_empty() {
            request = request.header("Content-Type", content_type);
        }
        let answer = self.namespace.run(|| {
            // Without a body there must be none at all: the client refuses an empty one with some methods.
            let mut answer = if content_type.is_empty() {
                self.agent.run(request.body(()).map_err(|error| silent(&error))?)
            } else {
                self.agent.run(request.body(body).map_err(|error| silent(&error))?)
            }
            .map_err(|error| silent(&error))?;
            let answered = now();
            let text = answer.body_mut().with_config().limit(1 << 30).read_to_string();
            Ok((answer.status().as_u16(), text.map_err(|error| silent(&error))?, answered))
        });
        let (status, text, answered) = answer?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if (200..300).contains(&status) {
            return Ok((value, answered));
        }
        let message = value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(Refusal { status, message })
    }

    /// Applies every document of a YAML text (server-side, by force, as field manager `rack`); returns the objects.
    ///
    /// # Panics
    /// When one is refused or of a kind the rack does not know.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Vec<Value> {
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("this is no YAML: {error}\n{yaml}"));
        let apply = |object: &Value| {
            self.try_apply(object).unwrap_or_else(|refusal| panic!("could not apply: {refusal}\n{object:#}"))
        };
        objects.iter().filter(|object| !object.is_null()).map(apply).collect()
    }

    /// Applies one object, as [`apply`](Self::apply) does.
    #[track_caller]
    pub fn try_apply(&self, object: &Value) -> Result<Value, Refusal> {
        let path = format!("{}?fieldManager=rack&force=true", path_of_object(object));
        // JSON is YAML.
        self.call(Method::PATCH, &path, Some(("application/apply-patch+yaml", object.to_string())))
    }

    /// Creates one object; refused if it is there already. `generateName` works here.
    #[track_caller]
    pub fn create(&self, object: &Value) -> Result<Value, Refusal> {
        self.timed_create(object).map(|(object, _)| object)
    }

    /// The same, with the moment at which the answer was here, for those who measure from there.
    #[track_caller]
    pub fn timed_create(&self, object: &Value) -> Result<(Value, Instant), Refusal> {
        let path = path_of_object(object);
        let collection = path.rsplit_once('/').map_or(&*path, |(collection, _)| collection);
        self.timed_call(Method::POST, collection, Some(("application/json", object.to_string())))
    }

    /// The object, or `None` if there is none of that name.
    ///
    /// # Panics
    /// When the API server does not answer or refuses.
    #[track_caller]
    pub fn get(&self, reference: &str) -> Option<Value> {
        match self.call(Method::GET, &path_of(reference), None) {
            Ok(object) => Some(object),
            Err(Refusal { status: 404, .. }) => None,
            Err(refusal) => panic!("could not get {reference}: {refusal}"),
        }
    }

    /// All objects of a kind in all namespaces; `selector` is a label selector, or empty.
    #[track_caller]
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let (_, _, group, plural, _) = kind_of(kind);
        let selector = selector.replace('=', "%3D").replace(',', "%2C").replace(' ', "%20");
        let path = format!("/{group}/{plural}?labelSelector={selector}");
        let list = self.call(Method::GET, &path, None);
        let list = list.unwrap_or_else(|refusal| panic!("could not list {plural}: {refusal}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Merges `patch` into an object (RFC 7386: `null` removes).
    #[track_caller]
    pub fn patch(&self, reference: &str, patch: &Value) -> Value {
        self.patch_path(&path_of(reference), patch)
    }

    /// [`patch`](Self::patch) for the `status` subresource.
    #[track_caller]
    pub fn patch_status(&self, reference: &str, status: &Value) -> Value {
        self.patch_path(&format!("{}/status", path_of(reference)), &json!({ "status": status }))
    }

    #[track_caller]
    fn patch_path(&self, path: &str, patch: &Value) -> Value {
        let answer = self.call(Method::PATCH, path, Some(("application/merge-patch+json", patch.to_string())));
        answer.unwrap_or_else(|refusal| panic!("could not patch {path}: {refusal}\n{patch:#}"))
    }

    /// Deletes an object at once (no grace period); nothing happens if there is none.
    #[track_caller]
    pub fn delete(&self, reference: &str) {
        match self.call(Method::DELETE, &format!("{}?gracePeriodSeconds=0", path_of(reference)), None) {
            Ok(_) | Err(Refusal { status: 404, .. }) => {}
            Err(refusal) => panic!("could not delete {reference}: {refusal}"),
        }
    }

    /// The Events about an object, as `(type, reason, message)`, in the order of their creation.
    #[track_caller]
    pub fn events(&self, kind: &str, name: &str) -> Vec<(String, String, String)> {
        let of_object = |event: &&Value| {
            let object = &event["involvedObject"];
            object["kind"] == kind_of(kind).1 && object["name"] == name
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut events = self.list("event", "");
        events.sort_by_key(|event| text(&event["metadata"]["creationTimestamp"]));
        let triple = |event: &Value| (text(&event["type"]), text(&event["reason"]), text(&event["message"]));
        events.iter().filter(of_object).map(triple).collect()
    }

    /// The addresses in a Service's `status.loadBalancer.ingress`.
    #[track_caller]
    pub fn ingress(&self, service: &str) -> Vec<String> {
        let object = self.get(service).unwrap_or_default();
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        ingress.iter().filter_map(|entry| Some(entry["ip"].as_str()?.to_owned())).collect()
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

#[track_caller]
fn kind_of(kind: &str) -> (&'static str, &'static str, &'static str, &'static str, bool) {
    let found = KINDS.iter().find(|(name, manifest, ..)| *name == kind || *manifest == kind);
    *found.unwrap_or_else(|| panic!("the rack knows no kind {kind}; add it to KINDS"))
}

#[track_caller]
fn path_of(reference: &str) -> String {
    let parts: Vec<&str> = reference.split('/').collect();
    let (_, _, group, plural, in_namespace) = kind_of(parts[0]);
    match (in_namespace, &parts[1..]) {
        (true, [name]) => format!("/{group}/namespaces/default/{plural}/{name}"),
        (true, [namespace, name]) => format!("/{group}/namespaces/{namespace}/{plural}/{name}"),
        (false, [name]) => format!("/{group}/{plural}/{name}"),
        _ => panic!("{reference} is not KIND/NAME or KIND/NAMESPACE/NAME"),
    }
}

#[track_caller]
fn path_of_object(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_else(|| panic!("an object without kind: {object:#}"));
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    match kind_of(kind) {
        (kind, .., true) => path_of(&format!("{kind}/{}/{name}", metadata["namespace"].as_str().unwrap_or("default"))),
        (kind, .., false) => path_of(&format!("{kind}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_the_api_servers_paths() {
        assert_eq!(path_of("service/web"), "/api/v1/namespaces/default/services/web");
        assert_eq!(
            path_of("lease/kube-system/crier"),
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/crier"
        );
        assert_eq!(path_of("node/node-1"), "/api/v1/nodes/node-1");
        let object = json!({ "kind": "EndpointSlice", "metadata": { "name": "a", "namespace": "shop" } });
        assert_eq!(path_of_object(&object), "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/a");
    }
}
