//! The functions that a player computes alone, in 64-bit floating point.

use serde::{Deserialize, Serialize};

/// What a player can compute alone, element by element or along the last axis, in
/// 64-bit floating point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Function {
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The exponential.
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// `exp(x) / sum exp(x)` along the last axis.
    Softmax,
    /// The place of the largest value along the last axis, which goes; the earliest of equals.
    ArgMax,
}

impl Function {
    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sqrt => "sqrt",
            Self::Reciprocal => "reciprocal",
            Self::Softmax => "softmax",
            Self::ArgMax => "argmax",
        }
    }

    /// The function of a single number; none for those that work along an axis.
    pub(crate) fn of_elements(self) -> Option<fn(f64) -> f64> {
        match self {
            Self::Relu => Some(relu),
            Self::Sigmoid => Some(|x| 1.0 / (1.0 + (-x).exp())),
            Self::Tanh => Some(f64::tanh),
            Self::Exp => Some(f64::exp),
            Self::Log => Some(f64::ln),
            Self::Sqrt => Some(f64::sqrt),
            Self::Reciprocal => Some(f64::recip),
            Self::Softmax | Self::ArgMax => None,
        }
    }
}

/// `max(x, 0)`. Not `f64::max`, which would take a value that is no number for zero.
pub(super) fn relu(x: f64) -> f64 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `x` from zero on, `slope * x` below.
pub(super) fn leaky_relu(x: f64, slope: f64) -> f64 {
    if x < 0.0 { slope * x } else { x }
}

/// 1 from a threshold on, else 0; what is no number stays none.
pub(super) fn step(x: f64, threshold: f64) -> f64 {
    if x.is_nan() { x } else { f64::from(u8::from(x >= threshold)) }
}

/// The larger of two values; what is no number stays none.
pub(super) fn maximum(x: f64, y: f64) -> f64 {
    if y > x || y.is_nan() { y } else { x }
}

/// The place of the largest value, the earliest of equals.
pub(super) fn argmax(values: &[f64]) -> f64 {
    let mut place = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[place] {
            place = index;
        }
    }
    place as f64
}

/// The probabilities that rows of logits stand for, `len` in all; the largest logit is
/// subtracted first, so that no exponential overflows.
pub(super) fn softmax<'a>(rows: impl Iterator<Item = &'a [f64]>, len: usize) -> Vec<f64> {
    let mut results = Vec::with_capacity(len);
    for row in rows {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let start = results.len();
        results.extend(row.iter().map(|x| (x - largest).exp()));
        let sum: f64 = results[start..].iter().sum();
        results[start..].iter_mut().for_each(|x| *x /= sum);
    }
    results
}
