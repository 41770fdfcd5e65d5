//! Trials as processes on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use party::config::{AccuracyWorkload, Deadlines, PlayerTask, Transport, Workload};
use party::result::RunResult;
use party::run::Progress;
use spdz::channel::Name;
use spdz::network::Builtin;
use spdz::ring::kernels::InstructionSet;

use super::local::{self, Job, LaunchError};
use super::{Launcher, TrialError};
use crate::cell::{CellPlan, Trial};
use crate::data;
use crate::environment::unix_seconds;
use crate::graph_file::{self, GraphFile};
use crate::pace::{self, Pace};
use crate::reference::{self, file_in};
use crate::scratch::Scratch;
use crate::settings::Settings;

/// Images of one inference when the test set is scored, unless more are timed at once anyway:
/// what the parties compute for each image stays the same, and takes less time.
const SCORING_BATCH: usize = 100;

/// Where things are on this machine.
#[derive(Clone, Debug)]
pub struct Files {
    /// Folder with the test set.
    pub data: PathBuf,
    /// Folder with the weights.
    pub models: PathBuf,
    /// The party program.
    pub party: PathBuf,
}

/// Starts a process for each party, on loopback.
#[derive(Debug)]
pub struct Here {
    files: Files,
    settings: Settings,
    /// The outputs of plaintext networks.
    references: Mutex<BTreeMap<Builtin, PathBuf>>,
    folder: Scratch,
    commit: String,
}

/// The commit that a party program says it was built from.
fn commit(party: &Path) -> anyhow::Result<String> {
    let said = local::party_command(party).arg("--version").output();
    let said = said.with_context(|| format!("cannot run the party {}", party.display()))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let commit = said.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    Ok(commit.map_or("unknown", |(commit, _)| commit).to_owned())
}

/// Makes sure that a party program keeps to the instructions that this one is limited to.
fn check_limit(party: &Path) -> anyhow::Result<()> {
    let limit = InstructionSet::detect();
    if InstructionSet::available().next() == Some(limit) {
        return Ok(());
    }
    let help = local::party_command(party).arg("--help").output()?;
    if String::from_utf8_lossy(&help.stdout).contains("--instruction-set") {
        return Ok(());
    }
    let party = party.display();
    bail!("{party} is of a version without --instruction-set: it would use more than {limit}")
}

impl Here {
    /// Trials with these settings.
    ///
    /// # Errors
    /// If there is no temporary folder, or no party program.
    pub fn new(files: Files, settings: &Settings) -> anyhow::Result<Self> {
        let folder = Scratch::new()?;
        let commit = commit(&files.party)?;
        check_limit(&files.party)?;
        let (settings, references) = (settings.clone(), Mutex::default());
        Ok(Self { files, settings, references, folder, commit })
    }

    /// The file with the outputs of a plaintext network, made when it is first asked for.
    fn reference(&self, network: Builtin) -> anyhow::Result<PathBuf> {
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = references.get(&network) {
            return Ok(path.clone());
        }
        let path = file_in(self.folder.path(), network);
        let Files { data, models, .. } = &self.files;
        reference::write(network, data, models, self.settings.accuracy_samples, &path)?;
        references.insert(network, path.clone());
        Ok(path)
    }

    /// What the parties of a network are to do.
    fn network(&self, cell: &CellPlan, task: Task, result: &Path) -> anyhow::Result<Job> {
        let network: Builtin = cell.key.network.parse()?;
        let file = |file: data::File| -> anyhow::Result<PathBuf> {
            // The parties may run in another folder than this program.
            Ok(fs::canonicalize(file.locate(&self.files.data)?)?)
        };
        let weights = file_in(&self.files.models, network);
        let inputs = Some(fs::canonicalize(&weights).unwrap_or(weights));
        let accuracy = || {
            anyhow::Ok(AccuracyWorkload {
                samples: self.settings.accuracy_samples,
                labels: file(data::TEST_LABELS)?,
                reference: Some(self.reference(network)?),
            })
        };
        let timed = |number: u64| if task.timed { number } else { 0 };
        let workload = Workload {
            images: file(data::TEST_IMAGES)?,
            warmup: timed(self.settings.warmup),
            warmup_seconds: timed(self.settings.warmup_seconds()),
            repetitions: timed(self.settings.repetitions),
            offline: cell.key.offline_mode,
            accuracy: task.scored.then(accuracy).transpose()?,
            inspect: None,
            result: Some(result.into()),
        };
        let players =
            BTreeMap::from([(Name::MODEL_OWNER, PlayerTask { inputs, ..PlayerTask::default() })]);
        Ok(self.job(cell, players, Some(workload)))
    }

    /// What the parties of a graph are to do.
    fn graph(&self, cell: &CellPlan, graph: &GraphFile, result: &Path) -> anyhow::Result<Job> {
        let plan = cell.computation.plan()?;
        let mut players =
            graph_file::tasks(&graph.players, &BTreeMap::new(), &plan).map_err(|error| {
                anyhow::anyhow!("{error}\n(under `players` of {})", graph.file.display())
            })?;
        let coordinator = players.entry(plan.coordinator()).or_default();
        coordinator.warmup = Some(self.settings.warmup);
        coordinator.evaluations = Some(self.settings.repetitions);
        coordinator.offline = Some(cell.key.offline_mode);
        coordinator.result = Some(result.into());
        Ok(self.job(cell, players, None))
    }

    fn job(
        &self,
        cell: &CellPlan,
        players: BTreeMap<Name, PlayerTask>,
        workload: Option<Workload>,
    ) -> Job {
        Job {
            computation: cell.computation.clone(),
            players,
            workload,
            store: self.settings.store(),
            threads: self.settings.threads,
            deadlines: Deadlines::default(),
            transport: Transport { network: cell.key.conditions, ..self.settings.transport() },
        }
    }

    fn run(
        &self,
        configs: &[party::config::PartyConfig],
        folder: &Path,
        result: &Path,
        on_progress: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> anyhow::Result<RunResult> {
        let mut running = local::start(configs, folder, &self.files.party)?;
        running.wait(interrupted, on_progress)?;
        let json = fs::read(result).context("the client left no result")?;
        let run: RunResult =
            serde_json::from_slice(&json).context("the client's result cannot be read")?;
        if run.accuracy.is_some_and(|accuracy| accuracy.plaintext.is_none()) {
            anyhow::bail!(
                "the client was given the outputs of the plaintext network {}, but its result does not \
                 compare with it; give this program and the party the same version",
                run.network
            );
        }
        Ok(run)
    }
}

/// What one launch of the parties is for.
#[derive(Clone, Copy)]
struct Task {
    timed: bool,
    scored: bool,
}

impl Here {
    fn scoring_batch(&self) -> usize {
        SCORING_BATCH.min(self.settings.accuracy_samples)
    }

    /// Scores the test set, by parties of their own.
    fn score(
        &self,
        cell: &CellPlan,
        on_progress: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<RunResult, TrialError> {
        let task = Task { timed: false, scored: true };
        let mut large = cell.clone();
        large.computation.batch_size = Some(self.scoring_batch());
        let (scores, _) = self.launch_once(&large, task, on_progress, interrupted)?;
        if scores.out_of_range == 0 {
            return Ok(scores);
        }
        // Where one image is out of range all of its batch would count as wrong.
        let (scores, _) = self.launch_once(cell, task, on_progress, interrupted)?;
        Ok(scores)
    }

    /// Starts the parties and waits for what they report; how fast the machine was around it.
    fn launch_once(
        &self,
        cell: &CellPlan,
        task: Task,
        on_progress: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<(RunResult, Pace), TrialError> {
        let prepare = || {
            let folder = Scratch::new()?;
            let result = folder.path().join("result.json");
            let job = match &cell.graph {
                None => self.network(cell, task, &result)?,
                Some(graph) => self.graph(cell, graph, &result)?,
            };
            let configs = local::configure(&job, folder.path())?;
            anyhow::Ok((folder, result, configs))
        };
        // What is wrong with files and settings another trial finds too.
        let (folder, result, configs) = prepare().map_err(TrialError::NonRetryable)?;
        let before = pace::measure();
        let run = self.run(&configs, folder.path(), &result, on_progress, interrupted);
        let pace = Pace::between(before, pace::measure());
        let result = run.map_err(|error| {
            let launch = error.downcast_ref::<LaunchError>();
            // The parties hear of Ctrl-C too, and may fail of it before this program looks.
            if interrupted.load(Ordering::Relaxed)
                || matches!(launch, Some(LaunchError::Interrupted))
            {
                TrialError::Interrupted
            } else if matches!(launch, Some(LaunchError::Failed { .. })) || launch.is_none() {
                TrialError::Failed(error)
            } else {
                TrialError::NonRetryable(error)
            }
        })?;
        Ok((result, pace))
    }
}

impl Launcher for Here {
    fn commit(&self) -> String {
        self.commit.clone()
    }

    fn inputs(&self) -> Vec<PathBuf> {
        let Files { data, models, .. } = &self.files;
        // What is wrong with them was said when the cells were made.
        let networks = self.settings.models().unwrap_or_default();
        let mut files: Vec<_> = networks.iter().map(|network| file_in(models, *network)).collect();
        if !networks.is_empty() {
            let test_set = [data::TEST_IMAGES, data::TEST_LABELS];
            files.extend(test_set.iter().filter_map(|file| file.locate(data).ok()));
        }
        for graph in &self.settings.graphs {
            files.push(graph.file.clone());
            files.extend(graph.players.values().cloned());
        }
        files
    }

    fn launch(
        &self,
        cell: &CellPlan,
        round: u32,
        scored: bool,
        on_progress: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<Trial, TrialError> {
        let started_unix_seconds = unix_seconds();
        // A graph of one's own has no test set to score.
        let scored = scored && cell.graph.is_none();
        let apart = scored && cell.computation.batch() < self.scoring_batch();
        let task = Task { timed: true, scored: scored && !apart };
        let (mut result, pace) = self.launch_once(cell, task, on_progress, interrupted)?;
        if apart {
            let scores = self.score(cell, on_progress, interrupted)?;
            result.accuracy = scores.accuracy;
            result.out_of_range += scores.out_of_range;
        }
        let pace = Some(pace);
        let nodes = BTreeMap::new();
        // The sweep adds what it measures beside the trial.
        Ok(Trial { round, started_unix_seconds, pace, floor: None, load: None, nodes, result })
    }
}
