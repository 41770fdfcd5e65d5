//! What the operator answers to probes and scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use party::http::Health;

use crate::metrics::Metrics;

/// What the operator reports about itself.
pub struct Status {
    /// Its metrics.
    pub metrics: Metrics,
    /// Whether the API server has been reached.
    pub ready: Arc<AtomicBool>,
}

impl Health for Status {
    fn obstacle(&self) -> Option<&'static str> {
        let ready = self.ready.load(Ordering::Relaxed);
        (!ready).then_some("the API server has not been reached yet")
    }

    fn metrics(&self) -> Result<String, prometheus::Error> {
        self.metrics.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_ready_once_the_api_server_has_answered() {
        let metrics = Metrics::new().unwrap();
        let status = Status { metrics, ready: Arc::default() };
        assert_eq!(status.obstacle(), Some("the API server has not been reached yet"));
        status.ready.store(true, Ordering::Relaxed);
        assert_eq!(status.obstacle(), None);
        let text = Health::metrics(&status).unwrap();
        assert!(text.contains("leader_election_master_status"), "{text}");
    }
}
