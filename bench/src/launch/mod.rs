//! Where parties run: as processes on this machine, or as pods of a cluster.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use party::config::limits::THREADS;
use party::run::Progress;

use crate::cell::{CellPlan, Trial};
use crate::environment::ClusterEnvironment;

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod here;
pub mod local;

/// The servers and the producer; players multiply nothing that is large.
const MULTIPLYING: usize = 3;

/// Threads for each of so many parties that multiply at the same time on so many cores; at
/// least one.
fn threads(cores: usize, parties: usize) -> usize {
    (cores / parties).clamp(1, THREADS.max as usize)
}

/// How resources are made on a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Their namespace; without it that of the kubeconfig.
    pub namespace: Option<String>,
    /// How long a run may take, seconds.
    pub deadline_seconds: u32,
    /// Whether resources are left behind.
    pub keep: bool,
}

/// Launches trials: each starts all parties of a computation and waits for what they report.
pub trait Launcher: Sync {
    /// Runs one trial of a cell, the one of this round; it scores the test set too if it is
    /// `scored`. `on_progress` is called while it runs.
    ///
    /// # Errors
    /// If it fails, cannot begin, or is interrupted. No party is left running.
    fn launch(
        &self,
        cell: &CellPlan,
        round: u32,
        scored: bool,
        on_progress: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<Trial, TrialError>;

    /// The files of this machine that trials measure on.
    fn inputs(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The sweep that trials belong to from now on.
    fn belongs_to(&self, _sweep: &str) {}

    /// The commit that the parties were built from.
    fn commit(&self) -> String {
        party::COMMIT.into()
    }

    /// What is known of the cluster, if it is one.
    fn cluster(&self) -> Option<ClusterEnvironment> {
        None
    }
}

/// Why a trial measured nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The user interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// This trial failed; another may not.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// No trial can succeed until the user does something.
    #[error("{0:#}")]
    NonRetryable(anyhow::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_multiply_share_the_cores() {
        for (cores, expected) in [(1, 1), (2, 1), (5, 1), (6, 2), (64, 21), (1024, 256)] {
            assert_eq!(threads(cores, MULTIPLYING), expected, "{cores} cores");
        }
    }
}
