//! `results.json`: what a benchmark measured, and on what.

use std::path::{Path, PathBuf};

use party::files::write_whole;
use party::result::RunResult;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::environment::Environment;
use crate::floor::Speeds;

/// The version of the schema.
pub const SCHEMA_VERSION: u32 = 3;

/// A `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The machine and the build.
    pub environment: Environment,
    /// What the floors come from, measured just before the runs.
    pub speeds: Speeds,
    /// One entry for each network and format.
    pub runs: Vec<Cell>,
}

/// A run and what it is measured against; one object, the floor beside the run's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Map<String, Value>")]
pub struct Cell {
    /// What was measured.
    #[serde(flatten)]
    pub run: RunResult,
    /// What the messages and products within `combined` alone would take (see
    /// [`floor`](crate::floor)), milliseconds.
    pub floor_ms: f64,
}

impl Cell {
    /// How many times the floor the mean runtime is.
    #[must_use]
    pub fn times_floor(&self) -> f64 {
        self.run.combined.mean_ms / self.floor_ms
    }
}

// A derived implementation would let pass keys that nobody knows.
impl TryFrom<Map<String, Value>> for Cell {
    type Error = serde_json::Error;

    fn try_from(mut object: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let floor = object.remove("floorMs");
        let floor_ms = floor.ok_or_else(|| serde_json::Error::missing_field("floorMs"))?;
        Ok(Self {
            floor_ms: serde_json::from_value(floor_ms)?,
            run: serde_json::from_value(Value::Object(object))?,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use party::config::OfflineMode;
    use party::result::Latency;
    use spdz::plan::{NumberFormat, Truncation};

    #[test]
    fn a_cell_is_one_object_without_unknown_keys() {
        let run = RunResult {
            network: "A".into(),
            format: NumberFormat::Int64,
            truncation: Truncation::Local,
            batch_size: 1,
            repetitions: 2,
            offline_mode: OfflineMode::Inline,
            combined: Latency { mean_ms: 3.0, ..Latency::default() },
            online: Latency::default(),
            offline: Latency::default(),
            online_bytes: 4,
            offline_bytes: 5,
            online_rounds: 6,
            accuracy: None,
        };
        let cell = Cell { run, floor_ms: 1.5 };
        assert_eq!(cell.times_floor(), 2.0);
        let mut object = serde_json::to_value(&cell).unwrap();
        assert_eq!((&object["network"], &object["floorMs"]), (&"A".into(), &1.5.into()));
        let read = |object: &Value| serde_json::from_value::<Cell>(object.clone());
        assert_eq!(read(&object).unwrap(), cell);
        object["more"] = 1.into();
        let error = read(&object).unwrap_err().to_string();
        assert!(error.contains("unknown field `more`"), "{error}");
        object.as_object_mut().unwrap().retain(|key, _| key != "more" && key != "floorMs");
        let error = read(&object).unwrap_err().to_string();
        assert!(error.contains("missing field `floorMs`"), "{error}");
    }
}
