//! Drawing uniformly random residues.

use zeroize::Zeroizing;

use super::modulus::{Modulus, elements};
use crate::prg::KeyStream;
use crate::ring;
use crate::ring::kernels::vectorized;

/// Words drawn at a time: little enough to stay in the first-level cache.
pub const DRAWN: usize = 8 * 1024;

/// What a word is replaced by until it is drawn again. No residue is as small.
const REJECTED: i16 = i16::MIN;

/// A tensor of uniformly random elements that is being drawn.
///
/// A word of the stream is read as a signed integer of 16 bits. If it is less than
/// `drawn_below`, it is taken for its residue, of which there are then equally
/// many of each. Otherwise, which happens to one word in 85, it is rejected. After every
/// [`DRAWN`] words, those that were rejected are drawn again, in their order, from what
/// follows in the stream. All this depends on nothing but the stream and the number of
/// elements, so that those who share a stream draw alike.
pub struct Sampler<'a> {
    stream: &'a mut KeyStream,
    /// Elements of the tensor.
    count: usize,
    /// The number of the next word.
    first: usize,
    spare: Spare,
}

impl<'a> Sampler<'a> {
    /// Of a tensor of so many words.
    ///
    /// # Panics
    ///
    /// If there are not as many in each plane.
    pub fn new(stream: &'a mut KeyStream, words: usize) -> Self {
        let spare = Spare { words: Zeroizing::new([0; SPARE]), used: SPARE };
        Self { stream, count: elements(words), first: 0, spare }
    }
}

impl ring::Sampler<i16> for Sampler<'_> {
    fn next(&mut self, part: &mut [i16]) {
        self.stream.fill(bytemuck::cast_slice_mut(part));
        // The words of one plane after the other: `from` the first, which is in `plane`.
        let mut from = 0;
        while from < part.len() {
            let at = self.first + from;
            let plane = at / self.count;
            let to = part.len().min(from + (plane + 1) * self.count - at);
            if let Some(modulus) = Modulus::ALL.get(plane) {
                settle(*modulus, &mut part[from..to], &mut self.spare, self.stream);
            }
            from = to;
        }
        self.first += part.len();
    }
}

/// Replaces words of a stream by the residues they are taken for, and those that are
/// rejected by others.
fn settle(modulus: Modulus, words: &mut [i16], spare: &mut Spare, stream: &mut KeyStream) {
    #[inline(always)]
    fn take(modulus: Modulus, words: &mut [i16]) {
        for word in words {
            *word = modulus.taken(i16::from_le(*word));
        }
    }
    #[inline(always)]
    fn least(words: &[i16]) -> i16 {
        words.iter().fold(i16::MAX, |least, word| least.min(*word))
    }
    vectorized(
        #[inline(always)]
        || {
            take(modulus, words);
            for words in words.chunks_mut(32) {
                if least(words) > REJECTED {
                    continue;
                }
                for word in words.iter_mut().filter(|word| **word == REJECTED) {
                    while *word == REJECTED {
                        *word = modulus.taken(spare.next(stream));
                    }
                }
            }
        },
    );
}

/// Words that are drawn when some were rejected, at a time.
const SPARE: usize = 64;

/// Words of a stream that replace rejected ones.
struct Spare {
    words: Zeroizing<[i16; SPARE]>,
    used: usize,
}

impl Spare {
    fn next(&mut self, stream: &mut KeyStream) -> i16 {
        if self.used == SPARE {
            stream.fill(bytemuck::cast_slice_mut(self.words.as_mut_slice()));
            self.used = 0;
        }
        let word = i16::from_le(self.words[self.used]);
        self.used += 1;
        word
    }
}

impl Modulus {
    /// How many signed words of 16 bits are less than this is a multiple of the modulus.
    const fn drawn_below(self) -> i16 {
        (i16::MIN as i32 + (1 << 16) / self.value() as i32 * self.value() as i32) as i16
    }

    /// The residue that a random word is taken for, or [`REJECTED`].
    #[inline(always)]
    const fn taken(self, word: i16) -> i16 {
        let residue = self.canonical(word);
        if word < self.drawn_below() { residue } else { REJECTED }
    }
}

#[cfg(test)]
mod tests {
    use super::super::modulus::{MODULI, PLANES};
    use super::super::tests::{residue, stream};
    use super::*;
    use crate::ring::{Int100, Ring};

    /// What is drawn, word by word, as the documentation says.
    #[test]
    fn samples_follow_the_stream() {
        for count in [0, 1, 7, 100, 819, 820, 5000] {
            let mut words = vec![0; PLANES * count];
            Int100::sample(&mut stream(2), &mut words);
            let (mut stream, mut expected) = (stream(2), vec![0i16; PLANES * count]);
            let mut spare: Vec<i16> = Vec::new();
            for (chunk, expected) in expected.chunks_mut(DRAWN).enumerate() {
                let mut bytes = vec![0; 2 * expected.len()];
                stream.fill(&mut bytes);
                for (i, bytes) in bytes.as_chunks().0.iter().enumerate() {
                    let m = MODULI[(chunk * DRAWN + i) / count];
                    let mut drawn = i16::from_le_bytes(*bytes);
                    // Below a multiple of m words from the least.
                    while (i32::from(drawn) + (1 << 15)) >= (1 << 16) / i32::from(m) * i32::from(m)
                    {
                        if spare.is_empty() {
                            let mut bytes = [0; 2 * SPARE];
                            stream.fill(&mut bytes);
                            let words = bytes.as_chunks().0.iter();
                            spare = words.rev().map(|bytes| i16::from_le_bytes(*bytes)).collect();
                        }
                        drawn = spare.pop().unwrap();
                    }
                    expected[i] = residue(i128::from(drawn), m);
                }
            }
            assert_eq!(words, expected, "{count} elements");
        }
    }
}
