//! The arithmetic of `Int100`: integers modulo the product of ten primes, as residues.
//!
//! An integer of 102 bits is represented by its residues modulo ten primes of 11 bits,
//! the ones that TF Encrypted has for its `int100`. Sums and products are sums and
//! products of residues, which are so short that processors do many of them at once;
//! what needs the integer itself, above all its division by a power of two, needs the
//! Chinese remainder theorem.
//!
//! A tensor of `n` elements is `10 * n` words: ten *planes* after each other, plane `p`
//! with the residues of all elements modulo `MODULI[p]`. Every word is in *centred* form:
//! of the residues modulo `m` that of least magnitude, from `-(m - 1) / 2` to `(m - 1) / 2`.
//!
//! No branch and no address depends on the values, with one exception that reveals
//! nothing about them: how often sampling rejects.

use zeroize::Zeroizing;

use super::kernels::vectorized;
use crate::prg::KeyStream;

/// Residues that make an element.
pub const PLANES: usize = 10;

/// The primes: of 11 bits, and so small that 4096 products of centred residues fit 32 bits.
pub const MODULI: [i16; PLANES] = [1201, 1433, 1217, 1237, 1321, 1103, 1129, 1367, 1093, 1039];

/// The product of [`MODULI`], 102.38 bits.
pub const MODULUS: u128 = product();

/// Bytes of one element on the wire.
pub const WIRE_BYTES: usize = PLANES * size_of::<i16>();

const fn product() -> u128 {
    let (mut product, mut plane) = (1, 0);
    while plane < PLANES {
        product *= MODULI[plane] as u128;
        plane += 1;
    }
    product
}

/// An odd modulus of at most 11 bits, and arithmetic on centred residues.
///
/// The methods compile to a few vector instructions, in loops that run inside
/// [`vectorized`].
#[derive(Clone, Copy, PartialEq)]
pub struct Modulus {
    value: i16,
    /// The largest centred residue.
    half: i16,
    /// `1 / value`, rounded.
    inverse: f32,
    /// `2^22 / value`, rounded.
    product_inverse: i16,
    /// `2^16 / value`, rounded.
    word_inverse: i16,
}

impl std::fmt::Debug for Modulus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Modulus({})", self.value)
    }
}

/// Adding this rounds an `f32` below 2^22 to the nearest integer, which is then in the
/// lowest bits.
const ROUND: f32 = (3 << 22) as f32;

impl Modulus {
    /// Bounds of what [`Modulus::new`] takes. The arithmetic is exact in between.
    const SMALLEST: i16 = 1025;
    /// See [`Self::SMALLEST`].
    pub(super) const LARGEST: i16 = 1433;

    /// The moduli of the planes.
    pub const ALL: [Self; PLANES] = {
        let (mut all, mut plane) = ([Self::new(MODULI[0]); PLANES], 1);
        while plane < PLANES {
            all[plane] = Self::new(MODULI[plane]);
            plane += 1;
        }
        all
    };

    const fn new(value: i16) -> Self {
        assert!(value >= Self::SMALLEST && value <= Self::LARGEST && value % 2 == 1);
        Self {
            value,
            half: (value - 1) / 2,
            inverse: 1.0 / value as f32,
            product_inverse: (((1 << 22) + value as i32 / 2) / value as i32) as i16,
            word_inverse: (((1 << 16) + value as i32 / 2) / value as i32) as i16,
        }
    }

    /// The modulus itself.
    #[inline(always)]
    #[must_use]
    pub const fn value(self) -> i16 {
        self.value
    }

    /// The centred residue of `value`. For single values; see [`from_integers`].
    #[inline(always)]
    #[must_use]
    pub const fn of(self, value: i128) -> i16 {
        self.centred((value % self.value as i128) as i16)
    }

    /// `x + y`.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, x: i16, y: i16) -> i16 {
        self.centred(x + y)
    }

    /// `x - y`.
    #[inline(always)]
    #[must_use]
    pub const fn sub(self, x: i16, y: i16) -> i16 {
        self.centred(x - y)
    }

    /// `-x`.
    #[inline(always)]
    #[must_use]
    pub const fn neg(self, x: i16) -> i16 {
        -x
    }

    /// `x * y`.
    // All in 16 bits, which is twice as fast as 32. With products below 2^19.0 and m for
    // the modulus: t = floor(x y / 2^6) has less than 14 bits, and is at most 1 less than
    // what it rounds. Of q = floor(t c / 2^16) the factor c is at most 1/2 away from
    // 2^22 / m. So q is more than x y / m - 64 / m - 2^13 / 2^17 - 1 and at most
    // x y / m + 2^13 / 2^17, and the remainder x y - q m between -0.07 m and 1.13 m.
    // A test compares all products modulo all moduli.
    #[inline(always)]
    #[must_use]
    pub const fn mul(self, x: i16, y: i16) -> i16 {
        let quotient = high(high(x << 5, y << 5), self.product_inverse);
        self.lowered(x.wrapping_mul(y).wrapping_sub(quotient.wrapping_mul(self.value)))
    }

    /// The centred residue of any word, such as a peer sends.
    // q = floor(x c / 2^16) with c at most 1/2 away from 2^16 / m, so that x - q m is
    // between -m / 4 and 5 m / 4.
    #[inline(always)]
    #[must_use]
    pub const fn canonical(self, x: i16) -> i16 {
        let quotient = high(x, self.word_inverse);
        self.lowered(x.wrapping_sub(quotient.wrapping_mul(self.value)))
    }

    /// The centred residue of a sum of products.
    // The quotient is estimated in single precision. For a sum of 31 bits, rounding it, 1 / m
    // and their product, and subtracting from that, put it off by less than 2^6 / m, 2^-4,
    // 2^-4 and 2^-4, together by less than 1/4. So the rounded q is more than
    // x / m - 3/8 - 1/4 - 1/2 and less than x / m - 3/8 + 1/4 + 1/2, and x - q m, which is
    // computed in integers, between -3 m / 8 and 9 m / 8.
    #[inline(always)]
    #[must_use]
    pub const fn reduce(self, x: i32) -> i16 {
        let quotient = (x as f32 * self.inverse - 0.375 + ROUND).to_bits().cast_signed();
        let quotient = quotient.wrapping_sub(ROUND.to_bits().cast_signed());
        self.lowered(x.wrapping_sub(quotient.wrapping_mul(self.value as i32)) as i16)
    }

    /// The centred residue of `x`, between `-3 m / 2` and `3 m / 2`.
    // With masks made of sign bits: of a comparison the compiler may make a branch.
    #[inline(always)]
    const fn centred(self, x: i16) -> i16 {
        let below = x.wrapping_add(self.half) >> 15;
        let above = self.half.wrapping_sub(x) >> 15;
        x.wrapping_add(self.value & below).wrapping_sub(self.value & above)
    }

    /// The centred residue of `x`, between `-m / 2` and `3 m / 2`.
    #[inline(always)]
    const fn lowered(self, x: i16) -> i16 {
        let above = self.half.wrapping_sub(x) >> 15;
        x.wrapping_sub(self.value & above)
    }
}

/// The upper half of a product.
#[inline(always)]
const fn high(x: i16, y: i16) -> i16 {
    ((x as i32 * y as i32) >> 16) as i16
}

/// The planes of a tensor of residues, with their moduli.
#[inline(always)]
pub fn planes(words: &[i16]) -> impl Iterator<Item = (Modulus, &[i16])> {
    Modulus::ALL.into_iter().zip(words.chunks_exact((words.len() / PLANES).max(1)))
}

/// The planes of a tensor of residues, with their moduli.
#[inline(always)]
pub fn planes_mut(words: &mut [i16]) -> impl Iterator<Item = (Modulus, &mut [i16])> {
    Modulus::ALL.into_iter().zip(words.chunks_exact_mut((words.len() / PLANES).max(1)))
}

/// The elements of a tensor of so many words.
///
/// # Panics
///
/// If it does not have as many in each plane.
fn elements(words: usize) -> usize {
    assert!(words.is_multiple_of(PLANES), "{words} words in {PLANES} planes");
    words / PLANES
}

/// Elements that are converted together. So many that loops over them are vectorised
/// rather than unrolled, and so few that what is between the loops stays in the
/// first-level cache. What is indexed by them is called a lane.
const BATCH: usize = 64;

/// Bits of a limb. Integers are cut into limbs for the Chinese remainder theorem: limbs
/// that multiply residues in 32 bits.
const LIMB_BITS: usize = 15;

const LIMB_MASK: i32 = (1 << LIMB_BITS) - 1;

/// Limbs of an element.
const LIMBS: usize = 7;

/// Limbs of an `i128`.
const INTEGER_LIMBS: usize = 9;

/// A limb of each element of a batch.
type Lanes = [i32; BATCH];

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
        let half = modulus.of((modulus.value as i128 + 1) / 2);
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
fn store_residues<const N: usize>(limbs: &[Lanes; N], words: &mut [i16], first: usize) {
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

/// Words drawn at a time: little enough to stay in the first-level cache.
pub const DRAWN: usize = 8 * 1024;

/// What a word is replaced by until it is drawn again. No residue is as small.
const REJECTED: i16 = i16::MIN;

/// A tensor of uniformly random elements that is being drawn.
///
/// A word of the stream is read as a signed integer of 16 bits. If it is less than
/// `drawn_below`, it is taken for its residue, of which there are then equally
/// many of each. Otherwise, which happens to one word in 85, it is rejected. After every
/// [`DRAWN`] words, those that were rejected are drawn again, in their order, from what
/// follows in the stream. All this depends on nothing but the stream and the number of
/// elements, so that those who share a stream draw alike.
pub struct Sampler<'a> {
    stream: &'a mut KeyStream,
    /// Elements of the tensor.
    count: usize,
    /// The number of the next word.
    first: usize,
    spare: Spare,
}

impl<'a> Sampler<'a> {
    /// Of a tensor of so many words.
    ///
    /// # Panics
    ///
    /// If there are not as many in each plane.
    pub fn new(stream: &'a mut KeyStream, words: usize) -> Self {
        let spare = Spare { words: Zeroizing::new([0; SPARE]), used: SPARE };
        Self { stream, count: elements(words), first: 0, spare }
    }
}

impl super::Sampler<i16> for Sampler<'_> {
    fn next(&mut self, part: &mut [i16]) {
        self.stream.fill(bytemuck::cast_slice_mut(part));
        // The words of one plane after the other: `from` the first, which is in `plane`.
        let mut from = 0;
        while from < part.len() {
            let at = self.first + from;
            let plane = at / self.count;
            let to = part.len().min(from + (plane + 1) * self.count - at);
            if let Some(modulus) = Modulus::ALL.get(plane) {
                settle(*modulus, &mut part[from..to], &mut self.spare, self.stream);
            }
            from = to;
        }
        self.first += part.len();
    }
}

/// Replaces words of a stream by the residues they are taken for, and those that are
/// rejected by others.
fn settle(modulus: Modulus, words: &mut [i16], spare: &mut Spare, stream: &mut KeyStream) {
    #[inline(always)]
    fn take(modulus: Modulus, words: &mut [i16]) {
        for word in words {
            *word = modulus.taken(i16::from_le(*word));
        }
    }
    #[inline(always)]
    fn least(words: &[i16]) -> i16 {
        words.iter().fold(i16::MAX, |least, word| least.min(*word))
    }
    vectorized(
        #[inline(always)]
        || {
            take(modulus, words);
            for words in words.chunks_mut(32) {
                if least(words) > REJECTED {
                    continue;
                }
                for word in words.iter_mut().filter(|word| **word == REJECTED) {
                    while *word == REJECTED {
                        *word = modulus.taken(spare.next(stream));
                    }
                }
            }
        },
    );
}

/// Words that are drawn when some were rejected, at a time.
const SPARE: usize = 64;

/// Words of a stream that replace rejected ones.
struct Spare {
    words: Zeroizing<[i16; SPARE]>,
    used: usize,
}

impl Spare {
    fn next(&mut self, stream: &mut KeyStream) -> i16 {
        if self.used == SPARE {
            stream.fill(bytemuck::cast_slice_mut(self.words.as_mut_slice()));
            self.used = 0;
        }
        let word = i16::from_le(self.words[self.used]);
        self.used += 1;
        word
    }
}

impl Modulus {
    /// How many signed words of 16 bits are less than this is a multiple of the modulus.
    const fn drawn_below(self) -> i16 {
        (i16::MIN as i32 + (1 << 16) / self.value as i32 * self.value as i32) as i16
    }

    /// The residue that a random word is taken for, or [`REJECTED`].
    #[inline(always)]
    const fn taken(self, word: i16) -> i16 {
        let residue = self.canonical(word);
        if word < self.drawn_below() { residue } else { REJECTED }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prg::Seed;
    use crate::ring::{Int100, Ring};

    fn stream(seed: u8) -> KeyStream {
        Seed::from_bytes([seed; 32]).into_stream()
    }

    /// Centred residues by the definition.
    fn residue(value: i128, modulus: i16) -> i16 {
        let modulus = i128::from(modulus);
        let least = value.rem_euclid(modulus);
        (if least > modulus / 2 { least - modulus } else { least }) as i16
    }

    fn residues(values: &[i128]) -> Vec<i16> {
        MODULI.iter().flat_map(|m| values.iter().map(|value| residue(*value, *m))).collect()
    }

    /// The integer from 0 to `MODULUS - 1` with these residues, digit by digit in the
    /// mixed radix of the moduli (Garner).
    fn garner(residues: &[i16; PLANES]) -> u128 {
        let (mut value, mut radix) = (0u128, 1u128);
        for (residue, modulus) in residues.iter().zip(MODULI) {
            let m = modulus as u128;
            let wanted = i128::from(*residue).rem_euclid(i128::from(modulus)) as u128;
            let digit = (0..m).find(|digit| (value + digit * radix) % m == wanted).unwrap();
            value += digit * radix;
            radix *= m;
        }
        value
    }

    fn nonnegative(value: i128) -> u128 {
        value.rem_euclid(MODULUS as i128) as u128
    }

    fn centred(value: i128) -> i128 {
        let value = nonnegative(value) as i128;
        if value > MODULUS as i128 / 2 { value - MODULUS as i128 } else { value }
    }

    /// Values at and around all bounds that the conversions have.
    fn bounds() -> Vec<i128> {
        let modulus = MODULUS as i128;
        let mut bounds = vec![i128::MIN, i128::MIN + 1, i128::MAX, i128::MAX - 1];
        let mut around = |value: i128| bounds.extend((-2..=2).map(|i| value + i));
        for value in [0, modulus / 2, modulus, 2 * modulus, 7 * modulus, modulus / 3] {
            around(value);
            around(-value);
        }
        for power in 0..126 {
            around(1 << power);
            around(-(1 << power));
        }
        for m in MODULI {
            around(modulus / i128::from(m));
            around(modulus / i128::from(m) * i128::from(m / 2));
        }
        bounds
    }

    /// Integers without a pattern, of all magnitudes.
    fn values(count: usize) -> Vec<i128> {
        let mut bytes = vec![0; 16 * count];
        stream(3).fill(&mut bytes);
        let value = |(i, bytes): (usize, &[u8; 16])| i128::from_le_bytes(*bytes) >> (i % 127);
        bytes.as_chunks().0.iter().enumerate().map(value).collect()
    }

    fn element<T: Copy>(words: &[T], index: usize) -> [T; PLANES] {
        std::array::from_fn(|plane| words[plane * (words.len() / PLANES) + index])
    }

    #[test]
    fn the_moduli_are_pairwise_coprime_and_their_product_is_known() {
        assert_eq!(MODULUS, 6_616_464_272_061_971_915_798_970_247_351);
        for (i, m) in MODULI.into_iter().enumerate() {
            assert!((2..m).take_while(|d| d * d <= m).all(|d| m % d != 0), "{m} is no prime");
            assert!(!MODULI[..i].contains(&m));
        }
    }

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

    #[test]
    fn sums_and_products_of_all_residues() {
        for modulus in Modulus::ALL {
            let (m, half) = (modulus.value(), modulus.value() / 2);
            // A table instead of a division for each product.
            let table: Vec<i16> = (0..i128::from(m)).map(|value| residue(value, m)).collect();
            let expected = |value: i32| table[value.rem_euclid(i32::from(m)) as usize];
            for x in -half..=half {
                assert_eq!(modulus.neg(x), expected(-i32::from(x)));
                for y in -half..=half {
                    let (wide_x, wide_y) = (i32::from(x), i32::from(y));
                    assert_eq!(modulus.add(x, y), expected(wide_x + wide_y), "{x} + {y} mod {m}");
                    assert_eq!(modulus.sub(x, y), expected(wide_x - wide_y), "{x} - {y} mod {m}");
                    assert_eq!(modulus.mul(x, y), expected(wide_x * wide_y), "{x} * {y} mod {m}");
                }
            }
        }
    }

    #[test]
    fn all_words_have_a_canonical_residue() {
        for modulus in Modulus::ALL {
            for word in i16::MIN..=i16::MAX {
                let expected = residue(i128::from(word), modulus.value());
                assert_eq!(modulus.canonical(word), expected);
                assert_eq!(modulus.of(i128::from(word)), expected);
                assert_eq!(modulus.reduce(i32::from(word)), expected);
            }
        }
    }

    /// Wherever the quotient changes, for all quotients: nowhere else can an estimate of
    /// it go wrong first.
    #[test]
    fn sums_of_products_are_reduced_exactly() {
        for modulus in Modulus::ALL {
            let m = i64::from(modulus.value());
            for quotient in i64::from(i32::MIN) / m - 1..=i64::from(i32::MAX) / m + 1 {
                for residue in [-(m / 2), 0, m / 2] {
                    if let Ok(sum) = i32::try_from(quotient * m + residue) {
                        assert_eq!(i64::from(modulus.reduce(sum)), residue, "{sum} mod {m}");
                    }
                }
            }
            for sum in [i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX] {
                let expected = residue(i128::from(sum), modulus.value());
                assert_eq!(modulus.reduce(sum), expected);
            }
        }
    }

    #[test]
    fn integers_there_and_back() {
        for values in [bounds(), values(1000)] {
            let mut words = vec![i16::MIN; PLANES * values.len()];
            from_integers(&values, &mut words);
            assert_eq!(words, residues(&values));
            let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
            assert_eq!(to_integers(&words), expected);
        }
    }

    #[test]
    fn integers_by_another_algorithm() {
        let mut words = vec![0; PLANES * 1000];
        Int100::sample(&mut stream(8), &mut words);
        for (index, integer) in to_integers(&words).into_iter().enumerate() {
            assert_eq!(nonnegative(integer), garner(&element(&words, index)));
        }
    }

    #[test]
    fn tensors_of_all_lengths() {
        for count in (0..3).chain(60..70).chain(127..130) {
            let values = values(count);
            let mut words = vec![0; PLANES * count];
            from_integers(&values, &mut words);
            let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
            assert_eq!(to_integers(&words), expected);
            assert_eq!(planes(&words).count(), if count == 0 { 0 } else { PLANES });
            shift_right(&mut words, 9);
            let shifted: Vec<i128> =
                values.iter().map(|value| (nonnegative(*value) >> 9) as i128).collect();
            assert_eq!(words, residues(&shifted));
        }
    }

    #[test]
    fn shifts_by_all_bits() {
        let mut values = bounds();
        values.extend(self::values(500));
        let words = residues(&values);
        for bits in 1..64 {
            let mut shifted = words.clone();
            shift_right(&mut shifted, bits);
            let expected: Vec<i128> =
                values.iter().map(|value| (nonnegative(*value) >> bits) as i128).collect();
            assert_eq!(shifted, residues(&expected), "by {bits} bits");
        }
    }

    #[test]
    #[should_panic(expected = "a shift by 64 bits")]
    fn shifts_have_a_limit() {
        shift_right(&mut [0; PLANES], 64);
    }

    #[test]
    #[should_panic(expected = "11 words in 10 planes")]
    fn tensors_have_ten_planes() {
        let _ = to_integers(&[0; 11]);
    }

    /// Each residue is drawn as often as the others, and the planes do not depend on each
    /// other: every count is within five standard deviations of its mean.
    #[test]
    fn samples_are_uniform() {
        const COUNT: usize = 200_000;
        let mut words = vec![0; PLANES * COUNT];
        Int100::sample(&mut stream(1), &mut words);
        let near = |count: usize, mean: f64| (count as f64 - mean).abs() < 5.0 * mean.sqrt();
        for (modulus, plane) in planes(&words) {
            let mut counts = vec![0; modulus.value() as usize];
            for word in plane {
                counts[(word + modulus.value() / 2) as usize] += 1;
            }
            let mean = COUNT as f64 / f64::from(modulus.value());
            assert!(counts.iter().all(|count| near(*count, mean)), "{modulus:?}");
        }
        for (one, other) in (0..PLANES).flat_map(|x| (0..x).map(move |y| (x, y))) {
            let signs = |plane: usize| words[plane * COUNT..][..COUNT].iter().map(|word| *word > 0);
            let equal = signs(one).zip(signs(other)).filter(|(x, y)| x == y).count();
            assert!(near(equal, COUNT as f64 / 2.0), "planes {one} and {other}");
        }
    }

    /// What is drawn, word by word, as the documentation says.
    #[test]
    fn samples_follow_the_stream() {
        for count in [0, 1, 7, 100, 819, 820, 5000] {
            let mut words = vec![0; PLANES * count];
            Int100::sample(&mut stream(2), &mut words);
            let (mut stream, mut expected) = (stream(2), vec![0i16; PLANES * count]);
            let mut spare: Vec<i16> = Vec::new();
            for (chunk, expected) in expected.chunks_mut(DRAWN).enumerate() {
                let mut bytes = vec![0; 2 * expected.len()];
                stream.fill(&mut bytes);
                for (i, bytes) in bytes.as_chunks().0.iter().enumerate() {
                    let m = MODULI[(chunk * DRAWN + i) / count];
                    let mut drawn = i16::from_le_bytes(*bytes);
                    // Below a multiple of m words from the least.
                    while (i32::from(drawn) + (1 << 15)) >= (1 << 16) / i32::from(m) * i32::from(m)
                    {
                        if spare.is_empty() {
                            let mut bytes = [0; 2 * SPARE];
                            stream.fill(&mut bytes);
                            let words = bytes.as_chunks().0.iter();
                            spare = words.rev().map(|bytes| i16::from_le_bytes(*bytes)).collect();
                        }
                        drawn = spare.pop().unwrap();
                    }
                    expected[i] = residue(i128::from(drawn), m);
                }
            }
            assert_eq!(words, expected, "{count} elements");
        }
    }

    #[test]
    fn bounded_integers() {
        for bits in [0, 1, 15, 63, 64, 65, 87, 101, 102] {
            let mut bounded = Bounded::sample(&mut stream(4), bits, 1000);
            assert_eq!((bounded.len(), bounded.is_empty()), (1000, false));
            let integers = |bounded: &Bounded| -> Vec<i128> {
                bounded
                    .limbs()
                    .map(|(low, high)| i128::from(high) << 64 | i128::from(low))
                    .collect()
            };
            let drawn = integers(&bounded);
            // All bits below the bound occur, set and not, and none above.
            let (all, any) = drawn.iter().fold((-1, 0), |(all, any), x| (all & x, any | x));
            assert_eq!((all, any), (0, (1 << bits) - 1));
            let mut words = vec![0; PLANES * 1000];
            bounded.to_residues(&mut words);
            assert_eq!(words, residues(&drawn));
            bounded.shift_right(13);
            let shifted: Vec<i128> = drawn.iter().map(|x| x >> 13).collect();
            assert_eq!(integers(&bounded), shifted);
        }
        assert_eq!(Bounded::MAX_BITS, 102);
        assert!(Bounded::sample(&mut stream(4), 5, 0).is_empty());
    }

    #[test]
    #[should_panic(expected = "103 bits are too many")]
    fn bounded_integers_are_elements() {
        let _ = Bounded::sample(&mut stream(4), 103, 1);
    }

    #[test]
    fn limbs_of_all_magnitudes() {
        let values: Vec<u128> = bounds()
            .into_iter()
            .filter(|value| (0..1 << 102).contains(value))
            .map(|value| value as u128)
            .collect();
        let low: Vec<u64> = values.iter().map(|value| *value as u64).collect();
        let high: Vec<u64> = values.iter().map(|value| (value >> 64) as u64).collect();
        let mut words = vec![0; PLANES * values.len()];
        from_limbs(&low, &high, &mut words);
        assert_eq!(words, residues(&values.iter().map(|value| *value as i128).collect::<Vec<_>>()));
    }

    #[test]
    fn debug_output_has_no_values() {
        let bounded = Bounded::sample(&mut stream(5), 87, 3);
        assert_eq!(format!("{bounded:?}"), "Bounded { len: 3, .. }");
        assert_eq!(format!("{:?}", Modulus::ALL[0]), "Modulus(1201)");
    }

    #[test]
    fn bytes_there_and_back() {
        let mut words = vec![0; PLANES * 333];
        Int100::sample(&mut stream(6), &mut words);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes.len(), WIRE_BYTES * 333);
        assert_eq!(bytes[..2], words[0].to_le_bytes());
        let mut read = vec![0; words.len()];
        Int100::from_bytes(&bytes, &mut read);
        assert_eq!(read, words);
    }

    #[test]
    fn bytes_of_any_length_and_content() {
        for length in [0, 1, 39, 40, 41, 100] {
            let bytes: Vec<u8> = (0..length).map(|i: u8| 0x80 ^ i.wrapping_mul(7)).collect();
            let mut words = [9; 2 * PLANES];
            Int100::from_bytes(&bytes, &mut words);
            for (i, word) in words.into_iter().enumerate() {
                let expected = bytes.as_chunks().0.get(i).map_or(9, |bytes| {
                    residue(i128::from(i16::from_le_bytes(*bytes)), MODULI[i / 2])
                });
                assert_eq!(word, expected, "word {i} of {length} bytes");
            }
        }
        Int100::from_bytes(&[1, 2, 3], &mut []);
    }

    proptest! {
        #[test]
        fn any_integers(values in prop::collection::vec(any::<i128>(), 0..150)) {
            let mut words = vec![0; PLANES * values.len()];
            from_integers(&values, &mut words);
            prop_assert_eq!(&words, &residues(&values));
            let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
            prop_assert_eq!(to_integers(&words), expected);
        }

        /// As products of shares are: an element near 0, near the modulus or anywhere.
        #[test]
        fn any_shifts(value in 0..MODULUS, near in 0u128..1 << 20, bits in 1u32..64) {
            let values = [value, near, MODULUS - 1 - near].map(|value| value as i128);
            let mut words = residues(&values);
            shift_right(&mut words, bits);
            prop_assert_eq!(words, residues(&values.map(|value| value >> bits)));
        }
    }
}
