//! What is measured: cells, and the trials of a cell.
//!
//! A *cell* is one thing that is measured: a network or graph, in a number format, at a
//! batch size, in one place. Its coordinates, [`CellId`], name it everywhere: in settings, in
//! the journal, in results and reports, and to whoever runs its trials. A *trial* of it is one
//! launch of its parties, with all the evaluations that they run.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use clap::ValueEnum;
use party::config::{Computation, Conditions, OfflineMode};
use party::result::RunResult;
use serde::{Deserialize, Serialize};
use spdz::network::Reveal;
use spdz::plan::{NumberFormat, Truncation};

use crate::floor::speeds::Beside;
use crate::graph_file::GraphFile;
use crate::load::Load;
use crate::pace::Pace;

/// Where parties run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// As processes on this machine
    Local,
    /// As pods, through the operator of the cluster that KUBECONFIG names
    Cluster,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::Cluster => "cluster",
        })
    }
}

/// The coordinates of a cell, which tell it from all others of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CellId {
    /// The name of the network or graph.
    pub network: String,
    /// The number format.
    pub format: NumberFormat,
    /// The truncation.
    pub truncation: Truncation,
    /// What the client of a network learns; logits without it.
    #[serde(default, skip_serializing_if = "Reveal::is_default")]
    pub reveal: Reveal,
    /// Inputs of one evaluation.
    pub batch_size: usize,
    /// When randomness is made.
    pub offline_mode: OfflineMode,
    /// The network that was imitated on all links; as they are without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// Where the parties ran.
    #[serde(rename = "where")]
    pub place: Place,
}

/// The numbers of `conditions` are finite ([`Conditions::check`]), so equality is reflexive.
impl Eq for CellId {}

/// Without `conditions`, whose floats have no hash: cells that differ in these alone cost a
/// comparison more.
impl Hash for CellId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { network, format, truncation, reveal, batch_size, place, .. } = self;
        (network, format, truncation, reveal, batch_size, place).hash(state);
    }
}

/// `C Int64 Local, batch 10`, and each setting that differs from the default.
impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, format, truncation, reveal, batch_size, .. } = self;
        let network = computed(network, *reveal);
        write!(f, "{network} {format} {truncation}, batch {batch_size}")?;
        if self.offline_mode == OfflineMode::Ahead {
            write!(f, ", randomness ahead")?;
        }
        if let Some(Conditions { rtt_ms, jitter_ms, bandwidth_mbps }) = self.conditions {
            write!(f, ", {rtt_ms} ms")?;
            if jitter_ms > 0.0 {
                write!(f, ", jitter {jitter_ms} ms")?;
            }
            if let Some(bandwidth) = bandwidth_mbps {
                write!(f, " and {bandwidth} Mbit/s")?;
            }
        }
        if self.place == Place::Cluster {
            write!(f, ", cluster")?;
        }
        Ok(())
    }
}

/// What is computed, for people: `C-relu`, or `C-relu (label)` if the client learns the label
/// alone.
#[must_use]
pub fn computed(network: &str, reveal: Reveal) -> String {
    match reveal {
        Reveal::Logits => network.into(),
        Reveal::Label => format!("{network} ({reveal})"),
    }
}

/// What to know of cells whose client learns labels.
pub const LABELS: &str = "Of a network with (label) the client learns the class alone. It is found on shares, which takes \
     exchanges of its own, and has no KL divergence.";

/// A cell that is to be measured: its coordinates, and what its parties compute.
#[derive(Clone, Debug)]
pub struct CellPlan {
    /// What tells it from the others.
    pub key: CellId,
    /// Its place in the order of the settings, from 0: what the files and resources of its
    /// trials are numbered by.
    pub position: usize,
    /// What the parties compute.
    pub computation: Computation,
    /// With a graph of one's own its file and its players' inputs.
    pub graph: Option<GraphFile>,
}

/// One launch of all parties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trial {
    /// The round of the sweep that it belongs to, counted from 0: each has one trial of
    /// every cell.
    pub round: u32,
    /// When it began, seconds since 1970.
    pub started_unix_seconds: u64,
    /// How fast the machine was just before and just after; absent in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Its cell's floor just before; absent in a cluster, and of a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Beside>,
    /// What others used of the machine meanwhile; absent in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// In a cluster the node of each role.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, String>,
    /// What the parties reported.
    pub result: RunResult,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use party::result::{Latency, LayerTime};

    /// A result of so many repetitions that took so long.
    pub(crate) fn result(samples: &[f64]) -> RunResult {
        RunResult {
            network: "A".into(),
            format: NumberFormat::Int64,
            truncation: Truncation::Local,
            reveal: Reveal::default(),
            batch_size: 1,
            repetitions: samples.len() as u64,
            offline_mode: OfflineMode::Inline,
            combined: Latency::with_distribution(samples),
            online: Latency::with_distribution(samples),
            offline: Latency::of(samples),
            online_bytes: 4,
            offline_bytes: 5,
            online_rounds: 6,
            out_of_range: 0,
            layers: vec![LayerTime::new(0, "dense1", "matmul", samples[0], 1.0)],
            accuracy: None,
            inspection: None,
        }
    }

    pub(crate) fn trial(samples: &[f64]) -> Trial {
        Trial {
            round: 0,
            started_unix_seconds: 7,
            pace: None,
            floor: None,
            load: None,
            nodes: BTreeMap::new(),
            result: result(samples),
        }
    }

    pub(crate) fn key() -> CellId {
        CellId {
            network: "A".into(),
            format: NumberFormat::Int64,
            truncation: Truncation::Local,
            reveal: Reveal::default(),
            batch_size: 1,
            offline_mode: OfflineMode::Inline,
            conditions: None,
            place: Place::Local,
        }
    }

    #[test]
    fn a_cell_says_what_it_is() {
        assert_eq!(key().to_string(), "A Int64 Local, batch 1");
        let conditions =
            Some(Conditions { rtt_ms: 40.0, jitter_ms: 0.0, bandwidth_mbps: Some(100.0) });
        let key = CellId { conditions, place: Place::Cluster, ..key() };
        assert_eq!(key.to_string(), "A Int64 Local, batch 1, 40 ms and 100 Mbit/s, cluster");
        let key = CellId { reveal: Reveal::Label, ..tests::key() };
        assert_eq!(key.to_string(), "A (label) Int64 Local, batch 1");
    }

    #[test]
    fn what_all_cells_revealed_before_there_was_a_choice_is_not_written() {
        let json = |key: &CellId| serde_json::to_value(key).unwrap();
        let (logits, label) = (key(), CellId { reveal: Reveal::Label, ..key() });
        assert_eq!(json(&logits).get("reveal"), None);
        assert_eq!(json(&label)["reveal"], "label");
        for key in [logits, label] {
            assert_eq!(serde_json::from_value::<CellId>(json(&key)).unwrap(), key);
        }
    }

    #[test]
    fn a_cell_is_found_by_its_coordinates() {
        let conditions = |rtt_ms| Some(Conditions { rtt_ms, ..Conditions::WAN });
        let keys = [
            key(),
            CellId { batch_size: 10, ..key() },
            CellId { reveal: Reveal::Label, ..key() },
            CellId { offline_mode: OfflineMode::Ahead, ..key() },
            CellId { conditions: conditions(1.0), ..key() },
            CellId { conditions: conditions(2.0), ..key() },
        ];
        let map: std::collections::HashMap<CellId, usize> = keys.iter().cloned().zip(0..).collect();
        assert_eq!(map.len(), keys.len());
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(map[key], index);
        }
    }
}
