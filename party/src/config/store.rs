//! The preprocessing store of a server.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spdz::channel::Role;

use super::error::ConfigError;
use super::limits;

/// The preprocessing store: how much prepared randomness may wait at a server, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Store {
    /// In memory, units of 2^20 bytes, 1 to 1048576. One evaluation's is always kept.
    pub memory_megabytes: u64,
    /// On disk, for what does not fit into memory, units of 2^20 bytes, 0 to 1048576.
    /// It is encrypted under a key that this process alone has.
    pub disk_megabytes: u64,
    /// The folder for what is on disk, which is there and this server's alone; needed
    /// with `diskMegabytes` and not without. What an earlier process left there is removed,
    /// but for empty files that tell which sessions were run: none is run twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self { memory_megabytes: 1024, disk_megabytes: 0, folder: None }
    }
}

impl Store {
    /// A store in memory alone.
    #[must_use]
    pub fn in_memory(megabytes: u64) -> Self {
        Self { memory_megabytes: megabytes, ..Self::default() }
    }

    pub(super) fn check(&self, role: Role) -> Result<(), ConfigError> {
        limits::STORE_MEMORY_MEGABYTES.check("store.memoryMegabytes", self.memory_megabytes)?;
        limits::STORE_DISK_MEGABYTES.check("store.diskMegabytes", self.disk_megabytes)?;
        let problem = match (self.disk_megabytes > 0, self.folder.is_some()) {
            (true, false) => "needs `store.folder` for its `store.diskMegabytes`",
            (false, true) => "has `store.folder`, but no `store.diskMegabytes` to keep there",
            _ => return Ok(()),
        };
        Err(ConfigError::Section { role, problem: problem.into() })
    }
}
