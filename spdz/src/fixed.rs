//! Fixed point: real numbers as ring elements.
//!
//! A real `x` with `fraction` fractional bits is the integer nearest to
//! `x * 2^fraction`. Numbers must lie within the format's range, chosen so that
//! no inner product of the sizes that a plan admits can wrap around, unless the range of
//! such sums is declared ([`DECLARES_RANGES`](crate::ring::Ring::DECLARES_RANGES)).

use zeroize::Zeroizing;

use crate::ring::kernels::vectorized;

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
    /// The magnitude that values stay below.
    #[must_use]
    pub fn limit(&self) -> f64 {
        f64::from(self.integral).exp2()
    }

    /// The same for values below `range`, a power of two, if it is given.
    #[must_use]
    pub fn within(self, range: Option<u32>) -> Self {
        Self { integral: range.map_or(self.integral, u32::ilog2), ..self }
    }

    /// The largest inner dimension of a product that cannot wrap around,
    /// whatever values within the range are multiplied. Says nothing where the range of sums is
    /// [declared](crate::ring::Ring::DECLARES_RANGES).
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

    /// [`Precision::encode`] for each of `values`.
    ///
    /// # Errors
    /// The first that is not a number or not within the range, and its index.
    pub fn encode_all(
        &self,
        values: &[f64],
        fraction: i32,
    ) -> Result<Zeroizing<Vec<i128>>, (usize, RangeError)> {
        let limit = self.limit();
        let scale = f64::from(fraction).exp2();
        let mut integers = Zeroizing::new(vec![0; values.len()]);
        let mut all_within = true;
        // Of integers that fit 64 bits many are made at once; one of 128 bits takes a call.
        let short = f64::from(self.integral) + f64::from(fraction) < 63.0;
        vectorized(
            #[inline(always)]
            || {
                for (integer, value) in integers.iter_mut().zip(values) {
                    // What is not a number is not within either.
                    all_within &= value.abs() < limit;
                    if short {
                        *integer = i128::from(nearest(value * scale) as i64);
                    }
                }
            },
        );
        if !all_within || !short {
            for (index, (integer, value)) in integers.iter_mut().zip(values).enumerate() {
                *integer = self.encode(*value, fraction).map_err(|error| (index, error))?;
            }
        }
        Ok(integers)
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

/// The nearest integer, ties away from zero: [`f64::round`] in a form of which a processor
/// does several at once.
#[inline(always)]
fn nearest(x: f64) -> f64 {
    let whole = x.trunc();
    if (x - whole).abs() < 0.5 { whole } else { whole + 1f64.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Int64, NumberFormat, Ring};
    use proptest::prelude::*;

    const FORMAT: Precision = Int64::PRECISION;

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

    proptest! {
        #[test]
        fn many_are_encoded_like_one(
            mut values in proptest::collection::vec(-1023.9f64..1023.9, 1..50),
            halves in -2000i32..2000,
            fraction in 0i32..90,
            at: prop::sample::Index,
            bad in prop::sample::select(vec![1024.0, -1e30, f64::NAN, f64::INFINITY]),
        ) {
            let half = f64::from(halves) / 2.0 / f64::from(fraction).exp2();
            values.extend([half, half.next_up(), half.next_down(), 0.49999999999999994, -0.0]);
            let one = |value: &f64| FORMAT.encode(*value, fraction).unwrap();
            let expected: Vec<i128> = values.iter().map(one).collect();
            prop_assert_eq!(&*FORMAT.encode_all(&values, fraction).unwrap(), &expected);
            let at = at.index(values.len());
            values[at] = bad;
            prop_assert_eq!(FORMAT.encode_all(&values, fraction).unwrap_err().0, at);
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
        fn check<R: Ring>() {
            let precision = R::PRECISION;
            let k = precision.largest_inner_dimension() as i128;
            let largest = (1i128 << (precision.fraction + precision.integral)) - 1;
            let sum = k * largest * largest;
            let mut words = vec![R::Word::default(); 2 * R::PLANES];
            R::from_integers(&[sum, -sum], &mut words);
            let holds = R::to_integers(&words) == [sum, -sum];
            assert_eq!(holds, !R::DECLARES_RANGES, "{}", R::NAME);
        }
        macro_rules! check_all {
            ($($ring:ident),+) => { $(check::<crate::ring::$ring>();)+ };
        }
        crate::ring::for_each_ring!(check_all);
    }

    #[test]
    fn a_declared_range_is_that_of_the_values_and_fills_the_ring() {
        for format in NumberFormat::ALL.into_iter().filter(|format| format.declares_ranges()) {
            let Precision { fraction, integral, ring, dividend } = format.precision();
            assert_eq!((2 * fraction + integral, dividend), (dividend, ring - 1), "{format}");
        }
    }
}
