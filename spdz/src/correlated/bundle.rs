//! A server's correlated randomness for one evaluation, in memory and sealed.

use crate::buffer::Buffer;
use crate::ops::Correlation;
use crate::plan::Plan;
use crate::prg::{Purpose, Seed};
use crate::ring::Ring;
use crate::share::Share;

/// A server's correlated randomness for one evaluation, one entry for each step.
/// Consumed by the evaluation: there is no way to use it twice.
///
/// ```
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn put_away(bundle: Bundle<Int64>, key: &Seed) -> Vec<u8> {
///     bundle.seal(key)
/// }
/// ```
///
/// ```compile_fail,E0382
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn keep_one(bundle: Bundle<Int64>, key: &Seed) -> (Vec<u8>, Bundle<Int64>) {
///     (bundle.seal(key), bundle)
/// }
/// ```
#[derive(Debug)]
pub struct Bundle<R: Ring> {
    pub(crate) inference: u64,
    pub(crate) steps: Vec<Correlation<R>>,
}

/// Bytes of the authentication tag of a sealed bundle.
const TAG_BYTES: usize = 32;

/// Sealed randomness that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed randomness of inference {inference} was changed or cut")]
pub struct SealError {
    /// The inference it was made for.
    pub inference: u64,
}

impl<R: Ring> Bundle<R> {
    /// The inference that it is for.
    #[must_use]
    pub fn inference(&self) -> u64 {
        self.inference
    }

    /// Its size in memory, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words: usize = self.shares().map(|share| share.0.len()).sum();
        words * size_of::<R::Word>()
    }

    fn shares(&self) -> impl Iterator<Item = &Share<R>> {
        self.steps.iter().flat_map(|correlation| &correlation.0)
    }

    /// Encrypts and authenticates it under `key`, to be kept outside this process's
    /// memory. Consumes it: there is one copy.
    #[must_use]
    pub fn seal(self, key: &Seed) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(self.bytes() + TAG_BYTES);
        let mut stream = key.derive(Purpose::Sealing, self.inference, 0).into_stream();
        for share in self.shares() {
            let plain: &[u8] = bytemuck::cast_slice(&share.0);
            let mut pad = Buffer::<u8>::zeros(plain.len());
            stream.fill(&mut pad);
            sealed.extend(plain.iter().zip(&pad[..]).map(|(plain, pad)| plain ^ pad));
        }
        let tag = seal_tag(key, self.inference, &sealed);
        sealed.extend_from_slice(tag.as_bytes());
        sealed
    }

    /// What was sealed for an `inference` of `plan`.
    ///
    /// # Errors
    /// If it is not what [`Bundle::seal`] made under the same key.
    pub fn open(plan: &Plan, inference: u64, sealed: &[u8], key: &Seed) -> Result<Self, SealError> {
        let mut bundle = Self { inference, steps: Vec::new() };
        let refuse = SealError { inference };
        let cut = sealed.len().checked_sub(TAG_BYTES).ok_or(refuse)?;
        let (mut rest, tag) = sealed.split_at(cut);
        // Compared in constant time by the type.
        let expected = seal_tag(key, inference, rest);
        if blake3::Hash::from_slice(tag).ok() != Some(expected) {
            return Err(refuse);
        }
        let mut stream = key.derive(Purpose::Sealing, inference, 0).into_stream();
        let mut next = |len: usize| -> Result<Share<R>, SealError> {
            let mut share = Share::<R>::zeros(len);
            let words: &mut [u8] = bytemuck::cast_slice_mut(&mut share.0);
            let (sealed, later) = rest.split_at_checked(words.len()).ok_or(refuse)?;
            rest = later;
            stream.fill(words);
            words.iter_mut().zip(sealed).for_each(|(word, sealed)| *word ^= sealed);
            Ok(share)
        };
        for (index, step) in plan.steps().iter().enumerate() {
            let mut correlation = Correlation::none();
            if index >= plan.setup_steps() {
                for len in step.operation.randomness(plan.table()).parts() {
                    correlation.0.push(next(len)?);
                }
            }
            bundle.steps.push(correlation);
        }
        if rest.is_empty() { Ok(bundle) } else { Err(refuse) }
    }
}

fn seal_tag(key: &Seed, inference: u64, sealed: &[u8]) -> blake3::Hash {
    let key = key.derive(Purpose::Sealing, inference, 1);
    blake3::keyed_hash(key.expose(), sealed)
}
