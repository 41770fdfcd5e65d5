//! `results.json`: what a benchmark measured, and on what.

use std::path::{Path, PathBuf};

use party::files::write_whole;
use party::result::RunResult;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;

/// The version of the schema.
pub const SCHEMA_VERSION: u32 = 2;

/// A `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The machine and the build.
    pub environment: Environment,
    /// One entry for each network and format.
    pub runs: Vec<RunResult>,
}

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: std::io::Error,
}

impl Results {
    /// Writes `results.json` into `folder`, which is made if it is not there.
    /// Returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, WriteError> {
        let path = folder.join("results.json");
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut json = serde_json::to_string_pretty(self)?;
            json.push('\n');
            write_whole(&path, json.as_bytes())
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => Err(WriteError { path, source }),
        }
    }
}
