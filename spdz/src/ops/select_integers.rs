//! A wire's values where another wire, which was compared, is not negative: modulo `2^l`, without a
//! lift to the ring.
//!
//! With `delta` a random bit, `d = [x >= 0]` and `e = d xor delta` opened as in
//! [`Select`](super::Select), `d v = e v + (1 - 2 e) delta v`, where `v = (v + sigma) - sigma` modulo
//! `2^l`: no wrap has to be undone. So all that the producer shares are `delta` and
//! `-delta sigma`.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use super::wire::{MaskSums, RowSum, share_of};
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, Packed, ROW, Row, lanes, low_bits, pack, unpack};
use crate::packed_opening::PackedOpening;
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// The values of a wire where those of another are not negative, else zero: private integers of
/// the first one's width. One exchange of a bit.
#[derive(Clone, Debug)]
pub struct SelectIntegers {
    /// The wire that decides.
    pub wire: MaskedId,
    /// What it was [compared](super::Compare) to.
    pub less: PrivateId,
    /// The wire whose values are selected; it may be the same.
    pub value: MaskedId,
    /// The result.
    pub output: PrivateId,
}

impl Operation for SelectIntegers {
    fn name(&self) -> &'static str {
        "select_integers"
    }

    fn reads(&self) -> Vec<TensorId> {
        let mut reads: Vec<TensorId> = vec![self.wire.into(), self.less.into()];
        if self.value != self.wire {
            reads.push(self.value.into());
        }
        reads
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.less))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::packed(table.len(self.output), 1, 2 * table.width(self.value) as usize)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { wire, less, value, output } = self;
        let (bits, len) = (table.width(*value), table.len(*output));
        write!(f, " {wire} {less} of {value} -> {output} bits {bits} len {len}")
    }
}

impl<R: BinaryRing> Execute<R> for SelectIntegers {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let (sign, bits) = (producer.width(self.wire), producer.width(self.value));
        let mut wires = MaskSums::of(producer, self.wire);
        let mut values = (self.value != self.wire).then(|| MaskSums::of(producer, self.value));
        let mut hidden = RowSum::new(producer.packed_masks(self.output.into()), 1);
        producer.share_packed(&mut |words| {
            let rho = wires.next_row();
            let delta = high_bits(&rho, sign) ^ hidden.bits()[0];
            let sigma = values.as_mut().map_or(rho, MaskSums::next_row);
            deal(bits, delta, &sigma, words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [hidden, shared] = correlation.into_packed();
        let (wire, less) = (values.wire(self.wire), values.bits(self.less));
        let (value, side) = (values.wire(self.value), values.side());
        let (len, bits) = (value.opened.len(), value.opened.bits() as u32);
        let ours = chosen(side, &wire.opened, less, &hidden);
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let mut out = Packed::zeros(len, bits as usize);
            let rows = value.opened.rows().zip(value.mask.rows()).zip(shared.rows());
            let chosen = ours.words().iter().zip(theirs.words());
            for (out, (((opened, mask), shared), (ours, theirs))) in
                out.rows_mut().zip(rows.zip(chosen))
            {
                let row = vectorized(
                    #[inline(always)]
                    || {
                        let (opened, mask) = (unpack(opened, bits), unpack(mask, bits));
                        let share = share_of(side, &opened, &mask);
                        select(bits, ours ^ theirs, &opened, &share, shared)
                    },
                );
                pack(&row, bits, out);
            }
            Made::Integers(out)
        }))
    }
}

/// The highest of the `bits` bits of a row's values.
pub(super) fn high_bits(row: &Row, bits: u32) -> u64 {
    vectorized(
        #[inline(always)]
        || {
            row.iter().enumerate().fold(0, |word, (index, value)| {
                word | (value.wrapping_shr(bits - 1) & 1).wrapping_shl(index as u32)
            })
        },
    )
}

/// This server's share of `[x >= 0] xor delta` for the values of a wire `x`: `less` is its share of
/// what the wire was compared to, `hidden` that of `delta xor mu`, where `mu` is the highest bit of
/// the wire's mask.
pub(super) fn chosen(side: Side, wire: &Packed, less: &Packed, hidden: &Packed) -> Packed {
    let (len, bits) = (wire.len(), wire.bits() as u32);
    let mut ours = Packed::zeros(len, 1);
    let rows = ours.words_mut().iter_mut().zip(wire.rows());
    let shares = less.words().iter().zip(hidden.words());
    for (index, ((word, opened), (less, hidden))) in rows.zip(shares).enumerate() {
        let not_high = match side {
            Side::Zero => !high_bits(&unpack(opened, bits), bits),
            Side::One => 0,
        };
        *word = (not_high ^ less ^ hidden) & lanes(len, index);
    }
    ours
}

/// A server's share of the selected values of a row, of which `share` is its own.
#[inline(always)]
fn select(bits: u32, chosen: u64, opened: &Row, share: &Row, shared: &[u64]) -> Row {
    let (delta, product) = shared.split_at(bits as usize);
    let (delta, product) = (unpack(delta, bits), unpack(product, bits));
    let mut out = [0; ROW];
    for (index, out) in out.iter_mut().enumerate() {
        let chosen = (chosen >> index & 1).wrapping_neg();
        let hidden = delta[index].wrapping_mul(opened[index]).wrapping_add(product[index]);
        // `share - hidden` if it is chosen, else `hidden`.
        let sum = (share[index] & chosen).wrapping_add((hidden ^ chosen).wrapping_sub(chosen));
        *out = sum & low_bits(bits);
    }
    out
}

/// What the producer sends of a row, in place of what one server expands: `delta` and
/// `-delta sigma`.
fn deal(bits: u32, delta: u64, sigma: &Row, words: &mut [u64]) {
    let (deltas, products) = words.split_at_mut(bits as usize);
    vectorized(
        #[inline(always)]
        || {
            let (mut row, mut product) = (unpack(deltas, bits), unpack(products, bits));
            for index in 0..ROW {
                let delta = delta.wrapping_shr(index as u32) & 1;
                row[index] = delta.wrapping_sub(row[index]) & low_bits(bits);
                let hidden = (sigma[index] & delta.wrapping_neg()).wrapping_neg();
                product[index] = hidden.wrapping_sub(product[index]) & low_bits(bits);
            }
            pack(&row, bits, deltas);
            pack(&product, bits, products);
        },
    );
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for SelectIntegers {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::tests::{compare, drawn, random};
    use crate::prg::KeyStream;

    /// A value, and the masks of both values of a pair, each from one side of the circle or the
    /// other.
    type Case = [u64; 4];

    /// `max(a, b)` of a row of wires under masks whose shares are drawn, on both servers.
    fn maximum(bits: u32, cases: &[Case], stream: &mut KeyStream) -> [u64; ROW] {
        let low = low_bits(bits);
        let (mut a, mut difference) = ([[0; ROW]; 3], [[0; ROW]; 3]);
        for (index, [x, y, rho, sigma]) in cases.iter().enumerate() {
            let parts = drawn(stream, 2);
            let b = [y + sigma, parts[1], sigma.wrapping_sub(parts[1])].map(|part| part & low);
            let shares = [x + rho, parts[0], rho.wrapping_sub(parts[0])].map(|part| part & low);
            for part in 0..3 {
                a[part][index] = shares[part];
                // Those of the second less the first: what the second has more.
                difference[part][index] = b[part].wrapping_sub(shares[part]) & low;
            }
        }
        let [opened, mask0, mask1] = &difference;
        let mut rho = *mask0;
        rho.iter_mut().zip(mask1).for_each(|(rho, other)| *rho += other);
        let less = compare(bits, opened, &rho, stream);
        let hidden = drawn(stream, 2);
        let delta = high_bits(&rho, bits) ^ hidden[0] ^ hidden[1];
        let expanded = drawn(stream, 2 * bits as usize);
        let mut sent = expanded.clone();
        deal(bits, delta, &rho, &mut sent);
        let chosen = !high_bits(opened, bits) ^ less[0] ^ less[1] ^ hidden[0] ^ hidden[1];
        let mut sum: Row = [0; ROW];
        for (side, mask, own, shared) in
            [(Side::Zero, mask0, &a[1], &expanded), (Side::One, mask1, &a[2], &sent)]
        {
            let more = select(bits, chosen, opened, &share_of(side, opened, mask), shared);
            let share = share_of(side, &a[0], own);
            for ((sum, more), share) in sum.iter_mut().zip(&more).zip(&share) {
                *sum = sum.wrapping_add(*more).wrapping_add(*share) & low;
            }
        }
        sum
    }

    /// Values are below `2^(bits - 2)`, so that their differences fit.
    fn check(bits: u32, cases: &[Case], stream: &mut KeyStream) {
        let signed = |x: u64| ((x << (64 - bits)) as i64) >> (64 - bits);
        for cases in cases.chunks(ROW) {
            let found = maximum(bits, cases, stream);
            for (case, found) in cases.iter().zip(&found) {
                let expected = signed(case[0]).max(signed(case[1]));
                assert_eq!(signed(*found), expected, "{bits} bits: {case:?}");
            }
        }
    }

    fn values(bits: u32) -> impl Iterator<Item = u64> + Clone {
        let end = 1i64 << (bits - 2);
        (-end..end).map(move |x| x as u64 & low_bits(bits))
    }

    #[test]
    fn the_larger_of_every_two_values_under_every_two_masks() {
        let mut stream = random(11);
        for bits in [3, 4, 5] {
            let masks = || 0..1u64 << bits;
            let masks = masks().flat_map(|rho| masks().map(move |sigma| (rho, sigma)));
            let cases: Vec<Case> = values(bits)
                .flat_map(|x| values(bits).map(move |y| (x, y)))
                .flat_map(|(x, y)| masks.clone().map(move |(rho, sigma)| [x, y, rho, sigma]))
                .collect();
            check(bits, &cases, &mut stream);
        }
    }

    #[test]
    fn the_larger_of_every_two_values_under_some_masks() {
        let mut stream = random(12);
        for bits in [6, 7, 8] {
            let pairs = values(bits).flat_map(|x| values(bits).map(move |y| (x, y)));
            let cases: Vec<Case> = pairs
                .flat_map(|(x, y)| {
                    let masks = drawn(&mut stream, 16);
                    (0..8).map(move |i| {
                        [x, y, masks[2 * i] & low_bits(bits), masks[2 * i + 1] & low_bits(bits)]
                    })
                })
                .collect();
            check(bits, &cases, &mut stream);
        }
    }

    #[test]
    fn the_larger_of_values_at_the_ends_of_their_range() {
        let mut stream = random(13);
        for bits in [20, 21, 23, 24, 31] {
            let (all, end) = (low_bits(bits), 1u64 << (bits - 2));
            let mut ends = vec![0, 1, all, end - 1, end - 2, all - end + 1, all - end + 2];
            ends.extend(
                drawn(&mut stream, 7).iter().map(|x| (x % (2 * end)).wrapping_sub(end) & all),
            );
            let mut masks = vec![0, 1, all, 1 << (bits - 1), (1 << (bits - 1)) - 1];
            masks.extend(drawn(&mut stream, 5).iter().map(|word| word & all));
            let mut cases = Vec::new();
            for x in &ends {
                for y in &ends {
                    for rho in &masks {
                        cases.extend(masks.iter().map(|sigma| [*x, *y, *rho, *sigma]));
                    }
                }
            }
            check(bits, &cases, &mut stream);
        }
    }
}
