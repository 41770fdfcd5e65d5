//! Why a graph cannot be planned.

use super::step::MAX_STEPS;
use crate::fixed::RangeError;
use crate::graph::GraphError;
use crate::ring::{NumberFormat, Truncation};

/// Why a graph cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The graph itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph declares a larger range than the format has.
    #[error(
        "the graph's range is {found}, and numbers of {format} are below {limit}; declare a smaller range, or choose a format with a larger one"
    )]
    DeclaredRange {
        /// What the graph says.
        found: u32,
        /// What the format's numbers are below.
        limit: f64,
        /// The format.
        format: NumberFormat,
    },
    /// Sums of so many products could wrap around.
    #[error(
        "{layer}: sums of {found} products can leave the range of {format}, which holds {largest}"
    )]
    InnerDimension {
        /// The layer, and the node within the graph.
        layer: String,
        /// Products in a sum.
        found: usize,
        /// The most that the format can hold.
        largest: usize,
        /// The format.
        format: NumberFormat,
    },
    /// A public number is too large for the format.
    #[error("{layer}: {source}")]
    Public {
        /// The layer, and the node within the graph.
        layer: String,
        /// What is wrong.
        source: RangeError,
    },
    /// Public tensors are too large once they are repeated to the shapes that they are used in.
    #[error(
        "{layer}: public tensors have {found} elements in the shapes that they are used in, at most {} are accepted; let a player bring them, or use a smaller batch",
        crate::graph::MAX_PUBLIC
    )]
    PublicSize {
        /// The layer, and the node within the graph.
        layer: String,
        /// Elements of this and all tensors before.
        found: usize,
    },
    /// There is too much to do.
    #[error("{layer}: more than {MAX_STEPS} steps; make it several graphs")]
    Steps {
        /// The layer, and the node within the graph.
        layer: String,
    },
    /// A polynomial is too large for the format.
    #[error(
        "{layer}: for arguments up to {range} the polynomial of degree {degree} can reach {found:.6e}, beyond the {limit} of {format}; lower its range or degree"
    )]
    Polynomial {
        /// The layer, and the node within the graph.
        layer: String,
        /// The largest argument.
        range: f64,
        /// The degree.
        degree: usize,
        /// The sum of the terms' magnitudes, or the argument, whichever is too large.
        found: f64,
        /// What the format holds.
        limit: f64,
        /// The format.
        format: NumberFormat,
    },
    /// The format has too few bits for a polynomial.
    #[error(
        "{layer}: {format} with {truncation} truncation has too few bits for the polynomial of degree {degree} and arguments up to {range}: {}; {}",
        coarseness(*.error, *.share),
        if !.format.has_polynomials() {
            without_polynomials()
        } else {
            "lower its range or degree, or choose another format or truncation".into()
        }
    )]
    Coarse {
        /// The layer, and the node within the graph.
        layer: String,
        /// The largest argument.
        range: f64,
        /// The degree.
        degree: usize,
        /// A bound of the error, units in the last place.
        error: f64,
        /// The same as a share of the polynomial's largest value.
        share: f64,
        /// The format.
        format: NumberFormat,
        /// How it truncates.
        truncation: Truncation,
    },
    /// The format has no comparison.
    #[error(
        "{layer}: {format} cannot compare numbers, which an exact {gate} needs; choose {}{}",
        with_gates(),
        in_place_of(gate)
    )]
    Gate {
        /// The layer, and the node within the graph.
        layer: String,
        /// The operation of the graph.
        gate: &'static str,
        /// The format.
        format: NumberFormat,
    },
    /// A place where a piecewise linear function changes its slope, or a step its value, is beyond the
    /// format's range.
    #[error(
        "{layer}: {found} is not within the range of {format}, whose values are below {limit} and are compared in {bits} bits; leave out what lies beyond the range, or choose a format with a wider one"
    )]
    Threshold {
        /// The layer, and the node within the graph.
        layer: String,
        /// The argument.
        found: f64,
        /// What the format holds.
        limit: f64,
        /// Bits of a value that is compared.
        bits: u32,
        /// The format.
        format: NumberFormat,
    },
    /// Two points of a piecewise linear function are one in the format.
    #[error(
        "{layer}: {} and {} are the same number in {format}, which has {fraction} fractional bits; move the points apart or leave out one",
        .arguments[0],
        .arguments[1]
    )]
    Points {
        /// The layer, and the node within the graph.
        layer: String,
        /// The points' arguments.
        arguments: [f64; 2],
        /// Fractional bits of the format.
        fraction: i32,
        /// The format.
        format: NumberFormat,
    },
    /// A local truncation would fail too often.
    #[error(
        "{layer}: {format} does not go together with local truncation here: of numbers with {fraction} fractional bits and up to {integral} integral ones, one in {one_in} can fail; choose interactive truncation or a larger number format, or truncate before summing up so much"
    )]
    Truncation {
        /// The layer, and the node within the graph.
        layer: String,
        /// Fractional bits of the dividend.
        fraction: i32,
        /// Bits of the values' integral part.
        integral: i32,
        /// Of how many numbers at the end of their range one fails.
        one_in: u64,
        /// The format.
        format: NumberFormat,
    },
    /// An intermediate result has too many bits.
    #[error(
        "{layer}: {fraction} fractional and {integral} integral bits are more than the {available} that {format} can hold; {}",
        if !.format.has_polynomials() {
            without_polynomials()
        } else {
            "each addition in a row counts one bit more, a reduceSum of all terms only the logarithm of their number".into()
        }
    )]
    Precision {
        /// The layer, and the node within the graph.
        layer: String,
        /// Fractional bits.
        fraction: i32,
        /// Integral bits.
        integral: u32,
        /// Bits available.
        available: u32,
        /// The format.
        format: NumberFormat,
    },
}

/// The formats that can compare numbers, for people.
fn with_gates() -> String {
    names(NumberFormat::with_gates())
}

/// What to do where a format has too few bits for polynomials, for people.
fn without_polynomials() -> String {
    let wider = names(NumberFormat::with_polynomials());
    format!("choose {wider}, or a network with ReLU in place of polynomials")
}

fn names(formats: impl Iterator<Item = NumberFormat>) -> String {
    formats.map(NumberFormat::name).collect::<Vec<_>>().join(" or ")
}

/// What a format without comparison has in place of a gate, for people.
fn in_place_of(gate: &str) -> &'static str {
    match gate {
        "relu" => ", or a polynomial in place of the relu",
        "sigmoid" => ", or a polynomial in place of the sigmoid",
        "tanh" => ", or a polynomial in place of the tanh",
        "max_pool" => ", or average pooling in place of the max_pool",
        _ => "",
    }
}

/// How wrong a polynomial would be, for people.
fn coarseness(error: f64, share: f64) -> String {
    if error.is_infinite() {
        return "its powers do not fit".into();
    }
    let percent = 100.0 * share;
    format!("up to {error:.1} units in the last place off, {percent:.2} % of its largest value")
}
