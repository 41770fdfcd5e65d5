//! How far a run is, and its metrics, as probes and scrapes ask for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::metrics::Metrics;
use crate::http::Health;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Readiness {
    /// Reading files.
    #[default]
    Loading,
    /// Waiting for peers.
    Connecting,
    /// At work with all peers.
    Connected,
    /// Over, well or not.
    Ended,
}

impl Readiness {
    const ALL: [Self; 4] = [Self::Loading, Self::Connecting, Self::Connected, Self::Ended];

    /// What keeps the party from being ready.
    fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Loading => Some("reading its files"),
            Self::Connecting => Some("waiting for its peers to connect"),
            Self::Connected => None,
            Self::Ended => Some("the run is over"),
        }
    }
}

/// What a party reports about itself.
#[derive(Debug)]
pub(crate) struct Status {
    readiness: AtomicU8,
    metrics: Arc<Metrics>,
}

impl Status {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { readiness: AtomicU8::default(), metrics: Arc::new(metrics) }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }
}

impl Health for Status {
    fn obstacle(&self) -> Option<&'static str> {
        Readiness::ALL[usize::from(self.readiness.load(Ordering::Relaxed))].obstacle()
    }

    fn metrics(&self) -> Result<String, prometheus::Error> {
        self.metrics.text()
    }
}

#[cfg(test)]
mod tests {
    use spdz::channel::Role;
    use spdz::plan::NumberFormat;

    use super::*;
    use crate::config::Computation;

    #[test]
    fn a_party_is_ready_while_all_its_peers_are_there() {
        let plan = Computation::of_network("A", 1, NumberFormat::Int64).plan().unwrap();
        let status = Status::new(Metrics::new(Role::Producer, &plan, Arc::default()).unwrap());
        assert_eq!(status.obstacle(), Some("reading its files"));
        for (readiness, obstacle) in [
            (Readiness::Loading, Some("reading its files")),
            (Readiness::Connecting, Some("waiting for its peers to connect")),
            (Readiness::Connected, None),
            (Readiness::Ended, Some("the run is over")),
        ] {
            status.set(readiness);
            assert_eq!(status.obstacle(), obstacle);
        }
        let text = Health::metrics(&status).unwrap();
        assert!(text.contains("secure_inference_build_info{"), "{text}");
    }
}
