//! Division by a power of two, without interaction.

use crate::ring::{Ring, Side, kernels};
use crate::share::Share;

/// Divides a shared tensor by `2^bits` in place ([`Ring::truncate`]).
pub fn truncate<R: Ring>(x: &mut Share<R>, bits: u32, side: Side) {
    // A match outside the loop, so that each side's loop is vectorised on its own.
    kernels::vectorized(|| match side {
        Side::Zero => x.0.iter_mut().for_each(|x| *x = R::truncate(*x, bits, Side::Zero)),
        Side::One => x.0.iter_mut().for_each(|x| *x = R::truncate(*x, bits, Side::One)),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;
    use crate::ring::Int64;
    use crate::share::{reconstruct, share};

    /// Truncates `value` many times under fresh shares: the differences from the floor.
    fn errors(value: i64, bits: u32, samples: usize) -> Vec<i128> {
        let values = vec![value as u64; samples];
        let mut stream = Seed::from_bytes([bits as u8; 32]).into_stream();
        let (mut x0, mut x1) = share::<Int64>(&values, &mut stream);
        truncate(&mut x0, bits, Side::Zero);
        truncate(&mut x1, bits, Side::One);
        let floor = i128::from(value >> bits);
        reconstruct(&x0, &x1).iter().map(|&x| Int64::to_integer(x) - floor).collect()
    }

    #[test]
    fn the_error_is_zero_or_one_and_unbiased() {
        for bits in [12, 14, 18] {
            for value in [0, 1, -1, 4095, -4097, 123_456_789, -987_654_321, 1 << 30] {
                let errors = errors(value, bits, 50_000);
                assert!(errors.iter().all(|error| (0..=1).contains(error)), "{value} {bits}");
                // floor + error should average to the exact quotient.
                let mean = errors.iter().sum::<i128>() as f64 / errors.len() as f64;
                let remainder = (value & ((1 << bits) - 1)) as f64 / f64::from(bits).exp2();
                assert!((mean - remainder).abs() < 0.012, "{value} {bits}: {mean} {remainder}");
            }
        }
    }

    #[test]
    fn it_fails_with_the_documented_probability() {
        // |x| / 2^64 = 1/16; a failure is off by 2^(64 - bits).
        let bits = 13;
        let samples = 100_000;
        let failures: Vec<i128> = errors(1 << 60, bits, samples)
            .into_iter()
            .filter(|error| !(0..=1).contains(error))
            .collect();
        let rate = failures.len() as f64 / samples as f64;
        assert!((rate - 1.0 / 16.0).abs() < 0.004, "{rate}");
        let expected = 1i128 << (64 - bits);
        assert!(failures.iter().all(|error| (error.abs() - expected).abs() <= 1));
    }
}
