//! The kernel of 32-bit words for AVX2.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_load_si256, _mm256_mullo_epi32, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_storeu_si256,
};

use super::strip::{Strip, write};
use super::word::Word;

/// Words in a vector: half a line.
const VECTOR: usize = u32::LANES / 2;

/// Two vectors of six rows make twelve accumulators, which with their operands fill the 16
/// registers. A single row uses each word of the panel once, so it reads whole lines in the order
/// in which they lie.
#[target_feature(enable = "avx2")]
pub(super) fn multiply(mut strip: Strip<'_, u32>) {
    let vectors = strip.columns.len().div_ceil(VECTOR);
    let single = strip.rows.len() == 1;
    let mut vector = 0;
    while vector < vectors {
        // SAFETY: the strip has as many vectors as are left.
        vector += unsafe {
            match vectors - vector {
                8.. if single => rows::<1, 8>(&mut strip, vector),
                4.. if single => rows::<1, 4>(&mut strip, vector),
                2.. => rows::<6, 2>(&mut strip, vector),
                _ => rows::<8, 1>(&mut strip, vector),
            }
        };
    }
}

/// The rows of a strip in blocks of `ROWS`, and what remains in smaller ones. Returns `VECTORS`.
///
/// # Safety
///
/// The strip has `VECTORS` vectors from `vector` on.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn rows<const ROWS: usize, const VECTORS: usize>(
    strip: &mut Strip<'_, u32>,
    vector: usize,
) -> usize {
    let mut row = strip.rows.start;
    while row < strip.rows.end {
        let left = strip.rows.end - row;
        // SAFETY: each block has at most as many rows as are left, and the caller's vectors.
        row += unsafe {
            match left {
                _ if left >= ROWS => block::<ROWS, VECTORS>(strip, row, vector),
                4.. => block::<4, VECTORS>(strip, row, vector),
                2.. => block::<2, VECTORS>(strip, row, vector),
                _ => block::<1, VECTORS>(strip, row, vector),
            }
        };
    }
    VECTORS
}

/// Rows `row..row + ROWS` of the strip, of its columns those of `VECTORS` vectors from `vector`
/// on. Returns `ROWS`.
///
/// # Safety
///
/// The strip has these rows and vectors.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn block<const ROWS: usize, const VECTORS: usize>(
    strip: &mut Strip<'_, u32>,
    row: usize,
    vector: usize,
) -> usize {
    let left = strip.left;
    let mut starts = [left.data.as_ptr(); ROWS];
    for (i, start) in starts.iter_mut().enumerate() {
        // SAFETY: the rows of a `Rows` start within its data.
        *start = unsafe { start.add(left.start(row + i)) };
    }
    let zero = _mm256_setzero_si256();
    // Wrapping, since after the last word it points beyond the panel.
    let mut line = strip.panel.as_ptr().cast::<__m256i>().wrapping_add(vector);
    let mut sums: [[__m256i; VECTORS]; ROWS] = [[zero; VECTORS]; ROWS];
    for segment in 0..left.segments {
        let first = segment * left.stride;
        for word in first..first + left.length {
            let mut right = [zero; VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: these are vectors of the panel's lines for this word of the rows, and
                // a line is as large as two vectors and aligned for them.
                *right = unsafe { _mm256_load_si256(line.wrapping_add(v)) };
            }
            line = line.wrapping_add(2 * strip.vectors);
            for (sums, start) in sums.iter_mut().zip(starts) {
                // SAFETY: a `Rows` has this word of each of its rows.
                let left = unsafe { *start.add(word) };
                let left = _mm256_set1_epi32(left.cast_signed());
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm256_add_epi32(*sum, _mm256_mullo_epi32(left, right));
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let first = strip.columns.start + (vector + v) * VECTOR;
            let width = VECTOR.min(strip.columns.end - first);
            let mut words = [0; VECTOR];
            // SAFETY: the words are as many as a vector has; the store needs no alignment.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), *sum) };
            let out = &mut strip.out[(row + i) * strip.n + first..][..width];
            write(out, &words, strip.accumulate);
        }
    }
    ROWS
}
