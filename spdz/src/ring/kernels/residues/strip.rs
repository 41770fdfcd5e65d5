//! What a kernel is given, and how it writes its sums to the product.

use std::ops::Range;

use super::packed::{Line, PAIR, SUMS, WORDS};
use crate::ring::kernels::Rows;
use crate::ring::residues::Modulus;

/// Some rows of the left operand times one panel of the right one, or times a block of
/// that panel's rows.
// What the kernels rely on: `rows` are rows of `left`; `columns` are columns of `out`,
// whose rows have `n` words and of which there are as many as of `left`; they are
// more than `(vectors - 1) * WORDS / group` and at most `vectors * WORDS / group`;
// `group` is PAIR with 1 to PANEL_VECTORS vectors, or 4, 8 or 16 with one; from each of
// the `steps` on after the start of a row, `group` words are that row's; there are at
// most BLOCK_WORDS / group steps; and for each of them there are `vectors` lines in
// `lines`. `multiply_add_with` alone makes them.
pub(super) struct Strip<'a> {
    pub(super) left: &'a Rows<'a, i16>,
    pub(super) rows: Range<usize>,
    pub(super) lines: &'a [Line],
    pub(super) steps: &'a [usize],
    pub(super) group: usize,
    pub(super) vectors: usize,
    pub(super) columns: Range<usize>,
    pub(super) out: &'a mut [i16],
    pub(super) n: usize,
    pub(super) modulus: Modulus,
}

/// Room for the sums of one line.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums([i32; SUMS]);

/// The place in the product of row `row` of a strip and its line `line` of columns.
#[inline(always)]
pub(super) fn place<'a, const GROUP: usize>(
    strip: &'a mut Strip<'_>,
    row: usize,
    line: usize,
) -> &'a mut [i16] {
    let first = strip.columns.start + line * (WORDS / GROUP);
    let columns = (WORDS / GROUP).min(strip.columns.end - first);
    &mut strip.out[row * strip.n + first..][..columns]
}

/// Adds the sums of one line to their place in the product.
#[inline(always)]
pub(super) fn add_sums<const GROUP: usize>(out: &mut [i16], sums: &[i32; SUMS], modulus: Modulus) {
    if GROUP == PAIR {
        // Of a whole vector the compiler knows the length.
        let Ok(out) = <&mut [i16; SUMS]>::try_from(&mut *out) else {
            return add_pairs(out, sums, modulus);
        };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = modulus.reduce(*sum + i32::from(*out));
        }
        return;
    }
    let mut words = [0; SUMS];
    for (i, word) in words.iter_mut().enumerate().take(WORDS / GROUP) {
        let mut sum = 0;
        for part in 0..GROUP / 2 {
            sum += sums[i * (GROUP / 2) + part];
        }
        *word = modulus.reduce(sum);
    }
    add_rest(out, &words, modulus);
}

/// Adds one sum to each word of the product; there may be more sums, up to a whole vector.
#[inline(always)]
pub(super) fn add_pairs(out: &mut [i16], sums: &[i32], modulus: Modulus) {
    let (out, rest) = out.split_at_mut(out.len() / SUMS * SUMS);
    let (sums, last) = sums.split_at(out.len());
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = modulus.reduce(*sum + i32::from(*out));
    }
    if !rest.is_empty() {
        let mut words = [0; SUMS];
        for (word, sum) in words.iter_mut().zip(last) {
            *word = modulus.reduce(*sum);
        }
        add_rest(rest, &words, modulus);
    }
}

/// Adds the first words to those of the product, which are fewer than a vector has.
#[inline(always)]
fn add_rest(out: &mut [i16], words: &[i16; SUMS], modulus: Modulus) {
    // In pieces that are loaded and stored at once. A masked store would do for all, but
    // what is loaded beside it soon after would have to wait for it.
    let rest = (out, words.as_slice());
    let rest = add_words::<8>(rest, modulus);
    let rest = add_words::<4>(rest, modulus);
    let rest = add_words::<2>(rest, modulus);
    add_words::<1>(rest, modulus);
}

/// Adds the first `N` words, if there are as many, and returns the others.
#[inline(always)]
fn add_words<'a, const N: usize>(
    (out, words): (&'a mut [i16], &'a [i16]),
    modulus: Modulus,
) -> (&'a mut [i16], &'a [i16]) {
    if out.len() < N {
        return (out, words);
    }
    let (first, rest) = out.split_at_mut(N);
    for (out, word) in first.iter_mut().zip(words) {
        *out = modulus.add(*out, *word);
    }
    (rest, &words[N..])
}
