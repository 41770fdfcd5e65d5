//! What a party tells whoever watches it, besides its result: logs, answers to probes, and
//! numbers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use spdz::channel::{Phase, Role};
use spdz::plan::Plan;
use spdz::role::{Observer, Outcome};

use crate::background::Background;
use crate::config::PartyConfig;
use crate::net::Link;
use crate::result::Inspection;
use crate::run::RunError;

mod http;
pub(crate) mod logs;
mod metrics;

pub(crate) use http::Readiness;
use http::Status;
use metrics::{Metrics, Recorder};

/// What is told of one run.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    /// Only if somebody may ask.
    status: Option<Arc<Status>>,
    available: Arc<AtomicU64>,
}

impl Telemetry {
    /// Answers requests from now on, if the configuration says where.
    pub(crate) fn start(
        config: &PartyConfig,
        plan: &Plan,
        background: &Background,
    ) -> Result<Self, RunError> {
        let mut telemetry = Self::default();
        if let Some(address) = config.telemetry.as_ref().and_then(|settings| settings.listen) {
            let mut metrics = Metrics::new(config.role, plan, telemetry.available.clone())?;
            if config.computation.inspect && config.role == Role::CLIENT {
                metrics = metrics.with_layers(plan)?;
            }
            let status = Arc::new(Status::new(metrics));
            http::start(address, status.clone(), background)
                .map_err(|source| RunError::Telemetry { address, source })?;
            telemetry.status = Some(status);
        }
        Ok(telemetry)
    }

    /// How far the run is.
    pub(crate) fn readiness(&self, readiness: Readiness) {
        if let Some(status) = &self.status {
            status.set(readiness);
        }
    }

    /// All peers are connected.
    pub(crate) fn connected(&self, links: &[Link]) {
        if let Some(status) = &self.status {
            status.metrics().connected(links);
        }
        self.readiness(Readiness::Connected);
    }

    /// What was found in the layers of a run that is not private.
    pub(crate) fn inspected(&self, inspection: &Inspection) {
        if let Some(status) = &self.status {
            status.metrics().inspected(inspection);
        }
    }

    /// Where a server says how many prepared evaluations it has.
    pub(crate) fn available(&self) -> &Arc<AtomicU64> {
        &self.available
    }

    /// What the role tells of its work.
    pub(crate) fn observer(&self) -> Watcher {
        let status = self.status.as_ref();
        Watcher { recorder: status.map(|status| Recorder::new(status.metrics().clone())) }
    }
}

/// Watches a role for those who want to know; does nothing if nobody does.
pub(crate) struct Watcher {
    recorder: Option<Recorder>,
}

impl Observer for Watcher {
    fn begin(&mut self, phase: Phase, inference: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(phase, inference);
        }
    }

    fn step(&mut self, step: usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.step(step);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end(outcome);
        }
    }
}
