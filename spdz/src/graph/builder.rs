//! Writing a graph: methods that read like the formulas.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::function::Function;
use super::infer::{Facts, Place, Shape};
use super::limits::MAX_TENSOR;
use super::op::{Lifetime, Node, NodeId, Op};
use super::{Graph, GraphError};
use crate::channel::Name;
use crate::geometry::{Padding, Stride, Window, Windows};
use crate::piecewise::{Activation, Piecewise};
use crate::polynomial::{Fit, Polynomial};

/// A tensor of the graph that a [`GraphBuilder`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    builder: usize,
    node: NodeId,
}

/// Writes a [`Graph`].
///
/// Methods take and give [`Tensor`]s, so that they nest like formulas. The first
/// mistake is kept with the line of the program it was made in, and returned by
/// [`GraphBuilder::build`]; what is written after it is ignored.
#[derive(Debug)]
pub struct GraphBuilder {
    number: usize,
    label: RefCell<String>,
    unnamed: Cell<usize>,
    state: RefCell<Result<Graph, GraphError>>,
}

/// Tells builders apart, so that no tensor is used in another's graph.
static BUILDERS: AtomicUsize = AtomicUsize::new(0);

impl GraphBuilder {
    /// A graph between `players`.
    pub fn new<P: AsRef<str>>(players: impl IntoIterator<Item = P>) -> Self {
        Self::named("graph", players)
    }

    /// A graph that people call `name`, 1 to 63 visible ASCII characters.
    pub fn named<P: AsRef<str>>(name: &str, players: impl IntoIterator<Item = P>) -> Self {
        let players = players
            .into_iter()
            .map(|player| player.as_ref().parse::<Name>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| GraphError::Players(error.to_string()));
        Self {
            number: BUILDERS.fetch_add(1, Ordering::Relaxed),
            label: RefCell::new("main".into()),
            unnamed: Cell::new(0),
            state: RefCell::new(players.and_then(|players| Graph::empty(name.into(), players))),
        }
    }

    /// The graph, if all of it is in order.
    ///
    /// # Errors
    /// The first mistake: operands whose shapes or places do not go together, an
    /// unknown player, a name or label that a listing cannot show as it is, a result
    /// that nobody receives.
    pub fn build(self) -> Result<Graph, GraphError> {
        let graph = self.state.into_inner()?;
        graph.check()?;
        Ok(graph)
    }

    /// Declares that all numbers on shares are below `limit` in magnitude: a power of two, 1 to
    /// [`MAX_RANGE`](super::MAX_RANGE). Numbers beyond it make results meaningless without an
    /// error, so leave a margin.
    pub fn range(&self, limit: u32) {
        let mut state = self.state.borrow_mut();
        if let Ok(graph) = &mut *state
            && let Err(error) = graph.declare(limit)
        {
            *state = Err(error);
        }
    }

    /// The layer or section that what follows belongs to: what listings, metrics
    /// and messages call it. 1 to [`MAX_LABEL_BYTES`](super::MAX_LABEL_BYTES) visible
    /// ASCII characters.
    pub fn label(&self, label: &str) {
        *self.label.borrow_mut() = label.into();
    }

    #[track_caller]
    fn fail(&self, operation: &'static str, reason: impl Display) -> Tensor {
        let mut state = self.state.borrow_mut();
        if state.is_ok() {
            let location = Location::caller();
            *state = Err(GraphError::Node {
                operation,
                place: format!("{}:{}", location.file(), location.line()),
                reason: reason.to_string(),
            });
        }
        // Nothing reads it: the mistake is kept.
        Tensor { builder: self.number, node: NodeId(usize::MAX) }
    }

    #[track_caller]
    fn push(&self, operation: Op, operands: &[Tensor]) -> Tensor {
        if operands.iter().any(|tensor| tensor.builder != self.number) {
            return self.fail(operation.name(), "a tensor belongs to another graph");
        }
        let (name, label) = (operation.name(), self.label.borrow().clone());
        let outcome = match &mut *self.state.borrow_mut() {
            Ok(graph) => graph.append(Node { label, operation }),
            Err(_) => Ok(NodeId(usize::MAX)),
        };
        match outcome {
            Ok(node) => Tensor { builder: self.number, node },
            Err(reason) => self.fail(name, reason),
        }
    }

    /// What is known of a tensor; nothing after a mistake.
    fn facts(&self, tensor: Tensor) -> Option<Facts> {
        let state = self.state.borrow();
        let graph = state.as_ref().ok()?;
        (tensor.builder == self.number).then(|| graph.facts.get(tensor.node.0).cloned())?
    }

    /// The shape of a tensor; that of a single number after a mistake.
    #[must_use]
    pub fn shape(&self, tensor: Tensor) -> Vec<usize> {
        self.facts(tensor).map(|facts| facts.shape).unwrap_or_default()
    }

    fn fresh_name(&self, prefix: &str) -> String {
        let number = self.unnamed.get();
        self.unnamed.set(number + 1);
        format!("{prefix}{number}")
    }

    /// Numbers that `player` brings for each evaluation: plaintext at the player.
    #[track_caller]
    pub fn local_input(&self, player: &str, name: &str, shape: impl Into<Vec<usize>>) -> Tensor {
        self.input(player, name, shape.into(), Lifetime::Evaluation)
    }

    /// Numbers that `player` brings once, for all evaluations of a session: plaintext at
    /// the player.
    #[track_caller]
    pub fn local_variable(&self, player: &str, name: &str, shape: impl Into<Vec<usize>>) -> Tensor {
        self.input(player, name, shape.into(), Lifetime::Session)
    }

    #[track_caller]
    fn input(&self, player: &str, name: &str, shape: Vec<usize>, lifetime: Lifetime) -> Tensor {
        match player.parse::<Name>() {
            Ok(player) => self.push(Op::Input { player, name: name.into(), shape, lifetime }, &[]),
            Err(error) => self.fail("input", error),
        }
    }

    /// A private tensor that `player` brings for each evaluation. The player calls
    /// it `input0`, `input1` and so on, counted over the graph; see
    /// [`GraphBuilder::local_input`] for a name.
    #[track_caller]
    pub fn private_input(&self, player: &str, shape: impl Into<Vec<usize>>) -> Tensor {
        let name = self.fresh_name("input");
        self.share(self.local_input(player, &name, shape))
    }

    /// A private tensor that `player` brings once, for all evaluations of a
    /// session, like the weights of a model.
    #[track_caller]
    pub fn private_variable(
        &self,
        player: &str,
        name: &str,
        shape: impl Into<Vec<usize>>,
    ) -> Tensor {
        self.share(self.local_variable(player, name, shape))
    }

    /// Numbers that everybody knows, row-major.
    #[track_caller]
    pub fn constant(&self, shape: impl Into<Vec<usize>>, values: impl Into<Vec<f64>>) -> Tensor {
        self.push(Op::Constant { shape: shape.into(), values: values.into() }, &[])
    }

    /// A number that everybody knows.
    #[track_caller]
    pub fn scalar(&self, value: f64) -> Tensor {
        self.constant([], [value])
    }

    /// Shares a local tensor between the servers.
    #[track_caller]
    pub fn share(&self, x: Tensor) -> Tensor {
        self.push(Op::Share { input: x.node }, &[x])
    }

    /// Reveals a private tensor to `player`, who may compute on with it alone.
    #[track_caller]
    pub fn reveal(&self, player: &str, x: Tensor) -> Tensor {
        match player.parse::<Name>() {
            Ok(player) => self.push(Op::Reveal { input: x.node, player }, &[x]),
            Err(error) => self.fail("reveal", error),
        }
    }

    /// Makes a local tensor that depends on a revealed one an output of its player, who calls
    /// it `name`.
    #[track_caller]
    pub fn output(&self, name: &str, x: Tensor) {
        self.push(Op::Output { input: x.node, name: name.into() }, &[x]);
    }

    /// Reveals a private tensor to `player` as an output, called `output0`,
    /// `output1` and so on, counted with the unnamed inputs over the graph.
    #[track_caller]
    pub fn private_output(&self, player: &str, x: Tensor) {
        let name = self.fresh_name("output");
        self.output(&name, self.reveal(player, x));
    }

    /// `x + y`, broadcast.
    #[track_caller]
    pub fn add(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::Add { left: x.node, right: y.node }, &[x, y])
    }

    /// `x - y`, broadcast.
    #[track_caller]
    pub fn sub(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::Sub { left: x.node, right: y.node }, &[x, y])
    }

    /// `-x`.
    #[track_caller]
    pub fn neg(&self, x: Tensor) -> Tensor {
        self.push(Op::Neg { input: x.node }, &[x])
    }

    /// `x * y`, element by element, broadcast.
    #[track_caller]
    pub fn mul(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::Mul { left: x.node, right: y.node }, &[x, y])
    }

    /// `factor * x`.
    #[track_caller]
    pub fn scale(&self, x: Tensor, factor: f64) -> Tensor {
        self.mul(x, self.scalar(factor))
    }

    /// `x * x`, element by element.
    #[track_caller]
    pub fn square(&self, x: Tensor) -> Tensor {
        self.push(Op::Square { input: x.node }, &[x])
    }

    /// `[m, k] * [k, n] -> [m, n]`.
    #[track_caller]
    pub fn matmul(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::MatMul { left: x.node, right: y.node }, &[x, y])
    }

    /// Images `[batch, height, width, in]` with filters `[height, width, in, out]`,
    /// which are applied `stride` apart after `padding` zeros were added around them.
    ///
    /// The stride is a number of pixels or `[vertical, horizontal]`, at least 1; the padding
    /// a number, `[top, bottom, left, right]`, or [`Padding::same`]. The result is `[batch,
    /// rows, columns, out]`, where `rows = (top + height + bottom - filter height) / vertical
    /// + 1`, rounded down, and `columns` alike; filters that do not fit are refused.
    ///
    /// ```
    /// # use spdz::graph::{GraphBuilder, Padding, Window};
    /// # let g = GraphBuilder::new(["owner", "client"]);
    /// let x = g.private_input("client", [1, 28, 28, 3]);
    /// let w = g.private_variable("owner", "w", [4, 4, 3, 8]);
    /// let y = g.conv2d(x, w, 2, Padding::same([28, 28], [4, 4], 2));
    /// assert_eq!(g.shape(y), [1, 14, 14, 8]);
    /// let z = g.avg_pool(y, Window::from(3).every(2));
    /// assert_eq!(g.shape(z), [1, 6, 6, 8]);
    /// ```
    #[track_caller]
    pub fn conv2d(
        &self,
        x: Tensor,
        filter: Tensor,
        stride: impl Into<Stride>,
        padding: impl Into<Padding>,
    ) -> Tensor {
        let (stride, padding) = (stride.into(), padding.into());
        self.push(Op::Conv2d { input: x.node, filter: filter.node, stride, padding }, &[x, filter])
    }

    /// Sums over windows of `[batch, height, width, channels]`.
    ///
    /// A number of pixels or `[height, width]` is windows next to each other, and
    /// `Window::from(3).every(2)` others: see [`Windows`]. The result is `[batch, rows,
    /// columns, channels]`, where `rows = (height - window height) / vertical stride + 1`,
    /// rounded down, and `columns` alike; windows that do not fit are refused.
    #[track_caller]
    pub fn sum_pool(&self, x: Tensor, windows: impl Into<Windows>) -> Tensor {
        let Windows { window, stride } = windows.into();
        let stride = (Windows::from(window).stride != stride).then_some(stride);
        self.push(Op::SumPool { input: x.node, window, stride }, &[x])
    }

    /// Averages over windows of `[batch, height, width, channels]`; see
    /// [`GraphBuilder::sum_pool`].
    #[track_caller]
    pub fn avg_pool(&self, x: Tensor, windows: impl Into<Windows>) -> Tensor {
        let windows = windows.into();
        let sums = self.sum_pool(x, windows);
        self.scale(sums, (windows.window.area().max(1) as f64).recip())
    }

    /// The largest values of windows of `[batch, height, width, channels]`, exact: the windows of
    /// these sides that are `stride` apart, of images with `padding` around them. Padding has no
    /// values and never is the largest; along each side it is less than a window. The result is
    /// `[batch, rows, columns, channels]`, where `rows = (top + height + bottom - window height) /
    /// vertical stride + 1`, rounded down, and `columns` alike; windows that do not fit are
    /// refused.
    ///
    /// The number format must have a comparison, as for [`GraphBuilder::relu`]. Before or
    /// after a ReLU it costs that many fewer ReLUs: both orders are the same.
    ///
    /// ```
    /// # use spdz::graph::GraphBuilder;
    /// # let g = GraphBuilder::new(["client"]);
    /// let x = g.private_input("client", [1, 28, 28, 3]);
    /// let y = g.max_pool(x, 3, 2, 1);
    /// assert_eq!(g.shape(y), [1, 14, 14, 3]);
    /// ```
    #[track_caller]
    pub fn max_pool(
        &self,
        x: Tensor,
        window: impl Into<Window>,
        stride: impl Into<Stride>,
        padding: impl Into<Padding>,
    ) -> Tensor {
        let (window, stride, padding) = (window.into(), stride.into(), padding.into());
        let stride = (Windows::from(window).stride != stride).then_some(stride);
        self.push(Op::MaxPool { input: x.node, window, stride, padding }, &[x])
    }

    /// The same elements in another shape.
    #[track_caller]
    pub fn reshape(&self, x: Tensor, shape: impl Into<Vec<usize>>) -> Tensor {
        self.push(Op::Reshape { input: x.node, shape: shape.into() }, &[x])
    }

    /// The first axis kept, all others one.
    #[track_caller]
    pub fn flatten(&self, x: Tensor) -> Tensor {
        let shape = self.shape(x);
        let first = shape.first().copied().unwrap_or(1);
        self.reshape(x, [first, shape.iter().skip(1).product()])
    }

    /// The axes in the order that `axes` gives, the input's axis for each of the result.
    #[track_caller]
    pub fn transpose(&self, x: Tensor, axes: impl Into<Vec<usize>>) -> Tensor {
        self.push(Op::Transpose { input: x.node, axes: axes.into() }, &[x])
    }

    /// Tensors after each other along `axis`.
    #[track_caller]
    pub fn concat(&self, tensors: &[Tensor], axis: usize) -> Tensor {
        let inputs = tensors.iter().map(|tensor| tensor.node).collect();
        self.push(Op::Concat { inputs, axis }, tensors)
    }

    /// Tensors of the same shape along a new axis.
    #[track_caller]
    pub fn stack(&self, tensors: &[Tensor], axis: usize) -> Tensor {
        let mut raised = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let mut shape = self.shape(*tensor);
            if axis > shape.len() {
                return self.fail(
                    "stack",
                    format!("there is no place {axis} for an axis in {}", Shape(&shape)),
                );
            }
            shape.insert(axis, 1);
            raised.push(self.reshape(*tensor, shape));
        }
        self.concat(&raised, axis)
    }

    /// Part of each axis: the first index, the index after the last, and the step.
    #[track_caller]
    pub fn slice(&self, x: Tensor, ranges: impl Into<Vec<(usize, usize, usize)>>) -> Tensor {
        self.push(Op::Slice { input: x.node, ranges: ranges.into() }, &[x])
    }

    /// Repeated along new leading axes and axes of length one.
    #[track_caller]
    pub fn expand(&self, x: Tensor, shape: impl Into<Vec<usize>>) -> Tensor {
        self.push(Op::Expand { input: x.node, shape: shape.into() }, &[x])
    }

    /// Sums along `axes`, ascending, which go.
    #[track_caller]
    pub fn reduce_sum(&self, x: Tensor, axes: impl Into<Vec<usize>>) -> Tensor {
        self.push(Op::ReduceSum { input: x.node, axes: axes.into() }, &[x])
    }

    /// Averages along `axes`, ascending, which go.
    #[track_caller]
    pub fn reduce_mean(&self, x: Tensor, axes: impl Into<Vec<usize>>) -> Tensor {
        let axes = axes.into();
        let shape = self.shape(x);
        let count: usize = axes.iter().filter_map(|axis| shape.get(*axis)).product();
        let sums = self.reduce_sum(x, axes);
        self.scale(sums, (count.clamp(1, MAX_TENSOR) as f64).recip())
    }

    /// A polynomial of each element.
    #[track_caller]
    pub fn polynomial(&self, x: Tensor, polynomial: Polynomial) -> Tensor {
        self.push(Op::Polynomial { input: x.node, polynomial }, &[x])
    }

    /// A function of each element: exact where the tensor is local, and for private
    /// tensors the least-squares polynomial of `fit`.
    #[track_caller]
    pub fn fitted(&self, x: Tensor, function: Function, fit: Fit) -> Tensor {
        if self.facts(x).is_some_and(|facts| facts.place != Place::Private) {
            return self.function(x, function);
        }
        match Polynomial::fit_function(function, fit) {
            Ok(polynomial) => self.polynomial(x, polynomial),
            Err(reason) => self.fail("polynomial", reason),
        }
    }

    /// `max(x, 0)` of each element, exact. The number format must have a comparison, which
    /// `Int64` and `Int32` have and `Int100` has not: there, and in `Int64` too, is the polynomial
    /// of [`GraphBuilder::fitted`].
    #[track_caller]
    pub fn relu(&self, x: Tensor) -> Tensor {
        self.push(Op::Relu { input: x.node }, &[x])
    }

    /// The larger of `x` and `y`, element by element, broadcast; exact. The number format must have
    /// a comparison, as for [`GraphBuilder::relu`].
    #[track_caller]
    pub fn maximum(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::Maximum { left: x.node, right: y.node }, &[x, y])
    }

    /// The smaller of `x` and `y`; see [`GraphBuilder::maximum`].
    #[track_caller]
    pub fn minimum(&self, x: Tensor, y: Tensor) -> Tensor {
        self.push(Op::Minimum { left: x.node, right: y.node }, &[x, y])
    }

    /// The magnitude of each element, exact; the format as for [`GraphBuilder::relu`].
    #[track_caller]
    pub fn abs(&self, x: Tensor) -> Tensor {
        self.push(Op::Abs { input: x.node }, &[x])
    }

    /// `x`, but not less than `low` and not more than `high`, of which either may be missing; exact. The
    /// number format as for [`GraphBuilder::relu`], and both ends within its range.
    ///
    /// ```
    /// # use spdz::graph::GraphBuilder;
    /// # let g = GraphBuilder::new(["client"]);
    /// # let x = g.private_input("client", [4]);
    /// let hard_tanh = g.clip(x, -1.0, 1.0);
    /// let at_least = g.clip(x, 0.5, None);
    /// ```
    #[track_caller]
    pub fn clip(
        &self,
        x: Tensor,
        low: impl Into<Option<f64>>,
        high: impl Into<Option<f64>>,
    ) -> Tensor {
        self.push(Op::Clip { input: x.node, low: low.into(), high: high.into() }, &[x])
    }

    /// `x`, but not less than 0 and not more than 6: [`GraphBuilder::clip`].
    #[track_caller]
    pub fn relu6(&self, x: Tensor) -> Tensor {
        self.clip(x, 0.0, 6.0)
    }

    /// `x` from zero on, and `slope * x` below; the format as for [`GraphBuilder::relu`]. The slope is
    /// rounded to what the format resolves.
    #[track_caller]
    pub fn leaky_relu(&self, x: Tensor, slope: f64) -> Tensor {
        self.push(Op::LeakyRelu { input: x.node, slope }, &[x])
    }

    /// `x` from zero on, and `slopes * x` below, where the slopes are broadcast to the shape of `x`. The
    /// format as for [`GraphBuilder::relu`].
    #[track_caller]
    pub fn prelu(&self, x: Tensor, slopes: Tensor) -> Tensor {
        self.push(Op::Prelu { input: x.node, slopes: slopes.node }, &[x, slopes])
    }

    /// 1 where `x` is `threshold` or more, else 0; exact. The format as for
    /// [`GraphBuilder::relu`], and the threshold within its range.
    #[track_caller]
    pub fn step(&self, x: Tensor, threshold: f64) -> Tensor {
        self.push(Op::Step { input: x.node, threshold }, &[x])
    }

    /// A continuous piecewise linear function of each element. The format as for
    /// [`GraphBuilder::relu`], and all points within its range.
    #[track_caller]
    pub fn piecewise(&self, x: Tensor, piecewise: Piecewise) -> Tensor {
        self.push(Op::Piecewise { input: x.node, piecewise }, &[x])
    }

    /// An activation of neural networks, of each element. Of a private tensor it is a piecewise
    /// linear function within [`ACTIVATION_ERROR`](crate::piecewise::ACTIVATION_ERROR) over the whole
    /// range of the format, which is as for [`GraphBuilder::relu`].
    #[track_caller]
    pub fn activation(&self, x: Tensor, activation: Activation) -> Tensor {
        self.push(Op::Activation { input: x.node, activation }, &[x])
    }

    /// The logistic function; of private tensors its fit of degree 9 on `[-8, 8]`.
    #[track_caller]
    pub fn sigmoid(&self, x: Tensor) -> Tensor {
        self.fitted(x, Function::Sigmoid, Fit { bound: 8.0, degree: 9, range: 8.0 })
    }

    /// The hyperbolic tangent; of private tensors its fit of degree 9 on `[-4, 4]`.
    #[track_caller]
    pub fn tanh(&self, x: Tensor) -> Tensor {
        self.fitted(x, Function::Tanh, Fit { bound: 4.0, degree: 9, range: 4.0 })
    }

    /// A function of a local tensor, computed exactly by its player.
    #[track_caller]
    pub fn function(&self, x: Tensor, function: Function) -> Tensor {
        self.push(Op::Function { input: x.node, function }, &[x])
    }

    /// The probabilities that logits stand for, along the last axis of a local tensor.
    #[track_caller]
    pub fn softmax(&self, x: Tensor) -> Tensor {
        self.function(x, Function::Softmax)
    }

    /// The place of the largest value along the last axis, which goes; the first of equals. Of
    /// private tensors it is exact too: who is revealed it learns the place and nothing else of
    /// the values. They are 2 to 65536 in a row, and the number format must have a comparison, as for
    /// [`GraphBuilder::relu`]. Places from 1024 on are beyond the range of what may be multiplied.
    #[track_caller]
    pub fn argmax(&self, x: Tensor) -> Tensor {
        if self.facts(x).is_some_and(|facts| facts.place != Place::Private) {
            return self.function(x, Function::ArgMax);
        }
        self.push(Op::ArgMax { input: x.node }, &[x])
    }

    /// One at the place of the largest value along the last axis, the first of equals, and zeros
    /// elsewhere; see [`GraphBuilder::argmax`].
    #[track_caller]
    pub fn one_hot_argmax(&self, x: Tensor) -> Tensor {
        self.push(Op::OneHotArgMax { input: x.node }, &[x])
    }

    /// Batch normalisation over the last axis with statistics from training:
    /// `(x - mean) / sqrt(variance + epsilon) * gamma + beta`.
    ///
    /// The statistics are public, or local to one player, who then computes factor
    /// and offset alone and shares those: a product that keeps the statistics private.
    #[track_caller]
    pub fn batch_norm(&self, x: Tensor, statistics: BatchNorm) -> Tensor {
        let (factor, offset) = self.batch_norm_factors(statistics);
        let private = self.facts(x).is_some_and(|facts| facts.place == Place::Private);
        let operand = |tensor: Tensor| match self.facts(tensor).map(|facts| facts.place) {
            Some(Place::Local { .. }) if private => self.share(tensor),
            _ => tensor,
        };
        self.add(self.mul(x, operand(factor)), operand(offset))
    }

    /// What batch normalisation multiplies with and adds, where the statistics are:
    /// to be folded into the linear layer before it.
    #[track_caller]
    pub fn batch_norm_factors(&self, statistics: BatchNorm) -> (Tensor, Tensor) {
        let BatchNorm { gamma, beta, mean, variance, epsilon } = statistics;
        let deviation = self.function(self.add(variance, self.scalar(epsilon)), Function::Sqrt);
        let factor = self.mul(gamma, self.function(deviation, Function::Reciprocal));
        let offset = self.sub(beta, self.mul(mean, factor));
        (factor, offset)
    }
}

/// The statistics of batch normalisation, a number for each channel.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// What the normalised values are multiplied with.
    pub gamma: Tensor,
    /// What is added then.
    pub beta: Tensor,
    /// The mean in training.
    pub mean: Tensor,
    /// The variance in training.
    pub variance: Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}
