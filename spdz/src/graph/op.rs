//! The operations of a graph.

use serde::{Deserialize, Serialize};

use super::function::Function;
use crate::channel::Name;
use crate::geometry::{Padding, Stride, Window};
use crate::piecewise::{self, Piecewise};
use crate::polynomial::Polynomial;

/// A node, by its place in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// How long an input lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Lifetime {
    /// Given anew for each evaluation.
    #[default]
    Evaluation,
    /// Given once and used by every evaluation of a session, like the weights of a model.
    Session,
}

/// An operation on tensors. Layouts are row-major and channels last; operands of
/// `Add`, `Sub`, `Mul`, `Maximum` and `Minimum` are broadcast as in NumPy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub enum Op {
    /// Numbers that a player brings: plaintext at the player.
    Input {
        /// The player.
        player: Name,
        /// What the player calls it; unique among the player's inputs, 1 to
        /// [`MAX_LABEL_BYTES`](super::MAX_LABEL_BYTES) visible ASCII characters.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How long it lasts.
        #[serde(default)]
        lifetime: Lifetime,
    },
    /// Numbers that everybody knows.
    Constant {
        /// Their shape.
        shape: Vec<usize>,
        /// Row-major.
        values: Vec<f64>,
    },
    /// A local tensor, shared between the servers.
    Share {
        /// The local tensor.
        input: NodeId,
    },
    /// A private tensor, revealed to one player.
    Reveal {
        /// The private tensor.
        input: NodeId,
        /// Who learns it.
        player: Name,
    },
    /// A local tensor that the player keeps; it depends on something revealed to it.
    Output {
        /// The local tensor.
        input: NodeId,
        /// What the player calls it; unique among the player's outputs, 1 to
        /// [`MAX_LABEL_BYTES`](super::MAX_LABEL_BYTES) visible ASCII characters.
        name: String,
    },
    /// `left + right`.
    Add {
        /// The first term.
        left: NodeId,
        /// The second term.
        right: NodeId,
    },
    /// `left - right`.
    Sub {
        /// The minuend.
        left: NodeId,
        /// The subtrahend.
        right: NodeId,
    },
    /// `left * right`, element by element.
    Mul {
        /// The first factor.
        left: NodeId,
        /// The second factor.
        right: NodeId,
    },
    /// `-input`.
    Neg {
        /// What is negated.
        input: NodeId,
    },
    /// `input * input`, element by element.
    Square {
        /// What is squared.
        input: NodeId,
    },
    /// `[m, k] * [k, n] -> [m, n]`.
    #[serde(rename = "matmul")]
    MatMul {
        /// The left matrix.
        left: NodeId,
        /// The right matrix.
        right: NodeId,
    },
    /// `[batch, height, width, in]` with filters `[height, width, in, out]`.
    Conv2d {
        /// The images.
        input: NodeId,
        /// The filters.
        filter: NodeId,
        /// How far apart the places of a filter are.
        stride: Stride,
        /// Zeros added around each image.
        padding: Padding,
    },
    /// Sums over windows of `[batch, height, width, channels]`.
    SumPool {
        /// The images.
        input: NodeId,
        /// The sides of a window, at most those of the images.
        window: Window,
        /// How far apart windows are; next to each other if it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Stride>,
    },
    /// The largest values of windows of `[batch, height, width, channels]`.
    MaxPool {
        /// The images.
        input: NodeId,
        /// The sides of a window, at most those of the padded images.
        window: Window,
        /// How far apart windows are; next to each other if it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Stride>,
        /// What lies around each image and has no values: along each side less than a window.
        #[serde(default, skip_serializing_if = "Padding::is_none")]
        padding: Padding,
    },
    /// The same elements in another shape.
    Reshape {
        /// The tensor.
        input: NodeId,
        /// Its new shape.
        shape: Vec<usize>,
    },
    /// The axes in another order.
    Transpose {
        /// The tensor.
        input: NodeId,
        /// For each axis of the result, the input's axis.
        axes: Vec<usize>,
    },
    /// Tensors after each other along an axis.
    Concat {
        /// The tensors, alike in all other axes.
        inputs: Vec<NodeId>,
        /// The axis.
        axis: usize,
    },
    /// Part of each axis.
    Slice {
        /// The tensor.
        input: NodeId,
        /// For each axis the first index, the index after the last, and the step.
        ranges: Vec<(usize, usize, usize)>,
    },
    /// Repeated along new leading axes and axes of length one.
    Expand {
        /// The tensor.
        input: NodeId,
        /// The shape of the result.
        shape: Vec<usize>,
    },
    /// Sums along axes, which go.
    ReduceSum {
        /// The tensor.
        input: NodeId,
        /// The axes, ascending.
        axes: Vec<usize>,
    },
    /// `max(input, 0)` of each element, exact.
    Relu {
        /// The arguments.
        input: NodeId,
    },
    /// The larger of two elements, exact.
    Maximum {
        /// The first of each.
        left: NodeId,
        /// The second of each.
        right: NodeId,
    },
    /// The smaller of two elements, exact.
    Minimum {
        /// The first of each.
        left: NodeId,
        /// The second of each.
        right: NodeId,
    },
    /// The magnitude of each element, exact.
    Abs {
        /// The arguments.
        input: NodeId,
    },
    /// Each element, but not less than one number and not more than another; exact.
    Clip {
        /// The arguments.
        input: NodeId,
        /// The least, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        low: Option<f64>,
        /// The largest, if there is one: more than the least.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        high: Option<f64>,
    },
    /// Each element from zero on, and times a number below.
    LeakyRelu {
        /// The arguments.
        input: NodeId,
        /// The number.
        slope: f64,
    },
    /// Each element from zero on, and times a number of its own below.
    Prelu {
        /// The arguments.
        input: NodeId,
        /// The numbers, broadcast to the arguments' shape.
        slopes: NodeId,
    },
    /// 1 for each element from a threshold on, else 0; exact.
    Step {
        /// The arguments.
        input: NodeId,
        /// The least number that makes 1.
        threshold: f64,
    },
    /// A continuous piecewise linear function of each element.
    Piecewise {
        /// The arguments.
        input: NodeId,
        /// The function.
        piecewise: Piecewise,
    },
    /// An activation of neural networks, of each element; of private tensors a piecewise linear
    /// function that is within [`ACTIVATION_ERROR`](crate::piecewise::ACTIVATION_ERROR).
    Activation {
        /// The arguments.
        input: NodeId,
        /// Which one.
        activation: piecewise::Activation,
    },
    /// The place of the largest value along the last axis, which goes; the first of equals. A
    /// number without a fraction.
    ArgMax {
        /// The values.
        input: NodeId,
    },
    /// One at the place of the largest value along the last axis, zeros elsewhere.
    OneHotArgMax {
        /// The values.
        input: NodeId,
    },
    /// A polynomial of each element.
    Polynomial {
        /// The arguments.
        input: NodeId,
        /// The polynomial.
        polynomial: Polynomial,
    },
    /// A function of local or public numbers.
    Function {
        /// The arguments.
        input: NodeId,
        /// The function.
        function: Function,
    },
}

impl Op {
    /// Whether it is a gate: an exact function that is not linear, which takes comparisons.
    #[must_use]
    pub fn is_gate(&self) -> bool {
        matches!(
            self,
            Self::Relu { .. }
                | Self::MaxPool { .. }
                | Self::Maximum { .. }
                | Self::Minimum { .. }
                | Self::Abs { .. }
                | Self::Clip { .. }
                | Self::LeakyRelu { .. }
                | Self::Prelu { .. }
                | Self::Step { .. }
                | Self::Piecewise { .. }
                | Self::Activation { .. }
                | Self::ArgMax { .. }
                | Self::OneHotArgMax { .. }
        )
    }

    /// The nodes that it reads.
    #[must_use]
    pub fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Input { .. } | Self::Constant { .. } => Vec::new(),
            Self::Share { input }
            | Self::Reveal { input, .. }
            | Self::Output { input, .. }
            | Self::Neg { input }
            | Self::Square { input }
            | Self::Relu { input }
            | Self::Abs { input }
            | Self::Clip { input, .. }
            | Self::LeakyRelu { input, .. }
            | Self::Step { input, .. }
            | Self::Piecewise { input, .. }
            | Self::Activation { input, .. }
            | Self::ArgMax { input }
            | Self::OneHotArgMax { input }
            | Self::SumPool { input, .. }
            | Self::MaxPool { input, .. }
            | Self::Reshape { input, .. }
            | Self::Transpose { input, .. }
            | Self::Slice { input, .. }
            | Self::Expand { input, .. }
            | Self::ReduceSum { input, .. }
            | Self::Polynomial { input, .. }
            | Self::Function { input, .. } => vec![*input],
            Self::Add { left, right }
            | Self::Sub { left, right }
            | Self::Mul { left, right }
            | Self::Maximum { left, right }
            | Self::Minimum { left, right }
            | Self::MatMul { left, right } => vec![*left, *right],
            Self::Conv2d { input, filter, .. } => vec![*input, *filter],
            Self::Prelu { input, slopes } => vec![*input, *slopes],
            Self::Concat { inputs, .. } => inputs.clone(),
        }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Constant { .. } => "constant",
            Self::Share { .. } => "share",
            Self::Reveal { .. } => "reveal",
            Self::Output { .. } => "output",
            Self::Add { .. } => "add",
            Self::Sub { .. } => "sub",
            Self::Mul { .. } => "mul",
            Self::Neg { .. } => "neg",
            Self::Square { .. } => "square",
            Self::MatMul { .. } => "matmul",
            Self::Conv2d { .. } => "conv2d",
            Self::SumPool { .. } => "sum_pool",
            Self::MaxPool { .. } => "max_pool",
            Self::Reshape { .. } => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Concat { .. } => "concat",
            Self::Slice { .. } => "slice",
            Self::Expand { .. } => "expand",
            Self::ReduceSum { .. } => "reduce_sum",
            Self::Relu { .. } => "relu",
            Self::Maximum { .. } => "maximum",
            Self::Minimum { .. } => "minimum",
            Self::Abs { .. } => "abs",
            Self::Clip { .. } => "clip",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Prelu { .. } => "prelu",
            Self::Step { .. } => "step",
            Self::Piecewise { .. } => "piecewise",
            Self::Activation { activation, .. } => activation.name(),
            Self::ArgMax { .. } => "argmax",
            Self::OneHotArgMax { .. } => "one_hot_argmax",
            Self::Polynomial { .. } => "polynomial",
            Self::Function { function, .. } => function.name(),
        }
    }
}

/// A node of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// The layer or section it belongs to, for listings, metrics and messages: 1 to
    /// [`MAX_LABEL_BYTES`](super::MAX_LABEL_BYTES) visible ASCII characters.
    pub label: String,
    /// What is computed.
    pub operation: Op,
}
