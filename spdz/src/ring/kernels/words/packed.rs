//! The right operand of a product, in the order in which the kernels read it.

use std::fmt;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

use super::word::Word;

const _: () = assert!(size_of::<Line<u64>>() == 64 && align_of::<Line<u64>>() == 64);
const _: () = assert!(size_of::<Line<u32>>() == 64 && align_of::<Line<u32>>() == 64);

/// Vectors in a full panel. Six rows of four accumulators, four vectors of the
/// right operand and what the multiplication needs fit AVX-512's 32 registers.
const PANEL_VECTORS: usize = 4;

/// One vector's worth of a row of the right operand, for the widest instruction set. The
/// alignment keeps every load of it within one cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line<W: Word>(W::Words);

impl<W: Word> DefaultIsZeroes for Line<W> {}

impl<W: Word> Line<W> {
    #[inline(always)]
    pub(super) fn words(&self) -> &[W] {
        self.0.as_ref()
    }

    #[inline(always)]
    pub(super) fn words_mut(&mut self) -> &mut [W] {
        self.0.as_mut()
    }
}

/// The right operand of a product, `[k, n]`, in the order the kernels read it.
///
/// The columns are cut into panels of four cache lines, which are 32 words of 64 bits, the
/// last one as many lines as it needs and padded with zeros. Within a panel the rows follow each other, so
/// that a product reads it from front to back.
///
/// The words are erased when it is dropped, as they may be shares of a model.
pub struct PackedRight<W: Word = u64> {
    lines: Vec<Line<W>>,
    k: usize,
    n: usize,
}

impl<W: Word> PackedRight<W> {
    /// Packs the row-major `[k, n]` matrix `values`.
    ///
    /// # Panics
    ///
    /// If `values` does not have `k * n` words.
    pub fn new(values: &[W], k: usize, n: usize) -> Self {
        assert_eq!(Some(values.len()), k.checked_mul(n), "a right operand of {k} by {n}");
        // Of an empty matrix the other dimension may be anything.
        if values.is_empty() {
            return Self { lines: Vec::new(), k, n };
        }
        // Room for everything at once: growing would leave copies behind that are
        // not erased.
        let mut lines = Vec::with_capacity(k * n.div_ceil(W::LANES));
        for first in (0..n).step_by(PANEL_VECTORS * W::LANES) {
            let columns = first..n.min(first + PANEL_VECTORS * W::LANES);
            for row in values.chunks_exact(n) {
                let whole = row[columns.clone()].chunks_exact(W::LANES);
                let rest = whole.remainder();
                lines.extend(whole.map(line));
                if !rest.is_empty() {
                    lines.push(line(rest));
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
    pub(super) fn panels(&self) -> impl Iterator<Item = (Range<usize>, &[Line<W>])> {
        self.lines.chunks(PANEL_VECTORS * self.k).enumerate().map(|(panel, lines)| {
            let first = panel * PANEL_VECTORS * W::LANES;
            (first..self.n.min(first + PANEL_VECTORS * W::LANES), lines)
        })
    }
}

/// A line of at most so many words, the others zero.
#[inline(always)]
fn line<W: Word>(words: &[W]) -> Line<W> {
    let mut line = Line::default();
    line.words_mut()[..words.len()].copy_from_slice(words);
    line
}

impl<W: Word> Drop for PackedRight<W> {
    fn drop(&mut self) {
        self.lines.as_mut_slice().zeroize();
    }
}

impl<W: Word> fmt::Debug for PackedRight<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedRight")
            .field("k", &self.k)
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}
