//! The kernel for any processor.

use super::packed::{Line, PAIR, SUMS};
use super::strip::{Strip, add_sums, place};

/// The strip line by line of its panel, in code that is safe on any processor.
pub(super) fn multiply(mut strip: Strip<'_>) {
    match strip.group {
        16 => lines::<16>(&mut strip),
        8 => lines::<8>(&mut strip),
        4 => lines::<4>(&mut strip),
        _ => lines::<PAIR>(&mut strip),
    }
}

fn lines<const GROUP: usize>(strip: &mut Strip<'_>) {
    let left = strip.left;
    for line in 0..strip.vectors {
        for row in strip.rows.clone() {
            let mut sums = [0; SUMS];
            let lines = strip.lines.iter().skip(line).step_by(strip.vectors);
            let row_words = &left.data[left.start(row)..];
            for (step, line) in strip.steps.iter().zip(lines) {
                let Some(words) = row_words[*step..].first_chunk::<GROUP>() else { continue };
                add_products(&mut sums, words, line);
            }
            let modulus = strip.modulus;
            add_sums::<GROUP>(place::<GROUP>(strip, row, line), &sums, modulus);
        }
    }
}

#[inline(always)]
fn add_products<const GROUP: usize>(sums: &mut [i32; SUMS], words: &[i16; GROUP], line: &Line) {
    for (i, (sum, right)) in sums.iter_mut().zip(line.0.as_chunks::<2>().0).enumerate() {
        let at = 2 * i % GROUP;
        *sum += i32::from(words[at]) * i32::from(right[0])
            + i32::from(words[at + 1]) * i32::from(right[1]);
    }
}
