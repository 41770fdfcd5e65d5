//! Sums, and products element by element.

use std::sync::Arc;

use super::bounds::bits;
use super::compiler::{Biased, Compiler};
use super::lowered::{Layout, Scaled};
use super::powers;
use crate::graph::NodeId;
use crate::ops;
use crate::plan::error::PlanError;

impl Compiler<'_> {
    /// A private form of a public tensor: shares of its numbers.
    pub(super) fn publish(&mut self, id: NodeId) -> Result<(), PlanError> {
        if self.lowered[id.0].raw.is_some() {
            return Ok(());
        }
        let values = self.public_values(id, self.shape(id))?;
        let fraction = self.f();
        let integers = self.encode(&values, fraction)?;
        let public = self.public(integers, fraction);
        let zeros = self.private_of(values.len());
        self.push(Arc::new(ops::Combine { terms: Vec::new(), constant: 0, output: zeros }));
        let integral = self.integral();
        self.set(id.0, fraction, integral, |output| {
            Arc::new(ops::AddPublic { input: zeros, public, output })
        })
    }

    /// `factor * value`, with `fraction` more fractional bits.
    pub(super) fn scaled(
        &mut self,
        slot: usize,
        value: Scaled,
        factor: i64,
        fraction: i32,
        integral: i32,
    ) -> Result<(), PlanError> {
        self.set(slot, value.fraction + fraction, integral, |output| {
            Arc::new(ops::Combine { terms: vec![(value.id, factor)], constant: 0, output })
        })
    }

    /// `left` plus or minus `right`, each with its sign.
    pub(super) fn sum(
        &mut self,
        index: usize,
        left: (NodeId, i64),
        right: (NodeId, i64),
    ) -> Result<(), PlanError> {
        if let Some(Biased { product, bias }) = self.biased[index] {
            return self.biased_product(index, product, bias);
        }
        let shape = self.shape(NodeId(index));
        let (private, public) = match (self.is_private(left.0), self.is_private(right.0)) {
            (true, true) => return self.private_sum(index, left, right),
            (true, false) => (left, right),
            _ => (right, left),
        };
        let slot = self.expanded(private.0, shape);
        let mut value = self.private(slot);
        if !self.truncates_well(value.fraction, value.integral.max(self.integral()) + 1) {
            value = self.reduced(slot);
        }
        let integral = value.integral.max(self.integral()) + 1;
        if let Some(number) = self.uniform(public.0) {
            let constant = self.encode(&[number * public.1 as f64], value.fraction)?[0] as i64;
            return self.set(index, value.fraction, integral, |output| {
                Arc::new(ops::Combine { terms: vec![(value.id, private.1)], constant, output })
            });
        }
        let mut numbers = self.public_values(public.0, shape)?;
        numbers.iter_mut().for_each(|number| *number *= public.1 as f64);
        let integers = self.encode(&numbers, value.fraction)?;
        let public = self.public(integers, value.fraction);
        let mut input = value.id;
        if private.1 != 1 {
            input = self.private_of(numbers.len());
            let terms = vec![(value.id, private.1)];
            self.push(Arc::new(ops::Combine { terms, constant: 0, output: input }));
        }
        self.set(index, value.fraction, integral, |output| {
            Arc::new(ops::AddPublic { input, public, output })
        })
    }

    pub(super) fn private_sum(
        &mut self,
        index: usize,
        left: (NodeId, i64),
        right: (NodeId, i64),
    ) -> Result<(), PlanError> {
        let shape = self.shape(NodeId(index));
        let slots = [left.0, right.0].map(|id| self.expanded(id, shape));
        self.sum_of(index, slots, [left.1, right.1])
    }

    /// The sum of two slots of the same shape, each with its sign.
    pub(super) fn sum_of(
        &mut self,
        index: usize,
        slots: [usize; 2],
        signs: [i64; 2],
    ) -> Result<(), PlanError> {
        let mut values = slots.map(|slot| self.private(slot));
        let most = |values: &[Scaled; 2]| {
            (
                values[0].fraction.max(values[1].fraction),
                values[0].integral.max(values[1].integral) + 1,
            )
        };
        let (fraction, integral) = most(&values);
        if !self.truncates_well(fraction, integral) {
            values = slots.map(|slot| self.reduced(slot));
        }
        let (fraction, integral) = most(&values);
        let term = |value: Scaled, sign: i64| (value.id, sign << (fraction - value.fraction));
        let terms = vec![term(values[0], signs[0]), term(values[1], signs[1])];
        self.set(index, fraction, integral, |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })
    }

    pub(super) fn square(&mut self, index: usize, input: NodeId) -> Result<(), PlanError> {
        let input = self.masked(input.0);
        let (fraction, integral) = (2 * input.fraction, 2 * self.integral());
        self.set(index, fraction, integral, |output| {
            Arc::new(ops::Square { input: input.id, output })
        })
    }

    pub(super) fn mul_public(
        &mut self,
        index: usize,
        x: NodeId,
        public: NodeId,
    ) -> Result<(), PlanError> {
        let shape = self.shape(NodeId(index));
        let slot = self.expanded(x, shape);
        if let Some(number) = self.uniform(public) {
            self.encode(&[number], 0)?;
            return self.mul_number(index, slot, number);
        }
        let numbers = self.public_values(public, shape)?;
        let fraction = self.exact_fraction(&numbers);
        let integers = self.encode(&numbers, fraction)?;
        let value = self.with_room(slot, fraction, self.integral());
        let public = self.public(integers, fraction);
        let integral = value.integral + self.integral();
        self.set(index, value.fraction + fraction, integral, |output| {
            Arc::new(ops::MulPublic { input: value.id, public, output })
        })
    }

    pub(super) fn mul_number(
        &mut self,
        index: usize,
        slot: usize,
        number: f64,
    ) -> Result<(), PlanError> {
        let exponent = if number == 0.0 { 0 } else { powers::log2_up(number.abs()) };
        if number.abs() == f64::from(exponent).exp2() && exponent <= 0 {
            // The same integers, with the binary point elsewhere: nothing to compute.
            let mut value = self.private(slot);
            if self.check_bits(value.fraction - exponent, 0).is_err() {
                value = self.reduced(slot);
            }
            self.check_bits(value.fraction - exponent, 0)?;
            if number > 0.0 {
                let fraction = value.fraction - exponent;
                let integral = value.integral + exponent;
                self.lowered[index].raw = Some(Scaled { id: value.id, fraction, integral });
                return Ok(());
            }
            return self.scaled(index, value, -1, -exponent, value.integral + exponent);
        }
        let exact = self.exact_fraction(&[number]);
        // As many significant bits as a number of order one has.
        let fraction = if (number * f64::from(exact).exp2()).fract() == 0.0 {
            exact
        } else {
            (self.f() - exponent).clamp(0, 40)
        };
        let factor = (number * f64::from(fraction).exp2()).round() as i64;
        let value = self.with_room(slot, fraction, exponent);
        self.scaled(index, value, factor, fraction, value.integral + exponent)
    }

    pub(super) fn reduce_sum(
        &mut self,
        index: usize,
        input: NodeId,
        axes: &[usize],
    ) -> Result<(), PlanError> {
        let mut shape = self.shape(input).to_vec();
        if axes.is_empty() {
            self.lowered[index].layout = Some(Layout::Alias(input.0));
            return Ok(());
        }
        let more = axes.iter().map(|axis| bits(shape[*axis])).sum();
        let mut value = self.summable(input.0, more);
        for &axis in axes.iter().rev() {
            let outer: usize = shape[..axis].iter().product();
            let inner: usize = shape[axis + 1..].iter().product();
            let summed = shape.remove(axis);
            let output = self.private_of(outer * inner);
            let axes = [outer, summed, inner];
            self.push(Arc::new(ops::Sum { input: value.id, axes, output }));
            value = Scaled { id: output, integral: value.integral + bits(summed), ..value };
        }
        self.check_bits(value.fraction, value.integral)?;
        self.lowered[index].raw = Some(value);
        Ok(())
    }
}
