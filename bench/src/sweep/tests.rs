//! Sweeps without parties: in which order trials are made, and what is made of them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use party::result::{Accuracy, RunResult};
use party::run::Progress;

use super::*;
use crate::cell::tests::{result, trial};
use crate::cell::{CellPlan, Place, Trial};
use crate::launch::TrialError;
use crate::launch::local::LaunchError;

/// Reports scripted results, without parties.
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
        cell: &CellPlan,
        round: u32,
        scored: bool,
        _: &mut dyn FnMut(Progress),
        _: &AtomicBool,
    ) -> Result<Trial, TrialError> {
        self.launched.lock().unwrap().push((cell.position, round, scored));
        let median = (self.outcome)(cell.position, round)?;
        let accuracy = scored.then_some(Accuracy {
            samples: 10,
            plaintext: Some(1.0),
            secure: 1.0,
            agreement: Some(1.0),
            mean_kl_divergence: Some(0.0),
        });
        let network = cell.key.network.clone();
        let result = RunResult { network, accuracy, ..result(&[median; 4]) };
        Ok(Trial { round, result, ..trial(&[median; 4]) })
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
        let all: Vec<usize> = (0..9).collect();
        let order = schedule::order(&all, round as u32, 1);
        assert_eq!(cells, order.into_iter().copied().collect::<Vec<_>>());
    }
    assert!(
        script.launched.lock().unwrap().iter().all(|(_, round, scored)| *scored == (*round == 0))
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
    assert!(again.contains(&(5, 0)) && again.iter().filter(|(cell, _)| *cell == 4).count() == 3);
    assert!(results.runs.iter().all(|cell| cell.failure.is_none() && cell.trials.len() == 3));
}

#[test]
fn what_no_trial_can_survive_ends_the_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script::new(|_, _| Err(TrialError::NonRetryable(anyhow::anyhow!("no operator"))));
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
fn the_trials_of_two_builds_alternate() {
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
    assert_eq!((before.runs.len(), after.runs.len(), &before.sweep.id), (9, 9, &after.sweep.id));
    for (results, ms) in [(before, 1.0), (after, 2.0)] {
        assert!(results.runs.iter().all(|cell| cell.trials.len() == 3));
        let means = results.runs.iter().map(|cell| cell.merged.as_ref().unwrap());
        assert!(means.into_iter().all(|run| run.combined.mean_ms == ms));
    }
    assert_eq!(first.launched().len(), 27);
    assert_eq!(second.launched(), first.launched(), "each next to the other");
    drop(finished);
    // Another number of builds is another sweep.
    let error = sweep(&settings(), folder.path(), &first).unwrap_err().to_string();
    assert!(error.contains("the parties' commits"), "{error}");
}
