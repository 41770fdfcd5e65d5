//! The paper's published numbers, as data, and beside which cells they stand.

use party::config::{Conditions, OfflineMode};
use serde::Serialize;
use spdz::network::Reveal;
use spdz::plan::NumberFormat;

use crate::cell::CellId;

/// A row of the paper's Table 1 in one number format.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PaperRow {
    /// The network.
    pub network: &'static str,
    /// The number format.
    #[serde(skip)]
    pub format: NumberFormat,
    /// Mean runtime, offline and online, over 100 inferences, milliseconds.
    pub mean_ms: f64,
    /// Its deviation, milliseconds.
    pub stddev_ms: f64,
    /// Accuracy of plaintext TensorFlow.
    pub plaintext: f64,
    /// Accuracy of the secure computation.
    pub secure: f64,
    /// Mean KL divergence.
    pub kl_divergence: f64,
}

const TABLE1: [PaperRow; 6] = [
    PaperRow {
        network: "A",
        format: NumberFormat::Int64,
        mean_ms: 14.0,
        stddev_ms: 3.8,
        plaintext: 0.9735,
        secure: 0.9718,
        kl_divergence: 0.0065,
    },
    PaperRow {
        network: "B",
        format: NumberFormat::Int64,
        mean_ms: 126.0,
        stddev_ms: 115.0,
        plaintext: 0.9926,
        secure: 0.9900,
        kl_divergence: 0.2086,
    },
    PaperRow {
        network: "C",
        format: NumberFormat::Int64,
        mean_ms: 124.0,
        stddev_ms: 93.0,
        plaintext: 0.9944,
        secure: 0.9941,
        kl_divergence: 0.2311,
    },
    PaperRow {
        network: "A",
        format: NumberFormat::Int100,
        mean_ms: 138.0,
        stddev_ms: 61.0,
        plaintext: 0.9735,
        secure: 0.9726,
        kl_divergence: 0.0064,
    },
    PaperRow {
        network: "B",
        format: NumberFormat::Int100,
        mean_ms: 189.0,
        stddev_ms: 94.0,
        plaintext: 0.9926,
        secure: 0.9893,
        kl_divergence: 0.0311,
    },
    PaperRow {
        network: "C",
        format: NumberFormat::Int100,
        mean_ms: 211.0,
        stddev_ms: 60.0,
        plaintext: 0.9944,
        secure: 0.9854,
        kl_divergence: 0.1045,
    },
];

/// Runtimes that the paper gives for one network in one format at several batch sizes.
pub struct Batches {
    /// The network.
    pub network: &'static str,
    /// The number format.
    pub format: NumberFormat,
    /// Batch sizes and runtimes, milliseconds.
    pub points: [(usize, f64); 3],
}

/// What the paper says of batches.
pub const BATCHES: Batches = Batches {
    network: "C",
    format: NumberFormat::Int64,
    points: [(1, 124.0), (10, 182.0), (100, 541.0)],
};

/// Which cells have a figure of the paper beside them, for people who see that one has none.
pub const COMPARABLE: &str = "The paper measured networks A, B and C at batch 1, and C with Int64 at 10 and \
     100 too: with its polynomial, logits for the client, Int64 truncated locally and Int100 \
     interactively, randomness generated within the runtime, in one region of a cloud. Its figures stand \
     beside such cells alone.";

/// What the paper says of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Mean runtime, offline and online together, of one inference of the whole batch,
    /// milliseconds.
    pub mean_ms: f64,
    /// The cell's row of Table 1, which has single images alone: two servers and a producer with
    /// 36 virtual cores each, in one region of a public cloud.
    pub row: Option<&'static PaperRow>,
}

/// The paper's figures, if it measured what the cell is: the same network, format and batch, the
/// truncation that the paper gives the format, logits for the client, randomness within the
/// runtime, and parties that are near each other.
#[must_use]
pub fn beside(key: &CellId) -> Option<Published> {
    let CellId {
        network,
        format,
        truncation,
        reveal,
        batch_size,
        offline_mode,
        conditions,
        place: _,
    } = key;
    let near = conditions.is_none_or(|conditions| conditions == Conditions::LAN);
    let usual = *truncation == format.usual_truncation();
    let logits = *reveal == Reveal::Logits;
    if !near || !usual || !logits || *offline_mode != OfflineMode::Inline {
        return None;
    }
    if *batch_size == 1 {
        let row = TABLE1.iter().find(|row| (row.network, row.format) == (network, *format))?;
        return Some(Published { mean_ms: row.mean_ms, row: Some(row) });
    }
    let batches = (BATCHES.network, BATCHES.format) == (network, *format);
    let (_, mean_ms) = BATCHES.points.iter().find(|(batch, _)| batches && batch == batch_size)?;
    Some(Published { mean_ms: *mean_ms, row: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Place;
    use crate::cell::tests::key;
    use spdz::plan::Truncation::{self, Interactive, Local};

    #[test]
    fn figures_stand_beside_what_the_paper_measured_and_nothing_else() {
        use NumberFormat::{Int64, Int100};
        let cell = |network: &str, format, truncation: Truncation, batch_size| CellId {
            network: network.into(),
            format,
            truncation,
            batch_size,
            ..key()
        };
        let far = Conditions { rtt_ms: 10.0, ..Conditions::LAN };
        let of = |key: CellId, conditions| CellId { conditions: Some(conditions), ..key };
        // The cell, its runtime, and whether it has a row of Table 1.
        for (key, expected) in [
            (cell("A", Int64, Local, 1), Some((14.0, true))),
            (cell("C", Int100, Interactive, 1), Some((211.0, true))),
            (cell("C", Int64, Local, 10), Some((182.0, false))),
            (cell("C", Int64, Local, 100), Some((541.0, false))),
            (CellId { place: Place::Cluster, ..cell("B", Int64, Local, 1) }, Some((126.0, true))),
            (of(cell("B", Int64, Local, 1), Conditions::LAN), Some((126.0, true))),
            // Another truncation, batch, network, mode, distance.
            (cell("A", Int100, Local, 1), None),
            (cell("A", Int64, Interactive, 1), None),
            (cell("C", Int64, Interactive, 10), None),
            (cell("C", Int64, Local, 3), None),
            (cell("C", Int100, Interactive, 10), None),
            (cell("B", Int64, Local, 10), None),
            (cell("score", Int64, Local, 1), None),
            (cell("A-relu", Int64, Local, 1), None),
            (cell("C-relu-max", Int64, Local, 10), None),
            (CellId { offline_mode: OfflineMode::Ahead, ..cell("A", Int64, Local, 1) }, None),
            (CellId { reveal: Reveal::Label, ..cell("A", Int64, Local, 1) }, None),
            (of(cell("A", Int64, Local, 1), Conditions::WAN), None),
            (of(cell("A", Int64, Local, 1), far), None),
        ] {
            let found = beside(&key).map(|found| (found.mean_ms, found.row.is_some()));
            assert_eq!(found, expected, "{key}");
        }
    }
}
