//! Piecewise linear functions, on values that are compared with several thresholds at once.

use std::sync::Arc;

use super::comparisons::DIFFERENCE_BITS;
use super::compiler::Compiler;
use super::lowered::{LoweredValue, Scaled, ScaledWire};
use super::powers::log2_up;
use crate::fixed::Precision;
use crate::graph::{NodeId, Op};
use crate::ops::{self, Hinge};
use crate::piecewise::{Hinges, Knot, Piecewise};
use crate::plan::error::PlanError;
use crate::tensors::{Domain, PrivateId};

/// Most fractional bits of slopes: as many as those of numbers, twice.
const MOST_BITS: i32 = 24;

impl Compiler<'_> {
    /// A continuous piecewise linear function: the input is opened, compared with all points at once,
    /// and what the points add to its first line is selected.
    pub(super) fn piecewise(
        &mut self,
        index: usize,
        input: NodeId,
        function: &Piecewise,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        function.points.iter().try_for_each(|point| self.check_threshold(point[0]))?;
        // What no value reaches is not compared with.
        let function = &function.within(self.precision.limit());
        // Values and slopes are numbers of the format, as public factors are.
        let numbers = function.points.iter().map(|point| point[1]).chain(function.slopes);
        self.encode(&numbers.collect::<Vec<_>>(), self.f())?;
        let (f, limit) = (self.f(), self.precision.limit());
        let ends = function.points.iter().map(|point| point[0]).chain([-limit, limit]);
        let largest = ends.map(|x| function.evaluate(x).abs()).fold(0.0, f64::max);
        let most = self.slope_bits(self.integral_below(largest));
        let hinges = Hinges::of(function, f, limit, most).map_err(|arguments| {
            PlanError::Points { layer: self.place(), arguments, fraction: f, format: self.format }
        })?;
        let peak = hinges.peak((limit * f64::from(f).exp2()) as i64) as f64;
        let integral = self.integral_below(peak * f64::from(-f - hinges.fraction).exp2());
        if hinges.knots.is_empty() {
            return self.line(index, input, &hinges, integral);
        }
        let wire = self.wire_of_units(input.0).id;
        let thresholds: Vec<i64> = hinges.knots.iter().map(|knot| knot.threshold).collect();
        let bits = thresholds.len() as u32;
        let less = self.private_in(Domain::Integers { bits }, self.table.len(wire));
        self.push(Arc::new(ops::CompareThresholds { wire, thresholds, output: less }));
        let hinge = |&Knot { threshold, change }: &Knot| Hinge { threshold, change };
        let (slope, constant) = (hinges.slope, hinges.offset as i64);
        let hinge_list: Vec<Hinge> = hinges.knots.iter().map(hinge).collect();
        self.settled(index, f + hinges.fraction, integral, |output| {
            Arc::new(ops::Hinges { wire, less, slope, constant, hinges: hinge_list, output })
        })
    }

    /// A function that is one line.
    fn line(
        &mut self,
        index: usize,
        input: NodeId,
        hinges: &Hinges,
        integral: i32,
    ) -> Result<(), PlanError> {
        let value = self.with_room(input.0, hinges.fraction, integral - self.integral());
        let value = self.lifted(value, self.f());
        let constant = (hinges.offset << (value.fraction - self.f())) as i64;
        let terms = vec![(value.id, hinges.slope)];
        self.set(index, value.fraction + hinges.fraction, integral, |output| {
            Arc::new(ops::Combine { terms, constant, output })
        })
    }

    /// Whether each value is a threshold or more: compared with what the threshold is in units in the
    /// last place, rounded up.
    pub(super) fn step(
        &mut self,
        index: usize,
        input: NodeId,
        threshold: f64,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        self.check_threshold(threshold)?;
        let mut wire = self.wire_of_units(input.0).id;
        // What no value reaches makes no other step than the range's end.
        let limit = self.precision.limit();
        let threshold = threshold.clamp(-limit, limit);
        let units = (threshold * f64::from(self.f()).exp2()).ceil() as i64;
        if units != 0 {
            let less = self.alike(wire, self.table.len(wire));
            let offset = units.wrapping_neg() as u64 & (u64::MAX >> (64 - self.table.width(wire)));
            self.push(Arc::new(ops::Segment { input: wire, from: 0, offset, output: less }));
            wire = less;
        }
        let bits = self.comparison(wire);
        self.set(index, 0, 1, |output| Arc::new(ops::Convert { wire: Some(wire), bits, output }))
    }

    /// `max(0, x)` and the slopes times `min(0, x)`, which is `x - max(0, x)`.
    pub(super) fn prelu(
        &mut self,
        index: usize,
        input: NodeId,
        slopes: NodeId,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        if !self.is_private(slopes)
            && let Some(slope) = self.uniform(slopes)
        {
            self.encode(&[slope], 0)?;
            return self.piecewise(index, input, &Piecewise::leaky_relu(slope));
        }
        if !self.is_private(input) {
            self.publish(input)?;
        }
        let (shape, len, f) = (self.shape(NodeId(index)), self.lowered[index].len, self.f());
        let wire = self.wire_of_units(input.0);
        let less = self.comparison(wire.id);
        let positive = self.positive(wire.id, less);
        let value = self.lifted_wire(wire, 0, len);
        let negative = self.slot_of(len);
        let terms = vec![(value.id, 1), (positive, -1)];
        self.set(negative, f, self.integral(), |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })?;
        let most = self.slope_bits(self.integral()).min(f);
        let product = self.slot_of(len);
        if self.is_private(slopes) {
            let slopes = self.expanded(slopes, shape);
            let input = self.sole_input(slopes);
            if let Some(input) = input {
                self.shorten(input, most);
            }
            let left = self.masked(negative);
            let right = if input.is_some() || most == f {
                self.masked(slopes)
            } else {
                // The product would have too many bits to be divided exactly.
                let slopes = self.private(slopes);
                self.opened(slopes, most, self.integral())
            };
            self.set(product, left.fraction + right.fraction, 2 * self.integral(), |output| {
                Arc::new(ops::Mul { left: left.id, right: right.id, output })
            })?;
        } else {
            let numbers = self.public_values(slopes, shape)?;
            let fraction = self.exact_fraction(&numbers).min(most);
            let integers = self.encode(&numbers, fraction)?;
            let public = self.public(integers, fraction);
            let input = self.private(negative).id;
            self.set(product, f + fraction, 2 * self.integral(), |output| {
                Arc::new(ops::MulPublic { input, public, output })
            })?;
        }
        let Scaled { id, fraction, integral } = self.private(product);
        let terms = vec![(id, 1), (positive, 1 << (fraction - f))];
        self.settled(index, fraction, integral, |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })
    }

    /// The wire of a tensor, in units of the format's last place: as thresholds are.
    fn wire_of_units(&mut self, slot: usize) -> ScaledWire {
        let f = self.f();
        if let Some(wire) = self.wire(slot).filter(|wire| wire.fraction == f) {
            return wire;
        }
        if self.private(slot).fraction >= f && self.wire(slot).is_none() {
            return self.opened_wire(slot, None);
        }
        let value = self.openable(slot, DIFFERENCE_BITS);
        let value = self.lifted(value, f);
        self.opened_value(value, DIFFERENCE_BITS)
    }

    fn slot_of(&mut self, len: usize) -> usize {
        self.lowered.push(LoweredValue { len, ..LoweredValue::default() });
        self.lowered.len() - 1
    }

    /// Integral bits of values up to a magnitude, and of their rounding.
    fn integral_below(&self, largest: f64) -> i32 {
        let bits = log2_up(largest.max(1.0) + 4.0 * f64::from(-self.f()).exp2());
        // At the end of the range itself there is no value.
        if largest <= self.precision.limit() { bits.min(self.integral()) } else { bits }
    }

    /// Fractional bits of slopes for which results with so many integral bits can be divided again
    /// exactly ([`Compiler::lifted_quotient`]).
    fn slope_bits(&self, integral: i32) -> i32 {
        let (ring, dividend) = (self.precision.ring as i32, self.precision.dividend as i32);
        (ring - 2).min(dividend).saturating_sub(self.f() + integral).clamp(0, MOST_BITS)
    }

    /// Refuses a threshold beyond the format's range. A graph may declare that its values have a
    /// smaller one.
    fn check_threshold(&self, found: f64) -> Result<(), PlanError> {
        let limit = self.format.precision().limit();
        if found.abs() < limit {
            return Ok(());
        }
        let Precision { fraction, integral, .. } = self.format.precision();
        let bits = fraction + integral + 1 + DIFFERENCE_BITS;
        Err(PlanError::Threshold { layer: self.place(), found, limit, bits, format: self.format })
    }

    /// The result of a gate with more fractional bits than the format has: as it is if it is revealed or
    /// compared again and nothing else, else divided exactly.
    fn settled(
        &mut self,
        index: usize,
        fraction: i32,
        integral: i32,
        make: impl FnOnce(PrivateId) -> Arc<dyn ops::Operation>,
    ) -> Result<(), PlanError> {
        let shift = fraction - self.f();
        if shift <= 0 || self.is_only_opened(index) {
            return self.set(index, fraction, integral, make);
        }
        // A slot of its own, as the ring needs bits for it too.
        let slot = self.slot_of(self.lowered[index].len);
        self.set(slot, fraction, integral, make)?;
        let value = self.private(slot);
        let within = Scaled { integral: value.integral.min(self.integral()), ..value };
        self.lowered[index].raw = Some(self.lifted_quotient(within, shift).unwrap_or(value));
        Ok(())
    }

    /// Whether nothing but comparisons reads a tensor, or whoever it is revealed to.
    fn is_only_opened(&self, index: usize) -> bool {
        let reveals =
            |user: &usize| matches!(self.graph.nodes()[*user].operation, Op::Reveal { .. });
        self.users[index].iter().all(reveals) || self.is_only_compared(index)
    }
}
