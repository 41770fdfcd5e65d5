//! The players' sides of a run: the inputs of each, and what it does with its outputs.
//!
//! One player, the coordinator, commands and measures; for the client of a network that is an
//! inference of images and a score, for any other a graph on tensors from a file.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spdz::channel::{Channel, Name};
use spdz::graph::Tensors;
use spdz::network::LOGITS;
use spdz::plan::Plan;
use spdz::ring::Ring;
use spdz::role::{self, Player, report_tag};
use zeroize::Zeroizing;

use crate::config::{OfflineMode, PartyConfig, PlayerTask, Workload};
use crate::files;
use crate::inspection::Inspector;
use crate::net::Link;
use crate::result::{AccuracyCounter, Inspection, Latency, LayerTime, RunResult};
use crate::run::{Report, RunError, at, servers};
use crate::telemetry::{Telemetry, Told, Watcher};
use crate::tensors::{Inputs, Outputs};
use crate::workload::{self, DataError, Expected, ImageSet};

/// The data of a player, besides its configuration.
pub(crate) enum PlayerData<'config> {
    /// Of the client of a network.
    Inference(&'config Workload, Box<InferenceData>),
    /// Of any other player.
    Graph(PlayerTask, Inputs),
}

/// What the client of a network infers, and what its outputs are scored against.
pub(crate) struct InferenceData {
    images: ImageSet,
    expected: Option<Expected>,
    inspector: Option<Inspector>,
}

impl<'config> PlayerData<'config> {
    /// Reads the files of `player`, and makes sure that it can write where it has to.
    pub(crate) fn load(
        config: &'config PartyConfig,
        plan: &Arc<Plan>,
        player: Name,
    ) -> Result<Self, RunError> {
        if let Some(workload) = &config.workload {
            let images = ImageSet::load(workload, plan)?;
            let accuracy = workload.accuracy.as_ref();
            let expected = accuracy.map(|a| Expected::load(a, &images, plan)).transpose()?;
            let inspect = workload.inspect.as_ref();
            let inspector = inspect.map(|settings| Inspector::load(settings, plan)).transpose()?;
            workload.result.as_deref().map_or(Ok(()), check_place)?;
            let data = InferenceData { images, expected, inspector };
            return Ok(Self::Inference(workload, Box::new(data)));
        }
        let task = config.player.clone().unwrap_or_default();
        let inputs = match &task.inputs {
            Some(path) => {
                let file = Zeroizing::new(workload::read(path)?);
                let specs = plan.graph().inputs_of(player);
                // In any other graph the name means nothing.
                let variances = config.computation.network.is_some();
                Inputs::read(&file, specs, variances)
                    .map_err(|source| RunError::Tensors { path: path.clone(), source })?
            }
            None => Inputs::none(),
        };
        [&task.outputs, &task.result]
            .into_iter()
            .flatten()
            .try_for_each(|path| check_place(path))?;
        Ok(Self::Graph(task, inputs))
    }
}

fn check_place(path: &Path) -> Result<(), DataError> {
    files::check_place(path).map_err(|source| DataError::Write { path: path.into(), source })
}

/// Plays `name` to the end.
pub(crate) fn play<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    name: Name,
    data: PlayerData<'_>,
    telemetry: &Telemetry,
    links: &mut [Link],
) -> Result<Played, RunError> {
    match data {
        PlayerData::Inference(workload, data) => {
            let result = infer::<R>(config, plan, workload, *data, telemetry, links)?;
            Ok(Played { result: Some(result), out_of_range: None })
        }
        PlayerData::Graph(task, inputs) => {
            let first = inputs.tensors(0);
            let player = Player::<R, _>::set_up(plan.clone(), name, &first, servers(links))?;
            drop(first);
            if !plan.takes_part(name) {
                telemetry.set_up();
                tracing::info!("handed over its inputs");
                return Ok(Played::default());
            }
            let mut out_of_range = OutOfRangeOutputs::default();
            let player = player.observed_by(telemetry.observer());
            let path = task.outputs.as_deref();
            let mut outputs = path.map(|path| Outputs::new(path, plan.graph(), name));
            let (result, evaluations) = if plan.coordinator() == name {
                let series = Series {
                    warmup: task.warmup.unwrap_or(0),
                    timed: task.evaluations.unwrap_or(1),
                    offline: task.offline.unwrap_or_default(),
                };
                let (measured, evaluations) =
                    coordinate(player, series, &inputs, &mut outputs, &mut out_of_range)?;
                let reports = reports(plan, links)?;
                let result = RunResult {
                    out_of_range: out_of_range.count,
                    ..summarise(config, plan, series, &measured, &reports, evaluations)
                };
                write_result(task.result.as_deref(), &result)?;
                (Some(result), evaluations)
            } else {
                let evaluations = follow(player, &inputs, &mut outputs, &mut out_of_range)?;
                tracing::info!(evaluations, "took part in all evaluations");
                (None, evaluations)
            };
            if let Some(outputs) = outputs {
                let refuse = |source| RunError::Write { path: outputs.path().into(), source };
                outputs.write().map_err(refuse)?;
            }
            Ok(Played { result, out_of_range: out_of_range.error(evaluations) })
        }
    }
}

/// How far the coordinator is; a line of JSON on standard output each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// What it does.
    pub stage: Stage,
    /// Evaluations done.
    pub done: u64,
    /// Of how many.
    pub of: u64,
}

/// What the coordinator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Evaluations for a time; `done` and `of` are whole seconds.
    Settle,
    /// Having randomness made ahead.
    Prepare,
    /// Evaluations that are not timed.
    Warmup,
    /// Timed evaluations.
    Timed,
    /// Scoring the test set.
    Accuracy,
    /// Comparing the outputs of layers.
    Inspect,
}

impl Progress {
    /// Tells whoever reads standard output, seldom enough not to disturb what is measured.
    fn report(self, last: &mut Option<Instant>) {
        let now = Instant::now();
        let due = last.is_none_or(|last| now - last > Duration::from_millis(200));
        if due || self.done == self.of {
            *last = Some(now);
            if let Ok(line) = serde_json::to_string(&self) {
                // Nobody has to read it.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }
}

/// How many evaluations, and when their randomness is made.
#[derive(Clone, Copy)]
struct Series {
    warmup: u64,
    timed: u64,
    offline: OfflineMode,
}

/// What was measured of each timed evaluation, milliseconds.
struct Measured {
    offline: Vec<f64>,
    online: Vec<f64>,
}

/// What a player did.
#[derive(Default)]
pub(crate) struct Played {
    /// What the coordinator measured.
    pub(crate) result: Option<RunResult>,
    /// Set if some of the outputs that it keeps are out of range.
    pub(crate) out_of_range: Option<OutOfRange>,
}

/// Outputs of which some are out of the format's range.
#[derive(Debug, thiserror::Error)]
#[error(
    "the outputs of {count} of {evaluations} evaluations are out of range, NaN where they are kept; the first: {first}"
)]
pub struct OutOfRange {
    count: u64,
    evaluations: u64,
    first: role::Error,
}

/// Evaluations whose outputs were out of range: the run goes on, and they are counted.
#[derive(Default)]
struct OutOfRangeOutputs {
    count: u64,
    first: Option<role::Error>,
}

impl OutOfRangeOutputs {
    /// The outputs, or nothing if they are out of range: a local truncation may fail,
    /// and the next evaluation is none the worse for it.
    fn admit(
        &mut self,
        outputs: Result<Tensors, role::Error>,
    ) -> Result<Option<Tensors>, RunError> {
        match outputs {
            Ok(outputs) => Ok(Some(outputs)),
            Err(error @ role::Error::OutputRange { .. }) => {
                tracing::warn!("{error}");
                self.count += 1;
                self.first.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The error, if there were any, after so many evaluations.
    fn error(self, evaluations: u64) -> Option<OutOfRange> {
        let Self { count, first } = self;
        first.map(|first| OutOfRange { count, evaluations, first })
    }
}

impl Measured {
    /// Room for so many, which is touched now: what a run takes does not grow while it lasts.
    fn with_room_for(evaluations: u64) -> Self {
        let room = || {
            let mut room = vec![f64::NAN; usize::try_from(evaluations).unwrap_or_default()];
            room.clear();
            room
        };
        Self { offline: room(), online: room() }
    }
}

/// Has a series of evaluations made on the `inputs` of each, counted from 0; hands the outputs
/// to `keep`, `None` where they were out of range.
fn measure<R: Ring, C: Channel>(
    player: &mut Player<R, C, Watcher<Told>>,
    series: Series,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
    inputs: impl Fn(u64) -> Tensors,
    mut keep: impl FnMut(Option<Tensors>) -> Result<(), RunError>,
) -> Result<Measured, RunError> {
    let milliseconds = |from: Instant| from.elapsed().as_secs_f64() * 1e3;
    let Series { warmup, timed, offline } = series;
    let prepare = |player: &mut Player<R, C, Watcher<Told>>| {
        let start = Instant::now();
        let ready = player.prepare()?;
        Ok::<_, RunError>((ready, milliseconds(start)))
    };
    let all = warmup + timed;
    let mut prepared = VecDeque::new();
    if offline == OfflineMode::Ahead {
        for done in 0..all {
            prepared.push_back(prepare(player)?);
            Progress { stage: Stage::Prepare, done: done + 1, of: all }.report(last_report);
        }
    }
    let mut measured = Measured::with_room_for(timed);
    for number in 0..all {
        let inputs = inputs(number);
        let (ready, offline) = match prepared.pop_front() {
            Some(prepared) => prepared,
            None => prepare(player)?,
        };
        let start = Instant::now();
        let outputs = player.evaluate(ready, &inputs);
        let online = milliseconds(start);
        keep(out_of_range.admit(outputs)?)?;
        let progress = if number < warmup {
            Progress { stage: Stage::Warmup, done: number + 1, of: warmup }
        } else {
            measured.offline.push(offline);
            measured.online.push(online);
            Progress { stage: Stage::Timed, done: number + 1 - warmup, of: timed }
        };
        progress.report(last_report);
    }
    Ok(measured)
}

/// Has evaluations made for so long, before any that count: a machine that has just started
/// the parties has more to do for a while.
fn settle<R: Ring, C: Channel>(
    player: &mut Player<R, C, Watcher<Told>>,
    time: Duration,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
    inputs: impl Fn(u64) -> Tensors,
) -> Result<(), RunError> {
    let start = Instant::now();
    for number in 0.. {
        let passed = start.elapsed();
        if passed >= time {
            break;
        }
        let ready = player.prepare()?;
        out_of_range.admit(player.evaluate(ready, &inputs(number)))?;
        Progress { stage: Stage::Settle, done: passed.as_secs(), of: time.as_secs() }
            .report(last_report);
    }
    Ok(())
}

fn infer<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    workload: &Workload,
    data: InferenceData,
    telemetry: &Telemetry,
    links: &mut [Link],
) -> Result<RunResult, RunError> {
    let InferenceData { images, expected, inspector } = data;
    let expected = expected.as_ref();
    let batch = config.computation.batch();
    let nothing = Tensors::new();
    let client = Player::<R, _>::set_up(plan.clone(), Name::CLIENT, &nothing, servers(links))?;
    let mut client = client.observed_by(telemetry.observer());
    let series =
        Series { warmup: workload.warmup, timed: workload.repetitions, offline: workload.offline };
    let mut last_report = None;
    let inputs = |number: u64| images.batch((number as usize).wrapping_mul(batch) % images.count());
    let mut out_of_range = OutOfRangeOutputs::default();
    let warmup = Duration::from_secs(workload.warmup_seconds);
    settle(&mut client, warmup, &mut last_report, &mut out_of_range, inputs)?;
    let measured =
        measure(&mut client, series, &mut last_report, &mut out_of_range, inputs, |_| Ok(()))?;

    let mut counter = AccuracyCounter::default();
    let samples = expected.map_or(0, |expected| expected.samples);
    for first in (0..samples).step_by(batch) {
        let ready = client.prepare()?;
        let outputs = out_of_range.admit(client.evaluate(ready, &images.batch(first)))?;
        let Some(expected) = expected else { break };
        let logits = outputs.as_ref().and_then(|outputs| outputs.get(LOGITS));
        let classes = expected.classes;
        for image in first..samples.min(first + batch) {
            let row = |at: usize| at * classes..(at + 1) * classes;
            let secure = logits.map(|logits| &logits.as_slice()[row(image - first)]);
            let plaintext = expected.logits.as_ref().map(|logits| &logits[row(image)]);
            counter.add(expected.labels[image], plaintext, secure);
        }
        let done = samples.min(first + batch) as u64;
        Progress { stage: Stage::Accuracy, done, of: samples as u64 }.report(&mut last_report);
    }
    let inspection = match inspector {
        Some(inspector) => Some(inspect(
            &mut client,
            inspector,
            &images,
            batch,
            telemetry,
            &mut last_report,
            &mut out_of_range,
        )?),
        None => None,
    };
    let evaluations = client.finish()?;
    let accuracy = expected.map(|_| counter.finish());
    let result = RunResult {
        out_of_range: out_of_range.count,
        accuracy,
        inspection,
        ..summarise(config, plan, series, &measured, &reports(plan, links)?, evaluations)
    };
    write_result(workload.result.as_deref(), &result)?;
    Ok(result)
}

/// Has images inferred and compares each layer's outputs with the plaintext ones.
fn inspect<R: Ring, C: Channel>(
    client: &mut Player<R, C, Watcher<Told>>,
    mut inspector: Inspector,
    images: &ImageSet,
    batch: usize,
    telemetry: &Telemetry,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<Inspection, RunError> {
    let samples = inspector.samples().min(images.count());
    for first in (0..samples).step_by(batch) {
        let inputs = images.batch(first);
        let ready = client.prepare()?;
        let revealed = out_of_range.admit(client.evaluate(ready, &inputs))?;
        let counted = batch.min(samples - first);
        inspector.compare(inputs, counted, revealed.as_ref())?;
        telemetry.inspected(|| inspector.finish());
        let done = (first + counted) as u64;
        Progress { stage: Stage::Inspect, done, of: samples as u64 }.report(last_report);
    }
    Ok(inspector.finish())
}

/// Commands and measures a graph's evaluations.
fn coordinate<R: Ring, C: Channel>(
    mut player: Player<R, C, Watcher<Told>>,
    series: Series,
    inputs: &Inputs,
    outputs: &mut Option<Outputs>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<(Measured, u64), RunError> {
    let inputs = |number| inputs.tensors(number);
    let measured = measure(&mut player, series, &mut None, out_of_range, inputs, |tensors| {
        keep(outputs, tensors.as_ref())
    })?;
    Ok((measured, player.finish()?))
}

/// Takes part in evaluations that another player commands.
fn follow<R: Ring, C: Channel>(
    mut player: Player<R, C, Watcher<Told>>,
    inputs: &Inputs,
    outputs: &mut Option<Outputs>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<u64, RunError> {
    // Made before they are asked for: everybody waits for them.
    let next = RefCell::new(inputs.tensors(0));
    player.follow(
        |_| Ok(next.take()),
        |number, found| {
            keep(outputs, out_of_range.admit(found)?.as_ref())?;
            next.replace(inputs.tensors(number + 1));
            Ok(())
        },
    )
}

fn keep(outputs: &mut Option<Outputs>, tensors: Option<&Tensors>) -> Result<(), RunError> {
    match outputs {
        Some(outputs) => Ok(outputs.keep(tensors)?),
        None => Ok(()),
    }
}

/// What the two servers measured.
fn reports(plan: &Plan, links: &mut [Link]) -> Result<[Report; 2], RunError> {
    let length = Report::bytes(plan);
    let [server0, server1] = servers(links).map(|server| {
        let bytes = server.recv(report_tag(), length).map_err(at("report of a server"))?;
        Ok::<_, RunError>(Report::from_bytes(&bytes))
    });
    Ok([server0?, server1?])
}

/// The result of a series, without an accuracy. `evaluations` are all of the session:
/// bytes and rounds are theirs.
fn summarise(
    config: &PartyConfig,
    plan: &Plan,
    series: Series,
    measured: &Measured,
    reports: &[Report; 2],
    evaluations: u64,
) -> RunResult {
    let [report0, report1] = reports;
    let each = evaluations.max(1);
    let Measured { offline, online } = measured;
    let combined = match series.offline {
        OfflineMode::Inline => offline.iter().zip(online).map(|(x, y)| x + y).collect(),
        // The randomness is there already.
        OfflineMode::Ahead => online.clone(),
    };
    // To reveal the outputs of layers takes its time, and what is found there takes the room.
    let inspected = config.computation.inspect;
    let latency = if inspected { Latency::of } else { Latency::with_distribution };
    RunResult {
        network: plan.graph().name().into(),
        format: plan.format(),
        truncation: plan.truncation(),
        batch_size: config.computation.batch(),
        repetitions: series.timed,
        offline_mode: series.offline,
        combined: latency(&combined),
        online: latency(online),
        offline: Latency::of(offline),
        online_bytes: report0.online_bytes.saturating_add(report1.online_bytes) / each,
        offline_bytes: report0.offline_bytes.saturating_add(report1.offline_bytes) / each,
        online_rounds: report0.online_rounds.max(report1.online_rounds) / each,
        layers: match inspected {
            true => Vec::new(),
            false => layer_times(plan, report0, each),
        },
        out_of_range: 0,
        accuracy: None,
        inspection: None,
    }
}

/// What a server needed for the layers, on average of so many evaluations.
fn layer_times(plan: &Plan, report: &Report, evaluations: u64) -> Vec<LayerTime> {
    let milliseconds = |sum: u64| sum as f64 / 1e6 / evaluations as f64;
    let layers = plan.evaluation_layers();
    let times = layers.iter().zip(&report.layers).enumerate().map(|(index, (layer, span))| {
        let (offline, online) = (milliseconds(span.offline), milliseconds(span.online));
        LayerTime::new(index, &layer.name, layer.kind, offline, online)
    });
    LayerTime::longest(times.collect())
}

/// Writes the result, if it has a place, so that a reader sees all of it or none.
fn write_result(path: Option<&Path>, result: &RunResult) -> Result<(), RunError> {
    let Some(path) = path else { return Ok(()) };
    let refuse = |source: std::io::Error| RunError::Write { path: path.into(), source };
    let json = serde_json::to_vec_pretty(result).map_err(|error| refuse(error.into()))?;
    files::write_whole(path, &json).map_err(refuse)
}
