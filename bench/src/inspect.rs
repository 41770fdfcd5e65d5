//! `bench inspect`: whether values stay in range, layer by layer.
//!
//! The runs are not private: the client receives the outputs of every layer. In a benchmark
//! everybody knows the weights anyway.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use party::config::{
    Computation, Deadlines, InspectWorkload, OfflineMode, PlayerTask, Store, Transport, Workload,
};
use party::inspection::NOT_PRIVATE;
use party::result::{Inspection, LayerRange, RunResult};
use spdz::channel::Name;
use spdz::network::{Builtin, Reveal};
use spdz::plan::{NumberFormat, Truncation};

use crate::data;
use crate::forms;
use crate::launch::here::Files;
use crate::launch::local::{self, Job};
use crate::layout::{Align, Table, fill};
use crate::progress::Reporter;
use crate::reference::file_in;
use crate::scratch::Scratch;

/// What `bench inspect --help` says besides its options.
pub(crate) const HELP: &str = "\
Prints for each layer the smallest and the largest value of its output, the
largest difference to the same computation in plaintext, and how many values
come close to what the number format holds: at least half of it. A network of
one's own choice of weights (--models) whose values come close needs other
weights or the other format; a value beyond makes its whole inference useless.

Not private: the outputs of layers tell the weights. The parties refuse it
unless all of them are configured for it, log a warning, and the result says so.";

/// What to inspect.
#[derive(Clone, Debug)]
pub struct Inspect {
    /// The networks.
    pub networks: Vec<Builtin>,
    /// Each network in each of these in which it can be computed.
    pub formats: Vec<NumberFormat>,
    /// Without it the usual one of the format.
    pub truncation: Option<Truncation>,
    /// Images of one inference.
    pub batch_size: usize,
    /// Images inspected, from the first of the test set.
    pub samples: usize,
    /// Where things are.
    pub files: Files,
}

/// What was found; prints as tables.
#[derive(Clone, Debug)]
pub struct Report(Vec<(RunResult, Inspection)>);

impl Inspect {
    /// Runs the networks one after the other.
    ///
    /// # Errors
    /// If files are missing or wrong, parties fail, or on interruption.
    pub fn run(&self, interrupted: &AtomicBool) -> anyhow::Result<Report> {
        // What has no plan is refused before anything starts.
        for &network in &self.networks {
            for format in forms::formats(network, Reveal::default(), &self.formats) {
                let plan = self.computation(network, format).plan();
                plan.with_context(|| format!("{network} {format} is impossible"))?;
            }
        }
        let mut reporter = Reporter::new();
        reporter.warn(NOT_PRIVATE);
        let mut found = Vec::new();
        for &network in &self.networks {
            for format in forms::formats(network, Reveal::default(), &self.formats) {
                let label = format!("{network} {format}");
                reporter.begin(&label, "starting five parties");
                let result = self
                    .measure(network, format, |progress| reporter.update(progress), interrupted)
                    .with_context(|| format!("{label} failed"))?;
                let inspection = result.inspection.clone();
                let inspection = inspection.context(
                    "the client inspected nothing; give this program and the party the same version",
                )?;
                found.push((result, inspection));
            }
        }
        reporter.finish();
        Ok(Report(found))
    }

    fn computation(&self, network: Builtin, format: NumberFormat) -> Computation {
        let computation = Computation::of_network(network.name(), self.batch_size, format);
        Computation { truncation: self.truncation, inspect: true, ..computation }
    }

    fn measure(
        &self,
        network: Builtin,
        format: NumberFormat,
        on_progress: impl FnMut(party::run::Progress),
        interrupted: &AtomicBool,
    ) -> anyhow::Result<RunResult> {
        let folder = Scratch::new()?;
        let result = folder.path().join("result.json");
        let weights = file_in(&self.files.models, network);
        // The parties may run in another folder than this program.
        let weights = fs::canonicalize(&weights).with_context(|| {
            format!(
                "cannot read the weights {}; run this in the repository's folder, or say where \
                 they are with --models",
                weights.display()
            )
        })?;
        let owner = PlayerTask { inputs: Some(weights.clone()), ..PlayerTask::default() };
        let job = Job {
            computation: self.computation(network, format),
            players: BTreeMap::from([(Name::MODEL_OWNER, owner)]),
            workload: Some(Workload {
                images: fs::canonicalize(data::TEST_IMAGES.locate(&self.files.data)?)?,
                warmup: 0,
                warmup_seconds: 0,
                repetitions: 0,
                offline: OfflineMode::Inline,
                accuracy: None,
                inspect: Some(InspectWorkload { samples: self.samples, weights }),
                result: Some(result.clone()),
            }),
            store: Store::default(),
            threads: None,
            deadlines: Deadlines::default(),
            transport: Transport::default(),
        };
        let configs = local::configure(&job, folder.path())?;
        let mut running = local::start(&configs, folder.path(), &self.files.party)?;
        running.wait(interrupted, on_progress)?;
        let json = fs::read(&result).context("the client left no result")?;
        serde_json::from_slice(&json).context("the client's result cannot be read")
    }
}

impl Report {
    /// What was found, for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.results().map(|result| serde_json::json!(result)).collect()
    }

    /// The results, in the order in which they were measured.
    pub fn results(&self) -> impl Iterator<Item = &RunResult> {
        self.0.iter().map(|(result, _)| result)
    }
}

impl Report {
    /// The tables, for a terminal of so many columns.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        use Align::{Left, Right};
        let mut text = fill(NOT_PRIVATE, width);
        for (RunResult { network, format, truncation, .. }, inspection) in &self.0 {
            let Inspection { samples, out_of_range, limit, layers, .. } = inspection;
            text.push_str(&fill(
                &format!(
                    "\n{network} {format}, {truncation} truncation, images: {samples}, of them out \
                     of range: {out_of_range}; values stay below {limit}\n\n"
                ),
                width,
            ));
            let mut table = Table::new(&[
                ("layer", Left),
                ("values", Right),
                ("smallest", Right),
                ("largest", Right),
                ("largest error", Right),
                ("near the limit", Right),
            ]);
            for layer in layers {
                let LayerRange { name, values, min, max, largest_error, near_limit } = layer;
                let fields = vec![
                    name.clone(),
                    values.to_string(),
                    format!("{min:.4}"),
                    format!("{max:.4}"),
                    format!("{largest_error:.6}"),
                    near_limit.to_string(),
                ];
                table.row(fields, Vec::new());
            }
            text.push_str(&table.render(width));
        }
        text
    }
}
