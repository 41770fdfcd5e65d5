//! Exact non-linear functions, on values that are opened in as many bits as they have.

use std::sync::Arc;

use super::compiler::Compiler;
use super::lowered::{Layout, Scaled, ScaledWire};
use crate::graph::NodeId;
use crate::ops;
use crate::plan::error::PlanError;
use crate::tensors::{Domain, MaskedId, PrivateId};

impl Compiler<'_> {
    /// `max(input, 0)`: the input is opened without the fractional bits that it has too many,
    /// compared, and selected.
    pub(super) fn relu(&mut self, index: usize, input: NodeId) -> Result<(), PlanError> {
        self.check_gate()?;
        if self.is_left_to_a_pool(index) {
            self.lowered[index].layout = Some(Layout::Alias(input.0));
            return Ok(());
        }
        if let Some(wire) = self.wire(input.0) {
            return self.relu_of(index, wire);
        }
        let value = self.openable(input.0, 0);
        let wire = self.opened_value(value, 0);
        self.relu_of(index, wire)
    }

    /// `max(x, 0)` of a wire.
    pub(super) fn relu_of(&mut self, index: usize, wire: ScaledWire) -> Result<(), PlanError> {
        let ScaledWire { id: wire, fraction } = wire;
        let less = self.comparison(wire);
        let integral = self.integral();
        self.set(index, fraction, integral, |output| Arc::new(ops::Select { wire, less, output }))
    }

    /// A wire compared with zero.
    pub(super) fn comparison(&mut self, wire: MaskedId) -> PrivateId {
        let less = self.private_in(Domain::Bits, self.table.len(wire));
        self.push(Arc::new(ops::Compare { input: wire, output: less }));
        less
    }

    /// The values of a compared wire that are not negative, and zeros, lifted to the ring.
    pub(super) fn positive(&mut self, wire: MaskedId, less: PrivateId) -> PrivateId {
        let output = self.private_of(self.table.len(wire));
        self.push(Arc::new(ops::Select { wire, less, output }));
        output
    }

    /// A private form that has as many bits as values need, and `more`, once it is without the
    /// fractional bits that it has too many.
    pub(super) fn openable(&mut self, slot: usize, more: u32) -> Scaled {
        let value = self.private(slot);
        let bits = self.width(self.f()) + more;
        if value.fraction - self.f() > self.precision.ring as i32 - bits as i32 {
            return self.reduced(slot);
        }
        value
    }

    /// Opens values without the fractional bits that they have too many, in as many bits as they
    /// need, and `more`.
    pub(super) fn opened_value(&mut self, value: Scaled, more: u32) -> ScaledWire {
        let fraction = value.fraction.min(self.f());
        let bits = self.width(fraction) + more;
        let id = self.masked_in(Domain::Integers { bits }, self.table.len(value.id));
        let shift = (value.fraction - fraction) as u32;
        self.push(Arc::new(ops::OpenNarrow { input: value.id, shift, offset: 0, output: id }));
        ScaledWire { id, fraction }
    }

    /// The values with `shift` fractional bits less, each a neighbour of the quotient and never
    /// another number: opened in as many bits as they have, and lifted. `None` if the ring has too
    /// few bits, of which the value, its sign and the wire's highest bit need one each.
    pub(super) fn lifted_quotient(&mut self, value: Scaled, shift: i32) -> Option<Scaled> {
        let (fraction, ring) = (value.fraction - shift, self.precision.ring as i32);
        let bits = (fraction + value.integral + 2).max(ops::NARROWEST as i32);
        if bits + shift > ring {
            return None;
        }
        let (len, offset) = (self.table.len(value.id), 1 << (bits - 2));
        let wire = self.masked_in(Domain::Integers { bits: bits as u32 }, len);
        let shift = shift as u32;
        self.push(Arc::new(ops::OpenNarrow { input: value.id, shift, offset, output: wire }));
        let output = self.private_of(len);
        self.push(Arc::new(ops::Lift { wire, offset, output }));
        Some(Scaled { id: output, fraction, ..value })
    }

    /// What is revealed of a value: without the fractional bits that it has too many.
    pub(super) fn rounded(&mut self, slot: usize) -> Scaled {
        let value = self.private(slot);
        let bits = value.fraction - self.f();
        if bits <= 0 {
            return value;
        }
        let id = self.private_of(self.table.len(value.id));
        self.push(Arc::new(ops::Round { input: value.id, bits: bits as u32, output: id }));
        Scaled { id, ..value }
    }

    /// Bits of a value within the format's range, its sign included.
    pub(super) fn width(&self, fraction: i32) -> u32 {
        (fraction + self.integral() + 1).max(ops::NARROWEST as i32) as u32
    }
}
