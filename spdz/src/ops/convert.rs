//! Private bits as private integers, of the ring or narrow.
//!
//! With a random bit `delta` of which the servers have shares by exclusive or and by addition, they
//! open `e = d xor delta`, and `d = e + (1 - 2 e) delta`. Where `d = [x >= 0]` of a wire, they draw
//! their shares of `delta xor mu` instead, as in [`Select`](super::Select).

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::select_integers::{chosen, high_bits};
use super::values::Values;
use super::wire::{MaskSums, RowSum};
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, Packed, ROW, Row, lanes, low_bits, pack, unpack};
use crate::packed_opening::PackedOpening;
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::share::Share;
use crate::tensors::{Domain, MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Private bits, or whether the values of a wire are not negative, as private integers: one
/// exchange of a bit.
#[derive(Clone, Debug)]
pub struct Convert {
    /// The wire whose values decide, if the bits are what it was [compared](super::Compare) to.
    pub wire: Option<MaskedId>,
    /// The bits.
    pub bits: PrivateId,
    /// The same as integers of its domain.
    pub output: PrivateId,
}

impl Operation for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn reads(&self) -> Vec<TensorId> {
        let wire = self.wire.map(TensorId::from);
        wire.into_iter().chain([self.bits.into()]).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.bits))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::packed(table.len(self.output), 1, table.width(self.output) as usize)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        if let Some(wire) = self.wire {
            write!(f, " {wire}")?;
        }
        let (bits, len) = (table.width(self.output), table.len(self.output));
        write!(f, " {} -> {} bits {bits} len {len}", self.bits, self.output)
    }
}

impl<R: BinaryRing> Execute<R> for Convert {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let mut wires = self.wire.map(|wire| (MaskSums::of(producer, wire), producer.width(wire)));
        let mut hidden = RowSum::new(producer.packed_masks(self.output.into()), 1);
        producer.share_packed(&mut |words| {
            let mu = wires.as_mut().map_or(0, |(sums, bits)| high_bits(&sums.next_row(), *bits));
            deal(mu ^ hidden.bits()[0], words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [hidden, shared] = correlation.into_packed();
        let (bits, side) = (values.bits(self.bits), values.side());
        let in_ring = values.domain(self.output) == Domain::Ring;
        let ours = match self.wire {
            Some(wire) => chosen(side, &values.wire(wire).opened, bits, &hidden),
            None => masked(bits, &hidden),
        };
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let (len, width) = (shared.len(), shared.bits() as u32);
            let opened = ours.words().iter().zip(theirs.words()).map(|(x, y)| x ^ y);
            let rows = opened.zip(shared.rows()).map(|(opened, shared)| {
                vectorized(
                    #[inline(always)]
                    || convert(side, opened, &unpack(shared, width), width),
                )
            });
            if in_ring {
                let mut out = Buffer::<R::Word>::zeros(len);
                for (out, row) in out.chunks_mut(ROW).zip(rows) {
                    out.iter_mut().zip(&row).for_each(|(out, value)| *out = R::word(*value));
                }
                return Made::Private(Share(out));
            }
            let mut out = Packed::zeros(len, width as usize);
            out.rows_mut().zip(rows).for_each(|(out, row)| pack(&row, width, out));
            Made::Integers(out)
        }))
    }
}

/// This server's share of bits under bits; nothing where there is no value.
fn masked(bits: &Packed, hidden: &Packed) -> Packed {
    let len = bits.len();
    let mut ours = Packed::zeros(len, 1);
    let words = bits.words().iter().zip(hidden.words());
    for (index, (word, (bits, hidden))) in ours.words_mut().iter_mut().zip(words).enumerate() {
        *word = (bits ^ hidden) & lanes(len, index);
    }
    ours
}

/// A server's share of a row of bits as integers.
#[inline(always)]
fn convert(side: Side, opened: u64, delta: &Row, width: u32) -> Row {
    let public = if side == Side::Zero { opened } else { 0 };
    let mut out = [0; ROW];
    for (index, (out, delta)) in out.iter_mut().zip(delta).enumerate() {
        let turned = (opened >> index & 1).wrapping_neg();
        let share = (delta ^ turned).wrapping_sub(turned);
        *out = share.wrapping_add(public >> index & 1) & low_bits(width);
    }
    out
}

/// What the producer sends of a row, in place of what one server expands: `delta`.
fn deal(delta: u64, words: &mut [u64]) {
    let width = words.len() as u32;
    let mut row = unpack(words, width);
    for (index, value) in row.iter_mut().enumerate() {
        *value = (delta.wrapping_shr(index as u32) & 1).wrapping_sub(*value) & low_bits(width);
    }
    pack(&row, width, words);
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Convert {}
