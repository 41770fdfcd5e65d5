//! What a party reports besides its result: answers to probes, metrics and traces.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use spdz::channel::Role;
use spdz::plan::Plan;

use crate::background::Background;
use crate::config::PartyConfig;
use crate::error::ProcessError;
use crate::http;
use crate::net::{Link, Refusals};
use crate::result::Inspection;
use crate::termination::Reason;

mod metrics;
mod observer;
mod status;
mod traces;

use metrics::{Metrics, Recorder};
pub(crate) use observer::{Clocked, TimedObserver};
pub(crate) use status::Readiness;
use status::Status;
use traces::{Tracer, Traces};

/// What records a role's work.
pub(crate) type Recorders = (Option<Recorder>, Option<Tracer>);

/// The telemetry of one run.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    /// Only if somebody may ask.
    status: Option<Arc<Status>>,
    /// Only if there is a collector.
    traces: Option<Traces>,
    available: Arc<AtomicU64>,
    refusals: Refusals,
}

impl Telemetry {
    /// Answers requests and sends traces from now on, if the configuration says where.
    pub(crate) fn start(
        config: &PartyConfig,
        plan: &Plan,
        background: &Background,
    ) -> Result<Self, ProcessError> {
        let traces = Traces::start(config, plan, background)?;
        let mut telemetry = Self { traces, ..Self::default() };
        if let Some(address) = config.telemetry.as_ref().and_then(|settings| settings.listen) {
            let mut metrics = Metrics::new(config.role, plan, telemetry.available.clone())?;
            if config.computation.inspect && config.role == Role::CLIENT {
                metrics = metrics.with_layers(plan)?;
            }
            if config.role.is_server() {
                metrics = metrics.with_refusals(telemetry.refusals.clone())?;
            }
            if let Some(traces) = &telemetry.traces {
                metrics = metrics.with_traces(traces.counts().clone())?;
            }
            let status = Arc::new(Status::new(metrics));
            let _context = background.runtime().enter();
            let listener =
                http::listen(address).map_err(|source| ProcessError::Listen { address, source })?;
            background.runtime().spawn(http::serve(listener, status.clone()));
            telemetry.status = Some(status);
        }
        Ok(telemetry)
    }

    /// How far the run is.
    pub(crate) fn readiness(&self, readiness: Readiness) {
        if let Some(status) = &self.status {
            status.set(readiness);
        }
        if let Some(traces) = self.traces.as_ref().filter(|_| readiness == Readiness::Connecting) {
            traces.connecting();
        }
    }

    /// All peers are connected.
    pub(crate) fn connected(&self, links: &[Link]) {
        if let Some(status) = &self.status {
            status.metrics().connected(links);
        }
        if let Some(traces) = &self.traces {
            traces.connected();
        }
        self.readiness(Readiness::Connected);
    }

    /// What was found in the layers of a run that is not private.
    pub(crate) fn inspected(&self, inspection: impl FnOnce() -> Inspection) {
        if let Some(status) = &self.status {
            status.metrics().inspected(&inspection());
        }
    }

    /// Where refused connections are counted.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Where a server says how many prepared evaluations it has.
    pub(crate) fn available(&self) -> &Arc<AtomicU64> {
        &self.available
    }

    /// The set-up is done. What records the role's work from now on.
    pub(crate) fn recorders(&self) -> Recorders {
        self.set_up();
        let status = self.status.as_ref();
        let recorder = status.map(|status| Recorder::new(status.metrics().clone()));
        (recorder, self.traces.as_ref().map(Traces::tracer))
    }

    /// The same, for a role that nobody else watches.
    pub(crate) fn observer(&self) -> Clocked<Recorders> {
        Clocked(self.recorders())
    }

    /// The set-up is done, by a role that has nothing else to do.
    pub(crate) fn set_up(&self) {
        if let Some(traces) = &self.traces {
            traces.started(None);
        }
    }

    /// Sends the spans that are left, for a bounded time.
    pub(crate) fn flush(&self, background: &Background) {
        if let Some(traces) = &self.traces {
            traces.flush(background);
        }
    }

    /// The run is over. What it did is reported already, unless it failed.
    pub(crate) fn end(&self, failure: Option<Reason>, background: &Background) {
        self.readiness(Readiness::Ended);
        if failure.is_some() {
            if let Some(traces) = &self.traces {
                traces.started(failure);
            }
            self.flush(background);
        }
    }
}
