//! Products of matrices of residues modulo a small prime.
//!
//! The residues are centred, so a product of two has less than 20 bits and the sum of
//! some thousand still fits 32 bits. The kernels multiply and add them as they are, and
//! reduce once at the end: processors multiply 32 pairs of 16-bit words and add their
//! products in twos by one instruction (`vpdpwssd`, `vpmaddwd`), four times as many
//! words as they multiply 64-bit ones.
//!
//! These instructions want the words of a row in pairs. A row of the left operand is
//! read where it lies ([`Rows`]), a pair or more by one load, and repeated all over a
//! vector; the right operand is packed to match ([`PackedResidues`]).

use zeroize::Zeroizing;

use super::{InstructionSet, Rows, Starts};
use crate::ring::residues::Modulus;

mod packed;
mod portable;
mod strip;
#[cfg(target_arch = "x86_64")]
mod x86;

use packed::PAIR;
pub use packed::PackedResidues;
use strip::Strip;

/// Products that are summed before they are reduced. With [`LARGEST`] factors and a
/// residue to add the product to, the sum of so many fits 32 bits.
const BLOCK_WORDS: usize = 4096;

/// The largest magnitude of a residue.
const LARGEST: i64 = Modulus::LARGEST as i64 / 2;

const _: () = assert!(BLOCK_WORDS as i64 * LARGEST * LARGEST + LARGEST <= i32::MAX as i64);

/// How much of the left operand is taken through all panels before going on:
/// little enough to stay in the second-level cache, together with a panel.
const CHUNK_WORDS: usize = 128 * 1024;

/// A chunk of rows is a multiple of this, so that it splits into whole register
/// blocks, which have six or eight rows.
const CHUNK_ROWS: usize = 24;

/// `out += left · right`, reduced: `[m, n]` from `[m, k]` and `[k, n]`, row-major, all of
/// them centred residues.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add(left: &Rows<'_, i16>, right: &PackedResidues, out: &mut [i16]) {
    multiply_add_with(InstructionSet::detect(), left, right, out);
}

/// [`multiply_add`] by the instruction set `isa`, for tests and benchmarks. One the
/// machine does not have is replaced by [`InstructionSet::Portable`].
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add_with(
    isa: InstructionSet,
    left: &Rows<'_, i16>,
    right: &PackedResidues,
    out: &mut [i16],
) {
    let (m, k, n) = (left.m(), right.k, right.n);
    assert_eq!(left.k(), k, "the operands' inner dimensions differ");
    assert_eq!(
        Some(out.len()),
        m.checked_mul(n),
        "a product of {m} by {n} into {} words",
        out.len()
    );
    if k == 0 || out.is_empty() {
        return;
    }
    let copy;
    let left = match right.match_segments(left) {
        Some(left) => left,
        None => {
            let (segments, length) = (right.segments, right.length);
            copy = Zeroizing::new(gather(left, segments * length));
            let starts = Starts::Dense;
            Rows { data: &copy, starts, m, segments, stride: length, length }
        }
    };
    let strips: fn(Strip<'_>) = match isa {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx512_vnni(strip) }
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx512(strip) }
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx2(strip) }
        },
        _ => portable::multiply,
    };
    let pairs = steps(&left, PAIR);
    let groups = steps(&left, right.last_group);
    let chunk = (CHUNK_WORDS / k / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    for first in (0..m).step_by(chunk) {
        let rows = first..m.min(first + chunk);
        let mut lines = right.lines.as_slice();
        for panel in right.panels() {
            let steps = if panel.group == PAIR { &pairs } else { &groups };
            for steps in steps.chunks(BLOCK_WORDS / panel.group) {
                let block;
                (block, lines) = lines.split_at(steps.len() * panel.vectors);
                strips(Strip {
                    left: &left,
                    rows: rows.clone(),
                    lines: block,
                    steps,
                    group: panel.group,
                    vectors: panel.vectors,
                    columns: panel.columns.clone(),
                    out,
                    n,
                    modulus: right.modulus,
                });
            }
        }
    }
}

/// The rows one after the other, with zeros up to `length` words each.
fn gather(rows: &Rows<'_, i16>, length: usize) -> Vec<i16> {
    let mut words = vec![0; rows.m * length];
    for (row, words) in words.chunks_exact_mut(length).enumerate() {
        for (segment, words) in words[..rows.k()].chunks_exact_mut(rows.length).enumerate() {
            let start = rows.start(row) + segment * rows.stride;
            words.copy_from_slice(&rows.data[start..][..rows.length]);
        }
    }
    words
}

/// Where the groups of the words of a row start, counted from the start of the row.
fn steps(rows: &Rows<'_, i16>, group: usize) -> Vec<usize> {
    let mut steps = Vec::with_capacity(rows.segments * rows.length.div_ceil(group));
    for segment in 0..rows.segments {
        let first = segment * rows.stride;
        let last = first + rows.length - group;
        steps.extend((first..last).step_by(group));
        steps.push(last);
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What must not be written lies on both sides of every product.
    const GUARD: i16 = 0x5afe;

    fn reference(left: &[i16], right: &[i16], k: usize, n: usize, m: Modulus) -> Vec<i16> {
        let mut out = Vec::new();
        for left in left.chunks_exact(k) {
            for j in 0..n {
                let product = |(t, x): (usize, &i16)| i128::from(*x) * i128::from(right[t * n + j]);
                out.push(m.of(left.iter().enumerate().map(product).sum()));
            }
        }
        out
    }

    /// Residues without a pattern; if `extreme`, only those of the largest magnitude.
    fn words(count: usize, seed: u64, m: Modulus, extreme: bool) -> Vec<i16> {
        let half = m.value() / 2;
        (0..count as u64)
            .map(|i| {
                let word = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed << 8);
                let word = (word ^ word >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20;
                if extreme {
                    if seed.is_multiple_of(2) { half } else { -half }
                } else {
                    m.of(word.into())
                }
            })
            .collect()
    }

    /// Compares all instruction sets with `product`.
    fn check(rows: &Rows<'_, i16>, packed: &PackedResidues, product: &[i16]) {
        let (m, k, n, modulus) = (rows.m(), packed.k(), packed.n(), packed.modulus());
        let before = words(m * n, 7, modulus, false);
        let expected: Vec<i16> =
            before.iter().zip(product).map(|(x, y)| modulus.add(*x, *y)).collect();
        for isa in InstructionSet::available() {
            let mut guarded = vec![GUARD; 32 + m * n + 32];
            guarded[32..32 + m * n].copy_from_slice(&before);
            let out = &mut guarded[32..32 + m * n];
            multiply_add_with(isa, rows, packed, out);
            assert!(out == expected, "{isa:?} {m}x{k}x{n} {modulus:?}");
            assert_eq!(guarded[..32], [GUARD; 32]);
            assert_eq!(guarded[32 + m * n..], [GUARD; 32]);
        }
    }

    fn check_matrix(m: usize, k: usize, n: usize, modulus: Modulus, extreme: bool) {
        let (left, right) = (words(m * k, 1, modulus, extreme), words(k * n, 2, modulus, extreme));
        // At the end of an allocation, which the sanitisers and Valgrind can see.
        let left = left.into_boxed_slice();
        let rows = Rows::matrix(&left, m, k).unwrap();
        let packed = PackedResidues::new(&right, k, n, k, modulus);
        check(&rows, &packed, &reference(&left, &right, k, n, modulus));
    }

    #[test]
    fn products_of_all_shapes() {
        for (i, k) in [1, 2, 3, 5, 7, 8, 15, 16, 17, 25, 63, 64, 65, 100].into_iter().enumerate() {
            for m in [0, 1, 2, 3, 5, 6, 7, 8, 9, 15, 17, 25] {
                for n in [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 20, 31, 32, 33, 40, 50, 64, 65, 100] {
                    check_matrix(m, k, n, Modulus::ALL[(i + m + n) % 10], false);
                }
            }
        }
    }

    #[test]
    fn products_modulo_all_moduli() {
        for modulus in Modulus::ALL {
            check_matrix(25, 100, 41, modulus, false);
            check_matrix(25, 100, 41, modulus, true);
        }
    }

    /// The largest sums there can be, below, at and above what fits 32 bits.
    #[test]
    fn long_rows_are_reduced_in_between() {
        for k in [BLOCK_WORDS - 1, BLOCK_WORDS, BLOCK_WORDS + 1, 3 * BLOCK_WORDS + 7] {
            for n in [1, 3, 6, 16, 20] {
                check_matrix(2, k, n, Modulus::ALL[1], true);
                check_matrix(2, k, n, Modulus::ALL[9], true);
                check_matrix(2, k, n, Modulus::ALL[4], false);
            }
        }
    }

    #[test]
    fn more_rows_than_a_chunk() {
        check_matrix(101, 1500, 41, Modulus::ALL[3], false);
        check_matrix(50, 5000, 20, Modulus::ALL[3], false);
    }

    #[test]
    fn products_by_the_detected_instruction_set() {
        let modulus = Modulus::ALL[9];
        let rows = Rows::matrix(&[1, 2, 3, -500], 2, 2).unwrap();
        let right = PackedResidues::new(&[10, 20, 30, 40], 2, 2, 2, modulus);
        let mut out = [9; 4];
        multiply_add(&rows, &right, &mut out);
        assert_eq!(out, [79, 109, modulus.of(39 - 15_000), modulus.of(69 - 20_000)]);
    }

    #[test]
    fn products_without_words() {
        let modulus = Modulus::ALL[0];
        for (segments, length) in [(0, 3), (3, 0), (0, 0)] {
            let rows = Rows::new(&[], &[7, u32::MAX], segments, 5, length).unwrap();
            check(&rows, &PackedResidues::new(&[], 0, 3, length, modulus), &[0; 6]);
        }
        let right = PackedResidues::new(&[], usize::MAX, 0, usize::MAX, modulus);
        multiply_add(&Rows::matrix(&[], 0, usize::MAX).unwrap(), &right, &mut []);
        let right = PackedResidues::new(&[], 0, usize::MAX, 0, modulus);
        multiply_add(&Rows::matrix(&[], 0, 0).unwrap(), &right, &mut []);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn operands_must_agree() {
        let rows = Rows::matrix(&[1, 2], 1, 2).unwrap();
        let right = PackedResidues::new(&[1, 2, 3], 3, 1, 3, Modulus::ALL[0]);
        multiply_add(&rows, &right, &mut [0]);
    }

    #[test]
    #[should_panic(expected = "a product of 1 by 3 into 2 words")]
    fn the_product_must_fit() {
        let rows = Rows::matrix(&[1], 1, 1).unwrap();
        let right = PackedResidues::new(&[1, 2, 3], 1, 3, 1, Modulus::ALL[0]);
        multiply_add(&rows, &right, &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a right operand of 2 by 2")]
    fn the_right_operand_must_have_its_shape() {
        PackedResidues::new(&[1, 2, 3], 2, 2, 2, Modulus::ALL[0]);
    }

    #[test]
    #[should_panic(expected = "4 rows in segments of 3")]
    fn the_right_operand_must_have_whole_segments() {
        PackedResidues::new(&[1, 2, 3, 4], 4, 1, 3, Modulus::ALL[0]);
    }

    #[test]
    fn debug_output_has_no_values() {
        let data = [567; 4];
        let packed = PackedResidues::new(&data, 2, 2, 2, Modulus::ALL[0]);
        let shown = format!("{packed:?} {:?}", Rows::matrix(&data, 2, 2));
        assert!(shown.contains("k: 2, n: 2, modulus: Modulus(1201)"), "{shown}");
        assert!(!shown.contains("567"), "{shown}");
    }

    proptest! {
        #[test]
        fn products_of_any_values(
            modulus in 0usize..10,
            (k, n, left, right) in (0usize..20, 1usize..90, 0usize..70).prop_flat_map(
                |(m, k, n)| {
                    // Modulo any of the moduli these are residues.
                    let word = -519i16..=519;
                    let left = prop::collection::vec(word.clone(), m * k);
                    let right = prop::collection::vec(word, k * n);
                    (Just(k), Just(n), left, right)
                },
            )
        ) {
            let modulus = Modulus::ALL[modulus];
            let rows = Rows::matrix(&left, left.len() / k, k).unwrap();
            let packed = PackedResidues::new(&right, k, n, k, modulus);
            check(&rows, &packed, &reference(&left, &right, k, n, modulus));
        }

        /// A convolution without padding, against copied patches; packed for its own
        /// segments, for those of a matrix, and for those of a single word.
        #[test]
        fn convolutions(
            (filter_height, filter_width) in (1usize..6, 1usize..6),
            (above, beside) in (0usize..6, 0usize..6),
            (batch, channels, filters) in (1usize..3, 1usize..8, 1usize..40),
            step in 1usize..3,
            (seed, modulus) in (any::<u64>(), 0usize..10),
        ) {
            let modulus = Modulus::ALL[modulus];
            let (height, width) = (filter_height + above, filter_width + beside);
            // At the end of an allocation: nothing may be read beyond the last segment.
            let image = words(batch * height * width * channels, seed, modulus, false);
            let image = image.into_boxed_slice();
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
            let (stride, length) = (width * channels, filter_width * channels);
            let rows = Rows::new(&image, &starts, filter_height, stride, length).unwrap();
            let k = filter_height * length;
            prop_assert_eq!((rows.m(), rows.k()), (starts.len(), k));
            let right = words(k * filters, !seed, modulus, false);
            let expected = reference(&patches, &right, k, filters, modulus);
            for segment in [length, k, 1] {
                let packed = PackedResidues::new(&right, k, filters, segment, modulus);
                check(&rows, &packed, &expected);
            }
        }
    }
}
