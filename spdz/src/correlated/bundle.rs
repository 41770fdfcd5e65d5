//! A server's correlated randomness for one evaluation, in memory and sealed.

use crate::buffer::Buffer;
use crate::ops::Correlation;
use crate::packed::Packed;
use crate::plan::Plan;
use crate::prg::{Purpose, Seed};
use crate::ring::Ring;
use crate::share::Share;

/// A server's correlated randomness for one evaluation, by the steps that consume some.
/// Consumed by the evaluation: there is no way to use it twice.
///
/// ```
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn put_away(bundle: Bundle<Int64>, key: Seed) -> Vec<u8> {
///     bundle.seal(key)
/// }
/// ```
///
/// ```compile_fail,E0382
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn keep_one(bundle: Bundle<Int64>, key: Seed) -> (Vec<u8>, Bundle<Int64>) {
///     (bundle.seal(key), bundle)
/// }
/// ```
#[derive(Debug)]
pub struct Bundle<R: Ring> {
    pub(crate) inference: u64,
    /// Steps in their order, each with more than nothing.
    steps: Vec<(u32, Correlation<R>)>,
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
    /// Of the correlations of all steps, of which some have none.
    pub(crate) fn new(inference: u64, steps: Vec<Correlation<R>>) -> Self {
        let some = |(_, correlation): &(u32, Correlation<R>)| {
            !correlation.shares.is_empty() || !correlation.packed.is_empty()
        };
        let mut steps: Vec<_> = (0..).zip(steps).filter(some).collect();
        steps.shrink_to_fit();
        Self { inference, steps }
    }

    /// The correlation of each step that is asked for, in their order; none where there is none.
    pub(crate) fn into_correlations(self) -> impl FnMut(usize) -> Correlation<R> {
        let mut steps = self.steps.into_iter().peekable();
        move |index| {
            let found = steps.next_if(|(step, _)| *step as usize == index);
            found.map_or_else(Correlation::none, |(_, correlation)| correlation)
        }
    }

    /// The inference that it is for.
    #[must_use]
    pub fn inference(&self) -> u64 {
        self.inference
    }

    /// The size of its elements, bytes: [`Plan::bundle_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// What it holds, in the order in which it is sealed.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().flat_map(|(_, Correlation { shares, packed })| {
            let shares = shares.iter().map(|share| bytemuck::cast_slice(&share.0));
            shares.chain(packed.iter().map(|packed| bytemuck::cast_slice(packed.words())))
        })
    }

    /// Encrypts and authenticates it under `key`, to be kept outside this process's
    /// memory. Consumes it: there is one copy. Consumes the key too, which seals one bundle: what
    /// a disk still holds of a bundle after its use is then of use to no one.
    #[must_use]
    pub fn seal(self, key: Seed) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(self.bytes() + TAG_BYTES);
        let mut stream = key.derive(Purpose::Sealing, self.inference, 0).into_stream();
        for plain in self.parts() {
            let mut pad = Buffer::<u8>::zeros(plain.len());
            stream.fill(&mut pad);
            sealed.extend(plain.iter().zip(&pad[..]).map(|(plain, pad)| plain ^ pad));
        }
        let tag = seal_tag(&key, self.inference, &sealed);
        sealed.extend_from_slice(tag.as_bytes());
        sealed
    }

    /// What was sealed for an `inference` of `plan`.
    ///
    /// # Errors
    /// If it is not what [`Bundle::seal`] made under the same key.
    pub fn open(plan: &Plan, inference: u64, sealed: &[u8], key: Seed) -> Result<Self, SealError> {
        let mut steps = Vec::new();
        let refuse = SealError { inference };
        let cut = sealed.len().checked_sub(TAG_BYTES).ok_or(refuse)?;
        let (mut rest, tag) = sealed.split_at(cut);
        // Compared in constant time by the type.
        let expected = seal_tag(&key, inference, rest);
        if blake3::Hash::from_slice(tag).ok() != Some(expected) {
            return Err(refuse);
        }
        let mut stream = key.derive(Purpose::Sealing, inference, 0).into_stream();
        let mut next = |words: &mut [u8]| -> Result<(), SealError> {
            let (sealed, later) = rest.split_at_checked(words.len()).ok_or(refuse)?;
            rest = later;
            stream.fill(words);
            words.iter_mut().zip(sealed).for_each(|(word, sealed)| *word ^= sealed);
            Ok(())
        };
        for (index, step) in plan.evaluation() {
            let randomness = step.operation.randomness(plan.table());
            let mut correlation = Correlation::none();
            for len in randomness.parts() {
                let mut share = Share::<R>::zeros(len);
                next(bytemuck::cast_slice_mut(&mut share.0))?;
                correlation.shares.push(share);
            }
            for bits in randomness.packed_parts() {
                let mut packed = Packed::zeros(randomness.packed.len, bits);
                next(bytemuck::cast_slice_mut(packed.words_mut()))?;
                correlation.packed.push(packed);
            }
            if !randomness.is_none() {
                steps.push((index as u32, correlation));
            }
        }
        if rest.is_empty() { Ok(Self { inference, steps }) } else { Err(refuse) }
    }
}

fn seal_tag(key: &Seed, inference: u64, sealed: &[u8]) -> blake3::Hash {
    let key = key.derive(Purpose::Sealing, inference, 1);
    blake3::keyed_hash(key.expose(), sealed)
}
