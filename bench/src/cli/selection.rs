//! What is measured, how often, and with which files: of a sweep, and of Table 1, which is one.

use std::path::PathBuf;

use clap::Args;
use spdz::network::{Activation, Builtin, Pooling, Reveal};
use spdz::plan::NumberFormat;

use super::common::{Folders, Program, Threads, activation, format, pooling, reveal, within};
use crate::launch::here::Files;
use crate::settings::{ACCURACY_SAMPLES, REPETITIONS, Settings, WARMUP};

/// What a sweep measures; what is not given stays as it is.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Networks to measure [default: A,B,C]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(value_parser = Builtin::ARCHITECTURES)]
    networks: Option<Vec<String>>,
    /// What activations the networks have; each network with each [default: polynomial; all of
    /// table1]
    #[arg(long, alias = "activations", value_name = "NAMES", value_delimiter = ',')]
    #[arg(ignore_case = true, value_parser = activation())]
    activation: Option<Vec<Activation>>,
    /// What pooling they have; each network with each that it has [default: average; all of
    /// table1]
    #[arg(long, alias = "poolings", value_name = "NAMES", value_delimiter = ',')]
    #[arg(ignore_case = true, value_parser = pooling())]
    pooling: Option<Vec<Pooling>>,
    /// What the client learns; each network with each [default: logits]
    #[arg(long, alias = "reveals", value_name = "NAMES", value_delimiter = ',')]
    #[arg(ignore_case = true, value_parser = reveal())]
    reveal: Option<Vec<Reveal>>,
    /// Number formats to measure; each network in those of them that it can be computed in
    /// [default: all]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format())]
    formats: Option<Vec<NumberFormat>>,
    /// Timed inferences of each trial [default: 100]
    #[arg(long, value_name = "N", value_parser = within::<u64>(REPETITIONS))]
    repetitions: Option<u64>,
    /// Inferences before them [default: 5]
    #[arg(long, value_name = "N", value_parser = within::<u64>(WARMUP))]
    warmup: Option<u64>,
    /// Images of the test set scored after a cell's first trial, 0 for none [default: 10000 of
    /// table1, 0 of sweep]
    #[arg(long, value_name = "N", value_parser = within::<usize>(ACCURACY_SAMPLES))]
    accuracy_samples: Option<usize>,
    #[command(flatten)]
    threads: Threads,
    /// Folder for results.json and, until it is there, for a sweep's journal
    #[arg(long, value_name = "DIR", default_value = "results")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    program: Program,
}

impl Selection {
    /// Puts what was given into its place.
    pub(super) fn apply(&self, settings: &mut Settings) {
        replace(&mut settings.networks, self.networks.clone());
        replace(&mut settings.activations, self.activation.clone());
        replace(&mut settings.poolings, self.pooling.clone());
        replace(&mut settings.reveals, self.reveal.clone());
        replace(&mut settings.formats, self.formats.clone());
        replace(&mut settings.repetitions, self.repetitions);
        replace(&mut settings.warmup, self.warmup);
        replace(&mut settings.accuracy_samples, self.accuracy_samples);
        settings.threads = self.threads.threads.or(settings.threads);
    }

    /// Where things are on this machine.
    ///
    /// # Errors
    /// If this program does not know where it is.
    pub(super) fn files(&self) -> anyhow::Result<Files> {
        Ok(self.folders.clone().with(self.program.path()?))
    }
}

/// Puts what was given into its place.
pub(super) fn replace<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}
