//! Values that are compared with each other: the larger of two, the largest of many.
//!
//! Values are opened once, as wires. Their differences are wires without a message, and so are
//! those of the larger ones as soon as they are opened. Only what leaves the comparisons is
//! lifted to the ring.

use std::sync::Arc;

use super::compiler::Compiler;
use super::lowered::{Layout, Scaled, ScaledWire};
use crate::geometry::{Places, View};
use crate::graph::{NodeId, Op};
use crate::ops::{self, Pairs};
use crate::plan::error::PlanError;
use crate::tensors::{Domain, MaskedId, PrivateId};

/// A bit more than values have: their differences have to fit.
const DIFFERENCE_BITS: u32 = 1;

/// Values of a wire from a number on.
type From = (MaskedId, usize);

impl Compiler<'_> {
    /// Refuses a gate in a format that has none.
    pub(super) fn check_gate(&self) -> Result<(), PlanError> {
        if self.format.has_gates() {
            return Ok(());
        }
        let gate = self.graph.operation(NodeId(self.current)).name();
        Err(PlanError::Gate { layer: self.place(), gate, format: self.format })
    }

    /// The tensor that has the same elements and is no mere shape of another.
    fn source(&self, mut slot: usize) -> usize {
        while let Some(Layout::Alias(source)) = self.lowered[slot].layout {
            slot = source;
        }
        slot
    }

    /// The wire that a tensor is already, if it is one.
    pub(super) fn wire(&self, slot: usize) -> Option<ScaledWire> {
        self.lowered[self.source(slot)].wire
    }

    /// The largest values of windows. A ReLU before or after it is done on them, as the
    /// maximum with zero.
    pub(super) fn max_pool(
        &mut self,
        index: usize,
        input: NodeId,
        places: Places,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        let (count, len) = (places.window.area(), places.place_len());
        if count == 1 {
            self.lowered[index].layout = Some(Layout::Part(input.0, places.view()));
            return Ok(());
        }
        let wire = match self.wire(input.0) {
            None if places.are_apart() => self.opened_wire(input.0, Some(places.view())),
            known => {
                let images = known.unwrap_or_else(|| self.opened_wire(input.0, None));
                let source = self.source(input.0);
                self.lowered[source].wire = Some(images);
                let output = self.alike(images.id, places.len());
                self.push(Arc::new(ops::Windows { input: images.id, places, output }));
                ScaledWire { id: output, ..images }
            }
        };
        let [left, right] = self.last_two(wire.id, count, len);
        let rectified = self.is_left_to_a_pool(input.0);
        if !rectified && !self.is_only_compared(index) {
            return self.larger(index, left, right, wire.fraction);
        }
        let largest = ScaledWire { id: self.opened_larger(left, right, len), ..wire };
        if rectified {
            return self.relu_of(index, largest);
        }
        self.lowered[index].wire = Some(largest);
        Ok(())
    }

    /// Whether a ReLU is left to the pooling that alone reads it, which has fewer values.
    pub(super) fn is_left_to_a_pool(&self, index: usize) -> bool {
        let operation = |index: usize| &self.graph.nodes()[index].operation;
        let is_pool =
            |user| matches!(operation(user), Op::MaxPool { window, .. } if window.area() > 1);
        matches!(operation(index), Op::Relu { .. })
            && matches!(self.users[index][..], [user] if is_pool(user))
    }

    /// Whether nothing but comparisons reads a tensor.
    fn is_only_compared(&self, index: usize) -> bool {
        let compares = |user: &usize| {
            matches!(self.graph.nodes()[*user].operation, Op::Relu { .. } | Op::MaxPool { .. })
        };
        !self.users[index].is_empty() && self.users[index].iter().all(compares)
    }

    /// Opens some elements of a tensor, without the fractional bits that it has too many, in as
    /// many bits as their differences have.
    fn opened_wire(&mut self, slot: usize, view: Option<View>) -> ScaledWire {
        let mut value = self.private(slot);
        let ring = self.precision.ring as i32;
        let bits = |fraction| self.width(fraction) + DIFFERENCE_BITS;
        if value.fraction - self.f() > ring - bits(self.f()) as i32 {
            // What is left of the ring would be less than the values need.
            value = self.reduced(slot);
        }
        if let Some(view) = view {
            let output = self.private_of(view.len());
            self.push(Arc::new(ops::View { input: value.id, view, output }));
            value.id = output;
        }
        let fraction = value.fraction.min(self.f());
        let bits = self.width(fraction) + DIFFERENCE_BITS;
        let len = self.table.len(value.id);
        let id = self.masked_in(Domain::Integers { bits }, len);
        let shift = (value.fraction - fraction) as u32;
        self.push(Arc::new(ops::OpenNarrow { input: value.id, shift, offset: 0, output: id }));
        ScaledWire { id, fraction }
    }

    /// A wire for `len` values of the width that another has.
    fn alike(&mut self, wire: MaskedId, len: usize) -> MaskedId {
        let domain = self.table.spec(wire.into()).domain;
        self.masked_in(domain, len)
    }

    /// Of `count` parts of a wire, `len` values each, two of which the larger values are the
    /// largest of all. Each level halves their number; one that is left over waits, and joins
    /// the next that is.
    fn last_two(&mut self, wire: MaskedId, mut count: usize, len: usize) -> [From; 2] {
        let (mut wire, mut waiting): (_, Option<From>) = (wire, None);
        loop {
            match (count, waiting) {
                (2, None) => return [(wire, 0), (wire, len)],
                (1, Some(other)) => return [(wire, 0), other],
                _ => {}
            }
            let half = count / 2;
            let larger = self.opened_larger((wire, 0), (wire, half * len), half * len);
            if count % 2 == 1 {
                let left_over = (wire, 2 * half * len);
                waiting = Some(match waiting {
                    Some(other) => (self.opened_larger(left_over, other, len), 0),
                    None => left_over,
                });
            }
            (wire, count) = (larger, half);
        }
    }

    /// What `right` has more than `left`, compared with zero.
    fn compared(&mut self, left: From, right: From, len: usize) -> (MaskedId, PrivateId) {
        let difference = self.alike(left.0, len);
        self.push(Arc::new(ops::Difference {
            left: right.0,
            right: left.0,
            pairs: vec![Pairs { left: right.1, right: left.1, len }],
            output: difference,
        }));
        let less = self.private_in(Domain::Bits, len);
        self.push(Arc::new(ops::Compare { input: difference, output: less }));
        (difference, less)
    }

    /// The larger values of two parts, as a wire: `left` and what `right` has more.
    fn opened_larger(&mut self, left: From, right: From, len: usize) -> MaskedId {
        let (wire, less) = self.compared(left, right, len);
        let domain = self.table.spec(wire.into()).domain;
        let more = self.private_in(domain, len);
        self.push(Arc::new(ops::SelectIntegers { wire, less, value: wire, output: more }));
        let output = self.alike(wire, len);
        self.push(Arc::new(ops::OpenIntegers { wire: Some(left), input: more, output }));
        output
    }

    /// The larger values of two parts, lifted to the ring.
    fn larger(
        &mut self,
        index: usize,
        left: From,
        right: From,
        fraction: i32,
    ) -> Result<(), PlanError> {
        let len = self.lowered[index].len;
        let (wire, less) = self.compared(left, right, len);
        let more = self.private_of(len);
        self.push(Arc::new(ops::Select { wire, less, output: more }));
        let first = self.lifted_wire(ScaledWire { id: left.0, fraction }, left.1, len);
        let terms = vec![(first.id, 1), (more, 1)];
        self.set(index, fraction, self.integral(), |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })
    }

    /// The values of a wire from a number on, as a private tensor of the ring. They have a bit less
    /// than fits the wire, so that none is negative once an offset is added.
    pub(super) fn lifted_wire(&mut self, wire: ScaledWire, from: usize, len: usize) -> Scaled {
        let bits = self.table.encoding(wire.id).bits();
        let (segment, offset) = (self.alike(wire.id, len), 1 << (bits - 2));
        self.push(Arc::new(ops::Segment { input: wire.id, from, offset, output: segment }));
        let id = self.private_of(len);
        self.push(Arc::new(ops::Lift { wire: segment, offset, output: id }));
        Scaled { id, fraction: wire.fraction, integral: self.integral() }
    }

    /// `max(x, 0)` of a wire.
    pub(super) fn relu_of(&mut self, index: usize, wire: ScaledWire) -> Result<(), PlanError> {
        let less = self.private_in(Domain::Bits, self.lowered[index].len);
        self.push(Arc::new(ops::Compare { input: wire.id, output: less }));
        let integral = self.integral();
        self.set(index, wire.fraction, integral, |output| {
            Arc::new(ops::Select { wire: wire.id, less, output })
        })
    }
}
