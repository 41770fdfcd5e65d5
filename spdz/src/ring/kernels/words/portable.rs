//! The kernel for any processor.

use super::packed::Line;
use super::strip::{Strip, write};
use super::word::Word;

/// The strip line by line of its panel, in code that is safe on any processor.
pub(super) fn multiply<W: Word>(strip: Strip<'_, W>) {
    let left = strip.left;
    for column in 0..strip.vectors {
        let first = strip.columns.start + column * W::LANES;
        let width = W::LANES.min(strip.columns.end - first);
        for row in strip.rows.clone() {
            let mut sums = Line::<W>::default();
            let mut lines = strip.panel.chunks_exact(strip.vectors);
            for segment in 0..left.segments {
                let words = &left.data[left.start(row) + segment * left.stride..];
                for (word, lines) in words[..left.length].iter().zip(&mut lines) {
                    let right = lines[column].words();
                    for (sum, right) in sums.words_mut().iter_mut().zip(right) {
                        *sum = sum.plus(word.times(*right));
                    }
                }
            }
            let out = &mut strip.out[row * strip.n + first..][..width];
            write(out, sums.words(), strip.accumulate);
        }
    }
}
