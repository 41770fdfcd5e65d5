//! The kernel for AVX-512.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_load_si512, _mm512_mask_storeu_epi64,
    _mm512_maskz_loadu_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
};

use super::packed::LANES;
use super::strip::Strip;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn multiply(mut strip: Strip<'_>) {
    match strip.vectors {
        1 => panel::<8, 1>(&mut strip),
        2 => panel::<8, 2>(&mut strip),
        3 => panel::<8, 3>(&mut strip),
        _ => panel::<6, 4>(&mut strip),
    }
}

/// The rows of a strip in blocks of `ROWS`, and what remains in smaller ones.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
fn panel<const ROWS: usize, const VECTORS: usize>(strip: &mut Strip<'_>) {
    let mut row = strip.rows.start;
    while row < strip.rows.end {
        let left = strip.rows.end - row;
        // SAFETY: each block has at most as many rows as are left, and `multiply`
        // chose the number of vectors by the strip's.
        row += unsafe {
            match left {
                _ if left >= ROWS => block::<ROWS, VECTORS>(strip, row),
                4.. => block::<4, VECTORS>(strip, row),
                2.. => block::<2, VECTORS>(strip, row),
                _ => block::<1, VECTORS>(strip, row),
            }
        };
    }
}

/// Rows `row..row + ROWS` of the strip, with the sums in registers from the first
/// word of the rows to the last. Returns `ROWS`.
///
/// # Safety
///
/// The strip has these rows, and `VECTORS` vectors.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
unsafe fn block<const ROWS: usize, const VECTORS: usize>(
    strip: &mut Strip<'_>,
    row: usize,
) -> usize {
    let left = strip.left;
    let mut starts = [left.data.as_ptr(); ROWS];
    for (i, start) in starts.iter_mut().enumerate() {
        // SAFETY: the rows of a `Rows` start within its data.
        *start = unsafe { start.add(left.start(row + i)) };
    }
    let mut line = strip.panel.as_ptr();
    let mut sums: [[__m512i; VECTORS]; ROWS] = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    for segment in 0..left.segments {
        let first = segment * left.stride;
        for word in first..first + left.length {
            let mut right = [_mm512_setzero_si512(); VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: `line` is at the panel's VECTORS lines for this word of
                // the rows, and a line is as large and aligned as a vector.
                *right = unsafe { _mm512_load_si512(line.add(v).cast()) };
            }
            // SAFETY: the panel has VECTORS lines for each word of the rows, so this
            // ends one past its last line at most.
            line = unsafe { line.add(VECTORS) };
            for (sums, start) in sums.iter_mut().zip(starts) {
                // SAFETY: a `Rows` has this word of each of its rows.
                let left = unsafe { *start.add(word) };
                let left = _mm512_set1_epi64(left.cast_signed());
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_add_epi64(*sum, _mm512_mullo_epi64(left, right));
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let first = (row + i) * strip.n + strip.columns.start;
        for (v, sum) in sums.iter().enumerate() {
            let columns = strip.columns.len() - v * LANES;
            let mask: __mmask8 = if columns < LANES { (1 << columns) - 1 } else { __mmask8::MAX };
            // SAFETY: the strip's columns are more than those of the vectors before
            // this one, so this vector's first is in `out`; of the others the mask
            // admits those that are the strip's and hence in the same row of `out`.
            unsafe {
                let out = strip.out.as_mut_ptr().add(first + v * LANES).cast::<i64>();
                let sum = if strip.accumulate {
                    _mm512_add_epi64(*sum, _mm512_maskz_loadu_epi64(mask, out))
                } else {
                    *sum
                };
                _mm512_mask_storeu_epi64(out, mask, sum);
            }
        }
    }
    ROWS
}
