//! Element-wise products of masked tensors.
//!
//! The producer knows the masks `a` and `b`, so it can share their product; the
//! servers know `alpha = x - a` and `beta = y - b`, and
//! `x y = (alpha + a)(beta + b) = ab + a beta + alpha b + alpha beta`
//! (the paper's Figure 2). Server 1 adds the public `alpha beta`.

use crate::masked::Masked;
use crate::ring::{Plane, Ring, Side, combined, kernels, planes, planes_mut};
use crate::share::Share;

/// A server's share of `a * a` for one mask. Consumed by the one square it serves.
#[derive(Debug)]
pub struct SquareTriple<R: Ring>(pub(crate) Share<R>);

/// A server's share of `a * b` for two masks. Consumed by the one product it serves.
#[derive(Debug)]
pub struct MulTriple<R: Ring>(pub(crate) Share<R>);

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
        let operands = planes::<R>(&x.alpha).zip(planes::<R>(&x.mask.0));
        for (index, (z, (alpha, a))) in planes_mut::<R>(&mut z.0).zip(operands).enumerate() {
            let plane = R::plane(index);
            let operands = z.iter_mut().zip(alpha).zip(a);
            kernels::vectorized(
                #[inline(always)]
                || match side {
                    Side::Zero => {
                        for ((z, &alpha), &a) in operands {
                            *z = plane.add(*z, plane.mul(alpha, plane.add(a, a)));
                        }
                    }
                    Side::One => {
                        for ((z, &alpha), &a) in operands {
                            let sum = plane.add(plane.add(a, a), alpha);
                            *z = plane.add(*z, plane.mul(alpha, sum));
                        }
                    }
                },
            );
        }
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
        Share(combined::<R>(&left.0, &right.0, R::Plane::mul))
    }

    /// The share of `x * y`: `(ab)_i + a_i beta + alpha b_i`, server 1 adding `alpha beta`.
    #[must_use]
    pub fn multiply(self, x: &Masked<R>, y: &Masked<R>, side: Side) -> Share<R> {
        let Self(mut z) = self;
        let x = planes::<R>(&x.alpha).zip(planes::<R>(&x.mask.0));
        let y = planes::<R>(&y.alpha).zip(planes::<R>(&y.mask.0));
        for (index, (z, ((alpha, a), (beta, b)))) in
            planes_mut::<R>(&mut z.0).zip(x.zip(y)).enumerate()
        {
            let plane = R::plane(index);
            let operands = z.iter_mut().zip(alpha.iter().zip(a)).zip(beta.iter().zip(b));
            kernels::vectorized(
                #[inline(always)]
                || match side {
                    Side::Zero => {
                        for ((z, (&alpha, &a)), (&beta, &b)) in operands {
                            let cross = plane.add(plane.mul(a, beta), plane.mul(alpha, b));
                            *z = plane.add(*z, cross);
                        }
                    }
                    Side::One => {
                        for ((z, (&alpha, &a)), (&beta, &b)) in operands {
                            let public = plane.mul(alpha, plane.add(b, beta));
                            *z = plane.add(*z, plane.add(plane.mul(a, beta), public));
                        }
                    }
                },
            );
        }
        z
    }
}
