//! What a sweep has measured so far, and what follows from it: pure.

use std::collections::{HashMap, VecDeque};

use super::journal::Record;
use super::schedule::{EXTRA_TRIALS, SUSPICIOUS_SPREAD, spread};
use crate::cell::{CellId, CellPlan, Trial};
use crate::floor::speeds::{Speeds, typical};
use crate::results::Cell;

/// A trial that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due<'a> {
    /// Of which cell.
    pub(super) cell: &'a CellPlan,
    /// By which build, from 0.
    pub(super) build: usize,
    /// Whether it scores the test set.
    pub(super) scored: bool,
}

/// The trials of one cell by one build.
#[derive(Debug, Default)]
struct Trials {
    records: Vec<Record>,
    /// Why the last that failed did.
    failure: Option<String>,
}

impl Trials {
    fn spread(&self) -> f64 {
        spread(self.records.iter().map(|record| &record.trial.result))
    }

    fn seconds(&self) -> impl Iterator<Item = f64> {
        self.records.iter().map(|record| record.seconds)
    }
}

/// All trials of a sweep.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    /// In the order of the settings.
    cells: &'a [CellPlan],
    /// How many trials of each cell were asked for.
    asked: u32,
    /// Of each build the trials of each cell.
    builds: Vec<HashMap<CellId, Trials>>,
    /// Trials that failed.
    failed: usize,
}

impl<'a> Tally<'a> {
    /// Of so many builds, each with so many trials of these cells; none has been made.
    pub(super) fn new(cells: &'a [CellPlan], builds: usize, asked: u32) -> Self {
        let none = || cells.iter().map(|cell| (cell.key.clone(), Trials::default())).collect();
        Self { cells, asked, builds: (0..builds).map(|_| none()).collect(), failed: 0 }
    }

    /// A trial has succeeded.
    pub(super) fn add(&mut self, record: Record) {
        if let Some(build) = self.builds.get_mut(record.build) {
            build.entry(record.key.clone()).or_default().records.push(record);
        }
    }

    /// A trial of a cell by a build has failed.
    pub(super) fn fail(&mut self, build: usize, key: &CellId, why: String) {
        self.failed += 1;
        if let Some(trials) = self.builds.get_mut(build).and_then(|build| build.get_mut(key)) {
            trials.failure = Some(why);
        }
    }

    fn trials(&self, build: usize, key: &CellId) -> Option<&Trials> {
        self.builds.get(build)?.get(key)
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.builds.iter().flat_map(HashMap::values).flat_map(|trials| &trials.records)
    }

    /// What the floors of all trials come from.
    pub(super) fn speeds(&self) -> Option<Speeds> {
        let floors = self.records().filter_map(|record| record.trial.floor.as_ref());
        typical(floors.map(|floor| &floor.speeds))
    }

    /// Trials that have succeeded.
    pub(super) fn done(&self) -> usize {
        self.records().count()
    }

    /// Trials that were asked for, of all cells and builds.
    pub(super) fn planned(&self) -> usize {
        self.cells.len() * self.builds.len() * self.asked as usize
    }

    /// Whether a cell's trials differ too much. One trial differs from nothing.
    fn is_suspicious(&self, build: usize, key: &CellId) -> bool {
        let too_much = |trials: &Trials| trials.spread() > SUSPICIOUS_SPREAD;
        self.asked > 1 && self.trials(build, key).is_some_and(too_much)
    }

    /// Why a round has more trials than were asked for; nothing of one that was.
    pub(super) fn why_again(&self, round: u32, due: &VecDeque<Due<'a>>) -> Option<String> {
        if round < self.asked {
            return None;
        }
        let mut cells: Vec<&CellId> = due.iter().map(|due| &due.cell.key).collect();
        cells.dedup();
        let spread = |key: &CellId| {
            let spreads = (0..self.builds.len()).filter_map(|build| self.trials(build, key));
            spreads.map(Trials::spread).fold(0.0, f64::max)
        };
        let mut text = format!(
            "{} more (at most {EXTRA_TRIALS} times) of what differs by more than {:.0} % from \
             trial to trial:",
            match due.len() {
                1 => "1 trial".into(),
                count => format!("{count} trials"),
            },
            SUSPICIOUS_SPREAD * 100.0,
        );
        for key in cells {
            text.push_str(&format!("\n  {key}: by {:.0} %", spread(key) * 100.0));
        }
        Some(text)
    }

    /// The trials of a round that are still to be made, cells in this order. Builds are next to
    /// each other, and which of them is first changes. A round beyond those asked for has the
    /// cells that are suspicious with one of the builds.
    ///
    /// Until one has succeeded, a network's trials score the test set if `scoring`.
    pub(super) fn due(
        &self,
        round: u32,
        order: Vec<&'a CellPlan>,
        scoring: bool,
    ) -> VecDeque<Due<'a>> {
        let builds = self.builds.len();
        let suspicious = |key| (0..builds).any(|build| self.is_suspicious(build, key));
        let cells = order.into_iter().filter(|cell| round < self.asked || suspicious(&cell.key));
        let both = cells
            .flat_map(|cell| (0..builds).map(move |turn| (cell, (turn + round as usize) % builds)));
        both.filter_map(|(cell, build)| {
            let records = &self.trials(build, &cell.key)?.records;
            let unscored = records.iter().all(|record| record.trial.result.accuracy.is_none());
            let scored = scoring && cell.graph.is_none() && unscored;
            let done = records.iter().any(|record| record.trial.round == round);
            (!done).then_some(Due { cell, build, scored })
        })
        .collect()
    }

    /// What people call a cell: with which build, if there are two.
    pub(super) fn name(&self, due: Due<'_>) -> String {
        let key = &due.cell.key;
        match (self.builds.len(), due.build) {
            (1, _) => key.to_string(),
            (_, 0) => format!("{key}, first build"),
            _ => format!("{key}, second build"),
        }
    }

    /// How far the sweep is: `7/54 `; with a single trial of each cell nothing is counted.
    pub(super) fn place(&self, round: u32) -> String {
        let extra = self.records().filter(|record| record.trial.round >= self.asked).count();
        if round >= self.asked {
            return format!("again, time {} of {EXTRA_TRIALS}: ", round - self.asked + 1);
        }
        format!("{}/{} ", self.done() - extra + self.failed, self.planned())
    }

    /// How long what was asked for will still take, with so many trials at a time.
    pub(super) fn left(&self, workers: usize) -> String {
        let seconds = self.builds.iter().flat_map(HashMap::values).map(Trials::seconds);
        let done: Vec<Vec<f64>> = seconds.map(Iterator::collect).collect();
        match (estimate(&done, self.asked) / workers as f64).round() {
            0.0 => String::new(),
            seconds if seconds < 100.0 => format!(" [{seconds} s left]"),
            seconds => format!(" [{:.0} min left]", seconds / 60.0),
        }
    }

    /// The cells of a build with what was measured of them, in the order of the settings.
    pub(super) fn cells(&self, build: usize) -> Vec<Cell> {
        let cell = |plan: &CellPlan| {
            let found = self.trials(build, &plan.key);
            let records = found.into_iter().flat_map(|found| &found.records);
            let mut trials: Vec<Trial> = records.map(|record| record.trial.clone()).collect();
            trials.sort_by_key(|trial| (trial.started_unix_seconds, trial.round));
            let extra = trials.iter().any(|trial| trial.round >= self.asked);
            Cell {
                suspicious: extra || self.is_suspicious(build, &plan.key),
                failure: found.and_then(|found| found.failure.clone()),
                ..Cell::of(plan.key.clone(), trials)
            }
        };
        self.cells.iter().map(cell).collect()
    }
}

/// Seconds that the trials take that are not done, so many of each cell; `done` has for each
/// cell the seconds of those that are. Each takes as long as others of its cell took, or as
/// those of the other cells where there was none.
fn estimate(done: &[Vec<f64>], asked: u32) -> f64 {
    let mean = |seconds: &[f64]| seconds.iter().sum::<f64>() / seconds.len() as f64;
    let all: Vec<f64> = done.iter().flatten().copied().collect();
    if all.is_empty() {
        return 0.0;
    }
    let of = |cell: &Vec<f64>| {
        let each = if cell.is_empty() { mean(&all) } else { mean(cell) };
        each * (f64::from(asked) - cell.len() as f64).max(0.0)
    };
    done.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_estimated_from_what_was_done() {
        let none = Vec::new;
        assert_eq!(estimate(&[none(), none(), none()], 2), 0.0);
        // A cell with one trial of 2 s has another; the other two have two of the mean.
        assert_eq!(estimate(&[vec![2.0], none(), none()], 2), 2.0 + 2.0 * 2.0 * 2.0);
        assert_eq!(estimate(&[vec![1.0, 3.0], vec![8.0]], 2), 8.0);
        assert_eq!(estimate(&[vec![1.0, 1.0]], 1), 0.0);
    }
}
