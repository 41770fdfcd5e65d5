//! What a party tells whoever watches it, besides its result: logs, and answers to probes.

use std::sync::Arc;

use crate::background::Background;
use crate::config;
use crate::run::RunError;

mod http;
pub(crate) mod logs;

pub(crate) use http::Readiness;

/// What is told of one run.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    status: Arc<http::Status>,
}

impl Telemetry {
    /// Answers requests from now on, if `settings` say where.
    pub(crate) fn start(
        settings: Option<&config::Telemetry>,
        background: &Background,
    ) -> Result<Self, RunError> {
        let telemetry = Self::default();
        if let Some(address) = settings.and_then(|settings| settings.listen) {
            http::start(address, telemetry.status.clone(), background)
                .map_err(|source| RunError::Telemetry { address, source })?;
        }
        Ok(telemetry)
    }

    /// How far the run is.
    pub(crate) fn readiness(&self, readiness: Readiness) {
        self.status.set(readiness);
    }
}
