//! Life without an API server: Services, EndpointSlices, Nodes and Namespaces from a folder of YAML and JSON.
//! The objects are those of Kubernetes, read by the translators of `k8s`, and become the same Facts.
//! Floor 1; `folder` is floor 2.

// Floor 1: what a file says, and what all of them say together.
pub mod document;
pub mod scene;

// Floor 2: the folder itself.
pub mod folder;
