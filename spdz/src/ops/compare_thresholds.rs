//! Comparison of opened narrow values with several public thresholds, on one table and in one
//! exchange.
//!
//! Of a wire `x + rho` the servers know `x - t + rho`, too, which is a wire of `x - t` under the same
//! mask. So the tables of a [`Compare`](super::Compare) are read at another place for each threshold: the
//! tables hold the mask, and know nothing of what is compared with it. A look-up is a function that each
//! server computes alone of its own share; what is opened of it is hidden by bits that are used
//! for this threshold alone, and so each has products of its own.

use std::fmt;

use super::compare::{Blocks, MOST_BLOCKS};
use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use super::wire::{MaskSums, RowSum};
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, Packed, Row, lanes, unpack};
use crate::packed_opening::PackedOpening;
use crate::ring::{BinaryRing, Int100};
use crate::tensors::{Encoding, MaskedId, Message, PrivateId, Route, Table, TensorId};

/// For the opened values of a wire less each of some thresholds, shares of whether the low bits are
/// less than the mask's: what [`Compare`](super::Compare) makes, for each threshold. One exchange.
#[derive(Clone, Debug)]
pub struct CompareThresholds {
    /// The wire. Its values less any of the thresholds must fit its width.
    pub wire: MaskedId,
    /// The thresholds, one or more.
    pub thresholds: Vec<i64>,
    /// As many bits for each value as there are thresholds. A row has a word for each of them, with
    /// a bit for each value.
    pub output: PrivateId,
}

/// The opened values of a row less a threshold, in their low bits.
pub(super) fn less(opened: &Row, threshold: i64) -> Row {
    let mut row = *opened;
    row.iter_mut().for_each(|value| *value = value.wrapping_sub(threshold as u64));
    row
}

/// What the producer sends of a row, in place of what one server expands: the tables of the masks
/// `rho`, then for each threshold the products of its combination's `masks`.
fn deal(blocks: &Blocks, rho: &Row, masks: &[u64], words: &mut [u64]) {
    let (tables, products) = words.split_at_mut(blocks.tables());
    blocks.deal_tables(rho, tables);
    let products = products.chunks_mut(blocks.products());
    for (masks, products) in masks.chunks(blocks.opened()).zip(products) {
        blocks.deal_products(masks, products);
    }
}

/// Of a row: what this server opens under `masks`, and its shares of the highest blocks' bits.
/// `shared` has the tables.
fn look_up(
    blocks: &Blocks,
    thresholds: &[i64],
    opened: &Row,
    masks: &[u64],
    shared: &[u64],
    ours: &mut [u64],
    top: &mut [u64],
) {
    let above = blocks.opened() / 2;
    let parts = ours.chunks_mut(blocks.opened()).zip(masks.chunks(blocks.opened()));
    for ((threshold, top), (ours, masks)) in thresholds.iter().zip(top).zip(parts) {
        let (equal, lower) = blocks.look_up(&less(opened, *threshold), shared);
        let bits = equal[1..=above].iter().chain(&lower[..above]);
        for ((word, bits), mask) in ours.iter_mut().zip(bits).zip(masks) {
            *word = bits ^ mask;
        }
        *top = lower[above];
    }
}

impl CompareThresholds {
    fn blocks(&self, table: &Table) -> Blocks {
        Blocks::best(table.width(self.wire) - 1)
    }
}

impl Operation for CompareThresholds {
    fn name(&self) -> &'static str {
        "compare_thresholds"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.wire.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        let encoding = Encoding::packed(self.thresholds.len() * self.blocks(table).opened());
        Some(Message { route: Route::Exchange, elements: table.len(self.output), encoding })
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let (blocks, count) = (self.blocks(table), self.thresholds.len());
        let shared = blocks.tables() + count * blocks.products();
        Randomness::packed(table.len(self.output), count * blocks.opened(), shared)
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        write!(f, " {} blocks", self.wire)?;
        self.blocks(table).widths().iter().try_for_each(|width| write!(f, " {width}"))?;
        write!(f, " at")?;
        self.thresholds.iter().try_for_each(|threshold| write!(f, " {threshold}"))?;
        write!(f, " -> {} len {}", self.output, table.len(self.output))
    }
}

impl<R: BinaryRing> Execute<R> for CompareThresholds {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let blocks = Blocks::best(producer.width(self.wire) - 1);
        let opened = self.thresholds.len() * blocks.opened();
        let mut wires = MaskSums::of(producer, self.wire);
        let mut masks = RowSum::new(producer.packed_masks(self.output.into()), opened);
        producer.share_packed(&mut |words| {
            let rho = wires.next_row();
            deal(&blocks, &rho, masks.bits(), words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [masks, shared] = correlation.into_packed();
        let wire = values.wire(self.wire);
        let (side, bits) = (values.side(), wire.opened.bits() as u32);
        let blocks = Blocks::best(bits - 1);
        let mut ours = Packed::zeros(masks.len(), masks.bits());
        let mut top = Packed::zeros(masks.len(), self.thresholds.len());
        let rows = wire.opened.rows().zip(masks.rows()).zip(shared.rows());
        let words = ours.rows_mut().zip(top.rows_mut());
        for (index, (((opened, masks), shared), (words, top))) in rows.zip(words).enumerate() {
            look_up(&blocks, &self.thresholds, &unpack(opened, bits), masks, shared, words, top);
            // Padding is zero.
            let lanes = lanes(wire.opened.len(), index);
            words.iter_mut().for_each(|word| *word &= lanes);
        }
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let (len, each) = (ours.len(), blocks.opened());
            let rows = masks.rows().zip(shared.rows()).zip(ours.rows().zip(theirs.rows()));
            for (index, (((masks, shared), (ours, theirs)), top)) in
                rows.zip(top.rows_mut()).enumerate()
            {
                let messages = ours.chunks(each).zip(theirs.chunks(each));
                let products = shared[blocks.tables()..].chunks(blocks.products());
                let parts = messages.zip(masks.chunks(each)).zip(products);
                for (top, (((ours, theirs), masks), products)) in top.iter_mut().zip(parts) {
                    let mut opened = [0; 2 * MOST_BLOCKS];
                    let opened = &mut opened[..each];
                    for ((word, ours), theirs) in opened.iter_mut().zip(ours).zip(theirs) {
                        *word = ours ^ theirs;
                    }
                    *top = blocks.combine(side, opened, masks, products, *top) & lanes(len, index);
                }
            }
            Made::Integers(top)
        }))
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for CompareThresholds {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::compare::tests::{drawn, random};
    use crate::packed::{ROW, low_bits};
    use crate::prg::KeyStream;
    use crate::ring::Side;

    /// Compares a row of opened values less each threshold with their masks on both servers, under
    /// fresh randomness: their shares of the results.
    pub(in crate::ops) fn compare(
        bits: u32,
        thresholds: &[i64],
        opened: &Row,
        rho: &Row,
        stream: &mut KeyStream,
    ) -> [Vec<u64>; 2] {
        let blocks = Blocks::best(bits - 1);
        let (count, each) = (thresholds.len(), blocks.opened());
        let masks = [(); 2].map(|()| drawn(stream, count * each));
        let sums: Vec<u64> = masks[0].iter().zip(&masks[1]).map(|(x, y)| x ^ y).collect();
        let expanded = drawn(stream, blocks.tables() + count * blocks.products());
        let mut sent = expanded.clone();
        deal(&blocks, rho, &sums, &mut sent);
        let shared = [expanded, sent];
        let mut made = [(); 2].map(|()| (vec![0; count * each], vec![0; count]));
        for (server, (ours, top)) in made.iter_mut().enumerate() {
            let (masks, shared) = (&masks[server], &shared[server]);
            look_up(&blocks, thresholds, opened, masks, shared, ours, top);
        }
        let both: Vec<u64> = made[0].0.iter().zip(&made[1].0).map(|(x, y)| x ^ y).collect();
        [(0, Side::Zero), (1, Side::One)].map(|(server, side)| {
            let products = shared[server][blocks.tables()..].chunks(blocks.products());
            let parts = both.chunks(each).zip(masks[server].chunks(each)).zip(products);
            let tops = made[server].1.iter();
            parts
                .zip(tops)
                .map(|(((opened, masks), products), top)| {
                    blocks.combine(side, opened, masks, products, *top)
                })
                .collect()
        })
    }

    #[test]
    fn one_table_serves_every_threshold_under_every_mask() {
        let mut stream = random(41);
        for bits in 3..=7 {
            let low = low_bits(bits - 1);
            let thresholds: Vec<i64> = (-(1 << (bits - 1))..1 << (bits - 1)).collect();
            let pairs: Vec<(u64, u64)> =
                (0..1 << bits).flat_map(|c| (0..1 << bits).map(move |r| (c, r))).collect();
            for pairs in pairs.chunks(ROW) {
                let (mut c, mut r) = ([0; ROW], [0; ROW]);
                for (index, pair) in pairs.iter().enumerate() {
                    (c[index], r[index]) = *pair;
                }
                for thresholds in thresholds.chunks(64) {
                    let [share0, share1] = compare(bits, thresholds, &c, &r, &mut stream);
                    for (number, threshold) in thresholds.iter().enumerate() {
                        let found = share0[number] ^ share1[number];
                        for (index, (c, r)) in pairs.iter().enumerate() {
                            let expected = c.wrapping_sub(*threshold as u64) & low < r & low;
                            let found = found >> index & 1 == 1;
                            assert_eq!(found, expected, "{bits} bits: {c} {r} {threshold}");
                        }
                    }
                }
            }
        }
    }
}
