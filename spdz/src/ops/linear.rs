//! Matrix products and convolutions with the weights of a model, which last for a session.
//!
//! The weight `W` is masked once: `beta = W - B` is public to the servers, so `W_0 = B_0` and
//! `W_1 = B_1 + beta` share it. Offline, server `i` computes `c_i = a_i beta + (aB)_i` from
//! the producer's `(aB)_i`, and `c_0 + c_1 = aW`. Online, with `alpha = x - a` public,
//! `alpha W_0 + c_0 + alpha W_1 + c_1 = xW`: one product a server, its left operand
//! public. The bias joins `c_i`, so it costs nothing online either.

use std::fmt;

use super::kept::{Kept, kept};
use super::operation::{
    Correlation, Execute, Operation, Preparation, Producer, Randomness, Session,
};
use super::product::{list_linear, multiply_add, multiply_public, name_of};
use super::values::Values;
use crate::buffer;
use crate::channel::ChannelError;
use crate::geometry::Linear as Dimensions;
use crate::masked::Masked;
use crate::ring::{Plane, Ring, Side, planes, planes_mut};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// A product with a masked tensor that lasts for the session, plus a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The masked left operand.
    pub input: MaskedId,
    /// The masked right operand, written in the set-up.
    pub weight: MaskedId,
    /// What is added to each row of the result, written in the set-up.
    pub bias: Option<PrivateId>,
    /// The dimensions.
    pub linear: Dimensions,
    /// The result, with the fractional bits of both operands.
    pub output: PrivateId,
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        name_of(&self.linear)
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn keeps(&self) -> Vec<TensorId> {
        let bias = self.bias.map(TensorId::from);
        [self.weight.into()].into_iter().chain(bias).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::generated(table.len(self.output))
    }

    fn product(&self) -> Option<&Dimensions> {
        Some(&self.linear)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {}", self.input, self.weight)?;
        if let Some(bias) = self.bias {
            write!(f, " + {bias}")?;
        }
        write!(f, " -> {}", self.output)?;
        list_linear(f, &self.linear)
    }
}

impl<R: Ring> Execute<R> for Linear {
    fn keep(&self, session: &mut dyn Session<R>) -> Option<Kept> {
        let bias = self.bias.map(|id| session.private(id).clone());
        let weight = session.take_masked(self.weight);
        Some(Kept::new(LinearLayer::new(self.linear, weight, bias, session.side())))
    }

    fn keep_mask(&self, producer: &mut dyn Producer<R>) -> Option<Kept> {
        producer.make(self.weight);
        Some(Kept::new(R::pack(&producer.get(self.weight).0, &self.linear)))
    }

    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        producer.make(self.input);
        let weight: &R::Packed = kept(producer.kept());
        let product = multiply_public(&self.linear, &producer.get(self.input).0, weight);
        producer.share(&product)
    }

    fn prepare(&self, server: &mut dyn Preparation<R>) -> Result<Correlation<R>, ChannelError> {
        // What comes from the producer joins last: it may still be at work.
        let start = server.expanded();
        let layer: &LinearLayer<R> = kept(server.kept());
        let mut triple = layer.prepare(&server.mask_share(self.input), start);
        server.join(&mut triple.0)?;
        Ok(Correlation::of(vec![triple.0]))
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let layer: &LinearLayer<R> = kept(values.kept());
        let triple = LinearTriple(correlation.into_generated());
        let product = layer.apply(values.masked(self.input), triple);
        values.put(self.output, product);
    }
}

/// A server's share of one layer's parameters, for any number of evaluations.
pub struct LinearLayer<R: Ring> {
    linear: Dimensions,
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

impl<R: Ring> LinearLayer<R> {
    /// From the masked weight `[k, n]` (see [`Dimensions::as_matmul`]) and the share of the
    /// bias, `[n]`.
    #[must_use]
    pub fn new(linear: Dimensions, weight: Masked<R>, bias: Option<Share<R>>, side: Side) -> Self {
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
                    move || {
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
