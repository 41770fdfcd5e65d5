//! `Int64`: the integers modulo 2^64, in two's complement.

use super::kernels::{self, PackedRight, Rows};
use super::truncation::Truncation;
use super::{BinaryRing, Plane, Ring, Sampler, Side, TruncationMask, threads};
use crate::buffer::Buffer;
use crate::fixed::Precision;
use crate::geometry::{Linear, MatMul};
use crate::prg::KeyStream;

/// The integers modulo 2^64; the paper's `int64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int64;

impl Sampler<u64> for &mut KeyStream {
    fn next(&mut self, part: &mut [u64]) {
        self.fill(bytemuck::cast_slice_mut(part));
        if cfg!(target_endian = "big") {
            part.iter_mut().for_each(|word| *word = u64::from_le(*word));
        }
    }
}

impl Plane for Int64 {
    type Word = u64;

    #[inline(always)]
    fn add(self, x: u64, y: u64) -> u64 {
        x.wrapping_add(y)
    }

    #[inline(always)]
    fn sub(self, x: u64, y: u64) -> u64 {
        x.wrapping_sub(y)
    }

    #[inline(always)]
    fn mul(self, x: u64, y: u64) -> u64 {
        x.wrapping_mul(y)
    }

    #[inline(always)]
    fn of(self, integer: i128) -> u64 {
        integer as u64
    }

    #[inline(always)]
    fn sent(self, x: u64) -> u64 {
        x.to_le()
    }

    #[inline(always)]
    fn received(self, x: u64) -> u64 {
        u64::from_le(x)
    }
}

impl BinaryRing for Int64 {
    const BITS: u32 = 64;

    #[inline(always)]
    fn word(integer: u64) -> u64 {
        integer
    }
}

impl Ring for Int64 {
    type Word = u64;
    type Plane = Self;
    type Packed = PackedRight;
    type Sampler<'a> = &'a mut KeyStream;

    const NAME: &'static str = "Int64";
    const SUMMARY: &'static str = "Integers modulo 2^64: fast";
    /// 12 fractional bits are enough for the paper's networks (mean KL divergence about
    /// 1e-7) and keep values small against 2^64, on whose ratio the failure probability of
    /// the local truncation depends.
    const PRECISION: Precision = Precision { fraction: 12, integral: 10, ring: 64, dividend: 62 };
    const PLANES: usize = 1;
    const WIRE_BYTES: usize = 8;
    const PART: usize = 4 << 10;
    const TRUNCATION_PARTS: usize = 2;
    const TRUNCATION_ERROR: f64 = 1.0;
    /// A shift of each word.
    const LOCAL_TRUNCATION_IS_FREE: bool = true;
    const IS_BINARY: bool = true;
    const USUAL_TRUNCATION: Truncation = Truncation::Local;

    fn plane(_: usize) -> Self {
        Self
    }

    fn from_integers(integers: &[i128], words: &mut [u64]) {
        for (word, integer) in words.iter_mut().zip(integers) {
            *word = *integer as u64;
        }
    }

    fn to_integers(words: &[u64]) -> Vec<i128> {
        words.iter().map(|word| i128::from(*word as i64)).collect()
    }

    fn truncate(share: &mut [u64], bits: u32, side: Side) {
        // A match outside the loop, so that each side's loop is vectorised on its own.
        kernels::vectorized(
            #[inline(always)]
            || match side {
                Side::Zero => {
                    for x in share {
                        *x = ((*x as i64) >> bits) as u64;
                    }
                }
                Side::One => {
                    for x in share {
                        *x = (((x.wrapping_neg() as i64) >> bits) as u64).wrapping_neg();
                    }
                }
            },
        );
    }

    fn truncation_mask(mut stream: KeyStream, _: u32, len: usize) -> TruncationMask<Self> {
        let mut dividend = Buffer::zeros(len);
        Self::sample(&mut stream, &mut dividend);
        TruncationMask { dividend, quotient: Buffer::zeros(0) }
    }

    /// Of `r`, the sum of both servers' parts, `-(r >> bits)`, and what a wrap of the opening
    /// adds: `r`'s top bit times `2^(64 - bits)`.
    fn truncation_correlation(streams: [KeyStream; 2], bits: u32, len: usize) -> Buffer<u64> {
        let [part0, part1] =
            streams.map(|stream| Self::truncation_mask(stream, bits, len).dividend);
        let mut parts = Buffer::zeros(2 * len);
        let (quotients, wraps) = parts.split_at_mut(len);
        kernels::vectorized(
            #[inline(always)]
            || {
                let masks = part0.iter().zip(&part1[..]);
                for ((x, y), (quotient, wrap)) in masks.zip(quotients.iter_mut().zip(wraps)) {
                    let r = x.wrapping_add(*y);
                    *quotient = (r >> bits).wrapping_neg();
                    *wrap = (r >> 63) << (64 - bits);
                }
            },
        );
        parts
    }

    fn dividend_offset(_: u32) -> i128 {
        1 << Self::DIVIDEND_BITS
    }

    /// With the dividend `0 <= y < 2^63` and the opened `c = y + r mod 2^64`, the sum
    /// wrapped if and only if `r` has the top bit and `c` has not. So
    /// `(c >> bits) - (r >> bits)`, plus `2^(64 - bits)` if it wrapped, is
    /// `floor(y / 2^bits)` plus the carry of the low bits: 0 or 1.
    fn truncate_opened(opened: &mut [u64], parts: Buffer<u64>, bits: u32) -> Buffer<u64> {
        let offset = 1u64 << (Self::DIVIDEND_BITS - bits);
        let mut mask = Buffer::zeros(opened.len());
        let (quotients, wraps) = parts.split_at(opened.len());
        kernels::vectorized(
            #[inline(always)]
            || {
                let parts = quotients.iter().zip(wraps);
                for ((c, mask), (quotient, wrap)) in opened.iter_mut().zip(&mut mask[..]).zip(parts)
                {
                    let may_have_wrapped = (*c >> 63).wrapping_sub(1);
                    *mask = quotient.wrapping_add(*wrap & may_have_wrapped);
                    *c = (*c >> bits).wrapping_sub(offset);
                }
            },
        );
        mask
    }

    fn sampler(stream: &mut KeyStream, _: usize) -> &mut KeyStream {
        stream
    }

    fn pack(words: &[u64], linear: &Linear) -> PackedRight {
        let MatMul { k, n, .. } = linear.as_matmul();
        PackedRight::new(words, k, n)
    }

    fn multiply_add(linear: &Linear, left: &[u64], right: &PackedRight, out: &mut [u64]) {
        let starts;
        let rows = match linear {
            Linear::MatMul(MatMul { m, k, .. }) => Rows::matrix(left, *m, *k),
            Linear::Conv2d(convolution) => {
                starts = convolution.row_starts();
                let (segments, stride, length) = convolution.segments();
                Rows::new(left, &starts, segments, stride, length)
            }
        };
        let Some(rows) = rows else {
            unreachable!("a plan's shapes agree");
        };
        let MatMul { n, .. } = linear.as_matmul();
        threads::by_rows(&rows, n, out, |rows, out| kernels::multiply_add(rows, right, out));
    }
}
