//! The arguments of `bench sweep`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::bail;
use clap::{Args, ValueEnum};
use party::config::OfflineMode;
use spdz::plan::NumberFormat;

use super::{Folders, Offline, Program, compare, format_parser, interruptible};
use crate::compare::THRESHOLD;
#[cfg(feature = "cluster")]
use crate::launch::cluster::Cluster;
use crate::launch::here::{Files, Here};
use crate::launch::{ClusterOptions, Launcher};
use crate::report;
use crate::results::{Place, Results};
use crate::sweep::settings::{Link, Truncate};
use crate::sweep::{self, Settings};

/// What `bench sweep --help` says besides its options.
pub(super) const HELP: &str = "\
A sweep file is YAML. All of it may be left out; what is given on the command
line replaces what the file says:

  name: batches              # what people call the sweep
  on: local                  # or cluster: through the operator
  networks: [A, B, C]        # [] for none
  batchSizes: [1, 10, 100]
  formats: [Int64, Int100]
  truncations: [usual]       # or Local, Interactive
  offline: [inline]          # or ahead
  conditions: [loopback]     # or lan (0.5 ms, 10 Gbit/s), wan (40 ms, 100 Mbit/s),
                             # {rttMs: 10, jitterMs: 1, bandwidthMbps: 1000}
  graphs:                    # graphs of one's own, on this machine; see bench run
  - file: score.yaml         # beside the sweep file
    players: {alice: alice.safetensors, bob: bob.safetensors}
  trials: 3                  # launches of each cell
  repetitions: 100           # timed inferences of a trial
  warmup: 5                  # inferences before them
  warmupSeconds: 0           # and for so long before those; 3 in a cluster, whose
                             # nodes are busy after they have started pods
  accuracySamples: 0         # test images scored in a cell's first trial, to 10000
  seed: 1                    # of the trials' order
  threads: 1                 # of each that multiplies; without it they share
                             # the cores
  storeMegabytes: 1024       # at each server, for randomness made ahead
  storeDiskMegabytes: 0
  spinMicros: 50             # before a party that waits sleeps

A cell whose trials differ by more than 15 % (their medians, largest to smallest
over the middle one) gets up to two more and is marked suspicious. A trial that
fails leaves its reason in its cell, and the sweep goes on; exit code 1 then.
";

/// Folder for what another build measured, in that of the first.
const AGAINST: &str = "against";

/// Where parties run, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum On {
    /// As processes on this machine
    Local,
    /// As pods, through the operator of the cluster that KUBECONFIG names
    Cluster,
}

/// A truncation on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TruncateBy {
    /// Local for Int64 and Interactive for Int100
    #[value(name = "usual")]
    Usual,
    /// Without interaction; wrong with a small probability
    #[value(name = "Local")]
    Local,
    /// In one round; never wrong within the format's range
    #[value(name = "Interactive")]
    Interactive,
}

/// A network to imitate, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Imitate {
    /// None
    Loopback,
    /// 0.5 ms there and back, 10 Gbit/s
    Lan,
    /// 40 ms there and back, 100 Mbit/s
    Wan,
}

impl From<Imitate> for Link {
    fn from(imitate: Imitate) -> Self {
        match imitate {
            Imitate::Loopback => Self::Loopback,
            Imitate::Lan => Self::Lan,
            Imitate::Wan => Self::Wan,
        }
    }
}

/// Arguments of `bench sweep`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure, YAML; see below
    file: Option<PathBuf>,
    /// Where the parties run [default: local]
    #[arg(long, value_name = "WHERE")]
    on: Option<On>,
    /// What people call the sweep [default: sweep]
    #[arg(long)]
    name: Option<String>,
    /// Networks to measure [default: A,B,C]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    networks: Option<Vec<String>>,
    /// Images of one inference [default: 1]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    batch_sizes: Option<Vec<usize>>,
    /// Number formats to measure [default: Int64,Int100]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format_parser())]
    formats: Option<Vec<NumberFormat>>,
    /// How products are brought back to the format's precision [default: usual]
    #[arg(long, value_name = "HOW", value_delimiter = ',', ignore_case = true)]
    truncations: Option<Vec<TruncateBy>>,
    /// When the producer makes randomness [default: inline]
    #[arg(long, value_name = "WHEN", value_delimiter = ',')]
    offline: Option<Vec<Offline>>,
    /// Networks to imitate between the parties [default: loopback]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    conditions: Option<Vec<Imitate>>,
    /// Trials of each cell [default: 3]
    #[arg(long, value_name = "N")]
    trials: Option<u32>,
    /// Timed inferences of each trial [default: 100]
    #[arg(long, value_name = "N")]
    repetitions: Option<u64>,
    /// Inferences before them [default: 5]
    #[arg(long, value_name = "N")]
    warmup: Option<u64>,
    /// For how long a network's inferences are made before those [default: 0, in a
    /// cluster 3]
    #[arg(long, value_name = "SECONDS")]
    warmup_seconds: Option<u64>,
    /// Images of the test set scored in each cell's first trial [default: 0]
    #[arg(long, value_name = "N")]
    accuracy_samples: Option<usize>,
    /// Of the order of the trials [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads that each server and the producer divide large products among; without
    /// it they share the cores
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Folder for results.json and, until it is there, for the journal
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// Write the report too, beside results.json (see bench report)
    #[arg(long)]
    report: bool,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    program: Program,
    /// The party program of another build, whose trials take turns with those of the first:
    /// what it measures goes to DIR/against, and is compared as by bench compare
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// What is asked of a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "In a cluster")]
struct ClusterArguments {
    /// Namespace of the resources; without it that of the kubeconfig
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Trials at the same time; they disturb each other where they share nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Leave the resources behind
    #[arg(long)]
    keep: bool,
    /// Image of the parties; without it the operator's own
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How long one trial may take, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..=604_800))]
    deadline: u32,
}

/// Connects to the cluster that the environment names.
#[cfg(feature = "cluster")]
fn connect(options: ClusterOptions, settings: &Settings) -> anyhow::Result<Box<dyn Launcher>> {
    Ok(Box::new(Cluster::connect(options, settings)?))
}

/// Says which build could do it.
#[cfg(not(feature = "cluster"))]
fn connect(_: ClusterOptions, _: &Settings) -> anyhow::Result<Box<dyn Launcher>> {
    bail!(
        "this build cannot measure on a cluster; build it with the feature for that: \
         cargo run --release -p bench --features cluster -- sweep --on cluster"
    )
}

/// Puts what was given into its place.
fn replace<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

fn all<A, B: From<A>>(given: Option<Vec<A>>) -> Option<Vec<B>> {
    given.map(|given| given.into_iter().map(B::from).collect())
}

impl From<TruncateBy> for Truncate {
    fn from(truncation: TruncateBy) -> Self {
        match truncation {
            TruncateBy::Usual => Self::Usual,
            TruncateBy::Local => Self::Local,
            TruncateBy::Interactive => Self::Interactive,
        }
    }
}

impl From<On> for Place {
    fn from(on: On) -> Self {
        match on {
            On::Local => Self::Local,
            On::Cluster => Self::Cluster,
        }
    }
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let settings = self.settings()?;
        // What is wrong with the settings is said before anything is looked for.
        settings.cells()?;
        let parallel = match settings.on {
            Place::Cluster => self.cluster.parallel.into(),
            Place::Local => 1,
        };
        let launchers: Vec<Box<dyn Launcher>> = match settings.on {
            Place::Local => {
                let first = self.folders.with(self.program.path()?);
                let second = self.against.map(|party| Files { party, ..first.clone() });
                let builds = [Some(first), second].into_iter().flatten();
                let here = |files| Ok(Box::new(Here::new(files, &settings)?) as Box<dyn Launcher>);
                builds.map(here).collect::<anyhow::Result<_>>()?
            }
            Place::Cluster => {
                if self.against.is_some() {
                    bail!("--against takes turns on this machine; in a cluster run two sweeps");
                }
                let ClusterArguments { namespace, keep, image, deadline, .. } = self.cluster;
                let options = ClusterOptions { namespace, image, deadline_seconds: deadline, keep };
                vec![connect(options, &settings)?]
            }
        };
        let options = sweep::Options {
            journal: Some(self.out.clone()),
            parallel,
            stop_at_failure: false,
            in_order: false,
            bench: std::env::current_exe()?,
            table: None,
        };
        let interrupted = interruptible()?;
        let launchers: Vec<&dyn Launcher> = launchers.iter().map(AsRef::as_ref).collect();
        let finished = sweep::run(&settings, &options, &launchers, &interrupted);
        if interrupted.load(Ordering::Relaxed) {
            // Nobody has to read it.
            let _ = writeln!(io::stderr().lock(), "the same command goes on from here");
        }
        let results = finished?.results;
        let folders = [self.out.clone(), self.out.join(AGAINST)];
        let mut paths = Vec::new();
        for (results, folder) in results.iter().zip(&folders) {
            let path = results.write(folder)?;
            writeln!(io::stdout().lock(), "{}\nWritten to {}", render(results), path.display())?;
            paths.push(path);
        }
        if self.report {
            report::of(&paths, &self.out)?;
        }
        if !sweep::forget(&results, &self.out)? {
            bail!("trials failed, their cells say why; the same command tries them again");
        }
        match &results[..] {
            [before, after] => compare::tell(before, after, THRESHOLD),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    /// What the file says, with what was given on the command line in its place.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.file {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        replace(&mut settings.name, self.name.clone());
        replace(&mut settings.on, self.on.map(Place::from));
        replace(&mut settings.networks, self.networks.clone());
        replace(&mut settings.batch_sizes, self.batch_sizes.clone());
        replace(&mut settings.formats, self.formats.clone());
        replace(&mut settings.truncations, all(self.truncations.clone()));
        replace(&mut settings.offline, all::<_, OfflineMode>(self.offline.clone()));
        replace(&mut settings.conditions, all(self.conditions.clone()));
        replace(&mut settings.trials, self.trials);
        replace(&mut settings.repetitions, self.repetitions);
        replace(&mut settings.warmup, self.warmup);
        settings.warmup_seconds = self.warmup_seconds.or(settings.warmup_seconds);
        replace(&mut settings.accuracy_samples, self.accuracy_samples);
        replace(&mut settings.seed, self.seed);
        settings.threads = self.threads.or(settings.threads);
        Ok(settings)
    }
}

/// The cells in a table.
fn render(results: &Results) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<44}{:>8}{:>12}{:>10}{:>10}{:>10}  accuracy",
        "sweep", "trials", "combined ms", "sd", "p95", "online"
    );
    for cell in &results.runs {
        let key = cell.key.to_string();
        let trials = cell.trials.len();
        let _ = match &cell.merged {
            Some(run) => {
                let accuracy = run
                    .accuracy
                    .map_or(String::new(), |accuracy| format!("{:.2} %", accuracy.secure * 100.0));
                let mark = if cell.suspicious { "  suspicious" } else { "" };
                let lost = match run.out_of_range {
                    0 => String::new(),
                    count => format!("  {count} evaluations out of range"),
                };
                writeln!(
                    text,
                    "{key:<44}{trials:>8}{:>12.2}{:>10.2}{:>10.2}{:>10.2}  {accuracy}{mark}{lost}",
                    run.combined.mean_ms,
                    run.combined.stddev_ms,
                    run.combined.p95_ms,
                    run.online.mean_ms,
                )
            }
            None => writeln!(text, "{key:<44}{trials:>8}"),
        };
        if let Some(failure) = &cell.failure {
            let _ = writeln!(text, "  a trial failed: {}", failure.replace('\n', "\n  "));
        }
    }
    text
}
