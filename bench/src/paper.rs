//! The paper's published numbers, as data.

use serde::Serialize;
use spdz::plan::NumberFormat;

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

/// What the paper's Table 1 says: two servers and a producer with 36 virtual
/// cores each, in one region of a public cloud, batch 1.
#[must_use]
pub fn table1(network: &str, format: NumberFormat) -> Option<&'static PaperRow> {
    TABLE1.iter().find(|row| (row.network, row.format) == (network, format))
}

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
