//! Lowering a graph to steps.
//!
//! Products keep the fractional bits of both operands; a tensor is divided back to
//! the format's precision only when it is about to be masked or revealed, so that sums
//! and pooling come first and as few elements as possible are divided. A tensor is
//! masked once however often it is used, and what only moves elements moves the masked
//! tensor.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::powers::{self, Room, Scheme};
use super::{
    InputSpec, MAX_STEPS, MaskedId, NumberFormat, Operation, OutputSpec, Plan, PlanError,
    PrivateId, PublicId, PublicTensor, Step, Truncation,
};
use crate::fixed::Precision;
use crate::geometry::{Convolution, Linear, MatMul, Pooling, View, Windows};
use crate::graph::{Graph, Lifetime, MAX_PUBLIC, NodeId, Op, Place, Plaintext};
use crate::polynomial::Polynomial;

/// Errors of a polynomial that are none of its own: those of a few divisions.
const FEW_UNITS: f64 = 8.0;

/// The largest error of a polynomial, as a share of the largest value that it takes.
const LARGEST_SHARE: f64 = 1.0 / 32.0;

/// The largest probability that dividing one number locally fails, whatever its value within
/// the range.
const LARGEST_FAILURE: f64 = 1.0 / 65536.0;

/// A private tensor whose elements stand for their value times `2^fraction`.
#[derive(Clone, Copy)]
struct Scaled {
    id: PrivateId,
    fraction: i32,
    /// Values are below `2^integral` in magnitude.
    integral: i32,
}

/// A masked tensor whose elements stand for their value times `2^fraction`.
#[derive(Clone, Copy)]
struct ScaledMask {
    id: MaskedId,
    fraction: i32,
}

/// Where the elements of a tensor that was not computed come from.
#[derive(Clone)]
enum Moved {
    /// The same elements.
    Alias(usize),
    /// Selected from a tensor that is masked as a whole.
    Whole(usize, View),
    /// Selected from a tensor that is masked only if it already is.
    Part(usize, View),
    /// From several tensors.
    Concat(Vec<usize>, usize),
}

/// The forms that a tensor of the graph, or a power within a polynomial, has so far.
#[derive(Clone, Default)]
struct Forms {
    len: usize,
    /// As computed.
    raw: Option<Scaled>,
    /// With at most the format's fractional bits.
    reduced: Option<Scaled>,
    /// Masked, with at most the format's fractional bits.
    masked: Option<ScaledMask>,
    moved: Option<Moved>,
}

struct Compiler<'graph> {
    graph: &'graph Graph,
    format: NumberFormat,
    truncation: Truncation,
    precision: Precision,
    layer: String,
    /// The node that is lowered.
    current: usize,
    setup: Vec<Step>,
    evaluation: Vec<Step>,
    private_lens: Vec<usize>,
    masked_lens: Vec<usize>,
    /// Which tensors last for the session.
    private_lasts: Vec<bool>,
    masked_lasts: Vec<bool>,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
    publics: Vec<PublicTensor>,
    layers: usize,
    /// One for each node of the graph, then those of powers.
    forms: Vec<Forms>,
    /// The nodes that read each node.
    users: Vec<Vec<usize>>,
    /// Those of the public nodes.
    values: BTreeMap<NodeId, Plaintext>,
    /// What is known of them so far; see [`Compiler::uniform`].
    uniform: BTreeMap<NodeId, Option<f64>>,
    /// For each addition of a bias, the product that takes it in.
    biased: Vec<Option<Biased>>,
    /// Whether a node is part of a biased product, which is computed at the addition.
    deferred: Vec<bool>,
    /// How many local divisions fail in one evaluation at most, on average.
    local_failures: f64,
    /// The largest error of a polynomial, units in the last place.
    polynomial_error: f64,
    /// The first local division that fails too often.
    unreliable: Option<PlanError>,
}

/// An addition that a product with a weight of the session takes in.
#[derive(Clone, Copy)]
struct Biased {
    product: usize,
    bias: usize,
}

pub(super) fn compile(
    graph: Arc<Graph>,
    format: NumberFormat,
    truncation: Truncation,
) -> Result<Plan, PlanError> {
    let mut compiler = Compiler::new(&graph, format, truncation);
    for index in 0..graph.nodes().len() {
        compiler.node(index)?;
        if let Some(error) = compiler.unreliable {
            return Err(error);
        }
        if compiler.setup.len() + compiler.evaluation.len() > MAX_STEPS {
            return Err(PlanError::Steps { layer: compiler.place() });
        }
    }
    let Compiler {
        setup,
        evaluation,
        private_lens,
        masked_lens,
        mut inputs,
        mut outputs,
        publics,
        layers,
        local_failures,
        polynomial_error,
        ..
    } = compiler;
    let setup_steps = setup.len();
    let steps: Vec<Step> = setup.into_iter().chain(evaluation).collect();
    let mut last_reads = vec![0; private_lens.len()];
    let mut last_masked_reads = vec![0; masked_lens.len()];
    let mut origins = vec![0; masked_lens.len()];
    for (index, step) in steps.iter().enumerate() {
        let operation = &step.operation;
        operation.reads().into_iter().for_each(|id| last_reads[id.0] = index);
        operation.reads_masked().into_iter().for_each(|id| last_masked_reads[id.0] = index);
        if let Some(id) = operation.masked_output() {
            origins[id.0] = index;
        }
        match operation {
            Operation::Input { input, .. } => inputs[*input].step = index,
            // Read when the set-up is over.
            Operation::Linear { bias: Some(bias), .. } => {
                last_reads[bias.0] = last_reads[bias.0].max(setup_steps);
            }
            Operation::Output { output, .. } => outputs[*output].step = index,
            _ => {}
        }
    }
    let mut plan = Plan {
        graph: graph.clone(),
        format,
        truncation,
        steps,
        setup: setup_steps,
        private_lens,
        masked_lens,
        last_reads,
        last_masked_reads,
        origins,
        inputs,
        outputs,
        publics,
        layers,
        local_failures,
        polynomial_error,
        digest: super::Digest([0; 32]),
    };
    plan.digest = plan.fingerprint();
    Ok(plan)
}

impl<'graph> Compiler<'graph> {
    fn new(graph: &'graph Graph, format: NumberFormat, truncation: Truncation) -> Self {
        let nodes = graph.nodes();
        let mut users = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            node.operation.inputs().iter().for_each(|id| users[id.0].push(index));
        }
        let facts = |index: usize| graph.facts(NodeId(index));
        let private = |index: usize| facts(index).place == Place::Private;
        let lasts = |index: usize| facts(index).lifetime == Lifetime::Session;
        // A product with a weight of the session whose only user adds one number for
        // each of its columns, also of the session.
        let biased = |index: usize| {
            let Op::Add { left, right } = nodes[index].operation else { return None };
            let pair = |product: usize, bias: usize| {
                let (Op::MatMul { left, right } | Op::Conv2d { input: left, filter: right, .. }) =
                    nodes[product].operation
                else {
                    return None;
                };
                let columns = facts(product).shape.last().copied();
                let is_row = facts(bias).shape.last().copied() == columns
                    && Some(facts(bias).len()) == columns
                    && facts(bias).shape.len() <= facts(product).shape.len();
                let fits = private(left.0)
                    && private(right.0)
                    && private(bias)
                    && !lasts(left.0)
                    && lasts(right.0)
                    && lasts(bias)
                    && users[product] == [index];
                (is_row && fits).then_some(Biased { product, bias })
            };
            pair(left.0, right.0).or_else(|| pair(right.0, left.0))
        };
        let biased: Vec<Option<Biased>> = (0..nodes.len()).map(biased).collect();
        let mut deferred = vec![false; nodes.len()];
        biased.iter().flatten().for_each(|pair| deferred[pair.product] = true);
        Self {
            graph,
            format,
            truncation,
            precision: format.precision(),
            layer: String::new(),
            current: 0,
            setup: Vec::new(),
            evaluation: Vec::new(),
            private_lens: Vec::new(),
            masked_lens: Vec::new(),
            private_lasts: Vec::new(),
            masked_lasts: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            publics: Vec::new(),
            layers: 0,
            forms: (0..nodes.len())
                .map(|index| Forms { len: facts(index).len(), ..Forms::default() })
                .collect(),
            users,
            values: graph.public_values(),
            uniform: BTreeMap::new(),
            biased,
            deferred,
            local_failures: 0.0,
            polynomial_error: 0.0,
            unreliable: None,
        }
    }

    /// Where in the graph something is wrong, for people.
    fn place(&self) -> String {
        let operation = self.graph.nodes()[self.current].operation.name();
        format!("{}, node {} ({operation})", self.layer, self.current)
    }

    /// The format's fractional bits.
    fn f(&self) -> i32 {
        self.precision.fraction as i32
    }

    /// Bits of values that may be multiplied or revealed.
    fn integral(&self) -> i32 {
        self.precision.integral as i32
    }

    /// Whether dividing costs so much that it is worth many bits to do it seldom; with
    /// a local truncation that is free, values should rather stay small, as their ratio to
    /// the ring's size is the probability of failure.
    fn divides_seldom(&self) -> bool {
        self.truncation == Truncation::Interactive || !self.format.local_truncation_is_free()
    }

    fn shape(&self, id: NodeId) -> &'graph [usize] {
        &self.graph.facts(id).shape
    }

    fn is_private(&self, id: NodeId) -> bool {
        self.graph.facts(id).place == Place::Private
    }

    /// Appends a step to the set-up if it needs nothing of an evaluation and no
    /// interaction, else to the evaluation.
    fn push(&mut self, operation: Operation) {
        let interacts = matches!(
            operation,
            Operation::Open { .. }
                | Operation::Divide { .. }
                | Operation::Linear { .. }
                | Operation::Product { .. }
                | Operation::Square { .. }
                | Operation::Mul { .. }
                | Operation::Output { .. }
        );
        let lasts = match &operation {
            Operation::Input { input, .. } => self.inputs[*input].lifetime == Lifetime::Session,
            Operation::Combine { terms, .. } if terms.is_empty() => false,
            operation => {
                !interacts
                    && operation.reads().iter().all(|id| self.private_lasts[id.0])
                    && operation.reads_masked().iter().all(|id| self.masked_lasts[id.0])
            }
        };
        if let Some(id) = operation.private_output() {
            self.private_lasts[id.0] = lasts;
        }
        if let Some(id) = operation.masked_output() {
            self.masked_lasts[id.0] = lasts;
        }
        let step = Step { layer: self.layer.clone(), operation };
        if lasts { self.setup.push(step) } else { self.evaluation.push(step) }
    }

    fn private_of(&mut self, len: usize) -> PrivateId {
        self.private_lens.push(len);
        self.private_lasts.push(false);
        PrivateId(self.private_lens.len() - 1)
    }

    fn masked_of(&mut self, len: usize) -> MaskedId {
        self.masked_lens.push(len);
        self.masked_lasts.push(false);
        MaskedId(self.masked_lens.len() - 1)
    }

    fn public(&mut self, integers: Vec<i128>, fraction: i32) -> PublicId {
        self.publics.push(PublicTensor { integers, fraction });
        PublicId(self.publics.len() - 1)
    }

    /// Makes sure that values with so many bits can be divided again.
    fn check_bits(&self, fraction: i32, integral: i32) -> Result<(), PlanError> {
        // Values far below one have fewer bits than their fraction; dividing takes all of them.
        if fraction.max(fraction + integral) <= self.precision.dividend as i32 {
            return Ok(());
        }
        Err(PlanError::Precision {
            layer: self.place(),
            fraction,
            integral: integral.max(0) as u32,
            available: self.precision.dividend,
            format: self.format,
        })
    }

    /// Whether values with so many bits can be divided again, and locally without failing
    /// too often once they are within the format's range.
    fn divides_well(&self, fraction: i32, integral: i32) -> bool {
        let local = self.truncation == Truncation::Local;
        let failure = self.failure(fraction, integral.min(self.integral()));
        self.check_bits(fraction, integral).is_ok() && !(local && failure > LARGEST_FAILURE)
    }

    /// The probability that the local division of a number of so many bits fails: its share of
    /// the ring.
    fn failure(&self, fraction: i32, integral: i32) -> f64 {
        f64::from(fraction + integral - self.precision.ring as i32).exp2()
    }

    /// The result of a computation at `slot`.
    fn set(
        &mut self,
        slot: usize,
        fraction: i32,
        integral: i32,
        make: impl FnOnce(PrivateId) -> Operation,
    ) -> Result<(), PlanError> {
        self.check_bits(fraction, integral)?;
        let id = self.private_of(self.forms[slot].len);
        self.push(make(id));
        self.forms[slot].raw = Some(Scaled { id, fraction, integral });
        Ok(())
    }

    /// A private form of the tensor, with whatever fractional bits it has.
    fn private(&mut self, slot: usize) -> Scaled {
        let forms = &self.forms[slot];
        if let Some(raw) = forms.raw.or(forms.reduced) {
            return raw;
        }
        let len = forms.len;
        let scaled = match (forms.masked, forms.moved.clone()) {
            (Some(masked), _) => self.unmask(masked, len),
            (None, Some(Moved::Alias(source))) => return self.private(source),
            (None, Some(Moved::Whole(source, view) | Moved::Part(source, view))) => {
                let input = self.private(source);
                let output = self.private_of(len);
                self.push(Operation::View { input: input.id, view, output });
                Scaled { id: output, ..input }
            }
            (None, Some(Moved::Concat(sources, outer))) => {
                let most = |parts: &[Scaled]| {
                    let fraction = parts.iter().map(|part| part.fraction).max();
                    let integral = parts.iter().map(|part| part.integral).max();
                    (fraction.unwrap_or_default(), integral.unwrap_or_default())
                };
                let mut parts: Vec<Scaled> =
                    sources.iter().map(|&slot| self.private(slot)).collect();
                let (fraction, integral) = most(&parts);
                if !self.divides_well(fraction, integral) {
                    parts = sources.iter().map(|&slot| self.reduced(slot)).collect();
                }
                let (fraction, integral) = most(&parts);
                let inputs = parts.iter().map(|part| self.lifted(*part, fraction).id).collect();
                let output = self.private_of(len);
                self.push(Operation::Concat { inputs, outer, output });
                Scaled { id: output, fraction, integral }
            }
            (None, None) => unreachable!("a graph's nodes are lowered before they are read"),
        };
        self.forms[slot].raw = Some(scaled);
        scaled
    }

    fn unmask(&mut self, masked: ScaledMask, len: usize) -> Scaled {
        let id = self.private_of(len);
        self.push(Operation::Unmask { input: masked.id, output: id });
        Scaled { id, fraction: masked.fraction, integral: self.integral() }
    }

    /// The same values with more fractional bits.
    fn lifted(&mut self, value: Scaled, fraction: i32) -> Scaled {
        if value.fraction >= fraction {
            return value;
        }
        let id = self.private_of(self.private_lens[value.id.0]);
        let factor = 1 << (fraction - value.fraction);
        self.push(Operation::Combine { terms: vec![(value.id, factor)], constant: 0, output: id });
        Scaled { id, fraction, ..value }
    }

    /// The values with at most `fraction` fractional bits, and in masked form if that
    /// came with it. They are below `2^integral`, or those that use them are wrong anyway.
    fn divided(
        &mut self,
        value: Scaled,
        fraction: i32,
        integral: i32,
    ) -> (Scaled, Option<ScaledMask>) {
        if value.fraction <= fraction {
            return (value, None);
        }
        let bits = (value.fraction - fraction) as u32;
        let len = self.private_lens[value.id.0];
        let integral = integral.min(value.integral);
        if self.truncation == Truncation::Local {
            self.may_fail(value.fraction, integral, len);
            let output = self.private_of(len);
            self.push(Operation::Truncate { input: value.id, bits, output });
            return (Scaled { id: output, fraction, integral }, None);
        }
        let output = self.masked_of(len);
        self.push(Operation::Divide { input: value.id, bits, output });
        let masked = ScaledMask { id: output, fraction };
        let quotient = Scaled { integral, ..self.unmask(masked, len) };
        (quotient, (self.format.quotient_parts() == 0).then_some(masked))
    }

    /// Counts that `len` numbers below `2^integral` are divided locally.
    fn may_fail(&mut self, fraction: i32, integral: i32, len: usize) {
        let probability = self.failure(fraction, integral);
        self.local_failures += probability * len as f64;
        if probability > LARGEST_FAILURE && self.unreliable.is_none() {
            self.unreliable = Some(PlanError::Truncation {
                layer: self.place(),
                fraction,
                integral,
                one_in: probability.recip().round() as u64,
                format: self.format,
            });
        }
    }

    /// The values masked, with at most `fraction` fractional bits. They are below
    /// `2^integral`.
    fn opened(&mut self, value: Scaled, fraction: i32, integral: i32) -> ScaledMask {
        let quotient_mask_is_known =
            self.truncation == Truncation::Interactive && self.format.quotient_parts() == 0;
        if value.fraction > fraction && quotient_mask_is_known {
            let output = self.masked_of(self.private_lens[value.id.0]);
            let bits = (value.fraction - fraction) as u32;
            self.push(Operation::Divide { input: value.id, bits, output });
            return ScaledMask { id: output, fraction };
        }
        let (value, _) = self.divided(value, fraction, integral);
        let output = self.masked_of(self.private_lens[value.id.0]);
        self.push(Operation::Open { input: value.id, output });
        ScaledMask { id: output, fraction: value.fraction }
    }

    /// A private form of the tensor with at most the format's fractional bits.
    fn reduced(&mut self, slot: usize) -> Scaled {
        if let Some(reduced) = self.forms[slot].reduced {
            return reduced;
        }
        match self.forms[slot].moved.clone() {
            Some(Moved::Alias(source)) => return self.reduced(source),
            Some(Moved::Whole(source, view)) if self.forms[slot].raw.is_none() => {
                // Whatever is repeated is divided once.
                let input = self.reduced(source);
                let output = self.private_of(self.forms[slot].len);
                self.push(Operation::View { input: input.id, view, output });
                let reduced = Scaled { id: output, ..input };
                self.forms[slot].reduced = Some(reduced);
                return reduced;
            }
            _ => {}
        }
        if let Some(masked) = self.forms[slot].masked.filter(|masked| masked.fraction <= self.f()) {
            let reduced = match self.forms[slot].raw {
                Some(raw) if raw.fraction <= self.f() => raw,
                _ => self.unmask(masked, self.forms[slot].len),
            };
            self.forms[slot].reduced = Some(reduced);
            return reduced;
        }
        let value = self.private(slot);
        let (reduced, masked) = self.divided(value, self.f(), self.integral());
        let forms = &mut self.forms[slot];
        forms.reduced = Some(reduced);
        forms.masked = forms.masked.or(masked);
        reduced
    }

    /// The masked form of the tensor.
    fn masked(&mut self, slot: usize) -> ScaledMask {
        if let Some(masked) = self.forms[slot].masked {
            return masked;
        }
        let len = self.forms[slot].len;
        let masked = match self.forms[slot].moved.clone() {
            Some(Moved::Alias(source)) => return self.masked(source),
            Some(Moved::Whole(source, view)) => self.view_masked(source, view, len),
            Some(Moved::Part(source, view)) if self.forms[source].masked.is_some() => {
                self.view_masked(source, view, len)
            }
            Some(Moved::Concat(sources, outer)) if self.masked_alike(&sources) => {
                let masked: Vec<ScaledMask> =
                    sources.iter().map(|slot| self.masked(*slot)).collect();
                let output = self.masked_of(len);
                let inputs = masked.iter().map(|masked| masked.id).collect();
                self.push(Operation::ConcatMasked { inputs, outer, output });
                ScaledMask { id: output, fraction: masked[0].fraction }
            }
            _ => {
                let forms = &self.forms[slot];
                let value = match forms.reduced {
                    Some(reduced) => reduced,
                    None => self.private(slot),
                };
                self.opened(value, self.f(), self.integral())
            }
        };
        self.forms[slot].masked = Some(masked);
        masked
    }

    fn masked_alike(&self, slots: &[usize]) -> bool {
        let mut fractions = slots.iter().map(|slot| self.forms[*slot].masked.map(|m| m.fraction));
        let first = fractions.next().flatten();
        first.is_some() && fractions.all(|fraction| fraction == first)
    }

    fn view_masked(&mut self, source: usize, view: View, len: usize) -> ScaledMask {
        let input = self.masked(source);
        let output = self.masked_of(len);
        self.push(Operation::ViewMasked { input: input.id, view, output });
        ScaledMask { id: output, ..input }
    }

    /// How a row-major tensor of shape `from` is read as one of shape `to`.
    fn expanded_view(from: &[usize], to: &[usize]) -> View {
        let mut view = View::of(from);
        for (axis, side) in view.axes.iter_mut().zip(&to[to.len() - from.len()..]) {
            if axis.0 != *side {
                *axis = (*side, 0);
            }
        }
        let leading = to[..to.len() - from.len()].iter().map(|side| (*side, 0));
        view.axes = leading.chain(view.axes).collect();
        view
    }

    /// A slot for `id` repeated to `shape`; `id`'s own if there is nothing to repeat.
    fn expanded(&mut self, id: NodeId, shape: &[usize]) -> usize {
        let from = self.shape(id);
        let len: usize = shape.iter().product();
        let moved = if self.forms[id.0].len == len {
            return id.0;
        } else {
            Moved::Whole(id.0, Self::expanded_view(from, shape))
        };
        self.forms.push(Forms { len, moved: Some(moved), ..Forms::default() });
        self.forms.len() - 1
    }

    /// A public tensor's numbers, repeated to `shape`.
    fn public_values(&self, id: NodeId, shape: &[usize]) -> Result<Vec<f64>, PlanError> {
        let before: usize = self.publics.iter().map(|public| public.integers.len()).sum();
        let found = before + shape.iter().product::<usize>();
        if found > MAX_PUBLIC {
            return Err(PlanError::PublicSize { layer: self.place(), found });
        }
        let Some(values) = self.values.get(&id) else {
            unreachable!("the caller has seen that the node is public");
        };
        let mut out = vec![0.0; shape.iter().product()];
        Self::expanded_view(self.shape(id), shape).read(values.as_slice(), &mut out);
        Ok(out)
    }

    /// The one number that a public tensor consists of, if all its elements are alike.
    fn uniform(&mut self, id: NodeId) -> Option<f64> {
        let values = self.values.get(&id)?.as_slice();
        let look = || values.iter().all(|value| *value == values[0]).then_some(values[0]);
        // Once, however many use it.
        *self.uniform.entry(id).or_insert_with(look)
    }

    /// The fewest fractional bits that represent the numbers exactly, at most the format's.
    fn exact_fraction(&self, values: &[f64]) -> i32 {
        let exact = |bits: i32| values.iter().all(|x| (x * f64::from(bits).exp2()).fract() == 0.0);
        (0..self.f()).find(|bits| exact(*bits)).unwrap_or(self.f())
    }

    fn encode(&self, values: &[f64], fraction: i32) -> Result<Vec<i128>, PlanError> {
        let encoded = self.precision.encode_all(values, fraction);
        let source = |(_, source)| PlanError::Public { layer: self.place(), source };
        encoded.map(|integers| integers.to_vec()).map_err(source)
    }

    fn node(&mut self, index: usize) -> Result<(), PlanError> {
        let (id, node) = (NodeId(index), &self.graph.nodes()[index]);
        self.layer.clone_from(&node.label);
        self.current = index;
        if let Op::Reveal { input, player } = &node.operation {
            let value = self.reduced(input.0);
            self.outputs.push(OutputSpec {
                player: *player,
                node: id,
                layer: node.label.clone(),
                len: self.forms[index].len,
                fraction: value.fraction,
                step: 0,
            });
            let output = self.outputs.len() - 1;
            self.push(Operation::Output { output, input: value.id });
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
                    self.set(index, fraction, 2 * self.integral(), |output| Operation::Mul {
                        left: left.id,
                        right: right.id,
                        output,
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
                self.set(index, value.fraction, integral, |output| Operation::SumPool {
                    input: value.id,
                    pooling,
                    output,
                })?;
            }
            Op::Reshape { input, .. } => self.forms[index].moved = Some(Moved::Alias(input.0)),
            Op::Transpose { input, axes } => {
                let view = View::of(self.shape(*input));
                let axes = axes.iter().map(|axis| view.axes[*axis]).collect();
                let view = View { offset: 0, axes };
                self.forms[index].moved = Some(Moved::Whole(input.0, view));
            }
            Op::Expand { input, .. } => {
                let view = Self::expanded_view(self.shape(*input), shape);
                self.forms[index].moved = Some(Moved::Whole(input.0, view));
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
                self.forms[index].moved = Some(Moved::Part(input.0, view));
            }
            Op::Concat { inputs, axis } => {
                let outer = shape[..*axis].iter().product();
                let sources = inputs.iter().map(|id| id.0).collect();
                let public = inputs.iter().filter(|id| !self.is_private(**id));
                for id in public.copied().collect::<Vec<_>>() {
                    self.publish(id)?;
                }
                self.forms[index].moved = Some(Moved::Concat(sources, outer));
            }
            Op::ReduceSum { input, axes } => self.reduce_sum(index, *input, axes)?,
            Op::Polynomial { input, polynomial } => self.polynomial(index, *input, polynomial)?,
            Op::Input { .. }
            | Op::Constant { .. }
            | Op::Reveal { .. }
            | Op::Output { .. }
            | Op::Function { .. } => unreachable!("never private"),
        }
        Ok(())
    }

    fn share(&mut self, index: usize, source: NodeId) {
        let facts = self.graph.facts(NodeId(index));
        let Place::Local { player, .. } = self.graph.facts(source).place else {
            unreachable!("a graph shares local tensors only");
        };
        let name = match self.graph.operation(source) {
            Op::Input { name, .. } => name.clone(),
            _ => self.layer.clone(),
        };
        // A bias joins a product before that is divided.
        let is_bias = |pair: &Option<Biased>| pair.is_some_and(|pair| pair.bias == index);
        let fraction = if self.users[index].iter().all(|user| is_bias(&self.biased[*user])) {
            2 * self.f()
        } else {
            self.f()
        };
        let len = self.forms[index].len;
        self.inputs.push(InputSpec {
            player,
            node: NodeId(index),
            name,
            len,
            fraction,
            lifetime: facts.lifetime,
            step: 0,
        });
        let output = self.masked_of(len);
        self.push(Operation::Input { input: self.inputs.len() - 1, output });
        let masked = ScaledMask { id: output, fraction };
        self.forms[index].masked = Some(masked);
    }

    /// A private form of a public tensor: shares of its numbers.
    fn publish(&mut self, id: NodeId) -> Result<(), PlanError> {
        if self.forms[id.0].raw.is_some() {
            return Ok(());
        }
        let values = self.public_values(id, self.shape(id))?;
        let fraction = self.f();
        let integers = self.encode(&values, fraction)?;
        let public = self.public(integers, fraction);
        let zeros = self.private_of(values.len());
        self.push(Operation::Combine { terms: Vec::new(), constant: 0, output: zeros });
        let integral = self.integral();
        self.set(id.0, fraction, integral, |output| Operation::AddPublic {
            input: zeros,
            public,
            output,
        })
    }

    /// `factor * value`, with `fraction` more fractional bits.
    fn scaled(
        &mut self,
        slot: usize,
        value: Scaled,
        factor: i64,
        fraction: i32,
        integral: i32,
    ) -> Result<(), PlanError> {
        self.set(slot, value.fraction + fraction, integral, |output| Operation::Combine {
            terms: vec![(value.id, factor)],
            constant: 0,
            output,
        })
    }

    /// `left` plus or minus `right`, each with its sign.
    fn sum(
        &mut self,
        index: usize,
        left: (NodeId, i64),
        right: (NodeId, i64),
    ) -> Result<(), PlanError> {
        if let Some(Biased { product, bias }) = self.biased[index] {
            return self.biased_product(index, product, bias);
        }
        let shape = self.shape(NodeId(index));
        let (private, public) = match (self.is_private(left.0), self.is_private(right.0)) {
            (true, true) => return self.private_sum(index, left, right),
            (true, false) => (left, right),
            _ => (right, left),
        };
        let slot = self.expanded(private.0, shape);
        let mut value = self.private(slot);
        if !self.divides_well(value.fraction, value.integral.max(self.integral()) + 1) {
            value = self.reduced(slot);
        }
        let integral = value.integral.max(self.integral()) + 1;
        if let Some(number) = self.uniform(public.0) {
            let constant = self.encode(&[number * public.1 as f64], value.fraction)?[0] as i64;
            return self.set(index, value.fraction, integral, |output| Operation::Combine {
                terms: vec![(value.id, private.1)],
                constant,
                output,
            });
        }
        let mut numbers = self.public_values(public.0, shape)?;
        numbers.iter_mut().for_each(|number| *number *= public.1 as f64);
        let integers = self.encode(&numbers, value.fraction)?;
        let public = self.public(integers, value.fraction);
        let mut input = value.id;
        if private.1 != 1 {
            input = self.private_of(numbers.len());
            let terms = vec![(value.id, private.1)];
            self.push(Operation::Combine { terms, constant: 0, output: input });
        }
        self.set(index, value.fraction, integral, |output| Operation::AddPublic {
            input,
            public,
            output,
        })
    }

    fn private_sum(
        &mut self,
        index: usize,
        left: (NodeId, i64),
        right: (NodeId, i64),
    ) -> Result<(), PlanError> {
        let shape = self.shape(NodeId(index));
        let slots = [left.0, right.0].map(|id| self.expanded(id, shape));
        let mut values = slots.map(|slot| self.private(slot));
        let most = |values: &[Scaled; 2]| {
            (
                values[0].fraction.max(values[1].fraction),
                values[0].integral.max(values[1].integral) + 1,
            )
        };
        let (fraction, integral) = most(&values);
        if !self.divides_well(fraction, integral) {
            values = slots.map(|slot| self.reduced(slot));
        }
        let (fraction, integral) = most(&values);
        let term = |value: Scaled, sign: i64| (value.id, sign << (fraction - value.fraction));
        let terms = vec![term(values[0], left.1), term(values[1], right.1)];
        self.set(index, fraction, integral, |output| Operation::Combine {
            terms,
            constant: 0,
            output,
        })
    }

    fn square(&mut self, index: usize, input: NodeId) -> Result<(), PlanError> {
        let input = self.masked(input.0);
        let (fraction, integral) = (2 * input.fraction, 2 * self.integral());
        self.set(index, fraction, integral, |output| Operation::Square { input: input.id, output })
    }

    /// A private form of which so many bits more can be summed up.
    fn summable(&mut self, slot: usize, more: i32) -> Scaled {
        let value = self.private(slot);
        if self.divides_well(value.fraction, value.integral + more) {
            value
        } else {
            self.reduced(slot)
        }
    }

    /// A private form that has room for so many more fractional and integral bits: divided only
    /// if it has to be.
    fn with_room(&mut self, slot: usize, fraction: i32, integral: i32) -> Scaled {
        let value = self.private(slot);
        let fits = self.check_bits(value.fraction + fraction, value.integral + integral).is_ok();
        if value.fraction <= self.f() || (fits && self.divides_seldom()) {
            return value;
        }
        self.reduced(slot)
    }

    fn mul_public(&mut self, index: usize, x: NodeId, public: NodeId) -> Result<(), PlanError> {
        let shape = self.shape(NodeId(index));
        let slot = self.expanded(x, shape);
        if let Some(number) = self.uniform(public) {
            self.encode(&[number], 0)?;
            return self.mul_number(index, slot, number);
        }
        let numbers = self.public_values(public, shape)?;
        let fraction = self.exact_fraction(&numbers);
        let integers = self.encode(&numbers, fraction)?;
        let value = self.with_room(slot, fraction, self.integral());
        let public = self.public(integers, fraction);
        let integral = value.integral + self.integral();
        self.set(index, value.fraction + fraction, integral, |output| Operation::MulPublic {
            input: value.id,
            public,
            output,
        })
    }

    fn mul_number(&mut self, index: usize, slot: usize, number: f64) -> Result<(), PlanError> {
        let exponent = if number == 0.0 { 0 } else { powers::log2_up(number.abs()) };
        if number.abs() == f64::from(exponent).exp2() && exponent <= 0 {
            // The same integers, with the binary point elsewhere: nothing to compute.
            let mut value = self.private(slot);
            if self.check_bits(value.fraction - exponent, 0).is_err() {
                value = self.reduced(slot);
            }
            self.check_bits(value.fraction - exponent, 0)?;
            if number > 0.0 {
                let fraction = value.fraction - exponent;
                let integral = value.integral + exponent;
                self.forms[index].raw = Some(Scaled { id: value.id, fraction, integral });
                return Ok(());
            }
            return self.scaled(index, value, -1, -exponent, value.integral + exponent);
        }
        let exact = self.exact_fraction(&[number]);
        // As many significant bits as a number of order one has.
        let fraction = if (number * f64::from(exact).exp2()).fract() == 0.0 {
            exact
        } else {
            (self.f() - exponent).clamp(0, 40)
        };
        let factor = (number * f64::from(fraction).exp2()).round() as i64;
        let value = self.with_room(slot, fraction, exponent);
        self.scaled(index, value, factor, fraction, value.integral + exponent)
    }

    /// The operands of a matrix product or convolution, and its dimensions.
    fn product(&self, id: NodeId) -> (NodeId, NodeId, Linear) {
        let (input, filter, stride, padding) = match self.graph.operation(id) {
            Op::MatMul { left, right } => {
                let (&[m, k], &[_, n]) = (self.shape(*left), self.shape(*right)) else {
                    unreachable!("a graph's shapes agree");
                };
                return (*left, *right, Linear::MatMul(MatMul { m, k, n }));
            }
            Op::Conv2d { input, filter, stride, padding } => (input, filter, stride, padding),
            _ => unreachable!("asked for products only"),
        };
        let (&[batch, height, width, inputs], &[filter_height, filter_width, _, outputs]) =
            (self.shape(*input), self.shape(*filter))
        else {
            unreachable!("a graph's shapes agree");
        };
        let linear = Linear::Conv2d(Convolution {
            batch,
            height,
            width,
            inputs,
            filter_height,
            filter_width,
            outputs,
            stride: *stride,
            padding: *padding,
        });
        (*input, *filter, linear)
    }

    fn biased_product(
        &mut self,
        index: usize,
        product: usize,
        bias: usize,
    ) -> Result<(), PlanError> {
        // Listings tell the product's own layer.
        self.layer.clone_from(&self.graph.nodes()[product].label);
        self.linear(index, NodeId(product), Some(bias))
    }

    fn linear(
        &mut self,
        slot: usize,
        product: NodeId,
        bias: Option<usize>,
    ) -> Result<(), PlanError> {
        let (left, right, linear) = self.product(product);
        let MatMul { k, .. } = linear.as_matmul();
        let largest = self.precision.largest_inner_dimension();
        if k > largest {
            return Err(PlanError::InnerDimension {
                layer: self.place(),
                found: k,
                largest,
                format: self.format,
            });
        }
        let mut integral = 2 * self.integral() + bits(k);
        match (self.is_private(left), self.is_private(right)) {
            (true, true) => {
                let (x, y) = (self.masked(left.0), self.masked(right.0));
                let fraction = x.fraction + y.fraction;
                if !self.masked_lasts[y.id.0] || self.masked_lasts[x.id.0] {
                    return self.set(slot, fraction, integral, |output| Operation::Product {
                        left: x.id,
                        right: y.id,
                        linear,
                        output,
                    });
                }
                let bias = bias.map(|bias| {
                    let bias = self.private(bias);
                    let bias = self.lifted(bias, fraction);
                    self.divided(bias, fraction, self.integral()).0
                });
                if bias.is_some() {
                    integral = integral.max(self.integral()) + 1;
                    integral = integral.min(self.precision.dividend as i32 - fraction);
                }
                let layer = self.layers;
                self.layers += 1;
                self.set(slot, fraction, integral, |output| Operation::Linear {
                    input: x.id,
                    weight: y.id,
                    bias: bias.map(|bias| bias.id),
                    linear,
                    layer,
                    output,
                })
            }
            (left_is_private, _) => {
                let (private, public) = if left_is_private { (left, right) } else { (right, left) };
                let numbers = self.public_values(public, self.shape(public))?;
                let fraction = self.exact_fraction(&numbers);
                let integers = self.encode(&numbers, fraction)?;
                let more = self.integral() + bits(k);
                let value = self.with_room(private.0, fraction, more);
                let public = self.public(integers, fraction);
                let integral = value.integral + more;
                self.set(slot, value.fraction + fraction, integral, |output| {
                    if left_is_private {
                        Operation::PublicRight { left: value.id, right: public, linear, output }
                    } else {
                        Operation::PublicLeft { left: public, right: value.id, linear, output }
                    }
                })
            }
        }
    }

    fn reduce_sum(&mut self, index: usize, input: NodeId, axes: &[usize]) -> Result<(), PlanError> {
        let mut shape = self.shape(input).to_vec();
        if axes.is_empty() {
            self.forms[index].moved = Some(Moved::Alias(input.0));
            return Ok(());
        }
        let more = axes.iter().map(|axis| bits(shape[*axis])).sum();
        let mut value = self.summable(input.0, more);
        for &axis in axes.iter().rev() {
            let outer: usize = shape[..axis].iter().product();
            let inner: usize = shape[axis + 1..].iter().product();
            let summed = shape.remove(axis);
            let output = self.private_of(outer * inner);
            let axes = [outer, summed, inner];
            self.push(Operation::Sum { input: value.id, axes, output });
            value = Scaled { id: output, integral: value.integral + bits(summed), ..value };
        }
        self.check_bits(value.fraction, value.integral)?;
        self.forms[index].raw = Some(value);
        Ok(())
    }

    /// `sum_j c_j x^j` from powers that are squares or products of lower powers, as the best
    /// [`Scheme`] says.
    fn polynomial(
        &mut self,
        index: usize,
        input: NodeId,
        polynomial: &Polynomial,
    ) -> Result<(), PlanError> {
        let Polynomial { coefficients, range } = polynomial;
        let degree = coefficients.len().saturating_sub(1);
        let limit = self.precision.limit();
        let reach = powers::reach(polynomial);
        for found in [*range, reach] {
            if found.is_nan() || found >= limit {
                return Err(PlanError::Polynomial {
                    layer: self.place(),
                    range: *range,
                    degree,
                    found,
                    limit,
                    format: self.format,
                });
            }
        }
        let f = self.f();
        let room = Room {
            fraction: f,
            dividend: self.precision.dividend as i32,
            free: !self.divides_seldom(),
            quotient_error: self.format.quotient_error(self.truncation),
        };
        let scheme = Scheme::best(polynomial, room);
        let share = scheme.share(f);
        if scheme.error > FEW_UNITS && share > LARGEST_SHARE {
            return Err(PlanError::Coarse {
                layer: self.place(),
                range: *range,
                degree,
                error: scheme.error,
                share,
                format: self.format,
                truncation: self.truncation,
            });
        }
        self.polynomial_error = self.polynomial_error.max(scheme.error);
        let magnitude = |power: usize| powers::magnitude(*range, power);

        let mut slots = vec![input.0; coefficients.len().max(2)];
        if let Some(raw) = &mut self.forms[input.0].raw {
            raw.integral = raw.integral.min(magnitude(1));
        }
        if !scheme.kept.is_empty() && room.free {
            // Read both masked and private: divided before it is masked.
            if self.forms[input.0].masked.is_none() {
                self.reduced(input.0);
            }
        }
        for (&power, &kept) in &scheme.kept {
            let (low, high) = (power / 2, power - power / 2);
            let (left, right) = (self.masked(slots[low]), self.masked(slots[high]));
            let slot = self.forms.len();
            let len = self.forms[index].len;
            self.forms.push(Forms { len, ..Forms::default() });
            slots[power] = slot;
            let fraction = left.fraction + right.fraction;
            self.set(slot, fraction, magnitude(power), |output| {
                if low == high {
                    Operation::Square { input: left.id, output }
                } else {
                    Operation::Mul { left: left.id, right: right.id, output }
                }
            })?;
            let value = self.private(slot);
            if room.free {
                let (divided, _) = self.divided(value, kept, magnitude(power));
                self.forms[slot].raw = Some(divided);
                if scheme.is_operand(power) {
                    self.forms[slot].masked = Some(self.opened(divided, kept, magnitude(power)));
                }
            } else if scheme.is_operand(power) {
                self.forms[slot].masked = Some(self.opened(value, kept, magnitude(power)));
                self.forms[slot].raw = None;
            }
        }

        let values: Vec<(usize, Scaled)> = scheme
            .used
            .iter()
            .map(|&j| {
                let value = match j {
                    // Where a masked form was made, it costs nothing.
                    1 if !scheme.kept.is_empty() => self.reduced(slots[1]),
                    1 => self.with_room(slots[1], f + 2, magnitude(1)),
                    _ => self.private(slots[j]),
                };
                (j, value)
            })
            .collect();
        let scaled = |number: f64, fraction: i32| (number * f64::from(fraction).exp2()).round();
        let mut total = scheme.total;
        if let ([(1, value)], true) = (&values[..], scheme.kept.is_empty()) {
            // An argument that did not have to be divided has more bits.
            total += (value.fraction - f).max(0);
        }
        let terms: Vec<(PrivateId, i64)> = values
            .iter()
            .map(|(j, value)| (value.id, scaled(coefficients[*j], total - value.fraction) as i64))
            .collect();
        if let Some((_, large)) = terms.iter().find(|(_, factor)| factor.abs() >= 1 << 62) {
            // Only where an argument has few bits.
            self.check_bits(total, (*large as f64).abs().log2() as i32)?;
        }
        let constant = scaled(coefficients.first().copied().unwrap_or_default(), total) as i64;
        let integral = powers::log2_up(scheme.peak.max(1.0));
        self.set(index, total, integral, |output| Operation::Combine { terms, constant, output })
    }
}

/// How many bits a sum of so many terms has more than one of them.
fn bits(terms: usize) -> i32 {
    terms.next_power_of_two().ilog2() as i32
}
