//! Elements of the ring of which only the low bits count.
//!
//! An exact graph needs its numbers modulo `2^n` for an `n` that may be smaller than the ring's
//! word ([`Table::low_bits`](crate::tensors::Table::low_bits)). Words are added and multiplied as
//! ever; what is above `n` bits is of no meaning. Between servers and from the producer the `n`
//! bits travel, packed in rows ([`crate::packed`]).

use crate::packed::{Packed, ROW, Row, low_bits, pack, unpack};
use crate::ring::kernels::vectorized;
use crate::ring::{Plane, Ring};
use crate::share::Share;

/// The integer that a word is.
#[inline(always)]
fn integer<R: Ring>(word: R::Word) -> u64 {
    let mut bytes = [0; 8];
    let sent = R::plane(0).sent(word);
    bytes[..size_of::<R::Word>()].copy_from_slice(bytemuck::bytes_of(&sent));
    u64::from_le_bytes(bytes)
}

/// The word of an integer, as far as it fits.
#[inline(always)]
fn word<R: Ring>(integer: u64) -> R::Word {
    R::plane(0).of(i128::from(integer))
}

/// `f(x, y)` of a row of words and one of values, in so many bits; what there are no words for is
/// zero.
#[inline(always)]
fn row<R: Ring>(bits: u32, x: &[R::Word], y: &Row, f: impl Fn(u64, u64) -> u64 + Copy) -> Row {
    let mut out = [0; ROW];
    vectorized(
        #[inline(always)]
        || {
            for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                *out = f(integer::<R>(x), y) & low_bits(bits);
            }
        },
    );
    out
}

/// Packs `x - y`, element by element.
pub(crate) fn difference<R: Ring>(x: &[R::Word], y: &[R::Word], bits: u32) -> Packed {
    let mut packed = Packed::zeros(x.len(), bits as usize);
    for ((words, x), y) in packed.rows_mut().zip(x.chunks(ROW)).zip(y.chunks(ROW)) {
        let mut subtrahend = [0; ROW];
        subtrahend.iter_mut().zip(y).for_each(|(value, &y)| *value = integer::<R>(y));
        pack(&row::<R>(bits, x, &subtrahend, u64::wrapping_sub), bits, words);
    }
    packed
}

/// Packs `x` less the values of a row that is packed in `words`, in their place. What there are no
/// words for is less than zero, so that the padding is as random as the row was.
pub(crate) fn subtract_from<R: Ring>(x: &[R::Word], bits: u32, words: &mut [u64]) {
    let expanded = unpack(words, bits);
    let mut row = row::<R>(bits, x, &expanded, u64::wrapping_sub);
    for (value, expanded) in row.iter_mut().zip(&expanded).skip(x.len()) {
        *value = expanded.wrapping_neg() & low_bits(bits);
    }
    pack(&row, bits, words);
}

/// Adds packed values to the words of a share.
pub(crate) fn add<R: Ring>(share: &mut Share<R>, packed: &Packed) {
    let bits = packed.bits() as u32;
    for (words, row) in share.0.chunks_mut(ROW).zip(packed.rows()) {
        let row = unpack(row, bits);
        vectorized(
            #[inline(always)]
            || {
                let plane = R::plane(0);
                for (word_of_share, &value) in words.iter_mut().zip(&row) {
                    *word_of_share = plane.add(*word_of_share, word::<R>(value));
                }
            },
        );
    }
}

/// Clears what is above the low bits.
pub(crate) fn keep<R: Ring>(share: &mut Share<R>, bits: u32) {
    for element in &mut share.0[..] {
        *element = word::<R>(integer::<R>(*element) & low_bits(bits));
    }
}

/// The signed integer of which a result has the low bits.
pub(crate) fn signed(integer: i128, bits: u32) -> i128 {
    let above = i128::BITS - bits;
    integer << above >> above
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Int64;

    #[test]
    fn low_bits_are_packed_and_added_as_the_integers_are() {
        let x: Vec<u64> = (0..200u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let y: Vec<u64> = x.iter().rev().copied().collect();
        for bits in [35, 38, 57, 58, 63] {
            let packed = difference::<Int64>(&x, &y, bits);
            let mut share = Share::<Int64>(y[..].into());
            add(&mut share, &packed);
            keep(&mut share, bits);
            let expected: Vec<u64> = x.iter().map(|x| x & low_bits(bits)).collect();
            assert_eq!(share.0[..], expected, "{bits} bits");
            let mut words = packed.words()[..bits as usize].to_vec();
            subtract_from::<Int64>(&x[..64], bits, &mut words);
            assert_eq!(
                unpack(&words, bits).to_vec(),
                y[..64].iter().map(|y| y & low_bits(bits)).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn results_have_their_sign() {
        for (integer, expected) in [(0, 0), (5, 5), ((1 << 38) - 5, -5), (1 << 37, -(1 << 37))] {
            assert_eq!(signed(integer, 38), expected);
            assert_eq!(signed(integer - (7 << 38), 38), expected);
        }
    }
}
