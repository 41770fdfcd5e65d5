//! Training of the networks on MNIST, with the activation and pooling they infer with.
//!
//! The polynomial follows ReLU on `[-3, 3]` and diverges outside, so the loss
//! also charges for what enters an activation beyond a limit, and the
//! gradient's norm is bounded. What is compared exactly may be large, and takes
//! fewer bits while it is not. The weights kept are a running average over the
//! last steps, and batch normalisation's statistics are taken with these over
//! the whole training set. The last epoch is the result: nothing is selected
//! by the test set.

mod augment;
mod model;
mod ops;

use std::collections::BTreeMap;
use std::f64::consts::PI;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var, bail};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use spdz::network::Network;

use self::model::Model;
use self::ops::Statistics;
use crate::card::Training;
use crate::data::{CLASSES, Dataset};

/// The library that trains, as a model card names it.
pub const TRAINED_WITH: &str = "candle 0.11";

/// Images per batch where the statistics of batch normalisation are taken.
const STATISTICS_BATCH: usize = 1000;

/// How far a training has come, after each of its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps to do altogether.
    pub steps: usize,
    /// Epochs to do altogether.
    pub epochs: usize,
    /// The current epoch, counted from 1.
    pub epoch: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
}

/// Trains the network and returns its weights as the bytes of a safetensors file.
///
/// The same arguments give the same bytes on the same machine. `report` is
/// called after every step.
///
/// # Errors
/// If the network does not take the images, a batch is larger than the data
/// set, or a tensor operation fails.
pub fn train(
    network: &Network,
    training: &Training,
    dataset: &Dataset,
    mut report: impl FnMut(Progress),
) -> Result<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(training.seed);
    let model = Model::new(network, &mut random)?;
    let mut optimizer = Optimizers::new(&model, training.weight_decay)?;
    let mut averages = Averages::new(&model, training.averaging)?;
    let mut order: Vec<usize> = (0..dataset.images.count).collect();
    let steps_per_epoch = order.len() / training.batch_size;
    let steps = training.epochs * steps_per_epoch;
    if steps == 0 {
        bail!(
            "{} epochs of {} images in batches of {}, expected at least one full batch",
            training.epochs,
            order.len(),
            training.batch_size
        );
    }
    let mut step = 0;
    for epoch in 1..=training.epochs {
        order.shuffle(&mut random);
        let mut losses = 0.0;
        let batches = order.chunks_exact(training.batch_size);
        for (batch, indices) in batches.enumerate() {
            let inputs = augmented(training, dataset, indices, &mut random)?;
            let targets = targets(training, dataset, indices)?;
            let output = model.forward(&inputs, training.activation_limit)?;
            let likelihood = (targets * log_softmax(&output.logits, 1)?)?.sum_all()?;
            let penalty = (output.excess * training.activation_penalty)?;
            let loss = ((penalty - likelihood)? / indices.len() as f64)?;
            let mut gradients = loss.backward()?;
            bound_norm(&model, &mut gradients, training.gradient_norm)?;
            let rate = training.learning_rate * schedule(step, steps_per_epoch, steps);
            optimizer.step(&gradients, rate)?;
            averages.add(&model)?;
            losses += f64::from(loss.to_scalar::<f32>()?);
            step += 1;
            report(Progress {
                step,
                steps,
                epochs: training.epochs,
                epoch,
                loss: losses / (batch + 1) as f64,
            });
        }
    }
    averages.assign(&model)?;
    let statistics = statistics(&model, training, dataset)?;
    model.to_safetensors(&statistics)
}

/// The share of the full step size at a step: rising over `warmup` steps, then half a cosine.
fn schedule(step: usize, warmup: usize, steps: usize) -> f64 {
    let [step, warmup, steps] = [step, warmup, steps].map(|count| count as f64);
    let rise = (step + 1.0) / warmup;
    let fall = 0.5 * (1.0 + (PI * (step - warmup) / (steps - warmup)).cos());
    if step < warmup { rise } else { fall }
}

/// The images of these indices as the network's input, each changed at random.
fn augmented(
    training: &Training,
    dataset: &Dataset,
    indices: &[usize],
    random: &mut StdRng,
) -> Result<Tensor> {
    let images = &dataset.images;
    let mut values = Vec::with_capacity(indices.len() * images.height * images.width);
    for &index in indices {
        let augmentation = &training.augmentation;
        augment::append(augmentation, images, index, random, &mut values);
    }
    let shape = (indices.len(), images.height, images.width, 1);
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// The probabilities `[n, classes]` that the network should give.
fn targets(training: &Training, dataset: &Dataset, indices: &[usize]) -> Result<Tensor> {
    let shared = training.label_smoothing / CLASSES as f32;
    let mut values = vec![shared; indices.len() * CLASSES];
    for (row, &index) in values.chunks_exact_mut(CLASSES).zip(indices) {
        row[usize::from(dataset.labels[index])] += 1.0 - training.label_smoothing;
    }
    Tensor::from_vec(values, (indices.len(), CLASSES), &Device::Cpu)
}

/// Scales the gradients down so that their common norm is at most `bound`.
fn bound_norm(model: &Model, gradients: &mut GradStore, bound: f64) -> Result<()> {
    let mut squares = 0.0;
    for variable in model.variables().values() {
        if let Some(gradient) = gradients.get(variable) {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let norm = squares.sqrt();
    if norm > bound {
        for variable in model.variables().values() {
            if let Some(gradient) = gradients.remove(variable) {
                gradients.insert(variable, (gradient * (bound / norm))?);
            }
        }
    }
    Ok(())
}

/// The statistics that batch normalisation infers with: those of the training
/// set, unchanged, under the model's weights.
fn statistics(
    model: &Model,
    training: &Training,
    dataset: &Dataset,
) -> Result<BTreeMap<String, Statistics>> {
    let inputs = crate::plaintext::inputs(&dataset.images);
    let (height, width) = (dataset.images.height, dataset.images.width);
    let mut batches = Vec::new();
    for images in inputs.axis_chunks_iter(ndarray::Axis(0), STATISTICS_BATCH) {
        let values = images.iter().copied().collect();
        let shape = (images.nrows(), height, width, 1);
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        batches.push(model.forward(&images, training.activation_limit)?.statistics);
    }
    Ok(Statistics::merge(&batches))
}

/// AdamW on all variables, decaying only the weights.
struct Optimizers {
    decayed: AdamW,
    others: AdamW,
}

impl Optimizers {
    fn new(model: &Model, weight_decay: f64) -> Result<Self> {
        let of = |weights: bool, weight_decay: f64| {
            let variables = model.variables().iter();
            let chosen = variables.filter(|(name, _)| name.ends_with(".weight") == weights);
            AdamW::new(
                chosen.map(|(_, variable)| variable.clone()).collect(),
                ParamsAdamW { weight_decay, ..ParamsAdamW::default() },
            )
        };
        Ok(Self { decayed: of(true, weight_decay)?, others: of(false, 0.0)? })
    }

    fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        for optimizer in [&mut self.decayed, &mut self.others] {
            optimizer.set_learning_rate(rate);
            optimizer.step(gradients)?;
        }
        Ok(())
    }
}

/// Running averages of the variables.
struct Averages {
    keep: f64,
    variables: BTreeMap<String, Var>,
}

impl Averages {
    fn new(model: &Model, keep: f64) -> Result<Self> {
        let copy = |(name, variable): (&String, &Var)| {
            Ok((name.clone(), Var::from_tensor(&variable.as_tensor().copy()?)?))
        };
        let variables = model.variables().iter().map(copy).collect::<Result<_>>()?;
        Ok(Self { keep, variables })
    }

    fn add(&mut self, model: &Model) -> Result<()> {
        for (name, variable) in model.variables() {
            if let Some(average) = self.variables.get(name) {
                let kept = (average.as_tensor() * self.keep)?;
                average.set(&(kept + (variable.as_tensor() * (1.0 - self.keep))?)?)?;
            }
        }
        Ok(())
    }

    fn assign(&self, model: &Model) -> Result<()> {
        for (name, variable) in model.variables() {
            if let Some(average) = self.variables.get(name) {
                variable.set(average.as_tensor())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::Augmentation;
    use party::idx::Images;
    use spdz::network::weights::Weights;

    #[test]
    fn the_schedule_rises_then_falls() {
        let rates: Vec<f64> = (0..100).map(|step| schedule(step, 10, 100)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12 && (rates[10] - 1.0).abs() < 1e-12);
        assert!(rates[..10].is_sorted() && rates[10..].iter().rev().is_sorted());
        assert!(rates[99] > 0.0 && rates[99] < 0.01);
    }

    fn small() -> (Network, Training, Dataset) {
        let network = Network::a();
        let training = Training {
            seed: 7,
            epochs: 2,
            batch_size: 10,
            learning_rate: 0.002,
            weight_decay: 0.05,
            label_smoothing: 0.05,
            gradient_norm: 1.0,
            averaging: 0.5,
            activation_limit: 2.5,
            activation_penalty: 0.01,
            augmentation: Augmentation { shift: 1.0, rotation: 10.0, scale: 0.1 },
        };
        let count = 45;
        let images = Images {
            count,
            height: 28,
            width: 28,
            pixels: (0..count * 784).map(|i| (i * i % 251) as u8).collect(),
        };
        let labels = (0..count).map(|i| (i % CLASSES) as u8).collect();
        (network, training, Dataset::new(images, labels).unwrap())
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_file() {
        let (network, mut training, dataset) = small();
        let mut progress = Vec::new();
        let file = train(&network, &training, &dataset, |p| progress.push(p)).unwrap();
        assert_eq!(progress.len(), 8);
        assert_eq!(progress[7].epoch, 2);
        assert!(file == train(&network, &training, &dataset, |_| {}).unwrap());
        let weights = Weights::from_safetensors(&file, &network).unwrap();
        assert!(weights.get("bn1.variance").unwrap().iter().all(|v| *v > 0.0));
        training.seed += 1;
        assert!(file != train(&network, &training, &dataset, |_| {}).unwrap());
    }

    #[test]
    fn a_batch_larger_than_the_data_set_is_refused() {
        let (network, mut training, dataset) = small();
        training.batch_size = 46;
        let error = train(&network, &training, &dataset, |_| {}).unwrap_err();
        assert!(error.to_string().contains("at least one full batch"), "{error}");
    }
}
