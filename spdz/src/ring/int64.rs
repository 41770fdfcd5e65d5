//! `Int64`: the integers modulo 2^64, in two's complement.

use bytes::{Bytes, BytesMut};

use super::kernels::{self, PackedRight, Rows};
use super::{Ring, Side};
use crate::geometry::{Convolution, MatMul};
use crate::prg::KeyStream;

/// The integers modulo 2^64; the paper's `int64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int64;

impl Ring for Int64 {
    type Element = u64;
    type Packed = PackedRight;

    const NAME: &'static str = "Int64";
    const WIRE_BYTES: usize = 8;

    #[inline(always)]
    fn add(x: u64, y: u64) -> u64 {
        x.wrapping_add(y)
    }

    #[inline(always)]
    fn sub(x: u64, y: u64) -> u64 {
        x.wrapping_sub(y)
    }

    #[inline(always)]
    fn mul(x: u64, y: u64) -> u64 {
        x.wrapping_mul(y)
    }

    #[inline(always)]
    fn from_integer(value: i128) -> u64 {
        value as u64
    }

    #[inline(always)]
    fn to_integer(element: u64) -> i128 {
        i128::from(element as i64)
    }

    #[inline(always)]
    fn truncate(share: u64, bits: u32, side: Side) -> u64 {
        match side {
            Side::Zero => ((share as i64) >> bits) as u64,
            Side::One => (((share.wrapping_neg() as i64) >> bits) as u64).wrapping_neg(),
        }
    }

    fn sample(stream: &mut KeyStream, out: &mut [u64]) {
        stream.fill(bytemuck::cast_slice_mut(out));
        if cfg!(target_endian = "big") {
            out.iter_mut().for_each(|element| *element = u64::from_le(*element));
        }
    }

    fn to_bytes(values: &[u64]) -> Bytes {
        if cfg!(target_endian = "little") {
            return Bytes::copy_from_slice(bytemuck::cast_slice(values));
        }
        let mut bytes = BytesMut::with_capacity(values.len() * Self::WIRE_BYTES);
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.freeze()
    }

    #[inline(always)]
    fn elements(bytes: &[u8]) -> impl Iterator<Item = u64> {
        bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn pack(values: &[u64], k: usize, n: usize) -> PackedRight {
        PackedRight::new(values, k, n)
    }

    fn matmul_add(left: &[u64], right: &PackedRight, dimensions: MatMul, out: &mut [u64]) {
        let MatMul { m, k, n } = dimensions;
        assert_eq!((right.k(), right.n(), out.len()), (k, n, m * n), "a plan's shapes agree");
        let Some(rows) = Rows::matrix(left, m, k) else {
            unreachable!("a plan's shapes agree");
        };
        kernels::multiply_add(&rows, right, out);
    }

    fn conv2d_add(input: &[u64], filter: &PackedRight, dimensions: &Convolution, out: &mut [u64]) {
        let starts = dimensions.row_starts();
        let rows = Rows::new(
            input,
            &starts,
            dimensions.filter,
            dimensions.padded_width() * dimensions.inputs,
            dimensions.filter * dimensions.inputs,
        );
        let Some(rows) = rows else {
            unreachable!("a plan's shapes agree");
        };
        kernels::multiply_add(&rows, filter, out);
    }
}
