//! Opening a private tensor in as many bits as its values have.
//!
//! Shares `y_0 + y_1 = y` modulo `2^n` are divided by `2^b` without interaction: `y_0 >> b` and
//! `-(-y_1 >> b)` share `floor(y / 2^b)` or one more modulo `2^(n - b)`, always. (SecureML's
//! truncation fails where its result is used in a larger ring; this one is not.) So their low `l`
//! bits share `x`, and the servers open `x + rho` modulo `2^l` under a random mask `rho`.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Randomness};
use super::values::Values;
use super::wire::wire_opening;
use crate::masked::Opening;
use crate::packed::{Packed, ROW, Row, low_bits, pack, unpack};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Divides a private tensor by `2^shift` and opens the quotient under a fresh mask, in the width
/// of its [`Domain::Integers`](crate::tensors::Domain::Integers): one exchange.
#[derive(Clone, Debug)]
pub struct OpenNarrow {
    /// The private tensor.
    pub input: PrivateId,
    /// By how many bits it is shifted to the right.
    pub shift: u32,
    /// What is added to the quotients, modulo `2^bits`.
    pub offset: u64,
    /// The opened quotient.
    pub output: MaskedId,
}

impl Operation for OpenNarrow {
    fn name(&self) -> &'static str {
        "open_narrow"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
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

    fn shift(&self) -> Option<u32> {
        (self.shift > 0).then_some(self.shift)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { input, shift, offset, output } = self;
        let (width, len) = (table.width(*output), table.len(*output));
        write!(f, " {input} shift {shift}")?;
        if *offset > 0 {
            write!(f, " plus {offset}")?;
        }
        write!(f, " -> {output} bits {width} len {len}")
    }
}

impl<R: BinaryRing> Execute<R> for OpenNarrow {
    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [mask] = correlation.into_packed();
        let (side, shift, bits) = (values.side(), self.shift, mask.bits() as u32);
        let offset = if side == Side::Zero { self.offset } else { 0 };
        let mut ours = Packed::zeros(mask.len(), mask.bits());
        let shares = values.get(self.input).0.chunks(ROW);
        for ((shares, mask), words) in shares.zip(mask.rows()).zip(ours.rows_mut()) {
            let mask = unpack(mask, bits);
            let row = vectorized(
                #[inline(always)]
                || {
                    let mut row: Row = [0; ROW];
                    let values = row.iter_mut().zip(shares).zip(&mask);
                    for ((value, &share), mask) in values {
                        let share: u64 = share.into();
                        let quotient = match side {
                            Side::Zero => share >> shift,
                            Side::One => {
                                let negative = share.wrapping_neg() & low_bits(R::BITS);
                                (negative >> shift).wrapping_neg()
                            }
                        };
                        let value_share = quotient.wrapping_add(offset);
                        *value = value_share.wrapping_add(*mask) & low_bits(bits);
                    }
                    row
                },
            );
            pack(&row, bits, words);
        }
        wire_opening(ours, mask)
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for OpenNarrow {}
