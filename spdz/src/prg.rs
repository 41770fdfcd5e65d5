//! Randomness: seeds, key derivation with domain separation, key streams.
//!
//! Fresh seeds come from the operating system. Everything that two parties must
//! draw alike is expanded from a seed they share: keyed BLAKE3 derives one key
//! for each use (session, plan, purpose, inference, place in the plan), and
//! AES-128 in counter mode expands that key. No two uses share a key, so no
//! stream is ever drawn twice.

use std::fmt;

use aes::Aes128;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// 256 secret bits; wiped when dropped, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SEED_BYTES]);

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
    /// A server's share of the masks of the model's parameters.
    ModelMask = 3,
    /// A server's share of the mask of the client's input.
    InputMask = 4,
    /// A server's share of the mask of an opened value.
    OpeningMask = 5,
    /// A server's share of a product of masks.
    Product = 6,
    /// The sharing of zero that re-randomises the output.
    OutputZero = 7,
}

impl Seed {
    /// A fresh seed from the operating system.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn fresh() -> Result<Self, NoRandomness> {
        // Filled in place: a copy on the stack would not be wiped.
        let mut seed = Self([0; SEED_BYTES]);
        getrandom::fill(&mut seed.0)?;
        Ok(seed)
    }

    /// A copy of the first [`SEED_BYTES`] of a message; what is missing is zero,
    /// so check the length before.
    #[must_use]
    pub(crate) fn copy_from(message: &[u8]) -> Self {
        let mut seed = Self([0; SEED_BYTES]);
        for (byte, received) in seed.0.iter_mut().zip(message) {
            *byte = *received;
        }
        seed
    }

    /// A seed that is fixed, for tests and for runs that must be repeatable.
    #[must_use]
    pub fn from_bytes(bytes: [u8; SEED_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, to hand them to the party the seed is shared with.
    #[must_use]
    pub fn expose(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// An independent seed for one use.
    ///
    /// `inference` counts the inferences of a session, `index` tells places of
    /// the same purpose apart (a step of the plan, a parameter of the model).
    #[must_use]
    pub fn derive(&self, purpose: Purpose, inference: u64, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"secure-inference seed v1");
        hasher.update(&[purpose as u8]);
        hasher.update(&inference.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        let seed = Self(*hasher.finalize().as_bytes());
        hasher.zeroize();
        seed
    }

    /// This seed tied to one session and one plan (its digest), so that a key that leaked into
    /// another run, or was agreed on for another plan, draws nothing alike.
    #[must_use]
    pub fn bind(&self, session: SessionId, plan: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"secure-inference session v1");
        hasher.update(&session.0);
        hasher.update(plan);
        let seed = Self(*hasher.finalize().as_bytes());
        hasher.zeroize();
        seed
    }

    /// The stream of this seed, from its beginning. Consumes the seed: a stream is drawn once.
    #[must_use]
    pub fn into_stream(self) -> KeyStream {
        let (key, counter) = self.0.split_at(16);
        let mut words = [[0; 16]; 2];
        words[0].copy_from_slice(key);
        words[1].copy_from_slice(counter);
        let stream = KeyStream(Ctr128BE::new(&words[0].into(), &words[1].into()));
        words.zeroize();
        stream
    }
}

/// AES-128-CTR key stream.
pub struct KeyStream(Ctr128BE<Aes128>);

impl fmt::Debug for KeyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStream(..)")
    }
}

impl KeyStream {
    /// Overwrites `out` with the next bytes of the stream.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.write_keystream(out);
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
                for purpose in [Purpose::ModelMask, Purpose::InputMask, Purpose::Product] {
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
    fn fresh_seeds_differ_and_do_not_print() {
        let (x, y) = (Seed::fresh().unwrap(), Seed::fresh().unwrap());
        assert_ne!(x.expose(), y.expose());
        assert_eq!(format!("{x:?}"), "Seed(..)");
    }
}
