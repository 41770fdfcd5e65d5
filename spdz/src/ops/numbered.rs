//! The numbers of parts, as a wire that hides nothing: its mask is zero. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::masked::Wire;
use crate::packed::{Packed, Packing};
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{Domain, MaskedId, Table, TensorId};

/// The number of each part of a tree of comparisons, for each of its values. Parts are in the order
/// in which the first half of them is compared with the second, level by level, and neighbours are
/// compared first: the bits of a place are those of its number from the other end.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// The number of the first part.
    pub first: usize,
    /// There are two to the power of this of them.
    pub levels: u32,
    /// The numbers.
    pub output: MaskedId,
}

impl Numbered {
    fn numbers(&self, len: usize, bits: usize) -> Packed {
        let part = len >> self.levels;
        let mut numbers = Packing::new(len, bits);
        for place in 0..1usize << self.levels {
            let reversed = place.reverse_bits().checked_shr(usize::BITS - self.levels).unwrap_or(0);
            (0..part).for_each(|_| numbers.extend(&[(self.first + reversed) as u64]));
        }
        numbers.finish()
    }
}

impl Operation for Numbered {
    fn name(&self) -> &'static str {
        "numbered"
    }

    fn reads(&self) -> Vec<TensorId> {
        Vec::new()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { first, levels, output } = self;
        let (bits, len) = (table.width(*output), table.len(*output));
        write!(f, " from {first} levels {levels} -> {output} bits {bits} len {len}")
    }
}

impl<R: BinaryRing> Execute<R> for Numbered {
    fn wire_masks(&self, producer: &mut dyn Producer<R>) -> [Packed; 2] {
        let (len, bits) = (producer.len(self.output), producer.width(self.output) as usize);
        [(); 2].map(|()| Packed::zeros(len, bits))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let len = values.len(self.output);
        let Domain::Integers { bits } = values.domain(self.output) else {
            unreachable!("a wire has narrow values");
        };
        let bits = bits as usize;
        let wire = Wire { opened: self.numbers(len, bits), mask: Packed::zeros(len, bits) };
        values.put_wire(self.output, wire);
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Numbered {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_have_neighbours_in_the_same_places() {
        let numbers = |first, levels, len| {
            Numbered { first, levels, output: MaskedId(0) }.numbers(len, 8).values()
        };
        assert_eq!(numbers(5, 0, 3), [5, 5, 5]);
        assert_eq!(numbers(16, 3, 8), [16, 20, 18, 22, 17, 21, 19, 23]);
        assert_eq!(numbers(0, 2, 8), [0, 0, 2, 2, 1, 1, 3, 3]);
    }
}
