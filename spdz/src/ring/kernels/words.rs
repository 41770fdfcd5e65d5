//! Products of 64-bit integers that wrap.

use std::fmt;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

use super::{InstructionSet, Rows};

/// Columns in one vector of the widest instruction set: a cache line of words.
const LANES: usize = 8;

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// Vectors in a full panel. Six rows of four accumulators, four vectors of the
/// right operand and what the multiplication needs fit AVX-512's 32 registers.
const PANEL_VECTORS: usize = 4;

/// How much of the left operand is taken through all panels before going on:
/// little enough to stay in the second-level cache, together with a panel.
const CHUNK_WORDS: usize = 32 * 1024;

/// A chunk of rows is a multiple of this, so that it splits into whole register
/// blocks, which have six or eight rows.
const CHUNK_ROWS: usize = 24;

/// One vector's worth of a row of the right operand. The alignment keeps every
/// load of it within one cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u64; LANES]);

impl DefaultIsZeroes for Line {}

/// The right operand of a product, `[k, n]`, in the order the kernels read it.
///
/// The columns are cut into panels of 32, the last one as many vectors of eight as
/// it needs and padded with zeros. Within a panel the rows follow each other, so
/// that a product reads it from front to back.
///
/// The words are erased when it is dropped, as they may be shares of a model.
pub struct PackedRight {
    lines: Vec<Line>,
    k: usize,
    n: usize,
}

impl PackedRight {
    /// Packs the row-major `[k, n]` matrix `values`.
    ///
    /// # Panics
    ///
    /// If `values` does not have `k * n` words.
    pub fn new(values: &[u64], k: usize, n: usize) -> Self {
        assert_eq!(Some(values.len()), k.checked_mul(n), "a right operand of {k} by {n}");
        // Of an empty matrix the other dimension may be anything.
        if values.is_empty() {
            return Self { lines: Vec::new(), k, n };
        }
        // Room for everything at once: growing would leave copies behind that are
        // not erased.
        let mut lines = Vec::with_capacity(k * n.div_ceil(LANES));
        for first in (0..n).step_by(PANEL_VECTORS * LANES) {
            let columns = first..n.min(first + PANEL_VECTORS * LANES);
            for row in values.chunks_exact(n) {
                let (whole, rest) = row[columns.clone()].as_chunks::<LANES>();
                lines.extend(whole.iter().map(|words| Line(*words)));
                if !rest.is_empty() {
                    let mut line = Line::default();
                    line.0[..rest.len()].copy_from_slice(rest);
                    lines.push(line);
                }
            }
        }
        Self { lines, k, n }
    }

    /// The rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The panels: their columns, and their lines, `k` times as many as the
    /// columns need vectors. For a matrix that is not empty.
    fn panels(&self) -> impl Iterator<Item = (Range<usize>, &[Line])> {
        self.lines.chunks(PANEL_VECTORS * self.k).enumerate().map(|(panel, lines)| {
            let first = panel * PANEL_VECTORS * LANES;
            (first..self.n.min(first + PANEL_VECTORS * LANES), lines)
        })
    }
}

impl Drop for PackedRight {
    fn drop(&mut self) {
        self.lines.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for PackedRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedRight")
            .field("k", &self.k)
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

/// `out = left · right`: `[m, n]` from `[m, k]` and `[k, n]`, row-major.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply(left: &Rows<'_>, right: &PackedRight, out: &mut [u64]) {
    multiply_with(InstructionSet::detect(), left, right, out, false);
}

/// `out += left · right`: `[m, n]` from `[m, k]` and `[k, n]`, row-major.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add(left: &Rows<'_>, right: &PackedRight, out: &mut [u64]) {
    multiply_with(InstructionSet::detect(), left, right, out, true);
}

/// [`multiply`], or [`multiply_add`] if `accumulate`, by the instruction set `isa`,
/// for tests and benchmarks. One the machine does not have is replaced by
/// [`InstructionSet::Portable`].
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_with(
    isa: InstructionSet,
    left: &Rows<'_>,
    right: &PackedRight,
    out: &mut [u64],
    accumulate: bool,
) {
    let (m, k, n) = (left.m(), right.k(), right.n());
    assert_eq!(left.k(), k, "the operands' inner dimensions differ");
    assert_eq!(
        Some(out.len()),
        m.checked_mul(n),
        "a product of {m} by {n} into {} words",
        out.len()
    );
    if k == 0 && !accumulate {
        out.fill(0);
    }
    if k == 0 || out.is_empty() {
        return;
    }
    let strips: fn(Strip<'_>) = match isa {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni | InstructionSet::Avx512 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { avx512::multiply(strip) }
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { avx2::multiply(strip) }
        },
        _ => portable::multiply,
    };
    let chunk = (CHUNK_WORDS / k / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    for first in (0..m).step_by(chunk) {
        for (columns, panel) in right.panels() {
            strips(Strip {
                left,
                rows: first..m.min(first + chunk),
                panel,
                vectors: panel.len() / k,
                columns,
                out,
                n,
                accumulate,
            });
        }
    }
}

/// Some rows of the left operand times one panel of the right one.
// What the kernels rely on: `rows` are rows of `left`; `columns` are columns of `out`,
// whose rows have `n` words and of which there are as many as of `left`; they are
// more than `(vectors - 1) * LANES` and at most `vectors * LANES`; `panel` has
// `vectors` lines for each of the k > 0 words of a row of `left`; and 1 <= vectors <=
// PANEL_VECTORS. `multiply_with` alone makes them.
struct Strip<'a> {
    left: &'a Rows<'a>,
    rows: Range<usize>,
    panel: &'a [Line],
    vectors: usize,
    columns: Range<usize>,
    out: &'a mut [u64],
    n: usize,
    accumulate: bool,
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, __mmask8, _mm512_add_epi64, _mm512_load_si512, _mm512_mask_storeu_epi64,
        _mm512_maskz_loadu_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    };

    use super::{LANES, Strip};

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
                let mask: __mmask8 =
                    if columns < LANES { (1 << columns) - 1 } else { __mmask8::MAX };
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
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_load_si256, _mm256_mul_epu32,
        _mm256_mullo_epi32, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi32,
        _mm256_slli_epi64, _mm256_store_si256,
    };

    use super::{LANES, Line, Strip};

    /// Vectors of four words in a line of eight.
    const HALVES: usize = 2;

    /// Swaps the halves of every 64-bit word.
    const SWAP: i32 = 0b10_11_00_01;

    /// The strip line by line of its panel: two accumulators for every four words make
    /// eight for two rows, which with their operands fill the 16 registers. Three rows
    /// do not fit, and are slower by a third for it.
    #[target_feature(enable = "avx2")]
    pub(super) fn multiply(mut strip: Strip<'_>) {
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
    unsafe fn block<const ROWS: usize>(strip: &mut Strip<'_>, row: usize, column: usize) -> usize {
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
            let mut sums = Line::default();
            for v in 0..HALVES {
                let cross = cross[i][v];
                let cross = _mm256_add_epi32(cross, _mm256_shuffle_epi32::<SWAP>(cross));
                let sum = _mm256_add_epi64(lower[i][v], _mm256_slli_epi64::<32>(cross));
                // SAFETY: a line is as large as two vectors and aligned for them.
                unsafe { _mm256_store_si256((&raw mut sums).cast::<__m256i>().add(v), sum) };
            }
            let out = &mut strip.out[(row + i) * strip.n + first..][..width];
            super::write(out, &sums, strip.accumulate);
        }
        ROWS
    }
}

mod portable {
    use super::{LANES, Line, Strip};

    /// The strip line by line of its panel, in code that is safe on any processor.
    pub(super) fn multiply(strip: Strip<'_>) {
        let left = strip.left;
        for column in 0..strip.vectors {
            let first = strip.columns.start + column * LANES;
            let width = LANES.min(strip.columns.end - first);
            for row in strip.rows.clone() {
                let mut sums = Line::default();
                let mut lines = strip.panel.chunks_exact(strip.vectors);
                for segment in 0..left.segments {
                    let words = &left.data[left.start(row) + segment * left.stride..];
                    for (word, lines) in words[..left.length].iter().zip(&mut lines) {
                        for (sum, right) in sums.0.iter_mut().zip(lines[column].0) {
                            *sum = sum.wrapping_add(word.wrapping_mul(right));
                        }
                    }
                }
                let out = &mut strip.out[row * strip.n + first..][..width];
                super::write(out, &sums, strip.accumulate);
            }
        }
    }
}

/// Writes a line of sums to the columns of it that are in the product.
#[inline(always)]
fn write(out: &mut [u64], sums: &Line, accumulate: bool) {
    if let (Ok(out), false) = (<&mut [u64; LANES]>::try_from(&mut *out), accumulate) {
        *out = sums.0;
    } else if accumulate {
        for (out, sum) in out.iter_mut().zip(sums.0) {
            *out = out.wrapping_add(sum);
        }
    } else {
        out.copy_from_slice(&sums.0[..out.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::Union;

    use super::*;

    /// What must not be written lies on both sides of every product.
    const GUARD: u64 = 0x5afe;

    fn reference(left: &[u64], right: &[u64], m: usize, k: usize, n: usize) -> Vec<u64> {
        let mut out = vec![0u64; m * n];
        for i in 0..m {
            for j in 0..n {
                for t in 0..k {
                    let product = left[i * k + t].wrapping_mul(right[t * n + j]);
                    out[i * n + j] = out[i * n + j].wrapping_add(product);
                }
            }
        }
        out
    }

    /// Compares all instruction sets with `expected`, with and without accumulation.
    fn check(rows: &Rows<'_>, right: &[u64], n: usize, expected: &[u64]) {
        let (m, k) = (rows.m(), rows.k());
        let packed = PackedRight::new(right, k, n);
        assert_eq!((packed.k(), packed.n()), (k, n));
        let before: Vec<u64> = words(m * n, 7);
        let sums: Vec<u64> = before
            .iter()
            .zip(expected)
            .map(|(before, product)| before.wrapping_add(*product))
            .collect();
        for isa in InstructionSet::available() {
            for (accumulate, expected) in [(false, expected), (true, &sums)] {
                let mut guarded = vec![GUARD; 8 + m * n + 8];
                guarded[8..8 + m * n].copy_from_slice(&before);
                let out = &mut guarded[8..8 + m * n];
                multiply_with(isa, rows, &packed, out, accumulate);
                assert!(out == expected, "{isa:?} {m}x{k}x{n} accumulate={accumulate}");
                assert_eq!(guarded[..8], [GUARD; 8]);
                assert_eq!(guarded[8 + m * n..], [GUARD; 8]);
            }
        }
    }

    /// Words without a pattern.
    fn words(count: usize, seed: u64) -> Vec<u64> {
        (0..count as u64)
            .map(|i| {
                let word = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed << 8);
                (word ^ word >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            })
            .collect()
    }

    #[test]
    fn products_of_all_shapes() {
        for k in [0, 1, 2, 3, 7, 25, 64, 100] {
            for m in [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 25, 31] {
                let left = words(m * k, 1);
                let rows = Rows::matrix(&left, m, k).unwrap();
                for n in [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 25, 31, 32, 33, 50, 64, 100] {
                    let right = words(k * n, 2);
                    check(&rows, &right, n, &reference(&left, &right, m, k, n));
                }
            }
        }
    }

    #[test]
    fn more_rows_than_a_chunk() {
        let (m, k, n) = (101, 1500, 41);
        let (left, right) = (words(m * k, 3), words(k * n, 4));
        let rows = Rows::matrix(&left, m, k).unwrap();
        check(&rows, &right, n, &reference(&left, &right, m, k, n));
    }

    #[test]
    fn products_by_the_detected_instruction_set() {
        let rows = Rows::matrix(&[1, 2, 3, u64::MAX], 2, 2).unwrap();
        let right = PackedRight::new(&[10, 20, 30, 40], 2, 2);
        let mut out = [9; 4];
        multiply(&rows, &right, &mut out);
        assert_eq!(out, [70, 100, 0, 20]);
        multiply_add(&rows, &right, &mut out);
        assert_eq!(out, [140, 200, 0, 40]);
    }

    #[test]
    fn rows_without_words_may_start_anywhere() {
        for (segments, length) in [(0, 3), (3, 0), (0, 0)] {
            let rows = Rows::new(&[], &[7, u32::MAX], segments, 5, length).unwrap();
            assert_eq!((rows.m(), rows.k()), (2, 0));
            check(&rows, &[], 3, &[0; 6]);
        }
    }

    #[test]
    fn empty_matrices_may_have_any_other_dimension() {
        let right = PackedRight::new(&[], usize::MAX, 0);
        let rows = Rows::matrix(&[], 0, usize::MAX).unwrap();
        multiply(&rows, &right, &mut []);
        let right = PackedRight::new(&[], 0, usize::MAX);
        let rows = Rows::matrix(&[], 0, 0).unwrap();
        multiply(&rows, &right, &mut []);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn operands_must_agree() {
        let rows = Rows::matrix(&[1, 2], 1, 2).unwrap();
        multiply(&rows, &PackedRight::new(&[1, 2, 3], 3, 1), &mut [0]);
    }

    #[test]
    #[should_panic(expected = "a product of 1 by 3 into 2 words")]
    fn the_product_must_fit() {
        let rows = Rows::matrix(&[1], 1, 1).unwrap();
        multiply(&rows, &PackedRight::new(&[1, 2, 3], 1, 3), &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a right operand of 2 by 2")]
    fn the_right_operand_must_have_its_shape() {
        PackedRight::new(&[1, 2, 3], 2, 2);
    }

    #[test]
    fn debug_output_has_no_values() {
        let data = [123_456_789; 4];
        let shown = format!("{:?} {:?}", PackedRight::new(&data, 2, 2), Rows::matrix(&data, 2, 2));
        assert!(shown.contains("k: 2, n: 2"), "{shown}");
        assert!(!shown.contains("123456789"), "{shown}");
    }

    /// Words at and around the bounds of their halves, and any others.
    fn word() -> impl Strategy<Value = u64> + Clone {
        let bounds = [0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX];
        let bound = Union::new(bounds.map(Just)).boxed();
        prop_oneof![bound, any::<u64>()]
    }

    proptest! {
        #[test]
        fn products_of_any_values(
            (m, k, n, left, right) in (0usize..20, 0usize..40, 0usize..70).prop_flat_map(
                |(m, k, n)| {
                    let left = prop::collection::vec(word(), m * k);
                    let right = prop::collection::vec(word(), k * n);
                    (Just(m), Just(k), Just(n), left, right)
                },
            )
        ) {
            let rows = Rows::matrix(&left, m, k).unwrap();
            check(&rows, &right, n, &reference(&left, &right, m, k, n));
        }

        /// A convolution without padding, against copied patches.
        #[test]
        fn convolutions(
            (filter_height, filter_width) in (1usize..5, 1usize..5),
            (above, beside) in (0usize..6, 0usize..6),
            (batch, channels, filters) in (1usize..3, 1usize..5, 1usize..40),
            step in 1usize..3,
            seed in any::<u64>(),
        ) {
            let (height, width) = (filter_height + above, filter_width + beside);
            let image = words(batch * height * width * channels, seed);
            let (mut starts, mut patches) = (Vec::new(), Vec::new());
            for b in 0..batch {
                for y in (0..=above).step_by(step) {
                    for x in (0..=beside).step_by(step) {
                        let at = |y, x| ((b * height + y) * width + x) * channels;
                        starts.push(at(y, x) as u32);
                        for dy in 0..filter_height {
                            for dx in 0..filter_width {
                                patches.extend(&image[at(y + dy, x + dx)..][..channels]);
                            }
                        }
                    }
                }
            }
            let stride = width * channels;
            let length = filter_width * channels;
            let rows = Rows::new(&image, &starts, filter_height, stride, length).unwrap();
            let (m, k) = (starts.len(), filter_height * length);
            prop_assert_eq!((rows.m(), rows.k()), (m, k));
            let right = words(k * filters, !seed);
            check(&rows, &right, filters, &reference(&patches, &right, m, k, filters));
        }
    }
}
