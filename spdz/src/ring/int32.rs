//! `Int32`: the integers modulo 2^32, in two's complement.

use super::binary::binary_ring;
use crate::fixed::Precision;

/// The integers modulo 2^32, for networks with ReLU: half the bytes of [`Int64`](super::Int64)
/// and products twice as fast. No polynomial fits, and the range of sums is declared
/// ([`Ring::DECLARES_RANGES`](super::Ring::DECLARES_RANGES)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int32;

binary_ring!(Int32, u32 as i32, {
    const NAME: &'static str = "Int32";
    const SUMMARY: &'static str = "Integers modulo 2^32: half the bytes, for networks with ReLU";
    /// Sums of products have 24 fractional bits, and all that is left of the ring is their range.
    const PRECISION: Precision = Precision { fraction: 12, integral: 7, ring: 32, dividend: 31 };
    const DECLARES_RANGES: bool = true;
});
