//! Computations between named players, written like the paper's Figure 1.
//!
//! A [`GraphBuilder`] takes operations on [`Tensor`]s and checks each as it comes;
//! the [`Graph`] it builds is public, complete and has a serialised form, and
//! [`crate::plan::Plan::compile`] turns it into the steps of the protocol.
//!
//! A tensor is in one of three places. *Private* tensors are shared between the
//! servers. *Public* ones are part of the graph. *Local* ones are in the clear at
//! one player, who computes on them alone before sharing and after receiving.
//!
//! ```
//! use spdz::graph::GraphBuilder;
//!
//! let g = GraphBuilder::new(["model-owner", "prediction-client"]);
//! let w = g.private_input("model-owner", [784, 10]);
//! let x = g.private_input("prediction-client", [32, 784]);
//! let y = g.sigmoid(g.matmul(x, w));
//! g.private_output("prediction-client", y);
//! let graph = g.build()?;
//! assert_eq!(graph.players().len(), 2);
//! # Ok::<(), spdz::graph::GraphError>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::channel::Name;
use crate::polynomial::Polynomial;

mod builder;
mod evaluate;
pub(crate) mod written;

pub use crate::geometry::{Padding, Stride, Window, Windows};
pub use builder::{BatchNorm, GraphBuilder, Tensor};
pub use evaluate::{EvaluateError, FillError, InputSpec, Plaintext, Tensors};

/// Largest number of elements of one tensor.
pub const MAX_TENSOR: usize = 1 << 28;

/// Largest number of nodes of a graph.
pub const MAX_NODES: usize = 1 << 14;

/// Largest number of elements of all tensors that are part of the graph, or follow from those
/// alone: every party computes them before it has heard of any other.
pub const MAX_PUBLIC: usize = 1 << 21;

/// Most terms of the sums that products and pooling among them are, for the same reason.
pub const MAX_PUBLIC_TERMS: usize = 1 << 30;

/// Largest number of polynomials among them: each may be written as a fit, which whoever reads
/// the graph computes.
pub const MAX_POLYNOMIALS: usize = 1 << 11;

/// Largest degree of a polynomial: far beyond what a number format has the precision for.
pub const MAX_DEGREE: usize = 64;

/// Longest label of a node, and longest name of an input or output, bytes.
///
/// They and the graph's name are visible ASCII characters, without white space: people
/// review a plan by its listing, in which any other could pass for a column, a line or
/// another label.
pub const MAX_LABEL_BYTES: usize = 255;

/// Longest name of a graph, bytes.
const MAX_NAME_BYTES: usize = 63;

/// Largest number of axes of a tensor.
const MAX_AXES: usize = 8;

/// Largest number of players.
pub const MAX_PLAYERS: usize = 64;

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

/// An operation on tensors. Layouts are row-major and channels last; operands of
/// `Add`, `Sub` and `Mul` are broadcast as in NumPy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub enum Op {
    /// Numbers that a player brings, in the clear at the player.
    Input {
        /// The player.
        player: Name,
        /// What the player calls it; unique among the player's inputs, 1 to
        /// [`MAX_LABEL_BYTES`] visible ASCII characters.
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
        /// [`MAX_LABEL_BYTES`] visible ASCII characters.
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
            | Self::SumPool { input, .. }
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
            | Self::MatMul { left, right } => vec![*left, *right],
            Self::Conv2d { input, filter, .. } => vec![*input, *filter],
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
            Self::Reshape { .. } => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Concat { .. } => "concat",
            Self::Slice { .. } => "slice",
            Self::Expand { .. } => "expand",
            Self::ReduceSum { .. } => "reduce_sum",
            Self::Polynomial { .. } => "polynomial",
            Self::Function { function, .. } => match function {
                Function::Relu => "relu",
                Function::Sigmoid => "sigmoid",
                Function::Tanh => "tanh",
                Function::Exp => "exp",
                Function::Log => "log",
                Function::Sqrt => "sqrt",
                Function::Reciprocal => "reciprocal",
                Function::Softmax => "softmax",
                Function::ArgMax => "argmax",
            },
        }
    }
}

/// Where a tensor's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the graph.
    Public,
    /// Shared between the servers.
    Private,
    /// In the clear at a player.
    Local {
        /// The player.
        player: Name,
        /// Whether it depends on something that the player was revealed.
        received: bool,
    },
}

/// What is known of a node without any numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it is.
    pub place: Place,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How long its value lasts.
    pub lifetime: Lifetime,
}

impl Facts {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements; never, in a graph.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A node of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// The layer or section it belongs to, for listings, metrics and messages: 1 to
    /// [`MAX_LABEL_BYTES`] visible ASCII characters.
    pub label: String,
    /// What is computed.
    pub operation: Op,
}

/// A computation between players.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "GraphFile", into = "GraphFile")]
pub struct Graph {
    name: String,
    players: Vec<Name>,
    nodes: Vec<Node>,
    facts: Vec<Facts>,
}

/// The serialised form of a graph.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GraphFile {
    name: String,
    players: Vec<Name>,
    #[serde(deserialize_with = "written::nodes")]
    nodes: Vec<Node>,
}

impl From<Graph> for GraphFile {
    fn from(graph: Graph) -> Self {
        Self { name: graph.name, players: graph.players, nodes: graph.nodes }
    }
}

impl TryFrom<GraphFile> for Graph {
    type Error = GraphError;

    fn try_from(file: GraphFile) -> Result<Self, GraphError> {
        let mut graph = Self::empty(file.name, file.players)?;
        for (index, node) in file.nodes.into_iter().enumerate() {
            let operation = node.operation.name();
            // What is wrong may be the label.
            let label: String = node.label.escape_default().take(MAX_LABEL_BYTES).collect();
            graph.append(node).map_err(|reason| GraphError::Node {
                operation,
                place: format!("node {index} of {label}"),
                reason,
            })?;
        }
        graph.check()?;
        Ok(graph)
    }
}

/// What is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A node does not fit the others.
    #[error("{operation} ({place}): {reason}")]
    Node {
        /// What the node does.
        operation: &'static str,
        /// Its number and label, or where in the program it was made.
        place: String,
        /// What is wrong, with shapes and names.
        reason: String,
    },
    /// The players.
    #[error("players: {0}")]
    Players(String),
    /// The graph as a whole.
    #[error("{0}")]
    Whole(String),
}

/// A tensor's shape for people: `[2, 3]`. Not all of it, if nothing can have so many axes.
struct Shape<'a>(&'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..2 * MAX_AXES) {
            Some(first) => write!(f, "{first:?} and more, {} in all,", self.0.len()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Refuses a label or name that is not 1 to `longest` visible ASCII characters.
fn check_visible(what: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > longest {
        let found = text.len();
        return Err(format!("{what} has 1 to {longest} bytes, found {found}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{what} has visible ASCII characters only and no white space, found \"{}\"",
            text.escape_default()
        ));
    }
    Ok(())
}

/// How many places a filter or window of `[height, width]` has along each axis of so many
/// pixels; `None` if it does not fit.
fn places(
    stride: Stride,
    [height, width]: [usize; 2],
    [high, wide]: [usize; 2],
) -> Result<Option<[usize; 2]>, String> {
    let Stride { vertical, horizontal } = stride;
    if vertical == 0 || horizontal == 0 {
        return Err(format!("stride {stride}; expected at least 1 pixel along each axis"));
    }
    let fits = height >= high && width >= wide;
    Ok(fits.then(|| [(height - high) / vertical + 1, (width - wide) / horizontal + 1]))
}

/// The shape of two operands broadcast against each other, as in NumPy.
fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let side = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| match (side(left, axis), side(right, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

impl Graph {
    fn empty(name: String, players: Vec<Name>) -> Result<Self, GraphError> {
        check_visible("a graph's name", &name, MAX_NAME_BYTES).map_err(GraphError::Whole)?;
        if players.is_empty() || players.len() > MAX_PLAYERS {
            let found = players.len();
            return Err(GraphError::Players(format!("expected 1 to {MAX_PLAYERS}, found {found}")));
        }
        for (index, player) in players.iter().enumerate() {
            if players[..index].contains(player) {
                return Err(GraphError::Players(format!("{player} is named twice")));
            }
        }
        Ok(Self { name, players, nodes: Vec::new(), facts: Vec::new() })
    }

    /// Appends a node that reads earlier ones, or says why it cannot be.
    fn append(&mut self, node: Node) -> Result<NodeId, String> {
        check_visible("a label", &node.label, MAX_LABEL_BYTES)?;
        let facts = self.infer(&node.operation)?;
        self.nodes.push(node);
        self.facts.push(facts);
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// What follows for the result of an operation, or why it cannot be.
    fn infer(&self, op: &Op) -> Result<Facts, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(written::too_many("nodes", MAX_NODES));
        }
        let is_polynomial = |op: &Op| matches!(op, Op::Polynomial { .. });
        let polynomials = || self.nodes.iter().filter(|node| is_polynomial(&node.operation));
        if is_polynomial(op) && polynomials().count() >= MAX_POLYNOMIALS {
            return Err(written::too_many("polynomials", MAX_POLYNOMIALS));
        }
        let inputs = op.inputs();
        let facts: Vec<&Facts> = inputs
            .iter()
            .map(|id| self.facts.get(id.0).ok_or_else(|| format!("there is no node {} yet", id.0)))
            .collect::<Result<_, _>>()?;
        for (id, facts) in inputs.iter().zip(&facts) {
            if matches!(self.nodes[id.0].operation, Op::Output { .. }) {
                return Err(format!("node {} is an output and cannot be read", id.0));
            }
            debug_assert!(!facts.is_empty());
        }
        let shape = self.infer_shape(op, &facts)?;
        if shape.len() > MAX_AXES {
            return Err(format!("a tensor has at most {MAX_AXES} axes, found {}", shape.len()));
        }
        let len = shape.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
        match len {
            Some(1..=MAX_TENSOR) => {}
            Some(0) => return Err(format!("a tensor of shape {} is empty", Shape(&shape))),
            _ => {
                return Err(format!(
                    "a tensor of shape {} has more than {MAX_TENSOR} elements",
                    Shape(&shape)
                ));
            }
        }
        let place = self.infer_place(op, &facts)?;
        let lifetime = match op {
            Op::Input { lifetime, .. } => *lifetime,
            _ if facts.iter().all(|facts| facts.lifetime == Lifetime::Session) => Lifetime::Session,
            _ => Lifetime::Evaluation,
        };
        Ok(Facts { place, shape, lifetime })
    }

    fn known(&self, player: Name) -> Result<Name, String> {
        if self.players.contains(&player) {
            return Ok(player);
        }
        let players: Vec<String> = self.players.iter().map(ToString::to_string).collect();
        Err(format!("unknown player {player}; the players are {}", players.join(", ")))
    }

    fn infer_place(&self, op: &Op, facts: &[&Facts]) -> Result<Place, String> {
        match op {
            Op::Input { player, name, .. } => {
                let player = self.known(*player)?;
                check_visible("an input's name", name, MAX_LABEL_BYTES)?;
                let taken = self.nodes.iter().any(|node| {
                    matches!(&node.operation, Op::Input { player: p, name: n, .. } if *p == player && n == name)
                });
                if taken {
                    return Err(format!("{player} already has an input {name}"));
                }
                return Ok(Place::Local { player, received: false });
            }
            Op::Constant { .. } => return Ok(Place::Public),
            Op::Share { .. } => {
                return match facts[0].place {
                    Place::Local { received: false, .. } => Ok(Place::Private),
                    Place::Local { player, received: true } => Err(format!(
                        "{player} computed it from what it was revealed; only what does not depend on a revealed tensor can be shared"
                    )),
                    Place::Private => Err("the tensor is private already".into()),
                    Place::Public => {
                        Err("the tensor is public; use it as it is, it needs no sharing".into())
                    }
                };
            }
            Op::Reveal { player, .. } => {
                let player = self.known(*player)?;
                return match facts[0].place {
                    Place::Private => Ok(Place::Local { player, received: true }),
                    _ => Err("only private tensors are revealed".into()),
                };
            }
            Op::Output { name, .. } => {
                check_visible("an output's name", name, MAX_LABEL_BYTES)?;
                let Place::Local { player, received } = facts[0].place else {
                    return Err("an output is a local tensor; reveal it to a player first".into());
                };
                if !received {
                    return Err(format!(
                        "{player} would get back what it brings; an output depends on something that is revealed to {player}"
                    ));
                }
                let taken = self.nodes.iter().zip(&self.facts).any(|(node, facts)| {
                    matches!(&node.operation, Op::Output { name: n, .. } if n == name)
                        && matches!(facts.place, Place::Local { player: p, .. } if p == player)
                });
                if taken {
                    return Err(format!("{player} already has an output {name}"));
                }
            }
            _ => {}
        }
        let mut place = Place::Public;
        for facts in facts {
            place = match (place, facts.place) {
                (place, Place::Public) => place,
                (Place::Public, other) => other,
                (Place::Private, Place::Private) => Place::Private,
                (
                    Place::Local { player: left, received: before },
                    Place::Local { player: right, received: after },
                ) => {
                    if left != right {
                        return Err(format!(
                            "one operand is local to {left}, the other to {right}; share them first"
                        ));
                    }
                    Place::Local { player: left, received: before || after }
                }
                (Place::Private, Place::Local { player, .. })
                | (Place::Local { player, .. }, Place::Private) => {
                    return Err(format!(
                        "one operand is private, the other local to {player}; share it first"
                    ));
                }
            };
        }
        if let (Op::Function { .. }, Place::Private) = (op, place) {
            return Err(
                "private tensors have no such function; use a polynomial, or reveal them first"
                    .into(),
            );
        }
        Ok(place)
    }

    fn infer_shape(&self, op: &Op, facts: &[&Facts]) -> Result<Vec<usize>, String> {
        let shape = |index: usize| facts[index].shape.as_slice();
        match op {
            Op::Input { shape, .. } => Ok(shape.clone()),
            Op::Constant { shape, values } => {
                let len = shape.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
                if len != Some(values.len()) {
                    return Err(format!(
                        "{} values do not fill the shape {}",
                        values.len(),
                        Shape(shape)
                    ));
                }
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    return Err(format!("{value} is not a finite number"));
                }
                Ok(shape.clone())
            }
            Op::Share { .. }
            | Op::Reveal { .. }
            | Op::Output { .. }
            | Op::Neg { .. }
            | Op::Square { .. } => Ok(shape(0).to_vec()),
            Op::Polynomial { polynomial, .. } => {
                let Polynomial { coefficients, range } = polynomial;
                if coefficients.is_empty() || coefficients.iter().any(|c| !c.is_finite()) {
                    return Err("a polynomial needs finite coefficients, at least one".into());
                }
                let degree = coefficients.len() - 1;
                if degree > MAX_DEGREE {
                    return Err(format!(
                        "a polynomial has at most degree {MAX_DEGREE}, found {degree}"
                    ));
                }
                if !(range.is_finite() && *range > 0.0) {
                    return Err(format!(
                        "a polynomial's range is a positive number, found {range}"
                    ));
                }
                Ok(shape(0).to_vec())
            }
            Op::Function { function, .. } => match (function, shape(0)) {
                (Function::Softmax | Function::ArgMax, []) => {
                    Err("a single number has no last axis".into())
                }
                (Function::ArgMax, [leading @ .., _]) => Ok(leading.to_vec()),
                (_, shape) => Ok(shape.to_vec()),
            },
            Op::Add { .. } | Op::Sub { .. } | Op::Mul { .. } => broadcast(shape(0), shape(1))
                .ok_or_else(|| {
                    format!(
                        "shapes {} and {} cannot be broadcast against each other",
                        Shape(shape(0)),
                        Shape(shape(1))
                    )
                }),
            Op::MatMul { .. } => match (shape(0), shape(1)) {
                (&[m, k], &[l, n]) if k == l => Ok(vec![m, n]),
                (left, right) => Err(format!(
                    "shapes {} and {} cannot be multiplied; expected [m, k] and [k, n]",
                    Shape(left),
                    Shape(right)
                )),
            },
            Op::Conv2d { stride, padding, .. } => {
                let (&[batch, height, width, inputs], &[rows, columns, channels, outputs]) =
                    (shape(0), shape(1))
                else {
                    return Err(format!(
                        "shapes {} and {}; expected images [batch, height, width, in] and filters [height, width, in, out]",
                        Shape(shape(0)),
                        Shape(shape(1))
                    ));
                };
                if inputs != channels {
                    return Err(format!("images of {inputs} channels and filters for {channels}"));
                }
                let padded = padding.around([height, width]);
                let elements = padded.and_then(|[height, width]| {
                    let sides = [batch, height, width, inputs];
                    sides.into_iter().try_fold(1usize, |product, side| product.checked_mul(side))
                });
                let (Some(padded), Some(..=MAX_TENSOR)) = (padded, elements) else {
                    return Err(format!(
                        "images {} with padding {padding} have more than {MAX_TENSOR} elements",
                        Shape(shape(0))
                    ));
                };
                match places(*stride, padded, [rows, columns])? {
                    Some([height, width]) => Ok(vec![batch, height, width, outputs]),
                    None => Err(format!(
                        "filters of {rows}x{columns} do not fit into {height}x{width} pixels with padding {padding}"
                    )),
                }
            }
            Op::SumPool { window, stride, .. } => {
                let &[batch, height, width, channels] = shape(0) else {
                    return Err(format!(
                        "shape {}; expected [batch, height, width, channels]",
                        Shape(shape(0))
                    ));
                };
                let Window { height: high, width: wide } = *window;
                if high == 0 || wide == 0 {
                    return Err(format!("windows of {high}x{wide} pixels have none"));
                }
                let Windows { stride, .. } = Windows::of(*window, *stride);
                match places(stride, [height, width], [high, wide])? {
                    Some([height, width]) => Ok(vec![batch, height, width, channels]),
                    None => Err(format!(
                        "windows of {high}x{wide} do not fit into {height}x{width} pixels"
                    )),
                }
            }
            Op::Reshape { shape: new, .. } => {
                let len = new.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
                if len != Some(facts[0].len()) {
                    return Err(format!(
                        "shape {} has not as many elements as {}",
                        Shape(new),
                        Shape(shape(0))
                    ));
                }
                Ok(new.clone())
            }
            Op::Transpose { axes, .. } => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..shape(0).len()) {
                    return Err(format!(
                        "axes {} are no order of the {} axes of {}",
                        Shape(axes),
                        shape(0).len(),
                        Shape(shape(0))
                    ));
                }
                Ok(axes.iter().map(|axis| shape(0)[*axis]).collect())
            }
            Op::Concat { axis, inputs } => {
                let Some(first) = facts.first() else {
                    return Err("there is nothing to concatenate".into());
                };
                if inputs.len() > MAX_NODES {
                    let found = inputs.len();
                    return Err(format!(
                        "at most {MAX_NODES} tensors are concatenated, found {found}"
                    ));
                }
                let mut joined = first.shape.clone();
                if *axis >= joined.len() {
                    return Err(format!("there is no axis {axis} in {}", Shape(&joined)));
                }
                for index in 1..inputs.len() {
                    let other = shape(index);
                    let alike = other.len() == joined.len()
                        && (0..other.len()).all(|a| a == *axis || other[a] == joined[a]);
                    if !alike {
                        return Err(format!(
                            "shapes {} and {} differ in more than axis {axis}",
                            Shape(&first.shape),
                            Shape(other)
                        ));
                    }
                    joined[*axis] += other[*axis];
                }
                Ok(joined)
            }
            Op::Slice { ranges, .. } => {
                if ranges.len() != shape(0).len() {
                    return Err(format!(
                        "{} ranges for the {} axes of {}",
                        ranges.len(),
                        shape(0).len(),
                        Shape(shape(0))
                    ));
                }
                ranges
                    .iter()
                    .zip(shape(0))
                    .map(|(&(start, end, step), &side)| {
                        if start < end && end <= side && step > 0 {
                            Ok((end - start).div_ceil(step))
                        } else {
                            Err(format!(
                                "range {start}..{end} by {step} does not lie within an axis of {side}"
                            ))
                        }
                    })
                    .collect()
            }
            Op::Expand { shape: new, .. } => {
                if broadcast(shape(0), new).as_ref() != Some(new) {
                    return Err(format!(
                        "shape {} cannot be expanded to {}",
                        Shape(shape(0)),
                        Shape(new)
                    ));
                }
                Ok(new.clone())
            }
            Op::ReduceSum { axes, .. } => {
                let rank = shape(0).len();
                let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
                if !ascending || axes.iter().any(|axis| *axis >= rank) {
                    return Err(format!(
                        "axes {} are not ascending axes of {}",
                        Shape(axes),
                        Shape(shape(0))
                    ));
                }
                let kept = shape(0).iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Ok(kept.map(|(_, side)| *side).collect())
            }
        }
    }

    /// What a product or pooling of public tensors takes, in terms of its sums; nothing if
    /// the node is neither.
    fn public_terms(&self, id: NodeId) -> usize {
        let leading = |id: &NodeId, axes| self.facts(*id).shape[..axes].iter().product();
        let inner: usize = match self.operation(id) {
            Op::MatMul { right, .. } => leading(right, 1),
            Op::Conv2d { filter, .. } => leading(filter, 3),
            Op::SumPool { window, .. } => window.area(),
            _ => return 0,
        };
        match self.facts(id).place {
            Place::Public => self.facts(id).len().saturating_mul(inner),
            _ => 0,
        }
    }

    /// What can only be said of the whole: somebody receives every result, and every
    /// player has a part.
    fn check(&self) -> Result<(), GraphError> {
        if !self.nodes.iter().any(|node| matches!(node.operation, Op::Reveal { .. })) {
            return Err(GraphError::Whole(
                "nobody receives an output; reveal a private tensor to a player".into(),
            ));
        }
        let public = self.facts.iter().filter(|facts| facts.place == Place::Public);
        let public: usize = public.map(Facts::len).sum();
        if public > MAX_PUBLIC {
            return Err(GraphError::Whole(format!(
                "public tensors have {public} elements, at most {MAX_PUBLIC} are accepted; let a player bring them"
            )));
        }
        let terms = (0..self.nodes.len()).map(|index| self.public_terms(NodeId(index)));
        if terms.fold(0, usize::saturating_add) > MAX_PUBLIC_TERMS {
            return Err(GraphError::Whole(format!(
                "products and pooling of public tensors have sums of more than {MAX_PUBLIC_TERMS} terms in all; make them constants, or let a player bring them"
            )));
        }
        let mut used = vec![false; self.nodes.len()];
        for node in &self.nodes {
            node.operation.inputs().iter().for_each(|id| used[id.0] = true);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let idle = !used[index] && self.facts[index].place != Place::Public;
            if idle && !matches!(node.operation, Op::Output { .. }) {
                return Err(GraphError::Node {
                    operation: node.operation.name(),
                    place: format!("node {index} of {}", node.label),
                    reason: "nobody receives its result; make it part of an output or leave it out"
                        .into(),
                });
            }
        }
        // Everybody would wait for the connections of one who has nothing to do.
        let idle = self.players.iter().find(|player| {
            !self.nodes.iter().any(|node| match &node.operation {
                Op::Input { player: own, .. } | Op::Reveal { player: own, .. } => own == *player,
                _ => false,
            })
        });
        match idle {
            Some(player) => Err(GraphError::Players(format!(
                "{player} has no part, it neither brings nor learns anything; leave it out"
            ))),
            None => Ok(()),
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The players.
    #[must_use]
    pub fn players(&self) -> &[Name] {
        &self.players
    }

    /// The nodes, each after those that it reads.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is known of a node.
    #[must_use]
    pub fn facts(&self, id: NodeId) -> &Facts {
        &self.facts[id.0]
    }

    /// A node's operation.
    #[must_use]
    pub fn operation(&self, id: NodeId) -> &Op {
        &self.nodes[id.0].operation
    }
}
