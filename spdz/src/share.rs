//! Private tensors: one party's additive share.

use std::fmt;

use zeroize::Zeroize;

use crate::prg::KeyStream;
use crate::ring::{Ring, kernels};

/// One party's share `x_i` of a private tensor `x = x_0 + x_1` (the paper's
/// private tensor, section 2). Its shape is the plan's affair; the elements are
/// row-major. Wiped when dropped, never printed.
pub struct Share<R: Ring>(pub(crate) Vec<R::Element>);

impl<R: Ring> fmt::Debug for Share<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share<{}>({} elements)", R::NAME, self.0.len())
    }
}

impl<R: Ring> Drop for Share<R> {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl<R: Ring> Share<R> {
    /// The next `len` elements of `stream`.
    #[must_use]
    pub fn sample(stream: &mut KeyStream, len: usize) -> Self {
        let mut values = vec![R::Element::default(); len];
        R::sample(stream, &mut values);
        Self(values)
    }

    /// A share of zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self(vec![R::Element::default(); len])
    }

    /// A second copy, where a plan uses a value twice.
    #[must_use]
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `self += other`, element by element.
    pub(crate) fn add_assign(&mut self, other: &Self) {
        kernels::vectorized(|| {
            for (x, &y) in self.0.iter_mut().zip(&other.0) {
                *x = R::add(*x, y);
            }
        });
    }

    /// `self -= other`, element by element.
    pub(crate) fn sub_assign(&mut self, other: &Self) {
        kernels::vectorized(|| {
            for (x, &y) in self.0.iter_mut().zip(&other.0) {
                *x = R::sub(*x, y);
            }
        });
    }
}

/// Splits `values` into two uniformly random shares: the first is the next part
/// of `stream`, the second the difference.
#[must_use]
pub fn share<R: Ring>(values: &[R::Element], stream: &mut KeyStream) -> (Share<R>, Share<R>) {
    let first = Share::<R>::sample(stream, values.len());
    let mut second = Share(values.to_vec());
    second.sub_assign(&first);
    (first, second)
}

/// The tensor that two shares stand for.
#[must_use]
pub fn reconstruct<R: Ring>(x0: &Share<R>, x1: &Share<R>) -> Vec<R::Element> {
    x0.0.iter().zip(&x1.0).map(|(&x, &y)| R::add(x, y)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;
    use crate::ring::Int64;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up(values in proptest::collection::vec(any::<u64>(), 0..50), seed: [u8; 32]) {
            let mut stream = Seed::from_bytes(seed).into_stream();
            let (x0, x1) = share::<Int64>(&values, &mut stream);
            prop_assert_eq!(reconstruct(&x0, &x1), values);
        }
    }

    #[test]
    fn a_share_prints_its_size_only() {
        let share = Share::<Int64>::sample(&mut Seed::from_bytes([9; 32]).into_stream(), 3);
        assert_eq!(format!("{share:?}"), "Share<Int64>(3 elements)");
    }
}
