//! The ranges of settings, each written once: for checks, messages and the schemas of others.

use std::ops::RangeInclusive;

use spdz::network::MAX_BATCH;

/// The range of a setting, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<T> {
    /// The smallest value.
    pub min: T,
    /// The largest value.
    pub max: T,
}

impl<T> std::fmt::Display for Limits<T>
where
    T: std::fmt::Display,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

impl<T: Copy + PartialOrd + std::fmt::Display> Limits<T> {
    /// Checks the value of a setting; `setting` is for the message.
    ///
    /// # Errors
    /// If `found` is outside the range, or no number.
    pub fn check(&self, setting: &'static str, found: T) -> Result<(), OutOfRange> {
        if (self.min..=self.max).contains(&found) {
            return Ok(());
        }
        Err(OutOfRange { setting, found: found.to_string(), expected: self.to_string() })
    }
}

impl Limits<u64> {
    /// The same as a range.
    #[must_use]
    pub const fn range(&self) -> RangeInclusive<u64> {
        RangeInclusive::new(self.min, self.max)
    }
}

/// A number that a setting cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {found}, expected {expected}")]
pub struct OutOfRange {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

/// Largest configuration file, bytes: room for a graph with its public constants.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Largest part of a message, bytes.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;

/// Most images that are inspected.
pub const MAX_INSPECTED: usize = INSPECTED.max as usize;

/// Longest deadline, seconds: a day.
pub const MAX_DEADLINE_SECONDS: u32 = 86_400;

/// Inputs of one inference.
pub const BATCH_SIZE: Limits<u64> = Limits { min: 1, max: MAX_BATCH as u64 };

/// Threads that large products are divided among.
pub const THREADS: Limits<u64> = Limits { min: 1, max: 256 };

/// Evaluations that a player asks for, timed or before those.
pub const EVALUATIONS: Limits<u64> = Limits { min: 0, max: 1_000_000 };

/// Timed inferences of a benchmark.
pub const REPETITIONS: Limits<u64> = Limits { min: 1, max: 100_000 };

/// Inferences before those.
pub const WARMUP: Limits<u64> = Limits { min: 0, max: REPETITIONS.max };

/// The client's warm-up, seconds.
pub const WARMUP_SECONDS: Limits<u64> = Limits { min: 0, max: 600 };

/// Images that are inspected.
pub const INSPECTED: Limits<u64> = Limits { min: 1, max: 10_000 };

/// Memory of the preprocessing store, units of 2^20 bytes.
pub const STORE_MEMORY_MEGABYTES: Limits<u64> = Limits { min: 1, max: 1 << 20 };

/// Disk of the preprocessing store, units of 2^20 bytes.
pub const STORE_DISK_MEGABYTES: Limits<u64> = Limits { min: 0, max: 1 << 20 };

/// How long to look for a message before sleeping, microseconds.
pub const SPIN_MICROS: Limits<u64> = Limits { min: 0, max: 10_000 };

/// The parts that messages are sent in, bytes.
pub const CHUNK_BYTES: Limits<u64> = Limits { min: 1 << 10, max: MAX_CHUNK_BYTES as u64 };

/// From one party to another and back, or by how much later; milliseconds.
pub const NETWORK_MS: Limits<f64> = Limits { min: 0.0, max: 10_000.0 };

/// Of each link and each way, millions of bits a second.
pub const BANDWIDTH_MBPS: Limits<f64> = Limits { min: 0.1, max: 1_000_000.0 };

/// The part of the inferences that is traced.
pub const SAMPLING_RATIO: Limits<f64> = Limits { min: 0.0, max: 1.0 };
