//! What the report computes from results: pure, and what `report.json` holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use party::config::OfflineMode;
use party::result::RunResult;
use serde::{Serialize, Serializer};
use spdz::plan::{NumberFormat, Truncation};

use super::figures::time;
use crate::compare::{Comparison, THRESHOLD};
use crate::environment::Environment;
use crate::floor::Speeds;
use crate::paper::{self, PaperRow};
use crate::results::{Cell, Key, Place, Results};
use party::config::Conditions;

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
    /// What was measured in both formats.
    pub formats: Vec<Pair<'a>>,
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
    pub cells: Vec<Measured>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// All that was read, to compare it with another.
    #[serde(skip)]
    results: Results,
}

/// A cell with a result.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// What tells it from others.
    pub key: Key,
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
    pub key: Key,
    /// Why.
    pub why: String,
    /// Other trials succeeded.
    pub measured: bool,
}

/// A row of Table 1, the paper's and ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table1Row<'a> {
    /// Which cell is beside it.
    pub key: &'a Key,
    /// The paper's numbers.
    pub paper: &'static PaperRow,
    /// The paper's mean runtime over ours.
    pub ratio: f64,
    #[serde(skip)]
    pub(super) cell: &'a Measured,
}

/// One computation at several batch sizes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchScaling<'a> {
    /// The smallest one's.
    pub key: &'a Key,
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
}

/// One computation in both formats.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair<'a> {
    /// The cell with `Int64`.
    #[serde(serialize_with = "key_alone")]
    pub int64: &'a Measured,
    /// The cell with `Int100`.
    #[serde(serialize_with = "key_alone")]
    pub int100: &'a Measured,
    /// The mean runtime of `Int100` over that of `Int64`.
    pub ratio: f64,
}

fn key_alone<S: Serializer>(cell: &Measured, serializer: S) -> Result<S::Ok, S::Error> {
    cell.key.serialize(serializer)
}

impl Run {
    /// The cells of results read from `source`.
    #[must_use]
    pub fn of(results: Results, source: PathBuf) -> Self {
        let mut cells = vec![];
        let mut failures = vec![];
        for cell in &results.runs {
            let times_floor = cell.times_floor();
            let Cell { key, merged, floor_ms, trials, suspicious, failure } = cell.clone();
            if let Some(why) = failure {
                failures.push(Failure { key: key.clone(), why, measured: merged.is_some() });
            }
            let Some(result) = merged else { continue };
            cells.push(Measured {
                inputs_per_second: key.batch_size as f64 * 1e3 / result.combined.mean_ms,
                key,
                result,
                floor_ms,
                times_floor,
                suspicious,
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
fn same_but(a: &Key, b: &Key, change: impl Fn(&mut Key)) -> bool {
    let [mut a, mut b] = [a.clone(), b.clone()];
    change(&mut a);
    change(&mut b);
    a == b
}

/// The cells of the paper's Table 1.
fn table1(cells: &[Measured]) -> Vec<Table1Row<'_>> {
    let row = |cell: &'_ Measured| {
        let paper = paper::table1(&cell.key.network, cell.key.format)?;
        (cell.key.batch_size == 1 && cell.key.offline_mode == OfflineMode::Inline)
            .then(|| (paper, paper.mean_ms / cell.result.combined.mean_ms))
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
fn batches(cells: &[Measured]) -> Vec<BatchScaling<'_>> {
    let mut groups: Vec<BatchScaling<'_>> = vec![];
    let mut sorted: Vec<&Measured> = cells.iter().collect();
    // Stable: what is equal stays in the order of the settings.
    sorted.sort_by_key(|cell| cell.key.batch_size);
    for cell in sorted {
        let point = BatchPoint {
            batch_size: cell.key.batch_size,
            mean_ms: cell.result.combined.mean_ms,
            inputs_per_second: cell.inputs_per_second,
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

fn is_usual(key: &Key) -> bool {
    key.truncation == key.format.usual_truncation()
}

/// What was measured in both formats, each with its usual truncation.
fn formats(cells: &[Measured]) -> Vec<Pair<'_>> {
    let of =
        |format| cells.iter().filter(move |cell| cell.key.format == format && is_usual(&cell.key));
    let level = |key: &mut Key| {
        key.format = NumberFormat::Int64;
        key.truncation = Truncation::Local;
    };
    of(NumberFormat::Int64)
        .filter_map(|int64| {
            let int100 =
                of(NumberFormat::Int100).find(|int100| same_but(&int64.key, &int100.key, level))?;
            let ratio = int100.result.combined.mean_ms / int64.result.combined.mean_ms;
            Some(Pair { int64, int100, ratio })
        })
        .collect()
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
        Some(Self {
            report_version: REPORT_VERSION,
            title: format!("Private inference on {on}"),
            runs,
            notes: notes(subject),
            table1: table1(&subject.cells),
            batches: batches(&subject.cells),
            formats: formats(&subject.cells),
            comparisons: runs[1..].iter().map(|run| Against::of(&runs[0], run)).collect(),
            naming: Naming::of(&subject.cells),
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

/// How cells are called where others are around: without what all share.
#[derive(Debug, Default)]
pub(super) struct Naming {
    truncations: bool,
    modes: bool,
    conditions: bool,
    places: bool,
}

impl Naming {
    fn of(cells: &[Measured]) -> Self {
        let keys = || cells.iter().map(|cell| &cell.key);
        let differ = |same: fn(&Key, &Key) -> bool| {
            let mut keys = keys();
            keys.next().is_some_and(|first| keys.any(|key| !same(first, key)))
        };
        Self {
            truncations: keys().any(|key| !is_usual(key)),
            modes: differ(|a, b| a.offline_mode == b.offline_mode),
            conditions: differ(|a, b| a.conditions == b.conditions),
            places: differ(|a, b| a.place == b.place),
        }
    }

    /// What is said of a cell besides network, format, truncation and batch size.
    fn circumstances(&self, key: &Key) -> String {
        let mode = self.modes.then(|| format!(", randomness {}", key.offline_mode));
        let shaped = || key.conditions.map_or_else(|| "links as they are".into(), conditions);
        let conditions = self.conditions.then(|| format!(", {}", shaped()));
        let place = self.places.then(|| format!(", {}", key.place));
        [mode, conditions, place].into_iter().flatten().collect()
    }

    /// What cells of one plot share: `Batch 10, randomness ahead`.
    pub(super) fn group(&self, key: &Key) -> String {
        format!("Batch {}{}", key.batch_size, self.circumstances(key))
    }

    /// What tells cells of one plot apart: `C Int64`.
    pub(super) fn cell(&self, key: &Key) -> String {
        format!("{} {}", key.network, self.format(key))
    }

    /// The format, and what else tells lines of one network apart.
    pub(super) fn format(&self, key: &Key) -> String {
        if self.truncations {
            format!("{} {}", key.format, key.truncation)
        } else {
            key.format.to_string()
        }
    }

    /// The network, and the rest of what is the same at all batch sizes.
    pub(super) fn network(&self, key: &Key) -> String {
        format!("{}{}", key.network, self.circumstances(key))
    }

    /// A row of Table 1, where all are of batch 1.
    pub(super) fn table1(&self, key: &Key) -> String {
        format!("{}{}", self.cell(key), self.circumstances(key))
    }

    /// What both of a [`Pair`] share.
    pub(super) fn pair(&self, key: &Key) -> String {
        format!("{}, batch {}{}", key.network, key.batch_size, self.circumstances(key))
    }

    /// What tells cells of one network apart: `Int64, batch 10`.
    pub(super) fn without_network(&self, key: &Key) -> String {
        format!("{}, batch {}{}", self.format(key), key.batch_size, self.circumstances(key))
    }

    /// All that tells a cell from the others of its run: `C Int64, batch 10`.
    pub(super) fn full(&self, key: &Key) -> String {
        format!("{} {}", key.network, self.without_network(key))
    }
}

/// `40 ms round trip, 100 Mbit/s`.
pub(super) fn conditions(conditions: Conditions) -> String {
    let Conditions { rtt_ms, jitter_ms, bandwidth_mbps } = conditions;
    let mut text = format!("{rtt_ms} ms round trip");
    if jitter_ms > 0.0 {
        text.push_str(&format!(" ± {jitter_ms} ms"));
    }
    if let Some(bandwidth) = bandwidth_mbps {
        text.push_str(&format!(", {bandwidth} Mbit/s"));
    }
    text
}

/// One run against the first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Against<'a> {
    /// Which run.
    pub run: &'a str,
    /// What came of it; nothing if no cell was measured in both.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_a_sentence() {
        let text =
            conditions(Conditions { rtt_ms: 40.0, jitter_ms: 2.0, bandwidth_mbps: Some(100.0) });
        assert_eq!(text, "40 ms round trip ± 2 ms, 100 Mbit/s");
    }
}
