//! The sides of a run: what each role does, in lock-step with the others.
//!
//! Every role follows the same [`Plan`] against a [`Channel`] for each peer. A
//! session goes: keys (producer to servers, server 0 to server 1), the inputs that last
//! for the session (players to servers), then any number of evaluations, each first
//! prepared and then run at the command of one player, the plan's coordinator. Any number
//! may be prepared before the first is run.
//!
//! | message | from | to | phase, step |
//! |---|---|---|---|
//! | key shared with the producer | producer | servers | setup 0 |
//! | key shared by the servers | server 0 | server 1 | setup 1 |
//! | seeds of the masks of a player's inputs to the session | servers | player | setup 2 |
//! | masked input to the session | player | servers | setup 3 + its step |
//! | command | coordinator; server 0 | servers; producer and the other players | control 0 |
//! | share of what is generated | producer | one of the servers | offline, its step |
//! | seeds of the masks of a player's inputs (the server is ready) | servers | player | offline 0 |
//! | masked input | player | servers | online, its step |
//! | opening | each server | the other | online, its step |
//! | share of an output | servers | player | online, its step |
//! | report of the transport | servers | coordinator | control 1 ([`report_tag`]) |

use bytes::{Bytes, BytesMut};

use crate::channel::{Channel, ChannelError, Phase, Role, Tag};
use crate::graph::EvaluateError;
use crate::plan::Plan;
use crate::prg::{SEED_BYTES, Seed};

mod player;
mod producer;
mod round;
mod server;

pub use crate::observer::{Observer, Outcome};
pub use player::{Player, Ready};
pub use producer::Producer;
pub use server::{Memory, Server, ServerLinks, Stock, StockError};

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
    Stock(#[from] StockError),
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
const SESSION_SEEDS: Tag = setup(2);

const fn setup(step: u32) -> Tag {
    Tag { phase: Phase::Setup, inference: 0, step }
}

/// The message in which the input of a set-up step arrives, masked.
fn session_input(step: usize) -> Tag {
    setup(3 + step as u32)
}

/// The message with the seeds of the masks of a player's inputs.
fn seeds_tag(inference: u64) -> Tag {
    Tag::new(Phase::Offline, inference, 0)
}

/// What the coordinator asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// Make the randomness of one more evaluation.
    Prepare,
    /// Run the evaluation that was prepared first of those not yet run.
    Evaluate,
    /// The session is over.
    Finish,
}

/// The commands that went over one connection.
#[derive(Debug, Default)]
struct Commands(u64);

impl Commands {
    fn next(&mut self) -> Tag {
        let number = self.0;
        self.0 += 1;
        Tag::new(Phase::Control, number, 0)
    }

    fn send<C: Channel>(&mut self, command: Command, channel: &mut C) -> Result<(), ChannelError> {
        channel.send(self.next(), Bytes::copy_from_slice(&[command as u8]))
    }

    fn recv<C: Channel>(
        &mut self,
        peer: Role,
        channel: &mut C,
        plan: &Plan,
    ) -> Result<Command, Error> {
        let message = channel.recv(self.next(), 1).map_err(at(plan))?;
        match message[0] {
            0 => Ok(Command::Prepare),
            1 => Ok(Command::Evaluate),
            2 => Ok(Command::Finish),
            found => Err(Error::Command {
                peer,
                found,
                expected: "0 (prepare), 1 (evaluate) or 2 (finish)",
            }),
        }
    }
}

/// The message in which a server may tell the coordinator, at the end of the session, what
/// it measured. Its content is the transport's affair.
#[must_use]
pub fn report_tag() -> Tag {
    Tag::new(Phase::Control, 0, 1)
}

fn send_seed<C: Channel>(channel: &mut C, tag: Tag, seed: &Seed) -> Result<(), ChannelError> {
    channel.send(tag, Bytes::copy_from_slice(seed.expose()))
}

fn recv_seed<C: Channel>(channel: &mut C, tag: Tag) -> Result<Seed, ChannelError> {
    let message = channel.recv(tag, SEED_BYTES)?;
    Ok(Seed::copy_from(&message))
}

fn send_seeds<C: Channel>(
    channel: &mut C,
    tag: Tag,
    seeds: impl Iterator<Item = Seed>,
) -> Result<(), ChannelError> {
    let mut message = BytesMut::new();
    for seed in seeds {
        message.extend_from_slice(seed.expose());
    }
    channel.send(tag, message.freeze())
}

fn recv_seeds<C: Channel>(
    channel: &mut C,
    tag: Tag,
    count: usize,
) -> Result<Vec<Seed>, ChannelError> {
    let message = channel.recv(tag, count * SEED_BYTES)?;
    Ok(message.chunks_exact(SEED_BYTES).map(Seed::copy_from).collect())
}
