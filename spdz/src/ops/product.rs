//! Matrix products and convolutions of two masked tensors of one evaluation.
//!
//! The producer shares the product of the masks; then both cross products happen online:
//! `xy = ab + a beta + alpha b + alpha beta` (the paper's Figure 2, for matrices).

use std::fmt;

use super::open::unmask;
use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::geometry::{Linear, MatMul, Padding};
use crate::masked::Masked;
use crate::ring::{Ring, Side};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// A matrix product or convolution of two masked tensors of the evaluation.
#[derive(Clone, Debug)]
pub struct Product {
    /// The masked left operand.
    pub left: MaskedId,
    /// The masked right operand.
    pub right: MaskedId,
    /// The dimensions.
    pub linear: Linear,
    /// The result.
    pub output: PrivateId,
}

impl Operation for Product {
    fn name(&self) -> &'static str {
        name_of(&self.linear)
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
        write!(f, " {} {} -> {}", self.left, self.right, self.output)?;
        list_linear(f, &self.linear)
    }
}

impl<R: Ring> Execute<R> for Product {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        producer.make(self.left);
        producer.make(self.right);
        let (left, right) = (producer.get(self.left), producer.get(self.right));
        let product = ProductTriple::product(&self.linear, left, right);
        producer.share(&product)
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let triple = ProductTriple::new(correlation.into_generated());
        let (left, right) = (values.masked(self.left), values.masked(self.right));
        let product = triple.multiply(&self.linear, left, right, values.side());
        values.put(self.output, product);
    }
}

/// What metrics and traces call a product of these dimensions.
pub(super) fn name_of(linear: &Linear) -> &'static str {
    match linear {
        Linear::MatMul(_) => "matmul",
        Linear::Conv2d(_) => "conv2d",
    }
}

/// Writes the dimensions.
pub(super) fn list_linear(f: &mut fmt::Formatter<'_>, linear: &Linear) -> fmt::Result {
    match linear {
        Linear::MatMul(MatMul { m, k, n }) => write!(f, " {m}x{k}x{n}"),
        Linear::Conv2d(c) => write!(
            f,
            " {}x{}x{}x{} filter {}x{} outputs {} stride {} padding {}",
            c.batch,
            c.height,
            c.width,
            c.inputs,
            c.filter_height,
            c.filter_width,
            c.outputs,
            c.stride,
            c.padding
        ),
    }
}

/// A server's share of the product of two masks. Consumed by the one product it serves.
#[derive(Debug)]
pub struct ProductTriple<R: Ring>(pub(crate) Share<R>);

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
    use crate::ring::{Int32, Int64, Int100};
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
            agrees::<Int32>(&c);
            agrees::<Int64>(&c);
            agrees::<Int100>(&c);
        }
    }
}
