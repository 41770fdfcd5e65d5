//! Products of 64-bit integers that wrap.

use super::{InstructionSet, Rows};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod packed;
mod portable;
mod strip;

pub use packed::PackedRight;
use strip::Strip;

/// How much of the left operand is taken through all panels before going on:
/// little enough to stay in the second-level cache, together with a panel.
const CHUNK_WORDS: usize = 32 * 1024;

/// A chunk of rows is a multiple of this, so that it splits into whole register
/// blocks, which have six or eight rows.
const CHUNK_ROWS: usize = 24;

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
