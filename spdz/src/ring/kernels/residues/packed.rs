//! The right operand of a product, in the order in which the kernels read it.

use std::fmt;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize};

use crate::ring::kernels::Rows;
use crate::ring::residues::Modulus;

/// Words in one vector of the widest instruction set: a cache line.
pub(super) const WORDS: usize = 32;

/// Sums in one vector of the widest instruction set: those of pairs of words.
pub(super) const SUMS: usize = WORDS / 2;

/// Words of a row that serve one line of most panels.
pub(super) const PAIR: usize = 2;

/// Vectors in a full panel. Six rows of four accumulators, four vectors of the right
/// operand and one of the left fit AVX-512's 32 registers.
const PANEL_VECTORS: usize = 4;

/// Rows of fewer words do not profit from a panel of few columns: to add up the sums that
/// belong to a column takes longer than the products that are saved.
const SHORT: usize = 64;

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// One vector's worth of the right operand. The alignment keeps every load of it
/// within one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [i16; WORDS]);

impl Default for Line {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl DefaultIsZeroes for Line {}

/// The right operand of a product, `[k, n]`, in the order the kernels read it.
///
/// The columns are cut into panels. Of every panel, line after line, a product reads
/// as many words of its rows as the panel's `group` says, and multiplies them with the
/// 32 words of a line: `group` words of each of `32 / group` columns. Where a segment
/// of the rows is no multiple of the group, its last group overlaps the one before,
/// and the words they share are multiplied by zeros the second time: no product reads
/// beyond a segment.
///
/// Most panels take pairs of words, and up to four lines of 16 columns. The
/// columns left over, if they are few, make a last one that takes more words of fewer
/// columns, so that it has few zeros for columns that are not there.
///
/// The words are erased when it is dropped, as they may be shares of a model.
pub struct PackedResidues {
    pub(super) lines: Vec<Line>,
    pub(super) k: usize,
    pub(super) n: usize,
    /// Segments of the rows it multiplies, of `length` words each, at least two.
    pub(super) segments: usize,
    pub(super) length: usize,
    /// The group of the last panel.
    pub(super) last_group: usize,
    pub(super) modulus: Modulus,
}

/// Some columns of a packed operand.
pub(super) struct Panel {
    pub(super) columns: Range<usize>,
    /// Words of a row that a line holds for each of its columns.
    pub(super) group: usize,
    /// Lines for each group of words.
    pub(super) vectors: usize,
}

impl PackedResidues {
    /// Packs the row-major `[k, n]` matrix `values` of centred residues.
    ///
    /// `segment_length` is the length of the segments of the [`Rows`] that it will
    /// multiply: `k` for a matrix, the words in a row of the filter for a convolution.
    /// Rows with other segments are multiplied as well, but copied first.
    ///
    /// # Panics
    ///
    /// If `values` does not have `k * n` words, or `k` is not a multiple of
    /// `segment_length`.
    pub fn new(
        values: &[i16],
        k: usize,
        n: usize,
        segment_length: usize,
        modulus: Modulus,
    ) -> Self {
        assert_eq!(Some(values.len()), k.checked_mul(n), "a right operand of {k} by {n}");
        assert!(
            k == 0 || (segment_length > 0 && k.is_multiple_of(segment_length)),
            "{k} rows in segments of {segment_length}"
        );
        // There is no pair in a segment of one word. Such rows are copied; a product
        // with k = 1 gets a second row of zeros.
        let (segments, length) = match segment_length {
            _ if k < PAIR => (1, PAIR),
            1 => (1, k),
            _ => (k / segment_length, segment_length),
        };
        // As many words of a row at once as leave room for the remaining columns.
        let rest = n % SUMS;
        let fits =
            |group: &usize| k >= SHORT && rest > 0 && rest <= WORDS / group && *group <= length;
        let last_group = [16, 8, 4].into_iter().find(fits).unwrap_or(PAIR);
        let mut packed = Self { lines: Vec::new(), k, n, segments, length, last_group, modulus };
        // Of an empty matrix the other dimension may be anything.
        if values.is_empty() {
            return packed;
        }
        // Room for everything at once: growing would leave copies behind that are
        // not erased.
        let lines = packed.panels().map(|panel| packed.lines_of(&panel)).sum();
        let mut lines = Vec::with_capacity(lines);
        for Panel { columns, group, vectors } in packed.panels() {
            for segment in 0..segments {
                for first in (0..length).step_by(group) {
                    let start = first.min(length - group);
                    for vector in 0..vectors {
                        let width = WORDS / group;
                        let from = columns.start + vector * width;
                        let width = width.min(columns.end - from);
                        let mut line = Line::default();
                        for i in first - start..group {
                            let row = segment * length + start + i;
                            let Some(row) = values.get(row * n + from..) else { continue };
                            let words = line.0.iter_mut().skip(i).step_by(group);
                            for (word, value) in words.zip(row.iter().take(width)) {
                                *word = *value;
                            }
                        }
                        lines.push(line);
                    }
                }
            }
        }
        packed.lines = lines;
        packed
    }

    /// The rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// What its words are residues of.
    pub fn modulus(&self) -> Modulus {
        self.modulus
    }

    /// The panels, in the order of their lines.
    pub(super) fn panels(&self) -> impl Iterator<Item = Panel> + use<> {
        let (n, last_group) = (self.n, self.last_group);
        let paired = if last_group == PAIR { n } else { n - n % SUMS };
        let width = PANEL_VECTORS * SUMS;
        let pairs = (0..paired).step_by(width).map(move |first| {
            let columns = first..paired.min(first + width);
            Panel { group: PAIR, vectors: columns.len().div_ceil(SUMS), columns }
        });
        let last =
            (paired < n).then_some(Panel { group: last_group, vectors: 1, columns: paired..n });
        pairs.chain(last)
    }

    /// The lines of a panel.
    fn lines_of(&self, panel: &Panel) -> usize {
        self.segments * self.length.div_ceil(panel.group) * panel.vectors
    }

    /// The rows as segments of the length this operand is packed for, if they are.
    pub(super) fn match_segments<'a>(&self, rows: &Rows<'a, i16>) -> Option<Rows<'a, i16>> {
        if rows.length == self.length {
            Some(*rows)
        } else if rows.segments == 1 && rows.length == self.segments * self.length {
            // What lies together may be taken apart.
            let (segments, length) = (self.segments, self.length);
            Some(Rows { segments, stride: length, length, ..*rows })
        } else {
            None
        }
    }
}

impl Drop for PackedResidues {
    fn drop(&mut self) {
        self.lines.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for PackedResidues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedResidues")
            .field("k", &self.k)
            .field("n", &self.n)
            .field("modulus", &self.modulus)
            .finish_non_exhaustive()
    }
}
