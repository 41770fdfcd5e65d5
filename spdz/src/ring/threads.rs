//! Products on several threads, where they are large enough to be worth it.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::kernels::Rows;

/// Products of fewer multiplications are done before another thread is awake.
const SMALLEST_PART: usize = 1 << 21;

/// Threads that a session's products are computed on.
///
/// They belong to whoever made them: several sessions of a process can share them, or have
/// threads of their own. A session whose thread is not in a [`Threads::scope`] computes its
/// products itself.
#[derive(Clone, Default)]
pub struct Threads(Option<Arc<ThreadPool>>);

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} threads for products: {source}")]
pub struct ThreadsError {
    count: usize,
    source: rayon::ThreadPoolBuildError,
}

thread_local! {
    /// What products of this thread are computed on.
    static CURRENT: RefCell<Threads> = const { RefCell::new(Threads(None)) };
}

impl Threads {
    /// Starts `count` threads; of one none is started, since the session's own does.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn start(count: NonZeroUsize) -> Result<Self, ThreadsError> {
        let count = count.get();
        if count == 1 {
            return Ok(Self(None));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("product{index}"))
            .build()
            .map_err(|source| ThreadsError { count, source })?;
        Ok(Self(Some(Arc::new(pool))))
    }

    /// How many products may use at once.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Runs a session, or part of one: the products that this thread needs meanwhile are
    /// computed on these threads.
    pub fn scope<T>(&self, session: impl FnOnce() -> T) -> T {
        /// Puts back what was there before, also when the session panics.
        struct Before(Threads);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(std::mem::take(&mut self.0));
            }
        }
        let _before = Before(CURRENT.replace(self.clone()));
        session()
    }

    fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

/// The threads for a product of so many multiplications, and how many parts to make of it.
fn worth(multiplications: usize) -> (Option<Arc<ThreadPool>>, usize) {
    let threads = Threads::current();
    let parts = threads.count().min(multiplications / SMALLEST_PART).max(1);
    (threads.0.filter(|_| parts > 1), parts)
}

/// Computes `out`, of which each row of `left` makes `n` words by `k` multiplications each:
/// in parts on the threads of the session, if it is large enough.
pub(super) fn by_rows<T: Sync, W: Send>(
    left: &Rows<'_, T>,
    n: usize,
    out: &mut [W],
    product: impl Fn(&Rows<'_, T>, &mut [W]) + Send + Sync,
) {
    match worth(left.m() * left.k() * n) {
        (Some(pool), parts) => pool.install(|| in_parts(left, n, out, parts, product)),
        (None, _) => product(left, out),
    }
}

fn in_parts<T: Sync, W: Send>(
    left: &Rows<'_, T>,
    n: usize,
    out: &mut [W],
    parts: usize,
    product: impl Fn(&Rows<'_, T>, &mut [W]) + Sync,
) {
    if n == 0 {
        return product(left, out);
    }
    let rows = left.m().div_ceil(parts);
    out.par_chunks_mut(rows * n).enumerate().for_each(|(part, out)| {
        let first = part * rows;
        product(&left.part(first..first + out.len() / n), out);
    });
}

/// Computes products that have so many multiplications together: each on one of the threads
/// of the session, if they are large enough.
pub(super) fn each<P: Send>(
    products: impl Iterator<Item = P>,
    multiplications: usize,
    product: impl Fn(P) + Send + Sync,
) {
    match worth(multiplications) {
        (Some(pool), _) => {
            let products: Vec<P> = products.collect();
            pool.install(|| products.into_par_iter().for_each(product));
        }
        (None, _) => products.for_each(product),
    }
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
                in_parts(&rows, n, &mut out, parts, |rows, out| multiply(rows, &right, out));
                assert!(out == whole, "{parts} parts");
            }
        }
    }

    #[test]
    fn products_use_the_threads_of_their_session_if_they_are_large() {
        let parts = |multiplications| worth(multiplications).1;
        assert_eq!(parts(1 << 40), 1, "unless it was asked for more");
        let [three, two] = [3, 2].map(|count| NonZeroUsize::new(count).unwrap());
        let (three, two) = (Threads::start(three).unwrap(), Threads::start(two).unwrap());
        assert_eq!(format!("{three:?} {two:?}"), "Threads(3) Threads(2)");
        three.scope(|| {
            assert_eq!([SMALLEST_PART, 2 * SMALLEST_PART, 1 << 40].map(parts), [1, 2, 3]);
            assert_eq!(two.scope(|| parts(1 << 40)), 2);
            assert_eq!(parts(1 << 40), 3, "back in the outer session");
            let elsewhere = std::thread::spawn(move || parts(1 << 40));
            assert_eq!(elsewhere.join().unwrap(), 1, "a thread of another session");
        });
        assert_eq!(parts(1 << 40), 1, "after the session");
    }
}
