//! Element-wise squares of masked tensors.
//!
//! The producer knows the mask `a` and shares its square; the servers know `alpha = x - a`,
//! and `x^2 = (alpha + a)^2 = aa + 2 alpha a + alpha^2` (the paper, section 3.2). Server 1
//! adds the public `alpha^2`.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::masked::Masked;
use crate::prg::Seed;
use crate::ring::{Plane, Ring, Sampler, Side, combined, kernels, planes, planes_mut, update_part};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// `x * x`, element by element.
#[derive(Clone, Debug)]
pub struct Square {
    /// The masked operand.
    pub input: MaskedId,
    /// The result.
    pub output: PrivateId,
}

impl Operation for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::generated(table.len(self.output))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} -> {}", self.input, self.output)
    }
}

impl<R: Ring> Execute<R> for Square {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        match producer.seeds_of(self.input) {
            // Nobody else needs this mask: it is squared as it is drawn.
            Some(seeds) => share_square(seeds, producer),
            None => {
                producer.make(self.input);
                let square = SquareTriple::product(producer.get(self.input));
                producer.share(&square)
            }
        }
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let triple = SquareTriple::new(correlation.into_generated());
        let square = triple.square(values.masked(self.input), values.side());
        values.put(self.output, square);
    }
}

/// Shares the square of the mask that is drawn from these seeds.
fn share_square<R: Ring>(
    seeds: [Seed; 2],
    producer: &mut dyn Producer<R>,
) -> Result<(), ChannelError> {
    let words = producer.words();
    let [mut stream, mut other] = seeds.map(Seed::into_stream);
    let (mut sampler, mut other) = (R::sampler(&mut stream, words), R::sampler(&mut other, words));
    let mut rest = Buffer::zeros(R::PART.min(words));
    producer.share_parts(&mut |first, part| {
        let rest = &mut rest[..part.len()];
        sampler.next(part);
        other.next(rest);
        update_part::<R>(part, rest, first, words, |plane, x, y| {
            let mask = plane.add(x, y);
            plane.mul(mask, mask)
        });
    })
}

/// A server's share of `a * a` for one mask. Consumed by the one square it serves.
#[derive(Debug)]
pub struct SquareTriple<R: Ring>(pub(crate) Share<R>);

impl<R: Ring> SquareTriple<R> {
    /// From the share of the mask's square.
    #[must_use]
    pub fn new(product: Share<R>) -> Self {
        Self(product)
    }

    /// The producer's product.
    #[must_use]
    pub fn product(mask: &Share<R>) -> Share<R> {
        Share(combined::<R>(&mask.0, &mask.0, R::Plane::mul))
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
                move || match side {
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
