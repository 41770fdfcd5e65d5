//! `bench sweep`: networks, batch sizes, number formats and truncations, measured by turns.
//!
//! Rounds follow each other, and each has a trial of every cell in an order of its own: what
//! the machine does for a minute lands on one trial of several cells instead of on all
//! trials of one. What came of a trial is kept at once ([`journal`]), so that a sweep goes
//! on where it was interrupted.
//!
//! Two builds can take turns too: then each trial of one has a trial of the other beside it,
//! and what the machine does meanwhile happens to both.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use party::config::OfflineMode;
use party::result::RunResult;
use party::run::Progress;

use crate::environment::{Environment, unix_seconds};
use crate::floor::{Floors, Measurement};
use crate::launch::local::LaunchError;
use crate::launch::{Launcher, Outcome, Request, TrialError};
use crate::progress::Reporter;
use crate::results::{Cell, Place, Results, SCHEMA_VERSION, Sweep, Trial};

pub mod journal;
pub mod pace;
pub mod schedule;
pub mod settings;

use journal::{Done, Head, Journal};
use schedule::{EXTRA_TRIALS, SUSPICIOUS_SPREAD};
use settings::Planned;
pub use settings::Settings;

/// How a sweep is run, apart from what it measures.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the journal; without it nothing is kept before the end.
    pub journal: Option<PathBuf>,
    /// Trials at the same time; on one machine they would only disturb each other.
    pub parallel: usize,
    /// Whether the first trial that fails ends it all.
    pub stop_at_failure: bool,
    /// In the order of the cells instead of a drawn one.
    pub in_order: bool,
    /// This program, for the [floor](crate::floor).
    pub bench: PathBuf,
    /// What standard output is told of before the end.
    pub table: Option<Table>,
}

/// A table that is printed while the sweep goes on.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What is above its rows.
    pub head: fn(&Environment, &Settings) -> String,
    /// The row of a trial.
    pub row: fn(&RunResult) -> String,
}

/// What a sweep came to.
#[derive(Debug)]
pub struct Finished {
    /// What was measured of each build.
    pub results: Vec<Results>,
    /// How many trials were there from before.
    pub resumed: usize,
}

/// A sweep that runs.
struct Run<'a> {
    settings: &'a Settings,
    options: &'a Options,
    /// One for each build.
    launchers: &'a [&'a dyn Launcher],
    interrupted: &'a AtomicBool,
    /// Of the first build, and then the same of the next.
    cells: Vec<Planned>,
    journal: Option<Journal>,
    done: Vec<Done>,
    /// Why a cell's last failed trial failed.
    failures: Vec<Option<String>>,
    /// Trials that failed.
    failed: usize,
    /// Trials that were to be made from the beginning.
    planned: usize,
}

/// Measures everything, and tells of it on standard error. Each launcher has a build of its
/// own; there must be one.
///
/// # Errors
/// If the settings describe no sweep, the journal is of another or cannot be written, no
/// trial can succeed, or on interruption. A cell whose trial fails says why; the sweep goes
/// on.
pub fn run(
    settings: &Settings,
    options: &Options,
    launchers: &[&dyn Launcher],
    interrupted: &AtomicBool,
) -> anyhow::Result<Finished> {
    let cells = settings.cells()?;
    let cells = launchers.iter().flat_map(|_| cells.clone()).collect::<Vec<_>>();
    let builds: Vec<String> = launchers.iter().map(|launcher| launcher.commit()).collect();
    let mut reporter = Reporter::new();
    let journal = options.journal.as_deref().map(Journal::in_folder);
    let environment = Environment::read();
    let resumed = match &journal {
        Some(journal) => journal.resume(settings, &environment, &builds)?,
        None => None,
    };
    let mut sweep = Run {
        settings,
        options,
        launchers,
        interrupted,
        failures: vec![None; cells.len()],
        failed: 0,
        planned: cells.len() * settings.trials as usize,
        cells,
        journal,
        done: Vec::new(),
    };
    let head = match resumed {
        Some(head) => {
            sweep.find_kept()?;
            let (done, of) = (sweep.done.len(), sweep.planned);
            reporter.line(&format!("going on after {done} of {of} trials"));
            head
        }
        None => sweep.begin(environment, builds, &mut reporter)?,
    };
    if let Some(table) = options.table {
        reporter.print(&(table.head)(&head.environment, settings))?;
    }
    let resumed = sweep.done.len();
    launchers.iter().for_each(|launcher| launcher.belongs_to(&head.sweep.id));
    let outcome = sweep.rounds(&mut reporter);
    reporter.finish();
    outcome?;
    let results = (0..launchers.len()).map(|build| sweep.results(&head, build)).collect();
    Ok(Finished { results, resumed })
}

/// Forgets what was kept of a sweep whose results are written, unless trials failed: the
/// same command then tries those again. Returns whether it did.
///
/// # Errors
/// If the journal cannot be removed.
pub fn forget(results: &[Results], out: &Path) -> anyhow::Result<bool> {
    let mut cells = results.iter().flat_map(|results| &results.runs);
    let complete = cells.all(|cell| cell.failure.is_none());
    if complete {
        Journal::in_folder(out).end()?;
    }
    Ok(complete)
}

/// A name that no other sweep has: of ten characters, since names of resources are short.
fn fresh_id() -> anyhow::Result<String> {
    let random = spdz::prg::SessionId::fresh()?.to_string();
    Ok(format!("s{}", &random[..9]))
}

impl Run<'_> {
    /// What there is before the first trial.
    fn begin(
        &self,
        environment: Environment,
        builds: Vec<String>,
        reporter: &mut Reporter,
    ) -> anyhow::Result<Head> {
        let (environment, speeds, floors_ms) = match self.settings.on {
            Place::Cluster => (environment, None, vec![None; self.distinct()]),
            Place::Local => self.floors(environment, reporter)?,
        };
        let settings = self.settings.clone();
        let sweep = Sweep { id: fresh_id()?, name: settings.name.clone(), settings };
        let schema_version = SCHEMA_VERSION;
        let head = Head { schema_version, sweep, environment, builds, speeds, floors_ms };
        if let Some(journal) = &self.journal {
            journal.begin(&head)?;
        }
        Ok(head)
    }

    /// The floors of networks; a graph may have products that a floor does not know.
    fn floors(
        &self,
        environment: Environment,
        reporter: &mut Reporter,
    ) -> anyhow::Result<(Environment, Option<crate::floor::Speeds>, Vec<Option<f64>>)> {
        let cells = &self.cells[..self.distinct()];
        let networks = cells.iter().filter(|cell| cell.graph.is_none());
        let measurement = Measurement {
            computations: networks.map(|cell| cell.computation.clone()).collect(),
            program: self.options.bench.clone(),
            transport: self.settings.transport(),
        };
        let report = measurement.run(environment, reporter, self.interrupted)?;
        let mut entries = report.entries.iter();
        // In the order of the cells.
        let floor = |cell: &Planned| {
            let entry = if cell.graph.is_some() { None } else { entries.next() }?;
            let floors = match cell.key.conditions {
                None => entry.floors,
                Some(conditions) => {
                    let speeds = report.speeds.over(&conditions);
                    let cores = report.environment.cores;
                    Floors::of(&entry.work, &speeds, entry.products_ms, cores)
                }
            };
            Some(match cell.key.offline_mode {
                OfflineMode::Inline => floors.combined().total_ms(),
                OfflineMode::Ahead => floors.online.total_ms(),
            })
        };
        let floors = cells.iter().map(floor).collect();
        Ok((report.environment, Some(report.speeds), floors))
    }

    /// Takes over the trials that were kept.
    fn find_kept(&mut self) -> anyhow::Result<()> {
        if let Some(journal) = &self.journal {
            let keys: Vec<_> = self.cells.iter().map(|cell| &cell.key).collect();
            self.done = journal.kept(&keys, self.settings.trials + EXTRA_TRIALS)?;
        }
        Ok(())
    }

    /// The rounds that were asked for, and then those of suspicious cells.
    fn rounds(&mut self, reporter: &mut Reporter) -> anyhow::Result<()> {
        let Settings { trials, seed, .. } = *self.settings;
        for round in 0..trials + EXTRA_TRIALS {
            let distinct = self.distinct();
            let order = match self.options.in_order {
                true => (0..distinct).collect(),
                false => schedule::order(distinct, round, seed),
            };
            // Builds are next to each other, and which of them is first changes.
            let builds = self.launchers.len();
            let order = order.into_iter().flat_map(|cell| {
                (0..builds).map(move |turn| cell + (turn + round as usize) % builds * distinct)
            });
            let extra = round >= trials;
            let due = order.filter(|&cell| {
                let done = self.done.iter().any(|d| d.cell == cell && d.trial.round == round);
                let mut builds = (cell % distinct..self.cells.len()).step_by(distinct);
                !done && (!extra || builds.any(|cell| self.is_suspicious(cell)))
            });
            let due: VecDeque<usize> = due.collect();
            if !due.is_empty() {
                self.round(round, due, reporter)?;
            }
        }
        Ok(())
    }

    /// How many cells each build has.
    fn distinct(&self) -> usize {
        self.cells.len() / self.launchers.len()
    }

    /// Whether a cell's trials differ too much. One trial differs from nothing.
    fn is_suspicious(&self, cell: usize) -> bool {
        self.settings.trials > 1 && self.spread(cell) > SUSPICIOUS_SPREAD
    }

    fn spread(&self, cell: usize) -> f64 {
        let mine = self.done.iter().filter(|done| done.cell == cell);
        schedule::spread(mine.map(|done| &done.trial.result))
    }

    /// A trial of each of these cells, so many at a time.
    fn round(
        &mut self,
        round: u32,
        due: VecDeque<usize>,
        reporter: &mut Reporter,
    ) -> anyhow::Result<()> {
        let workers = self.options.parallel.clamp(1, due.len());
        let scored: Vec<bool> = (0..self.cells.len()).map(|cell| self.is_scored(cell)).collect();
        let due = Mutex::new(due);
        // Set when the others need not begin another trial.
        let over = AtomicBool::new(false);
        let (sender, events) = mpsc::channel();
        let (launchers, interrupted) = (self.launchers, self.interrupted);
        let distinct = self.distinct();
        let stop_at_failure = self.options.stop_at_failure;
        let cells = std::mem::take(&mut self.cells);
        let outcome = std::thread::scope(|scope| {
            for _ in 0..workers {
                let (sender, cells, scored, due, over) =
                    (sender.clone(), &cells, &scored, &due, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let next = due.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(cell) = next else { return };
                        let (planned, scored) = (&cells[cell], scored[cell]);
                        // Nobody listens any more only when all is over.
                        let _ = sender.send(Event::Begun(cell));
                        let (began, started_unix_seconds) = (Instant::now(), unix_seconds());
                        let outcome = launchers[cell / distinct].launch(
                            &Request { planned, cell, round, scored },
                            &mut |progress| drop(sender.send(Event::Progress(progress))),
                            interrupted,
                        );
                        let took = began.elapsed();
                        // Before anybody is told: this worker must not begin another.
                        if ends_the_sweep(&outcome, stop_at_failure) {
                            over.store(true, Ordering::Relaxed);
                        }
                        let ended = Ended { cell, took, started_unix_seconds, outcome };
                        let _ = sender.send(Event::Ended(Box::new(ended)));
                    }
                });
            }
            drop(sender);
            let mut outcome = Ok(());
            for event in events {
                let handled = self.handle(&cells, round, workers, event, reporter);
                if outcome.is_ok() && handled.is_err() {
                    over.store(true, Ordering::Relaxed);
                    outcome = handled;
                }
            }
            outcome
        });
        self.cells = cells;
        outcome
    }

    /// Whether the next trial of a cell is the one that scores the test set.
    fn is_scored(&self, cell: usize) -> bool {
        let mut mine = self.done.iter().filter(|done| done.cell == cell);
        self.settings.accuracy_samples > 0
            && self.cells[cell].graph.is_none()
            && mine.all(|done| done.trial.result.accuracy.is_none())
    }

    fn handle(
        &mut self,
        cells: &[Planned],
        round: u32,
        workers: usize,
        event: Event,
        reporter: &mut Reporter,
    ) -> anyhow::Result<()> {
        match event {
            Event::Begun(cell) => {
                let key = self.name(cells, cell);
                let label = match workers {
                    1 => format!("{}{key}", self.place(round)),
                    _ => format!("{}{workers} at a time", self.place(round)),
                };
                reporter.begin(&label, "starting the parties");
            }
            Event::Progress(progress) => {
                if workers == 1 {
                    reporter.update(progress);
                }
            }
            Event::Ended(ended) => {
                let Ended { cell, took, started_unix_seconds, outcome } = *ended;
                let key = self.name(cells, cell);
                let Outcome { result, pace, nodes } = match outcome {
                    Ok(outcome) => outcome,
                    Err(TrialError::Interrupted) => return Err(LaunchError::Interrupted.into()),
                    Err(TrialError::Failed(error)) if !self.options.stop_at_failure => {
                        let why = format!("{error:#}");
                        self.failed += 1;
                        reporter.line(&format!("{}{key}: failed: {why}", self.place(round)));
                        self.failures[cell] = Some(why);
                        return Ok(());
                    }
                    Err(TrialError::Failed(error) | TrialError::Hopeless(error)) => {
                        return Err(error).with_context(|| format!("{key} failed"));
                    }
                };
                let trial = Trial { round, started_unix_seconds, pace, nodes, result };
                let done = Done { cell, seconds: took.as_secs_f64(), trial };
                if let Some(journal) = &self.journal {
                    journal.keep(&cells[cell].key, &done)?;
                }
                let line = summary(&done.trial);
                let row = self.options.table.map(|table| (table.row)(&done.trial.result));
                self.done.push(done);
                if let Some(row) = row {
                    return Ok(reporter.print(&row)?);
                }
                reporter.line(&format!(
                    "{}{key}: {line}{}",
                    self.place(round),
                    self.left(cells, workers)
                ));
            }
        }
        Ok(())
    }

    /// What people call a cell: with which build, if there are two.
    fn name(&self, cells: &[Planned], cell: usize) -> String {
        let key = &cells[cell].key;
        match (self.launchers.len(), cell * self.launchers.len() / cells.len()) {
            (1, _) => key.to_string(),
            (_, 0) => format!("{key}, first build"),
            _ => format!("{key}, second build"),
        }
    }

    /// How far the sweep is: `7/54 `; with a single trial of each cell nothing is counted.
    fn place(&self, round: u32) -> String {
        let extra = self.done.iter().filter(|d| d.trial.round >= self.settings.trials).count();
        if round >= self.settings.trials {
            return format!("again {} ", extra + 1);
        }
        let done = self.done.len() - extra + self.failed;
        format!("{done}/{} ", self.planned)
    }

    /// How long what was asked for will still take: each trial as long as others of its cell
    /// took, or as those of the other cells where there was none.
    fn left(&self, cells: &[Planned], workers: usize) -> String {
        let seconds = estimate(
            cells.len(),
            self.settings.trials,
            &self.done.iter().map(|done| (done.cell, done.seconds)).collect::<Vec<_>>(),
        );
        match (seconds / workers as f64).round() {
            0.0 => String::new(),
            seconds if seconds < 100.0 => format!(" [{seconds} s left]"),
            seconds => format!(" [{:.0} min left]", seconds / 60.0),
        }
    }

    /// What was measured of a build.
    fn results(&self, head: &Head, build: usize) -> Results {
        let Head { schema_version, sweep, environment, builds, speeds, floors_ms } = head.clone();
        let launcher = self.launchers[build];
        let environment = Environment {
            cluster: launcher.cluster().or(environment.cluster),
            commit: builds[build].clone(),
            ..environment
        };
        let distinct = self.distinct();
        let cell = |(index, planned): (usize, &Planned)| {
            let mut mine: Vec<&Done> = self.done.iter().filter(|done| done.cell == index).collect();
            mine.sort_by_key(|done| (done.trial.started_unix_seconds, done.trial.round));
            let trials: Vec<Trial> = mine.iter().map(|done| done.trial.clone()).collect();
            let extra = trials.iter().any(|trial| trial.round >= self.settings.trials);
            let floor = floors_ms.get(index % distinct).copied().flatten();
            Cell {
                suspicious: extra || self.is_suspicious(index),
                failure: self.failures[index].clone(),
                ..Cell::of(planned.key.clone(), floor, trials)
            }
        };
        let cells = self.cells.iter().enumerate().skip(build * distinct).take(distinct);
        let runs = cells.map(cell).collect();
        Results { schema_version, sweep, environment, speeds, runs }
    }
}

/// Seconds that the trials take that are not done, of so many cells with so many trials
/// each; `done` has a cell and its seconds for each that is.
fn estimate(cells: usize, trials: u32, done: &[(usize, f64)]) -> f64 {
    if done.is_empty() {
        return 0.0;
    }
    let all = done.iter().map(|(_, seconds)| seconds).sum::<f64>() / done.len() as f64;
    let of = |cell: usize| {
        let mine: Vec<f64> =
            done.iter().filter(|(other, _)| *other == cell).map(|(_, seconds)| *seconds).collect();
        let mean = if mine.is_empty() { all } else { mine.iter().sum::<f64>() / mine.len() as f64 };
        mean * (f64::from(trials) - mine.len() as f64).max(0.0)
    };
    (0..cells).map(of).sum()
}

/// Whether no trial is to follow this one.
fn ends_the_sweep(outcome: &Result<Outcome, TrialError>, stop_at_failure: bool) -> bool {
    match outcome {
        Ok(_) => false,
        Err(TrialError::Failed(_)) => stop_at_failure,
        Err(TrialError::Interrupted | TrialError::Hopeless(_)) => true,
    }
}

/// What a worker tells.
enum Event {
    Begun(usize),
    Progress(Progress),
    Ended(Box<Ended>),
}

/// A trial of a cell that is over.
struct Ended {
    cell: usize,
    took: Duration,
    started_unix_seconds: u64,
    outcome: Result<Outcome, TrialError>,
}

/// A trial in a few words.
fn summary(trial: &Trial) -> String {
    let run = &trial.result;
    let accuracy = run.accuracy.as_ref().map_or(String::new(), |accuracy| {
        let clear = accuracy.plaintext.map_or(String::new(), |plaintext| {
            format!(", {:.2} % in the clear", plaintext * 100.0)
        });
        format!(", accuracy {:.2} % secure{clear}", accuracy.secure * 100.0)
    });
    let (combined, online) = (run.combined.mean_ms, run.online.mean_ms);
    format!("{combined:.2} ms combined, {online:.2} ms online{accuracy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::result;
    use party::result::{Accuracy, RunResult};
    use std::collections::BTreeMap;

    /// Reports what it is told to, without parties.
    struct Script<F> {
        launched: Mutex<Vec<(usize, u32, bool)>>,
        outcome: F,
    }

    impl<F: Fn(usize, u32) -> Result<f64, TrialError>> Script<F> {
        fn new(outcome: F) -> Self {
            Self { launched: Mutex::default(), outcome }
        }

        /// Cell and round of each trial.
        fn launched(&self) -> Vec<(usize, u32)> {
            let launched = self.launched.lock().unwrap();
            launched.iter().map(|(cell, round, _)| (*cell, *round)).collect()
        }
    }

    impl<F: Fn(usize, u32) -> Result<f64, TrialError> + Sync> Launcher for Script<F> {
        fn launch(
            &self,
            trial: &Request<'_>,
            _: &mut dyn FnMut(Progress),
            _: &AtomicBool,
        ) -> Result<Outcome, TrialError> {
            let Request { cell, round, scored, planned } = *trial;
            self.launched.lock().unwrap().push((cell, round, scored));
            let median = (self.outcome)(cell, round)?;
            let accuracy = scored.then_some(Accuracy {
                samples: 10,
                plaintext: Some(1.0),
                secure: 1.0,
                agreement: Some(1.0),
                mean_kl_divergence: Some(0.0),
            });
            let network = planned.key.network.clone();
            let result = RunResult { network, accuracy, ..result(&[median; 4]) };
            Ok(Outcome { result, pace: None, nodes: BTreeMap::new() })
        }
    }

    /// Nine cells, three trials each, in a cluster: no floors are measured.
    fn settings() -> Settings {
        Settings {
            on: Place::Cluster,
            batch_sizes: vec![1, 2, 3],
            formats: vec![spdz::plan::NumberFormat::Int64],
            accuracy_samples: 10,
            ..Settings::default()
        }
    }

    fn sweep<F: Fn(usize, u32) -> Result<f64, TrialError> + Sync>(
        settings: &Settings,
        out: &Path,
        script: &Script<F>,
    ) -> anyhow::Result<Finished> {
        let options = Options {
            journal: Some(out.into()),
            parallel: 1,
            stop_at_failure: false,
            in_order: false,
            bench: PathBuf::new(),
            table: None,
        };
        run(settings, &options, &[script], &AtomicBool::new(false))
    }

    #[test]
    fn rounds_follow_each_other_and_the_first_is_scored() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|cell, _| Ok(1.0 + cell as f64));
        let results = sweep(&settings(), folder.path(), &script).unwrap().results.remove(0);
        let launched = script.launched();
        assert_eq!(launched.len(), 27);
        for (round, trials) in launched.chunks(9).enumerate() {
            assert!(trials.iter().all(|(_, of)| *of == round as u32), "{launched:?}");
            let cells: Vec<usize> = trials.iter().map(|(cell, _)| *cell).collect();
            assert_eq!(cells, schedule::order(9, round as u32, 1));
        }
        assert!(
            script
                .launched
                .lock()
                .unwrap()
                .iter()
                .all(|(_, round, scored)| *scored == (*round == 0))
        );
        assert_eq!(results.runs.len(), 9);
        for (index, cell) in results.runs.iter().enumerate() {
            assert_eq!((cell.trials.len(), cell.suspicious, &cell.failure), (3, false, &None));
            let merged = cell.merged.as_ref().unwrap();
            assert_eq!((merged.repetitions, merged.combined.mean_ms), (12, 1.0 + index as f64));
            assert_eq!(merged.accuracy.map(|accuracy| accuracy.samples), Some(10));
        }
        // The results' own place keeps them, and then the journal is of no more use.
        results.write(folder.path()).unwrap();
        assert_eq!(Results::read(folder.path()).unwrap(), results);
        assert!(forget(std::slice::from_ref(&results), folder.path()).unwrap());
        assert!(!folder.path().join(journal::JOURNAL_FOLDER).exists());
    }

    #[test]
    fn an_interrupted_sweep_goes_on_without_repeating_a_trial() {
        let folder = tempfile::tempdir().unwrap();
        let left = std::sync::atomic::AtomicUsize::new(13);
        let interrupted = Script::new(|_, _| match left.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(TrialError::Interrupted),
            _ => Ok(1.0),
        });
        let error = sweep(&settings(), folder.path(), &interrupted).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(LaunchError::Interrupted)), "{error:#}");
        let first = interrupted.launched();
        assert_eq!(first.len(), 14, "the last was interrupted");

        let other = Settings { repetitions: 7, ..settings() };
        let error = sweep(&other, folder.path(), &interrupted).unwrap_err().to_string();
        assert!(error.contains("repetitions 7 and 100"), "{error}");

        let script = Script::new(|_, _| Ok(1.0));
        let finished = sweep(&settings(), folder.path(), &script).unwrap();
        assert_eq!(finished.resumed, 13);
        let second = script.launched();
        assert_eq!(second.len(), 27 - 13);
        assert_eq!(second[0], first[13], "it goes on in the order that was drawn");
        assert!(second.iter().all(|trial| !first[..13].contains(trial)));
        assert!(finished.results[0].runs.iter().all(|cell| cell.trials.len() == 3));
    }

    #[test]
    fn a_cell_that_fails_says_why_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|cell, round| match (cell, round) {
            (4, _) => Err(TrialError::Failed(anyhow::anyhow!("no memory"))),
            (5, 0) => Err(TrialError::Failed(anyhow::anyhow!("bad luck"))),
            _ => Ok(1.0),
        });
        let results = sweep(&settings(), folder.path(), &script).unwrap().results.remove(0);
        let [failed, unlucky] = [&results.runs[4], &results.runs[5]];
        assert_eq!((&failed.merged, failed.failure.as_deref()), (&None, Some("no memory")));
        assert_eq!((unlucky.trials.len(), unlucky.failure.as_deref()), (2, Some("bad luck")));
        assert!(unlucky.merged.as_ref().unwrap().accuracy.is_some(), "a later trial is scored");
        assert!(!forget(std::slice::from_ref(&results), folder.path()).unwrap());

        let script = Script::new(|_, _| Ok(1.0));
        let results = sweep(&settings(), folder.path(), &script).unwrap().results.remove(0);
        let again = script.launched();
        assert_eq!(again.len(), 4);
        assert!(
            again.contains(&(5, 0)) && again.iter().filter(|(cell, _)| *cell == 4).count() == 3
        );
        assert!(results.runs.iter().all(|cell| cell.failure.is_none() && cell.trials.len() == 3));
    }

    #[test]
    fn what_no_trial_can_survive_ends_the_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| Err(TrialError::Hopeless(anyhow::anyhow!("no operator"))));
        let error = format!("{:#}", sweep(&settings(), folder.path(), &script).unwrap_err());
        assert!(error.ends_with("failed: no operator"), "{error}");
        assert_eq!(script.launched().len(), 1);
    }

    #[test]
    fn a_suspicious_cell_gets_more_trials_and_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        // One trial in a slow minute; and a cell that is never twice the same.
        let script = Script::new(|cell, round| match (cell, round) {
            (2, 1) => Ok(1.2),
            (3, round) => Ok(f64::from(round + 1)),
            (4, 1) => Ok(1.1),
            _ => Ok(1.0),
        });
        let results = sweep(&settings(), folder.path(), &script).unwrap().results.remove(0);
        let marked: Vec<(usize, bool)> =
            results.runs.iter().map(|cell| (cell.trials.len(), cell.suspicious)).collect();
        assert_eq!(marked[2..5], [(5, true), (5, true), (3, false)]);
        assert!(
            marked.iter().enumerate().all(|(cell, of)| [2, 3].contains(&cell) || *of == (3, false))
        );
    }

    #[test]
    fn trials_at_the_same_time_are_all_made() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| Ok(1.0));
        let options = Options {
            journal: Some(folder.path().into()),
            parallel: 4,
            stop_at_failure: false,
            in_order: false,
            bench: PathBuf::new(),
            table: None,
        };
        let finished = run(&settings(), &options, &[&script], &AtomicBool::new(false)).unwrap();
        assert!(finished.results[0].runs.iter().all(|cell| cell.trials.len() == 3));
        let mut launched = script.launched();
        launched.sort_unstable();
        launched.dedup();
        assert_eq!(launched.len(), 27);
    }

    #[test]
    fn two_builds_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [1.0, 2.0].map(|ms| Script::new(move |_, _| Ok(ms)));
        let options = Options {
            journal: Some(folder.path().into()),
            parallel: 1,
            stop_at_failure: false,
            in_order: false,
            bench: PathBuf::new(),
            table: None,
        };
        let launchers: [&dyn Launcher; 2] = [&first, &second];
        let finished = run(&settings(), &options, &launchers, &AtomicBool::new(false)).unwrap();
        let [before, after] = &finished.results[..] else { panic!("{:?}", finished.results) };
        assert_eq!(
            (before.runs.len(), after.runs.len(), &before.sweep.id),
            (9, 9, &after.sweep.id)
        );
        for (results, ms) in [(before, 1.0), (after, 2.0)] {
            assert!(results.runs.iter().all(|cell| cell.trials.len() == 3));
            let means = results.runs.iter().map(|cell| cell.merged.as_ref().unwrap());
            assert!(means.into_iter().all(|run| run.combined.mean_ms == ms));
        }
        assert!(first.launched().iter().all(|(cell, _)| *cell < 9));
        let others: Vec<(usize, u32)> =
            second.launched().iter().map(|(cell, round)| (cell - 9, *round)).collect();
        assert_eq!(others, first.launched(), "each beside the other");
        // Another number of builds is another sweep.
        let error = sweep(&settings(), folder.path(), &first).unwrap_err().to_string();
        assert!(error.contains("the parties' commits"), "{error}");
    }

    #[test]
    fn what_is_left_is_estimated_from_what_was_done() {
        assert_eq!(estimate(3, 2, &[]), 0.0);
        // A cell with one trial of 2 s has another; the other two have two of the mean.
        assert_eq!(estimate(3, 2, &[(0, 2.0)]), 2.0 + 2.0 * 2.0 * 2.0);
        assert_eq!(estimate(2, 2, &[(0, 1.0), (0, 3.0), (1, 8.0)]), 8.0);
        assert_eq!(estimate(1, 1, &[(0, 1.0), (0, 1.0)]), 0.0);
    }
}
