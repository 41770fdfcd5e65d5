//! From the nodes of a graph to the steps of a plan.

use std::sync::Arc;

use super::bounds::bits;
use super::comparisons::Extreme;
use super::compiler::{Biased, Compiler};
use super::lowered::{Layout, ScaledMask};
use super::public::expanded_view;
use crate::geometry::{Places, Pooling, View, Windows};
use crate::graph::{Graph, NodeId, Op, Place};
use crate::ops;
use crate::piecewise::Piecewise;
use crate::plan::error::PlanError;
use crate::plan::step::{MAX_STEPS, Step};
use crate::ring::{NumberFormat, Truncation};
use crate::tensors::{InputSpec, OutputSpec, Table};

/// What a graph is lowered to.
pub(in crate::plan) struct Program {
    /// The steps that are taken once a session.
    pub(in crate::plan) setup: Vec<Step>,
    /// The steps of an evaluation, in an order in which each reads what is there.
    pub(in crate::plan) evaluation: Vec<Step>,
    /// The tensors.
    pub(in crate::plan) table: Table,
    /// How many local truncations fail in one evaluation at most, on average.
    pub(in crate::plan) local_failures: f64,
    /// The largest error of a polynomial, units in the last place.
    pub(in crate::plan) polynomial_error: f64,
}

/// Lowers the nodes of a graph one after the other.
pub(in crate::plan) fn compile(
    graph: &Graph,
    format: NumberFormat,
    truncation: Truncation,
) -> Result<Program, PlanError> {
    let limit = format.precision().limit();
    if let Some(found) = graph.range().filter(|range| f64::from(*range) > limit) {
        return Err(PlanError::DeclaredRange { found, limit, format });
    }
    let mut compiler = Compiler::new(graph, format, truncation);
    for index in 0..graph.nodes().len() {
        compiler.node(index)?;
        if let Some(error) = compiler.unreliable {
            return Err(error);
        }
        if compiler.setup.len() + compiler.evaluation.len() > MAX_STEPS {
            return Err(PlanError::Steps { layer: compiler.place() });
        }
    }
    compiler.table.low_bits = compiler.low_bits();
    let Compiler { setup, evaluation, table, local_failures, polynomial_error, .. } = compiler;
    Ok(Program { setup, evaluation, table, local_failures, polynomial_error })
}

impl Compiler<'_> {
    pub(super) fn node(&mut self, index: usize) -> Result<(), PlanError> {
        let (id, node) = (NodeId(index), &self.graph.nodes()[index]);
        self.layer.clone_from(&node.label);
        self.current = index;
        if let Op::Reveal { input, player } = &node.operation {
            let value = if self.exact { self.rounded(input.0) } else { self.reduced(input.0) };
            self.table.outputs.push(OutputSpec {
                player: *player,
                node: id,
                layer: node.label.clone(),
                len: self.lowered[index].len,
                fraction: value.fraction,
                // Numbers without a fraction, which count something, have more bits.
                integral: match value.fraction {
                    0 => value.integral.max(self.integral()) as u32,
                    _ => self.integral() as u32,
                },
                step: 0,
            });
            let output = self.table.outputs.len() - 1;
            self.push(Arc::new(ops::Output { output, input: value.id }));
            return Ok(());
        }
        if !self.is_private(id) || self.deferred[index] {
            return Ok(());
        }
        let shape = self.shape(id);
        match &node.operation {
            Op::Share { input } => self.share(index, *input),
            Op::Add { left, right } => self.sum(index, (*left, 1), (*right, 1))?,
            Op::Sub { left, right } => self.sum(index, (*left, 1), (*right, -1))?,
            Op::Neg { input } => {
                let value = self.private(input.0);
                self.scaled(index, value, -1, 0, value.integral)?;
            }
            Op::Mul { left, right } => match (self.is_private(*left), self.is_private(*right)) {
                (true, true) if left == right => self.square(index, *left)?,
                (true, true) => {
                    let [left, right] = [*left, *right].map(|id| self.expanded(id, shape));
                    let (left, right) = (self.masked(left), self.masked(right));
                    let fraction = left.fraction + right.fraction;
                    self.set(index, fraction, 2 * self.integral(), |output| {
                        Arc::new(ops::Mul { left: left.id, right: right.id, output })
                    })?;
                }
                (true, false) => self.mul_public(index, *left, *right)?,
                _ => self.mul_public(index, *right, *left)?,
            },
            Op::Square { input } => self.square(index, *input)?,
            Op::MatMul { .. } | Op::Conv2d { .. } => self.linear(index, id, None)?,
            Op::SumPool { input, window, stride } => {
                let &[batch, height, width, channels] = self.shape(*input) else {
                    unreachable!("a graph's shapes agree");
                };
                let Windows { window, stride } = Windows::of(*window, *stride);
                let pooling = Pooling { batch, height, width, channels, window, stride };
                let value = self.summable(input.0, bits(window.area()));
                let integral = value.integral + bits(window.area());
                self.set(index, value.fraction, integral, |output| {
                    Arc::new(ops::SumPool { input: value.id, pooling, output })
                })?;
            }
            Op::Reshape { input, .. } => self.lowered[index].layout = Some(Layout::Alias(input.0)),
            Op::Transpose { input, axes } => {
                let view = View::of(self.shape(*input));
                let axes = axes.iter().map(|axis| view.axes[*axis]).collect();
                let view = View { offset: 0, axes };
                self.lowered[index].layout = Some(Layout::Whole(input.0, view));
            }
            Op::Expand { input, .. } => {
                let view = expanded_view(self.shape(*input), shape);
                self.lowered[index].layout = Some(Layout::Whole(input.0, view));
            }
            Op::Slice { input, ranges } => {
                let mut view = View::of(self.shape(*input));
                for ((axis, &(start, _, step)), &side) in
                    view.axes.iter_mut().zip(ranges).zip(shape)
                {
                    view.offset += start * axis.1;
                    // A step beyond the axis takes one element, however far it is.
                    *axis = (side, axis.1 * step.min(axis.0));
                }
                self.lowered[index].layout = Some(Layout::Part(input.0, view));
            }
            Op::Concat { inputs, axis } => {
                let outer = shape[..*axis].iter().product();
                let sources = inputs.iter().map(|id| id.0).collect();
                let public = inputs.iter().filter(|id| !self.is_private(**id));
                for id in public.copied().collect::<Vec<_>>() {
                    self.publish(id)?;
                }
                self.lowered[index].layout = Some(Layout::Concat(sources, outer));
            }
            Op::ReduceSum { input, axes } => self.reduce_sum(index, *input, axes)?,
            Op::Relu { input } => self.relu(index, *input)?,
            Op::Maximum { left, right } => self.extreme(index, *left, *right, Extreme::Largest)?,
            Op::Minimum { left, right } => self.extreme(index, *left, *right, Extreme::Smallest)?,
            Op::Abs { input } => self.abs(index, *input)?,
            Op::Clip { input, low, high } => {
                self.piecewise(index, *input, &Piecewise::clip(*low, *high))?;
            }
            Op::LeakyRelu { input, slope } => {
                self.piecewise(index, *input, &Piecewise::leaky_relu(*slope))?;
            }
            Op::Piecewise { input, piecewise } => self.piecewise(index, *input, piecewise)?,
            Op::Activation { input, activation } => {
                self.piecewise(index, *input, &activation.piecewise())?;
            }
            Op::Prelu { input, slopes } => self.prelu(index, *input, *slopes)?,
            Op::Step { input, threshold } => self.step(index, *input, *threshold)?,
            Op::ArgMax { input } => self.argmax(index, *input, false)?,
            Op::OneHotArgMax { input } => self.argmax(index, *input, true)?,
            Op::MaxPool { input, window, stride, padding } => {
                let &[batch, height, width, channels] = self.shape(*input) else {
                    unreachable!("a graph's shapes agree");
                };
                let Windows { window, stride } = Windows::of(*window, *stride);
                let padding = *padding;
                let places = Places { batch, height, width, channels, window, stride, padding };
                self.max_pool(index, *input, places)?;
            }
            Op::Polynomial { input, polynomial } => self.polynomial(index, *input, polynomial)?,
            Op::Input { .. }
            | Op::Constant { .. }
            | Op::Reveal { .. }
            | Op::Output { .. }
            | Op::Function { .. } => unreachable!("never private"),
        }
        Ok(())
    }

    pub(super) fn share(&mut self, index: usize, source: NodeId) {
        let facts = self.graph.facts(NodeId(index));
        let Place::Local { player, .. } = self.graph.facts(source).place else {
            unreachable!("a graph shares local tensors only");
        };
        let name = match self.graph.operation(source) {
            Op::Input { name, .. } => name.clone(),
            _ => self.layer.clone(),
        };
        // A bias joins a product before that is truncated.
        let is_bias = |pair: &Option<Biased>| pair.is_some_and(|pair| pair.bias == index);
        let fraction = if self.users[index].iter().all(|user| is_bias(&self.biased[*user])) {
            2 * self.f()
        } else {
            self.f()
        };
        let len = self.lowered[index].len;
        self.table.inputs.push(InputSpec {
            player,
            node: NodeId(index),
            name,
            len,
            fraction,
            lifetime: facts.lifetime,
            step: 0,
        });
        let output = self.masked_of(len);
        self.push(Arc::new(ops::Input { input: self.table.inputs.len() - 1, output }));
        let masked = ScaledMask { id: output, fraction };
        self.lowered[index].masked = Some(masked);
    }
}
