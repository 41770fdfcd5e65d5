//! Activations of neural networks, and the piecewise linear functions that take their place on
//! shares.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::fit::{Line, fit};
use super::{Piecewise, PiecewiseError};

/// What the servers compute of an [`Activation`] of a private tensor is nowhere more than this from
/// it, in number formats with 12 fractional bits or more. It has all errors: that of the fit, of
/// slopes and points in fixed point, and of the rounding of the result.
pub const ACTIVATION_ERROR: f64 = 1.0 / 512.0;

/// The error of a fit itself: a unit in the last place is left for the slopes, another for the
/// rounding, and a quarter of one for what is between the points of a grid.
const FIT_ERROR: f64 = ACTIVATION_ERROR - 2.25 / 4096.0;

/// Beyond it each function is within the error of its tails.
const BOUND: u16 = 16;

/// An activation of neural networks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Activation {
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x Phi(x)` with the distribution function of the normal distribution. Its approximation by a
    /// hyperbolic tangent, which some models have instead, is within 5e-4 of it.
    Gelu,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// `alpha x + beta`, but not less than 0 and not more than 1: piecewise linear itself.
    #[serde(rename_all = "camelCase")]
    HardSigmoid {
        /// The slope, positive.
        alpha: f64,
        /// The value at zero.
        beta: f64,
    },
    /// `x` times the hard sigmoid with `alpha = 1 / 6` and `beta = 1 / 2`.
    HardSwish,
}

impl Activation {
    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::HardSigmoid { .. } => "hard_sigmoid",
            Self::HardSwish => "hard_swish",
        }
    }

    /// Whether there is such a function.
    ///
    /// # Errors
    /// If a parameter is not a finite number or the slope not positive, with the number.
    pub fn check(self) -> Result<(), PiecewiseError> {
        let Self::HardSigmoid { alpha, beta } = self else { return Ok(()) };
        for found in [alpha, beta] {
            if !found.is_finite() {
                return Err(PiecewiseError::NotFinite { found });
            }
        }
        if alpha <= 0.0 {
            return Err(PiecewiseError::Slope { found: alpha });
        }
        Piecewise::hard_sigmoid(alpha, beta).check()
    }

    /// The value at `x`, in 64-bit floating point, the same on every machine.
    #[must_use]
    pub fn evaluate(self, x: f64) -> f64 {
        match self {
            Self::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Self::Tanh => libm::tanh(x),
            Self::Gelu => match x {
                f64::NEG_INFINITY => 0.0,
                x => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            },
            Self::Silu => match x {
                f64::NEG_INFINITY => 0.0,
                x => x / (1.0 + libm::exp(-x)),
            },
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::HardSwish => match x {
                ..=-3.0 => 0.0,
                3.0.. => x,
                x => x * (x + 3.0) / 6.0,
            },
        }
    }

    /// The piecewise linear function that takes its place on shares. A hard sigmoid is one itself; of
    /// the others it is a fit, the same on every machine, computed once.
    #[must_use]
    pub fn piecewise(self) -> Piecewise {
        static SIGMOID: LazyLock<Piecewise> = LazyLock::new(|| Activation::Sigmoid.fitted());
        static TANH: LazyLock<Piecewise> = LazyLock::new(|| Activation::Tanh.fitted());
        static GELU: LazyLock<Piecewise> = LazyLock::new(|| Activation::Gelu.fitted());
        static SILU: LazyLock<Piecewise> = LazyLock::new(|| Activation::Silu.fitted());
        static HARD_SWISH: LazyLock<Piecewise> = LazyLock::new(|| Activation::HardSwish.fitted());
        match self {
            Self::Sigmoid => SIGMOID.clone(),
            Self::Tanh => TANH.clone(),
            Self::Gelu => GELU.clone(),
            Self::Silu => SILU.clone(),
            Self::HardSigmoid { alpha, beta } => Piecewise::hard_sigmoid(alpha, beta),
            Self::HardSwish => HARD_SWISH.clone(),
        }
    }

    /// The lines that it comes near to below and above.
    fn tails(self) -> [Line; 2] {
        let constant = |offset| Line { slope: 0.0, offset };
        match self {
            Self::Sigmoid | Self::HardSigmoid { .. } => [constant(0.0), constant(1.0)],
            Self::Tanh => [constant(-1.0), constant(1.0)],
            Self::Gelu | Self::Silu | Self::HardSwish => {
                [constant(0.0), Line { slope: 1.0, offset: 0.0 }]
            }
        }
    }

    fn fitted(self) -> Piecewise {
        let Some(fit) = fit(|x| self.evaluate(x), self.tails(), BOUND, FIT_ERROR) else {
            unreachable!("each function comes near to its tails");
        };
        fit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FITTED: [Activation; 5] = [
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Silu,
        Activation::HardSwish,
    ];

    #[test]
    fn functions_are_those_of_their_definitions() {
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        };
        near(Activation::Sigmoid.evaluate(3f64.ln()), 0.75);
        near(Activation::Tanh.evaluate(3f64.ln()), 0.8);
        near(Activation::Silu.evaluate(3f64.ln()), 0.75 * 3f64.ln());
        // The distribution function at one and two.
        near(Activation::Gelu.evaluate(1.0), 0.841_344_746_068_543);
        near(Activation::Gelu.evaluate(-2.0), -2.0 * 0.022_750_131_948_179_2);
        near(Activation::HardSwish.evaluate(-1.5), -0.375);
        near(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }.evaluate(1.0), 0.7);
        for activation in FITTED {
            assert!(activation.evaluate(f64::NAN).is_nan(), "{activation:?}");
            assert_eq!(activation.evaluate(f64::NEG_INFINITY), activation.tails()[0].offset);
        }
    }

    #[test]
    fn fits_are_within_the_error_and_have_few_points() {
        for (activation, most) in FITTED.into_iter().zip([16, 24, 20, 27, 25]) {
            let fit = activation.piecewise();
            assert_eq!(fit.check(), Ok(()));
            let points = fit.points.len();
            assert!(points <= most, "{activation:?}: {points}");
            let off = |x: f64| (fit.evaluate(x) - activation.evaluate(x)).abs();
            let all = (-1 << 18)..=1 << 18;
            let largest = all.map(|i| off(f64::from(i) / 8192.0)).fold(0.0, f64::max);
            assert!(largest < FIT_ERROR + 0.05 / 4096.0, "{activation:?}: {largest}");
            for x in [40.0, 300.0, 1023.0, 1e9] {
                assert!(off(x) < FIT_ERROR && off(-x) < FIT_ERROR);
            }
        }
    }

    #[test]
    fn parameters_that_make_no_function_are_refused() {
        let refused =
            |alpha, beta| Activation::HardSigmoid { alpha, beta }.check().unwrap_err().to_string();
        assert!(refused(0.0, 0.5).contains("positive, found 0"));
        assert!(refused(-0.2, 0.5).contains("positive, found -0.2"));
        assert!(refused(0.2, f64::NAN).contains("found NaN"));
        assert!(refused(1e-320, 0.5).contains("finite numbers"));
        assert_eq!(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }.check(), Ok(()));
    }
}
