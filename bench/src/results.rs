//! `results.json`: what a benchmark measured, and on what.
//!
//! A [cell](crate::cell) of it says what its trials measured together.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use jiff::Timestamp;
use party::files::{check_place, write_whole};
use party::result::{Latency, LayerTime, QUANTILES, RunResult};
use serde::{Deserialize, Serialize};

use crate::cell::{CellId, Trial};
use crate::environment::Environment;
use crate::floor::Speeds;
use crate::load::Load;
use crate::settings::Settings;
use crate::stats::median;

/// The version of the schema.
pub const SCHEMA_VERSION: u32 = 4;

/// Largest `results.json` that is read, bytes.
pub const MAX_RESULTS_BYTES: u64 = 64 << 20;

/// A `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Results {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which sweep this is.
    pub sweep: Sweep,
    /// The machine and the build. In a cluster the machine that measured is each trial's
    /// [nodes](Trial::nodes), and this one is where the sweep was started.
    pub environment: Environment,
    /// What the floors come from: the median of each speed of those measured before the trials;
    /// absent in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speeds: Option<Speeds>,
    /// One entry for each cell, in the order of the settings.
    pub runs: Vec<Cell>,
}

/// Which sweep results are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sweep {
    /// No other sweep has it; in a cluster the label of its resources.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What was asked for.
    pub settings: Settings,
}

/// A cell: what was measured, and against what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cell {
    /// What tells it from the others.
    pub key: CellId,
    /// All trials together ([`merge`]); absent if none succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<RunResult>,
    /// What the messages and products within `combined` alone would take (see
    /// [`floor`](crate::floor)), milliseconds: the median of those measured before its trials;
    /// absent in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_ms: Option<f64>,
    /// The trials that succeeded, in the order in which they ran.
    pub trials: Vec<Trial>,
    /// The trials differed so much that there were more of them than asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspicious: bool,
    /// Why a trial failed, the last if several did. The others are in `trials`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Cell {
    /// The cell of these trials.
    #[must_use]
    pub fn of(key: CellId, trials: Vec<Trial>) -> Self {
        let merged = merge(trials.iter().map(|trial| &trial.result));
        let floors = trials.iter().filter_map(|trial| Some(trial.floor.as_ref()?.floor_ms));
        let floors: Vec<f64> = floors.collect();
        let floor_ms = (!floors.is_empty()).then(|| median(floors));
        Self { key, merged, floor_ms, trials, suspicious: false, failure: None }
    }

    /// What to know before believing what was measured: that its trials differ, that the machine
    /// was busy, and what counts as wrong.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.suspicious {
            let means = self.trials.iter().map(|trial| trial.result.combined.mean_ms);
            let means: Vec<String> = means.map(|mean| format!("{mean:.2}")).collect();
            remarks.push(format!(
                "suspicious: its trials differ more than they should, {} ms",
                means.join(", ")
            ));
        }
        if let Some(load) = self.load().filter(Load::is_busy) {
            remarks.push(format!("busy: {load}"));
        }
        match self.merged.as_ref().map_or(0, |run| run.out_of_range) {
            0 => {}
            1 => remarks.push("1 evaluation out of range".into()),
            count => remarks.push(format!("{count} evaluations out of range")),
        }
        remarks
    }

    /// What others used of the machine in the trial in which it was most.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        let loads = self.trials.iter().filter_map(|trial| trial.load);
        loads.max_by(|a, b| a.others_cores.total_cmp(&b.others_cores))
    }

    /// How many times the floor the mean runtime is, where both are known.
    #[must_use]
    pub fn times_floor(&self) -> Option<f64> {
        Some(self.merged.as_ref()?.combined.mean_ms / self.floor_ms?)
    }
}

/// Several trials of one cell as one result; nothing if there are none. A single one stays
/// as it is. Means and deviations are those of all repetitions together, percentiles those
/// of the distribution that mixes the trials', as exact as their quantiles are. Bytes and
/// rounds are the first trial's, the accuracy is that of the first that was scored.
#[must_use]
pub fn merge<'a>(results: impl IntoIterator<Item = &'a RunResult>) -> Option<RunResult> {
    let results: Vec<&RunResult> = results.into_iter().collect();
    let (first, others) = results.split_first()?;
    let mut merged = (*first).clone();
    if others.is_empty() {
        return Some(merged);
    }
    let latency = |of: fn(&RunResult) -> &Latency| {
        let weighted = results.iter().map(|result| (result.repetitions as f64, of(result)));
        merge_latencies(&weighted.collect::<Vec<_>>())
    };
    merged.combined = latency(|result| &result.combined);
    merged.online = latency(|result| &result.online);
    merged.offline = latency(|result| &result.offline);
    merged.accuracy = results.iter().find_map(|result| result.accuracy);
    merged.repetitions =
        results.iter().fold(0, |sum: u64, result| sum.saturating_add(result.repetitions));
    merged.out_of_range =
        results.iter().fold(0, |sum: u64, result| sum.saturating_add(result.out_of_range));
    for layer in &mut merged.layers {
        let same = results.iter().filter_map(|result| {
            result.layers.iter().find(|candidate| candidate.index == layer.index)
        });
        let same: Vec<&LayerTime> = same.collect();
        // A layer may be among the longest of some trials only.
        let mean = |of: fn(&LayerTime) -> f64| {
            same.iter().map(|layer| of(layer)).sum::<f64>() / same.len() as f64
        };
        layer.offline_ms = mean(|layer| layer.offline_ms);
        layer.online_ms = mean(|layer| layer.online_ms);
    }
    Some(merged)
}

/// Latencies, each of so many repetitions, as one.
fn merge_latencies(parts: &[(f64, &Latency)]) -> Latency {
    let total: f64 = parts.iter().map(|(count, _)| count).sum();
    let mean = parts.iter().map(|(count, part)| count * part.mean_ms).sum::<f64>() / total;
    let squares: f64 = parts
        .iter()
        .map(|(count, part)| {
            (count - 1.0) * part.stddev_ms.powi(2) + count * (part.mean_ms - mean).powi(2)
        })
        .sum();
    let mixed = Mixture::of(parts);
    let weighted = |of: fn(&Latency) -> f64| {
        parts.iter().map(|(count, part)| count * of(part)).sum::<f64>() / total
    };
    let quantile = |p: f64, otherwise: fn(&Latency) -> f64| match &mixed {
        Some(mixed) => mixed.quantile(p),
        None => weighted(otherwise),
    };
    let place = |index: usize| index as f64 / (QUANTILES - 1) as f64;
    Latency {
        mean_ms: mean,
        stddev_ms: if total > 1.0 { (squares / (total - 1.0)).sqrt() } else { 0.0 },
        p50_ms: quantile(0.5, |part| part.p50_ms),
        p95_ms: quantile(0.95, |part| part.p95_ms),
        // Between the last two quantiles that are kept nothing is known of the mixture.
        p99_ms: weighted(|part| part.p99_ms),
        quantiles_ms: mixed.as_ref().map_or(Vec::new(), |mixed| {
            (0..QUANTILES).map(|index| mixed.quantile(place(index))).collect()
        }),
        block_means_ms: parts.iter().flat_map(|(_, part)| part.block_means_ms.clone()).collect(),
    }
}

/// Several distributions as one, each given by its quantiles and linear between them.
struct Mixture<'a> {
    parts: Vec<(f64, &'a [f64])>,
    total: f64,
}

impl<'a> Mixture<'a> {
    /// Nothing if a part's distribution was not kept.
    fn of(parts: &[(f64, &'a Latency)]) -> Option<Self> {
        let parts: Vec<_> =
            parts.iter().map(|(count, part)| (*count, &part.quantiles_ms[..])).collect();
        let total = parts.iter().map(|(count, _)| count).sum();
        parts.iter().all(|(_, quantiles)| quantiles.len() >= 2).then_some(Self { parts, total })
    }

    /// The part of the mixture that is at most `x`.
    fn below(&self, x: f64) -> f64 {
        let below = |quantiles: &[f64]| {
            let last = quantiles.len() - 1;
            let at = quantiles.partition_point(|quantile| *quantile <= x);
            if at == 0 {
                return 0.0;
            }
            if at > last {
                return 1.0;
            }
            let (low, high) = (quantiles[at - 1], quantiles[at]);
            (at as f64 - 1.0 + (x - low) / (high - low)) / last as f64
        };
        self.parts.iter().map(|(count, quantiles)| count * below(quantiles)).sum::<f64>()
            / self.total
    }

    /// The value that a part `p` of the mixture does not exceed.
    fn quantile(&self, p: f64) -> f64 {
        let ends = |of: fn(&[f64]) -> Option<&f64>| {
            self.parts.iter().filter_map(move |(_, quantiles)| of(quantiles).copied())
        };
        let mut low = ends(<[f64]>::first).fold(f64::INFINITY, f64::min);
        let mut high = ends(<[f64]>::last).fold(f64::NEG_INFINITY, f64::max);
        if p <= 0.0 {
            return low;
        }
        // Far closer than the four digits of what it comes from.
        for _ in 0..48 {
            let middle = low + (high - low) / 2.0;
            if self.below(middle) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Why results could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than any results.
    #[error("{} has {found} bytes, at most {MAX_RESULTS_BYTES} are read", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// It is of another version.
    #[error(
        "{} has schema version {found}, this program reads {SCHEMA_VERSION}; measure again, or \
         read it with the version of bench that wrote it",
        path.display()
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It is something else.
    #[error("{} holds no results: {source}", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Where results are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Where those are now that were in its place.
    pub kept: Option<PathBuf>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Written to {}", self.path.display())?;
        match &self.kept {
            Some(kept) => write!(f, "; the earlier results are now {}", kept.display()),
            None => Ok(()),
        }
    }
}

/// Gives results the name of when they were written.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let written = Timestamp::try_from(fs::metadata(path)?.modified()?).map_err(io::Error::other)?;
    let stem = format!("results-{}", written.strftime("%Y%m%d-%H%M%S"));
    let mut aside = path.with_file_name(format!("{stem}.json"));
    let mut number = 1;
    while aside.try_exists()? {
        number += 1;
        aside = path.with_file_name(format!("{stem}-{number}.json"));
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// The name of results in their folder.
pub const RESULTS_FILE: &str = "results.json";

impl Results {
    /// Writes `results.json` into `folder`, which is made if it is not there. Results of
    /// another sweep that are there stay, under the time at which they were written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Written, WriteError> {
        let path = folder.join(RESULTS_FILE);
        let write = || {
            fs::create_dir_all(folder)?;
            let mut json = serde_json::to_string_pretty(self)?;
            json.push('\n');
            let kept =
                if path.exists() && !self.are_in(&path) { Some(set_aside(&path)?) } else { None };
            write_whole(&path, json.as_bytes())?;
            Ok(kept)
        };
        match write() {
            Ok(kept) => Ok(Written { path, kept }),
            Err(source) => Err(WriteError { path, source }),
        }
    }

    /// Whether the file has results of this sweep already.
    fn are_in(&self, path: &Path) -> bool {
        Self::read(path).is_ok_and(|found| found.sweep.id == self.sweep.id)
    }

    /// Makes sure, before anything is measured, that results can be written into `folder`.
    ///
    /// # Errors
    /// If not.
    pub fn check_place(folder: &Path) -> Result<(), WriteError> {
        let path = folder.join(RESULTS_FILE);
        fs::create_dir_all(folder)
            .and_then(|()| check_place(&path, &[]))
            .map_err(|source| WriteError { path, source })
    }

    /// Reads results, from a file or from the `results.json` of a folder.
    ///
    /// # Errors
    /// If there are none, or they are of another version.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let path = if path.is_dir() { path.join(RESULTS_FILE) } else { path.into() };
        let io = |source| ReadError::Io { path: path.clone(), source };
        let found = fs::metadata(&path).map_err(io)?.len();
        if found > MAX_RESULTS_BYTES {
            return Err(ReadError::Size { path, found });
        }
        let bytes = fs::read(&path).map_err(io)?;
        Self::parse(&bytes, &path)
    }

    /// Reads the bytes of a `results.json`; `path` is for messages.
    ///
    /// # Errors
    /// If they are none, or of another version.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ReadError> {
        /// What all versions have.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Versioned {
            schema_version: u64,
        }

        let json = |source| ReadError::Json { path: path.into(), source };
        let Versioned { schema_version: found } = serde_json::from_slice(bytes).map_err(json)?;
        if found != u64::from(SCHEMA_VERSION) {
            return Err(ReadError::Version { path: path.into(), found });
        }
        serde_json::from_slice(bytes).map_err(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::{key, result, trial};
    use crate::floor::speeds::Beside;

    #[test]
    fn one_trial_stays_as_it_is_and_several_become_one() {
        assert_eq!(merge([]), None);
        let first: Vec<f64> = (0..=200).map(|x| f64::from(x) / 10.0).collect();
        let second: Vec<f64> = first.iter().map(|x| x + 20.0).collect();
        assert_eq!(merge([&result(&first)]), Some(result(&first)));
        let merged = merge([&result(&first), &result(&second)]).unwrap();
        let both: Vec<f64> = first.iter().chain(&second).copied().collect();
        let expected = Latency::with_distribution(&both);
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 0.11, "{found} {expected}")
        };
        assert_eq!(merged.repetitions, 402);
        close(merged.combined.mean_ms, expected.mean_ms);
        close(merged.combined.stddev_ms, expected.stddev_ms);
        close(merged.combined.p50_ms, expected.p50_ms);
        close(merged.combined.p95_ms, expected.p95_ms);
        for (found, expected) in merged.combined.quantiles_ms.iter().zip(&expected.quantiles_ms) {
            close(*found, *expected);
        }
        assert_eq!(merged.combined.block_means_ms.len(), 64);
        assert_eq!(merged.layers[0].offline_ms, 10.0);
        assert!(merged.offline.quantiles_ms.is_empty());
        close(merged.offline.p50_ms, 20.0);
    }

    #[test]
    fn results_of_another_sweep_are_kept_beside_and_those_of_the_same_replaced() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.json");
        let of = |id: &str| {
            let mut results = Results::read(&page).unwrap();
            results.sweep.id = id.into();
            results
        };
        let folder = tempfile::tempdir().unwrap();
        let id = |path: &Path| Results::read(path).unwrap().sweep.id;
        Results::check_place(folder.path()).unwrap();
        assert_eq!(of("first").write(folder.path()).unwrap().kept, None);
        assert_eq!(of("first").write(folder.path()).unwrap().kept, None);
        let second = of("second").write(folder.path()).unwrap();
        let third = of("third").write(folder.path()).unwrap();
        let kept = [second.kept.clone().unwrap(), third.kept.unwrap()];
        assert_eq!(kept.each_ref().map(|path| id(path)), ["first", "second"]);
        assert_eq!(id(&third.path), "third");
        assert!(second.to_string().contains("; the earlier results are now "), "{second}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Results::check_place(&file).unwrap_err().to_string();
        assert!(error.contains("file/results.json"), "{error}");
    }

    #[test]
    fn samples_that_are_all_the_same_have_a_distribution() {
        let merged = merge([&result(&[3.0; 10]), &result(&[3.0; 10])]).unwrap();
        assert_eq!(merged.combined.p50_ms, 3.0);
        assert_eq!(merged.combined.quantiles_ms, [3.0; QUANTILES]);
        assert_eq!(merged.combined.stddev_ms, 0.0);
    }

    #[test]
    fn a_cell_has_no_unknown_keys() {
        let speeds =
            Speeds { exchange_micros: 1.0, gigabytes_per_second: 1.0, products: Vec::new() };
        let trials = [1.0, 1.5, 9.0].map(|floor_ms| Trial {
            floor: Some(Beside { floor_ms, speeds: speeds.clone() }),
            ..trial(&[3.0, 3.0])
        });
        let cell = Cell::of(key(), trials.into());
        assert_eq!(cell.times_floor(), Some(2.0), "the median of the floors counts");
        let mut object = serde_json::to_value(&cell).unwrap();
        assert_eq!((&object["key"]["where"], &object["floorMs"]), (&"local".into(), &1.5.into()));
        let read = |object: &serde_json::Value| serde_json::from_value::<Cell>(object.clone());
        assert_eq!(read(&object).unwrap(), cell);
        object["more"] = 1.into();
        let error = read(&object).unwrap_err().to_string();
        assert!(error.contains("unknown field `more`"), "{error}");
    }

    #[test]
    fn results_of_another_version_say_so() {
        let error = |json: &str| {
            Results::parse(json.as_bytes(), Path::new("x.json")).unwrap_err().to_string()
        };
        let other = error(r#"{"schemaVersion":3,"environment":{}}"#);
        assert!(other.contains("x.json has schema version 3, this program reads 4"), "{other}");
        assert!(error("[]").contains("holds no results"));
        assert!(error(r#"{"schemaVersion":4}"#).contains("missing field `sweep`"));
    }
}
