//! The arguments of `bench sweep`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use party::config::OfflineMode;

use super::common::{Measured, interruptible, print_json, say_how_to_go_on, within};
use super::compare;
use super::pods::Pods;
use super::report::say_where;
use super::selection::{Selection, replace};
use crate::accuracy;
use crate::cell::Place;
use crate::compare::{Comparison, THRESHOLD};
use crate::console;
#[cfg(feature = "cluster")]
use crate::launch::cluster::Cluster;
use crate::launch::here::{Files, Here};
use crate::launch::{ClusterOptions, Launcher};
use crate::layout::{Align, Table};
use crate::report;
use crate::results::Results;
use crate::settings::{BATCH_SIZES, Link, Settings, TRIALS, Truncate, WARMUP_SECONDS};
use crate::sweep::{self, Finished};

/// What `bench sweep --help` says besides its options.
pub(super) const HELP: &str = "\
A sweep file is YAML. All of it may be left out; what is given on the command
line replaces what the file says:

  name: batches              # what people call the sweep
  on: local                  # or cluster: through the operator
  networks: [A, B, C]        # [] for none
  activations: [polynomial]  # or relu, exact
  poolings: [average]        # or max, of B and C with relu
  reveals: [logits]          # to the client, or label: the class alone
  batchSizes: [1, 10, 100]
  formats: [Int64, Int100, Int32] # each network and graph in those that have what it
                             # needs: polynomials all but Int32, relu all but Int100,
                             # labels all but Int100
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
  storeMegabytes: 1024       # of each server's preprocessing store
  storeDiskMegabytes: 0
  spinMicros: 50             # before a party that waits sleeps
  parties: {}                # of a cluster's pods, what spec.parties of a
                             # SecureInference may have, such as
                             # {imagePullSecrets: [{name: registry}]}

A cell whose trials differ by more than 15 % (their medians, largest to smallest
over the middle one) gets up to two more and is marked suspicious. A trial that
fails leaves its reason in its cell, and the sweep goes on; exit code 1 then. With
--against 1 means that the second build is slower, and 2 that something failed.
";

/// Folder for what another build measured, in that of the first.
const AGAINST: &str = "against";

/// Arguments of `bench sweep`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to measure, YAML; see below
    file: Option<PathBuf>,
    /// Where the parties run [default: local]
    #[arg(long, value_name = "WHERE")]
    on: Option<Place>,
    /// What people call the sweep [default: sweep]
    #[arg(long)]
    name: Option<String>,
    /// Images of one inference [default: 1]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = within::<usize>(BATCH_SIZES))]
    batch_sizes: Option<Vec<usize>>,
    /// How products are truncated to the format's precision [default: usual]
    #[arg(long, value_name = "HOW", value_delimiter = ',', ignore_case = true)]
    truncations: Option<Vec<Truncate>>,
    /// When the producer generates correlated randomness [default: inline]
    #[arg(long, value_name = "WHEN", value_delimiter = ',')]
    offline: Option<Vec<OfflineMode>>,
    /// Networks to imitate between the parties [default: loopback]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    conditions: Option<Vec<Link>>,
    /// Trials of each cell [default: 3]
    #[arg(long, value_name = "N", value_parser = within::<u32>(TRIALS))]
    trials: Option<u32>,
    /// For how long a network's inferences are made before any that count [default: 0, in a
    /// cluster 3]
    #[arg(long, value_name = "SECONDS", value_parser = within::<u64>(WARMUP_SECONDS))]
    warmup_seconds: Option<u64>,
    /// Of the order of the trials [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    selection: Selection,
    /// Print results, their places and the comparison as JSON
    #[arg(long)]
    json: bool,
    /// Write the report too, beside results.json (see bench report)
    #[arg(long)]
    report: bool,
    /// The party program of another build, whose trials alternate with the first's:
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
    #[command(flatten)]
    pods: Pods,
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

impl Arguments {
    /// Whether two builds are compared.
    pub(super) fn compares(&self) -> bool {
        self.against.is_some()
    }

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
                let first = self.selection.files()?;
                let second = self.against.map(|party| Files { party, ..first.clone() });
                let builds = [Some(first), second].into_iter().flatten();
                let here = |files| Ok(Box::new(Here::new(files, &settings)?) as Box<dyn Launcher>);
                builds.map(here).collect::<anyhow::Result<_>>()?
            }
            Place::Cluster => {
                if self.against.is_some() {
                    bail!("--against compares builds on this machine; in a cluster run two sweeps");
                }
                let ClusterArguments { namespace, keep, deadline, .. } = self.cluster;
                let options = ClusterOptions { namespace, deadline_seconds: deadline, keep };
                vec![connect(options, &settings)?]
            }
        };
        Results::check_place(&self.selection.out)?;
        let options = sweep::Options {
            journal: Some(self.selection.out.clone()),
            parallel,
            stop_at_failure: false,
            in_order: false,
            bench: std::env::current_exe()?,
            table: None,
        };
        let interrupted = interruptible()?;
        let launchers: Vec<&dyn Launcher> = launchers.iter().map(AsRef::as_ref).collect();
        let finished = sweep::run(&settings, &options, &launchers, &interrupted);
        say_how_to_go_on(&interrupted);
        let Finished { results, lock: _lock, .. } = finished?;
        let folders = [self.selection.out.clone(), self.selection.out.join(AGAINST)];
        let mut paths = Vec::new();
        for (results, folder) in results.iter().zip(&folders) {
            let written = results.write(folder)?;
            if !self.json {
                let table = render(results, console::width());
                console::print(format_args!("{table}\n{written}\n"))?;
            }
            paths.push(written.path);
        }
        if self.report {
            let written = report::of(&paths, &self.selection.out)?;
            if !self.json {
                say_where(&written)?;
            }
        }
        let comparison = match &results[..] {
            [before, after] => Some(Comparison::of(before, after, THRESHOLD)),
            _ => None,
        };
        if self.json {
            let comparison = comparison.as_ref().and_then(|comparison| comparison.as_ref().ok());
            print_json(&Measured { results: &results, written: paths, comparison })?;
        }
        if !sweep::forget(&results, &self.selection.out)? {
            bail!("trials failed, their cells say why; the same command tries them again");
        }
        let Some(comparison) = comparison.transpose()? else { return Ok(ExitCode::SUCCESS) };
        if !self.json {
            compare::print(&comparison)?;
        }
        compare::judge(&comparison)
    }

    /// What the file says, with what was given on the command line in its place.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.file {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        self.selection.apply(&mut settings);
        replace(&mut settings.name, self.name.clone());
        replace(&mut settings.on, self.on);
        replace(&mut settings.batch_sizes, self.batch_sizes.clone());
        replace(&mut settings.truncations, self.truncations.clone());
        replace(&mut settings.offline, self.offline.clone());
        replace(&mut settings.conditions, self.conditions.clone());
        replace(&mut settings.trials, self.trials);
        settings.warmup_seconds = self.warmup_seconds.or(settings.warmup_seconds);
        replace(&mut settings.seed, self.seed);
        if settings.on == Place::Cluster {
            self.cluster.pods.apply(&mut settings.parties);
        }
        Ok(settings)
    }
}

/// The cells in a table, for a terminal of so many columns.
fn render(results: &Results, width: Option<usize>) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("sweep", Left),
        ("trials", Right),
        ("combined ms", Right),
        ("sd", Right),
        ("p95", Right),
        ("online", Right),
        ("accuracy", Left),
    ]);
    for cell in &results.runs {
        let mut fields = vec![cell.key.to_string(), cell.trials.len().to_string()];
        if let Some(run) = &cell.merged {
            let ms = |value: f64| format!("{value:.2}");
            fields.extend([
                ms(run.combined.mean_ms),
                run.combined.deviation_ms(run.repetitions).map_or("-".into(), ms),
                ms(run.combined.p95_ms),
                ms(run.online.mean_ms),
                run.accuracy.as_ref().map_or(String::new(), accuracy::in_words),
            ]);
        }
        let mut notes = cell.remarks();
        notes.extend(cell.failure.as_ref().map(|why| format!("a trial failed: {why}")));
        table.row(fields, notes);
    }
    table.render(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::{key, trial};
    use crate::environment::Environment;
    use crate::results::{Cell, SCHEMA_VERSION, Sweep};

    #[test]
    fn cells_that_are_suspicious_or_failed_say_so_at_any_width() {
        let trials = [1.0, 2.0].map(|ms| trial(&[ms])).into();
        let mut cell = Cell::of(key(), trials);
        cell.suspicious = true;
        cell.failure = Some("no memory".into());
        let settings = Settings::default();
        let results = Results {
            schema_version: SCHEMA_VERSION,
            sweep: Sweep { id: "x".into(), name: "x".into(), settings },
            environment: Environment::read(),
            speeds: None,
            runs: vec![cell],
        };
        for width in [None, Some(60), Some(40)] {
            let text = render(&results, width);
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for expected in ["A Int64 Local, batch 1", "1.00, 2.00 ms", "a trial failed: no memory"]
            {
                assert!(words.contains(expected), "{expected}: {text}");
            }
            let longest = text.lines().map(str::len).max();
            assert!(width.is_none_or(|width| longest <= Some(width)), "{text}");
        }
    }
}
