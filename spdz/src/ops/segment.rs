//! Neighbouring values of a wire, plus a public number: under the same mask. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::masked::Wire;
use crate::packed::{Packed, Packing, ROW, low_bits};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{MaskedId, Table, TensorId};

/// Some values of a wire that lie next to each other, with a number added to each.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The wire.
    pub input: MaskedId,
    /// The number of the first value.
    pub from: usize,
    /// What is added, modulo `2^bits`.
    pub offset: u64,
    /// The result, as many as it has values.
    pub output: MaskedId,
}

impl Segment {
    fn of(&self, input: &Packed, len: usize, offset: u64) -> Packed {
        let low = low_bits(input.bits() as u32);
        let mut values = Packing::new(len, input.bits());
        for first in (0..len).step_by(ROW) {
            let row = vectorized(
                #[inline(always)]
                || {
                    let mut row = input.row_from(self.from + first);
                    row.iter_mut().for_each(|value| *value = value.wrapping_add(offset) & low);
                    row
                },
            );
            values.extend(&row[..ROW.min(len - first)]);
        }
        values.finish()
    }
}

impl Operation for Segment {
    fn name(&self) -> &'static str {
        "segment"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { input, from, offset, output } = self;
        write!(f, " {input} from {from} plus {offset} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Segment {
    fn wire_masks(&self, producer: &mut dyn Producer<R>) -> [Packed; 2] {
        let (input, len) = (producer.wire_masks(self.input).shares(), producer.len(self.output));
        input.each_ref().map(|share| self.of(share, len, 0))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let (wire, len) = (values.wire(self.input), values.len(self.output));
        let opened = self.of(&wire.opened, len, self.offset);
        let mask = self.of(&wire.mask, len, 0);
        values.put_wire(self.output, Wire { opened, mask });
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Segment {}
