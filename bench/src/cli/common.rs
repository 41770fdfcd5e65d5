//! Arguments that several commands have.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use party::cli::Instructions;
use party::config::{OfflineMode, Store, Transport};
use party::signals;
use serde::Serialize;
use spdz::network::{Activation, Builtin, Pooling, Reveal, UnknownNetwork};
use spdz::plan::NumberFormat;

use super::exit;
use crate::compare::Comparison;
use crate::console;
use crate::data;
use crate::forms;
use crate::launch::here::Files;
use crate::results::Results;
use crate::settings::{STORE_DISK_MEGABYTES, STORE_MEGABYTES, THREADS, Truncate};

/// A number format on the command line.
pub(super) fn format() -> impl TypedValueParser<Value = NumberFormat> {
    let value = |format: NumberFormat| PossibleValue::new(format.name()).help(format.summary());
    PossibleValuesParser::new(NumberFormat::ALL.map(value)).try_map(|name| name.parse())
}

/// An activation on the command line.
pub(super) fn activation() -> impl TypedValueParser<Value = Activation> {
    let value = |activation: Activation| {
        PossibleValue::new(activation.name()).help(match activation {
            Activation::Polynomial => "The paper's: a polynomial that is close to ReLU",
            Activation::Relu => "Exact; only in number formats that can compare",
        })
    };
    PossibleValuesParser::new(Activation::ALL.map(value)).try_map(|name| name.parse())
}

/// A pooling on the command line.
pub(super) fn pooling() -> impl TypedValueParser<Value = Pooling> {
    let value = |pooling: Pooling| {
        PossibleValue::new(pooling.name()).help(match pooling {
            Pooling::Average => "The paper's: the average of each window",
            Pooling::Max => "The largest value of each window; with relu, and not of A",
        })
    };
    PossibleValuesParser::new(Pooling::ALL.map(value)).try_map(|name| name.parse())
}

/// What the client learns, on the command line.
pub(super) fn reveal() -> impl TypedValueParser<Value = Reveal> {
    let value = |reveal: Reveal| {
        PossibleValue::new(reveal.name()).help(match reveal {
            Reveal::Logits => "The paper's: what the last layer puts out",
            Reveal::Label => "The class alone; only in number formats that can compare",
        })
    };
    PossibleValuesParser::new(Reveal::ALL.map(value)).try_map(|name| name.parse())
}

/// The paper's networks, in one or several forms.
#[derive(Clone, Debug, Args)]
pub(super) struct Networks {
    /// Networks of the paper
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = Builtin::ARCHITECTURES)]
    networks: Vec<String>,
    /// What activations they have; each network with each
    #[arg(long, value_name = "NAMES", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = activation(), default_values_t = [Activation::default()])]
    activation: Vec<Activation>,
    /// What pooling they have; each network with each that it has
    #[arg(long, value_name = "NAMES", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = pooling(), default_values_t = [Pooling::default()])]
    pooling: Vec<Pooling>,
}

impl Networks {
    /// Each of them.
    ///
    /// # Errors
    /// If a network has none of the forms.
    pub(super) fn each(&self) -> Result<Vec<Builtin>, UnknownNetwork> {
        forms::networks(&self.networks, &self.activation, &self.pooling)
    }
}

/// Where the networks and what they are measured on are.
#[derive(Clone, Debug, Args)]
pub(super) struct Folders {
    /// Folder with the test set
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT_FOLDER)]
    pub(super) data: PathBuf,
    /// Folder with the trained weights
    #[arg(long, value_name = "DIR", default_value = "bench/models")]
    pub(super) models: PathBuf,
}

impl Folders {
    pub(super) fn with(self, party: PathBuf) -> Files {
        Files { data: self.data, models: self.models, party }
    }
}

/// What the parties run.
#[derive(Debug, Args)]
pub(super) struct Program {
    /// The party program; without it this program, which can be one too
    #[arg(long, value_name = "FILE")]
    pub(super) party: Option<PathBuf>,
    #[command(flatten)]
    instructions: Instructions,
}

impl Program {
    /// The party program. It and this one keep to the instructions that were asked for.
    pub(super) fn path(&self) -> io::Result<PathBuf> {
        self.instructions.apply();
        self.party.clone().map_or_else(std::env::current_exe, Ok)
    }
}

/// How many threads parties use.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Threads {
    /// Threads that each server and the producer divide large products among; without
    /// it they share the cores
    #[arg(long, value_name = "N", value_parser = within::<usize>(THREADS))]
    pub(super) threads: Option<usize>,
}

/// How parties compute, whatever it is.
#[derive(Debug, Args)]
pub(super) struct Manner {
    /// How products are truncated to the format's precision
    #[arg(long, value_name = "HOW", ignore_case = true, default_value = "usual")]
    pub(super) truncation: Truncate,
    /// When the producer generates correlated randomness
    #[arg(long, value_name = "WHEN", default_value = "inline")]
    pub(super) offline: OfflineMode,
    /// Memory of each server's preprocessing store, units of 2^20 bytes
    #[arg(long, value_name = "N", default_value_t = Store::default().memory_megabytes, value_parser = within::<u64>(STORE_MEGABYTES))]
    pub(super) store_megabytes: u64,
    /// Disk of each server, in the temporary folder, for what does not fit there,
    /// encrypted, units of 2^20 bytes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = within::<u64>(STORE_DISK_MEGABYTES))]
    pub(super) store_disk_megabytes: u64,
    /// How long a party looks for a message before it sleeps, microseconds
    #[arg(long, value_name = "MICROS", default_value_t = Transport::default().spin_micros)]
    pub(super) spin_micros: u64,
}

impl Manner {
    pub(super) fn store(&self) -> Store {
        let disk_megabytes = self.store_disk_megabytes;
        Store { disk_megabytes, ..Store::in_memory(self.store_megabytes) }
    }

    pub(super) fn transport(&self) -> Transport {
        Transport { spin_micros: self.spin_micros, ..Transport::default() }
    }
}

/// Prints a command's result for programs.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    console::print(serde_json::to_string_pretty(value)? + "\n")
}

/// What a sweep measured and where it is, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured<'a> {
    /// `results.json` of each build.
    pub(super) results: &'a [Results],
    /// Where they are.
    pub(super) written: Vec<PathBuf>,
    /// The second against the first, if there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comparison: Option<&'a Comparison>,
}

/// A flag that Ctrl-C sets, as do `SIGTERM` and the end of the terminal.
pub(super) fn interruptible() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    signals::on_first(move |signal| {
        exit::stopped_by(signal);
        flag.store(true, Ordering::Relaxed);
    })
    .context("cannot listen to signals")?;
    Ok(interrupted)
}

/// After an interruption: that nothing of what was measured is lost.
pub(super) fn say_how_to_go_on(interrupted: &AtomicBool) {
    if interrupted.load(Ordering::Relaxed) && !console::is_quiet() {
        // Nobody has to read it.
        let _ = writeln!(io::stderr().lock(), "the same command goes on from here");
    }
}

/// A number of a range.
pub(super) fn within<T: TryFrom<u64> + Clone + Send + Sync>(
    range: RangeInclusive<u64>,
) -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(range)
}
