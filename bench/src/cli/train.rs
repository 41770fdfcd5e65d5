//! The arguments of `bench train`.

use std::path::PathBuf;

use clap::Args;

use super::common::Networks;
#[cfg(feature = "train")]
use super::training;
#[cfg(feature = "train")]
use crate::card::{Augmentation, Training};
use crate::data;

/// Arguments of `bench train`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    networks: Networks,
    /// Passes over the training set
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..))]
    pub epochs: u16,
    /// Images per step
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=60_000))]
    pub batch_size: u16,
    /// Largest step size
    #[arg(long, default_value_t = 0.002)]
    pub learning_rate: f64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder with MNIST's files
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT_FOLDER)]
    pub data: PathBuf,
    /// Folder to put the weights and the model cards into
    #[arg(long, value_name = "DIR", default_value = "bench/models")]
    pub out: PathBuf,
}

impl Arguments {
    #[cfg(feature = "train")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let training = Training {
            seed: self.seed,
            epochs: self.epochs.into(),
            batch_size: self.batch_size.into(),
            learning_rate: self.learning_rate,
            weight_decay: 0.05,
            label_smoothing: 0.05,
            gradient_norm: 1.0,
            averaging: 0.999,
            activation_limit: 2.5,
            activation_penalty: 0.01,
            augmentation: Augmentation { shift: 2.0, rotation: 10.0, scale: 0.1 },
        };
        training::run(&self.networks.each()?, &training, &self.data, &self.out)
    }

    #[cfg(not(feature = "train"))]
    pub(super) fn run(self) -> anyhow::Result<()> {
        anyhow::bail!(
            "this build cannot train; build it with its training: \
             cargo run --release -p bench --features train -- train"
        )
    }
}
