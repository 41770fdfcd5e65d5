//! Comparison of opened narrow values with their masks, exact and in one exchange.
//!
//! Of a wire `x + rho` modulo `2^l` let `c` be the low `l - 1` bits of what is opened, and `r`
//! those of the mask. The servers compute shares of `[c < r]`, the borrow into the highest bit:
//! with it, the sign of `x` is `msb(x + rho) xor msb(rho) xor [c < r]`.
//!
//! *Tables.* The `l - 1` bits are divided into [`Blocks`]. For each block the producer shares a
//! word of `2^w` bits by exclusive or, of which only the bit at the place that the block of `r`
//! has is set. Where the block of `c` is `v`, the servers' bits `v` share whether the blocks are
//! equal, and the parities of the bits above `v` whether that of `c` is the lower: look-ups that
//! each server makes alone, at a place that is public.
//!
//! *Combination.* `c < r` if a block is lower and all blocks above it are equal. The terms of this
//! sum exclude each other, so it is an exclusive or of products of shared bits. The servers open
//! the bits under fresh masks, and the producer has shared the products of the masks: a Beaver
//! triple of several factors, as in ABY2.0 (Patra, Schneider, Suresh and Yalame 2021).

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer, Randomness};
use super::values::Values;
use super::wire::{MaskSums, RowSum};
use crate::channel::ChannelError;
use crate::masked::{Made, Opening};
use crate::packed::{Order, Packed, ROW, Row, lanes, low_bits, unpack};
use crate::packed_opening::PackedOpening;
use crate::ring::kernels::vectorized;
use crate::ring::{Ring, Side};
use crate::tensors::{Encoding, MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Most blocks of a comparison.
pub(super) const MOST_BLOCKS: usize = 6;

/// Most bits of a block: its table is a word.
const MOST_BITS: u32 = 6;

/// Fewest bits of a wire that is compared: two blocks of a bit, and the highest.
pub(crate) const NARROWEST: u32 = 3;

/// The function for blocks of a width: a loop for each, which knows where the entries of a word
/// are.
macro_rules! of_width {
    ($width:expr, $function:ident) => {
        match $width {
            1 => $function::<1>,
            2 => $function::<2>,
            3 => $function::<3>,
            4 => $function::<4>,
            5 => $function::<5>,
            _ => $function::<MOST_BITS>,
        }
    };
}

/// Shares of the bits that are less than the mask, for the opened values of a wire.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The wire.
    pub input: MaskedId,
    /// A bit for each value: whether what is opened, without its highest bit, is less than the
    /// mask without its own.
    pub output: PrivateId,
}

/// How the low bits of a wire are divided into blocks, from the lowest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    count: usize,
    widths: [u32; MOST_BLOCKS],
}

impl Blocks {
    /// The division of `bits` bits, 2 to 36, that costs the fewest bits on the links: those of the
    /// producer and both directions between the servers. Of equals the one with the fewest blocks.
    #[must_use]
    pub fn best(bits: u32) -> Self {
        let even = |count: usize| {
            let mut widths = [0; MOST_BLOCKS];
            for (index, width) in widths[..count].iter_mut().enumerate() {
                *width = (bits + count as u32 - 1 - index as u32) / count as u32;
            }
            Self { count, widths }
        };
        let fits =
            |blocks: &Self| blocks.widths().iter().all(|width| (1..=MOST_BITS).contains(width));
        let all = (2..=MOST_BLOCKS).map(even).filter(fits);
        let Some(best) = all.min_by_key(|blocks| blocks.shared() + 2 * blocks.opened()) else {
            unreachable!("a plan compares wires of 3 to 37 bits");
        };
        best
    }

    /// The blocks' widths, from the lowest on.
    #[must_use]
    pub fn widths(&self) -> &[u32] {
        &self.widths[..self.count]
    }

    /// Bits that the producer shares for a comparison: tables, then products of masks.
    #[must_use]
    pub fn shared(&self) -> usize {
        self.tables() + self.products()
    }

    /// Bits of the tables for a comparison.
    pub(super) fn tables(&self) -> usize {
        self.widths().iter().map(|width| 1 << width).sum()
    }

    /// Bits that each server opens for a comparison.
    #[must_use]
    pub fn opened(&self) -> usize {
        2 * (self.count - 1)
    }

    /// Products of two masks or more that a combination needs: of the equalities alone, and of
    /// each lower bit with equalities of the blocks above.
    pub(super) fn products(&self) -> usize {
        let of_equalities = (1 << (self.count - 1)) - self.count;
        let with = |above: usize| (1 << above) - 1;
        of_equalities + (1..self.count).map(with).sum::<usize>()
    }

    /// Whether `c < r`, block by block: for a row of `c` the shared words of equality, of all
    /// blocks but the lowest, and those of being lower, of all blocks, both from the lowest on.
    /// `tables` has the row's words of all blocks.
    pub(super) fn look_up(
        &self,
        c: &Row,
        mut tables: &[u64],
    ) -> ([u64; MOST_BLOCKS], [u64; MOST_BLOCKS]) {
        let (mut equal, mut lower) = ([0; MOST_BLOCKS], [0; MOST_BLOCKS]);
        let mut shift = 0;
        for (block, &width) in self.widths().iter().enumerate() {
            let (table, rest) = tables.split_at(1 << width);
            tables = rest;
            (equal[block], lower[block]) = of_width!(width, look_up)(c, table, shift);
            shift += width;
        }
        (equal, lower)
    }

    /// Of a row: this server's share of the combination. `opened` has the words of the equalities
    /// and of the lower bits that were opened, `masks` this server's shares of their masks,
    /// `products` those of the masks' products, and `top` its share of the highest block's bit.
    pub(super) fn combine(
        &self,
        side: Side,
        opened: &[u64],
        masks: &[u64],
        mut products: &[u64],
        top: u64,
    ) -> u64 {
        let above = self.count - 1;
        let (equal, lower) = opened.split_at(above);
        let (equal_masks, lower_masks) = masks.split_at(above);
        // Shares of the products of the equalities' masks by the set of their blocks. The
        // lowest block has no equality: bit `i` is block `i + 1`.
        let mut of_equal = [0; 1 << (MOST_BLOCKS - 1)];
        let of_equal = &mut of_equal[..1 << above];
        of_equal[0] = if side == Side::Zero { u64::MAX } else { 0 };
        for (set, product) in of_equal.iter_mut().enumerate().skip(1) {
            if set.is_power_of_two() {
                *product = equal_masks[set.trailing_zeros() as usize];
            } else {
                (*product, products) = next(products);
            }
        }
        let mut sum = top;
        for block in 0..above {
            // Those of the sets of blocks above, times the block's bit.
            let mut terms = [0; 1 << (MOST_BLOCKS - 1)];
            let mut count = 1 << (above - block);
            for (index, term) in terms[..count].iter_mut().enumerate() {
                let with_mask = if index == 0 {
                    lower_masks[block]
                } else {
                    let (product, rest) = next(products);
                    products = rest;
                    product
                };
                *term = with_mask ^ (lower[block] & of_equal[index << block]);
            }
            // Block by block, the opened bit takes the place of its mask.
            for opened in equal[block..].iter().rev() {
                count /= 2;
                for index in 0..count {
                    terms[index] = terms[index + count] ^ (opened & terms[index]);
                }
            }
            sum ^= terms[0];
        }
        sum
    }

    /// Of a row, adds what the producer shares to the words that one server expands: the tables of
    /// the masks' low bits `r`, and the products of the combination's masks.
    fn deal(&self, r: &Row, masks: &[u64], words: &mut [u64]) {
        let (tables, products) = words.split_at_mut(self.tables());
        self.deal_tables(r, tables);
        self.deal_products(masks, products);
    }

    /// Of a row, adds the tables of the masks' low bits `r`.
    pub(super) fn deal_tables(&self, r: &Row, words: &mut [u64]) {
        let mut words = words;
        let mut shift = 0;
        for &width in self.widths() {
            let (table, rest) = words.split_at_mut(1 << width);
            words = rest;
            of_width!(width, deal)(r, table, shift);
            shift += width;
        }
    }

    /// Of a row, adds the products of the masks of a combination.
    pub(super) fn deal_products(&self, masks: &[u64], words: &mut [u64]) {
        let above = self.count - 1;
        let (equal, lower) = masks.split_at(above);
        // The products of the equalities' masks by the set of their blocks, as in `combine`.
        let mut product = [u64::MAX; 1 << (MOST_BLOCKS - 1)];
        for set in 1usize..1 << above {
            product[set] = product[set & (set - 1)] & equal[set.trailing_zeros() as usize];
        }
        let of_equal = (1usize..1 << above).filter(|set| !set.is_power_of_two());
        let of_equal = of_equal.map(|set| product[set]);
        let with_lower = (0..above).flat_map(|block| {
            (1usize..1 << (above - block)).map(move |set| lower[block] & product[set << block])
        });
        words.iter_mut().zip(of_equal.chain(with_lower)).for_each(|(word, x)| *word ^= x);
    }
}

/// The first word, and those after it.
fn next(words: &[u64]) -> (u64, &[u64]) {
    let Some((first, rest)) = words.split_first() else {
        unreachable!("there is a product for each set");
    };
    (*first, rest)
}

/// Shares of whether the bits of `c` from `shift` on are equal to the place of a table's one bit,
/// and of whether they are lower; a bit for each value. A table has `2^W` bits.
fn look_up<const W: u32>(c: &Row, table: &[u64], shift: u32) -> (u64, u64) {
    vectorized(
        #[inline(always)]
        move || {
            // Wrapping, as no distance is beyond a word: there is nothing to check.
            let mut bits: Row = [0; ROW];
            for (entries, word) in bits.chunks_exact_mut(ROW >> W).zip(table) {
                for (index, entry) in entries.iter_mut().enumerate() {
                    *entry = word.wrapping_shr((index as u32) << W) & low_bits(1 << W);
                }
            }
            for (entry, c) in bits.iter_mut().zip(c) {
                let place = c.wrapping_shr(shift) & low_bits(W);
                *entry = entry.wrapping_shr(place as u32);
            }
            let equal = first_bits(&bits);
            // The parity of the bits above.
            for entry in &mut bits {
                *entry >>= 1;
                for step in (0..W).rev() {
                    *entry ^= entry.wrapping_shr(1 << step);
                }
            }
            (equal, first_bits(&bits))
        },
    )
}

/// Adds to a table of `2^W` bits for each value the bit at the place that the bits of `r` from
/// `shift` on have.
fn deal<const W: u32>(r: &Row, table: &mut [u64], shift: u32) {
    vectorized(
        #[inline(always)]
        move || {
            for (word, r) in table.iter_mut().zip(r.chunks_exact(ROW >> W)) {
                for (index, r) in r.iter().enumerate() {
                    let place = (r.wrapping_shr(shift) & low_bits(W)) as u32;
                    *word ^= 1u64.wrapping_shl(((index as u32) << W) | place);
                }
            }
        },
    );
}

/// The lowest bit of each value.
#[inline(always)]
fn first_bits(row: &Row) -> u64 {
    let bits = row.iter().enumerate();
    bits.fold(0, |word, (index, value)| word | (value & 1).wrapping_shl(index as u32))
}

impl Compare {
    fn blocks(&self, table: &Table) -> Blocks {
        Blocks::best(table.width(self.input) - 1)
    }
}

impl Operation for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        let encoding = Encoding::packed(self.blocks(table).opened());
        Some(Message { route: Route::Exchange, elements: table.len(self.output), encoding })
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let blocks = self.blocks(table);
        Randomness::packed(table.len(self.output), blocks.opened(), blocks.shared())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        write!(f, " {} blocks", self.input)?;
        self.blocks(table).widths().iter().try_for_each(|width| write!(f, " {width}"))?;
        write!(f, " -> {} len {}", self.output, table.len(self.output))
    }
}

impl<R: Ring> Execute<R> for Compare {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let bits = producer.width(self.input);
        let blocks = Blocks::best(bits - 1);
        let mut wires = MaskSums::of(producer, self.input);
        let mut masks = RowSum::new(producer.packed_masks(self.output.into()), blocks.opened());
        producer.share_packed(&mut |words| {
            let rho = wires.next_row();
            blocks.deal(&rho, masks.bits(), words);
        })
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [masks, shared] = correlation.into_packed();
        let wire = values.wire(self.input);
        let (side, bits) = (values.side(), wire.opened.bits() as u32);
        let blocks = Blocks::best(bits - 1);
        let above = blocks.count - 1;
        let mut ours = Packed::zeros(masks.len(), masks.bits());
        let mut top = Packed::zeros(masks.len(), 1);
        let rows = wire.opened.rows().zip(masks.rows()).zip(shared.rows());
        let words = ours.rows_mut().zip(top.rows_mut());
        for (index, (((opened, masks), shared), (words, top))) in rows.zip(words).enumerate() {
            let (equal, lower) = blocks.look_up(&unpack(opened, bits), shared);
            let bits = equal[1..=above].iter().chain(&lower[..above]);
            let lanes = lanes(wire.opened.len(), index);
            for ((word, bits), mask) in words.iter_mut().zip(bits).zip(masks) {
                *word = (bits ^ mask) & lanes;
            }
            top[0] = lower[above];
        }
        Box::new(PackedOpening::new(Order::Planes, ours, move |ours, theirs| {
            let len = ours.len();
            let tables = blocks.shared() - blocks.products();
            let rows = masks.rows().zip(shared.rows()).zip(ours.rows().zip(theirs.rows()));
            for (index, (((masks, shared), (ours, theirs)), top)) in
                rows.zip(top.rows_mut()).enumerate()
            {
                let mut opened = [0; 2 * MOST_BLOCKS];
                let opened = &mut opened[..ours.len()];
                for ((word, ours), theirs) in opened.iter_mut().zip(ours).zip(theirs) {
                    *word = ours ^ theirs;
                }
                let less = blocks.combine(side, opened, masks, &shared[tables..], top[0]);
                top[0] = less & lanes(len, index);
            }
            Made::Bits(top)
        }))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::packed::draw;
    use crate::prg::{KeyStream, Seed};

    /// Words that nobody chose.
    pub(in crate::ops) fn random(number: u8) -> KeyStream {
        Seed::from_bytes([number; 32]).into_stream()
    }

    pub(in crate::ops) fn drawn(stream: &mut KeyStream, count: usize) -> Vec<u64> {
        let mut words = vec![0; count];
        draw(stream, &mut words);
        words
    }

    /// Compares a row of opened values with their masks on both servers, under fresh randomness:
    /// their shares of the result.
    pub(in crate::ops) fn compare(
        bits: u32,
        opened: &Row,
        rho: &Row,
        stream: &mut KeyStream,
    ) -> [u64; 2] {
        let blocks = Blocks::best(bits - 1);
        let above = blocks.opened() / 2;
        let masks = [(); 2].map(|()| drawn(stream, blocks.opened()));
        let sums: Vec<u64> = masks[0].iter().zip(&masks[1]).map(|(x, y)| x ^ y).collect();
        let expanded = drawn(stream, blocks.shared());
        let mut sent = expanded.clone();
        blocks.deal(rho, &sums, &mut sent);
        let shared = [expanded, sent];
        let found = shared.each_ref().map(|shared| blocks.look_up(opened, shared));
        let mut bits = vec![0; blocks.opened()];
        for ((equal, lower), masks) in found.iter().zip(&masks) {
            let ours = equal[1..=above].iter().chain(&lower[..above]);
            for ((word, ours), mask) in bits.iter_mut().zip(ours).zip(masks) {
                *word ^= ours ^ mask;
            }
        }
        let tables = blocks.shared() - blocks.products();
        [(0, Side::Zero), (1, Side::One)].map(|(server, side)| {
            let (shared, top): (&[u64], _) = (&shared[server], found[server].1[above]);
            blocks.combine(side, &bits, &masks[server], &shared[tables..], top)
        })
    }

    #[test]
    fn blocks_are_those_of_the_fewest_bytes() {
        let widths = |bits| Blocks::best(bits).widths().to_vec();
        assert_eq!(widths(2), [1, 1]);
        assert_eq!(widths(19), [4, 4, 4, 4, 3]);
        assert_eq!(widths(22), [5, 5, 4, 4, 4]);
        assert_eq!(widths(29), [5, 5, 5, 5, 5, 4]);
        assert_eq!(widths(36), [6, 6, 6, 6, 6, 6]);
        for bits in 2..=36 {
            let best = Blocks::best(bits);
            assert_eq!(best.widths().iter().sum::<u32>(), bits);
            let cost = |blocks: &Blocks| blocks.shared() + 2 * blocks.opened();
            // Nothing is saved by moving a bit from one block to another.
            for (from, to) in (0..best.count).flat_map(|x| (0..best.count).map(move |y| (x, y))) {
                let mut moved = best;
                if from != to && moved.widths[from] > 1 && moved.widths[to] < MOST_BITS {
                    moved.widths[from] -= 1;
                    moved.widths[to] += 1;
                    assert!(cost(&moved) >= cost(&best), "{best:?} {moved:?}");
                }
            }
        }
        // Products: 15 for four blocks, 37 for five.
        assert_eq!(Blocks { count: 4, widths: [5, 5, 5, 4, 0, 0] }.products(), 15);
        assert_eq!(Blocks::best(19).products(), 37);
        assert_eq!((Blocks::best(22).shared(), Blocks::best(22).opened()), (112 + 37, 8));
    }

    #[test]
    fn every_value_is_compared_with_every_mask() {
        let mut stream = random(1);
        for bits in NARROWEST..=8 {
            let low = low_bits(bits - 1);
            let pairs: Vec<(u64, u64)> =
                (0..1 << bits).flat_map(|c| (0..1 << bits).map(move |r| (c, r))).collect();
            for pairs in pairs.chunks(ROW) {
                let (mut c, mut r) = ([0; ROW], [0; ROW]);
                for (index, pair) in pairs.iter().enumerate() {
                    (c[index], r[index]) = *pair;
                }
                let [share0, share1] = compare(bits, &c, &r, &mut stream);
                for index in 0..ROW {
                    let less = (share0 ^ share1) >> index & 1 == 1;
                    let (c, r) = (c[index] & low, r[index] & low);
                    assert_eq!(less, c < r, "{bits} bits: {c} {r}");
                }
            }
        }
    }

    #[test]
    fn wide_values_are_compared_at_the_ends_of_their_blocks() {
        let mut stream = random(2);
        for bits in [20, 23, 30, 37] {
            let low = low_bits(bits - 1);
            let widths = Blocks::best(bits - 1);
            let mut ends = vec![0, 1, low, low - 1, low / 2, low / 2 + 1];
            let mut shift = 0;
            for width in widths.widths() {
                ends.extend([low_bits(shift), 1 << shift, low_bits(*width) << shift]);
                shift += width;
            }
            ends.extend(drawn(&mut stream, 20).iter().map(|word| word & low));
            let pairs: Vec<(u64, u64)> =
                ends.iter().flat_map(|c| ends.iter().map(move |r| (*c, *r))).collect();
            for pairs in pairs.chunks(ROW) {
                let (mut c, mut r) = ([0; ROW], [0; ROW]);
                for (index, pair) in pairs.iter().enumerate() {
                    (c[index], r[index]) = *pair;
                }
                let [share0, share1] = compare(bits, &c, &r, &mut stream);
                for index in 0..ROW {
                    assert_eq!((share0 ^ share1) >> index & 1 == 1, c[index] < r[index]);
                }
            }
        }
    }
}
