//! The right operand of a product, in the order in which the kernels read it.

use std::fmt;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

/// Columns in one vector of the widest instruction set: a cache line of words.
pub(super) const LANES: usize = 8;

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// Vectors in a full panel. Six rows of four accumulators, four vectors of the
/// right operand and what the multiplication needs fit AVX-512's 32 registers.
const PANEL_VECTORS: usize = 4;

/// One vector's worth of a row of the right operand. The alignment keeps every
/// load of it within one cache line.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; LANES]);

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
    pub(super) fn panels(&self) -> impl Iterator<Item = (Range<usize>, &[Line])> {
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
