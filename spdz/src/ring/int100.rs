//! `Int100`: ten residues of an integer modulo a number of 103 bits.

use super::kernels::residues::{PackedResidues, multiply_add};
use super::kernels::{self, Rows};
use super::residues::{self, Bounded, Modulus};
use super::truncation::Truncation;
use super::{Plane, Ring, Side, TruncationMask, planes, planes_mut, threads};
use crate::buffer::Buffer;
use crate::fixed::Precision;
use crate::geometry::{Linear, MatMul};
use crate::prg::KeyStream;

/// The integers modulo the product of ten primes of 11 bits, as residues; the paper's
/// `int100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int100;

/// Statistical security of interactive truncation, bits.
const STATISTICAL_SECURITY: u32 = 40;

/// Bits of each server's part of the mask of dividends: with the offset these have one
/// bit more than their magnitude. Both parts and the dividend together are less than
/// the modulus, so that opening them never wraps.
const MASK_BITS: u32 = Int100::DIVIDEND_BITS + 1 + STATISTICAL_SECURITY;

const _: () = assert!((2 << MASK_BITS) + (2 << Int100::DIVIDEND_BITS) < residues::MODULUS);

impl Plane for Modulus {
    type Word = i16;

    #[inline(always)]
    fn add(self, x: i16, y: i16) -> i16 {
        Self::add(self, x, y)
    }

    #[inline(always)]
    fn sub(self, x: i16, y: i16) -> i16 {
        Self::sub(self, x, y)
    }

    #[inline(always)]
    fn mul(self, x: i16, y: i16) -> i16 {
        Self::mul(self, x, y)
    }

    #[inline(always)]
    fn of(self, integer: i128) -> i16 {
        Self::of(self, integer)
    }

    #[inline(always)]
    fn sent(self, x: i16) -> i16 {
        x.to_le()
    }

    #[inline(always)]
    fn received(self, x: i16) -> i16 {
        self.canonical(i16::from_le(x))
    }
}

fn negate(words: &mut [i16]) {
    kernels::vectorized(
        #[inline(always)]
        || words.iter_mut().for_each(|word| *word = -*word),
    );
}

/// `words + integer`, element by element.
fn add_integer(words: &mut [i16], integer: i128) {
    for (index, words) in planes_mut::<Int100>(words).enumerate() {
        let plane = Int100::plane(index);
        let integer = plane.of(integer);
        kernels::vectorized(
            #[inline(always)]
            || words.iter_mut().for_each(|word| *word = plane.add(*word, integer)),
        );
    }
}

/// `floor(x / 2^bits)` of signed integers, those from `-2^101` on: a share of a small
/// number that is not random, such as a public one, stays one.
fn shift_signed(words: &mut [i16], bits: u32) {
    const HALF: u32 = 101;
    add_integer(words, 1 << HALF);
    residues::shift_right(words, bits);
    add_integer(words, -(1 << (HALF - bits)));
}

impl Ring for Int100 {
    type Word = i16;
    type Plane = Modulus;
    type Packed = Vec<PackedResidues>;
    type Sampler<'a> = residues::Sampler<'a>;

    const NAME: &'static str = "Int100";
    const SUMMARY: &'static str = "Ten residues of integers of 103 bits: precise";
    /// Two more fractional bits than [`Int64`](super::Int64). The dividends' 60 bits are what
    /// interactive truncation leaves of the ring's 102 after 40 for statistical security and
    /// two for sums of masks; inner products of up to 4096 factors fit.
    const PRECISION: Precision = Precision { fraction: 14, integral: 10, ring: 102, dividend: 60 };
    const PLANES: usize = residues::PLANES;
    const WIRE_BYTES: usize = residues::WIRE_BYTES;
    const PART: usize = residues::DRAWN;
    const TRUNCATION_PARTS: usize = 0;
    const TRUNCATION_ERROR: f64 = 1.5;
    /// Two dividends differ by less than `2^(DIVIDEND_BITS + 1)`, and the other server's part of the
    /// mask is uniform over `2^MASK_BITS` integers.
    const DIVIDEND_DISTANCE: f64 = 1.0 / (1u64 << STATISTICAL_SECURITY) as f64;
    /// The residues have to be brought together and taken apart again.
    const LOCAL_TRUNCATION_IS_FREE: bool = false;
    const USUAL_TRUNCATION: Truncation = Truncation::Interactive;

    fn plane(index: usize) -> Modulus {
        Modulus::ALL[index]
    }

    fn from_integers(integers: &[i128], words: &mut [i16]) {
        residues::from_integers(integers, words);
    }

    fn to_integers(words: &[i16]) -> Vec<i128> {
        residues::to_integers(words)
    }

    fn truncate(share: &mut [i16], bits: u32, side: Side) {
        match side {
            Side::Zero => shift_signed(share, bits),
            Side::One => {
                negate(share);
                shift_signed(share, bits);
                negate(share);
            }
        }
    }

    /// Each server expands its part `r_i` of the mask, an integer: what is left of `r`
    /// for the other server is uniform over 101 bits, against 61 of the dividend. The
    /// quotients end up under `-floor(r_0 / 2^bits) - floor(r_1 / 2^bits)`, which each
    /// server shares as it is: the producer has nothing to send.
    fn truncation_mask(mut stream: KeyStream, bits: u32, len: usize) -> TruncationMask<Self> {
        let mut mask = Bounded::sample(&mut stream, MASK_BITS, len);
        let mut dividend = Buffer::zeros(Self::PLANES * len);
        mask.to_residues(&mut dividend);
        mask.shift_right(bits);
        let mut quotient = Buffer::zeros(Self::PLANES * len);
        mask.to_residues(&mut quotient);
        negate(&mut quotient);
        TruncationMask { dividend, quotient }
    }

    fn truncation_correlation(streams: [KeyStream; 2], bits: u32, len: usize) -> Buffer<i16> {
        let [mut mask, other] = streams.map(|mut stream| {
            let mut mask = Bounded::sample(&mut stream, MASK_BITS, len);
            mask.shift_right(bits);
            mask
        });
        mask.add(&other);
        let mut quotient = Buffer::zeros(Self::PLANES * len);
        mask.to_residues(&mut quotient);
        negate(&mut quotient);
        quotient
    }

    /// The fractions that the two parts of the mask lose amount to one unit of the
    /// quotient on average, and the opened sum loses half of one: half a unit less makes
    /// up for them.
    fn dividend_offset(bits: u32) -> i128 {
        (1 << Self::DIVIDEND_BITS) - (1 << (bits - 1))
    }

    fn truncate_opened(opened: &mut [i16], parts: Buffer<i16>, bits: u32) -> Buffer<i16> {
        residues::shift_right(opened, bits);
        add_integer(opened, -(1 << (Self::DIVIDEND_BITS - bits)));
        parts
    }

    fn sampler(stream: &mut KeyStream, len: usize) -> residues::Sampler<'_> {
        residues::Sampler::new(stream, len)
    }

    fn pack(words: &[i16], linear: &Linear) -> Vec<PackedResidues> {
        let MatMul { k, n, .. } = linear.as_matmul();
        let segment = match linear {
            Linear::MatMul(_) => k,
            Linear::Conv2d(convolution) => convolution.segments().2,
        };
        planes::<Self>(words)
            .zip(Modulus::ALL)
            .map(|(words, modulus)| PackedResidues::new(words, k, n, segment, modulus))
            .collect()
    }

    fn multiply_add(linear: &Linear, left: &[i16], right: &Vec<PackedResidues>, out: &mut [i16]) {
        let starts = match linear {
            Linear::MatMul(_) => Vec::new(),
            Linear::Conv2d(convolution) => convolution.row_starts(),
        };
        let multiply = |((left, right), out): ((&[i16], &PackedResidues), &mut [i16])| {
            let rows = match linear {
                Linear::MatMul(MatMul { m, k, .. }) => Rows::matrix(left, *m, *k),
                Linear::Conv2d(convolution) => {
                    let (segments, stride, length) = convolution.segments();
                    Rows::new(left, &starts, segments, stride, length)
                }
            };
            let Some(rows) = rows else {
                unreachable!("a plan's shapes agree");
            };
            multiply_add(&rows, right, out);
        };
        let operands = planes::<Self>(left).zip(right).zip(planes_mut::<Self>(out));
        let MatMul { m, k, n } = linear.as_matmul();
        threads::each(operands, Self::PLANES * m * k * n, multiply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_goes_through_the_modulus() {
        let integers = [0, 1, -1, 12_345_678_901_234_567_890, -(1 << 90)];
        let mut words = vec![0; 50];
        Int100::from_integers(&integers, &mut words);
        assert_eq!(Int100::to_integers(&words), integers);
        let mut read = vec![0; 50];
        let bytes = Int100::to_bytes(words[..].into());
        Int100::from_bytes(&bytes, &mut read);
        assert_eq!(words, read);
        super::super::received::<Int100>(&bytes, &mut read, 0, Plane::add);
        assert_eq!(Int100::to_integers(&read), integers.map(|integer| 2 * integer));
    }
}
