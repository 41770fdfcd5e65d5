//! Rings: the integers that shares live in, and the kernels on them.
//!
//! The protocol is written against [`Ring`] and knows nothing of machine words.
//! A ring offers scalar arithmetic (loops over it run inside
//! [`kernels::vectorized`]), products with a packed right operand, uniform
//! sampling from a key stream and a byte form for the wire.

use std::fmt::Debug;

use bytes::Bytes;
use zeroize::DefaultIsZeroes;

pub mod kernels;

mod int64;

pub use int64::Int64;

use crate::geometry::{Convolution, MatMul};
use crate::prg::KeyStream;

/// Which of the two servers: the sign conventions of the protocol differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `server0`, which adds public constants.
    Zero,
    /// `server1`, which adds the products of public values.
    One,
}

/// A finite ring whose elements represent signed integers.
pub trait Ring: Copy + Debug + Send + Sync + 'static {
    /// One element; its default is zero.
    type Element: DefaultIsZeroes + PartialEq + Eq + Debug + Send + Sync + 'static;
    /// The right operand of products, prepared once and used often; wiped when dropped.
    type Packed: Send + Sync;

    /// What configuration and reports call it.
    const NAME: &'static str;
    /// Bytes of one element on the wire.
    const WIRE_BYTES: usize;

    /// `x + y`.
    fn add(x: Self::Element, y: Self::Element) -> Self::Element;
    /// `x - y`.
    fn sub(x: Self::Element, y: Self::Element) -> Self::Element;
    /// `x * y`.
    fn mul(x: Self::Element, y: Self::Element) -> Self::Element;
    /// The element that represents a signed integer.
    fn from_integer(value: i128) -> Self::Element;
    /// The signed integer of least magnitude that an element represents.
    fn to_integer(element: Self::Element) -> i128;

    /// One server's part of dividing a shared value by `2^bits`, without interaction.
    ///
    /// The local truncation of SecureML (Mohassel and Zhang 2017, section 4.1):
    /// server 0 shifts its share, server 1 shifts the negative of its share and
    /// negates again. The shared result is `floor(x / 2^bits)` plus 0 or 1 with
    /// mean error zero, except with probability `|x| / |ring|`, when it is wrong
    /// by `|ring| / 2^bits`.
    fn truncate(share: Self::Element, bits: u32, side: Side) -> Self::Element;

    /// Fills `out` with uniformly random elements.
    fn sample(stream: &mut KeyStream, out: &mut [Self::Element]);

    /// The wire form of `values`: `WIRE_BYTES` each, little endian.
    fn to_bytes(values: &[Self::Element]) -> Bytes;
    /// The elements in `bytes`; what is missing or left over is ignored, so check the length before.
    fn elements(bytes: &[u8]) -> impl Iterator<Item = Self::Element>;

    /// Prepares a `[k, n]` row-major matrix as the right operand of products.
    fn pack(values: &[Self::Element], k: usize, n: usize) -> Self::Packed;

    /// `out += left * right`: `left` is `[m, k]`, `right` `[k, n]`, `out` `[m, n]`.
    fn matmul_add(
        left: &[Self::Element],
        right: &Self::Packed,
        dimensions: MatMul,
        out: &mut [Self::Element],
    );

    /// `out += conv2d(input, filter)`: `input` is `[batch, height, width, channels]`
    /// already padded, `filter` packed as `[height * width * in, out]`, `out`
    /// `[batch, height', width', out]`.
    fn conv2d_add(
        input: &[Self::Element],
        filter: &Self::Packed,
        dimensions: &Convolution,
        out: &mut [Self::Element],
    );
}
