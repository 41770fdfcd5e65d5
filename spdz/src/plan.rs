//! The plan of a run: a network compiled to the steps that all roles follow in lock-step.
//!
//! A plan is public and complete: it names every message and its length, every
//! mask and every product of masks, so that the producer can work ahead alone
//! and each party can refuse what does not belong. Parties compare its
//! [`Digest`] before anything private moves.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fixed::Precision;
use crate::geometry::{Convolution, Linear, MatMul, Pooling};
use crate::network::{Layer, Network, NetworkError, Polynomial};
use crate::ring::Ring;

/// The number formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NumberFormat {
    /// Integers modulo 2^64.
    Int64,
}

/// How products are brought back to the format's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Truncation {
    /// Without interaction (SecureML); wrong with probability `|x| / 2^64`.
    Local,
}

impl fmt::Display for NumberFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Int64 => "Int64",
        })
    }
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "Local",
        })
    }
}

impl NumberFormat {
    /// Bytes of an element on the wire.
    #[must_use]
    pub fn wire_bytes(self) -> usize {
        match self {
            Self::Int64 => crate::ring::Int64::WIRE_BYTES,
        }
    }

    /// Its precision and range.
    #[must_use]
    pub fn precision(self) -> Precision {
        match self {
            Self::Int64 => Precision::INT64,
        }
    }
}

/// Largest batch of a plan.
pub const MAX_BATCH: usize = 1024;

/// Largest number of elements of one tensor of a plan.
pub const MAX_TENSOR: usize = 1 << 28;

/// Names a private tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrivateId(pub(crate) usize);

/// Names a masked tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedId(pub(crate) usize);

/// What the parties do at one step. Lengths are in elements, the batch included.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The client's input arrives masked at both servers.
    Input {
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
    /// A product with a parameter of the model, plus a bias.
    Linear {
        /// The masked input.
        input: MaskedId,
        /// The dimensions.
        linear: Linear,
        /// Which linear layer's parameters.
        layer: usize,
        /// The result, with the fractional bits of both operands.
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
    /// Division by `2^bits`.
    Truncate {
        /// The dividend.
        input: PrivateId,
        /// How many bits go.
        bits: u32,
        /// The quotient.
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
    /// Sums over disjoint windows.
    SumPool {
        /// The images.
        input: PrivateId,
        /// The dimensions.
        pooling: Pooling,
        /// The sums.
        output: PrivateId,
    },
    /// Both servers send their shares of the result to the client.
    Output {
        /// The result.
        input: PrivateId,
    },
}

impl Operation {
    /// The private tensors that it reads.
    pub(crate) fn reads(&self) -> Vec<PrivateId> {
        match self {
            Self::Open { input, .. }
            | Self::Truncate { input, .. }
            | Self::SumPool { input, .. }
            | Self::Output { input } => vec![*input],
            Self::Combine { terms, .. } => terms.iter().map(|(id, _)| *id).collect(),
            Self::Input { .. }
            | Self::Unmask { .. }
            | Self::Linear { .. }
            | Self::Square { .. }
            | Self::Mul { .. } => Vec::new(),
        }
    }

    /// The masked tensors that it reads.
    pub(crate) fn reads_masked(&self) -> Vec<MaskedId> {
        match self {
            Self::Unmask { input, .. }
            | Self::Linear { input, .. }
            | Self::Square { input, .. } => {
                vec![*input]
            }
            Self::Mul { left, right, .. } => vec![*left, *right],
            _ => Vec::new(),
        }
    }

    /// The masked tensor that it makes, if it makes one.
    pub(crate) fn masked_output(&self) -> Option<MaskedId> {
        match self {
            Self::Input { output } | Self::Open { output, .. } => Some(*output),
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
            Self::Linear { linear: Linear::MatMul(_), .. } => "matmul",
            Self::Linear { linear: Linear::Conv2d(_), .. } => "conv2d",
            Self::Square { .. } => "square",
            Self::Mul { .. } => "mul",
            Self::Truncate { .. } => "truncate",
            Self::Combine { .. } => "combine",
            Self::SumPool { .. } => "pool",
            Self::Output { .. } => "output",
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The layer it belongs to, `conv1` or `act2`; `input` before the first.
    pub layer: String,
    /// What happens.
    pub operation: Operation,
}

/// A parameter tensor as it is shared: its length and precision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// The layer and what it is, `conv1.weight`.
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Fractional bits.
    pub fraction: u32,
}

/// The fingerprint of a plan: BLAKE3 of its listing.
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

/// Why a network cannot be planned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The layers do not fit together.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The batch is too small or too large.
    #[error("batch size {found} is outside 1 to {MAX_BATCH}")]
    Batch {
        /// The batch size.
        found: usize,
    },
    /// A tensor is too large.
    #[error(
        "layer {layer}: a tensor of {found} elements is larger than {MAX_TENSOR}; use a smaller batch"
    )]
    Tensor {
        /// The layer.
        layer: String,
        /// Its elements.
        found: usize,
    },
    /// Sums of so many products could wrap around.
    #[error(
        "layer {layer}: sums of {found} products can leave the range of {format}, which holds {largest}"
    )]
    InnerDimension {
        /// The layer.
        layer: String,
        /// Products in a sum.
        found: usize,
        /// The most that the format can hold.
        largest: usize,
        /// The format.
        format: NumberFormat,
    },
    /// A coefficient is too large for the format.
    #[error("layer {layer}: {source}")]
    Coefficient {
        /// The layer.
        layer: String,
        /// What is wrong.
        source: crate::fixed::RangeError,
    },
}

/// A network compiled for a batch size, a number format and a truncation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    network: Network,
    batch: usize,
    format: NumberFormat,
    truncation: Truncation,
    steps: Vec<Step>,
    private_lens: Vec<usize>,
    masked_lens: Vec<usize>,
    last_reads: Vec<usize>,
    last_masked_reads: Vec<usize>,
    parameters: Vec<ParameterSpec>,
    output_fraction: u32,
}

impl Plan {
    /// Compiles `network` for inferences of `batch` inputs.
    ///
    /// # Errors
    /// If the layers do not fit together, or sizes or coefficients exceed what
    /// the number format can hold.
    pub fn compile(
        network: &Network,
        batch: usize,
        format: NumberFormat,
        truncation: Truncation,
    ) -> Result<Self, PlanError> {
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(PlanError::Batch { found: batch });
        }
        let shapes = network.shapes()?;
        let mut compiler = Compiler::new(batch, format);
        let mut value = compiler.input(&network.input)?;
        let mut shape = &network.input;
        for ((layer, name), output) in network.layers.iter().zip(network.layer_names()).zip(&shapes)
        {
            compiler.layer = name;
            value = compiler.layer(layer, value, shape, output)?;
            shape = output;
        }
        let precision = format.precision();
        let value = compiler.truncated(value, precision.fraction)?;
        let Form::Private(result) = value.form else {
            // Only a network without layers ends in its own masked input.
            return Err(PlanError::Network(NetworkError::Layer {
                network: network.name.clone(),
                index: 0,
                layer: "output".into(),
                input: network.input.clone(),
                reason: "a network needs at least one layer".into(),
            }));
        };
        compiler.push(Operation::Output { input: result });
        let mut last_reads = vec![0; compiler.private_lens.len()];
        let mut last_masked_reads = vec![0; compiler.masked_lens.len()];
        for (index, step) in compiler.steps.iter().enumerate() {
            step.operation.reads().into_iter().for_each(|id| last_reads[id.0] = index);
            step.operation
                .reads_masked()
                .into_iter()
                .for_each(|id| last_masked_reads[id.0] = index);
        }
        Ok(Self {
            network: network.clone(),
            batch,
            format,
            truncation,
            steps: compiler.steps,
            private_lens: compiler.private_lens,
            masked_lens: compiler.masked_lens,
            last_reads,
            last_masked_reads,
            parameters: compiler.parameters,
            output_fraction: value.fraction,
        })
    }

    /// The network it computes.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Inputs of one inference.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
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

    /// The parameter tensors, a weight and a bias for each linear layer.
    #[must_use]
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
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

    /// Elements of the input, `batch` times those of one input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.batch * self.network.input.iter().product::<usize>()
    }

    /// Elements of the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        match self.steps.last().map(|step| &step.operation) {
            Some(Operation::Output { input }) => self.private_len(*input),
            _ => 0,
        }
    }

    /// Fractional bits of the output.
    #[must_use]
    pub fn output_fraction(&self) -> u32 {
        self.output_fraction
    }

    /// The longest message of a run, bytes.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        let parameters = self.parameters.iter().map(|parameter| &parameter.len);
        let lens = self.private_lens.iter().chain(&self.masked_lens).chain(parameters);
        lens.max().map_or(0, |len| len * self.format.wire_bytes())
    }

    /// Exchanges between the two servers in one inference.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step.operation, Operation::Open { .. })).count()
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

    /// The fingerprint of the listing that `Display` gives.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*blake3::hash(self.to_string().as_bytes()).as_bytes())
    }
}

/// The canonical listing: everything that the parties must agree on, a line each.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Precision { fraction, integral, ring } = self.format.precision();
        writeln!(f, "plan version 1")?;
        writeln!(f, "network {}", self.network.name)?;
        writeln!(f, "format {} fraction {fraction} integral {integral} ring {ring}", self.format)?;
        writeln!(f, "truncation {}", self.truncation)?;
        writeln!(f, "batch {}", self.batch)?;
        for ParameterSpec { name, len, fraction } in &self.parameters {
            writeln!(f, "parameter {name} len {len} fraction {fraction}")?;
        }
        for (index, Step { layer, operation }) in self.steps.iter().enumerate() {
            write!(f, "{index} {layer} {}", operation.name())?;
            match operation {
                Operation::Input { output } => {
                    write!(f, " -> m{} len {}", output.0, self.masked_len(*output))?;
                }
                Operation::Unmask { input, output } => write!(f, " m{} -> p{}", input.0, output.0)?,
                Operation::Open { input, output } => {
                    write!(f, " p{} -> m{} len {}", input.0, output.0, self.masked_len(*output))?;
                }
                Operation::Linear { input, linear, layer, output } => {
                    write!(f, " m{} layer {layer} -> p{}", input.0, output.0)?;
                    match linear {
                        Linear::MatMul(MatMul { m, k, n }) => write!(f, " {m}x{k}x{n}")?,
                        Linear::Conv2d(c) => write!(
                            f,
                            " {}x{}x{}x{} filter {} outputs {} stride {} padding {}",
                            c.batch,
                            c.height,
                            c.width,
                            c.inputs,
                            c.filter,
                            c.outputs,
                            c.stride,
                            c.padding
                        )?,
                    }
                }
                Operation::Square { input, output } => write!(f, " m{} -> p{}", input.0, output.0)?,
                Operation::Mul { left, right, output } => {
                    write!(f, " m{} m{} -> p{}", left.0, right.0, output.0)?;
                }
                Operation::Truncate { input, bits, output } => {
                    write!(f, " p{} bits {bits} -> p{}", input.0, output.0)?;
                }
                Operation::Combine { terms, constant, output } => {
                    for (id, coefficient) in terms {
                        write!(f, " {coefficient}*p{}", id.0)?;
                    }
                    write!(f, " + {constant} -> p{}", output.0)?;
                }
                Operation::SumPool { input, pooling: p, output } => write!(
                    f,
                    " p{} {}x{}x{}x{} window {} -> p{}",
                    input.0, p.batch, p.height, p.width, p.channels, p.window, output.0
                )?,
                Operation::Output { input } => {
                    write!(f, " p{} fraction {}", input.0, self.output_fraction)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Form {
    Private(PrivateId),
    /// The client's input: its private form is never needed.
    Masked(MaskedId),
}

/// A tensor during compilation.
#[derive(Clone, Copy)]
struct Value {
    form: Form,
    /// The element represents its real value times `2^fraction`.
    fraction: u32,
    len: usize,
}

/// Lowers layers to steps. Products keep the fractional bits of both operands;
/// a value is truncated only when it is about to be masked, so that sums and
/// pooling come first and as few elements as possible are truncated.
struct Compiler {
    batch: usize,
    format: NumberFormat,
    layer: String,
    steps: Vec<Step>,
    private_lens: Vec<usize>,
    masked_lens: Vec<usize>,
    parameters: Vec<ParameterSpec>,
}

impl Compiler {
    fn new(batch: usize, format: NumberFormat) -> Self {
        Self {
            batch,
            format,
            layer: "input".into(),
            steps: Vec::new(),
            private_lens: Vec::new(),
            masked_lens: Vec::new(),
            parameters: Vec::new(),
        }
    }

    fn push(&mut self, operation: Operation) {
        self.steps.push(Step { layer: self.layer.clone(), operation });
    }

    fn private(&mut self, len: usize) -> PrivateId {
        self.private_lens.push(len);
        PrivateId(self.private_lens.len() - 1)
    }

    fn new_masked(&mut self, len: usize) -> MaskedId {
        self.masked_lens.push(len);
        MaskedId(self.masked_lens.len() - 1)
    }

    /// Elements of a batch of tensors of `shape`.
    fn batched(&self, shape: &[usize]) -> Result<usize, PlanError> {
        shape
            .iter()
            .try_fold(self.batch, |len, side| len.checked_mul(*side))
            .filter(|len| *len <= MAX_TENSOR)
            .ok_or_else(|| PlanError::Tensor {
                layer: self.layer.clone(),
                found: shape.iter().fold(self.batch, |len, side| len.saturating_mul(*side)),
            })
    }

    fn input(&mut self, shape: &[usize]) -> Result<Value, PlanError> {
        let len = self.batched(shape)?;
        let output = self.new_masked(len);
        self.push(Operation::Input { output });
        let fraction = self.format.precision().fraction;
        Ok(Value { form: Form::Masked(output), fraction, len })
    }

    /// `value` with at most `fraction` fractional bits.
    fn truncated(&mut self, value: Value, fraction: u32) -> Result<Value, PlanError> {
        let Form::Private(input) = value.form else {
            return Ok(value);
        };
        if value.fraction <= fraction {
            return Ok(value);
        }
        let output = self.private(value.len);
        let bits = value.fraction - fraction;
        self.push(Operation::Truncate { input, bits, output });
        Ok(Value { form: Form::Private(output), fraction, ..value })
    }

    /// The masked form of `value`, which must already have its final precision.
    fn open(&mut self, value: Value) -> MaskedId {
        match value.form {
            Form::Masked(id) => id,
            Form::Private(input) => {
                let output = self.new_masked(value.len);
                self.push(Operation::Open { input, output });
                output
            }
        }
    }

    /// The private form of `value`.
    fn unmasked(&mut self, value: Value) -> PrivateId {
        match value.form {
            Form::Private(id) => id,
            Form::Masked(input) => {
                let output = self.private(value.len);
                self.push(Operation::Unmask { input, output });
                output
            }
        }
    }

    fn layer(
        &mut self,
        layer: &Layer,
        value: Value,
        input: &[usize],
        output: &[usize],
    ) -> Result<Value, PlanError> {
        match layer {
            Layer::Dense { outputs } => {
                let k = input.iter().product();
                let matmul = MatMul { m: self.batch, k, n: *outputs };
                self.linear(Linear::MatMul(matmul), value, output)
            }
            Layer::Conv2d { filter, channels, stride, padding } => {
                let convolution = Convolution {
                    batch: self.batch,
                    height: input[0],
                    width: input[1],
                    inputs: input[2],
                    filter: *filter,
                    outputs: *channels,
                    stride: *stride,
                    padding: *padding,
                };
                self.batched(&[
                    convolution.padded_height(),
                    convolution.padded_width(),
                    convolution.inputs,
                ])?;
                self.linear(Linear::Conv2d(convolution), value, output)
            }
            // Part of the linear layer before it (network::weights).
            Layer::BatchNorm => Ok(value),
            Layer::Activation(polynomial) => self.polynomial(polynomial, value),
            Layer::AvgPool { window } => self.pool(*window, value, input, output),
        }
    }

    fn linear(
        &mut self,
        linear: Linear,
        value: Value,
        output: &[usize],
    ) -> Result<Value, PlanError> {
        let precision = self.format.precision();
        let MatMul { k, n, .. } = linear.as_matmul();
        let largest = precision.largest_inner_dimension();
        if k > largest {
            return Err(PlanError::InnerDimension {
                layer: self.layer.clone(),
                found: k,
                largest,
                format: self.format,
            });
        }
        let len = self.batched(output)?;
        if k * n > MAX_TENSOR {
            return Err(PlanError::Tensor { layer: self.layer.clone(), found: k * n });
        }
        let value = self.truncated(value, precision.fraction)?;
        let input = self.open(value);
        let fraction = value.fraction + precision.fraction;
        let layer = self.parameters.len() / 2;
        self.parameters.push(ParameterSpec {
            name: format!("{}.weight", self.layer),
            len: k * n,
            fraction: precision.fraction,
        });
        self.parameters.push(ParameterSpec {
            name: format!("{}.bias", self.layer),
            len: n,
            fraction,
        });
        let output = self.private(len);
        self.push(Operation::Linear { input, linear, layer, output });
        Ok(Value { form: Form::Private(output), fraction, len })
    }

    /// `sum_j c_j x^j` from powers that are squares or products of lower powers.
    ///
    /// Small coefficients multiply large powers; were both encoded with the
    /// format's precision, the coefficient would underflow. So a power that only
    /// enters the sum keeps fewer fractional bits, about as many fewer as its
    /// coefficient has leading zeros, and the coefficient as many more: each
    /// term is good to about one unit in the last place.
    fn polynomial(&mut self, polynomial: &Polynomial, value: Value) -> Result<Value, PlanError> {
        let precision = self.format.precision();
        let f = precision.fraction;
        let total = 2 * f;
        let coefficients = &polynomial.coefficients;
        for &value in coefficients {
            precision
                .encode::<crate::ring::Int64>(value, f)
                .map_err(|source| PlanError::Coefficient { layer: self.layer.clone(), source })?;
        }
        let mut masked: Vec<Option<MaskedId>> = vec![None; coefficients.len().max(2)];
        if let Form::Masked(id) = value.form {
            masked[1] = Some(id);
        }
        let value = self.truncated(value, f)?;
        let value = Value { form: Form::Private(self.unmasked(value)), ..value };

        let used: Vec<usize> =
            (1..coefficients.len()).filter(|&j| coefficients[j] != 0.0).collect();
        let powers = Powers::needed(&used);
        let mut values: Vec<Option<Value>> = vec![None; coefficients.len().max(2)];
        values[1] = Some(value);
        for power in powers.products() {
            let (low, high) = (power / 2, power - power / 2);
            let mut operand = |compiler: &mut Self, j: usize| {
                let Some(value) = values[j] else {
                    unreachable!("a power comes after the powers that it is made of");
                };
                let id = *masked[j].get_or_insert_with(|| compiler.open(value));
                (id, value.fraction)
            };
            let (left, left_fraction) = operand(self, low);
            let (right, right_fraction) = operand(self, high);
            let output = self.private(value.len);
            self.push(if low == high {
                Operation::Square { input: left, output }
            } else {
                Operation::Mul { left, right, output }
            });
            let product = Value {
                form: Form::Private(output),
                fraction: left_fraction + right_fraction,
                len: value.len,
            };
            let kept = if powers.is_operand(power) {
                f
            } else {
                let leading_zeros = -coefficients[power].abs().log2().ceil();
                f - (leading_zeros.max(0.0) as u32).min(f)
            };
            values[power] = Some(self.truncated(product, kept)?);
        }

        let mut terms = Vec::new();
        for j in used {
            let Some(Value { form: Form::Private(id), fraction, .. }) = values[j] else {
                continue;
            };
            let coefficient = coefficients[j] * f64::from(total - fraction).exp2();
            terms.push((id, coefficient.round() as i64));
        }
        let constant = coefficients.first().map_or(0.0, |c| c * f64::from(total).exp2());
        let output = self.private(value.len);
        self.push(Operation::Combine { terms, constant: constant.round() as i64, output });
        Ok(Value { form: Form::Private(output), fraction: total, len: value.len })
    }

    fn pool(
        &mut self,
        window: usize,
        value: Value,
        input: &[usize],
        output: &[usize],
    ) -> Result<Value, PlanError> {
        let id = self.unmasked(value);
        let len = self.batched(output)?;
        let sums = self.private(len);
        let pooling = Pooling {
            batch: self.batch,
            height: input[0],
            width: input[1],
            channels: input[2],
            window,
        };
        self.push(Operation::SumPool { input: id, pooling, output: sums });
        let area = window * window;
        let value = Value { form: Form::Private(sums), fraction: value.fraction, len };
        if area.is_power_of_two() {
            // The sum is the average with more fractional bits: nothing to compute.
            return Ok(Value { fraction: value.fraction + area.ilog2(), ..value });
        }
        let f = self.format.precision().fraction;
        let Value { form: Form::Private(sums), fraction, len } = self.truncated(value, f)? else {
            return Ok(value);
        };
        let coefficient = (f64::from(f).exp2() / area as f64).round() as i64;
        let output = self.private(len);
        self.push(Operation::Combine { terms: vec![(sums, coefficient)], constant: 0, output });
        Ok(Value { form: Form::Private(output), fraction: fraction + f, len })
    }
}

/// Which powers of `x` a polynomial needs, each the product of its two halves.
struct Powers {
    needed: std::collections::BTreeSet<usize>,
}

impl Powers {
    fn needed(used: &[usize]) -> Self {
        let mut needed = std::collections::BTreeSet::new();
        let mut pending: Vec<usize> = used.to_vec();
        while let Some(power) = pending.pop() {
            if power > 1 && needed.insert(power) {
                pending.extend([power / 2, power - power / 2]);
            }
        }
        Self { needed }
    }

    /// Those above one, each after the powers it is made of.
    fn products(&self) -> impl Iterator<Item = usize> {
        self.needed.iter().copied()
    }

    /// Whether a higher power is made of this one.
    fn is_operand(&self, power: usize) -> bool {
        self.needed.iter().any(|higher| higher / 2 == power || higher - higher / 2 == power)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(network: &Network, batch: usize) -> Plan {
        Plan::compile(network, batch, NumberFormat::Int64, Truncation::Local).unwrap()
    }

    #[test]
    fn the_papers_networks_need_three_exchanges_an_activation() {
        for (network, activations) in [(Network::a(), 2), (Network::b(), 3), (Network::c(), 3)] {
            let plan = plan(&network, 7);
            assert_eq!(plan.rounds(), 3 * activations, "{}", network.name);
            assert_eq!(plan.output_len(), 70);
            assert_eq!(plan.input_len(), 7 * 784);
            assert_eq!(plan.output_fraction(), 12);
        }
    }

    #[test]
    fn the_first_block_of_network_c_reads_like_this() {
        let listing = plan(&Network::c(), 1).to_string();
        let steps: Vec<&str> =
            listing.lines().skip_while(|line| !line.starts_with("0 ")).take(12).collect();
        assert_eq!(
            steps,
            [
                "0 input input -> m0 len 784",
                "1 conv1 conv2d m0 layer 0 -> p0 1x28x28x1 filter 5 outputs 20 stride 1 padding 0",
                "2 act1 truncate p0 bits 12 -> p1",
                "3 act1 open p1 -> m1 len 11520",
                "4 act1 square m1 -> p2",
                "5 act1 truncate p2 bits 12 -> p3",
                "6 act1 open p3 -> m2 len 11520",
                "7 act1 square m2 -> p4",
                "8 act1 truncate p4 bits 18 -> p5",
                "9 act1 combine 2048*p1 1120*p3 -3982*p5 + 2949120 -> p6",
                "10 pool1 pool p6 1x24x24x20 window 2 -> p7",
                "11 conv2 truncate p7 bits 14 -> p8",
            ]
        );
    }

    #[test]
    fn anything_that_parties_must_agree_on_changes_the_digest() {
        let base = plan(&Network::a(), 1);
        assert_eq!(base.digest(), plan(&Network::a(), 1).digest());
        let mut other_coefficient = Network::a();
        other_coefficient.layers[2] = Layer::Activation(Polynomial::relu(3.001));
        for other in [plan(&Network::a(), 2), plan(&Network::b(), 1), plan(&other_coefficient, 1)] {
            assert_ne!(base.digest(), other.digest());
        }
    }

    #[test]
    fn odd_powers_are_products_of_their_halves() {
        let powers = Powers::needed(&[1, 7]);
        assert_eq!(powers.products().collect::<Vec<_>>(), [2, 3, 4, 7]);
        assert!(powers.is_operand(3) && !powers.is_operand(7));
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_with_the_layer() {
        let compile = |network: &Network, batch| {
            Plan::compile(network, batch, NumberFormat::Int64, Truncation::Local)
                .unwrap_err()
                .to_string()
        };
        let wide = Network {
            name: "wide".into(),
            input: vec![1 << 19],
            layers: vec![Layer::Dense { outputs: 1 }],
        };
        assert_eq!(
            compile(&wide, 1),
            "layer fc1: sums of 524288 products can leave the range of Int64, which holds 262144"
        );
        let steep = Network {
            name: "steep".into(),
            input: vec![4],
            layers: vec![Layer::Activation(Polynomial { coefficients: vec![0.0, 5000.0] })],
        };
        assert!(compile(&steep, 1).contains("layer act1: 5000 is outside"));
        assert!(compile(&Network::a(), 0).contains("batch size 0 is outside 1 to 1024"));
        assert!(compile(&Network::a(), 1025).contains("batch size 1025"));
        let huge = Network { name: "huge".into(), input: vec![1 << 18], layers: Vec::new() };
        assert!(
            compile(&huge, 1024).contains("layer input")
                || compile(&huge, 1024).contains("at least one layer")
        );
    }
}
