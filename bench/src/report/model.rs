//! What the report computes from results: pure, and what `report.json` holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use party::result::RunResult;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use spdz::network::Reveal;
use spdz::plan::{NumberFormat, Truncation};

use super::figures::time;
use super::naming::{Naming, is_usual};
use crate::accuracy::interval;
use crate::cell::{CellId, LABELS, Place};
use crate::compare::{Comparison, THRESHOLD};
use crate::environment::Environment;
use crate::floor::Speeds;
use crate::load::{BUSY, Load};
use crate::paper::{self, PaperRow};
use crate::results::{Cell, Results};

/// The version of `report.json`.
pub const REPORT_VERSION: u32 = 1;

/// Everything that a report says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    /// [`REPORT_VERSION`].
    pub report_version: u32,
    /// Its heading.
    pub title: String,
    /// All results, in the order given; the report is about the last.
    pub runs: &'a [Run],
    /// What a reader has to know about the machine, in sentences.
    pub notes: Vec<String>,
    /// The cells that the paper's Table 1 has.
    pub table1: Vec<Table1Row<'a>>,
    /// What was measured at several batch sizes.
    pub batches: Vec<BatchScaling<'a>>,
    /// What was measured in several formats.
    pub formats: Vec<InFormats<'a>>,
    /// The later runs against the first.
    pub comparisons: Vec<Against<'a>>,
    #[serde(skip)]
    pub(super) naming: Naming,
}

/// One `results.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// What the report calls it.
    pub name: String,
    /// The id of its sweep.
    pub sweep: String,
    /// Where it was read.
    pub source: PathBuf,
    /// What it was measured on.
    pub environment: Environment,
    /// What its floors come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speeds: Option<Speeds>,
    /// The cells with a result.
    pub cells: Vec<MeasuredCell>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// All that was read, to compare it with another.
    #[serde(skip)]
    results: Results,
}

/// A cell with a result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredCell {
    /// What tells it from others.
    pub key: CellId,
    /// Of all trials together.
    pub result: RunResult,
    /// What messages and products alone would take, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_ms: Option<f64>,
    /// How many times that the mean runtime is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_floor: Option<f64>,
    /// Batch size over mean runtime.
    pub inputs_per_second: f64,
    /// The trials differ more than they should.
    pub suspicious: bool,
    /// What others used of the machine in the trial in which it was most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Between which the accuracy on shares lies with a confidence of 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_interval: Option<[f64; 2]>,
    /// The mean runtime of each trial, milliseconds.
    pub trial_means_ms: Vec<f64>,
    /// In a cluster the node of each role, in the first trial.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, String>,
}

/// A cell of which a trial failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which.
    pub key: CellId,
    /// Why.
    pub why: String,
    /// Other trials succeeded.
    pub measured: bool,
}

/// A row of Table 1, the paper's and ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table1Row<'a> {
    /// Our cell.
    pub key: &'a CellId,
    /// The paper's numbers.
    pub paper: &'static PaperRow,
    /// The paper's mean runtime over ours.
    pub ratio: f64,
    #[serde(skip)]
    pub(super) cell: &'a MeasuredCell,
}

/// One computation at several batch sizes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchScaling<'a> {
    /// The smallest one's.
    pub key: &'a CellId,
    /// In ascending order.
    pub points: Vec<BatchPoint>,
}

/// A batch size and its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchPoint {
    /// Inputs of one inference.
    pub batch_size: usize,
    /// Mean runtime, milliseconds.
    pub mean_ms: f64,
    /// Batch size over mean runtime.
    pub inputs_per_second: f64,
    /// The paper's runtime, if it measured the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper_ms: Option<f64>,
    /// The trials differ more than they should.
    pub suspicious: bool,
}

/// One computation in several number formats, each with its usual truncation. As JSON the
/// key of each cell under the name of its format, `int64` for `Int64`, and `ratio`.
#[derive(Debug)]
pub struct InFormats<'a> {
    /// A cell for each format that was measured, at least two, in the order of
    /// [`NumberFormat::ALL`].
    pub cells: Vec<&'a MeasuredCell>,
}

impl InFormats<'_> {
    /// The mean runtime in the last format over that in the first.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let mean = |cell: &MeasuredCell| cell.result.combined.mean_ms;
        mean(self.cells[self.cells.len() - 1]) / mean(self.cells[0])
    }
}

impl Serialize for InFormats<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for cell in &self.cells {
            let name = cell.key.format.to_string();
            let first = name.chars().take(1).flat_map(char::to_lowercase);
            let name: String = first.chain(name.chars().skip(1)).collect();
            map.serialize_entry(&name, &cell.key)?;
        }
        map.serialize_entry("ratio", &self.ratio())?;
        map.end()
    }
}

impl Run {
    /// The cells of results read from `source`.
    #[must_use]
    pub fn of(results: Results, source: PathBuf) -> Self {
        let mut cells = vec![];
        let mut failures = vec![];
        for cell in &results.runs {
            let (times_floor, load) = (cell.times_floor(), cell.load());
            let Cell { key, merged, floor_ms, trials, suspicious, failure } = cell.clone();
            if let Some(why) = failure {
                failures.push(Failure { key: key.clone(), why, measured: merged.is_some() });
            }
            let Some(result) = merged else { continue };
            cells.push(MeasuredCell {
                inputs_per_second: key.batch_size as f64 * 1e3 / result.combined.mean_ms,
                key,
                accuracy_interval: result.accuracy.as_ref().and_then(interval),
                result,
                floor_ms,
                times_floor,
                suspicious,
                load,
                trial_means_ms: trials.iter().map(|trial| trial.result.combined.mean_ms).collect(),
                nodes: trials.into_iter().next().map(|trial| trial.nodes).unwrap_or_default(),
            });
        }
        Self {
            name: results.sweep.name.clone(),
            sweep: results.sweep.id.clone(),
            source,
            environment: results.environment.clone(),
            speeds: results.speeds.clone(),
            cells,
            failures,
            results,
        }
    }
}

/// Keys are equal but for what `change` levels.
fn same_but(a: &CellId, b: &CellId, change: impl Fn(&mut CellId)) -> bool {
    let [mut a, mut b] = [a.clone(), b.clone()];
    change(&mut a);
    change(&mut b);
    a == b
}

/// The cells of the paper's Table 1.
fn table1(cells: &[MeasuredCell]) -> Vec<Table1Row<'_>> {
    let row = |cell: &'_ MeasuredCell| {
        let paper = paper::beside(&cell.key)?.row?;
        Some((paper, paper.mean_ms / cell.result.combined.mean_ms))
    };
    cells
        .iter()
        .filter_map(|cell| {
            let (paper, ratio) = row(cell)?;
            Some(Table1Row { key: &cell.key, paper, ratio, cell })
        })
        .collect()
}

/// What was measured at several batch sizes.
fn batches(cells: &[MeasuredCell]) -> Vec<BatchScaling<'_>> {
    let mut groups: Vec<BatchScaling<'_>> = vec![];
    let mut sorted: Vec<&MeasuredCell> = cells.iter().collect();
    // Stable: what is equal stays in the order of the settings.
    sorted.sort_by_key(|cell| cell.key.batch_size);
    for cell in sorted {
        let point = BatchPoint {
            batch_size: cell.key.batch_size,
            mean_ms: cell.result.combined.mean_ms,
            inputs_per_second: cell.inputs_per_second,
            paper_ms: paper::beside(&cell.key).map(|published| published.mean_ms),
            suspicious: cell.suspicious,
        };
        let same = |group: &&mut BatchScaling<'_>| {
            same_but(group.key, &cell.key, |key| key.batch_size = 0)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.points.push(point),
            None => groups.push(BatchScaling { key: &cell.key, points: vec![point] }),
        }
    }
    groups.retain(|group| group.points.len() > 1);
    groups
}

/// What was measured in several formats, each with its usual truncation.
fn formats(cells: &[MeasuredCell]) -> Vec<InFormats<'_>> {
    let mut groups: Vec<InFormats<'_>> = vec![];
    let level = |key: &mut CellId| {
        key.format = NumberFormat::default();
        key.truncation = Truncation::Local;
    };
    for format in NumberFormat::ALL {
        let measured = |cell: &&MeasuredCell| cell.key.format == format && is_usual(&cell.key);
        for cell in cells.iter().filter(measured) {
            let same = |group: &&mut InFormats<'_>| same_but(&group.cells[0].key, &cell.key, level);
            match groups.iter_mut().find(same) {
                Some(group) => group.cells.push(cell),
                None => groups.push(InFormats { cells: vec![cell] }),
            }
        }
    }
    groups.retain(|group| group.cells.len() > 1);
    groups
}

impl<'a> Report<'a> {
    /// What these results say; `None` without any.
    #[must_use]
    pub fn of(runs: &'a [Run]) -> Option<Self> {
        let subject = runs.last()?;
        let environment = &subject.environment;
        let on = match &environment.cluster {
            Some(cluster) => format!("Kubernetes {}", cluster.kubernetes),
            None => format!("{} cores of {}", environment.cores, environment.cpu),
        };
        let suspicious = subject.cells.iter().filter(|cell| cell.suspicious);
        let suspicious = suspicious.map(|cell| cell.key.clone()).collect();
        Some(Self {
            report_version: REPORT_VERSION,
            title: format!("Private inference on {on}"),
            runs,
            notes: notes(subject),
            table1: table1(&subject.cells),
            batches: batches(&subject.cells),
            formats: formats(&subject.cells),
            comparisons: runs[1..].iter().map(|run| Against::of(&runs[0], run)).collect(),
            naming: Naming::of(subject.cells.iter().map(|cell| &cell.key), suspicious),
        })
    }

    /// The results that it is about.
    pub(super) fn subject(&self) -> &'a Run {
        // There is one, or there would be no report.
        &self.runs[self.runs.len() - 1]
    }

    /// One line on what was measured.
    pub(super) fn subtitle(&self) -> String {
        let Run { name, environment, cells, failures, .. } = self.subject();
        let failed = failures.iter().filter(|failure| !failure.measured).count();
        let failed = if failed > 0 { format!(" and {failed} failed") } else { String::new() };
        format!(
            "“{name}”: {} cells{failed}, measured {}, commit {}",
            cells.len(),
            time(environment.started_unix_seconds),
            environment.commit
        )
    }
}

/// What a number of this machine does not mean.
fn notes(run: &Run) -> Vec<String> {
    let Environment { cores, load_average, governor, kernels, commit, .. } = &run.environment;
    let local = run.cells.iter().any(|cell| cell.key.place == Place::Local);
    let mut notes = vec![];
    if local && *cores < 5 {
        notes.push(format!(
            "Five parties shared {cores} cores, so they wait for each other where machines of \
             their own would not; the paper's had 36 each."
        ));
    }
    if local && run.cells.iter().any(|cell| cell.key.conditions.is_none()) {
        notes.push(
            "The parties are processes of one machine and talk over its loopback: no network's \
             round trips are in these latencies. Add rounds times the round trip, and bytes \
             over the bandwidth, or measure with network conditions."
                .into(),
        );
    }
    if run.cells.iter().any(|cell| cell.key.reveal == Reveal::Label) {
        notes.push(LABELS.into());
    }
    if local && *load_average > *cores as f64 * 0.5 {
        notes.push(format!(
            "{load_average:.1} processes wanted a core on average in the minute before: \
             something else was running, and latencies may be longer than they need be."
        ));
    }
    if governor.as_deref().is_some_and(|governor| governor != "performance") {
        notes.push(
            "The cores' frequency was not fixed (governor other than performance): the first \
             inferences may be slower than the rest."
                .into(),
        );
    }
    if local && kernels == "Portable" {
        notes.push(
            "The processor has no vector instructions that the kernels know: products are many \
             times slower than on one with AVX2 or AVX-512."
                .into(),
        );
    }
    let busy = run.cells.iter().filter(|cell| cell.load.is_some_and(|load| load.is_busy()));
    match busy.count() {
        0 => {}
        count => notes.push(format!(
            "While {count} of {} cells were measured, others used more than {:.0} % of the \
             machine's cores: these may be slower than they need be.",
            run.cells.len(),
            BUSY * 100.0
        )),
    }
    let lost: u64 = run.cells.iter().map(|cell| cell.result.out_of_range).sum();
    if lost > 0 {
        notes.push(format!(
            "The outputs of {lost} evaluations were out of the format's range, because values were \
             too large or a local truncation failed: they count as wrong."
        ));
    }
    if commit == "unknown" {
        notes.push("The build does not know its commit, so nobody can repeat exactly this.".into());
    }
    notes
}

/// One run against the first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Against<'a> {
    /// Which run.
    pub run: &'a str,
    /// The comparison; nothing if no cell was measured in both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// How many cells only one of the two has.
    pub unmatched: usize,
}

impl<'a> Against<'a> {
    fn of(baseline: &Run, run: &'a Run) -> Self {
        let comparison = Comparison::of(&baseline.results, &run.results, THRESHOLD).ok();
        let both = comparison.as_ref().map_or(0, |comparison| comparison.cells.len());
        let unmatched = run.cells.len() + baseline.cells.len() - 2 * both;
        Self { run: &run.name, comparison, unmatched }
    }
}
