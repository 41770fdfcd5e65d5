//! How many of some values each of them is not less than. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::buffer::Buffer;
use crate::masked::Made;
use crate::packed::{Packed, Packing, ROW, low_bits, unpack};
use crate::ring::{BinaryRing, Int100, Side};
use crate::tensors::{PrivateId, Table, TensorId};

/// Of `count` parts of values, each of which was compared with each later one: in how many
/// comparisons it was the larger. Of equal values the earlier is. Only the largest wins all.
#[derive(Clone, Debug)]
pub struct Wins {
    /// Whether the earlier value is not less, one or zero: of all neighbours, then of those two
    /// places apart, and so on.
    pub input: PrivateId,
    /// How many parts there are.
    pub count: usize,
    /// The sums, part by part.
    pub output: PrivateId,
}

impl Wins {
    fn of(&self, side: Side, input: &Packed, len: usize) -> Packed {
        let low = low_bits(input.bits() as u32);
        let mut earlier = Buffer::<u64>::zeros(input.len().next_multiple_of(ROW));
        for (words, earlier) in input.rows().zip(earlier.chunks_exact_mut(ROW)) {
            earlier.copy_from_slice(&unpack(words, input.bits() as u32));
        }
        let (count, part) = (self.count, len / self.count);
        let mut wins = Packing::new(len, input.bits());
        let mut sums = Buffer::<u64>::zeros(part);
        for place in 0..count {
            // Those before lose where they have not won.
            sums.fill(if side == Side::Zero { place as u64 } else { 0 });
            let mut from = 0;
            for apart in 1..count {
                let pairs = &earlier[from..from + (count - apart) * part];
                from += pairs.len();
                if place + apart < count {
                    let won = &pairs[place * part..][..part];
                    sums.iter_mut().zip(won).for_each(|(sum, won)| *sum = sum.wrapping_add(*won));
                }
                if let Some(other) = place.checked_sub(apart) {
                    let lost = &pairs[other * part..][..part];
                    sums.iter_mut()
                        .zip(lost)
                        .for_each(|(sum, lost)| *sum = sum.wrapping_sub(*lost));
                }
            }
            sums.iter_mut().for_each(|sum| *sum &= low);
            wins.extend(&sums);
        }
        wins.finish()
    }
}

impl Operation for Wins {
    fn name(&self) -> &'static str {
        "wins"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let Self { input, count, output } = self;
        write!(f, " {input} of {count} -> {output} len {}", table.len(*output))
    }
}

impl<R: BinaryRing> Execute<R> for Wins {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let (side, len) = (values.side(), values.len(self.output));
        let wins = self.of(side, values.integers(self.input), len);
        values.put_made(self.output.into(), Made::Integers(wins));
    }
}

/// Its numbers have no narrow form: a plan for it has no such step.
impl Execute<Int100> for Wins {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::PrivateId;

    #[test]
    fn the_earliest_of_the_largest_values_wins_all() {
        // Two rows of five values, part by part.
        let rows = [[3, 9, 9, -1, 9], [4, 4, 2, 0, 4]];
        let mut earlier = Vec::new();
        for apart in 1..5 {
            for place in 0..5 - apart {
                earlier.extend(rows.map(|row| u64::from(row[place] >= row[place + apart])));
            }
        }
        let wins = Wins { input: PrivateId(0), count: 5, output: PrivateId(1) };
        let found = wins.of(Side::Zero, &Packed::of(&earlier, 3), 10).values();
        assert_eq!(found, [1, 4, 4, 3, 3, 1, 0, 0, 2, 2]);
        // The other server adds no public number.
        let shares = wins.of(Side::One, &Packed::of(&earlier, 3), 10).values();
        assert_eq!((shares[2] + 1) & 7, found[2]);
    }
}
