//! The sides of a run: what each role does, in lock-step with the others.
//!
//! Every role follows the same [`Plan`] against a [`Channel`] for each peer. A
//! session goes: keys (producer to servers, server 0 to server 1), the masked
//! model (model owner to servers), then any number of inferences, each first
//! prepared and then evaluated at the client's command.
//!
//! | message | from | to | phase, step |
//! |---|---|---|---|
//! | key shared with the producer | producer | servers | setup 0 |
//! | key shared by the servers | server 0 | server 1 | setup 1 |
//! | seed of the model's masks | servers | model owner | setup 2 |
//! | masked parameter `t` | model owner | servers | setup 3 + `t` |
//! | command | client; server 0 | servers; producer | control 0 |
//! | share of a product of masks | producer | the server whose turn it is | offline, the product's step |
//! | seed of the input's mask (the server is ready) | servers | client | offline, the input's step |
//! | masked input | client | servers | online, the input's step |
//! | opening | each server | the other | online, the opening's step |
//! | share of the output | servers | client | online, the output's step |
//! | report of the transport | servers | client | control 1 ([`report_tag`]) |

use bytes::Bytes;

use crate::channel::{Channel, ChannelError, Phase, Role, Tag};
use crate::fixed::RangeError;
use crate::network::weights::WeightsError;
use crate::plan::Plan;
use crate::prg::{SEED_BYTES, Seed};

mod client;
mod model_owner;
mod producer;
mod server;

pub use client::{Client, Ready};
pub use model_owner::provide_model;
pub use producer::Producer;
pub use server::{Server, ServerLinks};

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
    /// A command that no client sends.
    #[error("{peer} sent the command {found}, expected 0 (prepare) or 1 (finish)")]
    Command {
        /// Who sent it.
        peer: Role,
        /// The command.
        found: u8,
    },
    /// A number that the format cannot hold.
    #[error("{tensor}, element {index}: {source}")]
    Range {
        /// The parameter (`conv1.weight`) or the input.
        tensor: String,
        /// Its place in the flattened tensor, the batch included.
        index: usize,
        /// The number and the range.
        source: RangeError,
    },
    /// An output that the format cannot hold: the computation overflowed, or a
    /// local truncation failed. The session is in order and may go on.
    #[error("output of {layer}, element {index}: {source}")]
    OutputRange {
        /// The last layer.
        layer: String,
        /// Its place in the flattened output, the batch included.
        index: usize,
        /// The number and the range.
        source: RangeError,
    },
    /// An input of the wrong size.
    #[error("the input has {found} elements, expected {expected}: a batch of {batch}")]
    InputLength {
        /// Elements that the plan says.
        expected: usize,
        /// Elements that were given.
        found: usize,
        /// The plan's batch.
        batch: usize,
    },
    /// The weights do not belong to the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Names the place in the plan at which a channel failed.
fn at(plan: &Plan) -> impl Fn(ChannelError) -> Error + '_ {
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

/// Set-up messages, in the order of their numbers.
const PRODUCER_KEY: Tag = setup(0);
const SERVER_KEY: Tag = setup(1);
const MODEL_SEED: Tag = setup(2);

const fn setup(step: u32) -> Tag {
    Tag { phase: Phase::Setup, inference: 0, step }
}

/// The message that carries parameter `index`, masked.
fn parameter(index: usize) -> Tag {
    setup(3 + index as u32)
}

/// What the client asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Make the randomness of the next inference, then evaluate it.
    Prepare,
    /// The session is over.
    Finish,
}

impl Command {
    fn tag(inference: u64) -> Tag {
        Tag::new(Phase::Control, inference, 0)
    }

    fn send<C: Channel>(self, inference: u64, channel: &mut C) -> Result<(), ChannelError> {
        channel.send(Self::tag(inference), Bytes::copy_from_slice(&[self as u8]))
    }

    fn recv<C: Channel>(
        peer: Role,
        inference: u64,
        channel: &mut C,
        plan: &Plan,
    ) -> Result<Self, Error> {
        let message = channel.recv(Self::tag(inference), 1).map_err(at(plan))?;
        match message[0] {
            0 => Ok(Self::Prepare),
            1 => Ok(Self::Finish),
            found => Err(Error::Command { peer, found }),
        }
    }
}

/// The message in which a server may tell the client, after `inferences`
/// inferences, what it measured. Its content is the transport's affair.
#[must_use]
pub fn report_tag(inferences: u64) -> Tag {
    Tag::new(Phase::Control, inferences, 1)
}

fn send_seed<C: Channel>(channel: &mut C, tag: Tag, seed: &Seed) -> Result<(), ChannelError> {
    channel.send(tag, Bytes::copy_from_slice(seed.expose()))
}

fn recv_seed<C: Channel>(channel: &mut C, tag: Tag) -> Result<Seed, ChannelError> {
    let message = channel.recv(tag, SEED_BYTES)?;
    Ok(Seed::copy_from(&message))
}
