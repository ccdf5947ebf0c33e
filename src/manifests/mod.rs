//! Services, EndpointSlices, Nodes and Namespaces from a folder of YAML and JSON, for an agent without an API server.
//! The objects are those of Kubernetes, read by the translators of `k8s`, and become the same Facts.
//! Floor 1; `folder` is floor 2.

// Floor 1: what one file says, and what all files say together.
pub mod document;
pub mod scene;

// Floor 2: the folder itself.
pub mod folder;
