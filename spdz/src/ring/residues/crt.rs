//! Integers of elements and elements of integers, by the Chinese remainder theorem.

use super::modulus::{MODULI, MODULUS, Modulus, PLANES, ROUND, elements};
use crate::ring::kernels::vectorized;

/// Elements that are converted together. So many that loops over them are vectorised
/// rather than unrolled, and so few that what is between the loops stays in the
/// first-level cache. What is indexed by them is called a lane.
pub(super) const BATCH: usize = 64;

/// Bits of a limb. Integers are cut into limbs for the Chinese remainder theorem: limbs
/// that multiply residues in 32 bits.
pub(super) const LIMB_BITS: usize = 15;

pub(super) const LIMB_MASK: i32 = (1 << LIMB_BITS) - 1;

/// Limbs of an element.
pub(super) const LIMBS: usize = 7;

/// Limbs of an `i128`.
const INTEGER_LIMBS: usize = 9;

/// A limb of each element of a batch.
pub(super) type Lanes = [i32; BATCH];

const fn limb(value: u128, index: usize) -> i32 {
    (value >> (LIMB_BITS * index)) as i32 & LIMB_MASK
}

/// The limbs of the modulus.
const MODULUS_LIMBS: [i32; LIMBS] = {
    let (mut limbs, mut index) = ([0; LIMBS], 0);
    while index < LIMBS {
        limbs[index] = limb(MODULUS, index);
        index += 1;
    }
    limbs
};

/// The sum of an element's residues, each times its integer of [`BASIS`], is less than this
/// many times the modulus in magnitude.
const BIAS: i32 = {
    let (mut bias, mut plane) = (0, 0);
    while plane < PLANES {
        bias += Modulus::ALL[plane].half as i32;
        plane += 1;
    }
    bias
};

/// The limbs of `BIAS` times the modulus, the last one with all the rest.
const BIAS_LIMBS: [i32; LIMBS] = {
    let (mut limbs, mut carry, mut index) = ([0; LIMBS], 0, 0);
    while index < LIMBS {
        let limb = MODULUS_LIMBS[index] * BIAS + carry;
        (limbs[index], carry) = (limb & LIMB_MASK, limb >> LIMB_BITS);
        index += 1;
    }
    limbs[LIMBS - 1] += carry << LIMB_BITS;
    limbs
};

/// For each plane the limbs of the integer below the modulus that is 1 modulo this
/// plane's prime and 0 modulo the others.
const BASIS: [[i32; LIMBS]; PLANES] = {
    let (mut basis, mut plane) = ([[0; LIMBS]; PLANES], 0);
    while plane < PLANES {
        let cofactor = MODULUS / MODULI[plane] as u128;
        let mut element = cofactor;
        while element % MODULI[plane] as u128 != 1 {
            element += cofactor;
        }
        let mut index = 0;
        while index < LIMBS {
            basis[plane][index] = limb(element, index);
            index += 1;
        }
        plane += 1;
    }
    basis
};

/// For each plane the residues of the powers of `2^LIMB_BITS`.
const POWERS: [[i32; INTEGER_LIMBS]; PLANES] = {
    let (mut powers, mut plane) = ([[0; INTEGER_LIMBS]; PLANES], 0);
    while plane < PLANES {
        let mut index = 0;
        while index < INTEGER_LIMBS {
            powers[plane][index] = Modulus::ALL[plane].of(1 << (LIMB_BITS * index)) as i32;
            index += 1;
        }
        plane += 1;
    }
    powers
};

/// For each plane the residues of the inverses of the powers of 2.
const INVERSES: [[i16; 64]; PLANES] = {
    let (mut inverses, mut plane) = ([[1; 64]; PLANES], 0);
    while plane < PLANES {
        let (modulus, mut power) = (Modulus::ALL[plane], 1);
        let half = modulus.of((modulus.value() as i128 + 1) / 2);
        while power < 64 {
            inverses[plane][power] = modulus.mul(inverses[plane][power - 1], half);
            power += 1;
        }
        plane += 1;
    }
    inverses
};

/// The words of the elements from `first` on, a batch in each plane, with zeros after the
/// last element.
#[inline(always)]
fn load(words: &[i16], first: usize) -> [[i16; BATCH]; PLANES] {
    let count = words.len() / PLANES;
    let mut batch = [[0; BATCH]; PLANES];
    for (plane, batch) in batch.iter_mut().enumerate() {
        let words = &words[plane * count..][..count][first..];
        match words.first_chunk() {
            Some(words) => *batch = *words,
            None => batch.iter_mut().zip(words).for_each(|(word, from)| *word = *from),
        }
    }
    batch
}

/// Writes the words of plane `plane` from element `first` on.
#[inline(always)]
fn store(words: &mut [i16], plane: usize, first: usize, batch: &[i16; BATCH]) {
    let count = words.len() / PLANES;
    let words = &mut words[plane * count..][..count][first..];
    match words.first_chunk_mut() {
        Some(words) => *words = *batch,
        None => words.iter_mut().zip(batch).for_each(|(word, from)| *word = *from),
    }
}

/// Of limbs of any size and sign, limbs from 0 to `2^LIMB_BITS - 1`, except for the last
/// one, which takes what is left over.
#[inline(always)]
fn carry(limbs: &mut [i32; LIMBS]) {
    for index in 1..LIMBS {
        limbs[index] += limbs[index - 1] >> LIMB_BITS;
        limbs[index - 1] &= LIMB_MASK;
    }
}

/// The integers from 0 to `MODULUS - 1` with these residues, by the Chinese remainder
/// theorem: their limbs.
#[inline(always)]
fn reconstruct(residues: &[[i16; BATCH]; PLANES]) -> [Lanes; LIMBS] {
    // The sum of products with the basis and the bias is from 0 to 2 BIAS times the modulus,
    // which is less than 2^14. No limb of it exceeds 2^28, and no limb of the multiple of the
    // modulus that is subtracted from it 2^29.
    let mut limbs = [[0; BATCH]; LIMBS];
    for (index, limbs) in limbs.iter_mut().enumerate() {
        for (lane, limb) in limbs.iter_mut().enumerate() {
            *limb = BIAS_LIMBS[index];
            for plane in 0..PLANES {
                *limb += i32::from(residues[plane][lane]) * BASIS[plane][index];
            }
        }
    }
    // Not over one limb's lanes: it takes the same lane of all limbs.
    #[allow(clippy::needless_range_loop)]
    for lane in 0..BATCH {
        let mut all = [0; LIMBS];
        for index in 0..LIMBS {
            all[index] = limbs[index][lane];
        }
        let all = reduced(all);
        for index in 0..LIMBS {
            limbs[index][lane] = all[index];
        }
    }
    limbs
}

/// The limbs of an integer modulo the modulus, of which it is less than `2 * BIAS` times.
#[inline(always)]
fn reduced(mut limbs: [i32; LIMBS]) -> [i32; LIMBS] {
    // How often the modulus is in the sum, from the leading limbs. Single precision puts
    // that off by less than 2^-7. A little less than it, rounded down, is the quotient or
    // one less.
    const SCALE: f32 = (1u128 << (4 * LIMB_BITS)) as f32 / MODULUS as f32;
    const STEP: f32 = (1 << LIMB_BITS) as f32;
    let [.., fifth, sixth, seventh] = limbs;
    let leading = (seventh as f32 * STEP + sixth as f32) * STEP + fifth as f32;
    let quotient = (leading * SCALE - (0.5 + 1.0 / 64.0) + ROUND).to_bits().cast_signed();
    let quotient = quotient.wrapping_sub(ROUND.to_bits().cast_signed());
    for index in 0..LIMBS {
        limbs[index] -= quotient * MODULUS_LIMBS[index];
    }
    carry(&mut limbs);
    // What is left is less than twice the modulus. It is the modulus too large unless one
    // time less is negative.
    let mut less = limbs;
    for index in 0..LIMBS {
        less[index] -= MODULUS_LIMBS[index];
    }
    carry(&mut less);
    let negative = less[LIMBS - 1] >> 31;
    for index in 0..LIMBS {
        limbs[index] = (limbs[index] & negative) | (less[index] & !negative);
    }
    limbs
}

/// Converts signed integers to residues: `words` has [`PLANES`] for each of them.
///
/// # Panics
///
/// If it has more or less.
pub fn from_integers(values: &[i128], words: &mut [i16]) {
    assert_eq!(words.len(), PLANES * values.len(), "{} integers", values.len());
    vectorized(
        #[inline(always)]
        || {
            for (batch, values) in values.chunks(BATCH).enumerate() {
                let mut limbs = [[0; BATCH]; INTEGER_LIMBS];
                for (lane, value) in values.iter().enumerate() {
                    for (index, limbs) in limbs.iter_mut().enumerate().take(INTEGER_LIMBS - 1) {
                        limbs[lane] = (value >> (LIMB_BITS * index)) as i32 & LIMB_MASK;
                    }
                    limbs[INTEGER_LIMBS - 1][lane] =
                        (value >> (LIMB_BITS * (INTEGER_LIMBS - 1))) as i32;
                }
                store_residues(&limbs, words, batch * BATCH);
            }
        },
    );
}

/// Writes the residues of integers given by their limbs.
// Of at most nine limbs of 15 bits, each times a residue of 10, the sum fits 32 bits.
#[inline(always)]
pub(super) fn store_residues<const N: usize>(limbs: &[Lanes; N], words: &mut [i16], first: usize) {
    for (plane, modulus) in Modulus::ALL.into_iter().enumerate() {
        let mut residues = [0; BATCH];
        for (lane, residue) in residues.iter_mut().enumerate() {
            let mut sum = 0;
            for index in 0..N {
                sum += limbs[index][lane] * POWERS[plane][index];
            }
            *residue = modulus.reduce(sum);
        }
        store(words, plane, first, &residues);
    }
}

/// The signed integers of least magnitude with these residues, from
/// `-(MODULUS - 1) / 2` to `(MODULUS - 1) / 2`.
#[must_use]
pub fn to_integers(words: &[i16]) -> Vec<i128> {
    let count = elements(words.len());
    let mut values = Vec::with_capacity(count);
    vectorized(
        #[inline(always)]
        || {
            for first in (0..count).step_by(BATCH) {
                let limbs = reconstruct(&load(words, first));
                for lane in 0..BATCH.min(count - first) {
                    let mut value = 0;
                    for limbs in limbs.iter().rev() {
                        value = value << LIMB_BITS | i128::from(limbs[lane]);
                    }
                    let negative = ((MODULUS as i128 - 1) / 2 - value) >> 127;
                    values.push(value - (MODULUS as i128 & negative));
                }
            }
        },
    );
    values
}

/// Limbs that a shift drops, at most.
const DROPPED: usize = 5;

/// Replaces every element `v`, read as an integer from 0 to `MODULUS - 1`, by
/// `floor(v / 2^bits)`.
///
/// # Panics
///
/// If `bits` is not from 1 to 63.
pub fn shift_right(words: &mut [i16], bits: u32) {
    assert!((1..64).contains(&bits), "a shift by {bits} bits");
    // floor(v / 2^bits) is v minus its lowest bits, divided by 2^bits, and so are its
    // residues: only the lowest limbs of v are multiplied.
    let mut factors = [[0; DROPPED]; PLANES];
    let mut inverses = [0; PLANES];
    for (plane, modulus) in Modulus::ALL.into_iter().enumerate() {
        let inverse = INVERSES[plane][bits as usize];
        inverses[plane] = i32::from(inverse);
        for (factor, power) in factors[plane].iter_mut().zip(POWERS[plane]) {
            *factor = i32::from(modulus.mul(inverse, power as i16));
        }
    }
    let masks: [i32; DROPPED] = std::array::from_fn(|index| {
        let bits = (bits as usize).saturating_sub(LIMB_BITS * index).min(LIMB_BITS);
        (1 << bits) - 1
    });
    let dropped = (bits as usize).div_ceil(LIMB_BITS);
    vectorized(
        #[inline(always)]
        || match dropped {
            1 => shift_batches::<1>(words, &inverses, &factors, &masks),
            2 => shift_batches::<2>(words, &inverses, &factors, &masks),
            3 => shift_batches::<3>(words, &inverses, &factors, &masks),
            4 => shift_batches::<4>(words, &inverses, &factors, &masks),
            _ => shift_batches::<DROPPED>(words, &inverses, &factors, &masks),
        },
    );
}

/// [`shift_right`] where the bits that are dropped are in the first `N` limbs, those of
/// `masks`. To the sum of `inverses` times the residues the limbs come in multiples of
/// `factors`; with five limbs of 15 bits and factors of 10 it fits 32 bits.
#[inline(always)]
fn shift_batches<const N: usize>(
    words: &mut [i16],
    inverses: &[i32; PLANES],
    factors: &[[i32; DROPPED]; PLANES],
    masks: &[i32; DROPPED],
) {
    for first in (0..elements(words.len())).step_by(BATCH) {
        let residues = load(words, first);
        let limbs = reconstruct(&residues);
        for (plane, modulus) in Modulus::ALL.into_iter().enumerate() {
            let mut shifted = [0; BATCH];
            for (lane, word) in shifted.iter_mut().enumerate() {
                let mut sum = i32::from(residues[plane][lane]) * inverses[plane];
                for index in 0..N {
                    sum -= (limbs[index][lane] & masks[index]) * factors[plane][index];
                }
                *word = modulus.reduce(sum);
            }
            store(words, plane, first, &shifted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_of_the_remainder_theorem() {
        let join = |limbs: [i32; LIMBS]| {
            let limbs = limbs.iter().rev();
            limbs.fold(0u128, |value, limb| (value << LIMB_BITS) + *limb as u128)
        };
        assert_eq!(join(MODULUS_LIMBS), MODULUS);
        assert_eq!(join(BIAS_LIMBS), MODULUS * BIAS as u128);
        for (plane, basis) in BASIS.into_iter().enumerate() {
            for (other, modulus) in MODULI.into_iter().enumerate() {
                assert_eq!(join(basis) % modulus as u128, u128::from(plane == other));
            }
        }
        for (modulus, inverses) in Modulus::ALL.into_iter().zip(INVERSES) {
            for (power, inverse) in inverses.into_iter().enumerate() {
                assert_eq!(modulus.mul(inverse, modulus.of(1 << power)), 1);
            }
        }
    }
}
