//! `Int64`: the integers modulo 2^64, in two's complement.

use super::binary::binary_ring;
use crate::fixed::Precision;

/// The integers modulo 2^64; the paper's `int64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int64;

binary_ring!(Int64, u64 as i64, {
    const NAME: &'static str = "Int64";
    const SUMMARY: &'static str = "Integers modulo 2^64: fast";
    /// 12 fractional bits are enough for the paper's networks (mean KL divergence about
    /// 1e-7) and keep values small against 2^64, on whose ratio the failure probability of
    /// the local truncation depends.
    const PRECISION: Precision = Precision { fraction: 12, integral: 10, ring: 64, dividend: 62 };
});
