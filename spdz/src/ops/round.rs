//! Rounding of what is revealed: its low bits tell no more than the number.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::ring::kernels::vectorized;
use crate::ring::{BinaryRing, Int100, Side};
use crate::share::Share;
use crate::tensors::{PrivateId, Table, TensorId};

/// Clears the low bits of a private tensor: a neighbouring multiple of `2^bits`, right on average.
/// Local, and never off by more, as shares that are shifted to the right and back
/// ([`OpenNarrow`](super::OpenNarrow) says why) have as many bits as the ring.
#[derive(Clone, Debug)]
pub struct Round {
    /// The private tensor.
    pub input: PrivateId,
    /// How many bits are cleared, fewer than the ring has.
    pub bits: u32,
    /// The multiples.
    pub output: PrivateId,
}

impl Operation for Round {
    fn name(&self) -> &'static str {
        "round"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} bits {} -> {}", self.input, self.bits, self.output)
    }
}

impl<R: BinaryRing> Execute<R> for Round {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let mut share = values.take(self.input);
        round(&mut share, self.bits, values.side());
        values.put(self.output, share);
    }
}

/// Clears the low bits of one server's share.
fn round<R: BinaryRing>(share: &mut Share<R>, bits: u32, side: Side) {
    let words = &mut share.0[..];
    vectorized(
        #[inline(always)]
        move || {
            for word in words {
                let value: u64 = (*word).into();
                *word = R::word(match side {
                    Side::Zero => value >> bits << bits,
                    Side::One => (value.wrapping_neg() >> bits << bits).wrapping_neg(),
                });
            }
        },
    );
}

/// Its numbers have no low bits: a plan for it has no such step.
impl Execute<Int100> for Round {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;
    use crate::ring::{Int64, Ring};
    use crate::share::{reconstruct, share};

    #[test]
    fn a_share_is_rounded_to_a_neighbour_and_right_on_average() {
        const BITS: u32 = 12;
        let values = [0, 1, -1, 4095, 4096, -4096, 1 << 40, i128::from(i64::MAX), 12345, -12345];
        let mut stream = Seed::from_bytes([9; 32]).into_stream();
        for value in values {
            let mut words = vec![0; 4000];
            Int64::from_integers(&vec![value; 4000], &mut words);
            let (mut x, mut y) = share::<Int64>(&words, &mut stream);
            round(&mut x, BITS, Side::Zero);
            round(&mut y, BITS, Side::One);
            let low = value >> BITS << BITS;
            let found = reconstruct(&x, &y);
            let steps = found.iter().map(|word| {
                let step = word.wrapping_sub(low as u64);
                assert!(step == 0 || step == 1 << BITS, "{value}: {word}");
                step as f64
            });
            let mean = steps.sum::<f64>() / 4000.0;
            let expected = (value - low) as f64;
            // Six standard deviations of a mean of 4000.
            assert!((mean - expected).abs() < 6.0 * 2048.0 / 4000f64.sqrt(), "{value}: {mean}");
        }
    }
}
