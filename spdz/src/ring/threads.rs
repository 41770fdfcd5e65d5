//! Products on several threads, where they are large enough to be worth it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::kernels::Rows;

/// How many threads a product may use.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Products of fewer multiplications are done before another thread is awake.
const SMALLEST_PART: usize = 1 << 21;

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} threads for products: {source}")]
pub struct ThreadsError {
    count: usize,
    source: rayon::ThreadPoolBuildError,
}

/// Lets products use `count` threads in this process; without it they use one. To be
/// called once, before the first session.
///
/// # Errors
/// If the threads cannot be started, or were before.
pub fn set_threads(count: NonZeroUsize) -> Result<(), ThreadsError> {
    let count = count.get();
    if count > 1 {
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("product{index}"))
            .build_global()
            .map_err(|source| ThreadsError { count, source })?;
    }
    THREADS.store(count, Ordering::Relaxed);
    Ok(())
}

/// How many parts to make of so many multiplications.
pub(super) fn parts(multiplications: usize) -> usize {
    let threads = THREADS.load(Ordering::Relaxed);
    if threads == 1 { 1 } else { threads.min(multiplications / SMALLEST_PART).max(1) }
}

/// Computes `out`, of which each row of `left` makes `n` words, in `parts` parts.
pub(super) fn by_rows<T: Sync, W: Send>(
    left: &Rows<'_, T>,
    n: usize,
    out: &mut [W],
    parts: usize,
    product: impl Fn(&Rows<'_, T>, &mut [W]) + Sync,
) {
    if parts == 1 || n == 0 {
        return product(left, out);
    }
    let rows = left.m().div_ceil(parts);
    out.par_chunks_mut(rows * n).enumerate().for_each(|(part, out)| {
        let first = part * rows;
        product(&left.part(first..first + out.len() / n), out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::kernels::{PackedRight, multiply};

    #[test]
    fn parts_make_the_same_product() {
        let (m, k, n) = (37, 20, 9);
        let words = |len: usize| (0..len as u64).map(|i| i.wrapping_mul(i ^ 0x9e37)).collect();
        let (left, right): (Vec<u64>, Vec<u64>) = (words(m * k), words(k * n));
        let right = PackedRight::new(&right, k, n);
        let starts: Vec<u32> = (0..m as u32).map(|row| row * k as u32).collect();
        for rows in [
            Rows::matrix(&left, m, k).unwrap(),
            Rows::new(&left, &starts, 4, 5, 5).unwrap(),
            Rows::new(&left, &starts[..30], 2, 3, 10).unwrap(),
        ] {
            let mut whole = vec![0; rows.m() * n];
            multiply(&rows, &right, &mut whole);
            for parts in [1, 2, 3, 8, 40] {
                let mut out = vec![7; rows.m() * n];
                by_rows(&rows, n, &mut out, parts, |rows, out| multiply(rows, &right, out));
                assert!(out == whole, "{parts} parts");
            }
        }
    }

    #[test]
    fn small_products_stay_on_their_thread() {
        assert_eq!(parts(1 << 40), 1, "unless it was asked for more");
    }
}
