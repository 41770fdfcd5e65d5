//! How a party waits for messages and sends them, and the network that it imitates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits::{self, OutOfRange};

/// How to wait and how to send.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transport {
    /// How long to look for a message again and again before sleeping until it
    /// comes, microseconds. Waking up costs more than most waits last.
    pub spin_micros: u64,
    /// Longer messages are sent in parts of this size, so that one side can
    /// decrypt while the other still encrypts; bytes.
    pub chunk_bytes: usize,
    /// A slower network to imitate on all links, in what this party sends; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Conditions>,
}

impl Default for Transport {
    fn default() -> Self {
        Self { spin_micros: 50, chunk_bytes: 128 << 10, network: None }
    }
}

impl Transport {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        limits::CHUNK_BYTES.check("transport.chunkBytes", self.chunk_bytes as u64)?;
        limits::SPIN_MICROS.check("transport.spinMicros", self.spin_micros)?;
        self.network.map_or(Ok(()), |network| network.check().map_err(ConfigError::Conditions))
    }
}

/// What a network does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    /// From one party to another and back, milliseconds, 0 to 10000.
    #[schemars(range(min = limits::NETWORK_MS.min, max = limits::NETWORK_MS.max))]
    pub rtt_ms: f64,
    /// By how much what is sent may be later, uniformly and each way, milliseconds, 0 to
    /// 10000; nothing overtakes.
    #[serde(default)]
    #[schemars(range(min = limits::NETWORK_MS.min, max = limits::NETWORK_MS.max))]
    pub jitter_ms: f64,
    /// Of each link and each way, millions of bits a second, 0.1 to 1000000; unlimited
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::BANDWIDTH_MBPS.min, max = limits::BANDWIDTH_MBPS.max))]
    pub bandwidth_mbps: Option<f64>,
}

impl Conditions {
    /// Parties in one data centre: 0.5 ms, 10 Gbit/s.
    pub const LAN: Self = Self { rtt_ms: 0.5, jitter_ms: 0.0, bandwidth_mbps: Some(10_000.0) };

    /// Parties far apart: 40 ms, 100 Mbit/s.
    pub const WAN: Self = Self { rtt_ms: 40.0, jitter_ms: 0.0, bandwidth_mbps: Some(100.0) };

    /// From one party to the other, when nothing else is sent.
    #[must_use]
    pub fn one_way(&self) -> Duration {
        Duration::from_secs_f64(self.rtt_ms / 2e3)
    }

    /// The longest delay beside [`one_way`](Self::one_way).
    #[must_use]
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter_ms / 1e3)
    }

    /// From the first of `bytes` that leaves to the last.
    #[must_use]
    pub fn transmission(&self, bytes: usize) -> Duration {
        let bits = 8.0 * bytes as f64;
        self.bandwidth_mbps
            .map_or(Duration::ZERO, |mbps| Duration::from_secs_f64(bits / (mbps * 1e6)))
    }

    /// Bytes that may be on their way at once, and `buffer` besides.
    pub(crate) fn under_way(&self, buffer: usize) -> usize {
        // Without a limit, that of a fast one.
        let mbps = self.bandwidth_mbps.unwrap_or(100_000.0);
        let seconds = (self.one_way() + self.jitter()).as_secs_f64();
        buffer.saturating_add((seconds * mbps * 1e6 / 8.0).min(256e6) as usize)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If a number is out of its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        limits::NETWORK_MS.check("rttMs", self.rtt_ms)?;
        limits::NETWORK_MS.check("jitterMs", self.jitter_ms)?;
        self.bandwidth_mbps
            .map_or(Ok(()), |mbps| limits::BANDWIDTH_MBPS.check("bandwidthMbps", mbps))
    }
}
