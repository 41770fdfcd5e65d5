//! Rings: the integers that shares live in, and the kernels on them.
//!
//! The protocol is written against [`Ring`] and knows nothing of machine words. A
//! ring is a product of one or more rings of words, its *planes*: the integers
//! modulo 2^64 are one plane, a residue number system has one for each modulus. A
//! tensor of `n` elements is a slice of `PLANES * n` words, plane after plane, so
//! that element-wise loops and matrix products work on one plane at a time.

use std::fmt::Debug;
use std::ops::Range;

use bytemuck::Pod;
use bytes::Bytes;

pub mod kernels;

mod binary;
mod format;
mod int100;
mod int32;
mod int64;

pub mod residues;
#[cfg(feature = "threads")]
mod threads;
#[cfg(not(feature = "threads"))]
#[path = "one_thread.rs"]
mod threads;
mod truncation;

pub(crate) use format::for_each_ring;
pub use format::{NumberFormat, UnknownFormat};
pub use int32::Int32;
pub use int64::Int64;
pub use int100::Int100;
#[cfg(feature = "threads")]
pub use threads::{Threads, ThreadsError};
pub use truncation::Truncation;

use crate::buffer::Buffer;
use crate::fixed::Precision;
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
    /// The word whose memory is what `x` is on the wire, little endian.
    fn sent(self, x: Self::Word) -> Self::Word;
    /// The word that came as the memory of `x`. Whatever came, it is a word of the plane.
    fn received(self, x: Self::Word) -> Self::Word;
}

/// What hides a dividend while it is opened for truncation: one server's part.
pub struct TruncationMask<R: Ring> {
    /// Share `r_i` of the mask `r` that the dividend is opened under.
    pub dividend: Buffer<R::Word>,
    /// Share of what remains of `r` in the quotient; empty if the producer has to
    /// share it.
    pub quotient: Buffer<R::Word>,
}

/// Draws a tensor's words part by part, in their order.
pub trait Sampler<W> {
    /// The next [`Ring::PART`] words, or all that are left.
    fn next(&mut self, part: &mut [W]);
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
    /// A tensor that is being drawn from a key stream.
    type Sampler<'a>: Sampler<Self::Word>;

    /// What configuration and reports call it.
    const NAME: &'static str;
    /// For people, what its numbers are and what they are good for: `Integers modulo 2^64: fast`.
    const SUMMARY: &'static str;
    /// Precision and range of its fixed-point numbers.
    const PRECISION: Precision;
    /// Words of an element.
    const PLANES: usize;
    /// Bytes of one element on the wire.
    const WIRE_BYTES: usize;
    /// How many words are drawn at a time: they stay in cache with what they are added to.
    const PART: usize;
    /// Interactive truncation divides integers of magnitude below `2^DIVIDEND_BITS`.
    const DIVIDEND_BITS: u32 = Self::PRECISION.dividend;
    /// How many tensors the producer shares for an interactive truncation.
    const TRUNCATION_PARTS: usize;
    /// By how many units in the last place the quotient of an interactive truncation may be
    /// off (`docs/protocol.md`). That of a local one is off by less than one, if it does not
    /// fail.
    const TRUNCATION_ERROR: f64;
    /// How far what a server sees of one dividend of an interactive truncation is at most from
    /// what it would see of any other: a statistical distance. Nothing where the mask is uniform
    /// over the ring.
    const DIVIDEND_DISTANCE: f64 = 0.0;
    /// Whether a local truncation costs next to nothing, so that a plan truncates often and
    /// keeps values small; if not, it is worth bits of the ring to truncate seldom.
    const LOCAL_TRUNCATION_IS_FREE: bool;
    /// Whether values are in its range because their graph's author says so: it has too few bits
    /// for sums of products of any values in the range. What leaves the range wraps around and is
    /// not noticed.
    const DECLARES_RANGES: bool = false;
    /// Whether it is a [`BinaryRing`], in which comparisons are exact.
    const IS_BINARY: bool = false;
    /// The truncation that the paper pairs it with.
    const USUAL_TRUNCATION: Truncation;

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
    fn truncation_mask(stream: KeyStream, bits: u32, len: usize) -> TruncationMask<Self>;

    /// What the producer makes of both servers' streams: the tensors that it shares, one
    /// after the other, or if there are none ([`Ring::TRUNCATION_PARTS`]) the mask that the
    /// quotients will be under.
    fn truncation_correlation(streams: [KeyStream; 2], bits: u32, len: usize)
    -> Buffer<Self::Word>;

    /// What server 0 adds to dividends before they are opened: makes them
    /// non-negative, and the quotient's error zero on average.
    fn dividend_offset(bits: u32) -> i128;

    /// Turns opened dividends (offset and mask included) into the public part of the
    /// quotients, and a server's shares of the parts into its share of their mask.
    fn truncate_opened(
        opened: &mut [Self::Word],
        parts: Buffer<Self::Word>,
        bits: u32,
    ) -> Buffer<Self::Word>;

    /// Draws a uniformly random tensor of `len` words from `stream`.
    fn sampler(stream: &mut KeyStream, len: usize) -> Self::Sampler<'_>;

    /// Fills `words` with uniformly random elements.
    fn sample(stream: &mut KeyStream, words: &mut [Self::Word]) {
        let mut sampler = Self::sampler(stream, words.len());
        words.chunks_mut(Self::PART).for_each(|part| sampler.next(part));
    }

    /// The wire form of a tensor: `WIRE_BYTES` an element, plane after plane, little endian.
    #[must_use]
    fn to_bytes(mut words: Buffer<Self::Word>) -> Bytes {
        if cfg!(target_endian = "big") {
            for (index, words) in planes_mut::<Self>(&mut words).enumerate() {
                let plane = Self::plane(index);
                words.iter_mut().for_each(|word| *word = plane.sent(*word));
            }
        }
        words.into_bytes()
    }

    /// Reads a tensor from its wire form; what is missing or left over is ignored, so
    /// check the length before.
    fn from_bytes(bytes: &[u8], words: &mut [Self::Word]) {
        received::<Self>(bytes, words, 0, |_, _, received| received);
    }

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

/// A ring of integers modulo `2^BITS`, one word each: the low bits of a number are those of its
/// shares' sum, so that values are opened in as many bits as they have and compared exactly.
pub trait BinaryRing: Ring<Word: Into<u64>> {
    /// Bits of a word, at most 64.
    const BITS: u32;

    /// The low bits of an integer.
    fn word(integer: u64) -> Self::Word;
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

/// The pieces of a range of a tensor's words that lie in one plane each. The tensor has `len`
/// words.
pub(crate) fn pieces<R: Ring>(
    len: usize,
    range: Range<usize>,
) -> impl Iterator<Item = (R::Plane, Range<usize>)> {
    let plane_len = (len / R::PLANES).max(1);
    let mut from = range.start;
    std::iter::from_fn(move || {
        (from < range.end).then(|| {
            let plane = from / plane_len;
            let piece = from..range.end.min((plane + 1) * plane_len);
            from = piece.end;
            (R::plane(plane), piece)
        })
    })
}

/// `word = f(word, received)` for the words from number `first` on that came as `bytes`, their
/// wire form. What is missing or left over is ignored.
#[inline]
pub(crate) fn received<R: Ring>(
    bytes: &[u8],
    words: &mut [R::Word],
    first: usize,
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) {
    let size = size_of::<R::Word>();
    let end = words.len().min(first + bytes.len() / size);
    for (plane, piece) in pieces::<R>(words.len(), first..end) {
        let bytes = &bytes[size * (piece.start - first)..size * (piece.end - first)];
        let words = &mut words[piece];
        kernels::vectorized(
            #[inline(always)]
            move || {
                for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size)) {
                    let received = plane.received(bytemuck::pod_read_unaligned(bytes));
                    *word = f(plane, *word, received);
                }
            },
        );
    }
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
            move || {
                for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                    *out = f(plane, x, y);
                }
            },
        );
    }
    out
}

/// `x = f(x, y)` for each word, `y` being the next elements of `stream`.
#[inline]
pub(crate) fn update_sampled<R: Ring>(
    x: &mut [R::Word],
    stream: &mut KeyStream,
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) {
    let len = x.len();
    let mut sampler = R::sampler(stream, len);
    let mut y = Buffer::zeros(R::PART.min(len));
    for first in (0..len).step_by(R::PART) {
        let y = &mut y[..R::PART.min(len - first)];
        sampler.next(y);
        update_part::<R>(&mut x[first..first + y.len()], y, first, len, f);
    }
}

/// `x = f(x, y)` for each word.
#[inline]
pub(crate) fn update<R: Ring>(
    x: &mut [R::Word],
    y: &[R::Word],
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) {
    let len = x.len();
    update_part::<R>(x, y, 0, len, f);
}

/// `x = f(x, y)` for each word; they are those from number `first` on of tensors of `len`.
#[inline]
pub(crate) fn update_part<R: Ring>(
    x: &mut [R::Word],
    y: &[R::Word],
    first: usize,
    len: usize,
    f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
) {
    for (plane, piece) in pieces::<R>(len, first..first + x.len()) {
        let piece = piece.start - first..piece.end - first;
        let (x, y) = (&mut x[piece.clone()], &y[piece]);
        kernels::vectorized(
            #[inline(always)]
            move || {
                for (x, &y) in x.iter_mut().zip(y) {
                    *x = f(plane, *x, y);
                }
            },
        );
    }
}
