//! Element-wise products of masked tensors.
//!
//! The producer knows the masks `a` and `b`, so it can share their product; the
//! servers know `alpha = x - a` and `beta = y - b`, and
//! `x y = (alpha + a)(beta + b) = ab + a beta + alpha b + alpha beta`
//! (the paper's Figure 2). Server 1 adds the public `alpha beta`.

use std::fmt;

use crate::masked::Masked;
use crate::ring::{Ring, Side, kernels};
use crate::share::Share;

/// A server's share of `a * a` for one mask. Consumed by the one square it serves.
pub struct SquareTriple<R: Ring>(Share<R>);

/// A server's share of `a * b` for two masks. Consumed by the one product it serves.
pub struct MulTriple<R: Ring>(Share<R>);

impl<R: Ring> fmt::Debug for SquareTriple<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SquareTriple({:?})", self.0)
    }
}

impl<R: Ring> fmt::Debug for MulTriple<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MulTriple({:?})", self.0)
    }
}

impl<R: Ring> SquareTriple<R> {
    /// From the share of the mask's square.
    #[must_use]
    pub fn new(product: Share<R>) -> Self {
        Self(product)
    }

    /// The producer's product.
    #[must_use]
    pub fn product(mask: &Share<R>) -> Share<R> {
        MulTriple::product(mask, mask)
    }

    /// The share of `x * x`: `(aa)_i + 2 alpha a_i`, server 1 adding `alpha^2`.
    #[must_use]
    pub fn square(self, x: &Masked<R>, side: Side) -> Share<R> {
        let Self(mut z) = self;
        kernels::vectorized(|| {
            let operands = z.0.iter_mut().zip(&x.alpha).zip(&x.mask.0);
            match side {
                Side::Zero => {
                    for ((z, &alpha), &a) in operands {
                        *z = R::add(*z, R::mul(alpha, R::add(a, a)));
                    }
                }
                Side::One => {
                    for ((z, &alpha), &a) in operands {
                        *z = R::add(*z, R::mul(alpha, R::add(R::add(a, a), alpha)));
                    }
                }
            }
        });
        z
    }
}

impl<R: Ring> MulTriple<R> {
    /// From the share of the masks' product.
    #[must_use]
    pub fn new(product: Share<R>) -> Self {
        Self(product)
    }

    /// The producer's product.
    #[must_use]
    pub fn product(left: &Share<R>, right: &Share<R>) -> Share<R> {
        let mut product = left.duplicate();
        kernels::vectorized(|| {
            for (x, &y) in product.0.iter_mut().zip(&right.0) {
                *x = R::mul(*x, y);
            }
        });
        product
    }

    /// The share of `x * y`: `(ab)_i + a_i beta + alpha b_i`, server 1 adding `alpha beta`.
    #[must_use]
    pub fn multiply(self, x: &Masked<R>, y: &Masked<R>, side: Side) -> Share<R> {
        let Self(mut z) = self;
        kernels::vectorized(|| {
            let x = x.alpha.iter().zip(&x.mask.0);
            let y = y.alpha.iter().zip(&y.mask.0);
            let operands = z.0.iter_mut().zip(x).zip(y);
            match side {
                Side::Zero => {
                    for ((z, (&alpha, &a)), (&beta, &b)) in operands {
                        *z = R::add(*z, R::add(R::mul(a, beta), R::mul(alpha, b)));
                    }
                }
                Side::One => {
                    for ((z, (&alpha, &a)), (&beta, &b)) in operands {
                        let public = R::mul(alpha, R::add(b, beta));
                        *z = R::add(*z, R::add(R::mul(a, beta), public));
                    }
                }
            }
        });
        z
    }
}
