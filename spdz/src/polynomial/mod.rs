//! Polynomials with real coefficients, and the fits that stand for functions no
//! protocol of sums and products can compute exactly.

use serde::Serialize;

mod fit;
mod written;

pub use fit::{Fit, FitError, MAX_FIT_DEGREE};
pub use written::WrittenFit;

/// Places on either side of zero where [`Polynomial::largest_error`] looks.
const ERROR_GRID: u32 = 1 << 15;

/// A polynomial with real coefficients, the constant first.
///
/// It is serialised as these fields. In their place it is also read from
/// `{"fit": {"function": "relu", "bound": 3, "degree": 4}, "range": 8}`: the coefficients of
/// [`Polynomial::fit_function`], rounded beyond what a number format resolves; without `range`
/// it is the bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Polynomial {
    /// `coefficients[j]` multiplies `x^j`.
    pub coefficients: Vec<f64>,
    /// Arguments are expected within `[-range, range]`: a plan makes sure that no
    /// power and no sum of terms leaves the number format there. What happens
    /// beyond is undefined.
    pub range: f64,
}

impl Polynomial {
    /// The largest distance to `function` on a fine grid over `[-bound, bound]` that
    /// contains both ends and zero; not a number if one of the values is none.
    #[must_use]
    pub fn largest_error(&self, function: impl Fn(f64) -> f64, bound: f64) -> f64 {
        let error = |x: f64| (self.evaluate(x) - function(x)).abs();
        (0..=ERROR_GRID)
            .map(|step| bound * (f64::from(step) / f64::from(ERROR_GRID)))
            .flat_map(|x| [error(x), error(-x)])
            .fold(0.0, |largest, error| match error > largest || error.is_nan() {
                true => error,
                false => largest,
            })
    }

    /// The degree-4 least-squares fit of ReLU on `[-bound, bound]`, for arguments
    /// up to `8 / 3 * bound`.
    ///
    /// The paper fits its activation on `[-3, 3]` (its footnote 2) and does not
    /// print the coefficients; these follow from projecting ReLU on the Legendre
    /// polynomials. On `[-3, 3]` the largest error is 0.176, at zero.
    #[must_use]
    pub fn relu(bound: f64) -> Self {
        Self {
            coefficients: vec![
                15.0 * bound / 256.0,
                0.5,
                105.0 / (128.0 * bound),
                0.0,
                -105.0 / (256.0 * bound.powi(3)),
            ],
            range: 8.0 / 3.0 * bound,
        }
    }

    /// The same polynomial for arguments within `[-range, range]`.
    #[must_use]
    pub fn within(self, range: f64) -> Self {
        Self { range, ..self }
    }

    /// The value at `x`.
    #[must_use]
    pub fn evaluate(&self, x: f64) -> f64 {
        self.coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_error_sees_what_is_no_number() {
        let zero = Polynomial { coefficients: vec![0.0], range: 1.0 };
        assert_eq!(zero.largest_error(|x| x, 2.5), 2.5);
        assert!(zero.largest_error(|x| if x < 0.0 { f64::NAN } else { 1.0 }, 1.0).is_nan());
    }
}
