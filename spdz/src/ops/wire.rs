//! What operations on wires have in common: shares of a wire, its mask as the producer knows it, and
//! its opening.
//!
//! A wire is `x + rho` modulo `2^l`, which both servers know, and a share of `rho` at each. Values
//! that follow from wires by sums and differences are wires, too, without a message: their masks
//! are the same sums and differences, which servers and producer compute alone.

use std::sync::Arc;

use super::operation::Producer;
use super::wire_masks::WireMasks;
use crate::masked::{Made, Opening, Wire};
use crate::packed::{Order, Packed, ROW, Row, draw, low_bits, pack, unpack};
use crate::packed_opening::PackedOpening;
use crate::prg::KeyStream;
use crate::ring::{Ring, Side};
use crate::tensors::MaskedId;

/// The producer's view of what both servers draw, row by row.
pub(super) struct RowSum {
    streams: [KeyStream; 2],
    words: [Packed; 2],
}

impl RowSum {
    /// Rows of so many words.
    pub(super) fn new(streams: [KeyStream; 2], words: usize) -> Self {
        Self { streams, words: [(); 2].map(|()| Packed::zeros(ROW, words)) }
    }

    fn next(&mut self) {
        for (stream, words) in self.streams.iter_mut().zip(&mut self.words) {
            draw(stream, words.words_mut());
        }
    }

    /// The next row, of bits that the servers share by exclusive or.
    pub(super) fn bits(&mut self) -> &[u64] {
        self.next();
        let [sum, other] = &mut self.words;
        sum.words_mut().iter_mut().zip(other.words()).for_each(|(sum, other)| *sum ^= other);
        sum.words()
    }

    /// The next row, of integers: the sums of what the servers have, of which each is below
    /// `2^bits`.
    pub(super) fn integers(&mut self, bits: u32) -> Row {
        self.next();
        sum_of(self.words.each_ref().map(|words| unpack(words.words(), bits)))
    }
}

/// The sums of two rows, value by value.
fn sum_of([mut sum, other]: [Row; 2]) -> Row {
    sum.iter_mut().zip(&other).for_each(|(sum, other)| *sum += other);
    sum
}

/// The sums of the servers' shares of a wire's mask, row by row: the mask and, in the bit above the
/// wire's, their carry.
pub(super) enum MaskSums {
    Drawn { sums: Box<RowSum>, bits: u32 },
    Made { shares: Arc<[Packed; 2]>, next: usize },
}

impl MaskSums {
    pub(super) fn of<R: Ring>(producer: &mut dyn Producer<R>, wire: MaskedId) -> Self {
        match producer.wire_masks(wire) {
            WireMasks::Drawn { streams, bits, .. } => {
                Self::Drawn { sums: Box::new(RowSum::new(*streams, bits)), bits: bits as u32 }
            }
            WireMasks::Made(shares) => Self::Made { shares, next: 0 },
        }
    }

    pub(super) fn next_row(&mut self) -> Row {
        match self {
            Self::Drawn { sums, bits } => sums.integers(*bits),
            Self::Made { shares, next } => {
                let rows = shares.each_ref().map(|share| {
                    let bits = share.bits();
                    let words = &share.words()[*next * bits..][..bits];
                    unpack(words, bits as u32)
                });
                *next += 1;
                sum_of(rows)
            }
        }
    }
}

/// A server's share of a row of a wire's values, of which the low bits count.
#[inline(always)]
pub(super) fn share_of(side: Side, opened: &Row, mask: &Row) -> Row {
    let public = if side == Side::Zero { u64::MAX } else { 0 };
    let mut share = *opened;
    for (share, mask) in share.iter_mut().zip(mask) {
        *share = (*share & public).wrapping_sub(*mask);
    }
    share
}

/// The exchange of `ours`, shares of values and of their mask, that makes a wire; `mask` is this
/// server's share of the mask.
pub(super) fn wire_opening<'a, R: Ring>(ours: Packed, mask: Packed) -> Box<dyn Opening<R> + 'a> {
    let bits = mask.bits() as u32;
    Box::new(PackedOpening::new(Order::Values, ours, move |mut opened, theirs| {
        for (words, theirs) in opened.rows_mut().zip(theirs.rows()) {
            let (mut row, theirs) = (unpack(words, bits), unpack(theirs, bits));
            for (value, theirs) in row.iter_mut().zip(&theirs) {
                *value = value.wrapping_add(*theirs) & low_bits(bits);
            }
            pack(&row, bits, words);
        }
        Made::Wire(Wire { opened, mask })
    }))
}
