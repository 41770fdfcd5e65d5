//! What the client of a network infers and measures.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits;
use super::offline::OfflineMode;

/// What the client infers and measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Images in the idx format of MNIST, gzipped or not.
    pub images: PathBuf,
    /// Inferences before the timed ones.
    #[serde(default)]
    pub warmup: u64,
    /// For how long inferences are made before those, seconds, at most 600: their number
    /// depends on how long they take.
    #[serde(default)]
    pub warmup_seconds: u64,
    /// Timed inferences.
    #[serde(default)]
    pub repetitions: u64,
    /// When randomness is made; what is scored has it made inline.
    #[serde(default)]
    pub offline: OfflineMode,
    /// What to score afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyWorkload>,
    /// Not private: the outputs of every layer are compared with those of the plaintext
    /// computation. With `computation.inspect` at all parties, and not without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<InspectWorkload>,
    /// Where to write the result, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<PathBuf>,
}

impl Workload {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        limits::WARMUP_SECONDS.check("workload.warmupSeconds", self.warmup_seconds)?;
        if let Some(inspect) = &self.inspect {
            limits::INSPECTED.check("workload.inspect.samples", inspect.samples as u64)?;
        }
        Ok(())
    }
}

/// What the secure outputs are scored against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccuracyWorkload {
    /// How many images, from the first.
    pub samples: usize,
    /// Their labels in the idx format of MNIST, gzipped or not.
    pub labels: PathBuf,
    /// The plaintext network's logits: a safetensors file with `logits`, `[images, classes]`,
    /// F32. Without it, because nobody has the plaintext weights, say, outputs are scored
    /// against the labels alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What the layers are inspected with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InspectWorkload {
    /// How many images, from the first, 1 to 10000.
    pub samples: usize,
    /// The model owner's weights: in a benchmark the client knows them too.
    pub weights: PathBuf,
}
