//! Narrow values, packed to exactly their width: integers modulo `2^bits`, and single bits.
//!
//! 64 values make a *row*, which is `bits` words of 64 bits: value `i` takes the bits from
//! `i * bits` on, the lowest first. A tensor whose length is no multiple of 64 ends with a row
//! whose remaining values are *padding*. In a message that opens values padding is zero.

use std::fmt;

use crate::buffer::Buffer;
use crate::prg::KeyStream;

/// Values of a row.
pub const ROW: usize = 64;

/// The values of a row, unpacked.
pub type Row = [u64; ROW];

/// Rows of so many values.
#[must_use]
pub fn rows(len: usize) -> usize {
    len.div_ceil(ROW)
}

/// How many of the values of row `index` are not padding, in a tensor of `len`.
pub(crate) fn filled(len: usize, index: usize) -> usize {
    len.saturating_sub(index * ROW).min(ROW)
}

/// A word with a bit for each of the values of row `index` that is not padding.
pub(crate) fn lanes(len: usize, index: usize) -> u64 {
    low_bits(filled(len, index) as u32)
}

/// `2^bits - 1`, for at most 64 bits.
#[inline(always)]
pub(crate) fn low_bits(bits: u32) -> u64 {
    if bits == 0 { 0 } else { u64::MAX >> (64 - bits) }
}

/// Packs the low `bits` of each value into as many words. The other bits are zero.
#[inline(always)]
pub(crate) fn pack(values: &Row, bits: u32, words: &mut [u64]) {
    if bits == u64::BITS {
        words.copy_from_slice(values);
        return;
    }
    let (mut word, mut used, mut next) = (0, 0, 0);
    for value in values {
        word |= value << used;
        used += bits;
        if used >= 64 {
            words[next] = word;
            next += 1;
            used -= 64;
            // What did not fit; nothing of it if the word ended with the value.
            word = if used == 0 { 0 } else { value >> (bits - used) };
        }
    }
}

/// The values of a row of `bits` words.
#[inline(always)]
pub(crate) fn unpack(words: &[u64], bits: u32) -> Row {
    let mut values = [0; ROW];
    unpack_into(words, bits, &mut values);
    values
}

/// Writes the values of a row of `bits` words.
#[inline(always)]
pub(crate) fn unpack_into(words: &[u64], bits: u32, values: &mut Row) {
    if bits == u64::BITS {
        values.copy_from_slice(words);
        return;
    }
    // One word more, so that the last value is read like the others.
    let mut padded = [0; ROW + 1];
    padded[..words.len()].copy_from_slice(words);
    let mask = low_bits(bits);
    if cfg!(target_endian = "little") && bits <= u64::BITS - 7 {
        // Eight bytes have all of a value, wherever it begins.
        let bytes: &[u8] = bytemuck::cast_slice(&padded);
        for (index, value) in values.iter_mut().enumerate() {
            let at = index as u32 * bits;
            // Within the row whatever the compiler knows of the width.
            let from = (at / 8) as usize % (8 * ROW);
            let word: u64 = bytemuck::pod_read_unaligned(&bytes[from..from + 8]);
            *value = word.wrapping_shr(at % 8) & mask;
        }
        return;
    }
    for (index, value) in values.iter_mut().enumerate() {
        let at = index as u32 * bits;
        let (word, shift) = ((at / 64) as usize % ROW, at % 64);
        let upper = (padded[word + 1] << 1).wrapping_shl(63 - shift);
        *value = (padded[word].wrapping_shr(shift) | upper) & mask;
    }
}

/// A tensor of narrow values, or of records of some: each value has `bits` bits in all. Wiped
/// when it is dropped, never printed.
#[derive(Clone)]
pub struct Packed {
    len: usize,
    bits: usize,
    words: Buffer<u64>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({} values of {} bits)", self.len, self.bits)
    }
}

impl Packed {
    /// `len` values of `bits` bits, all zero.
    #[must_use]
    pub fn zeros(len: usize, bits: usize) -> Self {
        Self { len, bits, words: Buffer::zeros(rows(len) * bits) }
    }

    /// The next values of a stream. Those of the padding are drawn, too.
    #[must_use]
    pub fn sample(stream: &mut KeyStream, len: usize, bits: usize) -> Self {
        let mut packed = Self::zeros(len, bits);
        draw(stream, &mut packed.words);
        packed
    }

    /// Integers below `2^bits`, packed.
    #[must_use]
    pub fn of(values: &[u64], bits: u32) -> Self {
        let mut packed = Self::zeros(values.len(), bits as usize);
        for (values, words) in values.chunks(ROW).zip(packed.rows_mut()) {
            let mut row = [0; ROW];
            row[..values.len()].copy_from_slice(values);
            pack(&row, bits, words);
        }
        packed
    }

    /// The integers, of values that are one integer each.
    #[must_use]
    pub fn values(&self) -> Vec<u64> {
        let mut values = Vec::with_capacity(rows(self.len) * ROW);
        self.rows().for_each(|words| values.extend(unpack(words, self.bits as u32)));
        values.truncate(self.len);
        values
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bits of a value.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The values from number `first` on, as a row. What is beyond the last row is zero.
    #[inline(always)]
    pub(crate) fn row_from(&self, first: usize) -> Row {
        let at = first * self.bits;
        let (words, shift) = (self.words.get(at / 64..).unwrap_or_default(), (at % 64) as u32);
        if shift == 0 && words.len() >= self.bits {
            return unpack(&words[..self.bits], self.bits as u32);
        }
        let word = |index: usize| words.get(index).copied().unwrap_or(0);
        let mut row = [0; ROW];
        let shifted = &mut row[..self.bits];
        for (index, shifted) in shifted.iter_mut().enumerate() {
            let upper = (word(index + 1) << 1).wrapping_shl(63 - shift);
            *shifted = (word(index) >> shift) | upper;
        }
        unpack(shifted, self.bits as u32)
    }

    /// All words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// All words, to write.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The words of each row.
    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, u64> {
        self.words.chunks_exact(self.bits)
    }

    /// The words of each row, to write.
    pub(crate) fn rows_mut(&mut self) -> std::slice::ChunksExactMut<'_, u64> {
        self.words.chunks_exact_mut(self.bits)
    }
}

/// Packs integers that come in pieces of any length.
pub(crate) struct Packing {
    packed: Packed,
    row: Row,
    /// Values of the row under way.
    filled: usize,
    /// Rows that are packed.
    done: usize,
}

impl Packing {
    /// For `len` integers below `2^bits`.
    pub(crate) fn new(len: usize, bits: usize) -> Self {
        Self { packed: Packed::zeros(len, bits), row: [0; ROW], filled: 0, done: 0 }
    }

    /// Appends some.
    pub(crate) fn extend(&mut self, mut values: &[u64]) {
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(ROW - self.filled));
            self.row[self.filled..][..now.len()].copy_from_slice(now);
            self.filled += now.len();
            if self.filled == ROW {
                self.end_row();
            }
            values = later;
        }
    }

    fn end_row(&mut self) {
        let bits = self.packed.bits;
        let words = &mut self.packed.words[self.done * bits..][..bits];
        pack(&self.row, bits as u32, words);
        self.done += 1;
        self.filled = 0;
    }

    /// All of them; padding is zero.
    pub(crate) fn finish(mut self) -> Packed {
        if self.filled > 0 {
            self.row[self.filled..].fill(0);
            self.end_row();
        }
        self.packed
    }
}

/// The next words of a stream.
pub(crate) fn draw(stream: &mut KeyStream, words: &mut [u64]) {
    stream.fill(bytemuck::cast_slice_mut(words));
    words.iter_mut().for_each(|word| *word = u64::from_le(*word));
}

/// Which bits of the last row of an opening may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// One value after the other, as [`pack`] does.
    Values,
    /// A word for each bit of all values of a row.
    Planes,
}

/// Whether nothing but the values is set.
pub(crate) fn is_padded(order: Order, packed: &Packed) -> bool {
    let last = filled(packed.len, rows(packed.len).saturating_sub(1));
    let Some(row) = packed.rows().next_back() else { return true };
    // Joined before they are looked at: what belongs to values decides nothing.
    let stray = row.iter().enumerate().fold(0, |stray, (index, word)| {
        let used = match order {
            Order::Values => (last * packed.bits).saturating_sub(64 * index).min(64),
            Order::Planes => last,
        };
        stray | (word & !low_bits(used as u32))
    });
    stray == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;

    fn words(count: usize) -> Vec<u64> {
        let mut words = vec![0; count];
        draw(&mut Seed::from_bytes([3; 32]).into_stream(), &mut words);
        words
    }

    #[test]
    fn values_of_every_width_are_packed_and_unpacked() {
        for bits in 1..=64 {
            for len in [1, 63, 64, 65, 200] {
                let values: Vec<u64> =
                    words(len).into_iter().map(|word| word & low_bits(bits)).collect();
                let packed = Packed::of(&values, bits);
                assert_eq!(packed.values(), values, "{bits} bits");
                assert_eq!(packed.words().len(), rows(len) * bits as usize);
                assert!(is_padded(Order::Values, &packed));
                // Bit by bit, as the page says.
                let bit = |at: usize| packed.words()[at / 64] >> (at % 64) & 1;
                for (index, value) in values.iter().enumerate() {
                    let at = index * bits as usize;
                    let read = (0..bits as usize).map(|i| bit(at + i) << i).sum::<u64>();
                    assert_eq!(read, *value);
                }
            }
        }
    }

    #[test]
    fn rows_begin_at_any_value_and_values_come_in_any_pieces() {
        for bits in [1, 3, 24, 37, 63, 64] {
            let values: Vec<u64> =
                words(200).into_iter().map(|word| word & low_bits(bits)).collect();
            let packed = Packed::of(&values, bits);
            for first in [0, 1, 5, 63, 64, 100, 136, 190, 256, 1000] {
                let expected =
                    std::array::from_fn(|index| values.get(first + index).copied().unwrap_or(0));
                assert_eq!(packed.row_from(first), expected, "{bits} bits from {first}");
            }
            for piece in [1, 7, 64, 130] {
                let mut packing = Packing::new(values.len(), bits as usize);
                values.chunks(piece).for_each(|values| packing.extend(values));
                assert_eq!(packing.finish().words(), packed.words(), "{bits} bits by {piece}");
            }
        }
    }

    #[test]
    fn each_bit_of_the_padding_is_found() {
        let check = |order, len: usize, bits: usize, is_value: &dyn Fn(usize) -> bool| {
            let last = 64 * bits * (rows(len) - 1);
            for at in 0..64 * bits {
                let mut packed = Packed::zeros(len, bits);
                packed.words_mut()[(last + at) / 64] = 1 << (at % 64);
                assert_eq!(is_padded(order, &packed), is_value(at), "{len} {bits} {at}");
            }
        };
        for len in [1, 5, 63, 64, 67, 128] {
            let values = (len - 1) % 64 + 1;
            for bits in [1, 6, 23, 64] {
                check(Order::Values, len, bits, &|at| at < values * bits);
                check(Order::Planes, len, bits, &|at| at % 64 < values);
            }
        }
    }

    #[test]
    fn a_packed_tensor_prints_its_size_only() {
        let packed = Packed::sample(&mut Seed::from_bytes([9; 32]).into_stream(), 70, 23);
        assert_eq!(format!("{packed:?}"), "Packed(70 values of 23 bits)");
        assert_eq!(packed.words().len(), 46);
    }
}
