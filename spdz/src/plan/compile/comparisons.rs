//! Values that are compared with each other: the larger of two, the largest of many.
//!
//! Values are opened once, as wires. Their differences are wires without a message, and so are
//! those of the larger ones as soon as they are opened. Only what leaves the comparisons is
//! lifted to the ring.

use std::sync::Arc;

use super::compiler::Compiler;
use super::differences::is_left_to_a_pool;
use super::lowered::{Layout, Scaled, ScaledWire};
use crate::geometry::{Places, View};
use crate::graph::{NodeId, Op};
use crate::ops::{self, Pairs};
use crate::plan::error::PlanError;
use crate::tensors::{MaskedId, PrivateId};

/// A bit more than values have: their differences have to fit.
pub(super) const DIFFERENCE_BITS: u32 = 1;

/// Values of a wire from a number on.
pub(super) type From = (MaskedId, usize);

/// Which of two values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extreme {
    /// The larger one.
    Largest,
    /// The smaller one.
    Smallest,
}

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
                let output = self.alike(images.id, places.len());
                self.push(Arc::new(ops::Windows { input: images.id, places, output }));
                ScaledWire { id: output, ..images }
            }
        };
        let [left, right] = self.last_two(wire.id, count, len);
        if self.is_left_to_a_pool(input.0) {
            let id = self.opened_extreme(left, right, len, Extreme::Largest);
            return self.relu_of(index, ScaledWire { id, ..wire });
        }
        self.last_extreme(index, left, right, wire.fraction, Extreme::Largest)
    }

    /// The larger or smaller of two elements.
    pub(super) fn extreme(
        &mut self,
        index: usize,
        left: NodeId,
        right: NodeId,
        extreme: Extreme,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        let shape = self.shape(NodeId(index));
        match (self.is_private(left), self.is_private(right)) {
            (true, false) => return self.extreme_of_public(index, left, right, extreme),
            (false, true) => return self.extreme_of_public(index, right, left, extreme),
            _ => {}
        }
        let slots = [left, right].map(|id| self.expanded(id, shape));
        let fractions = slots.map(|slot| match self.wire(slot) {
            Some(wire) => wire.fraction,
            None => self.private(slot).fraction.min(self.f()),
        });
        let fraction = fractions[0].max(fractions[1]);
        let [left, right] = slots.map(|slot| match self.wire(slot) {
            Some(wire) if wire.fraction == fraction => (wire.id, 0),
            _ if self.private(slot).fraction >= fraction => (self.opened_wire(slot, None).id, 0),
            _ => {
                let value = self.private(slot);
                let value = self.lifted(value, fraction);
                (self.opened_value(value, DIFFERENCE_BITS).id, 0)
            }
        });
        self.last_extreme(index, left, right, fraction, extreme)
    }

    /// The same of private and public ones: `c + max(0, x - c)`, or `c - max(0, c - x)`.
    fn extreme_of_public(
        &mut self,
        index: usize,
        private: NodeId,
        public: NodeId,
        extreme: Extreme,
    ) -> Result<(), PlanError> {
        let shape = self.shape(NodeId(index));
        let sign = if extreme == Extreme::Largest { 1 } else { -1 };
        let slot = self.expanded(private, shape);
        let value = self.openable(slot, DIFFERENCE_BITS);
        let value = self.lifted(value, self.f());
        // The same multiples of a unit in the last place before and after rounding.
        let numbers = self.public_values(public, shape)?;
        let units = self.encode(&numbers, self.f())?;
        let shift = value.fraction - self.f();
        let less = units.iter().map(|c| (c * i128::from(-sign)) << shift).collect();
        let less = self.public(less, value.fraction);
        let (turned, difference) = (self.private_of(units.len()), self.private_of(units.len()));
        let terms = vec![(value.id, sign)];
        self.push(Arc::new(ops::Combine { terms, constant: 0, output: turned }));
        self.push(Arc::new(ops::AddPublic { input: turned, public: less, output: difference }));
        let wire = self.opened_value(Scaled { id: difference, ..value }, DIFFERENCE_BITS);
        let compared = self.comparison(wire.id);
        let more = self.positive(wire.id, compared);
        let turned = self.private_of(units.len());
        let terms = vec![(more, sign)];
        self.push(Arc::new(ops::Combine { terms, constant: 0, output: turned }));
        let public = self.public(units, wire.fraction);
        self.set(index, wire.fraction, self.integral(), |output| {
            Arc::new(ops::AddPublic { input: turned, public, output })
        })
    }

    /// The magnitude: `2 max(0, x) - x`.
    pub(super) fn abs(&mut self, index: usize, input: NodeId) -> Result<(), PlanError> {
        self.check_gate()?;
        let wire = self.wire(input.0).unwrap_or_else(|| self.opened_wire(input.0, None));
        let len = self.lowered[index].len;
        let less = self.comparison(wire.id);
        let positive = self.positive(wire.id, less);
        let value = self.lifted_wire(wire, 0, len);
        let terms = vec![(positive, 2), (value.id, -1)];
        self.set(index, wire.fraction, self.integral(), |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })
    }

    /// Whether a ReLU is left to the pooling that alone reads it, which has fewer values.
    pub(super) fn is_left_to_a_pool(&self, index: usize) -> bool {
        is_left_to_a_pool(self.graph, &self.users, index)
    }

    /// Whether nothing but comparisons reads a tensor.
    pub(super) fn is_only_compared(&self, index: usize) -> bool {
        let compares = |user: &usize| match self.graph.nodes()[*user].operation {
            Op::Relu { .. }
            | Op::MaxPool { .. }
            | Op::Abs { .. }
            | Op::Clip { .. }
            | Op::LeakyRelu { .. }
            | Op::Step { .. }
            | Op::Piecewise { .. }
            | Op::Activation { .. } => true,
            Op::Prelu { input, slopes } => input.0 == index && slopes.0 != index,
            // What is repeated or beside public numbers is opened anew.
            Op::Maximum { left, right } | Op::Minimum { left, right } => [left, right]
                .iter()
                .all(|id| self.is_private(*id) && self.shape(*id) == self.shape(NodeId(*user))),
            _ => false,
        };
        !self.users[index].is_empty() && self.users[index].iter().all(compares)
    }

    /// Opens a tensor, or some elements of it, without the fractional bits that it has too many,
    /// in as many bits as their differences have.
    pub(super) fn opened_wire(&mut self, slot: usize, view: Option<View>) -> ScaledWire {
        let mut value = self.openable(slot, DIFFERENCE_BITS);
        let whole = view.is_none();
        if let Some(view) = view {
            let output = self.private_of(view.len());
            self.push(Arc::new(ops::View { input: value.id, view, output }));
            value.id = output;
        }
        let wire = self.opened_value(value, DIFFERENCE_BITS);
        if whole {
            let source = self.source(slot);
            self.lowered[source].wire = Some(wire);
        }
        wire
    }

    /// A wire for `len` values of the width that another has.
    pub(super) fn alike(&mut self, wire: MaskedId, len: usize) -> MaskedId {
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
            let larger =
                self.opened_extreme((wire, 0), (wire, half * len), half * len, Extreme::Largest);
            if count % 2 == 1 {
                let left_over = (wire, 2 * half * len);
                waiting = Some(match waiting {
                    Some(other) => {
                        (self.opened_extreme(left_over, other, len, Extreme::Largest), 0)
                    }
                    None => left_over,
                });
            }
            (wire, count) = (larger, half);
        }
    }

    /// What `left` has more than `right`.
    pub(super) fn difference(&mut self, left: From, right: From, len: usize) -> MaskedId {
        let output = self.alike(left.0, len);
        let pairs = vec![Pairs { left: left.1, right: right.1, len }];
        self.push(Arc::new(ops::Difference { left: left.0, right: right.0, pairs, output }));
        output
    }

    /// By how much `right` is the larger, or by how much it is the smaller, compared with zero.
    fn compared(
        &mut self,
        left: From,
        right: From,
        len: usize,
        extreme: Extreme,
    ) -> (MaskedId, PrivateId) {
        let wire = match extreme {
            Extreme::Largest => self.difference(right, left, len),
            Extreme::Smallest => self.difference(left, right, len),
        };
        (wire, self.comparison(wire))
    }

    /// The larger values of two parts, or the smaller ones, as a wire: `left` and what is
    /// added where it is the other's.
    fn opened_extreme(
        &mut self,
        left: From,
        right: From,
        len: usize,
        extreme: Extreme,
    ) -> MaskedId {
        let (wire, less) = self.compared(left, right, len, extreme);
        let value = match extreme {
            Extreme::Largest => wire,
            Extreme::Smallest => self.difference(right, left, len),
        };
        self.selected(wire, less, value, left)
    }

    /// Opens `first` and, where a compared wire is not negative, the values of another.
    pub(super) fn selected(
        &mut self,
        wire: MaskedId,
        less: PrivateId,
        value: MaskedId,
        first: From,
    ) -> MaskedId {
        let spec = *self.table.spec(value.into());
        let more = self.private_in(spec.domain, spec.len);
        self.push(Arc::new(ops::SelectIntegers { wire, less, value, output: more }));
        let output = self.alike(value, spec.len);
        self.push(Arc::new(ops::OpenIntegers { wire: Some(first), input: more, output }));
        output
    }

    /// The larger values of two parts, or the smaller ones, as the result: a wire if it is compared
    /// again and nothing else, or lifted to the ring.
    fn last_extreme(
        &mut self,
        index: usize,
        left: From,
        right: From,
        fraction: i32,
        extreme: Extreme,
    ) -> Result<(), PlanError> {
        let len = self.lowered[index].len;
        if self.is_only_compared(index) {
            let id = self.opened_extreme(left, right, len, extreme);
            self.lowered[index].wire = Some(ScaledWire { id, fraction });
            return Ok(());
        }
        let (wire, less) = self.compared(left, right, len, extreme);
        let more = self.positive(wire, less);
        let first = self.lifted_wire(ScaledWire { id: left.0, fraction }, left.1, len);
        let sign = if extreme == Extreme::Largest { 1 } else { -1 };
        let terms = vec![(first.id, 1), (more, sign)];
        self.set(index, fraction, self.integral(), |output| {
            Arc::new(ops::Combine { terms, constant: 0, output })
        })
    }

    /// The values of a wire from a number on, as a private tensor of the ring. They have a bit less
    /// than fits the wire, so that none is negative once an offset is added.
    pub(super) fn lifted_wire(&mut self, wire: ScaledWire, from: usize, len: usize) -> Scaled {
        let bits = self.table.width(wire.id);
        let (segment, offset) = (self.alike(wire.id, len), 1 << (bits - 2));
        self.push(Arc::new(ops::Segment { input: wire.id, from, offset, output: segment }));
        let id = self.private_of(len);
        self.push(Arc::new(ops::Lift { wire: segment, offset, output: id }));
        Scaled { id, fraction: wire.fraction, integral: self.integral() }
    }
}
