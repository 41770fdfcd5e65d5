//! Opening private narrow integers, in as many bits as they have.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Randomness};
use super::values::Values;
use super::wire::{share_of, wire_opening};
use crate::masked::Opening;
use crate::packed::{Packed, ROW, filled, low_bits, pack, unpack};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Opens private narrow integers under a fresh mask: one exchange. If there is a wire, its values
/// from a number on are added first; the larger of two values is the first plus what the second
/// has more.
#[derive(Clone, Debug)]
pub struct OpenIntegers {
    /// A wire, and the number of its first value.
    pub wire: Option<(MaskedId, usize)>,
    /// The private integers.
    pub input: PrivateId,
    /// The opened sums.
    pub output: MaskedId,
}

impl Operation for OpenIntegers {
    fn name(&self) -> &'static str {
        "open_integers"
    }

    fn reads(&self) -> Vec<TensorId> {
        let wire = self.wire.map(|(wire, _)| wire.into());
        wire.into_iter().chain([self.input.into()]).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.output))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::packed(table.len(self.output), table.width(self.output) as usize, 0)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        if let Some((wire, from)) = self.wire {
            write!(f, " {wire} from {from} plus")?;
        }
        let (bits, len) = (table.width(self.output), table.len(self.output));
        write!(f, " {} -> {} bits {bits} len {len}", self.input, self.output)
    }
}

impl<R: BinaryRing> Execute<R> for OpenIntegers {
    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [mask] = correlation.into_packed();
        let (side, bits, input) = (values.side(), mask.bits() as u32, values.integers(self.input));
        let wire = self.wire.map(|(wire, from)| (values.wire(wire), from));
        let len = mask.len();
        let mut ours = Packed::zeros(len, mask.bits());
        let rows = input.rows().zip(mask.rows()).zip(ours.rows_mut()).enumerate();
        for (index, ((input, mask), words)) in rows {
            let mut row = vectorized(
                #[inline(always)]
                || {
                    let (mut row, mask) = (unpack(input, bits), unpack(mask, bits));
                    if let Some((wire, from)) = wire {
                        let first = from + index * ROW;
                        let opened = wire.opened.row_from(first);
                        let share = share_of(side, &opened, &wire.mask.row_from(first));
                        for (value, share) in row.iter_mut().zip(&share) {
                            *value = value.wrapping_add(*share);
                        }
                    }
                    for (value, mask) in row.iter_mut().zip(&mask) {
                        *value = value.wrapping_add(*mask) & low_bits(bits);
                    }
                    row
                },
            );
            row[filled(len, index)..].fill(0);
            pack(&row, bits, words);
        }
        wire_opening(ours, mask)
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for OpenIntegers {}
