//! Randomness: seeds, key derivation with domain separation, key streams.
//!
//! Fresh seeds come from the operating system. Everything that two parties must
//! draw alike is expanded from a seed they share: a [ratchet](crate::ratchet) has a key for
//! each evaluation, keyed BLAKE3 derives one key for each use (session, plan, purpose,
//! inference, place in the plan), and AES-128 in counter mode expands that key. No two uses
//! share a key, so no stream is ever drawn twice.

use std::fmt;

use aes::Aes128;
use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ring::kernels::vectorized;

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// 256 secret bits; wiped when dropped, never printed.
///
/// In one place in memory for as long as they live: moving an array would leave a copy behind
/// that nothing wipes.
pub struct Seed(Box<[u8; SEED_BYTES]>);

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness: {0}")]
pub struct NoRandomness(#[from] getrandom::Error);

/// The run that keys belong to. Never used for two runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A fresh one from the operating system.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn fresh() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// What a stream is for. Streams of different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The key that the producer shares with server 0.
    ProducerServer0 = 1,
    /// The key that the producer shares with server 1.
    ProducerServer1 = 2,
    /// A server's share of the mask of an input that lasts for the session.
    SessionMask = 3,
    /// A server's share of the mask of an input of one evaluation.
    InputMask = 4,
    /// A server's share of the mask of an opened value.
    OpeningMask = 5,
    /// A server's share of what the producer generates: Beaver triples, truncation
    /// correlations.
    Generated = 6,
    /// The sharing of zero that re-randomises the output.
    OutputZero = 7,
    /// A server's share of the mask of dividends.
    DividendMask = 8,
    /// The key stream and the tag of randomness that is kept outside memory.
    Sealing = 9,
    /// A server's packed randomness that is drawn alone: masks of narrow values and of bits.
    PackedMask = 10,
    /// A server's share of what the producer generates of packed values.
    PackedShare = 11,
}

impl Seed {
    fn zero() -> Self {
        Self(Box::new([0; SEED_BYTES]))
    }

    /// What was hashed, as a seed. Wipes the hash function's state, which holds the key.
    fn hashed(hasher: &mut blake3::Hasher) -> Self {
        let mut seed = Self::zero();
        let mut output = hasher.finalize_xof();
        output.fill(&mut seed.0[..]);
        output.zeroize();
        hasher.zeroize();
        seed
    }

    /// A fresh seed from the operating system.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn fresh() -> Result<Self, NoRandomness> {
        // Filled in place: a copy on the stack would not be wiped.
        let mut seed = Self::zero();
        getrandom::fill(&mut seed.0[..])?;
        Ok(seed)
    }

    /// A copy of the first [`SEED_BYTES`] of a message; what is missing is zero,
    /// so check the length before.
    #[must_use]
    pub(crate) fn copy_from(message: &[u8]) -> Self {
        let mut seed = Self::zero();
        for (byte, received) in seed.0.iter_mut().zip(message) {
            *byte = *received;
        }
        seed
    }

    /// A seed that is fixed, for tests and for runs that must be repeatable.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SEED_BYTES]) -> Self {
        Self(Box::new(bytes))
    }

    /// The bytes, to hand them to the party the seed is shared with.
    #[must_use]
    pub fn expose(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// An independent seed for one use.
    ///
    /// `inference` counts the inferences of a session, `index` distinguishes places of
    /// the same purpose (a step of the plan, a parameter of the model).
    #[must_use]
    pub fn derive(&self, purpose: Purpose, inference: u64, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"secure-inference seed v1");
        hasher.update(&[purpose as u8]);
        hasher.update(&inference.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        Self::hashed(&mut hasher)
    }

    /// The seed that follows from this one in a `context`, from which this one does not follow:
    /// BLAKE3's `derive_key`. A context is a text that stands in the code once.
    #[must_use]
    pub(crate) fn one_way(&self, context: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0[..]);
        Self::hashed(&mut hasher)
    }

    /// This seed tied to one session and one plan (its digest), so that a key that leaked into
    /// another run, or was agreed on for another plan, draws nothing alike.
    #[must_use]
    pub fn bind(&self, session: SessionId, plan: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"secure-inference session v1");
        hasher.update(&session.0);
        hasher.update(plan);
        Self::hashed(&mut hasher)
    }

    /// The stream of this seed, from its beginning. Consumes the seed: a stream is drawn once.
    #[must_use]
    pub fn into_stream(self) -> KeyStream {
        let [key, counter] = self.0.as_chunks::<16>().0 else {
            unreachable!("a seed has two blocks");
        };
        KeyStream {
            cipher: Aes128::new(key.into()),
            counter: u128::from_be_bytes(*counter),
            block: Array::default(),
            unread: 0,
        }
    }
}

/// Blocks that are encrypted at a time: enough to keep the processor's pipeline full,
/// and within its first-level cache.
const BLOCKS: usize = 128;

/// AES-128-CTR key stream: the counter counts big endian over all 16 bytes.
///
#[derive(ZeroizeOnDrop)]
pub struct KeyStream {
    cipher: Aes128,
    counter: u128,
    /// The last block of which only a part was read.
    block: Array<u8, U16>,
    /// How much of it is left, its last bytes.
    unread: usize,
}

impl fmt::Debug for KeyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStream(..)")
    }
}

impl KeyStream {
    /// Overwrites `out` with the next bytes of the stream.
    pub fn fill(&mut self, out: &mut [u8]) {
        let (start, out) = out.split_at_mut(out.len().min(self.unread));
        let from = self.block.len() - self.unread;
        start.copy_from_slice(&self.block[from..from + start.len()]);
        self.unread -= start.len();
        let (blocks, rest) = Array::<u8, U16>::slice_as_chunks_mut(out);
        for blocks in blocks.chunks_mut(BLOCKS) {
            self.encrypt_counters(blocks);
        }
        if !rest.is_empty() {
            let mut block = [Array::default()];
            self.encrypt_counters(&mut block);
            [self.block] = block;
            rest.copy_from_slice(&self.block[..rest.len()]);
            self.unread = self.block.len() - rest.len();
        }
    }

    /// The next blocks of the stream, at most [`BLOCKS`].
    fn encrypt_counters(&mut self, blocks: &mut [Array<u8, U16>]) {
        let (upper, lower) = ((self.counter >> 64) as u64, self.counter as u64);
        let mut counters = [0u64; 2 * BLOCKS];
        vectorized(
            #[inline(always)]
            || {
                for (index, counter) in counters.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let lower_half = lower.wrapping_add(index as u64);
                    // It wraps once in 2^64 blocks.
                    let carry = u64::from(lower_half < lower);
                    *counter = [upper.wrapping_add(carry).to_be(), lower_half.to_be()];
                }
            },
        );
        let (counters, _) = Array::<u8, U16>::slice_as_chunks(bytemuck::cast_slice(&counters));
        // The lengths agree, which is all that could be wrong.
        let _ = self.cipher.encrypt_blocks_b2b(&counters[..blocks.len()], blocks);
        self.counter = self.counter.wrapping_add(blocks.len() as u128);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: Seed) -> [u8; 64] {
        let mut out = [0; 64];
        seed.into_stream().fill(&mut out);
        out
    }

    #[test]
    fn every_use_draws_its_own_stream() {
        let root = Seed::from_bytes([7; 32]);
        let sessions = [SessionId([1; 16]), SessionId([2; 16])];
        let plans = [[3; 32], [4; 32]];
        let mut seen = std::collections::HashSet::new();
        let mut count = 0;
        for session in sessions {
            for plan in &plans {
                for purpose in [Purpose::SessionMask, Purpose::InputMask, Purpose::Generated] {
                    for inference in [0, 1, 1 << 40] {
                        for index in [0, 1, 2] {
                            let bound = root.bind(session, plan);
                            seen.insert(draw(bound.derive(purpose, inference, index)));
                            count += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn the_stream_is_aes_128_in_counter_mode() {
        // NIST SP 800-38A, F.5.1, first and second block of the key stream.
        let mut seed = [0u8; 32];
        seed[..16].copy_from_slice(&[
            0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf,
            0x4f, 0x3c,
        ]);
        for (i, byte) in seed[16..].iter_mut().enumerate() {
            *byte = 0xf0 + i as u8;
        }
        let stream = draw(Seed::from_bytes(seed));
        let expected = [
            0xec, 0x8c, 0xdf, 0x73, 0x98, 0x60, 0x7c, 0xb0, 0xf2, 0xd2, 0x16, 0x75, 0xea, 0x9e,
            0xa1, 0xe4, 0x36, 0x2b, 0x7c, 0x3c, 0x67, 0x73, 0x51, 0x63, 0x18, 0xa0, 0x77, 0xd7,
            0xfc, 0x50, 0x73, 0xae,
        ];
        assert_eq!(stream[..32], expected);
    }

    #[test]
    fn a_stream_goes_on_wherever_it_was_interrupted() {
        let stream = || Seed::from_bytes([0xff; 32]).into_stream();
        let mut whole = vec![0; 5000];
        stream().fill(&mut whole);
        let mut pieces = vec![0; 5000];
        let (mut rest, mut interrupted) = (&mut pieces[..], stream());
        for length in [0, 1, 14, 1, 15, 17, 3, 13, 2048, 7, 0, 2100].into_iter().cycle() {
            let (piece, later) = rest.split_at_mut(length.min(rest.len()));
            interrupted.fill(piece);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        assert!(whole == pieces);
    }

    #[test]
    fn fresh_seeds_differ_and_do_not_print() {
        let (x, y) = (Seed::fresh().unwrap(), Seed::fresh().unwrap());
        assert_ne!(x.expose(), y.expose());
        assert_eq!(format!("{x:?}"), "Seed(..)");
    }
}
