//! A wire of values that are not negative, lifted to the ring without an exchange.
//!
//! With `mu` and `h` the highest bits of the mask `rho` and of the opened `x + rho`, the wire of a
//! value `0 <= x < 2^(l - 1)` wrapped around if and only if `mu` is set and `h` is not. So, over the
//! whole ring, `x = (x + rho) - rho_0 - rho_1 + k_h 2^l`, where `k_h` counts the carry of the mask's
//! shares and the wrap. The producer shares `k_0` and `k_1`, and the public `h` chooses.
//!
//! A value of either sign becomes one that is not negative by an offset, which the servers add
//! before the wire is opened ([`OpenNarrow`](super::OpenNarrow)) and take away here. Opening and
//! lifting is a truncation that does not fail.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use super::wire::MaskSums;
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::packed::{ROW, Row, low_bits, pack, unpack};
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// The private tensor of the ring that a wire of values below `2^(bits - 1)` stands for. Local.
#[derive(Clone, Debug)]
pub struct Lift {
    /// The wire.
    pub wire: MaskedId,
    /// What was added to its values when they were opened.
    pub offset: u64,
    /// The result, less the offset.
    pub output: PrivateId,
}

impl Operation for Lift {
    fn name(&self) -> &'static str {
        "lift"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.wire.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let upper = table.ring_bits() - table.width(self.wire);
        Randomness::packed(table.len(self.output), 0, 2 * upper as usize)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { wire, offset, output } = self;
        write!(f, " {wire} less {offset} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Lift {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let bits = producer.width(self.wire);
        let upper = producer.ring_bits() - bits;
        let mut wires = MaskSums::of(producer, self.wire);
        producer.share_packed(&mut |words| deal(bits, upper, &wires.next_row(), words))
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let [shared] = correlation.into_packed();
        let (wire, side) = (values.wire(self.wire), values.side());
        let (len, bits) = (wire.opened.len(), wire.opened.bits() as u32);
        let upper = values.ring_bits() - bits;
        let mut out = Buffer::<R::Word>::zeros(len);
        let mut row = [R::word(0); ROW];
        let rows = wire.opened.rows().zip(wire.mask.rows()).zip(shared.rows());
        for (out, ((opened, mask), shared)) in out.chunks_mut(ROW).zip(rows) {
            let (opened, mask) = (unpack(opened, bits), unpack(mask, bits));
            let (wrapped, carried) = shared.split_at(upper as usize);
            let counts = [unpack(wrapped, upper), unpack(carried, upper)];
            vectorized(
                #[inline(always)]
                || lift::<R>(side, bits, self.offset, &opened, &mask, &counts, &mut row),
            );
            out.copy_from_slice(&row[..out.len()]);
        }
        values.put(self.output, Share(out));
    }
}

/// A server's share of the values of a row.
#[inline(always)]
fn lift<R: BinaryRing>(
    side: Side,
    bits: u32,
    offset: u64,
    opened: &Row,
    mask: &Row,
    [wrapped, carried]: &[Row; 2],
    out: &mut [R::Word; ROW],
) {
    let (public, offset) = if side == Side::Zero { (u64::MAX, offset) } else { (0, 0) };
    for (index, out) in out.iter_mut().enumerate() {
        let opened = opened[index];
        // All ones where the highest bit is not set.
        let low = (opened >> (bits - 1) & 1).wrapping_sub(1);
        let count = (wrapped[index] & low) | (carried[index] & !low);
        let value = (opened & public).wrapping_sub(mask[index]).wrapping_add(count << bits);
        *out = R::word(value.wrapping_sub(offset));
    }
}

/// What the producer sends of a row, in place of what one server expands: `k_0` and `k_1`, in the
/// bits of the ring above the wire's. `sums` are those of the servers' masks.
fn deal(bits: u32, upper: u32, sums: &Row, words: &mut [u64]) {
    let (wrapped, carried) = words.split_at_mut(upper as usize);
    let mut counts = [unpack(wrapped, upper), unpack(carried, upper)];
    for (index, sum) in sums.iter().enumerate() {
        let carry = sum >> bits;
        let mu = sum >> (bits - 1) & 1;
        for (count, here) in counts.iter_mut().zip([carry + mu, carry]) {
            count[index] = here.wrapping_sub(count[index]) & low_bits(upper);
        }
    }
    pack(&counts[0], upper, wrapped);
    pack(&counts[1], upper, carried);
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Lift {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::tests::{drawn, random};
    use crate::ring::Int64;

    /// Checks pairs of a value of either sign, below `2^(bits - 2)`, and a mask.
    fn check(bits: u32, pairs: &[(i64, u64)], stream: &mut crate::prg::KeyStream) {
        let (upper, offset) = (64 - bits, 1 << (bits - 2));
        for pairs in pairs.chunks(ROW) {
            let (mut opened, mut sums, mut masks) = ([0; ROW], [0; ROW], [[0; ROW]; 2]);
            let parts = drawn(stream, ROW);
            for (index, (value, rho)) in pairs.iter().enumerate() {
                masks[0][index] = parts[index] & low_bits(bits);
                masks[1][index] = rho.wrapping_sub(parts[index]) & low_bits(bits);
                sums[index] = masks[0][index] + masks[1][index];
                let shifted = (*value as u64).wrapping_add(offset);
                opened[index] = shifted.wrapping_add(*rho) & low_bits(bits);
            }
            let expanded = drawn(stream, 2 * upper as usize);
            let mut sent = expanded.clone();
            deal(bits, upper, &sums, &mut sent);
            let mut out = [[0; ROW]; 2];
            for (side, server, words) in [(Side::Zero, 0, &expanded), (Side::One, 1, &sent)] {
                let (wrapped, carried) = words.split_at(upper as usize);
                let counts = [unpack(wrapped, upper), unpack(carried, upper)];
                let out = &mut out[server];
                lift::<Int64>(side, bits, offset, &opened, &masks[server], &counts, out);
            }
            for (index, (value, rho)) in pairs.iter().enumerate() {
                let found = out[0][index].wrapping_add(out[1][index]) as i64;
                assert_eq!(found, *value, "{bits} bits: {value} under {rho}");
            }
        }
    }

    #[test]
    fn every_value_is_lifted_under_every_mask() {
        let mut stream = random(5);
        for bits in 3..=8 {
            let end = 1i64 << (bits - 2);
            let pairs: Vec<(i64, u64)> =
                (-end..end).flat_map(|x| (0..1 << bits).map(move |rho| (x, rho))).collect();
            check(bits, &pairs, &mut stream);
        }
    }

    #[test]
    fn wide_values_are_lifted_at_the_ends_of_their_range() {
        let mut stream = random(6);
        for bits in [21, 24, 31] {
            let (end, all) = (1i64 << (bits - 2), low_bits(bits));
            let values = [-end, -end + 1, -1, 0, 1, end - 1];
            let mut masks = vec![0, 1, all, all / 2, all / 2 + 1];
            masks.extend(drawn(&mut stream, 59).iter().map(|word| word & all));
            let pairs: Vec<(i64, u64)> =
                values.iter().flat_map(|x| masks.iter().map(move |rho| (*x, *rho))).collect();
            check(bits, &pairs, &mut stream);
        }
    }
}
