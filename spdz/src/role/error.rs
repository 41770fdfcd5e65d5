//! Why a role could not go on.

use super::store::StoreError;
use crate::channel::{ChannelError, Phase, Role};
use crate::graph::EvaluateError;
use crate::plan::Plan;

/// Why a role could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A peer is gone, silent, or sent something that the plan does not say.
    #[error("{place}: {}", .error.fault)]
    Channel {
        /// The step of the plan, or the message.
        place: String,
        /// What went wrong.
        error: ChannelError,
    },
    /// A command that no coordinator sends.
    #[error("{peer} sent the command {found}, expected {expected}")]
    Command {
        /// Who sent it.
        peer: Role,
        /// The command.
        found: u8,
        /// What would have been in order.
        expected: &'static str,
    },
    /// A number that the format cannot hold. Which one is private: others may read of errors.
    #[error(
        "{tensor}, element {index}: not a number between -{limit} and {limit}, the fixed-point range"
    )]
    Range {
        /// The input (`conv1.weight`).
        tensor: String,
        /// Its place in the flattened tensor.
        index: usize,
        /// The magnitude that numbers stay below.
        limit: f64,
    },
    /// An output that the format cannot hold: the computation overflowed, or a
    /// local truncation failed. The session is in order and may go on.
    #[error(
        "output of {layer}, element {index}: beyond the fixed-point range of -{limit} to {limit}"
    )]
    OutputRange {
        /// The last layer.
        layer: String,
        /// Its place in the flattened output.
        index: usize,
        /// The magnitude that numbers stay below.
        limit: f64,
    },
    /// A player's own part of the computation.
    #[error(transparent)]
    Local(#[from] EvaluateError),
    /// Prepared randomness could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names the place in the plan at which a channel failed.
pub(super) fn at(plan: &Plan) -> impl Fn(ChannelError) -> Error + '_ {
    |error| {
        let place = match error.tag.phase {
            Phase::Offline | Phase::Online => format!(
                "{} {}, inference {}",
                error.tag.phase.name(),
                plan.describe(error.tag.step as usize),
                error.tag.inference
            ),
            Phase::Setup | Phase::Control => error.tag.to_string(),
        };
        Error::Channel { place, error }
    }
}
