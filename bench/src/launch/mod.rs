//! Where parties run: as processes on this machine, or as pods of a cluster.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use party::result::RunResult;
use party::run::Progress;

use crate::environment::ClusterEnvironment;
use crate::sweep::pace::Pace;
use crate::sweep::settings::Planned;

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod here;
pub mod local;

/// The servers and the producer; players multiply nothing that is large.
const MULTIPLYING: usize = 3;

/// Threads for each of so many parties that multiply at the same time on so many cores; at
/// least one.
fn threads(cores: usize, parties: usize) -> usize {
    (cores / parties).clamp(1, 256)
}

/// How resources are made on a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Their namespace; without it that of the kubeconfig.
    pub namespace: Option<String>,
    /// The parties' image; without it the operator's own.
    pub image: Option<String>,
    /// How long a run may take, seconds.
    pub deadline_seconds: u32,
    /// Whether resources are left behind.
    pub keep: bool,
}

/// Launches trials: each starts all parties of a computation and waits for what they report.
pub trait Launcher: Sync {
    /// Runs one trial.
    ///
    /// # Errors
    /// If it fails, cannot begin, or is interrupted. No party is left running.
    fn launch(
        &self,
        trial: &Request<'_>,
        tell: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<Outcome, TrialError>;

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

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to measure.
    pub planned: &'a Planned,
    /// Its place among the cells.
    pub cell: usize,
    /// Which of its trials.
    pub round: u32,
    /// Whether to score the test set too.
    pub scored: bool,
}

/// What a trial reports.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the parties measured.
    pub result: RunResult,
    /// How fast the machine was around it.
    pub pace: Option<Pace>,
    /// In a cluster the node of each role.
    pub nodes: BTreeMap<String, String>,
}

/// Why there is no outcome.
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
    Hopeless(anyhow::Error),
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
