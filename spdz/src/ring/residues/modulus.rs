//! The moduli, and the arithmetic of one plane.

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
/// [`vectorized`](crate::ring::kernels::vectorized).
#[derive(Clone, Copy, PartialEq)]
pub struct Modulus {
    value: i16,
    /// The largest centred residue.
    pub(super) half: i16,
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
pub(super) const ROUND: f32 = (3 << 22) as f32;

impl Modulus {
    /// Bounds of what [`Modulus::new`] takes. The arithmetic is exact in between.
    const SMALLEST: i16 = 1025;
    /// See [`Self::SMALLEST`].
    pub(in crate::ring) const LARGEST: i16 = 1433;

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

    /// The centred residue of `value`. For single values; see [`from_integers`](super::from_integers).
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
pub(super) fn elements(words: usize) -> usize {
    assert!(words.is_multiple_of(PLANES), "{words} words in {PLANES} planes");
    words / PLANES
}
