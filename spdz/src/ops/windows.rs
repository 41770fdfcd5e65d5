//! The values of a wire that windows over images have at each of their places. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::buffer::Buffer;
use crate::geometry::Places;
use crate::masked::Wire;
use crate::packed::{Packed, Packing, ROW, unpack};
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{MaskedId, Table, TensorId};

/// `[place, batch, rows, columns, channels]` of a wire `[batch, height, width, channels]`.
#[derive(Clone, Debug)]
pub struct Windows {
    /// The images.
    pub input: MaskedId,
    /// The places.
    pub places: Places,
    /// The values at the first place of all windows, then at the second, and so on.
    pub output: MaskedId,
}

impl Windows {
    /// The same of what both know, and of the shares of masks.
    fn of(&self, images: &Packed) -> Packed {
        let mut values = Buffer::<u64>::zeros(images.len().next_multiple_of(ROW));
        for (words, values) in images.rows().zip(values.chunks_exact_mut(ROW)) {
            values.copy_from_slice(&unpack(words, images.bits() as u32));
        }
        let mut places = Packing::new(self.places.len(), images.bits());
        self.places.runs(|run| places.extend(&values[run]));
        places.finish()
    }
}

impl Operation for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { input, places, output } = self;
        write!(f, " {input} {places} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Windows {
    fn wire_masks(&self, producer: &mut dyn Producer<R>) -> [Packed; 2] {
        producer.wire_masks(self.input).shares().each_ref().map(|share| self.of(share))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let wire = values.wire(self.input);
        let (opened, mask) = (self.of(&wire.opened), self.of(&wire.mask));
        values.put_wire(self.output, Wire { opened, mask });
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Windows {}
