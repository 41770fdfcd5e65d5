//! Matrix products and convolutions.

use std::sync::Arc;

use super::bounds::bits;
use super::comparisons::DIFFERENCE_BITS;
use super::compiler::Compiler;
use super::lowered::{Layout, LoweredValue, ScaledMask};
use crate::geometry::{Convolution, Linear, MatMul};
use crate::graph::{Lifetime, NodeId, Op};
use crate::ops;
use crate::plan::error::PlanError;

/// How many fractional bits more than the format's an operand may have: those of an average of
/// 8 x 8 numbers or fewer are kept where a weight can do without as many.
const MORE: i32 = 6;

impl Compiler<'_> {
    /// The operands of a matrix product or convolution, and its dimensions.
    pub(super) fn product(&self, id: NodeId) -> (NodeId, NodeId, Linear) {
        let (input, filter, stride, padding) = match self.graph.operation(id) {
            Op::MatMul { left, right } => {
                let (&[m, k], &[_, n]) = (self.shape(*left), self.shape(*right)) else {
                    unreachable!("a graph's shapes agree");
                };
                return (*left, *right, Linear::MatMul(MatMul { m, k, n }));
            }
            Op::Conv2d { input, filter, stride, padding } => (input, filter, stride, padding),
            _ => unreachable!("asked for products only"),
        };
        let (&[batch, height, width, inputs], &[filter_height, filter_width, _, outputs]) =
            (self.shape(*input), self.shape(*filter))
        else {
            unreachable!("a graph's shapes agree");
        };
        let linear = Linear::Conv2d(Convolution {
            batch,
            height,
            width,
            inputs,
            filter_height,
            filter_width,
            outputs,
            stride: *stride,
            padding: *padding,
        });
        (*input, *filter, linear)
    }

    pub(super) fn biased_product(
        &mut self,
        index: usize,
        product: usize,
        bias: usize,
    ) -> Result<(), PlanError> {
        // Listings show the product's own layer.
        self.layer.clone_from(&self.graph.nodes()[product].label);
        self.linear(index, NodeId(product), Some(bias))
    }

    pub(super) fn linear(
        &mut self,
        slot: usize,
        product: NodeId,
        bias: Option<usize>,
    ) -> Result<(), PlanError> {
        let (left, right, linear) = self.product(product);
        let MatMul { k, .. } = linear.as_matmul();
        let largest = self.precision.largest_inner_dimension();
        if k > largest && !self.format.declares_ranges() {
            return Err(PlanError::InnerDimension {
                layer: self.place(),
                found: k,
                largest,
                format: self.format,
            });
        }
        let mut integral = 2 * self.integral() + bits(k);
        match (self.is_private(left), self.is_private(right)) {
            (true, true) => {
                let (x, y) = self.operands(slot, left.0, right.0, integral);
                let fraction = x.fraction + y.fraction;
                if !self.masked_lasts[y.id.0] || self.masked_lasts[x.id.0] {
                    return self.before_bias(slot, bias, |compiler, slot| {
                        compiler.set(slot, fraction, integral, |output| {
                            Arc::new(ops::Product { left: x.id, right: y.id, linear, output })
                        })
                    });
                }
                let value = bias.map(|bias| {
                    if self.exact
                        && let Some(input) = self.sole_input(bias)
                    {
                        self.shorten(input, fraction);
                    }
                    let bias = self.private(bias);
                    let bias = self.lifted(bias, fraction);
                    self.truncated(bias, fraction, self.integral()).0
                });
                // A bias that is computed in each evaluation is added afterwards.
                let kept = value.filter(|value| self.private_lasts[value.id.0]);
                if kept.is_some() {
                    integral = integral.max(self.integral()) + 1;
                    integral = integral.min(self.precision.dividend as i32 - fraction);
                }
                let later = if kept.is_some() { None } else { bias };
                self.before_bias(slot, later, |compiler, slot| {
                    compiler.set(slot, fraction, integral, |output| {
                        Arc::new(ops::Linear {
                            input: x.id,
                            weight: y.id,
                            bias: kept.map(|value| value.id),
                            linear,
                            output,
                        })
                    })
                })
            }
            (left_is_private, _) => {
                let (private, public) = if left_is_private { (left, right) } else { (right, left) };
                let numbers = self.public_values(public, self.shape(public))?;
                let fraction = self.exact_fraction(&numbers);
                let integers = self.encode(&numbers, fraction)?;
                let more = self.declared(self.precision.dividend as i32, self.integral() + bits(k));
                let value = self.with_room(private.0, fraction, more);
                let public = self.public(integers, fraction);
                let integral = value.integral + more;
                self.set(slot, value.fraction + fraction, integral, |output| {
                    if left_is_private {
                        Arc::new(ops::PublicRight { left: value.id, right: public, linear, output })
                    } else {
                        Arc::new(ops::PublicLeft { left: public, right: value.id, linear, output })
                    }
                })
            }
        }
    }

    /// Has `product` set a product at `slot`, or, if a bias joins it there afterwards, at a slot of
    /// its own.
    fn before_bias(
        &mut self,
        slot: usize,
        bias: Option<usize>,
        product: impl FnOnce(&mut Self, usize) -> Result<(), PlanError>,
    ) -> Result<(), PlanError> {
        let Some(bias) = bias else {
            return product(self, slot);
        };
        let len = self.lowered[slot].len;
        self.lowered.push(LoweredValue { len, ..LoweredValue::default() });
        let before = self.lowered.len() - 1;
        product(self, before)?;
        let bias = self.expanded(NodeId(bias), self.shape(NodeId(slot)));
        self.sum_of(slot, [before, bias], [1, 1])
    }

    /// The masked operands of a matrix product whose sums are below `2^integral`. Of an exact
    /// graph the left one keeps fractional bits that it has more than the format, and a weight
    /// that serves this product alone has as many fewer as the ring needs, for the result at `slot`
    /// and for its differences if it is compared with others. Where ranges are declared the weight
    /// also has the bits that would be left.
    fn operands(
        &mut self,
        slot: usize,
        left: usize,
        right: usize,
        integral: i32,
    ) -> (ScaledMask, ScaledMask) {
        if !self.exact {
            return (self.masked(left), self.masked(right));
        }
        let weight = self.sole_input(right);
        let fewest = if weight.is_some() { self.f() - MORE / 2 } else { self.f() };
        let declares = self.format.declares_ranges();
        let sums = if declares { self.integral() } else { integral };
        let mut room = self.precision.dividend as i32 - sums;
        if self.have_differences.get(slot) == Some(&true) {
            room -= DIFFERENCE_BITS as i32;
        }
        let x = self.fine(left, (room - fewest).min(self.f() + MORE));
        if let Some(input) = weight {
            let most = room - x.fraction;
            if declares {
                self.set_fraction(input, most.min(self.f() + MORE));
            } else {
                self.shorten(input, most);
            }
        }
        (x, self.masked(right))
    }

    /// Has a player bring an input with at most so many fractional bits.
    pub(super) fn shorten(&mut self, (slot, input): (usize, usize), most: i32) {
        let fraction = self.table.inputs[input].fraction.min(most);
        self.set_fraction((slot, input), fraction);
    }

    /// Has a player bring an input with so many fractional bits.
    fn set_fraction(&mut self, (slot, input): (usize, usize), fraction: i32) {
        self.table.inputs[input].fraction = fraction;
        if let Some(masked) = &mut self.lowered[slot].masked {
            masked.fraction = fraction;
        }
    }

    /// The input that a weight or bias is, if a player brings it for a session and nothing else uses it:
    /// its slot and its number among the plan's inputs.
    pub(super) fn sole_input(&self, mut slot: usize) -> Option<(usize, usize)> {
        loop {
            if self.users.get(slot)?.len() != 1 {
                return None;
            }
            match self.lowered[slot].layout {
                Some(Layout::Alias(source) | Layout::Whole(source, _)) => slot = source,
                _ => break,
            }
        }
        let inputs = self.table.inputs.iter();
        let input = inputs
            .clone()
            .position(|input| input.node == NodeId(slot) && input.lifetime == Lifetime::Session)?;
        Some((slot, input))
    }
}
