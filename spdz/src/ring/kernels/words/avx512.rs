//! The kernels for AVX-512.

use std::arch::x86_64::{
    __m256i, __m512i, __mmask16, _mm_load_si128, _mm256_add_epi32, _mm256_add_epi64,
    _mm256_blend_epi32, _mm256_broadcastsi128_si256, _mm256_mullo_epi32, _mm256_mullo_epi64,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_castsi512_si256, _mm512_load_si512, _mm512_mask_storeu_epi32, _mm512_mask_storeu_epi64,
    _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_epi64, _mm512_mullo_epi32, _mm512_mullo_epi64,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512,
};

use super::packed::Line;
use super::strip::{Strip, write};
use super::word::Word;

/// A word of which a vector has [`LANES`](super::word::Word::LANES). Everything is inlined
/// into functions that are compiled for the instruction set, which makes the intrinsics single
/// instructions.
pub(super) trait Lanes: Word {
    /// Whether a last line of which at most a quarter is in the product is multiplied for two
    /// rows at once, in half a vector. Of 20 columns of 32 bits that saves more than a quarter of
    /// the instructions; words of 64 bits fill their lines better.
    const QUARTERS: bool;

    /// The word in every lane.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set.
    unsafe fn repeat(self) -> __m512i;

    /// `x + y` in every lane.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set.
    unsafe fn add(x: __m512i, y: __m512i) -> __m512i;

    /// `x * y` in every lane.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set.
    unsafe fn multiply(x: __m512i, y: __m512i) -> __m512i;

    /// `x * y + sum` in every lane of half a vector.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set.
    unsafe fn multiply_add_half(x: __m256i, y: __m256i, sum: __m256i) -> __m256i;

    /// The words at the lanes that `mask` admits.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set, and these words can be read.
    unsafe fn load(words: *const Self, mask: __mmask16) -> __m512i;

    /// Overwrites the words at the lanes that `mask` admits.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set, and these words can be written.
    unsafe fn store(words: *mut Self, mask: __mmask16, vector: __m512i);
}

/// The instructions of a word; `$mask` has a bit for each of its lanes.
macro_rules! lanes {
    ($word:ty, $mask:ty, quarters: $quarters:expr, $set:ident, $add:ident, $multiply:ident,
     $add_half:ident, $multiply_half:ident, $load:ident, $store:ident) => {
        impl Lanes for $word {
            const QUARTERS: bool = $quarters;

            #[inline(always)]
            unsafe fn repeat(self) -> __m512i {
                // SAFETY: the caller's.
                unsafe { $set(self.cast_signed()) }
            }

            #[inline(always)]
            unsafe fn add(x: __m512i, y: __m512i) -> __m512i {
                // SAFETY: the caller's.
                unsafe { $add(x, y) }
            }

            #[inline(always)]
            unsafe fn multiply(x: __m512i, y: __m512i) -> __m512i {
                // SAFETY: the caller's.
                unsafe { $multiply(x, y) }
            }

            #[inline(always)]
            unsafe fn multiply_add_half(x: __m256i, y: __m256i, sum: __m256i) -> __m256i {
                // SAFETY: the caller's.
                unsafe { $add_half(sum, $multiply_half(x, y)) }
            }

            #[inline(always)]
            unsafe fn load(words: *const Self, mask: __mmask16) -> __m512i {
                // SAFETY: the caller's.
                unsafe { $load(mask as $mask, words.cast()) }
            }

            #[inline(always)]
            unsafe fn store(words: *mut Self, mask: __mmask16, vector: __m512i) {
                // SAFETY: the caller's.
                unsafe { $store(words.cast(), mask as $mask, vector) }
            }
        }
    };
}

lanes!(
    u64, u8, quarters: false,
    _mm512_set1_epi64, _mm512_add_epi64, _mm512_mullo_epi64, _mm256_add_epi64, _mm256_mullo_epi64,
    _mm512_maskz_loadu_epi64, _mm512_mask_storeu_epi64
);
lanes!(
    u32, u16, quarters: true,
    _mm512_set1_epi32, _mm512_add_epi32, _mm512_mullo_epi32, _mm256_add_epi32, _mm256_mullo_epi32,
    _mm512_maskz_loadu_epi32, _mm512_mask_storeu_epi32
);

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn multiply<W: Lanes>(mut strip: Strip<'_, W>) {
    let last = strip.columns.len() - (strip.vectors - 1) * W::LANES;
    if W::QUARTERS && last <= W::LANES / 4 && strip.rows.len() > 1 {
        return match strip.vectors {
            1 => pairs::<W, 0, 1>(&mut strip),
            2 => pairs::<W, 1, 2>(&mut strip),
            3 => pairs::<W, 2, 3>(&mut strip),
            _ => pairs::<W, 3, 4>(&mut strip),
        };
    }
    match strip.vectors {
        1 => panel::<W, 8, 1>(&mut strip),
        2 => panel::<W, 8, 2>(&mut strip),
        3 => panel::<W, 8, 3>(&mut strip),
        _ => panel::<W, 6, 4>(&mut strip),
    }
}

/// The rows of a strip in blocks of `ROWS`, and what remains in smaller ones.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
fn panel<W: Lanes, const ROWS: usize, const VECTORS: usize>(strip: &mut Strip<'_, W>) {
    let mut row = strip.rows.start;
    while row < strip.rows.end {
        let left = strip.rows.end - row;
        // SAFETY: each block has at most as many rows as are left, and `multiply`
        // chose the number of vectors by the strip's.
        row += unsafe {
            match left {
                _ if left >= ROWS => block::<W, ROWS, VECTORS, 0>(strip, row),
                4.. => block::<W, 4, VECTORS, 0>(strip, row),
                2.. => block::<W, 2, VECTORS, 0>(strip, row),
                _ => block::<W, 1, VECTORS, 0>(strip, row),
            }
        };
    }
}

/// The rows of a strip of `LINES` lines, `VECTORS` of them and a quarter of the last one, which is
/// multiplied for two rows at once. A row that is left over takes the whole line.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
fn pairs<W: Lanes, const VECTORS: usize, const LINES: usize>(strip: &mut Strip<'_, W>) {
    let mut row = strip.rows.start;
    while row < strip.rows.end {
        let left = strip.rows.end - row;
        // SAFETY: each block has at most as many rows as are left, and `multiply`
        // chose the number of vectors by the strip's.
        row += unsafe {
            match left {
                8.. if VECTORS < 3 => block::<W, 8, VECTORS, 4>(strip, row),
                6.. => block::<W, 6, VECTORS, 3>(strip, row),
                4.. => block::<W, 4, VECTORS, 2>(strip, row),
                2.. => block::<W, 2, VECTORS, 1>(strip, row),
                _ => block::<W, 1, LINES, 0>(strip, row),
            }
        };
    }
}

/// Rows `row..row + ROWS` of the strip, with the sums in registers from the first
/// word of the rows to the last. Returns `ROWS`.
///
/// # Safety
///
/// The strip has these rows. `PAIRS` is none, and the strip has `VECTORS` vectors; or it is half
/// of `ROWS`, and the strip has one vector more, with at most a quarter of its columns.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
#[inline]
unsafe fn block<W: Lanes, const ROWS: usize, const VECTORS: usize, const PAIRS: usize>(
    strip: &mut Strip<'_, W>,
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
    let mut quarters: [__m256i; PAIRS] = [_mm256_setzero_si256(); PAIRS];
    for segment in 0..left.segments {
        let first = segment * left.stride;
        for word in first..first + left.length {
            let mut right = [_mm512_setzero_si512(); VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: `line` is at the panel's lines for this word of the rows, and a
                // line is as large and aligned as a vector.
                *right = unsafe { _mm512_load_si512(line.add(v).cast()) };
            }
            let mut lefts = [_mm256_setzero_si256(); ROWS];
            for ((sums, start), half) in sums.iter_mut().zip(starts).zip(&mut lefts) {
                // SAFETY: a `Rows` has this word of each of its rows, and the machine has the
                // instructions of this function.
                unsafe {
                    let left = (*start.add(word)).repeat();
                    *half = _mm512_castsi512_si256(left);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = W::add(*sum, W::multiply(left, right));
                    }
                }
            }
            for (sum, lefts) in quarters.iter_mut().zip(lefts.as_chunks::<2>().0) {
                // SAFETY: where there are pairs, there is one line more; and as above.
                unsafe {
                    let words = _mm_load_si128(line.add(VECTORS).cast());
                    let quarter = _mm256_broadcastsi128_si256(words);
                    let both = _mm256_blend_epi32::<0b1111_0000>(lefts[0], lefts[1]);
                    *sum = W::multiply_add_half(both, quarter, *sum);
                }
            }
            // SAFETY: the panel has so many lines for each word of the rows, so this
            // ends one past its last line at most.
            line = unsafe { line.add(VECTORS + usize::from(PAIRS > 0)) };
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let first = (row + i) * strip.n + strip.columns.start;
        for (v, sum) in sums.iter().enumerate() {
            let columns = strip.columns.len() - v * W::LANES;
            let mask: __mmask16 =
                if columns < W::LANES { (1 << columns) - 1 } else { __mmask16::MAX };
            // SAFETY: the strip's columns are more than those of the vectors before
            // this one, so this vector's first is in `out`; of the others the mask
            // admits those that are the strip's and hence in the same row of `out`.
            unsafe {
                let out = strip.out.as_mut_ptr().add(first + v * W::LANES);
                let sum = if strip.accumulate { W::add(*sum, W::load(out, mask)) } else { *sum };
                W::store(out, mask, sum);
            }
        }
    }
    let first = strip.columns.start + VECTORS * W::LANES;
    for (pair, sums) in quarters.iter().enumerate() {
        let mut line = Line::<W>::default();
        // SAFETY: a line is larger than half a vector; the store needs no alignment.
        unsafe { _mm256_storeu_si256((&raw mut line).cast(), *sums) };
        let width = strip.columns.end - first;
        for (i, words) in line.words().chunks_exact(W::LANES / 4).take(2).enumerate() {
            let out = &mut strip.out[(row + 2 * pair + i) * strip.n + first..][..width];
            write(out, &words[..width], strip.accumulate);
        }
    }
    ROWS
}
