//! `bench sweep`: networks, batch sizes, number formats and truncations, in alternating trials.
//!
//! Rounds follow each other, and each has a trial of every cell in an order of its own: what
//! the machine does for a minute lands on one trial of several cells instead of on all
//! trials of one. Each trial is kept at once ([`journal`]), so that a sweep goes on where it was
//! interrupted.
//!
//! The trials of two builds can alternate too: then each trial of one is next to a trial of
//! the other, and what the machine does meanwhile happens to both.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::environment::Environment;
use crate::launch::Launcher;
use crate::progress::Reporter;
use crate::results::{Results, SCHEMA_VERSION, Sweep};
use crate::settings::Settings;

mod floors;
pub mod inputs;
pub mod journal;
pub mod lock;
mod options;
mod rounds;
pub mod schedule;
mod tally;
#[cfg(test)]
mod tests;

use journal::{Head, Journal};
use lock::Lock;
pub use options::{Options, Table};
use rounds::Rounds;
use schedule::EXTRA_TRIALS;
use tally::Tally;

/// What a sweep measured.
#[derive(Debug)]
pub struct Finished {
    /// What was measured of each build.
    pub results: Vec<Results>,
    /// How many trials were there from before.
    pub resumed: usize,
    /// The right to write the results beside the journal, to be kept until that is done.
    pub lock: Option<Lock>,
}

/// Measures everything, and reports on standard error. Each launcher has a build of its
/// own; there must be one.
///
/// # Errors
/// If the settings describe no sweep, the journal is of another or cannot be written, another
/// process measures into its folder, no trial can succeed, or on interruption. A cell whose trial fails says why; the sweep goes
/// on.
pub fn run(
    settings: &Settings,
    options: &Options,
    launchers: &[&dyn Launcher],
    interrupted: &AtomicBool,
) -> anyhow::Result<Finished> {
    let cells = settings.cells()?;
    let builds: Vec<String> = launchers.iter().map(|launcher| launcher.commit()).collect();
    let mut reporter = Reporter::new();
    if let Some(networks) = settings.left_out() {
        reporter.line(&networks);
    }
    let lock = options.journal.as_deref().map(Lock::of).transpose()?;
    let journal = options.journal.as_deref().map(Journal::in_folder);
    let journal = journal.as_ref();
    let environment = Environment::read();
    let mut tally = Tally::new(&cells, launchers.len(), settings.trials);
    let files = launchers.iter().flat_map(|launcher| launcher.inputs()).collect();
    let inputs = inputs::fingerprints(files);
    let begun = match journal {
        Some(journal) => {
            journal.resume(settings, &environment, &builds, &inputs)?.zip(Some(journal))
        }
        None => None,
    };
    let (head, rows) = match begun {
        Some((head, journal)) => {
            let rounds = settings.trials + EXTRA_TRIALS;
            let kept = journal.kept(&cells, launchers.len(), rounds)?;
            let rows = options.table.map(|table| table.row);
            let rows: Vec<_> =
                kept.iter().filter_map(|kept| Some(rows?(&kept.key, &kept.trial))).collect();
            kept.into_iter().for_each(|record| tally.add(record));
            let (done, of) = (tally.done(), tally.planned());
            reporter.line(&format!("going on after {done} of {of} trials"));
            (head, rows)
        }
        None => {
            let (name, settings) = (settings.name.clone(), settings.clone());
            let sweep = Sweep { id: fresh_id()?, name, settings };
            let schema_version = SCHEMA_VERSION;
            let head = Head { schema_version, sweep, environment, builds, inputs };
            if let Some(journal) = journal {
                journal.begin(&head)?;
            }
            (head, Vec::new())
        }
    };
    if let Some(table) = options.table {
        reporter.print(&(table.head)(&head.environment, settings))?;
        rows.iter().try_for_each(|row| reporter.print(row))?;
    }
    let resumed = tally.done();
    launchers.iter().for_each(|launcher| launcher.belongs_to(&head.sweep.id));
    let rounds = Rounds { settings, options, launchers, interrupted, journal, cells: &cells };
    let outcome = rounds.run(&mut tally, &mut reporter);
    reporter.finish();
    outcome?;
    let of_build = |(build, launcher): (usize, &&dyn Launcher)| Results {
        schema_version: head.schema_version,
        sweep: head.sweep.clone(),
        environment: Environment {
            cluster: launcher.cluster().or(head.environment.cluster.clone()),
            commit: head.builds[build].clone(),
            ..head.environment.clone()
        },
        speeds: tally.speeds(),
        runs: tally.cells(build),
    };
    Ok(Finished { results: launchers.iter().enumerate().map(of_build).collect(), resumed, lock })
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
