//! How polynomials are written by hand, and what they are once read: a fit becomes its
//! coefficients, which alone are written out again and covered by a plan's digest.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::{Fit, FitError, Polynomial};
use crate::graph::Function;

/// A polynomial as a graph's file has it: by its coefficients or by what it is fitted to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenPolynomial {
    coefficients: Option<Vec<f64>>,
    fit: Option<WrittenFit>,
    range: Option<f64>,
}

/// The function and the interval on which a polynomial follows it, as a graph's file has them:
/// `{"function": "relu", "bound": 3, "degree": 4}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrittenFit {
    /// What the polynomial follows.
    pub function: Function,
    /// On `[-bound, bound]`.
    pub bound: f64,
    /// The polynomial's degree, at most [`super::MAX_FIT_DEGREE`].
    pub degree: usize,
}

impl WrittenFit {
    /// The largest distance of the polynomial to the function on the interval, where computing it
    /// on shares adds nothing; none if there is no such fit.
    #[must_use]
    pub fn error(&self) -> Option<f64> {
        let Self { function, bound, degree } = *self;
        let fit = Polynomial::fit_function(function, Fit { bound, degree, range: bound }).ok()?;
        Some(rounded(fit, bound).largest_error(function.of_elements()?, bound))
    }
}

/// For people, with the error: `sigmoid by degree 9: within 0.0126 on [-8, 8]`.
impl fmt::Display for WrittenFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, bound, degree } = self;
        write!(f, "{} by degree {degree}: ", function.name())?;
        match self.error() {
            Some(error) => write!(f, "within {error:.2e} on [-{bound}, {bound}]"),
            None => write!(f, "no fit on [-{bound}, {bound}]"),
        }
    }
}

/// Why there is no polynomial.
#[derive(Debug, thiserror::Error)]
enum WrittenError {
    /// There is nothing to make it of, or too much.
    #[error("a polynomial has either `coefficients` or a `fit`, found {0}")]
    Either(&'static str),
    /// Nothing says what its arguments are.
    #[error("a polynomial of `coefficients` needs its `range`")]
    Range,
    /// There is no such fit.
    #[error(transparent)]
    Fit(#[from] FitError),
}

impl<'de> Deserialize<'de> for Polynomial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WrittenPolynomial::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

impl TryFrom<WrittenPolynomial> for Polynomial {
    type Error = WrittenError;

    fn try_from(written: WrittenPolynomial) -> Result<Self, WrittenError> {
        let WrittenPolynomial { coefficients, fit, range } = written;
        match (coefficients, fit) {
            (Some(coefficients), None) => {
                let range = range.ok_or(WrittenError::Range)?;
                Ok(Self { coefficients, range })
            }
            (None, Some(WrittenFit { function, bound, degree })) => {
                let fit = Fit { bound, degree, range: range.unwrap_or(bound) };
                let polynomial = Self::fit_function(function, fit)?;
                Ok(rounded(polynomial, bound))
            }
            (None, None) => Err(WrittenError::Either("neither")),
            (Some(_), Some(_)) => Err(WrittenError::Either("both")),
        }
    }
}

/// The polynomial with each term rounded to 2^-30 of the largest on `[-bound, bound]`, finer
/// than a number format. Parties read the same fit on their own, and must find the same
/// numbers, though the last digits of an exponential depend on the machine.
fn rounded(polynomial: Polynomial, bound: f64) -> Polynomial {
    let Polynomial { mut coefficients, range } = polynomial;
    let powers = std::iter::successors(Some(1.0), |power| Some(power * bound));
    let powers: Vec<f64> = powers.take(coefficients.len()).collect();
    let terms = coefficients.iter().zip(&powers).map(|(c, power)| (c * power).abs());
    let largest = terms.fold(0.0, f64::max);
    if largest == 0.0 {
        return Polynomial { coefficients, range };
    }
    // The power of two below a multiple of the largest, which is often one itself: without
    // that factor the last digit of the largest would decide.
    let unit = f64::from_bits((1.37 * largest).to_bits() >> 52 << 52) / f64::from(1 << 30);
    for (coefficient, power) in coefficients.iter_mut().zip(powers) {
        // Adding 0 makes a zero positive.
        *coefficient = (*coefficient * power / unit).round() * unit / power + 0.0;
    }
    Polynomial { coefficients, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Polynomial, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fit_is_read_as_its_coefficients_and_written_as_those() {
        let relu = read(r#"{"fit": {"function": "relu", "bound": 3, "degree": 4}, "range": 8}"#);
        assert_eq!(relu.as_ref(), Ok(&Polynomial::relu(3.0)));
        let written = serde_json::to_string(&relu).unwrap();
        assert!(written.contains(r#""coefficients":[0.17578125,0.5,0.2734375,0.0,"#), "{written}");
        let sigmoid = read(r#"{"fit": {"function": "sigmoid", "bound": 8.0, "degree": 9}}"#);
        let sigmoid = sigmoid.unwrap();
        assert_eq!((sigmoid.range, sigmoid.coefficients[0]), (8.0, 0.5));
        let again = read(&serde_json::to_string(&sigmoid).unwrap()).unwrap();
        assert_eq!(again, sigmoid);
    }

    #[test]
    fn a_fit_knows_how_far_it_is_from_its_function() {
        let fit = |function, bound, degree| WrittenFit { function, bound, degree };
        let relu = fit(Function::Relu, 3.0, 4);
        // At zero, where the polynomial is 45 / 256 (`Polynomial::relu`).
        assert!((relu.error().unwrap() - 45.0 / 256.0).abs() < 1e-8);
        assert_eq!(relu.to_string(), "relu by degree 4: within 1.76e-1 on [-3, 3]");
        assert!(fit(Function::Sigmoid, 8.0, 9).error() < fit(Function::Sigmoid, 8.0, 3).error());
        assert_eq!(fit(Function::Log, 1.0, 2).to_string(), "log by degree 2: no fit on [-1, 1]");
    }

    #[test]
    fn what_is_no_polynomial_is_refused() {
        for (text, expected) in [
            (r#"{"range": 1}"#, "found neither"),
            (
                r#"{"coefficients": [1], "fit": {"function": "relu", "bound": 1, "degree": 1}, "range": 1}"#,
                "found both",
            ),
            (r#"{"coefficients": [1]}"#, "needs its `range`"),
            (r#"{"coefficients": [1], "range": 1, "bound": 1}"#, "unknown field `bound`"),
            (r#"{"fit": {"function": "relu", "bound": 1}}"#, "missing field `degree`"),
            (r#"{"fit": {"function": "relu", "bound": 1, "degree": 21}}"#, "at most 20, found 21"),
            (r#"{"fit": {"function": "relu", "bound": 0, "degree": 1}}"#, "bound of a fit"),
            (
                r#"{"fit": {"function": "relu", "bound": 1, "degree": 1}, "range": -1}"#,
                "the range of a fit is a finite positive number, found -1",
            ),
            (r#"{"fit": {"function": "sqrt", "bound": 1, "degree": 1}}"#, "numbers from zero on"),
            (r#"{"fit": {"function": "softmax", "bound": 1, "degree": 1}}"#, "a whole axis"),
            (r#"{"fit": {"function": "relu", "bound": 1e16, "degree": 20}}"#, "bound nearer to 1"),
            (r#"{"fit": {"function": "exp", "bound": 800, "degree": 8}}"#, "finite numbers"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(expected), "{refused}\n(expected {expected})");
        }
    }

    #[test]
    fn machines_whose_functions_differ_in_the_last_digit_read_the_same_fit() {
        // A last digit that goes up or down as it likes.
        let off = |value: f64, seed: u64| {
            if value == 0.0 {
                return value;
            }
            let bits = value.to_bits();
            let random = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed) >> 32;
            f64::from_bits(bits.wrapping_add(random % 3).wrapping_sub(1))
        };
        for function in [Function::Sigmoid, Function::Tanh, Function::Exp, Function::Relu] {
            let exact = function.of_elements().unwrap();
            for degree in [0, 2, 4, 9, 13] {
                for bound in [0.5, 3.0, 8.0] {
                    let fit = Fit { bound, degree, range: bound };
                    let here = rounded(Polynomial::fit_function(function, fit).unwrap(), bound);
                    for seed in 0..8 {
                        let there = Polynomial::fit(|x| off(exact(x), seed << 34), fit).unwrap();
                        assert_eq!(rounded(there, bound), here, "{function:?} {degree} {bound}");
                    }
                }
            }
        }
    }
}
