//! Matrix products and convolutions.
//!
//! With the weights of a model, which last for a session, the weight `W` is masked
//! once: `beta = W - B` is public to the servers, so `W_0 = B_0` and `W_1 = B_1 +
//! beta` share it. Offline, server `i` computes `c_i = a_i beta + (aB)_i` from the
//! producer's `(aB)_i`, and `c_0 + c_1 = aW`. Online, with `alpha = x - a` public,
//! `alpha W_0 + c_0 + alpha W_1 + c_1 = xW`: one product a server, its left operand
//! public. The bias joins `c_i`, so it costs nothing online either.
//!
//! With two operands of the same evaluation both products happen online.

use std::fmt;

use crate::buffer::{self, Buffer};
use crate::geometry::{Linear, Padding};
use crate::masked::Masked;
use crate::ring::{Plane, Ring, Side, combined, planes, planes_mut};
use crate::share::Share;

/// A server's share of one layer's parameters, for any number of evaluations.
pub struct LinearLayer<R: Ring> {
    linear: Linear,
    /// `beta`, the right operand offline.
    masked_weight: R::Packed,
    /// `W_i`, the right operand online.
    weight: R::Packed,
    /// `b_i`, one element an output.
    bias: Option<Share<R>>,
}

impl<R: Ring> fmt::Debug for LinearLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinearLayer<{}>({:?})", R::NAME, self.linear)
    }
}

/// A server's `c_i + b_i` for one mask. Consumed by the one product it serves.
#[derive(Debug)]
pub struct LinearTriple<R: Ring>(pub(crate) Share<R>);

/// A server's share of the product of two masks. Consumed by the one product it serves.
#[derive(Debug)]
pub struct ProductTriple<R: Ring>(pub(crate) Share<R>);

/// The private form of a masked tensor: `a_0` at server 0, `a_1 + alpha` at server 1.
pub(crate) fn unmask<R: Ring>(x: &Masked<R>, side: Side) -> Share<R> {
    match side {
        Side::Zero => x.mask.clone(),
        Side::One => Share(combined::<R>(&x.mask.0, &x.alpha, R::Plane::add)),
    }
}

/// `out += left * right` in the sense of `linear`; `left` is not padded yet.
pub(crate) fn multiply_add<R: Ring>(
    linear: &Linear,
    left: &[R::Word],
    right: &R::Packed,
    out: &mut [R::Word],
) {
    match linear {
        Linear::Conv2d(convolution) if convolution.padding != Padding::default() => {
            let mut padded = Buffer::zeros(R::PLANES * convolution.padded_len());
            convolution.pad(left, &mut padded);
            R::multiply_add(linear, &padded, right, out);
        }
        _ => R::multiply_add(linear, left, right, out),
    }
}

/// The product of a server's share with a packed public tensor, or of a public tensor
/// with a packed share. Local.
#[must_use]
pub fn multiply_public<R: Ring>(linear: &Linear, left: &[R::Word], right: &R::Packed) -> Share<R> {
    let mut product = Share::zeros(linear.output_len());
    multiply_add::<R>(linear, left, right, &mut product.0);
    product
}

impl<R: Ring> LinearLayer<R> {
    /// From the masked weight `[k, n]` (see [`Linear::as_matmul`]) and the share of the
    /// bias, `[n]`.
    #[must_use]
    pub fn new(linear: Linear, weight: Masked<R>, bias: Option<Share<R>>, side: Side) -> Self {
        // In place and one after the other: the weights are the largest of a session's
        // tensors, and there is no need to have five copies of them at once.
        let Masked { alpha, mask: mut share } = weight;
        let masked_weight = R::pack(&alpha, &linear);
        if side == Side::One {
            share.add_words(&alpha);
        }
        drop(alpha);
        buffer::release();
        Self { linear, masked_weight, weight: R::pack(&share.0, &linear), bias }
    }

    /// What this server can compute before the input exists, from its share of the
    /// input's mask: `a_i beta + (aB)_i + b_i`.
    #[must_use]
    pub fn prepare(&self, mask: &Share<R>, mut product: Share<R>) -> LinearTriple<R> {
        if let Some(bias) = &self.bias {
            let pairs = planes_mut::<R>(&mut product.0).zip(planes::<R>(&bias.0));
            for (index, (out, bias)) in pairs.enumerate() {
                let plane = R::plane(index);
                crate::ring::kernels::vectorized(
                    #[inline(always)]
                    || {
                        for row in out.chunks_exact_mut(bias.len()) {
                            for (out, &bias) in row.iter_mut().zip(bias) {
                                *out = plane.add(*out, bias);
                            }
                        }
                    },
                );
            }
        }
        multiply_add::<R>(&self.linear, &mask.0, &self.masked_weight, &mut product.0);
        LinearTriple(product)
    }

    /// The share of `xW + b`.
    #[must_use]
    pub fn apply(&self, x: &Masked<R>, triple: LinearTriple<R>) -> Share<R> {
        let LinearTriple(mut z) = triple;
        multiply_add::<R>(&self.linear, &x.alpha, &self.weight, &mut z.0);
        z
    }
}

impl<R: Ring> ProductTriple<R> {
    /// From the share of the masks' product.
    #[must_use]
    pub fn new(product: Share<R>) -> Self {
        Self(product)
    }

    /// The producer's product of the masks.
    #[must_use]
    pub fn product(linear: &Linear, left: &Share<R>, right: &Share<R>) -> Share<R> {
        multiply_public(linear, &left.0, &R::pack(&right.0, linear))
    }

    /// The share of `xy`: `(ab)_i + a_i beta + alpha b_i`, server 1 adding `alpha beta`.
    #[must_use]
    pub fn multiply(self, linear: &Linear, x: &Masked<R>, y: &Masked<R>, side: Side) -> Share<R> {
        let Self(mut z) = self;
        multiply_add::<R>(linear, &x.mask.0, &R::pack(&y.alpha, linear), &mut z.0);
        let share = R::pack(&unmask(y, side).0, linear);
        multiply_add::<R>(linear, &x.alpha, &share, &mut z.0);
        z
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Convolution, Stride};
    use crate::ring::{Int64, Int100};
    use proptest::prelude::*;

    /// A sum of the convolution's definition: an output of the filter's place `(y, x)`.
    fn slow_sum(
        images: &[i128],
        filters: &[i128],
        c: &Convolution,
        [image, y, x, output]: [usize; 4],
    ) -> i128 {
        let mut sum = 0;
        for row in 0..c.filter_height {
            for column in 0..c.filter_width {
                let y = (y * c.stride.vertical + row).checked_sub(c.padding.top);
                let x = (x * c.stride.horizontal + column).checked_sub(c.padding.left);
                let (Some(y), Some(x)) = (y, x) else { continue };
                if y >= c.height || x >= c.width {
                    continue;
                }
                for input in 0..c.inputs {
                    let pixel = ((image * c.height + y) * c.width + x) * c.inputs + input;
                    let weight = (row * c.filter_width + column) * c.inputs + input;
                    sum += images[pixel] * filters[weight * c.outputs + output];
                }
            }
        }
        sum
    }

    fn slow_convolution(images: &[i128], filters: &[i128], c: &Convolution) -> Vec<i128> {
        let mut sums = Vec::new();
        for image in 0..c.batch {
            for y in 0..c.output_height() {
                for x in 0..c.output_width() {
                    let place = |output| slow_sum(images, filters, c, [image, y, x, output]);
                    sums.extend((0..c.outputs).map(place));
                }
            }
        }
        sums
    }

    fn agrees<R: Ring>(c: &Convolution) {
        let numbers = |len: usize, factor: usize| -> Vec<i128> {
            (0..len).map(|i| (i * factor % 4001) as i128 - 2000).collect()
        };
        let share = |integers: &[i128]| {
            let mut share = Share::<R>::zeros(integers.len());
            R::from_integers(integers, &mut share.0);
            share
        };
        let linear = Linear::Conv2d(*c);
        let images = numbers(linear.input_len(), 7919);
        let filters = numbers(linear.as_matmul().k * c.outputs, 104_729);
        let filter = R::pack(&share(&filters).0, &linear);
        let found = multiply_public::<R>(&linear, &share(&images).0, &filter);
        assert_eq!(R::to_integers(&found.0), slow_convolution(&images, &filters, c), "{c:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn convolutions_of_any_geometry(
            (batch, inputs, outputs) in (1usize..4, 1usize..5, 1usize..6),
            (height, width) in (1usize..10, 1usize..10),
            (filter_height, filter_width) in (1usize..6, 1usize..6),
            (vertical, horizontal) in (1usize..5, 1usize..5),
            padding: [u8; 4],
        ) {
            let stride = Stride { vertical, horizontal };
            let padding = padding.map(|pixels| usize::from(pixels % 4)).into();
            let mut c = Convolution {
                batch, height, width, inputs, filter_height, filter_width, outputs, stride, padding,
            };
            c.filter_height = filter_height.min(c.padded_height());
            c.filter_width = filter_width.min(c.padded_width());
            agrees::<Int64>(&c);
            agrees::<Int100>(&c);
        }
    }
}
