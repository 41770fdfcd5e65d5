//! Differences of wires: their mask is the difference of the masks. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::masked::Wire;
use crate::packed::{Packed, Packing, ROW, low_bits};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{MaskedId, Table, TensorId};

/// Values of two wires whose differences are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// The number of the first minuend.
    pub left: usize,
    /// The number of the first subtrahend.
    pub right: usize,
    /// How many there are.
    pub len: usize,
}

/// The differences of some values of two wires of one width, which the differences must not
/// exceed. The two may be the same.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The minuends.
    pub left: MaskedId,
    /// The subtrahends.
    pub right: MaskedId,
    /// Which of them, one after the other.
    pub pairs: Vec<Pairs>,
    /// The differences.
    pub output: MaskedId,
}

impl Difference {
    /// The same of what both know, and of the shares of masks.
    fn of(&self, left: &Packed, right: &Packed) -> Packed {
        let low = low_bits(left.bits() as u32);
        let len = self.pairs.iter().map(|pairs| pairs.len).sum();
        let mut differences = Packing::new(len, left.bits());
        for pairs in &self.pairs {
            for first in (0..pairs.len).step_by(ROW) {
                let row = vectorized(
                    #[inline(always)]
                    || {
                        let mut row = left.row_from(pairs.left + first);
                        let right = right.row_from(pairs.right + first);
                        for (value, right) in row.iter_mut().zip(&right) {
                            *value = value.wrapping_sub(*right) & low;
                        }
                        row
                    },
                );
                differences.extend(&row[..ROW.min(pairs.len - first)]);
            }
        }
        differences.finish()
    }
}

impl Operation for Difference {
    fn name(&self) -> &'static str {
        "difference"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.left.into(), self.right.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        write!(f, " {} {}", self.left, self.right)?;
        for Pairs { left, right, len } in &self.pairs {
            write!(f, " {left}-{right}*{len}")?;
        }
        write!(f, " -> {} len {}", self.output, table.len(self.output))
    }
}

impl<R: BinaryRing> Execute<R> for Difference {
    fn wire_masks(&self, producer: &mut dyn Producer<R>) -> [Packed; 2] {
        let left = producer.wire_masks(self.left).shares();
        let right = match self.left == self.right {
            true => left.clone(),
            false => producer.wire_masks(self.right).shares(),
        };
        [0, 1].map(|server| self.of(&left[server], &right[server]))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let (left, right) = (values.wire(self.left), values.wire(self.right));
        let opened = self.of(&left.opened, &right.opened);
        let mask = self.of(&left.mask, &right.mask);
        values.put_wire(self.output, Wire { opened, mask });
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Difference {}
