//! Element-wise products of masked tensors.
//!
//! The producer knows the masks `a` and `b`, so it can share their product, a Beaver triple
//! (Beaver 1991); the servers know `alpha = x - a` and `beta = y - b`, and
//! `x y = (alpha + a)(beta + b) = ab + a beta + alpha b + alpha beta`
//! (the paper's Figure 2). Server 1 adds the public `alpha beta`.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use crate::channel::ChannelError;
use crate::masked::Masked;
use crate::ring::{Plane, Ring, Side, combined, kernels, planes, planes_mut};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// `x * y`, element by element.
#[derive(Clone, Debug)]
pub struct Mul {
    /// The first masked operand.
    pub left: MaskedId,
    /// The second masked operand.
    pub right: MaskedId,
    /// The result.
    pub output: PrivateId,
}

impl Operation for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.left.into(), self.right.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::generated(table.len(self.output))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.left, self.right, self.output)
    }
}

impl<R: Ring> Execute<R> for Mul {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        producer.make(self.left);
        producer.make(self.right);
        let product = MulTriple::product(producer.get(self.left), producer.get(self.right));
        producer.share(&product)
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let triple = MulTriple::new(correlation.into_generated());
        let (left, right) = (values.masked(self.left), values.masked(self.right));
        let product = triple.multiply(left, right, values.side());
        values.put(self.output, product);
    }
}

/// A server's share of `a * b` for two masks. Consumed by the one product it serves.
#[derive(Debug)]
pub struct MulTriple<R: Ring>(pub(crate) Share<R>);

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
                move || match side {
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
