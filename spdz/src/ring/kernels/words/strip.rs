//! What a kernel is given, and how it writes its sums to the product.

use std::ops::Range;

use super::packed::{LANES, Line};
use crate::ring::kernels::Rows;

/// Some rows of the left operand times one panel of the right one.
// What the kernels rely on: `rows` are rows of `left`; `columns` are columns of `out`,
// whose rows have `n` words and of which there are as many as of `left`; they are
// more than `(vectors - 1) * LANES` and at most `vectors * LANES`; `panel` has
// `vectors` lines for each of the k > 0 words of a row of `left`; and 1 <= vectors <=
// PANEL_VECTORS. `multiply_with` alone makes them.
pub(super) struct Strip<'a> {
    pub(super) left: &'a Rows<'a>,
    pub(super) rows: Range<usize>,
    pub(super) panel: &'a [Line],
    pub(super) vectors: usize,
    pub(super) columns: Range<usize>,
    pub(super) out: &'a mut [u64],
    pub(super) n: usize,
    pub(super) accumulate: bool,
}

/// Writes a line of sums to the columns of it that are in the product.
#[inline(always)]
pub(super) fn write(out: &mut [u64], sums: &Line, accumulate: bool) {
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
