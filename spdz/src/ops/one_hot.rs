//! Whether a wire's values are equal to public numbers: a look-up without a message.
//!
//! The producer shares, by exclusive or, a word of `2^l` bits for each value, of which only the bit
//! whose number is the mask `rho` is set. `x = i` if and only if `rho = (x + rho) - i` modulo `2^l`;
//! so the bit at that place, which is public, is a share of the answer.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use super::wire::MaskSums;
use crate::channel::ChannelError;
use crate::masked::Made;
use crate::packed::{Packed, Packing, ROW, Row, filled, low_bits, unpack};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// Whether each of a wire's values is `first`, then whether it is the next number, and so on:
/// private bits. Local.
#[derive(Clone, Debug)]
pub struct OneHot {
    /// The wire.
    pub wire: MaskedId,
    /// The first number.
    pub first: u64,
    /// How many numbers there are.
    pub count: usize,
    /// The bits, number by number.
    pub output: PrivateId,
}

/// Words of a value's table, and values that have one in a word.
fn sizes(bits: u32) -> (usize, usize) {
    let word = u64::BITS.ilog2();
    (1 << bits.saturating_sub(word), 1 << word.saturating_sub(bits))
}

impl OneHot {
    fn of(&self, opened: &Packed, tables: &Packed) -> Packed {
        let (len, bits) = (opened.len(), opened.bits() as u32);
        let mut found = Packing::new(self.count * len, 1);
        for number in (self.first..).take(self.count) {
            for (index, (opened, tables)) in opened.rows().zip(tables.rows()).enumerate() {
                let row = look_up(&unpack(opened, bits), bits, number, tables);
                found.extend(&row[..filled(len, index)]);
            }
        }
        found.finish()
    }
}

/// The bits at the places that a row of opened values has above `number`.
fn look_up(opened: &Row, bits: u32, number: u64, tables: &[u64]) -> Row {
    let (words, in_word) = sizes(bits);
    let (mut row, mut shifts): (Row, Row) = ([0; ROW], [0; ROW]);
    for (index, opened) in opened.iter().enumerate() {
        let place = opened.wrapping_sub(number) & low_bits(bits);
        // The place is public, and yet only longer tables are addressed by it: so memcheck, to
        // which all that is made of masks is secret, has nothing to say of the others.
        let within = if words > 1 { (place / 64) as usize } else { 0 };
        row[index] = tables[index / in_word * words + within];
        // Of the value's table, which begins within a word if several have one.
        shifts[index] = (((index % in_word) << bits.min(6)) as u64) | (place % 64);
    }
    vectorized(
        #[inline(always)]
        || {
            for (found, shift) in row.iter_mut().zip(&shifts) {
                *found = found.wrapping_shr(*shift as u32) & 1;
            }
        },
    );
    row
}

/// Adds the bits that are set to what one server expands. Every word is visited, whatever the
/// masks are.
fn deal(rho: &Row, bits: u32, tables: &mut [u64]) {
    let (words, in_word) = sizes(bits);
    for (index, rho) in rho.iter().enumerate() {
        let place = rho & low_bits(bits);
        let shift = ((index % in_word) << bits.min(6)) as u32;
        let bit = 1u64.wrapping_shl(shift | (place % 64) as u32);
        let table = &mut tables[index / in_word * words..][..words];
        for (number, word) in table.iter_mut().enumerate() {
            // All ones at the word that has the place.
            let other = (place / 64) ^ number as u64;
            let here = (other.wrapping_sub(1) & !other).wrapping_shr(63).wrapping_neg();
            *word ^= bit & here;
        }
    }
}

impl Operation for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.wire.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::packed(table.len(self.wire), 0, 1 << table.width(self.wire))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { wire, first, count, output } = self;
        write!(f, " {wire} from {first} count {count} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for OneHot {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let bits = producer.width(self.wire);
        let mut wires = MaskSums::of(producer, self.wire);
        producer.share_packed(&mut |tables| deal(&wires.next_row(), bits, tables))
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let [tables] = correlation.into_packed();
        let found = self.of(&values.wire(self.wire).opened, &tables);
        values.put_made(self.output.into(), Made::Bits(found));
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for OneHot {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::tests::{drawn, random};

    #[test]
    fn every_value_is_found_under_every_mask_and_nothing_else() {
        let mut stream = random(21);
        for bits in 1..=8u32 {
            let all = || 0..1u64 << bits;
            let pairs: Vec<(u64, u64)> =
                all().flat_map(|x| all().map(move |rho| (x, rho))).collect();
            for pairs in pairs.chunks(ROW) {
                let (mut opened, mut rho) = ([0; ROW], [0; ROW]);
                for (index, (x, mask)) in pairs.iter().enumerate() {
                    // The sum of two shares, with their carry.
                    rho[index] = mask | (index as u64 % 2) << bits;
                    opened[index] = (x + mask) & low_bits(bits);
                }
                let expanded = drawn(&mut stream, 1 << bits);
                let mut sent = expanded.clone();
                deal(&rho, bits, &mut sent);
                for number in all() {
                    let [one, other] =
                        [&expanded, &sent].map(|tables| look_up(&opened, bits, number, tables));
                    for (index, (x, _)) in pairs.iter().enumerate() {
                        let found = one[index] ^ other[index];
                        assert_eq!(found, u64::from(*x == number), "{bits} bits: {x} {number}");
                    }
                }
            }
        }
    }
}
