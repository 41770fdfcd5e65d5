//! The plan of a run: a graph compiled to the steps that all roles follow in lock-step.
//!
//! A plan is public and complete: it names every message and its length, every
//! mask and every product of masks, so that the producer can work ahead alone
//! and each party can refuse what does not belong. Parties compare its
//! [`Digest`] before anything private moves.
//!
//! Its first steps are the *set-up*: they happen once a session, need no
//! interaction but the arrival of inputs, and what they make lasts. The others
//! happen in every evaluation.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::channel::{Name, Role};
use crate::fixed::{Precision, RangeError};
use crate::geometry::{Linear, MatMul, Pooling, View, Windows};
use crate::graph::{Graph, GraphError, Lifetime, NodeId, Op};
pub use crate::ring::{NumberFormat, Truncation};

mod compile;
mod powers;

/// Most steps of a plan.
pub const MAX_STEPS: usize = 1 << 17;

/// Names a private tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrivateId(pub(crate) usize);

/// Names a masked tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedId(pub(crate) usize);

/// Names a public tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicId(pub(crate) usize);

/// What the parties do at one step. Lengths are in elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A player's input arrives masked at both servers.
    Input {
        /// Which of the plan's inputs.
        input: usize,
        /// The masked input.
        output: MaskedId,
    },
    /// The private form of a masked tensor.
    Unmask {
        /// The masked tensor.
        input: MaskedId,
        /// Its private form.
        output: PrivateId,
    },
    /// The servers open a private tensor under a fresh mask: one round.
    Open {
        /// The private tensor.
        input: PrivateId,
        /// Its masked form.
        output: MaskedId,
    },
    /// Division by `2^bits` without interaction.
    Truncate {
        /// The dividend.
        input: PrivateId,
        /// How many bits go.
        bits: u32,
        /// The quotient.
        output: PrivateId,
    },
    /// Division by `2^bits` in one round, which leaves the quotient masked.
    Divide {
        /// The dividend.
        input: PrivateId,
        /// How many bits go.
        bits: u32,
        /// The quotient.
        output: MaskedId,
    },
    /// A product with a masked tensor that lasts for the session, plus a bias.
    Linear {
        /// The masked left operand.
        input: MaskedId,
        /// The masked right operand, made in the set-up.
        weight: MaskedId,
        /// What is added to each row of the result, made in the set-up.
        bias: Option<PrivateId>,
        /// The dimensions.
        linear: Linear,
        /// Its number among the plan's products of this kind.
        layer: usize,
        /// The result, with the fractional bits of both operands.
        output: PrivateId,
    },
    /// A matrix product or convolution of two masked tensors of the evaluation.
    Product {
        /// The masked left operand.
        left: MaskedId,
        /// The masked right operand.
        right: MaskedId,
        /// The dimensions.
        linear: Linear,
        /// The result.
        output: PrivateId,
    },
    /// A matrix product or convolution with a public right operand.
    PublicRight {
        /// The private left operand.
        left: PrivateId,
        /// The public right operand.
        right: PublicId,
        /// The dimensions.
        linear: Linear,
        /// The result.
        output: PrivateId,
    },
    /// A matrix product or convolution with a public left operand.
    PublicLeft {
        /// The public left operand.
        left: PublicId,
        /// The private right operand.
        right: PrivateId,
        /// The dimensions.
        linear: Linear,
        /// The result.
        output: PrivateId,
    },
    /// `x * x`, element by element.
    Square {
        /// The masked operand.
        input: MaskedId,
        /// The result.
        output: PrivateId,
    },
    /// `x * y`, element by element.
    Mul {
        /// The first masked operand.
        left: MaskedId,
        /// The second masked operand.
        right: MaskedId,
        /// The result.
        output: PrivateId,
    },
    /// A linear combination with public integer coefficients, plus a constant.
    Combine {
        /// Tensors and their coefficients.
        terms: Vec<(PrivateId, i64)>,
        /// Added to each element.
        constant: i64,
        /// The result.
        output: PrivateId,
    },
    /// `x + public`, element by element.
    AddPublic {
        /// The private term.
        input: PrivateId,
        /// The public term.
        public: PublicId,
        /// The result.
        output: PrivateId,
    },
    /// `x * public`, element by element.
    MulPublic {
        /// The private factor.
        input: PrivateId,
        /// The public factor.
        public: PublicId,
        /// The result.
        output: PrivateId,
    },
    /// Some elements in some order.
    View {
        /// The tensor.
        input: PrivateId,
        /// Which elements.
        view: View,
        /// The result.
        output: PrivateId,
    },
    /// Some elements of a masked tensor in some order.
    ViewMasked {
        /// The masked tensor.
        input: MaskedId,
        /// Which elements.
        view: View,
        /// The result.
        output: MaskedId,
    },
    /// Tensors after each other along an axis.
    Concat {
        /// The tensors.
        inputs: Vec<PrivateId>,
        /// The product of the axes outside.
        outer: usize,
        /// The result.
        output: PrivateId,
    },
    /// Masked tensors after each other along an axis.
    ConcatMasked {
        /// The masked tensors.
        inputs: Vec<MaskedId>,
        /// The product of the axes outside.
        outer: usize,
        /// The result.
        output: MaskedId,
    },
    /// Sums along the middle axis.
    Sum {
        /// The tensor.
        input: PrivateId,
        /// Its sides: outer, summed, inner.
        axes: [usize; 3],
        /// The sums.
        output: PrivateId,
    },
    /// Sums over windows.
    SumPool {
        /// The images.
        input: PrivateId,
        /// The dimensions.
        pooling: Pooling,
        /// The sums.
        output: PrivateId,
    },
    /// Both servers send their shares of a result to a player.
    Output {
        /// Which of the plan's outputs.
        output: usize,
        /// The result.
        input: PrivateId,
    },
}

impl Operation {
    /// The private tensors that it reads. The bias of a linear layer is not among
    /// them, since it is read in the set-up only.
    pub(crate) fn reads(&self) -> Vec<PrivateId> {
        match self {
            Self::Open { input, .. }
            | Self::Truncate { input, .. }
            | Self::Divide { input, .. }
            | Self::PublicRight { left: input, .. }
            | Self::PublicLeft { right: input, .. }
            | Self::AddPublic { input, .. }
            | Self::MulPublic { input, .. }
            | Self::View { input, .. }
            | Self::Sum { input, .. }
            | Self::SumPool { input, .. }
            | Self::Output { input, .. } => vec![*input],
            Self::Concat { inputs, .. } => inputs.clone(),
            Self::Combine { terms, .. } => terms.iter().map(|(id, _)| *id).collect(),
            Self::Input { .. }
            | Self::Unmask { .. }
            | Self::Linear { .. }
            | Self::Product { .. }
            | Self::Square { .. }
            | Self::Mul { .. }
            | Self::ViewMasked { .. }
            | Self::ConcatMasked { .. } => Vec::new(),
        }
    }

    /// The masked tensors that it reads. The weight of a linear layer is not among
    /// them, since it is read in the set-up only.
    pub(crate) fn reads_masked(&self) -> Vec<MaskedId> {
        match self {
            Self::Unmask { input, .. }
            | Self::Linear { input, .. }
            | Self::ViewMasked { input, .. }
            | Self::Square { input, .. } => vec![*input],
            Self::Product { left, right, .. } | Self::Mul { left, right, .. } => {
                vec![*left, *right]
            }
            Self::ConcatMasked { inputs, .. } => inputs.clone(),
            _ => Vec::new(),
        }
    }

    /// The private tensor that it makes, if it makes one.
    pub(crate) fn private_output(&self) -> Option<PrivateId> {
        match self {
            Self::Unmask { output, .. }
            | Self::Truncate { output, .. }
            | Self::Linear { output, .. }
            | Self::Product { output, .. }
            | Self::PublicRight { output, .. }
            | Self::PublicLeft { output, .. }
            | Self::Square { output, .. }
            | Self::Mul { output, .. }
            | Self::Combine { output, .. }
            | Self::AddPublic { output, .. }
            | Self::MulPublic { output, .. }
            | Self::View { output, .. }
            | Self::Concat { output, .. }
            | Self::Sum { output, .. }
            | Self::SumPool { output, .. } => Some(*output),
            _ => None,
        }
    }

    /// The masked tensor that it makes, if it makes one.
    pub(crate) fn masked_output(&self) -> Option<MaskedId> {
        match self {
            Self::Input { output, .. }
            | Self::Open { output, .. }
            | Self::Divide { output, .. }
            | Self::ViewMasked { output, .. }
            | Self::ConcatMasked { output, .. } => Some(*output),
            _ => None,
        }
    }

    /// What metrics, traces and messages call the operation.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Unmask { .. } => "unmask",
            Self::Open { .. } => "open",
            Self::Truncate { .. } => "truncate",
            Self::Divide { .. } => "divide",
            Self::Linear { linear, .. }
            | Self::Product { linear, .. }
            | Self::PublicRight { linear, .. }
            | Self::PublicLeft { linear, .. } => match linear {
                Linear::MatMul(_) => "matmul",
                Linear::Conv2d(_) => "conv2d",
            },
            Self::Square { .. } => "square",
            Self::Mul { .. } | Self::MulPublic { .. } => "mul",
            Self::Combine { .. } => "combine",
            Self::AddPublic { .. } => "add",
            Self::View { .. } | Self::ViewMasked { .. } => "view",
            Self::Concat { .. } | Self::ConcatMasked { .. } => "concat",
            Self::Sum { .. } => "sum",
            Self::SumPool { .. } => "pool",
            Self::Output { .. } => "output",
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The layer it belongs to, `conv1` or `act2`: the label of the graph's node.
    pub layer: String,
    /// What happens.
    pub operation: Operation,
}

/// A layer of a plan: the steps of an evaluation that belong to the graph's nodes of one
/// label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLayer {
    /// Their label.
    pub name: String,
    /// The graph's operation among them that costs most, as a rule.
    pub kind: &'static str,
    /// The shape of what it puts out.
    pub shape: Vec<usize>,
    /// The numbers of the steps, in their order.
    pub steps: Vec<usize>,
}

/// How little an operation of a graph says about what its layer costs.
fn weight(operation: &Op) -> u8 {
    match operation {
        Op::Conv2d { .. } | Op::MatMul { .. } => 0,
        Op::Polynomial { .. } => 1,
        Op::Mul { .. } | Op::Square { .. } => 2,
        Op::SumPool { .. } | Op::ReduceSum { .. } => 3,
        Op::Share { .. } => 5,
        Op::Input { .. } | Op::Constant { .. } | Op::Reveal { .. } | Op::Output { .. } => 6,
        _ => 4,
    }
}

/// A tensor that a player shares.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Who brings it.
    pub player: Name,
    /// The graph's node that shares it.
    pub node: NodeId,
    /// What messages call it: the name of the player's input where it is shared as it
    /// is, else the layer.
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Fractional bits.
    pub fraction: i32,
    /// Once a session or in every evaluation.
    pub lifetime: Lifetime,
    /// The step at which it arrives.
    pub step: usize,
}

/// A tensor that a player is revealed.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Who learns it.
    pub player: Name,
    /// The graph's node that reveals it.
    pub node: NodeId,
    /// The layer it comes from, for messages.
    pub layer: String,
    /// Elements.
    pub len: usize,
    /// Fractional bits.
    pub fraction: i32,
    /// The step at which it is sent.
    pub step: usize,
}

/// Numbers that everybody knows, as the plan uses them.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicTensor {
    /// The numbers times `2^fraction`, row-major.
    pub integers: Vec<i128>,
    /// Fractional bits.
    pub fraction: i32,
}

/// The fingerprint of a plan: BLAKE3 of its listing and its graph.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Why a graph cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The graph itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
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
        "{layer}: {format} with {truncation} truncation has too few bits for the polynomial of degree {degree} and arguments up to {range}: {}; lower its range or degree, or choose another format or truncation",
        coarseness(*.error, *.share)
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
        /// How it divides.
        truncation: Truncation,
    },
    /// A local truncation would fail too often.
    #[error(
        "{layer}: {format} does not go together with local truncation here: of numbers with {fraction} fractional bits and up to {integral} integral ones, one in {one_in} can fail; choose interactive truncation or Int100, or divide before summing up so much"
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
        "{layer}: {fraction} fractional and {integral} integral bits are more than the {available} that {format} can hold"
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

/// How wrong a polynomial would be, for people.
fn coarseness(error: f64, share: f64) -> String {
    if error.is_infinite() {
        return "its powers do not fit".into();
    }
    let percent = 100.0 * share;
    format!("up to {error:.1} units in the last place off, {percent:.2} % of its largest value")
}

/// A graph compiled for a number format and a truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    graph: Arc<Graph>,
    format: NumberFormat,
    truncation: Truncation,
    steps: Vec<Step>,
    /// How many of the steps are the set-up.
    setup: usize,
    private_lens: Vec<usize>,
    masked_lens: Vec<usize>,
    last_reads: Vec<usize>,
    last_masked_reads: Vec<usize>,
    origins: Vec<usize>,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
    publics: Vec<PublicTensor>,
    layers: usize,
    /// Of the local divisions of one evaluation, how many fail on average at most.
    local_failures: f64,
    /// The largest error of a polynomial, units in the last place.
    polynomial_error: f64,
    digest: Digest,
}

impl Plan {
    /// Compiles `graph`.
    ///
    /// # Errors
    /// If sizes, coefficients or intermediate results exceed what the number format
    /// can hold.
    pub fn compile(
        graph: &Graph,
        format: NumberFormat,
        truncation: Truncation,
    ) -> Result<Self, PlanError> {
        compile::compile(Arc::new(graph.clone()), format, truncation)
    }

    /// The graph it computes.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The number format.
    #[must_use]
    pub fn format(&self) -> NumberFormat {
        self.format
    }

    /// The truncation.
    #[must_use]
    pub fn truncation(&self) -> Truncation {
        self.truncation
    }

    /// The steps, in the order in which every party takes them.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many of the steps are taken once a session instead of in each evaluation.
    #[must_use]
    pub fn setup_steps(&self) -> usize {
        self.setup
    }

    /// The steps of an evaluation with their numbers.
    pub(crate) fn evaluation(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().skip(self.setup)
    }

    /// The layers of an evaluation, in the order of their first steps. Every step of an
    /// evaluation belongs to one.
    #[must_use]
    pub fn evaluation_layers(&self) -> Vec<PlanLayer> {
        let mut layers: Vec<PlanLayer> = Vec::new();
        let mut places = HashMap::new();
        for (index, step) in self.evaluation() {
            let place = *places.entry(step.layer.as_str()).or_insert_with(|| {
                let nodes = || {
                    let nodes = self.graph.nodes().iter().enumerate();
                    nodes.filter(|(_, node)| node.label == step.layer)
                };
                let main = nodes()
                    .map(|(_, node)| &node.operation)
                    .min_by_key(|operation| weight(operation));
                let kind = main.map_or(step.operation.name(), Op::name);
                let last = nodes().next_back();
                let shape = last.map(|(index, _)| self.graph.facts(NodeId(index)).shape.clone());
                layers.push(PlanLayer {
                    name: step.layer.clone(),
                    kind,
                    shape: shape.unwrap_or_default(),
                    steps: Vec::new(),
                });
                layers.len() - 1
            });
            layers[place].steps.push(index);
        }
        layers
    }

    /// The tensors that players share, in the order of the graph.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The tensors that players are revealed, in the order of the graph and of the steps.
    #[must_use]
    pub fn outputs(&self) -> &[OutputSpec] {
        &self.outputs
    }

    /// A player's inputs of a lifetime, each with its number in the plan.
    pub(crate) fn inputs_of(
        &self,
        player: Name,
        lifetime: Lifetime,
    ) -> impl Iterator<Item = (usize, &InputSpec)> {
        let mine = move |input: &InputSpec| input.player == player && input.lifetime == lifetime;
        self.inputs.iter().enumerate().filter(move |(_, input)| mine(input))
    }

    /// Whether a player has a part in every evaluation, and not only in the set-up.
    #[must_use]
    pub fn takes_part(&self, player: Name) -> bool {
        self.inputs_of(player, Lifetime::Evaluation).next().is_some()
            || self.outputs.iter().any(|output| output.player == player)
    }

    /// The player at whose command the servers work: the first who learns an output
    /// and brings an input to each evaluation, or else the first who learns an output.
    #[must_use]
    pub fn coordinator(&self) -> Name {
        let learns = |player: Name| self.outputs.iter().any(|output| output.player == player);
        let brings = |player: Name| self.inputs_of(player, Lifetime::Evaluation).next().is_some();
        let players = || self.graph.players().iter().copied().filter(|player| learns(*player));
        let coordinator = players().find(|player| brings(*player)).or_else(|| players().next());
        // Every graph reveals something to somebody.
        coordinator.unwrap_or(self.graph.players()[0])
    }

    /// All roles of a session: servers, producer, and the graph's players.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        let players = self.graph.players().iter().copied().map(Role::Player);
        [Role::Server0, Role::Server1, Role::Producer].into_iter().chain(players).collect()
    }

    /// Public tensors.
    #[must_use]
    pub fn publics(&self) -> &[PublicTensor] {
        &self.publics
    }

    /// Number of products with a weight of the session.
    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    /// Elements of a private tensor.
    #[must_use]
    pub fn private_len(&self, id: PrivateId) -> usize {
        self.private_lens[id.0]
    }

    /// Elements of a masked tensor.
    #[must_use]
    pub fn masked_len(&self, id: MaskedId) -> usize {
        self.masked_lens[id.0]
    }

    /// Number of private tensors.
    pub(crate) fn private_count(&self) -> usize {
        self.private_lens.len()
    }

    /// Number of masked tensors.
    pub(crate) fn masked_count(&self) -> usize {
        self.masked_lens.len()
    }

    /// The last step that reads a private tensor.
    pub(crate) fn last_read(&self, id: PrivateId) -> usize {
        self.last_reads[id.0]
    }

    /// The last step that reads a masked tensor.
    pub(crate) fn last_masked_read(&self, id: MaskedId) -> usize {
        self.last_masked_reads[id.0]
    }

    /// The step that makes a masked tensor.
    pub(crate) fn origin(&self, id: MaskedId) -> usize {
        self.origins[id.0]
    }

    /// The longest message of a run, bytes.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        let parts = self.format.quotient_parts().max(1);
        let largest = self.private_lens.iter().chain(&self.masked_lens).max();
        largest.map_or(0, |len| parts * len * self.format.wire_bytes())
    }

    /// The probability that a local truncation fails in one evaluation, if all values were at
    /// the ends of their ranges: an upper bound, as it is proportional to the values
    /// (`docs/protocol.md`). Zero for interactive truncation, which does not fail.
    #[must_use]
    pub fn local_failure(&self) -> f64 {
        self.local_failures.min(1.0)
    }

    /// A bound of what computing any of its polynomials on shares adds to the error of an
    /// argument within the polynomial's range, in units in the last place of the format
    /// (`2^-f`), unless a local truncation fails. Zero if there is none.
    #[must_use]
    pub fn polynomial_error(&self) -> f64 {
        self.polynomial_error
    }

    /// Exchanges between the two servers in one evaluation.
    #[must_use]
    pub fn rounds(&self) -> usize {
        let interacts = |operation: &Operation| {
            matches!(operation, Operation::Open { .. } | Operation::Divide { .. })
        };
        self.evaluation().filter(|(_, step)| interacts(&step.operation)).count()
    }

    /// For people: the step's number, layer and operation.
    #[must_use]
    pub fn describe(&self, step: usize) -> String {
        match self.steps.get(step) {
            Some(Step { layer, operation }) => {
                format!("step {step} ({} of {layer})", operation.name())
            }
            None => format!("step {step}"),
        }
    }

    /// Whether the producer deals something for a step, by its number.
    #[must_use]
    pub fn deals(&self, step: usize) -> bool {
        crate::correlated::deals(self).any(|(dealt, ..)| dealt == step)
    }

    /// The fingerprint of everything that the parties must agree on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// BLAKE3 of the listing and of the graph as JSON, which has the public numbers and what
    /// players compute alone; each after its length in bytes, 64 bits little endian.
    fn fingerprint(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let graph = serde_json::to_string(&*self.graph);
        let Ok(graph) = graph else {
            unreachable!("a graph's numbers are finite and its maps have no keys to refuse");
        };
        for part in [self.to_string(), graph] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// What all parties together send in the online phase of one evaluation, bytes without
    /// those of the transport: inputs to both servers, openings, shares of outputs.
    #[must_use]
    pub fn online_bytes(&self) -> usize {
        let sent = |operation: &Operation| match operation {
            Operation::Input { output, .. }
            | Operation::Open { output, .. }
            | Operation::Divide { output, .. } => 2 * self.masked_len(*output),
            Operation::Output { input, .. } => 2 * self.private_len(*input),
            _ => 0,
        };
        let elements: usize = self.evaluation().map(|(_, step)| sent(&step.operation)).sum();
        elements * self.format.wire_bytes()
    }

    /// What `role` sends at a step of an evaluation, and the producer for it; bytes without
    /// those of the transport.
    #[must_use]
    pub fn sent_bytes(&self, role: Role, step: usize) -> usize {
        let Some(Step { operation, .. }) = self.steps.get(step) else { return 0 };
        let elements = match (role, operation) {
            (Role::Producer, _) => {
                let dealt = crate::correlated::deals(self).filter(|(dealt, ..)| *dealt == step);
                dealt.map(|(_, len, _)| len).sum()
            }
            (Role::Server0 | Role::Server1, Operation::Output { input, .. }) => {
                self.private_len(*input)
            }
            (
                Role::Server0 | Role::Server1,
                Operation::Open { output, .. } | Operation::Divide { output, .. },
            ) => self.masked_len(*output),
            (Role::Player(name), Operation::Input { input, output })
                if self.inputs[*input].player == name =>
            {
                2 * self.masked_len(*output)
            }
            _ => 0,
        };
        elements * self.format.wire_bytes()
    }

    /// What the producer sends for one evaluation, bytes without those of the transport.
    #[must_use]
    pub fn offline_bytes(&self) -> usize {
        crate::correlated::dealt_bytes(self).iter().sum()
    }
}

fn write_linear(f: &mut fmt::Formatter<'_>, linear: &Linear) -> fmt::Result {
    match linear {
        Linear::MatMul(MatMul { m, k, n }) => write!(f, " {m}x{k}x{n}"),
        Linear::Conv2d(c) => write!(
            f,
            " {}x{}x{}x{} filter {}x{} outputs {} stride {} padding {}",
            c.batch,
            c.height,
            c.width,
            c.inputs,
            c.filter_height,
            c.filter_width,
            c.outputs,
            c.stride,
            c.padding
        ),
    }
}

fn write_view(f: &mut fmt::Formatter<'_>, view: &View) -> fmt::Result {
    write!(f, " from {} axes", view.offset)?;
    view.axes.iter().try_for_each(|(length, stride)| write!(f, " {length}*{stride}"))
}

/// The canonical listing: what happens at each step, a line each.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Precision { fraction, integral, ring, dividend } = self.format.precision();
        writeln!(f, "plan version 2")?;
        writeln!(f, "graph {}", self.graph.name())?;
        writeln!(
            f,
            "format {} fraction {fraction} integral {integral} ring {ring} dividend {dividend}",
            self.format
        )?;
        writeln!(f, "truncation {}", self.truncation)?;
        for player in self.graph.players() {
            writeln!(f, "player {player}")?;
        }
        writeln!(f, "coordinator {}", self.coordinator())?;
        for (index, public) in self.publics.iter().enumerate() {
            writeln!(
                f,
                "public c{index} len {} fraction {}",
                public.integers.len(),
                public.fraction
            )?;
        }
        for (index, Step { layer, operation }) in self.steps.iter().enumerate() {
            if index == self.setup {
                writeln!(f, "evaluation")?;
            }
            write!(f, "{index} {layer} {}", operation.name())?;
            match operation {
                Operation::Input { input, output } => {
                    let InputSpec { player, name, len, fraction, .. } = &self.inputs[*input];
                    write!(f, " {player} {name} -> m{} len {len} fraction {fraction}", output.0)?;
                }
                Operation::Unmask { input, output } => write!(f, " m{} -> p{}", input.0, output.0)?,
                Operation::Open { input, output } => {
                    write!(f, " p{} -> m{} len {}", input.0, output.0, self.masked_len(*output))?;
                }
                Operation::Truncate { input, bits, output } => {
                    write!(f, " p{} bits {bits} -> p{}", input.0, output.0)?;
                }
                Operation::Divide { input, bits, output } => write!(
                    f,
                    " p{} bits {bits} -> m{} len {}",
                    input.0,
                    output.0,
                    self.masked_len(*output)
                )?,
                Operation::Linear { input, weight, bias, linear, output, .. } => {
                    write!(f, " m{} m{}", input.0, weight.0)?;
                    if let Some(bias) = bias {
                        write!(f, " + p{}", bias.0)?;
                    }
                    write!(f, " -> p{}", output.0)?;
                    write_linear(f, linear)?;
                }
                Operation::Product { left, right, linear, output } => {
                    write!(f, " m{} m{} -> p{}", left.0, right.0, output.0)?;
                    write_linear(f, linear)?;
                }
                Operation::PublicRight { left, right, linear, output } => {
                    write!(f, " p{} c{} -> p{}", left.0, right.0, output.0)?;
                    write_linear(f, linear)?;
                }
                Operation::PublicLeft { left, right, linear, output } => {
                    write!(f, " c{} p{} -> p{}", left.0, right.0, output.0)?;
                    write_linear(f, linear)?;
                }
                Operation::Square { input, output } => write!(f, " m{} -> p{}", input.0, output.0)?,
                Operation::Mul { left, right, output } => {
                    write!(f, " m{} m{} -> p{}", left.0, right.0, output.0)?;
                }
                Operation::Combine { terms, constant, output } => {
                    for (id, coefficient) in terms {
                        write!(f, " {coefficient}*p{}", id.0)?;
                    }
                    write!(f, " + {constant} -> p{}", output.0)?;
                }
                Operation::AddPublic { input, public, output }
                | Operation::MulPublic { input, public, output } => {
                    write!(f, " p{} c{} -> p{}", input.0, public.0, output.0)?;
                }
                Operation::View { input, view, output } => {
                    write!(f, " p{} -> p{}", input.0, output.0)?;
                    write_view(f, view)?;
                }
                Operation::ViewMasked { input, view, output } => {
                    write!(f, " m{} -> m{}", input.0, output.0)?;
                    write_view(f, view)?;
                }
                Operation::Concat { inputs, outer, output } => {
                    inputs.iter().try_for_each(|id| write!(f, " p{}", id.0))?;
                    write!(f, " -> p{} outer {outer}", output.0)?;
                }
                Operation::ConcatMasked { inputs, outer, output } => {
                    inputs.iter().try_for_each(|id| write!(f, " m{}", id.0))?;
                    write!(f, " -> m{} outer {outer}", output.0)?;
                }
                Operation::Sum { input, axes: [outer, axis, inner], output } => {
                    write!(f, " p{} {outer}x{axis}x{inner} -> p{}", input.0, output.0)?;
                }
                Operation::SumPool { input, pooling: p, output } => {
                    write!(f, " p{} {}x{}x{}x{}", input.0, p.batch, p.height, p.width, p.channels)?;
                    write!(f, " window {}", p.window)?;
                    if Windows::from(p.window).stride != p.stride {
                        write!(f, " stride {}", p.stride)?;
                    }
                    write!(f, " -> p{}", output.0)?;
                }
                Operation::Output { output, input } => {
                    let OutputSpec { player, fraction, .. } = &self.outputs[*output];
                    write!(f, " p{} -> {player} fraction {fraction}", input.0)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
