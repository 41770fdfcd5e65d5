//! A network in training: its variables, its forward pass and its saved form.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Result, Tensor, Var, bail};
use rand::{RngExt, rngs::StdRng};
use spdz::network::{Layer, Network};

use super::ops::{
    Activation, AveragePool, BatchNorm, DataTimes, Excess, MaxPool, Statistics, Unfold,
};
use crate::patches::Patches;

/// A network's parameters as candle variables.
pub(super) struct Model {
    network: Network,
    names: Vec<String>,
    shapes: Vec<Vec<usize>>,
    /// The trained parameters: all but the biases that batch normalisation
    /// takes away again, which stay zero.
    variables: BTreeMap<String, Var>,
}

/// What one forward pass gives.
pub(super) struct Output {
    /// `[n, classes]`.
    pub(super) logits: Tensor,
    /// The sum of the squared excess of everything that entered an activation, or the max
    /// pooling before one, a scalar.
    pub(super) excess: Tensor,
    /// The statistics of the batch at each batch normalisation, by its name.
    pub(super) statistics: BTreeMap<String, Statistics>,
}

impl Model {
    /// A model with random weights.
    ///
    /// # Errors
    /// If the network's layers do not fit together.
    pub(super) fn new(network: &Network, random: &mut StdRng) -> Result<Self> {
        let shapes = network.shapes().map_err(candle_core::Error::wrap)?;
        let parameters = network.parameters().map_err(candle_core::Error::wrap)?;
        let names = network.layer_names();
        let normalised: Vec<&String> = names
            .iter()
            .zip(network.layers.iter().skip(1))
            .filter(|(_, next)| matches!(next, Layer::BatchNorm))
            .map(|(name, _)| name)
            .collect();
        let mut variables = BTreeMap::new();
        for parameter in parameters {
            let Some((layer, what)) = parameter.name.split_once('.') else {
                bail!("parameter {} has no layer", parameter.name);
            };
            let count = parameter.shape.iter().product();
            let values = match what {
                "weight" => {
                    // Uniform with variance 1 / inputs.
                    let inputs: usize = parameter.shape.iter().rev().skip(1).product();
                    let bound = (3.0 / inputs as f32).sqrt();
                    (0..count).map(|_| random.random_range(-bound..bound)).collect()
                }
                "gamma" => vec![1.0; count],
                "beta" => vec![0.0; count],
                "bias" if !normalised.iter().any(|name| *name == layer) => vec![0.0; count],
                _ => continue,
            };
            let tensor = Tensor::from_vec(values, parameter.shape, &Device::Cpu)?;
            variables.insert(parameter.name, Var::from_tensor(&tensor)?);
        }
        Ok(Self { network: network.clone(), names, shapes, variables })
    }

    /// The variables by parameter name.
    pub(super) fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    fn variable(&self, layer: &str, what: &str) -> Result<&Tensor> {
        match self.variables.get(&format!("{layer}.{what}")) {
            Some(variable) => Ok(variable.as_tensor()),
            None => bail!("parameter {layer}.{what} is not trained"),
        }
    }

    /// Whether what enters a layer should stay small: what enters an activation, or the max
    /// pooling before one, which lets the largest through.
    fn bounds(&self, index: usize) -> bool {
        let pooled = |layer: &Layer| matches!(layer, Layer::MaxPool { .. });
        let before = index.checked_sub(1).map(|index| &self.network.layers[index]);
        match &self.network.layers[index] {
            Layer::Activation(_) | Layer::Relu => !before.is_some_and(pooled),
            layer => pooled(layer),
        }
    }

    /// Runs `[n, ...]` inputs through the network, normalising by the batch's own statistics.
    ///
    /// `limit` is the magnitude from which on what enters an activation counts as excess.
    pub(super) fn forward(&self, inputs: &Tensor, limit: f32) -> Result<Output> {
        let n = inputs.dim(0)?;
        let mut current = inputs.clone();
        let mut excess = Tensor::zeros((), current.dtype(), current.device())?;
        let mut statistics = BTreeMap::new();
        for (index, (layer, name)) in self.network.layers.iter().zip(&self.names).enumerate() {
            if self.bounds(index) {
                excess = (excess + current.apply_op1(Excess { limit })?)?;
            }
            current = match layer {
                Layer::Dense { .. } => {
                    let rows = current.flatten_from(1)?;
                    self.linear(name, rows, index == 0)?
                }
                Layer::Conv2d { filter, stride, padding, .. } => {
                    let (_, height, width, channels) = current.dims4()?;
                    let patches = Patches {
                        height,
                        width,
                        channels,
                        filter: *filter,
                        stride: *stride,
                        padding: *padding,
                    };
                    self.linear(name, current.apply_op1(Unfold(patches))?, index == 0)?
                }
                Layer::BatchNorm => {
                    let of_batch = Statistics::of(&current)?;
                    let normalised = current.apply_op3(
                        self.variable(name, "gamma")?,
                        self.variable(name, "beta")?,
                        BatchNorm::from(&of_batch),
                    )?;
                    statistics.insert(name.clone(), of_batch);
                    normalised
                }
                Layer::Activation(polynomial) => current.apply_op1(Activation::from(polynomial))?,
                Layer::Relu => current.relu()?,
                Layer::AvgPool { window } => current.apply_op1(AveragePool { window: *window })?,
                Layer::MaxPool { window } => current.apply_op1(MaxPool { window: *window })?,
            };
            let shape = [&[n], self.shapes[index].as_slice()].concat();
            current = current.reshape(shape)?;
        }
        Ok(Output { logits: current, excess, statistics })
    }

    /// Rows times the layer's weights plus its bias, `[rows, out]`.
    ///
    /// `data` says that the rows are no result of the model, so need no gradient.
    fn linear(&self, layer: &str, rows: Tensor, data: bool) -> Result<Tensor> {
        let inputs = rows.dim(1)?;
        let weight = self.variable(layer, "weight")?.reshape((inputs, ()))?;
        let product = if data { weight.apply_op1(DataTimes(rows))? } else { rows.matmul(&weight)? };
        match self.variables.get(&format!("{layer}.bias")) {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    /// The network's parameters as it needs them to infer, with those statistics
    /// for its batch normalisations, as the bytes of a safetensors file.
    pub(super) fn to_safetensors(
        &self,
        statistics: &BTreeMap<String, Statistics>,
    ) -> Result<Vec<u8>> {
        let parameters = self.network.parameters().map_err(candle_core::Error::wrap)?;
        let mut tensors = HashMap::new();
        for parameter in parameters {
            let tensor = match self.variables.get(&parameter.name) {
                Some(variable) => variable.as_detached_tensor(),
                None => {
                    let values = match parameter.name.split_once('.') {
                        Some((layer, "mean")) => statistics.get(layer).map(|s| &s.mean),
                        Some((layer, "variance")) => statistics.get(layer).map(|s| &s.variance),
                        _ => None,
                    };
                    let count = parameter.shape.iter().product();
                    let values = match values {
                        Some(values) => values.iter().map(|&value| value as f32).collect(),
                        None => vec![0.0f32; count],
                    };
                    Tensor::from_vec(values, parameter.shape, &Device::Cpu)?
                }
            };
            tensors.insert(parameter.name, tensor);
        }
        safetensors::serialize(tensors, None).map_err(candle_core::Error::wrap)
    }
}
