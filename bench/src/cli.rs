//! The command line of `bench`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use party::config::{OfflineMode, Store, Transport};
use spdz::channel::Name;
use spdz::plan::{NumberFormat, Truncation};

use crate::launch::here::{Files, Here};
use crate::launch::local;
use crate::sweep::{Settings, settings};
use crate::{data, floor, inspect, reference, report, run, sweep, table1};

mod compare;
#[path = "cli/sweep.rs"]
mod sweep_arguments;

/// Data, trained models and measurements of the secure-inference toolkit.
#[derive(Debug, Parser)]
#[command(name = "bench", version = party::VERSION)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `bench` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch MNIST and check it
    Data(DataArguments),
    /// Train the networks on MNIST, with the polynomial activation
    ///
    /// Writes NAME.safetensors, the weights, and NAME.json, the model card, for
    /// each network. The same command gives the same files on the same machine.
    ///
    /// With glibc, MALLOC_MMAP_THRESHOLD_=4294967296 and
    /// MALLOC_TRIM_THRESHOLD_=8589934592 in the environment halve the time: they
    /// keep the memory of one step for the next.
    Train(TrainArguments),
    /// Measure the paper's Table 1 on this machine
    ///
    /// Starts the five parties of a private inference as five processes on
    /// loopback, runs timed inferences and then the test set, prints the paper's
    /// Table 1 beside what it measured, each row as soon as it is known, and writes
    /// DIR/results.json. Measures first how fast the machine is, to set the runtimes
    /// against their floor (see floor).
    Table1(Table1Arguments),
    /// Measure networks, batch sizes and number formats, by turns and again and again
    ///
    /// Each cell, a network at a batch size in a number format, has several trials, each of
    /// which launches the parties anew; they take turns, so that a slow minute does not land
    /// on one cell. Writes DIR/results.json. Interrupted, the same command goes on where it
    /// was.
    #[command(after_long_help = sweep_arguments::HELP)]
    Sweep(Box<sweep_arguments::Arguments>),
    /// Tell whether one build is slower than another
    ///
    /// Exits with 0 if nothing is slower beyond the threshold, with 1 if something is, and
    /// with 2 if the results cannot be compared.
    #[command(after_long_help = compare::HELP)]
    Compare(compare::Arguments),
    /// Measure how fast an inference could be on this machine
    ///
    /// Times matrix products on one core, and messages between two processes on
    /// loopback, and prints what those of one inference alone would take. Takes a
    /// few seconds and writes nothing.
    #[command(after_long_help = floor::HELP)]
    Floor(FloorArguments),
    /// Run a graph of your own between any number of players on this machine
    ///
    /// Starts two servers, the producer and a process for each of the graph's
    /// players on loopback, over the same mutual TLS as between machines. Each
    /// player reads the tensors that the graph has it bring from a safetensors
    /// file, and writes what it learns, and that alone, to another.
    #[command(after_long_help = run::HELP)]
    Run(RunArguments),
    /// Evaluate the test set in the clear, for clients to score their outputs against
    ///
    /// Writes NAME.safetensors for each network, with logits of F32, [10000, 10]: the
    /// accuracy.reference of a client's configuration. table1 makes its own.
    Reference(ReferenceArguments),
    /// Compare what each layer of a network puts out with the same in the clear
    ///
    /// Whether values stay in the number format's range, and how far from the clear they
    /// get, layer by layer. Not private.
    #[command(after_long_help = inspect::HELP)]
    Inspect(InspectArguments),
    /// Turn results into a report: a page, Markdown, CSV and JSON
    ///
    /// Sets the paper's Table 1 beside what was measured, latency and throughput against
    /// batch size, offline against online, each layer, one number format against the
    /// other, and these results against earlier ones. Marks what failed and what is
    /// suspicious, and says what it was measured on.
    Report(report::Arguments),
    /// One end of the connection that floor measures
    #[command(name = floor::transport::COMMAND, hide = true)]
    Link(LinkArguments),
}

/// A number format on the command line.
fn format_parser() -> impl TypedValueParser<Value = NumberFormat> {
    let value = |format: NumberFormat| PossibleValue::new(format.name()).help(format.summary());
    PossibleValuesParser::new(NumberFormat::ALL.map(value)).try_map(|name| name.parse())
}

/// A truncation on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Truncate {
    /// Without interaction; wrong with a small probability
    #[value(name = "Local")]
    Local,
    /// In one round; never wrong within the format's range
    #[value(name = "Interactive")]
    Interactive,
}

impl From<Truncate> for settings::Truncate {
    fn from(truncation: Truncate) -> Self {
        match truncation {
            Truncate::Local => Self::Local,
            Truncate::Interactive => Self::Interactive,
        }
    }
}

impl From<Truncate> for Truncation {
    fn from(truncation: Truncate) -> Self {
        match truncation {
            Truncate::Local => Self::Local,
            Truncate::Interactive => Self::Interactive,
        }
    }
}

/// When randomness is made, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Offline {
    /// Before each evaluation, and as part of its runtime
    Inline,
    /// For all timed evaluations before the first of them
    Ahead,
}

impl From<Offline> for OfflineMode {
    fn from(offline: Offline) -> Self {
        match offline {
            Offline::Inline => Self::Inline,
            Offline::Ahead => Self::Ahead,
        }
    }
}

/// Where the networks and what they are measured on are.
#[derive(Debug, Args)]
struct Folders {
    /// Folder with the test set
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT_FOLDER)]
    data: PathBuf,
    /// Folder with the trained weights
    #[arg(long, value_name = "DIR", default_value = "bench/models")]
    models: PathBuf,
}

impl Folders {
    fn with(self, party: PathBuf) -> Files {
        Files { data: self.data, models: self.models, party }
    }
}

/// What the parties run.
#[derive(Debug, Args)]
struct Program {
    /// The party program; without it the one beside this program
    #[arg(long, value_name = "FILE")]
    party: Option<PathBuf>,
}

impl Program {
    fn path(&self) -> Result<PathBuf, local::LaunchError> {
        self.party.clone().map_or_else(local::party_program, Ok)
    }
}

/// How parties compute, whatever it is.
#[derive(Debug, Args)]
struct Manner {
    /// How products are brought back to the format's precision; without it Local
    /// for Int64 and Interactive for Int100
    #[arg(long, value_name = "HOW", ignore_case = true)]
    truncation: Option<Truncate>,
    /// When the producer makes randomness
    #[arg(long, value_name = "WHEN", default_value = "inline")]
    offline: Offline,
    /// Memory of each server for randomness made ahead, units of 2^20 bytes
    #[arg(long, value_name = "N", default_value_t = Store::default().memory_megabytes, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    store_megabytes: u64,
    /// Disk of each server, in the temporary folder, for what does not fit there,
    /// encrypted, units of 2^20 bytes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    store_disk_megabytes: u64,
    /// Threads that each server and the producer divide large products among; without
    /// it they share the cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    #[command(flatten)]
    program: Program,
    /// How long a party looks for a message before it sleeps, microseconds
    #[arg(long, value_name = "MICROS", default_value_t = Transport::default().spin_micros)]
    spin_micros: u64,
}

impl Manner {
    fn truncation(&self) -> Option<Truncation> {
        self.truncation.map(Truncation::from)
    }

    fn offline(&self) -> OfflineMode {
        self.offline.into()
    }

    fn store(&self) -> Store {
        let disk_megabytes = self.store_disk_megabytes;
        Store { disk_megabytes, ..Store::in_memory(self.store_megabytes) }
    }

    fn transport(&self) -> Transport {
        Transport { spin_micros: self.spin_micros, ..Transport::default() }
    }
}

/// A flag that Ctrl-C sets.
fn interruptible() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    Ok(interrupted)
}

/// Arguments of `bench table1`.
#[derive(Debug, Args)]
pub struct Table1Arguments {
    /// Networks to measure
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = ["A", "B", "C"])]
    networks: Vec<String>,
    /// Number formats to measure
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format_parser(), default_values_t = NumberFormat::ALL)]
    formats: Vec<NumberFormat>,
    /// Images of one inference
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_size: u16,
    /// Timed inferences
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    repetitions: u64,
    /// Inferences before the timed ones
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    warmup: u64,
    /// Images of the test set scored afterwards; 0 for none
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    accuracy_samples: u16,
    /// Folder for results.json
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    manner: Manner,
}

impl Table1Arguments {
    fn run(self) -> anyhow::Result<()> {
        let store = self.manner.store();
        // A sweep of one trial of each cell.
        let settings = Settings {
            name: "table1".into(),
            networks: self.networks,
            batch_sizes: vec![self.batch_size.into()],
            formats: self.formats,
            truncations: vec![match self.manner.truncation {
                None => settings::Truncate::Usual,
                Some(truncation) => truncation.into(),
            }],
            offline: vec![self.manner.offline()],
            trials: 1,
            repetitions: self.repetitions,
            warmup: self.warmup,
            accuracy_samples: self.accuracy_samples.into(),
            threads: self.manner.threads.map(usize::from),
            store_megabytes: store.memory_megabytes,
            store_disk_megabytes: store.disk_megabytes,
            spin_micros: self.manner.spin_micros,
            ..Settings::default()
        };
        let options = sweep::Options {
            journal: None,
            parallel: 1,
            stop_at_failure: true,
            in_order: true,
            bench: std::env::current_exe()?,
            table: Some(table1::AS_IT_COMES),
        };
        let here = Here::new(self.folders.with(self.manner.program.path()?), &settings)?;
        let finished = sweep::run(&settings, &options, &[&here], interruptible()?.as_ref())?;
        let results = &finished.results[0];
        let path = results.write(&self.out)?;
        let foot = table1::foot(results);
        writeln!(io::stdout().lock(), "{foot}\nWritten to {}", path.display())?;
        Ok(())
    }
}

/// Arguments of `bench floor`.
#[derive(Debug, Args)]
pub struct FloorArguments {
    /// Networks, each a row
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = ["A", "B", "C"])]
    networks: Vec<String>,
    /// Number formats, each with its usual truncation
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format_parser(), default_values_t = NumberFormat::ALL)]
    formats: Vec<NumberFormat>,
    /// Images of one inference
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,100")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_size: Vec<u16>,
    /// How long a process looks for a message before it sleeps, microseconds
    #[arg(long, value_name = "MICROS", default_value_t = Transport::default().spin_micros)]
    spin_micros: u64,
}

impl FloorArguments {
    fn run(self) -> anyhow::Result<()> {
        let batch_sizes: Vec<_> = self.batch_size.into_iter().map(usize::from).collect();
        let report = floor::run(
            &self.networks,
            &self.formats,
            &batch_sizes,
            Transport { spin_micros: self.spin_micros, ..Transport::default() },
            &std::env::current_exe()?,
            interruptible()?.as_ref(),
        )?;
        write!(io::stdout().lock(), "{report}")?;
        Ok(())
    }
}

/// Arguments of `bench reference`.
#[derive(Debug, Args)]
pub struct ReferenceArguments {
    /// Networks to evaluate
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = ["A", "B", "C"])]
    networks: Vec<String>,
    #[command(flatten)]
    folders: Folders,
    /// Folder to put the files into, made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl ReferenceArguments {
    fn run(self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        for network in &self.networks {
            let path = reference::file_in(&self.out, network);
            reference::write(network, &self.folders.data, &self.folders.models, usize::MAX, &path)?;
            writeln!(io::stdout().lock(), "{}", path.display())?;
        }
        Ok(())
    }
}

/// Arguments of `bench inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Networks to inspect
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = ["A", "B", "C"])]
    networks: Vec<String>,
    /// Number formats
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format_parser(), default_values_t = NumberFormat::ALL)]
    formats: Vec<NumberFormat>,
    /// How products are brought back to the format's precision; without it Local
    /// for Int64 and Interactive for Int100
    #[arg(long, value_name = "HOW", ignore_case = true)]
    truncation: Option<Truncate>,
    /// Images of one inference
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch_size: u16,
    /// Images to inspect, from the first of the test set
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    samples: u16,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    program: Program,
}

impl InspectArguments {
    fn run(self) -> anyhow::Result<()> {
        let inspect = inspect::Inspect {
            networks: self.networks,
            formats: self.formats,
            truncation: self.truncation.map(Truncation::from),
            batch_size: self.batch_size.into(),
            samples: self.samples.into(),
            files: self.folders.with(self.program.path()?),
        };
        let report = inspect.run(interruptible()?.as_ref())?;
        write!(io::stdout().lock(), "{report}")?;
        Ok(())
    }
}

/// Arguments of the hidden command that is one end of a connection.
#[derive(Debug, Args)]
pub struct LinkArguments {
    /// The configuration of a server, YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where server 1 writes what it measured, JSON
    #[arg(long, value_name = "FILE")]
    result: PathBuf,
}

/// Arguments of `bench run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The graph, JSON or YAML by its ending
    graph: PathBuf,
    /// What a player brings, a safetensors file: the graph's names, F32 or F64
    #[arg(long = "player", value_name = "NAME=FILE", value_parser = named_file)]
    players: Vec<(Name, PathBuf)>,
    /// Where to write what a player learns, a safetensors file
    #[arg(long = "output", value_name = "NAME=FILE", value_parser = named_file)]
    outputs: Vec<(Name, PathBuf)>,
    /// The number format
    #[arg(long, ignore_case = true, value_parser = format_parser())]
    #[arg(default_value_t = NumberFormat::default())]
    format: NumberFormat,
    /// How often to evaluate the graph
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    evaluations: u64,
    #[command(flatten)]
    manner: Manner,
}

/// `NAME=FILE`.
fn named_file(text: &str) -> Result<(Name, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !file.is_empty() => {
            let name = name.parse().map_err(|error| format!("{error}"))?;
            Ok((name, file.into()))
        }
        _ => {
            Err("expected a player's name, an equals sign and a file, as in alice=a.safetensors"
                .into())
        }
    }
}

/// Files by player, each given once.
fn by_player(option: &str, files: Vec<(Name, PathBuf)>) -> anyhow::Result<BTreeMap<Name, PathBuf>> {
    let mut map = BTreeMap::new();
    for (name, file) in files {
        if map.insert(name, file).is_some() {
            anyhow::bail!(
                "{option} {name}=... is given twice; put all tensors of a player into one file"
            );
        }
    }
    Ok(map)
}

impl RunArguments {
    fn run(self) -> anyhow::Result<()> {
        let run = run::Run {
            graph: self.graph,
            inputs: by_player("--player", self.players)?,
            outputs: by_player("--output", self.outputs)?,
            format: self.format,
            truncation: self.manner.truncation(),
            evaluations: self.evaluations,
            offline: self.manner.offline(),
            store: self.manner.store(),
            threads: self.manner.threads.map(usize::from),
            party: self.manner.program.path()?,
            transport: self.manner.transport(),
        };
        let report = run.run(interruptible()?.as_ref())?;
        write!(io::stdout().lock(), "{report}")?;
        Ok(())
    }
}

/// Arguments of `bench data`.
#[derive(Debug, Args)]
pub struct DataArguments {
    /// Folder to put the files into
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT_FOLDER)]
    dir: PathBuf,
    /// Folder that has the files, gzipped or not; without it they are downloaded
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
}

/// Arguments of `bench train`.
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// Networks to train
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "A,B,C")]
    #[arg(value_parser = ["A", "B", "C"])]
    pub networks: Vec<String>,
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

/// Something is wrong, or slower than it was.
const FAILURE: u8 = 1;

/// Results cannot be compared.
const INCOMPARABLE: u8 = 2;

/// As shells report a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// An error and its causes on one line; most of ours quote their cause already.
fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl Cli {
    /// Does what the command line asks for, and says on standard error why if it cannot.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let error = match self.run() {
            Ok(code) => return code,
            Err(error) => error,
        };
        let interrupted = error
            .chain()
            .any(|cause| matches!(cause.downcast_ref(), Some(local::LaunchError::Interrupted)));
        let (code, message) = if interrupted {
            (ExitCode::from(INTERRUPTED), String::from("interrupted"))
        } else {
            let code = if error.is::<compare::Incomparable>() { INCOMPARABLE } else { FAILURE };
            (ExitCode::from(code), format!("error: {}", explain(&error)))
        };
        // Without a place to complain to, the exit code has to do.
        let _ = writeln!(io::stderr().lock(), "{message}");
        code
    }

    /// Does what the command line asks for.
    ///
    /// # Errors
    /// If it cannot be done; the error says why.
    fn run(self) -> anyhow::Result<ExitCode> {
        let done = match self.command {
            Command::Data(arguments) => {
                let mut stdout = io::stdout().lock();
                let mut told = Ok(());
                data::fetch(&arguments.dir, arguments.from.as_deref(), |line| {
                    if told.is_ok() {
                        told = writeln!(stdout, "{line}");
                    }
                })?;
                Ok(told?)
            }
            Command::Table1(arguments) => arguments.run(),
            Command::Sweep(arguments) => return arguments.run(),
            Command::Compare(arguments) => return arguments.run(),
            Command::Floor(arguments) => arguments.run(),
            Command::Run(arguments) => arguments.run(),
            Command::Reference(arguments) => arguments.run(),
            Command::Inspect(arguments) => arguments.run(),
            Command::Report(arguments) => arguments.run(),
            Command::Link(arguments) => floor::transport::run(&arguments.config, &arguments.result),
            #[cfg(feature = "train")]
            Command::Train(arguments) => crate::train::command::run(&arguments),
            #[cfg(not(feature = "train"))]
            Command::Train(_) => anyhow::bail!(
                "this build cannot train; build it with its training: \
                 cargo run --release -p bench --features train -- train"
            ),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(explain(&error), "cannot read x: no such file");
        let error = error.context("A failed");
        assert_eq!(explain(&error), "A failed: cannot read x: no such file");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_has_a_player() {
        let parse = |text: &str| named_file(text).map(|(name, file)| (name.to_string(), file));
        assert_eq!(parse("alice=a=b"), Ok(("alice".into(), "a=b".into())));
        for text in ["alice", "alice=", "=a", "Alice=a"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let twice = ["a", "b"].map(|file| named_file(&format!("alice={file}")).unwrap());
        let error = by_player("--player", twice.into()).unwrap_err().to_string();
        assert!(error.contains("--player alice=... is given twice"), "{error}");
    }

    #[test]
    fn unknown_networks_are_refused() {
        let error = Cli::try_parse_from(["bench", "train", "--networks", "A,D"]).unwrap_err();
        assert!(error.to_string().contains("[possible values: A, B, C]"), "{error}");
    }
}
