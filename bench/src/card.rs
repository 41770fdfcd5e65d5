//! Model cards: how a model was trained and what it reaches.

use serde::{Deserialize, Serialize};
use spdz::network::weights::Weights;
use spdz::network::{Activation, Builtin, Layer, Network, Pooling, UnknownNetwork, Variant};

use crate::data::Dataset;
use crate::plaintext::{self, PlaintextError};

/// The file beside a model's weights that says where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelCard {
    /// The paper's network: `A`, `B` or `C`.
    pub network: String,
    /// Its activations.
    #[serde(default)]
    pub activation: Activation,
    /// Its pooling; `average` of a network without one.
    #[serde(default)]
    pub pooling: Pooling,
    /// How it was trained.
    #[serde(flatten)]
    pub training: Training,
    /// What it reaches on the test set.
    #[serde(flatten)]
    pub measured: Measured,
    /// SHA-256 of the weights file, hexadecimal.
    pub sha256: String,
    /// The library that trained it, with its version.
    pub trained_with: String,
}

impl ModelCard {
    /// The network that it is of.
    ///
    /// # Errors
    /// If there is none.
    pub fn model(&self) -> Result<Builtin, UnknownNetwork> {
        let Self { activation, pooling, .. } = *self;
        Builtin::new(&self.network, Variant { activation, pooling })
    }
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Training {
    /// Seed of everything random.
    pub seed: u64,
    /// Passes over the training set.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// AdamW's step size at its height; it rises over the first epoch and falls as a cosine.
    pub learning_rate: f64,
    /// AdamW's decay of the weights, relative to the step size.
    pub weight_decay: f64,
    /// Probability that the targets give to all classes alike.
    pub label_smoothing: f32,
    /// Largest norm of a step's gradient.
    pub gradient_norm: f64,
    /// Share of the running average of the weights that a step keeps.
    pub averaging: f64,
    /// Magnitude up to which what enters an activation costs nothing.
    pub activation_limit: f32,
    /// Cost, per image, of the squared excess over that limit.
    pub activation_penalty: f64,
    /// The random changes of the training images.
    pub augmentation: Augmentation,
}

/// The largest random change of a training image; each up to it is equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Augmentation {
    /// Largest shift in each direction, pixels.
    pub shift: f32,
    /// Largest rotation either way, degrees.
    pub rotation: f32,
    /// Largest relative change of each side's length.
    pub scale: f32,
}

/// What a model reaches on images with labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Share of the images whose class is right.
    pub plaintext_accuracy: f64,
    /// Largest magnitude that enters an activation, or the max pooling before one.
    pub largest_pre_activation: f32,
    /// Largest magnitude of a logit.
    pub largest_logit: f32,
}

impl Measured {
    /// Evaluates the model in plaintext.
    ///
    /// # Errors
    /// If the weights are not the network's, or the images have another size.
    pub fn of(
        network: &Network,
        weights: &Weights,
        dataset: &Dataset,
    ) -> Result<Self, PlaintextError> {
        let names = network.layer_names();
        let entering: Vec<&String> = names
            .iter()
            .zip(network.layers.iter().skip(1))
            .filter(|(_, next)| {
                matches!(next, Layer::Activation(_) | Layer::Relu | Layer::MaxPool { .. })
            })
            .map(|(name, _)| name)
            .collect();
        let largest = |values: &mut dyn Iterator<Item = &f32>| {
            values.fold(0.0f32, |largest, value| largest.max(value.abs()))
        };
        let mut largest_pre_activation = 0.0f32;
        let inputs = plaintext::inputs(&dataset.images);
        let logits = plaintext::logits(network, weights, inputs.view(), |name, output| {
            if entering.iter().any(|layer| *layer == name) {
                largest_pre_activation = largest_pre_activation.max(largest(&mut output.iter()));
            }
        })?;
        Ok(Self {
            plaintext_accuracy: plaintext::accuracy(logits.view(), &dataset.labels),
            largest_pre_activation,
            largest_logit: largest(&mut logits.iter()),
        })
    }
}
