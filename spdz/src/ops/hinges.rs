//! Piecewise linear functions of a wire that was compared with the places where their slopes
//! change, lifted to the ring.
//!
//! `f(x) = a x + b + sum_k s_k max(0, x - t_k)`, with public numbers. Each term is the selection that
//! [`Select`](super::Select) makes of the wire `x - t_k`, which is opened when `x` is, under the same mask
//! `rho`. So of what the producer shares to lift a value, `R_h = -rho + (1 - h) mu 2^l`, all terms
//! use the same; for each there is a bit `delta_k` of its own, with `delta_k rho` and `delta_k mu`:
//! `d_k = [x >= t_k]` is opened under it. All of them take one exchange.
//!
//! The line `a x` is lifted with the same `R_h`, as `x` plus half of what a wire holds, which is not
//! negative.

use std::fmt;

use super::compare_thresholds::less;
use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::select_integers::high_bits;
use super::values::Values;
use super::wire::{MaskSums, RowSum};
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, Packed, ROW, Row, lanes, low_bits, pack, unpack, unpack_into};
use crate::packed_opening::PackedOpening;
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::share::Share;
use crate::tensors::{Encoding, MaskedId, Message, PrivateId, Route, Table, TensorId};

/// A hinge: what is added from a threshold on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hinge {
    /// The threshold `t`.
    pub threshold: i64,
    /// The factor `s` of `max(0, x - t)`.
    pub change: i64,
}

/// `slope * x + constant` and hinges of a wire `x`, as a private tensor of the ring: one exchange of
/// a bit for each hinge.
#[derive(Clone, Debug)]
pub struct Hinges {
    /// The wire. Values are below `2^(bits - 2)` in magnitude, and thresholds not beyond.
    pub wire: MaskedId,
    /// What it was [compared](super::CompareThresholds) to, for each hinge.
    pub less: PrivateId,
    /// The factor of `x`.
    pub slope: i64,
    /// What is added, modulo `2^64`.
    pub constant: i64,
    /// One hinge or more.
    pub hinges: Vec<Hinge>,
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

    /// Bits of the wire.
    fn wire(self) -> u32 {
        self.ring - self.upper
    }

    /// For all hinges `k_0` and `k_1` above the wire.
    fn lift(self) -> [u32; 2] {
        [self.upper; 2]
    }

    /// For each hinge `delta` and `-delta rho` in the ring, `delta mu` above the wire.
    fn of_hinge(self) -> [u32; 3] {
        [self.ring, self.ring, self.upper]
    }

    /// Bits for so many hinges.
    fn sum(self, hinges: usize) -> usize {
        let sum = |widths: &[u32]| widths.iter().sum::<u32>() as usize;
        sum(&self.lift()) + hinges * sum(&self.of_hinge())
    }

    /// The words of a row, of the lift and then of each hinge.
    fn split(self, words: &[u64]) -> (&[u64], impl Iterator<Item = &[u64]>) {
        let (lift, hinges) = words.split_at(self.lift().iter().sum::<u32>() as usize);
        (lift, hinges.chunks(self.of_hinge().iter().sum::<u32>() as usize))
    }
}

/// Writes a row for each of the widths.
fn unpack_all<const N: usize>(widths: [u32; N], mut words: &[u64], rows: &mut [Row; N]) {
    for (row, bits) in rows.iter_mut().zip(widths) {
        let (part, rest) = words.split_at(bits as usize);
        words = rest;
        unpack_into(part, bits, row);
    }
}

/// Puts what is left of the rows' numbers in place of what one server expands.
fn pack_differences<const N: usize>(widths: [u32; N], rows: &mut [Row; N], mut words: &mut [u64]) {
    let mut expanded = [0; ROW];
    for (row, width) in rows.iter_mut().zip(widths) {
        let (part, rest) = words.split_at_mut(width as usize);
        words = rest;
        unpack_into(part, width, &mut expanded);
        for (number, expanded) in row.iter_mut().zip(&expanded) {
            *number = number.wrapping_sub(*expanded) & low_bits(width);
        }
        pack(row, width, part);
    }
}

impl Operation for Hinges {
    fn name(&self) -> &'static str {
        "hinges"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.wire.into(), self.less.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        let encoding = Encoding::packed(self.hinges.len());
        Some(Message { route: Route::Exchange, elements: table.len(self.output), encoding })
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let parts = Parts::new(table.ring_bits(), table.width(self.wire));
        let count = self.hinges.len();
        Randomness::packed(table.len(self.output), count, parts.sum(count))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { wire, less, slope, constant, hinges, output } = self;
        write!(f, " {wire} {less} slope {slope} plus {constant} at")?;
        for Hinge { threshold, change } in hinges {
            write!(f, " {threshold}*{change}")?;
        }
        write!(f, " -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Hinges {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let parts = Parts::new(producer.ring_bits(), producer.width(self.wire));
        let mut wires = MaskSums::of(producer, self.wire);
        let streams = producer.packed_masks(self.output.into());
        let mut hidden = RowSum::new(streams, self.hinges.len());
        producer.share_packed(&mut |words| {
            let sums = wires.next_row();
            deal(parts, &sums, hidden.bits(), words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [hidden, shared] = correlation.into_packed();
        let (wire, compared) = (values.wire(self.wire), values.integers(self.less));
        let (len, bits, side) = (wire.opened.len(), wire.opened.bits() as u32, values.side());
        let parts = Parts::new(values.ring_bits(), bits);
        let mut ours = Packed::zeros(len, self.hinges.len());
        let rows = wire.opened.rows().zip(compared.rows()).zip(hidden.rows());
        for (index, (words, ((opened, compared), hidden))) in ours.rows_mut().zip(rows).enumerate()
        {
            let opened = unpack(opened, bits);
            let bits_of = compared.iter().zip(hidden).zip(&self.hinges);
            for (word, ((compared, hidden), hinge)) in words.iter_mut().zip(bits_of) {
                let chosen =
                    chosen(side, &less(&opened, hinge.threshold), bits, *compared, *hidden);
                *word = chosen & lanes(len, index);
            }
        }
        let function = self.clone();
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let mut out = Buffer::<R::Word>::zeros(len);
            let rows = wire.opened.rows().zip(wire.mask.rows()).zip(shared.rows());
            let messages = ours.rows().zip(theirs.rows());
            for (out, (((opened, mask), shared), (ours, theirs))) in
                out.chunks_mut(ROW).zip(rows.zip(messages))
            {
                let (opened, mask) = (unpack(opened, bits), unpack(mask, bits));
                let chosen = ours.iter().zip(theirs).map(|(ours, theirs)| ours ^ theirs);
                let row = function.of_row(side, parts, &opened, &mask, chosen, shared);
                out.iter_mut().zip(&row).for_each(|(out, value)| *out = R::word(*value));
            }
            Made::Private(Share(out))
        }))
    }
}

/// This server's share of `[x >= 0] xor delta` for the opened values of a row, as in
/// [`Select`](super::Select).
fn chosen(side: Side, opened: &Row, bits: u32, less: u64, hidden: u64) -> u64 {
    let not_high = match side {
        Side::Zero => !high_bits(opened, bits),
        Side::One => 0,
    };
    not_high ^ less ^ hidden
}

impl Hinges {
    /// A server's share of the values of a row, modulo `2^64`. `chosen` are the opened bits of each
    /// hinge.
    fn of_row(
        &self,
        side: Side,
        parts: Parts,
        opened: &Row,
        mask: &Row,
        chosen: impl Iterator<Item = u64>,
        shared: &[u64],
    ) -> Row {
        let (lift, hinges) = parts.split(shared);
        let mut wire = WireRow {
            public: if side == Side::Zero { u64::MAX } else { 0 },
            bits: parts.wire(),
            opened,
            mask,
            counts: [[0; ROW]; 2],
        };
        unpack_all(parts.lift(), lift, &mut wire.counts);
        let mut sum = [self.constant as u64 & wire.public; ROW];
        if self.slope != 0 {
            vectorized(
                #[inline(always)]
                || wire.add_line(self.slope as u64, &mut sum),
            );
        }
        let mut numbers = [[0; ROW]; 3];
        for ((hinge, chosen), words) in self.hinges.iter().zip(chosen).zip(hinges) {
            unpack_all(parts.of_hinge(), words, &mut numbers);
            vectorized(
                #[inline(always)]
                || wire.add_hinge(*hinge, chosen, &numbers, &mut sum),
            );
        }
        sum
    }
}

/// What a server knows of a row of a wire.
struct WireRow<'a> {
    /// All ones at the server that adds what is public.
    public: u64,
    bits: u32,
    opened: &'a Row,
    mask: &'a Row,
    /// Its shares of `k_0` and `k_1`.
    counts: [Row; 2],
}

impl WireRow<'_> {
    /// This server's share of a value of the wire that is not negative with a number added, and what
    /// is opened of it. The last is all ones where the highest bit is not set.
    #[inline(always)]
    fn lifted(&self, index: usize, added: u64) -> (u64, u64, u64) {
        let opened = self.opened[index].wrapping_add(added) & low_bits(self.bits);
        let low = (opened >> (self.bits - 1) & 1).wrapping_sub(1);
        let [wrapped, carried] = &self.counts;
        let count = (wrapped[index] & low) | (carried[index] & !low);
        let value =
            (opened & self.public).wrapping_sub(self.mask[index]).wrapping_add(count << self.bits);
        (value, opened, low)
    }

    /// Adds this server's share of `slope * x`.
    #[inline(always)]
    fn add_line(&self, slope: u64, sum: &mut Row) {
        let offset = 1 << (self.bits - 2);
        for (index, sum) in sum.iter_mut().enumerate() {
            let (value, ..) = self.lifted(index, offset);
            let value = value.wrapping_sub(offset & self.public);
            *sum = sum.wrapping_add(slope.wrapping_mul(value));
        }
    }

    /// Adds this server's share of a hinge.
    #[inline(always)]
    fn add_hinge(
        &self,
        Hinge { threshold, change }: Hinge,
        chosen: u64,
        [delta, product, delta_mu]: &[Row; 3],
        sum: &mut Row,
    ) {
        for (index, sum) in sum.iter_mut().enumerate() {
            let (value, opened, low) = self.lifted(index, (threshold as u64).wrapping_neg());
            let chosen = (chosen >> index & 1).wrapping_neg();
            let hidden = delta[index]
                .wrapping_mul(opened)
                .wrapping_add(product[index])
                .wrapping_add((delta_mu[index] & low) << self.bits);
            // `value - hidden` if it is chosen, else `hidden`.
            let selected = (value & chosen).wrapping_add((hidden ^ chosen).wrapping_sub(chosen));
            *sum = sum.wrapping_add((change as u64).wrapping_mul(selected));
        }
    }
}

/// What the producer sends of a row, in place of what one server expands. `sums` are those of the
/// servers' masks, `hidden` has `delta xor mu` of each hinge.
fn deal(parts: Parts, sums: &Row, hidden: &[u64], words: &mut [u64]) {
    let bits = parts.wire();
    let (lift, hinges) = words.split_at_mut(parts.lift().iter().sum::<u32>() as usize);
    let mut counts = [[0; ROW]; 2];
    for (index, sum) in sums.iter().enumerate() {
        let carry = sum.wrapping_shr(bits);
        let mu = sum.wrapping_shr(bits - 1) & 1;
        (counts[0][index], counts[1][index]) = (carry.wrapping_add(mu), carry);
    }
    pack_differences(parts.lift(), &mut counts, lift);
    let each = parts.of_hinge().iter().sum::<u32>() as usize;
    let mut numbers = [[0; ROW]; 3];
    for (hidden, words) in hidden.iter().zip(hinges.chunks_mut(each)) {
        vectorized(
            #[inline(always)]
            || {
                let [deltas, products, delta_mus] = &mut numbers;
                for (index, sum) in sums.iter().enumerate() {
                    let rho = sum & low_bits(bits);
                    let mu = rho.wrapping_shr(bits - 1);
                    let delta = mu ^ (hidden.wrapping_shr(index as u32) & 1);
                    deltas[index] = delta;
                    // A product with a bit.
                    products[index] = (rho & delta.wrapping_neg()).wrapping_neg();
                    delta_mus[index] = delta & mu;
                }
            },
        );
        pack_differences(parts.of_hinge(), &mut numbers, words);
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Hinges {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::tests::{drawn, random};
    use crate::ops::compare_thresholds::tests::compare;
    use crate::prg::KeyStream;

    fn function(slope: i64, constant: i64, hinges: &[(i64, i64)]) -> Hinges {
        let hinges = hinges.iter().map(|&(threshold, change)| Hinge { threshold, change });
        let (wire, less, output) = (MaskedId(0), PrivateId(0), PrivateId(1));
        Hinges { wire, less, slope, constant, hinges: hinges.collect(), output }
    }

    /// The function of a row of values under masks whose shares are given, on both servers, modulo
    /// `2^ring`.
    fn of(
        function: &Hinges,
        [ring, bits]: [u32; 2],
        x: &Row,
        shares: &[Row; 2],
        stream: &mut KeyStream,
    ) -> Row {
        let (mut sums, mut opened) = ([0; ROW], [0; ROW]);
        for index in 0..ROW {
            sums[index] = shares[0][index] + shares[1][index];
            opened[index] = x[index].wrapping_add(sums[index]) & low_bits(bits);
        }
        let thresholds: Vec<i64> = function.hinges.iter().map(|hinge| hinge.threshold).collect();
        let compared = compare(bits, &thresholds, &opened, &sums, stream);
        let count = thresholds.len();
        let hidden = [(); 2].map(|()| drawn(stream, count));
        let both: Vec<u64> = hidden[0].iter().zip(&hidden[1]).map(|(x, y)| x ^ y).collect();
        let parts = Parts::new(ring, bits);
        let expanded = drawn(stream, parts.sum(count));
        let mut sent = expanded.clone();
        deal(parts, &sums, &both, &mut sent);
        let mut opened_bits = vec![0; count];
        for (server, side) in [Side::Zero, Side::One].into_iter().enumerate() {
            for (number, word) in opened_bits.iter_mut().enumerate() {
                let opened = less(&opened, thresholds[number]);
                let (compared, hidden) = (compared[server][number], hidden[server][number]);
                *word ^= chosen(side, &opened, bits, compared, hidden);
            }
        }
        let share = |side, mask: &Row, words: &[u64]| {
            function.of_row(side, parts, &opened, mask, opened_bits.iter().copied(), words)
        };
        let share0 = share(Side::Zero, &shares[0], &expanded);
        let share1 = share(Side::One, &shares[1], &sent);
        std::array::from_fn(|i| share0[i].wrapping_add(share1[i]) & low_bits(ring))
    }

    /// Checks all pairs of a value of either sign and a mask.
    fn check(function: &Hinges, bits: u32, pairs: &[(i64, u64)], stream: &mut KeyStream) {
        for pairs in pairs.chunks(ROW) {
            let (mut x, mut shares) = ([0; ROW], [[0; ROW]; 2]);
            let parts = drawn(stream, ROW);
            for (index, (value, rho)) in pairs.iter().enumerate() {
                let part = parts[index] & low_bits(bits);
                x[index] = *value as u64;
                shares[0][index] = part;
                shares[1][index] = rho.wrapping_sub(part) & low_bits(bits);
            }
            for ring in [64, bits + 3] {
                let found = of(function, [ring, bits], &x, &shares, stream);
                for ((value, rho), found) in pairs.iter().zip(found) {
                    let hinge = |hinge: &Hinge| hinge.change * (value - hinge.threshold).max(0);
                    let hinges: i64 = function.hinges.iter().map(hinge).sum();
                    let expected = function.slope * value + function.constant + hinges;
                    let expected = expected as u64 & low_bits(ring);
                    assert_eq!(found, expected, "{bits} bits: {value} under {rho}");
                }
            }
        }
    }

    #[test]
    fn every_function_of_every_value_under_every_mask() {
        let mut stream = random(42);
        for bits in crate::ops::NARROWEST..=8 {
            let end = 1i64 << (bits - 2);
            let pairs: Vec<(i64, u64)> =
                (-end..end).flat_map(|x| (0..1 << bits).map(move |rho| (x, rho))).collect();
            // Each threshold alone, and all of them.
            let all: Vec<(i64, i64)> = (-end..=end).map(|t| (t, 5 - 3 * (t % 4))).collect();
            for threshold in -end..=end {
                check(&function(0, 0, &[(threshold, 1)]), bits, &pairs, &mut stream);
            }
            for hinges in all.chunks(64) {
                check(&function(-3, 7, hinges), bits, &pairs, &mut stream);
            }
        }
    }

    #[test]
    fn wide_values_at_the_ends_of_their_range() {
        let mut stream = random(43);
        for bits in [20, 21, 23, 24, 30] {
            let (all, end) = (low_bits(bits), 1i64 << (bits - 2));
            let hinges = [(-end, 3), (-end + 1, -7), (-4096, 1), (0, 4095), (1, -4095), (end, 9)];
            let mut values = vec![-end, -end + 1, -4097, -4096, -1, 0, 1, 2, end - 1, end / 2];
            let drawn_values = drawn(&mut stream, 22);
            values.extend(drawn_values.iter().map(|x| (x % (2 * end as u64)) as i64 - end));
            let mut masks = vec![0, 1, all, all / 2, all / 2 + 1, all - 1];
            masks.extend(drawn(&mut stream, 26).iter().map(|word| word & all));
            let pairs: Vec<(i64, u64)> =
                values.iter().flat_map(|x| masks.iter().map(move |rho| (*x, *rho))).collect();
            check(&function(0, -5, &hinges), bits, &pairs, &mut stream);
            check(&function(1, 1 << 30, &hinges[2..4]), bits, &pairs, &mut stream);
            check(&function(-11, 0, &hinges[3..]), bits, &pairs, &mut stream);
        }
    }
}
