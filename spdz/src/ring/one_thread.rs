//! Products on the thread of the session that needs them: what is left of `threads.rs` without
//! the feature `threads`.

use super::kernels::Rows;

/// Computes `out`, of which each row of `left` makes `n` words.
pub(super) fn by_rows<T, W>(
    left: &Rows<'_, T>,
    _n: usize,
    out: &mut [W],
    product: impl Fn(&Rows<'_, T>, &mut [W]),
) {
    product(left, out);
}

/// Computes products that have so many multiplications together.
pub(super) fn each<P>(
    products: impl Iterator<Item = P>,
    _multiplications: usize,
    product: impl Fn(P),
) {
    products.for_each(product);
}
