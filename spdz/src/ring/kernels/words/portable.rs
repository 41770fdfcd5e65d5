//! The kernel for any processor.

use super::packed::{LANES, Line};
use super::strip::{Strip, write};

/// The strip line by line of its panel, in code that is safe on any processor.
pub(super) fn multiply(strip: Strip<'_>) {
    let left = strip.left;
    for column in 0..strip.vectors {
        let first = strip.columns.start + column * LANES;
        let width = LANES.min(strip.columns.end - first);
        for row in strip.rows.clone() {
            let mut sums = Line::default();
            let mut lines = strip.panel.chunks_exact(strip.vectors);
            for segment in 0..left.segments {
                let words = &left.data[left.start(row) + segment * left.stride..];
                for (word, lines) in words[..left.length].iter().zip(&mut lines) {
                    for (sum, right) in sums.0.iter_mut().zip(lines[column].0) {
                        *sum = sum.wrapping_add(word.wrapping_mul(right));
                    }
                }
            }
            let out = &mut strip.out[row * strip.n + first..][..width];
            write(out, &sums, strip.accumulate);
        }
    }
}
