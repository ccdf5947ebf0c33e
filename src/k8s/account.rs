//! What `crier kubeconfig` needs of the API server: an account with its rights, and a credential for it. Floor 2.
//! It creates what is missing and changes nothing that is there.

use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::ask::{Asker, RequestError};
use super::base64;
use super::certificate_request::{self, KeyAndRequest, KeyError};
use super::node_kubeconfig::Credential;
use crate::names::ObjectKey;
use crate::secret::Secret;

/// Whether an object had to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Was {
    Created,
    There,
}

/// Why there is no credential. Objects that were created by then stay; the next run uses them.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("crier does not know where objects of kind {0} belong")]
    Kind(String),
    #[error(
        "the Secret {0} has no token after {seconds} s; kube-controller-manager fills it in (serviceaccount-token): see whether it runs, or use --lifetime",
        seconds = PATIENCE.as_secs()
    )]
    NoToken(ObjectKey),
    #[error("the Secret {secret} has the type {kind:?}, not {TOKEN_TYPE}; delete it, or use --lifetime")]
    OtherSecret { secret: ObjectKey, kind: String },
    #[error(
        "the CertificateSigningRequest {0} is approved and has no certificate after {seconds} s; kube-controller-manager signs it (csrsigning): see whether it runs with --cluster-signing-cert-file",
        seconds = PATIENCE.as_secs()
    )]
    NotSigned(String),
    #[error("the API server does not accept the token that it gave to the account {0}: {1}")]
    TokenRefused(ObjectKey, String),
}

/// How long the controllers may take to fill in a token or sign a certificate.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Creates the objects that are missing, in their order. Returns each with its name for people.
pub async fn ensure(asker: &Asker, objects: &[Value]) -> Result<Vec<(String, Was)>, AccountError> {
    let mut done = Vec::new();
    for object in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let (name, namespace) = (&object["metadata"]["name"], object["metadata"]["namespace"].as_str());
        let path = collection(kind, namespace).ok_or_else(|| AccountError::Kind(kind.to_owned()))?;
        let was = match asker.create(&path, object).await? {
            Some(_) => Was::Created,
            None => Was::There,
        };
        let place = namespace.map_or(String::new(), |namespace| format!("{namespace}/"));
        done.push((format!("{kind} {place}{}", name.as_str().unwrap_or_default()), was));
    }
    Ok(done)
}

/// Where objects of the kinds in `crier rbac` are created.
fn collection(kind: &str, namespace: Option<&str>) -> Option<String> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    match (kind, namespace) {
        ("ServiceAccount", Some(namespace)) => Some(format!("/api/v1/namespaces/{namespace}/serviceaccounts")),
        ("Secret", Some(namespace)) => Some(format!("/api/v1/namespaces/{namespace}/secrets")),
        ("ClusterRole", None) => Some(format!("{rbac}/clusterroles")),
        ("ClusterRoleBinding", None) => Some(format!("{rbac}/clusterrolebindings")),
        ("Role", Some(namespace)) => Some(format!("{rbac}/namespaces/{namespace}/roles")),
        ("RoleBinding", Some(namespace)) => Some(format!("{rbac}/namespaces/{namespace}/rolebindings")),
        _ => None,
    }
}

/// The token in a Secret of the account, which does not expire. A controller fills it in, so a new Secret is waited for.
pub async fn lasting_token(asker: &Asker, secret: &ObjectKey) -> Result<Credential, AccountError> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", secret.namespace, secret.name);
    let look = async || {
        let Some(object) = asker.get(&path).await? else { return Ok(None) };
        let kind = object["type"].as_str().unwrap_or_default();
        if kind != TOKEN_TYPE {
            return Err(AccountError::OtherSecret { secret: secret.clone(), kind: kind.to_owned() });
        }
        Ok(octets(&object["data"]["token"]))
    };
    let token = until_there(look).await?.ok_or_else(|| AccountError::NoToken(secret.clone()))?;
    Ok(Credential::Token(Secret::from(&token[..])))
}

/// A token of the account that expires, and when by the API server, which may grant less than was asked for.
pub async fn passing_token(
    asker: &Asker,
    account: &ObjectKey,
    lifetime: Duration,
) -> Result<(Credential, String), AccountError> {
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", account.namespace, account.name);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "expirationSeconds": lifetime.as_secs() },
    });
    let answer = asker.post(&path, &request).await?;
    let lacking = |field| RequestError::Lacking { method: http::Method::POST, path: path.clone(), field };
    let token = answer["status"]["token"].as_str().ok_or_else(|| lacking("status.token"))?;
    let until =
        answer["status"]["expirationTimestamp"].as_str().ok_or_else(|| lacking("status.expirationTimestamp"))?;
    Ok((Credential::Token(Secret::from(token.as_bytes())), until.to_owned()))
}

/// A client certificate for this user in this group: asked for, approved with the administrator's rights, and signed by the
/// cluster. Returns the name of the CertificateSigningRequest too.
pub async fn certificate(
    asker: &Asker,
    user: &str,
    group: &str,
    name: &str,
    lifetime: Option<Duration>,
) -> Result<(Credential, String), AccountError> {
    let KeyAndRequest { key, request } = certificate_request::draw(user, group)?;
    let mut object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "generateName": format!("{name}-") },
        "spec": {
            "request": base64(request.as_bytes()),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        },
    });
    if let Some(lifetime) = lifetime {
        object["spec"]["expirationSeconds"] = lifetime.as_secs().into();
    }
    let mut made = asker.post(REQUESTS, &object).await?;
    let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = format!("{REQUESTS}/{name}");
    let approved = json!({ "conditions": [{
        "type": "Approved", "status": "True", "reason": "CrierKubeconfig",
        "message": "asked for and approved by crier kubeconfig",
    }]});
    let lacking = || RequestError::Lacking { method: http::Method::POST, path: REQUESTS.to_owned(), field: "metadata" };
    made.as_object_mut().ok_or_else(lacking)?.insert("status".to_owned(), approved);
    asker.put(&format!("{path}/approval"), &made).await?;
    let look = async || {
        let object = asker.get(&path).await?;
        Ok(object.and_then(|object| octets(&object["status"]["certificate"])))
    };
    let certificate = until_there(look).await?.ok_or_else(|| AccountError::NotSigned(name.clone()))?;
    Ok((Credential::Certificate { certificate, key }, name))
}

/// The certificates that pods of this namespace know the API server by, PEM.
pub async fn authority(asker: &Asker, namespace: &str) -> Result<Option<Vec<u8>>, AccountError> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt");
    let object = asker.get(&path).await?;
    Ok(object.and_then(|object| object["data"]["ca.crt"].as_str().map(|text| text.as_bytes().to_vec())))
}

/// Asks the API server whom it takes the bearer of a token for; an error unless it is the account.
pub async fn check_token(asker: &Asker, token: &Secret, account: &ObjectKey) -> Result<(), AccountError> {
    let token = String::from_utf8_lossy(token.expose());
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let answer = asker.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
    let status = &answer["status"];
    let user = status["user"]["username"].as_str().unwrap_or_default();
    if status["authenticated"] == true && user == user_of(account) {
        return Ok(());
    }
    let why = status["error"].as_str().map_or_else(|| format!("it is taken for the user {user:?}"), str::to_owned);
    Err(AccountError::TokenRefused(account.clone(), why))
}

/// The name by which the API server knows a service account.
pub fn user_of(account: &ObjectKey) -> String {
    format!("system:serviceaccount:{}:{}", account.namespace, account.name)
}

/// Which of the rights in these Roles and ClusterRoles the user does not have, in words. Rights of a new role may take the API
/// server a moment to see.
pub async fn lacking_rights(
    asker: &Asker,
    user: &str,
    groups: &[&str],
    objects: &[Value],
) -> Result<Vec<String>, AccountError> {
    let mut lacking = Vec::new();
    for (words, attributes) in objects.iter().flat_map(rights) {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": { "user": user, "groups": groups, "resourceAttributes": attributes },
        });
        let look = async || {
            let answer = asker.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
            Ok((answer["status"]["allowed"] == true).then_some(()))
        };
        // Only the first denial is worth waiting for: all rights arrive together.
        let allowed = if lacking.is_empty() { until_there(look).await? } else { look().await? };
        if allowed.is_none() {
            lacking.push(words);
        }
    }
    Ok(lacking)
}

/// Each right of a Role or ClusterRole: in words, and as a review asks for it.
fn rights(object: &Value) -> Vec<(String, Value)> {
    let is_role = object["kind"] == "Role" || object["kind"] == "ClusterRole";
    let namespace = object["metadata"]["namespace"].as_str();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut rights = Vec::new();
    for rule in object["rules"].as_array().into_iter().flatten().filter(|_| is_role) {
        let mut names: Vec<Option<String>> = texts(&rule["resourceNames"]).into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        let resources = texts(&rule["resources"]);
        for group in texts(&rule["apiGroups"]) {
            for resource in &resources {
                for verb in texts(&rule["verbs"]) {
                    for name in &names {
                        let (plain, below) = resource.split_once('/').unwrap_or((resource, ""));
                        let which = name.as_ref().map_or(String::new(), |name| format!(" {name}"));
                        let place = namespace.map_or(String::new(), |namespace| format!(" in {namespace}"));
                        let attributes = json!({
                            "group": group, "resource": plain, "subresource": below, "verb": verb,
                            "namespace": namespace.unwrap_or_default(), "name": name.clone().unwrap_or_default(),
                        });
                        rights.push((format!("{verb} {resource}{which}{place}"), attributes));
                    }
                }
            }
        }
    }
    rights
}

/// Looks until something is there, for as long as controllers may take.
async fn until_there<T>(look: impl AsyncFn() -> Result<Option<T>, AccountError>) -> Result<Option<T>, AccountError> {
    let looking = async {
        loop {
            match look().await {
                Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
                found => return found,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or(Ok(None))
}

/// Octets in base64; `None` if there are none.
fn octets(value: &Value) -> Option<Vec<u8>> {
    let ByteString(octets) = serde_json::from_value(value.clone()).ok()?;
    (!octets.is_empty()).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_of_a_role_is_asked_for_by_itself() {
        let role = json!({
            "kind": "Role", "metadata": { "name": "crier", "namespace": "kube-system" },
            "rules": [
                { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"] },
                { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["crier"], "verbs": ["get", "update"] },
            ],
        });
        let cluster_role = json!({
            "kind": "ClusterRole", "metadata": { "name": "crier" },
            "rules": [{ "apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"] }],
        });
        let words: Vec<String> = [role, cluster_role].iter().flat_map(rights).map(|(words, _)| words).collect();
        assert_eq!(
            words,
            [
                "create leases in kube-system",
                "get leases crier in kube-system",
                "update leases crier in kube-system",
                "patch services/status"
            ]
        );
        let status = json!({"kind": "ClusterRole", "rules": [{"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]}]});
        let (_, attributes) = rights(&status).remove(0);
        assert_eq!((&attributes["resource"], &attributes["subresource"]), (&json!("services"), &json!("status")));
        assert_eq!(rights(&json!({"kind": "Secret", "rules": [{"verbs": ["get"]}]})), [], "only roles give rights");
        assert_eq!(rights(&json!(["x"])), []);
    }
}
