//! The rounds of a sweep: workers launch the trials that are due, and the calling thread records
//! their results.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use anyhow::Context;
use party::run::Progress;

use super::floors;
use super::journal::{Journal, Record};
use super::options::Options;
use super::schedule::{self, EXTRA_TRIALS};
use super::tally::{Due, Tally};
use crate::accuracy;
use crate::cell::{CellPlan, Place, Trial};
use crate::launch::local::LaunchError;
use crate::launch::{Launcher, TrialError};
use crate::load::{Load, Ticks};
use crate::progress::Reporter;
use crate::settings::Settings;

/// What the rounds of a sweep are made with.
pub(super) struct Rounds<'a> {
    pub(super) settings: &'a Settings,
    pub(super) options: &'a Options,
    /// One for each build.
    pub(super) launchers: &'a [&'a dyn Launcher],
    pub(super) interrupted: &'a AtomicBool,
    pub(super) journal: Option<&'a Journal>,
    /// In the order of the settings.
    pub(super) cells: &'a [CellPlan],
}

/// What a worker reports.
enum Event<'a> {
    /// A trial has got so far.
    Begun(Due<'a>, &'static str),
    Progress(Progress),
    /// A trial is over, after so many seconds.
    Ended(Due<'a>, f64, Box<Result<Trial, TrialError>>),
}

impl<'a> Rounds<'a> {
    /// The rounds that were asked for, and then those of suspicious cells.
    ///
    /// # Errors
    /// On interruption, if no trial can succeed, or if the journal cannot be written.
    pub(super) fn run(&self, tally: &mut Tally<'a>, reporter: &mut Reporter) -> anyhow::Result<()> {
        let Settings { trials, seed, accuracy_samples, .. } = *self.settings;
        for round in 0..trials + EXTRA_TRIALS {
            let order = match self.options.in_order {
                true => self.cells.iter().collect(),
                false => schedule::order(self.cells, round, seed),
            };
            let due = tally.due(round, order, accuracy_samples > 0);
            if !due.is_empty() {
                if let Some(why) = tally.why_again(round, &due) {
                    reporter.line(&why);
                }
                self.round(round, due, tally, reporter)?;
            }
        }
        Ok(())
    }

    /// Makes these trials, so many at a time.
    fn round(
        &self,
        round: u32,
        due: VecDeque<Due<'a>>,
        tally: &mut Tally<'a>,
        reporter: &mut Reporter,
    ) -> anyhow::Result<()> {
        let workers = self.options.parallel.clamp(1, due.len());
        let due = Mutex::new(due);
        // Set when the others need not begin another trial.
        let over = AtomicBool::new(false);
        let (sender, events) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (sender, due, over) = (sender.clone(), &due, &over);
                scope.spawn(move || self.work(round, due, over, &sender));
            }
            drop(sender);
            let mut outcome = Ok(());
            for event in events {
                let handled = self.handle(round, workers, event, tally, reporter);
                if outcome.is_ok() && handled.is_err() {
                    over.store(true, Ordering::Relaxed);
                    outcome = handled;
                }
            }
            outcome
        })
    }

    /// Makes one trial after the other until none is due or all is `over`.
    fn work(
        &self,
        round: u32,
        due: &Mutex<VecDeque<Due<'a>>>,
        over: &AtomicBool,
        events: &mpsc::Sender<Event<'a>>,
    ) {
        // Nobody receives any more only when all is over.
        let send = |event| drop(events.send(event));
        while !over.load(Ordering::Relaxed) {
            let next = due.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(next) = next else { return };
            let began = Instant::now();
            let outcome = self.trial(round, next, &send);
            let seconds = began.elapsed().as_secs_f64();
            // Before it is reported: this worker must not begin another.
            if ends_the_sweep(&outcome, self.options.stop_at_failure) {
                over.store(true, Ordering::Relaxed);
            }
            send(Event::Ended(next, seconds, Box::new(outcome)));
        }
    }

    /// One trial, and on this machine what is measured beside it.
    fn trial(
        &self,
        round: u32,
        due: Due<'a>,
        send: &dyn Fn(Event<'a>),
    ) -> Result<Trial, TrialError> {
        let Due { cell, build, scored } = due;
        let local = self.settings.on == Place::Local;
        let floor = if local {
            send(Event::Begun(due, "measuring the floor"));
            let bench = &self.options.bench;
            let floor = floors::measure(cell, bench, self.settings.transport(), self.interrupted);
            floor.map_err(|error| match error.downcast_ref() {
                Some(LaunchError::Interrupted) => TrialError::Interrupted,
                _ => TrialError::NonRetryable(error),
            })?
        } else {
            None
        };
        send(Event::Begun(due, "starting the parties"));
        let before = Ticks::now().filter(|_| local);
        let trial = self.launchers[build].launch(
            cell,
            round,
            scored,
            &mut |progress| send(Event::Progress(progress)),
            self.interrupted,
        )?;
        let load = before.zip(Ticks::now()).and_then(|(before, now)| before.load_until(&now));
        Ok(Trial { floor, load, ..trial })
    }

    fn handle(
        &self,
        round: u32,
        workers: usize,
        event: Event<'a>,
        tally: &mut Tally<'a>,
        reporter: &mut Reporter,
    ) -> anyhow::Result<()> {
        match event {
            Event::Begun(due, what) => {
                let place = tally.place(round);
                let label = match workers {
                    1 => format!("{place}{}", tally.name(due)),
                    _ => format!("{place}{workers} at a time"),
                };
                reporter.begin(&label, what);
            }
            Event::Progress(progress) => {
                if workers == 1 {
                    reporter.update(progress);
                }
            }
            Event::Ended(due, seconds, outcome) => {
                let (name, key) = (tally.name(due), &due.cell.key);
                let trial = match *outcome {
                    Ok(trial) => trial,
                    Err(TrialError::Interrupted) => return Err(LaunchError::Interrupted.into()),
                    Err(TrialError::Failed(error)) if !self.options.stop_at_failure => {
                        let why = format!("{error:#}");
                        tally.fail(due.build, key, why.clone());
                        reporter.warn(&format!("{}{name}: failed: {why}", tally.place(round)));
                        return Ok(());
                    }
                    Err(TrialError::Failed(error) | TrialError::NonRetryable(error)) => {
                        return Err(error).with_context(|| format!("{name} failed"));
                    }
                };
                let line = summary(&trial);
                let row = self.options.table.map(|table| (table.row)(key, &trial));
                let busy = trial.load.filter(Load::is_busy);
                let record = Record { key: key.clone(), build: due.build, seconds, trial };
                if let Some(journal) = self.journal {
                    journal.keep(due.cell, &record)?;
                }
                tally.add(record);
                if let Some(load) = busy {
                    reporter.warn(&format!("{name}: {load}, so it may be slower than it need be"));
                }
                if let Some(row) = row {
                    return reporter.print(&row);
                }
                let (place, left) = (tally.place(round), tally.left(workers));
                reporter.line(&format!("{place}{name}: {line}{left}"));
            }
        }
        Ok(())
    }
}

/// Whether no trial is to follow this one.
fn ends_the_sweep(outcome: &Result<Trial, TrialError>, stop_at_failure: bool) -> bool {
    match outcome {
        Ok(_) => false,
        Err(TrialError::Failed(_)) => stop_at_failure,
        Err(TrialError::Interrupted | TrialError::NonRetryable(_)) => true,
    }
}

/// A trial in a few words.
fn summary(trial: &Trial) -> String {
    let run = &trial.result;
    let accuracy = run.accuracy.as_ref().map_or(String::new(), |accuracy| {
        let plaintext = accuracy
            .plaintext
            .map_or(String::new(), |plaintext| format!(", {:.2} % plaintext", plaintext * 100.0));
        format!(", accuracy {} secure{plaintext}", accuracy::in_words(accuracy))
    });
    let (combined, online) = (run.combined.mean_ms, run.online.mean_ms);
    format!("{combined:.2} ms combined, {online:.2} ms online{accuracy}")
}
