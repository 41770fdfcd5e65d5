//! The kernel of 64-bit words for AVX2, which multiplies 32 bits.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_load_si256, _mm256_mul_epu32,
    _mm256_mullo_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi32,
    _mm256_slli_epi64, _mm256_store_si256,
};

use super::packed::Line;
use super::strip::{Strip, write};
use super::word::Word;

const LANES: usize = u64::LANES;

/// Vectors of four words in a line of eight.
const HALVES: usize = 2;

/// Swaps the halves of every 64-bit word.
const SWAP: i32 = 0b10_11_00_01;

/// The strip line by line of its panel: two accumulators for every four words make
/// eight for two rows, which with their operands fill the 16 registers. Three rows
/// do not fit, and are slower by a third for it.
#[target_feature(enable = "avx2")]
pub(super) fn multiply(mut strip: Strip<'_, u64>) {
    for column in 0..strip.vectors {
        let mut row = strip.rows.start;
        while row < strip.rows.end {
            // SAFETY: each block has at most as many rows as are left, and its line
            // is one of the strip's vectors.
            row += unsafe {
                match strip.rows.end - row {
                    2.. => block::<2>(&mut strip, row, column),
                    _ => block::<1>(&mut strip, row, column),
                }
            };
        }
    }
}

/// Rows `row..row + ROWS` of the strip, of its columns those of vector `column`.
/// Returns `ROWS`.
///
/// Modulo 2⁶⁴ a product of words is that of their lower halves plus 2³² times the
/// products of one's lower and the other's upper half, modulo 2³². The former are
/// summed in 64 bits. Of the latter both come from a single 32-bit multiplication
/// by the word with swapped halves; they are summed in 32 bits, and put together
/// after the last word.
///
/// # Safety
///
/// The strip has these rows, and more than `column` vectors.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn block<const ROWS: usize>(strip: &mut Strip<'_, u64>, row: usize, column: usize) -> usize {
    let left = strip.left;
    let mut starts = [left.data.as_ptr(); ROWS];
    for (i, start) in starts.iter_mut().enumerate() {
        // SAFETY: the rows of a `Rows` start within its data.
        *start = unsafe { start.add(left.start(row + i)) };
    }
    // Wrapping, since after the last word it points beyond the panel.
    let mut line = strip.panel.as_ptr().wrapping_add(column);
    let zero = _mm256_setzero_si256();
    let mut lower: [[__m256i; HALVES]; ROWS] = [[zero; HALVES]; ROWS];
    let mut cross: [[__m256i; HALVES]; ROWS] = [[zero; HALVES]; ROWS];
    for segment in 0..left.segments {
        let first = segment * left.stride;
        for word in first..first + left.length {
            let mut right = [zero; HALVES];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: `line` is one of the panel's lines for this word of the
                // rows, and a line is as large as two vectors and aligned for them.
                *right = unsafe { _mm256_load_si256(line.cast::<__m256i>().add(v)) };
            }
            line = line.wrapping_add(strip.vectors);
            for (i, start) in starts.iter().enumerate() {
                // SAFETY: a `Rows` has this word of each of its rows.
                let left = unsafe { *start.add(word) };
                let left = _mm256_set1_epi64x(left.cast_signed());
                let swapped = _mm256_shuffle_epi32::<SWAP>(left);
                for (v, right) in right.into_iter().enumerate() {
                    let product = _mm256_mul_epu32(left, right);
                    lower[i][v] = _mm256_add_epi64(lower[i][v], product);
                    let products = _mm256_mullo_epi32(swapped, right);
                    cross[i][v] = _mm256_add_epi32(cross[i][v], products);
                }
            }
        }
    }
    let first = strip.columns.start + column * LANES;
    let width = LANES.min(strip.columns.end - first);
    for i in 0..ROWS {
        let mut sums = Line::<u64>::default();
        for v in 0..HALVES {
            let cross = cross[i][v];
            let cross = _mm256_add_epi32(cross, _mm256_shuffle_epi32::<SWAP>(cross));
            let sum = _mm256_add_epi64(lower[i][v], _mm256_slli_epi64::<32>(cross));
            // SAFETY: a line is as large as two vectors and aligned for them.
            unsafe { _mm256_store_si256((&raw mut sums).cast::<__m256i>().add(v), sum) };
        }
        let out = &mut strip.out[(row + i) * strip.n + first..][..width];
        write(out, sums.words(), strip.accumulate);
    }
    ROWS
}
