//! What is wrong with a configuration.

use std::path::PathBuf;

use spdz::channel::{Name, Role};
use spdz::network::{NetworkError, UnknownNetwork};
use spdz::plan::PlanError;

use super::limits::{MAX_CONFIG_BYTES, OutOfRange};
use crate::trace::SettingsError;
use crate::yaml::YamlError;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too large to be a configuration.
    #[error("the configuration {} has {found} bytes, at most {MAX_CONFIG_BYTES} are accepted", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// The file is not a configuration.
    #[error("the configuration {} is not valid: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: YamlError,
    },
    /// A section is missing, or belongs to another role.
    #[error("the configuration of {role} {problem}")]
    Section {
        /// The role.
        role: Role,
        /// What is wrong.
        problem: String,
    },
    /// A number is not usable.
    #[error(transparent)]
    Number(#[from] OutOfRange),
    /// Traces cannot be sent there.
    #[error(transparent)]
    Traces(#[from] SettingsError),
    /// A number of the network to imitate is not usable.
    #[error("transport.network.{0}")]
    Conditions(OutOfRange),
    /// What to compute is not said once.
    #[error("the computation {0}")]
    Computation(&'static str),
    /// There is no such network.
    #[error(transparent)]
    Network(#[from] UnknownNetwork),
    /// There is no such player.
    #[error("graph {graph} has no player {found}; its players are {players}")]
    Player {
        /// The graph.
        graph: String,
        /// The name.
        found: Name,
        /// The players, separated by commas.
        players: String,
    },
    /// The network cannot be made.
    #[error(transparent)]
    Layers(#[from] NetworkError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
}
