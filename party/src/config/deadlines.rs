//! How long a party waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::limits::{MAX_DEADLINE_SECONDS, OutOfRange};

/// How long to wait before giving up, seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Deadlines {
    /// For all peers to be connected and introduced, once this party has read its files.
    pub connect_seconds: f64,
    /// For any one message.
    pub message_seconds: f64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect_seconds: 60.0, message_seconds: 60.0 }
    }
}

impl Deadlines {
    /// For all peers to be connected.
    #[must_use]
    pub fn connect(&self) -> Duration {
        Duration::from_secs_f64(self.connect_seconds)
    }

    /// For any one message.
    #[must_use]
    pub fn message(&self) -> Duration {
        Duration::from_secs_f64(self.message_seconds)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let deadlines = [
            ("deadlines.connectSeconds", self.connect_seconds),
            ("deadlines.messageSeconds", self.message_seconds),
        ];
        for (setting, seconds) in deadlines {
            if !(seconds > 0.0 && seconds <= f64::from(MAX_DEADLINE_SECONDS)) {
                let expected = format!("more than 0 and at most {MAX_DEADLINE_SECONDS} (a day)");
                return Err(OutOfRange { setting, found: seconds.to_string(), expected }.into());
            }
        }
        Ok(())
    }
}
