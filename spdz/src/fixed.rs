//! Fixed point: real numbers as ring elements.
//!
//! A real `x` with `fraction` fractional bits is the integer nearest to
//! `x * 2^fraction`. Numbers must lie within the format's range, chosen so that
//! no inner product of the sizes that a plan admits can wrap around.

use crate::ring::{Int64, Int100, Ring};

/// Precision and range of a number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Fractional bits of every value that is multiplied.
    pub fraction: u32,
    /// Values are smaller than `2^integral` in magnitude.
    pub integral: u32,
    /// Bits of the ring, the sign included.
    pub ring: u32,
    /// Sums of products stay below `2^dividend` in magnitude before they are truncated.
    pub dividend: u32,
}

/// A number that the format cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{value} is outside the fixed-point range of -{limit} to {limit}")]
pub struct RangeError {
    /// The number.
    pub value: f64,
    /// The magnitude it must stay below.
    pub limit: f64,
}

impl Precision {
    /// `Int64`: 12 fractional bits are enough for the paper's networks (mean KL
    /// divergence about 1e-7) and keep values small against 2^64, on whose ratio
    /// the failure probability of the local truncation depends.
    pub const INT64: Self =
        Self { fraction: 12, integral: 10, ring: 64, dividend: Int64::DIVIDEND_BITS };

    /// `Int100`: two more fractional bits than `Int64`. The dividends' 60 bits are what
    /// interactive truncation leaves of the ring's 102 after 40 for statistical
    /// security and two for sums of masks; inner products of up to 4096 factors fit.
    pub const INT100: Self =
        Self { fraction: 14, integral: 10, ring: 102, dividend: Int100::DIVIDEND_BITS };

    /// The magnitude that values stay below.
    #[must_use]
    pub fn limit(&self) -> f64 {
        f64::from(self.integral).exp2()
    }

    /// The largest inner dimension of a product that cannot wrap around,
    /// whatever values within the range are multiplied.
    #[must_use]
    pub fn largest_inner_dimension(&self) -> usize {
        1 << self.dividend.saturating_sub(2 * (self.fraction + self.integral))
    }

    /// The integer nearest to `value * 2^fraction`; ties away from zero.
    ///
    /// # Errors
    /// If `value` is not a number or not within the range.
    pub fn encode(&self, value: f64, fraction: i32) -> Result<i128, RangeError> {
        let limit = self.limit();
        if value.is_nan() || value.abs() >= limit {
            return Err(RangeError { value, limit });
        }
        Ok((value * f64::from(fraction).exp2()).round() as i128)
    }

    /// The number that an integer with `fraction` fractional bits stands for.
    ///
    /// # Errors
    /// If it is not within the range: the computation overflowed, or a local
    /// truncation failed.
    pub fn decode(&self, integer: i128, fraction: i32) -> Result<f64, RangeError> {
        let limit = self.limit();
        let value = integer as f64 / f64::from(fraction).exp2();
        if value.abs() < limit { Ok(value) } else { Err(RangeError { value, limit }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMAT: Precision = Precision::INT64;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_within_half_a_unit(x in -1023.9f64..1023.9, fraction in 0i32..30) {
            let element = FORMAT.encode(x, fraction).unwrap();
            let back = FORMAT.decode(element, fraction);
            let unit = f64::from(fraction).exp2().recip();
            // Rounding may reach the limit itself, which decoding refuses.
            prop_assert!(back.is_err() && x.abs() > 1023.0 || (back.unwrap() - x).abs() <= unit / 2.0);
        }
    }

    #[test]
    fn numbers_outside_the_range_are_refused_with_the_range() {
        for value in [1024.0, -1024.0, 1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let error = FORMAT.encode(value, 12).unwrap_err().to_string();
            assert!(error.contains("-1024 to 1024"), "{error}");
        }
        let wrapped = FORMAT.decode(1 << 52, 12).unwrap_err();
        assert_eq!(wrapped.value, 2f64.powi(40));
    }

    #[test]
    fn the_largest_inner_product_does_not_wrap() {
        let k = FORMAT.largest_inner_dimension() as i128;
        let largest = (1i128 << (FORMAT.fraction + FORMAT.integral)) - 1;
        let sum = k * largest * largest;
        let mut words = [0; 2];
        Int64::from_integers(&[sum, -sum], &mut words);
        assert_eq!(Int64::to_integers(&words), [sum, -sum]);
    }
}
