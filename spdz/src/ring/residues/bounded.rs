//! Integers that are drawn, and brought into residues.

use zeroize::Zeroizing;

use super::crt::{BATCH, LIMB_BITS, LIMB_MASK, LIMBS, store_residues};
use super::modulus::{MODULUS, PLANES};
use crate::prg::KeyStream;
use crate::ring::kernels::vectorized;

/// Non-negative integers below 2^102, wiped when dropped, never printed.
pub struct Bounded {
    low: Zeroizing<Vec<u64>>,
    high: Zeroizing<Vec<u64>>,
}

impl std::fmt::Debug for Bounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").field("len", &self.low.len()).finish_non_exhaustive()
    }
}

impl Bounded {
    /// The bits of an integer that is less than [`MODULUS`], whatever they are.
    pub const MAX_BITS: u32 = MODULUS.ilog2();

    /// Draws `count` integers, uniform below `2^bits`.
    ///
    /// # Panics
    ///
    /// If `bits` is more than [`Self::MAX_BITS`].
    #[must_use]
    pub fn sample(stream: &mut KeyStream, bits: u32, count: usize) -> Self {
        assert!(bits <= Self::MAX_BITS, "{bits} bits are too many");
        let draw = |bits: u32, stream: &mut KeyStream| {
            let mut words = Zeroizing::new(vec![0u64; count]);
            if bits > 0 {
                stream.fill(bytemuck::cast_slice_mut(&mut words));
            }
            let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
            words.iter_mut().for_each(|word| *word = u64::from_le(*word) & mask);
            words
        };
        let low = draw(bits.min(64), stream);
        let high = draw(bits.saturating_sub(64), stream);
        Self { low, high }
    }

    /// How many integers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.low.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.low.is_empty()
    }

    /// The integers, each as its lower and its upper 64 bits.
    pub fn limbs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.low.iter().copied().zip(self.high.iter().copied())
    }

    /// Replaces every integer by `floor(value / 2^bits)`.
    ///
    /// # Panics
    ///
    /// If `bits` is not from 1 to 63.
    pub fn shift_right(&mut self, bits: u32) {
        assert!((1..64).contains(&bits), "a shift by {bits} bits");
        vectorized(|| {
            for (low, high) in self.low.iter_mut().zip(self.high.iter_mut()) {
                *low = *low >> bits | *high << (64 - bits);
                *high >>= bits;
            }
        });
    }

    /// Adds other integers, one to each; the sums must be below 2^102, too.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.len(), other.len(), "integers to add");
        vectorized(|| {
            let other = other.low.iter().zip(other.high.iter());
            for ((low, high), (x, y)) in self.low.iter_mut().zip(self.high.iter_mut()).zip(other) {
                let sum = low.wrapping_add(*x);
                *high += y + u64::from(sum < *low);
                *low = sum;
            }
        });
    }

    /// Their residues: `words` has [`PLANES`] for each of them.
    ///
    /// # Panics
    ///
    /// If it has more or less.
    pub fn to_residues(&self, words: &mut [i16]) {
        from_limbs(&self.low, &self.high, words);
    }
}

/// The residues of integers below 2^102 (see [`Bounded`]), given as their lower and their upper 64 bits:
/// `words` has [`PLANES`] for each of them.
///
/// # Panics
///
/// If it has more or less, or if there are not as many lower as upper bits.
pub fn from_limbs(low: &[u64], high: &[u64], words: &mut [i16]) {
    assert_eq!(low.len(), high.len(), "lower and upper bits");
    assert_eq!(words.len(), PLANES * low.len(), "{} integers", low.len());
    vectorized(
        #[inline(always)]
        || {
            for (batch, (low, high)) in low.chunks(BATCH).zip(high.chunks(BATCH)).enumerate() {
                let mut lanes = ([0; BATCH], [0; BATCH]);
                match (low.first_chunk(), high.first_chunk()) {
                    (Some(low), Some(high)) => lanes = (*low, *high),
                    _ => {
                        lanes.0[..low.len()].copy_from_slice(low);
                        lanes.1[..high.len()].copy_from_slice(high);
                    }
                }
                let (low, high) = lanes;
                let mut limbs = [[0; BATCH]; LIMBS];
                for (index, limbs) in limbs.iter_mut().enumerate() {
                    let from = LIMB_BITS * index;
                    for (lane, limb) in limbs.iter_mut().enumerate() {
                        let bits = match from {
                            0..64 if from + LIMB_BITS <= 64 => low[lane] >> from,
                            0..64 => low[lane] >> from | high[lane] << (64 - from),
                            _ => high[lane] >> (from - 64),
                        };
                        *limb = bits as i32 & LIMB_MASK;
                    }
                }
                store_residues(&limbs, words, batch * BATCH);
            }
        },
    );
}
