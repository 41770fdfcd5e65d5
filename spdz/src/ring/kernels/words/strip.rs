//! What a kernel is given, and how it writes its sums to the product.

use std::ops::Range;

use super::packed::Line;
use super::word::Word;
use crate::ring::kernels::Rows;

/// Some rows of the left operand times one panel of the right one.
// What the kernels rely on: `rows` are rows of `left`; `columns` are columns of `out`,
// whose rows have `n` words and of which there are as many as of `left`; they are
// more than `(vectors - 1) * LANES` and at most `vectors * LANES`; `panel` has
// `vectors` lines for each of the k > 0 words of a row of `left`; and 1 <= vectors <=
// PANEL_VECTORS. `multiply_with` alone makes them.
pub struct Strip<'a, W: Word> {
    pub(super) left: &'a Rows<'a, W>,
    pub(super) rows: Range<usize>,
    pub(super) panel: &'a [Line<W>],
    pub(super) vectors: usize,
    pub(super) columns: Range<usize>,
    pub(super) out: &'a mut [W],
    pub(super) n: usize,
    pub(super) accumulate: bool,
}

/// Writes sums to the columns of them that are in the product.
#[inline(always)]
pub(super) fn write<W: Word>(out: &mut [W], sums: &[W], accumulate: bool) {
    if out.len() == sums.len() && !accumulate {
        out.copy_from_slice(sums);
    } else if accumulate {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = out.plus(*sum);
        }
    } else {
        out.copy_from_slice(&sums[..out.len()]);
    }
}
