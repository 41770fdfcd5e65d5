//! Matrix products of shares, as fast as the machine allows.
//!
//! Most of the arithmetic of a private inference is products of shares,
//! which are matrices of integers modulo 2⁶⁴, 2³² or some small primes. BLAS knows
//! no such product, and code compiled for any x86-64 may use none of the instructions
//! that make it fast: one `vpmullq` of AVX-512 replaces eight scalar multiplications, one
//! `vpmulld` sixteen.
//! So the kernels here are compiled several times, once for each [`InstructionSet`],
//! and the widest one the machine has is chosen while the program runs.
//!
//! [`multiply`] and [`multiply_add`] take a left operand whose rows are read where
//! they lie ([`Rows`], which also describes a convolution without copying its
//! patches) and a right operand that was packed once ([`PackedRight`]), as the
//! weights of a layer serve many products; [`residues`] has the same for residues
//! modulo small primes. [`vectorized`] does the same for elementwise loops: it has
//! the compiler vectorise them for the machine.
//!
//! No branch and no address depends on the values that are multiplied.
//!
//! This is the one module of the crate with `unsafe` code: calling functions
//! compiled for an instruction set is only sound after that set was detected, and
//! the inner loops address their operands by pointers, in bounds because of checks
//! that are made once for every operand and not once for every element.

#![allow(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

pub mod residues;
mod words;

pub use words::{Kernels, PackedRight, Word, multiply, multiply_add, multiply_with};

/// Instruction sets the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// [`Self::Avx512`] with its VNNI part, which most servers with AVX-512 have: 32
    /// products of 16 bits, multiplied and added by one instruction.
    Avx512Vnni,
    /// AVX-512 with its F, DQ, BW and VL parts, which servers with AVX-512 have had
    /// together since 2017: eight 64-bit products or sixteen of 32 bits by one instruction.
    Avx512,
    /// AVX2: four 64-bit products, each pieced together from 32-bit ones, eight of 32 bits,
    /// or sixteen of 16 bits.
    Avx2,
    /// What the crate was compiled for, on any processor.
    Portable,
}

/// The widest instruction set that [`InstructionSet::detect`] may choose, by its place among
/// the variants. It is the process's, as the processor is.
static WIDEST: AtomicU8 = AtomicU8::new(InstructionSet::Avx512Vnni as u8);

impl InstructionSet {
    /// All of them, widest first.
    pub const ALL: [Self; 4] = [Self::Avx512Vnni, Self::Avx512, Self::Avx2, Self::Portable];

    /// The widest instruction set of this machine within [`Self::limit`]. Cheap: the standard
    /// library asks the processor once and remembers the answer.
    #[inline]
    pub fn detect() -> Self {
        let widest = WIDEST.load(Ordering::Relaxed);
        for isa in Self::ALL {
            if isa as u8 >= widest && isa.is_available() {
                return isa;
            }
        }
        Self::Portable
    }

    /// Keeps the kernels of this process from what is wider than `self`, so that one machine
    /// shows what another would do. Results are the same.
    pub fn limit(self) {
        WIDEST.store(self as u8, Ordering::Relaxed);
    }

    /// The instruction sets this machine has, widest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A name that is none of [`InstructionSet::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected Avx512Vnni, Avx512, Avx2 or Portable")]
pub struct UnknownInstructionSet;

impl FromStr for InstructionSet {
    type Err = UnknownInstructionSet;

    fn from_str(name: &str) -> Result<Self, UnknownInstructionSet> {
        Self::ALL.into_iter().find(|isa| isa.to_string() == name).ok_or(UnknownInstructionSet)
    }
}

/// Where the rows of a left operand start.
#[derive(Clone, Copy)]
enum Starts<'a> {
    /// Row `r` at `r * k`.
    Dense,
    /// Row `r` at the `r`-th of these.
    At(&'a [u32]),
}

/// The left operand of a product, `[m, k]`, whose rows are read where they lie.
///
/// Row `r` is the concatenation, over `s` in `0..segments`, of
/// `data[starts[r] + s * stride..][..length]`, and `k = segments * length`. A matrix
/// has one segment a row. An unpadded convolution of a channels-last image has one
/// segment per row of the filter, and overlapping rows: the patches that `im2col`
/// would copy. The words are those of [`PackedRight`], or `i16` for [`residues`].
// What the kernels rely on: for every row r < m and every segment s, the range
// `start(r) + s * stride..` has `length` words within `data`, and no computation of
// it overflows. The fields are private and set by `matrix` and `new` alone.
#[derive(Clone, Copy)]
pub struct Rows<'a, T = u64> {
    data: &'a [T],
    starts: Starts<'a>,
    m: usize,
    segments: usize,
    stride: usize,
    length: usize,
}

impl<'a, T> Rows<'a, T> {
    /// The rows of the row-major `[m, k]` matrix `data`. `None` if it does not have
    /// `m * k` words.
    pub fn matrix(data: &'a [T], m: usize, k: usize) -> Option<Self> {
        (m.checked_mul(k) == Some(data.len())).then_some(Self {
            data,
            starts: Starts::Dense,
            m,
            segments: 1,
            stride: 0,
            length: k,
        })
    }

    /// One row for each of `starts`, of `segments` segments of `length` words that
    /// are `stride` words apart. `None` if any of them is not within `data`.
    pub fn new(
        data: &'a [T],
        starts: &'a [u32],
        segments: usize,
        stride: usize,
        length: usize,
    ) -> Option<Self> {
        let k = segments.checked_mul(length)?;
        let (segments, stride, length) = if k == 0 {
            (1, 0, 0)
        } else if segments == 1 || stride == length {
            (1, 0, k)
        } else {
            (segments, stride, length)
        };
        let span = (segments - 1).checked_mul(stride)?.checked_add(length)?;
        let last = starts.iter().max().copied().unwrap_or(0);
        let end = usize::try_from(last).ok()?.checked_add(span)?;
        (k == 0 || starts.is_empty() || end <= data.len()).then_some(Self {
            data,
            starts: Starts::At(starts),
            m: starts.len(),
            segments,
            stride,
            length,
        })
    }

    /// Some of the rows.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    #[must_use]
    pub fn part(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.m, "rows {rows:?} of {}", self.m);
        let m = rows.len();
        match self.starts {
            Starts::Dense => {
                let k = self.k();
                Self { data: &self.data[rows.start * k..rows.end * k], m, ..*self }
            }
            Starts::At(starts) => Self { starts: Starts::At(&starts[rows]), m, ..*self },
        }
    }

    /// The number of rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// The length of a row.
    pub fn k(&self) -> usize {
        self.segments * self.length
    }

    #[inline(always)]
    fn start(&self, row: usize) -> usize {
        match self.starts {
            Starts::Dense => row * self.k(),
            Starts::At(starts) => starts[row] as usize,
        }
    }
}

impl<T> fmt::Debug for Rows<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("m", &self.m)
            .field("segments", &self.segments)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Runs `body` compiled for the machine's widest vectors: it is inlined into a
/// function with those target features, so that simple loops in it are vectorised
/// for them.
///
/// What `body` calls must be inlined as well to profit. The compiler may decide
/// against inlining a long closure; `#[inline(always)]` in front of it decides for it. And
/// `move` lets it know that no store of the loop changes what the closure has captured:
///
/// ```
/// use spdz::ring::kernels::vectorized;
///
/// let (x, y) = (vec![3u64; 100], vec![u64::MAX; 100]);
/// let mut sum = vec![1; 100];
/// let words = &mut sum[..];
/// vectorized(
///     #[inline(always)]
///     move || {
///         for ((sum, x), y) in words.iter_mut().zip(&x).zip(&y) {
///             *sum = x.wrapping_mul(*y).wrapping_add(*sum);
///         }
///     },
/// );
/// assert_eq!(sum, [2u64.wrapping_neg(); 100]);
/// ```
#[inline]
pub fn vectorized<T>(body: impl FnOnce() -> T) -> T {
    match InstructionSet::detect() {
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni | InstructionSet::Avx512 => unsafe { run_avx512(body) },
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { run_avx2(body) },
        _ => body(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn run_avx512<T>(body: impl FnOnce() -> T) -> T {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<T>(body: impl FnOnce() -> T) -> T {
    body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_instruction_set_is_detected() {
        let available: Vec<_> = InstructionSet::available().collect();
        assert_eq!(available.first(), Some(&InstructionSet::detect()));
        assert_eq!(available.last(), Some(&InstructionSet::Portable));
    }

    #[test]
    fn instruction_sets_are_read_by_the_names_that_are_printed() {
        for isa in InstructionSet::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        assert_eq!("AVX-1024".parse::<InstructionSet>(), Err(UnknownInstructionSet));
    }

    #[test]
    fn rows_outside_the_data_are_refused() {
        let data = [0; 12];
        assert!(Rows::matrix(&data, 3, 4).is_some());
        assert!(Rows::matrix(&data, 3, 5).is_none());
        assert!(Rows::matrix(&data, 3, 3).is_none());
        assert!(Rows::matrix(&data, usize::MAX, 2).is_none());
        // The last segment of the last row ends at 4 + 1 * 5 + 3.
        assert!(Rows::new(&data, &[0, 4], 2, 5, 3).is_some());
        assert!(Rows::new(&data, &[5, 0], 2, 5, 3).is_none());
        assert!(Rows::new(&data, &[12], 1, 0, 1).is_none());
        assert!(Rows::new(&data, &[u32::MAX], 1, 0, 1).is_none());
        assert!(Rows::new(&data, &[0], 2, usize::MAX, 3).is_none());
        assert!(Rows::new(&data, &[0], usize::MAX, 0, 3).is_none());
        assert!(Rows::new(&data, &[0], 1, 0, usize::MAX).is_none());
    }

    #[test]
    fn vectorized_returns_what_its_body_does() {
        let values: Vec<u64> = (0..1003u64).map(|i| i.wrapping_mul(u64::MAX / 3)).collect();
        let sum = vectorized(|| values.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
        let expected = values.iter().fold(0u64, |sum, x| sum.wrapping_add(*x));
        assert_eq!(sum, expected);
    }
}
