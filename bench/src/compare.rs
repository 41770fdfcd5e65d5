//! `bench compare`: whether one build is slower than another.

use std::collections::BTreeSet;
use std::fmt;

use party::result::RunResult;
use serde::Serialize;

use crate::cell::{CellId, Trial};
use crate::layout::{Align, Table, fill, wrap};
use crate::results::{Cell, Results};
use crate::stats::{self, Observation, Pair, Ratio, Verdict};

/// Of the bootstrap. The same results give the same answer.
const SEED: u64 = 1;

/// What is not taken for a change unless something else is said: 5 %.
pub const THRESHOLD: f64 = 0.05;

/// Two results of the same cells, one against the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// What is not taken for a change, a part: 0.05 for 5 %.
    pub threshold: f64,
    /// The cells that both have.
    pub cells: Vec<Compared>,
    /// All that are judged together, the geometric mean of their ratios; of all cells if none is.
    pub all: Ratio,
    /// What can be said of that.
    pub verdict: Verdict,
    /// What to know before believing it.
    pub notes: Vec<String>,
}

/// A cell in two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Which.
    pub key: CellId,
    /// The mean runtime in both, milliseconds.
    pub mean_ms: [f64; 2],
    /// Trials in both.
    pub trials: [usize; 2],
    /// The trials differ more than they should, in each.
    pub suspicious: [bool; 2],
    /// How long the piece of work took around the trials that no build changes, mean
    /// microseconds: how fast the machine was. Nothing where it was not measured.
    pub pace_micros: [Option<f64>; 2],
    /// How many times as long it takes: of typical moments at the same speed of the machine,
    /// and so not the ratio of the means.
    pub time: Ratio,
    /// What can be said of that; nothing of a suspicious cell.
    pub verdict: Verdict,
    /// What differs of what does not depend on time.
    pub changes: Vec<Change>,
}

/// A change of something that is the same in every run of one build.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Of what.
    pub what: &'static str,
    /// What it was and is, as people read it.
    pub values: [String; 2],
    /// Whether it became worse, and by more than the threshold.
    pub worse: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, values: [before, after], worse } = self;
        write!(f, "{what}: {before} and then {after}{}", if *worse { ", worse" } else { "" })
    }
}

/// Why results cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Incomparable {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] crate::results::ReadError),
    /// They have nothing in common.
    #[error(
        "the two have no cell in common: the first has {}, the second {}; compare sweeps with the \
         same settings",
        cells[0], cells[1]
    )]
    NothingInCommon {
        /// What each has.
        cells: [String; 2],
    },
}

impl Comparison {
    /// Compares `after` with `before`. What changes by no more than `threshold` (0.05 for
    /// 5 %) is no change.
    ///
    /// # Errors
    /// If no cell was measured in both.
    pub fn of(before: &Results, after: &Results, threshold: f64) -> Result<Self, Incomparable> {
        let found = |key: &CellId| after.runs.iter().find(|cell| cell.key == *key);
        let common: Vec<(&Cell, &RunResult, &Cell, &RunResult)> = before
            .runs
            .iter()
            .filter_map(|a| {
                let b = found(&a.key)?;
                Some((a, a.merged.as_ref()?, b, b.merged.as_ref()?))
            })
            .collect();
        if common.is_empty() {
            let cells = [before, after].map(|results| match &results.runs[..] {
                [] => "none".into(),
                [first, ..] => format!("{} such as {}", results.runs.len(), first.key),
            });
            return Err(Incomparable::NothingInCommon { cells });
        }
        // A pace is of one processor.
        let same = before.environment.cpu == after.environment.cpu;
        let pairs: Vec<Pair> = common
            .iter()
            .map(|(a, _, b, _)| {
                let of = |cell: &Cell| cell.trials.iter().map(|t| observation(t, same)).collect();
                Pair { before: of(a), after: of(b) }
            })
            .collect();
        // Only builds whose trials alternated are of one sweep.
        let alternating = before.sweep.id == after.sweep.id;
        // What an uneven machine did to one cell is in none of the verdicts.
        let suspicious: Vec<[bool; 2]> =
            common.iter().map(|(a, _, b, _)| [a.suspicious, b.suspicious]).collect();
        let of = |judged: bool| {
            let chosen = pairs.iter().zip(&suspicious);
            let chosen = chosen.filter(|(_, marks)| judged != marks.contains(&true));
            let pairs: Vec<Pair> = chosen.map(|(pair, _)| pair.clone()).collect();
            (!pairs.is_empty()).then(|| stats::compare(&pairs, alternating, SEED))
        };
        let (judged, unjudged) = (of(true), of(false));
        let verdict = |time: &Ratio, is_judged: bool| match is_judged {
            true => time.verdict(threshold),
            false => Verdict::NotJudged,
        };
        let mut of_judged = judged.iter().flat_map(|ratios| &ratios.cells);
        let mut of_unjudged = unjudged.iter().flat_map(|ratios| &ratios.cells);
        let cells = common.iter().zip(suspicious).map(|((a, x, b, y), suspicious)| {
            let is_judged = !suspicious.contains(&true);
            let time = if is_judged { of_judged.next() } else { of_unjudged.next() };
            let Some(&time) = time else { unreachable!("each cell is in one of the two") };
            Compared {
                key: a.key.clone(),
                mean_ms: [x.combined.mean_ms, y.combined.mean_ms],
                trials: [a.trials.len(), b.trials.len()],
                suspicious,
                pace_micros: [pace(a), pace(b)],
                verdict: verdict(&time, is_judged),
                time,
                changes: changes(x, y, threshold),
            }
        });
        let cells: Vec<Compared> = cells.collect();
        let mut notes = notes(before, after, cells.len());
        let is_judged = judged.is_some();
        let Some(ratios) = judged.or(unjudged) else { unreachable!("there are cells in common") };
        if ratios.unmatched > 0 {
            notes.push(format!(
                "the machine's cores were near each other in one and far in the other for {} cells, \
                 which alone costs some of them a tenth: intervals are wide; more trials, or \
                 alternating builds (bench sweep --against), tell more",
                ratios.unmatched
            ));
        }
        let verdict = verdict(&ratios.all, is_judged);
        Ok(Self { threshold, cells, all: ratios.all, verdict, notes })
    }

    /// Whether a cell was judged at all.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.verdict != Verdict::NotJudged
    }

    /// Whether a cell, or all together, became slower or otherwise worse.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        let worse = |cell: &Compared| {
            cell.verdict == Verdict::Slower || cell.changes.iter().any(|change| change.worse)
        };
        self.verdict == Verdict::Slower || self.cells.iter().any(worse)
    }
}

/// The mean pace around a cell's trials, microseconds.
fn pace(cell: &Cell) -> Option<f64> {
    let paces = cell.trials.iter().filter_map(|trial| trial.pace);
    let paces: Vec<f64> =
        paces.map(|pace| (pace.before_micros + pace.after_micros) / 2.0).collect();
    (!paces.is_empty()).then(|| paces.iter().sum::<f64>() / paces.len() as f64)
}

fn observation(trial: &Trial, paced: bool) -> Observation {
    let blocks = &trial.result.combined.block_means_ms;
    let pace = trial.pace.filter(|_| paced);
    Observation {
        round: trial.round,
        // Results that were written without blocks have a mean.
        blocks: if blocks.is_empty() {
            vec![trial.result.combined.mean_ms]
        } else {
            blocks.clone()
        },
        pace: pace.map(|pace| [pace.before_micros, pace.after_micros]),
        handover: pace.and_then(|pace| pace.handover_nanos),
    }
}

/// What differs of what the plan, the weights and the images alone decide. Bytes differ a
/// little with the number of inferences, whose number is sent with each message.
fn changes(before: &RunResult, after: &RunResult, threshold: f64) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |what, values: [String; 2], worse| changes.push(Change { what, values, worse });
    if before.online_rounds != after.online_rounds {
        let [a, b] = [before.online_rounds, after.online_rounds];
        add("rounds", [a.to_string(), b.to_string()], b > a);
    }
    for (what, a, b) in [
        ("online bytes", before.online_bytes, after.online_bytes),
        ("offline bytes", before.offline_bytes, after.offline_bytes),
    ] {
        let (x, y) = (a as f64, b as f64);
        if (x - y).abs() > 0.005 * x.max(y) {
            add(what, [a.to_string(), b.to_string()], y > x * (1.0 + threshold));
        }
    }
    let (Some(a), Some(b)) = (before.accuracy, after.accuracy) else { return changes };
    if a.samples != b.samples {
        return changes;
    }
    let percent = |part: f64| format!("{:.2} %", 100.0 * part);
    if let (Some(a), Some(b)) = (a.plaintext, b.plaintext)
        && (a - b).abs() > 1e-9
    {
        add("plaintext accuracy", [percent(a), percent(b)], b < a);
    }
    // Masks are random, and with them the last bits of an output: an image on the fence may
    // fall to either side.
    let fence = 2.0 / a.samples as f64;
    if (a.secure - b.secure).abs() > fence {
        add("secure accuracy", [percent(a.secure), percent(b.secure)], b.secure < a.secure);
    }
    if let (Some(a), Some(b)) = (a.mean_kl_divergence, b.mean_kl_divergence)
        && (a > 2.0 * b || b > 2.0 * a)
    {
        add("KL divergence", [format!("{a:.1e}"), format!("{b:.1e}")], b > 2.0 * a);
    }
    changes
}

fn notes(before: &Results, after: &Results, common: usize) -> Vec<String> {
    let mut notes = Vec::new();
    let (a, b) = (&before.environment, &after.environment);
    if (&a.cpu, a.cores) != (&b.cpu, b.cores) {
        notes.push(format!(
            "measured on {} cores of {} and on {} of {}: the ratio says more about these than about \
             the builds",
            a.cores, a.cpu, b.cores, b.cpu
        ));
    }
    for (results, which) in [(before, "first"), (after, "second")] {
        let only = results.runs.len() - common;
        if only > 0 {
            notes.push(format!("{only} cells of the {which} are not compared"));
        }
        let single = results.runs.iter().any(|cell| cell.trials.len() == 1);
        if single {
            notes.push(format!(
                "the {which} has cells of one trial, which say nothing of how much launches differ: \
                 intervals are wide; sweeps with --trials 3 or more tell"
            ));
        }
        let suspicious = results.runs.iter().filter(|cell| cell.suspicious).count();
        if suspicious > 0 {
            notes.push(format!(
                "{suspicious} cells of the {which} are suspicious and not judged: the machine was \
                 uneven; measure them again"
            ));
        }
    }
    // What shapes a trial; the lists of what is measured may differ.
    let decisive = ["repetitions", "warmup", "warmupSeconds", "threads", "spinMicros"];
    let differences = before.sweep.settings.differences(&after.sweep.settings);
    let names: BTreeSet<&String> = differences
        .iter()
        .filter(|difference| decisive.iter().any(|name| difference.starts_with(name)))
        .collect();
    for difference in names {
        notes.push(format!("the settings differ: {difference}"));
    }
    notes
}

impl Comparison {
    /// The comparison as a table, for a terminal of so many columns.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("second against first, ms", Left),
            ("first", Right),
            ("second", Right),
            ("pace", Right),
            ("ratio", Right),
            ("interval", Right),
            ("verdict", Left),
        ]);
        let interval = |ratio: &Ratio| format!("{:.2} to {:.2}", ratio.low, ratio.high);
        for cell in &self.cells {
            let [first, second] = cell.mean_ms;
            let pace = match cell.pace_micros {
                [Some(first), Some(second)] => format!("{:.2}", second / first),
                _ => String::new(),
            };
            let fields = vec![
                cell.key.to_string(),
                format!("{first:.2}"),
                format!("{second:.2}"),
                pace,
                format!("{:.3}", cell.time.ratio),
                interval(&cell.time),
                cell.verdict.to_string(),
            ];
            table.row(fields, cell.changes.iter().map(ToString::to_string).collect());
        }
        let ratio = format!("{:.3}", self.all.ratio);
        let mut fields = vec!["all together".to_owned(), String::new(), String::new()];
        fields.extend([String::new(), ratio, interval(&self.all), self.verdict.to_string()]);
        table.row(fields, Vec::new());
        let mut text = table.render(width);
        let paced = self.cells.iter().any(|cell| !cell.pace_micros.contains(&None));
        let pace = "; pace: how many times as long a piece of work took that no build changes";
        let pace = if paced { pace } else { "" };
        text.push_str(&fill(
            &format!("interval: of the ratio, at a confidence of 95 %{pace}"),
            width,
        ));
        self.notes
            .iter()
            .for_each(|note| text.push_str(&wrap(&format!("note: {note}"), "", width)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::{key, trial};
    use crate::environment::Environment;
    use crate::pace::Pace;
    use crate::results::{SCHEMA_VERSION, Sweep};
    use crate::settings::Settings;
    use party::result::Accuracy;

    /// Two cells of three trials, the first of which takes so long.
    fn results(ms: f64) -> Results {
        let settings = Settings::default();
        let cell = |batch_size, ms: f64| {
            let trials = [1.0, 1.01, 0.99].map(|by| trial(&[ms * by, ms * by * 1.01]));
            Cell::of(CellId { batch_size, ..key() }, trials.into())
        };
        Results {
            schema_version: SCHEMA_VERSION,
            sweep: Sweep { id: format!("took {ms} ms"), name: "x".into(), settings },
            environment: Environment::read(),
            speeds: None,
            runs: vec![cell(1, ms), cell(10, 20.0)],
        }
    }

    #[test]
    fn cells_are_found_by_their_keys() {
        let (before, mut after) = (results(2.0), results(3.0));
        after.runs.reverse();
        let comparison = Comparison::of(&before, &after, 0.05).unwrap();
        let [small, large] = &comparison.cells[..] else { panic!("{comparison:?}") };
        assert_eq!((small.key.batch_size, large.key.batch_size), (1, 10));
        assert!((small.time.ratio - 1.5).abs() < 1e-9, "{small:?}");
        assert_eq!(small.verdict, Verdict::Slower);
        assert_eq!(large.verdict, Verdict::NoSignificantChange);
        assert!(comparison.is_regression());
        let back = Comparison::of(&after, &before, 0.05).unwrap();
        assert_eq!(back.cells[1].verdict, Verdict::Faster);
        assert!(!back.is_regression());
        let tolerant = Comparison::of(&before, &after, 0.6).unwrap();
        assert!(!tolerant.is_regression(), "below the threshold");
        let text = comparison.render(None);
        assert!(text.contains("1.500") && text.contains("slower"), "{text}");
        assert!(text.contains("all together"), "{text}");
    }

    #[test]
    fn what_time_does_not_touch_is_compared_exactly() {
        let (before, mut after) = (results(2.0), results(2.0));
        let run = after.runs[0].merged.as_mut().unwrap();
        run.online_rounds += 1;
        run.online_bytes *= 2;
        let comparison = Comparison::of(&before, &after, 0.05).unwrap();
        let what: Vec<&str> =
            comparison.cells[0].changes.iter().map(|change| change.what).collect();
        assert_eq!(what, ["rounds", "online bytes"]);
        assert!(
            comparison.is_regression()
                && comparison.render(None).contains("rounds: 6 and then 7, worse")
        );
        let back = Comparison::of(&after, &before, 0.05).unwrap();
        assert!(!back.is_regression(), "fewer are no regression");

        let accuracy = |plaintext, secure, divergence| Accuracy {
            samples: 1000,
            plaintext: Some(plaintext),
            secure,
            agreement: Some(1.0),
            mean_kl_divergence: Some(divergence),
        };
        let changes = |a, b| {
            let of = |accuracy| {
                let mut run = results(2.0).runs.remove(0).merged.unwrap();
                run.accuracy = Some(accuracy);
                run
            };
            let changes = changes(&of(a), &of(b), 0.05);
            changes.into_iter().map(|change| (change.what, change.worse)).collect::<Vec<_>>()
        };
        let usual = accuracy(0.99, 0.99, 1e-7);
        assert_eq!(changes(usual, usual), []);
        assert_eq!(changes(usual, accuracy(0.99, 0.991, 1.2e-7)), [], "an image on the fence");
        assert_eq!(changes(usual, accuracy(0.989, 0.99, 1e-7)), [("plaintext accuracy", true)]);
        assert_eq!(changes(usual, accuracy(0.99, 0.98, 1e-7)), [("secure accuracy", true)]);
        assert_eq!(changes(usual, accuracy(0.99, 0.99, 1e-5)), [("KL divergence", true)]);
        assert_eq!(changes(usual, accuracy(0.99, 0.99, 1e-9)), [("KL divergence", false)]);
    }

    #[test]
    fn suspicious_cells_are_shown_and_not_judged() {
        let (before, mut after) = (results(2.0), results(3.0));
        after.runs[0].suspicious = true;
        let comparison = Comparison::of(&before, &after, 0.05).unwrap();
        let verdicts = comparison.cells.iter().map(|cell| cell.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts, [Verdict::NotJudged, Verdict::NoSignificantChange]);
        assert!((comparison.cells[0].time.ratio - 1.5).abs() < 1e-9, "{comparison:?}");
        assert!((comparison.all.ratio - 1.0).abs() < 1e-9, "of what is judged: {comparison:?}");
        assert!(comparison.is_judged() && !comparison.is_regression());
        // What does not depend on time is judged still.
        after.runs[0].merged.as_mut().unwrap().online_rounds += 1;
        assert!(Comparison::of(&before, &after, 0.05).unwrap().is_regression());
        after.runs.iter_mut().for_each(|cell| cell.suspicious = true);
        let comparison = Comparison::of(&before, &after, 0.05).unwrap();
        assert!(!comparison.is_judged() && comparison.all.ratio > 1.1, "{comparison:?}");
    }

    #[test]
    fn the_machines_pace_is_shown() {
        let paced = |micros: f64| {
            let mut results = results(2.0);
            let pace = Pace { before_micros: micros, after_micros: micros, handover_nanos: None };
            let trials = results.runs.iter_mut().flat_map(|cell| &mut cell.trials);
            trials.for_each(|trial| trial.pace = Some(pace));
            results
        };
        let comparison = Comparison::of(&paced(100.0), &paced(110.0), 0.05).unwrap();
        assert_eq!(comparison.cells[0].pace_micros, [Some(100.0), Some(110.0)]);
        for width in [None, Some(60), Some(100)] {
            let text = comparison.render(width);
            assert!(text.contains("1.10"), "{text}");
            let longest = text.lines().map(str::len).max();
            assert!(width.is_none_or(|width| longest <= Some(width)), "{longest:?}: {text}");
        }
    }

    #[test]
    fn results_with_nothing_in_common_are_refused() {
        let (before, mut after) = (results(2.0), results(2.0));
        for cell in &mut after.runs {
            cell.key.network = "B".into();
        }
        let error = Comparison::of(&before, &after, 0.05).unwrap_err().to_string();
        assert!(error.contains("the first has 2 such as A Int64 Local, batch 1"), "{error}");
        // A cell that failed was not measured.
        let mut failed = results(2.0);
        failed.runs.iter_mut().for_each(|cell| cell.merged = None);
        assert!(Comparison::of(&before, &failed, 0.05).is_err());
    }

    #[test]
    fn what_to_know_before_believing_it_is_said() {
        let (before, mut after) = (results(2.0), results(2.0));
        assert_eq!(Comparison::of(&before, &after, 0.05).unwrap().notes, Vec::<String>::new());
        after.environment.cpu = "another".into();
        after.sweep.settings.threads = Some(2);
        after.runs.pop();
        after.runs[0].trials.truncate(1);
        after.runs[0].suspicious = true;
        let notes = Comparison::of(&before, &after, 0.05).unwrap().notes.join("\n");
        for expected in [
            "of another: the ratio says more about these",
            "1 cells of the first are not compared",
            "the second has cells of one trial",
            "1 cells of the second are suspicious",
            "the settings differ: threads none and 2",
        ] {
            assert!(notes.contains(expected), "{expected}: {notes}");
        }
    }
}
