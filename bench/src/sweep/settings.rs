//! What a sweep measures: a YAML file, or the same from the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use party::config::{Computation, OfflineMode, Stock, Transport};
use serde::{Deserialize, Serialize};
use spdz::channel::Name;
use spdz::plan::{NumberFormat, Truncation};

use crate::results::Place;

/// What a sweep measures, and how: the product of the lists is its cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// What people call the sweep.
    pub name: String,
    /// Where the parties run.
    pub on: Place,
    /// The paper's networks: `A`, `B`, `C`.
    pub networks: Vec<String>,
    /// Graphs of one's own, on this machine alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphFile>,
    /// Inputs of one inference, 1 to 1024; graphs have no batches.
    pub batch_sizes: Vec<usize>,
    /// The number formats.
    pub formats: Vec<NumberFormat>,
    /// The truncations.
    pub truncations: Vec<Truncate>,
    /// When randomness is made.
    pub offline: Vec<OfflineMode>,
    /// Trials of each cell, 1 to 100: each launches the parties anew.
    pub trials: u32,
    /// Timed inferences of each trial, 1 to 100000.
    pub repetitions: u64,
    /// Inferences before them, 0 to 100000.
    pub warmup: u64,
    /// Images of the test set scored after the timed inferences of a cell's first trial,
    /// 0 to 10000.
    pub accuracy_samples: usize,
    /// What the order of the trials is drawn from.
    pub seed: u64,
    /// Threads that each server and the producer divide large products among, 1 to 256;
    /// without it the parties share the cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Memory of each server for randomness made ahead, units of 2^20 bytes.
    pub stock_megabytes: u64,
    /// Disk of each server for what does not fit there, units of 2^20 bytes.
    pub stock_disk_megabytes: u64,
    /// How long a party looks for a message before it sleeps, microseconds.
    pub spin_micros: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "sweep".into(),
            on: Place::Local,
            networks: ["A", "B", "C"].map(String::from).into(),
            graphs: Vec::new(),
            batch_sizes: vec![1],
            formats: NumberFormat::ALL.into(),
            truncations: vec![Truncate::Usual],
            offline: vec![OfflineMode::Inline],
            trials: 3,
            repetitions: 100,
            warmup: 5,
            accuracy_samples: 0,
            seed: 1,
            threads: None,
            stock_megabytes: Stock::default().memory_megabytes,
            stock_disk_megabytes: 0,
            spin_micros: Transport::default().spin_micros,
        }
    }
}

/// A graph and what its players bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphFile {
    /// The graph, JSON or YAML by its ending; `bench run --help` explains it.
    pub file: PathBuf,
    /// A safetensors file for each player that brings something.
    #[serde(default)]
    pub players: BTreeMap<Name, PathBuf>,
}

/// How products are brought back to the format's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Truncate {
    /// As in the paper: `Local` for `Int64`, `Interactive` for `Int100`.
    #[serde(rename = "usual")]
    Usual,
    /// Without interaction; wrong with a small probability.
    Local,
    /// In one round; never wrong within the format's range.
    Interactive,
}

impl Truncate {
    /// What it is in a number format.
    #[must_use]
    pub fn of(self, format: NumberFormat) -> Truncation {
        match self {
            Self::Usual => Computation::usual_truncation(format),
            Self::Local => Truncation::Local,
            Self::Interactive => Truncation::Interactive,
        }
    }
}
