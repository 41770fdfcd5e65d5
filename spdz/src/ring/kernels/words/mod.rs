//! Products of integers of 64 or 32 bits that wrap.

use super::{InstructionSet, Rows};

#[cfg(target_arch = "x86_64")]
mod avx2_u32;
#[cfg(target_arch = "x86_64")]
mod avx2_u64;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod packed;
mod portable;
mod strip;
mod word;

pub use dispatch::Kernels;
pub use packed::PackedRight;
use strip::Strip;
pub use word::Word;

/// How much of the left operand is taken through all panels before going on:
/// little enough to stay in the second-level cache, together with a panel.
const CHUNK_BYTES: usize = 256 * 1024;

/// A chunk of rows is a multiple of this, so that it splits into whole register
/// blocks, which have six or eight rows.
const CHUNK_ROWS: usize = 24;

/// `out = left · right`: `[m, n]` from `[m, k]` and `[k, n]`, row-major.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply<W: Kernels>(left: &Rows<'_, W>, right: &PackedRight<W>, out: &mut [W]) {
    multiply_with(InstructionSet::detect(), left, right, out, false);
}

/// `out += left · right`: `[m, n]` from `[m, k]` and `[k, n]`, row-major.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add<W: Kernels>(left: &Rows<'_, W>, right: &PackedRight<W>, out: &mut [W]) {
    multiply_with(InstructionSet::detect(), left, right, out, true);
}

/// [`multiply`], or [`multiply_add`] if `accumulate`, by the instruction set `isa`,
/// for tests and benchmarks. One the machine does not have is replaced by
/// [`InstructionSet::Portable`].
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_with<W: Kernels>(
    isa: InstructionSet,
    left: &Rows<'_, W>,
    right: &PackedRight<W>,
    out: &mut [W],
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
        out.fill(W::default());
    }
    if k == 0 || out.is_empty() {
        return;
    }
    let kernel = W::kernel(isa);
    let chunk = (CHUNK_BYTES / size_of::<W>() / k / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    for first in (0..m).step_by(chunk) {
        for (columns, panel) in right.panels() {
            kernel(Strip {
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

    /// What the tests need of a word.
    trait Tested: Kernels + PartialEq + std::fmt::Debug {
        /// The low bits.
        fn of(word: u64) -> Self;
    }

    impl Tested for u64 {
        fn of(word: u64) -> Self {
            word
        }
    }

    impl Tested for u32 {
        fn of(word: u64) -> Self {
            word as u32
        }
    }

    /// What must not be written lies on both sides of every product.
    const GUARD: u64 = 0x5afe;

    fn reference<W: Tested>(left: &[W], right: &[W], m: usize, k: usize, n: usize) -> Vec<W> {
        let mut out = vec![W::default(); m * n];
        for i in 0..m {
            for j in 0..n {
                for t in 0..k {
                    let product = left[i * k + t].times(right[t * n + j]);
                    out[i * n + j] = out[i * n + j].plus(product);
                }
            }
        }
        out
    }

    /// Compares all instruction sets with `expected`, with and without accumulation.
    fn check<W: Tested>(rows: &Rows<'_, W>, right: &[W], n: usize, expected: &[W]) {
        let (m, k) = (rows.m(), rows.k());
        let packed = PackedRight::new(right, k, n);
        assert_eq!((packed.k(), packed.n()), (k, n));
        let before: Vec<W> = words(m * n, 7);
        let sums: Vec<W> =
            before.iter().zip(expected).map(|(before, product)| before.plus(*product)).collect();
        for isa in InstructionSet::available() {
            for (accumulate, expected) in [(false, expected), (true, &sums)] {
                let mut guarded = vec![W::of(GUARD); 8 + m * n + 8];
                guarded[8..8 + m * n].copy_from_slice(&before);
                let out = &mut guarded[8..8 + m * n];
                multiply_with(isa, rows, &packed, out, accumulate);
                let bits = 8 * size_of::<W>();
                assert!(out == expected, "{isa:?} {m}x{k}x{n}, {bits} bits, add: {accumulate}");
                assert_eq!(guarded[..8], [W::of(GUARD); 8]);
                assert_eq!(guarded[8 + m * n..], [W::of(GUARD); 8]);
            }
        }
    }

    /// Compares a product of matrices in both kinds of words.
    fn check_matrices(left: &[u64], right: &[u64], (m, k, n): (usize, usize, usize)) {
        fn check_words<W: Tested>(left: &[u64], right: &[u64], (m, k, n): (usize, usize, usize)) {
            let cut = |words: &[u64]| words.iter().map(|word| W::of(*word)).collect::<Vec<_>>();
            let (left, right) = (cut(left), cut(right));
            let rows = Rows::matrix(&left, m, k).unwrap();
            check(&rows, &right, n, &reference(&left, &right, m, k, n));
        }
        check_words::<u64>(left, right, (m, k, n));
        check_words::<u32>(left, right, (m, k, n));
    }

    /// Words without a pattern.
    fn words<W: Tested>(count: usize, seed: u64) -> Vec<W> {
        (0..count as u64)
            .map(|i| {
                let word = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed << 8);
                W::of((word ^ word >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9))
            })
            .collect()
    }

    #[test]
    fn products_of_all_shapes() {
        // Around whole and half vectors of both kinds of words, and their panels.
        let columns = [
            0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 20, 25, 31, 32, 33, 36, 40, 47, 48, 50, 52,
            63, 64, 65, 100, 130,
        ];
        for k in [0, 1, 2, 3, 7, 25, 64, 100] {
            for m in [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 25, 31] {
                let left = words(m * k, 1);
                for n in columns {
                    check_matrices(&left, &words(k * n, 2), (m, k, n));
                }
            }
        }
    }

    #[test]
    fn more_rows_than_a_chunk() {
        let (m, k, n) = (101, 1500, 41);
        check_matrices(&words(m * k, 3), &words(k * n, 4), (m, k, n));
        let (m, k, n) = (73, 3000, 85);
        check_matrices(&words(m * k, 5), &words(k * n, 6), (m, k, n));
    }

    #[test]
    fn products_by_the_detected_instruction_set() {
        fn check<W: Tested>() {
            let of = |words: [u64; 4]| words.map(W::of);
            let left = of([1, 2, 3, u64::MAX]);
            let rows = Rows::matrix(&left, 2, 2).unwrap();
            let right = PackedRight::new(&of([10, 20, 30, 40]), 2, 2);
            let mut out = of([9; 4]);
            multiply(&rows, &right, &mut out);
            assert_eq!(out, of([70, 100, 0, 20]));
            multiply_add(&rows, &right, &mut out);
            assert_eq!(out, of([140, 200, 0, 40]));
        }
        check::<u64>();
        check::<u32>();
    }

    #[test]
    fn rows_without_words_may_start_anywhere() {
        for (segments, length) in [(0, 3), (3, 0), (0, 0)] {
            let rows = Rows::<u64>::new(&[], &[7, u32::MAX], segments, 5, length).unwrap();
            assert_eq!((rows.m(), rows.k()), (2, 0));
            check(&rows, &[], 3, &[0; 6]);
            let rows = Rows::<u32>::new(&[], &[7, u32::MAX], segments, 5, length).unwrap();
            check(&rows, &[], 3, &[0; 6]);
        }
    }

    #[test]
    fn empty_matrices_may_have_any_other_dimension() {
        let right = PackedRight::<u32>::new(&[], usize::MAX, 0);
        let rows = Rows::matrix(&[], 0, usize::MAX).unwrap();
        multiply(&rows, &right, &mut []);
        let right = PackedRight::<u64>::new(&[], 0, usize::MAX);
        let rows = Rows::matrix(&[], 0, 0).unwrap();
        multiply(&rows, &right, &mut []);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn operands_must_agree() {
        let rows = Rows::matrix(&[1u64, 2], 1, 2).unwrap();
        multiply(&rows, &PackedRight::new(&[1, 2, 3], 3, 1), &mut [0]);
    }

    #[test]
    #[should_panic(expected = "a product of 1 by 3 into 2 words")]
    fn the_product_must_fit() {
        let rows = Rows::matrix(&[1u32], 1, 1).unwrap();
        multiply(&rows, &PackedRight::new(&[1, 2, 3], 1, 3), &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a right operand of 2 by 2")]
    fn the_right_operand_must_have_its_shape() {
        PackedRight::new(&[1u64, 2, 3], 2, 2);
    }

    #[test]
    fn debug_output_has_no_values() {
        let data = [123_456_789u32; 4];
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
            (m, k, n, left, right) in (0usize..20, 0usize..40, 0usize..80).prop_flat_map(
                |(m, k, n)| {
                    let left = prop::collection::vec(word(), m * k);
                    let right = prop::collection::vec(word(), k * n);
                    (Just(m), Just(k), Just(n), left, right)
                },
            )
        ) {
            check_matrices(&left, &right, (m, k, n));
        }

        /// A convolution without padding, against copied patches.
        #[test]
        fn convolutions(
            (filter_height, filter_width) in (1usize..5, 1usize..5),
            (above, beside) in (0usize..6, 0usize..6),
            (batch, channels, filters) in (1usize..3, 1usize..5, 1usize..80),
            step in 1usize..3,
            seed in any::<u64>(),
        ) {
            let (height, width) = (filter_height + above, filter_width + beside);
            let mut starts = Vec::new();
            for b in 0..batch {
                for y in (0..=above).step_by(step) {
                    for x in (0..=beside).step_by(step) {
                        starts.push((((b * height + y) * width + x) * channels) as u32);
                    }
                }
            }
            let (stride, length) = (width * channels, filter_width * channels);
            fn check_words<W: Tested>(
                starts: &[u32],
                (segments, stride, length): (usize, usize, usize),
                (words_of_images, filters): (usize, usize),
                seed: u64,
            ) {
                let images: Vec<W> = words(words_of_images, seed);
                let patches: Vec<W> = starts
                    .iter()
                    .flat_map(|start| (0..segments).map(move |s| *start as usize + s * stride))
                    .flat_map(|from| images[from..from + length].iter().copied())
                    .collect();
                let rows = Rows::new(&images, starts, segments, stride, length).unwrap();
                let (m, k) = (starts.len(), segments * length);
                assert_eq!((rows.m(), rows.k()), (m, k));
                let right = words(k * filters, !seed);
                check(&rows, &right, filters, &reference(&patches, &right, m, k, filters));
            }
            let sizes = (batch * height * width * channels, filters);
            check_words::<u64>(&starts, (filter_height, stride, length), sizes, seed);
            check_words::<u32>(&starts, (filter_height, stride, length), sizes, seed);
        }
    }
}
