//! Rings: the integers that shares live in, and the kernels on them.
//!
//! The protocol is written against [`Ring`] and knows nothing of machine words. A
//! ring is a product of one or more rings of words, its *planes*: the integers
//! modulo 2^64 are one plane, a residue number system has one for each modulus. A
//! tensor of `n` elements is a slice of `PLANES * n` words, plane after plane, so
//! that element-wise loops and matrix products work on one plane at a time.

use std::fmt::Debug;

use bytemuck::Pod;
use bytes::Bytes;

pub mod kernels;

mod int100;
mod int64;

pub mod residues;
mod threads;

pub use int64::Int64;
pub use int100::Int100;
pub use threads::{ThreadsError, set_threads};

use crate::buffer::Buffer;
use crate::geometry::Linear;
use crate::prg::KeyStream;

/// Which of the two servers: the sign conventions of the protocol differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `server0`, which adds public constants.
    Zero,
    /// `server1`, which adds the products of public values.
    One,
}

/// The arithmetic of one plane, word by word; loops over it run inside
/// [`kernels::vectorized`].
pub trait Plane: Copy + Send + Sync + 'static {
    /// A word of the plane.
    type Word: Copy;

    /// `x + y`.
    fn add(self, x: Self::Word, y: Self::Word) -> Self::Word;
    /// `x - y`.
    fn sub(self, x: Self::Word, y: Self::Word) -> Self::Word;
    /// `x * y`.
    fn mul(self, x: Self::Word, y: Self::Word) -> Self::Word;
    /// The word of a signed integer.
    fn of(self, integer: i128) -> Self::Word;
}

/// What hides a dividend while it is opened for truncation: one server's part.
pub struct QuotientMask<R: Ring> {
    /// Share `r_i` of the mask `r` that the dividend is opened under.
    pub dividend: Buffer<R::Word>,
    /// Share of what remains of `r` in the quotient; empty if the producer has to
    /// share it.
    pub quotient: Buffer<R::Word>,
}

/// A finite ring whose elements represent signed integers.
///
/// Slices of words hold whole tensors, plane after plane. Operands of one call have
/// as many words as their shapes say; a plan sees to that.
pub trait Ring: Copy + Debug + Send + Sync + 'static {
    /// One word; its default is zero.
    type Word: Pod + Default + PartialEq + Eq + Debug + Send + Sync;
    /// The arithmetic of one plane.
    type Plane: Plane<Word = Self::Word>;
    /// The right operand of products, prepared once and used often; wiped when dropped.
    type Packed: Send + Sync;

    /// What configuration and reports call it.
    const NAME: &'static str;
    /// Words of an element.
    const PLANES: usize;
    /// Bytes of one element on the wire.
    const WIRE_BYTES: usize;
    /// Interactive truncation divides integers of magnitude below `2^DIVIDEND_BITS`.
    const DIVIDEND_BITS: u32;
    /// How many tensors the producer shares for an interactive truncation.
    const QUOTIENT_PARTS: usize;

    /// The arithmetic of plane `index`.
    fn plane(index: usize) -> Self::Plane;

    /// Writes the elements that represent signed integers.
    fn from_integers(integers: &[i128], words: &mut [Self::Word]);
    /// The signed integers of least magnitude that elements represent.
    fn to_integers(words: &[Self::Word]) -> Vec<i128>;

    /// One server's part of dividing a shared tensor by `2^bits`, without interaction.
    ///
    /// The local truncation of SecureML (Mohassel and Zhang 2017, section 4.1):
    /// server 0 shifts its share, server 1 shifts the negative of its share and
    /// negates again. The shared result is `floor(x / 2^bits)` plus 0 or 1 with
    /// mean error zero, except with probability `|x| / |ring|`, when it is wrong
    /// by `|ring| / 2^bits`.
    fn truncate(share: &mut [Self::Word], bits: u32, side: Side);

    /// One server's part of the mask of `len` dividends that will be divided by `2^bits`.
    fn quotient_mask(stream: KeyStream, bits: u32, len: usize) -> QuotientMask<Self>;

    /// What the producer makes of both servers' streams: the tensors that it shares, one
    /// after the other, or if there are none ([`Ring::QUOTIENT_PARTS`]) the mask that the
    /// quotients will be under.
    fn quotient_parts(streams: [KeyStream; 2], bits: u32, len: usize) -> Buffer<Self::Word>;

    /// What server 0 adds to dividends before they are opened: makes them
    /// non-negative, and the quotient's error zero on average.
    fn dividend_offset(bits: u32) -> i128;

    /// Turns opened dividends (offset and mask included) into the public part of the
    /// quotients, and a server's shares of the parts into its share of their mask.
    fn quotient(
        opened: &mut [Self::Word],
        parts: Buffer<Self::Word>,
        bits: u32,
    ) -> Buffer<Self::Word>;

    /// Fills `words` with uniformly random elements.
    fn sample(stream: &mut KeyStream, words: &mut [Self::Word]);

    /// The wire form of a tensor: `WIRE_BYTES` an element, plane after plane, little endian.
    fn to_bytes(words: Buffer<Self::Word>) -> Bytes;
    /// Reads a tensor from its wire form; what is missing or left over is ignored, so
    /// check the length before.
    fn from_bytes(bytes: &[u8], words: &mut [Self::Word]);
    /// The sum of two tensors in wire form.
    fn sum_bytes(x: &[u8], y: &[u8], words: &mut [Self::Word]);

    /// Prepares a matrix `[k, n]` as the right operand of products like `linear`.
    fn pack(words: &[Self::Word], linear: &Linear) -> Self::Packed;

    /// `out += left * right` in the sense of `linear`, whose images are padded
    /// already if it is a convolution.
    fn multiply_add(
        linear: &Linear,
        left: &[Self::Word],
        right: &Self::Packed,
        out: &mut [Self::Word],
    );
}

/// The planes of a tensor.
pub(crate) fn planes<R: Ring>(words: &[R::Word]) -> std::slice::ChunksExact<'_, R::Word> {
    words.chunks_exact((words.len() / R::PLANES).max(1))
}

/// The planes of a tensor, to write.
pub(crate) fn planes_mut<R: Ring>(
    words: &mut [R::Word],
) -> std::slice::ChunksExactMut<'_, R::Word> {
    words.chunks_exact_mut((words.len() / R::PLANES).max(1))
}

/// `f(x, y)` for each word.
#[inline]
pub(crate) fn combined<R: Ring>(
    x: &[R::Word],
    y: &[R::Word],
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) -> Buffer<R::Word> {
    let mut out = Buffer::zeros(x.len());
    let operands = planes::<R>(x).zip(planes::<R>(y));
    for (index, (out, (x, y))) in planes_mut::<R>(&mut out).zip(operands).enumerate() {
        let plane = R::plane(index);
        kernels::vectorized(
            #[inline(always)]
            || {
                for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                    *out = f(plane, x, y);
                }
            },
        );
    }
    out
}

/// `x = f(x, y)` for each word.
#[inline]
pub(crate) fn update<R: Ring>(
    x: &mut [R::Word],
    y: &[R::Word],
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) {
    for (index, (x, y)) in planes_mut::<R>(x).zip(planes::<R>(y)).enumerate() {
        let plane = R::plane(index);
        kernels::vectorized(
            #[inline(always)]
            || {
                for (x, &y) in x.iter_mut().zip(y) {
                    *x = f(plane, *x, y);
                }
            },
        );
    }
}
