//! ReLU of a wire that was compared: the value where it is not negative, lifted to the ring.
//!
//! With `mu` and `h` the highest bits of the mask `rho` and of the opened `x + rho`, the wire of a
//! value `0 <= x < 2^(l - 1)` wrapped around if and only if `mu` is set and `h` is not. So, over
//! the whole ring, `x = (x + rho) + R_h` with `R_h = -rho + (1 - h) mu 2^l`, and the producer
//! prepares both. Its bit `d = [x >= 0]` is opened under a random bit `delta`; with `e = d xor delta`
//!
//! `d x = e ((x + rho) + R_h) + (1 - 2 e) (delta (x + rho) + delta R_h)`.
//!
//! Both servers have their shares of `rho` modulo `2^l` and draw those of `delta xor mu`. What they
//! need of `rho` in the ring is less than `2^l` or a multiple of it: `R_h = -rho_0 - rho_1 + k_h 2^l`,
//! where `k_h` counts the carry of the shares and the wrap.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::select_integers::chosen;
use super::values::Values;
use super::wire::{MaskSums, RowSum};
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, ROW, Row, low_bits, pack, unpack, unpack_into};
use crate::packed_opening::PackedOpening;
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::share::Share;
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// `max(0, x)` of a wire `x`, as a private tensor of the ring: one exchange of a bit.
#[derive(Clone, Debug)]
pub struct Select {
    /// The wire.
    pub wire: MaskedId,
    /// What it was [compared](super::Compare) to.
    pub less: PrivateId,
    /// The result.
    pub output: PrivateId,
}

/// What the producer shares of a value, in the order of its bits.
#[derive(Clone, Copy)]
struct Parts {
    /// Bits of the ring that count.
    ring: u32,
    /// Bits of the ring above the wire's.
    upper: u32,
}

impl Parts {
    fn new(ring: u32, wire: u32) -> Self {
        Self { ring, upper: ring - wire }
    }

    /// `delta` and `-delta rho` in the ring; `k_0`, `k_1` and `delta mu` above the wire.
    fn widths(self) -> [u32; 5] {
        [self.ring, self.ring, self.upper, self.upper, self.upper]
    }

    /// Bits of all.
    fn sum(self) -> usize {
        self.widths().iter().sum::<u32>() as usize
    }

    /// Writes a row of each.
    fn unpack(self, mut words: &[u64], rows: &mut [Row; 5]) {
        for (row, bits) in rows.iter_mut().zip(self.widths()) {
            let (part, rest) = words.split_at(bits as usize);
            words = rest;
            unpack_into(part, bits, row);
        }
    }
}

impl Operation for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.wire.into(), self.less.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.less))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let parts = Parts::new(table.ring_bits(), table.width(self.wire));
        Randomness::packed(table.len(self.output), 1, parts.sum())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { wire, less, output } = self;
        write!(f, " {wire} {less} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Select {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let bits = producer.width(self.wire);
        let parts = Parts::new(producer.ring_bits(), bits);
        let mut wires = MaskSums::of(producer, self.wire);
        let mut hidden = RowSum::new(producer.packed_masks(self.output.into()), 1);
        producer.share_packed(&mut |words| {
            let (sums, hidden) = (wires.next_row(), hidden.bits()[0]);
            deal(parts, &sums, hidden, words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [hidden, shared] = correlation.into_packed();
        let (wire, less, side) = (values.wire(self.wire), values.bits(self.less), values.side());
        let (len, bits) = (wire.opened.len(), wire.opened.bits() as u32);
        let parts = Parts::new(values.ring_bits(), bits);
        let ours = chosen(side, &wire.opened, less, &hidden);
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let mut out = Buffer::<R::Word>::zeros(len);
            let (mut numbers, mut row) = ([[0; ROW]; 5], [R::word(0); ROW]);
            let rows = wire.opened.rows().zip(wire.mask.rows()).zip(shared.rows());
            let chosen = ours.words().iter().zip(theirs.words());
            for (out, (((opened, mask), shared), (ours, theirs))) in
                out.chunks_mut(ROW).zip(rows.zip(chosen))
            {
                let (opened, mask) = (unpack(opened, bits), unpack(mask, bits));
                parts.unpack(shared, &mut numbers);
                let chosen = ours ^ theirs;
                vectorized(
                    #[inline(always)]
                    || select::<R>(side, bits, chosen, &opened, &mask, &numbers, &mut row),
                );
                out.copy_from_slice(&row[..out.len()]);
            }
            Made::Private(Share(out))
        }))
    }
}

/// A server's share of the selected values of a row.
#[inline(always)]
fn select<R: BinaryRing>(
    side: Side,
    bits: u32,
    chosen: u64,
    opened: &Row,
    mask: &Row,
    [delta, product, wrapped, carried, delta_mu]: &[Row; 5],
    out: &mut [R::Word; ROW],
) {
    let public = if side == Side::Zero { u64::MAX } else { 0 };
    for (index, out) in out.iter_mut().enumerate() {
        let opened = opened[index];
        // All ones where the highest bit is not set, and where the difference is chosen.
        let low = (opened >> (bits - 1) & 1).wrapping_sub(1);
        let chosen = (chosen >> index & 1).wrapping_neg();
        let carries = (wrapped[index] & low) | (carried[index] & !low);
        let value = (opened & public).wrapping_sub(mask[index]).wrapping_add(carries << bits);
        let hidden = delta[index]
            .wrapping_mul(opened)
            .wrapping_add(product[index])
            .wrapping_add((delta_mu[index] & low) << bits);
        // `value - hidden` if it is chosen, else `hidden`.
        let sum = (value & chosen).wrapping_add((hidden ^ chosen).wrapping_sub(chosen));
        *out = R::word(sum);
    }
}

/// What the producer sends of a row, in place of what one server expands. `sums` are those of the
/// servers' masks, `hidden` is `delta xor mu`.
fn deal(parts: Parts, sums: &Row, hidden: u64, words: &mut [u64]) {
    let bits = parts.ring - parts.upper;
    let mut numbers = [[0; ROW]; 5];
    vectorized(
        #[inline(always)]
        || {
            let [deltas, products, wrapped, carried, delta_mus] = &mut numbers;
            for (index, sum) in sums.iter().enumerate() {
                let (rho, carry) = (sum & low_bits(bits), sum.wrapping_shr(bits));
                let mu = rho.wrapping_shr(bits - 1);
                let delta = mu ^ (hidden.wrapping_shr(index as u32) & 1);
                deltas[index] = delta;
                // A product with a bit.
                products[index] = (rho & delta.wrapping_neg()).wrapping_neg();
                wrapped[index] = carry.wrapping_add(mu);
                carried[index] = carry;
                delta_mus[index] = delta & mu;
            }
        },
    );
    let (mut words, mut expanded) = (words, [0; ROW]);
    for (number, width) in numbers.iter_mut().zip(parts.widths()) {
        let (part, rest) = words.split_at_mut(width as usize);
        words = rest;
        unpack_into(part, width, &mut expanded);
        for (number, expanded) in number.iter_mut().zip(&expanded) {
            *number = number.wrapping_sub(*expanded) & low_bits(width);
        }
        pack(number, width, part);
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Select {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::tests::{compare, drawn, random};
    use crate::ops::select_integers::high_bits;
    use crate::prg::KeyStream;
    use crate::ring::{Int32, Int64, Plane};

    /// `max(0, x)` of a row of values under masks whose shares are given, on both servers.
    fn relu<R: BinaryRing>(
        bits: u32,
        x: &Row,
        shares: &[Row; 2],
        stream: &mut KeyStream,
    ) -> [u64; ROW] {
        let mut sums = [0; ROW];
        let mut opened = [0; ROW];
        for index in 0..ROW {
            sums[index] = shares[0][index] + shares[1][index];
            opened[index] = x[index].wrapping_add(sums[index]) & low_bits(bits);
        }
        let less = compare(bits, &opened, &sums, stream);
        let hidden = drawn(stream, 2);
        let parts = Parts::new(R::BITS, bits);
        let expanded = drawn(stream, parts.sum());
        let mut sent = expanded.clone();
        deal(parts, &sums, hidden[0] ^ hidden[1], &mut sent);
        let chosen = !high_bits(&opened, bits) ^ less[0] ^ less[1] ^ hidden[0] ^ hidden[1];
        let mut out = [[R::word(0); ROW]; 2];
        for (side, server, words) in [(Side::Zero, 0, &expanded), (Side::One, 1, &sent)] {
            let (mask, mut shared) = (&shares[server], [[0; ROW]; 5]);
            parts.unpack(words, &mut shared);
            select::<R>(side, bits, chosen, &opened, mask, &shared, &mut out[server]);
        }
        let [share0, share1] = out;
        std::array::from_fn(|index| R::plane(0).add(share0[index], share1[index]).into())
    }

    /// Checks all pairs of a value, modulo `2^bits`, and a mask.
    fn check(bits: u32, pairs: &[(u64, u64)], stream: &mut KeyStream) {
        for pairs in pairs.chunks(ROW) {
            let (mut x, mut shares) = ([0; ROW], [[0; ROW]; 2]);
            let parts = drawn(stream, ROW);
            for (index, (value, rho)) in pairs.iter().enumerate() {
                let part = parts[index] & low_bits(bits);
                x[index] = *value;
                shares[0][index] = part;
                shares[1][index] = rho.wrapping_sub(part) & low_bits(bits);
            }
            let found = [relu::<Int64>, relu::<Int32>].map(|relu| relu(bits, &x, &shares, stream));
            for (index, (value, rho)) in pairs.iter().enumerate() {
                let negative = value >> (bits - 1) & 1 == 1;
                let expected = if negative { 0 } else { *value };
                let found = found.each_ref().map(|found| found[index]);
                assert_eq!(found, [expected; 2], "{bits} bits: {value} under {rho}");
            }
        }
    }

    #[test]
    fn every_value_is_selected_under_every_mask() {
        let mut stream = random(3);
        for bits in crate::ops::NARROWEST..=8 {
            let pairs: Vec<(u64, u64)> =
                (0..1 << bits).flat_map(|x| (0..1 << bits).map(move |r| (x, r))).collect();
            check(bits, &pairs, &mut stream);
        }
    }

    #[test]
    fn wide_values_are_selected_at_the_ends_of_their_range() {
        let mut stream = random(4);
        for bits in [20, 23, 30] {
            let (all, half) = (low_bits(bits), 1 << (bits - 1));
            let mut ends = vec![0, 1, all, half, half - 1, half + 1, half / 2, 3 * half / 2];
            ends.extend(drawn(&mut stream, 56).iter().map(|word| word & all));
            let pairs: Vec<(u64, u64)> =
                ends.iter().flat_map(|x| ends.iter().map(move |r| (*x, *r))).collect();
            check(bits, &pairs, &mut stream);
        }
    }
}
