//! Products with the model's weights: dense layers and convolutions.
//!
//! The weight `W` is masked once per model: `beta = W - B` is public to the
//! servers, so `W_0 = B_0` and `W_1 = B_1 + beta` share it. Offline, server `i`
//! computes `c_i = a_i beta + (aB)_i` from the producer's `(aB)_i`, and
//! `c_0 + c_1 = aW`. Online, with `alpha = x - a` public,
//! `alpha W_0 + c_0 + alpha W_1 + c_1 = xW`: one product a server, its left
//! operand public. The bias joins `c_i`, so it costs nothing online either.

use std::borrow::Cow;
use std::fmt;

use crate::geometry::Linear;
use crate::masked::{Mask, Masked};
use crate::ring::{Ring, Side, kernels};
use crate::share::Share;

/// A server's share of one layer's parameters, for any number of inferences.
pub struct LinearLayer<R: Ring> {
    linear: Linear,
    /// `beta`, the right operand offline.
    masked_weight: R::Packed,
    /// `W_i`, the right operand online.
    weight: R::Packed,
    /// `b_i`, one element an output.
    bias: Share<R>,
}

impl<R: Ring> fmt::Debug for LinearLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinearLayer<{}>({:?})", R::NAME, self.linear)
    }
}

/// A server's `c_i + b_i` for one mask. Consumed by the one product it serves.
#[derive(Debug)]
pub struct LinearTriple<R: Ring>(Share<R>);

/// The private form of a masked tensor: `a_0` at server 0, `a_1 + alpha` at server 1.
pub(crate) fn unmask<R: Ring>(x: &Masked<R>, side: Side) -> Share<R> {
    let mut share = x.mask.duplicate();
    if side == Side::One {
        kernels::vectorized(|| {
            for (share, &alpha) in share.0.iter_mut().zip(&x.alpha) {
                *share = R::add(*share, alpha);
            }
        });
    }
    share
}

/// `out += left * right` in the sense of `linear`.
fn multiply_add<R: Ring>(
    linear: &Linear,
    left: &[R::Element],
    right: &R::Packed,
    out: &mut [R::Element],
) {
    match linear {
        Linear::MatMul(dimensions) => R::matmul_add(left, right, *dimensions, out),
        Linear::Conv2d(dimensions) => match dimensions.pad(left) {
            Cow::Borrowed(left) => R::conv2d_add(left, right, dimensions, out),
            // The padded copy may be of a share, so it is wiped like one.
            Cow::Owned(left) => R::conv2d_add(&Share::<R>(left).0, right, dimensions, out),
        },
    }
}

impl<R: Ring> LinearLayer<R> {
    /// From the masked parameters, `[k, n]` and `[n]` (see [`Linear::as_matmul`]).
    #[must_use]
    pub fn new(linear: Linear, weight: &Masked<R>, bias: &Masked<R>, side: Side) -> Self {
        let product = linear.as_matmul();
        let pack = |values: &[R::Element]| R::pack(values, product.k, product.n);
        Self {
            linear,
            masked_weight: pack(&weight.alpha),
            weight: pack(&unmask(weight, side).0),
            bias: unmask(bias, side),
        }
    }

    /// What this server can compute before the input exists: `a_i beta + (aB)_i + b_i`.
    #[must_use]
    pub fn prepare(&self, mask: &Mask<R>, mut product: Share<R>) -> LinearTriple<R> {
        kernels::vectorized(|| {
            for row in product.0.chunks_exact_mut(self.bias.len()) {
                for (out, &bias) in row.iter_mut().zip(&self.bias.0) {
                    *out = R::add(*out, bias);
                }
            }
        });
        multiply_add::<R>(&self.linear, &mask.share().0, &self.masked_weight, &mut product.0);
        LinearTriple(product)
    }

    /// The share of `xW + b`.
    #[must_use]
    pub fn apply(&self, x: &Masked<R>, triple: LinearTriple<R>) -> Share<R> {
        let LinearTriple(mut z) = triple;
        multiply_add::<R>(&self.linear, &x.alpha, &self.weight, &mut z.0);
        z
    }

    /// The producer's product `aB`; `mask` is `a`, `weight_mask` the packed `B`.
    #[must_use]
    pub fn product(linear: &Linear, mask: &Share<R>, weight_mask: &R::Packed) -> Share<R> {
        let mut product = Share::zeros(linear.output_len());
        multiply_add::<R>(linear, &mask.0, weight_mask, &mut product.0);
        product
    }
}
