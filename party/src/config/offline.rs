//! When randomness is made.

use serde::{Deserialize, Serialize};

/// When correlated randomness is generated.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "camelCase")]
pub enum OfflineMode {
    /// Before each evaluation, and as part of its runtime.
    #[default]
    Inline,
    /// For all warm-up and timed evaluations before the first of them.
    Ahead,
}

impl std::fmt::Display for OfflineMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Inline => "inline",
            Self::Ahead => "ahead",
        })
    }
}
