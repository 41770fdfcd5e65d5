//! Continuous piecewise linear functions: what exact gates compute of opened values, and fits of
//! other functions by them.
//!
//! Such a function is a line and a *hinge* for each point where its slope changes:
//! `f(x) = a x + b + sum_k s_k max(0, x - t_k)`. In a number format it is a function of integers
//! ([`Hinges`]), which the servers compute exactly.

use serde::{Deserialize, Serialize};

mod activation;
mod fit;
mod hinges;

pub use activation::{ACTIVATION_ERROR, Activation};
pub use fit::{Line, fit};
pub use hinges::{Hinges, Knot};

/// Most points of a piecewise linear function: each costs a comparison and a selection of every
/// value.
pub const MAX_POINTS: usize = 64;

/// A continuous piecewise linear function, by its points and the slopes beyond them.
///
/// ```
/// use spdz::piecewise::Piecewise;
///
/// let clip = Piecewise { points: vec![[-1.0, -1.0], [1.0, 1.0]], slopes: [0.0, 0.0] };
/// assert_eq!([-3.0, 0.25, 7.0].map(|x| clip.evaluate(x)), [-1.0, 0.25, 1.0]);
/// assert!(clip.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Piecewise {
    /// Arguments and values, 1 to [`MAX_POINTS`], the arguments strictly ascending. Between two
    /// points the function is the line through both.
    pub points: Vec<[f64; 2]>,
    /// The slopes before the first point and after the last.
    pub slopes: [f64; 2],
}

/// Why there is no such function.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PiecewiseError {
    /// Too few or too many points.
    #[error("a piecewise function has 1 to {MAX_POINTS} points, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// What is no number.
    #[error("points and slopes of a piecewise function are finite numbers, found {found}")]
    NotFinite {
        /// What there is.
        found: f64,
    },
    /// Points in another order.
    #[error(
        "the points of a piecewise function have strictly ascending arguments, found {after} after {before}"
    )]
    Order {
        /// An argument.
        before: f64,
        /// The next one, which is not larger.
        after: f64,
    },
    /// A hard sigmoid that does not ascend.
    #[error("the slope of a hard sigmoid is positive, found {found}")]
    Slope {
        /// The slope.
        found: f64,
    },
    /// A slope between two points that is no number.
    #[error(
        "between {before} and {after} the slope of a piecewise function is no finite number; move the points apart"
    )]
    Steep {
        /// An argument.
        before: f64,
        /// The next one.
        after: f64,
    },
}

impl Piecewise {
    /// `x`, but not less than `low` and not more than `high`. Without either it is `x` alone.
    #[must_use]
    pub fn clip(low: Option<f64>, high: Option<f64>) -> Self {
        let points: Vec<[f64; 2]> = low.iter().chain(&high).map(|end| [*end; 2]).collect();
        let slope = |end: Option<f64>| if end.is_some() { 0.0 } else { 1.0 };
        let points = if points.is_empty() { vec![[0.0; 2]] } else { points };
        Self { points, slopes: [slope(low), slope(high)] }
    }

    /// `x` from zero on, `slope * x` below.
    #[must_use]
    pub fn leaky_relu(slope: f64) -> Self {
        Self { points: vec![[0.0, 0.0]], slopes: [slope, 1.0] }
    }

    /// `alpha * x + beta`, but not less than 0 and not more than 1. `alpha` is positive.
    #[must_use]
    pub fn hard_sigmoid(alpha: f64, beta: f64) -> Self {
        Self { points: vec![[-beta / alpha, 0.0], [(1.0 - beta) / alpha, 1.0]], slopes: [0.0, 0.0] }
    }

    /// Whether it is a function.
    ///
    /// # Errors
    /// What is wrong with its points or slopes.
    pub fn check(&self) -> Result<(), PiecewiseError> {
        let Self { points, slopes } = self;
        if !(1..=MAX_POINTS).contains(&points.len()) {
            return Err(PiecewiseError::Count { found: points.len() });
        }
        if let Some(&found) = points.as_flattened().iter().chain(slopes).find(|x| !x.is_finite()) {
            return Err(PiecewiseError::NotFinite { found });
        }
        for pair in points.windows(2) {
            let ([before, low], [after, high]) = (pair[0], pair[1]);
            if before >= after {
                return Err(PiecewiseError::Order { before, after });
            }
            if !((high - low) / (after - before)).is_finite() {
                return Err(PiecewiseError::Steep { before, after });
            }
        }
        Ok(())
    }

    /// The same function of arguments below `limit` in magnitude, without the points beyond.
    #[must_use]
    pub fn within(&self, limit: f64) -> Self {
        let Self { points, slopes } = self;
        // The slope of the line before a point, or after the last.
        let slope = |index: usize| match (index.checked_sub(1), points.get(index)) {
            (None, _) => slopes[0],
            (Some(_), None) => slopes[1],
            (Some(before), Some([x, y])) => {
                let [before, value] = points[before];
                (y - value) / (x - before)
            }
        };
        let begin = points.partition_point(|point| point[0] <= -limit);
        let end = points.partition_point(|point| point[0] < limit);
        let slopes = [slope(begin), slope(end)];
        match &points[begin..end] {
            [] => Self { points: vec![[0.0, self.evaluate(0.0)]], slopes },
            kept => Self { points: kept.to_vec(), slopes },
        }
    }

    /// The value at `x`; what is no number stays none.
    #[must_use]
    pub fn evaluate(&self, x: f64) -> f64 {
        let Self { points, slopes } = self;
        let after = points.partition_point(|point| point[0] <= x);
        let line = |[at, value]: [f64; 2], slope: f64| match x - at {
            // A slope of zero makes no number of an infinite argument.
            distance if slope == 0.0 && !distance.is_nan() => value,
            distance => value + slope * distance,
        };
        match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
            (None, Some(first)) => line(*first, slopes[0]),
            (Some(last), None) => line(last, slopes[1]),
            (Some(before), Some(after)) => {
                // From the nearer end, so that each is met exactly.
                let slope = (after[1] - before[1]) / (after[0] - before[0]);
                if x - before[0] < after[0] - x { line(before, slope) } else { line(*after, slope) }
            }
            (None, None) => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_lines() {
        let hat =
            Piecewise { points: vec![[-1.0, 0.0], [0.0, 2.0], [3.0, -1.0]], slopes: [0.5, 0.0] };
        let cases = [(-3.0, -1.0), (-1.0, 0.0), (-0.5, 1.0), (0.0, 2.0), (1.0, 1.0), (9.0, -1.0)];
        for (x, expected) in cases {
            assert_eq!(hat.evaluate(x), expected, "{x}");
        }
        assert!(hat.evaluate(f64::NAN).is_nan());
        assert_eq!(hat.evaluate(f64::INFINITY), -1.0);
        assert_eq!(Piecewise::clip(None, Some(6.0)).evaluate(-70.0), -70.0);
        assert_eq!(Piecewise::clip(Some(-2.0), None).evaluate(-70.0), -2.0);
        assert_eq!(Piecewise::clip(None, None).evaluate(-70.0), -70.0);
        assert_eq!(Piecewise::leaky_relu(0.25).evaluate(-4.0), -1.0);
        let hard = Piecewise::hard_sigmoid(0.2, 0.5);
        assert_eq!([-2.5, 0.0, 2.5, 60.0].map(|x| hard.evaluate(x)), [0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn points_beyond_a_limit_are_left_out() {
        let hat = Piecewise {
            points: vec![[-4.0, 0.0], [-2.0, 2.0], [3.0, -3.0], [5.0, 0.0]],
            slopes: [0.5, 0.25],
        };
        for (limit, points) in [(8.0, 4), (5.0, 3), (4.0, 2), (2.5, 1), (2.0, 1), (1.0, 1)] {
            let within = hat.within(limit);
            assert_eq!(within.points.len(), points, "{limit}");
            assert_eq!(within.check(), Ok(()));
            for step in -99..=99 {
                let x = limit * f64::from(step) / 100.0;
                let (found, expected) = (within.evaluate(x), hat.evaluate(x));
                assert!((found - expected).abs() < 1e-12, "{limit} {x}: {found} {expected}");
            }
        }
        assert_eq!(hat.within(8.0), hat);
        assert_eq!(hat.within(1.0), Piecewise { points: vec![[0.0, 0.0]], slopes: [-1.0; 2] });
    }

    #[test]
    fn what_is_no_function_is_refused_with_numbers() {
        let points = |arguments: &[f64]| Piecewise {
            points: arguments.iter().map(|x| [*x, 0.0]).collect(),
            slopes: [0.0, 1.0],
        };
        let many: Vec<f64> = (0..=MAX_POINTS).map(|i| i as f64).collect();
        for (function, expected) in [
            (points(&[]), "has 1 to 64 points, found 0"),
            (points(&many), "has 1 to 64 points, found 65"),
            (points(&[1.0, 0.5]), "ascending arguments, found 0.5 after 1"),
            (points(&[1.0, 1.0]), "ascending arguments, found 1 after 1"),
            (points(&[1.0, f64::NAN]), "finite numbers, found NaN"),
            (Piecewise { slopes: [f64::INFINITY, 0.0], ..points(&[0.0]) }, "found inf"),
            (
                Piecewise { points: vec![[0.0, 0.0], [1e-300, 1e300]], slopes: [0.0; 2] },
                "between 0 and 0.000",
            ),
        ] {
            let refused = function.check().unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        assert_eq!(points(&many[..MAX_POINTS]).check(), Ok(()));
    }
}
