//! The messages of a session that carry no tensors: tags, keys and seeds.

use bytes::Bytes;

use crate::buffer::Buffer;
use crate::channel::{Channel, ChannelError, Phase, Tag};
use crate::prg::{SEED_BYTES, Seed};

/// Set-up messages, in the order of their numbers.
pub(super) const PRODUCER_KEY: Tag = setup(0);
pub(super) const SERVER_KEY: Tag = setup(1);
pub(super) const SESSION_SEEDS: Tag = setup(2);

pub(super) const fn setup(step: u32) -> Tag {
    Tag { phase: Phase::Setup, inference: 0, step }
}

/// The message in which the input of a set-up step arrives, masked.
pub(super) fn session_input(step: usize) -> Tag {
    setup(3 + step as u32)
}

/// The message with the seeds of the masks of a player's inputs.
pub(super) fn seeds_tag(inference: u64) -> Tag {
    Tag::new(Phase::Offline, inference, 0)
}

/// The message in which a server may tell the coordinator, at the end of the session, what
/// it measured. Its content is the transport's affair.
#[must_use]
pub fn report_tag() -> Tag {
    Tag::new(Phase::Control, 0, 1)
}

pub(super) fn send_seed<C: Channel>(
    channel: &mut C,
    tag: Tag,
    seed: &Seed,
) -> Result<(), ChannelError> {
    channel.send(tag, wiped(seed.expose()))
}

pub(super) fn recv_seed<C: Channel>(channel: &mut C, tag: Tag) -> Result<Seed, ChannelError> {
    let message = channel.recv(tag, SEED_BYTES)?;
    Ok(Seed::copy_from(&message))
}

pub(super) fn send_seeds<C: Channel>(
    channel: &mut C,
    tag: Tag,
    seeds: impl Iterator<Item = Seed>,
) -> Result<(), ChannelError> {
    let seeds: Vec<Seed> = seeds.collect();
    let mut message = Buffer::<u8>::zeros(SEED_BYTES * seeds.len());
    for (bytes, seed) in message.chunks_exact_mut(SEED_BYTES).zip(&seeds) {
        bytes.copy_from_slice(seed.expose());
    }
    channel.send(tag, message.into_bytes())
}

/// A message that is wiped when it has been handed over.
fn wiped(bytes: &[u8]) -> Bytes {
    Buffer::from(bytes).into_bytes()
}

pub(super) fn recv_seeds<C: Channel>(
    channel: &mut C,
    tag: Tag,
    count: usize,
) -> Result<Vec<Seed>, ChannelError> {
    let message = channel.recv(tag, count * SEED_BYTES)?;
    Ok(message.chunks_exact(SEED_BYTES).map(Seed::copy_from).collect())
}
