//! `bench table1`: the paper's Table 1 again, on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use party::config::{
    AccuracyWorkload, Computation, Deadlines, OfflineMode, PlayerTask, Stock, Transport, Workload,
};
use party::result::{Accuracy, RunResult};
use spdz::channel::Name;
use spdz::plan::{NumberFormat, Truncation};
use spdz::prg::SessionId;

use crate::environment::Environment;
use crate::floor::{Measurement, ProductSpeed, Speeds};
use crate::launch::local::{self, Job};
use crate::progress::Reporter;
use crate::reference::{self, file_in};
use crate::results::{Cell, Key, Place, Results, SCHEMA_VERSION, Sweep, Trial};
use crate::sweep::Settings;
use crate::sweep::settings::Truncate;
use crate::{data, paper};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Table1 {
    /// The networks, `A`, `B`, `C`.
    pub networks: Vec<String>,
    /// The number formats.
    pub formats: Vec<NumberFormat>,
    /// The truncation; the usual one of each format without it.
    pub truncation: Option<Truncation>,
    /// When randomness is made.
    pub offline: OfflineMode,
    /// How much of it may wait at the servers.
    pub stock: Stock,
    /// How many threads each server and the producer use; a share of the cores without it.
    pub threads: Option<usize>,
    /// Inputs of one inference.
    pub batch_size: usize,
    /// Timed inferences.
    pub repetitions: u64,
    /// Inferences before them.
    pub warmup: u64,
    /// Images scored; 0 for none.
    pub accuracy_samples: usize,
    /// Folder with the test set.
    pub data: PathBuf,
    /// Folder with the weights.
    pub models: PathBuf,
    /// The party program.
    pub party: PathBuf,
    /// This program, for the [floor](crate::floor).
    pub bench: PathBuf,
    /// How parties wait and send.
    pub transport: Transport,
}

impl Table1 {
    /// Runs everything, five processes at a time, and tells of it on standard error.
    ///
    /// # Errors
    /// If a file is missing or wrong, or a run fails.
    pub fn run(&self, interrupted: &AtomicBool) -> anyhow::Result<Results> {
        let mut reporter = Reporter::new();
        let computations = self
            .networks
            .iter()
            .flat_map(|name| self.formats.iter().map(|format| self.computation(name, *format)));
        let floor = Measurement {
            computations: computations.collect(),
            program: self.bench.clone(),
            transport: self.transport,
        };
        let floor = floor.run(Environment::read(), &mut reporter, interrupted)?;
        let mut floors = floor.entries.iter().map(|entry| match self.offline {
            OfflineMode::Inline => entry.floors.combined(),
            OfflineMode::Ahead => entry.floors.online,
        });
        let mut runs = Vec::new();
        for name in &self.networks {
            let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
            reporter.begin(name, "inferring in the clear");
            let reference_path = folder.path().join("reference.safetensors");
            if self.accuracy_samples > 0 {
                reference::write(
                    name,
                    &self.data,
                    &self.models,
                    self.accuracy_samples,
                    &reference_path,
                )?;
            }
            for &format in &self.formats {
                let label = format!("{name} {format}");
                let began = crate::environment::unix_seconds();
                reporter.begin(&label, "starting five parties");
                let run = self.measure(
                    name,
                    format,
                    &reference_path,
                    folder.path(),
                    |progress| {
                        reporter.update(progress);
                    },
                    interrupted,
                );
                let run = run.with_context(|| format!("{label} failed"))?;
                reporter.line(&summary(&run));
                // In the order of the computations.
                let floor_ms = floors.next().unwrap_or_default().total_ms();
                let key = Key {
                    network: run.network.clone(),
                    format: run.format,
                    truncation: run.truncation,
                    batch_size: run.batch_size,
                    offline_mode: run.offline_mode,
                    conditions: None,
                    place: Place::Local,
                };
                let trial = Trial {
                    round: 0,
                    started_unix_seconds: began,
                    floor_ms: None,
                    nodes: BTreeMap::new(),
                    result: run,
                };
                runs.push(Cell::of(key, Some(floor_ms), vec![trial]));
            }
        }
        reporter.finish();
        Ok(Results {
            schema_version: SCHEMA_VERSION,
            sweep: Sweep {
                id: SessionId::fresh()?.to_string(),
                name: "table1".into(),
                settings: self.settings(),
            },
            environment: floor.environment,
            speeds: Some(floor.speeds),
            runs,
        })
    }

    fn settings(&self) -> Settings {
        Settings {
            name: "table1".into(),
            networks: self.networks.clone(),
            batch_sizes: vec![self.batch_size],
            formats: self.formats.clone(),
            truncations: vec![match self.truncation {
                None => Truncate::Usual,
                Some(Truncation::Local) => Truncate::Local,
                Some(Truncation::Interactive) => Truncate::Interactive,
            }],
            offline: vec![self.offline],
            trials: 1,
            repetitions: self.repetitions,
            warmup: self.warmup,
            accuracy_samples: self.accuracy_samples,
            threads: self.threads,
            stock_megabytes: self.stock.memory_megabytes,
            stock_disk_megabytes: self.stock.disk_megabytes,
            spin_micros: self.transport.spin_micros,
            ..Settings::default()
        }
    }

    fn computation(&self, network: &str, format: NumberFormat) -> Computation {
        Computation {
            truncation: self.truncation,
            ..Computation::of_network(network, self.batch_size, format)
        }
    }

    fn measure(
        &self,
        network: &str,
        format: NumberFormat,
        reference: &Path,
        folder: &Path,
        on_progress: impl FnMut(party::run::Progress),
        interrupted: &AtomicBool,
    ) -> anyhow::Result<RunResult> {
        let result = folder.join("result.json");
        let file = |file: data::File| -> anyhow::Result<PathBuf> {
            // The parties may run in another folder than this program.
            Ok(fs::canonicalize(file.locate(&self.data)?)?)
        };
        let job = Job {
            computation: self.computation(network, format),
            players: BTreeMap::from([(
                Name::MODEL_OWNER,
                PlayerTask {
                    inputs: Some(file_in(&self.models, network)),
                    ..PlayerTask::default()
                },
            )]),
            workload: Some(Workload {
                images: file(data::TEST_IMAGES)?,
                warmup: self.warmup,
                repetitions: self.repetitions,
                offline: self.offline,
                accuracy: (self.accuracy_samples > 0)
                    .then(|| {
                        anyhow::Ok(AccuracyWorkload {
                            samples: self.accuracy_samples,
                            labels: file(data::TEST_LABELS)?,
                            reference: Some(reference.into()),
                        })
                    })
                    .transpose()?,
                inspect: None,
                result: Some(result.clone()),
            }),
            stock: self.stock.clone(),
            threads: self.threads,
            deadlines: Deadlines::default(),
            transport: self.transport,
        };
        let configs = local::configure(&job, folder)?;
        let mut running = local::start(&configs, folder, &self.party)?;
        running.wait(interrupted, on_progress)?;
        let json = fs::read(&result).context("the client left no result")?;
        let run: RunResult =
            serde_json::from_slice(&json).context("the client's result cannot be read")?;
        if run.accuracy.is_some_and(|accuracy| Compared::of(&accuracy).is_none()) {
            anyhow::bail!(
                "the client was given what network {network} says in the clear, but its result \
                 does not compare with it; give this program and the party the same version"
            );
        }
        Ok(run)
    }
}

/// An accuracy beside that of the network in the clear.
struct Compared {
    samples: usize,
    plaintext: f64,
    secure: f64,
    agreement: f64,
    divergence: f64,
}

impl Compared {
    fn of(accuracy: &Accuracy) -> Option<Self> {
        let Accuracy { samples, secure, .. } = *accuracy;
        Some(Self {
            samples,
            plaintext: accuracy.plaintext?,
            secure,
            agreement: accuracy.agreement?,
            divergence: accuracy.mean_kl_divergence?,
        })
    }

    /// Of a run that was scored.
    fn in_run(run: &RunResult) -> Option<Self> {
        run.accuracy.as_ref().and_then(Self::of)
    }
}

fn summary(run: &RunResult) -> String {
    let accuracy = Compared::in_run(run).map_or(String::new(), |a| {
        format!(
            ", accuracy {:.2} % secure, {:.2} % in the clear",
            a.secure * 100.0,
            a.plaintext * 100.0
        )
    });
    format!(
        "{} {} {}: {:.2} ms combined, {:.2} ms online{accuracy}",
        run.network, run.format, run.truncation, run.combined.mean_ms, run.online.mean_ms
    )
}

/// The table: the paper's numbers beside these.
#[must_use]
pub fn render(results: &Results) -> String {
    let environment = &results.environment;
    let mut text = String::new();
    let first = results.runs.first().and_then(|cell| cell.merged.as_ref());
    let repetitions = first.map_or(0, |run| run.repetitions);
    let batch = first.map_or(1, |run| run.batch_size);
    let offline = first.map_or(OfflineMode::Inline, |run| run.offline_mode);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Table 1: private inference on MNIST, batch {batch}, {repetitions} timed inferences, \
         randomness made {offline}"
    );
    let _ = writeln!(
        text,
        "  here:  5 processes on {} cores of {}, mutual TLS on loopback, load {:.1} at the start",
        environment.cores, environment.cpu, environment.load_average
    );
    let _ = writeln!(text, "  paper: 36 cores for each party, one cloud region, batch 1\n");
    let _ = writeln!(
        text,
        "                       runtime, ms                              accuracy, %                   KL divergence"
    );
    let _ = writeln!(
        text,
        "                       paper (sd)     here (sd)        online   paper plain/secure  here plain/secure   paper    here"
    );
    let measured = || results.runs.iter().filter_map(|cell| Some((cell, cell.merged.as_ref()?)));
    for (_, run) in measured() {
        let paper = paper::table1(&run.network, run.format);
        let accuracy = Compared::in_run(run);
        let pair = |mean: f64, deviation: f64, digits: usize| {
            format!("{mean:.digits$} ({deviation:.digits$})")
        };
        let percent =
            |plain: f64, secure: f64| format!("{:.2} / {:.2}", plain * 100.0, secure * 100.0);
        let _ = writeln!(
            text,
            "{:<2} {:<6} {:<11}  {:<13}  {:<15}  {:<7}  {:<18}  {:<18}  {:<7}  {}",
            run.network,
            run.format,
            run.truncation,
            paper.map_or("-".into(), |p| pair(p.mean_ms, p.stddev_ms, 0)),
            pair(run.combined.mean_ms, run.combined.stddev_ms, 2),
            format!("{:.2}", run.online.mean_ms),
            paper.map_or("-".into(), |p| percent(p.plaintext, p.secure)),
            accuracy.as_ref().map_or("-".into(), |a| percent(a.plaintext, a.secure)),
            paper.map_or("-".into(), |p| format!("{:.4}", p.kl_divergence)),
            accuracy.as_ref().map_or("-".into(), |a| format!("{:.1e}", a.divergence)),
        );
    }
    let runtime = match offline {
        OfflineMode::Inline => {
            "Runtime is offline and online together: the producer makes each inference's randomness\n\
             within it. Online starts when the randomness is there. Bytes and rounds of one inference:"
        }
        OfflineMode::Ahead => {
            "Runtime is online alone: the producer made the randomness of all inferences before the\n\
             first. The paper's has both. Bytes, rounds and time spent ahead for one inference:"
        }
    };
    let _ = writeln!(text, "\n{runtime}");
    for (cell, run) in measured() {
        let agreement = Compared::in_run(run).map_or(String::new(), |a| {
            format!(", {:.2} % of {} predictions agree", a.agreement * 100.0, a.samples)
        });
        let ahead = match run.offline_mode {
            OfflineMode::Inline => String::new(),
            OfflineMode::Ahead => format!(" in {:.2} ms", run.offline.mean_ms),
        };
        let floor = match (cell.times_floor(), cell.floor_ms) {
            (Some(times), Some(floor)) => {
                format!(", runtime {times:.1} times the floor of {floor:.3} ms")
            }
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "{:<2} {:<6} {:<11}  online {:.1} kB in {} rounds, offline {:.1} kB{ahead}{floor}\
             {agreement}",
            run.network,
            run.format,
            run.truncation,
            run.online_bytes as f64 / 1e3,
            run.online_rounds,
            run.offline_bytes as f64 / 1e3,
        );
    }
    let Some(Speeds { exchange_micros, gigabytes_per_second, products }) = &results.speeds else {
        return text;
    };
    let products = products.iter().map(|product| {
        let ProductSpeed { format, gigamacs_per_second } = product;
        format!(", {format} {gigamacs_per_second:.1} GMAC/s a core")
    });
    let _ = writeln!(
        text,
        "\nThe floor is what these messages and the matrix products alone would take at the speeds\n\
         measured here: exchange {exchange_micros:.1} us, {gigabytes_per_second:.2} GB/s each way{}.",
        products.collect::<String>(),
    );
    text
}
