//! Least-squares fits: polynomials that follow a function on an interval.

use serde::{Deserialize, Serialize};

use super::Polynomial;
use crate::graph::Function;

/// Largest degree of a fit. Beyond, the coefficients of the powers cancel each
/// other so much that their sum loses half of its digits.
pub const MAX_FIT_DEGREE: usize = 20;

/// Nodes of the quadrature rule on each of its panels.
const QUADRATURE_NODES: usize = 64;

/// Panels on either side of zero, each half as wide as the next one outwards: they
/// resolve a kink at zero, and a step around it on intervals up to 2^40 times as wide.
const QUADRATURE_PANELS: i32 = 41;

/// What is smaller than this, relative to the largest value or term over the
/// interval, is the rounding of zero.
const ZERO: f64 = 1e-13;

/// Where and how closely a polynomial follows a function.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fit {
    /// The polynomial follows the function on `[-bound, bound]`.
    pub bound: f64,
    /// Its degree, at most [`MAX_FIT_DEGREE`].
    pub degree: usize,
    /// Arguments are expected within `[-range, range]`; see [`Polynomial::range`].
    pub range: f64,
}

/// Why there is no fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// The bound or the range is no length.
    #[error("the {what} of a fit is a finite positive number, found {found}")]
    Length {
        /// `bound` or `range`.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// The degree is too high.
    #[error("the degree of a fit is at most {MAX_FIT_DEGREE}, found {found}")]
    Degree {
        /// The degree.
        found: usize,
    },
    /// The interval contains numbers that the function is not defined for.
    #[error("{function} is defined for {domain} alone, expected on [-{bound}, {bound}]")]
    Domain {
        /// The function.
        function: &'static str,
        /// Where it is defined.
        domain: &'static str,
        /// Bound of the interval.
        bound: f64,
    },
    /// The function does not work on single numbers.
    #[error("{function} depends on a whole axis; expected a function of single elements")]
    Axis {
        /// The function.
        function: &'static str,
    },
    /// The function leaves the finite numbers.
    #[error("the function is {found} at {argument}, expected finite numbers on the whole interval")]
    Value {
        /// The argument.
        argument: f64,
        /// The function's value there.
        found: f64,
    },
    /// A coefficient leaves the numbers that 64-bit floating point keeps precisely.
    #[error(
        "the coefficient of x^{power} on [-{bound}, {bound}] is beyond 64-bit floating point; expected a bound nearer to 1"
    )]
    Coefficient {
        /// The power that it multiplies.
        power: usize,
        /// Bound of the interval.
        bound: f64,
    },
}

impl Polynomial {
    /// The polynomial of `fit.degree` with the least squared error over
    /// `[-fit.bound, fit.bound]`, each argument there weighing the same.
    ///
    /// It is the function's projection on the Legendre polynomials, by
    /// Gauss-Legendre quadrature that is split at zero: a kink there, like ReLU's,
    /// costs no accuracy. What is below 1e-13 of the largest value or term over the
    /// interval is rounding and left out, so that the fit of an odd or even function
    /// is odd or even: the other coefficients are there, and exactly zero.
    ///
    /// # Errors
    /// If the bound or the range is not finite and positive, the degree is above
    /// [`MAX_FIT_DEGREE`], a value of the function is not finite, or the interval is
    /// so wide or narrow that a coefficient is no normal number.
    pub fn fit(function: impl Fn(f64) -> f64, fit: Fit) -> Result<Self, FitError> {
        let Fit { bound, degree, range } = fit;
        for (what, found) in [("bound", bound), ("range", range)] {
            if !(found.is_finite() && found > 0.0) {
                return Err(FitError::Length { what, found });
            }
        }
        if degree > MAX_FIT_DEGREE {
            return Err(FitError::Degree { found: degree });
        }
        let at = |argument: f64| {
            let found = function(argument);
            found.is_finite().then_some(found).ok_or(FitError::Value { argument, found })
        };

        // With x = bound * t: projections[k] is the integral of f(x) P_k(t) for t in
        // [-1, 1]. Values at t and -t are taken together, which keeps parity exact.
        let mut projections = [0.0; MAX_FIT_DEGREE + 1];
        let mut largest = 0.0f64;
        let rule = gauss_legendre();
        for panel in 0..QUADRATURE_PANELS {
            let end = 0.5f64.powi(panel);
            let start = if panel + 1 == QUADRATURE_PANELS { 0.0 } else { end / 2.0 };
            for (node, weight) in rule {
                let t = start + (end - start) * (1.0 + node) / 2.0;
                let weight = weight * (end - start) / 2.0;
                let (right, left) = (at(bound * t)?, at(-bound * t)?);
                largest = largest.max(right.abs()).max(left.abs());
                let both = [weight * right + weight * left, weight * right - weight * left];
                for (k, value) in legendre(t).into_iter().enumerate().take(degree + 1) {
                    projections[k] += both[k % 2] * value;
                }
            }
        }

        // The sum of (2k + 1) / 2 * projections[k] * P_k in powers of t. No P_k
        // exceeds 1, so its factor is the scale of its term.
        let mut powers = vec![0.0; degree + 1];
        for (k, row) in legendre_coefficients().iter().enumerate().take(degree + 1) {
            let factor = (k as f64 + 0.5) * projections[k];
            if factor.abs() > ZERO * largest {
                powers.iter_mut().zip(row).for_each(|(power, c)| *power += factor * c);
            }
        }
        let largest = powers.iter().fold(0.0f64, |largest, power| largest.max(power.abs()));
        let mut coefficients = vec![0.0; degree + 1];
        let mut unit = 1.0;
        for (power, (coefficient, scaled)) in coefficients.iter_mut().zip(powers).enumerate() {
            if scaled.abs() > ZERO * largest {
                *coefficient = scaled / unit;
                if !coefficient.is_normal() {
                    return Err(FitError::Coefficient { power, bound });
                }
            }
            unit *= bound;
        }
        Ok(Self { coefficients, range })
    }

    /// [`Polynomial::fit`] of a function of single elements.
    ///
    /// # Errors
    /// As [`Polynomial::fit`], and if the function is not defined on the whole
    /// interval (logarithm, square root, reciprocal) or works along an axis.
    pub fn fit_function(function: Function, fit: Fit) -> Result<Self, FitError> {
        let outside =
            |function, domain| Err(FitError::Domain { function, domain, bound: fit.bound });
        match function {
            Function::Log => outside("log", "positive numbers"),
            Function::Sqrt => outside("sqrt", "numbers from zero on"),
            Function::Reciprocal => outside("reciprocal", "numbers other than zero"),
            Function::ArgMax => Err(FitError::Axis { function: "argmax" }),
            Function::Relu
            | Function::Sigmoid
            | Function::Tanh
            | Function::Exp
            | Function::Softmax => {
                let function = function.of_elements();
                Self::fit(function.ok_or(FitError::Axis { function: "softmax" })?, fit)
            }
        }
    }
}

/// The Legendre polynomials up to [`MAX_FIT_DEGREE`] at `t`, by
/// `(k + 1) P_{k+1}(t) = (2k + 1) t P_k(t) - k P_{k-1}(t)`.
fn legendre(t: f64) -> [f64; MAX_FIT_DEGREE + 1] {
    let mut values = [1.0; MAX_FIT_DEGREE + 1];
    values[1] = t;
    for k in 1..MAX_FIT_DEGREE {
        let n = k as f64;
        values[k + 1] = ((2.0 * n + 1.0) * t * values[k] - n * values[k - 1]) / (n + 1.0);
    }
    values
}

/// The coefficients of the Legendre polynomials up to [`MAX_FIT_DEGREE`], a row for
/// each, the constant first, by the recurrence of [`legendre`].
fn legendre_coefficients() -> [[f64; MAX_FIT_DEGREE + 1]; MAX_FIT_DEGREE + 1] {
    let mut rows = [[0.0; MAX_FIT_DEGREE + 1]; MAX_FIT_DEGREE + 1];
    rows[0][0] = 1.0;
    rows[1][1] = 1.0;
    for k in 1..MAX_FIT_DEGREE {
        let n = k as f64;
        for power in 0..=k + 1 {
            let raised = if power == 0 { 0.0 } else { rows[k][power - 1] };
            rows[k + 1][power] = ((2.0 * n + 1.0) * raised - n * rows[k - 1][power]) / (n + 1.0);
        }
    }
    rows
}

/// Nodes and weights of the Gauss-Legendre rule on `[-1, 1]`: the roots of the
/// Legendre polynomial of degree [`QUADRATURE_NODES`] by Newton's method, each with
/// `2 / ((1 - t^2) P'(t)^2)`.
fn gauss_legendre() -> [(f64, f64); QUADRATURE_NODES] {
    let order = QUADRATURE_NODES as f64;
    std::array::from_fn(|index| {
        let mut t = (std::f64::consts::PI * (index as f64 + 0.75) / (order + 0.5)).cos();
        let mut slope = 1.0;
        // From this start Newton's method has all digits after four steps.
        for _ in 0..8 {
            let (mut before, mut value) = (1.0, t);
            for k in 1..QUADRATURE_NODES {
                let n = k as f64;
                (before, value) = (value, ((2.0 * n + 1.0) * t * value - n * before) / (n + 1.0));
            }
            slope = order * (before - t * value) / (1.0 - t * t);
            t -= value / slope;
        }
        (t, 2.0 / ((1.0 - t * t) * slope * slope))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relu(x: f64) -> f64 {
        x.max(0.0)
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    fn fit(function: Function, degree: usize, bound: f64) -> Polynomial {
        Polynomial::fit_function(function, Fit { bound, degree, range: bound }).unwrap()
    }

    #[track_caller]
    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{found:?}, expected {expected:?}");
        for (power, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 1e-12, "x^{power}: {found}, expected {expected}");
        }
    }

    #[test]
    fn the_fits_of_relu_are_those_in_closed_form() {
        for bound in [0.5, 3.0, 13.0] {
            let line_and_square = [3.0 * bound / 32.0, 0.5, 15.0 / (32.0 * bound)];
            assert_close(&fit(Function::Relu, 2, bound).coefficients, &line_and_square);
            let closed = Polynomial::relu(bound);
            assert_close(&fit(Function::Relu, 4, bound).coefficients, &closed.coefficients);
        }
        let paper = Fit { bound: 3.0, degree: 4, range: 8.0 };
        assert_eq!(Polynomial::fit(relu, paper).unwrap().range, Polynomial::relu(3.0).range);
    }

    #[test]
    fn the_errors_of_relu_are_the_published_ones_and_at_zero() {
        for (degree, published) in [(2, 0.281), (4, 0.176), (6, 0.128), (8, 0.101)] {
            let polynomial = fit(Function::Relu, degree, 3.0);
            let error = polynomial.largest_error(relu, 3.0);
            assert!((error - published).abs() < 0.0005, "degree {degree}: {error}");
            assert_eq!(error, polynomial.evaluate(0.0));
        }
    }

    #[test]
    fn a_function_is_even_or_odd_and_so_is_its_fit() {
        for degree in 0..=MAX_FIT_DEGREE {
            for bound in [0.25, 1.0, 3.0, 8.0, 100.0] {
                let zero_beyond = |function, parity: usize, low: usize| {
                    let Polynomial { coefficients, .. } = fit(function, degree, bound);
                    assert_eq!(coefficients.len(), degree + 1);
                    for (power, coefficient) in coefficients.iter().enumerate() {
                        if power > low && power % 2 != parity {
                            assert_eq!(*coefficient, 0.0, "x^{power} of {function:?}, {bound}");
                        }
                    }
                    coefficients
                };
                let tanh = zero_beyond(Function::Tanh, 1, 0);
                assert_eq!(tanh[0], 0.0);
                let sigmoid = zero_beyond(Function::Sigmoid, 1, 0);
                assert!((sigmoid[0] - 0.5).abs() < 1e-12);
                let relu = zero_beyond(Function::Relu, 0, 1);
                assert!(degree == 0 || (relu[1] - 0.5).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_fits_of_sigmoid_and_tanh_are_close() {
        let sigmoid_error = fit(Function::Sigmoid, 9, 8.0).largest_error(sigmoid, 8.0);
        assert!((sigmoid_error - 0.016_536).abs() < 1e-6, "{sigmoid_error}");
        let tanh_error = fit(Function::Tanh, 9, 4.0).largest_error(f64::tanh, 4.0);
        assert!((tanh_error - 0.033_072).abs() < 1e-6, "{tanh_error}");
        // The logistic function is a hyperbolic tangent: 2 sigmoid(2x) - 1 = tanh(x).
        assert!((tanh_error - 2.0 * sigmoid_error).abs() < 1e-12);
    }

    #[test]
    fn more_terms_never_fit_worse() {
        for function in [Function::Relu, Function::Sigmoid, Function::Tanh, Function::Exp] {
            let exact = |x: f64| match function {
                Function::Relu => relu(x),
                Function::Sigmoid => sigmoid(x),
                Function::Tanh => x.tanh(),
                _ => x.exp(),
            };
            let squares = |polynomial: &Polynomial| -> f64 {
                let points = (-2000..=2000).map(|step| f64::from(step) / 500.0);
                points.map(|x| (polynomial.evaluate(x) - exact(x)).powi(2)).sum::<f64>() / 4001.0
            };
            let mut before = f64::INFINITY;
            for degree in 0..=MAX_FIT_DEGREE {
                let now = squares(&fit(function, degree, 4.0));
                // The sum stands for the integral but for the points' spacing.
                assert!(now <= before * 1.01 + 1e-15, "{function:?} {degree}: {before} {now}");
                before = now;
            }
        }
    }

    #[test]
    fn a_polynomial_is_its_own_fit() {
        let cubic = |x: f64| 4.0 - 3.0 * x + 0.5 * x.powi(3);
        for bound in [0.125, 1.0, 5.0] {
            let fit = Fit { bound, degree: 5, range: 9.0 };
            let found = Polynomial::fit(cubic, fit).unwrap();
            assert_eq!(found.range, 9.0);
            assert_close(&found.coefficients[..4], &[4.0, -3.0, 0.0, 0.5]);
            assert_eq!([found.coefficients[2], found.coefficients[4]], [0.0, 0.0]);
        }
        for power in 0..=6 {
            let monomial = |x: f64| x.powi(power);
            let fit = Fit { bound: 3.0, degree: 6, range: 3.0 };
            for (index, found) in (0..).zip(Polynomial::fit(monomial, fit).unwrap().coefficients) {
                let close = index == power && (found - 1.0).abs() < 1e-11;
                assert!(close || index != power && found == 0.0, "x^{power}: {found} x^{index}");
            }
        }
        let zero = Polynomial::fit(|_| 0.0, Fit { bound: 1.0, degree: 3, range: 1.0 }).unwrap();
        assert_eq!(zero.coefficients, [0.0; 4]);
    }

    #[test]
    fn a_step_is_resolved_on_wide_intervals() {
        // The coefficient of P_1 is 3 times the integral of t tanh(bound t) over [0, 1],
        // and that of u (1 - tanh(u)) over all positive numbers is pi^2 / 24.
        for bound in [100.0, 1e4, 1e6] {
            let line = fit(Function::Tanh, 1, bound).coefficients[1] * bound;
            let expected = 1.5 - (std::f64::consts::PI / bound).powi(2) / 8.0;
            assert!((line - expected).abs() < 1e-13, "{line}, expected {expected}");
        }
    }

    #[test]
    fn a_fit_that_cannot_be_is_refused() {
        let refused = |function, bound, degree, range| {
            Polynomial::fit_function(function, Fit { bound, degree, range })
                .unwrap_err()
                .to_string()
        };
        let cases = [
            (
                refused(Function::Relu, 0.0, 4, 1.0),
                "bound of a fit is a finite positive number, found 0",
            ),
            (
                refused(Function::Relu, f64::NAN, 4, 1.0),
                "bound of a fit is a finite positive number, found NaN",
            ),
            (
                refused(Function::Relu, 1.0, 4, -2.0),
                "range of a fit is a finite positive number, found -2",
            ),
            (
                refused(Function::Relu, 1.0, 4, f64::INFINITY),
                "range of a fit is a finite positive number, found inf",
            ),
            (refused(Function::Relu, 1.0, 21, 1.0), "degree of a fit is at most 20, found 21"),
            (
                refused(Function::Log, 2.0, 4, 1.0),
                "log is defined for positive numbers alone, expected on [-2, 2]",
            ),
            (
                refused(Function::Sqrt, 2.0, 4, 1.0),
                "sqrt is defined for numbers from zero on alone",
            ),
            (
                refused(Function::Reciprocal, 2.0, 4, 1.0),
                "reciprocal is defined for numbers other than zero",
            ),
            (refused(Function::Softmax, 2.0, 4, 1.0), "softmax depends on a whole axis"),
            (refused(Function::ArgMax, 2.0, 4, 1.0), "argmax depends on a whole axis"),
            (refused(Function::Exp, 1000.0, 4, 1.0), "the function is inf at "),
            (refused(Function::Relu, 1e-200, 4, 1.0), "the coefficient of x^"),
            (refused(Function::Tanh, 1e200, 3, 1.0), "the coefficient of x^3"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found:?} says nothing of {expected:?}");
        }
    }
}
