//! FRR as a router.

use std::path::PathBuf;

/// Where Debian puts FRR's daemons.
pub fn folder() -> PathBuf {
    "/usr/lib/frr".into()
}
