//! How to watch a party.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits;
use crate::trace;

/// How to watch a party.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where to answer HTTP requests for `/healthz`, `/readyz` and `/metrics`; nowhere
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// `http://host:port` of a collector that takes traces, OTLP over gRPC; without it, what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// The part of the inferences that is traced, 0 to 1, the same at all parties; without
    /// it, what `OTEL_TRACES_SAMPLER` says, or 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_ratio: Option<f64>,
    /// The span that the start of this run belongs to, a W3C `traceparent`; without it the
    /// start is a trace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<trace::Context>,
}

impl Telemetry {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some(endpoint) = &self.otlp_endpoint {
            trace::check_endpoint("telemetry.otlpEndpoint", endpoint)?;
        }
        if let Some(ratio) = self.sampling_ratio {
            limits::SAMPLING_RATIO.check("telemetry.samplingRatio", ratio)?;
        }
        Ok(())
    }
}
