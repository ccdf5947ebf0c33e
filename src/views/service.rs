//! What `crier status` says of one Service. Floor 1.

use serde::{Deserialize, Serialize};

use crate::names::ObjectKey;
use crate::plan::decision::Decision;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceReport {
    pub name: ObjectKey,
    #[serde(flatten)]
    pub decision: Decision,
    /// The reasons above in words, as the table shows them.
    pub summary: String,
    /// What fields of the Service that crier leaves to others mean for its clients.
    #[serde(default)]
    pub remarks: Vec<String>,
}
